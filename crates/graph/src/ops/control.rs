//! Graphs that run by a condition, or again and again: ONNX's If, Loop and Scan.

use super::prelude::*;
use crate::operator::given;
use crate::{Data, Executor, Graph, IntArray};
use recurve_tensor::Error;
use smallvec::SmallVec;
use std::sync::Arc;

/// Runs of a loop's body, at most. A loop that does not end by then is taken for one that never does.
const MAX_RUNS: usize = 1 << 24;

/// One of two graphs, by a condition.
///
/// Inputs: `cond`, one truth value, then what the first graph takes, then what the second takes. Outputs: those of the
/// graph that runs.
#[derive(Clone, Debug)]
pub struct If {
    /// The graph for true and the one for false.
    pub branches: [Arc<Graph>; 2],
}

impl If {
    /// The inputs of a branch among the node's.
    fn range(&self, branch: usize) -> core::ops::Range<usize> {
        let first = 1 + if branch == 1 { self.branches[0].inputs().len() } else { 0 };
        first..first + self.branches[branch].inputs().len()
    }
}

/// The types of a graph's outputs.
fn types(g: &Graph) -> Vec<ValueType> {
    g.outputs().iter().map(|(_, id)| g.value(*id).kind.clone()).collect()
}

/// What a value is that is of one type or of the other.
fn either(a: &ValueType, b: &ValueType) -> ValueType {
    if a.unranked || b.unranked || a.rank() != b.rank() {
        return ValueType::unranked(a.dtype);
    }
    let dims = a.dims.iter().zip(&b.dims).map(|(a, b)| if a == b { a.clone() } else { Dim::Any });
    ValueType::new(a.dtype, dims)
}

/// The one truth value of a condition.
fn truth(operation: &'static str, d: &Data) -> Result<bool> {
    match d.to_ints()?.data() {
        [v] => Ok(*v != 0),
        other => {
            let message = format!("must be one truth value, but it has {}", other.len());
            Err(Error::Argument { operation, argument: "cond", message })
        }
    }
}

/// Runs a graph inside a node.
fn run_inner(
    operation: &'static str,
    inner: &Executor,
    inputs: &[Option<Data>],
    call: &Call<'_>,
) -> Result<SmallVec<[Data; 3]>> {
    let outputs = inner.run_data(inputs, call.options).map_err(|e| match e {
        crate::Error::Tensor(source) => source,
        other => Error::Argument { operation, argument: "body", message: other.to_string() },
    })?;
    outputs
        .into_iter()
        .map(|o| {
            let message = || "has an output that depends on an input that was left out".into();
            o.ok_or_else(|| Error::Argument { operation, argument: "body", message: message() })
        })
        .collect()
}

/// Operators that run graphs compute nothing on whole numbers alone, so in such a build nothing calls their references.
#[cfg(not(feature = "reference"))]
fn reference_inner(_: &Graph, _: Vec<Option<Array>>) -> Vec<Option<Array>> {
    unreachable!("without the feature `reference` nothing calls the references of operators that run graphs")
}

/// The outputs of a graph by its own truth.
#[cfg(feature = "reference")]
fn reference_inner(g: &Graph, inputs: Vec<Option<Array>>) -> Vec<Option<Array>> {
    let Ok(all) = g.reference(&inputs, |_| None) else { return vec![None; g.outputs().len()] };
    g.outputs().iter().map(|(_, id)| all[id.0].clone()).collect()
}

fn refuse_parameters(g: &Graph) -> Result<(), Fault> {
    match g.parameters().next() {
        None => Ok(()),
        Some(p) => {
            Err(Fault::Attribute("body", format!("has the parameter `{}`; only constants may be inside", p.name)))
        }
    }
}

