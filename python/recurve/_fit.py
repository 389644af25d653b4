"""Training of models with Keras's words: `compile`, `fit`, `evaluate`, `predict`.

The loop over epochs and batches is here, and every step is one call of the compiled part. Callbacks run between two such
calls, so they may use the model for anything, their exceptions come out of `fit` as they are, and Ctrl-C ends `fit` after
the present step.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _recurve, losses, metrics, optimizers, utils
from ._data import Shapes, Source, as_numpy, floats, in_order, is_arrays, of_batches, parts
from .callbacks import CallbackList, History, ProgbarLogger, TerminateOnNaN

if TYPE_CHECKING:
    from ._model import Value

__all__ = ["FlatPart", "Training"]

#: Losses whose targets are labels.
_OF_LABELS = ("sparse_categorical_crossentropy", "ctc")


class FlatPart(NamedTuple):
    """A weight in a flat array of gradients."""

    name: str
    """Its name."""
    shape: tuple[int, ...]
    """Its shape."""
    start: int
    """The place of its first element."""
    stop: int
    """The place behind its last element."""
    trained: bool
    """Whether the part is a gradient; otherwise it is what a running mean or variance becomes."""


@dataclass
class _Place:
    """What callbacks of Rust's are told of a training."""

    first: int
    last: int
    epochs: int
    validates: bool
    resumed: bool


@dataclass
class _Compiled:
    """What `compile` was given."""

    loss: Any
    loss_weights: Any
    metrics: Any
    weighted_metrics: Any
    mixed_precision: bool
    gradient_checkpoints: bool
    frozen: list[str]
    seed: int


def _per_output(what: str, value: Any, names: list[str]) -> list[Any]:
    """One for each output: from a mapping, which may leave some out, or from a list."""
    if isinstance(value, Mapping):
        for key in value:
            if key not in names:
                raise ValueError(f"`{what}` has `{key}`, but the outputs are {', '.join(f'`{n}`' for n in names)}")
        return [value.get(n) for n in names]
    if len(value) != len(names):
        raise ValueError(
            f"`{what}` must be one for each of {len(names)} outputs ({', '.join(names)}), but there are {len(value)}"
        )
    return list(value)


