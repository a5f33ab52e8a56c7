"""Full-text search over cases: question, earlier turns, answer and thinking, in Chinese and English.

An index of our own tokens (`core.retrieval.tokens`: pairs of CJK characters, stemmed words) finds a Chinese term without a
dictionary: FTS5 on SQLite, on PostgreSQL a tsvector made of the tokens themselves (no parser, no configuration) and, for a word of
several tokens, a look at the stored run of them. Both find the same cases. The index is filled behind the cases (`refresh`, by
id); what it has not reached is searched by LIKE, so a case can be found at once. Nothing that a reader may not see before the
verdict is searched. Called by `core.desk.queue`, the jobs that make cases, and benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, TextClause, and_, cast, or_, select, text
from sqlalchemy.orm import Session

from core.retrieval.tokens import UNIT, normalise, tokenise
from db import tables as t
from db.engine import read_session, write_session

BATCH = 1000
MAX_WORDS = 12
#: PostgreSQL takes lexemes of up to 2,046 bytes
MAX_TOKEN = 400


def matching(session: Session, wanted: str) -> ColumnElement[bool] | None:
    """The condition on `conflicts` (joined with samples) for a search text, or None for a text without words.

    `#12` or a bare number also finds the case of that number.
    """
    words = normalise(wanted).split()[:MAX_WORDS]
    if not words:
        return None
    plain = _by_like(words)
    found = _by_index(session, words)
    behind = and_(t.Conflict.id > _reached(session), plain)
    plain = behind if found is None else or_(found, behind)
    number = wanted.strip().removeprefix("#")
    return or_(plain, t.Conflict.id == int(number)) if number.isdecimal() and len(number) < 16 else plain


def phrases(words: Sequence[str]) -> list[tuple[list[str], bool]]:
    """Each word as its run of tokens, and whether the last of them may be the beginning of a longer one (Latin words, lone characters)."""
    found = []
    for word in words:
        tokens = tokenise(word)
        if tokens:
            last = tokens[-1]
            found.append((tokens, (last.isascii() and last.isalpha()) or (len(tokens) == 1 and len(last) == 1)))
    return found


def fts_query(words: Sequence[str]) -> str:
    """An FTS5 query: every word must occur; a Chinese word as its run of pairs, a Latin word also as a beginning."""
    return " AND ".join(f'"{" ".join(tokens)}"' + ("*" if is_beginning else "") for tokens, is_beginning in phrases(words))


def ts_query(words: Sequence[str]) -> tuple[str, list[str]]:
    """The same for PostgreSQL: a tsquery of all tokens, and a LIKE pattern for each word that is a run of several."""
    terms, patterns = [], []
    for tokens, is_beginning in phrases(words):
        quoted = ["'" + token[:MAX_TOKEN].replace("\\", "\\\\").replace("'", "''") + "'" for token in tokens]
        terms.append(" & ".join(quoted) + (":*" if is_beginning else ""))
        if len(tokens) > 1:
            run = " ".join(token[:MAX_TOKEN] for token in tokens)
            patterns.append(f"% {run}{'' if is_beginning else ' '}%")
    return " & ".join(terms), patterns


def refresh(limit: int | None = None) -> int:
    """Index the cases that came since the last time, at most `limit`; returns how many."""
    done = 0
    while limit is None or done < limit:
        with read_session() as session:
            reached = _reached(session)
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
            now = _reached(session)  # somebody else may have been quicker
            fresh = [body for body in bodies if body["id"] > now]
            if fresh:
                _store(session, fresh)
        done += len(rows)
    return done


def index_text(body: str) -> str:
    """Tokens in order, then the last character of every CJK run, so that a single character is found wherever it stands."""
    plain = normalise(body)
    return " ".join([*tokenise(body), *(match["cjk"][-1] for match in UNIT.finditer(plain) if match["cjk"] and len(match["cjk"]) > 1)])


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _reached(session: Session) -> int:
    table = "case_search_docsize" if _is_sqlite(session) else "case_search"
    return session.scalar(text(f"SELECT max(id) FROM {table}")) or 0  # noqa: S608 - one of two constants


def _store(session: Session, bodies: list[dict[str, Any]]) -> None:
    if _is_sqlite(session):
        session.execute(text("INSERT INTO case_search(rowid, body) VALUES (:id, :body)"), bodies)
        return
    insert = text("INSERT INTO case_search(id, tokens, body) VALUES (:id, array_to_tsvector(CAST(:tokens AS text[])), :body)")
    cut = [(row["id"], [token[:MAX_TOKEN] for token in row["body"].split()]) for row in bodies]
    session.execute(insert, [{"id": number, "tokens": tokens, "body": f" {' '.join(tokens)} "} for number, tokens in cut])


def _by_index(session: Session, words: Sequence[str]) -> TextClause | None:
    """The condition on the index; None when the words hold nothing that it knows."""
    patterns: list[str] = []
    if _is_sqlite(session):
        query = fts_query(words)
        within = "SELECT rowid FROM case_search WHERE case_search MATCH :query"
    else:
        query, patterns = ts_query(words)
        runs = "".join(f" AND body LIKE :run{n}" for n in range(len(patterns)))
        within = f"SELECT id FROM case_search WHERE tokens @@ CAST(:query AS tsquery){runs}"  # noqa: S608 - parameters only
    if not query:
        return None
    return text(f"conflicts.id IN ({within})").bindparams(query=query, **{f"run{n}": run for n, run in enumerate(patterns)})


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
