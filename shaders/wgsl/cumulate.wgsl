// Running sums along the axis of [outer, axis, inner], a lane for each of the lines. With more than one dispatch the
// next goes on from what the one before has written.
#import elements

struct Params {
    // Lines.
    count: u32,
    groups_x: u32,
    axis: u32,
    inner: u32,
    // The places of a line that are summed now.
    first: u32,
    steps: u32,
    // 1: without the element itself.
    exclusive: u32,
    // 1: from the end.
    reverse: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn line_place(step: u32) -> u32 {
    return select(step, p.axis - 1u - step, p.reverse == 1u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    let base = (e / p.inner) * p.axis * p.inner + e % p.inner;
    var sum = 0.0;
    if p.first > 0u {
        let before = base + line_place(p.first - 1u) * p.inner;
        sum = out[before];
        if p.exclusive == 1u { sum += x[before]; }
    }
    for (var step = p.first; step < p.first + p.steps; step++) {
        let at = base + line_place(step) * p.inner;
        let next = sum + x[at];
        out[at] = select(next, sum, p.exclusive == 1u);
        sum = next;
    }
}
