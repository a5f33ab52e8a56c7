"""Who identifies whom, and who decided what about it: the policy in force, the rows that wait, and the decisions on them.

A row with a hit is stored in no table that a page, a job or the teacher reads: it waits here, seen only masked, until a named
person releases it with a reason, has it rewritten with surrogates, or drops it. Every decision is in the audit chain, in the
same transaction. Called by the importer, the Data page and the doors (`core.privacy_doors`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.deidentify import KINDS as KINDS
from core.deidentify import Surrogates
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import current_home
from core.importing import screening
from core.importing.rows import Item
from core.importing.store import add_items, held_out
from core.permit import permit
from core.records import TRAINING_SPLITS
from core.serving.token import kept_secret
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

if TYPE_CHECKING:
    from core.accounts import Person
    from core.importing.importer import Report

ACTIONS = ("quarantine", "surrogate", "off")
KEY_NAME = "surrogate_key"
MOST_REASON = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done with a hit. `by` and `at` are empty where nobody has chosen: then it is quarantine."""

    action: str = "quarantine"
    reason: str = ""
    by: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One row as people see it; `preview` is masked."""

    id: int
    dataset: str
    row: int | None
    sample_id: int | None
    place: str
    kinds: dict[str, int]
    preview: str
    status: str
    reason: str
    decided_by: str
    decided_at: datetime | None
    created_at: datetime


def policy() -> Policy:
    """The policy in force."""
    query = select(t.PrivacyPolicy, t.User.display_name).join(t.User, t.User.id == t.PrivacyPolicy.created_by)
    with read_session() as session:
        found = session.execute(query.order_by(t.PrivacyPolicy.id.desc()).limit(1)).first()
    return Policy(found[0].action, found[0].reason, found[1], found[0].created_at) if found else Policy()


def set_policy(person: Person, action: str, reason: str) -> None:
    """Choose what is done with hits from now on. Administrators.

    Raises Forbidden("forbidden"), UserError("privacy.action_unknown") and UserError("privacy.reason_needed").
    """
    permit("quarantine.set_policy", person)
    if person.role != "admin":
        raise Forbidden("forbidden", role=person.role)
    if action not in ACTIONS:
        raise UserError("privacy.action_unknown", action=action)
    reason = _said(reason)
    before = policy().action
    with write_session() as session:
        row = t.PrivacyPolicy(action=action, reason=reason, created_by=person.id)
        session.add(row)
        session.flush()
        detail = {"before": before, "after": action}
        audit.record(session, "privacy.policy", "privacy_policy", row.id, actor_id=person.id, detail=detail, reason=reason)


def surrogates_for(scope: str, document: str) -> Surrogates:
    """The surrogates of one document of a dataset, by this home's key."""
    return Surrogates(kept_secret(current_home(), KEY_NAME).encode(), scope, document)


@dataclass(slots=True)
class Screen:
    """Looks at every row of one import. Rows that must wait are in `held`, by the identity of the row object."""

    policy: Policy
    dataset: str
    id_column: str
    held: dict[int, tuple[dict[str, int], str]] = field(default_factory=dict)
    num_surrogates: int = 0
    identifiers: Counter[str] = field(default_factory=Counter)

    def passed(self, item: Item) -> Item:
        """The row as it goes on: itself, noted as held, or with surrogates."""
        if self.policy.action == "off":
            return item
        said, found = screening.look(item, id_column=self.id_column)
        kinds = screening.kinds_of(found)
        if not kinds:
            return item
        self.identifiers.update(kinds)
        if self.policy.action == "surrogate":
            self.num_surrogates += 1
            return screening.with_surrogates(item, surrogates_for(self.dataset, str(item.row)), id_column=self.id_column)
        self.held[id(item)] = (kinds, screening.preview_of(said, found))
        return item

    def tell(self, report: Report, num_waiting: int) -> None:
        """The figures for the import's report."""
        report.privacy_action, report.num_quarantined, report.num_surrogates = self.policy.action, num_waiting, self.num_surrogates
        report.identifiers = dict(self.identifiers)
        if self.policy.action == "off":
            report.privacy_note = f"{self.policy.by}, {self.policy.at:%Y-%m-%d %H:%M} UTC: {self.policy.reason}"


def open_screen(dataset: str, id_column: str) -> Screen:
    """The screen of an import, under the policy in force."""
    return Screen(policy(), dataset, id_column)


def hold(session: Session, dataset: t.Dataset, rows: Sequence[tuple[Item, dict[str, int], str]], job_id: int | None) -> None:
    """Store rows of an import that wait, in the import's transaction."""
    for item, kinds, preview in rows:
        payload = screening.to_payload(item)
        session.add(t.QuarantineItem(dataset_id=dataset.id, row=item.row, kinds=kinds, preview=preview, payload=payload, job_id=job_id))


def counts() -> dict[str, int]:
    """Rows that wait, by kind of identifier (a row with two kinds counts twice) and under "" all of them."""
    with read_session() as session:
        rows = list(session.scalars(select(t.QuarantineItem.kinds).where(t.QuarantineItem.status == "held")))
    found = Counter(kind for kinds in rows for kind in kinds)
    return {"": len(rows), **dict(found.most_common())}


