"""The watch proposes a roll-back and never rolls back: what counts, when it speaks, and who decides."""

from __future__ import annotations

import pytest

from core import promotion, watch
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home
from core.models import folder_hash, serving_version
from core.watch import Pair, Switch
from db import tables as t
from db.engine import read_session, write_session
from tests import factories

ERROR_RATE = 0.05


@pytest.fixture
def switch(home: Home) -> Switch:
    """v1, v2 and v3 promoted one after the other; v3 is watched against v2."""
    with write_session() as session:
        person = factories.user(session, "product", display_name="Dr Product")
        for number, name in enumerate(("v1", "v2", "v3")):
            folder = home.models / name
            folder.mkdir(parents=True)
            (folder / "adapter_model.safetensors").write_bytes(name.encode())
            status = "serving" if name == "v3" else "retired"
            factories.version(session, name=name, path=home.relative(folder), content_hash=folder_hash(folder), status=status)
            ids = [row.id for row in session.query(t.ModelVersion).order_by(t.ModelVersion.id)]
            above = ids[-2] if number else None
            session.add(t.ServingEvent(action="promote", to_version_id=ids[-1], from_version_id=above, actor_id=person.id))
        session.flush()
        found = watch.current_switch(session)
    assert found is not None
    assert (found.serving, found.previous) == ("v3", "v2")
    return found


def pairs(worse: int, better: int = 0, same: int = 10, unknown: int = 0) -> list[Pair]:
    kinds = [(True, False)] * worse + [(False, True)] * better + [(False, False)] * same + [(None, True)] * unknown
    return [Pair(i, new, old) for i, (new, old) in enumerate(kinds)]


def person(role: str = "product") -> int:
    with write_session() as session:
        row = session.query(t.User).filter_by(role=role).first() or factories.user(session, role)
        return row.id


def look(switch: Switch, found: list[Pair], job_id: int | None = None) -> int | None:
    return watch.record_look(switch, found, error_rate=ERROR_RATE, job_id=job_id)


def serving() -> str:
    with read_session() as session:
        row = serving_version(session)
        assert row is not None
        return row.name


def test_evidence_adds_up_over_looks_until_it_proposes_and_nobody_is_switched(switch: Switch) -> None:
    assert look(switch, pairs(3, 1, unknown=5)) is None
    proposed = look(switch, pairs(8))
    assert proposed is not None
    assert serving() == "v3", "a proposal is not a switch"
    shown = watch.open_proposal()
    assert shown is not None
    assert (shown.serving, shown.target, shown.finding) == ("v3", "v2", "red_team")
    assert (shown.detail["worse"], shown.detail["better"], shown.detail["looks"]) == (11, 1, 2)
    found = watch.looks()[1]
    assert [(one.number, one.num_pairs) for one in found] == [(2, 32), (1, 14)], "what could not be judged counts for nothing"
    assert look(switch, pairs(8)) is None, "one open proposal is enough"


def test_no_proposal_for_an_equal_version(switch: Switch) -> None:
    for _ in range(20):
        assert look(switch, pairs(4, 4)) is None
    assert watch.open_proposal() is None


def test_a_job_run_again_counts_once(switch: Switch) -> None:
    with write_session() as session:
        session.add(t.Job(kind="watch", config={}, queue="cpu"))
    look(switch, pairs(3), job_id=1)
    look(switch, pairs(3), job_id=1)
    assert [one.num_worse for one in watch.looks()[1]] == [3]


def test_accepting_rolls_back_in_the_persons_name(switch: Switch) -> None:
    proposal = look(switch, pairs(12)) or 0
    with pytest.raises(Forbidden):
        watch.accept(person("engineer"), proposal, reason="worse at night")
    watch.accept(person(), proposal, reason="worse at night", proof=factories.proof(person()))
    assert serving() == "v2"
    assert watch.open_proposal() is None
    with read_session() as session:
        event = promotion.history(session, limit=1)[0]
        assert (event.action, event.from_version, event.to_version, event.signed_name) == ("roll_back", "v3", "v2", "Dr Product")
        actions = [e.action for e in session.query(t.AuditEntry).order_by(t.AuditEntry.id)]
        assert actions == ["propose_roll_back", "roll_back", "accepted_roll_back_proposal"]
        assert watch.current_switch(session) is None, "going back is not watched against what was left"
    with pytest.raises(Conflicting):
        watch.accept(person(), proposal, reason="once more please", proof=factories.proof(person()))


def test_keeping_the_version_needs_a_reason_and_as_much_evidence_again(switch: Switch) -> None:
    proposal = look(switch, pairs(9)) or 0
    with pytest.raises(UserError, match="reason_missing"):
        watch.dismiss(person(), proposal, reason=" ")
    watch.dismiss(person(), proposal, reason="teacher was wrong on these")
    assert look(switch, pairs(1)) is None
    assert look(switch, pairs(9)) is not None


def test_safety_cases_speak_too(switch: Switch) -> None:
    with write_session() as session:
        reporter = factories.user(session)
        ids = {row.name: row.id for row in session.query(t.ModelVersion)}
        for name, num_cases in (("v2", 0), ("v3", 8)):
            for n in range(20):
                text = f"<think>x</think>answer {name} {n}"
                answer = factories.completion(session, text, model_version_id=ids[name], source="bench")
                if n < num_cases:
                    session.add(t.SafetyCase(completion_id=answer.id, reported_by=reporter.id, origin="bench"))
    proposed = look(switch, pairs(0))
    assert proposed is not None
    shown = watch.open_proposal()
    assert shown is not None
    assert shown.finding == "safety_cases"
    assert (shown.detail["cases_serving"], shown.detail["answers_serving"], shown.detail["cases_previous"]) == (8, 20, 0)


def test_a_look_at_a_version_that_left_counts_for_nothing(switch: Switch) -> None:
    user_id = person()
    promotion.roll_back(user_id, "v1", reason="rehearsal", signed_name="Dr Product", expected_serving="v3", proof=factories.proof(user_id))
    with pytest.raises(Conflicting, match="switch_changed"):
        look(switch, pairs(12))


def test_back_to_any_earlier_version(switch: Switch) -> None:
    """The rehearsal: from v3 to v1 (two promotions ago), forward to v3 again, to v2; each an event of its own."""
    user_id = person()
    for target, before in (("v1", "v3"), ("v3", "v1"), ("v2", "v3")):
        promotion.roll_back(
            user_id,
            target,
            reason=f"rehearsal of {target}",
            signed_name="dr product",
            expected_serving=before,
            proof=factories.proof(user_id),
        )
        assert serving() == target
    with read_session() as session:
        assert [e.to_version for e in promotion.history(session)] == ["v2", "v3", "v1", "v3", "v2", "v1"]
        assert {v.name for v in promotion.previous_serving(session)} == {"v1", "v3"}
