"""Vectors remembered over a restart: an encoder that writes down what it has computed, in the run folder of the job.

    vectors/keys.bin     16 bytes per text: a hash of (is it a question, the text)
    vectors/rows.f32     its vector

Invariant: rows are written before keys, so a key always has its row. Called by training.index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core.retrieval.dense import Encoder, Vectors

KEY_BYTES = 16


class KeptVectors:
    """An encoder in front of `encoder` that computes no text twice, over all attempts of one job."""

    def __init__(self, encoder: Encoder, folder: Path, on_batch: Callable[[int], None]) -> None:
        """`on_batch(number of texts encoded)` is called after each batch is safe on disk, and may raise."""
        folder = folder / hashlib.sha256(f"{encoder.name}/{encoder.hash}/{encoder.dimension}".encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.hash, self.dimension = encoder.name, encoder.hash, encoder.dimension
        self._encoder, self._on_batch = encoder, on_batch
        self._keys_path, self._rows_path = folder / "keys.bin", folder / "rows.f32"
        self._keys_path.touch()
        self._rows_path.touch()
        keys = self._keys_path.read_bytes()
        num_rows = min(len(keys) // KEY_BYTES, self._rows_path.stat().st_size // (4 * self.dimension))
        for path, size in ((self._keys_path, KEY_BYTES), (self._rows_path, 4 * self.dimension)):
            with path.open("r+b") as file:
                file.truncate(num_rows * size)
        self._rows = {keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(num_rows)}

    def encode(self, texts: Sequence[str], *, is_query: bool) -> Vectors:
        keys = [hashlib.blake2b(text.encode(), digest_size=KEY_BYTES, key=b"q" if is_query else b"d").digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        if missing:
            self._write(list(missing), self._encoder.encode(list(missing.values()), is_query=is_query))
        known = np.memmap(self._rows_path, np.float32, "r", shape=(len(self._rows), self.dimension))
        return np.array(known[[self._rows[key] for key in keys]])

    def _write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        with self._rows_path.open("ab") as rows:
            rows.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        with self._keys_path.open("ab") as file:
            file.write(b"".join(keys))
        for key in keys:
            self._rows[key] = len(self._rows)
        self._on_batch(len(self._rows))
