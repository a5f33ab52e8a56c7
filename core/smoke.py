"""The smoke set: ten fixed questions that a version must answer through the very server that people will use.

It asks whether a version speaks at all: the weights load, an answer comes in time, it is neither empty nor one phrase over and over.
Whether an answer is right was measured before, by evaluation and gates. Any fault of the server fails the set; of the answers
at most `MAX_POOR` may be poor, half of them for a toy, which knows few words outside its world. Called by core.promotion.
"""

from __future__ import annotations

import hashlib
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from core.completions import split_completion
from core.errors import Unavailable, UserError
from core.model_client import server_is_up, stream_chat
from core.models import get_version
from core.records import Message, VersionKind
from core.retrieval.tokens import tokenise
from core.settings import ROOT
from db.engine import read_session

MAX_POOR, MAX_POOR_TOY = 2, 5
MAX_NEW_TOKENS = 160
AT_ONCE = 5
#: an answer this long whose word pairs are mostly repeats goes round in circles
LONG, MIN_DISTINCT = 60, 0.25

EMPTY, CIRCLES = "empty", "circles"


@dataclass(frozen=True, slots=True)
class SmokeAnswer:
    """One question. `problem` is "" for a good answer, "empty", "circles", or the code of the error that came instead."""

    question: str
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Smoke:
    """The set, asked once. `set_hash` tells which questions they were."""

    version: str
    set_hash: str
    answers: tuple[SmokeAnswer, ...]
    max_poor: int = MAX_POOR

    @property
    def num_failed(self) -> int:
        return sum(bool(a.problem) for a in self.answers)

    @property
    def has_passed(self) -> bool:
        is_broken = any(a.problem not in ("", EMPTY, CIRCLES) for a in self.answers)
        return not is_broken and self.num_failed <= self.max_poor

    def as_record(self) -> dict[str, Any]:
        """As stored with the serving event and in the audit chain."""
        return {**asdict(self), "answers": [asdict(a) for a in self.answers], "has_passed": self.has_passed}


@lru_cache(maxsize=1)
def questions() -> tuple[tuple[str, ...], str]:
    """The ten questions and the hash of their file."""
    data = (ROOT / "assets" / "smoke.toml").read_bytes()
    return tuple(q["text"] for q in tomllib.loads(data.decode())["question"]), hashlib.sha256(data).hexdigest()


def check_server(version: str) -> None:
    """Raise Unavailable("models.server_down") when the local model server, which would have to answer, does not."""
    with read_session() as session:
        is_local = get_version(session, version).kind != VersionKind.EXTERNAL
    if is_local and not server_is_up():
        raise Unavailable("models.server_down", name=version)


def run_smoke(version: str) -> Smoke:
    """Ask the whole set; never raises for what the server or the endpoint does."""
    texts, digest = questions()
    with read_session() as session:
        limit = MAX_POOR_TOY if get_version(session, version).is_toy else MAX_POOR
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Smoke(version, digest, tuple(pool.map(lambda text: _ask(version, text), texts)), limit)


def _ask(version: str, text: str) -> SmokeAnswer:
    started = time.monotonic()
    try:
        pieces = stream_chat(version, [Message("user", text)], temperature=0.0, seed=0, max_new_tokens=MAX_NEW_TOKENS)
        answer = split_completion("".join(pieces)).answer
    except UserError as error:
        return SmokeAnswer(text, error.code, round(time.monotonic() - started, 3))
    return SmokeAnswer(text, _problem(answer), round(time.monotonic() - started, 3))


def _problem(answer: str) -> str:
    if not answer.strip():
        return EMPTY
    words = tokenise(answer)
    pairs = list(pairwise(words))
    return CIRCLES if len(pairs) >= LONG and len(set(pairs)) / len(pairs) < MIN_DISTINCT else ""
