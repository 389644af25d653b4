//! Gradients of operators: in f64 against central differences, on the CPU and on a GPU against f64.

use recurve::testing::{Tolerance, compare};
use recurve::{Activation, Device, Tensor};
use recurve_graph::ops::{
    self, Binary, Coordinates, Extent, Interpolation, Nearest, PadMode, Padding, Together, Windows,
};
use recurve_graph::{Constant, Element, Error, Executor, GraphBuilder, Int, Operator, RunOptions, ValueType};
use recurve_tensor::{DType, Function, Pooling, Reduction, Update};
use recurve_tests::gradients::{Operand, check, check_graph};
use recurve_tests::{Random, devices};
use std::sync::Arc;

/// Of f32: a gradient is a few roundings of numbers around 1.
const F32: f64 = 1e-5;

fn one(name: &str, operator: impl Operator + 'static, operands: Vec<Operand>) {
    check(name, operator, &operands.into_iter().map(Some).collect::<Vec<_>>(), 1, F32);
}

/// Floats away from 0, of both signs.
fn apart(r: &mut Random, dims: &[usize]) -> Operand {
    let data = r.floats(dims.iter().product(), 1.0);
    Operand::floats(dims, &data.iter().map(|v| v + 0.3f32.copysign(*v)).collect::<Vec<_>>())
}

/// Floats above 0.
fn positive(r: &mut Random, dims: &[usize]) -> Operand {
    let data = r.floats(dims.iter().product(), 1.0);
    Operand::floats(dims, &data.iter().map(|v| v.abs() + 0.5).collect::<Vec<_>>())
}

#[test]
fn functions_of_two_operands() {
    let mut r = Random(11);
    let shapes: [(&[usize], &[usize]); 4] =
        [(&[2, 3], &[2, 3]), (&[2, 3], &[3]), (&[2, 1], &[4, 1, 3]), (&[1], &[2, 3])];
    for (a, b) in shapes {
        for op in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min, Binary::PRelu] {
            let operands = vec![apart(&mut r, a), apart(&mut r, b)];
            one(&format!("{op:?} {a:?} {b:?}"), op, operands.clone());
            one(&format!("{op:?}, open"), op, operands.into_iter().map(Operand::open).collect());
        }
        one("Pow", Binary::Pow, vec![positive(&mut r, a), apart(&mut r, b)]);
    }
    let (a, b) = (Operand::floats(&[4], &[2.7, -2.7, 5.1, -0.4]), Operand::floats(&[4], &[1.2, 1.2, -2.0, 0.9]));
    one("Modulo", Binary::Modulo, vec![a.clone(), b.clone()]);
    one("Remainder", Binary::Remainder, vec![a.clone(), b.clone()]);
    one("Less", Wrapped(Binary::Less), vec![a, b]);
}

/// A comparison as floats, which changes in jumps.
#[derive(Debug)]
struct Wrapped(Binary);

