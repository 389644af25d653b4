//! Recurrent layers: ONNX's RNN, GRU and LSTM where these compute the same, else a `Scan` over the equations of one
//! timestep (`recurve_reference::recurrence` states them).

use super::operators::activate;
use super::writer::{Attr, Writer, Written, declaration, element};
use recurve_graph::{Node, ops};
use recurve_vocabulary::{Activation, Cell, CellKind, Direction, DirectionWeights, GateOrder, MaskedOutput};

/// Weights of one direction.
type Weights = DirectionWeights<f32>;

/// A layer's outputs and states.
struct Ran {
    /// `[T, B, D·W]`
    y: String,
    /// `[D, B, W]`
    h: String,
    /// `[D, B, C]`
    c: Option<String>,
}

/// One layer, with where it begins and which timesteps count.
struct Layer<'s> {
    r: &'s ops::Recurrent,
    /// Of each direction.
    weights: &'s [Weights],
    /// `[T, B, I]`
    x: &'s str,
    /// `[D, B, W]`
    h: Option<&'s str>,
    /// `[D, B, C]`
    c: Option<&'s str>,
    /// `[B]`, int32
    lengths: Option<&'s str>,
    /// `[T, B, 1]`, bool
    valid: Option<&'s str>,
    masked_output: MaskedOutput,
}

pub(super) fn write(w: &mut Writer<'_>, node: &Node, r: &ops::Recurrent) -> Result<(), String> {
    let Some(inputs) = w.operands(node)? else { return Ok(()) };
    if r.tokens {
        return Err("an embedding that is part of a recurrent layer cannot be written as ONNX".into());
    }
    let name = |n: usize| inputs.get(n).and_then(Option::as_ref).map(|v| v.name.as_str());
    let x = name(0).ok_or("has no input")?;
    let directions = r.directions.len();
    let native = r.cell.is_native() && name(4).is_none();

    let mut seq = if r.time_major { x.to_owned() } else { w.transpose(x, &[1, 0, 2]) };
    let valid = match (name(4), name(3)) {
        (Some(mask), _) => {
            let mask = w.transpose(mask, &[1, 0]);
            Some(w.unsqueeze(&mask, &[2]))
        }
        (None, Some(lengths)) if !native => Some(counted(w, &seq, lengths)),
        _ => None,
    };
    let (mut hs, mut cs) = (Vec::new(), Vec::new());
    for layer in 0..r.num_layers {
        let weights = weights(w, node, r, layer)?;
        let first = (layer * directions) as i64;
        let mut own = |state: Option<&str>| {
            state.map(|s| match r.num_layers {
                1 => s.to_owned(),
                _ => w.slice(s, 0, first, first + directions as i64, 1),
            })
        };
        let (h0, c0) = (own(name(1)), own(name(2)));
        let layer = Layer {
            r,
            weights: &weights,
            x: &seq,
            h: h0.as_deref(),
            c: c0.as_deref(),
            lengths: name(3).filter(|_| native),
            valid: valid.as_deref(),
            // Outputs past the length are zero whatever the option says.
            masked_output: if name(4).is_some() { r.masked_output } else { MaskedOutput::Zero },
        };
        let ran = if native { layer.operator(w) } else { layer.scans(w) };
        seq = ran.y;
        hs.push(ran.h);
        cs.extend(ran.c);
    }
    if r.reading_order && r.directions == [Direction::Reverse] {
        seq = w.slice(&seq, 0, -1, i64::MIN, -1);
    }
    let y = if r.time_major { seq } else { w.transpose(&seq, &[1, 0, 2]) };
    let h = w.concat(&hs, 0);
    let c = if cs.is_empty() { None } else { Some(w.concat(&cs, 0)) };
    for (id, name) in node.outputs.iter().zip([Some(y), Some(h), c].into_iter().flatten()) {
        w.define(*id, Written { name, element: element::FLOAT });
    }
    Ok(())
}

