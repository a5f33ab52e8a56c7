"""Milvus as an engine: one collection, a sparse vector with our BM25 weights and a dense vector, both by inner product.

Milvus' own BM25 function is not used: it has its own analyser, and its idf is that of a segment, so that what was put last
ranks last (measured with milvus-lite). Our weights make it a plain dot product. The library is loaded when a Milvus is asked
for the first time; it is no part of the ordinary installation (requirements-scale.txt). Only milvus-lite was run here, as a double.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from core.errors import UserError
from core.retrieval.dense import FLAT_LIMIT, Vectors
from core.retrieval.engines.base import MOST_HITS, EngineDown, Found, Row, Spec, Term
from core.retrieval.engines.bm25 import sparse_of, sparse_question

T = TypeVar("T")
#: graph of the dense index above FLAT_LIMIT entries
HNSW = {"M": 16, "efConstruction": 200}


class MilvusEngine:
    """See `core.retrieval.engines.base.Engine`. `uri` is that of a server, or a file for milvus-lite in tests."""

    name = "milvus"

    def __init__(self, uri: str, token: str = "", *, timeout_s: float = 2.0) -> None:
        """Raises UserError("engines.no_library") when pymilvus is not installed. Connects when first used."""
        try:
            import pymilvus
        except ImportError as error:
            raise UserError("engines.no_library", engine=self.name, library="pymilvus") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback for each fault that we turn into a sentence
        self._library: Any = pymilvus
        self._uri, self._token, self._timeout_s = uri, token, timeout_s
        self._client: Any = None

    def health(self) -> dict[str, Any]:
        return {"version": str(self._do(lambda c: c.get_server_version(timeout=self._timeout_s)))}

    def create(self, collection: str, spec: Spec) -> None:
        if not self.exists(collection):
            self._do(lambda client: self._create(client, collection, spec))

    def exists(self, collection: str) -> bool:
        return bool(self._do(lambda c: c.has_collection(collection, timeout=self._timeout_s)))

    def put(self, collection: str, spec: Spec, rows: Sequence[Row]) -> None:
        data = [self._row(row, spec) for row in rows]
        self._do(lambda c: c.upsert(collection, data, timeout=10 * self._timeout_s))

    def delete(self, collection: str, numbers: Sequence[int]) -> None:
        if numbers:
            self._do(lambda c: c.delete(collection, ids=list(numbers), timeout=10 * self._timeout_s))

    def settle(self, collection: str) -> None:
        self._do(lambda c: c.flush(collection))
        self._do(lambda c: c.load_collection(collection))

    def count(self, collection: str) -> int:
        [row] = self._do(lambda c: list(c.query(collection, filter="", output_fields=["count(*)"], timeout=10 * self._timeout_s)))
        return int(row["count(*)"])

    def lexical(self, collection: str, terms: Sequence[Term], limit: int) -> Found:
        vector = sparse_question(terms)
        parameters = {"metric_type": "IP", "params": {"drop_ratio_search": 0.0}}
        return self._search(collection, "lexical", vector, limit, parameters) if vector else []

    def dense(self, collection: str, vector: Vectors, limit: int) -> Found:
        parameters = {"metric_type": "IP", "params": {"ef": max(64, min(limit, MOST_HITS))}}
        return self._search(collection, "dense", vector.astype("float32").ravel().tolist(), limit, parameters)

    def drop(self, collection: str) -> None:
        if self.exists(collection):
            self._do(lambda c: c.drop_collection(collection))

    def _search(self, collection: str, field: str, vector: Any, limit: int, parameters: dict[str, Any]) -> Found:
        limit = min(limit, MOST_HITS)
        [hits] = self._do(
            lambda c: c.search(
                collection,
                data=[vector],
                anns_field=field,
                limit=limit,
                search_params=parameters,
                output_fields=["id"],
                timeout=self._timeout_s,
            )
        )
        return [(int(hit["id"]), float(hit["distance"])) for hit in hits]

    def _create(self, client: Any, collection: str, spec: Spec) -> None:
        kinds = self._library.DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("lexical", kinds.SPARSE_FLOAT_VECTOR)
        indexes = client.prepare_index_params()
        indexes.add_index("lexical", index_type="SPARSE_INVERTED_INDEX", metric_type="IP", params={"drop_ratio_build": 0.0})
        if spec.dimension:
            schema.add_field("dense", kinds.FLOAT_VECTOR, dim=spec.dimension)
            is_small = spec.num_entries <= FLAT_LIMIT
            indexes.add_index("dense", index_type="FLAT" if is_small else "HNSW", metric_type="IP", params={} if is_small else HNSW)
        client.create_collection(collection, schema=schema, index_params=indexes, timeout=10 * self._timeout_s)

    def _row(self, row: Row, spec: Spec) -> dict[str, Any]:
        made: dict[str, Any] = {"id": row.number, "lexical": sparse_of(row, spec)}
        if row.vector is not None:
            made["dense"] = row.vector.astype("float32").tolist()
        return made

    def _do(self, ask: Callable[[Any], T]) -> T:
        """Ask the server; every fault becomes EngineDown. gRPC's own errors and Python's time-outs pass through the library as they are."""
        import grpc

        try:
            if self._client is None:
                self._client = self._library.MilvusClient(uri=self._uri, token=self._token, timeout=self._timeout_s)
            return ask(self._client)
        except (self._library.MilvusException, grpc.RpcError, grpc.FutureTimeoutError, OSError, ValueError) as error:
            raise EngineDown(self.name, error) from error
