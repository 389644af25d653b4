"""The classes that all layers are of, and the inputs of models."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _recurve, constraints, initializers, regularizers
from ._graph import Node, Shape, SymbolicTensor, call, is_symbolic, plain
from ._names import unique_name
from ._weights import Variable, is_model, leaves, set_variables, unwrapped, variables

#: Libraries whose functions are those that Keras calls by the same names.
_LIBRARIES = ("jax", "keras", "numpy", "tensorflow", "torch")


def _activation(value: Any) -> Any:
    """A function as Keras describes it: its name, or a layer that applies it."""
    if value is None:
        return "linear"
    if isinstance(value, (str, Layer)):
        return value
    name = getattr(value, "__name__", None)
    library = str(getattr(value, "__module__", None)).split(".")[0]
    # A function of one's own may have the name of another one.
    if name is None or library not in _LIBRARIES:
        raise TypeError(
            f"{value!r} is no activation that is known here: give a name, such as 'relu', or a layer such as LeakyReLU()"
        )
    return name


_OLD_SHAPES = ("batch_input_shape", "batch_shape", "input_shape", "input_dim", "input_length", "batch_size")


class Layer:
    """A layer: its class and options, its calls, and where its weights are.

    Layers take Keras's arguments, and besides ``name``, ``trainable``, ``dtype`` (only ``"float32"``),
    ``activity_regularizer``, and for the first layer of a :class:`recurve.Sequential` the shape of its input in the
    words of earlier versions: ``input_shape``, ``batch_input_shape``, ``input_dim``, ``input_length``.
    """

    _module = "keras.layers"
    #: Options that the signature does not name.
    _more: tuple[str, ...] = ()
    #: Whether a call takes initial states.
    _has_states = False
    #: Whether it is an input of a model.
    _is_input = False

    def __init__(self, arguments: dict[str, Any]) -> None:
        # Of the names in `__init__` those that are its arguments.
        code = type(self).__init__.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        own = {k: v for k, v in arguments.items() if k in names and k != "self"}
        rest = dict(arguments.get("kwargs") or {})
        name = rest.pop("name", None)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"`name` must be a text, but it is {name!r}")
        self.name = name or unique_name(self.class_name)
        if "/" in self.name:
            raise ValueError(f"layer `{self.name}`: a name has no `/`")
        self.trainable = bool(rest.pop("trainable", True))
        rest.pop("autocast", None)
        dtype = rest.pop("dtype", None)
        if dtype not in (None, "float32", np.float32):
            raise _recurve.Unsupported(f"layer `{self.name}`: `dtype` = {dtype!r}: layers compute in float32")
        self.dtype = "float32"
        self._input_shape = self._old_shape(rest, own)
        self._given_weights = own.pop("weights", rest.pop("weights", None))
        own.pop("use_cudnn", None)
        for key in ("activity_regularizer", *self._more):
            if key in rest:
                own[key] = rest.pop(key)
        if rest:
            unknown = ", ".join(f"`{k}`" for k in sorted(rest))
            raise ValueError(f"layer `{self.name}`: {self.class_name} has no argument {unknown}")
        self._options = {k: self._option(k, v) for k, v in own.items()}
        for key, value in self._options.items():
            if not hasattr(type(self), key):
                setattr(self, key, value)
        self._nodes: list[Node] = []
        #: The model that has the weights, and the layer's name in its network.
        self._home: tuple[Any, str] | None = None
        #: The models that are built of the layer, and how many times one of several has changed the weights.
        self._models: weakref.WeakSet[Any] = weakref.WeakSet()
        self._version = 0

    @property
    def class_name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    def _old_shape(self, rest: dict[str, Any], own: dict[str, Any]) -> Shape | None:
        """The shape of the input, in the words of earlier versions."""
        given = {k: rest.pop(k) for k in _OLD_SHAPES if k in rest}
        whole = given.get("batch_input_shape") or given.get("batch_shape")
        if whole is not None:
            return tuple(whole)
        batch = given.get("batch_size")
        if given.get("input_shape") is not None:
            shape = given["input_shape"]
            return (batch, *((shape,) if isinstance(shape, int) else tuple(shape)))
        length, width = given.get("input_length"), given.get("input_dim")
        if width is not None:
            return (batch, length, width) if isinstance(self, RecurrentLayer) or length is not None else (batch, width)
        if length is not None:
            length = tuple(length) if isinstance(length, (list, tuple)) else (length,)
            return (batch, *length)
        return None

    def _option(self, key: str, value: Any) -> Any:
        """An argument as the layer keeps it."""
        if key.endswith("_initializer"):
            return initializers.get(value)
        if key.endswith("_regularizer"):
            return regularizers.get(value)
        if key.endswith("_constraint"):
            return constraints.get(value)
        if key in ("activation", "recurrent_activation"):
            return _activation(value)
        return value

    def get_config(self) -> dict[str, Any]:
        """The options, with which a layer of this class can be made again."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": "float32"}
        if self.class_name.startswith("SpatialDropout"):
            # Keras's class does not take it.
            del config["trainable"]
        for key, value in self._options.items():
            if key == "data_format" and value is None:
                value = "channels_last"
            config[key] = plain(value)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """The layer with these options, those of :meth:`get_config`."""
        from ._build import from_object

        return from_object({"class_name": cls.__name__, "config": config})

    def __repr__(self) -> str:
        return f"<{self.class_name} name={self.name}>"

    def _count(self) -> int:
        """How many values a call gives."""
        return 1

    def __call__(self, inputs: Any, initial_state: Any = None, mask: Any = None, training: Any = None) -> Any:
        """Calls the layer.

        Parameters
        ----------
        inputs
            A value of another layer or of :func:`recurve.Input`, or a list of them; or arrays, for which the layer is
            built and run.
        initial_state
            The initial states of a recurrent layer, a list.

        Returns
        -------
        A value, or an array; a list if the layer gives several.
        """
        if mask is not None:
            raise _recurve.Unsupported(
                f"layer `{self.name}`: a mask of one's own is not supported: use Masking or Embedding(mask_zero=True)"
            )
        if training:
            raise _recurve.Unsupported(f"layer `{self.name}`: `training` = True in a call is not supported: use fit")
        if isinstance(inputs, (list, tuple)) and self._has_states:
            # Keras's other way to give initial states.
            inputs, initial_state = inputs[0], [*inputs[1:], *(initial_state or [])] or None
        if is_symbolic(inputs):
            return call(self, inputs, initial_state, self._count())
        return self._run(inputs, initial_state)

    def _run(self, inputs: Any, initial_state: Any) -> Any:
        """Runs the layer by itself on arrays."""
        from ._model import Model

        as_list = isinstance(inputs, (list, tuple))
        given = [np.asarray(x) for x in (inputs if as_list else [inputs])]
        states = [] if initial_state is None else list(initial_state)
        states = [np.asarray(x) for x in states]
        # Any number of sequences and, with features behind them, of timesteps.
        shapes = [(None, None, *x.shape[2:]) if x.ndim > 2 else (None, *x.shape[1:]) for x in given]
        if self._options.get("stateful"):
            shapes = [(x.shape[0], *s[1:]) for x, s in zip(given, shapes)]
        key = tuple((s, x.dtype.kind) for s, x in zip(shapes, given)) + (len(states),)
        if not hasattr(self, "_alone"):
            self._alone: dict[Any, Any] = {}
        if key not in self._alone:
            for fixed in (shapes, [(None, *x.shape[1:]) for x in given]):
                try:
                    self._alone[key] = self._model(Model, fixed, given, states, as_list)
                    break
                except ValueError:
                    if fixed is not shapes:
                        raise
        return self._alone[key](*[[*given, *states]] if len(given) + len(states) > 1 else given)

    def _model(self, model: Any, shapes: Sequence[Shape], given: Any, states: Any, as_list: bool) -> Any:
        """A model of this layer alone."""
        kinds = {"f": "float32", "b": "bool"}
        inputs = [
            Input(batch_shape=s, dtype=kinds.get(x.dtype.kind, "int32"), name=f"{self.name}_input_{n}")
            for n, (s, x) in enumerate(zip(shapes, given))
        ]
        begins = [Input(batch_shape=(None, *x.shape[1:]), name=f"{self.name}_state_{n}") for n, x in enumerate(states)]
        outputs = call(self, inputs if as_list else inputs[0], begins or None, self._count())
        return model(inputs=inputs + begins, outputs=outputs, name=f"{self.name}_alone")

    # Values

    def _only_node(self, what: str) -> Node:
        if not self._nodes:
            raise AttributeError(f"layer `{self.name}` has not been called, so it has no {what}")
        return self._nodes[0]

    @property
    def input(self) -> Any:
        """The value that the layer was first called on."""
        node = self._only_node("input")
        return node.inputs if node.as_list else node.inputs[0]

    @property
    def output(self) -> Any:
        """What its first call gives."""
        outputs = self._only_node("output").outputs
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def output_shape(self) -> Any:
        """The shape of what its first call gives."""
        output = self.output
        return [x.shape for x in output] if isinstance(output, list) else output.shape

    # Weights

    @property
    def built(self) -> bool:
        """Whether the layer has weights in a network."""
        return self._home is not None

    @property
    def weights(self) -> list[Variable]:
        """The variables, in Keras's order."""
        inside = unwrapped(self)
        if is_model(inside):
            return [v for _, layer in leaves(inside) for v in layer.weights]
        if self._home is None:
            return []
        model, path = self._home
        return [v for v in variables(model) if v.layer == path]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that training changes."""
        return [v for v in self.weights if v.trainable and self.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The variables that training leaves as they are."""
        return [v for v in self.weights if not (v.trainable and self.trainable)]

    def get_weights(self) -> list[np.ndarray]:
        """The values of the variables in Keras's layout and order; of an LSTM kernel ``[features, 4·units]``, recurrent
        kernel ``[units, 4·units]`` and bias ``[4·units]`` with the gates i, f, c, o."""
        if self._home is None and self._given_weights is not None:
            return [np.asarray(w) for w in self._given_weights]
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replaces the values of the variables, given as :meth:`get_weights` gives them."""
        set_variables(self, self.weights, weights)

    def count_params(self) -> int:
        """The number of elements of all variables."""
        if self._home is None and not is_model(unwrapped(self)):
            raise ValueError(f"layer `{self.name}` has no weights yet: it is in no model that has been built")
        return sum(math.prod(v.shape) for v in self.weights)


class RecurrentLayer(Layer):
    """A layer with states."""

    _more = ("zero_output_for_mask",)
    _has_states = True

    def _states(self) -> int:
        return {"LSTM": 2, "LSTMCell": 2}.get(self.class_name, 1)

    def _count(self) -> int:
        return 1 + (self._states() if self._options.get("return_state") else 0)

    def reset_states(self) -> None:
        """Begins again with zeros, if the layer is stateful."""
        if self._home is not None:
            self._home[0].reset_states()

    reset_state = reset_states


class Cell(Layer):
    """A cell, which :class:`recurve.layers.RNN` runs over a sequence."""

    def _states(self) -> int:
        return 2 if self.class_name == "LSTMCell" else 1

    def __call__(self, *_: Any, **__: Any) -> Any:
        use = f"use RNN({self.class_name}(…))"
        raise _recurve.Unsupported(f"layer `{self.name}`: a cell is not called by itself: {use}")


class InputLayer(Layer):
    """An input of a model.

    Parameters
    ----------
    shape
        The shape without the batch; ``None`` in it stands for any size.
    batch_size
        The number of sequences, if it is fixed.
    dtype
        ``"float32"``, or an integer type for ids.
    batch_shape
        The shape with the batch, in place of both.
    """

    _is_input = True

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        batch_shape: Sequence[int | None] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        for old in ("input_shape", "batch_input_shape"):
            if kwargs.get(old) is not None:
                value = kwargs.pop(old)
                shape, batch_shape = (shape, value) if old.startswith("batch") else (value, batch_shape)
        for unsupported in ("sparse", "ragged", "input_tensor", "optional"):
            if kwargs.pop(unsupported, None):
                raise _recurve.Unsupported(f"`{unsupported}` of an input is not supported")
        if (shape is None) == (batch_shape is None):
            raise ValueError("an input needs a `shape`, or a `batch_shape`, and not both")
        if batch_shape is None:
            shape = (shape,) if isinstance(shape, int) else tuple(shape)  # type: ignore[arg-type]
            batch_shape = (batch_size, *shape)
        super().__init__({"kwargs": kwargs | {"name": name}})
        for size in batch_shape:
            if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
                raise ValueError(f"input `{self.name}`: a size is a whole number of at least 1 or None, not {size!r}")
        self.batch_shape: Shape = tuple(None if s is None else int(s) for s in batch_shape)
        self.dtype = np.dtype(dtype).name if dtype is not None else "float32"
        node = Node(self, [], [], False)
        node.outputs = [SymbolicTensor(self.batch_shape, self.dtype, node, 0)]
        self._nodes.append(node)

    def get_config(self) -> dict[str, Any]:
        return {"batch_shape": list(self.batch_shape), "dtype": self.dtype, "sparse": False, "name": self.name}

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"layer `{self.name}`: an input is not called")


def Input(  # noqa: N802 - Keras's name
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    name: str | None = None,
    batch_shape: Sequence[int | None] | None = None,
    **kwargs: Any,
) -> SymbolicTensor:
    """A value that stands for an input of a model.

    Parameters
    ----------
    shape
        The shape without the batch: ``(timesteps, features)``; ``None`` stands for any size.
    batch_size
        The number of sequences, if it is fixed.
    dtype
        ``"float32"``, or an integer type for ids.
    name
        The name by which the input is given.
    batch_shape
        The shape with the batch, in place of ``shape`` and ``batch_size``.

    Examples
    --------
    >>> import recurve
    >>> x = recurve.Input((None, 8), name="x")
    >>> recurve.layers.LSTM(4, return_sequences=True)(x).shape
    (None, None, 4)
    """
    return InputLayer(shape, batch_size, dtype, batch_shape, name, **kwargs)._nodes[0].outputs[0]
