// Rows of x, [count, width], of equal ids within a chunk of CHUNK rows become one row: their sum, in order. A workgroup
// has a chunk and some columns. It sorts the chunk's ids; where the first of equal ones stands then, it writes the id
// and the sum, and NONE for the others. `sum_rows` adds up the rest, and has to look at fewer rows of a frequent id.
struct Params {
    count: u32,
    rows: u32,
    width: u32,
    groups_x: u32,
    // Columns of a workgroup, and how many such blocks there are.
    columns: u32,
    column_blocks: u32,
    chunks: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
// [chunks · CHUNK] and [chunks · CHUNK, width]
@group(0) @binding(3) var<storage, read_write> merged_ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> merged: array<f32>;

const NONE: u32 = 0xffffffffu;

// An id and, in the lowest bits, its place in the chunk, so that equal ids stay in order.
var<workgroup> keys: array<u32, CHUNK>;

@compute @workgroup_size(CHUNK)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let w = group.y * p.groups_x + group.x;
    let chunk = w / p.column_blocks;
    let column = (w % p.column_blocks) * p.columns + lane % p.columns;
    let team = lane / p.columns;
    let teams = CHUNK / p.columns;
    let base = chunk * CHUNK;
    var key = NONE;
    if base + lane < p.count { key = min(ids[base + lane], p.rows - 1u) * CHUNK + lane; }
    keys[lane] = key;
    workgroupBarrier();
    // Bitonic sort.
    for (var size = 2u; size <= CHUNK; size *= 2u) {
        for (var apart = size / 2u; apart > 0u; apart /= 2u) {
            let own = keys[lane];
            let other = keys[lane ^ apart];
            // The lower of the two places has the smaller key, but in every other sequence the larger.
            let smaller = ((lane & apart) == 0u) == ((lane & size) == 0u);
            workgroupBarrier();
            keys[lane] = select(max(own, other), min(own, other), smaller);
            workgroupBarrier();
        }
    }
    // There may be more workgroups than chunks.
    if chunk >= p.chunks { return; }
    if w % p.column_blocks == 0u {
        let id = keys[lane] / CHUNK;
        let first = keys[lane] != NONE && (lane == 0u || keys[max(lane, 1u) - 1u] / CHUNK != id);
        merged_ids[base + lane] = select(NONE, id, first);
    }
    if team >= teams || column >= p.width { return; }
    for (var s = team; s < CHUNK; s += teams) {
        let id = keys[s] / CHUNK;
        if keys[s] == NONE || (s > 0u && keys[max(s, 1u) - 1u] / CHUNK == id) { continue; }
        var sum = 0.0;
        // AHEAD elements are loaded before the first is added, so that their loads overlap.
        for (var n = s; n < CHUNK && keys[n] / CHUNK == id; n += AHEAD) {
#unroll k AHEAD
            let key$k = keys[min(n + $ku, CHUNK - 1u)];
            let own$k = n + $ku < CHUNK && key$k / CHUNK == id;
            let v$k = x[(base + select(keys[s], key$k, own$k) % CHUNK) * p.width + column];
#end
#unroll k AHEAD
            if own$k { sum += v$k; }
#end
        }
        merged[(base + s) * p.width + column] = sum;
    }
}
