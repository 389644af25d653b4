// Derivatives of the activation functions, selected by a constant. The codes are those of `Activation::code`.
#import nan

// From the result y. Of functions whose derivative cannot be told from it (`Activation::slope_needs_input`) it is told
// from the input.
fn slope_at(code: u32, alpha: f32, beta: f32, from_input: bool, v: f32) -> f32 {
    switch code {
        case 1u: { return v * (1.0 - v); }
        case 2u: { return 1.0 - v * v; }
        case 3u: { return select(0.0, 1.0, v > 0.0); }
        case 4u: { return select(0.0, alpha, v > 0.0 && v < 1.0); }
        case 5u: { return alpha; }
        case 6u: { return select(alpha, 1.0, v > 0.0); }
        case 7u: { return select(0.0, 1.0, v > select(0.0, alpha, from_input)); }
        case 8u: { return select(beta * (alpha - v * v / alpha), 0.0, alpha == 0.0); }
        case 9u: {
            let below = select(v + alpha, alpha * exp(min(v, 0.0)), from_input);
            return select(below, 1.0, v > 0.0);
        }
        case 10u: { return (1.0 - abs(v)) * (1.0 - abs(v)); }
        case 11u: { return 1.0 - exp(-v); }
        case 12u: { return select(v * (1.0 - v), 1.0, v >= 0.5); }
        default: { return 1.0; }
    }
}

fn slope(code: u32, alpha: f32, beta: f32, from_input: bool, v: f32) -> f32 {
    return unless_nan(v, slope_at(code, alpha, beta, from_input, v));
}
