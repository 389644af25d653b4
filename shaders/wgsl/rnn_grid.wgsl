// A whole SimpleRNN sequence in one dispatch by workgroups that run at the same time: each owns a tile of
// hidden units with its weights, and hands h to the others through memory after every step. Whoever waits
// too long sets a flag and everybody ends; the host then takes another way.
#import grid

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// GRID_HEAD elements, then h before the first step and after each: [chunk + 1, D, B, H]
@group(0) @binding(4) var<storage, read_write> exchange: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

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
#if REGISTERS
#unroll q K_SLICE
    let w$q = (d * K4 + begin + $qu) * H + jc;
    let ra$q = weights[w$q];
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & 2u) != 0u);
#import grid_wait
#unroll b BATCH_TILE
        var a$b = 0.0;
#end
#if REGISTERS
#unroll q K_SLICE
        {
            let wa = vec4<f32>(ra$q);
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (begin + $qu);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
                a$b += dot(wa, h);
            }
#end
        }
#end
#else
        for (var k = begin; k < begin + K_SLICE; k++) {
            let w = (d * K4 + k) * H + jc;
            let wa = vec4<f32>(weights[w]);
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (k);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
                a$b += dot(wa, h);
            }
#end
        }
#end
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (1u * UNIT_TILE) + unit;
            sums[at] = a$b;
        }
#end
        workgroupBarrier();
        if finishes {
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * H + j;
            var pre_a = projection[x];
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + slice) * (1u * UNIT_TILE) + unit;
                pre_a += sums[at];
            }
#end
            let alive = is_alive(row, t, p.timesteps);
            let old = h_tile[slice * (4u * K4) + j];
            var h = candidate_activation(pre_a);
            if HAS_ZONEOUT { h = mix(h, old, ZONEOUT_H); }
            if !alive { h = old; }
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
}
