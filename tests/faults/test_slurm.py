"""The Slurm launcher against a real Slurm of one node: jobs end, fail, are cancelled, are found again, and are never run twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.jobs.launch import endnote, shim, slurm
from core.jobs.launch.base import Exit, Lost, NotStarted, Task
from core.jobs.launch.slurm import SlurmLauncher, SlurmOptions
from tests.faults.rig import Rig
from tests.faults.slurm import Cluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
#: says when and as whom it ran, then waits
COUNT = """import os, sys, time
open('ran.txt', 'a').write(os.environ['SLURM_JOB_ID'] + '\\n')
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))"""
#: does not listen to SIGTERM and has a child in a session of its own
DEAF = """import signal, subprocess, time
signal.signal(15, signal.SIG_IGN)
subprocess.Popen(['setsid', 'sleep', '600'])
open('ran.txt', 'w').write('x')
time.sleep(600)"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(f"no Slurm here, so the Slurm launcher is NOT tested: {reason}")
    one = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        one.start()
    except RuntimeError as error:
        one.stop()
        pytest.skip(f"Slurm does not start here, so the Slurm launcher is NOT tested: {error}")
    yield one
    one.stop()


@pytest.fixture
def launcher(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmLauncher:
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    return SlurmLauncher(tmp_path / "runs", SlurmOptions(gres=""), grace_s=1.0, refresh_s=0.1, settle_s=1.0)


def task(launcher: SlurmLauncher, job_id: int, *arguments: str, code: str = COUNT, start: int = 0) -> Task:
    run_dir = launcher.runs / f"{job_id:06d}"
    run_dir.mkdir(parents=True, exist_ok=True)
    return Task(job_id, 1, run_dir, (sys.executable, "-S", "-c", code, *arguments), run_dir, "gpu:0", start, env={"CONSILIUM_JOB_ID": "7"})


def until(ask: Callable[[], Any], wanted: Callable[[Any], bool], timeout_s: float = 40) -> Any:
    deadline = time.monotonic() + timeout_s
    while not wanted(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def ended(launcher: SlurmLauncher, one: Task) -> Any:
    return until(lambda: launcher.poll(one), lambda state: state is not None)


def ran(one: Task) -> list[str]:
    path = one.run_dir / "ran.txt"
    return path.read_text().split() if path.exists() else []


def test_a_job_starts_ends_and_keeps_its_exit_code(launcher: SlurmLauncher) -> None:
    good, bad = task(launcher, 1, "0.2", "0"), task(launcher, 2, "0", "3")
    assert launcher.poll(good) == NotStarted()
    for one in (good, bad):
        launcher.start(one)
        launcher.start(one)  # harmless
        assert (launcher.external_id(one) or "").isdigit()
    assert launcher.running() == {1: 1, 2: 1}
    assert ended(launcher, good) == Exit(0)
    assert ended(launcher, bad) == Exit(3)
    assert ran(good) == [launcher.external_id(good)]
    assert "ended with exit code 3" in (bad.run_dir / "log.txt").read_text()
    launcher.start(good)  # an attempt that has ended never runs again
    assert ran(good) == [launcher.external_id(good)]


def test_cancelling_ends_every_process_and_a_waiting_job_can_be_sealed(launcher: SlurmLauncher) -> None:
    one = task(launcher, 3, code=DEAF)
    launcher.start(one)
    until(lambda: ran(one), bool)
    launcher.terminate(one)
    state = ended(launcher, one)
    assert state.was_terminated
    assert state.signal == 9
    assert not [pid for pid in shim.processes() if shim.tag_of(pid, shim.RUN_TAG) == str(one.run_dir)]

    held = SlurmLauncher(launcher.runs, SlurmOptions(gres="", extra=("--hold",)), refresh_s=0.1, settle_s=0.3)
    waiting = task(held, 4, "0", "0")
    held.start(waiting)
    assert held.poll(waiting) is None
    held.terminate(waiting)
    assert ended(held, waiting) == Lost(0.0)
    held.seal(waiting, "cancelled")
    assert held.poll(waiting) == Exit(None, was_terminated=True, reason="cancelled")
    assert ran(waiting) == []


def test_a_start_that_nobody_noted_is_found_by_its_name(launcher: SlurmLauncher) -> None:
    """kill -9 of the worker between sbatch and the note, and a second copy that slipped in all the same."""
    one = task(launcher, 5, "1.5", "0")
    launcher.start(one)
    (one.run_dir / "slurm.json").unlink()
    successor = SlurmLauncher(launcher.runs, launcher.options, refresh_s=0.1, settle_s=1.0)
    assert successor.poll(one) is None
    found = successor.external_id(one)
    assert found is not None
    successor.start(one)
    assert successor.external_id(one) == found
    subprocess.run(successor._sbatch(one), input=successor._script(one), text=True, check=True, capture_output=True)
    assert ended(successor, one) == Exit(0)
    until(successor.running, lambda left: not left)
    assert ran(one) == [found]


def test_a_job_whose_node_died_is_lost_and_its_next_start_is_another(launcher: SlurmLauncher) -> None:
    one = task(launcher, 6, "600", "0")
    launcher.start(one)
    until(lambda: ran(one), bool)
    for pid in shim.processes():  # no exit file, as when a node loses its power
        if str(one.run_dir).encode() in shim.read_proc(pid, "cmdline"):
            shim.send(pid, signal.SIGKILL)
    assert isinstance(ended(launcher, one), Lost)
    again = task(launcher, 6, "0", "0", start=1)
    assert launcher.poll(again) == NotStarted()
    launcher.start(again)
    assert ended(launcher, again) == Exit(0)
    assert len(set(ran(one))) == 2


def test_silence_of_slurm_is_no_answer(launcher: SlurmLauncher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = task(launcher, 8, "0", "0")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere.conf"))
    monkeypatch.setattr(slurm, "COMMAND_TIMEOUT_S", 0.3)
    with pytest.raises(OSError, match="squeue"):
        launcher.poll(one)
    with pytest.raises(OSError, match="squeue"):
        launcher.start(one)
    assert endnote.read(one) is None


def test_a_job_that_slurm_refuses_ends_with_a_sentence(launcher: SlurmLauncher) -> None:
    strict = SlurmLauncher(launcher.runs, SlurmOptions(), refresh_s=0.1)
    one = task(strict, 9, "0", "0")
    strict.start(one)
    assert strict.poll(one) == Exit(4)
    told = json.loads((one.run_dir / "error.json").read_text())
    assert told["code"] == "jobs.slurm_refused"
    assert "gres" in told["params"]["reason"]
    assert strict.running() == {}


def test_a_worker_killed_after_submitting_does_not_submit_again(cluster: Cluster, rig: Rig) -> None:
    settings = {**cluster.env, "CONSILIUM_LAUNCHER": "slurm", "CONSILIUM_SLURM_GRES": "none"}
    job_id = rig.enqueue("fake_gpu", steps=40, step_s=0.1)
    first = rig.worker(**settings)
    rig.reached(job_id, 3)
    rig.kill(first)
    (rig.home.run_dir(job_id) / "slurm.json").unlink()
    rig.worker(**settings)
    job = rig.ended(job_id, timeout_s=60)[0]
    assert (job.status, job.launcher, job.attempt, job.restarts) == ("succeeded", "slurm", 1, 0)
    assert len(rig.journal(job_id, "start")) == len(rig.journal(job_id, "end")) == 1
    assert job.external_id == json.loads((rig.home.run_dir(job_id) / "slurm.json").read_text())["id"]
