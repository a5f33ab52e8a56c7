"""Train a reranker on what the present search puts first, measure it against that order, and register it.

Two forms. `features` (any language; core.retrieval.rank_features) learns rarity, word associations and a small listwise network:
seconds of training, milliseconds per question. `cross` starts a cross-encoder from MiniLM's weights (English), with a listwise loss
(ListNet: Cao et al., 2007) or binary cross-entropy on lexical hard negatives, through sentence-transformers' trainer. Both add the
order of the search as one signal, whose weight is chosen on questions kept from training, so that a weak reranker stays close to
it. The result is a candidate with the gate's verdict; a reranker that does not help must stay off.

    python -m training.reranker --run-dir DIR      (job kind reranker; ./run.sh train reranker --help)
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.jobs.configs_embedding import RerankerConfig
from core.retrieval import retrieval_models as registry
from core.retrieval.encoders import MINILM, check_english, local_folder
from core.retrieval.rank_features import STATIC, FeatureModel, read_feature_model, write_feature_model
from core.retrieval.rerankers import CrossReranker, FeatureReranker, Reranker, load_cross_encoder
from core.retrieval.static_vectors import read_static
from training.causal import replace_folder
from training.embedding_measure import compare, means
from training.feedback_pairs import feedback_of
from training.rank_associations import learn_associations, rarity_of
from training.rank_network import learn_network
from training.rerank_lists import Listed, chunk_index, keep_per_query, lists_of, measure_order, measure_reranker
from training.retrieval_pairs import Judged, Material, read_material
from training.run import Run, main

#: share of the training questions on which the network is stopped and the old order is weighted, and at most so many
TUNING_SHARE, MAX_TUNING = 0.15, 300
#: lists scored in order to weigh the old order beside a cross-encoder, which is slow
CROSS_TUNING = 60
PRIORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def train(run: Run) -> None:
    """Train a reranker and measure it on held-out questions."""
    config = run.config(RerankerConfig)
    registry.check_name(config.name, job_id=run.job_id)
    judged, shown = feedback_of(config.index or "guidelines") if config.with_feedback else ([], {})
    material = read_material(config, run.home, judged, shown)
    run.progress("index", 0, 1)
    index = chunk_index(material.passages, run.dir / "index")
    num_tuning = min(MAX_TUNING, int(len(material.train) * TUNING_SHARE))
    tuning = lists_of(run, "tuning", material.train[:num_tuning], index, config.depth)
    lists = lists_of(run, "train", material.train[num_tuning:], index, config.depth)
    held_out = lists_of(run, "held_out", material.held_out, index, config.depth)
    usable = [one for one in lists if one.has_answer]
    if len(usable) < 10:
        raise UserError("embedding.no_answers_found", num=len(usable), asked=len(lists), depth=config.depth)
    scratch = registry.models_folder(run.home, config.name).with_name(f".{config.name}-{run.job_id}")
    shutil.rmtree(scratch, ignore_errors=True)
    teach = train_features if config.form == "features" else train_cross
    reranker, about = teach(run, config, material, usable, [one for one in tuning if one.has_answer], scratch)
    before = measure_order(held_out, [range(len(one.ids)) for one in held_out])
    after, times = measure_reranker(run, held_out, reranker)
    keep_per_query(run, "before", before)
    keep_per_query(run, "after", after)
    folder = registry.models_folder(run.home, config.name)
    replace_folder(scratch, folder)
    metrics = {"set": material.source, "depth": config.depth, "before": means(before), "after": means(after), **times}
    metrics["gate"] = compare(before, after)
    row = registry.register(
        run.home,
        kind="reranker",
        name=config.name,
        form=config.form,
        folder=folder,
        base=config.base if config.form == "cross" else "scratch",
        metrics=metrics,
        manifest={**about, "training": config.model_dump()},
        job_id=run.job_id,
    )
    run.progress("done", 1, 1)
    run.result(model=row.name, content_hash=row.content_hash, num_lists=len(usable), **metrics)


def train_features(
    run: Run, config: RerankerConfig, material: Material, lists: Sequence[Listed], tuning: Sequence[Listed], folder: Path
) -> tuple[Reranker, dict[str, Any]]:
    """Associations are fitted on one half of the questions to compute the signals of the other half, so that the network learns
    how much to trust them on questions that they have not seen; what is kept is fitted on all."""
    rarity = rarity_of(material.passages.values())
    static = None
    if config.embedding:
        row = registry.get(config.embedding, "embedding")
        if row.form != "static":
            raise UserError("embedding.static_signal_only", name=config.embedding)
        if config.pairs and (row.manifest.get("training") or {}).get("pairs") == config.pairs:
            raise UserError("embedding.signal_knows_answers", name=config.embedding)
        shutil.copytree(registry.weights_of(row, run.home), folder / STATIC)
        static = read_static(folder / STATIC)
    fold_of = {one.query: number % 2 for number, one in enumerate(material.train)}
    signals: dict[str, np.ndarray] = {}
    for fold in (0, 1):
        run.progress("signals", fold, 2)
        others = [one for one in material.train if fold_of[one.query] != fold]
        model = FeatureModel(rarity, learn_associations(pairs_of(others, material)), static)
        for one in [*lists, *tuning]:
            if fold_of[one.query] == fold:
                signals[one.query] = model.features(one.query, one.texts)
        run.leave_if_stopped()
    run.progress("network", 0, 1)
    network = learn_network(
        [signals[one.query] for one in lists],
        [one.labels for one in lists],
        [signals[one.query] for one in tuning],
        [one.labels for one in tuning],
        num_hidden=config.num_hidden,
        num_networks=config.num_networks,
        seed=config.seed,
    )
    associations = learn_associations(pairs_of(material.train, material))
    write_feature_model(folder, FeatureModel(rarity, associations, static, network.centre, network.scale, network.layers))
    run.log(0, **{"eval/ndcg@10 tuning": network.quality, "eval/ndcg@10 tuning before": network.quality_before})
    return FeatureReranker(config.name, "", read_feature_model(folder)), {"num_networks": config.num_networks}


def pairs_of(asked: Sequence[Judged], material: Material) -> list[tuple[str, str]]:
    """(question, right passage) for every judged positive, in every wording of the question."""
    return [(wording, material.passages[i]) for one in asked for i in one.positives for wording in (one.query, *sorted(one.longer))]


def train_cross(
    run: Run, config: RerankerConfig, _material: Material, lists: Sequence[Listed], tuning: Sequence[Listed], folder: Path
) -> tuple[Reranker, dict[str, Any]]:
    """A cross-encoder on (question, candidates) from the search; the weight of the old order is chosen on `tuning`."""
    from sentence_transformers.cross_encoder import losses

    from training.sentence_trainer import Lesson, teach

    check_english(config.base, [one.query for one in lists[:200]])
    start = local_folder(MINILM)[0] if config.base == MINILM else registry.weights_of(registry.get(config.base, "reranker"), run.home)
    model = load_cross_encoder(start, for_training=True, is_new=config.base == MINILM)
    model.max_length = config.max_length
    rows = cross_rows(config, lists)
    loss = losses.ListNetLoss(model) if config.loss == "listwise" else losses.BinaryCrossEntropyLoss(model)
    lesson = Lesson(
        rows, run.checkpoints, "train", config.batch_size, config.learning_rate, config.num_epochs, config.seed, config.save_steps, 0.01
    )
    num_updates = teach(run, model, loss, lesson)
    print(f"{len(lists)} questions, {num_updates} updates", flush=True)
    model.save_pretrained(str(folder), create_model_card=False)
    plain = CrossReranker(config.name, "", folder, 0.0, config.max_length)
    chosen = tuning[:CROSS_TUNING]
    run.progress("weigh the old order", 0, 1)
    scores = [np.array(plain.score(one.query, one.texts), dtype=float) for one in chosen]
    quality = {}
    for prior in PRIORS:
        orders = [np.argsort(-(found + prior / np.arange(1, len(found) + 1)), kind="stable").tolist() for found in scores]
        quality[prior] = means(measure_order(chosen, orders))["ndcg@10"] or 0.0
    prior = max(PRIORS, key=lambda value: quality[value])
    print(f"nDCG@10 of {len(chosen)} tuning questions by the weight of the old order: {quality}", flush=True)
    return CrossReranker(config.name, "", folder, prior, config.max_length), {"prior_weight": prior, "max_length": config.max_length}


def cross_rows(config: RerankerConfig, lists: Sequence[Listed]) -> dict[str, list[Any]]:
    """listwise: query, passages, labels; bce: one row per pair. Each list holds its right passages (at most two) and the first
    `num_negatives` wrong ones as the search ranks them."""
    queries: list[Any] = []
    passages: list[Any] = []
    labels: list[Any] = []
    for one in lists:
        right = [i for i, label in enumerate(one.labels) if label > 0][:2]
        wrong = [i for i, label in enumerate(one.labels) if label <= 0][: config.num_negatives]
        queries.append(one.query)
        passages.append([one.texts[i] for i in (*right, *wrong)])
        labels.append([float(min(1.0, one.labels[i])) for i in (*right, *wrong)])
    if config.loss == "listwise":
        return {"query": queries, "passages": passages, "labels": labels}
    flat = [(q, p, label) for q, ps, ls in zip(queries, passages, labels, strict=True) for p, label in zip(ps, ls, strict=True)]
    return {"query": [q for q, _, _ in flat], "passage": [p for _, p, _ in flat], "label": [label for _, _, label in flat]}


if __name__ == "__main__":
    main(train)
