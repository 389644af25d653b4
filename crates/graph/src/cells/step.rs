//! One step of a cell, by what its nodes compute.

use super::Pass;
use super::sums::{Matrix, Part, Sum};
use crate::ops::{Activate, Binary, Map};
use crate::{Element, ValueId};
use core::ops::Range;
use recurve_tensor::Function;
use recurve_vocabulary::{Activation, Cell, CellKind};
use std::collections::BTreeSet;

/// A step: new states from an input and the old states.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub cell: Cell,
    pub hidden: usize,
    /// The sums of the gates and of the candidate, in ONNX's order. Products of h with the candidate of a GRU whose
    /// reset gate comes after them are among them.
    pub gates: Vec<Sum>,
    /// The bias that the reset gate multiplies, of such a GRU.
    pub recurrent_bias: Option<Vec<f64>>,
    /// What the products are of, each once; the old h is among them if `h` says where.
    pub parts: Vec<Part>,
    /// The place of the old h among the parts. None if it is zero.
    pub h: Option<usize>,
    /// The old c of an LSTM.
    pub c: Option<ValueId>,
    pub h_out: ValueId,
    pub c_out: Option<ValueId>,
    pub nodes: BTreeSet<usize>,
    pub shared: BTreeSet<usize>,
}

/// A function of a sum.
struct Gate {
    function: Activation,
    sum: Sum,
    nodes: BTreeSet<usize>,
}

/// What came of looking for a step: none, one, or one that cannot be taken and why.
pub(super) type Found = Result<Option<Step>, String>;

impl Pass {
    /// The step that a node ends, if it ends one.
    pub(super) fn step(&self, node: usize) -> Found {
        match self.operator::<Binary>(node) {
            Some(Binary::Mul) => self.lstm(node),
            Some(Binary::Add) => self.gru(node),
            _ if self.operator::<Activate>(node).is_some() => Ok(self.rnn(node)),
            _ => Ok(None),
        }
    }

    fn both(&self, node: usize) -> Option<[(ValueId, ValueId); 2]> {
        let (a, b) = (self.input(node, 0)?, self.input(node, 1)?);
        Some([(a, b), (b, a)])
    }

    /// The operands of a node that combines two, in both orders.
    fn operands(&self, id: ValueId, operation: Binary) -> Option<(usize, [(ValueId, ValueId); 2])> {
        let (node, op) = self.made::<Binary>(id)?;
        if *op != operation { None } else { Some((node, self.both(node)?)) }
    }

    /// A value that is an activation of another.
    fn activation(&self, id: ValueId) -> Option<(Activation, ValueId, BTreeSet<usize>)> {
        if let Some((node, f)) = self.made::<Activate>(id) {
            return Some((f.0, self.input(node, 0)?, BTreeSet::from([node])));
        }
        if let Some((node, map)) = self.made::<Map>(id)
            && let Function::Clip { low: 0.0, high: 1.0 } = map.function
        {
            // clip(alpha · x + beta, 0, 1)
            let (plus, beta, scaled) = self.with_number(self.input(node, 0)?, Binary::Add)?;
            let (times, alpha, x) = match self.with_number(scaled, Binary::Mul) {
                Some(found) => found,
                None => {
                    return Some((Activation::HardSigmoid { alpha: 1.0, beta }, scaled, BTreeSet::from([node, plus])));
                }
            };
            return Some((Activation::HardSigmoid { alpha, beta }, x, BTreeSet::from([node, plus, times])));
        }
        // clip(x + 3, 0, 6) / 6
        let (times, sixth, clipped) = match self.with_number(id, Binary::Mul) {
            Some(found) => found,
            None => {
                let (node, op) = self.made::<Binary>(id).filter(|(_, op)| **op == Binary::Div)?;
                let _ = op;
                (node, 1.0 / self.uniform(self.input(node, 1)?)?, self.input(node, 0)?)
            }
        };
        let (node, map) = self.made::<Map>(clipped)?;
        let Function::Clip { low: 0.0, high } = map.function else { return None };
        if (high * sixth - 1.0).abs() > f32::EPSILON {
            return None;
        }
        let (plus, three, x) = self.with_number(self.input(node, 0)?, Binary::Add)?;
        let function = Activation::HardSigmoid { alpha: sixth, beta: three * sixth };
        Some((function, x, BTreeSet::from([times, node, plus])))
    }

