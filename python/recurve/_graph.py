"""Values that stand for arrays, calls of layers on them, and graphs of such calls.

A graph becomes the JSON that Keras writes for a model, from which Rust makes the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import _recurve

Shape = tuple[int | None, ...]

#: Where Keras says that a functional model is defined.
FUNCTIONAL_MODULE = "keras.src.models.functional"


class SymbolicTensor:
    """What stands for an array when layers are called: a shape, and the call that it comes from.

    Parameters
    ----------
    shape
        The dimensions, batch first; ``None`` stands for any size.
    dtype
        ``"float32"``, or an integer type for ids.
    node
        The call that gives it.
    index
        Its place among the outputs of the call.
    """

    def __init__(self, shape: Shape, dtype: str, node: Node, index: int) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self._node = node
        self._index = index

    @property
    def name(self) -> str:
        """The name of the layer that gives it."""
        return self._node.layer.name

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<SymbolicTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"{self!r} stands for an array and has no numbers: run a model of it")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self!r} stands for one array: a layer gives several with return_state=True")

    def _joined(self, other: Any, class_name: str, sign: str) -> SymbolicTensor:
        if not isinstance(other, SymbolicTensor):
            kind = type(other).__name__
            raise TypeError(f"{self.name} {sign} {kind}: only values of layers can be joined by operators")
        from . import layers

        return getattr(layers, class_name)()([self, other])

    def __add__(self, other: Any) -> SymbolicTensor:
        return self._joined(other, "Add", "+")

    def __sub__(self, other: Any) -> SymbolicTensor:
        return self._joined(other, "Subtract", "-")

    def __mul__(self, other: Any) -> SymbolicTensor:
        return self._joined(other, "Multiply", "*")


class Node:
    """A call of a layer or a model."""

    def __init__(self, layer: Any, inputs: list[SymbolicTensor], states: list[SymbolicTensor], as_list: bool) -> None:
        self.layer = layer
        self.inputs = inputs
        self.states = states
        self.as_list = as_list
        self.outputs: list[SymbolicTensor] = []

    @property
    def all_inputs(self) -> list[SymbolicTensor]:
        return self.inputs + self.states

    def parents(self) -> list[Node]:
        return [x._node for x in self.all_inputs]


def is_symbolic(value: Any) -> bool:
    """Whether a value, or one in a list of values, stands for an array."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(v, SymbolicTensor) for v in value)
    if isinstance(value, dict):
        return any(isinstance(v, SymbolicTensor) for v in value.values())
    return isinstance(value, SymbolicTensor)


def call(layer: Any, inputs: Any, states: Any = None, count: int = 1) -> Any:
    """Calls a layer or a model on values; finds the shapes of what it gives.

    Returns one value, or a list of ``count``.
    """
    as_list = isinstance(inputs, (list, tuple))
    given = list(inputs) if as_list else [inputs]
    states = [] if states is None else list(states) if isinstance(states, (list, tuple)) else [states]
    if states and not getattr(layer, "_has_states", False):
        raise TypeError(f"layer `{layer.name}`: has no states, so it takes no `initial_state`")
    for value in given + states:
        if not isinstance(value, SymbolicTensor):
            raise TypeError(
                f"layer `{layer.name}`: is called with values of layers and with {type(value).__name__} at once"
            )
    node = Node(layer, given, states, as_list)
    shapes = _shapes(node, count)
    dtype = "float32"
    node.outputs = [SymbolicTensor(shape, dtype, node, n) for n, shape in enumerate(shapes)]
    layer._nodes.append(node)
    return node.outputs[0] if count == 1 else node.outputs


def _shapes(node: Node, count: int) -> list[Shape]:
    """The shapes of what a call gives: those of a model of this one call."""
    names = [f"{node.layer.name}_input_{n}" for n in range(len(node.all_inputs))]
    # One value may be given twice; each has an input of its own.
    order = iter(names)

    def reference(x: SymbolicTensor) -> dict[str, Any]:
        return _reference(x, next(order), 0, 0)

    described = [
        _input_object(name, x.shape, x.dtype) | {"inbound_nodes": []} for name, x in zip(names, node.all_inputs)
    ]
    own = describe(node.layer) | {"name": node.layer.name, "inbound_nodes": [_arguments(node, reference)]}
    first = 1 if own["class_name"] == "Functional" else 0
    root = {
        "module": FUNCTIONAL_MODULE,
        "class_name": "Functional",
        "config": {
            "name": node.layer.name,
            "trainable": True,
            "layers": [*described, own],
            "input_layers": [[name, 0, 0] for name in names],
            "output_layers": [[node.layer.name, first, n] for n in range(count)],
        },
    }
    return [tuple(shape) for shape in _recurve.network_shapes(json.dumps(root))]


def _reference(x: SymbolicTensor, name: str, node: int, index: int) -> dict[str, Any]:
    config = {"shape": list(x.shape), "dtype": x.dtype, "keras_history": [name, node, index]}
    return {"class_name": "__keras_tensor__", "config": config}


