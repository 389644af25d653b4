//! The examples of the façade, run on every device and compared with PyTorch's results for the same models; and streams
//! that join and leave.

use recurve::testing::{Tolerance, compare};
use recurve::{
    CallArgs, Dense, Device, Dropout, Embedding, GenerateOptions, Gru, Lstm, Network, Replicas, Sampling, Sequential,
    StackedRnnCells, StreamId, Streams, Tensor,
};
use recurve_tests::{Random, devices, fixtures};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[path = "../../crates/recurve/examples/classifier.rs"]
mod classifier;
#[path = "../../crates/recurve/examples/generate.rs"]
mod generate;
#[path = "../../crates/recurve/examples/long_term.rs"]
mod long_term;
#[path = "../../crates/recurve/examples/tagger.rs"]
mod tagger;
#[path = "../../crates/recurve/examples/translate.rs"]
mod translate;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("forms.json")).unwrap()).unwrap()
}

fn strings(v: &Value) -> Vec<&str> {
    v.as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect()
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect()
}

#[test]
fn many_to_one_a_classifier() {
    let e = &expected()["sentiment"];
    for device in devices() {
        let got = classifier::classify(&models(), &device, &strings(&e["texts"])).unwrap();
        compare(&got, &floats(&e["probabilities"]), Tolerance::new(3e-6)).unwrap();
        // The labels are the expected ones.
        for (p, label) in got.iter().zip(floats(&e["labels"])) {
            assert_eq!(*p > 0.5, label > 0.5);
        }
        assert!(classifier::classify(&models(), &device, &["the film was xyzzy"]).is_err());
    }
}

#[test]
fn many_to_many_a_tagger() {
    for device in devices() {
        let read = |text| tagger::readings(&models(), &device, text).unwrap();
        let of = |c: char, all: &[(char, String)]| -> Vec<String> {
            all.iter().filter(|(k, _)| *k == c).map(|(_, r)| r.clone()).collect()
        };
        // The readings of the original package, right or wrong.
        assert_eq!(of('行', &read("我在银行工作，行长很好。")), ["xing2", "xing2"]);
        assert_eq!(of('长', &read("我在银行工作，行长很好。")), ["chang2"]);
        assert_eq!(of('长', &read("这条路很长，他长大了。")), ["zhang3", "zhang3"]);
        assert_eq!(of('弹', &read("他会弹琴，子弹很快。")), ["dan4", "dan4"]);
        assert_eq!(of('乐', &read("音乐使人快乐。")), ["yue4", "yue4"]);
    }
}

#[test]
fn one_to_many_greedy_letters_are_pytorchs() {
    let e = &expected()["stars"];
    let beginnings: Vec<&str> = strings(&e["prompts"]).into_iter().map(|p| p.trim_start_matches('^')).collect();
    let want: Vec<&str> = strings(&e["greedy"]).into_iter().map(|g| g.split('$').next().unwrap()).collect();
    for device in devices() {
        let got = generate::continue_names(&models(), &device, &beginnings, Sampling::Greedy, 0).unwrap();
        assert_eq!(got, want, "{device}");
    }
}

#[test]
fn one_to_many_by_temperature_and_top_k() {
    let e = expected();
    let known = strings(&e["stars"]["names"]);
    for device in devices() {
        let draw = |sampling, seed| generate::continue_names(&models(), &device, &["al"; 64], sampling, seed).unwrap();
        let warm = Sampling::Random { temperature: 0.7, top_k: None };
        assert_eq!(draw(warm, 1), draw(warm, 1));
        assert_ne!(draw(warm, 1), draw(warm, 2));
        let names: std::collections::BTreeSet<String> = draw(warm, 3).iter().map(|e| format!("al{e}")).collect();
        assert!(names.len() > 5, "64 draws gave only {names:?}");
        let real = names.iter().filter(|n| known.contains(&n.as_str())).count();
        assert!(2 * real > names.len(), "few of {names:?} are names it was trained on");
        // With `top_k` 1 the result is the greedy one.
        let one = draw(Sampling::Random { temperature: 5.0, top_k: Some(1) }, 4);
        assert_eq!(one, draw(Sampling::Greedy, 0));
    }
}

