//! Tests of the `recurve` command on ONNX files and recordings, run as a program.

use recurve::{Device, HostArray, HostData, Lstm, Model, Sequential, read_array, read_named_array, write_host_array};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn recurve(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).output().unwrap()
}

fn good(args: &[&str]) -> String {
    let out = recurve(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&good(&[args, &["--json"]].concat())).unwrap()
}

/// The error message of a call that is refused.
fn refused(args: &[&str]) -> String {
    let out = recurve(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{args:?}: {text}");
    text
}

/// A selector for the GPU that the tests use.
fn gpu() -> String {
    let list = json(&["devices"]);
    let first = list["adapters"].get(0).expect("the tests need a GPU adapter: run `cargo xtask test`");
    format!("{}:{}", first["backend"].as_str().unwrap(), first["name"].as_str().unwrap())
}

fn model(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name).to_str().unwrap().to_owned()
}

/// A folder for the files of a test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, array: &HostArray) {
        write_host_array(&self.path(name), "x", array).unwrap();
    }
}

fn floats(shape: &[usize]) -> HostArray {
    let count = shape.iter().product();
    let data = (0..count).map(|n: usize| (n * 37 % 101) as f32 * 0.01 - 0.5).collect();
    HostArray { shape: shape.to_vec(), data: HostData::Float(data) }
}

#[test]
fn run_takes_arrays_and_begins_with_zero_states() {
    let dir = Folder::new();
    dir.write("mix.npy", &floats(&[1, 257, 1, 2]));
    let mix = format!("mix={}", dir.at("mix.npy"));
    let zeros = [
        ("conv_cache", vec![2, 1, 16, 16, 33]),
        ("tra_cache", vec![2, 3, 1, 1, 16]),
        ("inter_cache", vec![2, 1, 33, 16]),
    ];
    let mut given = vec![mix.clone()];
    for (name, shape) in zeros {
        let count = shape.iter().product();
        dir.write(&format!("{name}.npy"), &HostArray { shape, data: HostData::Float(vec![0.0; count]) });
        given.push(format!("{name}={}", dir.at(&format!("{name}.npy"))));
    }
    let gtcrn = model("gtcrn.onnx");
    let text =
        good(&["run", &gtcrn, "--device", "cpu", "--input", &mix, "--output", &format!("enh={}", dir.at("a.npy"))]);
    assert!(text.contains("`conv_cache`, `tra_cache`, `inter_cache` begin as zeros"), "{text}");
    let inputs: Vec<&str> = given.iter().flat_map(|g| ["--input", g]).collect();
    let output = format!("enh={}", dir.at("b.npy"));
    let text = good(&[&["run", &gtcrn, "--device", "cpu", "--output", &output], &inputs[..]].concat());
    assert!(!text.contains("begin as zeros"), "{text}");
    assert_eq!(read_array(&dir.path("a.npy"), "x").unwrap(), read_array(&dir.path("b.npy"), "x").unwrap());
}

#[test]
fn run_reads_recordings_and_text_in_the_shape_of_the_input() {
    let dir = Folder::new();
    let samples = floats(&[576]).to_f32();
    let wav: Vec<i16> = samples.iter().map(|s| (s * 32768.0) as i16).collect();
    write_wav(&dir.path("x.wav"), &wav);
    std::fs::write(dir.path("x.txt"), wav.iter().map(|s| format!("{}\n", f32::from(*s) / 32768.0)).collect::<String>())
        .unwrap();
    std::fs::write(dir.path("sr.txt"), "16000").unwrap();
    let exact = wav.iter().map(|s| f32::from(*s) / 32768.0).collect();
    dir.write("x.npy", &HostArray { shape: vec![1, 576], data: HostData::Float(exact) });
    let silero = model("silero_vad.onnx");
    let sr = format!("sr={}", dir.at("sr.txt"));
    let results: Vec<Value> = ["x.npy", "x.wav", "x.txt"]
        .iter()
        .map(|f| json(&["run", &silero, "--device", "cpu", "--input", &format!("input={}", dir.at(f)), "--input", &sr]))
        .collect();
    assert_eq!(results[0]["outputs"].as_array().unwrap().len(), 2);
    assert!(results.iter().all(|r| r["outputs"] == results[0]["outputs"]), "{results:?}");
    std::fs::write(dir.path("bad.txt"), "1 2\nx").unwrap();
    let e = refused(&["run", &silero, "--input", &format!("input={}", dir.at("bad.txt")), "--input", &sr]);
    assert!(e.contains("line 2") && e.contains("`x`"), "{e}");
}

