"""Signing in: sentences, throttling, one-time links, forms that no other page can send."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from core import accounts, audit, passwords
from core.errors import UserError
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests.api.conftest import ADDRESS, PASSWORD


def send(client: TestClient, path: str = "/login", headers: dict[str, str] | None = None, **fields: str) -> object:
    """Load the form at `path`, fill it in, send it."""
    page = client.get(path, headers=headers)
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert token, page.text
    return client.post(path, data={"form_token": token[1], **fields}, headers={"Origin": ADDRESS, **(headers or {})})


def test_the_right_password_signs_in_and_goes_on(client: TestClient, person: Callable[..., str]) -> None:
    person("engineer")
    answer = send(client, username="Engineer ", password=PASSWORD, next="/jobs?job=3")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/jobs?job=3"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("consilium_") and "form" not in c)
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/api/me").json()["role"] == "engineer"


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/login", "/a\r\nb: c"]
)
def test_it_never_goes_on_to_another_site(client: TestClient, person: Callable[..., str], target: str) -> None:
    person("engineer")
    assert send(client, username="engineer", password=PASSWORD, next=target).headers["location"] == "/"


@pytest.mark.parametrize(("username", "password"), [("engineer", "wrong wrong wrong"), ("nobody", PASSWORD), ("", "")])
@pytest.mark.parametrize(("language", "sentence"), [("en", "do not match"), ("zh", "用户名或密码不正确")])
def test_a_wrong_password_is_one_sentence(
    client: TestClient, person: Callable[..., str], username: str, password: str, language: str, sentence: str
) -> None:
    person("engineer")
    answer = send(client, f"/login?lang={language}", username=username, password=password)
    assert answer.status_code == 400
    assert sentence in answer.text
    assert client.get("/api/me").status_code == 401


def test_many_failures_close_the_door_for_a_while(client: TestClient, person: Callable[..., str]) -> None:
    person("engineer")
    for _ in range(passwords.FAILURES_PER_ACCOUNT_AND_ADDRESS):
        send(client, username="engineer", password="guess guess guess")
    answer = send(client, username="engineer", password=PASSWORD)  # the right one now, too late
    assert "Wait 15 minutes" in answer.text
    with write_session() as session:
        earlier = utc_now() - timedelta(minutes=16)
        session.execute(update(t.LoginFailure).values(at=earlier))
    assert send(client, username="engineer", password=PASSWORD).status_code == 303
    with read_session() as session:
        actions = list(session.scalars(select(t.AuditEntry.action)))
        assert actions.count("sign_in_failed") == 2  # the first and the last before the door closed
        assert "sign_in" in actions
        assert audit.verify(session) is None


def test_an_address_that_tries_many_names_is_slowed_down(client: TestClient) -> None:
    with write_session() as session:
        session.add_all(t.LoginFailure(username=f"guess{n}", address="testclient") for n in range(passwords.FAILURES_PER_ADDRESS))
    assert "Too many failed sign-ins" in send(client, username="somebody", password="whatever it is").text


def test_a_form_without_our_token_or_from_elsewhere_is_refused(client: TestClient, person: Callable[..., str]) -> None:
    person("engineer")
    fields = {"username": "engineer", "password": PASSWORD}
    assert client.post("/login", data=fields, headers={"Origin": "http://evil.example"}).status_code == 403
    stale = client.post("/login", data={**fields, "form_token": "made up"}, headers={"Origin": ADDRESS})
    assert stale.status_code == 400
    assert "out of date" in stale.text
    huge = client.post("/login", data={**fields, "form_token": "x" * 20_000}, headers={"Origin": ADDRESS})
    assert huge.status_code == 413


def test_the_first_administrator_comes_in_by_a_link_that_works_once(client: TestClient) -> None:
    link = accounts.first_admin_link()
    assert link
    newer = accounts.first_admin_link()
    assert newer
    assert client.get(f"/login/once/{link}").status_code == 404  # a newer link replaces it
    path = f"/login/once/{newer}"
    assert client.get(path).status_code == 200
    assert client.get(path).status_code == 200  # looking spends nothing
    assert "not the same" in send(client, path, password=PASSWORD, repeat="something else").text
    assert "too short" in send(client, path, password="short", repeat="short").text
    assert send(client, path, password=PASSWORD, repeat=PASSWORD).status_code == 303
    assert client.get("/api/me").json()["role"] == "admin"
    client.cookies.clear()
    spent = client.get(path)
    assert spent.status_code == 404
    assert "Ask the administrator for a new one" in spent.text
    assert accounts.first_admin_link() is None


def test_an_old_link_does_not_work(client: TestClient) -> None:
    link = accounts.first_admin_link()
    with write_session() as session:
        session.execute(update(t.OneTimeLogin).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert client.get(f"/login/once/{link}").status_code == 404


def test_two_people_with_one_link_set_one_password(client: TestClient) -> None:
    from concurrent.futures import ThreadPoolExecutor

    link = str(accounts.first_admin_link())

    def attempt(n: int) -> str:
        try:
            accounts.use_link(link, f"password number {n}")
        except UserError as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == ["accounts.link_used"] * 3 + ["done"]


def test_a_password_set_by_somebody_else_must_be_changed_first(client: TestClient) -> None:
    accounts.create_user("newcomer", "New Comer", "engineer", by=None, password="given by the admin")
    assert send(client, username="newcomer", password="given by the admin").status_code == 303
    refused = client.get("/", headers={"Accept": "text/html"})
    assert refused.headers["location"] == "/login/password"
    assert client.get("/api/me").status_code == 403
    answer = send(client, "/login/password", old="given by the admin", password=PASSWORD, repeat=PASSWORD)
    assert answer.status_code == 303
    assert client.get("/api/me", headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}).status_code == 200


def test_signing_out_ends_the_sign_in(client: TestClient, person: Callable[..., str]) -> None:
    cookie = person("product")
    assert client.post("/logout", headers={"Cookie": cookie, "Origin": ADDRESS}).status_code == 303
    assert accounts.person_for_token(cookie.partition("=")[2]) is None


def test_a_sign_in_ends_when_idle_and_when_old(client: TestClient, person: Callable[..., str]) -> None:
    token = person("product").partition("=")[2]
    for column, value in (("last_seen_at", utc_now() - timedelta(minutes=481)), ("expires_at", utc_now() - timedelta(seconds=1))):
        with write_session() as session:
            session.execute(update(t.LoginSession).values(last_seen_at=utc_now(), expires_at=utc_now() + timedelta(days=1)))
        assert accounts.person_for_token(token) is not None
        with write_session() as session:
            session.execute(update(t.LoginSession).values({column: value}))
        assert accounts.person_for_token(token) is None


def test_no_secret_is_stored(client: TestClient, person: Callable[..., str]) -> None:
    token = person("product").partition("=")[2]
    with read_session() as session:
        user = session.scalars(select(t.User)).one()
        assert str(user.password_hash).startswith("$argon2id$")
        stored = [*session.scalars(select(t.LoginSession.token_hash)), *session.scalars(select(t.OneTimeLogin.token_hash))]
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in stored)
    assert token not in stored


def test_signing_in_by_api(client: TestClient, person: Callable[..., str]) -> None:
    person("engineer")
    answer = client.post("/api/session", json={"username": "engineer", "password": PASSWORD})
    assert answer.status_code == 201
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert client.get("/api/me", headers=headers).status_code == 200
    assert client.delete("/api/session", headers=headers).status_code == 204
    wrong = client.post("/api/session", json={"username": "engineer", "password": "wrong wrong wrong"})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["code"] == "accounts.wrong_password"
