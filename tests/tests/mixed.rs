//! Mixed precision: loss scales and weights beside PyTorch and Keras (`golden/make_mixed.py`), steps that are skipped,
//! weights in f16, trainers, files.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, DType, Dense, Device, Flatten, LayerNormalization, Lstm, Model, Network, Sequential, SimpleRnn, Tensor,
    TrainingRecord, Weights,
};
use recurve_tests::{devices, fixtures, wide};
use recurve_train::{
    Adam, Array, Average, Batch, Clip, Dataset, Error, FitOptions, Form, Loss, LossScale, Optimizer, Origin, RmsProp,
    Schedule, Sgd, StepOptions, Trainer, Training,
};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, LazyLock};

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&std::fs::read_to_string(fixtures().join("mixed.json")).unwrap()).unwrap());

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

fn truths(v: &Value) -> Vec<bool> {
    v.as_array().unwrap().iter().map(|n| n.as_bool().unwrap()).collect()
}

/// One weight w, 1.5, and the loss (w x)², whose gradient overflows where x is 1e20.
fn one_weight(optimizer: impl Into<Optimizer>, scale: LossScale, device: &Device) -> Training {
    let options = StepOptions::new(Loss::mean_squared_error(), optimizer).mixed_precision(scale);
    Training::new(&dense(1.5, device), options).unwrap()
}

/// A dense layer of one weight.
fn dense(weight: f32, device: &Device) -> Network {
    let network = Sequential::new().add(Dense::new(1).use_bias(false)).build(&[None, Some(1)], device).unwrap();
    with(&network, &[("layers.0.weight", &[weight])], device)
}

/// A network with these numbers as its weights.
fn with(network: &Network, numbers: &[(&str, &[f32])], device: &Device) -> Network {
    let mut weights = Weights::new();
    for (name, own) in numbers {
        weights.insert(*name, network.weights().get(name).unwrap().shape(), own.to_vec()).unwrap();
    }
    Network::new(network.config(), Arc::new(weights), device).unwrap()
}

fn step(training: &mut Training, bad: bool) -> f32 {
    step_with(training, if bad { 1e20 } else { 0.5 })
}

/// Takes a step with this x, and returns the weight.
fn step_with(training: &mut Training, x: f32) -> f32 {
    let device = training.device().clone();
    let x = Tensor::from_f32(&[x], &[1, 1], &device).unwrap();
    let y = Tensor::from_f32(&[0.0], &[1, 1], &device).unwrap();
    training.step(&Batch::new(&[&x], &[&y])).unwrap();
    let name = training.names().next().unwrap().to_owned();
    training.weight(&name).unwrap().to_vec().unwrap()[0]
}

#[test]
fn scales_are_those_of_the_frameworks() {
    for case in FILE["scales"].as_array().unwrap() {
        let (bad, want) = (truths(&case["bad"]), floats(&case["scales"]));
        let (initial, interval) = (case["initial"].as_f64().unwrap(), case["interval"].as_u64().unwrap() as u32);
        // A gradient that is small enough for every scale here, and none for the largest.
        let x = if initial > 1e30 { 0.0 } else { 0.01 };
        for device in devices() {
            let scale = LossScale::pytorch().initial(initial).interval(interval);
            let mut training = one_weight(Sgd::keras().learning_rate(1e-3), scale, &device);
            let mut got = Vec::new();
            for &b in &bad {
                step_with(&mut training, if b { 1e20 } else { x });
                got.push(f64::from(training.loss_scale().unwrap().unwrap()));
            }
            assert_eq!(got, want, "{} of {initial} on {device}", case["framework"]);
            assert_eq!(training.skipped_steps().unwrap(), bad.iter().filter(|b| **b).count() as u64);
            assert_eq!(training.steps(), bad.len() as u64);
        }
    }
}

