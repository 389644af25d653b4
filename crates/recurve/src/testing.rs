//! Comparing devices with each other and with the f64 reference, for Recurve's own tests and for yours.
//!
//! ```
//! use recurve::{Device, HostArray, HostData, Model, Sequential, SimpleRnn, testing};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Sequential::new().add(SimpleRnn::new(8)).build(&[None, None, Some(3)], &Device::Cpu)?;
//! let model = Model::new("example", network);
//! let x = HostArray { shape: vec![1, 4, 3], data: HostData::Float(vec![0.5; 12]) };
//! let report = testing::cross_check(&model, &[("input", x)], &[Device::Cpu], testing::Tolerance::F32)?;
//! assert!(report.worst_error() < 1e-6);
//! # Ok(())
//! # }
//! ```

mod examples;

pub use examples::{check_size, example_inputs, example_onnx_inputs};

use crate::{
    DType, Device, DirectionWeights, Error, HostArray, HostData, LayerConfig, LayerError, Model, Network, OnnxModel,
    RecurrentSpec, Tensor, WeightStorage, Weights,
};
use half::f16;
use recurve_graph::Array;
use recurve_reference as reference;
use recurve_vocabulary::round_to_int8;
use std::fmt;

/// The allowed error of a value: `|got - want| <= abs + rel · |want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Absolute part.
    pub abs: f64,
    /// Relative part.
    pub rel: f64,
}

impl Tolerance {
    /// For f32 arithmetic compared with the f64 reference: 2e-5 each, the error bound of the recurrent kernels.
    pub const F32: Self = Self { abs: 2e-5, rel: 2e-5 };
    /// For f16 storage: rounding a weight to f16 has a relative error of up to 5e-4, and errors of sums of weights are
    /// some multiple of that.
    pub const F16: Self = Self { abs: 5e-3, rel: 5e-3 };

    /// The same absolute and relative tolerance.
    pub const fn new(both: f64) -> Self {
        Self { abs: both, rel: both }
    }
}

/// The result of comparing two arrays that agree.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Agreement {
    /// Number of elements compared.
    pub count: usize,
    /// Largest absolute error.
    pub worst_error: f64,
    /// The index of the element with the largest absolute error.
    pub worst_index: usize,
}

/// Why two arrays do not agree.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// They have different numbers of elements.
    #[error("{got} elements, but {want} are expected")]
    Length {
        /// Number of elements of the array under test.
        got: usize,
        /// Number of elements expected.
        want: usize,
    },
    /// They have different shapes.
    #[error("has shape {got:?}, but {want:?} is expected")]
    Shape {
        /// Shape of the array under test.
        got: Vec<usize>,
        /// Shape expected.
        want: Vec<usize>,
    },
    /// Both arrays are empty, so there is nothing to compare.
    #[error("there is nothing to compare")]
    Empty,
    /// A value of either array is NaN or infinite.
    #[error("element {index} is {got}, expected {want}: only finite numbers can be compared")]
    NotFinite {
        /// Its index.
        index: usize,
        /// The value under test.
        got: f64,
        /// The expected value.
        want: f64,
    },
    /// At least one error exceeds the tolerance.
    #[error(
        "element {index} is {got}, expected {want}: the error {error:.3e} exceeds {allowed:.3e} ({wrong} of {count} elements are wrong)"
    )]
    Value {
        /// The index of the element that exceeds the tolerance most.
        index: usize,
        /// The value under test.
        got: f64,
        /// The expected value.
        want: f64,
        /// Its absolute error.
        error: f64,
        /// The allowed error of this element.
        allowed: f64,
        /// Number of elements whose error is too large.
        wrong: usize,
        /// Number of elements compared.
        count: usize,
    },
}

/// Compares an array with the expected values.
///
/// # Errors
/// [`Mismatch`], also if either side contains NaN or infinity or the arrays are empty.
pub fn compare(got: &[f32], want: &[f64], tolerance: Tolerance) -> Result<Agreement, Mismatch> {
    compared(got.iter().map(|&v| f64::from(v)), want, tolerance)
}

