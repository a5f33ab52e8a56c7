"""The supervisor of one attempt of one job: a small process between the worker and the training, standard library only.

It outlives the worker, so a restarted worker finds the training running. It holds an flock on the run folder (a job cannot
run twice) and on its slot (one GPU job), adopts every orphaned descendant (subreaper), dies together with its child
(PDEATHSIG), ends all descendants by SIGTERM, grace, SIGKILL, also those that made a session of their own, and writes
`exit.<attempt>.json` by fsync and rename, waiting for space when the disk is full. An attempt that has an exit file never
starts again. Started by `core.jobs.launch.local` as a plain file; Linux only (/proc, prctl, pidfd).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

#: marks every process of a job, so that strays are found after their supervisor was killed
RUN_TAG = "CONSILIUM_RUN_DIR"
SLOT_TAG = "CONSILIUM_SLOT_LOCK"
LOCK_NAME = "run.lock"
EXIT_NOT_LOCKED = 75
#: a probe by a worker or a sweep may hold the lock for a moment
LOCK_PATIENCE_S = 3.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ENOTCONN}


def exit_name(attempt: int) -> str:
    return f"exit.{attempt}.json"


def try_lock(path: str) -> int | None:
    """An open descriptor that holds an exclusive flock on `path`, or None when somebody else does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def processes() -> Iterator[int]:
    """Ids of all processes but this one."""
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != own:
            yield int(entry)


def read_proc(pid: int, name: str) -> bytes:
    """A file of /proc/<pid>; empty when the process is gone or not ours."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def tag_of(pid: int, tag: str) -> str | None:
    """The value of an environment variable of another process."""
    wanted = tag.encode() + b"="
    for entry in read_proc(pid, "environ").split(b"\0"):
        if entry.startswith(wanted):
            return os.fsdecode(entry[len(wanted) :])
    return None


def descendants() -> list[int]:
    """Living children, their children and so on; dead ones that wait to be reaped are left out."""
    parents: dict[int, list[int]] = {}
    for pid in processes():
        fields = read_proc(pid, "stat").rpartition(b")")[2].split()
        if len(fields) > 1 and fields[0] != b"Z":
            parents.setdefault(int(fields[1]), []).append(pid)
    found, level = [], [os.getpid()]
    while level:
        children = parents.get(level.pop(), [])
        found += children
        level += children
    return found


def send(pid: int, number: int, tag: str = "", value: str = "") -> None:
    """Signal a process; with a `tag`, only when it still carries that value, so that a reused id is never hit."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(pid)
        try:
            if not tag or tag_of(pid, tag) == value:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def kill_tagged(tag: str, value: str) -> int:
    """SIGKILL every process that carries this tag. Returns how many there were. Only call while holding the lock it names."""
    killed = 0
    for _ in range(50):  # until a round finds nobody: a process may fork while we look
        found = [pid for pid in processes() if tag_of(pid, tag) == value]
        for pid in found:
            send(pid, signal.SIGKILL, tag, value)
        killed = max(killed, len(found))
        if not found:
            break
        time.sleep(0.02)
    return killed


