//! Options of layers: every device compared with the f64 reference layer by layer, model files that keep the options,
//! shapes and parameters, and contradictions.

use recurve::testing::{Tolerance, cross_check, reference_outputs};
use recurve::{
    Activation, Bidirectional, CallArgs, Dense, Device, Dropout, Embedding, Gru, HostArray, HostData, IndRnn,
    LayerConfig, Lstm, Masking, Merge, MinGru, MinLstm, Model, RecurrentSpec, SLstm, Sequential, SimpleRnn,
    StackedRnnCells, Tensor, TimeDistributed, WeightStorage,
};
use recurve_graph::Array;
use recurve_tests::skips::has_f16;
use recurve_tests::{Random, devices};

/// Networks that together contain every layer and option.
fn networks() -> Vec<(&'static str, Sequential, bool)> {
    let seq = |l: Lstm| l.return_sequences(true);
    vec![
        (
            "masked ids",
            Sequential::new()
                .add(Embedding::new(9, 5).mask_zero(true))
                .add(Bidirectional::new(Gru::new(4).return_sequences(true)).merge_mode(Merge::Average))
                .add(TimeDistributed::new(Dense::new(6).activation(Activation::Tanh)))
                .add(Lstm::new(5).zero_output_for_mask(true)),
            true,
        ),
        (
            "every option of an LSTM",
            Sequential::new()
                .add(Masking::new(0.5))
                .add(seq(Lstm::new(7).proj_size(3).peepholes(true).layer_norm(1e-3).zoneout(0.1, 0.2)))
                .add(seq(Lstm::new(6).input_forget(true).clip(0.8).go_backwards(true)))
                .add(seq(Lstm::new(5).gate_activations(
                    Activation::HARD_SIGMOID_KERAS3,
                    Activation::Sigmoid,
                    Activation::Softsign,
                )))
                .add(Lstm::new(4).weight_storage(WeightStorage::F16).dropout(0.2).recurrent_dropout(0.1)),
            false,
        ),
        (
            "cells of many kinds",
            Sequential::new()
                .add(IndRnn::new(6).return_sequences(true))
                .add(MinGru::new(5).return_sequences(true).activation(Activation::Positive))
                .add(Dropout::new(0.5))
                .add(Bidirectional::new(MinLstm::new(4).return_sequences(true)).merge_mode(Merge::Multiply))
                .add(SLstm::new(6).num_heads(3).exponential_forget(true).num_layers(2).return_sequences(true))
                .add(Gru::new(5).layer_norm(1e-3).zoneout(0.3).return_sequences(true))
                .add(SimpleRnn::new(4).zoneout(0.2)),
            false,
        ),
        (
            "stacks",
            Sequential::new()
                .add(Bidirectional::new(Lstm::new(4).num_layers(2).return_sequences(true).proj_size(3)))
                .add(Gru::new(5).num_layers(3).return_sequences(true).go_backwards(true))
                .add(
                    StackedRnnCells::new()
                        .add(Lstm::new(4))
                        .add(Gru::new(6).reset_after(false))
                        .add(SimpleRnn::new(3))
                        .return_sequences(true)
                        .go_backwards(true),
                )
                .add(Bidirectional::new(SimpleRnn::new(3)).merge_mode(Merge::None)),
            false,
        ),
        (
            "zero at the end",
            Sequential::new()
                .add(Lstm::new(4).zero_output_for_mask(true).return_sequences(true))
                .add(Gru::new(3).zero_output_for_mask(true).go_backwards(true)),
            false,
        ),
        (
            "cells of ids",
            Sequential::new()
                .add(Embedding::new(9, 5))
                .add(StackedRnnCells::new().add(Gru::new(4)).add(Lstm::new(3)).zero_output_for_mask(true)),
            true,
        ),
        (
            "time major",
            Sequential::new()
                .add(Masking::new(0.5))
                .add(seq(Lstm::new(4).time_major(true)))
                .add(Gru::new(3).time_major(true).zero_output_for_mask(true).return_sequences(true)),
            false,
        ),
    ]
}

