//! Layers one after another.

use crate::recurrent::{initialize, weight_shapes};
use crate::summary::{LayerSummary, Summary, show};
use crate::{CallArgs, Dense, Error, LayerConfig, RecurrentLayer, Result, Weights, init};
use recurve_tensor::{DType, Device, MatmulOptions, Tensor};
use std::sync::Arc;

/// A stack of layers to be built, as Keras's `Sequential`.
///
/// ```
/// use recurve_layers::{Dense, Embedding, Sequential, SimpleRnn};
/// use recurve_tensor::{Activation, Device};
/// # fn main() -> Result<(), recurve_layers::Error> {
/// let network = Sequential::new()
///     .add(Embedding::new(10_000, 32))
///     .add(SimpleRnn::new(32).return_sequences(true))
///     .add(SimpleRnn::new(32))
///     .add(Dense::new(1).activation(Activation::Sigmoid))
///     .build(&[None, None], &Device::Cpu)?;
/// assert_eq!(network.summary().total_params, 320_000 + 2 * 2_080 + 33);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sequential {
    layers: Vec<LayerConfig>,
    seed: u64,
}

impl Sequential {
    /// No layers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "Keras's name")]
    pub fn add(mut self, layer: impl Into<LayerConfig>) -> Self {
        self.layers.push(layer.into());
        self
    }

    /// The seed of the initial weights; 0 unless set. The same seed gives the same weights on
    /// every machine.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Builds the layers with fresh weights for an input of this shape, `None` standing for any
    /// size: `[batch, timesteps]` of ids where an [`crate::Embedding`] is first, else
    /// `[batch, timesteps, features]`.
    ///
    /// # Errors
    /// [`Error::Input`] if a layer does not fit the one before it, [`Error::Option`] if a
    /// description contradicts itself; errors of the device.
    pub fn build(&self, input_shape: &[Option<usize>], device: &Device) -> Result<Network> {
        let mut weights = Weights::new();
        let mut seed = self.seed;
        walk(&self.layers, input_shape, |name, prefix, layer, shape| {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let input = features(name, layer, shape)?;
            if let LayerConfig::Recurrent(r) = layer {
                return initialize(r, input, prefix, seed, &mut weights);
            }
            let mut rng = init::rng(seed);
            for (name, dims) in shapes(layer, input, prefix) {
                let data = match (layer, &dims[..]) {
                    (LayerConfig::Embedding(_), &[r, c]) => {
                        // Keras's default for embeddings: uniform in ±0.05.
                        init::Initializer::Uniform { limit: 0.05 }.matrix(r, c, c, &mut rng)
                    }
                    (_, &[r, c]) => init::Initializer::GlorotUniform.matrix(r, c, c, &mut rng),
                    _ => vec![0.0; dims.iter().product()],
                };
                weights.insert(name, &dims, data)?;
            }
            Ok(())
        })?;
        Network::new(&self.layers, input_shape, Arc::new(weights), device)
    }
}

/// A layer with its weights on a device.
#[derive(Debug)]
#[non_exhaustive]
pub enum Layer {
    /// The table, `[V, W]`.
    Embedding(Tensor),
    /// A recurrent layer.
    Recurrent(Box<RecurrentLayer>),
    /// A fully connected layer.
    Dense {
        /// `[units, features]`
        weight: Tensor,
        /// `[units]`
        bias: Option<Tensor>,
        /// Its description.
        config: Dense,
    },
    /// The identity.
    Dropout,
}

/// Layers with weights, on a device.
#[derive(Debug)]
pub struct Network {
    configs: Vec<LayerConfig>,
    input_shape: Vec<Option<usize>>,
    layers: Vec<Layer>,
    summaries: Vec<LayerSummary>,
    weights: Arc<Weights>,
    device: Device,
}

type Shape = [Option<usize>];

