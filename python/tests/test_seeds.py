"""Snippets for Keras that run with only the import lines changed: what the chapters on recurrent networks teach.

Each is written in Keras's words. The tests put ``recurve`` in the place of ``keras`` in its import lines and run it,
and where Keras is installed they run some there as they are written, for their shapes.
"""

from __future__ import annotations

import contextlib
import io
import re

import numpy as np
import pytest

import recurve

IMPORT = re.compile(r"^(\s*(?:from|import)\s+)(?:tensorflow\.)?keras\b", re.MULTILINE)


def run(snippet: str, package: str = "recurve", **names):
    """Runs a snippet and returns its names and what it printed."""
    code = IMPORT.sub(rf"\1{package}", snippet)
    space = {"np": np, **names}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "<snippet>", "exec"), space)  # noqa: S102 - the snippets are those below
    return space, out.getvalue()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_only_import_lines_are_changed():
    assert IMPORT.sub(r"\1recurve", "from keras.layers import LSTM\nx = 'keras'\n") == (
        "from recurve.layers import LSTM\nx = 'keras'\n"
    )
    assert IMPORT.sub(r"\1recurve", "from tensorflow.keras import layers") == "from recurve import layers"


# Rows 1 and 2: the plain recurrence as a loop, and the layer with the same weights.

LOOP = """
from keras.layers import SimpleRNN
import numpy as np

timesteps, input_features, output_features = 100, 32, 64
inputs = np.random.random((timesteps, input_features)).astype("float32")
layer = SimpleRNN(output_features, return_sequences=True)
successive = np.array(layer(inputs[None]))[0]
W, U, b = [np.array(w) for w in layer.get_weights()]

state_t = np.zeros((output_features,))
outputs = []
for input_t in inputs:
    output_t = np.tanh(np.dot(input_t, W) + np.dot(state_t, U) + b)
    outputs.append(output_t)
    state_t = output_t
final = np.stack(outputs, axis=0)

last = SimpleRNN(output_features)
last(inputs[None])
last.set_weights([W, U, b])
only_last = np.array(last(inputs[None]))
"""


def test_the_loop_is_the_layer():
    space, _ = run(LOOP)
    assert space["final"].shape == (100, 64)
    np.testing.assert_allclose(space["successive"], space["final"], atol=2e-5)
    np.testing.assert_allclose(space["only_last"][0], space["final"][-1], atol=2e-5)


# Rows 3 and 4: "hello" as one-hot vectors, one node.

HELLO = """
from keras.layers import LSTM, SimpleRNN
import numpy as np

h, e, l, o = np.eye(4, dtype="float32")
one = np.array([[h, e, l, l, o]])
batch = np.array([[h, e, l, l, o], [e, o, l, l, l], [l, l, e, e, l]])
outputs = {}
for cell in (SimpleRNN, LSTM):
    rnn = cell(2, return_sequences=True)
    outputs[cell.__name__] = [np.array(rnn(x)) for x in (one, batch)]
node = np.array(LSTM(2, return_sequences=True)(np.array([[h]])))
"""


def test_hello():
    space, _ = run(HELLO)
    for single, batch in space["outputs"].values():
        assert single.shape == (1, 5, 2) and batch.shape == (3, 5, 2)
        np.testing.assert_allclose(batch[0], single[0], atol=1e-6)
        assert np.abs(batch).max() < 1
    assert space["node"].shape == (1, 1, 2)


# Row 5: shapes and parameters of SimpleRNN(3).

SHAPES = """
from keras.models import Sequential
from keras.layers import SimpleRNN

model = Sequential()
model.add(SimpleRNN(3, {shape}{more}))
model.summary()
"""


@pytest.mark.parametrize("more, want", [("", (8, 3)), (", return_sequences=True", (8, 2, 3))])
@pytest.mark.parametrize(
    "shape", ["input_shape=(2, 10)", "input_dim=10, input_length=2", "batch_input_shape=(8, 2, 10)"]
)
def test_shapes_of_a_simple_rnn(shape, more, want):
    space, text = run(SHAPES.format(shape=shape, more=more))
    model = space["model"]
    fixed = shape.startswith("batch")
    assert model.output_shape == (8 if fixed else None, *want[1:])
    assert model.count_params() == 42 and "42" in text
    assert model(np.zeros((8, 2, 10), np.float32)).shape == want


# Rows 6 and 7: an embedding and one recurrent layer, or four.

EMBEDDING = """
from keras.models import Sequential
from keras.layers import Embedding, SimpleRNN

model = Sequential()
model.add(Embedding(10000, 32))
model.add(SimpleRNN(32{more}))
model.summary()
"""
STACKED = """
from keras.models import Sequential
from keras.layers import Embedding, SimpleRNN

model = Sequential()
model.add(Embedding(10000, 32))
model.add(SimpleRNN(32, return_sequences=True))
model.add(SimpleRNN(32, return_sequences=True))
model.add(SimpleRNN(32, return_sequences=True))
model.add(SimpleRNN(32))  # This last layer only returns the last outputs.
model.summary()
"""


