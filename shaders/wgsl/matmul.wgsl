// C = act(A · B + bias), computed in tiles: 64 lanes, arranged LANES_M × LANES_N, each with 4·ROW_VECS rows of
// 4·COLUMN_VECS results. K is traversed in steps of TILE_K, which are loaded to workgroup memory. B is [k, n], or [n,
// k] with TRANSPOSED.
#import activations
#import product

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> b: array<WEIGHT>;
@group(0) @binding(3) var<storage, read> bias: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> c: array<ELEMENT>;

// a_tile is [TILE_K][TILE_M / 4] vectors of four adjacent rows. b_tile is [TILE_K][TILE_N / 4] vectors of four columns
// that are TILE_N / 4 apart, so that adjacent lanes load and store adjacent columns. A lane stores whole vectors,
// because a store to one component may write the others too.
var<workgroup> a_tile: array<vec4<f32>, A_TILE>;
var<workgroup> b_tile: array<vec4<f32>, B_TILE>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * TILE_M;
    let n0 = group.x * TILE_N;
    let a_matrix = p.a_offset + group.z * p.a_batch;
    let b_matrix = p.b_offset + group.z * p.b_batch;
    let tm = lane / LANES_N;
    let tn = lane % LANES_N;
#unroll i ROW_VECS
#unroll s 4
#unroll c COLUMN_VECS
    var sum$i_$s_$c = vec4<f32>();
#end
#end
#end
    // Adjacent lanes load adjacent elements: along k where k is the inner dimension.
    let ka = lane % TILE_K;
    let line = lane / TILE_K;
#unroll q A_LOADS
#unroll s 4
    let row$q_$s = min(m0 + (line + $qu * LINES) * 4u + $su, p.m - 1u);
    let a$q_$s = a_matrix + (row$q_$s / p.a_inner) * p.a_outer_stride + (row$q_$s % p.a_inner) * p.a_inner_stride;
#end
#end
    for (var k0 = 0u; k0 < p.k; k0 += TILE_K) {
#unroll q A_LOADS
        {
            // Always loads from a valid index and then selects, which is cheaper than a branch.
            let k = min(k0 + ka, p.k - 1u);
            let v = vec4<f32>(f32(a[a$q_0 + k]), f32(a[a$q_1 + k]), f32(a[a$q_2 + k]), f32(a[a$q_3 + k]));
            a_tile[ka * (TILE_M / 4u) + line + $qu * LINES] = select(vec4<f32>(), v, k0 + ka < p.k);
        }
#end
#unroll q B_LOADS
        {
#if TRANSPOSED
            let kb = ka;
            let at = line + $qu * LINES;
            let first = b_matrix + min(k0 + kb, p.k - 1u);
            let stride = p.depth;
#else
            let e = lane + $qu * 64u;
            let kb = e / (TILE_N / 4u);
            let at = e % (TILE_N / 4u);
            let first = b_matrix + min(k0 + kb, p.k - 1u) * p.columns;
            let stride = 1u;
#end
#unroll s 4
            let v$s = f32(b[first + min(n0 + at + $su * (TILE_N / 4u), p.n - 1u) * stride]);
#end
            let v = vec4<f32>(v0, v1, v2, v3);
            b_tile[kb * (TILE_N / 4u) + at] = select(vec4<f32>(), v, k0 + kb < p.k);
        }
#end
        workgroupBarrier();
#if IN_PARTS
        // The bound is computed so that the compiler does not know it; otherwise it would unroll the loop.
        let known = min(TILE_K, p.k - k0);
        for (var q0 = 0u; q0 < known; q0 += K_UNROLL) {
#else
        {
            const q0 = 0u;
#end
#unroll q K_UNROLL
        {
#unroll c COLUMN_VECS
            let bv$c = b_tile[(q0 + $qu) * (TILE_N / 4u) + $cu * LANES_N + tn];
#end
#unroll i ROW_VECS
            let av$i = a_tile[(q0 + $qu) * (TILE_M / 4u) + $iu * LANES_M + tm];
#unroll s 4
#unroll c COLUMN_VECS
            sum$i_$s_$c += av$i[$s] * bv$c;
#end
#end
#end
        }
#end
        }
        workgroupBarrier();
    }
#unroll i ROW_VECS
#unroll s 4
    {
        let row = m0 + ($iu * LANES_M + tm) * 4u + $su;
        if row < p.m {
#unroll c COLUMN_VECS
#unroll v 4
            {
                let column = n0 + $vu * (TILE_N / 4u) + $cu * LANES_N + tn;
                if column < p.n { store_product(group.z, row, column, sum$i_$s_$c[$v]); }
            }
#end
#end
        }
    }
#end
#end
}
