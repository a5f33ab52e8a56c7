"""The bench in a real browser: two versions at a fake endpoint, compared blind and voted on by keyboard only."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import FrameLocator, Page, expect
from sqlalchemy import func, select

from core import accounts
from core.models import add_external
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.bench.fake_endpoint import FakeEndpoint, serving
from tests.e2e.conftest import PASSWORD, Site

pytestmark = pytest.mark.browser

NAMES = ("good-1", "bad-1", "hang-1", "hang-2", "down")


@pytest.fixture(scope="module")
def endpoint(site: Site) -> Iterator[FakeEndpoint]:
    """Five external versions on one fake endpoint, registered through the public door, and one question set."""
    with serving() as found:
        with site.database():
            with write_session() as session:
                engineer = session.scalars(select(t.User.id).where(t.User.username == "engineer")).one()
                owner = factories.dataset(session, name="emergency")
                for text in ("Chest pain with cold sweat for an hour, can I take aspirin?", "Crushing chest pain, what should I do?"):
                    factories.sample(session, text, dataset=owner)
            for name in NAMES:
                add_external(engineer, name=name, url=found.base, model=name, key_variable="")
        yield found


def count(site: Site, table: type, *where: object) -> int:
    with site.database(), read_session() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0  # type: ignore[arg-type]


def choose(frame: FrameLocator, first: str, second: str) -> None:
    for elem_id, name in (("bench-first", first), ("bench-second", second)):
        box = frame.locator(f"#{elem_id} input")
        box.click()
        box.fill(name)
        frame.get_by_role("option", name=re.compile(rf"^{name} ")).click()
        expect(frame.get_by_role("option")).to_have_count(0)  # the list fades out


def open_bench(page: Page, sign_in: Callable[..., Page], who: str = "product") -> FrameLocator:
    sign_in(page, who, "/bench")
    frame = page.frame_locator("iframe[src*='arena']")
    expect(frame.locator("#bench-run")).to_be_visible()
    expect(frame.locator("#bench-first input")).not_to_have_value("")
    return frame


def test_the_first_visit_begins_with_the_tour_and_the_next_does_not(site: Site, page: Page, sign_in: Callable[..., Page]) -> None:
    with site.database():
        user_id = accounts.create_user("newcomer", "Dr New", "product", by=None)
        accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
    sign_in(page, "newcomer", "/bench")
    page.get_by_role("dialog").get_by_role("button", name="Skip").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("radiogroup").first).to_be_visible()
    page.wait_for_timeout(600)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_compare_and_vote_by_keyboard_names_come_after(
    site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]
) -> None:
    frame = open_bench(page, sign_in)
    choose(frame, "good-1", "bad-1")
    before = count(site, t.BenchVote)
    frame.locator("#bench-next").click()
    expect(frame.locator("#bench-question textarea")).not_to_have_value("")
    frame.locator("#bench-run").click()
    expect(frame.locator("#vote-1")).to_be_enabled()
    board = frame.locator("#bench-answers").inner_html()
    for secret in ("good-1", "bad-1", "secret-of", "Thinking", " s<"):
        assert secret not in board
    expect(frame.locator(".bench-notice.bad").first).to_contain_text("no emergency advice")
    expect(frame.locator(".bench-notice.good")).to_contain_text("emergency advice present")
    time.sleep(0.6)  # keys sleep for 400 ms after the votes open
    page.keyboard.press("3")
    expect(frame.locator(".bench-stats")).to_be_visible()
    heads = frame.locator("#bench-answers .bench-head b")
    expect(heads.nth(1)).to_have_text(re.compile(r"^Answer A = (good|bad)-1$"))
    assert count(site, t.BenchVote) == before + 1
    page.keyboard.press("1")  # a second preference: the button is closed, nothing is stored
    time.sleep(0.5)
    assert count(site, t.BenchVote) == before + 1
    page.keyboard.press("t")
    expect(frame.locator("details[open]")).to_have_count(2)
    page.keyboard.press("Enter")
    expect(frame.locator(".bench-stats")).to_have_count(0)
    expect(frame.locator("#vote-1")).to_be_enabled()


def test_digits_typed_into_a_question_are_no_votes_and_unsafe_files_a_case(
    site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]
) -> None:
    frame = open_bench(page, sign_in)
    choose(frame, "good-1", "bad-1")
    question = frame.locator("#bench-question textarea")
    question.fill("Sudden chest pain and cold sweat")
    frame.locator("#bench-run").click()
    expect(frame.locator("#vote-5")).to_be_enabled()
    time.sleep(0.6)
    votes, cases = count(site, t.BenchVote), count(site, t.SafetyCase)
    question.click()
    page.keyboard.type(" 1234567")
    time.sleep(0.5)
    assert count(site, t.BenchVote) == votes
    page.keyboard.press("Escape")
    page.keyboard.press("7")
    expect(frame.locator("#bench-status")).to_contain_text("safety case")
    assert count(site, t.BenchVote) == votes + 1
    assert count(site, t.SafetyCase) == cases + 2
    assert count(site, t.Conflict, t.Conflict.kind == "bench_safety") >= 2


def test_a_side_that_fails_is_shown_and_nobody_wins(site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]) -> None:
    frame = open_bench(page, sign_in, "engineer")
    choose(frame, "good-1", "down")
    frame.locator("#bench-next").click()
    expect(frame.locator("#bench-question textarea")).not_to_have_value("")
    frame.locator("#bench-run").click()
    expect(frame.locator("#bench-answers .bench-error")).to_contain_text("error 500")
    expect(frame.locator("#bench-status")).to_contain_text("void")
    expect(frame.locator("#vote-1")).to_be_disabled()
    assert "secret trace" not in frame.locator("body").inner_html()


def test_leaving_the_page_ends_both_streams_and_voids_the_pair(
    site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]
) -> None:
    frame = open_bench(page, sign_in)
    choose(frame, "hang-1", "hang-2")
    frame.locator("#bench-next").click()
    expect(frame.locator("#bench-question textarea")).not_to_have_value("")
    closed, completions, left = endpoint.num_closed, count(site, t.Completion), count(site, t.BenchPair, t.BenchPair.void_reason == "left")
    frame.locator("#bench-run").click()
    expect(frame.locator(".bench-answer").first).to_contain_text("Rest at home")
    page.close()
    deadline = time.monotonic() + 20
    while endpoint.num_closed < closed + 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert endpoint.num_closed == closed + 2
    deadline = time.monotonic() + 10
    while count(site, t.BenchPair, t.BenchPair.void_reason == "left") == left and time.monotonic() < deadline:
        time.sleep(0.2)
    assert count(site, t.BenchPair, t.BenchPair.void_reason == "left") == left + 1
    assert count(site, t.BenchPair, t.BenchPair.status == "streaming") == 0
    assert count(site, t.Completion) == completions  # nothing of a half answer is kept


def test_two_people_compare_at_once_and_see_only_their_own(
    site: Site, endpoint: FakeEndpoint, new_page: Callable[..., Page], sign_in: Callable[..., Page]
) -> None:
    frames = {}
    for who, text in (("product", "Chest pain of the product manager"), ("engineer", "Chest pain of the engineer")):
        frames[who] = open_bench(new_page(), sign_in, who)
        choose(frames[who], "good-1", "bad-1")
        frames[who].locator("#bench-question textarea").fill(text)
    for frame in frames.values():
        frame.locator("#bench-run").click()
    for who, frame in frames.items():
        expect(frame.locator("#vote-4")).to_be_enabled()
        assert f"of the {who}" in frame.locator("#bench-question textarea").input_value().replace("product manager", "product")
    frames["product"].locator("#vote-4").click()
    expect(frames["product"].locator(".bench-stats")).to_be_visible()
    expect(frames["engineer"].locator(".bench-stats")).to_have_count(0)
    expect(frames["engineer"].locator("#vote-4")).to_be_enabled()


def test_chinese_and_dark_on_a_phone(
    site: Site, endpoint: FakeEndpoint, new_page: Callable[..., Page], sign_in: Callable[..., Page]
) -> None:
    page = new_page(width=390, height=844, color_scheme="dark")
    sign_in(page, "product", "/")
    page.goto("/arena/?lang=zh&__theme=dark")
    expect(page.locator("#bench-run")).to_have_text("开始对比")
    expect(page.locator("#vote-3")).to_have_text("3 · 相当")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 25, 28)"
    assert "Source Sans 3" in page.evaluate("getComputedStyle(document.querySelector('#bench-run')).fontFamily")


def test_the_arena_is_closed_to_strangers_and_clinicians(
    site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]
) -> None:
    for path in ("/arena/", "/arena/config", "/arena/gradio_api/info", "/arena/gradio_api/startup-events"):
        answer = httpx.get(site.url + path, headers={"X-Auth-User": "admin", "X-Auth-Session": "1"}, trust_env=False)
        assert answer.status_code in (303, 307, 401), path
    sign_in(page, "clinician", "/")
    assert page.goto("/arena/") is not None
    expect(page.locator("#bench-run")).to_have_count(0)
    status = page.evaluate("fetch('/arena/config').then(r => r.status)")
    assert status == 403


def test_no_named_endpoint_is_offered(site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in(page, "product", "/")
    info = page.evaluate("fetch('/arena/gradio_api/info').then(r => r.json())")
    assert info["named_endpoints"] == {}
