//! Layers from weights with PyTorch's names: every weight under the prefix is used, or refused with its name.

use recurve::{
    Bias, Bidirectional, Dense, Device, Embedding, Gru, LayerError as E, Lstm, Merge, Network, Sequential, SimpleRnn,
    Tensor, WeightStorage, Weights,
};
use recurve_tests::{Random, devices};
use std::sync::Arc;

const H: usize = 3;
const I: usize = 2;

/// The weights of an LSTM under `net`.
fn module(layers: usize, both: bool, bias: bool, projection: Option<usize>) -> Weights {
    let mut weights = Weights::new();
    let mut put = |name: String, shape: &[usize]| {
        let count = shape.iter().product();
        weights.insert(format!("net.{name}"), shape, vec![0.1; count]).unwrap();
    };
    let width = projection.unwrap_or(H);
    for l in 0..layers {
        for end in ["", "_reverse"].iter().take(1 + usize::from(both)) {
            let input = if l == 0 { I } else { width * (1 + usize::from(both)) };
            put(format!("weight_ih_l{l}{end}"), &[4 * H, input]);
            put(format!("weight_hh_l{l}{end}"), &[4 * H, width]);
            if bias {
                put(format!("bias_ih_l{l}{end}"), &[4 * H]);
                put(format!("bias_hh_l{l}{end}"), &[4 * H]);
            }
            if let Some(p) = projection {
                put(format!("weight_hr_l{l}{end}"), &[p, H]);
            }
        }
    }
    weights
}

/// The same weights without some.
fn without(all: &Weights, names: &[&str]) -> Weights {
    let mut rest = Weights::new();
    for (name, a) in all.iter().filter(|(n, _)| !names.iter().any(|m| *n == format!("net.{m}"))) {
        rest.extend([(name.to_owned(), a.clone())]);
    }
    rest
}

/// The same weights and one more.
fn with(all: &Weights, name: &str, shape: &[usize]) -> Weights {
    let mut more = all.clone();
    more.insert(format!("net.{name}"), shape, vec![0.1; shape.iter().product()]).unwrap();
    more
}

fn open(weights: &Weights) -> Result<recurve::RecurrentLayer, E> {
    Lstm::from_weights(weights, "net", &Device::Cpu)
}

fn missing(weights: &Weights, want: &str) {
    match open(weights) {
        Err(E::MissingWeight { name, .. }) => assert_eq!(name, format!("net.{want}")),
        other => panic!("{want}: {other:?}"),
    }
}

fn extra(weights: &Weights, want: &str) {
    match open(weights) {
        Err(E::ExtraWeight { name }) => assert_eq!(name, format!("net.{want}")),
        other => panic!("{want}: {other:?}"),
    }
}

#[test]
fn every_form_is_opened_as_its_names_say() {
    for layers in [1, 3] {
        for both in [false, true] {
            for bias in [false, true] {
                for projection in [None, Some(2)] {
                    let weights = module(layers, both, bias, projection);
                    let layer = open(&weights).unwrap();
                    let spec = layer.spec();
                    assert_eq!((spec.num_layers, spec.units, layer.input_size()), (layers, H, I));
                    assert_eq!(spec.bidirectional, both.then_some(Merge::Concat));
                    assert_eq!(spec.bias, if bias { Bias::Double } else { Bias::None });
                    assert_eq!(spec.cell.projection, projection);
                    assert_eq!(spec.param_count(I), weights.count(), "every element is used");
                }
            }
        }
    }
    // Without a prefix; and beside other modules, one of which has a prefix that starts the same.
    let plain = module(1, false, true, None);
    let mut bare = Weights::new();
    let mut beside = plain.clone();
    for (name, a) in plain.iter() {
        bare.extend([(name.strip_prefix("net.").unwrap().to_owned(), a.clone())]);
    }
    beside.insert("net2.weight_ih_l7", &[1], vec![0.0]).unwrap();
    beside.insert("head.weight", &[1], vec![0.0]).unwrap();
    Lstm::from_weights(&bare, "", &Device::Cpu).unwrap();
    open(&beside).unwrap();
}

