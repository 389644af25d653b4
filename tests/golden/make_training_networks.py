#!/usr/bin/env python3
"""Losses and gradients of small random networks in training: fixtures/training_networks.npz.

Run from the folder `tests`, with keras 3.15 and torch 2.15: KERAS_BACKEND=torch python3 golden/make_training_networks.py

`index` is a list of all cases as JSON, each with its name, the losses of its outputs, and the number of its inputs. Arrays
of a case NAME: the inputs `NAME/x0`, …, the targets `NAME/y0`, …, `NAME/weights` of the samples and `NAME/lengths` where
it has them, and `NAME/loss`.

A case of Keras has its description as JSON in `NAME/config`, and two files of weights: `NAME/model`, and one with the
gradient of each weight in the place of the weight, and in the place of the running mean and variance of a batch
normalization what they are after the step. `NAME/gradients` is the exclusive or of both files, which is short. A case of PyTorch has the options of the module in the index, the
weights `NAME/w/WEIGHT` by Recurve's names, and their gradients `NAME/g/WEIGHT`.

All is computed in float64 from numbers that f32 represents, and rounded to f32. Networks whose numbers in f32 are far from
that, because errors grow in them, are left out.
"""

import io
import json
import os
import sys
import tempfile
import warnings
import zipfile

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
import torch
from keras import layers as L
from torch import nn

keras.config.set_floatx("float64")
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
keras.utils.set_random_seed(20261127)
rng = np.random.default_rng(1127)
out, index = {}, []
F32 = np.float32
B, T = 4, 6


def f32(a):
    return np.asarray(a, F32).astype(np.float64)


def normal(*shape):
    return f32(rng.normal(size=shape))


def pick(*of):
    return of[int(rng.integers(len(of)))]


def maybe(share=0.5):
    return bool(rng.random() < share)


# --- Models of Keras ------------------------------------------------------------------------------------------------


def recurrent(sequences, **more):
    """A random recurrent layer."""
    kind = pick("SimpleRNN", "LSTM", "LSTM", "GRU", "GRU")
    options = {"units": int(rng.integers(2, 5)), "return_sequences": sequences, "use_bias": maybe(0.85)}
    if maybe(0.35):
        options["activation"] = pick("relu", "sigmoid", "softsign", "linear", "elu", "softplus", "hard_sigmoid", "leaky_relu")
    if kind != "SimpleRNN" and maybe(0.35):
        options["recurrent_activation"] = pick("hard_sigmoid", "tanh", "relu", "softsign", "linear")
    if kind == "GRU":
        options["reset_after"] = maybe()
    both = more.pop("both", maybe(0.3))
    if not both:
        options["go_backwards"] = maybe(0.2)
    if maybe(0.15) and not both:
        options["zero_output_for_mask"] = True
    layer = getattr(L, kind)(**options, **more)
    return L.Bidirectional(layer, merge_mode=pick("concat", "sum", "mul", "ave")) if both else layer


def between():
    """A layer between sequences, or none."""
    return pick(
        lambda: None, lambda: None, lambda: L.LayerNormalization(), lambda: L.BatchNormalization(momentum=0.8),
        lambda: L.Dense(3, activation="tanh"), lambda: L.TimeDistributed(L.Dense(3, activation="relu")),
        lambda: L.Activation(pick("tanh", "gelu", "silu", "softmax")), lambda: L.LeakyReLU(0.1),
        lambda: L.LayerNormalization(scale=False), lambda: L.BatchNormalization(center=False, momentum=0.5),
        lambda: L.PReLU(shared_axes=[1]),
    )()


def front(x):
    """Layers before the recurrent ones."""
    kind = pick("none", "none", "masking", "masking", "conv", "norm", "dense", "depthwise")
    if kind == "masking":
        return L.Masking(pick(0.0, 2.0))(x), kind
    if kind == "conv":
        x = L.Conv1D(3, 3, padding=pick("same", "causal", "valid"), activation=pick("relu", "tanh", None))(x)
        if maybe():
            x = pick(L.MaxPooling1D, L.AveragePooling1D)(2)(x)
    if kind == "depthwise":
        x = pick(L.DepthwiseConv1D(2, depth_multiplier=2), L.SeparableConv1D(4, 3, padding="same"))(x)
    if kind == "norm":
        x = pick(L.BatchNormalization(momentum=0.9), L.LayerNormalization())(x)
    if kind == "dense":
        x = L.Dense(4, activation="tanh")(x)
    return x, kind


