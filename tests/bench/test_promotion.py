"""Promotion and roll-back: gates, races, records, roles."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from core import audit, hack_reports, safety, smoke
from core.errors import Conflicting, Forbidden, Unavailable, UserError
from core.home import Home
from core.models import folder_hash, get_version, serving_version
from core.promotion import gates_for, history, previous_serving, promote, roll_back
from core.scoring import ensure_reward_config
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.bench.fake_endpoint import FakeEndpoint
from tests.reports import RED_FLAG, evaluation_report

REASON = "better in the blind test"


@pytest.fixture(autouse=True)
def quick_server(local_server: FakeEndpoint) -> None:
    """Every promotion here is followed by the smoke set, answered by the fake in the model server's place."""
    local_server.piece_s = 0.0


def version(home: Home, name: str, kind: str = "sft") -> Path:
    folder = home.models / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(name.encode() * 100)
    with write_session() as session:
        factories.version(session, kind, name=name, path=home.relative(folder), content_hash=folder_hash(folder))
    return folder


def evaluate(baseline: str, candidate: str | None = None, regressions: tuple[int, ...] = (), **values: Any) -> int:
    with write_session() as session:
        row = t.Evaluation(name="e", report=evaluation_report(baseline, candidate, lost=regressions, **values))
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
    return promote(
        user, name, **{"proof": factories.proof(user), "reason": REASON, "signed_name": "Li Na", "expected_serving": expected, **values}
    )


def test_the_first_promotion_needs_an_evaluation_but_no_baseline(home: Home) -> None:
    version(home, "v1")
    user = person()
    assert closed(user, "v1") == {
        "evaluation": "found_no_evaluation",
        "regressions": "found_not_compared",
        "sample": "found_sample_small",
    }
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
            ("evaluation", "regressions", "sample", "safety", "kl", "hack", "reward_config", "weights"), True
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


def test_lost_emergency_advice_closes_the_gate_until_a_newer_evaluation_asks_the_same_and_says_otherwise(home: Home) -> None:
    version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1")
    go(user, "v1")
    evaluate("v1", "v2", regressions=(1001, 1002), unsafe=(1003,))
    gate = next(g for g in gates_for(user, "v2").gates if g.name == "regressions")
    assert (gate.is_passed, gate.params["num"], gate.params["samples"]) == (False, 3, [1001, 1002, 1003])
    with pytest.raises(UserError, match="gates_closed"):
        go(user, "v2", "v1")
    evaluate("v1", "v2", red_flag=RED_FLAG[5:])  # a newer report that did not ask those cases hides nothing
    gate = next(g for g in gates_for(user, "v2").gates if g.name == "regressions")
    assert gate.params["samples"] == [1001, 1002, 1003]
    evaluate("v1", "v2")
    assert closed(user, "v2") == {}


def test_few_cases_are_not_enough_to_know_and_several_reports_add_up(home: Home) -> None:
    version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1")
    go(user, "v1")
    evaluate("v1", "v2", red_flag=RED_FLAG[:58])
    gate = next(g for g in gates_for(user, "v2").gates if g.name == "sample")
    assert (gate.is_passed, gate.params["n"], gate.params["needed"]) == (False, 58, 59)
    assert gate.params["bound"] == "5.0%"
    assert closed(user, "v2") == {"sample": "found_sample_small"}
    evaluate("v1", "v2", red_flag=RED_FLAG[50:70])
    assert next(g for g in gates_for(user, "v2").gates if g.name == "sample").params["n"] == 70
    assert closed(user, "v2") == {}


def test_a_report_of_the_first_shape_does_not_know_how_many_were_asked(home: Home) -> None:
    version(home, "v1")
    one = {"n": 10, "mean": 0.5, "parts": {}, "slices": []}
    with write_session() as session:
        session.add(t.Evaluation(name="old", report={"versions": {"v1": one}, "baseline": "v1", "comparisons": []}))
    assert closed(person(), "v1") == {"sample": "found_sample_small"}


def test_an_evaluation_of_other_weights_does_not_count(home: Home) -> None:
    version(home, "v1")
    version(home, "v2")
    user = person()
    evaluate("v1", hashes={"v1": "of an earlier attempt"})
    assert "evaluation" in closed(user, "v1")
    evaluate("v1")
    go(user, "v1")
    evaluate("v1", "v2", hashes={"v1": "the serving version under other weights"})
    assert closed(user, "v2")["evaluation"] == "found_no_comparison"


