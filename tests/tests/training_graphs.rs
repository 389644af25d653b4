//! Networks in their form for training: what they compute, and the gradients by all their weights against central
//! differences in f64 and on the devices.

use recurve::{
    Activation, BatchNormalization, Bidirectional, Dense, Dropout, Embedding, Gru, LayerConfig, LayerNormalization,
    Lstm, Masking, Network, RecurrentSpec, Sequential, SimpleRnn,
};
use recurve::{Device, Tensor};
use recurve_graph::ops::{Binary, ReduceOver};
use recurve_graph::{Array, Constant, Data, Executor, Graph, RunOptions};
use recurve_tensor::{DType, Reduction};
use recurve_tests::{Random, wide};
use recurve_vocabulary::{Cell, Zoneout};
use std::sync::Arc;

/// A network in training with a loss `Σ w · y`, and the gradients by its weights.
struct Trained {
    graph: Graph,
    /// What the graph reads: the input, the seed, a mask or lengths, and the weights.
    inputs: Vec<(String, Array, DType)>,
    weights: Vec<String>,
}

impl Trained {
    fn new(network: &Network, x: &Array, given: Option<(&str, Array)>) -> Self {
        let t = network.training_graph().unwrap();
        let is_given = |name: &str| given.as_ref().is_some_and(|(n, _)| *n == name);
        let (mut a, outputs) = t.graph.open(is_given).unwrap();
        let y = outputs[0].1;
        let mut r = Random(5);
        // The number of elements of y is that of x's rows times the units, which are not known here; one row of weights
        // is repeated.
        let units = a.value(y).kind.dims.last().unwrap().size().unwrap();
        let w = a.constant("w", &[units], Constant::Float(r.floats(units, 1.0).into())).unwrap();
        let weighted = a.derived("weighted", Arc::new(Binary::Mul), &[Some(y), Some(w)], 1).unwrap()[0];
        let squared = a.derived("squared", Arc::new(Binary::Mul), &[Some(weighted), Some(y)], 1).unwrap()[0];
        let all = ReduceOver { reduction: Reduction::Sum, axes: vec![], keep_dims: false, noop: false, int: None };
        let loss = a.derived("loss", Arc::new(all), &[Some(squared)], 1).unwrap()[0];
        let of: Vec<_> = t.trainable.iter().map(|n| a.find(n).unwrap()).collect();
        let gradients = a.gradients(loss, &of).unwrap();
        let mut named = vec![("loss".to_owned(), loss), ("y".to_owned(), y)];
        for (name, g) in t.trainable.iter().zip(&gradients) {
            named.push((name.clone(), g.unwrap_or_else(|| panic!("the loss does not depend on {name}"))));
        }
        let graph = a.finish(named).unwrap();
        let ids = network.input_dtype() == DType::U32;
        let inputs = graph
            .inputs()
            .iter()
            .map(|id| {
                let name = graph.value(*id).name.clone();
                let (array, dtype) = match &*name {
                    "input" => (x.clone(), if ids { DType::U32 } else { DType::F32 }),
                    "seed" => (Array::new(&[2], vec![3.0, 4.0]), DType::U32),
                    n if is_given(n) => (given.as_ref().unwrap().1.clone(), DType::U32),
                    n => {
                        let w = network.weights().get(n).unwrap_or_else(|| panic!("no weight {n}"));
                        (Array::new(w.shape(), wide(&w.to_vec().unwrap())), DType::F32)
                    }
                };
                (name, array, dtype)
            })
            .collect();
        Self { graph, inputs, weights: t.trainable }
    }

    fn arrays(&self) -> Vec<Option<Array>> {
        self.inputs.iter().map(|(_, a, _)| Some(a.clone())).collect()
    }

    /// The outputs in f64.
    fn truth(&self, inputs: &[Option<Array>]) -> Vec<Array> {
        let all = self.graph.reference(inputs, |_| None).unwrap();
        let ids: Vec<_> = self.graph.values().map(|(id, _)| id).collect();
        let one = |id| all[ids.iter().position(|other| *other == id).unwrap()].clone().unwrap();
        self.graph.outputs().iter().map(|(_, id)| one(*id)).collect()
    }

    /// Checks the gradient in f64, some elements of each weight.
    fn check(&self, name: &str) -> Vec<Array> {
        let arrays = self.arrays();
        let truth = self.truth(&arrays);
        for (n, weight) in self.weights.iter().enumerate() {
            let at = self.inputs.iter().position(|(n, ..)| n == weight).unwrap();
            let count = arrays[at].as_ref().unwrap().data.len();
            for e in (0..count).step_by(count.div_ceil(12)) {
                let moved = |step: f64| {
                    let mut moved = arrays.clone();
                    moved[at].as_mut().unwrap().data[e] += step;
                    self.truth(&moved)[0].data[0]
                };
                let h = 1e-5;
                let difference = (moved(h) - moved(-h)) / (2.0 * h);
                let got = truth[2 + n].data[e];
                assert!(
                    (got - difference).abs() <= 1e-7 * (1.0 + difference.abs()),
                    "{name}: {weight}[{e}]: {got}, by differences {difference}"
                );
            }
        }
        truth
    }

