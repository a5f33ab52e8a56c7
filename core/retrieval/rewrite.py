"""The wordings of a question: what is searched beside the words as typed. Pure.

A correction of what the index does not know, the glossary's names of what was named, the gist of a long question, a model's
pseudo-document and its expansion lines: each is one wording with its own weight and its own door, so that every passage can say
which of them let it in. Called by core.retrieval.search.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.retrieval.glossary import Glossary, Mention
from core.retrieval.plans import Plan
from core.retrieval.tokens import CJK, count, normalise, query_tokens, stem, tokenise, units

#: How often the question stands before the pseudo-document in lexical search (Wang et al., Query2doc, EMNLP 2023): it must lead.
QUESTION_WEIGHT = 5
#: A question of more tokens than LONG is searched by its gist as well, which has at most GIST tokens.
LONG = 48
GIST = 24
#: Shorter words are not corrected: too many others are near.
MIN_SPELLED = 5
#: From this length two letters may be wrong.
TWO_LETTERS = 9
CLAUSE = re.compile(r"[^,，、;；。.!！?？\n]+[,，、;；。.!！?？\n]*")
ASKS = re.compile(r"[?？]|吗|呢|怎么|如何|什么|能不能|可以|should|what|how|can i|could")
EXPANSION = re.compile(r"^\s*(lex|vec|hyde)\s*[:：]\s*(.+?)\s*$", re.IGNORECASE | re.DOTALL)

Similar = Callable[[str, int], Sequence[tuple[str, int]]]
Weight = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Wording:
    """One text to search for. `lexical` and `dense` are what each leg gets; an empty text keeps the leg out."""

    name: str
    weight: float
    lexical: str
    dense: str


@dataclass(frozen=True, slots=True)
class Correction:
    """`written` is not in the index; `meant` is, or stands in the glossary."""

    written: str
    meant: str


def wordings(
    question: str,
    plan: Plan,
    *,
    glossary: Glossary,
    weight: Weight,
    similar: Similar,
    pseudo_doc: str = "",
    expansions: Sequence[str] = (),
) -> tuple[list[Wording], list[Correction], list[Mention]]:
    """Every wording with a weight, the question first; the corrections made and the terms recognised."""
    unknown = weight("\x00")  # nothing weighs more than what occurs nowhere
    corrections = spelled(question, glossary, weight, similar) if plan.spelling else []
    text = corrected(question, corrections)
    mentions = glossary.mentions(text, lambda token: weight(token) < unknown) if plan.glossary else []
    named = with_names(text, mentions, lambda token: weight(token) < unknown)
    found = [Wording("glossary", plan.glossary, named, f"{text} {named}")] if named else []
    if not named or plan.glossary < 1:
        found.insert(0, Wording("question", 1.0 - (plan.glossary if named else 0), text, text))
    if plan.summary and count(text) > LONG:
        short = gist(text, weight)
        short = with_names(short, glossary.mentions(short), lambda token: weight(token) < unknown) or short
        found.append(Wording("summary", plan.summary, short, short))
    text = named or text
    if pseudo_doc and plan.pseudo_doc:
        lexical = " ".join([text] * QUESTION_WEIGHT + [pseudo_doc])
        found.append(Wording("pseudo_doc", plan.pseudo_doc, lexical, f"{text} {pseudo_doc}"))
    for line in expansions if plan.line_weight else ():
        match = EXPANSION.match(line)
        if match:
            is_lexical = match[1].lower() == "lex"
            found.append(Wording(line.strip(), plan.line_weight, match[2] if is_lexical else "", "" if is_lexical else match[2]))
    return found, corrections, mentions


def with_names(question: str, mentions: Sequence[Mention], is_known: Callable[[str], bool]) -> str:
    """The question with every term it names replaced by those of the term's names that the index holds, "" when it holds none.

    In one wording and not in two: what two rankings both know a little would outvote the passage that only one of them knows
    (docs/benchmarks_ask.md).
    """
    text, names = normalise(question), []
    for mention in reversed(mentions):
        held = [name for name in mention.term.names if all(is_known(token) for token in tokenise(name))]
        if held:
            text = f"{text[: mention.start]} {text[mention.end :]}"
            names.append(" ".join(held))
    return " ".join([text, *reversed(names)]).strip() if names else ""


def spelled(question: str, glossary: Glossary, weight: Weight, similar: Similar) -> list[Correction]:
    """Latin words that neither the index nor the glossary holds, with the nearest word that one of them does."""
    unknown = weight("\x00")
    words = glossary.words()
    found = []
    for word in dict.fromkeys(re.findall(r"[a-z]+", normalise(question))):
        token = stem(word)
        if len(word) < MIN_SPELLED or token in words or weight(token) < unknown:
            continue
        limit = 1 + (len(token) >= TWO_LETTERS)
        near = [(distance(token, other, limit), -times, other) for other, times in similar(token, limit)]
        near += [(distance(token, other, limit), -1, other) for other in words if abs(len(other) - len(token)) <= limit]
        best = min((n for n in near if 0 < n[0] <= limit), default=None)
        if best is not None:
            found.append(Correction(word, _word_of(best[2])))
    return found


def _word_of(token: str) -> str:
    """A word that is cut to this token: stems are not words, and cutting one again would give another token."""
    return next((word for word in (token, token + "e", token + "s") if stem(word) == token), token)


def corrected(question: str, corrections: Sequence[Correction]) -> str:
    """The question with each misspelt word replaced."""
    for c in corrections:
        question = re.sub(rf"(?<![a-z]){re.escape(c.written)}(?![a-z])", c.meant, question, flags=re.IGNORECASE)
    return question


def distance(a: str, b: str, limit: int) -> int:
    """Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`; limit + 1 when there are more than `limit`."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def gist(question: str, weight: Weight, limit: int = GIST) -> str:
    """The clauses of a long question that say most per token, in their order, at most `limit` tokens of them.

    What asks, and what stands first (a title, the complaint), counts double. Needs no model.
    """
    clauses = [match[0] for match in CLAUSE.finditer(question) if count(match[0])]
    worth: list[tuple[float, int]] = []
    for position, clause in enumerate(clauses):
        tokens = query_tokens(clause)
        said = sum(weight(token) for token in dict.fromkeys(tokens)) / (count(clause) + 2)
        worth.append((said * (1 + (position == 0) + bool(ASKS.search(clause.lower()))), position))
    chosen: list[int] = []
    room = limit
    for _, position in sorted(worth, key=lambda item: (-item[0], item[1])):
        size = count(clauses[position])
        if size <= room or not chosen:
            chosen.append(position)
            room -= size
    text = " ".join(clauses[position].strip() for position in sorted(chosen))
    spans = units(text)
    return text if len(spans) <= 2 * limit else text[: spans[2 * limit - 1][1]]


def language_of(text: str) -> str:
    """ "zh" for a text with Chinese characters, else "en"."""
    return "zh" if re.search(f"[{CJK}]", text) else "en"
