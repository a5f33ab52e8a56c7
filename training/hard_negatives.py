"""Passages that the present search puts high and that are not the answer: what a model learns most from.

Candidates are those of the live search: the lexical index of `core.retrieval.index` and, once there is an encoder, its nearest
passages, fused by RRF. A candidate that the encoder finds nearly as close as the right passage (95 % of its cosine) is left out,
because it is probably a right answer that nobody judged (NV-Retriever: Moreira et al., 2024). Mining is repeated before every
round, since negatives mined once teach a model only what an older one got wrong. Called by training.embedding, training.reranker.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.retrieval.chunk import Chunk
from core.retrieval.dense import Encoder
from core.retrieval.fuse import rrf
from core.retrieval.index import Index, build_index, load_index
from training.embedding_measure import rank_all
from training.retrieval_pairs import Judged

DEPTH = 30
TOO_CLOSE = 0.95


def lexical_index(passages: Mapping[str, str], folder: Path) -> Index:
    """A lexical index over the passages, each whole; built once per folder. Chunk n is the n-th passage."""
    if not (folder / "manifest.json").is_file():
        build_index((Chunk(i, "", "", "", "", text, 0, len(text)) for i, text in passages.items()), folder)
    return load_index(folder)


def lexical_rankings(index: Index, queries: Sequence[str], ids: Sequence[str], depth: int = DEPTH) -> list[list[str]]:
    """Ids of the passages that the lexical leg finds for each question."""
    return [[ids[found.parent] for found in index.lexical(query, depth)] for query in queries]


def mine(
    asked: Sequence[Judged], passages: Mapping[str, str], index: Index, encoder: Encoder | None, num: int, seed: int
) -> list[list[str]]:
    """`num` ids per question: its known negatives, then the hardest found, then random passages where that is not enough."""
    ids = list(passages)
    rankings = lexical_rankings(index, [one.query for one in asked], ids)
    closeness: list[dict[str, float]] = [{} for _ in asked]
    if encoder is not None:
        vectors = encoder.encode([passages[i] for i in ids], is_query=False)
        questions = encoder.encode([one.query for one in asked], is_query=True)
        nearest = rank_all(questions, vectors, ids, DEPTH)
        rankings = [[i for i, _ in rrf([a, b])] for a, b in zip(rankings, nearest, strict=True)]
        place = {identity: row for row, identity in enumerate(ids)}
        for row, (one, found) in enumerate(zip(asked, rankings, strict=True)):
            wanted = [*found, *one.positives]
            values = vectors[[place[i] for i in wanted]] @ questions[row]
            closeness[row] = dict(zip(wanted, map(float, values), strict=True))
    generator = random.Random(seed)
    mined = []
    for one, found, close in zip(asked, rankings, closeness, strict=True):
        limit = TOO_CLOSE * max((close.get(i, 0.0) for i in one.positives), default=0.0)
        hard = [i for i in found if i not in one.grades and not (close and limit > 0 and close[i] > limit)]
        chosen = list(dict.fromkeys([*one.negatives, *hard]))[:num]
        while len(chosen) < num:
            other = generator.choice(ids)
            if other not in one.grades and other not in chosen:
                chosen.append(other)
        mined.append(chosen)
    return mined


def sample_passages(passages: Mapping[str, str], needed: set[str], limit: int, seed: int) -> dict[str, str]:
    """All `needed` passages and others up to `limit` in all, in their order: what an evaluation can afford to encode."""
    if len(passages) <= limit:
        return dict(passages)
    others = [i for i in passages if i not in needed]
    kept = needed | set(random.Random(seed).sample(others, max(0, min(len(others), limit - len(needed)))))
    return {i: text for i, text in passages.items() if i in kept}
