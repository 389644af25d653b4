// Shared by the kernels of training: positions, and what a call has drawn. Requires the binding `extra`: what the cell
// has besides its matrices, [D, EXTRA]; then, from the places that the parameters give, shares of the old h [D, T, B,
// W] and of the old c [D, T, B, H] in the new ones, and factors on h [D, DROPOUT, B, W].
//
// KIND 0 is SimpleRNN, 1 LSTM, 2 GRU with the reset gate after the product, 3 before it, 4 IndRNN, 5 minGRU, 6 minLSTM,
// 7 sLSTM. PHASE 0 computes a whole timestep. If there is a product within it, PHASE 1 is what comes before the product
// and PHASE 2 what comes after it. SUMS: sums of gates are kept instead of their values.

#import place

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
