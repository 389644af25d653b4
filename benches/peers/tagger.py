#!/usr/bin/env python3
"""Writes a tagger of two bidirectional LSTM layers as ONNX files by both exporters of PyTorch, of several batch sizes.

    python3 benches/peers/tagger.py FOLDER
    python3 benches/peers/model.py FOLDER/tagger_*.onnx
"""

import sys
from pathlib import Path

import torch


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5000, 64)
        self.lstm = torch.nn.LSTM(64, 128, num_layers=2, bidirectional=True, batch_first=True)
        self.linear = torch.nn.Linear(256, 20)

    def forward(self, ids):
        return torch.log_softmax(self.linear(self.lstm(self.embedding(ids))[0]), -1)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = Tagger().eval()
    for batch in (1, 8):
        ids = torch.randint(0, 5000, (batch, 40))
        for dynamo in (False, True):
            path = folder / f"tagger_{'dynamo' if dynamo else 'script'}_b{batch}.onnx"
            more = {"external_data": False} if dynamo else {}
            torch.onnx.export(
                model, (ids,), str(path), dynamo=dynamo, input_names=["ids"], output_names=["scores"], **more
            )


main()