impl Operator for If {
    fn name(&self) -> &'static str {
        "If"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("cond"), Slot::Rest("captured")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        self.branches.iter().try_for_each(|g| refuse_parameters(g))?;
        let [a, b] = self.branches.each_ref().map(|g| types(g));
        match given(inputs, 0)?.content().as_deref() {
            Some([0]) => return Ok(b),
            Some([_]) => return Ok(a),
            _ => {}
        }
        if a.len() != b.len() || a.iter().zip(&b).any(|(a, b)| a.dtype != b.dtype) {
            return Err(Fault::Attribute("else_branch", "must have outputs of the types of the other branch's".into()));
        }
        Ok(a.iter().zip(&b).map(|(a, b)| either(a, b)).collect())
    }
    fn subgraphs(&self) -> &[Arc<Graph>] {
        &self.branches
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let branch = usize::from(!truth("If", call.data(0))?);
        let inputs: SmallVec<[Option<Data>; 8]> = call.inputs[self.range(branch)].iter().map(|d| d.cloned()).collect();
        Ok(run_inner("If", &call.subgraphs[branch], &inputs, call)?.into_iter().map(Some).collect())
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let branch = usize::from(array(inputs, 0).data[0] == 0.0);
        reference_inner(&self.branches[branch], inputs[self.range(branch)].iter().map(|a| a.cloned()).collect())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A graph that runs until a count or a condition ends it, each run with what the run before gave.
///
/// Inputs: `M`, the most runs; `cond`, whether to run at all; the first values of what is carried; then what the body
/// takes from around it. The body takes the number of the run, the condition, what is carried and what is around; it
/// gives the condition, what is carried, and elements. Outputs: what is carried at the end, and the elements of all
/// runs along a new first axis.
#[derive(Clone, Debug)]
pub struct Loop {
    /// The graph that runs.
    pub body: [Arc<Graph>; 1],
    /// Values that are carried from run to run.
    pub carried: usize,
}

impl Operator for Loop {
    fn name(&self) -> &'static str {
        "Loop"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Optional("M"), Slot::Optional("cond"), Slot::Rest("carried")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        refuse_parameters(&self.body[0])?;
        let outputs = types(&self.body[0]);
        if outputs.len() < 1 + self.carried || self.body[0].inputs().len() != inputs.len() {
            return Err(Fault::Attribute("body", "has another number of inputs or outputs than the loop needs".into()));
        }
        let carried = (0..self.carried).map(|n| Ok(either(given(inputs, 2 + n)?, &outputs[1 + n])));
        let carried = carried.collect::<Result<Vec<_>, Fault>>()?;
        let elements = outputs[1 + self.carried..].iter().map(|t| match t.unranked {
            true => t.clone(),
            false => ValueType::new(t.dtype, core::iter::once(Dim::Any).chain(t.dims.iter().cloned())),
        });
        Ok(carried.into_iter().chain(elements).collect())
    }
    fn subgraphs(&self) -> &[Arc<Graph>] {
        &self.body
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let bad = |argument, message: String| Error::Argument { operation: "Loop", argument, message };
        let most = match call.get(0).map(|d| d.to_ints()).transpose()?.as_ref().map(IntArray::data) {
            None => None,
            Some(&[m]) => Some(m),
            Some(other) => return Err(bad("M", format!("must be one number, but it has {}", other.len()))),
        };
        let mut go_on = call.get(1).map(|d| truth("Loop", d)).transpose()?.unwrap_or(true);
        let first = &call.inputs[2..2 + self.carried];
        let mut carried: SmallVec<[Option<Data>; 4]> = first.iter().map(|d| d.cloned()).collect();
        let mut elements: Vec<Vec<Data>> = vec![Vec::new(); call.wanted.len().saturating_sub(self.carried)];
        let mut count = 0usize;
        while go_on && most.is_none_or(|m| (count as i64) < m) {
            if count == MAX_RUNS {
                return Err(bad("M", format!("allows more than {MAX_RUNS} runs")));
            }
            let mut inputs: SmallVec<[Option<Data>; 8]> = SmallVec::new();
            inputs.push(Some(IntArray::scalar(count as i64).into()));
            inputs.push(Some(IntArray::scalar(1).into()));
            inputs.append(&mut carried);
            inputs.extend(call.inputs[2 + self.carried..].iter().map(|d| d.cloned()));
            let mut outputs = run_inner("Loop", &call.subgraphs[0], &inputs, call)?.into_iter();
            go_on = truth("Loop", &outputs.next().expect("checked to have a condition"))?;
            carried = outputs.by_ref().take(self.carried).map(Some).collect();
            elements.iter_mut().zip(outputs).for_each(|(all, one)| all.push(one));
            count += 1;
        }
        let elements = elements.into_iter().zip(&call.wanted[self.carried..]).map(|(all, wanted)| match wanted {
            true => stack("Loop", all, 0).map(Some),
            false => Ok(None),
        });
        carried.into_iter().map(Ok).chain(elements).collect()
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let body = &self.body[0];
        let number = |n: usize| inputs[n].map(|a| a.data[0]);
        let (most, mut go_on) = (number(0), number(1).is_none_or(|c| c != 0.0));
        let mut carried: Vec<Option<Array>> = inputs[2..2 + self.carried].iter().map(|a| a.cloned()).collect();
        let mut elements = vec![Vec::new(); body.outputs().len() - 1 - self.carried];
        let mut count = 0;
        while go_on && most.is_none_or(|m| f64::from(count) < m) && (count as usize) < MAX_RUNS {
            let scalar = |v: f64| Some(Array::new(&[], vec![v]));
            let mut given = vec![scalar(count.into()), scalar(1.0)];
            given.append(&mut carried);
            given.extend(inputs[2 + self.carried..].iter().map(|a| a.cloned()));
            let mut outputs = reference_inner(body, given).into_iter();
            go_on = outputs.next().flatten().is_some_and(|c| c.data[0] != 0.0);
            carried = outputs.by_ref().take(self.carried).collect();
            elements.iter_mut().zip(outputs.flatten()).for_each(|(all, one): (&mut Vec<Array>, _)| all.push(one));
            count += 1;
        }
        carried.into_iter().chain(elements.iter().map(|all| Some(stacked(all, 0)))).collect()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// One input or output of a [`Scan`] that has an element for each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanAxis {
    /// The axis of the elements; below 0 from the end.
    pub axis: i64,
    /// From the last to the first.
    pub reverse: bool,
}

/// A graph that runs once for each element along an axis of its inputs, each run with what the run before gave.
///
/// Inputs: the first values of what is carried; the inputs with elements; then what the body takes from around it. The
/// body takes what is carried, an element of each input, and what is around; it gives what is carried, and elements.
/// Outputs: what is carried at the end, and the elements of all runs along a new axis.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The graph that runs.
    pub body: [Arc<Graph>; 1],
    /// Values that are carried from run to run.
    pub carried: usize,
    /// How elements are taken from the inputs.
    pub inputs: Vec<ScanAxis>,
    /// How elements are put together for the outputs.
    pub outputs: Vec<ScanAxis>,
}

