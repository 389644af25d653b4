#!/usr/bin/env python3
"""Keras files and what their models give: fixtures/keras_files.npz.

pip install keras torch numpy h5py
Run from the folder `tests`: KERAS_BACKEND=torch python3 golden/make_keras_files.py

`index` lists all as JSON. `file/NAME` holds the bytes of a file. A case `NAME` has inputs `NAME/in/INPUT` and outputs `NAME/out/0`, …, and is
stored as some of NAME.keras, NAME.h5, and NAME.json with NAME.weights.h5. Files of Keras 1 and 2 are written here with
h5py, with the attributes, groups and names that those versions wrote; their outputs come from layers of Keras 3 with
the same weights and the functions of the old version.
"""

import io
import json
import os
import sys
import tempfile
import zipfile

os.environ.setdefault("KERAS_BACKEND", "torch")
import h5py
import keras
import numpy as np
from keras import layers as L

keras.utils.set_random_seed(20261126)
rng = np.random.default_rng(1126)
out, index = {}, {}
folder = tempfile.mkdtemp()
f32 = np.float32


def store(name, data):
    out[f"file/{name}"] = np.frombuffer(data, np.uint8)


def bytes_of(path):
    with open(path, "rb") as f:
        return f.read()


def normal(*shape):
    return rng.normal(size=shape).astype(f32)


def shake(model):
    """Weights that are neither zero nor one, so that a misplaced one is noticed."""
    for w in model.weights:
        scale = 0.5 if len(w.shape) > 1 else 0.3
        value = rng.normal(size=w.shape) * scale
        if "variance" in w.path:
            value = 0.5 + rng.random(w.shape)
        if "gamma" in w.path:
            value = 1 + value
        w.assign(value.astype(f32))


def values(name, given, results):
    index[name] = {"inputs": list(given), "outputs": len(results)}
    for k, v in given.items():
        out[f"{name}/in/{k}"] = v
    for n, v in enumerate(results):
        out[f"{name}/out/{n}"] = np.asarray(v, f32)


def predicted(model, given):
    y = model([given[i.name] for i in model.inputs] if len(model.inputs) > 1 else given[model.inputs[0].name])
    return [keras.ops.convert_to_numpy(v) for v in (y if isinstance(y, (list, tuple)) else [y])]


def save(name, model, given, forms):
    values(name, given, predicted(model, given))
    index[name]["params"] = model.count_params()
    for form in forms:
        path = os.path.join(folder, f"{name}.{form}")
        if form == "json":
            store(f"{name}.json", model.to_json().encode())
            continue
        if form == "weights.h5":
            model.save_weights(path)
        else:
            model.save(path)
        store(f"{name}.{form}", bytes_of(path))


ALL = ["keras", "h5", "json", "weights.h5"]
ids = np.array([[3, 1, 4, 0, 0], [2, 5, 1, 6, 2]])
padded = normal(2, 5, 3)
padded[0, 3:] = 0

m = keras.Sequential([keras.Input((None,), dtype="int32", name="words"), L.Embedding(8, 4, mask_zero=True),
                      L.Bidirectional(L.LSTM(3, return_sequences=True)), L.SpatialDropout1D(0.2),
                      L.GRU(4, return_sequences=True), L.Dropout(0.3), L.LSTM(3), L.Dense(5, "softmax")], name="tagger")
m.build((None, None))
shake(m)
save("tagger", m, {"words": ids}, ALL)

