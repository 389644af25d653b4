"""A model in ONNX Runtime, for `recurve check --against` and `recurve bench --against`.

Its argument is a folder with `task.json`. For values every value that a node of the file's graph makes becomes an
output, and all are written as .npy files with a list, `values.json`. To be timed, the model is called as often as each
line of standard input says, its states fed back, and the seconds of each call are printed as a line of JSON."""
import json, os, sys, time

try:
    import numpy as np
    import onnxruntime as ort
except ImportError as e:
    sys.exit(f"{e}: install it by `python3 -m pip install onnxruntime numpy`")

folder = sys.argv[1]
task = json.load(open(os.path.join(folder, "task.json"), encoding="utf-8"))
NUMPY = {
    "float": "f4", "float16": "f2", "double": "f8", "bool": "?", "int8": "i1", "int16": "i2", "int32": "i4",
    "int64": "i8", "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}


def varint(b, at):
    n = shift = 0
    while True:
        n |= (b[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if b[at - 1] < 128:
            return n, at


def fields(b, at, end):
    """The fields of a message that hold bytes: number, begin, end."""
    while at < end:
        key, at = varint(b, at)
        if key & 7 == 2:
            size, at = varint(b, at)
            yield key >> 3, at, at + size
            at += size
        elif key & 7 == 0:
            at = varint(b, at)[1]
        else:
            at += {1: 8, 5: 4}[key & 7]


def message(number, data):
    def written(n):
        out = bytearray()
        while n > 127:
            out.append(n & 127 | 128)
            n >>= 7
        return bytes(out) + bytes([n])

    return written(number << 3 | 2) + written(len(data)) + data


def names_made(b):
    """The names of what the nodes of the graph make, those of its outputs, and whether the file has functions."""
    made, outputs, functions = [], set(), False
    for number, begin, end in fields(b, 0, len(b)):
        functions |= number == 25
        for part, first, last in fields(b, begin, end) if number == 7 else ():
            if part in (1, 12):
                wanted = 2 if part == 1 else 1
                for field, x, y in fields(b, first, last):
                    if field == wanted and y > x:
                        name = bytes(b[x:y]).decode()
                        made.append(name) if part == 1 else outputs.add(name)
    return made, outputs, functions


def options(optimized):
    o = ort.SessionOptions()
    threads = task.get("threads")
    if threads:
        o.intra_op_num_threads = threads
    if not optimized:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    o.log_severity_level = 3
    o.add_session_config_entry("session.model_external_initializers_file_folder_path", os.path.dirname(task["model"]))
    return o


def inputs(session):
    kinds = {i.name: i.type[7:-1] for i in session.get_inputs()}
    unknown = [f"`{n}` is {k}" for n, k in kinds.items() if k not in NUMPY]
    if unknown:
        sys.exit("an input has a type that NumPy does not have: " + ", ".join(unknown))
    read = lambda i: np.load(os.path.join(folder, i["file"])).astype(NUMPY[kinds[i["name"]]])
    return {i["name"]: read(i) for i in task["inputs"] if i["name"] in kinds}


def write(names, values):
    written = []
    for name, v in zip(names, values):
        if isinstance(v, np.ndarray) and v.dtype.kind in "fiub":
            file = f"value{len(written)}.npy"
            np.save(os.path.join(folder, file), np.ascontiguousarray(v).reshape(v.shape), allow_pickle=False)
            written.append({"name": name, "file": file})
    return written


def values():
    b = open(task["model"], "rb").read()
    made, outputs, functions = names_made(b)
    wanted = [] if functions else [n for n in dict.fromkeys(made) if n in set(task["values"]) - outputs]
    # Messages that follow each other are one, whose lists are joined.
    extra = b"".join(message(12, message(1, n.encode())) for n in wanted)
    session = ort.InferenceSession(b + message(7, extra), options(False), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    written = write(names, session.run(names, inputs(session)))
    about = {"version": ort.__version__, "values": written}
    json.dump(about, open(os.path.join(folder, "values.json"), "w", encoding="utf-8"))


def timed():
    providers = ["CPUExecutionProvider"] if task["cpu"] else ort.get_available_providers()
    session = ort.InferenceSession(open(task["model"], "rb").read(), options(True), providers=providers)
    feed = inputs(session)
    names = [o.name for o in session.get_outputs()]
    states = [(i, names.index(o)) for i, o in task["states"]]
    reply = lambda what: print(json.dumps(what), flush=True)

    def call():
        first = time.perf_counter()
        y = session.run(names, feed)
        took = time.perf_counter() - first
        for name, n in states:
            feed[name] = y[n]
        return took, y

    outputs = write(names, call()[1])
    threads = task.get("threads") or os.cpu_count()
    reply({"version": ort.__version__, "threads": threads, "providers": session.get_providers(), "values": outputs})
    for line in sys.stdin:
        reply([call()[0] for _ in range(int(line))])


values() if task["what"] == "values" else timed()
