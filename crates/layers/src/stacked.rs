//! Several cells stacked in one layer.

use crate::layer::{LayerModule, Shape, last, sequence};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::recurrent::lower;
use crate::weight_options::WeightGroup;
use crate::{Error, RecurrentSpec, Result, WeightOptions, Weights};
use recurve_graph::ops;
use serde::{Deserialize, Serialize};

/// Several cells stacked in one layer, each reading the output of the one below at the same timestep: Keras's
/// `RNN(StackedRNNCells([…]))`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StackedRnnCells {
    /// The cells, lowest first. Only the cell, the units, the biases, the initializers and the options of the weights
    /// of each are used; the fields below hold the options of the whole layer.
    pub cells: Vec<RecurrentSpec>,
    /// Whether to return the last cell's h of every timestep instead of only the last.
    #[serde(default)]
    pub return_sequences: bool,
    /// Whether to return the final states of all cells too.
    #[serde(default)]
    pub return_state: bool,
    /// Whether each call starts with the final states of the previous call.
    #[serde(default)]
    pub stateful: bool,
    /// Whether to read the sequence backwards and return outputs in that order.
    #[serde(default)]
    pub go_backwards: bool,
    /// Whether input and output are `[T, B, …]` instead of `[B, T, …]`.
    #[serde(default)]
    pub time_major: bool,
    /// Whether outputs at masked timesteps are zero instead of the unchanged h.
    #[serde(default)]
    pub zero_output_for_mask: bool,
}

impl StackedRnnCells {
    /// A layer without cells.
    pub fn new() -> Self {
        Self {
            cells: Vec::new(),
            return_sequences: false,
            return_state: false,
            stateful: false,
            go_backwards: false,
            time_major: false,
            zero_output_for_mask: false,
        }
    }
    /// Adds a cell on top.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the name that Sequential has")]
    pub fn add(mut self, cell: impl Into<RecurrentSpec>) -> Self {
        self.cells.push(cell.into());
        self
    }

    /// The cells as layers, each with the number of features that it reads and the prefix of its weights.
    pub fn levels(&self, input_size: usize, prefix: &str) -> Vec<(RecurrentSpec, usize, String)> {
        let mut input = input_size;
        self.cells
            .iter()
            .enumerate()
            .map(|(n, cell)| {
                let top = n + 1 == self.cells.len();
                let spec = RecurrentSpec {
                    return_sequences: !top || self.return_sequences,
                    return_state: false,
                    stateful: self.stateful,
                    go_backwards: self.go_backwards,
                    time_major: self.time_major,
                    zero_output_for_mask: top && self.zero_output_for_mask,
                    ..cell.clone()
                };
                let level = (spec, input, format!("{prefix}.cells.{n}"));
                input = cell.state_size();
                level
            })
            .collect()
    }

    /// Checks that these cells can be stacked in one layer.
    fn check(&self, name: &str) -> Result<()> {
        let bad = |message: &str| Err(Error::Option { layer: name.into(), argument: "cells", message: message.into() });
        if self.cells.is_empty() {
            return bad("is empty");
        }
        if self.cells.iter().any(|c| c.num_layers != 1 || c.bidirectional.is_some()) {
            return bad("must be single cells: no num_layers, not bidirectional");
        }
        if self.cells.iter().any(|c| c.weight_options.activity_regularizer.is_some()) {
            return bad("must have no activity_regularizer: only what a layer gives can have one");
        }
        Ok(())
    }
}

impl Default for StackedRnnCells {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerModule for StackedRnnCells {
    fn class_name(&self) -> &'static str {
        "RNN"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        self.check(name)?;
        sequence(name, self.time_major, shape)
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        self.levels(last(shapes), prefix).iter().flat_map(|(spec, i, prefix)| spec.weight_shapes(*i, prefix)).collect()
    }
    fn weight_groups<'a>(&'a self, shapes: &[&Shape], prefix: &str) -> Vec<WeightGroup<'a>> {
        let levels = self.levels(last(shapes), prefix).into_iter().zip(&self.cells);
        let group = |((spec, i, prefix), cell): ((RecurrentSpec, usize, String), &'a RecurrentSpec)| WeightGroup {
            options: &cell.weight_options,
            class: cell.cell.kind.class_name(),
            cell: Some(cell.cell.kind),
            features: i,
            weights: spec.weight_shapes(i, &prefix),
        };
        levels.map(group).collect()
    }
    fn weight_options_mut(&mut self) -> Vec<&mut WeightOptions> {
        self.cells.iter_mut().map(|c| &mut c.weight_options).collect()
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        for (n, (spec, input, prefix)) in self.levels(last(shapes), prefix).iter().enumerate() {
            spec.initial_weights(*input, prefix, seed.wrapping_add(n as u64), into)?;
        }
        Ok(())
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        let top = self.cells.last().expect("checked not to be empty");
        let states = self.cells.iter().flat_map(|c| {
            let (h, c) = c.cell.state_sizes(c.units);
            std::iter::once(h).chain(c)
        });
        let batch = shape[usize::from(self.time_major)];
        let last = Some(top.state_size());
        let output = if self.return_sequences { vec![shape[0], shape[1], last] } else { vec![batch, last] };
        let states = states.take(if self.return_state { usize::MAX } else { 0 }).map(|n| vec![batch, Some(n)]);
        Ok(std::iter::once(output).chain(states).collect())
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let levels = self.levels(at.features, at.prefix);
        let (mut flow, mut shape, mut states) = (x.clone(), at.shape.to_vec(), Vec::new());
        for (n, (spec, features, prefix)) in levels.iter().enumerate() {
            let name = format!("{}.cells.{n}", at.name);
            // Between cells, outputs stay at their own timesteps.
            let reading_order = self.go_backwards && n + 1 == levels.len();
            shape[2] = Some(*features);
            let place = Place { name: &name, prefix, features: *features, shape: &shape, shapes: &[&shape] };
            let (value, ends) = lower(spec, &place, &flow, into, reading_order)?;
            states.extend(ends.into_iter().flatten());
            flow.value = value.into_iter().next().expect("a cell has one output");
        }
        let mut outputs = vec![flow.value];
        if self.return_state {
            outputs.extend(states.iter().map(|s| into.node(at.name, ops::Reshape::without(0, 3), &[s])));
        }
        Ok(Lowered { outputs, mask: x.mask.clone().filter(|_| self.return_sequences) })
    }
    fn keeps_time(&self, x: &Flow) -> bool {
        self.return_sequences && x.time
    }
    fn time_major(&self) -> bool {
        self.time_major
    }
    fn is_stateful(&self) -> bool {
        self.stateful
    }
    fn check_step(&self, name: &str) -> Result<()> {
        match self.cells.first() {
            Some(first) if self.go_backwards => {
                let backwards = RecurrentSpec { go_backwards: true, ..first.clone() };
                backwards.check_step(&format!("{name}.cells.0"))
            }
            _ => Ok(()),
        }
    }
}