# Nested models, shared layers, cells, states, several outputs.
x = keras.Input((None, 3), name="x")
h = L.Bidirectional(L.LSTM(2, return_sequences=True), name="both")(x)
inner = keras.Sequential([keras.Input((None, 4)), L.Dense(3, name="d"), L.GRU(2, return_sequences=True, name="g")], name="inner")
h = inner(h)
h = L.RNN(L.StackedRNNCells([L.LSTMCell(2), L.GRUCell(3)]), return_sequences=True, return_state=True, name="stack")(h)
t = L.TimeDistributed(L.Dense(2, "softmax"), name="each")(h[0])
bn = L.BatchNormalization(name="bn")(t)
s = L.LSTM(2, name="shared")
a, b = s(bn), s(t)
g = L.GRU(3, name="ends")(t, initial_state=h[-1])
j = L.Concatenate(name="joined")([a, b, g])
m = keras.Model(x, [j, L.Dense(2, name="last")(j)], name="nested")
shake(m)
save("nested", m, {"x": normal(2, 5, 3)}, ALL)

# A model inside TimeDistributed, a model that is called twice, and weights of which some are not trained.
part = keras.Sequential([keras.Input((4,)), L.Dense(3, "tanh"), L.BatchNormalization(), L.Dense(2, "relu")], name="part")
i = keras.Input((3, 4))
twice = keras.Model(i, L.GRU(2)(L.TimeDistributed(part, name="steps")(i)), name="twice")
twice.layers[1].layer.layers[0].trainable = False
left, right = keras.Input((3, 4), name="left"), keras.Input((3, 4), name="right")
m = keras.Model([left, right], L.Subtract(name="gap")([twice(left), twice(right)]), name="siamese")
shake(m)
save("siamese", m, {"left": normal(2, 3, 4), "right": normal(2, 3, 4)}, ["keras", "h5"])

# Encoder and decoder: states as outputs and inputs.
source, target = keras.Input((None, 3), name="source"), keras.Input((None, 2), name="target")
code = L.Bidirectional(L.LSTM(2, return_state=True), name="encoder")(source)
y = L.Bidirectional(L.LSTM(2, return_sequences=True), merge_mode=None, name="decoder")(target, initial_state=code[1:])
m = keras.Model([source, target], [y[0], y[1], code[2]], name="translator")
shake(m)
save("translator", m, {"source": normal(2, 4, 3), "target": normal(2, 3, 2)}, ["keras", "h5"])

# Options of recurrent layers.
x = keras.Input((None, 3), name="x")
h = L.Masking(0.0)(x)
y0 = L.SimpleRNN(3, use_bias=False, activation="relu", return_sequences=True)(h)
y1 = L.Bidirectional(L.GRU(3, return_sequences=True, reset_after=False), merge_mode="sum")(h)
y2 = L.LSTM(3, go_backwards=True, recurrent_activation="hard_sigmoid", activation="softsign", return_sequences=True,
            zero_output_for_mask=True)(h)
y3 = L.RNN(L.GRUCell(3), return_sequences=True)(L.Average()([y0, y1]))
y4 = L.Bidirectional(L.RNN(L.LSTMCell(2)), backward_layer=L.RNN(L.LSTMCell(2), go_backwards=True), merge_mode="mul")(y3)
m = keras.Model(x, [y0, y1, y2, y3, y4], name="options")
shake(m)
save("options", m, {"x": padded}, ["keras", "h5"])

m = keras.Sequential([keras.Input(batch_shape=(2, 4, 3), name="x"), L.LSTM(3, stateful=True),
                      L.Dense(2, keras.layers.LeakyReLU(0.1))], name="stateful")
shake(m)
given = {"x": normal(2, 4, 3)}
path = os.path.join(folder, "stateful.keras")
m.save(path)
store("stateful.keras", bytes_of(path))
values("stateful", given, predicted(m, given) + predicted(m, given))

