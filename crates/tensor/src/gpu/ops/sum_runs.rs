//! `sum_runs.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

/// More than the iterations of all loops of a lane.
const ITERATIONS: u32 = 256;

impl Gpu {
    /// Whether rows that are added to so many can be merged.
    pub(super) fn can_sum_runs(&self, x: &Tensor, rows: usize) -> bool {
        let chunk = Variant::SUM_RUNS_CHUNK;
        let merged = 4 * (x.shape().count() + chunk as usize * x.shape().last()) as u64;
        rows <= (u32::MAX / chunk) as usize
            && merged <= self.max_buffer_bytes()
            && self.max_loop_iterations() >= ITERATIONS
    }

    /// For rows `[count, width]` the ids and the rows of which `sum_rows.wgsl` makes the same sums; `columns` are those
    /// of a workgroup.
    pub(super) fn sum_runs(&self, x: &Tensor, ids: &Tensor, rows: usize, columns: usize) -> Result<[Tensor; 2]> {
        let (count, width, chunk) = (ids.shape().count(), x.shape().last(), Variant::SUM_RUNS_CHUNK as usize);
        let (chunks, column_blocks) = (count.div_ceil(chunk), width.div_ceil(columns));
        let all = chunks * column_blocks;
        let (groups, groups_x) = self.groups(all as u64);
        const NAME: &str = "sum_rows";
        let new = |dims: &[usize], dtype| Tensor::gpu_uninit(self, Shape::checked(NAME, dims)?, dtype, NAME);
        let merged_ids = new(&[chunks * chunk], DType::U32)?;
        let merged = new(&[chunks * chunk, width], DType::F32)?;
        let p = params::SumRuns {
            count: count as u32,
            rows: rows as u32,
            width: width as u32,
            groups_x,
            columns: columns as u32,
            column_blocks: column_blocks as u32,
            chunks: chunks as u32,
            unused: 0,
        };
        let pipeline = self.pipeline(&Variant::sum_runs())?;
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[ids.gpu_buffer(), x.gpu_buffer(), merged_ids.gpu_buffer(), merged.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: (all * chunk) as u64 * 64,
        })?;
        Ok([merged_ids, merged])
    }
}
