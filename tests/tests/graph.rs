//! Graphs: errors when one is built, operators compared with their f64 references, passes that change no result, and
//! runs that stop between two nodes.

use recurve::testing::{Tolerance, compare};
use recurve::{Activation, Cell, DType, Device, Direction, Reduction, Tensor, Weight};
use recurve_graph::{
    Array, Call, Constant, Data, Dim, Error, Executor, Fault, Graph, GraphBuilder, HostInputs, Operator, Outputs,
    Packed, RunOptions, Slot, ValueType, ops,
};
use recurve_tests::{Random, devices};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Debug, Default)]
struct Weights(BTreeMap<String, Weight>);

impl Weights {
    fn random(graph: &Graph, r: &mut Random) -> Self {
        let one = |v: &recurve_graph::Value| {
            let dims: Vec<usize> = v.kind.dims.iter().filter_map(Dim::size).collect();
            let data = r.floats(dims.iter().product(), 0.4);
            (v.name.clone(), Weight::new(&dims, data).unwrap())
        };
        Self(graph.parameters().map(one).collect())
    }

    fn wide(&self, name: &str) -> Option<Array> {
        let wide = |w: &Weight| w.values().unwrap().iter().map(|&v| v.into()).collect();
        self.0.get(name).map(|w| Array::new(w.shape(), wide(w)))
    }

    fn executor(&self, graph: &Arc<Graph>, device: &Device) -> Result<Executor, Error> {
        Executor::new(graph.clone(), |name| self.0.get(name).cloned(), device)
    }
}

/// A function that makes a tensor on a device.
type Make = Box<dyn Fn(&Device) -> Tensor>;

/// A random input, as an array for the reference and as a function that makes the tensor.
fn given(r: &mut Random, kind: DType, dims: &[usize], below: usize) -> (Array, Make) {
    let (n, dims) = (dims.iter().product(), dims.to_vec());
    if kind == DType::U32 {
        let ids: Vec<u32> = (0..n).map(|_| r.below(below) as u32).collect();
        let wide = Array::new(&dims, ids.iter().map(|&v| v.into()).collect());
        return (wide, Box::new(move |d| Tensor::from_u32(&ids, &dims, d).unwrap()));
    }
    let data = r.floats(n, 1.0);
    let wide = Array::new(&dims, data.iter().map(|&v| v.into()).collect());
    (wide, Box::new(move |d| Tensor::from_f32(&data, &dims, d).unwrap()))
}

fn numbers(d: &Data) -> Vec<f32> {
    let Data::Tensor(t) = d else { return d.to_ints().unwrap().data().iter().map(|&v| v as f32).collect() };
    match t.dtype() {
        DType::U32 => t.to_vec_u32().unwrap().into_iter().map(|v| v as f32).collect(),
        _ => t.to_vec().unwrap(),
    }
}

