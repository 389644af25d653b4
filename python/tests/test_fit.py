"""Training: numbers beside Keras's, callbacks, interruptions, threads, data of every kind, files, bad input."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path
from typing import Any

import fit_data
import numpy as np
import pytest
import scenarios

import recurve
from recurve import callbacks, layers, losses, metrics, optimizers, utils

WANT = json.loads((Path(__file__).parent / "fixtures" / "fit.json").read_text())
DATA = fit_data.data()


def load(name: str) -> recurve.Model:
    return recurve.load(fit_data.FOLDER / f"{name}.keras", device="cpu")


def binary(**kwargs: Any) -> tuple[recurve.Model, np.ndarray, np.ndarray]:
    """A small classifier, compiled, and 14 samples."""
    model = load("binary")
    model.compile(optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"], **kwargs)
    x, y, _ = DATA["binary"]
    return model, x, y


# Numbers


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda s: s.__name__)
def test_the_same_code_gives_keras_numbers(scenario: Any) -> None:
    utils.set_random_seed(1)
    got, want = scenario(recurve, load, fit_data.data()), WANT[scenario.__name__]
    assert sorted(got) == sorted(want)
    moved = 0
    for name, values in want.items():
        if values and isinstance(values[0], str):
            assert got[name] == values, name
            continue
        # Keras computes in float32 too.
        np.testing.assert_allclose(got[name], values, rtol=2e-5, atol=2e-5, err_msg=name)
        moved += len(set(values)) > 1
    assert moved, "nothing changed from epoch to epoch"


CASES = {
    "binary": {"optimizer": lambda: optimizers.Adam(0.02), "loss": "binary_crossentropy", "metrics": ["accuracy"]},
    "masked": {
        "optimizer": lambda: optimizers.RMSprop(0.01),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    },
    "classes": {
        "optimizer": lambda: optimizers.SGD(0.1, momentum=0.9),
        "loss": losses.SparseCategoricalCrossentropy(),
        "metrics": ["accuracy"],
    },
    "weights": {"optimizer": lambda: optimizers.Adam(0.02), "loss": "mse"},
    "outputs": {
        "optimizer": lambda: optimizers.Adam(0.02),
        "loss": {"a": "binary_crossentropy", "b": "mse"},
        "loss_weights": {"a": 1.0, "b": 0.25},
    },
}


@pytest.mark.parametrize("case", fit_data.cases(), ids=lambda c: c["name"])
def test_fit_is_that_of_keras(case: dict[str, Any]) -> None:
    name = case["name"]
    model = load(name)
    model.compile(**{k: v() if callable(v) else v for k, v in CASES[name].items()})
    x, y, weights = DATA[name]
    if name == "outputs":
        y = dict(zip(["a", "b"], y))
    options = dict(case["options"])
    if name == "classes":
        options["class_weight"] = {0: 0.5, 1: 2.0, 2: 1.25}
    history = model.fit(x, y, sample_weight=weights, shuffle=False, verbose=0, **options)
    assert sorted(history) == sorted(case["history"])
    for key, want in case["history"].items():
        np.testing.assert_allclose(history[key], want, rtol=1e-5, atol=1e-5, err_msg=key)
    if name != "weights":
        scores = model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)
        for key, want in case["scores"].items():
            np.testing.assert_allclose(scores[key], want, rtol=1e-5, atol=1e-5, err_msg=key)
    if case["predictions"]:
        predicted = model.predict(x, batch_size=4, verbose=0)
        np.testing.assert_allclose(predicted.ravel(), case["predictions"], atol=1e-5)
        # A run and a file have the trained weights too.
        np.testing.assert_array_equal(model(x), model.predict(x, batch_size=99, verbose=0))


def test_fit_on_a_gpu_is_that_on_the_cpu() -> None:
    gpus = [d for d in recurve.devices() if d.backend != "cpu"]
    if not gpus:
        pytest.skip("there is no adapter here")
    x, y, _ = DATA["binary"]
    found = []
    for device in ("cpu", gpus[0].selector):
        model = recurve.load(fit_data.FOLDER / "binary.keras", device=device)
        model.compile(optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy", "auc"])
        seen: list[float] = []
        told = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, seen=seen: seen.append(logs["loss"]))
        history = model.fit(x, y, epochs=3, batch_size=2, verbose=0, validation_split=0.3, callbacks=[told])
        assert len(seen) == 15
        found.append((history, model.predict(x, verbose=0)))
    for name, values in found[0][0].items():
        np.testing.assert_allclose(found[1][0][name], values, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-5)


def test_the_order_of_samples_depends_on_the_seed_and_the_epoch() -> None:
    def trained(seed: int | None, shuffle: bool = True, epochs: int = 2) -> np.ndarray:
        model, x, y = binary(seed=seed)
        model.fit(x, y, epochs=epochs, batch_size=4, shuffle=shuffle, verbose=0)
        return model.flat_weights()

    np.testing.assert_array_equal(trained(1), trained(1))
    assert not np.array_equal(trained(1), trained(2))
    assert not np.array_equal(trained(1), trained(1, shuffle=False))
    utils.set_random_seed(2)
    np.testing.assert_array_equal(trained(None), trained(2))


# Callbacks


class Stops(callbacks.Callback):
    """Raises an exception after a step."""

    def __init__(self, error: BaseException, step: int) -> None:
        super().__init__()
        self.error, self.step = error, step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self.step:
            raise self.error


def test_an_exception_of_a_callback_comes_out_and_fit_goes_on() -> None:
    class Tea(Exception):
        pass

    model, x, y = binary()
    error = Tea("no more tea")
    with pytest.raises(Tea) as caught:
        model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0, callbacks=[Stops(error, 1)])
    assert caught.value is error
    assert "on_train_batch_end" in [f.name for f in traceback.extract_tb(error.__traceback__)]
    # Two steps were taken, and their weights are kept.
    assert model.optimizer.iterations == 2
    two, _, _ = binary()
    for n in range(2):
        two.train_on_batch(x[n * 4 : n * 4 + 4], y[n * 4 : n * 4 + 4])
    np.testing.assert_array_equal(model(x), two(x))
    before = model.flat_weights()
    model.fit(x, y, batch_size=7, verbose=0)
    assert model.optimizer.iterations == 4
    assert not np.array_equal(model.flat_weights(), before)


def test_a_callback_may_use_the_model(tmp_path: Path) -> None:
    model, x, y = binary()
    seen: list[Any] = []

    class Uses(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                predicted = self.model.predict(x, verbose=0)
                np.testing.assert_array_equal(predicted, self.model(x))
                loss, accuracy = self.model.evaluate(x, y, verbose=0)
                self.model.save(tmp_path / f"{len(seen)}.safetensors")
                seen.append((predicted, loss, accuracy, self.model.flat_weights()))

    plain, _, _ = binary()
    want = plain.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0)
    history = model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0, callbacks=[Uses()])
    assert history == want, "what a callback reads changes nothing"
    assert len(seen) == 3 and not np.array_equal(seen[0][3], seen[1][3])
    for n, (predicted, *_) in enumerate(seen):
        np.testing.assert_array_equal(recurve.load(tmp_path / f"{n}.safetensors", device="cpu")(x), predicted)
    probability = seen[0][0][:, 0].astype("float64")
    crossentropy = -np.log(np.where(y[:, 0] > 0.5, probability, 1 - probability)).mean()
    assert seen[0][1] == pytest.approx(crossentropy, abs=1e-6)
    assert seen[0][2] == pytest.approx(((probability > 0.5) == y[:, 0]).mean())


def test_a_callback_may_set_weights_and_stop() -> None:
    model, x, y = binary()
    first = model.flat_weights()

    class Back(callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.set_flat_weights(first)
            self.model.optimizer.learning_rate = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 1

    history = model.fit(x, y, epochs=4, batch_size=4, verbose=0, callbacks=[Back()])
    assert history.epoch == [0] and model.optimizer.iterations == 2
    np.testing.assert_array_equal(model.flat_weights(), first)
    assert float(model.optimizer.learning_rate) == 0.0


def test_fit_within_fit_is_refused() -> None:
    model, x, y = binary()
    again = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.fit(x, y, verbose=0))
    with pytest.raises(RuntimeError, match="cannot be called by a callback"):
        model.fit(x, y, verbose=0, callbacks=[again])
    again = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.compile("sgd", "mse"))
    with pytest.raises(RuntimeError, match="cannot be compiled while `fit` runs"):
        model.fit(x, y, verbose=0, callbacks=[again])
    model.fit(x, y, verbose=0)


def test_callbacks_leave_files(tmp_path: Path) -> None:
    model, x, y = binary()
    path = tmp_path / "deep" / "{epoch:02d}-{val_loss:.3f}.keras"
    saving = callbacks.ModelCheckpoint(path, save_best_only=True, monitor="val_loss")
    board = callbacks.TensorBoard(tmp_path / "logs", update_freq=2)
    each = callbacks.ModelCheckpoint(tmp_path / "{batch}.safetensors", save_freq=3)
    history = model.fit(
        x, y, epochs=5, batch_size=4, shuffle=False, verbose=0, validation_split=0.3, callbacks=[saving, board, each]
    )
    best = int(np.argmin(history["val_loss"]))
    assert saving.best == min(history["val_loss"])
    assert saving.last_file == str(tmp_path / "deep" / f"{best + 1:02d}-{min(history['val_loss']):.3f}.keras")
    kept = recurve.load(saving.last_file, device="cpu")
    kept.compile("sgd", "bce")
    assert kept.evaluate(x[9:], y[9:], verbose=0) == pytest.approx(saving.best, abs=1e-6)
    assert {p.name for p in (tmp_path / "logs").iterdir()} == {"train", "validation"}
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == ["3.safetensors"]


def test_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    model, x, y = binary()
    bad = x.copy()
    bad[5, 2, 1] = np.nan
    before = model.flat_weights()
    with pytest.raises(recurve.NotFinite, match=r"step 2: input 0 of the batch is not finite") as caught:
        model.fit(bad, y, batch_size=4, shuffle=False, verbose=0)
    assert isinstance(caught.value, ValueError)
    one, _, _ = binary()
    one.train_on_batch(x[:4], y[:4])
    np.testing.assert_array_equal(model.flat_weights(), one.flat_weights())
    assert not np.array_equal(model.flat_weights(), before)
    wrong = y.copy()
    wrong[0] = np.inf
    with pytest.raises(recurve.NotFinite, match="target 0"):
        model.fit(x, wrong, shuffle=False, verbose=0)
    history = model.fit(
        bad, y, epochs=5, batch_size=4, shuffle=False, verbose=0, callbacks=[callbacks.TerminateOnNaN()]
    )
    assert history.epoch == [0] and np.isnan(history["loss"]).all()
    model.fit(x, y, verbose=0)


# Interruptions and threads


def test_ctrl_c_ends_fit_between_steps_and_keeps_the_weights(tmp_path: Path) -> None:
    program = f"""
        import signal, sys, threading
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np
        import recurve
        from fit_data import FOLDER, data

        model = recurve.load(FOLDER / "binary.keras", device="cpu")
        model.compile("adam", "binary_crossentropy")
        x, y, _ = data()["binary"]
        first = model.flat_weights()
        interrupts = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
        begun = recurve.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: batch == 4 and interrupts.start())
        try:
            # One epoch without an end.
            model.fit(iter(lambda: (x[:4], y[:4]), None), steps_per_epoch=10**9, callbacks=[begun])
        except KeyboardInterrupt:
            steps = model.optimizer.iterations
            assert steps > 3, steps
            assert not np.array_equal(model.flat_weights(), first)
            model.fit(x, y, batch_size=7, verbose=0)
            assert model.optimizer.iterations == steps + 2
            print("kept")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "kept"


