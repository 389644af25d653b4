// One LSTM unit: pre-activations i f g o, the old cell state, peepholes p_i p_f p_o.
// Returns (h, c); h before zoneout, c after it.
fn lstm_cell(pre: vec4<f32>, c_old: f32, peephole: vec3<f32>) -> vec2<f32> {
    let i = gate0(pre.x + peephole.x * c_old);
    var f = 1.0 - i;
    if !COUPLED {
        f = gate1(pre.y + peephole.y * c_old);
    }
    let g = candidate_activation(pre.z);
    let c = f * c_old + i * g;
    let o = gate2(pre.w + peephole.z * c);
    let h = o * output_activation(c);
    if HAS_ZONEOUT { return vec2<f32>(h, mix(c, c_old, ZONEOUT_C)); }
    return vec2<f32>(h, c);
}
