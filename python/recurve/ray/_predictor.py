"""Batch inference over a data set of Ray Data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import recurve
from recurve import _recurve

from ._collate import Collator, samples
from ._device import choose_device, limit_threads

#: What a model is given as: where its file is, the bytes of a file, or a model.
ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | recurve.Model"


class _Shipped(NamedTuple):
    """A model on its way to a worker, without the device on which it was."""

    data: bytes
    onnx: bool


def shipped(model: Any) -> Any:
    """What goes to a worker in the place of a model: a model as bytes, since its device may not be there."""
    if isinstance(model, recurve.Model):
        return _Shipped(model._runner.to_bytes(), model._runner.is_onnx)
    if isinstance(model, os.PathLike):
        return os.fspath(model)
    if not isinstance(model, (str, bytes, bytearray)):
        kind = type(model).__name__
        raise TypeError(f"model must be a path, the bytes of a file or a recurve.Model, but it is {kind}")
    return bytes(model) if isinstance(model, bytearray) else model


def load_model(model: Any, device: str | recurve.Device) -> recurve.Model:
    """The model of a worker, on the device that Ray has reserved for it."""
    device = choose_device(device)
    if isinstance(model, recurve.Model):
        return model.to(device)
    if not isinstance(model, _Shipped):
        model = shipped(model)
    if isinstance(model, bytes):
        # A native file begins with the length of its header, which is JSON.
        model = _Shipped(model, model[8:9] != b"{")
    if isinstance(model, _Shipped):
        return recurve.Model._of(_recurve.Runner.from_bytes(model.data, model.onnx, device))
    return recurve.load(model, device=device)


def _named(names: Sequence[str], given: Any, what: str) -> dict[str, str]:
    """The columns of inputs or outputs: a mapping from the model's names."""
    if given is None:
        return {name: name for name in names}
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Mapping):
        given = list(given)
        if set(given) <= set(names):
            given = {name: name for name in given}
        elif len(given) == len(names):
            given = dict(zip(names, given))
        else:
            raise ValueError(f"{what}: {', '.join(given)} are not names of the model's: {', '.join(names)}")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"{what}: there is no {what[:-1]} `{unknown[0]}`; there are {', '.join(names)}")
    return dict(given)


class Predictor:
    """A model for :meth:`ray.data.Dataset.map_batches`: one in each actor, loaded once.

    A batch of rows becomes the same rows, in the same order, with a column for each output. Rows may have sequences of
    different lengths; they are sorted by length and run in batches of similar ones.

    Parameters
    ----------
    model : path, bytes or recurve.Model
        A path must lead to the file on every machine. Bytes, of an ONNX file or one of Recurve's own, travel with the
        actor. So does a model, which first comes to the device that it was on.
    inputs : str, list of str or dict, optional
        The columns that the model reads: a mapping from its inputs to columns, or a list of columns in the order of its
        inputs. Without it each input is the column of its name.
    outputs : str, list of str or dict, optional
        The outputs that are wanted, and the columns that they become; without it all, by their names.
    lengths : str, optional
        The column with the number of timesteps that count, for sequences that are padded already.
    device : str
        As in :func:`recurve.load`. ``"auto"`` is the GPU that Ray has reserved for the actor (``num_gpus``, of which
        several actors may have a part each), else the CPU.
    batch_by_length : bool
        Whether rows are sorted by length before they are put into batches.
    batch_size : int
        The largest number of rows in one call of the model; ``batch_size`` of ``map_batches`` says among how many rows
        similar ones are looked for.
    pad : {"auto", "lengths", "none"} or float
        How sequences of different lengths come into a batch. ``"lengths"``: padded, and the model is told their
        lengths. ``"none"``: only equal lengths go together. A number: padded with it, for models that find the padding
        by themselves. ``"auto"``: ``"lengths"`` if the model takes lengths, else ``"none"``.
    length_input : str, optional
        The input that takes the lengths, in ONNX files that have one.
    threads : int, optional
        Threads of the CPU code. Without it the CPUs that Ray has reserved (``num_cpus``), at least one; with
        ``RAYON_NUM_THREADS`` in the environment of the worker that number.

    Examples
    --------
    >>> import ray
    >>> rows = ray.data.read_parquet("reviews")                                   # doctest: +SKIP
    >>> scored = rows.map_batches(                                                # doctest: +SKIP
    ...     recurve.ray.Predictor,
    ...     fn_constructor_kwargs={"model": "imdb.safetensors", "inputs": "ids", "outputs": "score"},
    ...     batch_size=4096, concurrency=4, num_gpus=0.25,
    ... )
    >>> scored.write_parquet("scored")                                            # doctest: +SKIP
    """

    def __init__(
        self,
        model: ModelSource,
        inputs: str | Sequence[str] | Mapping[str, str] | None = None,
        outputs: str | Sequence[str] | Mapping[str, str] | None = None,
        lengths: str | None = None,
        device: str = "auto",
        batch_by_length: bool = True,
        *,
        batch_size: int = 256,
        pad: str | float = "auto",
        length_input: str | None = None,
        threads: int | None = None,
    ):
        limit_threads(threads)
        self.model = load_model(model, device)
        self._collator = Collator(
            self.model, pad=pad, length_input=length_input, batch_size=batch_size, by_length=batch_by_length
        )
        names = [value.name for value in self._collator.inputs]
        self._inputs = _named(names, inputs, "inputs")
        missing = [name for name in names if name not in self._inputs]
        if missing:
            raise ValueError(f"inputs: there is no column for the input `{missing[0]}`")
        self._outputs = _named([value.name for value in self.model.outputs], outputs, "outputs")
        self._lengths = lengths

    def __call__(self, batch: Any) -> dict[str, np.ndarray]:
        """The rows of a batch with a column for each output.

        Parameters
        ----------
        batch : dict of arrays, pandas.DataFrame or pyarrow.Table
            Any ``batch_format``.

        Returns
        -------
        dict of arrays
            The columns of the batch, and those of the outputs; where rows of an output have different lengths, an array
            of arrays.
        """
        columns = _columns(batch)
        wanted = [*self._inputs.values(), *([self._lengths] if self._lengths is not None else [])]
        missing = [name for name in wanted if name not in columns]
        if missing:
            raise ValueError(f"there is no column `{missing[0]}`; the columns are {', '.join(columns)}")
        lengths = None if self._lengths is None else columns[self._lengths]
        given = {name: samples(columns[column]) for name, column in self._inputs.items()}
        results = self._collator.run(given, lengths)
        for name, column in self._outputs.items():
            columns[column] = _column(results[name])
        return columns


def _columns(batch: Any) -> dict[str, np.ndarray]:
    """The columns of a batch of any format as arrays."""
    if isinstance(batch, Mapping):
        return dict(batch)
    from ray.data.block import BlockAccessor

    return dict(BlockAccessor.for_block(batch).to_batch_format("numpy"))


def _column(values: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """A column of Ray Data: an array of arrays where rows have different shapes."""
    if isinstance(values, np.ndarray):
        return values
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column
