//! Cells that ONNX files have written out operator by operator (`golden/make_onnx_cells.py`): as recurrent layers and
//! operator by operator, beside ONNX Runtime.

use recurve::testing::Tolerance;
use recurve::{Device, OnnxModel, OnnxOptions};
use recurve_graph::{Graph, Operator, Source, ops};
use recurve_tests::devices;
use recurve_tests::node_tests::NodeTest;

const CELLS: &[u8] = include_bytes!("../fixtures/onnx_cells.bin.gz");

/// The recurrent layers that run in a graph, those in the graphs inside it too. A node that another has taken in is not
/// needed by any output.
fn layers(g: &Graph) -> usize {
    let inside = |o: &dyn Operator| o.subgraphs().iter().map(|g| layers(g)).sum::<usize>();
    let own = |o: &dyn Operator| usize::from(o.as_any().is::<ops::Rnn>());
    let mut needed = vec![false; g.nodes().len()];
    let mut open: Vec<_> = g.outputs().iter().map(|(_, id)| *id).collect();
    while let Some(id) = open.pop() {
        if let Source::Node { node, .. } = g.value(id).source
            && !needed[node]
        {
            needed[node] = true;
            open.extend(g.nodes()[node].inputs.iter().flatten());
        }
    }
    let runs = g.nodes().iter().zip(needed).filter(|(_, needed)| *needed);
    runs.map(|(n, _)| own(&*n.operator) + inside(&*n.operator)).sum()
}

/// Whether a graph computes a sigmoid or a tanh by itself.
fn has_gates(g: &Graph) -> bool {
    g.nodes().iter().any(|n| n.operator.as_any().is::<ops::Activate>())
}

fn written_out() -> OnnxOptions {
    let mut options = OnnxOptions::default();
    options.fuse_cells = false;
    options
}

/// Layers that a file becomes, where it is not one.
fn expected(name: &str) -> usize {
    match name {
        // Every step by itself: its input depends on the step before.
        "torch_lstm_fed_back_dynamo" | "torch_lstm_fed_back_script" => 3,
        "torch_lstm_two_dynamo" | "torch_lstm_two_script" => 2,
        "torch_rnn_two_dynamo" | "torch_rnn_two_script" => 2,
        // A state in the middle is read; the weights of one step are others.
        "unrolled_lstm_inner_c" => 2,
        "unrolled_lstm_other_weights" => 3,
        // The nodes of the files.
        "not_turned_lengths" | "not_turned_back" => 1,
        // The step of the body, which runs once a timestep.
        "not_scan_output" | "not_loop_shorter" | "not_loop_condition" => 1,
        _ if name.starts_with("not_") => 0,
        _ => 1,
    }
}

#[test]
fn cells_agree_with_onnx_runtime_both_ways() {
    let cases = NodeTest::from_file(CELLS);
    assert!(cases.len() > 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        for device in devices() {
            for options in [OnnxOptions::default(), written_out()] {
                if let Err(e) = case.run_with(&device, &options) {
                    wrong.push(format!("{name} on {device}, {options:?}: {e}"));
                }
            }
        }
        if let Err(e) = case.reference() {
            wrong.push(format!("{name} in f64: {e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Both forms of a file differ by no more than rounding.
#[test]
fn a_layer_is_its_operators_within_rounding() {
    for (name, case) in NodeTest::from_file(CELLS) {
        let run = |options: &OnnxOptions| case.outputs(&Device::Cpu, options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (a, b) in run(&OnnxOptions::default()).iter().zip(run(&written_out())) {
            recurve::testing::compare(&a.to_f32(), &b.to_f64(), Tolerance::new(3e-6))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn cells_become_layers_where_that_is_safe() {
    let mut wrong = Vec::new();
    for (name, case) in NodeTest::from_file(CELLS) {
        let model = case.model(&Device::Cpu, &OnnxOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (got, lines) = (layers(model.graph()), model.explain().join("; "));
        let stays = name.starts_with("not_");
        if got != expected(&name) || has_gates(model.graph()) && !stays {
            wrong.push(format!("{name}: {got} layers, expected {}: {lines}", expected(&name)));
        }
        let plain = case.model(&Device::Cpu, &written_out()).unwrap_or_else(|e| panic!("{name}: {e}"));
        if plain.explain() != [""; 0] {
            wrong.push(format!("{name}: {:?} though cells were to stay as they are", plain.explain()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn explained(name: &str) -> Vec<String> {
    let (_, case) = NodeTest::from_file(CELLS).into_iter().find(|(n, _)| n == name).expect("a case");
    case.model(&Device::Cpu, &OnnxOptions::default()).unwrap().explain().to_vec()
}

#[test]
fn lines_say_what_became_of_cells() {
    for (name, words) in [
        ("lstm_step", &["a step of an LSTM of 4 units", "one layer"][..]),
        ("gru_step_after_kept", &["a step of a GRU of 4 units", "one layer"]),
        ("scan_lstm", &["(Scan) is an LSTM of 4 units over time"]),
        ("loop_lstm", &["(Loop) is an LSTM of 4 units over time"]),
        ("unrolled_lstm", &["5 steps of an LSTM of 4 units, which run as one layer"]),
        ("torch_lstm_fed_back_script", &["3 steps of an LSTM", "one layer each"]),
        ("turned_slice", &["runs backwards"]),
        ("not_lstm_function", &["Cos", "in the place of a gate"]),
        ("not_lstm_inner_output", &["is an output", "operator by operator"]),
        ("not_lstm_inner_read", &["is also read by node `exp", "operator by operator"]),
        ("not_lstm_weights", &["its weights are not constants"]),
        ("not_lstm_two_states", &["products of different values"]),
        ("not_scan_output", &["gives more than the states", "once a timestep"]),
        ("not_loop_shorter", &["another number of timesteps"]),
        ("not_loop_condition", &["a condition may end it"]),
    ] {
        let lines = explained(name).join("; ");
        for word in words {
            assert!(lines.contains(word), "{name}: {lines:?} does not say {word:?}");
        }
    }
}

/// A case whose expected output is another one fails, both ways.
#[test]
fn a_changed_output_fails() {
    for (name, case) in NodeTest::from_file(CELLS).into_iter().filter(|(n, _)| n.starts_with("unrolled")) {
        for change in [0, 1, 2] {
            let case = case.clone().spoiled(change);
            for options in [OnnxOptions::default(), written_out()] {
                assert!(case.run_with(&Device::Cpu, &options).is_err(), "{name}: change {change}");
            }
        }
    }
}

/// The file of a layer in two: the layer is the file's own node, and one in its place.
#[test]
fn files_with_layers_say_so() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/gtcrn.onnx");
    let model = OnnxModel::open(path, &Device::Cpu).unwrap();
    assert_eq!(model.explain().iter().filter(|l| l.contains("a GRU of")).count(), layers(model.graph()));
}
