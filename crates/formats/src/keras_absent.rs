//! Refuses Keras files in a build without the feature `keras`.

use crate::files::MEMORY;
use crate::keras_kind::{Imported, Kind};
use crate::native::ModelInfo;
use crate::{Error, Result};
use recurve_tensor::Device;
use std::path::Path;

fn refused(path: &Path, kind: &'static str) -> Error {
    Error::NoFeature { path: path.into(), kind, feature: "keras" }
}

pub(crate) fn open(path: &Path, _: Kind, _: Option<&Path>, _: &Device) -> Result<Imported> {
    Err(refused(path, "a Keras file"))
}

pub(crate) fn from_bytes(_: &[u8], _: Kind, _: &Device) -> Result<Imported> {
    Err(refused(Path::new(MEMORY), "a Keras file"))
}

pub(crate) fn to_native(_: Vec<u8>, _: Kind) -> Result<(Vec<u8>, Vec<String>)> {
    Err(refused(Path::new(MEMORY), "a Keras file"))
}

pub(crate) fn described(_: &str) -> Result<(ModelInfo, Vec<String>)> {
    Err(refused(Path::new(MEMORY), "a description of Keras"))
}

pub(crate) fn initial(_: &str, _: u64, _: &Device) -> Result<Imported> {
    Err(refused(Path::new(MEMORY), "a description of Keras"))
}
