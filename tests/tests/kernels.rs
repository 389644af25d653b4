//! The recurrent kernels against the f64 reference: `lstm_scan`, `lstm_step`, `gru_scan`,
//! `gru_step`, `rnn_scan`, `rnn_step` and their CPU twins.

use recurve::testing::{Tolerance, compare};
use recurve::{Activation, Cell, CellKind, Device, Direction, ForwardArgs, Outputs, Strategy, Tensor};
use recurve_tests::{Case, Random, compare_f32, gpu, paths, wide};

const ALL: usize = 64 << 20;
const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

fn cells() -> [Cell; 5] {
    let coupled = Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM };
    [Cell::RNN, Cell::LSTM, coupled, Cell::GRU, Cell::GRU_RESET_BEFORE]
}

/// Bytes of the projection of two timesteps, so that a sequence takes many chunks.
fn two_steps(case: &Case) -> usize {
    let [b, _, _, h] = case.sizes;
    2 * case.directions.len() * b * case.cell.kind.gates() * h * 4
}

fn check(case: &Case, tolerance: Tolerance) {
    let want = case.reference();
    for (device, strategy) in paths() {
        for budget in [ALL, two_steps(case)] {
            case.check(&want, &device, strategy, budget, tolerance);
        }
    }
}

#[test]
fn lstm_gru_and_rnn_at_sizes_around_every_edge() {
    // H around lanes of a vector (16), a workgroup's multiple of 32, a vec4; B around tiles of 4.
    for cell in cells() {
        for (n, h) in [1, 3, 15, 16, 17, 31, 32, 33, 65, 130].into_iter().enumerate() {
            let b = [1, 2, 3, 4, 5, 9][n % 6];
            let t = [1, 2, 17][n % 3];
            check(&Case::random(n as u64, cell, &BOTH, [b, t, 1 + n % 5, h]).with_states(99), Tolerance::new(3e-6));
        }
    }
}

#[test]
fn lengths_cut_every_direction() {
    for cell in cells() {
        for (b, t, h) in [(6, 5, 20), (3, 9, 33)] {
            check(&Case::random(5, cell, &BOTH, [b, t, 3, h]).with_states(6).with_lengths(), Tolerance::new(3e-6));
        }
    }
}

#[test]
fn peepholes_clip_and_every_activation() {
    let lstm = Case::random(1, Cell::LSTM, &BOTH, [3, 7, 4, 21]).with_peepholes(2);
    check(&lstm, Tolerance::new(3e-6));
    check(&lstm.with_lengths().with_states(3), Tolerance::new(3e-6));
    let functions = [
        Activation::Linear,
        Activation::Relu,
        Activation::HARD_SIGMOID_KERAS2,
        Activation::HARD_SIGMOID_KERAS3,
        Activation::Affine { alpha: 0.5, beta: 0.1 },
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::ThresholdedRelu { alpha: 0.2 },
        Activation::ScaledTanh { alpha: 1.2, beta: 0.7 },
        Activation::Elu { alpha: 0.8 },
        Activation::Softsign,
        Activation::Softplus,
    ];
    for (n, f) in functions.into_iter().enumerate() {
        for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
            // A step function of the state may fall either way near its step; it only gates here.
            let gate = if matches!(f, Activation::ThresholdedRelu { .. }) { Activation::Sigmoid } else { f };
            let cell = Cell { gate, candidate: f, clip: Some(0.9), ..cell };
            let tolerance = if matches!(f, Activation::ThresholdedRelu { .. }) {
                Tolerance::new(1e-4)
            } else {
                Tolerance::new(1e-5)
            };
            check(&Case::random(n as u64 + 40, cell, &BOTH, [2, 4, 3, 10]), tolerance);
        }
    }
}

#[test]
fn activations_at_plus_and_minus_100_saturate_without_nan() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
        let mut case = Case::random(3, cell, &[Direction::Forward], [1, 3, 2, 8]);
        for (_, w) in &mut case.directions {
            w.b_ih.iter_mut().enumerate().for_each(|(i, b)| *b = if i % 2 == 0 { 100.0 } else { -100.0 });
        }
        check(&case, Tolerance::new(1e-6));
    }
}

#[test]
fn long_sequences_stay_within_the_stated_bound() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
        // More iterations than a software rasteriser executes in one dispatch.
        let case = Case::random(11, cell, &[Direction::Forward], [1, 1024, 8, 64]);
        let want = case.reference();
        for (device, strategy) in paths() {
            let worst = case.check(&want, &device, strategy, ALL, Tolerance { abs: 2e-5, rel: 0.0 });
            assert!(worst > 0.0, "suspiciously exact");
        }
    }
}

