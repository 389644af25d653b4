//! All readers of files, run on the corpora of the fuzz targets and on changed files from a seed. `cargo xtask fuzz
//! READER` continues with libFuzzer.

#[expect(unreachable_pub, reason = "for the fuzz targets it is a library of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod readers;

use recurve::{
    Device, Error, HostArray, HostData, Model, OnnxModel, WeightError, Weights, npy_from_bytes, npz_from_bytes,
    read_array, write_array,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn folder(reader: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(reader)
}

/// The files of a corpus, by name.
fn corpus(reader: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder(reader)).unwrap().map(|e| e.unwrap());
    let mut files: Vec<_> =
        files.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    files.sort();
    assert!(files.len() > 4, "{reader}");
    files
}

fn bad(name: &str) -> bool {
    name.starts_with("bad_")
}

/// The corpora contain files written by numpy: elements that count from 0 in row-major order.
#[test]
fn arrays_are_read_as_numpy_wrote_them() {
    let mut types = 0;
    for (name, bytes) in corpus("npy").into_iter().filter(|(n, _)| !bad(n)) {
        let array = npy_from_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let shape: &[usize] = match &*name {
            "f4_scalar.npy" => &[],
            "f4_flat.npy" => &[7],
            _ => &[2, 3, 2],
        };
        let count: usize = shape.iter().product();
        let data = match &name[..1] {
            "f" => HostData::Float((0..count).map(|v| v as f32).collect()),
            "b" => HostData::Int((0..count as i64).map(|v| v % 2).collect()),
            _ => HostData::Int((0..count as i64).collect()),
        };
        assert_eq!(array, HostArray { shape: shape.to_vec(), data }, "{name}");
        assert_eq!(read_array(&folder("npy").join(&name), "x").unwrap(), array, "{name}");
        types += 1;
    }
    assert_eq!(types, 29);
    for (name, bytes) in corpus("npz").into_iter().filter(|(n, _)| !bad(n)) {
        let array = npz_from_bytes(&bytes, "x").unwrap_or_else(|e| panic!("{name}: {e}"));
        let data = HostData::Float((0..12).map(|v| v as f32).collect());
        assert_eq!(array, HostArray { shape: vec![2, 3, 2], data }, "{name}");
    }
}

#[test]
fn arrays_are_written_as_numpy_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let ramp = |count: usize| (0..count).map(|v| v as f32).collect::<Vec<_>>();
    for (name, shape) in [("f4.npy", &[2, 3, 2][..]), ("f4_flat.npy", &[7]), ("f4_scalar.npy", &[])] {
        let path = dir.path().join(name);
        write_array(&path, "x", shape, &ramp(shape.iter().product())).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(folder("npy").join(name)).unwrap(), "{name}");
    }
}

#[test]
fn what_is_bad_is_refused_and_the_rest_is_not() {
    for (name, bytes) in corpus("npy") {
        assert_eq!(
            npy_from_bytes(&bytes).and_then(|a| a.to_tensor("x", recurve::DType::F32, &Device::Cpu)).is_err(),
            bad(&name),
            "{name}"
        );
    }
    for (name, bytes) in corpus("npz") {
        assert_eq!(npz_from_bytes(&bytes, "x").is_err(), bad(&name), "{name}");
    }
    for (name, bytes) in corpus("pytorch") {
        let opened = Weights::from_bytes(bytes);
        assert_eq!(opened.is_err(), bad(&name), "{name}: {:?}", opened.map(|_| ()));
    }
    for (name, bytes) in corpus("onnx") {
        let opened = OnnxModel::from_bytes(bytes, &Device::Cpu);
        assert_eq!(opened.is_err(), bad(&name), "{name}: {:?}", opened.map(|_| ()));
    }
    for (name, bytes) in corpus("model") {
        let opened = Model::from_bytes(&bytes, &Device::Cpu);
        assert_eq!(opened.is_err(), bad(&name), "{name}: {:?}", opened.map(|_| ()));
        match (&*name, opened) {
            ("bad_twice.safetensors", Err(e)) => {
                assert!(
                    matches!(&e, Error::Weights(WeightError::Twice { name, .. }) if name == "layers.0.weight"),
                    "{e}"
                );
            }
            ("bad_metadata_twice.safetensors", Err(e)) => {
                assert!(matches!(&e, Error::Weights(WeightError::Twice { name, .. }) if name == "recurve"), "{e}");
            }
            _ => {}
        }
    }
}

