//! Tensors in a program: operators, printing, random elements, bf16 and i64 in and out.

use half::{bf16, f16};
use recurve::{DType, Device, Tensor, TensorError as E};
use recurve_tensor::{Indices, Scatter, Update};
use recurve_tests::skips::has_f16;
use recurve_tests::{devices, gpu};
use std::sync::Arc;

fn t(data: &[f32], dims: &[usize], device: &Device) -> Tensor {
    Tensor::from_f32(data, dims, device).unwrap()
}

#[test]
fn operators_are_the_methods_of_their_names() {
    for device in devices() {
        let a = t(&[1.0, -2.0, 3.0, 4.0], &[2, 2], &device);
        let b = t(&[2.0, 8.0], &[2], &device);
        let is = |y: Result<Tensor, E>, want: [f32; 4]| {
            let y = y.unwrap();
            assert_eq!((y.dims(), &y.to_vec().unwrap()[..]), (&[2, 2][..], &want[..]), "{device}");
        };
        is(&a + &b, [3.0, 6.0, 5.0, 12.0]);
        is(&a - &b, [-1.0, -10.0, 1.0, -4.0]);
        is(&b - &a, [1.0, 10.0, -1.0, 4.0]);
        is(&a * &b, [2.0, -16.0, 6.0, 32.0]);
        is(&a / &b, [0.5, -0.25, 1.5, 0.5]);
        // Owned operands, on either side.
        is(a.clone() + b.clone(), [3.0, 6.0, 5.0, 12.0]);
        is(a.clone() - &b, [-1.0, -10.0, 1.0, -4.0]);
        is(&a / b.clone(), [0.5, -0.25, 1.5, 0.5]);
        is((&a + &b).and_then(|y| y * 2.0), [6.0, 12.0, 10.0, 24.0]);
    }
}

#[test]
fn numbers_stand_on_either_side() {
    for device in devices() {
        let a = t(&[1.0, -2.0, 4.0], &[3], &device);
        let is = |y: Result<Tensor, E>, want: [f32; 3]| {
            let y = y.unwrap();
            assert_eq!((y.dims(), &y.to_vec().unwrap()[..]), (&[3][..], &want[..]), "{device}");
        };
        is(&a + 0.5, [1.5, -1.5, 4.5]);
        is(&a - 0.5, [0.5, -2.5, 3.5]);
        is(&a * 0.5, [0.5, -1.0, 2.0]);
        is(&a / 0.5, [2.0, -4.0, 8.0]);
        is(0.5 + &a, [1.5, -1.5, 4.5]);
        is(0.5 - &a, [-0.5, 2.5, -3.5]);
        is(0.5 * a.clone(), [0.5, -1.0, 2.0]);
        is(1.0 / a.clone(), [1.0, -0.5, 0.25]);
        let infinite = (&a * f32::INFINITY).unwrap().to_vec().unwrap();
        assert_eq!(infinite, [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY]);
        assert!((&a + f32::NAN).unwrap().to_vec().unwrap().iter().all(|v| v.is_nan()));
    }
}

/// With f16 tensors, a number that f16 cannot represent is not rounded first; only the result is rounded.
#[test]
fn numbers_with_f16_are_not_rounded_first() {
    for device in devices().into_iter().filter(has_f16) {
        let a = Tensor::from_f16(&[1000.0, 2048.0].map(f16::from_f32), &[2], &device).unwrap();
        let y = (&a / 1e6).unwrap();
        assert_eq!(y.dtype(), DType::F16);
        // 0.001 and 0.002048, rounded to the nearest f16.
        assert_eq!(y.to_vec().unwrap(), [0.001, 0.002048].map(|v| f16::from_f32(v).to_f32()), "{device}");
    }
}

