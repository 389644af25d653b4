//! Limits: loops of a device that ends them early, long sums, the work and the memory of a submission, workgroups that
//! do not run at the same time, and tuning by several threads.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Cell, CellKind, DType, Dense, Device, Direction, ForwardArgs, IndRnn, LayerError, Lstm, MatmulOptions,
    Recurrent, RecurrentConfig, Reduction, SampleOptions, Sequential, Shape, Strategy, Tensor, TensorError,
};
use recurve_reference as reference;
use recurve_tensor::{Indices, Scatter, Update};
use recurve_tests::{Case, Random, devices, gpu, own_gpu, wide};
use recurve_train::{Adam, Batch, Error as TrainError, Loss, Sgd, StepOptions, Training};
use std::collections::BTreeSet;

const ALL: usize = 64 << 20;
const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

fn t(data: &[f32], dims: &[usize], device: &Device) -> Tensor {
    Tensor::from_f32(data, dims, device).unwrap()
}

fn close(got: &Tensor, want: &[f64], tolerance: f64, what: &str) {
    compare(&got.to_vec().unwrap(), want, Tolerance::new(tolerance)).unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// Checks that values are within an absolute bound.
fn within(got: &Tensor, want: &[f64], abs: f64, what: &str) {
    let tolerance = Tolerance { abs, rel: 0.0 };
    compare(&got.to_vec().unwrap(), want, tolerance).unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// `matmul`, `matvec`, `reduce`, `softmax`, `layer_norm`, `sample`, `mask` with rows around and beyond the limit of an
/// invocation's loops.
fn operations_obey(device: &Device, limit: usize) {
    let mut r = Random(limit as u64);
    // Products with tiles of 16 and of 64 columns per iteration, with one row and several, in batches.
    for (batch, m, n) in [(1, 1, 5), (1, 3, 9), (3, 1, 2), (2, 20, 70)] {
        for k in [16 * limit, 16 * limit + 1, 64 * limit + 4, 40 * limit + 3] {
            let (a, b) = (r.floats(batch * m * k, 1.0), r.floats(batch * n * k, 1.0));
            let bias = r.floats(n, 1.0);
            let scale = 1.0 / (k as f32).sqrt();
            let a: Vec<f32> = a.iter().map(|v| v * scale).collect();
            let want: Vec<f64> = (0..batch)
                .flat_map(|z| {
                    let (a, b) = (wide(&a[z * m * k..][..m * k]), wide(&b[z * n * k..][..n * k]));
                    reference::matmul(&a, &b, &wide(&bias), [m, k, n], Activation::Tanh)
                })
                .collect();
            let dims = |rows: usize| if batch == 1 { vec![rows, k] } else { vec![batch, rows, k] };
            let (x, w, bias) = (t(&a, &dims(m), device), t(&b, &dims(n), device), t(&bias, &[n], device));
            let turned = w.transpose(if batch == 1 { &[1, 0] } else { &[0, 2, 1] }).unwrap();
            for (transpose_rhs, rhs) in [(true, &w), (false, &turned)] {
                let options = MatmulOptions {
                    transpose_rhs,
                    bias: Some(&bias),
                    activation: Activation::Tanh,
                    ..MatmulOptions::default()
                };
                let y = x.matmul_with(rhs, &options).unwrap();
                close(&y, &want, 1e-5, &format!("{batch}×{m}×{k}×{n} {transpose_rhs}"));
            }
        }
    }
    // Rows: the 64 lanes of a workgroup make 3 passes over a row, or 33.
    for width in [2 * limit, 64 * (limit / 40).max(1) + 1, 64 * (limit - 12) / 3, 64 * limit + 1, 128 * limit] {
        let rows = 3;
        let x = r.floats(rows * width, 2.0);
        let tensor = t(&x, &[rows, width], device);
        let what = |name: &str| format!("{name} of {width}");
        let (mut soft, mut normal, mut sums, mut least, mut first) = (vec![], vec![], vec![], vec![], vec![]);
        let affine = r.floats(2 * width, 1.0);
        for row in wide(&x).chunks_exact(width) {
            let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = row.iter().map(|v| (v - highest).exp()).sum();
            soft.extend(row.iter().map(|v| (v - highest).exp() / total * width as f64));
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
            let scale = 1.0 / (variance + 1e-5).sqrt();
            normal.extend(
                (0..width).map(|i| (row[i] - mean) * scale * f64::from(affine[i]) + f64::from(affine[width + i])),
            );
            sums.push(row.iter().sum::<f64>());
            least.push(row.iter().copied().fold(f64::INFINITY, f64::min));
            first.push(row.iter().position(|&v| v == highest).unwrap() as u32);
        }
        let probabilities: Vec<f32> =
            tensor.softmax().unwrap().to_vec().unwrap().iter().map(|v| v * width as f32).collect();
        compare(&probabilities, &soft, Tolerance::new(2e-5)).unwrap_or_else(|e| panic!("{}: {e}", what("softmax")));
        let norm = tensor.layer_norm(&t(&affine, &[2, width], device), 1e-5).unwrap();
        close(&norm, &normal, 2e-5, &what("layer_norm"));
        close(&tensor.reduce(Reduction::Sum, 1).unwrap(), &sums, 1e-3, &what("sum"));
        close(&tensor.reduce(Reduction::Min, 1).unwrap(), &least, 0.0, &what("minimum"));
        assert_eq!(tensor.argmax(1).unwrap().to_vec_u32().unwrap(), first, "{}", what("argmax"));
        // The same along an axis that is not the last.
        let turned = tensor.transpose(&[1, 0]).unwrap();
        close(
            &turned.reduce(Reduction::Mean, 0).unwrap(),
            &sums.iter().map(|s| s / width as f64).collect::<Vec<_>>(),
            1e-6,
            &what("mean"),
        );
        assert_eq!(turned.argmax(0).unwrap().to_vec_u32().unwrap(), first, "{}", what("argmax"));
        for top_k in [None, Some(1), Some(width / 2)] {
            let options = SampleOptions { temperature: 0.7, top_k, seed: 5, position: 6, ..SampleOptions::default() };
            let [here, cpu] = [device, &Device::Cpu]
                .map(|d| t(&x, &[rows, width], d).sample(&options).unwrap().to_vec_u32().unwrap());
            assert_eq!(here, cpu, "{} with {top_k:?}", what("sample"));
        }
        // Whole numbers, whose sums are exact.
        let whole: Vec<f32> = (0..rows * width).map(|i| (i * i % 5) as f32).collect();
        let sums: Vec<f64> = wide(&whole).chunks_exact(width).map(|row| row.iter().sum()).collect();
        let tensor = t(&whole, &[rows, width], device);
        for (reverse, last) in [(false, width - 1), (true, 0)] {
            let all = tensor.cumulate(1, false, reverse).unwrap();
            close(&all.slice(1, last..last + 1).unwrap(), &sums, 0.0, &what("cumulate"));
            let before = tensor.cumulate(1, true, reverse).unwrap().slice(1, last..last + 1).unwrap();
            let want: Vec<f64> = (0..rows).map(|r| sums[r] - f64::from(whole[r * width + last])).collect();
            close(&before, &want, 0.0, &what("cumulate without the element"));
        }
        let s = Scatter::elements(&Shape::new(&[rows, 2]).unwrap(), 1, tensor.shape()).unwrap();
        let indices: Vec<i64> = (0..rows * width).map(|i| (i % width % 2) as i64).collect();
        let zeros = Tensor::zeros(&[rows, 2], DType::F32, device).unwrap();
        let got = zeros.scatter(&s, Indices::Host(&indices), &tensor, Update::Add).unwrap();
        let odd = |n: usize, row: &[f64]| row.iter().skip(n).step_by(2).sum::<f64>();
        let want: Vec<f64> = wide(&whole).chunks_exact(width).flat_map(|row| [odd(0, row), odd(1, row)]).collect();
        close(&got, &want, 0.0, &what("scatter"));
        let ids: Vec<u32> = (0..rows * width).map(|i| (i * 7 % 5) as u32).collect();
        let tall = tensor.reshape(&[rows * width, 1]).unwrap();
        let got = tall.sum_rows(&Tensor::from_u32(&ids, &[rows * width], device).unwrap(), 4).unwrap();
        let mut want = [0.0; 4];
        whole.iter().zip(&ids).for_each(|(&v, &id)| want[id.min(3) as usize] += f64::from(v));
        close(&got, &want, 0.0, &what("sum_rows"));
        // Columns that do not share the lanes of a workgroup evenly.
        let ids: Vec<u32> = (0..rows).map(|i| (i * 7 % 90) as u32).collect();
        let got = tensor.sum_rows(&Tensor::from_u32(&ids, &[rows], device).unwrap(), 90).unwrap();
        let mut want = vec![0.0; 90 * width];
        for (row, &id) in whole.chunks_exact(width).zip(&ids) {
            want[id as usize * width..][..width].iter_mut().zip(row).for_each(|(w, &v)| *w += f64::from(v));
        }
        close(&got, &want, 0.0, &what("sum_rows of rows"));
        if width <= 3 * limit {
            let [here, cpu] = [device, &Device::Cpu].map(|d| {
                let (values, places) = t(&x, &[rows, width], d).top_k(7, true).unwrap();
                (values.to_vec().unwrap(), places.to_vec_u32().unwrap())
            });
            assert_eq!(here, cpu, "{}", what("top_k"));
        }
        for at in [0, width / 2, width - 1] {
            let mut x = vec![0.5; rows * width];
            x[width + at] = 0.25;
            let mask = t(&x, &[rows, width], device).mask(0.5).unwrap();
            assert_eq!(mask.to_vec_u32().unwrap(), [0, 1, 0], "{} at {at}", what("mask"));
        }
    }
}

/// Runs every recurrent kernel with sequences longer than an invocation's loops. Returns the strategies that ran, by
/// family.
fn recurrent_kernels_obey(device: &Device) -> BTreeSet<(&'static str, &'static str)> {
    let mut ran = BTreeSet::new();
    let projected = Cell { projection: Some(7), ..Cell::LSTM };
    let normalized = Cell { layer_norm: Some(1e-5), ..Cell::GRU };
    let cells = [
        ("fused", Cell::LSTM),
        ("fused", Cell::GRU),
        ("fused", Cell::GRU_RESET_BEFORE),
        ("fused", Cell::RNN),
        ("fused", Cell::SLSTM),
        ("general", projected),
        ("general", normalized),
        ("pointwise", Cell::INDRNN),
        ("pointwise", Cell::MINLSTM),
    ];
    for (family, cell) in cells {
        for (sizes, directions) in [([3, 170, 3, 33], &BOTH[..]), ([2, 170, 40, 16], &BOTH[..1])] {
            let case = Case::random(7, cell, directions, sizes).with_states(8).with_lengths();
            let want = case.reference();
            let layer = case.layer(device);
            let strategies: BTreeSet<_> =
                layer.candidates(sizes[0], sizes[1]).unwrap().iter().map(|c| c.strategy().name()).collect();
            for strategy in [Strategy::Scan, Strategy::Step, Strategy::Grid] {
                if !strategies.contains(strategy.name()) || (strategy == Strategy::Grid && sizes[3] > 16) {
                    continue;
                }
                let (got, by) = case.run_with(&layer, strategy, None, ALL);
                assert_eq!(by, strategy, "{cell:?} {sizes:?}");
                for (got, want) in [(&got.y, &want.y), (&got.h, &want.h), (&got.c, &want.c)] {
                    if !want.is_empty() {
                        compare(got, want, Tolerance::new(2e-5))
                            .unwrap_or_else(|e| panic!("{cell:?} {sizes:?} by {}: {e}", strategy.name()));
                    }
                }
                ran.insert((family, strategy.name()));
            }
        }
    }
    ran
}

/// `stack_wave`, compared with layers run one after the other.
fn a_wave_obeys(device: &Device) {
    let cases: Vec<_> = (0..3).map(|l| Case::random(l, Cell::LSTM, &[Direction::Forward], [2, 90, 33, 33])).collect();
    let pairs: Vec<_> = cases.iter().map(|c| [(Direction::Forward, &c.directions[0].1)]).collect();
    let layers = pairs.iter().map(|p| &p[..]).collect();
    let config = RecurrentConfig { layers, ..RecurrentConfig::new(Cell::LSTM, 33, 33, &[]) };
    let mut case = cases[0].clone();
    for next in &cases[1..] {
        let below = case.reference().y;
        case = Case { x: below.iter().map(|&v| v as f32).collect(), ..next.clone() };
    }
    let want = case.reference().y;
    let stack = Recurrent::new(&config, device).unwrap();
    let x = t(&cases[0].x, &[2, 90, 33], device);
    let args = ForwardArgs { strategy: Strategy::Step, ..ForwardArgs::default() };
    let y = stack.forward(&x, &args).unwrap().y.unwrap();
    close(&y, &want, 2e-5, "stack_wave");
}

/// A device is set to end an invocation's loops after a few iterations, as lavapipe does after 65,535. Every kernel
/// still gives the right result.
#[test]
fn every_kernel_obeys_the_limit_of_loops() {
    let mut ran = BTreeSet::new();
    for limit in [150, 600] {
        let device = own_gpu();
        device.gpu().unwrap().end_loops_after(limit);
        operations_obey(&device, limit as usize);
        ran.extend(recurrent_kernels_obey(&device));
        a_wave_obeys(&device);
    }
    let all = [
        ("fused", "scan"),
        ("fused", "step"),
        ("fused", "grid"),
        ("general", "scan"),
        ("general", "step"),
        ("pointwise", "scan"),
        ("pointwise", "step"),
    ];
    assert_eq!(ran, BTreeSet::from(all));
    // The limit works: a product that does not take it into account is wrong.
    let device = own_gpu();
    let known = device.gpu().unwrap().max_loop_iterations();
    device.gpu().unwrap().end_loops_after(5);
    device.gpu().unwrap().assume_loop_limit(known);
    let x = t(&[1.0; 4096], &[2, 2048], &device);
    assert!(x.reduce(Reduction::Sum, 1).unwrap().to_vec().unwrap() != [2048.0; 2]);
}

/// A layer is refused if a single timestep takes more iterations than a loop may have.
#[test]
fn what_loops_cannot_hold_is_refused() {
    let device = own_gpu();
    device.gpu().unwrap().end_loops_after(6);
    for cell in [Cell::LSTM, Cell { layer_norm: Some(1e-5), ..Cell::LSTM }] {
        let case = Case::random(1, cell, &[Direction::Forward], [1, 3, 2, 300]);
        let x = t(&case.x, &[1, 3, 2], &device);
        for strategy in [Strategy::Auto, Strategy::Scan, Strategy::Step] {
            let args = ForwardArgs { strategy, ..ForwardArgs::default() };
            let error = case.layer(&device).forward(&x, &args).unwrap_err().to_string();
            assert!(error.contains("strategy") && error.contains("300"), "{error}");
        }
    }
}

/// Sizes at which real software rasterisers failed.
#[test]
fn long_rows_on_every_device() {
    for device in devices() {
        for (m, k) in [(1, 4_194_305), (16, 1_048_576)] {
            let x = Tensor::full(&[m, k], 0.25, DType::F32, &device).unwrap();
            let w = Tensor::full(&[2, k], 0.75, DType::F32, &device).unwrap();
            let y = x.matmul_with(&w, &MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() }).unwrap();
            close(&y, &vec![k as f64 * 0.1875; 2 * m], 1e-6, &format!("[{m}, {k}] × [2, {k}]ᵀ on {device}"));
        }
        let n = 1_398_000;
        let mut x = vec![1.0; n];
        let soft = t(&x, &[n], &device).softmax().unwrap().to_vec().unwrap();
        let want = 1.0 / n as f32;
        assert!(soft.iter().all(|v| (v - want).abs() < 1e-5 * want), "softmax on {device}");
        x[n - 1] = 30.0;
        let logits = t(&x, &[1, n], &device);
        assert_eq!(logits.argmax(1).unwrap().to_vec_u32().unwrap(), [n as u32 - 1], "argmax on {device}");
        for top_k in [None, Some(7)] {
            let options = SampleOptions { temperature: 0.5, top_k, seed: 1, position: 2, ..SampleOptions::default() };
            assert_eq!(logits.sample(&options).unwrap().to_vec_u32().unwrap(), [n as u32 - 1], "sample on {device}");
        }
        let mask = t(&x, &[1, n], &device).mask(1.0).unwrap();
        assert_eq!(mask.to_vec_u32().unwrap(), [1], "mask on {device}");
    }
}

/// Sums are within their stated bounds: more ones than f32 can count one by one, and alternating magnitudes.
#[test]
fn sums_stay_within_their_bound() {
    let n = 1usize << 25;
    let unit = 2f64.powi(-24);
    let mut r = Random(5);
    let alternating: Vec<f32> = (0..1_000_003)
        .map(|i| [1e6, 1.0, -1e6, 1e-3, 3e5, -1.0][i % 6] * (1.0 + r.below(1000) as f32 * 1e-3))
        .collect();
    let exact: f64 = alternating.iter().map(|&v| f64::from(v)).sum();
    let magnitude: f64 = alternating.iter().map(|&v| f64::from(v.abs())).sum();
    for device in devices() {
        let ones = Tensor::full(&[n], 1.0, DType::F32, &device).unwrap();
        assert_eq!(ones.reduce(Reduction::Sum, 0).unwrap().to_vec().unwrap(), [n as f32], "{device}");
        assert_eq!(ones.reduce(Reduction::Mean, 0).unwrap().to_vec().unwrap(), [1.0], "{device}");
        let levels = (alternating.len() as f64).log(128.0).ceil();
        let bound = if device == Device::Cpu { 2.0 * unit } else { 20.0 * levels * unit } * magnitude;
        let x = t(&alternating, &[alternating.len()], &device);
        within(&x.reduce(Reduction::Sum, 0).unwrap(), &[exact], bound, &format!("sum on {device}"));
        let mean = exact / alternating.len() as f64;
        let bound = bound / alternating.len() as f64;
        within(&x.reduce(Reduction::Mean, 0).unwrap(), &[mean], bound, &format!("mean on {device}"));
        // The error of long products is at most 2¹⁶ + k / 2¹⁶ roundings of the magnitudes of their terms.
        let k = alternating.len();
        let w = Tensor::full(&[2, k], 1.0, DType::F32, &device).unwrap();
        let options = MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() };
        let y = t(&alternating, &[1, k], &device).matmul_with(&w, &options).unwrap();
        within(&y, &[exact; 2], (65_536.0 + 16.0) * unit * magnitude, &format!("product on {device}"));
    }
}