    fn run(&self, device: &Device) -> Vec<Vec<f32>> {
        let executor = Executor::new(Arc::new(self.graph.clone()), |_| None, device).unwrap();
        let inputs = self.inputs.iter().map(|(_, a, dtype)| {
            let t = match dtype {
                DType::U32 => Tensor::from_u32(&a.ids(), &a.dims, device).unwrap(),
                _ => {
                    let data: Vec<f32> = a.data.iter().map(|&v| v as f32).collect();
                    Tensor::from_f32(&data, &a.dims, device).unwrap()
                }
            };
            Some(Data::from(t))
        });
        let inputs: Vec<_> = inputs.collect();
        let outputs = executor.run_data(&inputs, &RunOptions::default()).unwrap();
        outputs.iter().map(|o| o.as_ref().unwrap().as_tensor().unwrap().to_vec().unwrap()).collect()
    }
}

fn build(sequential: Sequential, shape: &[Option<usize>]) -> Network {
    sequential.seed(7).build(shape, &Device::Cpu).unwrap()
}

fn floats(dims: &[usize], seed: u64) -> Array {
    Array::new(dims, wide(&Random(seed).floats(dims.iter().product(), 1.0)))
}

/// A network, its input, and a mask or lengths.
type Setting = (&'static str, Network, Array, Option<(&'static str, Array)>);

fn networks() -> Vec<Setting> {
    let x = || floats(&[3, 5, 4], 1);
    let any = [None, None, Some(4)];
    let ids = Array::new(&[3, 5], [1, 0, 4, 4, 2, 6, 3, 3, 0, 0, 5, 1, 2, 0, 0].map(f64::from).to_vec());
    let lengths = Array::new(&[3], vec![5.0, 2.0, 3.0]);
    let mask = Array::new(&[3, 5], [1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1].map(f64::from).to_vec());
    let zoneout = Cell { zoneout: Some(Zoneout { h: 0.3, c: 0.2 }), ..Cell::LSTM };
    let one = |l: RecurrentSpec| Sequential::new().add(LayerConfig::Recurrent(l)).add(Dense::new(2));
    let mut module = RecurrentSpec::new(Cell::GRU, 3);
    (module.num_layers, module.bidirectional, module.dropout) = (2, Some(recurve_vocabulary::Merge::Concat), 0.25);
    vec![
        ("rnn", build(one(SimpleRnn::new(3).into()), &any), x(), None),
        (
            "imdb",
            build(
                Sequential::new()
                    .add(Embedding::new(7, 4))
                    .add(SimpleRnn::new(3))
                    .add(Dense::new(1).activation(Activation::Sigmoid)),
                &[None, None],
            ),
            ids.clone(),
            None,
        ),
        (
            "embedding with a mask",
            build(
                Sequential::new()
                    .add(Embedding::new(7, 4).mask_zero(true))
                    .add(Bidirectional::new(Gru::new(3).return_sequences(true)))
                    .add(Lstm::new(3))
                    .add(Dropout::new(0.4))
                    .add(Dense::new(2)),
                &[None, None],
            ),
            ids,
            None,
        ),
        (
            "stacked",
            build(
                Sequential::new()
                    .add(Lstm::new(3).return_sequences(true).dropout(0.3).recurrent_dropout(0.5))
                    .add(LayerNormalization::new())
                    .add(Gru::new(3).return_sequences(true).reset_after(false))
                    .add(Dense::new(2).activation(Activation::Tanh)),
                &any,
            ),
            x(),
            Some(("lengths", lengths)),
        ),
        ("mask", build(one(Lstm::new(3).into()), &any), x(), Some(("mask", mask))),
        ("zoneout", build(one(RecurrentSpec::new(zoneout, 3)), &any), x(), None),
        ("layers in one module", build(one(module), &any), x(), None),
        (
            "masking and batch normalization",
            build(Sequential::new().add(Masking::new(9.0)).add(BatchNormalization::new()).add(SimpleRnn::new(2)), &any),
            x(),
            None,
        ),
    ]
}

#[test]
fn gradients_by_all_weights_are_those_of_differences() {
    for (name, network, x, given) in networks() {
        let trained = Trained::new(&network, &x, given);
        trained.check(name);
    }
}

#[test]
fn without_draws_training_computes_what_inference_does() {
    for (name, network, x, given) in networks() {
        if ["stacked", "zoneout", "layers in one module", "embedding with a mask"].contains(&name)
            || name.contains("batch")
        {
            continue;
        }
        let trained = Trained::new(&network, &x, given.clone());
        let y = &trained.truth(&trained.arrays())[1];
        let graph = network.graph();
        let inputs: Vec<Option<Array>> = graph
            .inputs()
            .iter()
            .map(|id| match &*graph.value(*id).name {
                "input" => Some(x.clone()),
                n => given.as_ref().filter(|(g, _)| *g == n).map(|(_, a)| a.clone()),
            })
            .collect();
        let weight = |n: &str| {
            let w = network.weights().get(n)?;
            Some(Array::new(w.shape(), wide(&w.to_vec().unwrap())))
        };
        let all = graph.reference(&inputs, weight).unwrap();
        let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
        let at = ids.iter().position(|id| *id == graph.outputs()[0].1).unwrap();
        assert_eq!(all[at].as_ref().unwrap(), y, "{name}");
    }
}

#[test]
fn the_cpu_has_the_gradients_of_f64() {
    for (name, network, x, given) in networks() {
        let trained = Trained::new(&network, &x, given);
        let truth = trained.truth(&trained.arrays());
        let got = trained.run(&Device::Cpu);
        assert_eq!(got.len(), truth.len());
        for (n, (got, want)) in got.iter().zip(&truth).enumerate() {
            let tolerance = recurve::testing::Tolerance::new(2e-5);
            if let Err(e) = recurve::testing::compare(got, &want.data, tolerance) {
                panic!("{name}: output {n}: {e}");
            }
        }
        assert_eq!(trained.run(&Device::Cpu), got, "{name}: other bits in a second run");
    }
}
