//! Convolutions, pooling, normalizations, reductions, products and spectra of graphs, on every device, held against
//! their definitions in f64.

use recurve::testing::{Tolerance, compare};
use recurve::{DType, Device, Reduction, Tensor, TensorError};
use recurve_graph::{
    Array, Constant, Data, Element, Executor, GraphBuilder, Int, IntArray, Operator, RunOptions, ValueType, ops,
};
use recurve_tensor::{Normalization, Pooling, Window};
use recurve_tests::{Random, devices, own_gpu};
use std::sync::Arc;

/// An input: floats of a shape, or whole numbers.
#[derive(Clone)]
enum Given {
    Floats(Vec<usize>),
    Ints(Vec<usize>, Vec<i64>),
}

fn f(dims: &[usize]) -> Given {
    Given::Floats(dims.to_vec())
}

fn i(dims: &[usize], data: &[i64]) -> Given {
    Given::Ints(dims.to_vec(), data.to_vec())
}

/// Runs an operator with known and with open dimensions on these devices, and holds all outputs against f64.
fn check_on(
    devices: &[Device],
    operator: impl Operator + Clone + 'static,
    inputs: &[Given],
    outputs: usize,
    tolerance: f64,
) {
    let mut r = Random(11);
    let numbers: Vec<Vec<f32>> = inputs
        .iter()
        .map(|g| match g {
            Given::Floats(dims) => r.floats(dims.iter().product(), 1.0),
            Given::Ints(_, data) => data.iter().map(|&v| v as f32).collect(),
        })
        .collect();
    for open in [false, true] {
        let mut g = GraphBuilder::new();
        let names: Vec<String> = (0..inputs.len()).map(|n| format!("x{n}")).collect();
        let out: Vec<String> = (0..outputs).map(|n| format!("y{n}")).collect();
        for (name, given) in names.iter().zip(inputs) {
            let (element, dims) = match given {
                Given::Floats(dims) => (Element::F32, dims),
                Given::Ints(dims, _) => (Element::Int(Int::I64), dims),
            };
            match given {
                // Whole numbers say where and how much: constants with known dimensions, inputs with open ones.
                Given::Ints(dims, data) if !open => g.constant(name, dims, Constant::Int(Int::I64, data[..].into())),
                _ => g.input(name, ValueType::new(element, dims.iter().map(|&d| if open { None } else { Some(d) }))),
            }
        }
        let refs = |all: &[String]| all.iter().map(String::clone).collect::<Vec<_>>();
        let (from, to) = (refs(&names), refs(&out));
        let (from, to): (Vec<&str>, Vec<&str>) =
            (from.iter().map(|s| &**s).collect(), to.iter().map(|s| &**s).collect());
        g.node("node", operator.clone(), &from, &to);
        out.iter().for_each(|o| g.output(o, o));
        let graph = Arc::new(g.build().unwrap());
        let arrays: Vec<Array> = inputs
            .iter()
            .zip(&numbers)
            .map(|(g, n)| match g {
                Given::Floats(dims) | Given::Ints(dims, _) => Array::new(dims, n.iter().map(|&v| v.into()).collect()),
            })
            .collect();
        let want = operator.reference(&arrays.iter().map(Some).collect::<Vec<_>>());
        for device in devices {
            let executor = Executor::new(graph.clone(), |_| None, device).unwrap();
            let data: Vec<Option<Data>> = inputs
                .iter()
                .zip(&numbers)
                .filter(|(g, _)| open || matches!(g, Given::Floats(_)))
                .map(|(g, n)| {
                    Some(match g {
                        Given::Floats(dims) => Tensor::from_f32(n, dims, device).unwrap().into(),
                        Given::Ints(dims, data) => IntArray::new(dims, &data[..]).into(),
                    })
                })
                .collect();
            // The second run takes its memory from the first.
            for _ in 0..2 {
                let got = executor.run_data(&data, &RunOptions::default()).unwrap_or_else(|e| {
                    panic!("{operator:?} on {device}: {e}");
                });
                for (n, (got, want)) in got.iter().zip(&want).enumerate() {
                    let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
                    assert_eq!(got.dims(), want.dims, "{operator:?}, output {n}, on {device}");
                    let kind = &graph.value(graph.outputs()[n].1).kind;
                    assert!(kind.has_dims(got.dims()), "{operator:?}: {kind}");
                    compare(&floats(got), &want.data, Tolerance::new(tolerance))
                        .unwrap_or_else(|e| panic!("{operator:?}, output {n}, on {device}: {e}"));
                }
            }
        }
    }
}

