//! Tests of the `recurve` command, run as a program.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn recurve(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).output().unwrap()
}

fn good(args: &[&str]) -> String {
    let out = recurve(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn bad(args: &[&str], code: i32) -> String {
    let out = recurve(args);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stderr).unwrap()
}

fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/g2pm.safetensors").to_str().unwrap().to_owned()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/g2pm.npz")
}

/// A selector for the GPU that the tests use.
fn gpu() -> String {
    let list: Value = serde_json::from_str(&good(&["devices", "--json"])).unwrap();
    let first = list["adapters"].get(0).expect("the tests need a GPU adapter: run `cargo xtask test`");
    format!("{}:{}", first["backend"].as_str().unwrap(), first["name"].as_str().unwrap())
}

#[test]
fn devices() {
    let text = good(&["devices"]);
    assert!(text.contains("cpu") && text.contains("--device auto picks"), "{text}");
    let json: Value = serde_json::from_str(&good(&["devices", "--json", "--device", &gpu()])).unwrap();
    assert_eq!(json["adapters"].as_array().unwrap().len(), 1);
    assert!(json["cpu"].is_null());
    assert!(!good(&["devices", "--device", "cpu"]).contains("vulkan"));
}

#[test]
fn run_reads_text_on_the_cpu_and_the_gpu() {
    for device in ["cpu".to_owned(), gpu()] {
        let text = good(&["run", &model(), "--text", "银行行长", "--device", &device]);
        assert!(text.contains("银行(hang2)行(xing2)长(zhang3)"), "{text}");
        assert!(text.contains("device:") && text.contains("ms for 4 characters"), "{text}");
        let json: Value =
            serde_json::from_str(&good(&["run", &model(), "--text", "银行", "--json", "--device", &device])).unwrap();
        assert_eq!(json["readings"][0]["label"], "hang2");
    }
}

#[test]
fn run_takes_arrays_and_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let input = golden();
    let input = input.to_str().unwrap();
    for (device, name) in [("cpu".to_owned(), "a.npy"), (gpu(), "a.npz")] {
        let file = dir.path().join(name);
        good(&[
            "run",
            &model(),
            "--device",
            &device,
            "--input",
            &format!("tokens={input}:ids"),
            "--input",
            &format!("lengths={input}"),
            "--output",
            &format!("logits={}", file.display()),
        ]);
        let a = recurve::read_array(&file, "logits").unwrap();
        assert_eq!(a.shape, [5, 25, 876]);
    }
}

#[test]
fn check_passes_and_fails_with_its_exit_code() {
    let text = good(&["check", &model()]);
    assert!(text.contains("bidirectional") && text.contains("every device agrees"), "{text}");
    let out = recurve(&["check", &model(), "--device", "cpu", "--tolerance", "1e-9"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stdout).unwrap().contains("WRONG"));
    let json: Value = serde_json::from_str(&good(&["check", &model(), "--json", "--device", "cpu"])).unwrap();
    assert_eq!(json["passed"], true);
}

#[test]
fn summary_prints_keras_table() {
    let text = good(&["summary", &model()]);
    assert!(text.contains("Total params: 401,548") && text.contains("(None, None, 876)"), "{text}");
    let json: Value = serde_json::from_str(&good(&["summary", &model(), "--json"])).unwrap();
    assert_eq!(json["total_params"], 401_548);
}

#[test]
fn convert_writes_onnx_that_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (onnx, own) = (path("m.onnx"), path("m.safetensors"));
    let text = good(&["convert", &model(), "-o", &onnx, "--lengths"]);
    assert!(text.contains("vocabulary is not in the ONNX file"), "{text}");
    good(&["convert", &model(), "-o", &own]);
    let (tokens, lengths) = (format!("tokens={}:ids", golden().display()), format!("lengths={}", golden().display()));
    let run = |file: &str, out: &str| {
        let output = format!("logits={}", path(out));
        good(&["run", file, "--input", &tokens, "--input", &lengths, "--output", &output]);
        recurve::read_array(Path::new(&path(out)), "logits").unwrap().to_f32()
    };
    let (a, b) = (run(&model(), "a.npy"), run(&onnx, "b.npy"));
    assert!(a == run(&own, "c.npy"), "the same model");
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4), "two orders of the same sums");
    assert!(a.iter().any(|v| v.abs() > 1.0));

    let said = bad(&["convert", &onnx, "-o", &path("again.onnx")], 2);
    assert!(said.contains("takes as it is"), "{said}");
    bad(&["convert", &model(), "-o", &path("m.txt")], 2);
    bad(&["convert", &model(), "-o", &path("n.safetensors"), "--states"], 2);
    bad(&["convert", &model(), "-o", &onnx, "--mask", "--lengths"], 2);
}

