// Timesteps of a recurrent layer that keeps what its gradient needs, with their products W_hh h. With WHOLE, one
// workgroup has all units of a tile of batch rows of a direction and runs over many timesteps; else several workgroups
// share the units of one timestep.
#import recurrent
#import place

@group(0) @binding(0) var<uniform> p: Params;
// [D, K4, GATES, H] vectors of four adjacent k
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
// The recurrent bias of a GRU's candidate, [D, EXTRA]
@group(0) @binding(2) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// [D, T + 1, B, H]
@group(0) @binding(4) var<storage, read_write> h_states: array<f32>;
// [D, T + 1, B, CARRIED·H]
@group(0) @binding(5) var<storage, read_write> c_states: array<f32>;
// [D, T, B, KEPT·H]; at first the projected inputs
@group(0) @binding(6) var<storage, read_write> gates: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

#import train_tile

// Element k of a row of h, padded with zeros.
fn h_of(row: u32, k: u32) -> f32 {
    return select(0.0, h_states[row + min(k, H - 1u)], k < H);
}

// The projected inputs of a unit.
fn inputs(at: u32) -> vec4<f32> {
    var x = vec4<f32>();
#unroll g GATES
    x[$g] = gates[at + $gu * H];
#end
    return x;
}

// What is kept of a unit's gates, and its new states.
struct Next {
    kept: vec4<f32>,
    h: f32,
    c: f32,
}