/// The weights of each direction of a layer, rounded to their storage type.
fn weights(w: &Writer<'_>, node: &Node, r: &ops::Recurrent, layer: usize) -> Result<Vec<Weights>, String> {
    let all = r.stored_weights(layer, |place| match node.inputs.get(place).copied().flatten() {
        Some(id) => Ok::<_, String>(w.host(id)?.1.into_iter().map(f64::from).collect()),
        None => Ok(Vec::new()),
    })?;
    let narrow = |v: &Vec<f64>| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let each = all.iter().map(|d| Weights {
        w_ih: narrow(&d.w_ih),
        w_hh: narrow(&d.w_hh),
        b_ih: narrow(&d.b_ih),
        b_hh: narrow(&d.b_hh),
        peepholes: narrow(&d.peepholes),
        w_hr: narrow(&d.w_hr),
        norm_ih: narrow(&d.norm_ih),
        norm_hh: narrow(&d.norm_hh),
        norm_c: narrow(&d.norm_c),
        rest: d.rest,
    });
    Ok(each.collect())
}

/// Which timesteps are below the lengths, `[T, B, 1]`.
fn counted(w: &mut Writer<'_>, seq: &str, lengths: &str) -> String {
    let shape = w.op("Shape", &[seq]);
    let time = w.slice(&shape, 0, 0, 1, 1);
    let time = w.squeeze(&time, &[0]);
    let (zero, one) = (w.int(0), w.int(1));
    let steps = w.op("Range", &[&zero, &time, &one]);
    let steps = w.unsqueeze(&steps, &[1, 2]);
    let lengths = w.node("Cast", &[lengths], vec![("to", Attr::Int(element::INT64.into()))]);
    let lengths = w.unsqueeze(&lengths, &[1]);
    w.op("Less", &[&steps, &lengths])
}

/// What decides which form a cell takes.
trait Native {
    /// Whether ONNX's recurrent operators compute the cell.
    fn is_native(&self) -> bool;
}

impl Native for Cell {
    fn is_native(&self) -> bool {
        let [a, b, c] = self.gates;
        let gates = match self.kind {
            CellKind::Rnn => true,
            // The forget gate of a coupled cell is not used.
            CellKind::Lstm { coupled } => a == c && (coupled || a == b),
            CellKind::Gru { .. } => a == b,
            _ => false,
        };
        let used = [a, self.candidate, self.output];
        gates
            && self.projection.is_none()
            && self.layer_norm.is_none()
            && self.zoneout.is_none()
            && !(self.clip_output && self.clip.is_some())
            && used.iter().all(|f| name(*f).is_some())
    }
}

/// The name of a function in ONNX's recurrent operators.
fn name(f: Activation) -> Option<&'static str> {
    Some(match f {
        Activation::Linear | Activation::Affine { .. } => "Affine",
        Activation::Sigmoid => "Sigmoid",
        Activation::Tanh => "Tanh",
        Activation::Relu => "Relu",
        Activation::HardSigmoid { .. } => "HardSigmoid",
        Activation::LeakyRelu { .. } => "LeakyRelu",
        Activation::ThresholdedRelu { .. } => "ThresholdedRelu",
        Activation::ScaledTanh { .. } => "ScaledTanh",
        Activation::Elu { .. } => "Elu",
        Activation::Softsign => "Softsign",
        Activation::Softplus => "Softplus",
        _ => return None,
    })
}

/// Alpha and beta of a function, where ONNX's has them.
fn parameters(f: Activation) -> (Option<f32>, Option<f32>) {
    match f {
        Activation::Linear => (Some(1.0), Some(0.0)),
        Activation::HardSigmoid { alpha, beta }
        | Activation::Affine { alpha, beta }
        | Activation::ScaledTanh { alpha, beta } => (Some(alpha), Some(beta)),
        Activation::LeakyRelu { alpha } | Activation::ThresholdedRelu { alpha } | Activation::Elu { alpha } => {
            (Some(alpha), None)
        }
        _ => (None, None),
    }
}