#[test]
fn an_encoder_and_a_decoder() {
    let e = &expected()["numbers"];
    let (spoken, want) = (strings(&e["spoken"]), strings(&e["digits"]));
    assert_eq!(spoken.len(), 1000);
    for device in devices() {
        assert_eq!(translate::translate(&models(), &device, &spoken).unwrap(), want, "{device}");
    }
}

#[test]
fn generation_reads_nothing_back() {
    for device in devices() {
        let Some(gpu) = device.gpu() else { continue };
        let own = Device::by_name(&format!("{}:{}", device.backend(), gpu.summary().name)).unwrap();
        let network = Sequential::new()
            .add(Embedding::new(20, 8))
            .add(Lstm::new(16).return_sequences(true))
            .add(Dense::new(20))
            .build(&[None, None], &own)
            .unwrap();
        let prompt = Tensor::from_u32(&[1, 2, 3, 4], &[2, 2], &own).unwrap();
        for sampling in [Sampling::Greedy, Sampling::Random { temperature: 1.0, top_k: Some(5) }] {
            own.synchronize().unwrap();
            let before = own.gpu().unwrap().work_counts();
            let options = GenerateOptions { max_new_tokens: 50, sampling, seed: 1, ..GenerateOptions::default() };
            let (tokens, _) = network.generate(&prompt, None, &options).unwrap();
            assert_eq!(tokens.to_vec_u32().unwrap().len(), 100);
            let after = own.gpu().unwrap().work_counts();
            assert_eq!(after.1 - before.1, 1, "submissions");
        }
    }
}

#[test]
fn what_cannot_generate_says_so() {
    let features = Sequential::new().add(Gru::new(3)).build(&[None, None, Some(2)], &Device::Cpu).unwrap();
    let x = Tensor::zeros(&[1, 2, 2], recurve::DType::F32, &Device::Cpu).unwrap();
    let e = features.generate(&x, None, &GenerateOptions::default()).unwrap_err().to_string();
    assert!(e.contains("Embedding"), "{e}");
    let network = Sequential::new()
        .add(Embedding::new(5, 2))
        .add(Gru::new(5).go_backwards(true))
        .build(&[None, None], &Device::Cpu)
        .unwrap();
    let ids = Tensor::from_u32(&[1, 2], &[1, 2], &Device::Cpu).unwrap();
    let e = network.generate(&ids, None, &GenerateOptions { max_new_tokens: 2, ..Default::default() }).unwrap_err();
    assert!(e.to_string().contains("reads forwards"), "{e}");
    let e = network.generate(&ids, None, &GenerateOptions { max_new_tokens: 0, ..Default::default() }).unwrap_err();
    assert!(e.to_string().contains("max_new_tokens"), "{e}");
}

#[test]
fn a_plain_cell_forgets_and_gates_remember() {
    for device in devices() {
        let lines: BTreeMap<_, _> = long_term::influence(&device).unwrap().into_iter().collect();
        let last = long_term::STEPS - 1;
        assert!(lines["SimpleRNN"][100] < 1e-4, "{}", lines["SimpleRNN"][100]);
        for cell in ["LSTM", "GRU"] {
            assert!(lines[cell][100] > 0.05, "{cell} {}", lines[cell][100]);
            assert!(lines[cell][last] > 1e-3, "{cell} {}", lines[cell][last]);
        }
    }
}

/// A network with every kind of layer that can run on streams.
fn audio(device: &Device) -> Network {
    Sequential::new()
        .seed(5)
        .add(Dense::new(6).activation(recurve::Activation::Tanh))
        .add(Gru::new(8).return_sequences(true))
        .add(Dropout::new(0.3))
        .add(StackedRnnCells::new().add(Lstm::new(5)).add(Gru::new(4)).return_sequences(true))
        .add(Lstm::new(6).num_layers(2).return_sequences(true))
        .add(Dense::new(2))
        .build(&[None, None, Some(3)], device)
        .unwrap()
}

