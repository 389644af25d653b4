#!/usr/bin/env python3
"""Expected values by PyTorch: fixtures/pytorch.safetensors.

Debian: apt-get install python3-torch; pip install safetensors (any PyTorch from 1.10 on will do).
Run from the folder `tests`: python3 golden/make_pytorch.py

Every case `NAME` holds x, weights under PyTorch's names, y, h and for an LSTM c; some hold h0, c0
and lengths. Computed in float64 from float32 weights and inputs.
"""

import itertools

import numpy as np
import torch
from safetensors.numpy import save_file

torch.manual_seed(20261121)
out = {}


def put(name, tensor):
    out[name] = tensor.detach().numpy().astype(np.float32).copy()


def case(kind, layers, bidirectional, bias, initial, lengths, sizes, nonlinearity=None):
    b, t, i, h = sizes
    make = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
    options = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
    net = make(i, h, layers, bias=bias, batch_first=True, bidirectional=bidirectional, **options)
    x = torch.randn(b, t, i)
    d = layers * (2 if bidirectional else 1)
    h0, c0 = torch.randn(d, b, h), torch.randn(d, b, h)
    name = "_".join(
        [kind, f"l{layers}"]
        + [word for word, on in (("bi", bidirectional), ("nobias", not bias), ("init", initial),
                                 ("lengths", lengths), (nonlinearity, nonlinearity)) if on]
    )
    for key, value in net.state_dict().items():
        put(f"{name}/weights.{key}", value)
    put(f"{name}/x", x)
    net, x, h0, c0 = net.double(), x.double(), h0.float().double(), c0.float().double()
    state = None
    if initial:
        put(f"{name}/h0", h0)
        state = h0
        if kind == "lstm":
            put(f"{name}/c0", c0)
            state = (h0, c0)
    if lengths:
        n = torch.tensor([max(1, (7 * k + t) % (t + 1)) for k in range(b)])
        put(f"{name}/lengths", n)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False)
        y, last = net(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=t)
    else:
        y, last = net(x, state)
    put(f"{name}/y", y)
    if kind == "lstm":
        put(f"{name}/h", last[0])
        put(f"{name}/c", last[1])
    else:
        put(f"{name}/h", last)


for kind in ("rnn", "lstm", "gru"):
    for layers, bidirectional in itertools.product((1, 2), (False, True)):
        case(kind, layers, bidirectional, True, False, False, (2, 5, 3, 4))
        case(kind, layers, bidirectional, True, True, True, (4, 6, 5, 7))
    case(kind, 1, False, False, False, False, (1, 4, 3, 33))
case("rnn", 1, True, True, False, False, (2, 5, 3, 4), "relu")
save_file(out, "fixtures/pytorch.safetensors", {"made_by": f"PyTorch {torch.__version__}"})
print(len(out), "arrays,", sum(a.nbytes for a in out.values()), "bytes")
