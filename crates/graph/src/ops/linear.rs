//! A fully connected layer.

use super::prelude::*;
use super::weights::Product;
use crate::{HostInputs, Packed};
use recurve_tensor::{Device, MatmulOptions};
use recurve_vocabulary::Activation;

/// `y = f(x · W + b)` over the last dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// Whether W is `[units, features]`, as PyTorch stores it; otherwise it is `[features, units]`, as Keras and ONNX
    /// do.
    pub transposed: bool,
    /// The activation function `f`.
    pub activation: Activation,
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("weight"), Slot::Optional("bias")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, weight) = (float(inputs, 0)?, float(inputs, 1)?);
        let (units, features) = match (&weight.dims[..], self.transposed) {
            ([units, features], true) | ([features, units], false) => (units, features),
            (_, true) => return Err(Fault::Input(1, "[units, features]".into())),
            (_, false) => return Err(Fault::Input(1, "[features, units]".into())),
        };
        let mut dims = x.dims.clone();
        match &mut dims[..] {
            [_, .., last] if last.meet(features).is_some() => *last = units.clone(),
            _ => return Err(Fault::Input(0, format!("[…, rows, features] with {features} features"))),
        }
        if let Some(bias) = inputs.get(2).copied().flatten()
            && !matches!(&bias.dims[..], [n] if n.meet(units).is_some())
        {
            return Err(Fault::Input(2, format!("[units] with {units} units")));
        }
        Ok(vec![x.with_dims(dims)])
    }
    fn host_inputs(&self) -> Option<usize> {
        Some(1)
    }
    fn takes_any_weights(&self) -> bool {
        true
    }
    fn packs_on(&self, device: &Device) -> bool {
        *device == Device::Cpu
    }
    fn pack(&self, host: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(Some(Box::new(Product::new(host, self.transposed)?)))
    }
    fn packs_like(&self, other: &dyn Operator) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|o| o.transposed == self.transposed)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let bias = call.optional(2);
        if let Some(product) = call.packed.and_then(|p| p.downcast_ref::<Product>()) {
            let y = product.run(call.input(0), call.optional(1), bias, self.transposed, self.activation)?;
            return Ok(one(y));
        }
        let options = MatmulOptions {
            transpose_rhs: self.transposed,
            bias,
            activation: self.activation,
            ..MatmulOptions::default()
        };
        Ok(one(call.input(0).matmul_with(call.input(1), &options)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, w) = (array(inputs, 0), array(inputs, 1));
        let bias = inputs.get(2).copied().flatten().map_or(&[][..], |b| &b.data);
        let (k, n) = (x.last(), w.dims[usize::from(!self.transposed)]);
        let rows = Array::from_fn(&[n, k], |i| if self.transposed { w.at(i) } else { w.at(&[i[1], i[0]]) });
        let y = recurve_reference::matmul(&x.data, &rows.data, bias, [x.data.len() / k, k, n], self.activation);
        let mut dims = x.dims.clone();
        *dims.last_mut().expect("checked to have dimensions") = n;
        vec![Some(Array::new(&dims, y))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, w) = (g.of_only_output(), g.input(0), g.input(1));
        let dy = if self.activation == Activation::Linear {
            dy
        } else if !self.activation.slope_needs_input() {
            let y = g.output(0);
            g.activation(self.activation, dy, None, y)?
        } else {
            let inputs: Vec<_> = (0..g.inputs()).map(|n| g.get(n)).collect();
            let sums = g.nodes(Self { activation: Activation::Linear, ..*self }, &inputs, 1)?[0];
            let y = g.output(0);
            g.activation(self.activation, dy, Some(sums), y)?
        };
        if g.wants(0) {
            let dx = g.node(Self { transposed: !self.transposed, activation: Activation::Linear }, &[dy, w])?;
            g.give(0, dx);
        }
        // The rows of all leading dimensions together.
        let rows = |g: &mut Gradients<'_>, v: crate::ValueId| {
            let rank = g.kind(v).rank();
            g.node(super::Reshape(vec![super::Extent::Axes(0, rank - 1), super::Extent::Axes(rank - 1, 1)]), &[v])
        };
        if g.wants(1) {
            let (d, x) = (rows(g, dy)?, rows(g, x)?);
            let (left, right) = if self.transposed { (d, x) } else { (x, d) };
            let dw = g.node(super::Gemm::of_columns(), &[left, right])?;
            g.give(1, dw);
        }
        if g.wants(2) {
            g.give_sum(2, dy)?;
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