impl Layer<'_> {
    fn features(&self) -> usize {
        self.weights[0].w_ih.len() / (self.r.cell.kind.gates() * self.r.hidden_size)
    }

    /// As ONNX's operator.
    fn operator(&self, w: &mut Writer<'_>) -> Ran {
        let Self { r, weights, x, .. } = *self;
        let (cell, hidden, count) = (r.cell, r.hidden_size, weights.len());
        let kind = cell.kind;
        let rows = kind.gates() * hidden;
        let ordered = |rows: &[f32]| GateOrder::Onnx.from_native(kind, rows);
        let joined = |part: &dyn Fn(&Weights) -> Vec<f32>| weights.iter().flat_map(part).collect::<Vec<f32>>();
        let w_ih = w.floats("W", &[count, rows, self.features()], &joined(&|d| ordered(&d.w_ih)));
        let w_hh = w.floats("R", &[count, rows, hidden], &joined(&|d| ordered(&d.w_hh)));
        let bias = weights.iter().any(|d| !(d.b_ih.is_empty() && d.b_hh.is_empty()));
        let bias = if bias {
            let or_zero = |b: &[f32]| if b.is_empty() { vec![0.0; rows] } else { ordered(b) };
            w.floats("B", &[count, 2 * rows], &joined(&|d| [or_zero(&d.b_ih), or_zero(&d.b_hh)].concat()))
        } else {
            String::new()
        };
        let peepholes = if cell.peepholes {
            // i f o here, i o f there.
            let swap =
                |d: &Weights| [0, 2, 1].iter().flat_map(|g| d.peepholes[g * hidden..][..hidden].to_vec()).collect();
            w.floats("P", &[count, 3 * hidden], &joined(&swap))
        } else {
            String::new()
        };
        let (op, functions) = match kind {
            CellKind::Rnn => ("RNN", vec![cell.candidate]),
            CellKind::Lstm { .. } => ("LSTM", vec![cell.gates[0], cell.candidate, cell.output]),
            _ => ("GRU", vec![cell.gates[0], cell.candidate]),
        };
        let all: Vec<Activation> = (0..count).flat_map(|_| functions.iter().copied()).collect();
        let names: Vec<&str> = all.iter().filter_map(|f| name(*f)).collect();
        let alpha: Vec<f32> = all.iter().filter_map(|f| parameters(*f).0).collect();
        let beta: Vec<f32> = all.iter().filter_map(|f| parameters(*f).1).collect();
        let direction = match (count, r.directions[0]) {
            (2, _) => "bidirectional",
            (_, Direction::Reverse) => "reverse",
            _ => "forward",
        };
        let mut attributes = vec![
            ("hidden_size", Attr::Int(hidden as i64)),
            ("direction", Attr::Text(direction)),
            ("activations", Attr::Texts(&names)),
        ];
        if !alpha.is_empty() {
            attributes.push(("activation_alpha", Attr::Floats(&alpha)));
        }
        if !beta.is_empty() {
            attributes.push(("activation_beta", Attr::Floats(&beta)));
        }
        if let Some(clip) = cell.clip {
            attributes.push(("clip", Attr::Float(clip)));
        }
        match kind {
            CellKind::Gru { reset_after: true } => attributes.push(("linear_before_reset", Attr::Int(1))),
            CellKind::Lstm { coupled: true } => attributes.push(("input_forget", Attr::Int(1))),
            _ => {}
        }
        let (h0, lengths) = (self.h.unwrap_or_default(), self.lengths.unwrap_or_default());
        let lstm = kind.has_cell_state();
        let c0 = if lstm { self.c.unwrap_or_default() } else { "" };
        let outputs =
            w.nodes(op, &[x, &w_ih, &w_hh, &bias, lengths, h0, c0, &peepholes], attributes, if lstm { 3 } else { 2 });
        // [T, D, B, H]
        let y = match count {
            1 => w.squeeze(&outputs[0], &[1]),
            _ => {
                let y = w.transpose(&outputs[0], &[0, 2, 1, 3]);
                let shape = w.ints(&[0, 0, -1]);
                w.op("Reshape", &[&y, &shape])
            }
        };
        Ran { y, h: outputs[1].clone(), c: outputs.get(2).cloned() }
    }

    /// As a `Scan` for each direction.
    fn scans(&self, w: &mut Writer<'_>) -> Ran {
        let Self { r, x, .. } = *self;
        let (h_size, c_size) = r.cell.state_sizes(r.hidden_size);
        let (mut ys, mut hs, mut cs) = (Vec::new(), Vec::new(), Vec::new());
        for (n, (direction, weights)) in r.directions.iter().zip(self.weights).enumerate() {
            let mut state = |given: Option<&str>, size: usize| match given {
                Some(s) => {
                    let own = if r.directions.len() == 1 { s.into() } else { w.slice(s, 0, n as i64, n as i64 + 1, 1) };
                    w.squeeze(&own, &[0])
                }
                None => {
                    let shape = w.op("Shape", &[x]);
                    let batch = w.slice(&shape, 0, 1, 2, 1);
                    let size = w.ints(&[size as i64]);
                    let shape = w.concat(&[batch, size], 0);
                    let zero = super::writer::float_tensor("", &[1], &[0.0]);
                    w.node("ConstantOfShape", &[&shape], vec![("value", Attr::Tensor(zero))])
                }
            };
            let h0 = state(self.h, h_size);
            let c0 = c_size.map(|size| state(self.c, size));
            let (features, masked_output) = (self.features(), self.masked_output);
            let scan = Scan { cell: r.cell, hidden: r.hidden_size, features, weights, masked_output };
            let (y, h, c) = scan.write(w, x, *direction, (&h0, c0.as_deref()), self.valid);
            ys.push(y);
            hs.push(w.unsqueeze(&h, &[0]));
            cs.extend(c.map(|c| w.unsqueeze(&c, &[0])));
        }
        let c = if cs.is_empty() { None } else { Some(w.concat(&cs, 0)) };
        Ran { y: w.concat(&ys, 2), h: w.concat(&hs, 0), c }
    }
}

