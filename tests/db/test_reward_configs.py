"""Versions of the reward: limits, who may decide, the signature, exactly one in force, the record, and the rules file."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from core import audit, reward_configs
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home
from core.records import Judgement, RewardConfig, RuleScore
from core.reward_limits import RANGES, safety_margin, violations
from core.rewards import AffineMap, combine
from core.scoring import open_scorer, reward_config
from db import tables as t
from db.engine import read_session, write_session
from tests import factories

NEW = RewardConfig("", chain=0.30, emergency=0.30, teacher=0.20, risk_penalty=0.20, conflict_threshold=0.4)


@pytest.fixture
def people(home: Home) -> dict[str, int]:
    with write_session() as session:
        rows = {role: factories.user(session, role) for role in ("engineer", "product", "clinician")}
        rows |= {"admin": factories.user(session, "admin"), "other": factories.user(session, "admin")}
        return {name: row.id for name, row in rows.items()}


def name_of(user_id: int) -> str:
    with read_session() as session:
        row = session.get(t.User, user_id)
        assert row is not None
        return row.display_name


def sign(user_id: int, version: str, expected: str = "v1") -> None:
    reward_configs.approve(
        user_id, version, reason="agrees with us", signed_name=name_of(user_id), expected_in_force=expected, proof=factories.proof(user_id)
    )


def in_force() -> str:
    with read_session() as session:
        found = reward_config(session)
        assert found is not None
        return found.version


def test_a_proposal_changes_nothing_until_another_administrator_signs_it(home: Home, people: dict[str, int]) -> None:
    version = reward_configs.propose(people["engineer"], NEW, reason="experts agree more", evidence={"n": 300})
    assert (version, in_force()) == ("v2", "v1")
    assert open_scorer(home).config.version == "v1"
    sign(people["admin"], version)
    assert open_scorer(home).config == replace(NEW, version="v2")
    shown = {one.config.version: one for one in reward_configs.listing()}
    assert [one.is_in_force for one in shown.values()] == [True, False]
    assert shown["v2"].evidence == {"n": 300}
    assert (shown["v2"].parent_version, shown["v2"].signed_name) == ("v1", name_of(people["admin"]))
    with read_session() as session:
        entries = session.execute(select(t.AuditEntry.action, t.AuditEntry.actor_id).order_by(t.AuditEntry.id)).all()
        assert entries[-2:] == [("propose_reward", people["engineer"]), ("approve_reward", people["admin"])]
        assert audit.verify(session) is None


def test_the_approved_last_is_in_force_not_the_highest_number(home: Home, people: dict[str, int]) -> None:
    first = reward_configs.propose(people["engineer"], NEW, reason="first idea")
    second = reward_configs.propose(people["engineer"], replace(NEW, conflict_threshold=0.5), reason="second idea")
    sign(people["admin"], second)
    sign(people["other"], first, expected=second)
    assert in_force() == first == "v2"
    assert sum(one.is_in_force for one in reward_configs.listing()) == 1


def test_who_may_do_what(home: Home, people: dict[str, int]) -> None:
    for role in ("product", "clinician"):
        with pytest.raises(Forbidden):
            reward_configs.propose(people[role], NEW, reason="a reason")
    version = reward_configs.propose(people["admin"], NEW, reason="a reason")
    with pytest.raises(Forbidden, match=r"reward\.own_proposal"):
        sign(people["admin"], version)
    for role in ("engineer", "product", "clinician"):
        with pytest.raises(Forbidden, match="forbidden"):
            sign(people[role], version)
    with pytest.raises(Forbidden, match="forbidden"):
        reward_configs.reject(people["engineer"], version, reason="not mine")
    with pytest.raises(UserError, match=r"reward\.sign_with_name"):
        reward_configs.approve(
            people["other"],
            version,
            reason="good enough",
            signed_name="Dr Nobody",
            expected_in_force="v1",
            proof=factories.proof(people["other"]),
        )
    with pytest.raises(UserError, match=r"reward\.reason_missing"):
        reward_configs.approve(
            people["other"],
            version,
            reason=" ",
            signed_name=name_of(people["other"]),
            expected_in_force="v1",
            proof=factories.proof(people["other"]),
        )
    with pytest.raises(Conflicting, match=r"reward\.in_force_changed"):
        sign(people["other"], version, expected="v7")
    assert in_force() == "v1"
    sign(people["other"], version)
    with pytest.raises(Conflicting, match=r"reward\.already_decided"):
        reward_configs.reject(people["other"], version, reason="too late now")
    with pytest.raises(NotFound):
        sign(people["other"], "v99")


def test_a_rejected_proposal_is_kept_and_cannot_come_back(home: Home, people: dict[str, int]) -> None:
    version = reward_configs.propose(people["engineer"], NEW, reason="a reason")
    reward_configs.reject(people["engineer"], version, reason="I was wrong")
    assert reward_configs.get(version).status == "rejected"
    with pytest.raises(Conflicting):
        sign(people["admin"], version)
    assert in_force() == "v1"
    with read_session() as session:
        assert session.scalar(select(t.AuditEntry.action).order_by(t.AuditEntry.id.desc()).limit(1)) == "reject_reward"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"emergency": -0.25}, "out_of_range"),
        ({"risk_penalty": -0.15}, "out_of_range"),
        ({"chain": math.nan}, "out_of_range"),
        ({"conflict_threshold": 0.95}, "out_of_range"),
        ({"chain": 0.6, "teacher": 0.6, "emergency": 0.5, "risk_penalty": 0.5}, "sum_too_large"),
        ({"chain": 0.1, "teacher": 0.1, "emergency": 0.2}, "too_little_benefit"),
        ({"chain": 0.5, "teacher": 0.3, "emergency": 0.1, "risk_penalty": 0.1}, "below_safety_floor"),
        ({"chain": 0.35, "emergency": 0.25, "teacher": 0.25, "risk_penalty": 0.15, "conflict_threshold": 0.35}, "nothing_changes"),
    ],
)
def test_limits(home: Home, people: dict[str, int], changes: dict[str, float], code: str) -> None:
    with pytest.raises(UserError, match=rf"reward\.{code}"):
        reward_configs.propose(people["engineer"], replace(NEW, **changes), reason="a reason")
    with read_session() as session:
        assert session.scalar(select(func.count()).select_from(t.RewardConfig)) <= 1


WEIGHT = st.floats(0, 0.6)


@given(WEIGHT, WEIGHT, WEIGHT, WEIGHT)
def test_inside_the_limits_a_wholly_unsafe_answer_never_beats_a_safe_one_half_as_good(c: float, e: float, t_: float, r: float) -> None:
    config = RewardConfig("x", chain=c, emergency=e, teacher=t_, risk_penalty=r)
    if violations(config):
        return

    def value(chain: float, emergency: float, penalty: float, teacher: float) -> float:
        parts = {"chain": chain, "emergency": emergency, "prescription": penalty, "verbosity": 0.0}
        found = combine([RuleScore(n, v, "lex") for n, v in parts.items()], Judgement("t", "r", teacher), config).value
        assert found is not None
        return found

    assert value(1, 0, 1, 1) <= value(0.5, 1, 0, 0.5) + 1e-5
    assert safety_margin(config) >= -1e-5
    assert all(low - 1e-5 <= getattr(config, name) <= high + 1e-5 for name, (low, high) in RANGES.items())


def test_the_rules_file_speaks_of_the_config_in_force(home: Home, people: dict[str, int]) -> None:
    path = reward_configs.write_rules(home)
    assert path == home.root / "data" / "rl" / "reward_rules.md"
    assert "R = 0.35 · chain + 0.25 · emergency + 0.25 · teacher − 0.15 · risk_penalty" in path.read_text(encoding="utf-8")
    sign(people["admin"], reward_configs.propose(people["engineer"], NEW, reason="experts agree more"))
    text = path.read_text(encoding="utf-8")
    assert "R = 0.3 · chain + 0.3 · emergency + 0.2 · teacher − 0.2 · risk_penalty" in text
    assert name_of(people["admin"]) in text
    assert "奖励规则 · v2" in text
    assert "$" not in text
    # chain 0.5, emergency 0.5, teacher 0.4, prescription 0.7: told by the real rules, added by hand here
    assert f"= {0.3 * 0.5 + 0.3 * 0.5 + 0.2 * 0.4 - 0.2 * 0.7:.4f}" in text
    assert "a = 0.0300, b = 0.9100 (222 rows, R² 0.800)" in reward_configs.rules_markdown("v1", rules_only=AffineMap(0.03, 0.91, 222, 0.8))
