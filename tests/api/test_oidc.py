"""Signing in at an outside provider over real HTTP: the whole way, and every way in which it must not work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import OctKey, RSAKey
from sqlalchemy import func, select
from starlette.testclient import TestClient

from core import accounts, identities, signing
from core.errors import UserError
from core.home import current_home, open_home
from core.signing import Proof
from db import tables as t
from db.engine import read_session, write_session
from tests.api.conftest import ADDRESS
from tests.trust.provider import CLIENT, SECRET, Provider


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def provider(running: Provider, client: TestClient, person: Callable[..., str]) -> Provider:
    """The provider as new, our settings pointing at it, and one account with an e-mail address."""
    running.spoil, running.who = {}, {"sub": "u-17", "email": "li.na@hospital.example", "email_verified": True}
    running.key, running.header = running.published, {"alg": "RS256", "kid": "one"}
    values = {
        "oidc_issuer": running.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_name": "Clinic <ID>",
        "oidc_email_domains": ["hospital.example"], "signing_password_minutes": 0,
    }  # fmt: skip
    open_home(current_home().settings.model_copy(update=values))
    user_id = accounts.create_user("li", "Li Na", "clinician", by=None)
    identities.set_email(user_id, "Li.Na@hospital.example", by=None)
    return running


def leave(client: TestClient, path: str = "/login/oidc/start") -> str:
    """Start, and let the person agree at the provider; returns the callback's address."""
    away = client.get(path)
    assert away.status_code == 303, away.text
    return str(httpx.get(away.headers["location"]).headers["location"])


def signed_in(client: TestClient) -> str | None:
    answer = client.get("/api/me")
    return str(answer.json()["username"]) if answer.status_code == 200 else None


def test_the_whole_way_with_pkce_state_and_nonce(client: TestClient, provider: Provider) -> None:
    assert "Clinic &lt;ID&gt;" in client.get("/login").text
    away = client.get("/login/oidc/start?next=/desk")
    asked = {k: v[0] for k, v in parse_qs(urlsplit(away.headers["location"]).query).items()}
    assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
    assert asked["redirect_uri"] == f"{ADDRESS}/login/oidc/callback"
    assert {"openid", "email"} <= set(asked["scope"].split())
    kept = away.headers["set-cookie"]
    assert "HttpOnly" in kept
    assert "SameSite=lax" in kept
    back = client.get(str(httpx.get(away.headers["location"]).headers["location"]))
    assert (back.status_code, back.headers["location"]) == (303, "/desk")
    assert signed_in(client) == "li"
    assert len(provider.sent[-1]["code_verifier"]) >= 43
    with read_session() as session:
        row = session.scalars(select(t.Identity)).one()
        assert (row.issuer, row.subject) == (provider.url, "u-17")
        actions = list(session.scalars(select(t.AuditEntry.action).order_by(t.AuditEntry.id)))
        assert actions[-2:] == ["link_identity", "sign_in"]
        assert session.scalars(select(t.LoginSession.method)).all()[-1] == "oidc"
    # from now on by subject: another address changes nothing, and the address alone opens nothing to another subject
    client.cookies.clear()
    provider.who = {"sub": "u-17"}
    assert client.get(leave(client)).status_code == 303
    client.cookies.clear()
    provider.who = {"sub": "u-17", "email_verified": True, "email": "li.na@hospital.example"}
    with write_session() as session:
        session.get_one(t.User, accounts.find_user("li")).is_active = False
    assert client.get(leave(client)).status_code == 400
    assert signed_in(client) is None


def test_an_answer_counts_once_and_only_in_the_browser_that_asked(client: TestClient, provider: Provider) -> None:
    back = leave(client)
    jar = dict(client.cookies)
    assert client.get(back).status_code == 303
    client.cookies.clear()
    client.cookies.update(jar)  # the same answer again, with the cookie of then
    assert client.get(back).status_code == 400
    client.cookies.clear()
    other = leave(client)
    client.cookies.clear()  # somebody else's browser is given the address
    assert client.get(other).status_code == 400
    started = leave(client)
    assert client.get(started.replace("state=", "state=x")).status_code == 400
    leave(client)
    assert client.get(started).status_code == 400, "the state of an earlier start"
    code = parse_qs(urlsplit(back).query)["code"][0]
    fresh = leave(client)
    now = parse_qs(urlsplit(fresh).query)["code"][0]
    assert client.get(fresh.replace(now, code)).status_code == 400, "a spent code under a fresh state"
    assert signed_in(client) is None