def test_another_thread_is_told_that_the_model_is_in_training() -> None:
    model, x, y = binary()
    before = model(x)
    found: list[Any] = []

    class Meanwhile(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            def other() -> None:
                for call in (
                    model.flat_weights,
                    lambda: model.fit(x, y, verbose=0),
                    lambda: model.evaluate(x, y, verbose=0),
                ):
                    try:
                        call()
                    except RuntimeError as e:
                        found.append(str(e))
                # Running goes on with the weights from before.
                found.append(model(x))

            if batch == 0:
                thread = threading.Thread(target=other)
                thread.start()
                thread.join()

    history = model.fit(x, y, batch_size=4, verbose=0, callbacks=[Meanwhile()])
    assert len(history["loss"]) == 1
    assert len(found) == 4 and all("another thread" in f for f in found[:3])
    np.testing.assert_array_equal(found[3], before)
    assert not np.array_equal(model(x), before)


def test_threads_train_models_of_their_own() -> None:
    def trained(seed: int) -> list[float]:
        model, x, y = binary(seed=seed)
        losses: list[float] = model.fit(x, y, epochs=20, batch_size=3, verbose=0)["loss"]
        return losses

    want = [trained(n) for n in range(4)]
    got: list[Any] = [None] * 4

    def work(n: int) -> None:
        got[n] = trained(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert got == want


# History and progress


def test_the_history_is_a_dict_that_draws_itself(tmp_path: Path) -> None:
    model, x, y = binary()
    history = model.fit(x, y, epochs=3, batch_size=4, verbose=0, validation_split=0.3, validation_freq=2)
    assert isinstance(history, dict) and history.history is history and model.history is history
    assert history.epoch == [0, 1, 2] and history.params == {"verbose": 0, "epochs": 3, "steps": 3}
    assert [len(v) for v in history.values()] == [3, 3, 1, 1]
    svg = history._repr_svg_()
    assert svg.startswith("<svg") and "val_accuracy" in svg and svg.count("epoch") >= 2
    history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"\.svg or \.png"):
        history.plot(tmp_path / "curves.gif")
    again = pickle.loads(pickle.dumps(history))
    assert again == history and again.epoch == history.epoch and again._repr_svg_() == svg
    assert callbacks.History()._repr_svg_() is None
    second = model.fit(x, y, epochs=0, verbose=0)
    assert second == {} and second.epoch == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(out: io.StringIO, **kwargs: Any) -> str:
        model, x, y = binary()
        with monkeypatch.context() as m:
            m.setattr(sys, "stdout", out)
            model.fit(x, y, batch_size=4, validation_split=0.3, **kwargs)
        return out.getvalue()

    lines = shown(io.StringIO(), epochs=2).splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert all(" - loss: 0." in line and " - val_accuracy: " in line and "3/3" in line and "\r" not in line for line in lines)
    live = shown(Terminal(), epochs=2)
    assert live.startswith("Epoch 1/2\n\r") and live.count("\n") == 4 and "━" in live
    assert live.split("\r")[-1].startswith("3/3 ━━━━━━━━━━━━━━━━━━━━ ")
    assert shown(Terminal(), epochs=1).count("\n") == 1
    assert shown(Terminal(), epochs=2, verbose=2).count("\r") == 0
    assert shown(Terminal(), epochs=2, verbose=0) == ""
    # A line that an exception ends is ended.
    model, x, y = binary()
    with monkeypatch.context() as m:
        m.setattr(sys, "stdout", out := Terminal())
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, batch_size=4, callbacks=[callbacks.ProgbarLogger(), Stops(KeyboardInterrupt(), 1)])
    assert out.getvalue().endswith("\n")
    monkeypatch.setattr(sys, "stdout", None)
    model.fit(x, y)


