#!/usr/bin/env python3
"""Networks that are built of Keras's descriptions: fixtures/keras_builds.npz and python/tests/fixtures/keras_layers.json.

pip install keras torch numpy
Run from the folder `tests`: python3 golden/make_keras_builds.py

`index` is JSON. `models` has, by name, a model's description (`Model.to_json`), the names, shapes and layers of its
variables in the order of `get_weights`, and the number of its inputs and outputs; `NAME.w0`, `NAME.x0`, `NAME.y0`, … are
random weights, inputs and what the model makes of them, computed in float64. `draws` has descriptions of models with
initializers, and for each variable the mean, the deviation, the smallest and the largest number of what Keras draws.

The JSON file has the arguments of Keras's layers, initializers, regularizers and constraints with their defaults, and the
names that Keras gives to layers.
"""

import inspect
import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import constraints, initializers, regularizers
from keras import layers as L

keras.config.set_floatx("float64")
keras.utils.set_random_seed(20261126)
rng = np.random.default_rng(1126)
out, index = {}, {"models": {}, "draws": {}}


def description(model):
    """What `to_json` gives of the same model in float32."""
    return model.to_json().replace('"float64"', '"float32"')


def variables(model):
    return [{"name": w.name, "shape": list(w.shape), "trainable": bool(w.trainable)} for w in model.weights]


def case(name, model, *xs):
    for w in model.weights:
        value = rng.normal(size=w.shape) * 0.4
        if "variance" in w.name:
            value = 0.5 + rng.random(w.shape)
        if "gamma" in w.name:
            value = 1 + value
        w.assign(value.astype("float32"))
    ys = model.predict(list(xs) if len(xs) > 1 else xs[0], verbose=0)
    ys = ys if isinstance(ys, list) else [ys]
    for n, w in enumerate(model.get_weights()):
        out[f"{name}.w{n}"] = w.astype("float32")
    for n, x in enumerate(xs):
        out[f"{name}.x{n}"] = x
    for n, y in enumerate(ys):
        out[f"{name}.y{n}"] = y.astype("float64")
    index["models"][name] = {
        "json": description(model),
        "variables": variables(model),
        "inputs": [i._keras_history.operation.name for i in model.inputs],
        "outputs": len(ys),
    }


def floats(*shape):
    return rng.normal(size=shape).astype("float32")


def ids(high, *shape):
    return rng.integers(0, high, size=shape).astype("int64")


case(
    "chain",
    keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="words"),
            L.Embedding(11, 4),
            L.SimpleRNN(3, return_sequences=True),
            L.LSTM(4, return_sequences=True),
            L.GRU(3, return_sequences=True),
            L.GRU(2, return_sequences=True, reset_after=False),
            L.Bidirectional(L.LSTM(2, return_sequences=True)),
            L.TimeDistributed(L.Dense(3, activation="softmax")),
            L.Conv1D(4, 3, padding="causal", activation="relu"),
            L.BatchNormalization(),
            L.LayerNormalization(),
            L.Dense(2),
        ]
    ),
    ids(11, 2, 6),
)
case(
    "both_directions",
    keras.Sequential(
        [
            keras.Input((5, 3)),
            L.Bidirectional(L.GRU(2, return_sequences=True), merge_mode="sum"),
            L.Bidirectional(L.SimpleRNN(3, return_sequences=True), merge_mode="mul"),
            L.Bidirectional(L.GRU(2, reset_after=False), merge_mode="ave"),
        ]
    ),
    floats(3, 5, 3),
)
case(
    "cells",
    keras.Sequential(
        [
            keras.Input((4, 3)),
            L.RNN([L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(4)], return_sequences=True),
            L.RNN(L.GRUCell(3, reset_after=False)),
        ]
    ),
    floats(2, 4, 3),
)
case(
    "no_biases",
    keras.Sequential(
        [
            keras.Input((4, 3)),
            L.LSTM(2, use_bias=False, return_sequences=True),
            L.GRU(2, use_bias=False, return_sequences=True, go_backwards=True),
            L.BatchNormalization(center=False),
            L.LayerNormalization(scale=False),
            L.Dense(2, use_bias=False),
        ]
    ),
    floats(2, 4, 3),
)
case(
    "convolutions",
    keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            L.Conv2D(4, (2, 3), padding="same"),
            L.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same"),
            L.SeparableConv2D(3, 2, depth_multiplier=2, padding="same"),
            L.Conv2DTranspose(2, (2, 3), padding="same"),
            L.PReLU(shared_axes=[1]),
            L.Reshape((30, 2)),
            L.SeparableConv1D(4, 3, padding="same", depth_multiplier=3),
            L.DepthwiseConv1D(2, depth_multiplier=2),
            L.Conv1DTranspose(3, 2),
            L.PReLU(),
        ]
    ),
    floats(2, 6, 5, 3),
)

