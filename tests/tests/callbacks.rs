//! Callbacks of training beside Keras's, and the files that they write.

use prost::Message;
use recurve::testing::{Tolerance, compare};
use recurve::{Dense, Device, Model, Sequential, SimpleRnn};
use recurve_tests::fixtures;
use recurve_train::{
    Array, Callback, CsvLogger, Dataset, EarlyStopping, Error, FitOptions, LambdaCallback, LearningRateScheduler, Loss,
    Metric, ModelCheckpoint, MonitorMode, Plateau, Position, ProgressBar, ReduceLrOnPlateau, Result, Schedule, Sgd,
    StepOptions, TensorBoard, Trainer,
};
use serde_json::Value;
use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

/// What Keras did, by `tests/golden/make_callbacks.py`.
fn cases(of: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("callbacks.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[of].as_array().unwrap().clone()
}

fn data() -> Dataset {
    let x: Vec<f32> = (0..24).map(|n| (n % 7) as f32 / 7.0 - 0.5).collect();
    let y = (0..4).map(|n| n as f32 / 4.0).collect();
    Dataset::new(Array::f32(x, &[4, 3, 2]).unwrap(), Array::f32(y, &[4, 1]).unwrap()).unwrap()
}

/// A training with learning rate 1 and a metric named `accuracy` of which more is better.
fn trainer(schedule: Option<Schedule>) -> Trainer {
    let network = Sequential::new().add(SimpleRnn::new(2)).add(Dense::new(1));
    let network = network.seed(3).build(&[None, None, Some(2)], &Device::Cpu).unwrap();
    let accuracy = recurve_train::OutputMetric::new(Metric::binary_accuracy()).name("accuracy");
    let mut options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras().learning_rate(1.0)).metric(accuracy);
    options.schedule = schedule;
    Trainer::compile(&network, options).unwrap()
}

/// Trains with these numbers in place of those of each epoch.
fn fit(trainer: &mut Trainer, epochs: &[Value], callback: impl Callback) -> Result<recurve_train::History> {
    let given = LambdaCallback::new().on_epoch_end(|_, at, logs| {
        *logs = recurve_train::Logs::default();
        for (name, v) in epochs[at.epoch].as_object().unwrap() {
            logs.set(name, v.as_f64().unwrap());
        }
        Ok(())
    });
    let options = FitOptions::new().epochs(epochs.len()).batch_size(4).validation_data(data());
    trainer.fit(&data(), options.callback(given).callback(callback))
}

fn mode(options: &Value) -> MonitorMode {
    match options["mode"].as_str() {
        Some("min") => MonitorMode::Min,
        Some("max") => MonitorMode::Max,
        _ => MonitorMode::Auto,
    }
}

fn bits(trainer: &Trainer) -> Vec<u32> {
    trainer.training().weights().unwrap().iter().flat_map(|(_, w)| w.to_vec().unwrap()).map(f32::to_bits).collect()
}

/// The number of epochs, and the epoch whose weights are there at the end, are Keras's.
#[test]
fn early_stopping_is_that_of_keras() {
    let (mut early, mut back, mut differ) = (0, 0, 0);
    for (n, case) in cases("early_stopping").iter().enumerate() {
        let (o, epochs) = (&case["options"], case["epochs"].as_array().unwrap());
        let make = |patience: usize| {
            let mut stopping = EarlyStopping::new()
                .monitor(o["monitor"].as_str().unwrap())
                .min_delta(o["min_delta"].as_f64().unwrap())
                .patience(patience)
                .mode(mode(o))
                .restore_best_weights(o["restore_best_weights"].as_bool().unwrap())
                .start_from_epoch(o["start_from_epoch"].as_u64().unwrap() as usize);
            if let Some(baseline) = o["baseline"].as_f64() {
                stopping = stopping.baseline(baseline);
            }
            stopping
        };
        let patience = o["patience"].as_u64().unwrap() as usize;
        let mut stopping = make(patience);
        let after = RefCell::new(Vec::new());
        let mut trainer = trainer(None);
        let each = LambdaCallback::new().on_epoch_end(|trainer, at, logs| {
            after.borrow_mut().push(bits(trainer));
            *logs = recurve_train::Logs::default();
            for (name, v) in epochs[at.epoch].as_object().unwrap() {
                logs.set(name, v.as_f64().unwrap());
            }
            Ok(())
        });
        let options = FitOptions::new().epochs(epochs.len()).batch_size(4).validation_data(data());
        let history = trainer.fit(&data(), options.callback(each).callback(&mut stopping)).unwrap();
        let count = case["count"].as_u64().unwrap() as usize;
        assert_eq!(history.len(), count, "case {n}: {o}");
        let best = case["weight"].as_f64().unwrap() as usize;
        assert_eq!(bits(&trainer), after.borrow()[best], "case {n}: {o}");
        assert_eq!(stopping.stopped_epoch().is_some(), count < epochs.len() || stopping.stopped_epoch() == Some(13));
        early += usize::from(count < epochs.len());
        back += usize::from(best + 1 < count);
        // With another patience some of them would end elsewhere.
        let other = fit(&mut self::trainer(None), epochs, make(patience + 1)).unwrap();
        differ += usize::from(other.len() != count);
    }
    assert!(early > 40 && back > 20 && differ > 20, "{early} {back} {differ}");
}