def test_messages_of_callbacks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, x, y = binary()
    model.optimizer.learning_rate = 0.3
    told = [
        callbacks.EarlyStopping(patience=2, verbose=1, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(patience=1, verbose=1),
        callbacks.ModelCheckpoint(tmp_path / "best.safetensors", save_best_only=True, verbose=1),
        callbacks.LearningRateScheduler(lambda epoch, rate: rate, verbose=1),
    ]
    history = model.fit(
        x[:9], y[:9], epochs=60, batch_size=3, shuffle=False, verbose=0, validation_data=(x[9:], y[9:]), callbacks=told
    )
    out = capsys.readouterr().out
    stopped = told[0].stopped_epoch
    assert 0 < stopped < 59 and history.epoch[-1] == stopped
    for text in (
        f"Epoch {stopped + 1}: early stopping",
        f"end of the best epoch: {told[0].best_epoch + 1}.",
        "ReduceLROnPlateau reducing learning rate to 0.03",
        "saving model to",
        "val_loss did not improve from",
        "LearningRateScheduler setting learning rate to 0.3",
    ):
        assert text in out, out


# Files


def test_a_training_that_goes_on_from_a_file_has_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"

    def told() -> list[Any]:
        return [
            callbacks.EarlyStopping(patience=20, restore_best_weights=True),
            callbacks.ReduceLROnPlateau(patience=2),
        ]

    def fit(model: recurve.Model, **kwargs: Any) -> Any:
        _, x, y = binary()
        return model.fit(x, y, batch_size=4, verbose=0, validation_split=0.3, callbacks=told(), **kwargs)

    whole, _, _ = binary()
    want = fit(whole, epochs=8)
    first, _, _ = binary()
    fit(first, epochs=5, checkpoint=file, checkpoint_every=2)
    second, x, y = binary()
    history = fit(second, epochs=8, resume=file)
    assert history == want and history.epoch == list(range(8))
    np.testing.assert_array_equal(second.flat_weights(), whole.flat_weights())
    assert recurve.load(file, device="cpu")(x).shape == (14, 1)
    # `resume=True` begins where there is no file yet.
    third, _, _ = binary()
    other = tmp_path / "other.safetensors"
    fit(third, epochs=3, checkpoint=other, resume=True)
    history = fit(third, epochs=8, checkpoint=other, resume=True)
    assert history == want
    with pytest.raises(ValueError, match="callbacks kept"):
        second.fit(x, y, epochs=9, verbose=0, resume=file)
    adam, _, _ = binary()
    adam.compile("sgd", "bce")
    weights = adam.flat_weights()
    with pytest.raises(ValueError, match="another `optimizer`"):
        adam.load_checkpoint(file)
    np.testing.assert_array_equal(adam.flat_weights(), weights)
    with pytest.raises(FileNotFoundError):
        adam.load_checkpoint(tmp_path / "none.safetensors")


def test_checkpoints_by_hand(tmp_path: Path) -> None:
    model, x, y = binary()
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    model.save_checkpoint(tmp_path / "two.safetensors", epoch=2)
    model.fit(x, y, initial_epoch=2, epochs=4, batch_size=4, verbose=0)
    other, _, _ = binary()
    epoch = other.load_checkpoint(tmp_path / "two.safetensors")
    other.fit(x, y, initial_epoch=epoch, epochs=4, batch_size=4, verbose=0)
    np.testing.assert_array_equal(other.flat_weights(), model.flat_weights())
    assert other.optimizer.iterations == 16


# Several processes


def test_flat_gradients_of_parts_make_the_step_of_the_whole() -> None:
    whole, x, y = binary()
    parts, _, _ = binary()
    layout = parts.flat_layout()
    assert layout[0].start == 0 and all(p.stop - p.start == np.prod(p.shape) and p.trained for p in layout)
    for _ in range(3):
        loss = whole.train_on_batch(x, y)[0]
        pieces = [parts.flat_gradients(x[a:b], y[a:b]) for a, b in [(0, 5), (5, 5), (5, 14)]]
        assert pieces[1][0] == 0.0 and not pieces[1][1].any()
        total = np.sum([g for _, g in pieces], axis=0)
        assert total.dtype == np.float32 and len(total) == layout[-1].stop + 2 and total[-1] == 14.0
        assert parts.apply_flat(total) == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(parts.flat_weights(), whole.flat_weights(), atol=1e-6)
    other, _, _ = binary()
    other.set_flat_weights(parts.flat_weights())
    np.testing.assert_array_equal(other(x), parts(x))
    with pytest.raises(ValueError, match="elements"):
        other.set_flat_weights(np.zeros(3))
    with pytest.raises(ValueError, match="not finite in"):
        parts.apply_flat(np.where(np.arange(len(total)) == 1, np.nan, total))


# Data


def test_arrays_of_every_kind_train_alike() -> None:
    def trained(x: Any, y: Any) -> np.ndarray:
        model, _, _ = binary()
        history = model.fit(x, y, epochs=2, batch_size=4, verbose=0, validation_split=0.3)
        assert len(history["val_loss"]) == 2
        return model.flat_weights()

    _, x, y = binary()
    want = trained(x, y)
    wide = np.zeros((28, 5, 6))
    wide[::2, :, ::2] = x
    name = load("binary").inputs[0].name
    for a in (
        x.astype("float64"),
        x.astype(">f4"),
        np.asfortranarray(x),
        wide[::2, :, ::2],
        x.tolist(),
        [x],
        {name: x},
    ):
        np.testing.assert_array_equal(trained(a, y), want)
    for b in (
        y[:, 0],
        [y[:, 0]],
        y[:, 0].tolist(),
        y.astype("int64"),
        y > 0.5,
        y.tolist(),
        [y],
        {load("binary").outputs[0].name: y},
    ):
        np.testing.assert_array_equal(trained(x, b), want)
    model, _, _ = binary()
    # Arrays are copied when `fit` begins.
    mine = x.copy()
    clear = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: mine.fill(0.0))
    model.fit(mine, y, epochs=2, batch_size=4, verbose=0, validation_split=0.3, callbacks=[clear])
    assert not mine.any()
    np.testing.assert_array_equal(model.flat_weights(), want)


