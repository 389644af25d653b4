//! Weights in safetensors files: where their elements are stored, and errors with the name of the tensor.

use recurve::{
    Device, Initializer, LayerError, Lstm, Model, Network, Sequential, Tensor, WeightError, WeightFile, WeightStorage,
    WeightType, Weights,
};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// A file of this header and these bytes.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn tensor(dtype: &str, shape: Value, begin: usize, end: usize) -> Value {
    json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] })
}

/// 1, -2, 3 in each type, and one weight without elements; floats start at a multiple of four bytes.
fn good() -> Vec<u8> {
    let floats = [1.0f32, -2.0, 3.0];
    let mut data: Vec<u8> = floats.iter().flat_map(|v| v.to_le_bytes()).collect();
    data.extend(floats.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()));
    data.extend(floats.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()));
    let header = json!({
        "a.full": tensor("F32", json!([3]), 0, 12),
        "a.half": tensor("F16", json!([3, 1]), 12, 18),
        "b.brain": tensor("BF16", json!([1, 3]), 18, 24),
        "b.none": tensor("F32", json!([0, 7]), 24, 24),
        "__metadata__": { "format": "pt" },
    });
    let mut header = header.to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    file(&header, &data)
}

#[test]
fn elements_are_borrowed_from_the_file_or_converted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    std::fs::write(&path, good()).unwrap();
    let types = [("a.full", WeightType::F32), ("a.half", WeightType::F16), ("b.brain", WeightType::Bf16)];
    for (mapped, weights) in [(true, Weights::open(&path).unwrap()), (false, Weights::from_bytes(good()).unwrap())] {
        assert_eq!(weights.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["a.full", "a.half", "b.brain", "b.none"]);
        for (name, dtype) in types {
            let w = weights.require(name).unwrap();
            assert_eq!((w.dtype(), w.count()), (dtype, 3), "{name}");
            for _ in 0..2 {
                // Pages that were given back are read again.
                assert_eq!(w.values().unwrap()[..], [1.0, -2.0, 3.0], "{name}");
                assert_eq!(w.to_vec().unwrap(), [1.0, -2.0, 3.0], "{name}");
                w.give_back();
            }
            if cfg!(unix) {
                assert_eq!(w.is_mapped(), mapped);
            }
        }
        assert_eq!(weights.expect("a.half", &[3, 1]).unwrap().shape(), [3, 1]);
        assert!(matches!(weights.expect("a.half", &[3]), Err(LayerError::WeightShape { .. })));
        assert_eq!(weights.require("b.none").unwrap().to_vec().unwrap(), [0.0; 0]);
        let under = weights.under("b");
        assert_eq!(under.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["brain", "none"]);
    }
    let full = Weights::open(&path).unwrap().require("a.full").unwrap().clone();
    assert_eq!(matches!(full.values().unwrap(), Cow::Borrowed(_)), cfg!(target_endian = "little"));
    let halves = Weights::open(&path).unwrap().require("a.half").unwrap().clone();
    assert!(matches!(halves.values().unwrap(), Cow::Owned(_)));
    let file = WeightFile::open(&path).unwrap();
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!((file.shape("b.brain"), file.names().len()), (Some(&[1, 3][..]), 4));
    assert!(file.weight("nobody").unwrap().is_none());
}

/// A weight stays valid while it is used, also after its file was renamed or deleted.
#[test]
fn weights_outlive_the_name_of_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    std::fs::write(&path, good()).unwrap();
    let w = Weights::open(&path).unwrap().require("a.full").unwrap().clone();
    if cfg!(unix) {
        std::fs::write(dir.path().join("new"), good().iter().map(|_| 0).collect::<Vec<u8>>()).unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        w.give_back();
    }
    assert_eq!(w.to_vec().unwrap(), [1.0, -2.0, 3.0]);
}

