//! Random recurrent layers with a loss, their gradients by the kernels, and by the f64 reference.

use crate::{Case, Random};
use recurve::{Activation, Cell, CellKind, Device, Direction, MaskedOutput, Tensor, TensorError, Zoneout};
use recurve_kernels::{
    Gradients, OutputGradients, Reserve, Trained, TrainingArgs, TrainingForm, TrainingLayer, TrainingWeights, Wanted,
    keeps_sums,
};
use recurve_reference::{
    Drawn, Recurrence, RecurrenceGradient, RecurrenceOutput, recurrence_gradient, recurrence_with,
};
use recurve_vocabulary::DirectionWeights;

/// Every kind of cell with every option, alone and together.
pub fn cells() -> Vec<Cell> {
    use Activation::*;
    let lstm = |kind: bool| Cell { kind: CellKind::Lstm { coupled: kind }, ..Cell::LSTM };
    let slstm = |heads, exponential_forget| Cell::with_kind(CellKind::SLstm { heads, exponential_forget });
    let hard = [Activation::HARD_SIGMOID_KERAS2, Softsign, Activation::HARD_SIGMOID_KERAS3];
    let zoneout = Some(Zoneout { h: 0.25, c: 0.125 });
    let of_h = Some(Zoneout { h: 0.25, c: 0.0 });
    let mut all = vec![
        Cell::RNN,
        Cell { zoneout: of_h, ..Cell::RNN },
        Cell { clip: Some(0.5), ..Cell::RNN },
        Cell::INDRNN,
        Cell { candidate: Tanh, ..Cell::INDRNN },
        Cell { candidate: Tanh, clip: Some(0.5), ..Cell::INDRNN },
        Cell::LSTM,
        lstm(true),
        Cell { peepholes: true, ..Cell::LSTM },
        Cell { peepholes: true, ..lstm(true) },
        Cell { clip: Some(0.25), ..Cell::LSTM },
        Cell { clip: Some(0.25), clip_output: true, ..Cell::LSTM },
        Cell { clip: Some(0.25), peepholes: true, ..Cell::LSTM },
        Cell { projection: Some(3), ..Cell::LSTM },
        Cell { layer_norm: Some(0.1), ..Cell::LSTM },
        Cell { zoneout, ..Cell::LSTM },
        Cell { gates: hard, candidate: Relu, output: Softplus, ..Cell::LSTM },
        Cell { candidate: LeakyRelu { alpha: -0.5 }, output: ThresholdedRelu { alpha: 0.01 }, ..Cell::LSTM },
        Cell {
            peepholes: true,
            clip: Some(0.75),
            clip_output: true,
            projection: Some(2),
            layer_norm: Some(1e-2),
            zoneout,
            ..lstm(true)
        },
        Cell { peepholes: true, projection: Some(3), layer_norm: Some(1e-2), zoneout, ..Cell::LSTM },
        Cell::GRU,
        Cell::GRU_RESET_BEFORE,
        Cell { zoneout: of_h, ..Cell::GRU },
        Cell { zoneout: of_h, ..Cell::GRU_RESET_BEFORE },
        Cell { clip: Some(0.25), ..Cell::GRU },
        Cell { clip: Some(0.25), ..Cell::GRU_RESET_BEFORE },
        Cell { layer_norm: Some(0.1), ..Cell::GRU },
        Cell { layer_norm: Some(0.1), zoneout: of_h, clip: Some(1.0), ..Cell::GRU },
        Cell { gates: hard, candidate: Elu { alpha: 0.5 }, ..Cell::GRU },
        Cell { gates: hard, candidate: Elu { alpha: -0.5 }, ..Cell::GRU_RESET_BEFORE },
        Cell::MINGRU,
        Cell { candidate: Positive, ..Cell::MINGRU },
        Cell { clip: Some(0.25), candidate: Tanh, ..Cell::MINGRU },
        Cell::MINLSTM,
        Cell { candidate: Positive, ..Cell::MINLSTM },
        Cell { clip: Some(0.25), candidate: Tanh, ..Cell::MINLSTM },
        Cell::SLSTM,
        slstm(1, true),
        slstm(2, false),
        Cell { clip: Some(0.25), ..slstm(2, true) },
    ];
    let more = [
        LeakyRelu { alpha: -0.5 },
        Elu { alpha: 0.0 },
        ScaledTanh { alpha: 0.0, beta: 1.0 },
        ScaledTanh { alpha: 1.5, beta: 0.75 },
        Affine { alpha: 0.5, beta: 0.25 },
        ThresholdedRelu { alpha: -0.25 },
        HardSigmoid { alpha: 2.0, beta: 0.25 },
    ];
    all.extend(Activation::ALL.into_iter().chain(more).map(|candidate| Cell { candidate, ..Cell::RNN }));
    all
}

