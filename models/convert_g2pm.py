#!/usr/bin/env python3
"""Converts g2pM (Park & Lee 2020, Apache-2.0) into Recurve's native model file.

    pip install g2pM==0.1.2.5 numpy safetensors
    python3 models/convert_g2pm.py models/g2pm.safetensors

The weights, the vocabulary and the labels are those of the package. Of its dictionary only the
list of characters with more than one pronunciation is kept: those are the ones the model was
trained to decide.
"""

import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

BEGIN, END, UNKNOWN = "시", "끝", "<UNK>"


def load(name):
    folder = Path(find_spec("g2pM").submodule_search_locations[0])
    with open(folder / name, "rb") as f:
        return pickle.load(f)


def main(target):
    weights = load("np_ckpt.pkl")
    names = {
        "embedding.weight": "layers.0.weight",
        "logit_layer.0.weight": "layers.2.weight",
        "logit_layer.0.bias": "layers.2.bias",
        "logit_layer.2.weight": "layers.3.weight",
        "logit_layer.2.bias": "layers.3.bias",
    }
    for end in ("", "_reverse"):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            names[f"lstm.{part}_l0{end}"] = f"layers.1.{part}_l0{end}"
    assert set(names) == set(weights), set(names) ^ set(weights)
    tensors = {new: np.ascontiguousarray(weights[old], np.float32) for old, new in names.items()}

    ids = load("char2idx.pkl")
    vocabulary = [token for token, _ in sorted(ids.items(), key=lambda item: item[1])]
    assert list(range(len(ids))) == sorted(ids.values()) and len(ids) == len(tensors["layers.0.weight"])
    classes = load("class2idx.pkl")
    labels = [label for label, _ in sorted(classes.items(), key=lambda item: item[1])]
    assert list(range(len(labels))) == sorted(classes.values()) and len(labels) == len(tensors["layers.3.bias"])
    ambiguous = sorted(c for c, readings in load("digest_cedict.pkl").items() if len(c) == 1 and len(readings) > 1)

    lstm = {
        "type": "recurrent",
        "cell": {
            "kind": "lstm",
            "recurrent_activation": {"name": "sigmoid"},
            "activation": {"name": "tanh"},
            "output_activation": {"name": "tanh"},
        },
        "units": 32,
        "bidirectional": "concat",
        "bias": "double",
        "return_sequences": True,
    }
    info = {
        "version": 1,
        "name": "g2pM",
        "license": "Apache-2.0",
        "source": "g2pM 0.1.2.5 by Kyubyong Park and Seanie Lee, https://github.com/kakaobrain/g2pM",
        "input": "tokens",
        "input_shape": [None, None],
        "output": "logits",
        "layers": [
            {"type": "embedding", "input_dim": len(vocabulary), "output_dim": 64},
            lstm,
            {"type": "dense", "units": 32, "activation": {"name": "relu"}},
            {"type": "dense", "units": len(labels), "activation": {"name": "linear"}},
        ],
        "text": {
            "vocabulary": vocabulary,
            "unknown": ids[UNKNOWN],
            "begin": ids[BEGIN],
            "end": ids[END],
            "labels": labels,
            "ambiguous": "".join(ambiguous),
        },
    }
    save_file(tensors, target, {"recurve": json.dumps(info, ensure_ascii=False, separators=(",", ":"))})
    print(f"{target}: {len(vocabulary)} tokens, {len(labels)} labels, {len(ambiguous)} ambiguous characters")


if __name__ == "__main__":
    main(sys.argv[1])
