"""Recurrent networks (SimpleRNN, LSTM, GRU and their relatives) on any GPU, and fast on the CPU.

>>> import recurve
>>> recurve.devices()[0].backend
'cpu'
"""

from __future__ import annotations

from ._model import Model, Value, load
from ._recurve import Adapter, Check, Device, DeviceLost, InternalError, Session, Unsupported, __version__, devices

__all__ = [
    "Adapter",
    "Check",
    "Device",
    "DeviceLost",
    "InternalError",
    "Model",
    "Session",
    "Unsupported",
    "Value",
    "__version__",
    "devices",
    "load",
]
