"""A real Slurm of one node in a temporary folder: munged, slurmctld and slurmd on loopback, with a config of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol")
#: Debian keeps daemons where ordinary users do not look
FOLDERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
CONFIG = """
ClusterName=consilium
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=15
MinJobAge=10
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no Slurm here; empty when there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=FOLDERS) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)"
    return "" if os.getuid() == 0 else "slurmd wants to run as root"


class Cluster:
    """Start with `start()`, which raises RuntimeError with the daemons' last words when it does not come up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config)}

    def start(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.root / name).mkdir(parents=True)
        munge = self.root / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o600)
        port, node_port = _free_ports(2)
        self.config.write_text(CONFIG.format(port=port, node_port=node_port, root=self.root, user="root", host=socket.gethostname()))
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._spawn("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        self._until(lambda: (munge / "socket").exists(), "munged")
        self._spawn("slurmctld", "-D", "-f", str(self.config))
        self._spawn("slurmd", "-D", "-N", "localhost", "-f", str(self.config))
        self._until(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), "the node")

    def ask(self, *argv: str) -> str:
        found = subprocess.run(argv, env={**os.environ, **self.env}, capture_output=True, text=True, check=False, timeout=20)
        return found.stdout

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _spawn(self, program: str, *arguments: str) -> None:
        found = shutil.which(program, path=FOLDERS)
        assert found is not None
        with (self.root / f"{program}.out").open("wb") as out:
            command = [found, *arguments]
            environment = {**os.environ, **self.env}
            self.daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL))

    def _until(self, condition: object, what: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        assert callable(condition)
        while not condition():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in sorted(self.root.glob("*.*")))
                raise RuntimeError(f"{what} did not come up\n{logs}")
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
