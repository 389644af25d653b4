//! Graphs that compute the same with less work.

use crate::ops::{Activate, Binary, Gather, Linear, MatMul, Recurrent};
use crate::{Constant, Dim, Graph, Operator, Result, Source, ValueId};
use recurve_vocabulary::Activation;
use std::sync::Arc;

/// Bytes of a table that takes the place of an embedding and an input product, at most.
const MAX_TABLE: usize = 32 << 20;

impl Graph {
    /// The same graph with less to compute: what depends on constants alone is computed, a product with its bias
    /// and activation becomes one node, and a recurrent layer behind an embedding looks up what its input weights
    /// make of each id. Nodes that nothing needs any more stay, for those who trace a run; others never run them.
    ///
    /// # Errors
    /// Those of constants that cannot be computed.
    pub fn simplified(mut self) -> Result<Self> {
        self.fold_constants()?;
        self.fuse_products();
        self.look_up_tokens();
        Ok(self)
    }

    /// Computes nodes whose inputs are all constants.
    fn fold_constants(&mut self) -> Result<()> {
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let computed = self.computed(&node.name, &*node.operator, &node.inputs, node.outputs.len())?;
            let Some(outputs) = computed else { continue };
            for (id, output) in node.outputs.clone().into_iter().zip(outputs.into_iter().flatten()) {
                let value = &mut self.values[id.0];
                let numbers = Constant::of(&output, value.kind.dtype)?;
                value.kind.dims = output.dims().iter().copied().map(Dim::Size).collect();
                value.source = Source::Constant(numbers);
            }
        }
        let made = |v: &crate::Value| matches!(v.source, Source::Node { .. });
        let keep: Vec<bool> = self.nodes.iter().map(|n| n.outputs.iter().any(|o| made(&self.values[o.0]))).collect();
        let mut place = 0;
        for n in 0..keep.len() {
            if keep[n] {
                for id in self.nodes[n].outputs.clone() {
                    if let Source::Node { node, .. } = &mut self.values[id.0].source {
                        *node = place;
                    }
                }
                place += 1;
            }
        }
        let mut keep = keep.into_iter();
        self.nodes.retain(|_| keep.next().expect("one for each node"));
        Ok(())
    }

    /// The node that makes a value.
    fn maker(&self, id: ValueId) -> Option<usize> {
        match self.values[id.0].source {
            Source::Node { node, .. } => Some(node),
            _ => None,
        }
    }

    fn operator<T: Operator + 'static>(&self, node: usize) -> Option<&T> {
        self.nodes[node].operator.as_any().downcast_ref()
    }

    /// The only node that uses a value, if it is no output.
    fn only_user(&self, id: ValueId) -> Option<usize> {
        let mut users = self.users(id);
        let user = users.next()?;
        let uses = self.nodes[user].inputs.iter().filter(|i| **i == Some(id)).count();
        (users.next().is_none() && uses == 1 && self.outputs.iter().all(|(_, o)| *o != id)).then_some(user)
    }

    /// A product with the sum and the activation behind it.
    fn fuse_products(&mut self) {
        for n in 0..self.nodes.len() {
            let mut linear = match (self.operator::<MatMul>(n), self.operator::<Linear>(n)) {
                (_, Some(linear)) => *linear,
                (Some(_), _) => Linear { transposed: false, activation: Activation::Linear },
                _ => continue,
            };
            let inputs = &self.nodes[n].inputs;
            let rank = |id: Option<ValueId>| id.map_or(0, |id| self.values[id.0].kind.rank());
            if rank(inputs[1]) != 2 || linear.activation != Activation::Linear {
                continue;
            }
            let (mut inputs, mut last) = (inputs.clone(), n);
            let follower = |g: &Self, last: usize| g.only_user(g.nodes[last].outputs[0]);
            if inputs.get(2).copied().flatten().is_none()
                && let Some(user) = follower(self, last)
                && let Some(Binary::Add) = self.operator(user)
                && let Some(bias) =
                    self.nodes[user].inputs.iter().flatten().copied().find(|i| self.maker(*i) != Some(last))
                && matches!(self.values[bias.0].source, Source::Parameter | Source::Constant(_))
                && let [units] = &self.values[bias.0].kind.dims[..]
                && self.values[self.nodes[last].outputs[0].0].kind.dims.last() == Some(units)
            {
                inputs.resize(2, None);
                inputs.push(Some(bias));
                last = user;
            }
            if let Some(user) = follower(self, last)
                && let Some(Activate(f)) = self.operator(user)
            {
                linear.activation = *f;
                last = user;
            }
            if last != n {
                // It stands where the last of them stood: its bias may come after the product.
                let node = &mut self.nodes[last];
                node.operator = Arc::new(linear);
                node.inputs = inputs;
            }
        }
    }

    /// A recurrent layer behind an embedding.
    fn look_up_tokens(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(layer) = self.operator::<Recurrent>(n).filter(|l| !l.tokens) else { continue };
            let Some(maker) = self.nodes[n].inputs[0].and_then(|x| self.maker(x)) else { continue };
            if self.operator::<Gather>(maker).is_none() {
                continue;
            }
            let &[Some(table), Some(ids)] = &self.nodes[maker].inputs[..] else { continue };
            let fixed = matches!(self.values[table.0].source, Source::Parameter | Source::Constant(Constant::Float(_)));
            let (Some(Some(rows)), 2) =
                (self.values[table.0].kind.dims.first().map(Dim::size), self.values[ids.0].kind.rank())
            else {
                continue;
            };
            let columns = layer.cell.kind.gates() * layer.hidden_size * layer.directions.len();
            if !fixed || rows.saturating_mul(columns).saturating_mul(size_of::<f32>()) > MAX_TABLE {
                continue;
            }
            let layer = Recurrent { tokens: true, ..layer.clone() };
            let node = &mut self.nodes[n];
            node.inputs[0] = Some(ids);
            node.inputs[Recurrent::TABLE] = Some(table);
            node.operator = Arc::new(layer);
        }
    }
}
