"""Promotion and roll-back: gates, races, records, roles."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from core import audit, safety
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home
from core.models import folder_hash, serving_version
from core.promotion import gates_for, history, previous_serving, promote, roll_back
from db import tables as t
from db.engine import read_session, write_session
from tests import factories

REASON = "better in the blind test"


def version(home: Home, name: str, kind: str = "sft") -> Path:
    folder = home.models / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(name.encode() * 100)
    with write_session() as session:
        factories.version(session, kind, name=name, path=home.relative(folder), content_hash=folder_hash(folder))
    return folder


def evaluate(baseline: str, candidate: str | None = None, regressions: tuple[int, ...] = (), **report: Any) -> int:
    one = {"n": 10, "mean": 0.5, "parts": {}, "slices": []}
    names = [baseline] + ([candidate] if candidate else [])
    comparisons = [{"candidate": candidate, "n": 10, "difference": 0.1, "emergency_regressions": list(regressions)}] if candidate else []
    with write_session() as session:
        row = t.Evaluation(
            name="e", report={"versions": dict.fromkeys(names, one), "baseline": baseline, "comparisons": comparisons, **report}
        )
        session.add(row)
        session.flush()
        return row.id


def person(role: str = "product", name: str = "Li Na") -> int:
    with write_session() as session:
        return factories.user(session, role, display_name=name).id


def serving() -> str | None:
    with read_session() as session:
        row = serving_version(session)
        return row.name if row else None


def closed(user: int, name: str) -> dict[str, str]:
    return {g.name: g.finding for g in gates_for(user, name).gates if not g.is_passed}


def go(user: int, name: str, expected: str | None = None, **values: Any) -> int:
    return promote(user, name, **{"reason": REASON, "signed_name": "Li Na", "expected_serving": expected, **values})


def test_the_first_promotion_needs_an_evaluation_but_no_baseline(home: Home) -> None:
    version(home, "v1")
    user = person()
    assert closed(user, "v1") == {"evaluation": "found_no_evaluation", "regressions": "found_not_compared"}
    with pytest.raises(UserError, match="gates_closed"):
        go(user, "v1")
    assert serving() is None
    evaluation = evaluate("v1")
    assert gates_for(user, "v1").evaluation_id == evaluation
    assert closed(user, "v1") == {}
    event = go(user, "v1")
    assert serving() == "v1"
    with read_session() as session:
        row = session.get_one(t.ServingEvent, event)
        assert (row.action, row.reason, row.signed_name, row.actor_id) == ("promote", REASON, "Li Na", user)
        assert {g["name"]: g["is_passed"] for g in row.checks["gates"]} == dict.fromkeys(
            ("evaluation", "regressions", "safety", "weights"), True
        )
        assert row.checks["to_hash"]
        entry = session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == "promote")).one()
        assert (entry.reason, entry.detail["to"], entry.detail["event"]) == (REASON, "v1", event)
        assert audit.verify(session) is None


def test_a_candidate_must_be_compared_with_the_serving_version(home: Home) -> None:
    for name in ("v1", "v2", "v3"):
        version(home, name)
    user = person()
    evaluate("v1")
    go(user, "v1")
    evaluate("v3", "v2")  # against somebody else
    assert closed(user, "v2")["evaluation"] == "found_no_comparison"
    evaluate("v1", "v2")
    assert closed(user, "v2") == {}
    go(user, "v2", "v1")
    assert serving() == "v2"
    with read_session() as session:
        statuses = dict(session.execute(select(t.ModelVersion.name, t.ModelVersion.status)).all())
    assert statuses == {"v1": "retired", "v2": "serving", "v3": "candidate"}


def test_lost_emergency_advice_closes_the_gate_until_a_newer_evaluation_says_otherwise(home: Home) -> None:
    version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1", "v2", regressions=(7, 9))
    gates = gates_for(user, "v2")
    gate = next(g for g in gates.gates if g.name == "regressions")
    assert (gate.is_passed, gate.params["num"], gate.params["samples"]) == (False, 2, [7, 9])
    with pytest.raises(UserError, match="gates_closed"):
        go(user, "v2")
    evaluate("v1", "v2")
    assert closed(user, "v2") == {}


def test_an_evaluation_of_other_weights_does_not_count(home: Home) -> None:
    version(home, "v1")
    user = person()
    evaluate("v1", versions={"v1": {"n": 3, "mean": 0.5, "content_hash": "of an earlier attempt", "parts": {}, "slices": []}})
    assert "evaluation" in closed(user, "v1")


def test_an_open_safety_case_closes_the_gate_until_somebody_closes_the_case(home: Home) -> None:
    version(home, "v1")
    user, doctor = person(), person("clinician", "Dr Wu")
    evaluate("v1")
    with write_session() as session:
        row = session.scalars(select(t.ModelVersion)).one()
        completion = factories.completion(session, model_version_id=row.id)
        case = safety.file_case(session, completion, reporter=session.get_one(t.User, user), origin="bench").id
    assert closed(user, "v1") == {"safety": "found_open_cases"}
    with pytest.raises(Forbidden):
        safety.close(user, case, "it is fine")
    with pytest.raises(UserError, match="reason_missing"):
        safety.close(doctor, case, "  ")
    safety.close(doctor, case, "the advice is right, the reader misread it")
    with pytest.raises(Conflicting, match="case_closed"):
        safety.close(doctor, case, "again")
    assert closed(user, "v1") == {}


def test_changed_or_missing_weights_close_the_gate_and_stop_a_roll_back(home: Home) -> None:
    folder = version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1")
    go(user, "v1")
    evaluate("v1", "v2")
    go(user, "v2", "v1")
    (folder / "adapter_model.safetensors").write_bytes(b"tampered")
    assert closed(user, "v1")["weights"] == "found_weights_changed"
    with pytest.raises(UserError, match="weights_not_intact"):
        roll_back(user, "v1", reason=REASON, signed_name="Li Na", expected_serving="v2")
    (folder / "adapter_model.safetensors").unlink()
    assert closed(user, "v1")["weights"] == "found_weights_missing"
    assert serving() == "v2"


def test_one_press_back_to_who_served_before_whatever_the_gates_say(home: Home) -> None:
    user = person()
    before: str | None = None
    for name in ("v1", "v2", "v3", "v4", "v5"):
        version(home, name)
        evaluate(before or name, name if before else None)
        go(user, name, before)
        before = name
    with read_session() as session:
        assert [v.name for v in previous_serving(session)] == ["v4", "v3", "v2", "v1"]
    with write_session() as session:
        row = session.scalars(select(t.ModelVersion).where(t.ModelVersion.name == "v4")).one()
        safety.file_case(
            session, factories.completion(session, model_version_id=row.id), reporter=session.get_one(t.User, user), origin="desk"
        )
    roll_back(user, "v4", reason="v5 fails at night", signed_name=" li  na ", expected_serving="v5")
    assert serving() == "v4"
    with read_session() as session:
        newest = history(session)[0]
        assert (newest.action, newest.to_version, newest.from_version) == ("roll_back", "v4", "v5")
        assert newest.checks["open_safety_cases"] == 1
        assert [v.name for v in previous_serving(session)] == ["v5", "v3", "v2", "v1"]
        assert len(history(session)) == 6
        assert audit.verify(session) is None


def test_going_back_to_a_version_that_never_served_is_refused(home: Home) -> None:
    version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1")
    go(user, "v1")
    with pytest.raises(UserError, match="never_served"):
        roll_back(user, "v2", reason=REASON, signed_name="Li Na", expected_serving="v1")


@pytest.mark.parametrize("reason", ["", "   ", "ok"])
def test_a_reason_is_required(home: Home, reason: str) -> None:
    version(home, "v1")
    evaluate("v1")
    with pytest.raises(UserError, match="reason_missing"):
        go(person(), "v1", reason=reason)


def test_the_signature_must_be_ones_own_name(home: Home) -> None:
    version(home, "v1")
    evaluate("v1")
    with pytest.raises(UserError, match="sign_with_name"):
        go(person(), "v1", signed_name="Somebody Else")
    assert serving() is None


@pytest.mark.parametrize("role", ["engineer", "clinician"])
def test_only_product_and_administrators_promote(home: Home, role: str) -> None:
    version(home, "v1")
    evaluate("v1")
    with pytest.raises(Forbidden):
        go(person(role), "v1")
    with pytest.raises(Forbidden):
        roll_back(person(role), "v1", reason=REASON, signed_name="Li Na", expected_serving=None)
    assert serving() is None


def test_a_disabled_account_promotes_nothing(home: Home) -> None:
    version(home, "v1")
    evaluate("v1")
    user = person()
    with write_session() as session:
        session.get_one(t.User, user).is_active = False
    with pytest.raises(Forbidden):
        go(user, "v1")


def test_a_stale_dialog_changes_nothing(home: Home) -> None:
    version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1")
    evaluate("v1", "v2")
    go(user, "v1")
    with pytest.raises(Conflicting, match="serving_changed"):
        go(user, "v2", None)
    with pytest.raises(Conflicting, match="already_serving"):
        go(user, "v1", "v1")
    assert serving() == "v1"


def test_of_many_promoters_at_once_exactly_one_wins(home: Home) -> None:
    """Thirty races of four people, each promoting another version from the same shown state."""
    names = ["v0", "v1", "v2", "v3"]
    for name in names:
        version(home, name)
    users = [person() for _ in names]
    for base in names:
        for other in names:
            if base != other:
                evaluate(base, other)
    now: str | None = None
    for _ in range(30):
        shown = now

        def attempt(i: int, shown: str | None = shown) -> bool:
            try:
                go(users[i], names[i], shown)
            except Conflicting:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            outcome = list(pool.map(attempt, range(4)))
        assert outcome.count(True) == 1
        now = serving()
        assert now == names[outcome.index(True)]
    with read_session() as session:
        assert session.scalar(select(func.count(t.ServingEvent.id))) == 30
        assert session.scalar(select(func.count(t.ModelVersion.id)).where(t.ModelVersion.status == "serving")) == 1
        chain = session.execute(select(t.ServingEvent.from_version_id, t.ServingEvent.to_version_id).order_by(t.ServingEvent.id)).all()
        assert all(before[1] == after[0] for before, after in pairwise(chain))
        assert audit.verify(session) is None