def stack(x, sequences):
    for _ in range(int(rng.integers(0, 3))):
        x = recurrent(True)(x)
        layer = between()
        x = x if layer is None else layer(x)
    return recurrent(sequences)(x)


def input_of(kind):
    if kind == "ids":
        i = L.Input((None,), dtype="int32")
        return i, L.Embedding(7, 3, mask_zero=maybe(0.7))(i), "embedding"
    # Convolutions need a known number of timesteps for nothing; batch normalization of time would.
    i = L.Input((T, 3))
    x, what = front(i)
    return i, x, what


def numbers(kind, padded, value):
    """An input, whose sequences end early and have holes if it is to be padded."""
    if kind == "ids":
        x = rng.integers(1, 7, (B, T))
    else:
        x = normal(B, T, 3)
    if padded:
        for b in range(B):
            x[b, int(rng.integers(0 if maybe(0.15) else 1, T + 1)):] = value
            if maybe(0.3):
                x[b, int(rng.integers(0, T))] = value
    return x


def mask_value(model):
    for layer in model.layers:
        if isinstance(layer, L.Masking):
            return layer.mask_value
    return 0


LOSSES = ["mse", "mae", "huber", "bce", "bce_logits", "cce", "cce_logits", "scce", "scce_logits"]


def head(x, kind, timed=True):
    """The last layer for a loss, and the loss in both forms. Recurve does not read a TimeDistributed that Keras calls with
    the mask of a join."""
    n = 1 if kind.startswith("bce") and maybe() else int(rng.integers(2, 4))
    last = {"bce": "sigmoid", "cce": "softmax", "scce": "softmax"}.get(kind)
    dense = L.Dense(n, activation=last)
    y = L.TimeDistributed(dense)(x) if len(x.shape) == 3 and maybe(0.3) and timed else dense(x)
    reduction = pick("sum_over_batch_size", "sum_over_batch_size", "sum", "mean_with_sample_weight")
    own = {"reduction": {"sum_over_batch_size": "mean", "sum": "sum", "mean_with_sample_weight": "weighted_mean"}[reduction]}
    logits = kind.endswith("logits")
    smoothing = float(F32(0.1)) if "ce" in kind and not kind.startswith("scce") and maybe(0.3) else 0.0
    delta = pick(1.0, 0.5)
    loss = {
        "mse": lambda: keras.losses.MeanSquaredError(reduction=reduction),
        "mae": lambda: keras.losses.MeanAbsoluteError(reduction=reduction),
        "huber": lambda: keras.losses.Huber(delta=delta, reduction=reduction),
        "bce": lambda: keras.losses.BinaryCrossentropy(from_logits=logits, label_smoothing=smoothing, reduction=reduction),
        "cce": lambda: keras.losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=smoothing, reduction=reduction),
        "scce": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=logits, reduction=reduction),
    }[kind.split("_")[0]]()
    names = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "huber": {"huber": {"delta": delta}}}
    if "ce" in kind:
        base = {"bce": "binary_crossentropy", "cce": "categorical_crossentropy", "scce": "sparse_categorical_crossentropy"}
        names[kind] = {base[kind.split("_")[0]]: {"from_logits": logits}}
    own |= {"kind": names[kind], "label_smoothing": smoothing}
    return y, loss, own


def target(kind, y, dims):
    """Targets for an output of these dimensions."""
    if kind.startswith("scce"):
        return rng.integers(0, dims[-1], dims[:-1])
    if kind.startswith("cce"):
        return np.eye(dims[-1])[rng.integers(0, dims[-1], dims[:-1])]
    if kind.startswith("bce"):
        return rng.integers(0, 2, dims).astype(np.float64)
    return normal(*dims)


def narrow(model):
    """The same model in float32, as it is stored."""
    text = json.dumps(keras.saving.serialize_keras_object(model)).replace("float64", "float32")
    keras.config.set_floatx("float32")
    other = keras.saving.deserialize_keras_object(json.loads(text))
    keras.config.set_floatx("float64")
    return other


def file_of(model, weights):
    model.set_weights([np.asarray(w, F32) for w in weights])
    path = os.path.join(tempfile.gettempdir(), f"training_network_{os.getpid()}.keras")
    model.save(path)
    with zipfile.ZipFile(path) as z:
        config, data = z.read("config.json"), z.read("model.weights.h5")
    os.remove(path)
    return config, np.frombuffer(data, np.uint8)


