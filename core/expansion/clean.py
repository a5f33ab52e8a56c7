"""Takes out of a set what should not be learned: leaked prompts, sentences that fit any query, terms read in another sense.

Each line that goes is named with its rule; a row that keeps neither lex nor vec goes with its last line. Templates are found twice:
by pattern, and in the set itself (the same line around many different queries). Pure but for assets/expansion/clean.toml, read once.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from core.errors import UserError
from core.expansion import schema, terms
from core.expansion.schema import Line, Row

#: a line that reads the same around so many different queries is a template
REPEATED = 5
#: end of a sentence that a cleaned file may carry over
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class Removed:
    """One line taken out of one row, and the rule: leakage, template, repeated, misreading, double, or empty_row."""

    number: int
    query: str
    line: str
    rule: str
    detail: str = ""


@cache
def _rules() -> tuple[re.Pattern[str], re.Pattern[str], tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]]:
    with (terms.ASSETS / "expansion" / "clean.toml").open("rb") as file:
        found = tomllib.load(file)
    leakage, templates = (re.compile("|".join(found[name]["patterns"]), re.IGNORECASE) for name in ("leakage", "templates"))
    misread = tuple((re.compile(one["term"], re.IGNORECASE), tuple(one["wrong"])) for one in found["misreading"])
    return leakage, templates, misread


def clean(rows: Sequence[Row]) -> tuple[list[Row], list[Removed]]:
    """The rows without what no rule allows, in order, and what was taken out."""
    repeated = _repeated(rows)
    kept: list[Row] = []
    removed: list[Removed] = []
    for row in rows:
        lines: list[Line] = []
        for place, line in enumerate(row.lines):
            rule, detail = _rule(row.query, line, lines, repeated)
            if rule == "repeated" and not any(other.kind == line.kind for other in (*lines, *row.lines[place + 1 :])):
                rule = ""  # plain, but the row's last of its kind: better than none
            if rule:
                removed.append(Removed(row.number, row.query, f"{line.kind}: {line.text}", rule, detail))
            else:
                lines.append(line)
        if any(line.kind != "hyde" for line in lines) or (lines and not any(line.kind != "hyde" for line in row.lines)):
            kept.append(replace(row, lines=tuple(lines)))
        else:
            removed.append(Removed(row.number, row.query, "", "empty_row"))
    return kept, removed


def skeleton(text: str, query: str) -> str:
    """The line with the query in it replaced by {q}, lower-cased."""
    return " ".join(text.lower().replace(query.lower().strip(), "{q}").split())


def read_any(raw: bytes, name: str) -> str:
    """The text of a file in any encoding met here, without byte-order mark and empty lines. Raises UserError("expansion.encoding")."""
    encodings = [encoding for mark, encoding in BOMS.items() if raw.startswith(mark)] or ["utf-8", "gb18030"]
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return "".join(line.strip() + "\n" for line in text.splitlines() if line.strip())
    raise UserError("expansion.encoding", file=name, line=1)


def _repeated(rows: Sequence[Row]) -> set[str]:
    queries: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for line in row.lines:
            bare = skeleton(line.text, row.query)
            if "{q}" in bare and bare != "{q}":
                queries[bare].add(row.query.lower())
    return {bare for bare, known in queries.items() if len(known) >= REPEATED}


def _rule(query: str, line: Line, before: Sequence[Line], repeated: set[str]) -> tuple[str, str]:
    """The rule that a line breaks, with what gave it away; ("", "") for a good line."""
    leakage, templates, misread = _rules()
    parsed = schema.parse_output(f"{line.kind}: {line.text}")
    if found := leakage.search(line.text):
        return "leakage", found[0]
    if parsed.leaks or "<think>" in line.text:
        return "leakage", parsed.leaks[0] if parsed.leaks else "<think>"
    bare = skeleton(line.text, query)
    if templates.search(bare):
        return "template", bare[:80]
    if bare in repeated:
        return "repeated", bare[:80]
    lower, asked = line.text.lower(), query.lower()
    for term, wrong in misread:
        if term.search(query):
            word = next((w for w in wrong if w in lower and w not in asked), "")
            # a negated word ("-snake") says what is not meant
            if word and f"-{word}" not in lower and f'-"{word}' not in lower:
                return "misreading", word
    if any(other.kind == line.kind and other.text.lower() == lower for other in before):
        return "double", ""
    return "", ""
