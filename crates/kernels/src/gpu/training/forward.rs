//! The forward pass.

use super::{Plan, rows, scan};
use crate::training::{Reserve, Trained, TrainingCall, TrainingWeights};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{GpuKernels, StridedMatmul, strided_matmul_within};
use recurve_tensor::{DType, Result, Tensor, concat};

pub(crate) fn forward(gpu: &Gpu, call: &TrainingCall<'_>) -> Result<Trained> {
    let plan = &Plan::new(gpu, "TrainingLayer::forward", call, true)?;
    let &Plan { d, t, b, h: hn, w, g, ref kernels, .. } = plan;
    let (kh, gh, c_width) = (kernels.kept() as usize * hn, g * hn, call.carried);
    let uninit = |dims: &[usize]| plan.uninit(dims);
    let gates = uninit(call.shapes.gates.dims())?;
    let h = uninit(call.shapes.h.dims())?;
    let c = call.shapes.c.map(|s| uninit(s.dims())).transpose()?;
    let norms = call.shapes.norms.map(|s| uninit(s.dims())).transpose()?;
    let y = uninit(call.y_shape().dims())?;

    let start = |states: &Tensor, given: Option<&Tensor>, width: usize| {
        let given = match given {
            Some(given) => given.clone(),
            None => Tensor::zeros(&[d, b, width], DType::F32, &plan.device())?,
        };
        for dir in 0..d {
            let first = if plan.reverse(dir) { t } else { 0 };
            plan.copy(&given, dir * b * width, states, (dir * (t + 1) + first) * b * width, width)?;
        }
        Ok(())
    };
    start(&h, call.h0, w)?;
    if let Some(c) = &c {
        start(c, call.c0, c_width)?;
    }

    let mut affines = Vec::new();
    for (dir, own) in call.weights.iter().enumerate() {
        let bias = bias(plan, own)?;
        let (outer, inner) = if call.time_major { (b * call.input, call.input) } else { (call.input, t * call.input) };
        let product = StridedMatmul {
            a: call.x,
            m: t * b,
            k: call.input,
            a_inner: b,
            a_outer_stride: outer,
            a_inner_stride: inner,
            a_offset: 0,
            w: own.w_ih,
            w_offset: 0,
            n: gh,
            bias: bias.as_ref().unwrap_or(&plan.zeros),
            bias_offset: 0,
            out: &gates,
            out_offset: dir * t * b * kh,
        };
        strided_matmul_within(gpu, &product, [call.input, kh])?;
        if let Some(norms) = &norms {
            let [of_input, of_hidden] = plan.affines(own)?;
            plan.norm(&of_input, norms, rows(&gates, dir * t * b * kh, kh), None, [dir, 0, t * b, 0])?;
            affines.push(of_hidden);
        }
    }

    match &plan.scans {
        Some([layout, _]) => {
            let weights = scan::packed(plan, layout)?;
            let states_c = c.as_ref().unwrap_or(&plan.spare[1]);
            scan::record(plan, layout, [&weights, &plan.extra, plan.valid(), &h, states_c, &gates, &y], false)?;
        }
        None => Timesteps { affines, gates: &gates, h: &h, c: c.as_ref(), norms: norms.as_ref(), y: &y }.run(plan)?,
    }

    let last = |states: &Tensor, width: usize| {
        let out = uninit(&[d, b, width])?;
        for dir in 0..d {
            let at = if plan.reverse(dir) { 0 } else { t };
            plan.copy(states, (dir * (t + 1) + at) * b * width, &out, dir * b * width, width)?;
        }
        Ok(out)
    };
    let h_last = last(&h, w)?;
    let c_last = c.as_ref().map(|c| last(c, c_width)).transpose()?;
    Ok(Trained { y, h: h_last, c: c_last, reserve: Reserve::new(gates, h, c, norms) })
}