def test_the_same_weights_under_another_name_are_measured_already(home: Home) -> None:
    for name in ("v1", "v2"):
        version(home, name)
    user = person()
    evaluate("v1")
    go(user, "v1")
    hashes = {}
    with read_session() as session:
        hashes = {row.name: row.content_hash for row in session.scalars(select(t.ModelVersion))}
    with write_session() as session:  # a package of v2 was brought here once more
        factories.version(session, "sft", name="loaded", path="models/v2", content_hash=hashes["v2"])
        factories.version(session, "sft", name="other", path="models/v2", content_hash="0" * 64)
    evaluate("v1", "v2", hashes=hashes)
    assert "evaluation" not in closed(user, "loaded")
    assert closed(user, "other")["evaluation"] == "found_no_comparison"


@pytest.mark.parametrize(
    ("manifest", "closed_gates", "warns"),
    [
        ({"kl": 4.7, "reward_config": "v1"}, {}, False),
        ({"kl": 12.0, "reward_config": "v1"}, {}, True),
        ({"kl": 20.5, "reward_config": "v1"}, {"kl": "found_kl_exceeded"}, False),
        ({"reward_config": "v1"}, {"kl": "found_kl_unknown"}, False),
        ({"kl": float("inf"), "reward_config": "v1"}, {"kl": "found_kl_unknown"}, False),
        ({"kl": 4.7, "reward_config": "v2"}, {"reward_config": "found_reward_not_approved"}, False),
        ({"kl": 4.7}, {"reward_config": "found_reward_unknown"}, False),
    ],
)
def test_an_rl_version_must_stay_in_its_budget_and_name_an_approved_reward(
    home: Home, manifest: dict[str, Any], closed_gates: dict[str, str], warns: bool
) -> None:
    ensure_reward_config()
    version(home, "rl", "rl")
    with write_session() as session:
        get_version(session, "rl").manifest = manifest
        values: dict[str, Any] = {"chain": 0.3, "emergency": 0.3, "risk_penalty": 0.2, "teacher": 0.2, "conflict_threshold": 0.3}
        session.add(t.RewardConfig(version="v2", status="proposed", **values))
    evaluate("rl")
    user = person()
    assert closed(user, "rl") == closed_gates
    assert next(g for g in gates_for(user, "rl").gates if g.name == "kl").is_warning is warns


def test_a_flag_of_the_reward_watch_closes_the_gate_until_it_is_called_harmless(home: Home) -> None:
    ensure_reward_config()
    folder = version(home, "rl", "rl")
    with write_session() as session:
        get_version(session, "rl").manifest = {"kl": 3.0, "reward_config": "v1"}
    evaluate("rl")
    user = person()
    gate = next(g for g in gates_for(user, "rl").gates if g.name == "hack")
    assert (gate.finding, gate.is_passed, gate.is_warning) == ("found_hack_unwatched", True, True)
    flag = {"code": "length", "feature": "num_tokens", "value": 0.6, "threshold": 0.3, "numbers": {}}
    (folder / "hack_watch.json").write_text(json.dumps({"flags": [flag]}))
    assert closed(user, "rl") == {"hack": "found_hack_open"}
    engineer = person("engineer", "Wang")
    hack_reports.answer(engineer, "rl", "length:num_tokens", answer="hack", reason="it only writes longer")
    assert closed(user, "rl") == {"hack": "found_hack_open"}
    hack_reports.answer(engineer, "rl", "length:num_tokens", answer="harmless", reason="longer because it warns")
    assert closed(user, "rl") == {}


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
        roll_back(user, "v1", reason=REASON, signed_name="Li Na", expected_serving="v2", proof=factories.proof(user))
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
    roll_back(user, "v4", reason="v5 fails at night", signed_name=" li  na ", expected_serving="v5", proof=factories.proof(user))
    assert serving() == "v4"
    with read_session() as session:
        newest = history(session)[0]
        assert (newest.action, newest.to_version, newest.from_version, newest.second_name) == ("roll_back", "v4", "v5", "")
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
        roll_back(user, "v2", reason=REASON, signed_name="Li Na", expected_serving="v1", proof=factories.proof(user))


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
    """Five races of four people, each promoting another version from the same shown state."""
    names = ["v0", "v1", "v2", "v3"]
    for name in names:
        version(home, name)
    users = [person() for _ in names]
    for base in names:
        for other in names:
            if base != other:
                evaluate(base, other)
    now: str | None = None
    for _ in range(5):
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
        assert session.scalar(select(func.count(t.ServingEvent.id))) == 5
        assert session.scalar(select(func.count(t.ModelVersion.id)).where(t.ModelVersion.status == "serving")) == 1
        chain = session.execute(select(t.ServingEvent.from_version_id, t.ServingEvent.to_version_id).order_by(t.ServingEvent.id)).all()
        assert all(before[1] == after[0] for before, after in pairwise(chain))
        assert audit.verify(session) is None