/// The orders of directions.
pub const DIRECTIONS: [&[Direction]; 4] = [
    &[Direction::Forward],
    &[Direction::Reverse],
    &[Direction::Forward, Direction::Reverse],
    &[Direction::Reverse, Direction::Forward],
];

/// What training draws for a case.
#[derive(Clone, Debug, Default)]
pub struct Draws {
    /// The number of gates with factors of their own, 1 or G, and the factors `[D, gates, B, W]`.
    pub recurrent_dropout: Option<(usize, Vec<f32>)>,
    /// The shares of the old h, `[D, T, B, W]`.
    pub zoneout_h: Option<Vec<f32>>,
    /// The shares of the old c, `[D, T, B, H]`.
    pub zoneout_c: Option<Vec<f32>>,
}

/// A layer, its input, and the gradient of a loss by its outputs.
#[derive(Clone, Debug)]
pub struct TrainingCase {
    /// The layer and its input.
    pub case: Case,
    /// What was drawn.
    pub draws: Draws,
    /// By the outputs, `[B, T, D·W]`.
    pub dy: Option<Vec<f32>>,
    /// By the final h, `[D, B, W]`.
    pub dh: Option<Vec<f32>>,
    /// By the final c, `[D, B, C·H]`.
    pub dc: Option<Vec<f32>>,
    /// Whether the call is made with time first.
    pub time_major: bool,
    /// Whether a reverse direction returns its outputs in reading order. `dy` is in that order.
    pub reading_order: bool,
    /// How a GPU runs it.
    pub form: TrainingForm,
    /// The table whose rows the input consists of, and which, `[B, T]`.
    pub table: Option<(Vec<f32>, Vec<u32>)>,
}

/// The outputs and gradients of a case as vectors: by name, of both directions one after the other.
pub type Named<T> = Vec<(String, Vec<T>)>;

impl TrainingCase {
    /// A case with random weights, input, and gradients by all outputs.
    pub fn random(seed: u64, cell: Cell, directions: &[Direction], sizes: [usize; 4]) -> Self {
        let mut case = Case::random(seed, cell, directions, sizes);
        if cell.peepholes {
            case = case.with_peepholes(seed ^ 1);
        }
        let mut r = Random(seed ^ 2);
        let (b, t, d) = (sizes[0], sizes[1], directions.len());
        let dy = Some(r.floats(b * t * d * case.width(), 1.0));
        let dh = Some(r.floats(d * b * case.width(), 1.0));
        let dc = (case.c_width() > 0).then(|| r.floats(d * b * case.c_width(), 1.0));
        let form = TrainingForm::Auto;
        let draws = Draws::default();
        Self { case, draws, dy, dh, dc, time_major: false, reading_order: false, form, table: None }
    }

    /// Whether a GPU has kernels for the cell and the options of the call that contain the products.
    pub fn is_plain(&self) -> bool {
        let Cell { kind, peepholes, projection, layer_norm, zoneout, .. } = self.case.cell;
        let Draws { recurrent_dropout, zoneout_h, zoneout_c } = &self.draws;
        matches!(kind, CellKind::Rnn | CellKind::Lstm { coupled: false } | CellKind::Gru { .. })
            && !keeps_sums(&self.case.cell)
            && !(peepholes || projection.is_some() || layer_norm.is_some() || zoneout.is_some())
            && !(recurrent_dropout.is_some() || zoneout_h.is_some() || zoneout_c.is_some())
    }