fn floats(d: &Data) -> Vec<f32> {
    match d {
        Data::Tensor(t) if t.dtype() == DType::U32 => t.to_vec_u32().unwrap().into_iter().map(|v| v as f32).collect(),
        Data::Tensor(t) => t.to_vec().unwrap(),
        Data::Ints(i) => i.data().iter().map(|&v| v as f32).collect(),
    }
}

fn check(operator: impl Operator + Clone + 'static, inputs: &[Given], tolerance: f64) {
    check_on(&devices(), operator, inputs, 1, tolerance);
}

fn windows(strides: &[usize], dilations: &[usize], pads: &[[usize; 2]]) -> ops::Windows {
    ops::Windows {
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        padding: ops::Padding::Explicit(pads.to_vec()),
        ..ops::Windows::default()
    }
}

/// Convolutions of one to three axes: a weight's dimensions, groups, windows, x's dimensions.
fn convolutions() -> Vec<(Vec<usize>, usize, ops::Windows, Vec<usize>)> {
    let none = ops::Windows::default();
    let same = |padding| ops::Windows { padding, ..windows(&[2], &[1], &[]) };
    let same = |padding| ops::Windows { strides: vec![2, 3], dilations: vec![2, 1], ..same(padding) };
    vec![
        (vec![5, 3, 3], 1, none.clone(), vec![2, 3, 17]),
        (vec![4, 3, 1], 1, none.clone(), vec![3, 3, 33]),
        (vec![4, 3, 1], 1, windows(&[2], &[], &[[1, 2]]), vec![3, 3, 33]),
        (vec![6, 2, 4], 3, windows(&[3], &[2], &[[3, 1]]), vec![2, 6, 40]),
        (vec![9, 1, 5], 9, windows(&[1], &[2], &[[4, 4]]), vec![2, 9, 31]),
        (vec![8, 1, 3], 4, windows(&[2], &[], &[[0, 1]]), vec![1, 4, 30]),
        (vec![1, 7, 3], 1, windows(&[], &[], &[[1, 1]]), vec![2, 7, 9]),
        (vec![16, 8, 1, 5], 2, windows(&[1, 2], &[], &[[0, 0], [2, 2]]), vec![1, 16, 2, 65]),
        (vec![16, 1, 3, 3], 16, windows(&[1, 1], &[2, 1], &[[0, 0], [1, 1]]), vec![1, 16, 7, 33]),
        (vec![7, 4, 3, 2], 1, windows(&[2, 1], &[1, 3], &[[1, 0], [2, 3]]), vec![2, 4, 10, 9]),
        (vec![3, 2, 3, 3], 1, same(ops::Padding::SameUpper), vec![1, 2, 11, 14]),
        (vec![3, 2, 4, 2], 1, same(ops::Padding::SameLower), vec![2, 2, 12, 13]),
        (vec![4, 2, 2, 3, 2], 2, windows(&[1, 2, 1], &[], &[[1, 0], [1, 1], [0, 1]]), vec![2, 4, 4, 7, 5]),
        // Taps that never stand on the axis.
        (vec![2, 2, 3], 1, windows(&[1], &[5], &[[5, 5]]), vec![1, 2, 3]),
    ]
}

#[test]
fn convolutions_are_sums_over_windows() {
    for (weight, groups, windows, x) in convolutions() {
        let conv = ops::Conv { windows, groups };
        check(conv.clone(), &[f(&x), f(&weight)], 1e-5);
        check(conv, &[f(&x), f(&weight), f(&[weight[0]])], 1e-5);
    }
}

