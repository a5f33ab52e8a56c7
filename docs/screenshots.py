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
from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PASSWORD = "a calm morning round"  # noqa: S105 - of accounts that exist only in the copy
PAGES = re.findall(r'^    Screen\("\w+", "(\w+)"', (ROOT / "core" / "access.py").read_text(encoding="utf-8"), re.MULTILINE)
WIDE, NARROW = (1440, 900), (390, 844)
#: what the demo's tiny model writes now and then, and no reader of a picture needs: half characters, the other language
BROKEN = {"en": re.compile("[\ufffd\u3400-\u9fff]"), "zh": re.compile("[\ufffda-zA-Z]")}
#: pictures of the README: file name -> address of the page, None for the two screens, which are worked on first
README = {
    "home-en-light": "",
    "desk-en-light": None,
    "desk-zh-dark": None,
    "bench-en-light": None,
    "jobs-en-light": "jobs?job=6",
    "evaluations-zh-light": "evaluations",
    "ask-zh-light": "ask",
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
            user_id = accounts.create_user(f"camera-{language}-{theme}", name, "admin", by=None)
            accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
            tour.mark_seen(user_id)
            bench_tour.mark_seen(user_id)
            with write_session() as session:
                user = session.get_one(t.User, user_id)
                user.language, user.theme = language, theme


def disputed_cases() -> dict[tuple[str, str], int]:
    """(language, theme) -> an open case in legible words of that language, over which teacher and rules differ much."""
    from sqlalchemy import select

    from db import tables as t
    from db.engine import read_session

    found: dict[tuple[str, str], int] = {}
    with read_session() as session:
        for language in ("en", "zh"):
            query = select(t.Conflict.id, t.Completion.answer).join(t.Completion, t.Completion.id == t.Conflict.completion_id)
            query = query.join(t.Sample, t.Sample.id == t.Conflict.sample_id).where(
                t.Conflict.status == "open", t.Sample.language == language
            )
            rows = session.execute(query.where(t.Conflict.gap.is_not(None)).order_by(t.Conflict.gap.desc())).all()
            ids = [case for case, answer in rows if not BROKEN[language].search(answer)]
            found |= {(language, theme): case for theme, case in zip(("light", "dark"), ids, strict=False)}
    return found


def sign_in(browser: Browser, address: str, language: str, theme: str) -> Page:
    context = browser.new_context(viewport=size_of(WIDE), color_scheme="dark" if theme == "dark" else "light", base_url=address)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto("/login")
    page.fill("#username", f"camera-{language}-{theme}")
    page.fill("#password", PASSWORD)
    page.click("button")
    page.locator("[data-testid='stMain'] h2").first.wait_for()
    return page


def size_of(size: tuple[int, int]) -> ViewportSize:
    return {"width": size[0], "height": size[1]}


def open_page(page: Page, path: str) -> None:
    """Open `path` and wait until it stands still."""
    page.goto(f"/{path}")
    page.locator("[data-testid='stMain'] h2").first.wait_for()
    page.wait_for_timeout(4000)


def photograph_desk(page: Page, camera: Camera, case: int) -> None:
    """A case before the verdict and after it: rules and teacher are told."""
    open_page(page, f"desk?case={case}")
    page.locator(".cd[data-stage='blind']").wait_for()
    camera(page, "desk")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.locator(".cd[data-stage='sign']").wait_for()
    page.wait_for_timeout(1500)
    camera(page, "desk-reveal", narrow=".cd-panel")


def photograph_bench(page: Page, camera: Camera, language: str) -> None:
    """Both answers of a blind pair before the vote, and what is told after it."""
    open_page(page, "bench")
    bench = page.frame_locator("iframe[src*='arena']")
    bench.locator("#bench-settings > button").click()
    for field, option in (("language", "中文" if language == "zh" else "English"), ("risk", "高" if language == "zh" else "high")):
        bench.locator(f"#bench-{field} input").click()
        bench.get_by_role("option", name=option).click()
        page.wait_for_timeout(500)
    bench.locator("#bench-settings > button").click()
    for _ in range(4):  # two small models often write the same: the picture is of two that differ
        bench.locator("#bench-next").click()
        page.wait_for_timeout(1500)
        bench.locator("#bench-run").click()
        bench.locator("#bench-stop:enabled").wait_for()
        bench.locator("#vote-1:enabled").wait_for()  # the first answer waits for the model server to load the base
        if bench.locator("#bench-answers .only, #bench-answers .changed").count():
            break
    page.wait_for_timeout(1000)
    camera(page, "bench", narrow="#bench-status")
    bench.locator("#vote-1").click()
    bench.locator(".bench-stats").wait_for()
    page.wait_for_timeout(1000)
    camera(page, "bench-told", wide="#bench-status", narrow="#bench-left")


class Camera:
    """Stores a page as NAME-LANGUAGE-THEME.png, in every size that is asked for."""

    def __init__(self, out: Path, suffix: str, sizes: Sequence[tuple[int, int]], wanted: Collection[str] = ()) -> None:
        self.out, self.suffix, self.sizes, self.wanted = out, suffix, sizes, wanted

    def __call__(self, page: Page, name: str, *, wide: str = "", narrow: str = "") -> None:
        """`wide` and `narrow` are selectors of what a picture of that size begins with, in the page or in its frame."""
        for size in self.sizes:
            target = self.out / f"{name}-{self.suffix}{'-narrow' if size == NARROW else ''}.png"
            if self.wanted and target.stem not in self.wanted:
                continue
            page.set_viewport_size(size_of(size))
            page.wait_for_timeout(800)
            page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
            part = narrow if size == NARROW else wide
            for frame in page.frames if part else ():
                if frame.locator(part).count():
                    frame.locator(part).first.evaluate("e => e.scrollIntoView({block: 'start'})")
                    page.evaluate("document.querySelector('[data-testid=stMain]').scrollBy(0, -70)")  # from under the bar
            page.wait_for_timeout(300)
            page.screenshot(path=target)
            shrink(target)
        page.set_viewport_size(size_of(WIDE))
        page.wait_for_timeout(1000)  # a decision counts only after the case was seen for a moment


def shrink(target: Path) -> None:
    """256 colours: a third of the size, and nothing lost on screens of text."""
    Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target, flush=True)


