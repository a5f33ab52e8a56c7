"""Answers of any version, one way in: local weights through `core.policy`, a remote endpoint through its API.

A base stays loaded for all of its adapters. An endpoint is asked a few questions at a time; what is busy or breaks off is asked
again after a growing pause, and when it stays down the job ends with a sentence: a missing answer is never invented, and
what was stored is not asked again by the next attempt. Used by training.evaluate and training.predict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import Unavailable, UserError
from core.home import Home
from core.model_client import astream_chat
from core.policy import Policy, VersionFiles, version_files
from core.records import Message, VersionKind
from db import tables as t
from db.engine import read_session
from training.causal import num_parameters, prepare

#: questions that an endpoint is asked at once
CONCURRENCY = 4
#: seconds before an endpoint is asked again
PAUSES_S = (1.0, 4.0, 15.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version wrote; `finish_reason` is stop or length."""

    text: str
    finish_reason: str


class Answerers:
    """Holds the base in memory while versions take turns. One per job."""

    def __init__(self, home: Home, versions: Sequence[t.ModelVersion], seed: int) -> None:
        """Raises what `core.policy.version_files` raises, before anything is loaded."""
        self._home, self._seed = home, seed
        with read_session() as session:
            self._files: dict[str, VersionFiles] = {
                v.name: version_files(session, home, v) for v in versions if v.kind != VersionKind.EXTERNAL
            }
        self._policy: Policy | None = None
        self._base = ""

    def answer(
        self,
        version: str,
        chats: Sequence[Sequence[Message]],
        keys: Sequence[int],
        *,
        temperature: float,
        max_new_tokens: int,
        batch_size: int,
    ) -> list[Answer]:
        """One answer per chat. A local answer depends on the seed and its key only, never on its neighbours.

        Raises UserError("bench.too_long") and what `core.model_client` raises for an endpoint.
        """
        if not chats:
            return []
        if version not in self._files:
            return asyncio.run(self._ask_all(version, chats, keys, temperature, max_new_tokens))
        files = self._files[version]
        policy = self._load(files.base)
        if files.adapter is not None and version not in policy.adapters:
            policy.add_adapter(version, files.adapter)
        adapter = None if files.adapter is None else version
        found: dict[int, Answer] = {}
        for rows, limit in self._by_room(policy, chats, max_new_tokens):
            generated = policy.generate(
                [chats[i] for i in rows],
                adapter=adapter,
                temperature=temperature,
                max_new_tokens=limit,
                seed=self._seed,
                batch_size=batch_size,
                row_keys=[keys[i] for i in rows],
            )
            found |= {i: Answer(g.text, g.finish_reason) for i, g in zip(rows, generated, strict=True)}
        return [found[i] for i in range(len(chats))]

    @staticmethod
    def _by_room(policy: Policy, chats: Sequence[Sequence[Message]], max_new_tokens: int) -> list[tuple[list[int], int]]:
        """Rows that may write as much as asked, together; then each that has less room in the model's context, with what it has.

        Raises UserError("bench.too_long") for a chat that leaves no room at all.
        """
        context = getattr(policy.model.config, "max_position_embeddings", None) or 1 << 30
        room = [int(context) - len(policy.encode(chat)) for chat in chats]
        if min(room, default=1) < 1:
            raise UserError("bench.too_long")
        roomy = [i for i, left in enumerate(room) if left >= max_new_tokens]
        return [*([(roomy, max_new_tokens)] if roomy else []), *(([i], left) for i, left in enumerate(room) if left < max_new_tokens)]

    def _load(self, base: str) -> Policy:
        if self._policy is None or self._base != base:
            self._policy = None  # the old base leaves memory before the new one comes
            self._policy, self._base = Policy.load(self._home, base), base
            prepare(self._home, self._seed, num_parameters(self._policy.model))
        return self._policy

    async def _ask_all(
        self, version: str, chats: Sequence[Sequence[Message]], keys: Sequence[int], temperature: float, max_new_tokens: int
    ) -> list[Answer]:
        gate = asyncio.Semaphore(CONCURRENCY)

        async def one(chat: Sequence[Message], key: int) -> Answer:
            async with gate:
                return await _ask(version, chat, temperature, (self._seed * 1_000_003 + key) % 2**31, max_new_tokens)

        return list(await asyncio.gather(*(one(chat, key) for chat, key in zip(chats, keys, strict=True))))


async def _ask(version: str, chat: Sequence[Message], temperature: float, seed: int, max_new_tokens: int) -> Answer:
    for pause in (*PAUSES_S, None):
        try:
            text, finish_reason = "", "stop"
            async for delta in astream_chat(version, chat, temperature=temperature, seed=seed, max_new_tokens=max_new_tokens):
                text += delta.text
                finish_reason = delta.finish_reason or finish_reason
            return Answer(text, finish_reason)
        except Unavailable as error:
            if pause is None or error.code == "bench.endpoint_refused":  # a wrong key stays wrong
                raise
            await asyncio.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