#[test]
fn operators_return_the_errors_of_the_methods() {
    for device in devices() {
        let a = t(&[1.0; 6], &[2, 3], &device);
        let ids = Tensor::from_u32(&[1, 2], &[2], &device).unwrap();
        assert!(matches!(&a + t(&[1.0; 2], &[2], &device), Err(E::Shape { operation: "add", argument: "other", .. })));
        assert!(matches!(&ids * 2.0, Err(E::DType { operation: "mul", argument: "self", got: DType::U32, .. })));
        assert!(matches!(1.0 / &ids, Err(E::DType { operation: "div", argument: "self", got: DType::U32, .. })));
        let other = if device == Device::Cpu { gpu() } else { Device::Cpu };
        assert!(matches!(&a - t(&[1.0; 6], &[2, 3], &other), Err(E::Device { operation: "sub", .. })));
        assert_eq!((&a + &a).unwrap().to_vec().unwrap(), [2.0; 6]);
    }
}

/// The expected text is what PyTorch 2 prints for the same elements, with Recurve's own line in place of `tensor(...)`.
#[test]
fn text_is_what_pytorch_prints() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let count = |n: u16| (0..n).map(f32::from).collect::<Vec<_>>();
    let floats: Vec<(Vec<f32>, &[usize], &str)> = vec![
        (vec![1.0, -2.5, 0.25, 10.0], &[2, 2], "[[ 1.0000, -2.5000],\n [ 0.2500, 10.0000]]"),
        (vec![1.0, 2.0, -3.0], &[3], "[ 1.,  2., -3.]"),
        (vec![1.0, 1001.0], &[2], "[1.0000e+00, 1.0010e+03]"),
        (vec![1e-5, 1.0], &[2], "[1.0000e-05, 1.0000e+00]"),
        (vec![0.1, 100.1], &[2], "[1.0000e-01, 1.0010e+02]"),
        (vec![1e9, 2e9], &[2], "[1.0000e+09, 2.0000e+09]"),
        (vec![-1e-30, 2e-30], &[2], "[-1.0000e-30,  2.0000e-30]"),
        (vec![0.0, 0.0], &[2], "[0., 0.]"),
        (vec![-0.0, 1.0], &[2], "[-0., 1.]"),
        (vec![nan, inf, -inf, 1.5], &[4], "[   nan,    inf,   -inf, 1.5000]"),
        (vec![nan, 1.0], &[2], "[nan, 1.]"),
        (vec![2.5], &[], "2.5000"),
        (count(8), &[2, 2, 2], "[[[0., 1.],\n  [2., 3.]],\n\n [[4., 5.],\n  [6., 7.]]]"),
        (count(1001), &[1001], "[   0.,    1.,    2.,  ...,  998.,  999., 1000.]"),
        (
            count(2000),
            &[2, 1000],
            "[[0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 9.9700e+02, 9.9800e+02,\n  9.9900e+02],\n \
             [1.0000e+03, 1.0010e+03, 1.0020e+03,  ..., 1.9970e+03, 1.9980e+03,\n  1.9990e+03]]",
        ),
        (
            (0..30u16).map(|n| f32::from(n) / 4.0).collect(),
            &[30],
            "[0.0000, 0.2500, 0.5000, 0.7500, 1.0000, 1.2500, 1.5000, 1.7500, 2.0000, 2.2500,\n \
             2.5000, 2.7500, 3.0000, 3.2500, 3.5000, 3.7500, 4.0000, 4.2500, 4.5000, 4.7500,\n \
             5.0000, 5.2500, 5.5000, 5.7500, 6.0000, 6.2500, 6.5000, 6.7500, 7.0000, 7.2500]",
        ),
    ];
    let numbers = |n: u32| (0..n).collect::<Vec<_>>();
    let integers: Vec<(Vec<u32>, &[usize], &str)> = vec![
        (vec![1, 20, 300, 4], &[2, 2], "[[  1,  20],\n [300,   4]]"),
        (vec![7], &[], "7"),
        (vec![u32::MAX, 0], &[2], "[4294967295,          0]"),
        (
            numbers(1600),
            &[40, 40],
            "[[   0,    1,    2,  ...,   37,   38,   39],\n [  40,   41,   42,  ...,   77,   78,   79],\n \
             [  80,   81,   82,  ...,  117,  118,  119],\n ...,\n \
             [1480, 1481, 1482,  ..., 1517, 1518, 1519],\n [1520, 1521, 1522,  ..., 1557, 1558, 1559],\n \
             [1560, 1561, 1562,  ..., 1597, 1598, 1599]]",
        ),
        // A short dimension is shown completely, the dimensions around it by their ends.
        (
            numbers(1001 * 2),
            &[1001, 2],
            "[[   0,    1],\n [   2,    3],\n [   4,    5],\n ...,\n [1996, 1997],\n [1998, 1999],\n [2000, 2001]]",
        ),
    ];
    for device in devices() {
        let check = |t: Tensor, want: &str| assert_eq!(t.to_string(), format!("{want}\n{t:?}"), "{device}");
        for (data, dims, want) in &floats {
            check(t(data, dims, &device), want);
        }
        for (data, dims, want) in &integers {
            check(Tensor::from_u32(data, dims, &device).unwrap(), want);
        }
        if has_f16(&device) {
            check(Tensor::from_f16(&[0.5, 1.5].map(f16::from_f32), &[2], &device).unwrap(), "[0.5000, 1.5000]");
        }
        let two = format!("{:.1}", t(&[0.25, 1.5], &[2], &device));
        assert!(two.starts_with("[0.2, 1.5]\nTensor f32 [2] on "), "{two}");
    }
}

