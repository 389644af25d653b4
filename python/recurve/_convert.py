"""Models of PyTorch and Keras, as they are in memory.

Neither library is imported here: whoever has a module of one has imported it.
"""

from __future__ import annotations

import inspect
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _recurve, nn
from ._dlpack import as_numpy

__all__ = ["from_keras", "from_torch"]


def from_torch(
    module: Any,
    example_inputs: Any = None,
    *,
    device: Any = "auto",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    tolerance: float | None = 1e-3,
) -> Any:
    """Takes over a module of PyTorch.

    ``nn.RNN``, ``nn.LSTM``, ``nn.GRU``, their cells, ``nn.Linear`` and ``nn.Embedding`` become the modules of
    `recurve.nn` with the same arguments and weights. Any other module is written as ONNX by PyTorch's exporter, for
    which `example_inputs` are needed, and becomes a :class:`recurve.Model`. Dropout has no effect in either.

    Parameters
    ----------
    module : torch.nn.Module
        The module. It is not changed.
    example_inputs : tensor or tuple of tensors, optional
        What the module is called with, for modules that are exported. Sizes of batch and time may differ in later
        calls, other sizes may not.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.
    input_names, output_names : sequence of str, optional
        The names of the model's inputs and outputs; by default those of `forward`'s parameters, and ``output``, or
        ``output_0``, ``output_1``, ….
    dynamic_axes : mapping, optional
        The axes whose sizes may differ, as for ``torch.onnx.export``. By default the first axis of every input, and the
        second of inputs of three dimensions and of whole numbers: batch and time.
    tolerance : float, optional
        How far the outputs for `example_inputs` may be from PyTorch's, relative to their largest element (at least 1).
        ``None`` for no comparison.

    Returns
    -------
    recurve.nn.Module or recurve.Model

    Raises
    ------
    TypeError
        Unless `module` is a module of PyTorch.
    ValueError
        If `example_inputs` are needed; if the exported model gives other numbers, which happens where the module does
        what its example inputs do not show.
    recurve.Unsupported
        For what Recurve does not compute: the message names every operator.

    Examples
    --------
    >>> import torch                                                    # doctest: +SKIP
    >>> lstm = recurve.from_torch(torch.nn.LSTM(3, 4))                  # doctest: +SKIP
    >>> tagger = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh())    # doctest: +SKIP
    >>> model = recurve.from_torch(tagger, torch.zeros(2, 3))           # doctest: +SKIP
    """
    torch = sys.modules.get("torch")
    # With its PyTorch backend, Keras's models are modules of PyTorch too.
    if torch is None or not isinstance(module, torch.nn.Module) or _is_keras(module):
        hint = ""
        if _is_keras(module):
            hint = "; this is a model of Keras, which `recurve.from_keras` takes"
        elif isinstance(module, Mapping):
            hint = "; weights by name go into a module of recurve.nn by `load_state_dict`"
        raise TypeError(f"from_torch takes a torch.nn.Module, not a {type(module).__name__}{hint}")
    own = _own_module(torch, module, device)
    if own is not None:
        return own
    if example_inputs is None:
        raise ValueError(
            f"a {type(module).__name__} is exported through ONNX, for which PyTorch has to see a call: pass "
            "`example_inputs`, one tensor or a tuple of them. Only nn.RNN, nn.LSTM, nn.GRU, their cells, nn.Linear and "
            "nn.Embedding need none"
        )
    return _exported(
        torch, module, example_inputs, device, input_names, output_names, dynamic_axes, tolerance
    )


def _is_keras(value: Any) -> bool:
    names = {cls.__module__.partition(".")[0] for cls in type(value).__mro__}
    return bool(names & {"keras", "tf_keras"}) or any(
        cls.__module__.startswith("tensorflow.python.keras") for cls in type(value).__mro__
    )


# Modules of PyTorch

_ARGUMENTS = {
    "RNN": (
        "input_size",
        "hidden_size",
        "num_layers",
        "nonlinearity",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
    ),
    "LSTM": (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    ),
    "GRU": ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"),
    "RNNCell": ("input_size", "hidden_size", "bias", "nonlinearity"),
    "LSTMCell": ("input_size", "hidden_size", "bias"),
    "GRUCell": ("input_size", "hidden_size", "bias"),
    "Linear": ("in_features", "out_features"),
    "Embedding": ("num_embeddings", "embedding_dim", "padding_idx", "max_norm"),
}


