// The downward pass of `linear_scan`: combines each item of a block with the prefix of the blocks before it. Between
// levels it completes the prefixes in place; at the first level (APPLY) it applies them to the state.
#import recurrent

@group(0) @binding(0) var<uniform> p: Params;
// The complete prefixes of the level above, [D, blocks, B, H]; not read if there is only one block
@group(0) @binding(1) var<storage, read> above: array<vec2<f32>>;
// [D, items, B, H]
@group(0) @binding(2) var<storage, read_write> prefixes: array<vec2<f32>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
#if APPLY
// The state before and after, [D, B, H]
@group(0) @binding(4) var<storage, read> h_before: array<f32>;
@group(0) @binding(5) var<storage, read_write> h_after: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
#end

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let d = group.z;
    let columns = p.batch * H;
    let column = group.x * COLUMNS + lane % COLUMNS;
    let item = group.y * BLOCK + lane / COLUMNS;
    if item >= p.steps || column >= columns { return; }
    let at = (d * p.steps + item) * columns + column;
    let own = prefixes[at];
    var before = vec2<f32>(1.0, 0.0);
    if group.y > 0u {
        let blocks = (p.steps + BLOCK - 1u) / BLOCK;
        before = above[(d * blocks + group.y - 1u) * columns + column];
    }
    let map = vec2<f32>(own.x * before.x, own.x * before.y + own.y);
#if APPLY
    let row = column / H;
    let j = column % H;
    let reverse = is_reverse(p.flags, d);
    let s = p.first_step + item;
    let t = time_of(s, p.timesteps, reverse);
    let place = select(t, s, (p.flags & READING_ORDER) != 0u);
    var start = 0.0;
    if !((p.flags & ZERO_H) != 0u && p.first_step == 0u) { start = h_before[d * columns + column]; }
    let h = map.x * start + map.y;
    if (p.flags & WRITES_Y) != 0u {
        y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, is_alive(row, t, p.timesteps), p.flags);
    }
    if item == p.steps - 1u { h_after[d * columns + column] = h; }
#else
    prefixes[at] = map;
#end
}
