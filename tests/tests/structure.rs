//! The structure of the project: dependencies between packages, and files that every kernel must have.

use recurve_shaders::{Fused, SHADERS};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Our packages with their dependencies, without tests and benches.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let normal = p["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
            let names = normal.map(|d| d["name"].as_str().unwrap().to_owned()).collect();
            (p["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

/// From the bottom up: a package may only depend on packages before it.
const ORDER: [&str; 12] = [
    "recurve-vocabulary",
    "recurve-reference",
    "recurve-shaders",
    "recurve-tensor",
    "recurve-weights",
    "recurve-kernels",
    "recurve-graph",
    "recurve-layers",
    "recurve-formats",
    "recurve-train",
    "recurve",
    "recurve-pictures",
];

#[test]
fn dependencies_run_one_way() {
    let all = dependencies();
    for (n, name) in ORDER.iter().enumerate() {
        for d in &all[*name] {
            assert!(!ORDER[n..].contains(&d.as_str()), "{name} must not depend on {d}");
        }
    }
    for name in ORDER {
        for d in &all[name] {
            assert!(
                !["recurve-cli", "recurve-tests", "recurve-benches", "xtask"].contains(&d.as_str()),
                "{name} must not depend on {d}"
            );
        }
    }
}

/// The packages that a package is built from on this machine, itself included.
fn built_from(package: &str, features: &[&str]) -> Vec<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}", "--offline"])
        .args(features)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect()
}

/// The library has no dependency that only the command needs, and the command none that only tests need.
#[test]
fn the_library_is_built_without_what_only_the_command_needs() {
    // Packages that parse arguments and sounds.
    let of_the_command = ["clap", "hound", "strsim"];
    let (library, command) = (built_from("recurve", &[]), built_from("recurve-cli", &[]));
    assert!(library.len() > 50, "{library:?}");
    for name in of_the_command {
        assert!(command.iter().any(|p| p == name), "{name} is not known to the command: is the list still true?");
        assert!(!library.iter().any(|p| p == name), "the library depends on {name}");
    }
    assert!(!command.iter().any(|p| p == "recurve-tests"), "the command depends on the tests");
}

/// The dependencies of a feature are not built without it. `crates/recurve/tests/features.rs`, which `cargo xtask
/// portability` runs with `reference` alone, shows that the rest compiles and is right.
#[test]
fn features_bring_their_own_dependencies() {
    let has = |packages: &[String], name: &str| packages.iter().any(|p| p == name);
    let (all, none) = (built_from("recurve", &[]), built_from("recurve", &["--no-default-features"]));
    let command = built_from("recurve-cli", &[]);
    for (feature, brings) in [
        ("gpu", &["naga", "pollster", "recurve-shaders", "wgpu", "wgpu-core"][..]),
        ("cpu-threads", &["rayon"]),
        ("keras", &["hdf5-core", "hdf5-reader"]),
        ("plots", &["fontdb", "notosans", "plotters", "resvg", "tiny-skia", "usvg"]),
        ("progress", &["indicatif"]),
        ("training", &["recurve-train"]),
    ] {
        let alone = built_from("recurve", &["--no-default-features", "--features", feature]);
        for name in brings {
            assert!(has(&all, name) && has(&alone, name) && has(&command, name), "{feature} does not bring {name}");
            assert!(!has(&none, name), "{name} is built without {feature}");
        }
        assert!(alone.len() < all.len() && none.len() < alone.len());
    }
}

#[test]
fn the_lowest_packages_depend_on_little() {
    let all = dependencies();
    assert_eq!(all["recurve-vocabulary"], ["serde"]);
    // The reference cannot call what it checks, and only the graph's operators call the reference, for their f64
    // results.
    assert_eq!(all["recurve-reference"], ["recurve-vocabulary"]);
    for name in ORDER.iter().filter(|n| !["recurve", "recurve-graph"].contains(n)) {
        assert!(!all[*name].iter().any(|d| d == "recurve-reference"), "{name} must not depend on the reference");
    }
    // The shaders use no GPU API.
    let shaders = &all["recurve-shaders"];
    let ours = |d: &str| d.starts_with("recurve") && d != "recurve-vocabulary";
    assert!(!shaders.iter().any(|d| d.starts_with("wgpu") || ours(d)), "{shaders:?}");
}

/// `unsafe` is denied in the workspace, forbidden in crates that have none, and expected in the modules that have some.
#[test]
fn unsafe_stands_where_it_is_said_to_stand() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(read("Cargo.toml").contains("unsafe_code = \"deny\""));
    let has_some =
        ["crates/tensor/src/lib.rs", "crates/weights/src/lib.rs", "crates/cli/src/main.rs", "benches/src/main.rs"];
    let mut roots = 0;
    for path in sources() {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || path.contains("src/bin/");
        if is_root && !has_some.contains(&path.as_str()) {
            roots += 1;
            assert!(text.contains("#![forbid(unsafe_code)]"), "{path} forbids nothing");
        }
        assert!(!text.contains(concat!("allow(", "unsafe_code")), "{path}");
    }
    assert!(roots >= 10, "{roots} crates were looked at");
    // A list of these modules, so that a new one has to be added here.
    let expecting: Vec<_> = sources()
        .into_iter()
        .filter(|p| std::fs::read_to_string(root().join(p)).unwrap().contains(concat!("expect(", "unsafe_code")))
        .collect();
    let want = [
        "benches/src/main.rs",
        "crates/cli/src/main.rs",
        "crates/tensor/src/cpu/mod.rs",
        "crates/tensor/src/gpu/mod.rs",
        "crates/weights/src/lib.rs",
        "tests/tests/allocations.rs",
    ];
    assert_eq!(expecting, want);
    for member in ["shaders", "tests", "benches", "xtask"].into_iter().chain(CRATES) {
        assert!(read(&format!("{member}/Cargo.toml")).contains("[lints]\nworkspace = true"), "{member}");
    }
}

