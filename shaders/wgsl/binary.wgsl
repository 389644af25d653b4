// out = x OP y with broadcasting: along a dimension of size 1 an operand has stride 0.
#import elements
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    unused0: u32,
    unused1: u32,
    // (size, stride of x, stride of y, 0), outermost first.
    dims: array<vec4<u32>, 6>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    var rest = e;
    var ix = 0u;
    var iy = 0u;
#unroll d 6
    {
        let dim = p.dims[5 - $d];
        let at = rest % dim.x;
        rest /= dim.x;
        ix += at * dim.y;
        iy += at * dim.z;
    }
#end
    let a = f32(x[ix]);
    let b = f32(y[iy]);
    var v = a + b;
    if OPERATION == 1u { v = a - b; }
    if OPERATION == 2u { v = a * b; }
    if OPERATION == 3u { v = a / b; }
    if OPERATION == 4u { v = unless_nan(a - b, exp(a - b)); }
    if OPERATION == 5u { v = a / sqrt(b); }
    out[e] = ELEMENT(v);
}