def _own_module(torch: Any, module: Any, device: Any) -> nn.Module | None:
    """The module of `recurve.nn` that computes the same, if there is one."""
    for name, arguments in _ARGUMENTS.items():
        theirs = getattr(torch.nn, name)
        # A class derived from it that computes something else is exported; so is one whose calls others see or change.
        if not isinstance(module, theirs) or type(module).forward is not theirs.forward:
            continue
        if module._forward_hooks or module._forward_pre_hooks:
            continue
        options = {argument: getattr(module, argument) for argument in arguments}
        if name == "Linear":
            options["bias"] = module.bias is not None
        if options.get("dropout") and options["num_layers"] == 1:
            # PyTorch has warned of it when the module was made.
            options["dropout"] = 0.0
        made: nn.Module = getattr(nn, name)(**options, device=device)
        # By attributes, not by the state dict, whose names are others where weights are computed.
        made.load_state_dict({own: getattr(module, own).detach().cpu() for own, _ in made.named_parameters()})
        return made
    return None


def _exported(
    torch: Any,
    module: Any,
    example_inputs: Any,
    device: Any,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    dynamic_axes: Mapping[str, Any] | None,
    tolerance: float | None,
) -> Any:
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    tensors = list(_flat(torch, inputs, "example_inputs"))
    if input_names is None:
        input_names = _parameter_names(module, inputs)
    elif len(input_names) != len(tensors):
        raise ValueError(f"input_names has {len(input_names)} names, but example_inputs has {len(tensors)} tensors")
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            expected = list(_flat(torch, (module(*inputs),), "the output"))
            if output_names is None:
                output_names = ["output"] if len(expected) == 1 else [f"output_{n}" for n in range(len(expected))]
            named = dict(zip(input_names, tensors))
            if dynamic_axes is None:
                dynamic_axes = _batch_and_time(torch, named)
            data = _export(torch, module, inputs, list(input_names), list(output_names), dynamic_axes)
            model = _model_of_onnx(data, device)
            if tolerance is not None:
                _compare(model, named, expected, tolerance)
                for other in _grown(torch, named, dynamic_axes):
                    _compare_sizes(torch, module, model, inputs, other, tolerance)
    finally:
        for part in was_training:
            part.training = True
    return model


def _compare_sizes(
    torch: Any, module: Any, model: Any, inputs: tuple[Any, ...], other: Mapping[str, Any], tolerance: float
) -> None:
    """Compares outputs for other sizes than those of the example, if PyTorch's module takes them."""
    rest = iter(other.values())

    def like(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return next(rest)
        return type(value)(like(part) for part in value)

    try:
        expected = list(_flat(torch, (module(*(like(value) for value in inputs)),), "the output"))
    except Exception:  # noqa: BLE001 - whatever a module raises for sizes that it does not take
        return
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in other.items())
    try:
        _compare(model, other, expected, tolerance)
    except ValueError as error:
        raise ValueError(
            f"the exported model is right for the sizes of example_inputs, but not for {shapes}, as a loop over "
            f"timesteps or a size that the module reads is written into it with its value: {error}. Where no other "
            "sizes are needed, pass dynamic_axes={}"
        ) from error


def _flat(torch: Any, values: Any, what: str) -> Any:
    """The tensors of nested tuples and lists, in order."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _flat(torch, value, what)
        else:
            raise TypeError(f"{what} must be tensors or tuples of them, but there is a {type(value).__name__}")


def _parameter_names(module: Any, inputs: tuple[Any, ...]) -> list[str]:
    """Names for the tensors of a call: those of `forward`'s parameters, numbered where one is a tuple."""
    parameters = inspect.signature(module.forward).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names: list[str] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, (tuple, list)):
            for n, part in enumerate(value):
                add(f"{name}_{n}", part)
        else:
            names.append(name)

    for n, value in enumerate(inputs):
        add(positional[n] if n < len(positional) else f"input_{n}", value)
    return names


