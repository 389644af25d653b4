//! General operations on the CPU and the GPU: `binary`, `copy`, `fill`, `gather`, `layer_norm`, `mask`,
//! `matmul`, `reduce`, `sample`, `softmax`, `unary`.

use half::f16;
use recurve::testing::{Tolerance, compare};
use recurve::{Activation, DType, Device, MatmulOptions, Reduction, SampleOptions, Tensor, concat};
use recurve_reference as reference;
use recurve_tests::skips::has_f16;
use recurve_tests::{Random, devices, poison, wide};

fn t(data: &[f32], dims: &[usize], device: &Device) -> Tensor {
    Tensor::from_f32(data, dims, device).unwrap()
}

#[test]
fn matmul_against_the_reference_at_sizes_around_its_tiles() {
    let sizes = [1, 3, 15, 16, 17, 31, 33, 64, 65, 130];
    let mut r = Random(1);
    for device in devices() {
        for n in 0..24 {
            let [m, k, c] = [(); 3].map(|()| sizes[r.below(sizes.len())]);
            let (a, b, bias) = (r.floats(m * k, 1.0), r.floats(c * k, 1.0), r.floats(c, 1.0));
            let act = [Activation::Linear, Activation::Tanh, Activation::Relu][n % 3];
            let with_bias = n % 2 == 0;
            let want =
                reference::matmul(&wide(&a), &wide(&b), &if with_bias { wide(&bias) } else { vec![] }, [m, k, c], act);
            let bias = t(&bias, &[c], &device);
            let x = t(&a, &[m, k], &device);
            let w = t(&b, &[c, k], &device);
            for transpose_rhs in [true, false] {
                poison(&device, &[m * c]);
                let rhs = if transpose_rhs { w.clone() } else { w.transpose(&[1, 0]).unwrap() };
                let options = MatmulOptions {
                    transpose_rhs,
                    bias: with_bias.then_some(&bias),
                    activation: act,
                    ..MatmulOptions::default()
                };
                let y = x.matmul_with(&rhs, &options).unwrap();
                compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-5))
                    .unwrap_or_else(|e| panic!("{m}×{k}×{c} transposed {transpose_rhs} on {device}: {e}"));
            }
        }
    }
}

/// `matvec`: one row, with and without whole vec4s, in batches, and with more columns than a dispatch has workgroups.
#[test]
fn products_of_one_row_against_the_reference() {
    let mut r = Random(3);
    for device in devices() {
        for (batch, k, c) in [(1, 64, 5), (1, 7, 9), (3, 12, 33), (1, 130, 64), (1, 4, 8 * 65_535 + 3)] {
            let (a, b) = (r.floats(batch * k, 1.0), r.floats(batch * c * k, 1.0));
            let bias = r.floats(c, 1.0);
            let want: Vec<f64> = (0..batch)
                .flat_map(|n| {
                    let (a, b) = (wide(&a[n * k..][..k]), wide(&b[n * c * k..][..c * k]));
                    reference::matmul(&a, &b, &wide(&bias), [1, k, c], Activation::Tanh)
                })
                .collect();
            poison(&device, &[batch * c]);
            let bias = t(&bias, &[c], &device);
            let options = MatmulOptions {
                transpose_rhs: true,
                bias: Some(&bias),
                activation: Activation::Tanh,
                ..MatmulOptions::default()
            };
            let (x, w) = match batch {
                1 => (t(&a, &[1, k], &device), t(&b, &[c, k], &device)),
                _ => (t(&a, &[batch, 1, k], &device), t(&b, &[batch, c, k], &device)),
            };
            let y = x.matmul_with(&w, &options).unwrap();
            compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-5))
                .unwrap_or_else(|e| panic!("{batch}×{k}×{c} on {device}: {e}"));
        }
    }
}

#[test]
fn matmul_of_batches() {
    let mut r = Random(2);
    let (a, b) = (r.floats(3 * 4 * 5, 1.0), r.floats(3 * 5 * 6, 1.0));
    let mut want = Vec::new();
    for n in 0..3 {
        let b = &b[n * 30..(n + 1) * 30];
        let transposed: Vec<f64> = (0..30).map(|i| b[i % 5 * 6 + i / 5].into()).collect();
        want.extend(reference::matmul(
            &wide(&a[n * 20..(n + 1) * 20]),
            &transposed,
            &[],
            [4, 5, 6],
            Activation::Linear,
        ));
    }
    for device in devices() {
        let y = t(&a, &[3, 4, 5], &device).matmul(&t(&b, &[3, 5, 6], &device)).unwrap();
        assert_eq!(*y.shape(), [3, 4, 6]);
        compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-5)).unwrap();
        // A shared right operand is used for every matrix.
        let y = t(&a, &[3, 4, 5], &device).matmul(&t(&b[..30], &[5, 6], &device)).unwrap();
        assert_eq!(*y.shape(), [3, 4, 6]);
        compare(&y.to_vec().unwrap()[..24], &want[..24], Tolerance::new(1e-5)).unwrap();
    }
}