/// One direction of a layer.
struct Scan<'s> {
    cell: Cell,
    hidden: usize,
    features: usize,
    weights: &'s Weights,
    masked_output: MaskedOutput,
}

impl Scan<'_> {
    /// Gates · hidden units.
    fn rows(&self) -> usize {
        self.cell.kind.gates() * self.hidden
    }

    /// The outputs `[T, B, W]` and the final states.
    fn write(
        &self,
        w: &mut Writer<'_>,
        x: &str,
        direction: Direction,
        (h0, c0): (&str, Option<&str>),
        valid: Option<&str>,
    ) -> (String, String, Option<String>) {
        let rows = self.rows();
        let w_ih = w.floats("W", &[self.features, rows], &turned(&self.weights.w_ih, rows));
        let mut projected = w.op("MatMul", &[x, &w_ih]);
        if let Some(epsilon) = self.cell.layer_norm {
            projected = normalized(w, &projected, "norm_ih", &self.weights.norm_ih, epsilon);
        }
        if !self.weights.b_ih.is_empty() {
            let bias = w.floats("b_ih", &[rows], &self.weights.b_ih);
            projected = w.op("Add", &[&projected, &bias]);
        }
        let hh = Hidden::new(self, w);
        let name = |w: &mut Writer<'_>, what: &str| w.free(&format!("{x}/{what}"));
        let (h, p) = (name(w, "h"), name(w, "p"));
        let c = c0.map(|_| name(w, "c"));
        let m = valid.map(|_| name(w, "valid"));
        let float = |name: &str| declaration(name, element::FLOAT, None);
        let mut inputs = vec![float(&h)];
        inputs.extend(c.as_deref().map(float));
        inputs.push(float(&p));
        inputs.extend(m.as_deref().map(|m| declaration(m, element::BOOL, None)));
        let body = w.subgraph(inputs, |w| {
            let (mut new_h, mut new_c) = self.step(w, &hh, &p, &h, c.as_deref());
            let mut y = new_h.clone();
            if let Some(valid) = &m {
                new_h = w.op("Where", &[valid, &new_h, &h]);
                new_c = new_c.zip(c.as_ref()).map(|(new, old)| w.op("Where", &[valid, &new, old]));
                y = match self.masked_output {
                    MaskedOutput::Repeat => new_h.clone(),
                    MaskedOutput::Zero => {
                        let zero = w.scalar(0.0);
                        w.op("Where", &[valid, &y, &zero])
                    }
                };
            }
            // An output of a graph is named once.
            if y == new_h {
                y = w.op("Identity", &[&y]);
            }
            [Some(new_h), new_c, Some(y)].iter().flatten().map(|n| float(n)).collect()
        });
        let scanned = 1 + i64::from(valid.is_some());
        let mut attributes = vec![("body", Attr::Graph(body)), ("num_scan_inputs", Attr::Int(scanned))];
        let backwards = vec![1i64; scanned as usize];
        if direction == Direction::Reverse {
            attributes.push(("scan_input_directions", Attr::Ints(&backwards)));
            attributes.push(("scan_output_directions", Attr::Ints(&[1])));
        }
        let inputs: Vec<&str> = [Some(h0), c0, Some(&projected), valid].into_iter().flatten().collect();
        let mut outputs = w.nodes("Scan", &inputs, attributes, 2 + usize::from(c0.is_some()));
        let y = outputs.pop().expect("at least two");
        let c = c0.and_then(|_| outputs.pop());
        (y, outputs.swap_remove(0), c)
    }

    /// `f(v)`, v clamped first.
    fn act(&self, w: &mut Writer<'_>, f: Activation, v: &str) -> String {
        let v = self.clipped(w, v);
        activate(w, f, &v)
    }

    fn clipped(&self, w: &mut Writer<'_>, v: &str) -> String {
        match self.cell.clip {
            Some(limit) => {
                let (low, high) = (w.scalar(-limit), w.scalar(limit));
                w.op("Clip", &[v, &low, &high])
            }
            None => v.into(),
        }
    }

    /// The new h and c of one timestep, from the projected input and the states before.
    fn step(&self, w: &mut Writer<'_>, hh: &Hidden, p: &str, h: &str, c: Option<&str>) -> (String, Option<String>) {
        let cell = self.cell;
        let kind = cell.kind;
        let [gate0, gate1, gate2] = cell.gates;
        let input = split(w, p, kind.gates());
        let hidden = hh.sums(w, h, kind);
        let one = w.scalar(1.0);
        let sum = |w: &mut Writer<'_>, g: usize| match hidden.get(g) {
            Some(r) => w.op("Add", &[&input[g], r]),
            None => input[g].clone(),
        };
        let mut new_c = None;
        let mut new = match (kind, c) {
            (CellKind::Lstm { coupled }, Some(c)) => {
                let seeing = |w: &mut Writer<'_>, g: usize, peephole: usize, c: &str| {
                    let v = sum(w, g);
                    match hh.peepholes.get(peephole) {
                        Some(p) => {
                            let seen = w.op("Mul", &[p, c]);
                            w.op("Add", &[&v, &seen])
                        }
                        None => v,
                    }
                };
                let i = seeing(w, 0, 0, c);
                let i = self.act(w, gate0, &i);
                let f = if coupled {
                    w.op("Sub", &[&one, &i])
                } else {
                    let f = seeing(w, 1, 1, c);
                    self.act(w, gate1, &f)
                };
                let g = sum(w, 2);
                let g = self.act(w, cell.candidate, &g);
                let (kept, added) = (w.op("Mul", &[&f, c]), w.op("Mul", &[&i, &g]));
                let now = w.op("Add", &[&kept, &added]);
                let o = seeing(w, 3, 2, &now);
                let o = self.act(w, gate2, &o);
                let mut seen = now.clone();
                if let Some(epsilon) = cell.layer_norm {
                    seen = normalized(w, &seen, "norm_c", &self.weights.norm_c, epsilon);
                }
                if cell.clip_output {
                    seen = self.clipped(w, &seen);
                }
                let seen = activate(w, cell.output, &seen);
                let m = w.op("Mul", &[&o, &seen]);
                new_c = Some(match cell.zoneout {
                    Some(z) => mixed(w, z.c, c, &now),
                    None => now,
                });
                match &hh.projection {
                    Some(w_hr) => w.op("MatMul", &[&m, w_hr]),
                    None => m,
                }
            }
            (CellKind::Gru { reset_after }, _) => {
                let r = sum(w, 0);
                let r = self.act(w, gate0, &r);
                let z = sum(w, 1);
                let z = self.act(w, gate1, &z);
                let recurrent = if reset_after {
                    w.op("Mul", &[&r, &hidden[2]])
                } else {
                    let reset = w.op("Mul", &[&r, h]);
                    hh.candidate(w, &reset)
                };
                let n = w.op("Add", &[&input[2], &recurrent]);
                let n = self.act(w, cell.candidate, &n);
                let rest = w.op("Sub", &[&one, &z]);
                let (new, old) = (w.op("Mul", &[&rest, &n]), w.op("Mul", &[&z, h]));
                w.op("Add", &[&new, &old])
            }
            (CellKind::MinGru, _) => {
                let z = self.act(w, gate0, &input[0]);
                let n = self.act(w, cell.candidate, &input[1]);
                let rest = w.op("Sub", &[&one, &z]);
                let (old, new) = (w.op("Mul", &[&rest, h]), w.op("Mul", &[&z, &n]));
                w.op("Add", &[&old, &new])
            }
            (CellKind::MinLstm, _) => {
                let (f, i) = (self.act(w, gate0, &input[0]), self.act(w, gate1, &input[1]));
                let n = self.act(w, cell.candidate, &input[2]);
                let (old, new) = (w.op("Mul", &[&f, h]), w.op("Mul", &[&i, &n]));
                let (all, both) = (w.op("Add", &[&old, &new]), w.op("Add", &[&f, &i]));
                w.op("Div", &[&all, &both])
            }
            (CellKind::SLstm { exponential_forget, .. }, Some(c)) => {
                let states = split(w, c, 3);
                let (i, f) = (sum(w, 0), sum(w, 1));
                let (i, f) = (self.clipped(w, &i), self.clipped(w, &f));
                let (z, o) = (sum(w, 2), sum(w, 3));
                let (z, o) = (self.act(w, cell.candidate, &z), self.act(w, gate2, &o));
                let l = if exponential_forget {
                    f
                } else {
                    // ln σ(f) = -softplus(-f)
                    let f = w.op("Neg", &[&f]);
                    let f = w.op("Softplus", &[&f]);
                    w.op("Neg", &[&f])
                };
                let zero = w.scalar(0.0);
                let kept = w.op("Add", &[&states[2], &l]);
                let larger = w.op("Max", &[&kept, &i]);
                let empty = w.op("Equal", &[&states[1], &zero]);
                let top = w.op("Where", &[&empty, &i, &larger]);
                let i = w.op("Sub", &[&i, &top]);
                let i = w.op("Exp", &[&i]);
                let f = w.op("Sub", &[&kept, &top]);
                let f = w.op("Min", &[&f, &zero]);
                let f = w.op("Exp", &[&f]);
                let (old, new) = (w.op("Mul", &[&f, &states[0]]), w.op("Mul", &[&i, &z]));
                let c = w.op("Add", &[&old, &new]);
                let n = w.op("Mul", &[&f, &states[1]]);
                let n = w.op("Add", &[&n, &i]);
                let ratio = w.op("Div", &[&c, &n]);
                new_c = Some(w.concat(&[c, n, top], 1));
                w.op("Mul", &[&o, &ratio])
            }
            _ => {
                let v = sum(w, 0);
                self.act(w, cell.candidate, &v)
            }
        };
        if let Some(z) = cell.zoneout {
            new = mixed(w, z.h, h, &new);
        }
        (new, new_c)
    }
}

