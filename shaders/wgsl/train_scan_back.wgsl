// Timesteps of the gradient of a recurrent layer, last first, with the products of the sums' gradients and W_hh. With
// WHOLE, one workgroup has all units of a tile of batch rows of a direction and runs over many timesteps; else several
// workgroups share the units of one timestep. PHASE 3 runs after the first timestep of a layer and adds what comes back
// to the initial h by products to the rest.
#import recurrent
#import place
#import unfolded

@group(0) @binding(0) var<uniform> p: Params;
// [D, T, B, KEPT·H]
@group(0) @binding(1) var<storage, read> gates: array<f32>;
// c of an LSTM, h of other cells, [D, T + 1, B, H]
@group(0) @binding(2) var<storage, read> states: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// [D, GATES, K4, H] vectors of the weights that four adjacent sums of a gate have for a unit of h
@group(0) @binding(4) var<storage, read> weights: array<vec4<f32>>;
// What comes back to the outputs, in their layout.
@group(0) @binding(5) var<storage, read> dy: array<f32>;
// [D, T, B, TRACE]: as in `train_backward`.
@group(0) @binding(6) var<storage, read_write> d: array<f32>;
// [D, B, CARRY]: what comes back to h without a product, and to c.
@group(0) @binding(7) var<storage, read_write> carry: array<f32>;

#import train_tile

fn row_of_d(dir: u32, row: u32, s: u32) -> u32 {
    let t = time_of(s, p.timesteps, is_reverse(p.flags, dir));
    return ((dir * p.timesteps + t) * p.batch + row) * TRACE;
}

// The gradient of a gate's k-th recurrent sum, padded with zeros.
fn gradient_of(gate: u32, k: u32) -> f32 {
    return select(0.0, d[gate + min(k, H - 1u)], k < H);
}

// What a unit of a timestep needs that does not depend on later timesteps: what was kept, the old state, and the
// gradient by its output.
struct Given {
    kept: vec4<f32>,
    old: f32,
    by_y: f32,
}

fn given(at: Place, j: u32) -> Given {
    var kept = vec4<f32>();
#unroll g KEPT
    kept[$g] = gates[at.gates + $gu * H + j];
#end
    var by_y = 0.0;
    if (p.flags & WRITES_Y) != 0u && (at.alive || (p.flags & REPEATS) != 0u) { by_y = dy[at.y + j]; }
    var old = 0.0;
    if KIND == 1u { old = states[at.c_old + j]; }
    if KIND > 1u { old = states[at.h_old + j]; }
    return Given(kept, old, by_y);
}

// The gradients of a unit's sums, and of its recurrent sum of n; what comes back to the old h without the product, and
// to the old c.
struct Back {
    sums: vec4<f32>,
    n: f32,
    h: f32,
    c: f32,
}

