//! Losses, optimisers, limits of gradients, learning rates and metrics beside Keras and PyTorch
//! (`golden/make_training.py`), on the CPU and on a GPU.

use recurve::{Device, Tensor};
use recurve_graph::{Array, Assembly, Data, Element, Executor, Graph, Int, IntArray, RunOptions, ValueId, ValueType};
use recurve_tests::{devices, fixtures};
use recurve_train::{
    Adagrad, Adam, Average, Clip, Error, Form, Lion, Loss, LossKind, LossReduction, Metric, MetricBatch, Optimizer,
    Parameter, Plateau, RmsProp, Schedule, Sgd, Targets, accumulated, check_labels, mean_of,
};
use serde_json::Value;
use std::sync::{Arc, LazyLock};

static FILE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("training.json")).unwrap()).unwrap()
});

fn list<'a>(v: &'a Value, name: &str) -> &'a [Value] {
    v[name].as_array().unwrap_or_else(|| panic!("{name}"))
}

fn text<'a>(v: &'a Value, name: &str) -> &'a str {
    v[name].as_str().unwrap_or_else(|| panic!("{name}"))
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("an array").iter().map(|n| n.as_f64().expect("a number")).collect()
}

fn array(v: &Value) -> Array {
    let dims: Vec<usize> = numbers(&v["dims"]).into_iter().map(|n| n as usize).collect();
    Array::new(&dims, numbers(&v["data"]))
}

fn narrow(a: &Array) -> Vec<f32> {
    a.data.iter().map(|&v| v as f32).collect()
}

fn tensor(a: &Array, device: &Device) -> Tensor {
    Tensor::from_f32(&narrow(a), &a.dims, device).unwrap()
}

fn near(what: &str, got: &[f64], want: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} numbers, not {}", got.len(), want.len()));
    }
    for (n, (g, w)) in got.iter().zip(want).enumerate() {
        // NaN does not agree.
        let agrees = (g - w).abs() <= tolerance * (1.0 + w.abs());
        if !agrees {
            return Err(format!("{what}: element {n} is {g}, not {w}"));
        }
    }
    Ok(())
}

/// The f64 values of a graph's outputs.
fn reference(graph: &Graph, inputs: &[Array]) -> Vec<Array> {
    let inputs: Vec<_> = inputs.iter().cloned().map(Some).collect();
    let all = graph.reference(&inputs, |_| None).unwrap();
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    let place = |id| ids.iter().position(|other| *other == id).expect("a value");
    graph.outputs().iter().map(|(_, id)| all[place(*id)].clone().expect("an output")).collect()
}

// --- losses ----------------------------------------------------------------------------------------------------------

/// A graph of a loss and its gradient, with the inputs of a case in their order.
struct LossCase {
    name: String,
    loss: Loss,
    inputs: Vec<(&'static str, Element, Array)>,
    want: [Vec<f64>; 2],
}

fn loss_of(case: &Value) -> Loss {
    let from_logits = case["from_logits"].as_bool().unwrap_or(false);
    let kind = match text(case, "kind") {
        "binary_crossentropy" => LossKind::BinaryCrossentropy { from_logits },
        "categorical_crossentropy" => LossKind::CategoricalCrossentropy { from_logits },
        "sparse_categorical_crossentropy" => LossKind::SparseCategoricalCrossentropy { from_logits },
        "mean_squared_error" => LossKind::MeanSquaredError,
        "mean_absolute_error" => LossKind::MeanAbsoluteError,
        "huber" => LossKind::Huber { delta: case["delta"].as_f64().unwrap() },
        other => panic!("{other}"),
    };
    let reduction = match text(case, "reduction") {
        "mean" => LossReduction::Mean,
        "weighted_mean" => LossReduction::WeightedMean,
        "sum" => LossReduction::Sum,
        other => panic!("{other}"),
    };
    let loss = Loss::new(kind).reduction(reduction).label_smoothing(case["label_smoothing"].as_f64().unwrap_or(0.0));
    match case.get("class_weights") {
        Some(w) => loss.class_weights(numbers(w).iter().map(|&v| v as f32).collect::<Vec<_>>()),
        None => loss,
    }
}

fn loss_cases() -> Vec<LossCase> {
    let cases = list(&FILE, "losses").iter().enumerate().map(|(n, case)| {
        let loss = loss_of(case);
        let sparse = matches!(loss.kind, LossKind::SparseCategoricalCrossentropy { .. });
        // Labels come as ids on the device, as whole numbers in host memory, and as floats.
        let labels = [Element::U32, Element::Int(Int::I64), Element::F32][n % 3];
        let mut inputs = vec![
            ("prediction", Element::F32, array(&case["prediction"])),
            ("target", if sparse { labels } else { Element::F32 }, array(&case["target"])),
        ];
        if case.get("weights").is_some() {
            inputs.push(("weights", Element::F32, array(&case["weights"])));
        }
        if case.get("mask").is_some() {
            let element = [Element::Bool, Element::U32, Element::F32][n % 3];
            inputs.push(("mask", element, array(&case["mask"])));
        }
        LossCase {
            name: format!("{} {}", text(case, "framework"), text(case, "name")),
            loss,
            inputs,
            want: [vec![case["loss"].as_f64().unwrap()], array(&case["gradient"]).data],
        }
    });
    cases.collect()
}

impl LossCase {
    fn graph(&self, loss: &Loss, open: bool) -> Result<Graph, Error> {
        let mut a = Assembly::new(false);
        let mut ids = Vec::new();
        for (name, element, array) in &self.inputs {
            let last = array.dims.len() - 1;
            let dim = |(n, &d): (usize, &usize)| if open && (n < last || last == 0) { None } else { Some(d) };
            let kind = ValueType::new(*element, array.dims.iter().enumerate().map(dim));
            ids.push((*name, a.input(name, kind, false)?));
        }
        let find = |name| ids.iter().find(|(n, _)| *n == name).map(|(_, id)| *id);
        let (prediction, target) = (find("prediction").unwrap(), find("target").unwrap());
        let loss = loss.add(&mut a, prediction, target, find("weights"), find("mask"))?;
        let gradient = a.gradients(loss, &[prediction])?[0].expect("the loss depends on it");
        Ok(a.finish(vec![("loss".into(), loss), ("gradient".into(), gradient)])?)
    }

