"""schemathesis over the OpenAPI document of the running product, signed in as each role and as nobody.

    python -m benchmarks.fuzz.openapi --seconds 300 --folder FOLDER

The real web process on a home with cases, people of every role and an index. Each role gets an equal part of the time. Requests are
made from the document, in its form and out of it, one after another and in sequences; every answer is held against it: no 500, no
status, content type, header or body that the document does not name. 503 with its sentence is an answer (no model server runs here);
nobody's requests must end in 401 but for the public ones. Leaves openapi.json (figures and findings) in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load.site import PASSWORD, prepare, start
from core import accounts
from core.home import open_home
from core.settings import ROOT, load_settings
from db.engine import database

ROLES = ("clinician", "product", "engineer", "admin", "nobody")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "missing_required_header,allow_header_conformance"
)
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
"""
#: an answer may take long on a busy machine; longer is a finding
MAX_S = 60


def tokens() -> dict[str, str]:
    """A person of each role, signed in."""
    found = {}
    for role in ROLES[:-1]:
        user_id = accounts.create_user(f"fuzz-{role}", f"Fuzz {role}", role, by=None)
        accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
        found[role] = accounts.open_session(user_id, "fuzz")
    return found


def attack(role: str, url: str, schema: Path, token: str, seconds: int, folder: Path) -> dict[str, Any]:
    """One role's share; what schemathesis reports about it."""
    config, report = folder / "schemathesis.toml", folder / f"report-{role}.json"
    config.write_text(CONFIG)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "fuzz", str(schema)]
    command += ["--url", f"{url}/api", "--max-time", str(seconds), "--continue-on-failure", "--checks", CHECKS]
    command += ["--request-timeout", str(MAX_S), "--suppress-health-check", "all", "--generation-database", "none"]
    command += ["--report", "json", "--report-json-path", str(report), "--seed", str(int(time.time()))]
    # its own sign-in must outlive the run
    command += ["--exclude-path", "/session", "--workers", "1"]
    if token:
        command += ["-H", f"Authorization: Bearer {token}"]
    began = time.monotonic()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    (folder / f"schemathesis-{role}.txt").write_text(ended.stdout + ended.stderr)
    return {"seconds": round(time.monotonic() - began, 1), "code": ended.returncode, **summary(ended.stdout)}


def summary(text: str) -> dict[str, Any]:
    """Figures and findings from what schemathesis prints."""
    made = re.search(r"(\d[\d,]*) generated", text)
    kinds = re.findall(r"^\s*-? ?❌ (.+)$", text, re.MULTILINE)
    return {"requests": int(made[1].replace(",", "")) if made else 0, "findings": kinds}


def run(seconds: int, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home-openapi"
    environment, _ = prepare(home, num_cases=200, num_readers=1)
    open_home(load_settings(environment))
    signed_in = tokens()
    database().dispose()
    process, _ = start({**environment, "CONSILIUM_SESSION_IDLE_MINUTES": "100000"}, home)
    url = f"http://127.0.0.1:{environment['CONSILIUM_PORT']}"
    found: dict[str, Any] = {}
    try:
        answer = httpx.get(
            f"{url}/api/openapi.json", headers={"Authorization": f"Bearer {signed_in['admin']}"}, trust_env=False, timeout=600
        )
        schema = folder / "schema.json"
        schema.write_text(answer.raise_for_status().text)
        for role in ROLES:
            found[role] = attack(role, url, schema, signed_in.get(role, ""), seconds // len(ROLES), folder)
            (folder / "openapi.json").write_text(json.dumps(found, indent=1))
        log = (home / "web.log").read_text(errors="replace")
        found["errors_in_the_log"] = log.count('"level": "ERROR"')
        (folder / "openapi.json").write_text(json.dumps(found, indent=1))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:  # a machine so busy that an orderly end takes minutes: nothing here is kept
            process.kill()
            process.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = f"{ROOT / '.venv' / 'fuzz'}:{ROOT}"
    print(json.dumps(run(asked.seconds, asked.folder.resolve()), indent=1))


if __name__ == "__main__":
    main()
