//! Elementwise functions of one, two and three operands on the CPU and the GPU, against the operators' truth in f64:
//! `function`, `binary`, `select`.

use recurve::{Device, Tensor};
use recurve_graph::ops::{Binary, Map, Where};
use recurve_graph::{Array, Element, Operator};
use recurve_tensor::{Function, Operation};
use recurve_tests::{Random, devices, poison, wide};

/// What functions are feared for, and numbers between.
fn numbers() -> Vec<f32> {
    let mut all = vec![
        0.0,
        0.25,
        0.3,
        0.5,
        0.75,
        0.927,
        0.928,
        1.0,
        1.5,
        2.0,
        2.5,
        3.0,
        3.5,
        4.5,
        6.0,
        7.99,
        20.5,
        60.0,
        87.0,
        89.0,
        100.0,
        255.9,
        256.0,
        1000.0,
        5000.0,
        32_768.0,
        40_000.0,
        65_503.0,
        65_519.0,
        65_520.0,
        70_000.9,
        1e-10,
        1e-7,
        3e-5,
        6.1e-5,
        7e-5,
        1e-3,
        0.1,
        1e6,
        2e9,
        2_147_483_648.0,
        3e9,
        5e9,
        1e10,
        1e19,
        1e30,
        f32::INFINITY,
    ];
    all.extend(Random(3).floats(600, 3.0).iter().map(|v| v.abs()));
    let negative: Vec<f32> = all.iter().map(|v| -v).collect();
    all.extend(negative);
    all.push(f32::NAN);
    all
}

/// Whether a number is the one that is wanted, but for rounding: `ulps` of it, and of 1 where results near 0 come of
/// larger numbers.
fn close(got: f32, want: f64, ulps: f64) -> bool {
    let narrow = want as f32;
    let step = f64::from(f32::EPSILON) * ulps;
    got.is_nan() && want.is_nan()
        || got == narrow
        // What is beyond the largest number may stay there, and what is no normal number may become 0.
        || (f64::from(got) - want).abs() <= step * want.abs().max(f64::from(f32::MIN_POSITIVE) / step.max(1e-30))
}

fn map(function: Function) -> Map {
    Map { function, element: Element::F32 }
}