/// Learning rates after each epoch are Keras's; the bound is that of its f32.
#[test]
fn reduced_learning_rates_are_those_of_keras() {
    let mut reduced = 0;
    for (n, case) in cases("plateau").iter().enumerate() {
        let o = &case["options"];
        let callback = ReduceLrOnPlateau::new()
            .monitor(o["monitor"].as_str().unwrap())
            .mode(mode(o))
            .factor(o["factor"].as_f64().unwrap())
            .patience(o["patience"].as_u64().unwrap() as u32)
            .min_delta(o["min_delta"].as_f64().unwrap())
            .cooldown(o["cooldown"].as_u64().unwrap() as u32)
            .min_lr(o["min_lr"].as_f64().unwrap());
        let history = {
            let mut rates = Vec::new();
            let mut trainer = trainer(None);
            let epochs = case["epochs"].as_array().unwrap();
            let given = LambdaCallback::new().on_epoch_end(|_, at, logs| {
                *logs = recurve_train::Logs::default();
                epochs[at.epoch].as_object().unwrap().iter().for_each(|(k, v)| logs.set(k, v.as_f64().unwrap()));
                Ok(())
            });
            let after = LambdaCallback::new().on_epoch_end(|t, _, _| {
                rates.push(t.training().learning_rate());
                Ok(())
            });
            let options = FitOptions::new().epochs(epochs.len()).batch_size(4).validation_data(data());
            let options = options.callback(given).callback(callback).callback(after);
            let history = trainer.fit(&data(), options).unwrap();
            // The rate of an epoch is that before the callback.
            let logged = history.get("learning_rate");
            assert_eq!(logged[0], 1.0);
            assert_eq!(logged[1..], rates[..rates.len() - 1]);
            rates
        };
        let want: Vec<f64> = case["rates"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let got: Vec<f32> = history.iter().map(|v| *v as f32).collect();
        compare(&got, &want, Tolerance::new(1e-6)).unwrap_or_else(|e| panic!("case {n}: {o}: {e}"));
        reduced += want.windows(2).filter(|w| w[0] != w[1]).count();
    }
    assert!(reduced > 60, "{reduced}");
}

#[test]
fn learning_rates_by_epoch_are_those_of_keras() {
    for case in cases("scheduler") {
        let rates = RefCell::new(Vec::new());
        let function = |epoch: usize, rate: f64| match case["name"].as_str() {
            Some("halved") => rate / 2.0,
            _ if epoch < 3 => 1.0,
            _ => rate * 0.25,
        };
        let seen = LambdaCallback::new().on_epoch_begin(|t, _| {
            rates.borrow_mut().push(t.training().learning_rate());
            Ok(())
        });
        let options = FitOptions::new().epochs(6).callback(LearningRateScheduler::new(function)).callback(seen);
        let history = trainer(None).fit(&data(), options.batch_size(4)).unwrap();
        let want: Vec<f64> = case["rates"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(*rates.borrow(), want);
        assert_eq!(history.get("learning_rate"), want);
    }
    let schedule = Schedule::Step { initial: 0.5, factor: 0.5, every: 2 };
    let options = FitOptions::new().epochs(5).batch_size(4).callback(LearningRateScheduler::by_epoch(schedule));
    let history = trainer(None).fit(&data(), options).unwrap();
    assert_eq!(history.get("learning_rate"), [0.5, 0.5, 0.25, 0.25, 0.125]);
}

/// Names and times of the files are Keras's, and each file is the network of its epoch.
#[test]
fn models_are_saved_when_keras_saves_them() {
    for case in cases("model_checkpoint") {
        let (o, folder) = (&case["options"], tempfile::tempdir().unwrap());
        let name = format!("{}.safetensors", case["path"].as_str().unwrap());
        let path = folder.path().join("made/here").join(name);
        let mut saving = ModelCheckpoint::new(path.to_str().unwrap())
            .save_best_only(o["save_best_only"].as_bool().unwrap_or(false))
            .monitor(o["monitor"].as_str().unwrap_or("val_loss"))
            .mode(mode(o));
        if let Some(threshold) = o["initial_value_threshold"].as_f64() {
            saving = saving.initial_value_threshold(threshold);
        }
        let mut trainer = trainer(None);
        fit(&mut trainer, case["epochs"].as_array().unwrap(), &mut saving).unwrap();
        let mut found: Vec<String> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap().replace(".safetensors", ""))
            .collect();
        let mut want: Vec<String> =
            case["saved"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().into()).collect();
        let last = saving.last_file().unwrap();
        assert_eq!(last.file_stem().unwrap().to_str().unwrap(), want.last().unwrap());
        if case["path"] == "{epoch:02d}-{val_loss:.2f}" {
            let model = Model::open(last, &Device::Cpu).unwrap();
            let saved = model.network().weights().iter().flat_map(|(_, w)| w.to_vec().unwrap()).map(f32::to_bits);
            assert_eq!(saved.collect::<Vec<_>>(), bits(&trainer), "the last epoch's network");
        }
        found.sort();
        want.sort();
        assert_eq!(found, want, "{case}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("{epoch}-{batch}.safetensors");
    let saving = ModelCheckpoint::new(path.to_str().unwrap()).every_batches(3);
    trainer(None).fit(&data(), FitOptions::new().epochs(2).batch_size(1).callback(saving)).unwrap();
    let mut found: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found, ["1-3.safetensors", "2-2.safetensors"]);
}

/// The bytes of the tables are Keras's.
#[test]
fn tables_are_those_of_keras() {
    for case in cases("csv_logger") {
        let (o, folder) = (&case["options"], tempfile::tempdir().unwrap());
        let path = folder.path().join("log.csv");
        for _ in 0..1 + usize::from(case["twice"].as_bool().unwrap()) {
            let separator = o["separator"].as_str().map_or(',', |s| s.chars().next().unwrap());
            let logger = CsvLogger::new(&path).separator(separator).append(o["append"].as_bool().unwrap_or(false));
            fit(&mut trainer(None), case["epochs"].as_array().unwrap(), logger).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), case["text"].as_str().unwrap());
    }
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, tag = "3")]
    file_version: String,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// CRC-32C bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The scalars of the one event file in a folder: tag, step and value.
