"""The IMDB reviews, as numbers of words.

Nothing is downloaded: `load_data` reads the file that Keras keeps, or another one that is named.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from typing import Any

import numpy as np

__all__ = ["get_word_index", "load_data"]

_FOLDERS = ("~/.recurve/datasets", "~/.keras/datasets")
_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


class _Unpickler(pickle.Unpickler):
    """Reads arrays of lists of numbers, and nothing else: no other class or function is ever called."""

    _KNOWN = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise ValueError(f"the file asks for {module}.{name}, which no list of numbers needs; it is not read")
        if name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        return getattr(np, name)


def _found(path: str | os.PathLike[str], what: str) -> str:
    """The path of a file, which may be in one of the folders of data sets."""
    given = os.path.expanduser(os.fspath(path))
    places = [given]
    if not os.path.isabs(given):
        places += [os.path.join(os.path.expanduser(folder), given) for folder in _FOLDERS]
    for place in places:
        if os.path.isfile(place):
            return place
    raise FileNotFoundError(
        f"{what} is in none of {', '.join(places)}. Recurve downloads nothing; Keras's file is at "
        f"{_ORIGIN}{os.path.basename(given)}"
    )


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    data = io.BytesIO(archive.read(f"{name}.npy"))
    version = np.lib.format.read_magic(data)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(data)
    if not dtype.hasobject:
        data.seek(0)
        return np.lib.format.read_array(data, allow_pickle=False)
    rows = _Unpickler(data).load()
    lists = isinstance(rows, np.ndarray) and rows.shape == shape and len(shape) == 1
    if not lists or not all(isinstance(row, list) and all(type(w) is int for w in row) for row in rows):
        raise ValueError(f"`{name}` is no array of lists of numbers")
    return rows


def _parts(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reviews and labels for training and for testing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [(_read(archive, f"x_{part}"), _read(archive, f"y_{part}")) for part in ("train", "test")]
    except (zipfile.BadZipFile, KeyError, EOFError, IndexError, AttributeError, TypeError, pickle.UnpicklingError) as e:
        raise ValueError(f"{path} is no file of IMDB reviews as Keras has it: {e}") from e


def load_data(
    path: str | os.PathLike[str] = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The reviews as lists of numbers of words, and whether each is positive.

    Parameters
    ----------
    path : path, default "imdb.npz"
        The file, as Keras has it. One without a folder is looked for here, in ``~/.recurve/datasets`` and in
        ``~/.keras/datasets``.
    num_words : int, optional
        Only words with a number below this are kept.
    skip_top : int, default 0
        Words with a number below this are left out.
    maxlen : int, optional
        Only shorter reviews are kept.
    seed : int, default 113
        The reviews are shuffled by it.
    start_char : int, default 1
        What each review begins with.
    oov_char : int, default 2
        What stands for words that are left out; None takes them away.
    index_from : int, default 3
        What is added to the rank of a word.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        x: arrays [N] of lists of int; y: arrays [N] of 0 and 1.

    Raises
    ------
    FileNotFoundError
        The file is nowhere. Nothing is downloaded.
    ValueError
        The file holds something else than lists of numbers. No code of a file is ever run.
    """
    parts = _parts(_found(path, "the file of the IMDB reviews"))
    rng = np.random.RandomState(seed)
    sequences: list[list[int]] = []
    labels: list[np.ndarray] = []
    counts = []
    for x, y in parts:
        order = np.arange(len(x))
        rng.shuffle(order)
        own = [list(x[n]) for n in order]
        own_labels = y[order]
        if start_char is not None:
            own = [[start_char, *(w + index_from for w in row)] for row in own]
        elif index_from:
            own = [[w + index_from for w in row] for row in own]
        if maxlen:
            kept = [n for n, row in enumerate(own) if len(row) < maxlen]
            own, own_labels = [own[n] for n in kept], own_labels[kept]
            if not own:
                raise ValueError(f"no review is shorter than `maxlen`, {maxlen}")
        sequences += own
        labels.append(own_labels)
        counts.append(len(own))
    limit = num_words or max(max(row) for row in sequences)
    if oov_char is not None:
        sequences = [[w if skip_top <= w < limit else oov_char for w in row] for row in sequences]
    else:
        sequences = [[w for w in row if skip_top <= w < limit] for row in sequences]

    def rows(part: list[list[int]]) -> np.ndarray:
        array = np.empty(len(part), dtype=object)
        array[:] = part
        return array

    return (rows(sequences[: counts[0]]), labels[0]), (rows(sequences[counts[0] :]), labels[1])


def get_word_index(path: str | os.PathLike[str] = "imdb_word_index.json") -> dict[str, int]:
    """The rank of each word, from 1.

    Parameters
    ----------
    path : path, default "imdb_word_index.json"
        The file, as Keras has it, looked for as that of `load_data`.
    """
    with open(_found(path, "the file of the words"), encoding="utf-8") as file:
        index: dict[str, int] = json.load(file)
    return index
