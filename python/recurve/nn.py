"""Recurrent modules with PyTorch's names, arguments and shapes, for inference.

``recurve.nn.LSTM(input_size, hidden_size, …)`` is called as ``torch.nn.LSTM`` is, and its weights have the names that
PyTorch gives them, so that ``module.load_state_dict(torch_module.state_dict())`` is all that is needed to run a trained
module here. Arrays go in (numpy arrays, tensors of PyTorch, anything with DLPack), outputs are numpy arrays of float32;
the states are :class:`recurve.Tensor`, which act as arrays and stay on the device while they are only passed back as
``hx``.

What differs from PyTorch, because these modules compute no gradients:

- `dropout` has an effect only in training. Modules begin in evaluation mode, and ``train()`` of one with dropout is
  refused. To train, use `recurve.layers` and `fit`.
- Sequences of different lengths are given by `lengths`, which gives what packing them would: outputs past the end are
  zero, the final states are those of the last valid timestep, and the backward direction begins there.
- `state_dict` gives numpy arrays. `parameters` are read-only: `load_state_dict`, or setting an attribute such as
  ``module.weight_ih_l0``, replaces them.
"""

from __future__ import annotations

import math
import numbers
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _recurve
from ._dlpack import as_float32, as_ids, as_numpy
from ._tensor import Tensor

__all__ = [
    "GRU",
    "GRUCell",
    "LSTM",
    "LSTMCell",
    "Embedding",
    "Linear",
    "Module",
    "RNN",
    "RNNCell",
    "load_weights",
    "manual_seed",
]

_generator = np.random.default_rng()
_generator_lock = threading.Lock()


def manual_seed(seed: int) -> None:
    """Seeds the initial weights of the modules that are made from now on.

    Examples
    --------
    >>> _ = manual_seed(7); a = LSTM(2, 3)
    >>> _ = manual_seed(7); b = LSTM(2, 3)
    >>> bool(np.all(a.weight_ih_l0 == b.weight_ih_l0))
    True
    """
    global _generator
    with _generator_lock:
        _generator = np.random.default_rng(seed)


def _uniform(shape: tuple[int, ...], limit: float) -> np.ndarray:
    """Elements in [−limit, limit)."""
    with _generator_lock:
        drawn = _generator.random(shape, dtype=np.float32)
    return (drawn * np.float32(2.0) - np.float32(1.0)) * np.float32(limit)


