"""Our lexical score, made of parts that any engine can hold: BM25(pairs) + 1.5 BM25(singles) as tantivy computes it.

BM25 is a sum over tokens of idf(token) * saturation(times in the entry, length of the entry). The second factor belongs to the
entry and stands in its sparse vector, the first to the question; so the score is a dot product and the same, to float precision,
wherever dot products are computed. Lengths are rounded as tantivy and Lucene round them (one byte, three bits of mantissa).

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with Lucene's idf and lengths. Pure;
called by the Milvus engine, the mover and `core.retrieval.engines.remote`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from core.retrieval.engines.base import VIEWS, Row, Spec, Term
from core.retrieval.lexical import SINGLES_WEIGHT
from core.retrieval.tokens import both_views, without_question_words

K1 = 1.2
B = 0.75
VIEW_WEIGHTS = (1.0, SINGLES_WEIGHT)
#: dimension of a sparse vector that no token has: engines refuse a vector without any
NOWHERE = 0


def _rounded_lengths() -> list[int]:
    """The 256 lengths that one byte can tell apart (Lucene's SmallFloat.intToByte4, tantivy's FIELD_NORMS_TABLE)."""
    lengths = list(range(24))
    for code in range(232):
        bits, shift = code & 7, (code >> 3) - 1
        lengths.append(24 + (bits if shift < 0 else (bits | 8) << shift))
    return lengths


LENGTHS = _rounded_lengths()


def rounded(length: int) -> int:
    """A length in tokens as it counts in the score: rounded down to one of LENGTHS."""
    return LENGTHS[bisect_right(LENGTHS, length) - 1]


def hashed(view: int, token: str, salt: bytes) -> int:
    """A token as a number in [1, 2^32 - 2]; two of a million tokens share one with probability 2e-4 each."""
    digest = hashlib.blake2b(token.encode(), digest_size=8, key=salt, person=VIEWS[view].encode()).digest()
    return 1 + int.from_bytes(digest, "big") % (2**32 - 2)


def row_of(number: int, text: str, salt: bytes) -> Row:
    """An entry's text as a row without a vector."""
    pairs, singles = ([hashed(view, token, salt) for token in tokens] for view, tokens in enumerate(both_views(text)))
    return Row(number, (tuple(pairs), tuple(singles)))


def terms_of(question: str, salt: bytes, idf: Callable[[str, str], float]) -> list[Term]:
    """The terms of a question; `idf` is asked with the view's name and the token. Empty without a searchable token."""
    views = both_views(without_question_words(question))
    return [
        Term(view, hashed(view, token, salt), VIEW_WEIGHTS[view] * times, idf(VIEWS[view], token))
        for view, tokens in enumerate(views)
        for token, times in Counter(tokens).items()
    ]


def sparse_of(row: Row, spec: Spec) -> dict[int, float]:
    """The sparse vector of an entry: token -> saturation. A token's number is that of one view only, so both share the vector."""
    vector: dict[int, float] = {}
    for tokens, mean in zip(row.tokens, spec.mean_lengths, strict=True):
        norm = K1 * (1 - B + B * rounded(len(tokens)) / mean) if mean else K1
        for token, times in Counter(tokens).items():
            vector[token] = vector.get(token, 0.0) + (K1 + 1) * times / (times + norm)
    return vector or {NOWHERE: 1.0}


def sparse_question(terms: Iterable[Term]) -> dict[int, float]:
    """The sparse vector of a question: token -> weight * idf."""
    vector: dict[int, float] = {}
    for term in terms:
        vector[term.token] = vector.get(term.token, 0.0) + term.weight * term.idf
    return vector


def mean_lengths(texts: Iterable[str]) -> tuple[float, float]:
    """Mean number of tokens of the texts in both views."""
    num, totals = 0, [0, 0]
    for text in texts:
        num += 1
        for view, tokens in enumerate(both_views(text)):
            totals[view] += len(tokens)
    return totals[0] / max(1, num), totals[1] / max(1, num)


def shortest(found: Sequence[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    """Best first; equal scores by number, as the own index gives them."""
    return sorted(found, key=lambda one: (-one[1], one[0]))[:limit]
