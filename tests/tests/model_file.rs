//! The native model file: writing, reading, and errors.

use recurve::{
    Activation, Bidirectional, Dense, Device, Dropout, Embedding, Error, Gru, LayerError, Lstm, Merge, Model,
    Sequential, SimpleRnn, Tensor, WeightError, WeightType,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;

fn model() -> Model {
    let network = Sequential::new()
        .add(Embedding::new(50, 6))
        .add(Dropout::new(0.5))
        .add(Bidirectional::new(Lstm::new(4).return_sequences(true).clip(2.0)).merge_mode(Merge::Sum))
        .add(
            Gru::new(5).reset_after(false).return_sequences(true).recurrent_activation(Activation::HARD_SIGMOID_KERAS2),
        )
        .add(SimpleRnn::new(3).activation(Activation::Relu))
        .add(Dense::new(2).activation(Activation::Sigmoid))
        .seed(4)
        .build(&[None, None], &Device::Cpu)
        .unwrap();
    Model::new("round trip", network)
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let first = model();
    first.save(&path).unwrap();
    let second = Model::open(&path, &Device::Cpu).unwrap();
    assert_eq!(first.info(), second.info());
    assert_eq!(first.network().weights(), second.network().weights());
    let ids = Tensor::from_u32(&[1, 2, 3, 49, 0, 7], &[2, 3], &Device::Cpu).unwrap();
    let run = |m: &Model| m.run([("input", &ids)]).unwrap().to_vec().unwrap();
    assert_eq!(run(&first), run(&second));
    assert_eq!(first.summary().to_string(), second.summary().to_string());
}

/// The tensors of a file: name, type, shape and bytes.
type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;
fn changed(change: impl FnOnce(&mut Value, &mut Tensors)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    model().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut description: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["recurve"]).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(n, v)| (n, v.dtype(), v.shape().to_vec(), v.data().to_vec()))
        .collect();
    change(&mut description, &mut tensors);
    let views = tensors.iter().map(|(n, t, s, d)| (n, TensorView::new(*t, s.clone(), d).unwrap()));
    let meta = if description.is_null() {
        None
    } else {
        Some(HashMap::from([("recurve".to_owned(), description.to_string())]))
    };
    std::fs::write(&path, serialize(views, meta).unwrap()).unwrap();
    (dir, path)
}

fn refused(change: impl FnOnce(&mut Value, &mut Tensors)) -> Error {
    let (_dir, path) = changed(change);
    let e = Model::open(&path, &Device::Cpu).unwrap_err();
    assert!(e.to_string().contains("m.safetensors"), "it names the file: {e}");
    e
}