/// The timesteps of a cell with products and dispatches of their own.
struct Timesteps<'a> {
    /// Of the recurrent sums of each direction, with layer normalization.
    affines: Vec<Tensor>,
    gates: &'a Tensor,
    h: &'a Tensor,
    c: Option<&'a Tensor>,
    norms: Option<&'a Tensor>,
    y: &'a Tensor,
}

impl Timesteps<'_> {
    fn run(self, plan: &Plan<'_>) -> Result<()> {
        let Self { affines, gates, h, c, norms, y } = self;
        let &Plan { gpu, call, d, t, b, h: hn, w, g, ref kernels, .. } = plan;
        let gh = g * hn;
        let uninit = |dims: &[usize]| plan.uninit(dims);
        let parts = plan.parts();
        let products = kernels.products() as usize * hn;
        let product = if products > 0 { uninit(&[d, b, products])? } else { plan.extra.clone() };
        let matrices = match products {
            0 => Vec::new(),
            _ => call.weights.iter().map(|own| plan.w_hh(own)).collect::<Result<_>>()?,
        };
        let dropout = kernels.dropout as usize;
        let seen = if dropout > 0 { uninit(&[d, dropout, b, w])? } else { plan.spare[0].clone() };
        let states_c = c.unwrap_or(&plan.spare[1]);
        let valid = plan.valid();
        let run = |phase: u32, product: &Tensor, seen: &Tensor, s: usize| {
            let pipeline = gpu.pipeline(&kernels.forward(phase))?;
            plan.step(&pipeline, [product, &plan.extra, valid, h, states_c, gates, seen, y], s)
        };
        if dropout > 0 {
            run(3, &product, &seen, 0)?;
        }
        let second = match kernels.in_phases() {
            true => Some((uninit(&[d, b, hn])?, uninit(&[d, b, w])?)),
            false => None,
        };
        for s in 0..t {
            for (dir, matrix) in matrices.iter().enumerate() {
                let before = plan.time(dir, s) + usize::from(plan.reverse(dir));
                for (set, &(gate, count)) in parts.iter().enumerate() {
                    let a = match dropout {
                        0 => rows(h, (dir * (t + 1) + before) * b * w, w),
                        _ => rows(&seen, (dir * dropout + set) * b * w, w),
                    };
                    let out = rows(&product, dir * b * products + gate * hn, products);
                    plan.multiply(a, rows(matrix, gate * hn * w, w), out, [count * hn, w])?;
                }
                if let Some(norms) = norms {
                    let table = rows(&product, dir * b * gh, gh);
                    plan.norm(&affines[dir], norms, table, None, [dir, plan.time(dir, s), b, 1])?;
                }
            }
            let Some((m, sums)) = &second else {
                run(0, &product, &seen, s)?;
                continue;
            };
            run(1, &product, m, s)?;
            for (dir, own) in call.weights.iter().enumerate() {
                // The rows of the candidate, or the projection.
                let matrix = match own.w_hr {
                    Some(w_hr) => rows(w_hr, 0, hn),
                    None => rows(&matrices[dir], 2 * hn * w, w),
                };
                plan.multiply(rows(m, dir * b * hn, hn), matrix, rows(sums, dir * b * w, w), [w, hn])?;
            }
            run(2, sums, &seen, s)?;
        }
        Ok(())
    }
}

/// The bias of the input product, if there is one.
fn bias(plan: &Plan<'_>, own: &TrainingWeights<&Tensor>) -> Result<Option<Tensor>> {
    if plan.call.cell.layer_norm.is_some() {
        return Ok(None);
    }
    let recurrent = match (own.b_hh, plan.call.cell.kind.separate_bias()) {
        (Some(b), Some(gate)) => {
            let rest = Tensor::zeros(&[plan.h], DType::F32, &plan.device())?;
            Some(concat(&[&b.slice(0, 0..gate * plan.h)?, &rest], 0)?)
        }
        (b, _) => b.cloned(),
    };
    match (own.b_ih, recurrent) {
        (Some(a), Some(b)) => a.add(&b).map(Some),
        (a, b) => Ok(a.cloned().or(b)),
    }
}
