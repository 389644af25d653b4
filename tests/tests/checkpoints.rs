//! Trainings that go on from a file give the bits of one that never ended.

use recurve::{
    BatchNormalization, Dense, Device, Embedding, Gru, Lstm, Model, Network, Sequential, SimpleRnn, TrainingRecord,
    Weight, WeightFile,
};
use recurve_tests::devices;
use recurve_train::{
    Adam, Array, Average, Callback, CallbackState, Clip, CsvLogger, Dataset, EarlyStopping, Error, FitOptions, Form,
    History, LambdaCallback, Logs, Loss, Optimizer, Origin, OutputMetric, Padding, Position, ReduceLrOnPlateau, Result,
    RmsProp, Schedule, Sequences, Sgd, StepOptions, Trainer,
};
use serde_json::json;
use std::fs;
use std::path::Path;

fn data() -> Dataset {
    let sequences = (0u32..22).map(|n| (0..2 + n % 5).map(|t| 1 + (n * 7 + t * 3) % 11).collect::<Vec<_>>());
    let labels = (0..22).map(|n| f32::from(u8::from(n % 3 == 0))).collect();
    let words = Sequences::of_ids(sequences, Padding::new()).unwrap();
    Dataset::new(words, Array::f32(labels, &[22, 1]).unwrap()).unwrap()
}

fn network(device: &Device) -> Network {
    Sequential::new()
        .add(Embedding::new(12, 5).mask_zero(true))
        .add(Gru::new(4).return_sequences(true))
        .add(BatchNormalization::new())
        .add(Lstm::new(6).dropout(0.3).recurrent_dropout(0.2))
        .add(Dense::new(1))
        .seed(8)
        .build(&[None, None], device)
        .unwrap()
}

fn options() -> StepOptions {
    let loss = Loss::mean_squared_error();
    let metric = OutputMetric::new(recurve_train::Metric::binary_accuracy());
    StepOptions::new(loss, Adam::keras().learning_rate(0.03).amsgrad(true)).metric(metric).seed(5)
}

/// A trainer by a schedule, or with callbacks that change the learning rate.
fn trainer(device: &Device, schedule: bool) -> Trainer {
    let mut options = options();
    if schedule {
        options = options.schedule(Schedule::Exponential { initial: 0.03, rate: 0.9, steps: 3, staircase: false });
    }
    Trainer::compile(&network(device), options.clip(Clip::GlobalNorm { norm: 1.0, form: Form::Keras })).unwrap()
}

/// Fit options without a file, with callbacks that keep something.
fn fitting<'a>(epochs: usize, schedule: bool, csv: &Path) -> FitOptions<'a> {
    let stopping = EarlyStopping::new().patience(20).restore_best_weights(true);
    let options = FitOptions::new().epochs(epochs).batch_size(5).validation_split(0.3).by_length(2).callback(stopping);
    let options = match schedule {
        true => options,
        false => options.callback(ReduceLrOnPlateau::new().monitor("loss").patience(1).min_delta(0.05).factor(0.7)),
    };
    options.callback(CsvLogger::new(csv))
}

/// All of a training, as its file has it: the record, and the bits of every tensor by name.
fn state(trainer: &Trainer) -> (String, Vec<(String, Vec<u32>)>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    trainer.save(&path).unwrap();
    let (_, weights, record) = TrainingRecord::open(&path).unwrap();
    let all = weights.iter().chain(record.tensors.iter());
    let bits = |w: &Weight| w.to_vec().unwrap().into_iter().map(f32::to_bits).collect();
    (record.text, all.map(|(name, w)| (name.to_owned(), bits(w))).collect())
}

fn exact(history: &History) -> Vec<(usize, Vec<(String, u64)>)> {
    let logs = history.logs.iter().map(|l| l.iter().map(|(n, v)| (n.to_owned(), v.to_bits())).collect());
    history.epochs.iter().copied().zip(logs).collect()
}

