//! Timesteps whose products are part of their dispatches (`train_scan.wgsl`, `train_scan_back.wgsl`): many timesteps in
//! one dispatch where one workgroup can hold all units of some rows, else one.

use super::Plan;
use crate::training::{TrainingCall, TrainingForm};
use recurve_shaders::{TrainScan, Training, params};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{Dispatch, GpuKernels, TensorKernels};
use recurve_tensor::{Error, Result, Tensor, concat};

/// Largest size of a direction's recurrent matrix with which a hardware GPU scans, in bytes. One workgroup reads all of
/// it in each timestep, from a cache if the registers do not hold it.
const MAX_SCAN: u64 = 512 << 10;

/// Largest numbers of hidden units and of rows with which a software rasteriser scans. There a product in tiles reads
/// weights less often once there are many rows.
const MAX_SOFTWARE_SCAN: u32 = 512;
const MAX_SOFTWARE_ROWS: usize = 16;

/// Largest batch for which each timestep is one dispatch. With more rows, products in tiles read weights less often.
const MAX_STEP_BATCH: usize = 128;

/// Largest number of multiply-adds of one workgroup in one dispatch; see `gpu/mod.rs`.
const MAX_WORK: u64 = 1 << 30;

/// What a choice of a form depends on besides cell and sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) software: bool,
    pub(super) lanes: u32,
    /// Of workgroup memory.
    pub(super) bytes: u32,
    pub(super) loop_iterations: u32,
    /// Whether adjacent lanes can add their sums.
    pub(super) neighbours: bool,
    /// Whether long unrolled code takes seconds to compile.
    pub(super) compiles_slowly: bool,
}

impl Limits {
    fn of(gpu: &Gpu) -> Self {
        Self {
            software: gpu.is_software(),
            lanes: gpu.max_workgroup_lanes(),
            bytes: gpu.max_workgroup_bytes(),
            loop_iterations: gpu.max_loop_iterations(),
            neighbours: gpu.has_neighbour_sums(),
            compiles_slowly: gpu.compiles_slowly(),
        }
    }
}

/// The layouts of both passes for the form of a call; `None` for [`TrainingForm::Products`].
pub(super) fn chosen(
    gpu: &Gpu,
    operation: &'static str,
    call: &TrainingCall<'_>,
    training: &Training,
) -> Result<Option<[TrainScan; 2]>> {
    let limits = Limits::of(gpu);
    choose(&limits, training, call.directions.len(), call.batch, call.form).ok_or_else(|| Error::Argument {
        operation,
        argument: "form",
        message: format!(
            "`{}` has no kernel for this {} of {} units, its options or this call's on {}",
            call.form.name(),
            call.cell.kind.name(),
            call.hidden,
            gpu.summary().name
        ),
    })
}

/// The same from the limits of a device; `None` if the form that is asked for cannot run.
pub(super) fn choose(
    limits: &Limits,
    training: &Training,
    directions: usize,
    batch: usize,
    form: TrainingForm,
) -> Option<Option<[TrainScan; 2]>> {
    let rows = directions * batch;
    let both = |whole: bool| {
        let [a, b] = [false, true].map(|backward| layout(limits, training, rows, backward, whole));
        Some([a?, b?])
    };
    let hidden = u64::from(training.hidden);
    match form {
        TrainingForm::Products => Some(None),
        TrainingForm::Scan => both(true).map(Some),
        TrainingForm::Step => both(false).map(Some),
        TrainingForm::Auto if limits.software => {
            let few = training.hidden <= MAX_SOFTWARE_SCAN && rows <= MAX_SOFTWARE_ROWS;
            Some(if few { both(true) } else { None })
        }
        TrainingForm::Auto => {
            let bytes = 4 * hidden * hidden * training.code.cell.kind.gates() as u64;
            let scan = if bytes <= MAX_SCAN { both(true) } else { None };
            Some(scan.or_else(|| if batch <= MAX_STEP_BATCH { both(false) } else { None }))
        }
    }
}

