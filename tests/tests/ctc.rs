//! CTC losses beside PyTorch and Keras (`golden/make_ctc.py`), on the CPU and on a GPU.

use recurve::{Dense, Device, Lstm, Sequential, Tensor};
use recurve_graph::ops::Ctc;
use recurve_graph::{
    Array, Assembly, Data, Element, Executor, Graph, GraphBuilder, Int, IntArray, RunOptions, ValueType,
};
use recurve_tensor::{CtcRule, DType};
use recurve_tests::gradients::{Operand, check_graph};
use recurve_tests::{Random, devices, fixtures, own_gpu};
use recurve_train::{Adam, Batch, CtcTargets, Error, Form, Loss, LossKind, LossReduction, StepOptions, Training};
use serde_json::Value;
use std::sync::Arc;

struct Case {
    name: String,
    loss: Loss,
    /// The values, in place of one number.
    unreduced: bool,
    x: Array,
    targets: CtcTargets,
    lengths: Option<Vec<u32>>,
    weights: Option<Vec<f64>>,
    want: [Array; 2],
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or_else(|| v.as_str().expect("a number or its name").parse().expect("a number"))
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("an array").iter().map(number).collect()
}

fn array(v: &Value) -> Array {
    let dims: Vec<usize> = numbers(&v["dims"]).into_iter().map(|n| n as usize).collect();
    Array::new(&dims, numbers(&v["data"]))
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(fixtures().join("ctc.json")).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let case = |c: &Value| {
        let form = if c["framework"] == "keras" { Form::Keras } else { Form::Pytorch };
        let blank = c["blank"].as_u64().unwrap() as usize;
        let [from_logits, zero_infinity] = ["from_logits", "zero_infinity"].map(|n| c[n].as_bool().unwrap());
        let reduction = if c["reduction"] == "mean" { LossReduction::Mean } else { LossReduction::Sum };
        let labels: Vec<Vec<i64>> =
            c["labels"].as_array().unwrap().iter().map(|l| numbers(l).iter().map(|&v| v as i64).collect()).collect();
        let counts: Vec<usize> = labels.iter().map(Vec::len).collect();
        Case {
            name: format!("{} {}", c["framework"].as_str().unwrap(), c["name"].as_str().unwrap()),
            loss: Loss::new(LossKind::Ctc { blank, from_logits, zero_infinity, form }).reduction(reduction),
            unreduced: c["reduction"] == "none",
            x: array(&c["x"]),
            targets: CtcTargets::concatenated(&labels.concat(), &counts).unwrap(),
            lengths: c["lengths"].as_array().map(|l| l.iter().map(|v| v.as_u64().unwrap() as u32).collect()),
            weights: c["weights"].as_array().map(|w| w.iter().map(number).collect()),
            want: [array(&c["loss"]), array(&c["gradient"])],
        }
    };
    all.iter().map(case).collect()
}

/// Whether two numbers agree; infinities and NaN only with themselves.
fn agree(got: f64, want: f64, tolerance: f64) -> bool {
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance * (1.0 + want.abs())
}

fn near(what: &str, got: &[f64], want: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} numbers, not {}", got.len(), want.len()));
    }
    match got.iter().zip(want).position(|(g, w)| !agree(*g, *w, tolerance)) {
        Some(n) => Err(format!("{what}: element {n} is {}, not {}", got[n], want[n])),
        None => Ok(()),
    }
}

impl Case {
    fn blank(&self) -> usize {
        let LossKind::Ctc { blank, .. } = self.loss.kind else { panic!("a CTC loss") };
        blank
    }