/// An axis that may count from the end, of so many.
fn axis_of(operation: &'static str, axis: i64, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let valid = from_start.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank);
    let message = || format!("is {axis}, but there are {rank} dimensions");
    valid.ok_or_else(|| Error::Argument { operation, argument: "axis", message: message() })
}

impl Operator for Scan {
    fn name(&self) -> &'static str {
        "Scan"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Rest("inputs")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        refuse_parameters(&self.body[0])?;
        let outputs = types(&self.body[0]);
        if outputs.len() != self.carried + self.outputs.len()
            || self.body[0].inputs().len() != inputs.len()
            || inputs.len() < self.carried + self.inputs.len()
            || self.inputs.is_empty()
        {
            return Err(Fault::Attribute("body", "has another number of inputs or outputs than the scan needs".into()));
        }
        // The number of runs, if an input says it.
        let runs = |n: usize| {
            let t = given(inputs, self.carried + n).ok().filter(|t| !t.unranked)?;
            axis_of("Scan", self.inputs[n].axis, t.rank()).ok().map(|a| t.dims[a].clone())
        };
        let runs = runs(0).unwrap_or(Dim::Any);
        let carried = (0..self.carried).map(|n| Ok(either(given(inputs, n)?, &outputs[n])));
        let carried = carried.collect::<Result<Vec<_>, Fault>>()?;
        let elements = outputs[self.carried..].iter().zip(&self.outputs).map(|(t, s)| {
            if t.unranked {
                return Ok(t.clone());
            }
            let at = axis_of("Scan", s.axis, t.rank() + 1);
            let at = at.map_err(|e| Fault::Attribute("scan_output_axes", e.to_string()))?;
            let mut dims = t.dims.clone();
            dims.insert(at, runs.clone());
            Ok(ValueType::new(t.dtype, dims))
        });
        let elements = elements.collect::<Result<Vec<_>, Fault>>()?;
        Ok(carried.into_iter().chain(elements).collect())
    }
    fn subgraphs(&self) -> &[Arc<Graph>] {
        &self.body
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let bad = |message: String| Error::Argument { operation: "Scan", argument: "inputs", message };
        let (mut axes, mut runs) = (SmallVec::<[usize; 4]>::new(), None);
        for (n, s) in self.inputs.iter().enumerate() {
            let dims = call.data(self.carried + n).dims();
            let axis = axis_of("Scan", s.axis, dims.len())?;
            axes.push(axis);
            let first = *runs.get_or_insert(dims[axis]);
            if first != dims[axis] {
                return Err(bad(format!("have {first} and {} elements to run over", dims[axis])));
            }
        }
        let runs = runs.unwrap_or(0);
        let mut carried: SmallVec<[Option<Data>; 4]> = call.inputs[..self.carried].iter().map(|d| d.cloned()).collect();
        let mut elements: Vec<Vec<Data>> = vec![Vec::new(); self.outputs.len()];
        for run in 0..runs {
            let mut inputs: SmallVec<[Option<Data>; 8]> = SmallVec::new();
            inputs.append(&mut carried);
            for (n, (s, axis)) in self.inputs.iter().zip(&axes).enumerate() {
                let at = if s.reverse { runs - 1 - run } else { run };
                inputs.push(Some(select(call.data(self.carried + n), *axis, at)?));
            }
            inputs.extend(call.inputs[self.carried + self.inputs.len()..].iter().map(|d| d.cloned()));
            let mut outputs = run_inner("Scan", &call.subgraphs[0], &inputs, call)?.into_iter();
            carried = outputs.by_ref().take(self.carried).map(Some).collect();
            elements.iter_mut().zip(outputs).for_each(|(all, one)| all.push(one));
        }
        let elements = elements.into_iter().zip(&self.outputs).map(|(mut all, s)| {
            if s.reverse {
                all.reverse();
            }
            let rank = all.first().map_or(0, |d| d.dims().len());
            Ok(Some(stack("Scan", all, axis_of("Scan", s.axis, rank + 1)?)?))
        });
        carried.into_iter().map(Ok).chain(elements).collect()
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let axis = |axis: i64, rank: usize| if axis < 0 { (axis + rank as i64) as usize } else { axis as usize };
        let from = |n: usize| array(inputs, self.carried + n);
        let runs = from(0).dims[axis(self.inputs[0].axis, from(0).dims.len())];
        let mut carried: Vec<Option<Array>> = inputs[..self.carried].iter().map(|a| a.cloned()).collect();
        let mut elements: Vec<Vec<Array>> = vec![Vec::new(); self.outputs.len()];
        for run in 0..runs {
            let mut given = core::mem::take(&mut carried);
            for (n, s) in self.inputs.iter().enumerate() {
                let x = from(n);
                let axis = axis(s.axis, x.dims.len());
                let at = if s.reverse { runs - 1 - run } else { run };
                let mut dims = x.dims.clone();
                dims.remove(axis);
                given.push(Some(Array::from_fn(&dims, |i| {
                    let mut i = i.to_vec();
                    i.insert(axis, at);
                    x.at(&i)
                })));
            }
            given.extend(inputs[self.carried + self.inputs.len()..].iter().map(|a| a.cloned()));
            let mut outputs = reference_inner(&self.body[0], given).into_iter();
            carried = outputs.by_ref().take(self.carried).collect();
            elements.iter_mut().zip(outputs.flatten()).for_each(|(all, one)| all.push(one));
        }
        let elements = elements.into_iter().zip(&self.outputs).map(|(mut all, s)| {
            if s.reverse {
                all.reverse();
            }
            let rank = all.first().map_or(0, |a| a.dims.len());
            Some(stacked(&all, axis(s.axis, rank + 1)))
        });
        carried.into_iter().chain(elements).collect()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Element `index` along an axis, without that axis.
fn select(d: &Data, axis: usize, index: usize) -> Result<Data> {
    let mut dims: SmallVec<[usize; 6]> = SmallVec::from_slice(d.dims());
    dims.remove(axis);
    match d {
        Data::Tensor(t) => Ok(t.slice(axis, index..index + 1)?.reshape(&dims)?.into()),
        Data::Ints(i) => {
            let inner: usize = i.dims()[axis + 1..].iter().product();
            let outer: usize = i.dims()[..axis].iter().product();
            let size = i.dims()[axis];
            let parts = (0..outer).flat_map(|o| &i.data()[(o * size + index) * inner..][..inner]);
            Ok(IntArray::new(&dims, parts.copied().collect::<Vec<i64>>()).into())
        }
    }
}

/// Elements along a new axis.
fn stack(operation: &'static str, all: Vec<Data>, axis: usize) -> Result<Data> {
    let bad = |message: &str| Error::Argument { operation, argument: "elements", message: message.into() };
    let first = all.first().ok_or_else(|| bad("are none: the body never ran, and an output would be empty"))?;
    let mut dims: SmallVec<[usize; 6]> = SmallVec::from_slice(first.dims());
    dims.insert(axis, 1);
    if all.iter().any(|d| d.dims() != first.dims()) {
        return Err(bad("differ in their shapes from run to run"));
    }
    let ints: Option<Vec<&IntArray>> = all
        .iter()
        .map(|d| match d {
            Data::Ints(i) => Some(i),
            Data::Tensor(_) => None,
        })
        .collect();
    if let Some(ints) = ints {
        let inner: usize = dims[axis..].iter().product();
        let outer: usize = dims[..axis].iter().product();
        dims[axis] = ints.len();
        let parts = (0..outer).flat_map(|o| ints.iter().flat_map(move |i| &i.data()[o * inner..(o + 1) * inner]));
        return Ok(IntArray::new(&dims, parts.copied().collect::<Vec<i64>>()).into());
    }
    let device = all.iter().find_map(Data::as_tensor).expect("one is a tensor").device();
    let parts = all.iter().map(|d| d.to_f32(&device)?.reshape(&dims)).collect::<Result<Vec<_>>>()?;
    Ok(recurve_tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)?.into())
}

/// [`stack`] of the truth.
fn stacked(all: &[Array], axis: usize) -> Array {
    let Some(first) = all.first() else { return Array::new(&[0], Vec::new()) };
    let mut dims = first.dims.clone();
    dims.insert(axis, all.len());
    Array::from_fn(&dims, |i| {
        let mut i = i.to_vec();
        let run = i.remove(axis);
        all[run].at(&i)
    })
}
