"""Outermost of all: gives every request an id, counts it, and writes its line into the log.

The id comes from the proxy's X-Request-Id when that is well-formed, else it is made here; it goes back in the response (for a websocket,
in the handshake), into every log line written on the request's behalf, and to Streamlit's scripts in the websocket's headers. Page
assets are counted but not logged. Paths are logged without query strings, and a one-time link without its secret.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.logs import REQUEST_ID

log = logging.getLogger("consilium.request")

HEADER = "X-Request-Id"
#: what a proxy may send: an id, not a text that could break a log line or a header
WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{7,63}")
SECRET = re.compile(r"^(/login/once/).+")
QUIET = ("/static", "/assets", "/media", "/component", "/_stcore/health", "/_stcore/host-config", "/metrics", "/api/health", "/api/ready")
AREAS = ("/api", "/arena", "/login", "/assets", "/static", "/media", "/component", "/_stcore")
#: upper bounds in seconds of the latency histogram
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Figures:
    """What was answered since the start. Written by the event loop's thread alone."""

    def __init__(self) -> None:
        #: (route, method, status) -> requests
        self.requests: Counter[tuple[str, str, int]] = Counter()
        #: route -> requests per bucket, the last one without a bound; and the sum of their seconds
        self.buckets: dict[str, list[int]] = {}
        self.seconds: Counter[str] = Counter()
        self.num_sockets = 0
        self.num_sockets_opened = 0

    def add(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests[route, method, status] += 1
        found = self.buckets.setdefault(route, [0] * (len(BUCKETS_S) + 1))
        found[next((n for n, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]  # typeshed counts in whole numbers


figures = Figures()


class RequestLog:
    """ASGI middleware; see the module's header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = _id_of(Headers(scope=scope))
        name = HEADER.lower().encode()
        scope["headers"] = [(k, v) for k, v in scope["headers"] if k.lower() != name] + [(name, request_id.encode())]
        token = REQUEST_ID.set(request_id)
        path: str = scope["path"]  # a mount rewrites nothing here, but what is told must be what came
        status, began = 500, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            elif message["type"] == "websocket.accept":
                status = 101
                message = {**message, "headers": [*message.get("headers", ()), (name, request_id.encode())]}
                figures.num_sockets += 1
                figures.num_sockets_opened += 1
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            if scope["type"] == "websocket":
                figures.num_sockets -= status == 101
            else:
                figures.add(_route(scope, path), scope["method"], status, seconds)
                if status >= 500 or not path.startswith(QUIET):
                    _tell(scope, path, status, seconds)
            REQUEST_ID.reset(token)


def _id_of(headers: Headers) -> str:
    sent = headers.getlist(HEADER)
    return sent[0] if len(sent) == 1 and WELL_FORMED.fullmatch(sent[0]) else uuid.uuid4().hex


def _route(scope: Scope, path: str) -> str:
    """The route's own path with its parameters unfilled, else the area: never a path of the visitor's making."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str) and path.startswith("/api"):
        return f"/api{template.removeprefix('/api')}"
    return next((area for area in AREAS if path == area or path.startswith(area + "/")), "page")


def _tell(scope: Scope, path: str, status: int, seconds: float) -> None:
    person = scope.get("consilium.person")
    fields = {
        "method": scope["method"],
        "path": SECRET.sub(r"\1...", path),
        "status": status,
        "ms": round(1000 * seconds, 1),
        "user_id": getattr(person, "id", None),
    }
    log.log(
        logging.WARNING if status >= 500 else logging.INFO, "%s %s %d", fields["method"], fields["path"], status, extra={"fields": fields}
    )
