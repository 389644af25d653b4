//! NaN stays NaN: everything computed from a NaN is NaN, on the CPU and on GPUs, and nothing else is affected. WGSL
//! lets drivers assume that no float is NaN; the shaders test its bits instead (`shared/nan.wgsl`).

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, CallArgs, Cell, CellKind, DType, Device, Direction, Gru, LayerConfig, Lstm, MaskedOutput,
    MatmulOptions, Reduction, SampleOptions, Sequential, Shape, SimpleRnn, Strategy, Tensor, Zoneout,
};
use recurve_reference::activate;
use recurve_tensor::{Extreme, Indices, Scatter, Take, Update};
use recurve_tests::{Case, Random, devices, gpu, paths};

/// Quiet and signalling NaNs of both signs, with payloads.
const NANS: [u32; 5] = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffbf_ffff, 0x7fff_ffff];

fn nan() -> f32 {
    f32::from_bits(NANS[0])
}

const ACTIVATIONS: [Activation; 13] = [
    Activation::Linear,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Relu,
    Activation::HARD_SIGMOID_KERAS3,
    Activation::Affine { alpha: 2.0, beta: 1.0 },
    Activation::LeakyRelu { alpha: 0.1 },
    Activation::ThresholdedRelu { alpha: 1.0 },
    Activation::ScaledTanh { alpha: 1.5, beta: 0.5 },
    Activation::Elu { alpha: 1.0 },
    Activation::Softsign,
    Activation::Softplus,
    Activation::Positive,
];

/// Checks that exactly the expected elements are NaN, and all others are finite.
fn assert_nan_at(values: &[f32], is_nan: impl Fn(usize) -> bool, what: &str) {
    for (i, v) in values.iter().enumerate() {
        if is_nan(i) {
            assert!(v.is_nan(), "{what}: element {i} is {v}, not NaN");
        } else {
            assert!(v.is_finite(), "{what}: element {i} is {v}");
        }
    }
}

#[test]
fn activations() {
    let mut x: Vec<f32> = NANS.iter().map(|&b| f32::from_bits(b)).collect();
    x.extend([-100.0, -20.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0, 20.0, 80.0]);
    for device in devices() {
        let tensor = Tensor::from_f32(&x, &[x.len()], &device).unwrap();
        for f in ACTIVATIONS {
            let got = tensor.activation(f).unwrap().to_vec().unwrap();
            assert_nan_at(&got, |i| i < NANS.len(), &format!("{f:?} on {device}"));
            let want: Vec<f64> = x[NANS.len()..].iter().map(|&v| activate(f, f64::from(v))).collect();
            compare(&got[NANS.len()..], &want, Tolerance::new(2e-6)).unwrap_or_else(|e| panic!("{f:?} {device}: {e}"));
            // Also as the activation of a product, with few rows and with many.
            for m in [1, 40] {
                let mut a = vec![0.5; m * 6];
                a[(m - 1) * 6 + 2] = nan();
                let a = Tensor::from_f32(&a, &[m, 6], &device).unwrap();
                let b = Tensor::from_f32(&Random(1).floats(6 * 9, 1.0), &[9, 6], &device).unwrap();
                let options = MatmulOptions { transpose_rhs: true, activation: f, ..MatmulOptions::default() };
                let got = a.matmul_with(&b, &options).unwrap().to_vec().unwrap();
                assert_nan_at(&got, |i| i / 9 == m - 1, &format!("product with {f:?}, {m} rows, on {device}"));
            }
        }
    }
}

