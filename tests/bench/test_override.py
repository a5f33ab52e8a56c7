"""Promoting over a closed gate: two people within a day, both recorded with what they saw; never over weights that changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from core import audit
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home
from core.override import countersign, decline, request_override, requests, waiting
from core.promotion import history
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories
from tests.bench.fake_endpoint import FakeEndpoint
from tests.bench.test_promotion import evaluate, go, person, serving, version

WHY = "the two cases are duplicates of a question the desk has withdrawn"


@pytest.fixture(autouse=True)
def quick_server(local_server: FakeEndpoint) -> None:
    local_server.piece_s = 0.0


@pytest.fixture
def closed_gate(home: Home) -> int:
    """v1 serves; v2 lost emergency advice on two cases. Returns the product person, Li Na."""
    user = person()
    for name in ("v1", "v2"):
        version(home, name)
    evaluate("v1")
    go(user, "v1")
    evaluate("v1", "v2", regressions=(1001, 1002))
    return user


def ask(user: int, name: str = "v2", **values: Any) -> int:
    return request_override(
        user, name, **{"proof": factories.proof(user), "reason": WHY, "signed_name": "Li Na", "expected_serving": "v1", **values}
    )


def second(user: int, request: int, name: str = "Dr Wu", **values: Any) -> int:
    return countersign(
        user, request, **{"proof": factories.proof(user), "reason": "read both cases, agreed", "signed_name": name, **values}
    )


def test_the_first_signature_serves_nothing_and_the_second_promotes_with_both_on_record(closed_gate: int) -> None:
    doctor = person("clinician", "Dr Wu")
    request = ask(closed_gate)
    assert serving() == "v1"
    assert [r.id for r in waiting(doctor)] == [request]
    assert waiting(closed_gate) == []
    event = second(doctor, request)
    assert serving() == "v2"
    with read_session() as session:
        row = session.get_one(t.ServingEvent, event)
        assert (row.actor_id, row.second_actor_id, row.signed_name, row.reason) == (closed_gate, doctor, "Li Na", WHY)
        override = row.checks["override"]
        assert (override["first"]["name"], override["second"]["name"]) == ("Li Na", "Dr Wu")
        for gates in (row.checks["gates"], override["gates_at_request"]["gates"]):
            assert [g["name"] for g in gates if not g["is_passed"]] == ["regressions", "sample"]
        stored = session.get_one(t.PromotionRequest, request)
        assert (stored.status, stored.second_by, stored.event_id) == ("promoted", doctor, event)
        actions = list(session.scalars(select(t.AuditEntry.action).order_by(t.AuditEntry.id)))
        assert actions[-4:] == ["request_override", "promote", "countersign_override", "smoke_test"]
        assert audit.verify(session) is None
        assert history(session)[0].second_name == "Dr Wu"
    assert [(r.status, r.second_name) for r in requests("v2")] == [("promoted", "Dr Wu")]


def test_nobody_countersigns_their_own_request(home: Home, closed_gate: int) -> None:
    admin = person("admin", "Zhao Min")
    request = ask(admin, signed_name="Zhao Min")
    with pytest.raises(Forbidden, match="own_request"):
        second(admin, request, "Zhao Min")
    assert serving() == "v1"
    second(person("admin", "Qian"), request, "Qian")
    assert serving() == "v2"


@pytest.mark.parametrize("role", ["product", "engineer"])
def test_only_administrators_and_clinicians_countersign(closed_gate: int, role: str) -> None:
    request = ask(closed_gate)
    with pytest.raises(Forbidden):
        second(person(role, "Dr Wu"), request)
    assert serving() == "v1"


@pytest.mark.parametrize("role", ["clinician", "engineer"])
def test_only_product_and_administrators_ask(closed_gate: int, role: str) -> None:
    with pytest.raises(Forbidden):
        ask(person(role))


def test_reason_and_name_are_needed_both_times(closed_gate: int) -> None:
    with pytest.raises(UserError, match="reason_missing"):
        ask(closed_gate, reason=" ok ")
    with pytest.raises(UserError, match="sign_with_name"):
        ask(closed_gate, signed_name="Somebody")
    request, doctor = ask(closed_gate), person("clinician", "Dr Wu")
    with pytest.raises(UserError, match="reason_missing"):
        second(doctor, request, reason="")
    with pytest.raises(UserError, match="sign_with_name"):
        second(doctor, request, "Li Na")
    assert serving() == "v1"


def test_changed_weights_can_never_be_overridden(home: Home, closed_gate: int) -> None:
    request, doctor = ask(closed_gate), person("clinician", "Dr Wu")
    (home.models / "v2" / "adapter_model.safetensors").write_bytes(b"tampered")
    with pytest.raises(UserError, match="never_overridden"):
        second(doctor, request)
    decline(closed_gate, request, reason="the files changed")
    with pytest.raises(UserError, match="never_overridden"):
        ask(closed_gate)
    assert serving() == "v1"


def test_a_request_runs_out_after_a_day_and_makes_room(closed_gate: int) -> None:
    request, doctor = ask(closed_gate), person("clinician", "Dr Wu")
    with pytest.raises(Conflicting, match="override_open"):
        ask(closed_gate)
    with write_session() as session:
        row = session.get_one(t.PromotionRequest, request)
        assert row.expires_at - row.created_at > timedelta(hours=23, minutes=59)
        row.expires_at = utc_now() - timedelta(seconds=1)
    with pytest.raises(Conflicting, match="request_expired"):
        second(doctor, request)
    assert [r.status for r in requests("v2")] == ["expired"]
    assert waiting(doctor) == []
    assert ask(closed_gate) != request


def test_a_request_counts_only_for_what_was_seen(home: Home, closed_gate: int) -> None:
    request, doctor = ask(closed_gate), person("clinician", "Dr Wu")
    evaluate("v1", "v2", regressions=(1001, 1002, 1003))
    with pytest.raises(Conflicting, match="request_outdated"):
        second(doctor, request)
    decline(doctor, request, reason="a newer report lost a third case")
    assert [(r.status, r.second_name) for r in requests("v2")] == [("declined", "Dr Wu")]
    with pytest.raises(Conflicting, match="request_closed"):
        second(doctor, request)
    request = ask(closed_gate)
    version(home, "v3")
    evaluate("v1", "v3")
    go(closed_gate, "v3", "v1")
    with pytest.raises(Conflicting, match="serving_changed"):
        second(doctor, request)
    assert serving() == "v3"


def test_open_gates_need_no_second_person_and_unknown_requests_are_not_found(home: Home, closed_gate: int) -> None:
    version(home, "v3")
    evaluate("v1", "v3")
    with pytest.raises(UserError, match="nothing_to_override"):
        ask(closed_gate, "v3")
    with pytest.raises(NotFound, match="no_such_request"):
        second(person("clinician", "Dr Wu"), 99)


def test_a_requester_who_lost_the_role_cannot_be_countersigned(closed_gate: int) -> None:
    request = ask(closed_gate)
    with write_session() as session:
        session.get_one(t.User, closed_gate).role = "engineer"
    with pytest.raises(Forbidden):
        second(person("clinician", "Dr Wu"), request)
    assert serving() == "v1"
