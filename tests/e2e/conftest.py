"""A real site in a temporary home, a real Chromium, and people who can sign in.

    def test_something(site, page, sign_in):
        with site.database(): ...            # put rows into the site's database
        sign_in(page, "clinician", "/desk")

Every `page` fails its test when the browser asked another host for anything or the content security policy was broken.
Without Chromium these tests skip, loudly.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from core import accounts, bench_tour
from core.home import Home, open_home
from core.settings import ROOT, load_settings
from db.engine import database
from tests.databases import Databases

PASSWORD = "a calm morning round"
ROLES = ("clinician", "product", "engineer", "admin")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=30_000)  # like every other wait here: these tests look at what is shown, not at how fast a busy machine shows it


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """A running web process. Accounts are named after their role; `environment` starts further processes on its home."""

    url: str
    root: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    @contextmanager
    def database(self) -> Iterator[Home]:
        """This test process's database is the site's, inside the block."""
        home = open_home(load_settings(self.environment))
        try:
            yield home
        finally:
            database().dispose()

    def start(self, module: str) -> subprocess.Popen[bytes]:
        """Start `python -m module` on this home; the caller ends it."""
        with (self.root / f"{module}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=self.environment, stdout=log, stderr=log)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, databases: Databases, browser: Browser) -> Iterator[Site]:
    """The whole web application on a free port. Depends on the browser, so that nothing is started without one."""
    root = tmp_path_factory.mktemp("site")
    databases.provide(root)
    port = free_port()
    environment = {
        **os.environ,
        "CONSILIUM_HOME": str(root),
        "CONSILIUM_PORT": str(port),
        "CONSILIUM_MODEL_SERVER_PORT": str(free_port()),
        "CONSILIUM_LANGUAGE": "en",
        "CONSILIUM_SIGNING_PASSWORD_MINUTES": "60",
    }
    open_home(load_settings(environment), with_migration=True)
    for role in ROLES:
        user_id = accounts.create_user(role, f"Dr {role.title()}", role, by=None)
        accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
        bench_tour.mark_seen(user_id)
    database().dispose()
    log = (root / "web.log").open("wb")
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--timeout-graceful-shutdown", "3"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail(f"the web process ended: {(root / 'web.log').read_text()[-2000:]}")
            try:
                httpx.get(f"{url}/login", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.25)
        yield Site(url, root, environment, process)
    finally:
        stop(process)
        log.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of the system, never a downloaded one."""
    path = next((p for p in map(shutil.which, BROWSERS) if p), None)
    if path is None:
        pytest.skip("no Chromium on this machine: browser tests not run (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-background-networking"])
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """`new_page(width=390, height=844, color_scheme="dark")`: a page in a browser of its own, watched for leaks."""
    contexts: list[BrowserContext] = []
    leaks: list[str] = []

    def on_request(request: Request) -> None:
        if not request.url.startswith((site.url, site.url.replace("http", "ws"), "data:", "blob:", "about:")):
            leaks.append(f"request left the machine: {request.url}")

    def on_console(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
            leaks.append(f"content security policy: {message.text}")

    def make(width: int = 1440, height: int = 900, color_scheme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=color_scheme, base_url=site.url)
        context.set_default_timeout(30_000)
        contexts.append(context)
        context.on("request", on_request)
        context.on("console", on_console)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()
    assert not leaks, "\n".join(leaks)


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A desktop-sized page, nobody signed in."""
    return new_page()


@pytest.fixture
def sign_in() -> Callable[..., Page]:
    """`sign_in(page, "engineer", "/jobs")` through the form, and wait for the page's heading."""

    def run(page: Page, who: str, path: str = "/") -> Page:
        page.goto(path)
        page.fill("#username", who)
        page.fill("#password", PASSWORD)
        page.click("button")
        page.locator("[data-testid='stMain'] h2").first.wait_for()
        return page

    return run
