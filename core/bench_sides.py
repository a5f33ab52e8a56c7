"""Who takes part in a comparison, who stands left, and what a side is asked: a version, with or without passages before the question.

A contestant is a version together with whether it was given evidence, so that one version may stand against itself. Placing is a
coin that leans against the side that stood left more often: never certain, so nobody can foresee it from the last reveals, and
balanced for every person. Called by `core.preference`, `core.standings` and the batch job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import UserError
from core.evidence import Passage, passages
from core.i18n import translate
from core.records import Message, Prompt

#: passages that stand before a question
TOP_K = 4
#: how much one more pair on the left lowers a side's chance of standing there again, and the least chance it keeps
PULL, LEAST = 0.03, 0.1


@dataclass(frozen=True, slots=True, order=True)
class Contestant:
    """A side as votes count it. Ordered by version id, without evidence first."""

    version_id: int
    with_evidence: bool = False


def chance_of_left(num_left: int, num_right: int) -> float:
    """The chance that a contestant stands left next, after it stood left and right so often against this opponent.

    An adaptive biased coin (after L. J. Wei, JASA 73, 1978, 559): one half at balance, and never 0 or 1.
    """
    return min(1 - LEAST, max(LEAST, 0.5 - PULL * (num_left - num_right)))


def find_evidence(prompt: Prompt) -> list[dict[str, Any]]:
    """The passages for a question as plain data, best first. Raises what `core.evidence.passages` raises, such as no index yet."""
    return [as_data(p) for p in passages(prompt.text, language=prompt.language, top_k=TOP_K)]


def as_data(passage: Passage) -> dict[str, Any]:
    """What is stored of a passage: enough to prove what was put before the question."""
    return asdict(passage) | {"doors": list(passage.doors)}


def chats_of(prompt: Prompt, evidence: Sequence[dict[str, Any]] | None) -> tuple[tuple[Message, ...], ...]:
    """The chats to try, one after the other, when a model has no room: all passages, half of them, and so on down to one. Without
    evidence only the prompt. `num_passages` tells how many stood in the one that fitted."""
    if not evidence:
        return (prompt.messages,)
    sizes = []
    size = len(evidence)
    while size:
        sizes.append(size)
        size //= 2
    return tuple(messages_with(prompt, evidence[:size]) for size in sizes)


def num_passages(evidence: Sequence[Any] | None, attempt: int) -> int:
    """How many passages stood in chat number `attempt` of `chats_of`."""
    return len(evidence or ()) >> attempt


def messages_with(prompt: Prompt, evidence: Sequence[dict[str, Any]] | None) -> tuple[Message, ...]:
    """The chat to send: the prompt itself without evidence (None), else with numbered passages before its last question.

    The passages stand in the person's turn, not in a system turn: small models were never trained on one. With evidence asked for
    and nothing found (an empty list) the question goes as it is.
    """
    if not evidence:
        return prompt.messages
    language = prompt.language.value
    listed = "\n\n".join(f"[{n}] {one['title']} {one['section']}".rstrip() + f"\n{one['text']}" for n, one in enumerate(evidence, 1))
    instruction, question = translate("bench.evidence_instruction", language), translate("bench.evidence_question", language)
    last = prompt.messages[-1]
    if last.role != "user":
        raise UserError("bench.no_such_question")
    return (*prompt.messages[:-1], Message("user", f"{instruction}\n\n{listed}\n\n{question}\n{last.content}"))
