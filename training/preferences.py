"""Learning from clinicians' choices: DPO from pairs, KTO from single answers that were found good or bad. Both on trl.

Pairs are rewritten answers (the clinician's against the model's, both behind the model's own thinking, which stands in the
prompt and gets no loss, so that nothing teaches a model to leave its thinking away), decisive blind votes, and imported pairs.
KTO also takes signed verdicts and votes for both or neither (the rows of `core.exports`). The reference is the frozen start
version. References: arXiv 2305.18290 (DPO), 2402.01306 (KTO).

Leak guard: a pair whose prompt is in any held-out split, under whatever dataset, is refused and counted by split; nobody can
switch that off, because what was trained on cannot be evaluated on.

    python -m training.preferences --run-dir DIR               (job kind preferences; num_processes > 1: under accelerate launch)

Writes models/rl/NAME and registers it as a version of kind rl.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.adjudication import row_hash
from core.datasets import get_dataset
from core.errors import UserError
from core.exports.pseudonyms import Pseudonyms
from core.exports.rows import Filter, RowSource, kto
from core.jobs.configs_training import PreferencesConfig
from core.models import check_name_free, get_version
from core.policy import Policy, version_files
from core.records import TRAINING_SPLITS, Message
from core.scoring import open_scorer
from db import tables as t
from db.engine import read_session
from training import trl_common
from training.causal import num_parameters, prepare, save_adapter
from training.rl_version import register_rl
from training.run import Run, main


@dataclass(frozen=True, slots=True)
class Pair:
    """`context` is text of the assistant that both sides share; they begin where it ends."""

    messages: tuple[Message, ...]
    context: str
    chosen: str
    rejected: str
    #: what it comes from: (adjudication or vote, id); None for imported pairs
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    messages: tuple[Message, ...]
    context: str
    completion: str
    label: bool
    origin: tuple[str, int] | None = None


def train(run: Run) -> None:
    """DPO or KTO from a version, held near it."""
    # 1. Version and data. What a person can mend is said before a model is loaded.
    config = run.config(PreferencesConfig)
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
        start = get_version(session, config.sft_model)
        files = version_files(session, run.home, start)
        if config.dataset:
            get_dataset(session, config.dataset)
        refused: Counter[str] = Counter()
        chosen = list(pairs(session, config, refused))
        found: list[Pair] | list[Labelled] = chosen
        taken = taken_from(session, chosen)
        if config.method == "kto":
            single = list(judged(session, run, config, refused))
            found, taken = labelled(chosen, single), taken_from(session, [*chosen, *single])
    check_enough(found, config, refused)

    # 2. The policy, and rows of token ids in a seeded order.
    policy = trl_common.load_start(run.home, files, trl_common.place(run.home), seed=config.seed)
    prepare(run.home, config.seed, num_parameters(policy.model))
    rows = [row for one in found if (row := to_row(policy, one, config.max_length)) is not None]
    if len(rows) < config.min_pairs:
        raise UserError("training.all_too_long", max_length=config.max_length)
    random.Random(config.seed).shuffle(rows)

    # 3. Train.
    plan = trl_common.Plan(
        phase=config.method,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        save_steps=config.save_steps,
        num_epochs=config.num_epochs,
        log_steps=max(1, min(10, round(config.num_epochs * len(rows) / config.batch_size) // 4)),
        gradient_checkpointing=config.gradient_checkpointing,
        weight_decay=0.0,
    )
    trainer, callback = trl_common.preference_trainer(
        run, policy, files, rows, plan, method=config.method, beta=config.beta, max_length=config.max_length
    )
    num_updates = trl_common.fit(run, trainer, callback)
    if not run.is_main:
        return

    # 4. Save and register.
    history = trainer.state.log_history
    metrics = {"num_updates": float(num_updates), **last_of(history, callback.rename)}
    counts = {"num_rows": len(rows), "num_too_long": len(found) - len(rows), "refused": dict(refused)}
    digest = register_rl(
        run,
        config.name,
        config,
        start,
        trl_common.name_base(policy, files, start),
        lambda folder: save_adapter(policy, trl_common.POLICY, folder),
        {"method": config.method, "data": counts, "metrics": metrics},
        taken=taken,
    )
    run.result(version=config.name, content_hash=digest, **counts, **metrics)


def pairs(session: Session, config: PreferencesConfig, refused: Counter[str]) -> Iterator[Pair]:
    """Stored pairs in id order; those of held-out prompts are counted in `refused` by split and left out."""
    held_out = _held_out(session)
    query = select(t.PreferencePair, t.Sample).join(t.Sample, t.Sample.id == t.PreferencePair.sample_id)
    query = query.where(t.PreferencePair.source.in_(config.sources)).order_by(t.PreferencePair.id)
    if config.dataset:
        query = query.join(t.Dataset, t.Dataset.id == t.Sample.dataset_id).where(t.Dataset.name == config.dataset)
    for pair, sample in session.execute(query):
        split = sample.split if sample.split not in TRAINING_SPLITS else held_out.get(sample.content_hash)
        if split is not None:
            refused[split] += 1
            continue
        messages = tuple(Message(m["role"], m["content"]) for m in sample.messages)
        origin = ("adjudication", pair.adjudication_id) if pair.adjudication_id else ("vote", pair.vote_id) if pair.vote_id else None
        yield Pair(messages, _thinking(session, pair), pair.chosen, pair.rejected, origin)


def judged(session: Session, run: Run, config: PreferencesConfig, refused: Counter[str]) -> Iterator[Labelled]:
    """Single answers with a signed verdict, or a vote that both were good or both bad. Same guard as `pairs`."""
    held_out = _held_out(session)
    wanted = {"adjudication": "adjudication", "blind_vote": "vote"}
    source = RowSource(session, Filter(dataset=config.dataset), Pseudonyms(run.home), open_scorer(session))
    for row in kto(source):
        if wanted.get(row["source"]) not in config.sources:
            continue
        sample = session.get_one(t.Sample, row["sample_id"])
        if (split := held_out.get(sample.content_hash)) is not None:
            refused[split] += 1
            continue
        messages = tuple(Message(m["role"], m["content"]) for m in row["prompt"])
        origin = ("adjudication" if row["source"] == "adjudication" else "vote", int(row["source_id"]))
        yield Labelled(messages, "", row["completion"][0]["content"], row["label"], origin)
    for name, count in source.left_out.items():
        if name.startswith("held_out_"):
            refused[name.removeprefix("held_out_")] += count


def labelled(from_pairs: list[Pair], more: list[Labelled]) -> list[Labelled]:
    """Both sides of every pair and the judged answers, each once; an answer that was called good and bad is left out."""
    rows = [Labelled(p.messages, p.context, text, label) for p in from_pairs for text, label in ((p.chosen, True), (p.rejected, False))]
    by_text: dict[tuple[tuple[Message, ...], str], list[Labelled]] = {}
    for row in [*rows, *more]:
        by_text.setdefault((row.messages, row.context + row.completion), []).append(row)
    return [same[0] for same in by_text.values() if len({row.label for row in same}) == 1]


def taken_from(session: Session, found: Sequence[Pair | Labelled]) -> dict[str, dict[int, str]]:
    """The decisions (with the hash of what was signed) and votes behind rows: what was offered to the training, fit or not."""
    ids: dict[str, dict[int, str]] = {"adjudication": {}, "vote": {}}
    for one in found:
        if one.origin is not None:
            ids[one.origin[0]][one.origin[1]] = ""
    for number in ids["adjudication"]:
        ids["adjudication"][number] = row_hash(session.get_one(t.Adjudication, number))
    return ids


def check_enough(found: list[Pair] | list[Labelled], config: PreferencesConfig, refused: Counter[str]) -> None:
    """Raises UserError("training.pairs_held_out") when every row was refused, UserError("training.too_few_pairs") for too few and
    UserError("training.one_sided_labels") when all are good or all are bad."""
    splits = ", ".join(f"{split}: {count}" for split, count in sorted(refused.items()))
    if refused:
        print(f"refused, because their prompts are held out for evaluation: {splits}", flush=True)
    if not found and refused:
        raise UserError("training.pairs_held_out", n=sum(refused.values()), splits=splits)
    if len(found) < config.min_pairs:
        raise UserError("training.too_few_pairs", n=len(found), needed=config.min_pairs, refused=sum(refused.values()))
    labels = {one.label for one in found if isinstance(one, Labelled)}
    if len(labels) == 1:
        raise UserError("training.one_sided_labels", n=len(found))


def to_row(policy: Policy, one: Pair | Labelled, max_length: int) -> dict[str, Any] | None:
    """Token ids for trl; None when a side does not fit (a cut-off answer would be judged by its beginning)."""
    prompt = policy.encode(one.messages) + _ids(policy, one.context)
    row: dict[str, Any] = {"prompt_ids": prompt}
    if isinstance(one, Pair):
        row |= {"chosen_ids": [*_ids(policy, one.chosen), policy.eos_id], "rejected_ids": [*_ids(policy, one.rejected), policy.eos_id]}
    else:
        row |= {"completion_ids": [*_ids(policy, one.completion), policy.eos_id], "label": one.label}
    longest = max(len(row.get(name, [])) for name in ("chosen_ids", "rejected_ids", "completion_ids"))
    return row if len(prompt) + longest <= max_length else None


def last_of(history: list[dict[str, Any]], names: dict[str, str]) -> dict[str, float]:
    """The last logged value of each metric, under our names."""
    found: dict[str, float] = {}
    for entry in history:
        found |= {ours: float(entry[theirs]) for theirs, ours in names.items() if isinstance(entry.get(theirs), int | float)}
    return found


def _held_out(session: Session) -> dict[str, str]:
    """Content hash of every held-out prompt -> its split."""
    query = select(t.Sample.content_hash, t.Sample.split).where(t.Sample.split.not_in([split.value for split in TRAINING_SPLITS]))
    return {row[0]: row[1] for row in session.execute(query.distinct())}


def _thinking(session: Session, pair: t.PreferencePair) -> str:
    """What the model wrote before the answer that was rewritten; empty for pairs of whole completions."""
    if pair.meta.get("part") != "answer":
        return ""
    completion = session.get(t.Completion, pair.meta.get("completion_id"))
    if completion is None or not completion.answer or completion.answer not in completion.text:
        return ""
    return completion.text[: completion.text.rindex(completion.answer)]


def _ids(policy: Policy, text: str) -> list[int]:
    return list(policy.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


if __name__ == "__main__":
    main(train)
