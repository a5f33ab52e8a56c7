"""Train an embedding for the dense channel: static from scratch, or MiniLM or one of ours further; then measure it and register it.

Multiple negatives ranking loss (Henderson et al., 2017) or its cached variant (GradCache: Gao et al., 2021) through
sentence-transformers' trainer, with hard negatives mined anew before each round, optionally nested widths (Matryoshka: Kusupati et
al., 2022). The result is a candidate with the gate's verdict on held-out questions against what it started from (for scratch: the
untrained rarity-weighted vectors). Fine-tuning often gives nothing or hurts, so nothing is switched on here. A killed run goes on
from its last checkpoint; mined negatives and finished rounds are kept in the run folder.

    python -m training.embedding --run-dir DIR      (job kind embedding; ./run.sh train embedding --help)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import NotFound, UserError
from core.jobs.configs_embedding import EmbeddingConfig
from core.retrieval import retrieval_models as registry
from core.retrieval.dense import Encoder
from core.retrieval.encoders import MINILM, LocalEncoder, StaticEncoder, check_english, local_folder
from core.retrieval.static_vectors import VECTORS, StaticVectors, read_static, write_static
from training.causal import replace_folder
from training.embedding_measure import PerQuery, compare, means, measure
from training.feedback_pairs import feedback_of
from training.hard_negatives import lexical_index, mine, sample_passages
from training.retrieval_pairs import Judged, Material, read_material
from training.run import Run, main, write_json

SCRATCH = "static"
STATIC_RATE, TRANSFORMER_RATE = 0.02, 2e-5
#: passages that a transformer is measured on: encoding all of a large collection would take longer than the training
MEASURED_PASSAGES = 4000
#: names of weights that nobody hands out
HOSTED = ("text-embedding-", "embed-", "voyage-")


def train(run: Run) -> None:
    """Train an embedding and measure it against what it started from."""
    config = run.config(EmbeddingConfig)
    registry.check_name(config.name, job_id=run.job_id)
    refuse_hosted(config.base)
    judged, shown = feedback_of(config.index or "guidelines") if config.with_feedback else ([], {})
    material = read_material(config, run.home, judged, shown)
    is_static = config.base == SCRATCH or (config.base != MINILM and registry.get(config.base, "embedding").form == "static")
    student: StaticStudent | LocalStudent = StaticStudent(run, config, material) if is_static else LocalStudent(run, config, material)
    before = measured(run, "before", student, material)
    for number in range(config.num_rounds):
        done = run.checkpoints / f"round-{number + 1}-done"
        if done.is_dir():
            student.restore(done)
            continue
        rows = rows_of(run, config, material, student, number)
        num_updates = student.learn(rows, run.checkpoints / f"round-{number + 1}", f"train {number + 1}/{config.num_rounds}")
        print(f"round {number + 1}: {len(rows['anchor'])} rows, {num_updates} updates", flush=True)
        replace_folder(student.save(run.checkpoints / f"round-{number + 1}-saving"), done)
    after = measured(run, "after", student, material)
    verdict = compare(before, after)
    folder = registry.models_folder(run.home, config.name)
    replace_folder(student.save(folder.with_name(f".{config.name}-{run.job_id}")), folder)
    metrics = {"set": material.source, "before": means(before), "after": means(after), "gate": verdict}
    row = registry.register(
        run.home,
        kind="embedding",
        name=config.name,
        form="static" if is_static else "local",
        folder=folder,
        base="scratch" if config.base == SCRATCH else config.base,
        metrics=metrics,
        manifest={"dimension": student.dimension, "is_english_only": student.is_english_only, "training": config.model_dump()},
        job_id=run.job_id,
    )
    run.progress("done", 1, 1)
    run.result(model=row.name, content_hash=row.content_hash, num_questions=len(material.train), **metrics)


def refuse_hosted(base: str) -> None:
    """Raises UserError("embedding.cannot_tune_hosted") for an endpoint, registered or only named: we do not have its weights."""
    is_hosted = base.startswith(HOSTED)
    if not is_hosted and base not in (SCRATCH, MINILM):
        try:
            is_hosted = registry.get(base, "embedding").form == "api"
        except NotFound:
            raise UserError("embedding.no_such_base", name=base) from None
    if is_hosted:
        raise UserError("embedding.cannot_tune_hosted", name=base)


class StaticStudent:
    """Vectors of our own tokens, from scratch or from a static model of ours."""

    is_english_only = False

    def __init__(self, run: Run, config: EmbeddingConfig, material: Material) -> None:
        from training import static_embedding as static

        if config.loss == "cached_mnr":
            raise UserError("embedding.static_needs_no_cache")
        self._run, self._config, self._static = run, config, static
        if config.base == SCRATCH:
            texts = [*material.passages.values(), *(w for one in material.train for w in (one.query, *one.longer))]
            self.tokens, idf = static.choose_tokens(texts, config.max_tokens)
            self.vectors = static.untrained_vectors(idf, config.dimension, config.seed)
        else:
            known = read_static(registry.weights_of(registry.get(config.base, "embedding"), run.home))
            self.tokens, self.vectors = list(known.row_of), known.vectors
        if not self.tokens:
            raise UserError("embedding.too_few_pairs", num=len(material.train))

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    def encoder(self) -> Encoder:
        return StaticEncoder("student", "", StaticVectors(self.tokens, self.vectors))

    def learn(self, rows: dict[str, list[str]], folder: Path, phase: str) -> int:
        known = frozenset(self.tokens)
        cut = {column: self._static.spaced(texts, known) for column, texts in rows.items()}
        model = self._static.as_sentence_transformer(self.tokens, self.vectors.copy())
        num_updates = learn(self._run, self._config, model, cut, folder, phase, self._config.learning_rate or STATIC_RATE)
        self.vectors = self._static.trained_vectors(model)
        return num_updates

    def save(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        write_static(folder, self.tokens, self.vectors)
        return folder

    def restore(self, folder: Path) -> None:
        self.vectors = np.load(folder / VECTORS).astype(np.float32)


class LocalStudent:
    """A sentence-transformers model: MiniLM, or one of ours. float32 while it learns, measured as it will be used."""

    def __init__(self, run: Run, config: EmbeddingConfig, material: Material) -> None:
        self._run, self._config = run, config
        self._folder, self.is_english_only, self.dimension = local_folder(config.base)
        if self.is_english_only:
            check_english(config.base, [one.query for one in material.train[:200]])

    def encoder(self) -> Encoder:
        return LocalEncoder("student", "", self.dimension, self._folder, is_english_only=self.is_english_only)

    def learn(self, rows: dict[str, list[str]], folder: Path, phase: str) -> int:
        from core.retrieval.encoders import load_sentence_transformer

        model = load_sentence_transformer(self._folder, for_training=True)
        model.max_seq_length = min(self._config.max_length, model.max_seq_length or self._config.max_length)
        num_updates = learn(self._run, self._config, model, rows, folder, phase, self._config.learning_rate or TRANSFORMER_RATE)
        self._folder = self._run.checkpoints / "student"
        shutil.rmtree(self._folder, ignore_errors=True)
        model.save_pretrained(str(self._folder), create_model_card=False)
        return num_updates

    def save(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._folder, folder)
        return folder

    def restore(self, folder: Path) -> None:
        self._folder = folder


def learn(run: Run, config: EmbeddingConfig, model: Any, rows: dict[str, list[str]], folder: Path, phase: str, rate: float) -> int:
    """One round through sentence-transformers' trainer."""
    from sentence_transformers.sentence_transformer import losses

    from training.sentence_trainer import Lesson, teach

    kind = losses.CachedMultipleNegativesRankingLoss if config.loss == "cached_mnr" else losses.MultipleNegativesRankingLoss
    loss: Any = kind(model)
    if config.matryoshka:
        widths = sorted({*config.matryoshka, model.get_embedding_dimension()}, reverse=True)
        loss = losses.MatryoshkaLoss(model, loss, widths)
    lesson = Lesson(rows, folder, phase, config.batch_size, rate, config.num_epochs, config.seed, config.save_steps)
    return teach(run, model, loss, lesson)