def write_record(run_dir: str, attempt: int, record: dict[str, object], *, patient: bool = True) -> None:
    """Write the exit file so that it is either whole on disk or absent; `patient` waits for space until the folder vanishes."""
    data = json.dumps(record).encode()
    while True:
        try:
            folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
            try:
                scratch = f".exit.{os.getpid()}.tmp"
                fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder)
                try:
                    if os.write(fd, data) != len(data):
                        raise OSError(errno.ENOSPC, "short write")
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(scratch, exit_name(attempt), src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            finally:
                os.close(folder)
            return
        except OSError as error:
            if not patient or error.errno in GONE:
                raise
            time.sleep(0.5)


class Shim:
    def __init__(self, options: argparse.Namespace) -> None:
        self.run_dir: str = options.run_dir
        self.attempt: int = options.attempt
        self.start: int = options.start
        self.grace_s: float = options.grace
        self.slot_lock: str = options.slot_lock
        self.argv: list[str] = options.argv
        self.was_terminated = False
        self.ended: dict[int, int] = {}

    def say(self, text: str) -> None:
        """A line in the job's own log."""
        with contextlib.suppress(OSError):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            os.write(2, f"=== {stamp} UTC, attempt {self.attempt}: {text}\n".encode())

    def wait(self, seconds: float) -> None:
        """Sleep until a signal or the time is over; note a request to end; collect the dead."""
        info = signal.sigtimedwait(SIGNALS, seconds)
        if info is not None and info.si_signo != signal.SIGCHLD:
            self.was_terminated = True
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                self.ended[pid] = status

    def everyone(self) -> set[int]:
        strays = (pid for pid in processes() if tag_of(pid, RUN_TAG) == self.run_dir)
        return {*descendants(), *strays}

    def end_everyone(self) -> None:
        """TERM, grace, KILL until nobody is left. What another user owns cannot be killed and is given up after a while."""
        deadline = time.monotonic() + self.grace_s
        asked: set[int] = set()
        while (alive := self.everyone()) and time.monotonic() < deadline:
            for pid in alive - asked:
                send(pid, signal.SIGTERM)
                send(pid, signal.SIGCONT)
            asked |= alive
            self.wait(0.05)
        give_up = time.monotonic() + 60
        while (alive := self.everyone()) and time.monotonic() < give_up:
            for pid in alive:
                send(pid, signal.SIGKILL)
            self.wait(0.05)
        if alive:
            self.say(f"could not be killed: {sorted(alive)}")

    def run(self) -> int:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while (run_lock := try_lock(os.path.join(self.run_dir, LOCK_NAME))) is None:
            if time.monotonic() > deadline:
                return EXIT_NOT_LOCKED
            time.sleep(0.05)
        if os.path.exists(os.path.join(self.run_dir, exit_name(self.attempt))):
            return 0
        with contextlib.suppress(OSError):  # tells a later worker which start of which attempt had begun
            os.truncate(run_lock, 0)
            os.pwrite(run_lock, f"{self.attempt} {self.start}\n".encode(), 0)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        slot_lock = None
        while self.slot_lock and slot_lock is None and not self.was_terminated:
            slot_lock = try_lock(self.slot_lock)
            if slot_lock is None:
                self.wait(0.2)
        # With the locks in hand nobody else may carry these tags: whoever does was left behind by a killed supervisor.
        strays = kill_tagged(RUN_TAG, self.run_dir) + (kill_tagged(SLOT_TAG, self.slot_lock) if slot_lock is not None else 0)
        if strays:
            self.say(f"{strays} processes left behind by an earlier supervisor were ended")
        record = _record(None, None, True) if self.was_terminated else self.supervise(libc)
        try:
            write_record(self.run_dir, self.attempt, record)
        except OSError as error:
            self.say(f"exit record not written: {error}")
            return 1
        return 0

    def supervise(self, libc: ctypes.CDLL) -> dict[str, object]:
        own = os.getpid()

        def in_child() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != own:  # the supervisor died before the line above
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            # when memory runs out, the training goes before web, worker and supervisor
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
                file.write("500")
            os.nice(5)  # the desk stays quick while a training uses every core

        self.say(" ".join(self.argv))
        env = {**os.environ, RUN_TAG: self.run_dir, SLOT_TAG: self.slot_lock, "CONSILIUM_ATTEMPT": str(self.attempt)}
        try:
            child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, env=env, preexec_fn=in_child)
        except (OSError, subprocess.SubprocessError) as error:
            self.say(f"could not be started: {error}")
            return _record(127, None, False)
        while child.pid not in self.ended:
            self.wait(1.0)
            if self.was_terminated:
                self.end_everyone()
                break
        was_terminated = self.was_terminated
        self.end_everyone()
        while child.pid not in self.ended:
            self.wait(1.0)
        child.returncode = code = os.waitstatus_to_exitcode(self.ended[child.pid])
        self.say(f"ended with exit code {code}" if code >= 0 else f"ended by signal {-code}")
        return _record(code, None, was_terminated) if code >= 0 else _record(None, -code, was_terminated)


def _record(code: int | None, number: int | None, was_terminated: bool) -> dict[str, object]:
    return {"code": code, "signal": number, "was_terminated": was_terminated, "at": time.time()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Supervise one attempt of one job.")
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--start", type=int, default=0, help="number of earlier starts of this attempt that were lost")
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("--slot-lock", default="")
    parser.add_argument("argv", nargs="+")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return Shim(parser.parse_args()).run()
    except OSError as error:  # full disk, vanished folder: nothing was started, the worker tries again
        print(f"supervisor: {error}", file=sys.stderr)
        return os.EX_IOERR


if __name__ == "__main__":
    sys.exit(main())
