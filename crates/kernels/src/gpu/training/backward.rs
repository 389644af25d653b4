//! The backward pass.

use super::{Plan, rows, scan};
use crate::CellKind;
use crate::training::{BackwardCall, Gradients, TrainingWeights};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::GpuKernels;
use recurve_tensor::{DType, Reduction, Result, Tensor, concat};

pub(crate) fn backward(gpu: &Gpu, call: &BackwardCall<'_>) -> Result<Gradients> {
    let forward = &call.forward;
    let plan = &Plan::new(gpu, "TrainingLayer::backward", forward, call.dy.is_some())?;
    let &Plan { d, t, b, h: hn, w, g, ref kernels, .. } = plan;
    let (gh, trace, cw) = (g * hn, kernels.trace() as usize, forward.carried);
    let reserve = call.reserve;
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &plan.device());

    let table = plan.uninit(&[d, t, b, trace])?;
    let mut carried = vec![call.dh.map_or_else(|| zeros(&[d, b, w]), |t| Ok(t.clone()))?];
    if cw > 0 {
        carried.push(call.dc.map_or_else(|| zeros(&[d, b, cw]), |t| Ok(t.clone()))?);
    }
    if kernels.vectors() > 0 {
        carried.push(zeros(&[d, b, kernels.vectors() as usize])?);
    }
    // `concat` always copies.
    let carry = concat(&carried.iter().collect::<Vec<_>>(), 2)?;

    // Where the gradients of the recurrent products' sums stand in a row.
    let hidden_at = match reserve.norms {
        Some(_) => kernels.normed_at()[0],
        None => kernels.hidden_at(),
    } as usize;
    match &plan.scans {
        Some([_, layout]) => {
            let weights = scan::packed(plan, layout)?;
            let states = reserve.c.as_ref().unwrap_or(&reserve.h);
            let dy = call.dy.unwrap_or(&plan.extra);
            let buffers = [&reserve.gates, states, plan.valid(), &weights, dy, &table, &carry];
            scan::record(plan, layout, buffers, false)?;
            if call.wanted.states {
                scan::record(plan, layout, buffers, true)?;
            }
        }
        None => Timesteps { call, table: &table, carry: &carry, hidden_at }.run(plan)?,
    }

    let (mut h0, mut c0) = (None, None);
    let width = kernels.carry() as usize;
    if call.wanted.states {
        let part =
            |first: usize, n: usize| carry.strided(&[d, b, n], first, &[(b * width) as isize, width as isize, 1]);
        h0 = Some(part(0, w)?);
        c0 = if cw > 0 { Some(part(w, cw)?) } else { None };
    }
    let traces = Traces { call, plan, table, carry, hidden_at };
    let weights = match call.wanted.weights {
        true => {
            let x = plan.input()?;
            (0..d).map(|dir| traces.weights(dir, &x)).collect::<Result<_>>()?
        }
        false => Vec::new(),
    };
    let mut x = None;
    if call.wanted.x {
        for (dir, own) in forward.weights.iter().enumerate() {
            let part = traces.columns(dir, traces.input_at(), gh)?.matmul(own.w_ih)?;
            x = Some(match x {
                None => part,
                Some(x) => part.add(&x)?,
            });
        }
        let dx = x.expect("there is a direction").reshape(&[t, b, forward.input])?;
        x = Some(if forward.time_major { dx } else { dx.transpose(&[1, 0, 2])? });
    }
    Ok(Gradients { x, h0, c0, weights })
}

/// The timesteps of a cell with products and dispatches of their own.
struct Timesteps<'a> {
    call: &'a BackwardCall<'a>,
    table: &'a Tensor,
    carry: &'a Tensor,
    hidden_at: usize,
}

