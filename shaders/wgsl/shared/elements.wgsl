// The flat element index in a dispatch that is spread over two dimensions.
fn element_index(group: vec3<u32>, lane: u32, groups_x: u32) -> u32 {
    return (group.y * groups_x + group.x) * WORKGROUP + lane;
}
