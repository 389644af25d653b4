"""Recurrent networks (SimpleRNN, LSTM, GRU and their relatives) on any GPU, and fast on the CPU.

>>> import recurve
>>> recurve.devices()[0].backend
'cpu'
"""

from __future__ import annotations

from . import (
    callbacks,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    nn,
    optimizers,
    preprocessing,
    regularizers,
    utils,
)
from ._build import Input
from ._convert import from_keras, from_torch
from ._model import Model, Value, load
from ._recurve import Adapter, Check, Device, DeviceLost, InternalError, NotFinite, Session, Unsupported, __version__, devices
from ._tensor import Tensor
from .callbacks import History
from .models import Sequential

__all__ = [
    "Adapter",
    "Check",
    "Device",
    "DeviceLost",
    "History",
    "Input",
    "InternalError",
    "Model",
    "NotFinite",
    "Sequential",
    "Session",
    "Tensor",
    "Unsupported",
    "Value",
    "__version__",
    "callbacks",
    "constraints",
    "datasets",
    "devices",
    "from_keras",
    "from_torch",
    "initializers",
    "layers",
    "load",
    "losses",
    "metrics",
    "models",
    "nn",
    "optimizers",
    "preprocessing",
    "regularizers",
    "utils",
]
