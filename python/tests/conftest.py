"""What the tests share: the files of the repository, and the devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
FIXTURES = ROOT / "tests" / "fixtures"


def pytest_configure(config: pytest.Config) -> None:
    # A conversion that numpy warns of, or a resource that is left open, is a fault.
    config.addinivalue_line("filterwarnings", "error::ResourceWarning")


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the models that come with the project."""
    return MODELS


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of expected values."""
    return FIXTURES


@pytest.fixture(scope="session")
def audio() -> dict[str, np.ndarray]:
    """Recordings in frames and what ONNX Runtime makes of them (`tests/golden/make_audio.py`)."""
    with np.load(FIXTURES / "audio.npz") as arrays:
        return dict(arrays)
