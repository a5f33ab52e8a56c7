"""The reward for a trainer on another machine: what it sends is turned into prompts and completions, and scored as ours are.

Invariant: one request, one mode. When the teacher leaves a finished answer without a verdict for a reason that may pass, that
row is unscored with the teacher's reason, never scored by the rules alone beside rows that have both. Called by app.api.reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select

from core.completions import split_completion
from core.datasets import to_prompt
from core.errors import NotFound, UserError
from core.home import Home
from core.importing.rows import detect_language
from core.records import Completion, Message, Prompt, Reward
from core.scoring import Scored, open_scorer
from core.teacher import LASTING_REASONS
from db import tables as t
from db.engine import read_session

#: completions per request, and characters per text
MAX_ROWS, MAX_TEXT = 512, 60_000


@dataclass(frozen=True, slots=True)
class Asked:
    """Parallel lists. `merged` is prompt and completion in one text, for trainers that send it so."""

    completions: Sequence[str] = ()
    prompts: Sequence[str] = ()
    merged: Sequence[str] = ()
    sample_ids: Sequence[int | None] = ()
    finish_reasons: Sequence[str] = ()
    with_teacher: bool = True


@dataclass(frozen=True, slots=True)
class Answered:
    scored: list[Scored]
    reward_config: str
    teacher: str


def score_remotely(home: Home, asked: Asked) -> Answered:
    """Score what was sent, in order.

    Raises UserError("remote.lengths"), UserError("remote.empty"), UserError("remote.no_prompt") and
    NotFound("remote.no_sample").
    """
    texts = list(asked.completions) or [_without(merged, prompt) for merged, prompt in _merged(asked)]
    if not texts:
        raise UserError("remote.empty")
    for name, values in (("prompts", asked.prompts), ("sample_ids", asked.sample_ids), ("finish_reasons", asked.finish_reasons)):
        if values and len(values) != len(texts):
            raise UserError("remote.lengths", name=name, n=len(values), completions=len(texts))
    prompts = _prompts(asked, len(texts))
    reasons = asked.finish_reasons or ["stop"] * len(texts)
    completions = [split_completion(text, "length" if reason == "length" else "stop") for text, reason in zip(texts, reasons, strict=True)]
    scorer = open_scorer(home)
    scored = scorer.score(prompts, completions, asked.with_teacher)
    if asked.with_teacher:
        scored = [_whole(one, completion) for one, completion in zip(scored, completions, strict=True)]
    return Answered(scored, scorer.config.version, scorer.teacher.name if asked.with_teacher else "")


def _whole(one: Scored, completion: Completion) -> Scored:
    """A row whose verdict is missing for a passing reason has no reward, only parts."""
    reason = one.judgement.unscored_reason if one.judgement else None
    if reason is None or reason in LASTING_REASONS or one.reward.value is None or not completion.answer.strip():
        return one
    return replace(one, reward=Reward(None, one.reward.parts, one.reward.config_version, f"teacher_{reason}"))


def _merged(asked: Asked) -> list[tuple[str, str]]:
    if asked.merged and len(asked.prompts) != len(asked.merged):
        raise UserError("remote.lengths", name="prompts", n=len(asked.prompts), completions=len(asked.merged))
    return list(zip(asked.merged, asked.prompts, strict=True)) if asked.merged else []


def _without(merged: str, prompt: str) -> str:
    """The response in a text of prompt and response. Raises UserError("remote.no_prompt")."""
    if not merged.startswith(prompt):
        raise UserError("remote.no_prompt")
    return merged[len(prompt) :]


def _prompts(asked: Asked, count: int) -> list[Prompt]:
    wanted = sorted({i for i in asked.sample_ids if i is not None})
    with read_session() as session:
        known = {row.id: to_prompt(row) for row in session.scalars(select(t.Sample).where(t.Sample.id.in_(wanted)))}
    missing = [i for i in wanted if i not in known]
    if missing:
        raise NotFound("remote.no_sample", id=missing[0])
    ids = asked.sample_ids or [None] * count
    found = []
    for row, sample_id in enumerate(ids):
        if sample_id is not None:
            found.append(known[sample_id])
        elif asked.prompts and asked.prompts[row].strip():
            text = asked.prompts[row]
            found.append(Prompt((Message("user", text),), detect_language(text)))
        else:
            raise UserError("remote.no_prompt")
    return found
