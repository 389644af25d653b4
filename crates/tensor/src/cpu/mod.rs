//! Memory and helpers of the CPU device.

pub(crate) mod functions;
#[expect(unsafe_code, reason = "the GEMM crate takes pointers, and NEON widens f16 by an instruction")]
pub mod simd;
pub mod threads;

use crate::pool::Pool;
use crate::{DType, Error, Result};
use half::f16;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};

pub use simd::{check_simd, simd_arch, simd_lanes, simd_name};

/// Elements in host memory.
#[derive(Debug)]
pub(crate) enum CpuBuffer {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U32(Vec<u32>),
    /// f32 elements in memory of somebody else's, which is never in the pool and never written to.
    Shared(SharedFloats),
}

/// Memory of somebody else's.
pub(crate) struct SharedFloats {
    pub(crate) owner: Arc<dyn AsRef<[f32]> + Send + Sync>,
    pub(crate) count: usize,
}

impl SharedFloats {
    /// The elements.
    ///
    /// # Panics
    /// If the owner gives another number of elements than before.
    pub(crate) fn elements(&self) -> &[f32] {
        let all = (*self.owner).as_ref();
        assert_eq!(all.len(), self.count, "the number of elements of shared memory has changed");
        all
    }
}

impl std::fmt::Debug for SharedFloats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedFloats").field(&self.count).finish()
    }
}

/// `count` zeros in host memory, for sizes that a caller chooses: lack of memory is an error instead of an abort.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn host<T: bytemuck::Zeroable>(operation: &'static str, count: usize) -> Result<Vec<T>> {
    let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
    bytemuck::allocation::try_zeroed_vec(count).map_err(|()| Error::memory(operation, bytes, "the CPU"))
}

impl CpuBuffer {
    fn new(dtype: DType, count: usize) -> Result<Self> {
        const NEW: &str = "Tensor";
        Ok(match dtype {
            DType::F32 => Self::F32(host(NEW, count)?),
            DType::F16 => Self::F16(host(NEW, count)?),
            DType::U32 => Self::U32(host(NEW, count)?),
        })
    }

    fn bytes(&self) -> u64 {
        (match self {
            Self::F32(v) => v.len() * 4,
            Self::F16(v) => v.len() * 2,
            Self::U32(v) => v.len() * 4,
            Self::Shared(s) => s.count * 4,
        }) as u64
    }
}

static POOL: LazyLock<Mutex<Pool<(DType, usize), CpuBuffer>>> = LazyLock::new(|| Mutex::new(Pool::new()));

fn pool() -> std::sync::MutexGuard<'static, Pool<(DType, usize), CpuBuffer>> {
    // A panic while the lock is held leaves the pool consistent, because the pool only moves references.
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A buffer of `count` elements with unspecified contents, which `write` fills before the buffer is shared.
pub(crate) fn make<R>(
    dtype: DType,
    count: usize,
    write: impl FnOnce(&mut CpuBuffer) -> R,
) -> Result<(Arc<CpuBuffer>, R)> {
    let class = (dtype, count);
    let taken = pool().take(class, |_| true);
    let reused = taken.is_some();
    let mut buffer = match taken {
        Some(buffer) => buffer,
        None => Arc::new(match CpuBuffer::new(dtype, count) {
            // Freeing unused buffers may give enough memory for a second attempt.
            Err(_) if pool().trim(CpuBuffer::bytes) => CpuBuffer::new(dtype, count)?,
            other => other?,
        }),
    };
    let result = write(Arc::get_mut(&mut buffer).expect("taken from the pool, so not shared"));
    let mut pool = pool();
    if reused {
        pool.put_back(class, buffer.clone());
    } else {
        if pool.is_wasteful(CpuBuffer::bytes) {
            pool.trim(CpuBuffer::bytes);
        }
        pool.put_new(class, buffer.clone(), buffer.bytes());
    }
    Ok((buffer, result))
}

/// Changes a buffer that only the caller and the pool have; gives it back unchanged if others have it too.
pub(crate) fn update(
    mut buffer: Arc<CpuBuffer>,
    class: (DType, usize),
    change: impl FnOnce(&mut CpuBuffer),
) -> Result<Arc<CpuBuffer>, Arc<CpuBuffer>> {
    let pooled = pool().take_back(class, &buffer);
    let Some(own) = Arc::get_mut(&mut buffer) else {
        if pooled {
            pool().put_back(class, buffer.clone());
        }
        return Err(buffer);
    };
    change(own);
    if pooled {
        pool().put_back(class, buffer.clone());
    }
    Ok(buffer)
}

/// The result of a future that never has to wait.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => out,
        Poll::Pending => unreachable!("on the CPU everything is there"),
    }
}

pub(crate) fn trim() {
    pool().trim(CpuBuffer::bytes);
}