# One axis.
x = keras.Input((12, 4), name="x")
y = L.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu", groups=2)(x)
y = L.BatchNormalization(scale=False)(L.SeparableConv1D(5, 3, padding="same", depth_multiplier=2, activation="gelu")(y))
y = L.PReLU(shared_axes=[1])(L.DepthwiseConv1D(3, depth_multiplier=2, strides=1, padding="same")(y))
y = L.LeakyReLU(0.2)(L.Conv1DTranspose(4, 3, strides=2, padding="same")(y))
y = L.ELU(0.7)(L.LayerNormalization(epsilon=1e-4)(L.GaussianNoise(0.1)(y)))
y = L.Cropping1D((1, 2))(L.ZeroPadding1D(2)(L.UpSampling1D(2)(y)))
p0 = L.GlobalMaxPooling1D()(L.MaxPooling1D(3, strides=2, padding="same")(y))
p1 = L.GlobalAveragePooling1D()(L.AveragePooling1D(2)(y))
p2 = L.Flatten()(L.Activation("swish")(y))
p3 = L.Softmax()(L.ReLU(6.0, negative_slope=0.1, threshold=0.2)(y))
m = keras.Model(x, [p0, p1, L.Dense(3, "sigmoid")(p2), p3], name="one_axis")
shake(m)
save("one_axis", m, {"x": normal(2, 12, 4)}, ["keras", "h5"])

# Two axes.
x = keras.Input((8, 6, 3), name="x")
y = L.Conv2D(4, (3, 2), strides=(1, 2), padding="same", activation="tanh")(x)
y = L.BatchNormalization(center=False)(L.SeparableConv2D(3, 3, padding="same")(y))
y = L.DepthwiseConv2D((2, 3), padding="same", use_bias=False)(y)
y = L.Conv2DTranspose(2, (3, 2), strides=2)(y)
y = L.Cropping2D(((1, 2), (0, 1)))(L.ZeroPadding2D((1, 2))(L.UpSampling2D((2, 1))(y)))
p0 = L.GlobalMaxPooling2D(keepdims=True)(L.MaxPooling2D(2)(y))
p1 = L.GlobalAveragePooling2D()(L.AveragePooling2D((2, 3), padding="same")(L.SpatialDropout2D(0.1)(y)))
m = keras.Model(x, [p0, p1], name="two_axes")
shake(m)
save("two_axes", m, {"x": normal(2, 8, 6, 3)}, ["keras"])

# Joins, and layers that change the shape.
p, q = keras.Input((4, 3), name="p"), keras.Input((4, 3), name="q")
y = [L.Add()([p, q]), L.Subtract()([p, q]), L.Multiply()([p, q]), L.Maximum()([p, q]), L.Minimum()([p, q])]
y = L.Concatenate(axis=1)(y)
d = L.Dot(axes=(1, 1))([p, q])
a0 = L.Attention(use_scale=True, score_mode="concat")([p, q])
a1 = L.AdditiveAttention()([p, q])
r = L.Reshape((2, 6))(L.Permute((2, 1))(p))
v = L.RepeatVector(3)(L.Dense(2, "selu")(L.Flatten()(q)))
m = keras.Model([p, q], [y, d, a0, a1, r, v], name="joins")
shake(m)
save("joins", m, {"p": normal(2, 4, 3), "q": normal(2, 4, 3)}, ["keras", "h5"])

# Masks, which Keras 3 stores as operations outside of layers.
i, x = keras.Input((None,), dtype="int32", name="i"), keras.Input((None, 3), name="x")
h = L.Bidirectional(L.GRU(2, return_sequences=True))(L.Embedding(8, 3, mask_zero=True)(i))
t = L.TimeDistributed(L.Dense(2))(h)
d = L.Dense(2)(L.Dropout(0.1)(t))
a = L.Add()([d, t])
y0 = L.GlobalAveragePooling1D()(L.Concatenate()([d, a]))
y1 = L.Attention()([d, t])
y2, s, _ = L.LSTM(2, return_state=True)(a)
h = L.Masking(0.0)(x)
inner = keras.Sequential([keras.Input((None, 3)), L.Dense(3), L.GRU(2, return_sequences=True)], name="inner")
y3 = L.RNN(L.StackedRNNCells([L.GRUCell(2), L.LSTMCell(2)]))(inner(h))
n = L.LayerNormalization()(L.BatchNormalization()(h))
y4 = L.LSTM(2)(L.Concatenate(axis=1)([n, h]))
m = keras.Model([i, x], [y0, y1, y2, y3, y4], name="masks")
shake(m)
save("masks", m, {"i": ids, "x": padded}, ["keras", "h5"])
# Keras 3 does not look at the mask of a layer that gets its initial states.
m = keras.Model(i, L.LSTM(2, name="late")(a, initial_state=[s, s]), name="refused")
path = os.path.join(folder, "refused.keras")
m.save(path)
store("refused.keras", bytes_of(path))

