"""The rules of the rubric for an ordinary answer: which points are taken from which line. Pure.

Called by core.expansion.reward.score; `duplicates` and `passage` also by the mode that asks for one kind of line.
"""

from __future__ import annotations

from itertools import combinations

from core.expansion import terms
from core.expansion.points import HYDE_WIDTH, QUOTE_BONUS, Ledger
from core.expansion.schema import Kind, Parsed

#: (line number, text)
Texts = list[tuple[int, str]]


def fill(ledger: Ledger, query: str, parsed: Parsed) -> None:
    """Take from `ledger` every point that the answer does not earn."""
    lex, vec, hyde = parsed.texts("lex"), parsed.texts("vec"), parsed.texts("hyde")
    for kind, texts in (("lex", lex), ("vec", vec)):
        if not texts:
            ledger.take("format", 10, "no_kind", kind=kind)
    for number in parsed.empty:
        ledger.take("format", 0, "empty_line", number)
    _diversity(ledger, query, lex, vec)
    if hyde:
        passage(ledger, "hyde", *hyde[0])
    _quality(ledger, query, lex, vec)
    _entity(ledger, terms.entities(query), lex, vec)


def min_distance(query: str) -> int:
    """By how many words two lines must differ: three for a query of five words or more, else two."""
    return 3 if terms.num_words(query) >= 5 else 2


def duplicates(texts: Texts, query: str) -> list[tuple[int, int]]:
    """Line numbers (earlier, later) of lines that say the same."""
    distance = min_distance(query)
    return [(m, n) for (m, a), (n, b) in combinations(texts, 2) if not terms.are_diverse(a, b, distance)]


def _diversity(ledger: Ledger, query: str, lex: Texts, vec: Texts) -> None:
    if not (lex and vec):
        ledger.take("diversity", 10, "one_kind")
    if len(lex) + len(vec) < 2:
        ledger.take("diversity", 5, "one_line")
    for texts in (lex, vec):
        left: float = 5
        for earlier, later in duplicates(texts, query):
            left = ledger.take_up_to(left, "diversity", 2, "same_as", later, other=earlier)
    left = 15  # the five points of this rule and ten below them
    kinds: tuple[tuple[Kind, Texts, int], ...] = (("lex", lex, 10), ("vec", vec, 3))
    for kind, texts, price in kinds:
        for number, text in texts:
            if terms.echoes(text, query):
                ledger.num_echoes += kind == "lex" and set(terms.words(text)) == set(terms.words(query))
                left = ledger.take_up_to(left, "diversity", price, "echo", number)


def passage(ledger: Ledger, dimension: str, number: int, text: str) -> None:
    """Length and repetitions of a hyde line."""
    least, most = HYDE_WIDTH
    size = terms.width(text)
    if size < least:
        ledger.take(dimension, 3, "hyde_short", number, width=size, least=least)
    elif size > most:
        ledger.take(dimension, 5, "hyde_long", number, width=size, most=most)
    repeated = terms.repetitions(text)
    if repeated:
        ledger.take(dimension, min(5, sum(repeated.values())), "hyde_repeats", number, words=", ".join(sorted(repeated)[:5]))


def _quality(ledger: Ledger, query: str, lex: Texts, vec: Texts) -> None:
    if not (lex and vec):
        ledger.take("quality", 5, "no_comparison")
    elif _mean_width(lex) > _mean_width(vec):
        ledger.take("quality", 5, "lex_longer", lex=round(_mean_width(lex)), vec=round(_mean_width(vec)))
    if not vec:
        ledger.take("quality", 5, "no_kind", kind="vec")
    ledger.share("quality", 3, [n for n, text in vec if not terms.is_natural(text)], "not_natural")
    without = [n for n, text in lex if not terms.holds_key_term(text, query)]
    if not lex:
        ledger.take("quality", 5, "no_kind", kind="lex")
    ledger.share("quality", 5 if len(without) == len(lex) else 3, without, "no_key_term")
    for number, text in lex:
        if terms.has_filler(text, query):
            ledger.take("quality", 3, "filler", number)
    if terms.num_words(query) >= 2 and any(sign in text for _, text in lex for sign in ('"', "“", "《")):
        ledger.quotes = QUOTE_BONUS


def _entity(ledger: Ledger, names: set[str], lex: Texts, vec: Texts) -> None:
    if not names:
        ledger.take("entity", 10, "no_names")
        return
    if not lex:
        ledger.take("entity", 20, "no_kind", kind="lex")
        return
    shown = ", ".join(sorted(names))
    without = [n for n, text in lex if not terms.holds_any(text, names)]
    ledger.share("entity", 45 if len(without) == len(lex) else 10, without, "no_name", names=shown)
    said = " ".join(text for _, text in [*lex, *vec]).lower()
    for name in sorted(names):
        if name not in said:
            ledger.take("entity", 20, "name_dropped", name=name)
    for number, text in lex:
        if terms.is_generic(text):
            ledger.take("entity", 15, "generic", number)
    if not any(terms.holds_any(text, names) for _, text in vec):
        ledger.take("entity", 5, "no_name_in_vec", names=shown)


def _mean_width(texts: Texts) -> float:
    return sum(terms.width(text) for _, text in texts) / len(texts)
