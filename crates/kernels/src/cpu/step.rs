//! One timestep in the caller's memory, where nanoseconds count: no tensors, no other threads, no planning.

use super::pack::Line;
use super::rows::{Job, Rows, Valid};
use super::{CpuLayer, grow, product};
use recurve_tensor::Result;
use recurve_tensor::cpu::simd_arch;
use std::sync::PoisonError;

impl CpuLayer {
    /// A step of the only direction: `x` is `[batch, I]`, `h` `[batch, W]`, `c` `[batch, H]` or empty.
    pub(crate) fn step(&self, batch: usize, x: &[f32], h: &mut [f32], c: &mut [f32]) -> Result<()> {
        let packed = &self.directions[0];
        let np = packed.columns();
        let lock = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        grow(&mut scratch.projection, (batch * np).div_ceil(Line::FLOATS))?;
        grow(&mut scratch.tasks, Rows::floats(batch, packed, 0).div_ceil(Line::FLOATS))?;
        let projection: &mut [f32] = &mut bytemuck::cast_slice_mut(&mut scratch.projection)[..batch * np];
        let tasks: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch.tasks);

        product::project_rows(packed, x, projection);
        let given = (!c.is_empty()).then_some(&*c);
        Rows::split(tasks, batch, packed).start(batch, Some(h), given);
        simd_arch().dispatch(Job {
            packed,
            rows: Rows::split(tasks, batch, packed),
            count: batch,
            projection,
            p_row: np,
            p_slot: batch * np,
            first: 0,
            steps: 1,
            timesteps: 1,
            reverse: false,
            valid: Valid::All,
            tiles: 0..packed.tiles,
            member: None,
            y: None,
        });
        let rows = Rows::split(tasks, batch, packed);
        let hp = packed.padded_hidden();
        for (state, out) in [(&*rows.h, h), (&*rows.c, c)] {
            let size = out.len() / batch;
            for row in 0..batch {
                out[row * size..][..size].copy_from_slice(&state[row * hp..][..size]);
            }
        }
        lock().push(scratch);
        Ok(())
    }
}
