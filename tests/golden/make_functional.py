"""Networks with several inputs and outputs, shared layers and branches that meet, computed by PyTorch in float64.

    python3 make_functional.py ../fixtures/functional.npz

Needs torch and numpy. Weights are named as in a model file, behind the name of the network.
"""

import sys

import numpy as np
import torch

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
arrays = {}


def f32(t):
    """Numbers that f32 represents exactly, so that both sides use the same values."""
    return t.to(torch.float32).to(torch.float64)


def keep(net, name, t):
    arrays[f"{net}.{name}"] = t.detach().numpy().astype(np.int64 if t.dtype == torch.int64 else np.float32)


def recurrent(net, n, module, both_biases):
    for name, p in module.named_parameters():
        with torch.no_grad():
            p.copy_(f32(torch.randn_like(p) * 0.4))
            if name.startswith("bias_hh") and not both_biases:
                p.zero_()
        if not name.startswith("bias_hh") or both_biases:
            keep(net, f"layers.{n}.{name}", p)
    return module


def dense(net, n, inputs, units):
    layer = torch.nn.Linear(inputs, units)
    for name, p in layer.named_parameters():
        with torch.no_grad():
            p.copy_(f32(torch.randn_like(p) * 0.5))
        keep(net, f"layers.{n}.{name}", p)
    return layer


def given(net, name, *shape):
    x = f32(torch.randn(*shape))
    keep(net, name, x)
    return x


# An encoder whose final state is the decoder's initial state.
net = "seq2seq"
source = given(net, "source", 2, 6, 3)
target = torch.randint(0, 7, (2, 4))
keep(net, "target", target)
table = f32(torch.randn(7, 4))
keep(net, "layers.0.weight", table)
encoder = recurrent(net, 1, torch.nn.LSTM(3, 5, batch_first=True), False)
decoder = recurrent(net, 2, torch.nn.LSTM(4, 5, batch_first=True), False)
logits = dense(net, 3, 5, 7)
_, state = encoder(source)
y, _ = decoder(table[target], state)
keep(net, "logits", logits(y))
keep(net, "memory", state[1][0])

# Two inputs through one layer.
net = "siamese"
left, right = given(net, "left", 3, 5, 3), given(net, "right", 3, 7, 3)
shared = recurrent(net, 0, torch.nn.GRU(3, 4, batch_first=True), True)
score = dense(net, 4, 8, 2)
a, b = shared(left)[1][0], shared(right)[1][0]
keep(net, "code", a)
keep(net, "score", torch.sigmoid(score(torch.cat([a - b, a * b], -1))))

# Branches that are joined along time, and initial states of both directions from another input.
net = "meeting"
x, start = given(net, "x", 2, 5, 3), given(net, "start", 2, 4)
gru = recurrent(net, 0, torch.nn.GRU(3, 4, batch_first=True), True)
along = dense(net, 1, 3, 4)
into = dense(net, 4, 4, 3)
lstm = recurrent(net, 5, torch.nn.LSTM(4, 3, batch_first=True, bidirectional=True), False)
g = gru(x, start[None])[0]
d = along(x)
mean = (g + d + (g + d)) / 3
s = into(start)
y, _ = lstm(mean, (torch.stack([s, s]), torch.stack([s, s])))
keep(net, "y", y)
keep(net, "sum", torch.cat([g + d, x], -1))

np.savez(sys.argv[1], **arrays)
