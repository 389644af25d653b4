"""Models: what a file contains, or what layers make, on a device."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, TextIO

import numpy as np

from . import _build, _display, _recurve
from ._fit import Training

__all__ = ["Model", "Value", "load"]


class Value(NamedTuple):
    """An input or an output of a model."""

    name: str
    """Its name."""
    shape: tuple[int | str | None, ...] | None
    """Its dimensions: a number, the name of a size that the file leaves open, or None. None where the number of
    dimensions is not known before a run."""
    dtype: str
    """The name of numpy's element type."""


class Model(Training, _build.Building):
    """A model on a device.

    ``recurve.load`` makes one of a file, and ``Model(inputs, outputs)`` one of layers that have been called on
    :func:`recurve.Input`. Any number of threads may run a model at the same time. A model can be
    pickled and copied; its weights go with it.

    Parameters
    ----------
    inputs, outputs
        Values of layers, or lists of them.
    name : str, optional
        The name; ``functional``, ``functional_1``, … by default.
    trainable : bool, default True
        Whether training changes the weights.
    device : str or Device, default "auto"
        Where it runs.

    Examples
    --------
    >>> import recurve
    >>> from recurve import layers
    >>> x = recurve.Input((None, 3), name="x")
    >>> model = recurve.Model(x, layers.Dense(2)(layers.LSTM(4)(x)))
    >>> model([[[1.0, 2.0, 3.0]]]).shape
    (1, 2)
    """

    _runner: _recurve.Runner

    @classmethod
    def _of(cls, runner: _recurve.Runner) -> Model:
        self = cls.__new__(cls)
        self._runner = runner
        return self

    # Running

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the model on arrays by name.

        Parameters
        ----------
        inputs : mapping of str to array_like
            One array for each of `inputs`. Float32 arrays in C order are read where they are if the model is on the
            CPU; nobody can write to them through numpy while the call runs. A network with one input also takes
            ``"lengths"`` of shape [B] or ``"mask"`` of shape [B, T].

        Returns
        -------
        dict of str to numpy.ndarray
            All outputs, in arrays of their own.
        """
        if type(inputs) is not dict:
            if not isinstance(inputs, Mapping):
                names = ", ".join(f"`{value.name}`" for value in self.inputs)
                raise TypeError(f"`inputs` must be arrays by name ({names}), but it is a {type(inputs).__name__}")
            inputs = dict(inputs)
        return self._runner.run(inputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on arrays in the order of `inputs`, or by name.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            The output, or all of them if there are several. Called on values of layers, the model is a layer itself, and
            gives values.
        """
        if args:
            if _build.is_symbolic(args[0]):
                return self._call(args[0])
            self._prepare(args[0])
        values = self._runner.run(self._named(args, kwargs))
        outputs = list(values.values())
        return outputs[0] if len(outputs) == 1 else outputs

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a call by name."""
        inputs = self.inputs
        if len(args) == 1 and len(inputs) > 1 and isinstance(args[0], (list, tuple)):
            args = tuple(args[0])
        elif len(args) == 1 and isinstance(args[0], Mapping):
            kwargs = {**args[0], **kwargs}
            args = ()
        if len(args) > len(inputs):
            names = ", ".join(f"`{i.name}`" for i in inputs)
            raise TypeError(f"this model has {len(inputs)} inputs ({names}), but {len(args)} were given")
        named = {value.name: array for value, array in zip(inputs, args)}
        for name, array in kwargs.items():
            if name in named:
                raise TypeError(f"input `{name}` is given twice")
            named[name] = array
        return named

    def session(self, batch: int = 1, states: Mapping[str, str] | None = None) -> _recurve.Session:
        """Begin a session: calls one after the other, whose states stay on the device.

        Parameters
        ----------
        batch : int, default 1
            The size of the dimensions of states that an ONNX file leaves open.
        states : mapping of str to str, optional
            For an ONNX file, the inputs that are states and the outputs that hold them after a call; by default those
            that their names show.

        Returns
        -------
        Session
            With ``run``, ``reset``, ``state``, ``set_state`` and ``close``; a context manager.
        """
        if states is not None and not isinstance(states, Mapping):
            kind = type(states).__name__
            raise TypeError(f"`states` must be a mapping from inputs to outputs, but it is a {kind}")
        if batch < 1:
            raise ValueError(f"`batch` must be at least 1, but it is {batch}")
        return _recurve.Session(self._runner, batch, None if states is None else list(states.items()))

    # What it is

    @property
    def name(self) -> str:
        """The model's name."""
        return self._given_name or self._runner.name

    @property
    def inputs(self) -> list[Value]:
        """The inputs: name, shape and element type of each."""
        return [Value(*v) for v in self._runner.inputs()]

    @property
    def outputs(self) -> list[Value]:
        """The outputs: name, shape and element type of each."""
        return [Value(*v) for v in self._runner.outputs()]

    @property
    def device(self) -> _recurve.Device:
        """The device that the model is on."""
        return self._runner.device

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the file is read."""
        return self._runner.notes

    def explain(self) -> list[str]:
        """A line about each recurrent layer of an ONNX file: what it runs as, or why it runs operator by operator."""
        return self._runner.explain()

    def summary_text(self) -> str:
        """The table that `summary` prints."""
        return self._runner.summary()

    def summary(self, file: TextIO | None = None) -> None:
        """Print a table of layers, shapes and numbers of parameters."""
        print(self.summary_text(), file=sys.stdout if file is None else file)

    def plot(self, path: str | os.PathLike[str], *, every_node: bool = False) -> None:
        """Draw the model: its layers, or the nodes of an ONNX file, with shapes and numbers of parameters.

        Parameters
        ----------
        path : path
            The file to write, ``.svg`` or ``.png``.
        every_node : bool, default False
            Draw every node of an ONNX file, instead of one box for small ones that follow each other.
        """
        path = os.fspath(path)
        kind = os.path.splitext(path)[1].lower()
        if kind not in (".svg", ".png"):
            raise ValueError(f"{path}: the name must end in .svg or .png")
        picture = _recurve.picture(self._runner, kind[1:], every_node)
        with open(path, "wb") as file:
            file.write(picture)

    def check(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        batch: int = 2,
        seq: int = 32,
        rtol: float = 2e-5,
        atol: float = 2e-5,
        device: str | _recurve.Device | list[str | _recurve.Device] | None = None,
    ) -> _recurve.Check:
        """Compare every layer, or every node of an ONNX file, with a reference in f64 that shares no code with it.

        Parameters
        ----------
        inputs : mapping of str to array_like, optional
            Arrays as for `run`; states of an ONNX file that are left out are zeros. Without any, some are made up.
        batch, seq : int, default 2 and 32
            Sequences and timesteps of inputs that are made up.
        rtol, atol : float, default 2e-5
            An error of ``atol + rtol * abs(expected)`` is allowed; 2e-5 is the bound of the recurrent kernels.
        device : str, Device or list of them, optional
            Where to compare: the model's own device by default, ``"all"`` for every device of this machine.

        Returns
        -------
        Check
            True if everything agrees. ``str`` of it is the report; it has ``passed``, ``worst_error`` and ``devices``.

        Examples
        --------
        >>> model.check()  # doctest: +SKIP
        <recurve.Check passed, worst error 2.38e-07>
        """
        given = None if inputs is None else dict(inputs)
        return _recurve.check(self._runner, given, (batch, seq), (rtol, atol), device)

    def _repr_html_(self) -> str:
        return _display.html(self)

    def _repr_svg_(self) -> str:
        return _display.svg(self._runner)

    def __repr__(self) -> str:
        names = ", ".join(v.name for v in self.inputs)
        return f"<recurve.{type(self).__name__} {self.name!r} ({names}) on {self.device}>"

    # Other devices, files, processes

    def to(self, device: str | _recurve.Device) -> Model:
        """The same model on another device.

        Parameters
        ----------
        device : str or Device
            ``"auto"``, ``"cpu"``, ``"gpu"``, ``"vulkan:NAME"``, …
        """
        return type(self)._of(self._runner.to(device))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file.

        Parameters
        ----------
        path : path
            ``.onnx`` writes an ONNX file, ``.safetensors`` Recurve's own.
        """
        path = os.fspath(path)
        ending = os.path.splitext(path)[1].lower()
        if ending == ".onnx":
            self._runner.save_onnx(path)
        elif ending == ".safetensors":
            self._runner.save(path)
        else:
            raise ValueError(f"{path}: a model is written to a file that ends in .safetensors or .onnx")

    def read_text(self, text: str) -> list[tuple[int, str, str]]:
        """The labels of a text's ambiguous characters, for a model with a vocabulary.

        Returns
        -------
        list of (int, str, str)
            The place of each such character, the character, and its label.
        """
        return self._runner.read_text(text)

    def __reduce__(self) -> tuple[Any, ...]:
        runner = self._runner
        return _unpickled, (type(self), runner.to_bytes(), runner.is_onnx, runner.device.selector)


def _unpickled(cls: type[Model], data: bytes, onnx: bool, device: str) -> Model:
    return cls._of(_recurve.Runner.from_bytes(data, onnx, device))


def load(
    path: str | os.PathLike[str], device: str | _recurve.Device = "auto", *, weights: str | os.PathLike[str] | None = None
) -> Model:
    """Open a model file.

    Parameters
    ----------
    path : path
        An ONNX file, a file of Keras 1, 2 or 3 (``.keras``, ``.h5``, ``.json``), one of Recurve's own
        (``.safetensors``), or a TOML description of a network whose weights are in a file of PyTorch.
    device : str or Device, default "auto"
        Where it runs: ``"auto"`` (a hardware GPU if there is one, else the CPU), ``"cpu"``, ``"gpu"``,
        ``"vulkan:NAME"``, …
    weights : path, optional
        The weights of a Keras model whose description is in `path`.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError, OSError
        The file cannot be read.
    Unsupported
        The file asks for something that Recurve does not compute. The text names all of it.
    ValueError
        The file is damaged, or no device matches.
    """
    return Model._of(_recurve.Runner.open(os.fspath(path), device, None if weights is None else os.fspath(weights)))