fn events(folder: &Path) -> Vec<(String, i64, f32)> {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() == 1 && files[0].to_str().unwrap().contains("tfevents"), "{files:?}");
    let bytes = std::fs::read(&files[0]).unwrap();
    let (mut rest, mut all) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (length, behind) = rest.split_at(8);
        assert_eq!(behind[..4], masked(length));
        let n = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (event, behind) = behind[4..].split_at(n);
        assert_eq!(behind[..4], masked(event));
        rest = &behind[4..];
        all.push(Event::decode(event).unwrap());
    }
    assert_eq!(all[0].file_version, "brain.Event:2");
    assert!(all.iter().all(|e| e.wall_time > 1.7e9));
    let scalars = all.iter().flat_map(|e| e.summary.iter().flat_map(|s| &s.value).map(move |v| (v, e.step)));
    scalars.map(|(v, step)| (v.tag.clone(), step, v.simple_value)).collect()
}

#[test]
fn event_files_have_the_numbers_of_training() {
    // The check value of CRC-32C in the catalogue of Koopman and others.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(None);
    let options = FitOptions::new().epochs(2).batch_size(1).validation_data(data());
    let history = trainer.fit(&data(), options.callback(TensorBoard::new(folder.path()).every_batches(3))).unwrap();
    let train = events(&folder.path().join("train"));
    let of = |all: &[(String, i64, f32)], tag: &str| -> Vec<(i64, f32)> {
        all.iter().filter(|(t, ..)| t == tag).map(|(_, step, v)| (*step, *v)).collect()
    };
    let series = |name: &str| -> Vec<(i64, f32)> {
        history.series(name).into_iter().map(|(epoch, v)| (epoch as i64, v as f32)).collect()
    };
    for name in ["loss", "accuracy"] {
        assert_eq!(of(&train, &format!("epoch_{name}")), series(name));
        let validation = events(&folder.path().join("validation"));
        assert_eq!(of(&validation, &format!("epoch_{name}")), series(&format!("val_{name}")));
        let by_step = of(&validation, &format!("evaluation_{name}_vs_iterations"));
        assert_eq!(by_step.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [4, 8]);
        assert_eq!(of(&train, &format!("batch_{name}")).iter().map(|(s, _)| *s).collect::<Vec<_>>(), [3, 6]);
    }
    assert_eq!(of(&train, "epoch_learning_rate"), [(0, 1.0), (1, 1.0)]);
}

