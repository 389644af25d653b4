#!/usr/bin/env python3
"""ONNX's recurrent operators, attribute by attribute, in several engines: exact, refused or wrong.

    cargo build --release -p recurve-cli
    cargo build --release --manifest-path benches/peers/onnx/Cargo.toml
    python3 benches/peers/attributes.py --burn --out docs/onnx-engines.md --csv benches/results/onnx_attributes.csv

Needs onnx, onnxruntime and numpy. Each case is a model of one node with random weights. What must come out is computed
here in float64 from the text of the operators. Where the text leaves two readings (what `clip` clamps), either counts
as exact. The engines of the second command are left out of the table if it has not run. `--burn` builds the program of
`benches/peers/burn` for these models: Burn makes Rust code of each, and code that does not compile is left out, with
the compiler's error as the outcome.
"""

import argparse
import collections
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
T, B, I, H = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TOLERANCE = 1e-4

FUNCTIONS = {
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "tanh": lambda x, a, b: np.tanh(x),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "leakyrelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(x) - 1)),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "affine": lambda x, a, b: a * x + b,
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.log1p(np.exp(x)),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
}
# Which functions take alpha and beta, and ONNX's defaults.
ALPHA = {"hardsigmoid": 0.2, "leakyrelu": 0.01, "elu": 1.0, "scaledtanh": 1.0, "affine": 1.0, "thresholdedrelu": 1.0}
BETA = {"hardsigmoid": 0.5, "scaledtanh": 1.0, "affine": 0.0}


def functions(attributes, op, directions):
    """The functions of each direction, alpha and beta consumed in order by those that have them."""
    default = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}[op]
    names = attributes.get("activations", default * directions)
    alpha, beta = list(attributes.get("activation_alpha", [])), list(attributes.get("activation_beta", []))
    made = []
    for name in names:
        name = name.lower()
        a = (alpha.pop(0) if alpha else ALPHA[name]) if name in ALPHA else None
        b = (beta.pop(0) if beta else BETA[name]) if name in BETA else None
        made.append(lambda x, f=FUNCTIONS[name], a=a, b=b: f(x, a, b))
    count = len(default)
    return [made[d * count : (d + 1) * count] for d in range(directions)]


def truth(op, attributes, given, clip_output=False):
    """Y, Y_h and, of an LSTM, Y_c in float64."""
    g = {k: np.asarray(v, np.float64) for k, v in given.items()}
    layout = attributes.get("layout", 0)
    x = g["X"].transpose(1, 0, 2) if layout else g["X"]
    steps, batch, _ = x.shape
    directions = g["W"].shape[0]
    lens = given.get("sequence_lens", np.full(batch, steps))
    start = lambda n: g[n].transpose(1, 0, 2) if layout else g[n]
    limit = attributes.get("clip", np.inf)
    clip = lambda v: np.clip(v, -limit, limit)
    backwards = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[attributes.get("direction", "forward")]
    y = np.zeros((steps, directions, batch, H))
    hs, cs = np.zeros((directions, batch, H)), np.zeros((directions, batch, H))
    for d, f in enumerate(functions(attributes, op, directions)):
        w, r = g["W"][d], g["R"][d]
        b = g["B"][d] if "B" in g else np.zeros(2 * GATES[op] * H)
        wb, rb = b[: GATES[op] * H], b[GATES[op] * H :]
        p = g["P"][d].reshape(3, H) if "P" in g else np.zeros((3, H))
        for n in range(batch):
            h = start("initial_h")[d, n].copy() if "initial_h" in g else np.zeros(H)
            c = start("initial_c")[d, n].copy() if "initial_c" in g else np.zeros(H)
            order = range(lens[n])
            for t in reversed(order) if backwards[d] else order:
                wx = w @ x[t, n] + wb
                if op == "RNN":
                    h = f[0](clip(wx + r @ h + rb))
                elif op == "GRU":
                    wz, wr, wh = wx.reshape(3, H)
                    rz, rr, rh = r.reshape(3, H, H)
                    bz, br, bh = rb.reshape(3, H)
                    z, reset = f[0](clip(wz + rz @ h + bz)), f[0](clip(wr + rr @ h + br))
                    if attributes.get("linear_before_reset", 0):
                        new = f[1](clip(wh + reset * (rh @ h + bh)))
                    else:
                        new = f[1](clip(wh + rh @ (reset * h) + bh))
                    h = (1 - z) * new + z * h
                else:
                    i, o, forget, cell = (wx + r @ h + rb).reshape(4, H)
                    i = f[0](clip(i + p[0] * c))
                    forget = 1 - i if attributes.get("input_forget", 0) else f[0](clip(forget + p[2] * c))
                    c = forget * c + i * f[1](clip(cell))
                    o = f[0](clip(o + p[1] * c))
                    h = o * f[2](clip(c) if clip_output else c)
                y[t, d, n] = h
            hs[d, n], cs[d, n] = h, c
    if layout:
        y, hs, cs = y.transpose(2, 0, 1, 3), hs.transpose(1, 0, 2), cs.transpose(1, 0, 2)
    return [y, hs, cs][: 3 if op == "LSTM" else 2]


