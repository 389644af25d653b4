"""Small files of PyTorch, good and bad, with the tensors that PyTorch itself reads from them.

    python3 make_pytorch_files.py ../fixtures/pytorch_files

Needs torch 2.15, numpy and safetensors. `expected.safetensors` has every tensor of the good files as f32, named
`FILE:NAME`, but of files with the tensors of `zip.pt`, which its metadata names; and inputs and outputs of the networks that the tests assemble, named `net:NAME`. Files whose names begin
with `bad_` are to be refused.
"""

import argparse
import collections
import copy
import inspect
import io
import os
import pathlib
import pickle
import sys
import warnings
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

warnings.simplefilter("ignore")
torch.manual_seed(5)
FOLDER = sys.argv[1]
os.makedirs(FOLDER, exist_ok=True)
expected = {}


def path(name):
    return os.path.join(FOLDER, name)


def expect(name, tensors):
    for key, t in tensors.items():
        expected[f"{name}:{key}"] = t.detach().to(torch.float32).contiguous().clone()


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.rnn = nn.LSTM(3, 2, num_layers=2, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        return torch.sigmoid(self.head(self.rnn(self.embedding(ids))[0]))


class Mixed(nn.Module):
    """One module of each kind that names and shapes tell."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 2, bias=False)
        self.plain = nn.RNN(3, 2)
        self.projected = nn.LSTM(3, 4, proj_size=2)
        self.cell = nn.GRUCell(3, 2)
        self.attention = nn.MultiheadAttention(4, 2)
        self.conv = nn.Conv1d(2, 3, 5)
        self.conv2 = nn.Conv2d(2, 3, (1, 3), bias=False)
        self.up = nn.ConvTranspose1d(3, 2, 2)
        self.bn = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.ones(2, 2, 2, 2, 2, 2))
        self.first = nn.Linear(2, 3)
        self.tied = nn.Linear(2, 3)
        self.tied.weight = self.first.weight


class Config:
    """A class of the user's program."""


tagger = Tagger().eval()
with torch.no_grad():
    tagger.norm.weight.copy_(torch.randn(4))
    tagger.norm.bias.copy_(torch.randn(4))
state = copy.deepcopy(tagger.state_dict())
ids = torch.tensor([[0, 3, 1, 4, 2], [2, 2, 0, 1, 3]])
expected["net:ids"] = ids.to(torch.float32)
expected["net:y"] = tagger(ids).detach()
expected["net:norm_y"] = tagger.head(tagger.norm(tagger.rnn(tagger.embedding(ids))[0])).detach()

# Forms of the same state dict.
torch.save(state, path("zip.pt"))
torch.save(state, path("legacy.pt"), _use_new_zipfile_serialization=False)
torch.save(state, path("protocol4.pt"), pickle_protocol=4)
torch.save(state, path("legacy_protocol4.pt"), _use_new_zipfile_serialization=False, pickle_protocol=4)
torch.serialization.set_crc32_options(False)
torch.save(state, path("no_checksums.pt"))
torch.serialization.set_crc32_options(True)
for name in ["zip.pt", "legacy.pt", "protocol4.pt", "legacy_protocol4.pt", "no_checksums.pt"]:
    expect(name, torch.load(path(name), weights_only=False))


def rewritten(source, target, change=lambda name, data: data, method=zipfile.ZIP_STORED):
    """The same archive with other contents or another compression."""
    with zipfile.ZipFile(path(source)) as old, zipfile.ZipFile(path(target), "w", method) as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), change(info.filename, old.read(info)), method)


rewritten("zip.pt", "deflated.pt", method=zipfile.ZIP_DEFLATED)
expect("deflated.pt", state)


def to_big_endian(name, data):
    if name.endswith("/byteorder"):
        return b"big"
    return np.frombuffer(data, "<f4").astype(">f4").tobytes() if "/data/" in name else data


rewritten("zip.pt", "big_endian.pt", to_big_endian)
expect("big_endian.pt", torch.load(path("big_endian.pt"), weights_only=False))

# A checkpoint with other things beside the weights, an optimizer's tensors among them.
optimizer = torch.optim.Adam(tagger.parameters())
tagger(ids).sum().backward()
optimizer.step()
torch.save(
    {
        "epoch": 3,
        "best": torch.tensor(0.5),
        "loss": np.float64(0.25),
        "args": argparse.Namespace(rate=1e-3, out=pathlib.Path("runs/1")),
        "history": collections.defaultdict(list, loss=[1.0, 0.5]),
        "model_state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
    },
    path("checkpoint.pt"),
)
expect("checkpoint.pt", state)


