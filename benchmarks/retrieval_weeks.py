"""Three weeks of simulated use with a planted truth: does the weekly job raise recall, and is the frozen set ever lower?

    python benchmarks/retrieval_weeks.py [--data ../shared/data/zhmedqa] [--weeks 3] [--asks 1500] [--intents 500] [--seeds 0 1 2 3 4]

Truth: the judgements of a real set. People ask questions of train_pairs in a short wording (everybody types it a little differently)
and, when nothing satisfied them, often again in other words (of the longer description that the patient wrote). A passage is looked at
with probability 1 / rank and clicked when it is right (0.8) or by mistake (0.06); one person in twenty says of a clicked passage whether
it helped, and one in ten of those is wrong. All of it is written into the log as Ask writes it. Every week the job itself runs
(training.learn_retrieval, its reranker branch included) and switches to what its gate accepts on the frozen set: the official test
questions (other needs, other documents) and the short questions typed in yet another way. Every seed has other intents, documents,
people and an index of its own. Results: docs/benchmarks_retrieval.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from core import search_plans
from core.home import Home, open_home
from core.jobs.api import enqueue
from core.retrieval import index_versions
from core.retrieval.bench import Bench
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.clicks import Impression
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.judged import JudgedSet, Question, read_beir, read_corpus
from core.retrieval.metrics import mean
from core.retrieval.plans import Plan
from core.retrieval.rerankers import Reranker, open_reranker
from core.retrieval.search import Retriever
from core.retrieval_use import SITTING
from core.searching import active_index
from core.settings import ROOT, load_settings
from db import tables as t
from db.base import utc_now
from db.engine import write_session
from training.learn_retrieval import learn
from training.run import Run

#: accounts that ask
NUM_PEOPLE = 50
METRIC = "recall@10"
SHOWN = 10
RIGHT, MISTAKE = 0.8, 0.06
MIN_WORDING = 8
AGAIN, JUDGES, WRONG_JUDGEMENT = 0.6, 0.05, 0.1
#: wordings of a question in the traffic, and the share of its characters that somebody leaves out
NUM_TYPED, LEFT_OUT = 2, 0.25
OPENINGS = ("", "请问", "医生您好", "你好，", "想问一下")


@dataclass(frozen=True, slots=True)
class Intent:
    """What somebody wants to know: how people type it, how they ask again, how nobody types it (this judges), and what answers it."""

    typed: tuple[str, ...]
    again: str
    held_out: str
    relevant: frozenset[str]


@dataclass(frozen=True, slots=True)
class World:
    """`asked`: intents of the traffic. `unseen`, `retyped`: the two halves of the frozen set."""

    documents: list[Document]
    asked: list[Intent]
    unseen: tuple[Question, ...]
    retyped: tuple[Question, ...]

    @property
    def frozen(self) -> JudgedSet:
        return JudgedSet("frozen", self.unseen + self.retyped)


@dataclass(frozen=True, slots=True)
class Week:
    """After one week: recall@10 of what is in force on what people ask and on the frozen set, and what the job decided."""

    number: int
    decision: str
    reranker: str
    num_asks: int
    num_new: int
    share_right: float | None
    traffic: float
    frozen: float
    unseen: float
    retyped: float
    ci: tuple[float | None, float | None]


def read_world(folder: Path, num_intents: int, num_documents: int, num_unseen: int, seed: int) -> World:
    """A cut of a real set: every document that is asked for, filled up with others."""
    rng = np.random.default_rng(seed)
    test = read_beir(folder).questions[:num_unseen]
    tests = {q.text for q in test}
    intents: dict[str, Intent] = {}
    with gzip.open(folder / "train_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            long = str(row.get("query_full") or "").removeprefix(row["query"]).strip()
            if row["query"] not in tests and len(row["query"]) >= MIN_WORDING and len(long) >= 2 * MIN_WORDING:
                *typed, held_out = (as_typed(row["query"], rng) for _ in range(NUM_TYPED + 1))
                intents.setdefault(row["query"], Intent(tuple(typed), long, held_out, frozenset([row["pos"]])))
    names = sorted(intents)
    chosen = [intents[names[i]] for i in rng.choice(len(names), num_intents, replace=False)]
    needed = {key for q in test for key in q.relevant} | {key for i in chosen for key in i.relevant}
    everything = list(read_corpus(folder))
    rest = [d for d in everything if d.file not in needed]
    others = [rest[i] for i in rng.choice(len(rest), max(0, min(num_documents - len(needed), len(rest))), replace=False)]
    documents = [d for d in everything if d.file in needed] + others
    retyped = tuple(Question(f"r{n}", i.held_out, dict.fromkeys(i.relevant, 1.0)) for n, i in enumerate(chosen))
    return World(documents, chosen, tuple(test), retyped)


def as_typed(text: str, rng: np.random.Generator) -> str:
    """A question as another person types it: an opening, and a quarter of the characters missing in one piece."""
    size = round(len(text) * LEFT_OUT)
    start = int(rng.integers(0, len(text) - size + 1))
    return OPENINGS[rng.integers(len(OPENINGS))] + text[:start] + text[start + size :]


def a_week(retriever: Retriever, world: World, num: int, rng: np.random.Generator, number: int) -> list[Impression]:
    """Questions with what people did. Popular intents are asked more often (Zipf)."""
    weights = 1 / np.arange(1, len(world.asked) + 1) ** 0.6
    shown: dict[str, tuple[str, ...]] = {}

    def look(intent: Intent, text: str, session: str) -> Impression:
        if text not in shown:
            shown[text] = tuple(dict.fromkeys(hit.chunk.file for hit in retriever.search(text, SHOWN).hits))
        clicked, thumbs = set[int](), dict[str, int]()
        for place, document in enumerate(shown[text]):
            is_right = document in intent.relevant
            if rng.random() < 1 / (place + 1) and rng.random() < (RIGHT if is_right else MISTAKE):
                clicked.add(place)
                if rng.random() < JUDGES:
                    thumbs[document] = 1 if is_right != (rng.random() < WRONG_JUDGEMENT) else -1
        return Impression(text, shown[text], frozenset(clicked), {}, thumbs, (), session)

    found: list[Impression] = []
    for n in rng.choice(len(world.asked), num, p=weights / weights.sum()):
        intent, session = world.asked[n], f"w{number}-{len(found)}"
        first = look(intent, intent.typed[rng.integers(len(intent.typed))], session)
        found.append(first)
        if not first.clicked and rng.random() < AGAIN:
            found.append(look(intent, intent.again, session))
    return found


def write_log(index_id: int, impressions: Sequence[Impression], people: Sequence[int], start: datetime) -> None:
    """The questions as Ask logs them: each sitting belongs to one account, sittings of one account lie far apart."""
    sittings: dict[str, int] = {}
    with write_session() as session:
        for one in impressions:
            is_again = one.session in sittings
            number = sittings.setdefault(one.session, len(sittings))
            when = start + number // len(people) * 2 * SITTING + timedelta(minutes=is_again)
            contexts = [{"rank": rank, "file": file, "section": ""} for rank, file in enumerate(one.shown, start=1)]
            person = people[number % len(people)]
            event = t.AskEvent(query=one.query, contexts=contexts, user_id=person, index_id=index_id, channel="page", created_at=when)
            session.add(event)
            session.flush()
            for place in sorted(one.clicked):
                session.add(t.AskFeedback(event_id=event.id, kind="opened", rank=place + 1, user_id=person))
            for file, thumb in one.thumbs.items():
                kind = "helped" if thumb > 0 else "not_helped"
                session.add(t.AskFeedback(event_id=event.id, kind=kind, rank=one.shown.index(file) + 1, user_id=person))


def write_frozen(frozen: JudgedSet, folder: Path) -> Path:
    """The frozen set in BEIR form, as the job reads it."""
    folder.mkdir(parents=True)
    rows = [json.dumps({"_id": q.id, "text": q.text}, ensure_ascii=False) for q in frozen.questions]
    (folder / "queries.jsonl").write_text("\n".join(rows), encoding="utf-8")
    lines = [f"{q.id}\t{document}\t{grade}" for q in frozen.questions for document, grade in q.qrels.items()]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]), encoding="utf-8")
    return folder


def in_force(name: str, home: Home) -> tuple[Index, Plan, Reranker | None, int]:
    """What answers now: version, plan, reranker; and the version's id."""
    shown = active_index(name)
    plan = search_plans.plan_for(name)
    return load_index(home.resolve(shown.path)), plan, open_reranker(plan.reranker) if plan.reranker else None, shown.id


