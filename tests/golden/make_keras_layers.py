#!/usr/bin/env python3
"""Keras 3's layers around recurrent ones, computed in float64: fixtures/keras_layers.safetensors.

pip install keras torch numpy safetensors
Run from the folder `tests`: python3 golden/make_keras_layers.py

The metadata's `cases` holds for every case its name, Keras's description of the model (`config`), and Recurve's
(`network`). A case NAME has the inputs `NAME/x.INPUT`, the output `NAME/y`, and the weights `NAME/LAYER.N` in Keras's
order and layout, for each LAYER of `network` by its index.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
from keras import layers as L
from safetensors.numpy import save_file

keras.config.set_floatx("float64")
keras.utils.set_random_seed(20261126)
rng = np.random.default_rng(1126)
out, cases = {}, []


def f32(a):
    """Numbers that f32 represents exactly, so that both sides use the same values."""
    return np.asarray(a, np.float32).astype(np.float64)


def normal(*shape):
    return f32(rng.normal(size=shape))


# --- Recurve's description of a Keras layer -------------------------------------------------------------------------

FUNCTIONS = {f: {"name": f} for f in ("linear", "relu", "sigmoid", "tanh", "softsign", "softplus")} | {
    "elu": {"name": "elu", "alpha": 1.0}, "leaky_relu": {"name": "leaky_relu", "alpha": 0.2},
    "hard_sigmoid": {"name": "hard_sigmoid", "alpha": 1 / 6, "beta": 0.5},
}
OTHERS = {
    "softmax": "softmax", "log_softmax": "log_softmax", "gelu": "gelu", "silu": "silu", "selu": "selu", "mish": "mish",
    "exponential": "exponential", "hard_silu": "hard_silu", "relu6": "relu6", "celu": {"celu": {"alpha": 1.0}},
    "hard_tanh": "hard_tanh", "log_sigmoid": "log_sigmoid", "tanh_shrink": "tanh_shrink",
    "soft_shrink": {"soft_shrink": {"threshold": 0.5}}, "squareplus": {"square_plus": {"b": 4}},
}


def spatial(layer, names, config):
    """Options that have one number for each axis."""
    one = "1D" in type(layer).__name__
    return {n: config[n][0] if one else list(config[n]) for n in names if config.get(n) is not None}


def ours(layer):
    c, name = layer.get_config(), type(layer).__name__
    take = lambda *names: {n: c[n] for n in names}
    windows = lambda *names: {**take("padding", "data_format"), **spatial(layer, names, c)}
    head = {
        "Conv1D": "conv1d", "Conv2D": "conv2d", "Conv1DTranspose": "conv1d_transpose",
        "Conv2DTranspose": "conv2d_transpose", "DepthwiseConv1D": "depthwise_conv1d",
        "DepthwiseConv2D": "depthwise_conv2d", "SeparableConv1D": "separable_conv1d",
        "SeparableConv2D": "separable_conv2d",
    }.get(name)
    if head:
        d = {"type": head, "activation": FUNCTIONS[c["activation"]], "use_bias": c["use_bias"]}
        d |= windows("kernel_size", "strides", "dilation_rate")
        if "Transpose" in name:
            d |= spatial(layer, ["output_padding"], c)
        for option in ("filters", "groups", "depth_multiplier"):
            ours_has = {"filters": "Depthwise" not in name, "groups": name in ("Conv1D", "Conv2D"),
                        "depth_multiplier": "wise" in name or "Separable" in name}[option]
            if ours_has:
                d[option] = c[option]
        return d
    if "Pooling" in name:
        kind = name.replace("Global", "global_").replace("Max", "max_").replace("Average", "average_").lower()
        if "Global" in name:
            return {"type": kind, **take("data_format", "keepdims")}
        return {"type": kind, **windows("pool_size", "strides")}
    match name:
        case "Embedding":
            return {"type": "embedding", **take("input_dim", "output_dim", "mask_zero")}
        case "Masking":
            return {"type": "masking", **take("mask_value")}
        case "Dense":
            return {"type": "dense", **take("units", "use_bias"), "activation": FUNCTIONS[c["activation"]]}
        case "ZeroPadding1D":
            return {"type": "zero_padding1d", **take("padding", "data_format")}
        case "ZeroPadding2D":
            return {"type": "zero_padding2d", **take("padding", "data_format")}
        case "Cropping1D":
            return {"type": "cropping1d", **take("cropping")}
        case "Cropping2D":
            return {"type": "cropping2d", **take("cropping", "data_format")}
        case "UpSampling1D":
            return {"type": "up_sampling1d", **take("size")}
        case "UpSampling2D":
            return {"type": "up_sampling2d", **take("size", "interpolation", "data_format")}
        case "BatchNormalization":
            return {"type": "batch_normalization", **take("axis", "epsilon", "center", "scale")}
        case "LayerNormalization":
            axis = c["axis"] if isinstance(c["axis"], list) else [c["axis"]]
            return {"type": "layer_normalization", "axis": axis, **take("epsilon", "center", "scale", "rms_scaling")}
        case "Flatten":
            return {"type": "flatten", **take("data_format")}
        case "Reshape":
            return {"type": "reshape", **take("target_shape")}
        case "Permute":
            return {"type": "permute", **take("dims")}
        case "RepeatVector":
            return {"type": "repeat_vector", **take("n")}
        case "Activation":
            f = c["activation"]
            f = f if isinstance(f, str) else f["config"]
            return {"type": "activation",
                    "activation": {"elementwise": FUNCTIONS[f]} if f in FUNCTIONS else OTHERS[f]}
        case "LeakyReLU":
            return {"type": "leaky_relu", **take("negative_slope")}
        case "PReLU":
            return {"type": "p_relu", "shared_axes": c["shared_axes"] or []}
        case "ELU":
            return {"type": "elu", "alpha": layer.alpha}
        case "ReLU":
            return {"type": "relu", **take("max_value", "negative_slope", "threshold")}
        case "Softmax":
            return {"type": "softmax", **take("axis")}
        case "Attention":
            return {"type": "attention", **take("use_scale", "score_mode", "dropout")}
        case "AdditiveAttention":
            return {"type": "additive_attention", **take("use_scale", "dropout")}
        case "Concatenate":
            return {"type": "concatenate", **take("axis")}
        case "Dot":
            axes = c["axes"] if isinstance(c["axes"], (list, tuple)) else [c["axes"]] * 2
            return {"type": "dot", "axes": axes, **take("normalize")}
        case "Add" | "Subtract" | "Multiply" | "Average" | "Maximum" | "Minimum":
            return {"type": name.lower()}
        case "Dropout" | "GaussianDropout" | "AlphaDropout" | "SpatialDropout1D" | "SpatialDropout2D":
            kind = {"SpatialDropout1D": "spatial_dropout1d", "SpatialDropout2D": "spatial_dropout2d",
                    "GaussianDropout": "gaussian_dropout", "AlphaDropout": "alpha_dropout"}.get(name, "dropout")
            return {"type": kind, **take("rate")}
        case "TimeDistributed":
            return {"type": "time_distributed", "layer": ours(layer.layer)}
        case "GaussianNoise":
            return {"type": "gaussian_noise", **take("stddev")}
    raise ValueError(name)


def recurrent(layer):
    return {"units": layer.units, "return_sequences": layer.return_sequences}


def description(layer):
    """Recurrent layers are described by their class and options; Recurve's own form is longer."""
    name = type(layer).__name__
    if name in ("LSTM", "GRU"):
        return {"keras": name, "bidirectional": False, **recurrent(layer)}
    if name == "Bidirectional":
        return {"keras": type(layer.forward_layer).__name__, "bidirectional": True, **recurrent(layer.forward_layer)}
    return ours(layer)


