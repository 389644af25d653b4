// A whole sequence in one dispatch: one workgroup per tile of batch rows and direction. Each lane computes one hidden
// unit (or UNITS units) and keeps its states in registers; the h of all units is in workgroup memory. The cell's
// snippet, in the folder `cells`, computes the states from the sums. With EXCHANGE, the product of the cell's last gate
// follows the others; its operand consists of values that the units exchange in the middle of a timestep.
#import recurrent
#import joined
#import h_tile
#import CELL

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, G·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, G, H] vectors of four adjacent k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// [D, EXTRA_PARTS, H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// [D, B, H]
@group(0) @binding(5) var<storage, read_write> h_state: array<f32>;
// [D, B, CARRIED, H]
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
    let from_c_zero = (p.flags & ZERO_C) != 0u && p.first_step == 0u;
#unroll u UNITS
#unroll b BATCH_TILE
#unroll c CARRIED
    var c$c_$u_$b = 0.0;
    if !from_c_zero { c$c_$u_$b = c_state[((d * p.batch + row$b) * CARRIED + $cu) * H + jc$u]; }
#end
#end
#end
#if REGISTERS
#unroll q K_SLICE
    let at$q = (d * K4 + begin + $qu) * (GATES * H) + jc0;
#unroll g GATES
    let r$g_$q = weights[at$q + $gu * H];
#end
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & READING_ORDER) != 0u);
#unroll u UNITS
#unroll b BATCH_TILE
        let x$u_$b = ((d * p.chunk_steps + slot) * p.batch + row$b) * (GATES * H) + jc$u;
#unroll g OF_H
        var a$g_$u_$b = 0.0;
#end
        if slice == 0u {
#unroll g ADDED
            a$g_$u_$b = projection[x$u_$b + $gu * H];
#end
        }
#if APART
        var rest$u_$b = projection[x$u_$b + ADDED * H];
#end
#end
#end
#if REGISTERS
#unroll q K_SLICE
        {
#unroll g GATES
            let w$g = vec4<f32>(r$g_$q);
#end
#unroll b BATCH_TILE
            {
                let h = h_tile[$bu * K4 + begin + $qu];
#unroll g GATES
                a$g_0_$b += dot(w$g, h);
#end
            }
#end
        }
#end
#else
        // With a counter of this form a browser knows that `own` and `h_tile` hold what is read, and need not check.
        for (var n = 0u; n < K_SLICE / K_UNROLL; n++) {
            let k = begin + n * K_UNROLL;
#unroll q K_UNROLL
            {
#unroll b BATCH_TILE
                let h$b = h_tile[$bu * K4 + k + $qu];
#end
#unroll u UNITS
                {
#if RESIDENT
                    let w = ($uu * K4 + k + $qu) * GATES;
#unroll g OF_H
                    let w$g = own[w + $gu];
#end
#else
                    let w = (d * K4 + k + $qu) * (GATES * H) + jc$u;
#unroll g OF_H
                    let w$g = vec4<f32>(weights[w + $gu * H]);
#end
#end
#unroll b BATCH_TILE
#unroll g OF_H
                    a$g_$u_$b += dot(w$g, h$b);
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
#unroll g GATES
        a$g_0_$b = joined(a$g_0_$b);
#end
#end
#else
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (GATES * UNIT_LANES) + unit;
#unroll g GATES
            partial[at + $gu * UNIT_LANES] = a$g_0_$b;
#end
        }
#end
        workgroupBarrier();
#unroll b BATCH_TILE
#unroll g GATES
        a$g_0_$b = 0.0;
#end
#unroll q K_SPLIT
        {
            let at = ($qu * BATCH_TILE + $bu) * (GATES * UNIT_LANES) + unit;
#unroll g GATES
            a$g_0_$b += partial[at + $gu * UNIT_LANES];
#end
        }
#end
#end
#end
#end
#if EXCHANGE
#unroll u UNITS
        if own$u {
#unroll b BATCH_TILE
            {
                var sums = vec4<f32>();
#unroll g OF_H
                sums[$g] = a$g_$u_$b;
#end
                let handed = exchanged(sums, h$u_$b);
                h_floats[$bu * H_ROW + j$u] = handed.x;
                // The value that the unit keeps for `cell` replaces its first sum.
                a0_$u_$b = handed.y;
            }
#end
        }
#end
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
#unroll u UNITS
        if j$u < H {
            for (var k = 0u; k < K4; k += K_UNROLL) {
#unroll q K_UNROLL
                {
#if RESIDENT
                    let w = own[($uu * K4 + k + $qu) * GATES + OF_H];
#else
                    let w = vec4<f32>(weights[(d * K4 + k + $qu) * (GATES * H) + OF_H * H + j$u]);
#end
#unroll b BATCH_TILE
                    rest$u_$b += dot(w, h_tile[$bu * K4 + k + $qu]);
#end
                }
#end
            }
        }
#end
#end
#unroll u UNITS
        if own$u {
            let parts = extra_of(d * (EXTRA_PARTS * H) + j$u);
#unroll b BATCH_TILE
            {
                let alive = is_alive(row$b, t, p.timesteps);
                var sums = vec4<f32>();
#unroll g OF_H
                sums[$g] = a$g_$u_$b;
#end
                var old = vec4<f32>(h$u_$b, 0.0, 0.0, 0.0);
#unroll c CARRIED
                old[$c + 1] = c$c_$u_$b;
#end
#if APART
                let next = cell(sums, rest$u_$b, old, parts);
#else
                let next = cell(sums, 0.0, old, parts);
#end
                if alive {
                    if HAS_ZONEOUT { h$u_$b = mix(next.x, h$u_$b, ZONEOUT_H); } else { h$u_$b = next.x; }
#unroll c CARRIED
                    c$c_$u_$b = next[$c + 1];
#end
                }
                h_floats[$bu * H_ROW + j$u] = h$u_$b;
                if real$b && (p.flags & WRITES_Y) != 0u {
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
            let state = d * p.batch + row$b;
            h_state[state * H + j$u] = h$u_$b;
#unroll c CARRIED
            c_state[(state * CARRIED + $cu) * H + j$u] = c$c_$u_$b;
#end
        }
#end
    }
#end
}
