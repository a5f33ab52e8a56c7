"""What an export or a training took: the link from a decision to everything that was made of it."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short


class Use(Base):
    """One thing that one export or job took in. Append-only; written in the transaction that registers what came out.

    No foreign keys: what was used stays on record even when the thing itself is gone.
    """

    __tablename__ = "uses"
    __table_args__ = (
        UniqueConstraint("by_kind", "by_id", "what", "what_id"),
        CheckConstraint("by_kind IN ('job','export')", name="by_kind"),
        Index("ix_uses_what", "what", "what_id"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    #: job or export, and its number
    by_kind: Mapped[short]
    by_id: Mapped[int]
    #: adjudication, vote, completion, dataset, reward_config
    what: Mapped[short]
    what_id: Mapped[int]
    #: the thing's own hash at that time, where it has one
    sha256: Mapped[short] = mapped_column(default="", server_default="")