/// The weights of a timestep as initializers.
struct Hidden {
    /// The matrix by which h is multiplied, of a GRU with the reset gate before the product that of r and z.
    matrix: Option<String>,
    /// The vector of an IndRNN.
    vector: Option<String>,
    bias: Option<String>,
    /// The matrix and the bias of the candidate of a GRU with the reset gate before the product.
    last: Option<(String, Option<String>)>,
    norm: Option<(Vec<f32>, f32)>,
    peepholes: Vec<String>,
    projection: Option<String>,
}

impl Hidden {
    fn new(s: &Scan<'_>, w: &mut Writer<'_>) -> Self {
        let (kind, h, weights) = (s.cell.kind, s.hidden, s.weights);
        let width = s.cell.state_size(h);
        let before = kind == CellKind::Gru { reset_after: false };
        let rows = if before { 2 * h } else { s.rows() };
        let mut matrix = |what: &str, m: &[f32], rows: usize| w.floats(what, &[m.len() / rows, rows], &turned(m, rows));
        let (mut own, mut vector) = (None, None);
        match kind {
            CellKind::MinGru | CellKind::MinLstm => {}
            CellKind::IndRnn => vector = Some(()),
            CellKind::SLstm { .. } => {
                // One block a head, among zeros.
                let columns = kind.columns(width);
                let mut full = vec![0.0; rows * width];
                for (row, block) in weights.w_hh.chunks_exact(columns).enumerate() {
                    full[row * width + row % h / columns * columns..][..columns].copy_from_slice(block);
                }
                own = Some(matrix("R", &full, rows));
            }
            _ => own = Some(matrix("R", &weights.w_hh[..rows * width], rows)),
        }
        let last = before.then(|| matrix("R_n", &weights.w_hh[rows * width..], h));
        let projection = (!weights.w_hr.is_empty()).then(|| matrix("W_hr", &weights.w_hr, width));
        let vector = vector.map(|()| w.floats("u", &[h], &weights.w_hh));
        let mut bias = |what: &str, b: &[f32]| (!b.is_empty()).then(|| w.floats(what, &[b.len()], b));
        let (first, rest) = weights.b_hh.split_at(rows.min(weights.b_hh.len()));
        let (own_bias, last_bias) = (bias("b_hh", first), bias("b_hn", rest));
        let peepholes = weights.peepholes.chunks_exact(h).map(|p| w.floats("p", &[h], p)).collect();
        let norm = s.cell.layer_norm.map(|epsilon| (weights.norm_hh.clone(), epsilon));
        Self { matrix: own, vector, bias: own_bias, last: last.map(|m| (m, last_bias)), norm, peepholes, projection }
    }

