"""What a set holds: balance by kind of line, length, language, intent, names, duplicates, families, and how the rubric rates it. Pure.

Called by the CLI, the data page and the card that is stored with a set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.expansion import families, intents, reward, shape, terms
from core.expansion.schema import KINDS, Row, language_of


def analyse(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts and shares as JSON; `warnings` are codes of sentences in the catalogue with their facts."""
    scores = [reward.score(row.query, row.output) for row in rows]
    groups = families.families(rows)
    _, doubles = shape.dedupe(rows)
    lines = [line for row in rows for line in row.lines]
    found: dict[str, Any] = {
        "rows": len(rows),
        "lines": {kind: sum(line.kind == kind for line in lines) for kind in KINDS},
        "rows_without": {kind: sum(not any(line.kind == kind for line in row.lines) for row in rows) for kind in KINDS},
        "languages": dict(Counter(row.language or language_of(row.query) for row in rows)),
        "lengths": dict(Counter(families.length_class(row.query) for row in rows)),
        "intents": dict(
            Counter(str(row.extra.get("category") or intents.asked(row.query).intent or "other") for row in rows).most_common()
        ),
        "with_names": sum(bool(terms.entities(row.query)) for row in rows),
        "families": len(set(groups)),
        "near_duplicates": len(doubles),
        "ratings": {name: sum(score.rating == name for score in scores) for _, name in reward.RATINGS},
        "mean_rubric": sum(score.rubric for score in scores) / len(scores) if scores else None,
        "widths": {kind: _quartiles([terms.width(line.text) for line in lines if line.kind == kind]) for kind in KINDS},
        "deductions": dict(Counter(d.reason_key for score in scores for d in score.deductions).most_common(12)),
        "sources": dict(Counter(row.source or "" for row in rows).most_common(12)),
    }
    found["warnings"] = list(_warnings(found))
    return found


def _quartiles(values: Sequence[int]) -> list[float]:
    return [float(value) for value in np.percentile(values, (25, 50, 75))] if values else []


def _warnings(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What a trainer should know before training on it."""
    size = max(1, found["rows"])
    said: list[tuple[str, dict[str, Any]]] = []
    for kind in ("lex", "vec"):
        if found["rows_without"][kind]:
            said.append(("warn_without", {"kind": kind, "num": found["rows_without"][kind]}))
    if found["near_duplicates"] / size > 0.05:
        said.append(("warn_duplicates", {"num": found["near_duplicates"]}))
    poor = sum(found["ratings"][name] for name in ("acceptable", "poor", "failed"))
    if poor / size > 0.1:
        said.append(("warn_poor", {"num": poor}))
    if len(found["languages"]) > 1 and min(found["languages"].values()) / size < 0.1:
        said.append(("warn_language", {"language": min(found["languages"], key=found["languages"].get)}))
    if found["lengths"].get("short", 0) / size < 0.05:
        said.append(("warn_short", {}))
    return said
