//! Runs of one executor, one after another: weights that are packed before a run, tables and shapes that nodes keep from
//! run to run, and memory that a node takes over. Everything is held against the graph's f64 reference.

use recurve::testing::{Tolerance, compare};
use recurve::{DType, Device, Tensor};
use recurve_graph::{
    Array, Constant, Data, Element, Executor, Graph, GraphBuilder, Int, IntArray, RunOptions, ValueType, ops,
};
use recurve_tensor::{Activation, Update};
use recurve_tests::{Random, devices};
use std::sync::Arc;

const INT: Element = Element::Int(Int::I64);

/// An input of a run.
#[derive(Clone)]
enum Given {
    Floats(Vec<usize>, Vec<f32>),
    Ints(Vec<usize>, Vec<i64>),
}

impl Given {
    fn array(&self) -> Array {
        match self {
            Self::Floats(dims, v) => Array::new(dims, v.iter().map(|&v| v.into()).collect()),
            Self::Ints(dims, v) => Array::new(dims, v.iter().map(|&v| v as f64).collect()),
        }
    }

    fn data(&self, device: &Device) -> Data {
        match self {
            Self::Floats(dims, v) => Tensor::from_f32(v, dims, device).unwrap().into(),
            Self::Ints(dims, v) => IntArray::new(dims, &v[..]).into(),
        }
    }
}

/// Random floats of a shape.
fn random(r: &mut Random, dims: &[usize]) -> Given {
    Given::Floats(dims.to_vec(), r.floats(dims.iter().product(), 1.0))
}

/// Runs a graph and its simplified form with each of these inputs, one after the other and then again, on every device.
fn check(graph: &Graph, runs: &[Vec<Given>], tolerance: f64) {
    for graph in [graph.clone(), graph.clone().simplified().unwrap()] {
        let graph = Arc::new(graph);
        let wants: Vec<Vec<Array>> = runs
            .iter()
            .map(|inputs| {
                let inputs: Vec<_> = inputs.iter().map(|g| Some(g.array())).collect();
                let all = graph.reference(&inputs, |_| None).unwrap();
                let id = |o: &str| graph.outputs().iter().find(|(name, _)| name == o).unwrap().1;
                let place = |id| graph.values().position(|(other, _)| other == id).unwrap();
                graph.outputs().iter().map(|(name, _)| all[place(id(name))].clone().unwrap()).collect()
            })
            .collect();
        for device in devices() {
            let executor = Executor::new(graph.clone(), |_| None, &device).unwrap();
            for (n, (inputs, want)) in runs.iter().zip(&wants).chain(runs.iter().zip(&wants)).enumerate() {
                let data: Vec<Option<Data>> = inputs.iter().map(|g| Some(g.data(&device))).collect();
                let outputs = executor.run_data(&data, &RunOptions::default()).unwrap();
                for (got, want) in outputs.iter().zip(want) {
                    let got = got.as_ref().unwrap();
                    assert_eq!(got.dims(), want.dims, "run {n} on {device}");
                    let floats = got.to_f32(&device).unwrap().to_vec().unwrap();
                    compare(&floats, &want.data, Tolerance::new(tolerance))
                        .unwrap_or_else(|e| panic!("run {n} on {device}: {e}"));
                }
                // The inputs are as they were.
                for (given, data) in inputs.iter().zip(&data) {
                    if let (Given::Floats(_, v), Some(Data::Tensor(t))) = (given, data) {
                        assert_eq!(&t.to_vec().unwrap(), v, "run {n} on {device}");
                    }
                }
            }
        }
    }
}

fn open(rank: usize) -> ValueType {
    ValueType::new(DType::F32, vec![None; rank])
}

fn windows(strides: &[usize], dilations: &[usize], pads: &[[usize; 2]]) -> ops::Windows {
    ops::Windows {
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        padding: ops::Padding::Explicit(pads.to_vec()),
        ..ops::Windows::default()
    }
}