def test_batches_of_every_kind_train_alike() -> None:
    _, x, y = binary()
    pairs = [(x[n : n + 4], y[n : n + 4]) for n in range(0, 14, 4)]

    class Indexed:
        def __init__(self) -> None:
            self.ends = 0

        def __len__(self) -> int:
            return len(pairs)

        def __getitem__(self, n: int) -> Any:
            return pairs[n]

        def on_epoch_end(self) -> None:
            self.ends += 1

    class Loader:
        def __iter__(self) -> Any:
            return iter([list(p) for p in pairs])

    def endless() -> Any:
        while True:
            yield from pairs

    def trained(data: Any, **kwargs: Any) -> np.ndarray:
        model, _, _ = binary()
        model.fit(data, epochs=2, verbose=0, shuffle=False, **kwargs)
        assert model.optimizer.iterations == 8
        return model.flat_weights()

    model, _, _ = binary()
    model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    want = model.flat_weights()
    indexed = Indexed()
    np.testing.assert_array_equal(trained(indexed), want)
    assert indexed.ends == 2
    np.testing.assert_array_equal(trained(Loader()), want)
    np.testing.assert_array_equal(trained(endless(), steps_per_epoch=4), want)
    # Two epochs of two batches are the first four.
    model, _, _ = binary()
    model.fit(x, y, epochs=2, batch_size=4, steps_per_epoch=2, shuffle=False, verbose=0)
    half, _, _ = binary()
    half.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.flat_weights(), half.flat_weights())
    with pytest.warns(RuntimeWarning, match="ended after 3 of 5"):
        half.fit(iter(pairs[:3]), steps_per_epoch=5, verbose=0)
    np.testing.assert_allclose(model.predict(Loader(), verbose=0), model(x), atol=1e-6)
    error = OSError("the disk is gone")

    def broken() -> Any:
        yield pairs[0]
        raise error

    with pytest.raises(OSError) as caught:
        model.fit(broken(), steps_per_epoch=3, verbose=0)
    assert caught.value is error