/// Somewhere to write to that can be read afterwards.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn progress_is_one_line_an_epoch_where_there_is_no_terminal() {
    let text = Shared::default();
    let epochs = [serde_json::json!({"loss": 0.5, "accuracy": 0.25, "val_loss": 1e-5}), serde_json::json!({"loss": 2})];
    fit(&mut trainer(None), &epochs, ProgressBar::new().lines_to(text.clone())).unwrap();
    let text = String::from_utf8(text.0.borrow().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("Epoch 1/2 - 0."), "{text}");
    // The numbers of the fixture come in the order of their names.
    assert!(lines[0].ends_with("s - accuracy: 0.2500 - loss: 0.5000 - val_loss: 1.0000e-5"), "{text}");
    assert!(lines[1].ends_with("s - loss: 2.0000"), "{text}");
}

#[test]
fn closures_are_called_in_the_order_of_training() {
    let seen = RefCell::new(Vec::new());
    let told = |what: &str, at: Position| {
        seen.borrow_mut().push(format!("{what} {}.{}", at.epoch, at.batch));
        Ok(())
    };
    let callback = LambdaCallback::new()
        .on_train_begin(|_, at| told("begin", at))
        .on_epoch_begin(|_, at| told("epoch", at))
        .on_batch_end(|_, at, _| told("batch", at))
        .on_epoch_end(|t, at, _| {
            t.stop_training();
            told("end of epoch", at)
        })
        .on_train_end(|_, at| told("end", at));
    trainer(None).fit(&data(), FitOptions::new().epochs(9).batch_size(2).callback(callback)).unwrap();
    let want = ["begin 0.0", "epoch 0.0", "batch 0.0", "batch 0.1", "end of epoch 0.0", "end 0.0"];
    assert_eq!(*seen.borrow(), want);
}