#[test]
fn transposed_convolutions_are_their_transposes() {
    for (weight, groups, mut windows, x) in convolutions() {
        // Without padding nothing is cut off a result that may be small.
        windows.padding = ops::Padding::Explicit(Vec::new());
        let mut weight = weight;
        (weight[0], weight[1]) = (x[1], weight[0] / groups);
        let plain = ops::ConvTranspose { windows, groups, output_padding: vec![], output_shape: None };
        check(plain.clone(), &[f(&x), f(&weight)], 1e-5);
        let axes = x.len() - 2;
        let cut = ops::Padding::Explicit(vec![[1, 0]; axes]);
        let padded = ops::ConvTranspose {
            windows: ops::Windows { padding: cut, strides: vec![2; axes], ..plain.windows.clone() },
            output_padding: vec![1; axes],
            ..plain.clone()
        };
        check(padded, &[f(&x), f(&weight), f(&[weight[1] * groups])], 1e-5);
        let shape: Vec<usize> = x[2..].iter().map(|n| 2 * n + 1).collect();
        let windows =
            ops::Windows { strides: vec![2; axes], padding: ops::Padding::SameUpper, ..plain.windows.clone() };
        check(ops::ConvTranspose { windows, output_shape: Some(shape), ..plain }, &[f(&x), f(&weight)], 1e-5);
    }
}

/// Columns in many blocks, rows in blocks, and a convolution that is one product.
#[test]
fn large_convolutions() {
    let pads = windows(&[1, 1], &[], &[[1, 1], [1, 1]]);
    check(ops::Conv { windows: pads, groups: 1 }, &[f(&[1, 24, 70, 41]), f(&[9, 24, 3, 3])], 3e-5);
    check(ops::Conv { windows: windows(&[1], &[], &[]), groups: 1 }, &[f(&[1, 40, 3000]), f(&[4, 40, 9])], 3e-5);
    let plain = ops::Windows::default();
    let bias = f(&[130]);
    check(ops::Conv { windows: plain.clone(), groups: 1 }, &[f(&[1, 128, 300]), f(&[130, 128, 1]), bias], 3e-5);
    let transposed = ops::ConvTranspose { windows: plain, groups: 1, output_padding: vec![], output_shape: None };
    check(transposed, &[f(&[1, 8, 5000]), f(&[8, 20, 7])], 3e-5);
}

#[test]
fn pooling() {
    let sized = |sizes: &[usize], w: ops::Windows, ceil| ops::Windows { sizes: sizes.to_vec(), ceil, ..w };
    let cases = [
        (sized(&[3], windows(&[2], &[], &[[1, 1]]), false), vec![2, 3, 37]),
        (sized(&[3], windows(&[2], &[2], &[[0, 2]]), true), vec![2, 3, 12]),
        (sized(&[2, 3], windows(&[1, 2], &[], &[[1, 0], [1, 2]]), true), vec![1, 3, 9, 11]),
        (sized(&[3, 3], windows(&[3, 2], &[2, 1], &[[2, 2], [1, 1]]), false), vec![2, 2, 9, 70]),
        (sized(&[2, 2, 3], windows(&[2, 1, 2], &[], &[[1, 1], [0, 1], [1, 0]]), true), vec![1, 2, 5, 4, 6]),
    ];
    for (windows, x) in cases {
        for pooling in [
            Pooling::Average { padded: false },
            Pooling::Average { padded: true },
            Pooling::Norm { p: 1 },
            Pooling::Norm { p: 2 },
            Pooling::Norm { p: 3 },
        ] {
            check(ops::Pool { pooling, windows: windows.clone(), column_major: false }, &[f(&x)], 1e-5);
        }
        for column_major in [false, true] {
            let max = ops::Pool { pooling: Pooling::Max, windows: windows.clone(), column_major };
            check_on(&devices(), max, &[f(&x)], 2, 0.0);
        }
    }
    for reduction in [Reduction::Mean, Reduction::Max, Reduction::L1, Reduction::L2] {
        check(ops::GlobalPool(reduction), &[f(&[2, 3, 5, 7])], 1e-5);
    }
}

