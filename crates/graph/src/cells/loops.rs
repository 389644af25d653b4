//! `Scan` and `Loop` whose body is one step of a cell.

use super::sequence::{Fault, Sequence};
use super::step::Step;
use super::sums::Part;
use super::{Pass, article, named};
use crate::ops::{
    Cast, Extent, GatherAt, Identity, Loop, Reshape, ReshapeTo, Scan, ShapeOf, SliceBy, Squeeze, Transpose, Unsqueeze,
};
use crate::{Graph, ValueId};
use recurve_vocabulary::Direction;

/// A loop whose body is a step, in terms of the node's inputs and outputs.
struct Looped {
    step: Step,
    /// The input that the elements are taken from, along which axis, and from which end.
    x: (usize, usize, bool),
    /// The inputs that the states begin with.
    h: usize,
    c: Option<usize>,
    outputs: Vec<Output>,
}

/// What an output of the node is.
enum Output {
    LastH,
    LastC,
    /// An input as it was.
    Input(usize),
    /// Every h, along this axis, from this end.
    All {
        axis: i64,
        reverse: bool,
    },
    /// Nothing reads it.
    Unused,
}

impl Pass {
    /// Replaces a loop over a step by a layer. Says why not, if there is a step in it.
    pub(super) fn loop_of_a_cell(&mut self, node: usize) -> bool {
        let operator = self.graph.nodes[node].operator.clone();
        let (body, is_scan) = match (operator.as_any().downcast_ref::<Scan>(), operator.as_any().downcast_ref::<Loop>())
        {
            (Some(scan), _) => (&scan.body[0], true),
            (_, Some(over)) => (&over.body[0], false),
            _ => return false,
        };
        let mut inner = Self::new(Graph::clone(body));
        let steps = inner.all_steps();
        let name = self.graph.nodes[node].name.clone();
        let what = if is_scan { "Scan" } else { "Loop" };
        if steps.is_empty() {
            return false;
        }
        let looped = match (operator.as_any().downcast_ref::<Scan>(), operator.as_any().downcast_ref::<Loop>()) {
            (Some(scan), _) => self.scan(node, scan, &inner, &steps),
            (_, Some(over)) => self.repeated(node, over, &inner, &steps),
            _ => return false,
        };
        let real = steps.iter().any(|s| s.c.is_some() || s.gates.len() > 1);
        let mark = self.mark();
        match looped.and_then(|looped| self.unlooped(node, &looped).map(|()| looped)) {
            Ok(looped) => {
                let (kind, hidden) = (looped.step.cell.kind, looped.step.hidden);
                let line = format!(
                    "node `{name}` ({what}) is {} {} of {hidden} units over time, which runs as one layer",
                    article(kind),
                    named(kind)
                );
                self.lines.push(line);
                true
            }
            Err(why) => {
                self.forget(mark);
                if real {
                    self.lines.push(format!(
                        "node `{name}` ({what}) has a cell in its body, but {why}; its body runs once a timestep"
                    ));
                }
                false
            }
        }
    }

    fn is_unused(&self, node: usize, output: usize) -> bool {
        let Some(&id) = self.graph.nodes[node].outputs.get(output) else { return true };
        self.users[id.0].is_empty() && !self.is_output(id)
    }

    /// The step whose new states the body carries; the other outputs are told by `other`.
    fn only_step(
        &self,
        inner: &Self,
        steps: &[Step],
        carried: core::ops::Range<usize>,
        first_output: usize,
        node: usize,
    ) -> Result<(Step, usize, Option<usize>, Vec<Output>), Fault> {
        let given: Vec<ValueId> = inner.graph.outputs.iter().map(|(_, o)| inner.plain(*o)).collect();
        let inputs = inner.graph.inputs();
        let mut found = None;
        for step in steps {
            let Some(h) = carried.clone().find(|&j| given[first_output + j - carried.start] == step.h_out) else {
                continue;
            };
            let Some(part) = step.parts.iter().position(|p| *p == Part::of(inputs[h])) else { continue };
            if step.h.is_some_and(|h| h != part) {
                continue;
            }
            found = Some((Step { h: Some(part), ..step.clone() }, h));
        }
        let (step, h) = found.ok_or("what it carries is not the state of one cell")?;
        let c = match step.c {
            None => None,
            Some(c) => {
                let place = carried
                    .clone()
                    .find(|&j| inputs[j] == c && Some(given[first_output + j - carried.start]) == step.c_out);
                Some(place.ok_or("the state c is not carried from step to step")?)
            }
        };
        let mut outputs = Vec::new();
        for j in carried.clone() {
            let output = given[first_output + j - carried.start];
            outputs.push(match () {
                () if j == h => Output::LastH,
                () if Some(j) == c => Output::LastC,
                () if output == inputs[j] => Output::Input(j),
                () if self.is_unused(node, j - carried.start) => Output::Unused,
                () => return Err("it carries more than the states of the cell".into()),
            });
        }
        Ok((step, h, c, outputs))
    }

