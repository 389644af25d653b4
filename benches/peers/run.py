#!/usr/bin/env python3
"""Times ONNX Runtime and PyTorch beside `recurve bench` on the same shapes, in the same run.

    pip install numpy onnxruntime onnx torch matplotlib      (missing packages are left out, with a message)
    cargo build --release
    python3 benches/peers/run.py                                               CPU against CPU
    python3 benches/peers/run.py --simd avx512,avx2                            a table for each instruction set
    python3 benches/peers/run.py --device gpu --out benches/results/gpu_peers  where torch finds a GPU: cuDNN

Each round times every program in turn, in an order that changes, so that a noisy machine disturbs them
alike; the median over the rounds of the medians is reported. Forward pass, all timesteps and states.
Times are from input in host memory to outputs in host memory. On a GPU the time on the device alone is
compared as well: recurve's timestamps against synchronised calls on tensors that are already there.
ratio = recurve / the best peer; below 1 Recurve is faster. peak = the least time by measured peaks over
recurve's (`roofline` in benches/README.md): for rows with batches the share of the multiply-adds that the
instruction set can do. Writes FILE.csv, and FILE.svg with matplotlib; without --out FILE is
benches/results/cpu_peers_SET, SET being the instruction set that recurve used.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Settings of a library that would otherwise slow the peers.
for name in [n for n in os.environ if n.startswith("OPENBLAS_")]:
    del os.environ[name]

try:
    import torch
except ImportError:
    torch = None
try:
    import numpy as np
    import onnx
    import onnxruntime as ort
except ImportError:
    ort = None

SHAPES = ["16,1,128,128", "64,1,128,128", "256,1,128,128", "1024,1,128,128", "128,1,256,256", "128,32,256,256",
          "100,16,512,512", "25,1,1024,1024", "64,64,64,64"]
GRID = [f"{t},{b},{h},{h}" for h in (64, 128, 256, 512, 768, 1024) for b in (1, 8, 16, 32, 64) for t in (16, 64, 256, 1024)]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
ROOT = Path(__file__).resolve().parents[2]


def median_ms(call, seconds):
    call()
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def onnxruntime(cell, shape, threads, seconds, dtype):
    """ONNX Runtime's CPU provider."""
    t, b, i, h = shape
    g = GATES[cell]
    rng = np.random.default_rng(0)
    make = lambda *s: rng.uniform(-h ** -0.5, h ** -0.5, s).astype(np.float32)
    weights = {"W": make(1, g * h, i), "R": make(1, g * h, h), "B": make(1, 2 * g * h)}
    names = ["Y", "Y_h"] + (["Y_c"] if cell == "lstm" else [])
    attributes = {"hidden_size": h, **({"linear_before_reset": 1} if cell == "gru" else {})}
    node = onnx.helper.make_node(cell.upper(), ["X", "W", "R", "B"], names, **attributes)
    value = lambda n, s: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
    graph = onnx.helper.make_graph([node], "g", [value("X", [t, b, i])], [value(n, None) for n in names],
                                   [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = {"X": rng.uniform(-1, 1, (t, b, i)).astype(np.float32)}
    return median_ms(lambda: session.run(names, x), seconds), None


def module(cell, shape):
    t, b, i, h = shape
    torch.manual_seed(0)
    net = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](i, h, batch_first=True).eval()
    return net, torch.rand(b, t, i) * 2 - 1


def pytorch(cell, shape, threads, seconds, dtype):
    """PyTorch on the CPU."""
    torch.set_num_threads(threads)
    net, x = module(cell, shape)
    with torch.inference_mode():
        return median_ms(lambda: net(x), seconds), None


def cudnn(cell, shape, threads, seconds, dtype):
    """PyTorch on an NVIDIA GPU, which runs cuDNN; host to host, and on the device alone."""
    kind = torch.float16 if dtype == "f16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net, x = module(cell, shape)
    net, x = net.cuda().to(kind), x.to(kind)
    there = x.cuda()

    def host():
        y, state = net(x.cuda())
        y.cpu()
        for s in state if isinstance(state, tuple) else (state,):
            s.cpu()

    def device():
        net(there)
        torch.cuda.synchronize()

    with torch.inference_mode():
        return median_ms(host, seconds), median_ms(device, seconds)


def recurve(program, cell, shape, threads, seconds, device, dtype, strategy, simd):
    out = subprocess.run(
        [program, "bench", "--cell", cell, "--shape", ",".join(map(str, shape)), "--device", device, "--weights", dtype,
         "--strategy", strategy, "--seconds", str(seconds), "--runs", "5", "--json"],
        capture_output=True, text=True,
        env={**os.environ, "RAYON_NUM_THREADS": str(threads), **({"RECURVE_SIMD": simd} if simd else {})})
    if out.returncode:
        sys.exit(f"recurve bench failed: {out.stderr}")
    rows = json.loads(out.stdout)
    return rows["rows"] if isinstance(rows, dict) else rows


def draw(path, rows, title):
    try:
        import matplotlib
    except ImportError:
        print("# no matplotlib: no SVG", file=sys.stderr)
        return
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "recurve", "svg.fonttype": "none", "font.size": 9})
    names = list(dict.fromkeys(f"{r['cell']} {r['T']}×{r['B']}×{r['I']}×{r['H']}" for r in rows))
    series = list(dict.fromkeys((r["threads"], r["dtype"], r["strategy"]) for r in rows))
    fig, ax = plt.subplots(figsize=(9, 0.24 * len(names) * max(1, len(series) / 2) + 1.5))
    height = 0.8 / len(series)
    for n, s in enumerate(series):
        mine = {f"{r['cell']} {r['T']}×{r['B']}×{r['I']}×{r['H']}": r["ratio"] for r in rows
                if (r["threads"], r["dtype"], r["strategy"]) == s}
        ax.barh([names.index(k) + n * height for k in mine], list(mine.values()), height,
                label=f"{s[0]} thread{'s' * (s[0] != 1)} {s[1]} {s[2]}")
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks([k + 0.4 - height / 2 for k in range(len(names))], names)
    ax.invert_yaxis()
    ax.set_xlabel("time of Recurve / time of the fastest peer (below 1: Recurve is faster)")
    ax.set_title(title)
    ax.legend()
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})


