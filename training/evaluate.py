"""Compare model versions on the same held-out prompts, with the same seeds and the very reward that PPO uses.

Per version: mean reward with a bootstrap interval, part means with what was not scored counted apart, slices. Against the
first version: the paired difference with its interval, and every prompt with a danger sign where the baseline gave emergency
advice and the candidate did not. Completions and scores are stored, the report is a database row (shape: core.evaluation)
and report.json / report.md in the run folder. A rerun of the same job answers only what is not stored yet.

    python -m training.evaluate --run-dir DIR      (job kind evaluate)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.completions import split_completion
from core.datasets import get_dataset, load_prompts, store_completions, to_completion
from core.errors import UserError
from core.evaluation import MIN_SLICE, Comparison, EvaluationReport, Part, Slice, VersionReport
from core.jobs.configs import EvaluateConfig
from core.models import get_version
from core.policy import Policy, VersionFiles, version_files
from core.records import Prompt, RuleScore
from core.scoring import Scored, Scorer, open_scorer, store_scores
from db import tables as t
from db.engine import read_session, write_session
from training.causal import num_parameters, prepare
from training.evaluate_report import report_markdown
from training.run import Run, main, write_json

PARTS = ("chain", "emergency", "risk_penalty", "teacher")
RESAMPLES = 2000
#: prompts per batch of generation and per transaction
BATCH = 64


def evaluate(run: Run) -> None:
    """Compare model versions on held-out prompts."""
    # 1. Versions (local ones), prompts, reward.
    config = run.config(EvaluateConfig)
    if len(set(config.models)) != len(config.models):
        raise UserError("training.doubled_version")
    with read_session() as session:
        versions = [get_version(session, name) for name in config.models]
        files = {v.name: version_files(session, run.home, v) for v in versions}
        dataset = get_dataset(session, config.dataset)
        prompts = load_prompts(session, config.dataset, config.split, limit=config.num_samples, seed=config.seed)
    scorer = open_scorer(run.home)
    decoding = {
        "temperature": config.temperature,
        "top_p": 1.0,
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
        "batch_size": BATCH,
    }

    # 2. Each version answers every prompt; a base is loaded once for all of its adapters.
    answers: dict[str, list[int]] = {}
    policy: Policy | None = None
    loaded = ""
    for number, version in enumerate(versions):
        place = files[version.name]
        if policy is None or loaded != place.base:
            policy, loaded = Policy.load(run.home, place.base), place.base
            prepare(run.home, config.seed, num_parameters(policy.model))
        answers[version.name] = answer_all(run, config, policy, version, place, prompts, decoding, number * len(prompts))

    # 3. Scores, by THE reward; kept in the database like those of any completion.
    scored: dict[str, list[Scored]] = {}
    for version in versions:
        scored[version.name] = score_stored(run, scorer, prompts, answers[version.name])
        print_version(version.name, scored[version.name])

    # 4. The report.
    rng = np.random.default_rng(config.seed)
    baseline = versions[0]
    report: EvaluationReport = {
        "versions": {v.name: version_report(prompts, scored[v.name], answers[v.name], v.content_hash, rng) for v in versions},
        "baseline": baseline.name,
        "comparisons": [compare(v.name, prompts, scored[baseline.name], scored[v.name], rng) for v in versions[1:]],
        "decoding": decoding,
        "dataset": dataset.name,
        "split": config.split,
        "dataset_hash": dataset.content_hash,
        "reward_config": scorer.config.version,
        "teacher": scorer.teacher.name,
        "teacher_is_offline": scorer.teacher.is_offline,
    }
    write_json(run.dir / "report.json", report)
    (run.dir / "report.md").write_text(report_markdown(config.name, report), encoding="utf-8")
    evaluation_id = store(run, config, report)
    run.result(
        evaluation=evaluation_id,
        report=run.home.relative(run.dir / "report.md"),
        **{f"mean_reward {name}": v["mean"] for name, v in report["versions"].items()},
        emergency_regressions=sum(len(c["emergency_regressions"]) for c in report["comparisons"]),
    )


def answer_all(
    run: Run,
    config: EvaluateConfig,
    policy: Policy,
    version: t.ModelVersion,
    files: VersionFiles,
    prompts: Sequence[Prompt],
    decoding: dict[str, float | int],
    done: int,
) -> list[int]:
    """Completion id of every prompt, in order. Sampling depends on seed and sample id only, so what an earlier attempt of
    this job stored is what would be drawn again."""
    with read_session() as session:
        ids = answered_before(session, run.job_id, version.id)
    if files.adapter is not None:
        policy.add_adapter(version.name, files.adapter)
    todo = [p for p in prompts if p.sample_id not in ids]
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        generated = policy.generate(
            [p.messages for p in batch],
            adapter=None if files.adapter is None else version.name,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            batch_size=BATCH,
            row_keys=[p.sample_id or 0 for p in batch],
        )
        pairs = [(p, split_completion(g.text, g.finish_reason)) for p, g in zip(batch, generated, strict=True)]
        with write_session() as write:
            stored = store_completions(
                write, pairs, model_version_id=version.id, source="sampled", decoding=dict(decoding), job_id=run.job_id or None
            )
        ids |= {p.sample_id or 0: i for p, i in zip(batch, stored, strict=True)}
        run.progress("answer", done + start + len(batch), len(prompts) * len(config.models))
        run.leave_if_stopped()
    return [ids[p.sample_id or 0] for p in prompts]


def answered_before(session: Session, job_id: int, version_id: int) -> dict[int, int]:
    """Sample id -> completion id of an earlier attempt of this job."""
    if not job_id:
        return {}
    query = select(t.Completion.sample_id, t.Completion.id).where(
        t.Completion.model_version_id == version_id, t.Completion.job_id == job_id
    )
    return dict(session.execute(query).all())


def score_stored(run: Run, scorer: Scorer, prompts: Sequence[Prompt], ids: Sequence[int]) -> list[Scored]:
    """Score stored completions and store the scores, a batch per transaction."""
    found: list[Scored] = []
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        with read_session() as session:
            rows = {row.id: row for row in session.scalars(select(t.Completion).where(t.Completion.id.in_(part)))}
        scored = scorer.score(prompts[start : start + BATCH], [to_completion(rows[i]) for i in part])
        with write_session() as write:
            store_scores(write, list(zip(part, scored, strict=True)), job_id=run.job_id or None)
        found += scored
    return found


def version_report(
    prompts: Sequence[Prompt], scored: Sequence[Scored], ids: Sequence[int], content_hash: str, rng: np.random.Generator
) -> VersionReport:
    """One version's numbers; see core.evaluation for the fields."""
    rewards = [s.reward.value for s in scored]
    known = [r for r in rewards if r is not None]
    low, high = bootstrap(known, rng)
    slices: list[Slice] = []
    for by in ("language", "risk", "category"):
        values = [str(getattr(p, by)) for p in prompts]
        for value in sorted(set(values)):
            part = [r for r, v in zip(rewards, values, strict=True) if v == value and r is not None]
            enough = len(part) >= MIN_SLICE
            interval = bootstrap(part, rng) if enough else (None, None)
            slices.append(
                {
                    "by": by,
                    "value": value,
                    "n": len(part),
                    "mean": mean(part) if enough else None,
                    "ci_low": interval[0],
                    "ci_high": interval[1],
                }
            )
    parts: dict[str, Part] = {}
    for name in PARTS:
        column = [s.reward.parts.get(name) for s in scored]
        numbers = [x for x in column if x is not None]
        parts[name] = {"mean": mean(numbers), "n": len(numbers), "num_unscored": len(column) - len(numbers)}
    return {
        "n": len(known),
        "num_unscored": len(rewards) - len(known),
        "mean": mean(known),
        "ci_low": low,
        "ci_high": high,
        "parts": parts,
        "slices": slices,
        "content_hash": content_hash,
        "completions": {str(p.sample_id): i for p, i in zip(prompts, ids, strict=True)},
    }


