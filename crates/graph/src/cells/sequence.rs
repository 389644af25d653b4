//! Steps, and chains of steps, as recurrent layers.

use super::step::Step;
use super::sums::Part;
use super::{Pass, article, named};
use crate::ops::{
    Activate, Concat, Expand, Extent, GatherAt, Identity, Reshape, ReshapeTo, Rnn, ShapeOf, SliceBy, Split, Squeeze,
    Transpose, Unsqueeze,
};
use crate::{Dim, Source, ValueId};
use recurve_vocabulary::{CellKind, Direction};
use std::collections::{BTreeSet, HashMap};

/// Why steps stay as they are.
pub(super) enum Fault {
    Words(String),
    Graph(crate::Error),
}

impl From<crate::Error> for Fault {
    fn from(e: crate::Error) -> Self {
        Self::Graph(e)
    }
}

impl From<&str> for Fault {
    fn from(words: &str) -> Self {
        Self::Words(words.into())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::Graph(e) => e.fmt(f),
        }
    }
}

/// The input of a layer.
pub(super) struct Sequence {
    pub x: ValueId,
    pub direction: Direction,
    pub batch_first: bool,
    /// Dimensions of an element before its features.
    pub lead: usize,
    /// A value with these dimensions, and where they begin in it.
    pub like: (ValueId, usize),
}

/// The weights of a layer: W, R, B.
pub(super) type Weights = [ValueId; 3];

/// What a layer gives: all timesteps, the last h and the last c, in ONNX's layout.
pub(super) struct Layer {
    pub y: ValueId,
    pub h: ValueId,
    pub c: Option<ValueId>,
}

impl Pass {
    /// Finds steps and replaces them.
    pub(super) fn steps(&mut self) {
        let mut steps = self.all_steps();
        let chains = self.chains(&mut steps);
        for chain in chains {
            let chain: Vec<Step> = chain.into_iter().map(|n| steps[n].clone()).collect();
            self.chain(&chain);
        }
    }

    /// The steps of which nothing else reads what is inside, in the order of the graph.
    pub(super) fn all_steps(&mut self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut used = BTreeSet::new();
        let count = self.graph.nodes.len();
        // An RNN's step looks like a gate: it is one only if no other step has it.
        for plain in [false, true] {
            for n in (0..count).filter(|n| self.needed[*n]) {
                if used.contains(&n) || plain != self.operator::<Activate>(n).is_some() {
                    continue;
                }
                let step = match self.step(n) {
                    Ok(None) => continue,
                    Ok(Some(step)) => step,
                    Err(why) => {
                        self.lines.push(format!("{why}; it runs operator by operator"));
                        continue;
                    }
                };
                if !used.is_disjoint(&step.nodes) {
                    continue;
                }
                let given: Vec<ValueId> = [step.h_out].into_iter().chain(step.c_out).collect();
                if let Some(leak) = self.leak(&step.nodes, &given) {
                    if !plain {
                        let (kind, name) = (step.cell.kind, self.label(step.h_out));
                        let line = format!(
                            "node `{name}` ends a step of {} {}, but {leak}; it runs operator by operator",
                            article(kind),
                            named(kind)
                        );
                        self.lines.push(line);
                    }
                    continue;
                }
                used.extend(step.nodes.iter().copied());
                steps.push(step);
            }
        }
        steps
    }

    /// Steps of one cell, one after the other.
    fn chains(&self, steps: &mut [Step]) -> Vec<Vec<usize>> {
        let ends: HashMap<ValueId, usize> = steps.iter().enumerate().map(|(n, s)| (s.h_out, n)).collect();
        let mut next: Vec<Option<usize>> = vec![None; steps.len()];
        let mut first = vec![true; steps.len()];
        for s in 0..steps.len() {
            for place in 0..steps[s].parts.len() {
                let Some(&p) = ends.get(&steps[s].parts[place].root) else { continue };
                let free = steps[s].parts[place].pick.is_none() && p != s && next[p].is_none() && first[s];
                if !free
                    || steps[s].h.is_some_and(|h| h != place)
                    || steps[s].c != steps[p].c_out.map(|c| self.plain(c))
                {
                    continue;
                }
                if let Some(c) = steps[p].c_out {
                    let both: BTreeSet<usize> = steps[p].nodes.union(&steps[s].nodes).copied().collect();
                    if self.is_read_outside(c, &both) {
                        continue;
                    }
                }
                let mut after = steps[s].clone();
                after.h = Some(place);
                let mut before = steps[p].clone();
                if before.h.is_none() && before.parts.len() == after.parts.len() {
                    before.h = (0..before.parts.len()).find(|&q| before.same_weights(q, &after, place));
                }
                if before.same_cell(&after) {
                    (steps[p].h, steps[s].h) = (before.h, after.h);
                    (next[p], first[s]) = (Some(s), false);
                }
            }
        }
        let follow = |start: usize| std::iter::successors(Some(start), |&n| next[n]).collect();
        (0..steps.len()).filter(|&n| first[n]).map(follow).collect()
    }

