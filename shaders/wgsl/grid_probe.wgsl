// Finds out whether workgroups of one dispatch run at the same time: in every round each passes a number to all others,
// as the `*_grid` kernels pass h.
struct Params {
    groups: u32,
    rounds: u32,
    spin_limit: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// The number of workgroups that gave up, then [rounds + 1, groups]; elements after the first round are zero until
// written.
@group(0) @binding(1) var<storage, read_write> exchange: array<atomic<u32>>;

var<workgroup> missing: u32;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var done = 0u;
    for (var r = 0u; r < p.rounds; r++) {
        if lane == 0u { missing = 0u; }
        workgroupBarrier();
        for (var g = lane; g < p.groups; g += 64u) {
            let at = 1u + r * p.groups + g;
            var seen = atomicLoad(&exchange[at]);
            for (var spin = 0u; seen == 0u && r > 0u && spin < p.spin_limit; spin++) {
                if spin % 64u == 15u && atomicLoad(&exchange[0]) != 0u { break; }
                seen = atomicLoad(&exchange[at]);
            }
            if seen == 0u && r > 0u {
                missing = 1u;
                // Stored at once, so that all other workgroups stop too.
                atomicStore(&exchange[0], 1u);
            }
        }
        workgroupBarrier();
        if workgroupUniformLoad(&missing) != 0u { break; }
        if lane == 0u { atomicStore(&exchange[1u + (r + 1u) * p.groups + group.x], r + 1u); }
        done++;
    }
    if lane == 0u && done != p.rounds { atomicAdd(&exchange[0], 1u); }
}