#[test]
fn weights_are_those_of_pytorch_that_skips_steps() {
    for case in FILE["weights"].as_array().unwrap() {
        let want = floats(&case["weights"]);
        let bad = truths(&FILE["scales"][0]["bad"]);
        let optimizer = || -> Optimizer {
            match case["optimizer"].as_str().unwrap() {
                "sgd" => Sgd::pytorch().learning_rate(0.05).momentum(0.9).into(),
                _ => Adam::pytorch().learning_rate(0.05).into(),
            }
        };
        for device in devices() {
            let mut training = one_weight(optimizer(), LossScale::pytorch().initial(1024.0).interval(4), &device);
            for (n, (&b, want)) in bad.iter().zip(&want).enumerate() {
                let got = f64::from(step(&mut training, b));
                assert!((got - want).abs() < 1e-5, "{} on {device}, step {n}: {got}, not {want}", case["optimizer"]);
            }
            // The states of the optimiser and the number of its steps are PyTorch's too.
            let skipped = training.skipped_steps().unwrap();
            assert_eq!(training.steps() - skipped, case["steps"].as_u64().unwrap());
            let mut trainer = Trainer::compile(&dense(1.5, &device), training.options().clone()).unwrap();
            trainer.training_mut().restore(&training.snapshot()).unwrap();
            let (_, tensors) = saved(&trainer);
            let states = tensors.iter().filter(|(name, _)| name.starts_with("state."));
            let states: Vec<f32> = states.map(|(_, v)| f32::from_bits(v[0])).collect();
            let want = floats(&case["states"]);
            compare(&states, &want, Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{}: {e}", case["optimizer"]));
        }
        // Without rounding to f16 other weights come out, so the comparison can fail.
        let options = StepOptions::new(Loss::mean_squared_error(), optimizer());
        let start = one_weight(optimizer(), LossScale::pytorch(), &Device::Cpu).network().unwrap();
        let mut plain = Training::new(&start, options).unwrap();
        let differs =
            bad.iter().zip(&want).any(|(&b, want)| !b && (f64::from(step(&mut plain, false)) - want).abs() > 1e-5);
        assert!(differs, "{}", case["optimizer"]);
    }
}

fn network(device: &Device) -> Network {
    let layers = Sequential::new().add(Lstm::new(8).return_sequences(true)).add(SimpleRnn::new(6)).add(Dense::new(1));
    layers.seed(4).build(&[None, None, Some(3)], device).unwrap()
}

/// Every bit of a training's weights and of the states of its optimiser.
fn bits(training: &mut Training, device: &Device) -> Vec<u32> {
    let mut all: Vec<u32> = Vec::new();
    let names: Vec<String> = training.names().map(str::to_owned).collect();
    for name in names {
        all.extend(training.weight(&name).unwrap().to_vec().unwrap().iter().map(|v| v.to_bits()));
    }
    // What a further step makes of the states shows them.
    let snapshot = training.snapshot();
    step_of(training, device, false);
    let names: Vec<String> = training.names().map(str::to_owned).collect();
    for name in names {
        all.extend(training.weight(&name).unwrap().to_vec().unwrap().iter().map(|v| v.to_bits()));
    }
    training.restore(&snapshot).unwrap();
    all
}

fn step_of(training: &mut Training, device: &Device, bad: bool) -> f32 {
    let x = Tensor::rand_uniform(&[6, 5, 3], -1.0..1.0, 1, device).unwrap();
    let y = if bad {
        Tensor::full(&[6, 1], 1e30, DType::F32, device)
    } else {
        Tensor::rand_uniform(&[6, 1], -1.0..1.0, 2, device)
    };
    training.step(&Batch::new(&[&x], &[&y.unwrap()])).unwrap().loss.to_vec().unwrap()[0]
}

#[test]
fn a_skipped_step_changes_no_bit_of_weights_and_states() {
    let optimizers: [Optimizer; 3] = [
        Sgd::keras().momentum(0.9).nesterov(true).into(),
        RmsProp::keras().momentum(0.5).centered(true).into(),
        Adam::adamw_keras().amsgrad(true).into(),
    ];
    for optimizer in optimizers {
        for clip in [None, Some(Clip::Norm(1.0)), Some(Clip::GlobalNorm { norm: 1.0, form: Form::Keras })] {
            for device in devices() {
                let mut options =
                    StepOptions::new(Loss::mean_squared_error(), optimizer).mixed_precision(LossScale::keras());
                options.clip = clip;
                let mut training = Training::new(&network(&device), options).unwrap();
                for _ in 0..3 {
                    step_of(&mut training, &device, false);
                }
                let before = bits(&mut training, &device);
                let scale = training.loss_scale().unwrap().unwrap();
                step_of(&mut training, &device, true);
                assert_eq!(training.loss_scale().unwrap(), Some(scale / 2.0), "{optimizer:?}");
                assert_eq!(training.skipped_steps().unwrap(), 1);
                assert_eq!(bits(&mut training, &device), before, "{optimizer:?} {clip:?} on {device}");
                step_of(&mut training, &device, false);
                assert_ne!(bits(&mut training, &device), before, "{optimizer:?} {clip:?} on {device}");
            }
        }
    }
}

#[test]
fn training_in_mixed_precision_converges() {
    for device in devices() {
        let losses = |scale: Option<LossScale>| {
            let mut options = StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.02));
            options.mixed_precision = scale;
            let mut training = Training::new(&network(&device), options).unwrap();
            let all: Vec<f32> = (0..80).map(|_| step_of(&mut training, &device, false)).collect();
            (all, training.loss_scale().unwrap())
        };
        let (plain, none) = losses(None);
        // The first scale is so large that gradients overflow at first.
        let (mixed, scale) = losses(Some(LossScale::pytorch().initial(1e12).interval(10)));
        assert!(none.is_none() && scale.unwrap() < 1e12, "{scale:?}");
        assert!(plain[79] < 0.02 && mixed[79] < 0.02, "{device}: {plain:?} {mixed:?}");
        assert_ne!(plain, mixed);
    }
}

