//! The legacy form of `torch.save`: the pickles of a magic number, a version, the machine, the saved object and the keys
//! of its storages, then for each storage the number of its elements and the elements.

use super::Wrong;
use super::pickle::{Pickle, Value};
use super::place::{COPIES, Failure, Storages, Wanted, entry};
use super::state::find;
use crate::WeightFormat;
use crate::file::{Contents, Storage};
use crate::weight::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub(super) fn read(bytes: &Bytes, part: Option<&str>) -> Result<Contents, Wrong> {
    let all = bytes.get();
    let mut at = 0;
    let mut next = || -> Result<Pickle<'_>, Wrong> {
        let p = Pickle::read(&all[at..])?;
        at += p.end;
        Ok(p)
    };
    let (_magic, version, machine) = (next()?, next()?, next()?);
    match version.get(version.root) {
        Value::Int(1001) => {}
        other => return Err(Wrong::File(format!("has version {other:?} of the legacy form, but 1001 is read"))),
    }
    let little = machine.entry(machine.root, "little_endian").map(|id| machine.get(id));
    if !matches!(little, Some(Value::Bool(true))) {
        return Err(Wrong::File("was written on a big-endian machine in the legacy form, which is not read".into()));
    }
    let object = next()?;
    let keys = next()?;
    let mut order = Vec::new();
    if let Value::List(list) = keys.get(keys.root) {
        order.extend(list.iter().map(|&id| keys.text(id)));
    }
    let order: Option<Vec<&str>> = order.into_iter().collect();
    let order = order.ok_or_else(|| Wrong::File("has no list of its storages".into()))?;
    let sizes = sizes(&object)?;
    let mut storages = Legacy::default();
    for key in order {
        let Some(&size) = sizes.get(key) else {
            return Err(Wrong::File(format!("has a storage `{}` of no tensor", crate::files::short(key))));
        };
        let count = all.get(at..).and_then(|rest| rest.first_chunk()).map(|n| u64::from_le_bytes(*n));
        let start = at + 8;
        let end = count
            .and_then(|n| usize::try_from(n).ok()?.checked_mul(size)?.checked_add(start))
            .filter(|&end| end <= all.len())
            .ok_or_else(|| Wrong::File("is cut short: a storage ends after the file".into()))?;
        if storages.ranges.insert(key, start..end).is_some() {
            return Err(Wrong::Twice(key.into()));
        }
        at = end;
    }
    if at != all.len() {
        return Err(Wrong::File(format!("has {} bytes after its last storage", all.len() - at)));
    }
    let found = find(&object, part)?;
    let mut copies = all.len().saturating_mul(2).saturating_add(COPIES);
    let mut tensors = std::collections::BTreeMap::new();
    for (name, id) in found.tensors {
        match entry(&object, id, &mut storages, &mut copies) {
            Ok(e) => drop(tensors.insert(name, e)),
            Err(Failure::Message(message)) => return Err(Wrong::Tensor(name, message)),
            Err(Failure::Memory(e)) => return Err(Wrong::Memory(e)),
        }
    }
    Ok(Contents { format: WeightFormat::PyTorchLegacy, metadata: HashMap::new(), tensors, notes: found.notes })
}

/// The size of the elements of each storage that a pickle names.
fn sizes<'a>(p: &Pickle<'a>) -> Result<HashMap<&'a str, usize>, Wrong> {
    let mut sizes = HashMap::new();
    for fields in p.storages() {
        if let &[_, class, key, ..] = fields
            && let (Some(class), Some(key)) = (p.global(class), p.text(key))
        {
            let size = super::place::storage_size(&class).map_err(|m| Wrong::File(format!("a storage {m}")))?;
            if *sizes.entry(key).or_insert(size) != size {
                return Err(Wrong::File("has a storage with two types".into()));
            }
        }
    }
    Ok(sizes)
}

#[derive(Default)]
struct Legacy<'a> {
    ranges: HashMap<&'a str, Range<usize>>,
    made: HashMap<&'a str, Arc<Storage>>,
}

impl Storages for Legacy<'_> {
    fn storage(&mut self, wanted: &Wanted<'_>) -> Result<Arc<Storage>, Failure> {
        let Some((&key, at)) = self.ranges.get_key_value(wanted.key) else {
            return Err(
                format!("is in a storage `{}` that the file does not have", crate::files::short(wanted.key)).into()
            );
        };
        if at.len() != wanted.len {
            return Err(format!("needs a storage of {} bytes, but it has {}", wanted.len, at.len()).into());
        }
        let make = || Arc::new(Storage { at: at.clone(), crc: None, checked: OnceLock::new(), own: None });
        Ok(self.made.entry(key).or_insert_with(make).clone())
    }
}