#[test]
fn seed_row_8_a_picture_of_a_model_with_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("m.svg");
    good(&["plot", &model(), "-o", svg.to_str().unwrap()]);
    let text = std::fs::read_to_string(&svg).unwrap();
    for part in ["Embedding", "Bidirectional", "(None, None, 876)", "28,908 parameters", "g2pM"] {
        assert!(text.contains(part), "{part}");
    }
    let png = dir.path().join("m.png");
    let json = good(&["plot", &model(), "-o", png.to_str().unwrap(), "--device", "cpu", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["model"], "g2pM");
    let bytes = std::fs::read(&png).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    // The PNG header contains width and height; rendered text makes the file larger than plain boxes would.
    assert_eq!(u32::from_be_bytes(bytes[16..20].try_into().unwrap()), 1040);
    assert!(bytes.len() > 20_000, "{} bytes: the text is missing", bytes.len());
    assert!(bad(&["plot", &model(), "-o", "m.gif"], 2).contains(".svg or .png"));
}

#[test]
fn bench_writes_csv_and_a_plot() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, svg) = (dir.path().join("b.csv"), dir.path().join("b.svg"));
    let devices = format!("cpu,{}", gpu().split(',').next().unwrap());
    let text = good(&[
        "bench",
        "--cell",
        "lstm,gru,rnn",
        "--seq",
        "2,5",
        "--batch",
        "1",
        "--input",
        "3",
        "--hidden",
        "8",
        "--device",
        &devices,
        "--strategy",
        "all",
        "--runs",
        "2",
        "--seconds",
        "0",
        "--csv",
        csv.to_str().unwrap(),
        "--svg",
        svg.to_str().unwrap(),
    ]);
    assert!(text.contains("ms median"), "{text}");
    let csv = std::fs::read_to_string(csv).unwrap();
    let mut lines = csv.lines();
    assert_eq!(
        lines.next().unwrap(),
        "device,backend,driver,cell,T,B,I,H,dtype,strategy,ms_median,ms_p10,ms_p90,gpu_ms,encode_ms,gflops,roofline,layout"
    );
    // Two lengths, three cells, and four rows each: the CPU and three strategies.
    assert_eq!(lines.count(), 2 * 3 * 4);
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("timesteps T") && svg.contains("polyline"));
    let json: Value = serde_json::from_str(&good(&[
        "bench",
        "--seq",
        "2",
        "--input",
        "2",
        "--hidden",
        "2",
        "--device",
        "cpu",
        "--runs",
        "1",
        "--seconds",
        "0",
        "--json",
    ]))
    .unwrap();
    assert_eq!(json[0]["T"], 2);
}

