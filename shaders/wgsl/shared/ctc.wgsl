// What the passes of CTC have in common. A path has a place for each label and for the blanks around them: 2 · labels +
// 1, of which the odd ones are labels. Requires the parameters batch, timesteps, classes, labels and blank, the
// buffers info, x, sums and valid, and the workgroup array `partial` with one element per lane.

// The logarithm of 0. It is finite, so that differences of it are no NaN.
const LOW: f32 = -1.0e30;

fn floored(v: f32) -> f32 {
    return unless_nan(v, max(v, LOW));
}

fn higher(a: f32, b: f32) -> f32 {
    return unless_nan(a, unless_nan(b, max(a, b)));
}

fn info_of(row: u32) -> u32 {
    return row * (2u * p.labels + 1u);
}

// The places of a path; 1 if the labels are not valid.
fn places_of(row: u32) -> u32 {
    let used = info[info_of(row) + p.labels];
    return select(2u * used + 1u, 1u, used > p.labels);
}

fn is_bad(row: u32) -> bool {
    var bad = info[info_of(row) + p.labels] > p.labels;
    if HAS_LENGTHS { bad = bad || valid[row] > p.timesteps; }
    return bad;
}

fn is_valid(row: u32, t: u32) -> bool {
    var alive = true;
    if HAS_LENGTHS { alive = t < valid[row]; }
    if HAS_MASK { alive = valid[row * p.timesteps + t] != 0u; }
    return alive;
}

fn label_at(row: u32, place: u32) -> u32 {
    let label = info[info_of(row) + p.labels + 1u + min(place / 2u, p.labels - 1u)];
    return select(p.blank, min(label, p.classes - 1u), place % 2u == 1u);
}

// The logarithm of the probability of a place's label at a timestep, which is a row of x.
fn emission(at: u32, label: u32) -> f32 {
    var v = x[at * p.classes + label];
    if LOGITS { v -= sums[at]; }
    return floored(v);
}

// The largest of all lanes; NaN if one is.
fn highest_of(lane: u32, v: f32) -> f32 {
    partial[lane] = v;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset { partial[lane] = higher(partial[lane], partial[lane + offset]); }
        workgroupBarrier();
    }
    let highest = partial[0];
    workgroupBarrier();
    return highest;
}
