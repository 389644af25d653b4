#!/usr/bin/env python3
"""What Keras's `trainable`, regularizers and constraints make of training: fixtures/weight_options.npz.

pip install keras torch numpy
Run from the folder `tests`: python3 golden/make_weight_options.py

`index` lists all cases as JSON: the names of the cases that are trained, each with its losses and its scores by
optimiser, and those of the files that are not. `NAME.before` holds the bytes of a `.keras` file, `NAME.OPTIMIZER` those of
the file after some steps, `NAME.x` and `NAME.y0`, … the data. Keras computes in float64.
"""

import json
import os
import tempfile

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import constraints as C
from keras import layers as L
from keras import optimizers as O
from keras import regularizers as R

keras.config.set_floatx("float64")
keras.utils.set_random_seed(20261127)
rng = np.random.default_rng(1127)
out, index = {}, {"cases": {}, "files": []}
STEPS = 6


def file_bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.keras")
        model.save(path)
        with open(path, "rb") as f:
            return np.frombuffer(f.read(), np.uint8)


def shake(model):
    """Weights that are neither zero nor one, and that float32 holds exactly."""
    for w in model.weights:
        if "seed" in w.path:
            continue
        value = rng.normal(size=w.shape) * 0.5
        if "variance" in w.path:
            value = 0.5 + rng.random(w.shape)
        if "gamma" in w.path:
            value = 1 + value
        w.assign(value.astype("float32"))


OPTIMIZERS = {
    "sgd": lambda **o: O.SGD(0.05, momentum=0.9, **o),
    "adam": lambda **o: O.Adam(0.02, **o),
}


def case(name, model, x, ys, loss="mse", loss_weights=None, **options):
    shake(model)
    out[f"{name}.before"] = file_bytes(model)
    out[f"{name}.x"] = x
    for n, y in enumerate(ys):
        out[f"{name}.y{n}"] = y
    about = {"outputs": len(ys)}
    start = model.get_weights()
    # Keras keeps the mode of a frozen layer in the layer, so the same model can begin again.
    for kind, make in OPTIMIZERS.items():
        model.set_weights(start)
        model.compile(make(**options), loss, loss_weights=loss_weights, metrics=["mae"] if len(ys) == 1 else None)
        y = ys if len(ys) > 1 else ys[0]
        losses = []
        for _ in range(STEPS):
            model.reset_metrics()
            losses.append(float(model.train_on_batch(x, y, return_dict=True)["loss"]))
        scores = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
        about[kind] = {"losses": losses, "scores": {k: float(v) for k, v in scores.items()}}
        if options.get("use_ema"):
            model.optimizer.finalize_variable_values(model.trainable_variables)
        out[f"{name}.{kind}"] = file_bytes(model)
    index["cases"][name] = about
    print(name, about["sgd"]["losses"][0], about["sgd"]["losses"][-1], about["sgd"]["scores"])


def chain(*layers, inputs=(None, 3), dtype=None):
    return keras.Sequential([L.Input(inputs, dtype=dtype), *layers])


def sequences(*dims):
    return rng.normal(size=dims or (8, 5, 3)).astype("float32")


def ids():
    return rng.integers(0, 9, (8, 5)).astype("int32")


def frozen():
    x, y = sequences(), sequences(8, 2)
    case("frozen_lstm", chain(L.LSTM(4, trainable=False), L.Dense(2)), x, [y])
    first = L.Dense(4, activation="tanh", trainable=False, kernel_regularizer=R.L2(0.1), kernel_constraint=C.NonNeg())
    case("frozen_first", chain(L.GRU(4), first, L.Dense(2, kernel_regularizer=R.L2(0.1))), x, [y])
    case("frozen_embedding", chain(L.Embedding(9, 3, trainable=False), L.SimpleRNN(4), L.Dense(2), inputs=(None,), dtype="int32"), ids(), [y])
    norm = L.BatchNormalization(trainable=False)
    case("frozen_normalization", chain(L.Conv1D(4, 2), norm, L.GlobalAveragePooling1D(), L.Dense(2)), x, [y])
    norm = L.TimeDistributed(L.BatchNormalization(), trainable=True)
    norm.trainable = False
    case("frozen_inside", chain(L.Bidirectional(L.GRU(3, return_sequences=True)), norm, L.LayerNormalization(), L.GlobalAveragePooling1D(), L.Dense(2)), x, [y])
    both = L.Bidirectional(L.LSTM(3, return_sequences=True))
    both.trainable = False
    timed = L.TimeDistributed(L.Dense(3, activation="tanh"))
    timed.trainable = False
    case("frozen_both", chain(L.Dense(3), both, timed, L.SimpleRNN(3), L.Dense(2)), x, [y])
    inner = chain(L.Conv1D(3, 2), L.BatchNormalization(), L.PReLU(shared_axes=[1]))
    inner.trainable = False
    case("frozen_model", chain(L.Dense(3), inner, L.GlobalAveragePooling1D(), L.Dense(2)), x, [y])
    cells = [L.LSTMCell(4), L.GRUCell(3)]
    cells[0].trainable = False
    case("frozen_cell", chain(L.RNN(cells), L.Dense(2)), x, [y])


