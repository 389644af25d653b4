// Random numbers: Philox4x32-10, a block of four elements a lane. The host computes the same.
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    stream: u32,
    // Draws of 24 bits below it count as dropped, or as one.
    limit: u32,
    // The value of what is not dropped.
    value: f32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> seed: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

// The high and the low half of a product.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return vec2(a1 * b1 + (middle >> 16u) + (other >> 16u), a * b);
}

fn philox(key: vec2<u32>, counter: vec4<u32>) -> vec4<u32> {
    var k = key;
    var c = counter;
#unroll r 10
    {
        let a = wide_product(0xD2511F53u, c.x);
        let b = wide_product(0xCD9E8D57u, c.z);
        c = vec4(b.x ^ c.y ^ k.x, b.y, a.x ^ c.w ^ k.y, a.y);
        k += vec2(0x9E3779B9u, 0xBB67AE85u);
    }
#end
    return c;
}

// Box and Muller; 1 - u is above 0.
fn normal_pair(u: f32, v: f32) -> vec2<f32> {
    let radius = sqrt(-2.0 * log(1.0 - u));
    let angle = 6.2831853 * v;
    return radius * vec2(cos(angle), sin(angle));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = element_index(group, lane, p.groups_x);
    if block * 4u >= p.count { return; }
    let bits = philox(vec2(seed[0], seed[1]), vec4(block, 0u, p.stream, 0u)) >> vec4(8u);
    let unit = vec4<f32>(bits) * 5.9604645e-8;
    var drawn = unit;
    if KIND == 0u {
        drawn = select(vec4(p.value), vec4(0.0), bits < vec4(p.limit));
    } else if KIND == 1u {
        drawn = select(vec4(0.0), vec4(1.0), bits < vec4(p.limit));
    } else if KIND == 3u {
        drawn = vec4(normal_pair(unit.x, unit.y), normal_pair(unit.z, unit.w));
    }
    let first = block * 4u;
#unroll e 4
    if first + $e < p.count { out[first + $e] = drawn[$e]; }
#end
}
