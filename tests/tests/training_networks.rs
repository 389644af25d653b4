//! Losses and gradients of small random networks in training beside Keras's and PyTorch's
//! (`golden/make_training_networks.py`).

use recurve::{
    Activation, Bias, Cell, Dense, Device, HostArray, HostData, LayerConfig, Merge, Model, Network, RecurrentSpec,
    Sequential, Tensor, Weights, npz_from_bytes,
};
use recurve_tests::{fixtures, wanted_gpu};
use recurve_train::{Batch, Loss, Sgd, StepOptions, Training};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// The largest error of a number, as a share of 1 and of the largest number of its weight. Expected values are of f64;
/// f32 has some ten sums of some ten terms one after the other, with numbers up to some tens.
const BOUND: f64 = 1e-5;

fn array(name: &str) -> Option<HostArray> {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = FILE.get_or_init(|| std::fs::read(fixtures().join("training_networks.npz")).unwrap());
    npz_from_bytes(bytes, name).ok()
}

fn bytes(name: &str) -> Vec<u8> {
    match array(name).unwrap_or_else(|| panic!("no {name}")).data {
        HostData::Int(v) => v.into_iter().map(|v| u8::try_from(v).unwrap()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// A network with what it learns from, and what another framework computes.
struct Case {
    name: String,
    network: Network,
    /// What each weight's gradient is, and what a running mean or variance becomes.
    expected: Weights,
    losses: Vec<Loss>,
    inputs: Vec<HostArray>,
    targets: Vec<HostArray>,
    weights: Option<HostArray>,
    lengths: Option<HostArray>,
    loss: f64,
}

fn cases() -> Vec<Case> {
    let index: Vec<Value> = serde_json::from_slice(&bytes("index")).unwrap();
    let (cases, refused): (Vec<_>, Vec<_>) = index.iter().map(case).partition(Result::is_ok);
    let refused: Vec<String> = refused.into_iter().filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    cases.into_iter().flatten().collect()
}

fn case(about: &Value) -> Result<Case, String> {
    let name = about["name"].as_str().unwrap();
    let own = |part: &str| array(&format!("{name}/{part}"));
    let many = |letter: &str| (0..).map_while(|n| own(&format!("{letter}{n}"))).collect::<Vec<_>>();
    let (network, expected) = match about.get("torch") {
        Some(options) => of_pytorch(name, options),
        None => of_keras(name)?,
    };
    let inputs = many("x");
    assert_eq!(inputs.len() as u64, about["inputs"].as_u64().unwrap(), "{name}");
    Ok(Case {
        name: name.into(),
        network,
        expected,
        losses: serde_json::from_value(about["losses"].clone()).unwrap(),
        inputs,
        targets: many("y"),
        weights: own("weights"),
        lengths: own("lengths"),
        loss: own("loss").unwrap().to_f64()[0],
    })
}

/// A network in Keras's words, with two files of weights.
fn of_keras(name: &str) -> Result<(Network, Weights), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: &str| dir.path().join(file);
    let model = bytes(&format!("{name}/model"));
    let gradients: Vec<u8> =
        bytes(&format!("{name}/gradients")).iter().zip(&model).map(|(gradient, model)| gradient ^ model).collect();
    std::fs::write(path("model.json"), bytes(&format!("{name}/config"))).unwrap();
    std::fs::write(path("model.weights.h5"), model).unwrap();
    std::fs::write(path("gradients.weights.h5"), gradients).unwrap();
    let open = |weights: &str| -> Result<Network, String> {
        let opened = Model::open_keras(path("model.json"), path(weights), &Device::Cpu);
        Ok(opened.map_err(|e| format!("{name}: {e}"))?.network().to_device(&Device::Cpu).unwrap())
    };
    let gradients = open("gradients.weights.h5")?;
    Ok((open("model.weights.h5")?, Weights::clone(gradients.weights())))
}

/// A module of PyTorch with a linear layer behind it.
fn of_pytorch(name: &str, options: &Value) -> (Network, Weights) {
    let number = |n: &str| options[n].as_u64().unwrap() as usize;
    let is = |n: &str| options[n].as_bool().unwrap();
    let cell = match options["cell"].as_str().unwrap() {
        "LSTM" => Cell { projection: Some(number("proj")).filter(|p| *p > 0), ..Cell::LSTM },
        "GRU" => Cell::GRU,
        "RNN" if is("relu") => Cell { candidate: Activation::Relu, ..Cell::RNN },
        _ => Cell::RNN,
    };
    let mut spec = RecurrentSpec::new(cell, number("hidden"));
    spec.num_layers = number("layers");
    spec.bidirectional = is("both").then_some(Merge::Concat);
    spec.bias = if options["bias"] == "double" { Bias::Double } else { Bias::None };
    spec.return_sequences = is("sequences");
    let network = Sequential::new().add(LayerConfig::Recurrent(spec)).add(Dense::new(2));
    let network = network.build(&[None, None, Some(number("features"))], &Device::Cpu).unwrap();
    let read = |kind: &str| {
        let mut all = Weights::new();
        for (weight, own) in network.weights().iter() {
            let a = array(&format!("{name}/{kind}/{weight}")).unwrap_or_else(|| panic!("{name}: no {weight}"));
            assert_eq!(a.shape, own.shape(), "{name}: {weight}");
            all.insert(weight, &a.shape, a.to_f32()).unwrap();
        }
        all
    };
    let made = Network::new(network.config(), Arc::new(read("w")), &Device::Cpu).unwrap();
    (made, read("g"))
}

fn tensor(a: &HostArray, device: &Device) -> Tensor {
    match &a.data {
        HostData::Float(v) => Tensor::from_f32(v, &a.shape, device).unwrap(),
        HostData::Int(v) => {
            Tensor::from_u32(&v.iter().map(|&v| v as u32).collect::<Vec<_>>(), &a.shape, device).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// The largest error, as a share of 1 and the largest expected number; infinite where a number is no number.
fn error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1.0f64, |m, v| m.max(f64::from(v.abs())));
    let one = |(got, want): (&f32, &f32)| {
        let e = (f64::from(*got) - f64::from(*want)).abs();
        if e.is_nan() { f64::INFINITY } else { e / largest }
    };
    got.iter().zip(want).map(one).fold(0.0, f64::max)
}

impl Case {
    /// The largest error of loss, gradients and running values, with the place where it is.
    fn check(&self, device: &Device) -> (f64, String) {
        self.check_network(&self.network.to_device(device).unwrap())
    }

    fn check_network(&self, network: &Network) -> (f64, String) {
        let device = network.device();
        let options = StepOptions::new(self.losses[0].clone(), Sgd::keras()).losses(self.losses.clone());
        let mut training = Training::new(network, options).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let bring = |all: &[HostArray]| all.iter().map(|a| tensor(a, device)).collect::<Vec<_>>();
        let (inputs, targets) = (bring(&self.inputs), bring(&self.targets));
        let (inputs, targets): (Vec<_>, Vec<_>) = (inputs.iter().collect(), targets.iter().collect());
        let [weights, lengths] = [&self.weights, &self.lengths].map(|a| a.as_ref().map(|a| tensor(a, device)));
        let mut batch = Batch::new(&inputs, &targets);
        if let Some(w) = &weights {
            batch = batch.sample_weights(w);
        }
        if let Some(l) = &lengths {
            batch = batch.lengths(l);
        }
        let fail = |e| panic!("{}: {e}", self.name);
        let (result, gradients) = training.gradients(&batch).unwrap_or_else(fail);
        let mut errors = vec![(error(&result.loss.to_vec().unwrap(), &[self.loss as f32]), "loss".to_owned())];
        for (name, got) in training.names().zip(&gradients) {
            let want = self.expected.get(name).unwrap().to_vec().unwrap();
            errors.push((error(&got.to_vec().unwrap(), &want), name.to_owned()));
        }
        // The same in one array, with what running means and variances become.
        let (_, flat) = training.flat_gradients(&batch, 1.0).unwrap();
        for part in training.flat_layout() {
            // Keras calls a shared layer in another order, which its running values show.
            let index: usize = part.name.split('.').nth(1).unwrap().parse().unwrap();
            if !part.trained && network.config().layers[index].calls.len() > 1 {
                continue;
            }
            let want = self.expected.get(&part.name).unwrap().to_vec().unwrap();
            errors.push((error(&flat[part.range], &want), format!("{} in one array", part.name)));
        }
        errors.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    }
}

fn all_agree(cases: &[Case], device: &Device) {
    let checked = cases.iter().map(|case| (case, case.check(device)));
    let wrong: Vec<String> = checked
        .filter(|(_, (error, _))| *error > BOUND)
        .map(|(case, (error, place))| format!("{}: {place}: {error:e}", case.name))
        .collect();
    assert!(wrong.is_empty(), "{} of {} on {device}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn gradients_are_those_of_other_frameworks() {
    let cases = cases();
    assert!(cases.len() > 270, "{}", cases.len());
    all_agree(&cases, &Device::Cpu);
}

/// Every twelfth, because each has shaders of its own to be compiled.
#[test]
fn gradients_are_those_of_other_frameworks_on_a_gpu() {
    let Some(gpu) = wanted_gpu() else { return };
    let cases: Vec<Case> = cases().into_iter().step_by(12).collect();
    all_agree(&cases, &gpu);
}

/// What a case has is needed for its numbers: without weights of the samples or lengths, or with another loss, they are
/// others.
#[test]
fn another_task_is_noticed() {
    let mut tried = [0; 3];
    for mut case in cases() {
        let name = case.name.clone();
        let mut differs = |what: &str, case: &Case, kind: usize| {
            let (error, _) = case.check(&Device::Cpu);
            assert!(error > 10.0 * BOUND, "{name}: without {what} the numbers are the same: {error:e}");
            tried[kind] += 1;
        };
        if let Some(weights) = case.weights.take() {
            differs("sample weights", &case, 0);
            case.weights = Some(weights);
        }
        if let Some(lengths) = case.lengths.take() {
            differs("lengths", &case, 1);
            case.lengths = Some(lengths);
        }
        if case.loss > 0.01 {
            let loss = case.losses[0].clone();
            case.losses[0].label_smoothing = match loss.label_smoothing {
                0.0 => 0.3,
                _ => 0.0,
            };
            if case.losses[0].check().is_ok() {
                differs("its loss", &case, 2);
            }
        }
    }
    assert!(tried.iter().all(|n| *n > 20), "{tried:?}");
}

/// A weight that is a little another one has other gradients or another loss.
#[test]
fn a_moved_weight_is_noticed() {
    let mut moved = 0;
    for case in cases().iter().step_by(3) {
        for (name, gradient) in case.expected.iter().filter(|(n, _)| !n.contains("running_")) {
            let gradient = gradient.to_vec().unwrap();
            let (place, size) =
                gradient.iter().map(|g| g.abs()).enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            if size < 0.01 {
                continue;
            }
            let mut weights = Weights::new();
            for (other, w) in case.network.weights().iter() {
                let mut data = w.to_vec().unwrap();
                if other == name {
                    data[place] += 0.05;
                }
                weights.insert(other, w.shape(), data).unwrap();
            }
            let network = Network::new(case.network.config(), Arc::new(weights), &Device::Cpu).unwrap();
            let (error, _) = case.check_network(&network);
            assert!(error > 5.0 * BOUND, "{}: {name}[{place}] does not matter: {error:e}", case.name);
            moved += 1;
        }
    }
    assert!(moved > 300, "{moved}");
}
