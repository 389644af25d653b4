//! Models that others have trained and published, in the forms in which they are published: silero-vad, DTLN, g2pM and
//! the network of nnnoiseless, beside what ONNX Runtime, PyTorch or their own code computes. `golden/make_audio.py`,
//! `make_silero.py`, `make_nnnoiseless.py` and `make_g2pm.py` made the files.

use recurve::testing::{Tolerance, compare, cross_check};
use recurve::{
    Device, HostArray, HostData, Input, Model, OnnxModel, OnnxSession, StatePair, npz_from_bytes, read_named_array,
};
use recurve_tests::{devices, fixtures, wide};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PROBABILITY: Tolerance = Tolerance { abs: 1e-4, rel: 0.0 };

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn floats(shape: &[usize], data: &[f32]) -> HostArray {
    HostArray { shape: shape.to_vec(), data: HostData::Float(data.to_vec()) }
}

/// An array of `audio.npz`.
fn audio(name: &str) -> HostArray {
    npz_from_bytes(include_bytes!("../fixtures/audio.npz"), name).unwrap()
}

/// The samples of the recording in `models`.
fn recording() -> Vec<f32> {
    let wav = include_bytes!("../../models/noisy_speech.wav");
    wav[44..].as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0).collect()
}

/// The samples of each call: some of the call before, then new ones.
fn calls(new: usize, context: usize) -> Vec<Vec<f32>> {
    let samples = recording();
    let mut padded = vec![0.0; context];
    padded.extend(&samples);
    padded.resize(context + samples.len().next_multiple_of(new), 0.0);
    (0..padded.len() - context).step_by(new).map(|n| padded[n..n + context + new].to_vec()).collect()
}

/// Whether arrays agree within a bound, with the worst error on standard output.
fn agrees(what: &str, device: &Device, got: &[f32], want: &[f64], tolerance: Tolerance) -> bool {
    match compare(got, want, tolerance) {
        Ok(a) => {
            println!("{what} on {device}: worst error {:.2e} of {} numbers", a.worst_error, a.count);
            true
        }
        Err(e) => {
            println!("{what} on {device}: {e}");
            false
        }
    }
}

