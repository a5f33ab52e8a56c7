"""Versions of the instruction that asks for expansions, and which was put in force when. Both only ever grow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class ExpansionPrompt(Base):
    """One instruction that was found or written. `scores` says on what it was measured and how well, beside what was in force."""

    __tablename__ = "expansion_prompts"

    id: Mapped[pk] = mapped_column(init=False)
    text: Mapped[str]
    #: "search" (a job found it) or "person"
    origin: Mapped[short]
    #: the model that worked by it while it was measured
    model: Mapped[short]
    scores: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class ExpansionPromptUse(Base):
    """A person put a version in force for a model; the newest counts. `prompt_id` NULL goes back to the shipped instruction."""

    __tablename__ = "expansion_prompt_uses"

    id: Mapped[pk] = mapped_column(init=False)
    model: Mapped[short]
    reason: Mapped[str]
    created_by: Mapped[int] = mapped_column(ForeignKey("users.id"))
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("expansion_prompts.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
