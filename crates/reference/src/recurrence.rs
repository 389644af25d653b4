//! One recurrent layer in one direction, computed timestep by timestep.

use crate::{Real, activate};
use recurve_vocabulary::{Activation, Cell, CellKind, Direction, DirectionWeights, MaskedOutput};

/// The inputs of [`recurrence`].
#[derive(Clone, Copy, Debug)]
pub struct Recurrence<'a, R> {
    /// The cell.
    pub cell: Cell,
    /// The direction.
    pub direction: Direction,
    /// The weights.
    pub weights: &'a DirectionWeights<R>,
    /// The input, `[B, T, I]`.
    pub x: &'a [R],
    /// Batch size, `B`.
    pub batch: usize,
    /// Number of timesteps, `T`.
    pub timesteps: usize,
    /// Number of input features, `I`.
    pub input_size: usize,
    /// Number of hidden units, `H`.
    pub hidden_size: usize,
    /// The initial h, `[B, H]` (`[B, P]` with a projection to `P` elements); `None` for zeros.
    pub h0: Option<&'a [R]>,
    /// The initial c of an LSTM `[B, H]`, or c, n and m of an sLSTM `[B, 3·H]`; `None` for zeros.
    pub c0: Option<&'a [R]>,
    /// Number of valid timesteps of each sequence, `[B]`; `None` for all.
    pub lengths: Option<&'a [usize]>,
    /// Which timesteps are valid, `[B, T]`; `None` for all. Not together with `lengths`. A timestep that is not valid
    /// leaves the state unchanged.
    pub mask: Option<&'a [bool]>,
    /// The output at a timestep that the mask excludes: zero, or the unchanged h.
    pub masked_output: MaskedOutput,
}

/// What training draws at random for a call of [`recurrence_with`]; nothing by default.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a, R> {
    /// Factors on the h that the recurrent product of each gate reads, `[G, B, W]`, or `[1, B, W]` for all gates: the
    /// same at every timestep. Whatever else reads h has the whole of it.
    pub recurrent_dropout: Option<&'a [R]>,
    /// For each timestep the share of the old h in the new one, `[T, B, W]`, instead of the cell's zoneout: 1 keeps the
    /// old value, 0 takes the new one.
    pub zoneout_h: Option<&'a [R]>,
    /// The same for c, `[T, B, H]`.
    pub zoneout_c: Option<&'a [R]>,
}

impl<R> Default for Drawn<'_, R> {
    fn default() -> Self {
        Self { recurrent_dropout: None, zoneout_h: None, zoneout_c: None }
    }
}

/// The results of [`recurrence`]. W is the number of elements of h: H, or P with a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrenceOutput<R> {
    /// The outputs, `[B, T, W]`; zero past the end of a sequence.
    pub y: Vec<R>,
    /// The h of each sequence after its last valid timestep, `[B, W]`.
    pub h: Vec<R>,
    /// The final c of an LSTM `[B, H]`, or c, n and m of an sLSTM `[B, 3·H]`; empty for other cells.
    pub c: Vec<R>,
}

