"""Train a term model for query expansion from (query, passage) pairs: minutes on one core, no language model.

Stage one learns a weight for every token of a query, stage two, with those fixed, which other tokens its answers use. Both minimise the
cross-entropy of the right passage against the others of the batch and, in stage two, one hard negative per query that BM25 ranks high;
passages are their BM25 vectors, so what is learned holds for an ordinary index. How lines are written from the weights (how many, which
words, how many new ones) is chosen by recall@10 on the questions kept aside; test questions of an `exclude` file are never seen.

    python -m training.expansion_terms --run-dir DIR      (job kind expansion_terms)

Registers the folder as a retrieval model of kind expander, form terms (core.expansion.term_model).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from core.errors import UserError
from core.expansion.term_model import TermModel, Writing, tokens
from core.jobs.configs_expansion_training import ExpansionTermsConfig
from core.retrieval import retrieval_models
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.fuse import rrf
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.lexical import SINGLES_WEIGHT
from core.retrieval.metrics import recall_at
from core.retrieval.plans import Plan
from core.retrieval.tokens import UNIT, normalise, stem, without_question_words
from training.causal import prepare, replace_folder
from training.doc2query import read_excluded, same
from training.doc2query_trial import interval
from training.retrieval_pairs import Judged, Material, read_material
from training.run import Run, main

K1, B = 1.2, 0.75
#: passages in which a new word must occur, and the share of passages beyond which it says nothing
MIN_PASSAGES, MAX_SHARE, MAX_TERMS = 8, 0.25, 20_000
NUM_HARD = 25
#: ways of writing lines that are tried on the questions kept aside: words of answers in each line
WRITINGS: tuple[tuple[int, ...], ...] = ((0,), (5,), (10,), (0, 5), (0, 10))
#: weights of an expansion line beside the question (`Plan.expansion`) that are tried with each
LINE_WEIGHTS = (0.5, 1.0, 2.0)
Matrix = Any
Arr = np.ndarray[Any, Any]


def train(run: Run) -> None:
    """Read, train both stages, choose how lines are written, register."""
    config = run.config(ExpansionTermsConfig)
    retrieval_models.check_name(config.name, job_id=run.job_id)
    prepare(run.home, config.seed, num_parameters=0)
    started = time.monotonic()
    material = read_material(config, run.home)
    excluded = read_excluded(run.home, config.exclude)
    known = [one for one in material.train if same(one.query) not in excluded]
    if len(known) < 10:
        raise UserError("doc2query.too_few_pairs", num=len(known))
    model = fit(run, Bags(material, known), config)
    metrics = choose(run, model, material, config)
    if config.refit:  # what was kept aside has said which writing is best; now it may teach, too
        known += [one for one in material.held_out if same(one.query) not in excluded]
        model = fit(run, Bags(material, known), config)
    model = replace(model, writing=metrics.pop("writing"))
    scratch, final = run.dir / "terms", retrieval_models.models_folder(run.home, config.name)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    model.save(scratch)
    replace_folder(scratch, final)
    metrics["train_s"] = round(time.monotonic() - started, 1)
    examples = [{"query": one.query, "lines": [line.text for line in model.expand(one.query)]} for one in material.held_out[:8]]
    manifest = {"config": config.model_dump(), "source": material.source, "num_questions": len(known), "examples": examples}
    row = retrieval_models.register(
        run.home, kind="expander", name=config.name, form="terms", folder=final, metrics=metrics, manifest=manifest, job_id=run.job_id
    )
    run.result(expander=config.name, content_hash=row.content_hash, examples=examples, **metrics)


def fit(run: Run, bags: Bags, config: ExpansionTermsConfig) -> TermModel:
    """Both stages."""
    print(f"{len(bags.questions)} questions, {len(bags.names)} tokens", flush=True)
    hard = hard_negatives(bags)
    return learn_terms(run, bags, learn_own(run, bags, hard, config), hard, config)


class Bags:
    """Passages as BM25 vectors and questions as bags of the same tokens. `questions` are (query, positives as row numbers)."""

    def __init__(self, material: Material, known: Sequence[Judged]) -> None:
        self.ids = sorted(material.passages)
        place = {name: row for row, name in enumerate(self.ids)}
        self.column: dict[str, int] = {}
        texts = [material.passages[name] for name in self.ids]
        counts = self._counted([tokens(text) for text in texts], grows=True)
        self.names = list(self.column)
        self.frequency = np.asarray((counts > 0).sum(0)).ravel()
        self.idf = np.log(1 + (len(texts) - self.frequency + 0.5) / (self.frequency + 0.5)).astype(np.float32)
        self.idf *= np.array([SINGLES_WEIGHT if name[0] == "s" else 1.0 for name in self.names], dtype=np.float32)
        self.passages = bm25(counts, self.idf)
        self.questions = [(one.query, [place[i] for i in one.positives]) for one in known]
        self.asked = self.bag([query for query, _ in self.questions])
        #: (cut word, word) -> how often, to write a token as a person would
        self.surfaces = Counter((stem(m[0]), m[0]) for text in texts[:4000] for m in UNIT.finditer(normalise(text)) if m["word"])

    def bag(self, queries: Sequence[str]) -> Matrix:
        """(N, V) 0/1 of the tokens that search would look for."""
        return self._counted([list(dict.fromkeys(tokens(without_question_words(query)))) for query in queries], grows=False)

    def _counted(self, rows: Sequence[Sequence[str]], *, grows: bool) -> Matrix:
        starts, columns, values = [0], list[int](), list[float]()
        for row in rows:
            for token, times in Counter(row).items():
                column = self.column.setdefault(token, len(self.column)) if grows else self.column.get(token)
                if column is not None:
                    columns.append(column)
                    values.append(times)
            starts.append(len(columns))
        return sparse.csr_matrix((np.array(values, np.float32), columns, starts), shape=(len(rows), len(self.column)))

    def surface(self, name: str) -> str:
        """A token as a person writes it: English tokens are cut words."""
        found = [(times, word) for (cut, word), times in self.surfaces.items() if cut == name[1:]] if name.isascii() else []
        return max(found)[1] if found else name[1:]


def bm25(counts: Matrix, idf: Arr) -> Matrix:
    """(N, V) BM25 impact of every token of every passage."""
    lengths = np.asarray(counts.sum(1)).ravel()
    found = counts.tocsr().copy()
    rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    norm = K1 * (1 - B + B * lengths / max(1.0, float(lengths.mean())))
    found.data = (found.data * (K1 + 1) / (found.data + norm[rows]) * idf[found.indices]).astype(np.float32)
    return found


def batches(number: int, size: int, epochs: float, rng: np.random.Generator) -> list[Arr]:
    """Shuffled passes over `number` rows."""
    total = max(1, round(epochs * number / size))
    order = np.concatenate([rng.permutation(number) for _ in range(int(epochs) + 2)])
    return [order[i * size : (i + 1) * size] for i in range(total)]


def learn_own(run: Run, bags: Bags, hard: Sequence[Sequence[int]], config: ExpansionTermsConfig) -> Arr:
    """(V,) weight of every token of a query; 1 where nothing was learned."""
    rng = np.random.default_rng(config.seed)
    log_weight = torch.nn.Parameter(torch.zeros(len(bags.names)))
    scale = torch.nn.Parameter(torch.tensor(0.1))
    optimizer = torch.optim.Adam([log_weight, scale], lr=config.own_rate)
    steps = batches(len(bags.questions), config.batch_size, config.own_epochs, rng)
    for step, rows in enumerate(steps):
        drawn = Drawn(bags, hard, rows, rng)
        asked = bags.asked[rows]
        used = np.unique(asked.indices)
        weights = log_weight[torch.from_numpy(used).long()]
        asking = torch.from_numpy(asked[:, used].toarray()) * torch.exp(weights)
        scores = asking @ torch.from_numpy(drawn.vectors[:, used].toarray()).T * scale
        loss = F.cross_entropy(scores + drawn.mask, drawn.right) + config.own_decay * (weights**2).mean()
        _update(optimizer, loss, config.own_rate, step, len(steps))
        if step % 20 == 0 or step + 1 == len(steps):
            run.log(step, **{"train/loss": float(loss.detach())})
            run.progress("weights", step + 1, len(steps))
            run.leave_if_stopped()
    found: Arr = np.exp(log_weight.detach().numpy())
    return found


class Drawn:
    """One batch: a right passage and a hard wrong one for every question. `vectors` (P, V); `right` (N,) its column among them; `mask`
    (N, P) is 0, and very low where another passage answers the question too."""

    def __init__(self, bags: Bags, hard: Sequence[Sequence[int]], rows: Arr, rng: np.random.Generator) -> None:
        positives = [int(rng.choice(bags.questions[i][1])) for i in rows]
        others = [int(rng.choice(hard[i])) for i in rows if hard[i]]
        passages = list(dict.fromkeys(positives + others))
        place = {p: column for column, p in enumerate(passages)}
        self.vectors = bags.passages[passages]
        self.right = torch.tensor([place[p] for p in positives])
        self.mask = torch.zeros(len(rows), len(passages))
        for row, i in enumerate(rows):
            for p in bags.questions[i][1]:
                if p in place and p != positives[row]:
                    self.mask[row, place[p]] = -1e4


def learn_terms(run: Run, bags: Bags, own: Arr, hard: Sequence[Sequence[int]], config: ExpansionTermsConfig) -> TermModel:
    """The low-rank map to the words of answers, on top of the fixed weights."""
    rng = np.random.default_rng(config.seed + 1)
    share = bags.frequency / len(bags.ids)
    wanted = np.where((bags.frequency >= MIN_PASSAGES) & (share < MAX_SHARE) & np.array([n[0] == "p" for n in bags.names]))[0]
    wanted = wanted[np.argsort(-bags.frequency[wanted], kind="stable")[:MAX_TERMS]]
    seen = Counter(token for query, _ in bags.questions for token in dict.fromkeys(tokens(query)))
    features = {token: row for row, token in enumerate(token for token, times in seen.items() if times > 1)}
    rows_of = [[features[t] for t in dict.fromkeys(tokens(query)) if t in features] for query, _ in bags.questions]
    into = torch.nn.EmbeddingBag(max(1, len(features)), config.width, mode="sum")
    torch.nn.init.normal_(into.weight, std=0.3)
    out = torch.nn.Parameter(torch.randn(config.width, len(wanted)) * 0.02)
    bias, scale = torch.nn.Parameter(torch.zeros(len(wanted))), torch.nn.Parameter(torch.tensor(0.1))
    optimizer = torch.optim.Adam([into.weight, out, bias, scale], lr=config.learning_rate)
    weighted = bags.asked.multiply(own).tocsr()
    steps = batches(len(bags.questions), config.term_batch_size, config.num_epochs, rng)
    for step, rows in enumerate(steps):
        drawn = Drawn(bags, hard, rows, rng)
        used = np.unique(weighted[rows].indices)
        plain = torch.from_numpy(weighted[rows][:, used].toarray() @ drawn.vectors[:, used].toarray().T)
        kept = [[r for r in rows_of[i] if rng.random() > config.dropout] or rows_of[i] for i in rows]
        weights = predict(into, out, bias, kept)
        scores = (plain + weights @ torch.from_numpy(drawn.vectors[:, wanted].toarray()).T) * scale
        loss = F.cross_entropy(scores + drawn.mask, drawn.right) + config.sparsity * weights.sum(1).mean()
        _update(optimizer, loss, config.learning_rate, step, len(steps))
        if step % 20 == 0 or step + 1 == len(steps):
            run.log(step, **{"terms/loss": float(loss.detach()), "terms/per_query": float((weights > 0).sum(1).float().mean())})
            run.progress("terms", step + 1, len(steps))
            run.leave_if_stopped()
    changed = {name: float(weight) for name, weight in zip(bags.names, own, strict=True) if abs(weight - 1) > 1e-3}
    arrays = [x.detach().numpy().astype(np.float32) for x in (into.weight, out, bias)]
    return TermModel(changed, features, arrays[0], arrays[1], arrays[2], [bags.surface(bags.names[i]) for i in wanted])


def predict(into: torch.nn.EmbeddingBag, out: Tensor, bias: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, T) weights of passage tokens."""
    flat = torch.tensor([r for one in rows for r in one], dtype=torch.long)
    starts = torch.tensor(np.cumsum([0, *(len(one) for one in rows[:-1])]), dtype=torch.long)
    sizes = torch.tensor([max(1, len(one)) for one in rows], dtype=torch.float32).sqrt()[:, None]
    return F.relu((into(flat, starts) / sizes) @ out + bias)


