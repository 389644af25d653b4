//! How structs that programs fill stay open for more fields.

/// The last field of a struct of arguments or options, which lets the struct get more fields without breaking programs.
///
/// The façade does not export this type, so a literal of such a struct ends in `..` and a default, and takes the
/// fields that it does not name from there. Recurve's own packages can write every field out where none may be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rest(pub(crate) ());
