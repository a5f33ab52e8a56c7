"""Ask a question in a real browser: example, own question, passages with sources, nothing leaves the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.settings import ROOT
from tests.e2e.conftest import Site

pytestmark = pytest.mark.browser


def build_index(site: Site) -> None:
    run = site.root / "runs" / "by-hand"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({}))
    subprocess.run([sys.executable, "-m", "training.index", "--run-dir", str(run)], cwd=ROOT, env=site.environment, check=True)


def picture(page: Page, name: str) -> None:
    """Keep what was seen when CONSILIUM_PICTURES names a folder."""
    if folder := os.environ.get("CONSILIUM_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_ask_an_example_and_an_own_question(site: Site, new_page: Callable[..., Page], sign_in: Callable[..., Page]) -> None:
    build_index(site)
    page = sign_in(new_page(), "clinician", "/ask")
    page.get_by_role("button", name="Which danger signs of a burn need an ambulance?").click()
    answer = page.locator(".ask-text.answer").first
    expect(answer).to_contain_text("Burn on the face: airway and eyes in danger. Call 120", timeout=30_000)
    expect(page.get_by_text("no model wrote this")).to_be_visible()
    expect(page.get_by_text("Source: NHS, Burns and scalds").first).to_be_visible()
    assert page.locator("mark").count() > 3
    picture(page, "ask-en")
    page.get_by_role("textbox").fill("<img src=x>急性青光眼有哪些危险信号？")
    page.get_by_role("textbox").press("Control+Enter")
    expect(answer).to_contain_text("视力骤降", timeout=30_000)
    assert page.locator("[data-testid='stMain'] img").count() == 0
    picture(page, "ask-zh-question")


def test_an_unanswerable_question_on_a_narrow_dark_screen(site: Site, new_page: Callable[..., Page], sign_in: Callable[..., Page]) -> None:
    build_index(site)
    page = sign_in(new_page(width=390, height=844, color_scheme="dark"), "product", "/ask")
    page.get_by_role("textbox").fill("How do I bake sourdough bread?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("hold no clear answer")).to_be_visible(timeout=30_000)
    picture(page, "ask-dark-narrow")
