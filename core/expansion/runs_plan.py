"""What a training would do, before it does it: the plan in lines, and the reward of sample rows with every deduction.

Loads no model. Called by `./run.sh expansion-train ... --dry-run`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from core.expansion import reward, schema
from core.expansion.grounding import Grounding, over_folder
from core.expansion.reward import Score
from core.expansion.runs import rows_of
from core.expansion.runs_yaml import Asked
from core.home import current_home
from core.i18n import translate

NUM_SAMPLES = 5
#: a well-formed line and one without a prefix, so that the reward is seen to fail what it must
PLANTED = "lex: {query} overview\nthis line has no prefix"


def plan(asked: Asked, language: str) -> Iterator[str]:
    """Lines to print. Raises as `rows_of` and `over_folder`: what would stop the training stops the plan."""

    def say(sentence: str, **values: Any) -> str:
        return translate(f"expansion_training.plan_{sentence}", language, **values)

    config = asked.config.model_dump()
    yield say("kind", kind=asked.kind, name=config["name"])
    train, val, test = (rows_of(config["data"], (split,)) for split in ("train", "val", "test"))
    yield say("rows", data=config["data"], train=len(train), val=len(val), test=len(test))
    if asked.kind == "expansion_sft":
        rows = min(config["max_samples"] or len(train), len(train))
        updates = max(1, round(config["num_epochs"] * rows / config["batch_size"]))
        yield say("sft", base=config["base_model"], updates=updates, epochs=config["num_epochs"], batch=config["batch_size"])
    else:
        queries = config["batch_size"] // config["num_generations"]
        yield say("grpo", sft=config["sft_model"], updates=config["num_steps"], queries=queries, generations=config["num_generations"])
        yield say("beta", beta=config["beta"])
    yield say("lora", rank=config["lora_r"], alpha=config["lora_alpha"], modules=", ".join(config["target_modules"]))
    yield say("rate", rate=config["learning_rate"], processes=config["num_processes"])
    for key, line in asked.unused:
        yield say("unused", name=key, line=line)
    folder = config.get("corpus") or ""
    grounding = over_folder(current_home().root / Path(folder).expanduser()) if folder else None
    yield say("grounded", corpus=folder) if grounding else say("ungrounded")
    if not train:
        return
    yield from _samples(train, grounding, language)


def _samples(rows: list[schema.Row], grounding: Grounding | None, language: str) -> Iterator[str]:
    chosen = random.Random(0).sample(rows, min(NUM_SAMPLES, len(rows)))
    scores = [reward.score(row.query, row.output, grounding=grounding) for row in chosen]
    yield translate("expansion_training.plan_samples", language, num=len(chosen), mean=f"{fmean(s.reward for s in scores):.3f}")
    for row, found in zip(chosen, scores, strict=True):
        yield from scored_lines(row.query, row.output, found, language)
    planted = PLANTED.format(query=chosen[0].query)
    yield translate("expansion_training.plan_planted", language)
    yield from scored_lines(chosen[0].query, planted, reward.score(chosen[0].query, planted), language)


def scored_lines(query: str, output: str, found: Score, language: str) -> Iterator[str]:
    """One answer with its score and every deduction."""
    grounded = "" if found.grounded is None else f" · {translate('expansion_training.plan_found', language, value=f'{found.grounded:.2f}')}"
    yield f"  {found.reward:.3f} {found.rating}{grounded} · {query}"
    yield from (f"      {line}" for line in output.split("\n"))
    for one in found.deductions:
        reason = translate(f"expansion.{one.reason_key}", language, **{"line": one.line, **one.facts})
        yield f"    {one.points:+g} {one.dimension} {reason}"