    /// The forms in which a GPU must run it.
    pub fn forms(&self) -> Vec<TrainingForm> {
        match self.case.cell.kind {
            _ if !self.is_plain() => vec![TrainingForm::Auto],
            CellKind::Gru { reset_after: false } => vec![TrainingForm::Scan, TrainingForm::Products],
            _ => vec![TrainingForm::Scan, TrainingForm::Step, TrainingForm::Products],
        }
    }

    /// The number of directions.
    fn d(&self) -> usize {
        self.case.directions.len()
    }

    /// Takes the input from a table of so many rows.
    #[must_use]
    pub fn with_table(mut self, seed: u64, rows: usize) -> Self {
        let [b, t, i, _] = self.case.sizes;
        let mut r = Random(seed);
        let table = r.floats(rows * i, 1.0);
        let ids: Vec<u32> = (0..b * t).map(|_| r.below(rows) as u32).collect();
        self.case.x = ids.iter().flat_map(|&id| table[id as usize * i..][..i].to_vec()).collect();
        self.table = Some((table, ids));
        self
    }

    /// Draws factors on h for every gate, or for all gates together. Some are 0.
    #[must_use]
    pub fn with_recurrent_dropout(mut self, seed: u64, gates: usize) -> Self {
        let n = self.d() * gates * self.case.sizes[0] * self.case.width();
        let factors = Random(seed).floats(n, 1.0).into_iter().map(|v| if v < -0.25 { 0.0 } else { 1.5 }).collect();
        self.draws.recurrent_dropout = Some((gates, factors));
        self
    }

    /// Draws which elements of the states are kept.
    #[must_use]
    pub fn with_zoneout(mut self, seed: u64) -> Self {
        let [b, t, _, h] = self.case.sizes;
        let mut r = Random(seed);
        let mut keep = |width: usize| {
            let all = r.floats(self.case.directions.len() * t * b * width, 1.0);
            Some(all.into_iter().map(|v| f32::from(u8::from(v < -0.5))).collect())
        };
        self.draws.zoneout_h = keep(self.case.width());
        if matches!(self.case.cell.kind, CellKind::Lstm { .. }) {
            self.draws.zoneout_c = keep(h);
        }
        self
    }

    /// The place of an output in `y` as the kernels return it, from its place in `[B, T, D·W]` at its own timestep.
    fn place(&self, n: usize) -> usize {
        let [b, t, ..] = self.case.sizes;
        let (w, d) = (self.case.width(), self.d());
        let (row, time, column) = (n / (t * d * w), n / (d * w) % t, n % (d * w));
        let reversed = self.reading_order && self.case.directions[column / w].0 == Direction::Reverse;
        let time = if reversed { t - 1 - time } else { time };
        let place = if self.time_major { time * b + row } else { row * t + time };
        place * d * w + column
    }

    fn each_direction<T>(&self, mut f: impl FnMut(usize, &Recurrence<'_, f64>, &Drawn<'_, f64>) -> T) -> Vec<T> {
        let [b, t, i, h] = self.case.sizes;
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
        let lengths: Option<Vec<usize>> = self.case.lengths.as_ref().map(|l| l.iter().map(|&v| v as usize).collect());
        let mask: Option<Vec<bool>> = self.case.mask.as_ref().map(|m| m.iter().map(|&v| v != 0).collect());
        let x = wide(&self.case.x);
        let part =
            |s: Option<&Vec<f32>>, n: usize| s.map(|s| wide(&s[n * s.len() / self.d()..(n + 1) * s.len() / self.d()]));
        let directions = self.case.directions.iter().enumerate();
        directions
            .map(|(n, (direction, w))| {
                let (h0, c0) = (part(self.case.h0.as_ref(), n), part(self.case.c0.as_ref(), n));
                let recurrent = part(self.draws.recurrent_dropout.as_ref().map(|(_, f)| f), n);
                let (zoneout_h, zoneout_c) =
                    (part(self.draws.zoneout_h.as_ref(), n), part(self.draws.zoneout_c.as_ref(), n));
                let a = Recurrence {
                    cell: self.case.cell,
                    direction: *direction,
                    weights: &w.widen(),
                    x: &x,
                    batch: b,
                    timesteps: t,
                    input_size: i,
                    hidden_size: h,
                    h0: h0.as_deref(),
                    c0: c0.as_deref(),
                    lengths: lengths.as_deref(),
                    mask: mask.as_deref(),
                    masked_output: self.case.masked_output,
                };
                let drawn = Drawn {
                    recurrent_dropout: recurrent.as_deref(),
                    zoneout_h: zoneout_h.as_deref(),
                    zoneout_c: zoneout_c.as_deref(),
                };
                f(n, &a, &drawn)
            })
            .collect()
    }

