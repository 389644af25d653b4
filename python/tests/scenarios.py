"""Trainings that are the same code for Keras and for Recurve: `k` is the module `keras` or `recurve`.

Each gives numbers. `tests/golden/make_python_fit.py` stores what Keras gives; `test_fit.py` compares.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np


def floats(values: Any) -> list[float]:
    return [float(v) for v in np.asarray(values, dtype="float64").ravel()]


def columns(history: Any) -> dict[str, list[float]]:
    return {name: floats(values) for name, values in history.history.items()}


def weighted(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    model = load("weights")
    model.compile(
        k.optimizers.Adam(0.02, gradient_accumulation_steps=2),
        k.losses.MeanSquaredError(),
        metrics=["mse", k.metrics.RootMeanSquaredError()],
        weighted_metrics=["mae", k.metrics.MeanSquaredError(name="squared")],
    )
    x, y, w = data["weights"]
    history = model.fit(x, y, epochs=3, batch_size=4, shuffle=False, sample_weight=w, verbose=0)
    scores = model.evaluate(x, y, batch_size=5, sample_weight=w, verbose=0)
    return {**columns(history), "scores": floats(scores), "y": floats(model.predict(x, batch_size=3, verbose=0))}


def limits(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    x, y, _ = data["binary"]
    decay = k.optimizers.schedules.ExponentialDecay(0.5, decay_steps=3, decay_rate=0.5, staircase=True)
    cosine = k.optimizers.schedules.CosineDecay(0.0, 8, warmup_target=0.05, warmup_steps=4)
    for name, optimizer in [
        ("norm", k.optimizers.SGD(decay, momentum=0.5, nesterov=True, clipnorm=0.05)),
        ("value", k.optimizers.RMSprop(cosine, clipvalue=0.01)),
        ("global", k.optimizers.AdamW(0.05, weight_decay=0.1, global_clipnorm=0.1)),
        ("lion", k.optimizers.Lion(0.01)),
        ("adagrad", k.optimizers.Adagrad(0.1, initial_accumulator_value=0.5)),
    ]:
        model = load("binary")
        model.compile(optimizer, k.losses.BinaryCrossentropy(label_smoothing=0.1), metrics=["acc"])
        history = model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0)
        out |= {f"{name}_{key}": values for key, values in columns(history).items()}
        out[f"{name}_steps"] = [float(optimizer.iterations)]
    return out


def scores(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    model = load("binary")
    m = k.metrics
    model.compile(
        "adam",
        "bce",
        metrics=["accuracy", m.AUC(name="auc"), m.Precision(name="p"), m.Recall(name="r"), "binary_accuracy"],
    )
    x, y, _ = data["binary"]
    out = columns(model.fit(x, y, epochs=2, batch_size=5, shuffle=False, verbose=0, validation_data=(x[:6], y[:6])))
    model = load("classes")
    top = m.SparseTopKCategoricalAccuracy(2, name="top")
    model.compile(k.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["acc", top])
    x, y, _ = data["classes"]
    history = model.fit(
        x, y, epochs=2, batch_size=5, shuffle=False, verbose=0, validation_split=0.4, class_weight={0: 2.0, 2: 0.5}
    )
    out |= {f"classes_{key}": values for key, values in columns(history).items()}
    one_hot = k.utils.to_categorical(y, 3)
    model.compile(k.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x, one_hot, epochs=2, batch_size=5, shuffle=False, verbose=0, validation_freq=2, validation_data=(x, one_hot)
    )
    out |= {f"one_hot_{key}": values for key, values in columns(history).items()}
    return out


def outputs(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    x, (a, b), _ = data["outputs"]
    out: dict[str, Any] = {}
    for name, kwargs, y in [
        (
            "named",
            {"loss": {"a": "binary_crossentropy", "b": "mse"}, "loss_weights": {"a": 1.0, "b": 0.25}},
            {"a": a, "b": b},
        ),
        ("listed", {"loss": ["binary_crossentropy", k.losses.Huber(0.5)], "loss_weights": [0.5, 2.0]}, [a, b]),
    ]:
        model = load("outputs")
        model.compile("adam", metrics={"a": ["accuracy"], "b": ["mae", "mse"]}, **kwargs)
        history = model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
        out |= {f"{name}_{key}": values for key, values in columns(history).items()}
        scores = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
        out |= {f"{name}_score_{key}": [float(v)] for key, v in scores.items()}
        predicted = model.predict(x, batch_size=4, verbose=0)
        out |= {f"{name}_y": floats(np.concatenate([p.ravel() for p in predicted]))}
    return out


def told(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    """Callbacks in a training that overfits, and everything that they leave."""
    x, y, _ = data["binary"]
    model = load("binary")
    model.compile(k.optimizers.Adam(0.2), "binary_crossentropy", metrics=["accuracy"])
    events: list[str] = []

    class Told(k.callbacks.Callback):  # type: ignore[name-defined,misc]
        def on_train_begin(self, logs: Any = None) -> None:
            events.append("train")

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            events.append(f"epoch {epoch}")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            events.append(f"batch {batch} {logs['loss']:.4f}")

        def on_test_begin(self, logs: Any = None) -> None:
            events.append("test")

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            events.append(f"test {batch} {sorted(logs)}")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["own"] = epoch * 2.0
            events.append(f"end {epoch} {sorted(logs)}")

        def on_train_end(self, logs: Any = None) -> None:
            events.append(f"done {sorted(logs)}")

    with tempfile.TemporaryDirectory() as folder:
        table = os.path.join(folder, "table.csv")
        stopping = k.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
        told = [
            k.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, min_lr=0.01),
            Told(),
            stopping,
            k.callbacks.CSVLogger(table),
        ]
        history = model.fit(
            x[:9],
            y[:9],
            epochs=40,
            batch_size=4,
            shuffle=False,
            verbose=0,
            validation_data=(x[9:], y[9:]),
            callbacks=told,
        )
        with open(table, newline="") as f:
            rows = list(csv.reader(f))
    out = columns(history)
    out["table"] = [float(v) for row in rows[1:] for v in row]
    out["columns"] = rows[0]
    out["events"] = events
    out["stopping"] = [float(stopping.stopped_epoch), float(stopping.best_epoch), float(stopping.best)]
    out["y"] = floats(model.predict(x, verbose=0))
    out["epoch"] = floats(history.epoch)
    return out


def rates(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    """Learning rates that are set, and a second `fit` that goes on."""
    x, y, _ = data["classes"]
    model = load("classes")
    model.compile(k.optimizers.SGD(0.1, momentum=0.9), k.losses.SparseCategoricalCrossentropy())
    scheduler = k.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch else rate)
    out = columns(model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0, callbacks=[scheduler]))
    model.optimizer.learning_rate = 0.3
    losses: list[float] = []
    grow = k.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    history = model.fit(x, y, initial_epoch=3, epochs=5, batch_size=4, shuffle=False, verbose=0, callbacks=[grow])
    out |= {"second": columns(history)["loss"], "losses": floats(losses), "epoch": floats(history.epoch)}
    out["rate"] = [float(np.asarray(model.optimizer.learning_rate))]
    return out


def batches(k: Any, load: Callable[[str], Any], data: dict[str, Any]) -> dict[str, Any]:
    """Single batches, generators and sequences of batches."""
    x, y, _ = data["binary"]
    model = load("binary")
    model.compile(k.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    out: dict[str, Any] = {}
    for n in range(3):
        out[f"batch_{n}"] = floats(model.train_on_batch(x[n * 4 : n * 4 + 4], y[n * 4 : n * 4 + 4]))
    model.reset_metrics()
    logs = model.test_on_batch(x[:5], y[:5], return_dict=True)
    out |= {f"test_{name}": [float(v)] for name, v in logs.items()}
    out["y"] = floats(model.predict_on_batch(x[:3]))

    def generator() -> Any:
        while True:
            for n in range(0, 12, 4):
                yield x[n : n + 4], y[n : n + 4], np.full(len(x[n : n + 4]), 0.5, "float32")

    class Batches(k.utils.PyDataset):  # type: ignore[name-defined,misc]
        def __len__(self) -> int:
            return 3

        def __getitem__(self, n: int) -> Any:
            return x[n * 4 : n * 4 + 4], y[n * 4 : n * 4 + 4]

    history = model.fit(generator(), steps_per_epoch=4, epochs=2, verbose=0, validation_data=Batches())
    out |= {f"generator_{key}": values for key, values in columns(history).items()}
    history = model.fit(Batches(), epochs=2, shuffle=False, verbose=0, validation_data=(x, y), validation_batch_size=14)
    out |= {f"sequence_{key}": values for key, values in columns(history).items()}
    out["scores"] = floats(model.evaluate(Batches(), verbose=0))
    return out


ALL = [weighted, limits, scores, outputs, told, rates, batches]
