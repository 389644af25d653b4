//! Several cells in one layer.

use crate::network::States;
use crate::recurrent::{Values, initialize, weight_shapes};
use crate::{CallArgs, Error, RecurrentLayer, RecurrentSpec, Result, StackedRnnCells, State, Weights};
use recurve_tensor::{Device, Tensor};
use smallvec::smallvec;

/// A [`StackedRnnCells`] layer on a device.
#[derive(Debug)]
pub struct StackedLayer {
    layers: Vec<RecurrentLayer>,
    return_state: bool,
}

impl StackedRnnCells {
    /// The cells as layers of their own, with the input size and the prefix of the weights of each.
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

    /// Names and shapes of the weights.
    pub(crate) fn weight_shapes(&self, input_size: usize, prefix: &str) -> Vec<(String, Vec<usize>)> {
        self.levels(input_size, prefix).iter().flat_map(|(s, i, p)| weight_shapes(s, *i, p)).collect()
    }

    pub(crate) fn initialize(&self, input_size: usize, prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        for (n, (spec, input, prefix)) in self.levels(input_size, prefix).iter().enumerate() {
            initialize(spec, *input, prefix, seed.wrapping_add(n as u64), into)?;
        }
        Ok(())
    }

    /// Whether the cells can stand in one layer.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        let bad = |message: &str| Err(Error::Option { layer: name.into(), argument: "cells", message: message.into() });
        if self.cells.is_empty() {
            return bad("is empty");
        }
        if self.cells.iter().any(|c| c.num_layers != 1 || c.bidirectional.is_some()) {
            return bad("must be single cells: no num_layers, not bidirectional");
        }
        Ok(())
    }
}

impl StackedLayer {
    /// The layer that `config` describes, with the weights of cell N under `prefix.cells.N`.
    ///
    /// # Errors
    /// As [`RecurrentLayer::new`].
    pub fn new(
        name: &str,
        config: &StackedRnnCells,
        input_size: usize,
        weights: &Weights,
        prefix: &str,
        device: &Device,
    ) -> Result<Self> {
        config.check(name)?;
        let levels = config.levels(input_size, prefix);
        let top = levels.len() - 1;
        let layers = levels
            .iter()
            .enumerate()
            .map(|(n, (spec, input, prefix))| {
                let name = format!("{name}.cells.{n}");
                // Between cells every output stands at its own timestep.
                let reading_order = config.go_backwards && n == top;
                RecurrentLayer::with_order(&name, spec, *input, weights, prefix, device, reading_order)
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, return_state: config.return_state })
    }

    /// The cells, lowest first.
    pub fn layers(&self) -> &[RecurrentLayer] {
        &self.layers
    }

    /// The output, then with `return_state` the states of every cell from the lowest up, h before c;
    /// and all states. `states` are those to begin with, one a cell.
    ///
    /// # Errors
    /// As [`RecurrentLayer::call`].
    pub fn outputs(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        states: Option<&[State]>,
    ) -> Result<(Vec<Tensor>, Vec<State>)> {
        let mut ends = States::new();
        let results = self.values(x, args, states, &mut ends)?;
        Ok((results.into_vec(), ends.into_vec()))
    }

    /// [`Self::outputs`] without memory from the heap; the states go to the end of `ends`.
    pub(crate) fn values(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        states: Option<&[State]>,
        ends: &mut States,
    ) -> Result<Values> {
        let first = ends.len();
        let mut y = x.clone();
        for (n, layer) in self.layers.iter().enumerate() {
            let (mut out, end) = layer.values(&y, &CallArgs { state: states.map(|s| &s[n]), ..*args })?;
            y = out.swap_remove(0);
            ends.push(end);
        }
        let mut results: Values = smallvec![y];
        if self.return_state {
            for s in &ends[first..] {
                for t in [Some(&s.h), s.c.as_ref()].into_iter().flatten() {
                    results.push(t.reshape(&t.dims()[1..])?);
                }
            }
        }
        Ok(results)
    }
}