#[test]
fn arithmetic_broadcasts() {
    for device in devices() {
        let a = t(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &device);
        let row = t(&[10.0, 20.0, 30.0], &[3], &device);
        let column = t(&[2.0, 4.0], &[2, 1], &device);
        let v = |t: Tensor| t.to_vec().unwrap();
        assert_eq!(v(a.add(&row).unwrap()), [11.0, 22.0, 33.0, 14.0, 25.0, 36.0]);
        assert_eq!(v(a.sub(&column).unwrap()), [-1.0, 0.0, 1.0, 0.0, 1.0, 2.0]);
        assert_eq!(v(a.mul(&a).unwrap()), [1.0, 4.0, 9.0, 16.0, 25.0, 36.0]);
        assert_eq!(v(column.div(&row.slice(0, 0..1).unwrap()).unwrap()), [0.2, 0.4]);
        let outer = column.mul(&row).unwrap();
        assert_eq!(*outer.shape(), [2, 3]);
        assert_eq!(v(outer), [20.0, 40.0, 60.0, 40.0, 80.0, 120.0]);
        assert!(a.add(&t(&[1.0, 2.0], &[2], &device)).unwrap_err().to_string().contains("broadcast"));
    }
}

#[test]
fn elementwise_beyond_one_workgroup() {
    let x = Random(3).floats(3 * 256 + 1, 2.0);
    for device in devices() {
        let a = t(&x, &[x.len()], &device);
        let want: Vec<f64> = wide(&x).iter().map(|v| v * v + v).collect();
        poison(&device, &[x.len()]);
        compare(&a.mul(&a).unwrap().add(&a).unwrap().to_vec().unwrap(), &want, Tolerance::new(1e-6)).unwrap();
    }
}

#[test]
fn every_activation_and_extremes() {
    let all = [
        Activation::Linear,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Relu,
        Activation::HARD_SIGMOID_KERAS2,
        Activation::HARD_SIGMOID_KERAS3,
        Activation::Affine { alpha: 1.5, beta: -0.25 },
        Activation::LeakyRelu { alpha: 0.01 },
        Activation::ThresholdedRelu { alpha: 1.0 },
        Activation::ScaledTanh { alpha: 1.7, beta: 0.6 },
        Activation::Elu { alpha: 0.7 },
        Activation::Softsign,
        Activation::Softplus,
    ];
    let mut x: Vec<f32> = (-203..=203).map(|i| i as f32 * 0.0493).collect();
    x.extend([-100.0, 100.0, -43.0, 43.0, 0.0]);
    for device in devices() {
        for f in all {
            let want: Vec<f64> = x.iter().map(|&v| reference::activate(f, f64::from(v))).collect();
            let got = t(&x, &[x.len()], &device).activation(f).unwrap().to_vec().unwrap();
            compare(&got, &want, Tolerance::new(1e-6)).unwrap_or_else(|e| panic!("{f:?} on {device}: {e}"));
            if f == Activation::Tanh {
                assert!(got.iter().all(|v| (-1.0..=1.0).contains(v)));
            }
        }
    }
}

#[test]
fn softmax_rows_sum_to_one() {
    for device in devices() {
        for width in [1, 3, 63, 64, 65, 876] {
            let x = Random(4).floats(5 * width, 30.0);
            let want = reference::softmax(&wide(&x), width);
            let y = t(&x, &[5, width], &device).softmax().unwrap();
            compare(&y.to_vec().unwrap(), &want, Tolerance::new(3e-6)).unwrap();
            let sums = y.reduce(Reduction::Sum, 1).unwrap().to_vec().unwrap();
            compare(&sums, &[1.0; 5], Tolerance::new(1e-5)).unwrap();
        }
    }
}

