"""The supervisor alone, without a worker that would mend things behind it: locks, family, exit file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.jobs.launch import shim
from core.jobs.launch.base import Exit, Lost, NotStarted, Task
from core.jobs.launch.local import LocalLauncher
from core.settings import ROOT

DEAF = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
BREED = (
    f"import subprocess,sys,time; [subprocess.Popen([sys.executable, '-S', '-c', {DEAF!r}], start_new_session=True) for _ in range(2)]; "
)
#: one line per start into the file named first, then as many seconds of work as named second
COUNT = "import sys,time; open(sys.argv[1], 'a').write('start\\n'); time.sleep(float(sys.argv[2]))"


def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


class Bench:
    def __init__(self, root: Path) -> None:
        (root / "runs").mkdir()
        (root / "locks").mkdir()
        self.root = root
        self.launcher = self.another()

    def another(self) -> LocalLauncher:
        """A launcher that knows nothing of what others started, like that of a new worker."""
        return LocalLauncher(self.root / "runs", self.root / "locks", grace_s=0.5)

    def task(self, code: str, *arguments: str, job_id: int = 1, attempt: int = 1, slot: str = "cpu:0") -> Task:
        run_dir = self.root / "runs" / f"{job_id:06d}"
        return Task(job_id, attempt, run_dir, (sys.executable, "-S", "-c", code, *arguments), ROOT, slot)

    def counting(self, seconds: float, **values: object) -> tuple[Task, Path]:
        counted = self.root / f"counted-{values.get('job_id', 1)}.txt"
        return self.task(COUNT, str(counted), str(seconds), **values), counted  # type: ignore[arg-type]

    def supervisor(self, task: Task) -> int:
        [pid] = [
            p
            for p in shim.processes()
            if str(task.run_dir.resolve()).encode() in (line := shim.read_proc(p, "cmdline").split(b"\0")) and b"--attempt" in line
        ]
        return pid

    def family(self) -> list[int]:
        prefix = str((self.root / "runs").resolve())
        return [pid for pid in shim.processes() if (shim.tag_of(pid, shim.RUN_TAG) or "").startswith(prefix)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    launcher = bench.launcher
    for pid in [*launcher._supervisors(), *bench.family()]:
        shim.send(pid, signal.SIGKILL)
    for process in [*launcher._own.values(), *launcher._leaving]:
        process.wait(10)
    until(lambda: not bench.family())


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def test_the_direct_child_dies_with_its_supervisor(bench: Bench) -> None:
    task = bench.task("import time; time.sleep(600)")
    bench.launcher.start(task)
    until(lambda: len(bench.family()) == 1)
    os.kill(bench.supervisor(task), signal.SIGKILL)
    until(lambda: not bench.family(), 2)
    until(lambda: isinstance(bench.launcher.poll(task), Lost))


def test_what_a_killed_supervisor_left_behind_ends_before_the_next_start(bench: Bench) -> None:
    first = bench.task(BREED + "time.sleep(600)")
    bench.launcher.start(first)
    until(lambda: len(bench.family()) == 3)
    os.kill(bench.supervisor(first), signal.SIGKILL)
    until(lambda: len(bench.family()) == 2)
    strays = set(bench.family())
    again = replace(first, start=1)
    bench.launcher.start(again)
    until(lambda: not strays & set(bench.family()))
    until(lambda: len(bench.family()) == 3)


def test_strays_on_the_gpu_end_before_another_job_gets_it(bench: Bench) -> None:
    first = bench.task(BREED + "time.sleep(600)", slot="gpu:0")
    bench.launcher.start(first)
    until(lambda: len(bench.family()) == 3)
    os.kill(bench.supervisor(first), signal.SIGKILL)
    until(lambda: len(bench.family()) == 2)
    other, counted = bench.counting(600, job_id=2, slot="gpu:0")
    bench.launcher.start(other)
    until(lambda: lines(counted) == 1)
    assert [shim.tag_of(pid, shim.RUN_TAG) for pid in bench.family()] == [str(other.run_dir.resolve())]


def test_a_sweep_ends_strays_and_spares_what_is_supervised(bench: Bench) -> None:
    lost, kept = bench.task(BREED + "time.sleep(600)"), bench.task("import time; time.sleep(600)", job_id=2)
    bench.launcher.start(lost)
    bench.launcher.start(kept)
    until(lambda: len(bench.family()) == 4)
    os.kill(bench.supervisor(lost), signal.SIGKILL)
    until(lambda: len(bench.family()) == 3)
    assert bench.another().sweep() == 2
    assert [shim.tag_of(pid, shim.RUN_TAG) for pid in bench.family()] == [str(kept.run_dir.resolve())]


def test_many_starts_of_one_attempt_are_one_run(bench: Bench) -> None:
    task, counted = bench.counting(1.0)
    launchers = [bench.another() for _ in range(4)]
    for launcher in launchers:
        launcher.start(task)
    until(lambda: isinstance(bench.launcher.poll(task), Exit))
    bench.launcher.start(task)  # and one that comes too late
    for launcher in (*launchers, bench.launcher):
        for process in launcher._own.values():
            process.wait(10)
    assert lines(counted) == 1
    assert bench.launcher.poll(task) == Exit(0)


def test_an_attempt_that_was_sealed_never_starts_and_the_next_one_does(bench: Bench) -> None:
    task, counted = bench.counting(0)
    assert bench.launcher.poll(task) == NotStarted()
    bench.launcher.seal(task, "cancelled")
    bench.launcher.start(task)
    bench.launcher._own[1].wait(10)
    assert lines(counted) == 0
    assert bench.launcher.poll(task) == Exit(None, was_terminated=True, reason="cancelled")
    following = replace(task, attempt=2)
    bench.launcher.start(following)
    until(lambda: bench.launcher.poll(following) == Exit(0))
    assert lines(counted) == 1


def test_sealing_leaves_a_running_attempt_alone(bench: Bench) -> None:
    task, counted = bench.counting(0.7)
    bench.launcher.start(task)
    until(lambda: lines(counted) == 1)
    bench.another().seal(task, "cancelled")
    until(lambda: bench.launcher.poll(task) == Exit(0))


def test_the_gpu_is_waited_for_and_the_wait_can_be_ended(bench: Bench) -> None:
    holder, _ = bench.counting(1.2, job_id=1, slot="gpu:0")
    waiter, counted = bench.counting(0, job_id=2, slot="gpu:0")
    third, never = bench.counting(0, job_id=3, slot="gpu:0")
    for task in (holder, waiter, third):
        bench.launcher.start(task)
        if task is holder:
            until(lambda: len(bench.family()) == 1)
    until(lambda: (third.run_dir / shim.LOCK_NAME).exists())
    time.sleep(0.3)
    assert lines(counted) == 0
    bench.launcher.terminate(third)
    until(lambda: bench.launcher.poll(third) == Exit(None, was_terminated=True))
    until(lambda: bench.launcher.poll(waiter) == Exit(0))
    assert bench.launcher.poll(holder) == Exit(0)
    assert (lines(counted), lines(never)) == (1, 0)


def test_leftover_children_of_a_job_that_ended_well_are_ended_too(bench: Bench) -> None:
    task = bench.task(BREED)
    bench.launcher.start(task)
    until(lambda: bench.launcher.poll(task) == Exit(0))
    assert bench.family() == []


def test_a_command_that_cannot_be_started_ends_with_127_and_says_so(bench: Bench) -> None:
    task = replace(bench.task(""), argv=("/no/such/program",))
    bench.launcher.start(task)
    until(lambda: bench.launcher.poll(task) == Exit(127))
    assert "could not be started" in (task.run_dir / "log.txt").read_text()


def test_a_new_launcher_sees_stops_and_names_what_runs(bench: Bench) -> None:
    task, counted = bench.counting(600, job_id=42, attempt=3)
    bench.launcher.start(task)
    until(lambda: lines(counted) == 1)
    new = bench.another()
    assert new.poll(task) is None
    assert new.running() == {42: 3}
    new.stop(42)
    until(lambda: new.poll(task) == Exit(None, 15, was_terminated=True))


def test_the_training_gives_way_when_memory_or_cores_run_short(bench: Bench) -> None:
    task = bench.task("import time; time.sleep(600)")
    bench.launcher.start(task)
    until(lambda: len(bench.family()) == 1)
    [child] = bench.family()
    until(lambda: shim.read_proc(child, "oom_score_adj").strip() == b"500")
    assert os.getpriority(os.PRIO_PROCESS, child) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert int(shim.read_proc(bench.supervisor(task), "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE") < 30e6


def test_a_daemon_that_dropped_its_environment_is_found_as_a_descendant(bench: Bench) -> None:
    mark = f"600.{os.getpid()}"
    task = bench.task(f"import subprocess,time; subprocess.run(['env', '-i', 'setsid', '-f', 'sleep', '{mark}']); time.sleep(600)")

    def daemons() -> list[int]:
        return [pid for pid in shim.processes() if shim.read_proc(pid, "cmdline") == f"sleep\0{mark}\0".encode()]

    bench.launcher.start(task)
    until(daemons)
    assert shim.tag_of(daemons()[0], shim.RUN_TAG) is None
    bench.launcher.terminate(task)
    until(lambda: isinstance(bench.launcher.poll(task), Exit))
    assert daemons() == []
