"""OpenSearch as an engine, over its REST interface: two text fields of hashed tokens, scored by Lucene's BM25, and a k-NN vector.

Lucene's BM25 with a whitespace analyser over our tokens is the score that tantivy computes (same k1, b, idf and one-byte lengths),
but for a constant factor: OpenSearch 2 keeps the k1 + 1 of the formula, 3 dropped it. The mover measures that factor.
`dfs_query_then_fetch` makes idf that of the whole index and not of a shard. Sparse `rank_features` would round every weight to nine
bits. Needs no library but httpx. No OpenSearch was run here (docs/scaling.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.retrieval.dense import Vectors
from core.retrieval.engines.base import MOST_HITS, VIEWS, EngineDown, Found, Row, Spec, Term
from core.retrieval.engines.bm25 import K1, B

LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: entries per shard: OpenSearch's advice is 10 to 30 GB a shard, and an entry of 1.5 kB makes that some ten million
PER_SHARD = 10_000_000


class OpenSearchEngine:
    """See `core.retrieval.engines.base.Engine`. `key` is "user:password" (basic), an API token (bearer), or "" for none."""

    name = "opensearch"

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 2.0) -> None:
        auth = httpx.BasicAuth(*key.split(":", 1)) if ":" in key else None
        headers = {"Authorization": f"Bearer {key}"} if key and auth is None else {}
        is_remote = urlsplit(url).hostname not in LOOPBACK
        self._client = httpx.Client(base_url=url.rstrip("/"), auth=auth, headers=headers, timeout=timeout_s, trust_env=is_remote)
        self._long_s = 10 * timeout_s

    def health(self) -> dict[str, Any]:
        version = self._ask("GET", "/").get("version", {})
        state = self._ask("GET", "/_cluster/health")
        return {"version": f"{version.get('distribution', '')} {version.get('number', '')}".strip(), "state": state.get("status", "")}

    def create(self, collection: str, spec: Spec) -> None:
        if self.exists(collection):
            return
        text = {"type": "text", "analyzer": "whitespace", "index_options": "freqs", "similarity": "ours"}
        fields: dict[str, Any] = dict.fromkeys(VIEWS, text)
        if spec.dimension:
            method = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
            fields["dense"] = {"type": "knn_vector", "dimension": spec.dimension, "method": method}
        settings = {
            "index": {
                "knn": spec.dimension is not None,
                "number_of_shards": 1 + spec.num_entries // PER_SHARD,
                "similarity": {"ours": {"type": "BM25", "k1": K1, "b": B}},
            }
        }
        body = {"settings": settings, "mappings": {"dynamic": False, "_source": {"enabled": False}, "properties": fields}}
        self._ask("PUT", f"/{collection}", body, timeout_s=self._long_s)

    def exists(self, collection: str) -> bool:
        return self._send("HEAD", f"/{collection}").status_code == 200

    def put(self, collection: str, spec: Spec, rows: Sequence[Row]) -> None:
        lines: list[Any] = []
        for row in rows:
            document: dict[str, Any] = {view: " ".join(f"{t:x}" for t in tokens) for view, tokens in zip(VIEWS, row.tokens, strict=True)}
            if row.vector is not None:
                document["dense"] = [round(float(x), 7) for x in row.vector]
            lines += [{"index": {"_id": str(row.number)}}, document]
        self._bulk(collection, lines)

    def delete(self, collection: str, numbers: Sequence[int]) -> None:
        self._bulk(collection, [{"delete": {"_id": str(number)}} for number in numbers])

    def settle(self, collection: str) -> None:
        self._ask("POST", f"/{collection}/_refresh", timeout_s=self._long_s)

    def count(self, collection: str) -> int:
        return int(self._ask("GET", f"/{collection}/_count")["count"])

    def lexical(self, collection: str, terms: Sequence[Term], limit: int) -> Found:
        clauses = [{"term": {VIEWS[term.view]: {"value": f"{term.token:x}", "boost": term.weight}}} for term in terms]
        return self._hits(collection, {"bool": {"should": clauses}}, limit) if clauses else []

    def dense(self, collection: str, vector: Vectors, limit: int) -> Found:
        """The k-NN plugin turns an inner product x into 1 + x, or 1 / (1 - x) below zero; here it is x again."""
        limit = min(limit, MOST_HITS)
        found = self._hits(collection, {"knn": {"dense": {"vector": [float(x) for x in vector.ravel()], "k": limit}}}, limit)
        return [(number, score - 1 if score >= 1 else 1 - 1 / score) for number, score in found]

    def drop(self, collection: str) -> None:
        if self.exists(collection):
            self._ask("DELETE", f"/{collection}")

    def _hits(self, collection: str, query: dict[str, Any], limit: int) -> Found:
        body = {"size": min(limit, MOST_HITS), "query": query, "_source": False, "track_total_hits": False}
        told = self._ask("POST", f"/{collection}/_search?search_type=dfs_query_then_fetch", body)
        if told.get("timed_out") or told.get("_shards", {}).get("failed"):
            raise EngineDown(self.name, "a shard did not answer")
        return [(int(hit["_id"]), float(hit["_score"])) for hit in told["hits"]["hits"]]

    def _bulk(self, collection: str, lines: Sequence[Any]) -> None:
        if not lines:
            return
        body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        told = self._read(self._send("POST", f"/{collection}/_bulk", body, timeout_s=self._long_s))
        bad = [
            item
            for one in told["items"]
            for action, item in one.items()
            if item["status"] >= 300 and (action, item["status"]) != ("delete", 404)
        ]
        if bad:
            raise EngineDown(self.name, f"{len(bad)} of {len(told['items'])} rows: {bad[0].get('error', bad[0]['status'])}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        return self._read(self._send(method, path, json.dumps(body) if body is not None else "", timeout_s=timeout_s))

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            told = response.json()
        except ValueError as error:
            raise EngineDown(self.name, f"HTTP {response.status_code}, not JSON") from error
        if response.is_error or not isinstance(told, dict):
            reason = told.get("error", {}) if isinstance(told, dict) else told
            raise EngineDown(self.name, f"HTTP {response.status_code} {reason.get('reason', '') if isinstance(reason, dict) else reason}")
        return told

    def _send(self, method: str, path: str, body: str = "", *, timeout_s: float | None = None) -> httpx.Response:
        kind = "application/x-ndjson" if path.endswith("_bulk") else "application/json"
        timeout = self._client.timeout if timeout_s is None else httpx.Timeout(timeout_s)
        content = body.encode() or None
        try:
            return self._client.request(method, path, content=content, headers={"Content-Type": kind}, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # without the cause: it may hold the request with its key
            raise EngineDown(self.name, f"{type(error).__name__} {error}") from None
