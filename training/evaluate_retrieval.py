"""Measure every stage of retrieval on judged questions, say which stage pays, and choose the default plan.

A set in BEIR form (its own corpus is indexed for the occasion, or an index of ours is searched) or the team's own judged questions.
Every rung goes through the Retriever that answers people; steps are paired, intervals are bootstrapped (core.retrieval.ladder). The
report is a database row, report.json and report.md in the run folder, and questions.jsonl beside them with the ranking, the doors and
the failure of every question.

    python -m training.evaluate_retrieval --run-dir DIR      (job kind evaluate_retrieval; ./run.sh retrieval evaluate --help)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from core import search_plans
from core.errors import UserError
from core.jobs.configs_retrieval_evaluation import EvaluateRetrievalConfig
from core.retrieval import ladder
from core.retrieval.bench import Bench, Place
from core.retrieval.chunk import Chunk, chunk_document
from core.retrieval.decision import THRESHOLDS
from core.retrieval.encoders import open_encoder
from core.retrieval.entries import searchable
from core.retrieval.failures import Failure, classify, is_failure
from core.retrieval.index import Index, build_index, load_index, update_index
from core.retrieval.judged import JudgedSet, key_of, read_beir, read_corpus, read_train_questions
from core.retrieval.ladder import MAIN, SHAPE, Available, Report, mean_of, step_of
from core.retrieval.metrics import METRICS, Threshold, definition, gold_kind
from core.retrieval.plans import Plan
from core.retrieval.question_filter import finding_their_own, with_passages, with_words
from core.retrieval.rerankers import open_reranker
from core.retrieval.slices import kinds_of, slices
from core.retrieval.writers import open_writer
from core.retrieval_use import judged_questions
from core.searching import active_index
from db import tables as t
from db.engine import write_session
from training.evaluate_retrieval_report import markdown
from training.index_questions import key_of as key_of_passage
from training.index_questions import measured_form, write_questions
from training.run import Run, main, write_json

#: places of each ranking kept per question
KEPT = 10


def evaluate(run: Run) -> None:
    """Measure the ladder and choose a plan."""
    # 1. Questions, index, models.
    config = run.config(EvaluateRetrievalConfig)
    folder = (run.home.root / Path(config.data).expanduser()) if config.data else None
    if folder is None and not config.index:
        raise UserError("retrieval.no_set")
    judged = read_beir(folder, min_grade=config.min_grade, limit=config.limit) if folder else judged_questions(config.index)
    if not judged.questions:
        raise UserError("retrieval.nothing_judged", name=judged.name)
    index, index_id, index_label = open_measured(run, config, folder)
    name = index.dense_model.name if index.dense_model else ""
    encoder = open_encoder(name) if name else None
    if encoder:
        index.require(encoder)
    reranker = open_reranker(config.reranker) if config.reranker else None
    bench = Bench(index, judged, encoder, reranker)
    num_syn = index.manifest.get("num_syn", 0)
    has_pseudo = any(q.pseudo_doc for q in judged.questions)
    available = Available(encoder is not None, num_syn > 0, has_pseudo, config.reranker)
    base = search_plans.plan_for(config.index) if config.index else Plan()

    # 2. The ladder, the choice, and how much choosing flatters.
    rng = np.random.default_rng(config.seed)
    run.progress("measure", 0, 4)
    stages, skipped, best = ladder.measure_stages(bench, base, available, rng)
    run.progress("measure", 1, 4)
    run.leave_if_stopped()
    languages = ladder.languages_of(bench)
    plan, choices = ladder.choose_plan(base, available, bench.values, rng, languages)
    crossfit = ladder.crossfit(base, available, bench.values, rng, languages)
    run.progress("measure", 2, 4)

    # 3. Failures of the chosen plan, slices, thresholds.
    leg = ladder.legs_of(base, available)[best]
    before, after = bench.values(leg), bench.values(plan)
    places = passages_by_place(index, judged)
    failures = failures_of(bench, plan, places, ladder.legs_of(base, available))
    kinds = [kinds_of(q.text, lang, index.weight) for q, lang in zip(judged.questions, languages, strict=True)]
    report: Report = {
        "shape": SHAPE,
        "name": config.name,
        "source": judged.name,
        "unit": judged.unit,
        "gold": gold_kind(q.qrels for q in judged.questions),
        "corpus_size": len(index.documents),
        "num_chunks": len(index),
        "num_entries": index.num_entries,
        "num_syn": num_syn,
        "num_queries": len(judged.questions),
        "languages": dict(Counter(languages)),
        "encoder": name,
        "reranker": config.reranker,
        "questions_from": str(index.manifest.get("questions_from") or config.questions),
        "main": MAIN,
        "best_leg": best,
        "stages": stages,
        "skipped": skipped,
        "plan": plan.to_json(),
        "choices": choices,
        "chosen_against_best_leg": step_of(before, after, rng),
        "crossfit": crossfit,
        "chosen": {metric: mean_of(bench.values(plan, metric), rng) for metric in METRICS},
        "slices": slices(kinds, before, after, rng),
        "failures": dict(Counter(f.category for f in failures.values())),
        "thresholds": thresholds_of(judged, len(index.documents), stages),
        "queries_needed": ladder.power(before, after if after != before else bench.values(Plan.from_json(stages[-1]["plan"]))),
        "index": index_label,
        "set_hash": set_hash(judged),
    }
    report = json.loads(json.dumps(report))  # as it will be read: numpy's numbers become plain ones, or fail here
    run.progress("measure", 3, 4)

    # 4. Files, row, plan.
    write_per_question(run.dir / "questions.jsonl", bench, stages, plan, failures)
    write_json(run.dir / "report.json", report)
    (run.dir / "report.md").write_text(markdown(report), encoding="utf-8")
    evaluation_id = store(run, config, report, index_id)
    if config.use_plan and config.index:
        search_plans.set_plan(config.index, plan, reason=f"retrieval evaluation {evaluation_id}", by=None)
    run.progress("measure", 4, 4)
    run.result(
        evaluation=evaluation_id,
        best_leg=best,
        plan=report["plan"],
        **{f"chosen {metric}": value["mean"] for metric, value in report["chosen"].items()},
    )


def open_measured(run: Run, config: EvaluateRetrievalConfig, folder: Path | None) -> tuple[Index, int | None, str]:
    """The index to measure with its row and name: the active version of `config.index`, else one built from the set's corpus."""
    if config.index:
        shown = active_index(config.index)
        return load_index(run.home.resolve(shown.path)), shown.id, f"{shown.name} v{shown.version}"
    if folder is None:
        raise UserError("retrieval.no_set")
    target = run.dir / "index"
    if not (target / "manifest.json").is_file():  # an attempt that was killed is built anew
        chunks = [chunk for document in read_corpus(folder) for chunk in chunk_document(document, config.chunk_tokens)]
        run.progress("index", 0, len(chunks))
        encoder = open_encoder(config.encoder) if config.encoder else None
        about = {"name": folder.name, "questions_from": config.questions}
        questions, form = questions_for(run, config, folder, chunks)
        plain = run.dir / "index-plain" if form == "alone" else target
        build_index(chunks, plain, about, questions={} if form == "alone" else questions, encoder=encoder)
        if form == "alone":  # a short question must lead to its own passage, as the index job has it
            kept = finding_their_own(load_index(plain), questions, encoder=encoder)
            update_index(load_index(plain), target, more_questions=kept, encoder=encoder)
            shutil.rmtree(plain)
        run.progress("index", len(chunks), len(chunks))
    return load_index(target), None, folder.name