fn back_of(unit: Given, dh: f32, c: f32) -> Back {
    let kept = unit.kept;
    if KIND == 1u {
        let i = unfolded0(kept.x);
        let f = unfolded1(kept.y);
        let g = unfolded_candidate(kept.z);
        let o = unfolded2(kept.w);
        let out = output_of(f.x * unit.old + i.x * g.x);
        let dc = c + dh * o.x * out.y;
        let sums = vec4<f32>(dc * g.x * i.y, dc * unit.old * f.y, dc * i.x * g.y, dh * out.x * o.y);
        return Back(sums, 0.0, 0.0, dc * f.x);
    }
    if KIND == 2u || KIND == 3u {
        let z = unfolded1(kept.y);
        let n = unfolded_candidate(kept.z);
        let by_n = dh * (1.0 - z.x) * n.y;
        let by_z = dh * (unit.old - n.x) * z.y;
        if KIND == 3u { return Back(vec4<f32>(0.0, by_z, by_n, 0.0), 0.0, dh * z.x, 0.0); }
        let r = unfolded0(kept.x);
        return Back(vec4<f32>(by_n * kept.w * r.y, by_z, by_n, 0.0), by_n * r.x, dh * z.x, 0.0);
    }
    return Back(vec4<f32>(dh * unfolded_candidate(kept.x).y, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let dir = group.y;
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
    let last = p.first_step + p.steps - 1u;
    // The step whose gradients are multiplied first.
    var after = last + 1u;
    if PHASE == 3u { after = p.first_step; }
    for (var v = lane; v < TILE; v += WORKGROUP) {
        var value = vec4<f32>();
        if after < p.timesteps {
            let row = row_of_d(dir, min(first_row + v / DEPTH4, p.batch - 1u), after);
            let at = row + HIDDEN + (v % DEPTH4) / K4 * H;
            let k = 4u * (v % K4);
            value = vec4<f32>(
                gradient_of(at, k),
                gradient_of(at, k + 1u),
                gradient_of(at, k + 2u),
                gradient_of(at, k + 3u),
            );
        }
        begin_tile(v, value);
    }
    let first_weight = dir * (GATES * K4 * H) + jc;
#unroll q HELD
    let w$q = weights[first_weight + (slice + $qu * K_SPLIT) * H];
#end
#unroll r ROWS
    let index$r = slice + $ru * K_SPLIT;
    let row$r = min(first_row + index$r, p.batch - 1u);
    let own$r = j < H && index$r < BATCH_TILE && first_row + index$r < p.batch;
    let carry$r = (dir * p.batch + row$r) * CARRY + jc;
    var h$r = 0.0;
    var c$r = 0.0;
    var next$r = Given();
    if own$r {
        h$r = carry[carry$r];
        if CARRIED > 0u { c$r = carry[carry$r + H]; }
        if PHASE != 3u { next$r = given(place_of(dir, row$r, last), j); }
    }
#end
    workgroupBarrier();
    for (var n = 0u; n < p.steps; n++) {
        let s = last - n;
        // What the timestep before needs is loaded while this one is computed.
#unroll r ROWS
        let now$r = next$r;
        if PHASE != 3u && own$r && n + 1u < p.steps { next$r = given(place_of(dir, row$r, s - 1u), j); }
#end
        var a = vec4<f32>();
#unroll q HELD
#unroll b BATCH_TILE
        a[$b] += dot(w$q, tile[$bu * DEPTH4 + slice + $qu * K_SPLIT]);
#end
#end
        for (var q = HELD; q < K_SLICE; q += K_UNROLL) {
#unroll m K_UNROLL
            {
                let k = slice + (q + $mu) * K_SPLIT;
                let w = weights[first_weight + k * H];
#unroll b BATCH_TILE
                a[$b] += dot(w, tile[$bu * DEPTH4 + k]);
#end
            }
#end
        }
#unroll r ROWS
        var returned$r = 0.0;
#end
#if PARTIAL
#unroll b BATCH_TILE
        partial[(slice * BATCH_TILE + $bu) * UNIT_LANES + unit] = a[$b];
#end
        workgroupBarrier();
#unroll r ROWS
        if own$r {
            for (var q = 0u; q < K_SPLIT; q++) {
                returned$r += partial[(q * BATCH_TILE + index$r) * UNIT_LANES + unit];
            }
        }
#end
#else
#if SUBGROUPS
#unroll b BATCH_TILE
        a[$b] = joined(a[$b]);
#end
#end
#unroll r ROWS
        returned$r = a[min(index$r, 3u)];
#end
#end
#if ENDS
#unroll r ROWS
        h$r += returned$r;
#end
#else
#unroll r ROWS
        let at$r = place_of(dir, row$r, s);
        let dh$r = h$r + returned$r + now$r.by_y;
        var back$r = Back();
        if at$r.alive {
            back$r = back_of(now$r, dh$r, c$r);
            h$r = back$r.h;
            c$r = back$r.c;
        } else {
            h$r = dh$r;
        }
#end
#if EXCHANGE
#unroll r ROWS
        if own$r { floats[index$r * TILE_ROW + j] = back$r.sums.z; }
#end
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
        let by_reset = second_product(slice, first_weight + 2u * K4 * H, H);
#unroll r ROWS
        if at$r.alive {
            let r = unfolded0(now$r.kept.x);
            let by = by_reset[min(index$r, 3u)];
            back$r.sums.x = by * now$r.old * r.y;
            h$r += by * r.x;
        }
#end
#end
#unroll r ROWS
        if own$r {
            let at = row_of_d(dir, row$r, s) + j;
#unroll g GATES
            d[at + $gu * H] = back$r.sums[$g];
#end
            if HIDDEN > 0u {
                d[at + HIDDEN] = back$r.sums.x;
                d[at + HIDDEN + H] = back$r.sums.y;
                d[at + HIDDEN + 2u * H] = back$r.n;
            }
            if SECOND > 0u {
                d[at + SECOND] = select(0.0, unfolded0(now$r.kept.x).x * now$r.old, at$r.alive);
            }
#if WHOLE
            if KIND == 2u { back$r.sums.z = back$r.n; }
#unroll g OF_H
            floats[index$r * TILE_ROW + 4u * K4 * $gu + j] = back$r.sums[$g];
#end
#end
        }
#end
#if WHOLE
        workgroupBarrier();
        pack(lane);
        workgroupBarrier();
#end
#end
    }
#unroll r ROWS
    if own$r {
        carry[carry$r] = h$r;
        if CARRIED > 0u { carry[carry$r + H] = c$r; }
    }
#end
}
