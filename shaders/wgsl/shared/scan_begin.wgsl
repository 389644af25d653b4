// The beginning of a `*_scan` kernel, inside `main`: its rows and units, h into workgroup memory, and
// for a software rasteriser the weights into the lane's own array.
    let d = group.y;
    let reverse = is_reverse(p.flags, d);
    let from_zero = (p.flags & 16u) != 0u && p.first_step == 0u;
    let first_row = group.x * BATCH_TILE;
#unroll b BATCH_TILE
    let row$b = min(first_row + $bu, p.batch - 1u);
    let real$b = first_row + $bu < p.batch;
#end

    for (var v = lane; v < H_TILE; v += WORKGROUP) {
        h_tile[v] = vec4<f32>();
    }
    workgroupBarrier();
#unroll u UNITS
    let j$u = lane + $uu * WORKGROUP;
    if j$u < H && !from_zero {
#unroll b BATCH_TILE
        h_tile[$bu * K4 + j$u / 4u][j$u % 4u] = h_state[(d * p.batch + row$b) * H + j$u];
#end
    }
#end
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
    var read = 0u;
