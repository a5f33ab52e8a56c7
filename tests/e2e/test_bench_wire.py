"""What the browser of a voter receives: nothing about who is who before the vote is stored, and no generation after Stop."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Error, Page, Response, WebSocket, expect
from sqlalchemy import select

from core.models import add_external
from core.standings import standings
from db import tables as t
from db.engine import read_session, write_session
from tests.bench.fake_endpoint import FakeEndpoint, serving
from tests.e2e.conftest import Site
from tests.e2e.test_bench import choose, count, open_bench

pytestmark = pytest.mark.browser

#: name of a version -> the model at the fake endpoint; names that occur nowhere else on the wire
VERSIONS = {"quiet-river": "good-1", "loud-hill": "slow-2", "endless-road": "hang-3", "endless-lake": "hang-4"}
THOUGHTS = ("secret-of-good", "Secret step of slow-2")
CALM = "Call 120 now"


#: copies what a page reads from a stream of events: Chromium keeps no body of those
TAP = """(() => { const real = window.fetch; window.streamed = '';
  window.fetch = async (...asked) => { const answer = await real(...asked);
    if ((answer.headers.get('content-type') || '').includes('event-stream')) {
      const reader = answer.clone().body.pipeThrough(new TextDecoderStream()).getReader();
      (async () => { for (;;) { const {done, value} = await reader.read(); if (done) return; window.streamed += value; } })(); }
    return answer; }; })()"""


class Wire:
    """Everything that comes in: frames of websockets, bodies of responses, streams of events."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.add_init_script(TAP)
        self.frames: list[str] = []
        self.responses: list[Response] = []
        page.on("websocket", self.listen)
        page.on("response", self.keep)

    def listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda data: self.frames.append(data if isinstance(data, str) else data.decode("utf-8", "replace")))

    def keep(self, response: Response) -> None:
        self.responses.append(response)

    def forget(self) -> None:
        self.frames.clear()
        self.responses.clear()
        for frame in self.page.frames:
            frame.evaluate("window.streamed = ''")

    def text(self) -> str:
        """Frames and bodies so far. A heartbeat never ends and a file of the program tells nothing: neither is read."""
        bodies = [str(frame.evaluate("window.streamed")) for frame in self.page.frames]
        for response in self.responses:
            if re.search("heartbeat|queue/data", response.url) or response.request.resource_type in (
                "script",
                "stylesheet",
                "font",
                "image",
                "document",
            ):
                continue
            try:
                bodies.append(response.text())
            except Error as error:  # a redirect has no body
                bodies.append(f"[{response.status} {response.url}: {error.message.splitlines()[0]}]")
        return "\n".join([*self.frames, *bodies])


@pytest.fixture(scope="module")
def endpoint(site: Site) -> Iterator[FakeEndpoint]:
    with serving() as found:
        with site.database():
            with read_session() as session:
                engineer = session.scalars(select(t.User.id).where(t.User.username == "engineer")).one()
            for name, model in VERSIONS.items():
                add_external(engineer, name=name, url=found.base, model=model, key_variable="")
        yield found


def newest_pair(site: Site) -> t.BenchPair:
    with site.database(), read_session() as session:
        return session.scalars(select(t.BenchPair).order_by(t.BenchPair.id.desc())).first() or pytest.fail("no pair was made")


def set_status(site: Site, pair_id: int, status: str) -> None:
    with site.database(), write_session() as session:
        session.get_one(t.BenchPair, pair_id).status = status


