// One GRU timestep, tiled like the other step kernels. With RESET_AFTER one dispatch does it all; without
// it the first (FIRST) makes z and r ∘ h, the second multiplies r ∘ h and finishes.
#import recurrent

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, 3·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, 3, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// The current h, [D, B, K4] of four neighbouring units
@group(0) @binding(4) var<storage, read> h_now: array<vec4<f32>>;
#if RESET_AFTER
// b_hn, [D, H]
@group(0) @binding(5) var<storage, read> extra: array<f32>;
// The next h, [D, B, 4·K4]
@group(0) @binding(6) var<storage, read_write> h_next: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
#else
#if FIRST
// r ∘ h, [D, B, 4·K4], and z, [D, B, H]
@group(0) @binding(5) var<storage, read_write> reset_h: array<f32>;
@group(0) @binding(6) var<storage, read_write> z_state: array<f32>;
#else
// r ∘ h, [D, B, K4] of four neighbouring units, and z, [D, B, H]
@group(0) @binding(5) var<storage, read> reset_h: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> z_state: array<f32>;
// The next h, [D, B, 4·K4]
@group(0) @binding(7) var<storage, read_write> h_next: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;
#end
#end

var<workgroup> sums: array<f32, SUMS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#import step_begin
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let h$b = (d * p.batch + row$b) * K4;
    var r$b = 0.0;
    var z$b = 0.0;
    var n$b = 0.0;
#end
    for (var k = slice * K_SLICE; k < (slice + 1u) * K_SLICE; k += K_UNROLL) {
#unroll q K_UNROLL
        {
            let w = (d * K4 + k + $qu) * (3u * H) + jc;
#unroll b BATCH_TILE
#if SECOND
            let v$b = reset_h[h$b + k + $qu];
#else
            let v$b = h_now[h$b + k + $qu];
#end
#end
#if SECOND
#else
            let wr = vec4<f32>(weights[w]);
            let wz = vec4<f32>(weights[w + H]);
#unroll b BATCH_TILE
            r$b += dot(wr, v$b);
            z$b += dot(wz, v$b);
#end
#end
#if FIRST
#else
            let wn = vec4<f32>(weights[w + 2u * H]);
#unroll b BATCH_TILE
            n$b += dot(wn, v$b);
#end
#end
        }
#end
    }
#unroll b BATCH_TILE
    {
        let at = (slice * BATCH_TILE + $bu) * (3u * UNIT_TILE) + unit;
        sums[at] = r$b;
        sums[at + UNIT_TILE] = z$b;
        sums[at + 2u * UNIT_TILE] = n$b;
    }
#end
    workgroupBarrier();

    for (var b = slice; b < BATCH_TILE; b += K_SPLIT) {
        let row = first_row + b;
        if row < p.batch && j < H {
            var sum = vec3<f32>();
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + b) * (3u * UNIT_TILE) + unit;
                sum += vec3<f32>(sums[at], sums[at + UNIT_TILE], sums[at + 2u * UNIT_TILE]);
            }
#end
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * (3u * H) + j;
            let at = (d * p.batch + row) * K4;
            let flat = (d * p.batch + row) * H + j;
            let old = h_now[at + j / 4u][j % 4u];
#if FIRST
            z_state[flat] = gate1(projection[x + H] + sum.y);
            reset_h[4u * at + j] = gate0(projection[x] + sum.x) * old;
#else
            var recurrent = sum.z;
#if RESET_AFTER
            let z = gate1(projection[x + H] + sum.y);
            if HAS_EXTRA { recurrent += extra[d * H + j]; }
            recurrent *= gate0(projection[x] + sum.x);
#else
            let z = z_state[flat];
#end
            let n = candidate_activation(projection[x + 2u * H] + recurrent);
            let alive = is_alive(row, t, p.timesteps);
            var h = (1.0 - z) * n + z * old;
            if HAS_ZONEOUT { h = mix(h, old, ZONEOUT_H); }
            if !alive { h = old; }
            h_next[4u * at + j] = h;
            if (p.flags & 1u) != 0u {
                y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
            }
#end
        }
    }
}
