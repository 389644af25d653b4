//! Running a graph on a device.

use crate::graph::complete;
use crate::operator::Outputs;
use crate::{Call, Constant, Error, Graph, HostInputs, Packed, Result, RunOptions, Source, ValueId};
use core::ops::Range;
use recurve_tensor::{Device, Tensor};
use smallvec::SmallVec;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Where weights come from, by name.
pub trait Parameters: Send + Sync {
    /// The shape and the elements of a weight.
    fn parameter(&self, name: &str) -> Option<(&[usize], &[f32])>;
}

impl<T: Parameters + ?Sized> Parameters for Arc<T> {
    fn parameter(&self, name: &str) -> Option<(&[usize], &[f32])> {
        (**self).parameter(name)
    }
}

/// A graph with its weights on a device.
///
/// Weights come to the device when they are first needed, once. A run keeps a value only as long as something
/// needs it; its memory then serves later values, so that a second run of the same shapes makes no buffer.
#[derive(Debug)]
pub struct Executor {
    graph: Arc<Graph>,
    device: Device,
    parameters: Box<dyn Held>,
    /// Parameters and constants on the device.
    fixed: Vec<OnceLock<Tensor>>,
    packed: Vec<OnceLock<Option<Packed>>>,
    plan: Vec<Step>,
    /// Values of runs that are over, empty, for the next ones.
    spare: Mutex<Vec<Vec<Option<Tensor>>>>,
}

/// [`Parameters`] that can be shown.
trait Held: Parameters + core::fmt::Debug {}
impl<T: Parameters + core::fmt::Debug> Held for T {}

/// What the executor knows of a node before any run.
#[derive(Debug)]
struct Step {
    /// Some output of the graph needs it.
    needed: bool,
    wanted: SmallVec<[bool; 3]>,
    /// Values that nothing needs after it.
    last: Vec<ValueId>,
}

/// A run between two nodes: the values that are there.
#[derive(Clone, Debug)]
pub struct Frame {
    values: Vec<Option<Tensor>>,
    next: usize,
    trace: Option<Box<Trace>>,
}

/// What a run does beyond what the graph's outputs need. It keeps every value that it makes.
#[derive(Clone, Debug)]
struct Trace {
    /// For each node whether it runs.
    runs: Vec<bool>,
    /// For each value whether someone wants it.
    wanted: Vec<bool>,
}

impl Frame {
    /// A value, if it has been made and is still kept.
    pub fn value(&self, id: ValueId) -> Option<&Tensor> {
        self.values[id.0].as_ref()
    }

    /// The node that runs next.
    pub fn next(&self) -> usize {
        self.next
    }

    /// The same run on another device, for an executor of the same graph there.
    ///
    /// # Errors
    /// Errors of the devices.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let moved = self.values.iter().map(|v| v.as_ref().map(|v| v.to_device(device)).transpose());
        Ok(Self { values: moved.collect::<Result<_, _>>()?, next: self.next, trace: self.trace.clone() })
    }
}

