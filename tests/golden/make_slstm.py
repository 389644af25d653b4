#!/usr/bin/env python3
"""Expected values of the sLSTM: fixtures/slstm.safetensors.

pip install numpy safetensors
Run from the folder `tests`: python3 golden/make_slstm.py

Written from Beck et al. 2024 (arXiv 2405.04517) with numpy in float64: equations 8 to 14 with the stabilizer of
equations 15 to 17, R a block a head (appendix A.2). The gates stand in the order i f z o and the states are h, c, n, m,
as in the authors' own code (github.com/NX-AI/xlstm), which begins with zeros and takes m = ĩ while n is 0. Where no
gate is extreme, h is compared with what the equations without a stabilizer give.

The metadata's `cases` holds each layer's description as Recurve's model file writes it. Arrays of a case: x [B, T, I];
weights by direction, `weight_hh` [4·H, H / heads]; h0 [D, B, H] and c0 [D, B, 3·H], c, n and m one after the other;
lengths [B] or mask [B, T]; y, h and c as results.
"""

import json

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(11)
out, cases = {}, {}
B, T, I, H = 3, 6, 4, 12
GATES = "ifzo"


def f32(a):
    return np.asarray(a, np.float32)


def sigmoid(a):
    return np.exp(-np.logaddexp(0, -a))


def preactivations(w, x, h, heads, clip):
    """ĩ, f̃, z̃ and õ of one row, each [H]."""
    size = H // heads
    blocks = w["weight_hh"].reshape(4, heads, size, size)
    recurrent = np.einsum("ghij,hj->ghi", blocks, h.reshape(heads, size)).reshape(4, H)
    bias = (w["bias_ih"] + w["bias_hh"]).reshape(4, H)
    all_gates = w["weight_ih"].reshape(4, H, I) @ x + recurrent + bias
    return all_gates if clip is None else np.clip(all_gates, -clip, clip)


def stabilized(w, x, state, heads, exponential, clip):
    h, c, n, m = state
    i, f, z, o = preactivations(w, x, h, heads, clip)
    kept = m + (f if exponential else -np.logaddexp(0, -f))
    new = np.where(n == 0, i, np.maximum(kept, i))
    i = np.exp(i - new)
    f = np.exp(np.where(n == 0, -np.inf, kept - new))
    c, n = f * c + i * np.tanh(z), f * n + i
    return sigmoid(o) * c / n, c, n, new


def plain(w, x, state, heads, exponential, clip):
    """The same cell without its stabilizer: c and n as e^m times those."""
    h, c, n, _ = state
    i, f, z, o = preactivations(w, x, h, heads, clip)
    i, f = np.exp(i), np.exp(f) if exponential else sigmoid(f)
    c, n = f * c + i * np.tanh(z), f * n + i
    return sigmoid(o) * c / n, c, n, 0


def run(step, w, x, state, valid, backwards, heads, exponential, clip, repeat):
    """One direction of one row: outputs [T, H] and the last state."""
    y = np.zeros((T, H))
    for t in reversed(range(T)) if backwards else range(T):
        if valid[t]:
            state = step(w, x[t], state, heads, exponential, clip)
            y[t] = state[0]
        elif repeat:
            y[t] = state[0]
    return y, state


def case(name, heads, exponential, both=False, initial=False, valid=None, extreme=False, clip=None):
    x = f32(rng.standard_normal((B, T, I)))
    d = 1 + both
    cell = {"kind": "slstm", "activation": {"name": "tanh"}, "recurrent_activation": {"name": "sigmoid"},
            "output_activation": {"name": "tanh"}, "num_heads": heads, "exponential_forget": exponential}
    spec = {"units": H, "bias": "double", "return_sequences": True, "cell": cell}
    if clip is not None:
        cell["clip"] = clip
    if both:
        spec["bidirectional"] = "concat"
    arrays = {"x": x}
    which = np.ones((B, T), bool)
    if valid == "lengths":
        lengths = np.array([4, 6, 0])
        which = np.arange(T) < lengths[:, None]
        arrays["lengths"] = f32(lengths)
    elif valid == "mask":
        which = rng.random((B, T)) < 0.6
        arrays["mask"] = f32(which)
    ys, lasts = [], []
    for n in range(d):
        w = {"weight_ih": (4 * H, I), "weight_hh": (4 * H, H // heads), "bias_ih": (4 * H,), "bias_hh": (4 * H,)}
        w = {k: f32(rng.standard_normal(s) * 0.6) for k, s in w.items()}
        if extreme:
            # All four pairs of an ĩ and an f̃ of about ±200.
            unit = np.arange(H)
            w["bias_ih"][:H] += np.where(unit % 2 == 0, 200, -200)
            w["bias_ih"][H : 2 * H] += np.where(unit // 2 % 2 == 0, 200, -200)
        for k, v in w.items():
            arrays[f"weights.{k}_l0{'_reverse' if n else ''}"] = v.copy()
        w = {k: v.astype(np.float64) for k, v in w.items()}
        h0 = f32(rng.standard_normal((B, H)))
        c0, m0 = f32(rng.standard_normal((2, B, H)))
        n0 = f32(rng.random((B, H)) + 0.5)
        # Some units are empty (n = 0): their m must not matter.
        c0[:, ::3], n0[:, ::3] = 0, 0
        if initial:
            arrays.setdefault("h0", []).append(h0)
            arrays.setdefault("c0", []).append(np.concatenate([c0, n0, m0], -1))
        else:
            h0, c0, n0, m0 = np.zeros((4, B, H))
        rows = []
        for b in range(B):
            start = [a[b].astype(np.float64) for a in (h0, c0, n0, m0)]
            args = (which[b], n == 1, heads, exponential, clip, valid == "mask")
            y, last = run(stabilized, w, x[b].astype(np.float64), start, *args)
            assert np.isfinite(y).all()
            if not extreme:
                scale = np.exp(start[3])
                begin = [start[0], start[1] * scale, start[2] * scale, 0]
                assert np.allclose(y, run(plain, w, x[b].astype(np.float64), begin, *args)[0], rtol=1e-12, atol=1e-12)
            rows.append((y, last))
        ys.append(np.stack([y for y, _ in rows]))
        lasts.append([np.stack([last[s] for _, last in rows]) for s in range(4)])
    arrays["y"] = f32(np.concatenate(ys, -1))
    arrays["h"] = f32(np.stack([last[0] for last in lasts]))
    arrays["c"] = f32(np.stack([np.concatenate(last[1:], -1) for last in lasts]))
    for k, v in arrays.items():
        out[f"{name}/{k}"] = f32(np.stack(v)) if isinstance(v, list) else v
    cases[name] = spec


for heads in (1, 4):
    for exponential in (False, True):
        end = f"heads_{heads}" + ("_exponential" if exponential else "")
        case(f"plain_{end}", heads, exponential)
        case(f"init_{end}", heads, exponential, initial=True)
        case(f"lengths_{end}", heads, exponential, initial=True, valid="lengths")
        case(f"mask_{end}", heads, exponential, initial=True, valid="mask")
        case(f"both_{end}", heads, exponential, both=True, initial=True, valid="lengths")
        case(f"extreme_{end}", heads, exponential, both=True, extreme=True)
case("clip_heads_4", 4, False, initial=True, clip=0.5)
save_file(out, "fixtures/slstm.safetensors", {"cases": json.dumps(cases), "made_by": f"numpy {np.__version__}"})
print(len(cases), "cases,", sum(a.nbytes for a in out.values()), "bytes, gates", GATES)
