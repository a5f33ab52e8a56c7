"""`./run.sh test`: ruff, mypy and pytest; what is given after `test` goes to pytest (but `--postgres URL`). And `./run.sh fuzz`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from app.console import say, word
from core.settings import ROOT

#: `./run.sh test --postgres URL` (docs/postgresql.md), which tests/databases.py reads
POSTGRES, TEST_DATABASE = "--postgres", "CONSILIUM_TEST_DATABASE_URL"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def run(arguments: list[str]) -> int:
    """Run all checks, also after one has failed. Returns 0 only when all are clean."""
    if not any(shutil.which(browser) for browser in BROWSERS):
        install_browser()
    python = sys.executable
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONSILIUM_") or k == TEST_DATABASE}
    arguments = list(arguments)
    if POSTGRES in arguments[:-1]:  # the whole suite, every home on a database of that server
        place = arguments.index(POSTGRES)
        environment[TEST_DATABASE] = arguments.pop(place + 1)
        arguments.pop(place)
    codes = []
    if not arguments:
        for command in ([python, "-m", "ruff", "check", "."], [python, "-m", "ruff", "format", "--check", "."], [python, "-m", "mypy"]):
            say("> " + " ".join(command[2:]))
            codes.append(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
    if any(codes):
        say(word("checks_failed"), is_error=True)
    # the whole suite is shared by two processes: much of it waits for browsers and for processes that were killed
    chosen = arguments or ["-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]
    codes.append(subprocess.run([python, "-m", "pytest", *chosen], cwd=ROOT, env=environment, check=False).returncode)
    return max(codes)


def fuzz(minutes: float) -> int:
    """Fuzz for `minutes`; the tools lie beside the product's packages, in a folder that only this command looks into."""
    tools, wanted = ROOT / ".venv" / "fuzz", ROOT / "requirements-fuzz.txt"
    mark = tools / ".installed"
    if not mark.exists() or mark.read_text() != wanted.read_text():
        say(word("installing_fuzzers"))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        code = subprocess.run([*pip, "--target", str(tools), "-r", str(wanted)], check=False).returncode
        if code:
            return code
        mark.write_text(wanted.read_text())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONSILIUM_")}
    command = [sys.executable, "-m", "benchmarks.fuzz", "--minutes", str(minutes)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def install_browser() -> None:
    """Chromium for the browser tests, where the system's packages may be installed; otherwise say what is skipped."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        say(word("installing_browser"))
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium", "fonts-noto-cjk"]):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if not any(shutil.which(browser) for browser in BROWSERS):
        say(word("no_browser"), is_error=True)
