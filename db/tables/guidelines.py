"""The reviewers' guideline in versions, what people flagged in it, and calibration rooms in which it is tried on the same cases."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class Guideline(Base):
    """One version, never changed. The newest is in force; every decision stores the version it was made under."""

    __tablename__ = "guidelines"

    id: Mapped[pk] = mapped_column(init=False)
    version: Mapped[short] = mapped_column(unique=True)
    text_en: Mapped[str]
    text_zh: Mapped[str]
    #: what changed and why
    note: Mapped[str] = mapped_column(default="")
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class GuidelineFlag(Base):
    """Somebody found a paragraph unclear or wrong, perhaps on a case."""

    __tablename__ = "guideline_flags"

    id: Mapped[pk] = mapped_column(init=False)
    guideline_id: Mapped[int] = mapped_column(ForeignKey("guidelines.id"))
    #: the paragraph's heading, as it stood
    paragraph: Mapped[str]
    note: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    conflict_id: Mapped[int | None] = mapped_column(ForeignKey("conflicts.id"), default=None)
    closed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    answer: Mapped[str] = mapped_column(default="")
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class Room(Base):
    """A calibration room: the same cases for everybody, blind first, then talked over, then judged again."""

    __tablename__ = "rooms"
    __table_args__ = (CheckConstraint("stage IN ('blind','discussion','second','closed')", name="stage"),)

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short]
    guideline_version: Mapped[short]
    stage: Mapped[short] = mapped_column(default="blind")
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    closed_at: Mapped[datetime | None] = mapped_column(default=None)


class RoomCase(Base):
    __tablename__ = "room_cases"
    __table_args__ = (UniqueConstraint("room_id", "conflict_id"),)

    id: Mapped[pk] = mapped_column(init=False)
    room_id: Mapped[int] = mapped_column(ForeignKey("rooms.id"), index=True)
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"))
    position: Mapped[int]


class RoomMember(Base):
    __tablename__ = "room_members"
    __table_args__ = (UniqueConstraint("room_id", "user_id"),)

    id: Mapped[pk] = mapped_column(init=False)
    room_id: Mapped[int] = mapped_column(ForeignKey("rooms.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


class RoomOpinion(Base):
    """One verdict of one person on one case in one round (1 blind, 2 after the talk). Append-only; never a training label."""

    __tablename__ = "room_opinions"
    __table_args__ = (UniqueConstraint("room_id", "conflict_id", "user_id", "round"),)

    id: Mapped[pk] = mapped_column(init=False)
    room_id: Mapped[int] = mapped_column(ForeignKey("rooms.id"), index=True)
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    round: Mapped[int]
    verdict: Mapped[short]
    note: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