def hard_negatives(bags: Bags) -> list[list[int]]:
    """For every question the passages that BM25 ranks highest and that are not known to answer it."""
    by_token, found = bags.passages.T.tocsr(), list[list[int]]()
    for start in range(0, len(bags.questions), 500):
        scores = bags.asked[start : start + 500] @ by_token
        for i in range(scores.shape[0]):
            row = scores.getrow(i)
            right = set(bags.questions[start + i][1])
            best = row.indices[np.argsort(-row.data, kind="stable")[:NUM_HARD]]
            found.append([int(p) for p in best if p not in right])
    return found


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, step: int, total: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * (1 - 0.9 * step / total)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def choose(run: Run, model: TermModel, material: Material, config: ExpansionTermsConfig) -> dict[str, Any]:
    """The way of writing with the largest gain in recall@10 on the questions kept aside, and all that were tried."""
    judged = material.held_out[: config.num_tried]
    with tempfile.TemporaryDirectory(dir=run.dir) as scratch:
        chunks = (c for name, text in material.passages.items() for c in chunk_document(Document(name, "", text)))
        build_index(chunks, Path(scratch) / "index", {})
        found = Lists(load_index(Path(scratch) / "index"))
        plain = [found.recall(one, ()) for one in judged]
        tried: list[tuple[float, Writing, float, list[float]]] = []
        for num_terms in WRITINGS:
            writing = Writing(num_terms)
            lines = [[line.text for line in model.expand(one.query, writing)] for one in judged]
            for weight in LINE_WEIGHTS:
                gain = interval([found.recall(one, of, weight) for one, of in zip(judged, lines, strict=True)], plain)
                tried.append((gain[0], writing, weight, gain))
                print(f"words of answers in each line {num_terms}, weight {weight:g}: recall@10 gain {gain}", flush=True)
            run.progress("choose", len(tried), len(WRITINGS) * len(LINE_WEIGHTS))
    best = max(tried, key=lambda one: one[0])
    return {
        "writing": best[1],
        "line_weight": best[2],
        "recall@10": float(np.mean([p for p in plain if p is not None])),
        "recall@10 gain": best[3],
        "tried": [{"num_terms": w.num_terms, "line_weight": weight, "gain": gain} for _, w, weight, gain in tried],
        "held_out": len(judged),
    }


class Lists:
    """Lexical search of an index with every list kept, fused as `core.retrieval.search` does."""

    def __init__(self, index: Index) -> None:
        self._index, self._plan = index, Plan()
        self._lists: dict[str, list[int]] = {}

    def recall(self, one: Judged, lines: Sequence[str], weight: float = 1.0) -> float | None:
        lists = [self._list(text) for text in (one.query, *lines)]
        fused = rrf(lists, [1.0, *[weight] * len(lines)], self._plan.rrf_k)
        files = list(dict.fromkeys(self._index.chunk(number).file for number, _ in fused))
        return recall_at(files, dict.fromkeys(one.positives, 1.0), 10)

    def _list(self, text: str) -> list[int]:
        if text not in self._lists:
            self._lists[text] = [found.parent for found in self._index.lexical(text, self._plan.depth)]
        return self._lists[text]


if __name__ == "__main__":
    main(train)
