// Strided copy: slices, transposes, concatenation.
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    source_offset: u32,
    target_offset: u32,
    // (size, stride of the source, stride of the target, 0), outermost first.
    dims: array<vec4<u32>, 6>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var rest = e;
    var origin = p.source_offset;
    var goal = p.target_offset;
#unroll d 6
    {
        let dim = p.dims[5 - $d];
        let at = rest % dim.x;
        rest /= dim.x;
        origin += at * dim.y;
        goal += at * dim.z;
    }
#end
    out[goal] = source[origin];
}
