//! Layers that run over a sequence that is turned round before and after them.

use super::Pass;
use crate::ValueId;
use crate::ops::{Identity, ReverseSequence, Rnn, SliceBy, Squeeze, Transpose};
use recurve_vocabulary::Direction;
use std::sync::Arc;

impl Pass {
    /// Of a value that is another one backwards along an axis: the node, that value and the axis.
    fn backwards(&self, id: ValueId) -> Option<(usize, ValueId, usize)> {
        if let Some((node, reverse)) = self.made::<ReverseSequence>(id) {
            let (x, lengths) = (self.input(node, 0)?, self.input(node, 1)?);
            let axis = usize::from(!reverse.time_major);
            let time = self.size(x, axis)? as i64;
            // Lengths that are all of the time are none.
            return self.ints(lengths)?.iter().all(|&l| l == time).then_some((node, x, axis));
        }
        let (node, _) = self.made::<SliceBy>(id)?;
        let x = self.input(node, 0)?;
        let rank = self.rank(x)? as i64;
        let numbers = [1, 2, 3, 4].map(|n| self.input(node, n).and_then(|i| self.ints(i)));
        let [Some(starts), Some(ends), Some(axes), Some(steps)] = numbers else { return None };
        let ([start], [end], [axis], [-1]) = (&starts[..], &ends[..], &axes[..], &steps[..]) else { return None };
        let axis = usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok()?;
        let size = self.size(x, axis).map(|s| s as i64);
        let from_last = *start == -1 || size.is_some_and(|s| *start >= s - 1) || *start >= i64::from(i32::MAX);
        let to_first = *end <= -i64::from(i32::MAX) || size.is_some_and(|s| *end < -s);
        (from_last && to_first).then_some((node, x, axis))
    }

    /// Turns the direction of layers instead of their sequences.
    pub(super) fn turned(&mut self) {
        for n in 0..self.graph.nodes.len() {
            if !self.needed[n] || self.operator::<Rnn>(n).is_none() {
                continue;
            }
            if let Some(line) = self.turn(n) {
                self.lines.push(line);
            }
        }
    }

    fn turn(&mut self, node: usize) -> Option<String> {
        let rnn = self.operator::<Rnn>(node)?.clone();
        let [(direction, cell)] = rnn.directions[..] else { return None };
        let time = usize::from(rnn.batch_first);
        // Up from X to what turns it round.
        let (mut x, mut axis) = (self.input(node, 0)?, time);
        let mut way = Vec::new();
        let (flip, source) = loop {
            if let Some((flip, source, along)) = self.backwards(x) {
                if along != axis {
                    return None;
                }
                break (flip, source);
            }
            let maker = self.maker(x)?;
            if let Some(transpose) = self.operator::<Transpose>(maker) {
                axis = *transpose.0.get(axis)?;
            } else if self.operator::<Identity>(maker).is_none() {
                return None;
            }
            way.push(maker);
            x = self.input(maker, 0)?;
        };
        let lengths = self.input(node, 1);
        if let Some(lengths) = lengths {
            let size = self.size(self.input(node, 0)?, time)? as i64;
            if !self.ints(lengths)?.iter().all(|&l| l == size) {
                return None;
            }
        }
        // Down from Y to what turns it back, at every end.
        let y = *self.graph.nodes[node].outputs.first()?;
        let mut ends = Vec::new();
        let mut open = vec![(y, time)];
        while let Some((value, axis)) = open.pop() {
            if self.is_output(value) {
                return None;
            }
            for u in self.users[value.0].clone() {
                let out = self.graph.nodes[u].outputs[0];
                if self.input(u, 0) != Some(value)
                    || self.graph.nodes[u].inputs.iter().filter(|i| **i == Some(value)).count() != 1
                {
                    return None;
                }
                if let Some((_, _, along)) = self.backwards(out) {
                    if along != axis {
                        return None;
                    }
                    ends.push((out, value));
                } else if let Some(transpose) = self.operator::<Transpose>(u) {
                    open.push((out, transpose.0.iter().position(|a| *a == axis)?));
                } else if self.operator::<Squeeze>(u).is_some() {
                    let rank = self.rank(value)? as i64;
                    let axes = self.ints(self.input(u, 1)?)?;
                    let axes: Vec<i64> = axes.iter().map(|a| if *a < 0 { a + rank } else { *a }).collect();
                    if axes.contains(&(axis as i64)) {
                        return None;
                    }
                    open.push((out, axis - axes.iter().filter(|a| **a < axis as i64).count()));
                } else if self.operator::<Identity>(u).is_some() {
                    open.push((out, axis));
                } else {
                    return None;
                }
            }
        }
        // What stands between the flip and the layer is made again without the flip, since others may read it.
        let (name, flip) = (self.graph.nodes[node].name.clone(), self.graph.nodes[flip].name.clone());
        let mut x = source;
        for maker in way.into_iter().rev() {
            let operator = self.graph.nodes[maker].operator.clone();
            if let Some(transpose) = operator.as_any().downcast_ref::<Transpose>() {
                x = self.emit_one(&name, transpose.clone(), &[Some(x)]).ok()?;
            }
        }
        let direction = if direction == Direction::Forward { Direction::Reverse } else { Direction::Forward };
        let old = self.input(node, 0)?;
        self.users[old.0].retain(|u| *u != node);
        self.users[x.0].push(node);
        self.graph.nodes[node].inputs[0] = Some(x);
        self.graph.nodes[node].operator = Arc::new(Rnn { directions: vec![(direction, cell)], ..rnn });
        for (out, value) in ends {
            let shown = self.emit_one(&name, Identity, &[Some(value)]).ok()?;
            self.replace(out, shown);
        }
        let to = if direction == Direction::Reverse { "backwards" } else { "forwards" };
        Some(format!("node `{name}` runs {to} over what node `{flip}` turns round before it and others after it"))
    }
}
