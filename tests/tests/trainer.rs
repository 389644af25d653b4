//! `fit`, `evaluate`, `predict` and padding beside Keras's, and bad input.

use recurve::testing::{Tolerance, compare};
use recurve::{Dense, Device, Model, Sequential, SimpleRnn};
use recurve_tests::{devices, fixtures, wide};
use recurve_train::{
    Adam, Array, Batches, Dataset, Error, FitOptions, HostBatch, LambdaCallback, Logs, Loss, Metric, Optimizer,
    OutputMetric, Padding, RmsProp, Sequences, Sgd, Side, Source, StepOptions, Trainer,
};
use serde_json::Value;

/// What Keras gave, by `tests/golden/make_fit.py`.
fn fixture(of: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("fit/cases.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[of].as_array().unwrap().clone()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn array(v: &Value) -> Array {
    let shape: Vec<usize> = numbers(&v["shape"]).iter().map(|&n| n as usize).collect();
    let data = numbers(&v["data"]);
    match v["ids"].as_bool() {
        Some(true) => Array::u32(data.iter().map(|&v| v as u32).collect(), &shape),
        _ => Array::f32(data.iter().map(|&v| v as f32).collect(), &shape),
    }
    .unwrap()
}

fn options(name: &str) -> StepOptions {
    let with_accuracy = |options: StepOptions| {
        let accuracy = OutputMetric::accuracy(&options.losses[0]).unwrap();
        options.metric(accuracy)
    };
    let sparse = Loss::sparse_categorical_crossentropy;
    match name {
        "binary" => with_accuracy(StepOptions::new(Loss::binary_crossentropy(), Adam::keras().learning_rate(0.02))),
        "masked" => with_accuracy(StepOptions::new(sparse(), RmsProp::keras().learning_rate(0.01))),
        "classes" => {
            let loss = sparse().class_weights([0.5, 2.0, 1.25]);
            with_accuracy(StepOptions::new(loss, Sgd::keras().learning_rate(0.1).momentum(0.9)))
        }
        "weights" => StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.02)),
        "outputs" => StepOptions::new(Loss::binary_crossentropy(), Adam::keras().learning_rate(0.02))
            .losses([Loss::binary_crossentropy(), Loss::mean_squared_error()])
            .loss_weights([1.0, 0.25]),
        other => panic!("{other}"),
    }
}