#[test]
fn run_stops_at_a_node() {
    let dir = Folder::new();
    dir.write("mix.npy", &floats(&[1, 257, 1, 2]));
    let mix = format!("mix={}", dir.at("mix.npy"));
    let gtcrn = model("gtcrn.onnx");
    let base = ["run", &gtcrn, "--device", "cpu", "--input", &mix, "--until"];
    let text = good(&[&base[..], &["GRU_153"]].concat());
    assert!(text.contains("until:  node `GRU_153` (GRU)") && text.contains("shape [1, 1, 1, 16]"), "{text}");
    // The value of the last node is the output itself.
    let whole = json(&["run", &gtcrn, "--device", "cpu", "--input", &mix]);
    let enh = whole["outputs"].as_array().unwrap().iter().find(|o| o["output"] == "enh").unwrap();
    let last = json(&[&base[..], &["enh"]].concat());
    assert_eq!(last["outputs"][0]["data"], enh["data"]);
    // By the name of a value, and written to a file.
    let value = json(&[&base[..], &["Conv_75"]].concat());
    let name = value["outputs"][0]["output"].as_str().unwrap();
    good(&[&base[..], &[name, "--output", &format!("{name}={}", dir.at("c.npy"))]].concat());
    assert_eq!(read_array(&dir.path("c.npy"), "x").unwrap().shape, [1, 16, 1, 65]);
    let e = refused(&[&base[..], &["Conv75"]].concat());
    assert!(e.contains("`--until Conv75`") && e.contains("`Conv_75`"), "{e}");
    let e = refused(&[&base[..], &["Conv_75", "--output", "enh=y.npy"]].concat());
    assert!(e.contains("this node makes"), "{e}");
}

/// Each recurrent layer has its line where it is asked for, and only there.
#[test]
fn explain_tells_of_cells() {
    let gtcrn = model("gtcrn.onnx");
    let text = good(&["summary", &gtcrn, "--explain"]);
    assert_eq!(text.matches("cell:   node `").count(), 14, "{text}");
    assert!(!good(&["summary", &gtcrn]).contains("cell:"));
    assert_eq!(json(&["summary", &gtcrn])["cells"].as_array().unwrap().len(), 14);
}

#[test]
fn states_are_shown_and_can_be_stated() {
    let gtcrn = model("gtcrn.onnx");
    let text = good(&["summary", &gtcrn]);
    assert!(text.contains("state   conv_cache → conv_cache_out: f32 [2, 1, 16, 16, 33], begins as zeros"), "{text}");
    assert!(text.contains("one a call"), "{text}");
    let summary = json(&["summary", &model("silero_vad.onnx")]);
    assert_eq!(summary["states"][0]["output"], "stateN");
    assert_eq!(summary["streams_share_a_call"], true);
    let one = json(&["summary", &gtcrn, "--state", "tra_cache=tra_cache_out"]);
    assert_eq!(one["states"].as_array().unwrap().len(), 1);
    for (state, words) in [
        ("none=tra_cache_out", ["`none`", "no input"]),
        ("tra_cache=none", ["`tra_cache`", "`none`, which is no output"]),
        ("tra_cache=conv_cache_out", ["`tra_cache`", "`conv_cache_out`"]),
        ("x", ["IN=OUT", "x"]),
    ] {
        for command in ["summary", "bench"] {
            let e = refused(&[command, &gtcrn, "--state", state]);
            assert!(words.iter().all(|w| e.contains(w)), "{e}");
        }
    }
}

/// A `.wav` file of one channel at 16 kHz.
fn write_wav(path: &Path, samples: &[i16]) {
    let bytes = samples.len() as u32 * 2;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    for v in [1u16, 1] {
        file.extend(v.to_le_bytes());
    }
    for v in [16_000u32, 32_000] {
        file.extend(v.to_le_bytes());
    }
    for v in [2u16, 16] {
        file.extend(v.to_le_bytes());
    }
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    samples.iter().for_each(|s| file.extend(s.to_le_bytes()));
    std::fs::write(path, file).unwrap();
}

