"""The role matrix, generated: every route, socket, page, bench handler and use case is taken from the application and the source, and
each is tried by nobody, by every role, and with everything that only looks like a right."""

from __future__ import annotations

import ast
import asyncio
import re
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from gradio import Blocks
from sqlalchemy import update
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse
from streamlit.testing.v1 import AppTest

from app import main
from app.bench import person_of
from app.mcp import build as build_mcp
from core import accounts, tokens
from core.access import SCREENS, USE_CASES, Door, door
from core.accounts import Person
from core.errors import Forbidden, UserError
from core.records import Role
from core.settings import ROOT
from db import tables as t
from db.engine import write_session
from tests.api.conftest import ADDRESS
from tests.trust import handlers

ROLES = [role.value for role in Role]
#: routes that frameworks bring and nobody uses here: closed, and tried below
CLOSED = re.compile(
    r"/arena/(login|logout|openapi|config/|robots|pwa_icon|monitoring)"
    r"|/arena/gradio_api/(user|login_check|token|app_id/|dev|runs|info/|openapi|custom_component|proxy|file|stream|reset/|api|run|call"
    r"|component_server|upload|process_recording|vibe|undo-vibe|deep_link)"
    r"|/auth/|/oauth2callback|/_stcore/agent|/file\.txt"
)
#: what the public doors do by themselves when called with nothing
ANSWERS = {200, 201, 303, 307, 400, 401, 403, 404, 413, 422, 503}
STREAMS = ("/arena/gradio_api/queue/data", "/arena/gradio_api/heartbeat")
FORGED = {
    "X-Auth-User": "admin", "X-Auth-Role": "admin", "X-Auth-Session": "1", "X-Forwarded-User": "admin", "Remote-User": "admin",
    "X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=127.0.0.1", "X-Forwarded-Host": "127.0.0.1",
    "X-Original-URL": "/login", "X-Rewrite-URL": "/login", "X-HTTP-Method-Override": "GET", "X-Auth_Role": "admin",
}  # fmt: skip
#: functions that write and that no signed-in person calls as such: signing in itself, housekeeping, and the command line's own
NO_PERSON = {
    "core.accounts.change_password": "one's own password, by the old one",
    "core.accounts.first_admin_link": "the launcher",
    "core.accounts.open_session": "after a password, a link or a provider",
    "core.accounts.set_preferences": "one's own language and theme",
    "core.accounts.sign_out": "one's own sign-in; anybody's for an administrator (test_sign_in)",
    "core.accounts.touch": "the guard",
    "core.accounts.use_link": "by the link",
    "core.backup.backup": "the command line",
    "core.guidelines.current": "stores the shipped text at the first look",
    "core.identities.account_for": "after the provider's answer",
    "core.identities.take_role": "after the provider's answer",
    "core.nonces.spend": "by the token",
    "core.passwords.authenticate": "by the password",
    "core.remote_reward.score_remotely": "stores the teacher's verdicts in its cache; the door and the router check the role",
    "core.retrieval_trials.look_at": "refreshes the trial that is shown",
    "core.reward_configs.listing": "stores the shipped config at the first look",
    "core.reward_configs.rules_markdown": "the same",
    "core.reward_configs.write_rules": "the command line",
    "core.signing.confirm_sign_in": "after the provider's answer",
    "core.tokens.touch": "the guard",
    "core.training_runs.open_run": "refreshes the run that is shown",
}


def all_routes() -> list[tuple[str, str]]:
    assert isinstance(main.app, FastAPI)
    inner = main.screens._starlette_app or main.screens._build_starlette_app()
    found = {*handlers.routes(main.app), *handlers.routes(inner)}
    return sorted((method, path) for method, path in found if method not in ("HEAD", "OPTIONS"))


def filled(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "1", path) or "/"


def open_routes() -> Iterator[tuple[str, str, Door]]:
    for method, path in all_routes():
        found = door(method, filled(path))
        if found is not None and not CLOSED.search(path):
            yield method, filled(path), found