#[test]
fn normalizations() {
    use ops::Together::{Group, Instance, Layer, RootMeanSquare};
    let epsilon = 1e-3;
    let x = f(&[3, 6, 5, 7]);
    for axis in [-4i64, -1, 1, 2] {
        let place = usize::try_from(if axis < 0 { axis + 4 } else { axis }).unwrap();
        let part = f(&[3, 6, 5, 7][place..]);
        let layer = ops::Normalize { together: Layer(axis), epsilon };
        check_on(&devices(), layer, &[x.clone(), part.clone(), part.clone()], 3, 2e-5);
        check_on(&devices(), layer, &[x.clone(), f(&[7])], 3, 2e-5);
        check(ops::Normalize { together: RootMeanSquare(axis), epsilon }, &[x.clone(), part], 2e-5);
        check(ops::Normalize { together: RootMeanSquare(axis), epsilon }, &[x.clone(), f(&[1])], 2e-5);
    }
    check(ops::Normalize { together: Instance, epsilon }, &[x.clone(), f(&[6]), f(&[6])], 2e-5);
    for (groups, by_group, n) in [(2, true, 2), (3, false, 6), (6, false, 6), (1, true, 1)] {
        check(ops::Normalize { together: Group { groups, by_group }, epsilon }, &[x.clone(), f(&[n]), f(&[n])], 2e-5);
    }
    for axis in [-1, 0, 1] {
        for absolute in [false, true] {
            check(ops::LpNorm { axis, absolute }, &[f(&[4, 5, 6])], 1e-5);
        }
    }
    // A variance may not be below zero, so its input is one that was squared.
    for device in devices() {
        let t = |v: &[f32], dims: &[usize]| Tensor::from_f32(v, dims, &device).unwrap();
        let x = t(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[2, 2, 2]);
        let [scale, offset, mean, variance] = [[2.0, 1.0], [0.5, -1.0], [1.0, 3.0], [4.0, 0.25]].map(|v| t(&v, &[2]));
        let y = x.batch_norm([&scale, &offset, &mean, &variance], 0.0).unwrap().to_vec().unwrap();
        assert_eq!(y, [0.5, 1.5, -1.0, 1.0, 4.5, 5.5, 7.0, 9.0], "{device}");
        let flat = x.reshape(&[4, 2]).unwrap();
        let y = flat.batch_norm([&scale, &offset, &mean, &variance], 0.0).unwrap().to_vec().unwrap();
        assert_eq!(y[..4], [0.5, -3.0, 2.5, 1.0], "{device}");
    }
}

#[test]
fn reductions_over_any_axes() {
    use Reduction::{L1, L2, LogSumExp, Max, Mean, Min, Product, Sum, SumSquare};
    let all: [&[i64]; 9] = [&[], &[0], &[1], &[-1], &[0, 1], &[1, 2], &[0, 2], &[3, 1], &[0, 1, 2, -1]];
    let dims = [3, 4, 1, 70];
    for reduction in [Sum, Mean, Max, Min, Product, L1, L2, SumSquare, LogSumExp] {
        for axes in all {
            for keep_dims in [false, true] {
                let over = |axes: &[i64]| ops::ReduceOver {
                    reduction,
                    axes: axes.to_vec(),
                    keep_dims,
                    noop: false,
                    int: None,
                };
                let tolerance = if reduction == Product { 1e-4 } else { 2e-5 };
                check(over(axes), &[f(&dims)], tolerance);
                if keep_dims && !axes.is_empty() {
                    check(over(&[]), &[f(&dims), i(&[axes.len()], axes)], tolerance);
                }
            }
        }
        let noop = ops::ReduceOver { reduction, axes: vec![], keep_dims: true, noop: true, int: None };
        check(noop, &[f(&[5, 70])], 1e-5);
    }
    // Infinities do not become NaN.
    for device in devices() {
        let low = f32::NEG_INFINITY;
        let x = Tensor::from_f32(&[low, low, 1.0, low, f32::INFINITY, 3.0], &[3, 2], &device).unwrap();
        let y = x.reduce(LogSumExp, 1).unwrap().to_vec().unwrap();
        assert_eq!(y, [low, 1.0, f32::INFINITY], "{device}");
        let positive = Tensor::from_f32(&[1.0, 2.0, 4.0, 4.0], &[2, 2], &device).unwrap();
        let y = positive.reduce_axes(Reduction::LogSum, &[1]).unwrap().to_vec().unwrap();
        compare(&y, &[3f64.ln(), 8f64.ln()], Tolerance::new(1e-6)).unwrap();
        assert!(matches!(x.reduce_axes(Sum, &[1, 1]), Err(TensorError::Argument { argument: "axes", .. })));
    }
}

