"""All fuzzers, one process after another, and what they found: `./run.sh fuzz [MINUTES]`.

    python -m benchmarks.fuzz --minutes 60 [--only parsers] [--folder FOLDER] [--log FILE]

The time is shared equally. A line per fuzzer goes to the log as JSON: seconds, executions per target, branches reached, findings with the
input that shows them. Leaves with 1 when anything was found. A fuzzer that dies (a crash in a C library, a hang, memory) is a finding
with libFuzzer's artifact, and is started again for what is left of its time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.fuzz.engine import FAMILIES
from core.settings import ROOT

TOOLS = ROOT / ".venv" / "fuzz"
NAMES = (*FAMILIES, "openapi")


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CONSILIUM_")}
    return {**kept, "PYTHONPATH": f"{TOOLS}:{ROOT}", "OMP_NUM_THREADS": "1"}


def fuzz(family: str, seconds: int, folder: Path) -> dict[str, Any]:
    """One family for so many seconds; started again when it dies before the time is over."""
    runs: dict[str, int] = {}
    found: dict[str, str] = {}
    refused, spent, fuzzed, cov, deaths = 0, 0.0, 0.0, 0, 0
    while seconds - spent > 5 and deaths < 20:
        (folder / f"{family}.json").unlink(missing_ok=True)
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "benchmarks.fuzz.engine",
            family,
            "--seconds",
            str(round(seconds - spent)),
            "--folder",
            str(folder),
        ]
        with (folder / f"{family}.txt").open("a+") as out:
            code = subprocess.run(command, cwd=ROOT, env=environment(), stdout=out, stderr=out, check=False).returncode
            out.seek(0)
            text = out.read()
        spent += time.monotonic() - began
        try:
            told = json.loads((folder / f"{family}.json").read_text())
        except FileNotFoundError:
            return {"fuzzer": family, "seconds": round(spent), "found": {"start": text[-800:]}}
        for name, number in told["runs"].items():
            runs[name] = runs.get(name, 0) + number
        refused += sum(told["refused"].values())
        fuzzed += told["seconds"]
        found |= told["found"]
        cov = max([cov, *map(int, re.findall(r"\bcov: (\d+)", text))])
        if code != 0:
            deaths += 1
            found[f"death-{deaths}"] = " | ".join(text.strip().splitlines()[-4:])[:600]
    return {
        "fuzzer": family,
        "seconds": round(fuzzed),
        "executions": sum(runs.values()),
        "refused_with_a_sentence": refused,
        "branches": cov,
        "targets": runs,
        "found": found,
    }


def openapi(seconds: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.fuzz.openapi", "--seconds", str(seconds), "--folder", str(folder)]
    began = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    spent = round(time.monotonic() - began)
    if ended.returncode:
        return {"fuzzer": "openapi", "seconds": spent, "found": {"start": ended.stderr[-800:]}}
    told = json.loads(ended.stdout)
    errors = told.pop("errors_in_the_log")
    found = {f"{role}-{n}": text for role, one in told.items() for n, text in enumerate(one["findings"])}
    if errors:
        found["log"] = f"{errors} errors in the web process's log"
    requests = {role: one["requests"] for role, one in told.items()}
    return {"fuzzer": "openapi", "seconds": spent, "executions": sum(requests.values()), "targets": requests, "found": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()
    if not TOOLS.is_dir():
        print("The fuzzers' own packages are missing; `./run.sh fuzz` installs them from requirements-fuzz.txt.", file=sys.stderr)
        return 2
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="consilium-fuzz-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    names = asked.only or list(NAMES)
    num_found = 0
    for name in names:
        seconds = round(60 * asked.minutes / len(names))
        figures = openapi(seconds, folder) if name == "openapi" else fuzz(name, seconds, folder)
        num_found += len(figures["found"])
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **figures}, ensure_ascii=False)
        print(line, flush=True)
        if asked.log:
            with asked.log.open("a") as file:
                file.write(line + "\n")
    print(f"{num_found} findings; inputs and tracebacks are in {folder / 'findings'}", flush=True)
    return 1 if num_found else 0


if __name__ == "__main__":
    sys.exit(main())
