//! How model files store a cell: one flat object without the fields that have their usual value.

use crate::{Activation, Cell, CellKind, Rest, Zoneout};
use serde::{Deserialize, Serialize};

/// The form of a [`Cell`] in model files. `reset_after`, `input_forget`, `num_heads` and `exponential_forget` may be
/// given for any kind, and have no effect for kinds without that option.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CellFile {
    kind: Kind,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    reset_after: bool,
    #[serde(default, skip_serializing_if = "is_no")]
    input_forget: bool,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    num_heads: usize,
    #[serde(default, skip_serializing_if = "is_no")]
    exponential_forget: bool,
    #[serde(default, skip_serializing_if = "is_no")]
    peepholes: bool,
    recurrent_activation: Activation,
    /// The activation of each gate, if they are not all `recurrent_activation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate_activations: Option<[Activation; 3]>,
    activation: Activation,
    output_activation: Activation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clip: Option<f32>,
    #[serde(default, skip_serializing_if = "is_no")]
    clip_output: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proj_size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer_norm: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zoneout: Option<Zoneout>,
}

/// The name of a [`CellKind`] without its options.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Rnn,
    IndRnn,
    Lstm,
    Gru,
    MinGru,
    MinLstm,
    SLstm,
}

fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(n: &usize) -> bool {
    *n == 1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_yes(b: &bool) -> bool {
    *b
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_no(b: &bool) -> bool {
    !*b
}

impl From<CellFile> for Cell {
    fn from(f: CellFile) -> Self {
        Self {
            kind: match f.kind {
                Kind::Rnn => CellKind::Rnn,
                Kind::IndRnn => CellKind::IndRnn,
                Kind::Lstm => CellKind::Lstm { coupled: f.input_forget },
                Kind::Gru => CellKind::Gru { reset_after: f.reset_after },
                Kind::MinGru => CellKind::MinGru,
                Kind::MinLstm => CellKind::MinLstm,
                Kind::SLstm => CellKind::SLstm { heads: f.num_heads, exponential_forget: f.exponential_forget },
            },
            gates: f.gate_activations.unwrap_or([f.recurrent_activation; 3]),
            candidate: f.activation,
            output: f.output_activation,
            peepholes: f.peepholes,
            clip: f.clip,
            clip_output: f.clip_output,
            projection: f.proj_size,
            layer_norm: f.layer_norm,
            zoneout: f.zoneout,
            rest: Rest(()),
        }
    }
}

impl From<Cell> for CellFile {
    fn from(c: Cell) -> Self {
        let (mut reset_after, mut input_forget, mut num_heads, mut exponential_forget) = (true, false, 1, false);
        // A match without a wildcard, so that a new kind does not compile until it has a name here.
        let kind = match c.kind {
            CellKind::Rnn => Kind::Rnn,
            CellKind::IndRnn => Kind::IndRnn,
            CellKind::Lstm { coupled } => {
                input_forget = coupled;
                Kind::Lstm
            }
            CellKind::Gru { reset_after: after } => {
                reset_after = after;
                Kind::Gru
            }
            CellKind::MinGru => Kind::MinGru,
            CellKind::MinLstm => Kind::MinLstm,
            CellKind::SLstm { heads, exponential_forget: exponential } => {
                (num_heads, exponential_forget) = (heads, exponential);
                Kind::SLstm
            }
        };
        Self {
            kind,
            reset_after,
            input_forget,
            num_heads,
            exponential_forget,
            peepholes: c.peepholes,
            recurrent_activation: c.gates[0],
            gate_activations: (c.gates != [c.gates[0]; 3]).then_some(c.gates),
            activation: c.candidate,
            output_activation: c.output,
            clip: c.clip,
            clip_output: c.clip_output,
            proj_size: c.projection,
            layer_norm: c.layer_norm,
            zoneout: c.zoneout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_cell_is_short() {
        let text = concat!(
            r#"{"kind":"lstm","recurrent_activation":{"name":"sigmoid"},"#,
            r#""activation":{"name":"tanh"},"output_activation":{"name":"tanh"}}"#
        );
        assert_eq!(serde_json::to_string(&Cell::LSTM).unwrap(), text);
        assert_eq!(serde_json::from_str::<Cell>(text).unwrap(), Cell::LSTM);
    }

    #[test]
    fn every_kind_and_option_comes_back() {
        let odd = Cell {
            gates: [Activation::Sigmoid, Activation::HARD_SIGMOID_KERAS2, Activation::Tanh],
            peepholes: true,
            clip: Some(3.0),
            clip_output: true,
            projection: Some(2),
            layer_norm: Some(1e-3),
            zoneout: Some(Zoneout { h: 0.25, c: 0.5 }),
            ..Cell::with_kind(CellKind::Lstm { coupled: true })
        };
        let heads = Cell::with_kind(CellKind::SLstm { heads: 4, exponential_forget: true });
        let gru = [Cell::GRU, Cell::GRU_RESET_BEFORE];
        let others = [Cell::RNN, Cell::INDRNN, Cell::LSTM, Cell::MINGRU, Cell::MINLSTM, Cell::SLSTM, heads, odd];
        for cell in gru.into_iter().chain(others) {
            let text = serde_json::to_string(&cell).unwrap();
            assert!(text.contains(&format!(r#""kind":"{}""#, cell.kind.name())), "{text}");
            assert_eq!(serde_json::from_str::<Cell>(&text).unwrap(), cell, "{text}");
        }
    }

    #[test]
    fn unknown_kinds_and_options_are_refused_by_name() {
        let text = serde_json::to_string(&Cell::GRU).unwrap();
        for (from, to, name) in [("gru", "mlstm", "mlstm"), ("\"activation", "\"swish\":1,\"activation", "swish")] {
            let e = serde_json::from_str::<Cell>(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(e.contains(name), "{e}");
        }
    }
}
