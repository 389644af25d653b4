//! Recurrent layers as Keras and PyTorch define them, and masking.

use crate::{Real, Recurrence, recurrence};
use recurve_vocabulary::{Cell, Direction, DirectionWeights, MaskedOutput, Merge};

/// A recurrent layer and its input: one or more stacked cells, in one direction or both.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, R> {
    /// The cell.
    pub cell: Cell,
    /// Number of hidden units, `H`.
    pub units: usize,
    /// The weights of each stacked layer, lowest first. A layer has one direction, or forward then backward.
    pub weights: &'a [Vec<DirectionWeights<R>>],
    /// For a layer with both directions, how their outputs are joined; `None` for a layer with one direction.
    pub bidirectional: Option<Merge>,
    /// Whether a layer with one direction reads backward.
    pub go_backwards: bool,
    /// Whether the outputs of the backward direction come in the order in which they were computed.
    pub reading_order: bool,
    /// Whether to return the output of every timestep instead of the last one.
    pub return_sequences: bool,
    /// Whether input and output are `[T, B, …]`.
    pub time_major: bool,
    /// The input, `[B, T, I]`; with `time_major`, `[T, B, I]`.
    pub x: &'a [R],
    /// Batch size, `B`.
    pub batch: usize,
    /// Number of timesteps, `T`.
    pub timesteps: usize,
    /// Number of input features, `I`.
    pub input_size: usize,
    /// Number of valid timesteps of each sequence, `[B]`; `None` for all.
    pub lengths: Option<&'a [usize]>,
    /// Which timesteps are valid, `[B, T]` whatever the layout of the input; `None` for all. Not together with
    /// `lengths`.
    pub mask: Option<&'a [bool]>,
    /// The output at timesteps that are not valid.
    pub masked_output: MaskedOutput,
}

/// The first output of a layer: `[B, T, O]`, or `[B, O]` for the last timestep alone. O is the number of elements of h,
/// or twice that where both directions are concatenated. With merge `None` there are two outputs, of which this is the
/// forward one.
///
/// The last output of a direction is its final h. Where a mask makes outputs zero, it is the output of the last
/// timestep that the direction reads, which may be zero.
pub fn layer<R: Real>(l: &Layer<'_, R>) -> Vec<R> {
    let (b, t, w) = (l.batch, l.timesteps, l.cell.state_size(l.units));
    let d = if l.bidirectional.is_some() { 2 } else { 1 };
    let mut input = if l.time_major { swap(l.x, t, b, l.input_size) } else { l.x.to_vec() };
    let mut input_size = l.input_size;
    let (mut ys, mut hs) = (Vec::new(), Vec::new());
    let backwards = |n: usize| n == 1 || l.go_backwards;
    for weights in l.weights {
        (ys, hs) = weights
            .iter()
            .enumerate()
            .map(|(n, weights)| {
                let out = recurrence(&Recurrence {
                    cell: l.cell,
                    direction: if backwards(n) { Direction::Reverse } else { Direction::Forward },
                    weights,
                    x: &input,
                    batch: b,
                    timesteps: t,
                    input_size,
                    hidden_size: l.units,
                    h0: None,
                    c0: None,
                    lengths: l.lengths,
                    mask: l.mask,
                    masked_output: l.masked_output,
                });
                (out.y, out.h)
            })
            .unzip();
        input = (0..b * t * d * w).map(|n| ys[n / w % d][n / (d * w) * w + n % w]).collect();
        input_size = d * w;
    }
    if !l.return_sequences {
        if l.mask.is_some() && l.masked_output == MaskedOutput::Zero {
            for (n, (y, h)) in ys.iter().zip(&mut hs).enumerate() {
                let last = if backwards(n) { 0 } else { t - 1 };
                *h = (0..b).flat_map(|row| y[(row * t + last) * w..][..w].to_vec()).collect();
            }
        }
        return merge(l.bidirectional, &hs, w);
    }
    let mut y = merge(l.bidirectional, &ys, w);
    let width = y.len() / (b * t);
    if l.reading_order {
        let rows: Vec<&[R]> = y.chunks(width).collect();
        y = (0..b * t).flat_map(|n| rows[n / t * t + (t - 1 - n % t)].to_vec()).collect();
    }
    if l.time_major { swap(&y, b, t, width) } else { y }
}

