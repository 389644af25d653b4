//! Files of PyTorch: every tensor as PyTorch reads it, networks that a description assembles, and what is refused.
//! `tests/golden/make_pytorch_files.py` made the files.

use recurve::testing::{Tolerance, compare, cross_check};
use recurve::{
    Device, Error, HostArray, HostData, Input, LayerError, Lstm, Model, WeightError, WeightFile, WeightFormat,
    WeightSummary, WeightType, Weights,
};
use recurve_tests::{devices, fixtures, wide};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Shapes and elements by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn folder() -> PathBuf {
    fixtures().join("pytorch_files")
}

/// The tensors of the good files, by file and name, as PyTorch reads them.
fn expected() -> BTreeMap<String, Tensors> {
    let mut all: BTreeMap<String, Tensors> = BTreeMap::new();
    for (name, w) in Weights::open(folder().join("expected.safetensors")).unwrap().iter() {
        let (file, name) = name.split_once(':').unwrap();
        all.entry(file.into()).or_default().insert(name.into(), (w.shape().to_vec(), w.to_vec().unwrap()));
    }
    let file = WeightFile::open(folder().join("expected.safetensors")).unwrap();
    for other in file.metadata()["as zip.pt"].split(' ') {
        let first = all["zip.pt"].clone();
        all.insert(other.into(), first);
    }
    all
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_tensor_is_what_pytorch_reads() {
    let all = expected();
    let files: Vec<_> = all.keys().filter(|f| *f != "net").collect();
    assert_eq!(files.len(), 24, "{files:?}");
    let mut tensors = 0;
    for file in files {
        let path = folder().join(file);
        let bytes = std::fs::read(&path).unwrap();
        for weights in [Weights::open(&path), Weights::from_bytes(bytes)] {
            let weights = weights.unwrap_or_else(|e| panic!("{file}: {e}"));
            let names: Vec<_> = weights.iter().map(|(n, _)| n).collect();
            assert_eq!(names, all[file].keys().collect::<Vec<_>>(), "{file}");
            for (name, (shape, values)) in &all[file] {
                let w = weights.require(name).unwrap();
                assert_eq!(w.shape(), shape, "{file}, {name}");
                assert_eq!(bits(&w.to_vec().unwrap()), bits(values), "{file}, {name}");
                tensors += 1;
            }
        }
    }
    assert!(tensors > 600, "{tensors}");
}

/// A file whose elements were changed is not what PyTorch wrote, and the comparison sees it.
#[test]
fn the_comparison_sees_a_changed_element() {
    let mut bytes = std::fs::read(folder().join("legacy.pt")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let weights = Weights::from_bytes(bytes).unwrap();
    let all = expected();
    let different =
        all["legacy.pt"].iter().filter(|(n, (_, v))| bits(&weights.require(n).unwrap().to_vec().unwrap()) != bits(v));
    assert_eq!(different.count(), 1);
}

#[test]
fn the_kind_of_a_file_is_told_by_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    for (file, format) in [
        ("zip.pt", WeightFormat::PyTorch),
        ("legacy.pt", WeightFormat::PyTorchLegacy),
        ("legacy_protocol4.pt", WeightFormat::PyTorchLegacy),
        ("lightning.ckpt", WeightFormat::PyTorch),
        ("script.pt", WeightFormat::TorchScript),
        ("trace.jit", WeightFormat::TorchScript),
        ("export.pt2", WeightFormat::PyTorchExport),
        ("export_2_5.pt2", WeightFormat::PyTorchExport),
        ("expected.safetensors", WeightFormat::Safetensors),
    ] {
        let path = dir.path().join("weights.onnx");
        std::fs::copy(folder().join(file), &path).unwrap();
        assert_eq!(WeightFile::open(&path).unwrap().format(), format, "{file}");
    }
}

#[test]
fn types_are_named_and_kept() {
    for file in ["types.pt", "legacy_types.pt"] {
        let file = WeightFile::open(folder().join(file)).unwrap();
        let weight = |name| file.weight(name).unwrap().unwrap();
        for (name, dtype) in [
            ("float16", WeightType::F16),
            ("bfloat16", WeightType::Bf16),
            ("float32", WeightType::F32),
            ("float64", WeightType::F64),
            ("int8", WeightType::I8),
            ("int16", WeightType::I16),
            ("int32", WeightType::I32),
            ("int64", WeightType::I64),
            ("uint8", WeightType::U8),
            ("uint16", WeightType::U16),
            ("uint32", WeightType::U32),
            ("uint64", WeightType::U64),
            ("bool", WeightType::Bool),
        ] {
            assert_eq!((weight(name).dtype(), file.dtype(name)), (dtype, Some(dtype.name())), "{name}");
        }
    }
    // Types that weights do not have are listed, and refused where they are asked for.
    let file = WeightFile::open(folder().join("other_types.pt")).unwrap();
    assert_eq!(file.weight("fine").unwrap().unwrap().to_vec().unwrap(), [1.0, 1.0]);
    for (name, dtype) in [("complex", "ComplexFloat"), ("small", "float8_e4m3fn")] {
        assert_eq!(file.dtype(name), Some(dtype));
        let e = file.weight(name).unwrap_err();
        assert!(matches!(&e, WeightError::DType { name: n, got, .. } if n == name && got == dtype), "{e}");
    }
}

/// Tensors whose elements follow each other are used where they are in the file.
#[test]
fn stored_tensors_are_mapped() {
    for (file, mapped) in [("zip.pt", true), ("legacy.pt", true), ("export.pt2", true), ("deflated.pt", false)] {
        let weights = Weights::open(folder().join(file)).unwrap();
        assert!(weights.iter().all(|(_, w)| w.is_mapped() == (mapped && cfg!(unix))), "{file}");
    }
    let views = Weights::open(folder().join("views.pt")).unwrap();
    for (name, mapped) in [("base", true), ("middle", true), ("parameter", true), ("transposed", false)] {
        assert_eq!(views.require(name).unwrap().is_mapped(), mapped && cfg!(unix), "{name}");
    }
}

#[test]
fn tied_tensors_are_known() {
    let file = WeightFile::open(folder().join("mixed.pt")).unwrap();
    assert_eq!((file.tied("tied.weight"), file.tied("first.weight")), (Some("first.weight"), None));
    let file = WeightFile::open(folder().join("views.pt")).unwrap();
    assert_eq!((file.tied("same"), file.tied("matrix")), (Some("base"), None));
    let file = WeightFile::open(folder().join("export.pt2")).unwrap();
    assert_eq!(file.tied("1.weight"), Some("0.weight"));
}

#[test]
fn what_was_left_out_is_said() {
    let notes = |file: &str| WeightFile::open(folder().join(file)).unwrap().notes().join("; ");
    assert_eq!(
        notes("checkpoint.pt"),
        "the weights are those under `model_state_dict`; \
         left out: epoch, best, loss, args, history, optimizer_state_dict"
    );
    assert!(notes("lightning.ckpt").contains("left out: epoch, global_step"), "{}", notes("lightning.ckpt"));
    assert_eq!(notes("zip.pt"), "");
    assert_eq!(notes("two_parts.pt"), "no tensors, left out: args, epoch");
    assert!(notes("script.pt").contains("code is not run"));
    let part = |part| WeightFile::open_part(folder().join("checkpoint.pt"), Some(part));
    let moments = part("optimizer_state_dict.state").unwrap();
    assert!(moments.names().any(|n| n == "0.exp_avg"), "{:?}", moments.names().collect::<Vec<_>>());
    assert_eq!(part("model_state_dict.rnn").unwrap_err().to_string().split(": ").nth(1).unwrap(), {
        "has no part `rnn`; there is embedding.weight, rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, \
         rnn.bias_hh_l0, rnn.weight_ih_l0_reverse, rnn.weight_hh_l0_reverse, rnn.bias_ih_l0_reverse and 13 more"
    });
    let e = WeightFile::open_part(folder().join("expected.safetensors"), Some("a")).unwrap_err();
    assert!(matches!(e, WeightError::PyTorch { .. }), "{e}");
}

#[test]
fn what_would_run_or_cannot_be_read_is_refused_by_name() {
    let mut seen = 0;
    for (file, said) in [
        ("bad_system.pt", "posix.system"),
        ("bad_legacy_system.pt", "posix.system"),
        ("bad_eval_beside.pt", "builtins.eval"),
        ("bad_object.pt", "__main__.Config"),
        ("bad_sparse.pt", "torch._utils._rebuild_sparse_tensor"),
        ("bad_quantized.pt", "torch._utils._rebuild_qtensor"),
        ("bad_negative.pt", "tensor `w` is a view that negates or conjugates"),
        ("bad_nothing.pt", "has no tensors"),
        ("bad_expanded.pt", "tensor `w` is a view of shape [65536, 65536] and strides [0, 0], too large"),
        ("bad_plain.pkl", "`torch.save` did not write"),
        ("bad_other.zip", "no `data.pkl`; it has readme"),
    ] {
        let e = Weights::open(folder().join(file)).unwrap_err();
        assert!(e.to_string().contains(said) && e.to_string().contains(file), "{e}");
        assert!(matches!(
            e,
            LayerError::File(
                WeightError::PyTorchCalls { .. } | WeightError::PyTorchTensor { .. } | WeightError::PyTorch { .. }
            )
        ));
        seen += 1;
    }
    let there = std::fs::read_dir(folder()).unwrap();
    assert_eq!(there.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("bad_")).count(), seen);
    // A file of weights is no model.
    let e = Model::open(folder().join("script.pt"), &Device::Cpu).unwrap_err();
    assert!(matches!(e, Error::NoDescription { .. }), "{e}");
}

