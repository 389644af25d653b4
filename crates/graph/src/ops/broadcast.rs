//! Operands that are repeated along dimensions in which others are larger.

use super::prelude::*;
use crate::{Element, IntArray};
use recurve_tensor::Error;

/// The type with these elements and the common dimensions of operands.
pub(super) fn broadcast_type(inputs: &[Option<&ValueType>], dtype: Element) -> Result<ValueType, Fault> {
    let kinds = inputs.iter().enumerate().filter_map(|(n, t)| t.map(|t| (n, t)));
    if kinds.clone().any(|(_, t)| t.unranked) {
        return Ok(ValueType::unranked(dtype));
    }
    let rank = kinds.clone().map(|(_, t)| t.rank()).max().unwrap_or(0);
    let mut dims = vec![Dim::Size(1); rank];
    for (n, t) in kinds {
        let skip = rank - t.rank();
        for (common, d) in dims[skip..].iter_mut().zip(&t.dims) {
            *common = common
                .broadcast(d)
                .ok_or_else(|| Fault::Input(n, "of a shape that can be broadcast with the other operands".into()))?;
        }
    }
    Ok(ValueType::new(dtype, dims))
}

/// The elements of what two operands give, as far as theirs are known.
pub(super) fn broadcast_known(
    a: &ValueType,
    b: &ValueType,
    f: impl Fn(i64, i64) -> Option<i64>,
) -> Option<Vec<Option<i64>>> {
    let (a, b) = (a.known.as_ref()?, b.known.as_ref()?);
    let n = if a.len() == 1 { b.len() } else { a.len() };
    let at = |x: &[Option<i64>], n: usize| x.get(if x.len() == 1 { 0 } else { n }).copied();
    (0..n).map(|i| Some(at(a, i)?.zip(at(b, i)?).and_then(|(a, b)| f(a, b)))).collect()
}

/// The common dimensions of arrays.
fn common(dims: &[&[usize]]) -> Option<Vec<usize>> {
    let rank = dims.iter().map(|d| d.len()).max().unwrap_or(0);
    let mut all = vec![1; rank];
    for dims in dims {
        let skip = rank - dims.len();
        for (common, &d) in all[skip..].iter_mut().zip(*dims) {
            match (*common, d) {
                (1, _) => *common = d,
                (_, 1) => {}
                (c, d) if c == d => {}
                _ => return None,
            }
        }
    }
    Some(all)
}

/// A function of whole numbers in host memory, elementwise.
pub(super) fn broadcast_ints<const N: usize>(
    operation: &'static str,
    inputs: [&IntArray; N],
    mut f: impl FnMut([i64; N]) -> Result<i64>,
) -> Result<IntArray> {
    let dims = common(&inputs.map(IntArray::dims)).ok_or_else(|| {
        let all: Vec<_> = inputs.iter().map(|i| format!("{:?}", i.dims())).collect();
        let message = format!("cannot be broadcast together: {}", all.join(", "));
        Error::Argument { operation, argument: "operands", message }
    })?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    let mut out = recurve_tensor::cpu::host(operation, count)?;
    // Of each operand the stride of every dimension, innermost first.
    let strides: [Vec<usize>; N] = inputs.map(|i| {
        let mut next = 1;
        let own = i.dims().iter().rev().map(|&d| {
            let stride = if d == 1 { 0 } else { next };
            next *= d;
            stride
        });
        own.chain(core::iter::repeat(0)).take(dims.len()).collect()
    });
    let mut at = vec![0; dims.len()];
    let mut offsets = [0; N];
    for o in &mut out {
        *o = f(core::array::from_fn(|n| inputs[n].data()[offsets[n]]))?;
        for (d, &size) in dims.iter().rev().enumerate() {
            at[d] += 1;
            (0..N).for_each(|n| offsets[n] += strides[n][d]);
            if at[d] < size {
                break;
            }
            (0..N).for_each(|n| offsets[n] -= strides[n][d] * size);
            at[d] = 0;
        }
    }
    Ok(IntArray::new(&dims, out))
}

/// A function of arrays in f64, elementwise.
pub(super) fn broadcast_arrays(inputs: &[&Array], f: impl Fn(&dyn Fn(usize) -> f64) -> f64) -> Array {
    let dims: Vec<_> = inputs.iter().map(|a| &a.dims[..]).collect();
    let dims = common(&dims).expect("operands of the reference fit");
    Array::from_fn(&dims, |i| f(&|n| inputs[n].at(i)))
}
