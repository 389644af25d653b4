//! Calls that need numbers from a GPU on their way, where nothing may block.
//!
//! Such a call ends with an error at its first read, the read is awaited, and the call runs again from its beginning
//! with what has been read. So the code of the call is the same as where it may block.

use crate::{DType, Error, Result, Tensor};
use std::cell::RefCell;
use std::mem;

/// What has been read of a tensor.
#[derive(Debug)]
pub(crate) enum Elements {
    Float(Vec<f32>),
    Whole(Vec<u32>),
}

/// The reads of one call, in their order.
#[derive(Debug, Default)]
struct Reads {
    known: Vec<Elements>,
    next: usize,
    /// What the call needs next.
    wanted: Option<Tensor>,
}

thread_local! {
    static READS: RefCell<Option<Reads>> = const { RefCell::new(None) };
}

/// Puts the reads of the calls around this one back, also if the call panics.
struct Around(Option<Reads>);

impl Drop for Around {
    fn drop(&mut self) {
        READS.set(self.0.take());
    }
}

/// Runs a call that may read tensors from a GPU by blocking functions, such as [`Tensor::to_vec`], without blocking:
/// their reads are awaited, and the call is repeated from its beginning with what has been read. A browser needs this.
///
/// The call must do the same each time, and must not keep what it changed if it returns an error. All calls of models
/// in Recurve are like that. A call that reads n times runs n + 1 times, so results should be read by
/// [`Tensor::to_vec_async`] after it instead of in it.
///
/// ```
/// # pollster::block_on(async {
/// use recurve_tensor::{Device, Tensor, without_blocking};
/// let t = Tensor::from_f32(&[1.0, 2.0], &[2], &Device::Cpu)?;
/// assert_eq!(without_blocking(|| t.to_vec()).await?, [1.0, 2.0]);
/// # Ok::<(), recurve_tensor::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Those of the call; errors of the device.
pub async fn without_blocking<T, E: From<Error>>(mut call: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut known = Vec::new();
    loop {
        let reads = Reads { known: mem::take(&mut known), ..Reads::default() };
        let around = Around(READS.replace(Some(reads)));
        let result = call();
        let reads = READS.take().unwrap_or_default();
        drop(around);
        let Some(wanted) = reads.wanted else { return result };
        known = reads.known;
        known.push(match wanted.dtype() {
            DType::U32 => Elements::Whole(wanted.to_vec_u32_async().await?),
            _ => Elements::Float(wanted.to_vec_async().await?),
        });
    }
}

/// Gives the elements of a tensor on a GPU to `take` if a call reads it that must not block. Returns `None` for other
/// calls.
pub(crate) fn read<T>(tensor: &Tensor, take: impl FnOnce(&Elements) -> T) -> Option<Result<T>> {
    READS.with_borrow_mut(|reads| {
        let reads = reads.as_mut()?;
        let fits = |e: &Elements| match e {
            Elements::Float(v) => tensor.dtype().is_float() && v.len() == tensor.shape().count(),
            Elements::Whole(v) => tensor.dtype() == DType::U32 && v.len() == tensor.shape().count(),
        };
        if reads.wanted.is_none() {
            match reads.known.get(reads.next).filter(|e| fits(e)) {
                Some(e) => {
                    reads.next += 1;
                    return Some(Ok(take(e)));
                }
                None => {
                    // What a call that does not repeat itself has read before is of no use.
                    reads.known.truncate(reads.next);
                    reads.wanted = Some(tensor.clone());
                }
            }
        }
        let device = tensor.device().name();
        Some(Err(Error::Unsupported { operation: "read", feature: "blocking; use `without_blocking`", device }))
    })
}

/// Whether a call runs that must not block.
pub(crate) fn is_running() -> bool {
    READS.with_borrow(Option::is_some)
}
