//! Steps of training beside Keras's, and what a step promises.

use recurve::testing::{Tolerance, compare};
use recurve::{Dense, Device, HostArray, HostData, Lstm, Model, Network, Sequential, SimpleRnn, Tensor, read_array};
use recurve_tests::{devices, fixtures, wide};
use recurve_train::{Adam, Average, Batch, Clip, Form, Loss, Optimizer, RmsProp, Sgd, StepOptions, Training};

fn array(case: &str, name: &str) -> Option<HostArray> {
    read_array(&fixtures().join(format!("training/{case}.npz")), name).ok()
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

fn network(case: &str, when: &str, device: &Device) -> Network {
    let model = Model::open(fixtures().join(format!("training/{case}_{when}.keras")), device).unwrap();
    model.network().to_device(device).unwrap()
}

fn cases() -> [(&'static str, StepOptions); 6] {
    let rmsprop = RmsProp::keras().learning_rate(0.01);
    let adam = Adam::keras().learning_rate(0.02);
    let sgd = Sgd::keras().learning_rate(0.1).momentum(0.9).nesterov(true);
    let adamw = Adam::adamw_keras().learning_rate(0.01).weight_decay(0.1);
    let gru = StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.02))
        .clip(Clip::GlobalNorm { norm: 0.3, form: Form::Keras });
    [
        ("lstm_rmsprop", StepOptions::new(Loss::binary_crossentropy(), rmsprop)),
        ("rnn_adam_clipnorm", StepOptions::new(Loss::sparse_categorical_crossentropy(), adam).clip(Clip::Norm(0.3))),
        ("gru_sgd_weights", StepOptions::new(Loss::mean_squared_error(), sgd)),
        (
            "stacked_adamw",
            StepOptions::new(Loss::huber(0.5), adamw).clip(Clip::GlobalNorm { norm: 1.0, form: Form::Keras }),
        ),
        ("accumulated", gru.clone().accumulate(2)),
        ("average", gru.average(Average::new(0.7).unwrap())),
    ]
}

/// Runs ten steps and returns their losses.
fn steps(case: &str, training: &mut Training, device: &Device) -> Vec<f32> {
    let [x, y] = ["x", "y"].map(|n| tensor(&array(case, n).unwrap(), device));
    let weights = array(case, "weights").map(|w| tensor(&w, device));
    let (inputs, targets) = ([&x], [&y]);
    let mut batch = Batch::new(&inputs, &targets);
    if let Some(w) = &weights {
        batch = batch.sample_weights(w);
    }
    if training.options().accumulate > 1 {
        // The samples come in halves, in turn.
        let n = x.dims()[0] / 2;
        let halves = [0, n].map(|at| [&x, &y].map(|t| t.slice(0, at..at + n).unwrap()));
        let mut loss = |[x, y]: &[Tensor; 2]| training.step(&Batch::new(&[x], &[y])).unwrap().loss.to_vec().unwrap()[0];
        let losses = (0..10).map(|step| loss(&halves[step % 2])).collect();
        return losses;
    }
    let losses = (0..10).map(|_| training.step(&batch).unwrap().loss.to_vec().unwrap()[0]).collect();
    training.use_averages();
    losses
}

