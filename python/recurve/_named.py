"""Objects that are a class and some options: initializers, regularizers, constraints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np


class Named:
    """A class and its options."""

    _module = "keras"

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        own = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
        self._options = {k: v.item() if isinstance(v, np.generic) else v for k, v in own.items()}
        for key, value in self._options.items():
            setattr(self, key, value)

    @property
    def class_name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    def get_config(self) -> dict[str, Any]:
        """The options."""
        return {k: v for k, v in self._options.items() if not (k == "seed" and v is None)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """The object with these options."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._options == other._options

    def __hash__(self) -> int:
        return hash((type(self), repr(self._options)))

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{self.class_name}({options})"


T = TypeVar("T", bound=Named)


def _snake_case(name: str) -> str:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def resolve(identifier: Any, base: type[T], what: str, aliases: Mapping[str, type[T]]) -> T:
    """The object that a name, a class, an object or a description means."""
    known: dict[str, type[T]] = {c.__name__: c for c in base.__subclasses__()}
    known |= {_snake_case(name): c for name, c in known.items()} | dict(aliases)
    if isinstance(identifier, base):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, base):
        identifier = identifier.__name__
    name: Any = identifier
    options: dict[str, Any] = {}
    if isinstance(identifier, Mapping):
        name, options = identifier.get("class_name"), identifier.get("config") or {}
        options = {k: v for k, v in options.items() if v is not None or k not in ("input_axes", "output_axes")}
    if isinstance(name, str):
        if name not in known:
            names = ", ".join(sorted({c.__name__ for c in known.values()}))
            raise ValueError(f"no {what} is called `{name}`; there are {names}")
        return known[name](**options)
    raise TypeError(f"{identifier!r} is no {what}: give a name or one of recurve.{what}s")