X, Y, _ = DATA["binary"]
XC, YC, _ = DATA["classes"]
BAD_DATA = [
    ({"x": None, "y": Y}, ValueError, "`x` must be given"),
    ({"x": X}, ValueError, "`y` must be given"),
    ({"x": X, "y": Y[:9]}, ValueError, "the target has 9 samples, but input `.*` has 14"),
    ({"x": X[:, 0], "y": Y}, ValueError, r"must have the shape \(.*3\), the samples first, but it has \(14, 3\)"),
    ({"x": X[..., :2], "y": Y}, ValueError, r"but it has \(14, 5, 2\)"),
    ({"x": X[:0], "y": Y[:0]}, ValueError, "is empty"),
    ({"x": 3.0, "y": Y}, ValueError, "single number"),
    ({"x": X.astype(complex), "y": Y}, TypeError, "complex"),
    ({"x": X.astype(str), "y": Y}, TypeError, "<U"),
    ({"x": X.astype(object), "y": Y}, TypeError, "object"),
    ({"x": [[[1.0, 2.0, 3.0]], [[1.0]]], "y": Y}, ValueError, "pad_sequences"),
    ({"x": {"words": X}, "y": Y}, ValueError, "`words` is none of them"),
    ({"x": np.ma.masked_array(X), "y": Y}, TypeError, "masked array"),
    (
        {"x": X, "y": np.zeros((14, 2))},
        ValueError,
        r"the target must have the shape \(any, 1\), .* but it has \(14, 2\)",
    ),
    ({"x": X, "y": np.zeros((14, 5, 1))}, ValueError, r"but it has \(14, 5, 1\)"),
    ({"x": X, "y": Y, "batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
    ({"x": X, "y": Y, "batch_size": 2.5}, TypeError, "`batch_size` must be a whole number"),
    ({"x": X, "y": Y, "epochs": -1}, ValueError, "`epochs`"),
    ({"x": X, "y": Y, "validation_split": 1.0}, ValueError, "`validation_split`"),
    ({"x": X, "y": Y, "validation_split": 0.99}, ValueError, "must leave samples"),
    ({"x": X, "y": Y, "validation_data": (X,)}, ValueError, "`validation_data` must be"),
    ({"x": X, "y": Y, "validation_data": (X, Y[:3])}, ValueError, "has 3 samples"),
    ({"x": X, "y": Y, "validation_split": 0.5, "validation_freq": 0}, ValueError, "`validation_freq`"),
    ({"x": X, "y": Y, "verbose": 3}, ValueError, "`verbose`"),
    ({"x": X, "y": Y, "sample_weight": np.ones(13)}, ValueError, "`sample_weight` has 13 samples"),
    ({"x": X, "y": Y, "sample_weight": np.full(14, np.nan)}, ValueError, "`sample_weight` must be finite"),
    ({"x": X, "y": Y, "sample_weight": np.ones(14), "class_weight": {0: 1.0}}, ValueError, "together"),
    ({"x": X, "y": Y, "class_weight": {"a": 1.0}}, TypeError, "`class_weight`"),
    ({"x": X, "y": Y, "callbacks": [print]}, TypeError, "`callbacks` must be callbacks"),
    ({"x": X, "y": Y, "callbacks": [callbacks.EarlyStopping()]}, ValueError, "`val_loss`, but there are no samples"),
    ({"x": X, "y": Y, "callbacks": [callbacks.EarlyStopping("f1")]}, ValueError, "give a mode"),
    ({"x": iter([(X, Y)]), "batch_size": 3}, ValueError, "`batch_size` cannot be given with batches"),
    ({"x": iter([X])}, ValueError, "inputs but no targets"),
    ({"x": iter([])}, ValueError, "at least one batch"),
    ({"x": X, "y": Y, "resume": True}, ValueError, "`resume=True`"),
]


@pytest.mark.parametrize(("kwargs", "error", "text"), BAD_DATA, ids=[b[2][:40] for b in BAD_DATA])
def test_bad_data_is_refused(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    model, x, y = binary()
    before = model.flat_weights()
    with pytest.raises(error, match=text):
        model.fit(**{"verbose": 0, **kwargs})
    np.testing.assert_array_equal(model.flat_weights(), before)
    model.fit(x, y, verbose=0)


def test_labels_that_are_no_classes_are_refused() -> None:
    model = load("classes")
    model.compile("sgd", "sparse_categorical_crossentropy")
    for wrong, text in [(3, "label 5 is 3, but the classes are 0 to 2"), (-1, "holds -1"), (0.5, "whole numbers")]:
        labels = YC.astype("float64")
        labels[5] = wrong
        with pytest.raises(ValueError, match=text):
            model.fit(XC, labels, shuffle=False, verbose=0)
    model.fit(XC, YC.astype("float32"), verbose=0)
    ids = load("masked")
    ids.compile("sgd", "sparse_categorical_crossentropy")
    x, y, _ = DATA["masked"]
    with pytest.raises(TypeError, match="whole numbers are needed"):
        ids.fit(x.astype("float32"), y, verbose=0)
    with pytest.raises(ValueError, match="holds -1"):
        ids.fit(x - 1, y, verbose=0)


# Compiling


BAD_COMPILE = [
    ({"optimizer": "adamm", "loss": "mse"}, ValueError, "sgd, rmsprop, adam, adamw, adagrad, lion, but it is `adamm`"),
    ({"optimizer": 3, "loss": "mse"}, TypeError, "`optimizer`"),
    ({"loss": None}, ValueError, "`loss` must be given"),
    ({"loss": "mean"}, ValueError, "binary_crossentropy, .*, but it is `mean`"),
    ({"loss": lambda a, b: a}, TypeError, "cannot be differentiated"),
    ({"loss": {"z": "mse"}}, ValueError, "has `z`, but the outputs are"),
    ({"loss": ["mse", "mse"]}, ValueError, "one for each of 1 outputs"),
    ({"loss": "mse", "metrics": ["accurate"]}, ValueError, "accuracy, binary_accuracy, .*, but it is `accurate`"),
    ({"loss": "mse", "metrics": [len]}, TypeError, "`metrics`"),
    ({"loss": "mse", "loss_weights": [1.0, 2.0]}, ValueError, "`loss_weights`"),
    ({"loss": "mse", "frozen": ["layers.9"]}, ValueError, "`layers.9`, which no weight is named; there are"),
]


@pytest.mark.parametrize(("kwargs", "error", "text"), BAD_COMPILE, ids=[b[2][:40] for b in BAD_COMPILE])
def test_bad_compiles_are_refused(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    model = load("binary")
    with pytest.raises(error, match=text):
        model.compile(**kwargs)


def test_bad_options_are_refused() -> None:
    for make, text in [
        (lambda: optimizers.Adam(-1.0), "`learning_rate` must be finite and not negative"),
        (lambda: optimizers.Adam(float("nan")), "`learning_rate`"),
        (lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0), "only one of"),
        (lambda: optimizers.SGD(loss_scale_factor=2.0), "`loss_scale_factor` is not supported"),
        (lambda: optimizers.SGD(use_ema=True, ema_overwrite_frequency=3), "`ema_overwrite_frequency`"),
        (lambda: optimizers.schedules.ExponentialDecay(0.1, 0, 0.5), "`steps` must be at least 1"),
        (lambda: optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.1]), "one more than boundaries"),
        (lambda: losses.BinaryCrossentropy(axis=1), "`axis` must be -1"),
        (lambda: losses.MeanSquaredError(reduction="none"), "`reduction` must be one of"),
        (lambda: losses.SparseCategoricalCrossentropy(ignore_class=0), "`ignore_class`"),
        (lambda: metrics.AUC(multi_label=True), "`multi_label` is not supported"),
        (lambda: metrics.AUC(curve="X"), "`curve`"),
        (lambda: metrics.Precision(top_k=3), "`top_k`"),
        (lambda: callbacks.EarlyStopping(mode="up"), "`mode`"),
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), "`factor`"),
        (lambda: callbacks.TensorBoard(histogram_freq=1), "only scalars"),
        (lambda: callbacks.ModelCheckpoint("x", save_freq=0), "`save_freq`"),
        (lambda: callbacks.CSVLogger("x", separator=",,"), "`separator`"),
    ]:
        with pytest.raises(ValueError, match=text):
            make()
    model, x, y = binary()
    model.compile(optimizers.Adam(beta_1=1.0) if False else optimizers.Adam(), "bce")
    for bad in (optimizers.Adam(beta_1=1.5), optimizers.RMSprop(rho=1.0)):
        with pytest.raises(ValueError, match="must be at least 0 and less than 1"):
            model.compile(bad, "bce")