def test_nothing_on_the_wire_tells_who_is_who_until_the_vote_is_stored(
    site: Site, endpoint: FakeEndpoint, page: Page, new_page: Callable[..., Page], sign_in: Callable[..., Page]
) -> None:
    wire = Wire(page)
    frame = open_bench(page, sign_in)
    choose(frame, *list(VERSIONS)[:2])
    frame.locator("#bench-question textarea").fill("Chest pain and cold sweat, wired")
    page.wait_for_timeout(300)
    wire.forget()  # the names that a person chose from have come by then; the pair does not exist yet

    frame.locator("#bench-run").click()
    expect(frame.locator("#vote-1")).to_be_enabled()
    page.get_by_role("button", name="Tour").click()  # the page around the frame runs, too, and must not take the pair away
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="Skip").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(frame.locator("#vote-1")).to_be_enabled()
    pair = newest_pair(site)
    seconds = [pair.decoding[f"{side}_s"] for side in ("left", "right")]
    assert max(seconds) > 3 * min(seconds)  # one is slow, so that there is something to tell
    set_status(site, pair.id, "void")
    frame.locator("#vote-1").click()  # this vote cannot be stored
    expect(frame.locator("#bench-status .bench-error")).to_be_visible()
    before = wire.text()
    assert CALM in before
    assert len(wire.frames) > 1
    shown = [*THOUGHTS, *list(VERSIONS)[:2], *(f"{s:.3f}" for s in seconds), *(f">{s:.1f} s<" for s in seconds), "with_evidence"]
    assert [secret for secret in shown if secret in before] == []

    set_status(site, pair.id, "ready")
    votes, cases = count(site, t.BenchVote), count(site, t.SafetyCase)
    frame.locator("#vote-5").click()
    expect(frame.locator("#bench-answers .bench-head b").nth(1)).to_have_text(re.compile(r"^Answer A = (quiet-river|loud-hill)$"))
    after = wire.text()
    assert [secret for secret in (*THOUGHTS, *list(VERSIONS)[:2]) if secret not in after] == []
    assert (count(site, t.BenchVote), count(site, t.SafetyCase)) == (votes + 1, cases + 1)

    with site.database(), read_session() as session:
        case = session.scalars(select(t.Conflict).where(t.Conflict.completion_id == pair.left_completion_id)).one()
        answer = session.get_one(t.Completion, pair.left_completion_id).answer
    assert case.kind == "bench_safety"
    desk = sign_in(new_page(), "clinician", f"/desk?case={case.id}")
    expect(desk.locator(f".cd[data-case='{case.id}'][data-stage='blind']")).to_contain_text(answer.split(". ")[0])


def test_stop_ends_both_generations_and_leaves_nothing_half_stored(
    site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]
) -> None:
    frame = open_bench(page, sign_in, "engineer")
    choose(frame, "endless-road", "endless-lake")
    frame.locator("#bench-question textarea").fill("Chest pain that never ends")
    closed, completions = endpoint.num_closed, count(site, t.Completion)
    frame.locator("#bench-run").click()
    expect(frame.locator(".bench-answer").first).to_contain_text("Rest at home")
    frame.locator("#bench-stop").click()
    expect(frame.locator("#bench-status")).to_contain_text("Stopped")
    deadline = time.monotonic() + 10
    while (endpoint.num_closed < closed + 2 or newest_pair(site).status == "streaming") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert endpoint.num_closed == closed + 2
    pair = newest_pair(site)
    assert (pair.status, pair.left_completion_id, pair.right_completion_id) == ("void", None, None)
    assert count(site, t.Completion) == completions
    expect(frame.locator("#bench-answers")).not_to_contain_text("Rest at home")
    expect(frame.locator("#bench-answers")).not_to_contain_text("writing")
    expect(frame.locator("#vote-1")).to_be_disabled()
    expect(frame.locator("#bench-stop")).to_be_disabled()
    expect(frame.locator("#bench-run")).to_be_enabled()


def test_open_mode_names_both_shows_the_thinking_and_counts_for_nothing(
    site: Site, endpoint: FakeEndpoint, page: Page, sign_in: Callable[..., Page]
) -> None:
    frame = open_bench(page, sign_in, "engineer")
    choose(frame, *list(VERSIONS)[:2])
    frame.get_by_role("radio", name="Open (not counted)").click()
    frame.locator("#bench-question textarea").fill("Chest pain in the open")
    frame.locator("#bench-run").click()
    expect(frame.locator("#vote-1")).to_be_enabled()
    expect(frame.locator("#bench-left .bench-head b").first).to_have_text("quiet-river")
    expect(frame.locator("#bench-right .bench-head b").first).to_have_text("loud-hill")
    expect(frame.locator("#bench-left details")).to_contain_text(THOUGHTS[0])
    expect(frame.locator("#bench-onward")).to_be_enabled()
    with site.database(), read_session() as session:
        engineer = session.scalars(select(t.User.id).where(t.User.username == "engineer")).one()
    with site.database():
        before = standings(engineer, *list(VERSIONS)[:2])
    frame.locator("#vote-1").click()
    expect(frame.locator("#bench-status")).to_contain_text("Stored: 1 · A")
    page.keyboard.press("v")
    boxes: list[Any] = [frame.locator(f"#bench-{side}").bounding_box() or {} for side in ("left", "right")]
    assert boxes[0]["x"] > boxes[1]["x"]
    with site.database():
        assert standings(engineer, *list(VERSIONS)[:2]) == before
    assert newest_pair(site).mode == "open"
    assert count(site, t.BenchVote, t.BenchVote.pair_id == newest_pair(site).id) == 1
