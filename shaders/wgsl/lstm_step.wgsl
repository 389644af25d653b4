// One LSTM timestep: a workgroup per tile of hidden units, tile of batch rows and direction; each
// lane sums a slice of k for one unit, the slices meet in workgroup memory, the gates are fused.
#import recurrent
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
// The current h, [D, B, K4] of four neighbouring units, and the next, [D, B, 4·K4]
@group(0) @binding(5) var<storage, read> h_now: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> h_next: array<f32>;
// [D, B, H]
@group(0) @binding(7) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, SUMS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#import step_begin
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let h$b = (d * p.batch + row$b) * K4;
    var i$b = 0.0;
    var f$b = 0.0;
    var g$b = 0.0;
    var o$b = 0.0;
#end
    for (var k = slice * K_SLICE; k < (slice + 1u) * K_SLICE; k += K_UNROLL) {
#unroll q K_UNROLL
        {
            let w = (d * K4 + k + $qu) * (4u * H) + jc;
            let wi = vec4<f32>(weights[w]);
            let wf = vec4<f32>(weights[w + H]);
            let wg = vec4<f32>(weights[w + 2u * H]);
            let wo = vec4<f32>(weights[w + 3u * H]);
#unroll b BATCH_TILE
            {
                let h = h_now[h$b + k + $qu];
                i$b += dot(wi, h);
                f$b += dot(wf, h);
                g$b += dot(wg, h);
                o$b += dot(wo, h);
            }
#end
        }
#end
    }
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

    for (var b = slice; b < BATCH_TILE; b += K_SPLIT) {
        let row = first_row + b;
        if row < p.batch && j < H {
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * (4u * H) + j;
            var pre = vec4<f32>(projection[x], projection[x + H], projection[x + 2u * H], projection[x + 3u * H]);
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + b) * (4u * UNIT_TILE) + unit;
                pre += vec4<f32>(sums[at], sums[at + UNIT_TILE], sums[at + 2u * UNIT_TILE], sums[at + 3u * UNIT_TILE]);
            }
#end
            var peephole = vec3<f32>();
            if HAS_EXTRA {
                let e = d * 3u * H + j;
                peephole = vec3<f32>(extra[e], extra[e + H], extra[e + 2u * H]);
            }
            let alive = is_alive(row, t, p.timesteps);
            let at = (d * p.batch + row) * K4;
            let old = h_now[at + j / 4u][j % 4u];
            let next = lstm_cell(pre, c_state[(d * p.batch + row) * H + j], peephole);
            var h = next.x;
            if HAS_ZONEOUT { h = mix(next.x, old, ZONEOUT_H); }
            if alive {
                c_state[(d * p.batch + row) * H + j] = next.y;
            } else {
                h = old;
            }
            h_next[4u * at + j] = h;
            if (p.flags & 1u) != 0u {
                y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
            }
        }
    }
}