# Other types of numbers: variables of bfloat16, and a policy that computes in float16.
m = keras.Sequential([keras.Input((None, 3), name="x"), L.GRU(4, dtype="mixed_float16")], name="mixed")
shake(m)
path = os.path.join(folder, "mixed.keras")
m.save(path)
store("mixed.keras", bytes_of(path))
plain = keras.Sequential([keras.Input((None, 3), name="x"), L.GRU(4)])
plain.set_weights(m.get_weights())
given = {"x": normal(2, 5, 3)}
values("mixed", given, predicted(plain, given))


# ---- Files of older versions -------------------------------------------------------------------------------------

@keras.saving.register_keras_serializable("old")
def hard(x):
    """hard_sigmoid of Keras 1 and 2."""
    return keras.ops.clip(0.2 * x + 0.5, 0, 1)


def old_file(name, config, groups, version, backend="tensorflow", root="model_weights", form="h5", several=False):
    """A file of Keras 1 or 2. `groups` are pairs of a layer and its variables, themselves pairs of name and array."""
    data = io.BytesIO()
    with h5py.File(data, "w") as f:
        g = f
        if config is not None:
            f.attrs["model_config"] = json.dumps(config).encode("utf8")
            if version:
                f.attrs["keras_version"] = version.encode("utf8")
            if backend:
                f.attrs["backend"] = backend.encode("utf8")
            g = f.create_group(root)
        names = [n.encode("utf8") for n, _ in groups]
        if several:
            for n, some in enumerate(np.array_split(np.array(names), several)):
                g.attrs[f"layer_names{n}"] = some
        else:
            g.attrs["layer_names"] = names
        if backend:
            g.attrs["backend"] = backend.encode("utf8")
        if version:
            g.attrs["keras_version"] = version.encode("utf8")
        for layer, variables in groups:
            group = g.create_group(layer)
            group.attrs["weight_names"] = [n.encode("utf8") for n, _ in variables]
            for n, v in variables:
                group.create_dataset(n, data=v)
    store(f"{name}.{form}", data.getvalue())


def named(prefix, names, arrays, end=":0"):
    return [(f"{prefix}/{n}{end}", a) for n, a in zip(names, arrays)]


KRB = ["kernel", "recurrent_kernel", "bias"]

# Keras 2.2.2: the list of a Sequential, hard_sigmoid by name and by default, no reset_after, no InputLayer.
E_, F_, B_ = normal(8, 3), [normal(3, 12), normal(3, 12), normal(12)], [normal(3, 12), normal(3, 12), normal(12)]
G_, D_ = [normal(3, 9), normal(3, 9), normal(9)], [normal(6, 2), normal(2)]
lstm = {"name": "lstm_1", "trainable": True, "return_sequences": True, "return_state": False, "go_backwards": False,
        "stateful": False, "unroll": False, "units": 3, "activation": "tanh", "recurrent_activation": "hard_sigmoid",
        "use_bias": True, "kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0}},
        "unit_forget_bias": True, "kernel_regularizer": None, "dropout": 0.1, "recurrent_dropout": 0.0,
        "implementation": 1}