/// Six epochs, three and three, and an end by an error in between, on every device.
#[test]
fn a_training_that_goes_on_gives_the_same_bits() {
    for device in devices() {
        for schedule in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let [path, whole, parts] = ["c.safetensors", "whole.csv", "parts.csv"].map(|n| folder.path().join(n));
            let mut one = trainer(&device, schedule);
            let want = one.fit(&data(), fitting(6, schedule, &whole)).unwrap();
            assert_eq!(want.len(), 6);

            let mut first = trainer(&device, schedule);
            let history = first.fit(&data(), fitting(3, schedule, &parts).checkpoint(&path, 2)).unwrap();
            assert_eq!(history.len(), 3);
            let mut second = trainer(&device, schedule);
            let history = second.fit(&data(), fitting(6, schedule, &parts).resume(&path)).unwrap();
            assert_eq!(exact(&history), exact(&want), "{device}");
            assert!(state(&second) == state(&one), "{device}");
            assert_eq!(fs::read(&whole).unwrap(), fs::read(&parts).unwrap());
            // Another seed gives another training, so that the comparison can fail.
            assert!(state(&first) != state(&one));

            // The file is of epoch 4 when epoch 6 ends in an error.
            fs::remove_file(&path).unwrap();
            let mut broken = trainer(&device, schedule);
            let fails = LambdaCallback::new().on_batch_end(|_, at, _| match (at.epoch, at.batch) {
                (5, 1) => Err(Error::NotFinite { step: 0, origin: Origin::SampleWeights }),
                _ => Ok(()),
            });
            let fit = fitting(6, schedule, &parts).checkpoint(&path, 2).callback(fails);
            broken.fit(&data(), fit).unwrap_err();
            let mut again = trainer(&device, schedule);
            let history = again.fit(&data(), fitting(6, schedule, &parts).resume(&path).checkpoint(&path, 2)).unwrap();
            assert_eq!(exact(&history), exact(&want), "{device}");
            assert!(state(&again) == state(&one), "{device}");
            assert_eq!(fs::read(&whole).unwrap(), fs::read(&parts).unwrap());

            // At its end nothing is left to do, and the best weights come back.
            let mut done = trainer(&device, schedule);
            let history = done.fit(&data(), fitting(6, schedule, &parts).resume(&path)).unwrap();
            assert_eq!(exact(&history), exact(&want));
            assert!(state(&done) == state(&one));
        }
    }
}

/// A training that a callback has stopped is complete. One that was stopped amid an epoch begins that epoch again.
#[test]
fn a_training_that_was_stopped_is_complete() {
    let (device, folder) = (Device::Cpu, tempfile::tempdir().unwrap());
    let path = folder.path().join("c.safetensors");
    let stopping = || EarlyStopping::new().monitor("loss").min_delta(1e9).patience(2).restore_best_weights(true);
    let fit = || FitOptions::new().epochs(9).batch_size(5).callback(stopping());
    let mut one = trainer(&device, true);
    let want = one.fit(&data(), fit().checkpoint(&path, 100)).unwrap();
    assert_eq!(want.len(), 3);
    let mut again = trainer(&device, true);
    let history = again.fit(&data(), fit().resume(&path)).unwrap();
    assert_eq!(exact(&history), exact(&want));
    assert!(state(&again) == state(&one));
    // From its state another training can begin.
    let mut more = trainer(&device, true);
    let epoch = more.load_state(&path).unwrap();
    assert_eq!(epoch, 3);
    let history = more.fit(&data(), FitOptions::new().epochs(5).initial_epoch(epoch).batch_size(5)).unwrap();
    assert_eq!(history.epochs, [3, 4]);

    let mut whole = trainer(&device, true);
    let want = whole.fit(&data(), FitOptions::new().epochs(3).batch_size(5)).unwrap();
    let mut cut = trainer(&device, true);
    let halts = LambdaCallback::new().on_batch_end(|t, at, _| {
        if (at.epoch, at.batch) == (1, 2) {
            t.stop_training();
        }
        Ok(())
    });
    let history =
        cut.fit(&data(), FitOptions::new().epochs(3).batch_size(5).checkpoint(&path, 1).callback(halts)).unwrap();
    assert_eq!(history.len(), 2);
    let mut on = trainer(&device, true);
    let history = on.fit(&data(), FitOptions::new().epochs(3).batch_size(5).resume(&path)).unwrap();
    assert_eq!(exact(&history), exact(&want));
    assert!(state(&on) == state(&whole));
}

