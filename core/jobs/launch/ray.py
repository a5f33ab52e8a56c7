"""Runs jobs through Ray Jobs, over its REST interface: each start of an attempt is one submission, which runs our supervisor.

What holds for every queue stands in `core.jobs.launch.queued`. The submission's id is the start's name, and Ray refuses an id that
it has, so a second copy cannot slip in. The environment stands in a file in the run folder, not in the request: Ray shows requests
on its dashboard. A Ray head that was started again has forgotten its jobs (unless it has a Redis) while they run on as orphans; then
the lock on the run folder says that a job lives. Chosen by the setting `launcher`; needs no Ray here, only httpx.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html
"""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.jobs.launch import endnote
from core.jobs.launch.base import Task
from core.jobs.launch.queued import REFRESH_S, SETTLE_S, QueueLauncher, Refused, start_script

#: below the lease of a job: the worker's heart does not beat while it waits
TIMEOUT_S = 15.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ALIVE = ("PENDING", "RUNNING")
#: Ray waits so much longer than our grace before it kills: the supervisor needs time to write its exit file
SPARE_S = 5


class RayLauncher(QueueLauncher):
    """`address` is that of the dashboard (http://head:8265), `token` what it asks for (RAY_AUTH_MODE=token), "" for nothing."""

    name = "ray"

    def __init__(
        self,
        runs: Path,
        address: str,
        token: str = "",
        *,
        num_cpus: float = 1.0,
        grace_s: float = 5.0,
        exclusive: str = "gpu",
        refresh_s: float = REFRESH_S,
        settle_s: float = SETTLE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(runs, grace_s=grace_s, exclusive=exclusive, refresh_s=refresh_s, settle_s=settle_s)
        self.num_cpus = num_cpus
        self.address, self.timeout_s = address.rstrip("/"), timeout_s
        self.is_remote = urlsplit(address).hostname not in LOOPBACK
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def _submit(self, task: Task) -> str:
        script = start_script(task, self.grace_s, sorted(os.environ.items()))
        name = self.name_of(task)
        wanted: dict[str, Any] = {
            "entrypoint": f"exec sh {shlex.quote(str(script))}",
            "submission_id": name,
            # Ray's own patience, which ends in SIGKILL, must be longer than ours
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(self.grace_s) + SPARE_S)}},
            "metadata": {"consilium_job": str(task.job_id), "attempt": str(task.attempt)},
            # a number of CPUs or GPUs makes Ray place the job on any node that has them; without, it would run on the head
            "entrypoint_num_cpus": self.num_cpus,
        }
        if task.slot.startswith(self.exclusive):
            wanted["entrypoint_num_gpus"] = task.num_processes
        response = self._ask("POST", "/api/jobs/", wanted)
        if response.is_success:
            return str(response.json()["submission_id"])
        told = _last_line(response.text)
        if "already exists" in response.text:  # submitted by a worker that was killed before it could note it
            return name
        if response.status_code in (400, 401, 403, 422):
            raise Refused(told)
        raise OSError(f"Ray: HTTP {response.status_code} {told}")

    def _list(self) -> dict[str, list[str]]:
        response = self._ask("GET", "/api/jobs/")
        try:
            jobs = response.json() if response.is_success else None
            alive = [job for job in jobs or [] if job["status"] in ALIVE]
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"Ray: {error}") from error
        if jobs is None:
            raise OSError(f"Ray: HTTP {response.status_code} {_last_line(response.text)}")
        names = [str(job.get("submission_id") or "") for job in alive]
        return {name: [name] for name in names if name.startswith(self.prefix)}

    def _cancel(self, starts: dict[str, list[str]], *, force: bool) -> None:
        """Ray sends SIGTERM to every process and SIGKILL when they stay; it knows no harder way."""
        for name in starts:
            response = self._ask("POST", f"/api/jobs/{name}/stop")
            if response.is_error and response.status_code != 404:
                raise OSError(f"Ray: HTTP {response.status_code} {_last_line(response.text)}")

    def _is_alive_elsewhere(self, task: Task) -> bool:
        return endnote.has_begun(task) and endnote.is_locked(task.run_dir)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            with httpx.Client(headers=self._headers, timeout=self.timeout_s, trust_env=self.is_remote, verify=self.is_remote) as client:
                return client.request(method, self.address + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # without the cause: it may hold the request with its token
            raise OSError(f"Ray: {type(error).__name__} {error}") from None


def _last_line(text: str) -> str:
    """Of Ray's tracebacks the line that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "")[:300]
