"""Let an index learn from a week of use: new doors for what was missed, a reranker from what was right; both on probation.

Log (questions, passages shown, clicks without their position, judgements) -> lessons (core.retrieval.learning) -> a new index version by an
incremental update -> both versions on the frozen set -> the gate. Only a significant gain is switched to; anything else stays
beside it as a version that does not answer, with the reason (core.retrieval_trials). The reranker is trained for one epoch by
training.reranker on the confident pairs and passes the same gate as part of the stack. Questions of the frozen set teach nothing.
Counts per pseudo-question (hits, helpful, harmful) are written for pruning (entry_stats.json, core.retrieval.prune).

    python -m training.learn_retrieval --run-dir DIR     (job kind learn_retrieval; weekly by a schedule)
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from core import retrieval_trials, search_plans
from core.errors import UserError
from core.jobs.configs_retrieval_evaluation import LearnRetrievalConfig
from core.retrieval import index_versions
from core.retrieval.bench import Bench
from core.retrieval.clicks import Impression, entry_stats
from core.retrieval.dense import Encoder
from core.retrieval.encoders import open_encoder
from core.retrieval.entries import searchable
from core.retrieval.index import Index, load_index, update_index
from core.retrieval.judged import JudgedSet, Question, key_of, read_beir
from core.retrieval.learning import Lessons, lessons_of, new_questions
from core.retrieval.plans import Plan
from core.retrieval.prune import prune, read_stats
from core.retrieval.rerankers import open_reranker
from core.retrieval.trial import MIN_GAIN, MIN_QUERIES, Verdict, gate
from core.retrieval.writers import open_writer
from core.retrieval_use import Asked, asked, judged_questions
from core.searching import active_index
from core.settings import ROOT
from core.teacher.journal import redact
from training.run import Run, main, write_json

#: fewer questions with a confident positive are no reason to train
MIN_PAIRS = 50
#: passages of a list as Ask shows it
SHOWN = 5


def learn(run: Run) -> None:
    """One round of learning."""
    # 1. The log, the frozen set, the index in force.
    config = run.config(LearnRetrievalConfig)
    shown = active_index(config.index)
    index = load_index(run.home.resolve(shown.path))
    events = asked(config.index, days=config.days)
    frozen, teaching = frozen_set(run, config)
    if len(frozen.questions) < MIN_QUERIES:
        raise UserError("retrieval.frozen_too_small", num=len(frozen.questions), least=MIN_QUERIES)
    encoder = open_encoder(index.dense_model.name) if index.dense_model else None
    impressions = [event.impression for event in events] + [as_impression(index, question) for question in teaching.questions]
    lessons = lessons_of(index, impressions, "section", [q.text for q in frozen.questions])
    keep_stats(run, config, shown.version, index, events, lessons)
    print(f"{len(events)} questions asked, {len(lessons.missed)} missed, {len(lessons.pairs)} confident pairs", flush=True)

    # 2. New doors.
    outcome: dict[str, Any] = {
        "num_asked": len(events), "num_missed": len(lessons.missed), "num_pairs": len(lessons.pairs), "frozen": frozen.name,
        "num_frozen": len(frozen.questions), "num_teaching": len(teaching.questions),
        "why_missed": dict(Counter(missed.why for missed, _ in lessons.missed)),
    }  # fmt: skip
    outcome["questions"] = learn_questions(run, config, index, shown.version, lessons, frozen, encoder)

    # 3. The reranker, on the index that now answers.
    if config.with_reranker:
        outcome["reranker"] = learn_reranker(run, config, lessons, frozen)
    run.result(**outcome)


def frozen_set(run: Run, config: LearnRetrievalConfig) -> tuple[JudgedSet, JudgedSet]:
    """The questions that judge, and those of the team's own that may teach: every second one by a hash of its words, for ever."""
    if config.data:
        return read_beir(run.home.root / Path(config.data).expanduser()), JudgedSet("", ())
    team = judged_questions(config.index)
    held = tuple(q for q in team.questions if hashlib.sha256(q.text.encode()).digest()[0] % 2 == 0)
    rest = tuple(q for q in team.questions if q not in held)
    return JudgedSet(team.name, held, team.unit), JudgedSet(team.name, rest, team.unit)


def as_impression(index: Index, question: Question) -> Impression:
    """A judged question as if it had been asked today: what the passages' own words find, and the verdicts about it."""
    shown = tuple(dict.fromkeys(key_of(index.chunk(found.parent), "section") for found in index.lexical(question.text, SHOWN)))
    return Impression(question.text, shown, thumbs={place: 1 if grade > 0 else -1 for place, grade in question.qrels.items()})


def learn_questions(
    run: Run, config: LearnRetrievalConfig, index: Index, version: int, lessons: Lessons, frozen: JudgedSet, encoder: Encoder | None
) -> dict[str, Any]:
    """A new index version with doors for what was missed; in force if the frozen set gains by it."""
    run.progress("questions", 0, 3)
    writer = open_writer(config.writer) if config.writer else None
    more = new_questions(
        index,
        lessons,
        write=(lambda texts: writer.write(texts, config.num_questions, config.seed)) if writer else None,
        is_private=lambda text: redact(text) != text,
    )
    harmful = harmful_entries(run)
    if not more and not harmful:
        return {"decision": "nothing_new"}
    number = index_versions.claim(config.index, run.job_id or None, run.dir / "version.txt")
    if not index_versions.is_there(config.index, number):
        scratch = run.home.indexes / config.index / f".learning-{run.job_id}-{os.getpid()}"
        note = f"learnt from use: {sum(map(len, more.values()))} questions for {len(more)} chunks, {len(harmful)} dropped"
        update_index(index, scratch, about={"version": number}, more_questions=more, remove_entries=harmful, encoder=encoder)
        index_versions.install(config.index, number, scratch, based_on=version, note=note)
    run.progress("questions", 1, 3)
    run.leave_if_stopped()
    candidate = load_index(index_versions.folder_of(config.index, number))
    plan = with_questions(search_plans.plan_for(config.index))
    verdict = judge(config, frozen, (index, search_plans.plan_for(config.index)), (candidate, plan), encoder)
    run.progress("questions", 2, 3)
    trial_id = retrieval_trials.propose(
        config.index, "questions", verdict, candidate_index_id=row_id(config.index, number), candidate_plan=plan,
        set_name=frozen.name, reason=f"weekly learning, version {number}", job_id=run.job_id or None,
    )  # fmt: skip
    decision = take(config, trial_id, verdict)
    return {
        "version": number, "num_new": sum(map(len, more.values())), "num_dropped": len(harmful), "trial": trial_id,
        "decision": decision, **verdict.as_record(),
    }  # fmt: skip


