"""What ONNX Runtime computes from the files that Recurve exports (tests/tests/onnx_export.rs).

    RECURVE_EXPORTS=FOLDER cargo test --release -p recurve-tests --test onnx_export -- --ignored
    python3 tests/golden/make_onnx_export.py FOLDER

Needs onnx, onnxruntime and numpy. Every file must pass onnx.checker too. Writes tests/fixtures/onnx_export.npz: of each
case the CRC-32 of the file that ran, and its outputs.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}

out = {}
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    case = folder.name.replace("__", "/")
    data = (folder / "model.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    feeds = {}
    for i in session.get_inputs():
        shape, numbers = (folder / f"{i.name}.txt").read_text().split("\n")
        kind = TYPES[i.type]
        numbers = np.array([float(v) for v in numbers.split()])
        feeds[i.name] = numbers.astype(kind).reshape([int(n) for n in shape.split()])
    names = [o.name for o in session.get_outputs()]
    out[f"{case}/crc"] = np.array([int((folder / "crc").read_text())], np.int64)
    for name, y in zip(names, session.run(names, feeds)):
        assert np.isfinite(y).all(), (case, name)
        out[f"{case}/out/{name}"] = y
path = pathlib.Path(__file__).parent.parent / "fixtures" / "onnx_export.npz"
np.savez_compressed(path, **out)
print(f"{path}: {len(out)} arrays, onnxruntime {ort.__version__}, onnx {onnx.__version__}")
