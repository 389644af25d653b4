// Logarithms whose error is relative, also near 1, where WGSL bounds that of its own absolutely.

// x = m 2^e with m between √½ and √2; 2 artanh(v) = ln m, v = (m - 1) / (m + 1), by its series. x is positive and finite.
fn parts_of_logarithm(x: f32) -> vec2<f32> {
    let small = x < 1.17549435e-38;
    let bits = bitcast<u32>(select(x, x * 8388608.0, small));
    var e = f32(bits >> 23u) - select(127.0, 150.0, small);
    var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    if m > 1.41421356 {
        m *= 0.5;
        e += 1.0;
    }
    let v = (m - 1.0) / (m + 1.0);
    let u = v * v;
    let s = u * (0.333333333 + u * (0.2 + u * (0.142857143 + u * (0.111111111 + u * 0.0909090909))));
    return vec2<f32>(e, 2.0 * v + 2.0 * v * s);
}

fn natural_logarithm(x: f32) -> f32 {
    let p = parts_of_logarithm(x);
    // ln 2 in two parts, of which the product with the first is exact.
    return p.x * 0.693359375 + (p.y - p.x * 2.12194440e-4);
}

fn binary_logarithm(x: f32) -> f32 {
    let p = parts_of_logarithm(x);
    return p.x + p.y * 1.44269504;
}
