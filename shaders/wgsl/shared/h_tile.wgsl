// h in workgroup memory, twice: as vec4s for reading, in rows of K4 padded with zeros, and as floats, of which each
// lane stores its own. A lane must not store one component of a vector, because that may write the whole vector and
// lose its neighbours' stores; `pack` assembles the vectors from the floats instead.
const H_ROW: u32 = 4u * K4;
var<workgroup> h_tile: array<vec4<f32>, H_TILE>;
var<workgroup> h_floats: array<f32, H_FLOATS>;

// Called between two barriers: the floats are stored before the first, the vectors are read after the second.
fn pack(lane: u32) {
    for (var v = lane; v < H_TILE; v += WORKGROUP) {
        h_tile[v] = vec4<f32>(h_floats[4u * v], h_floats[4u * v + 1u], h_floats[4u * v + 2u], h_floats[4u * v + 3u]);
    }
}
