"""Every text of an imported row, looked through for what identifies a person; and a row as the quarantine keeps it.

`texts` and `with_texts` are each other's inverse, so that nothing of a row is looked at without being replaceable, and nothing
is stored that was not looked at. Pure. Called by the importer, its preview and `core.quarantine`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.completions import split_completion
from core.deidentify import Finding, Surrogates, find_all, fingerprint, mask
from core.importing.rows import Item
from core.records import Judgement, Language, Message, Risk, Split

#: longest masked preview, in characters
PREVIEW = 400
#: notes of ours among a row's facts, which hold no words of the row
OWN = frozenset({"cleared", "deidentified"})


def texts(item: Item) -> list[str]:
    """Every string of the row that is stored, in one order."""
    found: list[str] = [m.content for m in item.messages]
    found += [item.category, item.source, item.external_id or "", item.reference or ""]
    found += [c.text for c in item.completions]
    found += list(item.pair or ())
    if item.judgement is not None:
        found += [item.judgement.teacher, item.judgement.critique, item.judgement.suggested_answer or ""]
    for value in (v for k, v in item.meta.items() if k not in OWN):
        found += value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return found


def with_texts(item: Item, new: Sequence[str]) -> Item:
    """The same row with other strings, given in the order of `texts`."""
    left = iter(new)
    messages = tuple(Message(m.role, next(left)) for m in item.messages)
    category, source, external_id, reference = (next(left) for _ in range(4))
    completions = [split_completion(next(left)) for _ in item.completions]
    pair = (next(left), next(left)) if item.pair else None
    judgement = item.judgement
    if judgement is not None:
        teacher, critique, suggested = (next(left) for _ in range(3))
        judgement = replace(judgement, teacher=teacher, critique=critique, suggested_answer=suggested or None)
    meta: dict[str, Any] = {}
    for key, value in item.meta.items():
        if key in OWN:
            meta[key] = value
            continue
        meta[key] = [next(left) for _ in value] if isinstance(value, list) else next(left) if isinstance(value, str) else value
    return replace(
        item,
        messages=messages,
        category=category,
        source=source,
        external_id=external_id or None,
        reference=reference or None,
        completions=completions,
        pair=pair,
        judgement=judgement,
        meta=meta,
    )


def look(item: Item, *, id_column: str = "") -> tuple[list[str], list[list[Finding]]]:
    """The row's texts and what was found in each. `id_column` names the column that the row's id came from: an id under
    住院号 or "MRN" is a record number, under "id" it is just a number."""
    said = texts(item)
    place = len(item.messages) + 2
    lead = f"{id_column}: " if id_column and said[place] else ""
    found = find_all([lead + text if i == place else text for i, text in enumerate(said)])
    if lead:
        shifted = (Finding(max(0, f.start - len(lead)), f.end - len(lead), f.kind) for f in found[place])
        found[place] = [f for f in shifted if f.end > f.start]
    return said, found


def kinds_of(found: Sequence[Sequence[Finding]]) -> dict[str, int]:
    """How many findings of each kind."""
    return dict(Counter(one.kind for hits in found for one in hits))


def masked(item: Item, found: Sequence[Sequence[Finding]]) -> Item:
    """The row as a person may see it before a decision."""
    return with_texts(item, [mask(text, hits) for text, hits in zip(texts(item), found, strict=True)])


def preview_of(said: Sequence[str], found: Sequence[Sequence[Finding]]) -> str:
    """The texts with a hit, masked and shortened around their first one."""
    shown = []
    for text, hits in zip(said, found, strict=True):
        if hits:
            start = max(0, hits[0].start - 60)
            kept = [Finding(h.start - start, h.end - start, h.kind) for h in hits]
            shown.append(("…" if start else "") + mask(text[start:], kept))
    whole = " ‖ ".join(shown)
    return whole if len(whole) <= PREVIEW else whole[:PREVIEW].rsplit("[", 1)[0] + "…"


def with_surrogates(item: Item, surrogates: Surrogates, *, id_column: str = "") -> Item:
    """The row with surrogates for all that was found, and the fingerprints of those that still look like identifiers in
    `meta["cleared"]`, so that no door takes them for real ones."""
    said, found = look(item, id_column=id_column)
    new = with_texts(item, [surrogates.apply(text, hits) for text, hits in zip(said, found, strict=True)])
    new.meta["deidentified"] = kinds_of(found)
    return cleared(new, id_column=id_column)


def cleared(item: Item, *, id_column: str = "") -> Item:
    """The row with all that looks like an identifier in it marked as free to leave."""
    said, found = look(item, id_column=id_column)
    marks = {fingerprint(one.kind, text[one.start : one.end]) for text, hits in zip(said, found, strict=True) for one in hits}
    return replace(item, meta={**item.meta, "cleared": sorted(marks)}) if marks else item


def clean_params(params: dict[str, Any]) -> dict[str, Any]:
    """What a refusal says about a row, without what identifies: the refused value is shown on a page and kept in a file.

    A value that stands alone has no context, so it is read as if it followed "name:"; with any hit none of it is shown.
    """

    def safe(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        lead = "姓名：" if any("\u3400" <= c <= "\u9fff" for c in value) else "Name: " if " " in value.strip() else ""
        kinds = kinds_of(find_all([value, lead + value]))
        return " ".join(f"[{kind}]" for kind in kinds) if kinds else value

    return {key: safe(value) for key, value in params.items()}


def to_payload(item: Item) -> dict[str, Any]:
    """The row as JSON."""
    judgement = item.judgement
    return {
        "row": item.row,
        "line": item.line,
        "messages": [[m.role, m.content] for m in item.messages],
        "language": item.language.value,
        "risk": item.risk.value if item.risk else None,
        "split": item.split.value if item.split else None,
        "category": item.category,
        "source": item.source,
        "external_id": item.external_id,
        "reference": item.reference,
        "meta": item.meta,
        "completions": [c.text for c in item.completions],
        "pair": list(item.pair) if item.pair else None,
        "is_conflict": item.is_conflict,
        "judgement": judgement
        and {
            "teacher": judgement.teacher,
            "rubric_version": judgement.rubric_version,
            "teacher_score": judgement.teacher_score,
            "safety_flag": judgement.safety_flag,
            "critique": judgement.critique,
            "suggested_answer": judgement.suggested_answer,
        },
    }


def from_payload(payload: dict[str, Any]) -> Item:
    """The row again."""
    return Item(
        row=payload["row"],
        line=payload["line"],
        messages=tuple(Message(role, content) for role, content in payload["messages"]),
        language=Language(payload["language"]),
        risk=Risk(payload["risk"]) if payload["risk"] else None,
        split=Split(payload["split"]) if payload["split"] else None,
        category=payload["category"],
        source=payload["source"],
        external_id=payload["external_id"],
        reference=payload["reference"],
        meta=dict(payload["meta"]),
        completions=[split_completion(text) for text in payload["completions"]],
        pair=(payload["pair"][0], payload["pair"][1]) if payload["pair"] else None,
        judgement=Judgement(**payload["judgement"]) if payload["judgement"] else None,
        is_conflict=payload["is_conflict"],
    )
