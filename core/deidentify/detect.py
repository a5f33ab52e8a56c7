"""All recognisers over a text or over the texts of one document. Pure.

Before anything is looked for, full-width characters become half-width and characters that show nothing are taken out, so that
１３８… and a number with zero-width spaces in it are found; places are given in the text as it came. A name found once in a
document is found wherever else it stands there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from core.deidentify.addresses import addresses
from core.deidentify.dates import dates
from core.deidentify.findings import Finding, settle
from core.deidentify.names import names
from core.deidentify.structured import structured

#: a longer text is read in parts: patterns with context need no more, and a crafted text costs no more than its length
PART, OVERLAP = 8000, 200
#: a text with none of these holds nothing: digits, @, letters that may be names, Chinese
_ANYTHING = re.compile(r"[0-9@A-Z\u3400-\u9fff]|(?i:name|dr|mr|ms)")
_PLAIN = re.compile(r"[\n -~\u3400-\u9fff\u3001-\u3011]*\Z")


def find(text: str) -> list[Finding]:
    """What identifies a person in `text`, in order of place, without overlaps."""
    return find_all([text])[0]


def find_all(texts: Sequence[str]) -> list[list[Finding]]:
    """As `find`, for the texts of one document: a name found in one of them is found in all."""
    plain = [half_width(text) for text in texts]
    found = [_in(text) for text, _ in plain]
    known = {text[f.start : f.end] for (text, _), hits in zip(plain, found, strict=True) for f in hits if f.kind == "name"}
    again = _again(known)
    results = []
    for (text, places), hits in zip(plain, found, strict=True):
        if again is not None:
            hits = settle([*hits, *(Finding(*m.span(), "name") for m in again.finditer(text))])
        results.append(hits if places is None else [Finding(places[h.start], places[h.end - 1] + 1, h.kind) for h in hits])
    return results


def _in(text: str) -> list[Finding]:
    found: list[Finding] = []
    for start in range(0, max(1, len(text)), PART):
        part = text[max(0, start - OVERLAP) : start + PART]
        if not _ANYTHING.search(part):
            continue
        offset = max(0, start - OVERLAP)
        for one in (*structured(part), *dates(part), *addresses(part), *names(part)):
            found.append(Finding(one.start + offset, one.end + offset, one.kind))
    return settle(found)


def _again(known: set[str]) -> re.Pattern[str] | None:
    """The pattern of names already found; single English words only as whole words, and no Chinese pair that is a common word."""
    words = [w for w in known if len(w) > 2 or not w.isascii()]
    if not words:
        return None
    parts = [rf"(?<![A-Za-z]){re.escape(w)}(?![A-Za-z])" if w.isascii() else re.escape(w) for w in sorted(words, key=len, reverse=True)]
    return re.compile("|".join(parts))


def half_width(text: str) -> tuple[str, list[int] | None]:
    """`text` with compatibility forms of one character replaced and unseen characters removed, and for every character left its
    place in the original (None: the same place)."""
    if _PLAIN.match(text):
        return text, None
    out: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if unicodedata.category(character) == "Cf":
            continue
        if character in "，。；：！？（）、":  # their meaning in Chinese text is what the patterns go by
            shown = "(" if character == "（" else ")" if character == "）" else character
        else:
            normal = unicodedata.normalize("NFKC", character)
            shown = normal if len(normal) == 1 else character
        out.append("-" if shown in "‐‑‒–—−" else shown)
        places.append(place)
    is_same = len(places) == len(text)
    return "".join(out), None if is_same else places
