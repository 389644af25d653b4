//! Labels for CTC losses.

use crate::error::check;
use crate::loss::is_class;
use crate::{Error, Result};
use recurve_tensor::{Device, Tensor};

/// The labels of sequences for a CTC loss ([`crate::LossKind::Ctc`]), in host memory, where they can be checked.
///
/// ```
/// use recurve_tensor::Device;
/// use recurve_train::CtcTargets;
/// // PyTorch's two forms of `targets`, with `target_lengths`.
/// let one = CtcTargets::concatenated(&[3, 1, 2, 2], &[1, 3])?;
/// assert_eq!(one, CtcTargets::padded(&[3, 9, 9, 1, 2, 2], &[1, 3])?);
/// // Classes, blank, timesteps, and how many of them each sequence has.
/// one.check(4, 0, 10, Some(&[10, 7]))?;
/// assert_eq!(one.tensor(0, &Device::Cpu)?.to_vec_u32()?, [3, 0, 0, 1, 2, 2]);
/// # Ok::<(), recurve_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtcTargets {
    labels: Vec<i64>,
    lengths: Vec<usize>,
}

const CTC: &str = "CTC targets";

impl CtcTargets {
    /// Of labels one sequence after the other.
    ///
    /// # Errors
    /// [`Error::Option`] unless there are as many labels as the lengths say, of at least one sequence.
    pub fn concatenated(labels: &[i64], lengths: &[usize]) -> Result<Self> {
        check(CTC, "lengths", !lengths.is_empty(), || "must be of at least one sequence".into())?;
        let sum = lengths.iter().try_fold(0usize, |sum, &l| sum.checked_add(l));
        check(CTC, "labels", sum == Some(labels.len()), || {
            format!("are {}, but the lengths {lengths:?} ask for another number", labels.len())
        })?;
        Ok(Self { labels: labels.to_vec(), lengths: lengths.to_vec() })
    }

    /// Of rows of equal length, of which the first labels count.
    ///
    /// # Errors
    /// [`Error::Option`] unless there are rows, as many as lengths, that are long enough.
    pub fn padded(labels: &[i64], lengths: &[usize]) -> Result<Self> {
        check(CTC, "lengths", !lengths.is_empty(), || "must be of at least one sequence".into())?;
        let row = labels.len() / lengths.len();
        check(CTC, "labels", row * lengths.len() == labels.len(), || {
            format!("are {}, which are no rows for {} sequences", labels.len(), lengths.len())
        })?;
        if let Some(n) = lengths.iter().position(|&l| l > row) {
            let message = format!("must be at most {row}, the length of a row, but length {n} is {}", lengths[n]);
            return Err(Error::Option { of: CTC, argument: "lengths", message });
        }
        let own = lengths.iter().enumerate().flat_map(|(n, &l)| &labels[n * row..][..l]);
        Ok(Self { labels: own.copied().collect(), lengths: lengths.to_vec() })
    }

    /// Checks that every label is a class but not the blank, and that no sequence has more timesteps than there are.
    /// `lengths` are the timesteps of each sequence, if they differ. That a sequence has too few timesteps for its
    /// labels is no error: its loss is infinite, or 0.
    ///
    /// # Errors
    /// [`Error::Label`] or [`Error::Option`].
    pub fn check(&self, classes: usize, blank: usize, timesteps: usize, lengths: Option<&[usize]>) -> Result<()> {
        check(CTC, "blank", blank < classes, || format!("must be one of {classes} classes, but it is {blank}"))?;
        for (index, &label) in self.labels.iter().enumerate() {
            if !is_class(label, classes) {
                return Err(Error::Label { index, label, classes });
            }
            check(CTC, "labels", label != blank as i64, || {
                format!("must not be the blank {blank}, but label {index} is")
            })?;
        }
        let Some(lengths) = lengths else { return Ok(()) };
        check(CTC, "lengths", lengths.len() == self.lengths.len(), || {
            format!("must be one for each of {} sequences, but there are {}", self.lengths.len(), lengths.len())
        })?;
        match lengths.iter().position(|&l| l > timesteps) {
            None => Ok(()),
            Some(n) => {
                let message = format!("must be at most {timesteps}, the timesteps, but length {n} is {}", lengths[n]);
                Err(Error::Option { of: CTC, argument: "lengths", message })
            }
        }
    }

    /// The number of labels of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The target of the loss: `[batch, most labels]`, padded with the blank.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::Range`] for a label that is below 0 or too large; errors of the device.
    pub fn tensor(&self, blank: usize, device: &Device) -> Result<Tensor> {
        let row = self.lengths.iter().copied().max().unwrap_or(0).max(1);
        let mut all = recurve_tensor::cpu::host::<i64>(CTC, row.saturating_mul(self.lengths.len()))?;
        all.fill(blank as i64);
        let mut rest = &self.labels[..];
        for (out, &length) in all.chunks_exact_mut(row).zip(&self.lengths) {
            let (own, more) = rest.split_at(length);
            out[..length].copy_from_slice(own);
            rest = more;
        }
        Ok(Tensor::from_i64(&all, &[self.lengths.len(), row], device)?)
    }
}
