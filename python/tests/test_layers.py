"""Layers, chains and graphs of them, and their weights, beside Keras's (``tests/golden/make_keras_builds.py``)."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import recurve
from recurve import _build, constraints, initializers, layers, models, regularizers

HERE = Path(__file__).resolve().parent
KERAS = json.loads((HERE / "fixtures" / "keras_layers.json").read_text())
#: Arguments of Keras's that no layer here has: they are for weights of other types.
LEFT_OUT = {"lora_rank", "lora_alpha", "quantization_config"}


@pytest.fixture(autouse=True)
def fresh_names():
    _build.clear_session()
    _build.set_seed(7)
    yield
    _build.set_seed(None)


@pytest.fixture(scope="module")
def builds():
    path = HERE.parents[1] / "tests" / "fixtures" / "keras_builds.npz"
    arrays = np.load(path)
    return json.loads(arrays["index"].tobytes()), arrays


def shapes_of(y):
    return [list(v.shape) for v in (y if isinstance(y, list) else [y])]


# Arguments, defaults and names


def arguments(cls):
    rows = []
    for p in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if p.kind is p.VAR_KEYWORD:
            continue
        needed = p.default is p.empty
        default = None if needed else list(p.default) if isinstance(p.default, tuple) else p.default
        if isinstance(default, list):
            default = json.loads(json.dumps(default))
        rows.append({"name": p.name, "needed": needed, "default": default})
    return rows


@pytest.mark.parametrize("name", sorted(KERAS["layers"]))
def test_arguments_are_those_of_keras(name):
    # `name` and `dtype` are arguments of every layer.
    aside = LEFT_OUT | {"name", "dtype"}
    want = [a for a in KERAS["layers"][name] if a["name"] not in aside]
    assert arguments(getattr(layers, name)) == want


@pytest.mark.parametrize("kind", ["initializers", "regularizers", "constraints"])
def test_arguments_of_objects_are_those_of_keras(kind):
    module = getattr(recurve, kind)
    for name, want in KERAS[kind].items():
        own = [a for a in want if a["name"] not in ("input_axes", "output_axes")]
        if name in ("IdentityInitializer", "OrthogonalInitializer"):
            continue
        assert arguments(getattr(module, name)) == own, name


def test_every_layer_is_compared():
    own = {n for n, c in vars(layers).items() if isinstance(c, type) and issubclass(c, layers.Layer)}
    assert own - {"Layer", "RecurrentLayer", "Cell", "InputLayer"} == set(KERAS["layers"])


def test_names_are_those_of_keras():
    for name, args, want in KERAS["names"]:
        assert [getattr(layers, name)(*args).name for _ in range(2)] == want
    assert recurve.Sequential().name == "sequential"
    assert recurve.Sequential().name == "sequential_1"
    assert recurve.Input((3,)).name == "input_layer"
    assert recurve.Input((3,)).name == "input_layer_1"
    _build.clear_session()
    assert layers.LSTM(2).name == "lstm"


@pytest.mark.parametrize("n", range(len(KERAS["calls"])), ids=lambda n: KERAS["calls"][n][0])
def test_shapes_and_variables_are_those_of_keras(n):
    name, options, inputs, outputs, weights = KERAS["calls"][n]
    xs = [recurve.Input(s, dtype="int32" if name == "Embedding" else None) for s in inputs]
    layer = getattr(layers, name)(**options)
    y = layer(xs if len(xs) > 1 else xs[0])
    assert shapes_of(y) == outputs
    model = recurve.Model(xs, y, device="cpu")
    assert model.count_params() == sum(int(np.prod(s)) for _, s in weights)
    assert [[w.name, list(w.shape)] for w in layer.weights] == weights
    # The layer made again of its options is the same.
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    # And runs.
    rng = np.random.default_rng(n)
    arrays = {
        x.name: rng.integers(0, 7, [2, *[s or 6 for s in x.shape[1:]]])
        if name == "Embedding"
        else rng.normal(size=[2, *[s or 6 for s in x.shape[1:]]])
        for x in xs
    }
    values = list(model.run(arrays).values())
    for value, shape in zip(values, outputs):
        assert all(s is None or s == d for s, d in zip(shape, value.shape)) and np.isfinite(value).all()


# Models beside Keras


CASES = ["chain", "both_directions", "cells", "no_biases", "convolutions", "graph", "frozen"]


@pytest.mark.parametrize("name", CASES)
def test_models_are_those_of_keras(builds, name):
    index, arrays = builds
    about = index["models"][name]
    assert set(CASES) == set(index["models"])
    model = models.model_from_json(about["json"], device="cpu")
    rows = [{"name": w.name, "shape": list(w.shape), "trainable": w.trainable} for w in model.weights]
    assert rows == about["variables"]
    weights = [arrays[f"{name}.w{n}"] for n in range(len(about["variables"]))]
    model.set_weights(weights)
    for got, want in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(got, want)
    assert [v.name for v in model.inputs] == about["inputs"]
    xs = [arrays[f"{name}.x{n}"] for n in range(len(about["inputs"]))]
    check(model, xs, [arrays[f"{name}.y{n}"] for n in range(about["outputs"])])
    # The layers have the weights of the model, in its order, and their places in Keras's description.
    own = [w for layer in model.layers for w in layer.get_weights()]
    assert len(own) == len(weights) and all((a == b).all() for a, b in zip(own, weights))
    want_layers = [o["config"]["name"] for o in json.loads(about["json"])["config"]["layers"]]
    own_layers = [o["config"]["name"] for o in json.loads(model.to_json())["config"]["layers"]]
    assert own_layers == want_layers
    # A model of its own description is the same.
    again = models.model_from_json(model.to_json(), device="cpu")
    again.set_weights(weights)
    check(again, xs, [arrays[f"{name}.y{n}"] for n in range(about["outputs"])])
    wrong = [np.flip(w) * 0.9 for w in weights]
    again.set_weights(wrong)
    with pytest.raises(AssertionError):
        check(again, xs, [arrays[f"{name}.y{n}"] for n in range(about["outputs"])])


def check(model, xs, ys):
    got = model(*xs)
    for a, b in zip(got if isinstance(got, list) else [got], ys, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_descriptions_open_in_keras(builds):
    keras = pytest.importorskip("keras")
    index, arrays = builds
    for name in CASES:
        about = index["models"][name]
        own = models.model_from_json(about["json"], device="cpu")
        theirs = keras.models.model_from_json(own.to_json())
        weights = [arrays[f"{name}.w{n}"] for n in range(len(about["variables"]))]
        theirs.set_weights(weights)
        xs = [arrays[f"{name}.x{n}"] for n in range(len(about["inputs"]))]
        ys = theirs.predict(xs if len(xs) > 1 else xs[0], verbose=0)
        for n, y in enumerate(ys if isinstance(ys, list) else [ys]):
            np.testing.assert_allclose(y, arrays[f"{name}.y{n}"], rtol=1e-4, atol=1e-5)


# Chains


def test_the_shape_of_the_input_comes_late():
    model = recurve.Sequential([layers.LSTM(4, return_sequences=True), layers.Dense(2)], device="cpu")
    assert not model.built
    with pytest.raises(ValueError, match="is not built: put an Input in front"):
        model.count_params()
    assert model(np.zeros((3, 5, 6), np.float32)).shape == (3, 5, 2)
    # Other numbers of sequences and timesteps, but not of features.
    assert model(np.zeros((1, 9, 6), np.float32)).shape == (1, 9, 2)
    with pytest.raises(ValueError, match="6"):
        model(np.zeros((1, 9, 5), np.float32))
    model = recurve.Sequential([layers.Dense(2)], device="cpu")
    model.build((None, 3))
    assert model.count_params() == 8
    flat = recurve.Sequential([layers.Flatten(), layers.Dense(2)], device="cpu")
    assert flat(np.zeros((3, 5, 6), np.float32)).shape == (3, 2)


@pytest.mark.parametrize(
    "options, shape",
    [
        ({"input_shape": (2, 10)}, (None, 2, 10)),
        ({"batch_input_shape": (8, 2, 10)}, (8, 2, 10)),
        ({"input_shape": (None, 10)}, (None, None, 10)),
        ({"input_dim": 10}, (None, None, 10)),
        ({"input_dim": 10, "input_length": 2}, (None, 2, 10)),
        ({"input_shape": (2, 10), "batch_size": 4}, (4, 2, 10)),
    ],
)
def test_shapes_in_the_words_of_earlier_versions(options, shape):
    model = recurve.Sequential([layers.SimpleRNN(3, **options)], device="cpu")
    assert model.input_shape == shape
    assert model.output_shape == (shape[0], 3)
    assert model.count_params() == 42


def test_layers_are_added_and_taken_away():
    model = recurve.Sequential(device="cpu")
    model.add(recurve.Input((4, 3)))
    model.add(layers.LSTM(5))
    model.add(layers.Dense(2))
    before = model.layers[0].get_weights() or model.get_weights()[:3]
    last = model.pop()
    assert last.name == "dense" and [layer.name for layer in model.layers] == ["lstm"]
    model.add(layers.Dense(7, name="other"))
    assert model.output_shape == (None, 7)
    for a, b in zip(model.layers[0].get_weights() or model.get_weights()[:3], before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="the name `other` belongs to a layer"):
        model.add(layers.Dense(1, name="other"))
    with pytest.raises(TypeError, match="is no layer"):
        model.add("dense")
    with pytest.raises(ValueError, match="gives 3 values"):
        recurve.Sequential([recurve.Input((4, 3)), layers.LSTM(2, return_state=True)])
    with pytest.raises(ValueError, match="has no layers"):
        recurve.Sequential().pop()


def test_a_summary_of_a_chain():
    model = recurve.Sequential([layers.Embedding(10000, 32), layers.SimpleRNN(32)], device="cpu")
    out = io.StringIO()
    with redirect_stdout(out):
        model.summary()
    assert "322,080" in out.getvalue() and "320,000" in out.getvalue()


# Graphs


def test_two_models_of_one_layer_have_one_set_of_weights():
    source, target = recurve.Input((None, 3), name="source"), recurve.Input((None, 2), name="target")
    encoder = layers.LSTM(4, return_state=True)
    _, h, c = encoder(source)
    decoder = layers.LSTM(4, return_sequences=True)
    head = layers.Dense(2)
    whole = recurve.Model([source, target], head(decoder(target, initial_state=[h, c])), device="cpu")
    alone = recurve.Model(source, [h, c], device="cpu")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(2, 4, 2)).astype(np.float32)
    first = whole([x, y])
    states = alone(x)
    for a, b in zip(encoder.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # The decoder by itself goes on from the states of the encoder.
    begin = [recurve.Input((4,), name="h"), recurve.Input((4,), name="c")]
    tail = recurve.Model([target, *begin], head(decoder(target, initial_state=begin)), device="cpu")
    np.testing.assert_allclose(tail([y, *states]), first, rtol=1e-6, atol=1e-6)
    # What one of them is given, all have.
    whole.set_weights([w + 0.25 for w in whole.get_weights()])
    assert not np.allclose(alone(x)[0], states[0])
    np.testing.assert_allclose(tail([y, *alone(x)]), whole([x, y]), rtol=1e-6, atol=1e-6)
    encoder.set_weights([np.zeros_like(w) for w in encoder.get_weights()])
    assert (alone(x)[0] == 0).all()
    np.testing.assert_allclose(tail([y, *alone(x)]), whole([x, y]), rtol=1e-6, atol=1e-6)


def test_a_model_is_a_layer():
    parts = [recurve.Input((3,)), layers.Dense(4), layers.BatchNormalization()]
    inner = recurve.Sequential(parts, device="cpu", name="inner")
    x = recurve.Input((5, 3), name="x")
    y = layers.TimeDistributed(inner, name="each")(x)
    assert y.shape == (None, 5, 4)
    outer = recurve.Model(x, layers.GRU(2)(y), device="cpu")
    assert outer.count_params() == inner.count_params() + 48
    a = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)
    before = inner(a[:, 0])
    outer.set_weights([w * 2 + 0.1 for w in outer.get_weights()])
    assert not np.allclose(inner(a[:, 0]), before)
    assert [w.path for w in outer.weights][:2] == ["each/dense/kernel", "each/dense/bias"]
    assert len(outer.get_layer("each").get_weights()) == 6


def test_layers_run_by_themselves():
    a = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    lstm = layers.LSTM(3, return_sequences=True, return_state=True)
    y, h, c = lstm(a)
    assert y.shape == (2, 4, 3) and h.shape == c.shape == (2, 3)
    np.testing.assert_array_equal(y[:, -1], h)
    assert [w.shape for w in lstm.get_weights()] == [(5, 12), (3, 12), (12,)]
    # The same weights with other numbers, and from other states.
    again = lstm(a[:1, :2], initial_state=[h[:1], c[:1]])
    assert again[0].shape == (1, 2, 3) and not np.allclose(again[0], y[:1, :2])
    np.testing.assert_allclose(lstm(a[:, :2])[0], y[:, :2], rtol=1e-6, atol=1e-6)
    assert layers.Embedding(5, 2)(np.array([[1, 4]])).shape == (1, 2, 2)
    assert layers.Concatenate()([a, a]).shape == (2, 4, 10)
    np.testing.assert_array_equal(layers.Activation("relu")(a), np.maximum(a, 0))


def test_values_are_joined_by_operators_and_functions():
    x, y = recurve.Input((4, 3), name="x"), recurve.Input((4, 3), name="y")
    outputs = [x + y, x - y, x * y, layers.add([x, y]), layers.concatenate([x, y], axis=1)]
    model = recurve.Model([x, y], outputs, device="cpu")
    a, b = np.ones((1, 4, 3), np.float32) * 3, np.ones((1, 4, 3), np.float32)
    assert [float(v.flat[0]) for v in model([a, b])] == [4, 2, 3, 4, 3]
    assert model([a, b])[4].shape == (1, 8, 3)
    with pytest.raises(TypeError, match="only values of layers"):
        x + 1
    with pytest.raises(TypeError, match="stands for an array"):
        np.asarray(x)


def test_cells_and_both_directions():
    x = recurve.Input((4, 3), name="x")
    stack = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_state=True)
    assert shapes_of(stack(x)) == [[None, 2], [None, 3], [None, 3], [None, 2]]
    both = layers.Bidirectional(layers.LSTM(3, return_state=True, return_sequences=True), merge_mode=None)
    assert shapes_of(both(x)) == [[None, 4, 3]] * 2 + [[None, 3]] * 4
    other = layers.Bidirectional(layers.GRU(2), backward_layer=layers.GRU(2, go_backwards=True), merge_mode="sum")
    assert other(x).shape == (None, 2)
    with pytest.raises(TypeError, match="is no recurrent layer"):
        layers.Bidirectional(layers.Dense(3))
    with pytest.raises(TypeError, match="is no cell"):
        layers.RNN(layers.LSTM(3))
    with pytest.raises(ValueError, match="a cell is not called by itself"):
        layers.LSTMCell(3)(x)


# Weights and options


def test_weights_are_given_with_a_layer():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    model = recurve.Sequential([layers.Embedding(4, 3, weights=[table])], device="cpu")
    np.testing.assert_array_equal(model(np.array([[2, 0]])), table[[[2, 0]]])
    np.testing.assert_array_equal(model.get_weights()[0], table)


def test_initializers_reach_the_network():
    options = {
        "kernel_initializer": initializers.Constant(0.5),
        "recurrent_initializer": initializers.Identity(0.5),
        "bias_initializer": "ones",
    }
    model = recurve.Sequential([recurve.Input((4, 2)), layers.SimpleRNN(3, **options)], device="cpu")
    kernel, recurrent, bias = model.get_weights()
    assert (kernel == 0.5).all() and (recurrent == np.eye(3) / 2).all() and (bias == 1).all()
    lstm = recurve.Sequential([recurve.Input((4, 2)), layers.LSTM(3)], device="cpu")
    np.testing.assert_array_equal(lstm.get_weights()[2], [0] * 3 + [1] * 3 + [0] * 6)
    with pytest.raises(ValueError, match="no initializer is called `glorot`"):
        layers.Dense(2, kernel_initializer="glorot")
    with pytest.raises(recurve.Unsupported, match="layer `seeded`.*`seed` of its own"):
        recurve.Sequential(
            [recurve.Input((2,)), layers.Dense(2, name="seeded", kernel_initializer=initializers.HeNormal(seed=3))]
        ).count_params()


def test_the_same_seed_gives_the_same_weights():
    def made(seed):
        _build.set_seed(seed)
        return recurve.Sequential([recurve.Input((4, 2)), layers.GRU(3), layers.Dense(2)], device="cpu").get_weights()

    assert all((a == b).all() for a, b in zip(made(3), made(3)))
    assert not (made(3)[0] == made(4)[0]).all()


def test_layers_that_are_not_trained():
    model = recurve.Sequential(
        [recurve.Input((4, 2)), layers.GRU(3), layers.BatchNormalization(), layers.Dense(2)], device="cpu"
    )
    assert [w.name for w in model.non_trainable_weights] == ["moving_mean", "moving_variance"]
    model.layers[0].trainable = False
    assert len(model.trainable_weights) == 4 and len(model.non_trainable_weights) == 5
    assert len(model.layers[0].trainable_weights) == 0
    model.trainable = False
    assert model.trainable_weights == []


def test_options_are_refused_by_name():
    x = recurve.Input((4, 3))
    with pytest.raises(ValueError, match="layer `lstm`: LSTM has no argument `units_`"):
        layers.LSTM(3, units_=4)
    with pytest.raises(recurve.Unsupported, match="`dtype` = 'float16'"):
        layers.LSTM(3, dtype="float16")
    with pytest.raises(recurve.Unsupported, match="layer `dense`.*`activation` is the function `mine`"):
        layers.Dense(3, activation="mine", name="dense")(x)
    with pytest.raises(ValueError, match="layer `wide`.*`units` must be"):
        layers.LSTM(0, name="wide")(x)
    with pytest.raises(ValueError, match=r"\[batch, timesteps, features\]"):
        layers.LSTM(3)(recurve.Input((3,)))
    with pytest.raises(ValueError, match="no regularizer is called `l3`"):
        layers.Dense(3, kernel_regularizer="l3")
    with pytest.raises(TypeError, match="is no constraint"):
        layers.Dense(3, kernel_constraint=3)
    with pytest.raises(ValueError, match="needs a `shape`"):
        recurve.Input()
    with pytest.raises(ValueError, match="a size is a whole number"):
        recurve.Input((0, 3))
    with pytest.raises(TypeError, match="values of layers and with ndarray at once"):
        layers.Add()([x, np.zeros((1, 4, 3))])
    with pytest.raises(recurve.Unsupported, match="a mask of one's own"):
        layers.LSTM(3)(x, mask=x)
    with pytest.raises(TypeError, match="is no option of a layer"):
        recurve.Model(x, layers.Reshape(object())(x))


def test_graphs_are_checked():
    x, other = recurve.Input((4, 3), name="x"), recurve.Input((4, 3), name="other")
    y = layers.Dense(2)(x)
    with pytest.raises(ValueError, match="need the input `other`"):
        recurve.Model(x, layers.Dense(2)(other))
    with pytest.raises(ValueError, match="the name `dense` belongs to several layers"):
        recurve.Model(x, layers.Dense(2, name="dense")(y))
    with pytest.raises(ValueError, match="a model needs outputs"):
        recurve.Model(x, [])
    with pytest.raises(recurve.Unsupported, match="only those of recurve.Input"):
        recurve.Model(y, layers.Dense(1)(y))
    model = recurve.Model(x, y, device="cpu")
    with pytest.raises(ValueError, match="has 2 weights, but 1 are given"):
        model.set_weights([np.zeros((3, 2))])
    with pytest.raises(ValueError, match=r"`dense/kernel` has the shape \(3, 2\), but \(2, 3\) is given"):
        model.set_weights([np.zeros((2, 3)), np.zeros(2)])
    with pytest.raises(TypeError, match="weights are numbers"):
        model.set_weights([np.full((3, 2), "a"), np.zeros(2)])
    with pytest.raises(ValueError, match="no layer is called 'lstm'; there are `x`, `dense`"):
        model.get_layer("lstm")
    assert model.get_layer("dense").output is y and model.get_layer(index=0).name == "x"
    part = recurve.Model(model.input, model.get_layer("dense").output, device="cpu")
    a = np.ones((1, 4, 3), np.float32)
    np.testing.assert_array_equal(part(a), model(a))


def test_objects_are_described_and_compared():
    assert initializers.get("he_normal") == initializers.HeNormal()
    assert initializers.get({"class_name": "Constant", "config": {"value": 2.0}}).value == 2.0
    assert regularizers.get("l1_l2") == regularizers.L1L2()
    assert repr(regularizers.L2(1e-4)) == "L2(l2=0.0001)"
    assert constraints.get(constraints.MaxNorm) == constraints.MaxNorm(2)
    config = layers.LSTM(3, kernel_regularizer=regularizers.L2(0.5), recurrent_constraint="unit_norm").get_config()
    assert config["kernel_regularizer"]["config"] == {"l2": 0.5}
    assert config["recurrent_constraint"]["class_name"] == "UnitNorm"


def test_stateful_layers_go_on():
    model = recurve.Sequential([layers.GRU(3, stateful=True, batch_input_shape=(2, 4, 3))], device="cpu")
    a = np.random.default_rng(5).normal(size=(2, 4, 3)).astype(np.float32)
    first, second = model(a), model(a)
    assert not np.allclose(first, second)
    model.reset_states()
    np.testing.assert_array_equal(model(a), first)
    with pytest.raises(ValueError):
        model(a[:1])


def test_copies_have_the_weights_and_no_objects_of_layers():
    model = recurve.Sequential([recurve.Input((4, 3)), layers.GRU(3), layers.Dense(2)], device="cpu")
    a = np.random.default_rng(6).normal(size=(2, 4, 3)).astype(np.float32)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.to("cpu")):
        assert isinstance(other, recurve.Sequential)
        np.testing.assert_array_equal(other(a), model(a))
        assert [layer.name for layer in other.layers] == ["gru", "dense"]
        for got, want in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(got, want)
        # Weights are set by layers all the same, and do not reach the model that it is a copy of.
        before = model(a)
        other.layers[1].set_weights([np.zeros((3, 2)), np.ones(2)])
        assert (other(a) == 1).all() and (model(a) == before).all()
        other.get_layer("gru").trainable = False
        assert [w.path for w in other.trainable_weights] == ["dense/kernel", "dense/bias"]
        with pytest.raises(recurve.Unsupported, match="without the objects of its layers"):
            other.add(layers.Dense(1))
        with pytest.raises(recurve.Unsupported, match="without the objects of its layers"):
            other.pop()
        with pytest.raises(recurve.Unsupported, match="without a description of its layers"):
            other.to_json()


def test_what_one_model_learns_the_others_know():
    source, target = recurve.Input((None, 3), name="source"), recurve.Input((None, 2), name="target")
    encoder = layers.LSTM(4, return_state=True)
    _, h, c = encoder(source)
    y = layers.Dense(2)(layers.LSTM(4, return_sequences=True)(target, initial_state=[h, c]))
    whole = recurve.Model([source, target], y, device="cpu")
    alone = recurve.Model(source, [h, c], device="cpu")
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(8, 5, 3)).astype(np.float32), rng.normal(size=(8, 4, 2)).astype(np.float32)
    before = alone(a)
    whole.compile("adam", "mse")
    whole.fit([a, b], b, epochs=2, verbose=0)
    assert not np.allclose(alone(a)[0], before[0])
    for got, want in zip(alone.get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    # Weights that are set go into the training that goes on.
    encoder.set_weights([w * 0 for w in encoder.get_weights()])
    encoder.trainable = False
    whole.compile("adam", "mse")
    whole.fit([a, b], b, epochs=1, verbose=0)
    assert all((w == 0).all() for w in encoder.get_weights()) and (alone(a)[0] == 0).all()


def test_functions_of_ones_own_are_not_taken_for_those_of_their_names() -> None:
    def relu(x: object) -> int:
        return 7

    x = np.array([[-1.0, 2.0]], np.float32)
    for make in (lambda: layers.Dense(3, activation=relu), lambda: layers.Activation(relu), lambda: layers.LSTM(3, relu)):
        with pytest.raises(TypeError, match="is no activation that is known here: give a name"):
            make()
    tanh = recurve.Sequential([recurve.Input((2,)), layers.Activation(np.tanh)], device="cpu")
    np.testing.assert_allclose(tanh(x), np.tanh(x), rtol=0, atol=1e-6)