/// Recorded work is submitted when it reaches the limit, in dispatches below the limit; results do not change.
#[test]
fn a_submission_holds_no_more_work_than_its_device_takes() {
    let device = own_gpu();
    let gpu = device.gpu().unwrap();
    let side = 256;
    let x = Tensor::full(&[side, side], 1.0 / side as f32, DType::F32, &device).unwrap();
    device.synchronize().unwrap();
    let before = gpu.work_counts();
    gpu.limit_work(1 << 24);
    // 2²⁴ multiply-adds each.
    let mut y = x.clone();
    for _ in 0..9 {
        y = y.matmul(&x).unwrap();
    }
    let after = gpu.work_counts();
    assert_eq!((after.0 - before.0, after.1 - before.1), (9, 8));
    assert!(y.to_vec().unwrap().iter().all(|&v| (v - 1.0 / side as f32).abs() < 1e-6));
    // One product in many parts: by rows, columns and matrices of a batch.
    gpu.limit_work(1 << 20);
    let mut r = Random(9);
    for (batch, m, k, n) in [(1, 300, 64, 700), (9, 70, 60, 70), (1, 5, 200, 900), (5, 1, 3000, 400)] {
        let (a, b) = (r.floats(batch * m * k, 1.0), r.floats(batch * n * k, 1.0));
        let want: Vec<f64> = (0..batch)
            .flat_map(|z| {
                let (a, b) = (wide(&a[z * m * k..][..m * k]), wide(&b[z * n * k..][..n * k]));
                reference::matmul(&a, &b, &[], [m, k, n], Activation::Linear)
            })
            .collect();
        let dims = |rows: usize| if batch == 1 { vec![rows, k] } else { vec![batch, rows, k] };
        let (x, w) = (t(&a, &dims(m), &device), t(&b, &dims(n), &device));
        let turned = w.transpose(if batch == 1 { &[1, 0] } else { &[0, 2, 1] }).unwrap();
        let before = gpu.work_counts().0;
        for (transpose_rhs, rhs) in [(true, &w), (false, &turned)] {
            let y = x.matmul_with(rhs, &MatmulOptions { transpose_rhs, ..MatmulOptions::default() }).unwrap();
            close(&y, &want, 1e-3, &format!("{batch}×{m}×{k}×{n} {transpose_rhs}"));
        }
        let work = batch * m * k * n;
        assert!(gpu.work_counts().0 - before >= 2 * (work >> 20) as u64, "{batch}×{m}×{k}×{n}");
    }
    // A sequence of many rows with `scan`.
    let case = Case::random(3, Cell::LSTM, &BOTH, [9, 20, 3, 33]).with_states(4);
    case.check(&case.reference(), &device, Strategy::Scan, ALL, Tolerance::new(3e-6));
}