/// [`compare`] for arrays, whose shapes must be the same too.
///
/// # Errors
/// As [`compare`], and [`Mismatch::Shape`].
pub fn compare_arrays(got: &HostArray, want: &HostArray, tolerance: Tolerance) -> Result<Agreement, Mismatch> {
    if got.shape != want.shape {
        return Err(Mismatch::Shape { got: got.shape.clone(), want: want.shape.clone() });
    }
    compared(got.to_f64().into_iter(), &want.to_f64(), tolerance)
}

fn compared(
    got: impl ExactSizeIterator<Item = f64>,
    want: &[f64],
    tolerance: Tolerance,
) -> Result<Agreement, Mismatch> {
    if got.len() != want.len() {
        return Err(Mismatch::Length { got: got.len(), want: want.len() });
    }
    if want.is_empty() {
        return Err(Mismatch::Empty);
    }
    let mut best = Agreement { count: want.len(), worst_error: 0.0, worst_index: 0 };
    let (mut wrong, mut excess, mut worst) = (0, 0.0, None);
    for (index, (g, &w)) in got.zip(want).enumerate() {
        if !(g.is_finite() && w.is_finite()) {
            return Err(Mismatch::NotFinite { index, got: g, want: w });
        }
        let error = (g - w).abs();
        let allowed = tolerance.abs + tolerance.rel * w.abs();
        if error > best.worst_error {
            best = Agreement { worst_error: error, worst_index: index, ..best };
        }
        // With a NaN tolerance no error is allowed.
        if error > allowed || allowed.is_nan() {
            wrong += 1;
            if worst.is_none() || error - allowed > excess {
                excess = error - allowed;
                worst = Some((index, g, w, error, allowed));
            }
        }
    }
    match worst {
        None => Ok(best),
        Some((index, got, want, error, allowed)) => {
            Err(Mismatch::Value { index, got, want, error, allowed, wrong, count: best.count })
        }
    }
}

/// The comparison of a layer's first output on one device with the reference.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerCheck {
    /// The layer's name.
    pub layer: String,
    /// The shape of its output.
    pub shape: Vec<usize>,
    /// The result of the comparison.
    pub result: Result<Agreement, Mismatch>,
}

impl fmt::Display for LayerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24} {:20} ", self.layer, format!("{:?}", self.shape))?;
        match &self.result {
            Ok(a) => write!(f, "ok    worst error {:.2e} at {}", a.worst_error, place(a.worst_index, &self.shape)),
            Err(m) => write!(f, "WRONG {m}"),
        }
    }
}

/// The comparison of one device with the reference.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceCheck {
    /// The name of the device.
    pub device: String,
    /// Its layers, in order.
    pub layers: Vec<LayerCheck>,
    /// The first layer that does not agree, run again on the device with inputs that the CPU computed. It shows whether
    /// this layer is wrong or its inputs were. `None` if all layers agree, and on the CPU.
    pub alone: Option<LayerCheck>,
}

/// The result of [`cross_check`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CrossCheck {
    /// The devices, in the order given.
    pub devices: Vec<DeviceCheck>,
}

impl CrossCheck {
    /// Whether at least one layer was compared and all layers agree on all devices.
    pub fn passed(&self) -> bool {
        let mut layers = self.devices.iter().flat_map(|d| &d.layers).peekable();
        layers.peek().is_some() && layers.all(|l| l.result.is_ok())
    }

    /// The largest absolute error; infinite if an array could not be compared.
    pub fn worst_error(&self) -> f64 {
        self.devices
            .iter()
            .flat_map(|d| &d.layers)
            .map(|l| match &l.result {
                Ok(a) => a.worst_error,
                Err(Mismatch::Value { error, .. }) => *error,
                Err(_) => f64::INFINITY,
            })
            .fold(0.0, f64::max)
    }
}