Case = collections.namedtuple("Case", "row op attributes parts")


def cases():
    """Every row for every operator that has it: the attributes, and which optional inputs there are."""
    base = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
    other = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Softsign"], "LSTM": ["HardSigmoid", "Softsign", "Relu"]}
    scaled = {
        "RNN": (["LeakyRelu"], [0.3], []),
        "GRU": (["HardSigmoid", "Elu"], [0.15, 0.7], [0.4]),
        "LSTM": (["Sigmoid", "ScaledTanh", "Elu"], [0.8, 0.6], [1.2]),
    }
    lower = {op: [n.lower() for n in names] for op, names in base.items()}
    for op in ["RNN", "GRU", "LSTM"]:
        bias, start = {"B"}, {"B", "h"}
        yield Case("no option", op, {}, bias)
        yield Case("no bias", op, {}, set())
        yield Case("direction = reverse", op, {"direction": "reverse"}, bias)
        yield Case("direction = bidirectional", op, {"direction": "bidirectional"}, bias)
        yield Case("initial states", op, {}, start)
        yield Case("sequence_lens", op, {}, bias | {"lens"})
        yield Case("sequence_lens, bidirectional", op, {"direction": "bidirectional"}, start | {"lens"})
        yield Case("layout = 1", op, {"layout": 1}, start)
        yield Case("clip", op, {"clip": 0.3}, bias)
        yield Case("activations", op, {"activations": other[op]}, bias)
        yield Case("activations in lower case", op, {"activations": lower[op]}, bias)
        names, alpha, beta = scaled[op]
        with_alpha = {"activations": names, "activation_alpha": alpha}
        yield Case("activation_alpha, activation_beta", op, with_alpha | ({"activation_beta": beta} if beta else {}), bias)
        both = {"direction": "bidirectional", "activations": base[op] + other[op]}
        yield Case("activations of each direction", op, both, bias)
        if op == "GRU":
            yield Case("linear_before_reset = 1", op, {"linear_before_reset": 1}, start)
            yield Case("linear_before_reset = 0 is said", op, {"linear_before_reset": 0}, start)
        if op == "LSTM":
            yield Case("peepholes (P)", op, {}, start | {"P"})
            yield Case("input_forget = 1", op, {"input_forget": 1}, start)
            yield Case("only Y_h is wanted", op, {}, bias | {"last"})


