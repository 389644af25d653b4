"""What Keras's `fit`, `evaluate` and `pad_sequences` give, without anything that is drawn at random in training.

    KERAS_BACKEND=torch python3 tests/golden/make_fit.py tests/fixtures/fit

Each case is a `.keras` file before training and an entry in `cases.json` with the data and the numbers of each epoch.
"""

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers


def rounded(a):
    return [round(float(v), 7) for v in np.asarray(a).ravel()]


def write(folder, name, model, x, ys, **options):
    """Trains and stores what is needed to do the same."""
    model.save(os.path.join(folder, f"{name}.keras"))
    y = dict(zip(model.output_names, ys)) if len(ys) > 1 else ys[0]
    history = model.fit(x, y, shuffle=False, verbose=0, **options).history
    scores = model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)
    case = {
        "name": name,
        "x": {"shape": x.shape, "data": rounded(x), "ids": x.dtype.kind == "i"},
        "y": [{"shape": v.shape, "data": rounded(v), "ids": v.dtype.kind == "i"} for v in ys],
        "options": {k: v for k, v in options.items() if k in ("epochs", "batch_size", "validation_split", "validation_freq")},
        "history": {k: [float(v) for v in values] for k, values in history.items()},
        "scores": {k: float(v) for k, v in scores.items()},
        "predictions": rounded(model.predict(x, verbose=0, batch_size=4)) if len(ys) == 1 else [],
    }
    weights = options.get("sample_weight")
    if weights is not None:
        case["sample_weight"] = {"shape": weights.shape, "data": rounded(weights), "ids": False}
    print(name, case["history"])
    return case


def cases(folder, r):
    x = r.standard_normal((14, 5, 3)).astype("float32")
    model = keras.Sequential([layers.Input((None, 3)), layers.LSTM(5), layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    y = r.integers(0, 2, (14, 1)).astype("float32")
    yield write(folder, "binary", model, x, [y], epochs=4, batch_size=4, validation_split=0.3)

    ids = r.integers(1, 9, (12, 6)).astype("int32")
    ids[3, 2:] = 0
    ids[7, 4:] = 0
    stack = [layers.Input((None,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True), layers.GRU(5, return_sequences=True), layers.Dense(4, activation="softmax")]
    model = keras.Sequential(stack)
    model.compile(keras.optimizers.RMSprop(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = r.integers(0, 4, (12, 6)).astype("int32")
    yield write(folder, "masked", model, ids, [labels], epochs=3, batch_size=5, validation_split=0.25, validation_freq=2)

    model = keras.Sequential([layers.Input((None, 3)), layers.SimpleRNN(4), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = r.integers(0, 3, (14, 1)).astype("int32")
    yield write(folder, "classes", model, x, [labels], epochs=3, batch_size=4, class_weight={0: 0.5, 1: 2.0, 2: 1.25})

    model = keras.Sequential([layers.Input((None, 3)), layers.GRU(4), layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    y = r.standard_normal((14, 2)).astype("float32")
    weights = r.uniform(0.1, 2.0, 14).astype("float32")
    yield write(folder, "weights", model, x, [y], epochs=3, batch_size=4, sample_weight=weights)

    inputs = keras.Input((None, 3))
    h = layers.LSTM(4)(inputs)
    a, b = layers.Dense(1, activation="sigmoid", name="a")(h), layers.Dense(2, name="b")(h)
    model = keras.Model(inputs, [a, b])
    model.compile(keras.optimizers.Adam(0.02), {"a": "binary_crossentropy", "b": "mse"}, loss_weights={"a": 1.0, "b": 0.25})
    ya = r.integers(0, 2, (14, 1)).astype("float32")
    yield write(folder, "outputs", model, x, [ya, y], epochs=3, batch_size=4, validation_split=0.3)


def paddings():
    sequences = [[3, 1, 4, 1, 5], [9], [], [2, 6, 5]]
    for length in (None, 3, 7):
        for padding in ("pre", "post"):
            for truncating in ("pre", "post"):
                a = keras.utils.pad_sequences(sequences, maxlen=length, padding=padding, truncating=truncating, value=8)
                yield {"sequences": sequences, "length": length, "padding": padding, "truncating": truncating, "value": 8, "shape": a.shape, "data": a.ravel().tolist()}


def main(folder):
    os.makedirs(folder, exist_ok=True)
    keras.utils.set_random_seed(9)
    r = np.random.default_rng(9)
    out = {"cases": list(cases(folder, r)), "paddings": list(paddings())}
    with open(os.path.join(folder, "cases.json"), "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


main(sys.argv[1])
