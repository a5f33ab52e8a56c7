"""A stand-in for OpenSearch behind its REST interface: the part that the engine uses, answered from memory.

Scores are Lucene's BM25 as its documentation has it (idf over the documents that have the field, one-byte lengths, no k1 + 1, as in
OpenSearch 3) and k-NN by brute force, turned into the plugin's scores. It is no OpenSearch: what it proves is the requests, the
reading of the answers and the behaviour under faults.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


def one_byte(length: int) -> int:
    """Lucene's SmallFloat.byte4ToInt(intToByte4(length))."""
    free = length - 24
    if free < 16:
        return length
    shift = free.bit_length() - 4
    return 24 + ((free >> shift) << shift)


class Double:
    """`delay_s` and `status` break it; `seen` are the requests as (method, path, body)."""

    def __init__(self) -> None:
        self.indexes: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.delay_s, self.status = 0.0, 200
        self.authorization: set[str] = set()
        double = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                double.seen.append((self.command, self.path, body))
                double.authorization.add(self.headers.get("Authorization", ""))
                time.sleep(double.delay_s)
                status, told = (
                    (double.status, {"error": {"reason": "broken"}}) if double.status != 200 else double.do(self.command, self.path, body)
                )
                data = b"" if self.command == "HEAD" else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

            def log_message(self, *_: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def do(self, method: str, path: str, body: str) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        name, _, verb = path.strip("/").partition("/")
        if path == "/":
            return 200, {"version": {"distribution": "double", "number": "0"}}
        if path == "/_cluster/health":
            return 200, {"status": "green"}
        if method == "PUT":
            self.indexes[name] = {"about": json.loads(body), "docs": {}, "shown": {}}
            return 200, {"acknowledged": True}
        if name not in self.indexes:
            return 404, {"error": {"type": "index_not_found_exception", "reason": f"no such index [{name}]"}}
        index = self.indexes[name]
        if method == "DELETE":
            del self.indexes[name]
        elif verb == "_bulk":
            return 200, {"errors": False, "items": list(self._bulk(index, body.splitlines()))}
        elif verb == "_refresh":
            index["shown"] = dict(index["docs"])
        elif verb == "_count":
            return 200, {"count": len(index["shown"])}
        elif verb == "_search":
            assert query == "search_type=dfs_query_then_fetch"
            return 200, {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": self._search(index, json.loads(body))}}
        return 200, {"acknowledged": True}

    def _bulk(self, index: dict[str, Any], lines: list[str]) -> Any:
        rows = iter(lines)
        for line in rows:
            [(action, about)] = json.loads(line).items()
            if action == "index":
                index["docs"][about["_id"]] = json.loads(next(rows))
                yield {"index": {"_id": about["_id"], "status": 201}}
            else:
                yield {"delete": {"_id": about["_id"], "status": 200 if index["docs"].pop(about["_id"], None) else 404}}

    def _search(self, index: dict[str, Any], body: dict[str, Any]) -> list[dict[str, Any]]:
        query, docs = body["query"], index["shown"]
        scores: dict[str, float] = {}
        if "knn" in query:
            wanted = np.array(query["knn"]["dense"]["vector"])
            for number, doc in docs.items():
                x = float(np.array(doc["dense"]) @ wanted)
                scores[number] = 1 + x if x >= 0 else 1 / (1 - x)
        else:
            for clause in query["bool"]["should"]:
                [(field, about)] = clause["term"].items()
                self._add(scores, docs, field, about["value"], about["boost"])
        best = sorted(scores.items(), key=lambda one: -one[1])[: body["size"]]
        return [{"_id": number, "_score": score} for number, score in best]

    def _add(self, scores: dict[str, float], docs: dict[str, Any], field: str, value: str, boost: float) -> None:
        counts = {number: Counter(words) for number, doc in docs.items() if (words := doc[field].split())}
        if not counts:
            return
        lengths = {number: sum(c.values()) for number, c in counts.items()}
        mean, hits = sum(lengths.values()) / len(counts), [number for number, c in counts.items() if c[value]]
        idf = math.log(1 + (len(counts) - len(hits) + 0.5) / (len(hits) + 0.5))
        for number in hits:
            times = counts[number][value]
            norm = 1.2 * (1 - 0.75 + 0.75 * one_byte(lengths[number]) / mean)
            scores[number] = scores.get(number, 0.0) + boost * idf * times / (times + norm)
