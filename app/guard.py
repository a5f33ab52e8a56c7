"""The one door in front of FastAPI, Gradio and Streamlit: who is it, may they, and does the request come from our own page.

Pure ASGI, because websockets pass by Starlette's HTTP middleware. Every request: client-sent X-Auth-* headers are dropped,
the host name and the Origin are checked, the cookie (or, for /api, a bearer token) becomes a person or a refusal, the
person's role is checked against the path, and X-Auth-* headers that the three frameworks trust are set. An open websocket
is checked again while it lives: when its sign-in ends, the browser is sent to the sign-in page and the socket closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

from anyio.to_thread import run_sync
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from app.proxies import settle
from core import accounts, tokens
from core.access import Door, door, may
from core.accounts import Person
from core.errors import NotFound, UserError
from core.home import current_home
from core.i18n import error_text
from core.settings import Settings

#: nobody without a sign-in sends more than a filled-in form
MAX_PUBLIC_BYTES = 8192
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: a looked-up person is believed this long; a revoked sign-in lives at most this long
CACHE_S = 1.0
RECHECK_S = 2.0
TOUCH_S = float(accounts.TOUCH_SECONDS)
PERSON = "consilium.person"


def cookie_name(settings: Settings) -> str:
    """One name per data folder: cookies are shared by all ports of a host."""
    suffix = hashlib.sha256(str(settings.home).encode()).hexdigest()[:8]
    return f"{'__Host-' if settings.secure_cookies else ''}consilium_{suffix}"


def is_under(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or lies below it."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


class People:
    """Tokens to persons, through a short-lived cache, so that the forty files of one page cost one look-up."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Person | None]] = {}
        self._touched: dict[tuple[int, int | None], float] = {}

    async def find(self, token: str, *, is_fresh: bool = False) -> Person | None:
        now = time.monotonic()
        found = self._known.get(token)
        if found and not is_fresh and now - found[0] < CACHE_S:
            return found[1]
        person = await run_sync(tokens.person_for if token.startswith(tokens.PREFIX) else accounts.person_for_token, token)
        if len(self._known) > 5000:
            self._known.clear()
        self._known[token] = (now, person)
        return person

    async def touch(self, person: Person) -> None:
        now = time.monotonic()
        key = (person.session_id, person.token_id)
        if now - self._touched.get(key, -TOUCH_S) >= TOUCH_S:
            self._touched[key] = now
            await (run_sync(tokens.touch, person.token_id) if person.token_id else run_sync(accounts.touch, person.session_id))


