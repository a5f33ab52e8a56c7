"""The real worker with the fake job kinds added and short waits, as a process that tests can kill."""

from __future__ import annotations

import sys

from core import worker
from core.jobs import worker_loop
from core.jobs.kinds import KINDS, JobKind
from tests.faults.fake_job import FakeConfig

FAKES = {
    "fake": JobKind("fake", FakeConfig, "tests.faults.fake_job", "cpu", "Fake", "假", max_attempts=2),
    "fake_gpu": JobKind("fake_gpu", FakeConfig, "tests.faults.fake_job", "gpu", "Fake", "假", max_attempts=2),
}

if __name__ == "__main__":
    KINDS.update(FAKES)
    worker_loop.GRACE_S = 1.0
    sys.exit(worker.main())
