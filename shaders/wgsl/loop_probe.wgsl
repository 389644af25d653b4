// How many loop iterations an invocation really executes. Some software rasterisers leave a loop
// silently after a fixed number of iterations.
struct Params {
    iterations: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(1)
fn main() {
    var done = 0u;
    var state = 1u;
    for (var i = 0u; i < p.iterations; i++) {
        // Data dependent, so that the loop cannot be replaced by its result.
        state = state * 1664525u + out[0];
        done++;
    }
    out[1] = done;
    out[2] = state;
}
