//! Keras files as networks: `.keras` files of Keras 3, HDF5 files of Keras 1, 2 and 3, and weights beside a JSON
//! description.

mod archive;
mod build;
mod config;
mod hdf5;
mod initial;
mod layers;
mod masks;
mod options;
mod stored;
mod trained;

use crate::files::{self, short};
use crate::keras_kind::{CONFIG, Imported, Kind, METADATA, kind_of};
use crate::native::{self, ModelInfo};
use crate::{Error, LayerProblem, Result};
use build::{Naming, build};
use config::{Parser, Version};
use hdf5::Hdf5;
use hdf5_reader::storage::{BytesStorage, DynStorage, FileStorage};
use options::Context;
use recurve_layers::{Network, Weights};
use recurve_tensor::Device;
use serde_json::Value;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stored::Store;

/// A description takes at most so many bytes.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// The files of weights of an archive.
const WEIGHTS: &str = "model.weights.h5";
const NPZ: &str = "model.weights.npz";

/// The contents of a file.
enum Source {
    File(File, u64),
    Bytes(Vec<u8>),
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let (file, len) = files::open(path).map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })?;
        Ok(Self::File(file, len))
    }

    fn hdf5(self) -> Result<Hdf5, String> {
        let (storage, len): (DynStorage, u64) = match self {
            Self::File(file, len) => (Arc::new(FileStorage::from_file(file).map_err(|e| e.to_string())?), len),
            Self::Bytes(bytes) => {
                let len = bytes.len() as u64;
                (Arc::new(BytesStorage::new(bytes)), len)
            }
        };
        Hdf5::open(storage, len)
    }

    fn text(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::File(_, len) if len > MAX_DESCRIPTION => {
                Err(format!("has {len} bytes, but a description has at most {MAX_DESCRIPTION}"))
            }
            Self::File(mut file, _) => {
                let mut bytes = Vec::new();
                file.by_ref().take(MAX_DESCRIPTION).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
                Ok(bytes)
            }
        }
    }
}

/// A description, and what the file says of its origin.
struct Description {
    root: Value,
    version: Option<String>,
}

impl Description {
    /// Parses a description that may say itself which version wrote it.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let root = config::json(text)?;
        let version = root.get("keras_version").and_then(Value::as_str).map(str::to_owned);
        // Only Keras 3 says where a class is defined.
        let version = version.or_else(|| root.get("module").map(|_| "3".into()));
        Ok(Self { root, version })
    }
}

/// The description and the weights of an archive; `None` for what is not in it.
fn archive(source: Source) -> Result<(Option<Description>, Option<Store>), String> {
    let names = [CONFIG, METADATA, WEIGHTS, NPZ];
    let len = match &source {
        Source::File(_, len) => *len,
        Source::Bytes(bytes) => bytes.len() as u64,
    };
    let limits = [MAX_DESCRIPTION, 1 << 20, len.saturating_mul(2).saturating_add(1 << 24), 0];
    let [config, metadata, weights, npz] = match source {
        Source::File(file, len) => archive::read(rawzip::FileReader::from(file), len, names, limits)?,
        Source::Bytes(bytes) => archive::read(&bytes[..], len, names, limits)?,
    };
    if config.is_none() && weights.is_none() {
        return Err(format!("is an archive without `{CONFIG}`, so it is no .keras file"));
    }
    if weights.is_none() && npz.is_some() {
        return Err(format!("has its weights in `{NPZ}`, which is not read; save it with `weights_format=\"h5\"`"));
    }
    let description = config.map(|text| Description::parse(&text)).transpose()?;
    let description = description
        .map(|mut d| {
            if let Some(metadata) = &metadata {
                let stated = config::json(metadata)?;
                d.version = stated.get("keras_version").and_then(Value::as_str).map(str::to_owned).or(d.version);
            }
            Ok::<_, String>(d)
        })
        .transpose()?;
    let store = weights.map(|bytes| Source::Bytes(bytes).hdf5().and_then(Store::find)).transpose();
    Ok((description, store.map_err(|e| format!("`{WEIGHTS}` in it {e}"))?))
}

/// The description and the weights of a file of any kind; `None` for what is not in it.
fn parts(source: Source, kind: Kind) -> Result<(Option<Description>, Option<Store>), String> {
    match kind {
        Kind::Json | Kind::Folder => Ok((Some(Description::parse(&source.text()?)?), None)),
        Kind::Archive => archive(source),
        Kind::Hdf5 => {
            let file = source.hdf5()?;
            let description = match file.text("", "model_config")? {
                Some(text) => {
                    let mut d = Description::parse(text.as_bytes())?;
                    d.version = file.text("", "keras_version")?.or(d.version);
                    Some(d)
                }
                None => None,
            };
            Ok((description, Some(Store::find(file)?)))
        }
    }
}

