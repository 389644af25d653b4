//! Running a graph on a device.

use crate::graph::complete;
use crate::operator::Outputs;
use crate::{
    Call, Constant, Data, Error, Graph, HostInputs, IntArray, Kept, Node, Packed, Result, RunOptions, Source, Value,
    ValueId,
};
use core::ops::Range;
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{Device, Shape, Tensor};
use recurve_weights::Weight;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A graph with its weights on a device.
///
/// A parameter is brought to the device once, when a run first needs it, in the form that its node computes with; after
/// [`Self::set_parameter`] this happens again for that parameter alone. A run keeps a value only while a later node
/// needs it, and its memory is then reused, so a second run of the same shapes allocates no buffers.
#[derive(Debug)]
pub struct Executor {
    graph: Arc<Graph>,
    device: Device,
    /// The weight of each value that is a parameter.
    parameters: Vec<Option<Weight>>,
    /// Parameters and constants, tensors on the device.
    fixed: Vec<OnceLock<Data>>,
    /// What each node made of its parameters, unless another made the same of them.
    packed: Vec<OnceLock<Option<Packed>>>,
    kept: Vec<Kept>,
    /// The last result of each node that computes with shapes and whole numbers.
    results: Vec<Mutex<Option<Remembered>>>,
    /// Of each node its subgraphs.
    subgraphs: Vec<Vec<Executor>>,
    plan: Vec<Step>,
    /// Values of runs that are over, empty, for the next ones.
    spare: Mutex<Vec<Vec<Option<Data>>>>,
}

/// What is known about a node before any run.
#[derive(Debug)]
struct Step {
    /// Whether an output of the graph depends on it.
    needed: bool,
    wanted: SmallVec<[bool; 4]>,
    /// The first node that makes of the same parameters what this one does.
    packs_as: usize,
    /// The first input that is packed.
    host: usize,
    /// Inputs that come to a run.
    count: usize,
    /// Whether its results are remembered, and whether they depend on nothing but dimensions.
    remembers: bool,
    sees_dims_only: bool,
    /// The inputs into whose memory the node may write.
    reuses: SmallVec<[usize; 4]>,
    /// Values that nothing needs after it.
    last: Vec<ValueId>,
}

/// The results of a node for inputs that are mostly the same in every run.
#[derive(Debug)]
struct Remembered {
    inputs: SmallVec<[Known; 4]>,
    outputs: Outputs,
}

/// An input of a node whose results are remembered.
#[derive(Clone, Debug)]
enum Known {
    None,
    Dims(SmallVec<[usize; 6]>),
    Ints(IntArray),
}

/// Elements of inputs and results that are remembered, at most.
const MAX_REMEMBERED: usize = 1 << 16;

impl Known {
    fn of(input: Option<&Data>, dims_only: bool) -> Option<Self> {
        match input {
            None => Some(Self::None),
            Some(data) if dims_only => Some(Self::Dims(data.dims().into())),
            Some(Data::Ints(i)) if i.data().len() <= MAX_REMEMBERED => Some(Self::Ints(i.clone())),
            Some(_) => None,
        }
    }

    /// Whether an input is this one: the same numbers in memory, not equal ones.
    fn is(&self, input: Option<&Data>) -> bool {
        match (self, input) {
            (Self::None, None) => true,
            (Self::Dims(dims), Some(data)) => dims[..] == *data.dims(),
            (Self::Ints(a), Some(Data::Ints(b))) => a.is_same(b),
            _ => false,
        }
    }
}

/// A run that is paused between two nodes, with the values that exist at that point.
#[derive(Clone, Debug)]
pub struct Frame {
    values: Vec<Option<Data>>,
    next: usize,
    trace: Option<Box<Trace>>,
}

/// What a run computes beyond the graph's outputs. Such a run keeps every value.
#[derive(Clone, Debug)]
struct Trace {
    /// For each node whether it runs.
    runs: Vec<bool>,
    /// For each value whether it must be computed.
    wanted: Vec<bool>,
}

impl Frame {
    /// A value that is a tensor, if it has been made and is still kept.
    pub fn value(&self, id: ValueId) -> Option<&Tensor> {
        self.data(id).and_then(Data::as_tensor)
    }

    /// A value, if it has been made and is still kept.
    pub fn data(&self, id: ValueId) -> Option<&Data> {
        self.values[id.0].as_ref()
    }

