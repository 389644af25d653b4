//! `sum_rows.wgsl`

use super::parts;
use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Error, Reduction, Result, Tensor};
use recurve_shaders::{Variant, params};

/// Workgroups that keep a device busy. Each looks through all ids of its slice, which costs a software rasteriser more
/// than it gains.
const GROUPS: usize = 512;
const SOFTWARE_GROUPS: usize = 8;

/// Most slices of the ids.
const SLICES: usize = 64;

impl Gpu {
    /// Adds rows `[count, width]` by their ids.
    pub(crate) fn sum_rows(&self, x: &Tensor, ids: &Tensor, rows: usize) -> Result<Tensor> {
        let operation = "sum_rows";
        let (lanes, most_ids) = (Variant::SUM_ROWS_LANES as usize, Variant::SUM_ROWS_LIST as usize);
        let (count, width) = (ids.shape().count(), x.shape().last());
        // A lane goes through its ids twice, and through all that were found.
        let most = self.max_loop_iterations();
        let a_step = |run: usize| (1 + (2 + lanes) * run) as u32;
        let run = (1..=most_ids / lanes).rev().find(|&run| a_step(run) <= most);
        let run = run.ok_or_else(|| Error::Unsupported {
            operation,
            feature: "loops of so many iterations",
            device: self.summary().name.clone(),
        })?;
        // The results of all slices are not larger than what is added.
        let slice = count.div_ceil((count / rows.max(1024)).clamp(1, SLICES));
        let slices = count.div_ceil(slice);
        let column_blocks = width.div_ceil(lanes);
        let columns = width.div_ceil(column_blocks);
        let column_blocks = width.div_ceil(columns);
        let software = self.is_software();
        let groups = if software { SOFTWARE_GROUPS } else { GROUPS };
        let block = rows.div_ceil((groups / (slices * column_blocks)).clamp(1, rows));
        let row_blocks = rows.div_ceil(block);
        let all = slices * row_blocks * column_blocks;
        let x_groups = all.min(self.max_workgroups() as usize);
        let groups = [x_groups as u32, all.div_ceil(x_groups) as u32, 1];
        let out = Tensor::full(&[slices, rows, width], 0.0, DType::F32, &x.device())?;
        let pipeline = self.pipeline(&Variant::sum_rows())?;
        for (first, steps) in parts(slice.div_ceil(lanes * run) as u32, most / a_step(run)) {
            let p = params::SumRows {
                count: count as u32,
                rows: rows as u32,
                width: width as u32,
                groups_x: groups[0],
                block: block as u32,
                columns: columns as u32,
                row_blocks: row_blocks as u32,
                column_blocks: column_blocks as u32,
                slice: slice as u32,
                run: run as u32,
                first,
                steps,
            };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[ids.gpu_buffer(), x.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: (all * lanes) as u64 * u64::from(steps) * run as u64,
            })?;
        }
        if slices == 1 {
            return out.reshape(&[rows, width]);
        }
        out.reshape(&[slices, rows * width])?.reduce(Reduction::Sum, 0)?.reshape(&[rows, width])
    }
}