def ask(client: TestClient, method: str, path: str, **headers: str) -> int:
    """The status; a websocket that opens is 101."""
    if method == "WEBSOCKET":
        try:
            with client.websocket_connect(path, headers={"Host": "127.0.0.1:8765", "Origin": ADDRESS, **headers}):
                return 101
        except WebSocketDenialResponse as denied:
            return int(denied.status_code)
    return client.request(method, path, headers={"Origin": ADDRESS, **headers}).status_code


def test_every_route_has_a_door_or_is_closed_and_every_door_a_route(client: TestClient) -> None:
    routes = all_routes()
    assert len(routes) > 120
    assert {m for m, _ in routes} >= {"GET", "POST", "PUT", "PATCH", "DELETE", "WEBSOCKET"}
    open_ones = {(method, path) for method, path in routes if door(method, filled(path)) is not None}
    closed = {(method, path) for method, path in routes if CLOSED.search(path)}
    unknown = [one for one in routes if one not in open_ones and one not in closed]
    assert not unknown, "put these into core.access.DOORS, or among the closed ones"
    files = ("/auth", "/oauth2callback", "/assets", "/component", "/static", "/media", "/arena/static", "/arena/assets")
    behind = [
        one for one in closed if (is_open := door(one[0], filled(one[1]))) and is_open.roles is not None and not one[1].startswith(files)
    ]
    assert not behind, "closed, and yet there is a door"


def test_nobody_gets_in_without_a_sign_in_whatever_they_claim(client: TestClient, person: Callable[..., str]) -> None:
    person("admin")
    ended = person("engineer", "ended")
    me = accounts.person_for_token(ended.partition("=")[2])
    assert me
    accounts.sign_out(me.session_id, me)
    gone = person("engineer", "gone")
    with write_session() as session:
        session.execute(update(t.User).where(t.User.username == "gone").values(is_active=False))
    makeshift: list[dict[str, str]] = [{}, FORGED, {"Cookie": ended}, {"Cookie": gone}, {"Cookie": ended.partition("=")[0] + "=made-up"}]
    makeshift += [{"Authorization": f"Bearer {value}"} for value in (ended.partition("=")[2], "made-up", "cst_made-up")]
    for method, path in all_routes():
        found = door(method, filled(path))
        if found is not None and found.roles is None:
            assert ask(client, method, filled(path)) in ANSWERS
            continue
        for headers in makeshift:
            assert ask(client, method, filled(path), **headers) == 401, (method, path, headers)


def test_each_role_passes_exactly_the_doors_that_are_for_it(client: TestClient, person: Callable[..., str]) -> None:
    cookies = {role: person(role) for role in ROLES}
    tried = 0
    for method, path, found in open_routes():
        for role, cookie in cookies.items():
            if found.roles is None or path.startswith(("/logout", *STREAMS)) or (method, path) == ("DELETE", "/api/session"):
                continue
            status = ask(client, method, path, Cookie=cookie, **(FORGED if role != "admin" else {}))
            tried += 1
            if role in found.roles and "upload_file" in path:
                assert status in (204, 403)  # Streamlit's own token against forged uploads
            elif role in found.roles:
                assert status not in (401, 403), (method, path, role, status)
            else:
                assert status == 403, (method, path, role, status)
    assert tried > 200


