"""Starts a training script on several processes of one machine: `accelerate launch` beneath, one exit code above.

    python -m core.jobs.launch.ranks --num-processes 2 training.sft --run-dir DIR

`accelerate launch` turns every ending but 0 into 1. The queue tells "stopped and saved" (3) and "a person must mend something"
(4) apart, so the first process to end that way notes its code in ranks.json (`training.run`), and it is passed on here. Signals
and kills need nothing: the supervisor ends every descendant, whatever session it made for itself. Started by
`core.jobs.tasks.argv_of`; standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

RANKS_FILE = "ranks.json"


def accelerate_argv(num_processes: int, module: str, run_dir: Path) -> list[str]:
    """The command that is run. Port 0: a free one, so that two jobs of one machine do not meet.

    `--multi_gpu` also where there is no GPU: it only chooses torch's elastic launcher; with the device set to cpu the processes
    talk by gloo (`--cpu` would ask for MPI).
    """
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*launch, "-m", module, "--run-dir", str(run_dir)]


def noted_code(run_dir: Path, attempt: int) -> int | None:
    """The exit code that a process of this attempt left, if any did."""
    try:
        noted = json.loads((run_dir / RANKS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(noted["code"]) if noted.get("attempt") == attempt else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a training script on several processes.")
    parser.add_argument("--num-processes", type=int, required=True)
    parser.add_argument("module")
    parser.add_argument("--run-dir", type=Path, required=True)
    options = parser.parse_args()
    attempt = int(os.environ.get("CONSILIUM_ATTEMPT", "1"))
    (options.run_dir / RANKS_FILE).unlink(missing_ok=True)
    argv = accelerate_argv(options.num_processes, options.module, options.run_dir)
    print(" ".join(argv), flush=True)
    code = subprocess.run(argv, check=False).returncode
    noted = noted_code(options.run_dir, attempt)
    if noted is not None:
        return noted
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
