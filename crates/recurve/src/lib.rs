#![doc = include_str!("../../../README.md")]

pub mod testing;

pub use recurve_formats::{
    Error, FORMAT_VERSION, HostArray, HostData, Input, IntoInput, Model, ModelInfo, ModelInputs, Reading, Result,
    TextSpec, read_array, write_array,
};
pub use recurve_kernels::{
    Candidate, Cell, CellKind, Direction, DirectionWeights, ForwardArgs, GateOrder, MaskedOutput, Outputs, Recurrent,
    RecurrentConfig, RecurrentOutput, RecurrentStack, Strategy, TokenTable, Tuning, WeightStorage, Zoneout,
};
pub use recurve_layers::{
    ActivationSpec, Array, Bias, Bidirectional, CallArgs, CellName, CellSpec, Dense, Dropout, Embedding,
    Error as LayerError, GenerateOptions, Gru, IndRnn, Initializer, Layer, LayerConfig, LayerSummary, Lstm, Masking,
    Merge, MinGru, MinLstm, Network, NetworkState, RecurrentLayer, RecurrentSpec, Replicas, Sampling, Sequential,
    SimpleRnn, StackedLayer, StackedRnnCells, State, StreamId, StreamOutputs, Streams, Summary, TimeDistributed,
    Weights, thousands,
};
pub use recurve_tensor::gpu::Gpu;
pub use recurve_tensor::{
    Activation, AdapterKind, AdapterSummary, DType, Device, DeviceSelector, Error as TensorError, MatmulOptions,
    Reduction, SampleOptions, Shape, Tensor, concat,
};