fn samples(path: &Path) -> Vec<i16> {
    let bytes = std::fs::read(path).unwrap();
    bytes[44..].as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect()
}

/// Recordings of different lengths in a folder, one of them damaged.
fn recordings(dir: &Folder) -> Vec<String> {
    let whole = samples(Path::new(&model("noisy_speech.wav")));
    std::fs::create_dir(dir.path("in")).unwrap();
    let mut names = Vec::new();
    for (n, len) in [24_000, 9_001, 16_000].into_iter().enumerate() {
        let name = format!("{n}.wav");
        write_wav(&dir.path("in").join(&name), &whole[n * 8_000..n * 8_000 + len]);
        names.push(name);
    }
    std::fs::write(dir.path("in").join("damaged.wav"), b"RIFF no recording").unwrap();
    std::fs::write(dir.path("in").join("notes.txt"), b"no recording").unwrap();
    names
}

#[test]
fn a_folder_of_recordings_gives_what_each_gives_alone() {
    let dir = Folder::new();
    let names = recordings(&dir);
    for (file, batched) in [("silero_vad.onnx", true), ("gtcrn.onnx", false)] {
        let model = model(file);
        let output = dir.at("out");
        let mut args = vec!["run", &model, "--device", "cpu", "--json", "--wav"];
        let folder = dir.at("in");
        args.push(&folder);
        if !batched {
            args.extend(["-o", &output]);
        }
        let out = recurve(&args);
        let errors = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{errors}");
        assert!(errors.lines().count() == 1 && errors.contains("damaged.wav"), "{errors}");
        let all: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(all["batched"], batched, "{file}");
        let files = all["files"].as_array().unwrap();
        assert_eq!(files.len(), names.len() + 1);
        assert!(files.iter().any(|f| f["error"].as_str().is_some_and(|e| e.contains("damaged.wav"))));
        for name in &names {
            let wav = dir.path("in").join(name);
            let together = files.iter().find(|f| f["wav"] == wav.to_str().unwrap()).unwrap();
            let alone = dir.at("alone.wav");
            let mut args = vec!["run", &model, "--device", "cpu", "--wav", wav.to_str().unwrap()];
            if !batched {
                args.extend(["-o", &alone]);
            }
            let one = json(&args);
            assert_eq!((&together["speech"], &together["seconds"]), (&one["speech"], &one["seconds"]), "{name}");
            if !batched {
                assert_eq!(samples(&dir.path("out").join(name)), samples(Path::new(&alone)), "{name}");
            }
        }
    }
    // Several by name, and what cannot be written.
    let (a, b) = (dir.path("in").join("0.wav"), dir.path("in").join("1.wav"));
    let gtcrn = model("gtcrn.onnx");
    let both = ["run", &gtcrn, "--device", "cpu", "--wav", a.to_str().unwrap(), "--wav", b.to_str().unwrap()];
    assert!(good(&both).contains("2 of 2 files"));
    let e = refused(&[&both[..], &["-o", &dir.at("in")]].concat());
    assert!(e.contains("0.wav") && e.contains("replace the recording itself"), "{e}");
    std::fs::create_dir(dir.path("empty")).unwrap();
    assert!(refused(&["run", &gtcrn, "--wav", &dir.at("empty")]).contains("no .wav file"));
}

/// The first sample that is more than 1e-3 from the expected one.
fn departs(got: &[i16], want: &[i16]) -> Option<usize> {
    got.iter().zip(want).position(|(a, b)| (i32::from(*a) - i32::from(*b)).abs() > 32)
}

/// What ONNX Runtime makes of DTLN over `noisy_speech.wav` (`tests/golden/make_audio.py`).
fn dtln_wave() -> Vec<i16> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio.npz");
    let HostData::Int(v) = read_named_array(&fixture, "dtln_wave").unwrap().data else { panic!("whole numbers") };
    v.into_iter().map(|v| v as i16).collect()
}