#[test]
fn random_elements_are_those_of_the_seed_on_every_device() {
    const N: usize = 100_000;
    let uniform = |seed, device: &Device| Tensor::rand_uniform(&[N], -2.0..6.0, seed, device).unwrap();
    let normal = |seed, device: &Device| Tensor::rand_normal(&[N], 3.0, 2.0, seed, device).unwrap();
    let (u, n) = (uniform(1, &Device::Cpu).to_vec().unwrap(), normal(1, &Device::Cpu).to_vec().unwrap());
    for device in devices() {
        assert_eq!(
            (uniform(1, &device).to_vec().unwrap(), normal(1, &device).to_vec().unwrap()),
            (u.clone(), n.clone())
        );
        assert_ne!(uniform(2, &device).to_vec().unwrap(), u);
        assert_ne!(normal(2, &device).to_vec().unwrap(), n);
    }
    // Mean and variance, each within five of its standard deviations, and independence of adjacent elements.
    let near = |what: &str, got: f64, want: f64, deviation: f64| {
        assert!((got - want).abs() <= 5.0 * deviation, "{what}: {got}, expected {want}");
    };
    let count = N as f64;
    for (what, v, mean, variance, kurtosis) in [("uniform", &u, 2.0, 64.0 / 12.0, 1.8), ("normal", &n, 3.0, 4.0, 3.0)] {
        let off: Vec<f64> = v.iter().map(|&v| f64::from(v) - mean).collect();
        near(what, off.iter().sum::<f64>() / count, 0.0, f64::sqrt(variance / count));
        let squares = off.iter().map(|v| v * v).sum::<f64>() / count;
        near(what, squares, variance, variance * f64::sqrt((kurtosis - 1.0) / count));
        let products = off.windows(2).map(|p| p[0] * p[1]).sum::<f64>() / count;
        near(what, products, 0.0, variance / count.sqrt());
    }
    assert!(u.iter().all(|v| (-2.0..6.0).contains(v)));
    // 68.27 % of a normal distribution lie within one standard deviation.
    let within = n.iter().filter(|v| (**v - 3.0).abs() < 2.0).count() as f64 / count;
    near("normal", within, 0.682_689, f64::sqrt(0.6827 * 0.3173 / count));
    // The end of the range is excluded, however narrow the range.
    let narrow = Tensor::rand_uniform(&[1000], 1.0..1.0f32.next_up(), 3, &Device::Cpu).unwrap();
    assert!(narrow.to_vec().unwrap().iter().all(|v| *v == 1.0));
    assert_eq!(Tensor::rand_normal(&[2], -1.5, 0.0, 3, &Device::Cpu).unwrap().to_vec().unwrap(), [-1.5; 2]);
}

