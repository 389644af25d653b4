"""What is made of weights after each step of training, with Keras's names and arguments.

>>> import recurve
>>> recurve.constraints.get("non_neg")
NonNeg()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from ._named import Named, resolve

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "unit_norm",
]


class Constraint(Named):
    """What is made of a weight after each step."""

    _module = "keras.constraints"


class MaxNorm(Constraint):
    """Norms along ``axis`` of at most ``max_value``."""

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        super().__init__(locals())


class NonNeg(Constraint):
    """0 in place of what is below."""

    def __init__(self) -> None:
        super().__init__({})


class UnitNorm(Constraint):
    """Norms along ``axis`` of 1."""

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        super().__init__(locals())


class MinMaxNorm(Constraint):
    """Norms along ``axis`` between two numbers, to which they move by ``rate``."""

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ) -> None:
        super().__init__(locals())


max_norm = MaxNorm
non_neg = NonNeg
unit_norm = UnitNorm
min_max_norm = MinMaxNorm

#: What an argument that asks for a constraint takes: a name, an object, or a description of one.
ConstraintLike = Union[str, Constraint, dict[str, Any], None]

_ALIASES = {"maxnorm": MaxNorm, "nonneg": NonNeg, "unitnorm": UnitNorm}


def get(identifier: ConstraintLike | type[Constraint]) -> Constraint | None:
    """The constraint that a name, a class, an object or a description means; None for None.

    Raises
    ------
    ValueError
        No constraint has this name.
    """
    return None if identifier is None else resolve(identifier, Constraint, "constraint", _ALIASES)