class Guard:
    """ASGI middleware; see the module's header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.people = People()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        settings = current_home().settings
        scope["headers"] = [(k, v) for k, v in scope["headers"] if not k.lower().startswith(b"x-auth-")]
        settle(scope, settings.trusted_proxies)
        headers = Headers(scope=scope)
        path: str = scope["path"]
        language = settings.language
        token = _token(headers, path, settings)
        found = door("WEBSOCKET" if scope["type"] == "websocket" else scope["method"], path)
        refusal = _check_origin(scope, headers, settings)
        # a page that loads shows the theme and role of this very moment, and what changes something is decided by it
        is_fresh = _is_navigation(scope, headers) or scope.get("method") not in SAFE_METHODS
        person = await self.people.find(token, is_fresh=is_fresh) if token and not refusal else None
        if person:
            language = person.language
            _introduce(scope, person)
        refusal = refusal or _check_door(scope, headers, found, person)
        if refusal:
            status, error = refusal
            await _refuse(scope, receive, send, headers, status, error, language)
        elif scope["type"] == "websocket" and person and token:
            await self._watch(scope, receive, send, token, person)
        elif person and token:
            if not path.endswith("/health"):
                await self.people.touch(person)
            await self._watch_answer(scope, receive, send, token, person)
        else:
            await self.app(scope, receive, send)

    async def _watch_answer(self, scope: Scope, receive: Receive, send: Send, token: str, person: Person) -> None:
        """Answer a request; one that lasts (a stream of events, a long download) is cut off when the sign-in behind it ends."""
        said: list[Message] = []  # the newest message of the answer

        async def send_and_note(message: Message) -> None:
            said[:] = [message]
            await send(message)

        def is_done() -> bool:
            return bool(said) and said[0]["type"] == "http.response.body" and not said[0].get("more_body", False)

        task = asyncio.ensure_future(self.app(scope, receive, send_and_note))
        try:
            while not (await asyncio.wait({task}, timeout=RECHECK_S))[0]:
                current = await self.people.find(token)
                if (current is None or current.role != person.role) and not is_done():
                    task.cancel()
                    await asyncio.wait({task})
                    if is_done():  # what was cancelled has said its last word itself
                        return
                    if said:
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
                    else:
                        error = UserError("signed_out")
                        await _refuse(scope, receive, send, Headers(scope=scope), 401, error, person.language)
                    return
            task.result()
        finally:
            task.cancel()

    async def _watch(self, scope: Scope, receive: Receive, send: Send, token: str, person: Person) -> None:
        """Run a websocket until it closes or the sign-in behind it ends."""
        is_over = False
        incoming: asyncio.Future[Message] | None = None

        async def send_while_open(message: Message) -> None:
            if not is_over:
                await send(message)

        async def receive_while_signed_in() -> Message:
            nonlocal is_over, incoming
            while True:
                incoming = incoming or asyncio.ensure_future(receive())
                await asyncio.wait({incoming}, timeout=RECHECK_S)
                current = await self.people.find(token)
                if current is None or current.role != person.role:
                    is_over = True
                    await send({"type": "websocket.send", "bytes": _to_login()})
                    await send({"type": "websocket.close", "code": 1008})
                    return {"type": "websocket.disconnect", "code": 1008}
                if incoming.done():
                    message, incoming = incoming.result(), None
                    if _is_by_hand(message):
                        await self.people.touch(current)
                    return message

        try:
            await self.app(scope, receive_while_signed_in, send_while_open)
        finally:
            if incoming is not None:
                incoming.cancel()


def _token(headers: Headers, path: str, settings: Settings) -> str | None:
    return _bearer(headers, path) or _session_cookie(headers, settings)


def _bearer(headers: Headers, path: str) -> str | None:
    """A token that a program sends; understood under /api only."""
    authorization = headers.get("authorization", "")
    return authorization[7:].strip() if authorization.lower().startswith("bearer ") and is_under(path, "/api") else None


def _session_cookie(headers: Headers, settings: Settings) -> str | None:
    token = cookie_parser(headers.get("cookie", "")).get(cookie_name(settings))
    return None if token and token.startswith(tokens.PREFIX) else token  # a program's token is no sign-in of a browser


def _check_door(scope: Scope, headers: Headers, found: Door | None, person: Person | None) -> tuple[int, UserError] | None:
    """Whether this person may pass here. Who is not signed in learns nothing about which doors there are."""
    if found is not None and found.roles is None:
        return _check_size(scope, headers) if person is None else None
    if person is None:
        return 401, UserError("signed_out")
    if person.must_change_password and not (found and found.is_plain):
        return 403, UserError("accounts.must_change_password")
    if found is None:
        return 404, NotFound("no_such_page")
    if may(found, person.role, person.scopes):
        return None
    if person.scopes is not None and may(found, person.role, None):
        return 403, UserError("tokens.out_of_scope", scope=found.scope) if found.scope else UserError("tokens.people_only")
    return 403, UserError("forbidden", role=person.role)


def _check_size(scope: Scope, headers: Headers) -> tuple[int, UserError] | None:
    length = headers.get("content-length", "0")
    is_small = "transfer-encoding" not in headers and length.isdecimal() and int(length) <= MAX_PUBLIC_BYTES
    return None if is_small else (413, UserError("request_too_large", limit=MAX_PUBLIC_BYTES))


def _introduce(scope: MutableMapping[str, Any], person: Person) -> None:
    scope[PERSON] = person
    scope["headers"] += [
        (b"x-auth-user", person.username.encode()),
        (b"x-auth-role", person.role.encode()),
        (b"x-auth-session", str(person.session_id).encode()),
    ]


def _check_origin(scope: Scope, headers: Headers, settings: Settings) -> tuple[int, UserError] | None:
    """Refuse unknown host names (DNS rebinding), foreign pages that write, and foreign pages that read in the background."""
    host = headers.get("host", "")
    name = _host_name(f"//{host}")
    allowed = {h.lower() for h in settings.allowed_hosts}
    if settings.host in LOOPBACK or allowed:
        allowed |= LOOPBACK | {settings.host}
        if name not in allowed:
            return 400, UserError("unknown_host", host=name)
    foreign = (403, UserError("foreign_origin"))
    origin = headers.get("origin")
    is_websocket = scope["type"] == "websocket"
    if is_websocket or scope["method"] not in SAFE_METHODS:
        if (origin is None and is_websocket) or (origin is not None and _netloc(origin) != host):
            return foreign
        # a browser says where a request that changes something comes from; what carries a cookie without saying so is none of ours
        is_by_cookie = "cookie" in headers and not _bearer(headers, scope["path"])
        if origin is None and headers.get("sec-fetch-site", "cross-site" if is_by_cookie else "none") not in ("none", "same-origin"):
            return foreign
        if settings.secure_cookies and origin is not None and not origin.startswith("https://"):
            return foreign
    elif headers.get("sec-fetch-site") in ("same-site", "cross-site") and not (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    ):
        return foreign
    return None


def _host_name(address: str) -> str:
    """The host in an address; "" for one that is none, such as an unclosed bracket."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin header; None for what is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    mode = headers.get("sec-fetch-mode")
    return mode == "navigate" if mode else "text/html" in headers.get("accept", "")


async def _refuse(scope: Scope, receive: Receive, send: Send, headers: Headers, status: int, error: UserError, language: str) -> None:
    sentence = error_text(error, language)
    response: Response
    if _is_navigation(scope, headers) and (status == 401 or error.code == "accounts.must_change_password"):
        page = "/login" if status == 401 else "/login/password"
        target = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
        response = RedirectResponse(page if target == "/" else f"{page}?next={quote(target)}", status_code=303)
    elif is_under(scope["path"], "/api"):
        response = JSONResponse({"error": {"code": error.code, "message": sentence}}, status)
    elif is_under(scope["path"], "/arena"):
        response = JSONResponse({"detail": sentence}, status)
    else:
        response = PlainTextResponse(sentence, status)
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    await response(scope, receive, send)


def _to_login() -> bytes:
    message = ForwardMsg()
    message.auth_redirect.url = "/login"
    data: bytes = message.SerializeToString()
    return data


def _is_by_hand(message: Message) -> bool:
    """Whether a person did something: a page that refreshes itself does not keep a sign-in alive."""
    data = message.get("bytes")
    if not data:
        return False
    try:
        parsed = BackMsg.FromString(data)
    except DecodeError:  # Streamlit closes the socket itself
        return False
    return parsed.WhichOneof("type") == "rerun_script" and not parsed.rerun_script.is_auto_rerun