/// Gradients that come from elsewhere are looked at too, and those that are given are not scaled.
#[test]
fn gradients_out_and_in_are_a_step() {
    for device in devices() {
        for clip in [Clip::Norm(0.5), Clip::Value(0.01)] {
            let options = || {
                StepOptions::new(Loss::mean_squared_error(), Adam::keras())
                    .mixed_precision(LossScale::pytorch())
                    .clip(clip)
            };
            let [mut one, mut two, mut three] = [(); 3].map(|()| Training::new(&network(&device), options()).unwrap());
            let x = Tensor::rand_uniform(&[6, 5, 3], -1.0..1.0, 1, &device).unwrap();
            let y = Tensor::rand_uniform(&[6, 1], -1.0..1.0, 2, &device).unwrap();
            let huge = Tensor::full(&[6, 1], 1e30, DType::F32, &device).unwrap();
            for (target, overflows) in [(&y, false), (&huge, true), (&y, false)] {
                let (inputs, targets) = ([&x], [target]);
                let batch = Batch::new(&inputs, &targets);
                one.step(&batch).unwrap();
                let (_, gradients) = two.gradients(&batch).unwrap();
                two.apply_gradients(&gradients.iter().collect::<Vec<_>>()).unwrap();
                // As one array, which need not be finite.
                let (_, flat) = three.flat_gradients(&batch, 2.0).unwrap();
                let last = flat.len() - 2;
                assert_eq!(flat[..last].iter().all(|v| v.is_finite()), !overflows);
                three.apply_flat(&flat).unwrap();
                for name in one.names() {
                    let [a, b, c] = [&one, &two, &three].map(|t| t.weight(name).unwrap().to_vec().unwrap());
                    assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} on {device}");
                    assert!(a.iter().zip(&c).all(|(a, c)| (a - c).abs() < 1e-5), "{name} on {device}");
                }
                assert_eq!(one.loss_scale().unwrap(), two.loss_scale().unwrap());
                assert_eq!(one.loss_scale().unwrap(), three.loss_scale().unwrap());
            }
            assert_eq!(one.skipped_steps().unwrap(), 1);
            assert_eq!(three.skipped_steps().unwrap(), 1);
        }
    }
}