/// A folder with DTLN and its description, changed.
fn dtln(change: impl Fn(&str) -> String) -> (Folder, String) {
    let dir = Folder::new();
    for name in ["dtln_1.onnx", "dtln_2.onnx"] {
        std::fs::copy(model(name), dir.path(name)).unwrap();
    }
    std::fs::write(dir.path("own.toml"), change(&std::fs::read_to_string(model("dtln.toml")).unwrap())).unwrap();
    let at = dir.at("own.toml");
    (dir, at)
}

#[test]
fn two_models_in_a_row_clean_a_recording() {
    let dir = Folder::new();
    let (wav, description, want) = (model("noisy_speech.wav"), model("dtln.toml"), dtln_wave());
    let noisy = samples(Path::new(&wav));
    assert_eq!((noisy.len(), want.len()), (80_000, 80_000));
    assert!(departs(&noisy[..79_616], &want[384..]).is_some(), "the models change something");
    for device in ["cpu", &gpu()] {
        let output = dir.at("clean.wav");
        let text = good(&["run", &description, "--device", device, "--wav", &wav, "-o", &output]);
        assert!(text.contains("input_3 <- tf_op_layer_stack_2") && text.contains("input_5 <-"), "{text}");
        let got = samples(Path::new(&output));
        assert_eq!((got.len(), departs(&got, &want)), (80_000, None), "{device}");
        let worst = got.iter().zip(&want).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).max().unwrap();
        println!("DTLN, wave on {device}: worst error {:.2e}", f64::from(worst) / 32768.0);
    }
    // Moved back to its place.
    let (dir, at) = dtln(|text| text.replace("ends = \"live\"", "ends = \"zeros\""));
    let output = dir.at("clean.wav");
    good(&["run", &at, "--device", "cpu", "--wav", &wav, "-o", &output]);
    let got = samples(Path::new(&output));
    assert_eq!((got.len(), departs(&got, &want[384..])), (80_000, None));
    let (_dir, at) = dtln(|text| text.replace("states = { input_5 = \"tf_op_layer_stack_5\" }", ""));
    let e = refused(&["run", &at, "--device", "cpu", "--wav", &wav]);
    assert!(e.contains("input_5"), "{e}");
}

#[test]
fn a_folder_goes_through_models_in_a_row() {
    let dir = Folder::new();
    let names = recordings(&dir);
    let description = model("dtln.toml");
    let out = recurve(&["run", &description, "--device", "cpu", "--wav", &dir.at("in"), "-o", &dir.at("out")]);
    let errors = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && errors.contains("damaged.wav"), "{errors}");
    // The first recording begins as the whole one does, up to its last hop, behind which there are zeros.
    let first = samples(&dir.path("out").join(&names[0]));
    let whole = 24_000 / 128 * 128;
    assert_eq!((first.len(), departs(&first[..whole], &dtln_wave())), (24_000, None));
    for name in &names[1..] {
        let (wav, alone) = (dir.path("in").join(name), dir.at("alone.wav"));
        good(&["run", &description, "--device", "cpu", "--wav", wav.to_str().unwrap(), "-o", &alone]);
        assert_eq!(samples(&dir.path("out").join(name)), samples(Path::new(&alone)), "{name}");
    }
}

/// Models with an open batch run several recordings in a call, each model its own streams.
#[test]
fn models_in_a_row_share_calls() {
    let dir = Folder::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let lstm = Sequential::new().add(Lstm::new(32).return_sequences(true)).seed(seed);
        let network = lstm.build(&[None, None, Some(32)], &Device::Cpu).unwrap();
        Model::new(name, network).save(dir.path("m.safetensors")).unwrap();
        good(&["convert", &dir.at("m.safetensors"), "--states", "-o", &dir.at(&format!("{name}.onnx"))]);
    }
    let summary = json(&["summary", &dir.at("a.onnx")]);
    let name = |what: &str| summary[what][0]["name"].as_str().unwrap().to_owned();
    let stage = |file: &str| {
        let (input, output) = (name("inputs"), name("outputs"));
        format!("[[stage]]\nmodel = \"{file}\"\ninput = \"{input}\"\noutput = \"{output}\"\ngives = \"samples\"\n")
    };
    let text = format!("sample_rate = 16000\nframe = 32\n{}{}", stage("a.onnx"), stage("b.onnx"));
    std::fs::write(dir.path("both.toml"), text).unwrap();
    let names = recordings(&dir);
    std::fs::remove_file(dir.path("in").join("damaged.wav")).unwrap();
    let (both, folder, output, alone) = (dir.at("both.toml"), dir.at("in"), dir.at("out"), dir.at("alone.wav"));
    let all = json(&["run", &both, "--device", "cpu", "--wav", &folder, "-o", &output]);
    assert_eq!(all["batched"], true);
    for name in names {
        let wav = dir.path("in").join(&name);
        good(&["run", &both, "--device", "cpu", "--wav", wav.to_str().unwrap(), "-o", &alone]);
        let (together, alone) = (samples(&dir.path("out").join(&name)), samples(Path::new(&alone)));
        assert!(together.iter().any(|s| s.abs() > 100), "{name}");
        let near = together.iter().zip(&alone).all(|(a, b)| (i32::from(*a) - i32::from(*b)).abs() <= 1);
        assert!(together.len() == alone.len() && near, "{name}");
    }
}

