#!/usr/bin/env python3
"""Times ONNX Runtime, and PyTorch where it is installed, beside `recurve bench` on the same shapes.

    pip install onnxruntime onnx numpy        (and torch, if wanted)
    cargo build --release
    python3 benches/peers/run.py [--device cpu] [--rounds 3] > benches/results/NAME.csv

Each round times every program in turn, so that a noisy machine disturbs them alike; the median over
the rounds of the medians is reported. Forward pass, float32, input from host memory, all outputs and
states in host memory. ratio = recurve / the best peer; below 1 Recurve is faster.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

SHAPES = [(16, 1, 128, 128), (64, 1, 128, 128), (256, 1, 128, 128), (1024, 1, 128, 128), (128, 1, 256, 256),
          (128, 32, 256, 256), (100, 16, 512, 512), (25, 1, 1024, 1024), (64, 64, 64, 64)]
CELLS = {"lstm": 4, "gru": 3, "rnn": 1}
ROOT = Path(__file__).resolve().parents[2]

try:
    import torch
except ImportError:
    torch = None


def timed(call, seconds):
    call()
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def onnxruntime(cell, shape, threads, seconds):
    t, b, i, h = shape
    g = CELLS[cell]
    rng = np.random.default_rng(0)
    scale = h ** -0.5
    make = lambda *s: rng.uniform(-scale, scale, s).astype(np.float32)
    weights = {"W": make(1, g * h, i), "R": make(1, g * h, h), "B": make(1, 2 * g * h)}
    names = ["Y", "Y_h"] + (["Y_c"] if cell == "lstm" else [])
    attributes = {"hidden_size": h, **({"linear_before_reset": 1} if cell == "gru" else {})}
    node = helper.make_node(cell.upper(), ["X", "W", "R", "B"], names, **attributes)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("X", TensorProto.FLOAT, [t, b, i])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names],
        [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = {"X": rng.uniform(-1, 1, (t, b, i)).astype(np.float32)}
    return timed(lambda: session.run(names, x), seconds)


def pytorch(cell, shape, threads, seconds):
    t, b, i, h = shape
    torch.set_num_threads(threads)
    net = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](i, h, batch_first=True).eval()
    x = torch.rand(b, t, i) * 2 - 1
    with torch.inference_mode():
        return timed(lambda: net(x), seconds)


def recurve(cell, shape, device, seconds):
    out = subprocess.run(
        [ROOT / "target/release/recurve", "bench", "--cell", cell, "--shape", ",".join(map(str, shape)), "--device",
         device, "--seconds", str(seconds), "--runs", "5", "--json"], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"recurve bench failed: {out.stderr}")
    return json.loads(out.stdout)[0]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--device", default="cpu", help="device of recurve")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=0.4, help="of each timing")
    p.add_argument("--threads", type=int, default=2, help="of the peers")
    a = p.parse_args()
    peers = {"onnxruntime": onnxruntime} | ({"pytorch": pytorch} if torch else {})
    print(f"# onnxruntime {ort.__version__}, pytorch {torch.__version__ if torch else 'absent'}, threads {a.threads}, "
          f"rounds {a.rounds}")
    print("cell,T,B,I,H,device,strategy,recurve_ms," + ",".join(f"{n}_ms" for n in peers) + ",ratio_to_best")
    logs = []
    for cell in CELLS:
        for shape in SHAPES:
            rows = {n: [] for n in ("recurve", *peers)}
            for _ in range(a.rounds):
                ours = recurve(cell, shape, a.device, a.seconds)
                rows["recurve"].append(ours["ms_median"])
                for n, f in peers.items():
                    rows[n].append(f(cell, shape, a.threads, a.seconds))
            ms = {n: statistics.median(v) for n, v in rows.items()}
            ratio = ms["recurve"] / min(ms[n] for n in peers)
            logs.append(np.log(ratio))
            values = ",".join(f"{ms[n]:.4f}" for n in ("recurve", *peers))
            print(f"{cell},{','.join(map(str, shape))},{ours['backend']},{ours['strategy']},{values},{ratio:.3f}", flush=True)
    print(f"# geometric mean of the ratios: {np.exp(np.mean(logs)):.3f}")


if __name__ == "__main__":
    main()
