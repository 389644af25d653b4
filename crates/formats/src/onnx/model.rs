//! A model out of an ONNX file.

use super::import::{self, Problem};
use super::proto::{ModelProto, TensorProto};
use super::tensor::DataType;
use super::weigh::weigh;
use crate::files::{self, short};
use crate::{Error, HostArray, HostData, Result};
use bytes::Bytes;
use prost::Message;
use recurve_graph::{Data, Dim, Element, Executor, Graph, IntArray, RunOptions, Source, ValueType};
use recurve_tensor::{DType, Device, Tensor};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// A model from an ONNX file, on a device.
#[derive(Debug)]
pub struct OnnxModel {
    executor: Executor,
    inputs: Vec<OnnxValue>,
    outputs: Vec<OnnxValue>,
    notes: Vec<String>,
    cells: Vec<String>,
    producer: String,
    metadata: Vec<(String, String)>,
    /// The types of the outputs that the file states.
    declared: Vec<Option<ValueType>>,
}

/// An input or an output of a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OnnxValue {
    /// Its name.
    pub name: String,
    /// Its type; every float is an f32.
    pub kind: ValueType,
    /// The file's element type is float16, bfloat16 or double, which are computed as f32.
    pub converted: bool,
}

/// How an ONNX file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxOptions {
    /// Whether cells that are written out operator by operator run as recurrent layers, where that computes the same.
    pub fuse_cells: bool,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self { fuse_cells: true }
    }
}

/// What a caller gives for an input.
pub(super) enum Given<'a> {
    Host(&'a HostArray),
    Data(Data),
}

impl Given<'_> {
    fn dims(&self) -> &[usize] {
        match self {
            Self::Host(a) => &a.shape,
            Self::Data(d) => d.dims(),
        }
    }
}

/// Bytes of a file, at most: what a message of Protocol Buffers may have.
const MAX_BYTES: u64 = 2 << 30;

/// Bytes of memory that the messages of a file may take beside twice its size.
const SLACK: usize = 32 << 20;

