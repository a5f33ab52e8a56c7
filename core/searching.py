"""The one way into an index: its active version, opened with the encoder, reranker, glossary and plan that belong to it.

Ask, the evidence panel, the chat endpoint, the MCP tools and the command line all search through here, so the same question
finds the same passages everywhere. An encoder or reranker that cannot be opened costs a note, never the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core import retrieval_trials
from core.errors import NotFound, UserError
from core.home import Home, current_home
from core.retrieval.calibration import DEPTH, Calibration, signs_of
from core.retrieval.dense import Encoder
from core.retrieval.encoders import open_encoder
from core.retrieval.engines.base import Engine
from core.retrieval.engines.choose import engine_of
from core.retrieval.engines.remote import Remote, remote_of
from core.retrieval.glossary import Glossary, load_glossary
from core.retrieval.index import Index, open_index
from core.retrieval.plans import Plan
from core.retrieval.rerankers import Reranker, open_reranker
from core.retrieval.rewrite import corrected
from core.retrieval.search import Door, Hit, Note, Retrieved, Retriever
from core.retrieval.support import THRESHOLD, asked_headings, support
from core.search_plans import in_force
from core.settings import ROOT
from db import tables as t
from db.engine import read_session

SHIPPED_GLOSSARIES = ROOT / "assets" / "glossaries"
#: how a passage came that no leg found: it is the asked-for part of the best document
SAME_DOCUMENT = "same_document"


@dataclass(frozen=True, slots=True)
class IndexShown:
    """The active version of an index."""

    id: int
    name: str
    version: int
    path: str
    num_documents: int
    num_chunks: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Hits as they are shown, what the search did, and how much they say: `support` below `threshold` is "unknown"."""

    hits: tuple[Hit, ...]
    retrieved: Retrieved
    support: float
    threshold: float
    #: what the threshold did on judged questions (core.retrieval.calibration.Rates); empty where nothing was measured
    rates: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Searcher:
    """An opened index, ready to search."""

    shown: IndexShown
    index: Index
    retriever: Retriever
    calibration: Calibration | None
    notes: tuple[Note, ...] = field(default=())
    #: the arm of a running trial that this person gets; None when nothing is on trial
    served: retrieval_trials.Served | None = None

    @property
    def plan(self) -> Plan:
        return self.retriever.plan

    def with_plan(self, changes: Mapping[str, Any]) -> Searcher:
        """The same index searched with some fields of the plan changed. Raises as `Plan.changed`."""
        return replace(self, retriever=replace(self.retriever, plan=self.plan.changed(changes)))

    def find(self, question: str, top_k: int, *, pseudo_doc: str = "", expansions: Sequence[str] = ()) -> Finding:
        """The `top_k` best passages for a question, the asked-for section of the best document among them."""
        found = self.retriever.search(question, max(top_k, DEPTH), pseudo_doc=pseudo_doc, expansions=expansions)
        weight = self.index.weight
        if self.calibration:
            said = self.calibration.support(signs_of(question, found, weight))
        else:
            said = support(corrected(question, found.corrections), [hit.chunk for hit in found.hits[:DEPTH]], weight, found.mentions)
        measured = self.calibration.threshold if self.calibration else THRESHOLD
        threshold = measured if self.plan.min_support is None else self.plan.min_support
        hits = _with_asked_section(question, found.hits[:top_k], self.index)
        is_measured = self.calibration is not None and self.plan.min_support is None
        rates = self.calibration.about.get("rates", {}) if self.calibration and is_measured else {}
        return Finding(hits, found, said, threshold, rates)


def active_index(name: str = "guidelines") -> IndexShown:
    """Raises NotFound("ask.no_index") when no version of that name is active."""
    with read_session() as session:
        row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.is_active))
        if row is None:
            raise NotFound("ask.no_index", name=name)
        return IndexShown(row.id, row.name, row.version, row.path, row.num_documents, row.num_chunks)


