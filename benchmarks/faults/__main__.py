"""All fault cases against a real product in scratch homes; writes the table of docs/reliability.md.

    python -m benchmarks.faults [--only "disk full" ...] [--out FILE] [--into docs/reliability.md]

As root on Linux (small disks are mounted in a namespace of its own; a case that needs it is left out, loudly, elsewhere). About
twenty minutes on a quiet machine. FILE keeps each result as a line of JSON as it comes, so that a run can be taken up again: cases that
stand in it are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.faults.cases import CASES, close
from core.settings import ROOT

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
IN_A_NAMESPACE = "CONSILIUM_FAULTS_NAMESPACE"


def run_all(names: list[str], out: Path) -> int:
    known = read(out)
    num_failed = 0
    for name in names:
        if name in known:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="consilium-fault-", ignore_cleanup_errors=True) as folder:
            try:
                line: dict[str, Any] = {"case": name, **asdict(CASES[name](Path(folder)))}
            except Exception as error:  # one case that fails must not hide the others
                num_failed += 1
                print(
                    f"{name}: FAILED after {time.monotonic() - began:.0f} s: {error}\n{traceback.format_exc()}", file=sys.stderr, flush=True
                )
                continue
        line["seconds"] = round(time.monotonic() - began)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{name}: {line['seconds']} s", flush=True)
    return num_failed


def read(out: Path) -> dict[str, dict[str, Any]]:
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return {line["case"]: line for line in map(json.loads, lines)}


def table(found: dict[str, dict[str, Any]]) -> str:
    rows = ["| case | what was done | what the person saw | lost | how it went on |", "|---|---|---|---|---|"]
    for name in CASES:
        if name in found:
            cells = (found[name][key].replace("|", "/").replace("\n", " ") for key in ("done", "person", "lost", "recovery"))
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(CASES))
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "consilium-faults.jsonl")
    parser.add_argument("--into", type=Path)
    asked = parser.parse_args()
    if os.geteuid() == 0 and IN_A_NAMESPACE not in os.environ:
        os.execvpe(
            "unshare", ["unshare", "-m", sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]], {**os.environ, IN_A_NAMESPACE: "1"}
        )
    names = asked.only or list(CASES)
    if os.geteuid() != 0:
        print("not root: the cases with a small disk are left out", file=sys.stderr)
        names = [name for name in names if not name.startswith("disk ")]
    try:
        num_failed = run_all(names, asked.out)
    finally:
        close()
    shown = table(read(asked.out))
    if asked.into:
        page = (ROOT / asked.into).read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        (ROOT / asked.into).write_text(f"{head}{BEGIN}\n{shown}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    else:
        print(shown)
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