#[test]
fn a_missing_layer_is_named() {
    let all = module(3, false, true, None);
    missing(&without(&all, &["weight_hh_l1"]), "weight_hh_l1");
    missing(&without(&all, &["weight_ih_l1"]), "weight_ih_l1");
    let l1 = ["weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"];
    missing(&without(&all, &l1), "weight_ih_l1");
    missing(&without(&all, &["weight_ih_l0"]), "weight_ih_l0");
    missing(&without(&all, &["weight_hh_l0"]), "weight_hh_l0");
    // A number that must not cause a long loop or a large allocation.
    let far = usize::MAX;
    missing(&with(&module(1, false, false, None), &format!("weight_ih_l{far}"), &[1]), "weight_ih_l1");
    missing(&Weights::new(), "weight_ih_l0");
}

#[test]
fn biases_are_whole_or_refused() {
    let none = module(2, false, false, None);
    missing(&with(&none, "bias_hh_l0", &[4 * H]), "bias_ih_l0");
    missing(&with(&none, "bias_ih_l0", &[4 * H]), "bias_hh_l0");
    missing(&with(&with(&none, "bias_ih_l1", &[4 * H]), "bias_hh_l1", &[4 * H]), "bias_ih_l0");
    let all = module(2, false, true, None);
    missing(&without(&all, &["bias_hh_l1"]), "bias_hh_l1");
    missing(&without(&all, &["bias_ih_l1", "bias_hh_l1"]), "bias_ih_l1");
}

#[test]
fn directions_are_whole_or_refused() {
    let all = module(2, true, true, None);
    let part = |l: usize| ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|p| format!("{p}_l{l}_reverse"));
    for l in [0, 1] {
        let names = part(l);
        missing(&without(&all, &names.each_ref().map(|n| &**n)), &format!("weight_ih_l{l}_reverse"));
        for name in &names {
            missing(&without(&all, &[name]), name);
        }
    }
    missing(&with(&module(1, false, false, None), "weight_hh_l0_reverse", &[4 * H, H]), "weight_ih_l0_reverse");
}

#[test]
fn projections_are_whole_or_refused() {
    let all = module(2, true, true, Some(2));
    missing(&without(&all, &["weight_hr_l1"]), "weight_hr_l1");
    missing(&without(&all, &["weight_hr_l0"]), "weight_hr_l0");
    missing(&without(&all, &["weight_hr_l0_reverse"]), "weight_hr_l0_reverse");
    for open in [Gru::from_weights, SimpleRnn::from_weights] {
        let e = open(&all, "net", &Device::Cpu).unwrap_err();
        assert!(matches!(&e, E::Unsupported { name, .. } if name.starts_with("net.weight_hr_l")), "{e}");
    }
}

#[test]
fn unknown_names_are_refused() {
    let all = module(1, false, true, None);
    for name in [
        "weight",
        "norm.weight",
        "weight_ih",
        "weight_ih_l",
        "weight_ih_lx",
        "weight_ih_l0_reversed",
        "weight_hh_l0_raw",
        "weight_xx_l0",
        "bias_l0",
        "weight_peephole_l0",
        "weight_ih_l-1",
        "weight_ih_l00",
        "weight_ih_l+0",
        "weight_ih_l99999999999999999999999999",
        "lstm.weight_ih_l0",
    ] {
        extra(&with(&all, name, &[1]), name);
    }
    let message = open(&with(&all, "gain", &[1])).unwrap_err().to_string();
    assert_eq!(message, "weight `net.gain` belongs to no layer");
}

