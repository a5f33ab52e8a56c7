"""The reviewers' guideline: versions that never change, the one in force, and what people flagged in it.

Every signed decision stores the version it was made under, so a change of the guideline is seen in the agreement figures instead of
being mistaken for a change of the reviewers. The shipped text becomes version g1 at first use. Called by the desk, the guideline page
and the calibration rooms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.errors import Conflicting, NotFound, UserError
from core.models import require_role
from core.permit import permit
from core.records import Role
from core.settings import ROOT
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

SHIPPED = ROOT / "assets" / "guideline"
EDITORS = (Role.ADMIN,)
READERS = (Role.CLINICIAN, Role.PRODUCT, Role.ENGINEER, Role.ADMIN)
MAX_TEXT = 60_000
MIN_NOTE = 5


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A heading with its text. `heading` of the part before the first heading is the title."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class GuidelineShown:
    """One version. `num_decisions` were signed under it, `num_flags` of its paragraphs wait for an answer."""

    id: int
    version: str
    text_en: str
    text_zh: str
    note: str
    created_by: str
    created_at: datetime
    num_decisions: int
    num_flags: int

    def text(self, language: str) -> str:
        return self.text_zh if language == "zh" else self.text_en


@dataclass(frozen=True, slots=True)
class Flag:
    """What somebody found unclear or wrong, and the answer once there is one."""

    id: int
    version: str
    paragraph: str
    note: str
    by: str
    conflict_id: int | None
    created_at: datetime
    answer: str
    closed_by: str
    closed_at: datetime | None


def paragraphs(text: str) -> list[Paragraph]:
    """The guideline by its second-level headings; the part before them goes under its title."""
    pieces = re.split(r"(?m)^## +(.+)$", text)
    title, _, intro = pieces[0].strip().partition("\n")
    found = [Paragraph(title.removeprefix("# ").strip(), intro.strip())]
    return found + [Paragraph(pieces[i].strip(), pieces[i + 1].strip()) for i in range(1, len(pieces), 2)]


def in_force(session: Session) -> t.Guideline | None:
    """The newest version; None before the first one was stored."""
    return session.scalar(select(t.Guideline).order_by(t.Guideline.id.desc()).limit(1))


def ensure(session: Session) -> t.Guideline:
    """The version in force; stores the shipped text as g1 when there is none. Needs a write session."""
    found = in_force(session)
    if found is None:
        texts = {language: (SHIPPED / f"{language}.md").read_text("utf-8") for language in ("en", "zh")}
        found = t.Guideline(version="g1", text_en=texts["en"], text_zh=texts["zh"], note="shipped")
        session.add(found)
        session.flush()
    return found


def current() -> GuidelineShown:
    """The version in force, for screens."""
    with read_session() as session:
        is_there = in_force(session) is not None
    if not is_there:
        with write_session() as session:
            ensure(session)
    return versions()[0]


def versions() -> list[GuidelineShown]:
    """All versions, newest first."""
    with read_session() as session:
        decisions = select(func.count(t.Adjudication.id)).where(
            t.Adjudication.guideline_version == t.Guideline.version, t.Adjudication.stage == "signed"
        )
        flags = select(func.count(t.GuidelineFlag.id)).where(
            t.GuidelineFlag.guideline_id == t.Guideline.id, t.GuidelineFlag.closed_at.is_(None)
        )
        query = select(t.Guideline, t.User.display_name, decisions.scalar_subquery(), flags.scalar_subquery())
        rows = session.execute(query.outerjoin(t.User, t.User.id == t.Guideline.created_by).order_by(t.Guideline.id.desc()))
        return [
            GuidelineShown(row.id, row.version, row.text_en, row.text_zh, row.note, name or "", row.created_at, decided or 0, flagged or 0)
            for row, name, decided, flagged in rows
        ]


def publish(user_id: int, text_en: str, text_zh: str, note: str, *, expected_version: str) -> str:
    """Make a new version and put it in force; returns its name. Administrators only; `expected_version` is the one that was edited.

    Raises Forbidden, UserError("guideline.note_missing" / "guideline.text_missing" / "guideline.unchanged" /
    "guideline.headings_differ"), Conflicting("guideline.changed_meanwhile").
    """
    permit("guidelines.publish", user_id)
    text_en, text_zh, note = text_en.strip() + "\n", text_zh.strip() + "\n", note.strip()
    if len(note) < MIN_NOTE:
        raise UserError("guideline.note_missing")
    if not text_en.strip() or not text_zh.strip() or max(len(text_en), len(text_zh)) > MAX_TEXT:
        raise UserError("guideline.text_missing", limit=MAX_TEXT)
    if len(paragraphs(text_en)) != len(paragraphs(text_zh)):
        raise UserError("guideline.headings_differ", en=len(paragraphs(text_en)) - 1, zh=len(paragraphs(text_zh)) - 1)
    with write_session() as session:
        require_role(session.get(t.User, user_id), *EDITORS)
        now = ensure(session)
        if now.version != expected_version:
            raise Conflicting("guideline.changed_meanwhile", version=now.version)
        if (now.text_en, now.text_zh) == (text_en, text_zh):
            raise UserError("guideline.unchanged")
        number = (session.scalar(select(func.count(t.Guideline.id))) or 0) + 1
        row = t.Guideline(version=f"g{number}", text_en=text_en, text_zh=text_zh, note=note, created_by=user_id)
        session.add(row)
        session.flush()
        detail = {"version": row.version, "before": now.version}
        audit.record(session, "publish_guideline", "guideline", row.id, actor_id=user_id, detail=detail, reason=note)
        return row.version


def flag(user_id: int, paragraph: str, note: str, *, conflict_id: int | None = None) -> int:
    """Say that a paragraph is unclear or wrong. Raises Forbidden, UserError("guideline.note_missing" / "guideline.no_such_paragraph")."""
    permit("guidelines.flag", user_id)
    note = note.strip()
    if len(note) < MIN_NOTE:
        raise UserError("guideline.note_missing")
    with write_session() as session:
        require_role(session.get(t.User, user_id), *READERS)
        now = ensure(session)
        if paragraph not in {p.heading for text in (now.text_en, now.text_zh) for p in paragraphs(text)}:
            raise UserError("guideline.no_such_paragraph", paragraph=paragraph[:80])
        again = select(t.GuidelineFlag.id).where(
            t.GuidelineFlag.guideline_id == now.id,
            t.GuidelineFlag.user_id == user_id,
            t.GuidelineFlag.paragraph == paragraph,
            t.GuidelineFlag.note == note[:2000],
            t.GuidelineFlag.closed_at.is_(None),
        )
        if (known := session.scalar(again)) is not None:  # sent again by a browser that heard no answer
            return known
        row = t.GuidelineFlag(guideline_id=now.id, paragraph=paragraph, note=note[:2000], user_id=user_id, conflict_id=conflict_id)
        session.add(row)
        session.flush()
        detail = {"version": now.version, "paragraph": paragraph, "conflict_id": conflict_id}
        audit.record(session, "flag_guideline", "guideline_flag", row.id, actor_id=user_id, detail=detail)
        return row.id


def answer_flag(user_id: int, flag_id: int, answer: str) -> None:
    """Close a flag with what was decided. Raises Forbidden, UserError("guideline.note_missing"), NotFound("guideline.no_such_flag")."""
    permit("guidelines.answer_flag", user_id)
    if len(answer.strip()) < MIN_NOTE:
        raise UserError("guideline.note_missing")
    with write_session() as session:
        require_role(session.get(t.User, user_id), *EDITORS)
        row = session.get(t.GuidelineFlag, flag_id)
        if row is None or row.closed_at is not None:
            raise NotFound("guideline.no_such_flag", id=flag_id)
        row.closed_by, row.answer, row.closed_at = user_id, answer.strip()[:2000], utc_now()
        audit.record(session, "answer_guideline_flag", "guideline_flag", flag_id, actor_id=user_id, reason=row.answer)


def flags(*, is_open: bool | None = None, limit: int = 200) -> list[Flag]:
    """Flags, newest first; open ones, answered ones, or both (None)."""
    with read_session() as session:
        people = {row.id: row.display_name for row in session.execute(select(t.User.id, t.User.display_name))}
        query = select(t.GuidelineFlag, t.Guideline.version).join(t.Guideline, t.Guideline.id == t.GuidelineFlag.guideline_id)
        if is_open is not None:
            query = query.where(t.GuidelineFlag.closed_at.is_(None) if is_open else t.GuidelineFlag.closed_at.is_not(None))
        return [
            Flag(
                row.id,
                version,
                row.paragraph,
                row.note,
                people.get(row.user_id, "–"),
                row.conflict_id,
                row.created_at,
                row.answer,
                people.get(row.closed_by or 0, ""),
                row.closed_at,
            )
            for row, version in session.execute(query.order_by(t.GuidelineFlag.id.desc()).limit(limit))
        ]