#[test]
fn reductions_softmax_and_normalization() {
    // Rows of 300, so that lanes have several elements; a NaN in row 1, at several positions.
    const W: usize = 300;
    for device in devices() {
        for at in [0, 1, 63, 64, 299] {
            for bits in NANS {
                let mut x = Random(2).floats(3 * W, 4.0);
                x[W + at] = f32::from_bits(bits);
                let x = Tensor::from_f32(&x, &[3, W], &device).unwrap();
                let said = |what: &str| format!("{what} with {bits:#x} at {at} on {device}");
                for r in [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::Min] {
                    let got = x.reduce(r, 1).unwrap().to_vec().unwrap();
                    assert_nan_at(&got, |i| i == 1, &said(&format!("{r:?}")));
                    let got = x.reduce(r, 0).unwrap().to_vec().unwrap();
                    assert_nan_at(&got, |i| i == at, &said(&format!("{r:?} over rows")));
                }
                assert_nan_at(&x.softmax().unwrap().to_vec().unwrap(), |i| i / W == 1, &said("softmax"));
                let affine = Tensor::full(&[2, W], 0.5, DType::F32, &device).unwrap();
                let got = x.layer_norm(&affine, 1e-5).unwrap().to_vec().unwrap();
                assert_nan_at(&got, |i| i / W == 1, &said("layer_norm"));
                // The index of a NaN, as in PyTorch and NumPy.
                let got = x.argmax(1).unwrap().to_vec_u32().unwrap();
                assert_eq!(got[1], at as u32, "{}", said("argmax"));
                for (smallest, last) in [(true, false), (false, true), (true, true)] {
                    let which = Extreme { smallest, last };
                    let got = x.arg_extreme(1, which).unwrap().to_vec_u32().unwrap();
                    assert_eq!(got[1], at as u32, "{}", said(&format!("{which:?}")));
                }
                for largest in [true, false] {
                    let (values, places) = x.top_k(3, largest).unwrap();
                    assert_nan_at(&values.to_vec().unwrap(), |i| i == 3, &said("top_k"));
                    assert_eq!(places.to_vec_u32().unwrap()[3], at as u32, "{}", said("top_k"));
                }
                let got = x.cumulate(1, false, false).unwrap().to_vec().unwrap();
                assert_nan_at(&got, |i| i / W == 1 && i % W >= at, &said("cumulate"));
                for update in [Update::Add, Update::Mul, Update::Max, Update::Min, Update::Replace] {
                    let s = Scatter::tuples(x.shape(), &Shape::new(&[1, 1]).unwrap()).unwrap();
                    let row = x.slice(0, 1..2).unwrap();
                    let got = x.scatter(&s, Indices::Host(&[2]), &row, update).unwrap().to_vec().unwrap();
                    assert_nan_at(&got, |i| i % W == at && i >= W, &said(&format!("scatter {update:?}")));
                    let s = Scatter::tuples(x.shape(), &Shape::new(&[1, 1]).unwrap()).unwrap();
                    let row = x.slice(0, 0..1).unwrap();
                    let got = x.scatter(&s, Indices::Host(&[1]), &row, update).unwrap().to_vec().unwrap();
                    let stays = update != Update::Replace;
                    assert_nan_at(&got, |i| stays && i == W + at, &said(&format!("scatter {update:?} to it")));
                }
                // An index that is no number points nowhere.
                let take = Take::along(x.shape(), 1, &Shape::new(&[2]).unwrap()).unwrap();
                let indices = Tensor::from_f32(&[f32::from_bits(bits), 5.0], &[2], &device).unwrap();
                let got = x.take(&take, Indices::Device(&indices), 7.0).unwrap().to_vec().unwrap();
                assert!([0, 2, 4].iter().all(|&i| got[i] == 7.0), "{}", said("take"));
                for top_k in [None, Some(3)] {
                    let options =
                        SampleOptions { temperature: 0.7, top_k, seed: 3, position: 4, ..SampleOptions::default() };
                    let got = x.sample(&options).unwrap().to_vec_u32().unwrap();
                    assert_eq!(got[1], at as u32, "{}", said(&format!("sample of {top_k:?}")));
                }
            }
        }
        // Of several NaNs the first.
        let mut x = vec![1.0; 200];
        x[130] = nan();
        x[70] = nan();
        x[199] = f32::INFINITY;
        let x = Tensor::from_f32(&x, &[1, 200], &device).unwrap();
        assert_eq!(x.argmax(1).unwrap().to_vec_u32().unwrap(), [70], "{device}");
        let options = SampleOptions { temperature: 1.0, top_k: None, seed: 3, position: 4, ..SampleOptions::default() };
        assert_eq!(x.sample(&options).unwrap().to_vec_u32().unwrap(), [70], "{device}");
    }
}