    /// A value and a number, combined by a node.
    fn with_number(&self, id: ValueId, operation: Binary) -> Option<(usize, f32, ValueId)> {
        let (node, orders) = self.operands(id, operation)?;
        orders.into_iter().find_map(|(n, x)| Some((node, self.uniform(n)?, x)))
    }

    /// A value as a function of a sum. Columns may be taken before or after the function.
    fn gate(&self, mut id: ValueId) -> Option<Gate> {
        let (mut ranges, mut nodes): (Vec<Range<usize>>, _) = (Vec::new(), BTreeSet::new());
        loop {
            id = self.plain(id);
            match self.cut(id) {
                Some((node, x, axis, range)) if Some(axis + 1) == self.rank(x) => {
                    ranges.push(range);
                    nodes.insert(node);
                    id = x;
                }
                Some(_) => return None,
                None => break,
            }
        }
        let (function, x, mut own) = self.activation(id)?;
        nodes.append(&mut own);
        let mut sum = self.sum(x)?;
        for range in ranges.iter().rev() {
            sum = sum.columns(range)?;
        }
        Some(Gate { function, sum, nodes })
    }

    /// `1 - x`
    fn complement(&self, id: ValueId) -> Option<(usize, ValueId)> {
        let (node, op) = self.made::<Binary>(id)?;
        (*op == Binary::Sub && self.uniform(self.input(node, 0)?) == Some(1.0)).then_some(())?;
        Some((node, self.input(node, 1)?))
    }

    /// `h = o · tanh(f · c + i · g)`
    fn lstm(&self, node: usize) -> Found {
        let mut why = None;
        for (o, activated) in self.both(node).into_iter().flatten() {
            let (output, c_out, own) = match self.activation(activated) {
                Some(found) => found,
                None => (Activation::Linear, activated, BTreeSet::new()),
            };
            let Some((plus, terms)) = self.operands(c_out, Binary::Add) else { continue };
            for (kept, new) in terms {
                let (Some((keep, kept)), Some((add, new))) =
                    (self.operands(kept, Binary::Mul), self.operands(new, Binary::Mul))
                else {
                    continue;
                };
                for (f, c) in kept {
                    for (i, g) in new {
                        let nodes: BTreeSet<usize> = own.iter().copied().chain([node, plus, keep, add]).collect();
                        match self.lstm_of([i, o, f, g], output, nodes, (node, c, c_out)) {
                            Ok(Some(step)) => return Ok(Some(step)),
                            Ok(None) => {}
                            Err(e) => why = why.or(Some(e)),
                        }
                    }
                }
            }
        }
        why.map_or(Ok(None), Err)
    }

