"""Three weeks of simulated use with a planted truth: does learning from clicks raise recall, and is the frozen set ever lower?

    python benchmarks/retrieval_weeks.py [--data ../shared/data/zhmedqa] [--weeks 3] [--asks 1500] [--intents 500] [--seed 0]

Truth: the judgements of a real set. People ask questions of train_pairs in a short wording (everybody types it a little differently)
and, when nothing satisfied them, often again in other words (of the longer description that the patient wrote). A passage is looked at
with probability 1 / rank and clicked when it is right (0.8) or by mistake (0.06); one person in twenty says of a clicked passage whether
it helped, and one in ten of those is wrong. Every week the log teaches (core.retrieval.learning), a new index version is made by an
incremental update, and the gate decides on the frozen set: the official test questions (other needs, other documents) and the short
questions typed in yet another way.
Results: docs/benchmarks_retrieval.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.retrieval.bench import Bench
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.clicks import Impression
from core.retrieval.index import Index, build_index, load_index, update_index
from core.retrieval.judged import JudgedSet, Question, read_beir, read_corpus
from core.retrieval.learning import lessons_of, new_questions
from core.retrieval.metrics import mean
from core.retrieval.plans import Plan
from core.retrieval.trial import gate
from core.settings import ROOT

PLAN = Plan(dense=0.0, pseudo_doc=0.0, expansion=0.0)
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
    """After one week: recall@10 of the version in force on what people ask and on the frozen set, and what the gate said."""

    number: int
    decision: str
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


def a_week(index: Index, world: World, num: int, rng: np.random.Generator, number: int) -> list[Impression]:
    """Questions with what people did. Popular intents are asked more often (Zipf)."""
    weights = 1 / np.arange(1, len(world.asked) + 1) ** 0.6
    bench = Bench(index, JudgedSet("", ()), None, None)
    retriever = bench.retriever(PLAN)
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


def recall(index: Index, questions: Sequence[Question]) -> float:
    return mean(Bench(index, JudgedSet("", tuple(questions)), None, None).values(PLAN, METRIC))[0] or 0.0


def simulate(world: World, folder: Path, num_weeks: int, num_asks: int, seed: int) -> list[Week]:
    """Week 0 is the start. The log of all weeks so far teaches."""
    rng = np.random.default_rng(seed)
    build_index((c for d in world.documents for c in chunk_document(d)), folder / "v0")
    index = load_index(folder / "v0")
    traffic = [
        Question(f"{n}-{k}", text, dict.fromkeys(i.relevant, 1.0)) for n, i in enumerate(world.asked) for k, text in enumerate(i.typed)
    ]
    truth = {text: i.relevant for i in world.asked for text in (*i.typed, i.again)}
    log: list[Impression] = []

    def state(number: int, decision: str, new: int, right: float | None, ci: tuple[float | None, float | None]) -> Week:
        figures = [recall(index, questions) for questions in (traffic, world.frozen.questions, world.unseen, world.retyped)]
        traffic_now, frozen, unseen, retyped = figures
        return Week(number, decision, len(log), new, right, traffic_now, frozen, unseen, retyped, ci)

    weeks = [state(0, "start", 0, None, (None, None))]
    for number in range(1, num_weeks + 1):
        log += a_week(index, world, num_asks, rng, number)
        lessons = lessons_of(index, log, "document", [q.text for q in world.frozen.questions])
        more = new_questions(index, lessons)
        rows = [(text, index.chunk(chunk).file) for chunk, texts in more.items() for text in texts]
        right = float(np.mean([document in truth.get(text, frozenset()) for text, document in rows])) if rows else None
        update_index(index, folder / f"v{number}", more_questions=more)
        candidate = load_index(folder / f"v{number}")
        before, after = (Bench(i, world.frozen, None, None).values(PLAN, METRIC) for i in (index, candidate))
        verdict = gate(before, after, np.random.default_rng(seed + number), metric=METRIC, min_gain=0.0)
        if verdict.is_accepted:
            index = candidate
        decision = "in force" if verdict.is_accepted else f"kept aside: {verdict.reason}"
        weeks.append(state(number, decision, len(rows), right, (verdict.ci_low, verdict.ci_high)))
    return weeks


def table(weeks: Sequence[Week]) -> str:
    heads = ["week", "asked so far", "new doors", "at a right passage", "decision", "gain on the frozen set, 95 %"]
    heads += ["recall@10 as asked", "frozen", "unseen", "typed otherwise"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for w in weeks:
        right = "" if w.share_right is None else f"{w.share_right:.2f}"
        ci = "" if w.ci[0] is None or w.ci[1] is None else f"[{w.ci[0]:+.3f}, {w.ci[1]:+.3f}]"
        figures = " | ".join(f"{v:.3f}" for v in (w.traffic, w.frozen, w.unseen, w.retyped))
        lines.append(f"| {w.number} | {w.num_asks} | {w.num_new} | {right} | {w.decision} | {ci} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "zhmedqa")
    parser.add_argument("--weeks", type=int, default=3)
    parser.add_argument("--asks", type=int, default=1500)
    parser.add_argument("--intents", type=int, default=500)
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--unseen", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    world = read_world(arguments.data, arguments.intents, arguments.documents, arguments.unseen, arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        print(table(simulate(world, Path(scratch), arguments.weeks, arguments.asks, arguments.seed)))
