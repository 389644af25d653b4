// What the kernels of CTC read of the labels of a sequence, a row of 2 · labels + 1 numbers for each. For each label the
// place of the next one that is equal, or NONE, with FIRST if none before it is; then how many labels there are up to
// the first blank, or BAD; then the labels, none beyond the classes.
#import nan
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    labels: u32,
    classes: u32,
    blank: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<INDEX>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

const NONE: u32 = 0x7fffffffu;
const FIRST: u32 = 0x80000000u;
const BAD: u32 = 0xffffffffu;

// The class of a label, or the number of classes if it is none.
fn class_of(at: u32) -> u32 {
#if WHOLE
    return min(labels[at], p.classes);
#else
    let label = labels[at];
    if is_nan(label) || !(label >= 0.0 && label < f32(p.classes)) { return p.classes; }
    return min(u32(label), p.classes);
#end
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    let width = 2u * p.labels + 1u;
    let base = e / width * p.labels;
    let place = e % width;
    if place > p.labels {
        out[e] = min(class_of(base + place - p.labels - 1u), p.classes - 1u);
        return;
    }
    let own = class_of(base + min(place, p.labels - 1u));
    var used = p.labels;
    var bad = false;
    var link = NONE;
    var first = FIRST;
    for (var i = 0u; i < p.labels; i++) {
        let label = class_of(base + i);
        if label == p.blank {
            used = min(used, i);
        } else {
            // No class, or a label behind a blank.
            bad = bad || label == p.classes || used < i;
            if label == own && i < place { first = 0u; }
            if label == own && i > place && link == NONE { link = i; }
        }
    }
    out[e] = select(link | first, select(used, BAD, bad), place == p.labels);
}
