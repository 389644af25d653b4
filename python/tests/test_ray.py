"""`recurve.ray` on a Ray cluster of two nodes: workers are killed, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytest.importorskip("ray.serve")
pytest.importorskip("ray.train")

from ray_cluster import INPUTS, OUTPUTS, cluster, free_port, reference, sequences, write_model  # noqa: E402

import recurve  # noqa: E402
from recurve.ray import AllReduce, DataParallel, Predictor, WorkerLost  # noqa: E402

assert cluster  # the fixture

# Libraries of Ray that call what their dependencies will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TOLERANCE = 2e-6
"""Five units in float32 beside float64: a few units in the last place."""


@pytest.fixture(scope="session")
def last(tmp_path_factory) -> Path:
    """A model that gives what belongs to the last timestep."""
    return write_model(tmp_path_factory.mktemp("last"))


@pytest.fixture(scope="session")
def every(tmp_path_factory) -> Path:
    """A model that gives something for each timestep."""
    return write_model(tmp_path_factory.mktemp("every"), return_sequences=True)


# Batches of sequences of different lengths, without a cluster.


def ragged(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences as a column of arrays, padded, and their lengths."""
    x, lengths = sequences(np.arange(n))
    column = np.empty(n, dtype=object)
    for row in range(n):
        column[row] = x[row, : lengths[row]]
    return column, x, lengths


@pytest.mark.parametrize("pad", ["auto", "lengths", "none"])
@pytest.mark.parametrize("by_length", [True, False])
def test_predictor_gives_rows_in_their_order(last, pad, by_length):
    predict = Predictor(last, device="cpu", pad=pad, batch_by_length=by_length, batch_size=7)
    column, x, lengths = ragged(50)
    out = predict({"id": np.arange(50), "x": column})
    assert list(out) == ["id", "x", "y"]
    np.testing.assert_array_equal(out["id"], np.arange(50))
    np.testing.assert_allclose(out["y"], reference(x, lengths), atol=TOLERANCE)


def test_predictor_takes_padded_sequences_with_their_lengths(last):
    _, x, lengths = ragged(50)
    got = Predictor(last, device="cpu", lengths="n")({"x": x, "n": lengths})["y"]
    np.testing.assert_allclose(got, reference(x, lengths), atol=TOLERANCE)
    # Without the lengths the padding counts.
    whole = Predictor(last, device="cpu")({"x": x})["y"]
    np.testing.assert_allclose(whole, reference(x)[:, -1], atol=TOLERANCE)
    assert np.abs(whole - got).max() > 0.01
    for bad, words in [(lengths * 0, "from 1 to 9"), (lengths + 9, "from 1 to 9"), (lengths * 1.0, "whole numbers")]:
        with pytest.raises(ValueError, match=words):
            Predictor(last, device="cpu", lengths="n")({"x": x, "n": bad})


def test_predictor_cuts_outputs_of_timesteps(every):
    column, x, lengths = ragged(40)
    for pad in ("lengths", "none"):
        got = Predictor(every, device="cpu", pad=pad, batch_size=16)({"x": column})["y"]
        assert [len(row) for row in got] == list(lengths)
        for row, want, length in zip(got, reference(x), lengths):
            np.testing.assert_allclose(row, want[:length], atol=TOLERANCE)


def test_predictor_gives_an_onnx_file_its_lengths():
    # What `recurve convert model_last.toml --lengths -o ray_lengths.onnx` has written of the model of `write_model`.
    path = Path(__file__).parent / "fixtures" / "ray_lengths.onnx"
    column, x, lengths = ragged(30)
    with pytest.raises(ValueError, match="there is no column for the input `lengths`|no column `lengths`"):
        Predictor(path, device="cpu")({"x": column})
    predict = Predictor(path, device="cpu", length_input="lengths", batch_size=8)
    np.testing.assert_allclose(predict({"x": column})["y"], reference(x, lengths), atol=TOLERANCE)
    # Sequences of one length too.
    np.testing.assert_allclose(predict({"x": x})["y"], reference(x)[:, -1], atol=TOLERANCE)


