// out = x where the condition is not 0, else y, with broadcasting: a dimension of size 1 has stride 0.
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    unused0: u32,
    unused1: u32,
    // (size, stride of the condition, stride of x, stride of y), outermost first.
    dims: array<vec4<u32>, 6>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> condition: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> y: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var rest = e;
    var at_condition = 0u;
    var at_x = 0u;
    var at_y = 0u;
#unroll d 6
    {
        let dim = p.dims[5 - $d];
        let at = rest % dim.x;
        rest /= dim.x;
        at_condition += at * dim.y;
        at_x += at * dim.z;
        at_y += at * dim.w;
    }
#end
    // Its bits without the sign: NaN is not 0.
    let holds = (bitcast<u32>(condition[at_condition]) & 0x7fffffffu) != 0u;
    out[e] = select(y[at_y], x[at_x], holds);
}
