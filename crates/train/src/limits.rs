//! Weights that are constrained after each step.

use crate::error::check;
use crate::plan::Ends;
use crate::{Result, Training};
use recurve_graph::{Assembly, ValueId};
use recurve_layers::TrainingGraph;
use std::collections::BTreeMap;

/// The values of weights by name.
pub(crate) type Values = BTreeMap<String, ValueId>;

/// Checks that weights that are constrained together are trained together.
pub(crate) fn check_constraints(graph: &TrainingGraph, trained: impl Fn(&str) -> bool) -> Result<()> {
    for constrained in &graph.constraints {
        let count = constrained.weights().iter().filter(|name| trained(name)).count();
        check("training", "frozen", count == 0 || count == constrained.weights().len(), || {
            format!("has some of {}, which are constrained together", constrained.weights().join(", "))
        })?;
    }
    Ok(())
}

impl Training {
    /// Adds the constrained weights to what a batch gives whose gradients are added up: constraints hold after every
    /// batch, as in Keras.
    pub(crate) fn constrain_weights(
        &self,
        a: &mut Assembly,
        (trained, ids): (&[usize], &[ValueId]),
        ends: &mut Ends,
    ) -> Result<()> {
        let name = |n: usize| &self.weights[n].name;
        let mut values: Values = trained.iter().zip(ids).map(|(&n, &id)| (name(n).clone(), id)).collect();
        self.constrain(a, &mut values)?;
        for (&n, _) in trained.iter().zip(ids).filter(|(n, id)| values[name(**n)] != **id) {
            ends.named.push((format!("weight.{n}"), values[name(n)]));
            ends.results.push((n, 0));
        }
        Ok(())
    }

    /// Adds nodes that constrain weights, and puts what they give in the place of the values after a step.
    pub(crate) fn constrain(&self, a: &mut Assembly, values: &mut Values) -> Result<()> {
        for constrained in &self.graph.constraints {
            let names = constrained.weights();
            let own: Option<Vec<ValueId>> = names.iter().map(|name| values.get(name).copied()).collect();
            // Weights that are not trained stay as they are.
            if let Some(own) = own {
                let limited = constrained.add(a, &own)?;
                values.extend(names.iter().cloned().zip(limited));
            }
        }
        Ok(())
    }
}