    /// Value, gradient of the sum of it, and labels in one of the forms that a loss takes.
    fn graph(&self, loss: &Loss, labels: Element, open: bool) -> Result<Graph, Error> {
        let mut a = Assembly::new(false);
        let dims = |dims: &[usize]| dims.iter().map(|&d| (!open).then_some(d)).collect::<Vec<_>>();
        let [batch, timesteps, classes] = self.x.dims[..] else { panic!("three dimensions") };
        let shape = dims(&[batch, timesteps]).into_iter().chain([Some(classes)]);
        let x = a.input("x", ValueType::new(DType::F32, shape), false)?;
        let most = self.targets.lengths().iter().copied().max().unwrap().max(1);
        let y = a.input("y", ValueType::new(labels, dims(&[batch, most])), false)?;
        let mut lengths = None;
        if self.lengths.is_some() {
            lengths = Some(a.input("lengths", ValueType::new(Element::U32, dims(&[batch])), false)?);
        }
        let value = match self.unreduced {
            true => loss.unreduced(&mut a, x, y, lengths)?,
            false => loss.add(&mut a, x, y, None, lengths)?,
        };
        let mut total = value;
        if self.unreduced {
            let weights = self.weights.clone().unwrap_or_else(|| vec![1.0; batch]);
            let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
            let w = a.constant("weights", &[batch], recurve_graph::Constant::Float(weights.into()))?;
            let mul = Arc::new(recurve_graph::ops::Binary::Mul);
            let weighted = a.derived("weighted", mul, &[Some(value), Some(w)], 1)?[0];
            let all = recurve_graph::ops::ReduceOver {
                reduction: recurve_tensor::Reduction::Sum,
                axes: vec![],
                keep_dims: false,
                noop: false,
                int: None,
            };
            total = a.derived("total", Arc::new(all), &[Some(weighted)], 1)?[0];
        }
        let gradient = a.gradients(total, &[x])?[0].expect("the loss depends on it");
        Ok(a.finish(vec![("loss".into(), value), ("gradient".into(), gradient)])?)
    }

    fn labels(&self) -> Array {
        let t = self.targets.tensor(self.blank(), &Device::Cpu).unwrap();
        Array::new(t.dims(), t.to_vec_u32().unwrap().into_iter().map(f64::from).collect())
    }

    fn reference(&self, loss: &Loss) -> Result<[Array; 2], String> {
        let graph = self.graph(loss, Element::U32, false).map_err(|e| e.to_string())?;
        let mut inputs = vec![Some(self.x.clone()), Some(self.labels())];
        inputs.extend(self.lengths.iter().map(|l| {
            let l: Vec<f64> = l.iter().map(|&v| v.into()).collect();
            Some(Array::new(&[l.len()], l))
        }));
        let all = graph.reference(&inputs, |_| None).unwrap();
        let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
        let of = |n: usize| all[ids.iter().position(|id| *id == graph.outputs()[n].1).unwrap()].clone().unwrap();
        Ok([of(0), of(1)])
    }

    fn check(&self, loss: &Loss) -> Result<(), String> {
        let got = self.reference(loss)?;
        // The fixture has 9 digits; Keras computes this loss in f32 in any case.
        let tolerance = if self.name.starts_with("keras") { 2e-6 } else { 2e-7 };
        (0..2).try_for_each(|n| near(&self.name, &got[n].data, &self.want[n].data, tolerance))
    }

    fn run(&self, device: &Device, labels: Element, open: bool) -> [Vec<f32>; 2] {
        let graph = Arc::new(self.graph(&self.loss, labels, open).unwrap());
        let executor = Executor::new(graph, |_| None, device).unwrap();
        let x: Vec<f32> = self.x.data.iter().map(|&v| v as f32).collect();
        let y = self.labels();
        let whole: Vec<i64> = y.data.iter().map(|&v| v as i64).collect();
        let y: Data = match labels {
            Element::U32 => self.targets.tensor(self.blank(), device).unwrap().into(),
            Element::F32 => {
                let floats: Vec<f32> = whole.iter().map(|&v| v as f32).collect();
                Tensor::from_f32(&floats, &y.dims, device).unwrap().into()
            }
            _ => IntArray::new(&y.dims, whole).into(),
        };
        let mut inputs: Vec<Option<Data>> =
            vec![Some(Tensor::from_f32(&x, &self.x.dims, device).unwrap().into()), Some(y)];
        inputs.extend(self.lengths.iter().map(|l| Some(Tensor::from_u32(l, &[l.len()], device).unwrap().into())));
        let out = executor.run_data(&inputs, &RunOptions::default()).unwrap();
        let read = |n: usize| out[n].as_ref().unwrap().to_f32(device).unwrap().to_vec().unwrap();
        [read(0), read(1)]
    }
}

#[test]
fn losses_and_their_gradients_are_those_of_the_frameworks() {
    let cases = cases();
    assert!(cases.len() > 40, "{}", cases.len());
    for (n, case) in cases.iter().enumerate() {
        case.check(&case.loss).unwrap();
        for device in devices() {
            let labels = [Element::U32, Element::Int(Int::I64), Element::F32][n % 3];
            let got = case.run(&device, labels, n % 2 == 1);
            for (part, (got, want)) in got.iter().zip(&case.want).enumerate() {
                let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
                // Logarithms of probabilities are sums of up to 260 terms, of a rounding each.
                near(&format!("{} on {device}, output {part}", case.name), &got, &want.data, 3e-5).unwrap();
            }
        }
    }
}