#[test]
fn functions_are_their_truth() {
    let mut all = Function::ALL.to_vec();
    all.extend([8, 16, 32, 64].iter().flat_map(|&bits| [true, false].map(|signed| Function::Whole { bits, signed })));
    all.extend([
        Function::IsInf { negative: false, positive: true },
        Function::IsInf { negative: true, positive: false },
        Function::Celu { alpha: 0.5 },
        Function::Celu { alpha: -2.0 },
        Function::Selu { alpha: 2.0, gamma: 3.0 },
        Function::Swish { alpha: 1.7 },
        Function::Clip { low: -0.5, high: f32::INFINITY },
        Function::Clip { low: 3.0, high: 1.0 },
    ]);
    let x = numbers();
    let array = Array::new(&[x.len()], wide(&x));
    let mut wrong = Vec::new();
    for device in devices() {
        let tensor = Tensor::from_f32(&x, &[x.len()], &device).unwrap();
        for &f in &all {
            poison(&device, &[x.len()]);
            let got = tensor.map(f).unwrap().to_vec().unwrap();
            let want = map(f).reference(&[Some(&array)]).remove(0).unwrap();
            for ((&x, &got), &want) in x.iter().zip(&got).zip(&want.data) {
                let ulps = match f {
                    // Of e^x that is no normal number nothing may be left.
                    _ if want.abs() < 1e-36 && got.abs() < 1e-36 => continue,
                    Function::Celu { .. } | Function::Selu { .. } => 4.0 + 2.0 * f64::from(x.abs().min(100.0)),
                    // Beyond, GPUs use what their drivers have.
                    Function::Sin | Function::Cos | Function::Tan if device != Device::Cpu && x.abs() > 8192.0 => {
                        continue;
                    }
                    // Relative to 1 near their zeros.
                    Function::Sin | Function::Cos if (f64::from(got) - want).abs() < 2e-7 => continue,
                    Function::Tan if (f64::from(got) - want).abs() < 4e-7 * (1.0 + want * want) => continue,
                    // Differences of numbers about 1.
                    Function::Gelu | Function::GeluTanh | Function::Log
                        if (f64::from(got) - want).abs() < 4e-7 * (1.0 + x.abs().min(20.0) as f64) =>
                    {
                        continue;
                    }
                    Function::Acos if (f64::from(got) - want).abs() < 4e-7 => continue,
                    // WGSL allows 3 + 2 |x| of e^x.
                    Function::Exp | Function::Sinh | Function::Cosh | Function::Swish { .. } | Function::Mish => {
                        4.0 + 2.0 * f64::from(x.abs().min(100.0))
                    }
                    _ => 4.0,
                };
                if !close(got, want, ulps) {
                    wrong.push(format!("{f:?} of {x} is {got}, expected {want}, on {device}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(400)].join("\n"));
}

#[test]
fn ids_become_floats() {
    for device in devices() {
        let ids = Tensor::from_u32(&[0, 1, 7, 16_777_216, u32::MAX], &[5], &device).unwrap();
        let floats = ids.map(Function::Identity).unwrap().to_vec().unwrap();
        assert_eq!(floats, [0.0, 1.0, 7.0, 16_777_216.0, 4_294_967_296.0]);
        assert_eq!(ids.map(Function::NonZero).unwrap().to_vec().unwrap(), [0.0, 1.0, 1.0, 1.0, 1.0]);
    }
}

const BINARY: [(Operation, Binary); 15] = [
    (Operation::Add, Binary::Add),
    (Operation::Sub, Binary::Sub),
    (Operation::Mul, Binary::Mul),
    (Operation::Div, Binary::Div),
    (Operation::Pow, Binary::Pow),
    (Operation::Max, Binary::Max),
    (Operation::Min, Binary::Min),
    (Operation::Equal, Binary::Equal),
    (Operation::Less, Binary::Less),
    (Operation::LessOrEqual, Binary::LessOrEqual),
    (Operation::And, Binary::And),
    (Operation::Or, Binary::Or),
    (Operation::Xor, Binary::Xor),
    (Operation::Modulo, Binary::Modulo),
    (Operation::Remainder, Binary::Remainder),
];

#[test]
fn functions_of_two_numbers_are_their_truth() {
    let some: Vec<f32> = numbers()
        .into_iter()
        .step_by(7)
        .chain([0.0, -0.0, 1.0, -1.0, 2.0, 3.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
        .collect();
    let n = some.len();
    let (left, right) = (Array::new(&[n, 1], wide(&some)), Array::new(&[n], wide(&some)));
    let mut wrong = Vec::new();
    for device in devices() {
        let a = Tensor::from_f32(&some, &[n, 1], &device).unwrap();
        let b = Tensor::from_f32(&some, &[n], &device).unwrap();
        for (operation, binary) in BINARY.into_iter().chain([(Operation::PRelu, Binary::PRelu)]) {
            poison(&device, &[n * n]);
            let got = a.binary(&b, operation).unwrap().to_vec().unwrap();
            let want = binary.reference(&[Some(&left), Some(&right)]).remove(0).unwrap().data;
            for (e, (&got, &want)) in got.iter().zip(&want).enumerate() {
                let (x, y) = (some[e / n], some[e % n]);
                let quotient = (x / y).abs();
                let ulps = match operation {
                    Operation::Remainder | Operation::Modulo if device != Device::Cpu && quotient.is_infinite() => {
                        continue;
                    }
                    // Of a remainder of the other sign b is added.
                    Operation::Modulo if (f64::from(got) - want).abs() <= 1.2e-7 * f64::from(y.abs()) => continue,
                    Operation::Remainder => 0.0,
                    // The error of the exponent, of which e is a power.
                    Operation::Pow => 16.0 + 4.0 * f64::from((x.abs().log2() * y).abs().min(200.0)),
                    _ => 4.0,
                };
                let overflows = want.abs() > f64::from(f32::MAX) && got.is_infinite() && (got < 0.0) == (want < 0.0);
                if !(overflows || close(got, want, ulps)) {
                    wrong.push(format!("{binary:?} of {x} and {y} is {got}, expected {want}, on {device}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(400)].join("\n"));
}

/// Powers that the CPU has a faster way for are what the others are.
#[test]
fn powers_by_one_exponent() {
    let x = numbers();
    let array = Array::new(&[x.len()], wide(&x));
    for device in devices() {
        let a = Tensor::from_f32(&x, &[x.len()], &device).unwrap();
        for e in [0.0f32, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, 1.5] {
            let b = Tensor::from_f32(&[e], &[], &device).unwrap();
            let got = a.binary(&b, Operation::Pow).unwrap().to_vec().unwrap();
            let want =
                Binary::Pow.reference(&[Some(&array), Some(&Array::new(&[], vec![e.into()]))]).remove(0).unwrap();
            for ((&x, &got), &want) in x.iter().zip(&got).zip(&want.data) {
                let overflows = want.abs() > f64::from(f32::MAX) && got == want.signum() as f32 * f32::INFINITY;
                let ulps = 16.0 + 4.0 * f64::from((x.abs().log2() * e).abs().min(200.0));
                assert!(overflows || close(got, want, ulps), "{x}^{e} is {got}, expected {want}, on {device}");
            }
        }
    }
}

/// Quotients of whole numbers, also where the division rounds up to the next one.
#[test]
fn whole_quotients() {
    let numbers: Vec<i32> = (-9..10).chain([16_777_215, -16_777_215, 8_388_607, 5_592_405, 46_341, 65_537]).collect();
    let floats: Vec<f32> = numbers.iter().map(|&v| v as f32).collect();
    let n = floats.len();
    for device in devices() {
        let a = Tensor::from_f32(&floats, &[n, 1], &device).unwrap();
        let b = Tensor::from_f32(&floats, &[n], &device).unwrap();
        let [quotient, remainder, modulo] = [Operation::Quotient, Operation::Remainder, Operation::Modulo]
            .map(|op| a.binary(&b, op).unwrap().to_vec().unwrap());
        for e in 0..n * n {
            let (x, y) = (numbers[e / n], numbers[e % n]);
            if y != 0 {
                let said = format!("{x} and {y} on {device}");
                assert_eq!(quotient[e], (x / y) as f32, "{said}");
                assert_eq!(remainder[e], (x % y) as f32, "{said}");
                assert_eq!(modulo[e], (x - (f64::from(x) / f64::from(y)).floor() as i32 * y) as f32, "{said}");
            }
        }
    }
}

#[test]
fn operands_are_broadcast() {
    let mut r = Random(5);
    let shapes: [[&[usize]; 3]; 7] = [
        [&[2, 3, 5], &[2, 3, 5], &[2, 3, 5]],
        [&[2, 3, 5], &[5], &[3, 1]],
        [&[], &[4, 1], &[1, 7]],
        [&[1, 1, 6], &[2, 3, 1], &[]],
        [&[2, 1, 3, 1, 2, 1], &[3, 1, 2, 1, 4], &[1]],
        // More than a thread takes.
        [&[300, 1, 2000], &[7, 1], &[2000]],
        [&[1], &[1], &[1]],
    ];
    for dims in shapes {
        let data = dims.map(|d| r.floats(d.iter().product(), 1.0));
        let condition: Vec<f32> = data[0].iter().map(|&v| if v > 0.3 { v } else { 0.0 }).collect();
        let arrays = [&condition, &data[1], &data[2]].map(|d| wide(d));
        let [c, x, y] = [0, 1, 2].map(|n| Array::new(dims[n], arrays[n].clone()));
        let sum = Binary::Sub.reference(&[Some(&c), Some(&x)]).remove(0).unwrap();
        let chosen = Where.reference(&[Some(&c), Some(&x), Some(&y)]).remove(0).unwrap();
        for device in devices() {
            let [a, b, d] = [&condition, &data[1], &data[2]];
            let t = |data: &[f32], n: usize| Tensor::from_f32(data, dims[n], &device).unwrap();
            let (a, b, d) = (t(a, 0), t(b, 1), t(d, 2));
            poison(&device, &[sum.data.len(), chosen.data.len()]);
            let got = a.sub(&b).unwrap();
            assert_eq!(got.dims(), sum.dims);
            let exact = |got: &Tensor, want: &[f64]| {
                got.to_vec().unwrap().iter().zip(want).all(|(&g, &w)| (f64::from(g) - w).abs() < 1e-6)
            };
            assert!(exact(&got, &sum.data), "{dims:?} on {device}");
            let got = a.select(&b, &d).unwrap();
            assert_eq!(got.dims(), chosen.dims);
            assert!(exact(&got, &chosen.data), "{dims:?} on {device}");
        }
    }
    for device in devices() {
        let t = |dims: &[usize]| Tensor::full(dims, 1.0, recurve::DType::F32, &device).unwrap();
        assert!(t(&[2]).select(&t(&[3]), &t(&[1])).is_err());
        assert!(t(&[2]).binary(&t(&[3]), Operation::Max).is_err());
        let ids = Tensor::from_u32(&[1, 2], &[2], &device).unwrap();
        assert!(ids.select(&t(&[2]), &t(&[2])).is_err());
        assert!(t(&[2]).select(&ids, &t(&[2])).is_err());
        // What is true is what is not 0, NaN too.
        let c = Tensor::from_f32(&[0.0, -0.0, 0.1, f32::NAN], &[4], &device).unwrap();
        assert_eq!(
            c.select(&t(&[4]), &t(&[4]).sub(&t(&[4])).unwrap()).unwrap().to_vec().unwrap(),
            [0.0, 0.0, 1.0, 1.0]
        );
    }
}
