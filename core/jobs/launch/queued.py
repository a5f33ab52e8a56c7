"""What launchers that hand jobs to somebody else's queue have in common: names, notes, and what silence means.

Every start of an attempt has a name of its own (home, job, attempt, start), under which it stands in the other queue: a worker
that was killed between submitting and noting the id finds it there and submits nothing. The run folder lies where worker and
nodes both see it; the exit file in it, which our supervisor (`shim`) writes, is the truth about how an attempt ended, the queue only
says whether a start still waits or runs. Members: `slurm`, `ray`, `sky`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.jobs.launch import endnote
from core.jobs.launch.base import Exit, Lost, NotStarted, Task
from core.jobs.launch.local import SHIM

#: the queue is asked at most this often
REFRESH_S = 2.0
#: a start that has left the queue without an exit file: how long the file may still be on its way through a network file system
SETTLE_S = 5.0
#: the exit code of `training.run` for what a person can mend
EXIT_USER_ERROR = 4
#: set by the node for what it gives to a job, or of that machine alone: a start script leaves them as they are
OF_THE_NODE = ("CUDA_VISIBLE_DEVICES", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_", "TMPDIR", "DISPLAY")
OF_A_QUEUE = ("RAY_", "SKYPILOT_", "SLURM_", "SSH_", "XDG_")


class Refused(Exception):
    """The queue answered, and does not take this job: no such partition, no such resource, no such account."""


@dataclass
class _Listing:
    """What the queue last said about our starts: name -> ids, oldest first. `at` is on the monotonic clock."""

    at: float = -1e9
    ids: dict[str, list[str]] = field(default_factory=dict)


class QueueLauncher(ABC):
    """`runs` is the folder of run folders; only jobs in slots that begin with `exclusive` ask for a GPU."""

    name = ""

    def __init__(
        self, runs: Path, *, grace_s: float = 5.0, exclusive: str = "gpu", refresh_s: float = REFRESH_S, settle_s: float = SETTLE_S
    ) -> None:
        self.runs = runs.resolve()
        self.grace_s, self.exclusive, self.refresh_s, self.settle_s = grace_s, exclusive, refresh_s, settle_s
        self.prefix = f"consilium-{hashlib.sha256(str(self.runs).encode()).hexdigest()[:8]}-"
        self._listing = _Listing()
        self._gone_since: dict[str, float] = {}

    # --- what each queue does in its own way: OSError when it does not answer --------------------------------------------

    @abstractmethod
    def _submit(self, task: Task) -> str:
        """Hand over the start; returns the queue's id ("" while it has none). Raises Refused."""

    @abstractmethod
    def _list(self) -> dict[str, list[str]]:
        """Name -> ids of everything of ours that waits or runs."""

    @abstractmethod
    def _cancel(self, starts: dict[str, list[str]], *, force: bool) -> None:
        """End these starts (name -> ids)."""

    # --- the launcher ----------------------------------------------------------------------------------------------------

    def start(self, task: Task) -> None:
        """Submit, unless this start is in the queue already or the attempt has ended. A job that is refused ends with a sentence.
        OSError: nothing was submitted, as far as is known; the next look at the queue tells."""
        if endnote.read(task) is not None or self._ids(task, is_fresh=True):
            return
        endnote.clear_stale(task)
        self._listing.at = -1e9  # what was listed before says nothing about this start
        try:
            given = self._submit(task)
        except Refused as refused:  # asking again would not help: a person must mend the options
            error = {"code": f"jobs.{self.name}_refused", "params": {"reason": str(refused)}}
            (task.run_dir / "error.json").write_text(json.dumps(error))
            endnote.write(task, Exit(EXIT_USER_ERROR))
            return
        if given:
            self._note(task, given)

    def poll(self, task: Task) -> Exit | Lost | NotStarted | None:
        """Exit file first, then the queue, then the exit file again. OSError when the queue does not answer."""
        name = self.name_of(task)
        ended = endnote.read(task)
        if ended is not None:
            self._gone_since.pop(name, None)
            return ended
        ids = self._ids(task)
        if ids or self._is_alive_elsewhere(task):
            self._gone_since.pop(name, None)
            if ids and self.external_id(task) is None:  # submitted by a worker that was killed before it could note it
                self._note(task, ids[0])
            return None
        if self.external_id(task) is None and not endnote.has_begun(task):
            return NotStarted()
        if time.monotonic() - self._gone_since.setdefault(name, time.monotonic()) < self.settle_s:
            return None
        ended = endnote.read(task)
        if ended is None:
            found = endnote.without_supervisor(task)
            return Lost(lived_s=0.0) if isinstance(found, NotStarted) else found  # cancelled in the queue, or the node went
        return ended

    def terminate(self, task: Task, *, force: bool = False) -> None:
        """Ask the queue to end it; `force`: at once, where the queue knows the difference."""
        name = self.name_of(task)
        noted = self.external_id(task)
        ids = self._ids(task, is_fresh=True) or ([noted] if noted else [])
        if ids:
            self._cancel({name: ids}, force=force)

    def seal(self, task: Task, reason: str) -> None:
        endnote.write(task, Exit(None, was_terminated=True, reason=reason))

    def external_id(self, task: Task) -> str | None:
        """The queue's id of this start, as noted in the run folder."""
        try:
            noted = json.loads((task.run_dir / f"{self.name}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return str(noted["id"]) if (noted["attempt"], noted["start"]) == (task.attempt, task.start) else None

    def running(self) -> dict[int, int]:
        """Every start of this home that the queue holds, waiting or running."""
        self._refresh(is_fresh=True)
        return {job_id: attempt for job_id, attempt, _ in map(self._parts, self._listing.ids)}

    def stop(self, job_id: int) -> None:
        starts = {name: ids for name, ids in self._listing.ids.items() if self._parts(name)[0] == job_id}
        if starts:
            self._cancel(starts, force=False)

    def sweep(self) -> int:
        """The queue itself ends what a job leaves behind."""
        return 0

    def name_of(self, task: Task) -> str:
        return f"{self.prefix}{task.job_id}-{task.attempt}-{task.start}"

    def _is_alive_elsewhere(self, task: Task) -> bool:
        """Does a start that the queue has forgotten run all the same?"""
        return False

    def _parts(self, name: str) -> tuple[int, int, int]:
        job_id, attempt, start = name.removeprefix(self.prefix).split("-")
        return int(job_id), int(attempt), int(start)

    def _note(self, task: Task, given: str) -> None:
        scratch = task.run_dir / f".{self.name}.json.{os.getpid()}"
        scratch.write_text(json.dumps({"attempt": task.attempt, "start": task.start, "id": given, "name": self.name_of(task)}))
        scratch.replace(task.run_dir / f"{self.name}.json")

    def _ids(self, task: Task, *, is_fresh: bool = False) -> list[str]:
        self._refresh(is_fresh=is_fresh)
        return self._listing.ids.get(self.name_of(task), [])

    def _refresh(self, *, is_fresh: bool) -> None:
        """One look for all jobs. Kept for `refresh_s`. Raises OSError, and then keeps nothing: an old answer is no answer."""
        now = time.monotonic()
        if not is_fresh and now - self._listing.at < self.refresh_s:
            return
        self._listing = _Listing()
        self._listing = _Listing(now, self._list())


def supervisor_argv(task: Task, grace_s: float) -> list[str]:
    """The command that a node runs: our supervisor with the task's command. It holds no slot: the queue gives those."""
    command = [sys.executable, "-I", "-S", SHIM, "--run-dir", str(task.run_dir.resolve()), "--attempt", str(task.attempt)]
    return [*command, "--start", str(task.start), "--grace", str(grace_s), "--slot-lock", "", "--", *task.argv]


def start_script(task: Task, grace_s: float, environ: Sequence[tuple[str, str]]) -> Path:
    """Write what a node shall run into the run folder, for its owner's eyes only, because keys stand in the environment.

    Our own settings and the task's are set; anything else of the worker's environment only where the node does not set it itself.
    """
    lines = ["#!/bin/sh"]
    for key, value in environ:
        if key.startswith("CONSILIUM_"):
            lines.append(f"export {key}={shlex.quote(value)}")
        elif key.isidentifier() and key not in OF_THE_NODE and not key.startswith(OF_A_QUEUE):
            lines.append(f'[ -n "${{{key}+set}}" ] || export {key}={shlex.quote(value)}')
    lines += [f"export {key}={shlex.quote(value)}" for key, value in task.env.items()]
    lines += [f"cd {shlex.quote(str(task.cwd))} || exit 1", f"exec >> {shlex.quote(str(task.run_dir.resolve() / 'log.txt'))} 2>&1"]
    path = task.run_dir.resolve() / f"start.{task.attempt}.{task.start}.sh"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w") as file:
        file.write("\n".join([*lines, f"exec {shlex.join(supervisor_argv(task, grace_s))}", ""]))
    return path
