"""Take the README's pictures: starts the product on a copy of a home in which the demo has run, signs in, and photographs.

    .venv/bin/python docs/screenshots.py [--home data] [--out docs/images] [--screens | --all]

The copy is thrown away; the home itself is not touched. Without an option the pictures of the README are made; `--screens` takes
the case desk and the bench (docs/screens.md), `--all` every page, for looking at by hand: both in both languages, light and dark,
wide and narrow.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PASSWORD = "a calm morning round"  # noqa: S105 - of accounts that exist only in the copy
PAGES = re.findall(r'^    Screen\("\w+", "(\w+)"', (ROOT / "app" / "streamlit_app.py").read_text(encoding="utf-8"), re.MULTILINE)
SCREENS = ("desk", "bench")
WIDE, NARROW = (1440, 900), (390, 844)
#: file name -> page, language, theme
README = {
    "home-en-light": ("", "en", "light"),
    "desk-en-light": ("desk", "en", "light"),
    "desk-zh-dark": ("desk", "zh", "dark"),
    "bench-en-light": ("bench", "en", "light"),
    "jobs-en-light": ("jobs?job=6", "en", "light"),
    "evaluations-zh-light": ("evaluations", "zh", "light"),
    "ask-zh-light": ("ask", "zh", "light"),
}


def start(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The product on `home`; returns its process and address."""
    env = {**os.environ, "CONSILIUM_HOME": str(home), "CONSILIUM_MODEL_SERVER_PORT": "0"}
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--empty", "--no-browser"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    for _ in range(300):
        time.sleep(0.3)
        if (home / "processes.json").exists():
            found = json.loads((home / "processes.json").read_text())
            if "model_server" in found:  # started once the page answers
                return process, found["web"]["address"]
    raise SystemExit("the product did not start; see logs/ in the home")


def make_people(home: Path) -> None:
    """One account per language and theme, all administrators."""
    os.environ["CONSILIUM_HOME"] = str(home)
    from core import accounts, bench_tour
    from core.desk import tour
    from core.home import open_home
    from db import tables as t
    from db.engine import write_session

    open_home(with_migration=True)
    for language in ("en", "zh"):
        for theme in ("light", "dark"):
            name = "Dr Lin Wen" if language == "en" else "林文 医生"
            user_id = accounts.create_user(f"{language}-{theme}", name, "admin", by=None)
            accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
            tour.mark_seen(user_id)
            bench_tour.mark_seen(user_id)
            with write_session() as session:
                user = session.get_one(t.User, user_id)
                user.language, user.theme = language, theme


def sign_in(browser: Browser, address: str, language: str, theme: str, size: tuple[int, int]) -> Page:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if theme == "dark" else "light", base_url=address
    )
    page = context.new_page()
    page.goto("/login")
    page.fill("#username", f"{language}-{theme}")
    page.fill("#password", PASSWORD)
    page.click("button")
    page.locator("[data-testid='stMain'] h2").first.wait_for(timeout=60_000)
    return page


def photograph(page: Page, path: str, target: Path, *, is_telling: bool) -> None:
    """Open `path`, wait until it stands still, and store it. `is_telling` lets the bench compare two answers first."""
    page.goto(f"/{path}")
    page.locator("[data-testid='stMain'] h2").first.wait_for(timeout=60_000)
    page.wait_for_timeout(4000)
    if path == "ask":
        page.locator("[data-testid='stMain'] textarea").first.fill("急性青光眼有哪些危险信号需要急诊？")
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(5000)
    if path == "bench" and is_telling:
        bench = page.frame_locator("iframe").first
        bench.locator("#bench-next").click()
        page.wait_for_timeout(1500)
        bench.locator("#bench-run").click()
        page.wait_for_timeout(25_000)  # the first answer waits for the model server to load the base
    shoot(page, target)
    if path == "desk" and is_telling:
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        page.locator(".cd[data-stage='sign']").wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
        shoot(page, target.with_stem(target.stem.replace("desk", "desk-reveal")))


def shoot(page: Page, target: Path) -> None:
    """A picture in 256 colours: a third of the size, and nothing lost on screens of text."""
    page.screenshot(path=target)
    Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--screens", action="store_true")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    chromium = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if chromium is None:
        raise SystemExit("Chromium is needed: install the package chromium.")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        shutil.copytree(options.home, home, ignore=shutil.ignore_patterns("processes.json", "*.lock", "locks"))
        make_people(home)
        process, address = start(home)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"])
                wanted = dict(README)
                if options.all or options.screens:
                    paths = PAGES if options.all else SCREENS
                    wanted = {f"{p}-{lang}-{th}": (p, lang, th) for p in paths for lang in ("en", "zh") for th in ("light", "dark")}
                pages: dict[tuple[str, str, tuple[int, int]], Page] = {}
                for size in (WIDE, NARROW) if options.all or options.screens else (WIDE,):
                    for name, (path, language, theme) in wanted.items():
                        key = (language, theme, size)
                        pages[key] = pages.get(key) or sign_in(browser, address, language, theme, size)
                        target = options.out / f"{name}{'-narrow' if size == NARROW else ''}.png"
                        photograph(pages[key], path, target, is_telling=not options.all)
                browser.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


if __name__ == "__main__":
    main()