/// Gradients are those without a scale: with weights that f16 has exactly, those by the inputs are the same, and those
/// by the weights are rounded.
#[test]
fn gradients_are_not_scaled() {
    for device in devices() {
        let gradients = |scale: Option<LossScale>| {
            let network = Sequential::new().add(Dense::new(2)).build(&[None, Some(3)], &device).unwrap();
            let numbers: [(&str, &[f32]); 2] =
                [("layers.0.weight", &[0.5, -0.25, 0.125, 1.0, 2.0, -1.5]), ("layers.0.bias", &[0.5, -0.5])];
            let mut options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras());
            options.mixed_precision = scale;
            let mut training = Training::new(&with(&network, &numbers, &device), options).unwrap();
            let x = Tensor::rand_uniform(&[4, 3], -1.0..1.0, 1, &device).unwrap();
            let y = Tensor::rand_uniform(&[4, 2], -1.0..1.0, 2, &device).unwrap();
            let (_, g) = training.all_gradients(&Batch::new(&[&x], &[&y])).unwrap();
            let weights: Vec<f32> = g.weights.iter().flat_map(|t| t.to_vec().unwrap()).collect();
            (weights, g.inputs[0].as_ref().unwrap().to_vec().unwrap())
        };
        let (plain, by_input) = gradients(None);
        let (mixed, mixed_by_input) = gradients(Some(LossScale::pytorch().initial(1024.0)));
        compare(&mixed_by_input, &wide(&by_input), Tolerance::new(1e-6)).unwrap();
        // Half of the distance of two numbers of f16.
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() * 4.9e-4;
        assert!(mixed.iter().zip(&plain).all(near), "{mixed:?} {plain:?}");
        assert_ne!(mixed, plain);
    }
}

/// More steps are skipped than a run tells apart: the optimiser's own steps, those of the schedule and of the average are
/// still counted right.
#[test]
fn many_skipped_steps_are_counted() {
    for device in devices() {
        let schedule = Schedule::Exponential { initial: 0.05, rate: 0.5, steps: 2, staircase: false };
        let options = || {
            StepOptions::new(Loss::mean_squared_error(), Adam::keras())
                .mixed_precision(LossScale::pytorch().backoff(1.0))
                .schedule(schedule.clone())
                .average(Average::new(0.7).unwrap())
        };
        let [mut training, mut plain] = [(); 2].map(|()| Training::new(&dense(1.5, &device), options()).unwrap());
        assert_eq!(step(&mut training, true), 1.5);
        training.use_averages();
        step(&mut plain, false);
        step(&mut training, false);
        for _ in 0..200 {
            step(&mut training, true);
        }
        for _ in 0..3 {
            assert_eq!(step(&mut training, false).to_bits(), step(&mut plain, false).to_bits(), "{device}");
        }
        assert_eq!(training.skipped_steps().unwrap(), 201);
        assert_eq!(training.steps(), 205);
        assert_eq!(training.learning_rate(), schedule.at(4));
        let weight = |t: &Training| t.weight("layers.0.weight").unwrap().to_vec().unwrap()[0];
        let before = weight(&training);
        training.use_averages();
        plain.use_averages();
        assert_eq!(weight(&training).to_bits(), weight(&plain).to_bits(), "{device}");
        assert_ne!(weight(&training), before);
    }
}

/// Numbers of a file in f32.
fn narrow(v: &Value) -> Vec<f32> {
    floats(v).into_iter().map(|v| v as f32).collect()
}

/// A network of Keras before or after its steps.
fn of_keras(when: &str, device: &Device) -> Network {
    let model = Model::open(fixtures().join(format!("mixed_{when}.keras")), device).unwrap();
    model.network().to_device(device).unwrap()
}

