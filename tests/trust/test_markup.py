"""Nothing that a person or a model wrote becomes markup: every place that builds HTML is found in the source and must escape; cells of
exported tables cannot run as formulas."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.exports.files import safe_cell
from core.settings import ROOT

SOURCES = [*(ROOT / "app").rglob("*.py"), *(ROOT / "pages").glob("*.py"), *(ROOT / "core").rglob("*.py")]
#: what may stand unescaped between braces inside markup: our own constants and words of the catalogues
OURS = re.compile(r"^(_?[A-Z][A-Z_]*$|t\(|word\(|heads$|''\.join\(|\"\"\.join\(|kind$|context\.rank$|html\.escape\(|escape\()")


def markup_calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("st.html", "gr.HTML"):
                yield path, node


def test_streamlit_gets_markup_from_escaped_pieces_only() -> None:
    found = list(markup_calls())
    assert len(found) >= 8
    for path, node in found:
        for piece in ast.walk(node.args[0]):
            if isinstance(piece, ast.FormattedValue):
                text = ast.unparse(piece.value)
                assert OURS.match(text), f"{path.name}:{node.lineno} puts {text} into markup"


def test_nobody_switches_escaping_off() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert "unsafe_allow_html" not in text, path
        assert "gr.HTML(" not in text or path.name == "bench.py", path
        assert "sanitize_html=False" not in text or path.name == "bench.py", path


@pytest.mark.parametrize("way", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"])
def test_the_desk_writes_text_never_markup(way: str) -> None:
    files = [*(ROOT / "app" / "desk").rglob("*.js"), ROOT / "app" / "desk" / "desk.html"]
    assert len(files) > 10
    assert [path.name for path in files if way in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", '=HYPERLINK("http://x")'])
def test_a_cell_is_never_a_formula(cell: str) -> None:
    assert str(safe_cell(cell))[0] not in "=+-@\t\r＝"