#[test]
fn wrong_readings_are_noticed() {
    type Reading = fn(&mut Loss);
    fn ctc(l: &mut Loss) -> (&mut usize, &mut bool, &mut bool, &mut Form) {
        let LossKind::Ctc { blank, from_logits, zero_infinity, form } = &mut l.kind else { panic!("a CTC loss") };
        (blank, from_logits, zero_infinity, form)
    }
    let wrong: [(&str, Reading); 5] = [
        ("another blank", |l| *ctc(l).0 += 1),
        ("logits for probabilities", |l| *ctc(l).1 ^= true),
        ("infinity", |l| *ctc(l).2 ^= true),
        ("the other mean", |l| {
            let form = ctc(l).3;
            *form = if *form == Form::Keras { Form::Pytorch } else { Form::Keras };
        }),
        ("the sum", |l| l.reduction = LossReduction::Sum),
    ];
    for (name, change) in wrong {
        let noticed = cases()
            .iter()
            .filter(|c| {
                let mut loss = c.loss.clone();
                change(&mut loss);
                loss != c.loss && c.check(&loss).is_err()
            })
            .count();
        assert!(noticed > 2, "{name}");
    }
    let without = cases().into_iter().filter_map(|mut c| c.lengths.take().map(|_| c));
    assert!(without.filter(|c| c.check(&c.loss).is_err()).count() > 5, "lengths");
}

fn of_loss(rule: CtcRule, operands: &[Operand]) -> Graph {
    let mut g = GraphBuilder::new();
    let names = ["x", "labels", "valid"];
    names.iter().zip(operands).for_each(|(n, o)| {
        g.input(n, o.kind());
    });
    g.node("ctc", Ctc(rule), &names[..operands.len()], &["losses", "kept"]);
    g.output("losses", "losses");
    g.build().unwrap()
}

#[test]
fn gradients_are_those_of_central_differences() {
    let mut r = Random(41);
    for from_logits in [false, true] {
        for blank in [0, 3] {
            let rule = CtcRule { blank, from_logits, zero_infinity: false };
            let x = Operand::random(&mut r, &[3, 5, 4]);
            let b = blank as u32;
            let labels = Operand::ids(&[3, 3], &[1, 1, 2, 2, b, b, b, b, b]);
            let valid = [
                None,
                Some(Operand::ids(&[3], &[5, 2, 0])),
                Some(Operand::ids(&[3, 5], &[0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1])),
            ];
            for valid in valid {
                let mut operands = vec![x.clone(), labels.clone()];
                operands.extend(valid);
                let graph = of_loss(rule, &operands);
                check_graph(&format!("{rule:?} of {}", operands.len()), &graph, &operands, 1e-5);
            }
        }
    }
}

/// Runs the loss, and its gradient for a gradient of 1 of each loss.
fn direct(x: &Tensor, labels: &Tensor, valid: Option<&Tensor>, rule: CtcRule) -> [Vec<f32>; 2] {
    let (losses, paths) = x.ctc(labels, valid, rule).unwrap();
    let dy = Tensor::full(losses.dims(), 1.0, DType::F32, &x.device()).unwrap();
    let gradient = x.ctc_gradient(labels, valid, rule, [&losses, &paths, &dy]).unwrap();
    [losses.to_vec().unwrap(), gradient.to_vec().unwrap()]
}

const RULE: CtcRule = CtcRule { blank: 0, from_logits: true, zero_infinity: false };