def network(model):
    """Recurve's description of a functional model."""
    place = lambda t: t._keras_history
    inputs = [{"name": t.name, "shape": list(t.shape), "ids": t.dtype.startswith("int")} for t in model.inputs]
    names = {}
    for t in model.inputs:
        names[place(t)[0].name] = t.name

    def ref(t):
        op, node, index = place(t)
        return {"of": names.get(op.name, op.name), "call": node, "output": index}

    described, used = [], []
    for layer in model.layers:
        if isinstance(layer, L.InputLayer):
            continue
        # Masks are arguments too, but by name.
        calls = [[ref(t) for t in keras.tree.flatten(node.arguments.args)] for node in layer._inbound_nodes]
        d = description(layer)
        kwargs = layer._inbound_nodes[0].arguments.kwargs
        if kwargs.get("use_causal_mask"):
            d["use_causal_mask"] = True
        described.append({"name": layer.name, "layer": d, "calls": calls})
        used.append(layer)
    outputs = [{"name": "y", "value": ref(model.outputs[0])}]
    return {"inputs": inputs, "layers": described, "outputs": outputs}, used


# --- Recording ------------------------------------------------------------------------------------------------------


def short(config):
    """Keras's description without what only training uses."""
    if isinstance(config, (list, tuple)):
        return [short(c) for c in config]
    if not isinstance(config, dict):
        return config
    unused = ("initializer", "regularizer", "constraint", "registered_name", "build_config", "trainable", "module")
    return {k: short(v) for k, v in config.items() if not k.endswith(unused) and k != "dtype"}


