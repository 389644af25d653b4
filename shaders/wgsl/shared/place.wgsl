// Positions of a batch row of a direction at step s.
struct Place {
    d: u32,
    row: u32,
    t: u32,
    alive: bool,
    // The row's first element in `gates`.
    gates: u32,
    // In states of h and c before and after the timestep, which are in order of time.
    h_old: u32,
    h_new: u32,
    c_old: u32,
    c_new: u32,
    // In the outputs.
    y: u32,
}

fn place_of(d: u32, row: u32, s: u32) -> Place {
    let reverse = is_reverse(p.flags, d);
    let t = time_of(s, p.timesteps, reverse);
    let old = (d * (p.timesteps + 1u) + select(t, t + 1u, reverse)) * p.batch + row;
    let next = (d * (p.timesteps + 1u) + select(t + 1u, t, reverse)) * p.batch + row;
    let shown_at = select(t, s, (p.flags & READING_ORDER) != 0u);
    return Place(
        d,
        row,
        t,
        is_alive(row, t, p.timesteps),
        ((d * p.timesteps + t) * p.batch + row) * (KEPT * H),
        old * W,
        next * W,
        old * (CARRIED * H),
        next * (CARRIED * H),
        row * p.y_batch + shown_at * p.y_time + d * W,
    );
}
