//! What a step learns from, and what it gives.

use recurve_layers::State;
use recurve_tensor::Tensor;

/// What a network learns from in one step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The inputs of the network, in order.
    pub inputs: &'a [&'a Tensor],
    /// What each of its outputs should be, as its [`Loss`] wants it.
    pub targets: &'a [&'a Tensor],
    /// Weights of the samples, for every output, as [`Loss::add`] takes them.
    pub sample_weights: Option<&'a Tensor>,
    /// Which timesteps are valid, `[B, T]`, U32: Keras's mask. It also says which timesteps of a sequence count in the
    /// loss.
    pub mask: Option<&'a Tensor>,
    /// The number of valid timesteps of each sequence, `[B]`, U32, as a mask. Not together with one.
    pub lengths: Option<&'a Tensor>,
    /// The initial states of the recurrent layers, one each. Without them layers begin with zeros, and those that are
    /// stateful with what they keep.
    pub states: Option<&'a [State]>,
}

impl<'a> Batch<'a> {
    /// Inputs with their targets.
    pub const fn new(inputs: &'a [&'a Tensor], targets: &'a [&'a Tensor]) -> Self {
        Self { inputs, targets, sample_weights: None, mask: None, lengths: None, states: None }
    }

    /// The same with weights of the samples.
    #[must_use]
    pub const fn sample_weights(self, weights: &'a Tensor) -> Self {
        Self { sample_weights: Some(weights), ..self }
    }

    /// The same with a mask.
    #[must_use]
    pub const fn mask(self, mask: &'a Tensor) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// The same with lengths.
    #[must_use]
    pub const fn lengths(self, lengths: &'a Tensor) -> Self {
        Self { lengths: Some(lengths), ..self }
    }

    /// The same with initial states.
    #[must_use]
    pub const fn states(self, states: &'a [State]) -> Self {
        Self { states: Some(states), ..self }
    }

    /// Everything but the states, in the order of the plan's own inputs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Tensor> {
        let more = [self.sample_weights, self.mask, self.lengths].into_iter().flatten();
        self.inputs.iter().chain(self.targets).copied().chain(more)
    }
}

/// What a step computed. Nothing has been read from the device yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepResult {
    /// The loss before the step, `[1]`, with all penalties; of a network with several outputs the sum of their losses with
    /// their weights.
    pub loss: Tensor,
    /// The loss of each output, if there are several.
    pub losses: Vec<Tensor>,
    /// For each metric its weighted sum and the sum of the weights, `[2]`, if it is a mean
    /// ([`MetricState::add`](crate::MetricState::add)). Others are computed in host memory.
    pub metrics: Vec<Option<Tensor>>,
    /// The outputs of the network before the step.
    pub outputs: Vec<Tensor>,
    /// For each output the mask by which it counts, f32 of 0 and 1, if there is one.
    pub masks: Vec<Option<Tensor>>,
    /// The final states of the recurrent layers, one each.
    pub states: Vec<State>,
}