def compare(
    candidate: str, prompts: Sequence[Prompt], before: Sequence[Scored], after: Sequence[Scored], rng: np.random.Generator
) -> Comparison:
    """The candidate minus the baseline on prompts that both have a reward for, and the emergency advice that was lost."""
    rewards = [(a.reward.value, b.reward.value) for a, b in zip(after, before, strict=True)]
    differences = [new - old for new, old in rewards if new is not None and old is not None]
    low, high = bootstrap(differences, rng)
    lost = [
        p.sample_id
        for p, old, new in zip(prompts, before, after, strict=True)
        if p.sample_id is not None and gave_needed_advice(old) is True and gave_needed_advice(new) is False
    ]
    return {
        "candidate": candidate,
        "n": len(differences),
        "difference": mean(differences),
        "ci_low": low,
        "ci_high": high,
        "emergency_regressions": lost,
    }


def gave_needed_advice(scored: Scored) -> bool | None:
    """Whether emergency help was advised where a danger sign asks for it; None where the prompt holds none. An answer that
    says nothing gave no advice."""
    rule: RuleScore = next(r for r in scored.rules if r.rule_id == "emergency")
    if rule.score is None:
        return False
    if not rule.detail.get("danger_signs") and not rule.detail.get("earlier_turns"):
        return None
    return rule.score >= 1.0


def mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def bootstrap(values: Sequence[float], rng: np.random.Generator, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Percentile interval of the mean over `RESAMPLES` resamples of the prompts; (None, None) without values."""
    if not values:
        return None, None
    numbers = np.asarray(values)
    means = numbers[rng.integers(0, len(numbers), (RESAMPLES, len(numbers)))].mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def print_version(name: str, scored: Sequence[Scored]) -> None:
    known = [s.reward.value for s in scored if s.reward.value is not None]
    print(f"{name}: mean reward {mean(known)} over {len(known)} of {len(scored)} answers", flush=True)


def store(run: Run, config: EvaluateConfig, report: EvaluationReport) -> int:
    """Store the report; an earlier attempt of the same job is replaced. Returns the evaluation's id."""
    with write_session() as session:
        if run.job_id:
            session.execute(delete(t.Evaluation).where(t.Evaluation.job_id == run.job_id))
        row = t.Evaluation(
            name=config.name,
            job_id=run.job_id or None,
            config_version=report["reward_config"],
            report=dict(report),
            report_path=run.home.relative(run.dir / "report.md"),
        )
        session.add(row)
        session.flush()
        return row.id


if __name__ == "__main__":
    main(evaluate)