/// Loss, metrics and those of validation in every epoch, scores and predictions are Keras's, on every device. The bound is
/// 1e-5; Keras computes in f32 too.
#[test]
fn fit_is_that_of_keras() {
    for device in devices() {
        for case in fixture("cases") {
            let name = case["name"].as_str().unwrap();
            let model = Model::open(fixtures().join(format!("fit/{name}.keras")), &device).unwrap();
            let mut trainer = Trainer::compile(model.network(), options(name)).unwrap();
            let targets = case["y"].as_array().unwrap().iter().map(|y| array(y).into()).collect();
            let mut data = Dataset::of(vec![array(&case["x"]).into()], targets).unwrap();
            if !case["sample_weight"].is_null() {
                data = data.sample_weights(array(&case["sample_weight"])).unwrap();
            }
            let o = &case["options"];
            let whole = |key: &str| o[key].as_u64().map(|n| n as usize);
            let fit = FitOptions::new()
                .epochs(whole("epochs").unwrap())
                .batch_size(whole("batch_size").unwrap())
                .shuffle(false)
                .validation_split(o["validation_split"].as_f64().unwrap_or(0.0))
                .validation_frequency(whole("validation_freq").unwrap_or(1));
            let history = trainer.fit(&data, fit).unwrap();
            let close = |what: &str, got: &[f64], want: &[f64]| {
                let got: Vec<f32> = got.iter().map(|v| *v as f32).collect();
                compare(&got, want, Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{name} on {device}: {what}: {e}"));
            };
            let want = case["history"].as_object().unwrap();
            let mut names = history.names();
            names.sort_unstable();
            assert_eq!(names, want.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
            for (key, values) in want {
                close(key, &history.get(key), &numbers(values));
            }
            let losses = history.get("loss");
            assert!((losses[0] - losses[losses.len() - 1]).abs() > 1e-2, "{name}: nothing was learned");
            // Keras evaluates without weights of classes; here it was not given those of samples.
            if name != "weights" {
                let scores = trainer.evaluate(&data, 3).unwrap();
                for (key, want) in case["scores"].as_object().unwrap() {
                    close(key, &[scores.get(key).unwrap()], &[want.as_f64().unwrap()]);
                }
            }
            let outputs = trainer.predict(&data, 4).unwrap();
            let predictions = numbers(&case["predictions"]);
            if !predictions.is_empty() {
                close("predictions", &wide(outputs[0].as_f32().unwrap()), &predictions);
            }
        }
    }
}

#[test]
fn padding_is_that_of_keras() {
    let side = |v: &Value| if v == "pre" { Side::Pre } else { Side::Post };
    let cases = fixture("paddings");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let mut padding = Padding::new().padding(side(&case["padding"])).truncating(side(&case["truncating"]));
        padding.length = case["length"].as_u64().map(|n| n as usize);
        let sequences = case["sequences"].as_array().unwrap().iter();
        let sequences = sequences.map(|s| numbers(s).iter().map(|&v| v as u32).collect::<Vec<_>>());
        let padded = Sequences::of_ids(sequences.clone(), padding.value(8.0)).unwrap().pad();
        assert_eq!(
            padded,
            array(&serde_json::json!({ "ids": true, "shape": case["shape"], "data": case["data"] })),
            "{case}"
        );
        let features = sequences.map(|s| s.iter().map(|&v| v as f32).collect::<Vec<_>>());
        let padded = Sequences::of_features(features, 1, padding.value(8.0)).unwrap().pad();
        assert_eq!(wide(padded.as_f32().unwrap()), numbers(&case["data"]), "{case}");
    }
}

fn batches(mut of: Batches, epoch: usize) -> Vec<HostBatch> {
    of.epoch(epoch).unwrap().map(Result::unwrap).collect()
}

/// Every sample comes once an epoch, in an order that depends on the seed and the epoch alone.
#[test]
fn batches_have_every_sample_once() {
    let lengths = |n: u32| 1 + n * 7 % 12;
    let sequences = (0..23u32).map(|n| vec![n + 1; lengths(n) as usize]);
    let words = Sequences::of_ids(sequences, Padding::new()).unwrap();
    let labels = Array::u32((0..23).collect(), &[23]).unwrap();
    let data = Dataset::new(words, labels).unwrap();
    let labels_of =
        |all: &[HostBatch]| -> Vec<u32> { all.iter().flat_map(|b| b.targets[0].as_u32().unwrap()).copied().collect() };
    let padding = |all: &[HostBatch]| -> usize {
        all.iter().map(|b| b.inputs[0].as_u32().unwrap().iter().filter(|&&v| v == 0).count()).sum()
    };
    let plain = batches(data.batches(4).unwrap(), 0);
    assert_eq!(labels_of(&plain), (0..23).collect::<Vec<_>>());
    assert_eq!(plain.iter().map(HostBatch::len).collect::<Vec<_>>(), [4, 4, 4, 4, 4, 3]);
    let shuffled = |seed, epoch| batches(data.batches(4).unwrap().shuffle(seed), epoch);
    let buckets = |epoch| batches(data.batches(4).unwrap().shuffle(1).by_length(100), epoch);
    for all in [shuffled(1, 0), shuffled(1, 1), shuffled(2, 0), buckets(0), buckets(3)] {
        let mut labels = labels_of(&all);
        assert_ne!(labels, (0..23).collect::<Vec<_>>());
        labels.sort_unstable();
        assert_eq!(labels, (0..23).collect::<Vec<_>>());
        // Inputs and targets belong together.
        for batch in &all {
            let steps = batch.inputs[0].shape()[1];
            for (row, &label) in batch.inputs[0].as_u32().unwrap().chunks(steps).zip(batch.targets[0].as_u32().unwrap())
            {
                let length = lengths(label) as usize;
                assert!(
                    row[steps - length..].iter().all(|&v| v == label + 1)
                        && row[..steps - length].iter().all(|&v| v == 0)
                );
            }
        }
    }
    assert_eq!(shuffled(1, 2), shuffled(1, 2));
    assert_ne!(shuffled(1, 0), shuffled(1, 1));
    assert_ne!(shuffled(1, 0), shuffled(2, 0));
    assert!(padding(&buckets(0)) * 3 < padding(&shuffled(1, 0)), "sequences of about one length come together");
    assert_ne!(buckets(0), buckets(1));
    assert_eq!(batches(data.batches(4).unwrap().drop_last(), 0).len(), 5);
}

fn small(device: &Device) -> Trainer {
    let network = Sequential::new().add(SimpleRnn::new(3)).add(Dense::new(2)).seed(1);
    let network = network.build(&[None, None, Some(2)], device).unwrap();
    Trainer::compile(&network, StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.05))).unwrap()
}

