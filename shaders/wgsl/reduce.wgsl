// Reduction over one axis of [outer, axis, inner]; each lane reduces one block of the axis. With several blocks the
// results are [outer, blocks, inner], and another dispatch reduces those. Block b has the elements b, b + blocks, b + 2
// blocks and so on, so that adjacent lanes read adjacent elements. Groups of eight elements are added in pairs, which
// limits rounding errors. BEFORE is applied to the elements (1 absolute value, 2 square), AFTER to the result (1 square
// root, 2 logarithm, 3 zero in place of an infinity).
#import elements
#import nan

struct Params {
    results: u32,
    groups_x: u32,
    axis: u32,
    inner: u32,
    blocks: u32,
    // The divisor of a sum. ARGMAX: 1, or -1 for the smallest element.
    divisor: f32,
    // ARGMAX: the size of the axis of x; `axis` is that of `places`.
    whole: u32,
    // ARGMAX: 1 for the last of those that are equal.
    last: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
#if ARGMAX
// PLACED: indices into the axis of x, [outer, axis, inner], from which one is chosen.
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
#else
@group(0) @binding(2) var<storage, read_write> out: array<RESULT>;
#end

fn prepared(v: f32) -> f32 {
    if BEFORE == 1u { return abs(v); }
    if BEFORE == 2u { return v * v; }
    return v;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.results { return; }
    let column = e % p.inner;
    let block = (e / p.inner) % p.blocks;
    let outer = e / (p.inner * p.blocks);
    let count = (p.axis - block + p.blocks - 1u) / p.blocks;
    let base = (outer * p.axis + block) * p.inner + column;
    let stride = p.blocks * p.inner;
#if ARGMAX
    let row = outer * p.whole * p.inner + column;
    var best = 0u;
    var highest = 0.0;
    for (var n = 0u; n < count; n++) {
        var place = block + n * p.blocks;
        if PLACED { place = min(places[base + n * stride], p.whole - 1u); }
        let v = f32(x[row + place * p.inner]) * p.divisor;
        // The smallest index, or the largest, among equal elements, or among NaNs, wins; blocks do not visit elements in
        // order.
        if n == 0u || is_above(v, highest) || (!is_above(highest, v) && (place > best) == (p.last == 1u)) {
            highest = v;
            best = place;
        }
    }
    out[e] = best;
#else
    var value = prepared(f32(x[base]));
    if OPERATION == 0u { value = 0.0; }
    if OPERATION == 1u { value = 1.0; }
    for (var n = 0u; n < count; n += 8u) {
#unroll u 8
        var v$u = prepared(f32(x[base + min(n + $uu, count - 1u) * stride]));
#end
        if OPERATION == 2u {
#unroll u 8
            value = unless_nan(value, unless_nan(v$u, max(value, v$u)));
#end
        } else if OPERATION == 3u {
#unroll u 8
            value = unless_nan(value, unless_nan(v$u, min(value, v$u)));
#end
        } else if OPERATION == 1u {
#unroll u 8
            v$u = select(1.0, v$u, n + $uu < count);
#end
            value *= ((v0 * v1) * (v2 * v3)) * ((v4 * v5) * (v6 * v7));
        } else {
#unroll u 8
            v$u = select(0.0, v$u, n + $uu < count);
#end
            value += ((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7));
        }
    }
    if OPERATION == 0u { value /= p.divisor; }
    if AFTER == 1u { value = sqrt(value); }
    if AFTER == 2u { value = unless_nan(value, log(value)); }
    if AFTER == 3u && (bitcast<u32>(value) & 0x7fffffffu) == 0x7f800000u { value = 0.0; }
    out[e] = RESULT(value);
#end
}
