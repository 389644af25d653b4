"""Pictures, tables and the comparison with the f64 reference."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import recurve

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def g2pm(models: Path) -> recurve.Model:
    return recurve.load(models / "g2pm.safetensors", device="cpu")


@pytest.fixture(scope="module")
def silero(models: Path) -> recurve.Model:
    return recurve.load(models / "silero_vad.onnx", device="cpu")


def texts(svg: str) -> list[str]:
    """The texts of a picture, which must be XML."""
    return [t.text or "" for t in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_is_what_its_name_says(g2pm: recurve.Model, tmp_path: Path) -> None:
    svg, png = tmp_path / "m.svg", tmp_path / "m.PNG"
    g2pm.plot(svg)
    g2pm.plot(str(png))
    assert {"Embedding", "Bidirectional LSTM", "(None, None, 876)"} <= set(texts(svg.read_text()))
    assert png.read_bytes().startswith(PNG)
    # The width of the picture of the command `recurve plot`.
    assert int.from_bytes(png.read_bytes()[16:20], "big") == 1040
    with pytest.raises(ValueError, match=r"m\.gif: the name must end in \.svg or \.png"):
        g2pm.plot(tmp_path / "m.gif")
    with pytest.raises(FileNotFoundError):
        g2pm.plot(tmp_path / "no folder" / "m.svg")


def test_nodes_of_an_onnx_file_are_drawn_in_groups_or_all(silero: recurve.Model, tmp_path: Path) -> None:
    grouped, every = tmp_path / "grouped.svg", tmp_path / "every.svg"
    silero.plot(grouped)
    silero.plot(every, every_node=True)
    few, all_of_them = texts(grouped.read_text()), texts(every.read_text())
    assert "state" in few and "60 nodes in 25 boxes" in few[1] and all_of_them[1].startswith("60 nodes, ")
    assert len(all_of_them) > len(few) + 60


def test_notebooks_show_a_table_and_a_picture(g2pm: recurve.Model, silero: recurve.Model) -> None:
    html = g2pm._repr_html_()
    table = ET.fromstring(html[html.index("<table>") : html.index("</table>") + 8])
    rows = [[c.text for c in row] for row in table.iter("tr")]
    assert rows[0] == ["layer", "class", "output shape", "parameters", "connected to"]
    assert len(rows) == 1 + 4 and rows[1][1] == "Embedding"
    assert texts(g2pm._repr_svg_())
    html = silero._repr_html_()
    assert "input (state)" in html and "(2, batch, 128)" in html and "<svg" in html


def test_names_from_files_are_escaped(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)&.onnx"
    path.write_bytes((models / "silero_vad.onnx").read_bytes())
    model = recurve.load(path, device="cpu")
    for shown in (model._repr_html_(), model._repr_svg_()):
        assert "<script" not in shown and "&lt;script&gt;alert(1)&amp;" in shown
    ET.fromstring(model._repr_svg_())


def test_a_model_agrees_with_the_reference(g2pm: recurve.Model, silero: recurve.Model) -> None:
    report = g2pm.check()
    assert report and report.passed and 0 < report.worst_error < 1e-3
    assert len(report.devices) == 1 and "worst error" in str(report) and "passed" in repr(report)
    report = silero.check({"input": np.full((1, 576), 0.25, np.float32), "sr": 16_000})
    assert report and "values agree" in str(report)


def test_what_is_too_strict_fails_and_says_where(g2pm: recurve.Model, silero: recurve.Model) -> None:
    report = g2pm.check(atol=0, rtol=0, batch=1, seq=7)
    assert not report and report.worst_error > 0
    assert "WRONG" in str(report) and "FAILED" in repr(report)
    report = silero.check(atol=0, rtol=0, batch=1, seq=576)
    assert not report and "the first that departs is node" in str(report)


def test_devices_to_check(g2pm: recurve.Model) -> None:
    cpu = str(recurve.Device("cpu"))
    assert g2pm.check(seq=3, device="cpu").devices == [cpu]
    assert g2pm.check(seq=3, device=[recurve.Device("cpu"), "cpu"]).devices == [cpu, cpu]
    everywhere = g2pm.check(seq=3, device="all")
    assert everywhere and len(everywhere.devices) == len(recurve.devices())


def test_a_check_of_wrong_inputs_is_refused(g2pm: recurve.Model, silero: recurve.Model) -> None:
    with pytest.raises(ValueError, match="no such input; it has"):
        g2pm.check({"sound": np.zeros((1, 2), np.int64)})
    with pytest.raises(ValueError, match="`input`"):
        silero.check({"input": np.zeros((1, 576, 1), np.float32), "sr": 16_000})
    with pytest.raises(ValueError, match="`rtol` must be a finite number"):
        g2pm.check(rtol=float("nan"))
    with pytest.raises(ValueError, match="`seq` must be at least 1"):
        g2pm.check(seq=0)
    with pytest.raises(ValueError, match="checked at once"):
        g2pm.check(batch=1 << 20, seq=1 << 20)
    with pytest.raises(TypeError, match="`device` must be"):
        g2pm.check(device=3)