def _batch_and_time(torch: Any, inputs: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """The axes of a call that are free by default. Those of several inputs have names of their own, because they need
    not be equal: the first axis of an LSTM's states counts layers."""
    axes: dict[str, dict[int, str]] = {}
    for n, (name, tensor) in enumerate(inputs.items()):
        prefix = "" if n == 0 else f"{name}_"
        own = {0: f"{prefix}batch"} if tensor.dim() > 0 else {}
        if tensor.dim() == 3 or (tensor.dim() == 2 and not tensor.is_floating_point()):
            own[1] = f"{prefix}time"
        if own:
            axes[name] = own
    return axes


def _grown(torch: Any, inputs: Mapping[str, Any], axes: Mapping[str, Any]) -> Any:
    """Calls like the one of the example whose free sizes are larger by one: each of the first axes, each of the second,
    and so on, because axes at one place mostly have to be equal in all inputs."""
    places = sorted({axis for own in axes.values() for axis in own})
    for place in places:
        grown = dict(inputs)
        for name, own in axes.items():
            if place in own and name in grown and grown[name].dim() > place:
                tensor = grown[name]
                grown[name] = torch.cat([tensor, tensor.narrow(place, 0, 1)], place)
        yield grown


def _export(
    torch: Any,
    module: Any,
    inputs: tuple[Any, ...],
    input_names: list[str],
    output_names: list[str],
    dynamic_axes: Mapping[str, Any],
) -> bytes:
    """The module as an ONNX file, by the exporter that needs no further packages."""
    file = io.BytesIO()
    options: dict[str, Any] = {
        "input_names": input_names,
        "output_names": output_names,
        "dynamic_axes": {**dynamic_axes},
    }
    # Since 2.5 there is a second exporter, which needs the package onnxscript.
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    try:
        with warnings.catch_warnings():
            # That the exporter is the older one, and that an LSTM's batch size might be fixed, which it is not here.
            warnings.simplefilter("ignore")
            torch.onnx.export(module, inputs, file, **options)
    except ImportError as error:
        raise ImportError(
            f"PyTorch {torch.__version__} needs a package to export this module: {error}. Install it (`pip install onnx "
            "onnxscript`), or export the module yourself and open the file with recurve.load"
        ) from error
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(
            f"PyTorch's exporter cannot write this {type(module).__name__} as ONNX ({kind}): {error}"
        ) from error
    return file.getvalue()


def _compare(model: Any, inputs: Mapping[str, Any], expected: list[Any], tolerance: float) -> None:
    """Compares a model's outputs for the example inputs with the module's."""
    arrays = {name: as_numpy(tensor.detach().cpu(), name) for name, tensor in inputs.items()}
    # An input on which nothing depends is left out of the file.
    known = {value.name for value in model.inputs}
    outputs = model.run({name: array for name, array in arrays.items() if name in known})
    for (name, got), want in zip(outputs.items(), expected):
        wanted = np.asarray(want.detach().cpu().numpy(), np.float64)
        if got.shape != wanted.shape:
            raise ValueError(f"output `{name}`: PyTorch gives shape {wanted.shape}, the exported model {got.shape}")
        finite = np.isfinite(wanted)
        bound = tolerance * max(1.0, float(np.max(np.abs(wanted[finite]), initial=0.0)))
        error = float(np.max(np.abs(got[finite] - wanted[finite]), initial=0.0))
        # NaN is within no bound; what is not finite must be the same.
        if not error <= bound or not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
            raise ValueError(
                f"output `{name}`: the exported model is {error:.3g} from PyTorch, and {bound:.3g} is allowed "
                "(`tolerance`). The module may do what its exported form does not show"
            )


def _model_of_onnx(data: bytes, device: Any) -> Any:
    from ._model import Model

    return Model._of(_recurve.Runner.from_bytes(data, True, device))


# Models of Keras


def from_keras(model: Any, *, device: Any = "auto") -> Any:
    """Takes over a model of Keras, with any of its backends.

    The model is saved as Keras saves it, to a file that is deleted afterwards, and opened as :func:`recurve.load` opens
    files of Keras.

    Parameters
    ----------
    model : keras.Model
        A model that is built: one that has been called, or that has an input. It is not changed.
    device
        A text, such as ``"cpu"`` or ``"gpu"``, or a :class:`recurve.Device`.

    Returns
    -------
    recurve.Model

    Raises
    ------
    TypeError
        Unless `model` is a model of Keras.
    ValueError
        If it is not built.
    recurve.Unsupported
        For layers that Recurve does not compute: the message names all of them.

    Examples
    --------
    >>> import keras                                                    # doctest: +SKIP
    >>> model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])    # doctest: +SKIP
    >>> recurve.from_keras(model)(np.zeros((1, 5, 3)))                  # doctest: +SKIP
    """
    if not _is_keras(model) or not hasattr(model, "layers"):
        hint = ""
        torch = sys.modules.get("torch")
        # With its PyTorch backend, Keras's layers are modules of PyTorch too.
        if _is_keras(model):
            hint = "; put the layer into a keras.Sequential with an Input"
        elif torch is not None and isinstance(model, torch.nn.Module):
            hint = "; this is a module of PyTorch, which `recurve.from_torch` takes"
        raise TypeError(f"from_keras takes a keras.Model, not a {type(model).__name__}{hint}")
    if not getattr(model, "built", True):
        raise ValueError(
            f"the model `{model.name}` is not built: it has no input, so its layers have no weights. Begin with "
            "keras.Input, or call it once"
        )
    from ._model import load

    # Keras 1 and 2 have no `.keras` files at all, or of another form, which HDF5 has not.
    old = any(cls.__module__.startswith(("tf_keras", "tensorflow")) for cls in type(model).__mro__)
    with tempfile.TemporaryDirectory(prefix="recurve-") as folder:
        path = os.path.join(folder, "model.h5" if old else "model.keras")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path)
        # Weights are read as they are used, so the file has to be in memory before it is deleted.
        return load(path, device=device)