impl Timesteps<'_> {
    fn run(self, plan: &Plan<'_>) -> Result<()> {
        let Self { call, table, carry, hidden_at } = self;
        let &Plan { gpu, d, t, b, h: hn, w, g, ref kernels, .. } = plan;
        let (forward, reserve) = (&call.forward, call.reserve);
        let (gh, trace) = (g * hn, kernels.trace() as usize);
        let parts = plan.parts();
        let back = kernels.back() as usize * w;
        let product = if back > 0 { plan.uninit(&[d, b, back])? } else { plan.extra.clone() };
        // [W, G·H]
        let matrices: Vec<Tensor> = match back {
            0 => Vec::new(),
            _ => forward.weights.iter().map(|own| plan.w_hh(own)?.transpose(&[1, 0])).collect::<Result<_>>()?,
        };
        // [H, W]
        let projections: Vec<Tensor> = forward
            .weights
            .iter()
            .filter_map(|own| own.w_hr.map(|w_hr| w_hr.transpose(&[1, 0])))
            .collect::<Result<_>>()?;
        let affines = match &reserve.norms {
            Some(_) => forward.weights.iter().map(|own| plan.affines(own)).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        let second = if kernels.in_phases() { Some(plan.uninit(&[d, b, hn])?) } else { None };
        let states = reserve.c.as_ref().unwrap_or(&reserve.h);
        let dy = call.dy.unwrap_or(&plan.extra);
        let run = |phase: u32, product: &Tensor, s: usize| {
            let pipeline = gpu.pipeline(&kernels.backward(phase))?;
            plan.step(&pipeline, [&reserve.gates, states, plan.valid(), &plan.extra, dy, product, table, carry], s)
        };
        for s in (0..t).rev() {
            let row = |dir: usize| (dir * t + plan.time(dir, s)) * b * trace;
            match &second {
                None => run(0, &product, s)?,
                Some(second) => {
                    run(1, &product, s)?;
                    for dir in 0..d {
                        let (a, matrix) = match projections.get(dir) {
                            Some(w_hr) => (kernels.by_h_at() as usize, rows(w_hr, 0, w)),
                            None => (2 * hn, rows(&matrices[dir], 2 * hn, gh)),
                        };
                        let out = rows(second, dir * b * hn, hn);
                        plan.multiply(rows(table, row(dir) + a, trace), matrix, out, [hn, w])?;
                    }
                    run(2, second, s)?;
                }
            }
            if s == 0 && !call.wanted.states && !(call.wanted.weights && reserve.norms.is_some()) {
                break;
            }
            for dir in 0..d {
                if let Some(norms) = &reserve.norms {
                    let first = row(dir) + kernels.hidden_at() as usize;
                    let place = [dir, plan.time(dir, s), b, 1];
                    let goal = Some(row(dir) + hidden_at);
                    plan.norm(&affines[dir][1], norms, rows(table, first, trace), goal, place)?;
                }
                for (n, &(gate, count)) in parts.iter().enumerate() {
                    let a = rows(table, row(dir) + hidden_at + gate * hn, trace);
                    let out = rows(&product, dir * b * back + n * w, back);
                    plan.multiply(a, rows(&matrices[dir], gate * hn, gh), out, [w, count * hn])?;
                }
            }
        }
        if let Some(norms) = &reserve.norms {
            for (dir, affine) in affines.iter().enumerate() {
                let first = dir * t * b * trace;
                let goal = Some(first + kernels.normed_at()[1] as usize);
                plan.norm(&affine[0], norms, rows(table, first, trace), goal, [dir, 0, t * b, 0])?;
            }
        }
        if call.wanted.states && back > 0 {
            run(3, &product, 0)?;
        }
        Ok(())
    }
}

/// What the pass leaves for the gradients of weights and input.
struct Traces<'a> {
    call: &'a BackwardCall<'a>,
    plan: &'a Plan<'a>,
    /// `[D, T, B, …]`; see `train_backward.wgsl`.
    table: Tensor,
    /// `[D, B, …]`
    carry: Tensor,
    hidden_at: usize,
}

