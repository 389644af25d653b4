// One timestep of a recurrent layer that keeps what its gradient needs, after the product W_hh h: one workgroup per
// batch row and direction, or several that share the units. PHASE 3 runs before the first timestep of a layer with
// dropout, and only applies the factors to the initial h.
#import recurrent
#if SLSTM
#import slstm
#end

@group(0) @binding(0) var<uniform> p: Params;
// W_hh h, of the first PRODUCT gates: [D, B, PRODUCT·H]; in PHASE 2 the product within the timestep, [D, B, W]
@group(0) @binding(1) var<storage, read> product: array<f32>;
@group(0) @binding(2) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// [D, T + 1, B, W]
@group(0) @binding(4) var<storage, read_write> h_states: array<f32>;
// [D, T + 1, B, CARRIED·H]
@group(0) @binding(5) var<storage, read_write> c_states: array<f32>;
// [D, T, B, KEPT·H]; at first the projected inputs
@group(0) @binding(6) var<storage, read_write> gates: array<f32>;
// What the next product reads if that is not h: h with its factors, [D, DROPOUT, B, W], or from PHASE 1 [D, B, H].
@group(0) @binding(7) var<storage, read_write> seen: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

#import training
#if CELL_NORM
var<workgroup> partial: array<f32, WORKGROUP>;
#import workgroup_sum
#end

fn kept(sum: f32, value: f32) -> f32 {
    return select(value, sum, SUMS);
}

// The sum of gate g, with its recurrent part.
fn sum_of(at: Place, g: u32, j: u32) -> f32 {
    let sum = gates[at.gates + g * H + j];
    if PRODUCT == 0u { return sum; }
    return sum + product[(at.d * p.batch + at.row) * (PRODUCT * H) + g * H + j];
}

fn put_seen(at: Place, j: u32, h: f32) {
#unroll n DROPOUT
    seen[((at.d * DROPOUT + $nu) * p.batch + at.row) * W + j] = h * factor(at, $nu, j);
#end
}

fn put_h(at: Place, j: u32, value: f32) {
    let old = h_states[at.h_old + j];
    var h = value;
    if DRAWN_H || HAS_ZONEOUT { h = mix(h, old, share_h(at, j)); }
    if !at.alive { h = old; }
    h_states[at.h_new + j] = h;
    if (p.flags & WRITES_Y) != 0u { y[at.y + j] = shown(h, at.alive, p.flags); }
    put_seen(at, j, h);
}

fn put_c(at: Place, j: u32, value: f32) {
    let old = c_states[at.c_old + j];
    var c = value;
    if KIND == 1u && (DRAWN_C || HAS_ZONEOUT) { c = mix(c, old, share_c(at, j)); }
    if !at.alive { c = old; }
    c_states[at.c_new + j] = c;
}

// The output of a unit of an LSTM.
fn put_output(at: Place, j: u32, m: f32) {
    if PHASE == 1u {
        seen[(at.d * p.batch + at.row) * H + j] = m;
    } else {
        put_h(at, j, m);
    }
}

// Keeps the gates of a unit of an LSTM; returns the new c and o.
fn lstm(at: Place, j: u32) -> vec2<f32> {
    let old = c_states[at.c_old + j];
    var i_sum = sum_of(at, 0u, j);
    var f_sum = sum_of(at, 1u, j);
    let g_sum = sum_of(at, 2u, j);
    var o_sum = sum_of(at, 3u, j);
    if PEEPHOLES {
        i_sum += own(at, 0u, j) * old;
        f_sum += own(at, 1u, j) * old;
    }
    let i = gate0(i_sum);
    var f = 1.0 - i;
    if !COUPLED { f = gate1(f_sum); }
    let g = candidate_activation(g_sum);
    let c = f * old + i * g;
    if PEEPHOLES { o_sum += own(at, 2u, j) * c; }
    let o = gate2(o_sum);
    gates[at.gates + j] = kept(i_sum, i);
    gates[at.gates + H + j] = select(kept(f_sum, f), f, COUPLED);
    gates[at.gates + 2u * H + j] = kept(g_sum, g);
    gates[at.gates + 3u * H + j] = kept(o_sum, o);
    return vec2<f32>(c, o);
}

