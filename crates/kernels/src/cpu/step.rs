//! One timestep in the caller's memory, without tensors, other threads or planning, for the lowest latency.

use super::pack::Line;
use super::product::Operand;
use super::rows::{Extent, Job, Rows, Valid};
use super::{CpuLayer, grow, product};
use recurve_tensor::Result;
use recurve_tensor::cpu::simd_arch;
use std::cell::RefCell;

thread_local! {
    /// Memory for steps, one per thread, because taking a lock would take as long as a small step.
    static MEMORY: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

impl CpuLayer {
    /// Runs one timestep of a layer with one direction: `x` is `[batch, I]`, `h` `[batch, W]`, `c` `[batch, H]`, or c,
    /// n and m of an sLSTM `[batch, 3·H]`.
    pub(crate) fn step(&self, batch: usize, x: &[f32], h: &mut [f32], c: &mut [f32]) -> Result<()> {
        let packed = &self.directions[0];
        let np = packed.columns();
        let extent = Extent::new(batch, packed);
        let (projected, task) = (batch * np, extent.floats(packed, 0));
        // Each part starts at a cache line.
        let [projected, task] = [projected, task].map(|floats| floats.next_multiple_of(Line::FLOATS));
        MEMORY.with_borrow_mut(|memory| {
            grow(memory, (projected + task) / Line::FLOATS)?;
            let (projection, task) = bytemuck::cast_slice_mut(memory).split_at_mut(projected);
            self.step_in(batch, extent, x, [h, c], [&mut projection[..batch * np], task]);
            Ok(())
        })
    }

    fn step_in(
        &self,
        batch: usize,
        extent: Extent,
        x: &[f32],
        [h, c]: [&mut [f32]; 2],
        [projection, task]: [&mut [f32]; 2],
    ) {
        let packed = &self.directions[0];
        let np = packed.columns();
        product::project(packed, Operand::dense(x, packed.w_ih.k), projection);
        // Without padding, the caller's states have the layout of the kernel and are used in place.
        let hp = packed.padded_hidden();
        let whole = packed.hidden == hp && packed.width == hp && packed.kind.carried() <= 1;
        let mut rows = Rows::split(task, extent, packed);
        if whole {
            rows.h = h;
            if !c.is_empty() {
                rows.c = c;
            }
        } else {
            rows.start(batch, Some(h), (!c.is_empty()).then_some(&*c));
            rows = Rows::split(task, extent, packed);
        }
        simd_arch().dispatch(Job {
            packed,
            rows,
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
        if whole {
            return;
        }
        let rows = Rows::split(task, extent, packed);
        let (width, carried) = (h.len() / batch, c.len() / batch);
        for row in 0..batch {
            rows.h_of(row, &mut h[row * width..][..width]);
            rows.c_of(row, &mut c[row * carried..][..carried]);
        }
    }
}
