"""The documented client against the real application: exports and webhooks over HTTP."""

from __future__ import annotations

import importlib.util
import io
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

from core import webhooks
from db import tables as t
from db.engine import write_session
from tests import factories
from tests.api.conftest import ADDRESS, PASSWORD

CLIENT = Path(__file__).resolve().parents[2] / "docs" / "client" / "consilium_client.py"


@pytest.fixture
def module(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The client's file, with its HTTP calls led into the application."""

    def urlopen(asked: urllib.request.Request, timeout: float) -> Any:
        answer = client.request(asked.get_method(), asked.full_url, content=asked.data, headers=dict(asked.header_items()))
        if answer.status_code >= 400:
            raise urllib.error.HTTPError(asked.full_url, answer.status_code, "", Message(), io.BytesIO(answer.content))
        return io.BytesIO(answer.content)

    spec = importlib.util.spec_from_file_location("consilium_client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "consilium_client", found)
    spec.loader.exec_module(found)
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return found


def test_the_client_exports_and_is_told_why_not(module: ModuleType, person: Callable[..., str], tmp_path: Path) -> None:
    person("engineer")
    person("clinician")
    with write_session() as session:
        sample = factories.sample(session, split="train")
        session.add(t.PreferencePair(sample_id=sample.id, chosen="Call 120.", rejected="Rest.", source="adjudication"))
    api = module.Consilium(ADDRESS, "engineer", PASSWORD)
    made = api.export("preferences", str(tmp_path / "pairs.jsonl"))
    assert made["num_rows"] == 1
    assert '"Call 120."' in (tmp_path / "pairs.jsonl").read_text()
    assert api.get("exports")[0]["id"] == made["id"]
    assert api.get(f"exports/{made['id']}/manifest")["sha256"] == made["sha256"]
    assert set(api.get("exports/kinds")) >= {"preferences", "adjudications"}
    with pytest.raises(module.ApiError, match="There is nothing to export"):
        api.export("kto", str(tmp_path / "x"))
    with pytest.raises(module.ApiError) as refused:
        module.Consilium(ADDRESS, "clinician", PASSWORD).get("exports")
    assert refused.value.status == 403
    with pytest.raises(module.ApiError) as refused:
        api.post("webhooks", {"url": "http://a.example", "events": ["stop_cord"]})
    assert refused.value.status == 403


def test_webhooks_over_http_and_the_signature_check(module: ModuleType, person: Callable[..., str]) -> None:
    person("admin")
    api = module.Consilium(ADDRESS, "admin", PASSWORD)
    made = api.post("webhooks", {"url": "http://a.example/hook", "events": ["stop_cord"]})
    assert "secret" not in api.get("webhooks")[0]
    api.request("PATCH", f"webhooks/{made['id']}", {"is_active": False})
    assert api.get("webhooks")[0]["is_active"] is False
    api.request("DELETE", f"webhooks/{made['id']}")
    assert api.get("webhooks") == []
    now = int(time.time())
    assert module.is_from_consilium("s", webhooks.signature("s", now, b"{}"), b"{}")
    assert not module.is_from_consilium("s", webhooks.signature("s", now, b"{}"), b"{ }")
    assert not module.is_from_consilium("other", webhooks.signature("s", now, b"{}"), b"{}")
    assert not module.is_from_consilium("s", webhooks.signature("s", now - 400, b"{}"), b"{}")
