"""Which pseudo-questions have earned their place: those that never let anything in, or let in what was wrong, are dropped. Pure.

Stats come from what people did with the passages shown (docs: the retrieval page writes the file):

    {"index": "guidelines", "version": 7, "num_questions": 900,
     "entries": {"12": {"num_hits": 4, "num_helpful": 1, "num_harmful": 3}}}

`num_hits`: how often the entry was the door of a passage shown; helpful and harmful as judged (clicked or confirmed; thumbs
down or a verdict against it). Entries that are not named had no hits. Called by training.index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError

#: before so many questions were asked, "never hit" says nothing
MIN_QUESTIONS = 200
#: so many judgements are needed before an entry counts as harmful
MIN_HARMFUL = 3


@dataclass(frozen=True, slots=True)
class EntryStats:
    num_hits: int = 0
    num_helpful: int = 0
    num_harmful: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """`version` is the index version the entry numbers belong to (they stay the same in its updates)."""

    index: str
    version: int
    num_questions: int
    entries: dict[int, EntryStats]


@dataclass(frozen=True, slots=True)
class Pruned:
    """Entry numbers to drop, by reason."""

    never_hit: list[int]
    harmful: list[int]


def prune(syn_entries: Iterable[int], stats: Stats) -> Pruned:
    """Entries with hits that were mostly wrong; and, once MIN_QUESTIONS were asked, those without a hit."""
    never_hit, harmful = list[int](), list[int]()
    for number in syn_entries:
        seen = stats.entries.get(number, EntryStats())
        if seen.num_harmful >= MIN_HARMFUL and seen.num_harmful > seen.num_helpful:
            harmful.append(number)
        elif seen.num_hits == 0 and stats.num_questions >= MIN_QUESTIONS:
            never_hit.append(number)
    return Pruned(never_hit, harmful)


def read_stats(path: Path) -> Stats:
    """Raises UserError("index.bad_stats")."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        entries = {int(number): EntryStats(**{k: int(v) for k, v in row.items()}) for number, row in raw["entries"].items()}
        return Stats(str(raw["index"]), int(raw["version"]), int(raw["num_questions"]), entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("index.bad_stats", path=path, reason=str(error)) from error