def job(name: str, config: dict[str, Any], home: Home) -> dict[str, Any]:
    """Run the weekly job here and now; returns its result."""
    with write_session() as session:
        number = enqueue(session, "learn_retrieval", config)
    folder = home.runs / f"{name}-{number}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    learn(Run(folder, number, home))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def simulate(world: World, home: Home, people: Sequence[int], num_weeks: int, num_asks: int, seed: int) -> list[Week]:
    """Week 0 is the start. The log of all weeks so far teaches."""
    rng = np.random.default_rng(seed)
    name = f"weeks-{seed}"
    build_index((c for d in world.documents for c in chunk_document(d)), home.indexes / name / ".scratch")
    version = index_versions.claim(name, None, home.root / f"{name}.txt")
    index_versions.install(name, version, home.indexes / name / ".scratch")
    index_versions.activate(name, version, by=None)
    frozen = write_frozen(world.frozen, home.root / f"{name}-frozen")
    traffic = tuple(
        Question(f"{n}-{k}", text, dict.fromkeys(i.relevant, 1.0)) for n, i in enumerate(world.asked) for k, text in enumerate(i.typed)
    )
    truth = {text: i.relevant for i in world.asked for text in (*i.typed, i.again)}

    def state(number: int, told: dict[str, Any], num_log: int, new: list[tuple[str, str]]) -> Week:
        index, plan, reranker, _ = in_force(name, home)
        benches = [Bench(index, JudgedSet("", q), None, reranker) for q in (traffic, world.frozen.questions, world.unseen, world.retyped)]
        asked, whole, unseen, retyped = (mean(bench.values(plan, METRIC))[0] or 0.0 for bench in benches)
        right = float(np.mean([document in truth.get(text, frozenset()) for text, document in new])) if new else None
        doors, model = told.get("questions", {}), told.get("reranker", {})
        ci = (doors.get("ci_low"), doors.get("ci_high"))
        said = (doors.get("decision", "start"), model.get("decision", ""))
        return Week(number, *said, num_log, len(new), right, asked, whole, unseen, retyped, ci)

    weeks, num_log = [state(0, {}, 0, [])], 0
    for number in range(1, num_weeks + 1):
        index, plan, reranker, index_id = in_force(name, home)
        log = a_week(Bench(index, JudgedSet("", ()), None, reranker).retriever(plan), world, num_asks, rng, number)
        num_log += len(log)
        write_log(index_id, log, people, utc_now() + timedelta(weeks=number))
        told = job(name, {"index": name, "data": str(frozen), "with_reranker": True, "seed": seed}, home)
        new = new_doors(index, home, name, told.get("questions", {}).get("version"))
        weeks.append(state(number, told, num_log, new))
        print(f"seed {seed} week {number}: {told}", flush=True)
    return weeks


