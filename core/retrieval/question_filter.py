"""From written questions to entries: which questions are kept, and what is searched of them.

    alone          each question is an entry of its own, kept if it finds its own chunk in an index without questions
                   (Doc2Query--: Gospodinov, MacAvaney and Macdonald, ECIR 2023, arXiv 2301.03266, where a relevance model
                   judges; here the question itself is the test)
    with_passage   one entry per chunk: all its questions and its own words behind them (docTTTTTquery's expansion, beside the
                   plain chunk instead of in its place)

Neither is better everywhere: where people ask by name and topic (MedQuAD), short entries win by far; where a question shares
few words with its answer (Chinese consultations), short ones attract everybody else's questions and lose. The writer's trial
measures both (training.doc2query_trial; docs/benchmarks_doc2query.md). Called by training.index, training.doc2query, benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from core.retrieval.index import Index

EntryForm = Literal["alone", "with_passage"]
#: the chunk must be among so many
DEPTH = 10
#: progress is told every so many chunks
STRIDE = 500


def finding_their_own(
    index: Index,
    questions: Mapping[int, Sequence[str]],
    depth: int = DEPTH,
    on_progress: Callable[[int], None] | None = None,
) -> dict[int, list[str]]:
    """The questions (chunk number -> questions) for which `index`, built without any, has that chunk among the first `depth`.

    Chunks of which none is left are not in the result. `on_progress` is told how many chunks are done.
    """
    kept: dict[int, list[str]] = {}
    for done, (number, texts) in enumerate(questions.items(), start=1):
        good = [text for text in texts if any(found.parent == number for found in index.lexical(text, depth))]
        if good:
            kept[number] = good
        if on_progress and (done % STRIDE == 0 or done == len(questions)):
            on_progress(done)
    return kept


def with_passages(questions: Mapping[int, Sequence[str]], passages: Sequence[str]) -> dict[int, list[str]]:
    """One text per chunk that has questions: the questions, then `passages[chunk number]`."""
    return {number: [f"{' '.join(texts)}\n{passages[number]}"] for number, texts in questions.items() if texts}
