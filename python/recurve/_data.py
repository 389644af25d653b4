"""Data of training: arrays, sequences of batches, generators, as batches that the compiled part takes.

Arrays are copied once when a call of `fit`, `evaluate` or `predict` begins, so that what happens to them afterwards has no
effect; batches of generators are copied when they come.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _recurve
from .utils import PyDataset

if TYPE_CHECKING:
    from ._model import Value


def as_numpy(what: str, value: Any) -> np.ndarray:
    """An array of numpy's of anything that can be one, of numbers or truth values, with something in it."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array; fill it first, and give weights of samples for what does not count")
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        array = np.from_dlpack(value)
    else:
        try:
            array = np.asarray(value)
        except ValueError as e:
            raise ValueError(
                f"{what} makes no array: {e}; sequences of different lengths become one by pad_sequences"
            ) from e
    if array.dtype.kind == "V" and str(array.dtype) == "bfloat16":
        array = array.astype("float32")
    if array.dtype.kind not in "fiub":
        hint = "; sequences of different lengths become one array by pad_sequences" if array.dtype.kind == "O" else ""
        raise TypeError(f"{what} holds elements of type {array.dtype}, but numbers are needed{hint}")
    if array.ndim == 0:
        raise ValueError(f"{what} is a single number, but its first axis must count samples")
    if array.size == 0:
        raise ValueError(f"{what} is empty, its shape is {array.shape}")
    return array


def floats(array: np.ndarray) -> np.ndarray:
    """The array as float32 in C order, which is the array itself if it is."""
    return np.ascontiguousarray(array, dtype=np.float32)


def whole(what: str, array: np.ndarray) -> np.ndarray:
    """The array as uint32."""
    for number in (array.min(), array.max()):
        if not 0 <= int(number) < 2**32:
            raise ValueError(f"{what} holds {number}, but ids and labels are from 0 to 4294967295")
    return np.ascontiguousarray(array, dtype=np.uint32)


def as_input(value: Any, of: Value) -> np.ndarray:
    """An array for an input of a model."""
    what = f"input `{of.name}`"
    array = as_numpy(what, value)
    if of.shape is not None:
        fixed = [d if isinstance(d, int) else None for d in of.shape]
        fits = len(fixed) == array.ndim and all(w is None or w == g for w, g in zip(fixed[1:], array.shape[1:]))
        if not fits:
            wanted = ", ".join("any" if d is None else str(d) for d in of.shape)
            raise ValueError(f"{what} must have the shape ({wanted}), the samples first, but it has {array.shape}")
    if of.dtype.startswith("float"):
        return floats(array)
    if array.dtype.kind == "f":
        raise TypeError(
            f'{what} holds floats ({array.dtype}), but whole numbers are needed; convert them, `array.astype("int64")`'
        )
    return whole(what, array)


def as_target(what: str, value: Any, labels: bool) -> np.ndarray:
    """An array for a target: whole numbers where the loss wants labels, else floats."""
    array = as_numpy(what, value)
    if not labels:
        return floats(array)
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.floor(array)):
            raise ValueError(
                f"{what} must be labels, whole numbers, but it holds {array[array != np.floor(array)].flat[0]}"
            )
        array = array.astype("int64")
    return whole(what, array)


def target_fits(what: str, target: np.ndarray, output: Value, labels: bool) -> None:
    """Checks the shape of a target: that of the output, or without its last axis."""
    shape = output.shape
    if shape is None:
        return
    short = target.ndim == len(shape) - 1 and (labels or shape[-1] == 1)
    whole_shape = [*shape[1:-1], 1 if labels else shape[-1]]
    wanted = whole_shape[:-1] if short else whole_shape
    fits = short or target.ndim == len(shape)
    if fits and all(not isinstance(w, int) or w == g for w, g in zip(wanted, target.shape[1:])):
        return
    if labels and target.ndim == 2 and len(shape) == 3:
        # Labels of a CTC loss are not of timesteps.
        return
    sizes = ", ".join(
        "any" if not isinstance(d, int) else str(d) for d in [None, *(whole_shape[:-1] if labels else whole_shape)]
    )
    kind = "labels of the shape" if labels else "the shape"
    raise ValueError(f"{what} must have {kind} ({sizes}), the samples first, but it has {target.shape}")


