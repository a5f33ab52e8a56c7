"""axe-core: no serious or critical violation of WCAG 2.2 AA.

Every screen wide in light English and narrow in dark Chinese; desk and bench in the other two combinations as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Frame, Page, expect
from sqlalchemy import select

from db import tables as t
from db.engine import write_session
from tests import factories
from tests.e2e.conftest import Site
from tests.e2e.test_all_pages import PATHS
from tests.e2e.test_desk import cases as cases

pytestmark = pytest.mark.browser

SCRIPT = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
GRAVE = ("serious", "critical")


@pytest.fixture
def versions(site: Site) -> None:
    """Two versions at an address where nobody answers: without two the bench shows only a sentence."""
    with site.database(), write_session() as session:
        for name in ("axe-1", "axe-2"):
            if session.scalar(select(t.ModelVersion.id).where(t.ModelVersion.name == name)) is None:
                factories.version(session, "external", name=name, endpoint_url="http://127.0.0.1:9/v1", endpoint_model=name)


def violations(frame: Frame) -> Iterator[str]:
    """What axe finds in one frame, a line per rule with the elements that break it."""
    frame.wait_for_timeout(400)  # styles that came with the last run are in force
    frame.evaluate(SCRIPT)
    found = frame.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}, resultTypes: ['violations'], iframes: false})", RULES
    )
    for violation in found["violations"]:
        if violation["impact"] in GRAVE:
            nodes = " | ".join(node["html"][:160] + " :: " + (node.get("failureSummary") or "")[:200] for node in violation["nodes"][:3])
            yield f"{violation['id']} ({violation['impact']}, {len(violation['nodes'])}): {nodes}"


@pytest.mark.parametrize(
    ("language", "scheme", "width", "paths"),
    [
        pytest.param("en", "light", 1440, PATHS, id="en-light-wide"),
        pytest.param("zh", "dark", 390, PATHS, id="zh-dark-narrow"),
        pytest.param("en", "dark", 390, ("bench",), id="en-dark-narrow"),
        pytest.param("zh", "light", 1440, ("bench",), id="zh-light-wide"),
    ],
)
def test_no_serious_violation(
    new_page: Callable[..., Page], sign_in: Callable[..., Page], site: Site, cases: list[int], versions: None,
    language: str, scheme: str, width: int, paths: tuple[str, ...],
) -> None:  # fmt: skip
    broken = []
    page = sign_in(new_page(width=width, color_scheme=scheme), "admin")
    if language == "zh":
        page.locator(".st-key-user_menu button").first.click()
        page.get_by_text("中文", exact=True).click()
        expect(page.locator("[data-testid='stMain'] h2").first).to_have_text("首页")
    for path in paths:
        if path == "desk":
            continue
        page.goto(f"/{path}")
        page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
        page.locator("[data-testid='stMainBlockContainer'] [data-testid='stVerticalBlock'] > *").nth(2).wait_for(state="attached")
        broken += [f"/{path} {line}" for line in violations(page.main_frame)]
        if path == "bench":
            page.frame_locator("iframe[src*='arena']").locator("#bench-run").wait_for()
            broken += [f"/{path} (frame) {line}" for frame in page.frames[1:] if "arena" in frame.url for line in violations(frame)]
    doctor = sign_in(new_page(width=width, color_scheme=scheme), "clinician", "/desk")
    doctor.locator(".cd[data-stage='blind']").wait_for()
    broken += [f"/desk tour {line}" for line in violations(doctor.main_frame)]
    doctor.keyboard.press("Escape")
    doctor.wait_for_timeout(600)
    broken += [f"/desk blind {line}" for line in violations(doctor.main_frame)]
    doctor.keyboard.press("2")
    doctor.keyboard.press("Enter")
    doctor.locator(".cd[data-stage='sign']").wait_for()
    broken += [f"/desk reveal {line}" for line in violations(doctor.main_frame)]
    assert not broken, "\n".join(dict.fromkeys(broken))
