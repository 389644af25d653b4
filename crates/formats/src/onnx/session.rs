//! Streams through a model that takes its states in and gives them out.

use super::model::{Given, OnnxModel, OnnxValue, array, array_into, failed};
use crate::files::{short, some_names};
use crate::{Error, HostArray, HostData, Result};
use recurve_graph::{Data, Dim, Element, IntArray, RunOptions};
use recurve_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// One state of a model: the output that holds it after a call becomes the input of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePair {
    /// The input's name.
    pub input: String,
    /// The output's name.
    pub output: String,
}

/// Calls of one model, one after the other, whose states stay on the device.
///
/// States begin as zeros. A dimension of a state that the file leaves open is the session's batch.
#[derive(Debug)]
pub struct OnnxSession {
    model: Arc<OnnxModel>,
    /// Places of each state among the inputs and the outputs.
    states: Vec<(usize, usize)>,
    batch: usize,
    current: Vec<Option<Data>>,
    /// The whole numbers that the last call had as inputs.
    ints: Vec<Option<IntArray>>,
    /// Memory for the values of calls.
    inputs: Vec<Option<Data>>,
    outputs: Vec<Option<Data>>,
}

/// What the name of a state's output adds to that of its input, or puts in its place.
const SUFFIXES: [(&str, &str); 12] = [
    ("", "N"),
    ("", "n"),
    ("", "_out"),
    ("", "_n"),
    ("", "_new"),
    ("", "_next"),
    ("", "_output"),
    ("_in", "_out"),
    ("_input", "_output"),
    ("0", "n"),
    ("_0", "_n"),
    ("_prev", ""),
];
/// The same before the rest of the name.
const PREFIXES: [(&str, &str); 6] =
    [("", "new_"), ("", "next_"), ("", "out_"), ("in_", "out_"), ("prev_", ""), ("old_", "new_")];

/// Whether an output has the name of a state that an input has too.
fn follows(input: &str, output: &str) -> bool {
    let suffix = |(a, b): &(&str, &str)| input.strip_suffix(a).is_some_and(|stem| output.strip_suffix(b) == Some(stem));
    let prefix = |(a, b): &(&str, &str)| input.strip_prefix(a).is_some_and(|stem| output.strip_prefix(b) == Some(stem));
    input != output && (SUFFIXES.iter().any(suffix) || PREFIXES.iter().any(prefix))
}

/// The key of the file's metadata that states the states: `IN=OUT`, separated by commas or spaces.
const METADATA: &str = "recurve.states";

impl OnnxModel {
    /// The states of the model: those that the file's metadata names (`recurve.states`, `IN=OUT` separated by commas),
    /// otherwise those that names and shapes show: an output called as an input with `N`, `_out`, `_n` and the like
    /// added, or in the place of `_in`, `0`, …, of the same element type and of a shape that fits. A name that fits
    /// several ways is none.
    pub fn states(&self) -> Vec<StatePair> {
        if let Some((_, stated)) = self.metadata().iter().find(|(key, _)| key == METADATA) {
            let pairs = stated.split(|c: char| c == ',' || c.is_whitespace()).filter(|p| !p.is_empty());
            let pair = |p: &str| {
                let (input, output) = p.split_once('=').unwrap_or((p, ""));
                StatePair { input: input.into(), output: output.into() }
            };
            return pairs.map(pair).collect();
        }
        let fits =
            |i: usize, o: usize| self.may_follow(i, o) && follows(&self.inputs()[i].name, &self.outputs()[o].name);
        let (inputs, outputs) = (self.inputs().len(), self.outputs().len());
        let partners = |i: usize| (0..outputs).filter(move |&o| fits(i, o));
        let pairs = (0..inputs).filter_map(|i| {
            let mut all = partners(i);
            let (o, None) = (all.next()?, all.next()) else { return None };
            let alone = (0..inputs).filter(|&other| partners(other).any(|p| p == o)).count() == 1;
            alone.then(|| StatePair { input: self.inputs()[i].name.clone(), output: self.outputs()[o].name.clone() })
        });
        pairs.collect()
    }

