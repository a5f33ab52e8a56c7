"""A question to the guidelines: rewrite for the search, search, answer with citations, and remember what was asked.

The search never waits for a model longer than the budget and never needs one; a rewriting that speaks of something else is
dropped. A model's answer is shown only when it cites passages that were found; the demonstration model is never asked to
answer, because it knows no medicine. Then the passages are quoted word for word, and when they say too little about the
question the answer is "unknown". Called by pages/ask.py, app/api/ask.py, app/api/chat.py, app/mcp.py; imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from core import model_client, retrieval_trials
from core.ask_rewriting import rewriting
from core.completions import split_completion
from core.errors import UserError
from core.expansion.expander import Expanded, open_expander
from core.home import Home, current_home
from core.i18n import error_text, translate
from core.models import all_versions, get_version, serving_version
from core.permit import permit
from core.records import Message, VersionStatus
from core.retrieval.index import Index
from core.retrieval.plans import Plan
from core.retrieval.rewrite import corrected, language_of
from core.retrieval.search import Door, Hit, Note, Watch
from core.retrieval.support import THRESHOLD, coverage, quotes, subject
from core.searching import Finding, IndexShown, active_index, open_searcher
from db import tables as t
from db.engine import read_session, write_session

__all__ = ["AskResult", "Context", "IndexShown", "active_index", "ask", "check_question", "choices", "language_of", "note_text"]

MAX_QUESTION = 2000
MAX_TOP_K = 20
#: A rewriting must lead to a document of the question among so many passages; a line of an expansion is there to reach further.
RELATED_DEPTH = 3
LINE_DEPTH = 10
CITATION = re.compile(r"[\[［【](\d{1,2})[\]］】]")

Kind = Literal["model", "extractive", "unknown"]
Expander = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Context:
    """A passage as shown. `doors` names what found it: "question", "glossary", "pseudo_doc" ..., or "same_document"; `why` says
    it in full. `stages` are its (rank, score) in every list; `parent` is its number in the index."""

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
    why: tuple[Door, ...]
    stages: dict[str, tuple[int, float]]
    parent: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class AskResult:
    """What came out. `notes` are catalogue keys with parameters: what was left out and why; `support` lies in [0, 1] and below
    `threshold` the answer is "unknown". `wordings` is what was searched for; `stages` what each stage ranked (chunk, score)."""

    query: str
    pseudo_doc: str
    contexts: tuple[Context, ...]
    answer: str
    answer_kind: Kind
    model: str | None
    is_toy: bool
    support: float
    index: dict[str, Any]
    threshold: float = THRESHOLD
    #: how often the threshold was wrong on judged questions of this index: false_answer, false_unknown, num ...; empty: not measured
    rates: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    search_ms: dict[str, float] = field(default_factory=dict)
    wordings: tuple[dict[str, Any], ...] = ()
    corrections: tuple[tuple[str, str], ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    stages: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    #: what the plan's expander did: model, status, lines, ms, budget_ms; empty when the plan names none
    expansion: dict[str, Any] = field(default_factory=dict)
    event_id: int | None = None


def ask(
    question: str,
    *,
    user_id: int | None,
    model: str | None = None,
    index: str = "guidelines",
    top_k: int = 5,
    with_rewrite: bool = True,
    with_answer: bool = True,
    plan: Mapping[str, Any] | None = None,
    expander: Expander | None = None,
    channel: str = "",
) -> AskResult:
    """Answer a question. `model` is a version's name; None means the one that serves (or the setting serve_model).

    `plan` changes fields of the index's search plan for this question, its expander among them ("" for none); `expander` gives lines
    "lex: ...", "vec: ..." and "hyde: ..." in the place of that; `channel` says where it was asked. Raises
    UserError("ask.empty_question" / "ask.long_question" / "ask.index_other_format" / "ask.bad_plan"),
    NotFound("ask.no_index" / "models.no_such_version"),
    Unavailable("ask.index_missing" / "ask.index_damaged"). A model that is down is a note.
    """
    permit("ask.ask", user_id)
    home = current_home()
    question = check_question(question)
    watch = Watch()
    # Somebody who changes the plan is looking at the machinery, and is no part of a trial.
    searcher = open_searcher(index, plan, who=f"user:{user_id}" if user_id is not None and not plan else "")
    version = _version(home, model) if with_rewrite or with_answer else None
    notes = list(searcher.notes)
    if version is None and (with_rewrite or with_answer):
        notes.append(("ask.note_no_model", {}))
    watch.lap("open")
    with ThreadPoolExecutor(1) as side:  # both models are asked at once: the search waits for the slower one, not for the sum
        waiting = side.submit(_expanded, question, searcher.plan) if not expander else None
        pseudo_doc = rewriting(home, version, question, notes) if with_rewrite and version and searcher.plan.pseudo_doc else ""
        watch.lap("rewrite")
        expanded = waiting.result() if waiting else None
    watch.lap("expand")
    if pseudo_doc and not _is_related(question, pseudo_doc, searcher.index):
        notes.append(("ask.note_rewrite_astray", {}))
        pseudo_doc = ""
    if expanded and not expanded.lines:
        about = {"model": expanded.model, "budget": expanded.budget_ms, "reason": expanded.reason or ""}
        notes.append((f"expansion_export.note_{expanded.status}", about))
    lines = expanded.texts if expanded else tuple(expander(question)) if expander and searcher.plan.line_weight else ()
    of_line = ((line, line.partition(":")[2]) for line in (expanded.texts if expanded else ()))
    astray = [line for line, text in of_line if not _is_related(question, text, searcher.index, LINE_DEPTH)]
    if expanded and astray:
        notes.append(("expansion_export.note_astray", {"model": expanded.model, "num": len(astray)}))
        lines = tuple(line for line in lines if line not in astray)
    if expanded and expanded.line_weight is not None and searcher.plan.expansion is None:
        searcher = searcher.with_plan({"expansion": expanded.line_weight})
    watch.lap("rewrite")
    found = searcher.find(question, max(1, min(top_k, MAX_TOP_K)), pseudo_doc=pseudo_doc, expansions=lines)
    notes += found.retrieved.notes
    contexts = tuple(_context(rank, hit) for rank, hit in enumerate(found.hits, start=1))
    watch.lap("search")
    answer, kind = _answer(version if with_answer else None, question, contexts, found, searcher.index, notes)
    watch.lap("answer")
    retrieved, shown = found.retrieved, searcher.shown
    result = AskResult(
        query=question,
        pseudo_doc=pseudo_doc,
        contexts=contexts,
        answer=answer,
        answer_kind=kind,
        model=version.name if version else None,
        is_toy=bool(version and version.is_toy and (pseudo_doc or kind == "model")),
        support=round(found.support, 3),
        threshold=found.threshold,
        rates=found.rates,
        index={name: value for name, value in asdict(shown).items() if name != "path"},
        notes=tuple(notes),
        timings_ms=watch.done(),
        search_ms=retrieved.timings_ms,
        wordings=tuple(asdict(wording) for wording in retrieved.wordings),
        corrections=tuple((c.written, c.meant) for c in retrieved.corrections),
        terms=tuple(dict.fromkeys((_typed(question, m.written), m.term.shown(_other(m.written))) for m in retrieved.mentions)),
        stages=retrieved.stages,
        plan=searcher.plan.to_json(),
        expansion=_about(expanded, lines, astray),
    )
    return _remember(result, user_id, version.id if version else None, shown.id, channel, searcher.served)


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


def _version(home: Home, name: str | None) -> t.ModelVersion | None:
    with read_session() as session:
        if name or home.settings.serve_model:
            serving = None if name else serving_version(session)
            return serving or get_version(session, name or home.settings.serve_model)
        return serving_version(session)


def _expanded(question: str, plan: Plan) -> Expanded | None:
    """What the plan's expander wrote in time; None when there is none. Never raises: the search goes on without lines."""
    if not plan.expander or not plan.line_weight:
        return None
    try:
        return open_expander(plan.expander).ask(question, budget_ms=plan.expander_budget_ms)
    except UserError as error:
        return Expanded(plan.expander, "failed", (), 0.0, plan.expander_budget_ms, error)


