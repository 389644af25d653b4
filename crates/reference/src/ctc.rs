//! Connectionist temporal classification (Graves et al. 2006).

use crate::Real;

/// One sequence.
#[derive(Clone, Copy, Debug)]
pub struct Ctc<'a, R> {
    /// Logits, or the logarithms of probabilities, `[T, C]`.
    pub x: &'a [R],
    /// The number of classes.
    pub classes: usize,
    /// Its labels, without blanks.
    pub labels: &'a [usize],
    /// Which timesteps there are.
    pub valid: &'a [bool],
    /// The class between labels.
    pub blank: usize,
    /// Whether `x` is logits.
    pub from_logits: bool,
}

/// The negative logarithm of the probability of all paths of a sequence; infinite if there is none.
///
/// ```text
/// α(0, 0) = 1
/// α(t, s) = (α(t-1, s) + α(t-1, s-1) + [l(s) ≠ l(s-2)] α(t-1, s-2)) p(t, l(s))
/// loss = -ln (α(T, 2U) + α(T, 2U-1))
/// ```
/// with the labels l and a blank before, between and after them, 2 U + 1 places.
pub fn ctc<R: Real>(a: &Ctc<'_, R>) -> R {
    let places: Vec<usize> = a.labels.iter().flat_map(|&l| [a.blank, l]).chain([a.blank]).collect();
    let mut alpha = vec![R::ZERO; places.len()];
    alpha[0] = R::ONE;
    // The power of two by which alpha was multiplied.
    let mut power = 0;
    for (x, _) in a.x.chunks_exact(a.classes).zip(a.valid).filter(|(_, valid)| **valid) {
        let p = probabilities(x, a.from_logits);
        alpha = (0..places.len())
            .map(|s| {
                let mut sum = alpha[s];
                if s > 0 {
                    sum = sum + alpha[s - 1];
                }
                if s > 1 && places[s] != places[s - 2] {
                    sum = sum + alpha[s - 2];
                }
                sum * p[places[s]]
            })
            .collect();
        let largest = alpha.iter().map(|v| v.to_f64()).fold(0.0, f64::max);
        if largest > 0.0 && largest.is_finite() {
            let more = (-largest.log2().floor()).clamp(-100.0, 100.0) as i32;
            alpha.iter_mut().for_each(|v| *v = *v * R::from_f32(2f32.powi(more)));
            power += more;
        }
    }
    let mut end = alpha[places.len() - 1];
    if places.len() > 1 {
        end = end + alpha[places.len() - 2];
    }
    if end.to_f64() == 0.0 {
        return R::from_f32(f32::INFINITY);
    }
    while end.to_f64() < 0.5 {
        end = end + end;
        power += 1;
    }
    let taken = f64::from(power) * core::f64::consts::LN_2;
    // In two parts, so that no digits of f64 are lost.
    let high = taken as f32;
    R::from_f32(high) + R::from_f32((taken - f64::from(high)) as f32) - (end - R::ONE).ln_1p()
}

fn probabilities<R: Real>(x: &[R], from_logits: bool) -> Vec<R> {
    if !from_logits {
        return x.iter().map(|v| v.exp()).collect();
    }
    let highest = x.iter().map(|v| v.to_f64()).fold(f64::NEG_INFINITY, f64::max) as f32;
    let powers: Vec<R> = x.iter().map(|&v| (v - R::from_f32(highest)).exp()).collect();
    let sum = powers.iter().fold(R::ZERO, |sum, &v| sum + v);
    powers.into_iter().map(|v| v / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over every path that there is.
    fn all_paths(x: &[f64], classes: usize, labels: &[usize], blank: usize) -> f64 {
        let timesteps = x.len() / classes;
        let mut sum = 0.0;
        for n in 0..classes.pow(timesteps as u32) {
            let path: Vec<usize> = (0..timesteps).map(|t| n / classes.pow(t as u32) % classes).collect();
            let mut merged = path.clone();
            merged.dedup();
            merged.retain(|&c| c != blank);
            if merged == labels {
                sum += path.iter().enumerate().map(|(t, &c)| x[t * classes + c]).sum::<f64>().exp();
            }
        }
        -sum.ln()
    }

    #[test]
    fn paths_are_counted_once() {
        let x: Vec<f64> = (0..18).map(|n| -0.2 - f64::from(n * 7 % 11) * 0.3).collect();
        for blank in 0..3 {
            let [a, b] = [(blank + 1) % 3, (blank + 2) % 3];
            for labels in [vec![], vec![a], vec![a, a], vec![a, b, a], vec![b, b, a], vec![a, a, a, a]] {
                let valid = [true; 6];
                let rule = Ctc { x: &x, classes: 3, labels: &labels, valid: &valid, blank, from_logits: false };
                let (got, want) = (ctc(&rule), all_paths(&x, 3, &labels, blank));
                assert!(got == want || (got - want).abs() < 1e-12, "{labels:?}, blank {blank}: {got}, not {want}");
                let first = [true, true, true, false, false, false];
                let got = ctc(&Ctc { valid: &first, ..rule });
                let want = all_paths(&x[..9], 3, &labels, blank);
                assert!(got == want || (got - want).abs() < 1e-12, "{labels:?} of half: {got}, not {want}");
            }
        }
    }
}
