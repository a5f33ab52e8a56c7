"""From a key to the next case painted, in a real Chromium: alone, and with 49 other readers deciding every four seconds.

    .venv/bin/python -m benchmarks.load.keys [--verdicts 200] [--others 49] [--cases 5000]

Two rulers inside the page, both from the time stamp of the key event that signs (Ctrl+Enter). `painted`: to the first task after the frame
in which another case was laid out and painted (an animation frame runs just before its paint, a message posted there arrives just after;
Chromium would hold that message back until the frame is on the screen, which is the other ruler, so that feature is off). `presented`: to
the frame on the screen, by the Event Timing interface, in steps of 8 ms: with the software compositor of a machine without a graphics card.
The others are tabs of `benchmarks.load.person`, in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from benchmarks.load.person import Person
from benchmarks.load.reviewers import percentiles, work
from benchmarks.load.site import Site, site

FLAGS = ("--no-sandbox", "--disable-background-networking", "--disable-gpu", "--disable-features=DeferRendererTasksAfterInput")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PERIOD_S = 4.0
PAUSE_MS = 560  # the desk takes no decision before a case was on screen for half a second
KEY_GAP_MS = 100  # between two keys of a quick typist; without it the frame of the first key is still being drawn at the second
CLOCK = """() => {
  window.painted = [];
  window.presented = [];
  const signed = new Set();
  new PerformanceObserver((list) => { for (const entry of list.getEntries())
    if (entry.name === 'keydown' && signed.delete(entry.startTime)) window.presented.push(entry.duration);
  }).observe({ type: 'event', durationThreshold: 16 });
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
      if (shown !== null && since !== null) {
        signed.add(since);
        requestAnimationFrame(() => afterPaint(() => window.painted.push(performance.now() - since)));
      }
      pressed = null;
      shown = now;
    }
  };
  new MutationObserver(look).observe(document.body, { subtree: true, attributes: true, childList: true, attributeFilter: ['data-case'] });
  look();
}"""


def others(
    where: Site,
    names: list[str],
    over: multiprocessing.synchronize.Event,
    ready: multiprocessing.synchronize.Event,
    told: multiprocessing.Queue[dict[str, float]],
) -> None:
    """The other readers, until `over`; then how much they did and how long their saves took."""

    async def all_of_them() -> None:
        people = [Person(where, name, seed) for seed, name in enumerate(names)]
        for person in people:
            await person.open()
        ready.set()
        began = time.monotonic()
        tasks = [asyncio.create_task(work(person, PERIOD_S, float("inf"))) for person in people]
        while not over.is_set():
            await asyncio.sleep(0.2)
            for task in tasks:
                if task.done():
                    task.result()
        took = time.monotonic() - began
        for task in tasks:
            task.cancel()
        seconds = [one for person in people for one in person.seconds]
        signed = sum(saved.stage == "sign" for person in people for saved in person.saved)
        told.put({"decisions_per_s": round(signed / took, 2), **{f"save_{k}": round(v) for k, v in percentiles(seconds).items()}})

    asyncio.run(all_of_them())


def judge(page: Page) -> None:
    """The blind verdict. Pressed again when a colleague's case gave way to another in that very moment: the desk ignores keys then."""
    for _ in range(20):
        page.keyboard.press("2")
        page.wait_for_timeout(KEY_GAP_MS)
        page.keyboard.press("Enter")
        try:
            page.locator(".cd[data-stage='sign']").wait_for(timeout=3000)
        except PlaywrightTimeout:
            continue
        return
    raise SystemExit("the desk takes no verdict")


def measure(page: Page, num: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `num` signatures by keyboard: until painted, until presented (those of 16 ms and more)."""
    page.evaluate(CLOCK)
    for _ in range(num):
        page.locator(".cd[data-stage='blind'][data-unsaved='0']").wait_for()
        page.wait_for_timeout(PAUSE_MS)
        judge(page)
        page.wait_for_timeout(PAUSE_MS)
        page.keyboard.press("1")
        page.wait_for_timeout(KEY_GAP_MS)
        page.keyboard.press("Control+Enter")
    page.wait_for_timeout(1000)
    return page.evaluate("window.painted"), page.evaluate("window.presented")


def summary(milliseconds: list[float]) -> dict[str, float]:
    figures = percentiles([ms / 1000 for ms in milliseconds])
    return {"n": len(milliseconds), **{name: round(value, 1) for name, value in figures.items()}}


def processor_seconds(process: psutil.Process) -> float:
    """Of a process and what it started."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


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
            browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
            context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=where.url)
            name, _, value = where.readers[mine].partition("=")
            context.add_cookies([{"name": name, "value": value, "url": where.url}])
            context.set_default_timeout(60_000)
            page = context.new_page()
            page.goto("/desk")
            page.keyboard.press("Escape")
            for who in ("alone", "with_others"):
                over, ready = multiprocessing.Event(), multiprocessing.Event()
                told: multiprocessing.Queue[dict[str, float]] = multiprocessing.Queue()
                crowd = multiprocessing.Process(target=others, args=(where, names, over, ready, told))
                if who == "with_others":
                    crowd.start()
                    ready.wait(300)
                watched = {"server": where.process.pid, "others": crowd.pid, "all": os.getpid()}
                processes = {name: psutil.Process(pid) for name, pid in watched.items() if pid}
                before, began = {name: processor_seconds(p) for name, p in processes.items()}, time.monotonic()
                painted, presented = measure(page, asked.verdicts)
                took = time.monotonic() - began
                shares = {name: round((processor_seconds(p) - before[name]) / took, 2) for name, p in processes.items()}
                result[who] = {"painted": summary(painted), "presented": summary(presented), "cores_used": shares}
                result[who]["load"] = psutil.getloadavg()[0]
                over.set()
                if crowd.pid:
                    result[who]["others"] = told.get(timeout=30)
                    crowd.join(30)
                    result[who]["others_exit_code"] = crowd.exitcode
                page.reload()
            browser.close()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