/// Keras's layers, schedule, average and limit of gradients over steps of which some overflow, the first one too, with
/// weights rounded to f16 except those of normalizations. A last bit that differs can round a weight or a gradient to
/// its other neighbour in f16, which is why the bound is not 1e-5.
#[test]
fn a_network_is_that_of_keras() {
    let case = &FILE["network"];
    let (bad, losses, scales) = (truths(&case["bad"]), floats(&case["losses"]), floats(&case["scales"]));
    let (x, y) = (narrow(&case["x"]), narrow(&case["y"]));
    let bound = 2e-4;
    let off = |training: &Training, when: &str| {
        let (got, mut most) = (training.network().unwrap(), 0.0f64);
        for (name, want) in of_keras(when, &Device::Cpu).weights().iter() {
            let got = got.weights().get(name).unwrap().to_vec().unwrap();
            let each = got.iter().zip(want.to_vec().unwrap()).map(|(a, b)| f64::from((a - b).abs()));
            most = each.fold(most, f64::max);
        }
        most
    };
    for device in devices() {
        for mixed in [true, false] {
            let adam = Adam::keras().beta_1(0.875).beta_2(0.984375);
            let mut options = StepOptions::new(Loss::mean_squared_error(), adam)
                .schedule(Schedule::Exponential { initial: 0.05, rate: 0.7, steps: 3, staircase: false })
                .clip(Clip::GlobalNorm { norm: 0.5, form: Form::Keras })
                .average(Average::new(0.7).unwrap());
            if mixed {
                options = options.mixed_precision(LossScale::keras().initial(16384.0).interval(3));
            }
            let mut training = Training::new(&of_keras("before", &device), options).unwrap();
            let x = Tensor::from_f32(&x, &[5, 6, 3], &device).unwrap();
            let mut worst = 0.0f64;
            for (n, &b) in bad.iter().enumerate() {
                if b && !mixed {
                    continue;
                }
                let y: Vec<f32> = y.iter().map(|v| if b { v * 1e12 } else { *v }).collect();
                let y = Tensor::from_f32(&y, &[5, 2], &device).unwrap();
                let loss = training.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0];
                worst = worst.max((f64::from(loss) / losses[n] - 1.0).abs());
                if mixed {
                    assert_eq!(training.loss_scale().unwrap().map(f64::from), Some(scales[n]), "step {n} on {device}");
                }
            }
            let skipped = training.skipped_steps().unwrap();
            assert_eq!(training.steps() - skipped, case["steps"].as_u64().unwrap());
            let after = off(&training, "after");
            training.use_averages();
            let all = [worst, after, off(&training, "average")];
            // Without mixed precision the steps that Keras skips are left out.
            assert_eq!(all.iter().all(|v| *v < bound), mixed, "{device}: {all:?}");
        }
    }
}

/// Keras's `mixed_float16` and PyTorch's `autocast` also round activations, which moves these losses by less than 2e-3.
#[test]
fn losses_are_near_those_of_frameworks_that_round_activations() {
    let (x, y) = (narrow(&FILE["network"]["x"]), narrow(&FILE["network"]["y"]));
    for device in devices() {
        let x = Tensor::from_f32(&x, &[5, 6, 3], &device).unwrap();
        let y = Tensor::from_f32(&y, &[5, 2], &device).unwrap();
        let run = |network: &Network, options: StepOptions, want: &Value| {
            let mut training = Training::new(network, options).unwrap();
            for (n, want) in floats(want).into_iter().enumerate() {
                let loss = training.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0];
                assert!((f64::from(loss) / want - 1.0).abs() < 2e-3, "step {n} on {device}: {loss}, not {want}");
            }
            assert_eq!(training.skipped_steps().unwrap(), 0);
        };
        let options = StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.02));
        let options = options.mixed_precision(LossScale::keras());
        run(&of_keras("before", &device), options, &FILE["policy"]["mixed_float16"]);

        let case = &FILE["autocast"];
        let layers = Sequential::new().add(Flatten::new()).add(Dense::new(8).activation(Activation::Tanh));
        let network = layers.add(Dense::new(2)).build(&[None, Some(6), Some(3)], &device).unwrap();
        let mut numbers = Vec::new();
        for (own, theirs) in [("layers.1", "1"), ("layers.2", "3")] {
            for part in ["weight", "bias"] {
                numbers.push((format!("{own}.{part}"), narrow(&case["weights"][&format!("{theirs}.{part}")])));
            }
        }
        let numbers: Vec<(&str, &[f32])> = numbers.iter().map(|(name, v)| (&name[..], &v[..])).collect();
        let options = StepOptions::new(Loss::mean_squared_error(), Adam::pytorch().learning_rate(0.02))
            .clip(Clip::GlobalNorm { norm: 0.3, form: Form::Pytorch });
        run(&with(&network, &numbers, &device), options.mixed_precision(LossScale::pytorch()), &case["mixed"]);
    }
}

