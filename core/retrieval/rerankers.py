"""Rerankers by name: question and passages to scores, within a budget. `open_reranker(name)` is the one door.

    features    a learned combination of lexical and static-embedding signals: numpy, in any process (`rank_features`)
    cross       a cross-encoder of our own training: here in jobs, through the model server's /v1/rerank elsewhere

Passages are given in the order of the stage before and are scored in that order, in small lots; what is not reached within
`budget_ms` has no score (None), and `reranked` puts it behind the scored ones in its old order. So a late reranker costs quality,
never the answer. Called by `core.retrieval.search`, evaluation and training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from core.retrieval import model_server_door
from core.retrieval.encoders import Place, inference_dtype, is_place_here
from core.retrieval.rank_features import FeatureModel, read_feature_model
from core.retrieval.retrieval_models import get, weights_of

#: pairs of one forward pass of a cross-encoder: about 40 ms on one core
LOT = 8


class Reranker(Protocol):
    """`score` gives one number per passage, higher is better; None where the budget did not reach."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]: ...


def open_reranker(name: str, *, place: Place = "auto") -> Reranker:
    """The reranker of that name. Raises NotFound("embedding.no_such_model"), Unavailable("embedding.weights_missing" ...)."""
    row = get(name, "reranker")
    folder = weights_of(row)
    if row.form == "features":
        return FeatureReranker(name, row.content_hash, read_feature_model(folder))
    if is_place_here(place):
        limits = row.manifest
        return CrossReranker(name, row.content_hash, folder, float(limits.get("prior_weight", 0.0)), int(limits.get("max_length", 0)))
    return ServerReranker(name, row.content_hash)


def reranked(scores: Sequence[float | None]) -> list[int]:
    """Positions in the new order: scored ones by score (ties and the rest keep the old order), unscored ones behind them."""
    return sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0), i))


class FeatureReranker:
    """Signals and a small learned function over them. All passages or none: 30 take about as long as one lot of the other kind."""

    def __init__(self, name: str, content_hash: str, model: FeatureModel) -> None:
        self.name, self.hash, self._model = name, content_hash, model

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]:
        return list(self._model.score(query, passages, budget_ms=budget_ms))


class CrossReranker:
    """A cross-encoder in this process. `prior_weight` is what the old rank adds: weight / rank, chosen on tuning questions;
    longer pairs than `max_length` tokens are cut as in its training (0: the model's own limit)."""

    def __init__(self, name: str, content_hash: str, folder: Path, prior_weight: float, max_length: int = 0) -> None:
        self.name, self.hash, self.folder, self._prior, self._max_length = name, content_hash, folder, prior_weight, max_length
        self._model: Any = None

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None, first: int = 0) -> list[float | None]:
        """As `Reranker`; `first` is the place of the first passage in the list that it was cut from."""
        started = time.monotonic()
        scores: list[float | None] = [None] * len(passages)
        model = self.load()
        for start in range(0, len(passages), LOT):
            if budget_ms is not None and (time.monotonic() - started) * 1000 >= budget_ms:
                break
            lot = [(query, passage) for passage in passages[start : start + LOT]]
            found = model.predict(lot, batch_size=LOT, show_progress_bar=False, convert_to_tensor=True).float().tolist()
            for offset, value in enumerate(found):
                scores[start + offset] = float(value) + self._prior / (first + start + offset + 1)
        return scores

    def load(self) -> Any:
        """The model, loaded at first use."""
        if self._model is None:
            self._model = load_cross_encoder(self.folder)
            if self._max_length:
                self._model.max_length = self._max_length
        return self._model


class ServerReranker:
    """The same, computed by the model server."""

    def __init__(self, name: str, content_hash: str) -> None:
        self.name, self.hash = name, content_hash

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]:
        return model_server_door.rerank(self.name, query, passages, budget_ms)


def load_cross_encoder(folder: Path, *, for_training: bool = False, is_new: bool = False) -> Any:
    """float32 to train; scores are logits. `is_new` puts a fresh head on an encoder's weights. Never asks the hub."""
    import torch
    from sentence_transformers import CrossEncoder

    from core.home import current_home
    from core.policy import pick_device

    device = pick_device(current_home())
    dtype = torch.float32 if for_training else inference_dtype(device)
    return CrossEncoder(str(folder), device=device, model_kwargs={"dtype": dtype}, local_files_only=True, activation_fn=torch.nn.Identity())