#[test]
fn a_layer_by_itself_takes_weights_from_any_form() {
    for file in ["zip.pt", "legacy.pt", "checkpoint.pt", "lightning.ckpt"] {
        let prefix = if file == "lightning.ckpt" { "model.rnn" } else { "rnn" };
        let lstm = Lstm::from_weights(&Weights::open(folder().join(file)).unwrap(), prefix, &Device::Cpu).unwrap();
        assert_eq!((lstm.input_size(), lstm.spec().num_layers, lstm.spec().directions()), (3, 2, 2));
    }
}

#[test]
fn modules_are_listed() {
    let summary = |file: &str| WeightSummary::of(&WeightFile::open(folder().join(file)).unwrap());
    let found = summary("mixed.pt");
    let listed: Vec<_> =
        found.modules.iter().map(|m| format!("{} | {} | {} | {}", m.name, m.kind, m.details, m.params)).collect();
    assert_eq!(
        listed,
        [
            "attention | MultiheadAttention | 4 features, biases | 60",
            "attention.out_proj | Linear | 4 → 4, bias | 20",
            "bn | BatchNorm | 3 features, running statistics, scale and offset | 6",
            "cell | GRUCell | 3 → 2, biases | 42",
            "conv | Conv1d | 2 inputs a group → 3, kernel 5, bias | 33",
            "conv2 | Conv2d or ConvTranspose2d | 2 inputs a group → 3, or transposed, kernel 1×3, no bias | 18",
            "first | Linear | 2 → 3, bias | 9",
            "gru | GRU | 3 → 2, 1 layer, no biases | 30",
            "plain | RNN | 3 → 2, 1 layer, biases | 14",
            "projected | LSTM | 3 → 2, 1 layer, biases, projection of 4 units | 120",
            "scale | tensor | [2, 2, 2, 2, 2, 2] | 64",
            "tied | Linear | 2 → 3, bias | 3",
            "up | ConvTranspose1d | 3 → 2, kernel 2, bias | 14",
        ]
    );
    let tied = found.modules.iter().find(|m| m.name == "tied").unwrap();
    assert_eq!(tied.tied, [("tied.weight".to_owned(), "first.weight".to_owned())]);
    assert!(found.to_string().contains("weight is `first.weight`"), "{found}");
    let found = summary("wrapped.pt");
    assert_eq!(found.wrappers, ["_orig_mod", "module"]);
    let listed: Vec<_> = found.modules.iter().map(|m| format!("{} | {} | {}", m.name, m.kind, m.details)).collect();
    assert_eq!(
        listed,
        [
            "embedding | Linear or Embedding | 3 → 5 without a bias, or 5 ids of 3 elements",
            "head | Linear | 4 → 3, bias",
            "norm | LayerNorm or GroupNorm | 4 features",
            "rnn | LSTM | 3 → 2 × 2, 2 layers, bidirectional, biases",
        ]
    );
    assert!(found.to_string().contains("kinds are guessed"), "{found}");
    assert_eq!(summary("lightning.ckpt").wrappers, ["model"]);
}

