"""One fuzzer as a process: libFuzzer (atheris) feeds bytes to the targets of a family, guided by the branches of our own code.

    python -m benchmarks.fuzz.engine FAMILY --seconds 600 --folder FOLDER

A family is a module of this package with `SEEDS` and `TARGETS`, functions of bytes that raise when something is wrong. Targets made from
hypothesis strategies are of the same form (`fuzz_one_input`), so structure comes from hypothesis and guidance from libFuzzer. A finding
does not end the run: it is written once per place (target, exception, innermost line of ours) and the fuzzer goes on. What takes longer
than `SLOW_S` of processor time is a finding too. Started by `benchmarks.fuzz.__main__`, which reads the files that this leaves.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from core.errors import UserError
from core.settings import ROOT

FAMILIES = ("parsers", "importers", "rules")
Target = Callable[[bytes], None]
SLOW_S = 3.0
#: processor time, not the clock's: a machine that stands still for minutes is no finding
HANG_S = 30.0
MAX_LEN = 6000
WRITE_EVERY_S = 2.0


class Hang(Exception):
    """A target used `HANG_S` of processor time."""


def _on_hang(_number: int, _frame: FrameType | None) -> None:
    raise Hang


class Notes:
    """What this run did and found, on disk as it goes: libFuzzer ends its process without asking."""

    def __init__(self, folder: Path, family: str) -> None:
        self.file, self.findings = folder / f"{family}.json", folder / "findings"
        self.findings.mkdir(parents=True, exist_ok=True)
        self.family, self.began, self.written = family, time.monotonic(), 0.0
        self.runs: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.found: dict[str, str] = {}

    def note(self, target: str, what: str, where: str, data: bytes, text: str) -> None:
        key = hashlib.sha256(f"{self.family}/{target}/{what}/{where}".encode()).hexdigest()[:10]
        if key not in self.found:
            self.found[key] = f"{target}: {what} at {where}"
            about = {"family": self.family, "target": target, "what": what, "where": where, "data": base64.b64encode(data).decode()}
            (self.findings / f"{key}.json").write_text(json.dumps({**about, "traceback": text}, indent=1))
        self.write(is_last=True)

    def write(self, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if not is_last and now - self.written < WRITE_EVERY_S:
            return
        self.written = now
        about: dict[str, Any] = {"seconds": round(now - self.began, 1), "runs": dict(self.runs), "refused": dict(self.refused)}
        scratch = self.file.with_suffix(".tmp")
        scratch.write_text(json.dumps({**about, "found": self.found}))
        scratch.replace(self.file)


def guarded(notes: Notes, name: str, target: Target) -> Target:
    """`target` that never raises: a sentence for people is an answer, anything else is noted."""

    def run(data: bytes) -> None:
        notes.runs[name] += 1
        began = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
        try:
            target(data)
        except UserError:
            notes.refused[name] += 1
        except Exception as error:  # the very thing looked for
            notes.note(name, type(error).__name__, _place(error), data, traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        took = time.process_time() - began
        if took > SLOW_S:
            notes.note(name, "slow", name, data, f"{took:.1f} s for {len(data)} bytes")
        notes.write()

    return run


def _place(error: BaseException) -> str:
    """The innermost line of the product's own code."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT)) and "/.venv/" not in f.filename]
    return f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].name}" if ours else "?"


def child(family: str, seconds: int, folder: Path) -> None:
    """Fuzz until the time is over. Never returns: libFuzzer ends the process."""
    import atheris

    os.environ["CONSILIUM_HOME"] = str(folder / "home")
    with atheris.instrument_imports(include=["core", "app", "training"]):
        module = import_module(f"benchmarks.fuzz.{family}")
    notes = Notes(folder, family)
    targets: dict[str, Target] = module.prepare(folder)
    names = sorted(targets)
    runs = [guarded(notes, name, targets[name]) for name in names]
    corpus = folder / "corpus" / family
    corpus.mkdir(parents=True, exist_ok=True)
    for name, seeds in module.SEEDS.items():
        for number, seed in enumerate(seeds):
            (corpus / f"{name}-{number}").write_bytes(bytes([names.index(name)]) + seed)

    signal.signal(signal.SIGVTALRM, _on_hang)

    def one(data: bytes) -> None:
        if data:
            runs[data[0] % len(runs)](data[1:])

    words = folder / f"{family}.dict"
    words.write_text("".join('"' + "".join(f"\\x{b:02x}" for b in word.encode()) + '"\n' for word in module.WORDS))
    options = [f"-max_total_time={seconds}", "-timeout=3600", "-rss_limit_mb=4096", f"-max_len={MAX_LEN}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *options, f"-dict={words}", f"-artifact_prefix={folder}/{family}-"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    child(asked.family, asked.seconds, asked.folder)
