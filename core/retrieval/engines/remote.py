"""Searching a version through an engine, with the version's own channels behind it.

What an engine says counts only as far as the version's tables know it: rows of a later version or of a deleted document are left
out here, so several versions of an index can share a collection, and a roll-back needs nothing from the engine. An engine that is
down or slow costs its time limit once, then the own channels answer for PAUSE_S, and whoever asked is told. A question that holds
what identifies a person is not sent at all. Called by `core.retrieval.index.Index` and the mover.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from core.privacy_doors import may_leave
from core.retrieval.dense import Vectors
from core.retrieval.engines.base import MOST_HITS, Engine, EngineDown, Found, Spec
from core.retrieval.engines.bm25 import shortest, terms_of

log = logging.getLogger("consilium.engines")
#: after a fault the engine is left alone for so long: people do not wait for the time limit again and again
PAUSE_S = 20.0
#: hits asked for beyond those wanted, for rows that the version does not know
SPARE = 20
Note = tuple[str, dict[str, Any]]
IsLive = np.ndarray[Any, np.dtype[np.bool_]]
Idf = Callable[[str, str], float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version's rows lie: what its manifest says under "engine". `scale` turns the engine's lexical scores into ours."""

    kind: str
    collection: str
    salt: bytes
    spec: Spec
    scale: float = 1.0

    def as_manifest(self) -> dict[str, Any]:
        """For the manifest; the inverse of `of`."""
        spec = {"num_entries": self.spec.num_entries, "dimension": self.spec.dimension, "mean_lengths": list(self.spec.mean_lengths)}
        return {"kind": self.kind, "collection": self.collection, "salt": self.salt.hex(), "scale": self.scale, **spec}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Place:
        pairs, singles = stored["mean_lengths"]
        spec = Spec(int(stored["num_entries"]), stored["dimension"], (float(pairs), float(singles)))
        return cls(str(stored["kind"]), str(stored["collection"]), bytes.fromhex(stored["salt"]), spec, float(stored["scale"]))


@dataclass
class Remote:
    """An engine as one version sees it. Safe between threads: the only thing that changes is until when the engine rests."""

    engine: Engine
    place: Place
    is_live: IsLive
    idf: Idf
    pause_s: float = PAUSE_S
    _rests_until: float = field(default=-math.inf, init=False)

    def lexical(self, text: str, limit: int) -> Found:
        """Living entries by our BM25. Raises EngineDown."""
        terms = terms_of(text, self.place.salt, self.idf)
        found = self._living(lambda n: self.engine.lexical(self.place.collection, terms, n), limit) if terms else []
        return [(number, score * self.place.scale) for number, score in found]

    def dense(self, vector: Vectors, limit: int) -> Found:
        """Living entries by inner product. Raises EngineDown."""
        return self._living(lambda n: self.engine.dense(self.place.collection, vector, n), limit)

    def asked(self, texts: Sequence[str]) -> Asked:
        """The engine for one question in these wordings, or the own channels in its place, with the reason noted."""
        if not may_leave(texts):
            return Asked(self, True, [("engines.note_private", {"engine": self.engine.name})])
        if time.monotonic() < self._rests_until:
            return Asked(self, True, [("engines.note_resting", {"engine": self.engine.name})])
        return Asked(self, False, [])

    def rest(self, error: EngineDown) -> None:
        log.warning("%s: %s; the own index answers for %.0f s", self.engine.name, error.params["reason"], self.pause_s)
        self._rests_until = time.monotonic() + self.pause_s

    def _living(self, search: Callable[[int], Found], limit: int) -> Found:
        """The first `limit` rows that this version knows; asks for more while rows it does not know stand between."""
        wanted = min(limit + SPARE, MOST_HITS)
        while True:
            found = search(wanted)
            living = [(number, score) for number, score in found if 0 <= number < len(self.is_live) and self.is_live[number]]
            if len(living) >= limit or len(found) < wanted or wanted >= MOST_HITS:
                return shortest(living, limit)
            wanted = min(4 * wanted, MOST_HITS)


class Version(Protocol):
    """What of an opened version is used here (core.retrieval.index.Index)."""

    manifest: dict[str, Any]

    @property
    def is_live(self) -> IsLive: ...
    def idf(self, view: str, token: str) -> float: ...


def remote_of(version: Version, engine: Engine, place: Place | None = None) -> Remote:
    """`engine` as `version` sees it, at the place that its manifest names or at another."""
    return Remote(engine, place or Place.of(version.manifest["engine"]), version.is_live, version.idf)


@dataclass
class Asked:
    """An engine while one question is searched. `notes` fills as it goes: read it when the search is over."""

    remote: Remote
    is_own: bool
    notes: list[Note]

    def lexical(self, text: str, limit: int, own: Callable[[], Found]) -> Found:
        """From the engine, else from `own`."""
        return self._or_own(lambda: self.remote.lexical(text, limit), own)

    def dense(self, vector: Vectors, limit: int, own: Callable[[], Found]) -> Found:
        """From the engine, else from `own`."""
        return self._or_own(lambda: self.remote.dense(vector, limit), own)

    def _or_own(self, search: Callable[[], Found], own: Callable[[], Found]) -> Found:
        if not self.is_own:
            try:
                return search()
            except EngineDown as error:
                self.remote.rest(error)
                self.is_own = True
                self.notes.append(("engines.note_down", {"reason": error}))
        return own()
