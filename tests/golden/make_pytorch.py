#!/usr/bin/env python3
"""Expected values by PyTorch: fixtures/pytorch.safetensors.

Debian: apt-get install python3-torch; pip install safetensors (any PyTorch from 1.10 on will do).
Run from the folder `tests`: python3 golden/make_pytorch.py

The metadata's `cases` says of every case which module it is and how it was called. A case `NAME` holds
x, y, h and for an LSTM c; some hold h0, c0 and lengths; its module's weights are `NET/weights.…` under
PyTorch's names, NET being its `net`. Computed in float64 from float32 weights and inputs.
"""

import itertools
import json

import numpy as np
import torch
from safetensors.numpy import save_file

torch.manual_seed(20261121)
out, cases, nets = {}, {}, {}


def put(name, tensor):
    out[name] = tensor.detach().numpy().astype(np.float32).copy()


def module(name, kind, sizes, layers, bidirectional, bias, proj_size, nonlinearity):
    """One module for all the cases that differ only in how they call it."""
    if name not in nets:
        _, _, i, h = sizes
        make = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
        options = {"nonlinearity": nonlinearity} if nonlinearity else {}
        if proj_size:
            options["proj_size"] = proj_size
        net = make(i, h, layers, bias=bias, bidirectional=bidirectional, **options)
        for key, value in net.state_dict().items():
            put(f"{name}/weights.{key}", value)
        nets[name] = net.double()
    return nets[name]


def case(kind, layers, bidirectional, bias, initial, lengths, sizes, batch_first=True, proj_size=0,
         nonlinearity=None):
    b, t, i, h = sizes
    words = (("bi", bidirectional), ("nobias", not bias), (f"proj{proj_size}", proj_size), (nonlinearity, nonlinearity))
    net_name = "_".join([kind, f"l{layers}", f"h{h}"] + [word for word, on in words if on])
    net = module(net_name, kind, sizes, layers, bidirectional, bias, proj_size, nonlinearity)
    net.batch_first = batch_first
    words = (("time_major", not batch_first), ("init", initial), ("lengths", lengths), (f"b{b}", True))
    name = "_".join([net_name] + [word for word, on in words if on])
    assert name not in cases, name
    cases[name] = {"net": net_name, "kind": kind, "batch_first": batch_first, "nonlinearity": nonlinearity,
                   "options": [word for word, on in (
                       ("stacked", layers > 1), ("bidirectional", bidirectional), ("bias", bias),
                       ("proj_size", proj_size), ("batch first", batch_first), ("time major", not batch_first),
                       ("initial state", initial), ("lengths", lengths), ("activations", nonlinearity == "relu")) if on]}
    shape = (b, t, i) if batch_first else (t, b, i)
    x = torch.randn(shape)
    put(f"{name}/x", x)
    x = x.double()
    d = layers * (2 if bidirectional else 1)
    state = None
    if initial:
        h0 = torch.randn(d, b, proj_size or h)
        put(f"{name}/h0", h0)
        state = h0.double()
        if kind == "lstm":
            c0 = torch.randn(d, b, h)
            put(f"{name}/c0", c0)
            state = (state, c0.double())
    if lengths:
        n = torch.tensor([max(1, (7 * k + t) % (t + 1)) for k in range(b)])
        put(f"{name}/lengths", n)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, n, batch_first=batch_first, enforce_sorted=False)
        y, last = net(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=batch_first, total_length=t)
    else:
        y, last = net(x, state)
    put(f"{name}/y", y)
    last = last if kind == "lstm" else (last,)
    for key, value in zip("hc", last):
        put(f"{name}/{key}", value)


# Every combination of what a module can be and how it can be called.
kinds = [("rnn", 0, "tanh"), ("rnn", 0, "relu"), ("lstm", 0, None), ("lstm", 2, None), ("gru", 0, None)]
switches = itertools.product(kinds, (1, 2), *[(False, True)] * 5)
for (kind, proj_size, nonlinearity), layers, bidirectional, bias, batch_first, initial, lengths in switches:
    case(kind, layers, bidirectional, bias, initial, lengths, (3, 4, 2, 3), batch_first, proj_size, nonlinearity)
# Larger ones.
for kind in ("rnn", "lstm", "gru"):
    for layers, bidirectional in itertools.product((1, 2), (False, True)):
        case(kind, layers, bidirectional, True, True, True, (4, 6, 5, 7))
    case(kind, 1, False, False, False, False, (1, 4, 3, 33))
case("lstm", 1, True, True, True, True, (2, 9, 5, 40), True, 19)
save_file(out, "fixtures/pytorch.safetensors",
          {"cases": json.dumps(cases), "made_by": f"PyTorch {torch.__version__}"})
print(len(cases), "cases,", len(out), "arrays,", sum(a.nbytes for a in out.values()), "bytes")