def questions_for(run: Run, config: EvaluateRetrievalConfig, folder: Path, chunks: list[Chunk]) -> tuple[dict[int, list[str]], str]:
    """What is to be searched beside each chunk, and the form of it: a writer's questions in the form that its trial found best
    ("alone": still to be filtered), or the set's training questions as they are, at the first chunk of their document."""
    if not config.questions:
        return {}, ""
    if config.questions == "train_pairs":
        known = read_train_questions(folder)
        first = {chunk.file: number for number, chunk in reversed(list(enumerate(chunks)))}
        return {number: known[file][: config.num_questions] for file, number in first.items() if file in known}, ""
    writer, passages = open_writer(config.questions), [searchable(chunk) for chunk in chunks]

    def on_batch(done: int) -> None:
        run.progress("questions", done, len(chunks))
        run.leave_if_stopped()

    written = write_questions(writer, passages, config.num_questions, run.dir / "written.jsonl", on_batch)
    questions = {number: texts for number, text in enumerate(passages) if (texts := written[key_of_passage(text)])}
    form = measured_form(config.questions)
    if form == "with_words" and writer.words is not None:
        return with_words(questions, writer.words, passages), form
    return (questions if form == "alone" else with_passages(questions, passages)), form


def passages_by_place(index: Index, judged: JudgedSet) -> dict[str, str]:
    """The text of every judged place that is in the index, chunks joined."""
    wanted = {key for question in judged.questions for key in question.relevant}
    found: dict[str, list[str]] = {}
    for _, chunk in index.store.living():
        key = key_of(chunk, judged.unit)
        if key in wanted:
            found.setdefault(key, []).append(searchable(chunk))
    return {key: "\n".join(texts) for key, texts in found.items()}


