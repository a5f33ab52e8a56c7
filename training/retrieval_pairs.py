"""Question-passage pairs to train retrieval on: read from a folder in BEIR form, from a jsonl file, or from the team's own feedback.

    folder   corpus.jsonl[.gz] {_id, title, text}; train_pairs.jsonl[.gz] {query, pos, grade?, query_full?}
    file     jsonl[.gz] of {query, positive, negative?} (pairs or triplets; negative may be a list)

Invariant: the questions kept aside (chosen by a hash of their text and the seed, so the same in every run) occur in no training
pair in any wording. A pair with grade 0 or below is a known negative. Called by training.embedding and training.reranker.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.home import Home
from core.jobs.configs_embedding import PairsConfig


@dataclass(slots=True)
class Judged:
    """A question with its judged passages (id -> grade; 0 or below is a known negative) and longer wordings of it."""

    query: str
    grades: dict[str, float] = field(default_factory=dict)
    longer: set[str] = field(default_factory=set)

    @property
    def positives(self) -> list[str]:
        """Ids of relevant passages, best first."""
        return sorted((i for i, grade in self.grades.items() if grade > 0), key=lambda i: (-self.grades[i], i))

    @property
    def negatives(self) -> list[str]:
        return [i for i, grade in self.grades.items() if grade <= 0]


@dataclass(frozen=True, slots=True)
class Material:
    """`passages` is everything that can be found (id -> text); `train` and `held_out` share no question."""

    source: str
    passages: dict[str, str]
    train: list[Judged]
    held_out: list[Judged]


def read_material(config: PairsConfig, home: Home, feedback: Iterable[Judged] = (), shown: dict[str, str] | None = None) -> Material:
    """Everything that the config names; `feedback` are questions judged by use, over the passages `shown`.

    Raises UserError("embedding.no_pairs_file" / "embedding.bad_pairs" / "embedding.too_few_pairs").
    """
    passages: dict[str, str] = dict(shown or {})
    judged: dict[str, Judged] = {}
    if config.pairs:
        where = home.root / Path(config.pairs).expanduser()
        if not where.exists():
            raise UserError("embedding.no_pairs_file", path=where)
        try:
            for query, passage, text, grade, longer in _folder(where, passages) if where.is_dir() else _file(where):
                if text is not None:
                    passages.setdefault(passage, text)
                one = judged.setdefault(query, Judged(query))
                one.grades[passage] = max(grade, one.grades.get(passage, grade))
                if longer:
                    one.longer.add(longer)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError("embedding.bad_pairs", path=where, reason=f"{type(error).__name__}: {error}") from error
    for one in feedback:
        judged.setdefault(one.query, Judged(one.query)).grades.update(one.grades)
    known = [Judged(one.query, {i: g for i, g in one.grades.items() if i in passages}, one.longer) for _, one in sorted(judged.items())]
    return _split(config, [one for one in known if one.positives], passages)


def _split(config: PairsConfig, usable: list[Judged], passages: dict[str, str]) -> Material:
    order = sorted(usable, key=lambda one: hashlib.sha256(f"{config.seed}\0{one.query}".encode()).digest())
    if config.max_pairs:
        order = order[: config.max_pairs]
    num_held = min(config.max_eval, int(len(order) * config.eval_share))
    if num_held < 5 or len(order) - num_held < 10:
        raise UserError("embedding.too_few_pairs", num=len(order))
    held, train = order[:num_held], order[num_held:]
    return Material(Path(config.pairs).name if config.pairs else "feedback", passages, train, held)


def _folder(folder: Path, passages: dict[str, str]) -> Iterator[tuple[str, str, str | None, float, str]]:
    for row in _rows(_either(folder, "corpus.jsonl")):
        passages[str(row["_id"])] = "\n".join(part for part in (str(row.get("title") or ""), str(row["text"])) if part)
    for row in _rows(_either(folder, "train_pairs.jsonl")):
        yield str(row["query"]).strip(), str(row["pos"]), None, float(row.get("grade", 1)), str(row.get("query_full") or "")


def _file(path: Path) -> Iterator[tuple[str, str, str | None, float, str]]:
    for row in _rows(path):
        query = str(row["query"]).strip()
        sides = [(row.get("positive"), 1.0), (row.get("negative"), 0.0)]
        if not query or not row.get("positive"):
            raise ValueError("a row needs query and positive")
        for value, grade in sides:
            for text in value if isinstance(value, list) else [value] if value else []:
                yield query, hashlib.sha256(str(text).encode()).hexdigest()[:16], str(text), grade, ""


def _either(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError("embedding.no_pairs_file", path=folder / name)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