fn input(ids: bool) -> HostArray {
    let mut r = Random(90);
    let (b, t, i) = (3, 6, 4);
    if ids {
        // Padding at the beginning, in the middle and at the end.
        let ids = [0, 3, 0, 4, 8, 1, 2, 7, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6];
        return HostArray { shape: vec![b, t], data: HostData::Int(ids.to_vec()) };
    }
    let mut x = r.floats(b * t * i, 1.0);
    for row in [2, 5, 6, 17] {
        x[row * i..(row + 1) * i].fill(0.5);
    }
    HostArray { shape: vec![b, t, i], data: HostData::Float(x) }
}

#[test]
fn every_layer_agrees_with_the_reference_on_every_device() {
    for (name, network, ids) in networks() {
        let shape: &[Option<usize>] = if ids { &[None, None] } else { &[None, None, Some(4)] };
        let model = Model::new(name, network.seed(3).build(shape, &Device::Cpu).unwrap());
        let mut devices = devices().to_vec();
        // One of its layers stores weights as f16, which not every adapter supports.
        if name == "every option of an LSTM" && !has_f16(&devices[1]) {
            devices.truncate(1);
        }
        let report = cross_check(&model, &[("input", input(ids))], &devices, Tolerance::new(1e-5))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(report.devices.len(), devices.len());
        assert!(report.worst_error() > 0.0, "{name}: suspiciously exact");
        // Also with a mask or lengths from the caller.
        if !ids && name != "time major" {
            let mask = HostArray { shape: vec![3, 6], data: HostData::Int([1, 1, 0, 1, 0, 1].repeat(3)) };
            let lengths = HostArray { shape: vec![3], data: HostData::Int(vec![6, 1, 4]) };
            let own = [("mask", mask), ("lengths", lengths)];
            for given in own {
                if name == "every option of an LSTM" && given.0 == "lengths" {
                    // Its Masking layer computes a mask, so lengths are refused.
                    assert!(cross_check(&model, &[("input", input(ids)), given], &devices, Tolerance::F32).is_err());
                    continue;
                }
                cross_check(&model, &[("input", input(ids)), given], &devices, Tolerance::new(1e-5))
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }
}

/// Two independent references agree: layer by layer from the descriptions, and node by node through the graph. A
/// mistake in converting layers to nodes would show as a difference.
#[test]
fn the_graphs_reference_is_that_of_the_layers() {
    let wide = |a: &HostArray| match &a.data {
        HostData::Int(v) => Array::new(&a.shape, v.iter().map(|&v| v as f64).collect()),
        HostData::Float(v) => Array::new(&a.shape, v.iter().map(|&v| v.into()).collect()),
        other => panic!("{other:?}"),
    };
    for (name, network, ids) in networks() {
        let shape: &[Option<usize>] = if ids { &[None, None] } else { &[None, None, Some(4)] };
        let model = Model::new(name, network.seed(3).build(shape, &Device::Cpu).unwrap());
        let mask = HostArray { shape: vec![3, 6], data: HostData::Int([1, 1, 0, 1, 0, 1].repeat(3)) };
        let lengths = HostArray { shape: vec![3], data: HostData::Int(vec![6, 1, 4]) };
        for given in [None, Some(("mask", mask)), Some(("lengths", lengths))] {
            let of_layers_that_find_padding = ids || name == "every option of an LSTM";
            if name == "time major" && given.is_some()
                || of_layers_that_find_padding && given.as_ref().is_some_and(|(n, _)| *n == "lengths")
            {
                continue;
            }
            let inputs: Vec<_> = [("input", input(ids))].into_iter().chain(given).collect();
            let want = reference_outputs(&model, &inputs).unwrap().pop().unwrap();
            let graph = model.network().graph();
            let operands: Vec<_> = graph
                .inputs()
                .iter()
                .map(|id| inputs.iter().find(|(n, _)| *n == graph.value(*id).name).map(|(_, a)| wide(a)))
                .collect();
            let weight = |name: &str| {
                let w = model.network().weights().get(name)?;
                Some(Array::new(w.shape(), w.values().unwrap().iter().map(|&v| v.into()).collect()))
            };
            let values = graph.reference(&operands, weight).unwrap();
            let first = graph.values().position(|(id, _)| id == graph.outputs()[0].1).unwrap();
            let got = values[first].as_ref().unwrap();
            assert_eq!(got.data.len(), want.len(), "{name}");
            for (g, w) in got.data.iter().zip(&want) {
                assert!((g - w).abs() <= 1e-12, "{name}: {g}, expected {w}");
            }
        }
    }
}

#[test]
fn model_files_keep_every_option() {
    let folder = tempfile::tempdir().unwrap();
    for (name, network, ids) in networks() {
        let shape: &[Option<usize>] = if ids { &[None, None] } else { &[None, None, Some(4)] };
        let model = Model::new(name, network.build(shape, &Device::Cpu).unwrap());
        let path = folder.path().join("m.safetensors");
        model.save(&path).unwrap();
        let read = Model::open(&path, &Device::Cpu).unwrap();
        assert_eq!(read.network().config(), model.network().config(), "{name}");
        let run = |m: &Model| {
            let given = m.inputs([("input", recurve::Input::Host(input(ids)))]).unwrap();
            m.network().forward(&given.inputs[0].1).unwrap().to_vec().unwrap()
        };
        assert_eq!(run(&read), run(&model), "{name}");
    }
}

#[test]
fn shapes_and_parameters_follow_the_options() {
    let build = |layer: LayerConfig| {
        Sequential::new().add(layer).build(&[None, None, Some(10)], &Device::Cpu).unwrap().summary().layers.remove(0)
    };
    // 4 gates of 8 units, each with 10 features, 3 projected states and one bias, and W_hr.
    let l = build(Lstm::new(8).proj_size(3).return_state(true).into());
    assert_eq!(l.params, 32 * (10 + 3) + 32 + 3 * 8);
    assert_eq!(l.output_shape(), "[(None, 3), (None, 3), (None, 8)]");
    let l = build(Lstm::new(8).peepholes(true).layer_norm(1e-5).into());
    assert_eq!(l.params, 32 * (10 + 8) + 32 + 3 * 8 + 2 * 32 + 2 * 32 + 2 * 8);
    assert_eq!(build(IndRnn::new(6).into()).params, 6 * 10 + 6 + 6);
    assert_eq!(build(MinGru::new(6).into()).params, 2 * (6 * 10 + 6));
    // Two heads of 4 units each; the states c, n and m.
    let l = build(SLstm::new(8).num_heads(2).exponential_forget(true).return_state(true).into());
    assert_eq!((l.class, l.params), ("sLSTM", 32 * 10 + 32 * 4 + 32));
    assert_eq!(l.output_shape(), "[(None, 8), (None, 8), (None, 24)]");
    let l = build(MinLstm::new(6).return_sequences(true).into());
    assert_eq!((l.params, l.output_shape().as_str()), (3 * (6 * 10 + 6), "(None, None, 6)"));
    let l = build(Bidirectional::new(Gru::new(4).return_sequences(true)).merge_mode(Merge::None).into());
    assert_eq!(l.output_shape(), "[(None, None, 4), (None, None, 4)]");
    let l = build(StackedRnnCells::new().add(Lstm::new(4)).add(Gru::new(6)).return_state(true).into());
    assert_eq!((l.class, l.output_shape().as_str()), ("RNN", "[(None, 6), (None, 4), (None, 4), (None, 6)]"));
    let l = Sequential::new()
        .add(TimeDistributed::new(Gru::new(3)))
        .build(&[None, None, Some(5), Some(4)], &Device::Cpu)
        .unwrap()
        .summary();
    assert_eq!(l.layers[0].output_shape(), "(None, None, 3)");
    assert_eq!(l.layers[0].name, "time_distributed");
}

#[test]
fn the_forget_gates_bias_begins_at_one_in_every_layer_and_direction() {
    let spec: RecurrentSpec = Bidirectional::new(Lstm::new(3).num_layers(2)).into();
    let network =
        Sequential::new().add(LayerConfig::Recurrent(spec)).build(&[None, None, Some(2)], &Device::Cpu).unwrap();
    let mut found = 0;
    for (name, a) in network.weights().iter().filter(|(n, _)| n.contains("bias")) {
        assert_eq!(a.values().unwrap()[..], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "{name}");
        found += 1;
    }
    assert_eq!(found, 4);
}

#[test]
fn what_contradicts_itself_says_so() {
    let refuse = |layer: LayerConfig, shape: &[Option<usize>], word: &str| {
        let e = Sequential::new().add(layer).build(shape, &Device::Cpu).unwrap_err().to_string();
        assert!(e.contains(word), "{word}: {e}");
    };
    let features = [None, None, Some(4)];
    refuse(Lstm::new(3).dropout(1.5).into(), &features, "dropout");
    refuse(Lstm::new(3).recurrent_dropout(-0.5).into(), &features, "recurrent_dropout");
    refuse(Lstm::new(3).proj_size(3).into(), &features, "projection");
    refuse(StackedRnnCells::new().into(), &features, "cells");
    refuse(StackedRnnCells::new().add(Gru::new(2).num_layers(2)).into(), &features, "cells");
    refuse(Masking::new(f32::NAN).into(), &features, "mask_value");
    refuse(TimeDistributed::new(Dense::new(2)).into(), &[None, Some(4)], "three dimensions");
    refuse(
        TimeDistributed::new(Gru::new(2).return_state(true)).into(),
        &[None, None, None, Some(4)],
        "several outputs",
    );
    let mut spec: RecurrentSpec = Gru::new(3).into();
    spec.cell.peepholes = true;
    refuse(LayerConfig::Recurrent(spec), &features, "peepholes");
    // A layer with several outputs that is not the last.
    let e = Sequential::new()
        .add(Bidirectional::new(Gru::new(2).return_sequences(true)).merge_mode(Merge::None))
        .add(Dense::new(1))
        .build(&features, &Device::Cpu)
        .unwrap_err();
    assert!(e.to_string().contains("merge_mode"), "{e}");
}

#[test]
fn a_given_state_needs_exactly_one_recurrent_layer() {
    for device in devices() {
        let network = Sequential::new()
            .add(Gru::new(3).return_sequences(true))
            .add(Gru::new(3))
            .build(&[None, None, Some(2)], &device)
            .unwrap();
        let x = Tensor::zeros(&[1, 2, 2], recurve::DType::F32, &device).unwrap();
        let h = Tensor::zeros(&[1, 1, 3], recurve::DType::F32, &device).unwrap();
        let state = recurve::State { h, c: None };
        let e = network.forward_all(&x, &CallArgs { state: Some(&state), ..CallArgs::default() }).unwrap_err();
        assert!(e.to_string().contains("2 states"), "{e}");
    }
}

/// PyTorch's names and Keras's names describe the same layers.
#[test]
fn two_vocabularies_for_one_layer() {
    let config = |l: SimpleRnn| LayerConfig::from(l);
    assert_eq!(config(SimpleRnn::new(3).batch_first(false)), config(SimpleRnn::new(3).time_major(true)));
    assert_eq!(config(SimpleRnn::new(3).batch_first(true)), config(SimpleRnn::new(3)));
    let relu = Activation::Relu;
    assert_eq!(config(SimpleRnn::new(3).nonlinearity(relu)), config(SimpleRnn::new(3).activation(relu)));
    assert_ne!(config(SimpleRnn::new(3).nonlinearity(relu)), config(SimpleRnn::new(3)));
}
