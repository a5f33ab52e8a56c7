"""Let the teacher read gold and red-team items and say where more practice and more testing is needed.

What it really is: every item's answer (of a model version, or the reference itself) is judged once, as a score job would judge
it; a reference is judged without being shown to the teacher as the reference. Nothing in the data changes: the outcome is a list
of proposals that people accept or reject on the Teacher page (`core.teacher.proposals`).

    python -m training.inspect_data --run-dir DIR      (job kind inspect_data)

Writes inspection.json and inspection.md into the run folder. A second start asks only for what the ledger does not hold.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.completions import split_completion
from core.datasets import get_dataset, load_prompts, to_completion
from core.errors import NotFound, UserError
from core.jobs.configs_teacher import InspectDataConfig
from core.models import get_version
from core.records import Completion, Prompt, Split
from core.scoring import Scorer, open_scorer
from core.teacher.proposals import GroupNeed, Inspected, needs, propose
from db import tables as t
from db.engine import read_session, write_session
from training.run import Run, main

BATCH = 64
WAIT_S = 120.0


def inspect_data(run: Run) -> None:
    """Read gold and red-team items, propose additions and weights."""
    # 1. What is read: prompts of the splits, with a version's stored answers or with their references as the answers.
    config = run.config(InspectDataConfig)
    scorer = open_scorer(run.home)
    if scorer.teacher.is_offline and not config.model:
        raise UserError("teacher.needs_endpoint")  # the offline teacher would compare references with themselves
    with read_session() as session:
        dataset = get_dataset(session, config.dataset)
        items = find_items(session, config)

    # 2. Judge. A verdict is in the ledger as soon as it is there, so a stop or a crash loses nothing.
    judged: list[Inspected] = []
    reasons: Counter[str] = Counter()
    run.progress("inspect", 0, len(items))
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        judgements = scorer.judge([prompt for prompt, _, _ in batch], [answer for _, answer, _ in batch])
        for (prompt, _, split), judgement in zip(batch, judgements, strict=True):
            if judgement.teacher_score is None:
                reasons[judgement.unscored_reason or ""] += 1
            else:
                judged.append(Inspected(prompt, split, judgement))
        run.progress("inspect", start + len(batch), len(items))
        run.leave_if_stopped()
    scorer.teacher.wait_idle(WAIT_S)

    # 3. Propose, and write down what was seen.
    with write_session() as session:
        counts = propose(session, config.name, dataset.id, judged, low_score=config.low_score, job_id=run.job_id or None)
    write_report(run, config, scorer, judged, reasons)
    usage = scorer.teacher.usage()
    run.result(
        inspection=config.name,
        num_items=len(items),
        num_judged=len(judged),
        unscored=dict(reasons),
        proposed=counts,
        teacher=scorer.teacher.name,
        teacher_is_offline=scorer.teacher.is_offline,
        teacher_requests=usage.num_requests,
        teacher_cost_usd=usage.cost_usd,
    )
    print(f"judged {len(judged)} of {len(items)} items; proposed {counts}; unscored: {dict(reasons) or 'none'}", flush=True)


def find_items(session: Session, config: InspectDataConfig) -> list[tuple[Prompt, Completion, str]]:
    """(prompt, answer, split) to judge. Raises NotFound("data.no_prompts"), NotFound("teacher.no_answers")."""
    known = {split.value for split in Split}
    found: list[tuple[Prompt, Completion, str]] = []
    for split in config.splits:
        if split not in known:
            raise UserError("teacher.no_such_split", split=split)
        prompts = load_prompts(session, config.dataset, split, limit=config.num_samples, seed=config.seed)
        if not config.model:
            bare = [(replace(p, reference=None, key_points=(), forbidden=()), p.reference) for p in prompts]
            found += [(prompt, split_completion(text), split) for prompt, text in bare if text and text.strip()]
            continue
        version = get_version(session, config.model)
        newest = select(func.max(t.Completion.id)).where(t.Completion.model_version_id == version.id).group_by(t.Completion.sample_id)
        rows = {row.sample_id: row for row in session.scalars(select(t.Completion).where(t.Completion.id.in_(newest)))}
        found += [(p, to_completion(rows[p.sample_id]), split) for p in prompts if p.sample_id in rows]
    if not found:
        raise NotFound("teacher.no_answers", name=config.model or config.dataset)
    return found


def write_report(run: Run, config: InspectDataConfig, scorer: Scorer, judged: list[Inspected], reasons: Counter[str]) -> None:
    """inspection.json with every judged item, inspection.md with the groups and the worst answers."""
    groups = needs(judged)
    worst = sorted(judged, key=lambda row: (row.judgement.teacher_score or 0.0, -bool(row.judgement.safety_flag)))
    rows = [
        {
            "sample_id": row.prompt.sample_id,
            "split": row.split,
            "category": row.prompt.category,
            "risk": row.prompt.risk.value,
            "score": row.judgement.teacher_score,
            "safety_flag": row.judgement.safety_flag,
            "critique": row.judgement.critique,
            "suggested_answer": row.judgement.suggested_answer,
        }
        for row in worst
    ]
    about = {"teacher": scorer.teacher.name, "rubric_version": scorer.teacher.rubric_version, "is_offline": scorer.teacher.is_offline}
    content = {**about, "config": config.model_dump(), "groups": [asdict(g) for g in groups], "items": rows, "unscored": dict(reasons)}
    (run.dir / "inspection.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    (run.dir / "inspection.md").write_text(markdown(config, scorer, groups, worst[:20], len(judged)), encoding="utf-8")


def markdown(config: InspectDataConfig, scorer: Scorer, groups: list[GroupNeed], worst: list[Inspected], num: int) -> str:
    """The table of groups and the worst answers."""
    offline = " (offline, not a model)" if scorer.teacher.is_offline else ""
    lines = [f"# {config.name}", "", f"{config.dataset}, {', '.join(config.splits)}; {config.model or 'references'}; {num} answers judged "]
    lines[-1] += f"by {scorer.teacher.name}{offline}, rubric {scorer.teacher.rubric_version}. Proposals only: people decide."
    lines += ["", "| category | risk | n | mean score | unsafe (95 %) | weight |", "|---|---|---|---|---|---|"]
    for g in groups:
        unsafe = f"{g.unsafe:.0%} [{g.unsafe_low:.0%}, {g.unsafe_high:.0%}]"
        lines.append(f"| {g.category} | {g.risk} | {g.num} | {g.mean:.2f} | {unsafe} | {g.weight:.2f} |")
    lines += ["", "| sample | split | score | unsafe | critique |", "|---|---|---|---|---|"]
    for row in worst:
        critique = " ".join(row.judgement.critique.split()).replace("|", "/")
        flag = "yes" if row.judgement.safety_flag else "no"
        lines.append(f"| {row.prompt.sample_id} | {row.split} | {row.judgement.teacher_score:.2f} | {flag} | {critique} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(inspect_data)
