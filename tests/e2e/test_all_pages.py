"""Every page, for the role that sees them all: no request leaves the machine, the policy is kept, nothing breaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core.access import SCREENS

pytestmark = pytest.mark.browser

#: a screen that is added is looked at without anybody's thinking of it
PATHS = tuple(screen.url for screen in SCREENS)


@pytest.mark.parametrize(("language", "scheme", "width"), [("en", "light", 1440), ("zh", "dark", 390)])
def test_all_pages_render_and_keep_to_themselves(
    new_page: Callable[..., Page], sign_in: Callable[..., Page], language: str, scheme: str, width: int
) -> None:
    page = sign_in(new_page(width=width, color_scheme=scheme), "admin")
    if language == "zh":
        page.locator(".st-key-user_menu button").first.click()
        page.get_by_text("中文", exact=True).click()
        expect(page.locator("[data-testid='stMain'] h2").first).to_have_text("首页")
    assert len(PATHS) > 15
    for path in PATHS:
        page.goto(f"/{path}")
        app = page.locator("[data-testid='stApp'][data-test-script-state='notRunning']")
        app.wait_for()
        page.locator("[data-testid='stMainBlockContainer'] [data-testid='stVerticalBlock'] > *").nth(2).wait_for(state="attached")
        assert page.locator("[data-testid='stException']").count() == 0, path
        alerts = " ".join(page.locator("[data-testid='stAlert']").all_inner_texts())
        assert not any(bug in alerts for bug in ("went wrong on our side", "系统内部出错")), f"{path}: {alerts}"
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} px too wide at {width}"
