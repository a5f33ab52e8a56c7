"""Starts worker processes in milliseconds: one process that has imported everything forks each of them.

A worker that is killed at random thirty times would otherwise spend the test's minute importing. What is forked is the real
`core.worker.main` in a process of its own; only the imports are shared.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from core.settings import ROOT


class Forked:
    """The little of subprocess.Popen that the tests use, for a process whose parent is the nursery."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery = nursery
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        return self.nursery.codes.get(self.pid)

    def poll(self) -> int | None:
        self.nursery.listen(0)
        return self.returncode

    def wait(self, timeout: float = 10) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
            self.nursery.listen(0.02)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Nursery:
    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def start(self, arguments: tuple[str, ...], env: dict[str, str], log: str) -> Forked:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([arguments, env, log]).encode() + b"\n")
        while True:
            answer = self._line()
            if "started" in answer:
                return Forked(self, answer["started"])

    def listen(self, seconds: float) -> None:
        """Take in what has ended."""
        while select.select([self.process.stdout], [], [], seconds)[0]:
            self._line()

    def _line(self) -> dict[str, int]:
        assert self.process.stdout is not None
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        if "ended" in answer:
            self.codes[answer["ended"]] = answer["code"]
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def say(**answer: int) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def serve() -> None:
    """Fork a worker per line of stdin; tell each start and each end; end with stdin."""
    from tests.faults import fake_worker

    rest = b""
    while True:
        ready = select.select([0], [], [], 0.02)[0]
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                say(ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))
        if not ready:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            arguments, env, log = json.loads(line)
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                    null = os.open(os.devnull, os.O_RDONLY)
                    for number, target in ((null, 0), (fd, 1), (fd, 2)):
                        os.dup2(number, target)
                    os.environ.clear()
                    os.environ.update(env)
                    code = fake_worker.run(arguments)
                finally:
                    os._exit(code)
            say(started=pid)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve()