#[test]
fn random_elements_of_no_distribution_are_refused() {
    let device = Device::Cpu;
    for range in [1.0..1.0, 2.0..1.0, f32::NAN..1.0, 0.0..f32::INFINITY, f32::MIN..f32::MAX] {
        let e = Tensor::rand_uniform(&[2], range, 1, &device).unwrap_err();
        assert!(matches!(e, E::Argument { operation: "Tensor::rand_uniform", argument: "range", .. }), "{e}");
    }
    for (mean, deviation, name) in [
        (f32::NAN, 1.0, "mean"),
        (0.0, -1.0, "deviation"),
        (0.0, f32::NAN, "deviation"),
        (0.0, f32::INFINITY, "deviation"),
    ] {
        let e = Tensor::rand_normal(&[2], mean, deviation, 1, &device).unwrap_err();
        assert!(matches!(e, E::Argument { operation: "Tensor::rand_normal", argument, .. } if argument == name), "{e}");
    }
    let e = Tensor::rand_uniform(&[2, 0], 0.0..1.0, 1, &device).unwrap_err();
    assert!(matches!(e, E::Argument { operation: "Tensor::rand_uniform", argument: "dims", .. }), "{e}");
    let e = Tensor::rand_normal(&[1 << 50], 0.0, 1.0, 1, &device).unwrap_err();
    assert!(matches!(e, E::OutOfMemory { operation: "Tensor::rand_normal", .. }), "{e}");
}

#[test]
fn bf16_comes_in_exactly_and_goes_out_rounded() {
    // The bits of a bf16 are the upper half of those of an f32.
    let bits = [0x0000, 0x8000, 0x3f80, 0x4049, 0xc2c8, 0x7f7f, 0x0001, 0x7f80, 0xff80];
    let data = bits.map(bf16::from_bits);
    let want = bits.map(|b| f32::from_bits(u32::from(b) << 16));
    assert_eq!(want[..5], [0.0, -0.0, 1.0, 3.140_625, -100.0]);
    for device in devices() {
        let there = Tensor::from_bf16(&data, &[3, 3], &device).unwrap();
        assert_eq!((there.dtype(), there.dims()), (DType::F32, &[3, 3][..]));
        let of = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(of(&there.to_vec().unwrap()), of(&want), "{device}");
        assert_eq!(there.to_vec_bf16().unwrap(), data, "{device}");
        let nan = Tensor::from_bf16(&[bf16::NAN], &[1], &device).unwrap();
        assert!(nan.to_vec().unwrap()[0].is_nan() && nan.to_vec_bf16().unwrap()[0].is_nan());
        // Between 1 and its neighbour 1.0078125: ties round to even, other values to the nearest; values above the
        // largest become infinity.
        let tie = 1.0 + 1.0f32 / 256.0;
        let out = [tie.next_down(), tie, tie.next_up(), 1.0 + 3.0 / 256.0, f32::MAX, -f32::MAX];
        let out = t(&out, &[6], &device);
        let rounded = out.to_vec_bf16().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(rounded, [0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x7f80, 0xff80], "{device}");
        let e = Tensor::from_bf16(&data, &[2, 3], &device).unwrap_err();
        assert!(matches!(e, E::Argument { operation: "Tensor::from_bf16", argument: "dims", .. }), "{e}");
        let ids = Tensor::from_u32(&[1], &[1], &device).unwrap();
        assert!(matches!(ids.to_vec_bf16(), Err(E::DType { got: DType::U32, .. })));
    }
}