def test_closed_routes_answer_nobody(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("admin")
    closed = [one for one in all_routes() if CLOSED.search(one[1]) and door(one[0], filled(one[1])) is None]
    assert len(closed) > 50
    for method, path in [*closed, ("GET", "/arena/gradio_api/file=/etc/passwd"), ("GET", "/arena/gradio_api/proxy=http://127.0.0.1/x")]:
        assert ask(client, method, filled(path), Cookie=cookie) == 404, (method, path)
    for path in ("/media/../../etc/passwd", "/static/..%2f..%2fapp/main.py", "/assets/web/%2e%2e/i18n/errors.toml", "//api/me", "/api//me"):
        request = client.build_request("GET", ADDRESS, headers={"Cookie": cookie})
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == 404, path


def test_what_changes_something_must_come_from_our_own_page(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("admin")
    foreign: list[dict[str, str]] = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}]
    foreign += [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {}]
    for method, path, _ in open_routes():
        for headers in foreign:
            if method == "GET":
                continue
            if method == "WEBSOCKET":
                with (
                    pytest.raises(WebSocketDenialResponse),
                    client.websocket_connect(path, headers={"Host": "127.0.0.1:8765", "Cookie": cookie, **headers}),
                ):
                    raise AssertionError(path)
                continue
            assert client.request(method, path, headers={"Cookie": cookie, **headers}).status_code == 403, (method, path, headers)


def test_a_token_opens_what_its_scopes_name_and_nothing_else(client: TestClient, person: Callable[..., str]) -> None:
    for role in ROLES:
        person(role)
        owner = accounts.find_user(role)
        for scope in tokens.scopes_for(role):
            _, token = tokens.create(owner, f"only {scope}", [scope], 1, by=owner)
            for method, path, found in open_routes():
                if not path.startswith("/api") or found.roles is None:
                    continue
                status = ask(client, method, path, Authorization=f"Bearer {token}")
                is_allowed = role in found.roles and found.scope in (scope, "any")
                assert (status not in (401, 403)) == is_allowed, (role, scope, method, path, status)
            assert ask(client, "GET", "/desk", Authorization=f"Bearer {token}") == 401
            name = person("engineer", f"x{abs(hash((role, scope))) % 10**8}").partition("=")[0]
            assert ask(client, "GET", "/api/me", Cookie=f"{name}={token}") == 401, "a token is no cookie"


def test_every_page_is_a_screen_and_refuses_other_roles(client: TestClient, person: Callable[..., str]) -> None:
    files = {path.stem for path in (ROOT / "pages").glob("*.py")}
    assert files == {screen.file for screen in SCREENS}
    people = {role: accounts.person_for_token(person(role).partition("=")[2]) for role in ROLES}
    for screen in SCREENS:
        for role, one in people.items():
            if role in screen.roles:
                continue
            assert one
            at = AppTest.from_file(ROOT / "pages" / f"{screen.file}.py", default_timeout=30)
            at.user = {"session_id": str(one.session_id), "username": one.username, "role": one.role}
            at.run()
            raised = " ".join(str(e.value) for e in at.exception) + " ".join(str(e.value) for e in at.error)
            assert "role does not allow" in raised or at.exception, (screen.file, role, raised)
            shown = [e for e in at.main if e.type in ("dataframe", "button", "text_input", "text_area", "selectbox", "download_button")]
            assert not shown, (screen.file, role)


