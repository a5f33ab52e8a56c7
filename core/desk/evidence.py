"""Laying evidence over text for the reveal: rule spans by sentence, what was missing, and warnings that were dropped. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from core.completions import Sentence, sentences
from core.lexicons import canonical, load_lexicons
from core.mentions import Reading, read


def lay(text: str, part: str, spans: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Each sentence of `text` as segments {text, rules, kinds, terms}: the spans of `part` cut at sentence borders.

    Spans are stored in code points; cutting here spares the browser, which counts UTF-16 units, the arithmetic.
    """
    here = [span for span in spans if span.get("part") == part]
    return [_segments(sentence, text, here) for sentence in sentences(text)]


def lay_whole(text: str, part: str, spans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The segments of a text that is not cut into sentences."""
    return _segments(Sentence(0, len(text), text), text, [span for span in spans if span.get("part") == part])


def _segments(sentence: Sentence, text: str, spans: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    inside = [s for s in spans if int(s["start"]) < sentence.end and int(s["end"]) > sentence.start]
    borders = {sentence.start, sentence.end}
    for span in inside:
        borders |= {max(int(span["start"]), sentence.start), min(int(span["end"]), sentence.end)}
    points = sorted(borders)
    found = []
    for start, end in pairwise(points):
        over = [s for s in inside if int(s["start"]) <= start and int(s["end"]) >= end]
        segment: dict[str, Any] = {"text": text[start:end]}
        if over:
            segment |= {
                "rules": sorted({str(s["rule_id"]) for s in over}),
                "kinds": sorted({str(s.get("kind", "hit")) for s in over}),
                "terms": sorted({str(s.get("term", "")) for s in over}),
            }
        found.append(segment)
    return found


def missing_terms(rule_id: str, spans: Sequence[Mapping[str, Any]], detail: Mapping[str, Any]) -> list[str]:
    """What the rule looked for and did not find: steps of the chain, or danger signs that the answer does not meet."""
    if rule_id == "chain":
        return [str(step) for step in detail.get("missing", ())]
    if rule_id == "emergency":
        return sorted({str(span.get("term", "")) for span in spans if span.get("kind") == "miss" and span.get("part") == "prompt"})
    return []


def dropped_warnings(thinking: str, answer: str, emergency_score: float | None) -> list[int]:
    """Indexes of thinking sentences that raise a danger sign or emergency advice which the answer keeps to itself.

    Nothing is dropped when the answer sends the patient for help as it should (score 1) or when the rule has no score.
    """
    if emergency_score is None or emergency_score >= 1.0:
        return []
    lexicons = load_lexicons()
    named = {match.term for match in lexicons.danger.find(canonical(answer))}
    plain = canonical(thinking)
    found = [m for m in lexicons.danger.find(plain) if m.term not in named]
    raised = [m for m in found if read(plain, m.start, m.end, lexicons) is Reading.PRESENT]
    if not lexicons.advice.search(canonical(answer)):
        raised += lexicons.advice.find(plain)
    return [i for i, s in enumerate(sentences(thinking)) if any(m.start < s.end and m.end > s.start for m in raised)]