#[test]
fn reductions_of_whole_numbers_are_exact() {
    let large = i64::from(i32::MAX);
    let x = i(&[2, 3], &[large, 1, 2, -7, 5, 4]);
    let over = |reduction, int| ops::ReduceOver { reduction, axes: vec![1], keep_dims: false, noop: false, int };
    let mut g = GraphBuilder::new();
    g.input("x", ValueType::new(Element::Int(Int::I32), [2, 3]));
    let all = [Reduction::Sum, Reduction::Max, Reduction::Min, Reduction::Product, Reduction::L1, Reduction::Mean];
    for (n, reduction) in all.into_iter().enumerate() {
        g.node(&format!("n{n}"), over(reduction, Some(Int::I32)), &["x"], &[&format!("y{n}")]);
        g.output(&format!("y{n}"), &format!("y{n}"));
    }
    let executor = Executor::new(Arc::new(g.build().unwrap()), |_| None, &Device::Cpu).unwrap();
    let Given::Ints(dims, data) = x else { unreachable!() };
    let got = executor.run_data(&[Some(IntArray::new(&dims, data).into())], &RunOptions::default()).unwrap();
    let got: Vec<Vec<i64>> = got.into_iter().map(|d| d.unwrap().to_ints().unwrap().data().to_vec()).collect();
    let wrapped = |v: i64| i64::from(v as i32);
    let want = [
        [wrapped(large + 3), 2],
        [large, 5],
        [1, -7],
        [wrapped(2 * large), -140],
        [wrapped(large + 3), 16],
        [wrapped((large + 3) / 3), 0],
    ];
    assert_eq!(got, want.map(|w| w.to_vec()));
}

#[test]
fn shares_along_any_axis() {
    for shares in [ops::Shares::Softmax, ops::Shares::LogSoftmax, ops::Shares::Hardmax] {
        for axis in [-1, 0, 1, 2] {
            for flattened in [false, true] {
                check(ops::SoftmaxOver { shares, axis, flattened }, &[f(&[3, 70, 5])], 1e-5);
            }
        }
    }
    // Beyond the widest row of a workgroup.
    for shares in [ops::Shares::Softmax, ops::Shares::LogSoftmax] {
        check(ops::SoftmaxOver { shares, axis: -1, flattened: false }, &[f(&[2, 70_000])], 1e-5);
    }
}

#[test]
fn products() {
    for (a, b) in [
        (&[3, 4][..], &[4, 5][..]),
        (&[4], &[4]),
        (&[4], &[4, 5]),
        (&[3, 4], &[4]),
        (&[2, 3, 4], &[4, 5]),
        (&[3, 4], &[2, 4, 5]),
        (&[2, 1, 3, 4], &[5, 4, 6]),
        (&[1, 3, 4], &[5, 4, 6]),
        (&[2, 3, 1, 4], &[2, 1, 4, 6]),
        (&[5, 3, 4], &[4]),
        (&[4], &[5, 4, 2]),
        (&[33, 65], &[65, 17]),
    ] {
        check(ops::MatMul, &[f(a), f(b)], 1e-5);
    }
    for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let a = if transpose_a { [5, 3] } else { [3, 5] };
        let b = if transpose_b { [4, 5] } else { [5, 4] };
        for (alpha, beta) in [(1.0, 1.0), (0.5, 1.0), (1.0, -2.0), (0.25, 0.0)] {
            let gemm = ops::Gemm { alpha, beta, transpose_a, transpose_b };
            check(gemm, &[f(&a), f(&b)], 1e-5);
            for c in [&[4][..], &[3, 1], &[1, 4], &[1], &[], &[3, 4]] {
                check(gemm, &[f(&a), f(&b), f(c)], 1e-5);
            }
        }
    }
    let whole = |dims: &[usize]| {
        let n = dims.iter().product::<usize>() as i64;
        i(dims, &(0..n).map(|v| v * 7 % 11 - 5).collect::<Vec<_>>())
    };
    check(ops::MatMul, &[whole(&[2, 3, 4]), whole(&[4, 2])], 0.0);
}