def test_every_callback_of_a_page_ends_in_a_use_case_of_the_matrix_or_asks_the_role_itself() -> None:
    found = 0
    for path in [*(ROOT / "pages").glob("*.py"), *(ROOT / "app").glob("*widgets.py"), ROOT / "app" / "menu.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {node.name: ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            for keyword in node.keywords if isinstance(node, ast.Call) else []:
                if keyword.arg in ("on_click", "on_change", "on_submit", "on_dismiss") and isinstance(keyword.value, ast.Name):
                    body = defined.get(keyword.value.id)
                    found += 1
                    if body is not None and re.search(r"write_session|\bcore\.", body):
                        assert re.search(r"require\(|current_user\(", body), f"{path.name}: {keyword.value.id}"
    assert found > 20


def test_every_use_case_that_a_screen_or_route_can_reach_is_in_the_matrix() -> None:
    reached = handlers.use_cases()
    assert len(reached) > 80
    named = {f"core.{name}" for name in USE_CASES}
    assert set(reached) - named - set(NO_PERSON) == set()
    assert set(NO_PERSON) <= set(reached)
    assert named <= set(reached), "stands in the matrix and is reached from nowhere"


@pytest.mark.parametrize("name", sorted(USE_CASES))
def test_a_use_case_refuses_every_other_role_and_disabled_accounts(client: TestClient, name: str, person: Callable[..., str]) -> None:
    def tried(user_id: int, role: str) -> bool:
        """Whether the role was refused."""

        def actor(kind: Any) -> Any:
            return Person(user_id, role, role, role, "en", 0) if kind is Person else user_id

        try:
            handlers.call(f"core.{name}", actor)
        except Forbidden as error:
            return error.code == "forbidden"
        except (UserError, AttributeError, KeyError, TypeError, ValueError):
            return False  # it was let in, and found the empty arguments wanting
        return False

    ids = {role: accounts.create_user(role, role, role, by=None) for role in ROLES}
    gone = accounts.create_user("gone", "gone", "admin", by=None)
    accounts.set_active(gone, False, by=None)
    assert tried(gone, "admin")
    assert tried(99_999, "admin")
    for role in sorted(ROLES, key=lambda one: one in USE_CASES[name]):
        assert tried(ids[role], role) == (role not in USE_CASES[name]), role


def test_every_handler_of_the_bench_is_private_and_asks_who_it_is(client: TestClient, person: Callable[..., str]) -> None:
    mounted = next(route.app for route in main.bench._inner.routes if isinstance(route, Mount))
    page: Blocks = mounted.blocks
    handlers_of = [f for f in page.fns.values() if f.fn is not None]
    assert len(handlers_of) >= 12
    assert {f.api_visibility for f in handlers_of} == {"private"}
    one = accounts.person_for_token(person("clinician").partition("=")[2])
    assert one

    with pytest.raises(Forbidden):
        person_of(SimpleNamespace(headers={"x-auth-session": str(one.session_id)}))  # type: ignore[arg-type]
    source = ast.parse((ROOT / "app" / "bench.py").read_text(encoding="utf-8"))
    for node in ast.walk(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(a.arg == "request" for a in node.args.args):
            body = ast.unparse(node)
            assert "person_of(request)" in body or "self.vote(" in body or node.name in ("person_of", "language_of", "_asked_pair"), (
                node.name
            )


async def _tools() -> list[Any]:
    return list(await build_mcp().list_tools())


def test_the_mcp_server_offers_two_tools_that_only_read(client: TestClient) -> None:
    found = asyncio.run(_tools())
    assert {tool.name for tool in found} == {"ask", "search"}
    assert all(tool.annotations.read_only_hint for tool in found)


def test_replayed_requests_do_nothing_a_second_time(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("engineer")
    page = client.get("/login")
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert token
    form = {"form_token": token[1], "username": "engineer", "password": "a calm morning round", "next": "/"}
    sent = {"headers": {"Origin": ADDRESS}, "data": form}
    assert client.post("/login", **sent).status_code == 303  # type: ignore[arg-type]
    again = client.post("/login", **sent)  # type: ignore[arg-type]
    assert again.status_code == 400, "the same form a second time"
    client.cookies.clear()
    link = accounts.make_link(accounts.find_user("engineer"), by=None)
    accounts.use_link(link, "another calm morning")
    assert client.get(f"/login/once/{link}").status_code == 404
    assert ask(client, "GET", "/api/me", Cookie=cookie) == 401, "a new password ends what was signed in before"
    fresh = person("engineer", "second")
    assert ask(client, "POST", "/logout", Cookie=fresh) == 303
    assert ask(client, "POST", "/logout", Cookie=fresh) == 401
    owner = accounts.find_user("second")
    number, secret = tokens.create(owner, "ci", ["jobs:read"], 1, by=owner)
    assert ask(client, "GET", "/api/jobs", Authorization=f"Bearer {secret}") == 200
    tokens.revoke(number, by=owner)
    time.sleep(1.1)  # what the guard believes of a token it has just seen
    assert ask(client, "GET", "/api/jobs", Authorization=f"Bearer {secret}") == 401