#[test]
fn descriptions_of_audio_are_refused_by_name() {
    let wav = model("noisy_speech.wav");
    let whole = model("dtln.toml");
    let e = refused(&["run", &model("dtln_1.onnx"), "--audio", &whole, "--wav", &wav]);
    assert!(e.contains("names its models itself"), "{e}");
    assert!(refused(&["run", &whole, "--audio", &whole, "--wav", &wav]).contains("`--audio`"));
    let e = refused(&["run", &model("gtcrn.toml"), "--wav", &wav]);
    assert!(e.contains("names no `model`"), "{e}");
    let e = refused(&["run", &whole, "--wav", &wav, "--state", "input_3=tf_op_layer_stack_2"]);
    assert!(e.contains("`--state`"), "{e}");
    for (right, wrong, words) in [
        ("conv1d_3", "conv1d_4", ["stage 2", "`conv1d_4`"]),
        ("input_2", "input_9", ["stage 1", "`input_9`"]),
        ("\"magnitude\"", "\"spectrum\"", ["stage 1", "514 numbers"]),
        ("gives = \"mask\"", "gives = \"spectrum\"", ["noisy_speech.wav", "257 numbers"]),
        ("frame = 512", "frame = 256", ["stage 1", "129 numbers"]),
        ("dtln_2.onnx", "dtln_3.onnx", ["dtln_3.onnx", ""]),
    ] {
        let (_dir, at) = dtln(|text| text.replace(right, wrong));
        let e = refused(&["run", &at, "--device", "cpu", "--wav", &wav]);
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
    }
}

#[test]
fn check_holds_outputs_against_arrays() {
    let dir = Folder::new();
    dir.write("mix.npy", &floats(&[1, 257, 1, 2]));
    let mix = format!("mix={}", dir.at("mix.npy"));
    let gtcrn = model("gtcrn.onnx");
    good(&["run", &gtcrn, "--device", "cpu", "--input", &mix, "--output", &format!("enh={}", dir.at("enh.npy"))]);
    let base = ["check", &gtcrn, "--device", "cpu", "--input", &mix];
    let right = format!("enh={}", dir.at("enh.npy"));
    let text = good(&[&base[..], &["--expect", &right]].concat());
    assert!(text.contains("enh: ok") && text.contains("gives what is expected"), "{text}");
    // One element more than the tolerance away.
    let mut changed = read_array(&dir.path("enh.npy"), "x").unwrap();
    let HostData::Float(v) = &mut changed.data else { panic!("floats") };
    v[100] += 0.01;
    dir.write("changed.npy", &changed);
    changed.shape = vec![257, 2];
    dir.write("shape.npy", &changed);
    for (file, word) in [("changed.npy", "element 100"), ("shape.npy", "has shape [1, 257, 1, 2]")] {
        let out = recurve(&[&base[..], &["--expect", &format!("enh={}", dir.at(file))]].concat());
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains("WRONG") && text.contains(word), "{text}");
    }
    let e = refused(&[&base[..], &["--expect", &format!("none={}", dir.at("enh.npy"))]].concat());
    assert!(e.contains("`--expect none`") && e.contains("`enh`"), "{e}");
}

