//! A step of a stream on the CPU allocates nothing once it has run a few times, nor does a call of a session of an ONNX
//! model. Opening a file allocates little, and a model no more than its packed weights.

#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use recurve::{
    CallArgs, Dense, Device, Embedding, ExportOptions, Functional, Gru, HostArray, HostData, IndRnn, Lstm, Masking,
    MinLstm, Model, Network, OnnxModel, OnnxSession, RecurrentLayer, RecurrentSpec, Sequential, SimpleRnn,
    StackedRnnCells, Streams, Tensor, TimeDistributed, Weights,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The system's allocator, with counters.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
/// The number of bytes in use, and its maximum.
static BYTES: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);

/// Each test holds this lock, because all allocations of the process are counted.
static TURN: Mutex<()> = Mutex::new(());

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let size = layout.size() as u64;
        MOST.fetch_max(BYTES.fetch_add(size, Ordering::Relaxed) + size, Ordering::Relaxed);
        // SAFETY: the caller fulfils the contract of `System.alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller fulfils the contract of `System.dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number of allocations of ten calls, after ten earlier ones. The minimum of five measurements, because the test
/// harness has other threads.
fn of_ten(mut call: impl FnMut()) -> u64 {
    (0..5)
        .map(|_| {
            (0..10).for_each(|_| call());
            let before = CALLS.load(Ordering::Relaxed);
            (0..10).for_each(|_| call());
            CALLS.load(Ordering::Relaxed) - before
        })
        .min()
        .expect("five times")
}

fn networks() -> Vec<(&'static str, Network)> {
    let build = |layers: Sequential, shape: &[Option<usize>]| layers.build(shape, &Device::Cpu).unwrap();
    let any = [None, None, Some(4)];
    let seq = Sequential::new;
    vec![
        ("lstm", build(seq().add(Lstm::new(16)), &any)),
        ("gru, dense", build(seq().add(Gru::new(16).return_sequences(true)).add(Dense::new(3)), &any)),
        (
            "four layers",
            build(
                seq()
                    .add(Gru::new(8).return_sequences(true))
                    .add(Lstm::new(8).return_sequences(true).clip(2.0))
                    .add(SimpleRnn::new(8).return_sequences(true))
                    .add(IndRnn::new(8).return_sequences(true))
                    .add(TimeDistributed::new(Dense::new(3))),
                &any,
            ),
        ),
        ("stacked in one module", build(seq().add(Lstm::new(8).num_layers(3)).add(Dense::new(2)), &any)),
        (
            "cells in one layer",
            build(seq().add(StackedRnnCells::new().add(Gru::new(8)).add(MinLstm::new(8))).add(Dense::new(2)), &any),
        ),
        ("time major", build(seq().add(Gru::new(8).time_major(true)), &any)),
    ]
}

/// The largest number of bytes that a call has in use, the number that it keeps, and its result.
fn bytes_of<T>(call: impl FnOnce() -> T) -> (u64, u64, T) {
    let before = BYTES.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = call();
    let kept = BYTES.load(Ordering::Relaxed).saturating_sub(before);
    (MOST.load(Ordering::Relaxed) - before, kept, result)
}

#[test]
fn opening_a_file_takes_no_memory_for_its_weights() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let lstm = || Lstm::new(256).return_sequences(true);
    let layers = (0..8).fold(Sequential::new(), |s, _| s.add(lstm())).add(Dense::new(4));
    let network = layers.build(&[None, None, Some(256)], &Device::Cpu).unwrap();
    Model::new("large", network).save(&path).unwrap();
    let file = std::fs::metadata(&path).unwrap().len();
    assert!(file > 16_000_000);

    let (most, kept, weights) = bytes_of(|| Weights::open(&path).unwrap());
    assert_eq!(weights.iter().next().unwrap().1.is_mapped(), cfg!(unix) || cfg!(windows));
    assert!(most < 64 << 10 && kept < 32 << 10, "{most} bytes for a moment, {kept} kept");

    // A model holds its weights once, in packed form; while it is made, those of one layer are in memory twice.
    let x = Tensor::from_f32(&vec![0.1; 4 * 256], &[1, 4, 256], &Device::Cpu).unwrap();
    let (most, kept, mut model) = bytes_of(|| {
        let model = Model::open(&path, &Device::Cpu).unwrap();
        model.run([("input", &x)]).unwrap();
        model
    });
    assert!(most as f64 <= 1.3 * file as f64, "{most} bytes for a file of {file}");
    assert!(kept as f64 <= 1.1 * file as f64, "{kept} bytes kept for a file of {file}");

    // Replacing a weight repacks the weights of its own layer only.
    let (most, _, ()) = bytes_of(|| {
        model.network_mut().set_weight("layers.0.bias_ih_l0", &[1024], vec![0.5; 1024]).unwrap();
        model.run([("input", &x)]).unwrap();
    });
    assert!(most < file / 4, "{most} bytes to replace a bias in a file of {file}");
}

