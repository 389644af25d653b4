// A whole sequence in one dispatch, by workgroups that run at the same time. Each computes a tile of hidden units with
// its weights, and passes h to the others through memory after every timestep. A lane that waits too long sets a flag,
// and all workgroups stop; the host then computes the call by `step`. The cell's snippet computes the states from the
// sums. Cells with an exchange in the middle of a timestep cannot run here.
#import exchange
#import CELL

@group(0) @binding(0) var<uniform> p: Params;
// [D, chunk, B, G·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [D, K4, G, H] vectors of four adjacent k
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// [D, EXTRA_PARTS, H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// GRID_HEAD elements, then h before the first step and after each: [chunk + 1, D, B, H]
@group(0) @binding(5) var<storage, read_write> exchange: array<atomic<u32>>;
// [D, B, CARRIED, H]
@group(0) @binding(6) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

// [BATCH_TILE, 4·K4]
var<workgroup> h_tile: array<f32, H_TILE>;
var<workgroup> sums: array<f32, SUMS>;
var<workgroup> missing: u32;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let d = group.z;
    let unit = lane % UNIT_TILE;
    let slice = lane / UNIT_TILE;
    let j = group.x * UNIT_TILE + unit;
    let jc = min(j, H - 1u);
    let begin = slice * K_SLICE;
    let first_row = group.y * BATCH_TILE;
    let reverse = is_reverse(p.flags, d);
    // After the sums are complete, slice b computes the states of row b.
    let row = min(first_row + slice, p.batch - 1u);
    let finishes = slice < BATCH_TILE && first_row + slice < p.batch && j < H;
    let state = d * p.batch + row;
    var done = 0u;
    // Number of unsuccessful loads so far.
    var spins = 0u;
    // If an earlier dispatch or a workgroup of this one gave up, there is nothing to do.
    if lane == 0u { missing = u32(atomicLoad(&exchange[0]) == GAVE_UP); }
    workgroupBarrier();
    if workgroupUniformLoad(&missing) != 0u { return; }
    for (var v = lane; v < H_TILE; v += WORKGROUP) {
        h_tile[v] = 0.0;
    }
#unroll c CARRIED
    var c$c = c_state[(state * CARRIED + $cu) * H + jc];
#end
#if REGISTERS
#unroll q K_SLICE
    let at$q = (d * K4 + begin + $qu) * (GATES * H) + jc;
#unroll g GATES
    let r$g_$q = weights[at$q + $gu * H];
#end
#end
#end
    for (var s = p.first_step; s < p.first_step + p.steps; s++) {
        let t = time_of(s, p.timesteps, reverse);
        let slot = slot_of(s, p.chunk_first, p.chunk_steps, reverse);
        let place = select(t, s, (p.flags & READING_ORDER) != 0u);
        // Wait, for a limited time, for the h of all units of this tile's rows, and copy it to workgroup memory.
        //
        // Every element of h is its own flag: it has the value NOT_YET until the workgroup that computes the unit
        // stores it. WGSL orders the loads and stores of a single atomic, so no fence is needed.
        let i = s - p.chunk_first;
        if lane == 0u { missing = 0u; }
        workgroupBarrier();
        for (var v = lane; v < BATCH_TILE * H; v += WORKGROUP) {
            let b = v / H;
            let k = v % H;
            let at = GRID_HEAD + ((i * p.directions + d) * p.batch + min(first_row + b, p.batch - 1u)) * H + k;
            var bits = atomicLoad(&exchange[at]);
            // The limit applies to all of a lane's waiting in the dispatch.
            for (; bits == NOT_YET && spins < p.patience; spins++) {
                // Stop waiting if another lane has given up.
                if spins % 64u == 15u && atomicLoad(&exchange[0]) == GAVE_UP { break; }
                bits = atomicLoad(&exchange[at]);
            }
            // Test the bits and not the counter, because a software rasteriser may end the loop early.
            if bits == NOT_YET {
                missing = 1u;
                // Stored at once, so that all other lanes stop too.
                atomicStore(&exchange[0], GAVE_UP);
            }
            h_tile[b * (4u * K4) + k] = bitcast<f32>(bits);
        }
        workgroupBarrier();
        if workgroupUniformLoad(&missing) != 0u { break; }
#unroll b BATCH_TILE
#unroll g GATES
        var a$g_$b = 0.0;
#end
#end
#if REGISTERS
#unroll q K_SLICE
        {
#unroll g GATES
            let w$g = vec4<f32>(r$g_$q);
#end
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * (begin + $qu);
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
#unroll g GATES
                a$g_$b += dot(w$g, h);
#end
            }
#end
        }
#end
#else
        for (var k = begin; k < begin + K_SLICE; k++) {
            let w = (d * K4 + k) * (GATES * H) + jc;
#unroll g GATES
            let w$g = vec4<f32>(weights[w + $gu * H]);
#end
#unroll b BATCH_TILE
            {
                let at = $bu * (4u * K4) + 4u * k;
                let h = vec4<f32>(h_tile[at], h_tile[at + 1u], h_tile[at + 2u], h_tile[at + 3u]);
#unroll g GATES
                a$g_$b += dot(w$g, h);
#end
            }
#end
        }
#end
#unroll b BATCH_TILE
        {
            let at = (slice * BATCH_TILE + $bu) * (GATES * UNIT_TILE) + unit;
#unroll g GATES
            sums[at + $gu * UNIT_TILE] = a$g_$b;
#end
        }
#end
        workgroupBarrier();
        if finishes {
            let x = ((d * p.chunk_steps + slot) * p.batch + row) * (GATES * H) + j;
            var pre = vec4<f32>();
#unroll g ADDED
            pre[$g] = projection[x + $gu * H];
#end
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + slice) * (GATES * UNIT_TILE) + unit;
#unroll g GATES
                pre[$g] += sums[at + $gu * UNIT_TILE];
#end
            }
#end
            var rest = 0.0;
#if APART
            rest = projection[x + ADDED * H];
#end
            let alive = is_alive(row, t, p.timesteps);
            let h_old = h_tile[slice * (4u * K4) + j];
            var old = vec4<f32>(h_old, 0.0, 0.0, 0.0);
#unroll c CARRIED
            old[$c + 1] = c$c;
#end
            let next = cell(pre, rest, old, extra_of(d * (EXTRA_PARTS * H) + j));
            var h = next.x;
            if HAS_ZONEOUT { h = mix(h, h_old, ZONEOUT_H); }
            if alive {
#unroll c CARRIED
                c$c = next[$c + 1];
#end
            } else {
                h = h_old;
            }
            let bits = sent(h);
            atomicStore(&exchange[GRID_HEAD + (((i + 1u) * p.directions + d) * p.batch + row) * H + j], bits);
            if (p.flags & WRITES_Y) != 0u {
                y[row * p.y_batch + place * p.y_time + d * H + j] = shown(h, alive, p.flags);
            }
        }
        done++;
    }
    // A lane that gave up, or whose loop a software rasteriser ended, sets the flag.
    if done != p.steps { atomicStore(&exchange[0], GAVE_UP); }
#unroll c CARRIED
    if finishes { c_state[(state * CARRIED + $cu) * H + j] = c$c; }
#end
}
