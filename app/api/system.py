"""/api: sign of life, version, who am I, and signing in without a browser."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.access import Caller, signed_in
from app.metrics import may_look
from core import accounts, health, passwords
from core.errors import Forbidden

router = APIRouter(tags=["system"])


class Credentials(BaseModel):
    """What a person types."""

    username: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=200)]


class Token(BaseModel):
    """Send it as `Authorization: Bearer <token>`; it ends like any sign-in."""

    token: str


class Me(BaseModel):
    """The calling person."""

    id: int
    username: str
    display_name: str
    role: str
    language: str


class Version(BaseModel):
    """What runs here."""

    consilium: str
    streamlit: str
    gradio: str
    fastapi: str


@router.get("/health")
def get_health(request: Request) -> dict[str, str]:
    """Sign of life: 200 as long as this process answers. `status` for everyone; one line per part for who is signed in."""
    parts = health.check()
    status = {"status": "ok" if all(v == "ok" for v in parts.values()) else "degraded"}
    try:
        signed_in(request)
    except Forbidden:
        return status
    return status | parts


@router.get("/ready", responses={503: {"model": dict[str, str], "description": "Not ready"}})
def get_ready(request: Request, response: Response) -> dict[str, str]:
    """Whether requests may be sent here: the database answers, there is room on the disk, the worker shows life. 503 when not.

    Which part is missing is told on this machine, to an administrator, and with the token for /metrics.
    """
    parts = health.check()
    is_ready = health.is_ready(parts)
    if not is_ready:
        response.status_code = 503
    status = {"status": "ready" if is_ready else "not ready"}
    return status | ({name: parts[name] for name in ("database", "disk", "worker")} if may_look(request) else {})


@router.get("/version")
def get_version(_caller: Caller) -> Version:
    """Versions of the program and its web packages."""
    return Version(consilium=health.version(), **{name: installed_version(name) for name in ("streamlit", "gradio", "fastapi")})


@router.get("/me")
def get_me(caller: Caller) -> Me:
    """Who this token or cookie belongs to."""
    return Me(id=caller.id, username=caller.username, display_name=caller.display_name, role=caller.role, language=caller.language)


@router.post("/session", status_code=201)
def post_session(credentials: Credentials, request: Request) -> Token:
    """Sign in and get a bearer token."""
    address = request.client.host if request.client else "unknown"
    user_id = passwords.authenticate(credentials.username, credentials.password, address)
    return Token(token=accounts.open_session(user_id, request.headers.get("user-agent", "")))


@router.delete("/session", status_code=204)
def delete_session(caller: Caller) -> None:
    """End this sign-in."""
    accounts.sign_out(caller.session_id, caller)
