//! Archives of `torch.export.save` (`.pt2`): weights in files of their own, described by JSON; or, before PyTorch 2.9, a
//! state dict of `torch.save` inside the archive.

use super::Wrong;
use super::archive::{Archive, file_wrong, read_inner, unknown};
use super::place::{COPIES, Failure, Kind, View};
use crate::WeightFormat;
use crate::file::{Contents, MAX_NAME, MAX_TENSORS};
use crate::files::{short, short_message};
use crate::weight::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

#[derive(Deserialize)]
struct Config {
    config: Pairs,
}

/// Entries in the order of the file, all of them.
struct Pairs(Vec<(String, Described)>);

#[derive(Deserialize)]
struct Described {
    path_name: String,
    use_pickle: bool,
    tensor_meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    dtype: u32,
    sizes: Vec<Int>,
    strides: Vec<Int>,
    storage_offset: Int,
    layout: u32,
}

/// A whole number; a symbolic one is refused.
#[derive(Deserialize)]
struct Int {
    as_int: usize,
}

/// PyTorch's number for tensors of the usual kind.
const STRIDED: u32 = 7;

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of weights")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut all = Vec::new();
                while let Some(pair) = map.next_entry::<String, Described>()? {
                    if all.len() == MAX_TENSORS || pair.0.len() > MAX_NAME {
                        return Err(M::Error::custom(format_args!(
                            "at most {MAX_TENSORS} tensors are read, with names of at most {MAX_NAME} bytes"
                        )));
                    }
                    all.push(pair);
                }
                Ok(Pairs(all))
            }
        }
        from.deserialize_map(All)
    }
}

const CONFIG: &str = "_weights_config.json";

/// Reads an archive without `data.pkl`.
pub(super) fn read(
    archive: &mut Archive<'_>,
    bytes: &Bytes,
    size: usize,
    part: Option<&str>,
) -> Result<Contents, Wrong> {
    let named =
        |end: &str| -> Vec<String> { archive.names().filter(|n| n.ends_with(end)).map(str::to_owned).collect() };
    let configs = named(CONFIG);
    let format = WeightFormat::PyTorchExport;
    let notes = vec!["an archive of torch.export: its graph is not run, only its weights are read".to_owned()];
    if configs.is_empty() {
        let older = named("serialized_state_dict.pt")
            .into_iter()
            .chain(archive.names().filter(|n| n.contains("data/weights/") && n.ends_with(".pt")).map(str::to_owned));
        let older: Vec<String> = older.collect();
        return match &older[..] {
            [] => Err(unknown(archive)),
            [one] => {
                let Some(range) = archive.stored(one) else {
                    return Err(Wrong::File(format!("file `{}` is compressed, which is not read", short(one))));
                };
                let inner = read_inner(bytes, range, part)?;
                Ok(Contents { format, notes: [notes, inner.notes].concat(), ..inner })
            }
            _ => Err(Wrong::File("has the weights of several models, which is not read".into())),
        };
    }
    let [config] = &configs[..] else {
        return Err(Wrong::File("has the weights of several models, which is not read".into()));
    };
    if part.is_some() {
        return Err(Wrong::File("an archive of torch.export has no parts".into()));
    }
    let folder = config[..config.rfind('/').map_or(0, |at| at + 1)].to_owned();
    let root = config.find("data/weights/").map_or("", |at| &config[..at]);
    if archive.is_big_endian(root)? {
        return Err(Wrong::File("is a big-endian archive of torch.export, which is not read".into()));
    }
    let text = archive.contents(config).map_err(file_wrong)?;
    let all: Config = serde_json::from_slice(&text)
        .map_err(|e| Wrong::File(format!("file `{}`: {}", short(config), short_message(&e.to_string()))))?;
    let mut copies = size.saturating_mul(2).saturating_add(COPIES);
    let (mut made, mut tensors) = (HashMap::new(), BTreeMap::new());
    for (name, d) in all.config.0 {
        let wrong = |message: String| Wrong::Tensor(name.clone(), message);
        let meta = match d.tensor_meta {
            Some(meta) if !d.use_pickle && meta.layout == STRIDED => meta,
            _ => return Err(wrong("is a pickled or sparse tensor, which is not read".into())),
        };
        let kind = Kind::of_export(meta.dtype).map_err(wrong)?;
        let storage = match made.get(&d.path_name) {
            Some(storage) => std::sync::Arc::clone(storage),
            None => {
                let storage = archive.storage(&format!("{folder}{}", d.path_name), None);
                let storage = storage.map_err(|f| match f {
                    Failure::Message(m) => wrong(m),
                    Failure::Memory(e) => Wrong::Memory(e),
                })?;
                made.insert(d.path_name.clone(), storage.clone());
                storage
            }
        };
        let sizes = |v: &[Int]| v.iter().map(|n| n.as_int).collect();
        let view =
            View { offset: meta.storage_offset.as_int, shape: sizes(&meta.sizes), strides: sizes(&meta.strides) };
        let range: Range<usize> = storage.own.as_ref().map_or(storage.at.clone(), |o| 0..o.get().len());
        let entry = view.entry(kind, storage, range, &mut copies).map_err(wrong)?;
        if tensors.insert(name.clone(), entry).is_some() {
            return Err(Wrong::Twice(name));
        }
    }
    Ok(Contents { format, metadata: HashMap::new(), tensors, notes })
}