    /// A chain as one layer, or else its steps as layers of one timestep.
    fn chain(&mut self, chain: &[Step]) {
        let kind = chain[0].cell.kind;
        let mut first = chain[0].clone();
        if first.h.is_none() {
            first.h = self.state_part(&first);
        }
        if chain.len() == 1 && kind == CellKind::Rnn && !self.is_step_of_state(&first) {
            return;
        }
        let mut all = chain.to_vec();
        all[0] = first;
        let (start, end) = (self.label(all[0].h_out).to_owned(), self.label(all[all.len() - 1].h_out).to_owned());
        let what = format!("{} {} of {} units", article(kind), named(kind), all[0].hidden);
        let mark = self.mark();
        match self.layer_of(&all, &mut None) {
            Ok(()) if all.len() == 1 => {
                self.lines.push(format!("node `{start}` ends a step of {what}, which runs as one layer"));
                return;
            }
            Ok(()) => {
                let line =
                    format!("nodes `{start}` to `{end}` end {} steps of {what}, which run as one layer", all.len());
                self.lines.push(line);
                return;
            }
            Err(e) if all.len() == 1 => {
                self.forget(mark);
                self.lines.push(format!("node `{start}` ends a step of {what}, but {e}; it runs operator by operator"));
                return;
            }
            Err(_) => self.forget(mark),
        }
        // Each input depends on the step before.
        let mut weights = None;
        let mut why = None;
        for step in &all {
            let mark = self.mark();
            let mut own = weights;
            match self.layer_of(core::slice::from_ref(step), &mut own) {
                Ok(()) => weights = own,
                Err(e) => {
                    self.forget(mark);
                    why = Some(e);
                }
            }
        }
        self.lines.push(match why {
            None => format!(
                "nodes `{start}` to `{end}` end {} steps of {what}, which run as one layer each: their inputs depend on \
                 the steps before",
                all.len()
            ),
            Some(e) => format!("nodes `{start}` to `{end}` end steps of {what}, but {e}; some run operator by operator"),
        });
    }

    /// The value that a value shows some elements of.
    fn origin(&self, mut id: ValueId) -> ValueId {
        while let Some(node) = self.maker(id) {
            let view = self.operator::<Identity>(node).is_some()
                || self.operator::<GatherAt>(node).is_some()
                || self.operator::<SliceBy>(node).is_some()
                || self.operator::<Split>(node).is_some()
                || self.operator::<Squeeze>(node).is_some()
                || self.operator::<Unsqueeze>(node).is_some()
                || self.operator::<ReshapeTo>(node).is_some()
                || self.operator::<Transpose>(node).is_some();
            match self.input(node, 0) {
                Some(x) if view => id = x,
                _ => break,
            }
        }
        id
    }

    /// Which part is the old h, of a step that stands alone. Where several may be, the results are the same.
    fn state_part(&self, step: &Step) -> Option<usize> {
        let fits: Vec<usize> = (0..step.parts.len()).filter(|&p| step.part_width(p) == step.hidden).collect();
        if step.parts.len() < 2 {
            return None;
        }
        let origin = |p: usize| self.origin(step.parts[p].root);
        let c = step.c.map(|c| self.origin(c));
        let beside_c = fits.iter().copied().find(|&p| Some(origin(p)) == c);
        let input = |p: &usize| matches!(self.graph.values[origin(*p).0].source, Source::Input(_));
        beside_c.or_else(|| fits.iter().copied().find(input)).or(fits.last().copied())
    }

