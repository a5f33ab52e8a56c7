"""The guard in front of all three frameworks: nobody without a sign-in, nobody from elsewhere, nobody beyond their role."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from core import accounts
from tests.api.conftest import ADDRESS

HTML = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
PATHS = [
    "/", "/home", "/desk", "/bench", "/jobs?job=1", "/settings", "/no/such/page",
    "/api/me", "/api/version", "/api/docs", "/api/openapi.json", "/api/jobs", "/api/jobs/1", "/api/ask", "/api/no-such",
    "/arena/", "/arena/config", "/arena/gradio_api/info", "/arena/gradio_api/queue/join",
    "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/_stcore/stream", "/media/x.png", "/static/js/index.js",
    "/assets/lexicons/en.toml", "//api/me", "/api/../api/me", "/login/../settings", "/API/me",
]  # fmt: skip


def routes(app: object, prefix: str = "") -> Iterator[str]:
    """Every path that any of the mounted applications declares."""
    for route in getattr(app, "routes", []):
        if hasattr(route, "original_router"):  # FastAPI keeps an included router whole
            yield from routes(route.original_router, prefix + route.include_context.prefix)
        elif isinstance(route, Mount):
            yield from routes(route.app, prefix + route.path)
        elif isinstance(route, Route) or hasattr(route, "path"):
            yield prefix + route.path


@pytest.mark.parametrize("path", PATHS)
def test_anonymous_requests_are_refused(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401, answer.text[:200]
    assert "signed out" in answer.text
    assert client.post(path).status_code == 401


def test_every_declared_route_is_refused_to_anonymous(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    public = ("/login", "/assets/web", "/api/session", "/api/health", "/api/ready", "/metrics")
    paths = sorted({path for path in routes(client.app) if not path.startswith(public)})
    assert {"/api/jobs/{job_id}", "/api/desk", "/arena/gradio_api/queue/join", "/logout"} <= set(paths)
    for path in paths:
        filled = path.replace("{path:path}", "x").replace("{", "").replace("}", "").replace(":path", "").replace(":int", "")
        assert {client.request(method, filled or "/").status_code for method in ("GET", "POST", "PUT", "DELETE")} == {401}, path


def test_a_browser_is_sent_to_the_sign_in_page_and_back(client: TestClient) -> None:
    assert client.get("/", headers=HTML).headers["location"] == "/login"
    answer = client.get("/jobs?job=3", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/jobs%3Fjob%3D3"


@pytest.mark.parametrize("path", ["/login/x", "/loginx", "/login/_stcore/health", "/api/health/x", "/assets/web", "/assets/web/../i18n"])
def test_what_lies_near_a_public_path_is_not_public(client: TestClient, path: str) -> None:
    request = client.build_request("GET", ADDRESS)
    request.url = request.url.copy_with(raw_path=path.encode())
    assert client.send(request).status_code == 401


def test_public_paths_need_no_sign_in(client: TestClient) -> None:
    assert client.get("/login").status_code == 200
    assert client.get("/assets/web/page.css").status_code == 200
    health = client.get("/api/health")
    assert health.status_code == 200
    assert set(health.json()) == {"status"}  # parts only for who is signed in


@pytest.mark.parametrize("name", ["X-Auth-User", "x-auth-session", "X-AUTH-ROLE"])
def test_spoofed_headers_are_ignored(client: TestClient, person: Callable[..., str], name: str) -> None:
    person("admin")
    assert client.get("/api/me", headers={name: "1"}).status_code == 401
    cookie = person("clinician")
    answer = client.get("/api/jobs", headers={"Cookie": cookie, name: "admin", "X-Auth-Role": "admin"})
    assert answer.status_code == 403


def socket(client: TestClient, **headers: str | None) -> WebSocketTestSession:
    sent = {"Host": ADDRESS.partition("//")[2], **{k: v for k, v in headers.items() if v is not None}}
    return client.websocket_connect("/_stcore/stream", headers=sent)


def refusal(session: WebSocketTestSession) -> int:
    with pytest.raises(WebSocketDenialResponse) as denied, session:
        raise AssertionError("the websocket was opened")
    return denied.value.status_code


def test_an_anonymous_websocket_is_refused(client: TestClient) -> None:
    assert refusal(socket(client, Origin=ADDRESS)) == 401
    assert refusal(socket(client, Origin=ADDRESS, Cookie="consilium=made-up")) == 401


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://127.0.0.1:9999"])
def test_a_websocket_needs_our_own_origin(client: TestClient, person: Callable[..., str], origin: str | None) -> None:
    assert refusal(socket(client, Origin=origin, Cookie=person("admin"))) == 403


def test_a_websocket_ends_with_the_sign_in_behind_it(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("clinician")
    admin = accounts.person_for_token(person("admin").partition("=")[2])
    me = accounts.person_for_token(cookie.partition("=")[2])
    assert admin
    assert me
    with socket(client, Origin=ADDRESS, Cookie=cookie) as opened:
        accounts.sign_out(me.session_id, admin)
        told = ForwardMsg.FromString(opened.receive_bytes())
        assert told.auth_redirect.url == "/login"
        assert opened.receive() == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_writing_from_a_foreign_origin_is_refused(client: TestClient, person: Callable[..., str], method: str) -> None:
    cookie = person("engineer")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        answer = client.request(method, "/api/jobs", headers={"Cookie": cookie, "Origin": origin})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "foreign_origin"
    sibling = client.request(method, "/api/jobs", headers={"Cookie": cookie, "Sec-Fetch-Site": "same-site"})
    assert sibling.status_code == 403


def test_a_foreign_page_cannot_read_in_the_background_but_may_link_here(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("engineer")
    background = {"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert client.get("/api/jobs", headers=background).status_code == 403
    framed = {"Cookie": cookie, **HTML, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}
    assert client.get("/", headers=framed).status_code == 403
    assert client.get("/", headers={"Cookie": cookie, **HTML, "Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_an_unknown_host_name_is_refused(client: TestClient) -> None:
    answer = client.get("/login", headers={"Host": "rebound.example"})
    assert answer.status_code == 400
    assert "allowed_hosts" in answer.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/jobs", {"engineer", "admin"}),
        ("/arena/", {"product", "engineer", "admin"}),
        ("/api/me", {"clinician", "product", "engineer", "admin"}),
        ("/", {"clinician", "product", "engineer", "admin"}),
    ],
)
def test_role_matrix(client: TestClient, person: Callable[..., str], path: str, allowed: set[str]) -> None:
    for role in ("clinician", "product", "engineer", "admin"):
        status = client.get(path, headers={"Cookie": person(role)}).status_code
        assert status == (200 if role in allowed else 403), role


def test_bearer_works_on_the_api_only(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    headers = bearer("engineer")
    assert client.get("/api/me", headers=headers).json()["username"] == "engineer"
    assert client.get("/arena/", headers=headers).status_code == 401
    assert client.get("/", headers=headers).status_code == 401


def test_headers_forbid_other_hosts(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("admin")
    for path in ("/", "/login", "/api/me", "/arena/", "/assets/web/page.css", "/api/docs"):
        headers = client.get(path, headers={"Cookie": cookie}).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_pages_carry_the_persons_theme_before_streamlit_starts(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("product")
    me = accounts.person_for_token(cookie.partition("=")[2])
    assert me
    accounts.set_preferences(me, theme="dark")
    page = client.get("/bench", headers={"Cookie": cookie, **HTML}).text
    assert "stActiveTheme-" in page
    assert '\\"Dark\\"' in page
    assert page.index("stActiveTheme-") < page.index("static/js/index")


def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient, person: Callable[..., str]) -> None:
    cookie = {"Cookie": person("engineer")}
    page = client.get("/api/docs", headers=cookie).text
    assert "http://" not in page.replace(ADDRESS, "")
    assert "https://" not in page
    assert client.get("/assets/web/swagger/swagger-ui-bundle.js").status_code == 200
    paths = client.get("/api/openapi.json", headers=cookie).json()["paths"]
    assert {"/me", "/jobs", "/jobs/{job_id}/cancel", "/health"} <= set(paths)
