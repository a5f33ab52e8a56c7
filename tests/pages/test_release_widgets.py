"""Packages and the watch on the Models page: who sees which form, and what loading a folder that is no package says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from core import promotion, watch
from core.home import Home
from core.models import folder_hash, serving_version
from db import tables as t
from db.engine import read_session, write_session
from tests import factories


def test_a_proposal_is_accepted_with_one_press(home: Home, open_page: Callable[..., AppTest], tmp_path: Path) -> None:
    with write_session() as session:
        versions = []
        for name, status in (("v1", "retired"), ("v2", "serving")):
            folder = home.models / name
            folder.mkdir(parents=True)
            (folder / "adapter_model.safetensors").write_bytes(name.encode())
            stored = {"name": name, "path": home.relative(folder), "content_hash": folder_hash(folder), "status": status}
            versions.append(factories.version(session, **stored))
        for above, row in zip((None, versions[0].id), versions, strict=True):
            session.add(t.ServingEvent(action="promote", to_version_id=row.id, from_version_id=above))
        session.flush()
        switch = watch.current_switch(session)
    assert switch is not None
    watch.record_look(switch, [watch.Pair(n, n < 12, False) for n in range(30)], error_rate=0.05, job_id=None)

    engineer = open_page("engineer", "models", "zh")
    assert not engineer.exception
    assert "监测建议回退：v2 → v1" in engineer.error[0].value
    assert "release_accept" not in {b.key for b in engineer.button}, "an engineer reads, product decides"
    screen = open_page("admin", "models")
    assert not screen.exception
    screen.text_input(key="release_folder").set_value(str(tmp_path))
    next(b for b in screen.button if b.label == "Verify and load").click()
    screen.run()
    assert "There is no release package" in " ".join(e.value for e in screen.error)
    screen.button(key="release_accept").click().run()
    assert not screen.exception
    assert "v1 is serving again." in " ".join(s.value for s in screen.success)
    with read_session() as session:
        now = serving_version(session)
        assert now is not None
        assert now.name == "v1"
        assert "12 times" in promotion.history(session, limit=1)[0].reason
