// One timestep of the gradient of a recurrent layer, before the product of the sums' gradients and W_hh: one workgroup
// per batch row and direction, or several that share the units. PHASE 3 runs after the last of them and adds what comes
// back to the initial h by products to the rest.
#import recurrent
#import unfolded
#if SLSTM
#import slstm
#end

@group(0) @binding(0) var<uniform> p: Params;
// [D, T, B, KEPT·H]
@group(0) @binding(1) var<storage, read> gates: array<f32>;
// c of an LSTM or sLSTM, [D, T + 1, B, CARRIED·H]; h of other cells, [D, T + 1, B, W]
@group(0) @binding(2) var<storage, read> states: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
@group(0) @binding(4) var<storage, read> extra: array<f32>;
// What comes back to the outputs, in their layout.
@group(0) @binding(5) var<storage, read> dy: array<f32>;
// What the products of the timestep after this one give back to h: [D, B, BACK·W], one part for each set of factors. In
// PHASE 2 the product within the timestep, [D, B, H].
@group(0) @binding(6) var<storage, read> product: array<f32>;
// [D, T, B, TRACE]: the gradients of the sums [G·H]; from HIDDEN on those of the recurrent sums, where they differ; at
// SECOND what a product within the timestep reads in the forward pass [H]; at BY_H what comes back to a projected h [W]
@group(0) @binding(7) var<storage, read_write> d: array<f32>;
// [D, B, CARRY]: what comes back to h without a product [W] and to c [CARRIED·H]; then what belongs to weights that are
// vectors, which rows add up over time
@group(0) @binding(8) var<storage, read_write> carry: array<f32>;

#import training
#if CELL_NORM
var<workgroup> partial: array<f32, WORKGROUP>;
#import workgroup_sum
#end

// Where the weights that are vectors begin in `carry`.
const VECTORS: u32 = W + CARRIED * H;

fn row_of_d(at: Place) -> u32 {
    return ((at.d * p.timesteps + at.t) * p.batch + at.row) * TRACE;
}

fn row_of_carry(at: Place) -> u32 {
    return (at.d * p.batch + at.row) * CARRY;
}

fn put(at: Place, g: u32, j: u32, value: f32) {
    let x = row_of_d(at) + g * H + j;
    d[x] = value;
    if HIDDEN > 0u { d[x + HIDDEN] = value; }
}

fn put_zeros(at: Place, j: u32) {
    for (var g = 0u; g < GATES; g++) { put(at, g, j, 0.0); }
    if SECOND > 0u { d[row_of_d(at) + SECOND + j] = 0.0; }
}

// Adds to element j of a weight that is a vector.
fn count(at: Place, part: u32, j: u32, value: f32) {
    let k = row_of_carry(at) + VECTORS + part * H + j;
    carry[k] += value;
}

// What comes back to h by the products of the timestep after this one.
fn returned(at: Place, j: u32) -> f32 {
    var sum = 0.0;
    if BACK > 0u && (PHASE == 3u || p.first_step + 1u < p.timesteps) {
#unroll n BACK
        sum += product[(at.d * p.batch + at.row) * (BACK * W) + $nu * W + j] * factor(at, $nu, j);
#end
    }
    return sum;
}

// What comes back to the new h before zoneout; the rest stays in `carry`.
fn arrived(at: Place, j: u32) -> f32 {
    let k = row_of_carry(at) + j;
    var sum = carry[k] + returned(at, j);
    if (p.flags & WRITES_Y) != 0u && (at.alive || (p.flags & REPEATS) != 0u) { sum += dy[at.y + j]; }
    if !at.alive {
        carry[k] = sum;
        return 0.0;
    }
    var direct = 0.0;
    if DRAWN_H || HAS_ZONEOUT {
        let share = share_h(at, j);
        direct = share * sum;
        sum *= 1.0 - share;
    }
    carry[k] = direct;
    return sum;
}

// What comes back to a unit of this timestep. Called once for each unit.
fn arrived_at_unit(at: Place, j: u32) -> f32 {
    if PHASE == 2u { return product[(at.d * p.batch + at.row) * H + j]; }
    return arrived(at, j);
}

// A unit of an LSTM: its gates with their derivatives, and c.
struct Lstm {
    i: vec2<f32>,
    f: vec2<f32>,
    g: vec2<f32>,
    o: vec2<f32>,
    old: f32,
    next: f32,
}

