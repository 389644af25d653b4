//! Tests of the library with whatever features it is built. `cargo xtask portability` runs them with `reference` alone,
//! which gives expected values.

use recurve::testing::{Tolerance, compare, cross_check};
use recurve::{Device, Gru, HostArray, HostData, Input, Lstm, Model, Reduction, State, Tensor, Weights, read_array};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

/// Stacked and bidirectional modules with initial states, compared with PyTorch's results.
#[test]
fn recurrent_layers_compute_what_pytorch_does() {
    let golden = Weights::open(fixture("pytorch.safetensors")).unwrap();
    for kind in ["lstm", "gru"] {
        let case = format!("{kind}_l2_h7_bi_init_lengths_b4");
        let values = |name: &str| golden.require(&format!("{case}/{name}")).unwrap().to_vec().unwrap();
        let tensor = |name: &str| {
            let dims = golden.require(&format!("{case}/{name}")).unwrap().shape().to_vec();
            Tensor::from_f32(&values(name), &dims, &Device::Cpu).unwrap()
        };
        let prefix = format!("{kind}_l2_h7_bi/weights");
        let (layer, state) = match kind {
            "lstm" => {
                let state = State { h: tensor("h0"), c: Some(tensor("c0")) };
                (Lstm::from_weights(&golden, &prefix, &Device::Cpu).unwrap(), state)
            }
            _ => (Gru::from_weights(&golden, &prefix, &Device::Cpu).unwrap(), State { h: tensor("h0"), c: None }),
        };
        let lengths: Vec<u32> = values("lengths").iter().map(|&n| n as u32).collect();
        let lengths = Tensor::from_u32(&lengths, &[lengths.len()], &Device::Cpu).unwrap();
        let args = recurve::CallArgs { state: Some(&state), lengths: Some(&lengths), ..Default::default() };
        let (y, last) = layer.forward_with(&tensor("x"), &args).unwrap();
        let check = |name: &str, got: &Tensor| {
            compare(&got.to_vec().unwrap(), &wide(&values(name)), Tolerance::F32)
                .unwrap_or_else(|e| panic!("{case}, {name}: {e}"));
        };
        check("y", &y);
        check("h", &last.h);
        assert_eq!(last.c.is_some(), kind == "lstm");
        last.c.iter().for_each(|c| check("c", c));
    }
}

/// A model file, arrays of an archive, a graph and all layers of a model: compared with the results of the model's
/// original implementation, and layer by layer with the f64 reference.
#[test]
fn the_trained_model_runs() {
    let array = |name: &str| read_array(&fixture("g2pm.npz"), name).unwrap();
    let model = Model::open(root().join("models/g2pm.safetensors"), &Device::Cpu).unwrap();
    let (ids, lengths, logits) = (array("ids"), array("lengths"), array("logits"));
    let (HostData::Int(len), HostData::Float(want)) = (&lengths.data, &logits.data) else { panic!("types") };
    let inputs = [("tokens", ids.clone()), ("lengths", lengths.clone())];
    let got = model.run(inputs.map(|(n, a)| (n, Input::Host(a)))).unwrap().to_vec().unwrap();
    let row = want.len() / len.len();
    let step = row / ids.shape[1];
    for (n, &len) in len.iter().enumerate() {
        let valid = n * row..n * row + len as usize * step;
        // The same input as in `tests/tests/g2pm.rs`.
        compare(&got[valid.clone()], &wide(&want[valid]), Tolerance { abs: 1e-4, rel: 1e-5 })
            .unwrap_or_else(|e| panic!("sentence {n}: {e}"));
    }
    let first = HostArray { shape: vec![1, 3], data: HostData::Int(vec![5, 6, 7]) };
    let report = cross_check(&model, &[("tokens", first)], &[Device::Cpu], Tolerance::F32).unwrap();
    assert_eq!(report.devices[0].layers.len(), 4);
}

#[test]
fn tensors_have_their_operations() {
    let a = Tensor::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu).unwrap();
    let product = a.matmul(&a.transpose(&[1, 0]).unwrap()).unwrap();
    assert_eq!(product.to_vec().unwrap(), [14.0, 32.0, 32.0, 77.0]);
    assert_eq!(a.reduce(Reduction::Sum, 1).unwrap().to_vec().unwrap(), [6.0, 15.0]);
    assert_eq!(a.argmax(1).unwrap().to_vec_u32().unwrap(), [2, 2]);
}

/// Without the feature `gpu`, no GPU is found, and one asked for by name is refused with the reason.
#[cfg(not(feature = "gpu"))]
#[test]
fn without_gpus_there_is_the_cpu() {
    assert_eq!(Device::best().unwrap(), Device::Cpu);
    assert_eq!(Device::by_name("auto").unwrap(), Device::Cpu);
    assert_eq!(Device::all(), [Device::Cpu]);
    assert_eq!(Device::adapters(), []);
    for name in ["gpu", "vulkan", "metal:Apple", "gpu:llvmpipe", "pci:0000:65:00.0"] {
        let e = Device::by_name(name).unwrap_err();
        assert!(matches!(&e, recurve::TensorError::NoDevice { wanted, .. } if wanted == name), "{e:?}");
        let want = format!(
            "no device matches `{name}`; this program was built without the feature `gpu`, so there is only the CPU"
        );
        assert_eq!(e.to_string(), want);
    }
    assert!(matches!(Device::by_name("cuda"), Err(recurve::TensorError::Argument { .. })));
}

/// Without the feature `keras`, such a file is refused with that reason, in memory and by its path.
#[cfg(not(feature = "keras"))]
#[test]
fn without_the_feature_keras_files_are_refused_by_their_kind() {
    let path = fixture("mixed_before.keras");
    let bytes = std::fs::read(&path).unwrap();
    assert!(Model::is_keras(&bytes));
    let why = "this is a Keras file, which this build of Recurve does not read: it has no feature `keras`";
    let errors = [
        Model::from_bytes(&bytes, &Device::Cpu).unwrap_err(),
        Model::open(&path, &Device::Cpu).unwrap_err(),
        Model::keras_to_native(bytes).unwrap_err(),
    ];
    for e in errors {
        assert!(matches!(e, recurve::Error::NoFeature { feature: "keras", .. }) && e.to_string().contains(why), "{e}");
    }
    assert!(Model::from_keras_json("{}", 0, &Device::Cpu).is_err());
}