def new_doors(before: Index, home: Home, name: str, version: int | None) -> list[tuple[str, str]]:
    """(question, document) of every door that this week's version has and the one before had not."""
    if version is None:
        return []
    index, known = load_index(index_versions.folder_of(name, version)), set(before.store.living_questions())
    entries = [index.entry(number) for number in index.store.living_questions() if number not in known]
    return [(entry.text.partition("\n")[0], index.chunk(entry.parent).file) for entry in entries]


def table(weeks: Sequence[Week]) -> str:
    heads = ["week", "asked so far", "new doors", "at a right passage", "new doors, decision", "gain on the frozen set, 95 %"]
    heads += ["reranker, decision", "recall@10 as asked", "frozen", "unseen", "typed otherwise"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for w in weeks:
        right = "" if w.share_right is None else f"{w.share_right:.2f}"
        ci = "" if w.ci[0] is None or w.ci[1] is None else f"[{w.ci[0]:+.3f}, {w.ci[1]:+.3f}]"
        figures = " | ".join(f"{v:.3f}" for v in (w.traffic, w.frozen, w.unseen, w.retyped))
        lines.append(f"| {w.number} | {w.num_asks} | {w.num_new} | {right} | {w.decision} | {ci} | {w.reranker} | {figures} |")
    return "\n".join(lines)


def summary(runs: Sequence[Sequence[Week]]) -> str:
    """Last week minus start over the seeds, with the 95 % t interval of the mean, and the worst single week of the frozen set."""
    lines = []
    for part in ("traffic", "frozen", "unseen", "retyped"):
        gains = np.array([getattr(weeks[-1], part) - getattr(weeks[0], part) for weeks in runs])
        half = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")
        steps = [getattr(b, part) - getattr(a, part) for weeks in runs for a, b in pairwise(weeks)]
        spread = f"{gains.mean():+.3f} [{gains.mean() - half:+.3f}, {gains.mean() + half:+.3f}]"
        lines.append(f"{part}: {spread}, {len(gains)} seeds from {gains.min():+.3f} to {gains.max():+.3f}; lowest step {min(steps):+.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "zhmedqa")
    parser.add_argument("--weeks", type=int, default=3)
    parser.add_argument("--asks", type=int, default=1500)
    parser.add_argument("--intents", type=int, default=500)
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--unseen", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=None, help="keep the home here and the weeks in weeks.json; runs of other seeds join")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out: Path = (arguments.out or Path(scratch)).resolve()
        os.environ["CONSILIUM_HOME"] = str(out / "home")
        home = open_home(load_settings(), with_migration=True)
        with write_session() as session:
            stem = f"asker-{arguments.seeds[0]}"
            people = [t.User(username=f"{stem}-{n}", display_name=f"{stem}-{n}", role="clinician") for n in range(NUM_PEOPLE)]
            session.add_all(people)
            session.flush()
            ids = [person.id for person in people]
        kept = out / "weeks.json"
        runs = [[Week(**week) for week in weeks] for weeks in json.loads(kept.read_text())] if kept.is_file() else []
        for seed in arguments.seeds:
            world = read_world(arguments.data, arguments.intents, arguments.documents, arguments.unseen, seed)
            runs.append(simulate(world, home, ids, arguments.weeks, arguments.asks, seed))
            print(table(runs[-1]), flush=True)
            kept.write_text(json.dumps([[asdict(week) for week in weeks] for weeks in runs]))
        print(summary(runs))
