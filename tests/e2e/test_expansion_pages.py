"""The Query expansion page in a real browser: from a step's link to its form, two models side by side, an instruction put in force."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.expansion import prompts, sets
from core.expansion.schema import Line, Row
from core.models import register_version
from core.records import VersionKind
from db.engine import write_session
from tests.e2e.conftest import Site
from tests.e2e.test_expansion_data import calm, picture
from tests.pages.test_expansion_page import stored

pytestmark = pytest.mark.browser


def test_steps_lead_to_forms_that_offer_the_sets_and_an_instruction_is_put_in_force(
    site: Site, new_page: Callable[..., Page], sign_in: Callable[..., Page]
) -> None:
    with site.database() as home:
        stored(home)
        sets.store("clinic-rows", [Row("gout", (Line("lex", "gout urate"), Line("vec", "how is gout treated")))], source="t", by=None)
        with write_session() as session:
            register_version(session, name="x-model", kind=VersionKind.EXTERNAL, task="expansion", manifest={"key_variable": ""})
        scores = {"before": 0.5, "after": 0.7, "difference": 0.2, "low": 0.1, "high": 0.3, "num_heldout": 24}
        prompts.keep("Write good lines.", origin="search", model="x-model", scores=scores, job_id=None)
    page = new_page()
    sign_in(page, "engineer", "/expansion")
    calm(page)
    page.get_by_role("tab", name="Side by side", exact=True).click()
    expect(page.get_by_text("Valid lines").last).to_be_visible()
    picture(page, "compare")
    page.get_by_role("tab", name="Instructions", exact=True).click()
    expect(page.get_by_text("Instruction 1 for x-model")).to_be_visible()
    page.get_by_role("button", name="Put in force").click()
    page.locator(".st-key-xp_reason_1 input").fill("better on 24 queries")
    page.locator(".st-key-xp_reason_1 input").press("Enter")
    page.locator(".st-key-xp_use_1 button").click()
    expect(page.get_by_text("x-model is asked by this instruction from now on.")).to_be_visible()
    picture(page, "instructions")
    page.get_by_role("tab", name="Trainings", exact=True).click()
    page.get_by_test_id("stPageLink").filter(has_text="Query expansion: SFT", visible=True).first.locator("a").click()
    page.locator(".st-key-jobs_new_expansion_sft_0_data input").click()
    expect(page.get_by_role("option", name="clinic-rows")).to_be_visible()
    with site.database():
        assert prompts.current("x-model") == "Write good lines."
