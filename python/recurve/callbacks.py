"""Callbacks with Keras's names, arguments and defaults.

Those that Rust has (`EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`, `CSVLogger`, `TensorBoard`) run there;
subclasses may override their methods. Between two steps a callback may use the model for anything: predict, evaluate,
save, set weights or the learning rate. An exception that a callback raises comes out of `fit` as it is; the weights that
were reached stay, and `fit` can go on.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _recurve

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]

Logs = dict[str, Any]


class Callback:
    """What is told of the beginnings and ends of training, epochs and batches.

    Attributes
    ----------
    model : Model
        The model, whose `stop_training` may be set.
    params : dict
        ``verbose``, ``epochs`` and ``steps``, the number of batches of an epoch or None.
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before training."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called before training."""
        self.model = model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch; `logs` are those of this epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before an epoch, of which the first is 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation. What is added to `logs` is in the `History`."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """`on_train_batch_begin` under its old name."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """`on_train_batch_end` under its old name."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a step, of which the first of an epoch is 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step; `logs` are the means since the epoch began. On a GPU they may be those of a few steps before."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation or a validation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation or a validation."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of it."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of it."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before `predict`."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After `predict`."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of it."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of it; `logs` has its ``outputs``."""


def _overrides(callback: Any, *names: str) -> bool:
    """Whether a callback does something in one of these methods."""
    return any(n in vars(callback) or getattr(type(callback), n, None) is not getattr(Callback, n) for n in names)


class CallbackList:
    """Callbacks that are told in order."""

    def __init__(
        self, callbacks: Any, model: Any, verbose: int, epochs: int, steps: int | None, history: bool = False
    ) -> None:
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        for c in given:
            if not all(callable(getattr(c, n, None)) for n in ("set_model", "on_epoch_end", "on_train_begin")):
                raise TypeError(
                    f"`callbacks` must be callbacks, objects of subclasses of Callback, not {type(c).__name__}"
                )
        self.callbacks: list[Any] = given
        self.history: History | None = next((c for c in given if isinstance(c, History)), None)
        if self.history is None and history:
            self.history = History()
            self.callbacks.append(self.history)
        if verbose and not any(isinstance(c, ProgbarLogger) for c in given):
            self.callbacks.append(ProgbarLogger())
        params = {"verbose": verbose, "epochs": epochs, "steps": steps}
        for c in self.callbacks:
            c.set_model(model)
            c.set_params(params)

        def those(kind: str, old: bool = False) -> tuple[list[Any], list[Any]]:
            def names(end: str) -> list[str]:
                return [f"on_{kind}_batch_{end}"] + ([f"on_batch_{end}"] if old else [])

            begin = [c for c in self.callbacks if _overrides(c, *names("begin"))]
            return begin, [c for c in self.callbacks if _overrides(c, *names("end"))]

        # Nobody else is told of batches, so that their numbers need not be made.
        self.train_batch_begin, self.train_batch_end = those("train", True)
        self.test_batch_begin, self.test_batch_end = those("test")
        self.predict_batch_begin, self.predict_batch_end = those("predict")

    def tell(self, event: str, *args: Any) -> None:
        """Calls a method of all."""
        for c in self.callbacks:
            getattr(c, event)(*args)

    def native(self) -> list[Any]:
        """The callbacks of Rust's among them."""
        return [c._native for c in self.callbacks if isinstance(c, _Native)]