impl Operator for Wrapped {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn slots(&self) -> &[recurve_graph::Slot] {
        self.0.slots()
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, recurve_graph::Fault> {
        let t = self.0.output_types(inputs)?.remove(0);
        Ok(vec![ValueType::new(DType::F32, t.dims)])
    }
    fn run(&self, call: &recurve_graph::Call<'_>) -> recurve_tensor::Result<recurve_graph::Outputs> {
        self.0.run(call)
    }
    fn reference(&self, inputs: &[Option<&recurve_graph::Array>]) -> Vec<Option<recurve_graph::Array>> {
        self.0.reference(inputs)
    }
    fn gradient(&self, g: &mut recurve_graph::Gradients<'_>) -> recurve_graph::Result<()> {
        self.0.gradient(g)
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[test]
fn equal_operands_share_the_gradient() {
    let graph = |op: Binary| {
        let mut g = GraphBuilder::new();
        g.input("a", ValueType::new(DType::F32, [2usize]));
        g.input("b", ValueType::new(DType::F32, [2usize]));
        g.node("max", op, &["a", "b"], &["y"]);
        g.output("y", "y");
        g.build().unwrap()
    };
    for op in [Binary::Max, Binary::Min] {
        let (mut a, outputs) = graph(op).open(|_| true).unwrap();
        let all = ops::ReduceOver { reduction: Reduction::Sum, axes: vec![], keep_dims: true, noop: false, int: None };
        let loss = a.derived("loss", Arc::new(all), &[Some(outputs[0].1)], 1).unwrap()[0];
        let of = ["a", "b"].map(|n| a.find(n).unwrap());
        let d = a.gradients(loss, &of).unwrap();
        let graph = a.finish(d.iter().zip(["a", "b"]).map(|(g, n)| (n.into(), g.unwrap())).collect()).unwrap();
        let executor = Executor::new(Arc::new(graph), |_| None, &Device::Cpu).unwrap();
        let x = recurve::Tensor::from_f32(&[1.5, -2.0], &[2], &Device::Cpu).unwrap();
        let out = executor.run(&[Some(&x), Some(&x)], &RunOptions::default()).unwrap();
        for d in out {
            assert_eq!(d.unwrap().to_f32(&Device::Cpu).unwrap().to_vec().unwrap(), [0.5, 0.5], "{op:?}");
        }
    }
}

#[test]
fn cross_entropies_with_labels() {
    let mut r = Random(14);
    let labels = [
        Operand::ids(&[2, 3], &[0, 4, 2, 3, 1, 1]),
        Operand::whole(Element::Int(Int::I64), &[2, 3], &[0, 4, 2, 3, 1, 1]),
    ];
    for smoothing in [0.0, 0.2, 1.0] {
        for labels in &labels {
            let x = Operand::random(&mut r, &[2, 3, 5]);
            for (x, y) in [(x.clone(), labels.clone()), (x.open(), labels.clone().open())] {
                let mut g = GraphBuilder::new();
                g.input("x", x.kind());
                g.input("y", y.kind());
                g.node("node", ops::CrossEntropy { smoothing }, &["x", "y"], &["values", "sums"]);
                g.output("values", "values");
                check_graph(&format!("smoothed by {smoothing}"), &g.build().unwrap(), &[x, y], F32);
            }
        }
    }
}

#[test]
fn functions_of_one_operand() {
    let mut r = Random(12);
    let map = |function| ops::Map { function, element: Element::F32 };
    let any = [
        Function::Identity,
        Function::Abs,
        Function::Atan,
        Function::Asinh,
        Function::Ceil,
        Function::Cos,
        Function::Cosh,
        Function::Erf,
        Function::Exp,
        Function::Floor,
        Function::Neg,
        Function::Reciprocal,
        Function::Round,
        Function::Sign,
        Function::Sin,
        Function::Sinh,
        Function::Tan,
        Function::Celu { alpha: 0.7 },
        Function::Selu { alpha: 1.673, gamma: 1.05 },
        Function::HardSwish,
        Function::Gelu,
        Function::GeluTanh,
        Function::Mish,
        Function::Swish { alpha: 1.3 },
        Function::Clip { low: -0.7, high: 0.9 },
    ];
    for f in any {
        // The values are 0.03 away from corners and jumps.
        let x = Operand::floats(&[2, 5], &[-3.4, -1.2, -0.75, -0.55, -0.05, 0.04, 0.45, 0.8, 1.1, 2.6]);
        check(&format!("{f:?}"), map(f), &[Some(x)], 1, 3e-5);
    }
    for f in [Function::Acos, Function::Asin, Function::Atanh] {
        let x = Operand::floats(&[6], &[-0.8, -0.4, -0.1, 0.05, 0.3, 0.9]);
        check(&format!("{f:?}"), map(f), &[Some(x)], 1, 3e-5);
    }
    for f in [Function::Log, Function::Sqrt] {
        one(&format!("{f:?}"), map(f), vec![positive(&mut r, &[7])]);
    }
    one("Acosh", map(Function::Acosh), vec![Operand::floats(&[3], &[1.3, 2.0, 7.5])]);
}

#[test]
fn activations() {
    let more = [
        Activation::LeakyRelu { alpha: -0.5 },
        Activation::Elu { alpha: -1.5 },
        Activation::ThresholdedRelu { alpha: -1.0 },
        Activation::ScaledTanh { alpha: 1.7, beta: 0.6 },
        Activation::ScaledTanh { alpha: 0.0, beta: 0.6 },
        Activation::HARD_SIGMOID_KERAS3,
    ];
    // No value stands at a corner: those are at 0, ±1, ±2.5, ±3.
    let x = || Operand::floats(&[3, 4], &[-3.3, -2.7, -1.4, -0.8, -0.3, -0.02, 0.03, 0.4, 0.95, 1.6, 2.7, 3.4]);
    for f in Activation::ALL.into_iter().chain(more) {
        one(&format!("{f:?}"), ops::Activate(f), vec![x()]);
    }
    for f in [Activation::Linear, Activation::Tanh, Activation::Elu { alpha: -1.5 }] {
        let w = Operand::floats(&[4, 2], &[0.5, -0.3, 0.8, 0.1, -0.6, 0.9, 0.2, -0.4]);
        let linear = ops::Linear { transposed: false, activation: f };
        one(&format!("Linear {f:?}"), linear, vec![x(), w, Operand::floats(&[2], &[0.11, -0.23])]);
    }
}

#[test]
fn products() {
    let mut r = Random(13);
    let mut t = |dims: &[usize]| Operand::random(&mut r, dims);
    for (a, b) in
        [(&[3, 4][..], &[4, 2][..]), (&[2, 3, 4], &[4, 2]), (&[2, 1, 3, 4], &[5, 4, 2]), (&[3, 4], &[2, 4, 5])]
    {
        one(&format!("MatMul {a:?} {b:?}"), ops::MatMul, vec![t(a), t(b)]);
        one("MatMul, open", ops::MatMul, vec![t(a).open(), t(b).open()]);
    }
    for transposed in [false, true] {
        let w: &[usize] = if transposed { &[2, 4] } else { &[4, 2] };
        for x in [&[3, 4][..], &[2, 3, 4], &[2, 2, 3, 4]] {
            let linear = ops::Linear { transposed, activation: Activation::Linear };
            one(&format!("Linear {x:?}"), linear, vec![t(x), t(w)]);
            one("Linear, open", linear, vec![t(x).open(), t(w), t(&[2])]);
        }
    }
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let gemm = ops::Gemm { alpha: 0.7, beta: -1.3, transpose_a, transpose_b };
        let a = if transpose_a { [4, 3] } else { [3, 4] };
        let b = if transpose_b { [2, 4] } else { [4, 2] };
        one("Gemm", gemm, vec![t(&a), t(&b)]);
        one("Gemm", gemm, vec![t(&a), t(&b), t(&[3, 1])]);
    }
}

#[test]
fn reductions() {
    let mut r = Random(14);
    let all = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::L1,
        Reduction::L2,
        Reduction::SumSquare,
        Reduction::LogSumExp,
    ];
    for reduction in all {
        for (axes, keep_dims) in [(vec![], false), (vec![1], true), (vec![-1, 0], false)] {
            let over = ops::ReduceOver { reduction, axes, keep_dims, noop: false, int: None };
            one(&format!("{over:?}"), over.clone(), vec![apart(&mut r, &[2, 3, 4])]);
            one(&format!("{over:?}, open"), over, vec![apart(&mut r, &[2, 3, 4]).open()]);
        }
        one("Reduce", ops::Reduce { reduction, axis: 1 }, vec![apart(&mut r, &[2, 3])]);
    }
    let over =
        ops::ReduceOver { reduction: Reduction::LogSum, axes: vec![1], keep_dims: false, noop: false, int: None };
    one("LogSum", over, vec![positive(&mut r, &[2, 3])]);
    let last = Operand::random(&mut r, &[2, 3, 4]);
    one("Softmax", ops::Softmax, vec![last.clone()]);
    for axis in [0, 1, -1] {
        for shares in [ops::Shares::Softmax, ops::Shares::LogSoftmax] {
            let over = ops::SoftmaxOver { shares, axis, flattened: false };
            one(&format!("{over:?}"), over, vec![last.clone()]);
        }
    }
}

#[test]
fn moved_elements() {
    let mut r = Random(15);
    let mut t = |dims: &[usize]| Operand::random(&mut r, dims);
    one("Identity", ops::Identity, vec![t(&[3])]);
    one("Transpose", ops::Transpose(vec![2, 0, 1]), vec![t(&[2, 3, 4])]);
    one("Transpose", ops::Transpose(vec![]), vec![t(&[2, 3, 4]).open()]);
    one("Reshape", ops::Reshape(vec![Extent::Axes(0, 2), Extent::Size(4)]), vec![t(&[2, 3, 4]).open()]);
    let shape = || Operand::whole(Element::Int(Int::I64), &[2], &[-1, 8]);
    one("ReshapeTo", ops::ReshapeTo::default(), vec![t(&[2, 3, 4]), shape()]);
    for (start, len) in [(0, 2), (1, 2), (-1, 1)] {
        one("Slice", ops::Slice { axis: 1, start, len }, vec![t(&[2, 3, 4])]);
        one("Slice, open", ops::Slice { axis: 1, start, len }, vec![t(&[2, 3, 4]).open()]);
        one("PadLike", ops::PadLike { axis: 1, start }, vec![t(&[2, len, 4]), t(&[2, 3, 4])]);
    }
    for axis in [0, 1, -1] {
        one("Concat", ops::Concat { axis }, vec![t(&[2, 3]), t(&[2, 3]), t(&[2, 3])]);
    }
    let condition = Operand::whole(Element::Bool, &[2, 1], &[1, 0]);
    one("Where", ops::Where, vec![condition, t(&[2, 3]), t(&[3])]);
    one("SumTo", ops::SumTo, vec![t(&[4, 2, 3]), t(&[2, 1])]);
    one("ExpandLike", ops::ExpandLike, vec![t(&[2, 1]), t(&[4, 2, 3])]);
}

#[test]
fn rows_of_tables() {
    let mut r = Random(16);
    let table = Operand::random(&mut r, &[5, 3]);
    let ids = Operand::ids(&[2, 4], &[4, 0, 0, 2, 4, 4, 1, 0]);
    one("Gather", ops::Gather, vec![table.clone(), ids.clone()]);
    one("Gather, open", ops::Gather, vec![table.open(), ids.open()]);
}

#[test]
fn values_that_are_used_more_than_once() {
    let mut g = GraphBuilder::new();
    g.input("x", ValueType::new(DType::F32, [None, Some(3)]));
    g.node("square", Binary::Mul, &["x", "x"], &["s"]);
    g.node("root", ops::Activate(Activation::Tanh), &["s"], &["t"]);
    g.node("sum", Binary::Add, &["t", "x"], &["u"]);
    g.node("product", Binary::Mul, &["u", "s"], &["y"]);
    g.output("y", "y");
    g.output("u", "u");
    check_graph("diamond", &g.build().unwrap(), &[Operand::random(&mut Random(1), &[2, 3]).open()], F32);
}

/// As [`check`], with shapes that are known and that are not, and with whole numbers that are known before a run and
/// that are not.
fn ways(name: &str, operator: impl Operator + Clone + 'static, operands: &[Option<Operand>], outputs: usize) {
    check(name, operator.clone(), operands, outputs, F32);
    let open = |o: &Operand| if o.element == Element::F32 { o.clone().open() } else { o.clone() };
    let opened: Vec<_> = operands.iter().map(|o| o.as_ref().map(open)).collect();
    check(&format!("{name}, open"), operator.clone(), &opened, outputs, F32);
    if operands.iter().flatten().all(|o| o.element == Element::F32) {
        return;
    }
    for operands in [operands, &opened] {
        let mut g = GraphBuilder::new();
        let mut given = Vec::new();
        let mut names = Vec::new();
        for (n, o) in operands.iter().enumerate() {
            let Some(o) = o else {
                names.push(String::new());
                continue;
            };
            names.push(format!("x{n}"));
            let whole = || o.array.data.iter().map(|&v| v as i64).collect::<Vec<_>>().into();
            match o.element {
                Element::Int(int) => g.constant(&names[n], &o.array.dims, Constant::Int(int, whole())),
                Element::Bool => g.constant(&names[n], &o.array.dims, Constant::Bool(whole())),
                Element::U32 => g.constant(&names[n], &o.array.dims, Constant::Id(o.array.ids().into())),
                _ => {
                    g.input(&names[n], o.kind());
                    given.push(o.clone());
                }
            }
        }
        let ys: Vec<String> = (0..outputs).map(|n| format!("y{n}")).collect();
        let [inputs, outputs] = [&names, &ys].map(|n| n.iter().map(String::as_str).collect::<Vec<_>>());
        g.node("node", operator.clone(), &inputs, &outputs);
        ys.iter().for_each(|y| g.output(y, y));
        check_graph(&format!("{name}, known"), &g.build().unwrap(), &given, F32);
    }
}

fn each_way(name: &str, operator: impl Operator + Clone + 'static, operands: Vec<Operand>) {
    ways(name, operator, &operands.into_iter().map(Some).collect::<Vec<_>>(), 1);
}

fn ints(numbers: &[i64]) -> Operand {
    Operand::whole(Element::Int(Int::I64), &[numbers.len()], numbers)
}

#[test]
fn normalizations() {
    let mut r = Random(21);
    let epsilon = 1e-2;
    for dims in [&[2, 3, 5][..], &[5]] {
        let operands = vec![Operand::random(&mut r, dims), Operand::random(&mut r, &[2, 5])];
        each_way("LayerNorm", ops::LayerNorm { epsilon }, operands);
    }
    for (axis, own) in [(-1, &[5][..]), (1, &[3, 5]), (-1, &[3, 1])] {
        let normalize = ops::Normalize { together: Together::Layer(axis), epsilon };
        let x = || Some(Operand::random(&mut Random(5), &[2, 3, 5]));
        let mut own = || Some(Operand::random(&mut r, own));
        ways("Layer", normalize, &[x(), own(), own()], 3);
        ways("Layer without offset", normalize, &[x(), own()], 1);
        let normalize = ops::Normalize { together: Together::RootMeanSquare(axis), epsilon };
        ways("RootMeanSquare", normalize, &[x(), own()], 1);
    }
    for (together, count) in [
        (Together::Instance, 4),
        (Together::Group { groups: 2, by_group: false }, 4),
        (Together::Group { groups: 2, by_group: true }, 2),
    ] {
        for dims in [&[2, 4, 3][..], &[3, 4, 2, 2]] {
            let operands = [dims, &[count], &[count]].map(|d| Operand::random(&mut r, d)).to_vec();
            each_way(&format!("{together:?}"), ops::Normalize { together, epsilon }, operands);
        }
    }
    for dims in [&[2, 3][..], &[2, 3, 4]] {
        let mut operands: Vec<_> = [dims, &[3], &[3], &[3]].iter().map(|d| Operand::random(&mut r, d)).collect();
        operands.push(positive(&mut r, &[3]));
        each_way("BatchNorm", ops::BatchNorm { epsilon }, operands);
    }
    for absolute in [false, true] {
        for axis in [1, -1] {
            each_way("LpNorm", ops::LpNorm { axis, absolute }, vec![apart(&mut r, &[2, 3, 4])]);
        }
    }
}

fn windows(sizes: &[usize], strides: &[usize], dilations: &[usize], pads: &[[usize; 2]]) -> Windows {
    Windows {
        sizes: sizes.to_vec(),
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        padding: Padding::Explicit(pads.to_vec()),
        ..Windows::default()
    }
}

#[test]
fn convolutions() {
    let mut r = Random(22);
    let same = |padding| Windows { padding, strides: vec![2], ..Windows::default() };
    let cases: [(&[usize], &[usize], usize, Windows); 9] = [
        (&[2, 3, 7], &[4, 3, 3], 1, Windows::default()),
        (&[2, 3, 8], &[4, 3, 3], 1, windows(&[], &[2], &[2], &[[1, 2]])),
        (&[1, 4, 9], &[6, 2, 2], 2, windows(&[2], &[3], &[], &[])),
        (&[2, 4, 6], &[4, 1, 3], 4, windows(&[], &[], &[], &[[2, 0]])),
        (&[1, 2, 7], &[2, 2, 3], 1, same(Padding::SameUpper)),
        (&[1, 2, 8], &[2, 2, 3], 1, same(Padding::SameLower)),
        (&[2, 2, 5, 6], &[4, 1, 2, 3], 2, windows(&[], &[2, 1], &[1, 2], &[[1, 0], [1, 1]])),
        (&[1, 2, 3, 4, 5], &[2, 2, 2, 1, 3], 1, windows(&[], &[1, 2, 2], &[2, 1, 1], &[[1, 1], [0, 0], [0, 2]])),
        // One window sees nothing but padding.
        (&[1, 1, 2], &[1, 1, 2], 1, windows(&[], &[2], &[], &[[2, 0]])),
    ];
    for (x, w, groups, windows) in cases {
        let conv = ops::Conv { windows, groups };
        let name = format!("{conv:?} {x:?} {w:?}");
        let (x, w, b) = (Operand::random(&mut r, x), Operand::random(&mut r, w), Operand::random(&mut r, &[w[0]]));
        each_way(&name, conv.clone(), vec![x.clone(), w.clone()]);
        each_way(&name, conv, vec![x, w, b]);
    }
    let plain = |windows, groups| ops::ConvTranspose { windows, groups, output_padding: vec![], output_shape: None };
    let cases: [(&[usize], &[usize], ops::ConvTranspose); 7] = [
        (&[2, 3, 5], &[3, 2, 3], plain(Windows::default(), 1)),
        (&[2, 4, 5], &[4, 3, 3], plain(windows(&[], &[2], &[2], &[[1, 2]]), 2)),
        (&[1, 2, 4], &[2, 2, 3], plain(same(Padding::SameUpper), 1)),
        (
            &[1, 2, 4],
            &[2, 2, 2],
            ops::ConvTranspose { output_padding: vec![2], ..plain(windows(&[], &[3], &[], &[[1, 0]]), 1) },
        ),
        (
            &[1, 2, 4],
            &[2, 1, 3],
            ops::ConvTranspose { output_shape: Some(vec![7]), ..plain(windows(&[], &[2], &[], &[]), 1) },
        ),
        (&[2, 2, 3, 2], &[2, 1, 2, 3], plain(windows(&[], &[2, 1], &[1, 2], &[[0, 1], [1, 1]]), 2)),
        (&[1, 2, 2, 3, 2], &[2, 1, 2, 1, 2], plain(windows(&[], &[1, 2, 2], &[], &[]), 1)),
    ];
    for (x, w, conv) in cases {
        let name = format!("{conv:?} {x:?} {w:?}");
        let bias = Operand::random(&mut r, &[w[1] * conv.groups]);
        each_way(&name, conv, vec![Operand::random(&mut r, x), Operand::random(&mut r, w), bias]);
    }
}

#[test]
fn pools() {
    let mut r = Random(23);
    let more = |w: Windows| Windows { ceil: true, ..w };
    let cases: [(&[usize], Windows); 6] = [
        (&[2, 3, 7], windows(&[3], &[2], &[], &[])),
        (&[2, 3, 8], windows(&[3], &[], &[2], &[[1, 2]])),
        (&[1, 2, 8], more(windows(&[3], &[2], &[], &[[1, 1]]))),
        (&[2, 2, 5, 4], windows(&[2, 3], &[2, 1], &[], &[[1, 0], [1, 1]])),
        (&[1, 2, 4, 3, 5], windows(&[2, 2, 3], &[2, 1, 2], &[], &[])),
        (&[1, 2, 7], Windows { padding: Padding::SameUpper, ..windows(&[3], &[2], &[], &[]) }),
    ];
    for (dims, windows) in cases {
        let average = |padded| Pooling::Average { padded };
        let all = [Pooling::Max, average(false), average(true), Pooling::Norm { p: 1 }, Pooling::Norm { p: 2 }];
        for pooling in all.into_iter().chain([Pooling::Norm { p: 3 }]) {
            let pool = ops::Pool { pooling, windows: windows.clone(), column_major: false };
            each_way(&format!("{pool:?}"), pool, vec![apart(&mut r, dims)]);
        }
        let max = ops::Pool { pooling: Pooling::Max, windows, column_major: true };
        ways("Max with places", max, &[Some(apart(&mut r, dims))], 2);
    }
    for reduction in [Reduction::Mean, Reduction::Max, Reduction::L2] {
        each_way("GlobalPool", ops::GlobalPool(reduction), vec![apart(&mut r, &[2, 3, 2, 2])]);
    }
}

#[test]
fn the_first_of_equal_elements_has_the_gradient_of_a_maximum_pool() {
    let mut g = GraphBuilder::new();
    g.input("x", ValueType::new(DType::F32, [1usize, 1, 6]));
    let windows = windows(&[3], &[3], &[], &[]);
    g.node("pool", ops::Pool { pooling: Pooling::Max, windows, column_major: false }, &["x"], &["y"]);
    g.output("y", "y");
    let (mut a, outputs) = g.build().unwrap().open(|_| true).unwrap();
    let all = ops::ReduceOver { reduction: Reduction::Sum, axes: vec![], keep_dims: false, noop: false, int: None };
    let loss = a.derived("loss", Arc::new(all), &[Some(outputs[0].1)], 1).unwrap()[0];
    let x = a.find("x").unwrap();
    let d = a.gradients(loss, &[x]).unwrap()[0].unwrap();
    let graph = Arc::new(a.finish(vec![("d".into(), d)]).unwrap());
    for device in devices() {
        let executor = Executor::new(graph.clone(), |_| None, &device).unwrap();
        let x = Tensor::from_f32(&[1.0, 2.0, 2.0, 3.0, 3.0, 3.0], &[1, 1, 6], &device).unwrap();
        let d = executor.run(&[Some(&x)], &RunOptions::default()).unwrap().remove(0).unwrap();
        let d = d.to_f32(&device).unwrap();
        assert_eq!(d.to_vec().unwrap(), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0], "{device}");
    }
}

