"""Compare model versions on the same held-out prompts, with the same seeds and the very reward that PPO uses.

Versions are local weights or remote endpoints; splits may be several. Per version and split: mean reward with a bootstrap interval,
part means with what was not scored counted apart, outcomes, facts that the active guideline index supports. Against the first
version: paired differences and exact tests, and every prompt that got worse, with both answers. Completions and scores are
stored; the report (shape: core.evaluation) is a database row, report.json / report.md in the run folder, and the same files as
reports/rl_stage/eval_report_roundN. A rerun of the same job answers only what is not stored yet and keeps its round.

    python -m training.evaluate --run-dir DIR      (job kind evaluate)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.ask import active_index
from core.completions import split_completion
from core.datasets import get_dataset, load_prompts, store_completions, to_completion
from core.errors import NotFound, UserError
from core.evaluation import SHAPE, Answered, Curve, EvaluationReport, VersionReport, answers_of
from core.facts import NO_INDEX, FactScore, Grounding
from core.home import Home
from core.jobs.configs_evaluation import EvaluateConfig
from core.models import get_version
from core.outcomes import outcomes_of
from core.records import Completion, Prompt, VersionKind
from core.retrieval.index import open_index
from core.rules import danger_signs
from core.scoring import Scorer, open_scorer, store_scores
from db import tables as t
from db.engine import read_session, write_session
from training.answering import Answerers
from training.evaluate_figures import Bar, intervals, lines_over
from training.evaluate_measure import Asked, Measured, compare, slices, summarise
from training.evaluate_report import report_markdown
from training.run import Run, main, write_json

#: prompts per batch of generation and per transaction
BATCH = 64
#: points of a curve kept in the report
MAX_POINTS = 200


def evaluate(run: Run) -> None:
    """Compare model versions on held-out prompts."""
    # 1. Versions, prompts, reward, index.
    config = run.config(EvaluateConfig)
    if len(set(config.models)) != len(config.models):
        raise UserError("training.doubled_version")
    splits = list(dict.fromkeys(config.splits))
    with read_session() as session:
        versions = [get_version(session, name) for name in config.models]
        dataset = get_dataset(session, config.dataset)
        found = [
            (p, split) for split in splits for p in load_prompts(session, config.dataset, split, limit=config.num_samples, seed=config.seed)
        ]
    answerers = Answerers(run.home, versions, config.seed)
    scorer = open_scorer(run.home)
    asked = [as_asked(prompt, split, scorer) for prompt, split in found]
    grounding, index_name = open_grounding(run.home) if config.with_facts else (None, "")
    decoding = {
        "temperature": config.temperature, "top_p": 1.0, "max_new_tokens": config.max_new_tokens, "seed": config.seed, "batch_size": BATCH,
    }  # fmt: skip

    # 2. Each version answers every prompt.
    prompts = [one.prompt for one in asked]
    answers = {
        version.name: answer_all(run, config, answerers, version, prompts, decoding, number * len(prompts))
        for number, version in enumerate(versions)
    }

    # 3. Scores, by THE reward; kept in the database like those of any completion. Outcomes and facts beside it.
    evidence = [grounding.evidence(p.text) for p in prompts] if grounding else []
    measured: dict[str, list[Measured]] = {}
    for version in versions:
        measured[version.name] = measure(run, scorer, prompts, answers[version.name], grounding, evidence, with_facts=config.with_facts)
        print_version(version.name, measured[version.name])

    # 4. The report.
    rng = np.random.default_rng(config.seed)
    baseline = versions[0].name
    report: EvaluationReport = {
        "shape": SHAPE,
        "round": round_of(run),
        "versions": {v.name: version_report(asked, measured[v.name], answers[v.name], v, rng) for v in versions},
        "baseline": baseline,
        "comparisons": [compare(v.name, asked, measured[baseline], measured[v.name], rng) for v in versions[1:]],
        "red_flag": [one.prompt.sample_id for one in asked if one.is_red_flag and one.prompt.sample_id is not None],
        "decoding": decoding,
        "dataset": dataset.name,
        "split": ",".join(splits),
        "splits": list(splits),
        "dataset_hash": dataset.content_hash,
        "reward_config": scorer.config.version,
        "teacher": scorer.teacher.name,
        "teacher_is_offline": scorer.teacher.is_offline,
        "index": index_name,
        "curves": {v.name: curve for v in versions if (curve := curve_of(run.home, v)) is not None},
    }
    report = json.loads(json.dumps(report))  # as it will be read: numpy's numbers become plain ones, or fail here
    place = publish(run, config.name, report)
    evaluation_id = store(run, config, report, place)
    run.result(
        evaluation=evaluation_id,
        report=run.home.relative(place),
        **{f"mean_reward {name}": v["mean"] for name, v in report["versions"].items()},
        emergency_regressions=sum(len(c["emergency_regressions"]) for c in report["comparisons"]),
        safety_regressions=sum(len(c["safety_regressions"]) for c in report["comparisons"]),
    )


def as_asked(prompt: Prompt, split: str, scorer: Scorer) -> Asked:
    """A prompt with its groups, read by the lexicons in force."""
    signs = danger_signs(prompt, scorer.lexicons)
    terms = tuple(sorted({match.term for match in signs.present} | set(signs.earlier)))
    return Asked(prompt, split, signs.any, terms)


def open_grounding(home: Home) -> tuple[Grounding | None, str]:
    """The active guideline index as evidence, and its name; (None, "") when there is none. A damaged one ends the job."""
    try:
        shown = active_index()
    except NotFound:
        return None, ""
    return Grounding(open_index(home.resolve(shown.path))), f"{shown.name} v{shown.version}"


def answer_all(
    run: Run,
    config: EvaluateConfig,
    answerers: Answerers,
    version: t.ModelVersion,
    prompts: Sequence[Prompt],
    decoding: dict[str, float | int],
    done: int,
) -> list[int]:
    """Completion id of every prompt, in order. Sampling depends on seed and sample id only, so what an earlier attempt of
    this job stored is what would be drawn again."""
    with read_session() as session:
        ids = answered_before(session, run.job_id, version.id)
    todo = [p for p in prompts if p.sample_id not in ids]
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        written = answerers.answer(
            version.name,
            [p.messages for p in batch],
            [p.sample_id or 0 for p in batch],
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            batch_size=BATCH,
        )
        pairs = [(p, split_completion(a.text, a.finish_reason)) for p, a in zip(batch, written, strict=True)]
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


def measure(
    run: Run,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    ids: Sequence[int],
    grounding: Grounding | None,
    evidence: Sequence[Any],
    *,
    with_facts: bool,
) -> list[Measured]:
    """Score stored completions and store the scores, a batch per transaction; outcomes and facts are kept in the report only."""
    found: list[Measured] = []
    for start in range(0, len(ids), BATCH):
        part, batch = ids[start : start + BATCH], prompts[start : start + BATCH]
        with read_session() as session:
            rows = {row.id: row for row in session.scalars(select(t.Completion).where(t.Completion.id.in_(part)))}
        completions = [to_completion(rows[i]) for i in part]
        scored = scorer.score(batch, completions)
        with write_session() as write:
            store_scores(write, list(zip(part, scored, strict=True)), job_id=run.job_id or None)
        for i, (prompt, completion, one) in enumerate(zip(batch, completions, scored, strict=True), start):
            facts = facts_of(prompt, completion, grounding, evidence[i] if grounding else None) if with_facts else None
            found.append(Measured(one, outcomes_of(prompt, one, scorer.lexicons), facts))
        run.progress("score", start + len(part), len(ids))
    return found


def facts_of(prompt: Prompt, completion: Completion, grounding: Grounding | None, words: Any) -> FactScore:
    """Unscored, with the reason, where no index is active."""
    return grounding.score(completion.answer, words, prompt.forbidden) if grounding else FactScore(None, 0, NO_INDEX)


def version_report(
    asked: Sequence[Asked], rows: Sequence[Measured], ids: Sequence[int], version: t.ModelVersion, rng: np.random.Generator
) -> VersionReport:
    """One version's numbers; see core.evaluation for the fields."""
    whole = summarise(rows, rng)
    names = list(dict.fromkeys(one.split for one in asked))
    members = {name: [row for one, row in zip(asked, rows, strict=True) if one.split == name] for name in names}
    return {
        **whole,
        "by_split": {name: summarise(members[name], rng) for name in names} if len(names) > 1 else {names[0]: whole},
        "slices": slices(asked, rows, rng),
        "content_hash": version.content_hash,
        "kind": version.kind,
        "completions": {str(one.prompt.sample_id): i for one, i in zip(asked, ids, strict=True)},
    }