def regularized():
    x, y = sequences(), sequences(8, 2)
    dense = L.Dense(4, activation="tanh", kernel_regularizer=R.L2(0.03), bias_regularizer=R.L1(0.02), activity_regularizer=R.L1L2(0.01, 0.05))
    case("regularized_dense", chain(L.SimpleRNN(3), dense, L.Dense(2, kernel_regularizer="l1")), x, [y])
    lstm = L.LSTM(4, kernel_regularizer=R.L1L2(0.01, 0.02), recurrent_regularizer=R.OrthogonalRegularizer(0.1), bias_regularizer=R.L2(0.1))
    case("regularized_lstm", chain(lstm, L.Dense(2)), x, [y])
    gru = L.GRU(4, kernel_regularizer=R.OrthogonalRegularizer(0.1, "columns"), recurrent_regularizer=R.L2(0.03), bias_regularizer=R.L1(0.04), activity_regularizer=R.L2(0.05), return_sequences=True)
    case("regularized_gru", chain(gru, L.GlobalAveragePooling1D(), L.Dense(2, kernel_regularizer=R.OrthogonalRegularizer(0.2))), x, [y])
    rnn = L.SimpleRNN(3, kernel_regularizer=R.L2(0.03), recurrent_regularizer=R.L1(0.02), bias_regularizer=R.L2(0.1), activity_regularizer=R.L1L2(0.02, 0.03), return_sequences=True)
    case("regularized_both", chain(L.Masking(), L.Bidirectional(rnn, merge_mode="mul"), L.GlobalAveragePooling1D(), L.Dense(2)), padded(x), [y])
    embedding = L.Embedding(9, 3, embeddings_regularizer=R.L2(0.02))
    case("regularized_embedding", chain(embedding, L.SimpleRNN(4), L.Dense(2), inputs=(None,), dtype="int32"), ids(), [y])
    windows = [
        L.Conv1D(4, 2, kernel_regularizer=R.L2(0.03), bias_regularizer=R.L2(0.1), activity_regularizer=R.L2(0.02)),
        L.BatchNormalization(gamma_regularizer=R.L2(0.05), beta_regularizer=R.L1(0.03)),
        L.DepthwiseConv1D(2, depth_multiplier=2, depthwise_regularizer=R.L1(0.02), bias_regularizer=R.L2(0.02), padding="same"),
        L.LayerNormalization(gamma_regularizer=R.L1(0.05), beta_regularizer=R.L2(0.03)),
        L.SeparableConv1D(3, 2, depthwise_regularizer=R.L2(0.02), pointwise_regularizer=R.L1(0.02), bias_regularizer=R.L1(0.02), padding="same"),
        L.PReLU(shared_axes=[1], alpha_regularizer=R.L2(0.1)),
        L.Conv1DTranspose(2, 2, kernel_regularizer=R.L2(0.05)),
    ]
    case("regularized_windows", chain(*windows, L.GlobalAveragePooling1D()), x, [y])
    soft = L.Dense(2, activation="softmax", activity_regularizer=R.L2(0.5))
    case("regularized_activity", chain(L.SimpleRNN(3, return_sequences=True), L.ActivityRegularization(0.03, 0.05), L.LSTM(3), soft), x, [y])
    timed = L.TimeDistributed(L.Dense(3, kernel_regularizer=R.L2(0.1), activity_regularizer=R.L2(0.1)))
    cells = [L.LSTMCell(3, kernel_regularizer=R.L2(0.05)), L.GRUCell(3, bias_regularizer=R.L2(0.2))]
    case("regularized_inside", chain(timed, L.RNN(cells), L.Dense(2)), x, [y])
    given = L.Input((None, 3))
    sequence, h, c = L.LSTM(3, return_sequences=True, return_state=True, activity_regularizer=R.L2(0.1))(given)
    h = L.Dense(2, kernel_regularizer=R.L2(0.1), name="h")(h)
    c = L.Dense(1, name="c")(L.Concatenate()([c, L.GlobalAveragePooling1D()(sequence)]))
    case("regularized_outputs", keras.Model(given, [h, c]), x, [y, y[:, :1]], ["mse", "mae"], [1.0, 0.5])