/// Runs a graph on every device and compares every value with f64.
fn check(graph: Graph, inputs: &[(DType, &[usize], usize)], tolerance: f64) {
    let mut r = Random(7);
    let weights = Weights::random(&graph, &mut r);
    let made: Vec<_> = inputs.iter().map(|(kind, dims, below)| given(&mut r, *kind, dims, *below)).collect();
    let wide: Vec<_> = made.iter().map(|(a, _)| Some(a.clone())).collect();
    let plain = Arc::new(graph.clone());
    let simple = Arc::new(graph.simplified().unwrap());
    for graph in [plain, simple] {
        let want = graph.reference(&wide, |name| weights.wide(name)).unwrap();
        for device in devices() {
            let executor = weights.executor(&graph, &device).unwrap();
            let tensors: Vec<_> = made.iter().map(|(_, make)| make(&device)).collect();
            let tensors: Vec<_> = tensors.iter().map(Some).collect();
            let options = RunOptions::default();
            let mut frame = executor.begin(&tensors, true).unwrap();
            executor.advance(&mut frame, usize::MAX, &options).unwrap();
            for node in graph.nodes() {
                for &id in &node.outputs {
                    let (got, want) = (frame.data(id).unwrap(), want[id_of(&graph, id)].as_ref().unwrap());
                    assert_eq!(got.dims(), want.dims, "{} on {device}", node.name);
                    assert!(
                        got.as_tensor().is_none_or(|t| graph.value(id).kind.admits(t.dtype(), t.dims())),
                        "{}: {}",
                        node.name,
                        graph.value(id).kind
                    );
                    compare(&numbers(got), &want.data, Tolerance::new(tolerance))
                        .unwrap_or_else(|e| panic!("{} ({}) on {device}: {e}", node.name, node.operator.name()));
                }
            }
            // The same outputs, twice, in runs without a trace, which drop values that are not needed.
            for _ in 0..2 {
                let outputs = executor.run(&tensors, &options).unwrap();
                for ((name, id), got) in graph.outputs().iter().zip(outputs) {
                    assert_eq!(numbers(&got.unwrap()), numbers(frame.data(*id).unwrap()), "{name} on {device}");
                }
            }
        }
    }
}

fn id_of(graph: &Graph, id: recurve_graph::ValueId) -> usize {
    graph.values().position(|(v, _)| v == id).unwrap()
}

fn floats(dims: &[Option<usize>]) -> ValueType {
    ValueType::new(DType::F32, dims.iter().copied())
}

/// A graph of one node.
fn one(operator: impl Operator + 'static, inputs: &[ValueType]) -> Graph {
    let mut g = GraphBuilder::new();
    let names: Vec<String> = (0..inputs.len()).map(|n| format!("x{n}")).collect();
    names.iter().zip(inputs).for_each(|(n, t)| g.input(n, t.clone()));
    g.node("node", operator, &names.iter().map(String::as_str).collect::<Vec<_>>(), &["y"]);
    g.output("y", "y");
    g.build().unwrap()
}

#[test]
fn every_operator_is_its_truth() {
    use ops::{
        Activate, ArgMax, Binary, Concat, Extent, Gather, IfGiven, LayerNorm, Linear, Mask, MatMul, Reduce, Reshape,
    };
    use ops::{Slice, Softmax, Transpose};
    let f = DType::F32;
    let x3 = || floats(&[None, None, Some(5)]);
    let s3: (DType, &[usize], usize) = (f, &[2, 3, 5], 0);
    for a in [Activation::Tanh, Activation::Relu, Activation::Sigmoid, Activation::Affine { alpha: 0.5, beta: 1.0 }] {
        check(one(Activate(a), &[x3()]), &[s3], 1e-6);
    }
    for b in [Binary::Add, Binary::Sub, Binary::Mul] {
        check(one(b, &[x3(), floats(&[Some(5)])]), &[s3, (f, &[5], 0)], 1e-6);
        check(one(b, &[x3(), floats(&[None, Some(1)])]), &[s3, (f, &[3, 1], 0)], 1e-6);
    }
    for axis in 0..3 {
        check(one(ArgMax { axis }, &[x3()]), &[s3], 0.0);
        check(one(Slice { axis, start: -2, len: 1 }, &[x3()]), &[s3], 0.0);
        check(one(Slice { axis, start: 0, len: 2 }, &[x3()]), &[s3], 0.0);
        check(one(Concat { axis: axis as isize }, &[x3(), x3()]), &[s3, s3], 0.0);
        for reduction in [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::Min] {
            check(one(Reduce { reduction, axis }, &[x3()]), &[s3], 1e-6);
        }
    }
    check(one(Transpose(vec![2, 0, 1]), &[x3()]), &[s3], 0.0);
    check(one(Reshape(vec![Extent::Axes(0, 2), Extent::Size(5)]), &[x3()]), &[s3], 0.0);
    let unflatten = Reshape(vec![Extent::Like(0), Extent::Like(1), Extent::Axes(1, 1)]);
    check(one(unflatten, &[floats(&[None, Some(4)]), x3()]), &[(f, &[6, 4], 0), s3], 0.0);
    check(one(Softmax, &[x3()]), &[s3], 1e-6);
    check(one(IfGiven, &[x3(), floats(&[None])]), &[s3, (f, &[1], 0)], 0.0);
    check(one(MatMul, &[x3(), floats(&[Some(5), Some(4)])]), &[s3, (f, &[5, 4], 0)], 1e-5);
    check(one(MatMul, &[x3(), floats(&[None, Some(5), Some(4)])]), &[s3, (f, &[2, 5, 4], 0)], 1e-5);
    check(one(LayerNorm { epsilon: 1e-5 }, &[x3(), floats(&[Some(2), Some(5)])]), &[s3, (f, &[2, 5], 0)], 1e-5);
    let ids = || ValueType::new(DType::U32, [None, None]);
    check(one(Gather, &[floats(&[Some(6), Some(3)]), ids()]), &[(f, &[6, 3], 0), (DType::U32, &[2, 4], 6)], 0.0);
    check(one(Mask::Ids(0), &[ids()]), &[(DType::U32, &[2, 4], 2)], 0.0);
    check(one(Mask::Features(0.0), &[x3()]), &[s3], 0.0);
    for transposed in [true, false] {
        let linear = Linear { transposed, activation: Activation::Sigmoid };
        let w: &[usize] = if transposed { &[4, 5] } else { &[5, 4] };
        let kind = floats(&w.iter().map(|&n| Some(n)).collect::<Vec<_>>());
        check(one(linear, &[x3(), kind, floats(&[Some(4)])]), &[s3, (f, w, 0), (f, &[4], 0)], 1e-5);
    }
}

