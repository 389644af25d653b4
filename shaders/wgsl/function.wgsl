// out = f(x), functions that are not activations of cells; FUNCTION is the code of `Function` on the host. Where WGSL
// leaves a function's error open, or bounds it by more than a few units in the last place, it is computed here.
#import activations
#import elements
#import logarithm
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

const HALF_PI: f32 = 1.57079632679;
const PI: f32 = 3.14159265359;

fn is_infinite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

fn as_float(holds: bool) -> f32 {
    return select(0.0, 1.0, holds);
}

// y with the sign of x.
fn signed(y: f32, x: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(y) & 0x7fffffffu) | (bitcast<u32>(x) & 0x80000000u));
}

fn logarithm(x: f32) -> f32 {
    if x == 0.0 { return infinity_of(-1.0); }
    if x < 0.0 { return nan_of(x); }
    if is_infinite(x) { return x; }
    return natural_logarithm(x);
}

// ln(1 + x) for x > -1, near 0 by a series.
fn log_1p(x: f32) -> f32 {
    if abs(x) < 0.3 {
        // 2 artanh(v), v = x / (2 + x).
        let v = x / (2.0 + x);
        let u = v * v;
        return 2.0 * v * (1.0 + u * (0.333333333 + u * (0.2 + u * (0.142857143 + u * (0.111111111 + u * 0.0909090909)))));
    }
    return logarithm(1.0 + x);
}

// e^x - 1, near 0 by a series.
fn exp_m1(x: f32) -> f32 {
    if abs(x) < 0.5 {
        return x * (1.0 + x * (0.5 + x * (0.166666667 + x * (0.0416666667 + x * (0.00833333333 + x * (0.00138888889
            + x * 0.000198412698))))));
    }
    return exp(x) - 1.0;
}

fn arc_sine_near(x: f32) -> f32 {
    // For |x| <= 0.5; Cephes.
    let z = x * x;
    let q = (((0.042163199048 * z + 0.024181311049) * z + 0.045470025998) * z + 0.074953002686) * z + 0.16666752422;
    return q * z * x + x;
}

fn arc_sine(x: f32) -> f32 {
    let a = abs(x);
    if a > 1.0 { return nan_of(x); }
    if a > 0.5 {
        return signed(HALF_PI - 2.0 * arc_sine_near(sqrt(0.5 * (1.0 - a))), x);
    }
    return arc_sine_near(x);
}

fn arc_cosine(x: f32) -> f32 {
    if abs(x) > 1.0 { return nan_of(x); }
    if x > 0.5 { return 2.0 * arc_sine_near(sqrt(0.5 * (1.0 - x))); }
    if x < -0.5 { return PI - 2.0 * arc_sine_near(sqrt(0.5 * (1.0 + x))); }
    return HALF_PI - arc_sine_near(x);
}

fn arc_tangent(x: f32) -> f32 {
    // Cephes.
    let a = abs(x);
    if is_infinite(x) { return signed(HALF_PI, x); }
    var base = 0.0;
    var t = a;
    if a > 2.414213562 {
        base = HALF_PI;
        t = -1.0 / a;
    } else if a > 0.4142135624 {
        base = 0.5 * HALF_PI;
        t = (a - 1.0) / (a + 1.0);
    }
    let z = t * t;
    let q = ((0.080537444954 * z - 0.13877685603) * z + 0.19977710648) * z - 0.33332949154;
    return signed(base + (q * z * t + t), x);
}

fn arc_hyperbolic_sine(x: f32) -> f32 {
    let a = abs(x);
    if is_infinite(x) { return x; }
    if a > 1e9 { return signed(natural_logarithm(a) + 0.69314718056, x); }
    return signed(log_1p(a + a * a / (1.0 + sqrt(a * a + 1.0))), x);
}

fn arc_hyperbolic_cosine(x: f32) -> f32 {
    if x < 1.0 { return nan_of(x); }
    if is_infinite(x) { return x; }
    if x > 1e9 { return natural_logarithm(x) + 0.69314718056; }
    let t = x - 1.0;
    return log_1p(t + sqrt(t * (t + 2.0)));
}

fn arc_hyperbolic_tangent(x: f32) -> f32 {
    let a = abs(x);
    if a > 1.0 { return nan_of(x); }
    if a == 1.0 { return infinity_of(x); }
    return signed(0.5 * log_1p(2.0 * a / (1.0 - a)), x);
}

fn hyperbolic_sine(x: f32) -> f32 {
    let a = abs(x);
    if a > 89.5 { return infinity_of(x); }
    if a > 80.0 {
        // e^a would overflow before its half does.
        let e = exp(0.5 * a);
        return signed(0.5 * e * e, x);
    }
    let e = exp_m1(a);
    return signed(0.5 * (e + e / (e + 1.0)), x);
}

fn hyperbolic_cosine(x: f32) -> f32 {
    let a = abs(x);
    if a > 89.5 { return infinity_of(1.0); }
    if a > 80.0 {
        let e = exp(0.5 * a);
        return 0.5 * e * e;
    }
    let e = exp(a);
    return 0.5 * (e + 1.0 / e);
}

