"""When the list of cases travels with an answer, and when the page's own will do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from core.desk import mailbox
from db.base import utc_now
from db.engine import write_session
from tests import factories

pytestmark = pytest.mark.usefixtures("home")
CLAIM = "12345678-claim"


@pytest.fixture
def reader() -> int:
    with write_session() as session:
        return factories.user(session, role="clinician").id


@pytest.fixture
def cases() -> list[int]:
    with write_session() as session:
        return [
            factories.conflict(session, completion=factories.completion(session, sample=factories.sample(session, f"Question {i}?"))).id
            for i in range(6)
        ]


Post = Callable[..., dict[str, Any]]


@pytest.fixture
def post(reader: int, cases: list[int]) -> Post:
    """Send messages with the view of a page that got the list just now, changed as a test says."""
    first = mailbox.deliver(reader, "en")

    def run(*messages: dict[str, Any], **view: Any) -> dict[str, Any]:
        sent = [{"id": f"m{n}", **message} for n, message in enumerate(messages)]
        return mailbox.deliver(
            reader, "en", {"messages": sent, "view": {**first["view"], "listed": first["listed"], "have": cases[:1], **view}}
        )

    return run


def test_a_claim_leaves_the_list_out_and_brings_the_cases_that_come_next(post: Post, cases: list[int]) -> None:
    answer = post({"type": "claim", "case": cases[0], "lease_token": CLAIM}, current=cases[0], ahead=cases[1:4])
    assert answer["acks"][0]["ok"]
    assert "queue" not in answer
    assert [case["id"] for case in answer["cases"]] == cases[1:4]


def test_the_list_comes_when_it_is_asked_for_or_is_another(post: Post, cases: list[int]) -> None:
    claim = {"type": "claim", "case": cases[0], "lease_token": CLAIM}
    assert len(post({"type": "list", "case": 0})["queue"]) == 6
    assert post(claim, status="mine")["view"]["status"] == "mine"
    assert "queue" in post(claim, language="zh")
    assert "queue" in post()


def test_an_old_list_or_one_from_tomorrow_is_sent_again(post: Post, cases: list[int]) -> None:
    claim = {"type": "claim", "case": cases[0], "lease_token": CLAIM}
    listed = post({"type": "list", "case": 0})["listed"]
    for age in (mailbox.LIST_FRESH_S + 1, -60):
        at = (utc_now() - timedelta(seconds=age)).isoformat()
        assert "queue" in post(claim, listed={**listed, "at": at})
    for wrong in ("yesterday", None, "2026-01-01T00:00:00", 5):
        assert "queue" in post(claim, listed={**listed, "at": wrong})
    assert "queue" not in post(claim, listed=listed)


def test_a_refusal_brings_the_list(post: Post) -> None:
    answer = post({"type": "claim", "case": 10**6, "lease_token": CLAIM})
    assert not answer["acks"][0]["ok"]
    assert len(answer["queue"]) == 6


def test_a_claim_in_advance_gets_the_first_free_case_of_those_it_names(post: Post, cases: list[int]) -> None:
    with write_session() as session:
        colleague = factories.user(session, role="clinician").id
    for taken in cases[1:3]:
        mailbox.deliver(
            colleague, "en", {"messages": [{"id": f"c{taken}", "type": "claim", "case": taken, "lease_token": f"colleague-{taken}"}]}
        )
    answer = post({"type": "claim", "case": cases[1], "others": cases[2:5], "lease_token": CLAIM})
    (ack,) = answer["acks"]
    assert (ack["ok"], ack["case"], ack["lease_token"]) == (True, cases[3], CLAIM)
    assert [case["id"] for case in answer["cases"]] == [cases[3]]
    (refused,) = post({"type": "claim", "case": cases[1], "others": [cases[2], "x", None], "lease_token": CLAIM})["acks"]
    assert (refused["ok"], refused["case"], refused["code"]) == (False, cases[1], "desk.claimed_by_other")
