"""What Keras's callbacks do with given numbers: when they stop, which weights they leave, learning rates, files.

    KERAS_BACKEND=torch python3 tests/golden/make_callbacks.py tests/fixtures/callbacks.json

The callbacks are told of epochs as `fit` tells them. The one weight of the model is the number of the epoch, so that it
tells which weights came back. All numbers are multiples of 1/64, which are exact in every type.
"""

import json
import os
import sys
import tempfile

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np


def model():
    m = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    m.compile("sgd", "mse", metrics=["accuracy"])
    m.fit(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
    m.optimizer.learning_rate = 1.0
    return m


M = model()


def drive(callback, epochs):
    """Tells a callback of epochs, and returns how many there were and the weight and learning rate after each."""
    M.stop_training = False
    M.optimizer.learning_rate = 1.0
    callback.set_model(M)
    callback.on_train_begin({})
    rates = []
    count = 0
    for epoch, logs in enumerate(epochs):
        callback.on_epoch_begin(epoch, {})
        M.set_weights([np.array([[float(epoch)]])])
        callback.on_epoch_end(epoch, dict(logs))
        rates.append(float(M.optimizer.learning_rate))
        count += 1
        if M.stop_training:
            break
    callback.on_train_end({})
    return count, float(M.get_weights()[0][0, 0]), rates


def values(r, n):
    """A curve that falls, with noise and equal neighbours."""
    v = np.round(64 * (1.5 * np.exp(-np.arange(n) / 4) + 0.2 * r.standard_normal(n) + 0.5)) / 64
    for i in range(1, n):
        if r.random() < 0.2:
            v[i] = v[i - 1]
    return [float(x) for x in v]


def early(r, n):
    option = lambda *all: all[r.integers(len(all))]
    for _ in range(n):
        monitor = option("val_loss", "val_loss", "loss", "val_accuracy")
        options = {
            "monitor": monitor,
            "min_delta": float(option(0.0, 0.0, 1 / 32, -1 / 16)),
            "patience": int(option(0, 1, 2, 4)),
            "mode": str(option("auto", "auto", "min", "max")),
            "baseline": option(None, None, 0.5, 1.0),
            "restore_best_weights": bool(option(True, True, False)),
            "start_from_epoch": int(option(0, 0, 1, 3)),
        }
        series = values(r, 14)
        if monitor == "val_accuracy":
            series = [2 - v for v in series]
        # A validation that does not run in every epoch.
        missing = [bool(monitor != "loss" and r.random() < 0.1) for _ in series]
        epochs = [{} if m else {monitor: v} for m, v in zip(missing, series)]
        callback = keras.callbacks.EarlyStopping(**options)
        count, weight, _ = drive(callback, epochs)
        yield {"options": options, "epochs": epochs, "count": count, "weight": weight}


def plateau(r, n):
    option = lambda *all: all[r.integers(len(all))]
    for _ in range(n):
        monitor = option("val_loss", "loss", "val_accuracy")
        options = {
            "monitor": monitor,
            "factor": float(option(0.5, 0.25)),
            "patience": int(option(0, 1, 2, 3)),
            "mode": str(option("auto", "auto", "min", "max")),
            "min_delta": float(option(0.0, 1 / 64, 1 / 8)),
            "cooldown": int(option(0, 0, 1, 3)),
            "min_lr": float(option(0.0, 0.0, 0.125)),
        }
        series = values(r, 20)
        if monitor == "val_accuracy":
            series = [2 - v for v in series]
        epochs = [{monitor: v} for v in series]
        _, _, rates = drive(keras.callbacks.ReduceLROnPlateau(**options), epochs)
        yield {"options": options, "epochs": epochs, "rates": rates}


def checkpoints(r):
    for path, options in [
        ("{epoch:02d}-{val_loss:.2f}", {}),
        ("{epoch}-{loss:.3e}", {"save_best_only": True}),
        ("best-{epoch:03d}", {"save_best_only": True, "monitor": "val_accuracy"}),
        ("best-{epoch}", {"save_best_only": True, "monitor": "loss", "mode": "max"}),
        ("{epoch}", {"save_best_only": True, "initial_value_threshold": 0.75}),
    ]:
        loss, val_loss, val_accuracy = values(r, 10), values(r, 10), [2 - v for v in values(r, 10)]
        rows = zip(loss, val_loss, val_accuracy)
        epochs = [{"loss": a, "val_loss": b, "val_accuracy": c} for a, b, c in rows]
        saved = []
        M.save = lambda path, **_: saved.append(path)
        drive(keras.callbacks.ModelCheckpoint(path + ".keras", **options), epochs)
        del M.save
        yield {"path": path, "options": options, "epochs": epochs, "saved": [s.removesuffix(".keras") for s in saved]}


def tables(r):
    full = [{"loss": a, "accuracy": b, "val_loss": c, "val_accuracy": 1.0} for a, b, c in zip(*(values(r, 4) for _ in range(3)))]
    for epochs, options, twice in [
        (full, {}, False),
        (full, {"separator": ";"}, True),
        ([{"loss": e["loss"], "accuracy": e["accuracy"]} for e in full], {}, False),
        (full[:1] + [{"loss": e["loss"], "accuracy": e["accuracy"]} for e in full[1:]], {"append": True}, True),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "log.csv")
            for _ in range(1 + twice):
                drive(keras.callbacks.CSVLogger(name, **options), epochs)
            yield {"options": options, "epochs": epochs, "twice": twice, "text": open(name, newline="").read()}


def schedules():
    for name, function in [("halved", lambda e, r: r / 2), ("steps", lambda e, r: 1.0 if e < 3 else r * 0.25)]:
        _, _, rates = drive(keras.callbacks.LearningRateScheduler(function), [{"loss": 1.0}] * 6)
        yield {"name": name, "rates": rates}


def main():
    r = np.random.default_rng(17)
    out = {
        "early_stopping": list(early(r, 60)),
        "plateau": list(plateau(r, 40)),
        "model_checkpoint": list(checkpoints(r)),
        "csv_logger": list(tables(r)),
        "scheduler": list(schedules()),
    }
    with open(sys.argv[1], "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


main()