#[test]
fn the_loop_limit_of_a_software_rasteriser_is_respected() {
    // 2000 steps of 32 or more iterations exceed what lavapipe executes in a dispatch (65,535).
    let case = Case::random(12, Cell::GRU_RESET_BEFORE, &[Direction::Forward], [1, 2000, 1, 130]);
    let want = case.reference();
    case.check(&want, &gpu(), Strategy::Scan, ALL, Tolerance::new(2e-5));
}

#[test]
fn batch_rows_are_independent() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
        let case = Case::random(20, cell, &BOTH, [5, 6, 3, 18]);
        for (device, strategy) in paths() {
            let together = case.run(&device, strategy, ALL);
            for row in 0..5 {
                let mut alone = case.clone();
                alone.sizes[0] = 1;
                alone.x = case.x[row * 18..(row + 1) * 18].to_vec();
                let y = alone.run(&device, strategy, ALL).y;
                compare_f32(&y, &together.y[row * 6 * 36..(row + 1) * 6 * 36], Tolerance::new(1e-6)).unwrap();
            }
        }
    }
}

#[test]
fn t_steps_in_one_call_are_t_calls_of_one_step() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
        let case = Case::random(21, cell, &[Direction::Forward], [3, 7, 4, 40]);
        for (device, strategy) in paths() {
            let whole = case.run(&device, strategy, ALL);
            let layer = case.layer(&device);
            let (mut h, mut c) = (None, None);
            for t in 0..7 {
                let x: Vec<f32> = (0..3).flat_map(|b| case.x[(b * 7 + t) * 4..][..4].to_vec()).collect();
                let x = Tensor::from_f32(&x, &[3, 1, 4], &device).unwrap();
                let args = ForwardArgs {
                    h0: h.as_ref(),
                    c0: c.as_ref(),
                    strategy,
                    outputs: Outputs::Last,
                    ..ForwardArgs::default()
                };
                let out = layer.forward(&x, &args).unwrap();
                assert!(out.y.is_none());
                (h, c) = (Some(out.h), out.c);
            }
            compare_f32(&h.unwrap().to_vec().unwrap(), &whole.h, Tolerance::new(1e-6)).unwrap();
            if let Some(c) = c {
                compare_f32(&c.to_vec().unwrap(), &whole.c, Tolerance::new(1e-6)).unwrap();
            }
        }
    }
}

#[test]
fn an_lstm_that_forgets_nothing_and_takes_nothing_keeps_c() {
    let mut case = Case::random(22, Cell::LSTM, &[Direction::Forward], [2, 50, 3, 24]).with_states(23);
    for (_, w) in &mut case.directions {
        w.b_ih[..24].fill(-1000.0); // i = 0
        w.b_ih[24..48].fill(1000.0); // f = 1
    }
    for (device, strategy) in paths() {
        let out = case.run(&device, strategy, ALL);
        assert_eq!(out.c, case.c0.clone().unwrap(), "{device} {}", strategy.name());
    }
}

#[test]
fn time_major_is_the_same_numbers_transposed() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU] {
        let case = Case::random(24, cell, &BOTH, [3, 5, 4, 10]);
        let want = case.reference();
        for (device, strategy) in paths() {
            let x = Tensor::from_f32(&case.x, &[3, 5, 4], &device).unwrap().transpose(&[1, 0, 2]).unwrap();
            for projection_budget in [ALL, two_steps(&case)] {
                let args = ForwardArgs { time_major: true, strategy, projection_budget, ..ForwardArgs::default() };
                let y = case.layer(&device).forward(&x, &args).unwrap().y.unwrap();
                assert_eq!(*y.shape(), [5, 3, 20]);
                let y = y.transpose(&[1, 0, 2]).unwrap().to_vec().unwrap();
                compare(&y, &want.y, Tolerance::new(3e-6)).unwrap();
            }
        }
    }
}

#[test]
fn reading_order_reverses_the_outputs_of_a_reverse_direction() {
    let case = Case::random(25, Cell::GRU, &[Direction::Reverse], [2, 4, 3, 5]);
    let want = case.reference();
    for (device, strategy) in paths() {
        let x = Tensor::from_f32(&case.x, &[2, 4, 3], &device).unwrap();
        let args = ForwardArgs { reading_order: true, strategy, ..ForwardArgs::default() };
        let y = case.layer(&device).forward(&x, &args).unwrap().y.unwrap().to_vec().unwrap();
        let reversed: Vec<f64> = (0..2)
            .flat_map(|b| (0..4).rev().flat_map(move |t| (0..5).map(move |j| (b * 4 + t) * 5 + j)))
            .map(|i| want.y[i])
            .collect();
        compare(&y, &reversed, Tolerance::new(3e-6)).unwrap();
    }
}

#[test]
fn same_input_same_device_same_bits() {
    let case = Case::random(26, Cell::LSTM, &BOTH, [3, 20, 8, 48]);
    for (device, strategy) in paths() {
        let first = case.run(&device, strategy, ALL);
        for _ in 0..5 {
            let again = case.run(&device, strategy, ALL);
            assert_eq!(first.y, again.y, "{device} {}", strategy.name());
        }
    }
}