@pytest.mark.parametrize(
    "spoil",
    [
        {"nonce": "another"}, {"nonce": None}, {"aud": "somebody-else"}, {"aud": ["somebody-else"]}, {"aud": None},
        {"iss": "http://evil.example"}, {"iss": None}, {"exp": int(time.time()) - 3600}, {"exp": None}, {"sub": None},
        {"nbf": int(time.time()) + 3600}, {"email_verified": False}, {"email_verified": "true"}, {"email": "li.na@evil.example"},
        {"email": "li.na@hospital.example.evil.example"}, {"email": None}, {"aud": [CLIENT, "x"], "azp": "x"},
    ],
)  # fmt: skip
def test_a_token_with_one_wrong_claim_signs_nobody_in(client: TestClient, provider: Provider, spoil: dict[str, Any]) -> None:
    provider.spoil = spoil
    answer = client.get(leave(client))
    assert answer.status_code == 400
    assert signed_in(client) is None
    with read_session() as session:
        assert session.scalar(select(func.count()).select_from(t.Identity)) == 0


def test_a_token_signed_by_another_key_or_by_none_signs_nobody_in(client: TestClient, provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "one", "alg": "RS256", "use": "sig"})
    assert client.get(leave(client)).status_code == 400
    provider.key, provider.header = OctKey.import_key(SECRET * 3), {"alg": "HS256", "kid": "one"}  # type: ignore[assignment]
    assert client.get(leave(client)).status_code == 400
    assert signed_in(client) is None


def test_it_is_off_unless_configured_and_never_an_open_door_elsewhere(client: TestClient, provider: Provider) -> None:
    for target in ("https://evil.example", "//evil.example", "/\\evil.example", "/login/oidc/start"):
        client.cookies.clear()
        assert client.get(leave(client, f"/login/oidc/start?next={target}")).headers["location"] == "/"
    client.cookies.clear()
    refused = client.get(leave(client).replace("code=", "error=access_denied&code="))
    assert refused.status_code == 400
    assert "was not completed" in refused.text
    open_home(current_home().settings.model_copy(update={"oidc_issuer": provider.url + "/"}))
    assert client.get("/login/oidc/start").status_code == 400, "the provider calls itself by another name"
    open_home(current_home().settings.model_copy(update={"oidc_issuer": ""}))
    assert client.get("/login/oidc/start").status_code == 404
    assert client.get("/login/oidc/callback?code=x&state=y").status_code == 404
    assert "oidc" not in client.get("/login").text


def test_roles_come_from_a_claim_only_where_the_settings_say_so(client: TestClient, provider: Provider) -> None:
    provider.who |= {"groups": ["everybody", "ml"], "role": "admin"}
    client.get(leave(client))
    assert client.get("/api/me").json()["role"] == "clinician"
    mapped = {"oidc_role_claim": "groups", "oidc_role_map": ["doctors=clinician", "ml = engineer"]}
    open_home(current_home().settings.model_copy(update=mapped))
    client.cookies.clear()
    client.get(leave(client))
    assert client.get("/api/me").json()["role"] == "engineer"


def test_who_has_no_password_here_signs_in_there_once_more_to_sign(client: TestClient, provider: Provider) -> None:
    client.get(leave(client))
    with read_session() as session:
        row = session.scalars(select(t.LoginSession).where(t.LoginSession.method == "oidc")).one()
    proof = Proof(row.id)
    with pytest.raises(UserError, match=r"trust\.provider_needed"):
        signing.prove(row.user_id, proof)
    provider.spoil = {"auth_time": int(time.time()) - 7200}  # the provider did not ask again
    assert client.get(leave(client, "/login/oidc/start?again=1")).status_code == 400
    provider.spoil = {}
    assert "prompt=login" in client.get("/login/oidc/start?again=1").headers["location"]
    assert client.get(leave(client, "/login/oidc/start?again=1&next=/models")).headers["location"] == "/models"
    signing.prove(row.user_id, proof)
    with pytest.raises(UserError, match=r"trust\.provider_needed"):
        signing.prove(row.user_id, proof)
