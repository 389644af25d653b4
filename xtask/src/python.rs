//! `cargo xtask python [ARGUMENTS FOR PYTEST]`: builds the wheel of the Python package, installs it into an empty
//! virtual environment, and runs its tests there: `python/tests`, the examples in docstrings, and the code of
//! `docs/python`. Everything is kept below `target/python`; Python's packages come from its package index.

use crate::{Outcome, cargo, command, drivers, output, root, run, run_tests};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What builds wheels.
const MATURIN: &str = "maturin==1.16.0";
/// What runs the tests.
const PYTEST: &str = "pytest==9.2.0";
/// What checks Python code, and the packages whose types it reads.
const LINTERS: [&str; 3] = ["ruff==0.17.6", "mypy==2.4.1", "numpy>=2"];
/// Packages that some tests need: the module that these import, and what to install for it. Those for which the
/// package index has no wheel for this Python are left out, and their tests are skipped and counted. PyTorch is left out
/// because of its size; Keras's backend for numpy imports SciPy and JAX.
const BESIDE: [(&str, &[&str]); 3] = [
    ("keras", &["keras>=3.8,<4", "h5py", "ml_dtypes", "scipy", "jax"]),
    ("onnxruntime", &["onnxruntime", "onnx"]),
    ("ray", &["ray[data,train,serve]>=2.60,<3"]),
];
/// The oldest Python that the package supports.
const OLDEST: (u32, u32) = (3, 10);
/// Bytes that a wheel may have.
const MOST: u64 = 15_000_000;

/// A folder below `target/python`. Cargo builds the package there too.
fn folder(name: &str) -> PathBuf {
    root().join("target/python").join(name)
}

/// A virtual environment.
struct Environment(PathBuf);

impl Environment {
    /// Creates it, empty.
    fn new(python: &Path, name: &str) -> Outcome<Self> {
        let at = folder("environments").join(name);
        let mut c = command(python);
        c.args(["-m", "venv", "--clear"]).arg(&at);
        run(c)?;
        Ok(Self(at))
    }

    /// One with these packages, which is kept from an earlier run if it has them.
    fn with(python: &Path, name: &str, packages: &[&str]) -> Outcome<Self> {
        let at = folder("environments").join(name);
        let (stamp, wanted) = (at.join("packages"), packages.join("\n"));
        if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(Self(at));
        }
        let made = Self::new(python, name)?;
        made.install(packages)?;
        std::fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
        Ok(made)
    }

    fn path(&self, program: &str) -> PathBuf {
        let folder = if cfg!(windows) { "Scripts" } else { "bin" };
        self.0.join(folder).join(format!("{program}{}", env::consts::EXE_SUFFIX))
    }

    /// A program of the environment that sees nothing of other ones.
    fn program(&self, program: &str) -> Command {
        let mut c = command(self.path(program));
        c.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env("PYTHONNOUSERSITE", "1").env("VIRTUAL_ENV", &self.0);
        c
    }

    fn pip(&self, arguments: &[&str]) -> Command {
        let mut c = self.program("python");
        c.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]).args(arguments);
        c
    }

    /// Installs packages from wheels only, so that nothing is compiled.
    fn install(&self, packages: &[&str]) -> Outcome {
        let mut c = self.pip(&["install", "--quiet", "--only-binary", ":all:"]);
        c.args(packages);
        run(c)
    }

    /// Names of the packages that it has, besides those that every environment has.
    fn packages(&self) -> Outcome<Vec<String>> {
        let list = output(self.pip(&["list", "--format", "freeze"]))?;
        let names = list.lines().filter_map(|l| l.split("==").next()).map(str::to_lowercase);
        let mut names: Vec<_> = names.filter(|n| !["pip", "setuptools", "wheel"].contains(&&n[..])).collect();
        names.sort();
        Ok(names)
    }
}

