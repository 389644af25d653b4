"""What a call from Python costs: beside the same call from Rust and ONNX Runtime's Python, by several threads, over
many calls; and Ray's actors.

    cargo build --release -p recurve-benches          # the calls from Rust; RECURVE_BENCHES names another program
    pip install ./python onnx onnxruntime             # and recurve[ray] for the actors
    python3 benches/peers/python_calls.py [--rounds 7] [--wheel FILE] [--ray] [--csv FILE]

Each round times every program in turn; a number is the median of the rounds' medians. Models are LSTMs with states as
inputs, and random weights, on the CPU. `RECURVE_SIMD=avx2` restricts the vector instructions of Recurve.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def program() -> str:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("RECURVE_BENCHES", str(target / "release" / "recurve-benches"))


def lstm(path: Path, inputs: int, hidden: int, steps: int = 1) -> None:
    """Writes an ONNX file: one LSTM over [T, B, I], whose states come in and go out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(hidden)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((random.uniform(-1, 1, shape) / np.sqrt(hidden)).astype(np.float32), name)

    def value(name: str, *shape: object) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "hn", "cn"], hidden_size=hidden)],
        "lstm",
        [value("x", steps, "batch", inputs), value("h", 1, "batch", hidden), value("c", 1, "batch", hidden)],
        [value("y", steps, 1, "batch", hidden), value("hn", 1, "batch", hidden), value("cn", 1, "batch", hidden)],
        [weights("w", 1, 4 * hidden, inputs), weights("r", 1, 4 * hidden, hidden), weights("b", 1, 8 * hidden)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def microseconds(call, calls: int) -> float:
    """The median time of a call."""
    for _ in range(calls // 10):
        call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def resident() -> float:
    """MiB of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def of_calls(rows: list, rounds: int, folder: Path) -> None:
    import onnxruntime

    import recurve

    for name, inputs, hidden in (("tiny", 4, 8), ("128", 128, 128)):
        path = folder / f"{name}.onnx"
        lstm(path, inputs, hidden)
        model = recurve.load(path, device="cpu")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        feed = {v.name: random.normal(size=[d if isinstance(d, int) else 1 for d in v.shape]).astype(np.float32)
                for v in model.inputs}
        ours, theirs = model.run(feed), session.run(None, feed)
        for got, want in zip(ours.values(), theirs):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        assert np.abs(theirs[0]).max() > 1e-3
        streaming = model.session()

        def rust() -> float:
            # A session too: its states are fed back.
            out = subprocess.run([program(), "model", path, "cpu", "1,1"], check=True, capture_output=True, text=True)
            (row,) = csv.DictReader(out.stdout.splitlines())
            return float(row["median_us"])

        kinds = {
            "rust session": rust,
            "python": lambda: microseconds(lambda: model.run(feed), 20_000),
            "python session": lambda: microseconds(lambda: streaming.run({"x": feed["x"]}), 20_000),
            "onnxruntime": lambda: microseconds(lambda: session.run(None, feed), 20_000),
        }
        times = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, timed in kinds.items():
                times[kind].append(timed())
        median = {kind: statistics.median(all_of_it) for kind, all_of_it in times.items()}
        label = f"LSTM B=1 T=1 I={inputs} H={hidden}"
        rows += [(label, kind, f"{us:.2f}", "µs a call") for kind, us in median.items()]
        rows.append((label, "python session - rust session", f"{median['python session'] - median['rust session']:.2f}", "µs a call"))
        rows.append((label, "python / onnxruntime", f"{median['python'] / median['onnxruntime']:.3f}", ""))
        rows.append((label, "session / onnxruntime", f"{median['python session'] / median['onnxruntime']:.3f}", ""))

        # Memory over many calls.
        before = resident()
        for _ in range(100_000):
            model.run(feed)
        rows.append((label, "growth over 100,000 calls", f"{resident() - before:.2f}", "MiB"))


def of_threads(rows: list, rounds: int, folder: Path) -> None:
    """Threads of Python on one model: LSTM over 64 timesteps, results compared with those of one thread."""
    import recurve

    path = folder / "threads.onnx"
    lstm(path, 64, 128, steps=64)
    model = recurve.load(path, device="cpu")
    random = np.random.default_rng(1)
    shapes = {v.name: [d if isinstance(d, int) else 1 for d in v.shape] for v in model.inputs}
    batches = [{k: random.normal(size=d).astype(np.float32) for k, d in shapes.items()} for _ in range(32)]
    want = [model.run(x)["y"] for x in batches]
    assert len({y.tobytes() for y in want}) == len(want)
    wrong: list[int] = []

    def work(calls: int) -> None:
        for n in range(calls):
            k = n % len(batches)
            if not np.array_equal(model.run(batches[k])["y"], want[k]):
                wrong.append(k)

    rates: dict[int, list[float]] = {1: [], 2: [], 8: []}
    for _ in range(rounds):
        for count, rate in rates.items():
            calls = 2048 // count
            threads = [threading.Thread(target=work, args=(calls,)) for _ in range(count)]
            began = time.perf_counter()
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            rate.append(calls * count / (time.perf_counter() - began))
    assert not wrong, f"{len(wrong)} results differ"
    for count, rate in rates.items():
        rows.append(("LSTM B=1 T=64 I=64 H=128", f"{count} threads of Python", f"{statistics.median(rate):.0f}", "calls a second"))


def of_ray(rows: list, rounds: int, folder: Path) -> None:
    """Sequences a second through `Dataset.map_batches` with so many actors."""
    import ray

    import recurve
    import recurve.ray
    from recurve import layers

    path = folder / "sequences.safetensors"
    recurve.Sequential([recurve.Input(shape=(32, 16)), layers.LSTM(64), layers.Dense(1)], device="cpu").save(path)
    (name,) = [v.name for v in recurve.load(path, device="cpu").inputs]
    count = 20_000
    x = np.random.default_rng(2).normal(size=(count, 32, 16)).astype(np.float32)
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
        for _ in range(min(rounds, 3)):
            for actors, rate in rates.items():
                data = ray.data.from_numpy(x).rename_columns({"data": name}).repartition(16)
                began = time.perf_counter()
                predicted = data.map_batches(
                    recurve.ray.Predictor,
                    fn_constructor_args=(str(path),),
                    fn_constructor_kwargs={"device": "cpu"},
                    batch_size=256,
                    compute=ray.data.ActorPoolStrategy(size=actors),
                )
                assert predicted.materialize().count() == count
                rate.append(count / (time.perf_counter() - began))
    finally:
        ray.shutdown()
    for actors, rate in rates.items():
        median = f"{statistics.median(rate):.0f}"
        rows.append(("LSTM T=32 I=16 H=64, batches of 256", f"{actors} actors of Ray", median, "sequences a second"))


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--wheel", type=Path, help="a wheel whose size is reported")
    parser.add_argument("--ray", action="store_true", help="Ray's actors too")
    parser.add_argument("--csv", type=Path, help="a file for the results")
    a = parser.parse_args()
    import onnxruntime

    import recurve

    rows: list[tuple[str, str, str, str]] = []
    if a.wheel is not None:
        rows.append(("the wheel", a.wheel.name, f"{a.wheel.stat().st_size / 1e6:.2f}", "MB"))
    with tempfile.TemporaryDirectory() as folder:
        for part in (of_calls, of_threads, *([of_ray] if a.ray else [])):
            part(rows, a.rounds, Path(folder))
    simd = os.environ.get("RECURVE_SIMD", "widest")
    about = (
        f"# {processor()}, {os.cpu_count()} cores, vector instructions: {simd}; Python {sys.version.split()[0]}, "
        f"numpy {np.__version__}, ONNX Runtime {onnxruntime.__version__}, Recurve {recurve.__version__}"
    )
    print(about)
    for row in rows:
        print(*row, sep="  ")
    if a.csv is not None:
        with open(a.csv, "w", newline="", encoding="utf-8") as file:
            file.write(about + "\n# python3 benches/peers/python_calls.py " + " ".join(sys.argv[1:]) + "\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["what", "kind", "value", "unit"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
