// out = x OP y with broadcasting: a dimension of size 1 has stride 0. OPERATION is the place of an `Operation` of the
// host.
#import elements
#import logarithm
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    unused0: u32,
    unused1: u32,
    // (size, stride of x, stride of y, 0), outermost first.
    dims: array<vec4<u32>, 6>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> out: array<ELEMENT>;

fn as_float(holds: bool) -> f32 {
    return select(0.0, 1.0, holds);
}

// Whether a number stands for what is true: it is not 0.
fn holds(a: f32) -> bool {
    return (bitcast<u32>(a) & 0x7fffffffu) != 0u;
}

fn are_numbers(a: f32, b: f32) -> bool {
    return !is_nan(a) && !is_nan(b);
}

// a^b. WGSL leaves powers of negative numbers open.
fn power(a: f32, b: f32) -> f32 {
    if (b == 0.0 && !is_nan(b)) || (a == 1.0 && !is_nan(a)) { return 1.0; }
    if !are_numbers(a, b) { return nan_of(a); }
    let whole = floor(b) == b;
    let size = abs(b);
    // From 2^24 on every number is even.
    let odd = whole && size < 16777216.0 && (u32(min(size, 16777216.0)) & 1u) == 1u;
    let t = abs(a);
    let sign = select(1.0, -1.0, odd && (bitcast<u32>(a) >> 31u) == 1u);
    if t == 0.0 || is_infinite(t) {
        return sign * select(infinity_of(1.0), 0.0, (t == 0.0) == (b > 0.0));
    }
    if t == 1.0 { return select(sign, nan_of(a), a < 0.0 && !whole); }
    if whole && size <= 32.0 {
        // By squares.
        var product = 1.0;
        var square = t;
        var rest = u32(size);
#unroll k 6
        if (rest & 1u) == 1u { product *= square; }
        square *= square;
        rest >>= 1u;
#end
        return sign * select(product, 1.0 / product, b < 0.0);
    }
    if a < 0.0 && !whole { return nan_of(a); }
    if b == 0.5 { return sqrt(t); }
    if is_infinite(b) { return select(0.0, infinity_of(1.0), (t > 1.0) == (b > 0.0)); }
    return sign * exp2(b * binary_logarithm(t));
}

fn is_infinite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

// a / b without its fraction. The division may be off by a few units in the last place: what is left says whether it
// came out one too large or too small.
fn quotient(a: f32, b: f32) -> f32 {
    let size = abs(b);
    var q = floor(abs(a) / size);
    let left = abs(a) - q * size;
    if q < 16777216.0 {
        if left < 0.0 { q -= 1.0; }
        if left >= size { q += 1.0; }
    }
    return select(q, -q, (a < 0.0) != (b < 0.0));
}

// Exact wherever a / b is finite: b goes into a 8 bits of the quotient at a time, so that no product or difference is
// rounded.
fn remainder(a: f32, b: f32) -> f32 {
    if !are_numbers(a, b) || b == 0.0 || is_infinite(a) { return nan_of(a); }
    let size = abs(b);
    if is_infinite(b) || abs(a) < size { return a; }
    let high = bitcast<f32>(bitcast<u32>(size) & 0xfffffe00u);
    let low = size - high;
    var left = abs(a);
#unroll k 16
    {
        let scale = bitcast<f32>((247u - 8u * $k) << 23u);
        let part = scale * size;
        let q = floor(left / part);
        if q > 0.0 {
            left = (left - q * high * scale) - q * low * scale;
            if left < 0.0 { left += part; }
            if left >= part { left -= part; }
        }
    }
#end
    return select(left, -left, a < 0.0);
}

fn modulo(a: f32, b: f32) -> f32 {
    let r = remainder(a, b);
    if is_nan(r) { return r; }
    if r == 0.0 { return select(0.0, -0.0, b < 0.0); }
    return select(r, r + b, (r < 0.0) != (b < 0.0));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var rest = e;
    var ix = 0u;
    var iy = 0u;
#unroll d 6
    {
        let dim = p.dims[5 - $d];
        let at = rest % dim.x;
        rest /= dim.x;
        ix += at * dim.y;
        iy += at * dim.z;
    }
#end
    let a = f32(x[ix]);
    let b = f32(y[iy]);
    var v = a + b;
    if OPERATION == 1u { v = a - b; }
    if OPERATION == 2u { v = a * b; }
    if OPERATION == 3u { v = a / b; }
    if OPERATION == 4u { v = unless_nan(a - b, exp(a - b)); }
    if OPERATION == 5u { v = a / sqrt(b); }
    if OPERATION == 6u { v = power(a, b); }
    if OPERATION == 7u { v = select(unless_nan(b, max(a, b)), a, is_nan(a)); }
    if OPERATION == 8u { v = select(unless_nan(b, min(a, b)), a, is_nan(a)); }
    if OPERATION == 9u { v = as_float(are_numbers(a, b) && a == b); }
    if OPERATION == 10u { v = as_float(are_numbers(a, b) && a < b); }
    if OPERATION == 11u { v = as_float(are_numbers(a, b) && a <= b); }
    if OPERATION == 12u { v = as_float(holds(a) && holds(b)); }
    if OPERATION == 13u { v = as_float(holds(a) || holds(b)); }
    if OPERATION == 14u { v = as_float(holds(a) != holds(b)); }
    if OPERATION == 15u { v = modulo(a, b); }
    if OPERATION == 16u { v = remainder(a, b); }
    if OPERATION == 17u { v = quotient(a, b); }
    if OPERATION == 18u { v = unless_nan(a, select(a, a * b, a < 0.0)); }
    out[e] = ELEMENT(v);
}
