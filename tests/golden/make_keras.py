#!/usr/bin/env python3
"""Expected values by Keras 3: fixtures/keras.safetensors.

pip install keras jax numpy safetensors
Run from the folder `tests`: KERAS_BACKEND=jax python3 golden/make_keras.py

The metadata's `cases` says of every case which layer it is and how it was called. A case `NAME` holds
the outputs y0, y1, …, and in some cases initial states s0, s1, … Its layer's weights are `NET/w0`,
`NET/w1`, … in Keras's order, NET being its `net`; inputs and masks are those of `inputs/`.
"""

import itertools
import json
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras
import numpy as np
from safetensors.numpy import save_file

keras.utils.set_random_seed(20261121)
rng = np.random.default_rng(1121)
out, cases, nets = {}, {}, {}
f32 = np.float32


def normal(*shape):
    return rng.normal(size=shape).astype(f32)


inputs = {"x": normal(2, 5, 4)}
inputs["book"] = np.array([[[0.1, 4.2, 1.5, 1.1, 2.8], [1.0, 3.1, 2.5, 0.7, 1.1],
                            [0.3, 2.1, 1.5, 2.1, 0.1], [2.2, 1.4, 0.5, 0.9, 1.1]]], f32)
# Padding by zeros after, before and between data; one sequence is padding only.
padded = normal(3, 5, 4)
padded[0, 3:], padded[1, :2], padded[2] = 0, 0, 0
inputs["padded"] = padded
inputs["ids"] = np.array([[3, 1, 4, 0, 0], [0, 0, 2, 5, 1], [2, 0, 3, 0, 0]], f32)
masks = {
    "right": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
    "left": np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]),
    "holes": np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]),
}
for name, value in inputs.items():
    out[f"inputs/{name}"] = value
for name, value in masks.items():
    out[f"inputs/{name}"] = value.astype(f32)

CELLS = {
    "rnn": (keras.layers.SimpleRNN, keras.layers.SimpleRNNCell, {}),
    "lstm": (keras.layers.LSTM, keras.layers.LSTMCell, {}),
    "gru": (keras.layers.GRU, keras.layers.GRUCell, {}),
    "gru_before": (keras.layers.GRU, keras.layers.GRUCell, {"reset_after": False}),
}


def weights_of(net, layer):
    """The same weights for all the cases that differ only in how they call a layer."""
    if net not in nets:
        # Zeros would hide a misplaced bias.
        nets[net] = [w if w.ndim == 2 and w.shape[0] > 2 else normal(*w.shape) * f32(0.5) for w in layer.get_weights()]
        for n, w in enumerate(nets[net]):
            out[f"{net}/w{n}"] = np.asarray(w, f32).copy()
    layer.set_weights(nets[net])


def record(name, net, layer, config, x="x", mask=None, states=None, calls=1):
    assert name not in cases, name
    value = inputs[x].astype(int) if x == "ids" else inputs[x]
    layer(value)  # builds it
    weights_of(net, layer)
    for sub in [layer, *getattr(layer, "layers", [])]:
        if getattr(sub, "stateful", False):
            sub.reset_states()
    kwargs = {}
    if mask:
        kwargs["mask"] = masks[mask].astype(bool)
    if states:
        kwargs["initial_state"] = states
        for n, s in enumerate(states):
            out[f"{name}/s{n}"] = s
    for _ in range(calls):
        y = layer(value, **kwargs)
    y = y if isinstance(y, (list, tuple)) else [y]
    for n, v in enumerate(keras.tree.flatten(list(y))):
        out[f"{name}/y{n}"] = np.asarray(v, f32).copy()
    cases[name] = {"net": net, "x": x, "mask": mask, "calls": calls, **config}


def case(kind, merge="", mask=None, x="x", initial=False, calls=1, word="", **options):
    make, _, fixed = CELLS[kind]
    layer = make(3, **fixed, **options)
    if merge:
        layer = keras.layers.Bidirectional(layer, merge_mode=None if merge == "none" else merge)
    short = {"return_sequences": "seq", "return_state": "state", "go_backwards": "back", "zero_output_for_mask": "zero"}
    flags = [short.get(k, v if isinstance(v, str) else f"{k}{v}") for k, v in options.items() if v is not False or k == "use_bias"]
    name = "_".join(w for w in [kind, merge and f"bi_{merge}", *flags, mask, word, x if x != "x" else ""] if w)
    net = "_".join(["net", kind] + (["bi"] if merge else []) + (["nobias"] if options.get("use_bias") is False else [])
                   + (["book"] if x == "book" else []))
    states = None
    if initial:
        batch = inputs[x].shape[0]
        states = [normal(batch, 3) for _ in range((2 if kind == "lstm" else 1) * (2 if merge else 1))]
    record(name, net, layer, {"kind": kind, "merge": merge, "options": options}, x, mask, states, calls)