/// Adds parameters for the weights that the cell has, and a recurrent node.
fn recurrent(g: &mut GraphBuilder, name: &str, layer: &ops::Recurrent, x: &str, outputs: &[&str]) {
    let gates = layer.cell.kind.gates() * layer.hidden_size;
    let (h, d) = (layer.hidden_size, layer.directions.len());
    let mut needed = Vec::new();
    let inputs = layer.inputs([x, "", "", "", "", ""], |part, l, n| {
        let features = if l == 0 { layer.input_size } else { d * h };
        let dims = match part {
            "weight_ih" => vec![gates, features],
            "weight_hh" => vec![gates, h],
            "bias_ih" | "bias_hh" => vec![gates],
            _ => return String::new(),
        };
        needed.push((format!("{name}.{part}.{l}.{n}"), dims));
        needed.last().unwrap().0.clone()
    });
    needed.iter().for_each(|(name, dims)| g.parameter(name, dims));
    g.node(name, layer.clone(), &inputs.iter().map(String::as_str).collect::<Vec<_>>(), outputs);
}

#[test]
fn recurrent_layers_are_their_truth() {
    for cell in [Cell::LSTM, Cell::GRU, Cell::RNN, Cell::GRU_RESET_BEFORE] {
        for (directions, num_layers, time_major, reading_order) in [
            (vec![Direction::Forward], 1, false, false),
            (vec![Direction::Reverse], 1, true, true),
            (vec![Direction::Forward, Direction::Reverse], 2, false, false),
            (vec![Direction::Forward], 3, false, false),
        ] {
            let layer =
                ops::Recurrent { directions, num_layers, time_major, reading_order, ..ops::Recurrent::new(cell, 3, 4) };
            let mut g = GraphBuilder::new();
            g.input("x", floats(&[None, None, Some(3)]));
            let outputs = if cell.kind.has_cell_state() { &["y", "h", "c"][..] } else { &["y", "h"] };
            recurrent(&mut g, "layer", &layer, "x", outputs);
            outputs.iter().for_each(|o| g.output(o, o));
            check(g.build().unwrap(), &[(DType::F32, &[2, 5, 3], 0)], 1e-5);
        }
    }
}

