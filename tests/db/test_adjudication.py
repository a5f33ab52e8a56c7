"""Deciding cases on a real SQLite file: one winner per race, nothing stored twice, nothing overwritten, nothing revealed early."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, update

from core import adjudication, audit, safety
from core.adjudication import Decision, Receipt
from core.desk import lease
from core.desk.cases import history
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories


@pytest.fixture
def people(home: Home) -> tuple[int, int]:
    """Two clinicians."""
    with write_session() as session:
        return factories.user(session, display_name="Dr Chen").id, factories.user(session, display_name="Dr Meyer").id


def make_case(split: str = "train", **values: Any) -> int:
    with write_session() as session:
        sample = factories.sample(session, split=split)
        return factories.conflict(session, completion=factories.completion(session, sample=sample), **values).id


def form(**values: Any) -> dict[str, Any]:
    return {"verdict": "minor", "dwell_ms": 900, "who_was_right": "rules", **values}


def decision(claim: lease.Claim, client_id: str, **values: Any) -> Decision:
    return Decision(claim.conflict_id, client_id, form(**values), claim.lease_token, claim.version)


def commit(user_id: int, case: int, client_id: str = "client-blind", **values: Any) -> tuple[lease.Claim, Receipt]:
    claim = lease.claim(user_id, case)
    return claim, adjudication.commit_blind(user_id, decision(claim, client_id, **values))


def signed_by(user_id: int, decision: Decision) -> Receipt:
    """Signed within a fresh sign-in of that person."""
    return adjudication.sign(user_id, replace(decision, proof=factories.proof(user_id)))


def sign(user_id: int, case: int, client_id: str = "client-sign", **values: Any) -> Receipt:
    claim, receipt = commit(user_id, case, f"{client_id}-blind")
    return signed_by(user_id, replace(decision(claim, client_id, **values), version=receipt.version))


def rows(case: int) -> list[t.Adjudication]:
    with read_session() as session:
        return list(session.scalars(select(t.Adjudication).where(t.Adjudication.conflict_id == case).order_by(t.Adjudication.id)))


def conflict(case: int) -> t.Conflict:
    with read_session() as session:
        return session.get_one(t.Conflict, case)


def count(table: Any) -> int:
    with read_session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


# --- claims ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_two_reviewers_exactly_one_gets_the_case_in_200_races(people: tuple[int, int]) -> None:
    names = {people[0]: "Dr Chen", people[1]: "Dr Meyer"}
    with write_session() as session:
        completion = factories.completion(session)
        cases = [factories.conflict(session, completion=completion, kind=f"kind{i}").id for i in range(200)]

    def reach(user_id: int, case: int, barrier: Barrier) -> lease.Claim | Conflicting:
        barrier.wait()
        try:
            return lease.claim(user_id, case)
        except Conflicting as error:
            return error

    winners = []
    with ThreadPoolExecutor(2) as pool:
        for case in cases:
            barrier = Barrier(2)
            first, second = pool.map(reach, people, (case, case), (barrier, barrier))
            outcomes = dict(zip(people, (first, second), strict=True))
            won = [user for user, outcome in outcomes.items() if isinstance(outcome, lease.Claim)]
            assert len(won) == 1
            refused = next(outcome for outcome in outcomes.values() if isinstance(outcome, Conflicting))
            assert refused.code == "desk.claimed_by_other"
            assert refused.params["name"] == names[won[0]]
            stored = conflict(case)
            claim = outcomes[won[0]]
            assert isinstance(claim, lease.Claim)
            assert (stored.claimed_by, stored.lease_token, stored.version) == (won[0], claim.lease_token, 1)
            winners.append(won[0])
    assert len(winners) == 200


def test_two_reviewers_who_decide_at_once_store_one_decision(people: tuple[int, int]) -> None:
    """Even with the loser's stale knowledge of the case, the second decision is refused and the first stays."""
    for round_number in range(20):
        case = make_case()
        chen = lease.claim(people[0], case)
        with write_session() as session:  # Chen's lease runs out and Meyer takes the case
            session.execute(update(t.Conflict).where(t.Conflict.id == case).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
        meyer = lease.claim(people[1], case)
        barrier = Barrier(2)

        def decide(user_id: int, claim: lease.Claim, barrier: Barrier = barrier, n: int = round_number) -> str:
            barrier.wait()
            try:
                return adjudication.commit_blind(user_id, decision(claim, f"race-{n:04d}")).stage
            except Conflicting as error:
                return error.code

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(decide, people, (chen, meyer)))
        assert outcomes == ["desk.claimed_by_other", "blind"]
        assert [row.user_id for row in rows(case)] == [people[1]]