impl OnnxModel {
    /// Opens an ONNX file. External data is read from the file's folder, and from nowhere else.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Onnx`] with everything that cannot be run; errors of the device.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(path, &OnnxOptions::default(), device)
    }

    /// [`Self::open`] with options.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OnnxOptions, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let io = |e: std::io::Error| Error::Io { path: path.into(), source: Arc::new(e) };
        let (file, len) = files::open(path).map_err(io)?;
        if len > MAX_BYTES {
            let message = format!("has {len} bytes, but at most {MAX_BYTES} are read");
            return Err(Error::Description { path: path.into(), message });
        }
        let mut bytes =
            files::room(len as usize).map_err(|message| Error::Description { path: path.into(), message })?;
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(io)?;
        Self::decode(
            bytes.into(),
            path,
            path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }),
            options,
            device,
        )
    }

    /// Opens the bytes of an ONNX file, without external data.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>, device: &Device) -> Result<Self> {
        Self::from_bytes_with(bytes, &OnnxOptions::default(), device)
    }

    /// [`Self::from_bytes`] with options.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes_with(bytes: Vec<u8>, options: &OnnxOptions, device: &Device) -> Result<Self> {
        Self::decode(bytes.into(), Path::new(files::MEMORY), None, options, device)
    }

    fn decode(
        bytes: Bytes,
        path: &Path,
        folder: Option<&Path>,
        options: &OnnxOptions,
        device: &Device,
    ) -> Result<Self> {
        let refuse = |problems: Vec<Problem>| Error::Onnx { path: path.into(), problems };
        let most = bytes.len().saturating_mul(2).saturating_add(SLACK);
        if weigh(&bytes, most).is_none() {
            let message = "is no ONNX file: its messages would take many times its size in memory".into();
            return Err(Error::Description { path: path.into(), message });
        }
        let model = ModelProto::decode(bytes).map_err(|e| {
            let message = format!("is no ONNX file: {}", files::short_message(&e.to_string()));
            Error::Description { path: path.into(), message }
        })?;
        let imported = import::import(&model, folder).map_err(refuse)?;
        let producer = format!("{} {}", short(&model.producer_name), short(&model.producer_version));
        let metadata = model.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
        let (graph, cells) =
            if options.fuse_cells { imported.graph.with_cells() } else { (imported.graph, Vec::new()) };
        let stated = model.graph.as_ref().map_or(&[][..], |g| &g.output);
        let declared = graph.outputs().iter().map(|(name, _)| {
            let info = stated.iter().find(|o| o.name == *name)?;
            import::value_type(info).ok()
        });
        let declared = declared.collect();
        drop(model);
        let value = |name: &str, kind: &ValueType, data: &DataType| OnnxValue {
            name: name.into(),
            kind: kind.clone(),
            converted: matches!(data, DataType::Float16 | DataType::BFloat16 | DataType::Double),
        };
        let ids = graph.inputs().iter().zip(&imported.inputs);
        let inputs = ids.map(|(id, d)| value(&graph.value(*id).name, &graph.value(*id).kind, d)).collect();
        let ids = graph.outputs().iter().zip(&imported.outputs);
        let outputs = ids.map(|((name, id), d)| value(name, &graph.value(*id).kind, d)).collect();
        let graph = graph.simplified().map_err(failed)?;
        let executor = Executor::new(Arc::new(graph), |_| None, device).map_err(failed)?;
        executor.prepare().map_err(failed)?;
        let producer = producer.trim().to_owned();
        Ok(Self { executor, inputs, outputs, notes: imported.notes, cells, producer, metadata, declared })
    }

    /// The same model on another device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let executor = Executor::new(self.executor.graph().clone(), |_| None, device).map_err(failed)?;
        executor.prepare().map_err(failed)?;
        Ok(Self {
            executor,
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            notes: self.notes.clone(),
            cells: self.cells.clone(),
            producer: self.producer.clone(),
            metadata: self.metadata.clone(),
            declared: self.declared.clone(),
        })
    }

    /// The inputs, in the file's order.
    pub fn inputs(&self) -> &[OnnxValue] {
        &self.inputs
    }

    /// The outputs, in the file's order.
    pub fn outputs(&self) -> &[OnnxValue] {
        &self.outputs
    }

    /// What a user should know of how the file is read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A line about each recurrent layer of the file and each cell that it has written out operator by operator: what
    /// it runs as, or why it runs operator by operator.
    pub fn explain(&self) -> &[String] {
        &self.cells
    }

    /// The program that wrote the file.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        self.executor.graph()
    }

    /// The dimensions of an output that the file states, which inference may not find.
    pub(super) fn declared(&self, output: usize) -> &[Dim] {
        self.declared[output].as_ref().map_or(&[], |t| &t.dims)
    }

    /// The graph with its weights on the device.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.executor.device()
    }

    /// Arrays, by name, as what the graph takes.
    ///
    /// # Errors
    /// [`Error::Input`] if one is missing, unknown, given twice or does not fit.
    pub fn data<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, &'a HostArray)>) -> Result<Vec<Option<Data>>> {
        self.data_with(inputs, |_| None)
    }

    /// [`Self::data`], some inputs being there already.
    pub(super) fn data_with<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, &'a HostArray)>,
        there: impl Fn(usize) -> Option<Data>,
    ) -> Result<Vec<Option<Data>>> {
        let mut all: Vec<Option<Data>> = (0..self.inputs.len()).map(there).collect();
        self.fill(inputs.into_iter().map(|(n, a)| (n, Given::Host(a))), &mut all, &[])?;
        Ok(all)
    }

    /// Puts arrays, by name, among the inputs, of which some are there already. Whole numbers that equal those of the
    /// call before are the same in memory, so that what was computed of them serves again.
    pub(super) fn fill<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, Given<'a>)>,
        all: &mut [Option<Data>],
        before: &[Option<IntArray>],
    ) -> Result<()> {
        for (name, array) in inputs {
            let bad = |message: String| Error::Input { name: short(name), message };
            let Some(n) = self.inputs.iter().position(|i| i.name == name) else {
                let names: Vec<_> = self.inputs.iter().map(|i| format!("`{}`", short(&i.name))).collect();
                return Err(bad(format!("this model has no such input; it has {}", names.join(", "))));
            };
            if all[n].is_some() {
                return Err(bad("is given twice, or is a state".into()));
            }
            all[n] = Some(self.given(n, array, before.get(n).and_then(Option::as_ref))?);
        }
        if let Some(n) = all.iter().position(Option::is_none) {
            let message = format!("is missing; it is {}", self.inputs[n].kind);
            return Err(Error::Input { name: short(&self.inputs[n].name), message });
        }
        Ok(())
    }

    /// What a caller gives as input `n`; whole numbers that equal those `before` are the same in memory.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not fit; errors of the device.
    fn given(&self, n: usize, value: Given<'_>, before: Option<&IntArray>) -> Result<Data> {
        let OnnxValue { name, kind, .. } = &self.inputs[n];
        let bad = |message: String| Error::Input { name: short(name), message };
        if !kind.has_dims(value.dims()) {
            let fixed = baked(kind, value.dims());
            return Err(bad(format!("must be {kind}, but it has shape {:?}{fixed}", value.dims())));
        }
        match value {
            Given::Host(array) => self.datum(n, array, before),
            Given::Data(Data::Tensor(t)) if kind.dtype == Element::F32 && t.dtype() == DType::F32 => Ok(t.into()),
            Given::Data(Data::Tensor(t)) => {
                Err(bad(format!("is a tensor of {}, but {} is needed", t.dtype(), kind.dtype)))
            }
            Given::Data(Data::Ints(i)) => {
                if before.is_some_and(|b| b.is_same(&i)) {
                    return Ok(i.into());
                }
                // The numbers that do not fit are found as those of an array.
                self.datum(n, &HostArray { shape: i.dims().to_vec(), data: HostData::Int(i.data().to_vec()) }, before)
            }
        }
    }

    /// An array of the right shape as input `n`.
    fn datum(&self, n: usize, array: &HostArray, before: Option<&IntArray>) -> Result<Data> {
        let before = before.filter(|b| b.dims() == array.shape);
        let OnnxValue { name, kind, .. } = &self.inputs[n];
        let bad = |message: String| Error::Input { name: short(name), message };
        Ok(match (&array.data, kind.dtype) {
            (HostData::Float(v), Element::F32) => Tensor::from_f32(v, &array.shape, self.device())?.into(),
            (HostData::Int(v), Element::F32) => {
                let v: Vec<f32> = v.iter().map(|&v| v as f32).collect();
                Tensor::from_f32(&v, &array.shape, self.device())?.into()
            }
            (HostData::Int(v), Element::Int(int)) => {
                let (least, most) = int.range();
                if let Some(v) = v.iter().find(|v| !(least..=most).contains(*v)) {
                    return Err(bad(format!("holds {v}, which {} does not", kind.dtype)));
                }
                match before.filter(|b| b.data() == v.as_slice()) {
                    Some(before) => before.clone().into(),
                    None => IntArray::new(&array.shape, v.as_slice()).into(),
                }
            }
            (HostData::Int(v), _) => {
                let truth = |&v: &i64| i64::from(v != 0);
                match before.filter(|b| b.data().iter().copied().eq(v.iter().map(truth))) {
                    Some(before) => before.clone().into(),
                    None => IntArray::new(&array.shape, v.iter().map(truth).collect::<Vec<_>>()).into(),
                }
            }
            (HostData::Float(_), _) => return Err(bad(format!("holds floats, but {kind} is needed"))),
        })
    }

    /// An array as input `n`.
    pub(super) fn fitted(&self, n: usize, array: &HostArray) -> Result<Data> {
        self.given(n, Given::Host(array), None)
    }

    /// The outputs, by name and in the file's order, for inputs by name: tensors on the model's device (of f32), and
    /// whole numbers in host memory.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_data<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, Data)>) -> Result<Vec<(String, Data)>> {
        let mut data = vec![None; self.inputs.len()];
        self.fill(inputs.into_iter().map(|(n, d)| (n, Given::Data(d))), &mut data, &[])?;
        self.outputs_of(&data)
    }

    fn outputs_of(&self, data: &[Option<Data>]) -> Result<Vec<(String, Data)>> {
        let outputs = self.executor.run_data(data, &RunOptions::default()).map_err(failed)?;
        let all = self.outputs.iter().zip(outputs).map(|(o, data)| {
            let missing = || Error::Input { name: short(&o.name), message: "is an output that has no elements".into() };
            Ok((o.name.clone(), data.ok_or_else(missing)?))
        });
        all.collect()
    }

    /// The outputs, by name and in the file's order, for inputs by name.
    ///
    /// # Errors
    /// [`Error::Input`] as [`Self::data`]; errors of the graph with the node's name.
    pub fn run<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, &'a HostArray)>,
    ) -> Result<Vec<(String, HostArray)>> {
        let outputs = self.outputs_of(&self.data(inputs)?)?;
        let arrays = self.outputs.iter().zip(outputs).map(|(o, (name, data))| Ok((name, array(&data, o.kind.dtype)?)));
        arrays.collect()
    }
}