config = {"class_name": "Sequential", "config": [
    {"class_name": "Embedding", "config": {"name": "embedding_1", "trainable": True, "batch_input_shape": [None, None],
     "dtype": "float32", "input_dim": 8, "output_dim": 3, "embeddings_initializer":
     {"class_name": "RandomUniform", "config": {}}, "mask_zero": True, "input_length": None}},
    {"class_name": "GRU", "config": {"name": "gru_1", "units": 3, "activation": "tanh", "use_bias": True,
     "return_sequences": True, "implementation": 1}},
    {"class_name": "Bidirectional", "config": {"name": "bidirectional_1", "trainable": True, "layer":
     {"class_name": "LSTM", "config": lstm}, "merge_mode": "concat"}},
    {"class_name": "Dropout", "config": {"name": "dropout_1", "trainable": True, "rate": 0.5, "noise_shape": None,
     "seed": None}},
    {"class_name": "TimeDistributed", "config": {"name": "time_distributed_1", "trainable": True, "layer":
     {"class_name": "Dense", "config": {"name": "dense_1", "units": 2, "activation": "softmax", "use_bias": True}}}},
]}
groups = [("embedding_1", named("embedding_1", ["embeddings"], [E_])), ("gru_1", named("gru_1", KRB, G_)),
          ("bidirectional_1", named("bidirectional_1/forward_lstm_1", KRB, F_)
           + named("bidirectional_1/backward_lstm_1", KRB, B_)),
          ("dropout_1", []),
          ("time_distributed_1", named("time_distributed_1", ["kernel", "bias"], D_))]
old_file("keras2", config, groups, "2.2.2")
i = keras.Input((None,), dtype="int32", name="x")
mask = keras.ops.not_equal(i, 0)
g = L.GRU(3, recurrent_activation=hard, reset_after=False, return_sequences=True, name="g")
e = g(L.Embedding(8, 3, name="e")(i), mask=mask)
fw = L.LSTM(3, recurrent_activation=hard, return_sequences=True, name="fw")
bw = L.LSTM(3, recurrent_activation=hard, return_sequences=True, go_backwards=True, name="bw")
# Without zeros at masked timesteps, as Keras by itself had it.
h = keras.ops.concatenate([fw(e, mask=mask), keras.ops.flip(bw(e, mask=mask), 1)], -1)
m = keras.Model(i, L.Dense(2, "softmax", name="d")(h))
for n, w in [("e", [E_]), ("fw", F_), ("bw", B_), ("g", G_), ("d", D_)]:
    m.get_layer(n).set_weights(w)
values("keras2", {"embedding_1_input": ids}, predicted(m, {"x": ids}))

# The same model inside TensorFlow 2.3, which gives zeros at masked timesteps: names in several attributes.
cells = [("bidirectional", named("bidirectional/forward_lstm/lstm_cell_1", KRB, F_)
          + named("bidirectional/backward_lstm/lstm_cell_2", KRB, B_)), ("dense", named("dense", ["kernel", "bias"], D_))]
config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": [
    {"class_name": "InputLayer", "config": {"batch_input_shape": [None, None], "dtype": "float32", "sparse": False,
     "ragged": False, "name": "embedding_input"}},
    {"class_name": "Embedding", "config": {"name": "embedding", "trainable": True, "batch_input_shape": [None, None],
     "dtype": "float32", "input_dim": 8, "output_dim": 3, "mask_zero": True, "input_length": None}},
    {"class_name": "Bidirectional", "config": {"name": "bidirectional", "trainable": True, "dtype": "float32", "layer":
     {"class_name": "LSTM", "config": {**lstm, "name": "lstm", "time_major": False, "dtype": "float32"}},
     "merge_mode": "concat"}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "linear", "use_bias": True}},
]}}
old_file("tf23", config, [("embedding", named("embedding", ["embeddings"], [E_])), *cells], "2.4.0", several=2)
b = L.Bidirectional(L.LSTM(3, recurrent_activation=hard, return_sequences=True), name="b")
i = keras.Input((None,), dtype="int32", name="x")
m = keras.Model(i, L.Dense(2, name="d")(b(L.Embedding(8, 3, mask_zero=True, name="e")(i))))
for n, w in [("e", [E_]), ("b", F_ + B_), ("d", D_)]:
    m.get_layer(n).set_weights(w)