kinds, no_yes = list(CELLS), (False, True)
for kind, sequences, state, back, mask in itertools.product(kinds, no_yes, no_yes, no_yes, (None, *masks)):
    case(kind, mask=mask, return_sequences=sequences, return_state=state, go_backwards=back)
for kind, mask in itertools.product(kinds, (None, "holes")):
    for activation in ("relu", "elu", "softsign", "softplus", "linear", "sigmoid", "hard_sigmoid"):
        case(kind, mask=mask, return_sequences=True, activation=activation)
    if kind != "rnn":
        for activation in ("hard_sigmoid", "softsign"):
            case(kind, mask=mask, return_sequences=True, recurrent_activation=activation, word="gates")
    case(kind, mask=mask, return_sequences=True, use_bias=False)
for kind, merge, sequences, mask in itertools.product(
        kinds, ("concat", "sum", "ave", "mul", "none"), no_yes, (None, "right", "holes")):
    case(kind, merge, mask, return_sequences=sequences)
for kind, merge in itertools.product(kinds, ("concat", "sum", "none")):
    case(kind, merge, return_sequences=True, return_state=True)
for kind, sequences, back, mask in itertools.product(kinds, no_yes, no_yes, masks):
    case(kind, mask=mask, return_sequences=sequences, go_backwards=back, zero_output_for_mask=True)
for kind, sequences in itertools.product(kinds, no_yes):
    case(kind, "sum", "holes", return_sequences=sequences, zero_output_for_mask=True)
for kind, merge, mask in itertools.product(kinds, ("", "concat"), (None, "holes")):
    case(kind, merge, mask, initial=True, word="initial", return_sequences=True, return_state=True)
for kind in kinds:
    case(kind, x="book", return_sequences=True, return_state=True)
    case(kind, calls=3, word="stateful", return_sequences=True, stateful=True)
    case(kind, mask="holes", calls=2, word="stateful", return_sequences=True, stateful=True)

# Several cells in one layer.
for names in (("rnn", "gru"), ("lstm", "lstm"), ("gru_before", "lstm", "rnn")):
    for sequences, state, back, mask in itertools.product(no_yes, no_yes, no_yes, (None, "holes")):
        cells = [CELLS[k][1](units, **CELLS[k][2]) for k, units in zip(names, (3, 4, 2))]
        options = {"return_sequences": sequences, "return_state": state, "go_backwards": back}
        layer = keras.layers.RNN(cells, **options)
        words = [w for w, on in (("seq", sequences), ("state", state), ("back", back)) if on] + ([mask] if mask else [])
        record("_".join(["stack", *names, *words]), "net_" + "_".join(["stack", *names]), layer,
               {"kind": "stack", "cells": names, "units": [3, 4, 2][:len(names)], "merge": "", "options": options},
               mask=mask)

# Networks in which one layer finds the mask and others use it.
L = keras.layers
for name, x, layers in (
    ("mask_zero", "ids", lambda: [L.Embedding(6, 4, mask_zero=True), L.LSTM(3, return_sequences=True), L.GRU(3)]),
    ("mask_zero_bi", "ids", lambda: [L.Embedding(6, 4, mask_zero=True), L.Bidirectional(L.GRU(3, return_sequences=True)),
                                     L.Dense(2)]),
    ("masking", "padded", lambda: [L.Masking(), L.SimpleRNN(3, return_sequences=True), L.LSTM(3)]),
    ("masking_dense", "padded", lambda: [L.Masking(), L.Dense(4), L.GRU(3, return_sequences=True), L.SimpleRNN(2)]),
    ("time_distributed", "x", lambda: [L.TimeDistributed(L.Dense(3)), L.SimpleRNN(3, return_sequences=True),
                                       L.TimeDistributed(L.Dense(2))]),
    ("time_distributed_rnn", "frames", lambda: [L.TimeDistributed(L.GRU(3)), L.LSTM(2)]),
):
    if x == "frames":
        inputs[x] = normal(2, 3, 5, 4)
        out["inputs/frames"] = inputs[x]
    record(f"network_{name}", f"net_network_{name}", keras.Sequential(layers()),
           {"kind": "network", "name": name, "merge": "", "options": {}}, x)

save_file(out, "fixtures/keras.safetensors",
          {"cases": json.dumps(cases), "made_by": f"Keras {keras.__version__} on {keras.backend.backend()}"})
print(len(cases), "cases,", len(out), "arrays,", sum(a.nbytes for a in out.values()), "bytes")