#[test]
fn einsum() {
    let all: [(&str, &[&[usize]]); 14] = [
        ("ij,jk->ik", &[&[3, 4], &[4, 5]]),
        ("ij->ji", &[&[3, 4]]),
        ("ij->", &[&[3, 4]]),
        ("ii->i", &[&[4, 4]]),
        ("...ii->...i", &[&[2, 3, 3]]),
        ("bij,bjk->bik", &[&[2, 3, 4], &[2, 4, 5]]),
        ("bhqd,bhkd->bhqk", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
        ("i,j->ij", &[&[3], &[4]]),
        ("i,i", &[&[3], &[3]]),
        ("ij,jk", &[&[3, 4], &[4, 5]]),
        ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]]),
        ("ab,bc,cd->ad", &[&[2, 3], &[3, 4], &[4, 5]]),
        ("ij,kj->k", &[&[3, 4], &[5, 4]]),
        ("bc,bc,b->c", &[&[2, 3], &[2, 3], &[2]]),
    ];
    for (equation, dims) in all {
        let inputs: Vec<Given> = dims.iter().map(|d| f(d)).collect();
        check(ops::Einsum { equation: equation.into() }, &inputs, 1e-5);
    }
    let x = Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu).unwrap();
    for equation in ["ij,jk->ik", "ijk->i", "ij->ijk", "i j ->", "ij->ii", "i1->i", "...i...->i", "", "->"] {
        let got = recurve_tensor::einsum(equation, &[&x]);
        assert_eq!(got.is_err(), equation != "i j ->", "{equation}");
    }
    let square = recurve_tensor::einsum("ii->i", &[&x]).unwrap_err();
    assert!(square.to_string().contains("both of size"), "{square}");
}

#[test]
fn spectra() {
    for (axis, inverse, onesided, dims) in [
        (1, false, false, &[2, 10, 1][..]),
        (-2, false, false, &[2, 10, 2]),
        (0, false, true, &[9, 3, 1]),
        (1, false, true, &[2, 8, 3, 1]),
        (1, true, false, &[2, 10, 2]),
        (0, true, true, &[6, 3, 2]),
        (1, true, true, &[2, 5, 2]),
        (1, true, false, &[2, 5, 1]),
    ] {
        let dft = ops::Dft { axis, inverse, onesided };
        check(dft, &[f(dims)], 1e-5);
        for length in [4, 7, 16] {
            check(dft, &[f(dims), i(&[], &[length])], 1e-5);
        }
    }
    check(ops::Dft { axis: -2, inverse: false, onesided: true }, &[f(&[1, 512, 1])], 1e-4);
    for onesided in [false, true] {
        let stft = ops::Stft { onesided };
        check(stft, &[f(&[2, 50, 1]), i(&[], &[5]), f(&[16])], 1e-5);
        check(stft, &[f(&[2, 50, 1]), i(&[], &[5]), f(&[16]), i(&[], &[16])], 1e-5);
        check(stft, &[f(&[2, 50]), i(&[], &[16]), f(&[16])], 1e-5);
    }
    check(ops::Stft { onesided: false }, &[f(&[1, 40, 2]), i(&[], &[7]), f(&[9])], 1e-5);
    for kind in [ops::Cosines::Hann, ops::Cosines::Hamming, ops::Cosines::Blackman] {
        for periodic in [false, true] {
            check(ops::CosineWindow { kind, periodic }, &[i(&[], &[37])], 1e-6);
        }
    }
}