impl Traces<'_> {
    /// Where the gradients of `W_ih x` stand in a row.
    fn input_at(&self) -> usize {
        if self.call.reserve.norms.is_some() { self.plan.kernels.normed_at()[1] as usize } else { 0 }
    }

    fn place(&self, dir: usize) -> (usize, usize, isize) {
        let (rows, stride) = (self.plan.t * self.plan.b, self.plan.kernels.trace() as usize);
        (rows, dir * rows * stride, stride as isize)
    }

    /// Some columns of a direction, `[T·B, width]`.
    fn columns(&self, dir: usize, first: usize, width: usize) -> Result<Tensor> {
        let (rows, start, stride) = self.place(dir);
        self.table.strided(&[rows, width], start + first, &[stride, 1])
    }

    /// The product of some columns, transposed, and `[T·B, n]`: `[width, n]`. The rows are added up in parts where one
    /// product would not occupy the device.
    fn product(&self, dir: usize, first: usize, width: usize, of: &Tensor) -> Result<Tensor> {
        let (rows, start, stride) = self.place(dir);
        let n = of.dims()[1];
        let enough = if self.plan.gpu.is_software() { 4 } else { 256 };
        let parts = parts(rows, (width.div_ceil(64) * n.div_ceil(64)).min(enough), enough);
        let each = rows / parts;
        let columns = self.table.strided(&[parts, width, each], start + first, &[each as isize * stride, 1, stride])?;
        columns.matmul(&of.reshape(&[parts, each, n])?)?.reduce(Reduction::Sum, 0)?.reshape(&[width, n])
    }

    /// The sums of some columns.
    fn sums(&self, dir: usize, first: usize, width: usize) -> Result<Tensor> {
        self.columns(dir, first, width)?.reduce(Reduction::Sum, 0)?.reshape(&[width])
    }

    /// What the rows have added up over time, of `width` elements.
    fn counted(&self, dir: usize, first: usize, width: usize) -> Result<Tensor> {
        let plan = self.plan;
        let stride = plan.kernels.carry() as usize;
        let at = dir * plan.b * stride + plan.w + self.call.forward.carried + first;
        let rows = self.carry.strided(&[plan.b, width], at, &[stride as isize, 1])?;
        rows.reduce(Reduction::Sum, 0)?.reshape(&[width])
    }

    /// The gradient of gain and offset of a normalization: `side` 0 of the input's sums, 1 of the recurrent ones.
    fn of_norm(&self, dir: usize, side: usize) -> Result<Tensor> {
        let plan = self.plan;
        let width = plan.g * plan.h;
        let first = side * plan.kernels.hidden_at() as usize;
        let norms = self.call.reserve.norms.as_ref().expect("kept by cells with layer normalization");
        let (rows, stride) = (plan.t * plan.b, 2 * width + 2);
        let standard = norms.strided(&[rows, width], dir * rows * stride + side * width, &[stride as isize, 1])?;
        let d = self.columns(dir, first, width)?;
        let gain = d.mul(&standard)?.reduce(Reduction::Sum, 0)?;
        concat(&[&gain, &d.reduce(Reduction::Sum, 0)?], 0)
    }

    fn weights(&self, dir: usize, x: &Tensor) -> Result<TrainingWeights<Tensor>> {
        let (plan, own) = (self.plan, &self.call.forward.weights[dir]);
        let (h, gh) = (plan.h, plan.g * plan.h);
        let kernels = &plan.kernels;
        let sums = |first: usize| self.sums(dir, first, gh);
        let b_ih = own.b_ih.map(|_| sums(0)).transpose()?;
        let hidden_at = kernels.hidden_at() as usize;
        let b_hh = match (own.b_hh, &b_ih) {
            (None, _) => None,
            (_, Some(same)) if hidden_at == 0 => Some(same.clone()),
            _ => Some(sums(hidden_at)?),
        };
        let if_given = |given: Option<&Tensor>, of: &dyn Fn() -> Result<Tensor>| given.map(|_| of()).transpose();
        Ok(TrainingWeights {
            w_ih: self.product(dir, self.input_at(), gh, x)?,
            w_hh: if_given(own.w_hh, &|| self.w_hh(dir))?,
            b_ih,
            b_hh,
            peepholes: if_given(own.peepholes, &|| self.counted(dir, 0, 3 * h))?,
            w_hr: if_given(own.w_hr, &|| {
                let m = self.columns(dir, kernels.second_at() as usize, h)?;
                self.product(dir, kernels.by_h_at() as usize, plan.w, &m)
            })?,
            norm_ih: if_given(own.norm_ih, &|| self.of_norm(dir, 0))?,
            norm_hh: if_given(own.norm_hh, &|| self.of_norm(dir, 1))?,
            norm_c: if_given(own.norm_c, &|| self.counted(dir, 3 * h, 2 * h)?.reshape(&[2, h]))?,
            rest: own.rest,
        })
    }

    fn w_hh(&self, dir: usize) -> Result<Tensor> {
        let (plan, forward) = (self.plan, &self.call.forward);
        let &Plan { t, b, h, w, g, ref kernels, .. } = plan;
        let kind = forward.cell.kind;
        if kind == CellKind::IndRnn {
            return self.counted(dir, 0, h);
        }
        let first = (dir * (t + 1) + usize::from(plan.reverse(dir))) * b * w;
        let strides = [(b * w) as isize, w as isize, 1];
        let old = self.call.reserve.h.strided(&[t, b, w], first, &strides)?;
        // The h that a gate reads.
        let read = |gate: usize| {
            let Some(factors) = forward.recurrent_dropout else { return old.reshape(&[t * b, w]) };
            let sets = factors.dims()[1];
            let set = if sets == 1 { 0 } else { gate };
            let factors = factors.strided(&[1, b, w], (dir * sets + set) * b * w, &strides)?;
            old.mul(&factors)?.reshape(&[t * b, w])
        };
        let before = kind == CellKind::Gru { reset_after: false };
        // Gates that read the same h have one product.
        let groups = match kind {
            _ if kernels.dropout > 1 => (0..g).map(|gate| (gate, 1)).collect(),
            _ if before => vec![(0, 2), (2, 1)],
            _ => vec![(0, g)],
        };
        let columns = kind.columns(w);
        let mut all = Vec::new();
        for (gate, count) in groups {
            let second = before && gate == 2;
            let read = if second { self.columns(dir, kernels.second_at() as usize, h)? } else { read(gate)? };
            let whole = self.product(dir, self.hidden_at + gate * h, count * h, &read)?;
            all.push(if columns == w {
                whole
            } else {
                // The rows of each head have its units alone.
                let (heads, c) = (w / columns, columns as isize);
                let row = w as isize;
                let own = whole.strided(&[count, heads, columns, columns], 0, &[row * row, c * row + c, row, 1])?;
                own.reshape(&[count * h, columns])?
            });
        }
        if all.len() == 1 { Ok(all.remove(0)) } else { concat(&all.iter().collect::<Vec<_>>(), 0) }
    }
}

/// The number of parts, of at least 64 rows, in which a sum over `rows` of `tiles` tiles is computed, so that there are
/// up to `enough` tiles: a divisor of `rows`.
fn parts(rows: usize, tiles: usize, enough: usize) -> usize {
    let most = (enough / tiles).min(rows / 64).max(1);
    (1..=most).rev().find(|n| rows.is_multiple_of(*n)).unwrap_or(1)
}
