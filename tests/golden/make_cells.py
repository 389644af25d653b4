#!/usr/bin/env python3
"""Expected values of the cells that no framework has: fixtures/cells.safetensors.

Debian: apt-get install python3-torch; pip install safetensors
Run from the folder `tests`: python3 golden/make_cells.py

Written from the papers with PyTorch's operations in float64 (`layer_norm`, `sigmoid`, and for the
log-space minimal cells the scan by `logcumsumexp` of the paper's appendix, not a loop):
layer normalization, Ba et al. 2016; zoneout, Krueger et al. 2016; IndRNN, Li et al. 2018; minGRU and
minLSTM, Feng et al. 2024; peephole LSTM, Gers & Schmidhuber 2000; LSTM with projection, Sak et al.
2014. The metadata's `cases` holds each layer's description as Recurve's model file writes it.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

torch.manual_seed(7)
out, cases = {}, {}
S, T = {"name": "sigmoid"}, {"name": "tanh"}
B, STEPS, I, H = 3, 6, 4, 5


def description(kind, activation, **options):
    layer = {k: options.pop(k) for k in list(options) if k in ("bidirectional", "bias")}
    return {"units": H, "bias": "double", "return_sequences": True, **layer,
            "cell": {"kind": kind, "activation": activation, "recurrent_activation": S, "output_activation": T, **options}}


def norm(a, affine, epsilon):
    return F.layer_norm(a, a.shape[-1:], affine[0], affine[1], epsilon)


def lstm(w, x, h, c, o):
    p = o.get("peepholes") and w["weight_peephole"]
    eps, zone = o.get("layer_norm"), o.get("zoneout", (0.0, 0.0))
    for x_t in x.unbind(1):
        a, r = x_t @ w["weight_ih"].T, h @ w["weight_hh"].T
        if eps:
            a, r = norm(a, w["norm_ih"], eps), norm(r, w["norm_hh"], eps)
        i, f, g, q = (a + r + w["bias_ih"] + w["bias_hh"]).chunk(4, -1)
        if p is not None and p is not False:
            i, f = i + p[0] * c, f + p[1] * c
        i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
        new = f * c + i * g
        if p is not None and p is not False:
            q = q + p[2] * new
        seen = norm(new, w["norm_c"], eps) if eps else new
        m = torch.sigmoid(q) * torch.tanh(seen)
        c = zone[1] * c + (1 - zone[1]) * new
        if "proj_size" in o:
            m = m @ w["weight_hr"].T
        h = zone[0] * h + (1 - zone[0]) * m
        yield h, c


def gru(w, x, h, _, o):
    eps, zone = o.get("layer_norm"), o.get("zoneout", (0.0, 0.0))
    for x_t in x.unbind(1):
        a, b = x_t @ w["weight_ih"].T, h @ w["weight_hh"].T
        if eps:
            a, b = norm(a, w["norm_ih"], eps), norm(b, w["norm_hh"], eps)
        a, b = (a + w["bias_ih"]).chunk(3, -1), (b + w["bias_hh"]).chunk(3, -1)
        r, z = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        new = (1 - z) * torch.tanh(a[2] + r * b[2]) + z * h
        h = zone[0] * h + (1 - zone[0]) * new
        yield h, None


def rnn(w, x, h, _, o):
    zone = o.get("zoneout", (0.0, 0.0))
    for x_t in x.unbind(1):
        new = torch.tanh(x_t @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"])
        h = zone[0] * h + (1 - zone[0]) * new
        yield h, None


def indrnn(w, x, h, _, o):
    for x_t in x.unbind(1):
        h = torch.relu(x_t @ w["weight_ih"].T + w["bias_ih"] + w["weight_hh"] * h + w["bias_hh"])
        yield h, None


def mingru(w, x, h, _, o):
    for x_t in x.unbind(1):
        z, n = (x_t @ w["weight_ih"].T + w["bias_ih"]).chunk(2, -1)
        z = torch.sigmoid(z)
        h = (1 - z) * h + z * n
        yield h, None


def minlstm(w, x, h, _, o):
    for x_t in x.unbind(1):
        f, i, n = (x_t @ w["weight_ih"].T + w["bias_ih"]).chunk(3, -1)
        f, i = torch.sigmoid(f), torch.sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * n
        yield h, None


def log_g(v):
    return torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v))


def log_scan(log_coefficients, log_values, h):
    """The parallel scan of Heinsen 2023, on which the paper's log-space cells rest."""
    a = F.pad(torch.cumsum(log_coefficients, 1), (0, 0, 1, 0))
    values = torch.cat([h.log()[:, None], log_values], 1)
    y = (a + torch.logcumsumexp(values - a, 1)).exp()[:, 1:]
    return ((h, None) for h in y.unbind(1))


def mingru_log(w, x, h, _, o):
    z, n = (x @ w["weight_ih"].T + w["bias_ih"]).chunk(2, -1)
    return log_scan(-F.softplus(z), -F.softplus(-z) + log_g(n), h)


