"""Signing in at an outside provider (OpenID Connect, authorization code with PKCE): two routes that end in our own sign-in.

Off unless the settings name an issuer and a client. /login/oidc/start sends the browser away with state, nonce and an S256 challenge;
what must come back with it stays in a short-lived cookie. /login/oidc/callback takes the answer once: state spent, code exchanged with
the verifier, the ID token's signature, issuer, audience, times and nonce checked, then the account looked up (`core.identities`) and
the same server-side session opened as after a password. With ?again=1 the person who is signed in shows again who they are, to sign.
No access token is kept.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from app.auth import login_page, safe_target, sign_in
from app.guard import LOOPBACK, PERSON
from core import identities, nonces, signing
from core.errors import NotFound, UserError
from core.home import current_home
from core.settings import Settings

log = logging.getLogger("consilium.oidc")

MINUTES = 10
LEEWAY_S = 60
#: signatures by the provider's private key; never "none", never an HMAC under something that others may know
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "RS384", "RS512", "EdDSA")
NEEDED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")


def is_on(settings: Settings) -> bool:
    """Whether people may sign in at a provider."""
    return bool(settings.oidc_issuer and settings.oidc_client_id)


def _cookie(settings: Settings) -> str:
    return f"{'__Host-' if settings.secure_cookies else ''}consilium_oidc"


def _redirect_uri(request: Request) -> str:
    base = current_home().settings.public_url.rstrip("/") or f"{request.url.scheme}://{request.headers.get('host', '')}"
    return f"{base}/login/oidc/callback"


def _client(request: Request) -> Any:
    from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]  # a third of a second that most installations never need

    settings = current_home().settings
    return OAuth2Client(
        settings.oidc_client_id,
        settings.oidc_client_secret or None,
        scope="openid email profile",
        redirect_uri=_redirect_uri(request),
        code_challenge_method="S256",
        timeout=10.0,
        follow_redirects=False,
    )


def _metadata(client: Any) -> dict[str, Any]:
    """What the provider says about itself. Raises ValueError when it is another, or not safe to talk to."""
    issuer = current_home().settings.oidc_issuer
    answer = client.request("GET", issuer.rstrip("/") + "/.well-known/openid-configuration", withhold_token=True)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    if found.get("issuer") != issuer:
        raise ValueError("the provider calls itself by another name than oidc_issuer")
    for name in NEEDED:
        address = urlsplit(str(found[name]))
        if address.scheme != "https" and address.hostname not in LOOPBACK:
            raise ValueError(f"{name} is not https")
    return found


async def start(request: Request) -> Response:
    """Away to the provider."""
    if not is_on(current_home().settings):
        return login_page(request, NotFound("no_such_page"))
    is_again = request.query_params.get("again") == "1" and PERSON in request.scope
    kept = {
        "state": nonces.issue("oidc", MINUTES),
        "nonce": secrets.token_urlsafe(32),
        "verifier": secrets.token_urlsafe(48),
        "next": safe_target(request.query_params.get("next")),
        "again": is_again,
    }
    extra = {"prompt": "login", "max_age": "0"} if is_again else {}

    def address() -> str:
        with _client(request) as client:
            url, _ = client.create_authorization_url(
                _metadata(client)["authorization_endpoint"],
                state=kept["state"],
                nonce=kept["nonce"],
                code_verifier=kept["verifier"],
                **extra,
            )
            return str(url)

    try:
        url = await run_sync(_told, address)
    except UserError as error:
        return login_page(request, error)
    response = RedirectResponse(url, status_code=303)
    settings = current_home().settings
    value = base64.urlsafe_b64encode(json.dumps(kept).encode()).decode()
    response.set_cookie(
        _cookie(settings), value, max_age=MINUTES * 60, path="/", httponly=True, samesite="lax", secure=settings.secure_cookies
    )
    return response


async def callback(request: Request) -> Response:
    """Back from the provider, once."""
    settings = current_home().settings
    try:
        response = await _arrive(request, settings)
    except UserError as error:
        response = login_page(request, error)
    response.delete_cookie(_cookie(settings), path="/", secure=settings.secure_cookies, httponly=True)
    return response


async def _arrive(request: Request, settings: Settings) -> Response:
    if not is_on(settings):
        raise NotFound("no_such_page")
    kept = _kept(request, settings)
    state = request.query_params.get("state", "")
    if not secrets.compare_digest(state.encode(), str(kept.get("state", "-")).encode()):
        raise UserError("accounts.stale_form")
    await run_sync(nonces.spend, "oidc", state)
    code = request.query_params.get("code", "")
    if not code or "error" in request.query_params or request.query_params.get("iss", settings.oidc_issuer) != settings.oidc_issuer:
        raise UserError("accounts.oidc_refused")
    claims = await run_sync(_told, lambda: _claims(request, code, kept))
    user_id = await run_sync(identities.account_for, settings.oidc_issuer, claims)
    target = safe_target(str(kept.get("next", "")))
    if kept.get("again"):
        person = request.scope.get(PERSON)
        if person is None or person.id != user_id or time.time() - float(claims.get("auth_time") or 0) > LEEWAY_S + 60 * MINUTES:
            raise UserError("accounts.oidc_refused")
        await run_sync(signing.confirm_sign_in, person.session_id)
        return RedirectResponse(target, status_code=303)
    await run_sync(identities.take_role, user_id, claims)
    return await sign_in(request, user_id, target, method="oidc")


def _kept(request: Request, settings: Settings) -> dict[str, Any]:
    """What the start put into this browser."""
    try:
        kept = json.loads(base64.urlsafe_b64decode(request.cookies.get(_cookie(settings), "").encode()))
    except ValueError as error:
        raise UserError("accounts.stale_form") from error
    if not isinstance(kept, dict):
        raise UserError("accounts.stale_form")
    return kept


def _claims(request: Request, code: str, kept: dict[str, Any]) -> dict[str, Any]:
    """The claims of a valid ID token for this sign-in. Raises what Authlib and joserfc raise."""
    from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
    from joserfc import jwt
    from joserfc.jwk import KeySet

    settings = current_home().settings
    with _client(request) as client:
        about = _metadata(client)
        token = client.fetch_token(about["token_endpoint"], code=code, code_verifier=kept["verifier"])
        keys = client.request("GET", about["jwks_uri"], withhold_token=True)
        keys.raise_for_status()
    decoded = jwt.decode(token["id_token"], KeySet.import_key_set(keys.json()), algorithms=list(ALGORITHMS))
    options = {
        "iss": {"essential": True, "value": settings.oidc_issuer},
        "aud": {"essential": True, "value": settings.oidc_client_id},
        "nonce": {"essential": True, "value": kept["nonce"]},
    }
    asked = {"nonce": kept["nonce"], "client_id": settings.oidc_client_id, "access_token": token.get("access_token")}
    if kept.get("again"):
        asked["max_age"] = 1  # auth_time must be there
    claims = CodeIDToken(decoded.claims, decoded.header, options, asked)
    claims.validate(leeway=LEEWAY_S)
    return dict(claims)


def _told(ask: Any) -> Any:
    """Whatever is wrong with the provider or its token is one sentence for the person and the reason in the log."""
    from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]
    from httpx2 import HTTPError
    from joserfc.errors import JoseError

    try:
        return ask()
    except (AuthlibBaseError, JoseError, HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("sign-in at the provider failed: %s: %s", type(error).__name__, error)
        raise UserError("accounts.oidc_failed") from error


ROUTES: list[BaseRoute] = [
    Route("/login/oidc/start", start, methods=["GET"]),
    Route("/login/oidc/callback", callback, methods=["GET"]),
]