def in_order(what: str, value: Any, names: list[str]) -> list[Any]:
    """One value for each name: from a mapping by name, from a list in order, or the only one. A list of one array is that
    array, as in Keras; one of numbers is an array itself."""
    if isinstance(value, Mapping):
        unknown = [k for k in value if k not in names]
        left = [n for n in names if n not in value]
        if unknown or left:
            problem = f"`{unknown[0]}` is none of them" if unknown else f"`{left[0]}` is missing"
            raise ValueError(f"{what} must be named {', '.join(f'`{n}`' for n in names)}, but {problem}")
        return [value[n] for n in names]
    if len(names) == 1:
        alone = (
            isinstance(value, (list, tuple))
            and len(value) == 1
            and hasattr(value[0], "__array__")
            and np.ndim(value[0])
        )
        return [value[0] if alone else value]
    if not isinstance(value, (list, tuple)) or len(value) != len(names):
        got = len(value) if isinstance(value, (list, tuple)) else f"one {type(value).__name__}"
        raise ValueError(f"{what} must be {len(names)} ({', '.join(names)}), in a list or by name, but there is {got}")
    return list(value)


def from_classes(targets: np.ndarray, weights: Mapping[int, float]) -> np.ndarray:
    """Weights of samples from those of their classes, as Keras has them."""
    try:
        known = {int(k): float(v) for k, v in weights.items()}
    except (TypeError, ValueError, AttributeError):
        raise TypeError("`class_weight` must map numbers of classes to weights") from None
    if targets.ndim > 2:
        raise ValueError(
            f"`class_weight` is of one label for each sample, but the targets have the shape {targets.shape}"
        )
    if targets.ndim > 1:
        targets = np.argmax(targets, axis=-1) if targets.shape[-1] != 1 else targets[..., 0]
    labels, places = np.unique(np.round(targets).astype("int64"), return_inverse=True)
    return np.array([known.get(int(n), 1.0) for n in labels], dtype=np.float32)[places.reshape(-1)]


