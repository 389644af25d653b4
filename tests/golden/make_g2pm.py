"""make_g2pm.py OUT: the network of models/g2pm.safetensors (g2pM, Apache-2.0) as PyTorch users have it: OUT/g2pm.pt is
its state dict by torch.save, with the names of its authors' code, and OUT/g2pm.onnx its export with open batch and time.
So that the files are small, the embedding has only the rows that the sentences of tests/fixtures/g2pm.npz need:
OUT/words.npz has the sentences in these ids. The logits are those of g2pm.npz, which the package's own code made.
Run in the project's folder with torch 2.15, onnxscript 0.7 and safetensors."""
import sys
import numpy as np, onnx, torch
from safetensors.torch import load_file
from torch import nn

out = sys.argv[1]
stored, golden = load_file("models/g2pm.safetensors"), np.load("tests/fixtures/g2pm.npz")
used, ids = np.unique(golden["ids"], return_inverse=True)
ids = ids.reshape(golden["ids"].shape)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(used), 64)
        self.lstm = nn.LSTM(64, 32, batch_first=True, bidirectional=True)
        self.logit_layer = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 876))

    def forward(self, ids):
        return self.logit_layer(self.lstm(self.embedding(ids))[0])


place = {"layers.0": "embedding", "layers.1": "lstm", "layers.2": "logit_layer.0", "layers.3": "logit_layer.2"}
state = {place[name[:8]] + name[8:]: t for name, t in stored.items()}
state["embedding.weight"] = state["embedding.weight"][torch.from_numpy(used.astype(np.int64))].clone()
network = Network().eval()
network.load_state_dict(state)
with torch.no_grad():
    for row, n in enumerate(golden["lengths"]):
        y = network(torch.from_numpy(ids[row:row + 1, :n]))[0].numpy()
        assert np.abs(y - golden["logits"][row, :n]).max() < 1e-4
torch.save(network.state_dict(), f"{out}/g2pm.pt")
batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
torch.onnx.export(
    network, (torch.from_numpy(ids[:2, :7].copy()),), f"{out}/g2pm.onnx", input_names=["ids"], output_names=["logits"],
    dynamic_shapes={"ids": {0: batch, 1: time}}, dynamo=True, external_data=False, opset_version=18)
# The exporter notes on each node where in this file it comes from.
m = onnx.load(f"{out}/g2pm.onnx")
for n in [*m.graph.node, *m.graph.value_info, *m.graph.input, *m.graph.output, *m.graph.initializer, m.graph]:
    del n.metadata_props[:]
onnx.save(m, f"{out}/g2pm.onnx")
np.savez_compressed(f"{out}/words.npz", ids=ids.astype(np.int32))