def differentiated(model, predicted, targets, weights):
    """The loss, and of each weight its gradient, or what it is after the step if it is not trained."""
    y = [torch.tensor(t) for t in targets]
    one = lambda many: many if len(many) > 1 else many[0]
    loss = model.compute_loss(x=None, y=one(y), y_pred=one(predicted), sample_weight=one(weights))
    loss.backward()
    trained = {w.path for w in model.trainable_weights}
    after = []
    for v in model.weights:
        g = v.value.grad if v.path in trained else None
        after.append(v.numpy() if v.path not in trained else np.zeros(v.shape) if g is None else g.detach().numpy())
    return float(loss.detach()), after


def keras_case(name, model, inputs, kinds, losses, own):
    for w in model.weights:
        scale = 0.6 if len(w.shape) > 1 else 0.3
        value = rng.normal(size=w.shape) * scale
        if "variance" in w.path:
            value = 0.5 + rng.random(w.shape)
        if "gamma" in w.path:
            value = 1 + value
        w.assign(f32(value))
    given = [torch.tensor(np.asarray(x)) for x in inputs]
    before = [w.numpy().copy() for w in model.weights]
    predicted = model(given if len(given) > 1 else given[0], training=True)
    predicted = list(predicted) if isinstance(predicted, (list, tuple)) else [predicted]
    targets = [target(k, p, tuple(p.shape)) for k, p in zip(kinds, predicted)]
    weights, given_weights = None, [None] * len(predicted)
    masked = [getattr(p, "_keras_mask", None) is not None for p in predicted]
    times = {p.shape[1] if len(p.shape) == 3 else 0 for p in predicted}
    # Keras on PyTorch cannot combine weights of sequences with a mask.
    if maybe(0.4) and (len(times) == 1 or not any(masked)):
        temporal = len(times) == 1 and 0 not in times and (any(masked) or maybe())
        weights = f32(rng.uniform(0.2, 2.0, (B, predicted[0].shape[1]) if temporal else (B,)))
        # Keras divides by the sum of the weights that it gets, so those of sequences are repeated.
        each = lambda p: np.repeat(weights[:, None], p.shape[1], 1) if len(p.shape) == 3 and not temporal else weights
        given_weights = [torch.tensor(each(p)) for p in predicted]
    model.compile(loss=losses)
    value, after = differentiated(model, predicted, targets, given_weights)
    largest = max([float(np.abs(a).max()) for a in after])
    if not np.isfinite(value) or not largest < 200:
        print(f"{name} is left out: loss {value}, gradient {largest}", file=sys.stderr)
        return
    stored = narrow(model)
    (config, data), (_, other) = [file_of(stored, w) for w in (before, after)]
    stored.set_weights(before)
    stored.compile(loss=losses)
    given = [torch.tensor(np.asarray(x), dtype=None if np.asarray(x).dtype.kind == "i" else torch.float32) for x in inputs]
    predicted = stored(given if len(given) > 1 else given[0], training=True)
    predicted = list(predicted) if isinstance(predicted, (list, tuple)) else [predicted]
    _, rounded = differentiated(stored, predicted, targets, given_weights)
    error = max(float(np.abs(a - b).max() / max(1, np.abs(b).max())) for a, b in zip(rounded, after))
    if error > 4e-6:
        print(f"{name} is left out: its numbers in f32 are {error} from those in f64", file=sys.stderr)
        return
    out[f"{name}/config"] = np.frombuffer(config, np.uint8)
    out[f"{name}/model"] = data
    out[f"{name}/gradients"] = data ^ other
    arrays(name, inputs, targets, weights, value)
    index.append({"name": name, "losses": own, "inputs": len(inputs), "masked": masked})


def arrays(name, inputs, targets, weights, loss):
    kind = lambda a: a.astype(np.int32 if a.dtype.kind == "i" else F32)
    for letter, many in (("x", inputs), ("y", targets)):
        for n, a in enumerate(many):
            out[f"{name}/{letter}{n}"] = kind(np.asarray(a))
    if weights is not None:
        out[f"{name}/weights"] = np.asarray(weights, F32)
    out[f"{name}/loss"] = np.asarray([loss], F32)


def sequential(n):
    kind = pick("ids", "floats", "floats")
    i, x, what = input_of(kind)
    sequences = maybe(0.45)
    x = stack(x, sequences)
    if sequences and maybe(0.3):
        x = pick(L.GlobalAveragePooling1D, L.GlobalMaxPooling1D)()(x)
    elif sequences and maybe(0.2):
        x = L.Activation("tanh")(x)
    loss = pick(*LOSSES)
    y, keras_loss, own = head(x, loss)
    model = keras.Model(i, y)
    padded = what in ("masking", "embedding") and maybe(0.85)
    keras_case(f"chain{n}", model, [numbers(kind, padded, mask_value(model))], [loss], keras_loss, [own])