    /// Whether an RNN's step has an old h from outside and gives the new one out.
    fn is_step_of_state(&self, step: &Step) -> bool {
        let Some(h) = step.h else { return false };
        let origin = self.origin(step.parts[h].root);
        let others = step.parts.iter().filter(|p| self.origin(p.root) == origin).count();
        let given = self.graph.outputs.iter().any(|(_, o)| self.origin(*o) == step.h_out);
        matches!(self.graph.values[origin.0].source, Source::Input(_)) && others == 1 && given
    }

    /// The value of a part.
    fn value_of(&mut self, name: &str, part: &Part) -> Result<ValueId, Fault> {
        match (part.value, part.pick) {
            (Some(v), _) => Ok(v),
            (None, Some((axis, at))) => {
                let place = self.place_of(at);
                Ok(self.emit_one(name, GatherAt { axis: axis as i64 }, &[Some(part.root), Some(place)])?)
            }
            (None, None) => Ok(part.root),
        }
    }

    /// The inputs of steps as one sequence.
    fn input_of(&mut self, name: &str, chain: &[Step]) -> Result<Sequence, Fault> {
        let inputs = |s: &Step| (0..s.parts.len()).filter(|p| Some(*p) != s.h).collect::<Vec<_>>();
        // What a layer before gave is an element of its sequence by now.
        let mut parts: Vec<Vec<Part>> = Vec::new();
        for s in chain {
            let all = inputs(s).into_iter().map(|p| match s.parts[p].value {
                Some(v) => self.part(self.current(v)),
                None => Part { root: self.current(s.parts[p].root), ..s.parts[p].clone() },
            });
            parts.push(all.collect());
        }
        if parts[0].is_empty() {
            return Err("it has no input".into());
        }
        if let ([one], true) = (&parts[0][..], chain.len() > 1)
            && let Some((axis, first)) = one.pick
            && parts.iter().all(|p| p[0].root == one.root && p[0].pick.is_some_and(|(a, _)| a == axis))
        {
            let places: Vec<usize> = parts.iter().filter_map(|p| p[0].pick.map(|(_, at)| at)).collect();
            let up = places.iter().enumerate().all(|(n, &at)| at == first + n);
            let down = places.iter().enumerate().all(|(n, &at)| first >= n && at == first - n);
            let rank = self.rank(one.root).unwrap_or(0);
            if (up || down) && rank == 3 && axis < 2 {
                let low = if up { first } else { first + 1 - places.len() };
                let mut x = one.root;
                if self.size(x, axis) != Some(places.len()) {
                    let numbers = [low as i64, (low + places.len()) as i64, axis as i64].map(|n| self.ints_of(&[n]));
                    let [start, end, axes] = numbers.map(Some);
                    x = self.emit_one(name, SliceBy, &[Some(x), start, end, axes])?;
                }
                let direction = if up { Direction::Forward } else { Direction::Reverse };
                return Ok(Sequence { x, direction, batch_first: axis == 1, lead: 1, like: (x, 1 - axis) });
            }
        }
        let mut elements = Vec::new();
        let mut like = None;
        for parts in &parts {
            let mut values = Vec::new();
            for p in parts {
                values.push(Some(self.value_of(name, p)?));
            }
            let x = match values[..] {
                [Some(one)] => one,
                _ => self.emit_one(name, Concat { axis: -1 }, &values)?,
            };
            let lead = self.rank(x).and_then(|r| r.checked_sub(1)).ok_or("its input has no dimensions")?;
            if *like.get_or_insert((x, lead)) != (x, lead) && like.is_some_and(|(_, l)| l != lead) {
                return Err("its inputs differ in their number of dimensions".into());
            }
            let dims = vec![Extent::Size(1), Extent::Axes(0, lead), Extent::Axes(lead, 1)];
            elements.push(Some(self.emit_one(name, Reshape(dims), &[Some(x)])?));
        }
        let (like, lead) = like.expect("there are elements");
        let x = match elements[..] {
            [Some(one)] => one,
            _ => self.emit_one(name, Concat { axis: 0 }, &elements)?,
        };
        Ok(Sequence { x, direction: Direction::Forward, batch_first: false, lead, like: (like, 0) })
    }

    /// A value, or what has taken its place.
    fn current(&self, id: ValueId) -> ValueId {
        self.replaced.get(&id).copied().unwrap_or(id)
    }