/// The layout of a pass, if the device can run it. `rows` are those of all directions.
fn layout(limits: &Limits, training: &Training, rows: usize, backward: bool, whole: bool) -> Option<TrainScan> {
    let (h, exchanges) = (training.hidden, training.in_phases());
    if !training.is_plain() || (exchanges && !whole) {
        return None;
    }
    let (units, k_split, subgroups) = if whole {
        // Several lanes for each unit hide the latency of loads, but with more lanes each has fewer registers.
        let lanes = limits.lanes.min(512);
        let split = match limits.software || (exchanges && !limits.neighbours) {
            true => 1,
            false => [8, 4, 2].into_iter().find(|s| h * s <= lanes).unwrap_or(1),
        };
        (h, split, limits.neighbours && split > 1)
    } else {
        // Enough workgroups to occupy a device.
        let tiles = h.div_ceil(16) as usize * rows.div_ceil(4);
        let units = if tiles < 64 { 8 } else { 16 };
        let lanes = limits.lanes.min(if limits.software { 64 } else { 256 });
        (units, (lanes / units).clamp(1, 32), false)
    };
    let lanes = if limits.software { 8 } else { 32 };
    let workgroup = (units * k_split).next_multiple_of(lanes);
    // Lanes beyond the units repeat the last one; those of a dispatch that shares units have units of their own.
    let workgroup = if whole { workgroup } else { units * k_split };
    if workgroup > limits.lanes {
        return None;
    }
    let slices = h.div_ceil(4).div_ceil(k_split);
    let k4 = k_split * if slices > 4 { slices.next_multiple_of(4) } else { slices };
    let batch_tile = match rows {
        _ if limits.software || !whole => 4,
        0..=128 => 1,
        129..=256 => 2,
        _ => 4,
    };
    let batch_tile = batch_tile.min(rows.next_power_of_two() as u32);
    let layout = TrainScan {
        training: *training,
        backward,
        workgroup,
        batch_tile,
        k4,
        k_split,
        subgroups,
        held: 0,
        k_unroll: 1,
        whole,
    };
    let mut layout = with_held(limits, layout);
    while layout.batch_tile > 1 && layout.workgroup_bytes() > limits.bytes {
        layout.batch_tile /= 2;
    }
    let iterations = layout.iterations_at_start() + layout.iterations_per_step();
    (layout.workgroup_bytes() <= limits.bytes && iterations < limits.loop_iterations).then_some(layout)
}

/// The layout with as many weights in registers as fit, and the loop over the others unrolled. On most GPUs a compute
/// unit has 256 KiB of registers. With an exchange the weights of the last gate are not among them.
fn with_held(limits: &Limits, layout: TrainScan) -> TrainScan {
    let slice = layout.k_slice();
    let held = match layout.whole && !limits.software && !limits.compiles_slowly && layout.batch_tile <= 2 {
        true => (((160 << 10) / 4 / layout.workgroup).min(96) / layout.floats()).min(slice),
        false => 0,
    };
    // What is not held is up to four vec4s, or a multiple of four.
    let rest = slice - held;
    let rest = if held > 0 && rest > 4 { rest.next_multiple_of(4).min(slice) } else { rest };
    let k_unroll = [4, 3, 2, 1].into_iter().find(|n| rest.is_multiple_of(*n)).unwrap_or(1);
    TrainScan { held: slice - rest, k_unroll, ..layout }
}

/// The recurrent matrices as the kernels read them: for the forward pass `[D, K4, G, H]` vectors of four adjacent k; for
/// the backward pass `[D, G, K4, H]` vectors of four adjacent units of a gate. Padded with zeros.
pub(super) fn packed(plan: &Plan<'_>, layout: &TrainScan) -> Result<Tensor> {
    let (h, g, k) = (plan.h, plan.g, 4 * layout.k4 as usize);
    let k4 = layout.k4 as usize;
    let mut all = Vec::with_capacity(plan.d);
    for own in plan.call.weights {
        let matrix = plan.w_hh(own)?.reshape(&[g, h, h])?;
        all.push(if layout.backward {
            let padded = matrix.padded(&[g, k, h], &[0, 0, 0], 0.0)?;
            padded.reshape(&[g, k4, 4, h])?.transpose(&[0, 1, 3, 2])?
        } else {
            let padded = matrix.padded(&[g, h, k], &[0, 0, 0], 0.0)?;
            padded.reshape(&[g, h, k4, 4])?.transpose(&[2, 0, 1, 3])?
        });
    }
    if all.len() == 1 { Ok(all.remove(0)) } else { concat(&all.iter().collect::<Vec<_>>(), 0) }
}

