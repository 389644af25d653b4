"""The code of the pages of `docs/python` and of the two READMEs runs.

The Python blocks of a page run in their order, in one namespace, in a folder in which `models` is the folder of the
project's models. A block ```` ```text output ```` behind one holds what it must print, `...` standing for anything. A
block ```` ```python torch ```` (or `keras`, `onnxruntime`, several of them) stands beside the others: it runs by
itself, where these packages are.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs" / "python").glob("*.md")), ROOT / "python" / "README.md", ROOT / "README.md"]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code."""

    page: Path
    line: int
    needs: tuple[str, ...]
    code: str
    output: str | None

    def run(self, names: dict[str, object]) -> None:
        """Runs it; errors show the page and the line."""
        code = compile("\n" * self.line + self.code, str(self.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        if self.output is not None:
            same = doctest.OutputChecker().check_output(
                self.output, printed.getvalue(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            )
            assert same, f"{self.page.name}:{self.line} prints\n{printed.getvalue()}\ninstead of\n{self.output}"


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in FENCE.finditer(text):
        language, *rest = match[1].split() or [""]
        if language == "python":
            found.append(Block(page, text[: match.start()].count("\n") + 1, tuple(rest), match[2], None))
        elif [language, *rest] == ["text", "output"]:
            found[-1] = found[-1]._replace(output=match[2])
    return found


ALL = {page: blocks(page) for page in PAGES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the project's models."""
    os.symlink(ROOT / "models", tmp_path / "models", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def module(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, object]:
    """The namespace of a module that classes can be pickled from, and that threads find."""
    made = type(sys)(name)
    monkeypatch.setitem(sys.modules, name, made)
    return vars(made)


@pytest.mark.parametrize(
    "page",
    [p for p, all_of_it in ALL.items() if any(not b.needs for b in all_of_it)],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_a_page_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = module(monkeypatch, "page")
    for block in ALL[page]:
        if not block.needs:
            block.run(names)


@pytest.mark.parametrize(
    "block",
    [b for all_of_it in ALL.values() for b in all_of_it if b.needs],
    ids=lambda b: f"{b.page.name}:{b.line}",
)
def test_what_stands_beside_runs_too(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in block.needs:
        pytest.importorskip(package)
    try:
        block.run(module(monkeypatch, "beside"))
    finally:
        if "ray" in block.needs:
            # The cluster that the block began.
            sys.modules["ray"].shutdown()


def test_there_are_pages() -> None:
    names = {page.name for page, all_of_it in ALL.items() if all_of_it}
    assert {"index.md", "run-my-onnx-file.md", "stream-audio.md", "coming-from.md", "arrays.md"} <= names
    assert sum(len(all_of_it) for all_of_it in ALL.values()) > 20


def test_a_wrong_block_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\nx = 1\nprint(x)\n```\n\n```text output\n2\n```\n\n```python torch\ny\n```\n")
    first, second = blocks(page)
    assert (first.line, first.code, first.output, second.needs) == (3, "x = 1\nprint(x)\n", "2\n", ("torch",))
    with pytest.raises(AssertionError, match="page.md:3 prints"):
        first.run({})
    with pytest.raises(NameError) as failed:
        second.run({})
    # The line of the page on which it stands.
    assert failed.traceback[-1].lineno == 13 - 1
