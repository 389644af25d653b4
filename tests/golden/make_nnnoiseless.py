"""make_nnnoiseless.py WEIGHTS FEATURES OUT: the network of nnnoiseless 0.5.2 (BSD-3) and what it gives, written from the
crate's description of its layers, in float64 with numpy.

WEIGHTS is src/weights.rnn of the crate: for each layer its sizes and its function (0 tanh, 1 sigmoid, 2 ReLU) in a byte
each, then its matrices and biases as signed bytes that are divided by 256. FEATURES is an .npz with `features`, which
the crate computes of a recording, and `gains_crate` and `vad_crate`, what the crate makes of them with its tables of
tanh and sigmoid, which is near what they stand for.

Writes OUT/network.safetensors, with the names of PyTorch and its order of gates, as float16, which holds these weights
exactly, and OUT/expected.npz: the first features, gains and probabilities of voice."""
import sys
import numpy as np
from safetensors.numpy import save_file

weights, features, out = sys.argv[1:]
raw, at = np.fromfile(weights, np.int8), 0


def read(count, *shape):
    global at
    at += count
    return raw[at - count:at].reshape(shape).astype(np.float64) / 256


def layer(gates):
    global at
    inputs, units, function = (int(b) for b in raw[at:at + 3])
    at += 3
    matrices = [read(inputs * units * gates, inputs, gates * units)]
    if gates == 3:
        matrices.append(read(units * units * gates, units, gates * units))
    return [*matrices, read(gates * units, gates * units), function]


dense, vad, noise, denoise, gains, voice = (layer(g) for g in (1, 3, 3, 3, 1, 1))
assert at == len(raw)
assert [l[-1] for l in (dense, vad, noise, denoise, gains, voice)] == [0, 2, 2, 2, 1, 1]

sigmoid, relu = lambda v: 1 / (1 + np.exp(-v)), lambda v: np.maximum(v, 0)


def gru(l, h, x):
    """Gates z, r, h; the reset gate before the product; z is the share of the old state."""
    w, u, b, _ = l
    n = len(h)
    z = sigmoid(x @ w[:, :n] + h @ u[:, :n] + b[:n])
    r = sigmoid(x @ w[:, n:2 * n] + h @ u[:, n:2 * n] + b[n:2 * n])
    return z * h + (1 - z) * relu(x @ w[:, 2 * n:] + (r * h) @ u[:, 2 * n:] + b[2 * n:])


given = np.load(features)
v, n, d = np.zeros(24), np.zeros(48), np.zeros(96)
all_gains, all_voice = [], []
for x in given["features"].astype(np.float64):
    first = np.tanh(x @ dense[0] + dense[1])
    v = gru(vad, v, first)
    n = gru(noise, n, np.concatenate([first, v, x]))
    d = gru(denoise, d, np.concatenate([v, n, x]))
    all_gains.append(sigmoid(d @ gains[0] + gains[1]))
    all_voice.append(sigmoid(v @ voice[0] + voice[1]))
all_gains, all_voice = np.array(all_gains), np.array(all_voice)
print("beside the crate:", np.abs(all_gains - given["gains_crate"]).max(), np.abs(all_voice[:, 0] - given["vad_crate"]).max())
assert np.abs(all_gains - given["gains_crate"]).max() < 0.05

tensors = {}
for name, l in [("dense", dense), ("gains", gains), ("voice", voice)]:
    tensors |= {f"{name}.weight": l[0].T, f"{name}.bias": l[1]}
for name, (w, u, b, _) in [("vad", vad), ("noise", noise), ("denoise", denoise)]:
    # PyTorch's order is r, z, n.
    order = lambda m: np.concatenate([np.split(m, 3)[k] for k in (1, 0, 2)])
    tensors |= {f"{name}.weight_ih_l0": order(w.T), f"{name}.weight_hh_l0": order(u.T), f"{name}.bias_ih_l0": order(b)}
half = {k: np.ascontiguousarray(t, np.float16) for k, t in tensors.items()}
assert all((half[k].astype(np.float64) == t).all() for k, t in tensors.items())
save_file(half, f"{out}/network.safetensors")
N = 240
np.savez_compressed(
    f"{out}/expected.npz", features=given["features"][:N].astype(np.float32), gains=all_gains[:N].astype(np.float32),
    voice=all_voice[:N].astype(np.float32))
