"""Makes the corpora of the fuzz targets, which the tests read too: arrays by numpy, other files by hand.

    python3 fuzz/make_corpus.py        # numpy 1.24 or later, h5py; the ONNX files also need onnx 1.15 or later

Every array named after its type holds 0, 1, 2, … in row-major order (booleans: odd or not).
"""

import io
import json
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
from numpy.lib import format as npy

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
SHAPE = (2, 3, 2)


def put(reader, name, data):
    os.makedirs(os.path.join(ROOT, reader), exist_ok=True)
    with open(os.path.join(ROOT, reader, name), "wb") as f:
        f.write(data)


def saved(array, version=None):
    out = io.BytesIO()
    npy.write_array(out, array, version=version)
    return out.getvalue()


def header(text, data=b"", version=1):
    text = text.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def arrays():
    for order in "<>":
        for kind in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]:
            name = kind + ("" if order == "<" else "_big")
            put("npy", f"{name}.npy", saved(np.arange(12).astype(order + kind).reshape(SHAPE)))
    flags = (np.arange(12) % 2 == 1).reshape(SHAPE)
    put("npy", "b1.npy", saved(flags))
    ramp = np.arange(12, dtype="<f4").reshape(SHAPE)
    put("npy", "f4_fortran.npy", saved(np.asfortranarray(ramp)))
    put("npy", "i8_fortran.npy", saved(np.asfortranarray(np.arange(12, dtype="<i8").reshape(SHAPE))))
    put("npy", "f4_version2.npy", saved(ramp, (2, 0)))
    put("npy", "f4_version3.npy", saved(ramp, (3, 0)))
    put("npy", "f4_scalar.npy", saved(np.array(0, dtype="<f4")))
    put("npy", "f4_flat.npy", saved(np.arange(7, dtype="<f4")))
    put("npy", "bad_empty.npy", saved(np.zeros((0, 3), dtype="<f4")))
    put("npy", "bad_records.npy", saved(np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")])))
    put("npy", "bad_complex.npy", saved(np.zeros(2, dtype="<c8")))
    put("npy", "bad_nested.npy", header("{'descr': " + "[" * 20))
    put("npy", "bad_deep.npy", header("(" * 5000))
    put("npy", "bad_huge_header.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff")
    big = "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"
    put("npy", "bad_huge_shape.npy", header(big))
    put("npy", "bad_cut.npy", saved(ramp)[:-1])

    def archive(save, **named):
        out = io.BytesIO()
        save(out, **named)
        return out.getvalue()

    put("npz", "stored.npz", archive(np.savez, x=ramp, y=np.arange(3)))
    put("npz", "deflated.npz", archive(np.savez_compressed, x=ramp, y=np.arange(3)))
    put("npz", "fortran.npz", archive(np.savez_compressed, x=np.asfortranarray(ramp)))

    def zipped(files, method=zipfile.ZIP_STORED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as z:
            for name, data in files:
                z.writestr(zipfile.ZipInfo(name), data, method)
        return out.getvalue()

    put("npz", "with_other_files.npz", zipped([("readme", b"no array"), ("x.npy", saved(ramp))]))
    put("npz", "bad_twice.npz", zipped([("x.npy", saved(ramp)), ("x.npy", saved(ramp + 1))]))
    put("npz", "bad_bzip2.npz", zipped([("x.npy", saved(ramp))], zipfile.ZIP_BZIP2))
    put("npz", "bad_empty.npz", zipped([]))


def model(description, tensors, metadata=None):
    """A safetensors file; each tensor is (name, shape)."""
    entries, data = [], b""
    for name, shape in tensors:
        count = int(np.prod(shape))
        begin = len(data)
        data += (np.arange(count) % 7 / 10 - 0.3).astype("<f4").tobytes()
        info = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
        entries.append(f"{json.dumps(name)}:{json.dumps(info)}")
    meta = metadata or json.dumps({"recurve": json.dumps(description)})
    text = ("{" + ",".join([f'"__metadata__":{meta}', *entries]) + "}").encode()
    return struct.pack("<Q", len(text)) + text + data


def models():
    def described(layers, shape=(None, None), **more):
        return {"version": 1, "name": "m", "input": "x", "input_shape": list(shape), "output": "y",
                "layers": layers, **more}

    tanh, sigmoid = {"name": "tanh"}, {"name": "sigmoid"}
    cell = {"kind": "lstm", "activation": tanh, "recurrent_activation": sigmoid, "output_activation": tanh}
    embedding = {"type": "embedding", "input_dim": 5, "output_dim": 2}
    lstm = {"type": "recurrent", "cell": cell, "units": 2, "bias": "double", "bidirectional": "concat",
            "return_sequences": True}
    dense = {"type": "dense", "units": 3, "activation": {"name": "relu"}, "use_bias": True}
    tensors = [("layers.0.weight", [5, 2])]
    for end in ["", "_reverse"]:
        tensors += [(f"layers.1.weight_ih_l0{end}", [8, 2]), (f"layers.1.weight_hh_l0{end}", [8, 2]),
                    (f"layers.1.bias_ih_l0{end}", [8]), (f"layers.1.bias_hh_l0{end}", [8])]
    tensors += [("layers.2.weight", [3, 4]), ("layers.2.bias", [3])]
    good = described([embedding, lstm, dense])
    put("model", "tagger.safetensors", model(good, tensors))

    gru = {"type": "recurrent", "cell": {**cell, "kind": "gru", "reset_after": False}, "units": 2, "bias": "single"}
    small = described([{"type": "masking", "mask_value": 0.0}, gru, {"type": "dropout", "rate": 0.5}], (None, None, 2))
    put("model", "gru.safetensors", model(small, [
        ("layers.1.weight_ih_l0", [6, 2]), ("layers.1.weight_hh_l0", [6, 2]), ("layers.1.bias_ih_l0", [6])]))
    rnn = {"type": "recurrent", "cell": {**cell, "kind": "rnn"}, "units": 1, "bias": "none", "num_layers": 2}
    put("model", "rnn.safetensors", model(
        described([rnn, {"type": "time_distributed", "layer": {**dense, "units": 1, "use_bias": False}}][:1],
                  (1, 3, 1)),
        [(f"layers.0.weight_{k}_l{n}", [1, 1]) for n in range(2) for k in ["ih", "hh"]]))
    cells = {"type": "stacked_rnn_cells", "cells": [dict(gru), dict(gru)], "return_sequences": True}
    for c in cells["cells"]:
        del c["type"]
    put("model", "cells.safetensors", model(described([cells], (None, None, 2)), [
        (f"layers.0.cells.{m}.{name}", shape) for m in range(2)
        for name, shape in [("weight_ih_l0", [6, 2]), ("weight_hh_l0", [6, 2]), ("bias_ih_l0", [6])]]))

    twice = described([dense], (None, 2))
    put("model", "bad_twice.safetensors", model(twice, [
        ("layers.0.weight", [3, 2]), ("layers.0.weight", [3, 2]), ("layers.0.bias", [3])]))
    text = json.dumps({"recurve": json.dumps(twice)})
    put("model", "bad_metadata_twice.safetensors", model(
        None, [("layers.0.weight", [3, 2]), ("layers.0.bias", [3])], text[:-1] + "," + text[1:]))
    put("model", "bad_header.safetensors", struct.pack("<Q", 1 << 63) + b"{}")
    deep = dense
    for _ in range(100):
        deep = {"type": "time_distributed", "layer": deep}
    put("model", "bad_deep.safetensors", model(described([deep]), []))
    put("model", "bad_brackets.safetensors", model(None, [], '{"recurve":"' + "[" * 3000 + '"}'))


def texts():
    spec = {"vocabulary": ["?", "<", ">", "a", "了"], "unknown": 0, "begin": 1, "end": 2,
            "labels": ["le5", "liao3"], "ambiguous": "了"}
    for name, change, text in [
        ("good", {}, "a了b"),
        ("all", {"ambiguous": "a了"}, "了" * 40),
        ("none", {"labels": [], "ambiguous": ""}, ""),
        ("bad_id", {"end": 5}, "a"),
        ("bad_twice", {"vocabulary": ["a", "a", "b"]}, "a"),
        ("bad_field", {"more": 1}, "a"),
    ]:
        data = json.dumps({**spec, **change}, ensure_ascii=False) + "\0" + text
        put("text", name, data.encode())


def pytorch():
    """Files of PyTorch, by hand and by pickle, whose protocols 2 and 4 `torch.save` writes. No PyTorch is needed."""

    class Storage:
        """A storage, which becomes a persistent id."""

        def __init__(self, kind, key, count):
            self.id = ("storage", Global("torch", kind), key, "cpu", count)

    class Global:
        """A class or function, by its name."""

        def __init__(self, module, name):
            self.module, self.name = module, name

    class Call:
        def __init__(self, function, arguments):
            self.function, self.arguments = function, arguments

    class Pickler(pickle._Pickler):
        more = ()

        def persistent_id(self, obj):
            return obj.id + self.more if isinstance(obj, Storage) else None

        def save(self, obj, save_persistent_id=True):
            if isinstance(obj, Global):
                self.write(f"c{obj.module}\n{obj.name}\n".encode())
            elif isinstance(obj, Call):
                self.save(obj.function)
                self.save(obj.arguments)
                self.write(b"R")
            else:
                super().save(obj, save_persistent_id)

    def pickled(value, protocol=2, more=()):
        out = io.BytesIO()
        pickler = Pickler(out, protocol)
        pickler.more = more
        pickler.dump(value)
        return out.getvalue()

    def tensor(key, shape, strides=None, offset=0, count=None, kind="FloatStorage"):
        size = int(np.prod(shape))
        strides = strides or tuple(int(np.prod(shape[n + 1:])) for n in range(len(shape)))
        hooks = Call(Global("collections", "OrderedDict"), ())
        storage = Storage(kind, key, count or size)
        arguments = (storage, offset, tuple(shape), strides, False, hooks)
        return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)

    def archive(value, storages, method=zipfile.ZIP_STORED, protocol=2, more=()):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as z:
            files = [("a/data.pkl", pickled(value, protocol)), ("a/byteorder", b"little"), ("a/version", b"3\n"), *more]
            for name, data in files + [(f"a/data/{key}", data) for key, data in storages.items()]:
                z.writestr(zipfile.ZipInfo(name), data, method)
        return out.getvalue()

    def legacy(value, storages):
        magic = 0x1950A86A20F9469CFC6C
        parts = [pickle.dumps(v, 2) for v in [magic, 1001, {"little_endian": True, "protocol_version": 1001}]]
        parts += [pickled(value, more=(None,)), pickle.dumps(list(storages), 2)]
        for data in storages.values():
            parts += [struct.pack("<q", len(data) // 4), data]
        return b"".join(parts)

    ramp = np.arange(12, dtype="<f4").tobytes()
    state = {"rnn.weight_ih_l0": tensor("0", (4, 3)), "rnn.weight_hh_l0": tensor("1", (4, 1)),
             "rnn.bias_ih_l0": tensor("1", (4,)), "rnn.bias_hh_l0": tensor("1", (4,))}
    storages = {"0": ramp, "1": ramp[:16]}
    put("pytorch", "state.pt", archive(state, storages))
    put("pytorch", "protocol4.pt", archive(state, storages, protocol=4))
    put("pytorch", "deflated.pt", archive(state, storages, zipfile.ZIP_DEFLATED))
    put("pytorch", "legacy.pt", legacy(state, storages))
    views = {"a": tensor("0", (3, 4), (1, 3)), "b": tensor("0", (2, 6), (0, 1), 3, 12), "c": tensor("0", (), (), 5, 12),
             "d": tensor("0", (2, 2, 2), (6, 1, 2), 1, 12), "e": tensor("0", (0, 3), (3, 1), 0, 12)}
    put("pytorch", "views.pt", archive(views, {"0": ramp}))
    put("pytorch", "legacy_views.pt", legacy(views, {"0": ramp}))
    checkpoint = {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"m": tensor("0", (12,))}}}}
    put("pytorch", "checkpoint.ckpt", archive(checkpoint, storages))
    script = archive(state, storages, more=[("a/constants.pkl", pickle.dumps((), 2)), ("a/code/m.py", b"x = 1")])
    put("pytorch", "script.pt", script)
    config = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": {
        "dtype": 7, "sizes": [{"as_int": 4}, {"as_int": 3}], "strides": [{"as_int": 1}, {"as_int": 4}],
        "storage_offset": {"as_int": 0}, "layout": 7}}}}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in [("m/data/weights/weight_0", ramp), ("m/byteorder", "little"), ("m/archive_format", "pt2"),
                           ("m/data/weights/model_weights_config.json", json.dumps(config))]:
            z.writestr(zipfile.ZipInfo(name), data)
    put("pytorch", "export.pt2", out.getvalue())

    run = Call(Global("posix", "system"), ("true",))
    put("pytorch", "bad_call.pt", archive({**state, "run": run}, storages))
    put("pytorch", "bad_legacy_call.pt", legacy({**state, "run": run}, storages))
    put("pytorch", "bad_past_the_end.pt", archive({"w": tensor("0", (12,), (1,), 1, 12)}, {"0": ramp}))
    put("pytorch", "bad_no_storage.pt", archive({"w": tensor("7", (12,))}, {"0": ramp}))
    put("pytorch", "bad_size.pt", archive({"w": tensor("0", (11,))}, {"0": ramp}))
    put("pytorch", "bad_expanded.pt", archive({"w": tensor("0", (1 << 20, 1 << 20), (0, 0), 0, 12)}, {"0": ramp}))
    loop = {}
    loop["loop"] = loop
    put("pytorch", "bad_loop.pt", archive(loop, {}))
    put("pytorch", "bad_cut.pt", legacy(state, storages)[:-1])
    put("pytorch", "bad_pickle.pkl", pickle.dumps({"w": [1.0, 2.0, 3.0]}, 2))


