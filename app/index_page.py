"""Streamlit's HTML page with the person's theme written into it before Streamlit starts.

Streamlit remembers light or dark in the browser, once per path (`stActiveTheme-<path>-v2`), so that a choice made on one page
would be forgotten on the next. We keep it with the account and put it where Streamlit looks. The menu's roles are mended for
screen readers there too. Everything that is not a page goes to Streamlit unchanged.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import streamlit
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.guard import PERSON
from core.accounts import Person

#: Streamlit's menu with headings puts its entries into divisions of a list, which screen readers then do not count as its entries
LISTS = """new MutationObserver(() => {
  const menu = document.querySelector("ul[data-testid='stSidebarNavItems']:not([role])");
  if (!menu) return;
  menu.setAttribute('role', 'group');
  for (const entry of menu.querySelectorAll('li')) {
    if (entry.parentElement === menu) entry.setAttribute('role', 'none');
    else entry.parentElement.setAttribute('role', 'list');
  }
}).observe(document, {childList: true, subtree: true})"""

THEMES = {None: "System", "light": "Light", "dark": "Dark"}
NOT_PAGES = ("/_stcore", "/static", "/component", "/media", "/favicon")


@cache
def _index() -> str:
    return (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")


def themed(index: str, theme: str | None, language: str) -> str:
    """The page with a script as its head's first child. Raises ValueError when the page no longer looks as expected."""
    if index.count("<head>") != 1 or '<html lang="en">' not in index:
        raise ValueError("streamlit's index.html has changed: app.index_page must be adapted")
    value = json.dumps(json.dumps(THEMES.get(theme, "System")))
    script = f"<script>try{{localStorage.setItem('stActiveTheme-'+location.pathname+'-v2',{value})}}catch(e){{}}{LISTS}</script>"
    page = index.replace("<head>", f"<head>{script}").replace("<title>Streamlit</title>", "<title>Consilium</title>")
    return page.replace('<html lang="en">', f'<html lang="{"zh-CN" if language == "zh" else "en"}">')


class IndexPage:
    """ASGI wrapper around the Streamlit app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        person: Person | None = scope.get(PERSON)
        if person is None or not _is_page(scope):
            await self.app(scope, receive, send)
            return
        response = HTMLResponse(themed(_index(), person.theme, person.language), headers={"Cache-Control": "no-cache"})
        await response(scope, receive, send)


def _is_page(scope: dict[str, Any] | Any) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = scope["path"]
    return not path.startswith(NOT_PAGES) and path.count("/") == 1 and "." not in path
