"""The ladder on a small set in BEIR form: what helps is taken, what hurts is left out; learning from use; trials in service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from core import retrieval_reports, retrieval_trials, search_plans
from core.ask import ask
from core.errors import Conflicting, UserError
from core.home import Home
from core.retrieval import index_versions
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.index import build_index
from core.retrieval.judged import read_beir, read_train_questions
from core.retrieval.ladder import Available, choose_plan, crossfit, helps
from core.retrieval.plans import Plan
from core.retrieval.trial import MIN_EXPOSURES, arm_of, gate
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from training.evaluate_retrieval import evaluate
from training.learn_retrieval import learn
from training.run import Run

LAY = ["fit", "heart attack", "sugar disease", "high pressure", "wind", "stone", "the runs", "thin blood", "pink eye", "shingle"]
SUFFIX = [f"{a}{b}" for a in ("cor", "ven", "lar", "mon", "tis") for b in ("dia", "pho", "rel", "sta", "xin")]


def world(num: int = 40) -> tuple[list[Document], list[tuple[str, str, str]]]:
    """Documents, and (document, lay question that shares no word with it, question in its own words)."""
    documents, questions = [], []
    for n in range(num):
        term = f"{SUFFIX[n % 25]}{SUFFIX[(n * 7 + 3) % 25]}{n % 3}"
        documents.append(Document(f"d{n}", f"About {term}", f"{term} is treated at the clinic. Rest and review of {term} after two weeks."))
        questions.append((f"d{n}", f"grandmother {LAY[n % 10]} number{n} worries", f"{term} treatment"))
    return documents, questions


def write_beir(folder: Path, *, with_train: bool) -> Path:
    documents, questions = world()
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": d.file, "title": d.title, "text": d.text}) + "\n" for d in documents))
    rows = [(f"{n}{kind}", text, d) for n, (d, lay, own) in enumerate(questions) for kind, text in (("l", f"{lay} please"), ("o", own))]
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": text}) + "\n" for i, text, _ in rows))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{i}\t{d}\t1\n" for i, _, d in rows))
    if with_train:
        (folder / "train_pairs.jsonl").write_text("".join(json.dumps({"query": lay, "pos": d}) + "\n" for d, lay, _ in questions))
    return folder


def a_run(home: Home, place: str, **config: object) -> Run:
    folder = home.root / "runs" / place
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return Run(folder, 0, home)


def test_the_job_measures_chooses_and_explains(home: Home, tmp_path: Path) -> None:
    data = write_beir(tmp_path / "set", with_train=True)
    (data / "thresholds.json").write_text('{"recall@10": 0.4}')
    evaluate(a_run(home, "one", name="small", data=str(data), questions="train_pairs"))
    (row,) = retrieval_reports.listing()
    report = retrieval_reports.open_report(row.id)
    stages = {s["name"]: s for s in report["stages"]}
    assert list(stages) == ["bm25", "doc2query"]
    assert report["skipped"] == {"dense": "no_dense", "rrf": "no_dense", "query2doc": "no_pseudo", "rerank": "no_reranker"}
    assert (stages["bm25"]["metrics"]["recall@10"]["mean"] or 0) < 0.8, "lay words find nothing by themselves"
    step = stages["doc2query"]["step"]
    assert step is not None
    assert helps(step["recall@10"])
    assert report["best_leg"] == "bm25_syn"
    assert [c["is_taken"] for c in report["choices"]] == [True]
    assert report["plan"].get("with_syn", True) is True
    assert report["thresholds"]["recall@10"]["source"] == "set"
    assert report["thresholds"]["recall@10"]["bm25"] == stages["bm25"]["metrics"]["recall@10"]["mean"]
    assert report["thresholds"]["mrr@10"]["source"] == "default"
    wins = retrieval_reports.changes(retrieval_reports.questions(row.id), "bm25", "doc2query")
    assert len(wins) > 20
    best = wins[-1]["stages"]["doc2query"][0]
    assert best[6] == "syn", "the door is named"
    assert "grandmother" in best[7]
    assert set(retrieval_reports.passage_texts(row.id, [best[2]])) == {best[2]}


def test_failures_are_corrected_by_hand_and_count_in_the_decision(home: Home, tmp_path: Path) -> None:
    evaluate(a_run(home, "one", name="small", data=str(write_beir(tmp_path / "set", with_train=False))))
    (row,) = retrieval_reports.listing()
    failures = retrieval_reports.failed(row.id)
    assert {f.automatic for f in failures} == {"terminology_mismatch"}
    before = retrieval_reports.decision_of(row.id)
    assert before.actions == ("fine_tune",)
    with write_session() as session:
        doctor = factories.user(session, "clinician").id
    for one in failures:
        retrieval_reports.correct(doctor, row.id, one.query_id, "document_coverage", "no such guideline")
    assert retrieval_reports.decision_of(row.id).actions == ("add_documents",)
    changed = retrieval_reports.failed(row.id)[0]
    assert (changed.automatic, changed.category) == ("terminology_mismatch", "document_coverage")
    assert changed.correction is not None
    assert changed.correction.note == "no such guideline"
    with pytest.raises(UserError):
        retrieval_reports.correct(doctor, row.id, failures[0].query_id, "bad_luck")


def test_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    data = write_beir(tmp_path / "set", with_train=True)
    assert len(read_beir(data).questions) == 80
    assert "d0" in read_train_questions(data)
    (data / "queries.jsonl").write_text("not json\n")
    with pytest.raises(UserError) as error:
        read_beir(data)
    assert (error.value.code, error.value.params["line"]) == ("retrieval.bad_line", 1)
    (data / "qrels.tsv").unlink()
    (data / "queries.jsonl").write_text("")
    with pytest.raises(UserError, match="no_beir"):
        read_beir(data)


def values_by(gains: dict[str, float], n: int = 300) -> object:
    """A measure in which each stage adds its gain, with noise of its own."""

    def measure(plan: Plan) -> list[float]:
        rng = np.random.default_rng(1)
        base = rng.random(n) * 0.4 + 0.2
        total = gains["dense"] if not plan.lexical else 0.0
        if plan.lexical and plan.dense:
            total = gains["rrf"]
        total += gains["doc2query"] * plan.with_syn + gains["rerank"] * bool(plan.reranker)
        noise = np.random.default_rng(abs(hash(plan)) % 2**32).normal(0, 0.05, n)
        return [float(v) for v in base + total + noise]

    return measure


def test_a_stage_is_taken_only_when_its_interval_lies_above_zero() -> None:
    available = Available(has_dense=True, has_syn=True, reranker="r")
    good = {"dense": 0.05, "rrf": 0.10, "doc2query": 0.04, "rerank": 0.0}
    plan, made = choose_plan(Plan(), available, values_by(good), np.random.default_rng(0))  # type: ignore[arg-type]
    assert plan.with_syn
    assert plan.lexical > 0 < plan.dense
    assert plan.reranker == "", "a reranker that shows nothing stays off"
    assert {c["stage"] for c in made} == {"doc2query", "rrf", "rerank"}
    weak = {"dense": -0.2, "rrf": -0.05, "doc2query": 0.0, "rerank": 0.06}
    plan, _ = choose_plan(Plan(), available, values_by(weak), np.random.default_rng(0))  # type: ignore[arg-type]
    assert plan.dense == 0, "a weak leg lowers the fusion and is switched off"
    assert plan.reranker == "r"
    step = crossfit(Plan(), available, values_by(good), np.random.default_rng(0))  # type: ignore[arg-type]
    assert helps(step)


def make_index(home: Home, documents: list[Document]) -> int:
    scratch = home.indexes / "guidelines" / ".scratch"
    build_index((c for d in documents for c in chunk_document(d)), scratch)
    note = home.root / "version.txt"
    number = index_versions.claim("guidelines", None, note)
    index_versions.install("guidelines", number, scratch)
    index_versions.activate("guidelines", number, by=None)
    return number


def test_a_week_of_use_teaches_and_the_frozen_set_decides(home: Home, tmp_path: Path) -> None:
    documents, questions = world()
    first = make_index(home, documents)
    with write_session() as session:
        people = [factories.user(session, "clinician").id for _ in range(2)]
    for person in people:
        for _file, lay, own in questions:
            ask(lay, user_id=person, with_rewrite=False, with_answer=False)
            found = ask(own, user_id=person, with_rewrite=False, with_answer=False)
            with write_session() as session:
                session.add(t.AskFeedback(event_id=found.event_id or 0, kind="opened", rank=1, after_ms=900, user_id=person))
    data = write_beir(tmp_path / "frozen", with_train=False)
    run = a_run(home, "learn", index="guidelines", data=str(data))
    learn(run)
    result = json.loads((run.dir / "result.json").read_text())
    assert result["questions"]["decision"] == "in_force"
    assert set(result["why_missed"]) == {"reformulated"}
    assert result["num_missed"] >= 30
    assert result["questions"]["ci_low"] > 0
    active = index_versions.active_version("guidelines")
    assert active is not None
    assert active.version == first + 1
    hit = ask(f"{questions[3][1]} today", user_id=people[0], with_rewrite=False, with_answer=False).contexts[0]
    assert hit.file == "d3"
    again = a_run(home, "again", index="guidelines", data=str(data))
    learn(again)
    assert json.loads((again.dir / "result.json").read_text())["questions"]["decision"] == "nothing_new"
    # one press goes back
    with write_session() as session:
        engineer = factories.user(session, "engineer").id
    trial = retrieval_trials.listing()[0]
    retrieval_trials.roll_back(engineer, trial.id, reason="a doctor complained")
    back = index_versions.active_version("guidelines")
    assert back is not None
    assert back.version == first
    with read_session() as session:
        actions = list(session.scalars(select(t.AuditEntry.action).order_by(t.AuditEntry.id)))
    assert {"propose_retrieval", "promote_retrieval", "index_activate", "roll_back_retrieval"} <= set(actions)


def test_a_trial_shares_the_traffic_and_stops_when_it_is_worse(home: Home) -> None:
    documents, questions = world()
    make_index(home, documents)
    rng = np.random.default_rng(0)
    base = rng.random(100)
    no = retrieval_trials.propose("guidelines", "plan", gate(base.tolist(), base.tolist(), rng), candidate_plan=Plan(with_syn=False))
    yes = retrieval_trials.propose(
        "guidelines", "plan", gate((base * 0.5).tolist(), base.tolist(), rng), candidate_plan=Plan(with_syn=False, spelling=False)
    )
    with write_session() as session:
        engineer = factories.user(session, "engineer").id
        people = [factories.user(session, "clinician").id for _ in range(30)]
    with pytest.raises(Conflicting):
        retrieval_trials.start(engineer, no, reason="I would like to")
    with pytest.raises(UserError, match="reason_missing"):
        retrieval_trials.start(engineer, yes, reason=" ")
    retrieval_trials.start(engineer, yes, reason="offline it gained")
    with pytest.raises(UserError, match="too_early"):
        retrieval_trials.advance(engineer, yes, reason="go on please")
    with write_session() as session:
        session.get_one(t.RetrievalTrial, yes).share = 0.5
    number = 0
    while number < 2 * MIN_EXPOSURES + 40:
        person = people[number % len(people)]
        found = ask(questions[number % 40][2], user_id=person, with_rewrite=False, with_answer=False)
        if arm_of(f"trial:{yes}", f"user:{person}", 0.5) == "control":  # people who get the candidate never find anything
            with write_session() as session:
                session.add(t.AskFeedback(event_id=found.event_id or 0, kind="helped", rank=1, user_id=person))
        number += 1
    with read_session() as session:
        arms = [e.arm for e in session.scalars(select(t.RetrievalExposure))]
    assert len(arms) == number
    assert min(arms.count("control"), arms.count("candidate")) >= MIN_EXPOSURES
    retrieval_trials.watch_trials()
    assert next(row.status for row in retrieval_trials.listing() if row.id == yes) == "stopped"
    assert retrieval_trials.serving("guidelines", "user:1") is None
    assert search_plans.plan_for("guidelines") == Plan()
