//! Masks as Keras 3 writes them: operations outside of layers that compute a mask, which layers then get as an argument.
//! Recurve's layers find masks by themselves, so all that is needed is whether both are the same.

use super::config::Operation;
use recurve_layers::{LayerConfig, ValueRef};
use recurve_vocabulary::Merge;
use std::collections::{BTreeSet, HashMap};

/// A mask: a timestep is valid if any of these says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    any: BTreeSet<String>,
    /// Whether it has an axis for the features.
    wide: bool,
    /// Whether the features are still to be joined.
    open: bool,
    /// Whether it is not known what it is.
    unknown: bool,
}

impl Mask {
    fn of(any: BTreeSet<String>) -> Self {
        Self { any, wide: false, open: false, unknown: false }
    }

    fn one(what: String) -> Self {
        Self::of(BTreeSet::from([what]))
    }

    /// A mask that is the same as no other.
    pub(super) fn unknown() -> Self {
        Self { unknown: true, ..Self::of(BTreeSet::new()) }
    }

    /// Whether both are valid at the same timesteps.
    pub(super) fn same(&self, other: &Self) -> bool {
        !self.unknown && !other.unknown && !self.wide && !other.wide && self.any == other.any
    }
}

/// Timesteps where a value is another number.
fn not_equal(value: &ValueRef, number: f32) -> String {
    format!("{value} != {number}")
}

/// Sequences one behind the other.
fn joined(parts: &[&Mask]) -> Mask {
    Mask::one(format!("{:?}", parts.iter().map(|m| &m.any).collect::<Vec<_>>()))
}

fn union<'a>(masks: impl Iterator<Item = &'a Mask>) -> BTreeSet<String> {
    masks.flat_map(|m| m.any.iter().cloned()).collect()
}

/// The mask that an operation computes from masks and values.
pub(super) fn operate(name: &str, operation: &Operation, inputs: &[Result<Mask, ValueRef>]) -> Mask {
    let axis = operation.axis;
    let masks: Option<Vec<&Mask>> = inputs.iter().map(|i| i.as_ref().ok().filter(|m| !m.unknown)).collect();
    match (name, inputs, masks.as_deref()) {
        ("NotEqual", [Err(value)], _) => match operation.numbers[..] {
            [number] => Mask { open: true, ..Mask::one(not_equal(value, number as f32)) },
            _ => Mask::unknown(),
        },
        // Nowhere valid.
        ("ZerosLike", [_], _) => Mask { wide: true, ..Mask::of(BTreeSet::new()) },
        ("ExpandDims", _, Some([mask])) if axis == Some(-1) && !mask.wide => {
            Mask { wide: true, open: false, ..(*mask).clone() }
        }
        ("LogicalOr", _, Some(both @ [a, b])) if a.wide == b.wide => {
            Mask { wide: a.wide, ..Mask::of(union(both.iter().copied())) }
        }
        ("Concatenate", _, Some(parts)) if parts.iter().all(|m| m.wide) => match axis {
            Some(-1 | 2) => Mask { wide: true, ..Mask::of(union(parts.iter().copied())) },
            Some(1) => Mask { wide: true, ..joined(parts) },
            _ => Mask::unknown(),
        },
        ("Any", _, Some([mask])) if axis == Some(-1) => match mask.wide {
            true => Mask::of(mask.any.clone()),
            false if mask.open && mask.any.len() == 1 => Mask::one(format!("any {}", mask.any.first().expect("one"))),
            false => Mask::unknown(),
        },
        _ => Mask::unknown(),
    }
}

/// The outputs of a layer that have its mask: the first, and where directions are not joined the second.
pub(super) fn masked_outputs(layer: &LayerConfig) -> usize {
    match layer {
        LayerConfig::Recurrent(r) if r.bidirectional == Some(Merge::None) => 2,
        _ => 1,
    }
}

/// The mask that a layer passes on; `None` for none.
pub(super) fn passed(layer: &LayerConfig, inputs: &[ValueRef], known: &HashMap<ValueRef, Mask>) -> Option<Mask> {
    use LayerConfig as L;
    let first = || known.get(&inputs[0]).cloned();
    let all = || inputs.iter().filter_map(|i| known.get(i));
    match layer {
        // The ids themselves are compared, which has no features to join.
        L::Embedding(e) if e.mask_zero => Some(Mask::one(not_equal(&inputs[0], 0.0))),
        L::Masking(m) => Some(Mask::one(format!("any {}", not_equal(&inputs[0], m.mask_value)))),
        L::Recurrent(r) => first().filter(|_| r.return_sequences),
        L::StackedRnnCells(s) => first().filter(|_| s.return_sequences),
        L::Add(_) | L::Subtract(_) | L::Multiply(_) | L::Average(_) | L::Maximum(_) | L::Minimum(_) => {
            (all().count() == inputs.len()).then(|| Mask::of(union(all())))
        }
        L::Concatenate(c) if all().count() == inputs.len() => match c.axis {
            1 => Some(joined(&all().collect::<Vec<_>>())),
            _ => Some(Mask::of(union(all()))),
        },
        L::Embedding(_)
        | L::TimeDistributed(_)
        | L::Dense(_)
        | L::Dropout(_)
        | L::SpatialDropout1d(_)
        | L::SpatialDropout2d(_)
        | L::GaussianNoise(_)
        | L::GaussianDropout(_)
        | L::AlphaDropout(_)
        | L::Activation(_)
        | L::ActivityRegularization(_)
        | L::LeakyRelu(_)
        | L::PRelu(_)
        | L::Elu(_)
        | L::Relu(_)
        | L::BatchNormalization(_)
        | L::LayerNormalization(_)
        | L::Attention(_)
        | L::AdditiveAttention(_) => first(),
        _ => None,
    }
}
