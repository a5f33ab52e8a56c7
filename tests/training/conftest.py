"""A home with a tiny base and a tiny SFT version, made once by the real scripts as subprocesses, and copied for every test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.home import Home, open_home
from core.jobs.kinds import job_kind
from core.settings import load_settings
from db.engine import database
from tests.databases import Databases

ROOT = Path(__file__).resolve().parents[2]
TINY_BASE = {
    "hidden_size": 64,
    "num_layers": 1,
    "vocab_size": 600,
    "num_documents": 16,
    "num_chats": 600,
    "learning_rate": 1e-2,
    "tokens_per_batch": 1024,
}
TINY_SFT = {"name": "tiny-sft", "base_model": "tiny-base", "max_samples": 48, "batch_size": 16, "lora_r": 4}
TINY_PPO = {
    "name": "tiny-rl",
    "sft_model": "tiny-sft",
    "num_rollouts": 2,
    "rollout_batch_size": 8,
    "mini_batch_size": 4,
    "max_new_tokens": 72,
}


def write_config(home: Path, name: str, kind: str, config: dict[str, Any]) -> Path:
    """A run folder with a validated config.json, as a worker leaves it."""
    run_dir = home / "runs" / name
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(job_kind(kind).config(**config).model_dump_json())
    return run_dir


def start(home: Path, name: str, kind: str, config: dict[str, Any]) -> tuple[int, Path]:
    """Run a job script to its end in a process of its own; returns its exit code and run folder."""
    run_dir = write_config(home, name, kind, config)
    environment = {**os.environ, "CONSILIUM_HOME": str(home), "CONSILIUM_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-m", job_kind(kind).module, "--run-dir", str(run_dir)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    (run_dir / "log.txt").write_text(done.stdout + done.stderr)
    return done.returncode, run_dir


def result(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return found


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Path:
    """demo_base and sft have run here; never changed afterwards."""
    home = tmp_path_factory.mktemp("training") / "home"
    home.mkdir()
    databases.provide(home)
    for name, kind, config in (("base", "demo_base", {"name": "tiny-base", **TINY_BASE}), ("sft", "sft", TINY_SFT)):
        code, run_dir = start(home, name, kind, config)
        assert code == 0, (run_dir / "log.txt").read_text()
    return home


@pytest.fixture
def trained(tiny_home: Path, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An open home of its own with the versions tiny-base and tiny-sft and the demo dataset."""
    folder = tmp_path / "home"
    databases.copy(tiny_home, folder)
    monkeypatch.setenv("CONSILIUM_HOME", str(folder))
    opened = open_home(load_settings({"CONSILIUM_HOME": str(folder), "CONSILIUM_NUM_THREADS": "1"}))
    yield opened
    database().dispose()


@pytest.fixture
def run_here(trained: Home) -> Callable[..., Path]:
    """Run a script's body in this process; `stop_after` is how often "stop and save" is still answered with no."""
    from training.run import Run, StopRequested

    class Stopping(Run):
        left: int | None = None

        def should_stop(self) -> bool:
            if self.left is None:
                return super().should_stop()
            self.left -= 1
            return self.left < 0

    def run(body: Callable[[Run], None], name: str, kind: str, config: dict[str, Any], stop_after: int | None = None) -> Path:
        run_dir = write_config(trained.root, name, kind, config)
        one = Stopping(run_dir, 0, trained)
        one.left = stop_after
        if stop_after is None:
            body(one)
        else:
            with pytest.raises(StopRequested):
                body(one)
            assert not (run_dir / "result.json").exists()
        return run_dir

    return run