/// The packages for Python and for browsers are workspaces of their own, with the same rules: their lints are those of
/// the other packages, and `unsafe` stands in one file.
#[test]
fn the_packages_of_other_languages_have_the_rules_of_the_others() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let lints = |text: &str, head: &str| -> BTreeSet<String> {
        let lines = text.lines().skip_while(|l| *l != head).skip(1).take_while(|l| !l.starts_with('['));
        lines.filter(|l| l.contains('=')).map(str::to_owned).collect()
    };
    let ours = read("Cargo.toml");
    assert!(ours.contains("exclude = [\"fuzz\", \"python\", \"web\"]"));
    for (package, lints_of) in [("python", "lints"), ("web", "workspace.lints")] {
        let manifest = read(&format!("{package}/Cargo.toml"));
        assert!(manifest.contains("\n[workspace]\n"), "{package}");
        for kind in ["rust", "clippy"] {
            let want = lints(&ours, &format!("[workspace.lints.{kind}]"));
            assert!(want.len() >= 4, "{want:?}");
            assert_eq!(lints(&manifest, &format!("[{lints_of}.{kind}]")), want, "{package}, {kind}");
        }
    }
    for (folder, file) in [("", "lib"), ("bindgen/", "main"), ("errors/", "lib"), ("keras/", "lib")] {
        let manifest = format!("web/{folder}Cargo.toml");
        assert!(read(&manifest).contains("[lints]\nworkspace = true"), "{manifest}");
        let file = format!("web/{folder}src/{file}.rs");
        assert!(read(&file).contains("#![forbid(unsafe_code)]"), "{file}");
    }
    // What computes has the versions that these tests have.
    let version = |lock: &str, name: &str| {
        let at = lock.find(&format!("name = \"{name}\"\n")).unwrap_or_else(|| panic!("{name}"));
        lock[at..].lines().nth(1).unwrap().to_owned()
    };
    let (ours, python, web) = (read("Cargo.lock"), read("python/Cargo.lock"), read("web/Cargo.lock"));
    for name in ["wgpu", "wgpu-core", "wgpu-hal", "naga", "pulp", "rayon-core", "gemm-f32", "half", "safetensors"] {
        assert_eq!(version(&python, name), version(&ours, name), "{name}");
        assert_eq!(version(&web, name), version(&ours, name), "{name}");
    }
    let mut expecting = Vec::new();
    for entry in std::fs::read_dir(root().join("python/src")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(concat!("allow(", "unsafe_code")), "{}", path.display());
        if text.contains(concat!("expect(", "unsafe_code")) {
            expecting.push(path.file_name().unwrap().to_owned());
        }
    }
    assert_eq!(expecting, ["arrays.rs"]);
}

