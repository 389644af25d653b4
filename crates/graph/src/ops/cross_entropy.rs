//! Cross-entropies with the numbers of classes.

use super::ctc::is_label;
use super::prelude::*;
use crate::Data;

/// The cross-entropies `[…]` of rows of logits `[…, C]` with the numbers of their classes, `[…]`
/// ([`Tensor::cross_entropy`]). The second output is for the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// How far targets are moved towards equal probabilities.
    pub smoothing: f32,
}

/// The gradient of the logits of a [`CrossEntropy`]. Inputs: those of the loss, the gradient of the values, and what the
/// loss kept for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropyGradient {
    /// How far targets are moved towards equal probabilities.
    pub smoothing: f32,
}

/// Labels on the device; those of host memory that are no ids are beyond all classes.
pub(super) fn labels_of(call: &Call<'_>, index: usize) -> Result<Tensor> {
    match call.data(index) {
        Data::Tensor(t) => Ok(t.clone()),
        Data::Ints(labels) => {
            let ids: Vec<u32> = labels.data().iter().map(|&l| u32::try_from(l).unwrap_or(u32::MAX)).collect();
            Tensor::from_u32(&ids, labels.dims(), call.device)
        }
    }
}

/// Checks the types of logits and labels. Returns that of the values.
fn check(inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
    let (x, labels) = (float(inputs, 0)?, required(inputs, 1)?);
    let Some((_, rows)) = x.dims.split_last().filter(|_| x.dtype == DType::F32) else {
        return Err(Fault::Input(0, "f32 of one or more dimensions".into()));
    };
    let fits = labels.rank() == rows.len() && rows.iter().zip(&labels.dims).all(|(a, b)| a.meet(b).is_some());
    if !fits || !is_label(labels) {
        return Err(Fault::Input(1, format!("whole numbers in the shape of {x} without its last axis")));
    }
    Ok(x.with_dims(rows.to_vec()))
}

impl Operator for CrossEntropy {
    fn name(&self) -> &'static str {
        "CrossEntropy"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("logits"), Slot::Required("labels")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        Ok(vec![check(inputs)?; 2])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (values, sums) = call.input(0).cross_entropy(&labels_of(call, 1)?, self.smoothing)?;
        Ok([values, sums].into_iter().map(|t| Some(t.into())).collect())
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, labels) = (array(inputs, 0), array(inputs, 1));
        let classes = x.last();
        let s = f64::from(self.smoothing);
        let mut values = labels.clone();
        let mut sums = labels.clone();
        for (row, x) in x.data.chunks_exact(classes).enumerate() {
            let highest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum = highest + x.iter().map(|v| (v - highest).exp()).sum::<f64>().ln();
            let label = labels.data[row];
            let own = (label >= 0.0 && label < classes as f64).then(|| x[label as usize]);
            let mean = x.iter().sum::<f64>() / classes as f64;
            let smooth = if s > 0.0 { s * mean } else { 0.0 };
            values.data[row] = own.map_or(f64::NAN, |own| sum - (1.0 - s) * own - smooth);
            sums.data[row] = sum;
        }
        vec![Some(values), Some(sums)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        if g.outputs() < 2 {
            return Err(g.missing("what it keeps for the gradient is not among its outputs"));
        }
        let Some(dy) = g.of_output(0).filter(|_| g.of_output(1).is_none()) else {
            return Err(g.missing("the loss depends on what it keeps"));
        };
        let gradient = CrossEntropyGradient { smoothing: self.smoothing };
        let dx = g.node(gradient, &[g.input(0), g.input(1), dy, g.output(1)])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for CrossEntropyGradient {
    fn name(&self) -> &'static str {
        "CrossEntropyGradient"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("logits"), Slot::Required("labels"), Slot::Required("dy"), Slot::Required("sums")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        check(inputs)?;
        Ok(vec![float(inputs, 0)?.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let labels = labels_of(call, 1)?;
        Ok(one(call.input(0).cross_entropy_gradient(&labels, [call.input(3), call.input(2)], self.smoothing)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [x, labels, dy, sums] = [0, 1, 2, 3].map(|n| array(inputs, n));
        let classes = x.last();
        let s = f64::from(self.smoothing);
        let mut out = x.clone();
        for (row, out) in out.data.chunks_exact_mut(classes).enumerate() {
            let dy = dy.data[row];
            for (class, o) in out.iter_mut().enumerate() {
                let own = labels.data[row].trunc() == class as f64 && labels.data[row] >= 0.0;
                let wanted = s / classes as f64 + if own { 1.0 - s } else { 0.0 };
                *o = if dy == 0.0 { 0.0 } else { dy * ((*o - sums.data[row]).exp() - wanted) };
            }
        }
        vec![Some(out)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
