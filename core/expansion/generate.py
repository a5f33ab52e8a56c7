"""New rows: offline from judged folders and from what people opened in Ask, or by a teacher model over the chat API.

Whatever the source, a row is kept only when the rubric rates it at least MIN_RUBRIC and, where the passage is known and an index is
at hand, its lines find it again. Called by training.expansion_data and the CLI.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core.errors import UserError
from core.expansion import families, reward, schema
from core.expansion.grounding import Grounding
from core.expansion.offline import OfflineWriter, Pair
from core.expansion.schema import Row
from core.model_client import stream_chat
from core.records import Message
from core.retrieval.judged import read_corpus
from db import tables as t
from db.engine import read_session

#: a row below is not worth learning
MIN_RUBRIC = 0.6
#: grounding below this: the lines do not find their own passage
MIN_GROUNDED = 0.2
#: how often a teacher may try again
TRIES = 2

Progress = Callable[[int, int], None]


@dataclass
class Made:
    """Rows made, and how many were not, by reason: low_score, not_found, no_lines, invalid."""

    rows: list[Row] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


def from_folder(folder: Path, *, grounding: Grounding | None = None, limit: int = 0, on_progress: Progress | None = None) -> Made:
    """Rows from the training pairs of a folder in BEIR form; questions of its judged test set are never used.

    `limit` > 0 takes every n-th pair, so that all of the file is represented. Raises UserError("expansion.no_pairs" / "retrieval...").
    """
    passages = {d.file: f"{d.title} {d.text}".strip() for d in read_corpus(folder)}
    pairs = list(pairs_of(folder))
    if not pairs:
        raise UserError("expansion.no_pairs", path=folder)
    writer = OfflineWriter(passages, pairs)
    step = max(1, len(writer.pairs) // limit) if limit else 1
    numbers = list(range(0, len(writer.pairs), step))[: limit or None]
    return _kept(writer, numbers, folder.name, grounding, on_progress)


def from_clicks(*, limit: int = 0, on_progress: Progress | None = None) -> Made:
    """Rows from questions asked here, with the passages that people opened or said helped. Raises UserError("expansion.no_clicks")."""
    pairs: dict[tuple[str, str], Pair] = {}
    passages: dict[str, str] = {}
    with read_session() as session:
        found = session.execute(
            select(t.AskEvent, t.AskFeedback)
            .join(t.AskFeedback, t.AskFeedback.event_id == t.AskEvent.id)
            .where(t.AskFeedback.kind.in_(("opened", "helped")))
            .order_by(t.AskEvent.id)
        )
        for event, feedback in found:
            shown = next((c for c in event.contexts if c["rank"] == feedback.rank), None)
            if shown is None:
                continue
            document = str(shown.get("content_hash") or shown.get("parent"))
            passages[document] = f"{shown.get('title', '')} {shown['text']}".strip()
            pairs[(event.query, document)] = Pair(event.query, document)
    if not pairs:
        raise UserError("expansion.no_clicks")
    writer = OfflineWriter(passages, list(pairs.values()))
    return _kept(writer, list(range(len(writer.pairs)))[: limit or None], "clicks", None, on_progress)


def by_teacher(
    queries: Sequence[str],
    version: str,
    *,
    instruction: str = schema.DEFAULT,
    grounding: Grounding | None = None,
    journal: Path | None = None,
    on_progress: Progress | None = None,
) -> Made:
    """Rows written by a model version over the chat API, tried again when it does not keep the form or does not find its passage.

    `journal` keeps every query that is done, so that a job that breaks off and starts again asks, and pays, only for the others.
    Raises as `stream_chat`.
    """  # fmt: skip
    made, known = Made(), _journal(journal)
    for done, query in enumerate(queries, 1):
        output, refused = known[query] if query in known else _ask_teacher(query, version, instruction, grounding)
        if query not in known and journal:
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"query": query, "output": output, "refused": refused}, ensure_ascii=False) + "\n")
        if refused:
            made.refuse(refused)
        else:
            lines = schema.parse_output(output).lines
            made.rows.append(Row(query, lines, schema.language_of(query), None, f"teacher:{version}", done))
        if on_progress:
            on_progress(done, len(queries))
    return made


def _ask_teacher(query: str, version: str, instruction: str, grounding: Grounding | None) -> tuple[str, str]:
    """The first answer that is worth keeping, or the last and why it is not: invalid, low_score, not_found."""
    output = why = ""
    for attempt in range(TRIES + 1):
        messages = [Message(**message) for message in schema.prompt_messages(query, instruction)]
        output = "".join(stream_chat(version, messages, temperature=0.3, seed=attempt, max_new_tokens=300))
        scored = reward.score(query, output, grounding=grounding)
        is_lost = scored.grounded is not None and scored.grounded < MIN_GROUNDED
        why = "invalid" if scored.has_failed else "low_score" if scored.rubric < MIN_RUBRIC else "not_found" if is_lost else ""
        if not why:
            break
    return output, why


def _journal(path: Path | None) -> dict[str, tuple[str, str]]:
    """query -> (output, why it was refused) of an earlier attempt; a last line that was not written whole is left out."""
    if path is None or not path.is_file():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
    path.write_text("".join(lines), encoding="utf-8")
    return {row["query"]: (row["output"], row["refused"]) for row in map(json.loads, lines)}


def with_families(rows: Iterable[Row]) -> list[Row]:
    """Rows that name their family, so that it outlives a selection."""
    found = list(rows)
    groups = families.families(found)
    return [row if row.family else replace(row, family=f"query:{found[g].query}") for row, g in zip(found, groups, strict=True)]


def _kept(writer: OfflineWriter, numbers: Sequence[int], source: str, grounding: Grounding | None, on_progress: Progress | None) -> Made:
    made = Made()
    for done, i in enumerate(numbers, 1):
        row = writer.row(i)
        if row is None:
            made.refuse("no_lines")
        else:
            scored = reward.score(row.query, row.output, grounding=grounding)
            if scored.rubric < MIN_RUBRIC:
                made.refuse("low_score")
            elif scored.grounded is not None and scored.grounded < MIN_GROUNDED:
                made.refuse("not_found")
            else:
                made.rows.append(replace(row, source=f"corpus:{source}"))
        if on_progress and done % 200 == 0:
            on_progress(done, len(numbers))
    return made


def pairs_of(folder: Path) -> Iterator[Pair]:
    """Training pairs with the asker's other wording where the file has one, without questions of the test set."""
    test = {str(row["text"]) for row in _lines(folder, "queries")}
    for row in _lines(folder, "train_pairs"):
        if float(row.get("grade", 1)) > 0 and row["query"] not in test:
            full = str(row.get("query_full") or "")
            yield Pair(str(row["query"]), str(row["pos"]), (full,) if full and full != row["query"] else ())


def _lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    path = next((p for p in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if p.is_file()), None)
    if path is None:
        return
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                yield {**row, "query": row.get("query", ""), "pos": row.get("pos", ""), "text": row.get("text", "")}
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError("retrieval.bad_line", file=path.name, line=number) from error