    fn lstm_of(
        &self,
        [i, o, f, g]: [ValueId; 4],
        output: Activation,
        mut nodes: BTreeSet<usize>,
        (node, c, c_out): (usize, ValueId, ValueId),
    ) -> Found {
        // Coupled gates: f = 1 - i.
        let coupled = self.complement(f).filter(|(_, x)| self.plain(*x) == self.plain(i));
        if let Some((one_less, _)) = coupled {
            nodes.insert(one_less);
        }
        let named = if coupled.is_some() { vec![i, o, g] } else { vec![i, o, f, g] };
        let mut gates = Vec::new();
        let mut other = None;
        for id in named {
            match self.gate(id) {
                Some(g) => gates.push(g),
                None => other = other.or(Some(id)),
            }
        }
        if let Some(id) = other {
            // Three gates of four, and a function in the place of the fourth that no cell has.
            return match self.strange(id) {
                Some(why) if gates.len() == 3 => Err(why),
                _ => Ok(None),
            };
        }
        let c = self.plain(c);
        let mut functions: Vec<Activation> = gates.iter().map(|g| g.function).collect();
        if coupled.is_some() {
            functions.insert(2, functions[0]);
        }
        let [fi, fo, ff, fg] = functions[..] else { return Ok(None) };
        // i · g is g · i: the gate is the one that is a sigmoid.
        let sigmoid = |f: Activation| matches!(f, Activation::Sigmoid | Activation::HardSigmoid { .. });
        if sigmoid(fg) && !sigmoid(fi) {
            return Ok(None);
        }
        let cell = Cell {
            gates: [fi, ff, fo],
            candidate: fg,
            output,
            ..Cell::with_kind(CellKind::Lstm { coupled: coupled.is_some() })
        };
        let mut sums = Vec::new();
        for mut gate in gates {
            nodes.append(&mut gate.nodes);
            sums.push(gate.sum);
        }
        if coupled.is_some() {
            sums.insert(2, sums[0].clone());
        }
        let h_out = self.graph.nodes[node].outputs[0];
        self.finished(Step {
            cell,
            hidden: sums[0].width,
            gates: sums,
            recurrent_bias: None,
            parts: Vec::new(),
            h: None,
            c: Some(c),
            h_out,
            c_out: Some(c_out),
            nodes,
            shared: BTreeSet::new(),
        })
    }

    /// `h = z · h + (1 - z) · n`, or what is the same.
    fn gru(&self, node: usize) -> Found {
        let mut why = None;
        for (a, b) in self.both(node).into_iter().flatten() {
            // z · h + (1 - z) · n, where z or 1 - z is a gate.
            if let (Some((first, kept)), Some((second, new))) =
                (self.operands(a, Binary::Mul), self.operands(b, Binary::Mul))
            {
                for (z, h) in kept {
                    for (rest, n) in new {
                        let found = match (self.complement(rest), self.complement(z)) {
                            (Some((one_less, x)), _) if self.plain(x) == self.plain(z) => Some((one_less, z, false)),
                            (_, Some((one_less, x))) if self.plain(x) == self.plain(rest) => {
                                Some((one_less, rest, true))
                            }
                            _ => None,
                        };
                        let Some((one_less, z, turned)) = found else { continue };
                        match self.gru_of(node, (z, turned), h, n, &[first, second, one_less]) {
                            Ok(Some(step)) => return Ok(Some(step)),
                            Ok(None) => {}
                            Err(e) => why = why.or(Some(e)),
                        }
                    }
                }
            }
            // n + z · (h - n), or h + z · (n - h)
            let Some((times, factors)) = self.operands(b, Binary::Mul) else { continue };
            for (z, difference) in factors {
                let Some((minus, [(to, from), _])) = self.operands(difference, Binary::Sub) else { continue };
                if self.plain(from) != self.plain(a) {
                    continue;
                }
                for (turned, h, n) in [(false, to, a), (true, a, to)] {
                    match self.gru_of(node, (z, turned), h, n, &[times, minus]) {
                        Ok(Some(step)) => return Ok(Some(step)),
                        Ok(None) => {}
                        Err(e) => why = why.or(Some(e)),
                    }
                }
            }
        }
        why.map_or(Ok(None), Err)
    }

