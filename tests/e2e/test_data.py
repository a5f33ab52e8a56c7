"""Importing in a real browser: a bad file gets a sentence, a mixed one is previewed, imported by the worker and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Site, stop

pytestmark = pytest.mark.browser


def choose(page: Page, path: Path) -> None:
    page.get_by_role("tab", name="Import a file").click()
    page.locator("[data-testid='stFileUploaderDropzoneInput']").set_input_files(path)


def test_a_bad_file_gets_one_sentence(site: Site, page: Page, sign_in: Callable[..., Page], tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('[{"prompt": "a"},')
    sign_in(page, "engineer", "/data")
    choose(page, broken)
    expect(page.get_by_text("The JSON is broken at line 1")).to_be_visible()
    assert page.get_by_text("Traceback").count() == 0


def test_a_mixed_file_is_previewed_imported_and_listed(site: Site, page: Page, sign_in: Callable[..., Page], tmp_path: Path) -> None:
    path = tmp_path / "clinic.jsonl"
    rows = [json.dumps({"question": f"Patient {i}: fever for {i + 1} days, what helps?", "answer": "Rest and drink."}) for i in range(12)]
    path.write_text("\n".join([*rows, "{broken", json.dumps({"question": ""})]))
    worker = site.start("core.worker")
    try:
        sign_in(page, "engineer", "/data")
        choose(page, path)
        expect(page.get_by_text("First rows as they will be stored")).to_be_visible()
        expect(page.get_by_text("Rows that would be refused")).to_be_visible()
        page.get_by_role("button", name="Import", exact=True).click()
        expect(page.get_by_text("The import is running as job")).to_be_visible()
        page.get_by_role("link", name="Watch it").click()
        expect(page.get_by_text("succeeded").first).to_be_visible(timeout=60_000)
    finally:
        stop(worker)
    page.goto("/data")
    page.get_by_role("tab", name="Refused rows").click()
    expect(page.get_by_role("button", name="Download all refused rows (JSONL)")).to_be_visible()