def joined(n):
    """Two inputs, of which both or one are masked, that meet in a join."""
    masked = [maybe(), maybe()]
    kind = pick("add", "multiply", "concatenate", "average", "maximum", "subtract", "dot", "attention", "additive", "states", "last", "shared")
    if kind == "shared":
        # Keras calls the deeper branch first, which a normalization of both would show.
        masked[1] = masked[0]
    if kind == "concatenate":
        # With one mask Keras calls the next layer with another one, which Recurve does not read.
        masked[1] = masked[0]
    if kind == "states":
        # With initial states Keras does not look at the mask of the input, which Recurve refuses.
        masked[1] = False
    i = [L.Input((T, 3), name=f"in{k}") for k in range(2)]
    x = [L.Masking()(v) if m else v for v, m in zip(i, masked)]
    join = {
        "add": L.Add, "multiply": L.Multiply, "concatenate": L.Concatenate, "average": L.Average, "maximum": L.Maximum,
        "subtract": L.Subtract,
    }
    if kind in join:
        cells = [L.LSTM(3, return_sequences=True), L.GRU(3, return_sequences=True, reset_after=maybe())]
        x = join[kind]()([cell(v) for cell, v in zip(cells, x)])
        x = recurrent(maybe())(x)
    elif kind == "dot":
        a, b = L.GRU(3, return_sequences=True)(x[0]), L.SimpleRNN(3, return_sequences=True)(x[1])
        scores = L.Dot(axes=2, normalize=maybe())([a, b])
        x = L.Concatenate()([a, L.Dot(axes=[2, 1])([L.Softmax()(scores), b])])
        x = L.Dense(3, activation="tanh")(x)
    elif kind == "attention":
        a, b = L.LSTM(3, return_sequences=True)(x[0]), L.GRU(3, return_sequences=True)(x[1])
        x = L.Concatenate()([a, L.Attention(use_scale=maybe(), score_mode=pick("dot", "concat"))([a, b])])
    elif kind == "additive":
        a, b = L.GRU(3, return_sequences=True)(x[0]), L.LSTM(3, return_sequences=True)(x[1])
        x = L.AdditiveAttention(use_scale=maybe())([a, b])
    elif kind == "states":
        cell = pick(L.LSTM, L.GRU, L.SimpleRNN)
        both = maybe(0.35)
        one = cell(3, return_state=True)
        states = (L.Bidirectional(one) if both else one)(x[0])[1:]
        two = cell(3, return_sequences=maybe())
        x = (L.Bidirectional(two) if both else two)(x[1], initial_state=list(states))
    elif kind == "last":
        x = L.Concatenate()([L.LSTM(3, go_backwards=True)(x[0]), L.GRU(2)(x[1])])
    else:
        cell = recurrent(False, both=False)
        if maybe():
            norm = L.BatchNormalization(momentum=0.7)
            x = [norm(v) for v in x]
        x = L.Subtract()([cell(x[0]), cell(x[1])])
    loss = pick(*LOSSES)
    y, keras_loss, own = head(x, loss, timed=False)
    model = keras.Model(i, y)
    given = [numbers("floats", m, 0.0) for m in masked]
    keras_case(f"{kind}{n}", model, given, [loss], keras_loss, [own])


def several(n):
    """Two outputs, each with a loss of its own; directions that are not merged."""
    kind = pick("ids", "floats")
    i, x, what = input_of(kind)
    layer = pick(L.LSTM, L.GRU, L.SimpleRNN)(3, return_sequences=maybe())
    if maybe():
        a, b = L.Bidirectional(layer, merge_mode=None)(x)
    else:
        x = L.GRU(3, return_sequences=True)(x)
        a, b = layer(x), recurrent(maybe(), both=False)(x)
    losses, models = [pick(*LOSSES), pick(*LOSSES)], []
    heads = [head(v, kind) for v, kind in zip([a, b], losses)]
    model = keras.Model(i, [h[0] for h in heads])
    padded = what in ("masking", "embedding")
    keras_case(f"outputs{n}", model, [numbers(kind, padded, mask_value(model))], losses, [h[1] for h in heads], [h[2] for h in heads])