class _Native(Callback):
    """A callback of Rust's."""

    def __init__(self) -> None:
        super().__init__()
        self._native = _recurve.NativeCallback(json.dumps(self._spec()))

    def _spec(self) -> dict[str, Any]:
        raise NotImplementedError

    def _call(self, event: str, epoch: int = 0, batch: int = 0, logs: Logs | None = None) -> None:
        numbers = [(k, float(v)) for k, v in (logs or {}).items() if isinstance(v, (int, float, np.number))]
        at = self.model._fit_place
        place = (epoch, at.epochs, batch, at.validates, at.resumed)
        stop, changed = self._native.call(event, self.model._trainer, place, numbers)
        if stop:
            self.model.stop_training = True
        if logs is not None:
            before = dict(numbers)
            logs.update({k: v for k, v in changed.items() if before.get(k) != v})

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._native = _recurve.NativeCallback(json.dumps(self._spec()))
        self._call("train_begin", self.model._fit_place.first)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._call("epoch_end", epoch, logs=logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._call("train_end", self.model._fit_place.last)


def _say(text: str) -> None:
    if sys.stdout is not None:
        print(text, flush=True)


class EarlyStopping(_Native):
    """Ends training that no longer improves.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The number that is watched. It must be there: an unknown one is a `ValueError`.
    min_delta : float, default 0
        Only a change by more than this is an improvement.
    patience : int, default 0
        After so many epochs without improvement training ends.
    verbose : {0, 1}
        Whether it says so.
    mode : {"auto", "min", "max"}
        Whether less or more is better, where the name does not tell.
    baseline : float, optional
        An improvement only counts if it is better than this too.
    restore_best_weights : bool, default False
        The model has the weights of the best epoch at the end.
    start_from_epoch : int, default 0
        Epochs before this one do not count.

    Attributes
    ----------
    best : float or None
        The best value.
    best_epoch, stopped_epoch : int
        The epoch with it, and the one after which training ended, or 0.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        self.monitor, self.min_delta, self.patience, self.verbose = monitor, min_delta, patience, verbose
        self.mode, self.baseline, self.restore_best_weights = mode, baseline, restore_best_weights
        self.start_from_epoch = start_from_epoch
        super().__init__()

    def _spec(self) -> dict[str, Any]:
        return {
            "kind": "early_stopping",
            "monitor": self.monitor,
            "mode": self.mode,
            "min_delta": float(abs(self.min_delta)),
            "patience": int(self.patience),
            "baseline": None if self.baseline is None else float(self.baseline),
            "restore_best_weights": bool(self.restore_best_weights),
            "start_from_epoch": int(self.start_from_epoch),
        }

    @property
    def best(self) -> float | None:
        """The best value."""
        return self._native.best

    @property
    def best_epoch(self) -> int:
        """The epoch with the best value."""
        return self._native.best_epoch or 0

    @property
    def stopped_epoch(self) -> int:
        """The epoch after which training ended."""
        return self._native.stopped_epoch or 0

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.verbose and self.stopped_epoch:
            _say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.verbose and self.restore_best_weights and self._native.best_epoch is not None:
            _say(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
        super().on_train_end(logs)


class ReduceLROnPlateau(_Native):
    """Lowers the learning rate when a number has stopped improving; adds ``learning_rate`` to the numbers of an epoch.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The number that is watched.
    factor : float, default 0.1
        What the learning rate is multiplied by.
    patience : int, default 10
        After so many epochs without improvement.
    min_delta : float, default 1e-4
        Only a change by more than this is an improvement.
    cooldown : int, default 0
        So many epochs after a change do not count.
    min_lr : float, default 0
        The least learning rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if not 0.0 <= factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: `factor` must be at least 0 and less than 1, but it is {factor}")
        self.monitor, self.factor, self.patience, self.verbose = monitor, factor, patience, verbose
        self.mode, self.min_delta, self.cooldown, self.min_lr = mode, min_delta, cooldown, min_lr
        super().__init__()

    def _spec(self) -> dict[str, Any]:
        return {
            "kind": "reduce_lr_on_plateau",
            "monitor": self.monitor,
            "mode": self.mode,
            "factor": float(self.factor),
            "patience": int(self.patience),
            "min_delta": float(self.min_delta),
            "cooldown": int(self.cooldown),
            "min_lr": float(self.min_lr),
        }

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        before = float(self.model.optimizer.learning_rate)
        super().on_epoch_end(epoch, logs)
        after = float(self.model.optimizer.learning_rate)
        if self.verbose and after != before:
            _say(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {after}.")


class ModelCheckpoint(_Native):
    """Writes the model after every epoch or every so many batches.

    The files have Recurve's own form, whatever their names end in; `recurve.load` opens them. What a training needs to go
    on is written by ``fit(checkpoint=…)``.

    Parameters
    ----------
    filepath : path
        May have numbers in it: ``{epoch}``, of which the first is 1, ``{loss}``, ``{val_accuracy:.3f}``.
    monitor : str, default "val_loss"
        The number that tells which model is best.
    save_best_only : bool, default False
        Only the best model so far is written.
    save_weights_only : bool, default False
        Without effect: a file always has the whole model.
    save_freq : "epoch" or int
        After every epoch, or after so many batches.
    initial_value_threshold : float, optional
        The first model is only the best one if it is better than this.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(
                f'ModelCheckpoint: `save_freq` must be "epoch" or a number of batches, but it is {save_freq!r}'
            )
        self.filepath, self.monitor, self.verbose = os.fspath(filepath), monitor, verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.mode, self.save_freq, self.initial_value_threshold = mode, save_freq, initial_value_threshold
        self._epoch = 0
        super().__init__()

    def _spec(self) -> dict[str, Any]:
        threshold = self.initial_value_threshold
        return {
            "kind": "model_checkpoint",
            "path": self.filepath,
            "monitor": self.monitor,
            "mode": self.mode,
            "save_best_only": bool(self.save_best_only),
            "every_batches": None if self.save_freq == "epoch" else int(self.save_freq),
            "threshold": None if threshold is None else float(threshold),
        }

    @property
    def best(self) -> float | None:
        """The best value so far, with `save_best_only`."""
        return self._native.best

    @property
    def last_file(self) -> str | None:
        """The file that was written last."""
        path = self._native.last_file
        return None if path is None else os.fspath(path)

    def _tell(self, event: str, epoch: int, batch: int, logs: Logs | None) -> None:
        before = self.best
        self._call(event, epoch, batch, logs)
        if not self.verbose or (event == "epoch_end") != (self.save_freq == "epoch"):
            return
        if self.save_best_only and self.best == before:
            if logs is not None and self.monitor in logs:
                best = "None" if before is None else f"{before:.5f}"
                _say(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {best}")
        elif self.last_file is not None:
            _say(f"\nEpoch {epoch + 1}: saving model to {self.last_file}")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.save_freq != "epoch":
            self._tell("batch_end", self._epoch, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._tell("epoch_end", epoch, 0, logs)


class CSVLogger(_Native):
    """Writes a row of a CSV file after every epoch.

    Parameters
    ----------
    filename : path
        The file.
    separator : str, default ","
        One character between columns.
    append : bool, default False
        Behind what the file has, in place of it.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"CSVLogger: `separator` must be one character, but it is {separator!r}")
        self.filename, self.sep, self.append = os.fspath(filename), separator, append
        super().__init__()

    def _spec(self) -> dict[str, Any]:
        return {"kind": "csv_logger", "path": self.filename, "separator": self.sep, "append": bool(self.append)}


class TensorBoard(_Native):
    """Writes event files that TensorBoard draws: scalars of epochs, and of batches if asked for.

    Parameters
    ----------
    log_dir : path, default "logs"
        The folder.
    update_freq : "epoch", "batch" or int
        Numbers are also written after every batch, or every so many.
    histogram_freq, write_graph, write_images, embeddings_freq, profile_batch
        Graphs, histograms, images, embeddings and profiles are not written. `write_graph` has no effect; the others are
        refused unless they are off.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        off = {
            "histogram_freq": histogram_freq,
            "write_images": write_images,
            "write_steps_per_second": write_steps_per_second,
            "profile_batch": profile_batch,
            "embeddings_freq": embeddings_freq,
            "embeddings_metadata": embeddings_metadata,
        }
        for name, value in off.items():
            if value:
                raise ValueError(f"TensorBoard: `{name}` is not supported; only scalars are written")
        if update_freq not in ("epoch", "batch") and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(
                f'TensorBoard: `update_freq` must be "epoch", "batch" or a number, but it is {update_freq!r}'
            )
        self.log_dir, self.update_freq = os.fspath(log_dir), update_freq
        self._epoch = 0
        super().__init__()

    def _spec(self) -> dict[str, Any]:
        every = None if self.update_freq == "epoch" else 1 if self.update_freq == "batch" else int(self.update_freq)
        return {"kind": "tensor_board", "folder": self.log_dir, "every_batches": every}

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.update_freq != "epoch":
            self._call("batch_end", self._epoch, batch, logs)


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch; adds ``learning_rate`` to the numbers of an epoch.

    Parameters
    ----------
    schedule : callable
        Gives the learning rate of an epoch, of which the first is 0, by its number and the learning rate before it.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        rate = self.schedule(epoch, float(self.model.optimizer.learning_rate))
        if not isinstance(rate, (float, int, np.floating)):
            raise TypeError(f"LearningRateScheduler: `schedule` must give a number, not {type(rate).__name__}")
        self.model.optimizer.learning_rate = float(rate)
        if self.verbose:
            _say(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {float(rate)}.")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class LambdaCallback(Callback):
    """Functions in place of methods. Their arguments are those of `Callback`'s methods."""

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **others: Callable[..., Any],
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **others,
        }
        for name, f in given.items():
            if not hasattr(Callback, name):
                raise TypeError(f"LambdaCallback has no `{name}`")
            if f is not None:
                setattr(self, name, f)


