// One wave through stacked layers: layer l computes timestep s - l, for all layers at once, because each only needs the
// h that the wave before computed for the layer below. One workgroup per tile of hidden units, tile of batch rows and
// layer. The first layer's input product is in `projection`; the other layers compute theirs here together with the
// recurrent product. Each lane sums a slice of k; the slices are added in workgroup memory.
#import recurrent
#import CELL

@group(0) @binding(0) var<uniform> p: Params;
// The projection of the first layer, [chunk, B, G·H]
@group(0) @binding(1) var<storage, read> projection: array<f32>;
// [L, 2, K4, G, H] vectors of four adjacent k: the input weights (zeros for the first layer), then the recurrent
// weights
@group(0) @binding(2) var<storage, read> weights: array<vec4<WEIGHT>>;
// [L, G + 3, H]: the biases of the input product (not used for the first layer), then the cell's own weights, up to [3,
// H]
@group(0) @binding(3) var<storage, read> extra: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(4) var<storage, read> valid: array<u32>;
// The current h, [L, B, K4] vectors of four adjacent units, and the next, [L, B, 4·K4] floats
@group(0) @binding(5) var<storage, read> h_now: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> h_next: array<f32>;
// [L, B, CARRIED, H]
@group(0) @binding(7) var<storage, read_write> c_state: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

// [K_SPLIT, BATCH_TILE, SUM_PARTS, UNIT_TILE]: one sum per gate, and the input of the last gate if it is separate
var<workgroup> sums: array<f32, SUMS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let layer = group.z;
    let unit = lane % UNIT_TILE;
    let slice = lane / UNIT_TILE;
    let j = group.x * UNIT_TILE + unit;
    let jc = min(j, H - 1u);
    let first_row = group.y * BATCH_TILE;
    // Before a layer's first and after its last timestep its state does not change.
    let running = p.first_step >= layer && p.first_step - layer < p.timesteps;
    let t = select(0u, p.first_step - layer, running);
    let slot = select(0u, p.first_step - p.chunk_first, running && layer == 0u);
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let h$b = (layer * p.batch + row$b) * K4;
#unroll g GATES
    var a$g_$b = 0.0;
#end
#if APART
    var x_$b = 0.0;
#end
#end
    if layer > 0u {
        for (var k = slice * K_SLICE; k < (slice + 1u) * K_SLICE; k++) {
            let w = (layer * 2u * K4 + k) * (GATES * H) + jc;
#unroll g ADDED
            let w$g = vec4<f32>(weights[w + $gu * H]);
#end
#if APART
            let last = vec4<f32>(weights[w + ADDED * H]);
#end
#unroll b BATCH_TILE
            {
                let v = h_now[h$b - p.batch * K4 + k];
#unroll g ADDED
                a$g_$b += dot(w$g, v);
#end
#if APART
                x_$b += dot(last, v);
#end
            }
#end
        }
    }
    for (var k = slice * K_SLICE; k < (slice + 1u) * K_SLICE; k++) {
        let w = ((layer * 2u + 1u) * K4 + k) * (GATES * H) + jc;
#unroll g GATES
        let w$g = vec4<f32>(weights[w + $gu * H]);
#end
#unroll b BATCH_TILE
        {
            let v = h_now[h$b + k];
#unroll g GATES
            a$g_$b += dot(w$g, v);
#end
        }
#end
    }
#unroll b BATCH_TILE
    {
        let at = (slice * BATCH_TILE + $bu) * (SUM_PARTS * UNIT_TILE) + unit;
#unroll g GATES
        sums[at + $gu * UNIT_TILE] = a$g_$b;
#end
#if APART
        sums[at + GATES * UNIT_TILE] = x_$b;
#end
    }
#end
    workgroupBarrier();

    for (var b = slice; b < BATCH_TILE; b += K_SPLIT) {
        let row = first_row + b;
        if row < p.batch && j < H {
            var pre = vec4<f32>();
#unroll q K_SPLIT
            {
                let at = ($qu * BATCH_TILE + b) * (SUM_PARTS * UNIT_TILE) + unit;
#unroll g SUM_PARTS
                pre[$g] += sums[at + $gu * UNIT_TILE];
#end
            }
#end
            let e = layer * ((GATES + 3u) * H) + j;
            var input = vec4<f32>();
            if layer == 0u {
                let x = (slot * p.batch + row) * (GATES * H) + j;
#unroll g GATES
                input[$g] = projection[x + $gu * H];
#end
            } else {
#unroll g GATES
                input[$g] = extra[e + $gu * H];
#end
            }
            let alive = running && is_alive(row, t, p.timesteps);
            let at = (layer * p.batch + row) * K4;
            let h_old = h_now[at + j / 4u][j % 4u];
            var rest = 0.0;
#if APART
            rest = input[ADDED] + pre[GATES];
#end
#unroll g ADDED
            pre[$g] += input[$g];
#end
            let state = layer * p.batch + row;
            var old = vec4<f32>(h_old, 0.0, 0.0, 0.0);
#unroll c CARRIED
            old[$c + 1] = c_state[(state * CARRIED + $cu) * H + j];
#end
            let next = cell(pre, rest, old, extra_of(e + GATES * H));
            var h = next.x;
#unroll c CARRIED
            if alive { c_state[(state * CARRIED + $cu) * H + j] = next[$c + 1]; }
#end
            if HAS_ZONEOUT { h = mix(h, h_old, ZONEOUT_H); }
            if !alive { h = h_old; }
            h_next[4u * at + j] = h;
            if running && layer == p.directions - 1u && (p.flags & WRITES_Y) != 0u {
                y[row * p.y_batch + t * p.y_time + j] = shown(h, alive, p.flags);
            }
        }
    }
}
