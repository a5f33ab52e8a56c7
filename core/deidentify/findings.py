"""What was found: kind and place, never the text itself; and the two things made of it that hold no secret, mask and fingerprint.

Invariant: a `Finding` can be logged, stored and shown. Pure. Used by every recogniser.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Kinds in the order in which they win where two overlap. `privacy.kind_<kind>` in assets/i18n says each to people.
KINDS = (
    "email",
    "id_card",
    "nhs_number",
    "ssn",
    "bank_card",
    "record_number",
    "mobile",
    "landline",
    "online_id",
    "plate",
    "birth_date",
    "date",
    "address",
    "name",
)
#: kinds with a form of their own; names and addresses have none
STRUCTURED = tuple(kind for kind in KINDS if kind not in ("name", "address"))
_RANK = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Characters `start` to `end` (exclusive) of a text look like `kind`."""

    start: int
    end: int
    kind: str


def settle(found: Iterable[Finding]) -> list[Finding]:
    """Findings in order of place without overlaps: the longer wins, then the kind that is surer. What overlaps is widened
    to cover both, so that no rest of the loser stays readable."""
    kept: list[Finding] = []
    for one in sorted(found, key=lambda f: (f.start, -f.end)):
        if kept and one.start < kept[-1].end:
            last = kept[-1]
            winner = min(last, one, key=lambda f: (f.start - f.end, _RANK[f.kind]))
            kept[-1] = Finding(last.start, max(last.end, one.end), winner.kind)
        else:
            kept.append(one)
    return kept


def mask(text: str, found: Sequence[Finding], words: dict[str, str] | None = None) -> str:
    """`text` with every finding replaced by its kind in brackets; `words` says the kinds in a person's language."""
    pieces, at = [], 0
    for one in found:
        pieces += [text[at : one.start], f"[{(words or {}).get(one.kind, one.kind)}]"]
        at = one.end
    return "".join([*pieces, text[at:]])


def fingerprint(kind: str, value: str) -> str:
    """Eighty bits that stand for a value: its normal form (NFKC, lower case, letters and digits only) under SHA-256.

    Not a secret: whoever can guess a telephone number can check the guess. It is stored only beside texts that hold the value.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKC", value).lower() if c.isalnum())
    return hashlib.sha256(f"{kind}\0{plain}".encode()).hexdigest()[:20]
