//! Memory and helpers of the CPU device.

pub mod simd;

use crate::DType;
use crate::pool::Pool;
use half::f16;
use std::sync::{Arc, LazyLock, Mutex};

pub use simd::{simd_arch, simd_lanes, simd_name};

/// Elements in host memory.
#[derive(Debug)]
pub(crate) enum CpuBuffer {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U32(Vec<u32>),
}

impl CpuBuffer {
    fn new(dtype: DType, count: usize) -> Self {
        match dtype {
            DType::F32 => Self::F32(vec![0.0; count]),
            DType::F16 => Self::F16(vec![f16::ZERO; count]),
            DType::U32 => Self::U32(vec![0; count]),
        }
    }

    fn bytes(&self) -> u64 {
        (match self {
            Self::F32(v) => v.len() * 4,
            Self::F16(v) => v.len() * 2,
            Self::U32(v) => v.len() * 4,
        }) as u64
    }
}

static POOL: LazyLock<Mutex<Pool<(DType, usize), CpuBuffer>>> = LazyLock::new(|| Mutex::new(Pool::new()));

fn pool() -> std::sync::MutexGuard<'static, Pool<(DType, usize), CpuBuffer>> {
    // A panic while the lock is held leaves the pool consistent: it only moves references.
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A buffer of `count` elements with unspecified contents, filled by `write` before anyone else
/// can see it.
pub(crate) fn make<R>(dtype: DType, count: usize, write: impl FnOnce(&mut CpuBuffer) -> R) -> (Arc<CpuBuffer>, R) {
    let class = (dtype, count);
    let taken = pool().take(class, |_| true);
    let reused = taken.is_some();
    let mut buffer = taken.unwrap_or_else(|| Arc::new(CpuBuffer::new(dtype, count)));
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
    (buffer, result)
}

pub(crate) fn trim() {
    pool().trim(CpuBuffer::bytes);
}

pub(crate) fn buffers_made() -> u64 {
    pool().made()
}

/// Threads to use for `work` multiply-adds: one unless there is enough to share.
pub fn threads_for(work: usize) -> usize {
    const WORTH_A_THREAD: usize = 1 << 18;
    rayon::current_num_threads().min(work / WORTH_A_THREAD).max(1)
}

/// A matrix product on raw strides, `c = a · b (+ c)`.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Rows of a and c.
    pub m: usize,
    /// Columns of b and c.
    pub n: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Left operand, with strides of (row, column).
    pub a: (&'a [f32], usize, usize),
    /// Right operand, with strides of (row, column).
    pub b: (&'a [f32], usize, usize),
    /// Row stride of the result; its columns are adjacent.
    pub c_row: usize,
    /// Add to what `c` holds.
    pub accumulate: bool,
    /// Threads to use.
    pub threads: usize,
}

/// Runs a [`Gemm`].
///
/// # Panics
/// If a slice is too short for its strides.
pub fn gemm(g: Gemm<'_>, c: &mut [f32]) {
    if g.m == 0 || g.n == 0 {
        return;
    }
    let reach = |rows: usize, cols: usize, (_, rs, cs): (&[f32], usize, usize)| {
        if rows == 0 || cols == 0 { 0 } else { (rows - 1) * rs + (cols - 1) * cs + 1 }
    };
    assert!(g.a.0.len() >= reach(g.m, g.k, g.a), "a too short");
    assert!(g.b.0.len() >= reach(g.k, g.n, g.b), "b too short");
    assert!(c.len() >= (g.m - 1) * g.c_row + g.n, "c too short");
    let parallelism =
        if g.threads > 1 { gemm_common::Parallelism::Rayon(g.threads) } else { gemm_common::Parallelism::None };
    simd::gemm(&g, c, parallelism);
}