/// A Python that is not too old and makes virtual environments: `PYTHON`, else `python3`. Debian's packages are
/// installed if it lacks them.
fn python() -> Outcome<PathBuf> {
    let name = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let python = PathBuf::from(&name);
    let ask = |code: &str| {
        let out = command(&python).args(["-c", code]).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let complete = || ask("import ensurepip, venv").is_some();
    if !complete() {
        drivers::install(&["python3", "python3-venv"])
            .map_err(|e| format!("{e}; the Python package needs Python {}.{} with `venv`", OLDEST.0, OLDEST.1))?;
        if !complete() {
            return Err(format!("{} has no `venv` and `ensurepip`; PYTHON names another one", python.display()));
        }
    }
    let version = ask("import sys; print(*sys.version_info[:2])").unwrap_or_default();
    let mut numbers = version.split(' ').filter_map(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(python),
        _ => Err(format!(
            "{} is Python {version:?}, but the package needs {}.{}; PYTHON names another one",
            python.display(),
            OLDEST.0,
            OLDEST.1
        )),
    }
}

/// Builds the wheel and returns its path. Its size and the name of its platform are checked by maturin and here.
fn wheel(tools: &Environment) -> Outcome<PathBuf> {
    let out = folder("wheels");
    if out.exists() {
        std::fs::remove_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    let mut c = tools.program("maturin");
    c.args(["build", "--release", "--locked", "--manifest-path", "python/Cargo.toml", "--out"]).arg(&out);
    c.env("CARGO_TARGET_DIR", folder(""));
    run(c)?;
    let files = std::fs::read_dir(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let wheels: Vec<_> =
        files.flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "whl")).collect();
    let [wheel] = &wheels[..] else { return Err(format!("expected one wheel, got {wheels:?}")) };
    let bytes = std::fs::metadata(wheel).map_err(|e| format!("{}: {e}", wheel.display()))?.len();
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    eprintln!("xtask: {name} has {:.1} MB", bytes as f64 / 1e6);
    if bytes > MOST {
        return Err(format!("{name} has {bytes} bytes, but {MOST} at most are wanted"));
    }
    // One wheel serves every Python from the oldest.
    let abi = format!("cp{}{}-abi3", OLDEST.0, OLDEST.1);
    if !name.contains(&abi) {
        return Err(format!("{name} is not for {abi}"));
    }
    if cfg!(target_os = "linux") && !name.contains("manylinux") && !name.contains("musllinux") {
        return Err(format!("{name} needs libraries that not every Linux has"));
    }
    Ok(wheel.clone())
}

/// Builds, installs and tests the Python package.
pub(crate) fn python_package(arguments: &[String]) -> Outcome {
    let began = Instant::now();
    let python = python()?;
    let tools = Environment::with(&python, "tools", &[MATURIN])?;
    let wheel = wheel(&tools)?;
    let built = began.elapsed();

    let clean = Environment::new(&python, "clean")?;
    let mut install = clean.pip(&["install", "--quiet"]);
    install.arg(&wheel);
    run(install)?;
    let packages = clean.packages()?;
    if packages != ["numpy", "recurve"] {
        return Err(format!("the wheel brings {packages:?}, expected numpy only"));
    }
    // The package works with nothing else there.
    let mut import = clean.program("python");
    import.args(["-I", "-c", "import recurve; print(recurve.__version__, recurve.devices())"]);
    run(import)?;
    clean.install(&[PYTEST])?;
    for (module, packages) in BESIDE {
        if let Err(e) = clean.install(packages) {
            eprintln!("xtask: tests that need {module} will be skipped: {e}");
            continue;
        }
        let mut import = clean.program("python");
        import.args(["-I", "-c", &format!("import {module}")]).env("KERAS_BACKEND", "numpy");
        run(import)?;
    }
    let installed = began.elapsed() - built;

    let pytest = |arguments: &[&str]| {
        let mut c = clean.program("pytest");
        c.args(["--rootdir", "python", "-p", "no:cacheprovider", "--quiet", "-r", "f"]).args(arguments);
        // Keras without a framework for training.
        c.env("KERAS_BACKEND", "numpy").env("PYTHONDONTWRITEBYTECODE", "1");
        c.env("RAY_USAGE_STATS_ENABLED", "0");
        c
    };
    if arguments.is_empty() {
        // The examples in the docstrings of the installed package; modules that need what is not there are left out.
        run_tests(pytest(&["--doctest-modules", "--doctest-ignore-import-errors", "--pyargs", "recurve"]))?;
    }
    let given: Vec<&str> = arguments.iter().map(|a| &a[..]).collect();
    run_tests(pytest(&[&["python/tests"][..], &given].concat()))?;
    let all = began.elapsed();
    eprintln!(
        "xtask: the Python package took {:.0} s: {:.0} to build, {:.0} to install, {:.0} to test",
        all.as_secs_f64(),
        built.as_secs_f64(),
        installed.as_secs_f64(),
        (all - built - installed).as_secs_f64()
    );
    Ok(())
}

/// Formatting, clippy, and the checks of Python code: ruff's rules and mypy's types. Clippy needs no Python.
pub(crate) fn lint() -> Outcome {
    let rust = |arguments: &[&str]| {
        let mut c = cargo();
        c.args(arguments).env("CARGO_TARGET_DIR", folder("")).env("PYO3_NO_PYTHON", "1");
        c
    };
    run(rust(&["fmt", "--manifest-path", "python/Cargo.toml", "--check"]))?;
    let clippy = [
        "clippy",
        "--release",
        "--locked",
        "--manifest-path",
        "python/Cargo.toml",
        "--all-targets",
        "--features",
        "pyo3/extension-module",
    ];
    run(rust(&[&clippy[..], &["--", "--deny", "warnings"]].concat()))?;
    let tools = Environment::with(&python()?, "linters", &LINTERS)?;
    let mut ruff = tools.program("ruff");
    ruff.args(["check", "--no-cache", "--config", "python/pyproject.toml", "python"]);
    run(ruff)?;
    let mut mypy = tools.program("mypy");
    mypy.args(["--config-file", "python/pyproject.toml", "--cache-dir"]).arg(folder("mypy")).arg("python/recurve");
    run(mypy)
}