class ModelCheckpoint:
    """Stands for a class of Lightning, which pickles name but never make."""


ModelCheckpoint.__module__ = "lightning.pytorch.callbacks.model_checkpoint"
module = type(sys)("lightning.pytorch.callbacks.model_checkpoint")
module.ModelCheckpoint = ModelCheckpoint
for part in ["lightning", "lightning.pytorch", "lightning.pytorch.callbacks"]:
    sys.modules[part] = type(sys)(part)
sys.modules[ModelCheckpoint.__module__] = module
torch.save(
    {
        "epoch": 1,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{k}": v for k, v in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"hidden": 2, "callback": ModelCheckpoint()},
    },
    path("lightning.ckpt"),
)
expect("lightning.ckpt", {f"model.{k}": v for k, v in state.items()})

torch.save({f"module._orig_mod.{k}": v for k, v in state.items()}, path("wrapped.pt"))
expect("wrapped.pt", {f"module._orig_mod.{k}": v for k, v in state.items()})
beside = {"args": Config(), "epoch": 1}
torch.save({"encoder": {"w": torch.ones(2)}, "decoder": {"w": torch.zeros(2)}, **beside}, path("two_parts.pt"))
expect("two_parts.pt", {"encoder.w": torch.ones(2), "decoder.w": torch.zeros(2)})
torch.save(torch.arange(3.0), path("tensor.pt"))
expect("tensor.pt", {"tensor": torch.arange(3.0)})

# Views of one storage.
base = torch.arange(24.0)
views = {
    "base": base,
    "same": base,
    "matrix": base.reshape(4, 6),
    "transposed": base.reshape(4, 6).T,
    "middle": base[6:18].reshape(3, 4),
    "columns": base.reshape(4, 6)[:, 1:4],
    "steps": base[1::5],
    "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
    "expanded": base[2:4].reshape(2, 1).expand(2, 3),
    "repeated": torch.tensor(1.5).expand(4),
    "diagonal": base.reshape(4, 6).diagonal(),
    "windows": base[:6].unfold(0, 3, 1),
    "scalar": base[7],
    "empty": base[:0].reshape(0, 3),
    "single": base.reshape(4, 6)[:, 2:3],
    "parameter": nn.Parameter(base.reshape(4, 6)[1]),
}
for name, options in [("views.pt", {}), ("legacy_views.pt", {"_use_new_zipfile_serialization": False})]:
    torch.save(views, path(name), **options)
    expect(name, torch.load(path(name), weights_only=False))

types = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
]
numbers = torch.tensor([0.1, -1.0, 3.0, 100.0])
typed = {str(t).removeprefix("torch."): (numbers.abs() if str(t).startswith("torch.u") else numbers).to(t) for t in types}
tagged = torch.arange(3.0)
tagged.note = "an attribute"
typed["tagged"] = tagged
for name, options in [("types.pt", {}), ("legacy_types.pt", {"_use_new_zipfile_serialization": False})]:
    torch.save(typed, path(name), **options)
    expect(name, typed)
others = {
    "complex": torch.ones(2, dtype=torch.complex64),
    "small": torch.ones(2).to(torch.float8_e4m3fn),
    "fine": torch.ones(2),
}
torch.save(others, path("other_types.pt"))

mixed = Mixed().eval()
with torch.no_grad():
    for t in [mixed.bn.weight, mixed.bn.bias, mixed.bn.running_mean]:
        t.copy_(torch.randn(3))
    mixed.bn.running_var.copy_(torch.rand(3) + 0.5)
    mixed.bn.num_batches_tracked += 7
torch.save(mixed.state_dict(), path("mixed.pt"))
expect("mixed.pt", mixed.state_dict())
expected["net:cell_x"] = torch.randn(2, 3)
h = torch.zeros(2, 2)
expected["net:cell_y"] = mixed.cell(expected["net:cell_x"], h).detach()
x = torch.randn(2, 5, 3)
expected["net:projected_x"] = x
expected["net:projected_y"] = mixed.projected(x.transpose(0, 1))[0].transpose(0, 1).detach()
expected["net:plain_y"] = mixed.plain(x.transpose(0, 1))[0].transpose(0, 1).detach()
expected["net:gru_y"] = mixed.gru(x.transpose(0, 1))[0].transpose(0, 1).detach()

# Convolutions and normalizations, channels last.
x = torch.randn(2, 9, 2)
expected["net:conv_x"] = x
expected["net:conv_y"] = mixed.up(mixed.bn(mixed.conv(x.transpose(1, 2)))).transpose(1, 2).detach()
x = torch.randn(1, 2, 5, 4)
expected["net:conv2_x"] = x
expected["net:conv2_y"] = mixed.conv2(x).detach()

