// A GRU's part of a timestep: the sums of r z n, with the input of n passed separately; the state is h. With the reset
// gate after the product, `extra` holds b_hn, [H]. With the reset gate before it (EXCHANGE), the product of n is of r ∘
// h, which the units exchange.
#if EXCHANGE
fn extra_of(at: u32) -> vec3<f32> {
    return vec3<f32>();
}

// Returns r ∘ h, and z, which is needed after the product.
fn exchanged(sums: vec4<f32>, h_old: f32) -> vec2<f32> {
    return vec2<f32>(gate0(sums.x) * h_old, gate1(sums.y));
}

// sums.x holds z; rest is the whole sum of n.
fn cell(sums: vec4<f32>, rest: f32, old: vec4<f32>, parts: vec3<f32>) -> vec4<f32> {
    let n = candidate_activation(rest);
    return vec4<f32>((1.0 - sums.x) * n + sums.x * old.x, 0.0, 0.0, 0.0);
}
#else
fn extra_of(at: u32) -> vec3<f32> {
    if HAS_EXTRA { return vec3<f32>(extra[at], 0.0, 0.0); }
    return vec3<f32>();
}

fn cell(sums: vec4<f32>, rest: f32, old: vec4<f32>, parts: vec3<f32>) -> vec4<f32> {
    var recurrent = sums.z;
    if HAS_EXTRA { recurrent += parts.x; }
    let z = gate1(sums.y);
    let n = candidate_activation(rest + gate0(sums.x) * recurrent);
    return vec4<f32>((1.0 - z) * n + z * old.x, 0.0, 0.0, 0.0);
}
#end
