// The sum of a value over the workgroup; its number of lanes must be a power of two. Requires the workgroup array
// `partial` with one element per lane.
fn total(lane: u32, value: f32) -> f32 {
    partial[lane] = value;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset { partial[lane] += partial[lane + offset]; }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}