/// Weights of few and many windows, of whole and broken vectors of channels, in groups, with and without a bias; the
/// same node in calls of few windows and of many.
#[test]
fn convolutions_with_weights_that_are_there_before() {
    let mut r = Random(5);
    type Shape<'a> = &'a [usize];
    let cases: [(Shape<'_>, usize, ops::Windows, &[Shape<'_>]); 9] = [
        // Frames of samples, which are windows as they are.
        (&[18, 1, 16], 1, windows(&[8], &[], &[]), &[&[1, 1, 40], &[2, 1, 16], &[1, 1, 400]]),
        (&[9, 1, 16], 1, windows(&[8], &[], &[[3, 5]]), &[&[1, 1, 40], &[1, 1, 16]]),
        (&[16, 5, 3], 1, windows(&[1], &[], &[[1, 1]]), &[&[1, 5, 4], &[3, 5, 1], &[1, 5, 15], &[2, 5, 16]]),
        (&[17, 6, 3], 1, windows(&[2], &[2], &[[4, 3]]), &[&[2, 6, 7], &[1, 6, 60]]),
        // One window: all of x, or a part of it.
        (&[24, 20, 1], 1, windows(&[], &[], &[]), &[&[1, 20, 1], &[7, 20, 1]]),
        (&[8, 3, 3], 1, windows(&[], &[], &[]), &[&[4, 3, 3], &[1, 3, 5]]),
        (&[16, 4, 4], 2, windows(&[2], &[], &[[2, 1]]), &[&[1, 8, 9], &[2, 8, 3]]),
        (&[11, 3, 2, 3], 1, windows(&[1, 2], &[2, 1], &[[1, 0], [2, 1]]), &[&[2, 3, 3, 6], &[1, 3, 9, 12]]),
        (&[8, 2, 2, 2, 2], 1, windows(&[], &[], &[[0, 1], [1, 0], [1, 1]]), &[&[1, 2, 2, 2, 1], &[1, 2, 3, 4, 5]]),
    ];
    for (weight, groups, windows, xs) in cases {
        let bias = r.floats(weight[0], 1.0);
        for biased in [false, true] {
            let mut g = GraphBuilder::new();
            g.input("x", open(weight.len()));
            g.constant("w", weight, Constant::Float(r.floats(weight.iter().product(), 1.0).into()));
            g.constant("b", &[weight[0]], Constant::Float(bias.clone().into()));
            let conv = ops::Conv { windows: windows.clone(), groups };
            g.node("conv", conv, if biased { &["x", "w", "b"] } else { &["x", "w"] }, &["y"]);
            g.output("y", "y");
            let runs: Vec<_> = xs.iter().map(|x| vec![random(&mut r, x)]).collect();
            check(&g.build().unwrap(), &runs, 1e-5);
        }
    }
}

/// A weight that is there before, and a bias or a weight that comes with a run.
#[test]
fn operands_that_come_from_elsewhere() {
    let mut r = Random(6);
    for fixed in ["w", "b"] {
        let mut g = GraphBuilder::new();
        g.input("x", open(3));
        let other = if fixed == "w" { ("b", &[16][..]) } else { ("w", &[16, 4, 3][..]) };
        let dims: &[usize] = if fixed == "w" { &[16, 4, 3] } else { &[16] };
        g.constant(fixed, dims, Constant::Float(r.floats(dims.iter().product(), 1.0).into()));
        g.input(other.0, open(other.1.len()));
        g.node("conv", ops::Conv { windows: ops::Windows::default(), groups: 1 }, &["x", "w", "b"], &["y"]);
        g.output("y", "y");
        check(&g.build().unwrap(), &[vec![random(&mut r, &[1, 4, 7]), random(&mut r, other.1)]], 1e-5);
    }
    for fixed in ["w", "b"] {
        let mut g = GraphBuilder::new();
        g.input("x", open(2));
        let other = if fixed == "w" { ("b", &[9][..]) } else { ("w", &[5, 9][..]) };
        let dims: &[usize] = if fixed == "w" { &[5, 9] } else { &[9] };
        g.constant(fixed, dims, Constant::Float(r.floats(dims.iter().product(), 1.0).into()));
        g.input(other.0, ValueType::new(DType::F32, other.1.iter().copied()));
        let linear = ops::Linear { transposed: false, activation: Activation::Tanh };
        g.node("linear", linear, &["x", "w", "b"], &["y"]);
        g.output("y", "y");
        check(&g.build().unwrap(), &[vec![random(&mut r, &[3, 5]), random(&mut r, other.1)]], 1e-5);
    }
}