/// Which sizes the file fixes that an array does not have.
fn baked(kind: &ValueType, shape: &[usize]) -> String {
    if kind.unranked || kind.rank() != shape.len() {
        return String::new();
    }
    let axes: Vec<String> = kind
        .dims
        .iter()
        .zip(shape)
        .enumerate()
        .filter_map(|(axis, (d, n))| d.size().filter(|size| size != n).map(|size| format!("axis {axis} at {size}")))
        .collect();
    format!(": the file fixes {}; export it with this axis open to give another size", axes.join(" and "))
}

impl OnnxModel {
    /// The index in [`Graph::nodes`] of the node with this name, or that makes the value with this name. Where an
    /// operator of the file became several nodes, it is the last of them.
    pub fn find_node(&self, name: &str) -> Option<usize> {
        let graph = self.graph();
        let makes = |id| match graph.value(id).source {
            Source::Node { node, .. } => Some(node),
            _ => None,
        };
        graph.nodes().iter().rposition(|n| n.name == name).or_else(|| graph.find(name).and_then(makes))
    }

    /// What a node makes, by the names of its values; nodes after it are not run.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such node, or as [`Self::run`].
    pub fn run_until<'a>(
        &self,
        node: &str,
        inputs: impl IntoIterator<Item = (&'a str, &'a HostArray)>,
    ) -> Result<Vec<(String, HostArray)>> {
        let missing = || Error::Input { name: short(node), message: "is no node of this model".into() };
        let index = self.find_node(node).ok_or_else(missing)?;
        let data = self.data(inputs)?;
        let mut frame = self.executor.begin_data(&data, true).map_err(failed)?;
        self.executor.advance(&mut frame, index + 1, &RunOptions::default()).map_err(failed)?;
        let graph = self.graph();
        let made = graph.nodes()[index].outputs.iter().filter_map(|&id| Some((graph.value(id), frame.data(id)?)));
        let arrays = made.map(|(v, data)| Ok((v.name.clone(), array(data, v.kind.dtype)?))).collect();
        self.executor.recycle(frame);
        arrays
    }
}

