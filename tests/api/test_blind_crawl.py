"""Before the vote on a blind pair, nothing that its voter can fetch tells which version stands where, how long it took, or what it thought.

Every GET route of the API and of Gradio is fetched before the pair is made and again when both answers are complete: what was
added must hold neither version's name, no time and no thinking.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from core import accounts
from core.preference import Ballot, Decoding, Produced, cast, close_pair, open_pair, reveal
from core.records import Vote
from db.engine import write_session
from tests import factories
from tests.api.test_guard import routes

NAMES = ("aspen-release-4", "birch-release-5")
THOUGHTS = ("they may have glaucoma", "they may have migraine")
SECONDS = (3.1875, 7.4375)
#: streams of events that do not end without a running call, the way out, and files of the program
LEFT_OUT = re.compile(r"heartbeat|queue/data|dev/reload|upload_progress|/stream/|/call/|/logout|/arena/(static|assets|svelte)|/assets/web")


def crawl(client: TestClient, cookie: str, ids: list[int]) -> dict[str, str]:
    """Path -> body of every GET route, with each of `ids` where a route wants a number or a name."""
    found = {}
    assert isinstance(client.app, FastAPI)
    for path in sorted(set(routes(client.app))):
        if LEFT_OUT.search(path):
            continue
        for value in ids if "{" in path else ids[:1]:
            filled = "".join(
                part if n % 2 == 0 else str(value) for n, part in enumerate(path.replace("{", "\0").replace("}", "\0").split("\0"))
            )
            answer = client.get(filled, headers={"cookie": cookie})
            if answer.status_code != 405:
                found[filled] = answer.text
    return found


@pytest.mark.parametrize("role", ["product", "engineer"])
def test_nothing_fetched_before_the_vote_tells_who_is_who(client: TestClient, person: Callable[..., str], role: str) -> None:
    cookie = person(role)
    with write_session() as session:
        for name in NAMES:
            factories.version(session, "sft", name=name)
        sample = factories.sample(session).id
    user = accounts.find_user(role)
    before = crawl(client, cookie, [1, 2, sample])
    pair = open_pair(user, *NAMES, sample, mode="blind", decoding=Decoding(0.2, 7, 64))
    sides = [
        Produced(f"<think>{thought}</think>Please see an eye doctor today.", "stop", seconds)
        for thought, seconds in zip(THOUGHTS, SECONDS, strict=True)
    ]
    assert close_pair(user, pair.id, *sides)
    after = crawl(client, cookie, [1, 2, sample, pair.id])
    assert len(after) > 40
    for path, body in after.items():
        for secret in (*THOUGHTS, *map(str, SECONDS)):
            assert secret not in body, f"{path} tells {secret}"
        for name in NAMES:
            assert body.count(name) == before.get(path, "").count(name), f"{path} speaks of {name} once more than before the pair"
    cast(user, pair.id, Ballot("key-1", Vote.LEFT))
    assert {reveal(user, pair.id).left.name, reveal(user, pair.id).right.name} == set(NAMES)