// Sine and cosine; Cephes. Beyond 8192 those of the device.
fn sine_cosine(x: f32) -> vec2<f32> {
    let a = abs(x);
    if is_infinite(x) { return vec2<f32>(nan_of(x), nan_of(x)); }
    if a > 8192.0 { return vec2<f32>(sin(x), cos(x)); }
    // x = n pi / 2 + r, pi / 2 in three parts, of which the products with n are exact.
    let n = floor(a * 0.63661977237 + 0.5);
    let r = ((a - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.549789948768648e-8;
    let z = r * r;
    let s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
    let c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
    let quarter = u32(n) & 3u;
    let swapped = (quarter & 1u) == 1u;
    var sine = select(s, c, swapped);
    var cosine = select(c, s, swapped);
    sine = select(sine, -sine, quarter >= 2u);
    cosine = select(cosine, -cosine, quarter == 1u || quarter == 2u);
    return vec2<f32>(select(sine, -sine, x < 0.0), cosine);
}

// Near 0 a polynomial in x², else 1 - e^q with a polynomial q in |x|; the coefficients are those of N. Juffa.
fn error_function(x: f32) -> f32 {
    let t = min(abs(x), 4.0);
    let u = t * t;
    if t > 0.927734375 {
        var q = (-1.7285347e-5 * t + 3.8319713e-4) * u + (-3.8839644e-3 * t + 2.4254622e-2);
        q = q * t - 0.10677788;
        q = q * t - 0.6348467;
        q = q * t - 0.12871751;
        return signed(1.0 - exp(q * t - t), x);
    }
    var q = -5.967617e-4 * u + 4.9911942e-3;
    q = q * u - 2.6768135e-2;
    q = q * u + 0.112819925;
    q = q * u - 0.37612534;
    q = q * u + 0.128379166;
    return q * x + x;
}

fn mish(x: f32) -> f32 {
    // tanh(ln(1 + e)) = n / (n + 2), n = e (e + 2); x itself where e is large.
    let e = exp(min(x, 20.0));
    let n = e * (e + 2.0);
    return x * (n / (n + 2.0));
}

// Without its fraction, as a whole number of alpha bits; beta says whether there are negative ones.
fn whole(x: f32) -> f32 {
    let t = trunc(x);
    let in_i32 = t >= -2147483648.0 && t < 2147483648.0;
    let in_i64 = t >= -9223372036854775808.0 && t < 9223372036854775808.0;
    if p.alpha == 64.0 {
        let v = select(-9223372036854775808.0, t, in_i64);
        return select(v, v + 18446744073709551616.0, p.beta == 0.0 && v < 0.0);
    }
    if p.alpha == 32.0 {
        if p.beta == 1.0 { return select(-2147483648.0, t, in_i32); }
        // The last 32 bits.
        return select(0.0, t - floor(t * 2.3283064365386963e-10) * 4294967296.0, in_i64);
    }
    let shift = 32u - u32(p.alpha);
    let v = select(0, i32(select(0.0, t, in_i32)), in_i32) << shift;
    return select(f32(bitcast<u32>(v) >> shift), f32(v >> shift), p.beta == 1.0);
}

fn nearest_f16(x: f32) -> f32 {
    let a = abs(x);
    if a >= 65520.0 { return infinity_of(x); }
    // Below 2^-14 they are all multiples of 2^-24.
    if a < 6.103515625e-5 { return round(x * 16777216.0) * 5.9604644775390625e-8; }
    let bits = bitcast<u32>(x);
    return bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
}

fn nearest_bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}

fn mapped(x: f32) -> f32 {
    switch FUNCTION {
        case 1u: { return abs(x); }
        case 2u: { return arc_cosine(x); }
        case 3u: { return arc_hyperbolic_cosine(x); }
        case 4u: { return arc_sine(x); }
        case 5u: { return arc_hyperbolic_sine(x); }
        case 6u: { return arc_tangent(x); }
        case 7u: { return arc_hyperbolic_tangent(x); }
        case 8u: { return ceil(x); }
        case 9u: { return sine_cosine(x).y; }
        case 10u: { return hyperbolic_cosine(x); }
        case 11u: { return error_function(x); }
        case 12u: { return exp(x); }
        case 13u: { return floor(x); }
        case 14u: { return as_float(is_infinite(x) && select(p.beta, p.alpha, x < 0.0) != 0.0); }
        case 16u: { return logarithm(x); }
        case 17u: { return -x; }
        case 18u: { return as_float(x == 0.0); }
        case 19u: { return 1.0 / x; }
        case 20u: { return round(x); }
        case 21u: { return sign(x); }
        case 22u: { return sine_cosine(x).x; }
        case 23u: { return hyperbolic_sine(x); }
        case 24u: { if x < 0.0 { return nan_of(x); } return sqrt(x); }
        case 25u: { let v = sine_cosine(x); return v.x / v.y; }
        case 26u: { return select(p.alpha * exp_m1(x / p.alpha), x, x >= 0.0); }
        case 27u: { return p.beta * select(p.alpha * exp_m1(min(x, 0.0)), x, x > 0.0); }
        case 28u: { return x * (clamp(x + 3.0, 0.0, 6.0) * 0.16666666667); }
        case 29u: { return 0.5 * x * (1.0 + error_function(x * 0.70710678119)); }
        case 30u: { return 0.5 * x * (1.0 + safe_tanh(0.79788456080 * (x + 0.044715 * x * x * x))); }
        case 31u: { return mish(x); }
        case 32u: { return x * safe_sigmoid(p.alpha * x); }
        case 33u: { return min(max(x, p.alpha), p.beta); }
        case 35u: { return as_float(x != 0.0); }
        case 36u: { return nearest_f16(x); }
        case 37u: { return nearest_bf16(x); }
        default: { return x; }
    }
}

// What becomes of NaN is decided by its bits.
fn applied(x: f32) -> f32 {
    switch FUNCTION {
        case 14u, 18u: { return select(mapped(x), 0.0, is_nan(x)); }
        case 15u: { return as_float(is_nan(x)); }
        case 34u: { return whole(select(x, infinity_of(1.0), is_nan(x))); }
        case 35u: { return select(mapped(x), 1.0, is_nan(x)); }
        default: { return unless_nan(x, mapped(x)); }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e < p.count {
        out[e] = applied(f32(x[e]));
    }
}
