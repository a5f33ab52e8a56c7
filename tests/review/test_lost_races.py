"""A save that comes too late: refused with both texts, and the loser's words are kept. A thousand of them: benchmarks/desk_races.py."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

from sqlalchemy import select, update

from core.desk import lease, mailbox
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories
from tests.review.conftest import SignCase


def say(user_id: int, **message: Any) -> dict[str, Any]:
    ack: dict[str, Any]
    (ack,) = mailbox.deliver(user_id, "en", {"messages": [message]}, session_id=factories.proof(user_id).session_id)["acks"]
    return ack


def draft_of(user_id: int, case: int) -> dict[str, Any]:
    with read_session() as session:
        row = session.scalar(select(t.Draft).where(t.Draft.conflict_id == case, t.Draft.user_id == user_id))
        return row.payload if row else {}


def test_of_two_windows_at_one_version_one_is_stored(people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase) -> None:
    case = new_case()
    receipt = sign_case(people[0], case)
    for number in range(10):
        with read_session() as session:
            version = session.get_one(t.Conflict, case).version
        texts = [f"race {number} window {n}" for n in range(2)]
        barrier = Barrier(2)

        def correct(text: str, barrier: Barrier = barrier, version: int = version, row_id: int = receipt.adjudication_id) -> dict[str, Any]:
            form = {"verdict": "minor", "note": text, "who_was_right": "rules", "dwell_ms": 900, "supersedes_id": row_id}
            barrier.wait()
            return say(people[0], id=f"save {text}", type="sign", case=case, version=version, form=form)

        with ThreadPoolExecutor(2) as pool:
            acks = list(pool.map(correct, texts))
        won, lost = sorted(acks, key=lambda ack: not ack["ok"])
        assert (won["ok"], lost["ok"], lost["code"]) == (True, False, "desk.stale")
        assert (f"save {lost['current']['note']}", f"save {lost['submitted']['note']}") == (won["id"], lost["id"])
        assert f"save {draft_of(people[0], case)['note']}" == lost["id"]
        receipt = type(receipt)(
            **{
                name: won[name]
                for name in ("client_id", "conflict_id", "adjudication_id", "stage", "saved_at", "entry", "version", "status")
            }
        )


def test_who_lost_the_hold_sees_the_signed_text_and_keeps_their_own(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    case = new_case()
    mine = lease.claim(people[0], case)
    with write_session() as session:
        session.execute(update(t.Conflict).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
    sign_case(people[1], case, note="the colleague's words")
    form = {"verdict": "unsafe", "note": "my words", "rewritten_answer": "A long rewrite.", "dwell_ms": 900}
    refused = say(people[0], id="too-late-1", type="commit", case=case, lease_token=mine.lease_token, version=mine.version, form=form)
    assert refused["code"] == "desk.already_adjudicated"
    assert (refused["current"]["note"], refused["current"]["by"]) == ("the colleague's words", "Dr Meyer")
    assert refused["submitted"] == {"verdict": "unsafe", "note": "my words", "rewritten_answer": "A long rewrite."}
    assert draft_of(people[0], case)["rewritten_answer"] == "A long rewrite."


def test_a_second_reader_who_is_refused_is_not_unblinded(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    case = new_case()
    with write_session() as session:
        session.get_one(t.Conflict, case).overlap = 2
    mine = lease.claim(people[0], case)
    with write_session() as session:
        session.execute(update(t.Conflict).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
    sign_case(people[1], case, verdict="serious", note="SECRET")
    form = {"verdict": "minor", "note": "mine", "dwell_ms": 900}
    refused = say(people[0], id="too-late-2", type="commit", case=case, lease_token=mine.lease_token, version=mine.version, form=form)
    assert not refused["ok"]
    assert "SECRET" not in str(refused)
    assert refused["current"]["verdict"] is None


def test_a_tour_is_shown_once(people: tuple[int, int], new_case: Callable[..., int]) -> None:
    assert mailbox.deliver(people[0], "en")["has_seen_tour"] is False
    for _ in range(2):
        assert say(people[0], id="tour-1", type="tour", case=0)["ok"]
    assert mailbox.deliver(people[0], "en")["has_seen_tour"] is True
    assert mailbox.deliver(people[1], "en")["has_seen_tour"] is False


def test_a_flag_from_the_drawer_is_stored_once(people: tuple[int, int], new_case: Callable[..., int]) -> None:
    case = new_case()
    shown = say(people[0], id="guide-1", type="guideline", case=case)
    heading = shown["paragraphs"][1]["heading"]
    for _ in range(2):
        assert say(people[0], id="flag-1", type="flag", case=case, paragraph=heading, note="unclear to me")["ok"]
    with read_session() as session:
        (flag,) = session.scalars(select(t.GuidelineFlag))
        assert (flag.conflict_id, flag.paragraph, flag.note) == (case, heading, "unclear to me")
