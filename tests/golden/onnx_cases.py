"""The file of the make_onnx_*.py that write models with inputs and outputs: a gzip of a Protocol Buffers message,
repeated case = 1 { name = 1, model = 2, repeated input = 3, repeated output = 4 }."""
import gzip

import numpy as np
from onnx import TensorProto, numpy_helper


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def field(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data


def tensor(a):
    return a if isinstance(a, TensorProto) else numpy_helper.from_array(np.asarray(a))


def case(name, model, inputs, outputs):
    """One case. Inputs and outputs are tensors of ONNX, NumPy or PyTorch."""
    parts = [field(1, name.encode()), field(2, model.SerializeToString())]
    for tag, values in ((3, inputs), (4, outputs)):
        parts += [field(tag, tensor(a).SerializeToString()) for a in values]
    return b"".join(parts)


def write(path, cases):
    with open(path, "wb") as f:
        with gzip.GzipFile(filename="", mode="wb", fileobj=f, mtime=0) as z:
            z.write(b"".join(field(1, c) for c in cases))
    print(len(cases), "cases")
