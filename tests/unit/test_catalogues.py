"""Every word on screen exists in both languages, and every error code that is raised has its sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from core.i18n import CATALOGUES, LANGUAGES, catalogue
from core.settings import ROOT

AREAS = sorted(path.stem for path in CATALOGUES.glob("*.toml"))
ERRORS = {"UserError", "NotFound", "Forbidden", "Conflicting", "Unavailable"}
CJK = re.compile(r"[一-鿿]")
#: functions whose literal first argument is a key
SPEAKERS = {"t", "translate", "page_title"}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("area", AREAS)
def test_every_key_speaks_both_languages_with_the_same_placeholders(area: str) -> None:
    for key, entry in catalogue(area).items():
        assert set(entry) == set(LANGUAGES), f"{area}.{key}"
        assert all(isinstance(v, str) and v.strip() for v in entry.values()), f"{area}.{key}"
        assert placeholders(entry["en"]) == placeholders(entry["zh"]), f"{area}.{key}"
        assert not CJK.search(entry["en"]), f"{area}.{key}: Chinese in the English text"


def sources() -> Iterator[Path]:
    for layer in ("core", "db", "app", "training", "pages"):
        yield from (p for p in sorted((ROOT / layer).rglob("*.py")) if "migrations" not in p.parts)


def literal_calls(path: Path, names: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in names:
                yield node.lineno, node.args[0].value


def known(key: str) -> bool:
    area, _, name = key.partition(".")
    return area in AREAS and name in catalogue(area)


@pytest.mark.parametrize("path", list(sources()), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_literal_key_and_error_code_has_its_sentence(path: Path) -> None:
    missing = [f"line {line}: {code}" for line, code in literal_calls(path, ERRORS) if not known(code if "." in code else f"errors.{code}")]
    if path.is_relative_to(ROOT / "app") or path.is_relative_to(ROOT / "pages"):
        missing += [f"line {line}: {key}" for line, key in literal_calls(path, SPEAKERS) if "." in key and not known(key)]
    assert missing == []