    fn data(&self, device: &Device) -> Vec<Option<Data>> {
        let one = |(_, element, array): &(&str, Element, Array)| match element {
            Element::U32 => Tensor::from_u32(&array.ids(), &array.dims, device).unwrap().into(),
            Element::F32 => tensor(array, device).into(),
            _ => IntArray::new(&array.dims, array.data.iter().map(|&v| v as i64).collect::<Vec<_>>()).into(),
        };
        self.inputs.iter().map(|i| Some(one(i))).collect()
    }

    /// Compares the f64 reference with what is expected.
    fn check(&self, loss: &Loss, open: bool) -> Result<(), String> {
        let graph = self.graph(loss, open).map_err(|e| e.to_string())?;
        let arrays: Vec<Array> = self.inputs.iter().map(|(_, _, a)| a.clone()).collect();
        let got = reference(&graph, &arrays);
        // The fixture has 9 digits, of numbers of one rounding of f32 where probabilities are 0 and 1.
        let tolerance = if self.name.ends_with("f32") { 2e-2 } else { 1e-6 };
        let part = |n: usize| near(&self.name, &got[n].data, &self.want[n], tolerance);
        part(0).and_then(|()| if self.name.ends_with("f32") { Ok(()) } else { part(1) })
    }

    fn check_on(&self, device: &Device, open: bool) {
        let graph = Arc::new(self.graph(&self.loss, open).unwrap());
        let executor = Executor::new(graph, |_| None, device).unwrap();
        let outputs = executor.run_data(&self.data(device), &RunOptions::default()).unwrap();
        for (n, (output, want)) in outputs.iter().zip(&self.want).enumerate() {
            let got = output.as_ref().unwrap().to_f32(device).unwrap().to_vec().unwrap();
            let got: Vec<f64> = got.into_iter().map(f64::from).collect();
            // A loss is a few roundings of numbers around 1. 1 / p of a p that is kept 1e-7 from 1 has only few digits.
            let tolerance = if self.name.ends_with("f32") { 1e-4 } else { 1e-5 };
            near(&format!("{} on {device}, output {n}", self.name), &got, want, tolerance).unwrap();
        }
    }
}

#[test]
fn losses_and_their_gradients_are_those_of_the_frameworks() {
    let cases = loss_cases();
    assert!(cases.len() > 200, "{}", cases.len());
    for (n, case) in cases.iter().enumerate() {
        case.check(&case.loss, n % 2 == 1).unwrap();
        for device in devices() {
            case.check_on(&device, n % 2 == 1);
        }
    }
}

#[test]
fn wrong_readings_of_losses_are_noticed() {
    type Reading = fn(&Loss) -> Loss;
    let wrong: [(&str, Reading); 7] = [
        ("the mean over weights", |l| l.clone().reduction(LossReduction::WeightedMean)),
        ("the mean over all", |l| l.clone().reduction(LossReduction::Mean)),
        ("the sum", |l| l.clone().reduction(LossReduction::Sum)),
        ("no smoothing", |l| l.clone().label_smoothing(0.0)),
        ("no weights of classes", |l| {
            let mut changed = l.clone();
            changed.class_weights = None;
            changed
        }),
        ("logits", |l| l.clone().from_logits()),
        ("another delta", |l| {
            let mut changed = l.clone();
            if let LossKind::Huber { delta } = &mut changed.kind {
                *delta *= 1.1;
            }
            changed
        }),
    ];
    let cases = loss_cases();
    for (name, change) in wrong {
        let changed = cases.iter().filter(|c| change(&c.loss) != c.loss);
        let (mut noticed, mut all) = (0, 0);
        for case in changed {
            all += 1;
            noticed += usize::from(case.check(&change(&case.loss), false).is_err());
        }
        assert!(noticed > 0 && noticed * 3 >= all, "{name}: {noticed} of {all}");
    }
    // A mask that is left out, weights that are left out.
    for left_out in ["mask", "weights"] {
        let with = loss_cases().into_iter().filter(|c| c.inputs.iter().any(|(n, ..)| *n == left_out));
        let noticed = with.filter(|c| {
            let inputs = c.inputs.iter().filter(|(n, ..)| *n != left_out).cloned().collect();
            let c = LossCase { name: c.name.clone(), loss: c.loss.clone(), inputs, want: c.want.clone() };
            c.check(&c.loss, false).is_err()
        });
        assert!(noticed.count() > 20, "{left_out}");
    }
}

#[test]
fn what_is_masked_has_a_gradient_of_exactly_zero() {
    let masked = |c: &&LossCase| c.inputs.iter().any(|(n, ..)| *n == "mask");
    let cases = loss_cases();
    let mut whole = 0;
    for case in cases.iter().filter(masked) {
        let mask = &case.inputs.iter().find(|(n, ..)| *n == "mask").unwrap().2;
        let width = case.want[1].len() / mask.data.len();
        for device in devices() {
            let executor = Executor::new(Arc::new(case.graph(&case.loss, false).unwrap()), |_| None, &device).unwrap();
            let outputs = executor.run_data(&case.data(&device), &RunOptions::default()).unwrap();
            let read = |n: usize| outputs[n].as_ref().unwrap().to_f32(&device).unwrap().to_vec().unwrap();
            let (loss, gradient) = (read(0), read(1));
            for (row, m) in gradient.chunks(width).zip(&mask.data) {
                assert!(*m != 0.0 || row.iter().all(|g| *g == 0.0), "{}: {row:?}", case.name);
            }
            if mask.data.iter().all(|m| *m == 0.0) {
                assert_eq!(loss, [0.0], "{}", case.name);
                whole += 1;
            }
        }
    }
    assert!(whole > 20, "{whole}");
}

#[test]
fn a_label_that_is_no_class_is_an_error_or_nan() {
    let e = check_labels(&[0, 4, 5], 5).unwrap_err();
    assert!(matches!(e, Error::Label { index: 2, label: 5, classes: 5 }), "{e}");
    assert!(e.to_string().contains("0 to 4"), "{e}");
    assert!(check_labels(&[-1], 5).is_err() && check_labels(&[4, 0], 5).is_ok());
    for (labels, element) in [([0i64, 5], Element::U32), ([-1, 2], Element::Int(Int::I64)), ([1, 9], Element::F32)] {
        let mut a = Assembly::new(false);
        let p = a.input("p", ValueType::new(Element::F32, [2usize, 5]), false).unwrap();
        let y = a.input("y", ValueType::new(element, [2usize]), false).unwrap();
        let loss = Loss::sparse_categorical_crossentropy().from_logits().add(&mut a, p, y, None, None).unwrap();
        let graph = Arc::new(a.finish(vec![("loss".into(), loss)]).unwrap());
        for device in devices() {
            let p = Tensor::zeros(&[2, 5], recurve::DType::F32, &device).unwrap();
            let y: Data = match element {
                Element::U32 => Tensor::from_u32(&labels.map(|l| l as u32), &[2], &device).unwrap().into(),
                Element::F32 => Tensor::from_f32(&labels.map(|l| l as f32), &[2], &device).unwrap().into(),
                _ => IntArray::vector(labels).into(),
            };
            let executor = Executor::new(graph.clone(), |_| None, &device).unwrap();
            let out = executor.run_data(&[Some(p.into()), Some(y)], &RunOptions::default()).unwrap();
            let loss = out[0].as_ref().unwrap().to_f32(&device).unwrap().to_vec().unwrap();
            assert!(loss[0].is_nan(), "{labels:?} on {device}: {loss:?}");
        }
    }
}

#[test]
fn options_and_operands_of_losses_that_do_not_fit_are_named() {
    let refused = |loss: Loss, kinds: [ValueType; 2], weights: Option<ValueType>, mask: Option<ValueType>| {
        let mut a = Assembly::new(false);
        let [p, y] = kinds;
        let (p, y) = (a.input("p", p, false).unwrap(), a.input("y", y, false).unwrap());
        let weights = weights.map(|w| a.input("w", w, false).unwrap());
        let mask = mask.map(|m| a.input("m", m, false).unwrap());
        loss.add(&mut a, p, y, weights, mask).unwrap_err()
    };
    let f = |dims: &[usize]| ValueType::new(Element::F32, dims.iter().copied());
    let option = |loss: Loss, argument: &str| {
        let e = refused(loss, [f(&[2, 3]), f(&[2, 3])], None, None);
        assert!(matches!(&e, Error::Option { argument: a, .. } if *a == argument), "{e}");
    };
    option(Loss::huber(0.0), "delta");
    option(Loss::huber(f64::NAN), "delta");
    option(Loss::binary_crossentropy().label_smoothing(1.5), "label_smoothing");
    option(Loss::mean_squared_error().label_smoothing(0.1), "label_smoothing");
    option(Loss::mean_squared_error().class_weights([1.0]), "class_weights");
    option(Loss::categorical_crossentropy().class_weights([1.0, 2.0]), "class_weights");
    option(Loss::categorical_crossentropy().class_weights([1.0, f32::NAN, 2.0]), "class_weights");
    option(Loss::binary_crossentropy().class_weights([1.0, 2.0]), "class_weights");
    let operand = |e: Error, argument: &str| {
        assert!(matches!(&e, Error::Operand { argument: a, .. } if *a == argument), "{e}");
    };
    let mse = Loss::mean_squared_error;
    operand(refused(mse(), [f(&[2, 3]), f(&[2, 4])], None, None), "target");
    operand(refused(mse(), [f(&[2, 3]), f(&[3])], None, None), "target");
    operand(refused(mse(), [f(&[]), f(&[])], None, None), "prediction");
    operand(refused(mse(), [f(&[2, 3]), f(&[2, 3])], Some(f(&[3])), None), "weights");
    operand(refused(mse(), [f(&[2, 4, 3]), f(&[2, 4, 3])], Some(f(&[4])), None), "weights");
    operand(refused(mse(), [f(&[2, 4, 3]), f(&[2, 4, 3])], None, Some(f(&[2]))), "mask");
    let sparse = Loss::sparse_categorical_crossentropy;
    operand(refused(sparse(), [f(&[2, 3]), ValueType::new(Element::U32, [3usize])], None, None), "target");
    operand(refused(sparse(), [f(&[3]), ValueType::new(Element::U32, [3usize])], None, None), "prediction");
    let open = ValueType::new(Element::F32, [Some(2), None]);
    operand(refused(sparse(), [open, ValueType::new(Element::U32, [2usize])], None, None), "prediction");
}

/// One weight for each sequence counts for all of its timesteps.
#[test]
fn weights_of_sequences_are_repeated() {
    let (p, y) = ([1.0, 2.0, 3.0, 5.0], [0.0; 4]);
    for (reduction, want) in [
        (LossReduction::Sum, 0.5 * 5.0 + 2.0 * 34.0),
        (LossReduction::Mean, (0.5 * 5.0 + 2.0 * 34.0) / 4.0),
        (LossReduction::WeightedMean, (0.5 * 5.0 + 2.0 * 34.0) / 5.0),
    ] {
        let mut a = Assembly::new(false);
        let kind = || ValueType::new(Element::F32, [None, None, Some(1)]);
        let (x, t) = (a.input("p", kind(), false).unwrap(), a.input("y", kind(), false).unwrap());
        let w = a.input("w", ValueType::new(Element::F32, [None]), false).unwrap();
        let loss = Loss::mean_squared_error().reduction(reduction).add(&mut a, x, t, Some(w), None).unwrap();
        let graph = Arc::new(a.finish(vec![("loss".into(), loss)]).unwrap());
        for device in devices() {
            let t = |data: &[f32], dims: &[usize]| Some(Tensor::from_f32(data, dims, &device).unwrap().into());
            let inputs = [t(&p, &[2, 2, 1]), t(&y, &[2, 2, 1]), t(&[0.5, 2.0], &[2])];
            let executor = Executor::new(graph.clone(), |_| None, &device).unwrap();
            let out = executor.run_data(&inputs, &RunOptions::default()).unwrap();
            let got = out[0].as_ref().unwrap().to_f32(&device).unwrap().to_vec().unwrap();
            assert!((f64::from(got[0]) - want).abs() < 1e-4, "{reduction:?} on {device}: {got:?}, not {want}");
        }
    }
}

// --- optimisers ------------------------------------------------------------------------------------------------------

fn optimizer_of(case: &Value) -> Optimizer {
    let keras = text(case, "framework") == "keras";
    let o = &case["options"];
    let or = |name: &str, default: f64| o.get(name).map_or(default, |v| v.as_f64().unwrap());
    let flag = |name: &str| o.get(name).is_some_and(|v| v.as_bool().unwrap());
    let (rate, epsilon) = if keras { ("learning_rate", "epsilon") } else { ("lr", "eps") };
    let decay = |default: f64| or("weight_decay", default);
    match text(case, "name") {
        "sgd" => {
            let d = if keras { Sgd::keras() } else { Sgd::pytorch() };
            d.learning_rate(or(rate, d.learning_rate))
                .momentum(or("momentum", 0.0))
                .dampening(or("dampening", 0.0))
                .nesterov(flag("nesterov"))
                .weight_decay(decay(0.0))
                .into()
        }
        "rmsprop" => {
            let d = if keras { RmsProp::keras() } else { RmsProp::pytorch() };
            d.learning_rate(or(rate, d.learning_rate))
                .rho(or(if keras { "rho" } else { "alpha" }, d.rho))
                .momentum(or("momentum", 0.0))
                .epsilon(or(epsilon, d.epsilon))
                .centered(flag("centered"))
                .weight_decay(decay(0.0))
                .into()
        }
        name @ ("adam" | "adamw") => {
            let d = match (keras, name) {
                (true, "adam") => Adam::keras(),
                (true, _) => Adam::adamw_keras(),
                (false, "adam") => Adam::pytorch(),
                (false, _) => Adam::adamw_pytorch(),
            };
            let betas = o.get("betas").map(numbers);
            let beta = |n: usize, default: f64| match &betas {
                Some(b) => b[n],
                None => or(["beta_1", "beta_2"][n], default),
            };
            d.learning_rate(or(rate, d.learning_rate))
                .beta_1(beta(0, d.beta_1))
                .beta_2(beta(1, d.beta_2))
                .epsilon(or(epsilon, d.epsilon))
                .amsgrad(flag("amsgrad"))
                .weight_decay(decay(d.weight_decay))
                .into()
        }
        "adagrad" => {
            let d = if keras { Adagrad::keras() } else { Adagrad::pytorch() };
            d.learning_rate(or(rate, d.learning_rate))
                .initial_accumulator(or("initial_accumulator_value", d.initial_accumulator))
                .learning_rate_decay(or("lr_decay", 0.0))
                .epsilon(or(epsilon, d.epsilon))
                .weight_decay(decay(0.0))
                .into()
        }
        "lion" => {
            let d = Lion::keras();
            d.learning_rate(or(rate, d.learning_rate))
                .beta_1(or("beta_1", d.beta_1))
                .beta_2(or("beta_2", d.beta_2))
                .weight_decay(decay(0.0))
                .into()
        }
        other => panic!("{other}"),
    }
}

/// A graph of one step: inputs rates, gradients, parameters, states of each parameter; outputs parameters, states.
fn step_graph(optimizer: &Optimizer, shapes: &[Vec<usize>], clip: Option<Clip>) -> Graph {
    let mut a = Assembly::new(false);
    let rates = a.input("rates", ValueType::new(Element::F32, [8usize]), false).unwrap();
    let mut input = |name: String, dims: &[usize]| {
        a.input(&name, ValueType::new(Element::F32, dims.iter().copied()), false).unwrap()
    };
    let gradients: Vec<_> = shapes.iter().enumerate().map(|(n, s)| input(format!("g{n}"), s)).collect();
    let values: Vec<_> = shapes.iter().enumerate().map(|(n, s)| input(format!("w{n}"), s)).collect();
    let states: Vec<Vec<_>> = (shapes.iter().enumerate())
        .map(|(n, s)| optimizer.states().iter().map(|state| input(format!("{state}{n}"), s)).collect())
        .collect();
    let parameters: Vec<_> =
        (0..shapes.len()).map(|n| Parameter::new(values[n], gradients[n], states[n].clone())).collect();
    let updated = optimizer.add(&mut a, &parameters, rates, clip).unwrap();
    let mut outputs: Vec<(String, ValueId)> =
        updated.iter().enumerate().map(|(n, u)| (format!("w{n}"), u.value)).collect();
    for (n, u) in updated.iter().enumerate() {
        outputs.extend(u.states.iter().enumerate().map(|(k, id)| (format!("state {k} of {n}"), *id)));
    }
    a.finish(outputs).unwrap()
}

/// The weights after the steps of the fixture.
fn steps(optimizer: &Optimizer, device: &Device) -> Vec<Vec<f64>> {
    let start: Vec<Array> = list(&FILE, "start").iter().map(array).collect();
    let shapes: Vec<Vec<usize>> = start.iter().map(|w| w.dims.clone()).collect();
    let executor = Executor::new(Arc::new(step_graph(optimizer, &shapes, None)), |_| None, device).unwrap();
    let mut state: Vec<Option<Data>> = start.iter().map(|w| Some(tensor(w, device).into())).collect();
    for w in &start {
        let initial = || Tensor::full(&w.dims, optimizer.initial_state(), recurve::DType::F32, device).unwrap();
        state.extend(optimizer.states().iter().map(|_| Some(Data::from(initial()))));
    }
    for (n, gradients) in list(&FILE, "gradients").iter().enumerate() {
        let first = optimizer.learning_rate();
        let rates = optimizer.rates(if n < 5 { first } else { first / 2.0 }, n as u64 + 1).unwrap();
        let mut inputs = vec![Some(Tensor::from_f32(&rates, &[8], device).unwrap().into())];
        inputs.extend(gradients.as_array().unwrap().iter().map(|g| Some(Data::from(tensor(&array(g), device)))));
        inputs.append(&mut state);
        executor.run_into(&mut inputs, &RunOptions::default(), &mut state).unwrap();
    }
    let read = |d: &Option<Data>| d.as_ref().unwrap().to_f32(device).unwrap().to_vec().unwrap();
    state[..start.len()].iter().map(|d| read(d).into_iter().map(f64::from).collect()).collect()
}

fn check_steps(optimizer: &Optimizer, case: &Value, device: &Device) -> Result<(), String> {
    let name = format!("{} {} {} on {device}", text(case, "framework"), text(case, "name"), case["options"]);
    let want = list(case, "weights").iter().map(array);
    steps(optimizer, device).iter().zip(want).try_for_each(|(got, want)| near(&name, got, &want.data, 1e-5))
}

#[test]
fn ten_steps_of_optimisers_give_the_weights_of_the_frameworks() {
    let cases = list(&FILE, "optimizers");
    assert!(cases.len() > 30);
    for case in cases {
        for device in devices() {
            check_steps(&optimizer_of(case), case, &device).unwrap();
        }
    }
}

#[test]
fn wrong_readings_of_optimisers_are_noticed() {
    let other = |form: Form| if form == Form::Keras { Form::Pytorch } else { Form::Keras };
    // Each option that is not the default has to matter, and so has the form.
    for case in list(&FILE, "optimizers") {
        let right = optimizer_of(case);
        let mut wrong: Vec<Optimizer> = Vec::new();
        match right {
            Optimizer::Sgd(o) if o.momentum > 0.0 => {
                let mut changed = o.nesterov(!o.nesterov && o.dampening == 0.0);
                wrong.push(changed.into());
                (changed, changed.form) = (o.dampening(0.0), other(o.form));
                wrong.push(changed.into());
            }
            Optimizer::RmsProp(o) => {
                wrong.extend([o.centered(!o.centered), o.rho(o.rho - 0.1)].map(Optimizer::from));
                if o.epsilon > 1e-3 {
                    let mut changed = o;
                    changed.form = other(o.form);
                    wrong.push(changed.into());
                }
            }
            Optimizer::Adam(o) => {
                wrong.extend([o.beta_1(o.beta_1 - 0.1), o.beta_2(o.beta_2 - 0.2)].map(Optimizer::from));
                if o.weight_decay > 0.01 && o.form == Form::Pytorch {
                    let mut changed = o;
                    changed.decoupled = !o.decoupled;
                    wrong.push(changed.into());
                }
            }
            Optimizer::Adagrad(o) => {
                wrong.push(o.initial_accumulator(o.initial_accumulator + 0.1).into());
                wrong.push(o.learning_rate_decay(o.learning_rate_decay + 0.1).into());
            }
            Optimizer::Lion(o) => wrong.push(o.beta_1(0.2).into()),
            _ => {}
        }
        wrong.retain(|o| *o != right);
        for wrong in wrong {
            assert!(check_steps(&wrong, case, &Device::Cpu).is_err(), "{wrong:?} passes for {case}");
        }
    }
}

/// A step writes over what nothing else needs, and never over what the caller still has.
#[test]
fn a_step_leaves_what_others_have() {
    let optimizer: Optimizer = Adam::keras().amsgrad(true).weight_decay(0.1).into();
    let shapes = [vec![300], vec![2, 3]];
    for device in devices() {
        let executor = Executor::new(Arc::new(step_graph(&optimizer, &shapes, None)), |_| None, &device).unwrap();
        let t = |v: f32, dims: &[usize]| Tensor::full(dims, v, recurve::DType::F32, &device).unwrap();
        let rates = Tensor::from_f32(&optimizer.rates(0.1, 1).unwrap(), &[8], &device).unwrap();
        let mut inputs: Vec<Option<Data>> = vec![Some(rates.into())];
        inputs.extend(shapes.iter().map(|s| Some(t(0.5, s).into())));
        inputs.extend(shapes.iter().map(|s| Some(t(1.0, s).into())));
        // The states of a parameter are one tensor.
        for s in &shapes {
            let zero = t(0.0, s);
            inputs.extend((0..3).map(|_| Some(Data::from(zero.clone()))));
        }
        let kept: Vec<Tensor> = inputs.iter().flatten().map(|d| d.as_tensor().unwrap().clone()).collect();
        let before: Vec<Vec<f32>> = kept.iter().map(|t| t.to_vec().unwrap()).collect();
        let first = executor.run_data(&inputs, &RunOptions::default()).unwrap();
        for (t, before) in kept.iter().zip(&before) {
            assert_eq!(&t.to_vec().unwrap(), before, "{device}");
        }
        drop(kept);
        // The same run with memory of its own has the same result.
        let copies = before
            .iter()
            .zip(&inputs)
            .map(|(data, d)| Some(Data::from(Tensor::from_f32(data, d.as_ref().unwrap().dims(), &device).unwrap())));
        let mut own: Vec<Option<Data>> = copies.collect();
        let mut second = Vec::new();
        executor.run_into(&mut own, &RunOptions::default(), &mut second).unwrap();
        let read = |d: &Option<Data>| d.as_ref().unwrap().as_tensor().unwrap().to_vec().unwrap();
        for (a, b) in first.iter().zip(&second) {
            assert_eq!(read(a), read(b), "{device}");
        }
        assert!(read(&second[0]).iter().all(|w| *w < 0.95 && *w > 0.85), "{:?}", &read(&second[0])[..3]);
    }
}

#[test]
fn options_and_operands_of_optimisers_that_do_not_fit_are_named() {
    let bad: [(Optimizer, &str); 12] = [
        (Sgd::keras().learning_rate(f64::NAN).into(), "learning_rate"),
        (Sgd::keras().learning_rate(-0.1).into(), "learning_rate"),
        (Sgd::keras().momentum(1.0).into(), "momentum"),
        (Sgd::keras().dampening(0.5).into(), "dampening"),
        (Sgd::pytorch().nesterov(true).into(), "nesterov"),
        (RmsProp::keras().rho(-0.1).into(), "rho"),
        (RmsProp::keras().epsilon(f64::INFINITY).into(), "epsilon"),
        (Adam::keras().beta_1(1.0).into(), "beta_1"),
        (Adam::pytorch().beta_2(f64::NAN).into(), "beta_2"),
        (Adam::keras().weight_decay(-1.0).into(), "weight_decay"),
        (Adagrad::keras().initial_accumulator(-1.0).into(), "initial_accumulator"),
        (Lion::keras().beta_2(1.5).into(), "beta_2"),
    ];
    for (optimizer, argument) in bad {
        let e = optimizer.check().unwrap_err();
        assert!(matches!(&e, Error::Option { argument: a, .. } if *a == argument), "{e}");
        assert_eq!(optimizer.rates(0.1, 1).unwrap_err().to_string(), e.to_string());
    }
    let adam: Optimizer = Adam::keras().into();
    for (rate, step, argument) in
        [(f64::NAN, 1, "learning_rate"), (f64::INFINITY, 1, "learning_rate"), (0.1, 0, "step")]
    {
        let e = adam.rates(rate, step).unwrap_err();
        assert!(matches!(&e, Error::Option { argument: a, .. } if *a == argument), "{e}");
    }
    let mut a = Assembly::new(false);
    let mut input =
        |name: &str, dims: &[usize]| a.input(name, ValueType::new(Element::F32, dims.iter().copied()), false).unwrap();
    let (rates, w, v, g) = (input("rates", &[8]), input("w", &[3]), input("v", &[4]), input("g", &[3]));
    let mut refused = |p: Parameter| adam.add(&mut a, &[p], rates, None).unwrap_err();
    let operand = |e: Error, argument: &str| {
        assert!(matches!(&e, Error::Operand { argument: a, .. } if *a == argument), "{e}");
    };
    operand(refused(Parameter::new(w, v, [g, g])), "gradient");
    operand(refused(Parameter::new(w, g, [g, v])), "states");
    operand(refused(Parameter::new(w, g, [g])), "states");
}

#[test]
fn parameters_may_be_left_out_of_the_decay() {
    let optimizer: Optimizer = Sgd::keras().weight_decay(0.5).into();
    let mut a = Assembly::new(false);
    let mut input =
        |name: &str, dims: &[usize]| a.input(name, ValueType::new(Element::F32, dims.iter().copied()), false).unwrap();
    let (rates, w, g) = (input("rates", &[8]), input("w", &[1]), input("g", &[1]));
    let parameters = [Parameter::new(w, g, []), Parameter::new(w, g, []).decays(false)];
    let updated = optimizer.add(&mut a, &parameters, rates, None).unwrap();
    let graph = a.finish(updated.iter().enumerate().map(|(n, u)| (n.to_string(), u.value)).collect()).unwrap();
    let rates = optimizer.rates(0.1, 1).unwrap().map(f64::from).to_vec();
    let one = |v: f64| Array::new(&[1], vec![v]);
    let got = reference(&graph, &[Array::new(&[8], rates), one(2.0), one(1.0)]);
    near("decay", &[got[0].data[0], got[1].data[0]], &[2.0 * 0.95 - 0.1, 1.9], 1e-6).unwrap();
}

// --- limits, averages, accumulation ----------------------------------------------------------------------------------

fn clip_of(case: &Value) -> Clip {
    let limit = case["limit"].as_f64().unwrap();
    match text(case, "kind") {
        "clipvalue" => Clip::Value(limit),
        "clipnorm" => Clip::Norm(limit),
        "global_clipnorm" => Clip::GlobalNorm { norm: limit, form: Form::Keras },
        "clip_grad_norm_" => Clip::GlobalNorm { norm: limit, form: Form::Pytorch },
        other => panic!("{other}"),
    }
}

fn clipped(clip: Clip, gradients: &[Array], device: &Device) -> Vec<Vec<f64>> {
    let mut a = Assembly::new(false);
    let kinds = gradients.iter().map(|g| ValueType::new(Element::F32, g.dims.iter().copied()));
    let ids: Vec<_> = kinds.enumerate().map(|(n, kind)| a.input(&format!("g{n}"), kind, false).unwrap()).collect();
    let out = clip.add(&mut a, &ids).unwrap();
    let graph = a.finish(out.iter().enumerate().map(|(n, id)| (n.to_string(), *id)).collect()).unwrap();
    let executor = Executor::new(Arc::new(graph), |_| None, device).unwrap();
    let inputs: Vec<Option<Data>> = gradients.iter().map(|g| Some(tensor(g, device).into())).collect();
    let out = executor.run_data(&inputs, &RunOptions::default()).unwrap();
    let read = |d: &Option<Data>| d.as_ref().unwrap().to_f32(device).unwrap().to_vec().unwrap();
    out.iter().map(|d| read(d).into_iter().map(f64::from).collect()).collect()
}

#[test]
fn gradients_are_limited_as_in_the_frameworks() {
    for case in list(&FILE, "clips") {
        let gradients: Vec<Array> = list(case, "gradients").iter().map(array).collect();
        let want: Vec<Array> = list(case, "clipped").iter().map(array).collect();
        let agrees = |clip: Clip, device: &Device| {
            let got = clipped(clip, &gradients, device);
            let name = format!("{clip:?} on {device}");
            got.iter().zip(&want).try_for_each(|(got, want)| near(&name, got, &want.data, 1e-6))
        };
        for device in devices() {
            agrees(clip_of(case), &device).unwrap();
        }
        if case["limit"] == 0.5 && gradients[0].data.iter().any(|g| *g != 0.0) {
            let others = [Clip::Value(0.5), Clip::Norm(0.5), Clip::GlobalNorm { norm: 0.5, form: Form::Keras }];
            let agree = others.into_iter().filter(|c| agrees(*c, &Device::Cpu).is_ok()).count();
            assert!(agree <= 1, "the kinds cannot be told apart");
        }
    }
    assert!(Clip::Norm(f64::NAN).check().is_err() && Clip::Value(0.0).check().is_err());
    let bad = Array::new(&[2], vec![f64::INFINITY, 1.0]);
    let all =
        clipped(Clip::GlobalNorm { norm: 1.0, form: Form::Keras }, &[bad, Array::new(&[1], vec![1.0])], &Device::Cpu);
    assert!(all.iter().flatten().all(|v| v.is_nan()), "{all:?}");
}

#[test]
fn averages_and_accumulated_gradients_are_those_of_keras() {
    let start: Vec<Array> = list(&FILE, "start").iter().map(array).collect();
    let momentum = FILE["average"]["momentum"].as_f64().unwrap();
    let average = Average::new(momentum).unwrap();
    let rate = |n: usize| if n < 5 { 0.01 } else { 0.005 };
    for (p, start) in start.iter().enumerate() {
        let kind = || ValueType::new(Element::F32, start.dims.iter().copied());
        let mut a = Assembly::new(false);
        let inputs = ["average", "w", "sum", "g"].map(|n| a.input(n, kind(), false).unwrap());
        let part = a.input("rate", ValueType::new(Element::F32, [1usize]), false).unwrap();
        let moved = Average::add(&mut a, inputs[0], inputs[1], part).unwrap();
        let sum = accumulated(&mut a, inputs[2], inputs[3]).unwrap();
        let mean = mean_of(&mut a, sum, 5).unwrap();
        assert!(mean_of(&mut a, sum, 0).is_err());
        let graph =
            a.finish(["average", "sum", "mean"].map(String::from).into_iter().zip([moved, sum, mean]).collect());
        let graph = graph.unwrap();
        let run = |average: &[f64], w: &[f64], sum: &[f64], g: &[f64], rate: f32| {
            let of = |v: &[f64]| Array::new(&start.dims, v.to_vec());
            reference(&graph, &[of(average), of(w), of(sum), of(g), Array::new(&[1], vec![rate.into()])])
        };
        let zero = vec![0.0; start.data.len()];
        let (mut w, mut averaged) = (start.data.clone(), zero.clone());
        let (mut rarely, mut sum) = (start.data.clone(), zero.clone());
        for (n, g) in list(&FILE, "gradients").iter().enumerate() {
            let g = array(&g[p]).data;
            w.iter_mut().zip(&g).for_each(|(w, g)| *w -= rate(n) * g);
            let out = run(&averaged, &w, &sum, &g, average.rate(n as u64 + 1));
            averaged = out[0].data.clone();
            sum = out[1].data.clone();
            if n % 5 == 4 {
                rarely.iter_mut().zip(&out[2].data).for_each(|(w, g)| *w -= rate(n) * g);
                sum = zero.clone();
            }
        }
        near("average", &averaged, &array(&FILE["average"]["averages"][p]).data, 1e-6).unwrap();
        near("accumulated", &rarely, &array(&FILE["accumulated"][p]).data, 1e-6).unwrap();
        assert!(near("average", &w, &array(&FILE["average"]["averages"][p]).data, 1e-6).is_err());
    }
    assert!(Average::new(1.0).is_err() && Average::new(f64::NAN).is_err());
}

// --- learning rates --------------------------------------------------------------------------------------------------

#[test]
fn learning_rates_are_those_of_the_frameworks() {
    let mut seen = Vec::new();
    for case in list(&FILE, "schedules") {
        let schedule: Schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        schedule.check().unwrap();
        let got: Vec<f64> = (0..60).map(|n| schedule.at(n)).collect();
        // Keras computes in f32.
        near(&case["schedule"].to_string(), &got, &numbers(&case["values"]), 2e-6).unwrap();
        let late: Vec<f64> = (1..61).map(|n| schedule.at(n)).collect();
        assert!(near("one step late", &late, &numbers(&case["values"]), 2e-6).is_err());
        seen.push(schedule);
    }
    assert!(seen.len() >= 10);
    assert_eq!(Schedule::Constant(0.1).at(7), 0.1);
    let cosine = |steps, initial| Schedule::Cosine { initial, steps, alpha: 0.0 };
    let bad = [
        Schedule::Constant(f64::NAN),
        Schedule::Step { initial: 0.1, factor: 0.5, every: 0 },
        Schedule::Piecewise { boundaries: vec![3, 2], values: vec![1.0, 2.0, 3.0] },
        Schedule::Piecewise { boundaries: vec![3], values: vec![1.0] },
        Schedule::Exponential { initial: 0.1, rate: -1.0, steps: 3, staircase: false },
        Schedule::WarmUp { initial: 0.0, steps: 5, then: Box::new(cosine(0, 0.1)) },
        Schedule::CosineRestarts { initial: 0.1, steps: 4, length: 0.5, height: 1.0, alpha: 0.0 },
        cosine(3, f64::INFINITY),
    ];
    assert!(bad.iter().all(|s| matches!(s.check(), Err(Error::Option { .. }))));
}

#[test]
fn plateaus_are_those_of_the_frameworks() {
    for case in list(&FILE, "plateaus") {
        let keras = text(case, "framework") == "keras";
        let rates = |keras: bool, cooldown: u32| {
            let mut plateau = if keras { Plateau::keras() } else { Plateau::pytorch() };
            (plateau.factor, plateau.patience, plateau.cooldown, plateau.least) = (0.5, 2, cooldown, 0.1);
            plateau.check().unwrap();
            let mut rate = 1.0;
            let observed = numbers(&case["observed"]);
            observed
                .into_iter()
                .map(|v| {
                    rate = plateau.observe(v, rate);
                    rate
                })
                .collect::<Vec<_>>()
        };
        let cooldown = case["cooldown"].as_u64().unwrap() as u32;
        let want = numbers(&case["rates"]);
        near(&format!("{keras} {cooldown}"), &rates(keras, cooldown), &want, 1e-6).unwrap();
        assert!(near("the other", &rates(!keras, cooldown), &want, 1e-6).is_err());
    }
    let mut plateau = Plateau::keras();
    plateau.patience = 1;
    assert_eq!(plateau.observe(f64::NAN, 1.0), 0.1, "NaN is no improvement");
    plateau.factor = 1.0;
    assert!(plateau.check().is_err());
}

// --- metrics ---------------------------------------------------------------------------------------------------------

fn metric_value(metric: Metric, case: &Value, weighted: bool, masked: bool) -> f64 {
    let mut state = metric.start().unwrap();
    for batch in list(case, "batches") {
        let (p, y) = (array(&batch["prediction"]), array(&batch["target"]));
        let (width, predictions) = (p.dims[1], narrow(&p));
        let (values, labels): (Vec<f32>, Vec<i64>) = (narrow(&y), y.data.iter().map(|&v| v as i64).collect());
        let targets = if y.dims.len() == 1 { Targets::Labels(&labels) } else { Targets::Values(&values) };
        let weights = batch["weights"].is_object().then(|| narrow(&array(&batch["weights"])));
        let mask: Option<Vec<bool>> = weights.as_ref().map(|w| w.iter().map(|v| *v != 0.0).collect());
        let mut given = MetricBatch::new(&predictions, width, targets);
        if let Some(w) = weights.as_ref().filter(|_| weighted) {
            given = given.weights(w);
        }
        if let Some(m) = mask.as_ref().filter(|_| masked) {
            given = given.mask(m);
        }
        state.update(&given).unwrap();
    }
    let value = state.result();
    state.reset();
    assert_eq!(state, metric.start().unwrap());
    value
}

#[test]
fn metrics_are_those_of_keras() {
    let (mut seen, mut noticed) = (0, 0);
    for case in list(&FILE, "metrics") {
        let metric: Metric = serde_json::from_value(case["metric"].clone()).unwrap();
        let want = case["value"].as_f64().unwrap();
        let name = case["metric"].to_string();
        let agrees = |got: f64| near(&name, &[got], &[want], 1e-6);
        agrees(metric_value(metric, case, true, false)).unwrap();
        // A row of weight 0 and a row that is masked are the same.
        agrees(metric_value(metric, case, true, true)).unwrap();
        if case["batches"][0]["weights"].is_object() {
            seen += 1;
            noticed += usize::from(agrees(metric_value(metric, case, false, false)).is_err());
        }
    }
    assert!(seen > 20 && noticed * 10 >= seen * 9, "weights mattered in {noticed} of {seen}");
}

/// The parts of means that a graph computes add up to the same.
#[test]
fn metrics_as_nodes_of_a_graph_are_the_same() {
    let mut seen = 0;
    for case in list(&FILE, "metrics") {
        let metric: Metric = serde_json::from_value(case["metric"].clone()).unwrap();
        for device in devices() {
            let mut state = metric.start().unwrap();
            let mut means = 0;
            for (n, batch) in list(case, "batches").iter().enumerate() {
                let (p, y) = (array(&batch["prediction"]), array(&batch["target"]));
                let labels = y.dims.len() == 1;
                let mut a = Assembly::new(false);
                let mut input = |name: &str, element: Element, dims: &[usize]| {
                    let open = |&d: &usize| if n == 1 && d == 6 { None } else { Some(d) };
                    a.input(name, ValueType::new(element, dims.iter().map(open)), false).unwrap()
                };
                let x = input("p", Element::F32, &p.dims);
                let t = input("y", if labels { Element::U32 } else { Element::F32 }, &y.dims);
                let mut data: Vec<Option<Data>> = vec![Some(tensor(&p, &device).into())];
                data.push(Some(match labels {
                    true => Tensor::from_u32(&y.ids(), &y.dims, &device).unwrap().into(),
                    false => tensor(&y, &device).into(),
                }));
                let weights = batch["weights"].is_object().then(|| array(&batch["weights"]));
                let (mut w, mut m) = (None, None);
                if let Some(weights) = &weights {
                    w = Some(input("w", Element::F32, &weights.dims));
                    m = Some(input("m", Element::Bool, &weights.dims));
                    let mask: Vec<i64> = weights.data.iter().map(|v| i64::from(*v != 0.0)).collect();
                    data.extend([Some(tensor(weights, &device).into()), Some(IntArray::vector(mask).into())]);
                }
                let Some(sums) = metric.add(&mut a, x, Some(t), w, m).unwrap() else { continue };
                let graph = Arc::new(a.finish(vec![("sums".into(), sums)]).unwrap());
                let executor = Executor::new(graph, |_| None, &device).unwrap();
                let out = executor.run_data(&data, &RunOptions::default()).unwrap();
                let sums = out[0].as_ref().unwrap().to_f32(&device).unwrap().to_vec().unwrap();
                state.add(sums[0].into(), sums[1].into()).unwrap();
                means += 1;
            }
            if means > 0 {
                let want = case["value"].as_f64().unwrap();
                near(&format!("{metric:?} on {device}"), &[state.result()], &[want], 1e-5).unwrap();
            }
            seen += means;
        }
    }
    assert!(seen >= 2 * 3 * 10, "{seen}");
    let mut a = Assembly::new(false);
    let p = a.input("p", ValueType::new(Element::F32, [2usize, 3]), false).unwrap();
    let y = a.input("y", ValueType::new(Element::F32, [2usize, 4]), false).unwrap();
    for target in [None, Some(y)] {
        let e = Metric::CategoricalAccuracy.add(&mut a, p, target, None, None).unwrap_err();
        assert!(matches!(e, Error::Operand { argument: "target", .. }), "{e}");
    }
}

#[test]
fn metrics_of_nothing_and_of_what_does_not_fit() {
    let all = [
        Metric::binary_accuracy(),
        Metric::CategoricalAccuracy,
        Metric::SparseCategoricalAccuracy,
        Metric::TopKCategoricalAccuracy { k: 2 },
        Metric::precision(),
        Metric::recall(),
        Metric::F1 { threshold: None, averaging: recurve_train::Averaging::Macro },
        Metric::auc(),
        Metric::MeanSquaredError,
        Metric::MeanAbsoluteError,
        Metric::RootMeanSquaredError,
        Metric::Perplexity { from_logits: true },
        Metric::Mean,
    ];
    let p = [0.1, 0.9, 0.4, 0.6];
    for metric in all {
        let mut state = metric.start().unwrap();
        assert_eq!(state.result(), 0.0, "{metric:?}");
        let labels = matches!(metric, Metric::SparseCategoricalAccuracy | Metric::Perplexity { .. });
        let targets = if labels { Targets::Labels(&[1, 0]) } else { Targets::Values(&[0.0, 1.0, 0.0, 1.0]) };
        let batch = MetricBatch::new(&p, 2, targets);
        state.update(&batch.mask(&[false, false])).unwrap();
        assert_eq!(state.result(), 0.0, "{metric:?}");
        let before = state.clone();
        assert!(state.update(&MetricBatch::new(&p, 3, targets)).is_err(), "{metric:?}");
        assert!(state.update(&batch.weights(&[1.0])).is_err(), "{metric:?}");
        assert!(state.update(&batch.mask(&[true; 3])).is_err(), "{metric:?}");
        if metric != Metric::Mean {
            assert!(state.update(&MetricBatch::new(&p, 2, Targets::Values(&[1.0]))).is_err(), "{metric:?}");
        }
        assert_eq!(state, before, "{metric:?}: nothing is added");
    }
    let mut state = Metric::SparseCategoricalAccuracy.start().unwrap();
    let batch = MetricBatch::new(&p, 2, Targets::Labels(&[1, 7]));
    let e = state.update(&batch).unwrap_err();
    assert!(matches!(e, Error::Label { index: 1, label: 7, classes: 2 }), "{e}");
    state.update(&batch.mask(&[true, false])).unwrap();
    assert_eq!(state.result(), 1.0);
    state.add(1.0, 3.0).unwrap();
    assert_eq!(state.result(), 0.5);
    assert!(Metric::auc().start().unwrap().add(1.0, 1.0).is_err());
    assert!(Metric::TopKCategoricalAccuracy { k: 0 }.start().is_err());
    assert!(Metric::Precision { threshold: f32::NAN }.start().is_err());
}