#[test]
fn padding_and_repetition() {
    let mut r = Random(24);
    let x = Operand::random(&mut r, &[2, 4, 3]);
    let value = Operand::floats(&[1], &[0.7]);
    for mode in [PadMode::Constant(0.5), PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        for pads in [[0, 1, 2, 1, 3, 0], [1, 0, 0, 0, 2, 1], [0, -1, 2, 0, 1, -1], [-1, 5, 0, 0, 9, 7]] {
            // A single element has no reflection, and is repeated.
            each_way(&format!("{mode:?} {pads:?}"), ops::Pad(mode), vec![x.clone(), ints(&pads)]);
        }
        let operands = [Some(x.clone()), Some(ints(&[2, 1, 0, 1])), None, Some(ints(&[-1, 1]))];
        ways(&format!("{mode:?} of two axes"), ops::Pad(mode), &operands, 1);
    }
    let pads = ints(&[0, 1, -1, 2, 0, 1]);
    each_way("Pad with a value", ops::Pad(PadMode::Constant(0.0)), vec![x.clone(), pads, value]);
    each_way("Tile", ops::Tile, vec![x.clone(), ints(&[2, 1, 3])]);
    for shape in [&[2, 4, 3][..], &[5, 1, 1, 1, 1], &[3, 2, 4, 3]] {
        each_way("Expand", ops::Expand, vec![x.clone(), ints(shape)]);
    }
    each_way("Expand", ops::Expand, vec![Operand::random(&mut r, &[3, 1]), ints(&[2, 1, 4])]);
}

