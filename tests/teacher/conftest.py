"""One scripted endpoint per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.teacher.endpoint import ScriptedEndpoint


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    opened = ScriptedEndpoint()
    yield opened
    opened.close()
