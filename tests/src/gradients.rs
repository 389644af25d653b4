//! Gradients of graphs, held against central differences of the f64 reference and run on the devices.

use crate::{Random, devices};
use recurve::Tensor;
use recurve::testing::{Tolerance, compare};
use recurve_graph::{
    Array, Constant, Data, Element, Executor, Graph, GraphBuilder, IntArray, Operator, RunOptions, ValueType, ops,
};
use recurve_tensor::Reduction;
use std::sync::Arc;

/// An input of a function: its elements, and whether the gradient with respect to it is checked.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The elements.
    pub array: Array,
    /// Their type.
    pub element: Element,
    /// Which dimensions are open until a run.
    pub open: bool,
}

impl Operand {
    /// Random floats between -2 and 2.
    pub fn random(r: &mut Random, dims: &[usize]) -> Self {
        let count = dims.iter().product();
        Self::floats(dims, &r.floats(count, 2.0))
    }

    /// Floats.
    pub fn floats(dims: &[usize], data: &[f32]) -> Self {
        Self { array: Array::new(dims, crate::wide(data)), element: Element::F32, open: false }
    }

    /// Ids.
    pub fn ids(dims: &[usize], data: &[u32]) -> Self {
        let array = Array::new(dims, data.iter().map(|&v| v.into()).collect());
        Self { array, element: Element::U32, open: false }
    }

    /// Whole numbers of another type, or truth values.
    pub fn whole(element: Element, dims: &[usize], data: &[i64]) -> Self {
        Self { array: Array::new(dims, data.iter().map(|&v| v as f64).collect()), element, open: false }
    }

    /// The same, with dimensions that the graph does not know.
    #[must_use]
    pub fn open(self) -> Self {
        Self { open: true, ..self }
    }

    /// Its type.
    pub fn kind(&self) -> ValueType {
        let dim = |&d: &usize| if self.open { None } else { Some(d) };
        ValueType::new(self.element, self.array.dims.iter().map(dim))
    }

    fn data(&self, device: &recurve::Device) -> Data {
        let dims = &self.array.dims;
        match self.element {
            Element::U32 => Tensor::from_u32(&self.array.ids(), dims, device).unwrap().into(),
            Element::Int(_) | Element::Bool => {
                IntArray::new(dims, self.array.data.iter().map(|&v| v as i64).collect::<Vec<_>>()).into()
            }
            _ => {
                let data: Vec<f32> = self.array.data.iter().map(|&v| v as f32).collect();
                Tensor::from_f32(&data, dims, device).unwrap().into()
            }
        }
    }
}

/// The gradients of the loss `Σ w · y`, with random weights w, for every output y of a graph and every float among its
/// inputs: the graph with them as outputs, in the order of the inputs, `None` where the loss depends on none.
///
/// # Errors
/// Those of the gradients.
pub fn of_weighted_sum(
    graph: &Graph,
    r: &mut Random,
    dims: &[Vec<usize>],
) -> recurve_graph::Result<(Graph, Vec<Option<usize>>)> {
    let (mut assembly, outputs) = graph.open(|_| true)?;
    let mut sum = None;
    for ((name, id), dims) in outputs.iter().zip(dims) {
        if assembly.value(*id).kind.dtype != Element::F32 {
            continue;
        }
        let weights = r.floats(dims.iter().product(), 1.0);
        let w = assembly.constant(&format!("weights of {name}"), dims, Constant::Float(weights.into()))?;
        let weighted = assembly.derived("weighted", Arc::new(ops::Binary::Mul), &[Some(*id), Some(w)], 1)?[0];
        let all = ops::ReduceOver { reduction: Reduction::Sum, axes: vec![], keep_dims: false, noop: false, int: None };
        let total = assembly.derived("total", Arc::new(all), &[Some(weighted)], 1)?[0];
        sum = Some(match sum {
            None => total,
            Some(other) => assembly.derived("sum", Arc::new(ops::Binary::Add), &[Some(other), Some(total)], 1)?[0],
        });
    }
    let loss = sum.expect("an output of floats");
    let inputs: Vec<_> = graph.inputs().iter().map(|id| graph.value(*id).name.clone()).collect();
    let of: Vec<_> = inputs.iter().map(|n| assembly.find(n).expect("an input")).collect();
    let gradients = assembly.gradients(loss, &of)?;
    let mut named = vec![("loss".to_owned(), loss)];
    let places = gradients.iter().zip(inputs).map(|(g, name)| {
        g.map(|g| {
            named.push((format!("gradient of {name}"), g));
            named.len() - 1
        })
    });
    let places = places.collect();
    Ok((assembly.finish(named)?, places))
}