    /// What h adds to each gate; nothing for the minimal cells, two gates for a GRU with the reset gate before the
    /// product.
    fn sums(&self, w: &mut Writer<'_>, h: &str, kind: CellKind) -> Vec<String> {
        let mut all = match (&self.matrix, &self.vector) {
            (Some(m), _) => w.op("MatMul", &[h, m]),
            (None, Some(u)) => w.op("Mul", &[h, u]),
            (None, None) => {
                // Without recurrent weights the second bias still counts.
                return match &self.bias {
                    Some(b) => split(w, b, kind.gates()),
                    None => Vec::new(),
                };
            }
        };
        if let Some((affine, epsilon)) = &self.norm {
            all = normalized(w, &all, "norm_hh", affine, *epsilon);
        }
        if let Some(b) = &self.bias {
            all = w.op("Add", &[&all, b]);
        }
        split(w, &all, if self.last.is_some() { 2 } else { kind.gates() })
    }

    /// What the reset h adds to the candidate.
    fn candidate(&self, w: &mut Writer<'_>, reset: &str) -> String {
        let (matrix, bias) = self.last.as_ref().expect("a GRU with the reset gate before the product");
        let sum = w.op("MatMul", &[reset, matrix]);
        match bias {
            Some(b) => w.op("Add", &[&sum, b]),
            None => sum,
        }
    }
}