fn lstm_of(at: Place, j: u32) -> Lstm {
    let x = at.gates + j;
    let i = unfolded0(gates[x]);
    var f = vec2<f32>(1.0 - i.x, 0.0);
    if !COUPLED { f = unfolded1(gates[x + H]); }
    let g = unfolded_candidate(gates[x + 2u * H]);
    let o = unfolded2(gates[x + (GATES - 1u) * H]);
    let old = states[at.c_old + j];
    return Lstm(i, f, g, o, old, f.x * old + i.x * g.x);
}

// The rest of a unit of an LSTM. `value` is its output activation; `by_c` is what comes back to the new c through it.
fn lstm(at: Place, j: u32, u: Lstm, dh: f32, value: f32, by_c: f32) {
    if !at.alive {
        put_zeros(at, j);
        return;
    }
    let k = row_of_carry(at) + W + j;
    var dc = carry[k];
    var rest = 0.0;
    if DRAWN_C || HAS_ZONEOUT {
        let share = share_c(at, j);
        rest = share * dc;
        dc *= 1.0 - share;
    }
    let by_o = dh * value * u.o.y;
    dc += by_c;
    if PEEPHOLES { dc += by_o * own(at, 2u, j); }
    var by_i = dc * u.g.x;
    var by_f = dc * u.old;
    if COUPLED {
        by_i -= by_f;
        by_f = 0.0;
    }
    by_i *= u.i.y;
    by_f *= u.f.y;
    rest += dc * u.f.x;
    if PEEPHOLES {
        rest += by_i * own(at, 0u, j) + by_f * own(at, 1u, j);
        count(at, 0u, j, by_i * u.old);
        count(at, 1u, j, by_f * u.old);
        count(at, 2u, j, by_o * u.next);
    }
    carry[k] = rest;
    put(at, 0u, j, by_i);
    put(at, 1u, j, by_f);
    put(at, 2u, j, dc * u.i.x * u.g.y);
    put(at, GATES - 1u, j, by_o);
    if SECOND > 0u { d[row_of_d(at) + SECOND + j] = u.o.x * value; }
}

