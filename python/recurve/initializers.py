"""How initial weights are drawn, with Keras's names and arguments.

>>> import recurve
>>> recurve.initializers.get("he_normal").get_config()
{}
"""

from __future__ import annotations

from typing import Any, Union

from ._named import Named, resolve

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "get",
]


class Initializer(Named):
    """How a variable is drawn. A ``seed`` is refused when a network is built: the seed is that of the whole network,
    :func:`recurve.utils.set_random_seed`."""

    _module = "keras.initializers"


class Zeros(Initializer):
    """Zero."""

    def __init__(self) -> None:
        super().__init__({})


class Ones(Initializer):
    """One."""

    def __init__(self) -> None:
        super().__init__({})


class Constant(Initializer):
    """A number."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(locals())


class GlorotUniform(Initializer):
    """Uniform in ±√(6 / (inputs + outputs)), Keras's default for kernels."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(locals())


class GlorotNormal(Initializer):
    """A truncated normal distribution with the variance 2 / (inputs + outputs)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(locals())


class HeUniform(Initializer):
    """Uniform in ±√(6 / inputs)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(locals())


class HeNormal(Initializer):
    """A truncated normal distribution with the variance 2 / inputs."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(locals())


class LecunUniform(Initializer):
    """Uniform in ±√(3 / inputs)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(locals())


class LecunNormal(Initializer):
    """A truncated normal distribution with the variance 1 / inputs."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(locals())


class RandomUniform(Initializer):
    """Uniform between two numbers."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(locals())


class RandomNormal(Initializer):
    """A normal distribution."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(locals())


class TruncatedNormal(Initializer):
    """A normal distribution of which what is more than two deviations away from its mean is drawn again."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(locals())


class VarianceScaling(Initializer):
    """A distribution with mean 0 and the variance ``scale / fan``.

    Parameters
    ----------
    scale
        What is divided.
    mode
        ``"fan_in"``, ``"fan_out"`` or ``"fan_avg"``.
    distribution
        ``"truncated_normal"``, ``"untruncated_normal"`` or ``"uniform"``.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())


class Orthogonal(Initializer):
    """Orthonormal rows or columns, Keras's default for recurrent kernels."""

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(locals())


class Identity(Initializer):
    """A number where row and column are equal, 0 elsewhere; for matrices."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(locals())


#: What an argument that asks for an initializer takes: a name, an object, or a description of one.
InitializerLike = Union[str, Initializer, dict[str, Any], None]

_ALIASES = {
    "zero": Zeros,
    "one": Ones,
    "normal": RandomNormal,
    "uniform": RandomUniform,
    "OrthogonalInitializer": Orthogonal,
    "IdentityInitializer": Identity,
}


def get(identifier: InitializerLike | type[Initializer]) -> Initializer:
    """The initializer that a name, a class, an object or a description means.

    Raises
    ------
    ValueError
        No initializer has this name.
    """
    if identifier is None:
        raise ValueError("an initializer must be given: a name such as 'glorot_uniform', or an object")
    return resolve(identifier, Initializer, "initializer", _ALIASES)
