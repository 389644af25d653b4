//! CTC losses.

use super::cross_entropy::labels_of;
use super::prelude::*;
use crate::{Data, Element};
use recurve_reference::Real;
use recurve_tensor::CtcRule;

/// The CTC losses `[B]` of a prediction `[B, T, C]` with labels `[B, S]` ([`Tensor::ctc`]), where `valid` may be lengths
/// `[B]` or a mask `[B, T]`. The second output is for the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ctc(pub CtcRule);

/// The gradient of the prediction of a [`Ctc`]. Inputs: those of the loss, the gradient of the losses, the losses, and
/// what the loss kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtcGradient(pub CtcRule);

const X: usize = 0;
const LABELS: usize = 1;
const VALID: usize = 2;
const DY: usize = 3;

/// Checks the types of prediction, labels and what is valid. Returns batch and timesteps.
fn check(rule: CtcRule, inputs: &[Option<&ValueType>]) -> Result<(Dim, Dim), Fault> {
    let (x, labels) = (float(inputs, X)?, required(inputs, LABELS)?);
    let [batch, timesteps, classes] = &x.dims[..] else {
        return Err(Fault::Input(X, "of the shape [batch, timesteps, classes]".into()));
    };
    if x.dtype != DType::F32 {
        return Err(Fault::Input(X, "f32".into()));
    }
    if let Some(classes) = classes.size().filter(|&c| rule.blank >= c) {
        let message = format!("must be one of {classes} classes, but it is {}", rule.blank);
        return Err(Fault::Attribute("blank", message));
    }
    let same = |a: &Dim, b: &Dim| a.meet(b).is_some();
    match &labels.dims[..] {
        [rows, _] if same(rows, batch) && is_label(labels) => {}
        _ => return Err(Fault::Input(LABELS, format!("whole numbers of the shape [{batch}, labels]"))),
    }
    if let Some(valid) = inputs.get(VALID).copied().flatten() {
        let fits = match &valid.dims[..] {
            [rows] => same(rows, batch),
            [rows, times] => same(rows, batch) && same(times, timesteps),
            _ => false,
        };
        if !(valid.dtype == Element::U32 || valid.dtype.is_whole()) || !fits {
            return Err(Fault::Input(
                VALID,
                format!("whole numbers or truth values of the shape [{batch}] or [{batch}, {timesteps}]"),
            ));
        }
    }
    Ok((batch.clone(), timesteps.clone()))
}

/// Whether a type is one of labels.
pub(super) fn is_label(t: &ValueType) -> bool {
    t.dtype == Element::U32 || t.dtype == Element::F32 || t.dtype.is_whole()
}

/// What is valid, as U32.
fn valid_of(call: &Call<'_>) -> Result<Option<Tensor>> {
    match call.get(VALID) {
        // Truth values that a device computed are f32.
        Some(Data::Tensor(t)) if t.dtype() == DType::F32 && t.shape().rank() == 2 => {
            let &[batch, timesteps] = t.dims() else { unreachable!("two dimensions, as was seen") };
            t.reshape(&[batch, timesteps, 1])?.mask(0.0).map(Some)
        }
        Some(_) => labels_of(call, VALID).map(Some),
        None => Ok(None),
    }
}

/// Calls `f` for each sequence with its part of x and its loss as a function of that; `None` if labels or lengths are not
/// valid.
fn each(rule: CtcRule, inputs: &[Option<&Array>], mut f: impl FnMut(usize, &[f64], Option<(&[usize], &[bool])>)) {
    let (x, labels) = (array(inputs, X), array(inputs, LABELS));
    let &[_, timesteps, classes] = &x.dims[..] else { unreachable!("checked to have three dimensions") };
    for (row, x) in x.data.chunks_exact(timesteps * classes).enumerate() {
        let own = &labels.data[row * labels.last()..][..labels.last()];
        let is_class = |v: &f64| *v >= 0.0 && *v < classes as f64;
        let used = own.iter().position(|&l| l as usize == rule.blank && is_class(&l)).unwrap_or(own.len());
        let mut fits = own[..used].iter().all(is_class);
        fits &= own[used..].iter().all(|&l| l as usize == rule.blank && is_class(&l));
        let valid: Vec<bool> = match inputs.get(VALID).copied().flatten() {
            None => vec![true; timesteps],
            Some(v) if v.dims.len() == 1 => {
                fits &= v.data[row] <= timesteps as f64;
                (0..timesteps).map(|t| (t as f64) < v.data[row]).collect()
            }
            Some(v) => v.data[row * timesteps..][..timesteps].iter().map(|&v| v != 0.0).collect(),
        };
        let own: Vec<usize> = own[..used].iter().map(|&l| l as usize).collect();
        f(row, x, fits.then_some((&own, &valid)));
    }
}