values("tf23", {"embedding_input": ids}, predicted(m, {"x": ids}))

# Keras 2.1.6: a functional model with a model in it, whose first call has the number 1; layers of cuDNN; options of
# calls; and weights in a file of their own, whose layers have other names.
def cudnn(kernel, gates):
    """The matrices that cuDNN reads where Keras stores `kernel`: each gate's block, its memory read as [units, in]."""
    return np.hstack([k.reshape(k.shape[1], k.shape[0]).T for k in np.split(kernel, gates, axis=1)])


CL = [normal(3, 16), normal(4, 16), normal(32)]
CG = [normal(4, 9), normal(3, 9), normal(18)]
N1, N2 = [normal(3, 5), normal(5)], [normal(5, 3), normal(3)]


def dense(name, units, f, shape=None):
    c = {"name": name, "trainable": True, "units": units, "activation": f, "use_bias": True}
    return {"class_name": "Dense", "config": {**c, **({"batch_input_shape": shape} if shape else {})}}


base = {"trainable": True, "return_state": False, "go_backwards": False, "stateful": False}
config = {"class_name": "Model", "config": {"name": "model_1", "layers": [
    {"name": "input_1", "class_name": "InputLayer", "config": {"batch_input_shape": [None, None, 3],
     "dtype": "float32", "sparse": False, "name": "input_1"}, "inbound_nodes": []},
    {"name": "sequential_1", "class_name": "Sequential", "config": [dense("dense_1", 5, "elu", [None, None, 3]),
     dense("dense_2", 3, "linear")], "inbound_nodes": [[["input_1", 0, 0, {}]], [["add_1", 0, 0, {}]]]},
    {"name": "add_1", "class_name": "Add", "config": {"name": "add_1", "trainable": True},
     "inbound_nodes": [[["input_1", 0, 0, {}], ["sequential_1", 1, 0, {}]]]},
    {"name": "cu_dnnlstm_1", "class_name": "CuDNNLSTM", "config": {"name": "cu_dnnlstm_1", **base, "units": 4,
     "return_sequences": True, "unit_forget_bias": True}, "inbound_nodes": [[["sequential_1", 2, 0, {}]]]},
    {"name": "cu_dnngru_1", "class_name": "CuDNNGRU", "config": {"name": "cu_dnngru_1", **base, "units": 3,
     "return_sequences": False}, "inbound_nodes": [[["cu_dnnlstm_1", 0, 0, {"training": None, "mask": None}]]]},
], "input_layers": [["input_1", 0, 0]], "output_layers": [["cu_dnngru_1", 0, 0]]}}
groups = [("input_1", []), ("sequential_1", named("dense_1", ["kernel", "bias"], N1)
                            + named("dense_2", ["kernel", "bias"], N2)), ("add_1", []),
          ("cu_dnnlstm_1", named("cu_dnnlstm_1", KRB, CL)), ("cu_dnngru_1", named("cu_dnngru_1", KRB, CG))]
old_file("cudnn", config, groups, "2.1.6")
other = [(n.replace("_1", "_7"), v) for n, v in groups]
store("cudnn_apart.json", json.dumps({**config, "keras_version": "2.1.6", "backend": "tensorflow"}).encode())
old_file("cudnn_apart", None, other, "2.1.6")
i = keras.Input((None, 3), name="input_1")
d1, d2 = L.Dense(5, "elu"), L.Dense(3)
one = d2(d1(i))
l, g = L.LSTM(4, return_sequences=True), L.GRU(3)
m = keras.Model(i, g(l(d2(d1(L.Add()([i, one]))))))
d1.set_weights(N1)
d2.set_weights(N2)
l.set_weights([cudnn(CL[0], 4), cudnn(CL[1], 4), CL[2].reshape(2, 16).sum(0)])
g.set_weights([cudnn(CG[0], 3), cudnn(CG[1], 3), CG[2].reshape(2, 9)])
given = {"input_1": normal(2, 5, 3)}
values("cudnn", given, predicted(m, given))
values("cudnn_apart", given, predicted(m, given))

