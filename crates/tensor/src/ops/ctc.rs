//! Connectionist temporal classification: Graves et al. 2006, "Connectionist temporal classification: labelling
//! unsegmented sequence data with recurrent neural networks" (`ctc_labels.wgsl`, `ctc_paths.wgsl`, `ctc_gradient.wgsl`).

use super::cross_entropy::{class_of, shares_into};
use crate::cpu::host;
use crate::cpu::threads::prelude::*;
use crate::{DType, Device, Error, Reduction, Result, Shape, Tensor};

const CTC: &str = "ctc";

/// What a [CTC loss](Tensor::ctc) is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtcRule {
    /// The class that stands between labels and for nothing.
    pub blank: usize,
    /// The input is logits, whose softmax the probabilities are; otherwise it is the logarithms of probabilities.
    pub from_logits: bool,
    /// The loss of labels that no path has, because there are too few timesteps, is 0, with gradient 0. Otherwise it is
    /// infinite, and its gradient is NaN.
    pub zero_infinity: bool,
}

/// The logarithm of 0. It is finite, so that differences of it are no NaN.
const LOW: f32 = -1e30;

fn floored(v: f32) -> f32 {
    if v < LOW { LOW } else { v }
}

/// Whether a logarithm is that of 0, but for what was added to it.
fn is_none(v: f32) -> bool {
    v <= 0.5 * LOW
}

/// `ln(e^a + e^b + e^c)`
fn joined(v: [f32; 3]) -> f32 {
    if v.into_iter().all(is_none) {
        return LOW;
    }
    let high = v[0].max(v[1]).max(v[2]);
    let sum: f32 = v.iter().map(|v| (v - high).exp()).sum();
    high + sum.ln()
}

/// A batch on the CPU.
struct Sequences<'a> {
    x: &'a [f32],
    /// The logarithms of the sums of exponentials, for logits.
    sums: Option<&'a [f32]>,
    labels: Box<dyn Fn(usize) -> Option<usize> + Sync + 'a>,
    valid: Option<&'a [u32]>,
    /// What is valid is given as lengths.
    lengths: bool,
    rule: CtcRule,
    timesteps: usize,
    classes: usize,
    /// Labels of a sequence, at most.
    most: usize,
}

impl<'a> Sequences<'a> {
    fn new(
        x: &'a Tensor,
        labels: &'a Tensor,
        valid: Option<&'a Tensor>,
        rule: CtcRule,
        sums: Option<&'a Tensor>,
    ) -> Self {
        let &[_, timesteps, classes] = x.dims() else { unreachable!("checked to have three dimensions") };
        Self {
            x: x.cpu_f32().expect("f32 on the CPU"),
            sums: sums.map(|s| s.cpu_f32().expect("f32 on the CPU")),
            labels: class_of(labels, classes),
            valid: valid.map(|v| v.cpu_u32().expect("u32 on the CPU")),
            lengths: valid.is_some_and(|v| v.shape().rank() == 1),
            rule,
            timesteps,
            classes,
            most: labels.shape().last(),
        }
    }

    /// The classes of a path's places: the labels of a sequence, with blanks around them. `None` if labels or lengths
    /// are not valid.
    fn path(&self, row: usize) -> Result<Option<Vec<usize>>> {
        let mut path: Vec<usize> = host(CTC, 2 * self.most + 1)?;
        let mut used = None;
        for n in 0..self.most {
            path[2 * n] = self.rule.blank;
            match ((self.labels)(row * self.most + n), used) {
                (Some(label), _) if label == self.rule.blank => used = used.or(Some(n)),
                (Some(label), None) => path[2 * n + 1] = label,
                _ => return Ok(None),
            }
        }
        let used = used.unwrap_or(self.most);
        path[2 * used] = self.rule.blank;
        path.truncate(2 * used + 1);
        let fits = !self.lengths || self.valid.is_none_or(|v| v[row] as usize <= self.timesteps);
        Ok(fits.then_some(path))
    }

    fn is_valid(&self, row: usize, t: usize) -> bool {
        match self.valid {
            Some(v) if self.lengths => t < v[row] as usize,
            Some(v) => v[row * self.timesteps + t] != 0,
            None => true,
        }
    }

    /// The input at a timestep, and what is taken from it.
    fn input(&self, row: usize, t: usize) -> (&'a [f32], f32) {
        let at = row * self.timesteps + t;
        (&self.x[at * self.classes..][..self.classes], self.sums.map_or(0.0, |s| s[at]))
    }

