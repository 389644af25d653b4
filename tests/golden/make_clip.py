#!/usr/bin/env python3
"""Expected values of `clip` and ThresholdedRelu, as ONNX Runtime has them and by the letter of the ONNX
operators: fixtures/clip.safetensors.

pip install numpy safetensors
Run from the folder `tests`: python3 golden/make_clip.py

Written from the equations of the operators RNN, GRU and LSTM (opset 22) in float64, a unit at a time.
The text says that `clip` "is applied to the input of activations", of which an LSTM has five: f, g and h
and the gates; ONNX Runtime does not clip the input of h. The text says `x if x >= alpha else 0` of
ThresholdedRelu, where ONNX Runtime has `x > alpha`. The metadata's `cases` holds each layer's
description as Recurve's model file writes it.
"""

import json
import math

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(27224)
out, cases = {}, {}
SIGMOID, TANH = {"name": "sigmoid"}, {"name": "tanh"}


def sigmoid(v):
    return 1.0 / (1.0 + math.exp(-v))


def limited(v, limit):
    return min(max(v, -limit), limit)


def normalized(values, affine, epsilon):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + epsilon) * g + o for v, g, o in zip(values, *affine)]


def lstm(w, x, h, c, cell, functions):
    """One sequence [T, I]; gates i f g o."""
    units, ys = len(c), []
    clip = cell.get("clip", math.inf)
    clip_h = clip if cell.get("clip_output") else math.inf
    zone = cell.get("zoneout", (0.0, 0.0))
    sigma, phi, psi = functions
    for x_t in x:
        a, r = w["weight_ih"] @ x_t, w["weight_hh"] @ h
        if "layer_norm" in cell:
            a = np.array(normalized(a, w["norm_ih"], cell["layer_norm"]))
            r = np.array(normalized(r, w["norm_hh"], cell["layer_norm"]))
        pre = a + r + w["bias_ih"] + w["bias_hh"]
        peep = w.get("weight_peephole", np.zeros((3, units)))
        new, gates_o = [], []
        for j in range(units):
            i = sigma(limited(pre[j] + peep[0][j] * c[j], clip))
            f = sigma(limited(pre[units + j] + peep[1][j] * c[j], clip))
            if cell.get("input_forget"):
                f = 1.0 - i
            g = phi(limited(pre[2 * units + j], clip))
            new.append(f * c[j] + i * g)
            gates_o.append(sigma(limited(pre[3 * units + j] + peep[2][j] * new[j], clip)))
        seen = normalized(new, w["norm_c"], cell["layer_norm"]) if "layer_norm" in cell else new
        m = np.array([o * psi(limited(s, clip_h)) for o, s in zip(gates_o, seen)])
        if "weight_hr" in w:
            m = w["weight_hr"] @ m
        c = zone[1] * c + (1.0 - zone[1]) * np.array(new)
        h = zone[0] * h + (1.0 - zone[0]) * m
        ys.append(h)
    return np.array(ys), h, c


def rnn(w, x, h, c, cell, functions):
    ys = []
    for x_t in x:
        pre = w["weight_ih"] @ x_t + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
        h = np.array([functions[1](limited(v, cell.get("clip", math.inf))) for v in pre])
        ys.append(h)
    return np.array(ys), h, None


def gru(w, x, h, c, cell, functions):
    """Gates r z n, the reset gate before the product."""
    units, ys = len(h), []
    sigma, phi, _ = functions
    for x_t in x:
        a, r_h, b = w["weight_ih"] @ x_t + w["bias_ih"], w["weight_hh"] @ h, w["bias_hh"]
        r = np.array([sigma(v) for v in (a + r_h + b)[:units]])
        z = np.array([sigma(v) for v in (a + r_h + b)[units:2 * units]])
        n = np.array([phi(v) for v in a[2 * units:] + w["weight_hh"][2 * units:] @ (r * h) + b[2 * units:]])
        h = (1.0 - z) * n + z * h
        ys.append(h)
    return np.array(ys), h, None


