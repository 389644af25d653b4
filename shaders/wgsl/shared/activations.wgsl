// Activation functions, selected by a constant, so that the compiler removes the other branches. The codes are those of
// `Activation::code` on the host.
#import nan

// tanh, computed with one exponential of a non-positive number, which cannot overflow; the built-in function gives NaN
// above about 42 on some drivers. Odd, within [-1, 1]; its error bound is in the tensor package's `bounds.rs`.
fn safe_tanh(x: f32) -> f32 {
    let e = exp(-2.0 * min(abs(x), 15.0));
    return sign(x) * ((1.0 - e) / (1.0 + e));
}

// Cannot overflow; below -87 the result is smaller than any normal number.
fn safe_sigmoid(x: f32) -> f32 {
    return select(1.0 / (1.0 + exp(-clamp(x, -87.0, 80.0))), 0.0, x < -87.0);
}

fn activated(code: u32, alpha: f32, beta: f32, x: f32) -> f32 {
    switch code {
        case 1u: { return safe_sigmoid(x); }
        case 2u: { return safe_tanh(x); }
        case 3u: { return max(x, 0.0); }
        case 4u: { return clamp(alpha * x + beta, 0.0, 1.0); }
        case 5u: { return alpha * x + beta; }
        case 6u: { return select(alpha * x, x, x >= 0.0); }
        case 7u: { return select(0.0, x, x > alpha); }
        case 8u: { return alpha * safe_tanh(beta * x); }
        case 9u: { return select(alpha * (exp(min(x, 0.0)) - 1.0), x, x >= 0.0); }
        case 10u: { return x / (1.0 + abs(x)); }
        case 11u: { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }
        case 12u: { return select(safe_sigmoid(x), x + 0.5, x >= 0.0); }
        default: { return x; }
    }
}

fn activate(code: u32, alpha: f32, beta: f32, x: f32) -> f32 {
    return unless_nan(x, activated(code, alpha, beta, x));
}