def learn_reranker(run: Run, config: LearnRetrievalConfig, lessons: Lessons, frozen: JudgedSet) -> dict[str, Any]:
    """One epoch on the confident pairs, judged as a part of the whole stack."""
    shown = active_index(config.index)
    index = load_index(run.home.resolve(shown.path))
    texts = {key_of(chunk, "section"): searchable(chunk) for _, chunk in index.store.living()}
    rows: dict[str, dict[str, Any]] = {}
    for query, place, is_relevant in lessons.pairs:
        if place in texts:
            row = rows.setdefault(query, {"query": query, "positive": [], "negative": []})
            row["positive" if is_relevant else "negative"].append(texts[place])
    usable = [row for row in rows.values() if row["positive"]]
    if len(usable) < MIN_PAIRS:
        return {"decision": "too_few_pairs", "num_pairs": len(usable), "least": MIN_PAIRS}
    folder = run.dir / "reranker"
    folder.mkdir(exist_ok=True)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in usable), encoding="utf-8")
    name = f"{config.index}-reranker-{run.job_id or 'hand'}"
    write_json(folder / "config.json", {"name": name, "pairs": str(folder / "pairs.jsonl"), "num_epochs": 1.0, "seed": config.seed})
    run.progress("reranker", 0, 2)
    done = subprocess.run([sys.executable, "-m", "training.reranker", "--run-dir", str(folder)], cwd=ROOT, check=False)
    if done.returncode:
        return {"decision": "training_failed", "code": done.returncode}
    run.progress("reranker", 1, 2)
    before = search_plans.plan_for(config.index)
    plan = before.changed({"reranker": name})
    encoder = open_encoder(index.dense_model.name) if index.dense_model else None
    verdict = judge(config, frozen, (index, before), (index, plan), encoder, min_gain=max(config.min_gain, MIN_GAIN))
    trial_id = retrieval_trials.propose(
        config.index, "reranker", verdict, candidate_plan=plan, set_name=frozen.name, reason=f"weekly learning, {name}",
        job_id=run.job_id or None,
    )  # fmt: skip
    return {"model": name, "num_pairs": len(usable), "trial": trial_id, "decision": take(config, trial_id, verdict), **verdict.as_record()}


def judge(
    config: LearnRetrievalConfig,
    frozen: JudgedSet,
    control: tuple[Index, Plan],
    candidate: tuple[Index, Plan],
    encoder: Encoder | None,
    *,
    min_gain: float | None = None,
) -> Verdict:
    """Both stacks on the frozen set, through the Retriever that answers people."""
    values = []
    for index, plan in (control, candidate):
        reranker = open_reranker(plan.reranker) if plan.reranker else None
        values.append(Bench(index, frozen, encoder, reranker).values(plan, config.metric))
    rng = np.random.default_rng(config.seed)
    return gate(values[0], values[1], rng, metric=config.metric, min_gain=config.min_gain if min_gain is None else min_gain)


def take(config: LearnRetrievalConfig, trial_id: int, verdict: Verdict) -> str:
    """Switch to what the gate accepted, if this job may."""
    if not verdict.is_accepted:
        return f"kept_aside: {verdict.reason}"
    if not config.activate:
        return "waits_for_trial"
    retrieval_trials.promote(None, trial_id, reason=f"weekly learning: {verdict.metric} gained on the frozen set")
    return "in_force"


def with_questions(plan: Plan) -> Plan:
    """A plan that searches pseudo-questions: without them new doors change nothing."""
    return plan.changed({"with_syn": True})


def keep_stats(run: Run, config: LearnRetrievalConfig, version: int, index: Index, events: list[Asked], lessons: Lessons) -> None:
    """Counts per pseudo-question of this index, by entry number, as core.retrieval.prune reads them."""
    by_text = entry_stats([event.impression for event in events], lessons.evidence)
    entries: dict[str, dict[str, int]] = {}
    for number in index.numbers if by_text else ():
        for entry in index.questions(number):
            if (seen := by_text.get(entry.text.partition("\n")[0])) is not None:
                entries[str(entry.id)] = {
                    "num_hits": seen.num_hits, "num_helpful": seen.num_helpful, "num_harmful": seen.num_harmful,
                }  # fmt: skip
    write_json(run.dir / "entry_stats.json", {"index": config.index, "version": version, "num_questions": len(events), "entries": entries})


def harmful_entries(run: Run) -> list[int]:
    """Pseudo-questions whose passages were confidently wrong more often than right."""
    stats = read_stats(run.dir / "entry_stats.json")
    return prune(stats.entries, stats).harmful


def row_id(name: str, version: int) -> int:
    """The id of a version's row."""
    return next(shown.id for shown in index_versions.listing(name) if shown.version == version)


if __name__ == "__main__":
    main(learn)
