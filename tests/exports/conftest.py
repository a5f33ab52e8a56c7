"""A home in which clinicians have decided and product staff have voted, through the very tables that the screens write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from core.home import Home
from db import tables as t
from db.base import utc_now
from db.engine import write_session
from tests import factories


@dataclass(frozen=True)
class Decided:
    admin: int
    clinician: int
    train_sample: int
    test_sample: int


def signed(session: Any, conflict: t.Conflict, user: t.User, verdict: str, **values: Any) -> t.Adjudication:
    """A signed row as `core.adjudication.sign` stores it."""
    row = t.Adjudication(
        **{
            "conflict_id": conflict.id,
            "user_id": user.id,
            "stage": "signed",
            "client_id": f"c{conflict.id}-{values.get('supersedes_id', '')}",
            "verdict": verdict,
            "signed_at": utc_now(),
            "signed_name": user.display_name,
            **values,
        }
    )
    session.add(row)
    session.flush()
    conflict.status = "adjudicated"
    return row


@pytest.fixture
def decided(home: Home) -> Decided:
    with write_session() as session:
        admin, clinician = factories.user(session, "admin"), factories.user(session, "clinician", display_name="Dr Wang Secret")
        data = factories.dataset(session, name="ward")
        train = factories.sample(session, "I cough, what helps?", dataset=data, split="train", risk="low")
        held = factories.sample(session, "=HYPERLINK(1) chest pain, aspirin?", dataset=data, split="test")
        config = t.RewardConfig(
            version="v1", chain=0.35, emergency=0.25, risk_penalty=0.15, teacher=0.25, conflict_threshold=0.35, status="approved"
        )
        session.add(config)
        left, right = factories.version(session), factories.version(session, "rl")
        for sample in (train, held):
            texts = ["<think>\n1. Red flag?\n2. No.\n</think>\nRest. Drink water.", "Take 5 g of aspirin now.", "See a doctor today."]
            good, bad, other = (
                factories.completion(session, text, sample=sample, model_version_id=v.id)
                for text, v in zip(texts, (left, right, right), strict=True)
            )
            case = factories.conflict(session, completion=good, rules_value=0.4, teacher_value=0.9)
            signed(session, case, clinician, "acceptable", marks={"t1": "ok", "a1": "ok", "a2": "wrong"}, criteria={"emergency": "met"})
            case = factories.conflict(session, completion=bad)
            wrong = signed(session, case, clinician, "acceptable")
            signed(session, case, clinician, "unsafe", note="=overdose", rewritten_answer="Call 120.", supersedes_id=wrong.id)
            case = factories.conflict(session, completion=other)
            signed(session, case, clinician, "minor")
            session.add(t.PreferencePair(sample_id=sample.id, chosen="Call 120.", rejected=bad.answer, source="adjudication"))
            for name, vote in (("left", "left"), ("tie", "tie"), ("open", "right")):
                pair = t.BenchPair(
                    user_id=admin.id,
                    sample_id=sample.id,
                    left_version_id=left.id,
                    right_version_id=right.id,
                    mode="open" if name == "open" else "blind",
                )
                pair.left_completion_id, pair.right_completion_id, pair.status = good.id, bad.id, "ready"
                session.add(pair)
                session.flush()
                ballot = t.BenchVote(pair_id=pair.id, user_id=admin.id, client_id=f"{name}{sample.id}", vote=vote)
                session.add(ballot)
                session.flush()
                if name == "left":  # as `core.preference` stores a vote for one side
                    session.add(
                        t.PreferencePair(sample_id=sample.id, chosen=good.text, rejected=bad.text, source="vote", vote_id=ballot.id)
                    )
            advice = "Call an ambulance now."
            session.add(
                t.Judgement(completion_id=good.id, teacher="deepseek-chat", rubric_version="r1", teacher_score=0.9, suggested_answer=advice)
            )
            session.add(t.RuleScore(completion_id=good.id, rule_id="chain", lexicon_version="lex1", score=0.5))
            session.add(t.RuleScore(completion_id=good.id, rule_id="emergency", lexicon_version="lex1", unscored_reason="no_danger_sign"))
        return Decided(admin.id, clinician.id, train.id, held.id)