def failures_of(bench: Bench, plan: Plan, places: dict[str, str], legs: dict[str, Plan]) -> dict[str, Failure]:
    """Question id -> why the plan failed it."""
    rankings = bench.rankings(plan)
    by_leg = {name: bench.rankings(leg) for name, leg in legs.items()}
    found = {}
    for i, question in enumerate(bench.judged.questions):
        keys = [place.key for place in rankings[i]]
        if is_failure(keys, question.relevant):
            texts = {key: places[key] for key in question.relevant if key in places}
            first = bench.index.chunk(rankings[i][0].number).text if rankings[i] else ""
            ranked = {name: [place.key for place in ranking[i]] for name, ranking in by_leg.items()}
            found[question.id] = classify(question.text, texts, keys, ranked, first, bench.index.weight)
    return found


def thresholds_of(judged: JudgedSet, corpus_size: int, stages: list[ladder.Stage]) -> dict[str, Threshold]:
    """Every threshold with what is needed to read it; the set's own values come before the defaults."""
    bm25 = next(stage["metrics"] for stage in stages if stage["name"] == "bm25")
    gold = gold_kind(q.qrels for q in judged.questions)
    values = {**THRESHOLDS, **judged.thresholds}
    return {
        name: {
            "metric": name,
            "value": value,
            "definition": definition(name),
            "gold": gold,
            "corpus_size": corpus_size,
            "num_queries": len(judged.questions),
            "bm25": bm25[name]["mean"],
            "source": "set" if name in judged.thresholds else "default",
        }
        for name, value in values.items()
    }


def write_per_question(path: Path, bench: Bench, stages: list[ladder.Stage], plan: Plan, failures: dict[str, Failure]) -> None:
    """One line per question: judgements, and per rung the first places with their doors and the value of the main metric."""
    plans = {stage["name"]: Plan.from_json(stage["plan"]) for stage in stages} | {"chosen": plan}
    values = {name: bench.values(p) for name, p in plans.items()}
    rankings = {name: bench.rankings(p) for name, p in plans.items()}
    with path.open("w", encoding="utf-8") as lines:
        for i, question in enumerate(bench.judged.questions):
            failure = failures.get(question.id)
            row: dict[str, Any] = {
                "id": question.id,
                "text": question.text,
                "qrels": dict(question.qrels),
                "values": {name: v[i] for name, v in values.items()},
                "stages": {name: kept(ranking[i], question.relevant) for name, ranking in rankings.items()},
                "failure": failure
                and {"category": failure.category, "reason": failure.reason, "rank": failure.rank, "params": dict(failure.params)},
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def kept(ranking: list[Place], relevant: set[str]) -> list[list[Any]]:
    """The first places and every relevant one below: [rank, place, chunk, score, wording, leg, kind, entry]."""
    return [
        [rank, p.key, p.number, round(p.score, 5), p.via, p.leg, p.kind, p.entry]
        for rank, p in enumerate(ranking, start=1)
        if rank <= KEPT or p.key in relevant
    ]


def set_hash(judged: JudgedSet) -> str:
    """Over questions and judgements: a frozen set is the same set only under the same hash."""
    rows = [[q.id, q.text, sorted(q.qrels.items())] for q in judged.questions]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def store(run: Run, config: EvaluateRetrievalConfig, report: Report, index_id: int | None) -> int:
    """The row; a second attempt of the same job writes over nothing and adds none."""
    with write_session() as session:
        mine = t.RetrievalEvaluation.job_id == run.job_id
        row = session.scalar(select(t.RetrievalEvaluation).where(mine)) if run.job_id else None
        if row is None:
            row = t.RetrievalEvaluation(name=config.name, index_name=config.index, index_id=index_id, job_id=run.job_id or None)
            session.add(row)
        row.report, row.report_path = dict(report), run.home.relative(run.dir)
        session.flush()
        return row.id


if __name__ == "__main__":
    main(evaluate)
