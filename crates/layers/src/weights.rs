//! Weights by name.

use crate::{Error, Result};
use recurve_weights::{Weight, WeightFile};
use std::collections::BTreeMap;
use std::path::Path;

/// Weights by name, in host memory or in a mapped file. Clones share the elements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(BTreeMap<String, Weight>);

impl Weights {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a safetensors file or a file of PyTorch (`torch.save`, TorchScript, `torch.export`), which its contents
    /// tell. The file is mapped, so a tensor is read only when it is needed. The file must not be changed while these
    /// weights or clones of them exist ([`WeightFile::open`]).
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, is damaged, or has a tensor of a type that weights do not have.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::try_from(&WeightFile::open(path)?)?)
    }

    /// Reads weights from the bytes of such a file.
    ///
    /// # Errors
    /// As [`Self::open`]; the errors name "bytes in memory" as the file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Ok(Self::try_from(&WeightFile::from_bytes(bytes)?)?)
    }

    /// The weights whose names start with `prefix` and a dot, without that part of their names.
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        let rest = |name: &str| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned());
        self.0.iter().filter_map(|(name, w)| Some((rest(name)?, w.clone()))).collect()
    }

    /// Adds or replaces a weight.
    ///
    /// # Errors
    /// [`Error::WeightShape`] if `data` does not match `shape`.
    pub fn insert(&mut self, name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> Result<()> {
        let (name, got) = (name.into(), data.len());
        let Ok(weight) = Weight::new(shape, data) else {
            return Err(Error::WeightShape { name, expected: shape.to_vec(), got: vec![got] });
        };
        self.0.insert(name, weight);
        Ok(())
    }

    /// The weight with this name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.0.get(name)
    }

    /// Names and weights, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.0.iter().map(|(n, w)| (n.as_str(), w))
    }

    /// Total number of elements of all weights.
    pub fn count(&self) -> usize {
        self.0.values().map(Weight::count).sum()
    }

    /// The weight with this name; it must have this shape.
    ///
    /// # Errors
    /// [`Error::MissingWeight`] or [`Error::WeightShape`].
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&Weight> {
        let w = self.require(name)?;
        if w.shape() != shape {
            return Err(Error::WeightShape { name: name.into(), expected: shape.to_vec(), got: w.shape().to_vec() });
        }
        Ok(w)
    }

    /// The weight with this name; it must exist.
    ///
    /// # Errors
    /// [`Error::MissingWeight`].
    pub fn require(&self, name: &str) -> Result<&Weight> {
        self.get(name).ok_or_else(|| {
            let names: Vec<_> = self.0.keys().take(8).map(String::as_str).collect();
            let available = match (self.0.len(), names.join(", ")) {
                (0, _) => "nothing".to_owned(),
                (n, names) if n > 8 => format!("{names} and {} more", n - 8),
                (_, names) => names,
            };
            Error::MissingWeight { name: name.into(), available }
        })
    }
}

impl TryFrom<&WeightFile> for Weights {
    type Error = recurve_weights::Error;

    fn try_from(file: &WeightFile) -> Result<Self, Self::Error> {
        file.weights().map(|w| w.map(|(name, w)| (name.to_owned(), w))).collect()
    }
}

impl FromIterator<(String, Weight)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Weight)>>(weights: I) -> Self {
        Self(weights.into_iter().collect())
    }
}

impl Extend<(String, Weight)> for Weights {
    fn extend<I: IntoIterator<Item = (String, Weight)>>(&mut self, weights: I) {
        self.0.extend(weights);
    }
}
