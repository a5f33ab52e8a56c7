"""Two external versions on a fake endpoint, a question, and people."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from core.home import Home, current_home
from core.preference import Decoding, Mode, Pair, Produced, close_pair, open_pair
from core.serving.token import server_token
from db.engine import write_session
from tests import factories
from tests.bench.fake_endpoint import FakeEndpoint, serving
from training.index import run_index
from training.run import Run

DECODING = Decoding(0.2, 7, 64)


@dataclass(frozen=True)
class Bench:
    """Ids of the rows that nearly every test needs, and the endpoint behind the versions."""

    product: int
    engineer: int
    clinician: int
    sample: int
    first: str
    second: str
    endpoint: FakeEndpoint

    def add(self, name: str) -> str:
        """One more version at the endpoint, under the model's name."""
        with write_session() as session:
            factories.version(session, "external", name=name, endpoint_url=self.endpoint.base, endpoint_model=name)
        return name

    def ready_pair(self, user: int | None = None, mode: Mode = "blind") -> Pair:
        """A pair whose two answers are complete; each answer names its version so that tests can tell who stood where."""
        owner = user or self.product
        pair = open_pair(owner, self.first, self.second, self.sample, mode=mode, decoding=DECODING)
        sides = [
            Produced(f"<think>\nthoughts of {n}\n</think>\nAnswer by {n}. Pair {pair.id}.", "stop", 1.5) for n in (pair.left, pair.right)
        ]
        assert close_pair(owner, pair.id, *sides)
        return pair


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with serving() as endpoint:
        with write_session() as session:
            people = [factories.user(session, role).id for role in ("product", "engineer", "clinician")]
            sample = factories.sample(session).id
        found = Bench(*people, sample, "good-1", "bad-1", endpoint)
        for name in (found.first, found.second):
            found.add(name)
        yield found


@pytest.fixture
def local_server(home: Home) -> Iterator[FakeEndpoint]:
    """A fake in the place of the local model server, on the home's port and with the home's token."""
    port = free_port()
    object.__setattr__(home, "settings", home.settings.model_copy(update={"model_server_port": port}))
    with serving(server_token(home), port) as endpoint:
        yield endpoint


@pytest.fixture
def evidence(bench: Bench) -> None:
    """The demo guidelines, indexed by the real job in run folder 900."""
    home = current_home()
    directory = home.run_dir(900)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}", encoding="utf-8")
    run_index(Run(directory, 0, home))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
