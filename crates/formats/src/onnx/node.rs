//! A node of an ONNX file, as the operators' importers see it.

use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_kind as kind};
use crate::files::short;
use std::cell::RefCell;

/// Why a node cannot be run, in words that follow its name.
pub(crate) type Refusal = String;

/// A node with its attributes, of which it notes those that were read: what was not read is refused.
pub(crate) struct Node<'a> {
    proto: &'a NodeProto,
    attributes: Vec<AttributeProto>,
    read: RefCell<Vec<bool>>,
    /// The version of the operator set that the node belongs to.
    pub opset: i64,
}

macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $field:ident, $type:ty, $words:literal) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// If it is of another type.
        pub(crate) fn $name(&self, name: &str) -> Result<Option<$type>, Refusal> {
            match self.attribute(name) {
                None => Ok(None),
                Some(a) if a.kind == kind::$kind || a.kind == 0 && a.$field.is_some() => {
                    Ok(Some(a.$field.clone().unwrap_or_default()))
                }
                Some(_) => Err(format!(concat!("attribute `{}` must be ", $words), name)),
            }
        }
    };
}

impl<'a> Node<'a> {
    /// A node whose references to attributes of a function are replaced by `attributes`.
    pub(crate) fn new(proto: &'a NodeProto, attributes: Vec<AttributeProto>, opset: i64) -> Self {
        let read = RefCell::new(vec![false; attributes.len()]);
        Self { proto, attributes, read, opset }
    }

    /// Its operator.
    pub(crate) fn operator(&self) -> &'a str {
        &self.proto.op_type
    }

    /// Its operator set; empty for ONNX's own.
    pub(crate) fn domain(&self) -> &'a str {
        if self.proto.domain == "ai.onnx" { "" } else { &self.proto.domain }
    }

    /// What it is called in errors: its name, or that of its first output.
    pub(crate) fn label(&self) -> &'a str {
        if self.proto.name.is_empty() {
            self.proto.output.iter().find(|o| !o.is_empty()).map_or("", |o| o)
        } else {
            &self.proto.name
        }
    }

    /// The names of its inputs, empty where one is left out.
    pub(crate) fn inputs(&self) -> &'a [String] {
        &self.proto.input
    }

    /// The names of its outputs, empty where one is left out.
    pub(crate) fn outputs(&self) -> &'a [String] {
        &self.proto.output
    }

    /// Whether an input is there.
    pub(crate) fn has_input(&self, index: usize) -> bool {
        self.proto.input.get(index).is_some_and(|i| !i.is_empty())
    }

    /// Whether an output is wanted.
    pub(crate) fn has_output(&self, index: usize) -> bool {
        self.proto.output.get(index).is_some_and(|o| !o.is_empty())
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        let at = self.attributes.iter().position(|a| a.name == name)?;
        self.read.borrow_mut()[at] = true;
        Some(&self.attributes[at])
    }

    attribute!(
        /// An integer, if the attribute is there.
        int, INT, i, i64, "an integer"
    );
    attribute!(
        /// A float, if the attribute is there.
        float, FLOAT, f, f32, "a float"
    );

    /// An integer that is 0 or 1.
    ///
    /// # Errors
    /// If it is another number.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.int(name)? {
            None => Ok(default),
            Some(v @ (0 | 1)) => Ok(v == 1),
            Some(v) => Err(format!("attribute `{name}` must be 0 or 1, but it is {v}")),
        }
    }

    /// A text, if the attribute is there.
    ///
    /// # Errors
    /// If it is of another type, or no UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.attribute(name) {
            None => Ok(None),
            Some(a) if a.kind == kind::STRING || a.kind == 0 => {
                let text = std::str::from_utf8(a.s.as_deref().unwrap_or_default());
                text.map(Some).map_err(|_| format!("attribute `{name}` is no UTF-8 text"))
            }
            Some(_) => Err(format!("attribute `{name}` must be a string")),
        }
    }

    /// Integers, if the attribute is there.
    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    /// Floats, if the attribute is there.
    pub(crate) fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attribute(name).map(|a| &a.floats[..])
    }

    /// Texts, if the attribute is there.
    ///
    /// # Errors
    /// If one is no UTF-8.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, Refusal> {
        let Some(a) = self.attribute(name) else { return Ok(None) };
        let all = a.strings.iter().map(|s| std::str::from_utf8(s)).collect::<Result<_, _>>();
        all.map(Some).map_err(|_| format!("attribute `{name}` is no UTF-8 text"))
    }

    /// A tensor, if the attribute is there.
    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attribute(name).and_then(|a| a.t.as_ref())
    }

    /// A graph, which must be there.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn graph(&self, name: &str) -> Result<&GraphProto, Refusal> {
        self.attribute(name).and_then(|a| a.g.as_ref()).ok_or_else(|| format!("attribute `{name}` must be a graph"))
    }

    /// Fails if there is an attribute that nobody has read.
    pub(crate) fn finish(&self) -> Result<(), Refusal> {
        let read = self.read.borrow();
        match self.attributes.iter().zip(&*read).find(|(_, read)| !**read) {
            None => Ok(()),
            Some((a, _)) => Err(format!("attribute `{}` is not supported", short(&a.name))),
        }
    }
}
