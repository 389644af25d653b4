// One timestep of an LSTM or GRU with layer normalization, or of an LSTM with a projection of h, after the product W_hh
// h: one workgroup per batch row and direction. PHASE 0 computes everything. With a projection, PHASE 1 computes the
// input of the projection, and PHASE 2 stores the projected h.
#import recurrent
#import general_cell

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, G·H]; normalized if the cell has layer normalization
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// W_hh h [D, B, G·H], or in PHASE 2 the projected h [D, B, W]
@group(0) @binding(2) var<storage, read> product: array<f32>;
// [D, EXTRA]: peepholes [3, H]; gain and offset of W_hh h [2, G·H]; of c [2, H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// [D, B, W]
@group(0) @binding(5) var<storage, read_write> h_state: array<f32>;
// [D, B, H]
@group(0) @binding(6) var<storage, read_write> c_state: array<f32>;
// [D, B, H]: the input of the projection, written by PHASE 1
@group(0) @binding(7) var<storage, read_write> m_state: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

var<workgroup> raw: array<f32, RAW>;
var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = p.first_row + group.x;
    let d = group.y;
    let reverse = is_reverse(p.flags, d);
    let s = p.first_step;
    let t = time_of(s, p.timesteps, reverse);
    let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
    let place = select(t, s, (p.flags & READING_ORDER) != 0u);
    let state = (d * p.batch + row) * W;
    let cell = (d * p.batch + row) * H;
    let e = d * EXTRA;
    let x = ((d * p.chunk_steps + slot) * p.batch + row) * (GATES * H);
    let alive = is_alive(row, t, p.timesteps);
    var norm = vec2<f32>(0.0, 1.0);
    if PHASE != 2u {
        for (var r = lane; r < GATES * H; r += WORKGROUP) {
            raw[r] = product[(d * p.batch + row) * (GATES * H) + r];
        }
        workgroupBarrier();
        if LAYER_NORM { norm = statistics(lane, GATES * H); }
        for (var j = lane; j < H; j += WORKGROUP) {
            gates(e, x, cell, j, h_state[state + min(j, W - 1u)], norm, alive);
        }
        workgroupBarrier();
        if IS_LSTM && LAYER_NORM { norm = statistics(lane, H); }
    }
    if PHASE == 1u {
        for (var j = lane; j < H; j += WORKGROUP) { m_state[cell + j] = cell_output(e, j, norm); }
    } else {
        for (var j = lane; j < W; j += WORKGROUP) {
            let old = h_state[state + j];
            var h = 0.0;
            if PHASE == 2u {
                h = product[state + j];
            } else if IS_LSTM {
                h = cell_output(e, j, norm);
            } else {
                h = raw[j];
            }
            if HAS_ZONEOUT { h = mix(h, old, ZONEOUT_H); }
            if !alive { h = old; }
            h_state[state + j] = h;
            if (p.flags & WRITES_Y) != 0u {
                y[row * p.y_batch + place * p.y_time + d * W + j] = shown(h, alive, p.flags);
            }
        }
    }
}
