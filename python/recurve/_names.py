"""Names of layers, and the seeds of initial weights."""

from __future__ import annotations

import collections
import os
import re

_names: collections.Counter[str] = collections.Counter()
_seed: int | None = None


def snake_case(name: str) -> str:
    """``simple_rnn`` for ``SimpleRNN``, as Keras names layers."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(class_name: str) -> str:
    """The next name of a class: ``lstm``, then ``lstm_1``, and so on."""
    name = snake_case(class_name)
    count = _names[name]
    _names[name] += 1
    return f"{name}_{count}" if count else name


def clear_session() -> None:
    """Begins again with the names of layers: the next :class:`recurve.layers.LSTM` is called ``lstm``."""
    _names.clear()


def set_seed(seed: int | None) -> None:
    """Determines the initial weights of all networks that are built from here on."""
    global _seed
    _seed = seed


def next_seed() -> int:
    """The seed of the next network: of :func:`set_seed`'s sequence, else of the system's randomness."""
    global _seed
    if _seed is None:
        return int.from_bytes(os.urandom(8), "little")
    seed = _seed
    # The next state of a linear congruential generator (Knuth's MMIX).
    _seed = (seed * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    return seed % (1 << 64)