# Keras 1.2: three variables a gate; an LSTM that has them joined; and the names of that time.
def gates(w, u, b, order, letters, layer):
    parts = {}
    for n, letter in enumerate(order):
        size = u.shape[0]
        at = slice(n * size, (n + 1) * size)
        parts[letter] = [(f"{layer}_W_{letter}", w[:, at]), (f"{layer}_U_{letter}", u[:, at]),
                         (f"{layer}_b_{letter}", b[at])]
    return [v for letter in letters for v in parts[letter]]


W1, W2 = [normal(3, 16), normal(4, 16), normal(16)], [normal(4, 12), normal(3, 12), normal(12)]
W3, W4, C1 = [normal(3, 9), normal(3, 9), normal(9)], [normal(3, 2), normal(2)], [normal(3, 3, 3), normal(3)]
old = {"trainable": True, "init": "glorot_uniform", "inner_init": "orthogonal", "forget_bias_init": "one",
       "activation": "tanh", "inner_activation": "hard_sigmoid", "W_regularizer": None, "U_regularizer": None,
       "b_regularizer": None, "dropout_W": 0.0, "dropout_U": 0.0, "go_backwards": False, "stateful": False,
       "unroll": False, "return_sequences": True, "input_length": None}
config = {"class_name": "Sequential", "config": [
    {"class_name": "Convolution1D", "config": {"name": "convolution1d_1", "trainable": True, "nb_filter": 3,
     "filter_length": 3, "border_mode": "same", "subsample_length": 1, "init": "glorot_uniform", "activation": "relu",
     "W_regularizer": None, "b_regularizer": None, "activity_regularizer": None, "W_constraint": None,
     "b_constraint": None, "bias": True, "input_dim": 3, "input_length": None, "batch_input_shape": [None, None, 3]}},
    {"class_name": "LSTM", "config": {"name": "lstm_1", **old, "output_dim": 4, "input_dim": 3, "consume_less": "cpu"}},
    {"class_name": "LSTM", "config": {"name": "lstm_2", **old, "output_dim": 3, "input_dim": 4, "consume_less": "gpu"}},
    {"class_name": "GRU", "config": {"name": "gru_1", **{k: v for k, v in old.items() if k != "forget_bias_init"},
     "return_sequences": False, "output_dim": 3, "input_dim": 3, "consume_less": "mem"}},
    {"class_name": "Dense", "config": {"name": "dense_1", "trainable": True, "output_dim": 2, "init": "glorot_uniform",
     "activation": "sigmoid", "W_regularizer": None, "b_regularizer": None, "activity_regularizer": None,
     "W_constraint": None, "b_constraint": None, "bias": True, "input_dim": 3}},
]}
flipped = C1[0][::-1][:, None]
groups = [("convolution1d_1", [("convolution1d_1_W", flipped), ("convolution1d_1_b", C1[1])]),
          ("lstm_1", gates(*W1, "ifco", "icfo", "lstm_1")),
          ("lstm_2", [(f"lstm_2_{n}", w) for n, w in zip("WUb", W2)]),
          ("gru_1", gates(*W3, "zrh", "zrh", "gru_1")),
          ("dense_1", [("dense_1_W", W4[0]), ("dense_1_b", W4[1])])]
old_file("keras1", config, groups, "1.2.2", backend="theano")
m = keras.Sequential([keras.Input((None, 3), name="x"), L.Conv1D(3, 3, padding="same", activation="relu"),
                      L.LSTM(4, recurrent_activation=hard, return_sequences=True),
                      L.LSTM(3, recurrent_activation=hard, return_sequences=True),
                      L.GRU(3, recurrent_activation=hard, reset_after=False), L.Dense(2, "sigmoid")])