fn floats(shape: &[usize]) -> Array {
    let count: usize = shape.iter().product();
    Array::f32((0..count).map(|n| (n * 5 % 11) as f32 / 11.0 - 0.5).collect(), shape).unwrap()
}

/// A function that makes batches trains as the data set with the same batches does.
#[test]
fn batches_from_an_iterator_train_alike() {
    for device in devices() {
        let (x, y) = (floats(&[6, 4, 2]), floats(&[6, 2]));
        let data = Dataset::new(x.clone(), y.clone()).unwrap();
        let part = |a: &Array, n: usize| {
            let size = a.as_f32().unwrap().len() / 3;
            let mut shape = a.shape().to_vec();
            shape[0] = 2;
            Array::f32(a.as_f32().unwrap()[n * size..(n + 1) * size].to_vec(), &shape).unwrap()
        };
        let all: Vec<HostBatch> = (0..3).map(|n| HostBatch::new(vec![part(&x, n)], vec![part(&y, n)])).collect();
        let mut epochs = Vec::new();
        let mut source = |epoch: usize| {
            epochs.push(epoch);
            all.clone().into_iter().map(Ok)
        };
        let mut by_iterator = small(&device);
        let a = by_iterator.fit_batches(&mut source, None, FitOptions::new().epochs(3)).unwrap();
        let mut by_data = small(&device);
        let b = by_data.fit(&data, FitOptions::new().epochs(3).batch_size(2).shuffle(false)).unwrap();
        assert_eq!(a, b);
        assert_eq!(epochs, [0, 1, 2]);
        assert_eq!(by_iterator.predict(&data, 6).unwrap(), by_data.predict(&data, 6).unwrap());
    }
}

/// Predictions follow the samples, whatever the size of a batch, and do not depend on targets.
#[test]
fn predictions_follow_the_samples() {
    let mut trainer = small(&Device::Cpu);
    let x = floats(&[7, 4, 2]);
    let without = Dataset::of(vec![x.clone().into()], vec![]).unwrap();
    let all = trainer.predict(&without, 7).unwrap();
    assert_eq!(all[0].shape(), [7, 2]);
    assert_eq!(trainer.predict(&without, 2).unwrap(), all);
    let input = x.to_tensor(&Device::Cpu).unwrap();
    let want = trainer.network().unwrap().forward(&input).unwrap().to_vec().unwrap();
    assert_eq!(all[0].as_f32().unwrap(), want);
    // After a step the predictions are those of the new weights.
    trainer.fit(&Dataset::new(x, floats(&[7, 2])).unwrap(), FitOptions::new().batch_size(7)).unwrap();
    assert_ne!(trainer.predict(&without, 7).unwrap(), all);
}

