//! What each fuzz target does with its bytes: reads them, and uses the result. The ordinary tests include this file too
//! and run it on the corpora and on changed files (`tests/tests/readers.rs`).

use recurve_formats::{
    Error, HostArray, HostData, Input, Model, OnnxModel, TextSpec, WeightSummary, npy_from_bytes, npz_from_bytes,
};
use recurve_tensor::{DType, Device};
use recurve_weights::WeightFile;
use serde_json::json;

/// Checks that an error has a message, and that the message does not repeat a whole file.
fn check<T>(read: Result<T, Error>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(e) => {
            let message = e.to_string();
            assert!((10..4000).contains(&message.len()), "{} bytes: {message}", message.len());
            None
        }
    }
}

fn whole(array: &HostArray) {
    let count = match &array.data {
        HostData::Float(v) => v.len(),
        HostData::Int(v) => v.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(Some(count), array.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
    for dtype in [DType::F32, DType::U32] {
        check(array.to_tensor("x", dtype, &Device::Cpu));
    }
}

/// Reads a `.npy` file.
pub fn npy(data: &[u8]) {
    if let Some(array) = check(npy_from_bytes(data)) {
        whole(&array);
    }
}

/// Reads the array `x` of a `.npz` file.
pub fn npz(data: &[u8]) {
    if let Some(array) = check(npz_from_bytes(data, "x")) {
        whole(&array);
    }
}

/// Reads a native model file. A model that can be opened must run or return an error.
pub fn model(data: &[u8]) {
    if let Some(model) = check(Model::from_bytes(data, &Device::Cpu)) {
        run(&model);
    }
}

/// Reads a Keras file, as [`model`].
pub fn keras(data: &[u8]) {
    model(data);
}

fn run(model: &Model) {
    assert!(!model.summary().to_string().is_empty());
    let network = model.network();
    if model.info().network.inputs.len() > 1 {
        return;
    }
    let shape: Vec<usize> = network.input_shape().iter().map(|d| d.unwrap_or(2)).collect();
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    if count > 1 << 12 {
        return;
    }
    let data = match network.input_dtype() {
        DType::U32 => HostData::Int((0..count as i64).collect()),
        _ => HostData::Float((0..count).map(|v| v as f32 * 0.1 - 1.0).collect()),
    };
    let input = Input::Host(HostArray { shape, data });
    check(model.run([(model.info().network.inputs[0].name.as_str(), input)]));
}

/// Reads a file of weights, those of PyTorch among them, and all of its tensors.
pub fn pytorch(data: &[u8]) {
    let Some(file) = check(WeightFile::from_bytes(data.to_vec()).map_err(Error::from)) else { return };
    assert!(file.names().all(|n| file.dtype(n).is_some() && file.shape(n).is_some()));
    let summary = WeightSummary::of(&file);
    assert!(!summary.to_string().is_empty() && summary.tensors == file.names().len());
    for name in file.names() {
        if let Some(weight) = check(file.weight(name).map_err(Error::from)) {
            let weight = weight.expect("a name of the file");
            let count: usize = weight.shape().iter().product();
            let values = weight.to_vec().expect("memory");
            assert_eq!((values.len(), weight.count()), (count, count));
            // Elements are used where they are, or are copies that have a limit.
            assert!(weight.bytes().len() <= 2 * data.len() + (16 << 20));
        }
    }
}

/// Reads an ONNX file. A model that can be opened and is small must run or return an error.
pub fn onnx(data: &[u8]) {
    let model = match OnnxModel::from_bytes(data.to_vec(), &Device::Cpu) {
        // All problems of a file together may be long.
        Err(Error::Onnx { problems, .. }) => {
            assert!(!problems.is_empty());
            return;
        }
        other => match check(other) {
            Some(model) => model,
            None => return,
        },
    };
    let graph = model.graph();
    let mut elements = 0usize;
    for (_, value) in graph.values() {
        let sizes = value.kind.dims.iter().map(|d| d.size().unwrap_or(2));
        elements = elements.saturating_add(sizes.fold(1, usize::saturating_mul));
    }
    let open = graph.values().any(|(_, v)| v.kind.unranked);
    if open || elements > 1 << 14 || graph.nodes().iter().any(|n| !n.operator.subgraphs().is_empty()) {
        return;
    }
    let zeros = |kind: &recurve_graph::ValueType| {
        let shape: Vec<usize> = kind.dims.iter().map(|d| d.size().unwrap_or(2)).collect();
        let count = shape.iter().product();
        let data = match kind.dtype.is_float() {
            true => HostData::Float(vec![0.5; count]),
            false => HostData::Int(vec![1; count]),
        };
        HostArray { shape, data }
    };
    let inputs: Vec<_> = model.inputs().iter().map(|i| (i.name.clone(), zeros(&i.kind))).collect();
    check(model.run(inputs.iter().map(|(name, a)| (name.as_str(), a))));
}

/// Reads a description of text handling as JSON, followed by a zero byte and a text.
pub fn text(data: &[u8]) {
    let (spec, text) = match data.iter().position(|&b| b == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"abc"[..]),
    };
    let (Ok(spec), Ok(text)) = (std::str::from_utf8(spec), std::str::from_utf8(text)) else { return };
    let sizes = serde_json::from_str::<TextSpec>(spec).map(|s| (s.vocabulary.len(), s.labels.len()));
    let (tokens, labels) = sizes.unwrap_or((1, 1));
    let (tokens, labels) = (tokens.clamp(1, 300), labels.clamp(1, 20));
    if text.len() > 1000 {
        return;
    }
    let tensor = |shape: &[usize], begin: usize| json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, begin + 4 * shape.iter().product::<usize>()] });
    let description = format!(
        r#"{{"version":1,"name":"n","input":"tokens","input_shape":[null,null],"output":"y","layers":[
        {{"type":"embedding","input_dim":{tokens},"output_dim":2}},
        {{"type":"dense","units":{labels},"activation":{{"name":"linear"}},"use_bias":false}}],"text":{spec}}}"#
    );
    let header = json!({
        "__metadata__": { "recurve": description },
        "layers.0.weight": tensor(&[tokens, 2], 0),
        "layers.1.weight": tensor(&[labels, 2], 8 * tokens),
    })
    .to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..2 * (tokens + labels)).flat_map(|v| (v as f32 * 0.01).to_le_bytes()));
    let Some(model) = check(Model::from_bytes(&file, &Device::Cpu)) else { return };
    let count = text.chars().count();
    if let Some(readings) = check(model.read_text(text)) {
        assert!(readings.iter().all(|r| r.index < count && (0.0..=1.0001).contains(&r.probability)));
    }
}
