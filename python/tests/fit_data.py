"""The data of `tests/fixtures/fit`: for each network inputs, targets and weights of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "fit"


def cases() -> list[dict[str, Any]]:
    """What Keras gave, by `tests/golden/make_fit.py`."""
    all_cases: list[dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())["cases"]
    return all_cases


def array(stored: dict[str, Any]) -> np.ndarray:
    return np.array(stored["data"], "int32" if stored["ids"] else "float32").reshape(stored["shape"])


def data() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for case in cases():
        ys = [array(y) for y in case["y"]]
        weights = array(case["sample_weight"]) if "sample_weight" in case else None
        out[case["name"]] = (array(case["x"]), ys[0] if len(ys) == 1 else ys, weights)
    return out