#[test]
fn parts() {
    let mut r = Random(25);
    let mut x = |dims: &[usize]| Operand::random(&mut r, dims);
    each_way("SliceBy", ops::SliceBy, vec![x(&[3, 7]), ints(&[1]), ints(&[3])]);
    let (end, start) = (i64::MAX, i64::MIN);
    for (starts, ends, steps) in [
        ([1, 0], [6, 2], [2, 1]),
        ([-1, 2], [start, start], [-2, -1]),
        ([5, 1], [0, end], [-1, 1]),
        ([0, -1], [end, end], [3, 9]),
        ([6, 0], [start, end], [-1, 2]),
    ] {
        let numbers = [ints(&starts), ints(&ends), ints(&[1, -1]), ints(&steps)];
        let operands: Vec<_> = [x(&[2, 7, 3])].into_iter().chain(numbers).collect();
        each_way(&format!("SliceBy {starts:?} {ends:?} {steps:?}"), ops::SliceBy, operands);
    }
    for axis in [1, -2] {
        let split = ops::Split { axis, parts: 3 };
        ways("Split", split, &[Some(x(&[2, 7, 2]))], 3);
        ways("Split by sizes", split, &[Some(x(&[2, 7, 2])), Some(ints(&[1, 4, 2]))], 3);
    }
    for axis in [0, -1] {
        let other: &[usize] = if axis == 0 { &[1, 3] } else { &[2, 5] };
        each_way("Concat", ops::Concat { axis }, vec![x(&[2, 3]), x(other), x(&[2, 3])]);
    }
    // Only one part is used.
    let mut g = GraphBuilder::new();
    g.input("x", ValueType::new(DType::F32, [None, Some(6)]));
    g.node("split", ops::Split { axis: 1, parts: 3 }, &["x"], &["a", "b", "c"]);
    g.output("b", "b");
    check_graph("a part", &g.build().unwrap(), &[x(&[2, 6]).open()], F32);
}