#[test]
fn reductions_over_every_axis_and_a_very_long_one() {
    for device in devices() {
        let x = [3.0, -1.0, 2.0, 5.0, 5.0, 0.0, 4.0, 1.0, -2.0, 7.0, 6.0, 7.0];
        let a = t(&x, &[2, 3, 2], &device);
        let v = |r, axis| a.reduce(r, axis).unwrap().to_vec().unwrap();
        assert_eq!(v(Reduction::Sum, 0), [7.0, 0.0, 0.0, 12.0, 11.0, 7.0]);
        assert_eq!(v(Reduction::Max, 1), [5.0, 5.0, 6.0, 7.0]);
        assert_eq!(v(Reduction::Min, 2), [-1.0, 2.0, 0.0, 1.0, -2.0, 6.0]);
        assert_eq!(v(Reduction::Mean, 1), [10.0 / 3.0, 4.0 / 3.0, 8.0 / 3.0, 5.0]);
        assert_eq!(*a.reduce(Reduction::Sum, 1).unwrap().shape(), [2, 1, 2]);
        assert_eq!(a.argmax(1).unwrap().to_vec_u32().unwrap(), [2, 1, 2, 1]);
        assert_eq!(a.argmax(0).unwrap().to_vec_u32().unwrap(), [1, 1, 0, 1, 1, 1]);
        // Longer than a software rasteriser's loops.
        let n = 200_000;
        let mut long = vec![1.0; n];
        long[150_000] = 2.0;
        let long = t(&long, &[n], &device);
        assert_eq!(long.reduce(Reduction::Sum, 0).unwrap().to_vec().unwrap(), [n as f32 + 1.0]);
        assert_eq!(long.reduce(Reduction::Max, 0).unwrap().to_vec().unwrap(), [2.0]);
        assert_eq!(long.argmax(0).unwrap().to_vec_u32().unwrap(), [150_000]);
        compare(&long.reduce(Reduction::Mean, 0).unwrap().to_vec().unwrap(), &[1.000_005], Tolerance::new(1e-6))
            .unwrap();
    }
}

#[test]
fn slices_transposes_and_concatenation() {
    for device in devices() {
        let x: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let a = t(&x, &[2, 3, 4], &device);
        let s = a.slice(1, 1..3).unwrap();
        assert_eq!(
            s.to_vec().unwrap(),
            [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0]
        );
        assert_eq!(a.slice(2, 3..4).unwrap().to_vec().unwrap(), [3.0, 7.0, 11.0, 15.0, 19.0, 23.0]);
        let p = a.transpose(&[2, 0, 1]).unwrap();
        assert_eq!(*p.shape(), [4, 2, 3]);
        assert_eq!(p.to_vec().unwrap()[..6], [0.0, 4.0, 8.0, 12.0, 16.0, 20.0]);
        assert_eq!(p.transpose(&[1, 2, 0]).unwrap().to_vec().unwrap(), x);
        let back = concat(&[&a.slice(1, 0..1).unwrap(), &s], 1).unwrap();
        assert_eq!(back.to_vec().unwrap(), x);
        let last = concat(&[&a, &a], 2).unwrap();
        assert_eq!(last.to_vec().unwrap()[..8], [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(a.reshape(&[6, 4]).unwrap().to_vec().unwrap(), x);
        let ids = Tensor::from_u32(&[1, 2, 3, 4], &[2, 2], &device).unwrap();
        assert_eq!(ids.transpose(&[1, 0]).unwrap().to_vec_u32().unwrap(), [1, 3, 2, 4]);
    }
}

#[test]
fn gather_and_its_range_check() {
    for device in devices() {
        let table = t(&[0.0, 1.0, 10.0, 11.0, 20.0, 21.0], &[3, 2], &device);
        let ids = Tensor::from_u32(&[2, 0, 2, 1], &[2, 2], &device).unwrap();
        let y = table.gather(&ids).unwrap();
        assert_eq!(*y.shape(), [2, 2, 2]);
        assert_eq!(y.to_vec().unwrap(), [20.0, 21.0, 0.0, 1.0, 20.0, 21.0, 10.0, 11.0]);
        let e = table.gather(&Tensor::from_u32(&[0, 3], &[2], &device).unwrap()).unwrap_err().to_string();
        assert!(e.contains('3') && e.contains("0 to 2"), "{e}");
        // The bound of an argmax is known without reading it back.
        let best = t(&[1.0, 5.0, 2.0], &[1, 3], &device).argmax(1).unwrap();
        assert_eq!(table.gather(&best).unwrap().to_vec().unwrap(), [10.0, 11.0]);
    }
}

#[test]
fn f16_storage() {
    let x = Random(5).floats(6 * 70, 2.0);
    for device in devices() {
        if !has_f16(&device) {
            let e = t(&x, &[6, 70], &device).to_dtype(DType::F16).unwrap_err();
            assert!(e.to_string().contains("f16"));
            continue;
        }
        let half: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
        let a = Tensor::from_f16(&half, &[6, 70], &device).unwrap();
        let converted = t(&x, &[6, 70], &device).to_dtype(DType::F16).unwrap();
        assert_eq!(a.to_vec().unwrap(), converted.to_vec().unwrap());
        let rounded: Vec<f64> = half.iter().map(|v| v.to_f64()).collect();
        let one = |y: Tensor, want: Vec<f64>| {
            assert_eq!(y.dtype(), DType::F16);
            compare(&y.to_vec().unwrap(), &want, Tolerance { abs: 1e-3, rel: 1e-3 }).unwrap();
        };
        one(a.add(&a).unwrap(), rounded.iter().map(|v| v + v).collect());
        one(a.activation(Activation::Tanh).unwrap(), rounded.iter().map(|v| v.tanh()).collect());
        one(a.slice(1, 1..2).unwrap(), rounded.iter().skip(1).step_by(70).copied().collect());
        one(a.softmax().unwrap(), reference::softmax(&rounded, 70));
        // f16 weights with an f32 left operand give f32 results.
        let y = t(&x, &[6, 70], &device)
            .matmul_with(&a, &MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() })
            .unwrap();
        assert_eq!(y.dtype(), DType::F32);
        let want = reference::matmul(&wide(&x), &rounded, &[], [6, 70, 6], Activation::Linear);
        compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-5)).unwrap();
    }
}

