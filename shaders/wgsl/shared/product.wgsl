// The parameters of a product A · B. The rows of A may have two strides, so that a range of timesteps of a [B, T, I]
// tensor is read in place.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    // Row r of A starts at a_offset + (r / a_inner) * a_outer_stride + (r % a_inner) * a_inner_stride.
    a_inner: u32,
    a_outer_stride: u32,
    a_inner_stride: u32,
    a_offset: u32,
    b_offset: u32,
    c_offset: u32,
    // Strides between the matrices of a batch (workgroup z).
    a_batch: u32,
    b_batch: u32,
    c_batch: u32,
    bias_offset: u32,
    // Number of columns of C and of a B that is [k, n]; number of columns of a B that is [n, k], of which k may be a
    // part.
    columns: u32,
    depth: u32,
    // 1: add to the contents of C; 2: a part of k that is not the last.
    part: u32,
    alpha: f32,
    beta: f32,
}

// Stores a result of matrix z, or adds it to what earlier parts of the sum gave. The last part adds the bias and
// activates. The kernel declares `p`, `bias` and `c`.
fn store_product(z: u32, row: u32, column: u32, sum: f32) {
    let at = p.c_offset + z * p.c_batch + row * p.columns + column;
    var value = sum;
    if (p.part & 1u) != 0u { value += f32(c[at]); }
    if (p.part & 2u) == 0u {
        if HAS_BIAS { value += f32(bias[p.bias_offset + column]); }
        value = activate(ACTIVATION, p.alpha, p.beta, value);
    }
    c[at] = ELEMENT(value);
}
