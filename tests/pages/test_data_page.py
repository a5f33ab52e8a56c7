"""The Data page: empty, with a dataset and refused rows, and closed to those who may not import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from core.home import Home
from core.importing.importer import import_file
from core.jobs.configs import ImportConfig


def test_empty_page_says_what_to_do_next(home: Home, open_page: Callable[..., AppTest]) -> None:
    at = open_page("engineer", "data")
    assert not at.exception
    assert "Import a file" in at.info[0].value


def test_samples_card_and_refused_rows(home: Home, open_page: Callable[..., AppTest], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Question {i} about fever?"}) for i in range(30)) + "\n{oops\n")
    folder = home.root / "datasets" / "a"
    config = ImportConfig(path=str(path), dataset="a")
    import_file(path, config, folder=folder, card_path="datasets/a/DATA_CARD.md", created_by=None, job_id=None)
    at = open_page("engineer", "data")
    assert not at.exception
    assert at.dataframe[0].value["samples"][0] == 30
    shown = [frame.value for frame in at.dataframe]
    assert any("not valid JSON" in str(frame.to_dict()) for frame in shown)
    assert any("Data card: a" in text.value for text in at.markdown)
    next(b for b in at.button if b.label == "Next").click().run()
    assert any("21–30 of 30" in c.value for c in at.caption)


def test_clinicians_do_not_see_it(home: Home, open_page: Callable[..., AppTest]) -> None:
    at = open_page("clinician", "data")
    assert "engineer" not in str(at.tabs)
    assert "not" in at.error[0].value
