"""How well is "unknown" told from an answer, by which signs? Each set, each way of searching, at 5, 10 and 20 % wanted false answers.

    python benchmarks/unknown.py SET --index FOLDER --home HOME [--data ../shared/data] [--reranker NAME] [--hide gold|focus]

FOLDER is an index of the set (RUN/index of an evaluation with --questions and --encoder), HOME the data folder whose models it uses. Every
test question is searched twice, as it is and with its right passages hidden (`focus`: every passage on the same disease, where the set
names it). Two halves by a hash of the question: each is measured with what the other fitted, and the counts are added up.
Results: docs/benchmarks_ask.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.home import open_home
from core.retrieval import calibration
from core.retrieval.calibration import Signs, fit, pairs_of, rates
from core.retrieval.encoders import open_encoder
from core.retrieval.index import Index, load_index
from core.retrieval.judged import read_beir
from core.retrieval.plans import Plan
from core.retrieval.rerankers import open_reranker
from core.retrieval.search import Retriever
from core.settings import ROOT, load_settings
from core.statistics import wilson

Halves = tuple[tuple[list[Signs], list[Signs]], ...]
WANTED = (0.05, 0.10, 0.20)
LEXICAL = ("coverage", "rarest", "first", "best", "ratio", "gap", "drop", "length", "named", "foreign")
#: what is added step by step: the signs that count
STEPS: dict[str, tuple[str, ...]] = {
    "lexical signs": LEXICAL,
    "+ likeness to a pseudo-question": (*LEXICAL, "alike"),
    "+ cosines": (*LEXICAL, "alike", "dense", "dense_gap"),
    "+ the reranker's scores (all)": calibration.SIGNS,
}


def judged_of(index: Index, folder: Path, limit: int, hide: str) -> list[tuple[str, set[int]]]:
    """Questions with the chunks to hide."""
    numbers: dict[str, set[int]] = {}
    for number in index.numbers:
        numbers.setdefault(index.chunk(number).file, set()).add(number)
    same: dict[str, set[str]] = {}
    focus_of: dict[str, str] = {}
    if hide == "focus":
        with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            focus_of = {row["_id"]: row["focus"].lower() for row in map(json.loads, lines)}
        for document, focus in focus_of.items():
            same.setdefault(focus, set()).add(document)
    found = []
    for question in read_beir(folder, limit=limit).questions:
        files = set[str]().union(*(same[focus_of[file]] if hide == "focus" else {file} for file in question.relevant))
        found.append((question.text, set[int]().union(*(numbers.get(file, set()) for file in files))))
    return found


def both_ways(halves: Halves, signs: Sequence[str], wanted: float) -> dict[str, Any]:
    """Each half with what the other fitted; counts added up."""
    every = calibration.SIGNS
    calibration.SIGNS = tuple(signs)
    try:
        measured = [rates(fit(*halves[1 - side], max_false_answer=wanted), *halves[side]) for side in (0, 1)]
    finally:
        calibration.SIGNS = every
    num = sum(m.num for m in measured)
    answered, unknown = (round(sum(getattr(m, name) * m.num for m in measured)) for name in ("false_answer", "false_unknown"))
    shown = sum(m.num_shown for m in measured)
    missed = sum((m.false_unknown_shown or 0.0) * m.num_shown for m in measured)
    return {
        "wanted": wanted, "num": num, "auc": sum(m.auc * m.num for m in measured) / num,
        "false_answer": answered / num, "false_answer_interval": wilson(answered, num),
        "false_unknown": unknown / num, "false_unknown_interval": wilson(unknown, num),
        "num_shown": shown, "false_unknown_shown": missed / shown if shown else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set")
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--reranker", default="")
    parser.add_argument("--hide", choices=["gold", "focus"], default="gold")
    parser.add_argument("--plan", default="{}", help="fields of the plan, as JSON")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    os.environ["CONSILIUM_HOME"] = str(options.home.resolve())
    open_home(load_settings(), with_migration=True)
    index = load_index(options.index)
    encoder = open_encoder(index.dense_model.name, place="here") if index.dense_model else None
    reranker = open_reranker(options.reranker, place="here") if options.reranker else None
    plan = Plan(reranker=options.reranker, rerank_budget_ms=60_000).changed(json.loads(options.plan))
    retriever = Retriever(index, encoder, reranker, plan)
    halves: tuple[list[tuple[str, set[int]]], ...] = ([], [])
    for text, right in judged_of(index, options.data / options.set, options.limit, options.hide):
        halves[hashlib.sha256(text.encode()).digest()[0] % 2].append((text, right))
    signs = tuple(pairs_of(retriever, half) for half in halves)
    found = [{"signs": name, **both_ways(signs, chosen, wanted)} for name, chosen in STEPS.items() for wanted in WANTED]
    for row in found:
        low, high = row["false_unknown_interval"]
        print(
            f"{options.set} {options.hide} {row['signs']}: wanted {row['wanted']:.0%} AUC {row['auc']:.3f} false answers"
            f" {row['false_answer']:.3f} unknown {row['false_unknown']:.3f} [{low:.3f}, {high:.3f}]"
            f" of {row['num']}; of {row['num_shown']} shown {row['false_unknown_shown']:.3f}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
