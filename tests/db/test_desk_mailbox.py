"""The conversation between page and server: what is sent before a verdict, after it, and what a bad message does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from core.desk import queue as desk_queue
from core.desk.mailbox import NUM_AHEAD, deliver, strings
from core.errors import Forbidden
from core.home import Home
from db import tables as t
from db.engine import read_session, write_session
from tests import factories

#: Words of the second step. None may be a key, or part of one, in anything sent before the verdict.
SECRET_KEYS = (
    "teacher",
    "rule",
    "gap",
    "kind",
    "score",
    "judge",
    "advice",
    "critique",
    "reward",
    "priority",
    "reference",
    "suggest",
    "dropped",
)
SECRETS = ("CRITIQUE-TEXT", "ADVICE-TEXT", "REFERENCE-TEXT", "SUGGESTED-TEXT", "secret-teacher", "LEXICON-9", "0.7654321", "model-name")


@pytest.fixture
def chen(home: Home) -> int:
    with write_session() as session:
        return factories.user(session, display_name="Dr Chen").id


def make_case(text: str = "Chest pain since this morning?", **values: Any) -> int:
    """A case with everything that must stay secret."""
    with write_session() as session:
        sample = factories.sample(session, text, reference="REFERENCE-TEXT", meta={"key_points": ["REFERENCE-TEXT"]})
        number = sample.id
        version = factories.version(session, name=f"model-name-{number}", is_toy=True)
        answer = "<think>🙂 It may be a heart attack.</think>🙂 Rest now. Call 120 if it gets worse."
        completion = factories.completion(session, answer, sample=sample, model_version_id=version.id)
        span = {"part": "answer", "start": 2, "end": 6, "rule_id": "prescription", "term": "rest", "kind": "hit"}
        session.add(
            t.RuleScore(completion_id=completion.id, rule_id="prescription", lexicon_version="LEXICON-9", score=0.7654321, spans=[span])
        )
        judgement = t.Judgement(
            completion_id=completion.id,
            teacher="secret-teacher",
            rubric_version="r1",
            teacher_score=0.7654321,
            safety_flag=True,
            critique="CRITIQUE-TEXT",
            suggested_answer="SUGGESTED-TEXT",
        )
        session.add(judgement)
        session.flush()
        values = {"gap": 0.7654321, "teacher_value": 0.7654321, "judgement_id": judgement.id, "advice": "ADVICE-TEXT", **values}
        return factories.conflict(session, completion=completion, **values).id


def post(user_id: int, *messages: dict[str, Any], **view: Any) -> dict[str, Any]:
    posted = {"messages": [{"id": f"client-{i}", **m} for i, m in enumerate(messages)], "view": view}
    return deliver(user_id, "en", posted, session_id=factories.proof(user_id).session_id)


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in keys_of(item)}
    return {key for item in value for key in keys_of(item)} if isinstance(value, list) else set()


def assert_blind(reply: dict[str, Any]) -> None:
    shown = {key: value for key, value in reply.items() if key not in ("strings", "strings_version")}
    assert shown["reveals"] == []
    leaked = {key for key in keys_of(shown) - {"reveals"} for word in SECRET_KEYS if word in key.lower()}
    assert not leaked
    text = json.dumps(shown, ensure_ascii=False)
    assert [secret for secret in SECRETS if secret in text] == []


ORDERS = st.sampled_from(desk_queue.ORDERS)
FILTERS = st.sampled_from(desk_queue.FILTERS)
KINDS = st.lists(st.sampled_from(["claim", "look", "draft", "heartbeat", "release", "list", "colleagues", "sign"]), max_size=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=ORDERS, status=FILTERS, language=st.sampled_from([None, "en", "zh"]), kinds=KINDS, data=st.data())
def test_nothing_about_scores_is_sent_before_the_blind_verdict(
    chen: int, order: str, status: str, language: str | None, kinds: list[str], data: st.DataObject
) -> None:
    with read_session() as session:
        known = {row["id"] for row in desk_queue.queue(session, chen)}
    cases = sorted(known) or [
        make_case("Chest pain?"),
        make_case("Fever in a child?", kind="control"),
        make_case("Rash?", kind="safety_disagreement"),
    ]
    messages = [
        {"type": kind, "case": data.draw(st.sampled_from(cases)), "lease_token": "window-one", "form": {"note": "n"}} for kind in kinds
    ]
    assert_blind(post(chen, *messages, order=order, status=status, language=language, current=cases[0]))


def test_the_reveal_comes_with_the_commit_and_to_nobody_else(chen: int) -> None:
    case = make_case()
    with write_session() as session:
        meyer = factories.user(session).id
    claim = post(chen, {"type": "claim", "case": case, "lease_token": "window-one"})
    assert_blind(claim)
    (ack,) = claim["acks"]
    form = {"verdict": "minor", "dwell_ms": 800}
    reply = post(chen, {"type": "commit", "case": case, "lease_token": "window-one", "version": ack["version"], "form": form})
    (reveal,) = reply["reveals"]
    assert reveal["teacher"]["critique"] == "CRITIQUE-TEXT"
    assert reveal["rules"][0]["score"] == 0.7654321
    assert reveal["own"]["verdict"] == "minor"
    assert_blind(post(meyer, {"type": "look", "case": case}, {"type": "claim", "case": case, "lease_token": "window-two"}))


def test_evidence_is_cut_by_code_points_not_by_utf16(chen: int) -> None:
    case = make_case()
    (ack,) = post(chen, {"type": "claim", "case": case, "lease_token": "window-one"})["acks"]
    commit = {
        "type": "commit",
        "case": case,
        "lease_token": "window-one",
        "version": ack["version"],
        "form": {"verdict": "minor", "dwell_ms": 800},
    }
    (reveal,) = post(chen, commit)["reveals"]
    marked = [part for part in reveal["answer"][0] if "rules" in part]
    assert [(part["text"], part["rules"]) for part in marked] == [("Rest", ["prescription"])]
    assert "".join(part["text"] for part in reveal["answer"][0]) == "🙂 Rest now."


def test_cases_are_sent_ahead_once(chen: int) -> None:
    cases = [make_case(f"Question {i}?") for i in range(8)]
    first = deliver(chen, "en")
    assert len(first["queue"]) == len(cases)
    assert len(first["cases"]) == NUM_AHEAD + 1
    have = [case["id"] for case in first["cases"]]
    current = first["queue"][2]["id"]
    second = post(chen, {"type": "list", "case": 0}, current=current, have=have, strings_version=first["strings_version"])
    assert "strings" not in second
    assert not {case["id"] for case in second["cases"]} & set(have)
    ids = [row["id"] for row in first["queue"]]
    assert {case["id"] for case in second["cases"]} == set(ids[2 : 2 + NUM_AHEAD + 2]) - set(have)


def test_a_refused_message_holds_up_nothing(chen: int) -> None:
    case = make_case()
    reply = post(
        chen,
        {"type": "claim", "case": 999, "lease_token": "window-one"},
        {"type": "dance", "case": case},
        {"type": "draft", "case": "one"},
        {"type": "commit", "case": True},
        {"type": "claim", "case": case, "lease_token": "x"},
        {"type": "claim", "case": case, "lease_token": "window-one"},
    )
    assert [ack["ok"] for ack in reply["acks"]] == [False] * 5 + [True]
    assert all(ack["text"] and not ack["text"].startswith("desk.") for ack in reply["acks"][:5])
    assert "999" in reply["acks"][0]["text"]


@pytest.mark.parametrize(
    "posted",
    [
        None,
        {},
        {"messages": 5, "view": 5},
        {"messages": [None, 3, {}, {"type": "look", "case": 10**30}], "view": {"status": ["x"], "have": [[1]], "current": 10**30}},
    ],
)
def test_nonsense_from_a_browser_is_answered_calmly(chen: int, posted: Any) -> None:
    make_case()
    assert len(deliver(chen, "zh", posted)["queue"]) == 1


def test_drafts_come_back_and_are_private(chen: int) -> None:
    case = make_case()
    with write_session() as session:
        meyer = factories.user(session).id
    post(chen, {"type": "draft", "case": case, "form": {"note": "half"}})
    (mine,) = post(chen, {"type": "look", "case": case})["acks"]
    (theirs,) = post(meyer, {"type": "look", "case": case})["acks"]
    assert (mine["draft"], theirs["draft"]) == ({"note": "half"}, None)


def test_the_list_says_who_has_a_case_and_the_order_hides_the_reason(chen: int) -> None:
    cases = [make_case(f"Question {i}?", priority=1.0 - i / 100) for i in range(12)]
    with write_session() as session:
        meyer = factories.user(session, display_name="Dr Meyer").id
    post(meyer, {"type": "claim", "case": cases[3], "lease_token": "window-two"})
    rows = deliver(chen, "en", {"view": {"status": "mine"}})["queue"]
    assert rows == []
    order = [row["id"] for row in deliver(chen, "en")["queue"]]
    assert cases[3] not in order  # in Meyer's hand
    assert order != sorted(order)  # not the plain order of priority
    assert order != [row["id"] for row in deliver(meyer, "en")["queue"] if row["id"] != cases[3]]
    state = post(chen, {"type": "look", "case": cases[3]})["acks"][0]["state"]
    assert state["holder"] == "Dr Meyer"


def test_signed_cases_open_read_only_with_their_history(chen: int) -> None:
    case = make_case(kind="control")
    (ack,) = post(chen, {"type": "claim", "case": case, "lease_token": "window-one"})["acks"]
    form = {"verdict": "minor", "dwell_ms": 800}
    (ack,) = post(chen, {"type": "commit", "case": case, "lease_token": "window-one", "version": ack["version"], "form": form})["acks"]
    sign = {"type": "sign", "case": case, "lease_token": "window-one", "version": ack["version"], "form": form, "id": "client-sign"}
    (ack,) = post(chen, sign)["acks"]
    with write_session() as session:
        meyer = factories.user(session).id
    reply = post(meyer, {"type": "look", "case": case}, status="adjudicated")
    assert [row["id"] for row in reply["queue"]] == [case]
    (reveal,) = reply["reveals"]
    assert [(row["stage"], row["by"], row["entry"]) for row in reveal["history"]] == [
        ("blind", "Dr Chen", 1),
        ("signed", "Dr Chen", ack["entry"]),
    ]
    assert deliver(chen, "en")["num_signed_today"] == 1


def test_another_role_gets_nothing(chen: int) -> None:
    make_case()
    with write_session() as session:
        session.execute(update(t.User).where(t.User.id == chen).values(role="product"))
    with pytest.raises(Forbidden):
        deliver(chen, "en")


def test_every_word_of_the_screen_exists_in_both_languages() -> None:
    english, chinese = strings("en")["words"], strings("zh")["words"]
    assert english.keys() == chinese.keys()
    assert all(english.values())
    assert all(chinese.values())