impl fmt::Display for CrossCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, d) in self.devices.iter().enumerate() {
            writeln!(f, "{}{}", if n > 0 { "\n" } else { "" }, d.device)?;
            d.layers.iter().try_for_each(|l| writeln!(f, "  {l}"))?;
            if let Some(alone) = &d.alone {
                writeln!(f, "  the first of them on the device, with its inputs from the CPU:\n  {alone}")?;
            }
        }
        Ok(())
    }
}

/// Converts a flat index to one index per dimension.
fn place(mut index: usize, shape: &[usize]) -> String {
    let mut at: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&d| {
            let i = index % d;
            index /= d;
            i
        })
        .collect();
    at.reverse();
    format!("{at:?}")
}

/// Why a cross-check failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A device disagrees with the reference.
    #[error("a device disagrees with the reference:\n{0}")]
    Mismatch(CrossCheck),
    /// The model could not run.
    #[error(transparent)]
    Run(#[from] Error),
}

/// Runs `model` on every device as [`Model::run`] does, and compares the first output of every layer with the f64
/// reference. Inputs are given by name, as to [`Model::run`].
///
/// # Errors
/// [`CheckError::Mismatch`] with the whole report if a layer disagrees or there are no devices; [`CheckError::Run`] if
/// the model cannot run.
pub fn cross_check(
    model: &Model,
    inputs: &[(&str, HostArray)],
    devices: &[Device],
    tolerance: Tolerance,
) -> Result<CrossCheck, CheckError> {
    let want = reference_outputs(model, inputs)?;
    let mut report = CrossCheck { devices: Vec::new() };
    for device in devices {
        let here = model.to_device(device)?;
        let given = here.inputs(inputs.iter().map(|(n, a)| (*n, a.clone())))?;
        let outputs = here.network().forward_traced(&given.named(), &given.args()).map_err(Error::from)?;
        let check = |(layer, out): (String, Tensor), want: &[f64]| {
            let result = compare(&out.to_vec()?, want, tolerance);
            Ok::<_, Error>(LayerCheck { layer, shape: out.dims().to_vec(), result })
        };
        let layers = outputs.into_iter().zip(&want).map(|(out, want)| check(out, want));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let wrong = layers.iter().position(|l| l.result.is_err()).filter(|_| *device != Device::Cpu);
        let alone = wrong.map(|n| {
            let host = model.to_device(&Device::Cpu)?;
            let given = host.inputs(inputs.iter().map(|(n, a)| (*n, a.clone())))?;
            let mut outputs = host.network().forward_traced_across(n, device, &given.named(), &given.args())?;
            check(outputs.swap_remove(n), &want[n])
        });
        let alone = alone.transpose()?;
        report.devices.push(DeviceCheck { device: device.to_string(), layers, alone });
    }
    if report.passed() { Ok(report) } else { Err(CheckError::Mismatch(report)) }
}

/// The first output of every layer, computed in f64 by [`recurve_reference`].
///
/// # Errors
/// [`Error::Input`] if an input is missing or of the wrong kind, [`Error::Run`] if its shape is wrong.
pub fn reference_outputs(model: &Model, inputs: &[(&str, HostArray)]) -> Result<Vec<Vec<f64>>, Error> {
    // The reference checks nothing, so the model's own checks of names and shapes run first.
    let host = model.to_device(&Device::Cpu)?;
    let given = host.inputs(inputs.iter().map(|(n, a)| (*n, a.clone())))?;
    host.network().forward_named_from(&given.named(), &given.args(), None)?;
    if !model.network().config().is_sequential() || !model.network().layers().all(has_definition) {
        return Ok(evaluate_graph(model.network(), inputs)?);
    }

    let data = inputs.iter().find(|(n, _)| *n == model.info().network.inputs[0].name).map(|(_, a)| a);
    let data = data.expect("the inputs were just found complete");
    let host = |t: Option<Tensor>| t.map(|t| t.to_vec_u32()).transpose();
    let lengths = host(given.lengths)?.map(|l| l.into_iter().map(|v| v as usize).collect::<Vec<_>>());
    let mask = host(given.mask)?.map(|m| m.into_iter().map(|v| v != 0).collect());
    Ok(evaluate(model.network(), data, lengths.as_deref(), mask)?)
}

