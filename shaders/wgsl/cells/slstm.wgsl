// An sLSTM's part of a timestep: the sums of i f z o; the states h, c, n and m.
fn extra_of(at: u32) -> vec3<f32> {
    return vec3<f32>();
}

// ln(sigmoid(x)) = min(x, 0) - ln(1 + e) with e = e^-|x|. With v = e / (2 + e), which is at most 1/3, the logarithm is
// 2 artanh(v), computed by its series up to v^13. WGSL's own `log` may be off by 5e-7 near 1.
fn log_sigmoid(x: f32) -> f32 {
    let e = exp(-min(abs(x), 87.0));
    let v = e / (2.0 + e);
    let u = v * v;
    let p = 2.0 + u * (2.0 / 3.0 + u * (0.4 + u * (2.0 / 7.0 + u * (2.0 / 9.0 + u * (2.0 / 11.0 + u * (2.0 / 13.0))))));
    return unless_nan(x, min(x, 0.0) - p * v);
}

// e^x, or 1 if x is above 0.
fn exp_up_to_one(x: f32) -> f32 {
    return unless_nan(x, select(exp(clamp(x, -87.0, 0.0)), 0.0, x < -87.0));
}

fn cell(sums: vec4<f32>, rest: f32, old: vec4<f32>, parts: vec3<f32>) -> vec4<f32> {
    let i = clipped(sums.x);
    var log_f = clipped(sums.y);
    if !EXPONENTIAL_FORGET { log_f = log_sigmoid(log_f); }
    let z = candidate_activation(sums.z);
    let o = gate2(sums.w);
    let kept = log_f + old.w;
    // The stabilizer: the larger of `kept` and `i`, NaN if either is NaN; for an empty state (n = 0) it is `i`.
    let larger = unless_nan(kept, unless_nan(i, max(kept, i)));
    let m = select(larger, i, (bitcast<u32>(old.z) & 0x7fffffffu) == 0u);
    let i_gate = exp_up_to_one(i - m);
    let f_gate = exp_up_to_one(kept - m);
    let c = f_gate * old.y + i_gate * z;
    let n = f_gate * old.z + i_gate;
    return vec4<f32>(o * (c / n), c, n, m);
}