pub(crate) fn buffers_made() -> u64 {
    pool().made()
}

/// The number of threads to use for `work` multiply-adds: one if there is too little work to share.
pub fn threads_for(work: usize) -> usize {
    const WORTH_A_THREAD: usize = 1 << 18;
    threads::current_num_threads().min(work / WORTH_A_THREAD).max(1)
}

/// A matrix product of operands with arbitrary strides, `c = a · b (+ c)`.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Number of rows of a and c.
    pub m: usize,
    /// Number of columns of b and c.
    pub n: usize,
    /// Number of columns of a and rows of b.
    pub k: usize,
    /// Left operand, with its strides from row to row and from column to column, in elements.
    pub a: (&'a [f32], usize, usize),
    /// Right operand, with its strides from row to row and from column to column, in elements.
    pub b: (&'a [f32], usize, usize),
    /// Stride from row to row of the result, in elements; its columns are adjacent.
    pub c_row: usize,
    /// Whether the product is added to the contents of `c` instead of replacing them.
    pub accumulate: bool,
    /// Number of threads to use.
    pub threads: usize,
}

/// Runs a [`Gemm`], a small one without packing.
///
/// # Panics
/// As [`gemm`].
pub fn product(g: Gemm<'_>, c: &mut [f32]) {
    /// Multiply-adds up to which packing costs more than it saves.
    const SMALL: usize = 1 << 16;
    let work = g.m.saturating_mul(g.n).saturating_mul(g.k);
    if g.b.2 == 1 && g.k > 0 && work <= SMALL {
        simd::small_product(&g, c);
    } else {
        gemm(g, c);
    }
}

/// Runs a [`Gemm`].
///
/// # Panics
/// If a slice is too short for its sizes and strides, or rows of the result overlap.
pub fn gemm(g: Gemm<'_>, c: &mut [f32]) {
    if g.m == 0 || g.n == 0 {
        return;
    }
    // The arithmetic saturates, so a sum that overflows is longer than any slice.
    let reach = |rows: usize, cols: usize, rs: usize, cs: usize| match (rows, cols) {
        (0, _) | (_, 0) => 0,
        _ => (rows - 1).saturating_mul(rs).saturating_add((cols - 1).saturating_mul(cs)).saturating_add(1),
    };
    let strides = [g.a.1, g.a.2, g.b.1, g.b.2, g.c_row];
    assert!(strides.iter().all(|&s| isize::try_from(s).is_ok()), "a stride too long");
    assert!(g.a.0.len() >= reach(g.m, g.k, g.a.1, g.a.2), "a too short");
    assert!(g.b.0.len() >= reach(g.k, g.n, g.b.1, g.b.2), "b too short");
    assert!(c.len() >= reach(g.m, g.n, g.c_row, 1), "c too short");
    assert!(g.m == 1 || g.c_row >= g.n, "rows of c overlap");
    let parallelism = match g.threads {
        #[cfg(feature = "cpu-threads")]
        2.. => gemm_common::Parallelism::Rayon(g.threads),
        _ => gemm_common::Parallelism::None,
    };
    simd::gemm(&g, c, parallelism);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and strides that would address memory outside a slice, or write the same memory twice, panic first.
    #[test]
    fn gemm_refuses_what_does_not_fit_its_slices() {
        let (a, b) = ([1.0f32; 6], [1.0f32; 6]);
        let run = |change: fn(&mut Gemm<'_>), c_len: usize| {
            let mut g = Gemm {
                m: 2,
                n: 2,
                k: 3,
                a: (&a[..], 3, 1),
                b: (&b[..], 2, 1),
                c_row: 2,
                accumulate: false,
                threads: 1,
            };
            change(&mut g);
            let mut c = vec![0.0; c_len];
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gemm(g, &mut c))).map(|()| c).ok()
        };
        assert_eq!(run(|_| {}, 4), Some(vec![3.0; 4]));
        assert_eq!(run(|_| {}, 3), None);
        assert_eq!(run(|g| g.a.1 = 4, 4), None);
        assert_eq!(run(|g| g.a.1 = usize::MAX, 4), None);
        // Products that would be small if they wrapped around.
        assert_eq!(run(|g| (g.m, g.a.1, g.c_row) = (1 << 32, 1 << 32, 1 << 32), 4), None);
        assert_eq!(run(|g| g.b.2 = usize::MAX / 2 + 2, 4), None);
        assert_eq!(run(|g| g.c_row = 1, 4), None, "rows that overlap");
    }

    #[test]
    fn lack_of_memory_says_how_much() {
        let e = host::<f32>("test", 1 << 60).unwrap_err();
        assert_eq!(e, Error::memory("test", 1 << 62, "the CPU"));
        assert!(host::<f32>("test", usize::MAX).is_err());
        assert_eq!(host::<u32>("test", 3).unwrap(), [0; 3]);
    }
}
