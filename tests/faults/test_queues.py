"""The Ray and SkyPilot launchers: jobs start, end, fail, are cancelled, are found again after a killed worker, and never run twice."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.home import Home
from core.jobs.launch import endnote, shim, sky
from core.jobs.launch.base import Exit, Lost, NotStarted, Task
from core.jobs.launch.choose import launcher_of, slots_of
from core.jobs.launch.queued import QueueLauncher, start_script
from core.jobs.launch.ray import RayLauncher
from core.jobs.launch.sky import SkyLauncher
from core.settings import load_settings
from tests.faults.queues import FakeRay, FakeSky

COUNT = """import os, sys, time
open('ran.txt', 'a').write(os.environ['CONSILIUM_JOB_ID'] + os.environ.get('CUDA_VISIBLE_DEVICES', '-') + '\\n')
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))"""
#: does not listen to SIGTERM and has a child in a session of its own
DEAF = """import signal, subprocess, time
signal.signal(15, signal.SIG_IGN)
subprocess.Popen(['setsid', 'sleep', '60'])
open('ran.txt', 'w').write('x')
time.sleep(60)"""
GRACE_S = 0.5


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    one = FakeRay()
    yield one
    one.close()


@pytest.fixture
def fake_sky(tmp_path: Path) -> FakeSky:
    return FakeSky(tmp_path)


@pytest.fixture(params=["ray", "sky"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueueLauncher:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # the worker's; what the node gives counts
    runs = tmp_path / "runs"
    if request.param == "ray":
        real = os.environ.get("CONSILIUM_TEST_RAY_URL", "")
        url = real or request.getfixturevalue("ray").url
        return RayLauncher(runs, url, num_cpus=0.1, grace_s=GRACE_S, refresh_s=0.05, settle_s=1.0)
    monkeypatch.setattr(sky, "REFRESH_S", 0.05)
    command = request.getfixturevalue("fake_sky").command
    return SkyLauncher(runs, {"resources": {"accelerators": "H100:{n}"}}, command=command, grace_s=GRACE_S, refresh_s=0.05, settle_s=1.0)


def task(launcher: QueueLauncher, job_id: int, *arguments: str, code: str = COUNT, start: int = 0, slot: str = "cpu:0") -> Task:
    run_dir = launcher.runs / f"{job_id:06d}"
    run_dir.mkdir(parents=True, exist_ok=True)
    env = {"CONSILIUM_JOB_ID": str(job_id)}
    return Task(job_id, 1, run_dir, (sys.executable, "-S", "-c", code, *arguments), run_dir, slot, start, env=env)


def until(ask: Callable[[], Any], wanted: Callable[[Any], bool] = bool, timeout_s: float = 40) -> Any:
    deadline = time.monotonic() + timeout_s
    while not wanted(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.03)
    return found


def ended(launcher: QueueLauncher, one: Task) -> Any:
    return until(lambda: launcher.poll(one), lambda state: state is not None)


def ran(one: Task) -> list[str]:
    path = one.run_dir / "ran.txt"
    return path.read_text().split() if path.exists() else []


def test_a_job_starts_ends_and_keeps_its_exit_code(launcher: QueueLauncher) -> None:
    good, bad = task(launcher, 1, "0.5", "0"), task(launcher, 2, "0.5", "3")
    assert launcher.poll(good) == NotStarted()
    for one in (good, bad):
        launcher.start(one)
        launcher.start(one)  # harmless
        assert launcher.external_id(one)
    assert launcher.running() == {1: 1, 2: 1}
    assert ended(launcher, good) == Exit(0)
    assert ended(launcher, bad) == Exit(3)
    assert len(ran(good)) == 1
    assert not ran(good)[0].endswith("7")
    launcher.start(good)  # an attempt that has ended never runs again
    assert len(ran(good)) == 1
    assert "ended with exit code 3" in (bad.run_dir / "log.txt").read_text()


def test_cancelling_ends_every_process(launcher: QueueLauncher) -> None:
    one = task(launcher, 3, code=DEAF)
    launcher.start(one)
    until(lambda: ran(one))
    launcher.terminate(one)
    state = ended(launcher, one)
    assert (state.was_terminated, state.signal) == (True, 9)
    assert not [pid for pid in shim.processes() if shim.tag_of(pid, shim.RUN_TAG) == str(one.run_dir)]


def test_a_start_that_nobody_noted_is_found_by_its_name(launcher: QueueLauncher) -> None:
    """kill -9 of the worker between submitting and the note: the successor finds the job and submits nothing."""
    one = task(launcher, 5, "1", "0")
    launcher.start(one)
    given = launcher.external_id(one)
    (one.run_dir / f"{launcher.name}.json").unlink()
    launcher._listing.at = -1e9
    assert launcher.poll(one) is None
    assert launcher.external_id(one) == given
    launcher.start(one)
    assert ended(launcher, one) == Exit(0)
    assert len(ran(one)) == 1


def test_a_supervisor_that_was_killed_is_a_loss_and_the_next_start_another(launcher: QueueLauncher) -> None:
    one = task(launcher, 6, "60", "0")
    launcher.start(one)
    until(lambda: ran(one))
    for pid in shim.processes():
        if str(one.run_dir).encode() in shim.read_proc(pid, "cmdline"):
            shim.send(pid, 9)
    assert isinstance(ended(launcher, one), Lost)
    again = task(launcher, 6, "0", "0", start=1)
    assert launcher.poll(again) == NotStarted()
    launcher.start(again)
    assert ended(launcher, again) == Exit(0)
    assert len(ran(one)) == 2


def test_a_job_that_the_queue_forgot_lives_as_long_as_it_holds_its_lock(ray: FakeRay, tmp_path: Path) -> None:
    launcher = RayLauncher(tmp_path / "runs", ray.url, "secret", grace_s=GRACE_S, refresh_s=0.05, settle_s=0.1)
    one = task(launcher, 7, "1", "0")
    launcher.start(one)
    until(lambda: ran(one))
    ray.forget()
    for _ in range(5):
        assert launcher.poll(one) is None
        time.sleep(0.1)
    assert ended(launcher, one) == Exit(0)
    assert ray.tokens == {"Bearer secret"}


def test_silence_is_no_answer_and_a_refusal_is_a_sentence(ray: FakeRay, fake_sky: FakeSky, tmp_path: Path) -> None:
    by_ray = RayLauncher(tmp_path / "a", ray.url, grace_s=GRACE_S, refresh_s=0)
    by_sky = SkyLauncher(tmp_path / "b", {"resources": {"accelerators": "H9000:{n}"}}, command=fake_sky.command, grace_s=GRACE_S)
    ray.broken = True
    (fake_sky.state / "broken").touch()
    for launcher in (by_ray, by_sky):
        one = task(launcher, 8, "0", "0", slot="gpu:0")
        with pytest.raises(OSError, match=r"Ray|sky"):
            launcher.poll(one)
        with pytest.raises(OSError, match=r"Ray|sky"):
            launcher.start(one)
        assert endnote.read(one) is None
    ray.broken = False
    (fake_sky.state / "broken").unlink()
    one = task(by_ray, 9, "0", "0", slot="gpu:0")
    by_ray.start(Task(9, 1, one.run_dir, one.argv, one.cwd, "gpu:0", num_processes=9))
    two = task(by_sky, 9, "0", "0", slot="gpu:0")
    by_sky.start(two)
    for launcher, refused in ((by_ray, one), (by_sky, two)):
        assert launcher.poll(refused) == Exit(4)
        told = json.loads((refused.run_dir / "error.json").read_text())
        assert told["code"] == f"jobs.{launcher.name}_refused"
        assert "GPUs" in told["params"]["reason"] or "no resource satisfying" in told["params"]["reason"]


def test_what_is_asked_of_ray_and_sky(ray: FakeRay, fake_sky: FakeSky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_TEACHER_API_KEY", "sk-very-secret")
    by_ray = RayLauncher(tmp_path / "a", ray.url, num_cpus=4, grace_s=4.2)
    one = task(by_ray, 1, "0", "0", slot="gpu:1")
    by_ray.start(Task(1, 1, one.run_dir, one.argv, one.cwd, "gpu:1", num_processes=2, env=one.env))
    [wanted] = ray.jobs.values()
    assert (wanted["entrypoint_num_gpus"], wanted["entrypoint_num_cpus"]) == (2, 4)
    assert wanted["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "10"}
    assert "secret" not in json.dumps(wanted)
    script = one.run_dir / "start.1.0.sh"
    assert "sk-very-secret" in script.read_text()
    assert script.stat().st_mode & 0o077 == 0
    assert ended(by_ray, one) == Exit(0)
    assert ran(one) == ["13"]  # job 1 on the GPU that the node gave

    by_sky = SkyLauncher(
        tmp_path / "b", {"resources": {"accelerators": "H100:{n}"}, "volumes": {"/w": "w"}}, ("-p", "q"), command=fake_sky.command
    )
    cpu = task(by_sky, 2, "0", "0")
    by_sky.start(cpu)
    written = json.loads((cpu.run_dir / "sky.yaml").read_text())
    assert (written["resources"], written["volumes"], written["num_nodes"]) == ({}, {"/w": "w"}, 1)
    assert [
        "jobs",
        "launch",
        "--yes",
        "--detach-run",
        "--name",
        by_sky.name_of(cpu),
        "-p",
        "q",
        str(cpu.run_dir / "sky.yaml"),
    ] in fake_sky.calls()
    gpu = task(by_sky, 3, "0", "0", slot="gpu:0")
    assert json.loads(by_sky.task_file(gpu).read_text())["resources"] == {"accelerators": "H100:1"}
    assert ended(by_sky, cpu) == Exit(0)


def test_the_nodes_own_environment_stands(tmp_path: Path) -> None:
    launcher = RayLauncher(tmp_path, "http://127.0.0.1:9")
    one = task(launcher, 1, "0", "0")
    text = start_script(
        one, 5, [("PATH", "/ours"), ("RAY_ADDRESS", "x"), ("CUDA_VISIBLE_DEVICES", "1"), ("CONSILIUM_HOME", "/h"), ("a-b", "c")]
    )
    lines = text.read_text()
    assert '[ -n "${PATH+set}" ] || export PATH=/ours' in lines
    assert "export CONSILIUM_HOME=/h" in lines
    assert "RAY_ADDRESS" not in lines
    assert "export CUDA" not in lines
    assert "a-b" not in lines


def test_settings_choose_the_launcher(home: Home) -> None:
    def opened(**values: str) -> Home:
        return Home(
            home.root, load_settings({"CONSILIUM_HOME": str(home.root), **{f"CONSILIUM_{k.upper()}": v for k, v in values.items()}})
        )

    ray_home = opened(launcher="ray", ray_address="http://127.0.0.1:8265", ray_jobs="3")
    assert launcher_of(ray_home, grace_s=1).name == "ray"
    assert slots_of(ray_home)["gpu"] == ["gpu:0", "gpu:1", "gpu:2"]
    assert launcher_of(opened(launcher="sky", sky_command="sh"), grace_s=1).name == "sky"
    for values, code in (
        ({"launcher": "ray"}, "jobs.no_ray"),
        ({"launcher": "sky", "sky_command": "no-such-sky"}, "jobs.no_sky"),
        ({"launcher": "sky", "sky_command": "sh", "sky_task": "[1]"}, "bad_setting"),
        ({"launcher": "sky", "sky_command": "sh", "sky_options": '"'}, "bad_setting"),
    ):
        with pytest.raises(UserError) as caught:
            launcher_of(opened(**values), grace_s=1)
        assert caught.value.code == code
