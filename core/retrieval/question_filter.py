"""Which pseudo-questions are kept: those that find their own chunk in an index without pseudo-questions (Doc2Query--).

Gospodinov, MacAvaney and Macdonald (ECIR 2023, arXiv 2301.03266) drop what a relevance model finds unlikely; here the question
itself is the test, which costs one search and needs no second model. Called by training.index, training.doc2query and
benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from core.retrieval.index import Index

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