    /// A state as the layer takes it; `None` where it is zero.
    pub(super) fn state_of(&mut self, name: &str, state: ValueId, seq: &Sequence) -> Result<Option<ValueId>, Fault> {
        let (like, at) = seq.like;
        let lead: Vec<Dim> = self.graph.values[like.0].kind.dims[at..at + seq.lead].to_vec();
        let kind = &self.graph.values[state.0].kind;
        if kind.unranked || kind.rank() == 0 || kind.rank() > seq.lead + 1 {
            return Err("a state has another number of dimensions than the input".into());
        }
        let own = &kind.dims[..kind.rank() - 1];
        let missing = seq.lead - own.len();
        let (mut same, mut ones) = (missing == 0, true);
        for (own, wanted) in own.iter().zip(&lead[missing..]) {
            let one = *own == Dim::Size(1);
            ones &= one;
            same &= own == wanted && *own != Dim::Any;
            if !one && (*wanted == Dim::Size(1) || own.meet(wanted).is_none()) {
                return Err("a state is of another batch than the input".into());
            }
        }
        if (same || ones) && self.uniform(state) == Some(0.0) {
            return Ok(None);
        }
        let mut state = state;
        if !same {
            // A state of one row serves every row.
            let shape = ShapeOf { start: at as i64, end: Some((at + seq.lead) as i64) };
            let shape = self.emit_one(name, shape, &[Some(like)])?;
            let one = self.ints_of(&[1]);
            let shape = self.emit_one(name, Concat { axis: 0 }, &[Some(shape), Some(one)])?;
            state = self.emit_one(name, Expand, &[Some(state), Some(shape)])?;
            if self.rank(state) != Some(seq.lead + 1) {
                return Err("the number of dimensions of a state is not known".into());
            }
        }
        let (rows, features) = (Extent::Axes(0, seq.lead), Extent::Axes(seq.lead, 1));
        let dims = if seq.batch_first { [rows, Extent::Size(1), features] } else { [Extent::Size(1), rows, features] };
        Ok(Some(self.emit_one(name, Reshape(dims.to_vec()), &[Some(state)])?))
    }

    /// The weights of a step in ONNX's layout.
    pub(super) fn weights_of(&mut self, step: &Step) -> Weights {
        let (hidden, gates) = (step.hidden, step.gates.len());
        let inputs: Vec<usize> = (0..step.parts.len()).filter(|p| Some(*p) != step.h).collect();
        let features: usize = inputs.iter().map(|&p| step.part_width(p)).sum();
        let (mut w, mut r) = (Vec::new(), Vec::new());
        for gate in 0..gates {
            let blocks: Vec<(usize, Vec<f32>)> =
                inputs.iter().map(|&p| (step.part_width(p), step.weights(gate, p))).collect();
            for row in 0..hidden {
                blocks.iter().for_each(|(width, all)| w.extend_from_slice(&all[row * width..(row + 1) * width]));
            }
            match step.h {
                Some(h) => r.extend(step.weights(gate, h)),
                None => r.resize(r.len() + hidden * hidden, 0.0),
            }
        }
        let mut b: Vec<f32> = step.gates.iter().flat_map(|g| g.bias.iter().map(|&v| v as f32)).collect();
        b.resize(2 * gates * hidden, 0.0);
        if let Some(bias) = &step.recurrent_bias {
            let start = b.len() - hidden;
            b[start..].iter_mut().zip(bias).for_each(|(b, v)| *b = *v as f32);
        }
        [
            self.floats_of(&[1, gates * hidden, features], w),
            self.floats_of(&[1, gates * hidden, hidden], r),
            self.floats_of(&[1, 2 * gates * hidden], b),
        ]
    }

    /// The layer of a cell.
    pub(super) fn rnn_of(
        &mut self,
        name: &str,
        step: &Step,
        seq: &Sequence,
        states: [Option<ValueId>; 2],
        weights: Weights,
    ) -> Result<Layer, Fault> {
        let rnn = Rnn {
            directions: vec![(seq.direction, step.cell)],
            hidden_size: step.hidden,
            batch_first: seq.batch_first,
            merged: false,
            tokens: None,
        };
        let [w, r, b] = weights.map(Some);
        let lstm = step.c_out.is_some();
        let inputs = [Some(seq.x), None, states[0], if lstm { states[1] } else { None }, w, r, b];
        let made = self.emit(name, rnn, &inputs, if lstm { 3 } else { 2 })?;
        Ok(Layer { y: made[0], h: made[1], c: made.get(2).copied() })
    }

