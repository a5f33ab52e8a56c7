"""The worker process: `python -m core.worker`. One per home; started by the launcher, safe to kill at any moment.

Trainings do not die with it: they run under supervisors of their own and are found again by the next worker.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from types import FrameType
from typing import Any

from sqlalchemy import event

from core import health
from core.errands import Errands
from core.errors import UserError
from core.home import Home, open_home
from core.i18n import error_text
from core.jobs.launch import shim
from core.jobs.worker_loop import Worker
from core.logs import log_as_json
from db.engine import database

log = logging.getLogger("consilium.worker")

#: wait for a locked database inside SQLite; short, so that SIGTERM is heard, since the loop tries again anyway
BUSY_TIMEOUT_MS = 800
TICK_S = 0.25
BEAT_S = 5.0
#: time for an earlier worker of this home to leave
PATIENCE_S = 10.0


def main() -> int:
    log_as_json("worker")
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        home = open_home()
        only_one(home)
        be_quick()
        worker = Worker(home)
    except UserError as error:
        log.error(error_text(error, "en"))
        return 1
    log.info("worker of %s, %d CPU slots", home.root, home.settings.num_cpu_slots)
    errands = Errands()
    errands.start()
    next_beat = 0.0
    while not stopping:
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + BEAT_S
            show_life(home)
        worker.tick()
        time.sleep(TICK_S)
    errands.stop()
    log.info("leaving; %d running jobs go on and will be found again", len(worker.driven))
    return 0


def only_one(home: Home) -> None:
    """Hold this machine's worker lock on the home until this process ends. Raises UserError("jobs.worker_runs_already")."""
    deadline = time.monotonic() + PATIENCE_S
    # a data folder that several machines share (PostgreSQL) has a worker on each
    name = "worker.lock" if database().is_sqlite else f"worker-{home.machine}.lock"
    while shim.try_lock(str(home.locks / name)) is None:
        if time.monotonic() > deadline:
            raise UserError("jobs.worker_runs_already", path=home.root)
        time.sleep(0.2)


def show_life(home: Home) -> None:
    """Touch the heartbeat file; a disk that takes nothing is told, and the work goes on."""
    try:
        health.beat(home)
    except OSError as error:
        log.warning("no heartbeat: %s", error.strerror or error)


def be_quick() -> None:
    """Let this process's writers wait for a lock only shortly."""
    wanted = f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}" if database().is_sqlite else f"SET lock_timeout = {BUSY_TIMEOUT_MS}"

    @event.listens_for(database().writer, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.execute(wanted)
        if not database().is_sqlite:
            connection.commit()


if __name__ == "__main__":
    sys.exit(main())