#[test]
fn what_is_masked_is_not_read() {
    let mut r = Random(42);
    let (batch, timesteps, classes) = (3, 20, 70);
    let x = r.floats(batch * timesteps * classes, 2.0);
    let labels = [1, 2, 2, 69, 5, 0, 7, 7, 0];
    let lengths = [20u32, 9, 13];
    for device in devices() {
        let ids = |v: &[u32], dims: &[usize]| Tensor::from_u32(v, dims, &device).unwrap();
        let y = ids(&labels, &[batch, 3]);
        let t = |x: &[f32]| Tensor::from_f32(x, &[batch, timesteps, classes], &device).unwrap();
        let by_lengths = direct(&t(&x), &y, Some(&ids(&lengths, &[batch])), RULE);
        let there = |n: usize| n % timesteps < lengths[n / timesteps] as usize;
        let mask: Vec<u32> = (0..batch * timesteps).map(|n| there(n).into()).collect();
        // NaN where nothing is valid.
        let spoiled: Vec<f32> =
            x.iter().enumerate().map(|(n, v)| if there(n / classes) { *v } else { f32::NAN }).collect();
        let by_mask = direct(&t(&spoiled), &y, Some(&ids(&mask, &[batch, timesteps])), RULE);
        assert_eq!(by_lengths, by_mask, "{device}");
        let gradient = by_lengths[1].chunks(classes).enumerate();
        gradient.for_each(|(n, g)| assert!(there(n) || g.iter().all(|v| *v == 0.0), "{device}, {n}"));
        // Padding in front gives the same loss.
        let mut moved = vec![f32::NAN; x.len()];
        let mut front = vec![0; batch * timesteps];
        for b in 0..batch {
            let (length, row) = (lengths[b] as usize, b * timesteps * classes);
            let start = (timesteps - length) * classes;
            moved[row + start..][..length * classes].copy_from_slice(&x[row..][..length * classes]);
            front[b * timesteps + timesteps - length..(b + 1) * timesteps].fill(1);
        }
        let in_front = direct(&t(&moved), &y, Some(&ids(&front, &[batch, timesteps])), RULE);
        let near = in_front[0].iter().zip(&by_lengths[0]).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near, "{device}: {in_front:?}, not {by_lengths:?}");
    }
}

#[test]
fn bad_labels_and_lengths_are_errors_or_nan() {
    let counts = [2, 1];
    let of = |labels: &[i64]| CtcTargets::concatenated(labels, &counts).unwrap();
    assert!(of(&[1, 2, 3]).check(4, 0, 9, None).is_ok() && of(&[1, 2, 3]).check(4, 0, 9, Some(&[9, 0])).is_ok());
    assert!(matches!(of(&[1, 2, 4]).check(4, 0, 9, None), Err(Error::Label { index: 2, label: 4, classes: 4 })));
    assert!(matches!(of(&[-1, 2, 3]).check(4, 0, 9, None), Err(Error::Label { index: 0, label: -1, classes: 4 })));
    let option = |e: Error, wanted: &str| {
        assert!(matches!(&e, Error::Option { argument, .. } if *argument == wanted), "{e}");
    };
    option(of(&[1, 0, 3]).check(4, 0, 9, None).unwrap_err(), "labels");
    option(of(&[1, 2, 3]).check(4, 4, 9, None).unwrap_err(), "blank");
    option(of(&[1, 2, 3]).check(4, 0, 9, Some(&[9, 10])).unwrap_err(), "lengths");
    option(of(&[1, 2, 3]).check(4, 0, 9, Some(&[9])).unwrap_err(), "lengths");
    option(CtcTargets::concatenated(&[1, 2], &counts).unwrap_err(), "labels");
    option(CtcTargets::concatenated(&[1, 2], &[usize::MAX, 3]).unwrap_err(), "labels");
    option(CtcTargets::concatenated(&[], &[]).unwrap_err(), "lengths");
    option(CtcTargets::padded(&[1, 2, 3], &counts).unwrap_err(), "labels");
    option(CtcTargets::padded(&[1, 2, 3, 4], &[1, 3]).unwrap_err(), "lengths");
    // On a device: the first sequence is bad, the second is not.
    let mut r = Random(43);
    let x = r.floats(2 * 6 * 4, 1.0);
    let bad = [[1, 4, 2, 0], [1, 0, 2, 0], [9, 0, 2, 0], [u32::MAX, 0, 2, 0]];
    for device in devices() {
        let t = Tensor::from_f32(&x, &[2, 6, 4], &device).unwrap();
        let check = |[losses, gradient]: [Vec<f32>; 2], what: &str| {
            assert!(losses[0].is_nan() && losses[1].is_finite(), "{what} on {device}: {losses:?}");
            let (first, second) = gradient.split_at(24);
            assert!(first.iter().all(|v| v.is_nan()), "{what} on {device}: {first:?}");
            assert!(second.iter().all(|v| v.is_finite()), "{what} on {device}: {second:?}");
        };
        for rule in [RULE, CtcRule { zero_infinity: true, ..RULE }] {
            // A blank in front of a label stands in the first of three places.
            for labels in bad.map(|[a, b, c, d]| if b == 0 && a == 1 { [a, b, a, c, d, d] } else { [a, b, b, c, d, d] })
            {
                let y = Tensor::from_u32(&labels, &[2, 3], &device).unwrap();
                check(direct(&t, &y, None, rule), &format!("{labels:?}"));
            }
            let y = Tensor::from_f32(&[1.0, -1.0, 2.0, 0.0], &[2, 2], &device).unwrap();
            check(direct(&t, &y, None, rule), "-1");
            let y = Tensor::from_f32(&[1.0, f32::NAN, 2.0, 0.0], &[2, 2], &device).unwrap();
            check(direct(&t, &y, None, rule), "NaN");
            let y = Tensor::from_u32(&[1, 2, 2, 0], &[2, 2], &device).unwrap();
            let lengths = Tensor::from_u32(&[7, 6], &[2], &device).unwrap();
            check(direct(&t, &y, Some(&lengths), rule), "a length of 7");
        }
        let y = Tensor::from_u32(&[1, 2], &[2, 1], &device).unwrap();
        assert!(t.ctc(&y, None, CtcRule { blank: 4, ..RULE }).is_err());
        assert!(t.ctc(&Tensor::from_u32(&[1, 2], &[2], &device).unwrap(), None, RULE).is_err());
        assert!(t.ctc(&Tensor::from_u32(&[1, 2, 3], &[3, 1], &device).unwrap(), None, RULE).is_err());
        assert!(t.ctc(&y, Some(&Tensor::from_u32(&[1, 2, 3], &[3], &device).unwrap()), RULE).is_err());
        assert!(t.ctc(&y, Some(&Tensor::from_f32(&[1.0, 2.0], &[2], &device).unwrap()), RULE).is_err());
    }
}