def _arguments(node: Node, reference: Any) -> dict[str, Any]:
    """The arguments of a call, as Keras writes them."""
    given = [reference(x) for x in node.inputs]
    kwargs: dict[str, Any] = {}
    if node.states:
        kwargs["initial_state"] = [reference(x) for x in node.states]
    return {"args": [given if node.as_list else given[0]], "kwargs": kwargs}


def plain(value: Any) -> Any:
    """A value as JSON has it; layers, initializers and the like as Keras describes objects."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if hasattr(value, "get_config"):
        return describe(value)
    raise TypeError(f"{value!r} is no option of a layer")


def describe(value: Any) -> dict[str, Any]:
    """An object as Keras describes it."""
    config = plain(value.get_config())
    return {"module": value._module, "class_name": value.class_name, "config": config, "registered_name": None}


def _input_object(name: str, shape: Shape, dtype: str) -> dict[str, Any]:
    config = {"batch_shape": list(shape), "dtype": dtype, "sparse": False, "name": name}
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": config,
        "registered_name": None,
        "name": name,
    }


class Graph:
    """The calls between inputs and outputs, in Keras's order."""

    def __init__(self, inputs: Sequence[SymbolicTensor], outputs: Sequence[SymbolicTensor]) -> None:
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        for what, values in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not values:
                raise ValueError(f"a model needs {what}")
            for value in values:
                if not isinstance(value, SymbolicTensor):
                    raise TypeError(f"`{what}` of a model must be values of layers, not {type(value).__name__}")
        given = {id(x) for x in self.inputs}
        for x in self.inputs:
            if not x._node.layer._is_input:
                raise _recurve.Unsupported(
                    f"`inputs`: `{x.name}` is what a layer gives; only those of recurve.Input are supported"
                )
        nodes, places = self._walk(given)
        self.nodes = {id(n) for n in nodes}
        depths: dict[int, int] = {}
        of_layers: dict[int, int] = {}
        layers: dict[int, Any] = {}
        for node in reversed(nodes):
            key = id(node.layer)
            depth = max(depths.get(id(node), 0), of_layers.get(key, 0))
            of_layers[key], depths[id(node)], layers[key] = depth, depth, node.layer
            for parent in node.parents():
                depths[id(parent)] = max(depth + 1, depths.get(id(parent), 0))
        for x in self.inputs:
            # An input that no output needs.
            if id(x._node.layer) not in of_layers:
                of_layers[id(x._node.layer)], layers[id(x._node.layer)] = 0, x._node.layer
                places[id(x._node.layer)] = -1
                self.nodes.add(id(x._node))
        #: The layers, those that are far from the outputs first.
        self.layers: list[Any] = sorted(layers.values(), key=lambda l: (-of_layers[id(l)], places[id(l)]))
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise ValueError(f"the name `{layer.name}` belongs to several layers: names must be unique in a model")
            seen.add(layer.name)

    def _walk(self, given: set[int]) -> tuple[list[Node], dict[int, int]]:
        """All calls, each behind those that it depends on, and for each layer when it was first met."""
        order: list[Node] = []
        places: dict[int, int] = {}
        done: set[int] = set()
        open_now: set[int] = set()
        for output in self.outputs:
            stack: list[tuple[Node, Iterator[Node] | None]] = [(output._node, None)]
            while stack:
                node, parents = stack.pop()
                if parents is None:
                    if id(node) in done:
                        continue
                    if id(node) in open_now:
                        raise ValueError(f"layer `{node.layer.name}` waits for what it gives itself")
                    if node.layer._is_input and id(node.outputs[0]) not in given:
                        name = node.layer.name
                        raise ValueError(f"the outputs need the input `{name}`, which is not among those of the model")
                    open_now.add(id(node))
                    places.setdefault(id(node.layer), len(places))
                    parents = iter(node.parents())
                step = next(parents, None)
                if step is None:
                    open_now.discard(id(node))
                    done.add(id(node))
                    order.append(node)
                else:
                    stack += [(node, parents), (step, None)]
        return order, places

    def get_config(self, name: str, trainable: bool) -> dict[str, Any]:
        """The graph as Keras writes it."""
        numbers: dict[int, int] = {}
        for layer in self.layers:
            # A model was called once when it was made.
            number = 1 if getattr(layer, "class_name", "") == "Functional" else 0
            for node in layer._nodes:
                if id(node) in self.nodes:
                    numbers[id(node)] = number
                    number += 1

        def place(x: SymbolicTensor) -> list[Any]:
            return [x._node.layer.name, numbers[id(x._node)], x._index]

        def reference(x: SymbolicTensor) -> dict[str, Any]:
            return _reference(x, *place(x))

        described = []
        for layer in self.layers:
            calls = [n for n in layer._nodes if id(n) in self.nodes and not layer._is_input]
            arguments = [_arguments(n, reference) for n in calls]
            described.append(describe(layer) | {"name": layer.name, "inbound_nodes": arguments})
        return {
            "name": name,
            "trainable": trainable,
            "layers": described,
            "input_layers": [place(x) for x in self.inputs],
            "output_layers": [place(x) for x in self.outputs],
        }