const TAGGER: &str = r#"
ignore = ["norm.*"]

[[layers]]
kind = "Embedding"
from = "embedding"

[[layers]]
name = "rnn"
kind = "LSTM"
from = "rnn"

[[layers]]
kind = "Dense"
from = "head"
activation = "sigmoid"
"#;

/// A folder with a copy of a file and a description of a network of its weights.
fn described(file: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join(file), dir.path().join(file)).unwrap();
    let path = dir.path().join("net.toml");
    std::fs::write(&path, format!("weights = \"{file}\"\n{text}")).unwrap();
    (dir, path)
}

fn given(name: &str) -> HostArray {
    let all = expected();
    let (shape, data) = &all["net"][name];
    HostArray { shape: shape.clone(), data: HostData::Float(data.clone()) }
}

fn ids() -> HostArray {
    let HostArray { shape, data } = given("ids");
    let HostData::Float(v) = data else { panic!("floats") };
    HostArray { shape, data: HostData::Int(v.iter().map(|&v| v as i64).collect()) }
}

fn agrees(model: &Model, input: (&str, HostArray), want: &str, what: &str) {
    let y = model.run([(input.0, Input::Host(input.1))]).unwrap();
    let want = given(want);
    assert_eq!(y.dims(), want.shape, "{what}");
    let HostData::Float(want) = want.data else { panic!("floats") };
    // Sigmoids and tanh of sums of few products.
    compare(&y.to_vec().unwrap(), &wide(&want), Tolerance { abs: 3e-6, rel: 1e-6 })
        .unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test]
