// Pooling: a number for each window over three axes, of [planes, axes]. OPERATION 0 is the maximum, 1 the mean, 2 the
// norm with p = power, 3 the place of the maximum in the whole of x, the first of several.
#import elements
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    planes: u32,
    // 1: padding counts in means; 2: places count as if the first axis were the innermost.
    options: u32,
    power: f32,
    // Negative infinity.
    lowest: f32,
    unused0: u32,
    unused1: u32,
    // (elements that windows look at, windows, taps of a window, stride), outermost first.
    sizes: array<vec4<u32>, 3>,
    // (dilation, padding before, padding behind, 0)
    steps: array<vec4<u32>, 3>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<RESULT>;

// Where tap `tap` of window `o` stands along an axis: (place, 1 if it does, 1 if it does on the axis or its padding).
fn source(o: u32, tap: u32, size: vec4<u32>, step: vec4<u32>) -> vec3<u32> {
    let at = o * size.w + tap * step.x;
    let place = at - min(at, step.y);
    return vec3<u32>(place, u32(at >= step.y && place < size.x), u32(at < size.x + step.y + step.z));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    let s0 = p.sizes[0];
    let s1 = p.sizes[1];
    let s2 = p.sizes[2];
    let windows = s0.y * s1.y * s2.y;
    let plane = e / windows;
    let window = e % windows;
    let o0 = window / (s1.y * s2.y);
    let o1 = (window / s2.y) % s1.y;
    let o2 = window % s2.y;
    let base = plane * s0.x * s1.x * s2.x;
    let taps = s0.z * s1.z * s2.z;
    var value = 0.0;
    if OPERATION == 0u { value = p.lowest; }
    var counted = 0u;
    var best = base;
    var a = 0u;
    var b = 0u;
    var d = 0u;
    for (var t = 0u; t < taps; t++) {
        let i0 = source(o0, a, s0, p.steps[0]);
        let i1 = source(o1, b, s1, p.steps[1]);
        let i2 = source(o2, d, s2, p.steps[2]);
        let inside = i0.y * i1.y * i2.y == 1u;
        if inside {
            let v = x[base + (i0.x * s1.x + i1.x) * s2.x + i2.x];
            if OPERATION == 0u { value = unless_nan(value, unless_nan(v, max(value, v))); }
            if OPERATION == 1u { value += v; }
            if OPERATION == 2u {
                let size = abs(v);
                if p.power == 1.0 {
                    value += size;
                } else if p.power == 2.0 {
                    value += size * size;
                } else if size > 0.0 || is_nan(size) {
                    value += unless_nan(size, pow(size, p.power));
                }
            }
            if OPERATION == 3u && (counted == 0u || is_above(v, value)) {
                value = v;
                best = base + (i0.x * s1.x + i1.x) * s2.x + i2.x;
                if (p.options & 2u) != 0u { best = base + (i2.x * s1.x + i1.x) * s0.x + i0.x; }
            }
        }
        let counts = inside || ((p.options & 1u) != 0u && i0.z * i1.z * i2.z == 1u);
        counted += u32(counts);
        d++;
        if d == s2.z {
            d = 0u;
            b++;
            if b == s1.z {
                b = 0u;
                a++;
            }
        }
    }
#if PLACES
    out[e] = best;
#else
    if OPERATION == 1u { value /= f32(max(counted, 1u)); }
    if OPERATION == 2u {
        if p.power == 2.0 {
            value = sqrt(value);
        } else if p.power != 1.0 && value > 0.0 {
            value = pow(value, 1.0 / p.power);
        }
    }
    out[e] = value;
#end
}
