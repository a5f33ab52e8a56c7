"""Keeps the three processes running: web, worker, model server. `./run.sh` ends in `Launcher.run()`.

One launcher per home (a lock that the kernel lets go of when we die). A child that ends is started again after a growing pause
and never takes the others down. SIGTERM or Ctrl-C ends all three; trainings run under supervisors of their own, go on, and are
found again at the next start. What runs is written to `processes.json`, so that the next start can end what a killed launcher
left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

import httpx
import psutil

from core.errors import Unavailable
from core.health import is_alive
from core.home import Home
from core.settings import ROOT

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TICK_S = 0.2
#: a process that had been well comes back at once: fifty desks wait for it; one that keeps falling waits longer each time
FIRST_PAUSE_S = 0.1
SECOND_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
#: how far everything else steps back behind the web process when cores run short; what a worker starts inherits it
GIVES_WAY = {"worker": 5, "model_server": 2}
#: running this long, a child counts as healthy and its pause starts small again
HEALTHY_S = 60.0
NOTE_AGAIN_S = 10.0
GRACE_S = 15.0
#: worker and model server wait this long for the web process, so that a first training does not slow its start
HEAD_START_S = 15.0
MAX_LOG_BYTES = 20_000_000


@dataclass
class Child:
    """One process and its luck so far. Times are on the monotonic clock."""

    name: str
    command: list[str]
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    created: float = 0.0
    started_at: float = 0.0
    start_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    num_starts: int = 0


@dataclass
class Launcher:
    """`say` prints a line for the person at the terminal; everything said is in logs/launcher.log too."""

    home: Home
    port: int
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    _lock: IO[str] | None = None
    _is_stopping: bool = False
    _is_impatient: bool = False
    _is_web_up: bool = False
    _is_noted: bool = False

    def claim(self) -> None:
        """Become the only launcher of this home and find the ports free.

        Raises Unavailable("start.already_running" / "start.port_busy" / "start.model_port_busy").
        """
        self._lock = (self.home.root / "launcher.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unavailable("start.already_running", path=self.home.root) from error
        self._end_leftovers()
        settings = self.home.settings
        self.port = _free_port(settings.host, self.port, "start.port_busy")
        model_port = _free_port("127.0.0.1", settings.model_server_port, "start.model_port_busy")
        if model_port == self.port:
            raise Unavailable("start.model_port_busy", port=model_port)
        env = {
            **os.environ,
            "CONSILIUM_HOME": str(self.home.root),
            "CONSILIUM_PORT": str(self.port),
            "CONSILIUM_MODEL_SERVER_PORT": str(model_port),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(self.home.uploads / "bench"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        web = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", settings.host, "--port", str(self.port), "--workers", "1"]
        web += ["--timeout-graceful-shutdown", "5", "--no-server-header", "--no-access-log", "--no-proxy-headers"]
        self.children = [
            # the web process computes nothing; OpenMP pools would only compete with a training
            Child("web", web, env | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}),
            Child("worker", [sys.executable, "-m", "core.worker"], env),
            # its log is lines, not progress bars
            Child("model_server", [sys.executable, "-m", "core.model_server"], env | {"TQDM_DISABLE": "1"}),
        ]

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Start all, keep them alive, return after a signal when all have ended. `on_ready` gets the address once it answers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            for child in self.children:
                child.start_at = time.monotonic() + (0.0 if child.name == "web" else HEAD_START_S)
            note_at = time.monotonic() + NOTE_AGAIN_S
            threading.Thread(target=self._wait_for_web, args=(on_ready,), daemon=True).start()
            while not self._is_stopping:
                for child in self.children:
                    self._look_after(child)
                if not self._is_noted and time.monotonic() >= note_at:
                    note_at = time.monotonic() + NOTE_AGAIN_S
                    self._write_processes()
                time.sleep(TICK_S)
        finally:
            self._stop_all()

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the site."""
        host = self.home.settings.host
        return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{self.port}"  # noqa: S104 - compared, not bound

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._is_impatient = self._is_stopping
        self._is_stopping = True

    def _start(self, child: Child) -> None:
        steps = GIVES_WAY.get(child.name, 0)
        with self._log_of(child) as log:
            child.process = subprocess.Popen(
                ["nice", "-n", str(steps), *child.command] if steps and shutil.which("nice") else child.command,
                cwd=ROOT,
                env=child.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the launcher, which then ends its children in order
            )
        child.started_at = time.monotonic()
        child.num_starts += 1
        self._is_noted = False
        try:
            child.created = psutil.Process(child.process.pid).create_time()
        except psutil.Error:  # gone already: the next look sees to it
            child.created = 0.0
        self._write_processes()

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at or (child.num_starts == 0 and self._is_web_up):
                try:
                    self._start(child)
                except OSError as error:  # no memory for a process just now: the others live on, and it is tried again
                    child.start_at = now + LONGEST_PAUSE_S
                    self.say(f"{child.name} could not be started ({error.strerror}), trying again in {LONGEST_PAUSE_S:.0f} s")
            return
        code = child.process.poll()
        if code is None:
            if now - child.started_at >= HEALTHY_S:
                child.pause_s = FIRST_PAUSE_S
            return
        child.process = None
        child.start_at = now + child.pause_s
        self.say(f"{child.name} ended (exit code {code}), starting it again in {child.pause_s:g} s; see {self.home.logs / child.name}.log")
        child.pause_s = SECOND_PAUSE_S if child.pause_s == FIRST_PAUSE_S else min(child.pause_s * 2, LONGEST_PAUSE_S)

    def _stop_all(self) -> None:
        running = [c.process for c in self.children if c.process is not None and c.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while any(p.poll() is None for p in running) and time.monotonic() < deadline and not self._is_impatient:
            time.sleep(0.05)
        for process in running:
            if process.poll() is None:
                self.say(f"process {process.pid} did not end in time and is killed")
                process.kill()
            process.wait()
        with suppress(OSError):  # a read-only disk: the next start sees that they are dead
            (self.home.root / "processes.json").unlink(missing_ok=True)

    def _log_of(self, child: Child) -> IO[bytes]:
        """The child's log; where the folder takes none, its lines are dropped: a product without a log serves, a dead one does not."""
        try:
            return _log_file(self.home.logs / f"{child.name}.log")
        except OSError as error:
            self.say(f"the log of {child.name} cannot be written ({error.strerror}); it runs without one")
            return open(os.devnull, "wb")

    def _write_processes(self) -> None:
        running = {
            c.name: {"pid": c.process.pid, "created": c.created, "restarts": c.num_starts - 1, "address": self.address}
            for c in self.children
            if c.process is not None
        }
        scratch = self.home.root / "processes.json.tmp"
        try:
            scratch.write_text(json.dumps(running), encoding="utf-8")
            scratch.replace(self.home.root / "processes.json")
        except OSError as error:  # a full or read-only disk: the processes matter more than the note about them
            self.say(f"processes.json could not be written: {error.strerror}")
            return
        self._is_noted = True

    def _end_leftovers(self) -> None:
        """End the processes of a launcher that was killed: they hold the port and the worker's lock."""
        try:
            written = json.loads((self.home.root / "processes.json").read_text(encoding="utf-8"))
            left = [psutil.Process(e["pid"]) for e in written.values() if is_alive(e["pid"], e["created"])]
        except (OSError, ValueError, AttributeError, TypeError, KeyError):  # not there, or not what a launcher wrote
            return
        for process in left:
            self.say(f"ending process {process.pid}, left behind by an earlier start")
            process.terminate()
        _gone, alive = psutil.wait_procs(left, timeout=GRACE_S)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)

    def _wait_for_web(self, on_ready: Callable[[str], None]) -> None:
        while not self._is_stopping:
            try:
                httpx.get(f"{self.address}/login", timeout=5, trust_env=False)
            except httpx.TransportError:
                time.sleep(TICK_S)
                continue
            self._is_web_up = True
            on_ready(self.address)
            return


def _free_port(host: str, port: int, code: str) -> int:
    """`port` if nobody listens there (0: one that is free). Raises Unavailable(code)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(code, port=port, host=host, reason=error.strerror or str(error)) from error
        return int(probe.getsockname()[1])


def _log_file(path: Path) -> IO[bytes]:
    """Open a log for appending; a large one is set aside first."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")
