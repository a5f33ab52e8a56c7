"""Evaluate expanders on a file of queries: every output scored with its deductions, means with intervals, valid lines, slices, drift,
and whether the lines find more than the plain query does. With `outputs` nothing is generated: what a file holds is scored.

The reward is the one that GRPO learns from (`training.expansion_common.score`). Retrieval is measured with the product's own search
(`core.retrieval.search`, the default plan) over the corpus, with and without the lines, on the queries whose relevant passages are known.

    python -m training.expansion_evaluate --run-dir DIR      (job kind expansion_evaluate)

Writes expansion_report.json in the run folder and a row in expansion_evaluations.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.expansion import schema
from core.expansion.compare import mean_of, slices_of
from core.expansion.grounding import Grounding, normal
from core.expansion.points import MAXIMA
from core.expansion.runs import (
    REPORT,
    Evaluated,
    Output,
    Report,
    Retrieval,
    Summary,
    queries_hash,
    queries_of,
    read_outputs,
    store,
)
from core.expansion.schema import Row
from core.expansion.terms import entities
from core.jobs.configs_expansion_training import ExpansionEvaluateConfig
from core.models import get_version
from core.policy import Policy, version_files
from core.retrieval.chunk import chunk_document
from core.retrieval.dense import Encoder
from core.retrieval.encoders import open_encoder
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.judged import read_corpus
from core.retrieval.metrics import recall_at
from core.retrieval.search import Retriever
from core.retrieval.tokens import count
from db import tables as t
from db.engine import read_session
from training.expansion_common import chat, corpus_folder, open_grounding, score, valid_share
from training.run import Run, main

#: a query of at most so many words (characters, in Chinese) is short
SHORT = {"en": 4, "zh": 8}
#: documents looked at before those of a chunk are folded into one
DEPTH = 50
#: name under which existing outputs stand in the report
GIVEN = "outputs"


def evaluate(run: Run) -> None:
    """Generate, score, measure, write."""
    config = run.config(ExpansionEvaluateConfig)
    with read_session() as session:
        found = [(get_version(session, name), name) for name in config.models]
    given = read_outputs(run.home.root / Path(config.outputs).expanduser()) if config.outputs else []
    rows = queries_of(config.queries, config.num_queries, run.home)
    grounding = open_grounding(run.home, config.corpus)
    with tempfile.TemporaryDirectory(dir=run.dir) as scratch:
        search = Search(run, config, grounding, Path(scratch)) if grounding else None
        models: dict[str, Evaluated] = {}
        for version, name in found:
            print(f"{name}: {len(rows)} queries", flush=True)
            models[name] = expand(run, config, version, rows, grounding, search)
        if given:
            by_query = {row.query: row for row in rows}
            pairs = [(by_query[query], text) for query, text in given if query in by_query]
            if not pairs:
                raise UserError("expansion_training.nothing_in_common", first=config.outputs, second=config.queries)
            answers = [(row, text, True) for row, text in pairs]
            models[GIVEN] = summed(outputs_of(answers, config, grounding, search), None, "", 0.0)
    report: Report = {
        "name": config.name,
        "source": config.queries,
        "corpus": config.corpus,
        "queries_hash": queries_hash([row.query for row in rows]),
        "settings": config.model_dump(),
        "models": models,
    }
    number = store(report, run.dir / REPORT, run.job_id, run.home)
    for name, one in models.items():
        print(line_of(name, one["summary"]), flush=True)
    results = {name: one["summary"]["reward"]["mean"] for name, one in models.items()}
    run.result(
        evaluation=number,
        report=run.home.relative(run.dir / REPORT),
        num_queries=len(rows),
        **{f"reward {k}": v for k, v in results.items()},
    )


def line_of(name: str, s: Summary) -> str:
    """One line for the log."""
    r, found = s["reward"], s["retrieval"]
    text = f"{name}: reward {r['mean']:.3f} [{r['ci_low']:.3f}, {r['ci_high']:.3f}] n={r['n']} valid lines {s['valid_lines'] or 0:.2%}"
    if found and (gain := found["gain"])["mean"] is not None:
        interval = f"{gain['mean']:+.4f} [{gain['ci_low']:+.4f}, {gain['ci_high']:+.4f}]"
        text += f" recall@10 {found['plain']:.4f} -> {found['expanded']:.4f} ({interval})"
    return text + (f" drift {s['drift']:.4f}" if s["drift"] is not None else "")


def expand(
    run: Run,
    config: ExpansionEvaluateConfig,
    version: t.ModelVersion,
    rows: Sequence[Row],
    grounding: Grounding | None,
    search: Search | None,
) -> Evaluated:
    """What one model version writes for every query, and how far it is from the version it was trained from."""
    with read_session() as session:
        files = version_files(session, run.home, version)
        parent = session.get(t.ModelVersion, version.parent_version_id) if version.parent_version_id else None
        before = version_files(session, run.home, parent) if parent else None
    policy = Policy.load(run.home, files.base)
    if files.adapter:
        policy.add_adapter(version.name, files.adapter)
    adapter, started = version.name if files.adapter else None, time.monotonic()
    made = policy.generate(
        [chat(row.query) for row in rows],
        adapter=adapter,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
        batch_size=config.batch_size,
        on_progress=lambda done: run.progress(f"expand {version.name}"[:60], done, len(rows)),
    )
    seconds = time.monotonic() - started
    drift = None
    if parent and before and before.base == files.base and adapter:
        if before.adapter:
            policy.add_adapter(parent.name, before.adapter)
        drift = drift_of(policy, adapter, parent.name if before.adapter else None, rows, [one.text for one in made])
    answers = [(row, one.text, one.finish_reason == "stop") for row, one in zip(rows, made, strict=True)]
    return summed(outputs_of(answers, config, grounding, search), drift, parent.name if parent else "", seconds)


def drift_of(policy: Policy, adapter: str, reference: str | None, rows: Sequence[Row], texts: Sequence[str]) -> float | None:
    """Mean KL(version || reference) in nats per token, over the whole vocabulary, along the version's own outputs."""
    import torch

    total = number = 0.0
    for row, text in zip(rows, texts, strict=True):
        prompt = policy.encode(chat(row.query))
        ids = torch.tensor([[*prompt, *policy.tokenizer(text, add_special_tokens=False)["input_ids"]]], device=policy.device)
        sides = []
        for name in (adapter, reference):
            with torch.no_grad(), policy.using(name) as model:
                sides.append(model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float().log_softmax(-1))
        total += float((sides[0].exp() * (sides[0] - sides[1])).sum())
        number += len(sides[0])
    return total / number if number else None


