//! Finding the weights in what a pickle made: a state dict, one inside a checkpoint, or the parameters of a module.

use super::Wrong;
use super::pickle::{HARMLESS, Id, Pickle, Value};
use crate::file::{MAX_NAME, MAX_TENSORS};
use crate::files::{short, some_names};
use std::collections::{BTreeSet, HashSet};

/// The keys under which checkpoints have their weights, the first that is there first.
const KNOWN: [&str; 10] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "network",
    "net",
    "weights",
    "params",
    "parameters",
];

/// Limit on nesting, and on the values that are looked at for names.
const MAX_DEPTH: usize = 64;
const MAX_VISITS: usize = 1 << 20;

/// Tensors by name, and what is worth knowing about where they were.
pub(super) struct Found {
    pub(super) tensors: Vec<(String, Id)>,
    pub(super) notes: Vec<String>,
}

/// The weights of a pickle, or those under the keys `part`, joined by dots.
pub(super) fn find(p: &Pickle<'_>, part: Option<&str>) -> Result<Found, Wrong> {
    let mut search = Search { p, tensors: Vec::new(), left_out: Vec::new(), classes: BTreeSet::new(), visits: 0 };
    let mut notes = Vec::new();
    let (root, under) = match part {
        Some(part) => (search.descend(part)?, part.to_owned()),
        None => search.choose(&mut notes)?,
    };
    if !under.is_empty() {
        notes.insert(0, format!("the weights are those under `{}`", short(&under)));
    }
    search.start(root)?;
    let Search { tensors, left_out, classes, .. } = search;
    if !classes.is_empty() {
        return Err(Wrong::Calls(classes.into_iter().map(|c| format!("an object of class {c}")).collect()));
    }
    if !left_out.is_empty() {
        notes.push(format!("no tensors, left out: {}", some_names(left_out.iter().map(String::as_str))));
    }
    if tensors.is_empty() {
        return Err(Wrong::File("has no tensors".into()));
    }
    let mut seen = HashSet::new();
    match tensors.iter().find(|(name, _)| !seen.insert(name)) {
        Some((name, _)) => Err(Wrong::Twice(name.clone())),
        None => Ok(Found { tensors, notes }),
    }
}

struct Search<'p, 'a> {
    p: &'p Pickle<'a>,
    tensors: Vec<(String, Id)>,
    /// Values of the state dict that are no tensors.
    left_out: Vec<String>,
    /// Classes of objects in the state dict.
    classes: BTreeSet<String>,
    visits: usize,
}

impl Search<'_, '_> {
    /// The key of an entry of a dictionary, as a part of a name.
    fn key(&self, id: Id) -> Option<String> {
        match self.p.get(id) {
            Value::Int(v) => Some(v.to_string()),
            _ => self.p.text(id).map(str::to_owned),
        }
    }

