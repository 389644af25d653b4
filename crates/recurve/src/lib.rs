// Its examples train.
#![cfg_attr(any(not(doctest), feature = "training"), doc = include_str!("../../../README.md"))]
#![forbid(unsafe_code)]

#[cfg(feature = "reference")]
pub mod testing;

/// Training: losses, optimisers, learning rates, metrics, and steps.
#[cfg(feature = "training")]
pub mod train {
    pub use recurve_train::*;
}

pub use recurve_formats::{
    AnyModel, AnySession, Error, ExportOptions, FORMAT_VERSION, HostArray, HostData, Input, IntoInput, LayerProblem,
    Model, ModelInfo, ModelInputs, OnnxModel, OnnxOptions, OnnxSession, OnnxStreams, OnnxValue, Problem, Reading,
    Result, StatePair, TextSpec, TrainingRecord, WeightModule, WeightSummary, npy_from_bytes, npz_from_bytes,
    read_array, read_named_array, read_tensor, tensor_from_bytes, write_array, write_host_array,
};
pub use recurve_kernels::{
    Candidate, ForwardArgs, Outputs, Recurrent, RecurrentConfig, RecurrentOutput, Strategy, TokenTable,
};
pub use recurve_layers::{
    ActivationFunction, ActivationLayer, ActivityRegularization, Add, AdditiveAttention, AlphaDropout, Attention,
    Average, AveragePooling1d, AveragePooling2d, BatchNormalization, Bidirectional, CallArgs, Concatenate, Constraint,
    Conv1d, Conv1dTranspose, Conv2d, Conv2dTranspose, Cropping1d, Cropping2d, DataFormat, Dense, DepthwiseConv1d,
    DepthwiseConv2d, Dot, Dropout, Elu, Embedding, Error as LayerError, Fan, Flatten, Functional, GaussianDropout,
    GaussianNoise, GenerateOptions, GlobalAveragePooling1d, GlobalAveragePooling2d, GlobalMaxPooling1d,
    GlobalMaxPooling2d, Gru, IndRnn, Initializer, InputConfig, LayerConfig, LayerNormalization, LayerSummary,
    LeakyRelu, Lstm, Masking, MaxPooling1d, MaxPooling2d, Maximum, MinGru, MinLstm, Minimum, Multiply, NamedLayer,
    Network, NetworkConfig, NetworkState, NetworkVariable, OrthogonalMode, OutputConfig, PRelu, Padding, Permute,
    RecurrentLayer, RecurrentSpec, Regularizer, Relu, RepeatVector, Replicas, Reshape, SLstm, Sampling, ScoreMode,
    SeparableConv1d, SeparableConv2d, Sequential, SharedLayer, SimpleRnn, Softmax, SpatialDropout1d, SpatialDropout2d,
    Spread, StackedRnnCells, State, StreamId, StreamOutputs, Streams, Subtract, Summary, TimeDistributed, UpSampling,
    UpSampling1d, UpSampling2d, ValueRef, Variable, WeightOptions, Weights, ZeroPadding1d, ZeroPadding2d, thousands,
};
pub use recurve_tensor::gpu::Gpu;
pub use recurve_tensor::{
    AdapterKind, AdapterSummary, DType, Device, DeviceSelector, Error as TensorError, MatmulOptions, PciAddress,
    Reduction, SampleOptions, Shape, Tensor, bf16, concat, f16, without_blocking,
};
pub use recurve_vocabulary::{
    Activation, Bias, Cell, CellKind, Direction, DirectionWeights, GateOrder, MaskedOutput, Merge, WeightSource,
    WeightStorage, Zoneout,
};
pub use recurve_weights::{Error as WeightError, Weight, WeightFile, WeightFormat, WeightType};

/// What the façade prevents: each example that must not compile stands beside one that does.
///
/// The elements of a tensor and the bound of its ids cannot be set from outside.
/// ```
/// use recurve::{DType, Device, Tensor};
/// let t = Tensor::from_f32(&[f32::from_bits(!0)], &[1], &Device::Cpu)?;
/// let u = Tensor::from_u32(&[3], &[1], &Device::Cpu)?;
/// assert_eq!((t.dtype(), u.bound()), (DType::F32, 3));
/// # Ok::<(), recurve::TensorError>(())
/// ```
/// ```compile_fail,E0624
/// # use recurve::{DType, Device, Tensor};
/// # let t = Tensor::from_f32(&[f32::from_bits(!0)], &[1], &Device::Cpu)?;
/// let u = t.reinterpreted(DType::U32)?;
/// # Ok::<(), recurve::TensorError>(())
/// ```
/// ```compile_fail,E0624
/// # use recurve::{DType, Device, Tensor};
/// # let u = Tensor::from_u32(&[3], &[1], &Device::Cpu)?;
/// let u = u.with_bound(0);
/// # Ok::<(), recurve::TensorError>(())
/// ```
/// ```compile_fail,E0624
/// # use recurve::{Device, Shape, Tensor};
/// let t = Tensor::cpu_write(Shape::new(&[1]).unwrap(), |_| Ok(()))?;
/// # Ok::<(), recurve::TensorError>(())
/// ```
/// ```compile_fail,E0624
/// # use recurve::{DType, Device, Gpu, Shape, Tensor};
/// # fn f(gpu: &Gpu) -> Result<(), recurve::TensorError> {
/// let t = Tensor::gpu_uninit(gpu, Shape::new(&[1]).unwrap(), DType::U32, "mine")?;
/// # Ok(())
/// # }
/// ```
///
/// A GPU can be asked for its properties, but it only runs operations on tensors.
/// ```
/// # use recurve::Gpu;
/// # fn f(gpu: &Gpu) {
/// let most = gpu.max_buffer_bytes();
/// # }
/// ```
/// ```compile_fail,E0624
/// # use recurve::Gpu;
/// # fn f(gpu: &Gpu) {
/// let b = gpu.buffer(16, "mine");
/// # }
/// ```
/// ```compile_fail,E0624
/// # use recurve::{Gpu, Tensor};
/// # fn f(t: &Tensor) {
/// let b = t.gpu_buffer();
/// # }
/// ```
/// ```compile_fail,E0432
/// use recurve::kernel::GpuKernels;
/// ```
/// ```compile_fail,E0432
/// use recurve::{gather_rows, strided_copy};
/// ```
///
/// Candidates come from a layer and cannot be changed or made by hand; their strategy can be read.
/// ```
/// # use recurve::Candidate;
/// # fn f(c: Candidate) {
/// let (s, text) = (c.strategy(), c.to_string());
/// # }
/// ```
/// ```compile_fail,E0616
/// # use recurve::Candidate;
/// # fn f(c: Candidate) {
/// let l = c.layout;
/// # }
/// ```
/// ```compile_fail,E0616
/// # use recurve::{Candidate, Strategy};
/// # fn f(mut c: Candidate) {
/// c.batch = 7;
/// # }
/// ```
/// ```compile_fail,E0599
/// # use recurve::{Candidate, Strategy};
/// let c = Candidate::Other(Strategy::Scan);
/// ```
#[cfg(all(doctest, feature = "gpu"))]
pub struct WhatCannotBeWritten;
