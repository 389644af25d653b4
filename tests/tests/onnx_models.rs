//! Real models from ONNX files, beside the numbers of ONNX Runtime (`golden/make_audio.py`).

use recurve::testing::{Tolerance, check_onnx, compare};
use recurve::{
    DType, Device, Error, HostArray, HostData, Model, OnnxModel, OnnxOptions, OnnxSession, OnnxStreams, StatePair,
    Tensor, npz_from_bytes,
};
use recurve_graph::{Data, IntArray};
use recurve_tests::devices;
use recurve_tests::node_tests::NodeTest;
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

/// The samples of the recording in `models`.
fn recording() -> Vec<f32> {
    let wav = include_bytes!("../../models/noisy_speech.wav");
    wav[44..].as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0).collect()
}

/// Streams that join, pause, begin again and leave give what each gives in a session of its own.
#[test]
fn streams_share_calls_as_if_they_were_alone() {
    let samples = recording();
    let rate = HostArray { shape: vec![], data: HostData::Int(vec![16000]) };
    // Each stream reads the recording from another place on.
    let call = |stream: usize, n: usize| floats(&[1, 576], &samples[stream * 3000 + n * 512..][..576]);
    for device in devices() {
        let model = open("silero_vad.onnx", &device);
        let mut streams = OnnxStreams::new(model.clone()).unwrap();
        let mut sessions: Vec<Option<OnnxSession>> = (0..6).map(|_| None).collect();
        let mut ids = [None; 6];
        let mut frames = 0;
        for step in 0..24 {
            for s in 0..6 {
                // Stream s joins at step 2 s, begins again at step 10 + s, and leaves at step 16 + s.
                if step == 2 * s {
                    ids[s] = Some(streams.join());
                    sessions[s] = Some(OnnxSession::new(model.clone(), 1).unwrap());
                }
                if step == 10 + s
                    && let (Some(id), Some(session)) = (ids[s], &mut sessions[s])
                {
                    streams.reset(id).unwrap();
                    session.reset().unwrap();
                }
                if step == 16 + s {
                    streams.leave(ids[s].take().unwrap()).unwrap();
                }
            }
            // Some pause, in another order each time.
            let mut active: Vec<usize> = (0..6).filter(|s| ids[*s].is_some() && (step + s) % 4 != 3).collect();
            if active.is_empty() {
                continue;
            }
            let first = step % active.len();
            active.rotate_left(first);
            let inputs: Vec<_> = active.iter().map(|&s| call(s, step)).collect();
            let named: Vec<_> = inputs.iter().map(|x| [("input", x)]).collect();
            let all: Vec<_> = active.iter().zip(&named).map(|(s, x)| (ids[*s].unwrap(), &x[..])).collect();
            let got = streams.step(&all, &[("sr", &rate)]).unwrap();
            for ((s, x), got) in active.iter().zip(&inputs).zip(got) {
                let session = sessions[*s].as_mut().unwrap();
                let want = session.run([("input", x), ("sr", &rate)]).unwrap();
                assert_eq!((got.len(), &got[0].0[..], &got[0].1.shape[..]), (1, "output", &[1, 1][..]));
                compare(&got[0].1.to_f32(), &want[0].1.to_f64(), Tolerance::new(1e-5))
                    .unwrap_or_else(|e| panic!("stream {s} at {step} on {device}: {e}"));
                frames += 1;
            }
        }
        assert!(frames > 50 && streams.is_empty(), "{frames} frames");
    }
}

