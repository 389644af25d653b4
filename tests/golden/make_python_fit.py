"""What Keras gives for the trainings of `python/tests/scenarios.py`, which the tests of the Python package run again.

    KERAS_BACKEND=torch python3 tests/golden/make_python_fit.py

Reads the networks and data of `tests/fixtures/fit` (`make_fit.py`) and writes `python/tests/fixtures/fit.json`.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python" / "tests"))

import scenarios
from fit_data import data


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def load(name):
    return keras.models.load_model(ROOT / "tests" / "fixtures" / "fit" / f"{name}.keras", compile=False)


out = {}
for scenario in scenarios.ALL:
    keras.utils.set_random_seed(1)
    out[scenario.__name__] = rounded(scenario(keras, load, data()))
    print(scenario.__name__, len(out[scenario.__name__]))
path = ROOT / "python" / "tests" / "fixtures" / "fit.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
