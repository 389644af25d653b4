//! Gradients: nodes that compute the derivatives of one number with respect to other values.
//!
//! The nodes are added to the graph itself (reverse mode), so that one run computes a loss, its gradients and whatever
//! is made of them.

use crate::ops::{ActivationGradient, Binary, ExpandLike, Extent, FirstGiven, IfGiven, Map, Reshape, SumTo, Whole};
use crate::{Assembly, Constant, Element, Error, Int, Operator, Result, Source, ValueId, ValueType};
#[cfg(feature = "training")]
use recurve_tensor::DType;
use recurve_tensor::Function;
use recurve_vocabulary::Activation;
use std::sync::Arc;

/// A node whose gradient is being added, as its operator sees it. See [`Operator::gradient`].
#[derive(Debug)]
pub struct Gradients<'a> {
    assembly: &'a mut Assembly,
    node: usize,
    of_outputs: Vec<Option<ValueId>>,
    wanted: Vec<bool>,
    of_inputs: Vec<Option<ValueId>>,
}

impl Gradients<'_> {
    /// An input, if it was not left out.
    pub fn get(&self, index: usize) -> Option<ValueId> {
        self.assembly.nodes()[self.node].inputs.get(index).copied().flatten()
    }

    /// An input that the operator cannot do without.
    ///
    /// # Panics
    /// If it is not there.
    pub fn input(&self, index: usize) -> ValueId {
        self.get(index).expect("a node has its required inputs")
    }

    /// How many inputs there are, those that were left out included.
    pub fn inputs(&self) -> usize {
        self.wanted.len()
    }

    /// An output.
    ///
    /// # Panics
    /// If there is none with this index.
    pub fn output(&self, index: usize) -> ValueId {
        self.assembly.nodes()[self.node].outputs[index]
    }

    /// How many outputs the node has.
    pub fn outputs(&self) -> usize {
        self.of_outputs.len()
    }

    /// The gradient of an output; `None` if the loss does not depend on it.
    pub fn of_output(&self, index: usize) -> Option<ValueId> {
        self.of_outputs.get(index).copied().flatten()
    }

    /// The gradient of the only output.
    ///
    /// # Panics
    /// If the loss does not depend on it; no gradient of such a node is asked for.
    pub fn of_only_output(&self) -> ValueId {
        self.of_output(0).expect("the loss depends on the node")
    }

    /// Whether the gradient of an input is needed.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// The type of a value.
    pub fn kind(&self, id: ValueId) -> &ValueType {
        &self.assembly.value(id).kind
    }

    /// Adds a node with one output.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn node(&mut self, operator: impl Operator + 'static, inputs: &[ValueId]) -> Result<ValueId> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.nodes(operator, &inputs, 1)?[0])
    }

    /// Adds a node with some outputs.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn nodes(
        &mut self,
        operator: impl Operator + 'static,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let name = self.assembly.nodes()[self.node].name.clone();
        self.assembly.derived(&format!("gradient of {name}"), Arc::new(operator), inputs, outputs)
    }

    /// A number, `[1]`.
    ///
    /// # Errors
    /// As [`Assembly::constant`].
    pub fn number(&mut self, v: f32) -> Result<ValueId> {
        self.assembly.number(v)
    }

    /// Whole numbers, a vector.
    ///
    /// # Errors
    /// As [`Assembly::constant`].
    pub fn whole(&mut self, numbers: &[i64]) -> Result<ValueId> {
        self.assembly.whole(Int::I64, numbers)
    }

    /// Zeros in the shape of a value.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn zeros_like(&mut self, like: ValueId) -> Result<ValueId> {
        let zero = self.number(0.0)?;
        self.node(ExpandLike, &[zero, like])
    }

    /// A value with the sign of each whole number turned.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn negative(&mut self, numbers: ValueId) -> Result<ValueId> {
        let element = self.kind(numbers).dtype;
        let Element::Int(int) = element else {
            return Err(self.missing("numbers that say what it does have no sign"));
        };
        let zero = self.assembly.whole(int, &[0])?;
        self.node(Whole { operation: Binary::Sub, element }, &[zero, numbers])
    }

    /// `a · b`, broadcast.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn times(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.node(Binary::Mul, &[a, b])
    }

    /// A function of a value, elementwise.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn map(&mut self, function: Function, x: ValueId) -> Result<ValueId> {
        let element = self.kind(x).dtype;
        self.node(Map { function, element }, &[x])
    }

    /// The gradient of the input of an activation, from that of its output. `x`, the input, is only needed where the
    /// slope cannot be told from the output.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn activation(
        &mut self,
        activation: Activation,
        dy: ValueId,
        x: Option<ValueId>,
        y: ValueId,
    ) -> Result<ValueId> {
        let value = if activation.slope_needs_input() { x.unwrap_or(y) } else { y };
        self.node(ActivationGradient(activation), &[dy, value])
    }

    /// The gradient of an input that has the same elements as the output in other dimensions.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn give_reshaped(&mut self, index: usize, gradient: ValueId) -> Result<()> {
        let input = self.input(index);
        let rank = self.kind(input).rank();
        if self.kind(input).unranked {
            return Err(self.missing("the number of dimensions of its input is not known before a run"));
        }
        let given = self.node(Reshape((0..rank).map(Extent::Like).collect()), &[gradient, input])?;
        self.give(index, given);
        Ok(())
    }

    /// The gradient of an input.
    pub fn give(&mut self, index: usize, gradient: ValueId) {
        self.of_inputs[index] = Some(gradient);
    }

    /// The gradient of an input that the operator broadcasts: the sum of what was computed for each copy.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn give_sum(&mut self, index: usize, gradient: ValueId) -> Result<()> {
        let input = self.input(index);
        let given = if self.assembly.alike(gradient, input) { gradient } else { self.node(SumTo, &[gradient, input])? };
        self.give(index, given);
        Ok(())
    }

    /// The gradient of an input from one with fewer elements, which is repeated.
    ///
    /// # Errors
    /// As [`Assembly::node`].
    pub fn give_repeated(&mut self, index: usize, gradient: ValueId) -> Result<()> {
        let input = self.input(index);
        let repeats = !self.assembly.alike(gradient, input);
        let given = if repeats { self.node(ExpandLike, &[gradient, input])? } else { gradient };
        self.give(index, given);
        Ok(())
    }

    /// That the operator has no gradient.
    pub fn missing(&self, reason: &str) -> Error {
        let node = &self.assembly.nodes()[self.node];
        Error::NoGradient { node: node.name.clone(), operator: node.operator.name(), reason: reason.into() }
    }
}

