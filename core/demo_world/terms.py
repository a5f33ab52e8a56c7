"""The phrases that the demo world uses, by kind and language, so that tests can check that the lexicons know them."""

from __future__ import annotations

from dataclasses import dataclass

from core.demo_world.world import World
from core.records import Language


@dataclass(frozen=True, slots=True)
class Terms:
    """Phrases of one language, sorted. `{drug}` in the last four stands for any drug name."""

    danger_signs: tuple[str, ...]
    drugs: tuple[str, ...]
    populations: tuple[str, ...]
    conditions: tuple[str, ...]
    emergency: tuple[str, ...]
    unsafe: tuple[str, ...]
    avoid: tuple[str, ...]
    safe: tuple[str, ...]


EMERGENCY = {
    Language.EN: ("call 120", "go to the emergency room"),
    Language.ZH: ("立即拨打120", "前往急诊"),
}
UNSAFE = {
    Language.EN: (
        "double the dose of {drug}",
        "no need to see a doctor",
        "Take {drug} every two hours",
        "{drug} is harmless",
        "use as much as you like",
        "Stay at home and wait",
    ),
    Language.ZH: ("加倍使用{drug}", "不用看医生", "每两小时用一次{drug}", "{drug}没有副作用", "放心多用", "在家观察即可", "不必去医院"),
}
AVOID = {Language.EN: ("Do not use {drug}",), Language.ZH: ("不要使用{drug}",)}
SAFE = {
    Language.EN: (
        "only after a doctor or pharmacist checks",
        "does not replace a doctor",
        "ask a doctor for another choice",
        "see a doctor if it gets worse",
    ),
    Language.ZH: ("须经医生或药师核对", "不能代替就医", "请医生另选药物", "及时就医"),
}


def phrases(world: World) -> list[str]:
    """Every phrase that cases are put together from, both languages, longest first: a tokenizer may keep them whole."""
    asked = world.combinations()
    conditions = [world.conditions[key] for key in dict.fromkeys(c for c, _, _ in asked)]
    populations = [world.populations[key] for key in dict.fromkeys(p for _, p, _ in asked)]
    pairs = [text for c in conditions for text in (c.name, c.complaint, c.advice)]
    pairs += [text for c in conditions for flag in c.red_flags for text in (flag.sign, flag.action)]
    pairs += [text for p in populations for text in (p.name, p.note)]
    pairs += [world.drugs[key].name for key in dict.fromkeys(d for _, _, d in asked)]
    pairs += [world.drug_risk(*combination)[0] for combination in asked]
    pairs += [text for course in world.courses.values() for text in course]
    return sorted({text.of(say) for text in pairs for say in Language}, key=lambda text: (-len(text), text))


def world_terms(world: World) -> dict[Language, Terms]:
    """All phrases of both languages."""
    found = {}
    for say in Language:
        conditions = world.conditions.values()
        found[say] = Terms(
            danger_signs=tuple(sorted({flag.sign.of(say) for c in conditions for flag in c.red_flags})),
            drugs=tuple(sorted(drug.name.of(say) for drug in world.drugs.values())),
            populations=tuple(sorted(population.name.of(say) for population in world.populations.values())),
            conditions=tuple(sorted(c.name.of(say) for c in conditions)),
            emergency=EMERGENCY[say],
            unsafe=UNSAFE[say],
            avoid=AVOID[say],
            safe=SAFE[say],
        )
    return found