class Shapes:
    """What a model's data must be: its inputs, its outputs, and which of these are compared with labels."""

    def __init__(self, inputs: list[Value], outputs: list[Value], labels: list[bool]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.labels = labels

    def arrays(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Mapping[int, float] | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray | None]:
        """Inputs, targets and weights as arrays that the compiled part takes."""
        given = in_order("the inputs", x, [v.name for v in self.inputs])
        inputs = [as_input(a, v) for a, v in zip(given, self.inputs)]
        count = len(inputs[0])
        named = [(f"input `{v.name}`", a) for v, a in zip(self.inputs, inputs)]
        targets: list[np.ndarray] = []
        if y is not None:
            names = [v.name for v in self.outputs]
            wanted = in_order("the targets", y, names)
            whats = [f"the target of `{n}`" if len(names) > 1 else "the target" for n in names]
            targets = [as_target(w, a, of_labels) for w, a, of_labels in zip(whats, wanted, self.labels)]
            for what, target, output, labels in zip(whats, targets, self.outputs, self.labels):
                target_fits(what, target, output, labels)
            named += list(zip(whats, targets))
        weights = self._weights(sample_weight)
        if class_weight is not None:
            if weights is not None:
                raise ValueError("`class_weight` and `sample_weight` cannot be given together")
            if len(targets) != 1:
                raise ValueError(f"`class_weight` is of models with one output, but there are {len(self.outputs)}")
            weights = from_classes(targets[0], class_weight)
        if weights is not None:
            named.append(("`sample_weight`", weights))
        for what, array in named:
            if len(array) != count:
                raise ValueError(f"{what} has {len(array)} samples, but input `{self.inputs[0].name}` has {count}")
        return inputs, targets, weights

    def _weights(self, value: Any) -> np.ndarray | None:
        if value is None:
            return None
        if isinstance(value, (Mapping, list, tuple)) and len(self.outputs) > 1:
            every = list(value.values()) if isinstance(value, Mapping) else list(value)
            given = [v for v in every if v is not None]
            arrays = [as_numpy("`sample_weight`", v) for v in given if np.ndim(v)]
            if len(arrays) != len(self.outputs) or any(not np.array_equal(a, arrays[0]) for a in arrays):
                raise ValueError("`sample_weight` must be one array, which counts for every output; weights that differ "
                                 "between outputs are not supported")  # fmt: skip
            value = arrays[0]
        array = as_numpy("`sample_weight`", value)
        if not np.isfinite(array).all():
            raise ValueError("`sample_weight` must be finite")
        return floats(array)

    def batch(self, item: Any, class_weight: Mapping[int, float] | None = None, targets: bool = True) -> _recurve.Batch:
        """A batch of a generator: x, (x,), (x, y) or (x, y, sample_weight)."""
        x, y, weights = parts(item)
        if targets and y is None:
            raise ValueError(
                "a batch of the data has inputs but no targets; it must be (x, y) or (x, y, sample_weight)"
            )
        return _recurve.Batch(*self.arrays(x, y if targets else None, weights if targets else None, class_weight))


def parts(item: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights of what stands for them together."""
    if not isinstance(item, (tuple, list)) or (isinstance(item, list) and len(item) > 3):
        return item, None, None
    if not 1 <= len(item) <= 3:
        raise ValueError(f"data must be (x,), (x, y) or (x, y, sample_weight), but it has {len(item)} parts")
    return (*item, *[None] * (3 - len(item)))


class Source:
    """Batches of one epoch after the other.

    `steps` is how many batches an epoch has, if that is known.
    """

    def __init__(
        self, make: Callable[[int], Iterator[Any]], steps: int | None, limit: int | None, endless: bool
    ) -> None:
        self._make = make
        self._limit = limit
        self.steps = limit if limit is not None else steps
        # Whether an iterator goes on in the next epoch.
        self._endless = endless
        self._going: Iterator[Any] | None = None
        self._pass = 0

    def epoch(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch."""
        if self._limit is None:
            yield from self._make(epoch)
            return
        for step in range(self._limit):
            if self._going is None:
                self._going = self._make(self._pass)
                self._pass += 1
            batch = next(self._going, None)
            if batch is None:
                if not self._endless:
                    self._going = None
                    if step == 0:
                        # The last batch of the epoch before was the last of the data.
                        self._going = self._make(self._pass)
                        self._pass += 1
                        batch = next(self._going, None)
                if batch is None:
                    warnings.warn(
                        f"the data ended after {step} of {self._limit} batches of an epoch",
                        RuntimeWarning,
                        stacklevel=4,
                    )
                    return
            yield batch


def is_arrays(x: Any) -> bool:
    """Whether this is arrays, and not something that gives batches."""
    if isinstance(x, (np.ndarray, Mapping, list, tuple)) or hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        return True
    return not (hasattr(x, "__iter__") or hasattr(x, "__next__") or hasattr(x, "__getitem__"))


def of_batches(x: Any, steps: int | None, seed: int | None, make: Callable[[Any], _recurve.Batch]) -> Source:
    """Batches of a generator, of an object with `__len__` and `__getitem__`, or of anything else that is iterated over
    once for each epoch."""
    if hasattr(x, "__next__"):
        return Source(lambda _: (make(item) for item in x), None, steps, True)
    if isinstance(x, PyDataset) or (hasattr(x, "__len__") and hasattr(x, "__getitem__") and not hasattr(x, "__iter__")):

        def batches(epoch: int) -> Iterator[Any]:
            order = np.arange(len(x))
            if seed is not None:
                np.random.default_rng([seed, epoch]).shuffle(order)
            for place in order:
                yield make(x[int(place)])
            if hasattr(x, "on_epoch_end"):
                x.on_epoch_end()

        return Source(batches, len(x), steps, False)
    count = len(x) if hasattr(x, "__len__") else None
    return Source(lambda _: (make(item) for item in x), count, steps, False)
