"""Arrays that stay on a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _recurve

__all__ = ["Tensor"]


class Tensor(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on a device, which is read when its elements are first used.

    The states that `recurve.nn` returns are tensors: passed back as `hx` they never leave the device. Everything that a
    numpy array does, a tensor does too, by reading itself once: operators, indices, methods, ``np.asarray(t)``,
    ``len(t)``, ``for row in t``. It speaks DLPack on the CPU, so ``torch.from_dlpack(t)`` works, and pickling it writes
    its elements. It cannot be changed.

    Examples
    --------
    >>> from recurve import nn
    >>> gru = nn.GRU(3, 4, device="cpu")
    >>> y, h = gru(np.ones((5, 2, 3), np.float32))
    >>> type(h), h.shape
    (<class 'recurve._tensor.Tensor'>, (1, 2, 4))
    >>> bool(np.all(h[0] == y[-1]))
    True
    """

    __slots__ = ("_dims", "_read", "_value")

    def __init__(self, value: Any, shape: tuple[int, ...] | None = None) -> None:
        self._value = value
        self._dims = tuple(value.shape) if shape is None else shape
        self._read: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""
        return self._dims

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._dims)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self._dims, dtype=np.int64))

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    @property
    def device(self) -> str:
        """The name of the device that holds it."""
        return self._value.device

    def numpy(self) -> np.ndarray:
        """A new array with its elements."""
        return self._elements().copy()

    def _elements(self) -> np.ndarray:
        """Its elements, which are read once and cannot be written."""
        if self._read is None:
            array = self._value.numpy().reshape(self._dims)
            array.flags.writeable = False
            self._read = array
        return self._read

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._elements()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"a copy is needed to give a tensor of float32 as {np.dtype(dtype)}")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(out, Tensor) for out in kwargs.get("out", ())):
            raise TypeError("a tensor cannot be changed: its array is `tensor.numpy()`")
        arrays = [value._elements() if isinstance(value, Tensor) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __getitem__(self, key: Any) -> Any:
        return self._elements()[key]

    def __len__(self) -> int:
        return len(self._elements())

    def __iter__(self) -> Any:
        return iter(self._elements())

    def __bool__(self) -> bool:
        return bool(self._elements())

    def __float__(self) -> float:
        return float(self._elements())

    def __getattr__(self, name: str) -> Any:
        # Methods and properties of arrays; names with underscores are no part of them.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._elements(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (self.numpy(),))

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self

    def __repr__(self) -> str:
        return f"recurve.Tensor(shape={self._dims}, dtype={self.dtype}, device={self.device!r})"


def _restore(array: np.ndarray) -> Tensor:
    """The tensor of a pickle, on the CPU."""
    return Tensor(_recurve.Tensor(array, "cpu"))