def test_an_embedding_and_recurrent_layers():
    for more, shape in [("", "(None, 32)"), (", return_sequences=True", "(None, None, 32)")]:
        space, text = run(EMBEDDING.format(more=more))
        assert space["model"].count_params() == 322_080
        for part in ("320,000", "2,080", "322,080", shape):
            assert part in text, text
    space, text = run(STACKED)
    assert space["model"].count_params() == 328_320 and "328,320" in text
    assert space["model"](np.array([[1, 2, 9999]])).shape == (1, 32)


# Row 9: what return_sequences and return_state give.

RETURNS = """
from keras.models import Model
from keras.layers import Input, SimpleRNN
import numpy as np

x = np.array([[[0.1, 4.2, 1.5, 1.1, 2.8], [1.0, 3.1, 2.5, 0.7, 1.1],
               [0.3, 2.1, 1.5, 2.1, 0.1], [2.2, 1.4, 0.5, 0.9, 1.1]]])
inputs = Input(shape=(4, 5))
rnn = {}
outputs = {}
for sequences in (False, True):
    for state in (False, True):
        layer = SimpleRNN(3, return_sequences=sequences, return_state=state)
        model = Model(inputs, layer(inputs))
        rnn[sequences, state] = model
        if (False, False) in outputs:
            model.set_weights(rnn[False, False].get_weights())
        outputs[sequences, state] = model.predict(x) if hasattr(model, "predict") else model(x)
"""


def test_what_a_recurrent_layer_returns():
    space, _ = run(RETURNS)
    out = space["outputs"]
    assert out[False, False].shape == (1, 3) and out[True, False].shape == (1, 4, 3)
    y, state = out[True, True]
    np.testing.assert_array_equal(y[:, -1], state)
    twice = out[False, True]
    np.testing.assert_array_equal(twice[0], twice[1])
    np.testing.assert_allclose(out[True, False], y, atol=1e-6)
    np.testing.assert_allclose(out[False, False], state, atol=1e-6)


# Row 10: two dimensions where three are needed.


def test_two_dimensions_are_too_few():
    with pytest.raises(ValueError, match=r"\[batch, timesteps, features\]"):
        run("from keras.layers import SimpleRNN\nSimpleRNN(3)(np.zeros((4, 5), 'float32'))")
    space, _ = run(SHAPES.format(shape="input_shape=(2, 10)", more=""))
    with pytest.raises(ValueError, match="timesteps"):
        space["model"](np.zeros((8, 10), np.float32))


# Row 14: both directions, once and four times.

BIDIRECTIONAL = """
from keras.models import Sequential
from keras.layers import Bidirectional, Dense, Embedding, LSTM

one = Sequential([Embedding(100, 8), Bidirectional(LSTM(16)), Dense(1, activation="sigmoid")])
four = Sequential()
four.add(Embedding(100, 8))
for n in range(4):
    four.add(Bidirectional(LSTM(16, return_sequences=True)))
"""


def test_both_directions():
    space, _ = run(BIDIRECTIONAL)
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    assert space["one"](ids).shape == (2, 1)
    assert space["one"].layers[1].output_shape == (None, 32)
    assert space["four"](ids).shape == (2, 5, 32)


# Rows 15 to 17: the equations of LSTM and GRU.


