"""Why a judged question was not answered by the first passages: one category with its reason, from the texts and the legs. Pure.

A question fails when no relevant document is among the first `GOOD_RANK`. The rules are tried in a fixed order, from what needs no
interpretation (the document is not there; a leg found it and the order lost it) to what does; the reason carries the numbers that
decided, so that a person can disagree: corrections are kept beside the automatic category, never over it (core.retrieval_reports).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from core.retrieval.tokens import CJK, normalise, query_tokens, tokenise

Category = Literal["terminology_mismatch", "language_mixing", "context_dependency", "legal_nuance", "ranking_issue", "document_coverage"]
CATEGORIES: tuple[Category, ...] = (
    "terminology_mismatch", "language_mixing", "context_dependency", "legal_nuance", "ranking_issue", "document_coverage",
)  # fmt: skip
GOOD_RANK = 5
#: less of the question's informative words than this in the right document: it is worded otherwise
SHARED = 0.35
#: a question of one language inside the other: so many words of each
MIN_WORDS = 1
#: fewer informative tokens carry no subject of their own
MIN_SUBJECT = 2
LATIN_WORD = re.compile(r"[a-z]{2,}")
CJK_RUN = re.compile(f"[{CJK}]")
#: words that lean on something said before
POINTING = re.compile(
    r"\b(it|this|that|these|those|they|them|he|she|him|her|same|above|previous)\b|这个|那个|这种|那种|该药|上述|刚才|之前说|它|他|她"
)
#: words on which the answer hangs in rules and entitlements
LEGAL = re.compile(
    r"\b(law|legal|legally|eligib\w+|entitle\w+|exempt\w*|exception|must|required|obligation|penalt\w+|liab\w+|unless|deadline|cap|tax)\b"
    r"|法律|法规|规定|条例|合法|违法|资格|豁免|例外|必须|义务|罚款|责任|期限|上限|税"
)

Weight = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Failure:
    """`reason` names a sentence in assets/i18n/retrieval.toml (why_...); `rank` is the best place of a relevant document, None if none."""

    category: Category
    reason: str
    rank: int | None
    params: Mapping[str, Any] = field(default_factory=dict)


def is_failure(ranking: Sequence[str], relevant: set[str]) -> bool:
    """No relevant document among the first GOOD_RANK."""
    return not relevant & set(ranking[:GOOD_RANK])


def classify(
    query: str, relevant: Mapping[str, str], ranking: Sequence[str], legs: Mapping[str, Sequence[str]], first: str, weight: Weight
) -> Failure:
    """The category of a failed question.

    `relevant`: relevant document -> its text, for those that are in the index (empty: none is). `ranking`: final documents, `legs`: those
    of every leg, to its full depth. `first`: text of the document ranked first. `weight`: how much finding a token says (IDF).
    """
    rank = next((place for place, d in enumerate(ranking, start=1) if d in relevant), None)
    if not relevant:
        return Failure("document_coverage", "not_indexed", None)
    subject = [t for t in dict.fromkeys(query_tokens(query)) if weight(t) > 0]
    shared, missing = max((_shared(subject, text, weight) for text in relevant.values()), key=lambda pair: pair[0])
    if _is_mixed(query):
        return Failure("language_mixing", "both_scripts", rank, {"shared": shared})
    if (has_cjk := bool(CJK_RUN.search(query))) != any(CJK_RUN.search(text) for text in relevant.values()):
        return Failure("language_mixing", "other_language", rank, {"query": "zh" if has_cjk else "en"})
    if LEGAL.search(normalise(query)) and first and _shared(subject, first, weight)[0] >= shared > SHARED:
        return Failure("legal_nuance", "same_words_other_rule", rank, {"shared": shared})
    found = {name: next((p for p, d in enumerate(docs, start=1) if d in relevant), None) for name, docs in legs.items()}
    best = min(((place, name) for name, place in found.items() if place is not None), default=None)
    if best is not None and best[0] <= GOOD_RANK:
        return Failure("ranking_issue", "leg_had_it", rank, {"leg": best[1], "leg_rank": best[0]})
    if best is not None:
        return Failure("ranking_issue", "too_low", rank, {"leg": best[1], "leg_rank": best[0]})
    if len(subject) < MIN_SUBJECT or (POINTING.search(normalise(query)) and len(subject) <= 2 * MIN_SUBJECT):
        return Failure("context_dependency", "no_subject", rank, {"num": len(subject)})
    if shared < SHARED:
        return Failure("terminology_mismatch", "other_words", rank, {"shared": shared, "missing": ", ".join(missing[:5])})
    return Failure("ranking_issue", "crowded_out", rank, {"shared": shared})


def _shared(subject: Sequence[str], text: str, weight: Weight) -> tuple[float, list[str]]:
    """Share of the subject's weight that `text` holds, and the missing tokens, weightiest first."""
    present = set(tokenise(text))
    total = sum(weight(t) for t in subject)
    missing = sorted((t for t in subject if t not in present), key=lambda t: -weight(t))
    return (1 - sum(weight(t) for t in missing) / total if total else 0.0), missing


def _is_mixed(query: str) -> bool:
    """Words of both scripts; a lone Latin letter (vitamin C) is Chinese as it is written."""
    return len(LATIN_WORD.findall(normalise(query))) >= MIN_WORDS and len(CJK_RUN.findall(query)) > MIN_WORDS
