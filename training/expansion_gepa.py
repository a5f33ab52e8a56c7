"""Search for a better expansion instruction with GEPA (Agrawal et al., arXiv 2507.19457): ask, score, let a model rewrite, keep what
is better on queries that the rewriting did not see.

The score is the expansion reward (with its retrieval term where a corpus is given); what the rewriting model reads is every deduction
in words. The budget counts requests to the models, retries and the final measurement among them, and is never exceeded. Killed at any
moment, the run goes on from its ledger of requests. What it finds is kept as a version and used only once a person says so.

    python -m training.expansion_gepa --run-dir DIR      (job kind expansion_prompt)
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core import model_client
from core.errors import UserError
from core.expansion import prompts, reward, schema
from core.expansion.grounding import Grounding
from core.expansion.prompt_ledger import BudgetSpent, Ledger, key_of
from core.expansion.runs import rows_of
from core.i18n import translate
from core.jobs.configs_expansion_export import ExpansionPromptConfig
from core.models import get_version
from core.records import Message
from core.statistics import bootstrap
from db.engine import read_session
from training.expansion_common import open_grounding
from training.run import Run, StopRequested, main

PART = "instruction"
#: faults of the endpoint that another try may mend, and how long each try waits
RETRY_S = (0.5, 2.0, 8.0)
PASSING = ("bench.timeout", "bench.server_down", "bench.server_busy", "bench.broken_stream", "bench.endpoint_error")
#: rounds without a new question after which the search is at its end
MAX_IDLE = 20
REFLECTION = """An assistant rewrites search queries by this instruction:
```
<curr_param>
```
Below are queries, what the assistant wrote, and what a strict scorer said about it:

<side_info>