/// Equal parts along the last axis.
fn split(w: &mut Writer<'_>, x: &str, parts: usize) -> Vec<String> {
    if parts == 1 { vec![x.into()] } else { w.nodes("Split", &[x], vec![("axis", Attr::Int(-1))], parts) }
}

/// `share · old + (1 - share) · new`
fn mixed(w: &mut Writer<'_>, share: f32, old: &str, new: &str) -> String {
    let (a, b) = (w.scalar(share), w.scalar(1.0 - share));
    let (old, new) = (w.op("Mul", &[&a, old]), w.op("Mul", &[&b, new]));
    w.op("Add", &[&old, &new])
}

/// Layer normalization over the last axis; `affine` holds gain and offset.
fn normalized(w: &mut Writer<'_>, x: &str, what: &str, affine: &[f32], epsilon: f32) -> String {
    let (gain, offset) = affine.split_at(affine.len() / 2);
    let gain = w.floats(&format!("{what}_gain"), &[gain.len()], gain);
    let offset = w.floats(&format!("{what}_offset"), &[offset.len()], offset);
    w.node("LayerNormalization", &[x, &gain, &offset], vec![("epsilon", Attr::Float(epsilon))])
}

/// A matrix of so many rows with rows and columns exchanged.
pub(super) fn turned(m: &[f32], rows: usize) -> Vec<f32> {
    let columns = m.len() / rows.max(1);
    (0..columns).flat_map(|c| (0..rows).map(move |r| m[r * columns + c])).collect()
}