#[test]
fn masks_arithmetic_and_conversion() {
    for device in devices() {
        for bits in NANS {
            let x = Tensor::from_f32(&[0.0, f32::from_bits(bits), 0.0, 0.0], &[2, 2], &device).unwrap();
            // A timestep with a NaN is not padding.
            assert_eq!(x.mask(0.0).unwrap().to_vec_u32().unwrap(), [1, 0], "{bits:#x} on {device}");
            let one = Tensor::full(&[2, 2], 1.0, DType::F32, &device).unwrap();
            for y in [x.add(&one), x.sub(&one), one.mul(&x), x.div(&one)] {
                assert_nan_at(&y.unwrap().to_vec().unwrap(), |i| i == 1, &format!("arithmetic on {device}"));
            }
            if device.gpu().is_none_or(|g| g.summary().f16) {
                let narrow = x.to_dtype(DType::F16).unwrap();
                let back = narrow.to_dtype(DType::F32).unwrap().to_vec().unwrap();
                assert_nan_at(&back, |i| i == 1, &format!("f16 on {device}"));
                let got = narrow.reduce(Reduction::Max, 1).unwrap().to_dtype(DType::F32).unwrap().to_vec().unwrap();
                assert_nan_at(&got, |i| i == 0, &format!("f16 maximum on {device}"));
            }
        }
    }
}

/// Cells with all options that compare or select values.
fn cells() -> Vec<Cell> {
    let zoneout = Some(Zoneout { h: 0.2, c: 0.3 });
    let hard = [Activation::HARD_SIGMOID_KERAS2, Activation::HARD_SIGMOID_KERAS3, Activation::Relu];
    let mut all = vec![
        Cell::LSTM,
        Cell { kind: CellKind::Lstm { coupled: true }, clip: Some(1.0), ..Cell::LSTM },
        Cell { clip: Some(1.0), zoneout, gates: hard, ..Cell::LSTM },
        Cell::GRU,
        Cell { clip: Some(0.5), gates: hard, ..Cell::GRU },
        Cell::GRU_RESET_BEFORE,
        Cell { clip: Some(0.5), gates: hard, ..Cell::GRU_RESET_BEFORE },
        Cell { layer_norm: Some(1e-5), clip: Some(1.0), ..Cell::LSTM },
        Cell { layer_norm: Some(1e-3), ..Cell::GRU },
        Cell { projection: Some(4), clip: Some(1.0), ..Cell::LSTM },
        Cell { clip: Some(0.5), ..Cell::INDRNN },
        Cell { candidate: Activation::Positive, ..Cell::MINGRU },
        Cell { clip: Some(0.5), ..Cell::MINLSTM },
        Cell::SLSTM,
        Cell { clip: Some(1.0), ..Cell::with_kind(CellKind::SLstm { heads: 3, exponential_forget: true }) },
    ];
    all.extend(ACTIVATIONS.map(|candidate| Cell { candidate, clip: Some(2.0), ..Cell::RNN }));
    all
}

#[test]
fn recurrent_layers_from_the_step_on() {
    let [b, t, i, h] = [3, 6, 2, 9];
    for cell in cells() {
        for (n, direction) in [Direction::Forward, Direction::Reverse].into_iter().enumerate() {
            let mut case = Case::random(27 + n as u64, cell, &[direction], [b, t, i, h]).with_states(28);
            if n == 1 && matches!(cell.kind, CellKind::Lstm { .. }) {
                case = case.with_peepholes(29);
            }
            // In the middle row, at timestep 2.
            case.x[(t + 2) * i + 1] = nan();
            let w = case.width();
            for (device, strategy) in paths() {
                let got = case.run(&device, strategy, 64 << 20);
                let said = format!("{cell:?} {direction:?} on {device} by {}", strategy.name());
                let reached = |s: usize| if direction == Direction::Forward { s >= 2 } else { s <= 2 };
                assert_nan_at(&got.y, |e| e / (t * w) == 1 && reached(e / w % t), &format!("{said}: y"));
                assert_nan_at(&got.h, |e| e / w == 1, &format!("{said}: h"));
                assert_nan_at(&got.c, |e| e / case.c_width() == 1, &format!("{said}: c"));
            }
        }
    }
}

