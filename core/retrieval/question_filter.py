"""From written questions to entries: which questions are kept, and what is searched of them.

    alone          each question is an entry of its own, kept if it finds its own chunk in an index without questions
                   (Doc2Query--: Gospodinov, MacAvaney and Macdonald, ECIR 2023, arXiv 2301.03266, where a relevance model
                   judges; here the question itself is the test)
    with_passage   one entry per chunk: all its questions and its own words behind them (docTTTTTquery's expansion, beside the
                   plain chunk instead of in its place)
    with_words     as with_passage, but only the likeliest question, and the words that questions about this passage are
                   expected to hold (core.retrieval.question_words)

None is better everywhere: where people ask by name and topic (MedQuAD), short entries win by far; where a question shares
few words with its answer (Chinese consultations), short ones attract everybody else's questions and lose. The writer's trial
measures all (training.doc2query_trial; docs/benchmarks_doc2query.md). Called by training.index, training.doc2query, benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from core.retrieval.dense import Encoder
from core.retrieval.index import Index
from core.retrieval.question_words import QuestionWords

EntryForm = Literal["alone", "with_passage", "with_words"]
FORMS: tuple[EntryForm, ...] = ("alone", "with_passage", "with_words")
#: the chunk must be among so many
DEPTH = 10
#: questions encoded together, and after which progress is told
BATCH = 32


def finding_their_own(
    index: Index,
    questions: Mapping[int, Sequence[str]],
    depth: int = DEPTH,
    encoder: Encoder | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[int, list[str]]:
    """The questions (chunk number -> questions) that lead to their chunk: among the first `depth` chunks of either channel.

    Pseudo-questions that the index holds already do not count as finding. Chunks of which no question is left are not in the
    result. `on_progress` is told how many questions are done, and may raise.
    """
    kept: dict[int, list[str]] = {}
    pairs = [(number, question) for number, asked in questions.items() for question in asked]
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        vectors = encoder.encode([question for _, question in batch], is_query=True) if encoder else [None] * len(batch)
        for (number, question), vector in zip(batch, vectors, strict=True):
            found = {f.parent for f in index.lexical(question, depth, with_syn=False)}
            if number not in found and vector is not None:
                found = {f.parent for f in index.dense(vector, depth, with_syn=False)}
            if number in found:
                kept.setdefault(number, []).append(question)
        if on_progress:
            on_progress(start + len(batch))
    return kept


def with_passages(questions: Mapping[int, Sequence[str]], passages: Sequence[str] | Mapping[int, str]) -> dict[int, list[str]]:
    """One text per chunk that has questions: the questions in one line, then `passages[chunk number]`."""
    return {number: [f"{' '.join(texts)}\n{passages[number]}"] for number, texts in questions.items() if texts}


def with_words(
    questions: Mapping[int, Sequence[str]], words: QuestionWords, passages: Sequence[str] | Mapping[int, str]
) -> dict[int, list[str]]:
    """One text per chunk of `passages`: its first question, its expected words and the passage, a line each."""
    numbered = passages.items() if isinstance(passages, Mapping) else enumerate(passages)
    found = {}
    for number, passage in numbered:
        more = [*questions.get(number, ())[:1], words.of(passage)]
        if any(more):
            found[number] = ["\n".join([*filter(None, more), passage])]
    return found