impl Assembly {
    /// Adds nodes that compute the gradient of `loss` with respect to each of some values; `None` for values on which
    /// it does not depend. A value with a gradient has the same shape as its gradient.
    ///
    /// # Errors
    /// [`Error::Input`] if `loss` is not one float; [`Error::NoGradient`] with the node whose operator has no gradient;
    /// errors of [`Self::node`].
    #[cfg(feature = "training")]
    pub fn gradients(&mut self, loss: ValueId, of: &[ValueId]) -> Result<Vec<Option<ValueId>>> {
        let kind = &self.value(loss).kind;
        let shape = kind.shape().filter(|s| s.iter().product::<usize>() == 1 && kind.dtype == DType::F32);
        let Some(shape) = shape else {
            let (name, got) = (self.value(loss).name.clone(), kind.to_string());
            return Err(Error::Input { name, expected: "one number of f32".into(), got });
        };
        let nodes = self.nodes().len();
        let float = |a: &Self, id: ValueId| a.value(id).kind.dtype.is_float();
        // What depends on the values.
        let mut depends = vec![false; self.count()];
        of.iter().for_each(|id| depends[id.0] = true);
        for node in self.nodes() {
            if node.inputs.iter().flatten().any(|i| depends[i.0] && float(self, *i)) {
                node.outputs.iter().for_each(|o| depends[o.0] = true);
            }
        }
        let mut gradients: Vec<Option<ValueId>> = vec![None; self.count()];
        let one = self.fresh("gradient");
        gradients[loss.0] = Some(self.constant(&one, &shape, Constant::Float([1.0].into()))?);
        for n in (0..nodes).rev() {
            let node = &self.nodes()[n];
            let of_outputs: Vec<_> = node.outputs.iter().map(|o| gradients[o.0]).collect();
            let inputs = node.inputs.clone();
            let wanted: Vec<bool> = inputs.iter().map(|i| i.is_some_and(|i| depends[i.0] && float(self, i))).collect();
            if of_outputs.iter().all(Option::is_none) || !wanted.contains(&true) {
                continue;
            }
            let operator = node.operator.clone();
            let of_inputs = vec![None; inputs.len()];
            let mut g = Gradients { assembly: self, node: n, of_outputs, wanted: wanted.clone(), of_inputs };
            operator.gradient(&mut g)?;
            let of_inputs = g.of_inputs;
            for ((input, gradient), wanted) in inputs.iter().zip(of_inputs).zip(wanted) {
                let (Some(input), Some(gradient), true) = (input, gradient, wanted) else { continue };
                gradients[input.0] = Some(match gradients[input.0] {
                    Some(other) => {
                        self.derived("sum of gradients", Arc::new(Binary::Add), &[Some(other), Some(gradient)], 1)?[0]
                    }
                    None => gradient,
                });
            }
        }
        Ok(of.iter().map(|id| gradients[id.0].filter(|_| float(self, *id))).collect())
    }