impl Executor {
    /// A graph with its weights.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] and [`Error::ParameterShape`].
    pub fn new(
        graph: Arc<Graph>,
        parameters: impl Parameters + core::fmt::Debug + 'static,
        device: &Device,
    ) -> Result<Self> {
        for p in graph.parameters() {
            let expected: Vec<usize> = p.kind.sizes().collect();
            let Some((got, _)) = parameters.parameter(&p.name) else {
                return Err(Error::MissingParameter { name: p.name.clone() });
            };
            if got != expected {
                return Err(Error::ParameterShape { name: p.name.clone(), expected, got: got.to_vec() });
            }
        }
        let outputs: Vec<ValueId> = graph.outputs.iter().map(|(_, id)| *id).collect();
        let needed = graph.needed(outputs.iter().copied());
        // The last node that uses each value; of outputs none.
        let mut last = vec![None; graph.values.len()];
        for (n, node) in graph.nodes.iter().enumerate().filter(|(n, _)| needed[*n]) {
            node.inputs.iter().flatten().chain(&node.outputs).for_each(|v| last[v.0] = Some(n));
        }
        outputs.iter().for_each(|v| last[v.0] = None);
        let plan = graph
            .nodes
            .iter()
            .enumerate()
            .map(|(n, node)| Step {
                needed: needed[n],
                wanted: node
                    .outputs
                    .iter()
                    .map(|o| outputs.contains(o) || graph.users(*o).any(|user| needed[user]))
                    .collect(),
                last: (0..last.len()).filter(|&v| last[v] == Some(n)).map(ValueId).collect(),
            })
            .collect();
        Ok(Self {
            fixed: (0..graph.values.len()).map(|_| OnceLock::new()).collect(),
            packed: (0..graph.nodes.len()).map(|_| OnceLock::new()).collect(),
            plan,
            spare: Mutex::new(Vec::new()),
            graph,
            device: device.clone(),
            parameters: Box::new(parameters),
        })
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The outputs for inputs in the order of [`Graph::inputs`]; `None` for an optional one that is left out, and
    /// for an output that depends on it.
    ///
    /// # Errors
    /// [`Error::Input`] if a required input is missing or does not fit, [`Error::Run`] with the node where an
    /// operation refuses its operands.
    pub fn run(&self, inputs: &[Option<&Tensor>], options: &RunOptions) -> Result<Outputs> {
        let mut frame = self.begin(inputs, false)?;
        self.advance(&mut frame, self.graph.nodes.len(), options)?;
        Ok(self.end(frame))
    }

    /// A run before its first node. With `traced` every node runs, also those that no output needs, and every
    /// value is kept.
    ///
    /// # Errors
    /// [`Error::Input`] if a required input is missing or does not fit.
    pub fn begin(&self, inputs: &[Option<&Tensor>], traced: bool) -> Result<Frame> {
        self.check(inputs)?;
        let mut frame = self.start(inputs, &[]);
        if traced {
            let (nodes, values) = (self.graph.nodes.len(), self.graph.values.len());
            frame.trace = Some(Box::new(Trace { runs: vec![true; nodes], wanted: vec![true; values] }));
        }
        Ok(frame)
    }

    /// A run before its first node that leaves the inputs to the nodes that use them: what does not fit is refused
    /// there, with the operation's own words. It makes the `watched` values too, keeps every value that it makes
    /// if there are any, and otherwise runs what [`Self::run`] runs.
    pub fn start(&self, inputs: &[Option<&Tensor>], watched: &[ValueId]) -> Frame {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut values = spare().unwrap_or_default();
        values.resize(self.graph.values.len(), None);
        for (&id, input) in self.graph.inputs.iter().zip(inputs) {
            values[id.0] = input.cloned();
        }
        let trace = (!watched.is_empty()).then(|| {
            let mut wanted = vec![false; self.graph.values.len()];
            watched.iter().for_each(|v| wanted[v.0] = true);
            let runs = self.graph.needed(watched.iter().copied());
            runs.iter().zip(&self.graph.nodes).filter(|(runs, _)| **runs).for_each(|(_, node)| {
                node.inputs.iter().flatten().for_each(|v| wanted[v.0] = true);
            });
            Box::new(Trace { runs, wanted })
        });
        Frame { values, next: 0, trace }
    }

    /// Whether inputs fit.
    fn check(&self, inputs: &[Option<&Tensor>]) -> Result<()> {
        if inputs.len() > self.graph.inputs.len() {
            let expected = format!("one of {}", self.graph.inputs.len());
            return Err(Error::Input { name: "inputs".into(), expected, got: format!("{} in all", inputs.len()) });
        }
        for (n, &id) in self.graph.inputs.iter().enumerate() {
            let value = &self.graph.values[id.0];
            let bad =
                |got: String| Err(Error::Input { name: value.name.clone(), expected: value.kind.to_string(), got });
            match inputs.get(n).copied().flatten() {
                Some(t) if !value.kind.admits(t.dtype(), t.dims()) => {
                    return bad(format!("{} {}", t.dtype(), t.shape()));
                }
                Some(t) if t.device() != self.device => {
                    return bad(format!("on {}, not on {}", t.device(), self.device));
                }
                None if !value.optional => return bad("missing".into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings the weights that runs need to the device, each in the form that its node wants. Otherwise the first
    /// run does.
    ///
    /// # Errors
    /// [`Error::Run`] with the node that refuses its weights; errors of the device.
    pub fn prepare(&self) -> Result<()> {
        for (n, node) in self.graph.nodes.iter().enumerate().filter(|(n, _)| self.plan[*n].needed) {
            let host = node.operator.host_inputs().unwrap_or(usize::MAX);
            for id in node.inputs.iter().take(host).flatten() {
                self.fixed(*id)?;
            }
            self.packed(n)?;
        }
        Ok(())
    }

    /// Runs nodes up to `until`.
    ///
    /// # Errors
    /// [`Error::Run`]; those of packing parameters.
    pub fn advance(&self, frame: &mut Frame, until: usize, options: &RunOptions) -> Result<()> {
        let nodes: Range<usize> = frame.next..until.min(self.graph.nodes.len());
        for n in nodes {
            if self.plan[n].needed || frame.trace.as_ref().is_some_and(|t| t.runs[n]) {
                self.node(n, frame, options)?;
            }
            frame.next = n + 1;
        }
        Ok(())
    }

    /// The outputs of a run that has come to its end; of one that has not, those that are there.
    pub fn end(&self, frame: Frame) -> Outputs {
        let outputs = self.graph.outputs.iter().map(|(_, id)| frame.values[id.0].clone()).collect();
        self.recycle(frame);
        outputs
    }

    /// Ends a run whose values have been read: later runs use its memory.
    pub fn recycle(&self, frame: Frame) {
        let mut values = frame.values;
        values.clear();
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(values);
    }

    fn node(&self, n: usize, frame: &mut Frame, options: &RunOptions) -> Result<()> {
        if let Some(outputs) = self.outputs(n, frame, options)? {
            for (id, output) in self.graph.nodes[n].outputs.iter().zip(outputs) {
                frame.values[id.0] = output;
            }
        }
        if frame.trace.is_none() {
            for v in &self.plan[n].last {
                frame.values[v.0] = None;
            }
        }
        Ok(())
    }

    /// What a node gives; `None` if a required input was left out.
    fn outputs(&self, n: usize, frame: &Frame, options: &RunOptions) -> Result<Option<Outputs>> {
        let node = &self.graph.nodes[n];
        let host = node.operator.host_inputs().unwrap_or(usize::MAX);
        let mut inputs: SmallVec<[Option<&Tensor>; 8]> = SmallVec::new();
        for id in node.inputs.iter().take(host) {
            inputs.push(match id {
                Some(id) => self.fixed(*id)?.or(frame.values[id.0].as_ref()),
                None => None,
            });
        }
        if !complete(node, |i| i >= host || inputs[i].is_some()) {
            return Ok(None);
        }
        let packed = self.packed(n)?;
        let mut wanted = self.plan[n].wanted.clone();
        if let Some(trace) = &frame.trace {
            wanted.iter_mut().zip(&node.outputs).for_each(|(w, o)| *w |= trace.wanted[o.0]);
        }
        let call = Call { inputs: &inputs, wanted: &wanted, packed: packed.as_ref(), options };
        let outputs = node.operator.run(&call).map_err(|source| Error::Run {
            node: node.name.clone(),
            operator: node.operator.name(),
            source,
        })?;
        Ok(Some(outputs))
    }

    /// What a node made of its parameters.
    fn packed(&self, n: usize) -> Result<&Option<Packed>> {
        if let Some(there) = self.packed[n].get() {
            return Ok(there);
        }
        let made = self.graph.nodes[n].operator.pack(&HostInputs { executor: self, node: n }, &self.device)?;
        Ok(self.packed[n].get_or_init(|| made))
    }

    /// A parameter or a constant on the device; `None` for other values.
    fn fixed(&self, id: ValueId) -> Result<Option<&Tensor>> {
        let value = &self.graph.values[id.0];
        if matches!(value.source, Source::Input(_) | Source::Node { .. }) {
            return Ok(None);
        }
        if let Some(there) = self.fixed[id.0].get() {
            return Ok(Some(there));
        }
        let dims: SmallVec<[usize; 6]> = value.kind.sizes().collect();
        let tensor = match &value.source {
            Source::Constant(numbers) => numbers.tensor(&dims, &self.device)?,
            _ => Tensor::from_f32(self.numbers(id)?, &dims, &self.device)?,
        };
        Ok(Some(self.fixed[id.0].get_or_init(|| tensor)))
    }

    /// The elements of a parameter or a constant of f32.
    fn numbers(&self, id: ValueId) -> Result<&[f32]> {
        let value = &self.graph.values[id.0];
        match &value.source {
            Source::Constant(Constant::Float(v)) => Ok(v),
            _ => {
                let found = self.parameters.parameter(&value.name);
                Ok(found.ok_or_else(|| Error::MissingParameter { name: value.name.clone() })?.1)
            }
        }
    }
}

impl<'a> HostInputs<'a> {
    /// The elements of an input, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingParameter`].
    pub fn get(&self, index: usize) -> Result<Option<&'a [f32]>> {
        let node = &self.executor.graph.nodes[self.node];
        node.inputs.get(index).copied().flatten().map(|id| self.executor.numbers(id)).transpose()
    }

    /// The shape of an input, if there is one.
    pub fn dims(&self, index: usize) -> Option<Vec<usize>> {
        let graph = &self.executor.graph;
        let id = graph.nodes[self.node].inputs.get(index).copied().flatten()?;
        Some(graph.values[id.0].kind.sizes().collect())
    }

    /// An error of the device or of a kernel, with the node's name.
    pub fn error(&self, source: recurve_tensor::Error) -> Error {
        let node = &self.executor.graph.nodes[self.node];
        Error::Run { node: node.name.clone(), operator: node.operator.name(), source }
    }
}
