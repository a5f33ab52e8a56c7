"""The loop that drives jobs: take over, claim, look after, settle. One thread, nothing kept that a restart would lose.

A job runs under its supervisor (`core.jobs.launch`), so the loop only looks and writes rows; when it dies, the next one reads
the same rows and the same run folders and goes on. All of its writes are conditional updates of job rows, so on PostgreSQL they
queue behind nobody (`parallel`), and workers on many machines share one queue, each with slots of its own machine. Every step may
fail (database locked, disk full) and is simply done again at a later tick, with a line in the log. Leases are judged by this
process's monotonic clock, never by the wall clock.

Called by `core.worker` and by tests.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from core.errors import NotFound, Unavailable
from core.home import Home
from core.jobs import api, endings, leases, schedules
from core.jobs.launch.base import Exit, Launcher, Lost, Task
from core.jobs.launch.choose import launcher_of, slots_of
from core.jobs.tasks import task_of, write_config
from core.records import CancelMode, JobStatus
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

log = logging.getLogger("consilium.worker")

#: starts of one attempt that may end with a killed supervisor before the job is given up
MAX_RESTARTS = 5
LOSS_WAIT_S = 1.0
#: an attempt that ran this long before its supervisor was killed is not part of a crash loop
LONG_RUN_S = 600.0
#: between SIGTERM and SIGKILL when a job is stopped now
GRACE_S = 5.0
#: a supervisor that has not ended everybody this long after its grace is killed itself
FORCE_AFTER_S = 20.0


@dataclass
class Driven:
    """A job this worker drives. Times are on the monotonic clock."""

    job: t.Job
    task: Task
    token: str
    start_at: float = 0.0
    asked_at: float | None = None
    ask_again_at: float = 0.0
    progress_stamp: int = 0


class Worker:
    def __init__(
        self,
        home: Home,
        launcher: Launcher | None = None,
        *,
        beat_s: float = 1.0,
        sweep_s: float = 60.0,
        grace_s: float | None = None,
    ) -> None:
        settings = home.settings
        grace_s = GRACE_S if grace_s is None else grace_s
        self.home = home
        self.launcher: Launcher = launcher or launcher_of(home, grace_s=grace_s)
        self.place = f"{home.machine}:{home.root.resolve()}"
        self.name = f"{self.place}#{os.getpid()}"
        self.slots = slots_of(home)
        self.lease_s = settings.job_lease_s
        self.grace_s = grace_s
        self.driven: dict[int, Driven] = {}
        self._seen: dict[int, tuple[int, float]] = {}
        self._has_adopted = False
        self._complaints: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._periods = {"beat": beat_s, "reap": min(5.0, self.lease_s / 4), "sweep": sweep_s, "schedules": 1.0, "unstick": 5.0}

    def tick(self) -> None:
        """One round. Never raises for a database or disk fault."""
        self._try("adopt", self._adopt, always=not self._has_adopted)
        self._try("sweep", self._sweep)
        self._try("reap", self._reap)
        self._try("unstick", self._unstick)
        self._try("schedules", self._fire_schedules)
        known = set(self.driven)
        self._drive_all(known)
        self._try("claim", self._claim, always=True)
        self._drive_all(set(self.driven) - known)
        self._try("beat", self._beat)

    def _try(self, what: str, step: Callable[[], None], *, always: bool = False) -> None:
        if what in self._periods:
            if time.monotonic() < self._due.get(what, 0.0):
                return
            self._due[what] = time.monotonic() + self._periods[what]
        elif not always:
            return
        try:
            step()
        except (Unavailable, SQLAlchemyError, OSError) as error:
            self._seen.clear()  # hearts could not beat while the database stood still, so count their silence anew
            now = time.monotonic()
            if now > self._complaints.get(what, 0.0):
                log.warning("%s: %s; trying again", what, " ".join(str(error).split())[:300])
                self._complaints[what] = now + 10
        else:
            if self._complaints.pop(what, None) is not None:
                log.info("%s: works again", what)

    # --- whose job is it --------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """At start: one worker runs per home, so whatever an earlier one of this home drove is ours at once."""
        with read_session() as session:
            mine = [heart for heart in leases.hearts(session, self.driven) if self._is_of_this_place(heart.worker)]
        for heart in mine:
            self._take_over(heart)
        self._has_adopted = True

    def _reap(self) -> None:
        with read_session() as session:
            hearts = leases.hearts(session, self.driven)
        now = time.monotonic()
        self._seen = {
            h.job_id: seen if (seen := self._seen.get(h.job_id)) and seen[0] == h.heartbeat else (h.heartbeat, now) for h in hearts
        }
        for heart in hearts:
            if now - self._seen[heart.job_id][1] < self.lease_s:
                continue
            log.warning("job %d: no heartbeat of %s for %.0f s", heart.job_id, heart.worker, self.lease_s)
            if self._is_of_this_place(heart.worker):
                self._take_over(heart)
            else:
                with write_session(parallel=True) as session:
                    leases.put_back(session, heart)

    def _take_over(self, heart: leases.Heart) -> None:
        token = uuid.uuid4().hex
        with write_session(parallel=True) as session:
            job = leases.take_over(session, heart, self.name, token)
        if job is not None:
            log.info("job %d: taken over from %s", job.id, heart.worker)
            self._take(job, token)

    def _is_of_this_place(self, worker: str | None) -> bool:
        return worker is None or worker.rpartition("#")[0] == self.place

    def _claim(self) -> None:
        with read_session() as session:  # reads first, so that an idle worker never takes the write lock
            openings = leases.open_slots(session, self.slots, utc_now())
        for queue, slot in openings:
            token = uuid.uuid4().hex
            try:
                with write_session(parallel=True) as session:
                    job = leases.claim(session, queue, slot, self.name, token, utc_now())
            except IntegrityError:  # another worker was quicker
                continue
            if job is not None:
                log.info("job %d (%s): attempt %d of %d in %s", job.id, job.kind, job.attempt, job.max_attempts, slot)
                self._take(job, token)

    def _take(self, job: t.Job, token: str) -> None:
        try:
            self.driven[job.id] = Driven(job, task_of(self.home, job), token)
        except NotFound as error:  # its kind went away with an update of the program
            self._finish(job, token, JobStatus.FAILED, error={"code": error.code, "params": error.params})

    # --- looking after it -------------------------------------------------------------------------------------------

    def _drive_all(self, job_ids: set[int]) -> None:
        for job_id in job_ids & set(self.driven):
            self._try(f"job {job_id}", partial(self._drive, self.driven[job_id]), always=True)

    def _drive(self, d: Driven) -> None:
        state = self.launcher.poll(d.task)
        if isinstance(state, Exit):
            self._settle(d, state)
        elif state is None:
            self._name_it(d)
            self._ask_to_end(d)
        elif d.job.cancel_mode is not None:
            self.launcher.seal(d.task, endings.CANCELLED)
        elif isinstance(state, Lost):
            self._count_loss(d, state)
        elif time.monotonic() >= d.start_at:
            self._start(d)

    def _start(self, d: Driven) -> None:
        d.start_at = time.monotonic() + 5  # before the next try, should this one fail
        write_config(d.task, d.job)
        with write_session(parallel=True) as session:
            if leases.change(session, d.job.id, d.token, command=list(d.task.argv), launcher=self.launcher.name, external_id=None) is None:
                self._lose(d)
                return
        log.info("job %d: %s", d.job.id, "started again" if d.task.start else "started")
        self.launcher.start(d.task)

    def _name_it(self, d: Driven) -> None:
        """Store under which id a cluster's queue knows the job, once it is known."""
        external_id = self.launcher.external_id(d.task)
        if external_id is not None and external_id != d.job.external_id:
            with write_session(parallel=True) as session:
                d.job = leases.change(session, d.job.id, d.token, external_id=external_id) or d.job

    def _count_loss(self, d: Driven, lost: Lost) -> None:
        """Its supervisor was killed and its processes with it. Start again, later each time, and not for ever.

        The count is stored before the start and names it, so that a worker killed in between does not count a loss twice.
        """
        restarts = d.job.restarts + 1
        if lost.lived_s > LONG_RUN_S:  # not part of a crash loop
            restarts = 0 if d.job.restarts else 1
        if restarts > MAX_RESTARTS:
            self.launcher.seal(d.task, endings.LOST)
            return
        with write_session(parallel=True) as session:
            job = leases.change(session, d.job.id, d.token, restarts=restarts)
        if job is None:
            self._lose(d)
            return
        log.warning("job %d: its supervisor was killed (%d of %d)", job.id, restarts, MAX_RESTARTS)
        d.job, d.task = job, task_of(self.home, job)
        d.start_at = time.monotonic() + (0 if restarts <= 1 else min(LOSS_WAIT_S * 2.0**restarts, 60))
        self.launcher.sweep()

    def _ask_to_end(self, d: Driven) -> None:
        mode, now = d.job.cancel_mode, time.monotonic()
        if mode == CancelMode.STOP_AND_SAVE:
            if not (d.task.run_dir / "STOP").exists():
                (d.task.run_dir / "STOP").touch()
        elif mode == CancelMode.STOP_NOW:
            d.asked_at = d.asked_at or now
            if now >= d.ask_again_at:
                self.launcher.terminate(d.task, force=now - d.asked_at > self.grace_s + FORCE_AFTER_S)
                d.ask_again_at = now + 1

    def _settle(self, d: Driven, ended: Exit) -> None:
        ending = endings.decide(d.job, ended, d.task.run_dir, max_restarts=MAX_RESTARTS)
        values: dict[str, Any] = {"exit_code": ending.exit_code, "error": ending.error}
        progress = self._progress(d, newest_only=False)
        if progress is not None:
            values["progress"] = progress
        if ending.status is None:
            with write_session(parallel=True) as session:
                leases.again(session, d.job, d.token, wait_s=ending.wait_s, **ending.values, **values)
            log.warning("job %d: attempt %d ended (%s), queued again", d.job.id, d.job.attempt, ending.error.get("code", ""))
        else:
            self._finish(d.job, d.token, ending.status, **values, **ending.values)
        self.driven.pop(d.job.id, None)

    def _finish(self, job: t.Job, token: str, status: JobStatus, **values: Any) -> None:
        with write_session(parallel=True) as session:
            is_ours = leases.finish(session, job.id, token, status, **values)
        log.info("job %d: %s%s", job.id, status.value, "" if is_ours else ", but another worker drives it by now")

    def _beat(self) -> None:
        if not self.driven:
            return
        with write_session(parallel=True) as session:
            rows = {d.job.id: leases.beat(session, d.job.id, d.token, self._progress(d, newest_only=True)) for d in self.driven.values()}
        for job_id, row in rows.items():
            if row is None:
                self._lose(self.driven[job_id])
            else:
                self.driven[job_id].job = row

    def _lose(self, d: Driven) -> None:
        """Somebody else drives it. On another machine it would run twice, so end ours; here it is the same process."""
        self.driven.pop(d.job.id, None)
        with read_session() as session:
            row = session.get(t.Job, d.job.id)
        log.warning("job %d: the lease was lost to %s", d.job.id, row.worker if row else "nobody, the row is gone")
        if row is None or not self._is_of_this_place(row.worker):
            self.launcher.terminate(d.task)

    def _progress(self, d: Driven, *, newest_only: bool) -> dict[str, Any] | None:
        """progress.json if it is there and readable; with `newest_only`, None when it was copied before."""
        with suppress(OSError, ValueError):
            path = d.task.run_dir / "progress.json"
            stamp = path.stat().st_mtime_ns
            if newest_only and stamp == d.progress_stamp:
                return None
            value = json.loads(path.read_text(encoding="utf-8"))
            d.progress_stamp = stamp
            return value if isinstance(value, dict) else None
        return None

    # --- keeping order ----------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Ends strays without a supervisor, and supervisors whose job the queue does not consider alive."""
        running = self.launcher.running()
        with read_session() as session:
            for job_id in running:
                row = session.get(t.Job, job_id)
                if row is None or row.status not in (JobStatus.RUNNING, JobStatus.QUEUED):
                    log.warning("job %d runs here, but its row says %s: ending it", job_id, row.status if row else "nothing")
                    self.launcher.stop(job_id)
        killed = self.launcher.sweep()
        if killed:
            log.warning("%d processes without a supervisor were ended", killed)

    def _unstick(self) -> None:
        with read_session() as session:
            ended, late = leases.stuck(session, utc_now())
        if not ended and not late:
            return
        with write_session(parallel=True) as session:
            for job_id in ended:
                api.fail_followers(session, job_id)
            leases.release_late(session, late)

    def _fire_schedules(self) -> None:
        for name, job_id in schedules.fire_due(utc_now()):
            log.info("schedule %s: job %d", name, job_id)
