"""The queue's promises without processes: dedup, chains, cancel, retry, claim, fencing, pages, schedules."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from core import audit, demo
from core.errors import Conflicting, NotFound, Unavailable, UserError
from core.home import Home
from core.i18n import error_text
from core.jobs import api, leases, schedules
from core.jobs.forms import fields, problems
from core.jobs.kinds import KINDS
from core.records import CancelMode, JobStatus
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories
from tests.databases import held

SLOTS = {"gpu": ["gpu:0"], "cpu": ["cpu:0"]}


def add(kind: str = "score", **values: Any) -> int:
    with write_session() as session:
        return api.enqueue(session, kind, values.pop("config", {}), **values)


def get(job_id: int) -> t.Job:
    with read_session() as session:
        return api.get(session, job_id)


def claim(queue: str = "cpu", token: str = "mine", worker: str = "here#1", slot: str | None = None) -> t.Job | None:
    with write_session() as session:
        return leases.claim(session, queue, slot or f"{queue}:0", worker, token, utc_now())


def end(job: t.Job | None, status: JobStatus = JobStatus.SUCCEEDED, token: str = "mine") -> None:
    assert job is not None
    with write_session() as session:
        assert leases.finish(session, job.id, token, status)


def test_an_active_dedup_key_returns_the_old_job_and_an_ended_one_does_not(home: Home) -> None:
    first = add(dedup_key="k")
    assert add(dedup_key="k") == first
    end(claim())
    second = add(dedup_key="k")
    assert second != first
    with pytest.raises(Conflicting, match=r"jobs\.cannot_retry"), write_session() as session:
        api.retry(session, first, None)


def test_fifty_threads_with_one_key_queue_one_job(home: Home) -> None:
    ids: list[int] = []
    threads = [threading.Thread(target=lambda: ids.append(add(dedup_key="k"))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 50
    assert len(set(ids)) == 1


def test_a_job_is_stored_with_its_transaction_or_not_at_all(home: Home) -> None:
    def add_and_fail() -> None:
        with write_session() as session:
            api.enqueue(session, "score", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_and_fail()
    with read_session() as session:
        assert api.page(session) == []


def test_configs_are_checked_and_completed(home: Home) -> None:
    job = get(add("sft", config={"name": "x"}))
    assert (job.queue, job.max_attempts, job.config["lora_r"]) == ("gpu", 2, 16)
    for kind, config, code in (
        ("sft", {}, "jobs.bad_missing"),
        ("sft", {"name": "x", "lora": 1}, "jobs.bad_unknown_field"),
        ("sft", {"name": "x", "lora_r": 0}, "jobs.bad_below_minimum"),
        ("sft", {"name": "x", "lora_r": 1.5}, "jobs.bad_not_whole"),
        ("sft", {"name": "x", "learning_rate": "fast"}, "jobs.bad_not_number"),
        ("sample", {"model": "x", "split": "all"}, "jobs.bad_choice"),
    ):
        with pytest.raises(UserError) as caught:
            add(kind, config=config)
        assert caught.value.code == code
        for language in ("en", "zh"):
            assert caught.value.params["field"] in error_text(caught.value, language)
            assert "{" not in error_text(caught.value, language)
    with pytest.raises(NotFound, match="unknown_job_kind"):
        add("dance")
    with pytest.raises(NotFound, match=r"jobs\.no_such_job"):
        add(after_id=99)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_has_a_form_with_help_in_both_languages(kind: str) -> None:
    assert all(field.en and field.zh and field.type for field in fields(kind))
    required = {field.name for field in fields(kind) if field.is_required}
    found = problems(kind, {})
    assert required <= set(found)
    assert set(found) - required <= {"pairs"}, "only pairs may be left out, and only when something else is given in their place"


def test_a_follower_waits_for_success(home: Home) -> None:
    first = add()
    second = add(after_id=first)
    running = claim()
    assert running is not None
    assert running.id == first
    assert claim(slot="cpu:1") is None
    end(running)
    follower = claim()
    assert follower is not None
    assert follower.id == second


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.LOST])
def test_a_whole_chain_fails_with_its_head_and_revives_with_it(home: Home, status: JobStatus) -> None:
    head = add()
    rest = [head]
    for _ in range(3):
        rest.append(add(after_id=rest[-1]))
    beside = add(after_id=head)
    end(claim(), status)
    for job_id, upstream in zip([*rest[1:], beside], [*rest[:-1], head], strict=True):
        job = get(job_id)
        assert (job.status, job.error) == ("failed", {"code": "jobs.upstream_failed", "params": {"id": upstream}})
    with pytest.raises(Conflicting, match=r"jobs\.upstream_first"), write_session() as session:
        api.retry(session, rest[1], None)
    with write_session() as session:
        api.retry(session, head, None)
    assert [get(i).status for i in (*rest, beside)] == ["queued"] * 5
    assert [get(i).attempt for i in (*rest, beside)] == [2, 1, 1, 1, 1]


def test_cancelling_a_queued_job_takes_its_followers_along(home: Home) -> None:
    head = add()
    follower = add(after_id=head)
    with write_session() as session:
        api.cancel(session, head, CancelMode.STOP_AND_SAVE, None)
    assert [get(i).status for i in (head, follower)] == ["cancelled", "failed"]
    assert claim() is None
    with pytest.raises(Conflicting, match=r"jobs\.already_ended"), write_session() as session:
        api.cancel(session, head, CancelMode.STOP_NOW, None)


def test_stop_now_outranks_stop_and_save(home: Home) -> None:
    job_id = add()
    claim()
    for mode, stored in (("stop_and_save", "stop_and_save"), ("stop_now", "stop_now"), ("stop_and_save", "stop_now")):
        with write_session() as session:
            assert api.cancel(session, job_id, CancelMode(mode), None).cancel_mode == stored
    assert get(job_id).status == "running"


def test_a_retry_is_refused_while_its_dedup_key_is_taken(home: Home) -> None:
    first = add(dedup_key="k")
    end(claim(), JobStatus.FAILED)
    add(dedup_key="k")
    with pytest.raises(Conflicting, match=r"jobs\.already_active"), write_session() as session:
        api.retry(session, first, None)


def test_what_people_do_is_in_the_audit_chain(home: Home) -> None:
    with write_session() as session:
        person = factories.user(session, "engineer").id
    job_id = add(created_by=person)
    with write_session() as session:
        api.cancel(session, job_id, CancelMode.STOP_NOW, person)
        api.retry(session, job_id, person)
    with read_session() as session:
        entries = session.query(t.AuditEntry).order_by(t.AuditEntry.id).all()
        assert [(e.action, e.object_id, e.actor_id) for e in entries] == [
            (action, str(job_id), person) for action in ("start_job", "cancel_job", "retry_job")
        ]
        assert audit.verify(session) is None


def test_claim_goes_by_priority_then_age_and_one_job_per_slot(home: Home) -> None:
    low, high, later = add(), add(priority=5), add(priority=5)
    first = claim()
    assert first is not None
    assert first.id == high
    with pytest.raises(IntegrityError):
        claim()
    second = claim(slot="cpu:1")
    assert second is not None
    assert second.id == later
    end(first)
    third = claim()
    assert third is not None
    assert third.id == low


def test_open_slots_only_where_something_is_ready(home: Home) -> None:
    now = utc_now()
    add("sft", config={"name": "x"}, run_after=now + timedelta(hours=1))
    with read_session() as session:
        assert leases.open_slots(session, SLOTS, now) == []
        assert leases.open_slots(session, SLOTS, now + timedelta(hours=2)) == [("gpu", "gpu:0")]
    add()
    claim()
    add()
    with read_session() as session:
        assert leases.open_slots(session, SLOTS, now) == []


def test_a_worker_that_lost_its_lease_can_change_nothing(home: Home) -> None:
    job_id = add()
    claim(token="old", worker="here#1")
    with read_session() as session:
        [heart] = leases.hearts(session, [])
    with write_session() as session:
        assert leases.take_over(session, heart, "there#2", "new") is not None
        assert leases.take_over(session, heart, "third#3", "newer") is None  # its heart has beaten since
    with write_session() as session:
        assert leases.beat(session, job_id, "old", {"done": 1}) is None
        assert not leases.finish(session, job_id, "old", JobStatus.SUCCEEDED)
        assert leases.beat(session, job_id, "new", {"done": 2}) is not None
    job = get(job_id)
    assert (job.status, job.worker, job.progress) == ("running", "there#2", {"done": 2})


def test_a_row_put_back_keeps_its_attempt_and_goes_first(home: Home) -> None:
    taken = add()
    claim(worker="dead#1")
    add(priority=9)
    with read_session() as session:
        [heart] = leases.hearts(session, [])
    with write_session() as session:
        assert leases.put_back(session, heart)
    again = claim()
    assert again is not None
    assert (again.id, again.attempt) == (taken, 1)


def test_a_retry_held_back_by_a_clock_that_was_set_back_is_released(home: Home) -> None:
    waiting, planned = add(), add(run_after=utc_now() + timedelta(hours=1))
    with write_session() as session:
        row = api.get(session, waiting)
        row.attempt, row.run_after = 2, utc_now() + timedelta(hours=1)
    with read_session() as session:
        ended, late = leases.stuck(session, utc_now())
    assert (ended, late) == ([], [waiting])
    with write_session() as session:
        leases.release_late(session, late)
    job = claim()
    assert job is not None
    assert job.id == waiting
    assert get(planned).status == "queued"


def test_pages_and_counts(home: Home) -> None:
    ids = [add("score" if n % 2 else "conflicts") for n in range(7)]
    end(claim())
    with read_session() as session:
        first = api.page(session, limit=3)
        second = api.page(session, limit=3, before_id=first[-1].id)
        assert [job.id for job in first + second] == sorted(ids, reverse=True)[:6]
        assert [job.kind for job in api.page(session, kind="score")] == ["score"] * 3
        assert [job.id for job in api.page(session, status=["succeeded", "failed"])] == [ids[0]]
        assert api.counts(session) == {"queued": 6, "running": 0, "succeeded": 1, "failed": 0, "cancelled": 0, "lost": 0}


def test_a_locked_database_is_a_sentence_after_its_patience(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from db import engine

    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 100)
    engine.open_database(home.settings.url)
    with held(home.settings.url):
        with pytest.raises(Unavailable, match="database_locked"):
            add()
        with read_session() as session:
            assert api.page(session) == []  # reading is not held up
    add()


# --- the demo -----------------------------------------------------------------------------------------------------------


def test_the_demo_is_queued_once_while_it_is_active(home: Home) -> None:
    with write_session() as session:
        assert not demo.was_demo_run(session)
        ids = demo.queue_demo(session)
        assert demo.queue_demo(session) == ids
        assert demo.was_demo_run(session)
    assert len(ids) == 8
    with read_session() as session:
        chain = api.chain(session, ids[3])
    assert [job.kind for job in chain] == ["demo_base", "sft", "sample", "score", "conflicts", "ppo", "evaluate"]
    assert [job.after_id for job in chain] == [None, *ids[:6]]
    with write_session() as session:
        api.cancel(session, ids[0], CancelMode.STOP_NOW, None)
        assert demo.queue_demo(session) == [ids[7]]  # the index still waits: not a second demo beside it


# --- schedules ----------------------------------------------------------------------------------------------------------

MONDAY = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def weekly(next_at: datetime | None = MONDAY, cron: str = "0 3 * * 1", **values: Any) -> int:
    with write_session() as session:
        row = schedules.put(session, values.pop("name", "weekly"), "score", {}, cron, **values)
        row.next_at = next_at
        return row.id


def upcoming() -> datetime | None:
    with read_session() as session:
        return schedules.listed(session)[0].next_at


def test_a_schedule_fires_once_with_many_workers(home: Home) -> None:
    weekly()
    fired: list[tuple[str, int]] = []
    threads = [threading.Thread(target=lambda: fired.extend(schedules.fire_due(MONDAY))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fired) == 1
    assert upcoming() == MONDAY + timedelta(days=7)
    with read_session() as session:
        [job] = api.page(session)
        assert (job.kind, job.title) == ("score", "weekly")
        assert schedules.listed(session)[0].last_job_id == job.id


def test_a_schedule_is_in_its_own_time_zone() -> None:
    before = datetime(2026, 11, 20, tzinfo=UTC)
    assert schedules.following("0 3 * * 1", "Asia/Shanghai", before) == datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
    for cron, zone, code in (("0 3 * *", "UTC", "bad_cron"), ("x 3 * * 1", "UTC", "bad_cron"), ("0 3 * * 1", "Mars", "bad_timezone")):
        with pytest.raises(UserError, match=f"jobs.{code}"):
            schedules.following(cron, zone, before)


def test_missed_times_are_not_made_up(home: Home) -> None:
    weekly()
    assert len(schedules.fire_due(MONDAY + timedelta(days=40))) == 1
    assert upcoming() == MONDAY + timedelta(days=42)


def test_a_clock_set_back_over_a_fired_time_does_not_fire_it_again(home: Home) -> None:
    weekly()
    assert len(schedules.fire_due(MONDAY + timedelta(minutes=30))) == 1
    end(claim())
    for minutes in (-30, -1, 0, 5):
        assert schedules.fire_due(MONDAY + timedelta(minutes=minutes)) == []
    assert len(schedules.fire_due(MONDAY + timedelta(days=7))) == 1


def test_a_clock_set_back_by_many_periods_does_not_stall_a_schedule(home: Home) -> None:
    weekly(next_at=MONDAY + timedelta(hours=3), cron="* * * * *")
    assert schedules.fire_due(MONDAY) == []
    assert upcoming() == MONDAY + timedelta(minutes=1)
    assert len(schedules.fire_due(MONDAY + timedelta(minutes=1))) == 1


def test_a_schedule_whose_last_job_still_waits_queues_no_second(home: Home) -> None:
    weekly()
    [(_, first)] = schedules.fire_due(MONDAY)
    [(_, second)] = schedules.fire_due(MONDAY + timedelta(days=7))
    assert first == second


def test_a_paused_schedule_rests_and_one_that_cannot_run_is_paused(home: Home) -> None:
    schedule_id = weekly()
    with write_session() as session:
        schedules.switch(session, schedule_id, is_active=False, by=None)
    assert schedules.fire_due(MONDAY) == []
    with write_session() as session:
        schedules.switch(session, schedule_id, is_active=True, by=None)
        row = session.get(t.Schedule, schedule_id)
        assert row is not None
        assert row.next_at is not None
        assert row.next_at > utc_now()
        row.kind, row.next_at = "retired_kind", MONDAY
    assert schedules.fire_due(MONDAY) == []
    with read_session() as session:
        assert not schedules.listed(session)[0].is_active
