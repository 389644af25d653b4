"""Optimisers with Keras's names, arguments, defaults and arithmetic.

>>> model_optimizer = Adam(learning_rate=0.01, clipnorm=1.0)
>>> float(model_optimizer.learning_rate)
0.01
"""

from __future__ import annotations

import math
from typing import Any

from .. import _recurve
from . import schedules
from .schedules import LearningRateSchedule

__all__ = ["Adagrad", "Adam", "AdamW", "Lion", "Optimizer", "RMSprop", "SGD", "get", "schedules"]


class LearningRate(float):
    """A learning rate, which also is what Keras's variable of it is: it can be assigned."""

    _optimizer: Optimizer

    def assign(self, value: float) -> LearningRate:
        """Set the learning rate of the optimiser that this belongs to."""
        self._optimizer.learning_rate = value
        return self._optimizer.learning_rate

    def numpy(self) -> float:
        """The number."""
        return float(self)


def _number(of: str, name: str, value: Any) -> float:
    """A finite number that is not negative."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{of}: `{name}` must be a number, not {type(value).__name__}") from None
    if not math.isfinite(number) or number < 0.0:
        raise ValueError(f"{of}: `{name}` must be finite and not negative, but it is {number}")
    return number


class Optimizer:
    """What all optimisers have.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        The learning rate, which can be read and set, also while a model is trained.
    weight_decay : float, optional
        In each step weights are first multiplied by ``1 - learning_rate * weight_decay``.
    clipnorm : float, optional
        The gradient of each weight is scaled to this norm if its own is larger. At most one of the three limits.
    clipvalue : float, optional
        Each element of the gradients is at most this far from 0.
    global_clipnorm : float, optional
        All gradients are scaled together if their common norm is larger.
    use_ema : bool, default False
        Keeps an exponential moving average of the weights, which are replaced by it when `fit` ends.
    ema_momentum : float, default 0.99
        The part of the old average.
    gradient_accumulation_steps : int, optional
        A step is taken with the mean of the gradients of so many batches.
    """

    _name: str

    def __init__(
        self,
        own: dict[str, Any],
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None,
        clipnorm: float | None,
        clipvalue: float | None,
        global_clipnorm: float | None,
        use_ema: bool,
        ema_momentum: float,
        ema_overwrite_frequency: int | None,
        loss_scale_factor: float | None,
        gradient_accumulation_steps: int | None,
        name: str | None,
    ) -> None:
        of = type(self).__name__
        self.name = name or self._name
        if loss_scale_factor is not None:
            raise ValueError(f"{of}: `loss_scale_factor` is not supported; compile has `mixed_precision`")
        if ema_overwrite_frequency is not None:
            raise ValueError(f"{of}: `ema_overwrite_frequency` is not supported; averages are taken when `fit` ends")
        limits = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {k: _number(of, k, v) for k, v in limits.items() if v is not None}
        if len(given) > 1:
            raise ValueError(f"{of}: only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be given")
        self.clipnorm, self.clipvalue, self.global_clipnorm = (given.get(k) for k in limits)
        self.weight_decay = weight_decay
        self.use_ema = bool(use_ema)
        self.ema_momentum = float(ema_momentum)
        self.gradient_accumulation_steps = gradient_accumulation_steps
        if gradient_accumulation_steps is not None and gradient_accumulation_steps < 2:
            raise ValueError(f"{of}: `gradient_accumulation_steps` must be at least 2")
        self._schedule = learning_rate if isinstance(learning_rate, LearningRateSchedule) else None
        self._rate = self._schedule(0) if self._schedule else _number(of, "learning_rate", learning_rate)
        self._own = {k: v if isinstance(v, bool) else _number(of, k, v) for k, v in own.items()}
        self._trainer: _recurve.Trainer | None = None

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate of the next step. It can be set, unless a schedule gives it."""
        rate = LearningRate(self._rate if self._trainer is None else self._trainer.learning_rate)
        rate._optimizer = self
        return rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        of = type(self).__name__
        if self._schedule is not None:
            raise TypeError(f"{of}: `learning_rate` cannot be set, because a schedule gives it")
        rate = _number(of, "learning_rate", value)
        if self._trainer is not None:
            self._trainer.learning_rate = rate
        self._rate = rate

    @property
    def iterations(self) -> int:
        """How many steps have been taken."""
        return 0 if self._trainer is None else self._trainer.steps

    def _spec(self) -> dict[str, Any]:
        """What `compile` hands to the compiled part."""
        own = {
            "name": self._name,
            **self._own,
            "learning_rate": self._rate,
            "weight_decay": float(self.weight_decay or 0.0),
        }
        clip: Any = None
        if self.clipnorm is not None:
            clip = {"norm": self.clipnorm}
        elif self.clipvalue is not None:
            clip = {"value": self.clipvalue}
        elif self.global_clipnorm is not None:
            clip = {"global_norm": {"norm": self.global_clipnorm, "form": "keras"}}
        return {
            "optimizer": own,
            "schedule": None if self._schedule is None else self._schedule._schedule,
            "clip": clip,
            "accumulate": self.gradient_accumulation_steps or 1,
            "average": {"momentum": self.ema_momentum} if self.use_ema else None,
        }

    def __repr__(self) -> str:
        return f"<recurve.optimizers.{type(self).__name__} learning_rate={float(self.learning_rate):g}>"