def record(name, model, values, want=None):
    assert name not in [c["name"] for c in cases], name
    net, used = network(model)
    given = []
    for n, layer in enumerate(used):
        weights = []
        for v in layer.weights:
            w = normal(*v.shape) * (0.6 if len(v.shape) > 1 else 0.4)
            if v.name in ("gamma", "scale"):
                w = w + 1
            if v.name == "moving_variance":
                w = np.abs(w) + 0.3
            weights.append(f32(w))
        layer.set_weights(weights)
        given += weights
        for k, w in enumerate(weights):
            out[f"{name}/{n}.{k}"] = w.astype(np.float32)
    for x, value in zip(net["inputs"], values):
        out[f"{name}/x.{x['name']}"] = np.asarray(value, np.float32)
    if want:
        y = want(values[0], *given)
    else:
        y = keras.ops.convert_to_numpy(model(values if len(values) > 1 else values[0]))
    assert np.isfinite(y).all(), name
    out[f"{name}/y"] = np.ascontiguousarray(y, np.float32)
    cases.append({"name": name, "config": short(model.get_config()), "network": net})


def single(name, shape, *layers, known=True, batch=2, want=None):
    """Layers one behind the other. `shape` is that of the input without the batch; without `known`, the sizes of all
    axes but that of the channels are open."""
    first = next((l for l in layers if hasattr(l, "data_format")), None)
    channels = 0 if getattr(first, "data_format", "") == "channels_first" else len(shape) - 1
    declared = [d if known or n == channels else None for n, d in enumerate(shape)]
    x = keras.Input(declared, name="x", dtype="float64")
    y = x
    for layer in layers:
        y = layer(y)
    value = normal(batch, *shape)
    record(name, keras.Model(x, y), [value], want)


IDS = np.array([[3, 1, 4, 2, 5, 0, 0], [0, 2, 0, 5, 1, 3, 0], [2, 3, 1, 4, 2, 5, 1]])


def masked(name, *layers, ids=IDS, steps=7):
    """Behind an embedding that finds padding; the last layer shows whether the mask is still there."""
    x = keras.Input([steps], name="x", dtype="int64")
    y = L.Embedding(6, 4, mask_zero=True)(x)
    for layer in layers:
        y = layer(y)
    record(name, keras.Model(x, y), [ids])