# Two inputs, a layer that is called twice, states that go from an encoder to a decoder, a model in a model.
source, target = keras.Input((None, 3), name="source"), keras.Input((None,), dtype="int32", name="target")
shared = L.LSTM(4, return_sequences=True, return_state=True, name="encoder")
first, h, c = shared(source)
second = shared(L.Dense(3, name="turned")(first))[0]
words = L.Embedding(7, 5, name="words")(target)
decoded = L.LSTM(4, return_sequences=True, name="decoder")(words, initial_state=[h, c])
seen = L.AdditiveAttention(name="additive")([decoded, second])
seen_too = L.Attention(use_scale=True, score_mode="concat", name="concat")([decoded, second])
inner = keras.Sequential([keras.Input((None, 12)), L.Dense(5, activation="tanh"), L.BatchNormalization()], name="inner")
joined = L.Concatenate(name="joined")([decoded, seen, seen_too])
tail = L.Dense(4, name="tail")
model = keras.Model(
    [source, target],
    [tail(inner(joined)), L.GlobalAveragePooling1D(name="mean")(second)],
    name="everything",
)
case("graph", model, floats(2, 5, 3), ids(7, 2, 4))

frozen = keras.Sequential(
    [keras.Input((4, 3)), L.BatchNormalization(), L.LSTM(3, trainable=False), L.Dense(2)], name="frozen"
)
case("frozen", frozen, floats(2, 4, 3))


def draws(name, *layers):
    model = keras.Sequential(list(layers))
    rows = []
    for w in model.weights:
        v = np.asarray(keras.ops.convert_to_numpy(w.value), dtype="float64")
        rows.append(
            {
                "name": w.name,
                "shape": list(w.shape),
                "mean": float(v.mean()),
                "std": float(v.std()),
                "low": float(v.min()),
                "high": float(v.max()),
            }
        )
    index["draws"][name] = {"json": description(model), "variables": rows}


NAMES = [
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "random_uniform",
    "random_normal",
    "truncated_normal",
    "orthogonal",
    initializers.VarianceScaling(2.5, "fan_out", "uniform"),
    initializers.VarianceScaling(0.7, "fan_avg", "untruncated_normal"),
    initializers.Orthogonal(1.7),
    initializers.RandomUniform(-0.3, 0.8),
    initializers.RandomNormal(0.2, 0.4),
    initializers.TruncatedNormal(-0.1, 0.3),
    initializers.Constant(0.25),
]
for n, how in enumerate(NAMES):
    draws(f"dense_{n}", keras.Input((60,)), L.Dense(130, kernel_initializer=how, bias_initializer="ones"))
    draws(f"embedding_{n}", keras.Input((None,), dtype="int32"), L.Embedding(150, 50, embeddings_initializer=how))
    draws(f"conv_{n}", keras.Input((9, 30)), L.Conv1D(60, 4, kernel_initializer=how))
    draws(f"transpose_{n}", keras.Input((9, 9, 30)), L.Conv2DTranspose(40, (2, 3), kernel_initializer=how))
    draws(f"depthwise_{n}", keras.Input((9, 200)), L.DepthwiseConv1D(5, depth_multiplier=7, depthwise_initializer=how))
    draws(
        f"separable_{n}",
        keras.Input((9, 200)),
        L.SeparableConv1D(40, 5, depth_multiplier=7, depthwise_initializer=how, pointwise_initializer=how),
    )
    draws(f"lstm_{n}", keras.Input((9, 40)), L.LSTM(50, kernel_initializer=how, recurrent_initializer=how))
    draws(f"prelu_{n}", keras.Input((90, 80)), L.PReLU(alpha_initializer=how))
# Keras does not write the gain of an identity.
draws(
    "identity",
    keras.Input((9, 40)),
    L.SimpleRNN(40, recurrent_initializer="identity"),
    L.Dense(30, kernel_initializer=initializers.Identity()),
)
draws(
    "biases",
    keras.Input((9, 40)),
    L.GRU(400, kernel_initializer="zeros", recurrent_initializer="zeros", bias_initializer="random_uniform"),
    L.Dense(2),
)
draws(
    "forget",
    keras.Input((None, 4)),
    L.LSTM(50, bias_initializer="zeros", return_sequences=True),
    L.LSTM(50, bias_initializer=initializers.Constant(0.5), return_sequences=True),
    L.LSTM(50, unit_forget_bias=False, return_sequences=True),
    L.Bidirectional(L.LSTM(50, return_sequences=True)),
    L.TimeDistributed(L.Dense(90, kernel_initializer="he_normal", bias_initializer=initializers.Constant(-1))),
    L.BatchNormalization(gamma_initializer=initializers.Constant(3), beta_initializer="ones"),
    L.LayerNormalization(gamma_initializer="zeros", beta_initializer=initializers.Constant(2)),
)