def curve_of(home: Home, version: t.ModelVersion) -> Curve | None:
    """Reward and KL per rollout of the run that made an RL version, thinned to MAX_POINTS; None when it left no such file."""
    path = home.resolve(version.path) / "kl_metrics.json"
    if version.kind != VersionKind.RL or not path.is_file():
        return None
    rollouts = json.loads(path.read_text(encoding="utf-8")).get("rollouts", [])
    rollouts = rollouts[:: max(1, -(-len(rollouts) // MAX_POINTS))]
    return {
        "rollout": [int(r["rollout"]) for r in rollouts],
        "reward": [r.get("objective/scores") for r in rollouts],
        "kl": [r.get("objective/kl") for r in rollouts],
    }


def round_of(run: Run) -> int:
    """N of this report. Counted over the files there are; taken by making the file, so that two jobs never share one."""
    folder = run.home.root / "reports" / "rl_stage"
    folder.mkdir(parents=True, exist_ok=True)
    mine = run.dir / "round.json"
    if mine.is_file():
        return int(json.loads(mine.read_text(encoding="utf-8"))["round"])
    taken = [int(m[1]) for p in folder.glob("eval_report_round*.md") if (m := re.fullmatch(r"eval_report_round(\d+)", p.stem))]
    number = max(taken, default=0) + 1
    while True:
        try:
            (folder / f"eval_report_round{number}.md").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            write_json(mine, {"round": number})
            return number


def publish(run: Run, name: str, report: EvaluationReport) -> Path:
    """Write Markdown, JSON and figures into the run folder and into reports/rl_stage; returns the latter's Markdown file."""
    stem = f"eval_report_round{report['round']}"
    folder = run.home.root / "reports" / "rl_stage"
    texts: dict[str, dict[int, Answered]] = {}
    for one in report["comparisons"]:
        texts[one["candidate"]] = {a.sample_id: a for a in answers_of(report, one, [*one["regressions"], *one["wins"]])}
    drawn = {f"{stem}_{key}.svg": svg for key, svg in figures(report).items()}
    markdown = report_markdown(name, report, texts, list(drawn))
    whole = {**report, "texts": {version: {i: as_json(a) for i, a in found.items()} for version, found in texts.items()}}
    for place, file in ((run.dir, "report"), (folder, stem)):
        for figure, svg in drawn.items():
            (place / figure).write_text(svg, encoding="utf-8")
        write_json(place / f"{file}.json", whole)
        (place / f"{file}.md").write_text(markdown, encoding="utf-8")
    return folder / f"{stem}.md"


def as_json(answered: Answered) -> dict[str, str | None]:
    return {"question": answered.question, "baseline": answered.baseline, "candidate": answered.candidate}


def figures(report: EvaluationReport) -> dict[str, str]:
    """SVG by a short name: reward by split with intervals, and reward and KL over rollouts of every RL version."""
    bars = []
    for split in report["splits"]:
        for series, (name, version) in enumerate(report["versions"].items()):
            v = version["by_split"][split]
            if v["mean"] is not None and v["ci_low"] is not None and v["ci_high"] is not None:
                bars.append(Bar(f"{name} · {split}", series, v["mean"], v["ci_low"], v["ci_high"], f"{v['mean']:.3f} (n {v['n']})"))
    drawn = {"reward": intervals("Mean reward by split", "mean reward, 95 % interval", bars)}
    for number, (name, curve) in enumerate(report["curves"].items(), 1):
        panels = [("mean reward", curve["reward"]), ("KL to the reference, nats per sequence", curve["kl"])]
        drawn[f"curve{number}"] = lines_over(f"{name}: training", "rollout", curve["rollout"], panels)
    return drawn


def print_version(name: str, rows: Sequence[Measured]) -> None:
    known = [m.reward for m in rows if m.reward is not None]
    mean = f"{sum(known) / len(known):.4f}" if known else "unknown"
    print(f"{name}: mean reward {mean} over {len(known)} of {len(rows)} answers", flush=True)


def store(run: Run, config: EvaluateConfig, report: EvaluationReport, place: Path) -> int:
    """Store the report; an earlier attempt of the same job is replaced. Returns the evaluation's id."""
    with write_session() as session:
        if run.job_id:
            session.execute(delete(t.Evaluation).where(t.Evaluation.job_id == run.job_id))
        row = t.Evaluation(
            name=config.name,
            job_id=run.job_id or None,
            config_version=report["reward_config"],
            report=dict(report),
            report_path=run.home.relative(place),
        )
        session.add(row)
        session.flush()
        return row.id


if __name__ == "__main__":
    main(evaluate)