#[test]
fn i64_comes_in_where_u32_has_it() {
    for device in devices() {
        let data = [0, 1, 1 << 24 | 1, i64::from(u32::MAX)];
        let there = Tensor::from_i64(&data, &[2, 2], &device).unwrap();
        assert_eq!((there.dtype(), there.dims(), there.bound()), (DType::U32, &[2, 2][..], u32::MAX));
        assert_eq!(there.to_vec_u32().unwrap(), [0, 1, 16_777_217, 4_294_967_295], "{device}");
        assert_eq!(there.to_vec_i64().unwrap(), data, "{device}");
        for (wrong, index) in [(-1, 1), (i64::MIN, 0), (1 << 32, 2), (i64::MAX, 3)] {
            let mut data = [5; 4];
            data[index] = wrong;
            let e = Tensor::from_i64(&data, &[4], &device).unwrap_err();
            let E::Range { operation: "Tensor::from_i64", argument: "data", got, index: at, .. } = e else {
                panic!("{e}")
            };
            assert_eq!((got, at), (wrong, index));
        }
        let e = Tensor::from_i64(&[5, -3], &[2], &device).unwrap_err().to_string();
        assert_eq!(e, "Tensor::from_i64: `data` contains -3 at element 1, but only 0 to 4294967295 can be stored");
        let e = Tensor::from_i64(&[5, -3], &[3], &device).unwrap_err();
        assert!(matches!(e, E::Argument { operation: "Tensor::from_i64", argument: "dims", .. }), "{e}");
        let floats = t(&[1.0], &[1], &device);
        assert!(matches!(floats.to_vec_i64(), Err(E::DType { got: DType::F32, .. })));
        // Ids from i64 can be used for look-ups.
        let table = t(&[10.0, 20.0, 30.0], &[3, 1], &device);
        let ids = Tensor::from_i64(&[2, 0], &[2], &device).unwrap();
        assert_eq!(table.gather(&ids).unwrap().to_vec().unwrap(), [30.0, 10.0]);
    }
}

/// A tensor over somebody else's memory computes as any other and copies nothing; what changes a tensor in place
/// changes a copy of it.
#[test]
fn shared_memory_is_read_and_never_written() {
    let owner = Arc::new(vec![1.0f32, -2.0, 3.0, 4.0, 5.0, 6.0]);
    let shared = Tensor::from_shared(owner.clone(), &[2, 3]).unwrap();
    assert!(shared.is_shared() && shared.device().gpu().is_none());
    assert_eq!((shared.dims(), shared.dtype()), (&[2, 3][..], DType::F32));
    assert_eq!(shared.cpu_f32().unwrap().as_ptr(), owner.as_ptr());
    assert_eq!(shared.reshape(&[3, 2]).unwrap().cpu_f32().unwrap().as_ptr(), owner.as_ptr());
    assert_eq!((&shared + 1.0).unwrap().to_vec().unwrap(), [2.0, -1.0, 4.0, 5.0, 6.0, 7.0]);
    for device in devices() {
        assert_eq!(shared.to_device(&device).unwrap().to_vec().unwrap(), *owner);
    }
    // Nothing else has this tensor's elements, so an update in place would write to them.
    let (indices, updates) =
        (Tensor::from_u32(&[1], &[1, 1], &Device::Cpu).unwrap(), t(&[9.0; 3], &[1, 3], &Device::Cpu));
    let alone = Tensor::from_shared(owner.clone(), &[2, 3]).unwrap();
    let row = Scatter::tuples(alone.shape(), indices.shape()).unwrap();
    let updated = alone.scatter_into(&row, Indices::Device(&indices), &updates, Update::Replace).unwrap();
    assert_eq!(updated.to_vec().unwrap(), [1.0, -2.0, 3.0, 9.0, 9.0, 9.0]);
    assert_eq!(*owner, [1.0, -2.0, 3.0, 4.0, 5.0, 6.0]);
    let owned = shared.clone().into_owned().unwrap();
    assert!(!owned.is_shared() && owned.cpu_f32().unwrap().as_ptr() != owner.as_ptr());
    drop(shared);
    assert_eq!((Arc::strong_count(&owner), owned.to_vec().unwrap()), (1, owner.to_vec()));
    let e = Tensor::from_shared(owner.clone(), &[2, 2]).unwrap_err();
    assert!(matches!(e, E::Argument { operation: "Tensor::from_shared", .. }), "{e}");
    assert!(Tensor::from_shared(owner, &[0, 3]).is_err());
}
