//! Matrix products (`matmul.wgsl`).

use super::broadcast::Broadcast;
use super::unary::check_activation;
use super::walk;
use crate::cpu::{self, Gemm};
use crate::{Activation, DType, Device, Error, MAX_RANK, Result, Shape, Tensor};
use recurve_vocabulary::Rest;

/// Options of a matrix product.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatmulOptions<'a> {
    /// Whether the right operand is stored as `[n, k]`, as PyTorch stores weights.
    pub transpose_rhs: bool,
    /// A bias `[n]`, added to every row.
    pub bias: Option<&'a Tensor>,
    /// Applied to every element of the result.
    pub activation: Activation,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Tensor {
    /// `self · rhs`: `[…, m, k] · [k, n]` gives `[…, m, n]`, leading dimensions broadcast.
    ///
    /// # Errors
    /// As [`Self::matmul_with`].
    pub fn matmul(&self, rhs: &Self) -> Result<Self> {
        self.matmul_with(rhs, &MatmulOptions::default())
    }

    /// `activation(self · rhs + bias)`.
    ///
    /// `self` is `[…, m, k]` and `rhs` `[…, k, n]`, whose leading dimensions are broadcast as NumPy does; with
    /// `transpose_rhs` the last two dimensions of `rhs` are `[n, k]`. `rhs` may be f16 while `self` is f32.
    ///
    /// Sums are computed in f32. Their error is at most `n · 2⁻²⁴ · Σ|a b|`, where n is k up to 2¹⁶ and `2¹⁶ + k / 2¹⁶`
    /// beyond.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match, [`Error::DType`] if an operand is U32 or the bias does not have the
    /// type of `self`, [`Error::Device`] if they are on different devices.
    pub fn matmul_with(&self, rhs: &Self, options: &MatmulOptions<'_>) -> Result<Self> {
        let op = "matmul";
        self.check_float(op, "self")?;
        rhs.check_float(op, "rhs")?;
        self.check_same_device(rhs, op, "rhs")?;
        let rank = self.shape().rank();
        if rank < 2 {
            return Err(Error::shape(op, "self", "[…, m, k]", self.shape()));
        }
        let (m, k) = (self.dims()[rank - 2], self.dims()[rank - 1]);
        let last = rhs.shape().rank();
        let layout = if options.transpose_rhs { "n, k" } else { "k, n" };
        let bad_rhs = || {
            Error::shape(
                op,
                "rhs",
                format!("[{layout}] or […, {layout}] with k = {k}, for a left side {}", self.shape()),
                rhs.shape(),
            )
        };
        if last < 2 {
            return Err(bad_rhs());
        }
        let (d0, d1) = (rhs.dims()[last - 2], rhs.dims()[last - 1]);
        let (rk, n) = if options.transpose_rhs { (d1, d0) } else { (d0, d1) };
        if rk != k {
            return Err(bad_rhs());
        }
        if let Some(b) = options.bias {
            self.check_same_device(b, op, "bias")?;
            b.check_dtype(op, "bias", "of the type of self", b.dtype() == self.dtype())?;
            if b.dims() != [n] {
                return Err(Error::shape(op, "bias", format!("[{n}]"), b.shape()));
            }
        }
        check_activation(options.activation)?;
        let [left, right] = [(self, rank), (rhs, last)].map(|(t, rank)| t.shape().leading(rank - 2));
        let Broadcast { shape: leading, strides: [left_strides, right_strides] } =
            Broadcast::of([&left, &right]).ok_or_else(bad_rhs)?;
        let mut dims = [1; MAX_RANK];
        let wide = leading.rank() + 2;
        if wide > MAX_RANK {
            return Err(bad_rhs());
        }
        dims[..wide - 2].copy_from_slice(&leading);
        dims[wide - 2..wide].copy_from_slice(&[m, n]);
        let shape = Shape::new(&dims[..wide]).ok_or_else(|| Error::shape(op, "rhs", "smaller", rhs.shape()))?;
        let shared = right.count() == 1 && left.count() == leading.count();
        // With a shared right operand, all rows form one product.
        let (batch, m) = if shared { (1, shape.count() / n) } else { (leading.count(), m) };
        if !shared && let Device::Gpu(_) = self.device() {
            // On a GPU both operands have the same leading dimensions.
            let [a, b] = [(self, &left, left_strides), (rhs, &right, right_strides)]
                .map(|(t, own, strides)| t.repeated(own, &leading, &strides));
            let (a, b) = (a?, b?);
            if a.dims() != self.dims() || b.dims() != rhs.dims() {
                return a.matmul_with(&b, options);
            }
        }
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 || rhs.dtype() == DType::F16 => {
                let bias = options.bias.map(|b| b.to_dtype(DType::F32)).transpose()?;
                let wide = MatmulOptions { bias: bias.as_ref(), ..*options };
                let y = self.to_dtype(DType::F32)?.matmul_with(&rhs.to_dtype(DType::F32)?, &wide)?;
                y.to_dtype(self.dtype())
            }
            Device::Cpu => {
                let bias = options.bias.map(|b| b.cpu_f32().expect("f32 on the CPU"));
                Self::cpu_write(shape, |out| {
                    let a = self.cpu_f32().expect("f32 on the CPU");
                    let b = rhs.cpu_f32().expect("f32 on the CPU");
                    let mut parts = out.chunks_exact_mut(m * n);
                    let mut one = |i: usize, j: usize| {
                        let (a, b) = (&a[i * m * k..][..m * k], &b[j * k * n..][..k * n]);
                        let out = parts.next().expect("a part for each product");
                        product(a, b, [m, k, n], options.transpose_rhs, bias, out);
                        cpu::simd::activate_slice(options.activation, out);
                    };
                    match batch {
                        1 => one(0, 0),
                        _ => walk(&leading, &left_strides, &right_strides, one),
                    }
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.matmul(self, rhs, options, shape, [batch, m, k, n]),
        }
    }

    /// Matrices repeated so that their leading dimensions, which are `own`, become `leading`; the same tensor if they
    /// are that already.
    fn repeated(&self, own: &Shape, leading: &Shape, strides: &[usize; MAX_RANK]) -> Result<Self> {
        if own == leading {
            return Ok(self.clone());
        }
        let matrix = &self.dims()[own.rank()..];
        let size: usize = matrix.iter().product();
        let (mut dims, mut source) = ([1; MAX_RANK], [0; MAX_RANK]);
        let rank = leading.rank();
        dims[..rank].copy_from_slice(leading);
        dims[rank..rank + 2].copy_from_slice(matrix);
        source.iter_mut().zip(strides).for_each(|(s, &own)| *s = own * size);
        source[rank..rank + 2].copy_from_slice(&[matrix[1], 1]);
        self.view("matmul", &dims[..rank + 2], &source)
    }
}

fn product(a: &[f32], b: &[f32], [m, k, n]: [usize; 3], transposed: bool, bias: Option<&[f32]>, out: &mut [f32]) {
    if m == 1 && transposed {
        cpu::simd::matvec(b, a, out);
        if let Some(bias) = bias {
            out.iter_mut().zip(bias).for_each(|(o, &b)| *o += b);
        }
        return;
    }
    if let Some(bias) = bias {
        out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias));
    }
    let b = if transposed { (b, 1, k) } else { (b, n, 1) };
    let threads = cpu::threads_for(m.saturating_mul(n).saturating_mul(k));
    cpu::product(Gemm { m, n, k, a: (a, k, 1), b, c_row: n, accumulate: bias.is_some(), threads }, out);
}
