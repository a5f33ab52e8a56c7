"""Liveness, readiness, metrics and request ids: what a monitoring system sees, and who else may."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from core import gauges, health
from core.home import Home, current_home, open_home
from core.logs import REQUEST_ID, JsonLines
from db import tables as t
from db.engine import write_session
from tests import factories
from tests.databases import sqlite_only

LINE = re.compile(r'(consilium_\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)+)\})? (-?[\d.e+]+|\+Inf)')


@pytest.fixture(autouse=True)
def here(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests come from this machine, and nothing is remembered of the last test."""
    gauges._kept.clear()
    monkeypatch.setattr(client._transport, "client", ("127.0.0.1", 40000))


def numbers(text: str) -> dict[str, float]:
    """Every series of an exposition; each line must be of the format, each metric announced before it is told."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match, line
            assert match[1] in kinds or re.sub(r"_(bucket|sum|count)$", "", match[1]) in kinds
            assert f"{match[1]}{{{match[2] or ''}}}" not in found
            found[f"{match[1]}{{{match[2] or ''}}}"] = float(match[3])
    return found


def worker_lives(home: Home) -> None:
    """As the launcher writes it, with this process as the worker."""
    import psutil

    one = {"pid": os.getpid(), "created": psutil.Process().create_time(), "restarts": 2, "address": "http://127.0.0.1:8765"}
    (home.root / "processes.json").write_text(json.dumps({"worker": one}))
    health.beat(home)


def test_metrics_tell_the_state_and_what_was_answered(client: TestClient, home: Home) -> None:
    with write_session() as session:
        conflict = factories.conflict(session)
        session.add(
            t.Adjudication(conflict_id=conflict.id, user_id=factories.user(session).id, stage="signed", client_id="c", verdict="minor")
        )
        session.add(t.Job(kind="import", config={}, queue="cpu"))
    client.get("/api/health")
    client.get("/api/jobs/123")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = numbers(answer.text)
    assert found['consilium_jobs{status="queued"}'] == found['consilium_job_queue_length{queue="cpu"}'] == 1
    assert found['consilium_job_queue_length{queue="gpu"}'] == found['consilium_jobs{status="lost"}'] == 0
    assert found['consilium_cases{status="open"}'] == found['consilium_decisions_total{stage="signed"}'] == 1
    assert found["consilium_database_up{}"] == 1
    assert found["consilium_disk_free_bytes{}"] > 0
    assert found['consilium_process_up{process="web"}'] == 0
    assert found['consilium_requests_total{method="GET",route="/api/health",status="200"}'] >= 1
    # a path of the visitor's making is no label: the guard refused it before any route was found
    assert not [name for name in found if "123" in name]
    buckets = [v for k, v in found.items() if k.startswith("consilium_request_seconds_bucket") and 'route="/api/health"' in k]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found['consilium_request_seconds_count{route="/api/health"}']


def test_metrics_are_for_this_machine_the_token_and_administrators(
    client: TestClient, home: Home, bearer: Callable[..., dict[str, str]]
) -> None:
    behind_a_proxy = {"X-Forwarded-For": "203.0.113.9"}
    refused = client.get("/metrics", headers=behind_a_proxy)
    assert refused.status_code == 403
    assert "CONSILIUM_METRICS_TOKEN" in refused.text
    assert (
        client.get("/metrics", headers=bearer("engineer")).status_code == 200
    )  # a bearer counts under /api only: this is the machine itself
    open_home(home.settings.model_copy(update={"metrics_token": "watch-me-closely"}))
    assert client.get("/metrics", headers=behind_a_proxy | {"Authorization": "Bearer wrong"}).status_code == 403
    assert client.get("/metrics", headers=behind_a_proxy | {"Authorization": "Bearer watch-me-closely"}).status_code == 200


@pytest.mark.parametrize(("role", "status"), [("admin", 200), ("engineer", 403), ("clinician", 403)])
def test_a_sign_in_opens_the_metrics_to_administrators_only(client: TestClient, person: Callable[..., str], role: str, status: int) -> None:
    assert client.get("/metrics", headers={"Cookie": person(role), "X-Forwarded-For": "203.0.113.9"}).status_code == status


@sqlite_only
def test_a_dead_database_is_a_number_and_not_ready(client: TestClient, home: Home) -> None:
    worker_lives(home)
    assert client.get("/api/ready").json() == {"status": "ready", "database": "ok", "disk": "ok", "worker": "ok"}
    (home.root / "consilium.db").write_bytes(b"nothing that SQLite knows" * 100)
    open_home(current_home().settings)
    assert numbers(client.get("/metrics").text)["consilium_database_up{}"] == 0
    answer = client.get("/api/ready")
    assert (answer.status_code, answer.json()["database"]) == (503, "down")
    assert client.get("/api/health").status_code == 200  # restarting this process would mend nothing


def test_a_worker_that_hangs_is_told(client: TestClient, home: Home) -> None:
    assert client.get("/api/ready").status_code == 503
    worker_lives(home)
    assert client.get("/api/ready").status_code == 200
    old = time.time() - 3600
    os.utime(home.locks / health.WORKER_BEAT, (old, old))
    answer = client.get("/api/ready", headers={"X-Forwarded-For": "203.0.113.9"})
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
    assert client.get("/api/ready").json()["worker"] == "late"


@pytest.mark.parametrize("sent", ["abcdef0123456789", "7f3a-req.42_x"])
def test_a_well_formed_request_id_is_kept(client: TestClient, sent: str) -> None:
    assert client.get("/api/health", headers={"X-Request-Id": sent}).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["short", "a" * 65, 'quote"quote', "two words!", "<script>alert", "-leading-dash"])
def test_any_other_is_replaced(client: TestClient, sent: str) -> None:
    made = client.get("/api/health", headers={"X-Request-Id": sent}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_every_line_of_a_request_carries_its_id(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str | None]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), REQUEST_ID.get()))

    keep = Keep()
    logging.getLogger("consilium").addHandler(keep)
    try:
        answer = client.get("/login/once/very-secret-link")
        client.post("/api/session", json={"username": "nobody", "password": "wrong"}, headers={"X-Request-Id": "proxy-0001"})
    finally:
        logging.getLogger("consilium").removeHandler(keep)
    assert ("GET /login/once/... " + str(answer.status_code), answer.headers["x-request-id"]) in seen
    assert [id_ for text, id_ in seen if "/api/session" in text] == ["proxy-0001"]
    assert not [text for text, _ in seen if "very-secret" in text]
    assert REQUEST_ID.get() is None


def test_a_line_is_one_object_whatever_it_says() -> None:
    record = logging.LogRecord("consilium", logging.ERROR, __file__, 1, 'a "quote"\nand 中文', None, None)
    record.fields = {"status": 500}
    try:
        raise ValueError("x\ny")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    text = JsonLines("web").format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert line["message"] == 'a "quote"\nand 中文'
    assert (line["level"], line["process"], line["status"], line["request_id"]) == ("ERROR", "web", 500, None)
    assert "ValueError: x\ny" in line["traceback"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["at"])