def _about(found: Expanded | None, lines: Sequence[str], astray: Sequence[str]) -> dict[str, Any]:
    """An expansion as it is shown and remembered: the lines that were searched, and those that spoke of something else."""
    if found is None:
        return {}
    status = "astray" if astray and not lines else found.status
    return {
        "model": found.model, "status": status, "lines": list(lines), "astray": list(astray), "ms": found.ms, "budget_ms": found.budget_ms
    }  # fmt: skip


def _is_related(question: str, pseudo_doc: str, index: Index, depth: int = RELATED_DEPTH) -> bool:
    """Does a rewriting, or a line of an expansion, speak of what was asked: in its words, or by leading to one of the same documents?

    A question that finds nothing cannot be compared; then the rewriting may help, and `support` still judges the outcome.
    """
    if coverage(subject(question), pseudo_doc, index.weight) >= THRESHOLD:
        return True
    by_question = {index.chunk(f.parent).file for f in index.lexical(question, depth)}
    by_rewriting = {index.chunk(f.parent).file for f in index.lexical(pseudo_doc, RELATED_DEPTH)}
    return not by_question or bool(by_question & by_rewriting)


def _answer(
    version: t.ModelVersion | None, question: str, contexts: Sequence[Context], found: Finding, index: Index, notes: list[Note]
) -> tuple[str, Kind]:
    language = language_of(question)
    if found.support < found.threshold:
        return translate("ask.kind_unknown", language), "unknown"
    if version is not None and version.is_toy:
        notes.append(("ask.note_answer_toy", {}))
    elif version is not None:
        text = _model_answer(version, question, contexts, notes)
        if text:
            return text, "model"
    asked = corrected(question, found.retrieved.corrections)
    quoted = quotes(asked, [hit.chunk for hit in found.hits], index.weight, found.retrieved.mentions)
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
    return Context(
        rank=rank,
        title=c.title,
        section=c.section,
        page=c.page,
        source=c.source,
        date=c.date,
        file=c.file,
        text=c.text,
        score=round(hit.score, 5),
        doors=hit.via,
        why=hit.doors,
        stages=hit.stages,
        parent=hit.number,
        content_hash=hashlib.sha256(c.text.encode()).hexdigest(),
    )


