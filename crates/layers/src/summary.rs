//! Layers, shapes and numbers of parameters as a table.

use crate::ValueRef;
use std::fmt;

/// A row of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// Its name, such as `simple_rnn_1`.
    pub name: String,
    /// The name of Keras's class.
    pub class: &'static str,
    /// The shape of its input; `None` stands for any size.
    pub input_shape: Vec<Option<usize>>,
    /// The shapes of its outputs.
    pub output_shapes: Vec<Vec<Option<usize>>>,
    /// Number of weight elements.
    pub params: usize,
    /// How many of them training does not change by gradients: running statistics, and those of a layer that is not
    /// trained.
    pub non_trainable: usize,
    /// Its inputs: inputs of the network and outputs of other layers.
    pub connected_to: Vec<ValueRef>,
}

/// The table that Keras's `summary()` prints; [`fmt::Display`] formats it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The model's name.
    pub name: String,
    /// The layers.
    pub layers: Vec<LayerSummary>,
    /// Number of weight elements of all layers.
    pub total_params: usize,
}

impl Summary {
    /// A summary of these layers.
    pub fn new(name: impl Into<String>, layers: Vec<LayerSummary>) -> Self {
        let total_params = layers.iter().map(|l| l.params).sum();
        Self { name: name.into(), layers, total_params }
    }
}

impl LayerSummary {
    /// The output shape, such as `(None, 32)`; a list if there are several outputs.
    pub fn output_shape(&self) -> String {
        match &self.output_shapes[..] {
            [one] => show(one),
            many => format!("[{}]", many.iter().map(|s| show(s)).collect::<Vec<_>>().join(", ")),
        }
    }

    /// The input shape, such as `(None, None, 32)`.
    pub fn input_shape(&self) -> String {
        show(&self.input_shape)
    }
}

/// A shape in Keras's notation.
pub(crate) fn show(shape: &[Option<usize>]) -> String {
    let dims: Vec<_> = shape.iter().map(|d| d.map_or("None".into(), |n| n.to_string())).collect();
    format!("({})", dims.join(", "))
}

/// A number with separators: `322080` becomes `322,080`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self
            .layers
            .iter()
            .map(|l| (format!("{} ({})", l.name, l.class), l.output_shape(), thousands(l.params)))
            .collect();
        // As in Keras, the column is shown only if the layers are not a chain.
        let before = std::iter::once(None).chain(self.layers.iter().map(|l| Some(&l.name)));
        let chained = |(l, before): (&LayerSummary, Option<&String>)| match &l.connected_to[..] {
            [one] => before.is_none_or(|name| *one == ValueRef::new(name.as_str())),
            _ => false,
        };
        let connections: Vec<String> = if self.layers.iter().zip(before).all(chained) {
            Vec::new()
        } else {
            let list = |l: &LayerSummary| l.connected_to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.layers.iter().map(list).collect()
        };
        let width = |least: usize, cell: fn(&(String, String, String)) -> &str| {
            rows.iter().map(|r| cell(r).chars().count()).max().unwrap_or(0).max(least) + 2
        };
        let (a, b, c) = (width(26, |r| &r.0), width(22, |r| &r.1), width(10, |r| &r.2));
        let d = connections.iter().map(|s| s.chars().count() + 2).max().map_or(0, |d| d.max(14));
        let line = |ch: &str| ch.repeat(a + b + c + d + 1);
        writeln!(f, "Model: \"{}\"", self.name)?;
        writeln!(f, "{}", line("_"))?;
        let head = if d > 0 { "Connected to" } else { "" };
        writeln!(f, " {:a$}{:b$}{:c$}{head:d$}", "Layer (type)", "Output Shape", "Param #")?;
        writeln!(f, "{}", line("="))?;
        for (n, (name, shape, params)) in rows.iter().enumerate() {
            let from = connections.get(n).map_or("", String::as_str);
            writeln!(f, " {name:a$}{shape:b$}{params:c$}{from:d$}")?;
        }
        writeln!(f, "{}", line("="))?;
        let fixed: usize = self.layers.iter().map(|l| l.non_trainable).sum();
        let [total, trained, fixed] = [self.total_params, self.total_params - fixed, fixed].map(thousands);
        writeln!(f, "Total params: {total}\nTrainable params: {trained}\nNon-trainable params: {fixed}")?;
        write!(f, "{}", line("_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_by_hand() {
        for (n, s) in [(0, "0"), (999, "999"), (1000, "1,000"), (322_080, "322,080"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), s);
        }
    }
}