/// Products by weights, with the sums and activations behind them, of one row, few and many.
#[test]
fn products_with_weights_that_are_there_before() {
    let mut r = Random(7);
    for (k, units) in [(3, 1), (16, 8), (33, 20), (128, 257), (4100, 3)] {
        for gemm in [false, true] {
            let mut g = GraphBuilder::new();
            g.input("x", ValueType::new(DType::F32, [None, Some(k)]));
            let dims = if gemm { [units, k] } else { [k, units] };
            g.constant("w", &dims, Constant::Float(r.floats(k * units, 0.2).into()));
            g.constant("b", &[units], Constant::Float(r.floats(units, 1.0).into()));
            if gemm {
                let gemm = ops::Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
                g.node("product", gemm, &["x", "w", "b"], &["s"]);
            } else {
                g.node("product", ops::MatMul, &["x", "w"], &["p"]);
                g.node("sum", ops::Binary::Add, &["b", "p"], &["s"]);
            }
            g.node("sigmoid", ops::Activate(Activation::Sigmoid), &["s"], &["y"]);
            g.output("y", "y");
            let graph = g.build().unwrap();
            let merged = graph.clone().simplified().unwrap();
            assert!(merged.nodes().iter().any(|n| n.operator.as_any().is::<ops::Linear>()), "{units} by {k}");
            let runs: Vec<_> = [1, 2, 3, 7, 50, 100].iter().map(|&rows| vec![random(&mut r, &[rows, k])]).collect();
            check(&graph, &runs, 2e-5);
        }
    }
    // What only looks like a product by a weight: a scaled one, one of whole numbers, a bias that is no row.
    let mut g = GraphBuilder::new();
    g.input("x", open(2));
    g.constant("w", &[4, 4], Constant::Float(r.floats(16, 1.0).into()));
    g.constant("column", &[4, 1], Constant::Float(r.floats(4, 1.0).into()));
    g.constant("i", &[2, 2], Constant::Int(Int::I64, [1, 2, 3, 4].into()));
    g.input("n", ValueType::new(INT, [None, Some(2)]));
    let gemm = ops::Gemm { alpha: 0.5, beta: 1.0, transpose_a: false, transpose_b: false };
    g.node("scaled", gemm, &["x", "w", "column"], &["a"]);
    g.node("whole", ops::MatMul, &["n", "i"], &["m"]);
    g.output("a", "a");
    g.output("m", "m");
    let n = Given::Ints(vec![3, 2], vec![1, 2, 3, 4, 5, 6]);
    check(&g.build().unwrap(), &[vec![random(&mut r, &[4, 4]), n]], 1e-5);
}