impl Network {
    /// Layers with these weights, named `layers.N.…`.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::Option`], [`Error::MissingWeight`], [`Error::ExtraWeight`],
    /// [`Error::WeightShape`]; errors of the device.
    pub fn new(configs: &[LayerConfig], input_shape: &Shape, weights: Arc<Weights>, device: &Device) -> Result<Self> {
        let mut layers = Vec::new();
        let mut summaries = Vec::new();
        let mut known = 0;
        walk(configs, input_shape, |name, prefix, config, shape| {
            let input = features(name, config, shape)?;
            let shapes = shapes(config, input, prefix);
            known += shapes.len();
            for (name, dims) in &shapes {
                weights.expect(name, dims)?;
            }
            let tensor = |n: usize| {
                let (name, dims) = &shapes[n];
                Tensor::from_f32(weights.expect(name, dims)?, dims, device).map_err(Error::from)
            };
            layers.push(match config {
                LayerConfig::Embedding(_) => Layer::Embedding(tensor(0)?),
                LayerConfig::Recurrent(spec) => {
                    Layer::Recurrent(Box::new(RecurrentLayer::new(name, spec, input, &weights, prefix, device)?))
                }
                LayerConfig::Dense(d) => Layer::Dense {
                    weight: tensor(0)?,
                    bias: if d.use_bias { Some(tensor(1)?) } else { None },
                    config: d.clone(),
                },
                LayerConfig::Dropout(_) => Layer::Dropout,
            });
            summaries.push(LayerSummary {
                name: name.into(),
                class: config.class_name(),
                input_shape: shape.to_vec(),
                output_shapes: output_shapes(name, config, shape)?,
                params: shapes.iter().map(|(_, d)| d.iter().product::<usize>()).sum(),
            });
            Ok(())
        })?;
        if known != weights.iter().count() {
            let mut expected = Vec::new();
            walk(configs, input_shape, |name, prefix, config, shape| {
                expected.extend(shapes_of(name, config, prefix, shape)?);
                Ok(())
            })?;
            if let Some((name, _)) = weights.iter().find(|(n, _)| expected.iter().all(|(e, _)| e != n)) {
                return Err(Error::ExtraWeight { name: name.into() });
            }
        }
        Ok(Self {
            configs: configs.to_vec(),
            input_shape: input_shape.to_vec(),
            layers,
            summaries,
            weights,
            device: device.clone(),
        })
    }

    /// The same network on another device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Self::new(&self.configs, &self.input_shape, self.weights.clone(), device)
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The layers' descriptions.
    pub fn configs(&self) -> &[LayerConfig] {
        &self.configs
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The shape of the input, `None` standing for any size.
    pub fn input_shape(&self) -> &[Option<usize>] {
        &self.input_shape
    }

    /// The element type of the input: U32 where ids go in.
    pub fn input_dtype(&self) -> DType {
        if matches!(self.configs.first(), Some(LayerConfig::Embedding(_))) { DType::U32 } else { DType::F32 }
    }

    /// The weights, as the native file holds them.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// Layers, shapes and parameters, as Keras prints them.
    pub fn summary(&self) -> Summary {
        Summary::new("sequential", self.summaries.clone())
    }

    /// The output for an input.
    ///
    /// # Errors
    /// [`Error::Input`] if `x` has the wrong shape; errors of the layers and the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward_all(x, &CallArgs::default())?.swap_remove(0))
    }

    /// All outputs: one, or with `return_state` in the last layer its states too.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_all(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        let mut values = vec![self.checked(x)?];
        for layer in &self.layers {
            values = apply(layer, &values[0], args)?;
        }
        Ok(values)
    }

    /// The first output of every layer, in order.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_traced(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        let mut value = self.checked(x)?;
        self.layers
            .iter()
            .map(|layer| {
                value = apply(layer, &value, args)?.swap_remove(0);
                Ok(value.clone())
            })
            .collect()
    }

    /// Makes every stateful layer forget.
    pub fn reset_states(&self) {
        for layer in &self.layers {
            if let Layer::Recurrent(r) = layer {
                r.reset_states();
            }
        }
    }

    fn checked(&self, x: &Tensor) -> Result<Tensor> {
        let fits = x.dims().len() == self.input_shape.len()
            && x.dims().iter().zip(&self.input_shape).all(|(d, s)| s.is_none_or(|s| s == *d));
        if !fits {
            let letters =
                if self.input_dtype() == DType::U32 { "[batch, timesteps]" } else { "[batch, timesteps, features]" };
            return Err(Error::Input {
                layer: self.summaries.first().map_or("input", |l| &l.name).into(),
                expected: format!("{letters} = {}", show(&self.input_shape)),
                got: x.shape().to_string(),
            });
        }
        Ok(x.clone())
    }
}

fn apply(layer: &Layer, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
    Ok(match layer {
        Layer::Embedding(table) => vec![table.gather(x)?],
        Layer::Recurrent(r) => r.call(x, args)?,
        Layer::Dense { weight, bias, config } => {
            let options =
                MatmulOptions { transpose_rhs: true, bias: bias.as_ref(), activation: config.activation.into() };
            vec![x.matmul_with(weight, &options)?]
        }
        Layer::Dropout => vec![x.clone()],
    })
}