/// Bad Keras files: bombs, cut and damaged files.
#[test]
fn bad_keras_files_take_little_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/keras");
    let (mut count, mut most) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let whole = std::fs::read(entry.unwrap().path()).unwrap();
        let step = whole.len() / 40;
        for n in 0..40 {
            let mut bytes = whole.clone();
            match n {
                0 => {}
                n if n % 2 == 0 => bytes.truncate(n * step),
                n => bytes[n * step..].iter_mut().step_by(200).for_each(|b| *b = 0xff),
            }
            let (peak, _, _) = bytes_of(|| Model::from_bytes(&bytes, &Device::Cpu).is_ok());
            assert!(peak <= 4 * bytes.len() as u64 + (64 << 20), "{} bytes: {peak}", bytes.len());
            (count, most) = (count + 1, most.max(peak));
        }
    }
    assert!(count > 500);
    println!("at most {most} bytes");
}

/// One large layer is packed from where its weights are; one that is called twice is packed once.
#[test]
fn packing_takes_no_second_copy() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let shape = [None, None, Some(512)];
    let one = Sequential::new().add(Lstm::new(512)).build(&shape, &Device::Cpu).unwrap();
    let mut net = Functional::new();
    let [a, b] = ["a", "b"].map(|name| net.input(name, &shape));
    let lstm = net.layer("lstm", Lstm::new(512));
    let [a, b] = [a, b].map(|x| net.call(lstm, &[&x]).unwrap().remove(0));
    let twice = net.output("a", &a).output("b", &b).build(&Device::Cpu).unwrap();
    for (name, network) in [("once", one), ("twice", twice)] {
        Model::new(name, network).save(&path).unwrap();
        let file = std::fs::metadata(&path).unwrap().len();
        assert!(file > 8_000_000);
        let (most, kept, mut model) = bytes_of(|| Model::open(&path, &Device::Cpu).unwrap());
        assert!(most as f64 <= 1.3 * file as f64, "{name}: {most} bytes for a file of {file}");
        assert!(kept as f64 <= 1.1 * file as f64, "{name}: {kept} bytes kept for a file of {file}");
        // What both calls share is stale for both.
        let run = |m: &Model| {
            let x = Tensor::from_f32(&[0.1; 512], &[1, 1, 512], &Device::Cpu).unwrap();
            let inputs = m.info().network.inputs.iter().map(|i| (i.name.as_str(), &x)).collect::<Vec<_>>();
            let outputs = m.network().forward_named(&inputs).unwrap();
            outputs.iter().map(|y| y.to_vec().unwrap()).collect::<Vec<_>>()
        };
        let before = run(&model);
        let bias = model.network().weights().iter().find(|(n, _)| n.ends_with("bias_ih_l0")).unwrap().0.to_owned();
        model.network_mut().set_weight(&bias, &[2048], vec![0.5; 2048]).unwrap();
        let after = run(&model);
        assert_eq!(after.len(), if name == "twice" { 2 } else { 1 });
        assert!(after.iter().all(|y| *y == after[0] && *y != before[0]), "{name}");
    }
}

