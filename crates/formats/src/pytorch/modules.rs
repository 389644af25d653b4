//! The modules that the names of weights make, with their kinds guessed from names and shapes.

use super::names::Names;
use recurve_layers::thousands;
use recurve_weights::WeightFile;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A module that the names of weights make, as far as names and shapes tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WeightModule {
    /// The beginning of the names of its weights, without the last dot; of a tensor that belongs to no known module its
    /// name.
    pub name: String,
    /// The class in PyTorch, or several that these weights could belong to; `tensor` for a tensor by itself.
    pub kind: String,
    /// Sizes and options, such as `40 → 2 × 64, 2 layers, bidirectional, biases`.
    pub details: String,
    /// Number of elements, without those of tied tensors and of running statistics.
    pub params: usize,
    /// The types of its tensors.
    pub types: Vec<String>,
    /// Its tensors that are the same as others, each with the name of the other one.
    pub tied: Vec<(String, String)>,
}

/// What is in a file of weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WeightSummary {
    /// The kind of file.
    pub format: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements of the modules.
    pub total_params: usize,
    /// What wrappers such as `DataParallel` added to the names, which the names of the modules are without.
    pub wrappers: Vec<String>,
    /// Where in the file the weights are, and what was left out.
    pub notes: Vec<String>,
    /// The modules, by name.
    pub modules: Vec<WeightModule>,
}

/// The tensors of a module by the last parts of their names.
type Parts<'a> = BTreeMap<&'a str, &'a [usize]>;

impl WeightSummary {
    /// Finds the modules of a file.
    pub fn of(file: &WeightFile) -> Self {
        let names = Names::of(file);
        let mut groups: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
        for (name, full) in &names.own {
            let (module, part) = name.rsplit_once('.').unwrap_or(("", name));
            groups.entry(module).or_default().insert(part, file.shape(full).expect("a name of the file"));
        }
        let short: BTreeMap<&str, &str> = names.own.iter().map(|(n, full)| (&**full, &**n)).collect();
        let mut modules = Vec::new();
        for (module, parts) in &groups {
            let full = |part: &str| names.own[&join(module, part)].as_str();
            let describe = |name: String, kind: String, details: String, parts: &[&str]| {
                let mut types: Vec<String> = Vec::new();
                let (mut tied, mut params) = (Vec::new(), 0);
                for &part in parts {
                    let dtype = file.dtype(full(part)).expect("a name of the file");
                    if !types.iter().any(|t| t == dtype) {
                        types.push(dtype.to_owned());
                    }
                    match file.tied(full(part)) {
                        Some(other) => tied.push((join(module, part), short[other].to_owned())),
                        None if statistics(part) => {}
                        None => params += groups[module][part].iter().product::<usize>(),
                    }
                }
                WeightModule { name, kind, details, params, types, tied }
            };
            match guess(parts) {
                Some((kind, details)) => {
                    let all: Vec<&str> = parts.keys().copied().collect();
                    modules.push(describe((*module).to_owned(), kind, details, &all));
                }
                None => modules.extend(parts.iter().map(|(part, shape)| {
                    describe(join(module, part), "tensor".into(), format!("{shape:?}"), &[*part])
                })),
            }
        }
        modules.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            format: file.format().to_string(),
            tensors: names.own.len(),
            total_params: modules.iter().map(|m| m.params).sum(),
            wrappers: names.wrappers.iter().map(|w| w.trim_end_matches('.').to_owned()).collect(),
            notes: file.notes().to_vec(),
            modules,
        }
    }
}

fn join(module: &str, part: &str) -> String {
    if module.is_empty() { part.to_owned() } else { format!("{module}.{part}") }
}

fn statistics(part: &str) -> bool {
    ["running_mean", "running_var", "num_batches_tracked"].contains(&part)
}

/// The kind of a module and its sizes, if all of its tensors fit one.
fn guess(parts: &Parts<'_>) -> Option<(String, String)> {
    recurrent(parts).or_else(|| attention(parts)).or_else(|| norm(parts)).or_else(|| weighted(parts))
}

/// The class whose weights have this many gates.
fn of_gates(rows: usize, units: usize) -> Option<&'static str> {
    match rows.checked_div(units)? {
        4 if rows == 4 * units => Some("LSTM"),
        3 if rows == 3 * units => Some("GRU"),
        1 if rows == units => Some("RNN"),
        _ => None,
    }
}

/// `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells.
fn recurrent(parts: &Parts<'_>) -> Option<(String, String)> {
    let cell = parts.contains_key("weight_ih");
    let at = |part: &str, layer: usize, reverse: bool| {
        let name =
            if cell { part.to_owned() } else { format!("{part}_l{layer}{}", if reverse { "_reverse" } else { "" }) };
        parts.get(name.as_str()).copied()
    };
    let (Some(&[rows, input]), Some(&[_, width])) = (at("weight_ih", 0, false), at("weight_hh", 0, false)) else {
        return None;
    };
    let projected = at("weight_hr", 0, false);
    let units = match projected {
        Some(&[p, units]) if p == width => units,
        Some(_) => return None,
        None => width,
    };
    let kind = of_gates(rows, units)?;
    if projected.is_some() && kind != "LSTM" {
        return None;
    }
    let both = at("weight_ih", 0, true).is_some() && !cell;
    let directions = if both { &[false, true][..] } else { &[false] };
    let bias = at("bias_ih", 0, false).is_some();
    // Every tensor must be one that such a module has, with its shape.
    let (mut layers, mut seen) = (0, 0);
    while (!cell || layers == 0) && at("weight_ih", layers, false).is_some() {
        let features = if layers == 0 { input } else { width * directions.len() };
        for &reverse in directions {
            let mut has = |part: &str, shape: &[usize]| {
                seen += 1;
                at(part, layers, reverse) == Some(shape)
            };
            let fits = has("weight_ih", &[rows, features])
                && has("weight_hh", &[rows, width])
                && (!bias || has("bias_ih", &[rows]) && has("bias_hh", &[rows]))
                && (projected.is_none() || has("weight_hr", &[width, units]));
            if !fits {
                return None;
            }
        }
        layers += 1;
    }
    if seen != parts.len() {
        return None;
    }
    let mut details = match both {
        true => format!("{input} → 2 × {width}"),
        false => format!("{input} → {width}"),
    };
    if !cell {
        details += &format!(", {layers} {}", if layers == 1 { "layer" } else { "layers" });
    }
    if both {
        details += ", bidirectional";
    }
    details += if bias { ", biases" } else { ", no biases" };
    if projected.is_some() {
        details += &format!(", projection of {units} units");
    }
    Some((if cell { format!("{kind}Cell") } else { kind.to_owned() }, details))
}

