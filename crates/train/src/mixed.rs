//! Mixed precision: weights rounded to f16, with a scale of the loss by which their gradients keep to f16's range.

use crate::builder::Builder;
use crate::error::check;
use crate::plan::Feed;
use crate::snapshot::Weight;
use crate::{Optimizer, Result, StepOptions, Training};
use recurve_graph::ops::{Binary, Cast, Extent, ReduceOver, Reshape, Target};
use recurve_graph::{Assembly, Constant, Element, ValueId, ValueType};
use recurve_layers::Weights;
use recurve_tensor::{DType, Device, Function, Reduction, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What the loss is multiplied by before its gradients are computed, and how that follows from whether these are finite:
/// PyTorch's `GradScaler`, Keras's `LossScaleOptimizer`. See [`crate::StepOptions::mixed_precision`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LossScale {
    /// The scale of the first step.
    pub initial: f64,
    /// What the scale is multiplied by after `interval` steps in a row with finite gradients; not if it would be
    /// infinite.
    pub growth: f64,
    /// What it is multiplied by after a step whose gradients were not finite. It does not become less than 2^-126.
    pub backoff: f64,
    /// How many such steps `growth` waits for.
    pub interval: u32,
}

const MIXED: &str = "mixed precision";

/// The most steps between two readings of the number of skipped steps. Tables of what depends on the number of the step
/// have a row for each.
const WINDOW: usize = 64;

impl Default for LossScale {
    /// As [`Self::pytorch`].
    fn default() -> Self {
        Self::pytorch()
    }
}

