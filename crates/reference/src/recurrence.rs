//! One recurrent layer in one direction, a step at a time.

use crate::{Activation, Cell, CellKind, Real};

/// The direction in which a sequence is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first timestep to the last.
    Forward,
    /// From the last valid timestep of each sequence to its first. Outputs stand at the timestep
    /// they belong to, as in PyTorch and ONNX.
    Reverse,
}

/// Weights of one layer in one direction; gates in Recurve's order (LSTM i f g o, GRU r z n).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectionWeights<R> {
    /// `[G·H, I]`
    pub w_ih: Vec<R>,
    /// `[G·H, H]`
    pub w_hh: Vec<R>,
    /// `[G·H]`, or empty for none.
    pub b_ih: Vec<R>,
    /// `[G·H]`, or empty for none.
    pub b_hh: Vec<R>,
    /// LSTM peepholes p_i, p_f, p_o: `[3·H]`, or empty for none.
    pub peepholes: Vec<R>,
}

impl DirectionWeights<f32> {
    /// The same weights in f64, for the truth to be computed with.
    pub fn widen(&self) -> DirectionWeights<f64> {
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect();
        DirectionWeights {
            w_ih: wide(&self.w_ih),
            w_hh: wide(&self.w_hh),
            b_ih: wide(&self.b_ih),
            b_hh: wide(&self.b_hh),
            peepholes: wide(&self.peepholes),
        }
    }
}

/// The inputs of [`recurrence`].
#[derive(Clone, Copy, Debug)]
pub struct Recurrence<'a, R> {
    /// The cell.
    pub cell: Cell,
    /// The direction.
    pub direction: Direction,
    /// The weights.
    pub weights: &'a DirectionWeights<R>,
    /// `[B, T, I]`
    pub x: &'a [R],
    /// B
    pub batch: usize,
    /// T
    pub timesteps: usize,
    /// I
    pub input_size: usize,
    /// H
    pub hidden_size: usize,
    /// `[B, H]`, or `None` for zeros.
    pub h0: Option<&'a [R]>,
    /// `[B, H]`, or `None` for zeros; LSTM only.
    pub c0: Option<&'a [R]>,
    /// Valid timesteps of each sequence, `[B]`, or `None` for all T.
    pub lengths: Option<&'a [usize]>,
}

/// The results of [`recurrence`].
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrenceOutput<R> {
    /// `[B, T, H]`; zero past the end of a sequence.
    pub y: Vec<R>,
    /// `[B, H]`: h after each sequence's last valid step.
    pub h: Vec<R>,
    /// `[B, H]`; empty unless the cell is an LSTM.
    pub c: Vec<R>,
}

