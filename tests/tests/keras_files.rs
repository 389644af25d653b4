//! Keras files: models that Keras 3 saved and files as Keras 1 and 2 wrote them, with Keras's own results; what is
//! refused; the reader of HDF5 against another one.

use recurve::testing::{Tolerance, compare, cross_check};
use recurve::{Device, Error, HostArray, HostData, LayerConfig, LayerProblem, Model, read_array};
use recurve_tests::{devices, fixtures};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest error allowed: f32 sums of a few hundred terms on both sides.
const BOUND: f64 = 2e-5;

fn array(name: &str) -> HostArray {
    read_array(&fixtures().join("keras_files.npz"), name).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    let HostData::Int(v) = array(name).data else { panic!("{name}") };
    v.into_iter().map(|v| u8::try_from(v).unwrap()).collect()
}

fn index() -> Value {
    serde_json::from_slice(&bytes("index")).unwrap()
}

/// All files, in a folder.
fn unpacked() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in index()["files"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        std::fs::write(dir.path().join(name), bytes(&format!("file/{name}"))).unwrap();
    }
    dir
}

/// The inputs and outputs of a case.
struct Case {
    name: String,
    inputs: Vec<(String, HostArray)>,
    outputs: Vec<HostArray>,
    params: Option<usize>,
}

fn case(name: &str) -> Case {
    let about = &index()["cases"][name];
    let inputs = about["inputs"].as_array().unwrap().iter().map(|i| i.as_str().unwrap().to_owned());
    let inputs = inputs.map(|i| (i.clone(), array(&format!("{name}/in/{i}")))).collect();
    let outputs = (0..about["outputs"].as_u64().unwrap()).map(|n| array(&format!("{name}/out/{n}"))).collect();
    Case { name: name.into(), inputs, outputs, params: about["params"].as_u64().map(|n| n as usize) }
}

/// Runs a model, and says how far it is from Keras. `Err` if a shape or a number is wrong.
fn against_keras(model: &Model, case: &Case) -> Result<f64, String> {
    let inputs = case.inputs.iter().map(|(n, x)| (n.as_str(), x.clone()));
    let got = model.run_all(inputs).map_err(|e| e.to_string())?;
    if case.name == "stateful" {
        // The second call goes on where the first ended.
        let again = model.run_all(case.inputs.iter().map(|(n, x)| (n.as_str(), x.clone()))).unwrap();
        model.network().reset_states();
        return agree(&[got, again].concat(), case);
    }
    agree(&got, case)
}

fn agree(got: &[(String, recurve::Tensor)], case: &Case) -> Result<f64, String> {
    if got.len() != case.outputs.len() {
        return Err(format!("{} outputs, but {} are needed", got.len(), case.outputs.len()));
    }
    let mut worst = 0.0f64;
    for ((name, got), want) in got.iter().zip(&case.outputs) {
        if got.dims() != want.shape {
            return Err(format!("{name} has the shape {:?}, but {:?} is needed", got.dims(), want.shape));
        }
        let same = compare(&got.to_vec().unwrap(), &want.to_f64(), Tolerance::new(BOUND));
        worst = worst.max(same.map_err(|e| format!("{name}: {e}"))?.worst_error);
    }
    Ok(worst)
}

/// The files of a case that describe it.
fn files(dir: &Path, name: &str) -> Vec<PathBuf> {
    let ends = if name == "cudnn_apart" { &["json"][..] } else { &["keras", "h5", "json"] };
    ends.iter().map(|e| dir.join(format!("{name}.{e}"))).filter(|p| p.is_file()).collect()
}

fn open(path: &Path) -> Model {
    let weights = path.with_extension("weights.h5");
    let model = if path.extension().is_some_and(|e| e == "json") && weights.is_file() {
        Model::open_keras(path, &weights, &Device::Cpu)
    } else {
        Model::open(path, &Device::Cpu)
    };
    model.unwrap_or_else(|e| panic!("{e}"))
}

