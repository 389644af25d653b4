//! What a composed module declares, read off by naga.

use crate::variant::counted;
use naga::{AddressSpace, ShaderStage, StorageAccess};

/// How a binding is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    ReadOnly,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// A binding of group 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its number.
    pub index: u32,
    /// Its name in WGSL.
    pub name: String,
    /// Its use.
    pub kind: BindingKind,
    /// Its type's size in bytes; one element for a runtime-sized array.
    pub size: u32,
}

/// What a module declares.
#[derive(Clone, Debug)]
pub struct Reflection {
    /// Bindings of group 0, by number.
    pub bindings: Vec<Binding>,
    /// Size of the workgroup of `main`.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory, as WebGPU counts them against the limit.
    pub workgroup_bytes: u32,
    /// The parsed module.
    pub module: naga::Module,
}

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReflectError {
    /// The WGSL does not parse.
    #[error("line {line}: {message}")]
    Parse {
        /// Line in the composed module, 1-based.
        line: u32,
        /// naga's message.
        message: String,
    },
    /// The module does not fit what Recurve's host code relies on.
    #[error("{0}")]
    Layout(&'static str),
}

/// Parses `source` and reads its bindings and workgroup size.
///
/// # Errors
/// [`ReflectError::Parse`] if it is not WGSL; [`ReflectError::Layout`] if it has no compute entry
/// point `main` or its bindings are not group 0, numbered from 0 without a gap.
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
