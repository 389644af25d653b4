// A whole GRU with the reset gate after the product sequence in one dispatch by workgroups that run at the same time: each owns a tile of
// hidden units with its weights, and hands h to the others through memory after every step. Whoever waits
// too long sets a flag and everybody ends; the host then takes another way.
#import grid

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, 3·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, 3, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// b_hn, [D, H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// GRID_HEAD elements, then h before the first step and after each: [chunk + 1, D, B, H]
@group(0) @binding(5) var<storage, read_write> exchange: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

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
    let w$q = (d * K4 + begin + $qu) * (3u * H) + jc;
    let rr$q = weights[w$q];
    let rz$q = weights[w$q + H];
    let rn$q = weights[w$q + 2u * H];
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & 2u) != 0u);
#import grid_wait
#unroll b BATCH_TILE
        var r$b = 0.0;
        var z$b = 0.0;
        var n$b = 0.0;
#end
#if REGISTERS
#unroll q K_SLICE
        {
            let wr = vec4<f32>(rr$q);
            let wz = vec4<f32>(rz$q);
            let wn = vec4<f32>(rn$q);
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (begin + $qu);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
                r$b += dot(wr, h);
                z$b += dot(wz, h);
                n$b += dot(wn, h);
            }
#end
        }
#end
#else
        for (var k = begin; k < begin + K_SLICE; k++) {
            let w = (d * K4 + k) * (3u * H) + jc;
            let wr = vec4<f32>(weights[w]);
            let wz = vec4<f32>(weights[w + H]);
            let wn = vec4<f32>(weights[w + 2u * H]);
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (k);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
                r$b += dot(wr, h);
                z$b += dot(wz, h);
                n$b += dot(wn, h);
            }
#end
        }
#end
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (3u * UNIT_TILE) + unit;
            sums[at] = r$b;
            sums[at + UNIT_TILE] = z$b;
            sums[at + 2u * UNIT_TILE] = n$b;
        }
#end
        workgroupBarrier();
        if finishes {
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * (3u * H) + j;
            var pre_r = projection[x];
            var pre_z = projection[x + H];
            var pre_n = 0.0;
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + slice) * (3u * UNIT_TILE) + unit;
                pre_r += sums[at];
                pre_z += sums[at + UNIT_TILE];
                pre_n += sums[at + 2u * UNIT_TILE];
            }
#end
            if HAS_EXTRA { pre_n += extra[d * H + j]; }
            let alive = is_alive(row, t, p.timesteps);
            let old = h_tile[slice * (4u * K4) + j];
            let z = gate1(pre_z);
            let n = candidate_activation(projection[x + 2u * H] + gate0(pre_r) * pre_n);
            var h = (1.0 - z) * n + z * old;
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
