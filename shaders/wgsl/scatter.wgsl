// Updates at indices that stand in another tensor, into a copy of what is updated. A lane makes some of them, one
// after the other, and no other lane writes where it writes; indices that are outside change nothing.
#import elements
#import index

struct Params {
    count: u32,
    groups_x: u32,
    // Indices of an update, and how far apart they stand.
    components: u32,
    component_stride: u32,
    // The updates of a lane that are made now.
    first: u32,
    steps: u32,
    // How far apart the indices, and the elements, of two updates of a lane are.
    index_step: u32,
    update_step: u32,
    // Of the lanes (size, stride of the result, stride of the indices, stride of the updates), outermost first.
    dims: array<vec4<u32>, 6>,
    // Of each index (size of its axis, stride of the result, 0, 0).
    axes: array<vec4<u32>, 6>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> indices: array<INDEX>;
@group(0) @binding(2) var<storage, read> updates: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var rest = e;
    var origin = 0u;
    var at = 0u;
    var source = 0u;
#unroll d 6
    {
        let dim = p.dims[5 - $d];
        let n = rest % dim.x;
        rest /= dim.x;
        origin += n * dim.y;
        at += n * dim.z;
        source += n * dim.w;
    }
#end
    for (var step = p.first; step < p.first + p.steps; step++) {
        var goal = origin;
        var inside = true;
        for (var k = 0u; k < p.components; k++) {
            let axis = p.axes[k];
            let n = place(indices[at + step * p.index_step + k * p.component_stride], axis.x);
            inside = inside && n < axis.x;
            goal += n * axis.y;
        }
        if inside {
            let update = updates[source + step * p.update_step];
            if OPERATION == 0u {
                out[goal] = update;
            } else {
                let old = out[goal];
                var value = old + update;
                if OPERATION == 2u {
                    value = old * update;
                } else if OPERATION == 3u {
                    value = unless_nan(old, unless_nan(update, max(old, update)));
                } else if OPERATION == 4u {
                    value = unless_nan(old, unless_nan(update, min(old, update)));
                }
                out[goal] = value;
            }
        }
    }
}