def test_predictor_pads_with_a_number_for_models_that_know_it(tmp_path):
    column, x, lengths = ragged(30)
    predict = Predictor(write_model(tmp_path, masking=True), device="cpu", pad=0.0, batch_size=8, batch_by_length=False)
    np.testing.assert_allclose(predict({"x": column})["y"], reference(x, lengths), atol=TOLERANCE)
    # Without the number only equal lengths go together, as the model cannot be told lengths.
    by_itself = Predictor(write_model(tmp_path, masking=True), device="cpu")
    np.testing.assert_allclose(by_itself({"x": column})["y"], reference(x, lengths), atol=TOLERANCE)
    with pytest.raises(ValueError, match="the model takes no lengths"):
        Predictor(write_model(tmp_path, masking=True), device="cpu", pad="lengths")
    # Another number is no padding to the model.
    other = Predictor(write_model(tmp_path, masking=True), device="cpu", pad=0.5, batch_size=30)({"x": column})["y"]
    assert np.abs(other - reference(x, lengths)).max() > 0.01


def test_predictor_takes_any_format_and_names(last):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    column, x, lengths = ragged(20)
    want = reference(x, lengths)
    lists = [row.tolist() for row in column]
    predict = Predictor(last, inputs={"x": "data"}, outputs={"y": "score"}, device="cpu")
    for batch in [
        {"data": column},
        {"data": np.array(lists, dtype=object)},
        pandas.DataFrame({"data": list(column)}),
        pyarrow.table({"data": lists}),
    ]:
        np.testing.assert_allclose(predict(batch)["score"], want, atol=TOLERANCE)