/// Embedding, LSTM, the last output, a product with bias and activation, and a constant expression.
fn reader() -> GraphBuilder {
    let mut g = GraphBuilder::new();
    g.node("relu", ops::Activate(Activation::Relu), &["biased"], &["z"]);
    g.input("ids", ValueType::new(DType::U32, [None, None]));
    g.parameter("table", &[9, 3]);
    g.node("embedding", ops::Gather, &["table", "ids"], &["e"]);
    recurrent(&mut g, "lstm", &ops::Recurrent::new(Cell::LSTM, 3, 4), "e", &["y", "h"]);
    g.node("last", ops::Reshape::without(0, 3), &["h"], &["h2"]);
    g.parameter("w", &[4, 2]);
    g.parameter("b", &[2]);
    g.node("product", ops::MatMul, &["h2", "w"], &["p"]);
    g.node("sum", ops::Binary::Add, &["p", "b"], &["biased"]);
    g.constant("two", &[1], Constant::Float([2.0].into()));
    g.constant("three", &[1], Constant::Float([3.0].into()));
    g.node("six", ops::Binary::Mul, &["two", "three"], &["six"]);
    g.node("scaled", ops::Binary::Mul, &["z", "six"], &["out"]);
    g.output("out", "out");
    g
}

#[test]
fn passes_change_nothing_but_the_work() {
    let graph = reader().build().unwrap();
    check(graph.clone(), &[(DType::U32, &[2, 5], 9)], 1e-5);
    let simple = graph.clone().simplified().unwrap();
    let named = |g: &Graph, name: &str| g.nodes().iter().find(|n| n.name == name).map(|n| n.operator.name());
    assert_eq!(named(&graph, "six"), Some("Mul"));
    assert_eq!(named(&simple, "six"), None, "computed once and for all");
    assert_eq!(named(&simple, "relu"), Some("Linear"), "product, bias and activation in one");
    let lstm = simple.nodes().iter().find(|n| n.name == "lstm").unwrap();
    assert!(lstm.operator.as_any().downcast_ref::<ops::Recurrent>().unwrap().tokens);
}

/// A layer of ONNX as PyTorch exports it takes the embedding before it and the transposition behind it.
#[test]
fn layers_of_onnx_take_what_stands_around_them() {
    let graph = |outputs: &[&str]| {
        let mut g = GraphBuilder::new();
        g.input("ids", ValueType::new(DType::U32, [None, None]));
        [("table", &[9, 3][..]), ("w", &[2, 16, 3]), ("r", &[2, 16, 4]), ("b", &[2, 32])]
            .iter()
            .for_each(|(name, dims)| g.parameter(name, dims));
        g.node("embedding", ops::GatherAt { axis: 0 }, &["table", "ids"], &["e"]);
        g.node("turned", ops::Transpose(vec![1, 0, 2]), &["e"], &["x"]);
        let directions = vec![(Direction::Forward, Cell::LSTM), (Direction::Reverse, Cell::LSTM)];
        let rnn = ops::Rnn { directions, hidden_size: 4, batch_first: false, merged: false, tokens: None };
        g.node("lstm", rnn, &["x", "", "", "", "w", "r", "b"], &["y", "h", "c"]);
        g.node("back", ops::Transpose(vec![0, 2, 1, 3]), &["y"], &["z"]);
        outputs.iter().for_each(|o| g.output(o, o));
        g.build().unwrap()
    };
    let layer = |g: &Graph, name: &str| {
        let node = g.nodes().iter().find(|n| n.name == name).unwrap();
        node.operator.as_any().downcast_ref::<ops::Rnn>().map(|r| (r.merged, r.tokens))
    };
    let tokens = Some(ops::Tokens { turned: true });
    for (outputs, back) in [(&["z"][..], Some((true, tokens))), (&["z", "h"], None), (&["z", "y"], None)] {
        let graph = graph(outputs);
        let simple = graph.clone().simplified().unwrap();
        assert_eq!(layer(&simple, "lstm"), Some((false, tokens)), "{outputs:?}");
        assert_eq!(layer(&simple, "back"), back, "{outputs:?}");
        check(graph, &[(DType::U32, &[2, 5], 9)], 1e-5);
    }
}

