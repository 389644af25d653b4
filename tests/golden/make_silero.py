"""make_silero.py DATA OUT: silero-vad 6.2.3 in other forms than models/silero_vad.onnx, and its probabilities. DATA is the
folder silero_vad/data of the package (MIT). Run in the project's folder with onnx 1.23, onnxruntime 1.32, torch 2.15
and safetensors.

- OUT/if.onnx: silero_vad.onnx, one `If` with a network for 16 kHz and one for 8 kHz. The weights for 16 kHz are those of
  models/silero_vad.onnx and stand there, as external data. So that the file is small, those for 8 kHz are too where the
  shapes agree: this branch is another network than the package's.
- OUT/sequence.onnx: silero_vad_16k_sequence.onnx, which takes many calls at once, with external data as well. Its LSTM's
  weights are joined from those of the other file by Concat, because their gates have another order.
- OUT/weights.safetensors: silero_vad_16k.safetensors, which holds other weights, as float16.
- OUT/expected.npz, over models/noisy_speech.wav: of each file what ONNX Runtime computes from the package's own file,
  and for 8 kHz from if.onnx; for the weights what PyTorch computes from them."""
import sys, wave
import numpy as np, onnx, onnxruntime as ort, torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

data, out = sys.argv[1:]
w = wave.open("models/noisy_speech.wav")
x = np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float32) / 32768
beside = "silero_vad.onnx"
stored = open(f"models/{beside}", "rb").read()
small = 1024


def external(t, raw):
    """Lets a tensor of these bytes stand in models/silero_vad.onnx, if it does."""
    at = stored.find(raw)
    if at < 0:
        return False
    for field in ("raw_data", "float_data"):
        t.ClearField(field)
    t.data_location = TensorProto.EXTERNAL
    for key, value in [("location", beside), ("offset", str(at)), ("length", str(len(raw)))]:
        t.external_data.add(key=key, value=value)
    return True


