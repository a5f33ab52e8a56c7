"""The demo as a chain of real jobs: nothing is prebuilt, every row and weight comes out of the queue.

demo_base -> sft -> sample -> score -> conflicts -> ppo -> evaluate, and the guideline index beside it. Called at the first
start by the launcher and by the button on the Jobs page; while one chain is active a second cannot be queued.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs import api
from db import tables as t

PREFIX = "demo:"

#: in order; each waits for the one before it
CHAIN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("demo_base", {"name": "demo-base", "dataset": "demo"}),
    ("sft", {"name": "demo-sft", "base_model": "demo-base", "dataset": "demo", "engine": "compact"}),
    ("sample", {"model": "demo-sft", "dataset": "demo"}),
    ("score", {"dataset": "demo", "model": "demo-sft"}),
    ("conflicts", {"dataset": "demo"}),
    ("ppo", {"name": "demo-rl-1", "sft_model": "demo-sft", "dataset": "demo"}),
    ("evaluate", {"name": "sft-vs-rl", "models": ["demo-sft", "demo-rl-1"], "dataset": "demo", "splits": ["test", "red_team"]}),
)
BESIDE: tuple[tuple[str, dict[str, Any]], ...] = (("index", {"name": "guidelines"}),)


def queue_demo(session: Session, created_by: int | None = None) -> list[int]:
    """Queue the whole demo in the caller's transaction and return its job ids; those of the active one when there is one."""
    active = active_demo(session)
    if active:
        return active
    ids: list[int] = []
    before: int | None = None
    for kind, config in CHAIN:
        before = api.enqueue(session, kind, config, created_by=created_by, after_id=before, dedup_key=PREFIX + kind)
        ids.append(before)
    return ids + [api.enqueue(session, kind, config, created_by=created_by, dedup_key=PREFIX + kind) for kind, config in BESIDE]


def active_demo(session: Session) -> list[int]:
    """Ids of the demo's jobs that are queued or running."""
    query = select(t.Job.id).where(t.Job.dedup_key.startswith(PREFIX), t.Job.status.in_(api.ACTIVE_STATUSES)).order_by(t.Job.id)
    return list(session.scalars(query))


def was_demo_run(session: Session) -> bool:
    """True once the demo has been queued, however it ended."""
    return session.scalar(select(t.Job.id).where(t.Job.dedup_key.startswith(PREFIX)).limit(1)) is not None
