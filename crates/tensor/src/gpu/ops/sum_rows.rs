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
        let (lanes, list) = (Variant::SUM_ROWS_LANES, Variant::SUM_ROWS_LIST);
        let (count, width) = (ids.shape().count(), x.shape().last());
        // The results of all slices are not larger than what is added.
        let slice = count.div_ceil((count / rows.max(1024)).clamp(1, SLICES));
        let slices = count.div_ceil(slice);
        let column_blocks = width.div_ceil(lanes as usize);
        let columns = width.div_ceil(column_blocks);
        let column_blocks = width.div_ceil(columns);
        let software = self.is_software();
        let busy = (if software { SOFTWARE_GROUPS } else { GROUPS }) / (slices * column_blocks);
        // Of workgroups whose sums fit in their memory there may have to be more.
        let needed = rows.div_ceil(Variant::SUM_ROWS_SUMS as usize / columns);
        let merged = self.can_sum_runs(x, rows) && (needed <= busy || !software);
        // A lane goes through all that were found, and before and after that through the sums of its team.
        let a_step = 1 + list / Variant::SUM_ROWS_AHEAD;
        let sums = (Variant::SUM_ROWS_SUMS as usize / columns).div_ceil(lanes as usize / columns);
        let once = if merged { 2 * (sums as u32 + 1) } else { 0 };
        let most = self.max_loop_iterations().saturating_sub(once);
        if a_step > most {
            return Err(Error::Unsupported {
                operation,
                feature: "loops of so many iterations",
                device: self.summary().name.clone(),
            });
        }
        let row_blocks = if merged { needed.max(busy) } else { busy };
        let row_blocks = row_blocks.clamp(1, rows).next_power_of_two();
        let all = slices * row_blocks * column_blocks;
        let (groups, groups_x) = self.groups(all as u64);
        let [ids, x] = if merged { self.sum_runs(x, ids, rows, columns)? } else { [ids.clone(), x.clone()] };
        let (count, slice) = match merged {
            true => (ids.shape().count(), ids.shape().count().div_ceil(slices)),
            false => (count, slice),
        };
        let out = Tensor::full(&[slices, rows, width], 0.0, DType::F32, &x.device())?;
        let pipeline = self.pipeline(&Variant::sum_rows(merged))?;
        for (first, steps) in parts(slice.div_ceil(list as usize) as u32, most / a_step) {
            let p = params::SumRows {
                count: count as u32,
                rows: rows as u32,
                width: width as u32,
                groups_x,
                columns: columns as u32,
                column_blocks: column_blocks as u32,
                row_blocks: row_blocks as u32,
                shift: row_blocks.trailing_zeros(),
                slice: slice as u32,
                unused: 0,
                first,
                steps,
            };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[ids.gpu_buffer(), x.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: (all as u64 * u64::from(list)) * u64::from(steps),
            })?;
        }
        if slices == 1 {
            return out.reshape(&[rows, width]);
        }
        out.reshape(&[slices, rows * width])?.reduce(Reduction::Sum, 0)?.reshape(&[rows, width])
    }
}
