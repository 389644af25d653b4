// Finds out whether adjacent invocations of a workgroup are adjacent in their subgroup, in groups of eight. Sums over
// adjacent lanes by shuffles require this, and WGSL does not guarantee it.
#subgroups
struct Params {
    seed: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// For each lane, the seed plus the sum of the numbers of its group of eight.
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = lane + subgroupShuffleXor(lane, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    sum += subgroupShuffleXor(sum, 4u);
    out[lane] = p.seed + sum;
}
