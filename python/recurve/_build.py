"""Models of layers: what they have besides running and training."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import _recurve
from ._graph import FUNCTIONAL_MODULE, Graph, Node, SymbolicTensor, call, describe, is_symbolic
from ._layer import Cell, Input, InputLayer, Layer, RecurrentLayer
from ._names import clear_session, next_seed, set_seed, unique_name
from ._weights import Variable, adopt, keep, leaves, pull, push, set_variables, trainable_flags, unwrapped, variables

__all__ = [
    "Building",
    "Cell",
    "Graph",
    "Input",
    "InputLayer",
    "Layer",
    "LoadedLayer",
    "RecurrentLayer",
    "SymbolicTensor",
    "clear_session",
    "describe",
    "from_object",
    "is_symbolic",
    "keep",
    "leaves",
    "set_seed",
    "unwrapped",
]


class Building:
    """What a model of layers has besides running and training: its layers, its description, its weights.

    ``_runner`` is made when it is first needed. A model whose layers another model has changed makes it again with the
    new weights.
    """

    class_name = "Functional"
    _module = FUNCTIONAL_MODULE
    _is_input = False
    _has_states = False

    _graph: Graph | None = None
    _given_name: str | None = None
    _wanted_device: Any = "auto"
    _trainable = True
    _outdated: Any = None
    _flags: dict[str, bool] | None = None
    _made_layers: list[LoadedLayer] | None = None

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        trainable: bool = True,
        device: Any = "auto",
    ) -> None:
        self._begin(name, trainable, device)
        self._graph = Graph(flat(inputs), flat(outputs))
        root = {"module": self._module, "class_name": self.class_name, "config": self.get_config()}
        # Finds what is wrong with the whole, before anything is built.
        _recurve.network_shapes(json.dumps(root))

    def _begin(self, name: str | None, trainable: bool, device: Any) -> None:
        self._given_name = name or unique_name(self.class_name)
        self._trainable = bool(trainable)
        self._wanted_device = device
        self._seen: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "_runner":
            return self._make_runner()
        if name == "_nodes":
            self._nodes: list[Node] = []
            return self._nodes
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _make_runner(self) -> Any:
        if self._outdated is not None:
            self._runner, self._outdated = self._outdated, None
            pull(self)
            return self._runner
        self._runner = _recurve.build_network(self.to_json(), next_seed(), self._wanted_device)
        self._flags = trainable_flags(self)
        adopt(self)
        return self._runner

    def _tell_of_weights(self) -> None:
        """Says that the model has other weights than before, as behind a training."""
        push(self)

    @property
    def built(self) -> bool:
        """Whether the model has weights."""
        return "_runner" in self.__dict__ or self._outdated is not None

    def _invalidate(self) -> None:
        """Makes the runner again when it is next needed, with weights that another model has changed."""
        if "_runner" in self.__dict__:
            self._outdated = self.__dict__.pop("_runner")

    def _is_symbolic(self) -> bool:
        """Whether the model is made of layers in Python, and not of a file."""
        return self._given_name is not None

    def _need_graph(self) -> Graph:
        if self._graph is None:
            raise _recurve.Unsupported(
                "this model comes from a file without a description of its layers, so no new model can be made of it"
            )
        return self._graph

    def _prepare(self, x: Any) -> None:
        """Builds a model whose input is not known yet, for inputs like these arrays."""

    def _all_layers(self) -> list[Any]:
        return self._need_graph().layers

    # Calls

    def _call(self, inputs: Any) -> Any:
        """Calls the model on values of layers."""
        graph = self._need_graph()
        if isinstance(inputs, dict):
            inputs = [inputs[x.name] for x in graph.inputs]
        given = flat(inputs)
        if len(given) != len(graph.inputs):
            raise ValueError(f"`{self._given_name}` has {len(graph.inputs)} inputs, but is called with {len(given)}")
        return call(self, given if len(given) > 1 else given[0], None, len(graph.outputs))

    @property
    def input(self) -> Any:
        """The value that stands for the input; a list if there are several."""
        values = self._need_graph().inputs
        return values[0] if len(values) == 1 else values

    @property
    def output(self) -> Any:
        """The value that the model gives; a list if there are several."""
        values = self._need_graph().outputs
        return values[0] if len(values) == 1 else values

    @property
    def input_shape(self) -> Any:
        """The shape of the input."""
        shapes = [x.shape for x in self.inputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def output_shape(self) -> Any:
        """The shape of the output."""
        shapes = [x.shape for x in self.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    # Layers

    @property
    def layers(self) -> list[Any]:
        """The layers, as Keras orders them."""
        if self._is_symbolic():
            return list(self._all_layers())
        if self._made_layers is None:
            rows = _recurve.network_layers(self._runner)
            self._made_layers = [LoadedLayer(self, name, class_name) for name, class_name in rows]
        return list(self._made_layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """The layer with a name, or with a place among :attr:`layers`.

        Raises
        ------
        ValueError
            There is none.
        """
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"there are {len(layers)} layers, and none is number {index}")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(f"no layer is called {name!r}; there are {names_of(layers)}")

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights. Setting it sets that of every layer."""
        return self._trainable

    @trainable.setter
    def trainable(self, on: bool) -> None:
        self._trainable = bool(on)
        for layer in self.layers:
            layer.trainable = bool(on)

    def _trains_others(self) -> bool:
        """Whether layers say since the last training that they are trained, or not any more."""
        flags = trainable_flags(self)
        return bool(self._flags) and bool(flags) and flags != self._flags

    def _refresh(self) -> None:
        """Brings what layers say of being trained to the network; before a training."""
        flags = trainable_flags(self)
        if self._flags is not None and flags != self._flags:
            self._runner = _recurve.network_with_trainable(self._runner, flags)
        self._flags = flags

    # Weights

    @property
    def weights(self) -> list[Variable]:
        """The variables of all layers, in Keras's order."""
        return variables(self)

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that training changes."""
        self._refresh()
        return [v for v in self.weights if v.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The variables that training leaves as they are."""
        self._refresh()
        return [v for v in self.weights if not v.trainable]

    def get_weights(self) -> list[np.ndarray]:
        """The values of all variables, in Keras's layout and order."""
        return _recurve.network_weights(self._runner, list(range(len(self.weights))))

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replaces the values of all variables, given as :meth:`get_weights` gives them.

        Raises
        ------
        ValueError
            There is another number of them, or one has another shape.
        """
        set_variables(self, self.weights, weights)

    def _set_network_weights(self, arrays: dict[int, np.ndarray]) -> None:
        self._runner = _recurve.network_with_weights(self._runner, arrays)

    def count_params(self) -> int:
        """The number of elements of all variables."""
        return sum(math.prod(v.shape) for v in self.weights)

    def reset_states(self) -> None:
        """Makes the kept states of stateful layers zero again."""
        _recurve.network_reset_states(self._runner)

    # Descriptions

    def get_config(self) -> dict[str, Any]:
        """The description of the layers and their calls, as Keras writes it."""
        return self._need_graph().get_config(str(self._given_name), self._trainable)

    def to_json(self, **kwargs: Any) -> str:
        """The description as JSON, which Keras 3 reads too. Arguments go to :func:`json.dumps`."""
        config = self.get_config()
        root = {"module": self._module, "class_name": self.class_name, "config": config, "registered_name": None}
        return json.dumps(root | {"keras_version": KERAS_VERSION}, **kwargs)


#: The version of Keras whose form descriptions have.
KERAS_VERSION = "3.0.0"


class LoadedLayer:
    """A layer of a model that comes from a file."""

    def __init__(self, model: Any, name: str, class_name: str) -> None:
        self._model = model
        self.name = name
        self.class_name = class_name

    def __repr__(self) -> str:
        return f"<{self.class_name} name={self.name}>"

    @property
    def weights(self) -> list[Variable]:
        """The variables, in Keras's order."""
        return [v for v in variables(self._model) if v.layer == self.name]

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights."""
        flags = self._model._flags or {}
        if self.name in flags:
            return flags[self.name]
        own = [v for v in self.weights if not v.name.startswith("moving_")]
        return all(v.trainable for v in own)

    @trainable.setter
    def trainable(self, on: bool) -> None:
        self._model._runner = _recurve.network_with_trainable(self._model._runner, {self.name: bool(on)})

    def get_weights(self) -> list[np.ndarray]:
        """The values of the variables, in Keras's layout and order."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replaces the values of the variables."""
        set_variables(self, self.weights, weights)

    def count_params(self) -> int:
        """The number of elements of all variables."""
        return sum(math.prod(v.shape) for v in self.weights)


