// NaN by its bits. WGSL lets a driver assume that no float is NaN, so comparisons, `min`, `max` and `clamp` may turn a
// NaN into a number. Integers are not affected.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// y, or x if that is NaN.
fn unless_nan(x: f32, y: f32) -> f32 {
    return select(y, x, is_nan(x));
}

// Whether a precedes b when looking for the largest element: NaN precedes every number.
fn is_above(a: f32, b: f32) -> bool {
    return !is_nan(b) && (is_nan(a) || a > b);
}

// NaN, whatever x is.
fn nan_of(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | 0x7fc00000u);
}

// Infinity of the sign of x.
fn infinity_of(x: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(x) & 0x80000000u) | 0x7f800000u);
}