/// Joins the outputs of one or two directions, each of `width` elements per timestep.
fn merge<R: Real>(how: Option<Merge>, parts: &[Vec<R>], width: usize) -> Vec<R> {
    let both = |f: fn(R, R) -> R| parts[0].iter().zip(&parts[1]).map(|(&a, &b)| f(a, b)).collect();
    match how {
        None | Some(Merge::None) => parts[0].clone(),
        Some(Merge::Concat) => {
            parts[0].chunks(width).zip(parts[1].chunks(width)).flat_map(|(a, b)| [a, b].concat()).collect()
        }
        Some(Merge::Sum) => both(|a, b| a + b),
        Some(Merge::Average) => both(|a, b| (a + b) / (R::ONE + R::ONE)),
        Some(Merge::Multiply) => both(|a, b| a * b),
    }
}

/// Turns `[a, b, n]` into `[b, a, n]`.
fn swap<R: Real>(x: &[R], a: usize, b: usize, n: usize) -> Vec<R> {
    (0..a * b * n).map(|i| x[((i / n % a) * b + i / (n * a)) * n + i % n]).collect()
}

/// Keras's `Masking` over timesteps of `width` features: a timestep whose features all equal `value` becomes zero.
/// Returns the result, and which timesteps are valid.
pub fn masking<R: Real>(x: &[R], width: usize, value: f32) -> (Vec<R>, Vec<bool>) {
    let padding = R::from_f32(value);
    let valid: Vec<bool> = x.chunks(width).map(|row| row.iter().any(|&x| x != padding)).collect();
    let one = |(&x, n): (&R, usize)| x * if valid[n / width] { R::ONE } else { R::ZERO };
    let y = x.iter().zip(0..).map(one).collect();
    (y, valid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use recurve_vocabulary::Activation;

    /// A layer that outputs its input: one linear unit whose recurrent weight is zero.
    fn echo(directions: usize, change: impl FnOnce(&mut Layer<'_, f64>)) -> Vec<f64> {
        let same = DirectionWeights { w_ih: vec![1.0], w_hh: vec![0.0], ..DirectionWeights::default() };
        let mut l = Layer {
            cell: Cell { candidate: Activation::Linear, ..Cell::RNN },
            units: 1,
            weights: &[vec![same; directions]],
            bidirectional: Some(Merge::Concat),
            go_backwards: false,
            reading_order: false,
            return_sequences: false,
            time_major: false,
            // Two sequences of three timesteps.
            x: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            batch: 2,
            timesteps: 3,
            input_size: 1,
            lengths: None,
            mask: None,
            masked_output: MaskedOutput::Zero,
        };
        change(&mut l);
        layer(&l)
    }

    #[test]
    fn merges_by_hand() {
        // The last output of the forward direction is at the last timestep, that of the backward direction at the
        // first.
        for (merge, want) in [
            (Merge::Concat, vec![3.0, 1.0, 6.0, 4.0]),
            (Merge::Sum, vec![4.0, 10.0]),
            (Merge::Average, vec![2.0, 5.0]),
            (Merge::Multiply, vec![3.0, 24.0]),
            (Merge::None, vec![3.0, 6.0]),
        ] {
            assert_eq!(echo(2, |l| l.bidirectional = Some(merge)), want, "{merge:?}");
        }
    }

    #[test]
    fn layouts_and_orders_by_hand() {
        let run = |time_major, reading_order, mask: Option<&'static [bool]>, return_sequences| {
            echo(1, |l| {
                (l.bidirectional, l.go_backwards) = (None, true);
                (l.time_major, l.reading_order, l.mask) = (time_major, reading_order, mask);
                l.return_sequences = return_sequences;
            })
        };
        assert_eq!(run(false, false, None, true), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(run(false, true, None, true), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        // Read as [T, B], the sequences are 1 3 5 and 2 4 6.
        assert_eq!(run(true, false, None, true), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(run(true, true, None, true), [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
        assert_eq!(run(true, true, None, false), [1.0, 2.0]);
        // The last timestep read is masked, so its output is zero.
        assert_eq!(run(false, false, Some(&[false, true, true, true, true, true]), false), [0.0, 4.0]);
    }

    #[test]
    fn masking_by_hand() {
        let (y, valid) = masking(&[2.0, 2.0, 2.0, 1.0], 2, 2.0);
        assert_eq!((y, valid), (vec![0.0, 0.0, 2.0, 1.0], vec![false, true]));
    }
}
