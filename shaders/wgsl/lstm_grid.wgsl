// A whole LSTM sequence in one dispatch by workgroups that run at the same time: each owns a tile of
// hidden units with its weights, and hands h to the others through memory after every step. Whoever waits
// too long sets a flag and everybody ends; the host then takes another way.
#import grid
#import lstm_cell

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, 4·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, 4, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// [D, 3, H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// GRID_HEAD elements, then h before the first step and after each: [chunk + 1, D, B, H]
@group(0) @binding(5) var<storage, read_write> exchange: array<atomic<u32>>;
// [D, B, H]
@group(0) @binding(6) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

// [BATCH_TILE, 4·K4]
var<workgroup> h_tile: array<f32, H_TILE>;
var<workgroup> sums: array<f32, SUMS>;
var<workgroup> missing: u32;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#import grid_begin
    for (var v = lane; v < H_TILE; v += WORKGROUP) {
        h_tile[v] = 0.0;
    }
    var c = c_state[state_at];
#if REGISTERS
#unroll q K_SLICE
    let w$q = (d * K4 + begin + $qu) * (4u * H) + jc;
    let ri$q = weights[w$q];
    let rf$q = weights[w$q + H];
    let rg$q = weights[w$q + 2u * H];
    let ro$q = weights[w$q + 3u * H];
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & 2u) != 0u);
#import grid_wait
#unroll b BATCH_TILE
        var i$b = 0.0;
        var f$b = 0.0;
        var g$b = 0.0;
        var o$b = 0.0;
#end
#if REGISTERS
#unroll q K_SLICE
        {
            let wi = vec4<f32>(ri$q);
            let wf = vec4<f32>(rf$q);
            let wg = vec4<f32>(rg$q);
            let wo = vec4<f32>(ro$q);
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (begin + $qu);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
                i$b += dot(wi, h);
                f$b += dot(wf, h);
                g$b += dot(wg, h);
                o$b += dot(wo, h);
            }
#end
        }
#end
#else
        for (var k = begin; k < begin + K_SLICE; k++) {
            let w = (d * K4 + k) * (4u * H) + jc;
            let wi = vec4<f32>(weights[w]);
            let wf = vec4<f32>(weights[w + H]);
            let wg = vec4<f32>(weights[w + 2u * H]);
            let wo = vec4<f32>(weights[w + 3u * H]);
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (k);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
                i$b += dot(wi, h);
                f$b += dot(wf, h);
                g$b += dot(wg, h);
                o$b += dot(wo, h);
            }
#end
        }
#end
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (4u * UNIT_TILE) + unit;
            sums[at] = i$b;
            sums[at + UNIT_TILE] = f$b;
            sums[at + 2u * UNIT_TILE] = g$b;
            sums[at + 3u * UNIT_TILE] = o$b;
        }
#end
        workgroupBarrier();
        if finishes {
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * (4u * H) + j;
            var pre_i = projection[x];
            var pre_f = projection[x + H];
            var pre_g = projection[x + 2u * H];
            var pre_o = projection[x + 3u * H];
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + slice) * (4u * UNIT_TILE) + unit;
                pre_i += sums[at];
                pre_f += sums[at + UNIT_TILE];
                pre_g += sums[at + 2u * UNIT_TILE];
                pre_o += sums[at + 3u * UNIT_TILE];
            }
#end
            var peephole = vec3<f32>();
            if HAS_EXTRA {
                let e = d * 3u * H + j;
                peephole = vec3<f32>(extra[e], extra[e + H], extra[e + 2u * H]);
            }
            let alive = is_alive(row, t, p.timesteps);
            let old = h_tile[slice * (4u * K4) + j];
            let next = lstm_cell(vec4<f32>(pre_i, pre_f, pre_g, pre_o), c, peephole);
            var h = next.x;
            if HAS_ZONEOUT { h = mix(next.x, old, ZONEOUT_H); }
            if alive {
                c = next.y;
            } else {
                h = old;
            }
            let bits = sent(h);
            atomicStore(&exchange[GRID_HEAD + (((i + 1u) * p.directions + d) * p.batch + row) * H + j], bits);
            if (p.flags & 1u) != 0u {
                y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
            }
        }
        done++;
    }
    // Whoever waited in vain, and whoever a software rasteriser took out of the loop, says so.
    if done != p.steps { atomicStore(&exchange[0], GAVE_UP); }
    if finishes { c_state[state_at] = c; }
}