/// A node that may write into the memory of its input leaves everything else that has it as it was.
#[test]
fn updates_in_place_change_nothing_else() {
    let mut r = Random(8);
    let mut g = GraphBuilder::new();
    g.input("x", open(2));
    g.input("u", open(2));
    g.input("old", open(2));
    g.constant("one", &[], Constant::Float([1.0].into()));
    g.constant("first", &[1, 1], Constant::Int(Int::I64, [0].into()));
    g.constant("last", &[1, 1], Constant::Int(Int::I64, [-1].into()));
    g.constant("flat", &[1], Constant::Int(Int::I64, [-1].into()));
    let scatter = || ops::ScatterTuples::new(Update::Replace, None);
    // Of its own: a value that nothing else has, twice in a row.
    g.node("a", ops::Binary::Add, &["x", "one"], &["a"]);
    g.node("b", scatter(), &["a", "first", "u"], &["b"]);
    g.node("c", ops::ScatterTuples::new(Update::Add, None), &["b", "last", "u"], &["c"]);
    // The same elements under another shape, which are needed later.
    g.node("d", ops::Binary::Add, &["x", "one"], &["d"]);
    g.node("e", ops::ReshapeTo::default(), &["d", "flat"], &["e"]);
    g.node("f", scatter(), &["d", "last", "u"], &["f"]);
    g.node("h", ops::Binary::Add, &["e", "one"], &["h"]);
    // An input of the run, a constant, and a value that is an output too.
    g.node("i", scatter(), &["old", "first", "u"], &["i"]);
    g.constant("fixed", &[3, 4], Constant::Float(r.floats(12, 1.0).into()));
    g.node("k", scatter(), &["fixed", "first", "u"], &["k"]);
    g.node("l", ops::Binary::Add, &["old", "one"], &["l"]);
    g.node("m", scatter(), &["l", "first", "u"], &["m"]);
    // Both operands are the same.
    g.node("o", ops::Binary::Add, &["u", "one"], &["o"]);
    g.node("p", scatter(), &["o", "first", "o"], &["p"]);
    for name in ["c", "f", "h", "i", "k", "l", "m", "p"] {
        g.output(name, name);
    }
    let run = |r: &mut Random| vec![random(r, &[3, 4]), random(r, &[1, 4]), random(r, &[3, 4])];
    let runs: Vec<_> = (0..3).map(|_| run(&mut r)).collect();
    check(&g.build().unwrap(), &runs, 1e-6);
}

/// Shapes and tables that nodes keep are those of the run: sizes and indices change from run to run and change back.
#[test]
fn what_nodes_keep_belongs_to_its_inputs() {
    let mut r = Random(9);
    let mut g = GraphBuilder::new();
    g.input("x", open(2));
    g.input("i", ValueType::new(INT, [None]));
    g.constant("one", &[1], Constant::Int(Int::I64, [1].into()));
    g.constant("fixed", &[3], Constant::Int(Int::I64, [-1, 0, -1].into()));
    g.node("shape", ops::ShapeOf::default(), &["x"], &["s"]);
    g.node("size", ops::Size, &["x"], &["n"]);
    g.node("more", ops::Concat { axis: 0 }, &["one", "s"], &["t"]);
    g.node("reshape", ops::ReshapeTo::default(), &["x", "t"], &["y"]);
    let add = ops::Whole { operation: ops::Binary::Add, element: INT };
    g.node("sum", add, &["i", "one"], &["j"]);
    g.node("float", ops::Cast { from: INT, to: ops::Target::F32 }, &["j"], &["k"]);
    g.node("gather", ops::GatherAt { axis: 1 }, &["x", "i"], &["z"]);
    g.node("ends", ops::GatherAt { axis: 0 }, &["x", "fixed"], &["e"]);
    for name in ["n", "y", "k", "z", "e"] {
        g.output(name, name);
    }
    let run = |r: &mut Random, rows: usize, columns: usize, i: &[i64]| {
        vec![random(r, &[rows, columns]), Given::Ints(vec![i.len()], i.to_vec())]
    };
    let runs = [
        run(&mut r, 2, 3, &[0, 2, 1]),
        run(&mut r, 3, 3, &[0, 2, 1]),
        run(&mut r, 3, 4, &[-1, 2, -1]),
        run(&mut r, 2, 3, &[2, 2, 0, 1]),
        run(&mut r, 2, 5, &[-1, 2, -1]),
    ];
    check(&g.build().unwrap(), &runs, 1e-6);
}
