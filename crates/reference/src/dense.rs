//! Matrix product, embedding and softmax.

use crate::{Real, activate};
use recurve_vocabulary::Activation;

/// `act(A · Bᵀ + bias)`: A is `[m, k]`, B is `[n, k]`, bias `[n]` or empty; the result is `[m, n]`.
pub fn matmul<R: Real>(a: &[R], b: &[R], bias: &[R], [m, k, n]: [usize; 3], act: Activation) -> Vec<R> {
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let mut s = bias.get(j).copied().unwrap_or(R::ZERO);
            for p in 0..k {
                s = s + a[i * k + p] * b[j * k + p];
            }
            out.push(activate(act, s));
        }
    }
    out
}

/// Rows of `table` (`[vocabulary, width]`) selected by id; the result is `[ids.len(), width]`.
pub fn embedding<R: Real>(table: &[R], width: usize, ids: &[u32]) -> Vec<R> {
    ids.iter().flat_map(|&id| table[id as usize * width..][..width].iter().copied()).collect()
}

/// Softmax over the last axis, of length `width`.
pub fn softmax<R: Real>(x: &[R], width: usize) -> Vec<R> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let max = row.iter().copied().fold(row[0], |m, v| if v > m { v } else { m });
        let e: Vec<R> = row.iter().map(|&v| (v - max).exp()).collect();
        let sum = e.iter().fold(R::ZERO, |s, &v| s + v);
        out.extend(e.iter().map(|&v| v / sum));
    }
    out
}