#[test]
fn wrong_shapes_are_named_with_what_is_right() {
    let all = module(2, false, true, Some(2));
    for (name, shape) in [
        ("weight_ih_l0", vec![4 * H + 1, I]),
        ("weight_hh_l0", vec![3 * H, 2]),
        ("weight_ih_l1", vec![4 * H, H]),
        ("weight_hh_l1", vec![4 * H, 5]),
        ("bias_ih_l0", vec![4 * H, 1]),
        ("bias_hh_l1", vec![H]),
        ("weight_hr_l1", vec![3, H]),
    ] {
        let e = open(&with(&all, name, &shape)).unwrap_err();
        assert!(
            matches!(&e, E::WeightShape { name: n, got, .. } if *n == format!("net.{name}") && *got == shape),
            "{name}: {e}"
        );
    }
    for name in ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"] {
        let e = open(&with(&all, name, &[12])).unwrap_err();
        assert!(matches!(&e, E::WeightRank { name: n, expected: 2, .. } if *n == format!("net.{name}")), "{e}");
        assert_eq!(e.to_string(), format!("weight `net.{name}` must have 2 dimensions, but its shape is [12]"));
    }
    // Another module's weights.
    let e = Gru::from_weights(&module(1, false, true, None), "net", &Device::Cpu).unwrap_err();
    assert!(matches!(&e, E::WeightShape { expected, .. } if expected[0] == 3 * H), "{e}");
}

/// A network with replaced weights gives the result of a network made from the new weights, in whatever form the old
/// ones were packed.
#[test]
fn a_network_with_replaced_weights_is_one_made_of_them() {
    let layers = Sequential::new()
        .add(Embedding::new(9, 3))
        .add(Lstm::new(4).num_layers(2).return_sequences(true))
        .add(Bidirectional::new(Gru::new(4).return_sequences(true)))
        .add(Dense::new(5))
        .add(SimpleRnn::new(4).weight_storage(WeightStorage::F16))
        .add(Dense::new(2));
    let shape = [None, None];
    let [cpu, gpu] = devices();
    let mut devices = vec![cpu];
    if recurve_tests::skips::has_f16(&gpu) {
        devices.push(gpu);
    }
    for device in devices {
        let mut network = layers.build(&shape, &device).unwrap();
        let ids = Tensor::from_u32(&[0, 8, 3, 3, 1, 2], &[2, 3], &device).unwrap();
        let run = |n: &Network| n.forward(&ids).unwrap().to_vec().unwrap();
        let mut r = Random(5);
        let mut last = run(&network);
        let first = network.weights().clone();
        for (name, old) in first.iter() {
            let new = r.floats(old.count(), 0.5);
            network.set_weight(name, old.shape(), new.clone()).unwrap();
            let held = network.weights().require(name).unwrap();
            assert_eq!(held.values().unwrap()[..], new[..]);
            let fresh = Network::new(network.config(), network.weights().clone(), &device).unwrap();
            let now = run(&network);
            assert_eq!(now, run(&fresh), "{name} on {device}");
            assert_ne!(now, last, "{name} on {device} makes a difference");
            last = now;
        }
        // All weights at once, and back.
        let second = network.weights().clone();
        network.set_weights(first.clone()).unwrap();
        assert_eq!(run(&network), run(&Network::new(network.config(), first.clone(), &device).unwrap()));
        network.set_weights(second).unwrap();
        assert_eq!(run(&network), last);

        let e = network.set_weight("layers.9.weight", &[1], vec![0.0]).unwrap_err();
        assert_eq!(e, E::ExtraWeight { name: "layers.9.weight".into() });
        let name = "layers.5.bias".to_owned();
        let e = network.set_weight(&name, &[3], vec![0.0; 3]).unwrap_err();
        assert_eq!(e, E::WeightShape { name: name.clone(), expected: vec![2], got: vec![3] });
        let e = network.set_weight(&name, &[2], vec![0.0; 3]).unwrap_err();
        assert_eq!(e, E::WeightShape { name, expected: vec![2], got: vec![3] });
        let e = network.set_weights(Arc::new(Weights::new())).unwrap_err();
        assert!(matches!(e, E::MissingWeight { .. }), "{e}");
        assert_eq!(run(&network), last, "what is refused changes nothing");
    }
}

#[test]
fn weights_under_a_prefix_have_shorter_names() {
    let all = module(2, false, true, None);
    let names = |w: &Weights| w.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
    let net = all.under("net");
    assert_eq!(names(&net).len(), 8);
    assert_eq!(net.get("weight_ih_l1"), all.get("net.weight_ih_l1"));
    assert!(all.under("ne").iter().next().is_none() && all.under("net.weight_ih_l1").iter().next().is_none());
}