/// What cannot be watched or written is refused before anything is trained.
#[test]
fn callbacks_that_cannot_work_are_refused() {
    let stopping = EarlyStopping::new;
    let cases: Vec<(&str, Box<dyn Callback>)> = vec![
        ("`early_stopping`: `monitor` is `val_loss`, but there are no samples to validate with", Box::new(stopping())),
        ("give a mode", Box::new(stopping().monitor("speed"))),
        ("`min_delta` must be finite", Box::new(stopping().monitor("loss").min_delta(f64::NAN))),
        ("plateau: `factor`", Box::new(ReduceLrOnPlateau::new().monitor("loss").factor(1.0))),
        ("plateau: `least`", Box::new(ReduceLrOnPlateau::new().monitor("loss").min_lr(-1.0))),
        (
            "plateau: `threshold`",
            Box::new(ReduceLrOnPlateau::from({
                let mut plateau = Plateau::keras();
                plateau.threshold = recurve_train::Threshold::Absolute(f64::NAN);
                plateau
            })),
        ),
        ("`path` must have its braces in pairs", Box::new(ModelCheckpoint::new("{epoch"))),
        ("`path` has `{epoch:x}`", Box::new(ModelCheckpoint::new("{epoch:x}"))),
        ("`every_batches` must be at least 1", Box::new(ModelCheckpoint::new("m").every_batches(0))),
        ("`every_batches` must be at least 1", Box::new(TensorBoard::new("t").every_batches(0))),
        ("`separator` must be no quote", Box::new(CsvLogger::new("t").separator('"'))),
        ("/not/there/log.csv: ", Box::new(CsvLogger::new("/not/there/log.csv"))),
        (
            "`steps` must be at least 1",
            Box::new(LearningRateScheduler::by_epoch(Schedule::Cosine { initial: 1.0, steps: 0, alpha: 0.0 })),
        ),
    ];
    for (message, callback) in cases {
        let mut trainer = trainer(None);
        let before = bits(&trainer);
        let mut options = FitOptions::new().batch_size(4);
        options.callbacks.push(callback);
        let got = trainer.fit(&data(), options).unwrap_err().to_string();
        let message = message.replacen("`early_stopping`", "early_stopping", 1);
        assert!(got.contains(&message), "{got} in place of {message}");
        assert_eq!((bits(&trainer), trainer.training().steps()), (before, 0), "{message}");
    }
    // A schedule gives the learning rate already.
    for callback in [
        Box::new(ReduceLrOnPlateau::new().monitor("loss")) as Box<dyn Callback>,
        Box::new(LearningRateScheduler::new(|_, r| r)),
    ] {
        let mut options = FitOptions::new().batch_size(4);
        options.callbacks.push(callback);
        let got = trainer(Some(Schedule::Constant(0.1))).fit(&data(), options).unwrap_err();
        assert!(matches!(got, Error::Option { argument: "learning_rate", .. }), "{got}");
    }
    // These are only known after an epoch.
    let stopping = EarlyStopping::new().monitor("speed").mode(MonitorMode::Max);
    let got = trainer(None).fit(&data(), FitOptions::new().batch_size(4).callback(stopping)).unwrap_err().to_string();
    assert_eq!(got, "early_stopping: `monitor` is `speed`, but there are loss, accuracy");
    let saving = ModelCheckpoint::new("{val_loss}.safetensors");
    let got = trainer(None).fit(&data(), FitOptions::new().batch_size(4).callback(saving)).unwrap_err().to_string();
    assert_eq!(got, "model_checkpoint: `path` has `val_loss`, but there are epoch, loss, accuracy");
    let rate = LearningRateScheduler::new(|_, _| f64::NAN);
    assert!(trainer(None).fit(&data(), FitOptions::new().batch_size(4).callback(rate)).is_err());
}

/// Curves of a training: a panel for each number, with its validation, in both forms.
#[test]
fn curves_have_a_panel_for_each_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(None);
    let options = FitOptions::new().epochs(5).batch_size(2).validation_data(data());
    let history = trainer.fit(&data(), options).unwrap();
    let svg = history.plot().unwrap();
    // Two panels with two lines each, of which each has five points.
    for text in ["loss", "val_loss", "accuracy", "val_accuracy", "epoch"] {
        assert!(svg.contains(&format!(">\n{text}\n<")), "{text} is not in the picture");
    }
    assert_eq!(svg.matches("<circle").count(), 20);
    for colour in ["#2B6CB0", "#C26A10"] {
        assert!(svg.contains(colour), "{colour}");
    }
    let [a, b] = ["curves.svg", "curves.PNG"].map(|n| folder.path().join(n));
    history.save_plot(&a).unwrap();
    assert_eq!(std::fs::read_to_string(&a).unwrap(), svg);
    history.save_plot(&b).unwrap();
    let png = std::fs::read(&b).unwrap();
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    // The width and the height: two panels of 600 times 400 at twice their size.
    let size = [16, 20].map(|at| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()));
    assert_eq!(size, [2400, 800]);
    let got = history.save_plot(folder.path().join("curves.jpg")).unwrap_err();
    assert!(matches!(got, Error::Option { argument: "path", .. }), "{got}");
    let got = recurve_train::History::default().plot().unwrap_err();
    assert!(matches!(got, Error::Picture { .. }), "{got}");
    // One epoch, and values that are not finite, can be drawn too.
    let epochs = [serde_json::json!({"loss": 1.0, "val_loss": 1e300})];
    fit(&mut self::trainer(None), &epochs, LambdaCallback::new()).unwrap().plot().unwrap();
}
