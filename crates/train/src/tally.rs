//! Losses and metrics added up over the batches of an epoch.

use crate::data::HostBatch;
use crate::metrics::{MetricBatch, MetricState, Targets};
use crate::{Array, Logs, OutputMetric, Result, StepOptions, StepResult};
use recurve_tensor::{Device, Tensor, concat};

/// A mean over batches, each weighted by its number of samples as in Keras.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f32, rows: usize) {
        self.sum += f64::from(value) * rows as f64;
        self.count += rows as f64;
    }

    fn result(self) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.sum / self.count }
    }
}

/// The losses and metrics so far.
#[derive(Debug)]
pub(crate) struct Tally {
    /// The sum of the losses, then the loss of each output if there are several.
    losses: Vec<(String, Mean)>,
    metrics: Vec<(OutputMetric, MetricState)>,
}

impl Tally {
    /// Of no batch. `outputs` are the names of the network's outputs.
    pub(crate) fn new(options: &StepOptions, outputs: &[String]) -> Result<Self> {
        let mut losses = vec![("loss".to_owned(), Mean::default())];
        if outputs.len() > 1 {
            losses.extend(outputs.iter().map(|name| (format!("{name}_loss"), Mean::default())));
        }
        let metrics = options.metrics.iter().map(|m| Ok((m.clone(), m.metric.start()?)));
        Ok(Self { losses, metrics: metrics.collect::<Result<_>>()? })
    }

    /// Whether there was a batch.
    pub(crate) fn is_used(&self) -> bool {
        self.losses[0].1.count > 0.0
    }

    /// The numbers so far.
    pub(crate) fn logs(&self, prefix: &str) -> Logs {
        let mut logs = Logs::default();
        self.losses.iter().for_each(|(name, mean)| logs.set(&format!("{prefix}{name}"), mean.result()));
        self.metrics.iter().for_each(|(m, state)| logs.set(&format!("{prefix}{}", m.name), state.result()));
        logs
    }

    /// Adds a batch, whose numbers have been read.
    pub(crate) fn add(&mut self, numbers: &[f32], result: &StepResult, batch: &HostBatch) -> Result<()> {
        let mut numbers = numbers.iter().copied();
        let mut next = || numbers.next().expect("a number for each tensor that was read");
        self.losses.iter_mut().for_each(|(_, mean)| mean.add(next(), batch.len()));
        for (n, (m, state)) in self.metrics.iter_mut().enumerate() {
            if result.metrics[n].is_some() {
                let (sum, weight) = (next(), next());
                state.add(sum.into(), weight.into())?;
            } else {
                update(m, state, result, batch)?;
            }
        }
        Ok(())
    }
}

/// Adds a batch to a metric that is computed in host memory.
fn update(m: &OutputMetric, state: &mut MetricState, result: &StepResult, batch: &HostBatch) -> Result<()> {
    let output = &result.outputs[m.output];
    let predictions = output.to_vec()?;
    let width = if output.dims().len() < 2 { 1 } else { output.dims().last().copied().unwrap_or(1) };
    let rows = predictions.len() / width.max(1);
    let target = &batch.targets[m.output];
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    match (target.as_f32(), target.as_u32()) {
        (Some(v), _) if v.len() == predictions.len() => values.extend_from_slice(v),
        (Some(v), _) => labels.extend(v.iter().map(|&v| v as i64)),
        (None, Some(v)) if v.len() == predictions.len() => values.extend(v.iter().map(|&v| v as f32)),
        (None, v) => labels.extend(v.unwrap_or_default().iter().map(|&v| i64::from(v))),
    }
    let targets = if labels.is_empty() { Targets::Values(&values) } else { Targets::Labels(&labels) };
    let weights = batch.sample_weights.as_ref().filter(|_| m.weighted).and_then(Array::as_f32);
    // One weight for each sequence is one for each of its timesteps.
    let weights = weights.map(|w| {
        let times = rows / w.len().max(1);
        w.iter().flat_map(|&w| std::iter::repeat_n(w, times)).collect::<Vec<f32>>()
    });
    let mask = result.masks[m.output].as_ref().map(Tensor::to_vec).transpose()?;
    let mask: Option<Vec<bool>> = mask.map(|mask| mask.into_iter().map(|v| v != 0.0).collect());
    let mut of = MetricBatch::new(&predictions, width, targets);
    (of.weights, of.mask) = (weights.as_deref(), mask.as_deref());
    state.update(&of)
}

/// Reads the losses and metrics of some batches from their device at once.
pub(crate) fn read(results: &[&StepResult]) -> Result<Vec<Vec<f32>>> {
    let parts: Vec<Vec<&Tensor>> = results
        .iter()
        .map(|r| std::iter::once(&r.loss).chain(&r.losses).chain(r.metrics.iter().flatten()).collect())
        .collect();
    let all: Vec<&Tensor> = parts.iter().flatten().copied().collect();
    let numbers = match all.first().map(|t| t.device()) {
        None | Some(Device::Cpu) => {
            let read = all.iter().map(|t| t.to_vec()).collect::<Result<Vec<_>, _>>()?;
            read.concat()
        }
        Some(_) => concat(&all, 0)?.to_vec()?,
    };
    let mut rest = &numbers[..];
    Ok(parts
        .iter()
        .map(|tensors| {
            let count = tensors.iter().map(|t| t.dims().iter().product::<usize>()).sum();
            let (own, others) = rest.split_at(count);
            rest = others;
            own.to_vec()
        })
        .collect())
}