/// What does not fit in memory is an error that says how much is needed and what to lower. Nothing has changed then, and
/// the device goes on.
#[test]
fn lack_of_memory_on_a_device() {
    let device = own_gpu();
    let gpu = device.gpu().unwrap();
    assert_eq!(gpu.memory_limit(), None);
    let layers = Sequential::new().add(Lstm::new(32)).add(Dense::new(1));
    let on = |device: &Device| {
        let network = layers.build(&[None, None, Some(4)], device).unwrap();
        let training = Training::new(&network, StepOptions::new(Loss::mean_squared_error(), Adam::keras())).unwrap();
        (network, training)
    };
    let (network, mut training) = on(&device);
    let (_, mut unlimited) = on(&Device::Cpu);
    let batch = |samples: usize, device: &Device| {
        let x = Tensor::rand_uniform(&[samples, 50, 4], -1.0..1.0, 1, device).unwrap();
        (x, Tensor::rand_uniform(&[samples, 1], -1.0..1.0, 2, device).unwrap())
    };
    let step = |training: &mut Training, (x, y): &(Tensor, Tensor)| training.step(&Batch::new(&[x], &[y]));
    let loss =
        |training: &mut Training, batch: &(Tensor, Tensor)| step(training, batch).unwrap().loss.to_vec().unwrap()[0];
    let (few, many) = (batch(2, &device), batch(512, &device));
    let expected: Vec<f32> = [2, 2, 512].iter().map(|&n| loss(&mut unlimited, &batch(n, &Device::Cpu))).collect();
    let mut losses = vec![loss(&mut training, &few)];

    device.trim();
    let limit = gpu.bytes_held() + (4 << 20);
    gpu.set_memory_limit(Some(limit));
    let lacks = |source: &TensorError, text: String, advice: &str| {
        let &TensorError::OutOfMemory { bytes, in_use, limit: Some(found), .. } = source else { panic!("{source}") };
        assert!(found == limit && in_use <= limit && in_use + bytes > limit, "{source}");
        for part in ["[512, 50, 4]", &bytes.to_string(), &limit.to_string(), "batch size", "timesteps", advice] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(gpu.bytes_held() <= limit);
    };
    for _ in 0..3 {
        match step(&mut training, &many) {
            Err(e @ TrainError::OutOfMemory { .. }) => {
                let TrainError::OutOfMemory { source, .. } = &e else { unreachable!() };
                lacks(source, e.to_string(), "accumulate");
            }
            other => panic!("{other:?}"),
        }
        match network.forward(&many.0) {
            Err(e @ LayerError::OutOfMemory { .. }) => {
                let LayerError::OutOfMemory { source, .. } = &e else { unreachable!() };
                lacks(source, e.to_string(), "forward_from");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(training.steps(), 1);
    losses.push(loss(&mut training, &few));
    network.forward(&few.0).unwrap();
    gpu.set_memory_limit(None);
    losses.push(loss(&mut training, &many));
    compare(&losses, &wide(&expected), Tolerance::new(1e-4)).unwrap();
    assert_eq!(network.forward(&many.0).unwrap().dims(), [512, 1]);

    // On the CPU lack of memory is as much an error: gates of 2⁴⁶ numbers.
    let (n, cpu) = (1 << 23, Device::Cpu);
    let network = Sequential::new().add(IndRnn::new(n)).build(&[None, None, Some(1)], &cpu).unwrap();
    let x = Tensor::zeros(&[1, n, 1], DType::F32, &cpu).unwrap();
    let mut training = Training::new(&network, StepOptions::new(Loss::mean_squared_error(), Sgd::keras())).unwrap();
    let y = Tensor::zeros(&[1, n], DType::F32, &cpu).unwrap();
    for _ in 0..2 {
        let e = step(&mut training, &(x.clone(), y.clone())).unwrap_err();
        assert!(matches!(e, TrainError::OutOfMemory { .. }), "{e}");
    }
}

/// The same where the memory of a GPU is really full.
#[test]
#[ignore = "fills the memory of a hardware GPU"]
fn lack_of_memory_on_a_full_device() {
    let device = own_gpu();
    let gpu = device.gpu().unwrap();
    assert!(!gpu.is_software(), "{device} has the memory of this machine");
    let network =
        Sequential::new().add(Lstm::new(64)).add(Dense::new(1)).build(&[None, None, Some(8)], &device).unwrap();
    let options = StepOptions::new(Loss::mean_squared_error(), Adam::keras());
    let mut training = Training::new(&network, options).unwrap();
    let y = Tensor::zeros(&[256, 1], DType::F32, &device).unwrap();
    let x = Tensor::rand_uniform(&[256, 1000, 8], -1.0..1.0, 1, &device).unwrap();
    let mut all = Vec::new();
    for mib in [1024, 64, 8, 1] {
        let e = loop {
            match Tensor::full(&[mib << 18], 1.0, DType::F32, &device) {
                Ok(t) => all.push((mib, t)),
                Err(e) => break e,
            }
        };
        let sum: u64 = all.iter().map(|(mib, _)| (*mib as u64) << 20).sum();
        println!("{sum} bytes in {} tensors: {e}", all.len());
        assert!(matches!(e, TensorError::OutOfMemory { bytes, in_use, limit: None, .. } if bytes > 0 && in_use >= sum));
    }
    for _ in 0..3 {
        let e = training.step(&Batch::new(&[&x], &[&y])).unwrap_err();
        println!("{e}");
        assert!(matches!(e, TrainError::OutOfMemory { .. }), "{e}");
        let e = network.forward(&x).unwrap_err();
        println!("{e}");
        assert!(matches!(e, LayerError::OutOfMemory { .. }), "{e}");
    }
    let (_, kept) = all.swap_remove(0);
    all.clear();
    assert_eq!(kept.slice(0, 7..9).unwrap().to_vec().unwrap(), [1.0; 2]);
    assert!(training.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0].is_finite());
    assert_eq!(network.forward(&x).unwrap().dims(), [256, 1]);
}

/// Uploads do not accumulate in memory until something is read.
#[test]
#[cfg(target_os = "linux")]
fn uploads_are_submitted_by_bytes() {
    let resident = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    };
    // Runs alone in a process, because it measures the peak memory of the process.
    if std::env::var_os("RECURVE_TEST_ALONE").is_none() {
        return alone("uploads_are_submitted_by_bytes", &[]);
    }
    let device = own_gpu();
    let x = vec![1.0; 4 << 20];
    let sum = |x: &Tensor| x.reduce(Reduction::Max, 0).unwrap().to_vec().unwrap();
    assert_eq!(sum(&t(&x, &[x.len()], &device)), [1.0]);
    let before = resident();
    let mut last = None;
    for _ in 0..100 {
        last = Some(t(&x, &[x.len()], &device));
    }
    let grown = resident() - before;
    assert_eq!(sum(&last.unwrap()), [1.0]);
    // 1.6 GB in total are uploaded; in memory are only the pending uploads, those on their way, and two tensors.
    assert!(grown < 500 << 20, "{} MiB more", grown >> 20);
    // A single upload larger than the limit.
    let x: Vec<f32> = (0..25 << 20).map(|n| (n % 1000) as f32).collect();
    let back = t(&x, &[x.len()], &device).to_vec().unwrap();
    assert!(back == x);
}

/// Runs a test of this file in a separate process.
fn alone(name: &str, variables: &[(&str, &std::path::Path)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--include-ignored"]).env("RECURVE_TEST_ALONE", "1");
    let out = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

/// `grid` is refused if it needs more workgroups at the same time than the probe saw. If the probe saw enough and they
/// still do not run at the same time, the call ends with `step`, and later calls are refused.
#[test]
fn grid_obeys_the_probe_and_remembers_that_it_gave_up() {
    let device = own_gpu();
    let gpu = device.gpu().unwrap();
    let case = Case::random(70, Cell::RNN, &[Direction::Forward], [2, 40, 3, 1000]).with_states(71);
    let want = case.reference();
    let x = t(&case.x, &[2, 40, 3], &device);
    let args = ForwardArgs { strategy: Strategy::Grid, ..ForwardArgs::default() };
    let refused = || case.layer(&device).forward(&x, &args).unwrap_err().to_string();
    gpu.assume_concurrent_workgroups(62);
    assert!(refused().contains("63 workgroups") && refused().contains("62"), "{}", refused());
    // The same for candidates.
    let layer = case.layer(&device);
    assert!(layer.candidates(2, 40).unwrap().iter().all(|c| c.strategy() != Strategy::Grid || needs_fewer(c)));
    gpu.assume_concurrent_workgroups(256);
    let (got, by) = case.run_with(&case.layer(&device), Strategy::Grid, None, ALL);
    compare(&got.y, &want.y, Tolerance::new(2e-5)).unwrap();
    compare(&got.h, &want.h, Tolerance::new(2e-5)).unwrap();
    match by {
        // A software rasteriser has fewer threads than workgroups.
        Strategy::Step => {
            assert!(gpu.concurrent_workgroups().unwrap() < 63);
            assert!(refused().contains("63 workgroups"));
        }
        by => assert!(by == Strategy::Grid && device.name() != "llvmpipe"),
    }
    // A single workgroup waits for no other.
    let small = Case::random(72, Cell::LSTM, &[Direction::Forward], [2, 9, 3, 16]);
    assert_eq!(small.run_with(&small.layer(&device), Strategy::Grid, None, ALL).1, Strategy::Grid);
}

/// Whether a candidate needs fewer workgroups than a layout with 32 units each.
fn needs_fewer(c: &recurve::Candidate) -> bool {
    c.to_string().contains("units 32")
}

/// Several threads tune the same shape: one measures, the others use its choice.
#[test]
fn one_thread_measures_and_the_others_wait() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tuning.tsv");
    // An incomplete line is not a choice, and does not damage the next line.
    std::fs::write(&file, "begun").unwrap();
    alone("tuning_by_eight_threads", &[("RECURVE_TUNING_FILE", &file)]);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(text.starts_with("begun\n") && text.ends_with('\n'), "{text}");
    assert_eq!(lines.iter().filter(|l| l.contains("gru f32 I3 H12 D1 B1 T8")).count(), 1, "{text}");
    assert_eq!(lines.iter().filter(|l| l.contains("rnn f32 I3 H12 D1 B1 T8")).count(), 1, "{text}");
    assert_eq!(lines.len(), 3, "{text}");
}

#[test]
#[ignore = "run by `one_thread_measures_and_the_others_wait`, in a process with a tuning file of its own"]
fn tuning_by_eight_threads() {
    let device = gpu();
    std::thread::scope(|s| {
        for n in 0..8 {
            let device = device.clone();
            s.spawn(move || {
                let cell = if n % 2 == 0 { Cell::GRU } else { Cell::RNN };
                let case = Case::random(1, cell, &[Direction::Forward], [1, 8, 3, 12]);
                let x = t(&case.x, &[1, 8, 3], &device);
                let layer = case.layer(&device);
                layer.tune(1, 8).unwrap();
                let out = layer.forward(&x, &ForwardArgs::default()).unwrap();
                close(&out.y.unwrap(), &case.reference().y, 2e-5, "tuned");
            });
        }
    });
}

/// Threads share a sequence on a machine whose cores are busy, with more threads than cores: the result is that of one
/// thread.
#[test]
fn more_threads_than_cores_give_the_same_bits() {
    let case =
        Case::random(43, Cell { kind: CellKind::Lstm { coupled: false }, ..Cell::LSTM }, &BOTH[..1], [1, 200, 4, 256]);
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.run(&Device::Cpu, Strategy::Auto, ALL).y)
    };
    let alone = in_pool(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for threads in [2, 3, 4, 16, 64] {
            for _ in 0..3 {
                let same = in_pool(threads) == alone;
                if !same {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                assert!(same, "{threads} threads");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
