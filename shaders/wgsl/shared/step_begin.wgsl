// The beginning of a `*_step` kernel, inside `main`: which unit, slice of k and rows are this lane's,
// and where the step reads and writes.
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
    let place = select(t, s, (p.flags & 2u) != 0u);
