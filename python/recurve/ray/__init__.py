"""Recurve on many machines, through Ray: ``pip install recurve[ray]``.

- :class:`Predictor`: batch inference over a data set of Ray Data.
- :func:`serve_app`, :class:`Client`: a served model with batches made of concurrent requests, and streams that keep
  their states on the device of a replica.
- :func:`fit`, :func:`fit_worker`, :class:`DataParallel`, :class:`AllReduce`: data-parallel training.
"""

from __future__ import annotations

try:
    import ray  # noqa: F401
except ImportError as e:
    raise ImportError("recurve.ray needs Ray: pip install recurve[ray]") from e

from typing import TYPE_CHECKING, Any

from ._allreduce import AllReduce, WorkerLost
from ._device import choose_device
from ._predictor import Predictor
from ._train import DataParallel, FitResult, fit, fit_worker

if TYPE_CHECKING:
    from ._serve import Client, Session, SessionLost, TooManySessions, serve_app

__all__ = [
    "AllReduce",
    "Client",
    "DataParallel",
    "FitResult",
    "Predictor",
    "Session",
    "SessionLost",
    "TooManySessions",
    "WorkerLost",
    "choose_device",
    "fit",
    "fit_worker",
    "serve_app",
]

_SERVE = ("Client", "Session", "SessionLost", "TooManySessions", "serve_app")


def __getattr__(name: str) -> Any:
    # Ray Serve is a large import, which batch inference and training do without.
    if name in _SERVE:
        from . import _serve

        return getattr(_serve, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
