//! Names of weights without what wrappers add to them.

use recurve_weights::WeightFile;
use std::collections::BTreeMap;

/// What `torch.compile`, `FullyShardedDataParallel` and activation checkpoints put into names, at any place.
const INSIDE: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// What `DataParallel` and Lightning modules put before all names.
const BEFORE: [&str; 2] = ["module.", "model."];

/// The names of a file's weights, without what wrappers added, each with the name in the file.
pub(super) struct Names {
    pub(super) own: BTreeMap<String, String>,
    /// What was left out of the names.
    pub(super) wrappers: Vec<&'static str>,
}

impl Names {
    pub(super) fn of(file: &WeightFile) -> Self {
        let mut wrappers = Vec::new();
        let mut own: BTreeMap<String, String> = file.names().map(|n| (n.to_owned(), n.to_owned())).collect();
        // Names that would be the same without the wrapper stay as they are.
        let mut shorten = |own: &mut BTreeMap<String, String>, wrapper, f: &dyn Fn(&str) -> String| {
            let short: BTreeMap<String, String> = own.iter().map(|(n, full)| (f(n), full.clone())).collect();
            if short.len() == own.len() && !short.contains_key("") {
                *own = short;
                wrappers.push(wrapper);
                return true;
            }
            false
        };
        for wrapper in INSIDE {
            if own.keys().any(|n| n.split('.').any(|part| part == wrapper)) {
                let without = |n: &str| n.split('.').filter(|part| *part != wrapper).collect::<Vec<_>>().join(".");
                shorten(&mut own, wrapper, &without);
            }
        }
        loop {
            let all = |p: &&&str| !own.is_empty() && own.keys().all(|n| n.starts_with(**p));
            let Some(&wrapper) = BEFORE.iter().find(all) else { break };
            if !shorten(&mut own, wrapper, &|n| n[wrapper.len()..].to_owned()) {
                break;
            }
        }
        Self { own, wrappers }
    }
}