def photograph(browser: Browser, address: str, language: str, theme: str, case: int, options: argparse.Namespace) -> None:
    """Everything that is asked for in one language and theme. `case` is the one to decide on the desk."""
    suffix = f"{language}-{theme}"
    sizes = (WIDE, NARROW) if options.all or options.screens else (WIDE,)
    wanted = () if options.all or options.screens else [name for name in README if name.endswith(suffix)]
    if not (options.all or options.screens or wanted):
        return
    camera = Camera(options.out, suffix, sizes, wanted)
    page = sign_in(browser, address, language, theme)
    if options.all:
        for path in PAGES:
            open_page(page, path)
            camera(page, path or "home")
        return
    if options.screens or any(name.startswith("desk") for name in wanted):
        photograph_desk(page, camera, case)
    if options.screens or any(name.startswith("bench") for name in wanted):
        photograph_bench(page, camera, language)
    for name in wanted:
        if (path := README[name]) is not None:
            open_page(page, path)
            if path == "ask":
                page.locator("[data-testid='stMain'] textarea").first.fill("急性青光眼有哪些危险信号需要急诊？")
                page.keyboard.press("Control+Enter")
                page.wait_for_timeout(5000)
            camera(page, name.removesuffix(f"-{suffix}"))
    page.context.close()


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
        cases = disputed_cases()
        process, address = start(home)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"])
                for language in ("en", "zh"):
                    for theme in ("light", "dark"):
                        photograph(browser, address, language, theme, cases[language, theme], options)
                browser.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


if __name__ == "__main__":
    main()