    /// The gradients by the outputs of direction `n`: `[B, T, W]`, `[B, W]`, `[B, C·H]`.
    fn by_outputs(&self, n: usize) -> [Option<Vec<f64>>; 3] {
        let (w, d) = (self.case.width(), self.d());
        let rows = self.case.sizes[0] * self.case.sizes[1];
        let dy = self.dy.as_ref().map(|dy| {
            (0..rows * w).map(|e| f64::from(dy[self.place(e / w * d * w + n * w + e % w)])).collect::<Vec<_>>()
        });
        let part = |v: &Option<Vec<f32>>| {
            v.as_ref().map(|v| v[n * v.len() / d..(n + 1) * v.len() / d].iter().map(|&v| v.into()).collect())
        };
        [dy, part(&self.dh), part(&self.dc)]
    }

    /// The loss of one direction in f64: its outputs times the gradients by them.
    pub fn loss(&self, n: usize, a: &Recurrence<'_, f64>, drawn: &Drawn<'_, f64>) -> f64 {
        let RecurrenceOutput { y, h, c } = recurrence_with(a, drawn);
        let [dy, dh, dc] = self.by_outputs(n);
        let sum =
            |v: &[f64], by: Option<Vec<f64>>| v.iter().zip(by.unwrap_or_default()).map(|(a, b)| a * b).sum::<f64>();
        sum(&y, dy) + sum(&h, dh) + sum(&c, dc)
    }

    /// Calls `f` with each direction, its gradient by the tape, and a function for its loss.
    pub fn differences(&self, mut f: impl FnMut(&Recurrence<'_, f64>, &Drawn<'_, f64>, &RecurrenceGradient, usize)) {
        self.each_direction(|n, a, drawn| {
            let [dy, dh, dc] = self.by_outputs(n);
            let g = recurrence_gradient(a, drawn, dy.as_deref(), dh.as_deref(), dc.as_deref());
            f(a, drawn, &g, n);
        });
    }

