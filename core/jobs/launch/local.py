"""Runs jobs on this machine, each under its own supervisor (`shim`), which this process may come and go beside.

Nothing is remembered between calls but the supervisors this process started itself: whether a job runs is asked of the lock
on its run folder, how it ended of its exit file. That is why a new worker finds a running training again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from core.jobs.launch import endnote, shim
from core.jobs.launch.base import Exit, Lost, NotStarted, Task

SHIM = str(Path(shim.__file__).resolve())


class LocalLauncher:
    """`runs` is the folder of run folders, `locks` that of slot locks; only slots in `exclusive` (gpu:0) are locked."""

    name = "local"

    def __init__(self, runs: Path, locks: Path, *, grace_s: float = 5.0, exclusive: tuple[str, ...] = ("gpu:0",)) -> None:
        self.runs = runs.resolve()
        self.locks = locks.resolve()
        self.grace_s = grace_s
        self.exclusive = exclusive
        self._own: dict[int, subprocess.Popen[bytes]] = {}
        #: supervisors that have written their exit file and need a moment to leave
        self._leaving: list[subprocess.Popen[bytes]] = []

    def start(self, task: Task) -> None:
        """Start the supervisor. It refuses by itself when the attempt runs or has ended, so a double start is harmless."""
        endnote.clear_stale(task)
        device, _, _ = task.slot.partition("@")
        slot_lock = str(self.locks / f"{task.slot.replace(':', '')}.lock") if device in self.exclusive else ""
        command = [sys.executable, "-I", "-S", SHIM, "--run-dir", str(task.run_dir.resolve()), "--attempt", str(task.attempt)]
        command += ["--start", str(task.start), "--grace", str(self.grace_s), "--slot-lock", slot_lock, "--", *task.argv]
        self._let_go(task.job_id)
        with (task.run_dir / "log.txt").open("ab") as log:
            self._own[task.job_id] = subprocess.Popen(
                command,
                cwd=task.cwd,
                env={**os.environ, **task.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def poll(self, task: Task) -> Exit | Lost | NotStarted | None:
        """Exit file first, then the lock, then the exit file again: the supervisor writes the one before it lets go of the other."""
        own = self._own.get(task.job_id)
        code = own.poll() if own is not None else 0
        ended = endnote.read(task)
        if ended is None and own is not None and code is None:
            return None
        if ended is None:
            if endnote.is_locked(task.run_dir):
                return None
            ended = endnote.read(task)
        self._let_go(task.job_id)
        if ended is not None:
            return ended
        if code in (shim.EXIT_NOT_LOCKED, os.EX_IOERR):
            return NotStarted()
        try:
            return endnote.without_supervisor(task)
        except FileNotFoundError:  # the folder is being removed
            return NotStarted()

    def terminate(self, task: Task, *, force: bool = False) -> None:
        """SIGTERM for the supervisor, which ends everybody; `force` (it hangs): SIGKILL for it and for all that carry its tag."""
        run_dir = str(task.run_dir.resolve())
        for pid in self._supervisors():
            if _run_dir_of(pid) == run_dir:
                shim.send(pid, signal.SIGKILL if force else signal.SIGTERM)
        if force:
            time.sleep(0.1)
            self._kill_strays(run_dir)

    def seal(self, task: Task, reason: str) -> None:
        endnote.write(task, Exit(None, was_terminated=True, reason=reason))

    def external_id(self, task: Task) -> str | None:
        return None

    def running(self) -> dict[int, int]:
        """Every supervisor of this home, by the run folder's name."""
        found = {}
        for pid in self._supervisors():
            arguments = _arguments(pid)
            if "--attempt" in arguments and Path(_run_dir_of(pid)).name.isdigit():
                found[int(Path(_run_dir_of(pid)).name)] = int(arguments[arguments.index("--attempt") + 1])
        return found

    def stop(self, job_id: int) -> None:
        for pid in self._supervisors():
            if Path(_run_dir_of(pid)).name == f"{job_id:06d}":
                shim.send(pid, signal.SIGTERM)

    def sweep(self) -> int:
        """Processes that carry a run folder of this home whose lock is free have lost their supervisor."""
        tagged = {tag for pid in shim.processes() if (tag := shim.tag_of(pid, shim.RUN_TAG)) and Path(tag).parent == self.runs}
        return sum(self._kill_strays(run_dir) for run_dir in tagged)

    def _let_go(self, job_id: int) -> None:
        if job_id in self._own:
            self._leaving.append(self._own.pop(job_id))
        self._leaving = [process for process in self._leaving if process.poll() is None]

    def _kill_strays(self, run_dir: str) -> int:
        try:
            lock = shim.try_lock(os.path.join(run_dir, shim.LOCK_NAME))
        except FileNotFoundError:  # the run folder was deleted under a running job
            return shim.kill_tagged(shim.RUN_TAG, run_dir)
        if lock is None:
            return 0
        try:
            return shim.kill_tagged(shim.RUN_TAG, run_dir)
        finally:
            os.close(lock)

    def _supervisors(self) -> list[int]:
        return [pid for pid in shim.processes() if Path(_run_dir_of(pid)).parent == self.runs]


def _arguments(pid: int) -> list[str]:
    return [os.fsdecode(part) for part in shim.read_proc(pid, "cmdline").split(b"\0")]


def _run_dir_of(pid: int) -> str:
    """The run folder that a supervisor was started for; empty for any other process."""
    arguments = _arguments(pid)
    return arguments[arguments.index("--run-dir") + 1] if SHIM in arguments and "--run-dir" in arguments else ""