#[test]
fn options_and_operands_that_do_not_fit_are_named() {
    let add = |loss: Loss, x: ValueType, y: ValueType, mask: Option<ValueType>| {
        let mut a = Assembly::new(false);
        let (x, y) = (a.input("x", x, false).unwrap(), a.input("y", y, false).unwrap());
        let mask = mask.map(|m| a.input("m", m, false).unwrap());
        loss.add(&mut a, x, y, None, mask).unwrap_err()
    };
    let f = |dims: &[usize]| ValueType::new(Element::F32, dims.iter().copied());
    let u = |dims: &[usize]| ValueType::new(Element::U32, dims.iter().copied());
    let operand = |e: Error, wanted: &str| {
        assert!(matches!(&e, Error::Operand { argument, .. } if *argument == wanted), "{e}");
    };
    let option = |e: Error, wanted: &str| {
        assert!(matches!(&e, Error::Option { argument, .. } if *argument == wanted), "{e}");
    };
    let ctc = Loss::ctc_keras;
    operand(add(ctc(), f(&[2, 5]), u(&[2, 3]), None), "prediction");
    operand(add(ctc(), ValueType::new(Element::F32, [Some(2), Some(5), None]), u(&[2, 3]), None), "prediction");
    operand(add(ctc(), f(&[2, 5, 4]), u(&[2]), None), "target");
    operand(add(ctc(), f(&[2, 5, 4]), u(&[3, 3]), None), "target");
    operand(add(ctc(), f(&[2, 5, 4]), u(&[2, 3]), Some(u(&[3]))), "mask");
    operand(add(ctc(), f(&[2, 5, 4]), u(&[2, 3]), Some(u(&[2, 4]))), "mask");
    operand(add(ctc(), f(&[2, 5, 4]), u(&[2, 3]), Some(f(&[2]))), "mask");
    let kind = LossKind::Ctc { blank: 4, from_logits: true, zero_infinity: false, form: Form::Keras };
    option(add(Loss::new(kind), f(&[2, 5, 4]), u(&[2, 3]), None), "blank");
    option(add(ctc().label_smoothing(0.1), f(&[2, 5, 4]), u(&[2, 3]), None), "label_smoothing");
    option(add(ctc().class_weights([1.0]), f(&[2, 5, 4]), u(&[2, 3]), None), "class_weights");
}

