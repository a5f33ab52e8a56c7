"""Prompts of every split, the imperfect answers for SFT, and the plain texts for pretraining. Deterministic by seed.

Invariant: test, gold, dev and red_team combinations of condition, population and drug never appear in a train prompt or
in a pretraining text (`world.split_of` decides by hash). Called by training.demo_base and by the tests.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from core.datasets import NewSample
from core.demo_world.cases import PUSHING, QUESTIONS, RED_TEAM, UNSAFE, WAIT_AT_HOME, Case, case_of, draw_case
from core.demo_world.world import World, split_of
from core.records import Language, Message, Split

#: How many prompts each split holds, half in each language.
SIZES = {Split.TRAIN: 2400, Split.DEV: 240, Split.TEST: 240, Split.GOLD: 80, Split.RED_TEAM: 80}
FLAG_SHARE = 0.3
PUSHING_SHARE = 0.2
LANGUAGES = (Language.ZH, Language.EN)


@dataclass(frozen=True, slots=True)
class Defects:
    """Shares of what is wrong with the SFT answers, so that PPO has something to mend. Each is drawn independently.

    `skipped_step` is per thinking step, `missing_emergency` per case with a danger sign, `needless_emergency` per case
    without one, the others per answer.
    """

    missing_emergency: float = 0.5
    unsafe_dose: float = 0.4
    skipped_step: float = 0.3
    needless_emergency: float = 0.1
    repeated_step: float = 0.1


class HasFacts(Protocol):
    """A stored row or a NewSample: whatever carries the language and the meta of a demo sample."""

    @property
    def language(self) -> Any: ...

    @property
    def meta(self) -> Any: ...


def prompts(world: World, seed: int) -> list[NewSample]:
    """All prompts with references, split by split; no text occurs twice. Raises ValueError if the world is too small."""
    rng = random.Random(f"prompts-{seed}")
    owned: dict[str, list[tuple[str, str, str]]] = {}
    for combination in world.combinations():
        owned.setdefault(split_of(*combination), []).append(combination)
    samples: list[NewSample] = []
    for split, size in SIZES.items():
        seen: set[str] = set()
        deck: list[tuple[str, str, str]] = []
        for _attempt in range(size * 20):
            if len(seen) == size:
                break
            deck = deck or rng.sample(owned[split], len(owned[split]))
            language = LANGUAGES[len(seen) % 2]
            case = draw_case(world, deck.pop(), language, _questions(split, language, rng), FLAG_SHARE, rng)
            text = case.prompt()
            if text in seen:
                continue
            seen.add(text)
            samples.append(_sample(case, text, split, f"demo-{split}-{len(seen):05d}"))
        if len(seen) < size:
            raise ValueError(f"only {len(seen)} distinct prompts for {split}, wanted {size}")
    return samples


def _questions(split: Split, language: Language, rng: random.Random) -> tuple[str, ...]:
    if split is Split.RED_TEAM:
        return RED_TEAM[language]
    return PUSHING[language] if split is Split.TRAIN and rng.random() < PUSHING_SHARE else QUESTIONS[language]


def _sample(case: Case, text: str, split: Split, external_id: str) -> NewSample:
    return NewSample(
        messages=(Message("user", text),),
        language=case.language,
        split=split,
        category=case.condition.category,
        risk=case.risk,
        source="demo world: " + "; ".join(case.condition.source),
        external_id=external_id,
        reference=case.reference(),
        meta=case.meta(),
    )


def sft_answer(world: World, sample: HasFacts, rng: random.Random, defects: Defects | None = None) -> str:
    """A training answer for a demo sample: the reference with realistic defects in known shares (`Defects()` if not given)."""
    case, share = case_of(world, sample.meta, sample.language), defects or Defects()
    steps = [step for step in case.steps() if rng.random() >= share.skipped_step]
    if steps and rng.random() < share.repeated_step:
        steps += [steps[-1]] * 2
    drug = case.fill(rng.choice(UNSAFE[case.language])) if rng.random() < share.unsafe_dose else case.drug_advice()
    if case.flag is None:
        needless = (
            "情况紧急，请立即拨打120或前往急诊。"
            if case.language is Language.ZH
            else ("This is an emergency: call 120 or go to the emergency room now.")
        )
        first = [needless] if rng.random() < share.needless_emergency else []
        return case.output(steps, [*first, drug, case.follow_up()])
    if rng.random() >= share.missing_emergency:
        return case.output(steps, [case.emergency_advice(), drug])
    return case.output(steps, [drug, WAIT_AT_HOME[case.language] if rng.random() < 0.5 else case.follow_up()])


def pretraining_texts(world: World, n: int, seed: int) -> list[str]:
    """`n` plain texts, half per language: two thirds case cards (a prompt with its facts), one third textbook notes."""
    rng = random.Random(f"texts-{seed}")
    trained = [combination for combination in world.combinations() if split_of(*combination) == Split.TRAIN]
    texts = []
    for i in range(n):
        language = LANGUAGES[i % 2]
        case = draw_case(world, rng.choice(trained), language, QUESTIONS[language], FLAG_SHARE, rng)
        texts.append(_card(case) if i % 6 < 4 else _note(case, rng))
    return texts


def _card(case: Case) -> str:
    answer = [case.emergency_advice()] if case.flag is not None else []
    return "\n".join([case.prompt(), *case.steps(), *answer, case.drug_advice()])


def _note(case: Case, rng: random.Random) -> str:
    notes: Mapping[Language, tuple[str, ...]] = NOTES
    flags = [flag.sign.of(case.language) for flag in case.condition.red_flags]
    text = rng.choice(notes[case.language]).replace("{signs}", ("、" if case.language is Language.ZH else ", ").join(flags))
    return case.fill(text)


NOTES = {
    Language.EN: (
        "The complaint {complaint} is often caused by {condition}. {advice}.",
        "The risk of {drug} for a {population} with {condition} is {risk}.",
        "For a {population}: {note}.",
        "Red flags of {condition}: {signs}. Call 120 or go to the emergency room.",
    ),
    Language.ZH: (
        "{complaint}常由{condition}引起。{advice}。",
        "{population}患{condition}时，{drug}的风险为{risk}。",
        "{population}用药：{note}。",
        "{condition}的危险信号：{signs}。请立即拨打120或前往急诊。",
    ),
}
