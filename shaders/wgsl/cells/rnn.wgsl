// A SimpleRNN's part of a timestep: one sum; the state h.
fn extra_of(at: u32) -> vec3<f32> {
    return vec3<f32>();
}

fn cell(sums: vec4<f32>, rest: f32, old: vec4<f32>, parts: vec3<f32>) -> vec4<f32> {
    return vec4<f32>(candidate_activation(sums.x), 0.0, 0.0, 0.0);
}
