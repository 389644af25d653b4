#!/usr/bin/env python3
"""One step of LSTM I = 1, H = 16, B = 1, as audio plug-ins take it: Recurve and a loop written by hand
(`recurve-benches step`), then ONNX Runtime in the same run.

    cargo build --release -p recurve-benches
    python3 benches/peers/step.py --out benches/results/step.csv

ONNX Runtime is called from Python with its inputs and outputs bound once; a model of a single Identity,
called in the same way, shows what of that is not the LSTM. Threads: one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

ROOT = Path(__file__).resolve().parents[2]
H = 16


def session(node, inputs, outputs, weights):
    value = lambda n, s: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
    graph = onnx.helper.make_graph([node], "g", [value(*i) for i in inputs], [value(*o) for o in outputs],
                                   [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def nanoseconds(session, inputs, outputs):
    binding = session.io_binding()
    for name, shape in inputs:
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.full(shape, 0.5, np.float32)))
    for name, shape in outputs:
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)))
    rounds = []
    for _ in range(200):
        start = time.perf_counter()
        for _ in range(100):
            session.run_with_iobinding(binding)
        rounds.append((time.perf_counter() - start) * 1e7)
    return statistics.median(rounds), min(rounds)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default=ROOT / "target/release/recurve-benches")
    p.add_argument("--out", help="CSV to write beside the output")
    a = p.parse_args()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?") \
        if os.path.exists("/proc/cpuinfo") else "?"
    ours = subprocess.run([a.program, "step"], capture_output=True, text=True)
    if ours.returncode:
        sys.exit(f"recurve-benches step failed: {ours.stderr}")
    head, *lines = ours.stdout.strip().splitlines()
    rng = np.random.default_rng(0)
    make = lambda *s: rng.uniform(-H ** -0.5, H ** -0.5, s).astype(np.float32)
    state = [1, 1, H]
    inputs = [("X", [1, 1, 1]), ("h0", state), ("c0", state)]
    outputs = [("Y_h", state), ("Y_c", state)]
    lstm = session(onnx.helper.make_node("LSTM", ["X", "W", "R", "B", "", "h0", "c0"], ["", "Y_h", "Y_c"], hidden_size=H),
                   inputs, outputs, {"W": make(1, 4 * H, 1), "R": make(1, 4 * H, H), "B": make(1, 8 * H)})
    nothing = session(onnx.helper.make_node("Identity", ["X"], ["Y"]), [("X", [1, 1, 1])], [("Y", [1, 1, 1])], {})
    for name, times in (("onnxruntime", nanoseconds(lstm, inputs, outputs)),
                        ("onnxruntime: Identity", nanoseconds(nothing, [("X", [1, 1, 1])], [("Y", [1, 1, 1])]))):
        lines.append(f"{name},{times[0]:.1f},{times[1]:.1f},")
    text = "\n".join([f"{head}; onnxruntime {ort.__version__}; {cpu}", *lines]) + "\n"
    print(text, end="")
    if a.out:
        Path(a.out).write_text(text)


if __name__ == "__main__":
    main()
