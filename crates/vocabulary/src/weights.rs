//! A layer's weights, where their biases go, and how their matrices are stored.

use crate::{CellKind, Rest};
use serde::{Deserialize, Serialize};

/// Elements of a weight, which are read a part at a time: a large weight in a file need not be in memory as a whole.
pub trait WeightSource {
    /// The number of elements.
    fn count(&self) -> usize;

    /// Writes the elements from `start` on, as many as `out` has.
    ///
    /// # Panics
    /// If there are not so many.
    fn read(&self, start: usize, out: &mut [f32]);
}

impl WeightSource for Vec<f32> {
    fn count(&self) -> usize {
        self.len()
    }
    fn read(&self, start: usize, out: &mut [f32]) {
        out.copy_from_slice(&self[start..][..out.len()]);
    }
}

/// A weight that may be left out has no elements then.
impl<S: WeightSource> WeightSource for Option<S> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, S::count)
    }
    fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Some(weight) => weight.read(start, out),
            None => Vec::new().read(start, out),
        }
    }
}

/// Weights of one layer in one direction; gates in Recurve's order (LSTM i f g o, GRU r z n, sLSTM i f z o). Matrices
/// may be anything of which parts can be read ([`WeightSource`]).
#[derive(Clone, Debug, PartialEq)]
pub struct DirectionWeights<R, M = Vec<R>> {
    /// `[G·H, I]`
    pub w_ih: M,
    /// `[G·H, H]`, with a projection `[G·H, P]`; `[G·H, H / heads]` for an sLSTM, a row's columns being the units of
    /// its own head; `[H]` for an IndRNN, empty for the minimal cells.
    pub w_hh: M,
    /// `[G·H]`, or empty for none.
    pub b_ih: Vec<R>,
    /// Recurrent bias, `[G·H]`; empty for none.
    pub b_hh: Vec<R>,
    /// LSTM peepholes p_i, p_f, p_o: `[3·H]`, or empty for none.
    pub peepholes: Vec<R>,
    /// The projection of h, `[P, H]`, or empty for none.
    pub w_hr: M,
    /// With layer normalization: gain and offset of `W_ih x`, `[2, G·H]`.
    pub norm_ih: Vec<R>,
    /// With layer normalization: gain and offset of `W_hh h`, `[2, G·H]`.
    pub norm_hh: Vec<R>,
    /// With layer normalization, LSTM: gain and offset of c before the output gate, `[2, H]`.
    pub norm_c: Vec<R>,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

/// No weights. Only with matrices in host memory, so that these are what is meant where nothing else is said.
impl<R> Default for DirectionWeights<R> {
    fn default() -> Self {
        DirectionWeights::of(Vec::new(), Vec::new(), Vec::new())
    }
}

impl<R, M> DirectionWeights<R, M> {
    /// Matrices `w_ih`, `w_hh` and `w_hr`, and no vectors.
    pub fn of(w_ih: M, w_hh: M, w_hr: M) -> Self {
        Self {
            w_ih,
            w_hh,
            w_hr,
            b_ih: Vec::new(),
            b_hh: Vec::new(),
            peepholes: Vec::new(),
            norm_ih: Vec::new(),
            norm_hh: Vec::new(),
            norm_c: Vec::new(),
            rest: Rest::default(),
        }
    }
}

impl<M> DirectionWeights<f32, M> {
    /// What is added to row `row` of the projected input, `[G·H]`: both biases, but of the gate of
    /// [`CellKind::separate_bias`] only `b_ih`.
    pub fn projection_bias(&self, kind: CellKind, hidden: usize, row: usize) -> f32 {
        let separate = kind.separate_bias() == Some(row / hidden);
        at(&self.b_ih, row) + if separate { 0.0 } else { at(&self.b_hh, row) }
    }

    /// The recurrent bias of unit `unit` that [`Self::projection_bias`] leaves out, an element of `[H]`; zero if it
    /// leaves none out.
    pub fn separate_bias(&self, kind: CellKind, hidden: usize, unit: usize) -> f32 {
        kind.separate_bias().map_or(0.0, |gate| at(&self.b_hh, gate * hidden + unit))
    }