#[test]
fn the_unchanged_file_is_accepted() {
    let (_dir, path) = changed(|_, _| {});
    Model::open(path, &Device::Cpu).unwrap();
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    assert!(matches!(Model::open(&path, &Device::Cpu), Err(Error::Weights(WeightError::Io { .. }))));
    model().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let e = Model::open(&path, &Device::Cpu).unwrap_err();
        assert!(
            matches!(e, Error::Weights(WeightError::Damaged { .. } | WeightError::Tensor { .. })),
            "{len} bytes: {e}"
        );
    }
    // A header that claims to be larger than the file.
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &huge).unwrap();
    assert!(matches!(Model::open(&path, &Device::Cpu), Err(Error::Weights(WeightError::Damaged { .. }))));

    assert!(matches!(refused(|d, _| *d = Value::Null), Error::NoDescription { .. }));
    assert!(matches!(refused(|d, _| d["version"] = json!(3)), Error::Version { got: 3, supported: 2, .. }));
    assert!(matches!(refused(|d, _| d["version"] = json!(0)), Error::Version { .. }));
    // Version 2 has a network, version 1 does not.
    assert!(matches!(refused(|d, _| d["version"] = json!(2)), Error::Description { .. }));
    assert!(matches!(
        refused(|d, _| d["network"] = json!({"inputs": [], "layers": [], "outputs": []})),
        Error::Description { .. }
    ));
    assert!(matches!(refused(|d, _| *d = json!({"version": 2, "name": "n"})), Error::Description { .. }));
    let network =
        |inputs: Value| json!({"version": 2, "name": "n", "network": {"inputs": inputs, "layers": [], "outputs": []}});
    assert!(matches!(refused(|d, _| *d = network(json!([]))), Error::Layers { .. }));
    let input = json!({"name": "x", "shape": [null, 3], "colour": 1});
    assert!(matches!(refused(|d, _| *d = network(json!([input]))), Error::Description { .. }));
    let input = json!({"name": "x\u{1b}[2J", "shape": [null, 3]});
    assert!(matches!(refused(|d, _| *d = network(json!([input]))), Error::Description { .. }));
    let input = json!({"name": "x", "shape": [null, 1usize << 30]});
    assert!(matches!(refused(|d, _| *d = network(json!([input]))), Error::Absurd { .. }));
    assert!(matches!(refused(|d, _| d["version"] = json!("one")), Error::Description { .. }));
    assert!(matches!(refused(|d, _| d["layers"][0]["type"] = json!("conv")), Error::Description { .. }));
    assert!(matches!(refused(|d, _| d["layers"][5]["activation"]["name"] = json!("swish")), Error::Description { .. }));

    let e = refused(|_, t| t.retain(|(n, ..)| n != "layers.5.bias"));
    assert!(
        matches!(&e, Error::Layers { source: LayerError::MissingWeight { name, .. }, .. } if name == "layers.5.bias"),
        "{e}"
    );
    let e = refused(|_, t| t.push(("layers.9.weight".into(), Dtype::F32, vec![1], vec![0; 4])));
    assert!(
        matches!(&e, Error::Layers { source: LayerError::ExtraWeight { name }, .. } if name == "layers.9.weight"),
        "{e}"
    );
    let e = refused(|_, t| t.iter_mut().find(|t| t.0 == "layers.0.weight").unwrap().2 = vec![6, 50]);
    assert!(matches!(e, Error::Layers { source: LayerError::WeightShape { .. }, .. }), "{e}");
    let e = refused(|_, t| t.iter_mut().find(|t| t.0 == "layers.5.bias").unwrap().1 = Dtype::I32);
    assert!(matches!(&e, Error::Weights(WeightError::DType { name, .. }) if name == "layers.5.bias"), "{e}");
    let e = refused(|d, _| d["layers"][0]["input_dim"] = json!(1u64 << 40));
    assert!(matches!(e, Error::Absurd { field: "input_dim", .. }), "{e}");
    let e = refused(|d, _| d["layers"][3]["units"] = json!(usize::MAX));
    assert!(matches!(e, Error::Absurd { field: "units", .. }), "{e}");
    let e = refused(|d, _| d["layers"][3]["num_layers"] = json!(1u64 << 50));
    assert!(matches!(e, Error::Absurd { field: "num_layers", .. }), "{e}");
}

/// A model that reads text must have as many outputs per timestep as labels.
#[test]
fn text_must_fit_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let open = |layers: Sequential, shape: &[Option<usize>], tokens: usize, labels: usize| {
        let network = layers.build(shape, &Device::Cpu).unwrap();
        Model::new("text", network).save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let mut d: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["recurve"]).unwrap();
        let words = |n: usize| (0..n).map(|n| format!("w{n}")).collect::<Vec<_>>();
        d["text"] = json!({
            "vocabulary": words(tokens), "unknown": 0, "begin": 1, "end": 2, "labels": words(labels), "ambiguous": "a",
        });
        let all = SafeTensors::deserialize(&bytes).unwrap();
        let meta = HashMap::from([("recurve".to_owned(), d.to_string())]);
        std::fs::write(&path, serialize(all.tensors(), Some(meta)).unwrap()).unwrap();
        Model::open(&path, &Device::Cpu)
    };
    let tagger =
        || Sequential::new().add(Embedding::new(5, 3)).add(Gru::new(4).return_sequences(true)).add(Dense::new(7));
    let ids = [None, None];
    let model = open(tagger(), &ids, 5, 7).unwrap();
    assert_eq!(model.read_text("xay").unwrap().len(), 1);
    for (labels, message) in [(6, "text.labels has 6 labels"), (8, "text.labels has 8 labels")] {
        let e = open(tagger(), &ids, 5, labels).unwrap_err();
        assert!(matches!(&e, Error::Description { message: m, .. } if m.contains(message)), "{e}");
        assert!(e.to_string().contains("the network has 7 outputs"), "{e}");
    }
    let e = open(tagger(), &ids, 6, 7).unwrap_err();
    assert!(e.to_string().contains("text.vocabulary has 6 tokens"), "{e}");
    let last = Sequential::new().add(Embedding::new(5, 3)).add(Gru::new(7));
    let e = open(last, &ids, 5, 7).unwrap_err();
    assert!(e.to_string().contains("[batch, timesteps, labels]"), "{e}");
    let features = Sequential::new().add(Gru::new(7).return_sequences(true));
    let e = open(features, &[None, None, Some(3)], 5, 7).unwrap_err();
    assert!(e.to_string().contains("takes ids"), "{e}");
}

