"""The demo world as records: conditions, populations and drugs, read from assets/demo/world/*.toml.

Written by us from public sources, bilingual, and NOT medical advice: it feeds a toy model. Invariant: every id that one
entry names exists; a world that breaks this does not load. Called by the other modules of this package and by the tests.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from core.records import Language

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
#: The guideline documents that the demo index is built from.
GUIDELINES = DEMO / "guidelines"
#: In a condition's risks: the combination is risky for every population.
ANY = "any"
T = TypeVar("T", bound="Condition | Population | Drug")


@dataclass(frozen=True, slots=True)
class Words:
    """One thing said in both languages."""

    en: str
    zh: str

    def of(self, language: str) -> str:
        return self.zh if language == Language.ZH else self.en


class Verdict(StrEnum):
    """What the world says about a drug for a condition and a population."""

    AVOID = "avoid"
    #: only after a professional has checked
    CARE = "care"
    #: helps at once, as prescribed or labelled, and does not replace a doctor
    FIRST_AID = "first_aid"


@dataclass(frozen=True, slots=True)
class Population:
    id: str
    name: Words
    #: the short thing to think of, as in step 2 of a reference's thinking
    note: Words
    caution: Words
    source: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drug:
    id: str
    name: Words
    risk: Words
    #: population id -> why this drug is avoided there
    avoid: Mapping[str, Words]
    never: Words
    source: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RedFlag:
    """A danger sign; `action` is what to do while help is on its way."""

    sign: Words
    meaning: Words
    action: Words


@dataclass(frozen=True, slots=True)
class DrugRisk:
    """A risky combination in one condition. `population` is an id or `ANY`."""

    drug: str
    population: str
    risk: Words
    why: Words
    instead: Words


@dataclass(frozen=True, slots=True)
class Condition:
    id: str
    category: str
    name: Words
    complaint: Words
    symptoms: tuple[Words, ...]
    course: str
    #: never asked about without a danger sign, because the condition itself is an emergency
    always_urgent: bool
    populations: tuple[str, ...]
    red_flags: tuple[RedFlag, ...]
    drugs: tuple[str, ...]
    first_aid: tuple[str, ...]
    risks: tuple[DrugRisk, ...]
    advice: Words
    source: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    conditions: Mapping[str, Condition]
    populations: Mapping[str, Population]
    drugs: Mapping[str, Drug]
    courses: Mapping[str, tuple[Words, ...]]
    categories: Mapping[str, Words]
    #: conditions and drugs that only the documents speak of, never a prompt or a training text
    documents_only: frozenset[str]

    def drug_risk(self, condition: str, population: str, drug: str) -> tuple[Words, Verdict]:
        """The short risk of `drug` here and the verdict; a named population goes before the drug's own list, that before `ANY`."""
        found = self.conditions[condition]
        here = {risk.population: risk.risk for risk in found.risks if risk.drug == drug}
        avoid = here.get(population) or self.drugs[drug].avoid.get(population) or here.get(ANY)
        if avoid:
            return avoid, Verdict.AVOID
        return self.drugs[drug].risk, Verdict.FIRST_AID if drug in found.first_aid else Verdict.CARE

    def combinations(self) -> list[tuple[str, str, str]]:
        """Every (condition, population, drug) that may be asked about, in a fixed order."""
        asked = [c for c in self.conditions.values() if c.id not in self.documents_only]
        return [(c.id, p, d) for c in asked for p in c.populations for d in c.drugs if d not in self.documents_only]


def split_of(condition: str, population: str, drug: str) -> str:
    """Which split owns a combination, by hash: no combination is in two splits, so held-out ones are never trained on."""
    bucket = hashlib.sha256(f"{condition}|{population}|{drug}".encode()).digest()[0] % 16
    return {0: "test", 1: "test", 2: "gold", 3: "dev", 4: "red_team"}.get(bucket, "train")


