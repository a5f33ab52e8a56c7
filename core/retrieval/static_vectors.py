"""A static embedding: one vector per token of our own tokeniser, a text is the mean of its tokens. numpy only, in any process.

    static.json    format, tokeniser, dimension, number of tokens
    vocab.txt      one token per line; the line is its row
    vectors.npy    float16 (tokens, dimension)

Tokens are the two views of `core.retrieval.tokens` together: character pairs and single characters (words count once per
view). Unknown tokens are left out; a text without a known token is the zero vector, which is alike to nothing. Written by
training.embedding, read by `encoders`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from core.errors import Unavailable
from core.retrieval.tokens import singles, tokenise

FORMAT = 1
TOKENISER = "pairs+singles-1"
ABOUT, VOCABULARY, VECTORS = "static.json", "vocab.txt", "vectors.npy"
#: texts of which token vectors are gathered at once: bounds the memory
BLOCK = 64


def static_tokens(text: str) -> list[str]:
    """What a text consists of, for this model: both views of its tokens."""
    return tokenise(text) + singles(text)


class StaticVectors:
    """Opened weights. Safe between threads: nothing in it changes."""

    def __init__(self, tokens: Sequence[str], vectors: np.ndarray) -> None:
        self.row_of = {token: row for row, token in enumerate(tokens)}
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, dimension) float32, each row of length 1, or 0 where no token is known."""
        found = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), BLOCK):
            ids: list[int] = []
            lengths: list[int] = []
            for text in texts[start : start + BLOCK]:
                rows = [self.row_of[token] for token in static_tokens(text) if token in self.row_of]
                ids += rows
                lengths.append(len(rows))
            if ids:
                filled = np.flatnonzero(lengths)
                starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])[filled]
                found[start + filled] = np.add.reduceat(self.vectors[ids], starts, axis=0)
        return unit(found)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1 (float32); zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def write_static(folder: Path, tokens: Sequence[str], vectors: np.ndarray) -> None:
    """Write the three files; `vectors` (tokens, dimension) may be of any float type."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY).write_text("\n".join(tokens), encoding="utf-8")
    np.save(folder / VECTORS, vectors.astype(np.float16))
    about = {"format": FORMAT, "tokeniser": TOKENISER, "dimension": int(vectors.shape[1]), "num_tokens": len(tokens)}
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")


def read_static(folder: Path) -> StaticVectors:
    """Open a folder, once per process. Raises Unavailable("embedding.damaged") when its files do not fit together."""
    return _read(folder, (folder / VECTORS).stat().st_mtime_ns if (folder / VECTORS).is_file() else 0)


@lru_cache(maxsize=4)
def _read(folder: Path, _stamp: int) -> StaticVectors:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        tokens = (folder / VOCABULARY).read_text(encoding="utf-8").split("\n")
        vectors = np.load(folder / VECTORS, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Unavailable("embedding.damaged", path=folder) from error
    fits = vectors.shape == (len(tokens), about.get("dimension"))
    if not fits or (about.get("format"), about.get("tokeniser")) != (FORMAT, TOKENISER):
        raise Unavailable("embedding.damaged", path=folder)
    return StaticVectors(tokens, vectors)