#[test]
fn sums_in_einsteins_notation() {
    let mut r = Random(26);
    let cases: [(&str, &[&[usize]]); 13] = [
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("bij,bkj->bik", &[&[2, 3, 4], &[2, 5, 4]]),
        ("...ij,jk->...ik", &[&[2, 3, 4], &[4, 2]]),
        ("...i,...i->...", &[&[2, 3], &[3]]),
        ("ij->ji", &[&[2, 3]]),
        ("ij->i", &[&[2, 3]]),
        ("ij->", &[&[2, 3]]),
        ("i,i->", &[&[3], &[3]]),
        ("i,j->ij", &[&[3], &[2]]),
        ("ij,jk,kl->il", &[&[2, 3], &[3, 2], &[2, 3]]),
        ("ij,k->k", &[&[2, 3], &[4]]),
        ("bij,jk", &[&[1, 2, 3], &[3, 2]]),
        ("ij,ij->i", &[&[2, 3], &[2, 1]]),
    ];
    for (equation, dims) in cases {
        let operands = dims.iter().map(|d| Operand::random(&mut r, d)).collect();
        let einsum = ops::Einsum { equation: equation.into() };
        let operands: Vec<Operand> = operands;
        one(equation, einsum.clone(), operands.clone());
        if equation != "ij,ij->i" {
            one(&format!("{equation}, open"), einsum, operands.into_iter().map(Operand::open).collect());
        }
    }
}