class Search:
    """The corpus in the product's own index; recall@10 of a query with and without the lines of its expansion."""

    def __init__(self, run: Run, config: ExpansionEvaluateConfig, grounding: Grounding, scratch: Path) -> None:
        folder = corpus_folder(run.home, config.corpus)
        encoder: Encoder | None = open_encoder(config.encoder) if config.encoder else None
        run.progress("index", 0, 1)
        build_index((c for d in read_corpus(folder) for c in chunk_document(d)), scratch / "index", {}, encoder=encoder)
        self._index: Index = load_index(scratch / "index")
        self._retriever = Retriever(self._index, encoder)
        self._relevant = grounding.relevant
        self._plain: dict[str, float] = {}

    def recall(self, query: str, text: str | None) -> float | None:
        """None when no relevant document of the query is known. `text` None: the query alone."""
        relevant = dict.fromkeys(self._relevant(query), 1.0)
        if not relevant:
            return None
        if text is None and normal(query) in self._plain:
            return self._plain[normal(query)]
        lines = [f"{line.kind}: {line.text}" for line in schema.parse_output(text).lines] if text else []
        hits = self._retriever.search(query, DEPTH, expansions=lines).hits
        value = recall_at(list(dict.fromkeys(hit.chunk.file for hit in hits)), relevant, 10)
        if text is None and value is not None:
            self._plain[normal(query)] = value
        return value


