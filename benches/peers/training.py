#!/usr/bin/env python3
"""Forward and backward passes of LSTM, GRU and SimpleRNN by Recurve and by PyTorch, row by row in turn.

    cargo build --release -p recurve-benches
    python3 benches/peers/training.py --threads 1 --out benches/results/training.csv
    python3 benches/peers/training.py --gpu auto --out benches/results/training_gpu.csv

Both compute the gradients by weights and input from a gradient by all outputs. Columns `_ms` are medians of the time
that passed, `_cpu_ms` means of the processor time, which other programs disturb less; with several threads the latter
is Recurve's calling thread alone, so only the former compares.

With `--gpu`, Recurve runs on a GPU through wgpu, in the forms that are named, and PyTorch on the same GPU through cuDNN:
both passes are given to the GPU and waited for. PyTorch computes in f32, as Recurve does, without TF32. Times are
medians in ms; `recurve_ms` is that of the first form.
"""

import argparse
import math
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
SIZES = [(16, 1, 128, 128), (64, 1, 128, 128), (256, 1, 128, 128), (1024, 1, 128, 128), (128, 1, 256, 256),
         (128, 32, 256, 256), (100, 16, 512, 512), (25, 1, 1024, 1024), (64, 64, 64, 64)]
LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def pytorch(cell, t, b, i, h, seconds):
    layer = LAYERS[cell](i, h, batch_first=True)
    x = torch.randn(b, t, i, requires_grad=True)
    dy = torch.randn(b, t, h)

    def both():
        layer.zero_grad(set_to_none=True)
        x.grad = None
        times = [time.perf_counter()]
        y, _ = layer(x)
        times.append(time.perf_counter())
        y.backward(dy)
        times.append(time.perf_counter())
        return times[1] - times[0], times[2] - times[1]

    both()
    start, before, rounds = time.perf_counter(), time.process_time(), []
    while len(rounds) < 5 or time.perf_counter() - start < 2 * seconds:
        rounds.append(both())
    used = (time.process_time() - before) / len(rounds)
    return statistics.median(sum(r) for r in rounds) * 1e3, used * 1e3


def on_gpu(cell, t, b, i, h, seconds):
    layer = LAYERS[cell](i, h, batch_first=True, device="cuda")
    x = torch.randn(b, t, i, device="cuda", requires_grad=True)
    dy = torch.randn(b, t, h, device="cuda")

    def once(backward):
        layer.zero_grad(set_to_none=True)
        x.grad = None
        torch.cuda.synchronize()
        start = time.perf_counter()
        y, _ = layer(x)
        if backward:
            y.backward(dy)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def median(backward):
        for _ in range(3):
            once(backward)
        start, times = time.perf_counter(), []
        while len(times) < 5 or time.perf_counter() - start < seconds:
            times.append(once(backward))
        return statistics.median(times) * 1e3

    return median(True), median(False)


def gpu(a):
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    lines = [f"# PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}",
             "cell,T,B,I,H,form,recurve_ms,pytorch_ms,ratio,recurve_forward_ms,pytorch_forward_ms,"
             "recurve_back_over_time_ms,recurve_gpu_ms,recurve_host_ms"]
    print("\n".join(lines))
    ratios = []
    for cell in LAYERS:
        for size in SIZES + [(500, 128, 32, 32)]:
            name = ",".join(map(str, (cell, *size)))
            if a.only not in name:
                continue
            command = [a.program, "training", name, str(a.seconds), a.device, *a.gpu.split(",")]
            done = subprocess.run(command, capture_output=True, text=True)
            theirs = on_gpu(cell, *size, a.seconds)
            if done.returncode != 0 or done.stderr:
                print(f"# {name}: {done.returncode} {done.stderr.strip()}", flush=True)
            rows = [r for r in done.stdout.splitlines() if r.startswith(name)]
            for n, row in enumerate(rows):
                form, both, forward, back, on, host = row.split(",")[5:]
                ratio = float(both) / theirs[0]
                if n == 0:
                    ratios.append(ratio)
                line = f"{name},{form},{both},{theirs[0]:.3f},{ratio:.3f},{forward},{theirs[1]:.3f},{back},{on},{host}"
                lines.append(line)
                print(line, flush=True)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        lines.append(f"# ratio: geometric mean {mean:.3f}, worst {max(ratios):.3f}")
        print(lines[-1])
    if a.out:
        Path(a.out).write_text("\n".join(lines) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default=ROOT / "target/release/recurve-benches")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seconds", type=float, default=1.0, help="for each pass of each row")
    p.add_argument("--only", default="", help="a part of the rows, such as lstm,64")
    p.add_argument("--out", help="CSV to write beside the output")
    p.add_argument("--gpu", metavar="FORMS", help="on a GPU, in these forms with commas between, such as auto,products")
    p.add_argument("--device", default="gpu", help="with --gpu: Recurve's name of the GPU")
    a = p.parse_args()
    if a.gpu:
        return gpu(a)
    torch.set_num_threads(a.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": str(a.threads)}
    lines = [f"# PyTorch {torch.__version__}, {a.threads} threads",
             "cell,T,B,I,H,recurve_ms,pytorch_ms,ratio,recurve_cpu_ms,pytorch_cpu_ms,cpu_ratio"]
    print("\n".join(lines))
    ratios = []
    for cell in LAYERS:
        for size in SIZES:
            name = ",".join(map(str, (cell, *size)))
            if a.only not in name:
                continue
            command = [a.program, "training", name, str(a.seconds)]
            out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
            _, row = out.strip().splitlines()
            ours = [float(v) if v else math.nan for v in row.split(",")[5:]]
            passed, used = ours[0] + ours[1], ours[2] + ours[3]
            their_passed, their_used = pytorch(cell, *size, a.seconds)
            ratios.append((passed / their_passed, used / their_used))
            line = f"{name},{passed:.3f},{their_passed:.3f},{ratios[-1][0]:.3f}," \
                   f"{used:.3f},{their_used:.3f},{ratios[-1][1]:.3f}"
            lines.append(line)
            print(line, flush=True)
    for n, what in enumerate(["ratio", "cpu_ratio"]):
        logs = [math.log(r[n]) for r in ratios]
        line = f"# {what}: geometric mean {math.exp(sum(logs) / len(logs)):.3f}, worst {max(r[n] for r in ratios):.3f}"
        lines.append(line)
        print(line)
    if a.out:
        Path(a.out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
