#!/usr/bin/env python3
"""Calls of ONNX models with their states fed back, Recurve and ONNX Runtime in turn, on the CPU.

    cargo build --release -p recurve-benches
    python3 benches/peers/model.py models/gtcrn.onnx models/silero_vad.onnx --open 1,576 \
        --out benches/results/onnx_models_avx2.csv

Floats but for the states are one number, ids are each of those below their count, out of order; the open dimensions of
each input have the sizes of `--open`, in order. ONNX Runtime is called from Python with NumPy arrays, which costs it
some microseconds a call (the column `identity_us` is a model of one Identity, called so).
"""

import argparse
import csv
import os
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

ROOT = Path(__file__).resolve().parents[2]
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def options(threads):
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    return o


def peer(model, threads, sizes=(1,)):
    s = ort.InferenceSession(model, options(threads), providers=["CPUExecutionProvider"])

    def shape(i):
        left = iter(sizes)
        return [d if isinstance(d, int) else next(left, 1) for d in i.shape]

    def values(i):
        n = int(np.prod(shape(i)))
        # Whole numbers are a sample rate, or ids.
        data = np.full(n, 0.1) if "float" in i.type else np.arange(n) * 101 % n if shape(i) else np.full(n, 16000)
        return data.astype(TYPES[i.type]).reshape(shape(i))

    feed = {i.name: values(i) for i in s.get_inputs()}
    outputs = [o.name for o in s.get_outputs()]
    follows = lambda i, o: o in (i + "N", i + "n", i + "_out") or i.endswith("_in") and o == i[:-3] + "_out"
    states = [(i.name, n) for i in s.get_inputs() for n, o in enumerate(outputs) if follows(i.name, o)]
    for name, _ in states:
        feed[name] = np.zeros_like(feed[name])
    times = []
    for k in range(20 + 200):
        first = time.perf_counter()
        y = s.run(None, feed)
        took = time.perf_counter() - first
        for name, n in states:
            feed[name] = y[n]
        if k >= 20:
            times.append(took * 1e6)
    return statistics.median(times), min(times)


def identity():
    value = lambda n: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value("x")], [value("y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    return peer(model.SerializeToString(), 1)[0]


def ours(program, model, threads, sizes):
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    out = subprocess.run([program, "model", model, "cpu", ",".join(map(str, sizes))], capture_output=True, text=True, env=env, check=True).stdout
    row = list(csv.DictReader(out.splitlines()))[0]
    return float(row["median_us"]), float(row["min_us"]), row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+")
    p.add_argument("--program", default=ROOT / "target/release/recurve-benches")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--open", default="1")
    p.add_argument("--out", help="CSV to write beside the output")
    a = p.parse_args()
    rows = []
    sizes = [int(n) for n in a.open.split(",")]
    for model in a.models:
        for threads in map(int, a.threads.split(",")):
            mine, theirs = [], []
            for _ in range(a.rounds):
                *times, row = ours(a.program, model, threads, sizes)
                mine.append(times)
                theirs.append(peer(model, threads, sizes))
            median = lambda all: statistics.median(t[0] for t in all)
            least = lambda all: min(t[1] for t in all)
            rows.append({
                "model": Path(model).name, "device": row["device"], "threads": threads,
                "recurve_us": f"{median(mine):.1f}", "onnxruntime_us": f"{median(theirs):.1f}",
                "ratio": f"{median(mine) / median(theirs):.3f}", "recurve_min_us": f"{least(mine):.1f}",
                "onnxruntime_min_us": f"{least(theirs):.1f}", "allocations": row["allocations"],
                "identity_us": f"{identity():.1f}", "onnxruntime": ort.__version__,
            })
            print(rows[-1], flush=True)
    if a.out:
        with open(a.out, "w", newline="") as f:
            w = csv.DictWriter(f, rows[0], lineterminator="\n")
            w.writeheader()
            w.writerows(rows)


main()
