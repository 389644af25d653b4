//! The declarations of a composed module, from naga.

use crate::variant::counted;
use naga::{AddressSpace, ShaderStage, StorageAccess};

/// The kind of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    ReadOnly,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// A binding in group 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The binding number.
    pub index: u32,
    /// Its name in WGSL.
    pub name: String,
    /// The kind.
    pub kind: BindingKind,
    /// The size of its type, in bytes; for a runtime-sized array that of one element.
    pub size: u32,
}

/// The declarations of a module.
#[derive(Clone, Debug)]
pub struct Reflection {
    /// The bindings of group 0, by number.
    pub bindings: Vec<Binding>,
    /// The workgroup size of `main`.
    pub workgroup_size: [u32; 3],
    /// The size of workgroup memory in bytes, as WebGPU counts it against the limit.
    pub workgroup_bytes: u32,
    /// The parsed module.
    pub module: naga::Module,
}

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReflectError {
    /// The WGSL cannot be parsed.
    #[error("line {line}: {message}")]
    Parse {
        /// The line in the composed module, from 1.
        line: u32,
        /// naga's message.
        message: String,
    },
    /// The module does not have the structure that the host code requires.
    #[error("{0}")]
    Layout(&'static str),
}

/// Parses `source` and reads its bindings and workgroup size.
///
/// # Errors
/// [`ReflectError::Parse`] if it is not WGSL; [`ReflectError::Layout`] if it has no compute entry point `main` or its
/// bindings are not in group 0 with consecutive numbers from 0.
pub fn reflect(source: &str) -> Result<Reflection, ReflectError> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| ReflectError::Parse {
        line: e.location(source).map_or(0, |l| l.line_number),
        message: e.emit_to_string(source),
    })?;
    let entry = module
        .entry_points
        .iter()
        .find(|e| e.name == "main" && e.stage == ShaderStage::Compute)
        .ok_or(ReflectError::Layout("no compute entry point `main`"))?;
    let workgroup_size = entry.workgroup_size;

    let mut bindings = Vec::new();
    let mut workgroup_bytes = 0;
    for (_, v) in module.global_variables.iter() {
        let size = module.types[v.ty].inner.size(module.to_ctx());
        if v.space == AddressSpace::WorkGroup {
            workgroup_bytes += counted(size);
        }
        let kind = match v.space {
            AddressSpace::Uniform => BindingKind::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => BindingKind::ReadWrite,
            AddressSpace::Storage { .. } => BindingKind::ReadOnly,
            _ => continue,
        };
        let place = v.binding.as_ref().ok_or(ReflectError::Layout("a buffer without a binding"))?;
        if place.group != 0 {
            return Err(ReflectError::Layout("a binding outside group 0"));
        }
        let name = v.name.clone().unwrap_or_default();
        bindings.push(Binding { index: place.binding, name, kind, size });
    }
    bindings.sort_by_key(|b| b.index);
    if !bindings.iter().map(|b| b.index).eq(0..bindings.len() as u32) {
        return Err(ReflectError::Layout("bindings are not numbered 0, 1, 2, …"));
    }
    if bindings.first().is_none_or(|b| b.kind != BindingKind::Uniform) {
        return Err(ReflectError::Layout("binding 0 is not the uniform with the parameters"));
    }
    Ok(Reflection { bindings, workgroup_size, workgroup_bytes, module })
}
