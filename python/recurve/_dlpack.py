"""Arrays of other libraries as numpy arrays.

Everything that Recurve takes as an array goes through :func:`as_numpy`. What is on the CPU and speaks DLPack, such as a
tensor of PyTorch, is taken as it is, without a copy and without importing its library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# The kinds of devices of DLPack whose memory the CPU can read: kDLCPU, kDLCUDAHost, kDLROCMHost.
_READABLE = (1, 3, 11)
_DEVICES = {2: "a CUDA GPU", 4: "an OpenCL device", 7: "a Vulkan device", 8: "a Metal device", 10: "a ROCm GPU"}


def as_numpy(value: Any, name: str, *, detach: bool = False) -> np.ndarray:
    """A numpy array with the elements of `value`, without a copy where that is possible.

    Parameters
    ----------
    value
        A numpy array, anything with DLPack whose elements the CPU can read (a tensor of PyTorch), anything with
        ``__array__`` or the buffer protocol, a number, or nested sequences of numbers.
    name
        What messages call it, ``x`` or ``input `x```.
    detach
        Whether a tensor that PyTorch records gradients for is taken without them. Otherwise it is refused, because
        gradients would be lost without a word.

    Returns
    -------
    numpy.ndarray
        An array that is exactly of this class: views of subclasses are taken as plain arrays.

    Raises
    ------
    TypeError
        For masked arrays, tensors that require gradients or are on another device, and what is no array.
    ValueError
        For nested sequences of different lengths.

    Examples
    --------
    >>> as_numpy([[1, 2], [3, 4]], "x").shape
    (2, 2)
    >>> as_numpy(np.ma.masked_equal([1, 2], 2), "x")
    Traceback (most recent call last):
    ...
    TypeError: `x` is a masked array, whose mask would be lost: pass `array.filled(value)`, and the mask by itself
    """
    if type(value) is np.ndarray:
        return value
    what = name if "`" in name else f"`{name}`"
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{what} is a masked array, whose mask would be lost: pass `array.filled(value)`, and the mask by itself"
        )
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(value, what, detach)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise type(error)(f"{what} cannot be read as an array: {error}") from error
    if isinstance(array, np.ma.MaskedArray):
        return as_numpy(array, name)
    if array.dtype == object:
        raise TypeError(f"{what} must be an array of numbers, but it is {_kind(value)}")
    return array


def _from_dlpack(value: Any, what: str, detach: bool) -> np.ndarray:
    if getattr(value, "requires_grad", False):
        if not detach:
            raise TypeError(
                f"{what} requires gradients, which Recurve does not record: pass `tensor.detach()` if they are not "
                "needed"
            )
        value = value.detach()
    try:
        device = int(value.__dlpack_device__()[0])
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{what} is on a device whose elements cannot be read: {error}") from error
    if device not in _READABLE:
        where = _DEVICES.get(device, f"a device of kind {device} of DLPack")
        raise TypeError(f"{what} is on {where}, and Recurve reads arrays of the CPU: pass `tensor.cpu()`")
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        # numpy has no bfloat16, and does not take the flags of every tensor.
        if "bfloat16" in str(getattr(value, "dtype", "")) and hasattr(value, "float"):
            return np.from_dlpack(value.float())
        # Objects that only read are exported by few versions of DLPack.
        if isinstance(error, BufferError) and hasattr(value, "__array__"):
            return np.asarray(value)
        raise TypeError(f"{what} cannot be read through DLPack: {error}") from error


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} with elements that are no numbers"
    if value is None:
        return "None"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")


def as_float32(value: Any, name: str, *, detach: bool = False) -> np.ndarray:
    """`value` as a C-contiguous array of f32 in this machine's byte order; the same memory if it is one already.

    Floats and integers of every width and truth values are converted; complex numbers, text, dates and objects are
    refused.

    Raises
    ------
    TypeError
        For other kinds of elements, and as :func:`as_numpy`.
    """
    array = as_numpy(value, name, detach=detach)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"`{name}` must be an array of floats, but its elements are {array.dtype}")
    # `require` also makes a copy of what is not aligned.
    return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


def as_ids(value: Any, name: str) -> np.ndarray:
    """`value` as a C-contiguous array of u32: indices and lengths.

    Raises
    ------
    TypeError
        Unless the elements are integers.
    ValueError
        For a number below 0 or above 4294967295.
    """
    array = as_numpy(value, name)
    if array.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must be an array of integers, but its elements are {array.dtype}")
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 0xFFFF_FFFF:
            raise ValueError(
                f"`{name}` contains {low if low < 0 else high}, but only 0 to 4294967295 can be stored"
            )
    return np.require(array, np.uint32, ["C_CONTIGUOUS", "ALIGNED"])
