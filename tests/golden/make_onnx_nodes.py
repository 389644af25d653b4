"""make_onnx_nodes.py OUT: the node tests of the `onnx` package (1.23, Apache-2.0) that Recurve may run, in one file.

The cases are those that the package makes by itself, with inputs and outputs computed by NumPy. Left out are those of
operators that are not supported at all, of element types and containers that are not, and large ones. The file is
that of onnx_cases.py. Run with onnx 1.23 and numpy."""
import sys, warnings

warnings.filterwarnings("ignore")
import onnx_cases
from onnx import TensorProto
from onnx.backend.test.case.node import collect_testcases

OPERATORS = set("""Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd
BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu Clip Compress Concat Constant ConstantOfShape Conv
ConvInteger ConvTranspose Cos Cosh CumSum DFT DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu
Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
Greater GreaterOrEqual GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
InstanceNormalization IsInf IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization
LpPool MatMul MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN
RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round STFT Scan ScatterElements ScatterND Selu Shape Sigmoid
Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu
Tile TopK Transpose Trilu Unsqueeze Where Xor""".split())
TYPES = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.INT8,
    TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32, TensorProto.UINT32, TensorProto.INT64,
    TensorProto.UINT64,
}
MOST = 6000


def operators(graph):
    for node in graph.node:
        yield node.op_type
        for a in node.attribute:
            if a.HasField("g"):
                yield from operators(a.g)


def tensor(value):
    if isinstance(value, list) or value is None:
        raise ValueError("no tensor")
    return onnx_cases.tensor(value)


def main():
    cases, left_out = [], 0
    for case in collect_testcases(None):
        model = case.model
        try:
            own = set(operators(model.graph)) <= OPERATORS and not model.functions
            inputs, outputs = ([tensor(v) for v in part] for part in case.data_sets[0])
            own = own and all(t.data_type in TYPES for t in inputs + outputs) and outputs
            own = own and all(0 not in t.dims for t in inputs + outputs)
            own = own and all(o.version <= 25 for o in model.opset_import)
        except (ValueError, TypeError, AttributeError):
            own = False
        if not own:
            left_out += 1
            continue
        data = onnx_cases.case(case.name, model, inputs, outputs)
        if len(data) > MOST:
            left_out += 1
            continue
        cases.append(data)
    onnx_cases.write(sys.argv[1], cases)
    print(left_out, "left out")


main()
