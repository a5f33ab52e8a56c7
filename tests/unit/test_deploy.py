"""The systemd unit and the Containerfile: what they promise is in them, and a linter reads them where one is installed."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import ROOT, Settings

DEPLOY = ROOT / "docs" / "deploy"
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "",
    "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectControlGroups": "yes", "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes", "LockPersonality": "yes", "SystemCallFilter": "@system-service", "UMask": "0077",
}  # fmt: skip


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "consilium.service")
    return parser["Service"]


def test_the_unit_is_hardened_and_starts_what_run_sh_starts() -> None:
    unit = service()
    assert {key: unit[key] for key in HARDENED} == HARDENED
    assert unit["ExecStart"] == "/opt/consilium/.venv/bin/python -m app serve --no-browser --empty"
    assert unit["User"] not in ("root", "")
    assert unit["KillMode"] == "process"  # a training outlives a restart
    assert unit["OOMPolicy"] == "continue"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_itself_finds_no_fault(tmp_path: Path) -> None:
    here = tmp_path / "consilium.service"
    # what it names must be there: this checkout stands for the installed one, root for the account
    text = (DEPLOY / "consilium.service").read_text()
    text = text.replace("/opt/consilium/.venv/bin/python", sys.executable).replace("/opt/consilium", str(ROOT))
    here.write_text(re.sub(r"^(User|Group)=.*$", r"\1=root", text, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "consilium" in line]
    assert ours == []


def test_every_setting_of_the_example_exists() -> None:
    text = (DEPLOY / "consilium.env").read_text() + (DEPLOY / "Containerfile").read_text() + (DEPLOY / "consilium.service").read_text()
    named = set(re.findall(r"CONSILIUM_([A-Z_]+)", text))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def instructions() -> list[tuple[str, str]]:
    """(instruction, argument) of the Containerfile, comments out and continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip()]


def test_the_image_is_rootless_pinned_and_needs_no_network() -> None:
    found = instructions()
    bases = [argument.split()[0] for name, argument in found if name == "FROM"]
    assert all(re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base) for base in bases)
    assert [argument for name, argument in found if name == "USER"] == ["10001:10001"]
    last = max(n for n, (name, _) in enumerate(found) if name == "FROM")
    users = [n for n, (name, _) in enumerate(found) if name == "USER"]
    assert all(name not in ("RUN", "COPY") for name, _ in found[users[0] :])
    assert not [argument for name, argument in found if name == "ADD"]
    assert not re.search(r"curl|wget|apt-get|http", " ".join(argument for name, argument in found[last:] if name == "RUN"))
    for name, argument in found:
        if name in ("CMD", "ENTRYPOINT"):
            assert isinstance(json.loads(argument), list), "the exec form hears signals"
    copied = {argument.split()[0] for name, argument in found[last:] if name == "COPY" and not argument.startswith("--from")}
    assert {"app", "assets", "core", "db", "pages", "training"} <= copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_no_fault() -> None:
    done = subprocess.run(["hadolint", str(DEPLOY / "Containerfile")], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout + done.stderr == ""