/// A thousand timesteps are a few dispatches, and more of them on a device whose loops end early; the numbers are those
/// of f64.
#[test]
fn long_sequences_take_few_dispatches() {
    let mut r = Random(44);
    let (timesteps, classes, most) = (1000, 9, 40);
    let x = r.floats(2 * timesteps * classes, 2.0);
    let labels: Vec<u32> = (0..2 * most).map(|n| if n >= most + 30 { 0 } else { 1 + r.below(8) as u32 }).collect();
    let arrays = [
        Array::new(&[2, timesteps, classes], x.iter().map(|&v| v.into()).collect()),
        Array::new(&[2, most], labels.iter().map(|&v| v.into()).collect()),
    ];
    let [a, b] = [&arrays[0], &arrays[1]];
    let operands = [Operand::floats(&a.dims, &x), Operand::ids(&b.dims, &labels)];
    let want = of_loss(RULE, &operands).reference(&arrays.clone().map(Some), |_| None).unwrap();
    let want = want.into_iter().flatten().next_back().unwrap();
    // Devices of their own, on which no other test runs.
    let mut all = vec![Device::Cpu, own_gpu()];
    let early = own_gpu();
    early.gpu().unwrap().end_loops_after(150);
    all.push(early);
    let mut first: Option<Vec<f32>> = None;
    for (n, device) in all.iter().enumerate() {
        let (x, y) =
            (Tensor::from_f32(&x, &a.dims, device).unwrap(), Tensor::from_u32(&labels, &b.dims, device).unwrap());
        let count = || device.gpu().map_or(0, |g| *g.dispatches_by_kernel().get("ctc_paths").unwrap_or(&0));
        let before = count();
        let [losses, gradient] = direct(&x, &y, None, RULE);
        let losses: Vec<f64> = losses.iter().map(|&v| v.into()).collect();
        near(&format!("{device}"), &losses, &want.data, 1e-5).unwrap();
        let dispatches = count() - before;
        assert!(n > 1 || dispatches <= 8, "{dispatches} dispatches");
        assert!(n < 2 || dispatches > 8, "{dispatches} dispatches");
        let first = first.get_or_insert_with(|| gradient.clone());
        for (g, w) in gradient.iter().zip(first.iter()) {
            assert!((g - w).abs() < 2e-3, "{device}: {g}, not {w}");
        }
        let again = direct(&x, &y, None, RULE)[1].clone();
        assert!(gradient.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{device}");
    }
}

/// A network learns to spell what its input shows, with lengths of its own.
#[test]
fn a_network_learns_labels_without_their_places() {
    let (batch, timesteps, classes) = (8, 12, 5);
    let mut r = Random(45);
    let mut x = vec![0.0f32; batch * timesteps * classes];
    let (mut labels, mut lengths) = (Vec::new(), Vec::new());
    for b in 0..batch {
        let length = 8 + r.below(5);
        lengths.push(length as u32);
        // Each label is shown for two timesteps, and nothing after it.
        let own: Vec<i64> = (0..length / 4).map(|_| 1 + r.below(4) as i64).collect();
        for (n, &l) in own.iter().enumerate() {
            for t in [4 * n, 4 * n + 1] {
                x[(b * timesteps + t) * classes + l as usize] = 1.0;
            }
        }
        labels.push(own);
    }
    let counts: Vec<usize> = labels.iter().map(Vec::len).collect();
    let targets = CtcTargets::concatenated(&labels.concat(), &counts).unwrap();
    let steps: Vec<usize> = lengths.iter().map(|&l| l as usize).collect();
    targets.check(classes, 0, timesteps, Some(&steps)).unwrap();
    let mut all = Vec::new();
    for device in devices() {
        let network = Sequential::new()
            .add(Lstm::new(16).return_sequences(true))
            .add(Dense::new(classes))
            .seed(3)
            .build(&[None, None, Some(classes)], &device)
            .unwrap();
        let loss = Loss::ctc_pytorch().from_logits();
        let mut training = Training::new(&network, StepOptions::new(loss, Adam::keras().learning_rate(0.02))).unwrap();
        let input = Tensor::from_f32(&x, &[batch, timesteps, classes], &device).unwrap();
        let target = targets.tensor(0, &device).unwrap();
        let lengths = Tensor::from_u32(&lengths, &[batch], &device).unwrap();
        let (inputs, targets) = ([&input], [&target]);
        let batch = Batch::new(&inputs, &targets).lengths(&lengths);
        let losses: Vec<f32> = (0..120).map(|_| training.step(&batch).unwrap().loss.to_vec().unwrap()[0]).collect();
        assert!(losses[0] > 1.0 && losses[119] < 0.1, "{device}: {losses:?}");
        all.push(losses);
        // Without lengths the loss is another one.
        let other = Batch::new(&inputs, &targets);
        let with = training.gradients(&batch).unwrap().0.loss.to_vec().unwrap()[0];
        assert!((training.gradients(&other).unwrap().0.loss.to_vec().unwrap()[0] - with).abs() > 1e-5);
    }
    for losses in &all[1..] {
        let same = losses.iter().zip(&all[0]).take(20).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(same, "{all:?}");
    }
}
