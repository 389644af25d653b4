"""Recurrent networks (SimpleRNN, LSTM, GRU and their relatives) on any GPU, and fast on the CPU.

>>> import recurve
>>> recurve.devices()[0].backend
'cpu'
"""

from __future__ import annotations

from . import constraints, initializers, layers, models, regularizers
from ._build import Input
from ._model import Model, Value, load
from ._recurve import Adapter, Check, Device, DeviceLost, InternalError, Session, Unsupported, __version__, devices
from .models import Sequential

__all__ = [
    "Adapter",
    "Check",
    "Device",
    "DeviceLost",
    "Input",
    "InternalError",
    "Model",
    "Sequential",
    "Session",
    "Unsupported",
    "Value",
    "__version__",
    "constraints",
    "devices",
    "initializers",
    "layers",
    "load",
    "models",
    "regularizers",
]
