"""A running job, seen from inside: its config, where it writes, and whether it has been asked to stop.

Every training script starts with `run = Run.open()` and writes only into `run.dir`:

    config.json     what was asked (written before the start by whoever queued it)
    log.txt         stdout and stderr (redirected by the supervisor)
    metrics.jsonl   one line per `run.log()`; a failed write never stops training
    progress.json   phase, done, total, eta_s, newest metrics
    result.json     what came out, copied into the job row
    done.json       the attempt whose work is complete: should its supervisor be killed now, it does not run again
    checkpoints/    what a restart resumes from
    STOP            written by "stop and save": save a checkpoint, write the result and leave

Exit codes: 0 done, 3 stopped on request after saving, 4 an error a person can mend (error.json), anything else a crash.

Under `accelerate launch` every process holds a `Run`; only the first one (`is_main`) writes, and the exit code is passed on
through ranks.json, because the launcher above knows only 0 and 1 (`core.jobs.launch.ranks`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from core.errors import UserError
from core.home import Home, current_home
from core.i18n import error_text
from core.jobs.configs import JobConfig
from core.jobs.launch.ranks import RANKS_FILE

EXIT_STOPPED = 3
EXIT_USER_ERROR = 4

C = TypeVar("C", bound=JobConfig)


def write_json(path: Path, value: Any) -> None:
    """Write atomically: a reader sees the old file or the new one, never half of one."""
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(value, ensure_ascii=False, indent=1, default=str), encoding="utf-8")
    scratch.replace(path)


class StopRequested(Exception):
    """Raised by `Run.leave_if_stopped` after the caller has saved."""


class Run:
    """One attempt of one job. `job_id` is 0 for a script started by hand without a queue."""

    def __init__(self, directory: Path, job_id: int, home: Home) -> None:
        self.dir = directory
        self.job_id = job_id
        self.home = home
        self.checkpoints = directory / "checkpoints"
        #: False for the other processes of a distributed training: they compute, and write nothing
        self.is_main = int(os.environ.get("RANK", "0")) == 0
        self._phase = ""
        self._phase_started = time.monotonic()
        self._done_at_start = 0
        self._metrics: dict[str, float] = {}

    def config(self, model: type[C]) -> C:
        """The validated config of this run."""
        return model.model_validate_json((self.dir / "config.json").read_text(encoding="utf-8"))

    def progress(self, phase: str, done: int, total: int) -> None:
        """Say how far the phase is. The ETA is computed from this attempt's steps only, so a resume does not fool it."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._phase_started, self._done_at_start = phase, now, done
        steps = done - self._done_at_start
        eta = (now - self._phase_started) / steps * (total - done) if steps > 0 else None
        self._write(
            "progress.json", {"phase": phase, "done": done, "total": total, "eta_s": eta, "metrics": self._metrics, "at": time.time()}
        )

    def log(self, step: int, **metrics: float) -> None:
        """Append one line of metrics (the field's names: `objective/kl`, `loss/policy_avg`, ...; `/` is written as given)."""
        self._metrics = {**self._metrics, **metrics}
        if not self.is_main:
            return
        line = json.dumps({"step": step, "at": time.time(), **metrics})
        try:
            with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            print(f"metrics not written: {error}", file=sys.stderr, flush=True)

    def should_stop(self) -> bool:
        """True once a person has pressed "stop and save"."""
        return (self.dir / "STOP").exists()

    def leave_if_stopped(self) -> None:
        """Call right after saving a checkpoint."""
        if self.should_stop():
            raise StopRequested

    def result(self, **values: Any) -> None:
        """What came out (model version, counts, report path ...), shown on the job's page."""
        if not self.is_main:
            return
        write_json(self.dir / "result.json", values)

    def _write(self, name: str, value: Any) -> None:
        if not self.is_main:
            return
        try:
            write_json(self.dir / name, value)
        except OSError as error:
            print(f"{name} not written: {error}", file=sys.stderr, flush=True)


def main(body: Callable[[Run], None]) -> None:
    """Entry point of every job script: parse --run-dir, run `body`, turn its ending into an exit code."""
    parser = argparse.ArgumentParser(description=body.__doc__ or sys.modules[body.__module__].__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder holding config.json")
    directory: Path = parser.parse_args().run_dir.resolve()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        run = Run(directory, int(os.environ.get("CONSILIUM_JOB_ID", "0")), current_home())
        body(run)
        run._write("done.json", {"attempt": int(os.environ.get("CONSILIUM_ATTEMPT", "1"))})
    except StopRequested:
        print("stopped on request; checkpoint saved", flush=True)
        sys.exit(leave(directory, EXIT_STOPPED))
    except UserError as error:
        write_json(directory / "error.json", {"code": error.code, "params": {k: str(v) for k, v in error.params.items()}})
        print(error_text(error, "en"), file=sys.stderr, flush=True)
        leave(directory, EXIT_USER_ERROR)
        sys.exit(EXIT_USER_ERROR)


def leave(directory: Path, code: int) -> int:
    """The code to end with: itself, but 0 for one of several processes that all stopped in agreement, with the code noted."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return code
    write_json(directory / RANKS_FILE, {"attempt": int(os.environ.get("CONSILIUM_ATTEMPT", "1")), "code": code})
    return 0