def outputs_of(
    answers: Sequence[tuple[Row, str, bool]], config: ExpansionEvaluateConfig, grounding: Grounding | None, search: Search | None
) -> list[Output]:
    """Every answer (query, text, finished) with its score."""
    found: list[Output] = []
    for row, text, is_finished in answers:
        value, s = score(row.query, text, is_finished=is_finished, grounding=grounding)
        parsed = schema.parse_output(text)
        one: Output = {
            "query": row.query,
            "language": row.language or schema.language_of(row.query),
            "slices": slices(row),
            "output": text,
            "finished": is_finished,
            "valid": parsed.is_valid and is_finished,
            "num_lines": len(parsed.lines),
            "num_bad": len(parsed.bad) + len(parsed.empty),
            "reward": value,
            "rubric": s.rubric,
            "points": s.points,
            "maximum": s.maximum,
            "rating": s.rating if is_finished else "failed",
            "grounded": s.grounded,
            "dimensions": dict(s.dimensions),
            "recall_plain": search.recall(row.query, None) if search else None,
            "recall_expanded": search.recall(row.query, text) if search else None,
        }
        if config.verbose:
            one["deductions"] = [
                {"line": d.line, "dimension": d.dimension, "points": d.points, "reason": d.reason_key, "facts": d.facts}
                for d in s.deductions
            ]
        found.append(one)
    return found


def slices(row: Row) -> dict[str, str]:
    """The groups of a query: language, length, whether it names something, and the category or source that its row tells."""
    language = row.language or schema.language_of(row.query)
    found = {"language": language, "length": "short" if count(row.query) <= SHORT[language] else "long"}
    found["names"] = "yes" if entities(row.query) else "no"
    if kind := row.extra.get("category") or row.source:
        found["category"] = str(kind)
    return found


def summed(outputs: list[Output], drift: float | None, drift_from: str, seconds: float) -> Evaluated:
    """The figures over all outputs."""
    ratings = {name: sum(o["rating"] == name for o in outputs) for name in ("excellent", "good", "acceptable", "poor", "failed")}
    by_language = {}
    for language in sorted({o["language"] for o in outputs}):
        if part := retrieval([o for o in outputs if o["language"] == language]):
            by_language[language] = part
    summary: Summary = {
        "reward": mean_of([o["reward"] for o in outputs]),
        "rubric": mean_of([o["rubric"] for o in outputs]),
        "grounded": mean_of([o["grounded"] for o in outputs]),
        "valid_outputs": sum(o["valid"] for o in outputs),
        "valid_lines": valid_share([o["output"] for o in outputs]),
        "finished": sum(o["finished"] for o in outputs),
        "ratings": ratings,
        "dimensions": {name: sum(o["dimensions"][name] for o in outputs) / len(outputs) for name in MAXIMA},
        "slices": slices_of(outputs),
        "by_language": by_language,
        "retrieval": retrieval(outputs),
        "drift": drift,
        "drift_from": drift_from if drift is not None else "",
        "seconds": round(seconds, 2),
    }
    return {"summary": summary, "outputs": outputs}


def retrieval(outputs: Sequence[Output]) -> Retrieval | None:
    """None when no query has a known relevant passage."""
    known: list[tuple[float, float]] = []
    for one in outputs:
        plain, expanded = one["recall_plain"], one["recall_expanded"]
        if plain is not None and expanded is not None:
            known.append((plain, expanded))
    if not known:
        return None
    plain_mean, expanded_mean = (sum(pair[i] for pair in known) / len(known) for i in (0, 1))
    return {"n": len(known), "plain": plain_mean, "expanded": expanded_mean, "gain": mean_of([b - a for a, b in known])}


if __name__ == "__main__":
    main(evaluate)
