"""Models that several threads and processes use."""

import gc
import multiprocessing
import os
import pathlib
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import recurve
from recurve import nn

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIT = ROOT / "tests" / "fixtures" / "fit"


@pytest.fixture(scope="module")
def model():
    return recurve.load(FIT / "outputs.keras", device="cpu")


def inputs_of(n, shape=(4, 7, 3)):
    return np.random.default_rng(n).standard_normal(shape, np.float32)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(p, q) for p, q in zip(a, b))


def test_eight_threads_on_one_model(model):
    """Every thread has its own inputs, of its own shape, and gets its own outputs."""
    lstm = nn.LSTM(3, 16, 2, bidirectional=True, device="cpu")
    shapes = [(1 + n % 3, 2 + n, 3) for n in range(8)]
    given = [inputs_of(n, shape) for n, shape in enumerate(shapes)]
    wanted = [(model(x), lstm(x)[0]) for x in given]
    barrier = threading.Barrier(8)

    def work(n):
        barrier.wait()
        for _ in range(200):
            if not same(model(given[n]), wanted[n][0]) or not np.array_equal(lstm(given[n])[0], wanted[n][1]):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_threads_share_one_array(model):
    """An array that eight calls read at the same time is given back by the last of them."""
    x = inputs_of(1, (8, 200, 3))
    wanted = model(x)
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait()
        return all(same(model(x), wanted) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert x.flags.writeable


def test_threads_begin_a_module_together():
    """The weights are packed while others wait, or twice; the numbers are the same."""
    x = inputs_of(2)
    for _ in range(20):
        lstm = nn.LSTM(3, 32, device="cpu")
        barrier = threading.Barrier(8)

        def work(_, lstm=lstm, barrier=barrier):
            barrier.wait()
            return lstm(x)[0]

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(8)))
        assert all(np.array_equal(y, results[0]) for y in results)


def test_weights_that_are_replaced_while_others_run():
    """A call computes with the weights before or after, never with some of both."""
    module = nn.GRU(3, 8, device="cpu")
    x = inputs_of(3)
    sets = []
    for n in range(2):
        weights = {name: np.full_like(w, 0.1 * (n + 1)) for name, w in module.named_parameters()}
        module.load_state_dict(weights)
        sets.append((weights, module(x)[0]))
    stop = threading.Event()

    def replace():
        n = 0
        while not stop.is_set():
            module.load_state_dict(sets[n % 2][0])
            n += 1

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(300):
            y, _ = module(x)
            assert any(np.array_equal(y, wanted) for _, wanted in sets)
    finally:
        stop.set()
        thread.join()


def test_others_run_meanwhile():
    """The interpreter is not held while a model runs."""
    lstm = nn.LSTM(64, 256, 2, device="cpu")
    x = np.random.default_rng(1).standard_normal((400, 32, 64)).astype(np.float32)
    lstm(x)
    ticks, running = 0, threading.Event()

    def run():
        running.set()
        for _ in range(3):
            lstm(x)
        running.clear()

    thread = threading.Thread(target=run)
    thread.start()
    running.wait()
    # Each turn gives the interpreter up, and would get it back only after a whole call if calls held it.
    while running.is_set():
        time.sleep(0)
        ticks += 1
    thread.join()
    assert ticks > 100


def test_nobody_writes_to_an_array_that_is_read():
    """numpy refuses to write to an array while a call reads it, and allows it again afterwards."""
    lstm = nn.LSTM(64, 256, 2, device="cpu")
    x = np.random.default_rng(1).standard_normal((400, 32, 64)).astype(np.float32)
    wanted, _ = lstm(x)
    results, refused = [], 0
    thread = threading.Thread(target=lambda: results.extend(lstm(x)[0] for _ in range(3)))
    thread.start()
    before = x[0, 0, 0]
    while thread.is_alive():
        try:
            x[0, 0, 0] = before
        except ValueError as error:
            assert "read-only" in str(error)
            refused += 1
    thread.join()
    assert refused > 0
    assert all(np.array_equal(y, wanted) for y in results)
    x[0, 0, 0] = before + 1
    assert not np.array_equal(lstm(x)[0], wanted)


def test_sessions_are_used_by_one_thread_after_the_other():
    silero = recurve.load(ROOT / "models" / "silero_vad.onnx", device="cpu")
    inputs = {"input": inputs_of(1, (1, 576)), "sr": np.int64(16000)}
    session = silero.session()
    wanted = sorted(float(session.run(inputs)["output"][0, 0]) for _ in range(40))
    session.reset()
    with ThreadPoolExecutor(8) as pool:
        got = sorted(pool.map(lambda _: float(session.run(inputs)["output"][0, 0]), range(40)))
    assert got == wanted
    assert len(set(got)) > 1


def resident():
    """The memory of this process, in KiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_the_same_over_100000_calls(model):
    lstm = nn.LSTM(3, 8, device="cpu")
    x, copied = inputs_of(1, (1, 2, 3)), inputs_of(1, (1, 2, 3)).astype(np.float64)
    states = None

    def calls(count):
        nonlocal states
        for _ in range(count):
            model(x)
            model(copied)
            _, states = lstm(x, states)
            try:
                model(x[:, :, :2])
            except ValueError:
                pass

    # 4 calls a turn.
    calls(2_500)
    gc.collect()
    before = resident()
    calls(25_000)
    gc.collect()
    # One of 100,000 calls that kept 64 bytes would be 6 MiB.
    assert resident() - before < 2048


FORK = """
import multiprocessing, os, sys
import numpy as np
import recurve
from recurve import nn

lstm = nn.LSTM(64, 256, device="cpu")
model = recurve.load(sys.argv[1], device="cpu")
x = np.ones((50, 32, 64), np.float32)
small = np.ones((2, 5, 3), np.float32)
wanted = lstm(x)[0], model(small)

def work(_):
    y, z = lstm(x)[0], model(small)
    return np.array_equal(y, wanted[0]) and all(np.array_equal(a, b) for a, b in zip(z, wanted[1]))

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, range(4)))
    print(work(0))
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_a_forked_process_computes_the_same():
    """After a call, whose threads a fork does not copy, a forked process neither hangs nor gives other numbers."""
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(FIT / "outputs.keras")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[True, True, True, True]", "True"]


def spawned(model, x):
    return model(x)


def test_a_spawned_process_gets_a_model(model):
    x = inputs_of(4)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert same(pool.apply(spawned, (model, x)), model(x))


def test_the_module_needs_no_interpreter_lock():
    """Imported by an interpreter without a global lock, the extension does not switch it on."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this interpreter has a global lock")
    assert not sys._is_gil_enabled()


def test_a_process_ends_while_threads_run():
    """An interpreter that ends while a call is running neither hangs nor crashes."""
    code = (
        "import threading, time, numpy as np\n"
        "from recurve import nn\n"
        "lstm = nn.LSTM(64, 256, device='cpu')\n"
        "x = np.ones((2000, 32, 64), np.float32)\n"
        "threading.Thread(target=lambda: lstm(x), daemon=True).start()\n"
        "time.sleep(0.2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_of_a_call_are_limited_by_the_environment():
    """RAYON_NUM_THREADS says how many threads a call uses."""
    code = (
        "import threading, numpy as np, os\n"
        "from recurve import nn\n"
        "nn.LSTM(64, 256, device='cpu')(np.ones((50, 32, 64), np.float32))\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("counts threads in /proc")
    counts = []
    for threads in ("1", "4"):
        env = os.environ | {"RAYON_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1"}
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
        counts.append(int(out.stdout))
    assert counts[1] > counts[0]