def out_name(a, sets, rows):
    """The path of the results: by the instruction set, unless there is only one set and a path was given."""
    # "CPU (AVX2)" is "avx2" in a file's name.
    name = lambda device: "".join(c for c in device.partition("(")[2].lower() if c.isalnum()) or "scalar"
    if not rows:
        sys.exit("nothing was measured")
    out = Path(a.out or ROOT / "benches/results" / ("cpu_peers" if a.device == "cpu" else "compare"))
    if a.device == "cpu" and (not a.out or len(sets) > 1):
        out = out.with_name(f"{out.name}_{name(rows[0]['device'])}")
    return out


def write(a, out, head, columns, rows, wanted):
    with open(out.with_suffix(".csv"), "w", newline="") as f:
        f.write(f"{head}; {rows[0]['device']}\n")
        w = csv.DictWriter(f, columns)
        w.writeheader()
        w.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in r.items()} for r in rows)
    for key in dict.fromkeys((r["threads"], r["dtype"], r["strategy"]) for r in rows):
        part = [r["ratio"] for r in rows if (r["threads"], r["dtype"], r["strategy"]) == key]
        print(f"{key[0]} threads {key[1]} {key[2]}: geometric mean of the ratios {statistics.geometric_mean(part):.3f}, "
              f"worst {max(part):.3f}, {sum(x <= 1 for x in part)} of {len(part)} rows at or below 1")
    for cell in dict.fromkeys(r["cell"] for r in rows):
        for batched in (False, True):
            part = [r["peak"] for r in rows if r["cell"] == cell and (r["B"] > 1) == batched]
            if part:
                print(f"{rows[0]['device']} {cell} {'rows with batches' if batched else 'one row'}: "
                      f"{100 * min(part):.0f} to {100 * max(part):.0f} % of the peak, all threads")
    draw(out.with_suffix(".svg"), rows, f"Recurve on {rows[0]['device']} beside {', '.join(wanted)}: forward pass")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu", help="of recurve; anything but cpu also brings in cuDNN where there is one")
    p.add_argument("--peers", help="names separated by commas; default: all that fit the device")
    p.add_argument("--cell", default="lstm,gru,rnn")
    p.add_argument("--shapes", nargs="*", default=SHAPES, metavar="T,B,I,H")
    p.add_argument("--grid", action="store_true", help="H 64 to 1024, B 1 to 64, T 16 to 1024 instead of the nine shapes")
    p.add_argument("--weights", default="f32", help="f32, f16 or both separated by a comma (int8: CPU)")
    p.add_argument("--strategy", default="auto", help="auto, all, scan, step or grid")
    p.add_argument("--threads", default="1,2", help="numbers of threads on the CPU")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=0.3, help="per program, row and round")
    p.add_argument("--limit", type=float, help="stop after this many seconds, with what there is")
    p.add_argument("--simd", default="", help="instruction sets of recurve on the CPU, values of RECURVE_SIMD "
                   "separated by commas; default: the widest there is")
    p.add_argument("--program", default=ROOT / "target/release/recurve")
    p.add_argument("--out", help="path of the CSV and SVG, without their ending; with several instruction sets the "
                   "set's name comes behind it")
    a = p.parse_args()
    sets = a.simd.split(",")
    cuda = torch is not None and torch.cuda.is_available()
    known = {"onnxruntime": onnxruntime, "pytorch": pytorch, "cudnn": cudnn}
    there = [n for n, ok in (("onnxruntime", ort), ("pytorch", torch), ("cudnn", cuda and a.device != "cpu")) if ok]
    if a.device != "cpu" and cuda:
        there = ["cudnn"]
    wanted = a.peers.split(",") if a.peers else there
    if missing := [n for n in wanted if n not in there]:
        sys.exit(f"{', '.join(missing)} cannot be run here; there are: {', '.join(there) or 'none'}")
    if not wanted:
        sys.exit("no peer is installed: pip install numpy onnxruntime onnx torch")
    for n in ("onnxruntime", "pytorch"):
        if a.device == "cpu" and n not in there:
            print(f"# {n} is not installed and left out", file=sys.stderr)
    versions = {"onnxruntime": getattr(ort, "__version__", None), "pytorch": getattr(torch, "__version__", None)}
    if cuda:
        versions["cudnn"] = f"{torch.backends.cudnn.version()} on {torch.cuda.get_device_name()}"
    git = lambda *x: subprocess.run(["git", *x], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")),
               platform.processor()) if os.path.exists("/proc/cpuinfo") else platform.processor()
    head = (f"# recurve {git('rev-parse', '--short', 'HEAD')}{'+' if git('status', '--porcelain', '-uno') else ''}, "
            + ", ".join(f"{n} {v}" for n, v in versions.items() if v) + f"; {cpu}, {os.cpu_count()} cores; rounds {a.rounds}")
    columns = ["cell", "T", "B", "I", "H", "dtype", "threads", "device", "driver", "strategy", "recurve_ms",
               *(f"{n}_ms" for n in wanted), "ratio", "peak", "recurve_gpu_ms", "peer_gpu_ms", "gpu_ratio", "recurve_rounds_ms"]
    started = time.monotonic()
    shapes = [tuple(map(int, s.split(","))) for s in (GRID if a.grid else a.shapes)]
    threads = [int(t) for t in a.threads.split(",")] if a.device == "cpu" else [os.cpu_count()]
    for simd in sets:
        rows = []
        for cell in a.cell.split(","):
            for shape in shapes:
                for dtype in a.weights.split(","):
                    for count in threads:
                        if a.limit and time.monotonic() - started > a.limit:
                            continue
                        ours, peers = {}, {n: [] for n in wanted}
                        for round in range(a.rounds):
                            def us():
                                for r in recurve(a.program, cell, shape, count, a.seconds, a.device, dtype, a.strategy, simd):
                                    ours.setdefault((r["strategy"] + " " + r["layout"]).strip(), []).append(r)

                            def they():
                                for n in wanted:
                                    peers[n].append(known[n](cell, shape, count, a.seconds, dtype))

                            for part in (us, they) if round % 2 == 0 else (they, us):
                                part()
                        ms = {n: statistics.median(v[0] for v in t) for n, t in peers.items()}
                        on_device = [statistics.median(v[1] for v in t) for t in peers.values() if t[0][1] is not None]
                        for strategy, runs in ours.items():
                            mine = statistics.median(r["ms_median"] for r in runs)
                            gpu = statistics.median(r["gpu_ms"] or 0 for r in runs) or None
                            row = dict(zip(columns, (cell, *shape, dtype, count, runs[0]["device"], runs[0]["driver"], strategy, mine)))
                            row |= {f"{n}_ms": v for n, v in ms.items()}
                            row["ratio"] = mine / min(ms.values())
                            row["peak"] = statistics.median(r["roofline"] for r in runs)
                            row["recurve_rounds_ms"] = " ".join(f"{r['ms_median']:.4f}" for r in runs)
                            if gpu:
                                row["recurve_gpu_ms"] = gpu
                            if gpu and on_device:
                                row["peer_gpu_ms"] = min(on_device)
                                row["gpu_ratio"] = gpu / min(on_device)
                            rows.append(row)
                            print(f"{cell:5}{'×'.join(map(str, shape)):>16} {dtype} {count} threads {strategy:5} recurve {mine:9.4f}  "
                                  + "  ".join(f"{n} {v:9.4f}" for n, v in ms.items()) + f"  ratio {row['ratio']:.3f}  peak {100 * row['peak']:.0f} %"
                                  + (f"  on the device {row['gpu_ratio']:.3f}" if "gpu_ratio" in row else ""), flush=True)
        write(a, out_name(a, sets, rows), head, columns, rows, wanted)


if __name__ == "__main__":
    main()