/// Data and options that do not fit are refused before anything is trained.
#[test]
fn bad_input_is_refused() {
    let device = Device::Cpu;
    let data = || Dataset::new(floats(&[6, 4, 2]), floats(&[6, 2])).unwrap();
    let fit = || FitOptions::new().batch_size(2);
    let word = |v: u32| Sequences::of_ids([vec![v]], Padding::new()).unwrap();
    for (what, got) in [
        ("no samples", Dataset::new(Array::f32(vec![], &[0, 2]).unwrap(), floats(&[1, 2])).map(|_| ())),
        ("no inputs", Dataset::of(vec![], vec![]).map(|_| ())),
        ("other numbers of samples", Dataset::new(floats(&[3, 2]), floats(&[4, 2])).map(|_| ())),
        ("no sequences", Dataset::new(Sequences::of_ids([[0; 0]; 0], Padding::new()).unwrap(), word(1)).map(|_| ())),
        ("weights of other samples", data().sample_weights(floats(&[5])).map(|_| ())),
        ("weights that are ids", data().sample_weights(Array::u32(vec![1; 6], &[6]).unwrap()).map(|_| ())),
        ("weights that are NaN", data().sample_weights(Array::f32(vec![f32::NAN; 6], &[6]).unwrap()).map(|_| ())),
        ("a shape of other elements", Array::f32(vec![0.0; 5], &[2, 3]).map(|_| ())),
        ("no axes", Array::f32(vec![0.0], &[]).map(|_| ())),
        ("an overflow", Array::u32(vec![], &[usize::MAX, 3]).map(|_| ())),
        ("a split of everything", data().split(1.0).map(|_| ())),
        ("a split of nothing", data().split(0.0).map(|_| ())),
        ("a split that is NaN", data().split(f64::NAN).map(|_| ())),
        ("batches of nothing", data().batches(0).map(|_| ())),
        ("half an id", Sequences::of_ids([[1]], Padding::new().value(0.5)).map(|_| ())),
        ("no length", Sequences::of_ids([[1]], Padding::new().length(0)).map(|_| ())),
        ("half a timestep", Sequences::of_features([[1.0; 3]], 2, Padding::new()).map(|_| ())),
    ] {
        assert!(matches!(got, Err(Error::Option { .. } | Error::Operand { .. })), "{what}: {got:?}");
    }

    let mut trainer = small(&device);
    let before = trainer.training().weights().unwrap();
    let other = Dataset::new(floats(&[6, 4, 3]), floats(&[6, 2])).unwrap();
    let wide = Dataset::new(floats(&[6, 4, 2]), floats(&[6, 3])).unwrap();
    let two = Dataset::of(vec![floats(&[6, 4, 2]).into(); 2], vec![floats(&[6, 2]).into()]).unwrap();
    let none = Dataset::of(vec![floats(&[6, 4, 2]).into()], vec![]).unwrap();
    for (what, data, options) in [
        ("another width", other.clone(), fit()),
        ("targets of another shape", wide, fit()),
        ("two inputs", two, fit()),
        ("no targets", none, fit()),
        ("a batch larger than the data", data(), fit().batch_size(7)),
        ("no batch", data(), fit().batch_size(0)),
        ("no epochs", data(), fit().epochs(0)),
        ("epochs that are over", data(), fit().epochs(2).initial_epoch(2)),
        ("no frequency", data(), fit().validation_frequency(0)),
        ("two validations", data(), fit().validation_split(0.5).validation_data(data())),
        ("a part for validation", data(), fit().validation_split(-0.5)),
        (
            "validation of two inputs",
            data(),
            fit().validation_data(Dataset::of(vec![floats(&[6, 4, 2]).into(); 2], vec![]).unwrap()),
        ),
    ] {
        let got = trainer.fit(&data, options);
        assert!(got.is_err(), "{what}");
        assert_eq!(trainer.training().weights().unwrap(), before, "{what}");
    }
    assert_eq!(trainer.training().steps(), 0);
    assert!(trainer.training_mut().set_learning_rate(f64::INFINITY).is_err());
    assert!(trainer.training_mut().set_learning_rate(-1.0).is_err());
    // Without batches there is nothing to train with.
    let mut empty = |_| std::iter::empty::<recurve_train::Result<HostBatch>>();
    assert!(trainer.fit_batches(&mut empty, None, FitOptions::new()).is_err());
    assert!(trainer.evaluate_batches(&mut empty).is_err());
    let mut fails = |_| std::iter::once(Err(Error::NotFinite { step: 7, origin: recurve_train::Origin::Input(0) }));
    assert!(matches!(trainer.fit_batches(&mut fails, None, FitOptions::new()), Err(Error::NotFinite { step: 7, .. })));
    assert_eq!(trainer.training().weights().unwrap(), before);

    let classes =
        Sequential::new().add(SimpleRnn::new(3)).add(Dense::new(4)).build(&[None, None, Some(2)], &device).unwrap();
    let options = StepOptions::new(Loss::sparse_categorical_crossentropy().from_logits(), Sgd::keras());
    let mut trainer = Trainer::compile(&classes, options).unwrap();
    let labels = Array::u32(vec![0, 3, 1, 4, 2, 0], &[6, 1]).unwrap();
    let data = Dataset::new(floats(&[6, 4, 2]), labels).unwrap();
    let got = trainer.fit(&data, FitOptions::new().batch_size(3)).unwrap_err();
    assert!(matches!(got, Error::Label { index: 3, label: 4, classes: 4 }), "{got}");
    assert!(trainer.evaluate(&data, 2).is_err());
    assert_eq!(trainer.training().steps(), 0);
}

