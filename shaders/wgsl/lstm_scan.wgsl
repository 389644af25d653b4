// A whole LSTM sequence in one dispatch: one workgroup per tile of batch rows and direction,
// a lane per hidden unit (UNITS units a lane) with its h and c in registers, all h in workgroup memory.
#import recurrent
#import joined
#import h_tile
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
// [D, B, H]
@group(0) @binding(5) var<storage, read_write> h_state: array<f32>;
@group(0) @binding(6) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

#if RESIDENT
var<private> own: array<vec4<f32>, OWN>;
#end
#if PARTIAL
var<workgroup> partial: array<f32, PARTIAL_SUMS>;
#end

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#import scan_begin
    let from_c_zero = (p.flags & 32u) != 0u && p.first_step == 0u;
#unroll u UNITS
#unroll b BATCH_TILE
    var c$u_$b = 0.0;
    if !from_c_zero { c$u_$b = c_state[(d * p.batch + row$b) * H + jc$u]; }
#end
#end
#if REGISTERS
#unroll q K_SLICE
    let w$q = (d * K4 + begin + $qu) * (4u * H) + jc0;
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
#unroll u UNITS
#unroll b BATCH_TILE
        var i$u_$b = 0.0;
        var f$u_$b = 0.0;
        var g$u_$b = 0.0;
        var o$u_$b = 0.0;
        if slice == 0u {
            let x = ((d * p.chunk_steps + slot) * p.batch + row$b) * (4u * H) + jc$u;
            i$u_$b = projection[x];
            f$u_$b = projection[x + H];
            g$u_$b = projection[x + 2u * H];
            o$u_$b = projection[x + 3u * H];
        }
#end
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
                let h = h_tile[$bu * K4 + begin + $qu];
                i0_$b += dot(wi, h);
                f0_$b += dot(wf, h);
                g0_$b += dot(wg, h);
                o0_$b += dot(wo, h);
            }
#end
        }
#end
#else
        for (var k = begin; k < begin + K_SLICE; k += K_UNROLL) {
#unroll q K_UNROLL
            {
#unroll b BATCH_TILE
                let h$b = h_tile[$bu * K4 + k + $qu];
#end
#unroll u UNITS
                {
#if RESIDENT
                    let w = ($uu * K4 + k + $qu) * 4u;
                    let wi = own[w];
                    let wf = own[w + 1u];
                    let wg = own[w + 2u];
                    let wo = own[w + 3u];
#else
                    let w = (d * K4 + k + $qu) * (4u * H) + jc$u;
                    let wi = vec4<f32>(weights[w]);
                    let wf = vec4<f32>(weights[w + H]);
                    let wg = vec4<f32>(weights[w + 2u * H]);
                    let wo = vec4<f32>(weights[w + 3u * H]);
#end
#unroll b BATCH_TILE
                    i$u_$b += dot(wi, h$b);
                    f$u_$b += dot(wf, h$b);
                    g$u_$b += dot(wg, h$b);
                    o$u_$b += dot(wo, h$b);
#end
                }
#end
            }
#end
        }
#end
#if SPLIT
#if SUBGROUPS
#unroll b BATCH_TILE
        i0_$b = joined(i0_$b);
        f0_$b = joined(f0_$b);
        g0_$b = joined(g0_$b);
        o0_$b = joined(o0_$b);
#end
#else
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (4u * UNIT_LANES) + unit;
            partial[at] = i0_$b;
            partial[at + UNIT_LANES] = f0_$b;
            partial[at + 2u * UNIT_LANES] = g0_$b;
            partial[at + 3u * UNIT_LANES] = o0_$b;
        }
#end
        workgroupBarrier();
#unroll b BATCH_TILE
        i0_$b = 0.0;
        f0_$b = 0.0;
        g0_$b = 0.0;
        o0_$b = 0.0;
#unroll q K_SPLIT
        {
            let at = ($qu * BATCH_TILE + $bu) * (4u * UNIT_LANES) + unit;
            i0_$b += partial[at];
            f0_$b += partial[at + UNIT_LANES];
            g0_$b += partial[at + 2u * UNIT_LANES];
            o0_$b += partial[at + 3u * UNIT_LANES];
        }
#end
#end
#end
#end
#unroll u UNITS
#if SPLIT
        {
#else
        if j$u < H {
#end
            var peephole = vec3<f32>();
            if HAS_EXTRA {
                let e = d * 3u * H + jc$u;
                peephole = vec3<f32>(extra[e], extra[e + H], extra[e + 2u * H]);
            }
#unroll b BATCH_TILE
            {
                let alive = is_alive(row$b, t, p.timesteps);
                let next = lstm_cell(vec4<f32>(i$u_$b, f$u_$b, g$u_$b, o$u_$b), c$u_$b, peephole);
                if alive {
                    if HAS_ZONEOUT { h$u_$b = mix(next.x, h$u_$b, ZONEOUT_H); } else { h$u_$b = next.x; }
                    c$u_$b = next.y;
                }
                if own$u { h_floats[$bu * H_ROW + j$u] = h$u_$b; }
                if own$u && real$b && (p.flags & 1u) != 0u {
                    y[row$b * p.y_batch + place * p.y_time + d * H + j$u] = shown(h$u_$b, alive, p.flags);
                }
            }
#end
        }
#end
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
    }

#unroll u UNITS
    if own$u {
#unroll b BATCH_TILE
        if real$b {
            let at = (d * p.batch + row$b) * H + j$u;
            h_state[at] = h$u_$b;
            c_state[at] = c$u_$b;
        }
#end
    }
#end
}
