// Rows of x, [count, width], added by their ids: row r of the result is the sum of the rows whose id is r, in order. Ids
// are cut into slices, each with a result of its own, [slices, rows, width]. A workgroup has some rows and columns of
// the result of a slice, and looks through all of the slice's ids for those of its rows: a run of them for each lane at
// a time, whose places come into one list, in order. Lanes then go through the list, each for one column and every
// `teams`th row, so that no two add to the same element. The result is added to what stands there.
struct Params {
    count: u32,
    rows: u32,
    width: u32,
    groups_x: u32,
    // Rows and columns of a workgroup, and how many such blocks there are.
    block: u32,
    columns: u32,
    row_blocks: u32,
    column_blocks: u32,
    // Ids of a slice, and of a lane in a step.
    slice: u32,
    run: u32,
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
// Of those that were found the row of x, and that of the result less the workgroup's first.
var<workgroup> sources: array<u32, LIST>;
var<workgroup> goals: array<u32, LIST>;

// The row of an id less the workgroup's first; the rows are those below `block`.
fn row_of(at: u32, low: u32) -> u32 {
    return min(ids[at], p.rows - 1u) - low;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let w = group.y * p.groups_x + group.x;
    let blocks = p.row_blocks * p.column_blocks;
    let slice = w / blocks;
    let low = (w % blocks) / p.column_blocks * p.block;
    let column = (w % p.column_blocks) * p.columns + lane % p.columns;
    let team = lane / p.columns;
    let teams = WORKGROUP / p.columns;
    let adds = team < teams && column < p.width;
    // There may be more workgroups than slices have; they have no ids.
    let begin = slice * p.slice;
    let end = min(begin + p.slice, p.count);
    let origin = (slice * p.rows + low) * p.width + column;
    var current = NONE;
    var sum = 0.0;
    for (var step = p.first; step < p.first + p.steps; step++) {
        let base = begin + (step * WORKGROUP + lane) * p.run;
        var own = 0u;
        for (var i = 0u; i < p.run; i++) {
            if base + i < end {
                if row_of(base + i, low) < p.block { own++; }
            }
        }
        found[lane] = own;
        workgroupBarrier();
        var place = 0u;
        var total = 0u;
#unroll k WORKGROUP
        place += select(0u, found[$k], $ku < lane);
        total += found[$k];
#end
        for (var i = 0u; i < p.run; i++) {
            if base + i < end {
                let row = row_of(base + i, low);
                if row < p.block {
                    sources[place] = base + i;
                    goals[place] = row;
                    place++;
                }
            }
        }
        workgroupBarrier();
        if adds {
            for (var n = 0u; n < total; n++) {
                let goal = goals[n];
                if goal % teams == team {
                    if goal != current {
                        if current != NONE { out[origin + current * p.width] = sum; }
                        current = goal;
                        sum = out[origin + goal * p.width];
                    }
                    sum += x[sources[n] * p.width + column];
                }
            }
        }
        workgroupBarrier();
    }
    if current != NONE { out[origin + current * p.width] = sum; }
}