/// Whether [`layer`] computes this kind of layer from its definition. A network with other layers is computed by the
/// references of the graph's operators.
fn has_definition(config: &LayerConfig) -> bool {
    match config {
        LayerConfig::TimeDistributed(t) => has_definition(&t.layer),
        LayerConfig::Embedding(_)
        | LayerConfig::Masking(_)
        | LayerConfig::Dense(_)
        | LayerConfig::Recurrent(_)
        | LayerConfig::StackedRnnCells(_)
        | LayerConfig::Dropout(_) => true,
        _ => false,
    }
}

/// The first output of every call of a layer, computed by the f64 references of the graph's operators.
fn evaluate_graph(network: &Network, inputs: &[(&str, HostArray)]) -> Result<Vec<Vec<f64>>, LayerError> {
    let graph = network.graph();
    let single = network.config().inputs.len() == 1;
    let own = |name: &str| {
        let given = |(n, a): &(&str, HostArray)| {
            let is_input = network.config().inputs.iter().any(|i| i.name == *n);
            let in_graph = match (is_input, single) {
                (false, _) => (*n).to_owned(),
                (true, true) => "input".into(),
                (true, false) => format!("input.{n}"),
            };
            (in_graph == name).then(|| a.clone())
        };
        let array = inputs.iter().find_map(given)?;
        Some(Array::new(&array.shape, array.to_f64()))
    };
    let operands: Vec<_> = graph.inputs().iter().map(|id| own(&graph.value(*id).name)).collect();
    let weight = |name: &str| {
        let w = network.weights().get(name)?;
        Some((w.shape().to_vec(), w.to_vec()))
    };
    let values = graph.reference(&operands, |name| match weight(name)? {
        (shape, Ok(v)) => Some(Array::new(&shape, v.into_iter().map(f64::from).collect())),
        // The reference reports this as a missing weight.
        (_, Err(_)) => None,
    })?;
    let all: Vec<_> = graph.values().collect();
    let traced = network.traced_values().map(|name| {
        let place = all.iter().position(|(_, v)| v.name == name).expect("a value of the graph");
        values[place].as_ref().map(|a| a.data.clone()).unwrap_or_default()
    });
    Ok(traced.collect())
}

/// A value of a graph on a device against what it should be.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NodeCheck {
    /// The node that makes it.
    pub node: String,
    /// The node's operator.
    pub operator: &'static str,
    /// Its name.
    pub value: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The largest absolute error, or what is wrong.
    pub result: Result<f64, String>,
}

/// A graph on a device against what its values should be.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GraphCheck {
    /// The device.
    pub device: String,
    /// What its nodes made, in the order in which they ran.
    pub nodes: Vec<NodeCheck>,
}

impl GraphCheck {
    /// Whether every value agrees, and there was at least one.
    pub fn passed(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(|n| n.result.is_ok())
    }

    /// The first node that does not agree.
    pub fn first_wrong(&self) -> Option<&NodeCheck> {
        self.nodes.iter().find(|n| n.result.is_err())
    }
}

impl fmt::Display for GraphCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.device)?;
        let worst = self.nodes.iter().filter_map(|n| Some((n, *n.result.as_ref().ok()?)));
        let right = worst.clone().count();
        write!(f, "  {right} of {} values agree", self.nodes.len())?;
        match worst.max_by(|a, b| a.1.total_cmp(&b.1)) {
            Some((n, e)) => writeln!(f, ", worst error {e:.2e} in `{}` ({})", n.node, n.operator)?,
            None => writeln!(f)?,
        }
        if let Some(n) = self.first_wrong() {
            let why = n.result.as_ref().err().map_or("", |e| e);
            writeln!(f, "  the first that departs is node `{}` ({}) {:?}: {why}", n.node, n.operator, n.shape)?;
        }
        Ok(())
    }
}