# Whole modules: their parameters and buffers are read, their classes never made.
whole = nn.Sequential(collections.OrderedDict(tagger=tagger, bn=nn.BatchNorm1d(2)))
whole.register_buffer("kept", torch.arange(2.0))
whole.register_buffer("not_kept", torch.arange(5.0), persistent=False)
for p in whole.parameters():
    p.grad = None
torch.save(whole, path("module.pt"))
# The legacy form has the sources of all classes; here without.
source, inspect.getsourcelines = inspect.getsourcelines, lambda _: ([""], 0)
torch.save(whole, path("legacy_module.pt"), _use_new_zipfile_serialization=False)
inspect.getsourcelines = source
for name in ["module.pt", "legacy_module.pt"]:
    expect(name, whole.state_dict())

# TorchScript and torch.export.
small = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
torch.jit.script(small).save(path("script.pt"))
torch.jit.trace(small, torch.zeros(2, 3)).save(path("trace.jit"))
for name in ["script.pt", "trace.jit"]:
    expect(name, torch.jit.load(path(name)).state_dict())
tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
tied[1].weight = tied[0].weight
tied.register_buffer("halves", torch.arange(4.0).half())
exported = torch.export.export(tied, (torch.zeros(2, 3),))
torch.export.save(exported, path("export.pt2"))
# Without the graph, which has paths of this machine in it and is not read.
with zipfile.ZipFile(path("export.pt2")) as old:
    kept = [(i.filename, old.read(i)) for i in old.infolist() if "sample_inputs" not in i.filename]
with zipfile.ZipFile(path("export.pt2"), "w") as new:
    for name, data in kept:
        new.writestr(zipfile.ZipInfo(name), b"{}" if name.endswith("models/model.json") else data)
expect("export.pt2", tied.state_dict())


def saved(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


# As PyTorch 2.1 to 2.6 wrote them, and 2.7 and 2.8.
for name, entry in [("export_2_5.pt2", "serialized_state_dict.pt"), ("export_2_7.pt2", "archive/data/weights/model.pt")]:
    with zipfile.ZipFile(path(name), "w") as z:
        z.writestr(zipfile.ZipInfo("version"), "7.3")
        z.writestr(zipfile.ZipInfo(entry), saved(tied.state_dict()))
    expect(name, tied.state_dict())


# What is to be refused.
class Call:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


torch.save({"w": torch.ones(2), "run": Call(os.system, "true")}, path("bad_system.pt"))
torch.save(
    {"state_dict": {"w": torch.ones(2)}, "beside": Call(eval, "1 + 1")},
    path("bad_eval_beside.pt"),
)
torch.save(
    {"w": torch.ones(2), "run": Call(os.system, "true")}, path("bad_legacy_system.pt"),
    _use_new_zipfile_serialization=False,
)
torch.save({"w": torch.ones(2), "config": Config()}, path("bad_object.pt"))
torch.save({"w": torch.ones(2).to_sparse()}, path("bad_sparse.pt"))
torch.save({"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, path("bad_quantized.pt"))
torch.save({"w": torch.zeros(2, dtype=torch.complex64).conj().imag}, path("bad_negative.pt"))
torch.save({"epoch": 3}, path("bad_nothing.pt"))
torch.save({"w": torch.zeros(1).expand(1 << 16, 1 << 16)}, path("bad_expanded.pt"))
with open(path("bad_plain.pkl"), "wb") as f:
    pickle.dump({"w": np.ones(3)}, f, 2)
with zipfile.ZipFile(path("bad_other.zip"), "w") as z:
    z.writestr(zipfile.ZipInfo("readme"), "no weights")

# Files with the same tensors as `zip.pt` are only named.
of = collections.defaultdict(dict)
for name, t in expected.items():
    file, tensor = name.split(":")
    of[file][tensor] = t
first = of["zip.pt"]


def same(file):
    return of[file].keys() == first.keys() and all(torch.equal(of[file][n], first[n]) for n in first)


aliases = [file for file in of if file != "zip.pt" and same(file)]
kept = {k: v.contiguous() for k, v in expected.items() if k.split(":")[0] not in aliases}
save_file(kept, path("expected.safetensors"), {"as zip.pt": " ".join(aliases)})
print(sum(os.path.getsize(path(n)) for n in os.listdir(FOLDER)), "bytes,", len(os.listdir(FOLDER)), "files")