/// A dense layer reads its weight rounded, a normalization does not, and what is evaluated is what is trained.
#[test]
fn weights_of_normalizations_are_not_rounded() {
    for device in devices() {
        // f16 has 1 and the next number 1.00098.
        let weight = 1.0006;
        let layer = Sequential::new().add(LayerNormalization::new().center(false));
        let layer = layer.build(&[None, Some(2)], &device).unwrap();
        let layer = with(&layer, &[("layers.0.weight", &[weight, weight])], &device);
        for (network, x, rounds) in [(dense(weight, &device), vec![1.0], true), (layer, vec![1.0, -1.0], false)] {
            let width = x.len();
            let loss = |mixed: bool| {
                let mut options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras());
                options.mixed_precision = mixed.then(LossScale::pytorch);
                let mut trainer = Trainer::compile(&network, options).unwrap();
                let target = Array::f32(vec![0.0; width], &[1, width]).unwrap();
                let data = Dataset::new(Array::f32(x.clone(), &[1, width]).unwrap(), target).unwrap();
                let evaluated = trainer.evaluate(&data, 1).unwrap().get("loss").unwrap();
                let x = Tensor::from_f32(&x, &[1, width], &device).unwrap();
                let y = Tensor::full(&[1, width], 0.0, DType::F32, &device).unwrap();
                let (result, _) = trainer.training_mut().gradients(&Batch::new(&[&x], &[&y])).unwrap();
                let trained = f64::from(result.loss.to_vec().unwrap()[0]);
                assert!((trained - evaluated).abs() < 1e-6, "{trained} {evaluated} on {device}");
                trained
            };
            let (mixed, plain) = (loss(true), loss(false));
            assert_eq!((mixed - plain).abs() > 1e-4, rounds, "{mixed} {plain} on {device}");
            assert_eq!(mixed == plain, !rounds, "{mixed} {plain} on {device}");
        }
    }
}

/// All of a training, as its file has it: the record, and the bits of every tensor by name.
fn saved(trainer: &Trainer) -> (String, Vec<(String, Vec<u32>)>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    trainer.save(&path).unwrap();
    let (_, weights, record) = TrainingRecord::open(&path).unwrap();
    let all = weights.iter().chain(record.tensors.iter());
    let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect();
    (record.text, all.map(|(name, w)| (name.to_owned(), bits(w.to_vec().unwrap()))).collect())
}

fn data() -> Dataset {
    let x: Vec<f32> = (0..22 * 5 * 3).map(|n| ((n * 37 % 101) as f32 / 50.0) - 1.0).collect();
    let y = (0..22).map(|n| x[n * 15] + x[n * 15 + 7] - x[n * 15 + 14]).collect();
    Dataset::new(Array::f32(x, &[22, 5, 3]).unwrap(), Array::f32(y, &[22, 1]).unwrap()).unwrap()
}

/// A trainer whose first steps overflow.
fn trainer(device: &Device, scale: LossScale) -> Trainer {
    let options = StepOptions::new(Loss::mean_squared_error(), Adam::keras().amsgrad(true))
        .schedule(Schedule::Exponential { initial: 0.03, rate: 0.9, steps: 30, staircase: false })
        .clip(Clip::GlobalNorm { norm: 1.0, form: Form::Keras })
        .accumulate(2)
        .average(Average::new(0.8).unwrap())
        .mixed_precision(scale);
    Trainer::compile(&network(device), options).unwrap()
}

fn fitting<'a>(epochs: usize) -> FitOptions<'a> {
    FitOptions::new().epochs(epochs).batch_size(5)
}