/// Timesteps that are not valid may contain NaN without an effect.
#[test]
fn not_out_of_timesteps_that_are_not_valid() {
    let [b, t, i, h] = [3, 6, 2, 9];
    for cell in cells() {
        let plain = Case::random(31, cell, &[Direction::Forward, Direction::Reverse], [b, t, i, h]).with_states(32);
        for shown in [MaskedOutput::Zero, MaskedOutput::Repeat] {
            let mut lengths = plain.clone().with_lengths();
            let mut masked = plain.clone().with_mask(33, shown);
            let valid = lengths.lengths.clone().unwrap();
            let mask = masked.mask.clone().unwrap();
            for s in 0..b * t {
                for k in 0..i {
                    if s % t >= valid[s / t] as usize {
                        lengths.x[s * i + k] = nan();
                    }
                    if mask[s] == 0 {
                        masked.x[s * i + k] = nan();
                    }
                }
            }
            for case in [lengths, masked] {
                for (device, strategy) in paths() {
                    let got = case.run(&device, strategy, 64 << 20);
                    let said = format!("{cell:?} {shown:?} on {device} by {}", strategy.name());
                    for values in [&got.y, &got.h, &got.c] {
                        assert_nan_at(values, |_| false, &said);
                    }
                }
            }
        }
    }
}

/// Every layout that the GPU has, NaN in an initial state, and stacked layers as a wavefront.
#[test]
fn every_layout_and_the_wavefront() {
    let gpu = gpu();
    let [b, t, i, h] = [3, 4, 2, 40];
    for cell in [Cell { clip: Some(1.0), ..Cell::LSTM }, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell::RNN, Cell::SLSTM] {
        let mut case = Case::random(41, cell, &[Direction::Forward], [b, t, i, h]).with_states(42);
        case.h0.as_mut().unwrap()[h + 7] = nan();
        let layer = case.layer(&gpu);
        for candidate in layer.candidates(b, t).unwrap().into_iter().step_by(4) {
            let said = format!("{cell:?} by {candidate}");
            let (got, _) = case.run_with(&layer, Strategy::Auto, Some(candidate), 64 << 20);
            assert_nan_at(&got.y, |e| e / (t * h) == 1, &said);
        }
    }
    let spec = |n: usize| -> recurve::RecurrentSpec {
        match n {
            0 => Lstm::new(h).num_layers(3).return_sequences(true).into(),
            1 => Gru::new(h).num_layers(3).return_sequences(true).into(),
            _ => SimpleRnn::new(h).num_layers(3).return_sequences(true).into(),
        }
    };
    for n in 0..3 {
        let network =
            Sequential::new().add(LayerConfig::Recurrent(spec(n))).build(&[None, None, Some(i)], &gpu).unwrap();
        let mut x = Random(43).floats(b * t * i, 1.0);
        x[(t + 1) * i] = nan();
        let x = Tensor::from_f32(&x, &[b, t, i], &gpu).unwrap();
        for strategy in [Strategy::Step, Strategy::Scan] {
            let args = CallArgs { strategy, ..CallArgs::default() };
            let y = network.forward_all(&x, &args).unwrap()[0].to_vec().unwrap();
            let reached = |e: usize| e / (t * h) == 1 && e / h % t >= 1;
            assert_nan_at(&y, reached, &format!("stack {n} by {}", strategy.name()));
        }
    }
}

/// The CPU with a single sequence too: threads that share it, and vectors that are not full.
#[test]
fn long_sequences_on_the_cpu() {
    for cell in [Cell::LSTM, Cell::GRU, Cell::RNN, Cell::SLSTM] {
        let mut case = Case::random(51, cell, &[Direction::Forward], [1, 40, 3, 150]);
        case.x[20 * 3] = nan();
        let got = case.run(&Device::Cpu, Strategy::Auto, 64 << 20);
        assert_nan_at(&got.y, |e| e / 150 >= 20, &format!("{cell:?}"));
    }
}
