"""Samples of different lengths as batches: what batch inference and serving share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

import recurve

#: How sequences of different lengths come into one batch, see :class:`Collator`.
PADDINGS = ("auto", "lengths", "none")


#: The samples of an input or an output: an array ``[n, …]``, or a list of ``n`` arrays of different lengths.
Column: TypeAlias = "np.ndarray | list[np.ndarray]"


def _dense(value: Any) -> np.ndarray:
    """A sample as an array. Lists of lists and arrays of arrays (what Arrow makes of nested lists) become numbers."""
    array = np.asarray(value)
    if array.dtype == object:
        array = np.asarray([_dense(v) for v in array]) if array.ndim else np.asarray(array.item())
    return array


def samples(column: Any) -> Column:
    """The samples of a column: an array ``[n, …]`` if all have the same shape, else a list of ``n`` arrays."""
    if isinstance(column, np.ndarray) and column.dtype != object:
        return column
    rows = [_dense(value) for value in column]
    if len({(row.shape, row.dtype) for row in rows}) == 1:
        return np.stack(rows)
    return rows


class Collator:
    """Runs a model over many samples, in batches of similar lengths, and gives the results in the order of the samples.

    Parameters
    ----------
    model : recurve.Model
        The model. The first axis of its inputs and outputs is the batch; the second one of an input whose samples
        differ in it is time.
    pad : {"auto", "lengths", "none"} or float
        ``"lengths"``: sequences are padded with zeros to the longest one of their batch, and the model is told their
        lengths. ``"none"``: only sequences of equal length come into one batch, so nothing is padded. A number:
        sequences are padded with it and the model is told nothing, for models that find the padding themselves
        (``mask_zero`` of an embedding, ``Masking``). ``"auto"``: ``"lengths"`` if the model takes lengths, else
        ``"none"``.
    length_input : str, optional
        The input of the model that takes the lengths ``[B]``, for ONNX files that have one. Recurve's own networks take
        lengths without an input.
    batch_size : int
        The largest number of samples in one call of the model.
    by_length : bool
        Sort by length before batches are made. Otherwise batches are made in the order of the samples; with
        ``pad="none"`` samples are always sorted.
    """

    def __init__(
        self,
        model: recurve.Model,
        *,
        pad: str | float = "auto",
        length_input: str | None = None,
        batch_size: int = 256,
        by_length: bool = True,
    ):
        names = [value.name for value in model.inputs]
        if isinstance(pad, str) and pad not in PADDINGS:
            raise ValueError(f"pad must be one of {', '.join(PADDINGS)} or a number, but it is {pad!r}")
        if length_input is not None and length_input not in names:
            raise ValueError(f"length_input: there is no input `{length_input}`; the inputs are {', '.join(names)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but it is {batch_size}")
        # The networks of Recurve's own take them by this name, without an input of it.
        own = model._runner.takes_lengths
        if pad == "lengths" and not own and length_input is None:
            raise ValueError("pad='lengths': the model takes no lengths; `length_input` names an input that does")
        takes = own or length_input is not None
        self.model = model
        self.length_input = length_input
        self.batch_size = batch_size
        self.by_length = by_length
        self.pad = ("lengths" if takes else "none") if pad == "auto" else pad
        #: The inputs that samples have, without that of the lengths.
        self.inputs = [value for value in model.inputs if value.name != length_input]

    def check(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One sample as arrays.

        Parameters
        ----------
        sample : mapping
            An array for each input, without the axis of the batch.

        Raises
        ------
        ValueError
            For names or shapes that are not the model's.
        TypeError
            For what is not numbers.
        """
        names = [value.name for value in self.inputs]
        if not isinstance(sample, Mapping):
            kind = type(sample).__name__
            listed = ", ".join(names)
            raise TypeError(f"a sample must be a mapping from the inputs {listed} to arrays, but it is {kind}")
        wrong = [name for name in [*sample, *names] if (name in sample) != (name in names)]
        if wrong:
            given = ", ".join(map(str, sample)) or "none"
            raise ValueError(f"a sample has the inputs {', '.join(names)}, but this one has {given}")
        arrays = {}
        for value in self.inputs:
            try:
                array = _dense(sample[value.name])
            except ValueError:
                raise ValueError(f"{value.name}: the lists inside must have equal lengths") from None
            if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
                raise TypeError(f"{value.name}: expected numbers, got {array.dtype}")
            want = None if value.shape is None else value.shape[1:]
            fits = want is None or (
                array.ndim == len(want) and all(not isinstance(w, int) or w == n for w, n in zip(want, array.shape))
            )
            if not fits:
                words = ", ".join("?" if w is None else str(w) for w in want or ())
                raise ValueError(f"{value.name}: a sample has the shape [{words}], got {list(array.shape)}")
            if 0 in array.shape:
                raise ValueError(f"{value.name}: a sample must not be empty, got {list(array.shape)}")
            arrays[value.name] = array
        return arrays

    def run_samples(self, rows: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """The outputs for each of some samples that :meth:`check` has passed."""
        columns = {value.name: samples([row[value.name] for row in rows]) for value in self.inputs}
        outputs = self.run(columns)
        return [{name: column[row] for name, column in outputs.items()} for row in range(len(rows))]

    def run(
        self, columns: Mapping[str, Column], lengths: np.ndarray | None = None
    ) -> dict[str, Column]:
        """The outputs for all samples.

        Parameters
        ----------
        columns : dict
            For each input the samples, as an array ``[n, …]`` or a list of ``n`` arrays.
        lengths : array of int, optional
            The lengths of samples that are padded already, ``[n]``.

        Returns
        -------
        dict
            For each output an array ``[n, …]``, or a list of ``n`` arrays whose lengths differ.
        """
        counts = {len(column) for column in columns.values()}
        if len(counts) != 1:
            raise ValueError(f"inputs have different numbers of samples: {sorted(counts)}")
        (n,) = counts
        if lengths is not None:
            columns = self._cut(columns, np.asarray(lengths), n)
        ragged = {name: column for name, column in columns.items() if isinstance(column, list)}
        if not ragged:
            groups = [np.arange(first, min(first + self.batch_size, n)) for first in range(0, n, self.batch_size)]
        else:
            groups = self._groups(ragged, n)
        parts = [self._run_group(columns, ragged, group) for group in groups]
        names = parts[0].keys() if parts else [value.name for value in self.model.outputs]
        return {name: _in_order(groups, [part[name] for part in parts], n) for name in names}

    def _cut(
        self, columns: Mapping[str, Column], lengths: np.ndarray, n: int
    ) -> Mapping[str, Column]:
        """Takes padding that a sample has already off, so that batches are made of what counts."""
        if lengths.shape != (n,) or lengths.dtype.kind not in "iu":
            raise ValueError(f"lengths must be {n} whole numbers, got {lengths.dtype} {list(lengths.shape)}")
        timed = [v.name for v in self.inputs if _time(v) is not None]
        if not timed:
            raise ValueError("lengths: the number of timesteps is fixed for every input")
        if n:
            longest = min(len(sample) for name in timed for sample in columns[name])
            if not (1 <= lengths.min() and lengths.max() <= longest):
                raise ValueError(
                    f"lengths must be from 1 to {longest}, the number of timesteps, "
                    f"got {lengths.min()} to {lengths.max()}"
                )
        cut = dict(columns)
        for name in timed:
            cut[name] = [sample[:length] for sample, length in zip(columns[name], lengths)]
        return cut

    def _groups(self, ragged: Mapping[str, list[np.ndarray]], n: int) -> list[np.ndarray]:
        """Which samples run together: the numbers of samples of each batch."""
        lengths = np.array([[len(sample) for sample in column] for column in ragged.values()])
        for name, column in ragged.items():
            rest = {sample.shape[1:] for sample in column}
            if len(rest) > 1:
                shapes = sorted(map(list, rest))
                raise ValueError(
                    f"{name}: samples may differ in their first axis only, but timesteps have the shapes {shapes}"
                )
        if self.pad == "lengths" and (lengths != lengths[0]).any():
            names = ", ".join(ragged)
            raise ValueError(f"the inputs {names} of a sample have different lengths, and the model takes one")
        exact = self.pad == "none"
        order = np.lexsort(lengths[::-1]) if exact or self.by_length else np.arange(n)
        groups, first = [], 0
        for at in range(1, n + 1):
            full = at == n or at - first == self.batch_size
            if full or (exact and (lengths[:, order[at]] != lengths[:, order[first]]).any()):
                groups.append(order[first:at])
                first = at
        return groups

    def _run_group(
        self, columns: Mapping[str, Column], ragged: Mapping[str, list[np.ndarray]], group: np.ndarray
    ) -> dict[str, Column]:
        """One call of the model."""
        feeds: dict[str, np.ndarray] = {}
        own = None
        for name, column in columns.items():
            if not isinstance(column, list):
                feeds[name] = column[group[0] : group[-1] + 1] if _consecutive(group) else column[group]
                continue
            rows = [column[row] for row in group]
            own = np.array([len(row) for row in rows])
            padding = self.pad if isinstance(self.pad, (int, float)) else 0
            feeds[name] = _padded(rows, own.max(), padding)
        if own is None and self.length_input is not None:
            # Nothing is padded, but the model wants lengths.
            first = feeds[self.inputs[0].name]
            own = np.full(len(group), first.shape[1])
        if own is not None and self.length_input is not None:
            wanted = next(value.dtype for value in self.model.inputs if value.name == self.length_input)
            feeds[self.length_input] = own.astype(wanted)
        elif own is not None and self.pad == "lengths" and own.min() != own.max():
            feeds["lengths"] = own
        outputs = self.model.run(feeds)
        if own is None or own.min() == own.max():
            return dict(outputs)
        return {name: self._unpadded(name, value, own, set(ragged)) for name, value in outputs.items()}

    def _unpadded(self, name: str, value: np.ndarray, own: np.ndarray, ragged: set[str]) -> Column:
        """An output without what belongs to padded timesteps, if it has timesteps."""
        axis = next(_time(v) for v in self.model.outputs if v.name == name)
        times = {_time(v) for v in self.inputs if v.name in ragged}
        if axis is None or value.ndim < 2 or value.shape[1] != own.max():
            return value
        # A symbol that no sequence has is another axis.
        if axis != "?" and "?" not in times and axis not in times:
            return value
        return [row[:length] for row, length in zip(value, own)]


def _time(value: recurve.Value) -> str | None:
    """The symbol of the second axis, or "?" where it has none; None where the axis is not there or has a fixed size."""
    if value.shape is None:
        return "?"
    if len(value.shape) < 2 or isinstance(value.shape[1], int):
        return None
    return value.shape[1] or "?"


def _consecutive(group: np.ndarray) -> bool:
    return group[-1] - group[0] == len(group) - 1 and bool((np.diff(group) == 1).all())


def _padded(rows: list[np.ndarray], longest: int, padding: float) -> np.ndarray:
    """Samples ``[T_i, …]`` as one array ``[B, T, …]``."""
    dtype = np.result_type(*{row.dtype for row in rows})
    array = np.full((len(rows), longest, *rows[0].shape[1:]), padding, dtype)
    for row, out in zip(rows, array):
        out[: len(row)] = row
    return array


def _in_order(groups: list[np.ndarray], parts: list[Any], n: int) -> Column:
    """The results of all groups in the order of the samples."""
    shapes = {part.shape[1:] if isinstance(part, np.ndarray) else None for part in parts}
    if len(shapes) == 1 and None not in shapes:
        whole = np.empty((n, *parts[0].shape[1:]), parts[0].dtype)
        for group, part in zip(groups, parts):
            whole[group] = part
        return whole
    rows: list[Any] = [None] * n
    for group, part in zip(groups, parts):
        for row, value in zip(group, part):
            rows[row] = value
    return rows