fn loss_of<R: Real>(rule: CtcRule, x: &[R], classes: usize, (labels, valid): (&[usize], &[bool])) -> R {
    let CtcRule { blank, from_logits, .. } = rule;
    recurve_reference::ctc(&recurve_reference::Ctc { x, classes, labels, valid, blank, from_logits })
}

impl Operator for Ctc {
    fn name(&self) -> &'static str {
        "Ctc"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("prediction"), Slot::Required("labels"), Slot::Optional("valid")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (batch, timesteps) = check(self.0, inputs)?;
        let x = float(inputs, X)?;
        Ok(vec![x.with_dims(vec![batch.clone()]), x.with_dims(vec![batch, timesteps, Dim::Any])])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let labels = labels_of(call, LABELS)?;
        let (losses, paths) = call.input(X).ctc(&labels, valid_of(call)?.as_ref(), self.0)?;
        Ok([losses, paths].into_iter().map(|t| Some(t.into())).collect())
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, X);
        let mut losses = Array::new(&x.dims[..1], vec![f64::NAN; x.dims[0]]);
        each(self.0, inputs, |row, own, path| {
            let Some(path) = path else { return };
            let loss = loss_of(self.0, own, x.last(), path);
            losses.data[row] = if self.0.zero_infinity && loss == f64::INFINITY { 0.0 } else { loss };
        });
        // The truth of the gradient is computed anew.
        vec![Some(losses), None]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        if g.outputs() < 2 {
            return Err(g.missing("what it keeps for the gradient is not among its outputs"));
        }
        if g.of_output(1).is_some() {
            return Err(g.missing("the loss depends on what it keeps"));
        }
        let inputs = [
            Some(g.input(X)),
            Some(g.input(LABELS)),
            g.get(VALID),
            g.of_output(0),
            Some(g.output(0)),
            Some(g.output(1)),
        ];
        let dx = g.nodes(CtcGradient(self.0), &inputs, 1)?[0];
        g.give(X, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for CtcGradient {
    fn name(&self) -> &'static str {
        "CtcGradient"
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("prediction"),
            Slot::Required("labels"),
            Slot::Optional("valid"),
            Slot::Required("dy"),
            Slot::Required("losses"),
            // The reference does not need it.
            Slot::Optional("paths"),
        ]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        check(self.0, inputs)?;
        Ok(vec![float(inputs, X)?.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let labels = labels_of(call, LABELS)?;
        let paths = call.optional(DY + 2).ok_or_else(|| recurve_tensor::Error::Argument {
            operation: "CtcGradient",
            argument: "paths",
            message: "must be what the loss kept".into(),
        })?;
        let kept = [call.input(DY + 1), paths, call.input(DY)];
        Ok(one(call.input(X).ctc_gradient(&labels, valid_of(call)?.as_ref(), self.0, kept)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, dy) = (array(inputs, X), array(inputs, DY));
        let classes = x.last();
        let mut out = x.clone();
        let size = x.dims[1] * classes;
        each(self.0, inputs, |row, own, path| {
            let out = &mut out.data[row * size..][..size];
            let dy = dy.data[row];
            let Some((labels, valid)) = path.filter(|_| dy != 0.0) else {
                return out.fill(if dy == 0.0 { 0.0 } else { f64::NAN });
            };
            let loss = loss_of(self.0, own, classes, (labels, valid));
            if loss == f64::INFINITY {
                let v = if self.0.zero_infinity { 0.0 } else { f64::NAN };
                out.chunks_exact_mut(classes).zip(valid).for_each(|(o, &there)| o.fill(if there { v } else { 0.0 }));
                return;
            }
            let by = |vars: &[recurve_reference::Var]| vec![(loss_of(self.0, vars, classes, (labels, valid)), dy)];
            out.copy_from_slice(&recurve_reference::gradient(own, by));
        });
        vec![Some(out)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
