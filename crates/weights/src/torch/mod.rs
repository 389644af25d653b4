//! Files of PyTorch: zip archives and the legacy form of `torch.save`, TorchScript archives, `torch.export`.
//!
//! A pickle is a program for a machine with a stack, whose `REDUCE` calls any function by name. `pickle.rs` is such a
//! machine without functions: what a state dict needs is known by name and becomes data, everything else is refused.
//! `state.rs` finds the weights in what it made, `place.rs` finds their elements in the file.

mod archive;
mod export;
mod legacy;
mod pickle;
mod place;
mod state;

use crate::file::Contents;
use crate::weight::Bytes;
use crate::{Error, Result, files};
use std::path::Path;

/// How a file holds its pickles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Zip,
    Legacy,
    Tar,
    Pickle,
}

/// The magic number with which a legacy file begins, as a pickle holds it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Which of PyTorch's kinds of file this is, if it is one.
pub(crate) fn container(bytes: &[u8]) -> Option<Container> {
    let head = &bytes[..bytes.len().min(32)];
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Some(Container::Zip);
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(Container::Tar);
    }
    if head.first() == Some(&0x80) && head.windows(MAGIC.len()).any(|w| w == MAGIC) {
        return Some(Container::Legacy);
    }
    // The length of a safetensors header may begin as a pickle does, but then four zeros follow.
    let pickle = head.len() >= 8 && head[0] == 0x80 && (2..=5).contains(&head[1]) && head[4..8] != [0; 4];
    pickle.then_some(Container::Pickle)
}

/// What can be wrong with a file, before its path is added.
enum Wrong {
    File(String),
    Tensor(String, String),
    Calls(Vec<String>),
    Twice(String),
    Memory(recurve_tensor::Error),
}

impl From<recurve_tensor::Error> for Wrong {
    fn from(e: recurve_tensor::Error) -> Self {
        Self::Memory(e)
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self::File(message)
    }
}

/// Reads what a file contains.
pub(crate) fn parse(path: &Path, bytes: &Bytes, container: Container, part: Option<&str>) -> Result<Contents> {
    let read = match container {
        Container::Zip => archive::read(bytes, 0..bytes.get().len(), part),
        Container::Legacy => legacy::read(bytes, part),
        Container::Tar => Err(Wrong::File(
            "is a tar file, as PyTorch wrote them before 2017, which is not read; load and save it again with a later \
             PyTorch"
                .into(),
        )),
        Container::Pickle => Err(Wrong::File(
            "is a pickle that `torch.save` did not write, which is not read; save a state dict with `torch.save`"
                .into(),
        )),
    };
    read.map_err(|wrong| {
        let path = path.to_owned();
        match wrong {
            Wrong::File(message) => Error::PyTorch { path, message: files::short_message(&message) },
            Wrong::Tensor(name, message) => {
                Error::PyTorchTensor { path, name: files::short(&name), message: files::short_message(&message) }
            }
            Wrong::Calls(names) => Error::PyTorchCalls { path, names },
            Wrong::Twice(name) => Error::Twice { path, name: files::short(&name) },
            Wrong::Memory(e) => Error::Memory(e),
        }
    })
}