    /// The outputs and the gradients by the reference.
    pub fn reference(&self) -> Named<f64> {
        let (w, d) = (self.case.width(), self.d());
        let mut all = self.each_direction(|n, a, drawn| {
            let [dy, dh, dc] = self.by_outputs(n);
            let g = recurrence_gradient(a, drawn, dy.as_deref(), dh.as_deref(), dc.as_deref());
            (recurrence_with(a, drawn), g)
        });
        let mut y = vec![0.0; all[0].0.y.len() * d];
        for (n, (out, _)) in all.iter().enumerate() {
            for (e, v) in out.y.iter().enumerate() {
                y[self.place(e / w * d * w + n * w + e % w)] = *v;
            }
        }
        let mut x = vec![0.0; self.case.x.len()];
        for (_, g) in &all {
            x.iter_mut().zip(&g.x).for_each(|(x, g)| *x += g);
        }
        if let Some((table, ids)) = &self.table {
            let mut sums = vec![0.0; table.len()];
            let features = self.case.sizes[2];
            for (x, &id) in x.chunks_exact(features).zip(ids) {
                sums[id as usize * features..].iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
            x = sums;
        } else if self.time_major {
            x = swap(&x, self.case.sizes[0], self.case.sizes[1]);
        }
        let mut named: Named<f64> = vec![("y".into(), y), ("x".into(), x)];
        let mut join =
            |name: &str, f: &mut dyn FnMut(&mut RecurrenceOutput<f64>, &mut RecurrenceGradient) -> Vec<f64>| {
                let v: Vec<f64> = all.iter_mut().flat_map(|(o, g)| f(o, g)).collect();
                if !v.is_empty() {
                    named.push((name.into(), v));
                }
            };
        join("h", &mut |o, _| o.h.clone());
        join("c", &mut |o, _| o.c.clone());
        join("h0", &mut |_, g| g.h0.clone());
        join("c0", &mut |_, g| g.c0.clone());
        for (n, (_, g)) in all.into_iter().enumerate() {
            for (name, v) in TrainingWeights::<()>::NAMES.iter().zip(list(g.weights)) {
                if !v.is_empty() {
                    named.push((format!("{name} {n}"), v));
                }
            }
        }
        named
    }

    /// The layer.
    pub fn layer(&self) -> TrainingLayer {
        let directions: Vec<_> = self.case.directions.iter().map(|d| d.0).collect();
        let [_, _, i, h] = self.case.sizes;
        TrainingLayer::new(self.case.cell, i, h, &directions).expect("a valid layer")
    }

    /// The arguments of a call on a device.
    ///
    /// # Errors
    /// As [`Tensor::from_f32`].
    pub fn tensors(&self, layer: &TrainingLayer, device: &Device) -> Result<Tensors, TensorError> {
        let [b, t, i, _] = self.case.sizes;
        let (w, c, d) = (self.case.width(), self.case.c_width(), self.d());
        let floats = |v: Option<&Vec<f32>>, dims: &[usize]| v.map(|v| Tensor::from_f32(v, dims, device)).transpose();
        let whole = |v: Option<&Vec<u32>>, dims: &[usize]| v.map(|v| Tensor::from_u32(v, dims, device)).transpose();
        let outer = if self.time_major { [t, b] } else { [b, t] };
        let (x, ids) = match &self.table {
            Some((table, ids)) => {
                let ids = if self.time_major { swap(ids, b, t) } else { ids.clone() };
                let x = Tensor::from_f32(table, &[table.len() / i, i], device)?;
                (x, Some(Tensor::from_u32(&ids, &outer, device)?))
            }
            None => {
                let x = if self.time_major { swap(&self.case.x, b, t) } else { self.case.x.clone() };
                (Tensor::from_f32(&x, &[outer[0], outer[1], i], device)?, None)
            }
        };
        let weights = self.case.directions.iter().map(|(_, w)| {
            let mut all = layer.weight_dims().into_iter().zip(list(w.clone()));
            let mut next = || match all.next().expect("nine weights") {
                (Some(dims), v) if !v.is_empty() => Tensor::from_f32(&v, &dims, device).map(Some),
                _ => Ok(None),
            };
            let list = [next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?];
            Ok(TrainingWeights::from_list(list).expect("every layer has a w_ih"))
        });
        let dropout = self.draws.recurrent_dropout.as_ref();
        Ok(Tensors {
            x,
            ids,
            weights: weights.collect::<Result<_, TensorError>>()?,
            h0: floats(self.case.h0.as_ref(), &[d, b, w])?,
            c0: floats(self.case.c0.as_ref(), &[d, b, c])?,
            lengths: whole(self.case.lengths.as_ref(), &[b])?,
            mask: whole(self.case.mask.as_ref(), &[b, t])?,
            masked_output: self.case.masked_output,
            time_major: self.time_major,
            reading_order: self.reading_order,
            form: self.form,
            recurrent_dropout: match dropout {
                Some((gates, f)) => Some(Tensor::from_f32(f, &[d, *gates, b, w], device)?),
                None => None,
            },
            zoneout_h: floats(self.draws.zoneout_h.as_ref(), &[d, t, b, w])?,
            zoneout_c: floats(self.draws.zoneout_c.as_ref(), &[d, t, b, c])?,
            dy: floats(self.dy.as_ref(), &[outer[0], outer[1], d * w])?,
            dh: floats(self.dh.as_ref(), &[d, b, w])?,
            dc: floats(self.dc.as_ref(), &[d, b, c])?,
        })
    }

    /// The outputs and the gradients on a device.
    ///
    /// # Errors
    /// Those of the layer.
    pub fn run(&self, device: &Device) -> Result<Named<f32>, TensorError> {
        let layer = self.layer();
        let tensors = self.tensors(&layer, device)?;
        let (out, g) = tensors.run(&layer)?;
        named(&out, &g)
    }
}

/// The tensors of a call.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields of the arguments of the layer")]
pub struct Tensors {
    pub x: Tensor,
    pub ids: Option<Tensor>,
    pub weights: Vec<TrainingWeights<Tensor>>,
    pub h0: Option<Tensor>,
    pub c0: Option<Tensor>,
    pub lengths: Option<Tensor>,
    pub mask: Option<Tensor>,
    pub masked_output: MaskedOutput,
    pub time_major: bool,
    pub reading_order: bool,
    pub form: TrainingForm,
    pub recurrent_dropout: Option<Tensor>,
    pub zoneout_h: Option<Tensor>,
    pub zoneout_c: Option<Tensor>,
    pub dy: Option<Tensor>,
    pub dh: Option<Tensor>,
    pub dc: Option<Tensor>,
}

impl Tensors {
    /// The weights of each direction.
    pub fn weights(&self) -> Vec<TrainingWeights<&Tensor>> {
        self.weights.iter().map(TrainingWeights::as_ref).collect()
    }