/// The error messages of invalid graphs.
#[test]
fn a_wrong_graph_is_refused_with_the_name_of_its_node() {
    let says = |g: GraphBuilder, wanted: &[&str]| {
        let e = g.build().unwrap_err();
        let text = e.to_string();
        wanted.iter().for_each(|w| assert!(text.contains(w), "{text} without {w}"));
        e
    };
    let mut g = reader();
    g.node("again", ops::Softmax, &["z"], &["p"]);
    assert!(matches!(says(g, &["`p`", "`product`", "`again`"]), Error::Duplicate { .. }));
    let mut g = reader();
    g.input("ids", floats(&[None]));
    says(g, &["`ids`", "the graph's inputs"]);
    let mut g = reader();
    g.node("more", ops::Softmax, &["nothing"], &["q"]);
    assert!(matches!(says(g, &["`more`", "`nothing`"]), Error::MissingValue { .. }));
    let mut g = reader();
    g.output("q", "absent");
    says(g, &["the graph", "`absent`"]);
    assert_eq!(GraphBuilder::new().build().unwrap_err(), Error::NoOutputs);

    let mut g = GraphBuilder::new();
    g.node("one", ops::Softmax, &["c"], &["a"]);
    g.node("two", ops::Softmax, &["a"], &["b"]);
    g.node("three", ops::Softmax, &["b"], &["c"]);
    g.output("c", "c");
    let Error::Cycle { nodes } = says(g, &["`one`", "`two`", "`three`"]) else { panic!("a cycle") };
    assert_eq!(nodes.len(), 3);
    let mut g = GraphBuilder::new();
    g.node("own", ops::Softmax, &["a"], &["a"]);
    g.output("a", "a");
    assert!(matches!(says(g, &["`own`"]), Error::Cycle { .. }));

    let mut g = reader();
    g.node("wide", ops::MatMul, &["w", "table"], &["q"]);
    assert!(matches!(says(g, &["`wide`", "MatMul", "k = 2", "[9, 3]"]), Error::Operand { input: "b", .. }));
    let mut g = reader();
    g.node("mixed", ops::Binary::Add, &["ids", "b"], &["q"]);
    says(g, &["`mixed`", "`a`", "f32 or f16", "u32"]);
    let mut g = reader();
    g.node("axis", ops::ArgMax { axis: 2 }, &["w"], &["q"]);
    assert!(matches!(says(g, &["`axis`", "below 2"]), Error::Attribute { attribute: "axis", .. }));
    let mut g = reader();
    g.node("few", ops::MatMul, &["w"], &["q"]);
    assert!(matches!(says(g, &["`few`", "must have 2 inputs", "has 1"]), Error::Arity { .. }));
    let mut g = reader();
    g.node("outs", ops::Softmax, &["w"], &["q", "r"]);
    assert!(matches!(says(g, &["`outs`", "outputs"]), Error::Arity { .. }));
    let mut g = reader();
    let layer = ops::Recurrent::new(Cell::GRU, 3, 4);
    g.node("gru", layer.clone(), &["e", "", "h", "", "", "", "w", "w"], &["q"]);
    says(g, &["`gru`", "`c0`", "no second state"]);
    let mut g = reader();
    g.node("gru", layer, &["e", "", "", "", "", "", "w", "w"], &["q"]);
    says(g, &["`gru`", "weight_ih", "36 elements"]);
    let mut g = reader();
    g.constant("five", &[5], Constant::Float([1.0].into()));
    says(g, &["`five`", "5 elements"]);
}