    /// With `turned` z is the share of the new, not of the old.
    fn gru_of(&self, node: usize, (z, turned): (ValueId, bool), h: ValueId, n: ValueId, own: &[usize]) -> Found {
        let mut nodes: BTreeSet<usize> = own.iter().copied().chain([node]).collect();
        let Some(mut candidate) = self.gate(n) else { return Ok(None) };
        let Some(mut z) = self.gate(z) else { return Ok(None) };
        let h = self.plain(h);
        // Where the reset gate is: r · (h · R + b), or a product of r · h.
        let mut inner = None;
        for (at, p) in candidate.sum.products.iter().enumerate() {
            let Some((times, factors)) = p.part.value.and_then(|v| self.operands(v, Binary::Mul)) else { continue };
            for (r, x) in factors {
                let Some(r) = self.gate(r) else { continue };
                let after = p.matrix.is_none();
                if !after && self.plain(x) == h {
                    inner = Some((at, times, r, None));
                    break;
                }
                if after
                    && p.columns == (0..candidate.sum.width)
                    && let Some(sum) = self.sum(x)
                {
                    let real = sum.products.iter().all(|p| p.matrix.is_some());
                    if real && sum.width == candidate.sum.width {
                        inner = Some((at, times, r, Some(sum)));
                        break;
                    }
                }
            }
        }
        let Some((at, reset, mut r, after)) = inner else { return Ok(None) };
        nodes.insert(reset);
        let reset_after = after.is_some();
        let mut recurrent_bias = None;
        match after {
            Some(mut sum) => {
                candidate.sum.products.remove(at);
                candidate.sum.products.append(&mut sum.products);
                nodes.append(&mut sum.nodes);
                candidate.sum.shared.append(&mut sum.shared);
                recurrent_bias = Some(sum.bias);
            }
            None if self.uniform(h) == Some(0.0) => drop(candidate.sum.products.remove(at)),
            None => candidate.sum.products[at].part = self.part(h),
        }
        if turned && !turn(&mut z) {
            return Err("z is the share of the new state, and its function is not odd about 1/2".into());
        }
        for g in [&mut z, &mut r, &mut candidate] {
            nodes.append(&mut g.nodes);
        }
        let cell = Cell {
            gates: [r.function, z.function, Activation::Sigmoid],
            candidate: candidate.function,
            ..Cell::with_kind(CellKind::Gru { reset_after })
        };
        let h_out = self.graph.nodes[node].outputs[0];
        let hidden = candidate.sum.width;
        let step = Step {
            cell,
            hidden,
            gates: vec![z.sum, r.sum, candidate.sum],
            recurrent_bias,
            parts: Vec::new(),
            h: None,
            c: None,
            h_out,
            c_out: None,
            nodes,
            shared: BTreeSet::new(),
        };
        let Some(mut step) = self.finished(step)? else { return Ok(None) };
        // The h that z keeps is the one that is multiplied.
        step.h = step.parts.iter().position(|p| *p == self.part(h));
        if step.h.is_none() && self.uniform(h) != Some(0.0) {
            return Ok(None);
        }
        Ok(Some(step))
    }

    /// `h = f(x · W + h · R + b)`
    fn rnn(&self, node: usize) -> Option<Step> {
        let gate = self.gate(self.graph.nodes[node].outputs[0])?;
        if gate.sum.products.len() != 2 {
            return None;
        }
        let step = Step {
            cell: Cell { candidate: gate.function, ..Cell::RNN },
            hidden: gate.sum.width,
            gates: vec![gate.sum],
            recurrent_bias: None,
            parts: Vec::new(),
            h: None,
            c: None,
            h_out: self.graph.nodes[node].outputs[0],
            c_out: None,
            nodes: gate.nodes,
            shared: BTreeSet::new(),
        };
        self.finished(step).ok().flatten().filter(|s| s.parts.len() == 2)
    }

    /// The step with what its products are of, if they are the same everywhere.
    fn finished(&self, mut step: Step) -> Found {
        if step.gates.iter().any(|g| g.width != step.hidden) {
            return Ok(None);
        }
        for gate in &mut step.gates {
            step.nodes.append(&mut gate.nodes);
            step.shared.append(&mut gate.shared);
            for p in &gate.products {
                if !step.parts.contains(&p.part) {
                    step.parts.push(p.part.clone());
                }
            }
        }
        let output = &self.graph.nodes[*step.nodes.iter().max().expect("has nodes")].name;
        if step.gates.iter().any(|g| g.products.iter().any(|p| p.matrix.is_none())) {
            let free = |p: &super::sums::Product| {
                p.matrix.is_none() && p.part.value.is_some_and(|v| self.made::<crate::ops::MatMul>(v).is_some())
            };
            let weights = step.gates.iter().any(|g| g.products.iter().any(free));
            return match weights {
                true => Err(format!("node `{output}` ends a step of a cell, but its weights are not constants")),
                false => {
                    Err(format!("node `{output}` ends a step of a cell, but a sum adds a value that is no product"))
                }
            };
        }
        let twice =
            |g: &Sum| g.products.iter().enumerate().any(|(n, p)| g.products[..n].iter().any(|q| q.part == p.part));
        let missing = |g: &Sum| step.parts.iter().any(|part| g.products.iter().all(|p| p.part != *part));
        if step.parts.is_empty() || step.gates.iter().any(|g| twice(g) || missing(g)) {
            return Err(format!(
                "node `{output}` ends a step of a cell, but its gates have products of different values"
            ));
        }
        let values = step.parts.iter().filter_map(|p| p.value);
        if values.chain(step.c).any(|v| self.graph.values[v.0].kind.unranked) {
            return Err(format!("node `{output}` ends a step of a cell, but the number of dimensions is not known"));
        }
        Ok(Some(step))
    }