fn a_description_assembles_a_network_from_any_form() {
    for device in devices() {
        for file in ["zip.pt", "legacy.pt", "checkpoint.pt", "lightning.ckpt", "wrapped.pt", "big_endian.pt"] {
            let (_dir, path) = described(file, TAGGER);
            let model = Model::open(&path, &device).unwrap_or_else(|e| panic!("{file}: {e}"));
            agrees(&model, ("input", ids()), "y", &format!("{file} on {device}"));
            assert_eq!(model.info().name, "net");
        }
    }
    // It is a model as any other.
    let (dir, path) = described("zip.pt", TAGGER);
    let model = Model::open(&path, &Device::Cpu).unwrap();
    let summary = model.summary().to_string();
    assert!(summary.contains("rnn") && summary.contains("Bidirectional"), "{summary}");
    cross_check(&model, &[("input", ids())], &devices(), Tolerance::F32).unwrap();
    let saved = dir.path().join("saved.safetensors");
    model.save(&saved).unwrap();
    agrees(&Model::open(&saved, &Device::Cpu).unwrap(), ("input", ids()), "y", "saved");
}

#[test]
fn other_cells_and_forms_of_networks() {
    let rest = r#"["attention*", "bn.*", "conv*", "up.*", "scale", "first.*", "tied.*", "#;
    for (layer, ignore, input, want) in [
        ("kind = \"LSTM\"\nfrom = \"projected\"", r#""gru.*", "plain.*", "cell.*"]"#, "projected_x", "projected_y"),
        ("kind = \"RNN\"\nfrom = \"plain\"", r#""gru.*", "projected.*", "cell.*"]"#, "projected_x", "plain_y"),
        ("kind = \"GRU\"\nfrom = \"gru\"", r#""plain.*", "projected.*", "cell.*"]"#, "projected_x", "gru_y"),
    ] {
        let text = format!("ignore = {rest}{ignore}\n[[layers]]\n{layer}\n");
        let (_dir, path) = described("mixed.pt", &text);
        for device in devices() {
            let model = Model::open(&path, &device).unwrap_or_else(|e| panic!("{layer}: {e}"));
            agrees(&model, ("input", given(input)), want, layer);
        }
    }
    // A cell by itself, of which one timestep is asked.
    let text = format!(
        "ignore = {rest}\"gru.*\", \"plain.*\", \"projected.*\"]\n\
         [[inputs]]\nname = \"x\"\nshape = [\"batch\", \"time\", 3]\n\
         [[layers]]\nkind = \"GRUCell\"\nfrom = \"cell\"\nreturn_sequences = false\n\
         [[outputs]]\nname = \"h\"\nvalue = \"cell\"\n"
    );
    let (_dir, path) = described("mixed.pt", &text);
    let x = given("cell_x");
    let x = HostArray { shape: vec![2, 1, 3], data: x.data };
    agrees(&Model::open(&path, &Device::Cpu).unwrap(), ("x", x), "cell_y", "cell");
}

/// Convolutions and normalizations; their sizes are those of the weights too.
#[test]
fn convolutions_and_normalizations() {
    let rest = r#"["attention*", "scale", "first.*", "tied.*", "gru.*", "plain.*", "projected.*", "cell.*", "#;
    let one = format!(
        "ignore = {rest}\"conv2.*\"]\n[[inputs]]\nname = \"x\"\nshape = [\"batch\", \"time\", 2]\n\
         [[layers]]\nkind = \"Conv1d\"\nfrom = \"conv\"\n[[layers]]\nkind = \"BatchNorm1d\"\nfrom = \"bn\"\n\
         [[layers]]\nkind = \"ConvTranspose1d\"\nfrom = \"up\"\n"
    );
    let two = format!(
        "ignore = {rest}\"conv.*\", \"bn.*\", \"up.*\"]\n[[inputs]]\nname = \"x\"\nshape = [\"batch\", 2, 5, 4]\n\
         [[layers]]\nkind = \"Conv2d\"\nfrom = \"conv2\"\ndata_format = \"channels_first\"\n"
    );
    for device in devices() {
        for (text, input, want) in [(&one, "conv_x", "conv_y"), (&two, "conv2_x", "conv2_y")] {
            let (_dir, path) = described("mixed.pt", text);
            let model = Model::open(&path, &device).unwrap_or_else(|e| panic!("{want}: {e}"));
            agrees(&model, ("x", given(input)), want, want);
        }
        let text = TAGGER.replace("ignore = [\"norm.*\"]", "").replace("activation = \"sigmoid\"", "");
        let head = "[[layers]]\nkind = \"Dense\"";
        let (_dir, path) = described(
            "zip.pt",
            &text.replace(head, &format!("[[layers]]\nkind = \"LayerNorm\"\nfrom = \"norm\"\n\n{head}")),
        );
        agrees(&Model::open(&path, &device).unwrap(), ("input", ids()), "norm_y", "LayerNorm");
    }
}

/// Layers with several inputs and outputs, all kinds that have no weights, nested layers.
#[test]
fn functional_descriptions() {
    let text = r#"
ignore = ["norm.*"]
license = "MIT"

[[inputs]]
name = "words"
shape = ["batch", "time"]

[[layers]]
kind = "Embedding"
from = "embedding"
input = "words"

[[layers]]
name = "lstm"
kind = "LSTM"
from = "rnn"
input = "embedding"
return_state = true
bidirectional = "concat"
dropout = 0.5

[[layers]]
kind = "Dropout"
rate = 0.1
input = "lstm"

[[layers]]
name = "head"
kind = "TimeDistributed"
from = "head"
layer = { kind = "Linear", activation = { name = "hard_sigmoid", alpha = 0.2, beta = 0.5 } }

[[layers]]
name = "states"
kind = "Concatenate"
inputs = ["lstm:1", "lstm:3"]

[[outputs]]
name = "y"
value = "head"

[[outputs]]
name = "h"
value = "states"
"#;
    let (_dir, path) = described("zip.pt", text);
    let model = Model::open(&path, &Device::Cpu).unwrap();
    let out = model.run_all([("words", Input::Host(ids()))]).unwrap();
    let shapes: Vec<_> = out.iter().map(|(n, y)| (n.as_str(), y.dims().to_vec())).collect();
    assert_eq!(shapes, [("y", vec![2, 5, 3]), ("h", vec![2, 4])]);
    cross_check(&model, &[("words", ids())], &devices(), Tolerance::F32).unwrap();
}

/// A layer `Activation` takes functions of its own and those that other layers have too.
#[test]
fn functions_of_activation_layers() {
    let text = |function: &str| {
        format!(
            "ignore = [\"*\"]\n[[inputs]]\nname = \"x\"\nshape = [\"batch\", 1]\n\
             [[layers]]\nkind = \"Activation\"\nname = \"f\"\nactivation = {function}\n"
        )
    };
    for (function, x, want) in [
        ("\"relu\"", -2.0, 0.0),
        ("\"sqrt\"", 2.25, 1.5),
        ("\"relu6\"", 7.0, 6.0),
        ("{ celu = { alpha = 2.0 } }", 3.0, 3.0),
        ("{ name = \"leaky_relu\", alpha = 0.5 }", -2.0, -1.0),
    ] {
        let (_dir, path) = described("zip.pt", &text(function));
        for device in devices() {
            let model = Model::open(&path, &device).unwrap_or_else(|e| panic!("{function}: {e}"));
            let x = HostArray { shape: vec![1, 1], data: HostData::Float(vec![x]) };
            let y = model.run([("x", Input::Host(x))]).unwrap().to_vec().unwrap();
            compare(&y, &[want], Tolerance::new(1e-6)).unwrap_or_else(|e| panic!("{function} on {device}: {e}"));
        }
    }
    let (_dir, path) = described("zip.pt", &text("\"sqrtt\""));
    let e = Model::open(&path, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("sqrtt"), "{e}");
}

#[test]
fn descriptions_that_do_not_fit_are_refused_with_their_place() {
    let head = "[[layers]]\nkind = \"Dense\"\nfrom = \"head\"";
    for (change, said) in [
        (("ignore = [\"norm.*\"]", ""), "no layer uses the weights norm.bias, norm.weight"),
        (("norm.*", "nor.*"), "no layer uses the weights norm.bias, norm.weight"),
        (("[\"norm.*\"]", "[\"norm.*\", \"none\"]"), "no weight has the name `none`"),
        (("from = \"rnn\"", "from = \"lstm\""), "line 9, layer `rnn`: needs a weight `weight_ih_l0` under `lstm`"),
        (("kind = \"LSTM\"", "kind = \"GRU\""), "line 9, layer `rnn`: `rnn.weight_ih_l0` has 8 rows, which 3 gates"),
        (("kind = \"LSTM\"", "kind = \"RNN\""), "weight `rnn.weight_hh_l0`"),
        (("kind = \"LSTM\"", "kind = \"mLSTM\""), "layer `rnn`: kind `mLSTM` is not known"),
        (("activation = \"sigmoid\"", "activation = \"swish\""), "line 14, layer `head`: unknown variant `swish`"),
        (("activation = \"sigmoid\"", "units = 7"), "weight `head.weight`"),
        (("activation = \"sigmoid\"", "colour = 7"), "unknown field `colour`"),
        (("name = \"rnn\"", "name = \"rnn\"\nreset = 1"), "unknown field `reset`"),
        (("name = \"rnn\"", "name = \"rnn\"\ninput = \"nobody\""), "nobody"),
        (("name = \"rnn\"", "name = 3"), "`name` must be a text"),
        (("kind = \"Embedding\"\n", ""), "line 5, layer `embedding`: `kind` is missing"),
        (("from = \"head\"", ""), "layer `dense`: needs `from`"),
        (("[[layers]]\nkind = \"Embedding\"", "[[layer]]\nkind = \"Embedding\""), "unknown field `layer`"),
        (("weights = \"zip.pt\"", "weights = \"../zip.pt\""), "zip.pt"),
        (("weights = \"zip.pt\"", "weights = \"/etc/passwd\""), "not in the folder of the description"),
        (("weights = \"zip.pt\"", "weights = \"zip.pt\"\npart = \"ema\""), "has no part `ema`"),
        (("weights = \"zip.pt\"", "weights = \"zip.pt\"\ntypo = 1"), "unknown field `typo`"),
        (("weights = \"zip.pt\"", "weights = "), "bad model description"),
    ] {
        let (_dir, path) = described("zip.pt", TAGGER);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(change.0) && text.contains(head), "{change:?}");
        std::fs::write(&path, text.replacen(change.0, change.1, 1)).unwrap();
        let e = Model::open(&path, &Device::Cpu).unwrap_err().to_string();
        assert!(e.contains(said) && e.len() < 2000, "{change:?}: {e}");
    }
    // A link out of the folder leads out of it.
    #[cfg(unix)]
    {
        let (dir, path) = described("zip.pt", TAGGER);
        std::fs::remove_file(dir.path().join("zip.pt")).unwrap();
        std::os::unix::fs::symlink(folder().join("zip.pt").canonicalize().unwrap(), dir.path().join("zip.pt")).unwrap();
        let e = Model::open(&path, &Device::Cpu).unwrap_err().to_string();
        assert!(e.contains("not in the folder of the description"), "{e}");
    }
}

/// Descriptions with pieces moved and changed are a model or an error, and never more.
#[test]
fn changed_descriptions_are_models_or_errors() {
    let (_dir, path) = described("zip.pt", TAGGER);
    let good = std::fs::read_to_string(&path).unwrap();
    let pieces = ["\"\"", "0", "-1", "1e40", "[]", "{}", "true", "\"a\"", "[[layers]]\n", "\n", "18446744073709551615"];
    let words: Vec<&str> = good.split_inclusive([' ', '\n']).collect();
    let (mut models, mut state) = (0, 1u64);
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..1500 {
        let mut own = words.clone();
        for _ in 0..1 + below(3) {
            let at = below(own.len());
            match below(4) {
                0 => drop(own.remove(at)),
                1 => own.insert(at, pieces[below(pieces.len())]),
                2 => own[at] = pieces[below(pieces.len())],
                _ => own.insert(at, words[below(words.len())]),
            }
        }
        std::fs::write(&path, own.concat()).unwrap();
        match Model::open(&path, &Device::Cpu) {
            Ok(_) => models += 1,
            Err(e) => assert!((10..4000).contains(&e.to_string().len()), "{e}"),
        }
    }
    assert!(models > 0, "none was still good");
}

/// A pickle, instruction by instruction.
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }
    fn op(mut self, op: &[u8]) -> Self {
        self.0.extend(op);
        self
    }
    fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }
    fn int(self, v: usize) -> Self {
        self.op(b"J").op(&i32::try_from(v).unwrap().to_le_bytes())
    }
    fn ints(self, all: &[usize]) -> Self {
        all.iter().fold(self.op(b"("), |p, &v| p.int(v)).op(b"t")
    }
}