#[test]
fn check_holds_a_native_model_against_arrays() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/g2pm.npz");
    let g = golden.to_str().unwrap();
    let (tokens, lengths) = (format!("tokens={g}:ids"), format!("lengths={g}"));
    let g2pm = model("g2pm.safetensors");
    let base = ["check", &g2pm, "--device", "cpu", "--input", &tokens, "--input", &lengths, "--expect"];
    // Outside the lengths the framework computed something else.
    let out = recurve(&[&base[..], &[&format!("logits={g}:ids")]].concat());
    assert_eq!(out.status.code(), Some(1));
    let dir = Folder::new();
    let output = format!("logits={}", dir.at("y.npy"));
    good(&["run", &g2pm, "--device", "cpu", "--input", &tokens, "--input", &lengths, "--output", &output]);
    assert!(good(&[&base[..], &[&output]].concat()).contains("logits: ok"));
    assert!(refused(&["check", &g2pm, "--against", "onnxruntime"]).contains("ONNX files"));
}

/// Whether Python has ONNX Runtime here.
fn has_onnxruntime() -> bool {
    Command::new("python3").args(["-c", "import onnxruntime"]).output().is_ok_and(|o| o.status.success())
}

#[test]
fn check_and_bench_go_beside_onnx_runtime_where_it_is() {
    for file in ["gtcrn.onnx", "silero_vad.onnx"] {
        let model = model(file);
        if !has_onnxruntime() {
            assert!(refused(&["check", &model, "--against", "onnxruntime"]).contains("--against onnxruntime"));
            continue;
        }
        let checked = json(&["check", &model, "--device", "cpu", "--against", "onnxruntime", "--tolerance", "1e-3"]);
        let nodes = checked["devices"][0]["nodes"].as_array().unwrap();
        assert!(nodes.len() > 20 && nodes.iter().all(|n| n["passed"] == true), "{file}: {} values", nodes.len());
        let times = ["--runs", "2", "--seconds", "0", "--device", "cpu"];
        let timed = json(&[&["bench", &model, "--against", "onnxruntime"], &times[..]].concat());
        let row = &timed["rows"][0];
        assert_eq!(row["what"], "frame");
        assert!(row["ratio"].as_f64().unwrap() > 0.0 && row["peer"]["ms_min"].as_f64().unwrap() > 0.0, "{row}");
    }
}

/// A program in the place of Python that says what is written in the test: what is compared, not who computed it.
#[cfg(unix)]
mod other_python {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn with_python(script: &str, dir: &Folder, args: &[&str]) -> Output {
        let bin = dir.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let python = bin.join("python3");
        std::fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).env("PATH", path).output().unwrap()
    }

    #[test]
    fn a_wrong_reference_is_noticed_at_the_first_node_that_departs() {
        let dir = Folder::new();
        dir.write("mix.npy", &floats(&[1, 257, 1, 2]));
        let mix = format!("mix={}", dir.at("mix.npy"));
        let gtcrn = model("gtcrn.onnx");
        // What is right of two nodes, by the command itself.
        let mut names = Vec::new();
        for (n, node) in ["Conv_75", "Conv_77"].iter().enumerate() {
            let made = json(&["run", &gtcrn, "--device", "cpu", "--input", &mix, "--until", node]);
            let name = made["outputs"][0]["output"].as_str().unwrap().to_owned();
            let to = format!("{name}={}", dir.at(&format!("v{n}.npy")));
            good(&["run", &gtcrn, "--device", "cpu", "--input", &mix, "--until", node, "--output", &to]);
            names.push(name);
        }
        let args = ["check", &gtcrn, "--device", "cpu", "--against", "onnxruntime", "--input", &mix];
        let list = format!(
            r#"{{"version":"0","values":[{{"name":"{}","file":"v0.npy"}},{{"name":"{}","file":"v1.npy"}}]}}"#,
            names[0], names[1]
        );
        let script = format!("cp {0}/v0.npy {0}/v1.npy $3; echo '{list}' > $3/values.json", dir.0.path().display());
        let out = with_python(&script, &dir, &args);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.contains("2 of 2 values agree"), "{text}");
        let mut wrong = read_array(&dir.path("v1.npy"), "x").unwrap();
        let HostData::Float(v) = &mut wrong.data else { panic!("floats") };
        v[3] += 1e-2;
        dir.write("v1.npy", &wrong);
        let out = with_python(&script, &dir, &args);
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains("first that departs is node `Conv_77`") && text.contains("1 of 2"), "{text}");
        // Nothing to compare is no agreement.
        let nothing = "echo '{\"version\":\"0\",\"values\":[]}' > $3/values.json";
        assert_eq!(with_python(nothing, &dir, &args).status.code(), Some(1));
    }

    #[test]
    fn a_python_that_cannot_is_an_error() {
        let dir = Folder::new();
        let gtcrn = model("gtcrn.onnx");
        for command in ["check", "bench"] {
            let args = [command, &gtcrn, "--device", "cpu", "--against", "onnxruntime"];
            let out = with_python("echo \"No module named 'onnxruntime': install it\" >&2; exit 1", &dir, &args);
            let text = String::from_utf8(out.stderr).unwrap();
            assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{text}");
            assert!(text.contains("--against onnxruntime") && text.contains("No module named"), "{text}");
            let none = Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).env("PATH", dir.path("none")).output();
            let text = String::from_utf8(none.unwrap().stderr).unwrap();
            assert!(text.contains("runs Python, which cannot be started"), "{text}");
        }
    }
}

