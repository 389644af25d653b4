// How fast an adapter multiplies and adds, or reads: what a roofline is made of. Without READ each lane
// runs ITERATIONS of eight multiply-adds of vec4s that depend on themselves only; with READ it sums
// vec4s of a buffer over and over.
struct Params {
    iterations: u32,
    // vec4s of the source.
    count: u32,
    // Lanes of the dispatch.
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