fn cases() -> Vec<String> {
    index()["cases"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_file_gives_what_keras_gives() {
    let dir = unpacked();
    let mut count = 0;
    for name in cases() {
        let case = case(&name);
        for path in files(dir.path(), &name) {
            let model = open(&path);
            for device in devices() {
                let here = model.to_device(&device).unwrap();
                let worst =
                    against_keras(&here, &case).unwrap_or_else(|e| panic!("{} on {device}: {e}", path.display()));
                println!("{} on {device}: {worst:.1e}", path.file_name().unwrap().display());
            }
            if let Some(params) = case.params {
                assert_eq!(model.summary().total_params, params, "{}", path.display());
            }
            count += 1;
        }
    }
    assert_eq!(count, 29);
}

/// A file that is only converted is the one that its model would write.
#[test]
fn files_are_converted_without_a_network() {
    let dir = unpacked();
    let mut count = 0;
    for path in cases().iter().flat_map(|name| files(dir.path(), name)) {
        if path.extension().is_none_or(|e| e == "json") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        assert!(Model::is_keras(&bytes[..64]));
        let model = Model::from_bytes(&bytes, &Device::Cpu).unwrap();
        let (native, notes) = Model::keras_to_native(bytes).unwrap();
        assert!(!Model::is_keras(&native));
        assert_eq!(notes, model.notes(), "{}", path.display());
        let want = model.to_bytes().unwrap();
        // The description and the tensors; the order of the header's keys is open.
        assert_eq!(native.len(), want.len(), "{}", path.display());
        let again = Model::from_bytes(&native, &Device::Cpu).unwrap();
        assert_eq!(again.info(), model.info(), "{}", path.display());
        for (name, w) in model.network().weights().iter() {
            let own = again.network().weights().expect(name, w.shape()).unwrap();
            assert_eq!(own.bytes(), w.bytes(), "{name} of {}", path.display());
        }
        assert_eq!(again.network().weights().count(), model.network().weights().count());
        count += 1;
    }
    assert_eq!(count, 26);
    let refused = |bytes: &[u8]| Model::keras_to_native(bytes.to_vec()).unwrap_err();
    assert!(matches!(refused(b""), Error::NoKeras { .. }));
    let native = include_bytes!("../../models/stars.safetensors");
    assert!(matches!(refused(native), Error::NoKeras { .. }));
    // A damaged file is refused as by `from_bytes`.
    let whole = include_bytes!("../fixtures/mixed_before.keras");
    let half = &whole[..whole.len() / 2];
    assert_eq!(refused(half).to_string(), Model::from_bytes(half, &Device::Cpu).unwrap_err().to_string());
}

/// Each layer on each device against the f64 reference, which is computed from the descriptions.
#[test]
fn every_layer_agrees_with_the_reference() {
    let dir = unpacked();
    for name in cases().iter().filter(|n| *n != "stateful") {
        let path = files(dir.path(), name).swap_remove(0);
        let model = open(&path);
        let inputs = case(name).inputs;
        let inputs: Vec<_> = inputs.iter().map(|(n, x)| (n.as_str(), x.clone())).collect();
        let report =
            cross_check(&model, &inputs, &devices(), Tolerance::new(BOUND)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.passed(), "{name}: {report}");
    }
}

/// The comparison notices a wrong weight, a wrong gate order, and each function that a version had otherwise.
#[test]
fn wrong_readings_are_noticed() {
    let dir = unpacked();
    let open = |name: &str| Model::open(dir.path().join(name), &Device::Cpu).unwrap();
    for (file, weight) in [("tagger.keras", "layers.1.weight_hh_l0_reverse"), ("keras1.h5", "layers.1.bias_ih_l0")] {
        let case = case(file.split('.').next().unwrap());
        let mut model = open(file);
        assert!(against_keras(&model, &case).is_ok());
        let own = model.network().weights().get(weight).unwrap().clone();
        let mut data = own.to_vec().unwrap().to_vec();
        data.rotate_right(1);
        model.network_mut().set_weight(weight, own.shape(), data).unwrap();
        assert!(against_keras(&model, &case).is_err(), "{file}, {weight}");
    }
    // Another version reads the same names otherwise: hard_sigmoid, and what a mask does in Bidirectional.
    for (name, before, after) in
        [("keras2", "2.2.2", "3.2.2"), ("tf23", "2.4.0", "2.0.0"), ("keras1", "theano", "thean0")]
    {
        let mut file = bytes(&format!("file/{name}.h5"));
        let places: Vec<usize> =
            file.windows(before.len()).enumerate().filter(|(_, w)| *w == before.as_bytes()).map(|(n, _)| n).collect();
        assert!(places.len() > 1, "{name}");
        places.into_iter().for_each(|at| file[at..at + before.len()].copy_from_slice(after.as_bytes()));
        // The first has a GRU whose bias does not fit the default of the other version.
        match Model::from_bytes(&file, &Device::Cpu) {
            Ok(model) => assert!(name != "keras2" && against_keras(&model, &case(name)).is_err(), "{name}"),
            Err(e) => assert!(name == "keras2" && e.to_string().contains("bias of the shape [9]"), "{name}: {e}"),
        }
    }
}

#[test]
fn layers_keep_their_names() {
    let dir = unpacked();
    let open = |name: &str| Model::open(dir.path().join(name), &Device::Cpu).unwrap();
    let tagger = open("tagger.keras");
    assert_eq!(tagger.info().name, "tagger");
    assert_eq!(tagger.info().source.as_deref(), Some("Keras 3.15.1"));
    let lines = tagger.summary().to_string();
    for line in [
        "Model: \"tagger\"",
        " embedding (Embedding)            (None, None, 4)         32",
        " bidirectional (Bidirectional)    (None, None, 6)         192",
        " spatial_dropout1d (SpatialDropout1D)",
        " gru (GRU)",
        " dense (Dense)",
        " dense/activation (Activation)",
    ] {
        let squeezed = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&lines).contains(&squeezed(line)), "{line}\n{lines}");
    }
    let nested = open("nested.h5");
    let names: Vec<&str> = nested.info().network.layers.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        names,
        ["both", "inner/d", "inner/g", "stack", "each", "each/activation", "bn", "shared", "ends", "joined", "last"]
    );
    let outputs: Vec<&str> = nested.info().network.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["joined", "last"]);
    assert_eq!(nested.info().network.layers[7].calls.len(), 2, "a shared layer");
    let siamese = open("siamese.keras");
    let names: Vec<&str> = siamese.info().network.layers.iter().map(|l| l.name.as_str()).collect();
    assert!(names[0].starts_with("twice/steps/dense"), "{names:?}");
    let mixed = open("mixed.keras");
    assert_eq!(mixed.notes(), ["layers of the type `mixed_float16` are computed in float32"]);
    assert!(tagger.notes().is_empty());
}