/// Ten steps of each optimiser give Keras's losses and weights. The bound is 1e-5; Keras computes in f32 too.
#[test]
fn ten_steps_are_those_of_keras() {
    for device in devices() {
        for (case, options) in cases() {
            let mut training = Training::new(&network(case, "before", &device), options).unwrap();
            let losses = steps(case, &mut training, &device);
            let Some(HostData::Float(want)) = array(case, "losses").map(|a| a.data) else { panic!("{case}: losses") };
            compare(&losses, &wide(&want), Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{case} on {device}: {e}"));
            let after = network(case, "after", &device);
            let trained = training.network().unwrap();
            let mut moved = 0.0f64;
            for (name, want) in after.weights().iter() {
                let got = trained.weights().get(name).unwrap().to_vec().unwrap();
                let before = network(case, "before", &device).weights().get(name).unwrap().to_vec().unwrap();
                let want = wide(&want.to_vec().unwrap());
                compare(&got, &want, Tolerance::new(1e-5))
                    .unwrap_or_else(|e| panic!("{case} on {device}: {name}: {e}"));
                moved = want.iter().zip(&before).map(|(a, b)| (a - f64::from(*b)).abs()).fold(moved, f64::max);
            }
            // The weights before are not those after, so the comparison can fail.
            assert!(moved > 0.01, "{case}: {moved}");
        }
    }
}

/// Gradients that are applied by themselves make the step that `step` makes.
#[test]
fn gradients_out_and_in_are_a_step() {
    let device = Device::Cpu;
    for (case, options) in cases() {
        if case == "stacked_adamw" || case == "accumulated" {
            // Running means move in a step alone, and gradients that are applied are not added up.
            continue;
        }
        let mut whole = Training::new(&network(case, "before", &device), options.clone()).unwrap();
        let mut parts = Training::new(&network(case, "before", &device), options).unwrap();
        steps(case, &mut whole, &device);
        let [x, y] = ["x", "y"].map(|n| tensor(&array(case, n).unwrap(), &device));
        let weights = array(case, "weights").map(|w| tensor(&w, &device));
        let (inputs, targets) = ([&x], [&y]);
        let mut batch = Batch::new(&inputs, &targets);
        if let Some(w) = &weights {
            batch = batch.sample_weights(w);
        }
        for _ in 0..10 {
            let (_, gradients) = parts.gradients(&batch).unwrap();
            parts.apply_gradients(&gradients.iter().collect::<Vec<_>>()).unwrap();
        }
        parts.use_averages();
        let names: Vec<String> = whole.names().map(str::to_owned).collect();
        assert!(names.len() > 3, "{names:?}");
        for name in names {
            let [a, b] = [&whole, &parts].map(|t| t.weight(&name).unwrap().to_vec().unwrap());
            assert_eq!(a, b, "{case}: {name}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let device = Device::Cpu;
    let build = || {
        let lstm = Lstm::new(6).dropout(0.3).recurrent_dropout(0.2);
        Sequential::new().add(lstm).add(Dense::new(1)).seed(4).build(&[None, None, Some(3)], &device).unwrap()
    };
    let x = Tensor::rand_uniform(&[8, 5, 3], -1.0..1.0, 1, &device).unwrap();
    let y = Tensor::rand_uniform(&[8, 1], -1.0..1.0, 2, &device).unwrap();
    let run = |seed: u64| {
        let options = StepOptions::new(Loss::mean_squared_error(), Adam::keras()).seed(seed);
        let mut training = Training::new(&build(), options).unwrap();
        (0..5)
            .map(|_| training.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0].to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2), "another seed drops others");
    let first = run(1);
    assert!(first.windows(2).any(|w| w[0] != w[1]));
}

#[test]
fn bad_batches_are_refused_and_change_nothing() {
    let device = Device::Cpu;
    let network =
        Sequential::new().add(SimpleRnn::new(4)).add(Dense::new(2)).build(&[None, None, Some(3)], &device).unwrap();
    let options = StepOptions::new(Loss::mean_squared_error(), Optimizer::from(Sgd::keras()));
    let mut training = Training::new(&network, options.clone()).unwrap();
    let name = training.names().next().unwrap().to_owned();
    let before = training.weight(&name).unwrap().to_vec().unwrap();
    let x = Tensor::rand_uniform(&[4, 5, 3], -1.0..1.0, 1, &device).unwrap();
    let narrow = Tensor::rand_uniform(&[4, 5, 2], -1.0..1.0, 1, &device).unwrap();
    let y = Tensor::rand_uniform(&[4, 2], -1.0..1.0, 2, &device).unwrap();
    let few = Tensor::rand_uniform(&[3, 2], -1.0..1.0, 2, &device).unwrap();
    let mask = Tensor::from_u32(&[1; 20], &[4, 5], &device).unwrap();
    let lengths = Tensor::from_u32(&[5; 4], &[4], &device).unwrap();
    for (what, batch) in [
        ("features", Batch::new(&[&narrow], &[&y])),
        ("rows", Batch::new(&[&x], &[&few])),
        ("targets", Batch::new(&[&x], &[])),
        ("inputs", Batch::new(&[], &[&y])),
        ("mask", Batch::new(&[&x], &[&y]).mask(&mask).lengths(&lengths)),
    ] {
        assert!(training.step(&batch).is_err(), "{what}");
        assert_eq!(training.weight(&name).unwrap().to_vec().unwrap(), before, "{what}");
        assert_eq!(training.steps(), 0);
    }
    training.step(&Batch::new(&[&x], &[&y])).unwrap();
    assert_ne!(training.weight(&name).unwrap().to_vec().unwrap(), before);
    assert!(training.set_learning_rate(f64::NAN).is_err() && training.set_learning_rate(-1.0).is_err());
    assert!(training.apply_gradients(&[&y]).is_err());
    let mut two = options;
    two.losses = vec![Loss::mean_squared_error(); 2];
    assert!(Training::new(&network, two).is_err());
}
