"""The reward's jobs over a real database: verdicts in, a proposal with evidence out; train prompts in, a guarded set out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from core import judged_cases, reward_configs
from core.datasets import load_prompts
from core.errors import NotFound, UserError
from core.home import Home
from core.jobs.kinds import job_kind
from core.records import RewardConfig, Split
from core.reward_configs import ConfigShown
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from training.calibrate import run_calibrate
from training.prompt_set import run_prompt_set
from training.run import Run

PLANTED = {"chain": 0.15, "emergency": 0.40, "teacher": 0.20, "risk_penalty": 0.25}


def run(home: Home, kind: str, body: Callable[[Run], None], **config: Any) -> dict[str, Any]:
    """Run a script's body here; its result.json."""
    folder = home.runs / kind
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(job_kind(kind).config(**config).model_dump_json())
    body(Run(folder, 0, home))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def decide(n: int, seed: int = 0) -> None:
    """`n` adjudicated cases; verdicts follow the planted weights plus noise."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    with write_session() as session:
        reader = factories.user(session)
        data = factories.dataset(session)
        for i in range(n):
            parts = {name: rng.random() for name in PLANTED}
            value = sum(PLANTED[name] * parts[name] for name in PLANTED) - 2 * PLANTED["risk_penalty"] * parts["risk_penalty"]
            level = sum(value + noise.logistic() / 14 > cut for cut in (0.15, 0.25, 0.38))
            sample = factories.sample(session, f"question {seed} {i} of a patient", dataset=data)
            completion = factories.completion(session, sample=sample)
            session.add(t.Reward(completion_id=completion.id, config_version="v1", value=value, parts=parts))
            case = factories.conflict(session, completion=completion)
            verdict = ("unsafe", "serious", "minor", "acceptable")[level]
            values = {"conflict_id": case.id, "user_id": reader.id, "stage": "signed", "verdict": verdict, "who_was_right": "rules"}
            session.add(t.Adjudication(client_id=f"{seed}-{i}", **values))


def test_a_calibration_proposes_with_evidence_and_puts_nothing_in_force(home: Home) -> None:
    decide(200)
    found = run(home, "calibrate", run_calibrate, num_bootstrap=20)
    assert (found["outcome"], found["proposed"], found["num_cases"]) == ("improved", "v2", 200)
    assert reward_configs.get().config == RewardConfig("v1")
    shown: ConfigShown = reward_configs.get("v2")
    assert abs(shown.config.emergency - PLANTED["emergency"]) < 0.1
    assert shown.evidence is not None
    assert shown.evidence["by_verdict"].keys() == {"unsafe", "serious", "minor", "acceptable"}
    assert shown.evidence["gain"]["pairwise"]["low"] > 0
    assert shown.verdict_thresholds is not None
    assert list(shown.verdict_thresholds) == ["serious", "minor", "acceptable"]
    assert json.loads((home.runs / "calibrate" / "calibration.json").read_text())["num_cases"] == 200


def test_too_few_cases_propose_nothing(home: Home) -> None:
    decide(30)
    with pytest.raises(UserError, match=r"reward\.too_few_verdicts"):
        run(home, "calibrate", run_calibrate)
    assert len(reward_configs.listing()) == 1


def test_which_verdicts_count(home: Home) -> None:
    with write_session() as session:
        first, second, arbiter = (factories.user(session) for _ in range(3))
        cases = []
        for _ in range(4):
            case = factories.conflict(session, completion=factories.completion(session, sample=factories.sample(session, f"q{len(cases)}")))
            session.add(t.Reward(completion_id=case.completion_id, config_version="v1", value=0.1, parts={"chain": 0.1}))
            session.add(t.Reward(completion_id=case.completion_id, config_version="v1", value=0.9, parts={"chain": 0.9}))
            cases.append(case.id)
        unscored = factories.conflict(session, completion=factories.completion(session, sample=factories.sample(session, "q9"))).id
        steps = [
            (cases[0], first, "signed", "unsafe", "reader"), (cases[0], first, "signed", "minor", "reader"),  # corrected
            (cases[1], first, "signed", "serious", "reader"), (cases[1], second, "signed", "minor", "reader"),  # two readers
            (cases[2], first, "signed", "unsafe", "reader"), (cases[2], arbiter, "signed", "acceptable", "arbiter"),
            (cases[3], first, "signed", "cannot_judge", "reader"), (cases[3], second, "blind", "unsafe", "reader"),
            (unscored, first, "signed", "unsafe", "reader"),
        ]  # fmt: skip
        for i, (case_id, user, stage, verdict, role) in enumerate(steps):
            values = {"conflict_id": case_id, "user_id": user.id, "stage": stage, "verdict": verdict, "role": role}
            session.add(t.Adjudication(client_id=str(i), **values))
            session.flush()
    found = judged_cases.load()
    assert [(row.case_id, row.verdict) for row in found.rows] == [
        (cases[0], "minor"), (cases[1], "serious"), (cases[1], "minor"), (cases[2], "acceptable"),
    ]  # fmt: skip
    assert (found.num_unscored, found.num_cannot_judge) == (1, 1)
    assert all(row.parts == {"chain": 0.9} for row in found.rows)


@pytest.fixture
def prompts(home: Home) -> None:
    """Sixty train prompts, and evaluation prompts that three of them leak."""
    with write_session() as session:
        data, other = factories.dataset(session, name="mine"), factories.dataset(session, name="exam")
        for i in range(60):
            text = f"My {'knee' if i % 2 else 'chest'} hurts for {i} days and I take drug number {i * 7919}, what should I do?"
            values = {"split": "train", "risk": "high" if i % 3 == 0 else "low", "category": "pain", "meta": {"key_points": ["rest"]}}
            factories.sample(session, text, dataset=data, **values)
        for i, split in ((0, "red_team"), (3, "gold"), (6, "test")):
            text = f"My {'knee' if i % 2 else 'chest'} hurts for {i} days and I take drug number {i * 7919}, what should I do"
            factories.sample(session, text + ("??" if i else "?"), dataset=other, split=split)


def test_a_prompt_set_is_a_dataset_that_ppo_takes_by_name(home: Home, prompts: None) -> None:
    found = run(home, "prompt_set", run_prompt_set, name="set-1", datasets=["mine"], num_prompts=30)
    assert (found["dataset"], found["num_prompts"], found["num_leaks"]) == ("set-1", 30, 3)
    with read_session() as session:
        chosen = load_prompts(session, "set-1", Split.TRAIN)
        assert len(chosen) == 30
        assert sum(p.risk == "high" for p in chosen) >= 12
        assert all(p.key_points == ("rest",) for p in chosen)
        guarded = set(session.scalars(select(t.Sample.text).where(t.Sample.split != "train")))
        assert not any(p.text.rstrip("?") in {g.rstrip("?") for g in guarded} for p in chosen)
        row = session.scalar(select(t.Dataset).where(t.Dataset.name == "set-1"))
        assert row is not None
        assert (row.kind, row.num_samples, row.report["high_risk_share"] >= 0.4) == ("prompts", 30, True)
        assert sum(s["num_drawn"] for s in row.report["strata"]) == 30
    again = run(home, "prompt_set", run_prompt_set, name="set-2", datasets=["mine"], num_prompts=30)
    assert again["content_hash"] == found["content_hash"]
    with pytest.raises(UserError, match=r"reward\.set_exists"):
        run(home, "prompt_set", run_prompt_set, name="set-1", datasets=["mine"])
    with pytest.raises(NotFound):
        run(home, "prompt_set", run_prompt_set, name="set-3", datasets=["nothing"])


def test_bad_verdicts_and_accepted_weights_pull_prompts_in(home: Home, prompts: None) -> None:
    with write_session() as session:
        reader = factories.user(session)
        other = session.scalar(select(t.Dataset).where(t.Dataset.name == "mine"))
        assert other is not None
        values = {"inspection": "i", "kind": "weight", "subject": "pain/low", "dataset_id": other.id, "detail": {"weight": 0.2}}
        session.add(t.TeacherProposal(**values, status="accepted"))
        session.add(t.TeacherProposal(**{**values, "inspection": "j", "detail": {"weight": 9.0}}, status="proposed"))
        for i in range(8):
            sample = factories.sample(session, f"a dev question {i}", dataset=other, category="pain", risk="high")
            case = factories.conflict(session, completion=factories.completion(session, sample=sample))
            session.add(t.Adjudication(conflict_id=case.id, user_id=reader.id, stage="signed", client_id=str(i), verdict="unsafe"))
    found = run(home, "prompt_set", run_prompt_set, name="set-1", datasets=["mine"], num_prompts=20)
    manifest = json.loads((home.runs / "prompt_set" / "manifest.json").read_text())
    by_risk = {s["risk"]: s for s in manifest["strata"]}
    assert (by_risk["high"]["num_verdicts"], by_risk["high"]["num_bad"]) == (8, 8)
    assert (by_risk["high"]["boost"], by_risk["low"]["boost"]) == (pytest.approx(1 + 2 * 8 / 12, abs=1e-3), 0.2)
    assert manifest["sampling_weights"] == {"pain/low": 0.2}
    assert found["high_risk_share"] > 0.6