#[test]
fn weights_are_found_beside_a_description() {
    let dir = unpacked();
    let (json, weights) = (dir.path().join("tagger.json"), dir.path().join("tagger.weights.h5"));
    let case = case("tagger");
    // Both `tagger.weights.h5` and `tagger.h5` have weights for `tagger.json`.
    let e = Model::open(&json, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("more than one of `tagger.weights.h5`, `tagger.h5`"), "{e}");
    for from in ["tagger.weights.h5", "tagger.h5", "tagger.keras"] {
        let model = Model::open_keras(&json, dir.path().join(from), &Device::Cpu).unwrap();
        against_keras(&model, &case).unwrap();
    }
    std::fs::remove_file(dir.path().join("tagger.h5")).unwrap();
    against_keras(&Model::open(&json, &Device::Cpu).unwrap(), &case).unwrap();
    let e = Model::open(&weights, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("has weights but no description"), "{e}");
    std::fs::remove_file(&weights).unwrap();
    let e = Model::open(&json, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("none of `tagger.weights.h5`"), "{e}");
    let e = Model::open_keras(&json, &weights, &Device::Cpu).unwrap_err();
    assert!(matches!(e, Error::Io { .. }), "{e}");
    // A folder with the files of an archive is one too.
    let folder = dir.path().join("unpacked");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.json"), bytes("file/tagger.json")).unwrap();
    std::fs::write(folder.join("model.weights.h5"), bytes("file/tagger.weights.h5")).unwrap();
    against_keras(&Model::open(&folder, &Device::Cpu).unwrap(), &case).unwrap();
    // Weights of another model.
    let other = dir.path().join("nested.weights.h5");
    let problems = refused(&dir.path().join("tagger.json"), &other);
    assert!(problems.iter().any(|p| p.layer == "embedding" && p.message.contains("is missing")), "{problems:?}");
}