def waiting(
    *, dataset_id: int | None = None, kind: str = "", status: str = "held", page: int = 0, size: int = 20
) -> tuple[list[Waiting], int]:
    """One page of rows, oldest first, and how many match."""
    item = t.QuarantineItem
    query = select(item, t.Dataset.name, t.User.display_name).join(t.Dataset, t.Dataset.id == item.dataset_id)
    query = query.outerjoin(t.User, t.User.id == item.decided_by).where(item.status == status)
    if dataset_id is not None:
        query = query.where(item.dataset_id == dataset_id)
    if kind:
        query = query.where(item.kinds[kind].as_integer() > 0)
    with read_session() as session:
        total = session.scalar(select(func.count()).select_from(query.with_only_columns(item.id).subquery())) or 0
        rows = session.execute(query.order_by(item.id).offset(page * size).limit(size)).all()
    return [_shown(row, name, by) for row, name, by in rows], total


def _shown(row: t.QuarantineItem, dataset: str, by: str | None) -> Waiting:
    return Waiting(
        id=row.id,
        dataset=dataset,
        row=row.row,
        sample_id=row.sample_id,
        place=row.place,
        kinds=row.kinds,
        preview=row.preview,
        status=row.status,
        reason=row.reason,
        decided_by=by or "",
        decided_at=row.decided_at,
        created_at=row.created_at,
    )


def decide(person: Person, ids: Sequence[int], decision: str, reason: str) -> int:
    """Release rows as they are (administrators), put surrogates into them, or drop them (engineers too); how many were decided.

    All or none. Raises Forbidden("forbidden"), UserError("privacy.reason_needed"), NotFound("privacy.no_such_row"),
    Conflicting("privacy.decided_already") and UserError("privacy.held_out") when a prompt meanwhile stands in an evaluation split.
    """
    permit("quarantine.decide", person)
    allowed = {"released": ("admin",), "surrogate": ("admin", "engineer"), "dropped": ("admin", "engineer")}
    if decision not in allowed:
        raise UserError("privacy.action_unknown", action=decision)
    if person.role not in allowed[decision]:
        raise Forbidden("forbidden", role=person.role)
    reason = _said(reason)
    with write_session() as session:
        rows = list(session.scalars(select(t.QuarantineItem).where(t.QuarantineItem.id.in_(ids)).order_by(t.QuarantineItem.id)))
        if len(rows) != len(set(ids)):
            raise NotFound("privacy.no_such_row")
        for row in rows:
            if row.status != "held":
                raise Conflicting("privacy.decided_already", row=row.row or row.sample_id)
            _carry_out(session, row, decision)
            row.status, row.reason, row.decided_by, row.decided_at, row.payload = decision, reason, person.id, utc_now(), {}
            detail = {"dataset_id": row.dataset_id, "row": row.row, "sample_id": row.sample_id, "kinds": row.kinds}
            audit.record(session, f"quarantine.{decision}", "quarantine_item", row.id, actor_id=person.id, detail=detail, reason=reason)
    return len(rows)


def _carry_out(session: Session, row: t.QuarantineItem, decision: str) -> None:
    """What a decision does to the dataset."""
    if row.place == "teacher":
        if decision == "surrogate":
            raise UserError("privacy.not_for_stored")
        if decision == "released":
            _clear_sample(session, row)
        return  # dropped: the stored sample stays, and the door goes on refusing it
    if decision == "dropped":
        return
    dataset = session.get_one(t.Dataset, row.dataset_id)
    item = screening.from_payload(row.payload)
    column = str(dataset.report.get("mapping", {}).get("external_id", ""))
    if decision == "surrogate":
        item = screening.with_surrogates(item, surrogates_for(dataset.name, str(item.row)), id_column=column)
    else:
        item = screening.cleared(item, id_column=column)
    from core.importing.importer import Report  # the importer knows this module

    if item.split in TRAINING_SPLITS and (where := held_out(session).get(item.digest)) is not None:
        raise UserError("privacy.held_out", row=item.row, dataset=where)
    add_items(session, dataset, [item], Report("", {}, "", ""), row.job_id)


def _clear_sample(session: Session, row: t.QuarantineItem) -> None:
    """Let a stored sample through the doors from now on."""
    sample = session.get_one(t.Sample, row.sample_id)
    marks = set(sample.meta.get("cleared", ())) | set(row.payload.get("marks", ()))
    sample.meta = {**sample.meta, "cleared": sorted(marks)}


def _said(reason: str) -> str:
    reason = reason.strip()
    if len(reason) < 4:
        raise UserError("privacy.reason_needed")
    return reason[:MOST_REASON]


def hold_sample(sample_id: int, kinds: dict[str, int], preview: str, marks: Sequence[str]) -> None:
    """Note that the teacher's door refused a stored sample: one row per sample until somebody decides, and none after "dropped"."""
    with write_session() as session:
        sample = session.get(t.Sample, sample_id)
        query = select(t.QuarantineItem).where(t.QuarantineItem.sample_id == sample_id, t.QuarantineItem.place == "teacher")
        known = session.scalar(query.order_by(t.QuarantineItem.id.desc()).limit(1))
        if sample is None or (known is not None and known.status == "dropped"):
            return
        if known is not None and known.status == "held":
            known.payload = {"marks": sorted({*known.payload.get("marks", ()), *marks})}
            return
        session.add(
            t.QuarantineItem(
                dataset_id=sample.dataset_id,
                row=None,
                kinds=kinds,
                preview=preview,
                place="teacher",
                sample_id=sample_id,
                payload={"marks": sorted(set(marks))},
            )
        )
