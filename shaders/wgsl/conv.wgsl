// Convolution over three axes: out[n, m, o] = bias[m] + the sum over the channels c of m's group and the taps of a
// window of x[n, c, i] w[m, c, tap], where i = o * stride + tap * dilation - before. TRANSPOSED turns it round: x has
// an element for each window, and out those that windows look at. A lane makes CHANNELS channels of a group at one
// place. A dispatch may add up a part of the terms, the others being in `out` already.
#import elements

struct Params {
    // Lanes, and the first of them.
    count: u32,
    groups_x: u32,
    base: u32,
    groups: u32,
    // Channels of a group, of x and of out.
    inputs: u32,
    outputs: u32,
    // Terms of the sums in this dispatch: channels, and in them taps.
    first: u32,
    terms: u32,
    // (elements that windows look at, windows, taps of a window, stride), outermost first.
    sizes: array<vec4<u32>, 3>,
    // (dilation, padding before, padding behind, the batch of the first axis)
    steps: array<vec4<u32>, 3>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// Where tap `tap` of the place `o` of out stands in x along an axis: (place, 1 if there is one).
fn source(o: u32, tap: u32, size: vec4<u32>, step: vec4<u32>) -> vec2<u32> {
    if TRANSPOSED {
        let at = o + step.y;
        let ahead = tap * step.x;
        let back = at - min(at, ahead);
        let window = back / size.w;
        return vec2<u32>(window, u32(at >= ahead && window * size.w == back && window < size.y));
    }
    let at = o * size.w + tap * step.x;
    return vec2<u32>(at - min(at, step.y), u32(at >= step.y && at - step.y < size.x));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    let s0 = p.sizes[0];
    let s1 = p.sizes[1];
    let s2 = p.sizes[2];
    var places = vec3<u32>(s0.y, s1.y, s2.y);
    var sources = vec3<u32>(s0.x, s1.x, s2.x);
    if TRANSPOSED {
        sources = vec3<u32>(s0.y, s1.y, s2.y);
        places = vec3<u32>(s0.x, s1.x, s2.x);
    }
    let plane = places.x * places.y * places.z;
    let place = (e + p.base) % plane;
    var rest = (e + p.base) / plane;
    let blocks = (p.outputs + CHANNELS - 1u) / CHANNELS;
    let block = rest % blocks;
    rest /= blocks;
    let g = rest % p.groups;
    let n = rest / p.groups;
    let o0 = place / (places.y * places.z);
    let o1 = (place / places.z) % places.y;
    let o2 = place % places.z;
    let taps = s0.z * s1.z * s2.z;
    let channel_size = sources.x * sources.y * sources.z;
#unroll j CHANNELS
    let m$j = min(block * CHANNELS + $ju, p.outputs - 1u);
    let at$j = ((n * p.groups + g) * p.outputs + m$j) * plane + place;
    var sum$j = 0.0;
    if p.first > 0u {
        sum$j = out[at$j];
    } else if HAS_BIAS {
        sum$j = bias[g * p.outputs + m$j];
    }
#end
    var c = p.first / taps;
    var tap = p.first % taps;
    var a = tap / (s1.z * s2.z);
    var b = (tap / s2.z) % s1.z;
    var d = tap % s2.z;
    for (var t = 0u; t < p.terms; t++) {
        let i0 = source(o0, a, s0, p.steps[0]);
        let i1 = source(o1, b, s1, p.steps[1]);
        let i2 = source(o2, d, s2, p.steps[2]);
        if i0.y * i1.y * i2.y == 1u {
            let v = x[((n * p.groups + g) * p.inputs + c) * channel_size + (i0.x * sources.y + i1.x) * sources.z + i2.x];
#unroll j CHANNELS
            {
                var filter$j = (g * p.outputs + m$j) * p.inputs + c;
                if TRANSPOSED { filter$j = (g * p.inputs + c) * p.outputs + m$j; }
                sum$j += v * w[filter$j * taps + tap];
            }
#end
        }
        tap++;
        d++;
        if d == s2.z {
            d = 0u;
            b++;
            if b == s1.z {
                b = 0u;
                a++;
                if a == s0.z {
                    a = 0u;
                    tap = 0u;
                    c++;
                }
            }
        }
    }
#unroll j CHANNELS
    if block * CHANNELS + $ju < p.outputs { out[at$j] = sum$j; }
#end
}