/// A folder with silero-vad's other ONNX files and the file in `models` whose weights they have.
fn silero() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(models().join("silero_vad.onnx"), dir.path().join("silero_vad.onnx")).unwrap();
    for name in ["if.onnx", "sequence.onnx"] {
        std::fs::copy(fixtures().join("silero").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn silero_expected(name: &str) -> Vec<f64> {
    read_named_array(&fixtures().join("silero/expected.npz"), name).unwrap().to_f64()
}

/// What a model with silero's names gives for each call.
fn probabilities(model: Arc<OnnxModel>, calls: &[Vec<f32>], rate: i64) -> Vec<f32> {
    let rate = HostArray { shape: vec![], data: HostData::Int(vec![rate]) };
    let mut session = OnnxSession::new(model, 1).unwrap();
    let one = |x: &Vec<f32>| {
        let out = session.run([("input", &floats(&[1, x.len()], x)), ("sr", &rate)]).unwrap();
        assert_eq!((&out[0].0[..], out.len()), ("output", 1));
        out[0].1.to_f32()[0]
    };
    calls.iter().map(one).collect()
}

/// The sampling rate decides between two networks at run time; the state's shape is not in the file.
#[test]
fn silero_with_an_if_takes_both_rates() {
    let dir = silero();
    for device in devices() {
        let model = Arc::new(OnnxModel::open(dir.path().join("if.onnx"), &device).unwrap());
        let high = probabilities(model.clone(), &calls(512, 64), 16_000);
        assert!(agrees("silero, If, 16 kHz", &device, &high, &silero_expected("original"), PROBABILITY));
        let low = probabilities(model.clone(), &calls(256, 32), 8_000);
        assert!(agrees("silero, If, 8 kHz", &device, &low, &silero_expected("narrow"), PROBABILITY));
        if device.gpu().is_some() {
            continue;
        }
        // The context is part of the call.
        let mut bare = calls(512, 64);
        bare.iter_mut().for_each(|x| x[..64].fill(0.0));
        let bare = probabilities(model, &bare, 16_000);
        assert!(!agrees("silero without context", &device, &bare, &silero_expected("original"), PROBABILITY));
    }
    // Both files hold the same weights.
    compare(&audio("probabilities").to_f32(), &silero_expected("original"), Tolerance::new(1e-6)).unwrap();
}

/// All calls of a recording at once, whose number the file leaves open; some of them, with the states passed on by a
/// session, are the same.
#[test]
fn silero_takes_a_sequence_of_calls() {
    let dir = silero();
    let calls = calls(512, 64);
    let want = silero_expected("sequence");
    for device in devices() {
        let model = Arc::new(OnnxModel::open(dir.path().join("sequence.onnx"), &device).unwrap());
        let x = floats(&[calls.len(), 576], &calls.concat());
        let zeros = floats(&[1, 1, 128], &[0.0; 128]);
        let out = model.run([("input", &x), ("h", &zeros), ("c", &zeros)]).unwrap();
        for ((name, got), want) in out.iter().zip(["sequence", "hn", "cn"].map(silero_expected)) {
            // c is as large as 12.
            let tolerance = Tolerance { abs: 1e-4, rel: if name == "cn" { 1e-5 } else { 0.0 } };
            assert!(agrees(&format!("silero, sequence, {name}"), &device, &got.to_f32(), &want, tolerance));
        }
        let mut session = OnnxSession::new(model, 1).unwrap();
        let some = |part: &[Vec<f32>], session: &mut OnnxSession| {
            session.run([("input", &floats(&[part.len(), 576], &part.concat()))]).unwrap()[0].1.to_f32()
        };
        let got = [some(&calls[..50], &mut session), some(&calls[50..80], &mut session)].concat();
        assert!(agrees("silero, sequence in parts", &device, &got, &want[..80], PROBABILITY));
        // Another state gives other probabilities.
        session.set_state("h", &floats(&[1, 1, 128], &[0.5; 128])).unwrap();
        assert!(compare(&some(&calls[80..], &mut session), &want[80..], PROBABILITY).is_err());
    }
}

/// The network is assembled from weights alone by a description in TOML; its LSTM keeps its state.
#[test]
fn silero_from_its_weights() {
    let want = silero_expected("weights");
    let inputs: Vec<_> = calls(512, 64)
        .iter()
        .map(|x| {
            let mirrored = x[x.len() - 65..x.len() - 1].iter().rev();
            let x: Vec<f32> = x.iter().chain(mirrored).copied().collect();
            floats(&[1, 640, 1], &x)
        })
        .collect();
    for device in devices() {
        let model = Model::open(fixtures().join("silero/network.toml"), &device).unwrap();
        let one = |x: &HostArray| model.run([("samples", Input::Host(x.clone()))]).unwrap().to_vec().unwrap()[0];
        let got: Vec<f32> = inputs.iter().map(one).collect();
        assert!(agrees("silero, safetensors", &device, &got, &want, PROBABILITY));
        if device.gpu().is_some() {
            continue;
        }
        // Without the state of the call before, and with the weights of the other file, it would be noticed.
        let forgetful = |x: &HostArray| {
            model.network().reset_states();
            one(x)
        };
        let got: Vec<f32> = inputs.iter().map(forgetful).collect();
        assert!(!agrees("silero without states", &device, &got, &want, PROBABILITY));
        assert!(compare(&got, &silero_expected("original"), PROBABILITY).is_err());
    }
    let model = Model::open(fixtures().join("silero/network.toml"), &Device::Cpu).unwrap();
    cross_check(&model, &[("samples", inputs[60].clone())], &devices(), Tolerance::F32).unwrap();
}

/// DTLN's two models frame by frame, of which the second has its LSTMs written out as products. The whole recording goes
/// through the command (`crates/cli/tests/onnx_commands.rs`).
#[test]
fn dtln_masks_and_filters_as_onnx_runtime_does() {
    let pair = |input: &str, output: &str| StatePair { input: input.into(), output: output.into() };
    for device in devices() {
        for (file, input, output, state, (takes, gives)) in [
            ("dtln_1.onnx", "input_2", "activation_2", pair("input_3", "tf_op_layer_stack_2"), ("magnitude", "mask")),
            ("dtln_2.onnx", "input_4", "conv1d_3", pair("input_5", "tf_op_layer_stack_5"), ("block", "filtered")),
        ] {
            let model = Arc::new(OnnxModel::open(models().join(file), &device).unwrap());
            let (x, want) = (audio(&format!("dtln_{takes}")), audio(&format!("dtln_{gives}")).to_f64());
            let [frames, width] = x.shape[..] else { panic!("shape") };
            assert_eq!(frames, 24);
            let run = |session: &mut OnnxSession, reset: bool| {
                let mut got = Vec::new();
                for frame in x.to_f32().chunks(width) {
                    if reset {
                        session.reset().unwrap();
                    }
                    let out = session.run([(input, &floats(&[1, 1, width], frame))]).unwrap();
                    assert_eq!((&out[0].0[..], out.len()), (output, 1));
                    got.extend(out[0].1.to_f32());
                }
                got
            };
            let mut session = OnnxSession::with_states(model, &[state], 1).unwrap();
            let got = run(&mut session, false);
            assert!(agrees(file, &device, &got, &want, Tolerance { abs: 1e-4, rel: 0.0 }));
            assert!(want.iter().fold(0.0f64, |m, v| m.max(v.abs())) > 0.02, "there is something to hear");
            let got = run(&mut session, true);
            assert!(!agrees("without states", &device, &got, &want, Tolerance { abs: 1e-4, rel: 0.0 }));
        }
    }
}

/// GRUs with the reset gate before the product and ReLU, branches that join, two outputs.
#[test]
fn nnnoiseless_gives_gains_and_voice() {
    let folder = fixtures().join("nnnoiseless");
    let array = |name: &str| read_named_array(&folder.join("expected.npz"), name).unwrap();
    let (features, wanted) = (array("features"), [array("gains").to_f64(), array("voice").to_f64()]);
    let frames = features.shape[0];
    let x = floats(&[1, frames, 42], &features.to_f32());
    let run = |model: &Model| -> Vec<Vec<f32>> {
        let out = model.run_all([("features", Input::Host(x.clone()))]).unwrap();
        assert_eq!(out.iter().map(|(n, _)| &n[..]).collect::<Vec<_>>(), ["gains", "voice"]);
        out.into_iter().map(|(_, y)| y.to_vec().unwrap()).collect()
    };
    // Sums of up to 300 products of weights below 1/2; states of ReLU candidates are not bounded by 1.
    let tolerance = Tolerance { abs: 1e-4, rel: 0.0 };
    for device in devices() {
        let model = Model::open(folder.join("network.toml"), &device).unwrap();
        for (name, (got, want)) in ["gains", "voice"].iter().zip(run(&model).iter().zip(&wanted)) {
            assert!(agrees(&format!("nnnoiseless, {name}"), &device, got, want, tolerance));
        }
    }
    let model = Model::open(folder.join("network.toml"), &Device::Cpu).unwrap();
    cross_check(&model, &[("features", x.clone())], &devices(), Tolerance::F32).unwrap();
    // The options count.
    let text = std::fs::read_to_string(folder.join("network.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("network.safetensors"), dir.path().join("network.safetensors")).unwrap();
    for (right, wrong) in [("reset_after = false", "reset_after = true"), ("\"relu\"", "\"tanh\"")] {
        std::fs::write(dir.path().join("network.toml"), text.replace(right, wrong)).unwrap();
        let model = Model::open(dir.path().join("network.toml"), &Device::Cpu).unwrap();
        assert!(!agrees(wrong, &Device::Cpu, &run(&model)[0], &wanted[0], tolerance));
    }
}

const G2PM: &str = r#"
weights = "g2pm.pt"

[[inputs]]
name = "ids"
shape = ["batch", "time"]

[[layers]]
kind = "Embedding"
from = "embedding"

[[layers]]
kind = "LSTM"
from = "lstm"

[[layers]]
kind = "Linear"
from = "logit_layer.0"
activation = "relu"

[[layers]]
kind = "Linear"
from = "logit_layer.2"
"#;

/// The state dict of `torch.save` and the export of PyTorch, a sentence a call, beside the package's own logits.
#[test]
fn g2pm_from_a_state_dict_and_from_an_export() {
    let folder = fixtures().join("g2pm");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("g2pm.pt"), dir.path().join("g2pm.pt")).unwrap();
    std::fs::write(dir.path().join("g2pm.toml"), G2PM).unwrap();
    let golden = |name: &str| read_named_array(&fixtures().join("g2pm.npz"), name).unwrap();
    let (lengths, logits) = (golden("lengths"), golden("logits"));
    let words = read_named_array(&folder.join("words.npz"), "ids").unwrap();
    let (HostData::Int(lengths), HostData::Float(logits), HostData::Int(words)) =
        (&lengths.data, &logits.data, &words.data)
    else {
        panic!("types")
    };
    let (time, classes) = (25, 876);
    // As in `g2pm.rs`.
    let tolerance = Tolerance { abs: 1e-4, rel: 1e-5 };
    for device in devices() {
        let model = Model::open(dir.path().join("g2pm.toml"), &device).unwrap();
        let exported = OnnxModel::open(folder.join("g2pm.onnx"), &device).unwrap();
        let mut all: [Vec<f32>; 2] = Default::default();
        let mut want = Vec::new();
        for (row, len) in lengths.iter().map(|n| *n as usize).enumerate() {
            let ids = HostArray { shape: vec![1, len], data: HostData::Int(words[row * time..][..len].to_vec()) };
            all[0].extend(model.run([("ids", Input::Host(ids.clone()))]).unwrap().to_vec().unwrap());
            let out = exported.run([("ids", &ids)]).unwrap();
            assert_eq!((&out[0].0[..], &out[0].1.shape[..]), ("logits", &[1, len, classes][..]));
            all[1].extend(out[0].1.to_f32());
            want.extend(wide(&logits[row * time * classes..][..len * classes]));
        }
        for (what, got) in ["g2pM, state dict", "g2pM, ONNX"].iter().zip(&mut all) {
            assert!(agrees(what, &device, got, &want, tolerance));
            got.rotate_left(classes);
            assert!(!agrees("of another word", &device, got, &want, tolerance));
        }
        // Batch and time are open in the export.
        let ids = HostArray { shape: vec![5, time], data: HostData::Int(words.clone()) };
        assert_eq!(exported.run([("ids", &ids)]).unwrap()[0].1.shape, [5, time, classes]);
    }
}
