//! Every kernel is run and its result compared. The match below has an arm for each kernel, so a new kernel does not
//! compile without one, and the device's counters show whether the call dispatched the kernel.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, AdapterKind, Cell, DType, Device, Direction, MatmulOptions, Reduction, SampleOptions, Shape, Strategy,
    Tensor,
};
use recurve_reference as reference;
use recurve_shaders::{Fused, SHADERS, Shader};
use recurve_tensor::{CtcRule, Decay, Descent, Function};
use recurve_tensor::{Indices, Scatter, Take, Update};
use recurve_tensor::{Noise, Normalization, Pooling, Window};
use recurve_tests::fuzz::{Choice, Plan};
use recurve_tests::training::TrainingCase;
use recurve_tests::{Case, Random, gpu, wide};

/// The result of a call: it ran and was right, or the reason why this adapter never runs the kernel.
type Outcome = Result<(), &'static str>;

fn recurrent(cell: Cell, strategy: Strategy, timesteps: usize, device: &Device) -> Outcome {
    let both = [Direction::Forward, Direction::Reverse];
    let case = Case::random(5, cell, &both, [3, timesteps, 4, 33]).with_states(6).with_lengths();
    // Layer normalization divides by a standard deviation that may be small.
    let tolerance = Tolerance::new(if cell.layer_norm.is_some() { 2e-5 } else { 3e-6 });
    case.check(&case.reference(), device, strategy, 64 << 20, tolerance);
    Ok(())
}

fn grid(cell: Cell, device: &Device) -> Outcome {
    let case = Case::random(5, cell, &[Direction::Forward], [1, 7, 4, 16]).with_states(6);
    let layer = case.layer(device);
    let layout = layer.candidates(1, 7).unwrap().into_iter().find(|c| c.strategy() == Strategy::Grid);
    let layout = layout.ok_or("no workgroups were seen to run together")?;
    let (got, by) = case.run_with(&layer, Strategy::Auto, Some(layout), 64 << 20);
    assert_eq!(by, Strategy::Grid);
    compare(&got.y, &case.reference().y, Tolerance::new(3e-6)).unwrap();
    Ok(())
}

