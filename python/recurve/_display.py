"""Models as notebooks show them: a table in HTML, a picture in SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from . import _recurve

if TYPE_CHECKING:
    from ._model import Model, Value

__all__ = ["html", "svg"]

_CELL = "text-align:left;padding:2px 12px 2px 0"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose texts are escaped."""

    def line(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f'<{tag} style="{_CELL}">{escape(t)}</{tag}>' for t in texts) + "</tr>"

    body = "".join(line("td", r) for r in rows)
    return f"<table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"


def _shape(value: Value) -> str:
    if value.shape is None:
        return "?"
    return "(" + ", ".join(str(d) for d in value.shape) + ")"


def svg(runner: _recurve.Runner) -> str:
    """The picture of a model."""
    return _recurve.picture(runner, "svg", False).decode()


def html(model: Model) -> str:
    """The table of a model's layers, or of an ONNX file's inputs and outputs, with its picture to unfold."""
    runner = model._runner
    layers = _recurve.layers(runner)
    title = f"<b>{escape(model.name)}</b> on {escape(str(model.device))}"
    if layers:
        table = _table(
            ("layer", "class", "output shape", "parameters", "connected to"),
            [(name, kind, shape, f"{params:,}", ", ".join(src)) for name, kind, shape, params, src in layers],
        )
        title += f", {sum(layer[3] for layer in layers):,} parameters"
    else:
        states = {name for pair in runner.states() for name in pair}
        values = [("input", v) for v in model.inputs] + [("output", v) for v in model.outputs]
        table = _table(
            ("", "name", "shape", "dtype"),
            [(what + (" (state)" if v.name in states else ""), v.name, _shape(v), v.dtype) for what, v in values],
        )
    return f"<div>{title}{table}<details><summary>picture</summary>{svg(runner)}</details></div>"