def case(name, run, cell, functions, sizes, both=False, initial=False, weights=None, x=None):
    batch, steps, inputs, units = sizes
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell["kind"]]
    width = cell.get("proj_size", units)
    directions = 2 if both else 1
    shapes = {"weight_ih": (gates * units, inputs), "weight_hh": (gates * units, width),
              "bias_ih": (gates * units,), "bias_hh": (gates * units,)}
    if "proj_size" in cell:
        shapes["weight_hr"] = (width, units)
    if cell.get("peepholes"):
        shapes["weight_peephole"] = (3, units)
    if "layer_norm" in cell:
        shapes |= {"norm_ih": (2, gates * units), "norm_hh": (2, gates * units), "norm_c": (2, units)}
    if x is None:
        x = rng.normal(size=(batch, steps, inputs))
    x = x.astype(np.float32)
    h0 = (rng.normal(size=(directions, batch, width)) * initial).astype(np.float32)
    c0 = (rng.normal(size=(directions, batch, units)) * 2.0 * initial).astype(np.float32)
    out[f"{name}/x"] = x
    if initial:
        out[f"{name}/h0"] = h0
        if run is lstm:
            out[f"{name}/c0"] = c0
    ys, hs, cs = [], [], []
    for d in range(directions):
        w = weights or {k: (rng.normal(size=s) * 1.2).astype(np.float32) for k, s in shapes.items()}
        for k, v in w.items():
            out[f"{name}/weights.{k}_l0{'_reverse' if d else ''}"] = v
        w = {k: v.astype(np.float64) for k, v in w.items()}
        rows = []
        for b in range(batch):
            sequence = x[b].astype(np.float64)
            y, h, c = run(w, sequence[::-1] if d else sequence, h0[d, b].astype(np.float64),
                          c0[d, b].astype(np.float64), cell, functions)
            rows.append((y[::-1] if d else y, h, c))
        ys.append(np.array([r[0] for r in rows]))
        hs.append(np.array([r[1] for r in rows]))
        cs.append(np.array([r[2] for r in rows], dtype=np.float64) if run is lstm else None)
    out[f"{name}/y"] = np.concatenate(ys, -1).astype(np.float32)
    out[f"{name}/h"] = np.stack(hs).astype(np.float32)
    if run is lstm:
        out[f"{name}/c"] = np.stack(cs).astype(np.float32)
    cases[name] = {"units": units, "bias": "double", "return_sequences": True,
                   "bidirectional": "concat" if both else None, "cell": cell}


def relu(v):
    return max(v, 0.0)


SIZES = (3, 6, 4, 5)
for clip_output, end in ((False, "ort"), (True, "text")):
    def cell(**options):
        return {"kind": "lstm", "activation": TANH, "recurrent_activation": SIGMOID, "output_activation": TANH,
                "clip": 0.4, "clip_output": clip_output, **options}
    usual = (sigmoid, math.tanh, math.tanh)
    case(f"clip_{end}", lstm, cell(), usual, SIZES)
    case(f"clip_bi_init_{end}", lstm, cell(), usual, SIZES, both=True, initial=True)
    case(f"clip_coupled_{end}", lstm, cell(input_forget=True), usual, SIZES, initial=True)
    case(f"clip_peepholes_{end}", lstm, cell(peepholes=True), usual, SIZES, initial=True)
    case(f"clip_zoneout_{end}", lstm, cell(zoneout=(0.1, 0.3)), usual, SIZES)
    case(f"clip_relu_{end}", lstm, cell(output_activation={"name": "relu"}), (sigmoid, math.tanh, relu), SIZES)
    case(f"clip_projection_{end}", lstm, cell(proj_size=3), usual, SIZES, initial=True)
    case(f"clip_layer_norm_{end}", lstm, cell(layer_norm=1e-3), usual, SIZES, both=True)

# A weight of one from each feature to its unit and nothing else, so that alpha comes out exactly.
ALPHA = 0.5
x = np.array([[[0.25, 0.5], [0.5, 0.75], [-0.5, 0.5]]])
for letter, end in ((False, "ort"), (True, "text")):
    def threshold(v):
        return v if (v >= ALPHA if letter else v > ALPHA) else 0.0
    name = {"name": "thresholded_relu",
            "alpha": float(np.nextafter(np.float32(ALPHA), np.float32(-1.0)) if letter else ALPHA)}
    eye, none = np.eye(2, dtype=np.float32), np.zeros((2, 2), dtype=np.float32)
    for kind, run, gates in (("rnn", rnn, 1), ("gru", gru, 3), ("lstm", lstm, 4)):
        # Of a GRU's and an LSTM's rows only the candidate's.
        rows = [none] * gates
        rows[{"rnn": 0, "gru": 2, "lstm": 2}[kind]] = eye
        weights = {"weight_ih": np.concatenate(rows), "weight_hh": np.zeros((2 * gates, 2), dtype=np.float32),
                   "bias_ih": np.zeros(2 * gates, dtype=np.float32), "bias_hh": np.zeros(2 * gates, dtype=np.float32)}
        cell_ = {"kind": kind, "activation": name, "recurrent_activation": SIGMOID, "output_activation": TANH,
                 "reset_after": False}
        case(f"thresholded_relu_{kind}_{end}", run, cell_, (sigmoid, threshold, math.tanh), (1, 3, 2, 2),
             weights=weights, x=x)
save_file(out, "fixtures/clip.safetensors", {"cases": json.dumps(cases), "made_by": f"numpy {np.__version__}"})
print(len(cases), "cases,", sum(a.nbytes for a in out.values()), "bytes")
