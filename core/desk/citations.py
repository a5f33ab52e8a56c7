"""Passages beside a case: found when a reader asks, remembered as shown, and copied into the verdict that cites them.

A browser names a passage by its hash and the server copies what it has itself shown, so nobody can put words into a guideline's
mouth. The search sees the question or one sentence and nothing of teacher, rules or other readers. It never breaks the desk:
without an index, or with a damaged one, the answer is a sentence. Called by `core.desk.mailbox` and `core.adjudication`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import evidence
from core.desk.cases import blind_case
from core.errors import NotFound, UserError
from core.i18n import error_text, translate
from db import tables as t
from db.engine import read_session, write_session

log = logging.getLogger("consilium.desk")

QUESTION = "question"
TOP_K = 6
#: what of a passage is hashed, stored and shown
FIELDS = ("text", "title", "section", "source", "date", "file", "page", "index_name", "index_version")


def find(conflict_id: int, about: str, language: str) -> dict[str, Any]:
    """{about, passages, problem}: passages for the question or for a sentence (a2, t1), or the sentence that says why there are none.

    Raises NotFound("desk.no_such_case"), UserError("desk.field_unknown") for a sentence that the case does not have.
    """
    with read_session() as session:
        case = blind_case(session, conflict_id)
    text = _text_of(case, about)
    try:
        found = [_shown(one) for one in evidence.passages(text, language=case["language"], top_k=TOP_K)]
    except NotFound as error:  # nobody has built an index yet
        return {"about": about, "passages": [], "problem": error_text(error, language)}
    except (UserError, OSError, ValueError):  # damaged, of another version, or taken away while it was open: the log says which
        log.exception("evidence for case %s could not be searched", conflict_id)
        return {"about": about, "passages": [], "problem": translate("desk.evidence_failed", language)}
    _remember(found)
    return {"about": about, "passages": found, "problem": None}


def copies(session: Session, cited: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The passages that a verdict cites, copied whole, in the reader's order. `cited` holds (sha256, about).

    Raises UserError("desk.evidence_unknown") for one that the desk never showed.
    """
    wanted = [sha256 for sha256, _ in cited]
    rows = {row.sha256: row for row in session.scalars(select(t.ShownPassage).where(t.ShownPassage.sha256.in_(wanted)))}
    if any(sha256 not in rows for sha256 in wanted):
        raise UserError("desk.evidence_unknown")
    return [{"sha256": sha256, "about": about} | {name: getattr(rows[sha256], name) for name in FIELDS} for sha256, about in cited]


def _text_of(case: dict[str, Any], about: str) -> str:
    if about == QUESTION:
        return next((str(turn["text"]) for turn in reversed(case["turns"]) if turn["role"] == "user"), "")
    sentences = {"a": case["answer"], "t": case["thinking"]}.get(about[:1], [])
    number = int(about[1:]) if about[1:].isdecimal() else 0
    if not 1 <= number <= len(sentences):
        raise UserError("desk.field_unknown", field="about")
    return str(sentences[number - 1])


def _shown(passage: evidence.Passage) -> dict[str, Any]:
    values = {name: getattr(passage, name) for name in FIELDS}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return {"sha256": digest} | values


def _remember(shown: Iterable[dict[str, Any]]) -> None:
    """Keep what is shown for the first time; once a guideline has been read through, nothing is written any more."""
    by_hash = {one["sha256"]: one for one in shown}
    with read_session() as session:
        known = set(session.scalars(select(t.ShownPassage.sha256).where(t.ShownPassage.sha256.in_(by_hash))))
    if known >= set(by_hash):
        return
    with write_session() as session:  # asked again under the write lock: two readers may be shown the same passage at once
        known = set(session.scalars(select(t.ShownPassage.sha256).where(t.ShownPassage.sha256.in_(by_hash))))
        session.add_all(t.ShownPassage(**one) for digest, one in by_hash.items() if digest not in known)