#[test]
fn a_wrong_run_is_refused_and_leaves_the_executor_usable() {
    let graph = Arc::new(reader().build().unwrap().simplified().unwrap());
    let weights = Weights::random(&graph, &mut Random(3));
    for device in devices() {
        let executor = weights.executor(&graph, &device).unwrap();
        let options = RunOptions::default();
        let ids = |v: &[u32], dims: &[usize]| Tensor::from_u32(v, dims, &device).unwrap();
        let good = ids(&[0, 8, 3], &[1, 3]);
        let run = |t: Option<&Tensor>| executor.run(&[t], &options);
        let text = |t: Option<&Tensor>| run(t).unwrap_err().to_string();
        assert!(text(None).contains("`ids` must be u32 [?, ?], but it is missing"));
        assert!(text(Some(&ids(&[1, 2], &[2]))).contains("u32 [2]"));
        let floats = Tensor::from_f32(&[1.0], &[1, 1], &device).unwrap();
        assert!(text(Some(&floats)).contains("f32"));
        let e = text(Some(&ids(&[9], &[1, 1])));
        assert!(e.contains("`lstm`") && e.contains('9'), "{e}");
        assert!(executor.run(&[Some(&good), Some(&good)], &options).is_err());
        assert_eq!(run(Some(&good)).unwrap()[0].as_ref().unwrap().dims(), [1, 2]);
    }
    let mut few = weights.clone();
    few.0.remove("b");
    let e = few.executor(&graph, &Device::Cpu).unwrap_err();
    assert_eq!(e, Error::MissingParameter { name: "b".into() });
    let mut other = weights;
    other.0.insert("b".into(), Weight::new(&[3], vec![0.0; 3]).unwrap());
    assert!(matches!(other.executor(&graph, &Device::Cpu).unwrap_err(), Error::ParameterShape { .. }));
}

/// The first nodes run on one device, the others on another; this is how a check can find a faulty node.
#[test]
fn a_run_goes_on_elsewhere_after_any_node() {
    let graph = Arc::new(reader().build().unwrap().simplified().unwrap());
    let weights = Weights::random(&graph, &mut Random(3));
    let [cpu, gpu] = devices();
    let [here, there] = [&cpu, &gpu].map(|d| weights.executor(&graph, d).unwrap());
    let ids = Tensor::from_u32(&[0, 8, 3, 1, 1, 4], &[2, 3], &cpu).unwrap();
    let options = RunOptions::default();
    let want = here.run(&[Some(&ids)], &options).unwrap()[0].as_ref().map(numbers).unwrap();
    let wide: Vec<f64> = want.iter().map(|&v| v.into()).collect();
    for stop in 0..=graph.nodes().len() {
        let mut frame = here.begin(&[Some(&ids)], false).unwrap();
        here.advance(&mut frame, stop, &options).unwrap();
        assert_eq!(frame.next(), stop);
        let mut frame = frame.to_device(&gpu).unwrap();
        there.advance(&mut frame, usize::MAX, &options).unwrap();
        let got = there.end(frame)[0].as_ref().map(numbers).unwrap();
        compare(&got, &wide, Tolerance::new(1e-6)).unwrap_or_else(|e| panic!("after node {stop}: {e}"));
    }
}

#[test]
fn what_depends_on_an_input_left_out_is_left_out() {
    let mut g = GraphBuilder::new();
    g.input("x", floats(&[None, Some(2)]));
    g.optional_input("extra", floats(&[None, Some(2)]));
    g.node("sum", ops::Binary::Add, &["x", "extra"], &["s"]);
    g.node("either", ops::FirstGiven, &["s", "x"], &["e"]);
    g.output("s", "s");
    g.output("e", "e");
    let graph = Arc::new(g.build().unwrap());
    for device in devices() {
        let executor = Weights::default().executor(&graph, &device).unwrap();
        let x = Tensor::from_f32(&[1.0, 2.0], &[1, 2], &device).unwrap();
        let outputs = executor.run(&[Some(&x), None], &RunOptions::default()).unwrap();
        assert!(outputs[0].is_none());
        assert_eq!(numbers(outputs[1].as_ref().unwrap()), [1.0, 2.0]);
        let outputs = executor.run(&[Some(&x), Some(&x)], &RunOptions::default()).unwrap();
        assert_eq!(numbers(outputs[1].as_ref().unwrap()), [2.0, 4.0]);
        let wide = Array::new(&[1, 2], vec![1.0, 2.0]);
        let want = graph.reference(&[Some(wide), None], |_| None).unwrap();
        assert!(want[id_of(&graph, graph.outputs()[0].1)].is_none());
    }
}