def test_the_equations_of_an_lstm():
    space, _ = run("from keras.layers import LSTM\nlayer = LSTM(6, return_sequences=True, return_state=True)")
    x = np.random.default_rng(15).normal(size=(1, 7, 4)).astype(np.float32)
    y, h, c = space["layer"](x)
    kernel, recurrent, bias = (w.astype(np.float64) for w in space["layer"].get_weights())
    state, cell, rows = np.zeros(6), np.zeros(6), []
    for t in range(7):
        i, f, g, o = np.split(x[0, t] @ kernel + state @ recurrent + bias, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(cell)
        rows.append(state)
    np.testing.assert_allclose(y[0], rows, atol=2e-6)
    np.testing.assert_allclose(h[0], state, atol=2e-6)
    np.testing.assert_allclose(c[0], cell, atol=2e-6)


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_equations_of_a_gru(reset_after, activation):
    code = "from keras.layers import GRU\nlayer = GRU(6, activation=f, return_sequences=True, reset_after=after)"
    space, _ = run(code, f=activation, after=reset_after)
    x = np.random.default_rng(16).normal(size=(1, 7, 4)).astype(np.float32)
    y = space["layer"](x)
    rng = np.random.default_rng(17)
    weights = [rng.normal(size=w.shape).astype(np.float32) * 0.5 for w in space["layer"].get_weights()]
    space["layer"].set_weights(weights)
    y = space["layer"](x)
    kernel, recurrent, bias = (w.astype(np.float64) for w in weights)
    function = np.tanh if activation == "tanh" else lambda v: np.maximum(v, 0)
    inner, outer = (bias, np.zeros(18)) if not reset_after else bias
    h, rows = np.zeros(6), []
    for t in range(7):
        xz, xr, xg = np.split(x[0, t] @ kernel + inner, 3)
        uz, ur, ug = np.split(recurrent, 3, axis=1)
        bz, br, bg = np.split(outer, 3)
        z, r = sigmoid(xz + h @ uz + bz), sigmoid(xr + h @ ur + br)
        g = function(xg + (r * (h @ ug + bg) if reset_after else (r * h) @ ug))
        h = (1 - z) * g + z * h
        rows.append(h)
    np.testing.assert_allclose(y[0], rows, atol=3e-6)


# Row 18: states that go on from batch to batch.

STATEFUL = """
from keras.models import Sequential
from keras.layers import LSTM

model = Sequential()
model.add(LSTM(4, batch_input_shape=(2, 3, 5), stateful=True))
"""


def test_states_go_on():
    space, _ = run(STATEFUL)
    model = space["model"]
    x = np.random.default_rng(18).normal(size=(2, 6, 5)).astype(np.float32)
    first, second = model(x[:, :3]), model(x[:, 3:])
    model.reset_states()
    np.testing.assert_array_equal(model(x[:, :3]), first)
    whole = recurve.Sequential([recurve.Input((6, 5)), recurve.layers.LSTM(4)], device="cpu")
    whole.set_weights(model.get_weights())
    np.testing.assert_allclose(whole(x), second, atol=1e-6)


# Row 19: one to many, many to one, many to many.

FORMS = """
from keras.models import Model, Sequential
from keras.layers import Dense, Embedding, Input, LSTM, RepeatVector, TimeDistributed

caption = Sequential([RepeatVector(5, input_shape=(12,)), LSTM(8, return_sequences=True),
                      TimeDistributed(Dense(20, activation="softmax"))])
sentiment = Sequential([Embedding(50, 8, input_length=6), LSTM(8), Dense(1, activation="sigmoid")])
tagger = Sequential([Embedding(50, 8, mask_zero=True), LSTM(8, return_sequences=True), Dense(4, activation="softmax")])

latent_dim, encoder_tokens, decoder_tokens = 16, 9, 7
encoder_inputs = Input(shape=(None, encoder_tokens))
encoder = LSTM(latent_dim, return_state=True)
encoder_outputs, state_h, state_c = encoder(encoder_inputs)
encoder_states = [state_h, state_c]

decoder_inputs = Input(shape=(None, decoder_tokens))
decoder_lstm = LSTM(latent_dim, return_sequences=True, return_state=True)
decoder_outputs, _, _ = decoder_lstm(decoder_inputs, initial_state=encoder_states)
decoder_dense = Dense(decoder_tokens, activation="softmax")
decoder_outputs = decoder_dense(decoder_outputs)
model = Model([encoder_inputs, decoder_inputs], decoder_outputs)

encoder_model = Model(encoder_inputs, encoder_states)
decoder_state_input_h = Input(shape=(latent_dim,))
decoder_state_input_c = Input(shape=(latent_dim,))
decoder_states_inputs = [decoder_state_input_h, decoder_state_input_c]
decoder_outputs, state_h, state_c = decoder_lstm(decoder_inputs, initial_state=decoder_states_inputs)
decoder_states = [state_h, state_c]
decoder_outputs = decoder_dense(decoder_outputs)
decoder_model = Model([decoder_inputs] + decoder_states_inputs, [decoder_outputs] + decoder_states)
"""


def test_forms_of_input_and_output():
    space, _ = run(FORMS)
    rng = np.random.default_rng(19)
    assert space["caption"](rng.normal(size=(2, 12))).shape == (2, 5, 20)
    assert space["sentiment"](rng.integers(0, 50, (3, 6))).shape == (3, 1)
    assert space["tagger"](np.array([[4, 2, 0, 0]])).shape == (1, 4, 4)
    source, target = rng.normal(size=(2, 6, 9)), rng.normal(size=(2, 4, 7))
    whole = space["model"]([source, target])
    # The same one timestep after the other, from the states of the encoder.
    states, rows = space["encoder_model"](source), []
    for t in range(4):
        y, *states = space["decoder_model"]([target[:, t : t + 1], *states])
        rows.append(y[:, 0])
    np.testing.assert_allclose(np.stack(rows, axis=1), whole, atol=1e-6)


# All snippets in Keras itself.

SNIPPETS = {
    "loop": (LOOP, {"successive": (100, 64), "only_last": (1, 64)}),
    "hello": (HELLO, {"node": (1, 1, 2)}),
    "embedding": (EMBEDDING.format(more=""), {}),
    "stacked": (STACKED, {}),
    "bidirectional": (BIDIRECTIONAL, {}),
}


@pytest.mark.parametrize("name", sorted(SNIPPETS))
def test_snippets_are_those_of_keras(name):
    keras = pytest.importorskip("keras")
    snippet, shapes = SNIPPETS[name]
    without = contextlib.nullcontext()
    if keras.backend.backend() == "torch":
        # Its tensors are arrays only where they have no gradients.
        without = pytest.importorskip("torch").no_grad()
    with without:
        theirs, _ = run(snippet, "keras")
    ours, _ = run(snippet)
    for value, shape in shapes.items():
        assert np.shape(theirs[value]) == np.shape(ours[value]) == shape