/// Runs a kernel and compares its result. `cell` matters for kernels that include a cell's snippet.
fn call(kernel: Shader, cell: Cell, device: &Device) -> Outcome {
    let mut r = Random(7);
    let x = r.floats(5 * 70, 2.0);
    let t = |data: &[f32], dims: &[usize]| Tensor::from_f32(data, dims, device).unwrap();
    let a = t(&x, &[5, 70]);
    let near = |y: Tensor, want: &[f64]| {
        compare(&y.to_vec().unwrap(), want, Tolerance::new(1e-5)).unwrap();
        Ok(())
    };
    let gpu = device.gpu().expect("a GPU");
    let norm = |cell| Cell { layer_norm: Some(1e-3), ..cell };
    match kernel {
        Shader::Binary => near(a.add(&a).unwrap(), &wide(&x).iter().map(|v| 2.0 * v).collect::<Vec<_>>()),
        Shader::Conv => {
            // One channel, 3 filters over neighbours.
            let w = [1.0, -2.0, 0.5, 0.0, 1.0, 0.0, 3.0, 1.0, 1.0];
            let y = t(&x, &[5, 1, 70]).conv(&t(&w, &[3, 1, 3]), None, &[Window::new(3)], 1).unwrap();
            let want = |n: usize| {
                let (row, filter, at) = (n / (3 * 68), n / 68 % 3, n % 68);
                (0..3).map(|k| f64::from(x[row * 70 + at + k]) * f64::from(w[filter * 3 + k])).sum::<f64>()
            };
            near(y, &(0..5 * 3 * 68).map(want).collect::<Vec<_>>())
        }
        Shader::Copy => {
            let turned: Vec<f64> = (0..350).map(|n| x[n % 5 * 70 + n / 5].into()).collect();
            near(a.transpose(&[1, 0]).unwrap(), &turned)
        }
        Shader::CrossEntropy => {
            let labels = [3, 69, 0, 70, 12];
            let y = Tensor::from_u32(&labels, &[5], device).unwrap();
            let (values, sums) = a.cross_entropy(&y, 0.1).unwrap();
            let ones = Tensor::full(&[5], 1.0, DType::F32, device).unwrap();
            let gradient = a.cross_entropy_gradient(&y, [&sums, &ones], 0.1).unwrap();
            let p = reference::softmax(&wide(&x), 70);
            let wanted = |row: usize, c: usize| 0.1 / 70.0 + if labels[row] as usize == c { 0.9 } else { 0.0 };
            let want: Vec<f64> = (0..350).map(|n| p[n] - wanted(n / 70, n % 70)).collect();
            near(gradient, &want)?;
            let values = values.to_vec().unwrap();
            for (row, p) in p.chunks_exact(70).enumerate() {
                let want = -(0..70).map(|c| wanted(row, c) * p[c].ln()).sum::<f64>();
                // The fourth label is no class.
                assert!(if row == 3 { values[3].is_nan() } else { (f64::from(values[row]) - want).abs() < 1e-5 });
            }
            Ok(())
        }
        Shader::CtcGradient | Shader::CtcLabels | Shader::CtcPaths => {
            // One sequence of five timesteps; the f64 gradient is that of the definition.
            let rule = CtcRule { blank: 2, from_logits: true, zero_infinity: false };
            let (t, labels) = (a.reshape(&[1, 5, 70]).unwrap(), [7usize, 7, 30]);
            let y = Tensor::from_u32(&labels.map(|l| l as u32), &[1, 3], device).unwrap();
            let (losses, paths) = t.ctc(&y, None, rule).unwrap();
            let ones = Tensor::full(&[1], 1.0, DType::F32, device).unwrap();
            let gradient = t.ctc_gradient(&y, None, rule, [&losses, &paths, &ones]).unwrap();
            fn loss<R: reference::Real>(x: &[R]) -> R {
                let (labels, valid) = (&[7, 7, 30], &[true; 5]);
                reference::ctc(&reference::Ctc { x, classes: 70, labels, valid, blank: 2, from_logits: true })
            }
            near(losses, &[loss(&wide(&x))])?;
            near(gradient, &reference::gradient(&wide(&x), |vars| vec![(loss(vars), 1.0)]))
        }
        Shader::Cumulate => {
            let sums = |row: &[f64]| row.iter().scan(0.0, |sum, v| (*sum += v, Some(*sum)).1).collect::<Vec<_>>();
            let want: Vec<f64> = wide(&x).chunks_exact(70).flat_map(sums).collect();
            near(a.cumulate(1, false, false).unwrap(), &want)
        }
        Shader::Fill => near(Tensor::full(&[300], 2.5, DType::F32, device).unwrap(), &[2.5; 300]),
        Shader::Function => near(a.map(Function::Exp).unwrap(), &wide(&x).iter().map(|v| v.exp()).collect::<Vec<_>>()),
        Shader::Gather => {
            let ids = Tensor::from_u32(&[4, 0, 2], &[3], device).unwrap();
            near(a.gather(&ids).unwrap(), &wide(&[&x[280..350], &x[..70], &x[140..210]].concat()))
        }
        Shader::GeneralScan => recurrent(norm(Cell::LSTM), Strategy::Scan, 5, device),
        Shader::GeneralStep => recurrent(norm(Cell::GRU), Strategy::Step, 5, device),
        Shader::Grid => grid(cell, device),
        Shader::GridProbe => {
            assert!(gpu.concurrent_workgroups().unwrap() >= 1);
            Ok(())
        }
        Shader::LayerNorm => {
            let affine = r.floats(140, 1.0);
            let mut want = wide(&x);
            want.chunks_exact_mut(70).for_each(|row| reference::layer_norm(row, &wide(&affine), 1e-3));
            near(a.layer_norm(&t(&affine, &[2, 70]), 1e-3).unwrap(), &want)
        }
        // Several blocks of 32 timesteps, so that prefixes are passed from block to block.
        Shader::LinearCarry => recurrent(Cell::MINGRU, Strategy::Scan, 100, device),
        Shader::LinearScan => recurrent(Cell::MINLSTM, Strategy::Scan, 5, device),
        Shader::LoopProbe if gpu.summary().kind != AdapterKind::Software => Err("only software is probed for loops"),
        Shader::LoopProbe => {
            assert!(gpu.max_loop_iterations() >= 1 << 10);
            Ok(())
        }
        Shader::Mask => {
            let ids = Tensor::from_u32(&[0, 5, 0, 7], &[2, 2], device).unwrap();
            assert_eq!(ids.mask(0.0).unwrap().to_vec_u32().unwrap(), [0, 1, 0, 1]);
            Ok(())
        }
        Shader::Matmul => {
            let w = r.floats(70 * 33, 1.0);
            let transposed: Vec<f32> = (0..33 * 70).map(|i| w[i % 70 * 33 + i / 70]).collect();
            let want = reference::matmul(&wide(&x), &wide(&transposed), &[], [5, 70, 33], Activation::Linear);
            near(a.matmul(&t(&w, &[70, 33])).unwrap(), &want)
        }
        Shader::MatmulDirect if !gpu.is_software() => Err("only software multiplies without workgroup memory"),
        Shader::MatmulDirect | Shader::Matvec => {
            let rows = if kernel == Shader::Matvec { 1 } else { 5 };
            let w = r.floats(33 * 70, 1.0);
            let want = reference::matmul(&wide(&x[..rows * 70]), &wide(&w), &[], [rows, 70, 33], Activation::Linear);
            let options = MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() };
            near(t(&x[..rows * 70], &[rows, 70]).matmul_with(&t(&w, &[33, 70]), &options).unwrap(), &want)
        }
        Shader::Noise => {
            let draw = |device: &Device, noise| {
                let seed = Tensor::from_u32(&[11, 5], &[2], device).unwrap();
                Tensor::noise(&[7, 43], noise, &seed, 3).unwrap()
            };
            for noise in [Noise::Dropout { rate: 0.3 }, Noise::Bernoulli { rate: 0.3 }, Noise::Uniform] {
                assert_eq!(draw(device, noise).to_vec().unwrap(), draw(&Device::Cpu, noise).to_vec().unwrap());
            }
            near(draw(device, Noise::Normal), &wide(&draw(&Device::Cpu, Noise::Normal).to_vec().unwrap()))
        }
        Shader::Normalize => {
            let how = Normalization { width: 70, centered: true, epsilon: 1e-3, scale: None, offset: None, inner: 1 };
            let affine = [vec![1.0; 70], vec![0.0; 70]].concat();
            let mut want = wide(&x);
            want.chunks_exact_mut(70).for_each(|row| reference::layer_norm(row, &affine, 1e-3));
            near(a.normalize(&how).unwrap().y, &want)
        }
        Shader::Pool => {
            let pairs = Window { stride: 2, ..Window::new(2) };
            let y = t(&x, &[1, 5, 70]).pool(Pooling::Max, &[pairs], &[35]).unwrap();
            near(y, &wide(&x).chunks_exact(2).map(|p| p[0].max(p[1])).collect::<Vec<_>>())
        }
        Shader::Peak => {
            assert!(device.peak_flops().unwrap() > 1e7);
            Ok(())
        }
        Shader::PointwiseScan => recurrent(Cell::INDRNN, Strategy::Scan, 5, device),
        Shader::Reduce => {
            let sums: Vec<f64> = wide(&x).chunks_exact(70).map(|row| row.iter().sum()).collect();
            near(a.reduce(Reduction::Sum, 1).unwrap(), &sums)
        }
        Shader::Sample => {
            let logits = t(&[0.0, 50.0, 0.0, 50.0, 0.0, 0.0], &[2, 3]);
            let o = SampleOptions { temperature: 1.0, top_k: None, seed: 1, position: 0, ..SampleOptions::default() };
            assert_eq!(logits.sample(&o).unwrap().to_vec_u32().unwrap(), [1, 0]);
            Ok(())
        }
        Shader::Scan => recurrent(cell, Strategy::Scan, 5, device),
        Shader::Scatter => {
            let s = Scatter::tuples(a.shape(), &Shape::new(&[2, 1]).unwrap()).unwrap();
            let updates = a.slice(0, 0..2).unwrap();
            let mut want = wide(&x);
            (0..70).for_each(|i| (want[210 + i], want[70 + i]) = (want[i], want[70 + i]));
            near(a.scatter(&s, Indices::Host(&[3, 1]), &updates, Update::Replace).unwrap(), &want)
        }
        Shader::Take => {
            let take = Take::along(a.shape(), 1, &Shape::new(&[2]).unwrap()).unwrap();
            let want: Vec<f64> = wide(&x).chunks_exact(70).flat_map(|row| [row[69], row[3]]).collect();
            near(a.take(&take, Indices::Host(&[69, 3]), f32::NAN).unwrap(), &want)
        }
        Shader::TopK => {
            let mut want = wide(&x);
            want.chunks_exact_mut(70).for_each(|row| row.sort_by(|a, b| b.total_cmp(a)));
            let best: Vec<f64> = want.chunks_exact(70).flat_map(|row| row[..3].to_vec()).collect();
            near(a.top_k(3, true).unwrap().0, &best)
        }
        Shader::Select => {
            let condition = t(&[1.0, 0.0, 0.0, -2.0, f32::NAN], &[5, 1]);
            let zero = t(&[0.0], &[]);
            let want: Vec<f64> = wide(&x)
                .chunks(70)
                .zip([1.0, 0.0, 0.0, 1.0, 1.0])
                .flat_map(|(row, c)| row.iter().map(move |v| v * c))
                .collect();
            near(condition.select(&a, &zero).unwrap(), &want)
        }
        Shader::Slope => {
            let f = Activation::Elu { alpha: 0.5 };
            let y = a.activation(f).unwrap();
            near(
                a.activation_gradient(&y, f).unwrap(),
                &wide(&x).iter().map(|&v| v * reference::slope(f, v)).collect::<Vec<_>>(),
            )
        }
        Shader::SumRows | Shader::SumRuns => {
            let ids = Tensor::from_u32(&[4, 0, 2, 0, 9], &[5], device).unwrap();
            let mut want = vec![0.0; 350];
            for (row, id) in wide(&x).chunks_exact(70).zip([4, 0, 2, 0, 4]) {
                want[id * 70..][..70].iter_mut().zip(row).for_each(|(o, v)| *o += v);
            }
            near(a.sum_rows(&ids, 5).unwrap(), &want)
        }
        Shader::Update => {
            let (rule, g) = (Descent::Moments { amsgrad: true }, r.floats(350, 1.0));
            let rates = [0.1, 0.1, 0.01, 0.02, 1.5, 1e-3, 0.0, 0.0];
            let states = [&x, &x, &x].map(|s| s.iter().map(|v| v.abs()).collect::<Vec<_>>());
            let tensors = states.iter().map(|s| t(s, &[5, 70])).collect();
            let new = t(&x, &[5, 70]).descend(&t(&g, &[5, 70]), tensors, &t(&rates, &[8]), rule, Decay::Gradient);
            let new = new.unwrap();
            let want = (0..350).map(|n| {
                let mut s = [0, 1, 2].map(|k| f64::from(states[k][n]));
                let w =
                    reference::descend(rule, Decay::Gradient, &rates.map(f64::from), x[n].into(), g[n].into(), &mut s);
                [w, s[0], s[1], s[2]]
            });
            let want: Vec<[f64; 4]> = want.collect();
            new.into_iter()
                .enumerate()
                .try_for_each(|(k, new)| near(new, &want.iter().map(|all| all[k]).collect::<Vec<_>>()))
        }
        Shader::Softmax => near(a.softmax().unwrap(), &reference::softmax(&wide(&x), 70)),
        Shader::StackWave => {
            let plan: Plan = WAVE.parse().unwrap();
            let report = plan.check(device, Choice::Named("step")).expect("a plan that can be compared");
            assert!(report.faults.is_empty() && report.passed == 1, "{report:?}");
            Ok(())
        }
        Shader::Step => recurrent(cell, Strategy::Step, 5, device),
        Shader::SubgroupProbe => match gpu.has_neighbour_sums() {
            true => Ok(()),
            // Without subgroups of eight lanes the probe does not run.
            false => Err("lanes are not known to be neighbours"),
        },
        Shader::TrainBackward
        | Shader::TrainForward
        | Shader::TrainInput
        | Shader::TrainNorm
        | Shader::TrainScan
        | Shader::TrainScanBack => {
            let both = [Direction::Forward, Direction::Reverse];
            let cell = if kernel.stem().starts_with("train_scan") { Cell::LSTM } else { norm(Cell::LSTM) };
            let mut case = TrainingCase::random(5, cell, &both, [3, 5, 4, 33]);
            case.case = case.case.with_states(6).with_lengths();
            for ((name, got), (_, want)) in case.run(device).unwrap().iter().zip(case.reference()) {
                let largest = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                let far = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
                assert!(far < 1e-4 * largest, "{name}: {far}");
            }
            Ok(())
        }
        Shader::Unary => near(
            a.activation(Activation::Sigmoid).unwrap(),
            &wide(&x).iter().map(|&v| reference::activate(Activation::Sigmoid, v)).collect::<Vec<_>>(),
        ),
    }
}