impl LossScale {
    /// With the defaults of PyTorch's `GradScaler`: 65536 at first, doubled after 2000 steps, halved.
    pub const fn pytorch() -> Self {
        Self { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }

    /// With the defaults of Keras's `LossScaleOptimizer`: 32768 at first, doubled after 2000 steps, halved.
    pub const fn keras() -> Self {
        Self { initial: 32768.0, ..Self::pytorch() }
    }

    /// Another scale of the first step.
    #[must_use]
    pub const fn initial(self, initial: f64) -> Self {
        Self { initial, ..self }
    }

    /// Another factor after steps with finite gradients.
    #[must_use]
    pub const fn growth(self, growth: f64) -> Self {
        Self { growth, ..self }
    }

    /// Another factor after a step whose gradients were not finite.
    #[must_use]
    pub const fn backoff(self, backoff: f64) -> Self {
        Self { backoff, ..self }
    }

    /// Another number of steps.
    #[must_use]
    pub const fn interval(self, interval: u32) -> Self {
        Self { interval, ..self }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`crate::Error::Option`] unless the first scale is at least 2^-126 and finite in f32, growth is at least 1 and
    /// finite, backoff is above 0 and at most 1, and the interval is from 1 to 2^24.
    pub fn check(&self) -> Result<()> {
        let Self { initial, growth, backoff, interval } = *self;
        let first = initial as f32;
        check(MIXED, "initial", first >= f32::MIN_POSITIVE && first.is_finite(), || {
            format!("must be at least 2^-126 and finite in f32, but it is {initial}")
        })?;
        check(MIXED, "growth", growth >= 1.0 && (growth as f32).is_finite(), || {
            format!("must be at least 1 and finite, but it is {growth}")
        })?;
        check(MIXED, "backoff", backoff > 0.0 && backoff <= 1.0, || {
            format!("must be above 0 and at most 1, but it is {backoff}")
        })?;
        check(MIXED, "interval", (1..=1 << 24).contains(&interval), || {
            format!("must be from 1 to 2^24, but it is {interval}")
        })
    }

    /// Adds nodes that compute the scale, the steps in a row with finite gradients and the number of skipped steps after
    /// a step.
    fn after_step(&self, assembly: &mut Assembly, finite: ValueId, now: [ValueId; 3]) -> Result<[ValueId; 3]> {
        let mut b = Builder { assembly, name: MIXED };
        let [scale, good, skipped] = now;
        let (zero, one) = (b.number(0.0)?, b.number(1.0)?);
        let more = b.binary(Binary::Add, good, one)?;
        let interval = b.number(self.interval as f32)?;
        let grows = b.binary(Binary::GreaterOrEqual, more, interval)?;
        let larger = b.affine(scale, self.growth as f32, 0.0)?;
        let most = b.number(f32::MAX)?;
        let fits = b.binary(Binary::LessOrEqual, larger, most)?;
        let larger = b.choose(fits, larger, scale)?;
        let larger = b.choose(grows, larger, scale)?;
        let smaller = b.affine(scale, self.backoff as f32, 0.0)?;
        let least = b.number(f32::MIN_POSITIVE)?;
        let smaller = b.binary(Binary::Max, smaller, least)?;
        let counted = b.choose(grows, zero, more)?;
        let another = b.binary(Binary::Add, skipped, one)?;
        Ok([b.choose(finite, larger, smaller)?, b.choose(finite, counted, zero)?, b.choose(finite, skipped, another)?])
    }
}

/// Adds a node that multiplies the loss by the scale.
pub(crate) fn scaled(assembly: &mut Assembly, loss: ValueId, scale: ValueId) -> Result<ValueId> {
    Builder { assembly, name: MIXED }.binary(Binary::Mul, loss, scale)
}

/// Adds nodes that divide gradients by the scale. Those of weights in f16, which the second of a pair tells, are rounded
/// to f16 before, beyond whose range they are infinite.
pub(crate) fn unscaled(assembly: &mut Assembly, gradients: &[(ValueId, bool)], scale: ValueId) -> Result<Vec<ValueId>> {
    let mut b = Builder { assembly, name: MIXED };
    let one = |&(g, rounds): &(ValueId, bool)| {
        let g = if rounds { b.node(Cast { from: Element::F32, to: Target::F16 }, &[g])? } else { g };
        b.binary(Binary::Div, g, scale)
    };
    gradients.iter().map(one).collect()
}

/// Adds nodes that tell whether all gradients are finite.
pub(crate) fn finite(assembly: &mut Assembly, gradients: &[ValueId]) -> Result<ValueId> {
    let mut b = Builder { assembly, name: MIXED };
    let mut highest = b.number(0.0)?;
    for &g in gradients {
        let size = b.map(Function::Abs, g)?;
        let own = b.over_all(Reduction::Max, size)?;
        highest = b.binary(Binary::Max, highest, own)?;
    }
    let most = b.number(f32::MAX)?;
    // Not of NaN either.
    b.binary(Binary::LessOrEqual, highest, most)
}

/// Adds a node that chooses what was before if a step is skipped.
pub(crate) fn unless_skipped(assembly: &mut Assembly, finite: ValueId, [new, old]: [ValueId; 2]) -> Result<ValueId> {
    Builder { assembly, name: MIXED }.choose(finite, new, old)
}

/// Adds nodes that choose a row of a table.
fn row(assembly: &mut Assembly, table: ValueId, row: ValueId, width: usize) -> Result<ValueId> {
    let mut b = Builder { assembly, name: MIXED };
    let places: Vec<f32> = (0..WINDOW).map(|n| n as f32).collect();
    let places = b.constant(&[WINDOW, 1], Constant::Float(places.into()))?;
    let own = b.binary(Binary::Equal, places, row)?;
    let zero = b.number(0.0)?;
    let rows = b.choose(own, table, zero)?;
    let sum = ReduceOver { reduction: Reduction::Sum, axes: vec![0], keep_dims: false, noop: false, int: None };
    let sum = b.node(sum, &[rows])?;
    b.node(Reshape(vec![Extent::Size(width)]), &[sum])
}

/// Whether what an optimiser computes in a step depends on the number of the step.
fn counts_steps(optimizer: &Optimizer) -> Result<bool> {
    let first = optimizer.rates(1.0, 1)?;
    Ok(optimizer.rates(1.0, 2)? != first || optimizer.rates(1.0, 3)? != first)
}

/// The state of a loss scale on the device.
#[derive(Clone, Debug)]
pub(crate) struct Scaling {
    /// The scale, the steps in a row with finite gradients, and the steps that were skipped since their number was read,
    /// `[1]` each.
    pub(crate) state: [Tensor; 3],
    /// Whether what a step computes depends on how many were skipped.
    tabled: bool,
    /// How many had been skipped when that was last read, and the steps since then.
    skipped: u64,
    unread: u64,
}

impl Scaling {
    /// The names of its inputs.
    const NAMES: [&str; 3] = ["loss scale", "steps with finite gradients", "skipped steps"];

    /// The names of its numbers in files.
    const NUMBERS: [&str; 3] = ["loss_scale", "finite_steps", "skipped_steps"];