#[test]
fn more_moves() {
    let mut r = Random(27);
    let mut x = |dims: &[usize]| Operand::random(&mut r, dims);
    for upper in [false, true] {
        ways("Trilu", ops::Trilu { upper }, &[Some(x(&[2, 3, 4]))], 1);
        each_way("Trilu", ops::Trilu { upper }, vec![x(&[3, 3]), ints(&[-1])]);
    }
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        for axis in [1, -1] {
            let sums = ops::CumSum { exclusive, reverse, int: None };
            each_way(&format!("{sums:?}"), sums, vec![x(&[2, 3, 4]), ints(&[axis])]);
        }
    }
    for order in [ops::BlockOrder::BlockFirst, ops::BlockOrder::ChannelFirst] {
        each_way("DepthToSpace", ops::DepthToSpace { block: 2, order }, vec![x(&[2, 8, 2, 3])]);
        each_way("SpaceToDepth", ops::SpaceToDepth { block: 2, order }, vec![x(&[2, 2, 4, 6])]);
    }
    each_way("ReverseSequence", ops::ReverseSequence { time_major: false }, vec![x(&[2, 4, 3]), ints(&[3, 0])]);
    each_way("ReverseSequence", ops::ReverseSequence { time_major: true }, vec![x(&[4, 2]), ints(&[4, 2])]);
    let condition = Operand::whole(Element::Bool, &[3], &[1, 0, 1]);
    each_way("Compress", ops::Compress { axis: Some(-1) }, vec![x(&[2, 3]), condition.clone()]);
    each_way("Compress", ops::Compress { axis: None }, vec![x(&[2, 3]), condition]);
    for largest in [false, true] {
        for (axis, outputs) in [(1, 1), (-1, 2)] {
            let top = ops::TopK { axis, largest };
            ways("TopK", top, &[Some(x(&[2, 5, 4])), Some(ints(&[3]))], outputs);
        }
    }
    for to in [ops::Target::F16, ops::Target::Bf16] {
        // Rounded, x changes in jumps, which differences do not see: the gradient is that of the identity.
        let mut g = GraphBuilder::new();
        g.input("x", ValueType::new(DType::F32, [3usize]));
        g.node("cast", ops::Cast { from: Element::F32, to }, &["x"], &["y"]);
        g.output("y", "y");
        let (mut a, outputs) = g.build().unwrap().open(|_| true).unwrap();
        let all = ops::ReduceOver { reduction: Reduction::Sum, axes: vec![], keep_dims: false, noop: false, int: None };
        let loss = a.derived("loss", Arc::new(all), &[Some(outputs[0].1)], 1).unwrap()[0];
        let x = a.find("x").unwrap();
        let d = a.gradients(loss, &[x]).unwrap()[0].unwrap();
        let executor =
            Executor::new(Arc::new(a.finish(vec![("d".into(), d)]).unwrap()), |_| None, &Device::Cpu).unwrap();
        let x = Tensor::from_f32(&[0.1, 0.2, 0.3], &[3], &Device::Cpu).unwrap();
        let d = executor.run(&[Some(&x)], &RunOptions::default()).unwrap().remove(0).unwrap();
        let d = d.to_f32(&Device::Cpu).unwrap();
        assert_eq!(d.to_vec().unwrap(), [1.0; 3], "{to:?}");
    }
}