    /// A number, `[1]`.
    ///
    /// # Errors
    /// As [`Self::constant`].
    pub fn number(&mut self, v: f32) -> Result<ValueId> {
        let name = self.fresh("number");
        self.constant(&name, &[1], Constant::Float([v].into()))
    }

    /// Whole numbers of a type, a vector.
    ///
    /// # Errors
    /// As [`Self::constant`].
    pub fn whole(&mut self, int: Int, numbers: &[i64]) -> Result<ValueId> {
        let name = self.fresh("numbers");
        self.constant(&name, &[numbers.len()], Constant::Int(int, numbers.into()))
    }

    /// Adds a node whose outputs get names that nothing else has.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn derived(
        &mut self,
        name: &str,
        operator: Arc<dyn Operator>,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let first = self.fresh(name);
        let names: Vec<String> = (0..outputs).map(|n| format!("{first}:{n}")).collect();
        self.node(name, operator, inputs, &names)
    }

    /// Whether two values have the same shape in every run.
    fn alike(&self, a: ValueId, b: ValueId) -> bool {
        let (a, b) = (&self.value(a).kind, &self.value(b).kind);
        !a.unranked && !b.unranked && a.dims == b.dims && !a.dims.contains(&crate::Dim::Any)
    }

    /// A name that no value has, which starts with this one.
    pub fn fresh(&self, stem: &str) -> String {
        let mut n = self.count();
        loop {
            let name = format!("{stem}#{n}");
            if self.find(&name).is_none() && self.find(&format!("{name}:0")).is_none() {
                return name;
            }
            n += 1;
        }
    }
}

impl crate::Graph {
    /// The graph as an assembly to which more can be added, with the ids of its outputs.
    ///
    /// For each optional input it is decided whether it is given: one that is becomes a required input, and of one that
    /// is not nothing is left, nor of the nodes that cannot do without it. Parameters become inputs of the same name,
    /// behind the graph's own inputs, so that they can change from run to run.
    ///
    /// # Errors
    /// [`Error::Operand`] if an operator only reads weights that do not change.
    pub fn open(&self, given: impl Fn(&str) -> bool) -> Result<(Assembly, Vec<(String, ValueId)>)> {
        let mut assembly = Assembly::new(false);
        let mut ids: Vec<Option<ValueId>> = vec![None; self.values.len()];
        for &id in &self.inputs {
            let value = &self.values[id.0];
            if !value.optional || given(&value.name) {
                ids[id.0] = Some(assembly.input(&value.name, value.kind.clone(), false)?);
            }
        }
        for (n, value) in self.values.iter().enumerate() {
            match &value.source {
                Source::Parameter => ids[n] = Some(assembly.input(&value.name, value.kind.clone(), false)?),
                Source::Constant(c) => {
                    let dims: Vec<usize> = value.kind.sizes().collect();
                    ids[n] = Some(assembly.constant(&value.name, &dims, c.clone())?);
                }
                Source::Input(_) | Source::Node { .. } => {}
            }
        }
        for node in &self.nodes {
            let inputs: Vec<_> = node.inputs.iter().map(|i| i.and_then(|i| ids[i.0])).collect();
            if !crate::graph::complete(node, |i| inputs[i].is_some()) {
                continue;
            }
            let any = node.operator.as_any();
            if any.is::<FirstGiven>() || any.is::<IfGiven>() {
                // It passes one of its inputs on as it is.
                ids[node.outputs[0].0] = inputs.iter().flatten().next().copied();
                continue;
            }
            let names: Vec<String> = node.outputs.iter().map(|o| self.values[o.0].name.clone()).collect();
            let made = assembly.node(&node.name, node.operator.clone(), &inputs, &names)?;
            node.outputs.iter().zip(made).for_each(|(o, id)| ids[o.0] = Some(id));
        }
        let outputs = self.outputs.iter().filter_map(|(name, id)| Some((name.clone(), ids[id.0]?))).collect();
        Ok((assembly, outputs))
    }
}
