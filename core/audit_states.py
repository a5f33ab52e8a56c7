"""What a row was before an action and what it is after: SHA-256 of its state, taken where SQLAlchemy writes it.

A listener keeps the state of every audited row as it was when the transaction found it; `core.audit.record` asks for both hashes.
Columns at their defaults are left out of the hash, so that a later release may add columns and old rows keep their hashes.
Rows changed by a bulk UPDATE pass no listener: their `before` is unknown (None), never guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, UOWTransaction
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.orm.util import identity_key

from db import tables as t
from db.base import Base

#: object types of audit entries whose object_id is a row's id
TABLES: dict[str, type[Base]] = {
    "adjudication": t.Adjudication,
    "api_token": t.ApiToken,
    "bench_vote": t.BenchVote,
    "conflict": t.Conflict,
    "draw": t.Draw,
    "expansion_row": t.ExpansionRow,
    "expansion_set": t.ExpansionSet,
    "export": t.Export,
    "follow_up": t.FollowUp,
    "guideline": t.Guideline,
    "guideline_flag": t.GuidelineFlag,
    "identity": t.Identity,
    "job": t.Job,
    "model_version": t.ModelVersion,
    "release": t.Release,
    "retraction": t.Retraction,
    "retrieval_correction": t.RetrievalCorrection,
    "retrieval_model": t.RetrievalModel,
    "retrieval_trial": t.RetrievalTrial,
    "reward_config": t.RewardConfig,
    "rollback_proposal": t.RollbackProposal,
    "room": t.Room,
    "safety_case": t.SafetyCase,
    "schedule": t.Schedule,
    "search_index": t.SearchIndex,
    "search_plan": t.SearchPlan,
    "serving_event": t.ServingEvent,
    "session": t.LoginSession,
    "teacher_alarm": t.TeacherAlarm,
    "teacher_proposal": t.TeacherProposal,
    "user": t.User,
    "webhook": t.Webhook,
}
_TRACKED = frozenset(TABLES.values())
_BEFORE = "audit_states"


def state_hash(values: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a state; times and other objects as their text."""
    text = json.dumps(dict(values), sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def row_state(row: Base) -> dict[str, Any]:
    """The row's columns but those at their default."""
    return _without_defaults(type(row), {a.key: getattr(row, a.key) for a in inspect(type(row)).column_attrs})


def hashes(session: Session, object_type: str, object_id: str) -> tuple[str | None, str | None]:
    """Before and after of a row that this session holds, flushed. (None, None) for objects that are no such row."""
    kind = TABLES.get(object_type)
    if kind is None or not object_id.isdecimal():
        return None, None
    key = identity_key(kind, (int(object_id),))
    row = session.identity_map.get(key)
    if row is None:
        return None, None
    known, after = session.info.setdefault(_BEFORE, {}), state_hash(row_state(row))
    before, known[key] = known.get(key), after  # a second action of this transaction begins where the first one ended
    return before, after


@event.listens_for(Session, "before_flush")
def _remember(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    for row in session.dirty:
        if type(row) in _TRACKED and session.is_modified(row):
            known = session.info.setdefault(_BEFORE, {})
            key = identity_key(instance=row)
            if key not in known:
                known[key] = _original_hash(row)


def _original_hash(row: Any) -> str | None:
    """The state that was loaded; None when a changed column had not been read before."""
    found = inspect(row)
    values = {c.key: found.committed_state.get(c.key, found.dict.get(c.key)) for c in found.mapper.column_attrs}
    return None if NO_VALUE in values.values() else state_hash(_without_defaults(type(row), values))


def _without_defaults(kind: type[Base], values: dict[str, Any]) -> dict[str, Any]:
    columns = kind.__table__.columns
    return {key: value for key, value in values.items() if not _is_default(columns[key], value)}


def _is_default(column: Any, value: Any) -> bool:
    if value is None or value in ("", [], {}):
        return True
    server = getattr(column.server_default, "arg", None)
    return isinstance(server, str) and str(value) == server
