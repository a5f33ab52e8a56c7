"""From a key to the next case painted, in a real Chromium: alone, and with 49 other readers deciding every four seconds.

    .venv/bin/python -m benchmarks.load.keys [--verdicts 200] [--others 49] [--cases 5000]

Measured inside the page: from the time stamp of the key event that signs (Ctrl+Enter) to the first task after the frame in which
another case was painted (an animation frame runs just before its paint, a message posted there arrives just after). The others are tabs of
`benchmarks.load.person`, in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.synchronize
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from benchmarks.load.person import Person
from benchmarks.load.reviewers import percentiles, work
from benchmarks.load.site import Site, site

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PERIOD_S = 4.0
PAUSE_MS = 560  # the desk takes no decision before a case was on screen for half a second
CLOCK = """() => {
  window.painted = [];
  const { port1, port2 } = new MessageChannel();
  const waiting = [];
  port1.onmessage = () => waiting.shift()();
  const afterPaint = (then) => { waiting.push(then); port2.postMessage(null); };
  let shown = null, pressed = null;
  addEventListener('keydown', (event) => { if (event.key === 'Enter' && event.ctrlKey) pressed = event.timeStamp; }, true);
  const look = () => {
    const desk = document.querySelector('.cd');
    const now = desk ? desk.dataset.case : null;
    if (now !== shown) {
      const since = pressed;
      if (shown !== null && since !== null) requestAnimationFrame(() => afterPaint(() => window.painted.push(performance.now() - since)));
      pressed = null;
      shown = now;
    }
  };
  new MutationObserver(look).observe(document.body, { subtree: true, attributes: true, childList: true, attributeFilter: ['data-case'] });
  look();
}"""


def others(where: Site, names: list[str], over: multiprocessing.synchronize.Event, ready: multiprocessing.synchronize.Event) -> None:
    """The other readers, until `over`."""

    async def all_of_them() -> None:
        people = [Person(where, name, seed) for seed, name in enumerate(names)]
        for person in people:
            await person.open()
        ready.set()
        tasks = [asyncio.create_task(work(person, PERIOD_S, float("inf"))) for person in people]
        while not over.is_set():
            await asyncio.sleep(0.2)
            for task in tasks:
                if task.done():
                    task.result()
        for task in tasks:
            task.cancel()

    asyncio.run(all_of_them())


def measure(page: Page, num: int) -> list[float]:
    """Milliseconds of `num` signatures by keyboard."""
    page.evaluate(CLOCK)
    for _ in range(num):
        page.locator(".cd[data-stage='blind'][data-unsaved='0']").wait_for()
        page.wait_for_timeout(PAUSE_MS)
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        page.locator(".cd[data-stage='sign']").wait_for()
        page.wait_for_timeout(PAUSE_MS)
        page.keyboard.press("1")
        page.keyboard.press("Control+Enter")
    page.wait_for_timeout(1000)
    found: list[float] = page.evaluate("window.painted")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=200)
    parser.add_argument("--others", type=int, default=49)
    parser.add_argument("--cases", type=int, default=5000)
    asked = parser.parse_args()
    path = next(p for p in map(shutil.which, BROWSERS) if p)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), num_cases=asked.cases, num_readers=asked.others + 1) as where:
        mine, *names = where.readers
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-background-networking"])
            context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=where.url)
            name, _, value = where.readers[mine].partition("=")
            context.add_cookies([{"name": name, "value": value, "url": where.url}])
            context.set_default_timeout(60_000)
            page = context.new_page()
            page.goto("/desk")
            page.keyboard.press("Escape")
            for who in ("alone", "with_others"):
                over, ready = multiprocessing.Event(), multiprocessing.Event()
                crowd = multiprocessing.Process(target=others, args=(where, names, over, ready))
                if who == "with_others":
                    crowd.start()
                    ready.wait(300)
                milliseconds = measure(page, asked.verdicts)
                figures = percentiles([ms / 1000 for ms in milliseconds])
                result[who] = {"n": len(milliseconds), **{k: round(v, 1) for k, v in figures.items()}, "load": psutil.getloadavg()[0]}
                over.set()
                if crowd.pid:
                    crowd.join(30)
                    result[who]["others_exit_code"] = crowd.exitcode
                page.reload()
            browser.close()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
