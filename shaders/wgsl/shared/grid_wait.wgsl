// Inside the loop of a `*_grid` kernel: waits for the h of every unit of this tile's rows, bounded, and
// brings it into workgroup memory. Leaves the loop if it does not come.
//
// Every element of h is its own flag: a step's h is NOT_YET until the workgroup that owns the unit has
// stored it. Loads and stores of one atomic are ordered whatever else is not, so no fence is needed.
        let i = s - p.chunk_first;
        if lane == 0u { missing = 0u; }
        workgroupBarrier();
        for (var v = lane; v < BATCH_TILE * H; v += WORKGROUP) {
            let b = v / H;
            let k = v % H;
            let at = GRID_HEAD + ((i * p.directions + d) * p.batch + min(first_row + b, p.batch - 1u)) * H + k;
            var bits = atomicLoad(&exchange[at]);
            // One lane's patience is for all it waits for in the dispatch.
            for (; bits == NOT_YET && spins < p.patience; spins++) {
                // Nobody waits on once somebody has given up.
                if spins % 64u == 15u && atomicLoad(&exchange[0]) == GAVE_UP { break; }
                bits = atomicLoad(&exchange[at]);
            }
            // Not the counter: a software rasteriser may leave the loop by itself.
            if bits == NOT_YET {
                missing = 1u;
                // At once, so that all others end too.
                atomicStore(&exchange[0], GAVE_UP);
            }
            h_tile[b * (4u * K4) + k] = bitcast<f32>(bits);
        }
        workgroupBarrier();
        if workgroupUniformLoad(&missing) != 0u { break; }
