"""The end of a reinforcement or preference run: weights and records in models/rl/NAME, and the version's row.

PPO, GRPO and preference learning end here, so that the three leave the same files, manifest and bill behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core.jobs.configs import JobConfig
from core.lineage import Taken, note_uses
from core.models import folder_hash, register_version
from core.records import Split, VersionKind
from core.scoring import Scorer
from db import tables as t
from db.engine import read_session, write_session
from training.actuals import actuals
from training.causal import replace_folder
from training.ppo_files import ACTUALS, ESTIMATE, KL, REWARDS, SAMPLES, USAGE, WATCH, RunFiles
from training.run import Run, write_json

RECORDS = (REWARDS, KL, USAGE, SAMPLES, WATCH, ESTIMATE, ACTUALS)


def register_rl(
    run: Run,
    name: str,
    config: JobConfig,
    start: t.ModelVersion,
    base_id: int | None,
    save: Callable[[Path], None],
    manifest: dict[str, Any],
    *,
    folder: str = "",
    records: tuple[str, ...] = (),
    task: str = "answer",
    taken: Taken | None = None,
) -> str:
    """Weights by `save`, the config and the named files of the run in models/rl/FOLDER (default `name`); returns their SHA-256.

    The folder is put in place whole, and before its row: a row never points at half-written weights. `taken`: the decisions and
    votes that it learned from.
    """
    scratch, target = run.dir / "adapter", run.home.models / "rl" / (folder or name)
    shutil.rmtree(scratch, ignore_errors=True)
    save(scratch)
    (scratch / "config.json").write_text(config.model_dump_json(indent=1), encoding="utf-8")
    for file in records:
        shutil.copy(run.dir / file, scratch / file)
    replace_folder(scratch, target)
    digest = folder_hash(target)
    with write_session() as session:
        version = register_version(
            session,
            name=name,
            kind=VersionKind.RL,
            path=run.home.relative(target),
            base_version_id=base_id,
            parent_version_id=start.id,
            is_toy=start.is_toy,
            content_hash=digest,
            manifest={"config": config.model_dump(), "parent": {"name": start.name, "content_hash": start.content_hash}, **manifest},
            job_id=run.job_id,
            task=task,
        )
        note_uses(session, "version", version.id, taken or {})
    return digest


def finish_rollouts(
    run: Run,
    method: str,
    name: str,
    config: JobConfig,
    start: t.ModelVersion,
    base_id: int | None,
    save: Callable[[Path], None],
    *,
    out: RunFiles,
    dataset: t.Dataset,
    scorer: Scorer,
    history: list[dict[str, float]],
    num_samples: int,
    folder: str = "",
) -> None:
    """Count what the run cost, register its version, and write the job's result. `history`: one dict of metrics per rollout."""
    scorer.teacher.wait_idle()  # second opinions still under way are paid for too
    totals = spent_by(run.job_id) or out.teacher_totals()
    spent = actuals(
        method,
        num_samples=num_samples,
        seconds=sum(h["seconds"] for h in history),
        prompt_tokens=round(sum(h["tokens/prompt"] for h in history)),
        generated_tokens=round(sum(h["tokens/generated"] for h in history)),
        trained_tokens=round(sum(h["tokens/trained"] for h in history)),
        teacher_name=scorer.teacher.name,
        attempts=int(os.environ.get("CONSILIUM_ATTEMPT", "1")),
        **totals,
    )
    write_json(run.dir / ACTUALS, spent)
    last, num_rules_only = history[-1], sum(h["val/rules_only"] for h in history)
    manifest = {
        "method": method,
        "dataset": {"name": dataset.name, "content_hash": dataset.content_hash, "split": Split.TRAIN.value},
        "reward_config": scorer.config.version,
        "teacher": {
            "name": scorer.teacher.name,
            "rubric_version": scorer.teacher.rubric_version,
            "is_offline": scorer.teacher.is_offline,
            "num_rules_only_rollouts": num_rules_only,
            "usd": totals["usd"],
        },
        "kl": last["objective/kl"],
        "metrics": last,
    }
    digest = register_rl(run, name, config, start, base_id, save, manifest, folder=folder, records=RECORDS)
    run.result(
        version=name,
        content_hash=digest,
        num_samples=num_samples,
        num_unscored=sum(h["val/num_unscored"] for h in history),
        num_rules_only_rollouts=num_rules_only,
        first_score=history[0]["objective/scores"],
        last_score=last["objective/scores"],
        kl=last["objective/kl"],
        usd=totals["usd"],
    )


def spent_by(job_id: int) -> dict[str, Any] | None:
    """What all attempts of a job asked of a paid teacher, by the ledger: teacher_usage.csv holds only rollouts that were kept."""
    with read_session() as session:
        rows = list(session.scalars(select(t.TeacherUsage).where(t.TeacherUsage.job_id == job_id))) if job_id else []
    if not rows:
        return None
    return {
        "teacher_calls": sum(row.num_asked - row.num_cached for row in rows),
        "teacher_cached": sum(row.num_cached for row in rows),
        "teacher_prompt_tokens": sum(row.prompt_tokens for row in rows),
        "teacher_completion_tokens": sum(row.completion_tokens for row in rows),
        "usd": None if any(row.num_cost_unknown for row in rows) else sum(row.cost_usd for row in rows),
    }
