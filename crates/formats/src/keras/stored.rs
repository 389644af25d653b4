//! The weights of a network from the variables that a file stores.

use super::build::{Built, Group, Leaf, Naming, Place};
use super::config::{Parser, Version};
use super::hdf5::{Array, Hdf5};
use crate::files::short;
use recurve_layers::Weights;
use std::collections::HashMap;

/// Where the variables are.
pub(super) enum Store {
    /// A file of Keras 3: a group for each object. On Windows the groups of the first versions are not inside each other,
    /// but named by the whole path, with backslashes.
    Objects(Hdf5, Naming, bool),
    /// A file of Keras 1 or 2, or Keras 3's file of that form: below this path a group for each layer of the model.
    Layers(Hdf5, String),
}

impl Store {
    /// Finds the variables of a file of weights.
    pub(super) fn find(file: Hdf5) -> Result<Self, String> {
        for path in ["model_weights", ""] {
            if file.texts(path, "layer_names")?.is_some() {
                return Ok(Self::Layers(file, path.into()));
            }
        }
        for naming in [Naming::Layers, Naming::Dependencies] {
            if file.has(naming.group())? {
                return Ok(Self::Objects(file, naming, false));
            }
        }
        let start = format!("{}\\", Naming::Dependencies.group());
        if file.members("")?.0.iter().any(|name| name.starts_with(&start)) {
            return Ok(Self::Objects(file, Naming::Dependencies, true));
        }
        Err("has no weights of a Keras model: neither `layer_names` nor a group `layers`".into())
    }

    pub(super) fn naming(&self) -> Naming {
        match self {
            Self::Objects(_, naming, _) => *naming,
            Self::Layers(..) => Naming::Layers,
        }
    }

    /// The version that wrote the weights, and the backend, where the file says so.
    pub(super) fn origin(&self) -> Result<[Option<String>; 2], String> {
        match self {
            Self::Objects(..) => Ok([None, None]),
            Self::Layers(file, path) => {
                let version = file.text(path, "keras_version")?;
                Ok([version, file.text(path, "backend")?])
            }
        }
    }
}

/// Reads the weights of a network, and finds what is wrong with them.
pub(super) fn read(built: &Built, store: &Store, version: Version, parser: &mut Parser) -> Weights {
    match store {
        Store::Objects(file, _, flat) => objects(built, file, *flat, parser),
        Store::Layers(file, path) => match layers(built, file, path, version, parser) {
            Ok(weights) => weights,
            Err(e) => {
                parser.problem("", "", e);
                Weights::new()
            }
        },
    }
}