#[test]
fn bench_times_a_model() {
    let times = ["--runs", "2", "--seconds", "0", "--device", "cpu"];
    let gtcrn = model("gtcrn.onnx");
    let text = good(&[&["bench", &gtcrn], &times[..]].concat());
    assert!(text.contains("a frame: mix [1, 257, 1, 2]") && text.contains("times real time"), "{text}");
    let stars = json(&[&["bench", &model("numbers_encoder.safetensors"), "--seq", "4,6"], &times[..]].concat());
    assert!(stars["rows"].as_array().unwrap().len() >= 2, "{stars}");
    let dir = Folder::new();
    dir.write("mix.npy", &floats(&[1, 257, 1, 2]));
    let mix = format!("mix={}", dir.at("mix.npy"));
    assert!(good(&[&["bench", &gtcrn, "--input", &mix], &times[..]].concat()).contains("a frame"));
    assert!(refused(&["bench", &gtcrn, "--input", "3"]).contains("NAME=FILE"));
    assert!(refused(&["bench", "--input", &mix]).contains("not given"));
    for option in [["--cell", "gru"], ["--hidden", "8"], ["--strategy", "scan"], ["--csv", "a.csv"]] {
        let out = recurve(&[&["bench", &gtcrn], &option[..]].concat());
        assert_eq!(out.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&out.stderr).contains("cannot be used with"), "{option:?}");
    }
}

#[test]
fn plot_draws_graphs() {
    let dir = Folder::new();
    let draw = |name: &str, more: &[&str]| {
        let to = dir.at("m.svg");
        good(&[&["plot", &model(name), "-o", &to], more].concat());
        std::fs::read_to_string(to).unwrap()
    };
    let gtcrn = draw("gtcrn.onnx", &[]);
    for part in
        ["Bidirectional GRU", "16 units", "conv_cache_out", "State", "Next state", "elementwise, shapes", "Conv + "]
    {
        assert!(gtcrn.contains(part), "{part}");
    }
    let boxes = |svg: &str| svg.matches("<g><title>").count();
    let every = draw("gtcrn.onnx", &["--every-node"]);
    assert!(boxes(&gtcrn) * 2 < boxes(&every), "{} of {}", boxes(&gtcrn), boxes(&every));
    // Every node is there, and every input and output.
    let nodes = json(&["summary", &model("gtcrn.onnx")])["nodes"].as_array().unwrap().len();
    assert_eq!(boxes(&every), nodes + 8);
    let silero = draw("silero_vad.onnx", &[]);
    assert!(silero.contains("LSTM") && silero.contains("then ") && silero.contains("stateN"));
    assert!(draw("g2pm.safetensors", &[]).contains("Bidirectional LSTM"));
    let png = dir.path("m.png");
    good(&["plot", &model("gtcrn.onnx"), "-o", png.to_str().unwrap()]);
    assert!(std::fs::metadata(png).unwrap().len() > 100_000);
}