#[test]
fn a_network_steps_as_it_runs() {
    for device in devices() {
        let network = audio(&device);
        let x = Random(80).floats(2 * 5 * 3, 1.0);
        let whole = network.forward(&Tensor::from_f32(&x, &[2, 5, 3], &device).unwrap()).unwrap().to_vec().unwrap();
        let mut state = None;
        for t in 0..5 {
            let frame: Vec<f32> = (0..2).flat_map(|b| x[(b * 5 + t) * 3..][..3].to_vec()).collect();
            let frame = Tensor::from_f32(&frame, &[2, 3], &device).unwrap();
            let (y, next) = network.step(&frame, state.as_ref()).unwrap();
            assert_eq!(*y.shape(), [2, 2]);
            let want: Vec<f64> = (0..2).flat_map(|b| whole[(b * 5 + t) * 2..][..2].to_vec()).map(f64::from).collect();
            compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-6)).unwrap();
            state = Some(next);
        }
        // A state with too few layers is refused.
        let short = state.unwrap().states()[..2].iter().cloned().collect();
        let frame = Tensor::zeros(&[2, 3], recurve::DType::F32, &device).unwrap();
        assert!(network.step(&frame, Some(&short)).unwrap_err().to_string().contains("4 states"));
    }
}

#[test]
fn a_thousand_streams_join_and_leave() {
    /// The inputs and the outputs of a stream.
    type History = (Vec<f32>, Vec<f32>);
    for device in devices() {
        let network = audio(&device);
        let mut streams = Streams::new(&network).unwrap();
        let mut r = Random(81);
        let mut live: BTreeMap<StreamId, History> = BTreeMap::new();
        let mut done: Vec<History> = Vec::new();
        let (mut joined, mut most, mut tick) = (0, 0, 0);
        while done.len() < 1000 {
            tick += 1;
            // 400 streams join at once, later a few at a time.
            let arrivals = if tick == 3 { 400 } else { r.below(24) };
            for _ in 0..arrivals.min(1000 - joined) {
                live.insert(streams.join(), (Vec::new(), Vec::new()));
                joined += 1;
            }
            // Not every stream has a frame at every tick.
            let mut given: Vec<(StreamId, Vec<f32>)> = Vec::new();
            for &id in live.keys() {
                if r.below(4) > 0 {
                    given.push((id, r.floats(3, 1.0)));
                }
            }
            if !given.is_empty() {
                let frames: Vec<(StreamId, &[f32])> = given.iter().map(|(id, f)| (*id, &f[..])).collect();
                let out = streams.step(&frames).unwrap().to_vecs().unwrap();
                for ((id, frame), y) in given.into_iter().zip(out) {
                    let (x, all) = live.get_mut(&id).unwrap();
                    x.extend(frame);
                    all.extend(y);
                }
            }
            most = most.max(streams.len());
            let leaving: Vec<StreamId> = live
                .iter()
                .filter(|(_, (x, _))| x.len() > 3 && (r.below(6) == 0 || x.len() >= 36))
                .map(|(id, _)| *id)
                .collect();
            for id in leaving {
                streams.leave(id).unwrap();
                assert!(streams.leave(id).is_err());
                done.push(live.remove(&id).unwrap());
            }
        }
        assert!(most > 350, "{most} at once");
        assert!(streams.slots() <= 64, "{} slots for {} streams", streams.slots(), streams.len());
        // Every stream's outputs are those of its own frames alone. For speed, streams of equal length are recomputed
        // as one batch.
        let mut lengths: BTreeMap<usize, Vec<History>> = BTreeMap::new();
        for (x, y) in done {
            lengths.entry(x.len() / 3).or_default().push((x, y));
        }
        for (t, group) in lengths {
            let (x, want): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let n = x.len();
            let x = Tensor::from_f32(&x.concat(), &[n, t, 3], &device).unwrap();
            let (y, _) = network.forward_from(&x, &CallArgs::default(), None).unwrap();
            let want: Vec<f64> = want.concat().into_iter().map(f64::from).collect();
            compare(&y[0].to_vec().unwrap(), &want, Tolerance::new(2e-6)).unwrap();
        }
    }
}

