// C = act(A · Bᵀ + bias) with B [n, k], without workgroup memory: a lane reads what it multiplies and computes ROWS rows
// of COLUMNS results. LANES_N of the WORKGROUP lanes lie along the columns. With WIDE lanes read four elements along k
// at a time; offsets and strides are always in elements.
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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m0 = (group.y * (WORKGROUP / LANES_N) + lane / LANES_N) * ROWS;
    // The columns of a lane are LANES_N apart, so that adjacent lanes store adjacent columns.
    let n0 = group.x * (LANES_N * COLUMNS) + lane % LANES_N;
    let a_matrix = p.a_offset + group.z * p.a_batch;
    let b_matrix = p.b_offset + group.z * p.b_batch;
    // Rows and columns past the end are computed from the last ones and not stored.
#unroll i ROWS
    let row$i = min(m0 + $iu, p.m - 1u);
    let a$i = (a_matrix + (row$i / p.a_inner) * p.a_outer_stride + (row$i % p.a_inner) * p.a_inner_stride) / STEP;
#unroll j COLUMNS
    var sum$i_$j = 0.0;
#end
#end
#unroll j COLUMNS
    let b$j = (b_matrix + min(n0 + $ju * LANES_N, p.n - 1u) * p.depth) / STEP;
#end
    for (var k = 0u; k < p.k / STEP; k++) {
#unroll j COLUMNS
#if WIDE
        let bv$j = vec4<f32>(b[b$j + k]);
#else
        let bv$j = f32(b[b$j + k]);
#end
#end
#unroll i ROWS
        {
#if WIDE
            let av = vec4<f32>(a[a$i + k]);
#unroll j COLUMNS
            sum$i_$j += av.x * bv$j.x;
            sum$i_$j += av.y * bv$j.y;
            sum$i_$j += av.z * bv$j.z;
            sum$i_$j += av.w * bv$j.w;
#end
#else
            let av = f32(a[a$i + k]);
#unroll j COLUMNS
            sum$i_$j += av * bv$j;
#end
#end
        }
#end
    }
#unroll i ROWS
    if m0 + $iu < p.m {
#unroll j COLUMNS
        {
            let column = n0 + $ju * LANES_N;
            if column < p.n { store_product(group.z, m0 + $iu, column, sum$i_$j); }
        }
#end
    }
#end
}
