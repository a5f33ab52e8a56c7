"""One TestClient on the whole application for the session: a second start-up of Streamlit in one process would hang.

The guard and the pages read the open home at every request, so every test gets a home of its own all the same.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from argon2 import PasswordHasher
from sqlalchemy import update
from starlette.testclient import TestClient

from app.guard import cookie_name
from core import accounts
from core.home import Home, current_home, open_home
from core.settings import load_settings
from db import tables as t
from db.engine import write_session
from tests.databases import Databases

PASSWORD = "a calm morning round"
ADDRESS = "http://127.0.0.1:8765"


@cache
def hashed_password() -> str:
    """Hashing takes a fifth of a second of CPU by design: once is enough for all tests."""
    return PasswordHasher().hash(PASSWORD)


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("application")
    databases.provide(root)
    open_home(load_settings({"CONSILIUM_HOME": str(root)}))
    with warnings.catch_warnings():
        # gradio makes event loops while its page is built and leaves them to the collector, which app.main runs at start-up
        warnings.simplefilter("ignore", ResourceWarning)
        from app.main import app, bench

        client = TestClient(app, base_url=ADDRESS, follow_redirects=False, raise_server_exceptions=False)
        client.__enter__()
        while not bench.is_settled:
            time.sleep(0.05)
        gc.collect()
    yield client
    client.__exit__(None, None, None)


@pytest.fixture
def client(application: TestClient, home: Home) -> TestClient:
    """Nobody signed in, an empty home in English."""
    open_home(home.settings.model_copy(update={"language": "en"}))
    application.cookies.clear()
    return application


@pytest.fixture
def person(client: TestClient) -> Callable[..., str]:
    """`person("engineer")` makes an account of that name with PASSWORD and returns the cookie header of an open sign-in."""

    def make(role: str, username: str | None = None) -> str:
        user_id = accounts.create_user(username or role, f"Dr {role.title()}", role, by=None)
        with write_session() as session:
            session.execute(update(t.User).where(t.User.id == user_id).values(password_hash=hashed_password()))
        return f"{cookie_name(current_home().settings)}={accounts.open_session(user_id, 'test')}"

    return make


@pytest.fixture
def bearer(person: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """`bearer("engineer")`: the Authorization header of an open sign-in."""

    def make(role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {person(role).partition('=')[2]}"}

    return make
