// One SimpleRNN timestep: a workgroup per tile of hidden units, tile of batch rows and direction;
// each lane sums a slice of k for one unit, and the slices meet in workgroup memory.
#import recurrent

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// The current h, [D, B, K4] of four neighbouring units, and the next, [D, B, 4·K4]
@group(0) @binding(4) var<storage, read> h_now: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> h_next: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, SUMS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#import step_begin
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let h$b = (d * p.batch + row$b) * K4;
    var a$b = 0.0;
#end
    for (var k = slice * K_SLICE; k < (slice + 1u) * K_SLICE; k += K_UNROLL) {
#unroll q K_UNROLL
        {
            let w = vec4<f32>(weights[(d * K4 + k + $qu) * H + jc]);
#unroll b BATCH_TILE
            a$b += dot(w, h_now[h$b + k + $qu]);
#end
        }
#end
    }
#unroll b BATCH_TILE
    sums[(slice * BATCH_TILE + $bu) * UNIT_TILE + unit] = a$b;
#end
    workgroupBarrier();

    for (var b = slice; b < BATCH_TILE; b += K_SPLIT) {
        let row = first_row + b;
        if row < p.batch && j < H {
            var pre = projection[((d * p.chunk_steps + slot) * p.batch + row) * H + j];
#unroll q K_SPLIT
            pre += sums[($qu * BATCH_TILE + b) * UNIT_TILE + unit];
#end
            let alive = is_alive(row, t, p.timesteps);
            let at = (d * p.batch + row) * K4;
            let old = h_now[at + j / 4u][j % 4u];
            var h = candidate_activation(pre);
            if HAS_ZONEOUT { h = mix(h, old, ZONEOUT_H); }
            if !alive { h = old; }
            h_next[4u * at + j] = h;
            if (p.flags & 1u) != 0u {
                y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
            }
        }
    }
}