    /// The index of the node that runs next.
    pub fn next(&self) -> usize {
        self.next
    }

    /// The same paused run on another device, for an executor of the same graph on that device.
    ///
    /// # Errors
    /// Errors of the devices.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let moved = self.values.iter().map(|v| match v {
            Some(Data::Tensor(t)) => t.to_device(device).map(|t| Some(t.into())),
            other => Ok(other.clone()),
        });
        Ok(Self { values: moved.collect::<Result<_, _>>()?, next: self.next, trace: self.trace.clone() })
    }
}

impl Executor {
    /// Makes an executor of a graph whose weights are looked up by name.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] and [`Error::ParameterShape`].
    pub fn new(graph: Arc<Graph>, weight: impl Fn(&str) -> Option<Weight>, device: &Device) -> Result<Self> {
        Self::with_weights(graph, &weight, device)
    }

    fn with_weights(graph: Arc<Graph>, weight: &dyn Fn(&str) -> Option<Weight>, device: &Device) -> Result<Self> {
        let subgraphs = graph.nodes.iter().map(|node| {
            let one = |g: &Arc<Graph>| Self::with_weights(Arc::new(Graph::clone(g).simplified()?), weight, device);
            node.operator.subgraphs().iter().map(one).collect()
        });
        let subgraphs = subgraphs.collect::<Result<_>>()?;
        let parameters = graph.values.iter().map(|value| match value.source {
            Source::Parameter => {
                let missing = || Error::MissingParameter { name: value.name.clone() };
                let weight = weight(&value.name).ok_or_else(missing)?;
                check_shape(value, &weight)?;
                Ok(Some(weight))
            }
            _ => Ok(None),
        });
        let parameters = parameters.collect::<Result<_>>()?;
        let outputs: Vec<ValueId> = graph.outputs.iter().map(|(_, id)| *id).collect();
        let needed = graph.needed(outputs.iter().copied());
        // The last node that uses each value; none for outputs, which are kept to the end.
        let mut last = vec![None; graph.values.len()];
        for (n, node) in graph.nodes.iter().enumerate().filter(|(n, _)| needed[*n]) {
            node.inputs.iter().flatten().chain(&node.outputs).for_each(|v| last[v.0] = Some(n));
        }
        outputs.iter().for_each(|v| last[v.0] = None);
        let packs_as = packs_as(&graph);
        let step = |(n, node): (usize, &Node)| {
            let operator = &*node.operator;
            let host = operator.host_inputs().filter(|_| operator.packs_on(device)).unwrap_or(usize::MAX);
            let last: Vec<ValueId> = (0..last.len()).filter(|&v| last[v] == Some(n)).map(ValueId).collect();
            let sees_dims_only = operator.sees_dims_only();
            let whole = |id: &ValueId| graph.values[id.0].kind.dtype.is_whole();
            let simple = operator.is_pure() && operator.host_inputs().is_none() && operator.subgraphs().is_empty();
            let own = |i: &usize| {
                operator.reuses(*i)
                    && node.inputs[*i].is_some_and(|v| last.contains(&v))
                    && node.inputs.iter().filter(|other| **other == node.inputs[*i]).count() == 1
            };
            let reuses = (0..node.inputs.len()).filter(own).collect();
            Step {
                needed: needed[n],
                wanted: node
                    .outputs
                    .iter()
                    .map(|o| outputs.contains(o) || graph.users(*o).any(|user| needed[user]))
                    .collect(),
                packs_as: packs_as[n],
                host,
                count: if operator.takes_any_weights() { node.inputs.len() } else { host.min(node.inputs.len()) },
                remembers: simple && (sees_dims_only || node.inputs.iter().flatten().all(whole)),
                sees_dims_only,
                reuses,
                last,
            }
        };
        let plan = graph.nodes.iter().enumerate().map(step).collect();
        let nodes = graph.nodes.len();
        Ok(Self {
            kept: (0..nodes).map(|_| Kept::default()).collect(),
            results: (0..nodes).map(|_| Mutex::default()).collect(),
            fixed: (0..graph.values.len()).map(|_| OnceLock::new()).collect(),
            packed: (0..graph.nodes.len()).map(|_| OnceLock::new()).collect(),
            subgraphs,
            plan,
            spare: Mutex::new(Vec::new()),
            graph,
            device: device.clone(),
            parameters,
        })
    }

