"""The queue under the faults that machines have: killed workers, killed supervisors, stubborn processes, locks, full disks."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from core.jobs import api
from core.jobs.launch import shim
from core.records import CancelMode
from core.settings import ROOT
from db.engine import read_session, write_session
from tests.databases import held, sqlite_only
from tests.faults.rig import Rig


def cancel(job_id: int, mode: CancelMode = CancelMode.STOP_NOW) -> None:
    with write_session() as session:
        api.cancel(session, job_id, mode, None)


def test_a_killed_worker_costs_a_running_job_nothing(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.enqueue(steps=30, step_s=0.1)
    rig.reached(job, 3)
    rig.kill(worker)
    rig.reached(job, 8)  # nobody drives it, and it goes on
    rig.worker()
    [row] = rig.ended(job)
    assert row.status == "succeeded"
    assert row.attempt == 1
    assert row.result == {"first": 0}
    assert len(rig.journal(job, "start")) == len(rig.journal(job, "end")) == 1


def test_a_job_that_ended_while_no_worker_lived_is_settled_by_the_next(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.enqueue(steps=6, step_s=0.1)
    rig.reached(job, 2)
    rig.kill(worker)
    rig.until(lambda: (rig.home.run_dir(job) / "exit.1.json").exists(), "exit file")
    assert rig.job(job).status == "running"
    rig.worker()
    assert rig.ended(job)[0].status == "succeeded"
    assert len(rig.journal(job, "start")) == 1


def test_sigterm_ends_the_worker_within_two_seconds_and_no_training(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.enqueue(steps=30, step_s=0.1)
    rig.reached(job, 2)
    started = time.monotonic()
    rig.kill(worker, signal.SIGTERM)
    assert worker.returncode == 0
    assert time.monotonic() - started < 2
    rig.reached(job, 6)
    rig.worker()
    assert rig.ended(job)[0].status == "succeeded"
    assert len(rig.journal(job, "start")) == 1


def test_after_everything_was_killed_a_job_resumes_from_its_checkpoint(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.enqueue("fake_gpu", steps=30, step_s=0.1)
    rig.reached(job, 5)
    for pid in [worker.pid, *rig.supervisors(), *rig.processes()]:
        shim.send(pid, signal.SIGKILL)
    worker.wait(10)
    rig.worker()
    [row] = rig.ended(job)
    assert row.status == "succeeded"
    assert row.result["first"] >= 5
    assert len(rig.journal(job, "start")) == 2
    assert len(rig.journal(job, "end")) == 1


def test_a_killed_supervisor_takes_its_family_along_and_the_job_restarts(rig: Rig) -> None:
    rig.worker()
    job = rig.enqueue("fake_gpu", steps=30, step_s=0.1, mode="stubborn")
    rig.reached(job, 3)
    before = set(rig.processes())
    assert len(before) == 5  # the job, three deaf children, a daemon in a session of its own
    for pid in rig.supervisors():
        shim.send(pid, signal.SIGKILL)
    rig.until(lambda: len(rig.journal(job, "start")) == 2, "restart")
    assert not before & set(rig.processes())
    cancel(job)
    assert rig.ended(job)[0].status == "cancelled"
    assert rig.processes() == []


def test_a_supervisor_killed_after_the_work_was_complete_causes_no_second_run(rig: Rig) -> None:
    rig.worker()
    job = rig.enqueue(slow_exit_s=60)
    done = rig.home.run_dir(job) / "done.json"
    rig.until(done.exists, "work complete")
    for pid in rig.supervisors():
        shim.send(pid, signal.SIGKILL)
    [row] = rig.ended(job, timeout_s=10)
    assert (row.status, row.result) == ("succeeded", {"first": 0})
    assert len(rig.journal(job, "start")) == 1


def test_a_supervisor_that_is_killed_each_time_is_given_up(rig: Rig) -> None:
    rig.worker(FAKE_MAX_RESTARTS="1")
    job = rig.enqueue(steps=100, step_s=0.1)
    behind = rig.enqueue(after_id=job)
    for number in (1, 2):
        rig.until(lambda n=number: len(rig.journal(job, "start")) == n, f"start {number}")
        for pid in rig.supervisors():
            shim.send(pid, signal.SIGKILL)
    lost, follower = rig.ended(job, behind)
    assert (lost.status, lost.error["code"]) == ("lost", "jobs.lost")
    assert (follower.status, follower.error["code"]) == ("failed", "jobs.upstream_failed")
    assert len(rig.journal(job, "start")) == 2


def test_stop_now_ends_every_descendant_of_a_stubborn_job(rig: Rig) -> None:
    rig.worker()
    job = rig.enqueue("fake_gpu", steps=300, step_s=0.1, mode="stubborn")
    rig.reached(job, 2)
    assert len(rig.processes()) == 5
    cancel(job)
    [row] = rig.ended(job, timeout_s=10)
    assert row.status == "cancelled"
    assert rig.processes() == []
    assert rig.journal(job, "end") == []


def test_stop_and_save_keeps_the_checkpoint_and_a_retry_goes_on_from_it(rig: Rig) -> None:
    rig.worker()
    job = rig.enqueue(steps=20, step_s=0.1)
    rig.reached(job, 3)
    cancel(job, CancelMode.STOP_AND_SAVE)
    [row] = rig.ended(job)
    assert (row.status, row.exit_code) == ("cancelled", 3)
    with write_session() as session:
        api.retry(session, job, None)
    [row] = rig.ended(job)
    assert (row.status, row.attempt) == ("succeeded", 2)
    assert row.result["first"] >= 3


def test_a_cancelled_queued_job_never_starts(rig: Rig) -> None:
    job, other = rig.enqueue(), rig.enqueue()
    cancel(job)
    rig.worker()
    assert [row.status for row in rig.ended(job, other)] == ["cancelled", "succeeded"]
    assert rig.journal(job) == []


def test_a_job_taken_from_a_dead_worker_can_still_be_cancelled(rig: Rig) -> None:
    """Its row is queued again (another machine's reaper did that) while its process lives: cancelling must end the process."""
    worker = rig.worker()
    job = rig.enqueue(steps=300, step_s=0.1)
    rig.reached(job, 2)
    rig.kill(worker)
    with write_session() as session:
        row = api.get(session, job)
        row.status, row.slot, row.lease_token = "queued", None, None
    cancel(job)
    assert rig.job(job).status == "queued"
    assert len(rig.processes()) == 1
    rig.worker()
    assert rig.ended(job)[0].status == "cancelled"
    assert rig.processes() == []
    assert len(rig.journal(job, "start")) == 1


def test_a_crash_is_retried_from_the_checkpoint_and_then_told_in_a_sentence(rig: Rig) -> None:
    rig.worker()
    once, always, user = rig.enqueue(steps=6, crash_at=3), rig.enqueue(crash_at=1, mode="always_crash"), rig.enqueue(mode="user_error")
    first, second, third = rig.ended(once, always, user)
    assert (first.status, first.attempt, first.result, first.error) == ("succeeded", 2, {"first": 3}, {})
    assert (second.status, second.attempt, second.exit_code) == ("failed", 2, 1)
    assert second.error["code"] == "jobs.crashed"
    assert second.error["params"]["last"] == "RuntimeError: the fake crash"
    assert "Traceback" in second.error["log"]
    assert (third.status, third.attempt, third.exit_code, third.error["code"]) == ("failed", 1, 4, "disk_full")


def test_a_locked_database_delays_but_kills_nothing(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.enqueue(steps=10, step_s=0.1)
    rig.reached(job, 2)
    with held(rig.home.settings.url):
        rig.until(lambda: rig.journal(job, "end"), "the job itself")
        time.sleep(3)  # longer than the lease and than the worker's own patience
        assert worker.poll() is None
        assert rig.job(job).status == "running"
    assert rig.ended(job)[0].status == "succeeded"
    with held(rig.home.settings.url):
        started = time.monotonic()
        time.sleep(1)
        rig.kill(worker, signal.SIGTERM)
    assert time.monotonic() - started < 4
    assert "locked" in rig.log()
    assert len(rig.journal(job, "start")) == 1


def test_two_workers_share_200_jobs_and_none_runs_twice(rig: Rig) -> None:
    """Two homes on one database. One of them is killed in mid-race; what it held is taken over."""
    journal = rig.home.root / "race.txt"
    second_home = rig.home.root.parent / "second"
    shared = {
        "RACE_JOURNAL": str(journal),
        "CONSILIUM_DATABASE_URL": rig.home.settings.url,
        "CONSILIUM_NUM_CPU_SLOTS": "4",
    }
    with write_session() as session:
        ids = [api.enqueue(session, "fake", {}) for _ in range(200)]
    rig.worker("--instant", wait=False, **shared)
    rig.worker("--instant", wait=False, **{**shared, "CONSILIUM_HOME": str(second_home)})

    def num_done() -> int:
        with read_session() as session:
            return api.counts(session)["succeeded"]

    rig.until(lambda: num_done() >= 60, "60 jobs")
    rig.kill(rig.workers[1])
    rig.until(lambda: num_done() == 200, "200 jobs", 60)
    starts: dict[int, list[int]] = {}
    for line in journal.read_text().splitlines():
        job, pid = map(int, line.split())
        starts.setdefault(job, []).append(pid)
    assert set(starts) == set(ids)
    assert len({pid for pids in starts.values() for pid in pids}) == 2
    again = [pids for pids in starts.values() if len(pids) > 1]
    # Only what the killed one held (four slots at most) may have been started by the other as well, and nothing else.
    assert len(again) <= 4
    assert all(pids == [rig.workers[1].pid, rig.workers[0].pid] for pids in again)


def test_gpu_jobs_never_overlap_and_priority_decides(rig: Rig) -> None:
    ids = [rig.enqueue("fake_gpu", steps=4) for _ in range(4)]
    with write_session() as session:
        ids.append(api.enqueue(session, "fake_gpu", {"steps": 4}, priority=5))
    worker = rig.worker()
    rig.until(lambda: len(rig.journal(what="end")) >= 2, "two jobs")
    rig.kill(worker)
    rig.worker()
    rig.ended(*ids)
    order = [(entry["job"], entry["what"]) for entry in rig.journal() if entry["what"] != "step"]
    assert order == [(job, what) for job in (ids[-1], *ids[:-1]) for what in ("start", "end")]


def test_twenty_jobs_survive_random_kills(rig: Rig) -> None:
    """Workers, supervisors and trainings are killed at random; every job ends once, no two runs of it or of the GPU overlap."""
    rng = random.Random(7)
    ids = [rig.enqueue(kind, steps=8, step_s=0.04) for _ in range(10) for kind in ("fake", "fake_gpu")]
    worker = rig.worker(CONSILIUM_NUM_CPU_SLOTS="2", FAKE_MAX_RESTARTS="50")
    deadline, kills = time.monotonic() + 20, 0
    while time.monotonic() < deadline and any(rig.job(i).status not in ("succeeded",) for i in ids):
        time.sleep(rng.uniform(0.2, 0.9))
        victims = {"worker": [worker.pid], "supervisor": rig.supervisors()}[rng.choice(["worker", "worker", "supervisor"])]
        for pid in victims[:1]:
            shim.send(pid, signal.SIGKILL)
            kills += 1
        if victims == [worker.pid]:
            worker.wait(10)
            worker = rig.worker(CONSILIUM_NUM_CPU_SLOTS="2", FAKE_MAX_RESTARTS="50")
    rows = rig.ended(*ids, timeout_s=40)
    assert kills >= 8
    assert [row.status for row in rows] == ["succeeded"] * 20
    for job in ids:
        assert len(rig.journal(job, "end")) == 1
        assert rig.journal(job)[-1]["what"] == "end"
        assert one_after_the_other(rig.journal(job))
    gpu = set(ids[1::2])
    assert one_after_the_other([entry for entry in rig.journal() if entry["job"] in gpu])
    assert rig.processes() == []


def one_after_the_other(entries: list[dict[str, Any]]) -> bool:
    """True when no process wrote again after another one had begun to write."""
    order = [entry["pid"] for entry in sorted(entries, key=lambda e: e["at"])]
    return len([pid for n, pid in enumerate(order) if n == 0 or pid != order[n - 1]]) == len(set(order))


def test_a_second_worker_of_the_same_home_steps_aside(rig: Rig) -> None:
    rig.worker()
    second = rig.worker(wait=False)
    assert second.wait() == 1
    assert "Another worker already looks after" in rig.log()
    assert rig.workers[0].poll() is None


def test_a_supervisor_that_hangs_is_forced(rig: Rig) -> None:
    rig.worker()
    job = rig.enqueue("fake_gpu", steps=300, step_s=0.1, mode="stubborn")
    rig.reached(job, 2)
    [supervisor] = rig.supervisors()
    shim.send(supervisor, signal.SIGSTOP)
    cancel(job)
    assert rig.ended(job, timeout_s=10)[0].status == "cancelled"
    assert rig.processes() == []


def test_a_worker_whose_job_was_given_to_another_machine_ends_its_own_run(rig: Rig) -> None:
    rig.worker()
    job = rig.enqueue(steps=300, step_s=0.1)
    rig.reached(job, 2)
    with write_session() as session:
        row = api.get(session, job)
        row.worker, row.lease_token, row.heartbeat = "elsewhere:/home#1", "theirs", row.heartbeat + 1000
    rig.until(lambda: not rig.processes(), "its process ended", 10)
    row = rig.job(job)
    assert (row.status, row.lease_token, row.exit_code) == ("running", "theirs", None)


def test_a_kind_that_the_program_no_longer_knows_fails_its_job_and_no_other(rig: Rig) -> None:
    job, other = rig.enqueue(), rig.enqueue()
    with write_session() as session:
        api.get(session, job).kind = "retired_kind"
    rig.worker()
    first, second = rig.ended(job, other)
    assert (first.status, first.error["code"]) == ("failed", "unknown_job_kind")
    assert second.status == "succeeded"


def test_strays_without_a_supervisor_are_swept_when_a_worker_starts(rig: Rig) -> None:
    run_dir = rig.home.run_dir(77)
    run_dir.mkdir()
    stray = subprocess.Popen(["setsid", "sleep", "600"], env={shim.RUN_TAG: str(run_dir.resolve()), "PATH": "/usr/bin:/bin"})
    rig.worker()
    assert stray.wait(10) == -signal.SIGKILL


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small disk")
def test_the_exit_file_waits_for_space_on_a_full_disk_and_gives_up_when_the_folder_vanishes() -> None:
    script = f"""
set -e
disk=$(mktemp -d); mount -t tmpfs -o size=256k none "$disk" || exit 77
mkdir "$disk/000001"
{sys.executable} -I -S {shim.__file__} --run-dir "$disk/000001" --attempt 1 -- /bin/sh -c 'sleep 0.5' 2>/dev/null &
sleep 0.3; dd if=/dev/zero of="$disk/fill" bs=4k 2>/dev/null || true
sleep 1.2; test ! -e "$disk/000001/exit.1.json" && echo waits
kill -0 $! && echo alive
rm "$disk/fill"; wait $!; grep -q '"code": 0' "$disk/000001/exit.1.json" && echo written
mkdir "$disk/000002"
{sys.executable} -I -S {shim.__file__} --run-dir "$disk/000002" --attempt 1 -- /bin/sh -c 'sleep 0.4' 2>/dev/null &
sleep 0.3; rm -r "$disk/000002"; wait $! || echo gave up
"""
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip(f"no small disk could be mounted: {done.stderr.strip()[:100]}")
    assert done.stdout.split("\n")[:4] == ["waits", "alive", "written", "gave up"], done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small disk")
@sqlite_only
def test_a_full_disk_stops_neither_worker_nor_queue() -> None:
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-m", "tests.faults.full_disk"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77 or (done.returncode == 1 and "unshare" in done.stderr):
        pytest.skip(f"no small disk could be mounted: {done.stderr.strip()[:100]}")
    assert done.stdout.split() == ["refused", "alive", "waits", "succeeded", "succeeded", "ok"], done.stdout + done.stderr