/// A plan with three stacked GRUs.
const WAVE: &str = r#"{"seed":1,"door":"layer","sizes":[3,5,4,33],"layers":3,"directions":"forward","cell":{"kind":"gru","recurrent_activation":{"name":"sigmoid"},"activation":{"name":"tanh"},"output_activation":{"name":"tanh"}},"bias":"double","storage":"f32","scale":1.0,"states":true,"valid":"lengths","repeat":false,"time_major":false,"reading_order":false,"last":false,"chunk":0}"#;

/// Every kernel; those with a snippet once for each cell; and the names of their pipelines.
fn all() -> Vec<(Shader, Cell, &'static str)> {
    let of_cells = |cell: Cell| {
        let fused = Fused::of(cell.kind).expect("a cell with a snippet");
        let [scan, step, grid] = fused.names;
        let grid = (!fused.exchanges()).then_some((Shader::Grid, cell, grid));
        [(Shader::Scan, cell, scan), (Shader::Step, cell, step)].into_iter().chain(grid)
    };
    let alone = SHADERS.iter().filter(|s| !matches!(s, Shader::Scan | Shader::Step | Shader::Grid));
    alone.map(|&s| (s, Cell::LSTM, s.stem())).chain(Fused::CELLS.into_iter().flat_map(of_cells)).collect()
}

#[test]
fn every_kernel_is_dispatched_by_a_call_that_is_compared() {
    let (mut run, mut skipped) = (0, Vec::new());
    let all = all();
    for &(kernel, cell, name) in &all {
        // A separate device, so that other tests' dispatches are not counted.
        let device = Device::by_name(&format!("{}:{}", gpu().backend(), gpu().name())).unwrap();
        match call(kernel, cell, &device) {
            Ok(()) => {
                let counts = device.gpu().unwrap().dispatches_by_kernel();
                assert!(counts.get(name).is_some_and(|&n| n > 0), "{name}: the call for it dispatched only {counts:?}");
                run += 1;
            }
            Err(why) => skipped.push((name, why)),
        }
    }
    println!("{run} kernels run; not on this adapter: {skipped:?}");
    for (name, why) in &skipped {
        assert!(name.ends_with("_grid") || name.ends_with("_probe"), "{name} was not run: {why}");
    }
    assert_eq!(run + skipped.len(), all.len());
}
