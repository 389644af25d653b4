//! Weights in host memory, by name.

use crate::{Error, Result};
use recurve_graph::Parameters;
use std::collections::BTreeMap;

/// A named weight: a shape and its elements, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f32>,
}

/// Weights by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(BTreeMap<String, Array>);

impl Weights {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a weight.
    ///
    /// # Errors
    /// [`Error::WeightShape`] if `data` does not have the elements of `shape`.
    pub fn insert(&mut self, name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> Result<()> {
        let name = name.into();
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count != Some(data.len()) {
            return Err(Error::WeightShape { name, expected: shape.to_vec(), got: vec![data.len()] });
        }
        self.0.insert(name, Array { shape: shape.to_vec(), data });
        Ok(())
    }

    /// The weight with this name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.0.get(name)
    }

    /// Names and weights, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.0.iter().map(|(n, a)| (n.as_str(), a))
    }

    /// Number of elements of all weights.
    pub fn count(&self) -> usize {
        self.0.values().map(|a| a.data.len()).sum()
    }

    /// The elements of the weight with this name and shape.
    ///
    /// # Errors
    /// [`Error::MissingWeight`] or [`Error::WeightShape`].
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let a = self.require(name)?;
        if a.shape != shape {
            return Err(Error::WeightShape { name: name.into(), expected: shape.to_vec(), got: a.shape.clone() });
        }
        Ok(&a.data)
    }

    /// The weight with this name.
    ///
    /// # Errors
    /// [`Error::MissingWeight`].
    pub fn require(&self, name: &str) -> Result<&Array> {
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

impl Parameters for Weights {
    fn parameter(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.get(name).map(|a| (&a.shape[..], &a.data[..]))
    }
}
