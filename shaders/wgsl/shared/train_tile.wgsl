// Shared by `train_scan` and `train_scan_back`: what the lanes of a workgroup multiply by weights, BATCH_TILE rows of
// DEPTH4 vec4s, and the sums over k, which K_SPLIT lanes share.
//
// The lanes of a unit are adjacent if a subgroup adds their sums (SUBGROUPS), else UNIT_LANES apart, and the sums are
// added through `partial` (PARTIAL). Lane `slice` of a unit has every K_SPLIT-th vec4, and the states of row `slice`, or
// of the rows `slice`, `slice + K_SPLIT`, …; there are ROWS of them.
#import joined
const TILE: u32 = BATCH_TILE * DEPTH4;
const TILE_ROW: u32 = 4u * DEPTH4;
var<workgroup> tile: array<vec4<f32>, TILE>;
#if PARTIAL
var<workgroup> partial: array<f32, PARTIAL_SUMS>;
#end

#if WHOLE
// The same as floats, of which each lane stores its own. A lane must not store one component of a vector, because that
// may write the whole vector and lose its neighbours' stores.
var<workgroup> floats: array<f32, 4u * TILE>;

// Called between two barriers: the floats are stored before the first, the vectors are read after the second.
fn pack(lane: u32) {
    for (var v = lane; v < TILE; v += WORKGROUP) {
        tile[v] = vec4<f32>(floats[4u * v], floats[4u * v + 1u], floats[4u * v + 2u], floats[4u * v + 3u]);
    }
}
#end

// Sets element v of the tile before the first timestep.
fn begin_tile(v: u32, value: vec4<f32>) {
    tile[v] = value;
#if WHOLE
    floats[4u * v] = value.x;
    floats[4u * v + 1u] = value.y;
    floats[4u * v + 2u] = value.z;
    floats[4u * v + 3u] = value.w;
#end
}

#if EXCHANGE
// The product of the first K4 vec4s of each row and weights from `at` on, `stride` apart.
fn second_product(slice: u32, at: u32, stride: u32) -> vec4<f32> {
    var sums = vec4<f32>();
    for (var k = slice; k < K4; k += K_SPLIT) {
        let w = weights[at + k * stride];
#unroll b BATCH_TILE
        sums[$b] += dot(w, tile[$bu * DEPTH4 + k]);
#end
    }
#if SUBGROUPS
#unroll b BATCH_TILE
    sums[$b] = joined(sums[$b]);
#end
#end
    return sums;
}
#end