@lru_cache(maxsize=1)
def load_world() -> World:
    """Read the world. Raises ValueError naming the entry when an id is unknown or doubled or a pair is not [en, zh]."""
    raw: dict[str, Any] = {
        "populations": [],
        "drugs": [],
        "conditions": [],
        "courses": {},
        "actions": {},
        "categories": {},
        "documents_only": [],
    }
    for path in sorted((DEMO / "world").glob("*.toml")):
        for key, value in tomllib.loads(path.read_text("utf-8")).items():
            if isinstance(value, list):
                raw[key].extend(value)
            else:
                raw[key].update(value)
    actions = {key: _words(pair, key) for key, pair in raw["actions"].items()}
    world = World(
        conditions=_by_id([_condition(entry, actions) for entry in raw["conditions"]]),
        populations=_by_id([_population(entry) for entry in raw["populations"]]),
        drugs=_by_id([_drug(entry) for entry in raw["drugs"]]),
        courses={key: tuple(_words(pair, key) for pair in pairs) for key, pairs in raw["courses"].items()},
        categories={key: _words(pair, key) for key, pair in raw["categories"].items()},
        documents_only=frozenset(raw["documents_only"]),
    )
    _check(world)
    return world


def _words(pair: Sequence[str], where: str) -> Words:
    if len(pair) != 2 or not all(isinstance(text, str) and text == text.strip() and text for text in pair):
        raise ValueError(f"{where}: {pair!r} is not an [English, Chinese] pair")
    return Words(pair[0], pair[1])


def _population(entry: Mapping[str, Any]) -> Population:
    name, note, caution = (_words(entry[key], entry["id"]) for key in ("name", "note", "caution"))
    return Population(entry["id"], name, note, caution, tuple(entry["source"]))


def _drug(entry: Mapping[str, Any]) -> Drug:
    avoid = {item["population"]: _words(item["risk"], entry["id"]) for item in entry["avoid"]}
    name, risk, never = (_words(entry[key], entry["id"]) for key in ("name", "risk", "never"))
    return Drug(entry["id"], name, risk, avoid, never, tuple(entry["source"]))


def _condition(entry: Mapping[str, Any], actions: Mapping[str, Words]) -> Condition:
    where = str(entry["id"])
    unknown = [flag["action"] for flag in entry["red_flags"] if flag["action"] not in actions]
    if unknown:
        raise ValueError(f"{where}: unknown actions {unknown}")
    return Condition(
        id=where,
        category=entry["category"],
        name=_words(entry["name"], where),
        complaint=_words(entry["complaint"], where),
        symptoms=tuple(_words(pair, where) for pair in entry["symptoms"]),
        course=entry["course"],
        always_urgent=entry.get("always_urgent", False),
        populations=tuple(entry["populations"]),
        red_flags=tuple(
            RedFlag(_words(flag["sign"], where), _words(flag["meaning"], where), actions[flag["action"]]) for flag in entry["red_flags"]
        ),
        drugs=tuple(entry["drugs"]),
        first_aid=tuple(entry.get("first_aid", ())),
        risks=tuple(
            DrugRisk(risk["drug"], risk["population"], *(_words(risk[key], where) for key in ("risk", "why", "instead")))
            for risk in entry["risks"]
        ),
        advice=_words(entry["advice"], where),
        source=tuple(entry["source"]),
    )


def _by_id(items: Sequence[T]) -> dict[str, T]:
    found = {item.id: item for item in items}
    if len(found) != len(items):
        raise ValueError(f"doubled ids among {[item.id for item in items]}")
    return found


def _check(world: World) -> None:
    for condition in world.conditions.values():
        named = {risk.population for risk in condition.risks} - {ANY}
        unknown = (
            (set(condition.populations) | named) - set(world.populations)
            | (set(condition.drugs) | {risk.drug for risk in condition.risks}) - set(world.drugs)
            | {condition.course} - set(world.courses)
            | {condition.category} - set(world.categories)
        )
        if unknown:
            raise ValueError(f"{condition.id}: unknown ids {sorted(unknown)}")
        unasked = ({risk.drug for risk in condition.risks} | set(condition.first_aid)) - set(condition.drugs) | named - set(
            condition.populations
        )
        if unasked:
            raise ValueError(f"{condition.id}: risks for what is never asked about: {sorted(unasked)}")
    if strangers := world.documents_only - set(world.conditions) - set(world.drugs):
        raise ValueError(f"documents_only: unknown ids {sorted(strangers)}")
    for drug in world.drugs.values():
        if set(drug.avoid) - set(world.populations):
            raise ValueError(f"{drug.id}: avoided for unknown populations {sorted(drug.avoid)}")