    /// The same weights, whose matrices are read where they are.
    pub fn view(&self) -> DirectionWeights<f32, &dyn WeightSource>
    where
        M: WeightSource,
    {
        DirectionWeights {
            w_ih: &self.w_ih,
            w_hh: &self.w_hh,
            w_hr: &self.w_hr,
            b_ih: self.b_ih.clone(),
            b_hh: self.b_hh.clone(),
            peepholes: self.peepholes.clone(),
            norm_ih: self.norm_ih.clone(),
            norm_hh: self.norm_hh.clone(),
            norm_c: self.norm_c.clone(),
            rest: Rest::default(),
        }
    }
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
            w_hr: wide(&self.w_hr),
            norm_ih: wide(&self.norm_ih),
            norm_hh: wide(&self.norm_hh),
            norm_c: wide(&self.norm_c),
            rest: self.rest,
        }
    }
}

/// The element at an index; 0 past the end.
fn at(values: &[f32], index: usize) -> f32 {
    values.get(index).copied().unwrap_or(0.0)
}

/// How the weight matrices `W_ih`, `W_hh` and `W_hr` are stored. Sums are f32 in every case. Vectors stay
/// f32: biases, peepholes, normalizations and the u of an IndRNN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WeightStorage {
    /// As they are.
    #[default]
    F32,
    /// Rounded to f16 and converted in registers. Half the memory, and half the memory traffic of a single sequence.
    F16,
    /// A scale for every row of a matrix and integers of 8 bits, `w ≈ scale · q` with |q| ≤ 127: a quarter
    /// of the memory; each weight is off by at most 1/254 of the largest of its row. CPU only.
    Int8,
}

impl WeightStorage {
    /// `f32`, `f16` or `int8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// The scale of a row of weights as int8: its largest magnitude becomes 127.
pub fn int8_scale(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0f32, |m, v| m.max(v.abs()));
    // If the scale would not be a normal number, the row is stored as zeros.
    if largest < f32::MIN_POSITIVE * 127.0 { 0.0 } else { largest / 127.0 }
}

/// A weight as int8: the nearest multiple of the scale, ties to even.
pub fn int8(v: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8 }
}

/// Rounds a row of weights to the values that int8 storage keeps.
pub fn round_to_int8(row: &mut [f32]) {
    let scale = int8_scale(row);
    row.iter_mut().for_each(|v| *v = f32::from(int8(*v, scale)) * scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_rows_have_their_own_scale() {
        assert_eq!(int8_scale(&[0.0, -2.54, 1.0]), 2.54 / 127.0);
        assert_eq!(int8(-2.54, 2.54 / 127.0), -127);
        assert_eq!(int8(0.5, int8_scale(&[0.0, 0.0])), 0);
        assert_eq!(int8(1e-40, int8_scale(&[1e-40])), 0);
        // Ties go to even.
        assert_eq!([0.5, 1.5, 2.5, -2.5].map(|v| int8(v, 1.0)), [0, 2, 2, -2]);
        let mut row = [127.0, 2.5, -0.25];
        round_to_int8(&mut row);
        assert_eq!(row, [127.0, 2.0, 0.0]);
    }

    #[test]
    fn biases_are_summed_but_for_a_candidate_inside_its_reset_gate() {
        let hidden = 2;
        let w = DirectionWeights {
            b_ih: (0..6).map(|v| v as f32).collect(),
            b_hh: (0..6).map(|v| v as f32 * 10.0).collect(),
            ..DirectionWeights::default()
        };
        let sums = |kind| -> Vec<f32> { (0..6).map(|r| w.projection_bias(kind, hidden, r)).collect() };
        let after = CellKind::Gru { reset_after: true };
        assert_eq!(sums(after), [0.0, 11.0, 22.0, 33.0, 4.0, 5.0]);
        assert_eq!([0, 1].map(|unit| w.separate_bias(after, hidden, unit)), [40.0, 50.0]);
        let before = CellKind::Gru { reset_after: false };
        assert_eq!(sums(before), [0.0, 11.0, 22.0, 33.0, 44.0, 55.0]);
        assert_eq!(w.separate_bias(before, hidden, 1), 0.0);
        assert_eq!(DirectionWeights::<f32>::default().projection_bias(after, hidden, 5), 0.0);
    }
}