/// The file is a model: it computes what the network computes, and saving the model leaves the training out.
#[test]
fn a_checkpoint_is_a_model() {
    let (device, folder) = (Device::Cpu, tempfile::tempdir().unwrap());
    let [path, plain] = ["c.safetensors", "plain.safetensors"].map(|n| folder.path().join(n));
    let mut trainer = trainer(&device, false);
    trainer.fit(&data(), fitting(2, false, &folder.path().join("t.csv")).checkpoint(&path, 1)).unwrap();
    trainer.load_state(&path).unwrap();
    let model = Model::open(&path, &device).unwrap();
    let ids = recurve::Tensor::from_u32(&[1, 2, 3, 4, 5, 6], &[2, 3], &device).unwrap();
    let want = trainer.network().unwrap().forward(&ids).unwrap().to_vec().unwrap();
    assert_eq!(model.network().forward(&ids).unwrap().to_vec().unwrap(), want);
    model.save(&plain).unwrap();
    let names = |path: &Path| -> Vec<String> {
        WeightFile::open(path).unwrap().names().filter(|n| n.starts_with("training.")).map(str::to_owned).collect()
    };
    assert!(names(&path).iter().any(|n| n.starts_with("training.state.2.layers.")), "{:?}", names(&path));
    assert!(names(&path).iter().any(|n| n.starts_with("training.callbacks.0.weight.layers.")));
    assert!(names(&plain).is_empty());
    assert!(matches!(trainer.load_state(&plain), Err(Error::Model(recurve::Error::NoTraining { .. }))));

    // Without the entry in the metadata the tensors are those of no layer.
    let (_, weights, record) = TrainingRecord::open(&path).unwrap();
    assert!(record.text.starts_with("{\"version\":1,"));
    assert!(weights.iter().count() > 8 && record.tensors.iter().count() > 16);
    let bytes = fs::read(&path).unwrap();
    let mut other = bytes.clone();
    let at = other.windows(18).position(|w| w == b"\"recurve_training\"").unwrap();
    other[at + 1] = b'R';
    assert!(Model::from_bytes(&bytes, &device).is_ok());
    let got = Model::from_bytes(&other, &device).unwrap_err().to_string();
    assert!(got.contains("training."), "{got}");
}

/// A callback of the user's own, whose numbers come back exactly.
#[derive(Default)]
struct Own(f64);

impl Callback for Own {
    fn epoch_end(&mut self, _: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        self.0 += 0.1 * (at.epoch as f64 + logs.get("loss").unwrap());
        Ok(())
    }

    fn state(&self) -> CallbackState {
        CallbackState::new(json!({ "sum": self.0, "more": [1, 0.1, "f64", { "f64": 3.3e-7 }] }))
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        assert_eq!(state.value["more"], json!([1, 0.1, "f64", { "f64": 3.3e-7 }]));
        self.0 = state.value["sum"].as_f64().unwrap();
        Ok(())
    }
}

#[test]
fn own_callbacks_come_back_exactly() {
    let (device, folder) = (Device::Cpu, tempfile::tempdir().unwrap());
    let path = folder.path().join("c.safetensors");
    let fit = |epochs| FitOptions::new().epochs(epochs).batch_size(5);
    let (mut whole, mut first, mut second) = (Own::default(), Own::default(), Own::default());
    trainer(&device, true).fit(&data(), fit(5).callback(&mut whole)).unwrap();
    trainer(&device, true).fit(&data(), fit(2).callback(&mut first).checkpoint(&path, 1)).unwrap();
    trainer(&device, true).fit(&data(), fit(5).callback(&mut second).resume(&path)).unwrap();
    assert_eq!(whole.0.to_bits(), second.0.to_bits());
    assert_ne!(whole.0, first.0);
}

