// IndRNN, minGRU and minLSTM, timestep by timestep. No unit depends on another, so each lane computes one unit of one
// batch row and direction for all timesteps of the dispatch. KIND 0 is IndRNN, 1 minGRU, 2 minLSTM.
#import recurrent
#import minimal_cell

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, G·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// IndRNN: u [D, H]
@group(0) @binding(2) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// [D, B, H]
@group(0) @binding(4) var<storage, read_write> h_state: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = p.first_row + group.y;
    let d = group.z;
    let j = group.x * WORKGROUP + lane;
    if j >= H { return; }
    let reverse = is_reverse(p.flags, d);
    let state = (d * p.batch + row) * H + j;
    var h = 0.0;
    if !((p.flags & ZERO_H) != 0u && p.first_step == 0u) { h = h_state[state]; }
    var u = 0.0;
    if KIND == 0u { u = extra[d * H + j]; }
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & READING_ORDER) != 0u);
        let x = ((d * p.chunk_steps + slot) * p.batch + row) * (GATES * H) + j;
        let alive = is_alive(row, t, p.timesteps);
        if alive {
            if KIND == 0u {
                h = candidate_activation(projection[x] + u * h);
            } else {
                let step = minimal_cell(x);
                h = step.x * h + step.y;
            }
        }
        if (p.flags & WRITES_Y) != 0u {
            y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
        }
    }
    h_state[state] = h;
}