def build(case, folder):
    """Writes the model and its inputs; what must come out, in each reading."""
    op, attributes = case.op, case.attributes
    rng = np.random.default_rng(sum(map(ord, case.row + op)))
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    random = lambda *shape: rng.uniform(-0.8, 0.8, shape).astype(np.float32)
    layout = attributes.get("layout", 0)
    given = {"X": random(*((B, T, I) if layout else (T, B, I))) * 2}
    given["W"], given["R"] = random(directions, GATES[op] * H, I), random(directions, GATES[op] * H, H)
    if "B" in case.parts:
        given["B"] = random(directions, 2 * GATES[op] * H)
    if "lens" in case.parts:
        given["sequence_lens"] = np.array([5, 2, 3], np.int32)
    state = (B, directions, H) if layout else (directions, B, H)
    if "h" in case.parts:
        given["initial_h"] = random(*state)
        if op == "LSTM":
            given["initial_c"] = random(*state)
    if "P" in case.parts:
        given["P"] = random(directions, 3 * H)
    slots = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"][: 8 if op == "LSTM" else 6]
    names = [s if s in given else "" for s in slots]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    want = [truth(op, attributes, given, reading) for reading in ([False, True] if op == "LSTM" else [False])]
    if "last" in case.parts:
        outputs, want = ["", "Y_h"], [[w[1]] for w in want]
    folder.mkdir()
    node = helper.make_node(op, names, outputs, hidden_size=H, **attributes)
    fed = {n: v for n, v in given.items() if n in ("X", "sequence_lens", "initial_h", "initial_c")}
    kinds = {"X": TensorProto.FLOAT, "sequence_lens": TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "case",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), v.shape) for n, v in fed.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, w.shape) for n, w in zip(filter(None, outputs), want[0])],
        [numpy_helper.from_array(given[n], n) for n in ("W", "R", "B", "P") if n in given],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for name, v in fed.items():
        lines = [v.dtype.name, " ".join(map(str, v.shape)), " ".join(repr(float(e)) for e in v.ravel())]
        (folder / "in" / f"{name}.txt").write_text("\n".join(lines))
        np.save(folder / "in" / f"{name}.npy", v)
    return fed, list(filter(None, outputs)), want


def recurve(folder, fed, outputs):
    args = [ROOT / "target/release/recurve", "run", folder / "model.onnx", "--device", "cpu", "--json"]
    for name in fed:
        args += ["--input", f"{name}={folder / 'in' / name}.npy"]
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=60)
    if done.returncode == 2:
        return done.stderr.strip()
    made = {o["output"]: np.array(o["data"], np.float64).reshape(o["shape"]) for o in json.loads(done.stdout)["outputs"]}
    return [made[n] for n in outputs]


def onnxruntime(folder, fed, outputs):
    try:
        session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return session.run(outputs, fed)
    except Exception as e:
        return str(e)


def child(program, *first):
    """An engine behind a program: exit code 3 is an error that it says, anything else but 0 a crash."""

    def run(folder, fed, outputs):
        args = [program, *first, folder / "model.onnx", folder / "in", folder / "out"]
        done = subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=60)
        if done.returncode == 3:
            return done.stdout.strip()
        if done.returncode != 0:
            raise ChildProcessError(done.stderr.strip().splitlines()[:2])
        made = []
        for n in range(len(outputs)):
            _, shape, numbers = ((folder / "out" / f"{n}.txt").read_text() + "\n").split("\n")[:3]
            made.append(np.array([float(v) for v in numbers.split()]).reshape([int(d) for d in shape.split()]))
        return made

    return run


