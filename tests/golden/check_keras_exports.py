#!/usr/bin/env python3
"""Holds the ONNX files that Recurve writes of Keras's layers against Keras's numbers, by ONNX Runtime.

    RECURVE_EXPORTS=FOLDER cargo test --release -p recurve-tests --test keras_layers written
    python3 tests/golden/check_keras_exports.py FOLDER

Needs numpy, onnx, onnxruntime and safetensors.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from safetensors import safe_open

worst, count = 0.0, 0
with safe_open(pathlib.Path(__file__).parent.parent / "fixtures" / "keras_layers.safetensors", "np") as fixture:
    for case in json.loads(fixture.metadata()["cases"]):
        name = case["name"]
        data = (pathlib.Path(sys.argv[1]) / f"{name}.onnx").read_bytes()
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
        session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        feeds = {i.name: fixture.get_tensor(f"{name}/x.{i.name}").astype(types[i.type]) for i in session.get_inputs()}
        (y,), want = session.run(None, feeds), fixture.get_tensor(f"{name}/y")
        assert y.shape == want.shape, (name, y.shape, want.shape)
        error = np.abs(y - want).max()
        assert error <= 1e-5 * (1 + np.abs(want).max()), (name, error)
        worst, count = max(worst, error), count + 1
print(f"{count} files, worst error {worst:.1e}, onnxruntime {ort.__version__}")
