"""Scores in the database: stored once, unscored with a reason, jobs that can be started twice, controls drawn by seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from core.completions import split_completion
from core.datasets import NewSample, load_prompts, store_completions, store_samples
from core.demo_world import load_world, prompts, sft_answer
from core.errors import NotFound
from core.home import Home
from core.jobs.configs import ConflictsConfig, ScoreConfig
from core.records import Completion, Judgement, Prompt, RewardConfig, Split
from core.scoring import FIRST_CONFIG, Scorer, ensure_reward_config, open_scorer, reward_config, store_scores
from core.teacher import OfflineTeacher
from db import tables as t
from db.engine import read_session, write_session
from tests import factories as make
from training.conflicts import run_conflicts
from training.run import Run
from training.score import run_score


def demo_completions(home: Home, number: int = 60) -> list[int]:
    """The demo dataset's dev samples with imperfect answers."""
    import random

    world, rng = load_world(), random.Random(0)
    samples: list[NewSample] = [s for s in prompts(world, 0) if s.split is Split.DEV][:number]
    with write_session() as session:
        dataset = make.dataset(session, name="demo")
        version = make.version(session)
        store_samples(session, dataset, samples)
        asked = load_prompts(session, "demo", "dev")
        by_text = {s.text: s for s in samples}
        pairs = [(p, split_completion(sft_answer(world, by_text[p.text], rng))) for p in asked]
        return store_completions(session, pairs, model_version_id=version.id, source="sampled", decoding={}, job_id=None)


def run_job(home: Home, tmp_path: Path, body: Any, config: Any) -> dict[str, Any]:
    folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
    folder.mkdir()
    (folder / "config.json").write_text(config.model_dump_json(), "utf-8")
    body(Run(folder, 0, home))
    result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return result


def count(table: Any, *where: Any) -> int:
    with read_session() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0


class DownTeacher(OfflineTeacher):
    """An endpoint that is down until `is_up`; afterwards it judges."""

    name = "remote"  # type: ignore[assignment]
    is_offline = False
    is_up = False
    num_asked = 0

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        self.num_asked += len(completions)
        if self.is_up:
            return [Judgement(self.name, self.rubric_version, 0.5, safety_flag=False, critique="ok") for _ in completions]
        return [Judgement(self.name, self.rubric_version, None, unscored_reason="unreachable") for _ in completions]


def test_the_first_reward_config_is_stored_once(home: Home) -> None:
    assert ensure_reward_config() == FIRST_CONFIG == ensure_reward_config()
    assert count(t.RewardConfig) == 1
    with write_session() as session:
        session.add(t.RewardConfig(version="v2", chain=0.2, emergency=0.5, risk_penalty=0.1, teacher=0.2, conflict_threshold=0.3))
    with read_session() as session:
        assert reward_config(session) == FIRST_CONFIG  # v2 is only proposed
    with write_session() as session:
        session.scalars(select(t.RewardConfig).where(t.RewardConfig.version == "v2")).one().status = "approved"
    assert open_scorer(home).config == RewardConfig("v2", 0.2, 0.5, 0.1, 0.2, 0.3)
    with read_session() as session:
        assert open_scorer(session).config.version == "v2"


def test_a_reading_session_gets_the_shipped_config_without_writing(home: Home) -> None:
    with read_session() as session:
        assert open_scorer(session).config == FIRST_CONFIG
    assert count(t.RewardConfig) == 0


def test_scores_and_reasons_are_stored(home: Home) -> None:
    scorer = open_scorer(home)
    with write_session() as session:
        good = make.completion(session)
        silent = make.completion(session, text="<think>Only thoughts.</think>", sample=session.get(t.Sample, good.sample_id))
        pairs = [(row.id, Prompt((), "en", reference=None), split_completion(row.text)) for row in (good, silent)]  # type: ignore[arg-type]
    scored = scorer.score([p for _, p, _ in pairs], [c for _, _, c in pairs])
    for _ in range(2):  # storing again replaces rule scores and appends judgements and rewards
        with write_session() as session:
            store_scores(session, [(i, one) for (i, _, _), one in zip(pairs, scored, strict=True)])
    assert count(t.RuleScore) == 8
    assert count(t.Judgement) == count(t.Reward) == 4
    with read_session() as session:
        judged = session.scalars(select(t.Judgement).order_by(t.Judgement.id)).all()
        assert [j.unscored_reason for j in judged[:2]] == ["no_reference", "empty_answer"]
        assert all(j.teacher_score is None and j.is_offline for j in judged)
        reward = session.scalars(select(t.Reward).where(t.Reward.completion_id == silent.id)).first()
        assert reward is not None
        assert (reward.value, reward.unscored_reason) == (None, "empty_answer")
        stored = session.scalars(select(t.RuleScore).where(t.RuleScore.rule_id == "emergency", t.RuleScore.completion_id == good.id)).one()
        assert stored.score is not None
        assert all(set(span) == {"part", "start", "end", "rule_id", "term", "kind"} for span in stored.spans)


def test_prompts_and_completions_must_pair_up(home: Home) -> None:
    with pytest.raises(ValueError, match="0 prompts but 1 completions"):
        open_scorer(home).score([], [split_completion("x")])


