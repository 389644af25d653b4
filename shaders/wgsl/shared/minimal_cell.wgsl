// A timestep of a minGRU or minLSTM as the map `h -> (.x) h + (.y)`. Requires the binding `projection`; x is the index
// of the unit's first gate.
fn minimal_cell(x: u32) -> vec2<f32> {
    let first = gate0(projection[x]);
    if KIND == 2u {
        let i = gate1(projection[x + H]);
        let n = candidate_activation(projection[x + (GATES - 1u) * H]);
        // If both gates round to 0, the quotient must not be NaN.
        let sum = max(first + i, 1e-37);
        return vec2<f32>(first / sum, i / sum * n);
    }
    let n = candidate_activation(projection[x + (GATES - 1u) * H]);
    return vec2<f32>(1.0 - first, first * n);
}