// From the projected inputs and the recurrent sums. With EXCHANGE, `sums` are r and z, and the sum of n.
fn next_of(x: vec4<f32>, sums: vec4<f32>, h: f32, c: f32, bias: f32) -> Next {
    if KIND == 1u {
        let i = gate0(x.x + sums.x);
        let f = gate1(x.y + sums.y);
        let g = candidate_activation(x.z + sums.z);
        let o = gate2(x.w + sums.w);
        let next = f * c + i * g;
        return Next(vec4<f32>(i, f, g, o), o * output_activation(next), next);
    }
    if KIND == 2u {
        let r = gate0(x.x + sums.x);
        let z = gate1(x.y + sums.y);
        let q = sums.z + bias;
        let n = candidate_activation(x.z + r * q);
        return Next(vec4<f32>(r, z, n, q), (1.0 - z) * n + z * h, 0.0);
    }
    if KIND == 3u {
        let n = candidate_activation(x.z + sums.z);
        return Next(vec4<f32>(sums.x, sums.y, n, 0.0), (1.0 - sums.y) * n + sums.y * h, 0.0);
    }
    let h_new = candidate_activation(x.x + sums.x);
    return Next(vec4<f32>(h_new, 0.0, 0.0, 0.0), h_new, 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let d = group.y;
    let first_row = p.first_row + group.x * BATCH_TILE;
#if SUBGROUPS
    let unit = lane / K_SPLIT;
    let slice = lane % K_SPLIT;
#else
    let unit = lane % UNIT_LANES;
    let slice = lane / UNIT_LANES;
#end
    let j = group.z * UNIT_LANES + unit;
    // Lanes without a unit repeat the last unit, because all lanes must reach the barriers; they write nothing.
    let jc = min(j, H - 1u);
    for (var v = lane; v < TILE; v += WORKGROUP) {
        let at = place_of(d, min(first_row + v / DEPTH4, p.batch - 1u), p.first_step).h_old;
        let k = 4u * (v % DEPTH4);
        begin_tile(v, vec4<f32>(h_of(at, k), h_of(at, k + 1u), h_of(at, k + 2u), h_of(at, k + 3u)));
    }
#unroll q HELD
    let at$q = (d * K4 + slice + $qu * K_SPLIT) * (GATES * H) + jc;
#unroll g OF_H
    let w$g_$q = weights[at$q + $gu * H];
#end
#end
    var bias = 0.0;
    if EXTRA > 0u { bias = extra[d * EXTRA + jc]; }
#unroll r ROWS
    let index$r = slice + $ru * K_SPLIT;
    let row$r = min(first_row + index$r, p.batch - 1u);
    let own$r = j < H && index$r < BATCH_TILE && first_row + index$r < p.batch;
    var h$r = 0.0;
    var c$r = 0.0;
    var x$r = vec4<f32>();
    if own$r {
        let at = place_of(d, row$r, p.first_step);
        h$r = h_states[at.h_old + j];
        if CARRIED > 0u { c$r = c_states[at.c_old + j]; }
        x$r = inputs(at.gates + j);
    }
#end
    workgroupBarrier();
    let end = p.first_step + p.steps;
    for (var s = p.first_step; s < end; s++) {
        // The inputs of the next timestep are loaded while this one is computed.
#unroll r ROWS
        let now$r = x$r;
        if own$r && s + 1u < end { x$r = inputs(place_of(d, row$r, s + 1u).gates + j); }
#end
#unroll g OF_H
        var a$g = vec4<f32>();
#end
#unroll q HELD
#unroll b BATCH_TILE
        {
            let h = tile[$bu * DEPTH4 + slice + $qu * K_SPLIT];
#unroll g OF_H
            a$g[$b] += dot(w$g_$q, h);
#end
        }
#end
#end
        for (var q = HELD; q < K_SLICE; q += K_UNROLL) {
#unroll n K_UNROLL
            {
                let k = slice + (q + $nu) * K_SPLIT;
                let at = (d * K4 + k) * (GATES * H) + jc;
#unroll b BATCH_TILE
                let v$b = tile[$bu * DEPTH4 + k];
#end
#unroll g OF_H
                {
                    let w = weights[at + $gu * H];
#unroll b BATCH_TILE
                    a$g[$b] += dot(w, v$b);
#end
                }
#end
            }
#end
        }
#unroll r ROWS
        var sums$r = vec4<f32>();
#end
#if PARTIAL
#unroll g OF_H
#unroll b BATCH_TILE
        partial[((slice * BATCH_TILE + $bu) * OF_H + $gu) * UNIT_LANES + unit] = a$g[$b];
#end
#end
        workgroupBarrier();
#unroll r ROWS
        if own$r {
            for (var q = 0u; q < K_SPLIT; q++) {
                let at = (q * BATCH_TILE + index$r) * (OF_H * UNIT_LANES) + unit;
#unroll g OF_H
                sums$r[$g] += partial[at + $gu * UNIT_LANES];
#end
            }
        }
#end
#else
#unroll g OF_H
#if SUBGROUPS
#unroll b BATCH_TILE
        a$g[$b] = joined(a$g[$b]);
#end
#end
#unroll r ROWS
        sums$r[$g] = a$g[min(index$r, 3u)];
#end
#end
#end
#if EXCHANGE
#unroll r ROWS
        if own$r {
            sums$r.x = gate0(now$r.x + sums$r.x);
            sums$r.y = gate1(now$r.y + sums$r.y);
            floats[index$r * TILE_ROW + j] = sums$r.x * h$r;
        }
#end
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
        let rest = second_product(slice, d * K4 * (GATES * H) + 2u * H + jc, GATES * H);
#unroll r ROWS
        sums$r.z = rest[min(index$r, 3u)];
#end
        // Floats are stored again below, after every lane has passed the barrier above.
#end
#unroll r ROWS
        if own$r {
            let at = place_of(d, row$r, s);
            let next = next_of(now$r, sums$r, h$r, c$r, bias);
            if at.alive {
                h$r = next.h;
                c$r = next.c;
            }
#unroll g KEPT
            gates[at.gates + $gu * H + j] = next.kept[$g];
#end
            h_states[at.h_new + j] = h$r;
            if CARRIED > 0u { c_states[at.c_new + j] = c$r; }
            if (p.flags & WRITES_Y) != 0u { y[at.y + j] = shown(h$r, at.alive, p.flags); }
#if WHOLE
            floats[index$r * TILE_ROW + j] = h$r;
#end
        }
#end
#if WHOLE
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
#end
    }
}
