"""The inspection pack: one zip with a case's whole life, for people (HTML) and programs (JSON), and the means to check it.

    inspection.html     everything in the reader's language
    inspection.json     the same rows as they are stored
    audit_entries.jsonl the audit entries about them, with hashes
    verify.py           recomputes every hash with Python alone, without this product
    manifest.json       SHA-256 of the files, where the chain stood, that the answers are generated

A pack tells everything, also what readers must not know of each other before they have signed: product people and administrators make
it. Making one is an entry of the chain. Called by the Record page and `./run.sh inspect CASE`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from core import audit, audit_anchor, lineage
from core.adjudication import row_hash
from core.errors import NotFound
from core.exports.service import AI_LABEL
from core.health import version as product_version
from core.home import Home
from core.i18n import translate
from core.inspection_html import render
from core.models import require_role
from core.permit import permit
from core.records import Role
from core.settings import ROOT
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

INSPECTORS = (Role.PRODUCT, Role.ADMIN)
FORMAT = 1
VERIFIER = ROOT / "assets" / "inspection" / "verify.py"


def make(home: Home, conflict_id: int, target: Path, *, by: int | None, language: str) -> dict[str, Any]:
    """Write the pack of a case to `target` (a .zip), record it, and return what is in inspection.json. `by` None: the command line.

    Raises Forbidden, NotFound("trust.no_such_case").
    """
    permit("inspection.make", by)
    with write_session() as session:
        if by is not None:
            require_role(session.get(t.User, by), *INSPECTORS)
        if session.get(t.Conflict, conflict_id) is None:
            raise NotFound("trust.no_such_case", id=conflict_id)
        audit.record(session, "inspect_case", "conflict", conflict_id, actor_id=by, detail={"language": language})
    with read_session() as session:
        life = collect(session, conflict_id)
        entries = [entry_record(one) for one in _entries(session, life)]
        chain = audit.examine(session, points=audit_anchor.points(home))
    life["audit_chain"] = {
        "entries": chain.num_entries,
        "last_hash": chain.last_hash,
        "holds": chain.broken is None,
        "anchors": [{"day": day, **asdict(points[-1])} for day, points in audit_anchor.listing(home)[:30]],
    }
    files = {
        "inspection.html": render(life, entries, language),
        "inspection.json": json.dumps(life, ensure_ascii=False, indent=1),
        "audit_entries.jsonl": "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries),
        "verify.py": VERIFIER.read_text(encoding="utf-8"),
        "README.txt": translate("trust.pack_readme", language, id=conflict_id),
    }
    about = {key: life[key] for key in ("format", "product", "made_at", "ai_generated", "ai_label", "case_id", "audit_chain")}
    about["files"] = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()}
    scratch = target.with_suffix(".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in {**files, "manifest.json": json.dumps(about, ensure_ascii=False, indent=1)}.items():
            pack.writestr(name, content)
    scratch.replace(target)
    return life


def collect(session: Session, conflict_id: int) -> dict[str, Any]:
    """Every stored row that belongs to a case, by room. Raises NotFound("trust.no_such_case")."""
    conflict = session.get(t.Conflict, conflict_id)
    if conflict is None:
        raise NotFound("trust.no_such_case", id=conflict_id)
    completion, sample = session.get_one(t.Completion, conflict.completion_id), session.get_one(t.Sample, conflict.sample_id)
    decisions = _all(session, t.Adjudication, t.Adjudication.conflict_id == conflict.id)
    decision_ids = [row.id for row in decisions]
    judgements = _all(session, t.Judgement, t.Judgement.completion_id == completion.id)
    rewards = _all(session, t.Reward, t.Reward.completion_id == completion.id)
    configs = {row.config_version for row in rewards} | {conflict.config_version}
    guidelines = {row.guideline_version for row in decisions}
    drawn = _all(session, t.DrawItem, t.DrawItem.conflict_id == conflict.id)
    behind = lineage.behind_answer(session, completion.id)
    people = {row.user_id for row in decisions} | {conflict.claimed_by}
    return {
        "format": FORMAT,
        "product": f"Consilium {product_version()}",
        "made_at": utc_now().isoformat(timespec="seconds"),
        "ai_generated": True,
        "ai_label": AI_LABEL,
        "case_id": conflict.id,
        "case": row_record(conflict),
        "question": row_record(sample),
        "dataset": row_record(session.get_one(t.Dataset, sample.dataset_id)),
        "answer": row_record(completion) | {"ai_generated": completion.source != "human"},
        "model_versions": [asdict(one) for one in behind],
        "jobs": [row_record(job) for job in _all(session, t.Job, t.Job.id.in_(_job_ids(conflict, completion, behind)))],
        "rule_scores": _records(_all(session, t.RuleScore, t.RuleScore.completion_id == completion.id)),
        "teacher_judgements": _records(judgements),
        "rewards": _records(rewards),
        "reward_configs": _records(_all(session, t.RewardConfig, t.RewardConfig.version.in_(configs - {None}))),
        "guidelines": [
            {key: value for key, value in row_record(row).items() if key not in ("text_en", "text_zh")}
            for row in _all(session, t.Guideline, t.Guideline.version.in_(guidelines - {None}))
        ],
        "draws": _records(drawn),
        "assignments": _records(_all(session, t.Assignment, t.Assignment.conflict_id == conflict.id)),
        "drafts": _records(_all(session, t.Draft, t.Draft.conflict_id == conflict.id)),
        "decisions": [row_record(row) | {"row_sha256": row_hash(row)} for row in decisions],
        "retractions": _records(_all(session, t.Retraction, t.Retraction.adjudication_id.in_(decision_ids))),
        "follow_ups": _records(_all(session, t.FollowUp, t.FollowUp.conflict_id == conflict.id)),
        "safety_cases": _records(_all(session, t.SafetyCase, t.SafetyCase.completion_id == completion.id)),
        "preference_pairs": _records(_all(session, t.PreferencePair, t.PreferencePair.adjudication_id.in_(decision_ids))),
        "made_of_decisions": {str(number): [asdict(one) for one in lineage.made_of(session, number)] for number in decision_ids},
        "exports_with_the_answer": sorted(
            session.scalars(
                select(t.Use.by_id).where(t.Use.what == "completion", t.Use.what_id == completion.id, t.Use.by_kind == "export")
            )
        ),
        "people": {
            str(row.id): {"name": row.display_name, "role": row.role, "speciality": row.speciality}
            for row in _all(session, t.User, t.User.id.in_(people - {None}))
        },
    }


def row_record(row: Any) -> dict[str, Any]:
    """A row as JSON: its columns, times in ISO 8601."""
    values = {a.key: getattr(row, a.key) for a in inspect(type(row)).column_attrs}
    return {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in values.items() if key != "lease_token"}


def entry_record(entry: t.AuditEntry) -> dict[str, Any]:
    """An audit entry with all that its hash is made of."""
    return row_record(entry) | {"created_at": entry.created_at.isoformat()}


def _records(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [row_record(row) for row in rows]


def _all(session: Session, kind: Any, condition: Any) -> list[Any]:
    return list(session.scalars(select(kind).where(condition).order_by(kind.id)))


def _job_ids(conflict: t.Conflict, completion: t.Completion, behind: list[lineage.Behind]) -> list[int]:
    return [number for number in {conflict.job_id, completion.job_id, *(one.job_id for one in behind)} if number]


def _entries(session: Session, life: dict[str, Any]) -> list[t.AuditEntry]:
    """The audit entries about anything in `life`, oldest first."""
    objects: dict[str, set[str]] = {
        "conflict": {str(life["case_id"])},
        "adjudication": {str(one["id"]) for one in life["decisions"]},
        "follow_up": {str(one["id"]) for one in life["follow_ups"]},
        "safety_case": {str(one["id"]) for one in life["safety_cases"]},
        "retraction": {str(one["id"]) for one in life["retractions"]},
        "job": {str(one["id"]) for one in life["jobs"]},
        "reward_config": {str(one["id"]) for one in life["reward_configs"]},
        "guideline": {str(one["id"]) for one in life["guidelines"]},
        "dataset": {str(life["dataset"]["id"])},
        "export": {str(one) for one in life["exports_with_the_answer"]},
    }
    names = [one["version"] for one in life["model_versions"]]
    objects["model_version"] = {str(number) for number in session.scalars(select(t.ModelVersion.id).where(t.ModelVersion.name.in_(names)))}
    found: dict[int, t.AuditEntry] = {}
    for kind, ids in objects.items():
        query = select(t.AuditEntry).where(t.AuditEntry.object_type == kind, t.AuditEntry.object_id.in_(ids))
        found |= {entry.id: entry for entry in session.scalars(query)}
    return [found[number] for number in sorted(found)]
