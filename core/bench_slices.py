"""The groups a question belongs to: topic, danger sign, pregnancy, child, drug, language, risk. Pure.

Said by the sample's own facts where the importer or the demo world gave some (`population`, `drug`), else read from the question by the
same lexicons that the rules use, so that a slice and a rule never mean different things by "pregnant". Called by the bench's
ranking and by its batch runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.lexicons import Lexicons, canonical
from core.mentions import Reading, read
from core.records import Prompt
from core.rules import danger_signs

#: below this many rows a slice says "too few" instead of a number
MIN_SLICE = 30
#: order of the groups on screen and in reports
KINDS = ("emergency", "pregnancy", "child", "drug", "topic", "language", "risk")
PREGNANT, YOUNG = frozenset({"pregnant", "pregnancy"}), frozenset({"child", "infant", "newborn"})

Group = tuple[str, str]


def groups_of(prompt: Prompt, meta: Mapping[str, Any], lexicons: Lexicons) -> tuple[Group, ...]:
    """(kind, value) of every group of the question, in the order of `KINDS`. Pregnancy, child and drug are groups only when they hold."""
    text = canonical(prompt.text)
    population = str(meta.get("population") or "").casefold()
    named = {m.term for m in lexicons.populations.find(text) if read(text, m.start, m.end, lexicons) is not Reading.DENIED}
    found: list[Group] = [("emergency", "yes" if danger_signs(prompt, lexicons).any else "no")]
    if population in PREGNANT or "pregnancy" in named or prompt.category == "pregnancy":
        found.append(("pregnancy", "yes"))
    if population in YOUNG or "child" in named or prompt.category == "child":
        found.append(("child", "yes"))
    if meta.get("drug") or lexicons.drugs.find(text) or prompt.category == "drug":
        found.append(("drug", "yes"))
    return (*found, ("topic", prompt.category), ("language", prompt.language.value), ("risk", prompt.risk.value))


def members(groups: Sequence[Iterable[Group]]) -> dict[Group, list[int]]:
    """Rows of every group, in the order of `KINDS`, then by value. Kinds that put every row into one group are left out."""
    found: dict[Group, list[int]] = {}
    for i, of_row in enumerate(groups):
        for group in of_row:
            found.setdefault(group, []).append(i)
    ordered = sorted(found, key=lambda g: (KINDS.index(g[0]), g[1]))
    return {group: found[group] for group in ordered if len(found[group]) < len(groups)}