    /// Why a value is no gate, if it is a function of a sum of products.
    fn strange(&self, id: ValueId) -> Option<String> {
        let node = self.maker(id)?;
        let map = self.operator::<Map>(node).filter(|m| m.element == Element::F32)?;
        let sum = self.sum(self.input(node, 0)?)?;
        let real = sum.products.len() >= 2 && sum.products.iter().all(|p| p.matrix.is_some());
        let node = &self.graph.nodes[node];
        let name = node.operator.name();
        real.then(|| {
            format!(
                "node `{}` ({name}) is in the place of a gate of an LSTM, where no cell has {:?}",
                node.name, map.function
            )
        })
    }
}

/// Makes `1 - f(x)` of a gate `f(x)`, if that is the same function of other weights.
fn turn(gate: &mut Gate) -> bool {
    let odd = match gate.function {
        Activation::Sigmoid => true,
        Activation::HardSigmoid { beta, .. } => beta == 0.5,
        _ => false,
    };
    if odd {
        gate.sum.bias.iter_mut().for_each(|b| *b = -*b);
        for p in &mut gate.sum.products {
            p.matrix = p.matrix.take().map(Matrix::negated);
        }
    }
    odd
}

impl Step {
    /// The columns of a gate that belong to a part: its weights `[hidden, width]`, row by row.
    pub(super) fn weights(&self, gate: usize, part: usize) -> Vec<f32> {
        let product = self.gates[gate].products.iter().find(|p| p.part == self.parts[part]);
        let Some((matrix, columns)) = product.and_then(|p| Some((p.matrix.as_ref()?, &p.columns))) else {
            return Vec::new();
        };
        columns.clone().flat_map(|c| (0..matrix.rows()).map(move |r| matrix.at(r, c))).collect()
    }

    /// The elements of a part.
    pub(super) fn part_width(&self, part: usize) -> usize {
        let product = self.gates[0].products.iter().find(|p| p.part == self.parts[part]);
        product.and_then(|p| p.matrix.as_ref()).map_or(0, Matrix::rows)
    }

    /// Whether a part has the weights in this step that another part has in another step.
    pub(super) fn same_weights(&self, part: usize, other: &Self, other_part: usize) -> bool {
        let find = |s: &Self, g: usize, part: usize| {
            s.gates[g].products.iter().find(|p| p.part == s.parts[part]).map(|p| (p.matrix.clone(), p.columns.clone()))
        };
        (0..self.gates.len()).all(|g| find(self, g, part) == find(other, g, other_part))
    }

    /// Whether both are steps of one cell with these places of h: the same functions and weights.
    pub(super) fn same_cell(&self, other: &Self) -> bool {
        if self.cell != other.cell || self.hidden != other.hidden || self.recurrent_bias != other.recurrent_bias {
            return false;
        }
        let inputs = |s: &Self| (0..s.parts.len()).filter(|p| Some(*p) != s.h).collect::<Vec<_>>();
        let (a, b) = (inputs(self), inputs(other));
        let states = match (self.h, other.h) {
            (Some(a), Some(b)) => self.same_weights(a, other, b),
            _ => true,
        };
        let biases = self.gates.iter().zip(&other.gates).all(|(a, b)| a.bias == b.bias);
        states && biases && a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| self.same_weights(*a, other, *b))
    }
}
