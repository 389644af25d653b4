"""make_onnx_nodes.py OUT: the node tests of the `onnx` package (1.23, Apache-2.0) that Recurve may run, in one file.

The cases are those that the package makes by itself, with inputs and outputs computed by NumPy. Left out are those of
operators that are not supported at all, of element types and containers that are not, and large ones. The file is a
gzip of a Protocol Buffers message: repeated case = 1 { name = 1, model = 2, repeated input = 3, repeated output = 4 }.
Run with onnx 1.23 and numpy."""
import gzip, sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
from onnx import TensorProto, numpy_helper
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


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def field(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data


def operators(graph):
    for node in graph.node:
        yield node.op_type
        for a in node.attribute:
            if a.HasField("g"):
                yield from operators(a.g)


def tensor(value):
    if isinstance(value, TensorProto):
        return value
    if isinstance(value, list) or value is None:
        raise ValueError("no tensor")
    return numpy_helper.from_array(np.asarray(value))


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
        parts = [field(1, case.name.encode()), field(2, model.SerializeToString())]
        parts += [field(3, t.SerializeToString()) for t in inputs] + [field(4, t.SerializeToString()) for t in outputs]
        data = b"".join(parts)
        if len(data) > MOST:
            left_out += 1
            continue
        cases.append(field(1, data))
    with open(sys.argv[1], "wb") as f:
        with gzip.GzipFile(filename="", mode="wb", fileobj=f, mtime=0) as z:
            z.write(b"".join(cases))
    print(len(cases), "cases", left_out, "left out")


main()
