// Measures how fast an adapter can multiply and add, or read memory, for a roofline. Without READ, each lane runs
// `iterations` times eight vec4 multiply-adds, each depending only on its own previous result. With READ, it sums the
// vec4s of a buffer repeatedly.
struct Params {
    iterations: u32,
    // Number of vec4s of the source.
    count: u32,
    // Number of lanes of the dispatch.
    lanes: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
// [lanes]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.x;
#if READ
    var sum = vec4<f32>();
    var at = lane % p.count;
    for (var i = 0u; i < p.iterations; i++) {
        sum += source[at];
        at = (at + p.lanes) % p.count;
    }
    out[lane] = dot(sum, vec4<f32>(1.0));
#else
    let x = vec4<f32>(p.factor);
#unroll n 8
    var a$n = source[0];
#end
    for (var i = 0u; i < p.iterations; i++) {
#unroll n 8
        a$n = fma(a$n, x, source[0]);
#end
    }
#unroll n 7
    a7 += a$n;
#end
    out[lane] = dot(a7, vec4<f32>(1.0));
#end
}