/// An unknown field is refused, because it may change the numbers.
#[test]
fn unknown_fields_are_refused_wherever_they_stand() {
    for place in ["/", "/layers/2", "/layers/2/cell", "/layers/5", "/layers/0", "/layers/1"] {
        let e = refused(|d, _| {
            let at = if place == "/" { d } else { d.pointer_mut(place).unwrap() };
            at["attention"] = json!(0.1);
        });
        assert!(matches!(&e, Error::Description { message, .. } if message.contains("attention")), "{place}: {e}");
    }
}

#[test]
fn f16_weights_are_read() {
    let (_dir, path) = changed(|_, tensors| {
        let t = tensors.iter_mut().find(|t| t.0 == "layers.5.bias").unwrap();
        t.1 = Dtype::F16;
        t.3 = [0x00, 0x3c, 0x00, 0xc0].to_vec(); // 1 and -2
    });
    let m = Model::open(path, &Device::Cpu).unwrap();
    assert_eq!(m.network().weights().expect("layers.5.bias", &[2]).unwrap().to_vec().unwrap(), [1.0, -2.0]);
}

/// Weights stay in the mapped file in their storage type, and a model can be saved over the file that it has open.
#[test]
fn an_open_model_is_saved_over_its_own_file() {
    let (_dir, path) = changed(|_, tensors| {
        let t = tensors.iter_mut().find(|t| t.0 == "layers.5.bias").unwrap();
        t.1 = Dtype::BF16;
        t.3 = [0x80, 0x3f, 0x00, 0xc0].to_vec(); // 1 and -2
    });
    let ids = Tensor::from_u32(&[1, 2, 3, 49, 0, 7], &[2, 3], &Device::Cpu).unwrap();
    let run = |m: &Model| m.run([("input", &ids)]).unwrap().to_vec().unwrap();
    let mut m = Model::open(&path, &Device::Cpu).unwrap();
    assert_eq!(m.network().weights().require("layers.5.bias").unwrap().dtype(), WeightType::Bf16);
    if cfg!(unix) {
        assert!(m.network().weights().iter().all(|(_, w)| w.is_mapped()));
    }
    let first = run(&m);
    m.save(&path).unwrap();
    let again = Model::open(&path, &Device::Cpu).unwrap();
    assert_eq!(m.network().weights(), again.network().weights(), "types too");
    assert_eq!((run(&again), run(&m)), (first.clone(), first.clone()));

    // After one weight is replaced, saving writes the new one together with those that are still in the file.
    m.network_mut().set_weight("layers.5.bias", &[2], vec![0.25, -0.5]).unwrap();
    let second = run(&m);
    assert_ne!(second, first);
    m.save(&path).unwrap();
    assert_eq!(run(&Model::open(&path, &Device::Cpu).unwrap()), second);
    assert_eq!(run(&again), first);
    let read = Model::from_bytes(&std::fs::read(&path).unwrap(), &Device::Cpu).unwrap();
    assert_eq!(run(&read), second);
    assert!(read.network().weights().iter().all(|(_, w)| !w.is_mapped()));
}