def onnx_models():
    from onnx import TensorProto, checker, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = lambda name, *shape: numpy_helper.from_array(rng.uniform(-1, 1, shape).astype("f4"), name)
    value = lambda name, *shape, kind=TensorProto.FLOAT: helper.make_tensor_value_info(name, kind, shape)
    node = helper.make_node

    def save(name, nodes, inputs, outputs, initializers=(), opset=17, functions=(), domains=()):
        graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
        sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=8, functions=list(functions))
        checker.check_model(model)
        put("onnx", name, model.SerializeToString())

    for op, gates, options in [("LSTM", 4, {"clip": 0.5}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {})]:
        names = ["x", "w", "r", "b", "lengths"]
        save(f"{op.lower()}.onnx",
             [node(op, names, ["y", "h"], hidden_size=2, direction="bidirectional", **options)],
             [value("x", "time", 2, 3), value("lengths", 2, kind=TensorProto.INT32)],
             [value("y", "time", 2, 2, 2), value("h", 2, 2, 2)],
             [weights("w", 2, 2 * gates, 3), weights("r", 2, 2 * gates, 2), weights("b", 2, 4 * gates)], 14)
    ints = lambda name, *v: numpy_helper.from_array(np.array(v, "i8"), name)
    save("convolutions.onnx",
         [node("Pad", ["x", "pads"], ["p"], mode="reflect"),
          node("Conv", ["p", "w"], ["c"], kernel_shape=[3], strides=[2], dilations=[1]),
          node("Relu", ["c"], ["a"]), node("MaxPool", ["a"], ["m"], kernel_shape=[2]),
          node("Shape", ["m"], ["s"]), node("Slice", ["s", "zero", "two"], ["front"]),
          node("Concat", ["front", "one"], ["shape"], axis=0), node("ReduceMean", ["m"], ["mean"], axes=[2]),
          node("Reshape", ["mean", "shape"], ["y"])],
         [value("x", 1, 2, 9)], [value("y", 1, 3, 1)],
         [weights("w", 3, 2, 3), ints("pads", 0, 0, 1, 0, 0, 1), ints("zero", 0), ints("two", 2), ints("one", 1)])
    body = helper.make_graph(
        [node("Add", ["s", "v"], ["t"]), node("Identity", ["t"], ["o"])], "body",
        [value("s", 2), value("v", 2)], [value("t", 2), value("o", 2)])
    save("scan.onnx", [node("Scan", ["zero", "x"], ["last", "y"], body=body, num_scan_inputs=1)],
         [value("zero", 2), value("x", "time", 2)], [value("last", 2), value("y", "time", 2)])
    loop = helper.make_graph(
        [node("Mul", ["a", "half"], ["b"]), node("Identity", ["c"], ["d"])], "loop",
        [value("i", kind=TensorProto.INT64), value("c", kind=TensorProto.BOOL), value("a", 2)],
        [value("d", kind=TensorProto.BOOL), value("b", 2)])
    then = helper.make_graph([node("Neg", ["l"], ["n"])], "then", [], [value("n", 2)])
    other = helper.make_graph([node("Softmax", ["l"], ["m"], axis=0)], "other", [], [value("m", 2)])
    save("control.onnx",
         [node("Loop", ["times", "", "x"], ["l"], body=loop),
          node("If", ["flag"], ["y"], then_branch=then, else_branch=other)],
         [value("x", 2), value("flag", kind=TensorProto.BOOL)], [value("y", 2)],
         [numpy_helper.from_array(np.array(3, "i8"), "times"), weights("half", 1)])
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)])
    save("function.onnx", [node("Twice", ["x"], ["y"], domain="own")], [value("x", 2)], [value("y", 2)],
         functions=[function], domains=["own"])
    save("bad_operator.onnx", [node("NonMaxSuppression", ["x", "s"], ["y"])],
         [value("x", 1, 2, 4), value("s", 1, 1, 2)], [value("y", 1, 3, kind=TensorProto.INT64)])


