"""Keras's old place of padding: ``from recurve.preprocessing import sequence``."""

from . import sequence

__all__ = ["sequence"]