// A unit of a cell that needs nothing of other units.
fn unit(at: Place, j: u32) {
    let dh = arrived_at_unit(at, j);
    if KIND == 1u {
        let u = lstm_of(at, j);
        let out = output_of(u.next);
        lstm(at, j, u, dh, out.x, dh * u.o.x * out.y);
        return;
    }
    if !at.alive {
        put_zeros(at, j);
        return;
    }
    let x = at.gates + j;
    let k = row_of_carry(at) + j;
    if KIND == 0u || KIND == 4u {
        let by = dh * unfolded_candidate(gates[x]).y;
        put(at, 0u, j, by);
        if KIND == 4u {
            let by_product = by * factor(at, 0u, j);
            count(at, 0u, j, by_product * states[at.h_old + j]);
            carry[k] += by_product * own(at, 0u, j);
        }
    }
    if KIND == 2u || (KIND == 3u && PHASE == 1u) {
        let z = unfolded1(gates[x + H]);
        let n = unfolded_candidate(gates[x + (GATES - 1u) * H]);
        let by_n = dh * (1.0 - z.x) * n.y;
        put(at, 1u, j, dh * (states[at.h_old + j] - n.x) * z.y);
        put(at, GATES - 1u, j, by_n);
        carry[k] += dh * z.x;
        if KIND == 2u {
            let r = unfolded0(gates[x]);
            put(at, 0u, j, by_n * gates[x + (KEPT - 1u) * H] * r.y);
            d[row_of_d(at) + HIDDEN + (GATES - 1u) * H + j] = by_n * r.x;
        }
    }
    if KIND == 3u && PHASE == 2u {
        let r = unfolded0(gates[x]);
        let f = factor(at, 2u, j);
        let h = states[at.h_old + j] * f;
        put(at, 0u, j, dh * h * r.y);
        d[row_of_d(at) + SECOND + j] = r.x * h;
        carry[k] += dh * r.x * f;
    }
    if KIND == 5u {
        let z = unfolded0(gates[x]);
        let n = unfolded_candidate(gates[x + (GATES - 1u) * H]);
        put(at, 0u, j, dh * (n.x - states[at.h_old + j]) * z.y);
        put(at, GATES - 1u, j, dh * z.x * n.y);
        carry[k] += dh * (1.0 - z.x);
    }
    if KIND == 6u {
        let f = unfolded0(gates[x]);
        let i = unfolded1(gates[x + H]);
        let n = unfolded_candidate(gates[x + (GATES - 1u) * H]);
        let h = states[at.h_old + j];
        let both = max(f.x + i.x, 1e-37);
        let next = (f.x * h + i.x * n.x) / both;
        // Divided first: where both gates round to 0, their quotients are 0.
        put(at, 0u, j, dh * (h - next) * (f.y / both));
        put(at, 1u, j, dh * (n.x - next) * (i.y / both));
        put(at, GATES - 1u, j, dh * (i.x / both) * n.y);
        carry[k] += dh * (f.x / both);
    }
#if SLSTM
    let i_kept = gates[x];
    let f_kept = gates[x + H];
    let z = unfolded_candidate(gates[x + 2u * H]);
    let o = unfolded2(gates[x + 3u * H]);
    let i_sum = clipped(i_kept);
    let f_sum = clipped(f_kept);
    let state = at.c_old + j;
    let c = states[state];
    let n = states[state + H];
    let m = states[state + 2u * H];
    var kept = f_sum + m;
    if !EXPONENTIAL_FORGET { kept = log_sigmoid(f_sum) + m; }
    let keeps = (bitcast<u32>(n) & 0x7fffffffu) != 0u && (is_nan(kept) || kept > i_sum);
    let top = select(i_sum, kept, keeps);
    let i = exp_up_to_one(i_sum - top);
    let f = exp_up_to_one(kept - top);
    let c_new = f * c + i * z.x;
    let n_new = f * n + i;
    let ratio = c_new / n_new;
    let by_ratio = dh * o.x / n_new;
    let k_c = row_of_carry(at) + W + j;
    let by_c = carry[k_c] + by_ratio;
    let by_n = carry[k_c + H] - by_ratio * ratio;
    let by_i = (by_c * z.x + by_n) * i;
    // f does not depend on anything where it is at its limit of 1.
    let by_f = select(0.0, (by_c * c + by_n * n) * f, kept < top);
    let by_top = carry[k_c + 2u * H] - by_i - by_f;
    let by_kept = by_f + select(0.0, by_top, keeps);
    var by_f_sum = by_kept;
    if !EXPONENTIAL_FORGET { by_f_sum *= safe_sigmoid(-f_sum); }
    put(at, 0u, j, stopped(i_kept, by_i + select(by_top, 0.0, keeps)));
    put(at, 1u, j, stopped(f_kept, by_f_sum));
    put(at, 2u, j, by_c * i * z.y);
    put(at, 3u, j, dh * ratio * o.y);
    carry[k_c] = by_c * f;
    carry[k_c + H] = by_n * f;
    carry[k_c + 2u * H] = by_kept;
#end
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = place_of(group.y, p.first_row + group.x, p.first_step);
    let first = group.z * WORKGROUP + lane;
    let stride = p.spread * WORKGROUP;
    if PHASE == 3u {
        for (var j = first; j < W; j += stride) {
            let k = row_of_carry(at) + j;
            carry[k] += returned(at, j);
        }
    } else if PHASE == 1u && BY_H > 0u {
        for (var j = first; j < W; j += stride) { d[row_of_d(at) + BY_H + j] = arrived(at, j); }
    } else {
#if CELL_NORM
        // Every lane reads only what it has written itself: what comes back to a unit stands where the gradient of its
        // first gate will.
        let x = row_of_d(at);
        var sum = 0.0;
        for (var j = first; j < H; j += stride) {
            d[x + j] = arrived_at_unit(at, j);
            sum += lstm_of(at, j).next;
        }
        let mean = total(lane, sum) / f32(H);
        sum = 0.0;
        for (var j = first; j < H; j += stride) {
            let v = lstm_of(at, j).next - mean;
            sum += v * v;
        }
        let scale = 1.0 / sqrt(total(lane, sum) / f32(H) + EPSILON);
        sum = 0.0;
        var along = 0.0;
        for (var j = first; j < H; j += stride) {
            let u = lstm_of(at, j);
            let standard = (u.next - mean) * scale;
            let by = d[x + j] * u.o.x * output_of(standard * own(at, 3u, j) + own(at, 4u, j)).y;
            if at.alive {
                count(at, 3u, j, by * standard);
                count(at, 4u, j, by);
            }
            sum += by * own(at, 3u, j);
            along += by * own(at, 3u, j) * standard;
        }
        sum = total(lane, sum) / f32(H);
        along = total(lane, along) / f32(H);
        for (var j = first; j < H; j += stride) {
            let u = lstm_of(at, j);
            let standard = (u.next - mean) * scale;
            let out = output_of(standard * own(at, 3u, j) + own(at, 4u, j));
            let dh = d[x + j];
            let by = dh * u.o.x * out.y * own(at, 3u, j);
            lstm(at, j, u, dh, out.x, (by - sum - standard * along) * scale);
        }
#else
        for (var j = first; j < H; j += stride) { unit(at, j); }
#end
    }
}
