"""Sign-in pages: small HTML forms made on the server, usable without JavaScript.

/login, /login/once/<token> (a one-time link: choose a password), /login/password (a password somebody else set must be
changed) and /logout. Every form carries a token that must equal its cookie, beside the guard's Origin check, so that no
foreign page can sign a person in as somebody else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import cache
from html import escape
from string import Template
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from app.errors import describe
from app.guard import PERSON, cookie_name
from core import accounts, nonces, passwords
from core.accounts import Person
from core.errors import NotFound, UserError
from core.home import current_home
from core.i18n import LANGUAGES, translate
from core.settings import ROOT, Settings

LANGUAGE_COOKIE = "consilium_language"
FORM_COOKIE = "consilium_form"
#: a page that stood open longer asks once more
FORM_MINUTES = 240
NAMES = {"zh": "中文", "en": "English"}


@cache
def _page() -> Template:
    return Template((ROOT / "assets" / "web" / "page.html").read_text(encoding="utf-8"))


def _language(request: Request) -> str:
    chosen = request.query_params.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
    return chosen if chosen in LANGUAGES else current_home().settings.language


def safe_target(target: str | None) -> str:
    """Where to go after signing in: a path of this site, else the front page."""
    ok = target and target.startswith("/") and not target.startswith(("//", "/\\", "/login")) and "\n" not in target and "\r" not in target
    return target if ok and target else "/"


def _render(
    request: Request, title: str, lead: str, fields: list[tuple[str, str, str]], button: str, error: Exception | None = None
) -> Response:
    """A page with one form. `fields` are (name, label key, autocomplete); `error` is told above it."""
    language = _language(request)

    def word(key: str) -> str:
        return escape(translate(key, language))

    settings = current_home().settings
    # one for the browser, so that two open tabs do not spoil each other; each form carries a token of its own, good for one use
    browser = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
    form_token = nonces.issue(f"form {browser}", FORM_MINUTES)
    inputs = []
    for name, label, autocomplete in fields:
        kind = "text" if name == "username" else "password"
        extra = ' autocapitalize="none" spellcheck="false"' if name == "username" else ""
        focus = " autofocus" if name == fields[0][0] else ""
        inputs.append(
            f'<label for="{name}">{word(label)}</label>'
            f'<input id="{name}" name="{name}" type="{kind}" autocomplete="{autocomplete}" required maxlength="200"{extra}{focus}>'
        )
    target = safe_target(request.query_params.get("next"))
    told = describe(error, language) if error else None
    others = [c for c in LANGUAGES if c != language]
    form = (
        f'<form method="post"><input type="hidden" name="form_token" value="{escape(form_token)}">'
        f'<input type="hidden" name="next" value="{escape(target)}">{"".join(inputs)}<button>{word(button)}</button></form>'
    )
    html = _page().substitute(
        lang="zh-CN" if language == "zh" else "en",
        title=word(title),
        lead=word(lead),
        notice=f'<p class="bad" role="alert">{escape(told.text)}</p>' if told else "",
        form=form + _elsewhere(settings, target, word) if fields else "",
        languages=" ".join(f'<a href="?lang={c}&amp;next={escape(quote(target))}" lang="{c}">{NAMES[c]}</a>' for c in others),
        footer=word("accounts.footer"),
    )
    response = HTMLResponse(html, told.status if told else 200)
    secure = settings.secure_cookies
    response.set_cookie(FORM_COOKIE, browser, httponly=True, samesite="strict", secure=secure)
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language, max_age=31_536_000, samesite="lax", secure=secure)
    return response


async def _form(request: Request) -> FormData:
    """The posted fields. Raises UserError("accounts.stale_form") when the form is none that this browser got, or was sent before."""
    form = await request.form(max_files=0, max_fields=20)
    await run_sync(nonces.spend, f"form {request.cookies.get(FORM_COOKIE, '-')}", str(form.get("form_token", "")))
    return form


def _elsewhere(settings: Settings, target: str, word: Callable[[str], str]) -> str:
    """The way to the outside provider, where there is one."""
    if not (settings.oidc_issuer and settings.oidc_client_id):
        return ""
    name = escape(settings.oidc_name) or word("accounts.oidc_somewhere")
    return f'<p class="other"><a href="/login/oidc/start?next={escape(quote(target))}">{word("accounts.oidc_button")} {name}</a></p>'


async def sign_in(request: Request, user_id: int, target: str, *, method: str = "password") -> Response:
    """Open a session for the account in this browser and go on."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    language = chosen if chosen in LANGUAGES else None
    token = await run_sync(accounts.open_session, user_id, request.headers.get("user-agent", ""), language, method)
    settings = current_home().settings
    response = RedirectResponse(target, status_code=303)
    max_age = settings.session_days * 86_400
    response.set_cookie(
        cookie_name(settings), token, max_age=max_age, path="/", httponly=True, samesite="lax", secure=settings.secure_cookies
    )
    return response


