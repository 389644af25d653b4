// The beginning of `scan`, inside `main`: determines its rows and units and its slice of k, loads h to workgroup
// memory, and on a software rasteriser loads the weights to the lane's own array.
//
// With SPLIT, several lanes share the sum over k of a unit, in K_SPLIT slices. They are adjacent lanes if a subgroup
// adds their sums (SUBGROUPS), else UNIT_LANES apart. Afterwards every lane of a unit computes the same states.
    let d = group.y;
    let reverse = is_reverse(p.flags, d);
    let from_zero = (p.flags & ZERO_H) != 0u && p.first_step == 0u;
    let first_row = group.x * BATCH_TILE;
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let real$b = first_row + $bu < p.batch;
#end

    for (var v = lane; v < H_FLOATS; v += WORKGROUP) {
        h_floats[v] = 0.0;
    }
    workgroupBarrier();
#if SPLIT
#if SUBGROUPS
    let unit = lane / K_SPLIT;
    let slice = lane % K_SPLIT;
#else
    let unit = lane % UNIT_LANES;
    let slice = lane / UNIT_LANES;
#end
    let begin = slice * K_SLICE;
#else
    let unit = lane;
    const slice = 0u;
    const begin = 0u;
#end
#unroll u UNITS
    let j$u = unit + $uu * UNIT_LANES;
    // Lanes without a unit repeat the last unit, because all lanes must reach the barriers; they write nothing.
    let jc$u = min(j$u, H - 1u);
    let own$u = j$u < H && slice == 0u;
#unroll b BATCH_TILE
    var h$u_$b = 0.0;
    if !from_zero {
        h$u_$b = h_state[(d * p.batch + row$b) * H + jc$u];
        if own$u { h_floats[$bu * H_ROW + j$u] = h$u_$b; }
    }
#end
#end
    workgroupBarrier();
    pack(lane);
    workgroupBarrier();

#if RESIDENT
#unroll u UNITS
    for (var k = 0u; k < K4; k++) {
        let w = (d * K4 + k) * (GATES * H) + min(j$u, H - 1u);
#unroll g GATES
        own[($uu * K4 + k) * GATES + $gu] = vec4<f32>(weights[w + $gu * H]);
#end
    }
#end
#end
