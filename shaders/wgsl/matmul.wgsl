// C = act(A · B + bias), tiled: 8×8 lanes, 4×4 results a lane, K in steps of TILE_K through
// workgroup memory. B is [k, n], or [n, k] with TRANSPOSED. The rows of A may be spread over two
// strides, so that a span of timesteps of a [B, T, I] tensor is read in place.
#import activations

struct Params {
    m: u32,
    n: u32,
    k: u32,
    // Row r of A starts at a_offset + (r / a_inner) * a_outer_stride + (r % a_inner) * a_inner_stride.
    a_inner: u32,
    a_outer_stride: u32,
    a_inner_stride: u32,
    a_offset: u32,
    b_offset: u32,
    c_offset: u32,
    // Strides between the matrices of a batch (workgroup z).
    a_batch: u32,
    b_batch: u32,
    c_batch: u32,
    bias_offset: u32,
    alpha: f32,
    beta: f32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> b: array<WEIGHT>;
@group(0) @binding(3) var<storage, read> bias: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> c: array<ELEMENT>;

// [TILE_K][32]
var<workgroup> a_tile: array<vec4<f32>, A_TILE>;
var<workgroup> b_tile: array<vec4<f32>, A_TILE>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * 32u;
    let n0 = group.x * 32u;
    // Loading: lane l brings row (l % 32) of A and column (l % 32) of B, k = l / 32, then + 2.
    let line = lane % 32u;
    let a_row = min(m0 + line, p.m - 1u);
    let a_base = p.a_offset + group.z * p.a_batch
        + (a_row / p.a_inner) * p.a_outer_stride + (a_row % p.a_inner) * p.a_inner_stride;
    let b_column = min(n0 + line, p.n - 1u);
    let b_base = p.b_offset + group.z * p.b_batch + select(b_column, b_column * p.k, TRANSPOSED);
    let b_step = select(p.n, 1u, TRANSPOSED);

    let tm = lane / 8u;
    let tn = lane % 8u;
#unroll r 4
    var sum$r = vec4<f32>();
#end
    for (var k0 = 0u; k0 < p.k; k0 += TILE_K) {
#unroll q LOADS
        {
            let kk = lane / 32u + $qu * 2u;
            let k = k0 + kk;
            var av = 0.0;
            var bv = 0.0;
            if k < p.k {
                av = f32(a[a_base + k]);
                bv = f32(b[b_base + k * b_step]);
            }
            a_tile[kk * 8u + line / 4u][line % 4u] = av;
            b_tile[kk * 8u + line / 4u][line % 4u] = bv;
        }
#end
        workgroupBarrier();
#unroll q TILE_K
        {
            let av = a_tile[$qu * 8u + tm];
            let bv = b_tile[$qu * 8u + tn];
            sum0 += av.x * bv;
            sum1 += av.y * bv;
            sum2 += av.z * bv;
            sum3 += av.w * bv;
        }
#end
        workgroupBarrier();
    }
#unroll r 4
    {
        let row = m0 + tm * 4u + $ru;
        if row < p.m {
#unroll v 4
            {
                let column = n0 + tn * 4u + $vu;
                if column < p.n {
                    var value = sum$r[$v];
                    if HAS_BIAS { value += f32(bias[p.bias_offset + column]); }
                    value = activate(ACTIVATION, p.alpha, p.beta, value);
                    c[p.c_offset + group.z * p.c_batch + row * p.n + column] = ELEMENT(value);
                }
            }
#end
        }
    }
#end
}
