// A whole SimpleRNN sequence in one dispatch: one workgroup per tile of batch rows and direction,
// a lane per hidden unit (UNITS units a lane) with its h in a register, all h in workgroup memory.
#import recurrent
#import joined
#import h_tile

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, H] of four neighbouring k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// [D, B, H]
@group(0) @binding(4) var<storage, read_write> h_state: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

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
    let r$q = weights[(d * K4 + begin + $qu) * H + jc0];
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & 2u) != 0u);
#unroll u UNITS
#unroll b BATCH_TILE
        var a$u_$b = 0.0;
        if slice == 0u { a$u_$b = projection[((d * p.chunk_steps + slot) * p.batch + row$b) * H + jc$u]; }
#end
#end
#if REGISTERS
#unroll q K_SLICE
        {
            let w = vec4<f32>(r$q);
#unroll b BATCH_TILE
            a0_$b += dot(w, h_tile[$bu * K4 + begin + $qu]);
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
                    let w = own[$uu * K4 + k + $qu];
#else
                    let w = vec4<f32>(weights[(d * K4 + k + $qu) * H + jc$u]);
#end
#unroll b BATCH_TILE
                    a$u_$b += dot(w, h$b);
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
        a0_$b = joined(a0_$b);
#end
#else
#unroll b BATCH_TILE
        partial[(slice * BATCH_TILE + $bu) * UNIT_LANES + unit] = a0_$b;
#end
        workgroupBarrier();
#unroll b BATCH_TILE
        a0_$b = 0.0;
#unroll q K_SPLIT
        a0_$b += partial[($qu * BATCH_TILE + $bu) * UNIT_LANES + unit];
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
                let alive = is_alive(row$b, t, p.timesteps);
                var next = candidate_activation(a$u_$b);
                if HAS_ZONEOUT { next = mix(next, h$u_$b, ZONEOUT_H); }
                if alive { h$u_$b = next; }
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
            h_state[(d * p.batch + row$b) * H + j$u] = h$u_$b;
        }
#end
    }
#end
}
