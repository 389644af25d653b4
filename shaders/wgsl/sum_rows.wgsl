// Rows of x, [count, width], added by their ids: row r of the result is the sum of the rows whose id is r, always in the same order. Ids
// are cut into slices, each with a result of its own, [slices, rows, width]. A workgroup has every row_blocks-th row of
// the result of a slice, and some columns. It looks through all of the slice's ids for those of its rows: a run of them
// for each lane at a time, whose places come into one list, in order. Lanes then go through the list, each for one
// column and every `teams`th of the workgroup's rows, so that no two add to the same element. With MERGED the sums are in
// workgroup memory meanwhile, and rows whose id is NONE are left out (`sum_runs`). The result is added to what stands
// there.
struct Params {
    count: u32,
    rows: u32,
    width: u32,
    groups_x: u32,
    // Columns of a workgroup, and how many such blocks there are.
    columns: u32,
    column_blocks: u32,
    // The blocks of rows, a power of two, and its logarithm.
    row_blocks: u32,
    shift: u32,
    // Ids of a slice.
    slice: u32,
    unused: u32,
    // The steps through a slice that are made now.
    first: u32,
    steps: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

const NONE: u32 = 0xffffffffu;

// How many of its ids each lane has found.
var<workgroup> found: array<u32, WORKGROUP>;
// Of those that were found the row of x, and which of the workgroup's rows its id is.
var<workgroup> sources: array<u32, RUN * WORKGROUP>;
var<workgroup> goals: array<u32, RUN * WORKGROUP>;
#if MERGED
var<workgroup> sums: array<f32, SUMS>;
#end

// Which row of a block an id is; NONE if it belongs to another, or to none.
fn row_of(at: u32, end: u32, block: u32) -> u32 {
    let own = ids[min(at, p.count - 1u)];
    let id = min(own, p.rows - 1u);
    var belongs = at < end && (id & (p.row_blocks - 1u)) == block;
#if MERGED
    belongs = belongs && own != NONE;
#end
    return select(NONE, id >> p.shift, belongs);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let w = group.y * p.groups_x + group.x;
    let blocks = p.row_blocks * p.column_blocks;
    let slice = w / blocks;
    let block = (w % blocks) / p.column_blocks;
    let own_column = lane % p.columns;
    let column = (w % p.column_blocks) * p.columns + own_column;
    let team = lane / p.columns;
    let teams = WORKGROUP / p.columns;
    let adds = team < teams && column < p.width;
    // There may be more workgroups than slices have; they have no ids.
    let begin = slice * p.slice;
    let end = min(begin + p.slice, p.count);
    // Where the workgroup's first row stands, and how far the next one is.
    let origin = (slice * p.rows + block) * p.width + column;
    let next = p.row_blocks * p.width;
#if MERGED
    // The workgroup's rows.
    let height = (p.rows - min(block, p.rows) + p.row_blocks - 1u) >> p.shift;
    if adds && begin < p.count {
        for (var row = team; row < height; row += teams) {
            sums[row * p.columns + own_column] = out[origin + row * next];
        }
    }
#end
    var current = NONE;
    var sum = 0.0;
    for (var step = p.first; step < p.first + p.steps; step++) {
        let base = begin + (step * WORKGROUP + lane) * RUN;
        var own = 0u;
#unroll i RUN
        let row$i = row_of(base + $iu, end, block);
        if row$i != NONE { own++; }
#end
        found[lane] = own;
        workgroupBarrier();
        var place = 0u;
        var total = 0u;
#unroll k WORKGROUP
        place += select(0u, found[$k], $ku < lane);
        total += found[$k];
#end
#unroll i RUN
        if row$i != NONE {
            sources[place] = base + $iu;
            goals[place] = row$i;
            place++;
        }
#end
        workgroupBarrier();
        if adds {
            // AHEAD elements are loaded before the first is added, so that their loads overlap.
            for (var n = 0u; n < total; n += AHEAD) {
#unroll k AHEAD
                let goal$k = select(NONE, goals[n + $ku], n + $ku < total);
                let own$k = goal$k != NONE && goal$k % teams == team;
                let v$k = x[select(0u, sources[n + $ku], own$k) * p.width + column];
#end
#unroll k AHEAD
                if own$k {
                    if goal$k != current {
#if MERGED
                        if current != NONE { sums[current * p.columns + own_column] = sum; }
                        sum = sums[goal$k * p.columns + own_column];
#else
                        if current != NONE { out[origin + current * next] = sum; }
                        sum = out[origin + goal$k * next];
#end
                        current = goal$k;
                    }
                    sum += v$k;
                }
#end
            }
        }
        workgroupBarrier();
    }
#if MERGED
    if current != NONE { sums[current * p.columns + own_column] = sum; }
    if adds && begin < p.count {
        for (var row = team; row < height; row += teams) {
            out[origin + row * next] = sums[row * p.columns + own_column];
        }
    }
#else
    if current != NONE { out[origin + current * next] = sum; }
#end
}