/// Records `steps` steps from `first` on, in as few dispatches as the device allows: in order, or for the backward pass
/// last first. With `ends` it is the end of the backward pass.
pub(super) fn record(plan: &Plan<'_>, layout: &TrainScan, buffers: [&Tensor; 7], ends: bool) -> Result<()> {
    let gpu = plan.gpu;
    let pipeline = gpu.pipeline(&layout.variant(ends))?;
    let buffers = buffers.map(|t| t.gpu_buffer());
    let tile = layout.batch_tile as usize;
    let each = (plan.g * plan.h * plan.h) as u64;
    let groups = plan.b.div_ceil(tile).min(gpu.max_workgroups() as usize);
    let work = each * (plan.d * tile * groups) as u64;
    let most = if layout.whole && !ends {
        let by_loops = (gpu.max_loop_iterations() - layout.iterations_at_start()) / layout.iterations_per_step();
        let by_work = (MAX_WORK / (each * tile as u64)).min(gpu.max_work() / work);
        u64::from(by_loops).min(by_work).clamp(1, plan.t as u64) as usize
    } else {
        1
    };
    let all = if ends { 1 } else { plan.t };
    for first_row in (0..plan.b).step_by(groups * tile) {
        let rows = (plan.b - first_row).min(groups * tile);
        for n in (0..all).step_by(most) {
            let steps = most.min(all - n);
            let first = if layout.backward { all - n - steps } else { n };
            let p = params::Recurrent {
                steps: steps as u32,
                first_step: first as u32,
                first_row: first_row as u32,
                ..plan.params
            };
            gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &buffers,
                params: bytemuck::bytes_of(&p),
                groups: [rows.div_ceil(tile) as u32, plan.d as u32, layout.spread()],
                work: each * (plan.d * rows * steps) as u64,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use recurve_shaders::{CellCode, Element, Valid};
    use recurve_vocabulary::{Cell, Zoneout};

    const HARDWARE: Limits = Limits {
        software: false,
        lanes: 1024,
        bytes: 48 << 10,
        loop_iterations: u32::MAX,
        neighbours: true,
        compiles_slowly: false,
    };
    const SOFTWARE: Limits =
        Limits { software: true, bytes: 32 << 10, loop_iterations: 65_535, neighbours: false, ..HARDWARE };
    const LEAST: Limits = Limits { lanes: 256, bytes: 16 << 10, neighbours: false, ..HARDWARE };
    const CELLS: [Cell; 4] = [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE];

    fn training(cell: Cell, hidden: u32) -> Training {
        let code = CellCode { cell, extra: false, valid: Valid::All, weights: Element::F32 };
        let (workgroup, dropout) = (64, 0);
        Training { code, hidden, workgroup, sums: false, dropout, drawn_h: false, drawn_c: false }
    }

    fn auto(limits: &Limits, cell: Cell, hidden: u32, batch: usize) -> TrainingForm {
        match choose(limits, &training(cell, hidden), 1, batch, TrainingForm::Auto).expect("some form") {
            None => TrainingForm::Products,
            Some([a, b]) if a.whole && b.whole => TrainingForm::Scan,
            Some(_) => TrainingForm::Step,
        }
    }

    #[test]
    fn forms_follow_sizes_and_limits() {
        use TrainingForm::{Products, Scan, Step};
        for (limits, cell, hidden, batch, want) in [
            (HARDWARE, Cell::LSTM, 128, 1, Scan),
            (HARDWARE, Cell::LSTM, 256, 32, Step),
            (HARDWARE, Cell::RNN, 256, 32, Scan),
            (HARDWARE, Cell::LSTM, 1024, 1, Step),
            (HARDWARE, Cell::LSTM, 1024, 512, Products),
            (HARDWARE, Cell::GRU_RESET_BEFORE, 512, 4, Products),
            (SOFTWARE, Cell::LSTM, 128, 1, Scan),
            (SOFTWARE, Cell::RNN, 513, 1, Products),
            (SOFTWARE, Cell::GRU, 64, 64, Products),
            (LEAST, Cell::RNN, 300, 1, Step),
            (HARDWARE, Cell { peepholes: true, ..Cell::LSTM }, 32, 1, Products),
            (HARDWARE, Cell { zoneout: Some(Zoneout { h: 0.5, c: 0.0 }), ..Cell::GRU }, 32, 1, Products),
            (HARDWARE, Cell::SLSTM, 32, 1, Products),
        ] {
            assert_eq!(auto(&limits, cell, hidden, batch), want, "{cell:?} {hidden} {batch} {limits:?}");
        }
    }

    /// Every layout that is chosen is sound and within the limits, and what is asked for is chosen or refused.
    #[test]
    fn layouts_keep_limits() {
        let mut found = [0; 2];
        for limits in [HARDWARE, SOFTWARE, LEAST, Limits { compiles_slowly: true, ..HARDWARE }] {
            for cell in CELLS {
                for hidden in [1, 3, 10, 31, 32, 33, 64, 100, 128, 250, 256, 300, 512, 1000, 1024, 3000] {
                    for batch in [1, 2, 3, 16, 64, 300] {
                        for (n, form) in [TrainingForm::Scan, TrainingForm::Step].into_iter().enumerate() {
                            let Some(Some(both)) = choose(&limits, &training(cell, hidden), 2, batch, form) else {
                                continue;
                            };
                            found[n] += 1;
                            for layout in both {
                                assert_eq!(layout.whole, form == TrainingForm::Scan);
                                assert!(layout.workgroup <= limits.lanes && layout.workgroup_bytes() <= limits.bytes);
                                assert!(layout.held == 0 || !limits.compiles_slowly);
                                // Checks the fields.
                                let _ = (layout.variant(false), layout.backward && layout.variant(true).is_long());
                            }
                        }
                    }
                }
            }
        }
        assert!(found.iter().all(|&n| n > 300), "{found:?}");
        let peepholes = training(Cell { peepholes: true, ..Cell::LSTM }, 32);
        assert!(choose(&HARDWARE, &peepholes, 1, 1, TrainingForm::Scan).is_none());
        assert!(choose(&HARDWARE, &training(Cell::GRU_RESET_BEFORE, 32), 1, 1, TrainingForm::Step).is_none());
        assert!(choose(&HARDWARE, &training(Cell::LSTM, 2000), 1, 1, TrainingForm::Scan).is_none());
    }
}