const CRATES: [&str; 12] = [
    "crates/vocabulary",
    "crates/reference",
    "crates/tensor",
    "crates/weights",
    "crates/kernels",
    "crates/graph",
    "crates/layers",
    "crates/train",
    "crates/formats",
    "crates/recurve",
    "crates/pictures",
    "crates/cli",
];

/// Every Rust file of the packages, relative to the root, sorted.
fn sources() -> Vec<String> {
    let mut folders: Vec<PathBuf> =
        ["shaders", "crates", "tests", "benches", "xtask"].iter().map(|f| root().join(f)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

/// `every_kernel.rs` shows that a kernel is used and right, by running it.
#[test]
fn every_kernel_has_its_host_file_and_its_twin() {
    let host = |stem: &str| -> Vec<PathBuf> {
        let kernels = |file: &str| root().join("crates/kernels/src").join(file);
        match stem.split_once('_') {
            // Kernels of several cells; the strategies share a file.
            Some((cell @ ("general" | "pointwise" | "linear"), _)) => {
                let cell = if cell == "linear" { "pointwise" } else { cell };
                // On the CPU the general cells are part of the LSTM and the GRU.
                let twin = if cell == "general" { "lstm" } else { cell };
                vec![kernels(&format!("gpu/{cell}.rs")), kernels(&format!("cpu/rows/{twin}.rs"))]
            }
            Some(("train", pass)) => {
                let host = if ["forward", "backward"].contains(&pass) { pass } else { "mod" };
                let twin = if pass == "norm" { "general" } else { host };
                vec![kernels(&format!("gpu/training/{host}.rs")), kernels(&format!("cpu/training/{twin}.rs"))]
            }
            Some(("stack", _)) => vec![kernels("gpu/stack.rs")],
            Some(("ctc", _)) => {
                ["gpu/ops/ctc.rs", "ops/ctc.rs"].map(|file| root().join("crates/tensor/src").join(file)).to_vec()
            }
            // The strategies.
            None if ["scan", "step", "grid"].contains(&stem) => vec![kernels(&format!("gpu/{stem}.rs"))],
            _ if stem.ends_with("_probe") => vec![root().join("crates/tensor/src/gpu/probe.rs")],
            _ => {
                let tensor = |file: &str| root().join("crates/tensor/src").join(file);
                // On the CPU these are part of other files.
                let twin = match stem {
                    "fill" => "tensor.rs".into(),
                    "matmul_direct" => "ops/matmul.rs".into(),
                    "matvec" => "cpu/simd.rs".into(),
                    "sum_rows" | "sum_runs" => "ops/gather.rs".into(),
                    _ => format!("ops/{stem}.rs"),
                };
                vec![tensor(&format!("gpu/ops/{stem}.rs")), tensor(&twin)]
            }
        }
    };
    for shader in SHADERS {
        for path in host(shader.stem()) {
            assert!(path.is_file(), "{}: {} is not there", shader.stem(), path.display());
        }
    }
    // Each cell's snippet has a CPU counterpart.
    for cell in Fused::CELLS {
        let fused = Fused::of(cell.kind).expect("a cell with a snippet");
        for path in [
            format!("shaders/wgsl/cells/{}.wgsl", fused.snippet),
            format!("crates/kernels/src/cpu/rows/{}.rs", fused.snippet),
        ] {
            assert!(root().join(&path).is_file(), "{cell:?}: {path} is not there");
        }
    }
    // No file without a kernel.
    for file in std::fs::read_dir(root().join("shaders/wgsl")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "wgsl") {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(SHADERS.iter().any(|s| s.stem() == stem), "{stem}.wgsl is not registered");
        }
    }
}

/// Types that the façade exports, and those of graphs and training, can get more variants and fields without breaking programs: they
/// are `non_exhaustive`, or end in a field `rest`. `ARCHITECTURE.md` says which form is for what.
#[test]
fn exported_types_can_grow() {
    // Complete by their nature.
    let closed = [
        "AnyModel",
        "Bias",
        "Data",
        "Device",
        "Direction",
        "HostArray",
        "Int",
        "MaskedOutput",
        "Merge",
        "State",
        "StatePair",
        "Tolerance",
        "Zoneout",
    ];
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let facade = read("crates/recurve/src/lib.rs");
    // The names that the façade takes from each package.
    let mut exported: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for part in facade.split("\npub use recurve_").skip(1) {
        let (package, names) = part.split(';').next().unwrap().split_once("::").unwrap();
        exported.entry(package).or_default().extend(names.split(|c: char| !c.is_alphanumeric() && c != '_'));
    }
    let (mut open, mut met) = (0, BTreeSet::new());
    for path in sources() {
        let Some((package, rest)) = path.strip_prefix("crates/").and_then(|p| p.split_once("/src/")) else { continue };
        let names = exported.get(package);
        let text = read(&path);
        for (kind, at) in ["enum", "struct"].iter().flat_map(|kind| {
            let declaration = format!("\npub {kind} ");
            text.match_indices(&declaration).map(|(at, d)| (*kind, at + d.len())).collect::<Vec<_>>()
        }) {
            let name = text[at..].split(|c: char| !c.is_alphanumeric()).next().unwrap();
            let all = (package == "graph" && kind == "enum")
                || package == "train"
                || (package == "recurve" && rest == "testing.rs");
            if !all && !names.is_some_and(|n| n.contains(name)) {
                continue;
            }
            // A struct without public fields is open.
            let end = text[at..].find(if kind == "enum" { "\n}" } else { "\n" }).map_or(text.len(), |n| at + n);
            let body = if text[at..end].ends_with(';') { "" } else { text[at..].split("\n}").next().unwrap() };
            if kind == "struct" && !body.contains("\n    pub ") {
                continue;
            }
            let head = text[..at].rsplit("\n\n").next().unwrap();
            if closed.contains(&name) {
                met.insert(name.to_owned());
            } else {
                assert!(head.contains("#[non_exhaustive]") || body.contains("pub rest: Rest"), "{path}: {name}");
                open += 1;
            }
        }
    }
    assert_eq!(met.len(), closed.len(), "{met:?}");
    assert!(open > 50, "{open} types were looked at");
}

/// Clippy checks that our code compiles with `rust-version`; this checks the packages that it depends on.
#[test]
fn no_dependency_needs_a_younger_compiler_than_we_say() {
    let rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    // Packages for other targets may not have been downloaded.
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |p: &Value| -> Option<Vec<u32>> {
        Some(p["rust_version"].as_str()?.split('.').take(2).map(|n| n.parse().unwrap()).collect())
    };
    let ours = packages.iter().find(|p| p["name"] == "recurve").and_then(version).unwrap();
    assert!(packages.iter().filter(|p| version(p).is_some()).count() > 50, "few packages say what they need");
    for p in packages {
        let needs = version(p).unwrap_or_default();
        assert!(needs <= ours, "{} needs Rust {needs:?}, and we say {ours:?}", p["name"]);
    }
}
