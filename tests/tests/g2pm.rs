//! The trained model in `models/`, compared with the logits of the package from which it comes.

use recurve::testing::{Tolerance, compare, cross_check};
use recurve::{Device, HostArray, HostData, Input, Model, read_array};
use recurve_tests::{devices, fixtures, wide};
use std::path::{Path, PathBuf};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/g2pm.safetensors")
}

fn array(name: &str) -> HostArray {
    read_array(&fixtures().join("g2pm.npz"), name).unwrap()
}

#[test]
fn logits_of_the_golden_sentences_match_on_every_device() {
    let (ids, lengths, logits) = (array("ids"), array("lengths"), array("logits"));
    let (HostData::Int(len), HostData::Float(want)) = (&lengths.data, &logits.data) else { panic!("types") };
    let [b, t, classes] = logits.shape[..] else { panic!("shape") };
    assert_eq!([b, t, classes], [5, 25, 876]);
    for device in devices() {
        let model = Model::open(path(), &device).unwrap();
        let inputs = [("tokens", ids.clone()), ("lengths", lengths.clone())];
        let y = model.run(inputs.map(|(n, a)| (n, Input::Host(a)))).unwrap();
        assert_eq!(*y.shape(), [5, 25, 876]);
        let got = y.to_vec().unwrap();
        for (row, &len) in len.iter().enumerate() {
            let valid = row * t * classes..(row * t + len as usize) * classes;
            // Logits reach 20; their sums of 32 products pass on the LSTM's error.
            compare(&got[valid.clone()], &wide(&want[valid]), Tolerance { abs: 1e-4, rel: 1e-5 })
                .unwrap_or_else(|e| panic!("sentence {row} on {device}: {e}"));
        }
    }
}

#[test]
fn a_sentence_is_read_as_the_package_reads_it() {
    for device in devices() {
        let model = Model::open(path(), &device).unwrap();
        let text = "然而，他红了20年以后，他竟退出了大家的视线。";
        let readings = model.read_text(text).unwrap();
        let got: Vec<_> = readings.iter().map(|r| (r.character, r.label.as_str())).collect();
        assert_eq!(got, [('了', "le5"), ('了', "le5"), ('大', "da4"), ('的', "de5")], "{device}");
        assert!(readings.iter().all(|r| r.probability > 0.9 && r.probability <= 1.0));
        assert_eq!(model.read_text("").unwrap(), []);
    }
}

#[test]
fn every_layer_agrees_with_the_reference() {
    let model = Model::open(path(), &Device::Cpu).unwrap();
    let report = cross_check(&model, &[("tokens", array("ids"))], &devices(), Tolerance::F32).unwrap();
    assert_eq!(report.devices.len(), 2);
    assert_eq!(report.devices[1].layers.len(), 4);
}

#[test]
fn ids_out_of_range_and_unknown_inputs_are_refused() {
    for device in devices() {
        let model = Model::open(path(), &device).unwrap();
        let e = model.run([("tokens", &vec![5398u32])]).unwrap_err().to_string();
        assert!(e.contains("5398") && e.contains("0 to 5397"), "{e}");
        let e = model.run([("words", &vec![1u32])]).unwrap_err().to_string();
        assert!(e.contains("tokens"), "{e}");
        let floats = HostArray { shape: vec![1, 1], data: HostData::Float(vec![0.5]) };
        assert!(model.run([("tokens", floats)]).unwrap_err().to_string().contains("integers"));
        let negative = HostArray { shape: vec![1, 1], data: HostData::Int(vec![-1]) };
        assert!(model.run([("tokens", negative)]).unwrap_err().to_string().contains("-1"));
        assert!(model.read_text("大").is_ok());
    }
}
