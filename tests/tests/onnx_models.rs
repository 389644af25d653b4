//! Real models from ONNX files, beside the numbers of ONNX Runtime (`golden/make_audio.py`).

use recurve::testing::{Tolerance, check_onnx, compare};
use recurve::{Device, HostArray, HostData, OnnxModel, OnnxSession, npz_from_bytes};
use recurve_tests::devices;
use std::path::PathBuf;
use std::sync::Arc;

const EXPECTED: &[u8] = include_bytes!("../fixtures/audio.npz");

fn expected(name: &str) -> HostArray {
    npz_from_bytes(EXPECTED, name).unwrap()
}

fn open(name: &str, device: &Device) -> Arc<OnnxModel> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    Arc::new(OnnxModel::open(path, device).unwrap())
}

fn floats(shape: &[usize], data: &[f32]) -> HostArray {
    HostArray { shape: shape.to_vec(), data: HostData::Float(data.to_vec()) }
}

/// 14 GRUs among convolutions; three caches that go from frame to frame.
#[test]
fn gtcrn_enhances_as_onnx_runtime_does() {
    let (frames, want) = (expected("frames").to_f32(), expected("enhanced").to_f64());
    for device in devices() {
        let mut session = OnnxSession::new(open("gtcrn.onnx", &device), 1).unwrap();
        let states: Vec<_> = session.states().map(|s| s.input).collect();
        assert_eq!(states, ["conv_cache", "tra_cache", "inter_cache"]);
        // From zero states again, the same comes again.
        for _ in 0..2 {
            for (n, (frame, want)) in frames.chunks(257 * 2).zip(want.chunks(257 * 2)).enumerate() {
                let out = session.run([("mix", &floats(&[1, 257, 1, 2], frame))]).unwrap();
                assert_eq!((out.len(), &out[0].0[..]), (1, "enh"), "states do not come out");
                compare(&out[0].1.to_f32(), want, Tolerance::new(1e-4))
                    .unwrap_or_else(|e| panic!("frame {n} on {device}: {e}"));
            }
            session.reset().unwrap();
        }
    }
}

/// An LSTM behind convolutions, graphs inside `If` nodes, the sampling rate an integer.
#[test]
fn silero_vad_finds_speech_as_onnx_runtime_does() {
    let wav = include_bytes!("../../models/noisy_speech.wav");
    let samples: Vec<f32> =
        wav[44..].as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0).collect();
    let want = expected("probabilities").to_f64();
    let rate = HostArray { shape: vec![], data: HostData::Int(vec![16000]) };
    for device in devices() {
        let mut session = OnnxSession::new(open("silero_vad.onnx", &device), 1).unwrap();
        let mut got = Vec::new();
        let mut call = vec![0.0; 576];
        for frame in samples.chunks(512) {
            call.copy_within(512.., 0);
            call[64..].fill(0.0);
            call[64..64 + frame.len()].copy_from_slice(frame);
            let out = session.run([("input", &floats(&[1, 576], &call)), ("sr", &rate)]).unwrap();
            got.extend(out[0].1.to_f32());
        }
        compare(&got, &want, Tolerance::new(1e-4)).unwrap_or_else(|e| panic!("{device}: {e}"));
        assert!(want.iter().any(|p| *p > 0.9) && want.iter().any(|p| *p < 0.1), "both occur");
    }
}

/// Every value of every node beside the f64 reference.
#[test]
fn every_node_of_the_models_agrees_with_the_reference() {
    let mix = floats(&[1, 257, 1, 2], &expected("frames").to_f32()[..514]);
    for device in devices() {
        let model = open("gtcrn.onnx", &device);
        let zeros: Vec<_> = model.inputs()[1..]
            .iter()
            .map(|i| {
                let shape = i.kind.shape().unwrap();
                (i.name.clone(), floats(&shape, &vec![0.0; shape.iter().product()]))
            })
            .collect();
        let inputs: Vec<_> = zeros.iter().map(|(n, a)| (&n[..], a)).chain([("mix", &mix)]).collect();
        let report = check_onnx(&model, &inputs, &device, Tolerance::new(1e-3)).unwrap();
        assert!(report.passed() && report.nodes.len() > 300, "{report}");
    }
}

/// A wrong input is refused by its name, and the session goes on as if it had not been.
#[test]
fn a_wrong_call_leaves_the_session_as_it_was() {
    let frames = expected("frames").to_f32();
    let frame = |n: usize| floats(&[1, 257, 1, 2], &frames[n * 514..(n + 1) * 514]);
    let session = || OnnxSession::new(open("gtcrn.onnx", &Device::Cpu), 1).unwrap();
    let (mut one, mut other) = (session(), session());
    for n in 0..3 {
        let want = one.run([("mix", &frame(n))]).unwrap();
        for (name, array, word) in [
            ("mix", floats(&[1, 256, 1, 2], &[0.0; 512]), "256"),
            ("max", frame(n), "no such input"),
            ("conv_cache", floats(&[2, 1, 16, 16, 33], &[0.0; 16896]), "is a state"),
        ] {
            let e = other.run([(name, &array)]).unwrap_err().to_string();
            assert!(e.contains(name) && e.contains(word), "{e}");
        }
        assert_eq!(other.run([("mix", &frame(n))]).unwrap(), want);
    }
}