    /// Zeros for the states that are not among the inputs of a call. A dimension without a size has that of the inputs'
    /// dimension of its name, or is 1. A state without a shape in the file, or of more than 2^26 elements, is left out,
    /// so that the call asks for it.
    pub fn initial_states(&self, states: &[StatePair], inputs: &[(String, HostArray)]) -> Vec<(String, HostArray)> {
        const MAX_ELEMENTS: usize = 1 << 26;
        let mut sizes: HashMap<&Dim, usize> = HashMap::new();
        for v in self.inputs() {
            let given = inputs.iter().find(|(n, a)| *n == v.name && a.shape.len() == v.kind.dims.len());
            let named = given.into_iter().flat_map(|(_, a)| v.kind.dims.iter().zip(&a.shape));
            sizes.extend(named.filter(|(d, _)| matches!(d, Dim::Symbol(_))).map(|(d, n)| (d, *n)));
        }
        let missing = states.iter().filter(|s| inputs.iter().all(|(n, _)| *n != s.input));
        let zeros = missing.filter_map(|s| {
            let v = self.inputs().iter().find(|v| v.name == s.input && !v.kind.unranked)?;
            let size = |d: &Dim| d.size().or_else(|| sizes.get(d).copied()).unwrap_or(1);
            let shape: Vec<usize> = v.kind.dims.iter().map(size).collect();
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS)?;
            let data = match v.kind.dtype.is_whole() {
                true => HostData::Int(vec![0; count]),
                false => HostData::Float(vec![0.0; count]),
            };
            Some((s.input.clone(), HostArray { shape, data }))
        });
        zeros.collect()
    }

    /// Whether an output has the type that an input needs, as far as both are known.
    fn may_follow(&self, input: usize, output: usize) -> bool {
        let (a, b) = (&self.inputs()[input].kind, &self.outputs()[output].kind);
        let fits = a.unranked
            || b.unranked
            || a.rank() == b.rank() && a.dims.iter().zip(&b.dims).all(|(a, b)| a.meet(b).is_some());
        fits && a.dtype == b.dtype
    }

    /// The places of states among the inputs and the outputs.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input or output, one is named twice, or the types differ.
    pub(super) fn places(&self, states: &[StatePair]) -> Result<Vec<(usize, usize)>> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for s in states {
            let bad = |name: &str, message: String| Err(Error::Input { name: short(name), message });
            let names = |all: &[OnnxValue]| some_names(all.iter().map(|v| &v.name[..]));
            let Some(i) = self.inputs().iter().position(|v| v.name == s.input) else {
                let names = names(self.inputs());
                return bad(&s.input, format!("is no input of this model, so it cannot be a state; there are {names}"));
            };
            let Some(o) = self.outputs().iter().position(|v| v.name == s.output) else {
                let (output, names) = (short(&s.output), names(self.outputs()));
                let message =
                    format!("cannot come from `{output}`, which is no output of this model; there are {names}");
                return bad(&s.input, message);
            };
            if places.iter().any(|(a, _)| *a == i) {
                return bad(&s.input, "is a state already".into());
            }
            if places.iter().any(|(_, b)| *b == o) {
                return bad(&s.input, format!("cannot come from `{}`, which is another state", short(&s.output)));
            }
            if !self.may_follow(i, o) {
                let (is, comes) = (&self.inputs()[i].kind, &self.outputs()[o].kind);
                let message = format!("is {is}, but `{}`, which it would come from, is {comes}", short(&s.output));
                return bad(&s.input, message);
            }
            places.push((i, o));
        }
        Ok(places)
    }

    /// Zeros as a state, its open dimensions being `batch`.
    pub(super) fn zeros(&self, input: usize, batch: usize) -> Result<Data> {
        let v = &self.inputs()[input];
        let bad = |message: String| Err(Error::Input { name: short(&v.name), message });
        if v.kind.unranked {
            return bad("is a state without a shape in the file, so it cannot begin as zeros".into());
        }
        let dims: Vec<usize> = v.kind.dims.iter().map(|d| d.size().unwrap_or(batch)).collect();
        match v.kind.dtype {
            e @ (Element::Int(_) | Element::Bool) => {
                let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 28);
                match count {
                    Some(count) => Ok(IntArray::new(&dims, vec![0; count]).into()),
                    None => bad(format!("is a state of {e} of shape {dims:?}, which is too large")),
                }
            }
            _ => Ok(Tensor::zeros(&dims, DType::F32, self.device())?.into()),
        }
    }
}