/// The rows of a benchmark of one LSTM on the GPU, with these environment variables.
fn bench_rows(strategy: &str, hidden: &str, variables: &[(&str, &str)]) -> (Vec<Value>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_recurve"))
        .args(["bench", "--seq", "6", "--batch", "2", "--input", "3", "--hidden", hidden])
        // Only the first device: a comma would separate devices.
        .args(["--device", gpu().split(',').next().unwrap()])
        .args(["--strategy", strategy, "--runs", "2", "--seconds", "0", "--json"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{errors}");
    (serde_json::from_slice(&out.stdout).unwrap(), errors)
}

/// A measured choice is made once and stored in a file, by adapter and shape. Choices that do not exist and invalid
/// lines have no effect.
#[test]
fn tuning_keeps_its_choice_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deep/tuning.tsv");
    let run = |hidden: &str| bench_rows("tuned", hidden, &[("RECURVE_TUNING_FILE", file.to_str().unwrap())]).0;
    run("24");
    let once = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = once.lines().collect();
    assert_eq!(lines.len(), 1);
    let (key, choice) = lines[0].split_once('\t').unwrap();
    for part in ["lstm f32 I3 H24 D1 B2 T8", env!("CARGO_PKG_VERSION")] {
        assert!(key.contains(part), "{key}");
    }
    let kind = choice.split(' ').next().unwrap();
    assert!(["scan", "step", "grid"].contains(&kind), "{choice}");
    // A second process finds the choice and adds nothing to the file.
    let by = run("24")[0]["strategy"].as_str().unwrap().to_owned();
    // `grid` may fall back to `step`: workgroups that ran at the same time when measured need not do so again.
    assert!(by == kind || (kind == "grid" && by == "step"), "{by} in place of {choice}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), once);
    // Another size has its own choice; an invalid choice is measured again.
    run("8");
    std::fs::write(&file, format!("nonsense\n{key}\tscan rows 99 split 77\n")).unwrap();
    run("24");
    let again = std::fs::read_to_string(&file).unwrap();
    assert!(again.starts_with("nonsense\n") && again.lines().count() == 3, "{again}");
    // `auto` uses a measured choice even of another strategy than its default, and writes nothing to the file.
    bench_rows("auto", "24", &[("RECURVE_TUNING_FILE", file.to_str().unwrap())]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), again);
    // An empty name disables the file.
    bench_rows("tuned", "8", &[("RECURVE_TUNING_FILE", "")]);
    // Anything but a regular file is ignored; reading a device may never end.
    #[cfg(unix)]
    for other in ["/dev/zero", "/dev/full", "/"] {
        bench_rows("tuned", "8", &[("RECURVE_TUNING_FILE", other)]);
    }
}

/// With one thread, lavapipe runs workgroups one after another, so `grid` with several workgroups is refused, and left
/// out of lists of strategies. Other adapters ignore the variable and may run workgroups at the same time.
#[test]
fn grid_is_refused_where_workgroups_do_not_run_together() {
    let one_thread = [("LP_NUM_THREADS", "1")];
    let (rows, errors) = bench_rows("all", "160", &one_thread);
    let by: Vec<_> = rows.iter().map(|r| r["strategy"].as_str().unwrap()).collect();
    let software = rows[0]["device"].as_str().unwrap().contains("llvmpipe");
    assert!(by.contains(&"scan") && by.contains(&"step"), "{rows:?}");
    if software {
        assert!(!by.contains(&"grid") && errors.contains("workgroups at the same time"), "{errors}");
    }
    // A single workgroup waits for no other.
    let (rows, _) = bench_rows("grid", "16", &one_thread);
    assert_eq!(rows[0]["strategy"], "grid");
}

#[test]
fn wrong_use_and_bad_input_exit_with_2_and_help() {
    assert!(bad(&["frobnicate"], 2).contains("Usage"));
    assert!(bad(&["run", &model(), "--device", "cuda", "--text", "a"], 2).contains("gpu:NAME"));
    assert!(bad(&["run", &model(), "--device", "gpu:none such", "--text", "a"], 2).contains("available"));
    assert!(bad(&["run", "nothing.safetensors", "--text", "a"], 2).contains("nothing.safetensors"));
    assert!(bad(&["run", &model()], 2).contains("--input tokens=FILE"));
    assert!(bad(&["run", &model(), "--input", "tokens"], 2).contains("NAME=FILE"));
    assert!(bad(&["run", &model(), "--text", "a", "--output", "y=f.npy"], 2).contains("logits"));
    assert!(bad(&["bench", "--seq", "0"], 2).contains("at least 1"));
    assert!(bad(&["bench", "--shape", "1,2,3"], 2).contains("T,B,I,H"));
    let junk = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(junk.path(), b"not a model").unwrap();
    assert!(bad(&["summary", junk.path().to_str().unwrap()], 2).contains("safetensors"));
}

/// The error message of a refused call, which must be the only output and one line.
fn refused(args: &[&str]) -> String {
    let text = bad(args, 2);
    let shown: Vec<_> = args.iter().map(|a| a.chars().take(60).collect::<String>()).collect();
    assert!(text.starts_with("error: ") && text.ends_with('\n'), "{shown:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{shown:?}: {text}");
    assert!(text.len() < 1500 && !text.contains("panicked"), "{shown:?}: {text}");
    text
}

/// The options of a command that take a value, from its help.
fn options(command: &str) -> Vec<String> {
    let help = good(&[command, "--help"]);
    let lines = help.lines().filter(|l| l.trim_start().starts_with('-') && l.contains('<'));
    lines.map(|l| l.split("--").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

const SIZES: [&str; 18] = [
    "0",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    "1_000",
    "nan",
    "inf",
    "",
    " ",
    "x",
    "\u{ff11}",
    "4294967296",
    "99999999999",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "\u{1b}[31m",
];
const NUMBERS: [&str; 9] = ["-1", "-0.1", "nan", "inf", "-inf", "1e999", "", "x", "1,5"];

/// Every option that takes a number is called with numbers that are too large or otherwise invalid; all are refused at
/// once. The test fails if a command gets an option that it does not list.
#[test]
fn numbers_that_make_no_sense_are_refused() {
    let model = model();
    let long = "9".repeat(50_000);
    // For each command, its options and what they take.
    type Takes<'a> = &'a [(&'a str, &'a [&'a str])];
    let kinds: [(&str, &[&str], Takes<'_>); 7] = [
        ("devices", &[], &[("", &["device"])]),
        (
            "run",
            &[&model],
            &[("", &["input", "output", "text", "until", "state", "wav", "wav-output", "audio", "weights", "device"])],
        ),
        ("summary", &[&model], &[("", &["state", "weights", "device"])]),
        ("convert", &[&model], &[("", &["output", "weights"])]),
        ("plot", &[&model], &[("", &["output", "state", "weights", "device"])]),
        (
            "check",
            &[&model, "--device", "cpu"],
            &[
                ("size", &["batch", "seq"]),
                ("number", &["tolerance"]),
                ("", &["input", "expect", "against", "weights", "device"]),
            ],
        ),
        (
            "bench",
            &["--device", "cpu"],
            &[
                ("size", &["seq", "batch", "input", "hidden", "runs"]),
                ("number", &["seconds"]),
                ("shape", &["shape"]),
                ("", &["state", "against", "cell", "weights", "device", "strategy", "csv", "svg"]),
            ],
        ),
    ];
    for (command, first, kinds) in kinds {
        let mut listed: Vec<_> = kinds.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut there = options(command);
        listed.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, listed, "the options of {command}");
        for (kind, names) in kinds {
            let values: Vec<String> = match *kind {
                "size" => SIZES.iter().map(|v| (*v).to_owned()).chain([long.clone()]).collect(),
                "number" => NUMBERS.iter().map(|v| (*v).to_owned()).collect(),
                "shape" => SIZES
                    .iter()
                    .map(|v| format!("4,{v},4,4"))
                    .chain(["1,2,3", "1,2,3,4,5", "", ",,,", "16777216,1,16777216,1"].map(String::from))
                    .collect(),
                _ => continue,
            };
            for name in *names {
                for value in &values {
                    let option = format!("--{name}={value}");
                    refused(&[&[command], first, &[option.as_str()]].concat());
                }
                refused(&[&[command], first, &[&format!("--{name}"), "-1"]].concat());
            }
        }
    }
    // Each value is allowed alone, but together they are too large.
    let most = "16777216";
    assert!(refused(&["bench", "--seq", most, "--batch", most]).contains("at most 536870912"));
    assert!(refused(&["bench", "--hidden", most]).contains("weights"));
    assert!(refused(&["check", &model, "--batch", most, "--seq", most, "--device", "cpu"]).contains("outputs"));
    let many = vec!["1"; 2000].join(",");
    assert!(refused(&["bench", "--seq", &many, "--batch", &many]).contains("4000000 combinations"));
}

#[test]
fn what_is_given_twice_or_not_there_is_refused() {
    let input = golden();
    let input = input.to_str().unwrap();
    let ids = format!("tokens={input}:ids");
    for command in ["run", "check"] {
        let twice = refused(&[command, &model(), "--device", "cpu", "--input", &ids, "--input", &ids]);
        assert!(twice.contains("`tokens` is given twice"), "{twice}");
        let none = refused(&[command, &model(), "--device", "cpu", "--input", &format!("tokens={input}:none")]);
        assert!(none.contains("no array `none`; it has ids, lengths, logits"), "{none}");
    }
    let e = refused(&["bench", "--csv", "a", "--svg", "a"]);
    assert!(e.contains("same file"), "{e}");
}

/// A Keras file of the fuzz target's corpus.
fn keras(name: &str) -> String {
    format!("{}/../../fuzz/corpus/keras/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn keras_files_are_models() {
    for name in ["old.h5", "stored.keras"] {
        let run = |args: &[&str]| {
            let out = Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).output().unwrap();
            assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let summary = run(&["summary", &keras(name)]);
        for line in ["a (LSTM)", "b (Dense)", "b/activation (Activation)"] {
            assert!(summary.contains(line), "{line}: {summary}");
        }
        assert!(run(&["check", &keras(name), "--device", "cpu"]).contains("agrees"));
    }
    let out =
        Command::new(env!("CARGO_BIN_EXE_recurve")).args(["summary", &keras("bad_lambda.keras")]).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text.contains("this Keras file cannot be run:\n  layer `code` (Lambda): is code of its own"), "{text}");
    let e = refused(&["summary", &keras("old.h5"), "--weights", &keras("none.h5")]);
    assert!(e.contains("none.h5"), "{e}");
}

#[test]
fn simd_that_this_processor_has_not_is_refused() {
    for (value, model_too) in [("bogus", true), ("AVX2", true), ("neon,avx2", false)] {
        let model = model();
        for args in [&["devices"][..], &["summary", &model], &["bench"]] {
            let out =
                Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).env("RECURVE_SIMD", value).output().unwrap();
            let text = String::from_utf8(out.stderr).unwrap();
            assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{args:?}: {text}");
            assert!(text.contains(&format!("`RECURVE_SIMD` is `{value}`")) && text.contains("scalar"), "{text}");
            if !model_too {
                break;
            }
        }
    }
    let out = Command::new(env!("CARGO_BIN_EXE_recurve")).arg("devices").env("RECURVE_SIMD", "").output().unwrap();
    assert!(out.status.success());
}

/// Errors quote names and arguments, but shortened, and with control characters escaped.
#[test]
fn messages_are_short_and_plain() {
    let long = "x".repeat(100_000);
    refused(&["summary", &long]);
    refused(&["devices", "--device", &format!("gpu:{long}")]);
    refused(&["run", &model(), "--text", "a", "--output", &format!("{long}=f.npy")]);
    refused(&["summary", "a\u{1b}[31m\nb"]);
    for unknown in [vec![long.as_str()], vec!["bench", "--cell", &long], vec!["devices", &long]] {
        let text = bad(&unknown, 2);
        assert!(text.len() < 4000, "{} bytes", text.len());
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.safetensors");
    let layers = format!(r#"{{\"version\":1,\"{long}\u001b\":[{long}"#);
    let header = format!(r#"{{"__metadata__":{{"recurve":"{layers}"}}}}"#);
    std::fs::write(&file, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let text = refused(&["summary", file.to_str().unwrap()]);
    assert!(text.contains("bad model description") && !text.contains('\u{1b}'), "{text}");
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    /// Paths that are not regular files: devices that never end or always fail, folders.
    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (pipe, sparse, npy, npz) = (at("pipe"), at("sparse"), at("sparse.npy"), at("sparse.npz"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for file in [&sparse, &npy, &npz] {
            std::fs::File::create(file).unwrap().set_len(1 << 40).unwrap();
        }
        let folder = dir.path().to_str().unwrap();
        for path in [&pipe, folder, "/dev/zero", "/dev/stdin", "/dev/null", &sparse, &npy, &npz, ""] {
            refused(&["summary", path]);
            let input = format!("tokens={path}");
            let text = bad(&["run", &model(), "--device", "cpu", "--input", &input], 2);
            assert!(text.starts_with("error: ") && text.len() < 1500, "{path}: {text}");
        }
    }

    /// Runs `recurve` with standard output on a full disk.
    #[cfg(target_os = "linux")]
    fn onto_a_full_disk(args: &[&str]) -> (Option<i32>, String) {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_recurve")).args(args).stdout(full).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (model, svg) = (model(), at("m.svg"));
        let bench = ["bench", "--seq", "2", "--input", "2", "--hidden", "2", "--device", "cpu", "--runs", "1"];
        let bench = [&bench[..], &["--seconds", "0"]].concat();
        for args in [
            &["summary", &model][..],
            &["summary", &model, "--json"],
            &["run", &model, "--device", "cpu", "--text", "a"],
            &["run", &model, "--device", "cpu", "--text", "a", "--json"],
            &["devices"],
            &["devices", "--json"],
            &["plot", &model, "-o", &svg],
            &["check", &model, "--device", "cpu", "--seq", "2"],
            &["check", &model, "--device", "cpu", "--seq", "2", "--json"],
            &bench,
            &[&bench[..], &["--json"]].concat(),
            &["--help"],
            &["--version"],
        ] {
            let (code, text) = onto_a_full_disk(args);
            assert_eq!((code, text.lines().count()), (Some(2), 1), "{args:?}: {text}");
            assert!(text.contains("standard output"), "{args:?}: {text}");
        }
        // Output files too; an unwritable one is reported before anything is measured.
        for option in ["--csv", "--svg"] {
            let text = bad(&[&bench[..], &[option, "/dev/full"]].concat(), 2);
            assert!(text.contains("/dev/full"), "{text}");
            let out = recurve(&[&bench[..], &[option, &at("none/a")]].concat());
            assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0));
        }
        assert!(bad(&["plot", &model, "-o", &at("none/a.svg")], 2).contains("none/a.svg"));
        // If the error message cannot be printed either, the exit code still reports the failure.
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_recurve")).args(["summary", "none"]).stderr(full).status();
        assert_eq!(status.unwrap().code(), Some(2));
    }

    /// Like `recurve summary | head -1`.
    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        for args in [&["summary", &model()][..], &["run", &model(), "--device", "cpu", "--text", "行", "--json"]] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_recurve"))
                .args(args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            drop(child.stdout.take());
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert!(child.wait().unwrap().success() && text.is_empty(), "{args:?}: {text}");
        }
    }

    /// If an output cannot be written completely, the existing file is kept and no temporary file remains.
    #[test]
    fn a_failed_output_leaves_the_earlier_file() {
        let dir = tempfile::tempdir().unwrap();
        let input = golden();
        let tokens = format!("tokens={}:ids", input.display());
        for name in ["a.npy", "a.npz"] {
            let file = dir.path().join(name);
            std::fs::write(&file, b"precious").unwrap();
            let output = format!("logits={}", file.display());
            // A limit on file size acts like a full disk.
            let out = Command::new("sh")
                .args(["-c", r#"trap "" XFSZ; ulimit -f 8; exec "$0" "$@""#, env!("CARGO_BIN_EXE_recurve")])
                .args(["run", &model(), "--device", "cpu", "--input", &tokens, "--output", &output])
                .output()
                .unwrap();
            let text = String::from_utf8(out.stderr).unwrap();
            assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{text}");
            assert!(text.contains(name), "{text}");
            assert_eq!(std::fs::read(&file).unwrap(), b"precious");
            good(&["run", &model(), "--device", "cpu", "--input", &tokens, "--output", &output]);
            assert_eq!(recurve::read_array(&file, "logits").unwrap().shape, [5, 25, 876]);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

/// Weights of PyTorch: the modules of a file, and every command on a network that a description assembles.
#[test]
fn weights_of_pytorch() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pytorch_files");
    let file = fixtures.join("lightning.ckpt");
    let file = file.to_str().unwrap();
    let text = good(&["summary", file]);
    assert!(text.contains("rnn        LSTM, guessed") || text.contains("2 layers, bidirectional, biases"), "{text}");
    assert!(text.contains("the weights are those under `state_dict`") && text.contains("`model`"), "{text}");
    let json: Value = serde_json::from_str(&good(&["summary", file, "--json"])).unwrap();
    let kinds: Vec<_> = json["modules"].as_array().unwrap().iter().map(|m| m["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Linear or Embedding", "Linear", "LayerNorm or GroupNorm", "LSTM"]);

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::copy(file, path("tagger.ckpt")).unwrap();
    let head = "weights = \"tagger.ckpt\"\nignore = [\"norm.*\"]\n";
    let layers = ["embedding", "rnn", "head"].map(|from| {
        let kind = if from == "rnn" {
            "LSTM"
        } else if from == "head" {
            "Linear"
        } else {
            "Embedding"
        };
        format!("[[layers]]\nkind = \"{kind}\"\nfrom = \"{from}\"\n")
    });
    std::fs::write(path("net.toml"), format!("{head}{}", layers.concat())).unwrap();
    let text = good(&["summary", &path("net.toml")]);
    assert!(text.contains("Embedding") && text.contains("Bidirectional") && text.contains("Dense"), "{text}");
    recurve::write_array(Path::new(&path("x.npy")), "x", &[1, 3], &[0.0, 1.0, 4.0]).unwrap();
    let e = bad(&["run", &path("net.toml"), "--input", &format!("input={}", path("x.npy")), "--device", "cpu"], 2);
    assert!(e.contains("integers are needed"), "{e}");
    let text = good(&["check", &path("net.toml"), "--device", "cpu"]);
    assert!(text.contains("every device agrees"), "{text}");
    good(&["plot", &path("net.toml"), "-o", &path("net.svg")]);

    let e = bad(&["run", file, "--input", "x=x.npy"], 2);
    assert!(e.contains("recurve summary") && e.contains("TOML"), "{e}");
    let e = bad(&["summary", fixtures.join("bad_system.pt").to_str().unwrap()], 2);
    assert!(e.contains("posix.system"), "{e}");
    std::fs::write(path("net.toml"), format!("{head}{}", layers[1])).unwrap();
    let e = bad(&["summary", &path("net.toml")], 2);
    assert!(e.contains("no layer uses the weights embedding.weight, head.bias, head.weight"), "{e}");
}
