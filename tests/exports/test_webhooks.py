"""Webhooks over real HTTP: signed, in order, nothing lost while the receiver is down, nothing private told."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from core import audit, webhooks
from core.errors import Forbidden, UserError
from core.home import Home
from db.base import utc_now
from db.engine import write_session
from tests import factories


class Receiver(HTTPServer):
    status = 200
    got: list[tuple[dict[str, str], bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), Handler)
    server.got = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def deed(action: str, **detail: Any) -> int:
    with write_session() as session:
        return audit.record(session, action, "thing", 1, actor_id=None, detail=detail, reason="private words").id


def test_events_arrive_signed_in_order_and_only_those_asked_for(home: Home, receiver: Receiver) -> None:
    with write_session() as session:
        admin = factories.user(session, "admin").id
    deed("adjudicate_signed", verdict="unsafe")  # before the webhook: not told
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    _, secret = webhooks.create(admin, url, ["verdict.signed", "version.promoted"])
    first = deed("adjudicate_signed", verdict="minor", conflict_id=7, row_sha256="x", note="patient said")
    deed("sign_in")
    second = deed("promote", to="rl-2")
    assert webhooks.deliver_due() == 2
    assert webhooks.deliver_due() == 0
    assert [headers["X-Consilium-Entry"] for headers, _ in receiver.got] == [str(first), str(second)]
    headers, body = receiver.got[0]
    stamp, given = (part.split("=", 1)[1] for part in headers["X-Consilium-Signature"].split(","))
    assert given == hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    told = json.loads(body)
    assert told["event"] == "verdict.signed"
    assert told["detail"] == {"conflict_id": 7, "verdict": "minor"}
    assert b"private" not in body
    assert b"patient" not in body


def test_a_receiver_that_is_down_loses_nothing_and_holds_up_nobody(home: Home, receiver: Receiver) -> None:
    with write_session() as session:
        admin = factories.user(session, "admin").id
    webhooks.create(admin, f"http://127.0.0.1:{receiver.server_port}/hook", ["stop_cord"])
    webhooks.create(admin, "http://127.0.0.1:9/closed", ["stop_cord"])
    entries = [deed("adjudicate_stop_cord") for _ in range(3)]
    receiver.status = 503
    assert webhooks.deliver_due() == 0
    shown = webhooks.listing(admin)
    assert [(row.num_behind, row.num_failures) for row in shown] == [(3, 1), (3, 1)]
    assert shown[0].last_error == "HTTP 503"
    receiver.status = 200
    assert webhooks.deliver_due() == 0  # not before the pause is over
    assert webhooks.deliver_due(now=utc_now() + timedelta(seconds=11)) == 3
    assert [int(headers["X-Consilium-Entry"]) for headers, _ in receiver.got] == entries
    assert [(row.num_behind, row.num_failures) for row in webhooks.listing(admin)] == [(0, 0), (3, 2)]


def test_only_an_administrator_may_and_every_bad_input_is_a_sentence(home: Home) -> None:
    with write_session() as session:
        admin, engineer = factories.user(session, "admin").id, factories.user(session, "engineer").id
    with pytest.raises(Forbidden):
        webhooks.create(engineer, "https://example.org", ["stop_cord"])
    for url in ("ftp://example.org", "https://user:pass@example.org", "javascript:alert(1)", ""):
        with pytest.raises(UserError, match=r"webhooks\.bad_url"):
            webhooks.create(admin, url, ["stop_cord"])
    with pytest.raises(UserError, match=r"webhooks\.no_such_event"):
        webhooks.create(admin, "https://example.org", ["everything"])
    with pytest.raises(UserError, match=r"webhooks\.no_events"):
        webhooks.create(admin, "https://example.org", [])