/// Visits every layer with its name, the prefix of its weights and the shape that goes into it.
fn walk(
    configs: &[LayerConfig],
    input_shape: &Shape,
    mut visit: impl FnMut(&str, &str, &LayerConfig, &Shape) -> Result<()>,
) -> Result<()> {
    if configs.is_empty() {
        return Err(Error::Option { layer: "sequential".into(), argument: "layers", message: "is empty".into() });
    }
    let mut shape = input_shape.to_vec();
    let mut classes: Vec<&str> = Vec::new();
    for (n, config) in configs.iter().enumerate() {
        let class = config.class_name();
        let before = classes.iter().filter(|c| **c == class).count();
        classes.push(class);
        let name = match before {
            0 => snake_case(class),
            k => format!("{}_{k}", snake_case(class)),
        };
        visit(&name, &format!("layers.{n}"), config, &shape)?;
        let outputs = output_shapes(&name, config, &shape)?;
        if outputs.len() > 1 && n + 1 < configs.len() {
            return Err(Error::Option {
                layer: name,
                argument: "return_state",
                message: "gives several outputs, which only the last layer of a Sequential may do".into(),
            });
        }
        shape.clone_from(&outputs[0]);
    }
    Ok(())
}

/// `SimpleRNN` to `simple_rnn`, as Keras names layers.
fn snake_case(class: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in class.chars() {
        if c.is_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_lowercase();
        out.extend(c.to_lowercase());
    }
    out
}

fn bad_input(name: &str, expected: &str, shape: &Shape) -> Error {
    Error::Input { layer: name.into(), expected: expected.into(), got: show(shape) }
}

/// The size of the last dimension that goes into a layer (of an Embedding: the number of ids).
fn features(name: &str, config: &LayerConfig, shape: &Shape) -> Result<usize> {
    match config {
        LayerConfig::Embedding(e) => match shape.len() {
            2 => Ok(e.input_dim),
            _ => Err(bad_input(name, "ids of shape [batch, timesteps]", shape)),
        },
        LayerConfig::Recurrent(r) => match shape {
            &[_, _, Some(f)] => Ok(f),
            _ if r.time_major => Err(bad_input(name, "[timesteps, batch, features] with known features", shape)),
            _ => Err(bad_input(name, "[batch, timesteps, features] with known features", shape)),
        },
        LayerConfig::Dense(_) => match shape {
            [_, .., Some(f)] => Ok(*f),
            _ => Err(bad_input(name, "[batch, …, features] with known features", shape)),
        },
        LayerConfig::Dropout(d) if !(0.0..1.0).contains(&d.rate) => Err(Error::Option {
            layer: name.into(),
            argument: "rate",
            message: format!("must be in [0, 1), but it is {}", d.rate),
        }),
        LayerConfig::Dropout(_) => Ok(0),
    }
}

fn shapes_of(name: &str, config: &LayerConfig, prefix: &str, shape: &Shape) -> Result<Vec<(String, Vec<usize>)>> {
    Ok(shapes(config, features(name, config, shape)?, prefix))
}

/// Names and shapes of a layer's weights.
fn shapes(config: &LayerConfig, input: usize, prefix: &str) -> Vec<(String, Vec<usize>)> {
    match config {
        LayerConfig::Embedding(e) => vec![(format!("{prefix}.weight"), vec![e.input_dim, e.output_dim])],
        LayerConfig::Recurrent(r) => weight_shapes(r, input, prefix),
        LayerConfig::Dense(d) => {
            let mut all = vec![(format!("{prefix}.weight"), vec![d.units, input])];
            if d.use_bias {
                all.push((format!("{prefix}.bias"), vec![d.units]));
            }
            all
        }
        LayerConfig::Dropout(_) => Vec::new(),
    }
}

/// The shapes that come out of a layer.
fn output_shapes(name: &str, config: &LayerConfig, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
    features(name, config, shape)?;
    Ok(match config {
        LayerConfig::Embedding(e) => vec![vec![shape[0], shape[1], Some(e.output_dim)]],
        LayerConfig::Dense(d) => {
            let mut out = shape.to_vec();
            *out.last_mut().expect("checked to have a last dimension") = Some(d.units);
            vec![out]
        }
        LayerConfig::Dropout(_) => vec![shape.to_vec()],
        LayerConfig::Recurrent(r) => {
            let batch = shape[usize::from(r.time_major)];
            let last = Some(r.output_size());
            let output = if r.return_sequences { vec![shape[0], shape[1], last] } else { vec![batch, last] };
            let states = if matches!(r.cell.kind, crate::config::CellName::Lstm) { 2 } else { 1 };
            let count = if r.return_state { states * r.directions() } else { 0 };
            std::iter::once(output).chain(std::iter::repeat_n(vec![batch, Some(r.units)], count)).collect()
        }
    })
}
