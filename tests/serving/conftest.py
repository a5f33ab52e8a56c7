"""A running model server: its own process, real HTTP, tiny real weights."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from core.home import Home, open_home
from core.models import folder_hash, register_version
from core.serving.token import server_token
from core.settings import ROOT, Settings, load_settings
from db.engine import database, write_session
from tests.databases import Databases
from tests.serving.tiny import make_adapter, make_base, make_endless


@dataclass(frozen=True)
class Server:
    url: str
    headers: dict[str, str]
    home: Home
    process: subprocess.Popen[bytes]

    def client(self, **values: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=60, trust_env=False, **values)  # type: ignore[arg-type]

    def health(self) -> dict[str, object]:
        return dict(httpx.get(self.url + "/health", timeout=10, trust_env=False).json())


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base`, `adapter` and `endless`, made once per test run."""
    import torch

    torch.set_num_threads(1)  # the models are so small that threads only get into each other's way
    folder = tmp_path_factory.mktemp("tiny")
    make_base(folder / "base")
    make_adapter(folder / "base", folder / "adapter")
    make_endless(folder / "base", folder / "endless")
    return folder


def add_versions(home: Home, weights: Path) -> None:
    """Versions tiny-base, tiny-lora and tiny-endless (another base) in this home."""
    base_id = None
    for name, folder, kind in (("tiny-base", "base", "base"), ("tiny-lora", "adapter", "sft"), ("tiny-endless", "endless", "base")):
        path = home.models / folder
        shutil.copytree(weights / folder, path)
        with write_session() as session:
            row = register_version(
                session,
                name=name,
                kind=kind,
                path=home.relative(path),
                base_version_id=base_id if kind == "sft" else None,
                is_toy=True,
                content_hash=folder_hash(path),
            )
        base_id = base_id or row.id


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tiny_home(home: Home, tiny_weights: Path) -> Home:
    """The test's home with both versions."""
    add_versions(home, tiny_weights)
    return home


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, databases: Databases, tiny_weights: Path) -> Iterator[Server]:
    """One server process for the tests of a module."""
    root = tmp_path_factory.mktemp("server") / "home"
    root.mkdir()
    databases.provide(root)
    environ = {"CONSILIUM_HOME": str(root), "CONSILIUM_MODEL_SERVER_PORT": str(free_port()), "CONSILIUM_DEVICE": "cpu"}
    settings = load_settings(environ)
    home = open_home(settings)
    add_versions(home, tiny_weights)
    running = start_server(home, settings, environ)
    open_home(settings)  # a test in between may have opened another
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        assert running.process.wait(20) == 0, "the server did not end cleanly"
    database().dispose()


def start_server(home: Home, settings: Settings, environ: dict[str, str]) -> Server:
    """Start `python -m core.model_server` and wait until it answers."""
    command = [sys.executable, "-m", "core.model_server"]
    with (home.logs / "model_server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environ}, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{settings.model_server_port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, (home.logs / "model_server.log").read_text()
        try:
            httpx.get(url + "/health", timeout=2, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.1)
            continue
        return Server(url, {"Authorization": f"Bearer {server_token(home)}"}, home, process)
    process.kill()
    raise AssertionError("the server did not start: " + (home.logs / "model_server.log").read_text())