/// Six epochs, and three and three, on every device; and files of another precision, and damaged numbers.
#[test]
fn a_training_that_goes_on_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [path, bad] = ["c.safetensors", "bad.safetensors"].map(|n| folder.path().join(n));
    let scale = LossScale::pytorch().initial(1e6).interval(3);
    for device in devices() {
        let mut one = trainer(&device, scale);
        let want = one.fit(&data(), fitting(6)).unwrap();
        let skipped = one.training_mut().skipped_steps().unwrap();
        assert!(skipped > 2 && skipped < one.training().steps(), "{skipped} of {}", one.training().steps());
        let mut first = trainer(&device, scale);
        first.fit(&data(), fitting(3).checkpoint(&path, 1)).unwrap();
        let mut second = trainer(&device, scale);
        let got = second.fit(&data(), fitting(6).resume(&path)).unwrap();
        assert_eq!(got.get("loss"), want.get("loss"), "{device}");
        assert!(saved(&second) == saved(&one), "{device}");
        assert!(saved(&first) != saved(&one), "{device}");
        assert_eq!(second.training().loss_scale().unwrap(), one.training().loss_scale().unwrap());
    }

    let device = Device::Cpu;
    let refused = |mut trainer: Trainer, path: &Path, message: &str| {
        let before = saved(&trainer);
        let got = trainer.load_state(path).unwrap_err().to_string();
        assert!(got.contains(message), "{got} in place of {message}");
        assert!(saved(&trainer) == before);
    };
    refused(trainer(&device, scale.initial(4.0)), &path, "has another `mixed_precision`: {");
    let mut options = trainer(&device, scale).training().options().clone();
    options.mixed_precision = None;
    let plain = || Trainer::compile(&network(&device), options.clone()).unwrap();
    refused(plain(), &path, "in place of null");
    plain().save(&bad).unwrap();
    refused(trainer(&device, scale), &bad, "has another `mixed_precision`: null in place of {");
    // A file that does not say anything about precision has none.
    let (_, _, record) = TrainingRecord::open(&bad).unwrap();
    let model = Model::open(&bad, &device).unwrap();
    let text = record.text.replacen("\"mixed_precision\":null,", "", 1);
    assert_ne!(text, record.text);
    model.save_training(&bad, &TrainingRecord::new(text, record.tensors.clone())).unwrap();
    plain().load_state(&bad).unwrap();

    trainer(&device, scale).fit(&data(), fitting(1).checkpoint(&path, 1)).unwrap();
    let (_, _, record) = TrainingRecord::open(&path).unwrap();
    let model = Model::open(&path, &device).unwrap();
    let parsed: Value = serde_json::from_str(&record.text).unwrap();
    let pair = |name: &str| format!("\"{name}\":{}", parsed["numbers"][name]);
    for (name, value) in [
        ("loss_scale", "NaN"),
        ("loss_scale", "0"),
        ("loss_scale", "inf"),
        ("finite_steps", "-1"),
        ("skipped_steps", "x"),
    ] {
        for (to, message) in [
            (format!("\"{name}\":\"{value}\""), format!("has `{value}` as its number `{name}`")),
            ("\"other\":\"1\"".to_owned(), format!("has no number `{name}`")),
        ] {
            let text = record.text.replacen(&pair(name), &to, 1);
            assert_ne!(text, record.text);
            model.save_training(&bad, &TrainingRecord::new(text, record.tensors.clone())).unwrap();
            refused(trainer(&device, scale), &bad, &message);
        }
    }
}

#[test]
fn a_trainer_learns_although_steps_are_skipped() {
    for device in devices() {
        let mut trainer = trainer(&device, LossScale::pytorch().initial(1e8).interval(8));
        let history = trainer.fit(&data(), fitting(40)).unwrap();
        let losses = history.get("loss");
        assert!(losses[39] < losses[0] / 3.0, "{losses:?} on {device}");
        let training = trainer.training_mut();
        assert!(training.skipped_steps().unwrap() > 2);
        assert!(training.loss_scale().unwrap().unwrap() < 1e8);
        let weights = training.weights().unwrap();
        assert!(weights.iter().all(|(_, w)| w.to_vec().unwrap().iter().all(|v| v.is_finite())));
    }
}