/// Opens a Keras file, with its weights from another file if that is given.
pub(crate) fn open(path: &Path, kind: Kind, weights: Option<&Path>, device: &Device) -> Result<Imported> {
    let config = if kind == Kind::Folder { path.join(CONFIG) } else { path.into() };
    let bad = |message: String| Error::Description { path: path.into(), message };
    let (description, mut store) = parts(Source::open(&config)?, kind).map_err(bad)?;
    let Some(mut description) = description else {
        return Err(bad(
            "has weights but no description of the model: open its JSON description with this file as weights".into(),
        ));
    };
    if kind == Kind::Folder
        && let Ok(metadata) = Source::open(&path.join(METADATA))
        && let Ok(stated) = metadata.text().and_then(|t| config::json(&t))
    {
        description.version = stated.get("keras_version").and_then(Value::as_str).map(str::to_owned);
    }
    let beside = match (weights, &store, kind) {
        (Some(given), ..) => Some(given.to_owned()),
        (None, Some(_), _) => None,
        (None, None, Kind::Folder) => Some(path.join(WEIGHTS)),
        (None, None, _) => Some(weights_beside(path)?),
    };
    if let Some(beside) = beside {
        let at = |message: String| Error::Description { path: beside.clone(), message };
        let Some(kind) = kind_of(&beside).filter(|k| matches!(k, Kind::Hdf5 | Kind::Archive)) else {
            // A file that cannot be opened says so.
            Source::open(&beside)?;
            return Err(at("is no file of Keras weights: HDF5 or .keras".into()));
        };
        store = parts(Source::open(&beside)?, kind).map_err(at)?.1;
    }
    let Some(store) = store else { return Err(bad("has no weights".into())) };
    contents(path, &description, &store)?.on(path, device)
}

/// The contents of a Keras file in memory.
fn in_memory(bytes: Vec<u8>, kind: Kind) -> Result<Contents> {
    let path = Path::new(files::MEMORY);
    let bad = |message: String| Error::Description { path: path.into(), message };
    match parts(Source::Bytes(bytes), kind).map_err(bad)? {
        (Some(description), Some(store)) => contents(path, &description, &store),
        (None, _) => Err(bad("has weights but no description of the model".into())),
        (_, None) => Err(bad("has no weights".into())),
    }
}

/// Opens a Keras file in memory.
pub(crate) fn from_bytes(bytes: &[u8], kind: Kind, device: &Device) -> Result<Imported> {
    in_memory(bytes.to_vec(), kind)?.on(Path::new(files::MEMORY), device)
}

/// The bytes of the native model file with what a Keras file in memory has, and the notes.
pub(crate) fn to_native(bytes: Vec<u8>, kind: Kind) -> Result<(Vec<u8>, Vec<String>)> {
    let Contents { info, weights, notes } = in_memory(bytes, kind)?;
    Ok((native::to_bytes(&info, &weights)?, notes))
}

/// The file of weights with the stem of a description.
fn weights_beside(path: &Path) -> Result<PathBuf> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ends = [".weights.h5", ".h5", ".hdf5", "_weights.h5"];
    let names = ends.map(|end| format!("{stem}{end}"));
    let found: Vec<PathBuf> = names.iter().map(|n| path.with_file_name(n)).filter(|p| p.is_file()).collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        many => {
            let names = names.map(|n| format!("`{}`", short(&n))).join(", ");
            let which = if many.is_empty() { "none of" } else { "more than one of" };
            let message = format!(
                "is a Keras description without weights, and beside it there is {which} {names}; say which file has \
                 the weights"
            );
            Err(Error::Description { path: path.into(), message })
        }
    }
}

