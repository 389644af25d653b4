//! How much memory the messages of a file will take, found before any of it is taken: a message of two bytes becomes
//! a structure of some hundred, so that a small file could ask for a large memory.

use super::proto::*;

/// A kind of message, by what of it is looked into.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Function,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    /// Nothing in it holds messages.
    Leaf(usize),
}

impl Kind {
    const fn bytes(self) -> usize {
        match self {
            Self::Model => size_of::<ModelProto>(),
            Self::Graph => size_of::<GraphProto>(),
            Self::Node => size_of::<NodeProto>(),
            Self::Attribute => size_of::<AttributeProto>(),
            Self::Tensor => size_of::<TensorProto>(),
            Self::Function => size_of::<FunctionProto>(),
            Self::ValueInfo => size_of::<ValueInfoProto>(),
            Self::Type => size_of::<TypeProto>(),
            Self::TensorType => size_of::<TensorTypeProto>(),
            Self::Shape => size_of::<TensorShapeProto>(),
            Self::Leaf(bytes) => bytes,
        }
    }

    /// What a field of bytes is: a message, or strings and numbers, which take so many bytes each, or for each byte of
    /// them.
    const fn field(self, tag: u64) -> Field {
        use Field::{Message, Packed, Text};
        const ENTRY: Kind = Kind::Leaf(size_of::<StringStringEntryProto>());
        const OPSET: Kind = Kind::Leaf(size_of::<OperatorSetIdProto>());
        match (self, tag) {
            (Self::Model, 7) | (Self::Attribute, 6) => Message(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Message(OPSET),
            (Self::Model, 14) | (Self::Tensor, 13) => Message(ENTRY),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Message(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5) => Message(Self::Tensor),
            (Self::Graph, 11 | 12) => Message(Self::ValueInfo),
            (Self::Graph, 15) => Message(Self::Leaf(0)),
            (Self::Node, 5) | (Self::Function, 11) => Message(Self::Attribute),
            (Self::ValueInfo, 2) => Message(Self::Type),
            (Self::Type, 1) => Message(Self::TensorType),
            (Self::TensorType, 2) => Message(Self::Shape),
            (Self::Shape, 1) => Message(Self::Leaf(size_of::<Dimension>())),
            // Integers of one byte become eight; then they are copied.
            (Self::Attribute, 8) | (Self::Tensor, 1 | 5 | 7 | 11) => Packed(16),
            (Self::Attribute, 7) | (Self::Tensor, 4 | 10) => Packed(2),
            _ => Text,
        }
    }
}

enum Field {
    Message(Kind),
    /// Bytes of memory for each byte.
    Packed(usize),
    Text,
}

/// Reads a varint.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The bytes of memory that a file's messages take, `None` if they are more than `limit`. What is damaged counts as
/// far as it can be read; the reader refuses it.
pub(crate) fn weigh(file: &[u8], limit: usize) -> Option<usize> {
    // Messages that are open: what is left of each. No recursion, for a file may be deep.
    let mut open = vec![(Kind::Model, file)];
    let mut total = 0usize;
    while let Some((kind, bytes)) = open.last_mut() {
        let kind = *kind;
        if bytes.is_empty() {
            open.pop();
            continue;
        }
        let Some(key) = varint(bytes) else { break };
        let skip = match key & 7 {
            0 => {
                if varint(bytes).is_none() {
                    break;
                }
                // A number of a list that is not packed.
                total = total.checked_add(16)?;
                0
            }
            1 => 8,
            2 => match varint(bytes).map(usize::try_from) {
                Some(Ok(n)) => n,
                _ => break,
            },
            5 => 4,
            _ => break,
        };
        let Some((part, rest)) = bytes.split_at_checked(skip) else { break };
        *bytes = rest;
        if key & 7 == 2 {
            match kind.field(key >> 3) {
                Field::Message(inner) => {
                    // A list grows by doubling.
                    total = total.checked_add(2 * inner.bytes())?;
                    open.push((inner, part));
                }
                Field::Packed(each) => total = total.checked_add(each.checked_mul(part.len())?)?,
                Field::Text => total = total.checked_add(part.len() + 48)?,
            }
        }
        if total > limit || open.len() > 1 << 10 {
            return None;
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn empty_messages_weigh_what_they_become() {
        let node = NodeProto::default();
        let graph = GraphProto { node: vec![node; 1000], ..GraphProto::default() };
        let file = ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec();
        assert!(file.len() < 3000);
        let weight = weigh(&file, usize::MAX).unwrap();
        assert!(weight >= 1000 * size_of::<NodeProto>(), "{weight}");
        assert_eq!(weigh(&file, weight - 1), None);
        assert_eq!(weigh(&file, weight), Some(weight));
    }

    #[test]
    fn what_is_damaged_ends() {
        for bytes in [&b"\x3a"[..], b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff", b"\x3f", &[0x80; 40]] {
            assert!(weigh(bytes, usize::MAX).is_some());
        }
        // Graphs in attributes of nodes, deeper than anyone has them.
        let mut deep = Vec::new();
        for _ in 0..2000 {
            let wrap = |tag: u8, inner: &[u8]| {
                let mut all = vec![tag << 3 | 2];
                let mut n = inner.len();
                while n >= 0x80 {
                    all.push(n as u8 | 0x80);
                    n >>= 7;
                }
                all.push(n as u8);
                [all, inner.to_vec()].concat()
            };
            deep = wrap(1, &wrap(5, &wrap(6, &deep)));
        }
        let mut file = vec![0x3a];
        let mut n = deep.len();
        while n >= 0x80 {
            file.push(n as u8 | 0x80);
            n >>= 7;
        }
        file.push(n as u8);
        file.extend(deep);
        assert_eq!(weigh(&file, usize::MAX), None);
    }
}
