"""What was made of a decision, and decisions that were withdrawn afterwards."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class Use(Base):
    """One thing that one version, export or calibrated reward was made from. Append-only, in the transaction of what came out.

    No foreign keys: what was used stays on record even when the thing itself is gone.
    """

    __tablename__ = "uses"
    __table_args__ = (
        UniqueConstraint("by_kind", "by_id", "what", "what_id"),
        CheckConstraint("by_kind IN ('version','export','reward_config')", name="by_kind"),
        Index("ix_uses_what", "what", "what_id"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    #: version, export or reward_config, and its id
    by_kind: Mapped[short]
    by_id: Mapped[int]
    #: adjudication, vote, completion
    what: Mapped[short]
    what_id: Mapped[int]
    #: the thing's own hash at that time, where it has one
    sha256: Mapped[short] = mapped_column(default="", server_default="")


class Retraction(Base):
    """A signed decision withdrawn by a person, with a reason. The decision itself stays; nothing new is made of it. Append-only."""

    __tablename__ = "retractions"

    id: Mapped[pk] = mapped_column(init=False)
    adjudication_id: Mapped[int] = mapped_column(ForeignKey("adjudications.id"), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    reason: Mapped[str]
    signed_name: Mapped[short]
    signed_meaning: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
