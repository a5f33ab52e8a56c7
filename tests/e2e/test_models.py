"""Promotion in a real browser: a dialog that is closed stays closed, one that is signed changes who serves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.models import folder_hash, serving_version
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.e2e.conftest import Site

pytestmark = pytest.mark.browser


def test_close_the_dialog_then_sign_it(site: Site, page: Page, sign_in: Callable[..., Page]) -> None:
    with site.database() as home, write_session() as session:
        folder = home.models / "night-1"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        version = factories.version(session, "sft", name="night-1", path=home.relative(folder), content_hash=folder_hash(folder))
        serving = serving_version(session)
        baseline = serving.name if serving else version.name
        one = {"n": 40, "num_unscored": 0, "mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "parts": {}, "slices": []}
        comparison = {"candidate": "night-1", "n": 40, "difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "emergency_regressions": []}
        comparisons = [comparison] if serving else []
        session.add(
            t.Evaluation(name="e", report={"versions": {baseline: one, "night-1": one}, "baseline": baseline, "comparisons": comparisons})
        )
    sign_in(page, "product", "/models?version=night-1")
    promote = page.get_by_role("button", name="Promote night-1")
    promote.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("SHA-256 verified")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_text("Manifest").click()
    expect(dialog).to_have_count(0)

    promote.click()
    dialog.get_by_role("button", name="Sign and promote").click()
    expect(dialog.get_by_role("alert")).to_contain_text("A reason is needed")
    dialog.get_by_label("Reason").fill("steady at night")
    dialog.get_by_label("Signature").fill("Dr Product")
    dialog.get_by_role("button", name="Sign and promote").click()
    expect(page.get_by_text("night-1 is serving now.")).to_be_visible()
    expect(dialog).to_have_count(0)
    with site.database(), read_session() as session:
        now = serving_version(session)
        assert now is not None
        assert now.name == "night-1"
