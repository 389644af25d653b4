"""Layers with Keras's names, arguments and defaults.

A layer is called on values of other layers; :class:`recurve.Model` makes a model of inputs and outputs, and
:class:`recurve.Sequential` of a chain of layers.

>>> import recurve
>>> from recurve import layers
>>> x = recurve.Input((None,), dtype="int32")
>>> y = layers.Dense(1, activation="sigmoid")(layers.LSTM(32)(layers.Embedding(10_000, 32)(x)))
>>> recurve.Model(x, y).count_params()
328353
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from numpy.typing import ArrayLike

from ._build import Cell, Input, InputLayer, Layer, RecurrentLayer, SymbolicTensor
from .constraints import ConstraintLike
from .initializers import InitializerLike
from .regularizers import RegularizerLike

__all__ = [
    "Activation",
    "ActivityRegularization",
    "Add",
    "AdditiveAttention",
    "AlphaDropout",
    "Attention",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping1D",
    "Cropping2D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dot",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GRU",
    "GRUCell",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "Input",
    "InputLayer",
    "LSTM",
    "LSTMCell",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPooling1D",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "Multiply",
    "PReLU",
    "Permute",
    "RNN",
    "ReLU",
    "RepeatVector",
    "Reshape",
    "SeparableConv1D",
    "SeparableConv2D",
    "SimpleRNN",
    "SimpleRNNCell",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "StackedRNNCells",
    "Subtract",
    "TimeDistributed",
    "UpSampling1D",
    "UpSampling2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]

#: A function by its name, or a layer that applies it.
ActivationLike = Union[str, Layer, Any, None]
#: One number for all axes, or one for each.
Size = Union[int, Sequence[int]]
#: Numbers before and behind axes: one for all, one for each axis, or a pair for each.
Borders = Union[int, Sequence[int], Sequence[Sequence[int]]]


# Embeddings and dense layers


class Embedding(Layer):
    """A vector for each id: ids `[batch, timesteps]` give `[batch, timesteps, output_dim]`."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: InitializerLike = "uniform",
        embeddings_regularizer: RegularizerLike = None,
        embeddings_constraint: ConstraintLike = None,
        mask_zero: bool = False,
        weights: Sequence[ArrayLike] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class Dense(Layer):
    """`activation(x · kernel + bias)` over the last axis: `[batch, …, features]` gives `[batch, …, units]`."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


# Recurrent layers


class SimpleRNN(RecurrentLayer):
    """`h = activation(x · kernel + h · recurrent_kernel + bias)` at each timestep: `[batch, timesteps, features]` gives
    `[batch, units]`, with `return_sequences` `[batch, timesteps, units]`."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class LSTM(RecurrentLayer):
    """Long short-term memory: `[batch, timesteps, features]` gives `[batch, units]`, with `return_sequences`
    `[batch, timesteps, units]`. With `return_state` a call gives a list: the output, h and c."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class GRU(RecurrentLayer):
    """Gated recurrent unit: `[batch, timesteps, features]` gives `[batch, units]`, with `return_sequences`
    `[batch, timesteps, units]`. With `return_state` a call gives a list: the output and h."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class SimpleRNNCell(Cell):
    """The cell of a :class:`SimpleRNN`, for :class:`RNN`."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class LSTMCell(Cell):
    """The cell of an :class:`LSTM`, for :class:`RNN`."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class GRUCell(Cell):
    """The cell of a :class:`GRU`, for :class:`RNN`."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        recurrent_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        recurrent_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class StackedRNNCells(Cell):
    """Several cells, each reading what the one below gives at the same timestep, for :class:`RNN`."""

    def __init__(self, cells: Sequence[Cell], **kwargs: Any) -> None:
        for cell in cells:
            _check_cell(cell)
        super().__init__(locals())

    def _states(self) -> int:
        return sum(cell._states() for cell in self._options["cells"])


class RNN(RecurrentLayer):
    """Runs a cell, or a list of cells on top of each other, over a sequence: `[batch, timesteps, features]` gives
    `[batch, units]`, with `return_sequences` `[batch, timesteps, units]`."""

    def __init__(
        self,
        cell: Cell | Sequence[Cell],
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        _check_cell(cell)
        super().__init__(locals())

    def _states(self) -> int:
        return self._options["cell"]._states()


def _check_cell(cell: Any) -> None:
    if not isinstance(cell, Cell):
        raise TypeError(f"{cell!r} is no cell: give SimpleRNNCell, LSTMCell, GRUCell or a list of them")


class Bidirectional(RecurrentLayer):
    """A recurrent layer in both directions.

    Parameters
    ----------
    layer
        A `SimpleRNN`, `LSTM`, `GRU` or `RNN`.
    merge_mode
        How the outputs are joined: ``"concat"``, ``"sum"``, ``"mul"``, ``"ave"``, or None for a list of both.
    backward_layer
        The layer that reads backwards, with ``go_backwards=True``; by default one like `layer`.
    """

    def __init__(
        self,
        layer: RecurrentLayer,
        merge_mode: str | None = "concat",
        weights: Sequence[ArrayLike] | None = None,
        backward_layer: RecurrentLayer | None = None,
        **kwargs: Any,
    ) -> None:
        for inside in (layer, backward_layer):
            if inside is not None and not isinstance(inside, RecurrentLayer):
                raise TypeError(f"{inside!r} is no recurrent layer: Bidirectional takes SimpleRNN, LSTM, GRU or RNN")
        if merge_mode not in ("concat", "sum", "mul", "ave", None):
            raise ValueError(f"`merge_mode` must be concat, sum, mul, ave or None, but it is {merge_mode!r}")
        if layer._input_shape is not None:
            kwargs.setdefault("batch_input_shape", layer._input_shape)
        super().__init__(locals())

    def _states(self) -> int:
        return 2 * self._options["layer"]._states()

    def _count(self) -> int:
        outputs = 2 if self._options["merge_mode"] is None else 1
        return outputs + (self._states() if self._options["layer"]._options["return_state"] else 0)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if config["backward_layer"] is None:
            # Keras has no word for its absence.
            del config["backward_layer"]
        return config


class TimeDistributed(Layer):
    """Applies a layer or a model to every timestep separately: `[batch, timesteps, …]`."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        if not hasattr(layer, "get_config"):
            raise TypeError(f"{layer!r} is no layer")
        super().__init__(locals())


