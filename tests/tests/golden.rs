//! PyTorch's and Keras's own numbers.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Bidirectional, CallArgs, Device, GateOrder, Gru, Lstm, Merge, RecurrentLayer, RecurrentSpec, SimpleRnn,
    State, Tensor, Weights,
};
use recurve_tests::{Arrays, Golden, devices, fixtures, golden, paths, poison, wide};
use serde_json::Value;

/// The expected values were rounded to f32 by their makers; ours carry the kernels' own rounding.
const TOLERANCE: Tolerance = Tolerance::new(3e-6);

fn tensor(g: &Golden, device: &Device) -> Tensor {
    Tensor::from_f32(&g.data, &g.shape, device).unwrap()
}

fn pytorch_layer(case: &str, arrays: &Arrays, device: &Device) -> RecurrentLayer {
    let mut weights = Weights::new();
    for (name, g) in arrays {
        if let Some(name) = name.strip_prefix("weights.") {
            weights.insert(format!("encoder.net.{name}"), &g.shape, g.data.clone()).unwrap();
        }
    }
    let kind = case.split('_').next().unwrap();
    let layer = match kind {
        "lstm" => Lstm::from_weights(&weights, "encoder.net", device),
        "gru" => Gru::from_weights(&weights, "encoder.net", device),
        _ => SimpleRnn::from_weights(&weights, "encoder.net", device),
    }
    .unwrap();
    if !case.ends_with("relu") {
        return layer;
    }
    // PyTorch's state_dict does not tell the nonlinearity; the description does.
    let mut spec: RecurrentSpec = layer.spec().clone();
    spec.cell.activation = Activation::Relu.into();
    RecurrentLayer::new("rnn", &spec, layer.input_size(), &weights, "encoder.net", device).unwrap()
}

#[test]
fn pytorch() {
    let cases = golden("pytorch.safetensors");
    assert!(cases.len() > 25, "{}", cases.len());
    for (device, strategy) in paths() {
        for (name, arrays) in &cases {
            let layer = pytorch_layer(name, arrays, &device);
            let state = arrays
                .get("h0")
                .map(|h| State { h: tensor(h, &device), c: arrays.get("c0").map(|c| tensor(c, &device)) });
            let lengths = arrays.get("lengths").map(|l| {
                let l: Vec<u32> = l.data.iter().map(|&v| v as u32).collect();
                Tensor::from_u32(&l, &[l.len()], &device).unwrap()
            });
            let (want_y, want_h) = (&arrays["y"], &arrays["h"]);
            poison(&device, &[want_y.data.len(), want_h.data.len()]);
            let args = CallArgs { state: state.as_ref(), lengths: lengths.as_ref(), strategy, ..CallArgs::default() };
            let (y, last) = layer.forward_with(&tensor(&arrays["x"], &device), &args).unwrap();
            assert_eq!(y.dims(), want_y.shape, "{name}");
            assert_eq!(last.h.dims(), want_h.shape, "{name}");
            let check = |what: &str, got: &Tensor, want: &Golden| {
                compare(&got.to_vec().unwrap(), &wide(&want.data), TOLERANCE)
                    .unwrap_or_else(|e| panic!("{name} {what} on {device} by {}: {e}", strategy.name()));
            };
            check("y", &y, want_y);
            check("h", &last.h, want_h);
            assert_eq!(last.c.is_some(), arrays.contains_key("c"), "{name}");
            if let Some(c) = &last.c {
                check("c", c, &arrays["c"]);
            }
        }
    }
}

#[test]
fn pytorch_wrong_gate_order_is_caught() {
    let cases = golden("pytorch.safetensors");
    let mut arrays = cases["lstm_l1"].clone();
    let w = arrays.get_mut("weights.weight_ih_l0").unwrap();
    w.data = GateOrder::Onnx.to_native(recurve::CellKind::Lstm { coupled: false }, &w.data);
    for device in devices() {
        let (y, _) = pytorch_layer("lstm_l1", &arrays, &device).forward(&tensor(&arrays["x"], &device), None).unwrap();
        assert!(compare(&y.to_vec().unwrap(), &wide(&arrays["y"].data), TOLERANCE).is_err());
    }
}

