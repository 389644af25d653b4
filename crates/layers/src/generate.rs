//! Generating tokens. Each token is drawn on the device and is the next input, so nothing is read back in between.

use crate::{CallArgs, Error, Network, NetworkState, Result};
use recurve_tensor::{DType, SampleOptions, Tensor, concat};
use recurve_vocabulary::Rest;

/// How a token is chosen from logits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Sampling {
    /// The token with the largest logit; of equal ones the first.
    #[default]
    Greedy,
    /// Drawn from `softmax(logits / temperature)`.
    Random {
        /// Above 0. Values below 1 favour likely tokens, values above 1 unlikely ones.
        temperature: f32,
        /// Only this many of the largest logits, and those equal to the last of them, can be drawn; `None` for all.
        top_k: Option<usize>,
    },
}

/// Options of [`Network::generate`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerateOptions {
    /// The number of tokens to generate, `N`; at least 1.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// The seed of random sampling. The same seed gives the same tokens on the same device.
    pub seed: u32,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_new_tokens: 1, sampling: Sampling::Greedy, seed: 0, rest: Rest::default() }
    }
}

impl Network {
    /// Generates N tokens after `prompt`, which are ids `[B, T]`. Returns the tokens, U32 `[B, N]`, and the state after
    /// the last token that was an input. The network must end in logits over its vocabulary. It starts with `state`,
    /// such as that of an encoder, or with zeros. Every token becomes an input on the device; nothing is read back.
    ///
    /// # Errors
    /// [`Error::Option`] if no token is asked for, or the network does not take ids or returns only its last output;
    /// otherwise as [`Self::forward_from`], [`Self::step`] and [`Tensor::sample`].
    pub fn generate(
        &self,
        prompt: &Tensor,
        state: Option<&NetworkState>,
        options: &GenerateOptions,
    ) -> Result<(Tensor, NetworkState)> {
        let bad = |argument, message: &str| {
            Err(Error::Option { layer: "generate".into(), argument, message: message.into() })
        };
        if options.max_new_tokens == 0 {
            return bad("max_new_tokens", "must be at least 1");
        }
        if self.input_dtype() != DType::U32 {
            return bad("network", "must take ids: its first layer must be an Embedding");
        }
        let (mut out, mut state) = self.forward_from(prompt, &CallArgs::default(), state)?;
        let y = out.swap_remove(0);
        let mut logits = match *y.dims() {
            [_, _] => y,
            [b, t, v] if b == prompt.dims()[0] => y.slice(1, t - 1..t)?.reshape(&[b, v])?,
            _ => return bad("network", "must end in logits [batch, vocabulary] or [batch, timesteps, vocabulary]"),
        };
        let batch = logits.dims()[0];
        let mut tokens = Vec::new();
        for n in 0..options.max_new_tokens {
            let ids = match options.sampling {
                Sampling::Greedy => logits.argmax(1)?.reshape(&[batch])?,
                Sampling::Random { temperature, top_k } => logits.sample(&SampleOptions {
                    temperature,
                    top_k,
                    seed: options.seed,
                    position: n as u32,
                    ..SampleOptions::default()
                })?,
            };
            if n + 1 < options.max_new_tokens {
                (logits, state) = self.step(&ids, Some(&state))?;
            }
            tokens.push(ids.reshape(&[batch, 1])?);
        }
        Ok((concat(&tokens.iter().collect::<Vec<_>>(), 1)?, state))
    }
}
