"""Fixtures: a fresh home with a migrated database per test (tests.databases). Only the model is ever faked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home, open_home
from core.settings import Settings, load_settings
from db.engine import database
from tests.databases import ON_POSTGRES, URL, Databases, Files, Server

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """A thread that still writes while its test opens another home leaves a connection behind; only psycopg warns of that."""
    if ON_POSTGRES:
        config.addinivalue_line("filterwarnings", "ignore:.*was deleted while still open:ResourceWarning")


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Gives homes their databases: an empty one at the newest schema, made once and copied for every test."""
    found: Databases = Server(URL) if ON_POSTGRES else Files(tmp_path_factory.mktemp("database"))
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Settings:
    root = tmp_path / "home"
    root.mkdir()
    databases.provide(root)
    # nobody serves a model on the discard port, whatever else runs on this machine; a fresh sign-in may sign (tests/trust asks)
    return load_settings({"CONSILIUM_HOME": str(root), "CONSILIUM_MODEL_SERVER_PORT": "9", "CONSILIUM_SIGNING_PASSWORD_MINUTES": "60"})


@pytest.fixture
def home(settings: Settings, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An open home in a temporary folder; subprocesses started by the test find it through the environment."""
    monkeypatch.setenv("CONSILIUM_HOME", str(settings.home))
    opened = open_home(settings)
    yield opened
    database().dispose()
    if isinstance(databases, Server):
        databases.take_back(settings.home)


@pytest.fixture
def shared_data() -> Path:
    """Real public data beside the project; the test skips, loudly, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real public data not found at {SHARED_DATA}")
    return SHARED_DATA


#: folders whose tests share something costly, made once per process: they stay together when two processes share the suite
TOGETHER = ("training", "api", "serving")
#: files whose tests share nothing but the site, and are long: either process may take the next of them
ALONE = ("e2e/test_axe.py", "e2e/test_desk.py", "e2e/test_desk_review.py", "e2e/test_all_pages.py", "e2e/test_shell.py")
#: long ones first, so that neither process waits for the other at the end
ORDER = {"training": 0, "faults": 1, "teacher": 2, "e2e": 9}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last: Playwright keeps an event loop running in this thread, and others start their own."""
    for item in items:
        folder, file = item.nodeid.split("/")[1], item.nodeid.partition("::")[0]
        alone = file.endswith(ALONE) and item.nodeid.replace("/", ".")
        item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else alone or file.replace("/", ".")))
    items.sort(key=lambda item: ORDER.get(item.nodeid.split("/")[1], 5))