def load_weights(path: str | os.PathLike[str], prefix: str = "") -> dict[str, np.ndarray]:
    """The weights of a file by name, for `load_state_dict`; PyTorch is not needed, and no pickle is executed.

    Parameters
    ----------
    path
        What ``torch.save`` wrote (``.pt``, ``.pth``, ``.bin``, ``.ckpt``), TorchScript, or a safetensors file.
    prefix
        The beginning of the names of a part, such as ``"encoder.rnn"``, which the names are then without.

    Returns
    -------
    dict
        Arrays of float32.

    Raises
    ------
    FileNotFoundError, OSError
        The file cannot be read.
    ValueError
        It is damaged, or no name begins with `prefix`.
    """
    return _recurve.weights_of(os.fspath(path), prefix)


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` with ``strict=False`` left out."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    def __str__(self) -> str:
        return repr(self)


class Module:
    """What all modules share, and the base of your own.

    Attributes that are modules are parts of it, as in PyTorch: their parameters appear with the attribute's name before
    theirs.

    Examples
    --------
    >>> class Tagger(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.rnn = LSTM(8, 16, batch_first=True, bidirectional=True, device="cpu")
    ...         self.head = Linear(32, 5, device="cpu")
    ...     def forward(self, x):
    ...         return self.head(self.rnn(x)[0])
    >>> Tagger()(np.zeros((2, 7, 8), np.float32)).shape
    (2, 7, 5)
    >>> list(Tagger().state_dict())[-2:]
    ['head.weight', 'head.bias']
    """

    training: bool

    def __init__(self, device: Any = "auto") -> None:
        self.__dict__["_parameters"] = OrderedDict()
        self.__dict__["_lock"] = threading.RLock()
        self.__dict__["_kernel"] = None
        self.__dict__["_device"] = device
        self.training = False

    # Calls

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the module; calling the module calls it."""
        raise NotImplementedError(f"{type(self).__name__} has no `forward`")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # Parameters

    def __getattr__(self, name: str) -> Any:
        parameters = self.__dict__.get("_parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module) and "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign a module before Module.__init__() was called")
        if name not in self.__dict__.get("_parameters", {}):
            object.__setattr__(self, name, value)
            return
        array = as_float32(value, name, detach=True)
        if array.shape != self._parameters[name].shape:
            raise ValueError(f"`{name}` must have shape {self._parameters[name].shape}, but it has {array.shape}")
        self._replace({name: array})

    def _replace(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces parameters by copies of these arrays; the next call computes with them."""
        copies = OrderedDict(self._parameters)
        for name, array in arrays.items():
            copies[name] = np.array(array, np.float32, order="C")
            copies[name].flags.writeable = False
        with self._lock:
            self.__dict__["_parameters"] = copies
            self.__dict__["_kernel"] = None

    def _compiled(self) -> Any:
        """What computes the module on its device, made when it is first needed."""
        kernel = self._kernel
        if kernel is None:
            with self._lock:
                kernel = self._kernel
                if kernel is None:
                    kernel = self.__dict__["_kernel"] = self._compile()
        return kernel

    def _compile(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has nothing to compile")

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The attributes that are modules, with their names."""
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The attributes that are modules."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all within it, with their names; a module that is there twice comes once."""
        seen: set[int] = set()

        def walk(module: Module, name: str) -> Iterator[tuple[str, Module]]:
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                for own, child in module.named_children():
                    yield from walk(child, f"{name}.{own}" if name else own)

        return walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        """This module and all within it."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, np.ndarray]]:
        """Names and read-only arrays of all parameters."""
        for name, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for own, array in module._parameters.items():
                yield (f"{name}.{own}" if name else own), array

    def parameters(self, recurse: bool = True) -> Iterator[np.ndarray]:
        """Read-only arrays of all parameters."""
        return (array for _, array in self.named_parameters(recurse=recurse))

    def state_dict(self, *, prefix: str = "") -> OrderedDict[str, np.ndarray]:
        """Copies of all parameters by PyTorch's names.

        Examples
        --------
        >>> {name: w.shape for name, w in GRU(3, 4).state_dict().items()}
        {'weight_ih_l0': (12, 3), 'weight_hh_l0': (12, 4), 'bias_ih_l0': (12,), 'bias_hh_l0': (12,)}
        """
        return OrderedDict((prefix + name, array.copy()) for name, array in self._tied_parameters())

    def _tied_parameters(self, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
        """As `named_parameters`, but a module that is there twice comes with each of its names."""
        for name, array in self._parameters.items():
            yield prefix + name, array
        for name, child in self.named_children():
            yield from child._tied_parameters(f"{prefix}{name}.")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copies the parameters of a mapping from names to arrays.

        Parameters
        ----------
        state_dict
            Names and tensors of PyTorch, numpy arrays, or anything with DLPack. Floats of other widths are converted.
        strict
            Whether the names must be exactly those of :meth:`state_dict`.

        Returns
        -------
        IncompatibleKeys
            The names that are missing and those that belong to no parameter.

        Raises
        ------
        ValueError
            For names that are missing or unexpected with `strict`, and for wrong shapes, all of them at once. Nothing
            is changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        own = OrderedDict(self._tied_parameters())
        missing = [name for name in own if name not in state_dict]
        unexpected = [str(name) for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            names = ", ".join(f'"{name}"' for name in missing)
            problems.append(f"Missing key(s) in state_dict: {names}. ")
        if strict and unexpected:
            names = ", ".join(f'"{name}"' for name in unexpected)
            problems.append(f"Unexpected key(s) in state_dict: {names}. ")
        arrays = {}
        for name, array in own.items():
            if name not in state_dict:
                continue
            given = as_float32(state_dict[name], name, detach=True)
            if given.shape != array.shape:
                problems.append(
                    f"size mismatch for {name}: copying a param with shape {list(given.shape)} from checkpoint, "
                    f"the shape in current model is {list(array.shape)}."
                )
            arrays[name] = given
        if problems:
            if hint := _prefix_of(unexpected, missing):
                problems.append(
                    f'The names of these parameters begin with "{hint}" there: '
                    f'pass {{k.removeprefix("{hint}"): v for k, v in state_dict.items() if k.startswith("{hint}")}}.'
                )
            lines = "\n\t".join(problems)
            raise ValueError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{lines}")
        self._load(arrays)
        return IncompatibleKeys(missing, unexpected)

    def _load(self, arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
        own = {name: arrays[prefix + name] for name in self._parameters if prefix + name in arrays}
        if own:
            self._replace(own)
        for name, child in self.named_children():
            child._load(arrays, f"{prefix}{name}.")

    # Modes and devices

    def train(self, mode: bool = True) -> Module:
        """Sets the mode of training, which changes nothing but what dropout would do.

        Raises
        ------
        recurve.Unsupported
            If the module has dropout: it computes no gradients and drops nothing.
        """
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        if mode:
            for name, module in self.named_modules():
                if getattr(module, "dropout", 0.0):
                    raise _recurve.Unsupported(
                        f"`{name or type(module).__name__}` has dropout={module.dropout}, and modules of recurve.nn "
                        "run without dropout, as in evaluation; to train, use recurve.layers and `fit`"
                    )
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Sets the mode of evaluation, in which modules begin."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Refuses gradients, which these modules do not have; ``requires_grad_(False)`` changes nothing."""
        if requires_grad:
            raise _recurve.Unsupported(
                "modules of recurve.nn compute no gradients; to train, use recurve.layers and `fit`"
            )
        return self

    @property
    def device(self) -> _recurve.Device:
        """The device."""
        return _device(self._device)

    def to(self, device: Any) -> Module:
        """Moves the module to another device, and returns it."""
        # Refuses a name that is none before anything is changed.
        _device(device)
        for module in self.modules():
            with module._lock:
                module.__dict__["_device"] = device
                module.__dict__["_kernel"] = None
        return self

    def cpu(self) -> Module:
        """Moves the module to the CPU, and returns it."""
        return self.to("cpu")

    # Texts, pickles, copies

    def extra_repr(self) -> str:
        """What its text has between parentheses."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        if not children:
            return f"{type(self).__name__}({extra})"
        lines = ([extra] if extra else []) + children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_parameters"] = OrderedDict(self._parameters)
        # Texts open the same device elsewhere; the kernel is made again there.
        state["_device"] = getattr(self._device, "selector", self._device)
        del state["_lock"], state["_kernel"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["_lock"] = threading.RLock()
        self.__dict__["_kernel"] = None
        for array in self._parameters.values():
            array.flags.writeable = False

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("_parameters", {})})


def _prefix_of(unexpected: list[str], missing: list[str]) -> str | None:
    """What all missing names begin with among the unexpected ones, if there is one such beginning."""
    if not missing:
        return None
    found = {name[: -len(missing[0])] for name in unexpected if name.endswith("." + missing[0])}
    found = {prefix for prefix in found if all(prefix + name in unexpected for name in missing)}
    return found.pop() if len(found) == 1 else None


def _device(device: Any) -> _recurve.Device:
    return device if isinstance(device, _recurve.Device) else _recurve.Device(device)


def _check_int(value: Any, name: str, *, least: int, text: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
    if value < least:
        raise ValueError(text)
    return int(value)


def _check_bool(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    return value


def _check_dtype(dtype: Any) -> None:
    if dtype is not None and str(dtype).removeprefix("torch.") not in ("float32", "<class 'numpy.float32'>", "float"):
        raise _recurve.Unsupported(f"dtype={dtype}: modules of recurve.nn compute in float32")


class _Recurrent(Module):
    """Stacked recurrent layers in one or two directions."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    _cell = ""
    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__("auto" if device is None else device)
        _check_dtype(dtype)
        if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        self.input_size = _check_int(
            input_size, "input_size", least=1, text="input_size must be greater than zero"
        )
        self.hidden_size = _check_int(
            hidden_size, "hidden_size", least=1, text="hidden_size must be greater than zero"
        )
        self.num_layers = _check_int(
            num_layers, "num_layers", least=1, text="num_layers must be greater than zero"
        )
        self.bias = _check_bool(bias, "bias")
        self.batch_first = _check_bool(batch_first, "batch_first")
        self.dropout = float(dropout)
        self.bidirectional = bool(bidirectional)
        self.proj_size = _check_int(
            proj_size,
            "proj_size",
            least=0,
            text="proj_size should be a positive integer or zero to disable projections",
        )
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        self.reset_parameters()

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        rows, width = self._gates * self.hidden_size, self.proj_size or self.hidden_size
        for layer in range(self.num_layers):
            features = self.input_size if layer == 0 else width * self._directions
            for end in ("", "_reverse")[: self._directions]:
                yield f"weight_ih_l{layer}{end}", (rows, features)
                yield f"weight_hh_l{layer}{end}", (rows, width)
                if self.bias:
                    yield f"bias_ih_l{layer}{end}", (rows,)
                    yield f"bias_hh_l{layer}{end}", (rows,)
                if self.proj_size:
                    yield f"weight_hr_l{layer}{end}", (self.proj_size, self.hidden_size)

    def reset_parameters(self) -> None:
        """Draws the weights anew from the uniform distribution in ±1/√hidden_size, as PyTorch does."""
        limit = 1.0 / math.sqrt(self.hidden_size)
        self._replace(OrderedDict((name, _uniform(shape, limit)) for name, shape in self._shapes()))

    def flatten_parameters(self) -> None:
        """Does nothing: weights are packed when they are first used."""

    @property
    def all_weights(self) -> list[list[np.ndarray]]:
        """The parameters of each layer and direction."""
        names, size = list(self._parameters), (4 if self.bias else 2) + (1 if self.proj_size else 0)
        return [[self._parameters[name] for name in names[n : n + size]] for n in range(0, len(names), size)]

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _compile(self) -> Any:
        return _recurve.RecurrentModule(
            self._cell_name(),
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.bidirectional,
            self.proj_size,
            not self.batch_first,
            dict(self._parameters),
            self._device,
        )

    def _cell_name(self) -> str:
        return self._cell

    def _run(
        self, input: Any, states: tuple[Any, ...] | None, lengths: Any
    ) -> tuple[np.ndarray, tuple[Tensor, ...]]:
        """The outputs and the final states, whose sizes are those of h and c."""
        x = input if isinstance(input, Tensor) else as_float32(input, "input")
        if x.ndim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {x.ndim}D instead")
        batched = x.ndim == 3
        time, rows = (1, 0) if self.batch_first else (0, 1)
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        if 0 in x.shape:
            raise ValueError(f"input must not be empty, but its shape is {x.shape}")
        batch, steps = (x.shape[rows], x.shape[time]) if batched else (1, x.shape[0])
        if not batched:
            if isinstance(x, Tensor):
                x = x.numpy()
            x = x[None] if self.batch_first else x[:, None]
        if lengths is not None:
            lengths = _lengths(lengths, batch if batched else None, steps)
        first = self.num_layers * self._directions
        names = ("h_0", "c_0") if self._states == 2 else ("hx",)
        wanted = [(first, batch, self.proj_size or self.hidden_size), (first, batch, self.hidden_size)]
        given: list[Any] = [None, None]
        for n, (name, state) in enumerate(zip(names, states or ())):
            given[n] = _state(state, name, wanted[n], batched)
        y, h, c = self._compiled().forward(_value(x), *given, lengths)
        if not batched:
            y = y.reshape(steps, -1)
        ends = [h, c][: self._states]
        return y, tuple(_tensor(end, batched) for end in ends)

    _states = 1

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        """Runs the module over a sequence; see the class."""
        y, (h,) = self._run(input, None if hx is None else (hx,), lengths)
        return y, h

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += f", bias={self.bias}"
        if self.batch_first:
            text += f", batch_first={self.batch_first}"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += f", bidirectional={self.bidirectional}"
        return text


def _value(x: Any) -> Any:
    """What the extension takes: a tensor's value of its own, or an array."""
    return x._value if isinstance(x, Tensor) else x


def _tensor(value: Any, batched: bool) -> Tensor:
    """A state; that of a sequence without a batch has no such dimension."""
    layers, _, size = value.shape
    return Tensor(value) if batched else Tensor(value, (layers, size))


def _state(state: Any, name: str, wanted: tuple[int, int, int], batched: bool) -> Any:
    """A state of the right shape as the extension takes it; a tensor is not read."""
    array = state if isinstance(state, Tensor) else as_float32(state, name)
    expected = wanted if batched else (wanted[0], wanted[2])
    if len(array.shape) != len(expected):
        if batched:
            raise ValueError(f"For batched 3-D input, {name} should also be 3-D but got {array.ndim}-D tensor")
        raise ValueError(f"For unbatched 2-D input, {name} should also be 2-D but got {array.ndim}-D tensor")
    if tuple(array.shape) != expected:
        kind = "cell " if name == "c_0" else "hidden "
        raise ValueError(f"Expected {kind}size {expected} of `{name}`, got {list(array.shape)}")
    if isinstance(array, Tensor):
        # The value keeps its dimension of the batch.
        return array._value if tuple(array._value.shape) == wanted else array.numpy().reshape(wanted)
    return array.reshape(wanted)


def _lengths(lengths: Any, batch: int | None, steps: int) -> np.ndarray:
    """The number of valid timesteps of each sequence."""
    array = as_ids(lengths, "lengths")
    if batch is None:
        raise ValueError("lengths belong to a batch of sequences, and the input is one sequence without a batch")
    if array.shape != (batch,):
        raise ValueError(f"lengths must have shape ({batch},), one for each sequence, but it has {array.shape}")
    if int(array.min()) < 1:
        raise ValueError("Length of all samples has to be greater than 0, but found an element in lengths that is <= 0")
    if int(array.max()) > steps:
        raise ValueError(f"lengths contains {int(array.max())}, but the input has {steps} timesteps")
    return array


class RNN(_Recurrent):
    """An Elman RNN, ``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``, as ``torch.nn.RNN``.

    Parameters
    ----------
    input_size, hidden_size
        The number of features of the input and of the state.
    num_layers
        How many layers are stacked.
    nonlinearity
        ``"tanh"`` or ``"relu"``.
    bias
        Whether there are biases.
    batch_first
        Whether input and output are ``(batch, time, features)`` instead of ``(time, batch, features)``.
    dropout
        Kept, and without effect: see the module.
    bidirectional
        Whether there is a second layer that reads backwards.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.

    Notes
    -----
    Called as ``output, h_n = rnn(input, hx=None, *, lengths=None)``. L is `num_layers`, D the number of directions.

    ========== ========================= ======================
    array      shape                     without a batch
    ========== ========================= ======================
    input      (T, B, input_size)        (T, input_size)
    hx, h_n    (L·D, B, hidden_size)     (L·D, hidden_size)
    lengths    (B,)
    output     (T, B, D·hidden_size)     (T, D·hidden_size)
    ========== ========================= ======================

    Examples
    --------
    >>> rnn = RNN(3, 4, nonlinearity="relu", device="cpu")
    >>> rnn
    RNN(3, 4)
    >>> output, h_n = rnn(np.ones((5, 2, 3), np.float32))
    >>> output.shape, h_n.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        # Weights do not depend on it, so it may be set before them.
        object.__setattr__(self, "nonlinearity", nonlinearity)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def _cell_name(self) -> str:
        return f"rnn_{self.nonlinearity}"


class LSTM(_Recurrent):
    """A long short-term memory, as ``torch.nn.LSTM``, with gates in PyTorch's order i, f, g, o.

    Parameters
    ----------
    input_size, hidden_size
        The number of features of the input and of the states.
    num_layers
        How many layers are stacked.
    bias
        Whether there are biases.
    batch_first
        Whether input and output are ``(batch, time, features)`` instead of ``(time, batch, features)``.
    dropout
        Kept, and without effect: see the module.
    bidirectional
        Whether there is a second layer that reads backwards.
    proj_size
        The size of a projection of h; 0 for none.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.

    Notes
    -----
    Called as ``output, (h_n, c_n) = lstm(input, hx=None, *, lengths=None)``, where `hx` is ``(h_0, c_0)``. L is
    `num_layers`, D the number of directions, P is `proj_size`, or `hidden_size` without one.

    ========== ========================= ======================
    array      shape                     without a batch
    ========== ========================= ======================
    input      (T, B, input_size)        (T, input_size)
    h_0, h_n   (L·D, B, P)               (L·D, P)
    c_0, c_n   (L·D, B, hidden_size)     (L·D, hidden_size)
    lengths    (B,)
    output     (T, B, D·P)               (T, D·P)
    ========== ========================= ======================

    Examples
    --------
    >>> lstm = LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, device="cpu")
    >>> lstm
    LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)
    >>> output, (h_n, c_n) = lstm(np.ones((2, 5, 3), np.float32), lengths=[5, 2])
    >>> output.shape, h_n.shape, c_n.shape
    ((2, 5, 8), (4, 2, 4), (4, 2, 4))
    >>> output, (h_n, c_n) = lstm(np.ones((2, 1, 3), np.float32), (h_n, c_n))
    """

    _cell = "lstm"
    _gates = 4
    _states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        )

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        """Runs the module over a sequence; see the class."""
        if hx is not None:
            hx = _pair(hx)
        return self._run(input, hx, lengths)


class GRU(_Recurrent):
    """A gated recurrent unit, as ``torch.nn.GRU``: the reset gate after the product, gates in the order r, z, n.

    Parameters
    ----------
    input_size, hidden_size
        The number of features of the input and of the state.
    num_layers
        How many layers are stacked.
    bias
        Whether there are biases.
    batch_first
        Whether input and output are ``(batch, time, features)`` instead of ``(time, batch, features)``.
    dropout
        Kept, and without effect: see the module.
    bidirectional
        Whether there is a second layer that reads backwards.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.

    Notes
    -----
    Called as ``output, h_n = gru(input, hx=None, *, lengths=None)``, with the shapes of :class:`RNN`.

    Examples
    --------
    >>> gru = GRU(3, 4, device="cpu")
    >>> output, h_n = gru(np.ones((5, 3), np.float32))
    >>> output.shape, h_n.shape
    ((5, 4), (1, 4))
    """

    _cell = "gru"
    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )


def _pair(hx: Any) -> tuple[Any, Any]:
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(f"hx must be the pair (h_0, c_0), but it is a {type(hx).__name__}")
    return tuple(hx)


class _Cell(Module):
    """One timestep of a recurrent layer."""

    input_size: int
    hidden_size: int
    bias: bool
    _name = ""
    _gates = 1
    _states = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool, device: Any, dtype: Any) -> None:
        super().__init__("auto" if device is None else device)
        _check_dtype(dtype)
        self.input_size = _check_int(
            input_size, "input_size", least=1, text="input_size must be greater than zero"
        )
        self.hidden_size = _check_int(
            hidden_size, "hidden_size", least=1, text="hidden_size must be greater than zero"
        )
        self.bias = _check_bool(bias, "bias")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew from the uniform distribution in ±1/√hidden_size, as PyTorch does."""
        rows, limit = self._gates * self.hidden_size, 1.0 / math.sqrt(self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, self.input_size), "weight_hh": (rows, self.hidden_size)}
        if self.bias:
            shapes.update(bias_ih=(rows,), bias_hh=(rows,))
        self._replace(OrderedDict((name, _uniform(shape, limit)) for name, shape in shapes.items()))

    def _cell_name(self) -> str:
        return self._name

    def _compile(self) -> Any:
        weights = {f"{name}_l0": array for name, array in self._parameters.items()}
        return _recurve.RecurrentModule(
            self._cell_name(), self.hidden_size, 1, self.bias, False, 0, True, weights, self._device
        )

    def _step(self, input: Any, states: tuple[Any, ...] | None) -> tuple[Tensor, ...]:
        x = input if isinstance(input, Tensor) else as_float32(input, "input")
        name = type(self).__name__
        if x.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {x.ndim}D instead")
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input has inconsistent input_size: got {x.shape[-1]} expected {self.input_size}"
            )
        if 0 in x.shape:
            raise ValueError(f"input must not be empty, but its shape is {x.shape}")
        batched = x.ndim == 2
        batch = x.shape[0] if batched else 1
        shape = (batch, self.hidden_size) if batched else (self.hidden_size,)
        given: list[Any] = [None, None]
        for n, state in enumerate(states or ()):
            array = state if isinstance(state, Tensor) else as_float32(state, f"hx[{n}]")
            if tuple(array.shape) != shape:
                raise ValueError(f"{name}: Expected hx[{n}] of shape {shape}, got {list(array.shape)}")
            whole = (1, batch, self.hidden_size)
            if isinstance(array, Tensor) and tuple(array._value.shape) == whole:
                given[n] = array._value
            else:
                given[n] = np.asarray(array).reshape(whole)
        if isinstance(x, Tensor) and len(x._value.shape) == 3:
            # The state of another cell, which has a dimension of layers before the others.
            value: Any = x._value
        else:
            value = np.asarray(x).reshape(1, batch, self.input_size)
        h, c = self._compiled().step(value, *given)
        return tuple(Tensor(state, shape) for state in (h, c)[: self._states])

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Runs one timestep; see the class."""
        return self._step(input, None if hx is None else (hx,))[0]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias else f"{text}, bias={self.bias}"


class RNNCell(_Cell):
    """One timestep of :class:`RNN`, as ``torch.nn.RNNCell``: ``h = cell(input, hx=None)``.

    The input is ``(B, input_size)`` or ``(input_size,)``, the states are ``(B, hidden_size)`` or ``(hidden_size,)``.

    Examples
    --------
    >>> cell = RNNCell(3, 4, device="cpu")
    >>> cell(np.ones((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity: {nonlinearity}")
        object.__setattr__(self, "nonlinearity", nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def _cell_name(self) -> str:
        return f"rnn_{self.nonlinearity}"

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class LSTMCell(_Cell):
    """One timestep of :class:`LSTM`, as ``torch.nn.LSTMCell``: ``h, c = cell(input, (h, c))``.

    The input is ``(B, input_size)`` or ``(input_size,)``, the states are ``(B, hidden_size)`` or ``(hidden_size,)``.

    Examples
    --------
    >>> cell, states = LSTMCell(3, 4, device="cpu"), None
    >>> for x in np.ones((5, 2, 3), np.float32):
    ...     states = cell(x, states)
    >>> states[0].shape
    (2, 4)
    """

    _name = "lstm"
    _gates = 4
    _states = 2

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Runs one timestep; see the class."""
        return self._step(input, None if hx is None else _pair(hx))


class GRUCell(_Cell):
    """One timestep of :class:`GRU`, as ``torch.nn.GRUCell``: ``h = cell(input, hx=None)``.

    The input is ``(B, input_size)`` or ``(input_size,)``, the state is ``(B, hidden_size)`` or ``(hidden_size,)``.

    Examples
    --------
    >>> GRUCell(3, 4, device="cpu")(np.ones(3, np.float32)).shape
    (4,)
    """

    _name = "gru"
    _gates = 3

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)


class Linear(Module):
    """``y = x Wᵀ + b`` over the last dimension, as ``torch.nn.Linear``.

    Parameters
    ----------
    in_features, out_features
        The sizes of the last dimension of input and output.
    bias
        Whether there is a bias.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.

    Examples
    --------
    >>> Linear(3, 4, device="cpu")(np.ones((5, 2, 3), np.float32)).shape
    (5, 2, 4)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("auto" if device is None else device)
        _check_dtype(dtype)
        self.in_features = _check_int(
            in_features, "in_features", least=1, text="in_features must be greater than zero"
        )
        self.out_features = _check_int(
            out_features, "out_features", least=1, text="out_features must be greater than zero"
        )
        _check_bool(bias, "bias")
        limit = 1.0 / math.sqrt(in_features)
        arrays = OrderedDict(weight=_uniform((self.out_features, self.in_features), limit))
        if bias:
            arrays["bias"] = _uniform((self.out_features,), limit)
        else:
            object.__setattr__(self, "bias", None)
        self._replace(arrays)

    def _compile(self) -> Any:
        return _recurve.LinearModule(self._parameters["weight"], self._parameters.get("bias"), self._device)

    def forward(self, input: Any) -> np.ndarray:
        """Computes the product, ``(…, in_features)`` → ``(…, out_features)``."""
        x = input if isinstance(input, Tensor) else as_float32(input, "input")
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"Linear: the last dimension of the input must be {self.in_features}, but its shape is {tuple(x.shape)}"
            )
        if 0 in x.shape:
            raise ValueError(f"input must not be empty, but its shape is {tuple(x.shape)}")
        shape = (*x.shape[:-1], self.out_features)
        if isinstance(x, Tensor) and x._value.shape[-1] == self.in_features:
            value: Any = x._value
        else:
            value = np.asarray(x).reshape(-1, self.in_features)
        return self._compiled().forward(value).reshape(shape)

    def extra_repr(self) -> str:
        has_bias = "bias" in self._parameters
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={has_bias}"


class Embedding(Module):
    """Rows of a matrix by their numbers, as ``torch.nn.Embedding``.

    Parameters
    ----------
    num_embeddings, embedding_dim
        The number of rows and their size.
    padding_idx
        The row that is initially zero.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.

    Examples
    --------
    >>> Embedding(10, 4, device="cpu")([[1, 2, 3]]).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("auto" if device is None else device)
        _check_dtype(dtype)
        if max_norm is not None:
            raise _recurve.Unsupported("max_norm: rows that a call changes are not supported")
        if scale_grad_by_freq or sparse:
            raise _recurve.Unsupported("scale_grad_by_freq and sparse belong to gradients, which there are none of")
        # Only with `max_norm` has it a meaning.
        del norm_type
        self.num_embeddings = _check_int(
            num_embeddings, "num_embeddings", least=1, text="num_embeddings must be greater than zero"
        )
        self.embedding_dim = _check_int(
            embedding_dim, "embedding_dim", least=1, text="embedding_dim must be greater than zero"
        )
        with _generator_lock:
            weight = _generator.standard_normal((self.num_embeddings, self.embedding_dim), dtype=np.float32)
        self.padding_idx = None
        if padding_idx is not None:
            if not -self.num_embeddings <= padding_idx < self.num_embeddings:
                raise ValueError("Padding_idx must be within num_embeddings")
            self.padding_idx = padding_idx % self.num_embeddings
            weight[self.padding_idx] = 0.0
        self._replace(OrderedDict(weight=weight))

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None, device: Any = None
    ) -> Embedding:
        """An embedding with these rows, ``(num_embeddings, embedding_dim)``."""
        array = as_float32(embeddings, "embeddings", detach=True)
        if array.ndim != 2:
            raise ValueError("Embeddings parameter is expected to be 2-dimensional")
        # Nothing here is trained.
        del freeze
        rows, size = array.shape
        module = cls(rows, size, padding_idx=padding_idx, device=device)
        module.weight = array
        return module

    def _compile(self) -> Any:
        return _recurve.EmbeddingModule(self._parameters["weight"], self._device)

    def forward(self, input: Any) -> np.ndarray:
        """Looks up the rows, ``(…)`` → ``(…, embedding_dim)``."""
        given = as_numpy(input, "input")
        if given.size == 0:
            raise ValueError(f"input must not be empty, but its shape is {given.shape}")
        ids = as_ids(given, "input")
        return self._compiled().forward(ids.reshape(-1)).reshape(*given.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"
