"""Signing in, switching language and theme, and being signed out, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from core import accounts
from tests.e2e.conftest import ROLES, Site

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("role", ROLES)
def test_every_role_signs_in(page: Page, sign_in: Callable[..., Page], role: str) -> None:
    sign_in(page, role)
    expect(page.locator("[data-testid='stMain'] h2").first).to_have_text(re.compile("Home|首页"))


def test_a_wrong_password_says_so_and_what_next(site: Site, page: Page) -> None:
    page.goto("/jobs?job=3")
    assert page.url.startswith(f"{site.url}/login?next=")
    page.fill("#username", "engineer")
    page.fill("#password", "not this one")
    page.click("button")
    expect(page.get_by_role("alert")).to_contain_text("do not match")


def test_language_and_theme_are_switched_on_the_page_and_remembered(new_page: Callable[..., Page], sign_in: Callable[..., Page]) -> None:
    page = sign_in(new_page(), "product")
    page.locator(".st-key-user_menu button").first.click()
    page.get_by_text("中文", exact=True).click()
    expect(page.locator("[data-testid='stMain'] h2").first).to_have_text("首页")
    page.get_by_text("深色", exact=True).click()
    dark = "rgb(18, 25, 28)"
    expect(page.locator("[data-testid='stApp']")).to_have_css("background-color", dark)
    again = sign_in(new_page(), "product", "/ask")  # another browser, another path
    expect(again.locator("[data-testid='stApp']")).to_have_css("background-color", dark)


def test_a_revoked_sign_in_closes_the_open_page(site: Site, page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in(page, "clinician")
    with site.database():
        admin = accounts.person_for_token(accounts.open_session(accounts.find_user("admin"), "test"))
        assert admin is not None
        for session in accounts.sign_ins(accounts.find_user("clinician")):
            accounts.sign_out(session.id, admin)
    page.wait_for_url("**/login", timeout=15_000)


def test_signing_out_from_the_menu(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in(page, "engineer")
    page.locator(".st-key-user_menu button").first.click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login", timeout=15_000)