/// What cannot share a call is refused by name, and the streams stay as they were.
#[test]
fn wrong_frames_leave_streams_as_they_were() {
    let fixed = OnnxStreams::new(open("gtcrn.onnx", &Device::Cpu)).unwrap_err().to_string();
    assert!(fixed.contains("`conv_cache`") && fixed.contains("fixes its batch"), "{fixed}");
    let model = open("silero_vad.onnx", &Device::Cpu);
    let mut streams = OnnxStreams::new(model.clone()).unwrap();
    let mut session = OnnxSession::new(model, 1).unwrap();
    let (a, b) = (streams.join(), streams.join());
    let gone = streams.join();
    streams.leave(gone).unwrap();
    let x = floats(&[1, 576], &recording()[..576]);
    let (short, two) = (floats(&[1, 5], &[0.5; 5]), floats(&[2, 576], &[0.5; 1152]));
    let rate = HostArray { shape: vec![], data: HostData::Int(vec![16000]) };
    let state = floats(&[2, 1, 128], &[0.0; 256]);
    let own = [("input", &x)];
    let shared = [("sr", &rate)];
    for _ in 0..2 {
        for (frames, shared, words) in [
            (vec![], &shared[..], "no frame"),
            (vec![(gone, &own[..])], &shared[..], "not among the streams"),
            (vec![(a, &own[..]), (a, &own[..])], &shared[..], "two frames"),
            (vec![(a, &own[..]), (b, &[("input", &short)][..])], &shared[..], "`input`"),
            (vec![(a, &[("input", &two)][..])], &shared[..], "1 at dimension 0"),
            (vec![(a, &[][..])], &shared[..], "is missing"),
            (vec![(a, &[("input", &x), ("input", &x)][..])], &shared[..], "twice"),
            (vec![(a, &[("input", &x), ("sr", &rate)][..])], &[][..], "share it"),
            (vec![(a, &[("input", &x), ("state", &state)][..])], &shared[..], "is a state"),
            (vec![(a, &[("sound", &x)][..])], &shared[..], "no input"),
            (vec![(a, &own[..])], &[("input", &x), ("sr", &rate)][..], "each stream has its own"),
            (vec![(a, &own[..])], &[][..], "`sr`"),
        ] {
            let e = streams.step(&frames, shared).unwrap_err().to_string();
            assert!(e.contains(words), "{e}: {words}");
        }
        let got = streams.step(&[(a, &own), (b, &own)], &shared).unwrap();
        let want = session.run([("input", &x), ("sr", &rate)]).unwrap();
        for got in got {
            compare(&got[0].1.to_f32(), &want[0].1.to_f64(), Tolerance::new(1e-5)).unwrap();
        }
    }
    assert!(streams.reset(gone).is_err() && streams.leave(gone).is_err() && streams.len() == 2);
}

/// States that a user states, reads and replaces.
#[test]
fn states_are_held_to_the_model() {
    let model = open("gtcrn.onnx", &Device::Cpu);
    let pair = |input: &str, output: &str| StatePair { input: input.into(), output: output.into() };
    let right = pair("conv_cache", "conv_cache_out");
    for (states, words) in [
        (vec![pair("none", "conv_cache_out")], ["`none`", "conv_cache"]),
        (vec![pair("conv_cache", "none")], ["`conv_cache`", "`none`"]),
        (vec![right.clone(), right.clone()], ["`conv_cache`", "already"]),
        (vec![right.clone(), pair("tra_cache", "conv_cache_out")], ["`tra_cache`", "another state"]),
        (vec![pair("tra_cache", "inter_cache_out")], ["`tra_cache`", "`inter_cache_out`"]),
    ] {
        let e = OnnxSession::with_states(model.clone(), &states, 1).unwrap_err().to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
    }
    // A state that is read and put into another session goes on there.
    let frames = expected("frames").to_f32();
    let frame = |n: usize| floats(&[1, 257, 1, 2], &frames[n * 514..(n + 1) * 514]);
    let (mut one, mut other) =
        (OnnxSession::new(model.clone(), 1).unwrap(), OnnxSession::new(model.clone(), 1).unwrap());
    one.run([("mix", &frame(0))]).unwrap();
    for state in model.states() {
        let now = one.state(&state.input).unwrap();
        assert_eq!(now, one.state(&state.output).unwrap());
        other.set_state(&state.input, &now).unwrap();
    }
    assert_eq!(one.run([("mix", &frame(1))]).unwrap(), other.run([("mix", &frame(1))]).unwrap());
    assert!(one.state("mix").unwrap_err().to_string().contains("conv_cache, tra_cache, inter_cache"));
    let e = one.set_state("tra_cache", &floats(&[3], &[0.0; 3])).unwrap_err().to_string();
    assert!(e.contains("`tra_cache`") && e.contains("[3]"), "{e}");
}

/// The file's metadata says more than names, and a file that says what is not so is refused.
#[test]
fn states_of_the_metadata_come_first() {
    let field = |tag: u8, data: &[u8]| [&[tag << 3 | 2, data.len() as u8], data].concat();
    let model = |value: &str| {
        let entry = [field(1, b"recurve.states"), field(2, value.as_bytes())].concat();
        // A message that follows adds to the lists of the one before.
        let bytes = [include_bytes!("../../models/gtcrn.onnx"), &field(14, &entry)[..]].concat();
        Arc::new(OnnxModel::from_bytes(bytes, &Device::Cpu).unwrap())
    };
    let two = model("tra_cache=tra_cache_out, inter_cache=inter_cache_out");
    let inputs: Vec<_> = two.states().into_iter().map(|s| s.input).collect();
    assert_eq!(inputs, ["tra_cache", "inter_cache"]);
    OnnxSession::new(two, 1).unwrap();
    for (states, name) in [("tra_cache", "tra_cache"), ("a=tra_cache_out", "`a`"), ("tra_cache=enh", "`tra_cache`")] {
        let e = OnnxSession::new(model(states), 1).unwrap_err().to_string();
        assert!(e.contains(name), "{e}");
    }
}