/// A value that depends on whether an optional input was given.
#[test]
fn an_optional_input_chooses() {
    let mut g = GraphBuilder::new();
    g.input("x", floats(&[Some(1)]));
    g.optional_input("condition", floats(&[Some(1)]));
    g.node("negated", ops::Activate(Activation::Affine { alpha: -1.0, beta: 0.0 }), &["x"], &["n"]);
    g.node("if", ops::IfGiven, &["n", "condition"], &["chosen"]);
    g.node("else", ops::FirstGiven, &["chosen", "x"], &["y"]);
    g.output("y", "y");
    let graph = Arc::new(g.build().unwrap());
    for device in devices() {
        let executor = Weights::default().executor(&graph, &device).unwrap();
        let one = Tensor::from_f32(&[1.0], &[1], &device).unwrap();
        for (condition, want) in [(None, 1.0), (Some(&one), -1.0)] {
            let y = executor.run(&[Some(&one), condition], &RunOptions::default()).unwrap();
            assert_eq!(numbers(y[0].as_ref().unwrap()), [want]);
            let wide = Array::new(&[1], vec![1.0]);
            let truth = graph.reference(&[Some(wide.clone()), condition.map(|_| wide)], |_| None).unwrap();
            assert_eq!(truth[id_of(&graph, graph.outputs()[0].1)].as_ref().unwrap().data, [f64::from(want)]);
        }
    }
}

/// A run that watches values computes them too; otherwise it computes what an ordinary run does.
#[test]
fn a_watched_run_makes_what_no_output_needs() {
    let graph = Arc::new(reader().build().unwrap().simplified().unwrap());
    let weights = Weights::random(&graph, &mut Random(5));
    for device in devices() {
        let executor = weights.executor(&graph, &device).unwrap();
        executor.prepare().unwrap();
        let ids = Tensor::from_u32(&[0, 8, 3], &[1, 3], &device).unwrap();
        let options = RunOptions::default();
        let value = |name: &str| graph.find(name).unwrap();
        let mut frame = executor.start(&[Some(&ids)], &[value("e"), value("h")]);
        executor.advance(&mut frame, usize::MAX, &options).unwrap();
        assert_eq!(frame.data(value("e")).unwrap().dims(), [1, 3, 3], "the embedding, which tokens stand for");
        assert!(frame.data(value("y")).is_none(), "outputs at every timestep are not wanted");
        let out = numbers(frame.data(value("out")).unwrap());
        executor.recycle(frame);
        assert_eq!(out, numbers(executor.run(&[Some(&ids)], &options).unwrap()[0].as_ref().unwrap()));
    }
}