def flat(value: Any) -> list[Any]:
    """A list of one value or of several, in the order of their names if they have some."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [value[k] for k in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [x for v in value for x in flat(v)]
    return [value]


def from_object(value: dict[str, Any]) -> Any:
    """The layer, cell or model that a description is of."""
    from . import layers, models

    class_name, config = value["class_name"], value.get("config") or {}
    if class_name in ("Functional", "Model", "Sequential"):
        return models._of_config(value)
    cls = getattr(layers, class_name, None)
    if cls is None or not isinstance(cls, type) or not issubclass(cls, Layer):
        raise _recurve.Unsupported(f"layer `{config.get('name', '')}`: the class `{class_name}` is not supported")
    options: dict[str, Any] = {}
    for key, option in config.items():
        if key in ("layer", "cell", "backward_layer") and isinstance(option, dict):
            option = from_object(option)
        elif key == "cells":
            option = [from_object(o) for o in option]
        elif key in ("activation", "recurrent_activation") and isinstance(option, dict):
            option = from_object(option) if isinstance(option.get("config"), dict) else option["config"]
        elif key == "dtype":
            option = option if isinstance(option, str) else option["config"]["name"]
        elif option is None and key not in inspect.signature(cls.__init__).parameters:
            # What Keras writes of options that are not used.
            continue
        options[key] = option
    return cls(**options)


def names_of(values: Iterable[Any]) -> str:
    """Names for a message."""
    return ", ".join(f"`{v.name}`" for v in values)