#[test]
fn tensors_move_between_devices_and_read_async() {
    let [cpu, gpu] = devices();
    let x = Random(6).floats(1000, 1.0);
    let there = t(&x, &[10, 100], &cpu).to_device(&gpu).unwrap();
    assert_eq!(there.to_device(&cpu).unwrap().to_vec().unwrap(), x);
    assert_eq!(pollster::block_on(there.to_vec_async()).unwrap(), x);
    assert_eq!(pollster::block_on(t(&x, &[1000], &cpu).to_vec_async()).unwrap(), x);
    for device in devices() {
        let (a, b) = (t(&x, &[1000], &device), t(&x[..3], &[3], &device));
        let (mut one, mut two) = (vec![0.0; 1000], [0.0; 3]);
        Tensor::read_many([(&a, &mut one), (&b, &mut two)]).unwrap();
        assert_eq!((&one[..], &two[..]), (&x[..], &x[..3]));
        assert!(Tensor::read_many([(&a, &mut two)]).is_err());
        assert_eq!(Tensor::zeros(&[3], DType::F32, &device).unwrap().to_vec().unwrap(), [0.0; 3]);
        assert_eq!(Tensor::full(&[2], 7.0, DType::U32, &device).unwrap().to_vec_u32().unwrap(), [7, 7]);
    }
}

#[test]
fn layer_norm_against_the_reference() {
    let mut r = Random(70);
    for device in devices() {
        for (rows, n) in [(1, 2), (3, 5), (2, 63), (4, 64), (2, 65), (70_000, 3)] {
            let x = r.floats(rows * n, 2.0);
            let affine = r.floats(2 * n, 1.0);
            let mut want = wide(&x);
            for row in want.chunks_exact_mut(n) {
                reference::layer_norm(row, &wide(&affine), 1e-3);
            }
            poison(&device, &[rows * n]);
            let y = t(&x, &[rows, n], &device).layer_norm(&t(&affine, &[2, n], &device), 1e-3).unwrap();
            compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{rows}×{n}: {e}"));
        }
        let x = t(&[0.0; 6], &[2, 3], &device);
        let e = x.layer_norm(&t(&[0.0; 4], &[2, 2], &device), 1e-3).unwrap_err().to_string();
        assert!(e.contains("[2, 3]"), "{e}");
        let e = x.layer_norm(&t(&[0.0; 6], &[2, 3], &device), 0.0).unwrap_err().to_string();
        assert!(e.contains("epsilon"), "{e}");
    }
}