def keras():
    ramp = lambda *shape: (np.arange(int(np.prod(shape))) % 7 / 10 - 0.3).astype("<f4").reshape(shape)
    lstm = {"class_name": "LSTM", "config": {"name": "a", "units": 2, "return_sequences": True,
                                             "recurrent_activation": "hard_sigmoid"}}
    dense = {"class_name": "Dense", "config": {"name": "b", "units": 1, "activation": "softmax"}}
    first = {**lstm, "config": {**lstm["config"], "batch_input_shape": [None, None, 3]}}
    good = {"class_name": "Sequential", "config": [first, dense]}
    weights = {"a": {"k/kernel:0": ramp(3, 8), "k/recurrent_kernel:0": ramp(2, 8), "k/bias:0": ramp(8)},
               "b": {"b/kernel:0": ramp(2, 1), "b/bias:0": ramp(1)}}

    def old(config=good, change=lambda f: None, libver="latest", **options):
        out = io.BytesIO()
        with h5py.File(out, "w", libver=libver) as f:
            f.attrs["model_config"] = json.dumps(config)
            f.attrs["keras_version"] = "2.2.4"
            g = f.create_group("model_weights")
            g.attrs["layer_names"] = [n.encode() for n in weights]
            for layer, own in weights.items():
                h = g.create_group(layer)
                h.attrs["weight_names"] = [n.encode() for n in own]
                for n, v in own.items():
                    h.create_dataset(n, data=v, **options)
            change(f)
        return out.getvalue()

    put("keras", "old.h5", old(libver="earliest"))
    put("keras", "new.h5", old())
    put("keras", "chunked.h5", old(chunks=True, compression="gzip", shuffle=True, fletcher32=True))
    put("keras", "v108.h5", old(libver=("v108", "v108"), chunks=True))
    put("keras", "bad_cut.h5", old(libver="earliest")[:-200])
    kernel = "model_weights/a/k/kernel:0"

    def instead(make):
        def change(f):
            del f[kernel]
            make(f)
        return old(change=change)

    def links(f):
        f[kernel] = h5py.ExternalLink("/etc/passwd", "/x")

    def virtual(f):
        layout = h5py.VirtualLayout((3, 8), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3, 8))
        f.create_virtual_dataset(kernel, layout)

    def cycle(f):
        del f["model_weights/a/k"]
        f["model_weights/a/k"] = f["model_weights"]

    put("keras", "bad_external_link.h5", instead(links))
    put("keras", "bad_external_storage.h5", instead(
        lambda f: f.create_dataset(kernel, (3, 8), "f4", external=[("secret.bin", 0, 96)])))
    put("keras", "bad_virtual.h5", instead(virtual))
    put("keras", "bad_cycle.h5", old(change=cycle))
    put("keras", "bad_huge.h5", instead(lambda f: f.create_dataset(kernel, (1 << 20, 1 << 20), "f4", chunks=(64, 64))))
    put("keras", "bad_bomb.h5", instead(lambda f: f.create_dataset(
        kernel, data=np.zeros((1 << 13, 1 << 10), "f4"), chunks=(1 << 11, 1 << 10), compression="gzip")))

    objects = io.BytesIO()
    with h5py.File(objects, "w", libver="latest") as f:
        for path, arrays in [("lstm/cell", weights["a"]), ("dense", weights["b"])]:
            for n, v in enumerate(arrays.values()):
                f[f"layers/{path}/vars/{n}"] = v
    module = {"module": "keras.layers", "registered_name": None}
    entry = {**module, "class_name": "InputLayer", "config": {"batch_shape": [None, None, 3], "name": "x"}}
    new = {**module, "class_name": "Sequential", "config": {"name": "m", "layers": [
        entry, {**module, **lstm}, {**module, **dense}]}}

    def archive(config=json.dumps(new), h5=objects.getvalue(), method=zipfile.ZIP_STORED, more=()):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as z:
            for name, data in [("metadata.json", '{"keras_version": "3.1.0"}'), ("config.json", config),
                               ("model.weights.h5", h5), *more]:
                z.writestr(zipfile.ZipInfo(name), data, method)
        return out.getvalue()

    put("keras", "stored.keras", archive())
    put("keras", "deflated.keras", archive(method=zipfile.ZIP_DEFLATED))
    put("keras", "bad_twice.keras", archive(more=[("config.json", "{}")]))
    put("keras", "bad_deep.keras", archive('{"class_name":"Sequential","config":' + "[" * 100_000, method=zipfile.ZIP_DEFLATED))
    put("keras", "bad_zip_bomb.keras", archive(h5=bytes(40 << 20), method=zipfile.ZIP_DEFLATED))
    code = {**module, "class_name": "Lambda", "config": {"name": "code", "function": ["4wEAAAA=", None, None]}}
    put("keras", "bad_lambda.keras", archive(json.dumps({**new, "config": {"name": "m", "layers": [entry, code]}})))
    # A model whose inner model is called twice, whose inner model is called twice, and so on.
    inner, name = {**module, "class_name": "ReLU", "config": {"name": "r"}}, "r"
    for n in range(14):
        calls = [[["i", 0, 0, {}]], [[name, 0, 0, {}]]]
        layers = [{**entry, "name": "i", "config": {"batch_shape": [None, 3], "name": "i"}, "inbound_nodes": []},
                  {**inner, "name": name, "inbound_nodes": calls}]
        inner = {**module, "class_name": "Functional", "config": {
            "name": f"m{n}", "layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [[name, 1, 0]]}}
        name = f"m{n}"
    put("keras", "bad_many_calls.keras", archive(json.dumps(inner)))


arrays()
models()
pytorch()
onnx_models()
keras()
texts()
