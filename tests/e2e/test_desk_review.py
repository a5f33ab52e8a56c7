"""What stands around a verdict, by keyboard: the tour, evidence and guideline, follow-ups, lists and orders, and the arbiter's keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import delete, select, update

from core import accounts
from core.desk import search
from core.retrieval.chunk import Chunk
from core.retrieval.index import build_index
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories
from tests.e2e.conftest import Site
from tests.e2e.test_desk import SignIn, add_case, cases, decisions, desk, wait_for

pytestmark = pytest.mark.browser
__all__ = ["cases"]

PASSAGE = "Chest pain with cold sweat: call 120 at once and do not wait."


@pytest.fixture
def guidelines(site: Site) -> None:
    """One index of two passages, active."""
    with site.database() as home:
        folder: Path = home.indexes / "guidelines" / "v000003"
        if folder.exists():
            return
        texts = (PASSAGE, "Aspirin 300 mg is given once the heart attack is likely.")
        build_index(
            [Chunk(f"{n}.md", f"Heart {n}", "First steps", "WHO", "2025-01-02", text, 0, len(text)) for n, text in enumerate(texts)],
            folder,
            {"name": "guidelines", "version": 3},
        )
        with write_session() as session:
            session.execute(update(t.SearchIndex).values(is_active=False))
            session.add(t.SearchIndex(name="guidelines", version=3, path=home.relative(folder), is_active=True))


def test_a_verdict_with_evidence_from_question_to_history(
    site: Site, page: Page, sign_in: SignIn, cases: list[int], guidelines: None
) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    page.keyboard.press("i")
    drawer = page.locator(".cd-drawer")
    expect(drawer).to_contain_text(PASSAGE)
    expect(drawer).to_contain_text("WHO · 2025-01-02 · guidelines v3")
    page.keyboard.press("j")  # a1 has no passage, a2 is about aspirin
    page.keyboard.press("j")
    expect(drawer.locator(".cd-passage").first).to_contain_text("Aspirin 300 mg")
    for key in ("1", "x", "4", "Enter", "Control+Enter"):
        page.keyboard.press(key)  # nothing is decided behind the drawer
    page.keyboard.press("q")
    expect(drawer.locator(".cd-passage").first).to_contain_text("call 120")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(drawer.locator(".cd-passage.is-cited")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(desk(page).locator("[data-verdict][aria-checked='true'], .cd-mark")).to_have_count(0)
    assert decisions(site, case) == []
    for key in ("2", "Enter"):
        page.keyboard.press(key)
    wait_for(page, "sign")
    for key in ("1", "Control+Enter"):
        page.keyboard.press(key)
    wait_for(page, "blind")
    blind, signed = decisions(site, case)
    assert [row.evidence[0]["text"] for row in (blind, signed)] == [PASSAGE] * 2
    assert signed.evidence[0]["about"] == "question"
    page.locator("[data-k='tab-adjudicated']").click()
    page.locator(f".cd-item[data-case='{case}']").click()
    page.locator(f".cd[data-stage='done'][data-case='{case}']").wait_for()
    expect(desk(page).locator(".cd-history .cd-cited").first).to_contain_text("Heart 0")


def test_a_guideline_paragraph_is_flagged_from_the_case(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    page.keyboard.press("g")
    page.locator(".cd-paragraph").nth(1).wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("gigs 123: when is it minor?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".cd-notice")).to_contain_text("Flagged")
    with site.database(), read_session() as session:
        (flag,) = session.scalars(select(t.GuidelineFlag).where(t.GuidelineFlag.conflict_id == case))
        assert flag.note == "gigs 123: when is it minor?"
    assert decisions(site, case) == []


def test_a_decision_goes_on_to_the_sets_it_was_named_for(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    for key in ("1", "Enter"):
        page.keyboard.press(key)
    wait_for(page, "sign")
    for key in ("1", "o", "Enter"):
        page.keyboard.press(key)
    expect(desk(page).locator("[data-k='o-gold']")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Control+Enter")
    wait_for(page, "blind")
    page.locator("[data-k='tab-adjudicated']").click()
    page.locator(f".cd-item[data-case='{case}']").click()
    follows = desk(page).locator(".cd-next")
    expect(follows).to_contain_text("Gold set")
    follows.locator("[data-k='follow-teacher_test']").click()
    expect(follows.locator("[data-k='follow-teacher_test']")).to_have_count(0)  # offered no more: the server has it
    expect(follows).to_contain_text("Test of the teacher")
    with site.database(), read_session() as session:
        kinds = list(session.scalars(select(t.FollowUp.kind).where(t.FollowUp.conflict_id == case).order_by(t.FollowUp.id)))
        sample = session.get_one(t.Sample, session.get_one(t.Conflict, case).sample_id)
        assert (kinds, sample.split) == (["gold", "teacher_test"], "gold")


def test_the_tour_comes_once_and_again_from_help(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    with site.database(), write_session() as session:
        session.execute(delete(t.TourSeen))
    sign_in(page, "clinician", "/desk")
    tour = page.locator(".cd-tour[open]")
    expect(tour).to_contain_text("1 of 8")
    for key in ("Enter", "ArrowRight", "ArrowLeft", "2", "Enter", "s"):
        page.keyboard.press(key)
    expect(tour).to_contain_text("3 of 8")
    page.keyboard.press("Escape")
    expect(tour).to_have_count(0)
    assert decisions(site, wait_for(page, "blind")) == []
    page.reload()
    wait_for(page, "blind")
    expect(tour).to_have_count(0)
    page.keyboard.press("h")
    page.locator("[data-k='tour']").press("Enter")
    expect(tour).to_contain_text("1 of 8")


def test_lists_orders_and_search_by_keyboard(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    wait_for(page, "blind")
    with site.database():
        with write_session() as session:  # after the sign-in, so that it is not the case in hand
            wanted = add_case(session, "孩子发烧三天，可以吃布洛芬吗？", gap=0.99)
            session.get_one(t.Sample, session.get_one(t.Conflict, wanted).sample_id).language = "zh"
        search.refresh()
    page.locator("[data-k='order']").select_option("disagreement")
    others = desk(page).locator(".cd-item:not([aria-current='true'])")  # the case in hand stays on top, whatever the order
    expect(others.first).to_have_attribute("data-case", str(wanted))
    box = page.locator("[data-k='search']")
    box.focus()
    page.keyboard.type("布洛芬")
    page.keyboard.press("Enter")
    expect(desk(page).locator(".cd-item")).to_have_count(1)
    wait_for(page, "blind")
    assert desk(page).get_attribute("data-case") == str(wanted)
    page.locator("[data-k='search']").fill("")
    page.keyboard.press("Enter")
    page.locator("[data-k='language']").select_option("en")
    expect(desk(page).locator(".cd-item")).to_have_count(6)


def test_who_lost_a_race_sees_both_texts(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    page.keyboard.press("3")
    page.keyboard.press("n")
    page.keyboard.type("My words about the dose")
    page.keyboard.press("Escape")
    with site.database(), write_session() as session:
        row = t.Adjudication(conflict_id=case, user_id=accounts.find_user("admin"), stage="signed", client_id="other-signature")
        row.verdict, row.note = "minor", "Words of the colleague"
        session.add(row)
        session.execute(
            update(t.Conflict).where(t.Conflict.id == case).values(status="adjudicated", claimed_by=None, version=t.Conflict.version + 1)
        )
    page.keyboard.press("Enter")
    dialog = page.locator(".cd-dialog[open]")
    expect(dialog).to_contain_text("My words about the dose")
    expect(dialog).to_contain_text("Words of the colleague")
    expect(dialog).to_contain_text("Dr Admin")
    with site.database(), read_session() as session:
        draft = session.scalars(select(t.Draft.payload).where(t.Draft.conflict_id == case)).one()
        assert draft["note"] == "My words about the dose"
    assert [row.note for row in decisions(site, case)] == ["Words of the colleague"]


def test_the_arbiter_takes_sides_by_key(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    case = cases[0]
    with site.database(), write_session() as session:
        readers = [factories.user(session, display_name=f"Dr {name}").id for name in ("Wu", "Berg")]
        for user_id, verdict, emergency in zip(readers, ("unsafe", "acceptable"), ("not_met", "met"), strict=True):
            for stage in ("blind", "signed"):
                row = t.Adjudication(conflict_id=case, user_id=user_id, stage=stage, client_id=f"{stage}-{user_id}-{case}")
                row.verdict, row.note, row.criteria = verdict, f"note of {verdict}", {"emergency": emergency}
                session.add(row)
        session.execute(update(t.Conflict).where(t.Conflict.id == case).values(arbitration_at=utc_now(), status="open", overlap=2))
    sign_in(page, "clinician", f"/arbitration?case={case}")
    rows = ("verdict", "emergency")
    taken = {
        row: {side: page.locator(f".st-key-take_{row}_{side} button[kind='primary']:visible") for side in ("A", "B", "own")} for row in rows
    }
    page.get_by_text("differs").first.wait_for()
    for key, row, side in (("a", "verdict", "A"), ("b", "emergency", "B")):  # the next undecided row follows by itself
        page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
        page.wait_for_timeout(500)
        page.keyboard.press(key)
        expect(taken[row][side].first).to_be_visible()
    page.wait_for_timeout(500)
    page.keyboard.press("m")  # the arbiter's own value after all, in the row where the arbiter stands
    expect(taken["emergency"]["own"].first).to_be_visible()
    page.wait_for_timeout(500)
    page.get_by_label("Why (needed)").first.fill("Reader B is right about the emergency signs")
    page.keyboard.press("Control+Enter")
    page.get_by_text("is ruled and signed").wait_for()
    with site.database(), read_session() as session:
        ruling = session.scalars(select(t.Adjudication).where(t.Adjudication.conflict_id == case, t.Adjudication.role == "arbiter")).one()
        assert (ruling.taken["verdict"], ruling.taken["emergency"]) == ("A", "M")
        assert ruling.note.startswith("Reader B")


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_drawer_fits_the_screen(
    new_page: Callable[..., Page], sign_in: SignIn, cases: list[int], guidelines: None, width: int, scheme: str
) -> None:
    page = sign_in(new_page(width=width, height=844, color_scheme=scheme), "clinician", "/desk")
    wait_for(page, "blind")
    for key, content in (("i", ".cd-passage"), ("g", ".cd-paragraph")):
        page.keyboard.press(key)
        page.locator(content).first.wait_for()
        main = "document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{main}.scrollWidth - {main}.clientWidth") <= 0
        assert page.evaluate("[...document.querySelectorAll('.cd-drawer button')].every(b => b.scrollWidth <= b.clientWidth + 1)")
