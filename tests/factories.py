"""Small makers of rows for tests. Each takes a write session and returns a flushed row."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

from sqlalchemy.orm import Session

from core.completions import split_completion
from core.datasets import NewSample, content_hash
from core.records import Language, Message, Risk, Split
from core.signing import Proof
from db import tables as t
from db.base import utc_now
from db.engine import write_session

_number = count(1)


def user(session: Session, role: str = "clinician", **values: Any) -> t.User:
    n = next(_number)
    row = t.User(**{"username": f"{role}{n}", "display_name": f"Dr {role.title()} {n}", "role": role, **values})
    session.add(row)
    session.flush()
    return row


def proof(user_id: int) -> Proof:
    """A fresh sign-in of the account, to sign with: its password was typed just now."""
    with write_session() as session:
        row = t.LoginSession(token_hash=f"proof {next(_number)}", user_id=user_id, expires_at=utc_now() + timedelta(hours=1))
        session.add(row)
        session.flush()
        return Proof(row.id)


def dataset(session: Session, **values: Any) -> t.Dataset:
    row = t.Dataset(**{"name": f"set{next(_number)}", "kind": "prompts", **values})
    session.add(row)
    session.flush()
    return row


def sample(session: Session, text: str = "Chest pain for two days with cold sweat, can I take aspirin?", **values: Any) -> t.Sample:
    owner = values.pop("dataset", None) or dataset(session)
    new = NewSample((Message("user", text),), Language.EN, Split.DEV, risk=Risk.HIGH)
    row = t.Sample(
        **{
            "dataset_id": owner.id,
            "text": text,
            "messages": [{"role": "user", "content": text}],
            "language": "en",
            "split": "dev",
            "risk": "high",
            "content_hash": new.content_hash,
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def version(session: Session, kind: str = "sft", **values: Any) -> t.ModelVersion:
    row = t.ModelVersion(**{"name": f"{kind}-{next(_number)}", "kind": kind, **values})
    session.add(row)
    session.flush()
    return row


def completion(
    session: Session, text: str = "<think>\n1. Red flag.\n</think>\nRest at home. See a doctor if worse.", **values: Any
) -> t.Completion:
    owner = values.pop("sample", None) or sample(session)
    parts = split_completion(text)
    row = t.Completion(
        **{
            "sample_id": owner.id,
            "text": text,
            "thinking": parts.thinking,
            "answer": parts.answer,
            "content_hash": content_hash([text]),
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def conflict(session: Session, **values: Any) -> t.Conflict:
    owner = values.pop("completion", None) or completion(session)
    row = t.Conflict(**{"completion_id": owner.id, "sample_id": owner.sample_id, "kind": "score_gap", "gap": 0.5, **values})
    session.add(row)
    session.flush()
    return row
