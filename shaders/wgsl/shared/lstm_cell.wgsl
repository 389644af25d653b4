// One LSTM unit: pre-activations i f g o, the old cell state, peepholes p_i p_f p_o.
// Returns (h, c).
fn lstm_cell(pre: vec4<f32>, c_old: f32, peephole: vec3<f32>) -> vec2<f32> {
    let i = gate_activation(pre.x + peephole.x * c_old);
    var f = 1.0 - i;
    if !COUPLED {
        f = gate_activation(pre.y + peephole.y * c_old);
    }
    let g = candidate_activation(pre.z);
    let c = f * c_old + i * g;
    let o = gate_activation(pre.w + peephole.z * c);
    return vec2<f32>(o * output_activation(c), c);
}
