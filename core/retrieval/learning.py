"""From use to lessons: which passages were missed for which question, and what that adds to the index. Pure.

Confident negatives (a list that satisfied nobody while the passage wanted is known) give the missed passage new doors: the question
as it was asked, or what a writer makes of the passage. Confident positives are pairs for the reranker. Questions of the frozen set
never become doors or pairs, nor do questions in which a person can be recognised. Called by training.learn_retrieval and
benchmarks/retrieval_weeks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from core.retrieval.clicks import Evidence, Impression, Missed, estimate_examination, gather, missed_documents
from core.retrieval.entries import searchable
from core.retrieval.index import Index
from core.retrieval.judged import Unit, key_of
from core.retrieval.tokens import normalise

#: new doors of one chunk in one round: more would let one popular question take over a passage
MAX_NEW = 8
#: places looked through for the chunk of a passage that speaks most of the question
DEPTH = 200

Write = Callable[[Sequence[str]], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Lessons:
    """`missed` with the chunk that gets the door; `pairs` are (question, place, is_relevant), confident ones only."""

    missed: tuple[tuple[Missed, int], ...]
    pairs: tuple[tuple[str, str, bool], ...]
    evidence: Mapping[tuple[str, str], Evidence]
    examination: tuple[float, ...]


def lessons_of(index: Index, impressions: Sequence[Impression], unit: Unit, without: Collection[str] = ()) -> Lessons:
    """What the log teaches about `index`; questions in `without` (the frozen set) teach nothing."""
    examination = estimate_examination(impressions)
    evidence = gather(impressions, examination)
    frozen = {plain(text) for text in without}
    places = chunks_by_place(index, unit)
    found = []
    for one in missed_documents(impressions, evidence):
        if plain(one.query) not in frozen and one.passage in places:
            found.append((one, nearest(index, one.query, places[one.passage])))
    pairs = [
        (known.query, known.passage, known.is_positive)
        for known in evidence.values()
        if plain(known.query) not in frozen and (known.is_positive or known.is_negative)
    ]
    return Lessons(tuple(found), tuple(sorted(pairs)), evidence, tuple(examination))


def new_questions(
    index: Index, lessons: Lessons, *, write: Write | None = None, is_private: Callable[[str], bool] | None = None
) -> dict[int, list[str]]:
    """Chunk -> new doors: what was asked, then what `write` makes of the chunk's text; none that is there already.

    Each is a question with the chunk's own words behind it: alone, a short question also attracts everybody who asks for something like
    it (zhmedqa, one week of clicks: 19 frozen questions better and 12 worse alone, 20 and 4 with the passage).
    """
    asked: dict[int, list[str]] = {}
    for missed, number in lessons.missed:
        if is_private is None or not is_private(missed.query):
            asked.setdefault(number, []).append(missed.query)
    wanted = list(dict.fromkeys(number for _, number in lessons.missed))
    written = write([index.chunk(number).text for number in wanted]) if write and wanted else [()] * len(wanted)
    found = {}
    for number, more in zip(wanted, written, strict=True):
        known = {plain(entry.text.partition("\n")[0]) for entry in index.questions(number)}
        fresh: dict[str, str] = {}
        for text in (*asked.get(number, ()), *more):
            if plain(text) not in known:
                fresh.setdefault(plain(text), text)
        if fresh:
            passage = searchable(index.chunk(number))
            found[number] = [f"{text}\n{passage}" for text in list(fresh.values())[:MAX_NEW]]
    return found


def chunks_by_place(index: Index, unit: Unit) -> dict[str, list[int]]:
    """Judgements' names of places -> chunk numbers."""
    found: dict[str, list[int]] = {}
    for number, chunk in index.store.living():
        found.setdefault(key_of(chunk, unit), []).append(number)
    return found


def nearest(index: Index, query: str, numbers: Sequence[int]) -> int:
    """The chunk of a place that speaks most of the question; its first one when none does."""
    if len(numbers) == 1:
        return numbers[0]
    wanted = set(numbers)
    return next((found.parent for found in index.lexical(query, DEPTH, with_syn=False) if found.parent in wanted), numbers[0])


def plain(text: str) -> str:
    """A question by which repetitions are recognised."""
    return " ".join(normalise(text).split())