/// What does not fit is an error with a name in it, never a panic.
#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let t = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &device).unwrap();
        let (x, w) = (t(&[1, 4, 9]), t(&[6, 2, 3]));
        let conv = |w: &Tensor, bias: Option<&Tensor>, window: Window, groups| {
            x.conv(w, bias, &[window], groups).map(|_| ()).unwrap_err().to_string()
        };
        let three = Window::new(3);
        let huge = usize::MAX;
        for (e, word) in [
            (conv(&w, None, three, 1), "weight"),
            (conv(&w, None, three, 3), "groups"),
            (conv(&w, None, three, 0), "groups"),
            (conv(&t(&[5, 2, 3]), None, three, 2), "weight"),
            (conv(&w, Some(&t(&[5])), three, 2), "bias"),
            (conv(&w, None, Window::new(2), 2), "weight"),
            (conv(&w, None, Window { size: 0, ..three }, 2), "windows"),
            (conv(&w, None, Window { stride: 0, ..three }, 2), "windows"),
            (conv(&w, None, Window { dilation: 0, ..three }, 2), "windows"),
            (conv(&w, None, Window { dilation: huge, ..three }, 2), "windows"),
            (conv(&w, None, Window { before: huge, ..three }, 2), "windows"),
            (conv(&w, None, Window { after: huge / 2, ..three }, 2), "windows"),
            (conv(&w, None, Window { dilation: 5, ..three }, 2), "windows"),
        ] {
            assert!(e.contains(word), "{e} does not say {word}");
        }
        assert!(x.conv(&w, None, &[three, three], 2).is_err() && x.conv(&w, None, &[], 2).is_err());
        assert!(x.conv_transpose(&t(&[4, 3, 3]), None, &[three], 2, &[0]).is_err());
        assert!(x.conv_transpose(&t(&[4, 3, 3]), None, &[three], 2, &[11, 1]).is_err());
        let far = Window { stride: 1 << 40, ..three };
        assert!(x.conv_transpose(&t(&[4, 3, 3]), None, &[far], 2, &[11]).is_err());
        assert!(x.pool(Pooling::Max, &[three], &[0]).is_err());
        assert!(x.pool(Pooling::Max, &[three], &[huge]).is_err());
        assert!(x.pool(Pooling::Norm { p: 0 }, &[three], &[7]).is_err());
        let how = Normalization { width: 9, centered: true, epsilon: 1e-3, scale: None, offset: None, inner: 1 };
        for bad in [
            Normalization { width: 0, ..how },
            Normalization { width: 7, ..how },
            Normalization { inner: 0, ..how },
            Normalization { inner: huge, scale: Some(&t(&[4])), ..how },
            Normalization { epsilon: f32::NAN, ..how },
            Normalization { scale: Some(&t(&[5])), ..how },
            Normalization { scale: Some(&t(&[2, 2])), ..how },
        ] {
            assert!(x.normalize(&bad).is_err(), "{bad:?}");
        }
        assert!(x.frames(2, 4, 3, 2).is_ok() && x.frames(2, 4, 3, 3).is_err() && x.frames(2, 4, huge, 2).is_err());
    }
}