/// A number that is set again keeps its place.
#[test]
fn logs_keep_the_order_of_their_names() {
    let mut logs = Logs::default();
    logs.set("loss", 1.0);
    logs.set("accuracy", 0.5);
    logs.set("loss", 2.0);
    assert_eq!(logs.iter().collect::<Vec<_>>(), [("loss", 2.0), ("accuracy", 0.5)]);
    assert_eq!(logs.get("val_loss"), None);
}

/// Names of optimisers, losses and metrics are what Keras takes for them, with its defaults; others are refused with those
/// that there are.
#[test]
fn names_are_those_of_keras() {
    let text = std::fs::read_to_string(fixtures().join("names.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    for (name, config) in all["optimizers"].as_object().unwrap() {
        let own = serde_json::to_value(name.parse::<Optimizer>().unwrap()).unwrap();
        let class =
            if config["class"] == "AdamW" { "adam".into() } else { config["class"].as_str().unwrap().to_lowercase() };
        assert_eq!(own["name"], class, "{name}");
        let mut compared = 0;
        for (key, want) in config.as_object().unwrap() {
            let key = if key == "initial_accumulator_value" { "initial_accumulator" } else { key };
            match (&own[key], want) {
                (Value::Number(a), Value::Number(b)) => {
                    let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                    assert!((a - b).abs() <= 1e-7 * b.abs(), "{name}: {key} is {a} in place of {b}");
                    compared += 1;
                }
                (Value::Bool(a), Value::Bool(b)) => assert_eq!(a, b, "{name}: {key}"),
                (Value::Null, _) => assert!(key.contains("ema") || key == "class", "{name} has no {key}"),
                (a, b) => panic!("{name}: {key} is {a} in place of {b}"),
            }
        }
        assert!(compared >= 2, "{name}");
    }
    let first = |of: &str, name: &str| all[of][name].as_str().unwrap().to_owned();
    for name in all["losses"].as_object().unwrap().keys() {
        let own = serde_json::to_value(name.parse::<Loss>().unwrap()).unwrap();
        let kind = own["kind"].as_str().unwrap_or_else(|| own["kind"].as_object().unwrap().keys().next().unwrap());
        assert_eq!(kind, first("losses", name));
        assert!(own["label_smoothing"] == 0.0 && own["reduction"] == "mean");
    }
    assert_eq!("bce".parse::<Loss>().unwrap(), Loss::binary_crossentropy(), "of probabilities");
    assert_eq!("huber".parse::<Loss>().unwrap(), Loss::huber(1.0));
    for name in all["metrics"].as_object().unwrap().keys() {
        let want = first("metrics", name);
        let own: Metric = name.parse().unwrap();
        assert_eq!(own.name(), want.strip_prefix("sparse_top").map_or(want.clone(), |rest| format!("top{rest}")));
        let reported = OutputMetric::by_name(name, &Loss::mean_squared_error(), Some(1)).unwrap();
        assert_eq!((&reported.name, reported.metric), (name, own));
    }
    assert_eq!("auc".parse::<Metric>().unwrap(), Metric::auc());
    assert_eq!("TopKCategoricalAccuracy".parse::<Metric>().unwrap(), Metric::TopKCategoricalAccuracy { k: 5 });
    for case in all["accuracies"].as_array().unwrap() {
        let loss: Loss = case["loss"].as_str().unwrap().parse().unwrap();
        let own = OutputMetric::by_name("acc", &loss, case["width"].as_u64().map(|n| n as usize)).unwrap();
        assert_eq!((own.metric.name(), &*own.name), (case["metric"].as_str().unwrap(), "acc"), "{case}");
    }
    let unknown = [
        "adamw2".parse::<Optimizer>().unwrap_err().to_string(),
        "Mse".parse::<Loss>().unwrap_err().to_string(),
        "accuracy".parse::<Metric>().unwrap_err().to_string(),
        OutputMetric::by_name("precison", &Loss::huber(1.0), None).unwrap_err().to_string(),
    ];
    let known = [
        "sgd, rmsprop, adam, adamw, adagrad, lion, but it is `adamw2`",
        "mean_squared_error, mean_absolute_error, huber, ctc, but it is `Mse`",
        "must be one of binary_accuracy, ",
        "must be one of accuracy, binary_accuracy, ",
    ];
    for (got, want) in unknown.iter().zip(known) {
        assert!(got.contains(want), "{got}");
    }
    assert!(OutputMetric::by_name("accuracy", &Loss::ctc_keras(), Some(1)).is_err());
}

/// Batches that a caller gives one by one, with other calls between them, train as `fit` does; what was changed between
/// two batches is kept when a loss is not finite.
#[test]
fn an_epoch_in_the_callers_hands_is_that_of_fit() {
    for device in devices() {
        let data = Dataset::new(floats(&[26, 4, 2]), floats(&[26, 2])).unwrap();
        let batches = data.batches(2).unwrap().shuffle(0);
        let mut by_fit = small(&device);
        let want = by_fit.fit(&data, FitOptions::new().epochs(2).batch_size(2).validation_data(data.clone())).unwrap();
        let mut trainer = small(&device);
        for epoch in 0..2 {
            let mut run = trainer.begin_epoch().unwrap();
            assert_eq!(run.logs().get("loss"), Some(0.0), "no batch yet");
            for (n, batch) in batches.of_epoch(epoch).enumerate() {
                trainer.train_batch(&mut run, batch.unwrap()).unwrap();
                if n == 6 {
                    trainer.evaluate(&data, 5).unwrap();
                    trainer.network().unwrap();
                    trainer.read_losses(&mut run).unwrap();
                    assert_ne!(run.logs().get("loss"), Some(0.0));
                }
            }
            let mut logs = trainer.end_epoch(run).unwrap();
            let mut evaluation = trainer.begin_evaluation().unwrap();
            for batch in data.batches(2).unwrap().of_epoch(0) {
                trainer.evaluate_batch(&mut evaluation, &batch.unwrap()).unwrap();
            }
            logs.set("val_loss", evaluation.end().unwrap().get("loss").unwrap());
            assert_eq!(logs, want.logs[epoch]);
        }
        assert_eq!(trainer.training().flat_weights().unwrap(), by_fit.training().flat_weights().unwrap());
        let run = trainer.begin_epoch().unwrap();
        assert!(trainer.end_epoch(run).unwrap_err().to_string().contains("at least one batch"));
        assert!(trainer.begin_evaluation().unwrap().end().is_err());

        // A step, other weights, a step, another rate, a step whose loss is not finite.
        let mut run = trainer.begin_epoch().unwrap();
        let batch = |n: usize| batches.of_epoch(0).nth(n).unwrap().unwrap();
        trainer.train_batch(&mut run, batch(0)).unwrap();
        let halved: Vec<f32> = trainer.training().flat_weights().unwrap().iter().map(|w| w / 2.0).collect();
        trainer.training_mut().set_flat_weights(&halved).unwrap();
        trainer.train_batch(&mut run, batch(1)).unwrap();
        trainer.training_mut().set_learning_rate(0.25).unwrap();
        let before = trainer.training().flat_weights().unwrap();
        let mut bad = batch(2);
        bad.targets[0] = Array::f32(vec![f32::NAN; 4], &[2, 2]).unwrap();
        let e = trainer.train_batch(&mut run, bad).and_then(|()| trainer.read_losses(&mut run)).unwrap_err();
        assert!(matches!(e, Error::NotFinite { step: 29, .. }), "{e}");
        assert_eq!(trainer.training().flat_weights().unwrap(), before);
        assert_eq!(trainer.training().learning_rate(), 0.25);
        let e = trainer.train_batch(&mut run, HostBatch::new(vec![], vec![])).unwrap_err();
        assert!(matches!(e, Error::Option { .. }), "{e}");
    }
}

/// An error of a callback, or of a source of batches, comes out of `fit` as it is; the trainer keeps the weights that it
/// has reached, and goes on.
#[test]
fn an_error_of_a_callback_comes_out_of_fit() {
    #[derive(Debug, thiserror::Error)]
    #[error("no more tea in batch {0}")]
    struct Tea(usize);

    let data = Dataset::new(floats(&[8, 4, 2]), floats(&[8, 2])).unwrap();
    for device in devices() {
        let mut trainer = small(&device);
        let stops = LambdaCallback::new().on_batch_end(|_, at, _| match at.batch {
            2 => Err(Error::callback(Tea(at.batch))),
            _ => Ok(()),
        });
        let options = || FitOptions::new().batch_size(2).shuffle(false);
        let e = trainer.fit(&data, options().callback(stops)).unwrap_err();
        assert_eq!(e.to_string(), "no more tea in batch 2");
        let Error::Callback { source } = &e else { panic!("{e:?}") };
        assert_eq!(source.downcast_ref::<Tea>().unwrap().0, 2);
        assert_eq!(trainer.training().steps(), 3);
        let mut three = small(&device);
        let mut batches = |_: usize| {
            let three = data.batches(2).unwrap().of_epoch(0).take(3);
            three.chain([Err(Error::callback("the disk is gone"))])
        };
        let e = three.fit_batches(&mut batches, None, FitOptions::new()).unwrap_err();
        assert_eq!(e.to_string(), "the disk is gone");
        let weights = |t: &Trainer| t.training().flat_weights().unwrap();
        assert_eq!(weights(&trainer), weights(&three));
        trainer.fit(&data, options()).unwrap();
        assert_eq!(trainer.training().steps(), 7);
        assert_ne!(weights(&trainer), weights(&three));
    }
}