    /// A last state with the dimensions of an element.
    pub(super) fn last_of(&mut self, name: &str, state: ValueId, seq: &Sequence) -> Result<ValueId, Fault> {
        let rows = usize::from(!seq.batch_first);
        let lead = match seq.lead {
            0 => vec![],
            1 => vec![Extent::Axes(rows, 1)],
            n => (0..n).map(|axis| Extent::Like(seq.like.1 + axis)).collect(),
        };
        let dims = lead.into_iter().chain([Extent::Axes(2, 1)]).collect();
        let like = (seq.lead > 1).then_some(seq.like.0);
        Ok(self.emit_one(name, Reshape(dims), &[Some(state), like])?)
    }

    /// All timesteps with the dimensions of elements: time first, or second with one dimension before it.
    pub(super) fn all_of(&mut self, name: &str, y: ValueId, seq: &Sequence) -> Result<ValueId, Fault> {
        let dims = match (seq.batch_first, seq.lead) {
            (true, _) => vec![Extent::Axes(0, 1), Extent::Axes(1, 1), Extent::Axes(3, 1)],
            (false, 1) => vec![Extent::Axes(0, 1), Extent::Axes(2, 1), Extent::Axes(3, 1)],
            (false, n) => [Extent::Axes(0, 1)]
                .into_iter()
                .chain((0..n).map(|axis| Extent::Like(seq.like.1 + axis)))
                .chain([Extent::Axes(3, 1)])
                .collect(),
        };
        let like = (seq.lead > 1).then_some(seq.like.0);
        Ok(self.emit_one(name, Reshape(dims), &[Some(y), like])?)
    }

    /// Replaces steps by one layer.
    fn layer_of(&mut self, chain: &[Step], weights: &mut Option<Weights>) -> Result<(), Fault> {
        let (first, last) = (&chain[0], &chain[chain.len() - 1]);
        let name = self.label(last.h_out).to_owned();
        let own: BTreeSet<usize> = chain.iter().flat_map(|s| s.nodes.iter().copied()).collect();
        let seq = self.input_of(&name, chain)?;
        let h = match first.h {
            Some(h) => {
                let h = self.value_of(&name, &first.parts[h])?;
                self.state_of(&name, self.current(h), &seq)?
            }
            None => None,
        };
        let c = match first.c {
            Some(c) => self.state_of(&name, self.current(c), &seq)?,
            None => None,
        };
        // What comes out has the dimensions of the input.
        let (like, at) = seq.like;
        for out in [Some(last.h_out), last.c_out].into_iter().flatten() {
            let (kind, wanted) = (&self.graph.values[out.0].kind, &self.graph.values[like.0].kind.dims);
            let wanted = &wanted[at..at + seq.lead];
            let same = kind.rank() == seq.lead + 1
                && kind
                    .dims
                    .iter()
                    .zip(wanted)
                    .all(|(a, b)| a.meet(b).is_some() && (*b != Dim::Size(1) || *a == Dim::Size(1)));
            if kind.unranked || !same {
                return Err("its states have other dimensions than its input".into());
            }
        }
        if self.depends([seq.x].into_iter().chain(h).chain(c), &own) {
            return Err("its input depends on its output".into());
        }
        let step =
            Step { h: chain.iter().find_map(|s| s.h), ..chain.iter().find(|s| s.h.is_some()).unwrap_or(first).clone() };
        let weights = match *weights {
            Some(there) => there,
            None => *weights.insert(self.weights_of(&step)),
        };
        let layer = self.rnn_of(&name, &step, &seq, [h, c], weights)?;
        // From here on nothing can fail that has not been checked, and what is read is replaced.
        let mut places: Vec<usize> = (0..chain.len()).collect();
        if seq.direction == Direction::Reverse {
            places.reverse();
        }
        let mut new: Vec<(ValueId, ValueId)> = Vec::new();
        if chain.len() > 1 {
            let all = self.all_of(&name, layer.y, &seq)?;
            let time = usize::from(seq.batch_first);
            let mut stacked = BTreeSet::new();
            let in_order: Vec<ValueId> = (0..chain.len())
                .map(|at| chain[places.iter().position(|p| *p == at).expect("each place once")].h_out)
                .collect();
            for (concat, axis, unsqueezed) in self.stacks(&in_order) {
                let stack = self.graph.nodes[concat].outputs[0];
                let value = if axis == time {
                    self.emit_one(&name, Identity, &[Some(all)])?
                } else if seq.lead == 1 && axis < 2 {
                    self.emit_one(&name, Transpose(vec![1, 0, 2]), &[Some(all)])?
                } else {
                    continue;
                };
                new.push((stack, value));
                stacked.extend(unsqueezed);
            }
            for (step, place) in chain.iter().zip(&places).take(chain.len() - 1) {
                let inside: BTreeSet<usize> = own.union(&stacked).copied().collect();
                if self.is_read_outside(step.h_out, &inside) {
                    let place = self.place_of(*place);
                    let h = self.emit_one(&name, GatherAt { axis: time as i64 }, &[Some(all), Some(place)])?;
                    new.push((step.h_out, h));
                }
            }
        }
        let h = self.last_of(&name, layer.h, &seq)?;
        new.push((last.h_out, h));
        if let (Some(old), Some(c)) = (last.c_out, layer.c) {
            let c = self.last_of(&name, c, &seq)?;
            new.push((old, c));
        }
        for (old, new) in new {
            self.replace(old, new);
            self.replaced.insert(old, new);
        }
        Ok(())
    }