    /// The one input of the step.
    fn only_input(step: &Step) -> Result<Part, Fault> {
        let mut parts = (0..step.parts.len()).filter(|p| Some(*p) != step.h).map(|p| step.parts[p].clone());
        match (parts.next(), parts.next()) {
            (Some(one), None) => Ok(one),
            _ => Err("the cell has several inputs".into()),
        }
    }

    fn scan(&self, node: usize, scan: &Scan, inner: &Self, steps: &[Step]) -> Result<Looped, Fault> {
        let (step, h, c, mut outputs) = self.only_step(inner, steps, 0..scan.carried, 0, node)?;
        let x = Self::only_input(&step)?;
        let element = inner.graph.inputs().iter().position(|i| Part::of(*i) == x);
        let element = element.filter(|e| (scan.carried..scan.carried + scan.inputs.len()).contains(e));
        let element = element.ok_or("its input is not an element of what it runs over")?;
        let from = scan.inputs[element - scan.carried];
        let id = self.input(node, element).ok_or("it has no input")?;
        let rank = self.rank(id).ok_or("the number of dimensions of its input is not known")?;
        let axis = if from.axis < 0 { from.axis + rank as i64 } else { from.axis };
        let axis = usize::try_from(axis).ok().filter(|a| *a + 1 < rank).ok_or("it does not run over timesteps")?;
        for (n, to) in scan.outputs.iter().enumerate() {
            let output = inner.plain(inner.graph.outputs[scan.carried + n].1);
            outputs.push(match () {
                () if output == step.h_out => Output::All { axis: to.axis, reverse: to.reverse },
                () if self.is_unused(node, scan.carried + n) => Output::Unused,
                () => return Err("its body gives more than the states of the cell".into()),
            });
        }
        Ok(Looped { step, x: (element, axis, from.reverse), h, c, outputs })
    }

    fn repeated(&self, node: usize, over: &Loop, inner: &Self, steps: &[Step]) -> Result<Looped, Fault> {
        let carried = 2..2 + over.carried;
        let (step, h, c, mut outputs) = self.only_step(inner, steps, carried.clone(), 1, node)?;
        let given = inner.plain(inner.graph.outputs[0].1);
        let inputs = inner.graph.inputs();
        let goes_on = given == inputs[1] || inner.ints(given).is_some_and(|v| v == [1]);
        let begins = match self.input(node, 1) {
            None => true,
            Some(cond) => self.ints(cond).is_some_and(|v| v == [1]),
        };
        if !goes_on || !begins {
            return Err("a condition may end it".into());
        }
        let x = Self::only_input(&step)?;
        let value = x.value.filter(|_| x.pick.is_none()).ok_or("its input is the same in every run")?;
        let (taken, axis) = inner.element_by(value, inputs[0]).ok_or("its input is not the element of each run")?;
        let element = inputs.iter().position(|i| *i == taken).ok_or("its input is made inside the body")?;
        let fixed = element >= carried.end
            || outputs.get(element.wrapping_sub(2)).is_some_and(|o| matches!(o, Output::Input(_)));
        if element < 2 || !fixed {
            return Err("its input changes from run to run".into());
        }
        let id = self.input(node, element).ok_or("it has no input")?;
        let rank = self.rank(id).ok_or("the number of dimensions of its input is not known")?;
        if axis + 1 >= rank {
            return Err("it does not run over timesteps".into());
        }
        let most = self.input(node, 0).ok_or("nothing says how often it runs")?;
        let by_number = self.ints(most).is_some_and(|m| self.size(id, axis).is_some_and(|s| m == [s as i64]));
        if !by_number && !self.is_size_of(most, id, axis) {
            return Err("it may run for another number of timesteps than its input has".into());
        }
        for n in over.carried..inner.graph.outputs.len() - 1 {
            let output = inner.plain(inner.graph.outputs[1 + n].1);
            outputs.push(match () {
                () if output == step.h_out => Output::All { axis: 0, reverse: false },
                () if self.is_unused(node, n) => Output::Unused,
                () => return Err("its body gives more than the states of the cell".into()),
            });
        }
        Ok(Looped { step, x: (element, axis, false), h, c, outputs })
    }

    /// Whole numbers that stand for another value of one element.
    fn number_behind(&self, mut id: ValueId) -> ValueId {
        while let Some(node) = self.maker(id) {
            let same = self.operator::<Identity>(node).is_some()
                || self.operator::<Squeeze>(node).is_some()
                || self.operator::<Unsqueeze>(node).is_some()
                || self.operator::<ReshapeTo>(node).is_some()
                || self.operator::<Cast>(node).is_some_and(|c| c.from.is_whole() && c.to.element().is_whole());
            match self.input(node, 0) {
                Some(x) if same => id = x,
                _ => break,
            }
        }
        id
    }

    /// Of the element of a value at a place that is this number: the value and the axis.
    fn element_by(&self, id: ValueId, number: ValueId) -> Option<(ValueId, usize)> {
        let (node, gather) = self.made::<GatherAt>(self.plain(id))?;
        let (x, index) = (self.input(node, 0)?, self.input(node, 1)?);
        if self.number_behind(index) != number || self.rank(index)? != 0 {
            return None;
        }
        let axis = if gather.axis < 0 { gather.axis + self.rank(x)? as i64 } else { gather.axis };
        Some((self.plain(x), usize::try_from(axis).ok()?))
    }

