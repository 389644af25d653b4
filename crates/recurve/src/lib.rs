#![doc = include_str!("../../../README.md")]

pub mod testing;

pub use recurve_formats::{
    Error, FORMAT_VERSION, HostArray, HostData, Input, IntoInput, Model, ModelInfo, Reading, Result, TextSpec,
    read_array, write_array,
};
pub use recurve_kernels::{
    Cell, CellKind, Direction, DirectionWeights, ForwardArgs, GateOrder, Outputs, Recurrent, RecurrentConfig,
    RecurrentOutput, Strategy,
};
pub use recurve_layers::{
    ActivationSpec, Array, Bias, Bidirectional, CallArgs, CellName, CellSpec, Dense, Dropout, Embedding,
    Error as LayerError, Gru, Initializer, Layer, LayerConfig, LayerSummary, Lstm, Merge, Network, RecurrentLayer,
    RecurrentSpec, Sequential, SimpleRnn, State, Summary, Weights, thousands,
};
pub use recurve_tensor::gpu::Gpu;
pub use recurve_tensor::{
    Activation, AdapterKind, AdapterSummary, DType, Device, DeviceSelector, Error as TensorError, MatmulOptions,
    Reduction, Shape, Tensor, concat,
};