def _typed(question: str, written: str) -> str:
    """A term as the person typed it: the search works on lower case."""
    match = re.search(re.escape(written), question, re.IGNORECASE)
    return match[0] if match else written


def _other(written: str) -> str:
    """The language in which a term is shown beside what was written: the other one."""
    return "en" if language_of(written) == "zh" else "zh"


def _remember(
    result: AskResult, user_id: int | None, version_id: int | None, index_id: int, channel: str, served: retrieval_trials.Served | None
) -> AskResult:
    kept = ("rank", "parent", "file", "title", "section", "page", "source", "date", "text", "score", "content_hash")
    contexts = [
        {name: getattr(context, name) for name in kept} | {"doors": list(context.doors), "why": [asdict(door) for door in context.why]}
        for context in result.contexts
    ]
    details = {
        "plan": result.plan,
        "answer_kind": result.answer_kind,
        "support": result.support,
        "threshold": result.threshold,
        "wordings": {str(wording["name"]): wording["weight"] for wording in result.wordings},
        **({"expansion": result.expansion} if result.expansion else {}),
    }
    event = t.AskEvent(
        query=result.query,
        answer=result.answer,
        pseudo_doc=result.pseudo_doc,
        contexts=contexts,
        timings_ms=result.timings_ms,
        user_id=user_id,
        model_version_id=version_id,
        index_id=index_id,
        channel=channel,
        details=details,
    )
    with write_session() as session:
        session.add(event)
        session.flush()
        event_id = event.id
        if served is not None:
            retrieval_trials.expose(session, served, event_id)
    return replace(result, event_id=event_id)