def test_learning_rates_are_read_and_set() -> None:
    model, x, y = binary()
    assert float(model.optimizer.learning_rate) == 0.02
    model.optimizer.learning_rate = 0.5
    assert model.optimizer.learning_rate == 0.5
    assert model.optimizer.learning_rate.assign(0.25).numpy() == 0.25
    for bad in (-1.0, float("inf")):
        with pytest.raises(ValueError, match="`learning_rate`"):
            model.optimizer.learning_rate = bad
    with pytest.raises(TypeError, match="`learning_rate` must be a number"):
        model.optimizer.learning_rate = "fast"
    schedule = optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.001])
    model.compile(optimizers.SGD(schedule), "bce")
    rates = []
    told = callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    model.fit(x, y, epochs=2, batch_size=5, verbose=0, callbacks=[told])
    assert rates == [schedule(n) for n in range(6)] == [0.1, 0.1, 0.1, 0.01, 0.01, 0.001]
    with pytest.raises(TypeError, match="a schedule gives it"):
        model.optimizer.learning_rate = 0.1


def test_a_model_must_be_compiled() -> None:
    model = load("binary")
    for call in (
        lambda: model.fit(X, Y),
        lambda: model.evaluate(X, Y),
        lambda: model.train_on_batch(X, Y),
        model.flat_weights,
    ):
        with pytest.raises(RuntimeError, match="must be compiled"):
            call()
    assert model.predict(X, verbose=0).shape == (14, 1)
    onnx = recurve.load(Path(__file__).resolve().parents[2] / "models" / "silero_vad.onnx", device="cpu")
    with pytest.raises(TypeError, match="no training"):
        onnx.compile("sgd", "mse")