#[test]
fn resized() {
    let mut r = Random(28);
    let plain = ops::Resize {
        interpolation: Interpolation::Linear,
        coordinates: Coordinates::HalfPixel,
        axes: None,
        scales: None,
        region: None,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.3,
        policy: ops::Policy::Stretch,
    };
    let nearest = [Nearest::PreferFloor, Nearest::PreferCeil, Nearest::Floor, Nearest::Ceil];
    let all = nearest.map(Interpolation::Nearest).into_iter();
    for interpolation in all.chain([Interpolation::Linear, Interpolation::Cubic(-0.75)]) {
        for coordinates in [Coordinates::HalfPixel, Coordinates::AlignCorners, Coordinates::Asymmetric] {
            let resize = ops::Resize { interpolation, coordinates, ..plain.clone() };
            for sizes in [[1, 2, 7, 3], [1, 2, 3, 9]] {
                let x = Operand::random(&mut r, &[1, 2, 5, 4]);
                each_way(&format!("{interpolation:?} {coordinates:?}"), resize.clone(), vec![x, ints(&sizes)]);
            }
        }
        let x = Operand::random(&mut r, &[1, 1, 5]);
        let scaled = ops::Resize { interpolation, scales: Some(vec![1.0, 1.0, 1.7]), ..plain.clone() };
        ways("Resize by scales", scaled, &[Some(x.clone())], 1);
        let region = Some(vec![-0.2, 0.9]);
        let crop = ops::Resize {
            interpolation,
            coordinates: Coordinates::CropAndResize,
            axes: Some(vec![2]),
            region,
            ..plain.clone()
        };
        each_way("Resize of a region", crop, vec![x, ints(&[6])]);
    }
    let smaller = ops::Resize { antialias: true, axes: Some(vec![-1]), ..plain };
    each_way("Resize with antialias", smaller, vec![Operand::random(&mut r, &[2, 1, 8]), ints(&[3])]);
}

#[test]
fn elements_at_indices() {
    let mut r = Random(29);
    let mut x = |dims: &[usize]| Operand::random(&mut r, dims);
    let index = |dims: &[usize], data: &[i64]| Operand::whole(Element::Int(Int::I64), dims, data);
    for axis in [0, 1, -1] {
        let gather = ops::GatherAt { axis };
        each_way("GatherAt", gather, vec![x(&[3, 4, 3]), index(&[2, 2], &[2, 0, -1, 2])]);
        each_way("GatherAt", gather, vec![x(&[3, 4, 3]), index(&[2], &[1, 2])]);
        each_way("GatherAt by ids", gather, vec![x(&[3, 4, 3]), Operand::ids(&[3], &[1, 2, 1])]);
    }
    let elements = [
        (0, index(&[2, 3], &[1, 0, 3, 1, -1, 0])),
        (1, index(&[2, 3], &[2, 0, 0, 1, 1, -2])),
        (-1, index(&[4, 2], &[0, 0, 1, 2, 2, 0, 1, 1])),
    ];
    for (axis, indices) in elements {
        each_way("GatherElements", ops::GatherElements { axis }, vec![x(&[4, 3]), indices.clone()]);
        for update in [Update::Replace, Update::Add] {
            let scatter = ops::ScatterElements { axis, update, int: None };
            let updates = x(&indices.array.dims);
            each_way(&format!("{scatter:?}"), scatter, vec![x(&[4, 3]), indices.clone(), updates]);
        }
    }
    let tuples = index(&[3, 2], &[1, 0, -1, 2, 1, 0]);
    each_way("GatherTuples", ops::GatherTuples { batch_dims: 0 }, vec![x(&[3, 3, 2]), tuples.clone()]);
    each_way("GatherTuples", ops::GatherTuples { batch_dims: 0 }, vec![x(&[3, 3]), tuples.clone()]);
    let batched = index(&[2, 3, 1], &[0, 2, 0, 1, 1, -1]);
    each_way("GatherTuples", ops::GatherTuples { batch_dims: 1 }, vec![x(&[2, 3, 2]), batched]);
    for update in [Update::Replace, Update::Add] {
        let scatter = ops::ScatterTuples::new(update, None);
        each_way(&format!("{scatter:?}"), scatter, vec![x(&[3, 3, 2]), tuples.clone(), x(&[3, 2])]);
        each_way(&format!("{scatter:?}"), scatter, vec![x(&[3, 2]), index(&[2, 1], &[2, 0]), x(&[2, 2])]);
    }
}

