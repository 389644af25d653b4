// C = act(A · Bᵀ + bias) for few rows of A, with B [n, k]: a matrix-vector product per row. LANES_K lanes share the sum
// over k of a result, so that adjacent lanes read adjacent elements of B, and no element of B is read twice for a row.
// With WIDE they read four elements at a time; offsets and strides are always in elements.
#import activations
#import product

@group(0) @binding(0) var<uniform> p: Params;
#if WIDE
@group(0) @binding(1) var<storage, read> a: array<vec4<ELEMENT>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<WEIGHT>>;
#else
@group(0) @binding(1) var<storage, read> a: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> b: array<WEIGHT>;
#end
@group(0) @binding(3) var<storage, read> bias: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> c: array<ELEMENT>;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let slice = lane % LANES_K;
    let column = group.x * (WORKGROUP / LANES_K) + lane / LANES_K;
    let row = group.y;
    let a_row = p.a_offset + group.z * p.a_batch + (row / p.a_inner) * p.a_outer_stride
        + (row % p.a_inner) * p.a_inner_stride;
    let b_row = p.b_offset + group.z * p.b_batch + min(column, p.n - 1u) * p.depth;
#if WIDE
    var sums = vec4<f32>();
    for (var k = slice; k < p.k / 4u; k += LANES_K) {
        sums = fma(vec4<f32>(a[a_row / 4u + k]), vec4<f32>(b[b_row / 4u + k]), sums);
    }
    partial[lane] = (sums.x + sums.y) + (sums.z + sums.w);
#else
    var sum = 0.0;
    for (var k = slice; k < p.k; k += LANES_K) {
        sum = fma(f32(a[a_row + k]), f32(b[b_row + k]), sum);
    }
    partial[lane] = sum;
#end
    workgroupBarrier();
    if slice == 0u && column < p.n {
        var value = 0.0;
#unroll q LANES_K
        value += partial[lane + $qu];
#end
        store_product(group.z, row, column, value);
    }
}
