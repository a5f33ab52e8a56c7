"""Alarms when the teacher has changed: it names another model or fingerprint, its scores have shifted, or it disagrees with itself.

Scores also shift because answers get better; so a shift says "look", not "the teacher is to blame", and the second opinions
(same texts, judged twice) are what tells the two apart. An alarm stays open until a person closes it with a reason; while one
of its kind is open, no second one is raised. Called by the ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.records import Judgement
from core.teacher.agreement import agreement, ks, psi
from db import tables as t
from db.engine import read_session, write_session

#: verdicts per window: the newest against those just before
WINDOW = 200
#: new verdicts between two looks
LOOK_EVERY = 50
KS_P, KS_DISTANCE, PSI_SHIFT = 0.001, 0.2, 0.25
#: second opinions that are needed, and what is too much of a difference
MIN_AUDITS, MEAN_ABS, FLIP_SHARE = 20, 0.15, 0.10


def note_version(session: Session, judgement: Judgement, reported_model: str, fingerprint: str, *, job_id: int | None) -> None:
    """Compare what the endpoint calls itself with the newest verdict of this teacher; raise an alarm when it has changed."""
    query = select(t.TeacherVerdict.reported_model, t.TeacherVerdict.fingerprint).where(
        t.TeacherVerdict.teacher == judgement.teacher, t.TeacherVerdict.source == "asked"
    )
    last = session.execute(query.order_by(t.TeacherVerdict.id.desc()).limit(1)).first()
    if last is None or tuple(last) == (reported_model, fingerprint):
        return
    detail = {"model_before": last[0], "fingerprint_before": last[1], "model": reported_model, "fingerprint": fingerprint}
    known = select(t.TeacherVerdict.id).where(
        t.TeacherVerdict.teacher == judgement.teacher,
        t.TeacherVerdict.reported_model == reported_model,
        t.TeacherVerdict.fingerprint == fingerprint,
    )
    if session.scalar(known.limit(1)) is None:  # an endpoint with several replicas goes back and forth: one alarm each
        session.add(
            t.TeacherAlarm(kind="version", teacher=judgement.teacher, rubric_version=judgement.rubric_version, detail=detail, job_id=job_id)
        )


def look(teacher: str, *, job_id: int | None) -> None:
    """Compare the newest window with the one before, and the second opinions with the first. Reads first, writes only an alarm."""
    with read_session() as session:
        newest = select(t.TeacherVerdict.rubric_version).where(t.TeacherVerdict.teacher == teacher).order_by(t.TeacherVerdict.id.desc())
        rubric = session.scalar(newest.limit(1))
        if rubric is None:
            return
        found = {"distribution": distribution(session, teacher, rubric), "consistency": consistency(session, teacher, rubric)}
    for kind, detail in found.items():
        if detail is not None:
            with write_session() as session:
                _raise(session, kind, teacher, rubric, detail, job_id)


def distribution(session: Session, teacher: str, rubric: str) -> dict[str, Any] | None:
    """Numbers of two windows of `WINDOW` verdicts if they differ too much. Verdicts before the last closed alarm do not count."""
    query = select(t.TeacherVerdict.teacher_score).where(
        t.TeacherVerdict.teacher == teacher, t.TeacherVerdict.rubric_version == rubric, t.TeacherVerdict.source == "asked"
    )
    if (closed := _closed_at(session, "distribution", teacher)) is not None:
        query = query.where(t.TeacherVerdict.created_at > closed)
    newest = list(session.scalars(query.order_by(t.TeacherVerdict.id.desc()).limit(2 * WINDOW)))
    if len(newest) < 2 * WINDOW:
        return None
    after, before = newest[:WINDOW], newest[WINDOW:]
    (distance, p), index = ks(before, after), psi(before, after)
    if not (p < KS_P and distance > KS_DISTANCE) and index <= PSI_SHIFT:
        return None
    means = {"mean_before": sum(before) / WINDOW, "mean_after": sum(after) / WINDOW}
    return {"ks": distance, "p": p, "psi": index, "window": WINDOW, **means}


def consistency(session: Session, teacher: str, rubric: str) -> dict[str, Any] | None:
    """Numbers of the newest second opinions if the teacher contradicts itself too much."""
    query = select(t.TeacherAudit).where(t.TeacherAudit.teacher == teacher, t.TeacherAudit.rubric_version == rubric)
    if (closed := _closed_at(session, "consistency", teacher)) is not None:
        query = query.where(t.TeacherAudit.created_at > closed)
    rows = list(session.scalars(query.order_by(t.TeacherAudit.id.desc()).limit(WINDOW)))
    if len(rows) < MIN_AUDITS:
        return None
    found = agreement([(r.first_score, r.second_score) for r in rows], [(r.first_flag, r.second_flag) for r in rows])
    share = found.flips / found.num_flags if found.num_flags else 0.0
    if (found.low or 0.0) <= MEAN_ABS and found.flips_low <= FLIP_SHARE:
        return None
    return {"num": found.num, "mean_abs": found.mean_abs, "low": found.low, "flips": found.flips, "flip_share": share}


def _closed_at(session: Session, kind: str, teacher: str) -> datetime | None:
    return session.scalar(select(func.max(t.TeacherAlarm.closed_at)).where(t.TeacherAlarm.kind == kind, t.TeacherAlarm.teacher == teacher))


def _raise(session: Session, kind: str, teacher: str, rubric: str, detail: dict[str, Any], job_id: int | None) -> None:
    is_open = select(t.TeacherAlarm.id).where(
        t.TeacherAlarm.kind == kind,
        t.TeacherAlarm.teacher == teacher,
        t.TeacherAlarm.rubric_version == rubric,
        t.TeacherAlarm.closed_at.is_(None),
    )
    if session.scalar(is_open.limit(1)) is None:
        session.add(t.TeacherAlarm(kind=kind, teacher=teacher, rubric_version=rubric, detail=detail, job_id=job_id))