/// The network of a description without weights, and what a user should know of how it is read.
pub(crate) fn described(json: &str) -> Result<(ModelInfo, Vec<String>)> {
    let refused = |problems| Error::Network { problems };
    let whole = |message: String| refused(vec![LayerProblem { layer: String::new(), class: String::new(), message }]);
    if json.len() as u64 > MAX_DESCRIPTION {
        return Err(whole(format!("has {} bytes, but a description has at most {MAX_DESCRIPTION}", json.len())));
    }
    let Description { root, version } = Description::parse(json.as_bytes()).map_err(whole)?;
    let stated = version.unwrap_or_else(|| "3".into());
    let Some(version) = Version::parse(&stated).filter(|v| (2..=3).contains(&v.major)) else {
        return Err(whole(format!("is of Keras `{}`, but networks are built of Keras 2 and 3", short(&stated))));
    };
    let context = Context { version, reversed: Some(false), initial: true };
    let mut parser = Parser::default();
    let built = parser.top(&root).and_then(|model| {
        let name = model.name.clone();
        Some((name, build(&model, context, Naming::Layers, &mut parser)?))
    });
    let Some((name, built)) = built.filter(|_| parser.problems.is_empty()) else {
        return Err(refused(parser.problems));
    };
    let info = ModelInfo { name, license: None, source: None, network: built.config, text: None };
    info.check(Path::new(files::MEMORY))?;
    Ok((info, built.notes))
}

/// Makes the network of a description, with initial weights.
pub(crate) fn initial(json: &str, seed: u64, device: &Device) -> Result<Imported> {
    let (info, notes) = described(json)?;
    let network = Network::initial(&info.network, seed, device)?;
    Ok(Imported { info, network, notes })
}

/// A network that is described and whose weights are read, but that is on no device.
struct Contents {
    info: ModelInfo,
    weights: Weights,
    notes: Vec<String>,
}

impl Contents {
    fn on(self, path: &Path, device: &Device) -> Result<Imported> {
        let Self { info, weights, notes } = self;
        let network = Network::new(&info.network, Arc::new(weights), device);
        Ok(Imported { network: network.map_err(|source| Error::Layers { path: path.into(), source })?, info, notes })
    }
}

/// Reads a description with stored weights.
fn contents(path: &Path, description: &Description, store: &Store) -> Result<Contents> {
    let refused = |problems| Error::Keras { path: path.into(), problems };
    let damaged = |message: String| Error::Description { path: path.into(), message };
    let [stored, backend] = store.origin().map_err(damaged)?;
    // A file of the old form that says no version is of Keras 1.
    let old = matches!(store, Store::Layers(..));
    let stated = description.version.clone().or(stored).unwrap_or_else(|| if old { "1".into() } else { "3".into() });
    let Some(version) = Version::parse(&stated).filter(|v| (1..=3).contains(&v.major)) else {
        return Err(damaged(format!("was written by Keras `{}`, but Keras 1, 2 and 3 are read", short(&stated))));
    };
    let reversed = match &backend {
        Some(backend) => Some(backend == "theano"),
        None if version.major == 1 => None,
        None => Some(false),
    };
    let mut parser = Parser::default();
    let built = parser.top(&description.root).and_then(|model| {
        let name = model.name.clone();
        Some((name, build(&model, Context { version, reversed, initial: false }, store.naming(), &mut parser)?))
    });
    let Some((name, built)) = built else { return Err(refused(parser.problems)) };
    let weights = stored::read(&built, store, version, &mut parser);
    if !parser.problems.is_empty() {
        return Err(refused(parser.problems));
    }
    let info = ModelInfo {
        name,
        license: None,
        source: Some(format!("Keras {}", short(&stated))),
        network: built.config,
        text: None,
    };
    info.check(path)?;
    check_weights(&info, &weights).map_err(|source| Error::Layers { path: path.into(), source })?;
    Ok(Contents { info, weights, notes: built.notes })
}

/// Checks that the layers have exactly these weights. One that does not fit is said with the name of its layer.
fn check_weights(info: &ModelInfo, weights: &Weights) -> Result<(), recurve_layers::Error> {
    use recurve_layers::Error as E;
    let layer = |name: &str| {
        let (index, rest) = name.strip_prefix("layers.")?.split_once('.')?;
        Some(format!("{}.{rest}", info.network.layers.get(index.parse::<usize>().ok()?)?.name))
    };
    let renamed = |name: String| layer(&name).unwrap_or(name);
    let mut needed = HashSet::new();
    let fit = info.network.visit_weights(|name, expected| {
        needed.insert(name.to_owned());
        weights.expect(name, expected).map(drop)
    });
    fit.map_err(|e| match e {
        E::WeightShape { name, expected, got } => E::WeightShape { name: renamed(name), expected, got },
        E::MissingWeight { name, available } => E::MissingWeight { name: renamed(name), available },
        other => other,
    })?;
    match weights.iter().find(|(name, _)| !needed.contains(*name)) {
        Some((name, _)) => Err(E::ExtraWeight { name: renamed(name.into()) }),
        None => Ok(()),
    }
}
