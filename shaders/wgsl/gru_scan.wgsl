// A whole GRU sequence in one dispatch: one workgroup per tile of batch rows and direction, a lane
// per hidden unit (UNITS units a lane) with its h in a register, all h in workgroup memory. With RESET_AFTER one product a step;
// without it r ∘ h is exchanged between two products.
#import recurrent
#import joined
#import h_tile

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, 3·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, 3, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// b_hn, [D, H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// [D, B, H]
@group(0) @binding(5) var<storage, read_write> h_state: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

#if RESIDENT
var<private> own: array<vec4<f32>, OWN>;
#end
#if PARTIAL
var<workgroup> partial: array<f32, PARTIAL_SUMS>;
#end

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#import scan_begin
#if REGISTERS
#unroll q K_SLICE
    let w$q = (d * K4 + begin + $qu) * (3u * H) + jc0;
    let rr$q = weights[w$q];
    let rz$q = weights[w$q + H];
    let rn$q = weights[w$q + 2u * H];
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & 2u) != 0u);
#unroll u UNITS
#unroll b BATCH_TILE
        // Sums of r, z and, with RESET_AFTER, of n; z itself, and n.
        var r$u_$b = 0.0;
        var a$u_$b = 0.0;
        var m$u_$b = 0.0;
        var z$u_$b = 0.0;
        let x$u_$b = ((d * p.chunk_steps + slot) * p.batch + row$b) * (3u * H) + jc$u;
        var n$u_$b = projection[x$u_$b + 2u * H];
        if slice == 0u {
            r$u_$b = projection[x$u_$b];
            a$u_$b = projection[x$u_$b + H];
        }
#end
#end
#if REGISTERS
#unroll q K_SLICE
        {
            let wr = vec4<f32>(rr$q);
            let wz = vec4<f32>(rz$q);
            let wn = vec4<f32>(rn$q);
#unroll b BATCH_TILE
            {
                let h = h_tile[$bu * K4 + begin + $qu];
                r0_$b += dot(wr, h);
                a0_$b += dot(wz, h);
                m0_$b += dot(wn, h);
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
                    let w = ($uu * K4 + k + $qu) * 3u;
                    let wr = own[w];
                    let wz = own[w + 1u];
#if RESET_AFTER
                    let wn = own[w + 2u];
#end
#else
                    let w = (d * K4 + k + $qu) * (3u * H) + jc$u;
                    let wr = vec4<f32>(weights[w]);
                    let wz = vec4<f32>(weights[w + H]);
#if RESET_AFTER
                    let wn = vec4<f32>(weights[w + 2u * H]);
#end
#end
#unroll b BATCH_TILE
                    r$u_$b += dot(wr, h$b);
                    a$u_$b += dot(wz, h$b);
#if RESET_AFTER
                    m$u_$b += dot(wn, h$b);
#end
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
        r0_$b = joined(r0_$b);
        a0_$b = joined(a0_$b);
        m0_$b = joined(m0_$b);
#end
#else
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (3u * UNIT_LANES) + unit;
            partial[at] = r0_$b;
            partial[at + UNIT_LANES] = a0_$b;
            partial[at + 2u * UNIT_LANES] = m0_$b;
        }
#end
        workgroupBarrier();
#unroll b BATCH_TILE
        r0_$b = 0.0;
        a0_$b = 0.0;
        m0_$b = 0.0;
#unroll q K_SPLIT
        {
            let at = ($qu * BATCH_TILE + $bu) * (3u * UNIT_LANES) + unit;
            r0_$b += partial[at];
            a0_$b += partial[at + UNIT_LANES];
            m0_$b += partial[at + 2u * UNIT_LANES];
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
#unroll b BATCH_TILE
            {
                let r = gate0(r$u_$b);
                z$u_$b = gate1(a$u_$b);
#if RESET_AFTER
                if HAS_EXTRA { m$u_$b += extra[d * H + jc$u]; }
                n$u_$b += r * m$u_$b;
#else
                h_floats[$bu * H_ROW + j$u] = r * h$u_$b;
#end
            }
#end
        }
#end
#if RESET_AFTER
#else
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
#unroll u UNITS
        if j$u < H {
            for (var k = 0u; k < K4; k += K_UNROLL) {
#unroll q K_UNROLL
                {
#if RESIDENT
                    let wn = own[($uu * K4 + k + $qu) * 3u + 2u];
#else
                    let wn = vec4<f32>(weights[(d * K4 + k + $qu) * (3u * H) + 2u * H + j$u]);
#end
#unroll b BATCH_TILE
                    n$u_$b += dot(wn, h_tile[$bu * K4 + k + $qu]);
#end
                }
#end
            }
        }
#end
#end
#unroll u UNITS
        if own$u {
#unroll b BATCH_TILE
            {
                let alive = is_alive(row$b, t, p.timesteps);
                let n = candidate_activation(n$u_$b);
                var next = (1.0 - z$u_$b) * n + z$u_$b * h$u_$b;
                if HAS_ZONEOUT { next = mix(next, h$u_$b, ZONEOUT_H); }
                if alive { h$u_$b = next; }
                h_floats[$bu * H_ROW + j$u] = h$u_$b;
                if real$b && (p.flags & 1u) != 0u {
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
            h_state[(d * p.batch + row$b) * H + j$u] = h$u_$b;
        }
#end
    }
#end
}
