//! `Functional`: networks built by calling layers on values, as in Keras's functional API.

use crate::config::{InputConfig, NamedLayer, NetworkConfig, OutputConfig, ValueRef};
use crate::layer::bad_option;
use crate::network::initialized;
use crate::{LayerConfig, Network, Result};
use recurve_tensor::Device;

/// Builds a network by calling layers on values, as in Keras's functional API. Networks may have several inputs and
/// outputs, layers that are called several times with the same weights, and layers that join several values.
///
/// ```
/// use recurve_layers::{Concatenate, Dense, Embedding, Functional, Gru, Lstm};
/// use recurve_tensor::{Device, Tensor};
/// # fn main() -> Result<(), recurve_layers::Error> {
/// let mut net = Functional::new();
/// let words = net.ids("words", &[None, None]);
/// let prices = net.input("prices", &[None, None, Some(3)]);
/// let text = net.add(Embedding::new(1000, 16), &[&words])?;
/// let text = net.add(Lstm::new(8), &[&text[0]])?;
/// let series = net.add(Gru::new(8), &[&prices])?;
/// let both = net.add(Concatenate::new(), &[&text[0], &series[0]])?;
/// let score = net.add(Dense::new(1), &[&both[0]])?;
/// let network = net.output("score", &score[0]).build(&Device::Cpu)?;
///
/// let words = Tensor::from_u32(&[1, 2, 3], &[1, 3], &Device::Cpu)?;
/// let prices = Tensor::from_f32(&[0.5; 6], &[1, 2, 3], &Device::Cpu)?;
/// let out = network.forward_named(&[("words", &words), ("prices", &prices)])?;
/// assert_eq!(out[0].dims(), [1, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Functional {
    config: NetworkConfig,
    seed: u64,
}

/// A layer of a [`Functional`] that can be called several times with the same weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLayer(usize);

impl Default for Functional {
    fn default() -> Self {
        Self::new()
    }
}

impl Functional {
    /// A builder with no inputs and no layers.
    pub fn new() -> Self {
        Self { config: NetworkConfig { inputs: Vec::new(), layers: Vec::new(), outputs: Vec::new() }, seed: 0 }
    }

    /// Adds an input of floats: `[batch, timesteps, features]` or `[batch, features]`; `None` stands for any size.
    pub fn input(&mut self, name: &str, shape: &[Option<usize>]) -> ValueRef {
        self.input_of(name, shape, false)
    }

    /// Adds an input of ids, `[batch, timesteps]`.
    pub fn ids(&mut self, name: &str, shape: &[Option<usize>]) -> ValueRef {
        self.input_of(name, shape, true)
    }

    fn input_of(&mut self, name: &str, shape: &[Option<usize>], ids: bool) -> ValueRef {
        self.config.inputs.push(InputConfig { name: name.into(), shape: shape.to_vec(), ids });
        ValueRef::new(name)
    }

    /// Adds a layer with this name, to be called later.
    pub fn layer(&mut self, name: &str, layer: impl Into<LayerConfig>) -> SharedLayer {
        self.config.layers.push(NamedLayer { name: name.into(), layer: layer.into(), calls: Vec::new() });
        SharedLayer(self.config.layers.len() - 1)
    }

    /// Calls a layer and returns its outputs; with `return_state` they include its final states. Most layers take one
    /// input. A recurrent layer may also take its initial states, in the order of [`crate::Lstm::return_state`].
    ///
    /// # Errors
    /// [`crate::Error::Input`] if a shape does not suit the layer, [`crate::Error::Option`] if options contradict each
    /// other or a value does not exist.
    pub fn call(&mut self, layer: SharedLayer, inputs: &[&ValueRef]) -> Result<Vec<ValueRef>> {
        let Some(own) = self.config.layers.get_mut(layer.0) else {
            return Err(bad_option("network", "layer", "belongs to another network"));
        };
        let (name, call) = (own.name.clone(), own.calls.len());
        own.calls.push(inputs.iter().map(|&v| v.clone()).collect());
        // Layers that have not been called yet are left out.
        let mut begun = self.config.clone();
        begun.layers.iter_mut().filter(|l| l.calls.is_empty()).for_each(|l| l.name.clear());
        begun.layers.retain(|l| !l.name.is_empty());
        begun.outputs = vec![OutputConfig { name: "output".into(), value: ValueRef { call, ..ValueRef::new(&*name) } }];
        let mut count = 0;
        let fits = begun.walk(|v| {
            if (v.name, v.call) == (&name, call) {
                count = v.outputs.len();
            }
            Ok(())
        });
        if let Err(e) = fits {
            self.config.layers[layer.0].calls.pop();
            return Err(e);
        }
        Ok((0..count).map(|output| ValueRef { of: name.clone(), call, output }).collect())
    }

    /// Adds a layer that is called once, and calls it. It is named after its class, as in Keras.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn add(&mut self, layer: impl Into<LayerConfig>, inputs: &[&ValueRef]) -> Result<Vec<ValueRef>> {
        let layer = layer.into();
        let name = self.config.free_name(layer.class_name());
        let layer = self.layer(&name, layer);
        self.call(layer, inputs).inspect_err(|_| {
            self.config.layers.pop();
        })
    }

    /// Makes a value an output of the network, called `name`.
    pub fn output(&mut self, name: &str, value: &ValueRef) -> &mut Self {
        self.config.outputs.push(OutputConfig { name: name.into(), value: value.clone() });
        self
    }

    /// Sets the seed of the initial weights, which is 0 by default.
    pub fn seed(&mut self, seed: u64) -> &mut Self {
        self.seed = seed;
        self
    }

    /// The description of the network.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Builds the network with initial weights.
    ///
    /// # Errors
    /// [`crate::Error::Option`] if there is no input, no layer or no output, two have the same name, or a layer is
    /// never called; errors of the device.
    pub fn build(&self, device: &Device) -> Result<Network> {
        initialized(&self.config, self.seed, device)
    }
}