def _chosen_password(form: FormData) -> str:
    password = str(form.get("password", ""))
    if password != str(form.get("repeat", "")):
        raise UserError("accounts.passwords_differ")
    return password


NEW_PASSWORD = [("password", "accounts.new_password", "new-password"), ("repeat", "accounts.repeat_password", "new-password")]


async def login(request: Request) -> Response:
    """Name and password."""
    error: Exception | None = None
    if request.method == "POST":
        try:
            form = await _form(request)
            address = request.client.host if request.client else "unknown"
            user_id = await run_sync(passwords.authenticate, str(form.get("username", "")), str(form.get("password", "")), address)
            return await sign_in(request, user_id, safe_target(str(form.get("next", ""))))
        except UserError as problem:
            error = problem
    elif PERSON in request.scope and "lang" not in request.query_params:
        return RedirectResponse(safe_target(request.query_params.get("next")), status_code=303)
    return login_page(request, error)


def login_page(request: Request, error: Exception | None = None) -> Response:
    """The sign-in page, with what went wrong."""
    fields = [("username", "accounts.username", "username"), ("password", "accounts.password", "current-password")]
    return _render(request, "accounts.sign_in_title", "accounts.sign_in_lead", fields, "accounts.sign_in_button", error)


async def once(request: Request) -> Response:
    """A one-time link. Looking at it spends nothing; choosing a password does, and signs in."""
    token = request.path_params["token"]
    error: Exception | None = None
    try:
        await run_sync(accounts.link_owner, token)
        if request.method == "POST":
            user_id = await run_sync(accounts.use_link, token, _chosen_password(await _form(request)))
            return await sign_in(request, user_id, "/")
    except NotFound as problem:
        return _render(request, "accounts.link_title", "accounts.link_spent_lead", [], "accounts.link_button", problem)
    except UserError as problem:
        error = problem
    return _render(request, "accounts.link_title", "accounts.link_lead", NEW_PASSWORD, "accounts.link_button", error)


async def password(request: Request) -> Response:
    """Change a password that somebody else has set."""
    person: Person | None = request.scope.get(PERSON)
    if person is None:
        return RedirectResponse("/login", status_code=303)
    error: Exception | None = None
    if request.method == "POST":
        try:
            form = await _form(request)
            address = request.client.host if request.client else "unknown"
            await run_sync(accounts.change_password, person, str(form.get("old", "")), _chosen_password(form), address)
            return RedirectResponse(safe_target(str(form.get("next", ""))), status_code=303)
        except UserError as problem:
            error = problem
    fields = [("old", "accounts.old_password", "current-password"), *NEW_PASSWORD]
    return _render(request, "accounts.change_title", "accounts.change_lead", fields, "accounts.link_button", error)


async def logout(request: Request) -> Response:
    """End this sign-in."""
    person: Person | None = request.scope.get(PERSON)
    if person is not None:
        await run_sync(accounts.sign_out, person.session_id, person)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(cookie_name(current_home().settings), path="/")
    return response


ROUTES: list[BaseRoute] = [
    Route("/login", login, methods=["GET", "POST"]),
    Route("/login/once/{token}", once, methods=["GET", "POST"]),
    Route("/login/password", password, methods=["GET", "POST"]),
    Route("/logout", logout, methods=["POST"]),
]