    pub(crate) fn new(scale: &LossScale, options: &StepOptions, device: &Device) -> Result<Self> {
        let by_step = options.schedule.is_some() || options.average.is_some();
        let tabled = by_step || counts_steps(&options.optimizer)?;
        Ok(Self { state: Self::state([scale.initial as f32, 0.0, 0.0], device)?, tabled, skipped: 0, unread: 0 })
    }

    fn state(numbers: [f32; 3], device: &Device) -> Result<[Tensor; 3]> {
        let [scale, finite, skipped] = numbers.map(|v| Tensor::from_f32(&[v], &[1], device));
        Ok([scale?, finite?, skipped?])
    }

    /// How many rows of a table may be wanted.
    pub(crate) fn rows(&self) -> u64 {
        if self.tabled { self.unread + 1 } else { 1 }
    }

    /// Takes over what a step gave.
    pub(crate) fn advance(&mut self, outputs: &mut impl Iterator<Item = Tensor>) {
        for own in &mut self.state {
            *own = outputs.next().expect("an output for each part");
        }
        self.unread += 1;
    }

    /// Reads how many steps were skipped.
    fn read(&mut self) -> Result<u64> {
        if self.unread > 0 {
            let more = self.state[2].to_vec()?[0];
            self.state[2] = Tensor::from_f32(&[0.0], &[1], &self.state[2].device())?;
            (self.skipped, self.unread) = (self.skipped + more as u64, 0);
        }
        Ok(self.skipped)
    }

    /// Its numbers for a file.
    pub(crate) fn numbers(&self) -> Result<BTreeMap<String, String>> {
        let [scale, finite, more] = &self.state;
        let skipped = self.skipped + more.to_vec()?[0] as u64;
        let numbers = [scale.to_vec()?[0].to_string(), finite.to_vec()?[0].to_string(), skipped.to_string()];
        Ok(Self::NUMBERS.map(str::to_owned).into_iter().zip(numbers).collect())
    }

    /// The state with these numbers, which are taken, of the same training. The error says what is wrong.
    pub(crate) fn of_numbers(&self, numbers: &mut BTreeMap<String, String>) -> Result<Self, String> {
        let mut text = |n: usize| {
            let name = Self::NUMBERS[n];
            numbers.remove(name).ok_or_else(|| format!("has no number `{name}`"))
        };
        let bad = |n: usize, text: &str| format!("has `{text}` as its number `{}`", Self::NUMBERS[n]);
        let (scale, finite, skipped) = (text(0)?, text(1)?, text(2)?);
        let own = scale.parse().ok().filter(|v: &f32| *v >= f32::MIN_POSITIVE && v.is_finite());
        let own = own.ok_or_else(|| bad(0, &scale))?;
        let row = finite.parse().ok().filter(|v: &u32| *v <= 1 << 24).ok_or_else(|| bad(1, &finite))?;
        let skipped = skipped.parse().map_err(|_| bad(2, &skipped))?;
        let state = Self::state([own, row as f32, 0.0], &self.state[0].device()).map_err(|e| e.to_string())?;
        Ok(Self { state, tabled: self.tabled, skipped, unread: 0 })
    }
}

impl Training {
    /// The scale of the loss of the next step, read from the device; none without mixed precision.
    ///
    /// # Errors
    /// Errors of reading the device.
    pub fn loss_scale(&self) -> Result<Option<f32>> {
        let Some(scaling) = &self.scaling else { return Ok(None) };
        Ok(Some(scaling.state[0].to_vec()?[0]))
    }

    /// How many of the [`steps`](Self::steps) were skipped because a gradient was not finite, read from the device; 0
    /// without mixed precision.
    ///
    /// # Errors
    /// Errors of reading the device.
    pub fn skipped_steps(&mut self) -> Result<u64> {
        self.scaling.as_mut().map_or(Ok(0), Scaling::read)
    }

    /// The steps that were not skipped, so far as is known.
    pub(crate) fn counted_steps(&self) -> u64 {
        self.steps().saturating_sub(self.scaling.as_ref().map_or(0, |s| s.skipped))
    }