/// A run that stops at a node gives what it makes, as the whole run does.
#[test]
fn a_run_stops_at_a_node() {
    let model = open("gtcrn.onnx", &Device::Cpu);
    let mix = floats(&[1, 257, 1, 2], &expected("frames").to_f32()[..514]);
    let mut inputs = vec![("mix", mix)];
    for i in &model.inputs()[1..] {
        let shape = i.kind.shape().unwrap();
        inputs.push((&i.name[..], floats(&shape, &vec![0.0; shape.iter().product()])));
    }
    let named = || inputs.iter().map(|(n, x)| (*n, x));
    let whole = model.run(named()).unwrap();
    let (_, enh) = whole.iter().find(|(name, _)| name == "enh").unwrap();
    let last = model.run_until("enh", named()).unwrap();
    assert_eq!((&last[0].0[..], &last[0].1), ("enh", enh));
    let conv = model.run_until("Conv_75", named()).unwrap();
    assert_eq!(conv[0].1.shape, [1, 16, 1, 65]);
    // The value's name says the same as the node's.
    assert_eq!(model.run_until(&conv[0].0, named()).unwrap(), conv);
    assert!(model.run_until("none", named()).unwrap_err().to_string().contains("`none`"));
}

#[test]
fn an_onnx_file_is_no_native_model() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/gtcrn.onnx");
    let e = Model::open(path, &Device::Cpu).unwrap_err();
    assert!(matches!(e, Error::OtherKind { .. }) && e.to_string().contains("OnnxModel::open"), "{e}");
}

