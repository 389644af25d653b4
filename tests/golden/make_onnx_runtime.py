"""make_onnx_runtime.py OUT: operators of which the `onnx` package has no node tests, or not enough, in one file.

Expected outputs are ONNX Runtime's. The file is that of onnx_cases.py. Run with onnx 1.23 and onnxruntime 1.32."""
import sys

import numpy as np
import onnx_cases
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(13)
cases = []
F, F16, BF16, I64, U8, I8 = (getattr(TensorProto, n) for n in "FLOAT FLOAT16 BFLOAT16 INT64 UINT8 INT8".split())


def draw(*shape):
    return random.standard_normal(shape).astype(np.float32)


def add(name, nodes, feeds, outputs, constants=(), opset=18, kinds=None, typed=None):
    info = lambda n, a: helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
    types = typed or {}
    graph = helper.make_graph(
        nodes, name, [info(n, a) for n, a in feeds.items()],
        [helper.make_tensor_value_info(o, types.get(o, F), None) for o in outputs],
        [c if isinstance(c, TensorProto) else numpy_helper.from_array(c[1], c[0]) for c in constants],
    )
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, feeds)
    cases.append(onnx_cases.case(name, model, feeds.values(), got))
    print(name, model.ByteSize())


def quantized(w, axis, dtype):
    """By the largest of each slice that keeps these axes. In 7 bits: on AVX2 ONNX Runtime adds products of 8 bits in 16,
    which 8 bits of both exceed."""
    rest = tuple(n for n in range(w.ndim) if n not in axis)
    if dtype == np.int8:
        scale = np.abs(w).max(rest, keepdims=True) / 63
        zero = np.zeros_like(scale)
    else:
        low, high = np.minimum(w.min(rest, keepdims=True), 0), w.max(rest, keepdims=True)
        scale = (high - low) / 127
        zero = np.round(-low / scale)
    q = np.clip(np.round(w / scale + zero), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    shape = [n for a, n in enumerate(w.shape) if a in axis]
    return q, scale.reshape(shape).astype(np.float32), zero.reshape(shape).astype(dtype)


def lstm(name, direction, axis, dtype, **attributes):
    i, h, d = 3, 4, 2 if direction == "bidirectional" else 1
    feeds = {"x": draw(6, 2, i), "h": draw(d, 2, h), "c": draw(d, 2, h)}
    w, ws, wz = quantized(draw(d, i, 4 * h), axis, dtype)
    r, rs, rz = quantized(draw(d, h, 4 * h) / 2, axis, dtype)
    constants = dict(w=w, r=r, b=draw(d, 8 * h), ws=ws, wz=wz, rs=rs, rz=rz)
    node = helper.make_node(
        "DynamicQuantizeLSTM", ["x", "w", "r", "b", "", "h", "c", "", "ws", "wz", "rs", "rz"], ["y", "yh", "yc"],
        name="lstm", domain="com.microsoft", direction=direction, hidden_size=h, **attributes,
    )
    add(name, [node], feeds, ["y", "yh", "yc"], list(constants.items()))


lstm("quantized_lstm", "forward", (0,), np.int8)
lstm("quantized_lstm_u8", "reverse", (0,), np.uint8)
lstm("quantized_lstm_columns", "bidirectional", (0, 2), np.int8)

x = random.integers(0, 255, (2, 4, 6, 5)).astype(np.uint8)
w = random.integers(-128, 127, (6, 2, 3, 2)).astype(np.int8)
node = helper.make_node(
    "ConvInteger", ["x", "w", "xz", "wz"], ["y"], group=2, strides=[2, 1], pads=[1, 0, 1, 1], dilations=[1, 2]
)
zeros = [("w", w), ("xz", np.uint8(131)), ("wz", np.array([3], np.int8))]
add("conv_integer", [node], {"x": x}, ["y"], zeros, typed={"y": TensorProto.INT32})
node = helper.make_node("ConvInteger", ["x", "w"], ["y"], group=2, auto_pad="SAME_UPPER")
add("conv_integer_no_zero", [node], {"x": x}, ["y"], [("w", w)], typed={"y": TensorProto.INT32})

# Numbers that lie between two of each short type.
x = (draw(40) * np.exp(draw(40) * 2)).astype(np.float32)
back = lambda v: helper.make_node("Cast", [v], ["y"], to=F)
for name, kind in (("f16", F16), ("bf16", BF16)):
    like = helper.make_tensor("like", kind, [1], [1.0])
    nodes = [helper.make_node("CastLike", ["x", "like"], ["short"]), back("short")]
    add(f"cast_like_{name}", nodes, {"x": x}, ["y"], [like])
    # The type comes from a value that is computed.
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("CastLike", ["x", "b"], ["short"]),
        back("short"),
    ]
    add(f"cast_like_{name}_computed", nodes, {"x": x}, ["y"], [("shape", np.array([8, 5]))])
nodes = [helper.make_node("Mul", ["x", "x"], ["y"])]
add("output_f16", nodes, {"x": (x[:20] / 4).astype(np.float16)}, ["y"], typed={"y": F16})

# A cache that is empty at first.
nodes = [helper.make_node("Concat", ["none", "x"], ["y"], axis=1)]
add("concat_empty", nodes, {"x": draw(2, 3)}, ["y"], [("none", np.zeros((2, 0), np.float32))])

onnx_cases.write(sys.argv[1], cases)