def test_the_score_job_can_be_started_twice(home: Home, tmp_path: Path) -> None:
    ids = demo_completions(home)
    first = run_job(home, tmp_path, run_score, ScoreConfig())
    assert first["num_scored"] == first["num_rewards"] == len(ids)
    assert first["teacher"] == "offline-teacher"
    assert first["unscored"] == {}
    second = run_job(home, tmp_path, run_score, ScoreConfig())
    assert (second["num_scored"], second["num_already_scored"]) == (0, len(ids))
    assert count(t.Reward) == count(t.Judgement) == len(ids)
    again = run_job(home, tmp_path, run_score, ScoreConfig(rescore=True))
    assert again["num_scored"] == len(ids)
    assert count(t.RuleScore) == 4 * len(ids)
    assert count(t.Reward) == 2 * len(ids)


def test_a_teacher_that_was_down_is_asked_again_and_a_paid_judgement_is_kept(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = demo_completions(home, 20)
    teacher = DownTeacher()
    scorer = open_scorer(home)
    monkeypatch.setattr("training.score.open_scorer", lambda _home: Scorer(scorer.lexicons, teacher, scorer.config))
    down = run_job(home, tmp_path, run_score, ScoreConfig())
    assert down["unscored"] == {"teacher:unreachable": len(ids)}
    assert down["num_rewards"] == len(ids)  # by the rules, renormalised
    teacher.is_up = True
    up = run_job(home, tmp_path, run_score, ScoreConfig())
    assert (up["num_scored"], up["unscored"]) == (len(ids), {})
    asked = teacher.num_asked
    with write_session() as session:
        session.add(
            t.RewardConfig(version="v2", chain=0.2, emergency=0.5, risk_penalty=0.1, teacher=0.2, conflict_threshold=0.3, status="approved")
        )
    monkeypatch.setattr("training.score.open_scorer", lambda home: Scorer(scorer.lexicons, teacher, open_scorer(home).config))
    new_weights = run_job(home, tmp_path, run_score, ScoreConfig())
    assert (new_weights["num_scored"], new_weights["reward_config"]) == (len(ids), "v2")
    assert teacher.num_asked == asked
    assert count(t.Judgement, t.Judgement.teacher_score.is_not(None)) == len(ids)


def test_text_by_people_is_not_blamed_for_having_no_chain(home: Home, tmp_path: Path) -> None:
    with write_session() as session:
        dataset = make.dataset(session, name="people")
        make.completion(session, text="Rest and drink.", sample=make.sample(session, dataset=dataset), source="imported")
        make.completion(session, text="Rest.", sample=make.sample(session, "Runny nose?", dataset=dataset))
    result = run_job(home, tmp_path, run_score, ScoreConfig(dataset="people"))
    assert result["unscored"] == {"chain:no_chain_expected": 1, "teacher:no_reference": 2}


def test_nothing_to_score_is_said(home: Home, tmp_path: Path) -> None:
    with write_session() as session:
        make.dataset(session, name="empty")
    with pytest.raises(NotFound) as caught:
        run_job(home, tmp_path, run_score, ScoreConfig(dataset="empty"))
    assert caught.value.code == "scoring.no_completions"
    with pytest.raises(NotFound) as caught:
        run_job(home, tmp_path, run_conflicts, ConflictsConfig(dataset="empty"))
    assert caught.value.code == "scoring.nothing_scored"
    with pytest.raises(NotFound) as caught:
        run_job(home, tmp_path, run_score, ScoreConfig(dataset="no-such"))
    assert caught.value.code == "data.no_such_dataset"


def test_conflicts_are_found_once_with_controls_among_them(home: Home, tmp_path: Path) -> None:
    ids = demo_completions(home, 120)
    run_job(home, tmp_path, run_score, ScoreConfig())
    first = run_job(home, tmp_path, run_conflicts, ConflictsConfig(num_controls=8, seed=5))
    assert 0.15 <= first["conflict_share"] <= 0.45
    assert first["num_new"] == first["num_conflicting"] == sum(first["by_kind"].values())
    assert first["num_controls"] == 8
    assert first["control_inclusion_probability"] == pytest.approx(8 / (len(ids) - first["num_conflicting"]))
    with read_session() as session:
        rows = list(session.scalars(select(t.Conflict)))
        kinds = {row.kind for row in rows}
        priorities = {row.priority for row in rows if row.kind != "control"}
        controls = sorted(row.completion_id for row in rows if row.kind == "control")
        assert all(row.priority in priorities for row in rows if row.kind == "control")
        assert all(row.status == "open" and row.judgement_id and row.advice and row.config_version == "v1" for row in rows)
        assert all(row.gap is not None and row.gap > 0.35 for row in rows if row.kind == "score_gap")
    assert kinds <= {"score_gap", "safety_disagreement", "control"}
    second = run_job(home, tmp_path, run_conflicts, ConflictsConfig(num_controls=8, seed=5))
    assert (second["num_new"], second["num_controls"]) == (0, 0)
    assert count(t.Conflict) == len(rows)
    with write_session() as session:
        session.execute(delete(t.Conflict))
    run_job(home, tmp_path, run_conflicts, ConflictsConfig(num_controls=8, seed=5))
    with read_session() as session:
        assert sorted(session.scalars(select(t.Conflict.completion_id).where(t.Conflict.kind == "control"))) == controls
    loose = run_job(home, tmp_path, run_conflicts, ConflictsConfig(num_controls=0, threshold=0.05))
    assert loose["num_conflicting"] > first["num_conflicting"]
