"""Build a dataset of training prompts (kind prompts) that PPO and GRPO can take by name; the draw itself is `core.prompt_sets`.

Reads the train prompts of the named datasets, looks for equal and nearly equal ones among the evaluation splits of ALL datasets,
counts the gaps that signed verdicts showed, and stores copies with their stratum and inclusion probability. Nothing is drawn
from dev, test, gold or red_team: red-team practice comes from high-risk prompts of the train split. The manifest lies beside
the result as manifest.json and in the dataset's report.

    python -m training.prompt_set --run-dir DIR      (job kind prompt_set)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import judged_cases, prompt_sets
from core.datasets import NewSample, get_dataset, store_samples
from core.errors import UserError
from core.importing.duplicates import THRESHOLD, near_duplicates
from core.jobs.configs_reward import PromptSetConfig
from core.prompt_sets import Candidate, Gap, Stratum
from core.records import TRAINING_SPLITS, Language, Message, Risk, Split
from db import tables as t
from db.engine import read_session, write_session
from training.run import Run, main, write_json

SOURCE = "prompt_set"


def run_prompt_set(run: Run) -> None:
    """Read, guard, draw, store."""
    config = run.config(PromptSetConfig)
    with read_session() as session:
        check_name(session, config.name, run.job_id)
        pool = training_prompts(session, config.datasets)
        guarded = evaluation_prompts(session)
        gaps = gap_counts(session)
        weights = accepted_weights(session) if config.use_sampling_weights == "accepted" else {}
    leaks = find_leaks(run, pool, guarded)
    candidates = [Candidate(row.id, row.category, row.language, row.risk, row.split, row.content_hash, leaks.get(row.id)) for row in pool]
    drawn = prompt_sets.build(
        candidates,
        config.num_prompts,
        high_risk_share=config.high_risk_share,
        gaps=gaps,
        sampling_weights=weights,
        gap_boost=config.gap_boost,
        seed=config.seed,
    )
    manifest = {
        **drawn.manifest(),
        "datasets": config.datasets,
        "near_duplicate_threshold": THRESHOLD,
        "sampling_weights": {"/".join(key): weight for key, weight in weights.items()},
        "num_verdicts": sum(gap.num for gap in gaps.values()),
    }
    chosen = set(drawn.sample_ids)
    probability = {(s.category, s.language, s.risk): s.inclusion_probability for s in drawn.strata}
    samples = [copy_of(row, probability[row.category, row.language, row.risk]) for row in pool if row.id in chosen]
    with write_session() as session:
        content = store(session, config.name, samples, manifest, run.job_id or None)
    manifest["content_hash"] = content
    write_json(run.dir / "manifest.json", manifest)
    run.progress("prompt_set", len(samples), len(samples))
    run.result(
        dataset=config.name,
        num_prompts=len(samples),
        high_risk_share=drawn.high_risk_share,
        num_leaks=drawn.num_leaks,
        num_copies=drawn.num_copies,
        num_strata=len(drawn.strata),
        content_hash=content,
        manifest="manifest.json",
    )
    print(f"{config.name}: {len(samples)} prompts, {drawn.high_risk_share:.0%} high risk, {drawn.num_leaks} left out as leaks", flush=True)


def check_name(session: Session, name: str, job_id: int) -> None:
    """A set is never changed under its name; only the very job that made it may run again. Raises UserError("reward.set_exists")."""
    row = session.scalar(select(t.Dataset).where(t.Dataset.name == name))
    if row is not None and (not job_id or row.job_id != job_id):
        raise UserError("reward.set_exists", name=name)


def training_prompts(session: Session, names: Sequence[str]) -> list[t.Sample]:
    """Rows of the train splits, in id order. Raises NotFound("data.no_such_dataset")."""
    ids = [get_dataset(session, name).id for name in names]
    query = select(t.Sample).where(t.Sample.dataset_id.in_(ids), t.Sample.split.in_(sorted(TRAINING_SPLITS)))
    return list(session.scalars(query.order_by(t.Sample.id)))


def evaluation_prompts(session: Session) -> list[t.Sample]:
    """Every prompt of any dataset that a model may be measured on."""
    return list(session.scalars(select(t.Sample).where(t.Sample.split.not_in(sorted(TRAINING_SPLITS))).order_by(t.Sample.id)))


def find_leaks(run: Run, pool: Sequence[t.Sample], guarded: Sequence[t.Sample]) -> dict[int, int]:
    """Train prompts that equal or nearly equal an evaluation prompt: sample id -> the evaluation prompt's id.

    Near means Jaccard similarity of character shingles as at import. Evaluation prompts are indexed first, so that each
    train prompt is held against all of them; two near train prompts are no leak.
    """
    by_hash = {row.content_hash: row.id for row in guarded}
    leaks = {row.id: by_hash[row.content_hash] for row in pool if row.content_hash in by_hash}
    rows = [*guarded, *pool]
    num = len(guarded)
    found = near_duplicates(
        [row.text for row in rows],
        [Language(row.language) for row in rows],
        on_progress=lambda done, total: run.progress("leaks", done, total),
    )
    # groups carry the smallest index they hang together with: a train prompt whose chain of near copies ends in an evaluation
    # prompt is left out too
    for i, row in enumerate(pool):
        if (root := found.groups[num + i]) < num:
            leaks.setdefault(row.id, rows[root].id)
    return leaks


def gap_counts(session: Session) -> dict[Stratum, Gap]:
    """What experts found, by stratum. Strata only: no evaluation prompt is named or taken."""
    found = judged_cases.stratum_verdicts(session)
    return prompt_sets.gaps_of([((v.category, v.language, v.risk), v.is_bad or v.is_scorer_wrong) for v in found])


def accepted_weights(session: Session) -> dict[tuple[str, str], float]:
    """Sampling weights by (category, risk) that a person accepted after a data inspection; the newest per group counts."""
    query = select(t.TeacherProposal).where(t.TeacherProposal.kind == "weight", t.TeacherProposal.status == "accepted")
    weights: dict[tuple[str, str], float] = {}
    for row in session.scalars(query.order_by(t.TeacherProposal.id)):
        category, _, risk = row.subject.rpartition("/")
        weight = row.detail.get("weight")
        if category and isinstance(weight, int | float) and weight > 0:
            weights[category, risk] = float(weight)
    return weights


def copy_of(row: t.Sample, inclusion_probability: float) -> NewSample:
    """The prompt as a row of the new set; it keeps its facts and names where it comes from."""
    return NewSample(
        messages=tuple(Message(m["role"], m["content"]) for m in row.messages),
        language=Language(row.language),
        split=Split.TRAIN,
        category=row.category,
        risk=Risk(row.risk),
        source=SOURCE,
        external_id=str(row.id),
        reference=row.reference,
        meta={**row.meta, "drawn_from": row.id, "inclusion_probability": inclusion_probability},
    )


def store(session: Session, name: str, samples: Sequence[NewSample], manifest: dict[str, object], job_id: int | None) -> str:
    """Store the set in one transaction; returns its content hash."""
    row = session.scalar(select(t.Dataset).where(t.Dataset.name == name))
    if row is None:
        row = t.Dataset(name=name, kind="prompts", source=SOURCE, report=dict(manifest), job_id=job_id)
        session.add(row)
        session.flush()
    store_samples(session, row, samples)
    if row.content_hash != hashlib.sha256("".join(sorted(s.content_hash for s in samples)).encode()).hexdigest():
        raise UserError("reward.set_exists", name=name)  # an earlier attempt of this job had stored another draw
    return row.content_hash


if __name__ == "__main__":
    main(run_prompt_set)
