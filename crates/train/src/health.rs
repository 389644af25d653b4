//! Where numbers stop being finite.

use crate::plan::{Feed, Wanted};
use crate::{Batch, Error, Origin, Result, Training};
use recurve_graph::{Data, Frame, Graph, RunOptions, Source, ValueId};
use recurve_tensor::{DType, Tensor};
use std::collections::BTreeSet;

impl Training {
    /// Finds where a loss or a gradient of a batch is not finite: runs the forward and the backward pass, keeps every
    /// value, and goes back from what is not finite to the first value that is computed from finite ones. Nothing
    /// changes. What is drawn is what the next step draws, so a batch whose step has just given a loss that is not finite
    /// is looked at after [`Self::restore`] with a snapshot from before that step.
    ///
    /// In mixed precision the gradients are computed without a loss scale: one that is not finite with the scale alone is
    /// a step that is skipped, and no error.
    ///
    /// Every value is kept and read, so this is slow and takes memory.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the step and the place, unless the loss and all gradients are finite; errors as those of
    /// [`Self::step`].
    pub fn diagnose(&mut self, batch: &Batch<'_>) -> Result<()> {
        let step = self.steps() + 1;
        let starts = self.starts(batch)?;
        let wanted = if self.scaling.is_some() { Wanted::Unscaled } else { Wanted::Parts };
        let (this, plan) = self.planned(batch, wanted)?;
        let tensors: Vec<&Tensor> = batch.all().chain(&starts).collect();
        let inputs = this.inputs(plan, &tensors)?;
        let mut frame = plan.executor.begin_data(&inputs, true)?;
        plan.executor.advance(&mut frame, usize::MAX, &RunOptions::default())?;
        let graph = plan.executor.graph().clone();
        let outputs = graph.outputs().iter().filter(|(name, _)| name == "loss" || name.starts_with("gradient."));
        let start: Vec<ValueId> = outputs.map(|(_, id)| *id).collect();
        let search = Search { graph: &graph, frame: &frame };
        // The loss comes first: where it is not finite, no gradient says more.
        for id in start {
            if let Some(first) = search.first(id)? {
                let feed = graph.inputs().iter().position(|i| *i == first).map(|n| plan.inputs[n]);
                let origin = this.origin(&graph, first, feed, batch);
                return Err(Error::NotFinite { step, origin });
            }
        }
        Ok(())
    }

    /// What a value is to a user.
    fn origin(&self, graph: &Graph, id: ValueId, feed: Option<Feed>, batch: &Batch<'_>) -> Origin {
        let (inputs, targets) = (batch.inputs.len(), batch.targets.len());
        let node = match (feed, &graph.value(id).source) {
            (Some(Feed::Weight(n) | Feed::Rounded(n)), _) => return Origin::Weight(self.weights[n].name.clone()),
            (Some(Feed::Batch(n)), _) if n < inputs => return Origin::Input(n),
            (Some(Feed::Batch(n)), _) if n < inputs + targets => return Origin::Target(n - inputs),
            (None, Source::Node { node, .. }) => *node,
            _ => return Origin::SampleWeights,
        };
        let node = &graph.nodes()[node];
        let operator = node.operator.name();
        let (backward, name) = match node.name.strip_prefix("gradient of ") {
            Some(name) => (true, name),
            None => (false, &node.name[..]),
        };
        match (self.layer_of(name), backward) {
            (Some(layer), true) => Origin::Gradient { layer, operator },
            (Some(layer), false) => Origin::Layer { layer, operator },
            (None, _) => Origin::Loss { operator },
        }
    }

    /// The layer to which a node of this name belongs.
    fn layer_of(&self, node: &str) -> Option<String> {
        let forward = self.graph.graph.nodes();
        forward.iter().find(|n| n.name == node).map(|n| n.name.clone())
    }
}

struct Search<'a> {
    graph: &'a Graph,
    frame: &'a Frame,
}

impl Search<'_> {
    fn is_finite(&self, id: ValueId) -> Result<bool> {
        Ok(match self.frame.data(id) {
            Some(Data::Tensor(t)) if matches!(t.dtype(), DType::F32 | DType::F16) => {
                t.to_vec()?.iter().all(|v| v.is_finite())
            }
            _ => true,
        })
    }

    /// The first value that is not finite among those on which a value depends through values that are not finite;
    /// `None` if the value itself is finite.
    fn first(&self, id: ValueId) -> Result<Option<ValueId>> {
        if self.is_finite(id)? {
            return Ok(None);
        }
        let (mut seen, mut open) = (BTreeSet::from([id]), vec![id]);
        let mut first: Option<ValueId> = None;
        while let Some(id) = open.pop() {
            let mut from = Vec::new();
            if let Source::Node { node, .. } = self.graph.value(id).source {
                for &input in self.graph.nodes()[node].inputs.iter().flatten() {
                    if !self.is_finite(input)? {
                        from.push(input);
                    }
                }
            }
            if from.is_empty() {
                // Values are in the order in which they are computed.
                first = Some(first.map_or(id, |f| f.min(id)));
            }
            open.extend(from.into_iter().filter(|id| seen.insert(*id)));
        }
        Ok(first)
    }
}
