//! Layers one after another.

use crate::layer::{Shape, bad_option};
use crate::module::Values;
use crate::summary::{LayerSummary, Summary, show};
use crate::{CallArgs, Dense, Error, LayerConfig, RecurrentLayer, Result, StackedLayer, State, Weights};
use recurve_kernels::TokenTable;
use recurve_tensor::{DType, Device, MAX_RANK, MatmulOptions, Tensor};
use smallvec::{SmallVec, smallvec};
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
            let input = layer.module().features(name, shape)?;
            layer.module().initialize(input, prefix, seed, &mut weights)
        })?;
        Network::new(&self.layers, input_shape, Arc::new(weights), device)
    }
}

/// A layer with its weights on a device.
#[derive(Debug)]
#[non_exhaustive]
pub enum Layer {
    /// An embedding.
    Embedding {
        /// The table, `[V, W]`.
        table: Tensor,
        /// Id 0 is padding.
        mask_zero: bool,
    },
    /// Padding that has this value.
    Masking {
        /// The value.
        value: f32,
        /// 0 and 1, by which padding and the rest are multiplied.
        factors: Tensor,
    },
    /// A recurrent layer.
    Recurrent(Box<RecurrentLayer>),
    /// Several cells in one layer.
    Stacked(Box<StackedLayer>),
    /// A layer at every timestep.
    TimeDistributed(Box<Layer>),
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

/// The states of a network's recurrent layers, first to last; a layer of stacked cells has one a
/// cell. Those of a layer inside a [`TimeDistributed`] are not among them.
#[derive(Clone, Debug)]
pub struct NetworkState(States);

/// States in place, so that a step of a stream takes no memory from the heap.
pub(crate) type States = SmallVec<[State; 4]>;

impl NetworkState {
    /// The states.
    pub fn states(&self) -> &[State] {
        &self.0
    }
}

impl From<Vec<State>> for NetworkState {
    fn from(states: Vec<State>) -> Self {
        Self(states.into())
    }
}

impl FromIterator<State> for NetworkState {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        Self(states.into_iter().collect())
    }
}

/// Dimensions in place.
type Dims = SmallVec<[usize; MAX_RANK]>;

/// Layers with weights, on a device.
#[derive(Debug)]
pub struct Network {
    configs: Vec<LayerConfig>,
    input_shape: Vec<Option<usize>>,
    layers: Vec<Layer>,
    /// For each layer that is an embedding before a recurrent layer, what its ids contribute to the gates.
    tables: Vec<Option<TokenTable>>,
    summaries: Vec<LayerSummary>,
    weights: Arc<Weights>,
    device: Device,
}

/// Bytes of a table that takes the place of an embedding and an input product, at most.
const MAX_TABLE: usize = 32 << 20;

