"""The rubric for a query that asks for one kind of line: "auth /only:lex". Same points, other rules; never a hyde bonus.

Called by core.expansion.reward.score with its ledger.
"""

from __future__ import annotations

from core.expansion import terms
from core.expansion.points import HYDE_WIDTH, Ledger
from core.expansion.rubric import Texts, duplicates
from core.expansion.schema import Parsed


def fill(ledger: Ledger, query: str, parsed: Parsed, only: str) -> bool:
    """Take the points that are missing. False when there is no line of the kind asked for: nothing to score."""
    wanted = [(n, line.text) for n, line in zip(parsed.numbers, parsed.lines, strict=True) if line.kind == only]
    if not wanted:
        ledger.take("format", 100, "only_missing", kind=only)
        return False
    others = [(n, line.kind) for n, line in zip(parsed.numbers, parsed.lines, strict=True) if line.kind != only]
    left: float = 30
    for number, kind in others:
        left = ledger.take_up_to(left, "format", 10, "only_unwanted", number, kind=kind, only=only)
    if len(wanted) == 1:
        ledger.take("diversity", 15, "one_line")
    left = 15
    for earlier, later in duplicates(wanted, query):
        left = ledger.take_up_to(left, "diversity", 5, "same_as", later, other=earlier)
    for number, text in wanted:
        if terms.echoes(text, query):
            ledger.take("diversity", min(5, ledger.raw["diversity"]), "echo", number)
    _quality(ledger, query, wanted, only)
    names = terms.entities(query)
    if not names:
        ledger.take("entity", 10, "no_names")
        return True
    without = [n for n, text in wanted if not terms.holds_any(text, names)]
    points = 20 if len(without) == len(wanted) else 5
    ledger.share("entity", points, without, "no_name", names=", ".join(sorted(names)))
    return True


def _quality(ledger: Ledger, query: str, wanted: Texts, only: str) -> None:
    if only == "lex":
        without = [n for n, text in wanted if not terms.holds_key_term(text, query)]
        ledger.share("quality", 5, without, "no_key_term")
        ledger.share("quality", 5, [n for n, text in wanted if terms.is_generic(text)], "generic")
        for number, text in wanted:
            if terms.has_filler(text, query):
                ledger.take("quality", 3, "filler", number)
    elif only == "vec":
        ledger.share("quality", 5, [n for n, text in wanted if not terms.is_natural(text)], "not_natural")
    else:
        number, text = wanted[0]
        size = terms.width(text)
        least, most = HYDE_WIDTH
        if not least <= size <= most:
            points = 5 if 30 <= size <= 300 else 10
            reason = "hyde_short" if size < least else "hyde_long"
            ledger.take("quality", points, reason, number, width=size, least=least, most=most)