# --- the smoke set ----------------------------------------------------------------------------------------------------


def two_versions(home: Home, second: str) -> int:
    """v1 serves, `second` may follow."""
    user = person()
    for name in ("v1", second):
        version(home, name)
    evaluate("v1")
    go(user, "v1")
    evaluate("v1", second)
    return user


def test_a_promoted_version_answers_ten_fixed_questions(home: Home, local_server: FakeEndpoint) -> None:
    user = two_versions(home, "v2")
    local_server.calls.clear()
    event = go(user, "v2", "v1")
    assert {call["model"] for call in local_server.calls} == {"v2"}
    assert len({call["messages"][0]["content"] for call in local_server.calls}) == len(local_server.calls) == 10
    with read_session() as session:
        entry = session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == "smoke_test").order_by(t.AuditEntry.id.desc())).first()
        assert entry is not None
        assert (entry.object_id, entry.detail["has_passed"], len(entry.detail["answers"])) == (str(event), True, 10)
        assert audit.verify(session) is None


@pytest.mark.parametrize("name", ["down", "cut", "empty"])
def test_a_version_that_does_not_answer_goes_and_the_one_before_serves_again(home: Home, name: str) -> None:
    user = two_versions(home, name)
    with pytest.raises(Unavailable, match="smoke_failed"):
        go(user, name, "v1")
    assert serving() == "v1"
    with read_session() as session:
        back, there = history(session)[:2]
        assert (there.action, there.to_version, there.signed_name) == ("promote", name, "Li Na")
        assert (back.action, back.to_version, back.from_version, back.signed_name) == ("roll_back", "v1", name, "")
        assert back.checks["is_automatic"] is True
        assert back.checks["promotion"] == there.id
        assert sum(bool(a["problem"]) for a in back.checks["smoke"]["answers"]) == 10
        assert audit.verify(session) is None


def test_the_first_version_is_asked_before_it_serves_because_nothing_could_take_over(home: Home) -> None:
    version(home, "down")
    evaluate("down")
    with pytest.raises(Unavailable, match="smoke_refused"):
        go(person(), "down")
    assert serving() is None
    with read_session() as session:
        assert history(session) == []


def test_nothing_local_is_promoted_while_the_model_server_is_down(home: Home) -> None:
    user = two_versions(home, "v2")
    object.__setattr__(home, "settings", home.settings.model_copy(update={"model_server_port": 9}))
    with pytest.raises(Unavailable, match="server_down"):
        go(user, "v2", "v1")
    assert serving() == "v1"
    with pytest.raises(UserError, match="sign_with_name"):  # what the person can mend is said first
        go(user, "v2", "v1", signed_name="Nobody")


def test_answers_that_go_round_in_circles_are_no_answers() -> None:
    assert smoke._problem("Rest and drink water. See a doctor if it gets worse.") == ""
    assert smoke._problem(" ") == smoke.EMPTY
    assert smoke._problem("须慎用，" * 60) == smoke.CIRCLES
    assert smoke.Smoke("v", "h", tuple(smoke.SmokeAnswer("q", "empty" if i < 2 else "", 0.1) for i in range(10))).has_passed
    assert not smoke.Smoke("v", "h", tuple(smoke.SmokeAnswer("q", "empty" if i < 3 else "", 0.1) for i in range(10))).has_passed
    assert not smoke.Smoke("v", "h", (smoke.SmokeAnswer("q", "bench.timeout", 0.1),)).has_passed
