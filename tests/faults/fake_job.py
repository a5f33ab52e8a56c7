"""A job for the fault tests that costs milliseconds, standard library only, with the files and exit codes of `training.run`.

Counts steps and saves a checkpoint at each; can crash, breed or refuse to die. Appends what it does to journal.txt of the
home with its process id and a monotonic time, so that a test sees what really ran, and when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    run_dir = Path(sys.argv[sys.argv.index("--run-dir") + 1])
    config = json.loads((run_dir / "config.json").read_text())
    job_id = int(os.environ["CONSILIUM_JOB_ID"])

    def journal(what: str, step: int) -> None:
        line = json.dumps({"job": job_id, "what": what, "step": step, "pid": os.getpid(), "at": time.monotonic()}) + "\n"
        fd = os.open(Path(os.environ["CONSILIUM_HOME"]) / "journal.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, line.encode())
        os.close(fd)

    def put(path: Path, text: str) -> None:
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(text)
        scratch.replace(path)

    saved = run_dir / "checkpoints" / "step"
    saved.parent.mkdir(exist_ok=True)
    first = int(saved.read_text()) if saved.exists() else 0
    journal("start", first)
    if config["mode"] == "user_error":
        put(run_dir / "error.json", json.dumps({"code": "disk_full", "params": {}}))
        return 4
    if config["mode"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        for _ in range(3):
            subprocess.Popen([sys.executable, "-S", "-c", deaf])
        subprocess.Popen(["setsid", "-f", "sleep", "600"])
    for step in range(first, config["steps"]):
        time.sleep(config["step_s"])
        journal("step", step)
        if step == config["crash_at"] and (first == 0 or config["mode"] == "always_crash"):
            raise RuntimeError("the fake crash")
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "loss": 1 / (step + 1)}) + "\n")
        put(saved, str(step + 1))
        put(run_dir / "progress.json", json.dumps({"phase": "counting", "done": step + 1, "total": config["steps"]}))
        if (run_dir / "STOP").exists():
            return 3
    put(run_dir / "result.json", json.dumps({"first": first}))
    journal("end", first)
    put(run_dir / "done.json", json.dumps({"attempt": int(os.environ["CONSILIUM_ATTEMPT"])}))
    time.sleep(config["slow_exit_s"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
