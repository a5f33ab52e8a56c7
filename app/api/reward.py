"""POST /api/reward: THE reward over HTTP, for trainers that run elsewhere. Engineers and administrators only.

The body holds completions and, for each, its prompt: a stored sample's id (then reference, key points and risk are known, as in
our own trainings), or the prompt's text. The field names of OpenRLHF's remote reward are understood too (`query`: prompt and
response in one text, `prompts`, `labels`: sample ids), so its `--reward.remote_url` can point here through the ten lines in
docs/scaling_training.md. Unscored is null with a reason, never zero; `scores` repeats the rewards with null replaced by
`unscored_as` when that is asked for, for trainers that know no null.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from app.api.access import allowed
from core.accounts import Person
from core.home import current_home
from core.remote_reward import MAX_ROWS, MAX_TEXT, Asked, score_remotely

router = APIRouter(tags=["reward"])
Engineer = Annotated[Person, Depends(allowed("engineer"))]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Rows: Any = Field(default_factory=list, max_length=MAX_ROWS)


class RewardIn(BaseModel):
    """`completions`, or `query` with `prompts`: then a prompt's text at the beginning of its query is cut off.

    `sample_ids` (or `labels`, as OpenRLHF sends them) name stored prompts; without them `prompts` (or `queries`) is text.
    `finish_reasons` are stop or length; left out, every completion counts as finished.
    """

    completions: list[Text] = Rows
    prompts: list[Text] = Rows
    queries: list[Text] = Rows
    query: list[Text] = Rows
    sample_ids: list[int | None] = Rows
    labels: list[str | int | None] = Rows
    finish_reasons: list[str] = Rows
    with_teacher: bool = True
    unscored_as: float | None = Field(default=None, ge=-10, le=10)


class RewardOut(BaseModel):
    """One entry per completion, in order. `mode` is teacher or rules_only; `num_unscored` counts the nulls in `rewards`."""

    rewards: list[float | None]
    scores: list[float | None]
    parts: list[dict[str, float | None]]
    unscored_reasons: list[str | None]
    reward_config: str
    teacher: str
    num_unscored: int
    mode: str


@router.post("/reward")
def post_reward(asked: RewardIn, _caller: Engineer) -> RewardOut:
    """Score completions with the reward config in force. Nothing is stored but the teacher's verdicts in its cache."""
    found = score_remotely(
        current_home(),
        Asked(
            completions=asked.completions,
            prompts=asked.prompts or asked.queries,
            merged=asked.query,
            sample_ids=[_id_of(value) for value in asked.labels] if asked.labels and not asked.sample_ids else asked.sample_ids,
            finish_reasons=asked.finish_reasons,
            with_teacher=asked.with_teacher,
        ),
    )
    values: list[float | None] = [one.reward.value for one in found.scored]
    return RewardOut(
        rewards=values,
        scores=[asked.unscored_as if value is None else value for value in values],
        parts=[one.reward.parts for one in found.scored],
        unscored_reasons=[_reason(one) for one in found.scored],
        reward_config=found.reward_config,
        teacher=found.teacher,
        num_unscored=sum(value is None for value in values),
        mode="teacher" if asked.with_teacher else "rules_only",
    )


def _id_of(value: str | int | None) -> int | None:
    """OpenRLHF passes labels on as text."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else None


def _reason(one: Any) -> str | None:
    reason: str | None = one.reward.unscored_reason
    return reason