/// A graph's error.
pub(super) fn failed(e: recurve_graph::Error) -> Error {
    Error::Run(e.into())
}

/// What a graph gives as an array.
pub(super) fn array(data: &Data, element: Element) -> Result<HostArray> {
    let mut array = HostArray { shape: Vec::new(), data: HostData::Float(Vec::new()) };
    array_into(data, element, &mut array)?;
    Ok(array)
}

/// [`array`] into one that is there, whose memory is used again.
pub(super) fn array_into(data: &Data, element: Element, array: &mut HostArray) -> Result<()> {
    array.shape.clear();
    array.shape.extend_from_slice(data.dims());
    if element.is_whole() || element == Element::U32 {
        let ints = data.to_ints()?;
        match &mut array.data {
            HostData::Int(v) => {
                v.clear();
                v.extend_from_slice(ints.data());
            }
            HostData::Float(_) => array.data = HostData::Int(ints.data().to_vec()),
        }
        return Ok(());
    }
    let floats = data.to_f32(&Device::Cpu)?;
    match &mut array.data {
        HostData::Float(v) => {
            v.resize(floats.shape().count(), 0.0);
            floats.read_into(v)?;
        }
        HostData::Int(_) => array.data = HostData::Float(floats.to_vec()?),
    }
    Ok(())
}

/// Reads a tensor that stands alone in a file, as ONNX's test data does.
///
/// # Errors
/// [`Error::Io`], [`Error::Array`].
pub fn read_tensor(path: &Path) -> Result<HostArray> {
    let bytes = std::fs::read(path).map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })?;
    tensor_of(bytes, path)
}

/// Reads the bytes of a tensor that stands alone.
///
/// # Errors
/// [`Error::Array`].
pub fn tensor_from_bytes(bytes: Vec<u8>) -> Result<HostArray> {
    tensor_of(bytes, Path::new(files::MEMORY))
}

fn tensor_of(bytes: Vec<u8>, path: &Path) -> Result<HostArray> {
    let bad = |message: String| Error::Array { path: path.into(), message };
    let proto = TensorProto::decode(Bytes::from(bytes)).map_err(|e| bad(e.to_string()))?;
    let (shape, numbers) = super::tensor::constant(&proto, None).map_err(bad)?;
    let data = match numbers {
        recurve_graph::Constant::Float(v) => HostData::Float(v.to_vec()),
        recurve_graph::Constant::Int(_, v) | recurve_graph::Constant::Bool(v) => HostData::Int(v.to_vec()),
        other => return Err(bad(format!("holds {}, which no tensor of a file is", other.dtype()))),
    };
    Ok(HostArray { shape, data })
}