#[test]
fn bad_keras_files_say_what_is_wrong() {
    let expected = [
        ("bad_bomb.h5", "but the weights may take"),
        ("bad_cut.h5", "unexpected end of data"),
        ("bad_cycle.h5", "is missing"),
        ("bad_deep.keras", "the description is no JSON"),
        ("bad_external_link.h5", "is a link to the file `/etc/passwd`, which is not followed"),
        ("bad_external_storage.h5", "has its elements in the file `secret.bin`, which is not opened"),
        ("bad_huge.h5", "but the weights may take"),
        ("bad_lambda.keras", "layer `code` (Lambda): is code of its own"),
        ("bad_many_calls.keras", "calls its layers more than 4096 times"),
        ("bad_twice.keras", "has the file `config.json` twice"),
        ("bad_virtual.h5", "is a virtual dataset, which is not read"),
        ("bad_zip_bomb.keras", "but at most"),
    ];
    let files = corpus("keras");
    assert_eq!(files.iter().filter(|(n, _)| bad(n)).count(), expected.len());
    for (name, bytes) in files {
        let opened = Model::from_bytes(&bytes, &Device::Cpu);
        match expected.iter().find(|(n, _)| *n == name) {
            Some((_, words)) => {
                let e = opened.unwrap_err().to_string();
                assert!(e.contains(words), "{name}: {e}");
            }
            None => assert!(opened.is_ok(), "{name}: {}", opened.unwrap_err()),
        }
    }
}

/// A random number generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers at which behaviour may change, as text and as bytes.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "2",
    "255",
    "65536",
    "16777217",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "1e999",
];
const WORDS: [&str; 14] =
    ["[", "]", "{", "}", "(", ")", ",", "\"", "'", "null", "true", "\\u0000", "\u{1b}", "layers.0.weight"];

/// Changes a few places of `bytes`; some of the inserted pieces come from `other`.
fn change(bytes: &mut Vec<u8>, other: &[u8], r: &mut Random) {
    for _ in 0..1 + r.below(4) {
        let at = r.below(bytes.len());
        let len = (1 + r.below(16)).min(bytes.len() - at);
        match r.below(8) {
            0 if len > 0 => bytes[at] ^= 1 << r.below(8),
            1 if len > 0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][r.below(5)],
            2 => drop(bytes.drain(at..at + len)),
            3 => {
                let piece = bytes[at..at + len].repeat(1 + r.below(40));
                drop(bytes.splice(at..at, piece));
            }
            4 => {
                let from = r.below(other.len());
                let piece = other[from..].iter().take(1 + r.below(64)).copied();
                drop(bytes.splice(at..at + len, piece.collect::<Vec<_>>()));
            }
            5 => {
                let n: i128 = NUMBERS[r.below(11)].parse().unwrap();
                let width = [1, 2, 4, 8][r.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&n.to_le_bytes()[..width]);
            }
            6 => {
                // Inserts a number into a text, replacing a number if there is one.
                let digits = |b: &u8| b.is_ascii_digit();
                let begin = (0..bytes.len()).map(|n| (at + n) % bytes.len()).find(|&n| digits(&bytes[n]));
                let begin = begin.unwrap_or(at);
                let end = begin + bytes[begin..].iter().take_while(|b| digits(b)).count();
                drop(bytes.splice(begin..end, NUMBERS[r.below(12)].bytes()));
            }
            _ => drop(bytes.splice(at..at, WORDS[r.below(14)].bytes().cycle().take(1 + r.below(30)))),
        }
    }
}

/// No changed file makes a reader panic, and error messages are short. `RECURVE_FUZZ_RUNS` sets the number of tries.
fn changed(reader: &str, read: fn(&[u8])) {
    let runs = std::env::var("RECURVE_FUZZ_RUNS").map_or(3000, |n| n.parse().expect("RECURVE_FUZZ_RUNS is a number"));
    let files = corpus(reader);
    for (name, bytes) in &files {
        assert!(catch_unwind(AssertUnwindSafe(|| read(bytes))).is_ok(), "{reader}, {name}");
    }
    let mut longest = Duration::ZERO;
    for n in 0..runs {
        let mut r = Random(n);
        let mut bytes = files[r.below(files.len())].1.clone();
        change(&mut bytes, &files[r.below(files.len())].1, &mut r);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
        longest = longest.max(start.elapsed());
        assert!(outcome.is_ok(), "{reader}, change {n}: {:?}", String::from_utf8_lossy(&bytes));
    }
    println!("{reader}: {runs} changes, the longest took {longest:?}");
}

#[test]
fn changed_pytorch() {
    changed("pytorch", readers::pytorch);
}

#[test]
fn changed_npy() {
    changed("npy", readers::npy);
}

#[test]
fn changed_npz() {
    changed("npz", readers::npz);
}

#[test]
fn changed_model() {
    changed("model", readers::model);
}

/// Keras files: HDF5 and zip archives, with bombs, cycles, links to other files and deep descriptions.
#[test]
fn changed_keras() {
    changed("keras", readers::keras);
}

#[test]
fn changed_onnx() {
    changed("onnx", readers::onnx);
}

#[test]
fn changed_text() {
    changed("text", readers::text);
}