/// After a parameter is replaced, runs use the new one, in whatever form the old one was packed: as a tensor, as packed
/// weights, as a token table.
#[test]
fn a_run_after_a_parameter_was_replaced_is_that_of_the_new_one() {
    let plain = Arc::new(reader().build().unwrap());
    let simple = Arc::new(Graph::clone(&plain).simplified().unwrap());
    for graph in [plain, simple] {
        let (mut now, new) = (Weights::random(&graph, &mut Random(3)), Weights::random(&graph, &mut Random(4)));
        for device in devices() {
            let ids = Tensor::from_u32(&[0, 8, 3], &[1, 3], &device).unwrap();
            let run =
                |e: &Executor| numbers(e.run(&[Some(&ids)], &RunOptions::default()).unwrap()[0].as_ref().unwrap());
            let mut executor = now.executor(&graph, &device).unwrap();
            let mut last = run(&executor);
            for (name, weight) in &new.0 {
                // A refused replacement changes nothing.
                let e = executor.set_parameter(name, Weight::new(&[1], vec![0.0]).unwrap()).unwrap_err();
                assert!(matches!(&e, Error::ParameterShape { name: n, .. } if n == name), "{e}");
                assert_eq!(run(&executor), last);
                executor.set_parameter(name, weight.clone()).unwrap();
                now.0.insert(name.clone(), weight.clone());
                let got = run(&executor);
                assert_eq!(got, run(&now.executor(&graph, &device).unwrap()), "{name} on {device}");
                assert_ne!(got, last, "{name} on {device} makes a difference");
                last = got;
            }
            now = Weights::random(&graph, &mut Random(3));
            for name in ["ids", "nobody"] {
                let e = executor.set_parameter(name, Weight::new(&[1], vec![0.0]).unwrap()).unwrap_err();
                assert_eq!(e, Error::UnknownParameter { name: name.into() });
            }
        }
    }
}

/// An operator that adds a packed parameter to `x` and counts how often it packs.
#[derive(Debug)]
struct Adds(Arc<AtomicUsize>);

impl Operator for Adds {
    fn name(&self) -> &'static str {
        "Adds"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("weight")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        Ok(vec![inputs[0].unwrap().clone()])
    }
    fn host_inputs(&self) -> Option<usize> {
        Some(1)
    }
    fn pack(&self, host: &HostInputs<'_>, _: &Device) -> Result<Option<Packed>, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Box::new(host.tensor(1)?.unwrap())))
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs, recurve::TensorError> {
        let weight: &Tensor = call.packed.and_then(|p| p.downcast_ref()).unwrap();
        Ok([Some((call.input(0) + weight)?.into())].into_iter().collect())
    }
    fn reference(&self, _: &[Option<&Array>]) -> Vec<Option<Array>> {
        unreachable!("not asked for here")
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Parameters are packed once, when a run first needs them, and again only after a parameter of the node is replaced.
#[test]
fn parameters_are_packed_once_and_again_when_they_are_stale() {
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut g = GraphBuilder::new();
    g.input("x", floats(&[Some(1)]));
    g.parameter("a", &[1]);
    g.parameter("b", &[1]);
    g.node("first", Adds(counts[0].clone()), &["x", "a"], &["y"]);
    g.node("second", Adds(counts[1].clone()), &["y", "b"], &["z"]);
    g.output("z", "z");
    let graph = Arc::new(g.build().unwrap());
    let weight = |v: f32| Weight::new(&[1], vec![v]).unwrap();
    let weights = Weights([("a", 1.0), ("b", 10.0)].map(|(n, v)| (n.to_owned(), weight(v))).into());
    for device in devices() {
        counts.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        let packed = || counts.each_ref().map(|c| c.load(Ordering::Relaxed));
        let mut executor = weights.executor(&graph, &device).unwrap();
        let x = Tensor::from_f32(&[100.0], &[1], &device).unwrap();
        let run = |e: &Executor| numbers(e.run(&[Some(&x)], &RunOptions::default()).unwrap()[0].as_ref().unwrap())[0];
        assert_eq!(packed(), [0, 0]);
        assert_eq!((run(&executor), run(&executor), packed()), (111.0, 111.0, [1, 1]));
        let two = weight(2.0);
        executor.set_parameter("a", two.clone()).unwrap();
        assert_eq!(packed(), [1, 1], "not before somebody needs it");
        assert_eq!((run(&executor), run(&executor), packed()), (112.0, 112.0, [2, 1]));
        // The same weight again changes nothing.
        executor.set_parameter("a", two).unwrap();
        assert_eq!((run(&executor), packed()), (112.0, [2, 1]));
    }
}
