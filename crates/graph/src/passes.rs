//! Passes that make a graph cheaper to run.

use crate::ops::{Activate, Binary, Gather, GatherAt, Gemm, Linear, MatMul, Recurrent, Rnn, Tokens, Transpose};
use crate::{Constant, Dim, Graph, Operator, Result, Source, ValueId, ValueType};
use recurve_tensor::DType;
use recurve_vocabulary::Activation;
use std::sync::Arc;

/// The largest table, in bytes, that may replace an embedding and the input product behind it.
const MAX_TABLE: usize = 32 << 20;

impl Graph {
    /// An equivalent graph that is cheaper to run: values that depend only on constants are computed; a product
    /// followed by its bias and activation becomes one node, and so does a recurrent layer of ONNX followed by a
    /// transposition to the order in which it is computed; a recurrent layer behind an embedding looks up the product of
    /// each id's features and the input weights. The replaced nodes stay in the graph, because a traced run computes
    /// their values too; other runs skip them.
    ///
    /// # Errors
    /// Errors from computing constants.
    pub fn simplified(mut self) -> Result<Self> {
        self.fold_constants()?;
        self.fuse_products();
        self.merge_transpositions();
        self.look_up_tokens();
        self.look_up_ids();
        Ok(self)
    }

    /// Computes the nodes whose inputs are all constants.
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

    /// The only node that uses a value; `None` if there are several or it is an output.
    fn only_user(&self, id: ValueId) -> Option<usize> {
        let mut users = self.users(id);
        let user = users.next()?;
        let uses = self.nodes[user].inputs.iter().filter(|i| **i == Some(id)).count();
        (users.next().is_none() && uses == 1 && self.outputs.iter().all(|(_, o)| *o != id)).then_some(user)
    }

    /// Merges a product with the bias and the activation that follow it into one node.
    fn fuse_products(&mut self) {
        for n in 0..self.nodes.len() {
            let plain = |transposed| Linear { transposed, activation: Activation::Linear };
            let mut linear = match (self.operator::<MatMul>(n), self.operator::<Gemm>(n), self.operator::<Linear>(n)) {
                (_, _, Some(linear)) => *linear,
                (_, Some(g), _) if !g.transpose_a && g.alpha == 1.0 && g.beta == 1.0 => plain(g.transpose_b),
                (Some(_), ..) => plain(false),
                _ => continue,
            };
            let inputs = &self.nodes[n].inputs;
            let kind = |i: usize| inputs.get(i).copied().flatten().map(|id| &self.values[id.0].kind);
            let rank = |i: usize| kind(i).map_or(0, ValueType::rank);
            let floats = [0, 1].iter().all(|&i| kind(i).is_some_and(|t| t.dtype.is_float()));
            let units = kind(1).and_then(|w| w.dims.get(usize::from(!linear.transposed)));
            let fits = kind(2).is_none_or(|b| b.rank() == 1 && b.dims.first() == units);
            if rank(0) < 2 || rank(1) != 2 || !floats || !fits || linear.activation != Activation::Linear {
                continue;
            }
            let (mut inputs, mut last) = (inputs.clone(), n);
            let fixed = |id: ValueId| matches!(self.values[id.0].source, Source::Parameter | Source::Constant(_));
            if self.operator::<Linear>(n).is_none() && inputs[1].is_some_and(fixed) {
                // A product with a weight that is there before a run, which is packed.
                self.nodes[n].operator = Arc::new(linear);
            }
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
                // The merged node takes the place of the last one, because the bias may be computed after the product.
                let node = &mut self.nodes[last];
                node.operator = Arc::new(linear);
                node.inputs = inputs;
            }
        }
    }

    /// Merges the transposition of all outputs to `[time, batch, directions, hidden]` into a recurrent layer of ONNX
    /// whose last states nothing uses.
    fn merge_transpositions(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(rnn) = self.operator::<Rnn>(n).filter(|r| !r.batch_first && !r.merged) else { continue };
            let (y, states) = (self.nodes[n].outputs[0], &self.nodes[n].outputs[1..]);
            let used = |id: ValueId| self.users(id).next().is_some() || self.outputs.iter().any(|(_, o)| *o == id);
            if states.iter().any(|id| used(*id)) {
                continue;
            }
            let Some(user) = self.only_user(y) else { continue };
            if self.operator::<Transpose>(user).is_some_and(|t| t.0 == [0, 2, 1, 3]) {
                let rnn = Rnn { merged: true, ..rnn.clone() };
                let inputs = self.nodes[n].inputs.clone();
                let node = &mut self.nodes[user];
                node.operator = Arc::new(rnn);
                node.inputs = inputs;
            }
        }
    }

    /// Whether a value is there before a run.
    fn is_fixed(&self, id: ValueId) -> bool {
        matches!(self.values[id.0].source, Source::Parameter | Source::Constant(_))
    }

    /// Merges an embedding of an input, and the exchange of its dimensions, into the recurrent layer of ONNX behind it.
    fn look_up_ids(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(rnn) = self.operator::<Rnn>(n).filter(|r| r.tokens.is_none()) else { continue };
            let inputs = &self.nodes[n].inputs;
            if !inputs[Rnn::WEIGHTS..].iter().flatten().all(|id| self.is_fixed(*id)) {
                continue;
            }
            let Some(mut maker) = inputs[0].and_then(|x| self.maker(x)) else { continue };
            let turned = self.operator::<Transpose>(maker).is_some_and(|t| t.0 == [1, 0, 2]);
            if turned {
                let Some(before) = self.nodes[maker].inputs[0].and_then(|x| self.maker(x)) else { continue };
                maker = before;
            }
            if self.operator::<GatherAt>(maker).is_none_or(|g| !matches!(g.axis, 0 | -2)) {
                continue;
            }
            let &[Some(table), Some(ids)] = &self.nodes[maker].inputs[..] else { continue };
            let (rows, index) = (&self.values[table.0].kind, &self.values[ids.0]);
            let [Dim::Size(count), Dim::Size(_)] = rows.dims[..] else { continue };
            let columns = rnn.directions[0].1.kind.gates() * rnn.directions.len();
            let floats = columns.saturating_mul(rnn.hidden_size).saturating_mul(count);
            let fits = rows.dtype == DType::F32
                && self.is_fixed(table)
                && matches!(index.source, Source::Input(_))
                && index.kind.rank() == 2
                && !index.kind.unranked
                && (index.kind.dtype.is_whole() || index.kind.dtype == DType::U32);
            if !fits || floats.saturating_mul(size_of::<f32>()) > MAX_TABLE {
                continue;
            }
            let rnn = Rnn { tokens: Some(Tokens { turned }), ..rnn.clone() };
            let node = &mut self.nodes[n];
            node.inputs[0] = Some(ids);
            node.inputs.resize(Rnn::TABLE, None);
            node.inputs.push(Some(table));
            node.operator = Arc::new(rnn);
        }
    }

    /// Merges an embedding into the recurrent layer behind it.
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
