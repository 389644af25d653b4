"""Data sets that are read from files on this machine."""

from . import imdb

__all__ = ["imdb"]
