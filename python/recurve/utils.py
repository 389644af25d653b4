"""What stands around training: padding, one-hot targets, seeds, data in batches.

>>> pad_sequences([[1], [2, 3], [4, 5, 6]], maxlen=2)
array([[0, 1],
       [2, 3],
       [5, 6]], dtype=int32)
>>> to_categorical([0, 2], 3)
array([[1., 0., 0.],
       [0., 0., 1.]], dtype=float32)
"""

from __future__ import annotations

import random
from collections.abc import Sequence as Sized
from typing import Any

import numpy as np

from . import nn
from ._names import clear_session, set_seed

__all__ = ["PyDataset", "Sequence", "clear_session", "pad_sequences", "set_random_seed", "to_categorical"]

_seed: int | None = None


def set_random_seed(seed: int) -> None:
    """Set the seed of Python, of numpy, and of all that Recurve draws from now on.

    Parameters
    ----------
    seed : int
        From 0 to 2³² - 1.
    """
    global _seed
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
        raise TypeError(f"`seed` must be a whole number, not {type(seed).__name__}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be from 0 to 4294967295, but it is {seed}")
    _seed = int(seed)
    set_seed(_seed)
    nn.manual_seed(_seed)
    random.seed(_seed)
    np.random.seed(_seed)


def random_seed() -> int:
    """The seed that was set, or 0."""
    return 0 if _seed is None else _seed


def pad_sequences(
    sequences: Sized[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> np.ndarray:
    """Make sequences of different lengths one array.

    Parameters
    ----------
    sequences : sequence of sequences
        N sequences of numbers, or of vectors of one shape.
    maxlen : int, optional
        The length T; by default that of the longest sequence.
    dtype : dtype, default "int32"
        Of the array.
    padding, truncating : {"pre", "post"}
        The side at which short sequences are filled and long ones are cut.
    value : float, default 0
        What is filled in.

    Returns
    -------
    numpy.ndarray
        [N, T], or [N, T, …] for sequences of vectors.
    """
    for name, side in [("padding", padding), ("truncating", truncating)]:
        if side not in ("pre", "post"):
            raise ValueError(f'`{name}` must be "pre" or "post", but it is {side!r}')
    if not hasattr(sequences, "__len__"):
        raise ValueError("`sequences` must have a length")
    lengths = []
    for n, one in enumerate(sequences):
        if not hasattr(one, "__len__"):
            raise ValueError(f"`sequences` must be sequences, but the one at place {n} is {type(one).__name__}")
        lengths.append(len(one))
    length = max(lengths, default=0) if maxlen is None else maxlen
    shape: tuple[int, ...] = ()
    for one in sequences:
        if len(one):
            shape = np.shape(one)[1:]
            break
    if np.issubdtype(np.dtype(dtype), np.str_) and not isinstance(value, str):
        raise ValueError("`value` must be a text for a dtype of texts")
    padded = np.full((len(lengths), length, *shape), value, dtype=dtype)
    for n, one in enumerate(sequences):
        if not len(one) or not length:
            continue
        cut = np.asarray(one[-length:] if truncating == "pre" else one[:length], dtype=dtype)
        if cut.shape[1:] != shape:
            raise ValueError(
                f"`sequences` must be of vectors of one shape, {shape}, but those at place {n} have {cut.shape[1:]}"
            )
        if padding == "post":
            padded[n, : len(cut)] = cut
        else:
            padded[n, -len(cut) :] = cut
    return padded


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Make labels one-hot.

    Parameters
    ----------
    x : array_like
        Whole numbers of any shape; a last axis of size 1 is left out.
    num_classes : int, optional
        How many classes; by default one more than the largest label.

    Returns
    -------
    numpy.ndarray
        float32 of the shape of `x` with an axis of classes more.
    """
    labels = np.asarray(x)
    if labels.dtype.kind not in "iub" and not np.array_equal(labels, np.floor(labels)):
        raise ValueError("`x` must be whole numbers")
    labels = labels.astype("int64")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    classes = int(labels.max(initial=-1)) + 1 if num_classes is None else num_classes
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(f"`x` has the label {labels[wrong].flat[0]}, but the classes are 0 to {classes - 1}")
    return np.eye(classes, dtype="float32")[labels]


class PyDataset:
    """Data in batches, for subclasses: `__len__` says how many batches there are and `__getitem__` gives one, ``(x, y)``
    or ``(x, y, sample_weight)``. `on_epoch_end` is called after every epoch.

    The arguments are accepted for Keras's sake; batches are always read on the thread that trains.
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError

    def on_epoch_end(self) -> None:
        """Called after every epoch."""


Sequence = PyDataset
