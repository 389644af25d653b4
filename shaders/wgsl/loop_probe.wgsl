// Counts how many loop iterations an invocation really executes. Some software rasterisers silently leave a loop after
// a fixed number of iterations.
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
        // Depends on data, so that the compiler cannot replace the loop by its result.
        state = state * 1664525u + out[0];
        done++;
    }
    out[1] = done;
    out[2] = state;
}