def plain_sequential(n):
    """keras.Sequential, with the options of a layer inside a stack of cells."""
    cells = [pick(L.LSTMCell, L.GRUCell, L.SimpleRNNCell)(int(rng.integers(2, 4))) for _ in range(int(rng.integers(1, 4)))]
    model = keras.Sequential([
        L.Input((None, 3)), L.RNN(cells, return_sequences=maybe(), go_backwards=maybe(0.3)), L.Dense(2),
    ])
    own = {"kind": "mean_squared_error", "reduction": "mean", "label_smoothing": 0.0}
    keras_case(f"cells{n}", model, [numbers("floats", False, 0.0)], ["mse"], keras.losses.MeanSquaredError(), [own])


# --- Modules of PyTorch ---------------------------------------------------------------------------------------------


def torch_case(n):
    kind = pick("LSTM", "LSTM", "GRU", "RNN")
    layers, both = int(rng.integers(1, 4)), maybe()
    hidden, inputs = int(rng.integers(3, 5)), 3
    proj = int(rng.integers(1, hidden)) if kind == "LSTM" and maybe(0.4) else 0
    sequences = maybe()
    nonlinearity = pick("tanh", "relu")
    more = {"nonlinearity": nonlinearity} if kind == "RNN" else {"proj_size": proj} if proj else {}
    module = getattr(nn, kind)(inputs, hidden, layers, bidirectional=both, batch_first=True, bias=maybe(0.85), **more)
    width = (proj or hidden) * (2 if both else 1)
    dense = nn.Linear(width, 2)
    for p in list(module.parameters()) + list(dense.parameters()):
        p.data = torch.tensor(f32(p.detach().numpy()))
    x = torch.tensor(normal(B, T, inputs))
    lengths = rng.integers(1, T + 1, B)
    lengths[0] = T
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    y, end = module(packed)
    y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
    end = end[0] if kind == "LSTM" else end
    last = torch.cat([end[-2], end[-1]], 1) if both else end[-1]
    y = dense(y if sequences else last)
    goal = torch.tensor(normal(*y.shape))
    valid = torch.arange(T)[None, :] < torch.tensor(lengths)[:, None]
    # The mean over the timesteps that are there.
    loss = ((y - goal) ** 2)[valid].mean() if sequences else ((y - goal) ** 2).mean()
    loss.backward()
    name = f"torch{n}"
    bias = "double" if module.bias else "none"
    cell = {"type": {"LSTM": "lstm", "GRU": "gru", "RNN": "simple_rnn"}[kind]}
    index.append({
        "name": name, "inputs": 1, "masked": [False],
        "losses": [{"kind": "mean_squared_error", "reduction": "mean", "label_smoothing": 0.0}],
        "torch": {"cell": kind, "layers": layers, "both": both, "hidden": hidden, "features": inputs, "proj": proj,
                  "sequences": sequences, "relu": nonlinearity == "relu", "bias": bias},
    })
    arrays(name, [x.numpy()], [goal.numpy()], None, float(loss.detach()))
    out[f"{name}/lengths"] = lengths.astype(np.int32)
    for prefix, m in (("layers.0.", module), ("layers.1.", dense)):
        for k, p in m.named_parameters():
            out[f"{name}/w/{prefix}{k}"] = p.detach().numpy().astype(F32)
            out[f"{name}/g/{prefix}{k}"] = p.grad.numpy().astype(F32)


def attempt(make, n):
    """A case, unless Keras cannot run the network."""
    try:
        make(n)
    except (IndexError, RuntimeError, TypeError) as e:
        print(f"{make.__name__} {n} is left out: {str(e)[:100]}", file=sys.stderr)


def main():
    warnings.filterwarnings("ignore")
    for n in range(int(os.environ.get("CASES", 140))):
        keras.backend.clear_session()
        attempt(sequential, n)
        if n % 3 != 0:
            attempt(joined, n)
        if n % 5 == 0:
            attempt(several, n)
        if n % 12 == 0:
            attempt(plain_sequential, n)
        if n % 5 == 1:
            attempt(torch_case, n)
        if n % 10 == 0:
            print(n, len(index), file=sys.stderr)
    text = json.dumps(index).encode()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures/training_networks.npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for key, a in [("index", np.frombuffer(text, np.uint8)), *out.items()]:
            buffer = io.BytesIO()
            np.save(buffer, a)
            z.writestr(zipfile.ZipInfo(key + ".npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)
    print(len(index), "cases,", os.path.getsize(path), "bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
