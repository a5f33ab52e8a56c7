"""Both answers of a pair, streamed together: one merged flow of frames at a steady pace, then stored. Called by the bench.

In a blind pair a frame holds nothing that could name a version: no thinking, no times, and both texts grow at the pace of the
slower side. Closing the flow (the person left) closes both connections and voids the pair.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, field

from core import preference
from core.bench_sides import num_passages
from core.completions import split_completion
from core.errors import Unavailable, UserError
from core.lexicons import load_lexicons
from core.model_client import astream_chat
from core.notices import Notice, notices_of
from core.preference import Decoding, Pair, Produced
from core.records import Completion, Message, Prompt
from core.rules import score_rules

#: faster updates cost more than a reader gains
FRAME_S = 0.08
#: an unchanged frame is repeated this often, because only then the server notices that the browser has gone
IDLE_FRAME_S = 1.0
#: a side that is still writing after this long has failed
LIMIT_S = 300.0
#: the beginning of a `<think>` or `</think>` that has not fully arrived
HALF_TAG = re.compile(r"</?t?h?i?n?k?$")


@dataclass(frozen=True, slots=True)
class Shown:
    """One side of a frame. `seconds` and `thinking` stay empty in a blind pair; `error` is set when the side failed."""

    answer: str = ""
    thinking: str = ""
    is_done: bool = False
    seconds: float | None = None
    error: BaseException | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """What both columns show now. `state`: streaming, ready (votes are open) or void."""

    left: Shown
    right: Shown
    state: str
    elapsed_s: float


@dataclass(slots=True)
class _Side:
    name: str
    chats: Sequence[Sequence[Message]]
    #: which of `chats` is being answered
    attempt: int = 0
    parts: list[str] = field(default_factory=list)
    finish_reason: str = "stop"
    is_done: bool = False
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)


async def stream_pair(user_id: int, pair: Pair, decoding: Decoding) -> AsyncGenerator[Frame, None]:
    """Frames until both sides have ended; the last one is ready or void, with notices. Faults of a side are inside the frame."""
    started = time.monotonic()
    sides = (_Side(pair.left, pair.left_chats), _Side(pair.right, pair.right_chats))
    tasks = [asyncio.create_task(_fill(side, decoding)) for side in sides]
    is_closed = False
    try:
        shown, shown_at = None, 0.0
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=FRAME_S, return_when=asyncio.ALL_COMPLETED)
            now = time.monotonic()
            views = _views(sides, pair.mode == "blind")
            if views != shown or now - shown_at >= IDLE_FRAME_S:
                shown, shown_at = views, now
                yield Frame(*views, "streaming", now - started)
        for side, task in zip(sides, tasks, strict=True):
            side.error = side.error or task.exception()
        if any(side.error for side in sides):
            state = "void"
            await asyncio.to_thread(preference.void_pair, user_id, pair.id, _void_reason(sides))
        else:
            left, right = (_produced(side, pair) for side in sides)
            state = "ready" if await asyncio.to_thread(preference.close_pair, user_id, pair.id, left, right) else "void"
        is_closed = True
        left_view, right_view = _views(sides, pair.mode == "blind", pair.prompt)
        yield Frame(left_view, right_view, state, time.monotonic() - started)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not is_closed:
            await asyncio.to_thread(preference.void_pair, user_id, pair.id, "left")


def _produced(side: _Side, pair: Pair) -> Produced:
    num = num_passages(range(pair.num_evidence), side.attempt) if pair.num_evidence else None
    return Produced(side.text, side.finish_reason, side.seconds, num)


async def _fill(side: _Side, decoding: Decoding) -> None:
    """Collect one side's text. A fault that a person can mend is kept with the side; a bug stays in the task."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            await _first_that_fits(side, decoding)
        if not split_completion(side.text).answer:
            side.error = UserError("bench.empty_answer")
    except TimeoutError:
        side.error = Unavailable("bench.timeout")
    except UserError as error:
        side.error = error
    finally:
        side.seconds, side.is_done = time.monotonic() - started, True


async def _first_that_fits(side: _Side, decoding: Decoding) -> None:
    """Answer the first of the side's chats that the model has room for: with too many passages it is asked with fewer."""
    for attempt, chat in enumerate(side.chats):
        side.attempt = attempt
        try:
            async for delta in astream_chat(side.name, chat, **asdict(decoding)):
                side.parts.append(delta.text)
                side.finish_reason = delta.finish_reason or side.finish_reason
            return
        except UserError as error:
            if error.code != "bench.too_long" or side.parts or attempt == len(side.chats) - 1:
                raise


def _views(sides: tuple[_Side, _Side], is_blind: bool, prompt: Prompt | None = None) -> tuple[Shown, Shown]:
    """Both sides as they may be seen. With `prompt` (at the end) the safety notices are added."""
    completions = [split_completion(side.text if side.is_done else HALF_TAG.sub("", side.text), side.finish_reason) for side in sides]
    if not is_blind:
        first, second = (
            Shown(c.answer, c.thinking, s.is_done, s.seconds if s.is_done else None, s.error, _notices(prompt, s, c))
            for s, c in zip(sides, completions, strict=True)
        )
        return first, second
    are_done = all(side.is_done for side in sides)
    limit = min((len(c.answer) for s, c in zip(sides, completions, strict=True) if not s.is_done), default=None)
    first, second = (
        Shown(c.answer[:limit], "", are_done, None, s.error if are_done else None, _notices(prompt, s, c))
        for s, c in zip(sides, completions, strict=True)
    )
    return first, second


def _notices(prompt: Prompt | None, side: _Side, completion: Completion) -> tuple[Notice, ...]:
    if prompt is None or side.error is not None:
        return ()
    return notices_of(completion, score_rules(prompt, completion, load_lexicons()))


def _void_reason(sides: Sequence[_Side]) -> str:
    error = next(side.error for side in sides if side.error is not None)
    return error.code if isinstance(error, UserError) else type(error).__name__