/// Makes the weights of one part of a leaf.
fn make(leaf: &Leaf, part: usize, arrays: Vec<Array>, into: &mut Weights) -> Result<(), String> {
    let index = leaf.index.ok_or("is refused")?;
    for (name, array) in (leaf.parts[part].make)(arrays)? {
        let Array { shape, data } = array;
        into.insert(format!("layers.{index}.{name}"), &shape, data).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The variables of Keras 3: `vars/0`, `vars/1`, … in the group of their owner.
fn objects(built: &Built, file: &Hdf5, flat: bool, parser: &mut Parser) -> Weights {
    let mut weights = Weights::new();
    for leaf in &built.leaves {
        let mut next: HashMap<&str, usize> = HashMap::new();
        let mut whole = true;
        for (n, part) in leaf.parts.iter().enumerate() {
            let mut arrays = Vec::with_capacity(part.variables.len());
            for variable in &part.variables {
                let number = next.entry(&variable.owner).or_default();
                let path = format!("{}/vars/{number}", at(leaf, &variable.owner, flat));
                *number += 1;
                match file.array(&path) {
                    Ok(array) => arrays.push(array),
                    Err(e) => parser.problem(&leaf.name, &leaf.class, format!("its `{}`, {e}", variable.name)),
                }
            }
            whole &= arrays.len() == part.variables.len();
            if whole && let Err(e) = make(leaf, n, arrays, &mut weights) {
                parser.problem(&leaf.name, &leaf.class, e);
            }
        }
        // A variable that nothing reads would be silently left out.
        for (owner, count) in next {
            let there = match file.members(&format!("{}/vars", at(leaf, owner, flat))) {
                Ok((_, there)) => there.len(),
                Err(e) => {
                    parser.problem(&leaf.name, &leaf.class, e);
                    continue;
                }
            };
            if there > count {
                let message = format!("has {there} variables in the file, but {count} are known");
                parser.problem(&leaf.name, &leaf.class, message);
            }
        }
    }
    weights
}

/// The group of an object in a leaf.
fn at(leaf: &Leaf, owner: &str, flat: bool) -> String {
    let path = if owner.is_empty() { leaf.place.clone() } else { format!("{}/{owner}", leaf.place) };
    if flat { path.replace('/', "\\") } else { path }
}

/// The variables of Keras 1 and 2: those of a layer of the model, a model included, in one list.
fn layers(built: &Built, file: &Hdf5, path: &str, version: Version, parser: &mut Parser) -> Result<Weights, String> {
    let slash = if path.is_empty() { "" } else { "/" };
    let mut stored: Vec<(String, Vec<String>)> = Vec::new();
    for name in file.texts(path, "layer_names")?.unwrap_or_default() {
        let place = format!("{path}{slash}{name}");
        let names = match file.texts(&place, "weight_names")? {
            Some(names) => names,
            None if file.has(&place)? => Vec::new(),
            None => return Err(format!("the layer `{}` is listed, but its group is missing", short(&name))),
        };
        stored.push((name, names));
    }
    let mut weights = Weights::new();
    if !parser.problems.is_empty() {
        // Layers that are refused have weights of an unknown number.
        return Ok(weights);
    }
    let groups: Vec<&Group> = built.groups.iter().filter(|g| !g.variables.is_empty()).collect();
    let by_name = |name: &str| stored.iter().position(|(n, _)| n == name);
    let places: Vec<usize> = if groups.iter().all(|g| by_name(&g.name).is_some()) {
        groups.iter().filter_map(|g| by_name(&g.name)).collect()
    } else {
        // Weights of a model whose layers have other names belong to the layers in order.
        let order: Vec<usize> = (0..stored.len()).filter(|&n| !stored[n].1.is_empty()).collect();
        if order.len() != groups.len() {
            return Err(format!("{} layers of the model have weights, but {} of the file", groups.len(), order.len()));
        }
        order
    };
    let mut left: Vec<bool> = stored.iter().map(|(_, names)| !names.is_empty()).collect();
    for (group, &place) in groups.iter().zip(&places) {
        let (layer, names) = &stored[place];
        left[place] = false;
        if names.len() != group.variables.len() {
            let message = format!("has {} variables in the file, but {} are known", names.len(), group.variables.len());
            parser.problem(&group.name, &group.class, message);
            continue;
        }
        let mut arrays: HashMap<Place, Array> = HashMap::new();
        for (name, &(l, p, v)) in names.iter().zip(&group.variables) {
            let leaf = &built.leaves[l];
            let wanted = leaf.parts[p].variables[v].name;
            if !same_name(name, wanted, version) || wrong_owner(name, names, leaf) {
                let message = format!("has the variable `{}` where its `{wanted}` is expected", short(name));
                parser.problem(&leaf.name, &leaf.class, message);
                continue;
            }
            match file.array(&format!("{path}{slash}{layer}/{name}")) {
                Ok(array) => drop(arrays.insert((l, p, v), array)),
                Err(e) => parser.problem(&leaf.name, &leaf.class, format!("its `{wanted}`, {e}")),
            }
        }
        // All parts that are complete.
        let mut parts: Vec<(usize, usize)> = group.variables.iter().map(|&(l, p, _)| (l, p)).collect();
        parts.sort_unstable();
        parts.dedup();
        for (l, p) in parts {
            let leaf = &built.leaves[l];
            let own: Option<Vec<Array>> =
                (0..leaf.parts[p].variables.len()).map(|v| arrays.remove(&(l, p, v))).collect();
            if let Some(own) = own
                && let Err(e) = make(leaf, p, own, &mut weights)
            {
                parser.problem(&leaf.name, &leaf.class, e);
            }
        }
    }
    for ((name, names), _) in stored.iter().zip(left).filter(|(_, left)| *left) {
        let message = format!("has {} variables in the file, but none are known", names.len());
        parser.problem(name, "", message);
    }
    Ok(weights)
}

/// Whether a stored name can be that of a variable. Names that are not Keras's own are not looked at.
fn same_name(stored: &str, wanted: &str, version: Version) -> bool {
    const KNOWN: [&str; 14] = [
        "kernel",
        "recurrent_kernel",
        "bias",
        "embeddings",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "alpha",
        "depthwise_kernel",
        "pointwise_kernel",
        "scale",
        "attention_score_weight",
        "concat_score_weight",
    ];
    let last = stored.rsplit('/').next().unwrap_or(stored);
    let last = last.split(':').next().unwrap_or(last);
    if version.major == 1 {
        let old = match wanted {
            "kernel" | "embeddings" => "W",
            "recurrent_kernel" => "U",
            "bias" => "b",
            other => other,
        };
        let part = |known: &&str| last == *known || last.strip_suffix(known).is_some_and(|l| l.ends_with('_'));
        let known = ["W", "U", "b", "W_i", "U_i", "b_i", "W_c", "U_c", "b_c", "W_f", "U_f", "b_f", "W_o", "U_o", "b_o"];
        let more = ["W_z", "U_z", "b_z", "W_r", "U_r", "b_r", "W_h", "U_h", "b_h"];
        return part(&old) || !known.iter().chain(&more).any(part);
    }
    // A second variable of a name gets a number.
    let plain = match last.rsplit_once('_') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => last,
    };
    plain == wanted || last == wanted || !KNOWN.contains(&plain)
}

/// Whether a name belongs to another layer of the same model: the leaf's own name is in other names, but not in this.
fn wrong_owner(name: &str, names: &[String], leaf: &Leaf) -> bool {
    let own = leaf.name.rsplit('/').next().unwrap_or(&leaf.name);
    let has = |name: &str| name.split('/').any(|part| part == own);
    !has(name) && names.iter().any(|n| has(n))
}
