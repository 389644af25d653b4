"""Penalties for weights and outputs, with Keras's names and arguments.

>>> import recurve
>>> recurve.regularizers.L2(1e-4)
L2(l2=0.0001)
"""

from __future__ import annotations

from typing import Any, Union

from ._named import Named, resolve

__all__ = ["L1", "L1L2", "L2", "OrthogonalRegularizer", "Regularizer", "get", "l1", "l1_l2", "l2"]


class Regularizer(Named):
    """A penalty that is added to the loss."""

    _module = "keras.regularizers"


class L1(Regularizer):
    """``l1`` times the sum of the absolute values."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(locals())


class L2(Regularizer):
    """``l2`` times the sum of the squares."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(locals())


class L1L2(Regularizer):
    """The sum of both."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(locals())


class OrthogonalRegularizer(Regularizer):
    """``factor`` times the products of different rows, or columns, of a matrix."""

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        super().__init__(locals())


l1 = L1
l2 = L2


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """:class:`L1L2` with the defaults of earlier versions."""
    return L1L2(l1, l2)


#: What an argument that asks for a regularizer takes: a name, an object, or a description of one.
RegularizerLike = Union[str, Regularizer, dict[str, Any], None]

_ALIASES = {"l1l2": L1L2, "l1_l2": L1L2, "orthogonal_regularizer": OrthogonalRegularizer}


def get(identifier: RegularizerLike | type[Regularizer]) -> Regularizer | None:
    """The regularizer that a name, a class, an object or a description means; None for None.

    Raises
    ------
    ValueError
        No regularizer has this name.
    """
    return None if identifier is None else resolve(identifier, Regularizer, "regularizer", _ALIASES)
