"""Models of layers, and models from files, with Keras's names.

>>> from recurve.models import Sequential
>>> from recurve.layers import Dense, Embedding, SimpleRNN
>>> model = Sequential([Embedding(10_000, 32), SimpleRNN(32), Dense(1, activation="sigmoid")])
>>> model.count_params()
322113
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _build, _recurve
from ._build import Graph, InputLayer, Layer, SymbolicTensor
from ._model import Model, load

__all__ = ["Functional", "Model", "Sequential", "load_model", "model_from_json"]

Functional = Model


class Sequential(Model):
    """A chain of layers.

    The shape of the input is that of an ``Input`` in front, of the first layer's ``input_shape``, of :meth:`build`, or
    of the first arrays that the model is given.

    Parameters
    ----------
    layers
        The layers, first to last.
    name
        The name.
    trainable
        Whether training changes the weights.
    device
        Where the model runs, as for :func:`recurve.load`.

    Examples
    --------
    >>> import recurve
    >>> from recurve import layers
    >>> model = recurve.Sequential([recurve.Input((2, 10)), layers.SimpleRNN(3)])
    >>> model.count_params()
    42
    """

    class_name = "Sequential"
    _module = "keras"

    _chain: Any = ()
    _values: Any = ()

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        name: str | None = None,
        trainable: bool = True,
        device: Any = "auto",
    ) -> None:
        self._begin(name, trainable, device)
        self._chain = []
        # What each layer gives, once the shape of the input is known.
        self._values = []
        # Whether the shape of the input is only that of arrays that were given.
        self._guessed = False
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Adds a layer, a model or an ``Input`` at the end.

        Raises
        ------
        ValueError
            The layer cannot take what the one before it gives, or has the name of another layer.
        """
        self._need_layers()
        self._check_idle("add")
        if isinstance(layer, SymbolicTensor):
            layer = layer._node.layer
        if not isinstance(layer, (Layer, Model)):
            raise TypeError(f"{layer!r} is no layer, so it cannot be added to a Sequential")
        if isinstance(layer, InputLayer) and self._chain:
            raise ValueError(f"`{self.name}` has layers or an input already, so `{layer.name}` cannot be its input")
        if any(other.name == layer.name for other in self._chain):
            raise ValueError(f"the name `{layer.name}` belongs to a layer of `{self.name}`: names must be unique")
        if self._guessed:
            # The shape of what was there may not be that of what is there now.
            self._forget_input()
        self._forget()
        if not self._chain and not isinstance(layer, InputLayer) and (shape := _first_shape(layer)) is not None:
            self.add(InputLayer(batch_shape=shape, dtype=_dtype(layer)))
        if isinstance(layer, InputLayer):
            self._values = [layer._nodes[0].outputs[0]]
        elif self._values:
            self._values.append(self._called(layer, self._values[-1]))
        self._chain.append(layer)

    def _called(self, layer: Any, x: SymbolicTensor) -> SymbolicTensor:
        y = layer._call(x) if isinstance(layer, Model) else layer(x)
        if not isinstance(y, SymbolicTensor):
            layer._nodes.pop()
            raise ValueError(
                f"layer `{layer.name}` gives {len(y)} values, but one of a Sequential gives one; use recurve.Model"
            )
        return y

    def pop(self) -> Any:
        """Takes the last layer away and returns it."""
        self._check_idle("pop")
        self._need_layers()
        if not self.layers:
            raise ValueError(f"`{self.name}` has no layers")
        self._forget()
        layer = self._chain.pop()
        if self._values:
            self._values.pop()
            layer._nodes.pop()
        if len(self._chain) == 1 and self._guessed:
            self._forget_input()
        return layer

    def _need_layers(self) -> None:
        if not self._is_symbolic():
            raise _recurve.Unsupported(
                "this model was loaded, moved or copied without the objects of its layers, so none are added or taken away"
            )

    def _check_idle(self, what: str) -> None:
        if self._fit_place is not None:
            raise RuntimeError(f"`{what}` cannot change the layers of `{self.name}` while `fit` runs")

    def _forget(self) -> None:
        """Gives up the network of the chain as it was; the layers keep their weights."""
        self._graph = None
        if self.built:
            _build.keep(self)
            del self._runner

    def _forget_input(self) -> None:
        self._chain.pop(0)
        self._values = []
        self._guessed = False

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Makes the network for inputs of a shape.

        Parameters
        ----------
        input_shape
            The shape with the batch: ``(None, timesteps, features)``, or ``(None, timesteps)`` of ids.
        """
        if self._values:
            return
        if input_shape is None:
            raise ValueError(f"`{self.name}` needs an `input_shape`: (batch, timesteps, features), (batch, timesteps)")
        if not self._chain:
            raise ValueError(f"`{self.name}` has no layers")
        self._connect(tuple(input_shape))

    def _connect(self, shape: Sequence[int | None]) -> None:
        """Puts an input in front."""
        first = InputLayer(batch_shape=shape, dtype=_dtype(self._chain[0]), name=f"{self._chain[0].name}_input")
        values = [first._nodes[0].outputs[0]]
        try:
            for layer in self._chain:
                values.append(self._called(layer, values[-1]))
        except Exception:
            for layer in self._chain[: len(values) - 1]:
                layer._nodes.pop()
            raise
        self._values, self._guessed = values, True
        self._chain.insert(0, first)

    def _prepare(self, x: Any) -> None:
        if self._values or not self._chain:
            return
        if isinstance(x, Mapping):
            x = next(iter(x.values()))
        elif isinstance(x, (list, tuple)) and len(x) == 1 and isinstance(x[0], np.ndarray):
            x = x[0]
        shape = np.shape(x)
        if not shape:
            raise ValueError(f"`{self.name}` needs arrays of the shape (batch, …), but a number is given")
        exact = (None, *shape[1:])
        # Any number of timesteps, if all layers can take it.
        open_time = (None, None, *shape[2:]) if len(shape) == 3 or _dtype(self._chain[0]) == "int32" else exact
        if any(layer._options.get("stateful") for layer in self._chain if isinstance(layer, Layer)):
            exact = open_time = (shape[0], *exact[1:])
        try:
            self._connect(open_time)
        except ValueError:
            if open_time == exact:
                raise
            self._connect(exact)

    def _need_graph(self) -> Graph:
        if not self._is_symbolic():
            return super()._need_graph()
        if not self._values:
            if self._chain and _dtype(self._chain[0]) == "int32":
                # Sequences of ids of any length.
                self._connect((None, None))
            else:
                raise ValueError(
                    f"`{self.name}` is not built: put an Input in front, give the first layer an `input_shape`, call "
                    "`build`, or run it on an array"
                )
        if len(self._values) < 2:
            raise ValueError(f"`{self.name}` has no layers")
        if self._graph is None:
            self._graph = Graph([self._values[0]], [self._values[-1]])
        return self._graph

    def _all_layers(self) -> list[Any]:
        return self._chain

    def _call(self, inputs: Any) -> Any:
        if not self._values and isinstance(inputs, SymbolicTensor):
            self._connect(inputs.shape)
            self._guessed = False
        return super()._call(inputs)

    @property
    def layers(self) -> list[Any]:
        """The layers, without the input."""
        if not self._is_symbolic():
            return super().layers
        return [layer for layer in self._chain if not isinstance(layer, InputLayer)]

    def get_config(self) -> dict[str, Any]:
        self._need_graph()
        described = [_build.describe(layer) for layer in self._chain]
        shape = list(self._values[0].shape)
        return {
            "name": self._given_name,
            "trainable": self._trainable,
            "dtype": "float32",
            "layers": described,
            "build_input_shape": shape,
        }


def _dtype(layer: Any) -> str:
    """What a layer reads: ids or floats."""
    layer = _build.unwrapped(layer)
    if isinstance(layer, Sequential):
        inner = layer._chain
        return _dtype(inner[0]) if inner else "float32"
    if isinstance(layer, Model):
        return layer._need_graph().inputs[0].dtype
    if isinstance(layer, InputLayer):
        return layer.dtype
    return "int32" if isinstance(layer, Layer) and layer.class_name == "Embedding" else "float32"


def _first_shape(layer: Any) -> tuple[int | None, ...] | None:
    """The shape of the input that the first layer of a chain says."""
    if isinstance(layer, Layer):
        return layer._input_shape
    if isinstance(layer, Sequential) and not layer._values:
        return None
    values = layer._need_graph().inputs
    return values[0].shape if len(values) == 1 else None


def model_from_json(json_string: str, custom_objects: Any = None, device: Any = "auto") -> Model:
    """The model that a description is of, with initial weights.

    Parameters
    ----------
    json_string
        What ``to_json`` of a model gives, here or in Keras 3.
    custom_objects
        Refused: classes of somebody's own cannot be run.
    device
        Where the model runs.
    """
    if custom_objects:
        raise _recurve.Unsupported("`custom_objects` is not supported: classes of one's own cannot be run")
    try:
        root = json.loads(json_string)
    except json.JSONDecodeError as e:
        raise ValueError(f"the description is no JSON: {e}") from None
    if not isinstance(root, dict) or root.get("class_name") not in ("Sequential", "Functional", "Model"):
        raise ValueError("the description is none of a Sequential or a functional model")
    return _of_config(root, device)


def _of_config(root: dict[str, Any], device: Any = "auto") -> Model:
    """The model that an object of a description is."""
    config = root["config"]
    name, trainable = config.get("name"), config.get("trainable", True)
    if root["class_name"] == "Sequential":
        layers = [_build.from_object(o) for o in config["layers"]]
        model = Sequential(layers, name, trainable, device)
        shape = config.get("build_input_shape")
        if shape is not None and not model._values and layers:
            model.build(shape)
        return model
    # Finds what is wrong, and that masks are those that layers find by themselves: they are not looked at below.
    _recurve.network_shapes(json.dumps(root))
    made: dict[str, Any] = {}
    calls: list[tuple[str, Any]] = []
    first: dict[str, int] = {}
    for o in config["layers"]:
        if ".ops." in o.get("module", ""):
            continue
        made[o["name"]] = _build.from_object(o)
        # The first call of a model has the number 1 in Keras.
        first[o["name"]] = 1 if isinstance(made[o["name"]], Model) and o["class_name"] != "Sequential" else 0
        calls += [(o["name"], node) for node in o.get("inbound_nodes") or []]
    values: dict[tuple[str, int], list[SymbolicTensor]] = {
        (name, 0): [layer._nodes[0].outputs[0]] for name, layer in made.items() if isinstance(layer, InputLayer)
    }
    numbers = dict(first)

    def found(place: Sequence[Any]) -> SymbolicTensor | None:
        outputs = values.get((place[0], place[1]))
        return None if outputs is None else outputs[place[2]]

    def argument(value: Any) -> Any:
        """An argument with values in place of references; raises LookupError if one is not there yet."""
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            x = found(value["config"]["keras_history"])
            if x is None:
                raise LookupError
            return x
        if isinstance(value, list):
            return [argument(v) for v in value]
        return value

    while calls:
        left = []
        waiting: set[str] = set()
        for layer_name, node in calls:
            try:
                if layer_name in waiting:
                    # The calls of a layer keep their order.
                    raise LookupError
                if not isinstance(node, dict):
                    message = "the description is of Keras 2; open the whole file"
                    raise _recurve.Unsupported(f"layer `{layer_name}`: {message}")
                args = argument(node["args"])
                kwargs = {k: argument(v) for k, v in node.get("kwargs", {}).items() if k == "initial_state" and v}
            except LookupError:
                waiting.add(layer_name)
                left.append((layer_name, node))
                continue
            layer = made[layer_name]
            given = layer._call(*args) if isinstance(layer, Model) else layer(*args, **kwargs)
            number = numbers[layer_name]
            numbers[layer_name] += 1
            values[layer_name, number] = given if isinstance(given, list) else [given]
        if len(left) == len(calls):
            raise ValueError(f"layer `{left[0][0]}` is called with values that are not there")
        calls = left

    def places(value: Any) -> list[Any]:
        if isinstance(value, dict):
            value = [value[k] for k in sorted(value)]
        return [value] if value and isinstance(value[0], str) else [p for v in value for p in places(v)]

    ends = []
    for key in ("input_layers", "output_layers"):
        xs = [found(place) for place in places(config[key])]
        if None in xs:
            raise ValueError(f"`{key}` of the description names values that are not there")
        ends.append(xs)
    return Model(ends[0], ends[1], name, trainable, device)


def load_model(
    filepath: Any, custom_objects: Any = None, compile: bool = True, safe_mode: bool = True, device: Any = "auto"
) -> Model:
    """Opens a model file, as :func:`recurve.load`.

    Parameters
    ----------
    filepath
        The file.
    custom_objects
        Refused: classes of somebody's own cannot be run.
    compile, safe_mode
        Without effect: how a model was compiled is not read, and no code of a file is ever run.
    device
        Where the model runs.
    """
    if custom_objects:
        raise _recurve.Unsupported("`custom_objects` is not supported: classes of one's own cannot be run")
    return load(filepath, device)