def test_frozen_weights_stay_and_averages_come() -> None:
    model, x, y = binary(frozen=["layers.0"])
    frozen = {p.name for p in model.flat_layout()}
    assert frozen and not any(n.startswith("layers.0.") for n in frozen)
    before = model.flat_weights()
    model.fit(x, y, epochs=2, verbose=0)
    same = model.flat_weights() == before
    assert same.sum() >= len(before) - 6 and not same.all()
    plain, _, _ = binary()
    plain.fit(x, y, epochs=3, shuffle=False, verbose=0)
    averaged = load("binary")
    averaged.compile(optimizers.Adam(0.02, use_ema=True, ema_momentum=0.5), "binary_crossentropy")
    first = averaged.flat_weights()
    averaged.fit(x, y, epochs=3, shuffle=False, verbose=0)
    one, two = np.abs(plain.flat_weights() - first), np.abs(averaged.flat_weights() - first)
    assert two.sum() < 0.9 * one.sum()


def test_compiling_again_begins_anew_with_the_weights() -> None:
    model, x, y = binary()
    old = model.optimizer
    model.fit(x, y, epochs=2, verbose=0)
    trained = model(x)
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(model(x), trained)
    assert model.optimizer.iterations == 0 and model.metrics_names == ["loss"]
    # The old optimiser belongs to nothing any more.
    old.learning_rate = 0.7
    assert float(model.optimizer.learning_rate) == 0.01
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied(x), trained)


def test_mixed_precision_and_gradient_checkpoints_train_alike() -> None:
    def trained(**kwargs: Any) -> list[float]:
        model, x, y = binary(**kwargs)
        found: list[float] = model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0)["loss"]
        return found

    want = trained()
    np.testing.assert_allclose(trained(gradient_checkpoints=True), want, rtol=1e-5)
    mixed = trained(mixed_precision=True)
    np.testing.assert_allclose(mixed, want, rtol=2e-2)
    assert mixed != want