/// An LSTM behind convolutions, graphs inside `If` nodes, the sampling rate an integer.
#[test]
fn silero_vad_finds_speech_as_onnx_runtime_does() {
    let samples = recording();
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

const PYTORCH: &[u8] = include_bytes!("../fixtures/onnx_pytorch.bin.gz");

/// nn.RNN, nn.GRU and nn.LSTM by both of PyTorch's exporters (`golden/make_onnx_pytorch.py`), of another batch and time
/// than were exported, beside PyTorch.
#[test]
fn layers_that_pytorch_exports_agree_with_it() {
    let cases = NodeTest::from_file(PYTORCH);
    assert!(cases.len() >= 20, "{} cases", cases.len());
    // A GRU without an attribute, and a projection, which ONNX's LSTM does not have.
    let faults = ["fault_gru", "lstm_projected_dynamo"];
    for (name, case) in cases.iter().filter(|(n, _)| !faults.contains(&&n[..])) {
        for device in devices() {
            let got = case.outputs(&device, &OnnxOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(got.len(), case.expected().len(), "{name}");
            for (n, (got, want)) in got.iter().zip(case.expected()).enumerate() {
                assert_eq!(got.shape, want.shape, "{name}, output {n}");
                compare(&got.to_f32(), &want.to_f64(), Tolerance::new(3e-6))
                    .unwrap_or_else(|e| panic!("{name} on {device}, output {n}: {e}"));
            }
            // A GRU that lacks `linear_before_reset` would be noted.
            let model = case.model(&device, &OnnxOptions::default()).unwrap();
            assert!(model.notes().is_empty(), "{name}: {:?}", model.notes());
        }
    }
}

/// A GRU of PyTorch without the attribute is noted: its numbers are not PyTorch's.
#[test]
fn a_gru_of_pytorch_without_its_attribute_is_noted() {
    let (_, case) = NodeTest::from_file(PYTORCH).into_iter().find(|(n, _)| n == "fault_gru").unwrap();
    let model = case.model(&Device::Cpu, &OnnxOptions::default()).unwrap();
    assert!(model.notes().len() == 1 && model.notes()[0].contains("linear_before_reset"), "{:?}", model.notes());
    let got = case.outputs(&Device::Cpu, &OnnxOptions::default()).unwrap();
    assert!(compare(&got[0].to_f32(), &case.expected()[0].to_f64(), Tolerance::new(1e-3)).is_err(), "told apart");
}

/// PyTorch's newer exporter leaves the projection of an LSTM out; what is left does not fit.
#[test]
fn a_projection_that_pytorch_leaves_out_is_refused() {
    let (_, case) = NodeTest::from_file(PYTORCH).into_iter().find(|(n, _)| n == "lstm_projected_dynamo").unwrap();
    let e = case.model(&Device::Cpu, &OnnxOptions::default()).unwrap_err().to_string();
    assert!(e.contains("initial_c"), "{e}");
}

/// The error says which sizes a file fixes.
#[test]
fn a_batch_in_the_file_is_said_in_the_error() {
    for exporter in ["dynamo", "script"] {
        let name = format!("lstm_baked_{exporter}");
        let (_, case) = NodeTest::from_file(PYTORCH).into_iter().find(|(n, _)| *n == name).unwrap();
        let model = case.model(&Device::Cpu, &OnnxOptions::default()).unwrap();
        let x = &model.inputs()[0].name;
        for (shape, words) in [
            ([3, 5, 3], "the file fixes axis 0 at 2"),
            ([2, 4, 3], "the file fixes axis 1 at 5"),
            ([3, 4, 3], "axis 1 at 5"),
        ] {
            let input = floats(&shape, &vec![0.0; shape.iter().product()]);
            let e = model.run([(&x[..], &input)]).unwrap_err().to_string();
            assert!(e.contains(words) && e.contains(&x[..]), "{e}");
        }
    }
}

/// Values as the graph takes them give what arrays give, in runs and in sessions. Tensors over the caller's memory are
/// neither written to nor kept once the call is over.
#[test]
fn values_and_arrays_give_the_same() {
    let model = open("gtcrn.onnx", &Device::Cpu);
    let arrays: Vec<(String, HostArray)> = model
        .inputs()
        .iter()
        .map(|v| {
            let shape: Vec<usize> = v.kind.dims.iter().map(|d| d.size().unwrap()).collect();
            let count = shape.iter().product();
            (v.name.clone(), floats(&shape, &recording()[..count]))
        })
        .collect();
    let want = model.run(arrays.iter().map(|(n, a)| (&n[..], a))).unwrap();
    let owners: Vec<Arc<Vec<f32>>> = arrays.iter().map(|(_, a)| Arc::new(a.to_f32())).collect();
    let shared = |n: usize| Data::from(Tensor::from_shared(owners[n].clone(), &arrays[n].1.shape).unwrap());
    let given = |count: usize| (0..count).map(|n| (&arrays[n].0[..], shared(n))).collect::<Vec<_>>();
    let got = model.run_data(given(arrays.len())).unwrap();
    for ((name, want), (same, got)) in want.iter().zip(&got) {
        assert_eq!((name, &want.to_f32()), (same, &got.as_tensor().unwrap().to_vec().unwrap()));
    }
    drop(got);
    let alone = || owners.iter().all(|o| Arc::strong_count(o) == 1);
    assert!(alone());
    let unchanged = || owners.iter().zip(&arrays).all(|(o, (_, a))| **o == a.to_f32());
    assert!(unchanged());

    let mut sessions = [0; 2].map(|_| OnnxSession::new(model.clone(), 1).unwrap());
    for _ in 0..3 {
        let want = sessions[0].run([("mix", &arrays[0].1)]).unwrap();
        let got = sessions[1].run_data(given(1)).unwrap();
        assert_eq!((got.len(), &got[0].0), (1, &want[0].0));
        assert_eq!(got[0].1.as_tensor().unwrap().to_vec().unwrap(), want[0].1.to_f32());
    }
    assert!(alone() && unchanged());

    // Whole numbers, and what does not fit.
    let silero = open("silero_vad.onnx", &Device::Cpu);
    let x = Tensor::from_f32(&recording()[..576], &[1, 576], &Device::Cpu).unwrap();
    let (rate, state) = (IntArray::scalar(16_000), Tensor::zeros(&[2, 1, 128], DType::F32, &Device::Cpu).unwrap());
    let ids = Tensor::from_u32(&[1; 576], &[1, 576], &Device::Cpu).unwrap();
    let run = |x: Data, rate: Data| silero.run_data([("input", x), ("sr", rate), ("state", state.clone().into())]);
    let arrays =
        [floats(&[1, 576], &recording()[..576]), HostArray { shape: vec![], data: HostData::Int(vec![16_000]) }];
    let zeros = floats(&[2, 1, 128], &[0.0; 256]);
    let want = silero.run([("input", &arrays[0]), ("sr", &arrays[1]), ("state", &zeros)]).unwrap();
    let got = run(x.clone().into(), rate.clone().into()).unwrap();
    assert_eq!(got[0].1.as_tensor().unwrap().to_vec().unwrap(), want[0].1.to_f32());
    for (x, rate, words) in [
        (Data::from(ids), Data::from(rate.clone()), "`input`: is a tensor of u32"),
        (x.clone().into(), x.reshape(&[576]).unwrap().into(), "`sr`: must be"),
        (x.reshape(&[576]).unwrap().into(), rate.into(), "`input`: must be"),
    ] {
        let e = run(x, rate).unwrap_err();
        assert!(matches!(e, Error::Input { .. }) && e.to_string().contains(words), "{e}");
    }
}
