// Elements by indices that stand in another tensor, or `fill` where one is outside.
#import elements
#import index

struct Params {
    count: u32,
    groups_x: u32,
    // Indices of an element, and how far apart they stand.
    components: u32,
    component_stride: u32,
    fill: f32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
    // Of the result (size, stride of the data, stride of the indices, 0), outermost first.
    dims: array<vec4<u32>, 6>,
    // Of each index (size of its axis, stride of the data, 0, 0).
    axes: array<vec4<u32>, 6>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> data: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> indices: array<INDEX>;
@group(0) @binding(3) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var rest = e;
    var source = 0u;
    var at = 0u;
#unroll d 6
    {
        let dim = p.dims[5 - $d];
        let n = rest % dim.x;
        rest /= dim.x;
        source += n * dim.y;
        at += n * dim.z;
    }
#end
    var inside = true;
    for (var k = 0u; k < p.components; k++) {
        let axis = p.axes[k];
        let n = place(indices[at + k * p.component_stride], axis.x);
        inside = inside && n < axis.x;
        source += n * axis.y;
    }
    if inside {
        out[e] = data[source];
    } else {
        out[e] = ELEMENT(p.fill);
    }
}