fn loss_of(graph: &Graph, inputs: &[Option<Array>]) -> f64 {
    let all = graph.reference(inputs, |_| None).unwrap();
    let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
    let at = ids.iter().position(|id| *id == graph.outputs()[0].1).expect("a value");
    all[at].as_ref().expect("a loss").data[0]
}

/// Checks the gradient of an operator at these inputs: in f64 against central differences, and on each device against
/// the f64 gradient, within `tolerance`.
///
/// # Panics
/// If they differ.
pub fn check(
    name: &str,
    operator: impl Operator + 'static,
    operands: &[Option<Operand>],
    outputs: usize,
    tolerance: f64,
) {
    let mut g = GraphBuilder::new();
    let names: Vec<String> = (0..operands.len()).map(|n| format!("x{n}")).collect();
    for (n, o) in names.iter().zip(operands) {
        if let Some(o) = o {
            g.input(n, o.kind());
        }
    }
    let inputs: Vec<&str> = names.iter().zip(operands).map(|(n, o)| if o.is_some() { &**n } else { "" }).collect();
    let ys: Vec<String> = (0..outputs).map(|n| format!("y{n}")).collect();
    g.node("node", operator, &inputs, &ys.iter().map(String::as_str).collect::<Vec<_>>());
    ys.iter().for_each(|y| g.output(y, y));
    let graph = g.build().unwrap_or_else(|e| panic!("{name}: {e}"));
    let given: Vec<Operand> = operands.iter().flatten().cloned().collect();
    check_graph(name, &graph, &given, tolerance);
}

/// [`check`] for all outputs of a graph.
///
/// # Panics
/// If they differ.
pub fn check_graph(name: &str, graph: &Graph, operands: &[Operand], tolerance: f64) {
    let arrays: Vec<Option<Array>> = operands.iter().map(|o| Some(o.array.clone())).collect();
    let values = graph.reference(&arrays, |_| None).unwrap();
    let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
    let place = |id| ids.iter().position(|other| *other == id).expect("a value");
    let dims: Vec<Vec<usize>> =
        graph.outputs().iter().map(|(_, id)| values[place(*id)].as_ref().expect("an output").dims.clone()).collect();
    let (with, places) = of_weighted_sum(graph, &mut Random(3), &dims).unwrap_or_else(|e| panic!("{name}: {e}"));
    let truth = with.reference(&arrays, |_| None).unwrap();
    let ids: Vec<_> = with.values().map(|(id, _)| id).collect();
    let output = |n: usize| {
        let id = with.outputs()[n].1;
        truth[ids.iter().position(|other| *other == id).expect("a value")].clone().expect("a gradient")
    };
    for (n, operand) in operands.iter().enumerate() {
        let differences: Vec<f64> = match operand.element {
            Element::F32 => (0..operand.array.data.len())
                .map(|e| {
                    let at = |step: f64| {
                        let mut moved = arrays.clone();
                        moved[n].as_mut().expect("given").data[e] += step;
                        loss_of(&with, &moved)
                    };
                    let h = 1e-6;
                    (at(h) - at(-h)) / (2.0 * h)
                })
                .collect(),
            _ => {
                assert!(places[n].is_none(), "{name}: input {n} has no gradient");
                continue;
            }
        };
        let got = match places[n] {
            Some(place) => output(place),
            None => Array::new(&operand.array.dims, vec![0.0; differences.len()]),
        };
        assert_eq!(got.dims, operand.array.dims, "{name}: input {n}");
        for (e, (g, d)) in got.data.iter().zip(&differences).enumerate() {
            assert!((g - d).abs() <= 1e-6 * (1.0 + d.abs()), "{name}: input {n}, element {e}: {g}, by differences {d}");
        }
    }
    for device in devices() {
        let executor = Executor::new(Arc::new(with.clone()), |_| None, &device).unwrap();
        let inputs: Vec<_> = operands.iter().map(|o| Some(o.data(&device))).collect();
        let outputs = executor.run_data(&inputs, &RunOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for place in places.iter().flatten() {
            let got = outputs[*place].as_ref().expect("a gradient").to_f32(&device).unwrap();
            let want = output(*place);
            assert_eq!(got.dims(), want.dims, "{name}");
            if let Err(e) = compare(&got.to_vec().unwrap(), &want.data, Tolerance::new(tolerance)) {
                panic!("{name} on {device}: {}: {e}", with.outputs()[*place].0);
            }
        }
    }
}