#[test]
fn a_steady_step_allocates_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // The counter works.
    assert!(of_ten(|| drop(std::hint::black_box(vec![1u8; 100]))) >= 10);

    for (name, batch) in [("alone", 1), ("three rows", 3)] {
        let spec: RecurrentSpec = Lstm::new(16).into();
        let weights = {
            let network = Sequential::new().add(Lstm::new(16)).build(&[None, None, Some(4)], &Device::Cpu).unwrap();
            network.weights().clone()
        };
        let layer = RecurrentLayer::new("lstm", &spec, 4, &weights, "layers.0", &Device::Cpu).unwrap();
        let x = Tensor::from_f32(&vec![0.5; batch * 4], &[batch, 4], &Device::Cpu).unwrap();
        let mut state = None;
        let count = of_ten(|| state = Some(layer.step(&x, state.as_ref()).unwrap().1));
        assert_eq!(count, 0, "RecurrentLayer::step, {name}");
    }

    for (name, network) in networks() {
        for batch in [1, 3] {
            let x = Tensor::from_f32(&vec![0.5; batch * 4], &[batch, 4], &Device::Cpu).unwrap();
            let mut state = None;
            let count = of_ten(|| state = Some(network.step(&x, state.as_ref()).unwrap().1));
            assert_eq!(count, 0, "Network::step, {name}, {batch} rows");
        }
        let mut streams = Streams::new(&network).unwrap();
        let frames = [0.1, 0.2, 0.3].map(|v| (streams.join(), [v; 4]));
        let frames = frames.each_ref().map(|(id, f)| (*id, &f[..]));
        let mut out = vec![0.0; 8 * 16];
        let count = of_ten(|| {
            let y = streams.step(&frames).unwrap();
            let n = y.tensor.shape().count();
            y.tensor.read_into(&mut out[..n]).unwrap();
        });
        assert_eq!(count, 0, "Streams::step, {name}");
    }

    // A network that can run steps, but not streams.
    let layers = Sequential::new().add(Masking::new(0.0)).add(Gru::new(8));
    let masked = layers.build(&[None, None, Some(4)], &Device::Cpu).unwrap();
    let x = Tensor::from_f32(&[0.5; 12], &[3, 4], &Device::Cpu).unwrap();
    let mut state = None;
    assert_eq!(of_ten(|| state = Some(masked.step(&x, state.as_ref()).unwrap().1)), 0, "Masking");
    for zero in [false, true] {
        let layers = Sequential::new().add(Embedding::new(9, 4).mask_zero(zero)).add(Gru::new(8)).add(Dense::new(9));
        let ids = layers.build(&[None, None], &Device::Cpu).unwrap();
        let x = Tensor::from_u32(&[3, 0, 8], &[3], &Device::Cpu).unwrap();
        let args = CallArgs::default();
        let mut state = None;
        let count = of_ten(|| state = Some(ids.step_with(&x, &args, state.as_ref()).unwrap().1));
        assert_eq!(count, 0, "Embedding, mask_zero {zero}");
    }
}

/// Frames of streaming models of hundreds of nodes, with shape arithmetic, `If`, updates by indices and convolutions.
#[test]
fn a_frame_of_a_session_allocates_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let floats =
        |shape: &[usize]| HostArray { shape: shape.to_vec(), data: HostData::Float(vec![0.1; shape.iter().product()]) };
    let rate = HostArray { shape: Vec::new(), data: HostData::Int(vec![16000]) };
    let (mix, samples) = (floats(&[1, 257, 1, 2]), floats(&[1, 576]));
    for (name, inputs) in
        [("gtcrn.onnx", &[("mix", &mix)][..]), ("silero_vad.onnx", &[("input", &samples), ("sr", &rate)])]
    {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
        let model = Arc::new(OnnxModel::open(path, &Device::Cpu).unwrap());
        let mut session = OnnxSession::new(model, 1).unwrap();
        let mut outputs = Vec::new();
        let count = of_ten(|| session.run_into(inputs.iter().copied(), &mut outputs).unwrap());
        assert_eq!(count, 0, "{name}");
        // The arrays are those of a call that makes them.
        session.reset().unwrap();
        let named = session.run(inputs.iter().copied()).unwrap();
        session.reset().unwrap();
        session.run_into(inputs.iter().copied(), &mut outputs).unwrap();
        assert_eq!(named.into_iter().map(|(_, a)| a).collect::<Vec<_>>(), outputs, "{name}");
    }
}

/// The numbers of an ONNX file are in memory once as the graph has them and once packed.
#[test]
fn opening_an_onnx_file_takes_twice_its_size() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let network = Sequential::new().add(Lstm::new(768)).build(&[None, None, Some(768)], &Device::Cpu).unwrap();
    Model::new("large", network).save_onnx(&path, &ExportOptions::default()).unwrap();
    let file = std::fs::metadata(&path).unwrap().len();
    assert!(file > 16_000_000);
    let (most, kept, model) = bytes_of(|| OnnxModel::open(&path, &Device::Cpu).unwrap());
    assert!(most as f64 <= 2.1 * file as f64, "{most} bytes for a file of {file}");
    assert!(kept as f64 <= 2.1 * file as f64, "{kept} bytes kept for a file of {file}");
    drop(model);
}