/// A file of PyTorch's legacy form: the pickle of an object, and the storages `0`, `1`, ….
fn saved<'a>(object: Vec<u8>, storages: impl Iterator<Item = &'a Vec<f32>>) -> Vec<u8> {
    let mut all = vec![0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
    all.extend(Pickle::new().int(1001).op(b".").0);
    all.extend(Pickle::new().op(b"}(").text("little_endian").op(b"\x88u.").0);
    all.extend(object);
    let (mut keys, mut data) = (Pickle::new().op(b"]("), Vec::new());
    for (n, values) in storages.enumerate() {
        keys = keys.text(&n.to_string());
        data.extend((values.len() as u64).to_le_bytes());
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    all.extend(keys.op(b"e.").0);
    all.extend(data);
    all
}

/// A state dict in PyTorch's legacy form.
fn legacy(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut dict = Pickle::new().op(b"}(");
    for (n, (name, shape, values)) in tensors.iter().enumerate() {
        let strides: Vec<usize> = (0..shape.len()).map(|d| shape[d + 1..].iter().product()).collect();
        let key = n.to_string();
        dict =
            dict.text(name).op(b"ctorch._utils\n_rebuild_tensor_v2\n((").text("storage").op(b"ctorch\nFloatStorage\n");
        dict = dict.text(&key).text("cpu").int(values.len()).op(b"NtQ").int(0).ints(shape).ints(&strides);
        dict = dict.op(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    saved(dict.op(b"u.").0, tensors.iter().map(|(_, _, values)| values))
}

/// g2pM's names and weights, assembled, give what the package gives.
#[test]
fn g2pm_from_its_own_names() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/g2pm.safetensors");
    let own = |name: &str| {
        let name = name.replace("layers.0.", "embedding.").replace("layers.1.", "lstm.");
        name.replace("layers.2.", "logit_layer.0.").replace("layers.3.", "logit_layer.2.")
    };
    let tensors: Vec<_> =
        Weights::open(model).unwrap().iter().map(|(n, w)| (own(n), w.shape().to_vec(), w.to_vec().unwrap())).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("g2pm.pt"), legacy(&tensors)).unwrap();
    let path = dir.path().join("g2pm.toml");
    let text = r#"
weights = "g2pm.pt"
name = "g2pM"
license = "Apache-2.0"

[[inputs]]
name = "tokens"
shape = ["batch", "time"]

[[layers]]
kind = "Embedding"
from = "embedding"

[[layers]]
kind = "LSTM"
from = "lstm"

[[layers]]
kind = "Linear"
from = "logit_layer.0"
activation = "relu"

[[layers]]
kind = "Linear"
from = "logit_layer.2"
"#;
    std::fs::write(&path, text).unwrap();
    let array = |name: &str| recurve::read_array(&fixtures().join("g2pm.npz"), name).unwrap();
    let (ids, lengths, logits) = (array("ids"), array("lengths"), array("logits"));
    let (HostData::Int(len), HostData::Float(want)) = (&lengths.data, &logits.data) else { panic!("types") };
    let [_, t, classes] = logits.shape[..] else { panic!("shape") };
    for device in devices() {
        let model = Model::open(&path, &device).unwrap();
        let y = model.run([("tokens", ids.clone()), ("lengths", lengths.clone())].map(|(n, a)| (n, Input::Host(a))));
        let got = y.unwrap().to_vec().unwrap();
        for (row, &len) in len.iter().enumerate() {
            let valid = row * t * classes..(row * t + len as usize) * classes;
            // As in `g2pm.rs`.
            compare(&got[valid.clone()], &wide(&want[valid]), Tolerance { abs: 1e-4, rel: 1e-5 })
                .unwrap_or_else(|e| panic!("sentence {row} on {device}: {e}"));
        }
    }
}

#[test]
fn damaged_elements_are_found_by_their_checksum() {
    let good = std::fs::read(folder().join("zip.pt")).unwrap();
    let all = expected();
    let (_, values) = &all["zip.pt"]["head.weight"];
    let stored: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = good.windows(stored.len()).position(|w| w == stored).unwrap();
    let mut bad = good.clone();
    bad[at + 5] ^= 0x10;
    let file = WeightFile::from_bytes(bad).unwrap();
    let e = file.weight("head.weight").unwrap_err();
    assert!(matches!(&e, WeightError::PyTorchTensor { name, .. } if name == "head.weight"), "{e}");
    assert!(file.weight("head.bias").is_ok());
    // The same change where there are no checksums is not known to be one.
    let good = std::fs::read(folder().join("no_checksums.pt")).unwrap();
    let at = good.windows(stored.len()).position(|w| w == stored).unwrap();
    let mut bad = good;
    bad[at + 5] ^= 0x10;
    assert!(WeightFile::from_bytes(bad).unwrap().weight("head.weight").is_ok());
}

/// Files that are cut short at any place.
#[test]
fn files_that_are_cut_short_are_refused() {
    for file in ["zip.pt", "legacy.pt", "export.pt2", "script.pt", "deflated.pt"] {
        let good = std::fs::read(folder().join(file)).unwrap();
        for len in (0..good.len()).step_by(3) {
            let e = Weights::from_bytes(good[..len].to_vec()).unwrap_err().to_string();
            assert!(e.contains("bytes in memory") && e.len() < 1000, "{file}, {len} bytes: {e}");
        }
    }
}

/// Pickles that ask for much: a typed error or little memory, in little time.
#[test]
#[cfg(target_os = "linux")]
fn hostile_files_take_little_memory() {
    const FILE: &str = "RECURVE_TEST_FILE";
    if let Some(path) = std::env::var_os(FILE) {
        // Alone in a process, whose peak it is.
        let peak = || -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
        };
        let before = peak();
        let result = Weights::open(&path).map(|_| ());
        println!("grown {} {}", peak() - before, result.map_or_else(|e| e.to_string(), |()| "fine".into()));
        return;
    }
    let alone = |pickle: Vec<u8>| saved(pickle, [].iter());
    let with_storage = |pickle: Vec<u8>| saved(pickle, [vec![1.0]].iter());
    let many = |op: &[u8], count: usize| Pickle::new().op(&op.repeat(count)).op(b".").0;
    let doubled = (0..60).fold(Pickle::new().op(b"]q\x00"), |p, _| p.op(b"(h\x00h\x00lq\x00")).op(b".").0;
    let cycle = |more: &[u8]| Pickle::new().op(b"}q\x00").text("a").op(b"h\x00s").op(more).op(b".").0;
    let with_tensor = Pickle(Vec::new()).text("w").op(b"ctorch._utils\n_rebuild_tensor_v2\n)Rs").0;
    let tensor = "ctorch._utils\n_rebuild_tensor_v2\n((";
    let huge = Pickle::new().op(b"}").text("w").op(tensor.as_bytes()).text("storage").op(b"ctorch\nFloatStorage\n");
    let huge = huge.text("0").text("cpu").int(1).op(b"NtQ").int(0);
    let huge = huge.op(b"(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ft");
    let huge = huge.ints(&[1, 1]).op(b"\x89}tRs.").0;
    let negative = Pickle::new().op(b"}").text("w").op(tensor.as_bytes()).text("storage").op(b"ctorch\nFloatStorage\n");
    let negative = negative.text("0").text("cpu").int(1).op(b"NtQ").int(0).op(b"(J\xff\xff\xff\xfft");
    let negative = negative.ints(&[1]).op(b"\x89}tRs.").0;
    let mut bomb = Vec::new();
    {
        use std::io::Write;
        let mut zeros = flate2::write::DeflateEncoder::new(&mut bomb, flate2::Compression::best());
        for _ in 0..256 {
            zeros.write_all(&vec![0; 1 << 20]).unwrap();
        }
        zeros.finish().unwrap();
    }
    let cases: [(&str, Vec<u8>, &str); 16] = [
        ("many lists", alone(many(b"]", 8 << 20)), "values"),
        ("many Nones", alone(many(b"N", 8 << 20)), "on its stack"),
        ("many marks", alone(many(b"(", 8 << 20)), "marks"),
        ("many dictionaries kept", alone(many(b"}0", 4 << 20)), "values"),
        ("many remembered", alone(many(b"Nr\x00\x00\x00\x00", 1 << 20)), "on its stack"),
        ("a list that doubles", alone(doubled), "no tensors"),
        ("a dictionary in itself", alone(cycle(b"")), "no tensors"),
        ("a dictionary in itself, with a tensor", alone(cycle(&with_tensor)), "contains itself"),
        ("a huge shape", with_storage(huge), "overflows"),
        ("a negative size", with_storage(negative), "not understood"),
        ("a long text", alone(Pickle::new().op(b"X\xff\xff\xff\xff").0), "too early"),
        ("an empty stack", alone(Pickle::new().op(b"R").0), "empty stack"),
        ("an extension", alone(Pickle::new().op(b"\x82\x01.").0), "instruction 0x82"),
        ("nested tuples", alone(Pickle::new().op(b")").op(&b"\x85".repeat(1 << 19)).op(b".").0), "no tensors"),
        ("a pickle that unpacks to 256 MiB", zipped("a/data.pkl", &bomb, 256 << 20), "too many"),
        ("a file that says it is small", zipped("a/data.pkl", &bomb, 100), "does not have the size"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (what, bytes, said) in cases {
        let path = dir.path().join("w.pt");
        std::fs::write(&path, &bytes).unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["hostile_files_take_little_memory", "--exact", "--nocapture"]).env(FILE, &path);
        let out = command.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{what}: {text}");
        let line = text.lines().find_map(|l| l.split_once("grown ")).unwrap().1;
        let (grown, result) = line.split_once(' ').unwrap();
        assert!(result.contains(said) && result.len() < 1000, "{what}: {result}");
        let most = 4 * bytes.len() + (64 << 20);
        assert!(grown.parse::<usize>().unwrap() <= most, "{what}: {grown} bytes for {} of the file", bytes.len());
    }
}

/// A zip archive of one deflated file, which says what size it has.
fn zipped(name: &str, deflated: &[u8], size: u32) -> Vec<u8> {
    let fields = |signature: &[u8], central: bool| {
        let mut v = signature.to_vec();
        if central {
            v.extend(20u16.to_le_bytes());
        }
        v.extend(20u16.to_le_bytes());
        v.extend(0u16.to_le_bytes());
        v.extend(8u16.to_le_bytes());
        v.extend([0; 4]);
        v.extend(0u32.to_le_bytes());
        v.extend((deflated.len() as u32).to_le_bytes());
        v.extend(size.to_le_bytes());
        v.extend((name.len() as u16).to_le_bytes());
        v.extend(0u16.to_le_bytes());
        if central {
            v.extend([0; 14]);
        }
        v.extend(name.as_bytes());
        v
    };
    let mut all = fields(b"PK\x03\x04", false);
    all.extend(deflated);
    let (start, directory) = (all.len() as u32, fields(b"PK\x01\x02", true));
    all.extend(&directory);
    all.extend(b"PK\x05\x06\0\0\0\0");
    all.extend([1u16.to_le_bytes(), 1u16.to_le_bytes()].concat());
    all.extend((directory.len() as u32).to_le_bytes());
    all.extend(start.to_le_bytes());
    all.extend(0u16.to_le_bytes());
    all
}
