"""A home with the demo guidelines indexed by the real job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.home import Home
from training.index import run_index
from training.run import Run


@pytest.fixture
def indexed(home: Home) -> Home:
    directory: Path = home.run_dir(1)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({}))
    run_index(Run(directory, 0, home))
    return home