impl OnnxSession {
    /// A session over the states that [`OnnxModel::states`] finds, for so many rows at once.
    ///
    /// # Errors
    /// As [`Self::with_states`].
    pub fn new(model: Arc<OnnxModel>, batch: usize) -> Result<Self> {
        let states = model.states();
        Self::with_states(model, &states, batch)
    }

    /// A session over these states.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input or output, one is named twice, their types differ, or a state has no
    /// shape to begin with.
    pub fn with_states(model: Arc<OnnxModel>, states: &[StatePair], batch: usize) -> Result<Self> {
        let places = model.places(states)?;
        let mut session = Self {
            current: vec![None; places.len()],
            ints: vec![None; model.inputs().len()],
            inputs: Vec::new(),
            outputs: Vec::new(),
            model,
            states: places,
            batch,
        };
        session.reset()?;
        Ok(session)
    }

    /// The model.
    pub fn model(&self) -> &Arc<OnnxModel> {
        &self.model
    }

    /// The states, by name.
    pub fn states(&self) -> impl Iterator<Item = StatePair> + '_ {
        let name = |(i, o): &(usize, usize)| StatePair {
            input: self.model.inputs()[*i].name.clone(),
            output: self.model.outputs()[*o].name.clone(),
        };
        self.states.iter().map(name)
    }

    /// Makes every state zero again.
    ///
    /// # Errors
    /// [`Error::Input`] if a state has no shape to begin with; errors of the device.
    pub fn reset(&mut self) -> Result<()> {
        for (current, (i, _)) in self.current.iter_mut().zip(&self.states) {
            *current = Some(self.model.zeros(*i, self.batch)?);
        }
        Ok(())
    }

    /// The place of a state, by the name of its input or of its output.
    fn place(&self, name: &str) -> Result<usize> {
        let named =
            |(i, o): &(usize, usize)| self.model.inputs()[*i].name == name || self.model.outputs()[*o].name == name;
        self.states.iter().position(named).ok_or_else(|| {
            let names = self.states.iter().map(|(i, _)| &self.model.inputs()[*i].name[..]);
            let message = format!("is no state of this session; its states are {}", some_names(names));
            Error::Input { name: short(name), message }
        })
    }

    /// A state as it is now, by the name of its input or of its output.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such state; errors of the device.
    pub fn state(&self, name: &str) -> Result<HostArray> {
        let place = self.place(name)?;
        let v = &self.model.inputs()[self.states[place].0];
        match &self.current[place] {
            Some(data) => array(data, v.kind.dtype),
            None => Err(Error::Input { name: short(name), message: "is a state that has no elements now".into() }),
        }
    }

    /// Puts an array in the place of a state, by the name of its input or of its output.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such state, or the array does not fit; errors of the device.
    pub fn set_state(&mut self, name: &str, array: &HostArray) -> Result<()> {
        let place = self.place(name)?;
        self.current[place] = Some(self.model.fitted(self.states[place].0, array)?);
        Ok(())
    }

    /// One call: the other inputs by name; the outputs that are no states, by name.
    ///
    /// # Errors
    /// As [`OnnxModel::run`]; the states are then as they were.
    pub fn run<'a>(
        &mut self,
        inputs: impl IntoIterator<Item = (&'a str, &'a HostArray)>,
    ) -> Result<Vec<(String, HostArray)>> {
        self.call(inputs.into_iter().map(|(n, a)| (n, Given::Host(a))))?;
        let outputs = self.model.outputs().iter().zip(&self.outputs);
        let arrays = outputs.filter_map(|(v, data)| {
            let data = data.as_ref()?;
            Some(array(data, v.kind.dtype).map(|a| (v.name.clone(), a)))
        });
        arrays.collect()
    }

    /// [`Self::run`] into arrays that are there, one for each output that is no state, in the model's order. Their
    /// memory is used again, so that a call of the shapes of the call before allocates nothing on the CPU.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_into<'a>(
        &mut self,
        inputs: impl IntoIterator<Item = (&'a str, &'a HostArray)>,
        outputs: &mut Vec<HostArray>,
    ) -> Result<()> {
        self.call(inputs.into_iter().map(|(n, a)| (n, Given::Host(a))))?;
        let all = self.model.outputs().iter().zip(&self.outputs);
        let mut count = 0;
        for (v, data) in all.filter_map(|(v, data)| Some((v, data.as_ref()?))) {
            if count == outputs.len() {
                outputs.push(HostArray { shape: Vec::new(), data: HostData::Float(Vec::new()) });
            }
            array_into(data, v.kind.dtype, &mut outputs[count])?;
            count += 1;
        }
        outputs.truncate(count);
        Ok(())
    }

    /// [`Self::run`] on tensors on the model's device (of f32) and whole numbers in host memory.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_data<'a>(&mut self, inputs: impl IntoIterator<Item = (&'a str, Data)>) -> Result<Vec<(String, Data)>> {
        self.call(inputs.into_iter().map(|(n, d)| (n, Given::Data(d))))?;
        let outputs = self.model.outputs().iter().zip(&mut self.outputs);
        Ok(outputs.filter_map(|(v, data)| Some((v.name.clone(), data.take()?))).collect())
    }

    /// One call, whose outputs that are no states are then in `self.outputs`.
    fn call<'a>(&mut self, inputs: impl IntoIterator<Item = (&'a str, Given<'a>)>) -> Result<()> {
        self.inputs.clear();
        self.inputs.resize(self.model.inputs().len(), None);
        for ((i, _), current) in self.states.iter().zip(&self.current) {
            self.inputs[*i].clone_from(current);
        }
        self.model.fill(inputs, &mut self.inputs, &self.ints)?;
        for (last, input) in self.ints.iter_mut().zip(&self.inputs) {
            *last = match input {
                Some(Data::Ints(i)) => Some(i.clone()),
                _ => None,
            };
        }
        let run = self.model.executor().run_into(&mut self.inputs, &RunOptions::default(), &mut self.outputs);
        run.map_err(failed)?;
        // A state outlives the call, so it must not be in memory of the caller's, as an input that comes out again is.
        for (_, o) in &self.states {
            if let Some(Data::Tensor(t)) = &self.outputs[*o]
                && t.is_shared()
            {
                self.outputs[*o] = Some(t.clone().into_owned()?.into());
            }
        }
        for (current, (_, o)) in self.current.iter_mut().zip(&self.states) {
            *current = self.outputs[*o].take();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_states() {
        let pairs = [
            ("state", "stateN"),
            ("x_in", "x_out"),
            ("conv_cache", "conv_cache_out"),
            ("h0", "hn"),
            ("h", "hn"),
            ("c_0", "c_n"),
            ("h", "new_h"),
            ("in_state", "out_state"),
            ("hidden_prev", "hidden"),
        ];
        for (a, b) in pairs {
            assert!(follows(a, b), "{a} {b}");
        }
        for (a, b) in [("input", "output"), ("x", "y"), ("state", "state"), ("mix", "enh"), ("h0", "cn")] {
            assert!(!follows(a, b), "{a} {b}");
        }
    }
}
