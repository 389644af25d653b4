"""What the tests share: the files of the repository, and the devices."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
FIXTURES = ROOT / "tests" / "fixtures"


# Ray tells nobody that it is used.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def pytest_configure(config: pytest.Config) -> None:
    # A conversion that numpy warns of, or a resource that is left open, is a fault.
    config.addinivalue_line("filterwarnings", "error::ResourceWarning")


def skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Writes what was skipped, and for want of what, to the file that `RECURVE_TEST_SKIPS` names, as the Rust tests
    do; `cargo xtask` counts and prints it."""
    file = os.environ.get("RECURVE_TEST_SKIPS")
    if not report.skipped or hasattr(report, "wasxfail") or file is None:
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    what = re.sub(r"^Skipped: |(?<=')\: No module named .*", "", reason).replace("\n", " ").replace("\t", " ")
    missing = re.fullmatch(r"could not import '([^']+)'", what)
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(f"{report.nodeid}\t{missing[1] if missing else what}\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    skipped(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    skipped(report)


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