#[test]
fn products_with_vectors_and_of_elements() {
    let mut r = Random(30);
    let mut t = |dims: &[usize]| Operand::random(&mut r, dims);
    let sides: [(&[usize], &[usize]); 5] =
        [(&[4], &[4, 2]), (&[3, 4], &[4]), (&[4], &[4]), (&[4], &[2, 4, 3]), (&[2, 3, 4], &[4])];
    for (a, b) in sides {
        each_way(&format!("MatMul {a:?} {b:?}"), ops::MatMul, vec![t(a), t(b)]);
    }
    for axis in [0, 1, 2, 3] {
        for shares in [ops::Shares::Softmax, ops::Shares::LogSoftmax] {
            let flattened = ops::SoftmaxOver { shares, axis, flattened: true };
            each_way(&format!("{flattened:?}"), flattened, vec![t(&[2, 3, 2])]);
        }
    }
    for (axes, keep_dims) in [(vec![], false), (vec![1], true), (vec![-1, 0], false)] {
        let over = ops::ReduceOver { reduction: Reduction::Product, axes, keep_dims, noop: false, int: None };
        each_way(&format!("{over:?}"), over.clone(), vec![apart(&mut Random(1), &[2, 3, 2])]);
        // With one zero along an axis, two, and none.
        let zeros = [0.0, 1.5, 0.8, 0.0, -1.2, 0.0, 0.7, 1.1, -0.9, 1.3, 0.6, -1.4];
        each_way(&format!("{over:?} with zeros"), over, vec![Operand::floats(&[2, 3, 2], &zeros)]);
    }
}

/// A table of many rows, and one whose rows are met often: the same bits in each run, and the sums of the CPU.
#[test]
fn many_rows_are_added_by_their_ids() {
    let mut r = Random(31);
    for (rows, width, count) in
        [(20_000, 32, 30_000), (20_000, 3, 20_000), (7, 130, 5_000), (3, 1, 20_000), (900, 65, 1)]
    {
        let x = r.floats(count * width, 1.0);
        // Half of them are padding, and some are beyond the table.
        let mut id = |n: usize| if n.is_multiple_of(2) { 0 } else { r.below(rows + 2) as u32 };
        let ids: Vec<u32> = (0..count).map(&mut id).collect();
        let mut want = vec![0.0; rows * width];
        for (row, &id) in x.chunks_exact(width).zip(&ids) {
            let id = (id as usize).min(rows - 1);
            want[id * width..][..width].iter_mut().zip(row).for_each(|(o, &v)| *o += f64::from(v));
        }
        for device in devices() {
            let x = Tensor::from_f32(&x, &[count, width], &device).unwrap();
            let ids = Tensor::from_u32(&ids, &[count], &device).unwrap();
            let got = x.sum_rows(&ids, rows).unwrap().to_vec().unwrap();
            compare(&got, &want, Tolerance { abs: 2e-3, rel: 1e-5 })
                .unwrap_or_else(|e| panic!("{count} of {width} into {rows} on {device}: {e}"));
            let again = x.sum_rows(&ids, rows).unwrap().to_vec().unwrap();
            assert!(got.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{device}");
        }
    }
}

#[test]
fn what_has_no_gradient_is_named() {
    let mut g = GraphBuilder::new();
    g.input("x", ValueType::new(DType::F32, [2usize, 3]));
    g.constant("places", &[1, 3], Constant::Int(Int::I64, vec![1, 0, 1].into()));
    g.constant("updates", &[1, 3], Constant::Float(vec![1.0, 2.0, 3.0].into()));
    let largest = ops::ScatterElements { axis: 0, update: Update::Max, int: None };
    g.node("largest", largest, &["x", "places", "updates"], &["y"]);
    g.output("y", "y");
    let (mut a, outputs) = g.build().unwrap().open(|_| true).unwrap();
    let x = a.find("x").unwrap();
    let e = a.gradients(outputs[0].1, &[x]).unwrap_err();
    assert!(matches!(&e, Error::Input { expected, .. } if expected.contains("one number")), "{e}");
    let all = ops::ReduceOver { reduction: Reduction::Sum, axes: vec![], keep_dims: false, noop: false, int: None };
    let loss = a.derived("loss", Arc::new(all), &[Some(outputs[0].1)], 1).unwrap()[0];
    let e = a.gradients(loss, &[x]).unwrap_err();
    assert!(matches!(&e, Error::NoGradient { node, operator: "ScatterElements", .. } if node == "largest"), "{e}");
}

/// `docs/training.md` names every operator once, in the list where it belongs.
#[test]
fn the_page_says_of_every_operator_whether_it_has_a_gradient() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/training.md")).unwrap();
    let list = |title: &str| -> Vec<String> {
        let (_, text) = page.split_once(&format!("### {title}\n")).unwrap_or_else(|| panic!("no list `{title}`"));
        let text = text.split("\n#").next().unwrap();
        let lines = text.lines().filter_map(|l| l.strip_prefix("- "));
        let names = lines.map(|l| l.split(':').next().unwrap());
        names.flat_map(|l| l.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let (with, constant, without) = (list("With a gradient"), list("Constant"), list("Without"));
    let mut seen = 0;
    for file in std::fs::read_dir(root.join("crates/graph/src/ops")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for part in text.split("\nimpl Operator for ").skip(1) {
            let (name, body) = (part.split(' ').next().unwrap().to_owned(), part.split("\n}\n").next().unwrap());
            let has = body.contains("fn gradient(&self, g:") && !body.contains("Err(g.missing(\"optional values");
            let count = |list: &[String]| list.iter().filter(|n| **n == name).count();
            let places = [count(&with), count(&constant), count(&without)];
            assert_eq!(places.iter().sum::<usize>(), 1, "{name} stands in {places:?} of the three lists");
            assert_eq!(places[0] == 1, has, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, with.len() + constant.len() + without.len(), "a list names what is no operator");
    assert!(seen > 80, "{seen} operators were found");
}
