"""Runs jobs through SkyPilot: each start of an attempt is one managed job, described by a task file that runs our supervisor.

What holds for every queue stands in `core.jobs.launch.queued`. SkyPilot brings up a machine (a cloud's, a Kubernetes pod, a node of
a Slurm or SSH pool) and, when it is preempted, another one, on which our supervisor begins the same start again; the checkpoint in
the run folder is where the training goes on. So the data folder must be mounted there at the same path: say how in the setting
`sky_task` (volumes, file_mounts, image). Chosen by the setting `launcher`; needs the `sky` command in an environment of its own.

https://docs.skypilot.co/en/latest/examples/managed-jobs.html (commands and fields as in 0.14.1)
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.jobs.launch.base import Task
from core.jobs.launch.queued import REFRESH_S, SETTLE_S, QueueLauncher, Refused, start_script

#: below the lease of a job: the worker's heart does not beat while it waits
COMMAND_TIMEOUT_S = 20.0
#: a launch may have to bring up SkyPilot's own controller first, which takes minutes: it goes on by itself after this
LAUNCH_WAIT_S = 8.0
#: a job in one of these has left
ENDED = ("SUCCEEDED", "CANCELLED", "FAILED", "FAILED_SETUP", "FAILED_PRECHECKS", "FAILED_NO_RESOURCE", "FAILED_CONTROLLER")
#: what sky says when it is the task that is wrong, not the server
WRONG_TASK = (
    "invalid task",
    "invalid resources",
    "no resource satisfying",
    "not in the catalog",
    "invalid accelerator",
    "valueerror",
    "usage:",
)
JOB_ID = re.compile(r"[Jj]ob ID:?\s*(\d+)")


class SkyLauncher(QueueLauncher):
    """`task` are further fields of the task file; `{n}` in a text of it becomes the number of processes. `extra`: options of
    `sky jobs launch`. `command` is the `sky` to run."""

    name = "sky"

    def __init__(
        self,
        runs: Path,
        task: Mapping[str, Any] | None = None,
        extra: Sequence[str] = (),
        *,
        command: str = "sky",
        grace_s: float = 5.0,
        exclusive: str = "gpu",
        refresh_s: float = 15.0,
        settle_s: float = SETTLE_S,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        super().__init__(runs, grace_s=grace_s, exclusive=exclusive, refresh_s=max(refresh_s, REFRESH_S), settle_s=settle_s)
        self.task, self.extra, self.command, self.timeout_s = dict(task or {}), tuple(extra), command, timeout_s
        self._launches: dict[str, subprocess.Popen[bytes]] = {}

    def task_file(self, task: Task) -> Path:
        """Write the task. JSON is YAML, so no library is needed for it. GPUs are asked for by GPU jobs only."""
        script = start_script(task, self.grace_s, sorted(os.environ.items()))
        wanted = json.loads(json.dumps(self.task).replace("{n}", str(task.num_processes)))
        if not task.slot.startswith(self.exclusive):
            wanted.get("resources", {}).pop("accelerators", None)
        wanted |= {"name": self.name_of(task), "num_nodes": 1, "run": f"exec sh {shlex.quote(str(script))}"}
        path = task.run_dir / "sky.yaml"
        path.write_text(json.dumps(wanted, indent=1) + "\n")
        return path

    def _submit(self, task: Task) -> str:
        """Begin a launch, or say how the last one failed. One that takes its time goes on by itself and shows in the queue."""
        name, told = self.name_of(task), task.run_dir / "sky.out"
        if name not in self._launches:
            argv = [self.command, "jobs", "launch", "--yes", "--detach-run", "--name", name, *self.extra, str(self.task_file(task))]
            with told.open("wb") as out:
                self._launches[name] = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=_environ(), start_new_session=True
                )
        try:
            code = self._launches[name].wait(LAUNCH_WAIT_S)
        except subprocess.TimeoutExpired:
            return ""
        del self._launches[name]
        text = told.read_text(errors="replace")
        if code:
            said = " ".join(text.split())[-300:]
            if any(word in text.lower() for word in WRONG_TASK):
                raise Refused(said)
            raise OSError(f"sky launch: {said}")
        found = JOB_ID.search(text)
        return found[1] if found else ""

    def _is_alive_elsewhere(self, task: Task) -> bool:
        launch = self._launches.get(self.name_of(task))
        return launch is not None and launch.poll() is None

    def _list(self) -> dict[str, list[str]]:
        told = self._run(["jobs", "queue", "--skip-finished", "--all", "--output", "json"])
        try:
            jobs = json.loads(told[told.index("[") :])
            alive = [(str(job["job_name"]), str(job["job_id"])) for job in jobs if job["status"] not in ENDED]
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"sky jobs queue: {error}") from error
        ids: dict[str, list[str]] = {}
        for name, number in alive:
            if name.startswith(self.prefix):
                ids.setdefault(name, []).append(number)
        return {name: sorted(found, key=int) for name, found in ids.items()}

    def _cancel(self, starts: dict[str, list[str]], *, force: bool) -> None:
        """SkyPilot ends the job and its machine; it knows no harder way."""
        self._run(["jobs", "cancel", "--yes", *(number for ids in starts.values() for number in ids)])

    def _run(self, argv: Sequence[str]) -> str:
        command = [self.command, *argv]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.timeout_s, check=False, env=_environ()
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"sky {argv[1]} did not answer within {self.timeout_s:.0f} s") from error
        if done.returncode:
            raise OSError(f"sky {argv[1]}: {' '.join((done.stderr or done.stdout).split())[-300:]}")
        return done.stdout


def _environ() -> dict[str, str]:
    """SkyPilot reports its use to its makers unless it is told not to."""
    return {**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "NO_COLOR": "1"}