    /// Reads how many steps were skipped if a run could no longer tell, or if it costs nothing.
    pub(crate) fn count_skipped(&mut self) -> Result<()> {
        let free = matches!(self.device(), Device::Cpu);
        match &mut self.scaling {
            Some(s) if s.tabled && (free || s.unread + 1 >= WINDOW as u64) => s.read().map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Whether the last step was skipped and the scale cannot become smaller.
    pub(crate) fn scale_is_least(&mut self) -> Result<bool> {
        let Some(scaling) = &mut self.scaling else { return Ok(false) };
        if scaling.read()? == 0 {
            return Ok(false);
        }
        let [scale, finite, _] = &scaling.state;
        Ok(finite.to_vec()?[0] == 0.0 && scale.to_vec()?[0] <= f32::MIN_POSITIVE)
    }

    /// Whether the network reads a weight rounded to f16.
    pub(crate) fn rounds(&self, weight: &Weight) -> bool {
        self.scaling.is_some() && !self.graph.normalizing.contains(&weight.name)
    }

    /// A weight rounded to f16.
    pub(crate) fn rounded(&self, weight: usize) -> Result<Tensor> {
        Ok(self.weights[weight].value.map(Function::RoundF16)?)
    }

    /// The weights as the network reads them, in host memory.
    pub(crate) fn weights_in_use(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for (n, w) in self.weights.iter().enumerate() {
            let values = if self.rounds(w) { self.rounded(n)?.to_vec()? } else { w.value.to_vec()? };
            weights.insert(&w.name, w.value.dims(), values)?;
        }
        Ok(weights)
    }

    /// The dimensions of so many numbers that change from step to step, with the rows of a table if there is one.
    pub(crate) fn table(&self, width: usize) -> Vec<usize> {
        match &self.scaling {
            Some(s) if s.tabled => vec![WINDOW, width],
            _ => vec![width],
        }
    }

    /// Numbers that change from step to step as an input of a graph; of a table, the row of the next step.
    pub(crate) fn of_step(
        &self,
        a: &mut Assembly,
        feeds: &mut HashMap<ValueId, Feed>,
        (name, feed, width): (&str, Feed, usize),
    ) -> Result<ValueId> {
        let id = a.input(name, ValueType::new(DType::F32, self.table(width)), false)?;
        feeds.insert(id, feed);
        match self.scaling_inputs(a, feeds)? {
            Some([_, _, skipped]) if self.table(width).len() > 1 => row(a, id, skipped, width),
            _ => Ok(id),
        }
    }

    /// The state of the loss scale as inputs of a graph: the scale, steps in a row, skipped steps.
    pub(crate) fn scaling_inputs(
        &self,
        a: &mut Assembly,
        feeds: &mut HashMap<ValueId, Feed>,
    ) -> Result<Option<[ValueId; 3]>> {
        if self.scaling.is_none() {
            return Ok(None);
        }
        let mut input = |n: usize| -> Result<ValueId> {
            let name = Scaling::NAMES[n];
            let id = match a.find(name) {
                Some(id) => id,
                None => a.input(name, ValueType::new(DType::F32, [1usize]), false)?,
            };
            feeds.insert(id, Feed::Scaling(n));
            Ok(id)
        };
        Ok(Some([input(0)?, input(1)?, input(2)?]))
    }

    /// Adds nodes that compute the state of the loss scale after a step.
    pub(crate) fn scaling_after(
        &self,
        a: &mut Assembly,
        now: Option<[ValueId; 3]>,
        finite: Option<ValueId>,
    ) -> Result<Vec<ValueId>> {
        match (self.options().mixed_precision, now, finite) {
            (Some(scale), Some(now), Some(finite)) => Ok(scale.after_step(a, finite, now)?.to_vec()),
            _ => Ok(Vec::new()),
        }
    }

    /// Trained weights in f32: those that the network reads, or inputs of their own where it reads them rounded.
    pub(crate) fn in_f32(
        &self,
        a: &mut Assembly,
        feeds: &mut HashMap<ValueId, Feed>,
        (trained, ids): (&[usize], &[ValueId]),
    ) -> Result<Vec<ValueId>> {
        let one = |(&n, &id): (&usize, &ValueId)| -> Result<ValueId> {
            let weight = &self.weights[n];
            if !self.rounds(weight) {
                return Ok(id);
            }
            let kind = a.value(id).kind.clone();
            let own = a.input(&format!("{} in f32", weight.name), kind, false)?;
            feeds.insert(own, Feed::Weight(n));
            Ok(own)
        };
        trained.iter().zip(ids).map(one).collect()
    }
}
