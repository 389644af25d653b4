"""Learning rates that change from step to step, with Keras's names and arguments.

>>> rate = ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)
>>> rate(10)
0.05
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .. import _recurve

__all__ = ["CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "LearningRateSchedule", "PiecewiseConstantDecay"]


class LearningRateSchedule:
    """A learning rate as a function of the number of the step, of which the first is 0."""

    def __init__(self, schedule: dict[str, Any]) -> None:
        self._schedule = schedule
        self(0)

    def __call__(self, step: int) -> float:
        """The learning rate at a step."""
        return _recurve.schedule_at(json.dumps(self._schedule), int(step))

    def __repr__(self) -> str:
        return f"<recurve.optimizers.schedules.{type(self).__name__} {self._schedule}>"


class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
        That of the first step.
    decay_steps : int
        In so many steps the rate is multiplied by `decay_rate`.
    decay_rate : float
        The factor.
    staircase : bool, default False
        Cuts the fraction off the exponent.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.name = name
        super().__init__(
            {
                "exponential": {
                    "initial": float(initial_learning_rate),
                    "rate": float(decay_rate),
                    "steps": int(decay_steps),
                    "staircase": bool(staircase),
                }
            }
        )


class PiecewiseConstantDecay(LearningRateSchedule):
    """A value for the steps up to each boundary, that one included, and one for those behind the last.

    Parameters
    ----------
    boundaries : sequence of int
        Numbers of steps, rising.
    values : sequence of float
        One more than `boundaries`.
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        self.name = name
        super().__init__(
            {"piecewise": {"boundaries": [int(b) for b in boundaries], "values": [float(v) for v in values]}}
        )


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the first learning rate to `alpha` times it in `decay_steps` steps, then constant.

    Parameters
    ----------
    initial_learning_rate : float
        That of the first step.
    decay_steps : int
        How many steps the cosine takes.
    alpha : float, default 0
        The part of the rate that is left.
    warmup_target : float, optional
        The rate first goes up to this one along a line, from where the cosine begins.
    warmup_steps : int, default 0
        How many steps the line takes.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.name = name
        first = initial_learning_rate if warmup_target is None else warmup_target
        schedule: dict[str, Any] = {
            "cosine": {"initial": float(first), "steps": int(decay_steps), "alpha": float(alpha)}
        }
        if warmup_target is not None and warmup_steps > 0:
            line = {"initial": float(initial_learning_rate), "steps": int(warmup_steps), "then": schedule}
            schedule = {"warm_up": line}
        super().__init__(schedule)


class CosineDecayRestarts(LearningRateSchedule):
    """`CosineDecay` again and again.

    Parameters
    ----------
    initial_learning_rate : float
        That of the first step.
    first_decay_steps : int
        How many steps the first cosine takes.
    t_mul : float, default 2
        How much longer each cosine is than the one before.
    m_mul : float, default 1
        How much higher each cosine begins.
    alpha : float, default 0
        The part of the first learning rate that is left.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.name = name
        super().__init__(
            {
                "cosine_restarts": {
                    "initial": float(initial_learning_rate),
                    "steps": int(first_decay_steps),
                    "length": float(t_mul),
                    "height": float(m_mul),
                    "alpha": float(alpha),
                }
            }
        )
