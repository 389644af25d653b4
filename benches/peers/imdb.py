#!/usr/bin/env python3
"""Seconds an epoch of the IMDB example by Recurve, by PyTorch and by Keras on JAX, in turn.

    cargo build --release --example imdb
    python3 benches/peers/imdb.py --data FILE --layer lstm --threads 1 --out benches/results/imdb.csv

20,000 reviews of 500 words are trained on and 5,000 validated with, in batches of 128. Each engine runs in a process of
its own; the first epoch of each is left out, because Keras compiles in it. `seconds` are medians of the time that
passed, `cpu` means of the processor time of all threads. `--device vulkan --torch-device cuda --engines
recurve,pytorch` compares on a GPU, where PyTorch has its data on the device before the first epoch.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WORDS, LENGTH, SIZE = 10_000, 500, 32


def read(path):
    """The reviews to train with, padded in front, and their labels."""
    data = gzip.open(path).read()
    assert data[:8] == b"IMDB10K1"
    (count, _), at = struct.unpack_from("<II", data, 8), 16
    x, y = np.zeros((count, LENGTH), np.int32), np.zeros((count, 1), np.float32)
    for n in range(count):
        label, length = struct.unpack_from("<BH", data, at)
        words = np.frombuffer(data, "<u2", length, at + 3)[-LENGTH:]
        if length:
            x[n, LENGTH - len(words):] = words
        y[n], at = label, at + 3 + 2 * length
    return x, y


def pytorch(a):
    import torch
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    kind = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[a.layer]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(WORDS, SIZE)
            self.rnn = kind(SIZE, SIZE, batch_first=True)
            self.dense = torch.nn.Linear(SIZE, 1)

        def forward(self, x):
            return self.dense(self.rnn(self.embedding(x))[0][:, -1])

    device = torch.device(a.torch_device)
    model = Model().to(device)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.001, alpha=0.9, eps=1e-7)
    loss_of = torch.nn.BCEWithLogitsLoss()
    x, y = (torch.from_numpy(v).to(device) for v in read(a.data))
    x = x.long()
    split = len(x) * 4 // 5
    for _ in range(a.epochs):
        start, used, total, right = time.perf_counter(), time.process_time(), 0.0, 0
        for places in torch.randperm(split, device=device).split(128):
            p, t = model(x[places]), y[places]
            loss = loss_of(p, t)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(places)
            right += ((p > 0) == (t > 0.5)).sum().item()
        with torch.no_grad():
            for part, t in zip(x[split:].split(128), y[split:].split(128)):
                loss_of(model(part), t).item()
        report(start, used, loss=total / split, accuracy=right / split)


def keras(a):
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=" + ("false intra_op_parallelism_threads=1"
                                                              if a.threads == 1 else "true")
    import keras
    keras.utils.set_random_seed(0)
    kind = {"simple_rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[a.layer]
    layers = [keras.layers.Input((LENGTH,)), keras.layers.Embedding(WORDS, SIZE), kind(SIZE),
              keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    x, y = read(a.data)

    class Report(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.begun = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch, logs=None):
            report(*self.begun, **logs)

    model.fit(x, y, batch_size=128, epochs=a.epochs, validation_split=0.2, verbose=0, callbacks=[Report()])


def report(start, used, **numbers):
    line = {k: float(v) for k, v in numbers.items()}
    line |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    print(json.dumps(line), flush=True)


def epochs_of(command, threads, epochs):
    cores = sorted(os.sched_getaffinity(0))[:threads]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, capture_output=True, text=True, env=environment,
                         preexec_fn=lambda: os.sched_setaffinity(0, cores) if threads > 1 else None)
    if out.returncode:
        raise SystemExit(f"{command}: {out.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    used = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / epochs
    lines = [line for line in lines if "seconds" in line]
    return [(line["seconds"], line.get("cpu", used)) for line in lines][1:]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="the reviews, as imdb_data.py writes them")
    p.add_argument("--layer", default="lstm", choices=["simple_rnn", "lstm", "gru"])
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cpu", help="of Recurve")
    p.add_argument("--torch-device", default="cpu", help="of PyTorch")
    p.add_argument("--epochs", type=int, default=3, help="of each engine in a round")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--program", default=str(ROOT / "target/release/examples/imdb"))
    p.add_argument("--engines", default="recurve,pytorch,keras")
    p.add_argument("--only", help=argparse.SUPPRESS)
    p.add_argument("--out", help="CSV to which a line is added")
    a = p.parse_args()
    if a.only:
        return {"pytorch": pytorch, "keras": keras}[a.only](a)
    seconds = {engine: [] for engine in a.engines.split(",")}
    for _ in range(a.rounds):
        for engine, measured in seconds.items():
            if engine == "recurve":
                command = [a.program, "--data", a.data, "--layer", a.layer, "--epochs", str(a.epochs), "--device",
                           a.device, "--json"]
            else:
                command = [sys.executable, __file__, "--data", a.data, "--layer", a.layer, "--threads", str(a.threads),
                           "--epochs", str(a.epochs), "--torch-device", a.torch_device, "--only", engine]
            measured += epochs_of(command, a.threads, a.epochs)
    fields = [a.layer, str(a.threads)]
    for engine, measured in seconds.items():
        fields.append(f"{statistics.median(s for s, _ in measured):.2f}")
        fields.append(f"{statistics.mean(c for _, c in measured):.2f}")
    header = "layer,threads," + ",".join(f"{engine}_seconds,{engine}_cpu" for engine in seconds)
    print(header)
    print(",".join(fields))
    if a.out:
        out = Path(a.out)
        new = not out.exists()
        with out.open("a") as f:
            f.write((header + "\n" if new else "") + ",".join(fields) + "\n")


if __name__ == "__main__":
    main()
