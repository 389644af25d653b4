//! Gates as they were, and the derivatives of their activations, from what was kept of them.

use recurve_tensor::Activation;
use recurve_tensor::cpu::simd::activate_slice;

/// Clamps to `[-limit, limit]`; NaN stays NaN.
pub(super) fn clamp(limit: Option<f32>, v: &mut [f32]) {
    if let Some(limit) = limit {
        v.iter_mut().for_each(|v| {
            *v = if *v > limit {
                limit
            } else if *v < -limit {
                -limit
            } else {
                *v
            }
        });
    }
}

/// Makes a derivative zero where the input of the function was clamped.
pub(super) fn stop_at(limit: Option<f32>, x: &[f32], slope: &mut [f32]) {
    if let Some(limit) = limit {
        slope.iter_mut().zip(x).filter(|(_, x)| x.abs() >= limit).for_each(|(s, _)| *s = 0.0);
    }
}

/// What a gate was, and the derivative of its activation by its sum, from what was kept: its value, or with `sums` its
/// sum.
pub(super) fn unfold(f: Activation, clip: Option<f32>, sums: bool, kept: &[f32], value: &mut [f32], slope: &mut [f32]) {
    value.copy_from_slice(kept);
    if sums {
        clamp(clip, value);
        slope.copy_from_slice(value);
        activate_slice(f, value);
    }
    slopes(f, value, slope);
    if sums {
        stop_at(clip, kept, slope);
    }
}

/// The derivative of a function from its values `y`. Where [`Activation::slope_needs_input`], `slope` holds before what the
/// function was applied to.
pub(super) fn slopes(f: Activation, y: &[f32], slope: &mut [f32]) {
    if f.slope_needs_input() {
        // Where it is applied to a number up to the corner, and above.
        let (corner, below, shift): (f32, f32, f32) = match f {
            Activation::LeakyRelu { alpha } => (0.0, alpha, 0.0),
            Activation::ThresholdedRelu { alpha } => (alpha, 0.0, 0.0),
            // alpha e^x = y + alpha
            Activation::Elu { alpha } => (0.0, alpha, 1.0),
            // No other functions exist; a new one gives NaN, never another function's derivative.
            _ => (f32::NAN, f32::NAN, 0.0),
        };
        for (s, &y) in slope.iter_mut().zip(y) {
            *s = if *s > corner { 1.0 } else { below + shift * y };
        }
        return;
    }
    macro_rules! each {
        (|$y:ident| $of:expr) => {
            for (s, &$y) in slope.iter_mut().zip(y) {
                *s = $of;
            }
        };
    }
    match f {
        Activation::Linear => slope.fill(1.0),
        Activation::Sigmoid => each!(|y| y * (1.0 - y)),
        Activation::Tanh => each!(|y| 1.0 - y * y),
        Activation::Relu => each!(|y| if y > 0.0 { 1.0 } else { 0.0 }),
        Activation::HardSigmoid { alpha, .. } => each!(|y| if y > 0.0 && y < 1.0 { alpha } else { 0.0 }),
        Activation::Affine { alpha, .. } => slope.fill(alpha),
        Activation::LeakyRelu { alpha } => each!(|y| if y > 0.0 { 1.0 } else { alpha }),
        Activation::ThresholdedRelu { .. } => each!(|y| if y > 0.0 { 1.0 } else { 0.0 }),
        // It is 0 everywhere.
        Activation::ScaledTanh { alpha: 0.0, .. } => slope.fill(0.0),
        Activation::ScaledTanh { alpha, beta } => each!(|y| beta * (alpha - y * y / alpha)),
        Activation::Elu { alpha } => each!(|y| if y > 0.0 { 1.0 } else { y + alpha }),
        Activation::Softsign => each!(|y| (1.0 - y.abs()) * (1.0 - y.abs())),
        // sigmoid(x) = 1 - e^-y
        Activation::Softplus => each!(|y| -(-y).exp_m1()),
        Activation::Positive => each!(|y| if y >= 0.5 { 1.0 } else { y * (1.0 - y) }),
        _ => slope.fill(f32::NAN),
    }
}