    /// The value under keys joined by dots; a key may have dots in it.
    fn descend(&self, part: &str) -> Result<Id, Wrong> {
        let (mut at, mut rest) = (self.p.root, part);
        'next: while !rest.is_empty() {
            if let Value::Dict(entries) = self.p.get(at) {
                for &(key, value) in entries {
                    let Some(key) = self.key(key) else { continue };
                    let after =
                        rest.strip_prefix(&*key).and_then(|r| if r.is_empty() { Some(r) } else { r.strip_prefix('.') });
                    if let Some(after) = after.filter(|_| !key.is_empty()) {
                        (at, rest) = (value, after);
                        continue 'next;
                    }
                }
            }
            let there = match self.p.get(at) {
                Value::Dict(entries) => entries.iter().filter_map(|(k, _)| self.key(*k)).collect(),
                _ => Vec::new(),
            };
            let there = some_names(there.iter().map(String::as_str));
            return Err(Wrong::File(format!("has no part `{}`; there is {there}", short(rest))));
        }
        Ok(at)
    }

    /// The value that holds the weights, and the keys under which it is.
    fn choose(&self, notes: &mut Vec<String>) -> Result<(Id, String), Wrong> {
        let (mut at, mut under) = (self.p.root, String::new());
        let inside = |id: Id| self.nested(id) && self.has_tensors(id);
        while let Value::Dict(entries) = self.p.get(at) {
            let found = KNOWN.iter().find_map(|name| self.p.entry(at, name).filter(|&v| inside(v)).map(|v| (name, v)));
            let Some((name, value)) = found else { break };
            let others: Vec<String> =
                entries.iter().filter(|(_, v)| *v != value).filter_map(|(k, _)| self.key(*k)).collect();
            if !others.is_empty() {
                notes.push(format!("left out: {}", some_names(others.iter().map(String::as_str))));
            }
            if under.len() > MAX_NAME {
                return Err(Wrong::File("is nested too deeply, or contains itself".into()));
            }
            under = join(&under, name);
            at = value;
        }
        Ok((at, under))
    }

    /// Whether a value may hold others by name.
    fn nested(&self, id: Id) -> bool {
        matches!(self.p.get(id), Value::Dict(_) | Value::Instance { .. })
    }

    /// Whether there is a tensor in a value.
    fn has_tensors(&self, id: Id) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![id]);
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.p.get(id) {
                Value::Tensor(..) => return true,
                Value::Dict(v) => open.extend(v.iter().map(|(_, v)| *v)),
                Value::List(v) | Value::Tuple(v) => open.extend(v),
                Value::Instance { state: Some(state), .. } => open.push(*state),
                _ => {}
            }
        }
        false
    }

    /// Adds the tensors of the value that holds the weights. Of a dictionary of several state dicts only these are
    /// looked at, because there may be anything beside them.
    fn start(&mut self, root: Id) -> Result<(), Wrong> {
        let p = self.p;
        let mut name = String::new();
        match p.get(root) {
            Value::Dict(entries) if !entries.iter().any(|(_, v)| matches!(p.get(*v), Value::Tensor(..))) => {
                for &(key, value) in entries {
                    match self.key(key) {
                        Some(key) if self.has_tensors(value) => self.within(&key, value, &mut name, 0)?,
                        Some(key) => self.leave_out(&key),
                        None => {}
                    }
                }
                Ok(())
            }
            _ => self.walk(root, &mut name, 0),
        }
    }

    /// Adds the tensors of a value.
    fn walk(&mut self, id: Id, name: &mut String, depth: usize) -> Result<(), Wrong> {
        self.visits += 1;
        if depth > MAX_DEPTH || self.visits > MAX_VISITS {
            return Err(Wrong::File("is nested too deeply, or contains itself".into()));
        }
        let p = self.p;
        match p.get(id) {
            Value::Tensor(..) => {
                let name = if name.is_empty() { "tensor".to_owned() } else { name.clone() };
                if self.tensors.len() == MAX_TENSORS || name.len() > MAX_NAME {
                    return Err(Wrong::File(format!(
                        "at most {MAX_TENSORS} tensors are read, with names of at most {MAX_NAME} bytes, but there are \
                         more, or `{}` is longer",
                        short(&name)
                    )));
                }
                self.tensors.push((name, id));
            }
            Value::Dict(entries) => {
                for &(key, value) in entries {
                    match self.key(key) {
                        Some(key) => self.within(&key, value, name, depth)?,
                        None if self.has_tensors(value) => {
                            let message =
                                format!("`{}` has a key that is neither a text nor a whole number", short(name));
                            return Err(Wrong::File(message));
                        }
                        None => {}
                    }
                }
            }
            Value::List(values) | Value::Tuple(values) if self.has_tensors(id) => {
                for (n, &value) in values.iter().enumerate() {
                    self.within(&n.to_string(), value, name, depth)?;
                }
            }
            &Value::Instance { class, state } => self.instance(class, state, name, depth)?,
            Value::None => {}
            _ if name.is_empty() => {}
            _ => self.leave_out(name),
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &str) {
        if self.left_out.len() < MAX_TENSORS && self.left_out.last().is_none_or(|l| l != name) {
            self.left_out.push(short(name));
        }
    }

    /// Walks a value under a key.
    fn within(&mut self, key: &str, value: Id, name: &mut String, depth: usize) -> Result<(), Wrong> {
        let len = name.len();
        if len > 0 {
            name.push('.');
        }
        name.push_str(key);
        self.walk(value, name, depth + 1)?;
        name.truncate(len);
        Ok(())
    }

    /// Adds the parameters and buffers of a module. Objects of other classes are not known to be harmless.
    fn instance(&mut self, class: Id, state: Option<Id>, name: &mut String, depth: usize) -> Result<(), Wrong> {
        let p = self.p;
        let class = p.global(class).unwrap_or_default();
        let attributes = state.map(|s| (s, p.get(s)));
        match attributes {
            Some((state, Value::Dict(_))) if p.entry(state, "_parameters").is_some() => {
                let transient = match p.entry(state, "_non_persistent_buffers_set").map(|s| p.get(s)) {
                    Some(Value::Set(v)) => v.iter().filter_map(|&id| p.text(id)).collect(),
                    _ => HashSet::new(),
                };
                for kind in ["_parameters", "_buffers", "_modules"] {
                    let Some(Value::Dict(entries)) = p.entry(state, kind).map(|id| p.get(id)) else { continue };
                    for &(key, value) in entries {
                        match p.text(key) {
                            Some(key) if kind == "_buffers" && transient.contains(key) => {}
                            Some(key) => self.within(key, value, name, depth)?,
                            None => return Err(Wrong::File("has a module with a parameter without a name".into())),
                        }
                    }
                }
            }
            // An object of TorchScript, whose attributes are its parameters, buffers and modules, among others.
            Some((_, Value::Dict(entries))) if class.starts_with("__torch__") => {
                for &(key, value) in entries {
                    if let (Some(key), Value::Tensor(..) | Value::Instance { .. }) = (p.text(key), p.get(value)) {
                        self.within(key, value, name, depth)?;
                    }
                }
            }
            None if class.starts_with("__torch__") => {}
            _ if HARMLESS.contains(&&*class) && !name.is_empty() => self.leave_out(name),
            _ => {
                self.classes.insert(short(&class));
            }
        }
        Ok(())
    }
}

fn join(a: &str, b: &str) -> String {
    if a.is_empty() { b.to_owned() } else { format!("{a}.{b}") }
}