def session(model):
    return ort.InferenceSession(model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"])


def whole(path):
    """The bytes of a model with its external data inside."""
    m = onnx.load(path, load_external_data=False)
    def fill(g):
        for t in g.initializer:
            if t.data_location == TensorProto.EXTERNAL:
                e = {e.key: e.value for e in t.external_data}
                t.ClearField("external_data")
                t.data_location = TensorProto.DEFAULT
                t.raw_data = stored[int(e["offset"]):int(e["offset"]) + int(e["length"])]
        for n in g.node:
            for a in n.attribute:
                if a.type == onnx.AttributeProto.GRAPH:
                    fill(a.g)
    fill(m.graph)
    return m.SerializeToString()


# One If.
m = onnx.load(f"{data}/silero_vad.onnx")
(branch,) = [n for n in m.graph.node if n.op_type == "If"]
other = {}
for attribute in sorted(branch.attribute, key=lambda a: a.name != "then_branch"):
    g, kept = attribute.g, []
    for n in g.node:
        t = n.attribute[0].t if n.op_type == "Constant" else None
        a = None if t is None else numpy_helper.to_array(t)
        if a is None or a.nbytes < small:
            kept.append(n)
            continue
        raw, key = a.tobytes(), (n.output[0].split("__Inline_0__")[-1], a.shape)
        t = TensorProto(name=n.output[0], dims=a.shape, data_type=t.data_type)
        if attribute.name == "then_branch":
            other[key] = raw
        if not external(t, other.get(key, raw)):
            assert attribute.name == "else_branch", n.output[0]
            t.raw_data = raw
        g.initializer.append(t)
    del g.node[:]
    g.node.extend(kept)
onnx.save(m, f"{out}/if.onnx")

# Many calls at once.
m = onnx.load(f"{data}/silero_vad_16k_sequence.onnx")
(lstm,) = [n for n in m.graph.node if n.op_type == "LSTM"]
nodes, tensors = [], []
for t in m.graph.initializer:
    a = numpy_helper.to_array(t)
    if a.nbytes < small or external(t, a.tobytes()):
        tensors.append(t)
        continue
    if t.name not in lstm.input[1:3]:
        tensors.append(t)
        continue
    parts = []
    for k, part in enumerate(np.split(a, 4, axis=1)):
        p = TensorProto(name=f"{t.name}.{'iofc'[k]}", dims=part.shape, data_type=t.data_type)
        assert external(p, part.tobytes()), p.name
        tensors.append(p)
        parts.append(p.name)
    nodes.append(helper.make_node("Concat", parts, [t.name], name=f"{t.name}.gates", axis=1))
del m.graph.initializer[:]
m.graph.initializer.extend(tensors)
for n in reversed(nodes):
    m.graph.node.insert(0, n)
for n in m.graph.node:
    if n.op_type == "Constant" and n.attribute[0].t.ByteSize() > small:
        t = n.attribute[0].t
        external(t, numpy_helper.to_array(t).tobytes())
onnx.save(m, f"{out}/sequence.onnx")

# The samples of each call: new ones after some of the call before.
def calls(new, context):
    padded = np.pad(x, (context, -len(x) % new))
    return np.stack([padded[k:k + context + new] for k in range(0, len(padded) - context, new)])

def through(model, frames, rate):
    s, state, p = session(model), np.zeros((2, 1, 128), np.float32), []
    for f in frames:
        y, state = s.run(["output", "stateN"], {"input": f[None], "state": state, "sr": np.array(rate)})
        p.append(y[0, 0])
    return np.array(p, np.float32)

both, wide = calls(512, 64), calls(256, 32)
original = through(f"{data}/silero_vad.onnx", both, 16000)
assert np.abs(original - through(whole(f"{out}/if.onnx"), both, 16000)).max() == 0
zeros = np.zeros((1, 1, 128), np.float32)
at_once = lambda model: session(model).run(["speech_probs", "hn", "cn"], {"input": both, "h": zeros, "c": zeros})
sequence = at_once(f"{data}/silero_vad_16k_sequence.onnx")
assert all((a == b).all() for a, b in zip(sequence, at_once(whole(f"{out}/sequence.onnx"))))

# The other weights.
stored_weights = load_file(f"{data}/silero_vad_16k.safetensors")
half = {name: v.astype(np.float16) for name, v in stored_weights.items()}
save_file(half, f"{out}/weights.safetensors")


def torch_probabilities(weights, frames):
    v = {n: torch.from_numpy(a.astype(np.float64)) for n, a in weights.items()}
    cell = torch.nn.LSTMCell(128, 128, dtype=torch.float64)
    cell.load_state_dict({n.split(".")[1]: a for n, a in v.items() if n.startswith("lstm_cell.")})
    state, p = None, []
    with torch.no_grad():
        for f in frames:
            y = F.pad(torch.from_numpy(f.astype(np.float64))[None, None], (0, 64), "reflect")
            y = F.conv1d(y, v["stft_conv.weight"], stride=128)
            y = (y[:, :129] ** 2 + y[:, 129:] ** 2).sqrt()
            for n, stride in enumerate([1, 2, 2, 1], 1):
                y = F.conv1d(y, v[f"conv{n}.weight"], v[f"conv{n}.bias"], stride=stride, padding=1).relu()
            state = cell(y[:, :, 0], state)
            y = F.conv1d(state[0][:, :, None].relu(), v["final_conv.weight"], v["final_conv.bias"]).sigmoid()
            p.append(float(y))
    return np.array(p, np.float32)


# The same code with the weights of the ONNX file gives what ONNX Runtime gives.
names = {"stft_conv.weight": "stft.forward_basis_buffer", "final_conv.weight": "output.weight", "final_conv.bias": "output.bias"}
names |= {f"conv{n}.{e}": f"encoder.{n - 1}.{e}" for n in range(1, 5) for e in ("weight", "bias")}
m = onnx.load(f"{data}/silero_vad_16k_sequence.onnx")
given = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
same = {ours: given[theirs] for ours, theirs in names.items()}
gates = lambda a: np.concatenate([np.split(a, 4)[k] for k in (0, 2, 3, 1)])
same["lstm_cell.weight_ih"], same["lstm_cell.weight_hh"] = (gates(given[n][0]) for n in lstm.input[1:3])
same["lstm_cell.bias_ih"], same["lstm_cell.bias_hh"] = map(gates, np.split(given[lstm.input[3]][0], 2))
assert np.abs(torch_probabilities(same, both) - original).max() < 1e-5
as_stored = torch_probabilities(stored_weights, both)
assert np.abs(torch_probabilities(half, both) - as_stored).max() < 5e-3

np.savez_compressed(
    f"{out}/expected.npz", original=original, narrow=through(whole(f"{out}/if.onnx"), wide, 8000), sequence=sequence[0],
    hn=sequence[1], cn=sequence[2], weights=torch_probabilities(half, both))