/// The error of opening these bytes, from memory and from a file.
fn refused(bytes: &[u8]) -> WeightError {
    let of = |r: Result<Weights, LayerError>| match r.unwrap_err() {
        LayerError::File(e) => e,
        e => panic!("{e}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let (memory, disk) = (of(Weights::from_bytes(bytes.to_vec())), of(Weights::open(&path)));
    let same = |e: &WeightError, place: &str| e.to_string().replace(place, "");
    assert_eq!(same(&memory, "bytes in memory"), same(&disk, path.to_str().unwrap()));
    assert_ne!(memory, disk, "each names its file");
    disk
}

#[test]
fn every_other_type_is_refused_with_the_name_of_its_tensor() {
    for (dtype, size) in [("F8_E5M2", 1), ("F8_E4M3", 1), ("C64", 8), ("F32X", 4), ("f32", 4)] {
        let header =
            json!({ "fine": tensor("F32", json!([]), 0, 4), "odd": tensor(dtype, json!([2]), 4, 4 + 2 * size) });
        let e = refused(&file(&header.to_string(), &vec![0; 4 + 2 * size]));
        assert!(matches!(&e, WeightError::DType { name, got, .. } if name == "odd" && got == dtype), "{dtype}: {e}");
    }
}

/// Whole numbers, truth values and F64 become f32 (`crates/weights` tests the values).
#[test]
fn other_types_of_numbers_are_read() {
    for (dtype, two) in [
        ("BOOL", vec![0, 1]),
        ("U8", vec![0, 1]),
        ("I8", vec![0, 1]),
        ("I16", vec![0, 0, 1, 0]),
        ("U16", vec![0, 0, 1, 0]),
        ("I32", vec![0, 0, 0, 0, 1, 0, 0, 0]),
        ("U32", vec![0, 0, 0, 0, 1, 0, 0, 0]),
        ("I64", [0i64, 1].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("U64", [0u64, 1].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("F64", [0f64, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect()),
    ] {
        let header = json!({ "w": tensor(dtype, json!([2]), 0, two.len()) });
        let weights = Weights::from_bytes(file(&header.to_string(), &two)).unwrap();
        assert_eq!(weights.require("w").unwrap().to_vec().unwrap(), [0.0, 1.0], "{dtype}");
    }
}

#[test]
fn tensors_that_cannot_be_are_refused_by_name() {
    let f32s = |shape, begin, end| tensor("F32", shape, begin, end);
    let most = usize::MAX;
    let cases: [(&str, Value, &str); 13] = [
        ("overlap", f32s(json!([2]), 4, 12), "within the tensor before it"),
        ("the same bytes", f32s(json!([2]), 0, 8), "within the tensor before it"),
        ("gap", f32s(json!([2]), 12, 20), "ends at 8"),
        ("beyond the end", f32s(json!([7]), 8, 36), "only 24 follow"),
        ("far beyond the end", f32s(json!([most / 4]), 8, most), "only 24 follow"),
        ("backwards", f32s(json!([2]), 8, 4), "before it begins"),
        ("too many bytes", f32s(json!([1]), 8, 24), "not the size of shape"),
        ("too few bytes", f32s(json!([5]), 8, 24), "not the size of shape"),
        ("overflow of elements", f32s(json!([most, most]), 8, 24), "overflows"),
        ("overflow of bytes", f32s(json!([most / 2]), 8, 24), "overflows"),
        ("nine dimensions", f32s(json!([1, 1, 1, 1, 1, 1, 1, 1, 4]), 8, 24), "9 dimensions"),
        ("negative", json!({ "dtype": "F32", "shape": [-1], "data_offsets": [8, 24] }), "invalid value"),
        ("without a shape", json!({ "dtype": "F32", "data_offsets": [8, 24] }), "missing field"),
    ];
    for (what, bad, said) in cases {
        let header = json!({ "first": f32s(json!([2]), 0, 8), "second": bad });
        let e = refused(&file(&header.to_string(), &[0; 24]));
        let named = matches!(&e, WeightError::Tensor { name, .. } if name == "second");
        assert!(named && e.to_string().contains(said), "{what}: {e}");
    }
}

#[test]
fn a_name_is_there_once() {
    let one = tensor("F32", json!([1]), 0, 4);
    for (name, header) in [
        ("w", format!(r#"{{"w":{one},"v":{},"w":{one}}}"#, tensor("F32", json!([1]), 4, 8))),
        ("k", format!(r#"{{"__metadata__":{{"k":"1","l":"2","k":"1"}},"w":{one}}}"#)),
        ("__metadata__", format!(r#"{{"__metadata__":{{}},"w":{one},"__metadata__":{{}}}}"#)),
    ] {
        let e = refused(&file(&header, &[0; 8]));
        assert!(matches!(&e, WeightError::Twice { name: n, .. } if n == name), "{name}: {e}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let good = good();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for len in 0..good.len() {
        let e = refused(&good[..len]);
        match e {
            WeightError::Damaged { .. } => assert!(len < header, "{len} bytes: {e}"),
            WeightError::Tensor { .. } => assert!(len >= header, "{len} bytes: {e}"),
            _ => panic!("{len} bytes: {e}"),
        }
    }
    for header in ["", "[]", "{", "{}}", "1", r#"{"__metadata__":{"k":1}}"#, r#"{"__metadata__":[]}"#] {
        let e = refused(&file(header, &[]));
        assert!(matches!(e, WeightError::Damaged { .. }), "{header}: {e}");
    }
    let mut text = good.clone();
    text[10] = 0xff;
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let more = [&good[..], &[0]].concat();
    let long = json!({ "n".repeat(257): tensor("F32", json!([]), 0, 4) }).to_string();
    for bytes in [text, huge, more, file("{}", &[0; 4]), file(&long, &[0; 4])] {
        let e = refused(&bytes);
        assert!(matches!(e, WeightError::Damaged { .. }), "{e}");
    }
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("none"), dir.path().to_owned()] {
        assert!(matches!(WeightFile::open(&path), Err(WeightError::Io { path: p, .. }) if p == path));
    }
    assert!(Weights::from_bytes(file("{}", &[])).unwrap().iter().next().is_none());
}

/// A weight of another type than F32, as the bytes of a file.
fn narrow(weights: &Weights, dtype: &str) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, w) in weights.iter() {
        let begin = data.len();
        for &v in w.values().unwrap().iter() {
            data.extend(match dtype {
                "F16" => half::f16::from_f32(v).to_le_bytes(),
                _ => half::bf16::from_f32(v).to_le_bytes(),
            });
        }
        header.insert(name.to_owned(), tensor(dtype, json!(w.shape()), begin, data.len()));
    }
    file(&Value::Object(header).to_string(), &data)
}

/// The memory that a process takes at most for a model of one large layer is its packed weights and less than a third
/// of its file, of whatever types both are.
#[test]
#[cfg(target_os = "linux")]
fn a_model_takes_little_more_memory_than_its_packed_weights() {
    const MODEL: &str = "RECURVE_TEST_MODEL";
    if let Some(path) = std::env::var_os(MODEL) {
        // Alone in a process, whose peak it is.
        let peak = || -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
        };
        let x = Tensor::from_f32(&[0.1; 1536], &[1, 1, 1536], &Device::Cpu).unwrap();
        let before = peak();
        let model = Model::open(Path::new(&path), &Device::Cpu).unwrap();
        assert!(model.run([("input", &x)]).is_ok());
        println!("grown {}", peak() - before);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let shape = [None, None, Some(1536)];
    // Packed bytes for a byte of the file.
    for (dtype, storage, packed) in [
        ("F32", WeightStorage::F32, 1.0),
        ("F16", WeightStorage::F16, 1.0),
        ("F32", WeightStorage::F16, 0.5),
        ("F32", WeightStorage::Int8, 0.25),
        ("BF16", WeightStorage::F32, 2.0),
    ] {
        let layers = Sequential::new()
            .add(Lstm::new(1536).recurrent_initializer(Initializer::GlorotUniform).weight_storage(storage));
        let mut network = layers.build(&shape, &Device::Cpu).unwrap();
        if dtype != "F32" {
            let weights = Weights::from_bytes(narrow(network.weights(), dtype)).unwrap();
            network = Network::new(network.config(), Arc::new(weights), &Device::Cpu).unwrap();
        }
        Model::new("large", network).save(&path).unwrap();
        let file = std::fs::metadata(&path).unwrap().len() as f64;
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["a_model_takes_little_more_memory_than_its_packed_weights", "--exact", "--nocapture"]);
        let out = command.env(MODEL, &path).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{text}");
        let grown = text.lines().find_map(|l| l.split_once("grown ")).unwrap().1.parse::<f64>().unwrap();
        assert!((0.9 * packed..packed + 0.3).contains(&(grown / file)), "{dtype} as {storage:?}: {}", grown / file);
    }
}