/// What is refused of a description.
fn refused(config: &Path, weights: &Path) -> Vec<LayerProblem> {
    match Model::open_keras(config, weights, &Device::Cpu) {
        Err(Error::Keras { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

/// The problems of a changed description of `tagger`.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<LayerProblem> {
    let dir = tempfile::tempdir().unwrap();
    let mut config: Value = serde_json::from_slice(&bytes("file/tagger.json")).unwrap();
    change(&mut config);
    let (json, weights) = (dir.path().join("t.json"), dir.path().join("t.weights.h5"));
    std::fs::write(&json, config.to_string()).unwrap();
    std::fs::write(&weights, bytes("file/tagger.weights.h5")).unwrap();
    refused(&json, &weights)
}

/// Training draws in the dimensions that a file says.
#[test]
fn the_noise_shape_of_a_dropout_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (json, weights) = (dir.path().join("t.json"), dir.path().join("t.weights.h5"));
    std::fs::write(&weights, bytes("file/tagger.weights.h5")).unwrap();
    let read = |noise_shape: Value| {
        let mut config: Value = serde_json::from_slice(&bytes("file/tagger.json")).unwrap();
        layer(&mut config, "Dropout")["config"]["noise_shape"] = noise_shape;
        std::fs::write(&json, config.to_string()).unwrap();
        let model = Model::open_keras(&json, &weights, &Device::Cpu).unwrap();
        let found = model.network().layers().find_map(|l| match l {
            LayerConfig::Dropout(d) => Some(d.noise_shape.clone()),
            _ => None,
        });
        found.expect("a Dropout")
    };
    assert_eq!(read(json!(null)), None);
    assert_eq!(read(json!([null, 1, null])), Some(vec![None, Some(1), None]));
    for bad in [json!([null, 0, null]), json!("three"), json!([1.5])] {
        let problems = changed(|c| layer(c, "Dropout")["config"]["noise_shape"] = bad);
        assert!(problems.iter().any(|p| p.message.contains("`noise_shape` must be")), "{problems:?}");
    }
}

/// The layer of `tagger` with this class.
fn layer<'a>(config: &'a mut Value, class: &str) -> &'a mut Value {
    let layers = config["config"]["layers"].as_array_mut().unwrap();
    layers.iter_mut().find(|l| l["class_name"] == class).unwrap()
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let one = |change: fn(&mut Value), layer: &str, words: &str| {
        let problems = changed(change);
        let found = problems.iter().any(|p| p.layer == layer && p.message.contains(words));
        assert!(found && problems.len() == 1, "{words}: {problems:?}");
    };
    one(|c| layer(c, "GRU")["config"]["units"] = json!("four"), "gru", "`units` must be a whole number");
    one(|c| layer(c, "GRU")["config"]["clip"] = json!(1.5), "gru", "`clip` = 1.5 is not supported");
    one(|c| layer(c, "GRU")["config"]["activation"] = json!("rotor"), "gru", "the function `rotor`");
    one(|c| layer(c, "GRU")["config"]["activation"] = json!("softmax"), "gru", "which recurrent layers do not have");
    one(
        |c| layer(c, "Dense")["config"]["activation"] = json!({"class_name": "Own>F", "config": {}}),
        "dense",
        "`Own>F`",
    );
    one(
        |c| layer(c, "Bidirectional")["config"]["merge_mode"] = json!("max"),
        "bidirectional",
        "`merge_mode` = \"max\"",
    );
    one(|c| layer(c, "Dropout")["class_name"] = json!("Lambda"), "dropout", "code of its own");
    one(
        |c| layer(c, "Dropout")["class_name"] = json!("MultiHeadAttention"),
        "dropout",
        "`MultiHeadAttention` is not supported",
    );
    one(|c| layer(c, "Dropout")["registered_name"] = json!("my>Drop"), "dropout", "somebody's own code");
    one(|c| layer(c, "Dropout")["module"] = json!("keras.src.ops.numpy"), "dropout", "is the operation");
    one(
        |c| layer(c, "Dense")["config"]["dtype"] = json!({"config": {"name": "int8_from_float32"}}),
        "dense",
        "quantized",
    );
    one(|c| c["class_name"] = json!("Own"), "model", "no Sequential or functional model");
    one(|c| layer(c, "InputLayer")["config"]["batch_shape"] = json!(null), "", "no input shape");
    one(|c| layer(c, "GRU")["config"]["reset_after"] = json!(false), "gru", "bias of the shape [2, 12]");
    one(
        |c| layer(c, "GRU")["config"]["use_bias"] = json!(false),
        "gru",
        "has 3 variables in the file, but 2 are known",
    );
    // All at once.
    let problems = changed(|c| {
        layer(c, "Dropout")["class_name"] = json!("Lambda");
        layer(c, "GRU")["config"]["clip"] = json!(1.5);
        layer(c, "Embedding")["config"]["hashed"] = json!(true);
        layer(c, "Dense")["config"]["activation"] = json!("rotor");
    });
    let layers: Vec<&str> = problems.iter().map(|p| p.layer.as_str()).collect();
    assert_eq!(layers, ["embedding", "gru", "dropout", "dense"], "{problems:?}");
    let shown = Error::Keras { path: "m.keras".into(), problems }.to_string();
    assert!(shown.contains("m.keras: this Keras file cannot be run: layer `embedding` (Embedding): `hashed` = true"));
}

