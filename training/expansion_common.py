"""What the expansion trainings and their evaluation share: chats, the grounding of the reward, and scores of finished answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import NotFound
from core.expansion import reward, schema
from core.expansion.grounding import Grounding, over_folder
from core.expansion.schema import Row
from core.home import Home
from core.records import Message

#: an answer that never ends costs its reader the whole latency budget; the rubric, which reads text, cannot see that
UNFINISHED_REWARD = 0.0


def chat(query: str) -> list[Message]:
    """The very messages that Ask sends."""
    return [Message(m["role"], m["content"]) for m in schema.prompt_messages(query)]


def target(row: Row) -> str:
    """What the model should write."""
    return schema.render(row.lines)


def open_grounding(home: Home, corpus: str) -> Grounding | None:
    """None without a corpus. Raises NotFound("expansion_training.no_such_corpus") and as `over_folder`."""
    if not corpus:
        return None
    return over_folder(corpus_folder(home, corpus))


def corpus_folder(home: Home, corpus: str) -> Path:
    folder = home.root / Path(corpus).expanduser()
    if not folder.is_dir():
        raise NotFound("expansion_training.no_such_corpus", path=corpus)
    return folder


def score(query: str, text: str, *, is_finished: bool, grounding: Grounding | None) -> tuple[float, reward.Score]:
    """The reward that GRPO learns from and evaluation reports, and the score behind it."""
    found = reward.score(query, text, grounding=grounding)
    return (found.reward if is_finished else UNFINISHED_REWARD), found


def valid_share(scores: Sequence[str]) -> float | None:
    """Share of lines with a valid prefix among all lines of the texts; None without a line."""
    parsed = [schema.parse_output(text) for text in scores]
    good, bad = sum(len(p.lines) for p in parsed), sum(len(p.bad) + len(p.empty) for p in parsed)
    return good / (good + bad) if good + bad else None