def test_predictor_takes_paths_bytes_and_models(last, tmp_path):
    model = recurve.load(last, device="cpu")
    model.save(tmp_path / "native.safetensors")
    model.save(tmp_path / "model.onnx")
    column, x, lengths = ragged(12)
    want = reference(x, lengths)
    for source in [
        str(last),
        model,
        (tmp_path / "native.safetensors").read_bytes(),
        tmp_path / "model.onnx",
        (tmp_path / "model.onnx").read_bytes(),
    ]:
        got = Predictor(source, inputs="x", outputs=["y"], device="cpu")({"x": column})["y"]
        np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_predictor_refuses_what_does_not_fit(last):
    make = lambda **options: Predictor(last, device="cpu", **options)  # noqa: E731
    for options, words in [
        ({"inputs": {"z": "x"}}, "there is no input `z`; there are x"),
        ({"inputs": {}}, "no column for the input `x`"),
        ({"outputs": ["a", "b"]}, "a, b are not names of the model's: y"),
        ({"pad": "zeros"}, "one of auto, lengths, none or a number"),
        ({"length_input": "n"}, "there is no input `n`; the inputs are x"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            make(**options)
    with pytest.raises(TypeError, match=r"a path, the bytes of a file or a recurve\.Model, but it is int"):
        Predictor(3, device="cpu")
    with pytest.raises(ValueError, match="no column `x`; the columns are a, b"):
        make()({"a": np.zeros(1), "b": np.zeros(1)})
    column = np.empty(2, dtype=object)
    column[:] = [np.zeros((2, INPUTS)), np.zeros((2, INPUTS + 1))]
    with pytest.raises(ValueError, match="x: samples may differ in their first axis only"):
        make()({"x": column})


# The GPU that Ray has reserved.


def test_the_gpu_of_ray_is_found_by_its_place(monkeypatch, tmp_path):
    from recurve.ray import _device

    class Adapter:
        def __init__(self, pci, kind="discrete GPU", name="card", backend="vulkan"):
            self.pci, self.kind, self.name, self.backend = pci, kind, name, backend

    cpu = Adapter(None, "CPU", "cpu", "cpu")
    cards = [cpu, Adapter("0000:e1:00.0"), Adapter("0000:65:00.0"), Adapter(None, "software", "llvmpipe")]
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\necho '0, GPU-aaaa-1, 00000000:65:00.0'\necho '1, GPU-bbbb-2, 00000000:E1:00.0'\n"
        "echo '2, GPU-cccc-3, 00000000:E2:00.0'\n"
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(recurve, "devices", lambda: cards)
    given: list[str] = []
    monkeypatch.setattr(_device, "assigned_gpus", lambda: given)
    assert _device.choose_device() == "cpu"
    assert _device.choose_device("vulkan") == "vulkan"
    for gpu, place in [("0", "65"), ("1", "e1"), ("GPU-bbbb-2", "e1"), ("GPU-aaaa", "65")]:
        given[:] = [gpu]
        assert _device.choose_device() == f"pci:0000:{place}:00.0"
    given[:] = ["0", "1"]
    with pytest.warns(RuntimeWarning, match="2 GPUs"):
        assert _device.choose_device() == "pci:0000:65:00.0"
    # A card that Vulkan does not show, and one that nobody knows.
    for gpu, words in [("2", "no adapter of Recurve's is at pci:0000:e2:00.0"), ("7", "no driver tells")]:
        given[:] = [gpu]
        with pytest.warns(RuntimeWarning, match=words):
            assert _device.choose_device() == "gpu"
    cards[1:3] = []
    with pytest.warns(RuntimeWarning, match="no adapter"):
        given[:] = ["1"]
        assert _device.choose_device() == "cpu"


def test_the_place_of_a_gpu_from_the_files_of_the_driver(tmp_path):
    from recurve.ray import _device

    for place, uuid in [("0000:e1:00.0", "GPU-b"), ("0000:65:00.0", "GPU-a")]:
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text(
            f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\nBus Location: \t {place}\n"
        )
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "information").write_text("Bus Location: here\n")
    assert _device._from_proc(str(tmp_path)) == [("0", "GPU-a", "0000:65:00.0"), ("1", "GPU-b", "0000:e1:00.0")]
    assert _device._from_proc(str(tmp_path / "none")) == []


def reserved(_: int) -> tuple[list[str], str | None, object]:
    """What a worker finds: its GPUs, the place of the first, and its device."""
    import warnings

    from recurve.ray import _device

    gpus = _device.assigned_gpus()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gpus, _device.gpu_place(gpus[0]) if gpus else None, _device.choose_device()


def test_workers_with_parts_of_gpus(cluster, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-a, 00000000:65:00.0'\necho '1, GPU-b, 00000000:E1:00.0'\n")
    smi.chmod(0o755)
    path = {"env_vars": {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}}
    work = ray.remote(reserved)
    gpu = work.options(num_gpus=0.6, num_cpus=0.1, runtime_env=path)
    found = ray.get([gpu.remote(n) for n in range(3)])
    places = {"0": "0000:65:00.0", "1": "0000:e1:00.0"}
    assert all(len(gpus) == 1 and place == places[gpus[0]] for gpus, place, _ in found), found
    # No adapter of this machine is at these places: the device is a GPU that is there, or the CPU.
    assert {device for _, _, device in found} <= {"cpu", "gpu"}
    assert ray.get(work.options(num_cpus=0.1).remote(0)) == ([], None, "cpu")


# Sums over workers.


def ring(n: int, work, *, timeout: float = 20.0, token=lambda rank: b"secret" * 4) -> list:
    """What each of some threads that are workers gives, or its error."""
    results: list = [None] * n
    with AllReduce.listen("127.0.0.1") as listener:
        address = ("127.0.0.1", listener.getsockname()[1])

        def worker(rank: int) -> None:
            own = {"listener": listener} if rank == 0 else {"address": address}
            try:
                with AllReduce(rank, n, token(rank), timeout=timeout, **own) as reduce:
                    results[rank] = work(reduce)
            except Exception as e:
                results[rank] = e

        threads = [threading.Thread(target=worker, args=(rank,)) for rank in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_sums_over_workers(workers):
    for shape in [(0,), (1,), (2, 2), (7,), (1000, 101)]:
        arrays = [np.random.default_rng(r).standard_normal(shape).astype(np.float32) for r in range(workers)]
        before = [array.copy() for array in arrays]
        # The second sum comes after the first one in all workers.
        sums = ring(workers, lambda r, own=arrays: [r.sum(own[r.rank]), r.sum(2 * own[r.rank])])
        for first, second in sums:
            assert first.shape == shape and first.dtype == np.float32
            np.testing.assert_array_equal(first, sums[0][0])
            np.testing.assert_array_equal(second, 2 * first)
        np.testing.assert_allclose(sums[0][0], np.sum(np.array(arrays, np.float64), axis=0), atol=1e-5)
        assert all((a == b).all() for a, b in zip(arrays, before))


def lost(results: list, words: str) -> None:
    assert any(words in str(e) for e in results), results
    assert all(isinstance(e, WorkerLost) for e in results if e is not None), results


def test_a_lost_worker_is_an_error_for_all():
    zeros = np.zeros(100, np.float32)
    lost(ring(3, lambda r: r.sum(np.zeros(100 + r.rank, np.float32))), "the arrays have different lengths")
    lost(ring(3, lambda r: r.sum(zeros) if r.rank else None), "has closed its connection")
    # Rank 1 is silent; the others know by themselves.
    def silent(reduce: AllReduce) -> np.ndarray | None:
        reduce.timeout = 0.4
        return time.sleep(2) if reduce.rank == 1 else reduce.sum(zeros)

    results = ring(3, silent)
    lost(results, "nothing came for 0.4 s")
    assert results[0] is not None and results[2] is not None
    reduce = AllReduce(0, 1, b"x" * 16)
    with pytest.raises(TypeError, match="float32, but it is of float64"):
        reduce.sum(np.zeros(3))
    with pytest.raises(ValueError, match="rank must be from 0 to 1, but it is 2"):
        AllReduce(2, 2, b"x" * 16)
    with pytest.raises(ValueError, match="16 bytes"):
        AllReduce(0, 1, b"x")


def test_strangers_do_not_take_part():
    lost(ring(2, lambda r: None, timeout=1, token=lambda rank: bytes([rank]) * 16), "could not be connected")
    # A process that connects, and one that sends what is no proof, are turned away, and the workers come together.
    with ExitStack() as strangers, AllReduce.listen("127.0.0.1") as listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        for sent in [b"", b"\x01\0\0\0" + bytes(64), b"GET / HTTP/1.1\r\n\r\n"]:
            stranger = strangers.enter_context(socket.create_connection(address))
            stranger.sendall(sent)
            stranger.shutdown(socket.SHUT_WR)
        sums = [None, None]

        def worker(rank: int) -> None:
            own = {"listener": listener} if rank == 0 else {"address": address}
            with AllReduce(rank, 2, b"secret" * 4, timeout=20, **own) as reduce:
                sums[rank] = reduce.sum(np.full(3, rank + 1, np.float32))

        threads = [threading.Thread(target=worker, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [list(s) for s in sums] == [[3, 3, 3]] * 2


# On a cluster.


class Dying(Predictor):
    """A predictor whose process is killed in the middle of a batch, once."""

    def __init__(self, *arguments, mark: str, at: int, **options):
        super().__init__(*arguments, **options)
        self._mark, self._at = mark, at

    def __call__(self, batch):
        out = super().__call__(batch)
        if self._at in batch["id"]:
            try:
                os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        out["threads"] = np.full(len(batch["id"]), int(os.environ["RAYON_NUM_THREADS"]))
        out["pid"] = np.full(len(batch["id"]), os.getpid())
        return out


def rows(batch: dict) -> dict:
    """Sequences of some ids."""
    x, lengths = sequences(batch["id"])
    column = np.empty(len(x), dtype=object)
    for row, length in enumerate(lengths):
        column[row] = x[row, :length]
    return {"id": batch["id"], "x": column}


def test_batch_inference_with_a_worker_that_is_killed(cluster, last, tmp_path):
    n, mark = 100_000, tmp_path / "killed"
    data = ray.data.range(n, override_num_blocks=20).map_batches(rows, batch_size=5000)
    predicted = data.map_batches(
        Dying,
        fn_constructor_kwargs={"model": str(last), "mark": str(mark), "at": n // 2, "device": "auto"},
        batch_size=2500,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).select_columns(["id", "y", "pid", "threads"])
    batches = list(predicted.iter_batches(batch_size=10_000))
    assert mark.exists(), "no worker was killed"
    ids = np.concatenate([b["id"] for b in batches])
    y = np.concatenate([b["y"] for b in batches])
    assert len(ids) == n
    np.testing.assert_array_equal(np.sort(ids), np.arange(n))
    x, lengths = sequences(ids)
    np.testing.assert_allclose(y, reference(x, lengths), atol=TOLERANCE)
    # One model an actor, on as many threads as CPUs are reserved.
    assert {int(t) for b in batches for t in b["threads"]} == {1}
    assert 2 <= len({int(p) for b in batches for p in b["pid"]}) <= 3


def test_a_replica_limits_its_sessions(every):
    import asyncio

    from recurve.ray._serve import SessionLost, TooManySessions, _lists, _Replica

    x, _ = sequences(np.arange(2))
    want = reference(x)

    async def ask() -> None:
        collate = {"pad": "auto", "length_input": None}
        replica = _Replica(str(every), "cpu", 4, 0.2, collate, None, 60.0, 2)
        await replica.begin("a")
        await replica.begin("b")
        with pytest.raises(TooManySessions, match="2 sessions"):
            await replica.begin("c")
        # A session that begins again has new states and takes no second place.
        await replica.step("b", {"x": x[0, :1]}, 0)
        await replica.begin("b")
        got = await replica.step("b", {"x": x[1, :1]}, 0)
        np.testing.assert_allclose(got["y"], want[1, :1], atol=TOLERANCE)
        await replica.end("a")
        await replica.end("a")
        with pytest.raises(SessionLost, match="session a is not on this replica"):
            await replica.step("a", {"x": x[0, :1]}, 0)
        await replica.begin("c")
        for name in ["", "n" * 201]:
            with pytest.raises(ValueError, match="1 to 200 characters"):
                await replica.begin(name)
        replica._sweeper.cancel()

        # A session that nobody has used for too long is lost at once, and its states are dropped a little later.
        replica = _Replica(str(every), "cpu", 4, 0.2, collate, None, 0.2, 2)
        await replica.begin("a")
        session = replica._streams["a"].session
        await asyncio.sleep(0.3)
        with pytest.raises(SessionLost, match=r"has expired after 0\.2 s"):
            await replica.step("a", {"x": x[0, :1]}, 0)
        while replica._streams:
            await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError, match="closed"):
            session.run({"x": x[:1, :1]})
        replica._sweeper.cancel()

    asyncio.run(ask())
    assert _lists({"y": np.array([[1.0, np.nan], [-np.inf, 2.0]])}) == {"y": [[1.0, None], [None, 2.0]]}


def test_serve_app_refuses_what_does_not_fit(last):
    for options, words in [
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, but it is 0"),
        ({"max_sessions": 0}, "max_sessions must be at least 1, but it is 0"),
        ({"session_timeout_s": 0.0}, r"session_timeout_s must be above 0, but it is 0\.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            recurve.ray.serve_app(last, **options)
    with pytest.raises(TypeError, match=r"a path, the bytes of a file or a recurve\.Model, but it is dict"):
        recurve.ray.serve_app({})


def served(last, **options):
    """The handle and the address of a served model."""
    from ray import serve

    port = served.port = getattr(served, "port", None) or free_port()
    # A busy machine may need longer for the processes than Ray waits.
    for attempt in range(5):
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            break
        except TimeoutError:
            assert attempt < 4
    app = recurve.ray.serve_app(recurve.load(last, device="cpu"), num_replicas=2, num_cpus=0.5, **options)
    return serve.run(app, name="test", route_prefix="/"), f"http://127.0.0.1:{port}/"


def http(url: str, body=None, method="POST", **headers):
    """The status and the answer of a request."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {k.replace("_", "-"): v for k, v in headers.items()}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as e:
        text = e.read()
        return e.code, json.loads(text) if text.startswith(b"{") else text


def test_a_served_model_answers_while_a_replica_is_killed(cluster, last):
    handle, url = served(last)
    x, lengths = sequences(np.arange(400))
    want = reference(x, lengths)

    # A handle and HTTP give the same.
    sample = x[3, : lengths[3]]
    np.testing.assert_allclose(handle.remote({"x": sample}).result()["y"], want[3], atol=TOLERANCE)
    status, answer = http(url, {"x": sample.tolist()})
    assert status == 200
    np.testing.assert_allclose(answer["y"], want[3], atol=TOLERANCE)
    for body, words in [
        ({"z": [[1, 2, 3]]}, "a sample has the inputs x, but this one has z"),
        ({"x": [[1, 2]]}, "x: a sample has the shape [?, 3], got [1, 2]"),
        ({"x": [[1, 2, 3], [1]]}, "x: the lists inside must have equal lengths"),
        ({"x": [["a", "b", "c"]]}, "x: expected numbers"),
        ({"x": []}, "x: a sample has the shape"),
        (b"{", "the request is not JSON"),
        ([1], "a JSON object"),
    ]:
        status, answer = http(url, body)
        assert status == 400 and words in answer["message"], (status, answer)
    assert http(url + "other", {})[0] == 404
    with pytest.raises(ValueError, match="a sample has the inputs x, but this one has z"):
        handle.remote({"z": sample}).result()

    # Requests that come together are computed together, and a wrong one among them spoils no other.
    batch = [{"x": x[row, : lengths[row]]} for row in range(200)]
    batch[7] = {"x": x[7, :, :2]}
    replies = [handle.run.remote(one) for one in batch]
    for row, reply in enumerate(replies):
        if row == 7:
            with pytest.raises(ValueError, match="a sample has the shape"):
                reply.result()
        else:
            np.testing.assert_allclose(reply.result()["y"], want[row], atol=TOLERANCE)
    replicas = {found["replica"]: found for found in (handle.where.remote().result() for _ in range(20))}
    assert len(replicas) == 2
    requests, batches = (sum(found[name] for found in replicas.values()) for name in ("requests", "batches"))
    assert requests == 201 and batches < 100, (requests, batches)

    # Under load a replica is killed. A request that ends with it is sent again; every one is answered rightly.
    client = recurve.ray.Client(handle)
    got, errors, done = np.full((3, 400, OUTPUTS), np.nan), [], threading.Semaphore(0)

    def ask(part: int) -> None:
        for round in range(3):
            for row in range(part, 400, 8):
                try:
                    got[round, row] = client.run({"x": x[row, : lengths[row]]})["y"]
                except Exception as e:
                    errors.append(e)
                done.release()

    threads = [threading.Thread(target=ask, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(400):
        done.acquire()
    killed = handle.where.remote().result()
    os.kill(killed["pid"], signal.SIGKILL)
    for thread in threads:
        thread.join()
    print("retried", client.retried)
    assert errors == []
    np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), atol=TOLERANCE)
    # Another replica takes its place.
    for _ in range(300):
        replicas = {handle.where.remote().result()["replica"] for _ in range(10)}
        if len(replicas) == 2:
            break
        time.sleep(0.1)
    assert len(replicas) == 2 and killed["replica"] not in replicas


def test_sessions_stay_on_their_replica(cluster, every):
    handle, url = served(every, session_timeout_s=600.0, max_sessions=30)
    client = recurve.ray.Client(handle)
    x, _ = sequences(np.arange(12))
    want = reference(x)
    sessions = [client.session() for _ in range(12)]
    where = [s._handle.where.remote().result() for s in sessions]
    assert {w["replica"] for w in where} == {w["replica"] for w in where} and len({w["replica"] for w in where}) == 2

    def step(row: int, t: int) -> None:
        got = sessions[row].step({"x": x[row, t : t + 1]})["y"]
        np.testing.assert_allclose(got, want[row, t : t + 1], atol=TOLERANCE)

    # Sessions at the same time, each with its own states, and other requests in between.
    for t in range(3):
        for row in range(12):
            step(row, t)
        client.run({"x": x[0]})
    assert [s._handle.where.remote().result()["replica"] for s in sessions] == [w["replica"] for w in where]
    # A step that is sent twice is taken once.
    again = sessions[0]._handle.step.remote(sessions[0].id, {"x": x[0, 2:3]}, 2).result()
    np.testing.assert_allclose(again["y"], want[0, 2:3], atol=TOLERANCE)
    with pytest.raises(ValueError, match="step 7 does not follow step 2"):
        sessions[0]._handle.step.remote(sessions[0].id, {"x": x[0, 3:4]}, 7).result()
    step(0, 3)
    with pytest.raises(ValueError, match="no such input"):
        sessions[0].step({"z": x[0, :1]})

    # The same by HTTP.
    name = {"x_session_id": "a stream"}
    assert http(url + "session", b"", **name)[0] == 200
    for t in range(3):
        status, answer = http(url, {"x": x[5, t : t + 1].tolist()}, **name)
        assert status == 200
        np.testing.assert_allclose(answer["y"], want[5, t : t + 1], atol=TOLERANCE)
    assert http(url + "session", method="DELETE", **name)[0] == 200
    status, answer = http(url, {"x": x[5, :1].tolist()}, **name)
    assert status == 410 and answer["error"] == "SessionLost", answer
    assert http(url + "session", b"")[0] == 400

    # The replica of some sessions is killed: they have to begin again, and the others go on, unless the replica that
    # takes the dead one's place has become theirs.
    victim = where[1]
    os.kill(victim["pid"], signal.SIGKILL)
    went_on = 0
    for row in sorted(range(1, 12), key=lambda row: where[row]["replica"] == victim["replica"]):
        if where[row]["replica"] == victim["replica"]:
            with pytest.raises(recurve.ray.SessionLost, match="begin"):
                step(row, 3)
            sessions[row] = client.session()
            step(row, 0)
            continue
        try:
            step(row, 3)
            went_on += 1
        except recurve.ray.SessionLost:
            assert sessions[row]._handle.where.remote().result()["replica"] != where[row]["replica"]
    assert went_on > 0
    with client.session() as session:
        pass
    with pytest.raises(recurve.ray.SessionLost):
        session.step({"x": x[0, :1]})


COMPILED = {"optimizer": "adam", "loss": "mse"}


def samples(n: int) -> tuple[np.ndarray, np.ndarray]:
    x, _ = sequences(np.arange(n))
    return x, np.cos(x.sum(axis=(1, 2), dtype=np.float64)[:, None] + np.arange(OUTPUTS)).astype(np.float32)


def compiled(path: Path):
    model = recurve.load(path, device="cpu")
    model.compile(**COMPILED)
    return model


def dying(path: Path, mark: Path, at: int):
    """A model whose process is killed in a step, once, if it is not that of the first worker."""
    model, steps = compiled(path), 0
    flat_gradients = model.flat_gradients

    def counted(*arguments, **options):
        nonlocal steps
        steps += 1
        if steps == at and ray.train.get_context().get_world_rank() == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return flat_gradients(*arguments, **options)

    model.flat_gradients = counted
    return model


def test_two_workers_train_as_one(cluster, last, tmp_path):
    from functools import partial

    x, y = samples(53)
    # Seven batches of eight and one of five; parts of a batch have different sizes.
    options = {"batch_size": 8, "epochs": 3, "seed": 5, "timeout": 30.0}

    # One worker with whole batches.
    one = compiled(last)
    before = one.flat_weights()
    losses = []
    with DataParallel(one, reduce=AllReduce(0, 1, b"x" * 16)) as parallel:
        for epoch in range(3):
            order = np.random.default_rng([5, epoch]).permutation(53)
            parts = [order[start : start + 8] for start in range(0, 53, 8)]
            losses.append(sum(len(rows) * parallel.step(x[rows], y[rows]) for rows in parts) / 53)
    want = one.flat_weights()
    assert np.abs(want - before).max() > 0.01, "nothing was learned"

    run = ray.train.RunConfig(storage_path=str(tmp_path / "runs"), name="two")
    done = recurve.ray.fit(
        recurve.load(last, device="cpu"), x, y, compile=COMPILED, run_config=run, validation_data=(x, y), **options
    )
    np.testing.assert_allclose(done.history["loss"], losses, rtol=1e-5)
    assert len(done.history["val_loss"]) == 3
    done.model.compile(**COMPILED)
    got = done.model.flat_weights()
    np.testing.assert_allclose(got, want, atol=1e-5)

    # A worker is killed in the second epoch. The workers begin again with the first checkpoint: the same bits.
    mark = tmp_path / "killed"
    run = ray.train.RunConfig(
        storage_path=str(tmp_path / "runs"), name="killed", failure_config=ray.train.FailureConfig(max_failures=1)
    )
    again = recurve.ray.fit(partial(dying, last, mark, 10), x, y, run_config=run, **options)
    assert mark.exists(), "no worker was killed"
    again.model.compile(**COMPILED)
    np.testing.assert_array_equal(again.model.flat_weights(), got)
    assert again.history["loss"] == done.history["loss"]


def test_fit_refuses_what_does_not_fit(cluster, last):
    model = recurve.load(last, device="cpu")
    x, y = samples(4)
    with pytest.raises(ValueError, match="compile: a model goes to the workers without its optimizer"):
        recurve.ray.fit(model, x, y)
    with pytest.raises(TypeError, match=r"a recurve\.Model or a function that makes one, but it is str"):
        recurve.ray.fit("model", x, y)
    with pytest.raises(ValueError, match="max_failures belongs into run_config"):
        recurve.ray.fit(model, x, y, compile=COMPILED, max_failures=1, run_config=ray.train.RunConfig())
