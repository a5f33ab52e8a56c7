"""A rig per test; whatever a test started is gone when it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.home import Home
from tests.faults.nursery import Nursery
from tests.faults.rig import Rig


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def rig(home: Home, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(home, nursery, monkeypatch)
    yield rig
    rig.close()
