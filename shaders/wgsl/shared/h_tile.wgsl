// h in workgroup memory: vec4s to read, rows of K4 that are padded with zeros, and floats, of which each lane
// stores its own. A lane may not store one component of a vector, because that may write the whole vector
// and so lose what its neighbours stored; `pack` makes whole vectors of the floats instead.
const H_ROW: u32 = 4u * K4;
var<workgroup> h_tile: array<vec4<f32>, H_TILE>;
var<workgroup> h_floats: array<f32, H_FLOATS>;

// Between barriers: the floats are stored before it, the vectors read behind it.
fn pack(lane: u32) {
    for (var v = lane; v < H_TILE; v += WORKGROUP) {
        h_tile[v] = vec4<f32>(h_floats[4u * v], h_floats[4u * v + 1u], h_floats[4u * v + 2u], h_floats[4u * v + 3u]);
    }
}