/// Runs one layer in one direction.
///
/// ```text
/// RNN     h = f(W_ih x + b_ih + W_hh h + b_hh)
///
/// IndRNN  h = f(W_ih x + b_ih + u ∘ h + b_hh)
///
/// LSTM    i = σ(W_ii x + b_ii + W_hi h + b_hi + p_i ∘ c)
///         f = σ(W_if x + b_if + W_hf h + b_hf + p_f ∘ c)      (coupled: f = 1 - i)
///         g = φ(W_ig x + b_ig + W_hg h + b_hg)
///         c = f ∘ c + i ∘ g
///         o = σ(W_io x + b_io + W_ho h + b_ho + p_o ∘ c)      (the new c)
///         h = o ∘ ψ(c)                                        (projection: h = W_hr (o ∘ ψ(c)))
///
/// GRU     r = σ(W_ir x + b_ir + W_hr h + b_hr)
///         z = σ(W_iz x + b_iz + W_hz h + b_hz)
///         n = φ(W_in x + b_in + r ∘ (W_hn h + b_hn))          (reset_after)
///         n = φ(W_in x + b_in + W_hn (r ∘ h) + b_hn)          (else)
///         h = (1 - z) ∘ n + z ∘ h
///
/// minGRU  z = σ(W_z x + b_z),  n = φ(W_n x + b_n)
///         h = (1 - z) ∘ h + z ∘ n
///
/// minLSTM f = σ(W_f x + b_f),  i = σ(W_i x + b_i),  n = φ(W_n x + b_n)
///         h = f / (f + i) ∘ h + i / (f + i) ∘ n
///
/// sLSTM   ĩ = W_i x + b_i + R_i h,  f̃ = W_f x + b_f + R_f h   (R: one block per head)
///         z = φ(W_z x + b_z + R_z h),  o = σ(W_o x + b_o + R_o h)
///         l = ln σ(f̃), or f̃ where the forget gate is exponential
///         m' = max(l + m, ĩ), but ĩ where n = 0               (the stabilizer)
///         i = e^(ĩ - m'),  f = e^min(l + m - m', 0)
///         c = f ∘ c + i ∘ z,  n = f ∘ n + i,  m = m'
///         h = o ∘ c / n
/// ```
///
/// The stabilizer m divides c and n by the same factor e^m, so h is what `i = e^ĩ` and `f = e^l` would give. Where n is
/// 0 nothing has been stored, and m is ignored; the authors' code does so for its initial zeros, and limits f to 1.
///
/// With `clip`, the inputs of σ and φ are clamped first, with `clip_output` that of ψ too; the c passed to the next
/// timestep is not clamped. With layer normalization, `W_ih x` and `W_hh h` are replaced by `LN(W_ih x)` and `LN(W_hh
/// h)`, each normalized over all its G·H elements, and `ψ(c)` by `ψ(LN(c))`; the c passed to the next timestep is not
/// normalized. With zoneout, the new state is a weighted mean of the old state and the one computed here.
///
/// Sources: the ONNX operators `RNN`, `LSTM` and `GRU` (opset 22), the documentation of
/// `torch.nn.LSTM` and `torch.nn.GRU`, and Hochreiter & Schmidhuber 1997, Gers & Schmidhuber 2000
/// (peepholes), Cho et al. 2014 (GRU), Sak et al. 2014 (projection), Ba et al. 2016, equations 20
/// to 31 (layer normalization), Krueger et al. 2016 (zoneout), Li et al. 2018 (IndRNN), Feng et al.
/// 2024 (minGRU, minLSTM), Beck et al. 2024, equations 8 to 17 (sLSTM), and the order of its gates and its
/// first step from NX-AI/xlstm.
pub fn recurrence<R: Real>(a: &Recurrence<'_, R>) -> RecurrenceOutput<R> {
    recurrence_with(a, &Drawn::default())
}