/// Runs one layer in one direction.
///
/// ```text
/// RNN    h = f(W_ih x + b_ih + W_hh h + b_hh)
///
/// LSTM   i = σ(W_ii x + b_ii + W_hi h + b_hi + p_i ∘ c)
///        f = σ(W_if x + b_if + W_hf h + b_hf + p_f ∘ c)      (coupled: f = 1 - i)
///        g = φ(W_ig x + b_ig + W_hg h + b_hg)
///        c = f ∘ c + i ∘ g
///        o = σ(W_io x + b_io + W_ho h + b_ho + p_o ∘ c)      (the new c)
///        h = o ∘ ψ(c)
///
/// GRU    r = σ(W_ir x + b_ir + W_hr h + b_hr)
///        z = σ(W_iz x + b_iz + W_hz h + b_hz)
///        n = φ(W_in x + b_in + r ∘ (W_hn h + b_hn))          (reset_after)
///        n = φ(W_in x + b_in + W_hn (r ∘ h) + b_hn)          (else)
///        h = (1 - z) ∘ n + z ∘ h
/// ```
///
/// With `clip`, the inputs of σ and φ are clamped first; c is not, neither when it is carried on
/// nor on its way into ψ. Sources: the ONNX operators `RNN`,
/// `LSTM` and `GRU` (opset 22), the documentation of `torch.nn.LSTM` and `torch.nn.GRU`, and
/// Hochreiter & Schmidhuber 1997, Gers & Schmidhuber 2000 (peepholes), Cho et al. 2014 (GRU).
pub fn recurrence<R: Real>(a: &Recurrence<'_, R>) -> RecurrenceOutput<R> {
    let (nb, nt, ni, nh) = (a.batch, a.timesteps, a.input_size, a.hidden_size);
    let w = a.weights;
    let kind = a.cell.kind;
    let act = |f: Activation, v: R| f.apply(clip(a.cell.clip, v));
    let bias = |b: &[R], i: usize| b.get(i).copied().unwrap_or(R::ZERO);

    let start = |s: Option<&[R]>| s.map_or_else(|| vec![R::ZERO; nb * nh], <[R]>::to_vec);
    let mut h = start(a.h0);
    let mut c = if kind.has_cell_state() { start(a.c0) } else { Vec::new() };
    let mut y = vec![R::ZERO; nb * nt * nh];

    for b in 0..nb {
        let len = a.lengths.map_or(nt, |l| l[b]);
        let h = &mut h[b * nh..(b + 1) * nh];
        for s in 0..len {
            let t = match a.direction {
                Direction::Forward => s,
                Direction::Reverse => len - 1 - s,
            };
            let x = &a.x[(b * nt + t) * ni..][..ni];
            let input = |g: usize, j: usize| {
                let row = g * nh + j;
                dot(&w.w_ih[row * ni..][..ni], x) + bias(&w.b_ih, row)
            };
            let hidden = |g: usize, j: usize, h: &[R]| {
                let row = g * nh + j;
                dot(&w.w_hh[row * nh..][..nh], h) + bias(&w.b_hh, row)
            };
            let peep = |p: usize, j: usize, c: R| w.peepholes.get(p * nh + j).map_or(R::ZERO, |&v| v * c);
            let prev = h.to_vec();
            match kind {
                CellKind::Rnn => {
                    for j in 0..nh {
                        h[j] = act(a.cell.candidate, input(0, j) + hidden(0, j, &prev));
                    }
                }
                CellKind::Lstm { coupled } => {
                    for j in 0..nh {
                        let c = &mut c[b * nh + j];
                        let pre = |g| input(g, j) + hidden(g, j, &prev);
                        let i = act(a.cell.gate, pre(0) + peep(0, j, *c));
                        let f = if coupled { R::ONE - i } else { act(a.cell.gate, pre(1) + peep(1, j, *c)) };
                        let g = act(a.cell.candidate, pre(2));
                        *c = f * *c + i * g;
                        let o = act(a.cell.gate, pre(3) + peep(2, j, *c));
                        h[j] = o * a.cell.output.apply(*c);
                    }
                }
                CellKind::Gru { reset_after } => {
                    let gate = |g, j| act(a.cell.gate, input(g, j) + hidden(g, j, &prev));
                    let r: Vec<R> = (0..nh).map(|j| gate(0, j)).collect();
                    let reset: Vec<R> = r.iter().zip(&prev).map(|(&r, &h)| r * h).collect();
                    for j in 0..nh {
                        let z = gate(1, j);
                        let recurrent = if reset_after { r[j] * hidden(2, j, &prev) } else { hidden(2, j, &reset) };
                        let n = act(a.cell.candidate, input(2, j) + recurrent);
                        h[j] = (R::ONE - z) * n + z * prev[j];
                    }
                }
            }
            y[(b * nt + t) * nh..][..nh].copy_from_slice(h);
        }
    }
    RecurrenceOutput { y, h, c }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::ZERO, |s, (&a, &b)| s + a * b)
}

fn clip<R: Real>(limit: Option<f32>, v: R) -> R {
    match limit.map(R::from_f32) {
        Some(l) if v > l => l,
        Some(l) if v < -l => -l,
        _ => v,
    }
}