/// A file of another training, and a damaged one, are refused and change nothing.
#[test]
fn files_of_other_trainings_are_refused() {
    let (device, folder) = (Device::Cpu, tempfile::tempdir().unwrap());
    let [path, bad] = ["c.safetensors", "bad.safetensors"].map(|n| folder.path().join(n));
    let build = |network: &Network, options: StepOptions| Trainer::compile(network, options).unwrap();
    let mut own = build(&network(&device), options());
    own.fit(&data(), FitOptions::new().batch_size(5).checkpoint(&path, 1)).unwrap();
    let other = Sequential::new().add(Embedding::new(12, 5)).add(SimpleRnn::new(4)).add(Dense::new(1));
    let other = other.build(&[None, None], &device).unwrap();
    let slower = StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.02).amsgrad(true)).seed(5);
    let with = |optimizer: Optimizer| StepOptions::new(Loss::mean_squared_error(), optimizer).seed(5);
    let refused = |mut trainer: Trainer, path: &Path, message: &str| {
        let before = state(&trainer);
        let got = trainer.load_state(path).unwrap_err();
        assert!(matches!(got, Error::Checkpoint { .. } | Error::Model(_)), "{got:?}");
        assert!(got.to_string().contains(message), "{got} in place of {message}");
        let got = trainer.fit(&data(), FitOptions::new().epochs(3).batch_size(5).resume(path)).unwrap_err().to_string();
        assert!(got.contains(message), "{got}");
        assert!(state(&trainer) == before);
    };
    refused(build(&other, options()), &path, "is of another network");
    for (changed, message) in [
        (with(RmsProp::keras().into()), "another `optimizer`: {"),
        (with(Sgd::keras().into()), "another `optimizer`"),
        (slower, "another `optimizer`"),
        (options().seed(6), "another `seed`: 5 in place of 6"),
        (options().clip(Clip::Norm(1.0)), "another `clip`: null in place of"),
        (options().accumulate(2), "another `accumulate`: 1 in place of 2"),
        (options().average(Average::new(0.9).unwrap()), "another `average`"),
        (options().schedule(Schedule::Constant(0.03)), "another `schedule`"),
    ] {
        refused(build(&network(&device), changed), &path, message);
    }
    let again = || build(&network(&device), options());
    refused(again(), &folder.path().join("none"), "none: ");
    let good = fs::read(&path).unwrap();
    let mut cuts: Vec<usize> = (0..good.len()).step_by(good.len() / 40).collect();
    cuts.push(good.len() - 1);
    for cut in cuts {
        fs::write(&bad, &good[..cut]).unwrap();
        refused(again(), &bad, "bad.safetensors");
    }
    // Records that say something else.
    let (_, _, record) = TrainingRecord::open(&path).unwrap();
    let model = Model::open(&path, &device).unwrap();
    for (from, to, message) in [
        ("\"version\":1", "\"version\":9", "version 9"),
        ("\"version\":1", "\"vers\":1", "missing field `version`"),
        ("\"stopped\":", "\"stop\":", "unknown field `stop`"),
        ("\"steps\":\"5\"", "\"steps\":\"-5\"", "has `-5` as its number `steps`"),
        ("\"steps\":\"5\"", "\"paces\":\"5\"", "has no number `steps`"),
        ("\"learning_rate\":\"0.03\"", "\"learning_rate\":\"NaN\"", "has `NaN` as its number `learning_rate`"),
        ("\"callbacks\":[]", "\"callbacks\":[{\"value\":1,\"numbers\":{}}]", "has no weight `"),
    ] {
        assert!(record.text.contains(from), "{from} is not in {}", record.text);
        let text = record.text.replacen(from, to, 1);
        model.save_training(&bad, &TrainingRecord::new(text, record.tensors.clone())).unwrap();
        refused(again(), &bad, message);
    }
    let mut less = recurve::Weights::new();
    record.tensors.iter().skip(1).for_each(|(n, w)| less.insert(n, w.shape(), w.to_vec().unwrap()).unwrap());
    model.save_training(&bad, &TrainingRecord::new(&*record.text, less.clone())).unwrap();
    let mut trainer = again();
    assert!(trainer.load_state(&bad).unwrap_err().to_string().contains("which is no part of this training"));
    let mut more = record.tensors.clone();
    more.insert("state.0.layers.77.weight", &[1], vec![0.0]).unwrap();
    model.save_training(&bad, &TrainingRecord::new(&*record.text, more)).unwrap();
    refused(again(), &bad, "has `state.0.layers.77.weight`, which is no part of this training");

    // Callbacks that keep something must be those of the file; options must agree with it.
    let mut trainer = again();
    let before = state(&trainer);
    let fit = || FitOptions::new().epochs(3).batch_size(5).resume(&path);
    for (options, message) in [
        (fit().callback(EarlyStopping::new().monitor("loss")), "has what 0 callbacks kept, but"),
        (fit().initial_epoch(1), "`initial_epoch` is that of the checkpoint"),
        (fit().epochs(0), "`epochs` must be more than the number of the first epoch, 1"),
        (FitOptions::new().batch_size(5).checkpoint(&bad, 0), "must be written after at least 1 epoch"),
    ] {
        let got = trainer.fit(&data(), options).unwrap_err().to_string();
        assert!(got.contains(message), "{got}");
        assert!(state(&trainer) == before);
    }
    own.fit(
        &data(),
        FitOptions::new().batch_size(5).checkpoint(&path, 1).callback(ReduceLrOnPlateau::new().monitor("loss")),
    )
    .unwrap();
    let got = trainer.fit(&data(), fit().callback(EarlyStopping::new().monitor("loss"))).unwrap_err().to_string();
    assert!(got.contains("early_stopping: `state` is that of another callback"), "{got}");
    assert!(state(&trainer) == before);
}
