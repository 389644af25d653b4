// Shared by the kernels of training: positions, and what a call has drawn. Requires the binding `extra`: what the cell
// has besides its matrices, [D, EXTRA]; then, from the places that the parameters give, shares of the old h [D, T, B,
// W] and of the old c [D, T, B, H] in the new ones, and factors on h [D, DROPOUT, B, W].
//
// KIND 0 is SimpleRNN, 1 LSTM, 2 GRU with the reset gate after the product, 3 before it, 4 IndRNN, 5 minGRU, 6 minLSTM,
// 7 sLSTM. PHASE 0 computes a whole timestep. If there is a product within it, PHASE 1 is what comes before the product
// and PHASE 2 what comes after it. SUMS: sums of gates are kept instead of their values.

// The positions of a batch row of a direction at one timestep.
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

fn place_of(d: u32, row: u32) -> Place {
    let reverse = is_reverse(p.flags, d);
    let s = p.first_step;
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

// The factor on element j of the h that the product of gate g reads.
fn factor(at: Place, g: u32, j: u32) -> f32 {
    if DROPOUT == 0u { return 1.0; }
    let which = select(g, 0u, DROPOUT == 1u);
    return extra[p.dropout + ((at.d * DROPOUT + which) * p.batch + at.row) * W + j];
}

// The share of the old h in the new one; that of c.
fn share_h(at: Place, j: u32) -> f32 {
    if DRAWN_H { return extra[p.zoneout_h + ((at.d * p.timesteps + at.t) * p.batch + at.row) * W + j]; }
    return ZONEOUT_H;
}

fn share_c(at: Place, j: u32) -> f32 {
    if DRAWN_C { return extra[p.zoneout_c + ((at.d * p.timesteps + at.t) * p.batch + at.row) * H + j]; }
    return ZONEOUT_C;
}

// A part of what the cell has of a unit besides its matrices.
fn own(at: Place, part: u32, j: u32) -> f32 {
    return extra[at.d * EXTRA + part * H + j];
}