m.set_weights(C1 + W1 + W2 + W3 + W4)
given = {"convolution1d_1_input": normal(2, 5, 3)}
values("keras1", given, predicted(m, {"x": given["convolution1d_1_input"]}))

# Keras 1.0 wrote no version.
old_file("keras1_first", {"class_name": "Sequential", "config": [
    {"class_name": "LSTM", "config": {"name": "lstm_1", **old, "output_dim": 4, "input_dim": 3, "consume_less": "cpu",
     "batch_input_shape": [None, None, 3]}}]}, groups[1:2], None, backend=None)
m = keras.Sequential([keras.Input((None, 3), name="x"), L.LSTM(4, recurrent_activation=hard, return_sequences=True)])
m.set_weights(W1)
given = {"lstm_1_input": normal(2, 5, 3)}
values("keras1_first", given, predicted(m, {"x": given["lstm_1_input"]}))


# The .keras files of TensorFlow 2.12 and 2.13, and those of them that were saved on Windows.
def early(name, windows):
    w = [[normal(3, 16), normal(4, 16), normal(16)], [normal(4, 12), normal(3, 12), normal(12)],
         [normal(3, 4), normal(4)], [normal(4, 2), normal(2)]]
    sep = "\\" if windows else "/"
    data = io.BytesIO()
    with h5py.File(data, "w") as f:
        for path, arrays in [(["lstm", "cell"], w[0]), (["lstm_2", "cell"], w[1]), (["dense"], w[2]),
                             (["dropout"], []), (["dense_2"], w[3])]:
            g = f.create_group(sep.join(["_layer_checkpoint_dependencies", *path])).create_group("vars")
            for n, a in enumerate(arrays):
                g.create_dataset(str(n), data=a)

    def layer(c, n, **options):
        return {"module": "keras.layers", "class_name": c, "config": {"name": n, "trainable": True, "dtype": "float32",
                **options}, "registered_name": None, "build_config": {"input_shape": [None, None, 3]}}

    cell = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "time_major": False}
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "sequential", "layers": [
        {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_input_shape": [None, None, 3],
         "dtype": "float32", "sparse": False, "ragged": False, "name": "lstm_input"}, "registered_name": None},
        layer("LSTM", "lstm", units=4, return_sequences=True, **cell), layer("LSTM", "lstm_1", units=3, **cell),
        layer("Dense", "dense", units=4, activation="hard_sigmoid"), layer("Dropout", "dropout", rate=0.5),
        layer("Dense", "dense_1", units=2, activation="softmax")]}, "registered_name": None,
        "build_config": {"input_shape": [None, None, 3]}}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("metadata.json", json.dumps({"keras_version": "2.12.0", "date_saved": "2023-05-01@10:00:00"}))
        z.writestr("config.json", json.dumps(config))
        z.writestr("model.weights.h5", data.getvalue())
    store(f"{name}.keras", file.getvalue())
    m = keras.Sequential([keras.Input((None, 3), name="x"), L.LSTM(4, return_sequences=True), L.LSTM(3),
                          L.Dense(4, hard), L.Dense(2, "softmax")])
    m.set_weights(sum(w, []))
    given = {"lstm_input": normal(2, 5, 3)}
    values(name, given, predicted(m, {"x": given["lstm_input"]}))


early("early", False)
early("early_windows", True)

target = sys.argv[1] if len(sys.argv) > 1 else "fixtures/keras_files.npz"
files = [k.removeprefix("file/") for k in out if k.startswith("file/")]
out["index"] = np.frombuffer(json.dumps({"files": files, "cases": index}).encode(), np.uint8)
np.savez_compressed(target, **out)
print(target, os.path.getsize(target), sum(len(v) for k, v in out.items() if k.startswith("file/")),
      sum(k.startswith("file/") for k in out), "files")
