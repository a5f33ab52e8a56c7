"""A rig per test; whatever a test started is gone when it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.home import Home
from tests.faults.rig import Rig


@pytest.fixture
def rig(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(home, monkeypatch)
    yield rig
    rig.close()
