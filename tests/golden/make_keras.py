#!/usr/bin/env python3
"""Expected values by Keras 3: fixtures/keras.safetensors.

pip install keras jax numpy safetensors
Run from the folder `tests`: KERAS_BACKEND=jax python3 golden/make_keras.py

Every case `NAME` holds x, Keras's weights in Keras's order as w0, w1, …, and the outputs y0, y1, …
"""

import json
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras
import numpy as np
from safetensors.numpy import save_file

keras.utils.set_random_seed(20261121)
rng = np.random.default_rng(1121)
out, configs = {}, {}
cells = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def case(name, kind, merge=None, x=None, units=3, **options):
    layer = cells[kind](units, **options)
    if merge:
        layer = keras.layers.Bidirectional(layer, merge_mode=merge)
    x = rng.normal(size=(2, 5, 4)).astype(np.float32) if x is None else x
    layer(x)
    # Zeros would hide a misplaced bias.
    layer.set_weights([w if w.ndim == 2 and w.shape[0] > 2 else rng.normal(size=w.shape).astype(np.float32) * 0.5
                       for w in layer.get_weights()])
    y = layer(x)
    y = y if isinstance(y, (list, tuple)) else [y]
    out[f"{name}/x"] = x
    for n, w in enumerate(layer.get_weights()):
        out[f"{name}/w{n}"] = np.asarray(w, np.float32).copy()
    for n, v in enumerate(y):
        out[f"{name}/y{n}"] = np.asarray(v, np.float32).copy()
    configs[name] = {"kind": kind, "merge": merge, "units": units, **options}


for kind in cells:
    for sequences in (False, True):
        for state in (False, True):
            case(f"{kind}_{int(sequences)}{int(state)}", kind, return_sequences=sequences, return_state=state)
    case(f"{kind}_backwards", kind, return_sequences=True, return_state=True, go_backwards=True)
    for merge in ("concat", "sum", "ave", "mul"):
        case(f"{kind}_bi_{merge}", kind, merge, return_sequences=True)
        case(f"{kind}_bi_{merge}_last", kind, merge, return_sequences=False)
    case(f"{kind}_relu", kind, return_sequences=True, activation="relu")
    case(f"{kind}_nobias", kind, return_sequences=True, use_bias=False)
case("gru_before", "gru", return_sequences=True, return_state=True, reset_after=False)
case("gru_hard", "gru", return_sequences=True, recurrent_activation="hard_sigmoid")
case("lstm_hard", "lstm", return_sequences=True, recurrent_activation="hard_sigmoid")
book = np.array([[[0.1, 4.2, 1.5, 1.1, 2.8], [1.0, 3.1, 2.5, 0.7, 1.1],
                  [0.3, 2.1, 1.5, 2.1, 0.1], [2.2, 1.4, 0.5, 0.9, 1.1]]], np.float32)
for kind in cells:
    case(f"{kind}_book", kind, x=book, return_sequences=True, return_state=True)
save_file(out, "fixtures/keras.safetensors", {"cases": json.dumps(configs), "made_by": f"Keras {keras.__version__}"})
print(len(configs), "cases,", sum(a.nbytes for a in out.values()), "bytes")