/// Runs every node of an ONNX model on a device and holds what it makes against the f64 reference. Infinities and
/// NaN agree with themselves.
///
/// # Errors
/// [`Error::Input`] if an input does not fit; errors of the graph and the device.
pub fn check_onnx(
    model: &OnnxModel,
    inputs: &[(&str, &HostArray)],
    device: &Device,
    tolerance: Tolerance,
) -> Result<GraphCheck, Error> {
    let wide = model.inputs().iter().map(|i| {
        let (_, a) = inputs.iter().find(|(name, _)| *name == i.name)?;
        Some(Array::new(&a.shape, a.to_f64()))
    });
    let wide: Vec<_> = wide.collect();
    let reference = || model.graph().reference(&wide, |_| None).map_err(|e| Error::Run(e.into()));
    check_values(model, inputs, device, tolerance, |all| {
        // The reference checks nothing: what does not fit has been refused by the run.
        let truth = reference()?;
        Ok(all.iter().map(|(n, _)| truth[*n].clone()).collect())
    })
}

/// Runs every node of an ONNX model on a device and holds what it makes against other numbers, such as another
/// program's: `want` gives them by the names that values have in the file. Values that it does not know are left out.
/// Infinities and NaN agree with themselves.
///
/// # Errors
/// [`Error::Input`] if an input does not fit; errors of the graph and the device.
pub fn check_onnx_values(
    model: &OnnxModel,
    inputs: &[(&str, &HostArray)],
    device: &Device,
    tolerance: Tolerance,
    want: impl Fn(&str) -> Option<HostArray>,
) -> Result<GraphCheck, Error> {
    check_values(model, inputs, device, tolerance, |all| {
        let array = |name: &str| want(name).map(|a| Array::new(&a.shape, a.to_f64()));
        Ok(all.iter().map(|(_, name)| array(name)).collect())
    })
}

/// Holds the values of a traced run against what `truth` says of them: of each its number in the graph, and its name.
/// A value that comes out under another name is one of them by that name too.
fn check_values(
    model: &OnnxModel,
    inputs: &[(&str, &HostArray)],
    device: &Device,
    tolerance: Tolerance,
    truth: impl FnOnce(&[(usize, &str)]) -> Result<Vec<Option<Array>>, Error>,
) -> Result<GraphCheck, Error> {
    let model = model.to_device(device)?;
    let graph = model.graph();
    let wrong = |e: recurve_graph::Error| Error::Run(e.into());
    let data = model.data(inputs.iter().copied())?;
    let executor = model.executor();
    let mut frame = executor.begin_data(&data, true).map_err(wrong)?;
    executor.advance(&mut frame, usize::MAX, &recurve_graph::RunOptions::default()).map_err(wrong)?;
    let values: Vec<_> = graph.values().collect();
    let mut named: Vec<(usize, &str)> = values.iter().enumerate().map(|(n, (_, v))| (n, &v.name[..])).collect();
    for (name, id) in graph.outputs() {
        let place = values.iter().position(|(v, _)| v == id).expect("an output is a value of its graph");
        if values[place].1.name != *name {
            named.push((place, name));
        }
    }
    let mut nodes = Vec::new();
    for ((n, name), want) in named.iter().zip(truth(&named)?) {
        let (id, value) = &values[*n];
        let recurve_graph::Source::Node { node, .. } = value.source else { continue };
        let (Some(got), Some(want)) = (frame.data(*id), want) else { continue };
        let node = &graph.nodes()[node];
        let numbers: Vec<f64> = match got.as_tensor() {
            Some(t) if t.dtype() != DType::U32 => t.to_vec()?.into_iter().map(f64::from).collect(),
            _ => got.to_ints()?.data().iter().map(|&v| v as f64).collect(),
        };
        nodes.push(NodeCheck {
            node: node.name.clone(),
            operator: node.operator.name(),
            value: (*name).to_owned(),
            shape: got.dims().to_vec(),
            result: agree(got.dims(), &numbers, &want, tolerance),
        });
    }
    Ok(GraphCheck { device: device.to_string(), nodes })
}

