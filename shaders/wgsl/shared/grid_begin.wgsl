// The beginning of a `*_grid` kernel, inside `main`: which unit, slice of k and row are this lane's.
    let d = group.z;
    let unit = lane % UNIT_TILE;
    let slice = lane / UNIT_TILE;
    let j = group.x * UNIT_TILE + unit;
    let jc = min(j, H - 1u);
    let begin = slice * K_SLICE;
    let first_row = group.y * BATCH_TILE;
    let reverse = is_reverse(p.flags, d);
    // After the sums, slice b is row b's.
    let row = min(first_row + slice, p.batch - 1u);
    let finishes = slice < BATCH_TILE && first_row + slice < p.batch && j < H;
    let state_at = (d * p.batch + row) * H + jc;
    var done = 0u;
    // Loads in vain so far.
    var spins = 0u;
    // An earlier dispatch gave up, or a workgroup of this one: nothing is left to do.
    if lane == 0u { missing = u32(atomicLoad(&exchange[0]) == GAVE_UP); }
    workgroupBarrier();
    if workgroupUniformLoad(&missing) != 0u { return; }
