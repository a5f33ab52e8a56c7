"""What people said to the flags of the reward watch. Append-only: the newest answer to a flag of a version counts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class HackAnswer(Base):
    __tablename__ = "hack_answers"
    __table_args__ = (CheckConstraint("answer IN ('harmless','hack')", name="answer"),)

    id: Mapped[pk] = mapped_column(init=False)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    #: code and feature of the flag as in hack_watch.json, e.g. length:num_tokens
    flag: Mapped[short]
    #: harmless: looked at and explained; hack: the policy does exploit the reward
    answer: Mapped[short]
    reason: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
