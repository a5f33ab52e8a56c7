"""Versions of the reward: proposed with reason and evidence, then approved and signed, or rejected, by an administrator.

Exactly one config is in force: the one approved last. Nothing is ever changed or deleted: going back to earlier weights is a
new proposal with them. Every reward row, job result and model manifest names the version it was made with. The limits of
`core.reward_limits` hold for every proposal, whoever makes it. An approval writes HOME/data/rl/reward_rules.md anew.

Called by the Reward page, the calibration job, the command line and the release (`rules_markdown`).
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from core import audit, lineage
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home, current_home
from core.models import check_role, require_role
from core.permit import permit
from core.records import RewardConfig, Role
from core.reward_limits import violations, weights_of
from core.reward_rules import RulesFacts, render
from core.rewards import AffineMap
from core.scoring import config_row, ensure_reward_config, load_config
from core.signing import Proof, prove, signature
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

log = logging.getLogger("consilium.reward")

PROPOSERS = (Role.ENGINEER, Role.ADMIN)
MIN_REASON = 5
_NUMBER = re.compile(r"v(\d+)")


@dataclass(frozen=True, slots=True)
class ConfigShown:
    """One version with its whole story. Names are those of people as they are now; empty for the shipped config."""

    config: RewardConfig
    status: str
    is_in_force: bool
    reason: str
    proposed_by: str
    proposed_by_id: int | None
    proposed_at: datetime
    parent_version: str | None
    evidence: dict[str, Any] | None
    verdict_thresholds: dict[str, float] | None
    decided_by: str
    decided_at: datetime | None
    decision_reason: str
    signed_name: str | None
    job_id: int | None


def propose(
    user_id: int | None,
    weights: RewardConfig,
    *,
    reason: str,
    evidence: Mapping[str, Any] | None = None,
    verdict_thresholds: Mapping[str, float] | None = None,
    job_id: int | None = None,
    decisions: Sequence[int] = (),
) -> str:
    """Store `weights` (its version is ignored) as a proposal; returns the new version's name.

    `user_id` None is a job that nobody in particular queued. Raises Forbidden, UserError("reward.reason_missing"), the codes of
    `core.reward_limits.violations`, and UserError("reward.nothing_changes") when it equals the config in force.
    """
    permit("reward_configs.propose", user_id)
    reason = reason.strip()
    if len(reason) < MIN_REASON:
        raise UserError("reward.reason_missing")
    for code, params in violations(weights):
        raise UserError(f"reward.{code}", **params)
    current = ensure_reward_config()
    with write_session() as session:
        if user_id is not None:
            require_role(session.get(t.User, user_id), *PROPOSERS)
        current = _in_force(session)
        if replace(weights, version=current.version) == current:
            raise UserError("reward.nothing_changes", version=current.version)
        row = t.RewardConfig(
            version=_next_version(session),
            chain=weights.chain,
            emergency=weights.emergency,
            risk_penalty=weights.risk_penalty,
            teacher=weights.teacher,
            conflict_threshold=weights.conflict_threshold,
            reason=reason,
            created_by=user_id,
            parent_version=current.version,
            evidence=dict(evidence) if evidence is not None else None,
            verdict_thresholds=dict(verdict_thresholds) if verdict_thresholds is not None else None,
            job_id=job_id,
        )
        session.add(row)
        session.flush()
        lineage.note_uses(session, "reward_config", row.id, {"adjudication": dict.fromkeys(decisions, "")})
        detail = {"version": row.version, "parent": current.version, "job": job_id, **_numbers(row)}
        audit.record(session, "propose_reward", "reward_config", row.id, actor_id=user_id, detail=detail, reason=reason)
        return row.version


def approve(user_id: int, version: str, *, reason: str, signed_name: str, expected_in_force: str, proof: Proof | None = None) -> None:
    """Put a proposal in force. The signer is an administrator other than the proposer and types their own name.

    `expected_in_force` is the version that the person saw in force. Raises Forbidden, UserError("reward.reason_missing",
    "reward.sign_with_name"), Forbidden("reward.own_proposal"), NotFound("reward.no_such_version"),
    Conflicting("reward.already_decided", "reward.in_force_changed") and the codes of `violations`; as
    `core.signing.prove`.
    """
    check_role(user_id, Role.ADMIN)
    reason = _reason(reason)
    prove(user_id, proof)
    with write_session() as session:
        user = require_role(session.get(t.User, user_id), Role.ADMIN)
        row = _proposal(session, version)
        if row.created_by == user.id:
            raise Forbidden("reward.own_proposal")
        if _plain(signed_name) != _plain(user.display_name):
            raise UserError("reward.sign_with_name", name=user.display_name)
        for code, params in violations(load_config(row)):
            raise UserError(f"reward.{code}", **params)
        current = _in_force(session)
        if current.version != expected_in_force:
            raise Conflicting("reward.in_force_changed", version=current.version)
        row.status, row.approved_by, row.decided_at = "approved", user.id, utc_now()
        row.decision_reason, row.signed_name = reason, user.display_name
        detail = {"version": row.version, "replaces": current.version, "signed_name": user.display_name, **_numbers(row)}
        detail["signatures"] = [signature(user, "reward")]
        audit.record(session, "approve_reward", "reward_config", row.id, actor_id=user.id, detail=detail, reason=reason)
    try:
        write_rules()
    except OSError as error:  # the approval stands; `./run.sh reward rules` and the release write the text anew
        log.warning("reward_rules.md not written: %s", error)


def reject(user_id: int, version: str, *, reason: str) -> None:
    """Close a proposal: an administrator, or the proposer who withdraws it. Raises as `approve`."""
    check_role(user_id, *PROPOSERS)
    reason = _reason(reason)
    with write_session() as session:
        user = require_role(session.get(t.User, user_id), *PROPOSERS)
        row = _proposal(session, version)
        if user.role != Role.ADMIN and row.created_by != user.id:
            raise Forbidden("forbidden")
        row.status, row.approved_by, row.decided_at, row.decision_reason = "rejected", user.id, utc_now(), reason
        detail = {"version": row.version}
        audit.record(session, "reject_reward", "reward_config", row.id, actor_id=user.id, detail=detail, reason=reason)


def listing() -> list[ConfigShown]:
    """Every version, newest first. Stores the shipped one first when there is none."""
    ensure_reward_config()
    with read_session() as session:
        return _listing(session)


def get(version: str | None = None) -> ConfigShown:
    """One version, or the one in force. Raises NotFound("reward.no_such_version")."""
    for one in listing():
        if one.config.version == version or (version is None and one.is_in_force):
            return one
    raise NotFound("reward.no_such_version", version=version)


def rules_markdown(version: str | None = None, *, rules_only: AffineMap | None = None) -> str:
    """The reward in words and numbers, both languages, for the version in force or the one named.

    `rules_only` is the map of a run in which the teacher was out; without one the text says that each run fits its own.
    """
    one = get(version)
    decided = one.decided_at or one.proposed_at
    facts = RulesFacts(one.status, one.signed_name or "", f"{decided:%Y-%m-%d %H:%M} UTC", one.reason, one.verdict_thresholds)
    return render(one.config, facts, rules_only)


def rules_path(home: Home) -> Path:
    return home.root / "data" / "rl" / "reward_rules.md"


def write_rules(home: Home | None = None) -> Path:
    """Write HOME/data/rl/reward_rules.md for the version in force, atomically; returns its path. Raises OSError."""
    path = rules_path(home or current_home())
    text = rules_markdown()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".md.tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
    return path


def _listing(session: Session) -> list[ConfigShown]:
    proposer, decider = aliased(t.User), aliased(t.User)
    query = (
        select(t.RewardConfig, proposer.display_name, decider.display_name)
        .outerjoin(proposer, proposer.id == t.RewardConfig.created_by)
        .outerjoin(decider, decider.id == t.RewardConfig.approved_by)
        .order_by(t.RewardConfig.id.desc())
    )
    now = config_row(session)
    return [
        ConfigShown(
            load_config(row),
            row.status,
            now is not None and row.id == now.id,
            row.reason,
            by or "",
            row.created_by,
            row.created_at,
            row.parent_version,
            row.evidence,
            row.verdict_thresholds,
            decided or "",
            row.decided_at,
            row.decision_reason,
            row.signed_name,
            row.job_id,
        )
        for row, by, decided in session.execute(query)
    ]


def _in_force(session: Session) -> RewardConfig:
    row = config_row(session)
    if row is None:
        raise NotFound("reward.no_such_version", version="v1")
    return load_config(row)


def _proposal(session: Session, version: str) -> t.RewardConfig:
    row = session.scalar(select(t.RewardConfig).where(t.RewardConfig.version == version))
    if row is None:
        raise NotFound("reward.no_such_version", version=version)
    if row.status != "proposed":
        raise Conflicting("reward.already_decided", version=version)
    return row


def _next_version(session: Session) -> str:
    numbers = [int(found[1]) for name in session.scalars(select(t.RewardConfig.version)) if (found := _NUMBER.fullmatch(name))]
    return f"v{max(numbers, default=0) + 1}"


def _numbers(row: t.RewardConfig) -> dict[str, float]:
    return {**weights_of(load_config(row)), "conflict_threshold": row.conflict_threshold}


def _reason(reason: str) -> str:
    if len(reason.strip()) < MIN_REASON:
        raise UserError("reward.reason_missing")
    return reason.strip()


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
