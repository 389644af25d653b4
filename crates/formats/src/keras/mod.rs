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
use crate::native::ModelInfo;
use crate::{Error, Result};
use build::{Naming, build};
use config::{Parser, Version};
use hdf5::Hdf5;
use hdf5_reader::storage::{BytesStorage, DynStorage, FileStorage};
use options::Context;
use recurve_layers::{Network, Weights};
use recurve_tensor::Device;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};
use stored::Store;

/// A part of a Keras file that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerProblem {
    /// The layer's name; empty where the whole file is meant.
    pub layer: String,
    /// Its class.
    pub class: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for LayerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.layer[..], &self.class[..]) {
            ("", _) => f.write_str(&self.message),
            (layer, "") => write!(f, "layer `{layer}`: {}", self.message),
            (layer, class) => write!(f, "layer `{layer}` ({class}): {}", self.message),
        }
    }
}

/// A description takes at most so many bytes.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// The files of an archive.
const CONFIG: &str = "config.json";
const METADATA: &str = "metadata.json";
const WEIGHTS: &str = "model.weights.h5";
const NPZ: &str = "model.weights.npz";

/// The kinds of Keras files, by their contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HDF5.
    Hdf5,
    /// A zip archive.
    Archive,
    /// A description as JSON.
    Json,
    /// A folder with the files of an archive.
    Folder,
}

/// How many bytes of a file say what it is.
const START: usize = 64;

/// The kind of a file that begins with these bytes and has `len` of them; `None` if it is no Keras file.
fn kind(start: &[u8; START], len: u64) -> Option<Kind> {
    // A text; a safetensors file begins with the length of its header, which has zero bytes.
    let text = start[..8].iter().all(|b| *b >= b'\t') || len < 8;
    let first = start.iter().find(|b| !b.is_ascii_whitespace());
    match start {
        s if s.starts_with(hdf5::MAGIC) => Some(Kind::Hdf5),
        // Behind a header of 30 bytes, the name of the first file in the archive.
        s if s.starts_with(b"PK\x03\x04") => {
            let names = [CONFIG, METADATA, "model.weights", "assets/"];
            names.iter().any(|n| s[30..].starts_with(n.as_bytes())).then_some(Kind::Archive)
        }
        _ if first == Some(&b'{') && text => Some(Kind::Json),
        _ => None,
    }
}

/// The kind of a file in memory.
pub(crate) fn kind_of_bytes(bytes: &[u8]) -> Option<Kind> {
    let mut start = [0; START];
    let count = bytes.len().min(START);
    start[..count].copy_from_slice(&bytes[..count]);
    kind(&start, bytes.len() as u64)
}

/// The kind of a file; `None` also for what cannot be read, which whoever reads it will say.
pub(crate) fn kind_of(path: &Path) -> Option<Kind> {
    if path.is_dir() {
        return path.join(CONFIG).is_file().then_some(Kind::Folder);
    }
    let (mut file, len) = files::open(path).ok()?;
    let mut start = [0; START];
    let count = io::Read::by_ref(&mut file).take(START as u64).read(&mut start).ok()?;
    // An HDF5 file may begin behind a block of the user's.
    if start[..count] != *hdf5::MAGIC && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("h5")) {
        for offset in [512, 1024, 2048] {
            let mut magic = [0; 8];
            let found = file.seek(io::SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut magic));
            if found.is_ok() && magic == *hdf5::MAGIC {
                return Some(Kind::Hdf5);
            }
        }
    }
    kind(&start, len)
}

/// A network from a Keras file.
pub(crate) struct Imported {
    pub(crate) info: ModelInfo,
    pub(crate) network: Network,
    pub(crate) notes: Vec<String>,
}

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
    import(path, &description, &store, device)
}

/// Opens a Keras file in memory.
pub(crate) fn from_bytes(bytes: &[u8], kind: Kind, device: &Device) -> Result<Imported> {
    let path = Path::new(files::MEMORY);
    let bad = |message: String| Error::Description { path: path.into(), message };
    match parts(Source::Bytes(bytes.to_vec()), kind).map_err(bad)? {
        (Some(description), Some(store)) => import(path, &description, &store, device),
        (None, _) => Err(bad("has weights but no description of the model".into())),
        (_, None) => Err(bad("has no weights".into())),
    }
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

/// Makes the network of a description with stored weights.
fn import(path: &Path, description: &Description, store: &Store, device: &Device) -> Result<Imported> {
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
    let network = network(&info, weights, device).map_err(|source| Error::Layers { path: path.into(), source })?;
    Ok(Imported { info, network, notes: built.notes })
}

/// The network; a weight that does not fit is said with the name of its layer.
fn network(info: &ModelInfo, weights: Weights, device: &Device) -> Result<Network, recurve_layers::Error> {
    use recurve_layers::Error as E;
    let layer = |name: &str| {
        let (index, rest) = name.strip_prefix("layers.")?.split_once('.')?;
        Some(format!("{}.{rest}", info.network.layers.get(index.parse::<usize>().ok()?)?.name))
    };
    let renamed = |name: String| layer(&name).unwrap_or(name);
    Network::new(&info.network, Arc::new(weights), device).map_err(|e| match e {
        E::WeightShape { name, expected, got } => E::WeightShape { name: renamed(name), expected, got },
        E::MissingWeight { name, available } => E::MissingWeight { name: renamed(name), available },
        E::ExtraWeight { name } => E::ExtraWeight { name: renamed(name) },
        other => other,
    })
}
