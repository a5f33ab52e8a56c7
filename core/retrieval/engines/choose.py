"""The engine that a version's manifest names, reached as the settings say. One client per address, kept for the process."""

from __future__ import annotations

from functools import lru_cache

from core.errors import UserError
from core.retrieval.engines.base import KINDS, Engine
from core.retrieval.engines.milvus import MilvusEngine
from core.retrieval.engines.opensearch import OpenSearchEngine
from core.settings import Settings


def engine_of(settings: Settings, kind: str) -> Engine:
    """Raises UserError("engines.unknown" / "engines.no_address" / "engines.no_library")."""
    if kind not in KINDS:
        raise UserError("engines.unknown", kind=kind, kinds=", ".join(KINDS))
    url = settings.milvus_url if kind == "milvus" else settings.opensearch_url
    if not url:
        raise UserError("engines.no_address", engine=kind, setting=f"CONSILIUM_{kind.upper()}_URL")
    return _client(kind, url, settings.milvus_key if kind == "milvus" else settings.opensearch_key, settings.engine_timeout_s)


@lru_cache(maxsize=4)
def _client(kind: str, url: str, key: str, timeout_s: float) -> Engine:
    if kind == "milvus":
        return MilvusEngine(url, key, timeout_s=timeout_s)
    return OpenSearchEngine(url, key, timeout_s=timeout_s)