def burn(folder):
    """A program with the code that Burn makes of every case in the folder, less the code that does not compile."""
    manifest = str(ROOT / "benches/peers/burn/Cargo.toml")

    def built(name):
        command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--message-format", "json"]
        environment = os.environ | {"BURN_CASES": str(folder)}
        done = subprocess.run([*command, "--bin", name], env=environment, capture_output=True, text=True)
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        errors = [m["message"] for m in said if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
        return next((m["executable"] for m in said if m.get("executable")), None), errors, done.stderr

    make, errors, log = built("import")
    while make:
        subprocess.run([make, folder], check=True, capture_output=True)
        program, errors, log = built("run")
        if program:
            return program
        refused = {}
        for error in errors:
            for span in error["spans"]:
                if (path := Path(span["file_name"])).name == "model.rs":
                    refused.setdefault(path.parent, error["message"])
        if not refused:
            break
        for case, why in refused.items():
            (case / "refused.txt").write_text(f"the code does not compile: {why}")
    sys.exit("\n".join([log, *(e["rendered"] for e in errors)]))


def judge(got, want):
    """A word for the table, and what lies behind it."""
    if isinstance(got, str):
        return "refused", got.splitlines()[0][:300]
    if [g.shape for g in got] != [w.shape for w in want[0]]:
        return "**wrong**", f"shapes {[g.shape for g in got]}, not {[w.shape for w in want[0]]}"
    worst = min(max(float(np.max(np.abs(g - w))) if np.isfinite(g).all() else np.inf for g, w in zip(got, ws)) for ws in want)
    return ("exact" if worst <= TOLERANCE else "**wrong**"), f"largest error {worst:.2e}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--burn", action="store_true")
    parser.add_argument("--peers", type=Path, default=ROOT / "benches/peers/onnx/target/release/recurve-onnx-peers")
    a = parser.parse_args()
    engines = {"Recurve": recurve, f"ONNX Runtime {ort.__version__}": onnxruntime}
    if a.peers.exists():
        engines |= {"tract 0.23": child(a.peers, "tract"), "rten 0.27": child(a.peers, "rten")}
    table, rows = collections.OrderedDict(), []
    with tempfile.TemporaryDirectory() as root:
        made = [(case, Path(root, str(n))) for n, case in enumerate(cases())]
        built = [build(case, folder) for case, folder in made]
        if a.burn:
            engines["Burn 0.22"] = child(burn(Path(root)))
        for (case, folder), (fed, outputs, want) in zip(made, built):
            for engine, run in engines.items():
                for file in Path(folder, "out").iterdir():
                    file.unlink()
                try:
                    word, why = judge(run(folder, fed, outputs), want)
                except (ChildProcessError, subprocess.TimeoutExpired, FileNotFoundError) as e:
                    word, why = "crashes", str(e)[:300]
                table.setdefault(case.row, {}).setdefault(engine, {})[case.op] = word
                rows.append([case.row, case.op, engine, word.strip("*"), why.replace(str(folder), "")])
                print(f"{case.row:36} {case.op:5} {engine:20} {word:10} {why[:120]}", flush=True)
    lines = [
        "# ONNX's recurrent operators in several engines",
        "Made by `benches/peers/attributes.py`, which runs each engine on models of one node and compares with float64 "
        "numbers computed from the text of the operators (largest error allowed: 1e-4). **wrong** is a result of other "
        "numbers without an error, refused is any error. The messages and errors behind each word are in "
        "`benches/results/onnx_attributes.csv`. All on the CPU."
        + (
            " Burn makes Rust code of a file when a program is built: there, refused is an error of its import or of "
            "the compiler, or a panic of the import, as the message says."
            if a.burn
            else ""
        ),
        "",
        "| | " + " | ".join(engines) + " |",
        "|---" * (len(engines) + 1) + "|",
    ]
    for row, by_engine in table.items():
        cells = []
        for engine in engines:
            words = by_engine[engine]
            same = set(words.values())
            cells.append(same.pop() if len(same) == 1 else ", ".join(f"{op} {w}" for op, w in words.items()))
        of = next(iter(by_engine.values()))
        lines.append(f"| {row}{'' if len(of) == 3 else ' (' + ', '.join(of) + ')'} | " + " | ".join(cells) + " |")
    if a.out:
        a.out.write_text("\n".join(lines) + "\n")
    if a.csv:
        with a.csv.open("w", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(["case", "operator", "engine", "outcome", "detail"])
            w.writerows(rows)


main()