# Convolutions


class Conv1D(Layer):
    """A convolution over timesteps: `[batch, timesteps, channels]` gives `[batch, new timesteps, filters]`."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Size = 1,
        groups: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class Conv2D(Layer):
    """A convolution over two axes: `[batch, rows, columns, channels]` gives `[batch, new rows, new columns,
    filters]`."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        groups: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class Conv1DTranspose(Layer):
    """The transposed convolution over timesteps, which makes them more."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        output_padding: Size | None = None,
        data_format: str | None = None,
        dilation_rate: Size = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class Conv2DTranspose(Layer):
    """The transposed convolution over two axes, which makes them larger."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: str = "valid",
        output_padding: Size | None = None,
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class DepthwiseConv1D(Layer):
    """A convolution over timesteps of each channel on its own, to `depth_multiplier` channels each."""

    def __init__(
        self,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Size = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class DepthwiseConv2D(Layer):
    """A convolution over two axes of each channel on its own, to `depth_multiplier` channels each."""

    def __init__(
        self,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class SeparableConv1D(Layer):
    """A convolution of each channel on its own, and a product that joins the channels."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Size = 1,
        depth_multiplier: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        pointwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        pointwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        pointwise_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class SeparableConv2D(Layer):
    """A convolution over two axes of each channel on its own, and a product that joins the channels."""

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Size = (1, 1),
        depth_multiplier: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        pointwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        pointwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        pointwise_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


# Pooling


class MaxPooling1D(Layer):
    """The largest number in each window of timesteps."""

    def __init__(
        self,
        pool_size: Size = 2,
        strides: Size | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class MaxPooling2D(Layer):
    """The largest number in each window of two axes."""

    def __init__(
        self,
        pool_size: Size = (2, 2),
        strides: Size | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class AveragePooling1D(Layer):
    """The mean of each window of timesteps."""

    def __init__(
        self,
        pool_size: Size,
        strides: Size | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class AveragePooling2D(Layer):
    """The mean of each window of two axes."""

    def __init__(
        self,
        pool_size: Size,
        strides: Size | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class GlobalMaxPooling1D(Layer):
    """The largest number of each channel over all timesteps: `[batch, channels]`."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(locals())


class GlobalMaxPooling2D(Layer):
    """The largest number of each channel over both axes: `[batch, channels]`."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(locals())


class GlobalAveragePooling1D(Layer):
    """The mean of each channel over all timesteps that are not masked: `[batch, channels]`."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(locals())


class GlobalAveragePooling2D(Layer):
    """The mean of each channel over both axes: `[batch, channels]`."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(locals())


# Normalization


class BatchNormalization(Layer):
    """Each channel minus its mean, over its deviation: of the batch in training, else of running statistics."""

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class LayerNormalization(Layer):
    """Each sample minus its mean, over its deviation, along `axis`."""

    _more = ("rms_scaling",)

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


# Dropout and noise, which only training has


class Dropout(Layer):
    """Sets a share of the elements to 0 and makes the others larger."""

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class SpatialDropout1D(Layer):
    """Sets whole channels of a sequence to 0."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class SpatialDropout2D(Layer):
    """Sets whole channels of a picture to 0."""

    def __init__(self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class GaussianNoise(Layer):
    """Adds normally distributed noise."""

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class GaussianDropout(Layer):
    """Multiplies by normally distributed noise around 1."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class AlphaDropout(Layer):
    """Dropout that keeps mean and variance, for networks of `selu`."""

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class ActivityRegularization(Layer):
    """Adds a penalty for what it passes on to the loss."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(locals())


# Masks and shapes


class Masking(Layer):
    """Timesteps all of whose features are `mask_value` are skipped by the layers behind it."""

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(locals())


class Flatten(Layer):
    """All axes but the batch as one."""

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class Reshape(Layer):
    """Another shape without the batch; -1 stands for what is left."""

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(locals())


class Permute(Layer):
    """The axes, counted from 1 without the batch, in another order."""

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(locals())


class RepeatVector(Layer):
    """`[batch, features]` repeated to `[batch, n, features]`."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(locals())


class ZeroPadding1D(Layer):
    """Zeros before and behind the timesteps."""

    def __init__(self, padding: Borders = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class ZeroPadding2D(Layer):
    """Zeros around two axes."""

    def __init__(self, padding: Borders = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class Cropping1D(Layer):
    """Without timesteps at both ends."""

    def __init__(self, cropping: Borders = (1, 1), **kwargs: Any) -> None:
        super().__init__(locals())


class Cropping2D(Layer):
    """Without a border of two axes."""

    def __init__(self, cropping: Borders = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(locals())


class UpSampling1D(Layer):
    """Each timestep `size` times."""

    def __init__(self, size: Size = 2, **kwargs: Any) -> None:
        super().__init__(locals())


class UpSampling2D(Layer):
    """Each element of two axes `size` times, or what lies between them."""

    def __init__(
        self,
        size: Size = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


# Layers with several inputs


class Concatenate(Layer):
    """Its inputs behind each other along an axis. It is called with a list."""

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(locals())


class Add(Layer):
    """The sum of its inputs. It is called with a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(locals())


class Subtract(Layer):
    """The first input minus the second. It is called with a list of two."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(locals())


class Multiply(Layer):
    """The product of its inputs. It is called with a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(locals())


class Average(Layer):
    """The mean of its inputs. It is called with a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(locals())


class Maximum(Layer):
    """The largest of its inputs, element by element. It is called with a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(locals())


class Minimum(Layer):
    """The smallest of its inputs, element by element. It is called with a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(locals())


class Dot(Layer):
    """The products of two inputs along an axis of each. It is called with a list of two."""

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(locals())


class Attention(Layer):
    """Dot-product attention (Luong). It is called with `[query, value]` or `[query, value, key]`."""

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class AdditiveAttention(Layer):
    """Additive attention (Bahdanau). It is called with `[query, value]` or `[query, value, key]`."""

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(locals())


# Activations


class Activation(Layer):
    """A function by its name: `relu`, `tanh`, `softmax`, …"""

    def __init__(self, activation: ActivationLike, **kwargs: Any) -> None:
        super().__init__(locals())


class LeakyReLU(Layer):
    """`x`, and below 0 `negative_slope · x`."""

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(locals())


class PReLU(Layer):
    """`x`, and below 0 `alpha · x` with a slope that is trained."""

    def __init__(
        self,
        alpha_initializer: InitializerLike = "Zeros",
        alpha_regularizer: RegularizerLike = None,
        alpha_constraint: ConstraintLike = None,
        shared_axes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class ELU(Layer):
    """`x`, and below 0 `alpha · (exp(x) - 1)`."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(locals())


class ReLU(Layer):
    """`max(x, 0)`, with a largest value, a slope and a threshold."""

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class Softmax(Layer):
    """Shares that sum to 1 along an axis."""

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(locals())


# Layers with several inputs, as functions


def add(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> Any:
    """The sum of values."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> Any:
    """The first value minus the second."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> Any:
    """The product of values."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> Any:
    """The mean of values."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> Any:
    """The largest of values, element by element."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> Any:
    """The smallest of values, element by element."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Sequence[SymbolicTensor], axis: int = -1, **kwargs: Any) -> Any:
    """Values behind each other along an axis."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Sequence[SymbolicTensor], axes: int | Sequence[int] = -1, **kwargs: Any) -> Any:
    """The products of two values along an axis of each."""
    return Dot(axes=axes, **kwargs)(inputs)