    /// Nodes that put values side by side along a new axis, all of them in this order: each with the axis and the nodes
    /// that make room for it.
    fn stacks(&self, values: &[ValueId]) -> Vec<(usize, usize, Vec<usize>)> {
        let mut found: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for &u in &self.users[values[0].0] {
            let Some(axis) = self.new_axis(u) else { continue };
            let room = self.graph.nodes[u].outputs[0];
            for &concat in &self.users[room.0] {
                let Some(Concat { axis: along }) = self.operator::<Concat>(concat) else { continue };
                let rank = self.rank(room).unwrap_or(0) as isize;
                let along = if *along < 0 { *along + rank } else { *along };
                let inputs = &self.graph.nodes[concat].inputs;
                let mut rooms = Vec::new();
                let fits = along == axis as isize
                    && inputs.len() == values.len()
                    && inputs.iter().zip(values).all(|(i, v)| {
                        let Some(node) = i.and_then(|i| self.maker(i)) else { return false };
                        rooms.push(node);
                        self.new_axis(node) == Some(axis) && self.input(node, 0).map(|i| self.plain(i)) == Some(*v)
                    });
                if fits && found.iter().all(|(c, ..)| *c != concat) {
                    found.push((concat, axis, rooms));
                }
            }
        }
        found
    }

    /// The axis of size 1 that a node adds.
    fn new_axis(&self, node: usize) -> Option<usize> {
        let x = self.input(node, 0)?;
        let rank = self.rank(x)?;
        if self.operator::<Unsqueeze>(node).is_some() {
            let &[axis] = &self.ints(self.input(node, 1)?)?[..] else { return None };
            let axis = if axis < 0 { axis + rank as i64 + 1 } else { axis };
            return usize::try_from(axis).ok().filter(|a| *a <= rank);
        }
        self.operator::<ReshapeTo>(node)?;
        let (before, after) =
            (&self.graph.values[x.0].kind, &self.graph.values[self.graph.nodes[node].outputs[0].0].kind);
        let known = !after.unranked && after.rank() == rank + 1 && before.dims.iter().all(|d| d.size().is_some());
        (0..=rank).find(|&axis| {
            let mut dims = before.dims.clone();
            dims.insert(axis, Dim::Size(1));
            known && dims == after.dims
        })
    }

    /// Whether values depend on what these nodes make.
    fn depends(&self, values: impl IntoIterator<Item = ValueId>, on: &BTreeSet<usize>) -> bool {
        let mut seen = vec![false; self.graph.nodes.len()];
        let mut open: Vec<ValueId> = values.into_iter().collect();
        while let Some(v) = open.pop() {
            let Some(node) = self.maker(v) else { continue };
            if on.contains(&node) {
                return true;
            }
            if !core::mem::replace(&mut seen[node], true) {
                open.extend(self.graph.nodes[node].inputs.iter().flatten());
            }
        }
        false
    }
}
