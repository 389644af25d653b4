//! Numbers of training by name, and by epoch.

use serde::{Deserialize, Serialize};

/// Numbers by name, in the order in which they were added: `loss`, the metrics, the same with `val_` before the name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Logs(Vec<(String, f64)>);

impl Logs {
    /// The number with this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// Adds a number, or replaces the one with this name.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Names and numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.0.iter().map(|(n, v)| (&**n, *v))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What [`Trainer::fit`](crate::Trainer::fit) measured, one value an epoch: Keras's `History`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct History {
    /// The numbers of the epochs, of which the first is 0.
    pub epochs: Vec<usize>,
    /// What was measured in each of them.
    pub logs: Vec<Logs>,
}

impl History {
    /// The epochs in which a number was measured, and its values. Validation may not run in every epoch.
    pub fn series(&self, name: &str) -> Vec<(usize, f64)> {
        let epochs = self.epochs.iter().zip(&self.logs);
        epochs.filter_map(|(epoch, logs)| Some((*epoch, logs.get(name)?))).collect()
    }

    /// The values of a number.
    pub fn get(&self, name: &str) -> Vec<f64> {
        self.series(name).into_iter().map(|(_, v)| v).collect()
    }

    /// The names of all numbers, in the order in which they first appeared.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (name, _) in self.logs.iter().flat_map(Logs::iter) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// How many epochs there were.
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    pub(crate) fn push(&mut self, epoch: usize, logs: Logs) {
        self.epochs.push(epoch);
        self.logs.push(logs);
    }
}