/// Loops end after a few iterations: sums go on in the next dispatch, and what cannot be divided is refused.
#[test]
fn loops_that_end_early() {
    let device = own_gpu();
    device.gpu().unwrap().end_loops_after(150);
    device.gpu().unwrap().limit_work(1 << 14);
    let on = [device.clone()];
    for (weight, x) in [(&[6, 40, 3, 5][..], &[2, 40, 6, 9][..]), (&[2, 151, 1, 3], &[1, 151, 2, 9])] {
        let windows = windows(&[1, 2], &[], &[[1, 1], [2, 2]]);
        let inputs = [f(x), f(weight), f(&[weight[0]])];
        check_on(&on, ops::Conv { windows: windows.clone(), groups: 1 }, &inputs, 1, 3e-5);
        let mut turned = weight.to_vec();
        (turned[0], turned[1]) = (x[1], weight[0]);
        let windows = ops::Windows { padding: ops::Padding::Explicit(vec![[0, 0], [1, 1]]), ..windows };
        let transposed = ops::ConvTranspose { windows, groups: 1, output_padding: vec![], output_shape: None };
        check_on(&on, transposed, &[f(x), f(&turned), f(&[weight[0]])], 1, 3e-5);
    }
    for width in [2000, 64 * 46, 64 * 46 + 1, 20_000] {
        let layer = ops::Normalize { together: ops::Together::Layer(-1), epsilon: 1e-3 };
        check_on(&on, layer, &[f(&[3, width]), f(&[width]), f(&[width])], 3, 3e-5);
        let group = ops::Normalize { together: ops::Together::Group { groups: 2, by_group: false }, epsilon: 1e-3 };
        check_on(&on, group, &[f(&[2, 4, width / 2]), f(&[4]), f(&[4])], 1, 3e-5);
        let log = ops::SoftmaxOver { shares: ops::Shares::LogSoftmax, axis: -1, flattened: false };
        check_on(&on, log, &[f(&[3, width])], 1, 2e-5);
        for reduction in [Reduction::Product, Reduction::L1, Reduction::L2, Reduction::LogSumExp] {
            let over = ops::ReduceOver { reduction, axes: vec![1], keep_dims: true, noop: false, int: None };
            check_on(&on, over, &[f(&[3, width])], 1, 1e-4);
        }
    }
    let x = Tensor::zeros(&[1, 1, 400], DType::F32, &device).unwrap();
    assert!(x.pool(Pooling::Max, &[Window::new(150)], &[251]).is_ok());
    let e = x.pool(Pooling::Max, &[Window::new(151)], &[250]).unwrap_err();
    assert!(matches!(e, TensorError::Unsupported { .. }), "{e}");
}

/// A NaN comes out where it goes in, and nowhere else.
#[test]
fn nan_stays_nan() {
    for device in devices() {
        for bits in [0x7fc0_0000u32, 0xffc0_0001, 0x7f80_0001] {
            let mut data = vec![0.5f32; 2 * 3 * 8];
            data[3 * 8 + 8 + 4] = f32::from_bits(bits);
            let x = Tensor::from_f32(&data, &[2, 3, 8], &device).unwrap();
            let is_nan = |t: Tensor| -> Vec<bool> { t.to_vec().unwrap().iter().map(|v| v.is_nan()).collect() };
            let near = |e: usize| e / 8 == 4 && (3..=5).contains(&(e % 8));
            let padded = Window { before: 1, after: 1, ..Window::new(3) };
            for pooling in
                [Pooling::Max, Pooling::Average { padded: true }, Pooling::Norm { p: 2 }, Pooling::Norm { p: 3 }]
            {
                let got = is_nan(x.pool(pooling, &[padded], &[8]).unwrap());
                assert_eq!(got, (0..48).map(near).collect::<Vec<_>>(), "{pooling:?} on {device}");
            }
            let places = x.max_pool_indices(&[padded], &[8], false).unwrap().to_vec_u32().unwrap();
            assert_eq!(&places[35..38], &[36; 3], "{device}");
            let w = Tensor::full(&[3, 1, 3], 1.0, DType::F32, &device).unwrap();
            let got = is_nan(x.conv(&w, None, &[padded], 3).unwrap());
            assert_eq!(got, (0..48).map(near).collect::<Vec<_>>(), "conv on {device}");
            let got = is_nan(x.conv_transpose(&w, None, &[padded], 3, &[8]).unwrap());
            assert_eq!(got, (0..48).map(near).collect::<Vec<_>>(), "conv_transpose on {device}");
            let how = Normalization { width: 8, centered: true, epsilon: 1e-3, scale: None, offset: None, inner: 1 };
            let got = is_nan(x.normalize(&how).unwrap().y);
            assert_eq!(got, (0..48).map(|e| e / 8 == 4).collect::<Vec<_>>(), "normalize on {device}");
            assert_eq!(is_nan(x.log_softmax().unwrap()), got, "log_softmax on {device}");
            for reduction in [
                Reduction::Product,
                Reduction::L1,
                Reduction::L2,
                Reduction::SumSquare,
                Reduction::LogSum,
                Reduction::LogSumExp,
            ] {
                let got = is_nan(x.reduce(reduction, 2).unwrap());
                assert_eq!(got, [false, false, false, false, true, false], "{reduction:?} on {device}");
            }
        }
    }
}
