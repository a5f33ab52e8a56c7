"""Evidence beside a case: what is found is remembered, only what was shown can be cited, and a broken index breaks nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from core import adjudication, evidence
from core.desk import arbitration, citations, mailbox
from core.errors import UserError
from core.exports import service
from core.home import Home
from core.retrieval.chunk import Chunk
from core.retrieval.index import build_index
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.review.conftest import SignCase

TEXTS = ("Chest pain with cold sweat: call 120 at once.", "Aspirin is not for children with fever.", "Wash cuts with clean water.")


@pytest.fixture
def index(home: Home) -> Path:
    """A small index, active."""
    folder = home.indexes / "guidelines" / "v000007"
    chunks = [Chunk(f"{n}.md", f"Guideline {n}", "First steps", "WHO", "2025-01-02", text, 0, len(text)) for n, text in enumerate(TEXTS)]
    build_index(chunks, folder, {"name": "guidelines", "version": 7})
    with write_session() as session:
        session.add(t.SearchIndex(name="guidelines", version=7, path=home.relative(folder), is_active=True))
    return folder


def ask(user_id: int, case: int, about: str = "question", language: str = "en") -> dict[str, Any]:
    """What the page gets for one press of the key."""
    message = {"id": "m1", "type": "evidence", "case": case, "about": about}
    ack: dict[str, Any]
    (ack,) = mailbox.deliver(user_id, language, {"messages": [message]})["acks"]
    return ack


def test_passages_for_question_and_sentence_with_their_place(people: tuple[int, int], new_case: Callable[..., int], index: Path) -> None:
    case = new_case()
    found = ask(people[0], case)
    assert found["ok"]
    assert found["problem"] is None
    best = found["passages"][0]
    assert (best["text"], best["source"], best["date"], best["index_version"]) == (TEXTS[0], "WHO", "2025-01-02", 7)
    assert {"score", "doors"}.isdisjoint(best)
    sentence = ask(people[0], case, "a1")  # "Rest at home."
    assert sentence["about"] == "a1"
    assert ask(people[0], case, "a99")["code"] == "desk.field_unknown"


def test_a_passage_is_stored_once_and_copied_into_the_verdict(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase, index: Path
) -> None:
    case = new_case()
    passage = ask(people[0], case)["passages"][0]
    num = count_shown()
    ask(people[1], case)
    assert count_shown() == num
    receipt = sign_case(people[0], case, evidence=[{"sha256": passage["sha256"], "about": "question"}])
    with read_session() as session:
        row = session.get_one(t.Adjudication, receipt.adjudication_id)
        assert row.evidence == [{"about": "question"} | passage]
        entry = session.get_one(t.AuditEntry, receipt.entry)
        assert entry.detail["row_sha256"] == adjudication.row_hash(row)
        row.evidence = [{**row.evidence[0], "text": "something else"}]
        assert entry.detail["row_sha256"] != adjudication.row_hash(row), "the chain must see a changed citation"
        session.rollback()
    reveal = mailbox.deliver(people[0], "en", {"messages": [{"id": "m2", "type": "look", "case": case}]})["reveals"][0]
    assert [step["evidence"] for step in reveal["history"]] == [row_evidence := [{"about": "question"} | passage], row_evidence]


@pytest.mark.parametrize(
    ("cited", "code"),
    [
        ([{"sha256": "0" * 64, "about": "question"}], "desk.evidence_unknown"),
        ([{"sha256": "0" * 64, "about": "a77"}], "desk.field_unknown"),
        ("everything", "desk.evidence_too_many"),
        ([{"sha256": str(n), "about": "question"} for n in range(11)], "desk.evidence_too_many"),
    ],
)
def test_nobody_cites_what_was_never_shown(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase, cited: object, code: str
) -> None:
    with pytest.raises(UserError) as refused:
        sign_case(people[0], new_case(), evidence=cited)
    assert refused.value.code == code


@pytest.mark.parametrize("language", ["en", "zh"])
def test_without_an_index_the_drawer_says_so_and_the_desk_goes_on(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase, language: str
) -> None:
    case = new_case()
    found = ask(people[0], case, language=language)
    assert found["ok"]
    assert found["passages"] == []
    assert len(found["problem"]) > 10
    sign_case(people[0], case)


def test_a_damaged_index_is_a_sentence(people: tuple[int, int], new_case: Callable[..., int], index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    next(path for path in sorted(index.iterdir()) if path.name in manifest["files"]).write_text("not what was built")
    found = ask(people[0], new_case())
    assert (found["ok"], found["passages"]) == (True, [])
    assert "index" in found["problem"]
    assert str(index) not in found["problem"], "a reader has no use for a path"


def test_an_index_that_goes_away_meanwhile_is_a_sentence(
    people: tuple[int, int], new_case: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> list[evidence.Passage]:
        raise OSError("stale file handle")

    monkeypatch.setattr(evidence, "passages", gone)
    assert citations.find(new_case(), "question", "en")["problem"]


def test_the_search_sees_nothing_but_the_text(
    people: tuple[int, int], new_case: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blind reader's drawer: the words of the case, and none of teacher or rules."""
    asked: list[str] = []

    def record(text: str, **_: object) -> list[evidence.Passage]:
        asked.append(text)
        return []

    monkeypatch.setattr(evidence, "passages", record)
    case = new_case("Is prednisone safe?")
    with write_session() as session:
        session.get_one(t.Conflict, case).advice = "CRITIQUE-TEXT"
    for about in ("question", "a1", "t1"):
        assert "CRITIQUE-TEXT" not in json.dumps(ask(people[0], case, about))
    assert asked == ["Is prednisone safe?", "Rest at home.", "1. Red flag."]


def test_arbiters_and_exports_see_the_evidence(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase, index: Path
) -> None:
    case = new_case()
    with write_session() as session:
        session.get_one(t.Conflict, case).overlap = 2
        completion_id = session.get_one(t.Conflict, case).completion_id
        session.add(t.RuleScore(completion_id=completion_id, rule_id="chain", lexicon_version="1", score=0.5))
        arbiter, admin = factories.user(session).id, factories.user(session, "admin").id
    cited = ask(people[0], case)["passages"][0]
    sign_case(people[0], case, verdict="unsafe", note="no", evidence=[{"sha256": cited["sha256"], "about": "a1"}])
    sign_case(people[1], case, verdict="acceptable")
    sides = {side.verdict: side.evidence for side in arbitration.open_dispute(arbiter, case).sides}
    assert sides == {"unsafe": ({"about": "a1"} | cited,), "acceptable": ()}
    decisions = [json.loads(line) for line in service.file_of(service.make(admin, "adjudications", "jsonl").id)[1].read_text().splitlines()]
    assert [row["evidence"] for row in decisions] == [[{"about": "a1"} | cited], []]
    (inspected,) = [json.loads(line) for line in service.file_of(service.make(admin, "inspection", "jsonl").id)[1].read_text().splitlines()]
    assert inspected["verdict"] == "acceptable"
    assert inspected["evidence"] == [f"{cited['title']} · {cited['section']} ({cited['date']}): {cited['text']}"]


def count_shown() -> int:
    with read_session() as session:
        return session.scalar(select(func.count()).select_from(t.ShownPassage)) or 0
