"""Full-text search over cases: question, earlier turns, answer and thinking, in Chinese and English.

SQLite keeps an FTS5 index of our own tokens (`core.retrieval.tokens`: pairs of CJK characters, stemmed words), so a Chinese
term is found without a dictionary. The index is filled behind the cases (`refresh`, by id); what it has not reached is searched
by LIKE, so a case can be found at once. On PostgreSQL everything goes by ILIKE. Nothing that a reader may not see before the
verdict is searched. Called by `core.desk.queue`, the jobs that make cases, and benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Text, and_, cast, or_, select, text
from sqlalchemy.orm import Session

from core.retrieval.tokens import UNIT, normalise, tokenise
from db import tables as t
from db.engine import read_session, write_session

BATCH = 1000
MAX_WORDS = 12


def matching(session: Session, wanted: str) -> ColumnElement[bool] | None:
    """The condition on `conflicts` (joined with samples) for a search text, or None for a text without words.

    `#12` or a bare number also finds the case of that number.
    """
    words = normalise(wanted).split()[:MAX_WORDS]
    if not words:
        return None
    plain = _by_like(words)
    if _is_indexed(session):
        query = fts_query(words)
        reached = session.scalar(text("SELECT max(id) FROM case_search_docsize")) or 0
        found = text("conflicts.id IN (SELECT rowid FROM case_search WHERE case_search MATCH :query)").bindparams(query=query)
        behind = and_(t.Conflict.id > reached, plain)
        plain = or_(found, behind) if query else behind
    number = wanted.strip().removeprefix("#")
    return or_(plain, t.Conflict.id == int(number)) if number.isdecimal() and len(number) < 16 else plain


def fts_query(words: Sequence[str]) -> str:
    """An FTS5 query: every word must occur; a Chinese word as its run of pairs, a Latin word also as a beginning."""
    phrases = []
    for word in words:
        tokens = tokenise(word)
        if not tokens:
            continue
        last = tokens[-1]
        is_beginning = (last.isascii() and last.isalpha()) or (len(tokens) == 1 and len(last) == 1)
        phrases.append(f'"{" ".join(tokens)}"' + ("*" if is_beginning else ""))
    return " AND ".join(phrases)


def refresh(limit: int | None = None) -> int:
    """Index the cases that came since the last time, at most `limit`; returns how many. Does nothing on PostgreSQL."""
    done = 0
    while limit is None or done < limit:
        with read_session() as session:
            if not _is_indexed(session):
                return done
            reached = session.scalar(text("SELECT max(id) FROM case_search_docsize")) or 0
            query = (
                select(t.Conflict.id, t.Sample.messages, t.Completion.answer, t.Completion.thinking)
                .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
                .join(t.Completion, t.Completion.id == t.Conflict.completion_id)
                .where(t.Conflict.id > reached)
            )
            rows = session.execute(query.order_by(t.Conflict.id).limit(BATCH if limit is None else min(BATCH, limit - done))).all()
        if not rows:
            return done
        bodies = [
            {"id": row.id, "body": index_text("\n".join([*(str(m.get("content", "")) for m in row.messages), row.answer, row.thinking]))}
            for row in rows
        ]
        with write_session() as session:
            now = session.scalar(text("SELECT max(id) FROM case_search_docsize")) or 0  # somebody else may have been quicker
            fresh = [body for body in bodies if body["id"] > now]
            if fresh:
                session.execute(text("INSERT INTO case_search(rowid, body) VALUES (:id, :body)"), fresh)
        done += len(rows)
    return done


def index_text(body: str) -> str:
    """Tokens in order, then the last character of every CJK run, so that a single character is found wherever it stands."""
    plain = normalise(body)
    return " ".join([*tokenise(body), *(match["cjk"][-1] for match in UNIT.finditer(plain) if match["cjk"] and len(match["cjk"]) > 1)])


def _is_indexed(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _by_like(words: Sequence[str]) -> ColumnElement[bool]:
    def contains(word: str) -> ColumnElement[bool]:
        return or_(
            t.Sample.text.icontains(word, autoescape=True),
            t.Conflict.completion_id.in_(
                select(t.Completion.id).where(
                    t.Completion.id == t.Conflict.completion_id, cast(t.Completion.text, Text).icontains(word, autoescape=True)
                )
            ),
        )

    return and_(*(contains(word) for word in words))