    /// Goes through timesteps, with the places of the path in the order of the pass: `each` gets the logarithms of the
    /// probabilities of the places after every timestep, less what was taken from all of them. Returns the sum of that.
    fn pass(
        &self,
        row: usize,
        path: &[usize],
        times: impl Iterator<Item = usize>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<f64> {
        let (mut now, mut before) = (host(CTC, path.len())?, host(CTC, path.len())?);
        now.fill(LOW);
        now[0] = 0.0;
        let mut taken = 0.0;
        for t in times {
            if self.is_valid(row, t) {
                std::mem::swap(&mut now, &mut before);
                let (x, sum) = self.input(row, t);
                let mut highest = LOW;
                for (q, now) in now.iter_mut().enumerate() {
                    // From label to label without a blank, unless they are equal; blanks always are.
                    let skips = q > 1 && path[q] != path[q - 2];
                    let from =
                        [before[q], if q > 0 { before[q - 1] } else { LOW }, if skips { before[q - 2] } else { LOW }];
                    *now = floored(joined(from) + floored(x[path[q]] - sum));
                    highest = highest.max(*now);
                }
                if !is_none(highest) {
                    now.iter_mut().for_each(|v| *v = floored(*v - highest));
                    taken += f64::from(highest);
                }
            }
            each(t, &now);
        }
        Ok(taken)
    }

    /// The logarithm of what a path ends with.
    fn end(places: &[f32]) -> f32 {
        let n = places.len();
        joined([places[n - 1], if n > 1 { places[n - 2] } else { LOW }, LOW])
    }

    /// The loss of a sequence, and the places of its path after each timestep.
    fn forward(&self, row: usize, paths: &mut [f32]) -> Result<f32> {
        let width = 2 * self.most + 1;
        let Some(path) = self.path(row)? else { return Ok(f32::NAN) };
        let taken = self.pass(row, &path, 0..self.timesteps, |t, now| {
            paths[t * width..][..now.len()].copy_from_slice(now);
        })?;
        let end = Self::end(&paths[(self.timesteps - 1) * width..][..path.len()]);
        Ok(match is_none(end) {
            true if self.rule.zero_infinity => 0.0,
            true => f32::INFINITY,
            false => -(taken + f64::from(end)) as f32,
        })
    }

    /// The gradient of the input of a sequence.
    fn backward(&self, row: usize, paths: &[f32], [loss, dy]: [f32; 2], out: &mut [f32]) -> Result<()> {
        let (width, classes) = (2 * self.most + 1, self.classes);
        let path = self.path(row)?.filter(|_| loss.is_finite());
        let hopeless = path.as_ref().is_some_and(|p| {
            let end = &paths[(self.timesteps - 1) * width..][..p.len()];
            is_none(Self::end(end))
        });
        for (t, out) in out.chunks_exact_mut(classes).enumerate() {
            match (&path, self.sums) {
                _ if dy == 0.0 || hopeless || !self.is_valid(row, t) => out.fill(0.0),
                (None, _) => out.fill(f32::NAN),
                (_, None) => out.fill(0.0),
                (_, Some(_)) => {
                    let (x, sum) = self.input(row, t);
                    shares_into(x, sum, out);
                }
            }
        }
        let Some(path) = path.filter(|_| dy != 0.0 && !hopeless) else { return Ok(()) };
        let reversed: Vec<usize> = path.iter().rev().copied().collect();
        let mut shares = host::<f32>(CTC, path.len())?;
        self.pass(row, &reversed, (0..self.timesteps).rev(), |t, ends| {
            if !self.is_valid(row, t) {
                return;
            }
            let (x, sum) = self.input(row, t);
            let mut highest = f32::NEG_INFINITY;
            for (s, share) in shares.iter_mut().enumerate() {
                *share = paths[t * width + s] + ends[path.len() - 1 - s] - floored(x[path[s]] - sum);
                highest = highest.max(*share);
            }
            shares.iter_mut().for_each(|s| *s = (*s - highest).exp());
            let all: f32 = super::reduce::sum(shares.iter().copied()) as f32;
            let out = &mut out[t * classes..][..classes];
            path.iter().zip(&shares).for_each(|(&class, share)| out[class] -= share / all);
        })?;
        out.iter_mut().for_each(|o| *o *= dy);
        Ok(())
    }
}

impl Tensor {
    /// CTC losses `[B]` of a batch `[B, T, C]`: the negative logarithm of the probability of all paths, which have a
    /// class at each timestep and of which the labels remain when equal neighbours are merged and blanks dropped.
    ///
    /// `labels`, `[B, S]`, are those of each sequence, up to the first blank if there is one; behind it there may only
    /// be blanks. `valid` says which timesteps there are: lengths `[B]`, or a mask `[B, T]`, U32. The loss of a sequence
    /// whose labels are no classes, or whose length is beyond T, is NaN.
    ///
    /// The second tensor, `[B, T, 2 S + 1]`, is for [`Self::ctc_gradient`].
    ///
    /// # Errors
    /// [`Error::DType`] unless `self` is f32, labels are f32 or U32, and `valid` is U32; [`Error::Shape`] for other
    /// shapes; [`Error::Argument`] for a blank that is no class; [`Error::Device`] for operands on different devices;
    /// [`Error::Unsupported`] for more labels or classes than the device can go through in one dispatch.
    pub fn ctc(&self, labels: &Self, valid: Option<&Self>, rule: CtcRule) -> Result<(Self, Self)> {
        let shape = self.check_ctc(labels, valid, rule)?;
        match self.device() {
            Device::Cpu => {
                let sums = if rule.from_logits { Some(self.reduce(Reduction::LogSumExp, 2)?) } else { None };
                let s = Sequences::new(self, labels, valid, rule, sums.as_ref());
                let mut losses = host::<f32>(CTC, shape[0])?;
                let paths = Self::cpu_write(shape, |out| {
                    let all = out.par_chunks_exact_mut(shape[1] * shape[2]).zip(losses.par_chunks_mut(1));
                    all.enumerate().try_for_each(|(row, (paths, loss))| {
                        loss[0] = s.forward(row, paths)?;
                        Ok(())
                    })
                })?;
                Ok((Self::from_f32(&losses, &[shape[0]], &Device::Cpu)?, paths))
            }
            Device::Gpu(gpu) => gpu.ctc(self, labels, valid, rule),
        }
    }