/// How layers are called.
#[test]
fn calls_that_are_not_supported_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (json, weights) = (dir.path().join("n.json"), dir.path().join("n.weights.h5"));
    std::fs::write(&weights, bytes("file/nested.weights.h5")).unwrap();
    let changed = |change: fn(&mut Value)| {
        let mut config: Value = serde_json::from_slice(&bytes("file/nested.json")).unwrap();
        change(config["config"]["layers"].as_array_mut().unwrap().iter_mut().find(|l| l["name"] == "ends").unwrap());
        std::fs::write(&json, config.to_string()).unwrap();
        let problems = refused(&json, &weights);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    };
    let call = "/inbound_nodes/0";
    let e = changed(|l| l.pointer_mut("/inbound_nodes/0/kwargs").unwrap()["training"] = json!(true));
    assert!(e.contains("layer `ends` (GRU): is called with `training`"), "{call}: {e}");
    let e = changed(|l| l.pointer_mut("/inbound_nodes/0/args").unwrap()[0] = json!(2.0));
    assert!(e.contains("layer `ends` (GRU): is called with a constant"), "{e}");
    let e = changed(|l| {
        *l.pointer_mut("/inbound_nodes/0/args/0/config/keras_history").unwrap() = json!(["nowhere", 0, 0]);
    });
    assert!(e.contains("layer `ends` (GRU): is called with values that are not there"), "{e}");
}

