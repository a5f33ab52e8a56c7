"""What decisions do next: the leak guard above all, then owners, data requests and tests of the teacher."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from core import audit
from core.desk import followups, mailbox, teacher_tests
from core.errors import Conflicting, Forbidden, UserError
from core.exports import service
from core.records import ConflictStatus
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.review.conftest import SignCase


@pytest.fixture
def staff(people: tuple[int, int]) -> dict[str, int]:
    with write_session() as session:
        return {role: factories.user(session, role).id for role in ("product", "engineer", "admin")}


def split_of(case: int) -> str:
    with read_session() as session:
        return session.get_one(t.Sample, session.get_one(t.Conflict, case).sample_id).split


@pytest.mark.parametrize("kind", ["preferences", "kto", "steps"])
def test_a_gold_question_is_never_exported_to_training(
    people: tuple[int, int], staff: dict[str, int], new_case: Callable[..., int], sign_case: SignCase, kind: str
) -> None:
    kept, gold = new_case("Cough for two days?"), new_case("Chest pain at rest?")
    rewrite = {"verdict": "serious", "note": "wrong", "marks": {"a1": "wrong"}, "rewritten_answer": "Call 120 now."}
    sign_case(people[0], kept, **rewrite)
    receipt = sign_case(people[0], gold, **rewrite, follow=["gold", "teacher_test"])
    assert receipt.is_training_pair is False
    assert (split_of(kept), split_of(gold)) == ("train", "gold")
    made = service.make(staff["admin"], kind)
    assert made.num_rows == 1
    assert made.manifest["num_left_out"].get("held_out_gold", 0) == (0 if kind == "preferences" else 1)


def test_a_pair_made_before_and_copies_in_other_sets_stay_out_too(
    people: tuple[int, int], staff: dict[str, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    first, copy, other = new_case("Chest pain at rest?"), new_case("Chest pain at rest?"), new_case("Cough?")
    rewrite = {"verdict": "serious", "note": "wrong", "rewritten_answer": "Call 120 now."}
    for case in (first, copy, other):
        with write_session() as session:  # the same question has the same hash
            sample = session.get_one(t.Sample, session.get_one(t.Conflict, case).sample_id)
            sample.content_hash = f"hash of {sample.text}"
        assert sign_case(people[0], case, **rewrite).is_training_pair is True
    followups.request(people[1], first, "red_team")
    assert [split_of(case) for case in (first, copy, other)] == ["red_team", "red_team", "train"]
    made = service.make(staff["admin"], "preferences")
    assert (made.num_rows, made.manifest["num_left_out"]["held_out_red_team"]) == (1, 2)


def test_a_later_import_of_a_held_out_question_is_not_exported(
    people: tuple[int, int], staff: dict[str, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    gold, late, other = new_case("Chest pain at rest?", split="gold"), new_case("Chest pain at rest?"), new_case("Cough?")
    with write_session() as session:
        for case in (gold, late):
            session.get_one(t.Sample, session.get_one(t.Conflict, case).sample_id).content_hash = "the same question"
    for case in (late, other):
        sign_case(people[0], case, verdict="acceptable")
    made = service.make(staff["admin"], "kto")
    assert (made.num_rows, made.manifest["num_left_out"]["held_out_gold"]) == (1, 1)


def test_taken_out_again_it_does_not_go_back_to_training(
    people: tuple[int, int], staff: dict[str, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    case = new_case()
    sign_case(people[0], case, follow=["gold"])
    (row,) = followups.listing("gold")
    assert (row.detail["split_before"], row.by, row.verdict) == ("train", "Dr Chen", "minor")
    with pytest.raises(Forbidden):
        followups.close(people[0], row.id, "not for clinicians", accept=False)
    with pytest.raises(UserError, match="answer_missing"):
        followups.close(staff["product"], row.id, " ", accept=False)
    followups.close(staff["product"], row.id, "too easy a question", accept=False)
    assert split_of(case) == "dev"
    with pytest.raises(Conflicting, match="closed"):
        followups.close(staff["admin"], row.id, "once more", accept=True)
    (closed,) = followups.listing("gold", is_open=False)
    assert (closed.status, closed.answer) == ("withdrawn", "too easy a question")
    with read_session() as session:
        actions = list(session.scalars(select(t.AuditEntry.action).where(t.AuditEntry.object_type == "follow_up")))
        assert (actions, audit.verify(session)) == (["add_follow_up", "close_follow_up"], None)


def test_a_held_out_question_changes_no_set_and_refuses_no_signature(
    people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    case = new_case(split="test")
    sign_case(people[0], case, follow=["red_team"])  # somebody else may have been quicker
    with pytest.raises(Conflicting, match="held_out"):
        followups.request(people[0], case, "gold")
    assert split_of(case) == "test"
    assert not followups.num_open()


def test_only_decided_cases_and_only_known_lists(people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase) -> None:
    case = new_case()
    with pytest.raises(UserError, match="sign_first"):
        followups.request(people[0], case, "gold")
    with pytest.raises(UserError, match="field_unknown"):
        sign_case(people[0], case, follow=["gold", "red_team"])
    for kind in ("data_request", "everything"):
        with pytest.raises(UserError, match="field_unknown"):
            followups.request(people[0], case, kind)


def test_missing_context_asks_somebody_and_brings_the_case_back(
    people: tuple[int, int], staff: dict[str, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    case = new_case()
    sign_case(people[0], case, verdict="cannot_judge", cannot_judge_reason="missing_context", note="Age? Pregnant?")
    (row,) = followups.listing("data_request")
    assert row.note == "Age? Pregnant?"
    followups.close(staff["engineer"], row.id, "34 years, not pregnant", accept=True)
    with read_session() as session:
        assert session.get_one(t.Conflict, case).status == ConflictStatus.OPEN
    for person in people:  # who asked is to judge, and so is anybody else
        screen = mailbox.deliver(person, "en", {"messages": [], "view": {"current": case}})
        assert [item["id"] for item in screen["queue"]] == [case]
        assert screen["cases"][0]["context"] == ["34 years, not pregnant"]
    sign_case(people[1], case, verdict="cannot_judge", cannot_judge_reason="missing_context", note="And the dose?")
    assert [one.note for one in followups.listing("data_request")] == ["And the dose?"]


def test_the_signed_case_tells_what_follows(people: tuple[int, int], new_case: Callable[..., int], sign_case: SignCase) -> None:
    case = new_case()
    with write_session() as session:
        evidence = {"changes": [{"case_id": case, "agrees_now": True}]}
        session.add(
            t.RewardConfig(version="v9", chain=0.3, emergency=0.3, risk_penalty=0.2, teacher=0.2, conflict_threshold=0.3, evidence=evidence)
        )
    sign_case(people[0], case, verdict="serious", note="wrong", marks={"a1": "wrong", "a2": "ok"}, rewritten_answer="Call 120.")
    messages = [{"id": "m1", "type": "follow", "case": case, "kind": "teacher_test"}]
    for _ in range(2):  # a browser that heard no answer asks again
        answer = mailbox.deliver(people[0], "en", {"messages": messages})
    follows = answer["reveals"][0]["next"]
    assert follows == {
        "items": [{"kind": "teacher_test", "status": "open", "answer": ""}],
        "may_train": True,
        "may_hold_out": True,
        "pair": "made",
        "num_steps": 2,
        "label": "bad",
        "proposal": {"version": "v9", "changes_side": True, "agrees_now": True},
    }


def test_the_teacher_is_held_against_the_experts(
    people: tuple[int, int], staff: dict[str, int], new_case: Callable[..., int], sign_case: SignCase
) -> None:
    case = new_case("Chest pain?", reference="Call 120 at once.")
    sign_case(people[0], case, verdict="serious", note="no emergency advice", follow=["teacher_test"])
    with pytest.raises(Forbidden):
        teacher_tests.run(people[0])
    ran = teacher_tests.run(staff["engineer"])
    assert ran.num_asked == 1
    assert ran.num_passed + ran.num_failed + ran.num_unscored == 1
    (row,) = followups.listing("teacher_test")
    (result,) = row.detail["results"]
    assert result["teacher"] == ran.teacher
    assert result["passes"] == teacher_tests.passes("serious", result["score"], result["safety_flag"])
    with read_session() as session:
        assert session.scalars(select(t.Judgement)).all() == [], "a test is no judgement of the completion"


@pytest.mark.parametrize(
    ("expected", "score", "flag", "outcome"),
    [
        ("unsafe", 0.2, None, True),
        ("unsafe", 0.9, False, False),
        ("serious", 0.9, True, True),
        ("acceptable", 0.9, False, True),
        ("minor", 0.3, None, False),
        ("minor", None, None, None),
        ("cannot_judge", 0.3, None, None),
    ],
)
def test_passing_means_agreeing_on_harm(expected: str, score: float | None, flag: bool | None, outcome: bool | None) -> None:
    assert teacher_tests.passes(expected, score, flag) is outcome
