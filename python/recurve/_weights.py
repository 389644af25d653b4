"""The weights of networks as Keras's variables, and layers that several models have.

A layer has its weights in the network of one model. When another model of the same layer changes them, the first is
told, and takes the new ones before it is used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import _recurve


class Variable:
    """A variable of a layer: its name, its shape in Keras's layout, and its values in the network that has it."""

    dtype = "float32"

    def __init__(self, model: Any, index: int, layer: str, name: str, direction: str, shape: tuple[int, ...], trainable: bool):
        self._model = model
        self._index = index
        self.layer = layer
        self.name = name
        self.direction = direction
        self.shape = tuple(shape)
        self.trainable = trainable

    @property
    def path(self) -> str:
        """The name with those of what it is part of."""
        return "/".join(part for part in (self.layer, self.direction, self.name) if part)

    def numpy(self) -> np.ndarray:
        """The values."""
        return _recurve.network_weights(self._model._runner, [self._index])[0]

    def assign(self, value: Any) -> None:
        """Replaces the values."""
        set_variables(self._model, [self], [value])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}>"


def variables(model: Any) -> list[Variable]:
    """The variables of a model that is built, in Keras's order."""
    rows = _recurve.network_variables(model._runner)
    return [Variable(model, n, *row) for n, row in enumerate(rows)]


def set_variables(owner: Any, known: Sequence[Variable], values: Sequence[Any]) -> None:
    """Replaces the values of variables."""
    values = list(values)
    if len(known) != len(values):
        raise ValueError(f"`{owner.name}` has {len(known)} weights, but {len(values)} are given")
    arrays: dict[int, np.ndarray] = {}
    for variable, value in zip(known, values):
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"`{variable.path}`: weights are numbers, not {array.dtype}")
        if tuple(array.shape) != variable.shape:
            raise ValueError(f"`{variable.path}` has the shape {variable.shape}, but {tuple(array.shape)} is given")
        arrays[variable._index] = np.asarray(array, dtype=np.float32, order="C")
    if not known:
        return
    model = known[0]._model
    model._set_network_weights(arrays)
    push(model)


def is_model(layer: Any) -> bool:
    """Whether a layer is a model."""
    return hasattr(layer, "_all_layers")


def unwrapped(layer: Any) -> Any:
    """What is inside of `TimeDistributed`."""
    while layer.class_name == "TimeDistributed":
        layer = layer._options["layer"]
    return layer


def leaves(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The layers of a model that are no models, with their names in the network."""
    for layer in model._all_layers():
        path = f"{prefix}{layer.name}"
        inside = unwrapped(layer)
        if is_model(inside):
            yield from leaves(inside, f"{path}/")
        elif not layer._is_input:
            yield path, layer


def keep(model: Any) -> None:
    """Lets the layers of a model keep the weights of its network, which is given up."""
    for path, layer in leaves(model):
        layer._models.discard(model)
        if layer._home is not None and layer._home[0] is model:
            own = [v for v in variables(model) if v.layer == path]
            layer._given_weights = _recurve.network_weights(model._runner, [v._index for v in own])
            layer._home = None


def adopt(model: Any) -> None:
    """Connects the layers of a model with its network, which has just been built: a layer that has weights already
    keeps them, others get those of the network."""
    model._seen = {}
    given: list[tuple[str, Any]] = []
    for path, layer in leaves(model):
        layer._models.add(model)
        if layer._home is None:
            layer._home = (model, path)
            if layer._given_weights is not None:
                given.append((path, layer))
        model._seen[path] = layer._version if layer._home[0] is model else -1
    pull(model)
    if given:
        known, values = [], []
        own = variables(model)
        for path, layer in given:
            mine = [v for v in own if v.layer == path]
            weights = list(layer._given_weights)
            if len(mine) != len(weights):
                raise ValueError(f"`{layer.name}` has {len(mine)} weights, but {len(weights)} are given")
            known += mine
            values += weights
            layer._given_weights = None
        set_variables(model, known, values)


def pull(model: Any) -> None:
    """Brings the weights of layers that another model has changed."""
    arrays: dict[int, np.ndarray] = {}
    own: list[Variable] | None = None
    for path, layer in leaves(model):
        if layer._home is None or model._seen.get(path) == layer._version:
            continue
        home, there = layer._home
        model._seen[path] = layer._version
        if home is model:
            continue
        own = variables(model) if own is None else own
        mine = [v for v in own if v.layer == path]
        theirs = [v for v in variables(home) if v.layer == there]
        values = _recurve.network_weights(home._runner, [v._index for v in theirs])
        arrays |= {v._index: value for v, value in zip(mine, values)}
    if arrays:
        model._set_network_weights(arrays)


def push(model: Any) -> None:
    """Says that a model has changed the weights of its layers; other models of these layers have them from now on."""
    if not model._is_symbolic():
        return
    for path, layer in leaves(model):
        layer._home = (model, path)
        if len(layer._models) > 1:
            layer._version += 1
            for other in layer._models:
                if other is not model:
                    other._invalidate()
        model._seen[path] = layer._version


def trainable_flags(model: Any, prefix: str = "", outside: bool = True) -> dict[str, bool]:
    """For each layer of the network whether it is trained: neither it nor a model around it says no."""
    if not model._is_symbolic():
        return {}
    flags: dict[str, bool] = {}
    outside = outside and model._trainable
    for layer in model._all_layers():
        inside, on = layer, outside
        while inside.class_name == "TimeDistributed":
            on = on and inside.trainable
            inside = inside._options["layer"]
        if is_model(inside):
            flags |= trainable_flags(inside, f"{prefix}{layer.name}/", on)
        elif not layer._is_input:
            flags[f"{prefix}{layer.name}"] = on and layer.trainable
    return flags