/// The table of an embedding before a recurrent layer, unless it would be large.
fn token_table(layers: &[Layer]) -> Result<Option<TokenTable>> {
    let [Layer::Embedding { table, .. }, Layer::Recurrent(r), ..] = layers else { return Ok(None) };
    let columns = r.spec().cell.kind.gates() * r.spec().units * r.spec().directions();
    if table.dims()[0] * columns * size_of::<f32>() > MAX_TABLE {
        return Ok(None);
    }
    Ok(Some(r.kernels()[0].token_table(table)?))
}

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
            let input = config.module().features(name, shape)?;
            let shapes = config.module().weights(input, prefix);
            known += shapes.len();
            for (name, dims) in &shapes {
                weights.expect(name, dims)?;
            }
            layers.push(Layer::new(name, config, input, &weights, prefix, device)?);
            summaries.push(LayerSummary {
                name: name.into(),
                class: config.class_name(),
                input_shape: shape.to_vec(),
                output_shapes: config.module().output_shapes(name, shape)?,
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
            tables: (0..layers.len()).map(|n| token_table(&layers[n..])).collect::<Result<_>>()?,
            layers,
            summaries,
            weights,
            device: device.clone(),
        })
    }

    /// Names and shapes of the weights that such layers need, layer by layer, before there are any.
    /// An error of `visit` ends it.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Option`] as [`Self::new`]; those of `visit`.
    pub fn visit_weights(
        configs: &[LayerConfig],
        input_shape: &Shape,
        mut visit: impl FnMut(&str, &[usize]) -> Result<()>,
    ) -> Result<()> {
        walk(configs, input_shape, |name, prefix, config, shape| {
            let needed = shapes_of(name, config, prefix, shape)?;
            needed.iter().try_for_each(|(name, dims)| visit(name, dims))
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
        let ids = self.configs.first().is_some_and(|c| c.module().takes_ids());
        if ids { DType::U32 } else { DType::F32 }
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
    /// As [`Self::forward`]; [`Error::Option`] if a state is given and there is not exactly one
    /// recurrent layer for it.
    pub fn forward_all(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        let state = args.state.map(|s| NetworkState(smallvec![s.clone()]));
        Ok(self.forward_from(x, args, state.as_ref())?.0)
    }

    /// All outputs and the states of all recurrent layers, beginning with `state`, or zeros (or what
    /// stateful layers remember).
    ///
    /// # Errors
    /// As [`Self::forward`]; [`Error::Option`] if `state` does not hold one state a recurrent layer.
    pub fn forward_from(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
    ) -> Result<(Vec<Tensor>, NetworkState)> {
        let mut values = Values::new();
        let end = self.run(x, args, state, false, |v| values = v)?;
        Ok((values.into_vec(), end))
    }

    /// The first output of every layer, in order.
    ///
    /// # Errors
    /// As [`Self::forward_all`].
    pub fn forward_traced(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        let state = args.state.map(|s| NetworkState(smallvec![s.clone()]));
        let mut values = Vec::new();
        self.run(x, args, state.as_ref(), true, |mut v| values.push(v.swap_remove(0)))?;
        Ok(values)
    }

    /// One timestep for streaming: ids `[B]` or features `[B, …]`, and the states from the step
    /// before. The output has no time dimension either. Nothing leaves the device.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that reads backwards, which cannot stream; otherwise as
    /// [`Self::forward_from`].
    pub fn step(&self, x: &Tensor, state: Option<&NetworkState>) -> Result<(Tensor, NetworkState)> {
        self.step_with(x, &CallArgs::default(), state)
    }

    /// [`Self::step`] with lengths (0 for a row whose state stands still) and a strategy.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_with(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
    ) -> Result<(Tensor, NetworkState)> {
        self.check_steps()?;
        let time = usize::from(!self.time_major());
        let mut dims = Dims::from_slice(x.dims());
        if dims.len() + 1 != self.input_shape.len() {
            return Err(Error::Input {
                layer: self.summaries.first().map_or("input", |l| &l.name).into(),
                expected: "one timestep: [batch] of ids or [batch, features]".into(),
                got: x.shape().to_string(),
            });
        }
        dims.insert(time, 1);
        let mut y = None;
        let state = self.run(&x.reshape(&dims)?, args, state, false, |mut v| y = Some(v.swap_remove(0)))?;
        let y = y.expect("a network has at least one layer");
        // A layer that returns only its last output has dropped the time dimension already.
        if !self.configs.iter().all(|c| c.module().keeps_time()) {
            return Ok((y, state));
        }
        let mut dims = Dims::from_slice(y.dims());
        dims.remove(time);
        Ok((y.reshape(&dims)?, state))
    }

    /// Whether a single timestep can run.
    fn check_steps(&self) -> Result<()> {
        for (layer, config) in self.summaries.iter().zip(&self.configs) {
            config.module().check_step(&layer.name)?;
        }
        match self.input_shape.get(usize::from(!self.time_major())) {
            Some(&Some(steps)) if steps != 1 => Err(Error::Option {
                layer: self.summaries[0].name.clone(),
                argument: "input_shape",
                message: format!("fixes the number of timesteps at {steps}, so that no single one can run"),
            }),
            _ => Ok(()),
        }
    }

    /// Whether rows of a batch can be streams of their own, whose states the caller keeps: what
    /// [`Self::check_steps`] asks, any number of rows, no layer that finds padding by itself, and none that
    /// remembers states which are not in a [`NetworkState`].
    pub(crate) fn check_streams(&self) -> Result<()> {
        self.check_steps()?;
        if let Some(&Some(rows)) = self.input_shape.get(usize::from(self.time_major())) {
            let message = format!("fixes the number of sequences at {rows}, but streams come and go");
            return Err(bad_option(&self.summaries[0].name, "input_shape", message));
        }
        let mut layers = self.summaries.iter().zip(&self.configs);
        layers.try_for_each(|(layer, config)| config.module().check_streams(&layer.name))
    }

    pub(crate) fn is_stateful(&self) -> bool {
        self.configs.iter().any(|c| c.module().is_stateful())
    }

    pub(crate) fn time_major(&self) -> bool {
        self.configs.iter().any(|c| c.module().time_major())
    }

    /// Runs the layers; `visit` sees what each returns. Where ids stand for an embedding's rows, it sees the
    /// rows only if it is to see `every` layer's; what runs is the same.
    fn run(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
        every: bool,
        mut visit: impl FnMut(Values),
    ) -> Result<NetworkState> {
        let levels: usize = self.layers.iter().map(Layer::levels).sum();
        if let Some(s) = state
            && s.0.len() != levels
        {
            return Err(Error::Option {
                layer: "network".into(),
                argument: "state",
                message: format!("must hold {levels} states, one a recurrent layer, but it holds {}", s.0.len()),
            });
        }
        let mut value = self.checked(x)?;
        let mut given = state.map_or(&[][..], |s| &s.0);
        let mut ends = States::new();
        // What a layer finds to be padding, for those that follow.
        let mut found: Option<Tensor> = None;
        // The table of the ids that stand for an embedding's rows.
        let mut tokens: Option<&TokenTable> = None;
        for (layer, table_of_ids) in self.layers.iter().zip(&self.tables) {
            let (own, rest) = given.split_at(layer.levels().min(given.len()));
            given = rest;
            let args =
                CallArgs { state: own.first(), mask: args.mask.or(found.as_ref()), tokens: tokens.take(), ..*args };
            let states = (!own.is_empty()).then_some(own);
            let mut mask = found.clone();
            let values = match layer {
                Layer::Embedding { table, mask_zero } => {
                    if *mask_zero {
                        mask = Some(self.batch_first(value.mask(0.0)?)?);
                    }
                    tokens = table_of_ids.as_ref();
                    if tokens.is_some() {
                        found = mask;
                        visit(smallvec![if every { table.gather(&value)? } else { value.clone() }]);
                        continue;
                    }
                    smallvec![table.gather(&value)?]
                }
                Layer::Masking { value: padding, factors } => {
                    let valid = value.mask(*padding)?;
                    let out = value.mul(&factors.gather(&valid)?)?;
                    mask = Some(self.batch_first(valid)?);
                    smallvec![out]
                }
                Layer::Recurrent(r) => {
                    let (values, end) = r.values(&value, &args)?;
                    ends.push(end);
                    if !r.spec().return_sequences {
                        mask = None;
                    }
                    values
                }
                Layer::Stacked(s) => {
                    let values = s.values(&value, &args, states, &mut ends)?;
                    if values[0].shape().rank() < 3 {
                        mask = None;
                    }
                    values
                }
                other => smallvec![other.pointwise(&value, args.ignore_memory)?],
            };
            value = values[0].clone();
            found = mask;
            visit(values);
        }
        Ok(NetworkState(ends))
    }

    /// A mask in the layout of the data as `[B, T]`.
    fn batch_first(&self, mask: Tensor) -> Result<Tensor> {
        if self.time_major() { Ok(mask.transpose(&[1, 0])?) } else { Ok(mask) }
    }

    /// Makes every stateful layer forget.
    pub fn reset_states(&self) {
        self.layers.iter().for_each(Layer::reset_states);
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

impl Layer {
    fn new(
        name: &str,
        config: &LayerConfig,
        input: usize,
        weights: &Weights,
        prefix: &str,
        device: &Device,
    ) -> Result<Self> {
        let shapes = config.module().weights(input, prefix);
        let tensor = |n: usize| {
            let (name, dims) = &shapes[n];
            Tensor::from_f32(weights.expect(name, dims)?, dims, device).map_err(Error::from)
        };
        Ok(match config {
            LayerConfig::Embedding(e) => Self::Embedding { table: tensor(0)?, mask_zero: e.mask_zero },
            LayerConfig::Masking(m) => {
                Self::Masking { value: m.mask_value, factors: Tensor::from_f32(&[0.0, 1.0], &[2, 1], device)? }
            }
            LayerConfig::Recurrent(spec) => {
                Self::Recurrent(Box::new(RecurrentLayer::new(name, spec, input, weights, prefix, device)?))
            }
            LayerConfig::StackedRnnCells(s) => {
                Self::Stacked(Box::new(StackedLayer::new(name, s, input, weights, prefix, device)?))
            }
            LayerConfig::TimeDistributed(t) => {
                Self::TimeDistributed(Box::new(Self::new(name, &t.layer, input, weights, prefix, device)?))
            }
            LayerConfig::Dense(d) => Self::Dense {
                weight: tensor(0)?,
                bias: if d.use_bias { Some(tensor(1)?) } else { None },
                config: d.clone(),
            },
            LayerConfig::Dropout(_) => Self::Dropout,
        })
    }

    /// How many states it has.
    fn levels(&self) -> usize {
        match self {
            Self::Recurrent(_) => 1,
            Self::Stacked(s) => s.layers().len(),
            _ => 0,
        }
    }

    /// Forgets what it and the layers inside it remember.
    fn reset_states(&self) {
        match self {
            Self::Recurrent(r) => r.reset_states(),
            Self::Stacked(s) => s.layers().iter().for_each(RecurrentLayer::reset_states),
            Self::TimeDistributed(inner) => inner.reset_states(),
            Self::Embedding { .. } | Self::Masking { .. } | Self::Dense { .. } | Self::Dropout => {}
        }
    }

    /// The first output of a layer that neither begins with a state nor passes one on.
    fn pointwise(&self, x: &Tensor, ignore_memory: bool) -> Result<Tensor> {
        let args = CallArgs { ignore_memory, ..CallArgs::default() };
        Ok(match self {
            Self::Embedding { table, .. } => table.gather(x)?,
            Self::Masking { value, factors } => x.mul(&factors.gather(&x.mask(*value)?)?)?,
            Self::Recurrent(r) => r.values(x, &args)?.0.swap_remove(0),
            Self::Stacked(s) => s.values(x, &args, None, &mut States::new())?.swap_remove(0),
            Self::TimeDistributed(inner) => {
                let dims = x.dims();
                let mut flat = Dims::from_slice(&dims[1..]);
                flat[0] *= dims[0];
                let y = inner.pointwise(&x.reshape(&flat)?, ignore_memory)?;
                let mut whole = Dims::from_slice(&dims[..2]);
                whole.extend_from_slice(&y.dims()[1..]);
                y.reshape(&whole)?
            }
            Self::Dense { weight, bias, config } => {
                let options = MatmulOptions { transpose_rhs: true, bias: bias.as_ref(), activation: config.activation };
                x.matmul_with(weight, &options)?
            }
            Self::Dropout => x.clone(),
        })
    }
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
        let outputs = config.module().output_shapes(&name, &shape)?;
        if outputs.len() > 1 && n + 1 < configs.len() {
            return Err(Error::Option {
                layer: name,
                argument: "return_state or merge_mode",
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

fn shapes_of(name: &str, config: &LayerConfig, prefix: &str, shape: &Shape) -> Result<Vec<(String, Vec<usize>)>> {
    let module = config.module();
    Ok(module.weights(module.features(name, shape)?, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Embedding, Gru};

    /// What the cross-check compares is what runs: a token table that is not the embedding's shows in the
    /// trace as it does in a call.
    #[test]
    fn a_wrong_token_table_shows_in_a_trace() {
        let layers =
            Sequential::new().add(Embedding::new(5, 3)).add(Gru::new(4).return_sequences(true)).add(Dense::new(2));
        let mut network = layers.build(&[None, None], &Device::Cpu).expect("a network");
        let ids = Tensor::from_u32(&[1, 4, 0, 2], &[2, 2], &Device::Cpu).expect("memory");
        let last = |n: &Network| {
            let trace = n.forward_traced(&ids, &CallArgs::default()).expect("a call");
            assert_eq!(*trace[0].shape(), [2, 2, 3], "the rows of the embedding, not ids");
            let traced = trace.last().expect("layers").to_vec().expect("a read");
            assert_eq!(traced, n.forward(&ids).expect("a call").to_vec().expect("a read"));
            traced
        };
        let right = last(&network);
        let other = Tensor::from_f32(&[0.5; 15], &[5, 3], &Device::Cpu).expect("memory");
        let Layer::Recurrent(gru) = &network.layers[1] else { panic!("the second layer") };
        let wrong = gru.kernels()[0].token_table(&other).expect("a table");
        network.tables[0] = Some(wrong);
        assert_ne!(last(&network), right);
    }
}
