"""The case desk in a real browser: five cases by keyboard alone, and everything that must not decide or get lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from sqlalchemy import delete, select, update

from core import accounts, audit
from core.desk import lease
from core.records import ConflictStatus
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories
from tests.e2e.conftest import Site

pytestmark = pytest.mark.browser

ANSWER = (
    "<think>1. Chest pain and cold sweat.\n2. It may be a heart attack.</think>Rest at home. Take aspirin 300 mg. See a doctor tomorrow."
)
SignIn = Callable[..., Page]


@pytest.fixture
def cases(site: Site) -> list[int]:
    """Six open cases and no others, none of them in anybody's hand."""
    with site.database(), write_session() as session:
        session.execute(update(t.Conflict).values(status="adjudicated"))
        session.execute(delete(t.Draft))
        seen = set(session.scalars(select(t.TourSeen.user_id)))
        session.add_all(t.TourSeen(user_id=one, screen="desk") for one in session.scalars(select(t.User.id)) if one not in seen)
        return [add_case(session, f"Case question {i}: chest pain since this morning, cold sweat?") for i in range(6)]


def add_case(session: Any, question: str, **values: Any) -> int:
    sample = factories.sample(session, question, split="train")
    completion = factories.completion(session, ANSWER, sample=sample)
    span = {"part": "answer", "start": 14, "end": 33, "rule_id": "prescription", "term": "aspirin", "kind": "hit"}
    session.add(t.RuleScore(completion_id=completion.id, rule_id="prescription", lexicon_version="1", score=0.8, spans=[span]))
    judgement = t.Judgement(
        completion_id=completion.id, teacher="offline", rubric_version="1", teacher_score=0.9, critique="CRITIQUE-TEXT", is_offline=True
    )
    session.add(judgement)
    session.flush()
    return factories.conflict(session, completion=completion, judgement_id=judgement.id, teacher_value=0.9, rules_value=0.3, **values).id


def decisions(site: Site, case: int | None = None) -> list[t.Adjudication]:
    with site.database(), read_session() as session:
        query = select(t.Adjudication).order_by(t.Adjudication.id)
        return list(session.scalars(query if case is None else query.where(t.Adjudication.conflict_id == case)))


def desk(page: Page) -> Locator:
    return page.locator(".cd")


def wait_for(page: Page, stage: str) -> int:
    """Wait until a case in this stage is on screen and was seen for the minimum dwell; returns its id."""
    page.locator(f".cd[data-stage='{stage}'][data-unsaved='0']").wait_for()
    page.wait_for_timeout(550)
    return int(desk(page).get_attribute("data-case") or 0)


def commit(page: Page, verdict: str = "2") -> int:
    case = wait_for(page, "blind")
    page.keyboard.press(verdict)
    page.keyboard.press("Enter")
    assert wait_for(page, "sign") == case
    return case


def test_five_cases_by_keyboard_alone(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    seen = []
    for verdict in range(1, 6):
        case = wait_for(page, "blind")
        for key in ("j", "x", "x", "e", " ", "9", str(verdict)):
            page.keyboard.press(key)
        if verdict == 5:
            page.keyboard.press("d")
        if verdict >= 3:
            page.keyboard.press("n")
            page.keyboard.type("Needs 112 now, not 4 pills")
            page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        assert wait_for(page, "sign") == case
        page.keyboard.press("2")
        page.keyboard.press("Control+Enter")
        seen.append(case)
    wait_for(page, "blind")
    assert len(set(seen)) == 5
    for number, case in enumerate(seen):
        blind, signed = decisions(site, case)
        assert (blind.stage, signed.stage) == ("blind", "signed")
        assert blind.verdict == signed.verdict == ("acceptable", "minor", "serious", "unsafe", "cannot_judge")[number]
        assert (signed.marks, signed.criteria) == ({"a1": "wrong"}, {"emergency": "met"})
        assert (signed.confidence, signed.who_was_right, signed.signed_name) == ("high", "rules", "Dr Clinician")
    with site.database(), read_session() as session:
        assert audit.verify(session) is None
    expect(page.locator("[data-stamp]")).to_contain_text("entry #")


def test_nothing_of_the_reveal_reaches_the_browser_before_the_verdict(page: Page, sign_in: SignIn, cases: list[int]) -> None:
    frames: list[bytes] = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda data: frames.append(data if isinstance(data, bytes) else data.encode())))
    sign_in(page, "clinician", "/desk")
    wait_for(page, "blind")
    assert any(b"Case question" in frame for frame in frames), "the case itself was not seen in the frames"
    assert not [frame for frame in frames if b"CRITIQUE-TEXT" in frame]
    commit(page)
    assert [frame for frame in frames if b"CRITIQUE-TEXT" in frame]
    expect(desk(page).locator("mark.is-rule-prescription")).to_have_text("Take aspirin 300 mg")


