"""Metrics with Keras's names, arguments and defaults.

>>> AUC(curve="PR").name
'auc'
"""

from __future__ import annotations

from typing import Any

from . import _recurve

__all__ = [
    "AUC",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "F1Score",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "get",
]


class Metric:
    """What all metrics have: a name, under which `fit` and `evaluate` report it."""

    def __init__(self, spec: Any, name: str, dtype: Any) -> None:
        if dtype not in (None, "float32"):
            raise ValueError(f"{type(self).__name__}: `dtype` must be float32, but it is {dtype!r}")
        self.name = name
        self._metric = spec

    def _spec(self) -> Any:
        """What `compile` hands to the compiled part."""
        return self._metric

    def __repr__(self) -> str:
        return f"<recurve.metrics.{type(self).__name__} {self.name!r}>"


class _Named(Metric):
    """A metric that `compile` looks up by its name."""

    def _spec(self) -> Any:
        return self.name


def _refused(of: str, **options: Any) -> None:
    for name, (value, default) in options.items():
        if value != default:
            raise ValueError(f"{of}: `{name}` is not supported; it must be {default!r}")


class BinaryAccuracy(Metric):
    """How often a prediction is on the same side of a threshold as its target, which is 0 or 1."""

    def __init__(self, name: str = "binary_accuracy", dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__({"binary_accuracy": {"threshold": float(threshold)}}, name, dtype)


class CategoricalAccuracy(Metric):
    """How often the largest prediction is that of the largest target."""

    def __init__(self, name: str = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__("categorical_accuracy", name, dtype)


class SparseCategoricalAccuracy(Metric):
    """How often the largest prediction is that of the label."""

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__("sparse_categorical_accuracy", name, dtype)


class TopKCategoricalAccuracy(Metric):
    """How often the prediction of the class of the largest target is among the `k` largest."""

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__({"top_k_categorical_accuracy": {"k": int(k)}}, name, dtype)


class SparseTopKCategoricalAccuracy(Metric):
    """How often the prediction of the label is among the `k` largest."""

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        _refused("SparseTopKCategoricalAccuracy", from_sorted_ids=(from_sorted_ids, False))
        super().__init__({"top_k_categorical_accuracy": {"k": int(k)}}, name, dtype)


class _Threshold(Metric):
    _key: str

    def __init__(
        self, thresholds: float | None, top_k: int | None, class_id: int | None, name: str, dtype: Any
    ) -> None:
        of = type(self).__name__
        _refused(of, top_k=(top_k, None), class_id=(class_id, None))
        threshold = 0.5 if thresholds is None else thresholds
        if isinstance(threshold, (list, tuple)):
            raise ValueError(f"{of}: `thresholds` must be one number, but there are {len(threshold)}")
        super().__init__({self._key: {"threshold": float(threshold)}}, name, dtype)


class Precision(_Threshold):
    """The part of the positive predictions that are right."""

    _key = "precision"

    def __init__(
        self,
        thresholds: float | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str = "precision",
        dtype: Any = None,
    ) -> None:
        super().__init__(thresholds, top_k, class_id, name, dtype)


class Recall(_Threshold):
    """The part of the positive targets that are found."""

    _key = "recall"

    def __init__(
        self,
        thresholds: float | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str = "recall",
        dtype: Any = None,
    ) -> None:
        super().__init__(thresholds, top_k, class_id, name, dtype)


class F1Score(Metric):
    """The harmonic mean of precision and recall of each class, as one number.

    Parameters
    ----------
    average : {"macro", "micro", "weighted"}
        How the scores of the classes become one. Keras's default, a score for each class, is no number and is refused;
        here the default is ``"macro"``.
    threshold : float, optional
        Predictions above it are positive; without one only the largest of a row.
    """

    def __init__(
        self, average: str = "macro", threshold: float | None = None, name: str = "f1_score", dtype: Any = None
    ) -> None:
        if average not in ("macro", "micro", "weighted"):
            raise ValueError(f'F1Score: `average` must be "macro", "micro" or "weighted", but it is {average!r}')
        limit = None if threshold is None else float(threshold)
        super().__init__({"f1": {"threshold": limit, "averaging": average}}, name, dtype)


class AUC(Metric):
    """The area under a curve, by thresholds evenly spread from 0 to 1.

    Parameters
    ----------
    num_thresholds : int, default 200
        How many thresholds.
    curve : {"ROC", "PR"}
        The rate of true positives over that of false ones, or precision over recall.
    summation_method : {"interpolation", "minoring", "majoring"}
        How the area is added up.
    from_logits : bool, default False
        Predictions are logits, of which the sigmoid is taken.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str = "auc",
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        _refused(
            "AUC", thresholds=(thresholds, None), multi_label=(multi_label, False), label_weights=(label_weights, None)
        )
        curves = {"ROC": "roc", "PR": "precision_recall"}
        if curve not in curves:
            raise ValueError(f'AUC: `curve` must be "ROC" or "PR", but it is {curve!r}')
        if summation_method not in ("interpolation", "minoring", "majoring"):
            raise ValueError(
                f'AUC: `summation_method` must be "interpolation", "minoring" or "majoring", but it is {summation_method!r}'
            )
        auc = {
            "thresholds": int(num_thresholds),
            "curve": curves[curve],
            "summation": summation_method,
            "from_logits": bool(from_logits),
        }
        super().__init__({"auc": auc}, name, dtype)


class MeanSquaredError(Metric):
    """The mean of the squared differences."""

    def __init__(self, name: str = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__("mean_squared_error", name, dtype)


class MeanAbsoluteError(Metric):
    """The mean of the absolute differences."""

    def __init__(self, name: str = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__("mean_absolute_error", name, dtype)


class RootMeanSquaredError(Metric):
    """The root of the mean of the squared differences."""

    def __init__(self, name: str = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__("root_mean_squared_error", name, dtype)


def get(identifier: str | Metric | type[Metric]) -> Metric:
    """A metric by its name, under this name, or itself.

    >>> get("mae").name
    'mae'
    >>> get("acc").name
    'acc'
    """
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()  # type: ignore[call-arg]
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, str):
        # Checked here; what it stands for may depend on the loss and the output.
        _recurve.metric_named(identifier)
        return _Named(None, identifier, None)
    raise TypeError(f"`metrics` must be names or metrics of recurve.metrics, not {type(identifier).__name__}")
