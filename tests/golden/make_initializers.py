#!/usr/bin/env python3
"""What initialisers of Keras and PyTorch draw, as mean, standard deviation, smallest and largest number:
fixtures/initializers.json.

pip install keras torch numpy
Run from the folder `tests`: python3 golden/make_initializers.py

Each is asked for kernels of a layer with 300 inputs and 200 outputs, and of a convolution with 30 channels, 40 filters
and windows of 5. Shapes are those of PyTorch, [out, in, ...]; Keras gets its own.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
import torch

keras.utils.set_random_seed(1126)
SHAPES = [[200, 300], [40, 30, 5], [20000]]
cases = []


def record(ours, dims, a):
    a = np.asarray(a, np.float64)
    cases.append({"initializer": ours, "dims": dims, "mean": a.mean(), "std": a.std(), "low": a.min(), "high": a.max()})


def of_keras(ours, make, vectors=True):
    for dims in SHAPES if vectors else SHAPES[:2]:
        own = dims if len(dims) == 1 else dims[2:] + [dims[1], dims[0]]
        record(ours, dims, keras.ops.convert_to_numpy(make()(own)))


def of_torch(ours, fill, shapes=SHAPES[:2]):
    for dims in shapes:
        w = torch.empty(dims)
        fill(w)
        record(ours, dims, w.numpy())


K = keras.initializers
for ours, make in [("glorot_uniform", K.GlorotUniform), ("glorot_normal", K.GlorotNormal), ("he_uniform", K.HeUniform),
                   ("he_normal", K.HeNormal), ("lecun_uniform", K.LecunUniform), ("lecun_normal", K.LecunNormal),
                   ("zeros", K.Zeros), ("ones", K.Ones)]:
    of_keras(ours, make)
of_keras({"random_normal": {"mean": 0.0, "std": 0.05}}, K.RandomNormal)
of_keras({"random_normal": {"mean": 0.3, "std": 0.5}}, lambda: K.RandomNormal(0.3, 0.5))
of_keras({"random_uniform": {"low": -0.05, "high": 0.05}}, K.RandomUniform)
of_keras({"random_uniform": {"low": 0.25, "high": 1.0}}, lambda: K.RandomUniform(0.25, 1.0))
of_keras({"truncated_normal": {"mean": 0.0, "std": 0.05}}, K.TruncatedNormal)
of_keras({"truncated_normal": {"mean": -1.0, "std": 0.5}}, lambda: K.TruncatedNormal(-1.0, 0.5))
of_keras({"constant": {"value": 0.75}}, lambda: K.Constant(0.75))
for mode in ("fan_in", "fan_out", "fan_avg"):
    for distribution in ("truncated_normal", "untruncated_normal", "uniform"):
        of_keras({"variance_scaling": {"scale": 1.5, "mode": mode, "distribution": distribution}},
                 lambda: K.VarianceScaling(1.5, mode, distribution))
of_keras("orthogonal", K.Orthogonal, vectors=False)
of_keras({"scaled_orthogonal": {"gain": 2.0}}, lambda: K.Orthogonal(2.0), vectors=False)
record({"identity": {"gain": 3.0}}, [200, 300], keras.ops.convert_to_numpy(K.Identity(3.0)([300, 200])))

I = torch.nn.init
of_torch("glorot_uniform", I.xavier_uniform_)
of_torch({"variance_scaling": {"scale": 1.0, "mode": "fan_avg", "distribution": "untruncated_normal"}}, I.xavier_normal_)
of_torch("he_uniform", I.kaiming_uniform_)
of_torch({"variance_scaling": {"scale": 2.0, "mode": "fan_in", "distribution": "untruncated_normal"}}, I.kaiming_normal_)
of_torch({"scaled_orthogonal": {"gain": 0.5}}, lambda w: I.orthogonal_(w, 0.5))
of_torch({"identity": {"gain": 1.0}}, I.eye_, SHAPES[:1])
record("torch_linear", [200, 300], torch.nn.Linear(300, 200).weight.detach().numpy())
record("torch_linear", [40, 30, 5], torch.nn.Conv1d(30, 40, 5).weight.detach().numpy())
record("torch_uniform", [400, 100], torch.nn.LSTM(70, 100).weight_hh_l0.detach().numpy())

with open("fixtures/initializers.json", "w") as f:
    json.dump([{k: float(f"{v:.6g}") if isinstance(v, (float, np.floating)) else v for k, v in c.items()} for c in cases], f,
              separators=(",", ":"))
    f.write("\n")
print(len(cases), "draws")
