"""The model that expands a question for the search: asked within a time, checked, remembered. The plain question never waits longer.

Three kinds under one name: a trained version on the local model server, an OpenAI-compatible endpoint (llama.cpp's server of an
exported file, Ollama, any other), and a small term model in this process. An answer that is late, empty or not of the strict
form is not used at all; one that came late is remembered, so that the same question finds it the next time. Called by core.ask.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from sqlalchemy import select

from core import model_client
from core.ask_rewriting import Remembered
from core.errors import NotFound, UserError
from core.expansion import prompts, schema
from core.expansion.schema import Line
from core.expansion.term_model import TermModel
from core.expansion.term_model import load as load_terms
from core.records import Message, VersionKind, VersionStatus
from core.retrieval import retrieval_models
from db import tables as t
from db.engine import read_session

MAX_NEW_TOKENS = 200
#: more lines than these are a model that does not stop; a longer line is no query
MAX_LINES, MAX_CHARACTERS = 10, 600
#: requests that may still be open behind their budget: a slow model must not gather a crowd of them
MAX_LATE = 4

Status = Literal["used", "remembered", "late", "bad", "failed", "busy"]

remembered = Remembered()
_late = threading.BoundedSemaphore(MAX_LATE)


@dataclass(frozen=True, slots=True)
class Expanded:
    """What came of asking. `lines` are empty unless the status is "used" or "remembered"; `reason` belongs to "failed"."""

    model: str
    status: Status
    lines: tuple[Line, ...] = ()
    ms: float = 0.0
    budget_ms: int = 0
    reason: UserError | None = None
    #: what a line weighs beside the question, where the expander was measured with it; None leaves it to the search plan
    line_weight: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The lines as `Retriever.search` takes them."""
        return tuple(f"{line.kind}: {line.text}" for line in self.lines)


class Expander(Protocol):
    """`ask` says what happened; `expand` gives the lines, or None when the plain question has to do. Neither raises."""

    @property
    def name(self) -> str: ...
    def ask(self, query: str, *, budget_ms: int) -> Expanded: ...
    def expand(self, query: str, *, budget_ms: int) -> tuple[Line, ...] | None: ...


def open_expander(name: str) -> Expander:
    """The expander of that name: a model version, or one of retrieval's models of kind expander.

    Raises NotFound("expansion_export.no_expander"), and Unavailable when a term model's weights are missing or changed.
    """
    with read_session() as session:
        version = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
        known = f"{version.id}:{version.content_hash}:{version.endpoint_url}:{version.endpoint_model}" if version else ""
    if version is not None:
        return VersionExpander(name, known, prompts.current(name))
    try:
        row = retrieval_models.get(name, "expander")
    except NotFound as error:
        raise NotFound("expansion_export.no_expander", name=name) from error
    weight = row.metrics.get("line_weight")
    return TermExpander(name, _terms(retrieval_models.weights_of(row), row.content_hash), None if weight is None else float(weight))


def choices() -> list[str]:
    """What can be chosen: versions made for expansion, endpoints, and term models; retired and refused ones are left out."""
    with read_session() as session:
        rows = select(t.ModelVersion).order_by(t.ModelVersion.id.desc())
        wanted = [
            row.name
            for row in session.scalars(rows)
            if row.status != VersionStatus.RETIRED and (row.task == "expansion" or row.kind == VersionKind.EXTERNAL)
        ]
    terms = [row.name for row in retrieval_models.listing("expander") if row.status not in ("refused", "retired")]
    return [*terms, *wanted]


@dataclass(frozen=True, slots=True)
class VersionExpander:
    """A language model. `known` tells two sets of weights under one name apart."""

    name: str
    known: str
    instruction: str

    def ask(self, query: str, *, budget_ms: int) -> Expanded:
        """The model's lines within `budget_ms`. Raises nothing: whatever goes wrong is the status."""
        started = time.perf_counter()
        key = (hashlib.sha256(f"{self.known}\0{self.instruction}".encode()).hexdigest(), query)
        if (text := remembered.get(key)) is not None:
            return Expanded(self.name, "remembered", schema.parse_output(text).lines, _ms(started), budget_ms)
        if not _late.acquire(blocking=False):
            return Expanded(self.name, "busy", (), _ms(started), budget_ms)
        answer = _Answer()
        reader = threading.Thread(target=_read, args=(self.name, self.instruction, query, key, answer), name="expand", daemon=True)
        reader.start()
        reader.join(max(0.0, budget_ms / 1000 - (time.perf_counter() - started)))
        if not answer.is_over.is_set():
            return Expanded(self.name, "late", (), _ms(started), budget_ms)
        if answer.failure is not None:
            return Expanded(self.name, "failed", (), _ms(started), budget_ms, answer.failure)
        return Expanded(self.name, "used" if answer.lines else "bad", answer.lines, _ms(started), budget_ms)

    def expand(self, query: str, *, budget_ms: int) -> tuple[Line, ...] | None:
        return self.ask(query, budget_ms=budget_ms).lines or None


@dataclass(frozen=True, slots=True)
class TermExpander:
    """A term model: about a millisecond, so its budget is only looked at afterwards."""

    name: str
    model: TermModel
    line_weight: float | None = None

    def ask(self, query: str, *, budget_ms: int) -> Expanded:
        started = time.perf_counter()
        lines = self.model.expand(query)
        ms = _ms(started)
        status: Status = "late" if ms > budget_ms else "used" if lines else "bad"
        return Expanded(self.name, status, lines if status == "used" else (), ms, budget_ms, line_weight=self.line_weight)

    def expand(self, query: str, *, budget_ms: int) -> tuple[Line, ...] | None:
        return self.ask(query, budget_ms=budget_ms).lines or None


@dataclass(slots=True)
class _Answer:
    """Filled by the reading thread; looked at only once `is_over`."""

    is_over: threading.Event = field(default_factory=threading.Event)
    lines: tuple[Line, ...] = ()
    failure: UserError | None = None


def usable(text: str) -> tuple[Line, ...]:
    """The lines of an answer that is of the strict form and of a sensible size, each once; else none. A bare prefix says nothing and
    does no harm: it is left out."""
    parsed = schema.parse_output(text)
    lines = tuple(dict.fromkeys(parsed.lines))
    is_sensible = len(lines) <= MAX_LINES and all(len(line.text) <= MAX_CHARACTERS for line in lines)
    return lines if parsed.is_valid and is_sensible else ()


def _read(name: str, instruction: str, query: str, key: tuple[str, str], answer: _Answer) -> None:
    """Read one answer to its end, however late; the semaphore taken by `ask` is given back here."""
    messages = [Message(one["role"], one["content"]) for one in schema.prompt_messages(query, instruction)]
    try:
        text = "".join(model_client.stream_chat(name, messages, temperature=0.0, seed=0, max_new_tokens=MAX_NEW_TOKENS))
        answer.lines = usable(text)
        if answer.lines:
            remembered.put(key, schema.render(answer.lines))
    except UserError as error:
        answer.failure = error
    finally:
        answer.is_over.set()
        _late.release()


@lru_cache(maxsize=2)
def _terms(folder: Path, _content_hash: str) -> TermModel:
    return load_terms(folder)


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
