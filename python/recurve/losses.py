"""Losses with Keras's names, arguments and defaults.

>>> get("mse")
<recurve.losses.MeanSquaredError>
"""

from __future__ import annotations

import json
from typing import Any

from . import _recurve

__all__ = [
    "BinaryCrossentropy",
    "CTC",
    "CategoricalCrossentropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
]

_REDUCTIONS = {
    "sum_over_batch_size": "mean",
    "mean": "mean",
    "mean_with_sample_weight": "weighted_mean",
    "sum": "sum",
}


class Loss:
    """What all losses have.

    Parameters
    ----------
    reduction : str
        ``"sum_over_batch_size"`` (the mean over all values, whatever their weights), ``"mean_with_sample_weight"`` (over
        the sum of the weights) or ``"sum"``.
    name : str, optional
        A name.
    """

    _kind: str

    def __init__(
        self, options: dict[str, Any] | None, reduction: str, name: str | None, dtype: Any, label_smoothing: float = 0.0
    ) -> None:
        of = type(self).__name__
        if reduction not in _REDUCTIONS:
            raise ValueError(f"{of}: `reduction` must be one of {', '.join(_REDUCTIONS)}, but it is {reduction!r}")
        if dtype not in (None, "float32"):
            raise ValueError(f"{of}: `dtype` must be float32, but it is {dtype!r}")
        self.name = name or self._kind
        self.reduction = reduction
        self._options = options
        self._label_smoothing = float(label_smoothing)

    def _spec(self) -> dict[str, Any]:
        """What `compile` hands to the compiled part."""
        return {
            "kind": self._kind if self._options is None else {self._kind: self._options},
            "reduction": _REDUCTIONS[self.reduction],
            "label_smoothing": self._label_smoothing,
        }

    def __repr__(self) -> str:
        return f"<recurve.losses.{type(self).__name__}>"


def _last(of: str, axis: int) -> None:
    if axis != -1:
        raise ValueError(f"{of}: `axis` must be -1, but it is {axis}")


class BinaryCrossentropy(Loss):
    """``-y log(p) - (1 - y) log(1 - p)``, the mean over the last axis.

    Parameters
    ----------
    from_logits : bool, default False
        Predictions are logits, of which p is the sigmoid.
    label_smoothing : float, default 0
        How far targets are moved towards one half, from 0 to 1.
    """

    _kind = "binary_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        _last("BinaryCrossentropy", axis)
        super().__init__({"from_logits": bool(from_logits)}, reduction, name, dtype, label_smoothing)


class CategoricalCrossentropy(Loss):
    """``-sum(y log(p))`` over the last axis, which has the classes; targets in the shape of the output.

    Parameters
    ----------
    from_logits : bool, default False
        Predictions are logits, of which p is the softmax.
    label_smoothing : float, default 0
        How far targets are moved towards equal probabilities, from 0 to 1.
    """

    _kind = "categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        _last("CategoricalCrossentropy", axis)
        super().__init__({"from_logits": bool(from_logits)}, reduction, name, dtype, label_smoothing)


class SparseCategoricalCrossentropy(Loss):
    """`CategoricalCrossentropy` with the number of its class as the target.

    Parameters
    ----------
    from_logits : bool, default False
        Predictions are logits, of which p is the softmax.
    """

    _kind = "sparse_categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        _last("SparseCategoricalCrossentropy", axis)
        if ignore_class is not None:
            raise ValueError("SparseCategoricalCrossentropy: `ignore_class` is not supported; give weights of samples")
        super().__init__({"from_logits": bool(from_logits)}, reduction, name, dtype)


class MeanSquaredError(Loss):
    """``(p - y)²``, the mean over the last axis."""

    _kind = "mean_squared_error"

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "mean_squared_error", dtype: Any = None
    ) -> None:
        super().__init__(None, reduction, name, dtype)


class MeanAbsoluteError(Loss):
    """``|p - y|``, the mean over the last axis."""

    _kind = "mean_absolute_error"

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "mean_absolute_error", dtype: Any = None
    ) -> None:
        super().__init__(None, reduction, name, dtype)


class Huber(Loss):
    """``½ (p - y)²`` up to a difference of `delta`, from there on a line; the mean over the last axis."""

    _kind = "huber"

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__({"delta": float(delta)}, reduction, name, dtype)


class CTC(Loss):
    """Connectionist temporal classification of logits [B, T, classes].

    Targets are labels [B, L], padded with 0, which is the blank.
    """

    _kind = "ctc"

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = "ctc", dtype: Any = None) -> None:
        options = {"blank": 0, "from_logits": True, "zero_infinity": False, "form": "keras"}
        super().__init__(options, reduction, name, dtype)


_CLASSES: dict[str, type[Loss]] = {
    cls._kind: cls
    for cls in (
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        MeanSquaredError,
        MeanAbsoluteError,
        Huber,
        CTC,
    )
}


def get(identifier: str | Loss | type[Loss]) -> Loss:
    """A loss by its name, or itself.

    >>> get("bce").name
    'binary_crossentropy'
    >>> get("crossentropy")
    Traceback (most recent call last):
    ...
    ValueError: loss: `name` must be one of binary_crossentropy, categorical_crossentropy, \
sparse_categorical_crossentropy, mean_squared_error, mean_absolute_error, huber, ctc, but it is `crossentropy`
    """
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()  # type: ignore[call-arg]
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, str):
        kind = json.loads(_recurve.loss_named(identifier))["kind"]
        return _CLASSES[kind if isinstance(kind, str) else next(iter(kind))]()  # type: ignore[call-arg]
    raise TypeError(
        f"`loss` must be a name or a loss of recurve.losses, not {type(identifier).__name__}; functions of one's own "
        "cannot be differentiated"
    )
