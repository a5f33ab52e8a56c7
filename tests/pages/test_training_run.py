"""The training-run page: four answers from the files of a run, "not recorded" for what an old run did not write."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core import training_runs
from core.errors import NotFound
from core.home import Home
from core.scoring import ensure_reward_config
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories

CONFIG = {"name": "rl-a", "sft_model": "sft-a", "dataset": "demo", "target_kl": 4.0}


def run_of(home: Home, kind: str = "ppo", status: str = "succeeded", **values: Any) -> tuple[int, Path]:
    with write_session() as session:
        job = t.Job(kind=kind, config=CONFIG, queue="gpu", status=status, attempt=1, **{"started_at": utc_now(), **values})
        session.add(job)
        session.flush()
        folder = home.run_dir(job.id)
    folder.mkdir(parents=True)
    return job.id, folder


def write_run(home: Home) -> int:
    """A PPO run of three rollouts with everything that a run writes; rollout 2 was scored without the teacher."""
    job_id, folder = run_of(home, result={"version": "rl-a"})
    ensure_reward_config()
    kls = [0.1, 3.0, 5.0]
    with (folder / "metrics.jsonl").open("w") as out:
        for number, kl in enumerate(kls, start=1):
            line = {"step": number, "objective/scores": 0.1 * number, "objective/kl": kl, "objective/kl_coef": 0.03, "parts/chain": 0.5}
            out.write(json.dumps(line) + "\n")
    (folder / "kl_metrics.json").write_text(json.dumps({"rollouts": [], "max_kl": 5.0, "num_stopped_early": 2}))
    columns = ("rollout", "mode", "reason", "num_asked", "num_cached", "num_scored", "num_unscored", "prompt_tokens", "completion_tokens")
    with (folder / "teacher_usage.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow((*columns, "cost_usd", "latency_p95_s"))
        writer.writerow((1, "teacher", "", 32, 2, 30, 2, 900, 100, 0.25, 1.5))
        writer.writerow((2, "rules_only", "teacher_down", 0, 0, 0, 0, 0, 0, 0, ""))
        writer.writerow((3, "teacher", "", 32, 30, 32, 0, 90, 10, 0.05, 0.5))
    with (folder / "rewards.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("rollout", "kind", "score", "unscored_reason", "teacher_reason"))
        writer.writerows([(1, "sample", 0.4, "", "timeout"), (1, "sample", 0.5, "", ""), (2, "late", "", "", "timeout")])
    with (folder / "samples.jsonl").open("w") as out:
        for rollout, text in ((1, "before the training"), (3, "after the training")):
            entry = {"rollout": rollout, "sample_id": 1, "prompt": "Chest pain?", "completion": text, "score": 0.5, "kl": 1.0, "parts": {}}
            out.write(json.dumps(entry) + "\n")
        out.write('{"rollout": 3, "half a li')
    flag = {"code": "length", "feature": "num_tokens", "value": 0.5, "threshold": 0.3, "numbers": {}}
    top = [{"rollout": 3, "reward": 0.9, "prompt": "Cough?", "text": "paid for nothing"}]
    (folder / "hack_watch.json").write_text(json.dumps({"flags": [flag], "top": top, "is_enough": True}))
    estimate = {"seconds": 100, "num_samples": 96, "tokens": {"generated": 5000}, "teacher": {"num_calls": 96, "usd": 0.5}}
    (folder / "estimate.json").write_text(json.dumps(estimate | {"memory": {"peak": 2.5e9}}))
    (folder / "actuals.json").write_text(json.dumps({"seconds": 130, "teacher": {"usd": 0.3}, "memory": {"peak": 3.5e9}}))
    with write_session() as session:
        sft = factories.version(session, name="sft-a")
        version = factories.version(session, "rl", name="rl-a", job_id=job_id, manifest={"reward_config": "v1"})
        sample = factories.sample(session, "Crushing chest pain")
        old = factories.completion(session, "<think>x</think>Call 120 now.", sample=sample, model_version_id=sft.id)
        new = factories.completion(session, "<think>x</think>Drink tea.", sample=sample, model_version_id=version.id)
        one: dict[str, Any] = {"n": 40, "num_unscored": 0, "mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "parts": {}, "slices": []}
        down = {
            "by": "risk",
            "value": "high",
            "n": 40,
            "difference": -0.2,
            "ci_low": -0.3,
            "ci_high": -0.1,
            "p_value": 0.01,
            "p_holm": 0.02,
        }
        compared = {"candidate": "rl-a", "n": 40, "difference": 0.1, "emergency_regressions": [sample.id], "slices": [down]}
        versions = {"sft-a": {**one, "completions": {str(sample.id): old.id}}, "rl-a": {**one, "completions": {str(sample.id): new.id}}}
        session.add(t.Evaluation(name="e", report={"versions": versions, "baseline": "sft-a", "comparisons": [compared]}))
    return job_id


def words(screen: AppTest) -> str:
    """Everything on the screen as text."""
    assert not screen.exception, screen.exception
    kinds = ("markdown", "caption", "text", "warning", "error", "success", "info", "subheader", "header")
    found = [str(getattr(one, "value", "")) for kind in kinds for one in screen.get(kind)]
    found += [f"{m.label} {m.value}" for m in screen.metric] + [e.label for e in screen.expander]
    return "\n".join(found) + "\n".join(frame.value.to_string() for frame in screen.dataframe)


def test_four_answers_in_order(home: Home, open_page: Callable[..., AppTest]) -> None:
    screen = open_page("product", "training_run", query={"job": str(write_run(home))})
    assert [s.value[0] for s in screen.subheader] == ["1", "2", "3", "4"]
    shown = words(screen)
    for expected in (
        "R = 0.35·chain + 0.25·emergency + 0.25·teacher − 0.15·risk penalty",
        "5.00 / 4",
        "KL went over its budget: 5.00 against 4",
        "Early stops 2 / 3",
        "before the training",
        "after the training",
        "Judgements asked 64",
        "From the cache 32",
        "Cost $0.3000",
        "Rollouts 2 to 2 were scored by rules and a fitted map alone: teacher down",
        "timeout 1",
        "$0.5000",
        "3.5 GB",
        "emergency advice 1 times",
        "Call 120 now.",
        "Drink tea.",
        "risk = high",
        "paid for nothing",
    ):
        assert expected in shown, expected


def test_an_old_run_says_what_it_did_not_record(home: Home, open_page: Callable[..., AppTest]) -> None:
    job_id, folder = run_of(home)
    (folder / "metrics.jsonl").write_text('{"step": 1, "objective/scores": 0.4, "objective/kl": 0.0}\n')
    (folder / "rewards.csv").write_text("rollout,sample_id,score\n1,7,0.4\n")
    shown = words(open_page("engineer", "training_run", query={"job": str(job_id)}))
    for what in ("Reward config", "Samples before and after", "Teacher usage", "Estimate and actuals", "Watch over the reward"):
        assert f"{what}: not recorded" in shown
    assert "No evaluation has compared" in shown
    assert "Cost" not in shown.replace("3 · What did the teacher cost?", ""), "an unknown cost is not zero"


def test_states(home: Home, open_page: Callable[..., AppTest]) -> None:
    language = "zh"
    assert "尚未启动训练" in words(open_page("product", "training_run", language))
    waiting, _ = run_of(home, status="queued", started_at=None)
    assert "任务排队中" in words(open_page("product", "training_run", language, {"job": str(waiting)}))
    progress = {"phase": "ppo", "done": 3, "total": 12, "eta_s": 90, "metrics": {"objective/scores": 0.44, "loss/x": 1}}
    running, _ = run_of(home, kind="sft", status="running", progress=progress)
    shown = words(open_page("product", "training_run", language, {"job": str(running)}))
    assert "objective/scores 0.44" in shown
    assert "loss/x" not in shown
    failed, _ = run_of(home, status="failed", error={"code": "jobs.out_of_memory", "params": {"last": "boom", "attempts": 1, "exit": 1}})
    assert len(open_page("product", "training_run", language, {"job": str(failed)}).error) == 1
    other, _ = run_of(home, kind="index")
    screen = open_page("product", "training_run", language, {"job": str(other)})
    assert "不是训练任务" in screen.error[0].value


def test_only_kinds_that_train_have_a_report(home: Home) -> None:
    job_id, _ = run_of(home, kind="score")
    with pytest.raises(NotFound, match="not_a_training"):
        training_runs.open_run(job_id)
    with read_session() as session:
        assert session.get_one(t.Job, job_id).kind == "score"
