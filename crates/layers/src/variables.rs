//! The weights of a network as the variables that Keras has: its names, shapes and layout, in both directions.

use crate::weight_options::{KerasVariable, WeightGroup};
use crate::{Error, Result, Weights};
use recurve_tensor::cpu::host;
use recurve_vocabulary::{CellKind, GateOrder};

/// A variable of a layer, as Keras has it: a kernel is `[…, in, out]`, gates are in Keras's order, and both biases of a
/// GRU with `reset_after` are one variable. A weight for which Keras has no variable is one as it is.
#[derive(Clone, Debug)]
pub struct NetworkVariable {
    layer: String,
    name: String,
    direction: &'static str,
    shape: Vec<usize>,
    trainable: bool,
    source: Source,
}

/// Which weights a variable is.
#[derive(Clone, Debug)]
enum Source {
    /// Those of a variable with options of its own.
    Variable(KerasVariable, Option<CellKind>),
    /// One, with these dimensions, as it is.
    Weight(String, Vec<usize>),
}

impl NetworkVariable {
    /// The variables of weights that belong together, in Keras's order.
    pub(crate) fn of(layer: &str, group: &WeightGroup<'_>) -> Vec<Self> {
        let known = group.variables();
        let frozen: Vec<&str> = group.frozen().collect();
        let mut all = Vec::new();
        for (weight, dims) in &group.weights {
            let direction = match weight.ends_with("_reverse") {
                true => "backward",
                false if group.class == "Bidirectional" => "forward",
                false => "",
            };
            let (name, shape, source) = match known.iter().find(|v| v.weights.contains(weight)) {
                Some(v) if v.weights[0] != *weight => continue,
                Some(v) => (v.name(group.class).to_owned(), v.keras_dims(), Source::Variable(v.clone(), group.cell)),
                None => {
                    let last = weight.rsplit('.').next().unwrap_or(weight);
                    // Such a variable of Keras's is a number without dimensions.
                    let number = group.class == "Attention";
                    let shape = if number { Vec::new() } else { dims.clone() };
                    let name = match last {
                        "running_mean" => "moving_mean",
                        "running_var" => "moving_variance",
                        other => other,
                    };
                    (name.to_owned(), shape, Source::Weight(weight.clone(), dims.clone()))
                }
            };
            let trainable = !frozen.contains(&&**weight);
            all.push(Self { layer: layer.into(), name, direction, shape, trainable, source });
        }
        all
    }

    /// The name of the layer.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Keras's name: `kernel`, `recurrent_kernel`, `bias`, `embeddings`, `gamma`, `moving_mean`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `forward` or `backward` in a layer with both directions, else empty.
    pub fn direction(&self) -> &'static str {
        self.direction
    }

    /// The dimensions that it has in Keras.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether training changes it.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// Its elements, in Keras's layout, from the weights of the network.
    ///
    /// # Errors
    /// [`Error::MissingWeight`], [`Error::WeightShape`]; lack of memory.
    pub fn read(&self, weights: &Weights) -> Result<Vec<f32>> {
        match &self.source {
            Source::Variable(variable, cell) => variable.load(*cell, weights),
            Source::Weight(name, dims) => Ok(weights.expect(name, dims)?.to_vec()?),
        }
    }

    /// Replaces it among the weights of the network by elements in Keras's layout.
    ///
    /// # Errors
    /// [`Error::WeightShape`] for another number of elements; lack of memory.
    pub fn write(&self, data: Vec<f32>, weights: &mut Weights) -> Result<()> {
        if data.len() != self.shape.iter().product::<usize>() {
            let name = format!("{}.{}", self.layer, self.name);
            return Err(Error::WeightShape { name, expected: self.shape.clone(), got: vec![data.len()] });
        }
        match &self.source {
            Source::Variable(variable, cell) => variable.store(*cell, &data, weights),
            Source::Weight(name, dims) => weights.insert(name.as_str(), dims, data),
        }
    }
}

impl KerasVariable {
    /// Its elements in Keras's layout.
    fn load(&self, cell: Option<CellKind>, weights: &Weights) -> Result<Vec<f32>> {
        let mut whole: Vec<f32> = Vec::new();
        for name in &self.weights {
            let own = weights.expect(name, &self.own)?.to_vec()?;
            let own = match cell {
                Some(kind) => GateOrder::Keras.from_native(kind, &own),
                None => own,
            };
            if whole.is_empty() { whole = own } else { whole.extend(own) }
        }
        permuted(&whole, &self.dims, &self.order)
    }

    /// Makes its weights of elements in Keras's layout.
    pub(crate) fn store(&self, cell: Option<CellKind>, data: &[f32], into: &mut Weights) -> Result<()> {
        let mut back = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(n, &place)| back[place] = n);
        let whole = permuted(data, &self.keras_dims(), &back)?;
        let each = whole.len() / self.weights.len();
        for (name, own) in self.weights.iter().zip(whole.chunks_exact(each.max(1))) {
            let own = match cell {
                Some(kind) => GateOrder::Keras.to_native(kind, own),
                None => own.to_vec(),
            };
            into.insert(name.as_str(), &self.own, own)?;
        }
        Ok(())
    }
}

/// Elements with their axes in another order: axis n of the result is axis `order[n]`.
///
/// # Errors
/// Lack of memory.
pub(crate) fn permuted(data: &[f32], dims: &[usize], order: &[usize]) -> Result<Vec<f32>> {
    let mut strides = vec![1; dims.len()];
    for n in (0..dims.len().saturating_sub(1)).rev() {
        strides[n] = strides[n + 1] * dims[n + 1];
    }
    let mut out = host("variables", data.len())?;
    let (mut index, mut at) = (vec![0; order.len()], 0);
    for out in &mut out {
        *out = data[at];
        for (n, &axis) in order.iter().enumerate().rev() {
            index[n] += 1;
            at += strides[axis];
            if index[n] < dims[axis] {
                break;
            }
            at -= strides[axis] * dims[axis];
            index[n] = 0;
        }
    }
    Ok(out)
}