    /// The gradient of the input of [`Self::ctc`], from the losses and the paths that it gave and from the gradients of
    /// the losses. That of an input of logarithms of probabilities is their derivative, `-γ` with the probability γ that
    /// a path has a class at a timestep; that of logits is `p - γ`.
    ///
    /// # Errors
    /// As [`Self::ctc`].
    pub fn ctc_gradient(
        &self,
        labels: &Self,
        valid: Option<&Self>,
        rule: CtcRule,
        [losses, paths, dy]: [&Self; 3],
    ) -> Result<Self> {
        let shape = self.check_ctc(labels, valid, rule)?;
        for (argument, t, dims) in
            [("losses", losses, &shape[..1]), ("paths", paths, &shape[..]), ("dy", dy, &shape[..1])]
        {
            t.check_dtype(CTC, argument, "f32", t.dtype() == DType::F32)?;
            self.check_same_device(t, CTC, argument)?;
            if t.dims() != dims {
                return Err(Error::shape(CTC, argument, format!("{dims:?}"), t.shape()));
            }
        }
        match self.device() {
            Device::Cpu => {
                let sums = if rule.from_logits { Some(self.reduce(Reduction::LogSumExp, 2)?) } else { None };
                let s = Sequences::new(self, labels, valid, rule, sums.as_ref());
                let [losses, paths, dy] = [losses, paths, dy].map(|t| t.cpu_f32().expect("f32 on the CPU"));
                let size = shape[1] * shape[2];
                Self::cpu_write(*self.shape(), |out| {
                    out.par_chunks_exact_mut(shape[1] * s.classes).enumerate().try_for_each(|(row, out)| {
                        s.backward(row, &paths[row * size..][..size], [losses[row], dy[row]], out)
                    })
                })
            }
            Device::Gpu(gpu) => gpu.ctc_gradient(self, labels, valid, rule, [losses, paths, dy]),
        }
    }

    /// The shape of the paths, if the operands fit.
    fn check_ctc(&self, labels: &Self, valid: Option<&Self>, rule: CtcRule) -> Result<Shape> {
        self.check_dtype(CTC, "self", "f32", self.dtype() == DType::F32)?;
        labels.check_dtype(CTC, "labels", "f32 or u32", labels.dtype() != DType::F16)?;
        self.check_same_device(labels, CTC, "labels")?;
        let &[batch, timesteps, classes] = self.dims() else {
            return Err(Error::shape(CTC, "self", "[batch, timesteps, classes]", self.shape()));
        };
        let &[rows, most] = labels.dims() else {
            return Err(Error::shape(CTC, "labels", format!("[{batch}, labels]"), labels.shape()));
        };
        if rows != batch {
            return Err(Error::shape(CTC, "labels", format!("[{batch}, labels]"), labels.shape()));
        }
        if rule.blank >= classes {
            let message = format!("must be one of {classes} classes, but it is {}", rule.blank);
            return Err(Error::Argument { operation: CTC, argument: "blank", message });
        }
        if let Some(valid) = valid {
            valid.check_dtype(CTC, "valid", "u32", valid.dtype() == DType::U32)?;
            self.check_same_device(valid, CTC, "valid")?;
            if valid.dims() != [batch] && valid.dims() != [batch, timesteps] {
                let expected = format!("[{batch}] or [{batch}, {timesteps}]");
                return Err(Error::shape(CTC, "valid", expected, valid.shape()));
            }
        }
        Shape::checked(CTC, &[batch, timesteps, most.saturating_mul(2).saturating_add(1)])
    }
}