def test_next_case_is_another_one_for_the_second_reviewer(people: tuple[int, int]) -> None:
    cases = {make_case(), make_case()}
    assert {lease.claim(people[0]).conflict_id, lease.claim(people[1]).conflict_id} == cases


def test_the_case_in_hand_comes_first_and_renewing_changes_nothing(people: tuple[int, int]) -> None:
    make_case(priority=9.0)
    low = make_case(priority=0.0)
    claim = lease.claim(people[0], low, lease_token="window-one")
    again = lease.claim(people[0], low, lease_token="window-one")
    assert (again.version, again.lease_token) == (claim.version, "window-one")
    assert lease.claim(people[0]).conflict_id == low


def test_an_expired_lease_goes_to_the_next_and_keeps_the_draft(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    lease.save_draft(people[0], case, {"note": "half a thought"})
    with write_session() as session:
        session.execute(update(t.Conflict).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
    lease.heartbeat(people[0], case, claim.lease_token)  # nobody took it: mine again
    with write_session() as session:
        session.execute(update(t.Conflict).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
    lease.claim(people[1], case)
    with pytest.raises(Conflicting) as refused:
        lease.heartbeat(people[0], case, claim.lease_token)
    assert refused.value.code == "desk.claimed_by_other"
    assert refused.value.params["name"] == "Dr Meyer"
    lease.save_draft(people[0], case, {"note": "a whole thought"})  # writing on is never punished
    with read_session() as session:
        draft = session.scalars(select(t.Draft)).one()
    assert (draft.user_id, draft.payload) == (people[0], {"note": "a whole thought"})


def test_release_and_hand_over(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    lease.release(people[0], case, claim.lease_token)
    assert conflict(case).status == "open"
    claim = lease.claim(people[0], case)
    with pytest.raises(UserError, match="hand_over_target"):
        lease.hand_over(people[0], case, claim.lease_token, people[0])
    lease.hand_over(people[0], case, claim.lease_token, people[1])
    with pytest.raises(Conflicting, match="claimed_by_other"):
        lease.claim(people[0], case)
    assert lease.claim(people[1]).conflict_id == case


def test_a_second_window_takes_over_and_the_first_is_told(people: tuple[int, int]) -> None:
    case = make_case()
    first = lease.claim(people[0], case)
    lease.claim(people[0], case)
    with pytest.raises(Conflicting, match="other_window"):
        adjudication.commit_blind(people[0], decision(first, "client-0001"))
    assert rows(case) == []


@pytest.mark.parametrize("role", ["product", "engineer"])
def test_other_roles_decide_nothing(home: Home, role: str) -> None:
    case = make_case()
    with write_session() as session:
        user_id = factories.user(session, role).id
    attempts: list[Callable[[], object]] = [
        lambda: lease.claim(user_id, case),
        lambda: lease.save_draft(user_id, case, {"a": 1}),
        lambda: adjudication.commit_blind(user_id, Decision(case, "client-0001", form())),
        lambda: signed_by(user_id, Decision(case, "client-0001", form())),
        lambda: adjudication.skip(user_id, Decision(case, "client-0001", form(reason="not_my_field"))),
        lambda: adjudication.stop_cord(user_id, Decision(case, "client-0001", form())),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden):
            attempt()
    assert rows(case) == []


def test_a_disabled_account_decides_nothing(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    with write_session() as session:
        session.get_one(t.User, people[0]).is_active = False
    with pytest.raises(Forbidden):
        adjudication.commit_blind(people[0], decision(claim, "client-0001"))


# --- decisions ------------------------------------------------------------------------------------------------------------


def test_blind_then_signed_with_name_time_meaning_and_audit(people: tuple[int, int]) -> None:
    case = make_case()
    receipt = sign(
        people[0], case, criteria={"emergency": "not_met"}, marks={"a1": "wrong", "t1": "ok"}, because=["rule_misfire"], note="ok"
    )
    blind, signed = rows(case)
    assert (blind.stage, signed.stage) == ("blind", "signed")
    assert signed.criteria == {"emergency": "not_met"}
    assert (blind.guideline_version, signed.guideline_version) == ("g1", "g1")
    assert signed.marks == {"a1": "wrong", "t1": "ok"}
    assert (signed.signed_name, signed.signed_at) == ("Dr Chen", signed.created_at)
    assert signed.signed_meaning == "I, Dr Chen, reviewed and adjudicated this case."
    assert conflict(case).status == receipt.status == "adjudicated"
    with read_session() as session:
        entries = list(session.scalars(select(t.AuditEntry).order_by(t.AuditEntry.id)))
        assert audit.verify(session) is None
    assert [e.action for e in entries] == ["adjudicate_blind", "adjudicate_signed"]
    assert entries[-1].id == receipt.entry
    assert entries[-1].detail["row_sha256"] == adjudication.row_hash(signed)


def test_a_changed_row_no_longer_fits_its_audit_entry(people: tuple[int, int]) -> None:
    case = make_case()
    sign(people[0], case)
    with write_session() as session:
        session.execute(update(t.Adjudication).where(t.Adjudication.stage == "signed").values(verdict="acceptable"))
    with read_session() as session:
        entry = session.scalars(select(t.AuditEntry).order_by(t.AuditEntry.id.desc())).first()
    assert entry is not None
    assert entry.detail["row_sha256"] != adjudication.row_hash(rows(case)[-1])


def test_a_resent_decision_is_stored_once_with_the_same_receipt(people: tuple[int, int]) -> None:
    case = make_case()
    claim, first = commit(people[0], case, "client-same")
    again = adjudication.commit_blind(people[0], decision(claim, "client-same"))
    assert again.is_repeat
    assert (again.saved_at, again.entry, again.adjudication_id) == (first.saved_at, first.entry, first.adjudication_id)
    signed = replace(decision(claim, "client-signed"), version=first.version)
    once, twice = signed_by(people[0], signed), signed_by(people[0], signed)
    assert (once.entry, once.saved_at) == (twice.entry, twice.saved_at)
    assert len(rows(case)) == count(t.AuditEntry) == 2


def test_the_same_decision_sent_twice_at_once_is_stored_once(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda _: adjudication.commit_blind(people[0], decision(claim, "client-same")), range(4)))
    assert len({receipt.entry for receipt in receipts}) == 1
    assert len(rows(case)) == 1


def test_a_stale_version_is_refused_with_both_states(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    with write_session() as session:
        session.get_one(t.Conflict, case).version += 1
    with pytest.raises(Conflicting) as refused:
        adjudication.commit_blind(people[0], decision(claim, "client-0001", note="mine"))
    assert refused.value.code == "desk.stale"
    assert refused.value.params["current"]["version"] == claim.version + 1
    assert refused.value.params["submitted"] == {"verdict": "minor", "note": "mine"}
    assert rows(case) == []


def test_a_late_decision_shows_what_the_other_signed(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    with write_session() as session:
        session.execute(update(t.Conflict).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
    sign(people[1], case, note="theirs")
    with pytest.raises(Conflicting) as refused:
        adjudication.commit_blind(people[0], decision(claim, "client-late"))
    assert refused.value.code == "desk.already_adjudicated"
    current = refused.value.params["current"]
    assert (current["by"], current["verdict"], current["note"]) == ("Dr Meyer", "minor", "theirs")


def test_blind_comes_first_and_only_once(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    with pytest.raises(Conflicting, match="blind_first"):
        signed_by(people[0], decision(claim, "client-0001"))
    receipt = adjudication.commit_blind(people[0], decision(claim, "client-0002"))
    with pytest.raises(Conflicting, match="already_committed"):
        adjudication.commit_blind(people[0], replace(decision(claim, "client-0003"), version=receipt.version))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"verdict": None}, "verdict_unknown"),
    ({"verdict": "fine"}, "verdict_unknown"),
    ({"verdict": ["minor"]}, "verdict_unknown"),
    ({"verdict": "serious"}, "note_needed"),
    ({"verdict": "unsafe", "note": "  "}, "note_needed"),
    ({"verdict": "cannot_judge", "note": "x"}, "reason_needed"),
    ({"verdict": "cannot_judge", "note": "x", "cannot_judge_reason": "tired"}, "reason_needed"),
    ({"verdict": "cannot_judge", "cannot_judge_reason": "ambiguous"}, "note_needed"),
    ({"dwell_ms": 399}, "too_fast"),
    ({"dwell_ms": None}, "too_fast"),
    ({"dwell_ms": "900"}, "too_fast"),
    ({"dwell_ms": float("nan")}, "too_fast"),
    ({"dwell_ms": True}, "too_fast"),
    ({"criteria": {"colour": "met"}}, "field_unknown"),
    ({"criteria": {"emergency": "maybe"}}, "field_unknown"),
    ({"criteria": "met"}, "field_unknown"),
    ({"marks": {"a9": "ok"}}, "field_unknown"),
    ({"marks": {"a1": "great"}}, "field_unknown"),
    ({"confidence": "certain"}, "field_unknown"),
    ({"note": 5}, "field_unknown"),
    ({"note": "x" * 20_001}, "text_too_long"),
]


@pytest.mark.parametrize(("values", "code"), REFUSED)
def test_what_a_blind_verdict_may_not_be(people: tuple[int, int], values: dict[str, Any], code: str) -> None:
    claim = lease.claim(people[0], make_case())
    with pytest.raises(UserError) as refused:
        adjudication.commit_blind(people[0], decision(claim, "client-0001", **values))
    assert refused.value.code == f"desk.{code}"
    assert count(t.Adjudication) == count(t.AuditEntry) == 0


REFUSED_SIGNATURES: list[tuple[dict[str, Any], str]] = [
    ({"verdict": "acceptable"}, "revision_reason_needed"),
    ({"who_was_right": None}, "who_was_right_needed"),
    ({"who_was_right": "me"}, "field_unknown"),
    ({"because": ["mood"]}, "field_unknown"),
    ({"because": "rule_misfire"}, "field_unknown"),
    ({"because": [["rule_misfire"]]}, "field_unknown"),
    ({"rewritten_answer": "Rest at home. See a doctor if worse."}, "rewrite_unchanged"),
]


@pytest.mark.parametrize(("values", "code"), REFUSED_SIGNATURES)
def test_what_a_signature_may_not_be(people: tuple[int, int], values: dict[str, Any], code: str) -> None:
    case = make_case()
    with pytest.raises(UserError) as refused:
        sign(people[0], case, **values)
    assert refused.value.code == f"desk.{code}"
    assert [row.stage for row in rows(case)] == ["blind"]
    assert count(t.PreferencePair) == 0


def test_a_control_needs_no_winner_and_a_revision_needs_a_reason(people: tuple[int, int]) -> None:
    case = make_case(kind="control")
    sign(people[0], case, who_was_right=None, verdict="acceptable", revision_reason="the dose is right after all")
    signed = rows(case)[-1]
    assert (signed.verdict, signed.revision_reason) == ("acceptable", "the dose is right after all")


@pytest.mark.parametrize(("reason", "status"), [("missing_context", "deferred"), ("not_my_field", "open"), ("ambiguous", "adjudicated")])
def test_cannot_judge_has_consequences(people: tuple[int, int], reason: str, status: str) -> None:
    case = make_case()
    values = {"verdict": "cannot_judge", "cannot_judge_reason": reason, "note": "why", "revision_reason": "on reflection"}
    assert sign(people[0], case, **values).status == status == conflict(case).status


def test_skipping_needs_a_reason_and_passes_the_case_on(people: tuple[int, int]) -> None:
    case = make_case()
    claim = lease.claim(people[0], case)
    with pytest.raises(UserError, match="skip_reason_needed"):
        adjudication.skip(people[0], decision(claim, "client-0001"))
    adjudication.skip(people[0], decision(claim, "client-0002", reason="not_my_field"))
    assert conflict(case).status == "open"
    with pytest.raises(UserError, match="queue_empty"):
        lease.claim(people[0])
    assert lease.claim(people[1]).conflict_id == case


def test_the_stop_cord_needs_nothing_and_opens_a_safety_case(people: tuple[int, int]) -> None:
    case = make_case()
    lease.claim(people[1], case)
    cord = Decision(case, "client-cord", {})
    first, again = adjudication.stop_cord(people[0], cord), adjudication.stop_cord(people[0], cord)
    assert first.entry == again.entry
    assert count(t.SafetyCase) == 1
    assert (conflict(case).status, conflict(case).claimed_by) == ("claimed", people[1])


# --- rewrites and corrections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "dev", "test", "gold", "red_team"])
def test_only_training_samples_make_training_pairs(people: tuple[int, int], split: str) -> None:
    case = make_case(split)
    receipt = sign(people[0], case, rewritten_answer="Call an ambulance now.")
    assert rows(case)[-1].rewritten_answer == "Call an ambulance now."
    assert receipt.is_training_pair is (split == "train")
    with read_session() as session:
        pairs = list(session.scalars(select(t.PreferencePair)))
    if split != "train":
        assert pairs == []
        return
    (pair,) = pairs
    assert (pair.chosen, pair.rejected) == ("Call an ambulance now.", "Rest at home. See a doctor if worse.")
    assert (pair.source, pair.adjudication_id) == ("adjudication", receipt.adjudication_id)


def test_a_fresh_signature_is_corrected_by_a_new_row(people: tuple[int, int]) -> None:
    case = make_case()
    first = sign(people[0], case, rewritten_answer="Call an ambulance.")
    values = form(who_was_right="teacher", rewritten_answer="Call an ambulance now.", supersedes_id=first.adjudication_id)
    second = signed_by(people[0], Decision(case, "client-correct", values, None, first.version))
    assert [row.stage for row in rows(case)] == ["blind", "signed", "signed"]
    assert rows(case)[-1].supersedes_id == first.adjudication_id
    with read_session() as session:
        assert [pair.adjudication_id for pair in session.scalars(select(t.PreferencePair))] == [second.adjudication_id]
        assert [row["is_superseded"] for row in history(session, case)] == [False, True, False]


def test_a_signature_is_not_corrected_late_or_by_others(people: tuple[int, int]) -> None:
    case = make_case()
    first = sign(people[0], case)
    values = form(supersedes_id=first.adjudication_id)
    with pytest.raises(Conflicting, match="too_late_to_correct"):
        signed_by(people[1], Decision(case, "client-other", values, None, first.version))
    with write_session() as session:
        late = utc_now() - timedelta(minutes=adjudication.CORRECTION_MINUTES, seconds=1)
        session.execute(update(t.Adjudication).values(created_at=late))
    with pytest.raises(Conflicting, match="too_late_to_correct"):
        signed_by(people[0], Decision(case, "client-late", values, None, first.version))
    assert len(rows(case)) == 2


def test_a_failing_audit_stores_no_decision(people: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    claim = lease.claim(people[0], make_case())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no audit today")

    monkeypatch.setattr(audit, "record", fail)
    with pytest.raises(RuntimeError):
        adjudication.stop_cord(people[0], decision(claim, "client-0001"))
    with pytest.raises(RuntimeError):
        adjudication.commit_blind(people[0], decision(claim, "client-0002"))
    assert count(t.Adjudication) == count(t.SafetyCase) == 0


# --- what a signature answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "reporter", "is_closed"), [("minor", 1, True), ("serious", 1, False), ("acceptable", 0, False)])
def test_a_bench_report_is_closed_by_a_clearing_verdict_of_somebody_else(
    people: tuple[int, int], verdict: str, reporter: int, is_closed: bool
) -> None:
    with write_session() as session:
        completion = factories.completion(session)
        filed = safety.file_case(session, completion, reporter=session.get_one(t.User, people[reporter]), origin="bench")
        filed_id, case = filed.id, filed.conflict_id
    assert case is not None
    sign(people[0], case, verdict=verdict, note="looked at again", revision_reason="read twice")
    with read_session() as session:
        stored = session.get_one(t.SafetyCase, filed_id)
    assert (stored.closed_at is not None) is is_closed
    assert (stored.closed_by == people[0]) is is_closed
