"""The launcher with its three real processes: a killed child comes back, SIGTERM ends everybody, a second start is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.settings import ROOT
from tests.databases import Databases

CHILDREN = ("web", "worker", "model_server")


def until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first truthy answer of `check`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CONSILIUM_")}
    return {**kept, "CONSILIUM_HOME": str(home), "CONSILIUM_LANGUAGE": "en", "CONSILIUM_MODEL_SERVER_PORT": "0", **more}


class Started:
    """`python -m app serve` on a temporary home, with what it printed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.printed = home.parent / "printed.txt"
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--empty", "--no-browser"]
        with self.printed.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment(home), stdout=out, stderr=out, start_new_session=True)

    def children(self) -> dict[str, dict[str, Any]]:
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.home / "processes.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def text(self) -> str:
        return self.printed.read_text()


@pytest.fixture
def started(tmp_path: Path, databases: Databases) -> Iterator[Started]:
    (tmp_path / "home").mkdir()
    databases.provide(tmp_path / "home")
    launcher = Started(tmp_path / "home")
    yield launcher
    left = [psutil.Process(c["pid"]) for c in launcher.children().values() if psutil.pid_exists(c["pid"])]
    for process in [*left, launcher.process]:
        if process.pid and psutil.pid_exists(process.pid):
            process.kill()
    launcher.process.wait()


@pytest.mark.slow
def test_a_killed_child_comes_back_and_a_signal_ends_all(started: Started) -> None:
    until(lambda: "is ready at" in started.text())
    until(lambda: len(started.children()) == len(CHILDREN))
    address = re.search(r"ready at (\S+)", started.text())
    link = re.search(r"(http\S+/login/once/\S+)", started.text())
    assert address
    assert link
    assert "Choose a password" in httpx.get(link[1], trust_env=False).text
    assert started.text().count("/login/once/") == 1
    assert "/login/once/" not in (started.home / "logs" / "launcher.log").read_text()

    second = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--empty"],
        cwd=ROOT,
        env=environment(started.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert "already running" in second.stderr

    for name in CHILDREN:
        before = started.children()
        os.kill(before[name]["pid"], signal.SIGKILL)
        until(lambda n=name, b=before: started.children().get(n, {}).get("restarts", 0) > b[n]["restarts"])
        after = started.children()
        assert {n: c["pid"] for n, c in after.items() if n != name} == {n: c["pid"] for n, c in before.items() if n != name}
        assert f"{name} ended (exit code -9)" in started.text()
    until(lambda: _answers(f"{address[1]}/login"))

    pids = [c["pid"] for c in started.children().values()]
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(30) == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert "All processes have ended." in started.text()


@pytest.mark.slow
def test_what_a_killed_launcher_left_is_ended_at_the_next_start(started: Started) -> None:
    until(lambda: len(started.children()) == len(CHILDREN))
    orphans = [c["pid"] for c in started.children().values()]
    started.process.kill()
    started.process.wait()
    again = Started(started.home)
    try:
        until(lambda: "is ready at" in again.text())
        assert again.text().count("left behind by an earlier start") == len(CHILDREN)
        assert not [pid for pid in orphans if psutil.pid_exists(pid)]
    finally:
        again.process.send_signal(signal.SIGTERM)
        again.process.wait(30)


def test_a_busy_port_is_one_sentence_with_the_next_step(tmp_path: Path) -> None:
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "app", "serve", "--port", port, "--empty"],
            cwd=ROOT,
            env=environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.strip().count("\n") == 0
    assert f"Port {port}" in ended.stderr
    assert "serve --port" in ended.stderr


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