def rows_of(
    run: Run, config: EmbeddingConfig, material: Material, student: StaticStudent | LocalStudent, number: int
) -> dict[str, list[str]]:
    """Columns anchor, positive, negative_1 ...: judged pairs in every wording, and halves of passages for a static embedding.

    What was mined for a round is kept, so that a resumed round sees the same rows.
    """
    negatives: list[list[str]] = [[] for _ in material.train]
    if config.num_hard_negatives:
        kept = run.dir / f"mined-{number + 1}.json"
        if not kept.is_file():
            run.progress(f"mine {number + 1}/{config.num_rounds}", 0, 1)
            index = lexical_index(material.passages, run.dir / "mining-index")
            has_learnt = number > 0 or config.base != SCRATCH
            encoder = student.encoder() if has_learnt else None
            found = mine(material.train, material.passages, index, encoder, config.num_hard_negatives, config.seed + number)
            write_json(kept, found)
        negatives = json.loads(kept.read_text(encoding="utf-8"))
    rows: list[tuple[str, ...]] = []
    for one, hard in zip(material.train, negatives, strict=True):
        against = [material.passages[i] for i in hard]
        for passage in one.positives:
            rows += [(wording, material.passages[passage], *against) for wording in (one.query, *sorted(one.longer))]
    if isinstance(student, StaticStudent):
        rows += self_pairs(config, material, [*material.passages], config.num_hard_negatives)
    names = ["anchor", "positive", *(f"negative_{i + 1}" for i in range(config.num_hard_negatives))]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def self_pairs(config: EmbeddingConfig, material: Material, ids: Sequence[str], num_negatives: int) -> list[tuple[str, ...]]:
    """Halves of passages that belong together: by themselves they teach too little, beside judged pairs they help."""
    from training.static_embedding import halves

    generator = np.random.default_rng(config.seed)
    wanted = len(ids) if config.num_self_pairs < 0 else min(len(ids), config.num_self_pairs)
    rows: list[tuple[str, ...]] = []
    for place in generator.permutation(len(ids))[:wanted]:
        pair = halves(material.passages[ids[place]])
        if pair is not None:
            others = [material.passages[ids[i]] for i in generator.integers(0, len(ids), num_negatives)]
            rows.append((*pair, *others))
    return rows


def measured(run: Run, name: str, student: StaticStudent | LocalStudent, material: Material) -> PerQuery:
    """Per-question metrics of the student as it is now, computed once per run (before.json, after.json)."""
    path = run.dir / f"{name}.json"
    if path.is_file():
        stored: PerQuery = json.loads(path.read_text(encoding="utf-8"))
        return stored
    run.progress(f"measure {name}", 0, 1)
    asked: list[Judged] = material.held_out
    passages = material.passages
    if isinstance(student, LocalStudent):
        passages = sample_passages(passages, {i for one in asked for i in one.positives}, MEASURED_PASSAGES, 0)
    values = measure(student.encoder(), asked, passages)
    write_json(path, values)
    run.log(0, **{f"eval/{metric} {name}": value for metric, value in means(values).items() if value is not None})
    return values


if __name__ == "__main__":
    main(train)