def minlstm_log(w, x, h, _, o):
    f, i, n = (x @ w["weight_ih"].T + w["bias_ih"]).chunk(3, -1)
    d = F.softplus(-f) - F.softplus(-i)
    return log_scan(-F.softplus(d), -F.softplus(-d) + log_g(n), h)


def case(name, run, spec, gates, initial=True):
    cell = spec["cell"]
    width = cell.get("proj_size", H)
    both = spec.get("bidirectional") is not None
    minimal = cell["kind"].startswith("min")
    x = torch.randn(B, STEPS, I).float()
    positive = run in (mingru_log, minlstm_log)
    h0 = torch.rand(1 + both, B, width).float() + 0.1 if positive else torch.randn(1 + both, B, width).float()
    c0 = torch.randn(1 + both, B, H).float()
    out[f"{name}/x"] = x.numpy()
    if initial:
        out[f"{name}/h0"] = h0.numpy()
        if run is lstm:
            out[f"{name}/c0"] = c0.numpy()
    ys, hs, cs = [], [], []
    for d in range(1 + both):
        shapes = {"weight_ih": (gates * H, I), "bias_ih": (gates * H,)}
        if not minimal:
            shapes |= {"weight_hh": (H,) if cell["kind"] == "indrnn" else (gates * H, width), "bias_hh": (gates * H,)}
        if "proj_size" in cell:
            shapes["weight_hr"] = (width, H)
        if cell.get("peepholes"):
            shapes["weight_peephole"] = (3, H)
        if "layer_norm" in cell:
            shapes |= {"norm_ih": (2, gates * H), "norm_hh": (2, gates * H)}
            if run is lstm:
                shapes["norm_c"] = (2, H)
        w = {k: (torch.randn(s) * 0.6).float() for k, s in shapes.items()}
        for k, v in w.items():
            if k.startswith("norm"):
                v[0] += 1
            out[f"{name}/weights.{k}_l0{'_reverse' if d else ''}"] = v.numpy().copy()
        w = {k: v.double() for k, v in w.items()}
        start = (h0[d].double(), c0[d].double()) if initial else (torch.zeros(B, width).double(), torch.zeros(B, H).double())
        steps = list(run(w, (x.flip(1) if d else x).double(), *start, cell))
        y = torch.stack([h for h, _ in steps], 1)
        ys.append(y.flip(1) if d else y)
        hs.append(steps[-1][0])
        cs.append(steps[-1][1])
    out[f"{name}/y"] = torch.cat(ys, -1).float().numpy()
    out[f"{name}/h"] = torch.stack(hs).float().numpy()
    if run is lstm:
        out[f"{name}/c"] = torch.stack(cs).float().numpy()
    cases[name] = spec


N = {"name": "linear"}
for both in (False, True):
    end, d = ("_bi", {"bidirectional": "concat"}) if both else ("", {})
    single = {"bias": "single", **d}
    for initial in (False, True):
        name = lambda n: n + end + ("_init" if initial else "")
        case(name("layer_norm_lstm"), lstm, description("lstm", T, layer_norm=1e-5, **d), 4, initial)
        case(name("layer_norm_gru"), gru, description("gru", T, layer_norm=1e-3, **d), 3, initial)
        case(name("zoneout_lstm"), lstm, description("lstm", T, zoneout=(0.1, 0.4), **d), 4, initial)
        case(name("zoneout_gru"), gru, description("gru", T, zoneout=(0.2, 0.0), **d), 3, initial)
        case(name("zoneout_rnn"), rnn, description("rnn", T, zoneout=(0.3, 0.0), **d), 1, initial)
        case(name("layer_norm_zoneout_projection_peepholes_lstm"), lstm,
             description("lstm", T, layer_norm=1e-5, zoneout=(0.1, 0.2), proj_size=3, peepholes=True, **d), 4, initial)
        case(name("peepholes_lstm"), lstm, description("lstm", T, peepholes=True, **d), 4, initial)
        case(name("projection_lstm"), lstm, description("lstm", T, proj_size=3, **d), 4, initial)
        case(name("indrnn"), indrnn, description("indrnn", {"name": "relu"}, **d), 1, initial)
        case(name("mingru"), mingru, description("mingru", N, **single), 2, initial)
        case(name("minlstm"), minlstm, description("minlstm", N, **single), 3, initial)
    case("mingru_log" + end, mingru_log, description("mingru", {"name": "positive"}, **single), 2)
    case("minlstm_log" + end, minlstm_log, description("minlstm", {"name": "positive"}, **single), 3)
save_file(out, "fixtures/cells.safetensors", {"cases": json.dumps(cases), "made_by": f"PyTorch {torch.__version__}"})
print(len(cases), "cases,", sum(a.nbytes for a in out.values()), "bytes")
