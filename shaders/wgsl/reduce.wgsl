// Reduction over one axis of [outer, axis, inner]: a lane per result. A long axis is done in
// several dispatches (`first` to `first + count`), each starting from the result so far.
#import elements
#import nan

struct Params {
    results: u32,
    groups_x: u32,
    axis: u32,
    inner: u32,
    first: u32,
    count: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<RESULT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.results { return; }
    let base = (e / p.inner) * p.axis * p.inner + e % p.inner;
#if ARGMAX
    var best = 0u;
    if p.first > 0u { best = min(out[e], p.axis - 1u); }
    var highest = f32(x[base + best * p.inner]);
    for (var i = p.first; i < p.first + p.count; i++) {
        let v = f32(x[base + i * p.inner]);
        if is_above(v, highest) {
            highest = v;
            best = i;
        }
    }
    out[e] = best;
#else
    var value = f32(x[base]);
    var i = p.first;
    if p.first > 0u {
        value = f32(out[e]);
    } else {
        i = 1u;
    }
    for (; i < p.first + p.count; i++) {
        let v = f32(x[base + i * p.inner]);
        if OPERATION == 2u {
            value = unless_nan(value, unless_nan(v, max(value, v)));
        } else if OPERATION == 3u {
            value = unless_nan(value, unless_nan(v, min(value, v)));
        } else {
            value += v;
        }
    }
    if OPERATION == 1u && p.first + p.count == p.axis { value /= f32(p.axis); }
    out[e] = RESULT(value);
#end
}
