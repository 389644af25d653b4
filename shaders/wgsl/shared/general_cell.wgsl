// A timestep of an LSTM or GRU after its matrix products, for cells with layer normalization or a projection: one
// workgroup per batch row and direction. Requires the workgroup arrays `raw` (W_hh h, then the results of the gates)
// and `partial`, and the bindings `projection`, `extra` and `c_state`.
#import workgroup_sum

// The mean and 1 / √(variance + EPSILON) of the first `count` elements of `raw`.
fn statistics(lane: u32, count: u32) -> vec2<f32> {
    var sum = 0.0;
    for (var i = lane; i < count; i += WORKGROUP) { sum += raw[i]; }
    let mean = total(lane, sum) / f32(count);
    sum = 0.0;
    for (var i = lane; i < count; i += WORKGROUP) {
        let v = raw[i] - mean;
        sum += v * v;
    }
    return vec2<f32>(mean, 1.0 / sqrt(total(lane, sum) / f32(count) + EPSILON));
}

// Row r of W_hh h, normalized if the cell has layer normalization.
fn hidden_part(e: u32, r: u32, norm: vec2<f32>) -> f32 {
    if LAYER_NORM {
        return (raw[r] - norm.x) * norm.y * extra[e + 3u * H + r] + extra[e + (3u + GATES) * H + r];
    }
    return raw[r];
}

// Computes one unit up to its new state: for an LSTM c in raw[j] and o in raw[3 H + j], for a GRU h in raw[j]. Each
// lane reads and writes only its own units, so overwriting is safe.
fn gates(e: u32, x: u32, cell: u32, j: u32, h_old: f32, norm: vec2<f32>, alive: bool) {
    let first = projection[x + j];
    let second = projection[x + H + j];
    let third = projection[x + 2u * H + j];
    if IS_LSTM {
        let old = c_state[cell + j];
        let i = gate0(first + hidden_part(e, j, norm) + extra[e + j] * old);
        var f = 1.0 - i;
        if !COUPLED {
            f = gate1(second + hidden_part(e, H + j, norm) + extra[e + H + j] * old);
        }
        let g = candidate_activation(third + hidden_part(e, 2u * H + j, norm));
        let c = f * old + i * g;
        let last = projection[x + (GATES - 1u) * H + j] + hidden_part(e, (GATES - 1u) * H + j, norm);
        let o = gate2(last + extra[e + 2u * H + j] * c);
        raw[j] = c;
        raw[(GATES - 1u) * H + j] = o;
        if alive {
            if HAS_ZONEOUT {
                c_state[cell + j] = mix(c, old, ZONEOUT_C);
            } else {
                c_state[cell + j] = c;
            }
        }
    } else {
        let r = gate0(first + hidden_part(e, j, norm));
        let z = gate1(second + hidden_part(e, H + j, norm));
        let n = candidate_activation(third + r * hidden_part(e, 2u * H + j, norm));
        raw[j] = (1.0 - z) * n + z * h_old;
    }
}

// The output of an LSTM's unit before a projection.
fn cell_output(e: u32, j: u32, norm: vec2<f32>) -> f32 {
    var c = raw[j];
    if LAYER_NORM {
        let at = e + (3u + 2u * GATES) * H + j;
        c = (c - norm.x) * norm.y * extra[at] + extra[at + H];
    }
    return raw[(GATES - 1u) * H + j] * output_activation(c);
}