def active_indexes() -> list[IndexShown]:
    """The active version of every index, the guidelines first."""
    with read_session() as session:
        rows = session.scalars(select(t.SearchIndex).where(t.SearchIndex.is_active).order_by(t.SearchIndex.name))
        shown = [IndexShown(r.id, r.name, r.version, r.path, r.num_documents, r.num_chunks) for r in rows]
    return sorted(shown, key=lambda s: (s.name != "guidelines", s.name))


def glossary_of(home: Home, index_name: str) -> Glossary:
    """The team's glossary of an index, else the one that is shipped for it, else an empty one. Raises UserError("ask.bad_glossary")."""
    own = home.root / "glossaries" / f"{index_name}.toml"
    return load_glossary(own if own.is_file() else SHIPPED_GLOSSARIES / f"{index_name}.toml")


def open_searcher(index: str = "guidelines", changes: Mapping[str, Any] | None = None, *, who: str = "") -> Searcher:
    """Open the active version of an index with the plan in force, some of its fields changed.

    While a change of the index is on trial, `who` (a person or session, the same at every call) decides which arm answers.
    Raises NotFound("ask.no_index"), Unavailable("ask.index_missing" / "ask.index_damaged"), UserError("ask.index_other_format" /
    "ask.bad_plan" / "ask.bad_glossary").
    """
    home = current_home()
    served = retrieval_trials.serving(index, who) if who else None
    shown = _version(served.index_id) if served and served.index_id else active_index(index)
    opened = open_index(home.resolve(shown.path))
    plan, calibration = in_force(index)
    plan = (served.plan if served else plan).changed(changes or {})
    notes: list[Note] = []
    if opened.manifest.get("engine"):
        try:
            opened = opened.through(_remote(opened, engine_of(home.settings, opened.manifest["engine"]["kind"])))
        except UserError as error:
            notes.append(("engines.note_unreachable", {"reason": error}))
    encoder: Encoder | None = None
    reranker: Reranker | None = None
    if opened.dense_model is not None and plan.dense:
        try:
            encoder = _encoder(opened.dense_model.name, opened.dense_model.hash, home.root)
            opened.require(encoder)
        except UserError as error:
            encoder = None
            notes.append(("ask.note_dense_failed", {"reason": error}))
    if plan.reranker:
        try:
            reranker = _reranker(plan.reranker, home.root)
        except UserError as error:
            notes.append(("ask.note_rerank_failed", {"reason": error}))
    retriever = Retriever(opened, encoder, reranker, plan, glossary_of(home, index))
    if calibration is not None and not calibration.fits(plan):
        calibration = None
    return Searcher(shown, opened, retriever, calibration, tuple(notes), served)


def _version(index_id: int) -> IndexShown:
    """A version on trial, by its row."""
    with read_session() as session:
        row = session.get_one(t.SearchIndex, index_id)
        return IndexShown(row.id, row.name, row.version, row.path, row.num_documents, row.num_chunks)


@lru_cache(maxsize=4)
def _remote(opened: Index, engine: Engine) -> Remote:
    """Kept, because it remembers that its engine is down."""
    return remote_of(opened, engine)


@lru_cache(maxsize=4)
def _encoder(name: str, _content_hash: str, _root: Path) -> Encoder:
    return open_encoder(name)


@lru_cache(maxsize=4)
def _reranker(name: str, _root: Path) -> Reranker:
    return open_reranker(name)


def _with_asked_section(question: str, hits: tuple[Hit, ...], index: Index) -> tuple[Hit, ...]:
    """Let the last passage make room for the part of the best document whose heading is what the question asks for.

    A question names a complaint, which stands under one heading; what to do about it stands under another.
    """
    headings = asked_headings(question)
    if len(hits) < 3 or not headings:
        return hits
    shown = {hit.number for hit in hits}
    for number in index.siblings(hits[0].number):
        chunk = index.chunk(number)
        if number not in shown and any(heading.search(chunk.section) for heading in headings):
            return (*hits[:-1], Hit(number, chunk, 0.0, (Door(SAME_DOCUMENT, "", "original", "", 0, 0.0),), {}))
    return hits