    /// The arguments of a call.
    pub fn args(&self) -> TrainingArgs<'_> {
        TrainingArgs {
            ids: self.ids.as_ref(),
            h0: self.h0.as_ref(),
            c0: self.c0.as_ref(),
            lengths: self.lengths.as_ref(),
            mask: self.mask.as_ref(),
            masked_output: self.masked_output,
            time_major: self.time_major,
            reading_order: self.reading_order,
            form: self.form,
            recurrent_dropout: self.recurrent_dropout.as_ref(),
            zoneout_h: self.zoneout_h.as_ref(),
            zoneout_c: self.zoneout_c.as_ref(),
            ..TrainingArgs::default()
        }
    }

    /// The gradients by the outputs.
    pub fn by(&self) -> OutputGradients<'_> {
        OutputGradients { y: self.dy.as_ref(), h: self.dh.as_ref(), c: self.dc.as_ref(), ..OutputGradients::default() }
    }

    /// Both passes.
    ///
    /// # Errors
    /// Those of the layer.
    pub fn run(&self, layer: &TrainingLayer) -> Result<(Trained, Gradients), TensorError> {
        let out = layer.forward(&self.x, &self.weights(), &self.args())?;
        let g = self.backward(layer, &out.reserve)?;
        Ok((out, g))
    }

    /// The backward pass.
    ///
    /// # Errors
    /// Those of the layer.
    pub fn backward(&self, layer: &TrainingLayer, reserve: &Reserve) -> Result<Gradients, TensorError> {
        layer.backward(&self.x, &self.weights(), &self.args(), reserve, &self.by(), Wanted::default())
    }
}

/// The results of both passes by name, as [`TrainingCase::reference`] names them.
///
/// # Errors
/// Those of reading tensors.
pub fn named(out: &Trained, g: &Gradients) -> Result<Named<f32>, TensorError> {
    let mut all = Vec::new();
    let mut add = |name: String, t: Option<&Tensor>| {
        if let Some(t) = t {
            all.push((name, t.to_vec()?));
        }
        Ok(())
    };
    add("y".into(), Some(&out.y))?;
    add("x".into(), g.x.as_ref())?;
    add("h".into(), Some(&out.h))?;
    add("c".into(), out.c.as_ref())?;
    add("h0".into(), g.h0.as_ref())?;
    add("c0".into(), g.c0.as_ref())?;
    for (n, w) in g.weights.iter().enumerate() {
        for (name, t) in TrainingWeights::<()>::NAMES.iter().zip(w.as_ref().into_list()) {
            add(format!("{name} {n}"), t)?;
        }
    }
    Ok(all)
}

/// The weights in the order of [`TrainingWeights::NAMES`].
pub fn list<R>(w: DirectionWeights<R>) -> [Vec<R>; 9] {
    [w.w_ih, w.w_hh, w.b_ih, w.b_hh, w.peepholes, w.w_hr, w.norm_ih, w.norm_hh, w.norm_c]
}

/// Turns `[a, b, …]` into `[b, a, …]`.
fn swap<T: Copy>(v: &[T], a: usize, b: usize) -> Vec<T> {
    let n = v.len() / (a * b);
    (0..v.len()).map(|e| v[(e / n % a * b + e / (n * a)) * n + e % n]).collect()
}