def pair(name, join, *behind, a=((7, 4), True), b=((7, 4), True), known=True):
    """Two inputs, each with a Masking layer or without, joined by `join`."""
    flows, inputs, values = [], [], []
    for n, (shape, mask) in zip("ab", (a, b)):
        declared = [d if known or k + 1 == len(shape) else None for k, d in enumerate(shape)]
        x = keras.Input(declared, name=n, dtype="float64")
        value = normal(3, *shape)
        if mask:
            value[0, 5:], value[1, :2], value[1, 4] = 0, 0, 0
            if n == "b":
                value[0, 3:], value[2, 6] = 0, 0
        flows.append(L.Masking(0.0)(x) if mask else x)
        inputs.append(x)
        values.append(value)
    y = join(flows)
    for layer in behind:
        y = layer(y)
    record(name, keras.Model(inputs, y), values)


# --- Convolutions ---------------------------------------------------------------------------------------------------

single("conv1d", (7, 4), L.Conv1D(3, 3))
single("conv1d_open", (7, 4), L.Conv1D(3, 3, strides=2), known=False)
single("conv1d_same_even", (7, 4), L.Conv1D(3, 4, padding="same", activation="relu"))
single("conv1d_same_strided", (7, 4), L.Conv1D(3, 4, strides=2, padding="same"))
single("conv1d_same_strided_odd", (8, 4), L.Conv1D(3, 3, strides=3, padding="same"), known=False)
single("conv1d_same_dilated", (9, 4), L.Conv1D(5, 2, dilation_rate=3, padding="same", use_bias=False))
single("conv1d_causal", (7, 4), L.Conv1D(3, 3, dilation_rate=2, padding="causal", activation="tanh"))
single("conv1d_causal_strided", (8, 4), L.Conv1D(3, 2, strides=3, padding="causal"))
single("conv1d_groups", (7, 6), L.Conv1D(9, 3, groups=3, padding="same"))
single("conv1d_first", (4, 7), L.Conv1D(3, 4, strides=2, padding="same", data_format="channels_first"))
single("conv1d_causal_first", (4, 7), L.Conv1D(3, 3, padding="causal", data_format="channels_first"), known=False)
single("conv1d_one", (7, 4), L.Conv1D(5, 1, activation="sigmoid"))
single("conv2d", (6, 7, 3), L.Conv2D(4, (3, 2), strides=(2, 1)))
single("conv2d_same", (5, 7, 3), L.Conv2D(4, (2, 3), strides=(2, 3), padding="same", activation="elu"))
single("conv2d_dilated", (6, 7, 3), L.Conv2D(4, (3, 2), dilation_rate=(2, 1), padding="same"), known=False)
single("conv2d_groups", (5, 4, 4), L.Conv2D(6, (3, 3), groups=2, use_bias=False))
single("conv2d_first", (3, 5, 6), L.Conv2D(4, (2, 2), strides=(2, 2), padding="same", data_format="channels_first"))
single("depthwise1d", (7, 3), L.DepthwiseConv1D(3, depth_multiplier=2))
single("depthwise1d_same", (7, 3), L.DepthwiseConv1D(4, strides=2, padding="same", activation="relu", use_bias=False))
single("depthwise1d_first", (3, 7), L.DepthwiseConv1D(2, depth_multiplier=3, data_format="channels_first"))
single("depthwise1d_dilated", (9, 3), L.DepthwiseConv1D(3, dilation_rate=2, padding="same"), known=False)
single("depthwise2d", (5, 6, 3), L.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same"))
single("depthwise2d_strided", (7, 7, 2), L.DepthwiseConv2D((2, 2), strides=(2, 2), padding="same"))
single("separable1d", (7, 3), L.SeparableConv1D(5, 3, depth_multiplier=2, activation="tanh"))
single("separable1d_same", (8, 3), L.SeparableConv1D(4, 4, strides=3, padding="same", use_bias=False))
single("separable2d", (5, 6, 3), L.SeparableConv2D(4, (2, 3), depth_multiplier=2, padding="same"))
single("separable2d_first", (3, 5, 6), L.SeparableConv2D(4, (3, 3), strides=(2, 2), data_format="channels_first"))
single("transpose1d", (5, 3), L.Conv1DTranspose(4, 3))
single("transpose1d_wide", (5, 3), L.Conv1DTranspose(4, 2, strides=3))
single("transpose1d_same", (5, 3), L.Conv1DTranspose(4, 3, strides=2, padding="same", activation="relu"), known=False)
single("transpose1d_same_even", (6, 3), L.Conv1DTranspose(4, 4, strides=3, padding="same"))
single("transpose1d_same_wide", (5, 3), L.Conv1DTranspose(4, 2, strides=5, padding="same"))
single("transpose1d_padded", (5, 3), L.Conv1DTranspose(4, 3, strides=3, padding="same", output_padding=1))
single("transpose1d_valid_padded", (5, 3), L.Conv1DTranspose(4, 3, strides=2, output_padding=0))
single("transpose1d_dilated", (6, 3), L.Conv1DTranspose(4, 3, dilation_rate=2, padding="same", use_bias=False))
single("transpose1d_first", (3, 5), L.Conv1DTranspose(4, 4, strides=2, data_format="channels_first"))
single("transpose2d", (4, 3, 3), L.Conv2DTranspose(2, (3, 2), strides=(2, 3), padding="same"))

# --- Pooling --------------------------------------------------------------------------------------------------------


def unpadded(window, strides):
    """The mean without padding. Keras on PyTorch repeats the last element where padding differs on both sides; on
    other frameworks padding does not count, so the mean is made of two convolutions here."""

    def mean(x):
        ones = np.ones(window + (1, 1))
        total = lambda v: keras.ops.convert_to_numpy(
            keras.ops.conv(v[..., None], ones, strides=strides, padding="same"))[..., 0]
        channel = lambda c: total(x[..., c]) / total(np.ones_like(x[..., c]))
        return np.stack([channel(c) for c in range(x.shape[-1])], -1)

    return mean


single("max1d", (7, 3), L.MaxPooling1D(2))
single("max1d_same", (7, 3), L.MaxPooling1D(4, strides=3, padding="same"))
single("max1d_open", (7, 3), L.MaxPooling1D(3, strides=1), known=False)
single("max1d_first", (3, 7), L.MaxPooling1D(3, strides=2, padding="same", data_format="channels_first"))
single("max2d", (5, 7, 3), L.MaxPooling2D((2, 3), padding="same"))
single("max2d_strided", (6, 7, 2), L.MaxPooling2D((3, 2), strides=(1, 2)), known=False)
single("average1d", (7, 3), L.AveragePooling1D(3, strides=2))
single("average1d_same", (7, 3), L.AveragePooling1D(4, strides=3, padding="same"), want=unpadded((4,), 3))
single("average1d_first", (3, 8), L.AveragePooling1D(2, data_format="channels_first"))
single("average2d", (5, 7, 2), L.AveragePooling2D((2, 3), padding="same"), want=unpadded((2, 3), (2, 3)))
single("average2d_first", (2, 6, 7), L.AveragePooling2D((3, 2), strides=(2, 1), data_format="channels_first"))
for kind in ("Max", "Average"):
    one, two = (getattr(L, f"Global{kind}Pooling{n}D") for n in (1, 2))
    low = kind.lower()
    single(f"global_{low}1d", (7, 3), one(), known=False)
    single(f"global_{low}1d_first", (3, 7), one(data_format="channels_first", keepdims=True))
    single(f"global_{low}2d", (5, 6, 3), two(keepdims=True))
    single(f"global_{low}2d_first", (3, 5, 6), two(data_format="channels_first"))
    masked(f"global_{low}1d_masked", one(keepdims=kind == "Average"))

# --- Borders --------------------------------------------------------------------------------------------------------

single("zero_padding1d", (5, 3), L.ZeroPadding1D((2, 1)), known=False)
single("zero_padding1d_first", (3, 5), L.ZeroPadding1D((0, 3), data_format="channels_first"))
single("zero_padding2d", (4, 5, 2), L.ZeroPadding2D(((1, 0), (2, 3))))
single("zero_padding2d_first", (2, 4, 5), L.ZeroPadding2D(((1, 2), (0, 3)), data_format="channels_first"))
single("cropping1d", (7, 3), L.Cropping1D((2, 1)))
single("cropping1d_open", (7, 3), L.Cropping1D((2, 0)), known=False)
single("cropping2d", (6, 7, 2), L.Cropping2D(((1, 2), (0, 3))))
single("cropping2d_first", (2, 6, 7), L.Cropping2D(((2, 0), (1, 1)), data_format="channels_first"), known=False)
single("up_sampling1d", (5, 3), L.UpSampling1D(3), known=False)
single("up_sampling2d", (4, 3, 2), L.UpSampling2D((2, 3)))
single("up_sampling2d_first", (2, 4, 3), L.UpSampling2D((3, 2), data_format="channels_first"), known=False)
single("up_sampling2d_bilinear", (4, 3, 2), L.UpSampling2D((2, 3), interpolation="bilinear"))

# --- Normalization --------------------------------------------------------------------------------------------------

single("batch_norm", (7, 4), L.BatchNormalization())
single("batch_norm_open", (7, 4), L.BatchNormalization(epsilon=0.01, center=False), known=False)
single("batch_norm_axis1", (5, 4), L.BatchNormalization(axis=1, scale=False))
single("batch_norm_2d", (5, 6, 3), L.BatchNormalization(axis=2, center=False, scale=False))
single("batch_norm_vector", (6,), L.BatchNormalization())
single("layer_norm", (7, 4), L.LayerNormalization(), known=False)
# Keras on PyTorch refuses an axis before the last one; this is its definition.
single("layer_norm_axis1", (5, 4), L.LayerNormalization(axis=1, epsilon=1e-5), want=lambda x, gamma, beta: (
    (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * gamma[:, None] + beta[:, None]))
single("layer_norm_axes", (5, 4, 3), L.LayerNormalization(axis=[2, 3], scale=False))
single("layer_norm_apart", (5, 4, 3), L.LayerNormalization(axis=[1, 3], center=False))
single("layer_norm_negative", (5, 4, 3), L.LayerNormalization(axis=[-1, -2]))
single("layer_norm_plain", (7, 4), L.LayerNormalization(center=False, scale=False))
single("layer_norm_rms", (7, 4), L.LayerNormalization(rms_scaling=True))
single("layer_norm_rms_axis", (5, 4), L.LayerNormalization(axis=1, rms_scaling=True, center=False))

# --- Shapes ---------------------------------------------------------------------------------------------------------

single("flatten", (5, 3, 2), L.Flatten())
single("flatten_first", (3, 5, 2), L.Flatten(data_format="channels_first"), L.Dense(4))
single("reshape", (6, 4), L.Reshape((3, 2, 4)))
single("reshape_open", (6, 4), L.Reshape((-1, 2)), known=False)
single("reshape_rest", (6, 4), L.Reshape((3, -1)), L.LSTM(3))
single("permute", (5, 4, 3), L.Permute((3, 1, 2)), known=False)
single("repeat_vector", (4,), L.RepeatVector(5), L.GRU(3, return_sequences=True))

# --- Activations ----------------------------------------------------------------------------------------------------

for f in [*FUNCTIONS, *OTHERS]:
    single(f"activation_{f}", (5, 4), L.Activation(f))
single("leaky_relu", (5, 4), L.LeakyReLU(0.3))
single("prelu", (5, 4), L.PReLU())
single("prelu_shared", (5, 4), L.PReLU(shared_axes=[1]), known=False)
single("prelu_images", (4, 5, 3), L.PReLU(shared_axes=[1, 2]))
single("elu", (5, 4), L.ELU(0.7))
single("relu", (5, 4), L.ReLU())
single("relu_max", (5, 4), L.ReLU(max_value=0.5))
single("relu_slope", (5, 4), L.ReLU(negative_slope=0.2))
single("relu_threshold", (5, 4), L.ReLU(threshold=0.4))
single("relu_all", (5, 4), L.ReLU(max_value=0.9, negative_slope=0.2, threshold=0.3))
single("relu_max_slope", (5, 4), L.ReLU(max_value=0.9, negative_slope=0.2))
single("softmax", (5, 4), L.Softmax())
single("softmax_axis1", (5, 4, 3), L.Softmax(axis=1), known=False)

# --- What each layer makes of a mask --------------------------------------------------------------------------------

for name, layer in {
    "spatial_dropout1d": L.SpatialDropout1D(0.2), "gaussian_noise": L.GaussianNoise(0.3),
    "gaussian_dropout": L.GaussianDropout(0.2), "alpha_dropout": L.AlphaDropout(0.2), "dropout": L.Dropout(0.2),
    "activation": L.Activation("relu"), "softmax": L.Activation("softmax"), "leaky_relu": L.LeakyReLU(0.1),
    "prelu": L.PReLU(), "elu": L.ELU(), "relu": L.ReLU(), "batch_norm": L.BatchNormalization(),
    "layer_norm": L.LayerNormalization(), "dense": L.Dense(3), "conv": L.Conv1D(3, 3, padding="same"),
    "conv_causal": L.Conv1D(3, 2, padding="causal"), "conv_valid": L.Conv1D(3, 3), "conv_one": L.Conv1D(3, 1),
    "depthwise": L.DepthwiseConv1D(3, padding="same"), "separable": L.SeparableConv1D(3, 3, padding="same"),
    "transpose": L.Conv1DTranspose(3, 3, padding="same"), "max": L.MaxPooling1D(2, strides=1, padding="same"),
    "average": L.AveragePooling1D(3, strides=1, padding="same"), "zero_padding": L.ZeroPadding1D(1),
    "cropping": L.Cropping1D((1, 1)), "up_sampling": L.UpSampling1D(2), "reshape": L.Reshape((7, 4)),
    "permute": L.Permute((2, 1)),
}.items():
    masked(f"mask_through_{name}", layer, L.LSTM(3))
single("spatial_dropout2d", (4, 5, 3), L.SpatialDropout2D(0.4))

# --- Joins ----------------------------------------------------------------------------------------------------------

for join in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum):
    low = join.__name__.lower()
    pair(f"{low}_masks", join(), L.LSTM(3))
    pair(f"{low}_one_mask", join(), L.LSTM(3), b=((7, 4), False))
    pair(f"{low}_no_mask", join(), a=((7, 4), False), b=((7, 1), False), known=False)
pair("maximum_masked_values", L.Maximum())
pair("minimum_second_masked", L.Minimum(), a=((7, 4), False))
pair("concatenate_masks", L.Concatenate(), L.LSTM(3))
pair("concatenate_one_mask", L.Concatenate(axis=2), L.LSTM(3), a=((7, 4), False))
pair("concatenate_steps", L.Concatenate(axis=1), L.LSTM(3), a=((7, 4), True), b=((8, 4), True))
pair("concatenate_steps_one_mask", L.Concatenate(axis=-2), L.GRU(3), a=((7, 4), False), known=False)
plain = lambda *shape: (shape, False)
pair("dot_vectors", L.Dot(axes=1), a=plain(5), b=plain(5))
pair("dot_matrices", L.Dot(axes=(1, 2)), a=plain(4, 5), b=plain(6, 4))
pair("dot_last", L.Dot(axes=-1, normalize=True), a=plain(4, 5), b=plain(6, 5), known=False)
pair("dot_vector_matrix", L.Dot(axes=(1, 2)), a=plain(5), b=plain(4, 5))
pair("dot_matrix_vector", L.Dot(axes=(2, 1), normalize=True), a=plain(4, 5), b=plain(5))
pair("dot_wide", L.Dot(axes=(2, 1)), a=plain(3, 5, 2), b=plain(5, 4))
pair("dot_masks", L.Dot(axes=2), L.LSTM(3))

# --- Attention ------------------------------------------------------------------------------------------------------

seven = ((7, 4), True)
pair("attention", L.Attention(), a=plain(5, 4), b=plain(6, 4), known=False)
pair("attention_scaled", L.Attention(use_scale=True), a=plain(5, 4), b=plain(6, 4))
pair("attention_concat", L.Attention(score_mode="concat"), a=plain(5, 4), b=plain(6, 4))
pair("attention_concat_scaled", L.Attention(use_scale=True, score_mode="concat"), a=seven, b=seven)
pair("attention_masks", L.Attention(dropout=0.1), L.LSTM(3), a=seven, b=seven)
pair("attention_query_mask", L.Attention(), L.GRU(3), a=seven, b=plain(6, 4))
pair("attention_value_mask", L.Attention(), L.GRU(3), a=plain(5, 4), b=seven)
pair("attention_causal", lambda v: L.Attention()(v, use_causal_mask=True), a=plain(5, 4), b=plain(6, 4))
pair("attention_causal_masks", lambda v: L.Attention()(v, use_causal_mask=True), L.LSTM(3), a=seven, b=seven)
pair("additive", L.AdditiveAttention(), a=plain(5, 4), b=plain(6, 4), known=False)
pair("additive_masks", L.AdditiveAttention(), L.LSTM(3), a=seven, b=seven)
pair("additive_plain_causal", lambda v: L.AdditiveAttention(use_scale=False)(v, use_causal_mask=True), a=plain(5, 4),
     b=plain(5, 4))


def keyed():
    q, v, k = (keras.Input(s, name=n, dtype="float64") for n, s in (("q", [5, 4]), ("v", [6, 3]), ("k", [6, 4])))
    y = L.Attention(use_scale=True)([q, L.Masking(0.0)(v), k])
    value = normal(2, 6, 3)
    value[0, 4:], value[1, 0] = 0, 0
    record("attention_key", keras.Model([q, v, k], y), [normal(2, 5, 4), value, normal(2, 6, 4)])


def tagger():
    """Attention of a sequence to itself, behind an embedding with a mask, before a GRU."""
    x = keras.Input([None], name="x", dtype="int64")
    e = L.Embedding(6, 4, mask_zero=True)(x)
    h = L.Bidirectional(L.LSTM(3, return_sequences=True))(e)
    a = L.Attention()([h, h], use_causal_mask=True)
    y = L.Concatenate()([h, a])
    y = L.LayerNormalization()(y)
    y = L.GRU(4, return_sequences=True)(y)
    y = L.GlobalAveragePooling1D()(y)
    record("tagger", keras.Model(x, L.Dense(2, activation="sigmoid")(y)), [IDS])


keyed()
tagger()
single("cnn_bilstm", (12, 3), L.Conv1D(5, 4, padding="same", activation="relu"), L.BatchNormalization(),
       L.MaxPooling1D(2, strides=2, padding="same"), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.Dense(2),
       known=False)
single("images", (6, 8, 2), L.Conv2D(3, (3, 3), padding="same", activation="relu"), L.MaxPooling2D((2, 2)),
       L.Permute((2, 1, 3)), L.Reshape((4, 9)), L.Bidirectional(L.GRU(3)), L.Dense(2))

single("time_distributed", (3, 5, 4), L.TimeDistributed(L.Conv1D(3, 2, padding="same")), L.TimeDistributed(
    L.BatchNormalization()), L.TimeDistributed(L.MaxPooling1D(2)), L.TimeDistributed(L.Flatten()), L.LSTM(3))

save_file(out, "fixtures/keras_layers.safetensors", {"cases": json.dumps(cases, separators=(",", ":"))})
print(len(cases), "cases,", os.path.getsize("fixtures/keras_layers.safetensors"), "bytes")
