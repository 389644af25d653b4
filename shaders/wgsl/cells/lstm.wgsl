// An LSTM's part of a timestep: the sums of i f g o; the states h and c; `extra` holds the peepholes p_i p_f p_o, [3,
// H].
fn extra_of(at: u32) -> vec3<f32> {
    if HAS_EXTRA { return vec3<f32>(extra[at], extra[at + H], extra[at + 2u * H]); }
    return vec3<f32>();
}

fn cell(sums: vec4<f32>, rest: f32, old: vec4<f32>, peephole: vec3<f32>) -> vec4<f32> {
    let i = gate0(sums.x + peephole.x * old.y);
    var f = 1.0 - i;
    if !COUPLED {
        f = gate1(sums.y + peephole.y * old.y);
    }
    let g = candidate_activation(sums.z);
    let c = f * old.y + i * g;
    let o = gate2(sums.w + peephole.z * c);
    let h = o * output_activation(c);
    if HAS_ZONEOUT { return vec4<f32>(h, mix(c, old.y, ZONEOUT_C), 0.0, 0.0); }
    return vec4<f32>(h, c, 0.0, 0.0);
}
