"""The bench's handlers and its HTML, without a browser: who may, in which language, and nothing unescaped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, TypeVar

import gradio as gr
import pytest

from app import bench_view as view
from app.bench import BALLOTS, Bench, build, language_of, person_of
from core import accounts
from core.bench_stream import Frame, Shown
from core.errors import Forbidden, UserError
from core.home import Home
from core.preference import Reveal, RevealedSide
from core.standings import Standings
from db import tables as t
from db.engine import write_session

T = TypeVar("T")


def inside_a_loop(make: Callable[[], T]) -> T:
    """Gradio makes an event loop for its locks when none is running, and never closes it."""

    async def run() -> T:
        return make()

    return asyncio.run(run())


EVIL = '<script>alert(1)</script>\n\n# Heading\n\n<img src=x onerror=alert(2)> "quoted" & $x$ **bold**'


def request(session_id: object = "", lang: str | None = None) -> Any:
    return SimpleNamespace(headers={"x-auth-session": str(session_id)}, query_params={"lang": lang} if lang else {})


def sign_in(role: str, language: str = "en") -> int:
    user = accounts.create_user(role, f"Dr {role.title()}", role, by=None)
    person = accounts.person_for_token(accounts.open_session(user, "test", language))
    assert person is not None
    return person.session_id


class Tags(HTMLParser):
    """Names of all tags, and whether any has an event handler."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize("role", ["product", "engineer", "admin"])
def test_the_roles_of_the_bench_pass(home: Home, role: str) -> None:
    assert person_of(request(sign_in(role))).role == role


def test_everybody_else_does_not(home: Home) -> None:
    with pytest.raises(Forbidden, match="forbidden"):
        person_of(request(sign_in("clinician")))
    for raw in ("", "abc", "9999", "-1", "1 OR 1=1"):
        with pytest.raises(Forbidden, match="signed_out"):
            person_of(request(raw))


def test_a_revoked_sign_in_and_a_disabled_account_end_at_once(home: Home) -> None:
    session_id = sign_in("product")
    person = person_of(request(session_id))
    accounts.sign_out(session_id, person)
    with pytest.raises(Forbidden):
        person_of(request(session_id))
    other = sign_in("engineer")
    with write_session() as session:
        session.get_one(t.User, accounts.person_for_session(other).id).is_active = False  # type: ignore[union-attr]
    with pytest.raises(Forbidden):
        person_of(request(other))


def test_the_address_beats_the_persons_language_and_nonsense_beats_nothing(home: Home) -> None:
    person = accounts.person_for_session(sign_in("product", "zh"))
    assert language_of(request(), person) == "zh"
    assert language_of(request(lang="en"), person) == "en"
    assert language_of(request(lang="fr"), person) == "zh"


def test_every_handler_refuses_a_clinician_with_a_sentence(home: Home) -> None:
    session_id = sign_in("clinician")

    def make() -> Bench:
        with gr.Blocks(analytics_enabled=False):
            return Bench()

    bench = inside_a_loop(make)
    answers = [
        bench.open_page(request(session_id, "en")),
        bench.offer("en", "a", "b", False, False, "demo", "", "", None, request(session_id)),
        *(bench.vote(key, "en", (1, "blind"), [], "", request(session_id)) for key in BALLOTS),
    ]
    for answer in answers:
        assert "bench-error" in answer[bench.status]
        assert bench.totals not in answer


def test_nothing_is_offered_to_programs() -> None:
    page = inside_a_loop(build)
    assert {fn.api_visibility for fn in page.fns.values()} == {"private"}


def test_what_a_model_writes_is_text_and_one_line() -> None:
    side = Shown(EVIL, EVIL, True, 1.0)
    pieces = [*view.columns(Frame(side, Shown("Other.", "", True), "ready", 2.0), "en", names=(EVIL, EVIL))]
    told = RevealedSide(1, EVIL, EVIL, "sft", False, EVIL, 1.0)
    passage = dict.fromkeys(("title", "section", "source", "date", "text"), EVIL)
    pieces += view.told(Reveal(told, replace(told, with_evidence=True, evidence=(passage,))), "zh")
    pieces += [view.rows(Frame(side, Shown("Other <b>x</b>.", "", True), "ready", 2.0), "en")]
    pieces.append(view.problem(UserError("models.no_such_version", name=EVIL), "en"))
    table = Standings(EVIL, EVIL, 1, 2, 0, 0, 0, 0, 3, 3, 3, 0.5, 0.1, 0.9, 0.5, 0.1, 0.9, 191)
    pieces.append(view.statistics(table, "en"))
    for piece in pieces:
        assert piece.startswith("<div")
        assert "\n" not in piece
        tags = Tags(piece)
        assert tags.names <= {"div", "b", "span", "sup", "details", "summary", "code", "i", "u", "s", "p", "br"}
        assert not tags.handlers


def test_sentences_say_whether_the_other_answer_has_them_and_not_by_colour_alone() -> None:
    left = Shown("Call 120 now. Drink water.", "", True)
    right = Shown("Rest at home. Drink water!", "", True)
    ready = view.columns(Frame(left, right, "ready", 1.0), "en")
    assert [part.count('class="only"') for part in ready] == [1, 1]
    for part, mark, text in ((ready[0], "a1", "Call 120 now."), (ready[1], "b1", "Rest at home.")):
        assert f'<span class="only"><sup>{mark}<b class="sign" title="Only this answer says it.">＋</b></sup>{text}' in part
    streaming = view.columns(Frame(left, right, "streaming", 1.0), "en")
    assert not any('class="only"' in part for part in streaming)


def test_what_is_worded_otherwise_names_its_partner_and_underlines_what_differs() -> None:
    left = Shown("Rest. Take two tablets of ibuprofen a day.", "", True)
    right = Shown("Take one tablet of ibuprofen a day. See a doctor.", "", True)
    frame = Frame(left, right, "ready", 1.0)
    first, second = view.columns(frame, "en")
    assert "≈b1" in first
    assert "≈a2" in second
    assert "<u>two</u>" in first
    assert "<u>one</u>" in second
    table = view.rows(frame, "en")
    assert [table.count(f'class="row {kind}"') for kind in ("left", "changed", "right", "same")] == [1, 1, 1, 0]
    assert table.index("Rest.") < table.index("See a doctor.")
    assert view.rows(Frame(left, right, "streaming", 1.0), "en") == ""


def test_the_help_card_names_every_key_in_both_languages() -> None:
    for language in ("en", "zh"):
        card = view.help_card(language)
        assert "\n" not in card
        assert all(f"<kbd>{key}</kbd>" in card for key in ("1-7", "Enter", "N", "T", "D", "F", "V", "B", "H", "Esc"))