/// Keras stores kernels as `[in, G·H]`, gates i f c o and z r h, and a GRU's two biases as `[2, 3H]`.
fn keras_layer(config: &Value, arrays: &Arrays, device: &Device) -> RecurrentLayer {
    let units = config["units"].as_u64().unwrap() as usize;
    let flag = |name: &str, default: bool| config.get(name).and_then(Value::as_bool).unwrap_or(default);
    macro_rules! build {
        ($layer:expr) => {{
            let mut l = $layer
                .return_sequences(flag("return_sequences", false))
                .return_state(flag("return_state", false))
                .go_backwards(flag("go_backwards", false))
                .use_bias(flag("use_bias", true));
            if config.get("activation").and_then(Value::as_str) == Some("relu") {
                l = l.activation(Activation::Relu);
            }
            l
        }};
    }
    let hard = config.get("recurrent_activation").is_some();
    let mut spec: RecurrentSpec = match config["kind"].as_str().unwrap() {
        "lstm" if hard => build!(Lstm::new(units).recurrent_activation(Activation::HARD_SIGMOID_KERAS3)).into(),
        "lstm" => build!(Lstm::new(units)).into(),
        "gru" => {
            let gru = Gru::new(units).reset_after(flag("reset_after", true));
            build!(if hard { gru.recurrent_activation(Activation::HARD_SIGMOID_KERAS3) } else { gru }).into()
        }
        _ => build!(SimpleRnn::new(units)).into(),
    };
    if let Some(merge) = config["merge"].as_str() {
        let merge = match merge {
            "concat" => Merge::Concat,
            "sum" => Merge::Sum,
            "ave" => Merge::Average,
            _ => Merge::Multiply,
        };
        spec = Bidirectional::new(spec).merge_mode(merge).into();
    }
    let kind = recurve::Cell::from(spec.cell).kind;
    let rows = kind.gates() * units;
    let input = *arrays["x"].shape.last().unwrap();
    let (d, per) = (spec.directions(), arrays.keys().filter(|n| n.starts_with('w')).count() / spec.directions());
    let mut weights = Weights::new();
    for n in 0..d {
        let w = |k: usize| &arrays[&format!("w{}", n * per + k)];
        let end = if n == 1 { "_reverse" } else { "" };
        let matrix = |g: &Golden| -> Vec<f32> {
            let columns = g.shape[0];
            let t: Vec<f32> = (0..rows * columns).map(|i| g.data[i % columns * rows + i / columns]).collect();
            GateOrder::Keras.to_native(kind, &t)
        };
        weights.insert(format!("weight_ih_l0{end}"), &[rows, input], matrix(w(0))).unwrap();
        weights.insert(format!("weight_hh_l0{end}"), &[rows, units], matrix(w(1))).unwrap();
        if per == 3 {
            for (bias, name) in w(2).data.chunks_exact(rows).zip(["bias_ih", "bias_hh"]) {
                weights.insert(format!("{name}_l0{end}"), &[rows], GateOrder::Keras.to_native(kind, bias)).unwrap();
            }
        }
    }
    RecurrentLayer::new("keras", &spec, input, &weights, "", device).unwrap()
}

#[test]
fn keras() {
    let bytes = std::fs::read(fixtures().join("keras.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let configs: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    let cases = golden("keras.safetensors");
    assert_eq!(cases.len(), configs.as_object().unwrap().len());
    for (device, strategy) in paths() {
        for (name, arrays) in &cases {
            let layer = keras_layer(&configs[name], arrays, &device);
            let want: Vec<&Golden> = (0..).map_while(|n| arrays.get(&format!("y{n}"))).collect();
            poison(&device, &want.iter().map(|g| g.data.len()).collect::<Vec<_>>());
            let args = CallArgs { strategy, ..CallArgs::default() };
            let got = layer.call(&tensor(&arrays["x"], &device), &args).unwrap();
            assert_eq!(got.len(), want.len(), "{name}");
            for (n, (got, want)) in got.iter().zip(want).enumerate() {
                assert_eq!(got.dims(), want.shape, "{name} output {n}");
                compare(&got.to_vec().unwrap(), &wide(&want.data), TOLERANCE)
                    .unwrap_or_else(|e| panic!("{name} output {n} on {device} by {}: {e}", strategy.name()));
            }
        }
    }
}