/// [`recurrence`] with what training has drawn.
pub fn recurrence_with<R: Real>(a: &Recurrence<'_, R>, drawn: &Drawn<'_, R>) -> RecurrenceOutput<R> {
    let (nb, nt, ni, nh) = (a.batch, a.timesteps, a.input_size, a.hidden_size);
    let nw = a.cell.state_size(nh);
    let w = a.weights;
    let kind = a.cell.kind;
    let rows = kind.gates() * nh;
    let act = |f: Activation, v: R| activate(f, clip(a.cell.clip, v));
    let bias = |b: &[R], i: usize| b.get(i).copied().unwrap_or(R::ZERO);
    let [gate0, gate1, gate2] = a.cell.gates;

    let start = |s: Option<&[R]>, n: usize| s.map_or_else(|| vec![R::ZERO; nb * n], <[R]>::to_vec);
    let mut hs = start(a.h0, nw);
    let nc = kind.carried() * nh;
    let mut cs = if nc > 0 { start(a.c0, nc) } else { Vec::new() };
    // Number of columns of W_hh, and below the first unit whose h the row of a unit reads.
    let columns = kind.columns(nw);
    let first = |row: usize| row % nh / columns * columns;
    let mut y = vec![R::ZERO; nb * nt * nw];

    for b in 0..nb {
        let len = a.lengths.map_or(nt, |l| l[b]);
        let h = &mut hs[b * nw..(b + 1) * nw];
        for s in 0..len {
            let t = match a.direction {
                Direction::Forward => s,
                Direction::Reverse => len - 1 - s,
            };
            let out = &mut y[(b * nt + t) * nw..][..nw];
            if a.mask.is_some_and(|m| !m[b * nt + t]) {
                if a.masked_output == MaskedOutput::Repeat {
                    out.copy_from_slice(h);
                }
                continue;
            }
            let x = &a.x[(b * nt + t) * ni..][..ni];
            let prev = h.to_vec();
            // The h that the recurrent product of a gate reads.
            let seen: Vec<Vec<R>> = (0..kind.gates())
                .map(|gate| match drawn.recurrent_dropout {
                    None => prev.clone(),
                    Some(f) => {
                        let gate = if f.len() == nb * nw { 0 } else { gate };
                        prev.iter().zip(&f[(gate * nb + b) * nw..]).map(|(&h, &f)| h * f).collect()
                    }
                })
                .collect();
            let mut input: Vec<R> = (0..rows).map(|r| dot(&w.w_ih[r * ni..][..ni], x)).collect();
            let mut hidden: Vec<R> = match kind {
                CellKind::IndRnn => w.w_hh.iter().zip(&seen[0]).map(|(&u, &h)| u * h).collect(),
                CellKind::MinGru | CellKind::MinLstm => vec![R::ZERO; rows],
                CellKind::SLstm { .. } => {
                    let seen = |r: usize| &seen[r / nh][first(r)..][..columns];
                    (0..rows).map(|r| dot(&w.w_hh[r * columns..][..columns], seen(r))).collect()
                }
                _ => (0..rows).map(|r| dot(&w.w_hh[r * nw..][..nw], &seen[r / nh])).collect(),
            };
            if let Some(epsilon) = a.cell.layer_norm {
                layer_norm(&mut input, &w.norm_ih, epsilon);
                layer_norm(&mut hidden, &w.norm_hh, epsilon);
            }
            input.iter_mut().enumerate().for_each(|(r, v)| *v = *v + bias(&w.b_ih, r));
            hidden.iter_mut().enumerate().for_each(|(r, v)| *v = *v + bias(&w.b_hh, r));
            let pre = |g: usize, j: usize| input[g * nh + j] + hidden[g * nh + j];
            let mut new: Vec<R> = match kind {
                CellKind::Rnn | CellKind::IndRnn => (0..nh).map(|j| act(a.cell.candidate, pre(0, j))).collect(),
                CellKind::Lstm { coupled } => {
                    let c = &mut cs[b * nh..(b + 1) * nh];
                    let peep = |p: usize, j: usize, c: R| w.peepholes.get(p * nh + j).map_or(R::ZERO, |&v| v * c);
                    let old = c.to_vec();
                    let mut o = Vec::with_capacity(nh);
                    for j in 0..nh {
                        let i = act(gate0, pre(0, j) + peep(0, j, old[j]));
                        let f = if coupled { R::ONE - i } else { act(gate1, pre(1, j) + peep(1, j, old[j])) };
                        let g = act(a.cell.candidate, pre(2, j));
                        c[j] = f * old[j] + i * g;
                        o.push(act(gate2, pre(3, j) + peep(2, j, c[j])));
                    }
                    let mut shown = c.to_vec();
                    if let Some(epsilon) = a.cell.layer_norm {
                        layer_norm(&mut shown, &w.norm_c, epsilon);
                    }
                    let m: Vec<R> = o
                        .iter()
                        .zip(&shown)
                        .map(|(&o, &c)| {
                            let c = if a.cell.clip_output { clip(a.cell.clip, c) } else { c };
                            o * activate(a.cell.output, c)
                        })
                        .collect();
                    match (drawn.zoneout_c, a.cell.zoneout) {
                        (Some(shares), _) => mix(&shares[(t * nb + b) * nh..][..nh], &old, c),
                        (None, Some(z)) => mix(&vec![R::from_f32(z.c); nh], &old, c),
                        (None, None) => {}
                    }
                    match a.cell.projection {
                        Some(_) => (0..nw).map(|j| dot(&w.w_hr[j * nh..][..nh], &m)).collect(),
                        None => m,
                    }
                }
                CellKind::Gru { reset_after } => {
                    let r: Vec<R> = (0..nh).map(|j| act(gate0, pre(0, j))).collect();
                    let reset: Vec<R> = r.iter().zip(&seen[2]).map(|(&r, &h)| r * h).collect();
                    (0..nh)
                        .map(|j| {
                            let z = act(gate1, pre(1, j));
                            let row = 2 * nh + j;
                            let recurrent = if reset_after {
                                r[j] * hidden[row]
                            } else {
                                dot(&w.w_hh[row * nh..][..nh], &reset) + bias(&w.b_hh, row)
                            };
                            let n = act(a.cell.candidate, input[row] + recurrent);
                            (R::ONE - z) * n + z * prev[j]
                        })
                        .collect()
                }
                CellKind::MinGru => (0..nh)
                    .map(|j| {
                        let z = act(gate0, pre(0, j));
                        (R::ONE - z) * prev[j] + z * act(a.cell.candidate, pre(1, j))
                    })
                    .collect(),
                CellKind::MinLstm => (0..nh)
                    .map(|j| {
                        let (f, i) = (act(gate0, pre(0, j)), act(gate1, pre(1, j)));
                        let n = act(a.cell.candidate, pre(2, j));
                        (f * prev[j] + i * n) / (f + i)
                    })
                    .collect(),
                CellKind::SLstm { exponential_forget, .. } => {
                    let states = &mut cs[b * nc..(b + 1) * nc];
                    (0..nh)
                        .map(|j| {
                            let [c, n, m] = [0, 1, 2].map(|s| states[s * nh + j]);
                            let [i, f] = [0, 1].map(|g| clip(a.cell.clip, pre(g, j)));
                            let (z, o) = (act(a.cell.candidate, pre(2, j)), act(gate2, pre(3, j)));
                            let kept = m + if exponential_forget { f } else { ln_sigmoid(f) };
                            let top = if n == R::ZERO { i } else { larger(kept, i) };
                            let (i, f) = ((i - top).exp(), smaller(kept - top, R::ZERO).exp());
                            let new = [f * c + i * z, f * n + i, top];
                            (0..3).for_each(|s| states[s * nh + j] = new[s]);
                            o * (new[0] / new[1])
                        })
                        .collect()
                }
                other => panic!("{other:?} has no definition"),
            };
            match (drawn.zoneout_h, a.cell.zoneout) {
                (Some(shares), _) => mix(&shares[(t * nb + b) * nw..][..nw], &prev, &mut new),
                (None, Some(z)) => mix(&vec![R::from_f32(z.h); nw], &prev, &mut new),
                (None, None) => {}
            }
            h.copy_from_slice(&new);
            out.copy_from_slice(h);
        }
    }
    RecurrenceOutput { y, h: hs, c: cs }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::ZERO, |s, (&a, &b)| s + a * b)
}