class SGD(Optimizer):
    """Gradient descent, with momentum. The other arguments are those of `Optimizer`."""

    _name = "sgd"

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        own = {"momentum": momentum, "nesterov": bool(nesterov), "dampening": 0.0}
        super().__init__(
            own, learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum,
            ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name,
        )  # fmt: skip

    def _spec(self) -> dict[str, Any]:
        spec = super()._spec()
        spec["optimizer"]["form"] = "keras"
        return spec


class RMSprop(Optimizer):
    """RMSprop. The other arguments are those of `Optimizer`."""

    _name = "rmsprop"

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        own = {"rho": rho, "momentum": momentum, "epsilon": epsilon, "centered": bool(centered)}
        super().__init__(
            own, learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum,
            ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name,
        )  # fmt: skip

    def _spec(self) -> dict[str, Any]:
        spec = super()._spec()
        spec["optimizer"]["form"] = "keras"
        return spec


class Adam(Optimizer):
    """Adam. The other arguments are those of `Optimizer`."""

    _name = "adam"

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        own = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "amsgrad": bool(amsgrad)}
        super().__init__(
            own, learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum,
            ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name,
        )  # fmt: skip

    def _spec(self) -> dict[str, Any]:
        spec = super()._spec()
        spec["optimizer"].update(decoupled=True, form="keras")
        return spec


class AdamW(Adam):
    """`Adam` with a weight decay of 0.004."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, clipnorm, clipvalue, global_clipnorm,
            use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps,
            name or "adamw",
        )  # fmt: skip


class Adagrad(Optimizer):
    """Adagrad. The other arguments are those of `Optimizer`."""

    _name = "adagrad"

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        own = {"initial_accumulator": initial_accumulator_value, "epsilon": epsilon, "learning_rate_decay": 0.0}
        super().__init__(
            own, learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum,
            ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name,
        )  # fmt: skip

    def _spec(self) -> dict[str, Any]:
        spec = super()._spec()
        spec["optimizer"]["form"] = "keras"
        return spec


class Lion(Optimizer):
    """Lion. The other arguments are those of `Optimizer`."""

    _name = "lion"

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        own = {"beta_1": beta_1, "beta_2": beta_2}
        super().__init__(
            own, learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum,
            ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name,
        )  # fmt: skip


_NAMED = {cls.__name__.lower(): cls for cls in (SGD, RMSprop, Adam, AdamW, Adagrad, Lion)}


def get(identifier: str | Optimizer | type[Optimizer]) -> Optimizer:
    """An optimiser by its name, in capital letters or not, or itself.

    >>> get("rmsprop")
    <recurve.optimizers.RMSprop learning_rate=0.001>
    >>> get("sdg")
    Traceback (most recent call last):
    ...
    ValueError: optimizer: `name` must be one of sgd, rmsprop, adam, adamw, adagrad, lion, but it is `sdg`
    """
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()  # type: ignore[call-arg]
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, str):
        _recurve.optimizer_named(identifier)
        return _NAMED[identifier.lower()]()
    raise TypeError(
        f"`optimizer` must be a name or an optimiser of recurve.optimizers, not {type(identifier).__name__}"
    )