#[test]
fn mask_finds_what_differs() {
    for device in devices() {
        let ids = Tensor::from_u32(&[0, 5, 0, 7, 1, 0], &[2, 3], &device).unwrap();
        let mask = ids.mask(0.0).unwrap();
        assert_eq!((mask.dims(), mask.bound()), (&[2usize, 3][..], 1));
        assert_eq!(mask.to_vec_u32().unwrap(), [0, 1, 0, 1, 1, 0]);
        // A row is padding only if all its features equal the value.
        let x = t(&[-1.0, -1.0, -1.0, 2.0, 0.0, -1.0, -1.0, -1.0], &[2, 2, 2], &device);
        assert_eq!(x.mask(-1.0).unwrap().to_vec_u32().unwrap(), [0, 1, 1, 0]);
        if !has_f16(&device) {
            continue;
        }
        let half = x.to_dtype(DType::F16).unwrap();
        assert_eq!(half.mask(-1.0).unwrap().to_vec_u32().unwrap(), [0, 1, 1, 0]);
    }
}

#[test]
fn sample_draws_from_the_softmax() {
    let logits = [0.5f32, -1.0, 2.0, 1.0, -3.0, 0.0, 1.5];
    let rows = 20_000;
    let all = logits.repeat(rows);
    for device in devices() {
        let x = t(&all, &[rows, 7], &device);
        for (temperature, top_k, allowed) in [
            (1.0, None, &[0, 1, 2, 3, 4, 5, 6][..]),
            (0.7, Some(3), &[2, 3, 6]),
            (2.0, Some(100), &[0, 1, 2, 3, 4, 5, 6]),
        ] {
            let ids = x
                .sample(&SampleOptions { temperature, top_k, seed: 3, position: 9, ..SampleOptions::default() })
                .unwrap();
            assert_eq!((ids.dims(), ids.bound()), (&[rows][..], 6));
            let mut counts = [0usize; 7];
            for id in ids.to_vec_u32().unwrap() {
                counts[id as usize] += 1;
            }
            let weight = |i: usize| if allowed.contains(&i) { f64::from(logits[i] / temperature).exp() } else { 0.0 };
            let sum: f64 = (0..7).map(weight).sum();
            for (i, &n) in counts.iter().enumerate() {
                let want = weight(i) / sum * rows as f64;
                // Five standard deviations of a binomial count.
                let slack = 5.0 * (want * (1.0 - want / rows as f64)).sqrt();
                assert!(
                    (n as f64 - want).abs() <= slack,
                    "token {i} {n} times, expected {want:.0} ± {slack:.0} on {device}"
                );
            }
        }
        // Other seeds and positions give other draws, equal ones equal draws.
        let draw = |seed, position| {
            let o = SampleOptions { temperature: 1.0, top_k: None, seed, position, ..SampleOptions::default() };
            x.sample(&o).unwrap().to_vec_u32().unwrap()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        // At a low temperature, or with top_k 1, the largest logit is drawn; of equal ones any.
        let cold = SampleOptions { temperature: 1e-3, top_k: None, seed: 1, position: 0, ..SampleOptions::default() };
        assert!(x.sample(&cold).unwrap().to_vec_u32().unwrap().iter().all(|&id| id == 2));
        let one = SampleOptions { temperature: 1.0, top_k: Some(1), seed: 1, position: 0, ..SampleOptions::default() };
        assert!(x.sample(&one).unwrap().to_vec_u32().unwrap().iter().all(|&id| id == 2));
        for bad in [
            SampleOptions { temperature: 0.0, ..one },
            SampleOptions { temperature: f32::NAN, ..one },
            SampleOptions { top_k: Some(0), ..one },
        ] {
            assert!(x.sample(&bad).is_err());
        }
    }
}

#[test]
fn sample_draws_the_same_on_every_device() {
    let mut r = Random(71);
    let logits = r.floats(500 * 130, 3.0);
    let o = SampleOptions { temperature: 0.9, top_k: Some(40), seed: 5, position: 1, ..SampleOptions::default() };
    let [cpu, gpu] = devices().map(|d| t(&logits, &[500, 130], &d).sample(&o).unwrap().to_vec_u32().unwrap());
    // Two devices may order two nearly equal candidates differently because of rounding.
    let differ = cpu.iter().zip(&gpu).filter(|(a, b)| a != b).count();
    assert!(differ <= 1, "{differ} of 500");
}

/// `peak`: the rates are plausible for a device.
#[test]
fn peaks_are_rates_that_devices_can_have() {
    for device in devices() {
        let flops = device.peak_flops().unwrap();
        assert!((1e7..1e16).contains(&flops), "{device}: {flops:e} operations a second");
        for bytes in [1, 1 << 16, 8 << 20] {
            let rate = device.peak_bandwidth(bytes).unwrap();
            assert!((1e7..1e15).contains(&rate), "{device}: {rate:e} bytes a second from {bytes}");
        }
    }
}