/// A gradient that only a scale makes too large is no error; one that is too large without a scale is, once no smaller
/// scale is left; a loss that is not finite is one at once.
#[test]
fn what_no_scale_mends_is_an_error() {
    for device in devices() {
        let samples = |x: f32| {
            let [x, y] = [x, 3.0].map(|v| Array::f32(vec![v; 4], &[4, 1]).unwrap());
            Dataset::new(x, y).unwrap()
        };
        let trainer = |weight: f32| {
            let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras().learning_rate(1e-30));
            let options = options.mixed_precision(LossScale::pytorch().initial(1.0));
            Trainer::compile(&dense(weight, &device), options).unwrap()
        };
        let diagnosed = |trainer: &mut Trainer, x: f32| {
            let [x, y] = [x, 3.0].map(|v| Tensor::from_f32(&[v], &[1, 1], &device).unwrap());
            trainer.training_mut().diagnose(&Batch::new(&[&x], &[&y]))
        };
        let one = FitOptions::new().batch_size(1);
        let mut mended = trainer(0.0);
        mended.fit(&samples(1e12), one.epochs(16)).unwrap();
        let skipped = mended.training_mut().skipped_steps().unwrap();
        assert!((20..40).contains(&skipped), "{skipped} on {device}");
        diagnosed(&mut mended, 1e12).unwrap();

        let mut lost = trainer(0.0);
        let one = FitOptions::new().batch_size(1);
        let e = lost.fit(&samples(3e38), one.epochs(40)).unwrap_err();
        let gradient = |e: &Error| matches!(e, Error::NotFinite { origin: Origin::Gradient { .. }, .. });
        assert!(gradient(&e), "{e} on {device}");
        assert!(gradient(&diagnosed(&mut lost, 3e38).unwrap_err()));
        assert_eq!(lost.training().weight("layers.0.weight").unwrap().to_vec().unwrap(), [0.0]);
        assert_eq!(lost.training().loss_scale().unwrap(), Some(f32::MIN_POSITIVE));

        let one = FitOptions::new().batch_size(1);
        let e = trainer(0.0).fit(&samples(f32::NAN), one).unwrap_err();
        assert!(matches!(e, Error::NotFinite { step: 1, origin: Origin::Input(0) }), "{e} on {device}");
        // NaN gradients skip a step too.
        let mut training = one_weight(Sgd::keras(), LossScale::pytorch(), &device);
        assert_eq!(step_with(&mut training, f32::NAN), 1.5);
        assert_eq!(training.skipped_steps().unwrap(), 1);
        // A weight that f16 does not have.
        let one = FitOptions::new().batch_size(1);
        let e = trainer(1e6).fit(&samples(1.0), one).unwrap_err();
        assert!(matches!(&e, Error::NotFinite { origin: Origin::Weight(_), .. }), "{e} on {device}");
    }
}

#[test]
fn bad_options_and_snapshots_of_another_precision_are_named() {
    let device = Device::Cpu;
    let network = network(&device);
    let new = |scale: LossScale| {
        let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras()).mixed_precision(scale);
        Training::new(&network, options).unwrap_err()
    };
    let good = LossScale::pytorch();
    for (scale, named) in [
        (good.initial(0.0), "initial"),
        (good.initial(1e39), "initial"),
        (good.initial(1e-39), "initial"),
        (good.growth(0.5), "growth"),
        (good.growth(f64::NAN), "growth"),
        (good.backoff(0.0), "backoff"),
        (good.backoff(1.5), "backoff"),
        (good.interval(0), "interval"),
        (good.interval(u32::MAX), "interval"),
    ] {
        let e = new(scale);
        assert!(matches!(&e, Error::Option { argument, .. } if *argument == named), "{e}");
    }
    let plain = Training::new(&network, StepOptions::new(Loss::mean_squared_error(), Sgd::keras())).unwrap();
    let mixed = StepOptions::new(Loss::mean_squared_error(), Sgd::keras()).mixed_precision(good);
    let mut mixed = Training::new(&network, mixed).unwrap();
    let e = mixed.restore(&plain.snapshot()).unwrap_err();
    assert!(matches!(&e, Error::Option { argument: "snapshot", .. }), "{e}");
    mixed.restore_weights(&plain.snapshot()).unwrap();
}