def test_layers_that_are_added_find_the_trained_weights() -> None:
    x = np.random.default_rng(0).standard_normal((20, 5, 3)).astype("float32")
    y = x[:, -1, :1]
    model = recurve.Sequential([recurve.Input((None, 3)), recurve.layers.LSTM(4), recurve.layers.Dense(1)], device="cpu")
    model.compile("adam", "mse")
    model.fit(x, y, epochs=2, verbose=0)
    model.train_on_batch(x, y)
    trained = model.layers[0].get_weights()
    model.set_weights([w / 2 for w in model.get_weights()])
    half = model.get_weights()
    np.testing.assert_array_equal(half[0], trained[0] / 2)
    # Weights that are set are those that the next step begins with, and the step is in those that are read.
    model.optimizer.learning_rate = 0.0
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.get_weights()[0], half[0])
    model.optimizer.learning_rate = 0.1
    model.train_on_batch(x, y)
    model.layers[0].trainable = False
    own = model.layers[0].get_weights()
    assert not np.array_equal(own[0], half[0])
    model.add(recurve.layers.Dense(2))
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], own[0])
    model.fit(x, np.zeros((20, 2)), epochs=2, verbose=0)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], own[0])
    assert model.predict(x, verbose=0).shape == (20, 2)


def test_models_that_share_layers_learn_together() -> None:
    x = np.random.default_rng(0).standard_normal((20, 5, 3)).astype("float32")
    inputs = recurve.Input((None, 3))
    h = recurve.layers.LSTM(4)(inputs)
    encoder = recurve.Model(inputs, h, device="cpu")
    whole = recurve.Model(inputs, recurve.layers.Dense(1)(h), device="cpu")
    before = encoder(x)
    whole.compile("adam", "mse")
    whole.fit(x, x[:, -1, :1], epochs=2, verbose=0)
    assert not np.array_equal(encoder(x), before)
    np.testing.assert_array_equal(encoder.get_weights()[0], whole.get_weights()[0])


# Utilities


def test_padding_is_that_of_keras() -> None:
    paddings = json.loads((fit_data.FOLDER / "cases.json").read_text())["paddings"]
    for case in paddings:
        got = utils.pad_sequences(
            case["sequences"],
            maxlen=case["length"],
            padding=case["padding"],
            truncating=case["truncating"],
            value=case["value"],
        )
        np.testing.assert_array_equal(got, np.array(case["data"]).reshape(case["shape"]), err_msg=str(case))
    vectors = utils.pad_sequences([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], dtype="float32", padding="post")
    np.testing.assert_array_equal(vectors, [[[1, 2], [0, 0]], [[3, 4], [5, 6]]])
    for bad, text in [
        ([[1], 2], "at place 1"),
        (3, "must have a length"),
        ([[[1.0]], [[1.0, 2.0]]], "vectors of one shape"),
    ]:
        with pytest.raises(ValueError, match=text):
            utils.pad_sequences(bad)
    with pytest.raises(ValueError, match="`padding`"):
        utils.pad_sequences([[1]], padding="both")
    assert utils.to_categorical([[1], [0]]).tolist() == [[0, 1], [1, 0]]
    for bad_labels in ([-1], [3]):
        with pytest.raises(ValueError, match="the classes are 0 to 2"):
            utils.to_categorical(bad_labels, 3)


# Memory


def test_memory_stays_flat_over_many_fits() -> None:
    model, x, y = binary()
    x, y = np.tile(x, (40, 4, 1)), np.tile(y, (40, 1))

    def resident() -> int:
        gc.collect()
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("this system does not tell how much memory a process has")
    sizes = []
    for _ in range(6):
        for _ in range(25):
            model.fit(x, y, batch_size=140, verbose=0, validation_split=0.25)
            model.predict(x, verbose=0)
        sizes.append(resident())
    # A copy of the data that each `fit` kept would be 25 times 130 kB a round.
    assert sizes[-1] - sizes[2] < 4 << 20, sizes


def test_layers_are_frozen_and_thawed_between_trainings() -> None:
    """As in Keras, where the layers of a compiled model are frozen: the next training leaves them as they are."""
    x, y = np.random.default_rng(3).standard_normal((8, 5, 4)).astype("f4"), np.ones((8, 1), "f4")
    for optimizer in ("sgd", "adam"):
        model = recurve.Sequential([recurve.Input((5, 4)), layers.LSTM(3), layers.Dense(1)], device="cpu")
        model.compile(optimizer, "mse")
        model.fit(x, y, verbose=0)
        lstm, dense = model.layers
        for frozen in (True, False, True):
            lstm.trainable = not frozen
            before = [layer.get_weights()[0] for layer in (lstm, dense)]
            model.fit(x, y, verbose=0)
            after = [layer.get_weights()[0] for layer in (lstm, dense)]
            assert np.array_equal(before[0], after[0]) == frozen
            assert not np.array_equal(before[1], after[1])


def test_the_layers_of_a_chain_stay_while_it_is_trained() -> None:
    x, y = np.ones((4, 5, 4), "f4"), np.ones((4, 1), "f4")
    model = recurve.Sequential([recurve.Input((5, 4)), layers.LSTM(3), layers.Dense(1)], device="cpu")
    model.compile("sgd", "mse")
    for change, what in ((lambda: model.add(layers.Dense(2)), "add"), (model.pop, "pop")):
        callback = recurve.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, change=change: change())
        with pytest.raises(RuntimeError, match=f"`{what}` cannot change the layers of `sequential.*` while `fit` runs"):
            model.fit(x, y, verbose=0, callbacks=[callback])
        assert len(model.layers) == 2
    model.fit(x, y, verbose=0)
    model.pop()
    assert model(x).shape == (4, 3)