/// The largest absolute error of numbers that agree.
fn agree(dims: &[usize], got: &[f64], want: &Array, tolerance: Tolerance) -> Result<f64, String> {
    if dims != want.dims {
        return Err(format!("has shape {dims:?}, expected {:?}", want.dims));
    }
    let mut worst = 0.0f64;
    for (n, (&g, &w)) in got.iter().zip(&want.data).enumerate() {
        // What f32 cannot hold is infinite there.
        let same = g == w || g.is_nan() && w.is_nan() || g.is_infinite() && g == f64::from(w as f32);
        let error = if same { 0.0 } else { (g - w).abs() };
        let allowed = tolerance.abs + tolerance.rel * w.abs();
        // What is not finite agrees with itself only.
        if !same && (!error.is_finite() || error > allowed || allowed.is_nan()) {
            return Err(format!("element {} is {g}, expected {w}: the error is {error:.3e}", place(n, dims)));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

/// Values on their way through the reference.
#[derive(Clone)]
struct Values {
    shape: Vec<usize>,
    x: Vec<f64>,
    ids: Vec<u32>,
    /// The mask that earlier layers computed, `[B, T]`.
    mask: Option<Vec<bool>>,
}

fn evaluate(
    network: &Network,
    input: &HostArray,
    lengths: Option<&[usize]>,
    mask: Option<Vec<bool>>,
) -> Result<Vec<Vec<f64>>, LayerError> {
    let mut v = Values { shape: input.shape.clone(), x: Vec::new(), ids: Vec::new(), mask: None };
    match (&input.data, network.input_dtype()) {
        (HostData::Int(x), DType::U32) => v.ids = x.iter().map(|&x| x as u32).collect(),
        // Rounded to f32 first, as a run does.
        (HostData::Int(x), _) => v.x = x.iter().map(|&x| f64::from(x as f32)).collect(),
        (HostData::Float(x), _) => v.x = x.iter().map(|&x| x.into()).collect(),
        _ => {
            let (layer, message) =
                ("input".to_owned(), "has elements of a type that the reference does not read".into());
            return Err(LayerError::Option { layer, argument: "data", message });
        }
    }
    let layers = network.layers().enumerate();
    layers
        .map(|(n, config)| {
            let given = Valid { lengths, mask: mask.as_deref() };
            layer(config, &format!("layers.{n}"), network.weights(), &given, &mut v)?;
            Ok(v.x.clone())
        })
        .collect()
}

/// The valid timesteps that the caller gives.
#[derive(Clone, Copy, Default)]
struct Valid<'a> {
    lengths: Option<&'a [usize]>,
    mask: Option<&'a [bool]>,
}

fn layer(
    config: &LayerConfig,
    prefix: &str,
    weights: &Weights,
    given: &Valid<'_>,
    v: &mut Values,
) -> Result<(), LayerError> {
    let wide = |part: &str| -> Result<Vec<f64>, LayerError> {
        let Some(weight) = weights.get(&format!("{prefix}.{part}")) else { return Ok(Vec::new()) };
        Ok(weight.values()?.iter().map(|&v| v.into()).collect())
    };
    match config {
        LayerConfig::Embedding(e) => {
            if e.mask_zero {
                v.mask = Some(v.ids.iter().map(|&id| id != 0).collect());
            }
            v.x = reference::embedding(&wide("weight")?, e.output_dim, &v.ids);
            v.shape.push(e.output_dim);
        }
        LayerConfig::Masking(m) => {
            let width = *v.shape.last().expect("checked to have dimensions");
            let (x, valid) = reference::masking(&v.x, width, m.mask_value);
            (v.x, v.mask) = (x, Some(valid));
        }
        LayerConfig::Dense(d) => {
            let k = *v.shape.last().expect("checked to have dimensions");
            let m = v.x.len() / k;
            v.x = reference::matmul(&v.x, &wide("weight")?, &wide("bias")?, [m, k, d.units], d.activation);
            *v.shape.last_mut().expect("checked to have dimensions") = d.units;
        }
        LayerConfig::TimeDistributed(t) => {
            let (outer, inner) = v.shape.split_at(2);
            let (outer, mask) = (outer.to_vec(), v.mask.take());
            v.shape = [&[outer[0] * outer[1]], inner].concat();
            layer(&t.layer, prefix, weights, &Valid::default(), v)?;
            v.shape = [&outer, &v.shape[1..]].concat();
            v.mask = mask;
        }
        LayerConfig::Recurrent(spec) => recurrent(spec, prefix, weights, given, v, spec.go_backwards)?,
        LayerConfig::StackedRnnCells(s) => {
            let levels = s.levels(v.shape[2], prefix);
            for (n, (spec, _, prefix)) in levels.iter().enumerate() {
                recurrent(spec, prefix, weights, given, v, spec.go_backwards && n + 1 == levels.len())?;
            }
        }
        LayerConfig::Dropout(_) => {}
        // A layer without a definition here gives NaN, which agrees with nothing.
        _ => v.x.fill(f64::NAN),
    }
    Ok(())
}

/// The weights after rounding to f16.
fn rounded(w: &DirectionWeights<f32>, spec: &RecurrentSpec) -> DirectionWeights<f32> {
    let round = |m: &[f32], rows: usize| -> Vec<f32> {
        match spec.weight_storage {
            WeightStorage::F32 => m.to_vec(),
            WeightStorage::F16 => m.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
            WeightStorage::Int8 => {
                let mut m = m.to_vec();
                let k = (m.len() / rows).max(1);
                m.chunks_mut(k).for_each(round_to_int8);
                m
            }
            // A storage type without a definition here gives NaN, which agrees with nothing.
            _ => vec![f32::NAN; m.len()],
        }
    };
    // Vectors keep f32, the `u` of an IndRNN included.
    let pointwise = spec.cell.kind.is_pointwise();
    let rows = spec.cell.kind.gates() * spec.units;
    DirectionWeights {
        w_ih: round(&w.w_ih, rows),
        w_hh: if pointwise { w.w_hh.clone() } else { round(&w.w_hh, rows) },
        w_hr: round(&w.w_hr, spec.state_size()),
        ..w.clone()
    }
}

/// The first output of a recurrent layer. With `reading_order`, the outputs of a layer that reads backwards come in the
/// order in which they were computed.
fn recurrent(
    spec: &RecurrentSpec,
    prefix: &str,
    weights: &Weights,
    given: &Valid<'_>,
    v: &mut Values,
    reading_order: bool,
) -> Result<(), LayerError> {
    let (batch, timesteps) = if spec.time_major { (v.shape[1], v.shape[0]) } else { (v.shape[0], v.shape[1]) };
    let input_size = v.shape[2];
    let found = v.mask.take().map(|m| match spec.time_major {
        true => (0..batch * timesteps).map(|n| m[n % timesteps * batch + n / timesteps]).collect(),
        false => m,
    });
    let stored = |l: usize| -> Result<Vec<DirectionWeights<f64>>, LayerError> {
        let layer = spec.direction_weights(input_size, weights, prefix, l)?;
        Ok(layer.iter().map(|w| rounded(w, spec).widen()).collect())
    };
    let weights = (0..spec.num_layers).map(stored).collect::<Result<Vec<_>, _>>()?;
    v.x = reference::layer(&reference::Layer {
        cell: spec.cell,
        units: spec.units,
        weights: &weights,
        bidirectional: spec.bidirectional,
        go_backwards: spec.go_backwards,
        reading_order,
        return_sequences: spec.return_sequences,
        time_major: spec.time_major,
        x: &v.x,
        batch,
        timesteps,
        input_size,
        lengths: given.lengths,
        mask: given.mask.or(found.as_deref()),
        masked_output: spec.masked_output(),
    });
    let width = spec.output_size();
    if !spec.return_sequences {
        v.shape = vec![batch, width];
        return Ok(());
    }
    v.shape = if spec.time_major { vec![timesteps, batch, width] } else { vec![batch, timesteps, width] };
    v.mask = found.map(|m| match spec.time_major {
        true => (0..batch * timesteps).map(|n| m[n % batch * timesteps + n / batch]).collect(),
        false => m,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANT: [f64; 4] = [0.5, -1.0, 2.0, 1e-7];

    #[test]
    fn values_of_graphs_that_agree() {
        let want = Array::new(&[3], vec![1.0, f64::INFINITY, f64::NAN]);
        let check = |got: &[f64]| agree(&[3], got, &want, Tolerance::F32);
        assert!(check(&[1.0 + 1e-6, f64::INFINITY, f64::NAN]).is_ok());
        assert!(check(&[1.1, f64::INFINITY, f64::NAN]).is_err());
        assert!(check(&[f64::NAN, f64::INFINITY, f64::NAN]).is_err());
        assert!(check(&[1.0, f64::NEG_INFINITY, f64::NAN]).is_err());
        assert!(check(&[1.0, 7.0, f64::NAN]).is_err());
        assert!(check(&[1.0, f64::INFINITY, 0.0]).is_err());
        assert!(agree(&[1, 3], &[1.0, f64::INFINITY, f64::NAN], &want, Tolerance::F32).is_err());
        assert!(agree(&[3], &[1.0, f64::INFINITY, f64::NAN], &want, Tolerance::new(f64::NAN)).is_ok(), "all are equal");
    }

    #[test]
    fn equal_arrays_agree() {
        let a = compare(&[0.5, -1.0, 2.0, 1e-7], &WANT, Tolerance::F32).unwrap();
        assert_eq!(a.count, 4);
        assert!(a.worst_error < 1e-13);
    }

    #[test]
    fn one_changed_element_is_found() {
        let e = compare(&[0.5, -1.0, 2.001, 1e-7], &WANT, Tolerance::F32).unwrap_err();
        assert!(matches!(e, Mismatch::Value { index: 2, wrong: 1, count: 4, .. }), "{e}");
    }

    #[test]
    fn nan_is_rejected_on_either_side_and_in_the_tolerance() {
        let e = compare(&[0.5, f32::NAN, 2.0, 1e-7], &WANT, Tolerance::F32).unwrap_err();
        assert!(matches!(e, Mismatch::NotFinite { index: 1, .. }), "{e}");
        let e = compare(&[f32::NAN], &[f64::NAN], Tolerance::F32).unwrap_err();
        assert!(matches!(e, Mismatch::NotFinite { index: 0, .. }), "{e}");
        assert!(compare(&[f32::INFINITY], &[f64::INFINITY], Tolerance::F32).is_err());
        assert!(compare(&[0.5, -1.0, 2.0, 1e-7], &WANT, Tolerance::new(f64::NAN)).is_err());
    }

    #[test]
    fn an_unwritten_output_is_rejected() {
        // The value with which tests fill outputs beforehand.
        let mut got = vec![-1234.5f32; 4];
        got[..3].copy_from_slice(&[0.5, -1.0, 2.0]);
        let e = compare(&got, &WANT, Tolerance::F32).unwrap_err();
        assert!(matches!(e, Mismatch::Value { index: 3, .. }), "{e}");
    }

    #[test]
    fn lengths_and_emptiness_are_rejected() {
        assert_eq!(compare(&[0.5], &WANT, Tolerance::F32), Err(Mismatch::Length { got: 1, want: 4 }));
        assert_eq!(compare(&[], &[], Tolerance::F32), Err(Mismatch::Empty));
        assert!(!CrossCheck { devices: Vec::new() }.passed());
    }

    #[test]
    fn places_by_hand() {
        assert_eq!(place(0, &[2, 3, 4]), "[0, 0, 0]");
        assert_eq!(place(23, &[2, 3, 4]), "[1, 2, 3]");
        assert_eq!(place(5, &[2, 3, 4]), "[0, 1, 1]");
    }
}