/// `new = shares ∘ old + (1 - shares) ∘ new`
fn mix<R: Real>(shares: &[R], old: &[R], new: &mut [R]) {
    new.iter_mut().zip(old).zip(shares).for_each(|((n, &o), &share)| *n = share * o + (R::ONE - share) * *n);
}

/// `(v - mean) / √(variance + epsilon) ∘ gain + offset`. The variance is that of these n elements (divisor n); `affine`
/// holds gain and offset, `[2, n]`.
pub fn layer_norm<R: Real>(v: &mut [R], affine: &[R], epsilon: f32) {
    let n = R::from_f32(v.len() as f32);
    let mean = v.iter().fold(R::ZERO, |s, &v| s + v) / n;
    let variance = v.iter().fold(R::ZERO, |s, &v| s + (v - mean) * (v - mean)) / n;
    let scale = R::ONE / (variance + R::from_f32(epsilon)).sqrt();
    let (gain, offset) = affine.split_at(v.len());
    for ((v, &g), &o) in v.iter_mut().zip(gain).zip(offset) {
        *v = (*v - mean) * scale * g + o;
    }
}

/// `ln(1 / (1 + e^-v))`
fn ln_sigmoid<R: Real>(v: R) -> R {
    smaller(R::ZERO, v) - (-v.abs()).exp().ln_1p()
}

/// The larger of two values; NaN if either is NaN.
fn larger<R: Real>(a: R, b: R) -> R {
    -smaller(-a, -b)
}

/// The smaller of two values; NaN if either is NaN.
fn smaller<R: Real>(a: R, b: R) -> R {
    if a < b || a.to_f64().is_nan() { a } else { b }
}

fn clip<R: Real>(limit: Option<f32>, v: R) -> R {
    match limit.map(R::from_f32) {
        Some(l) if v >= l => l,
        Some(l) if v <= -l => -l,
        _ => v,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One unit with one head: the output with the stabilizer equals the output of the plain equations.
    #[test]
    fn a_stabilizer_changes_no_output() {
        for exponential_forget in [false, true] {
            let kind = CellKind::SLstm { heads: 1, exponential_forget };
            let weights = DirectionWeights {
                w_ih: vec![1.5, -2.0, 1.0, 0.5],
                w_hh: vec![0.3, 0.2, -0.4, 0.6],
                ..Default::default()
            };
            let x = [0.3, -1.2, 2.0, 0.1, -0.7];
            let out = recurrence(&Recurrence {
                cell: Cell::with_kind(kind),
                direction: Direction::Forward,
                weights: &weights,
                x: &x,
                batch: 1,
                timesteps: 5,
                input_size: 1,
                hidden_size: 1,
                h0: None,
                c0: None,
                lengths: None,
                mask: None,
                masked_output: MaskedOutput::Zero,
            });
            let (mut h, mut c, mut n) = (0f64, 0f64, 0f64);
            for (x, y) in x.into_iter().zip(&out.y) {
                let pre: Vec<f64> = weights.w_ih.iter().zip(&weights.w_hh).map(|(w, r)| w * x + r * h).collect();
                let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
                let (i, f) = (pre[0].exp(), if exponential_forget { pre[1].exp() } else { sigmoid(pre[1]) });
                (c, n) = (f * c + i * pre[2].tanh(), f * n + i);
                h = sigmoid(pre[3]) * c / n;
                assert!((h - y).abs() < 1e-14, "{h} {y}");
            }
            let [got_c, got_n, m] = out.c[..] else { panic!("c, n and m") };
            assert!((got_c * m.exp() - c).abs() < 1e-12 && (got_n * m.exp() - n).abs() < 1e-12);
        }
    }
}