class TerminateOnNaN(Callback):
    """Ends training at a loss that is not finite, in place of the `recurve.NotFinite` that `fit` raises without it. The
    weights are those before that step, and the loss of the epoch is NaN."""


class History(Callback, dict):
    """What `fit` measured: a dictionary of lists, one value an epoch, which draws itself in a notebook.

    Attributes
    ----------
    history : dict
        The dictionary itself.
    epoch : list of int
        The numbers of the epochs.
    params : dict
        ``verbose``, ``epochs`` and ``steps``.
    """

    def __init__(self) -> None:
        Callback.__init__(self)
        dict.__init__(self)
        self.epoch: list[int] = []
        # The numbers of each epoch, because not every epoch has all of them.
        self._rows: list[list[tuple[str, float]]] = []

    @property
    def history(self) -> dict[str, list[Any]]:
        """The numbers by name: this dictionary."""
        return self

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.clear()
        self.epoch = []
        self._rows = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.setdefault(name, []).append(value)
        self._rows.append([(k, float(v)) for k, v in logs.items() if isinstance(v, (int, float, np.number))])

    def _begin_with(self, epochs: list[int], rows: list[list[tuple[str, float]]]) -> None:
        """Takes over the epochs of a training that goes on."""
        for epoch, row in zip(epochs, rows):
            self.on_epoch_end(epoch, dict(row))

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw a panel for each number, with that of validation, into a file.

        Parameters
        ----------
        path : path
            Ends in ``.svg`` or ``.png``.
        """
        _recurve.save_history_plot(self.epoch, self._rows, os.fspath(path))

    def _repr_svg_(self) -> str | None:
        return _recurve.plot_history(self.epoch, self._rows) if self._rows else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _history, (self.epoch, self._rows, dict(self), dict(self.params))


def _history(epochs: list[int], rows: list[Any], numbers: dict[str, Any], params: dict[str, Any]) -> History:
    history = History()
    history.epoch, history._rows, history.params = epochs, rows, params
    history.update(numbers)
    return history


class ProgbarLogger(Callback):
    """Shows how far training is.

    In a terminal and in a notebook a line is written again and again while an epoch runs; elsewhere there is one line an
    epoch. It goes to ``sys.stdout``.
    """

    _WIDTH = 20

    def __init__(self) -> None:
        super().__init__()
        self._training = False
        self._begun = self._drawn = 0.0
        self._seen = 0
        self._shown = 0
        self._live = False
        self._head = ""

    def _lively(self) -> bool:
        out = sys.stdout
        if self.params.get("verbose") != 1 or out is None:
            return False
        terminal = hasattr(out, "isatty") and out.isatty()
        return terminal or type(out).__module__.startswith("ipykernel")

    def _write(self, text: str) -> None:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _start(self, head: str = "") -> None:
        self._begun, self._drawn, self._seen, self._shown = time.monotonic(), 0.0, 0, 0
        self._live = self._lively()
        if self._live and head:
            self._write(f"{head}\n")
        self._head = f"{head} - " if head else ""

    def _line(self, logs: Logs | None, done: bool) -> str:
        steps = self.params.get("steps") or (self._seen if done else None)
        taken = time.monotonic() - self._begun
        each = taken / max(self._seen, 1)
        if not self._live:
            text = f"{self._head}{self._seen}/{steps} - {_seconds(taken)} -"
        elif steps is None:
            text = f"{self._seen}/Unknown {_seconds(taken)}"
        else:
            filled = min(self._WIDTH, self._WIDTH * self._seen // max(steps, 1))
            left = taken if done else each * (steps - self._seen)
            text = (
                f"{self._seen:>{len(str(steps))}}/{steps} {'━' * filled}{'─' * (self._WIDTH - filled)} {_seconds(left)}"
            )
        text += f" {_each(each)}/step"
        for name, value in (logs or {}).items():
            if isinstance(value, (int, float, np.number)):
                text += f" - {name}: {_number(float(value))}"
        return text

    def _update(self, batch: int, logs: Logs | None) -> None:
        self._seen = batch + 1
        now = time.monotonic()
        if self._live and now - self._drawn > 0.05:
            self._drawn = now
            line = self._line(logs, False)
            self._write("\r" + line.ljust(self._shown))
            self._shown = len(line)

    def _finish(self, logs: Logs | None) -> None:
        line = self._line(logs, True)
        self._write(("\r" if self._live else "") + line.ljust(self._shown) + "\n")
        self._shown = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._training = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._start(f"Epoch {epoch + 1}/{self.params['epochs']}" if self.params["epochs"] > 1 else "")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._update(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._finish(logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self._training:
            self._start()

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not self._training:
            self._update(batch, logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self._training:
            self._finish(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._start()

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._update(batch, None)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._finish(None)

    def interrupted(self) -> None:
        """Ends a line that is not finished."""
        if self._shown:
            self._write("\n")
            self._shown = 0


def _seconds(t: float) -> str:
    if t < 60:
        return f"{t:.0f}s"
    minutes, seconds = divmod(int(t), 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _each(t: float) -> str:
    if t >= 1:
        return f"{t:.0f}s"
    return f"{t * 1e3:.0f}ms" if t >= 1e-3 else f"{t * 1e6:.0f}us"


def _number(v: float) -> str:
    return f"{v:.4f}" if abs(v) > 1e-3 or v == 0 or not math.isfinite(v) else f"{v:.4e}"
