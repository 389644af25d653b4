// minGRU and minLSTM with depth O(log T). Each timestep is a map `h -> a h + b`. Such maps can be composed, so BLOCK of
// them are scanned in parallel in workgroup memory (Hillis & Steele 1986). FROM_GATES computes the maps of the first
// level from the gates; higher levels scan the composed maps of the blocks below. `linear_carry` then passes the
// results down.
#import recurrent
#if FROM_GATES
#import minimal_cell
#end

@group(0) @binding(0) var<uniform> p: Params;
// The prefixes inside each block, [D, items, B, H]
@group(0) @binding(1) var<storage, read_write> prefixes: array<vec2<f32>>;
// The composed map of each block, [D, blocks, B, H]
@group(0) @binding(2) var<storage, read_write> wholes: array<vec2<f32>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
#if FROM_GATES
// [D, chunk, B, G·H]
@group(0) @binding(4) var<storage, read> projection: array<f32>;
#else
// The maps of this level, [D, items, B, H]
@group(0) @binding(4) var<storage, read> maps: array<vec2<f32>>;
#end

var<workgroup> tile: array<vec2<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let d = group.z;
    let columns = p.batch * H;
    let column = group.x * COLUMNS + lane % COLUMNS;
    let within = lane / COLUMNS;
    let item = group.y * BLOCK + within;
    let at = (d * p.steps + item) * columns + column;
    var map = vec2<f32>(1.0, 0.0);
    if item < p.steps && column < columns {
#if FROM_GATES
        let row = column / H;
        let reverse = is_reverse(p.flags, d);
        let s = p.first_step + item;
        if is_alive(row, time_of(s, p.timesteps, reverse), p.timesteps) {
            let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
            map = minimal_cell(((d * p.chunk_steps + slot) * p.batch + row) * (GATES * H) + column % H);
        }
#else
        map = maps[at];
#end
    }
    tile[lane] = map;
    workgroupBarrier();
    for (var offset = 1u; offset < BLOCK; offset *= 2u) {
        var before = vec2<f32>(1.0, 0.0);
        if within >= offset { before = tile[lane - offset * COLUMNS]; }
        workgroupBarrier();
        map = vec2<f32>(map.x * before.x, map.x * before.y + map.y);
        tile[lane] = map;
        workgroupBarrier();
    }
    if item < p.steps && column < columns {
        prefixes[at] = map;
        if within == BLOCK - 1u || item == p.steps - 1u {
            let blocks = (p.steps + BLOCK - 1u) / BLOCK;
            wholes[(d * blocks + group.y) * columns + column] = map;
        }
    }
}
