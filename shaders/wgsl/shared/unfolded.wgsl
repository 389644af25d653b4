// Values of activations with their derivatives, for gradients.
#import slopes

// The value of a gate and the derivative of its activation, from what was kept.
fn unfolded(code: u32, alpha: f32, beta: f32, v: f32) -> vec2<f32> {
    if !SUMS { return vec2<f32>(v, slope(code, alpha, beta, false, v)); }
    let x = clipped(v);
    let value = activate(code, alpha, beta, x);
    return vec2<f32>(value, stopped(v, slope_of(code, alpha, beta, x, value)));
}

// The derivative of a function from what it is applied to and its value.
fn slope_of(code: u32, alpha: f32, beta: f32, x: f32, value: f32) -> f32 {
    let by_input = code == 7u || ((code == 6u || code == 9u) && alpha <= 0.0);
    return slope(code, alpha, beta, by_input, select(value, x, by_input));
}

// No derivative where the input was clipped.
fn stopped(x: f32, by: f32) -> f32 {
    if HAS_CLIP { return select(by, 0.0, abs(x) >= CLIP); }
    return by;
}

fn unfolded0(v: f32) -> vec2<f32> { return unfolded(GATE0_CODE, GATE0_ALPHA, GATE0_BETA, v); }
fn unfolded1(v: f32) -> vec2<f32> { return unfolded(GATE1_CODE, GATE1_ALPHA, GATE1_BETA, v); }
fn unfolded2(v: f32) -> vec2<f32> { return unfolded(GATE2_CODE, GATE2_ALPHA, GATE2_BETA, v); }
fn unfolded_candidate(v: f32) -> vec2<f32> {
    return unfolded(CANDIDATE_CODE, CANDIDATE_ALPHA, CANDIDATE_BETA, v);
}

// The output activation of a value, and its derivative.
fn output_of(v: f32) -> vec2<f32> {
    var x = v;
    if CLIP_OUTPUT { x = clipped(v); }
    let value = activate(OUTPUT_CODE, OUTPUT_ALPHA, OUTPUT_BETA, x);
    let by = slope_of(OUTPUT_CODE, OUTPUT_ALPHA, OUTPUT_BETA, x, value);
    if CLIP_OUTPUT { return vec2<f32>(value, stopped(v, by)); }
    return vec2<f32>(value, by);
}
