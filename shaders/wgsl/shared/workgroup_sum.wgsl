// The sum of a value over the workgroup, whose lanes are a power of two. Requires the workgroup array
// `partial` of as many elements.
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
