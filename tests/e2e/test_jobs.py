"""Jobs in a real browser with a real worker: a form that is wrong, a job that fails while one looks on, one that is stopped."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.jobs import views
from tests.e2e.conftest import Site, stop

pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_start_watch_and_stop_jobs(site: Site, page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in(page, "engineer", "/jobs")
    page.get_by_text("Start a job", exact=True).click()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text("Please fill in name.")).to_be_visible()
    page.get_by_role("textbox", name="name *").fill("careful")
    page.get_by_role("textbox", name="name *").press("Tab")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/jobs?job=*")
    number = int(page.url.rpartition("=")[2])
    expect(page.get_by_text("Waiting for a free place")).to_be_visible()
    worker = site.start("core.worker")
    try:
        # nothing is touched from here on: the page follows the job by itself
        expect(page.get_by_role("button", name="Retry")).to_be_visible(timeout=90_000)
        # no base model yet, or, where other tests left a data set, nothing in it to learn from: either is said in a sentence
        expect(page.get_by_role("alert").last).to_contain_text(re.compile("demo|reference answer"))
        page.get_by_role("tab", name="Log").click()
        expect(page.get_by_text("ended with exit code 4")).to_be_visible()

        page.get_by_role("button", name="All jobs").click()
        page.get_by_role("button", name="Run the demo").click()
        expect(page.get_by_text("The demo is queued as 8 jobs.")).to_be_visible()
        page.get_by_role("link", name=f"#{number + 1} Build the demo base model").first.click()
        expect(page.get_by_text("Pretraining:")).to_be_visible(timeout=120_000)
        page.get_by_role("button", name="Stop now").click()
        page.get_by_role("button", name="Yes, stop now").click()
        expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=30_000)
        with site.database():
            assert views.get(number + 1).status == "cancelled"
            assert views.get(number + 2).error["code"] == "jobs.upstream_failed"
    finally:
        stop(worker)