def constrained():
    x, y = sequences(), sequences(8, 2)
    dense = L.Dense(4, kernel_constraint=C.MaxNorm(0.6), bias_constraint=C.NonNeg())
    case("constrained_dense", chain(L.SimpleRNN(3, kernel_constraint="non_neg"), dense, L.Dense(2, kernel_constraint=C.UnitNorm(axis=1))), x, [y])
    lstm = L.LSTM(4, kernel_constraint=C.UnitNorm(), recurrent_constraint=C.MaxNorm(1.1, axis=1), bias_constraint=C.MaxNorm(1.0))
    case("constrained_lstm", chain(lstm, L.Dense(2)), x, [y])
    gru = L.GRU(4, kernel_constraint=C.MinMaxNorm(0.2, 1.5, 0.5, axis=[0, 1]), recurrent_constraint=C.NonNeg(), bias_constraint=C.MinMaxNorm(0.3, 0.5))
    case("constrained_gru", chain(gru, L.Dense(2, kernel_constraint=C.MaxNorm(0.5, axis=-1))), x, [y])
    gru = L.GRU(3, bias_constraint=C.UnitNorm(axis=1), recurrent_constraint=C.MaxNorm(0.8))
    case("constrained_both", chain(L.Bidirectional(gru), L.Dense(2)), x, [y])
    embedding = L.Embedding(9, 3, embeddings_constraint=C.UnitNorm(axis=1))
    case("constrained_embedding", chain(embedding, L.SimpleRNN(4), L.Dense(2), inputs=(None,), dtype="int32"), ids(), [y])
    windows = [
        L.Conv1D(4, 2, activation="tanh", kernel_constraint=C.MaxNorm(0.7, axis=[0, 1]), bias_constraint=C.NonNeg()),
        L.BatchNormalization(gamma_constraint=C.MaxNorm(1.2), beta_constraint=C.MaxNorm(0.4)),
        L.DepthwiseConv1D(2, depth_multiplier=2, depthwise_constraint=C.UnitNorm(axis=[0, 1]), padding="same"),
        L.LayerNormalization(gamma_constraint=C.MaxNorm(1.0), beta_constraint=C.NonNeg()),
        L.SeparableConv1D(3, 2, depthwise_constraint=C.MaxNorm(0.4, axis=0), pointwise_constraint=C.UnitNorm(axis=1), padding="same"),
        L.PReLU(shared_axes=[1], alpha_constraint=C.NonNeg()),
        L.Conv1DTranspose(2, 2, kernel_constraint=C.MaxNorm(0.5, axis=[0, 2])),
    ]
    case("constrained_windows", chain(*windows, L.GlobalAveragePooling1D()), x, [y])
    timed = L.TimeDistributed(L.Dense(3, kernel_constraint=C.UnitNorm()))
    cells = [L.LSTMCell(3, kernel_constraint=C.NonNeg()), L.GRUCell(3, recurrent_constraint=C.MaxNorm(0.5))]
    case("constrained_inside", chain(timed, L.RNN(cells), L.Dense(2)), x, [y])
    dense = L.Dense(4, kernel_constraint=C.MinMaxNorm(0.2, 0.6, 0.3), kernel_regularizer=R.L2(0.05))
    case("constrained_average", chain(L.SimpleRNN(3), dense, L.Dense(2)), x, [y], use_ema=True, ema_momentum=0.7)
    case("constrained_accumulated", chain(L.SimpleRNN(3), L.Dense(4, kernel_constraint=C.MinMaxNorm(0.2, 0.6, 0.3)), L.Dense(2)), x, [y], gradient_accumulation_steps=2)


def padded(x):
    x = x.copy()
    x[1, 3:] = 0
    x[4, 1:] = 0
    return x


@keras.saving.register_keras_serializable("mine")
class Odd(C.Constraint):
    def __call__(self, w):
        return w


@keras.saving.register_keras_serializable("mine")
class Cubes(R.Regularizer):
    def __call__(self, w):
        return keras.ops.sum(keras.ops.abs(w) ** 3)

    def get_config(self):
        return {}


def unknown():
    for name, options in {
        "unknown_constraint": {"kernel_constraint": Odd()},
        "unknown_regularizer": {"bias_regularizer": Cubes()},
        "unknown_activity_regularizer": {"activity_regularizer": Cubes()},
    }.items():
        model = chain(L.SimpleRNN(3), L.Dense(2, **options))
        shake(model)
        out[f"{name}.before"] = file_bytes(model)
        index["files"].append(name)


frozen()
regularized()
constrained()
unknown()
out["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
target = "fixtures/weight_options.npz"
np.savez_compressed(target, **out)
print(len(index["cases"]), "cases,", os.path.getsize(target), "bytes")
