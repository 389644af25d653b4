#!/usr/bin/env python3
"""CTC losses with their gradients by PyTorch and Keras: fixtures/ctc.json.

pip install keras torch numpy
Run from the folder `tests`: python3 golden/make_ctc.py

Everything is computed in float64. Of logarithms of probabilities, PyTorch gives as the gradient what the gradient of a
logarithm of a softmax makes of it, `p - γ`; their derivative is `-γ`, which is stored.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
import torch
import torch.nn.functional as F

keras.config.set_floatx("float64")
rng = np.random.default_rng(407)
cases = []


def f32(a):
    return np.asarray(a, np.float32).astype(np.float64)


def number(v):
    return float(f"{v:.9g}") if np.isfinite(v) else str(float(v))


def plain(a):
    a = np.asarray(a.detach().numpy() if isinstance(a, torch.Tensor) else a, np.float64)
    return {"dims": list(a.shape), "data": [number(v) for v in a.reshape(-1)]}


def padded(labels, with_):
    width = max(1, max(len(l) for l in labels))
    return np.array([list(l) + [with_] * (width - len(l)) for l in labels])


def record(name, framework, x, labels, **more):
    cases.append({"name": name, "framework": framework, "x": plain(x), "labels": labels} | more)


def torch_case(name, x, labels, lengths=None, blank=0, reduction="mean", zero_infinity=False, from_logits=True,
               weights=None, concatenated=False):
    B, T, C = x.shape
    x = f32(x if from_logits else np.log(np.exp(x) / np.exp(x).sum(-1, keepdims=True)))
    leaf = torch.tensor(x, requires_grad=True)
    logs = F.log_softmax(leaf, -1) if from_logits else leaf
    of = torch.tensor([len(l) for l in labels])
    targets = torch.tensor([v for l in labels for v in l] if concatenated else padded(labels, blank)).long()
    steps = torch.tensor([T] * B if lengths is None else lengths)
    each = F.ctc_loss(logs.transpose(0, 1), targets, steps, of, blank, reduction, zero_infinity)
    w = torch.tensor(weights if weights is not None else [1.0] * B)
    loss = (each * w).sum() if reduction == "none" else each
    loss.backward()
    gradient = leaf.grad.numpy().copy()
    if not from_logits:
        # Of each sequence's loss, what it counts.
        counts = {"none": w.numpy(), "sum": np.ones(B), "mean": 1 / (B * np.maximum(of.numpy(), 1))}[reduction]
        values = F.ctc_loss(logs.transpose(0, 1), targets, steps, of, blank, "none").detach().numpy()
        for b in range(B):
            if np.isfinite(values[b]):
                gradient[b, : steps[b]] -= np.exp(x[b, : steps[b]]) * counts[b]
    record(name, "pytorch", x, labels, lengths=lengths, blank=blank, reduction=reduction, zero_infinity=zero_infinity,
           from_logits=from_logits, weights=weights, loss=plain(each), gradient=plain(gradient))


def keras_case(name, x, labels):
    x = f32(x)
    leaf = torch.tensor(x, requires_grad=True)
    loss = keras.losses.CTC()(padded(labels, 0), leaf)
    loss.backward()
    record(name, "keras", x, labels, lengths=None, blank=0, reduction="mean", zero_infinity=False, from_logits=True,
           weights=None, loss=plain(loss), gradient=plain(leaf.grad))


def logits(B, T, C):
    return rng.normal(size=(B, T, C)) * 2


few = [[1, 1, 2], [3, 4, 3], [2], [4, 4, 4, 4]]
for reduction in ("none", "mean", "sum"):
    for from_logits in (True, False):
        o = dict(reduction=reduction, from_logits=from_logits)
        w = dict(weights=[0.5, 2.0, 0.0, 1.25]) if reduction == "none" else {}
        torch_case(f"{reduction} {from_logits}", logits(4, 9, 5), few, **o, **w)
        torch_case(f"lengths {reduction} {from_logits}", logits(4, 9, 5), few, lengths=[9, 5, 1, 7], **o, **w)
        torch_case(f"empty {reduction} {from_logits}", logits(4, 6, 5), [[], [1, 2], [], [3]], lengths=[6, 4, 1, 6], **o)
        torch_case(f"concatenated {reduction} {from_logits}", logits(4, 8, 5), [[4], [1, 3, 1], [], [2, 2]],
                   concatenated=True, **o)
        for zero_infinity in (False, True):
            # Three equal labels need five timesteps.
            torch_case(f"impossible {reduction} {from_logits} {zero_infinity}", logits(4, 7, 4),
                       [[1, 1, 1], [1, 2, 3], [2, 1], [3, 3]], lengths=[4, 3, 1, 7], zero_infinity=zero_infinity, **o)
for blank in (2, 4):
    torch_case(f"blank {blank}", logits(3, 8, 5), [[0, 0, 1], [3], [1, 0, 1, 0]], blank=blank)
torch_case("no timesteps", logits(3, 4, 3), [[], [1], [2, 1]], lengths=[0, 4, 3], reduction="sum")
torch_case("no timesteps for a label", logits(2, 4, 3), [[1], [2]], lengths=[0, 4], reduction="none", zero_infinity=True)
torch_case("one timestep", logits(2, 1, 3), [[1], []], reduction="none")
torch_case("one class", logits(2, 5, 1), [[], []], reduction="none")
long = [list(rng.integers(1, 7, size=n)) for n in (40, 25)]
torch_case("long", logits(2, 260, 7), [[int(v) for v in l] for l in long], lengths=[260, 201], reduction="none")
many = [[int(v) for v in rng.integers(1, 50, size=n)] for n in (18, 3)]
torch_case("many classes", logits(2, 40, 50), many, reduction="sum")
torch_case("far apart", 40 * logits(2, 30, 6), [[1, 2, 2, 5], [3, 3]], reduction="none")
for n in range(3):
    keras_case(f"{n}", logits(4, 9, 5), [[1, 1, 2], [3], [], [4, 2, 4, 1]])

with open("fixtures/ctc.json", "w") as f:
    json.dump(cases, f, separators=(",", ":"))
    f.write("\n")
print(len(cases), "losses")