#[test]
fn nan_in_the_input_comes_out_as_nan_on_the_cpu() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell { clip: Some(1.0), ..Cell::LSTM }] {
        let mut case = Case::random(27, cell, &[Direction::Forward], [1, 3, 2, 7]);
        case.x[2] = f32::NAN;
        let y = case.run(&Device::Cpu, Strategy::Auto, ALL).y;
        assert!(y[..7].iter().all(|v| v.is_finite()), "{cell:?}: before the NaN");
        assert!(y[7..].iter().all(|v| v.is_nan()), "{cell:?}: from the NaN on");
    }
}

#[test]
fn a_second_forward_makes_no_buffer_and_no_bind_group() {
    for (device, strategy) in paths() {
        let case = Case::random(28, Cell::LSTM, &BOTH, [4, 33, 8, 40]);
        let layer = case.layer(&device);
        let args = ForwardArgs { strategy, ..ForwardArgs::default() };
        let mut y = vec![0.0; 4 * 33 * 80];
        let mut run = || {
            let x = Tensor::from_f32(&case.x, &[4, 33, 8], &device).unwrap();
            let out = layer.forward(&x, &args).unwrap();
            out.y.unwrap().read_into(&mut y).unwrap();
        };
        run();
        run();
        if device == Device::Cpu {
            // Other tests of this process share the CPU's pool; `benches` counts its allocations.
            continue;
        }
        let own = Device::by_name(&format!("{}:{}", device.backend(), device.name())).unwrap();
        let layer = case.layer(&own);
        let mut y = vec![0.0; 4 * 33 * 80];
        let mut run = || {
            let x = Tensor::from_f32(&case.x, &[4, 33, 8], &own).unwrap();
            layer.forward(&x, &args).unwrap().y.unwrap().read_into(&mut y).unwrap();
        };
        run();
        run();
        let counts = || (own.buffers_made(), own.gpu().unwrap().bind_groups_made());
        let before = counts();
        for _ in 0..3 {
            run();
        }
        assert_eq!(counts(), before, "{}", strategy.name());
    }
}

#[test]
fn a_forward_is_one_submission_and_scan_takes_a_constant_number_of_dispatches() {
    let gpu = Device::by_name(&format!("{}:{}", gpu().backend(), gpu().name())).unwrap();
    let count = |t: usize, strategy: Strategy| {
        let case = Case::random(29, Cell::LSTM, &[Direction::Forward], [1, t, 4, 32]);
        let layer = case.layer(&gpu);
        let x = Tensor::from_f32(&case.x, &[1, t, 4], &gpu).unwrap();
        let args = ForwardArgs { strategy, ..ForwardArgs::default() };
        gpu.synchronize().unwrap();
        let before = gpu.gpu().unwrap().work_counts();
        layer.forward(&x, &args).unwrap().y.unwrap().to_vec().unwrap();
        let after = gpu.gpu().unwrap().work_counts();
        (after.0 - before.0, after.1 - before.1)
    };
    assert_eq!(count(10, Strategy::Scan), count(1000, Strategy::Scan));
    assert_eq!(count(1000, Strategy::Scan).1, 1);
    assert_eq!(count(1000, Strategy::Step).1, 1);
    assert_eq!(count(110, Strategy::Step).0 - count(10, Strategy::Step).0, 100);
}

#[test]
fn many_threads_share_a_device() {
    let device = gpu();
    std::thread::scope(|s| {
        for n in 0..4 {
            let device = device.clone();
            s.spawn(move || {
                let case = Case::random(30 + n, Cell::GRU, &BOTH, [2, 12, 5, 20]);
                let want = case.reference();
                for (d, strategy) in
                    [(Device::Cpu, Strategy::Auto), (device.clone(), Strategy::Scan), (device, Strategy::Step)]
                {
                    case.check(&want, &d, strategy, ALL, Tolerance::new(3e-6));
                }
            });
        }
    });
}

#[test]
fn an_upload_never_overtakes_a_recorded_reader_of_its_buffer() {
    let device = gpu();
    let mut r = Random(31);
    let inputs: Vec<Vec<f32>> = (0..20).map(|_| r.floats(64, 1.0)).collect();
    // Each input's tensor is dropped before its operation has run; the next upload may get its
    // buffer.
    let outputs: Vec<Tensor> = inputs
        .iter()
        .map(|x| {
            Tensor::from_f32(x, &[64], &device)
                .unwrap()
                .activation(Activation::Affine { alpha: 2.0, beta: 1.0 })
                .unwrap()
        })
        .collect();
    for (x, y) in inputs.iter().zip(&outputs) {
        let want: Vec<f64> = wide(x).iter().map(|v| 2.0 * v + 1.0).collect();
        compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-6)).unwrap();
    }
}