out["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
np.savez_compressed("fixtures/keras_builds.npz", **out)

LAYERS = """Embedding Dense SimpleRNN LSTM GRU SimpleRNNCell LSTMCell GRUCell StackedRNNCells RNN Bidirectional
TimeDistributed Conv1D Conv2D Conv1DTranspose Conv2DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D
SeparableConv2D MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D
GlobalAveragePooling1D GlobalAveragePooling2D BatchNormalization LayerNormalization Dropout SpatialDropout1D
SpatialDropout2D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization Masking Flatten Reshape Permute
RepeatVector ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D UpSampling1D UpSampling2D Concatenate Add Subtract Multiply
Average Maximum Minimum Dot Attention AdditiveAttention Activation LeakyReLU PReLU ELU ReLU Softmax""".split()


def arguments(cls):
    """Each argument with its default; null where there is none."""
    rows = []
    for p in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if p.kind is not p.VAR_KEYWORD:
            needed = p.default is inspect.Parameter.empty
            default = None if needed else list(p.default) if isinstance(p.default, tuple) else p.default
            rows.append({"name": p.name, "needed": needed, "default": default})
    return rows


keras.backend.clear_session()
small = {
    "layers": {name: arguments(getattr(L, name)) for name in LAYERS},
    "initializers": {
        n: [a for a in arguments(c) if a["name"] not in ("args", "kwargs")]
        for n, c in sorted(vars(initializers).items())
        if inspect.isclass(c) and c.__name__ == n and n not in ("Initializer", "STFT")
    },
    "regularizers": {n: arguments(getattr(regularizers, n)) for n in ("L1", "L2", "L1L2", "OrthogonalRegularizer")},
    "constraints": {
        n: arguments(getattr(constraints, n)) if n != "NonNeg" else []
        for n in ("MaxNorm", "NonNeg", "UnitNorm", "MinMaxNorm")
    },
    "names": [],
}
MADE = {
    "Embedding": (5, 3),
    "SimpleRNN": (3,),
    "LSTM": (3,),
    "GRU": (3,),
    "Dense": (3,),
    "Conv1D": (3, 2),
    "Conv2DTranspose": (3, 2),
    "DepthwiseConv1D": (2,),
    "SeparableConv2D": (3, 2),
    "MaxPooling1D": (),
    "GlobalAveragePooling2D": (),
    "BatchNormalization": (),
    "LayerNormalization": (),
    "PReLU": (),
    "LeakyReLU": (),
    "ELU": (),
    "ReLU": (),
    "UpSampling1D": (),
    "ZeroPadding2D": (),
    "AlphaDropout": (0.5,),
    "SpatialDropout1D": (0.5,),
    "RepeatVector": (2,),
    "AdditiveAttention": (),
}
for name, args in MADE.items():
    small["names"].append([name, list(args), [getattr(L, name)(*args).name for _ in range(2)]])
CALLS = [
    ("Embedding", dict(input_dim=7, output_dim=3), [[5]]),
    ("Dense", dict(units=4), [[5, 3]]),
    ("SimpleRNN", dict(units=4), [[5, 3]]),
    ("LSTM", dict(units=4, return_sequences=True, return_state=True), [[5, 3]]),
    ("GRU", dict(units=4, return_state=True), [[None, 3]]),
    ("Conv1D", dict(filters=4, kernel_size=3, strides=2), [[9, 3]]),
    ("Conv1D", dict(filters=4, kernel_size=3, padding="causal", dilation_rate=2), [[None, 3]]),
    ("Conv2D", dict(filters=4, kernel_size=(3, 2), padding="same", strides=2), [[9, 8, 3]]),
    ("Conv1DTranspose", dict(filters=4, kernel_size=3, strides=2), [[9, 3]]),
    ("Conv2DTranspose", dict(filters=4, kernel_size=3, strides=(2, 1), padding="same"), [[9, 8, 3]]),
    ("DepthwiseConv1D", dict(kernel_size=3, depth_multiplier=2), [[9, 3]]),
    ("DepthwiseConv2D", dict(kernel_size=3), [[9, 8, 3]]),
    ("SeparableConv1D", dict(filters=4, kernel_size=3), [[9, 3]]),
    ("SeparableConv2D", dict(filters=4, kernel_size=3), [[9, 8, 3]]),
    ("MaxPooling1D", dict(), [[9, 3]]),
    ("MaxPooling2D", dict(pool_size=3, strides=1), [[9, 8, 3]]),
    ("AveragePooling1D", dict(pool_size=3, padding="same"), [[9, 3]]),
    ("AveragePooling2D", dict(pool_size=2), [[9, 8, 3]]),
    ("GlobalMaxPooling1D", dict(), [[None, 3]]),
    ("GlobalMaxPooling2D", dict(keepdims=True), [[9, 8, 3]]),
    ("GlobalAveragePooling1D", dict(), [[9, 3]]),
    ("GlobalAveragePooling2D", dict(), [[9, 8, 3]]),
    ("BatchNormalization", dict(), [[9, 3]]),
    ("LayerNormalization", dict(), [[None, 3]]),
    ("Dropout", dict(rate=0.5, noise_shape=[None, 1, 3]), [[9, 3]]),
    ("SpatialDropout1D", dict(rate=0.5), [[9, 3]]),
    ("SpatialDropout2D", dict(rate=0.5), [[9, 8, 3]]),
    ("GaussianNoise", dict(stddev=0.5), [[9, 3]]),
    ("GaussianDropout", dict(rate=0.5), [[9, 3]]),
    ("AlphaDropout", dict(rate=0.5), [[9, 3]]),
    ("ActivityRegularization", dict(l1=0.5), [[9, 3]]),
    ("Masking", dict(mask_value=-1.0), [[9, 3]]),
    ("Flatten", dict(), [[9, 3]]),
    ("Reshape", dict(target_shape=[3, -1]), [[9, 2]]),
    ("Permute", dict(dims=[2, 1]), [[9, 3]]),
    ("RepeatVector", dict(n=4), [[3]]),
    ("ZeroPadding1D", dict(padding=[1, 2]), [[9, 3]]),
    ("ZeroPadding2D", dict(padding=[[1, 2], [0, 3]]), [[9, 8, 3]]),
    ("Cropping1D", dict(cropping=2), [[9, 3]]),
    ("Cropping2D", dict(cropping=[1, 2]), [[9, 8, 3]]),
    ("UpSampling1D", dict(size=3), [[9, 3]]),
    ("UpSampling2D", dict(interpolation="bilinear"), [[9, 8, 3]]),
    ("Concatenate", dict(axis=1), [[9, 3], [4, 3]]),
    ("Add", dict(), [[9, 3], [9, 3], [9, 3]]),
    ("Subtract", dict(), [[9, 3], [9, 3]]),
    ("Multiply", dict(), [[9, 3], [9, 3]]),
    ("Average", dict(), [[9, 3], [9, 3]]),
    ("Maximum", dict(), [[9, 3], [9, 3]]),
    ("Minimum", dict(), [[9, 3], [9, 3]]),
    ("Dot", dict(axes=[1, 2], normalize=True), [[9, 3], [4, 9]]),
    ("Attention", dict(use_scale=True), [[9, 3], [4, 3]]),
    ("AdditiveAttention", dict(), [[9, 3], [4, 3], [4, 3]]),
    ("Activation", dict(activation="softmax"), [[9, 3]]),
    ("LeakyReLU", dict(negative_slope=0.1), [[9, 3]]),
    ("PReLU", dict(shared_axes=[1]), [[9, 3]]),
    ("ELU", dict(), [[9, 3]]),
    ("ReLU", dict(max_value=6.0), [[9, 3]]),
    ("Softmax", dict(axis=1), [[9, 3]]),
]
small["calls"] = []
for name, options, shapes in CALLS:
    xs = [keras.Input(tuple(s), dtype="int32" if name == "Embedding" else "float32") for s in shapes]
    layer = getattr(L, name)(**options)
    ys = layer(xs if len(xs) > 1 else xs[0])
    ys = ys if isinstance(ys, (list, tuple)) else [ys]
    weights = [[w.name, list(w.shape)] for w in layer.weights]
    small["calls"].append([name, options, shapes, [list(y.shape) for y in ys], weights])
folder = "../python/tests/fixtures"
os.makedirs(folder, exist_ok=True)
with open(f"{folder}/keras_layers.json", "w") as f:
    json.dump(small, f, separators=(",", ":"))
    f.write("\n")
