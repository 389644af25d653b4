// A whole sequence of an LSTM or GRU with layer normalization, or of an LSTM with a projection of h,
// in one dispatch: one workgroup per batch row and direction.
#import recurrent
#import general_cell
#import h_tile

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, G·H]; normalized if the cell has layer normalization
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, G, H] vectors of four adjacent k, where k runs over the state
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// W_hr, [D, H / 4, W] vectors of four adjacent units
@group(0) @binding(3) var<storage, read> w_hr: array<vec4<WEIGHT>>;
// [D, EXTRA]: peepholes [3, H]; gain and offset of W_hh h [2, G·H]; of c [2, H]
@group(0) @binding(4) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(5) var<storage, read> valid: array<u32>;
// [D, B, W]
@group(0) @binding(6) var<storage, read_write> h_state: array<f32>;
// [D, B, H]
@group(0) @binding(7) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

#if PROJECTION
// The input of the projection W_hr, padded with zeros.
var<workgroup> m_tile: array<vec4<f32>, H4>;
#end
var<workgroup> raw: array<f32, RAW>;
var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = p.first_row + group.x;
    let d = group.y;
    let reverse = is_reverse(p.flags, d);
    let state = (d * p.batch + row) * W;
    let cell = (d * p.batch + row) * H;
    let e = d * EXTRA;
    for (var v = lane; v < H_FLOATS; v += WORKGROUP) { h_floats[v] = 0.0; }
    workgroupBarrier();
    if !((p.flags & ZERO_H) != 0u && p.first_step == 0u) {
        for (var j = lane; j < W; j += WORKGROUP) { h_floats[j] = h_state[state + j]; }
    }
    if IS_LSTM && (p.flags & ZERO_C) != 0u && p.first_step == 0u {
        for (var j = lane; j < H; j += WORKGROUP) { c_state[cell + j] = 0.0; }
    }
    workgroupBarrier();
    pack(lane);
    workgroupBarrier();

    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & READING_ORDER) != 0u);
        let x = ((d * p.chunk_steps + slot) * p.batch + row) * (GATES * H);
        let alive = is_alive(row, t, p.timesteps);
        for (var r = lane; r < GATES * H; r += WORKGROUP) {
            var sum = 0.0;
            for (var k = 0u; k < K4; k++) {
                sum += dot(vec4<f32>(weights[(d * K4 + k) * (GATES * H) + r]), h_tile[k]);
            }
            raw[r] = sum;
        }
        workgroupBarrier();
        var norm = vec2<f32>(0.0, 1.0);
        if LAYER_NORM { norm = statistics(lane, GATES * H); }
        for (var j = lane; j < H; j += WORKGROUP) {
            gates(e, x, cell, j, h_floats[min(j, H_FLOATS - 1u)], norm, alive);
        }
        workgroupBarrier();
        if IS_LSTM {
            if LAYER_NORM { norm = statistics(lane, H); }
            // Each lane reads and writes only its own unit, so overwriting is safe.
            for (var j = lane; j < H; j += WORKGROUP) { raw[j] = cell_output(e, j, norm); }
        }
#if PROJECTION
        workgroupBarrier();
        for (var v = lane; v < H4; v += WORKGROUP) {
            let last = H - 1u;
            let m = vec4<f32>(raw[4u * v], raw[min(4u * v + 1u, last)], raw[min(4u * v + 2u, last)], raw[min(4u * v + 3u, last)]);
            m_tile[v] = select(vec4<f32>(), m, vec4<u32>(4u * v) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(H));
        }
        workgroupBarrier();
#end
        for (var j = lane; j < W; j += WORKGROUP) {
            let old = h_floats[j];
#if PROJECTION
            var h = 0.0;
            for (var k = 0u; k < H4; k++) {
                h += dot(vec4<f32>(w_hr[(d * H4 + k) * W + j]), m_tile[k]);
            }
#else
            var h = raw[j];
#end
            if HAS_ZONEOUT { h = mix(h, old, ZONEOUT_H); }
            if !alive { h = old; }
            h_floats[j] = h;
            if (p.flags & WRITES_Y) != 0u {
                y[row * p.y_batch + place * p.y_time + d * W + j] = shown(h, alive, p.flags);
            }
        }
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
    }

    for (var j = lane; j < W; j += WORKGROUP) { h_state[state + j] = h_floats[j]; }
}