    /// Replaces a parameter. The forms packed from the old weight are dropped and packed again when a run needs them;
    /// other parameters are untouched. A weight with the version of the current one changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`] and [`Error::ParameterShape`].
    pub fn set_parameter(&mut self, name: &str, weight: Weight) -> Result<()> {
        let id = self.graph.find(name).filter(|id| self.parameters[id.0].is_some());
        let mut found = id.is_some();
        for inner in self.subgraphs.iter_mut().flatten() {
            match inner.set_parameter(name, weight.clone()) {
                Ok(()) => found = true,
                Err(Error::UnknownParameter { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        let Some(id) = id else {
            return if found { Ok(()) } else { Err(Error::UnknownParameter { name: name.into() }) };
        };
        check_shape(self.graph.value(id), &weight)?;
        let old = self.parameters[id.0].replace(weight);
        if old.map(|w| w.version()) != self.parameters[id.0].as_ref().map(Weight::version) {
            self.fixed[id.0] = OnceLock::new();
            self.graph.users(id).for_each(|node| self.packed[node] = OnceLock::new());
        }
        Ok(())
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Computes the outputs for inputs in the order of [`Graph::inputs`]. An optional input may be `None`, and so are
    /// the outputs that depend on it.
    ///
    /// # Errors
    /// [`Error::Input`] if a required input is missing or does not fit, [`Error::Run`] with the node where an
    /// operation refuses its operands.
    pub fn run(&self, inputs: &[Option<&Tensor>], options: &RunOptions) -> Result<Outputs> {
        let frame = self.checked(inputs.len(), inputs.iter().map(|i| i.cloned().map(Data::from)))?;
        self.finish(frame, options)
    }

    /// [`Self::run`] with inputs of which some are whole numbers in host memory.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_data(&self, inputs: &[Option<Data>], options: &RunOptions) -> Result<Outputs> {
        let frame = self.checked(inputs.len(), inputs.iter().cloned())?;
        self.finish(frame, options)
    }

    fn finish(&self, mut frame: Frame, options: &RunOptions) -> Result<Outputs> {
        self.advance(&mut frame, self.graph.nodes.len(), options)?;
        Ok(self.end(frame))
    }

    /// [`Self::run_data`] that takes the inputs and leaves the outputs in `outputs`, whose memory it reuses.
    ///
    /// # Errors
    /// As [`Self::run`]; `outputs` is then empty.
    pub fn run_into(
        &self,
        inputs: &mut [Option<Data>],
        options: &RunOptions,
        outputs: &mut Vec<Option<Data>>,
    ) -> Result<()> {
        outputs.clear();
        let mut frame = self.checked(inputs.len(), inputs.iter_mut().map(Option::take))?;
        self.advance(&mut frame, self.graph.nodes.len(), options)?;
        outputs.extend(self.graph.outputs.iter().map(|(_, id)| self.output(&frame, *id)));
        self.recycle(frame);
        Ok(())
    }

    /// Starts a run, before its first node. With `traced`, every node runs, also those that no output needs, and every
    /// value is kept.
    ///
    /// # Errors
    /// [`Error::Input`] if a required input is missing or does not fit.
    pub fn begin(&self, inputs: &[Option<&Tensor>], traced: bool) -> Result<Frame> {
        Ok(self.traced(self.checked(inputs.len(), inputs.iter().map(|i| i.cloned().map(Data::from)))?, traced))
    }

    /// [`Self::begin`] with inputs of which some are whole numbers in host memory.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_data(&self, inputs: &[Option<Data>], traced: bool) -> Result<Frame> {
        Ok(self.traced(self.checked(inputs.len(), inputs.iter().cloned())?, traced))
    }

    fn traced(&self, mut frame: Frame, traced: bool) -> Frame {
        if traced {
            let (nodes, values) = (self.graph.nodes.len(), self.graph.values.len());
            frame.trace = Some(Box::new(Trace { runs: vec![true; nodes], wanted: vec![true; values] }));
        }
        frame
    }

    /// A run with inputs that fit.
    fn checked(&self, count: usize, inputs: impl Iterator<Item = Option<Data>>) -> Result<Frame> {
        let frame = self.frame(inputs, &[]);
        match self.check(count, &frame) {
            Ok(()) => Ok(frame),
            Err(e) => {
                self.recycle(frame);
                Err(e)
            }
        }
    }

    /// Starts a run without checking the inputs: the node that uses an input checks it, so the error is the one of that
    /// operation. The `watched` values are computed in addition to the outputs; if there are any, every value is kept.
    /// Otherwise the run is that of [`Self::run`].
    pub fn start(&self, inputs: &[Option<&Tensor>], watched: &[ValueId]) -> Frame {
        self.frame(inputs.iter().map(|i| i.cloned().map(Data::from)), watched)
    }

    fn frame(&self, inputs: impl Iterator<Item = Option<Data>>, watched: &[ValueId]) -> Frame {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut values = spare().unwrap_or_default();
        values.resize(self.graph.values.len(), None);
        for (&id, input) in self.graph.inputs.iter().zip(inputs) {
            values[id.0] = input;
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

    /// Whether the inputs of a run fit, so many of which were given.
    fn check(&self, count: usize, frame: &Frame) -> Result<()> {
        if count > self.graph.inputs.len() {
            let expected = format!("one of {}", self.graph.inputs.len());
            return Err(Error::Input { name: "inputs".into(), expected, got: format!("{count} in all") });
        }
        for &id in &self.graph.inputs {
            let value = &self.graph.values[id.0];
            let bad =
                |got: String| Err(Error::Input { name: value.name.clone(), expected: value.kind.to_string(), got });
            let whole = value.kind.dtype.is_whole();
            match frame.data(id) {
                Some(Data::Ints(i)) if !whole || !value.kind.has_dims(i.dims()) => {
                    return bad(format!("whole numbers {:?}", i.dims()));
                }
                Some(Data::Tensor(t))
                    if !(whole || value.kind.dtype == t.dtype()) || !value.kind.has_dims(t.dims()) =>
                {
                    return bad(format!("{} {}", t.dtype(), t.shape()));
                }
                Some(Data::Tensor(t)) if t.device() != self.device => {
                    return bad(format!("on {}, not on {}", t.device(), self.device));
                }
                None if !value.optional => return bad("missing".into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings all parameters that runs need to the device, each in the form that its node computes with. Without this
    /// call the first run does it.
    ///
    /// # Errors
    /// [`Error::Run`] with the node that rejects its weights; errors of the device.
    pub fn prepare(&self) -> Result<()> {
        for (n, node) in self.graph.nodes.iter().enumerate().filter(|(n, _)| self.plan[*n].needed) {
            for id in node.inputs.iter().take(self.plan[n].host).flatten() {
                self.fixed(*id)?;
            }
            self.packed(n)?;
            self.subgraphs[n].iter().try_for_each(Self::prepare)?;
        }
        Ok(())
    }

    /// Runs the nodes before index `until` that have not run yet.
    ///
    /// # Errors
    /// [`Error::Run`]; errors from packing parameters.
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

    /// The outputs of a finished run. Of an unfinished one, those computed so far.
    pub fn end(&self, frame: Frame) -> Outputs {
        let outputs = self.graph.outputs.iter().map(|(_, id)| self.output(&frame, *id)).collect();
        self.recycle(frame);
        outputs
    }

    fn output(&self, frame: &Frame, id: ValueId) -> Option<Data> {
        // An output may be a constant.
        let fixed = || self.fixed(id).ok().flatten().cloned();
        frame.values[id.0].clone().or_else(fixed)
    }

    /// Ends a run whose values are no longer needed, so that later runs reuse its memory.
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

    /// Runs a node. Returns `None` if a required input was left out.
    fn outputs(&self, n: usize, frame: &mut Frame, options: &RunOptions) -> Result<Option<Outputs>> {
        let (node, step) = (&self.graph.nodes[n], &self.plan[n]);
        let given = |i: usize| node.inputs[i].is_some_and(|id| frame.values[id.0].is_some() || self.is_fixed(id));
        if !complete(node, given) {
            return Ok(None);
        }
        // What nothing needs any more goes to a node that uses its memory.
        let mut own = SmallVec::new();
        if frame.trace.is_none() {
            let given = |&i: &usize| Some((i, frame.values[node.inputs[i]?.0].take()?));
            own.extend(step.reuses.iter().filter_map(given));
        }
        let mut inputs: SmallVec<[Option<&Data>; 12]> = SmallVec::new();
        // What is packed is not among them, unless it may also come from a run.
        for (i, id) in node.inputs.iter().take(step.count).enumerate() {
            inputs.push(match id {
                Some(id) => match frame.values[id.0].as_ref() {
                    None if i < step.host => self.fixed(*id)?,
                    other => other,
                },
                None => None,
            });
        }
        if step.remembers
            && frame.trace.is_none()
            && let Some(outputs) = self.remembered(n, &inputs)
        {
            return Ok(Some(outputs));
        }
        let packed = self.packed(n)?;
        let mut wanted = step.wanted.clone();
        if let Some(trace) = &frame.trace {
            wanted.iter_mut().zip(&node.outputs).for_each(|(w, o)| *w |= trace.wanted[o.0]);
        }
        let call = Call {
            inputs: &inputs,
            own: RefCell::new(own),
            wanted: &wanted,
            packed: packed.as_ref(),
            subgraphs: &self.subgraphs[n],
            device: &self.device,
            options,
            kept: &self.kept[n],
        };
        let outputs = node.operator.run(&call).map_err(|source| Error::Run {
            node: node.name.clone(),
            operator: node.operator.name(),
            source,
        })?;
        if step.remembers && frame.trace.is_none() {
            self.remember(n, &inputs, &outputs);
        }
        Ok(Some(outputs))
    }

    /// The results of a node that computes with whole numbers, if its inputs are those of the last run.
    fn remembered(&self, n: usize, inputs: &[Option<&Data>]) -> Option<Outputs> {
        let last = self.results[n].lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref()?;
        let same = last.inputs.len() == inputs.len() && last.inputs.iter().zip(inputs).all(|(k, i)| k.is(*i));
        same.then(|| last.outputs.clone())
    }

    fn remember(&self, n: usize, inputs: &[Option<&Data>], outputs: &Outputs) {
        let count = |o: &Data| o.dims().iter().product::<usize>();
        if outputs.iter().flatten().any(|o| count(o) > MAX_REMEMBERED) {
            return;
        }
        let dims_only = self.plan[n].sees_dims_only;
        let Some(inputs) = inputs.iter().map(|i| Known::of(*i, dims_only)).collect() else { return };
        let mut last = self.results[n].lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Remembered { inputs, outputs: outputs.clone() });
    }

    fn is_fixed(&self, id: ValueId) -> bool {
        matches!(self.graph.values[id.0].source, Source::Parameter | Source::Constant(_))
    }

    /// What a node made of its parameters, or another one of the same.
    fn packed(&self, n: usize) -> Result<&Option<Packed>> {
        let n = self.plan[n].packs_as;
        if let Some(there) = self.packed[n].get() {
            return Ok(there);
        }
        let host = HostInputs { executor: self, node: n };
        let operator = &self.graph.nodes[n].operator;
        let made = if operator.packs_on(&self.device) { operator.pack(&host, &self.device)? } else { None };
        Ok(self.packed[n].get_or_init(|| made))
    }

    /// A parameter or a constant on the device; `None` for other values.
    fn fixed(&self, id: ValueId) -> Result<Option<&Data>> {
        if !self.is_fixed(id) {
            return Ok(None);
        }
        if let Some(there) = self.fixed[id.0].get() {
            return Ok(Some(there));
        }
        let data = self.new_data(id)?;
        Ok(Some(self.fixed[id.0].get_or_init(|| data)))
    }

    /// A parameter or a constant, a tensor being a new one on the device.
    fn new_data(&self, id: ValueId) -> Result<Data> {
        let value = &self.graph.values[id.0];
        let dims: SmallVec<[usize; 6]> = value.kind.sizes().collect();
        let weight = match &value.source {
            Source::Constant(numbers) => return Ok(numbers.data(&dims, &self.device)?),
            _ => self.weight(id)?,
        };
        if let (Device::Cpu, Some(shape)) = (&self.device, Shape::new(&dims)) {
            return Ok(Tensor::cpu_write(shape, |out| weight.read_into(out))?.into());
        }
        let tensor = Tensor::from_f32(&weight.values()?, &dims, &self.device)?;
        weight.give_back();
        Ok(tensor.into())
    }

    fn weight(&self, id: ValueId) -> Result<&Weight> {
        let missing = || Error::MissingParameter { name: self.graph.values[id.0].name.clone() };
        self.parameters[id.0].as_ref().ok_or_else(missing)
    }
}

/// For each node the first one that makes of the same parameters what it does: itself, or another call of a layer.
fn packs_as(graph: &Graph) -> Vec<usize> {
    let mut by_inputs: HashMap<&[Option<ValueId>], Vec<usize>> = HashMap::new();
    let mut all: Vec<usize> = (0..graph.nodes.len()).collect();
    for (n, node) in graph.nodes.iter().enumerate() {
        let Some(packed) = node.operator.host_inputs().and_then(|host| node.inputs.get(host..)) else { continue };
        let alike = by_inputs.entry(packed).or_default();
        match alike.iter().find(|&&m| node.operator.packs_like(&*graph.nodes[m].operator)) {
            Some(&first) => all[n] = first,
            None => alike.push(n),
        }
    }
    all
}

/// Whether a weight has the shape of a parameter.
fn check_shape(value: &Value, weight: &Weight) -> Result<()> {
    let expected: Vec<usize> = value.kind.sizes().collect();
    if weight.shape() == expected {
        return Ok(());
    }
    Err(Error::ParameterShape { name: value.name.clone(), expected, got: weight.shape().to_vec() })
}

impl HostInputs<'_> {
    fn id(&self, index: usize) -> Option<ValueId> {
        self.executor.graph.nodes[self.node].inputs.get(index).copied().flatten()
    }

    /// Whether an input was not left out.
    pub fn is_given(&self, index: usize) -> bool {
        self.id(index).is_some()
    }

    /// The dimensions of an input that is there before a run.
    pub fn dims(&self, index: usize) -> SmallVec<[usize; 6]> {
        self.id(index).map(|id| self.executor.graph.values[id.0].kind.sizes().collect()).unwrap_or_default()
    }

    /// The elements of a parameter, or of a constant of floats, from where they are if they stand there as f32.
    ///
    /// # Errors
    /// [`Error::MissingParameter`]; errors of memory.
    pub fn floats(&self, index: usize) -> Result<Option<Cow<'_, [f32]>>> {
        let Some(id) = self.id(index) else { return Ok(None) };
        match &self.executor.graph.values[id.0].source {
            Source::Constant(Constant::Float(v)) => Ok(Some(Cow::Borrowed(v))),
            Source::Constant(_) => Ok(self.weight(index)?.map(|w| w.to_vec()).transpose()?.map(Cow::Owned)),
            _ => Ok(Some(self.executor.weight(id)?.values()?)),
        }
    }

    /// Lets the system have the memory of a parameter again that was read from a mapped file.
    pub fn give_back(&self, index: usize) {
        if let Some(weight) = self.id(index).and_then(|id| self.executor.parameters[id.0].as_ref()) {
            weight.give_back();
        }
    }

    /// Whether an input is there before a run.
    pub fn is_fixed(&self, index: usize) -> bool {
        self.id(index).is_some_and(|id| self.executor.is_fixed(id))
    }

    /// An input, if there is one. The elements of a parameter stay where they are.
    ///
    /// # Errors
    /// [`Error::MissingParameter`].
    pub fn weight(&self, index: usize) -> Result<Option<Weight>> {
        let Some(id) = self.id(index) else { return Ok(None) };
        let value = &self.executor.graph.values[id.0];
        match &value.source {
            Source::Constant(c) => {
                let dims: SmallVec<[usize; 6]> = value.kind.sizes().collect();
                let elements = match c {
                    Constant::Float(v) => v.to_vec(),
                    other => other.array(&dims).data.into_iter().map(|v| v as f32).collect(),
                };
                Ok(Some(Weight::new(&dims, elements).expect("a constant has the elements of its shape")))
            }
            _ => Ok(Some(self.executor.weight(id)?.clone())),
        }
    }

    /// An input as a tensor on the device; `None` if it was left out.
    ///
    /// # Errors
    /// [`Error::MissingParameter`]; errors of the device.
    pub fn tensor(&self, index: usize) -> Result<Option<Tensor>> {
        let data = self.id(index).map(|id| self.executor.new_data(id)).transpose()?;
        Ok(data.map(|d| d.to_f32(&self.executor.device).map(std::borrow::Cow::into_owned)).transpose()?)
    }

    /// An error of the device or of a kernel, wrapped with the node's name.
    pub fn error(&self, source: recurve_tensor::Error) -> Error {
        let node = &self.executor.graph.nodes[self.node];
        Error::Run { node: node.name.clone(), operator: node.operator.name(), source }
    }
}