#[test]
fn streams_refuse_what_is_wrong_and_go_on() {
    for device in devices() {
        let network = audio(&device);
        let mut streams = Streams::new(&network).unwrap();
        let a = streams.join();
        let first = streams.step(&[(a, &[0.1, 0.2, 0.3])]).unwrap().to_vecs().unwrap();
        assert!(streams.step(&[]).is_err());
        assert!(streams.step(&[(a, &[0.1])]).unwrap_err().to_string().contains("3 elements"));
        assert!(streams.step(&[(a, &[0.0; 3]), (a, &[0.0; 3])]).unwrap_err().to_string().contains("two frames"));
        let gone = streams.join();
        streams.leave(gone).unwrap();
        assert!(streams.step(&[(gone, &[0.0; 3])]).unwrap_err().to_string().contains("not among"));
        // A NaN in a stream that left does not reach the stream that reuses its slot.
        let bad = streams.join();
        streams.step(&[(bad, &[f32::NAN; 3])]).unwrap().to_vecs().unwrap();
        streams.leave(bad).unwrap();
        let b = streams.join();
        assert_eq!(streams.step(&[(b, &[0.1, 0.2, 0.3])]).unwrap().to_vecs().unwrap(), first);
        let ids = Sequential::new().add(Embedding::new(3, 2)).add(Gru::new(2)).build(&[None, None], &device).unwrap();
        assert!(Streams::new(&ids).is_err());
    }
}

/// A batch shared by the CPU and the GPU, and by two copies on the CPU, gives the result of a single device.
#[test]
fn replicas_share_a_batch() {
    let [cpu, gpu] = devices();
    let network = Sequential::new()
        .add(Embedding::new(30, 6))
        .add(Lstm::new(9).return_sequences(true))
        .add(Gru::new(5))
        .add(Dense::new(2))
        .seed(4)
        .build(&[None, None], &cpu)
        .unwrap();
    let ids: Vec<u32> = (0..23 * 8).map(|n| n * 7 % 30).collect();
    let x = Tensor::from_u32(&ids, &[23, 8], &cpu).unwrap();
    let want = network.forward(&x).unwrap().to_vec().unwrap();
    for devices in [vec![cpu.clone(), gpu.clone()], vec![cpu.clone(); 3], vec![gpu.clone()]] {
        let replicas = Replicas::new(&network, &devices).unwrap();
        // The shares change from call to call.
        for _ in 0..4 {
            let y = replicas.forward(&x).unwrap();
            assert_eq!(y.dims(), [23, 2]);
            for (a, b) in y.to_vec().unwrap().iter().zip(&want) {
                assert!((a - b).abs() < 1e-5, "{a} and {b}");
            }
        }
        // Fewer sequences than devices; and errors.
        let one = Tensor::from_u32(&ids[..8], &[1, 8], &cpu).unwrap();
        assert_eq!(replicas.forward(&one).unwrap().dims(), [1, 2]);
        let outside = Tensor::from_u32(&[30], &[1, 1], &cpu).unwrap();
        assert!(replicas.forward(&outside).unwrap_err().to_string().contains("30"));
        assert!(replicas.forward(&x.to_device(&gpu).unwrap()).is_err());
    }
    assert!(Replicas::new(&network, &[]).unwrap_err().to_string().contains("at least one"));
    let stateful = Sequential::new().add(Lstm::new(2).stateful(true)).build(&[None, None, Some(3)], &cpu).unwrap();
    assert!(Replicas::new(&stateful, &[cpu]).unwrap_err().to_string().contains("stateful"));
}
