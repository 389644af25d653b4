// One timestep: one workgroup per tile of hidden units, tile of batch rows and direction. Each lane sums a slice of k
// for one unit, the slices are added in workgroup memory, and the cell's snippet computes the states from the sums. A
// cell with an exchange takes two dispatches: FIRST ends with the values that the units exchange, SECOND computes the
// product of those and the rest. Other cells use WHOLE.
#import recurrent
#import CELL

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, G·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, G, H] vectors of four adjacent k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// lengths [B] or mask [B, T]
@group(0) @binding(3) var<storage, read> valid: array<u32>;
// The current h, [D, B, K4] vectors of four adjacent units
@group(0) @binding(4) var<storage, read> h_now: array<vec4<f32>>;
#if WHOLE
// [D, EXTRA_PARTS, H]
@group(0) @binding(5) var<storage, read> extra: array<f32>;
// The next h, [D, B, 4·K4] floats
@group(0) @binding(6) var<storage, read_write> h_next: array<f32>;
// [D, B, CARRIED, H]
@group(0) @binding(7) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;
#end
#if FIRST
// The values that the units exchange, [D, B, 4·K4], and those that each unit keeps, [D, B, H]
@group(0) @binding(5) var<storage, read_write> handed: array<f32>;
@group(0) @binding(6) var<storage, read_write> kept: array<f32>;
#end
#if SECOND
// The values that the units exchanged, [D, B, K4] vectors of four adjacent units, and those that each unit kept, [D, B,
// H]
@group(0) @binding(5) var<storage, read> handed: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> kept: array<f32>;
// The next h, [D, B, 4·K4] floats
@group(0) @binding(7) var<storage, read_write> h_next: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;
#end

// [K_SPLIT, BATCH_TILE, SUMMED, UNIT_TILE]: SUMMED gates, from FROM on.
var<workgroup> sums: array<f32, SUMS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let d = group.z;
    let unit = lane % UNIT_TILE;
    let slice = lane / UNIT_TILE;
    let j = group.x * UNIT_TILE + unit;
    let jc = min(j, H - 1u);
    let first_row = group.y * BATCH_TILE;
    let reverse = is_reverse(p.flags, d);
    let s = p.first_step;
    let t = time_of(s, p.timesteps, reverse);
    let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
    let place = select(t, s, (p.flags & READING_ORDER) != 0u);
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let h$b = (d * p.batch + row$b) * K4;
#unroll g SUMMED
    var a$g_$b = 0.0;
#end
#end
    for (var k = slice * K_SLICE; k < (slice + 1u) * K_SLICE; k += K_UNROLL) {
#unroll q K_UNROLL
        {
            let w = (d * K4 + k + $qu) * (GATES * H) + jc;
#unroll g SUMMED
            let w$g = vec4<f32>(weights[w + (FROM + $gu) * H]);
#end
#unroll b BATCH_TILE
            {
#if SECOND
                let v = handed[h$b + k + $qu];
#else
                let v = h_now[h$b + k + $qu];
#end
#unroll g SUMMED
                a$g_$b += dot(w$g, v);
#end
            }
#end
        }
#end
    }
#unroll b BATCH_TILE
    {
        let at = (slice * BATCH_TILE + $bu) * (SUMMED * UNIT_TILE) + unit;
#unroll g SUMMED
        sums[at + $gu * UNIT_TILE] = a$g_$b;
#end
    }
#end
    workgroupBarrier();

    for (var b = slice; b < BATCH_TILE; b += K_SPLIT) {
        let row = first_row + b;
        if row < p.batch && j < H {
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * (GATES * H) + j;
            var pre = vec4<f32>();
#unroll g INPUTS
            pre[$g] = projection[x + $gu * H];
#end
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + b) * (SUMMED * UNIT_TILE) + unit;
#unroll g SUMMED
                pre[$g] += sums[at + $gu * UNIT_TILE];
#end
            }
#end
            let state = d * p.batch + row;
            let at = state * K4;
            let h_old = h_now[at + j / 4u][j % 4u];
#if FIRST
            let parts = exchanged(pre, h_old);
            handed[4u * at + j] = parts.x;
            kept[state * H + j] = parts.y;
#else
            var old = vec4<f32>(h_old, 0.0, 0.0, 0.0);
#unroll c CARRIED
            old[$c + 1] = c_state[(state * CARRIED + $cu) * H + j];
#end
            var rest = 0.0;
#if APART
            rest = projection[x + ADDED * H];
#end
#if SECOND
            rest += pre.x;
            pre.x = kept[state * H + j];
#end
            let alive = is_alive(row, t, p.timesteps);
            let next = cell(pre, rest, old, extra_of(d * (EXTRA_PARTS * H) + j));
            var h = next.x;
            if HAS_ZONEOUT { h = mix(h, h_old, ZONEOUT_H); }
            if alive {
#unroll c CARRIED
                c_state[(state * CARRIED + $cu) * H + j] = next[$c + 1];
#end
            } else {
                h = h_old;
            }
            h_next[4u * at + j] = h;
            if (p.flags & WRITES_Y) != 0u {
                y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
            }
#end
        }
    }
}
