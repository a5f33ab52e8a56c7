"""A question to the guidelines: rewrite for the search, search, answer with citations, and remember what was asked.

The search never waits for a model longer than the budget and never needs one; a rewriting that speaks of something else is
dropped. A model's answer is shown only when it cites passages that were found; the demonstration model is never asked to
answer, because it knows no medicine. Then the passages are quoted word for word, and when they say too little about the
question the answer is "unknown". Called by pages/ask.py and app/api/ask.py; imports no torch.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import select

from core import model_client
from core.completions import split_completion
from core.errors import NotFound, UserError
from core.home import Home, current_home
from core.i18n import error_text, translate
from core.models import all_versions, get_version, serving_version
from core.records import Message, VersionStatus
from core.retrieval.index import Hit, LexicalIndex, open_index
from core.retrieval.support import THRESHOLD, asked_headings, coverage, quotes, subject, support
from core.retrieval.tokens import CJK, count
from db import tables as t
from db.engine import read_session, write_session

MAX_QUESTION = 2000
MAX_TOP_K = 20
REWRITE_TOKENS = 64
#: A shorter rewriting says nothing that the question did not.
MIN_REWRITE = 4
#: A rewriting and its question must share a document among so many passages.
RELATED_DEPTH = 3
#: How often the question stands before the pseudo-document (Wang et al., Query2doc, EMNLP 2023): it must keep leading.
QUESTION_WEIGHT = 5
CITATION = re.compile(r"[\[［【](\d{1,2})[\]］】]")

Kind = Literal["model", "extractive", "unknown"]
Note = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Context:
    """A passage as shown. `doors` names what found it: "question", "pseudo_doc", both, or "same_document"."""

    rank: int
    title: str
    section: str
    page: int | None
    source: str
    date: str
    file: str
    text: str
    score: float
    doors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskResult:
    """What came out. `notes` are catalogue keys with parameters: what was left out and why; `support` lies in [0, 1]."""

    query: str
    pseudo_doc: str
    contexts: tuple[Context, ...]
    answer: str
    answer_kind: Kind
    model: str | None
    is_toy: bool
    support: float
    index: dict[str, Any]
    notes: tuple[Note, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class IndexShown:
    """The active version of an index."""

    id: int
    name: str
    version: int
    path: str
    num_documents: int
    num_chunks: int


def active_index(name: str = "guidelines") -> IndexShown:
    """Raises NotFound("ask.no_index") when no version of that name is active."""
    with read_session() as session:
        row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.is_active))
        if row is None:
            raise NotFound("ask.no_index", name=name)
        return IndexShown(row.id, row.name, row.version, row.path, row.num_documents, row.num_chunks)


def ask(
    question: str,
    *,
    user_id: int | None,
    model: str | None = None,
    index: str = "guidelines",
    top_k: int = 5,
    with_rewrite: bool = True,
    with_answer: bool = True,
) -> AskResult:
    """Answer a question. `model` is a version's name; None means the one that serves (or the setting serve_model).

    Raises UserError("ask.empty_question" / "ask.long_question" / "ask.index_other_format"), NotFound("ask.no_index" /
    "models.no_such_version"), Unavailable("ask.index_missing" / "ask.index_damaged"). A model that is down is a note.
    """
    home = current_home()
    question = check_question(question)
    shown = active_index(index)
    opened = open_index(home.resolve(shown.path))
    version = _version(home, model) if with_rewrite or with_answer else None
    watch, notes = _Watch(), list[Note]()
    if version is None and (with_rewrite or with_answer):
        notes.append(("ask.note_no_model", {}))

    pseudo_doc = _rewrite(home, version, question, notes) if with_rewrite and version else ""
    if pseudo_doc and not _is_related(question, pseudo_doc, opened):
        notes.append(("ask.note_rewrite_astray", {}))
        pseudo_doc = ""
    watch.lap("rewrite")
    hits = opened.search(_wordings(question, pseudo_doc), max(1, min(top_k, MAX_TOP_K)))
    hits = _with_asked_section(question, hits, opened)
    contexts = tuple(_context(rank, hit) for rank, hit in enumerate(hits, start=1))
    supported = support(question, [hit.chunk for hit in hits], opened.weight)
    watch.lap("search")
    answer, kind = _answer(version if with_answer else None, question, contexts, hits, opened, supported, notes)
    watch.lap("answer")
    result = AskResult(
        query=question,
        pseudo_doc=pseudo_doc,
        contexts=contexts,
        answer=answer,
        answer_kind=kind,
        model=version.name if version else None,
        is_toy=bool(version and version.is_toy and (pseudo_doc or kind == "model")),
        support=round(supported, 3),
        index={name: value for name, value in asdict(shown).items() if name != "path"},
        notes=tuple(notes),
        timings_ms=watch.done(),
    )
    return _remember(result, user_id, version.id if version else None, shown.id)


def note_text(note: Note, language: str) -> str:
    """A note as a sentence; an error among its parameters speaks the same language."""
    key, params = note
    return translate(key, language, **{k: error_text(v, language) if isinstance(v, UserError) else v for k, v in params.items()})


def choices() -> tuple[list[str], str | None]:
    """Names of the versions that may answer, newest first, and the one that does when nothing is chosen."""
    home = current_home()
    with read_session() as session:
        names = [row.name for row in all_versions(session) if row.status != VersionStatus.RETIRED]
        serving = serving_version(session)
    return names, serving.name if serving else home.settings.serve_model or None


def check_question(question: str) -> str:
    """The question without surrounding white space, or a UserError."""
    question = question.strip()
    if not question:
        raise UserError("ask.empty_question")
    if len(question) > MAX_QUESTION:
        raise UserError("ask.long_question", length=len(question), limit=MAX_QUESTION)
    return question


def language_of(question: str) -> str:
    return "zh" if re.search(f"[{CJK}]", question) else "en"


def _version(home: Home, name: str | None) -> t.ModelVersion | None:
    with read_session() as session:
        if name or home.settings.serve_model:
            serving = None if name else serving_version(session)
            return serving or get_version(session, name or home.settings.serve_model)
        return serving_version(session)


def _rewrite(home: Home, version: t.ModelVersion, question: str, notes: list[Note]) -> str:
    """What the model wrote about the question within the budget: a pseudo-document for the search, never shown as fact."""
    pieces: list[str] = []
    failure: list[UserError] = []
    is_over = threading.Event()

    def read() -> None:
        stream = model_client.stream_chat(version.name, [Message("user", question)], temperature=0.0, seed=0, max_new_tokens=REWRITE_TOKENS)
        try:
            for piece in stream:
                if is_over.is_set():
                    return
                pieces.append(piece)
        except UserError as error:
            failure.append(error)

    reader = threading.Thread(target=read, name="rewrite", daemon=True)
    reader.start()
    reader.join(home.settings.ask_budget_ms / 1000)
    is_over.set()
    text = " ".join(re.sub(r"</?think>", " ", "".join(pieces)).split())
    if count(text) >= MIN_REWRITE:
        return text
    if failure:
        notes.append(("ask.note_rewrite_failed", {"reason": failure[0]}))
    else:
        notes.append(("ask.note_rewrite_late", {"budget": home.settings.ask_budget_ms}))
    return ""


def _is_related(question: str, pseudo_doc: str, index: LexicalIndex) -> bool:
    """Does the rewriting speak of what was asked: in its words, or by leading to one of the same documents?

    A question that finds nothing cannot be compared; then the rewriting may help, and `support` still judges the outcome.
    """
    if coverage(subject(question), pseudo_doc, index.weight) >= THRESHOLD:
        return True
    by_question = {hit.chunk.file for hit in index.search({"question": question}, RELATED_DEPTH)}
    by_rewriting = {hit.chunk.file for hit in index.search({"pseudo_doc": pseudo_doc}, RELATED_DEPTH)}
    return not by_question or bool(by_question & by_rewriting)


def _wordings(question: str, pseudo_doc: str) -> dict[str, str]:
    wordings = {"question": question}
    if pseudo_doc:
        wordings["pseudo_doc"] = " ".join([question] * QUESTION_WEIGHT + [pseudo_doc])
    return wordings


def _with_asked_section(question: str, hits: list[Hit], index: LexicalIndex) -> list[Hit]:
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
            return [*hits[:-1], Hit(number, chunk, 0.0, 0.0, ("same_document",))]
    return hits


def _answer(
    version: t.ModelVersion | None,
    question: str,
    contexts: Sequence[Context],
    hits: Sequence[Hit],
    index: LexicalIndex,
    supported: float,
    notes: list[Note],
) -> tuple[str, Kind]:
    language = language_of(question)
    if supported < THRESHOLD:
        return translate("ask.kind_unknown", language), "unknown"
    if version is not None and version.is_toy:
        notes.append(("ask.note_answer_toy", {}))
    elif version is not None:
        text = _model_answer(version, question, contexts, notes)
        if text:
            return text, "model"
    quoted = quotes(question, [hit.chunk for hit in hits], index.weight)
    if not quoted:
        return translate("ask.kind_unknown", language), "unknown"
    return "\n".join(f"{quote.text} [{quote.passage}]" for quote in quoted), "extractive"


def _model_answer(version: t.ModelVersion, question: str, contexts: Sequence[Context], notes: list[Note]) -> str:
    """The model's answer if it cites the passages, else nothing and a note."""
    passages = "\n\n".join(f"[{c.rank}] {c.title} {c.section}\n{c.text}" for c in contexts)
    instruction = translate("ask.instruction", language_of(question))
    messages = [Message("system", instruction), Message("user", f"{passages}\n\n{question}")]
    try:
        text = "".join(model_client.stream_chat(version.name, messages, temperature=0.0, seed=0))
    except UserError as error:
        notes.append(("ask.note_answer_failed", {"reason": error}))
        return ""
    answer = split_completion(text).answer
    cited = {int(number) for number in CITATION.findall(answer)}
    if not cited or not cited <= {c.rank for c in contexts}:
        notes.append(("ask.note_answer_uncited", {}))
        return ""
    return answer


def _context(rank: int, hit: Hit) -> Context:
    c = hit.chunk
    return Context(rank, c.title, c.section, c.page, c.source, c.date, c.file, c.text, round(hit.score, 5), hit.doors)


def _remember(result: AskResult, user_id: int | None, version_id: int | None, index_id: int) -> AskResult:
    event = t.AskEvent(
        query=result.query,
        answer=result.answer,
        pseudo_doc=result.pseudo_doc,
        contexts=[asdict(context) | {"doors": list(context.doors)} for context in result.contexts],
        timings_ms=result.timings_ms,
        user_id=user_id,
        model_version_id=version_id,
        index_id=index_id,
    )
    with write_session() as session:
        session.add(event)
        session.flush()
        event_id = event.id
    return replace(result, event_id=event_id)


class _Watch:
    """Milliseconds per step."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = round((now - self._last) * 1000, 1)
        self._last = now

    def done(self) -> dict[str, float]:
        return {**self._laps, "total": round((time.perf_counter() - self._started) * 1000, 1)}