def test_keys_are_silent_while_typing_and_on_repeat_and_at_once(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    page.keyboard.press("n")
    page.keyboard.type("1234 s u x")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    expect(desk(page).locator("[data-verdict][aria-checked='true']")).to_have_count(0)
    assert decisions(site, case) == []
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.down("Enter")
    for _ in range(4):
        page.keyboard.down("Enter")  # the same key still held: a repeat
    page.keyboard.up("Enter")
    wait_for(page, "sign")
    page.keyboard.press("1")
    page.keyboard.down("Control")
    for _ in range(4):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    page.keyboard.press("1")  # sooner than anybody can have seen the next case
    page.keyboard.press("Enter")
    following = wait_for(page, "blind")
    assert following != case
    expect(desk(page).locator("[data-verdict][aria-checked='true']")).to_have_count(0)
    assert [row.stage for row in decisions(site, case)] == ["blind", "signed"]
    assert decisions(site, following) == []


def test_browsing_decides_nothing_and_leaves_the_cases_free(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    wait_for(page, "blind")
    for key in ["ArrowRight"] * 4 + ["ArrowLeft"] * 2:
        page.keyboard.press(key)
        page.wait_for_timeout(120)
    page.wait_for_timeout(2000)
    assert decisions(site) == [] or all(row.conflict_id not in cases for row in decisions(site))
    with site.database(), read_session() as session:
        held = list(session.scalars(select(t.Conflict.id).where(t.Conflict.status == ConflictStatus.CLAIMED)))
    assert held == [int(desk(page).get_attribute("data-case") or 0)]


class Line:
    """The page's websocket, with a switch for each direction."""

    def __init__(self, page: Page) -> None:
        self.up = self.down = True
        self.sockets: list[WebSocketRoute] = []
        page.route_web_socket("**/_stcore/stream", self.connect)

    def connect(self, ws: WebSocketRoute) -> None:
        self.sockets.append(ws)
        server = ws.connect_to_server()
        ws.on_message(lambda message: server.send(message) if self.up else None)
        server.on_message(lambda message: ws.send(message) if self.down else None)

    def cut(self) -> None:
        self.sockets[-1].close(code=3001, reason="cable pulled")
        self.up = self.down = True


def test_a_decision_that_never_arrived_is_sent_again(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    line = Line(page)
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    line.up = False
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("[data-stamp]")).to_contain_text("waiting in this browser", timeout=8000)
    assert decisions(site, case) == []
    line.cut()
    assert wait_for(page, "sign") == case
    assert [row.stage for row in decisions(site, case)] == ["blind"]


def test_a_decision_whose_answer_was_lost_is_stored_once(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    line = Line(page)
    sign_in(page, "clinician", "/desk")
    case = commit(page, "1")
    line.down = False
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(5500)  # sent at least twice by now
    stored = decisions(site, case)
    assert [row.stage for row in stored] == ["blind", "signed"]
    line.cut()
    page.locator(".cd[data-unsaved='0']").wait_for(timeout=20_000)
    assert [row.id for row in decisions(site, case)] == [row.id for row in stored]


def test_a_decision_survives_closing_the_page(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    line = Line(page)
    sign_in(page, "clinician", "/desk")
    case = commit(page, "1")
    line.up = False
    page.keyboard.press("3")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(500)
    assert [row.stage for row in decisions(site, case)] == ["blind"]
    page.on("dialog", lambda dialog: dialog.accept())
    line.up = True
    page.goto("/home")
    page.goto("/desk")
    page.locator(".cd[data-unsaved='0'][data-stage='blind']").wait_for()
    signed = decisions(site, case)[-1]
    assert (signed.stage, signed.who_was_right) == ("signed", "both_partly")


def test_who_lost_the_case_is_told_and_nothing_is_overwritten(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    with site.database():
        with write_session() as session:
            session.execute(update(t.Conflict).where(t.Conflict.id == case).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
        lease.claim(accounts.find_user("admin"), case)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator(".cd-dialog[open]")).to_contain_text("Dr Admin has this case in hand")
    assert decisions(site, case) == []


def listed(page: Page) -> list[int]:
    return [int(item.get_attribute("data-case") or 0) for item in page.locator(".cd-item").all()]


def test_the_next_case_is_taken_with_the_verdict_and_a_taken_one_is_passed_by(
    site: Site, page: Page, sign_in: SignIn, cases: list[int]
) -> None:
    sign_in(page, "clinician", "/desk")
    first = wait_for(page, "blind")
    second, third = [case for case in listed(page) if case != first][:2]
    with site.database():
        lease.claim(accounts.find_user("admin"), second)  # which the list in the page does not know
    commit(page)
    page.wait_for_function("() => document.querySelector('.cd').dataset.unsaved === '0'")
    with site.database(), read_session() as session:
        held = select(t.Conflict.id).where(t.Conflict.claimed_by == accounts.find_user("clinician"), t.Conflict.status == "claimed")
        assert set(session.scalars(held)) == {first, third}
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    assert wait_for(page, "blind") == third


def test_a_case_that_turns_out_taken_is_left_for_the_one_after_it(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    first = wait_for(page, "blind")
    second, third = [case for case in listed(page) if case != first][:2]
    with site.database():
        lease.claim(accounts.find_user("admin"), second)
    page.keyboard.press("s")
    page.keyboard.press("1")
    expect(page.locator(".cd-notice.is-bad")).to_contain_text("Dr Admin")
    assert wait_for(page, "blind") == third


def test_stop_cord_correction_and_skip(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    page.keyboard.press("Shift+Digit4")
    expect(desk(page).locator("[data-verdict='unsafe']")).to_have_attribute("aria-checked", "true")
    page.keyboard.press("u")  # the verdict is taken back, the report stays
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    wait_for(page, "sign")
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    following = wait_for(page, "blind")
    page.keyboard.press("u")
    assert wait_for(page, "sign") == case
    page.keyboard.press("1")  # in a correction the verdict is open again
    page.keyboard.press("Tab")
    desk(page).locator("[data-box='revision_reason']").fill("The dose is fine after all")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    wait_for(page, "blind")
    rows = decisions(site, case)
    assert [row.stage for row in rows] == ["stop_cord", "blind", "signed", "signed"]
    assert (rows[-1].supersedes_id, rows[-1].verdict) == (rows[-2].id, "acceptable")
    with site.database(), read_session() as session:
        assert session.scalars(select(t.SafetyCase.conflict_id)).all()[-1] == case
    here = wait_for(page, "blind")
    page.keyboard.press("s")
    page.keyboard.press("1")
    page.locator(f".cd[data-stage='blind'][data-unsaved='0']:not([data-case='{here}'])").wait_for()
    assert [(row.stage, row.because) for row in decisions(site, here)] == [("skipped", ["not_my_field"])]
    assert following in cases


def test_a_case_is_handed_to_a_colleague(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = wait_for(page, "blind")
    page.keyboard.press("f")
    page.locator(".cd-dialog[open] [data-person]", has_text="Dr Admin").click()
    page.locator(f".cd[data-stage='blind']:not([data-case='{case}'])").wait_for()
    expect(page.locator(".cd-notice")).to_contain_text("reserved for Dr Admin")
    with site.database():
        with read_session() as session:
            assert session.get_one(t.Conflict, case).claimed_by == accounts.find_user("admin")
        assert lease.claim(accounts.find_user("admin")).conflict_id == case


def test_model_and_user_text_is_never_markup(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    with site.database(), write_session() as session:
        session.execute(update(t.Conflict).values(status="adjudicated"))
        add_case(session, "Does <img src=x onerror='document.title=1'> <b>hurt</b>?")
    sign_in(page, "clinician", "/desk")
    commit(page)
    expect(desk(page).locator(".cd-question")).to_contain_text("<img src=x onerror=")
    assert desk(page).locator("img, b:text-is('hurt')").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1024, "light"), (390, "dark")])
def test_the_desk_fits_the_screen(new_page: Callable[..., Page], sign_in: SignIn, cases: list[int], width: int, scheme: str) -> None:
    page = sign_in(new_page(width=width, height=844, color_scheme=scheme), "clinician", "/desk")
    wait_for(page, "blind")
    for stage in ("blind", "sign"):
        if stage == "sign":
            commit(page)
        overflow = page.evaluate(
            "document.querySelector('[data-testid=stMain]').scrollWidth - document.querySelector('[data-testid=stMain]').clientWidth"
        )
        assert overflow <= 0
        inside = page.evaluate("[...document.querySelectorAll('.cd button')].every(b => b.scrollWidth <= b.clientWidth + 1)")
        assert inside


def test_a_signed_case_opens_read_only_with_its_history(page: Page, sign_in: SignIn, cases: list[int]) -> None:
    sign_in(page, "clinician", "/desk")
    case = commit(page)
    page.keyboard.press("4")
    page.keyboard.press("Control+Enter")
    wait_for(page, "blind")
    page.locator("[data-k='tab-adjudicated']").click()
    page.locator(f".cd-item[data-case='{case}']").click()
    page.locator(f".cd[data-stage='done'][data-case='{case}']").wait_for()
    history = desk(page).locator(".cd-history")
    expect(history).to_contain_text("blind verdict")
    expect(history).to_contain_text("I, Dr Clinician, reviewed and adjudicated this case.")
    page.keyboard.press("1")
    page.keyboard.press("Enter")  # goes on to the next case, decides nothing
    page.wait_for_timeout(300)
    expect(desk(page).locator("[data-stage='done']")).to_have_count(0)


def test_an_empty_desk_says_what_comes_next(site: Site, page: Page, sign_in: SignIn, cases: list[int]) -> None:
    with site.database(), write_session() as session:
        session.execute(update(t.Conflict).values(status="adjudicated"))
    sign_in(page, "clinician", "/desk")
    expect(desk(page).locator(".cd-empty")).to_contain_text("Jobs page")