/// `nn.MultiheadAttention`; its output projection is a module of its own.
fn attention(parts: &Parts<'_>) -> Option<(String, String)> {
    let &[rows, features] = *parts.get("in_proj_weight")? else { return None };
    let bias = parts.get("in_proj_bias");
    if rows != 3 * features || bias.is_some_and(|b| **b != [rows]) || parts.len() > 1 + usize::from(bias.is_some()) {
        return None;
    }
    let bias = if bias.is_some() { "biases" } else { "no biases" };
    Some(("MultiheadAttention".into(), format!("{features} features, {bias}")))
}

/// `nn.BatchNorm` with its statistics.
fn norm(parts: &Parts<'_>) -> Option<(String, String)> {
    let &[size] = *parts.get("running_mean")? else { return None };
    let known = |(part, shape): (&&str, &&[usize])| match *part {
        "num_batches_tracked" => shape.is_empty(),
        "weight" | "bias" | "running_mean" | "running_var" => **shape == [size],
        _ => false,
    };
    if !parts.contains_key("running_var") || !parts.iter().all(known) {
        return None;
    }
    let affine = if parts.contains_key("weight") { "scale and offset" } else { "no scale and offset" };
    Some(("BatchNorm".into(), format!("{size} features, running statistics, {affine}")))
}

/// Modules of `weight` and perhaps `bias`.
fn weighted(parts: &Parts<'_>) -> Option<(String, String)> {
    let weight = *parts.get("weight")?;
    let bias = parts.get("bias");
    if parts.len() != 1 + usize::from(bias.is_some()) {
        return None;
    }
    let has = if bias.is_some() { "bias" } else { "no bias" };
    let bias = match bias {
        Some(&&[size]) => Some(size),
        Some(_) => return None,
        None => None,
    };
    Some(match (weight, bias) {
        (&[size], Some(b)) if b == size => ("LayerNorm or GroupNorm".into(), format!("{size} features")),
        (&[size], None) => ("RMSNorm, LayerNorm or PReLU".into(), format!("{size} features, no bias")),
        (&[out, features], Some(b)) if b == out => ("Linear".into(), format!("{features} → {out}, bias")),
        (&[rows, columns], None) => (
            "Linear or Embedding".into(),
            format!("{columns} → {rows} without a bias, or {rows} ids of {columns} elements"),
        ),
        ([a, b, kernel @ ..], bias) if (1..=3).contains(&kernel.len()) => {
            let n = kernel.len();
            let size = kernel.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
            match bias {
                Some(bias) if bias == *a => {
                    let also = if a == b { format!(" or ConvTranspose{n}d") } else { String::new() };
                    (format!("Conv{n}d{also}"), format!("{b} inputs a group → {a}, kernel {size}, {has}"))
                }
                // The second axis of a transposed convolution is its outputs in a group.
                Some(bias) if bias % (*b).max(1) == 0 => {
                    (format!("ConvTranspose{n}d"), format!("{a} → {bias}, kernel {size}, {has}"))
                }
                Some(_) => return None,
                None => (
                    format!("Conv{n}d or ConvTranspose{n}d"),
                    format!("{b} inputs a group → {a}, or transposed, kernel {size}, {has}"),
                ),
            }
        }
        _ => return None,
    })
}

impl fmt::Display for WeightSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} tensors, {} parameters", self.format, self.tensors, thousands(self.total_params))?;
        if !self.wrappers.is_empty() {
            let wrappers: Vec<_> = self.wrappers.iter().map(|w| format!("`{w}`")).collect();
            writeln!(f, "note: names are without {}, which a wrapper added", wrappers.join(", "))?;
        }
        self.notes.iter().try_for_each(|n| writeln!(f, "note: {n}"))?;
        let width = |text: &str| text.chars().count();
        let row = |m: &WeightModule| {
            let name = if m.name.is_empty() { "(the file itself)".to_owned() } else { m.name.clone() };
            let mut details = m.details.clone();
            for (own, other) in &m.tied {
                details += &format!("; {} is `{other}`", own.rsplit('.').next().unwrap_or(own));
            }
            [name, m.kind.clone(), details, thousands(m.params), m.types.join(", ")]
        };
        let head = ["module", "kind, guessed", "sizes", "params", "type"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(self.modules.iter().map(row)).collect();
        let widths: [usize; 5] = std::array::from_fn(|n| rows.iter().map(|r| width(&r[n])).max().unwrap_or(0));
        for r in &rows {
            let pad = |n: usize| " ".repeat(widths[n] - width(&r[n]));
            let [name, kind, details, params, types] = r;
            writeln!(f, "{name}{}  {kind}{}  {details}{}  {}{params}  {types}", pad(0), pad(1), pad(2), pad(3))?;
        }
        write!(f, "kinds are guessed from names and shapes")
    }
}
