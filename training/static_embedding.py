"""A static embedding from scratch: which tokens it knows, random vectors weighted by rarity, and training as a StaticEmbedding.

sentence-transformers' `StaticEmbedding` (an embedding bag, mean of the token vectors) is trained on our own tokens: texts are cut
by `core.retrieval.static_vectors.static_tokens` and joined by spaces, and its tokenizer only looks words up. So what is trained
here is what numpy computes at search time, to the rounding of float16 (a test compares). Called by training.embedding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from core.retrieval.static_vectors import static_tokens

#: a token of a single text cannot relate texts
MIN_TEXTS = 2


def choose_tokens(texts: Iterable[str], max_tokens: int) -> tuple[list[str], np.ndarray]:
    """The commonest tokens that stand in at least MIN_TEXTS texts, and their inverse document frequencies (float32)."""
    num_texts, frequency = 0, Counter[str]()
    for text in texts:
        num_texts += 1
        frequency.update(set(static_tokens(text)))
    known = [(token, n) for token, n in sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:max_tokens] if n >= MIN_TEXTS]
    return [token for token, _ in known], np.array([math.log((num_texts + 1) / (n + 0.5)) for _, n in known], np.float32)


def untrained_vectors(idf: np.ndarray, dimension: int, seed: int) -> np.ndarray:
    """(tokens, dimension): random directions whose length is the token's rarity. A mean of them is a random projection of TF-IDF,
    so cosine already means something before any training; it is the baseline that training has to beat."""
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((len(idf), dimension)).astype(np.float32) / math.sqrt(dimension)
    return np.asarray(directions * idf[:, None], np.float32)


def as_sentence_transformer(tokens: Sequence[str], vectors: np.ndarray) -> Any:
    """A SentenceTransformer of one StaticEmbedding that reads texts as `spaced` writes them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({token: row for row, token in enumerate(tokens)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu")


def spaced(texts: Iterable[str], known: frozenset[str]) -> list[str]:
    """Each text as its known tokens with spaces between (a text without any stays empty: a zero vector)."""
    return [" ".join(token for token in static_tokens(text) if token in known) for text in texts]


def trained_vectors(model: Any) -> np.ndarray:
    """The token vectors of the model, float32."""
    return np.asarray(model[0].embedding.weight.detach().cpu().numpy(), np.float32)


def halves(text: str) -> tuple[str, str] | None:
    """A passage as two halves cut at a sentence end near its middle, or None when it is too short to be cut."""
    middle = len(text) // 2
    if len(text) < 24:
        return None
    ends = [i + 1 for i, c in enumerate(text) if c in "。！？；，.!?;\n" and 8 <= i + 1 <= len(text) - 8]
    cut = min(ends, key=lambda i: abs(i - middle), default=middle)
    return text[:cut], text[cut:]