/// Keras 3 writes masks as operations outside of layers. A mask that is not the one which layers find is refused.
#[test]
fn masks_of_ones_own_are_refused() {
    let dir = unpacked();
    let e = Model::open(dir.path().join("refused.keras"), &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("layer `late` (LSTM): gets initial states and a masked input"), "{e}");
    // The ids are compared with another number than the embedding compares them.
    let (name, config) = ("masks.keras", "config.json");
    let file = bytes(&format!("file/{name}"));
    let at = |what: &[u8], from: usize| from + file[from..].windows(what.len()).position(|w| w == what).unwrap();
    let begin = at(b"{\"module\"", at(config.as_bytes(), 0));
    let call = at(b"]}}, 0]", begin);
    let mut other = file.clone();
    other[call + 5] = b'1';
    let e = Model::from_bytes(&other, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("checksum") || e.contains("CRC"), "{e}");
    let stated = dir.path().join("masks.json");
    let end = at(b"PK", begin);
    let mut text = file[begin..end].to_vec();
    text[call + 5 - begin] = b'1';
    std::fs::write(&stated, text).unwrap();
    let problems = refused(&stated, &dir.path().join(name));
    assert!(problems.iter().all(|p| p.message.contains("is called with a mask of its own")), "{problems:?}");
    assert!(problems.iter().any(|p| p.class == "Bidirectional"), "{problems:?}");
}

/// The reader of HDF5 and an independent one see the same attributes and the same elements.
#[test]
fn two_readers_of_hdf5_agree() {
    let mut seen = 0;
    for name in index()["files"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        if name.ends_with(".h5") {
            seen += same(name, bytes(&format!("file/{name}")));
        }
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/keras");
    for name in ["old.h5", "new.h5", "v108.h5"] {
        seen += same(name, std::fs::read(corpus.join(name)).unwrap());
    }
    assert!(seen > 300, "{seen}");
}

/// Compares all objects of a file, and says how many there are.
fn same(name: &str, bytes: Vec<u8>) -> usize {
    let ours = hdf5_reader::Hdf5File::from_bytes(&bytes).unwrap();
    let theirs = hdf5_pure::File::from_bytes(bytes).unwrap();
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    walk(&ours.root_group().unwrap(), "", &mut a);
    walk_other(&theirs.root(), "", &mut b);
    assert_eq!(a, b, "{name}");
    a.len()
}

fn walk(group: &hdf5_reader::group::Group, path: &str, into: &mut BTreeMap<String, String>) {
    for a in group.attributes().unwrap() {
        if a.num_elements().unwrap() > 0 {
            into.insert(format!("{path}@{}", a.name), format!("{:?}", a.read_strings().unwrap()));
        }
    }
    let (groups, datasets) = group.member_names().unwrap();
    for name in datasets {
        let d = group.dataset(&name).unwrap();
        let elements: Vec<f32> = d.read_array().unwrap().iter().copied().collect();
        into.insert(format!("{path}/{name}"), format!("{:?} {elements:?}", d.shape()));
    }
    groups.iter().for_each(|n| walk(&group.group(n).unwrap(), &format!("{path}/{n}"), into));
}

fn walk_other(group: &hdf5_pure::Group, path: &str, into: &mut BTreeMap<String, String>) {
    for (name, a) in group.attrs().unwrap() {
        let texts = a
            .as_str()
            .map(|s| vec![s.to_owned()])
            .or_else(|| a.as_strings().map(|s| s.iter().map(ToString::to_string).collect()));
        if let Some(texts) = texts {
            into.insert(format!("{path}@{name}"), format!("{texts:?}"));
        }
    }
    for name in group.datasets().unwrap() {
        let d = group.dataset(&name).unwrap();
        into.insert(format!("{path}/{name}"), format!("{:?} {:?}", d.shape().unwrap(), d.read_f32().unwrap()));
    }
    for name in group.groups().unwrap() {
        walk_other(&group.group(&name).unwrap(), &format!("{path}/{name}"), into);
    }
}