    /// Whether a number is the size of an axis of a value.
    fn is_size_of(&self, number: ValueId, of: ValueId, axis: usize) -> bool {
        let mut id = self.number_behind(number);
        let mut place = 0;
        if let Some((node, GatherAt { axis: 0 })) = self.made::<GatherAt>(id) {
            let (Some(x), Some(Some(at))) = (self.input(node, 0), self.input(node, 1).map(|i| self.ints(i))) else {
                return false;
            };
            let &[at] = &at[..] else { return false };
            place = at;
            id = self.number_behind(x);
        } else if let Some((node, _)) = self.made::<SliceBy>(id) {
            let (Some(x), Some(Some(at))) = (self.input(node, 0), self.input(node, 1).map(|i| self.ints(i))) else {
                return false;
            };
            let &[at] = &at[..] else { return false };
            place = at;
            id = self.number_behind(x);
        }
        let Some((node, shape)) = self.made::<ShapeOf>(id) else { return false };
        let (Some(x), Some(rank)) = (self.input(node, 0), self.rank(of)) else { return false };
        let rank = rank as i64;
        let begin = if shape.start < 0 { (shape.start + rank).max(0) } else { shape.start.min(rank) };
        let end = shape.end.map_or(rank, |e| if e < 0 { e + rank } else { e.min(rank) });
        let at = if place < 0 { end + place } else { begin + place };
        self.plain(x) == self.plain(of) && at == axis as i64 && at < end
    }

    /// Replaces the node by a layer.
    fn unlooped(&mut self, node: usize, looped: &Looped) -> Result<(), Fault> {
        let name = self.graph.nodes[node].name.clone();
        let (element, axis, reverse) = looped.x;
        let mut x = self.input(node, element).ok_or("it has no input")?;
        let lead = self.rank(x).and_then(|r| r.checked_sub(2)).ok_or("its elements have no dimensions")?;
        let direction = if reverse { Direction::Reverse } else { Direction::Forward };
        let batch_first = lead == 1 && axis == 1;
        if !batch_first && axis > 0 {
            let axes = [axis].into_iter().chain((0..lead + 2).filter(|a| *a != axis)).collect();
            x = self.emit_one(&name, Transpose(axes), &[Some(x)])?;
        }
        let like = (x, usize::from(!batch_first));
        if lead != 1 {
            let dims = vec![Extent::Axes(0, 1), Extent::Axes(1, lead), Extent::Axes(lead + 1, 1)];
            x = self.emit_one(&name, Reshape(dims), &[Some(x)])?;
        }
        let seq = Sequence { x, direction, batch_first, lead, like };
        let h0 = self.input(node, looped.h).ok_or("a state is missing")?;
        let h = self.state_of(&name, h0, &seq)?;
        let c = match looped.c {
            Some(c) => {
                let c = self.input(node, c).ok_or("a state is missing")?;
                self.state_of(&name, c, &seq)?
            }
            None => None,
        };
        let weights = self.weights_of(&looped.step);
        let layer = self.rnn_of(&name, &looped.step, &seq, [h, c], weights)?;
        let time = usize::from(batch_first);
        let mut new = Vec::new();
        for (n, output) in looped.outputs.iter().enumerate() {
            let Some(&old) = self.graph.nodes[node].outputs.get(n) else { continue };
            let value = match *output {
                Output::Unused => continue,
                _ if self.is_unused(node, n) => continue,
                Output::Input(from) => self.input(node, from).ok_or("an input is missing")?,
                Output::LastH => self.last_of(&name, layer.h, &seq)?,
                Output::LastC => self.last_of(&name, layer.c.ok_or("there is no c")?, &seq)?,
                Output::All { axis, reverse: to } => {
                    let mut all = self.all_of(&name, layer.y, &seq)?;
                    if to != reverse {
                        let numbers = [-1, i64::MIN, time as i64, -1].map(|v| self.ints_of(&[v]));
                        let [start, end, axes, steps] = numbers.map(Some);
                        all = self.emit_one(&name, SliceBy, &[Some(all), start, end, axes, steps])?;
                    }
                    let rank = lead + 2;
                    let to = if axis < 0 { axis + rank as i64 } else { axis };
                    let to = usize::try_from(to).ok().filter(|a| *a < rank).ok_or("an output has no such axis")?;
                    if to != time {
                        let mut axes: Vec<usize> = (0..rank).filter(|a| *a != time).collect();
                        axes.insert(to, time);
                        all = self.emit_one(&name, Transpose(axes), &[Some(all)])?;
                    }
                    all
                }
            };
            let (kind, wanted) = (&self.graph.values[value.0].kind, &self.graph.values[old.0].kind);
            if !wanted.unranked && (kind.unranked || kind.rank() != wanted.rank()) {
                return Err("its outputs have another number of dimensions".into());
            }
            new.push((old, value));
        }
        for (old, new) in new {
            self.replace(old, new);
            self.replaced.insert(old, new);
        }
        Ok(())
    }
}
