// The sum over the K_SPLIT adjacent lanes of a unit; every lane gets it.
#if SUBGROUPS
#subgroups
fn joined(x: f32) -> f32 {
    var sum = x + subgroupShuffleXor(x, 1u);
    if K_SPLIT > 2u { sum += subgroupShuffleXor(sum, 2u); }
    if K_SPLIT > 4u { sum += subgroupShuffleXor(sum, 4u); }
    return sum;
}
#end