// Computes a unit of a cell that needs nothing of other units.
fn unit(at: Place, j: u32) {
    let x = at.gates + j;
    if KIND == 0u || KIND == 4u {
        var sum = sum_of(at, 0u, j);
        if KIND == 4u { sum += own(at, 0u, j) * h_states[at.h_old + j] * factor(at, 0u, j); }
        let h = candidate_activation(sum);
        gates[x] = kept(sum, h);
        put_h(at, j, h);
    }
    if KIND == 1u {
        let next = lstm(at, j);
        put_c(at, j, next.x);
        put_output(at, j, next.y * output_activation(next.x));
    }
    if KIND == 2u {
        let r_sum = sum_of(at, 0u, j);
        let z_sum = sum_of(at, 1u, j);
        var q = product[(at.d * p.batch + at.row) * (PRODUCT * H) + 2u * H + j];
        if EXTRA > 0u { q += own(at, 0u, j); }
        let r = gate0(r_sum);
        let z = gate1(z_sum);
        let n_sum = gates[x + 2u * H] + r * q;
        let n = candidate_activation(n_sum);
        gates[x] = kept(r_sum, r);
        gates[x + H] = kept(z_sum, z);
        gates[x + 2u * H] = kept(n_sum, n);
        gates[x + (KEPT - 1u) * H] = q;
        put_h(at, j, (1.0 - z) * n + z * h_states[at.h_old + j]);
    }
    if KIND == 3u {
        let r_sum = sum_of(at, 0u, j);
        let z_sum = sum_of(at, 1u, j);
        let r = gate0(r_sum);
        gates[x] = kept(r_sum, r);
        gates[x + H] = kept(z_sum, gate1(z_sum));
        seen[(at.d * p.batch + at.row) * H + j] = r * h_states[at.h_old + j] * factor(at, 2u, j);
    }
    if KIND == 5u {
        let z_sum = gates[x];
        let n_sum = gates[x + H];
        let z = gate0(z_sum);
        let n = candidate_activation(n_sum);
        gates[x] = kept(z_sum, z);
        gates[x + H] = kept(n_sum, n);
        put_h(at, j, (1.0 - z) * h_states[at.h_old + j] + z * n);
    }
    if KIND == 6u {
        let f_sum = gates[x];
        let i_sum = gates[x + H];
        let n_sum = gates[x + 2u * H];
        let f = gate0(f_sum);
        let i = gate1(i_sum);
        let n = candidate_activation(n_sum);
        gates[x] = kept(f_sum, f);
        gates[x + H] = kept(i_sum, i);
        gates[x + 2u * H] = kept(n_sum, n);
        // If both gates round to 0, the quotient must not be NaN.
        put_h(at, j, (f * h_states[at.h_old + j] + i * n) / max(f + i, 1e-37));
    }
#if SLSTM
    let i_sum = sum_of(at, 0u, j);
    let f_sum = sum_of(at, 1u, j);
    let z_sum = sum_of(at, 2u, j);
    let o_sum = sum_of(at, 3u, j);
    let k = at.c_old + j;
    let old = vec4<f32>(0.0, c_states[k], c_states[k + H], c_states[k + 2u * H]);
    let next = cell(vec4<f32>(i_sum, f_sum, z_sum, o_sum), 0.0, old, vec3<f32>());
    gates[x] = i_sum;
    gates[x + H] = f_sum;
    gates[x + 2u * H] = kept(z_sum, candidate_activation(z_sum));
    gates[x + 3u * H] = kept(o_sum, gate2(o_sum));
    put_c(at, j, next.y);
    put_c(at, H + j, next.z);
    put_c(at, 2u * H + j, next.w);
    put_h(at, j, next.x);
#end
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = place_of(group.y, p.first_row + group.x, p.first_step);
    let first = group.z * WORKGROUP + lane;
    let stride = p.spread * WORKGROUP;
    if PHASE == 3u {
        for (var j = first; j < W; j += stride) { put_seen(at, j, h_states[at.h_old + j]); }
    } else if PHASE == 2u {
        for (var j = first; j < W; j += stride) {
            var h = product[(at.d * p.batch + at.row) * W + j];
            if KIND == 3u {
                let x = at.gates + (GATES - 1u) * H + j;
                let sum = gates[x] + h;
                let n = candidate_activation(sum);
                gates[x] = kept(sum, n);
                var z = gates[x - H];
                if SUMS { z = gate1(z); }
                h = (1.0 - z) * n + z * h_states[at.h_old + j];
            }
            put_h(at, j, h);
        }
    } else {
#if CELL_NORM
        // Every lane reads only what it has written itself.
        var sum = 0.0;
        for (var j = first; j < H; j += stride) {
            let c = lstm(at, j).x;
            c_states[at.c_new + j] = c;
            sum += c;
        }
        let mean = total(lane, sum) / f32(H);
        sum = 0.0;
        for (var j = first; j < H; j += stride) {
            let v = c_states[at.c_new + j] - mean;
            sum += v * v;
        }
        let scale = 1.0 / sqrt(total(lane, sum) / f32(H) + EPSILON);
        for (var j = first; j < H; j += stride) {
            let c = c_states[at.c_new + j];
            var o = gates[at.gates + 3u * H + j];
            if SUMS { o = gate2(o); }
            put_c(at, j, c);
            put_output(at, j, o * output_activation((c - mean) * scale * own(at, 3u, j) + own(at, 4u, j)));
        }
#else
        for (var j = first; j < H; j += stride) { unit(at, j); }
#end
    }
}
