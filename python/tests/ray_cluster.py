"""A Ray cluster of two nodes on this machine, and a small model with its reference in numpy, for the tests of
`recurve.ray`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray")

INPUTS, UNITS, OUTPUTS = 3, 5, 2


@pytest.fixture(scope="session")
def cluster():
    """Two nodes of two CPUs each, of which one says that it has two GPUs."""
    # The pages of the documentation begin clusters of their own.
    ray.shutdown()
    # The names of its sockets have to be short.
    folder = tempfile.mkdtemp(prefix="ray_")
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Other programs of this machine that call `ray.init()` do not find this cluster.
        "RAY_TMPDIR": folder,
        "RAY_TRAIN_V2_ENABLED": "1",
        # A busy machine starts processes slowly.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    }
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=2, num_gpus=2, object_store_memory=200 << 20)
    ray.init(address=cluster.address, log_to_driver=bool(os.environ.get("RECURVE_TEST_RAY_LOGS")))
    assert len([n for n in ray.nodes() if n["Alive"]]) == 2
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    del os.environ["RAY_TMPDIR"]
    shutil.rmtree(folder, ignore_errors=True)


def weights() -> dict[str, np.ndarray]:
    """An LSTM and a Dense with PyTorch's names."""
    rng = np.random.default_rng(7)
    shapes = {
        "rnn.weight_ih_l0": (4 * UNITS, INPUTS),
        "rnn.weight_hh_l0": (4 * UNITS, UNITS),
        "rnn.bias_ih_l0": (4 * UNITS,),
        "rnn.bias_hh_l0": (4 * UNITS,),
        "head.weight": (OUTPUTS, UNITS),
        "head.bias": (OUTPUTS,),
    }
    return {name: rng.uniform(-0.6, 0.6, shape).astype(np.float32) for name, shape in shapes.items()}


def write_model(folder: Path, return_sequences: bool = False, masking: bool = False) -> Path:
    """The model as a description with a safetensors file beside it. With `masking` it finds padding by itself, timesteps
    of zeros."""
    header, data = {}, b""
    for name, array in weights().items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.astype("<f4").tobytes()
    text = json.dumps(header).encode()
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    path = folder / f"model_{'sequences' if return_sequences else 'last'}{'_masking' if masking else ''}.toml"
    mask = '[[layers]]\nkind = "Masking"\n' if masking else ""
    path.write_text(
        f"""
weights = "weights.safetensors"
[[inputs]]
name = "x"
shape = ["batch", "time", {INPUTS}]
{mask}[[layers]]
kind = "LSTM"
from = "rnn"
return_sequences = {str(return_sequences).lower()}
[[layers]]
kind = "Dense"
from = "head"
[[outputs]]
name = "y"
value = "head"
"""
    )
    return path


def reference(x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """What the model gives for each timestep ``[B, T, outputs]``, in float64 by PyTorch's equations; with lengths only
    what it gives for the last timestep that counts ``[B, outputs]``."""
    w = {name: array.astype(np.float64) for name, array in weights().items()}
    h, c = np.zeros((2, len(x), UNITS))
    steps = []
    for t in range(x.shape[1]):
        bias = w["rnn.bias_ih_l0"] + w["rnn.bias_hh_l0"]
        gates = x[:, t] @ w["rnn.weight_ih_l0"].T + h @ w["rnn.weight_hh_l0"].T + bias
        i, f, g, o = np.split(gates, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        steps.append(h @ w["head.weight"].T + w["head.bias"])
    y = np.stack(steps, axis=1)
    return y if lengths is None else y[np.arange(len(x)), lengths - 1]


def sequences(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each id a sequence of 1 to 9 timesteps, padded to 9: ``[n, 9, inputs]`` and lengths ``[n]``."""
    lengths = 1 + (ids * 7919) % 9
    places = np.arange(9 * INPUTS).reshape(9, INPUTS)
    x = np.sin(ids[:, None, None] * 0.37 + places * 1.3).astype(np.float32)
    return x, lengths


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