Write a better instruction for the assistant. Say everything that the scorer asks for and that the present instruction leaves out:
which lines, how many of each, what they must and must not hold. It must work for other queries than these, in English and in
Chinese, so copy nothing from the examples. Keep the names of the line prefixes (lex:, vec:, hyde:). At most <limit> characters.
Answer with the new instruction alone, between ``` marks."""


class Leave(BaseException):
    """Ends the search from within GEPA, which catches every Exception. `error`: what a person has to know; None: the budget is spent."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        super().__init__(error)


@dataclass
class Search:
    """GEPA's view of the task: `evaluate` asks the model and scores, `make_reflective_dataset` says why points were lost."""

    run: Run
    config: ExpansionPromptConfig
    ledger: Ledger
    grounding: Grounding | None
    #: requests that are kept for the final measurement
    reserve: int
    #: (instruction, mean on the choosing queries) of every candidate that was measured on all of them
    found: list[tuple[str, float]] = field(default_factory=list)
    #: keys walked when the last round began, and rounds since that asked nothing new
    _walked: int = 0
    _num_idle: int = 0
    propose_new_texts: None = None

    # --- what GEPA calls -----------------------------------------------------------------------------------------------------

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa.core.adapter import EvaluationBatch

        outputs, scores = self.measure(batch, candidate[PART])
        traces = [(query, text, score) for query, text, score in zip(batch, outputs, scores, strict=True)]
        return EvaluationBatch(outputs, [score.reward for score in scores], traces if capture_traces else None)

    def make_reflective_dataset(
        self, _candidate: dict[str, str], evaluated: Any, _parts: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {PART: [{"Query": query, "Written": text, "Scorer": explained(score)} for query, text, score in evaluated.trajectories]}

    def propose(self, candidate: dict[str, str], examples: Mapping[str, Any], _parts: list[str]) -> dict[str, str]:
        """A rewritten instruction; the old one when the answer holds none or one that is too long."""
        from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

        template = REFLECTION.replace("<limit>", str(self.config.max_characters))
        text = Signature.prompt_renderer(
            {"current_instruction_doc": candidate[PART], "dataset_with_feedback": examples[PART], "prompt_template": template}
        )
        said = self.ask(self.config.reflection_model or self.config.model, [{"role": "user", "content": str(text)}], 2048)
        new = Signature.output_extractor(said)["new_instruction"].strip()
        return {PART: new if 0 < len(new) <= self.config.max_characters else candidate[PART]}

    def on_valset_evaluated(self, event: Any) -> None:
        """GEPA measured a candidate on all choosing queries."""
        self.found.append((event["candidate"][PART], float(event["average_score"])))
        best = max(mean for _, mean in self.found)
        self.run.log(self.ledger.spent, **{"search/best": best, "search/candidate": self.found[-1][1], "search/spent": self.ledger.spent})
        print(f"{self.ledger.spent}/{self.ledger.budget} requests: candidate {len(self.found)} scores {self.found[-1][1]:.3f}", flush=True)

    def is_over(self, _state: Any) -> bool:
        """Stop before a round that the budget might not carry to its end, and when round after round asks nothing new: GEPA counts
        its own calls, and would go round for ever on answers that are here."""
        if self.run.should_stop():
            raise Leave(StopRequested())
        self.run.progress("search", self.ledger.spent, self.ledger.budget)
        self._num_idle = 0 if len(self.ledger.walked) > self._walked else self._num_idle + 1
        self._walked = len(self.ledger.walked)
        return self.ledger.left - self.reserve < round_cost(self.config) or self._num_idle >= MAX_IDLE

    # --- asking and scoring ----------------------------------------------------------------------------------------------------

    def measure(self, queries: Sequence[str], instruction: str) -> tuple[list[str], list[reward.Score]]:
        """The model's answers by an instruction, and their scores, in the order of the queries."""
        with ThreadPoolExecutor(self.config.num_at_once) as pool:
            asked = [schema.prompt_messages(query, instruction) for query in queries]
            outputs = list(pool.map(lambda messages: self.ask(self.config.model, messages, self.config.max_new_tokens), asked))
        return outputs, [reward.score(q, text, grounding=self.grounding) for q, text in zip(queries, outputs, strict=True)]

    def ask(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        """One answer at temperature 0, from the ledger when it is there. Every try costs. Raises Leave."""
        key = key_of(model, messages)
        if (known := self.ledger.known(key)) is not None:
            return known
        for wait in (*RETRY_S, None):
            try:
                self.ledger.send(key)
                chat = [Message(one["role"], one["content"]) for one in messages]
                text = "".join(model_client.stream_chat(model, chat, temperature=0.0, seed=self.config.seed, max_new_tokens=max_tokens))
            except BudgetSpent:
                raise Leave(None) from None
            except UserError as error:
                if wait is None or error.code not in PASSING:
                    raise Leave(error) from error
                time.sleep(wait)
            else:
                self.ledger.got(key, text)
                return text
        raise AssertionError("unreachable")


def optimise(run: Run) -> None:
    """Search for a better instruction."""
    config = run.config(ExpansionPromptConfig)

    # 1. The queries: split by family already; the final measurement sees none that GEPA sees.
    with read_session() as session:
        for name in {config.model, config.reflection_model or config.model}:
            get_version(session, name)
    rng = random.Random(config.seed)
    train, val, held = (
        take(run, rng, config.data, split, num)
        for split, num in (("train", config.num_train), ("val", config.num_val), ("test", config.num_heldout))
    )
    config.minibatch = min(config.minibatch, len(train))
    config.num_val = len(val)
    reserve = 2 * len(held)
    least = len(val) + round_cost(config) + reserve
    if config.budget < least:
        raise UserError("expansion_export.budget_small", budget=config.budget, least=least)
    grounding = open_grounding(run.home, config.corpus)
    ledger = Ledger(run.checkpoints / "requests.jsonl", config.budget)
    search = Search(run, config, ledger, grounding, reserve)
    if ledger.spent:
        print(f"resumed: {ledger.spent} of {config.budget} requests were sent before", flush=True)

    # 2. The search.
    start = prompts.current(config.model)
    try:
        best, val_score = find(search, start, train, val)
        # 3. What it is worth, on queries that took no part in it.
        run.progress("measure", ledger.spent, config.budget)
        scores = final(search, start, best, held)
    except Leave as leaving:
        raise leaving.error or UserError("expansion_export.budget_spent", budget=config.budget) from leaving
    finally:
        ledger.close()
    scores |= {
        "val": val_score, "num_candidates": len(search.found), "num_train": len(train), "num_val": len(val), "data": config.data,
        "requests": ledger.spent, "requests_before": ledger.spent_before, "budget": config.budget,
        "is_grounded": search.grounding is not None,
    }  # fmt: skip
    is_better = best != start and scores["difference"] > 0
    prompt_id = prompts.keep(best, origin="search", model=config.model, scores=scores, job_id=run.job_id) if is_better else None
    run.progress("done", ledger.spent, config.budget)
    print(f"held out: {scores['before']:.3f} -> {scores['after']:.3f}, {ledger.spent} of {config.budget} requests", flush=True)
    run.result(prompt=prompt_id, instruction=best, **scores)


def round_cost(config: ExpansionPromptConfig) -> int:
    """Most requests that one round of GEPA can need: a batch before, one rewriting, the batch again, all choosing queries."""
    return 2 * config.minibatch + 1 + config.num_val


def take(run: Run, rng: random.Random, data: str, split: str, num: int) -> list[str]:
    """`num` distinct queries of a split, in a fixed random order. Raises UserError("expansion_export.too_few_queries")."""
    queries = sorted({row.query for row in rows_of(data, (split,), run.home)})
    least = 5 if split == "test" else 2
    if len(queries) < least:
        raise UserError("expansion_export.too_few_queries", data=data, split=split, found=len(queries), least=least)
    rng.shuffle(queries)
    return queries[:num]


def find(search: Search, start: str, train: list[str], val: list[str]) -> tuple[str, float]:
    """The best instruction on the choosing queries with its mean there; ties keep the earlier one."""
    import gepa

    try:
        gepa.optimize(
            seed_candidate={PART: start},
            trainset=train,
            valset=val,
            adapter=search,
            custom_candidate_proposer=search.propose,
            reflection_minibatch_size=search.config.minibatch,
            stop_callbacks=search.is_over,
            callbacks=[search],
            logger=Quiet(),
            seed=search.config.seed,
        )
    except Leave as leaving:
        if leaving.error is not None or not search.found:
            raise
    return max(search.found, key=lambda pair: pair[1])


def final(search: Search, start: str, best: str, held: list[str]) -> dict[str, Any]:
    """Means of both instructions on the held-out queries, and the paired difference with its 95 % bootstrap interval."""
    before = np.array([score.reward for score in search.measure(held, start)[1]])
    after = np.array([score.reward for score in search.measure(held, best)[1]]) if best != start else before
    low, high = bootstrap((after - before).tolist(), np.random.default_rng(search.config.seed))
    return {
        "before": float(before.mean()), "after": float(after.mean()), "difference": float((after - before).mean()),
        "low": low, "high": high, "num_heldout": len(held),
    }  # fmt: skip


def explained(score: reward.Score) -> str:
    """A score in words for the model that rewrites: the reward and every deduction with its line."""
    lines = [f"reward {score.reward:.2f} of 1 ({score.rating})"]
    for one in sorted(score.deductions, key=lambda deduction: deduction.points)[:12]:
        where = f"line {one.line}: " if one.line else ""
        lines.append(f"{one.points:+.0f} {where}{translate(f'expansion.{one.reason_key}', 'en', **{'line': one.line, **one.facts})}")
    return "\n".join(lines)


class Quiet:
    """GEPA logs every prompt; the job's log holds its own lines."""

    def log(self, message: str) -> None:
        del message


if __name__ == "__main__":
    main(optimise)
