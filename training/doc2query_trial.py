"""Does a trained writer help? A small index of passages, with and without its questions, searched with questions it has not seen.

The passages of the held-out questions are in it, the others are drawn by seed; a small index is easier than a large one, so the
figures say whether the writer helps, not how good a search over everything will be. What decides is nDCG@10: where nearly every
question finds its passage among the first ten of a few thousand, recall@10 has nothing left to say (cmedir, 1,500 passages: "none"
was chosen, which on all 19,224 was wrong). Called by training.doc2query.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.jobs.configs_doc2query import Doc2QueryConfig
from core.retrieval.chunk import Chunk
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.metrics import METRICS, mean
from core.retrieval.question_filter import finding_their_own, with_passages, with_words
from core.retrieval.writers import Writer
from training.retrieval_pairs import Judged, Material
from training.run import Run

#: passages written for between two looks at the clock and at "stop"
SLICE = 200
SHOWN = 8
DRAWS = 2000
REPORTED = ("recall@10", "mrr@10", "ndcg@10")
DECIDES = "ndcg@10"


def try_out(run: Run, writer: Writer, material: Material, config: Doc2QueryConfig) -> dict[str, Any]:
    """Recall@10, MRR@10 and nDCG@10 without questions and with them in each form, the gains' intervals, and examples.

    `entries` is the form with the largest gain in nDCG@10, or "none" when none gains.
    """
    ids = choose_passages(material, config.num_tried, config.seed)
    texts = [material.passages[i] for i in ids]
    written, seconds = write_all(run, writer, texts, config.num_questions, config.seed)
    all_of_them = dict(enumerate(written))
    known = set(ids)
    judged = [one for one in material.held_out if known & set(one.positives)]
    with tempfile.TemporaryDirectory(dir=run.dir) as scratch:
        plain = small_index(ids, texts, {}, Path(scratch) / "plain")
        kept = finding_their_own(plain, all_of_them)
        forms: dict[str, dict[int, list[str]]] = {"alone": kept, "with_passage": with_passages(all_of_them, texts)}
        if writer.words is not None:
            forms["with_words"] = with_words(all_of_them, writer.words, texts)
        before = score(plain, judged)
        after = {form: score(small_index(ids, texts, entries, Path(scratch) / form), judged) for form, entries in forms.items()}
    num_written = sum(map(len, written))
    found: dict[str, Any] = {
        "tried_passages": len(ids),
        "tried_queries": len(judged),
        "written": num_written,
        "kept_share": round(sum(map(len, kept.values())) / num_written, 4) if num_written else None,
        "passages_per_s": round(len(ids) / seconds, 1) if seconds else None,
    }
    for name in REPORTED:
        found[name] = mean(before[name])[0]
        for form, values in after.items():
            found[f"{name} {form}"] = mean(values[name])[0]
            found[f"{name} {form} gain"] = interval(values[name], before[name])
    gains = {form: found[f"{DECIDES} {form} gain"][0] for form in after} if judged else {}
    best = max(gains, key=lambda form: gains[form], default="none")
    found["entries"] = best if gains.get(best, 0.0) > 0 else "none"
    return {**found, "examples": [{"passage": texts[i][:200], "questions": written[i]} for i in range(min(SHOWN, len(ids)))]}


def choose_passages(material: Material, num: int, seed: int) -> list[str]:
    """At most `num` passage ids: those that held-out questions are about first, then others."""
    wanted = list(dict.fromkeys(i for one in material.held_out for i in one.positives))
    others = sorted(set(material.passages) - set(wanted))
    random.Random(seed).shuffle(others)
    return (wanted + others)[:num]


def write_all(run: Run, writer: Writer, texts: Sequence[str], num: int, seed: int) -> tuple[list[list[str]], float]:
    """Questions for every text, and the seconds it took."""
    started, written = time.monotonic(), list[list[str]]()
    while len(written) < len(texts):
        written += writer.write(texts[len(written) : len(written) + SLICE], num, seed)
        run.progress("write", len(written), len(texts))
        run.leave_if_stopped()  # the last checkpoint holds the whole training
    return written, time.monotonic() - started


def small_index(ids: Sequence[str], texts: Sequence[str], questions: Mapping[int, Sequence[str]], folder: Path) -> Index:
    """An index with one chunk per passage, its number the passage's position."""
    chunks = [Chunk(i, "", "", "", "", text, 0, len(text)) for i, text in zip(ids, texts, strict=True)]
    build_index(chunks, folder, {}, questions=questions)
    return load_index(folder)


def score(index: Index, judged: Sequence[Judged]) -> dict[str, list[float | None]]:
    """Values per question of each reported metric."""
    values: dict[str, list[float | None]] = {name: [] for name in REPORTED}
    for one in judged:
        ranking = [index.chunk(found.parent).file for found in index.lexical(one.query, 10)]
        for name in REPORTED:
            values[name].append(METRICS[name](ranking, one.grades))
    return values


def interval(after: Sequence[float | None], before: Sequence[float | None]) -> list[float]:
    """[mean, low, high] of the gain: 95 % percentile interval of a paired bootstrap over questions (2,000 draws, seed 0)."""
    differences = np.array([a - b for a, b in zip(after, before, strict=True) if a is not None and b is not None])
    if not len(differences):
        return []
    draws = np.random.default_rng(0).choice(differences, (DRAWS, len(differences))).mean(1)
    return [round(float(v), 4) for v in (differences.mean(), *np.percentile(draws, [2.5, 97.5]))]