class Training:
    """What a model has for training."""

    stop_training: bool = False
    """A callback may set it, to end `fit` after the present step."""
    optimizer: Any = None
    """The optimiser that the model was compiled with."""
    loss: Any = None
    """The loss that the model was compiled with."""
    history: Any = None
    """What the last `fit` measured."""

    _compiled: _Compiled | None = None
    _trainer: Any = None
    # Whether the trainer has newer weights than any runner.
    _ahead: bool = False
    # The runner whose weights the trainer had last.
    _synced: Any = None
    # The layers that the trainer was made of.
    _trained_graph: Any = None
    _fit_place: _Place | None = None

    # Weights: those of the trainer and those of the runner are brought together when the other one is used.

    def __getattr__(self, name: str) -> Any:
        if name == "_runner":
            return self._make_runner()
        above = getattr(super(), "__getattr__", None)
        if above is not None:
            return above(name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _make_runner(self) -> Any:
        if self._ahead:
            if self._trainer.is_elsewhere():
                # Another thread is training: these are the weights before.
                return self._synced
            runner = self._trainer.runner()
            self._synced = self.__dict__["_runner"] = runner
            self._ahead = False
            self._tell_of_weights()
            return runner
        above = getattr(super(), "_make_runner", None)
        if above is None:
            raise AttributeError("the model has no weights yet")
        return above()

    def _tell_of_weights(self) -> None:
        """Called when training has changed the weights that the model runs with."""
        above = getattr(super(), "_tell_of_weights", None)
        if above is not None:
            above()

    @property
    def built(self) -> bool:
        """Whether the model has weights."""
        self._settle()
        return "_runner" in self.__dict__ or bool(getattr(super(), "built", False))

    def _advance(self) -> None:
        """Says that the trainer has newer weights."""
        self.__dict__.pop("_runner", None)
        self._ahead = True

    def _take_over(self) -> None:
        """Gives the trainer weights that were set."""
        runner = self.__dict__.get("_runner")
        if runner is not None and runner is not self._synced:
            self._trainer.take_weights(runner)
            self._synced = runner

    def _settle(self) -> None:
        """Gives the model the weights of the trainer."""
        if self._ahead:
            self._make_runner()

    # Compiling

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "rmsprop",
        loss: Any = None,
        loss_weights: Sequence[float] | Mapping[str, float] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        *,
        mixed_precision: bool = False,
        gradient_checkpoints: bool = False,
        frozen: Iterable[str] = (),
        seed: int | None = None,
    ) -> None:
        """Set how the model is trained. The states of the optimiser begin anew; the weights stay.

        Parameters
        ----------
        optimizer : str or Optimizer, default "rmsprop"
            A name, or an object of `recurve.optimizers`.
        loss : str or Loss, or one for each output in a list or by name
            A name, or an object of `recurve.losses`.
        loss_weights : list or dict, optional
            What the loss of each output is multiplied by.
        metrics, weighted_metrics : list, optional
            Names or objects of `recurve.metrics`; for several outputs a list of lists, or a dict by the names of outputs.
            Only those of `weighted_metrics` count samples with their weights.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            Accepted for Keras's sake, without effect: a step always is one call of compiled code.
        mixed_precision : bool, default False
            Forward and backward passes see the weights rounded to float16; the loss is scaled.
        gradient_checkpoints : bool, default False
            Recurrent layers keep few of their states for the backward pass and compute the others again: less memory for
            long sequences.
        frozen : iterable of str, optional
            Names of weights that are not trained, or what they begin with.
        seed : int, optional
            What is drawn in training and the order of samples depend on it; by default that of
            `recurve.utils.set_random_seed`, or 0.

        Raises
        ------
        ValueError
            A name that is not known, with those that are.
        """
        if self._fit_place is not None:
            raise RuntimeError("the model cannot be compiled while `fit` runs")
        made = optimizers.get(optimizer)
        if loss is None:
            raise ValueError('`loss` must be given: a name such as "mse", or one for each output')
        given = _Compiled(
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            bool(mixed_precision),
            bool(gradient_checkpoints),
            [frozen] if isinstance(frozen, str) else list(frozen),
            utils.random_seed() if seed is None else int(seed),
        )
        _check_names(loss, metrics, weighted_metrics)
        self._settle()
        before = self.optimizer
        if before is not None and before is not made:
            before._trainer = None
        made._trainer = None
        self.optimizer, self.loss, self._compiled = made, loss, given
        self._trainer = None
        values = self.__dict__.get("_values")
        if values is None or len(values) > 0:
            self._make_trainer()

    def _make_trainer(self) -> Any:
        refresh = getattr(self, "_refresh", None)
        if refresh is not None:
            refresh()
        assert self._compiled is not None
        runner = self._runner
        trainer = _recurve.Trainer(runner, json.dumps(self._spec(), allow_nan=False))
        self._trainer, self._synced, self._ahead = trainer, runner, False
        self._trained_graph = self.__dict__.get("_graph")
        self.optimizer._trainer = trainer
        return trainer

    def _spec(self) -> dict[str, Any]:
        """What the compiled part needs to know."""
        c = self._compiled
        assert c is not None
        names = [v.name for v in self.outputs]
        own = self._losses(names)
        weights: list[float] = []
        if c.loss_weights is not None:
            if isinstance(c.loss_weights, (int, float)):
                weights = [float(c.loss_weights)] * len(names)
            else:
                given = _per_output("loss_weights", c.loss_weights, names)
                weights = [1.0 if w is None else float(w) for w in given]
        scale = {"initial": 32768.0, "growth": 2.0, "backoff": 0.5, "interval": 2000}
        return {
            **self.optimizer._spec(),
            "losses": [loss._spec() for loss in own],
            "loss_weights": weights,
            "metrics": _metric_specs(c.metrics, c.weighted_metrics, names),
            "mixed_precision": scale if c.mixed_precision else None,
            "checkpoints": c.gradient_checkpoints,
            "seed": c.seed,
            "frozen": c.frozen,
        }

    def _losses(self, names: list[str]) -> list[losses.Loss]:
        c = self._compiled
        assert c is not None
        if isinstance(c.loss, (Mapping, list, tuple)):
            given = _per_output("loss", c.loss, names)
        else:
            given = [c.loss] * len(names)
        for name, loss in zip(names, given):
            if loss is None:
                raise ValueError(f"`loss` has none for the output `{name}`; each output must have one")
        return [losses.get(loss) for loss in given]

    def _trainer_for(self, what: str, x: Any) -> Any:
        """The trainer with the present weights, for a call with such inputs."""
        if self._compiled is None:
            raise RuntimeError(f"the model must be compiled before `{what}`: model.compile(optimizer, loss)")
        prepare = getattr(self, "_prepare", None)
        if prepare is not None and x is not None and is_arrays(x):
            prepare(x)
        if self._trainer is None:
            return self._make_trainer()
        if self._trained_graph is not self.__dict__.get("_graph"):
            return self._make_trainer()
        changed = getattr(self, "_trains_others", None)
        if changed is not None and changed():
            # The optimizer begins anew, as its states are of the weights that are trained.
            self._settle()
            return self._make_trainer()
        if not self._ahead:
            runner = self._runner
            if runner is not self._synced:
                if not self._trainer.is_of(runner):
                    # Layers were added, or are trained or not any more.
                    return self._make_trainer()
                self._take_over()
        return self._trainer

    def _shapes(self) -> Shapes:
        labels = [loss._kind in _OF_LABELS for loss in self._losses([v.name for v in self.outputs])]
        return Shapes(self.inputs, self.outputs, labels)

    # Training

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 1,
        resume: str | os.PathLike[str] | bool | None = None,
    ) -> History:
        """Train the model. A second call goes on where the first ended.

        Ctrl-C ends it after the present step with `KeyboardInterrupt`; the weights that were reached stay.

        Parameters
        ----------
        x : array_like, list, dict, or batches
            Inputs, the samples first: one array, or one for each input in a list or by name. Or batches, ``(x, y)`` or
            ``(x, y, sample_weight)``: a generator, a `recurve.utils.PyDataset` (any object with ``__len__`` and
            ``__getitem__``), or anything that can be iterated over once for each epoch. Arrays are copied once, when
            `fit` begins.
        y : array_like, list or dict
            Targets, one array for each output.
        batch_size : int, default 32
            How many samples a step has.
        epochs : int, default 1
            The number behind that of the last epoch.
        verbose : {"auto", 0, 1, 2}
            1 (which is "auto"): in a terminal and in a notebook a line that is written again while an epoch runs,
            elsewhere a line an epoch; 2: a line an epoch; 0: nothing.
        callbacks : list of Callback, optional
            What is told of epochs and batches, in this order.
        validation_split : float, default 0
            The part of the samples at the end that is kept to validate with.
        validation_data : tuple or batches, optional
            ``(x, y)`` or ``(x, y, sample_weight)`` to validate with.
        shuffle : bool, default True
            Samples come in another order in every epoch, which depends on the seed and the number of the epoch.
        class_weight : dict, optional
            Weights of samples by their label, in training alone.
        sample_weight : array_like, optional
            Weights of samples: [N], or [N, T] for outputs of every timestep. They count for every output.
        initial_epoch : int, default 0
            The number of the first epoch.
        steps_per_epoch, validation_steps : int, optional
            How many batches an epoch or a validation has; needed for generators without an end.
        validation_batch_size : int, optional
            By default `batch_size`.
        validation_freq : int or list of int, default 1
            After how many epochs, or after which, counted from 1, there is a validation.
        checkpoint : path, optional
            A file that is written after every `checkpoint_every` epochs and after the last one: a model file that also
            has all that is needed to go on. Callbacks of one's own keep nothing in it.
        resume : path or True, optional
            Such a file, from which this training goes on: with its weights, states of the optimiser, epoch and history.
            True means `checkpoint`, if that file is there. With the same data and options the result has the same bits
            as that of a training that never ended.

        Returns
        -------
        History
            A dict of lists, one value an epoch: ``loss``, the metrics, and the same with ``val_``.

        Raises
        ------
        ValueError
            Data or options that do not fit, before anything is trained.
        NotFinite
            The loss of a step is not finite. The text says where a number first was not; the weights are those before.
        RuntimeError
            The model is not compiled, or another thread trains it.
        """
        _counts(
            epochs=epochs, initial_epoch=initial_epoch, batch_size=batch_size, steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps, validation_batch_size=validation_batch_size, checkpoint_every=checkpoint_every,
        )  # fmt: skip
        if x is None:
            raise ValueError("`x` must be given")
        trainer = self._trainer_for("fit", x)
        shapes = self._shapes()
        assert self._compiled is not None
        seed = self._compiled.seed if shuffle else None
        if is_arrays(x):
            if y is None:
                raise ValueError("`y` must be given with arrays")
            size = batch_size or 32
            inputs, targets, weights = shapes.arrays(x, y, sample_weight)
            count = len(inputs[0])
            if validation_split and validation_data is None:
                if not 0.0 < validation_split < 1.0:
                    raise ValueError(
                        f"`validation_split` must be at least 0 and less than 1, but it is {validation_split}"
                    )
                count = math.floor(len(inputs[0]) * (1.0 - validation_split))
                if count == 0 or count == len(inputs[0]):
                    raise ValueError(
                        f"`validation_split` must leave samples in both parts, but it is {validation_split} of {len(inputs[0])}"
                    )
                last = [None if a is None else a[count:] for a in [*inputs, *targets, weights]]
                n = len(inputs)
                validation_data = (last[:n], last[n:-1], *([] if weights is None else last[-1:]))
            inputs, targets = [a[:count] for a in inputs], [a[:count] for a in targets]
            weights = None if weights is None else weights[:count]
            if class_weight is not None:
                inputs, targets, weights = shapes.arrays(inputs, targets, weights, class_weight)
            data = _recurve.Dataset(inputs, targets, weights)
            source = Source(lambda epoch: data.epoch(size, seed, epoch), -(-count // size), steps_per_epoch, False)
        else:
            for name, value in [("y", y), ("batch_size", batch_size), ("sample_weight", sample_weight)]:
                if value is not None:
                    raise ValueError(f"`{name}` cannot be given with batches, which have their own")
            if validation_split:
                raise ValueError("`validation_split` is of arrays; give `validation_data`")
            source = of_batches(x, steps_per_epoch, seed, lambda item: shapes.batch(item, class_weight))
        validation = None
        if validation_data is not None:
            validation = self._validation(
                shapes, validation_data, validation_batch_size or batch_size, validation_steps
            )
        often = _validates(validation_freq)
        if resume is True:
            if checkpoint is None:
                raise ValueError("`resume=True` means the file of `checkpoint`, which is not given")
            resume = checkpoint if os.path.exists(checkpoint) else None
        if trainer.claim():
            raise RuntimeError("`fit` cannot be called by a callback of `fit`")
        place = _Place(initial_epoch, max(epochs - 1, 0), epochs, validation is not None, bool(resume))
        told = None
        self.stop_training = False
        self._fit_place = place
        try:
            told = CallbackList(callbacks, self, _verbosity(verbose), epochs, source.steps, history=True)
            self.history = told.history
            files = (None if checkpoint is None else os.fspath(checkpoint), checkpoint_every, resume or None)
            self._fit(trainer, source, validation, often, told, place, files)
            self._settle()
            assert told.history is not None
            return told.history
        except BaseException:
            for c in told.callbacks if told is not None else []:
                if isinstance(c, ProgbarLogger):
                    c.interrupted()
            raise
        finally:
            trainer.release()
            self._fit_place = None

    def _fit(
        self,
        trainer: Any,
        source: Source,
        validation: Any,
        validates: Callable[[int], bool],
        told: CallbackList,
        place: _Place,
        files: tuple[str | None, int, Any],
    ) -> None:
        checkpoint, every, resume = files
        history = told.history
        assert history is not None
        terminates = any(isinstance(c, TerminateOnNaN) for c in told.callbacks)
        told.tell("on_train_begin", {})
        if resume is not None:
            self._take_over()
            place.first, stopped, rows = trainer.load_fit(os.fspath(resume), told.native())
            self._advance()
            history._begin_with(*rows)
            self.stop_training = self.stop_training or stopped
        logs: dict[str, Any] = {}
        for epoch in range(place.first, place.epochs):
            if self.stop_training:
                break
            place.last = epoch
            told.tell("on_epoch_begin", epoch, {})
            self._take_over()
            run = trainer.begin_epoch()
            finite = True
            for step, batch in enumerate(source.epoch(epoch)):
                for c in told.train_batch_begin:
                    c.on_train_batch_begin(step, {})
                self._take_over()
                try:
                    trainer.train_batch(run, batch)
                except _recurve.NotFinite:
                    finite = False
                    if not terminates:
                        raise
                finally:
                    self._advance()
                if not finite:
                    break
                if told.train_batch_end:
                    numbers = run.logs()
                    for c in told.train_batch_end:
                        c.on_train_batch_end(step, numbers)
                if self.stop_training:
                    break
            whole = not self.stop_training
            try:
                logs = trainer.end_epoch(run) if finite else {}
            except _recurve.NotFinite:
                self._advance()
                finite = False
                if not terminates:
                    raise
            if not finite:
                logs = {"loss": math.nan}
                self.stop_training, whole = True, False
            elif validation is not None and validates(epoch + 1):
                logs.update({f"val_{k}": v for k, v in self._evaluate(trainer, validation(), told).items()})
            # What a callback adds is in the history, and not in what `on_train_end` is told, as in Keras.
            told.tell("on_epoch_end", epoch, dict(logs))
            if checkpoint is not None and whole:
                last = self.stop_training or epoch + 1 == place.epochs
                if last or (epoch + 1) % every == 0:
                    self._take_over()
                    rows = (history.epoch, history._rows)
                    trainer.save_fit(checkpoint, (epoch + 1, self.stop_training, rows), told.native())
        self._take_over()
        trainer.use_averages()
        self._advance()
        told.tell("on_train_end", logs)
        self._take_over()
        self._advance()

    def _validation(self, shapes: Shapes, data: Any, batch_size: int | None, steps: int | None) -> Any:
        """A function that gives the batches of one validation."""
        if isinstance(data, (tuple, list)):
            if len(data) not in (2, 3):
                raise ValueError(
                    f"`validation_data` must be (x, y) or (x, y, sample_weight), but it has {len(data)} parts"
                )
            x, y, weights = parts(tuple(data))
            stored = _recurve.Dataset(*shapes.arrays(x, y, weights))
            size = batch_size or 32
            return lambda: Source(lambda _: stored.epoch(size, None, 0), -(-len(stored) // size), steps, False)
        source = of_batches(data, steps, None, shapes.batch)
        if hasattr(data, "__next__"):
            return lambda: source
        return lambda: of_batches(data, steps, None, shapes.batch)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics of samples, without dropout and the like.

        Parameters
        ----------
        x, y, batch_size, sample_weight, callbacks, verbose
            As for `fit`.
        steps : int, optional
            How many batches are read.
        return_dict : bool, default False
            The numbers by name.

        Returns
        -------
        float, list of float or dict
            The loss if there are no metrics; else the loss and the metrics.
        """
        _counts(batch_size=batch_size, steps=steps)
        if x is None:
            raise ValueError("`x` must be given")
        trainer = self._trainer_for("evaluate", x)
        shapes = self._shapes()
        if is_arrays(x):
            if y is None:
                raise ValueError("`y` must be given with arrays")
            source = self._validation(shapes, (x, y, sample_weight), batch_size, steps)()
        else:
            source = of_batches(x, steps, None, shapes.batch)
        told = CallbackList(callbacks, self, _verbosity(verbose), 1, source.steps)
        claimed = trainer.claim()
        try:
            self._take_over()
            return self._scores(self._evaluate(trainer, source, told), return_dict)
        finally:
            if not claimed:
                trainer.release()

    def _evaluate(self, trainer: Any, source: Source, told: CallbackList) -> dict[str, float]:
        told.tell("on_test_begin", {})
        self._take_over()
        evaluation = trainer.begin_evaluation()
        for n, batch in enumerate(source.epoch(0)):
            for c in told.test_batch_begin:
                c.on_test_batch_begin(n, {})
            trainer.evaluate_batch(evaluation, batch)
            if told.test_batch_end:
                numbers = evaluation.logs()
                for c in told.test_batch_end:
                    c.on_test_batch_end(n, numbers)
        logs: dict[str, float] = evaluation.end()
        told.tell("on_test_end", logs)
        return logs

    @staticmethod
    def _scores(logs: dict[str, float], return_dict: bool) -> Any:
        if return_dict:
            return logs
        values = list(logs.values())
        return values[0] if len(values) == 1 else values

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for samples, computed batch by batch. The model need not be compiled.

        Parameters
        ----------
        x : array_like, list, dict, or batches
            As for `fit`.
        batch_size : int, default 32
            How many samples are computed together.
        steps : int, optional
            How many batches are read.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            The output, or all of them if there are several, the samples first.
        """
        _counts(batch_size=batch_size, steps=steps)
        prepare = getattr(self, "_prepare", None)
        if prepare is not None and is_arrays(x):
            prepare(x)
        inputs: list[Value] = self.inputs
        names = [v.name for v in inputs]

        def named(value: Any) -> dict[str, np.ndarray]:
            given = in_order("the inputs", value, names)
            return {n: as_numpy(f"input `{n}`", a) for n, a in zip(names, given)}

        if is_arrays(x):
            arrays, size = named(x), batch_size or 32
            count = len(arrays[names[0]])
            for name, array in arrays.items():
                if len(array) != count:
                    raise ValueError(f"input `{name}` has {len(array)} samples, but input `{names[0]}` has {count}")

            def batches(_: int) -> Iterator[Any]:
                for at in range(0, count, size):
                    yield {n: a[at : at + size] for n, a in arrays.items()}

            source = Source(batches, -(-count // size), steps, False)
        else:
            if batch_size is not None:
                raise ValueError("`batch_size` cannot be given with batches, which have their own")
            source = of_batches(x, steps, None, lambda item: named(parts(item)[0]))  # type: ignore[arg-type,return-value]
        told = CallbackList(callbacks, self, _verbosity(verbose), 1, source.steps)
        told.tell("on_predict_begin", {})
        runner = self._runner
        done: list[list[np.ndarray]] = []
        for n, batch in enumerate(source.epoch(0)):
            for c in told.predict_batch_begin:
                c.on_predict_batch_begin(n, {})
            outputs = list(runner.run(batch).values())
            done.append(outputs)
            for c in told.predict_batch_end:
                c.on_predict_batch_end(n, {"outputs": outputs[0] if len(outputs) == 1 else outputs})
        if not done:
            raise ValueError("`x` must have at least one batch, but there is none")
        try:
            joined = [np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*done)]
        except ValueError:
            raise ValueError("`x` has batches of different lengths, whose outputs do not form one array") from None
        told.tell("on_predict_end", {})
        return joined[0] if len(joined) == 1 else joined

    # Single batches

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Take one step.

        Returns
        -------
        float, list of float or dict
            Loss and metrics of the batch before the step, as `evaluate` returns them.
        """
        trainer = self._trainer_for("train_on_batch", x)
        batch = self._shapes().batch((x, y, sample_weight), class_weight)
        self._take_over()
        run = trainer.begin_epoch()
        try:
            trainer.train_batch(run, batch)
            logs = trainer.end_epoch(run)
        finally:
            self._advance()
        return self._scores(logs, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Loss and metrics of one batch, as `evaluate` returns them."""
        trainer = self._trainer_for("test_on_batch", x)
        batch = self._shapes().batch((x, y, sample_weight))
        self._take_over()
        evaluation = trainer.begin_evaluation()
        trainer.evaluate_batch(evaluation, batch)
        return self._scores(evaluation.end(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        count = len(in_order("the inputs", x, [v.name for v in self.inputs])[0]) if self.built else len(x)
        return self.predict(x, batch_size=max(count, 1), verbose=0)

    def reset_metrics(self) -> None:
        """Without effect: the numbers of `train_on_batch`, `test_on_batch` and of an epoch always begin anew."""

    @property
    def metrics_names(self) -> list[str]:
        """The names of the numbers that `evaluate` returns."""
        names: list[str] = self._trainer_for("metrics_names", None).metric_names()
        return names

    def reset_states(self) -> None:
        """Forget the states that stateful layers keep, in training and in runs."""
        if self._trainer is not None:
            self._trainer.reset_states()
        above = getattr(super(), "reset_states", None)
        if above is not None:
            above()

    # Files

    def save_checkpoint(self, path: str | os.PathLike[str], epoch: int = 0) -> None:
        """Write a model file that also has the states of the optimiser.

        Parameters
        ----------
        path : path
            The file, which `recurve.load` opens too.
        epoch : int, default 0
            The epoch to go on with.
        """
        trainer = self._trainer_for("save_checkpoint", None)
        trainer.save_fit(os.fspath(path), (epoch, False, ([], [])), [])

    def load_checkpoint(self, path: str | os.PathLike[str]) -> int:
        """Take over weights, states of the optimiser and learning rate from a file of `save_checkpoint` or of
        ``fit(checkpoint=…)``.

        Returns
        -------
        int
            The epoch to go on with, for `initial_epoch`.

        Raises
        ------
        ValueError
            The file is of another network, optimiser or seed; nothing has changed then.
        """
        trainer = self._trainer_for("load_checkpoint", None)
        epoch: int = trainer.load_state(os.fspath(path))
        self._advance()
        return epoch

    # Several processes

    def flat_layout(self) -> list[FlatPart]:
        """What is where in the arrays of `flat_gradients`, whose last two elements are the loss and the weight."""
        return [FlatPart(*part) for part in self._trainer_for("flat_layout", None).flat_layout()]

    def flat_gradients(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        weight: float | None = None,
    ) -> tuple[float, np.ndarray]:
        """The loss of a part of a batch, and all gradients as one array. Nothing changes.

        Parameters
        ----------
        x, y, sample_weight, class_weight
            The part, as for `train_on_batch`. A part without samples gives zeros.
        weight : float, optional
            What the part counts; by default its number of samples.

        Returns
        -------
        loss : float
            The loss of the part.
        gradients : numpy.ndarray
            float32 of one axis: the gradients times the weight, the loss times the weight, the weight. The sum of such
            arrays of all processes goes to `apply_flat`.
        """
        trainer = self._trainer_for("flat_gradients", None)
        first = next(iter(x.values())) if isinstance(x, Mapping) else x
        if len(first) == 0 or (isinstance(first, (list, tuple)) and len(self.inputs) > 1 and len(first[0]) == 0):
            return 0.0, trainer.flat_zeros()
        self._take_over()
        batch = self._shapes().batch((x, y, sample_weight), class_weight)
        loss, gradients = trainer.flat_gradients(batch, float(len(batch) if weight is None else weight))
        return loss, gradients

    def apply_flat(self, total: Any) -> float:
        """Take a step by the sum, or the mean, of the arrays of `flat_gradients`.

        Returns
        -------
        float
            The mean loss.
        """
        trainer = self._trainer_for("apply_flat", None)
        loss: float = trainer.apply_flat(floats(np.asarray(total)))
        self._advance()
        return loss

    def flat_weights(self) -> np.ndarray:
        """All weights as one array of float32: what one process gives to the others before the first step."""
        weights: np.ndarray = self._trainer_for("flat_weights", None).flat_weights()
        return weights

    def set_flat_weights(self, weights: Any) -> None:
        """Take over the weights of `flat_weights`. The states of the optimiser stay."""
        trainer = self._trainer_for("set_flat_weights", None)
        trainer.set_flat_weights(floats(np.asarray(weights)))
        self._advance()


def _metric_specs(plain: Any, weighted: Any, outputs: list[str]) -> list[dict[str, Any]]:
    """The metrics of all outputs, with the names that Keras gives them."""
    specs: list[dict[str, Any]] = []
    seen: set[str] = set()
    for what, given, counts in [("metrics", plain, False), ("weighted_metrics", weighted, True)]:
        for place, metric in _listed(what, given, outputs):
            name = metric.name if len(outputs) == 1 else f"{outputs[place]}_{metric.name}"
            if name in seen and counts:
                name = f"weighted_{metric.name}" if len(outputs) == 1 else f"{outputs[place]}_weighted_{metric.name}"
            count, first = 1, name
            while name in seen:
                name = f"{first}_{count}"
                count += 1
            seen.add(name)
            specs.append({"name": name, "output": place, "metric": metric._spec(), "weighted": counts})
    return specs


def _listed(what: str, given: Any, outputs: list[str]) -> Iterator[tuple[int, metrics.Metric]]:
    """Metrics with the places of their outputs."""
    if given is None:
        return
    if isinstance(given, str) or not isinstance(given, (list, tuple, Mapping)):
        if len(outputs) > 1:
            raise ValueError(f"`{what}` must be lists, one for each of the outputs {', '.join(outputs)}")
        given = [given]
    if len(outputs) == 1 and not isinstance(given, Mapping):
        for metric in given:
            for one in metric if isinstance(metric, (list, tuple)) else [metric]:
                yield 0, metrics.get(one)
        return
    for place, own in enumerate(_per_output(what, given, outputs)):
        for one in own if isinstance(own, (list, tuple)) else [] if own is None else [own]:
            yield place, metrics.get(one)


def _check_names(loss: Any, *all_metrics: Any) -> None:
    """Checks names of losses and metrics before the outputs are known."""

    def each(value: Any) -> Iterator[Any]:
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for v in value:
                yield from each(v)
        elif value is not None:
            yield value

    for one in each(loss):
        losses.get(one)
    for given in all_metrics:
        for one in each(given):
            metrics.get(one)


def _verbosity(verbose: str | int) -> int:
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise ValueError(f'`verbose` must be "auto", 0, 1 or 2, but it is {verbose!r}')
    return int(verbose)


def _validates(frequency: int | Iterable[int]) -> Callable[[int], bool]:
    """Whether there is a validation after an epoch, counted from 1."""
    if isinstance(frequency, Iterable):
        return {_positive("validation_freq", n) for n in frequency}.__contains__
    every = _positive("validation_freq", frequency)
    return lambda epoch: epoch % every == 0


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, but it is {value}")
    return int(value)


def _counts(**values: Any) -> None:
    """Checks numbers of epochs, batches and samples."""
    for name, value in values.items():
        if value is None:
            continue
        if name in ("epochs", "initial_epoch"):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"`{name}` must be a whole number, not {type(value).__name__}")
            if value < 0:
                raise ValueError(f"`{name}` must not be negative, but it is {value}")
        else:
            _positive(name, value)
