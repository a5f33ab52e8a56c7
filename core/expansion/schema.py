"""The one form of an expansion: a query and its lines `lex:` (keywords for BM25), `vec:` (a sentence for vectors), `hyde:` (an
invented passage). Files are JSONL, one row per line; a model answers with the lines as text.

    {"query": "auth config", "output": [["lex", "auth settings"], ["vec", "how to configure authentication"]], "language": "en"}

A file is read strictly: the first row that is not of this form stops it, with its line and what to do (`problems` lists them
all). Optional keys say more and are kept: language, family, source (also as src), category, intent, is_short, id.
Pure but for reading the file. Called by the data tools, the pages, training and Ask.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from core.errors import UserError
from core.expansion.terms import has_cjk

Kind = Literal["lex", "vec", "hyde"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: what a line may begin with, and how it goes on
PREFIXED = re.compile(r"(lex|vec|hyde):\s*(.*)", re.DOTALL)
TEXT_KEYS = ("language", "family", "source", "src", "category", "intent", "id")
OPTIONAL = (*TEXT_KEYS, "is_short")
#: signs of a chat template that a model wrote into its answer
TEMPLATE = re.compile(
    r"<\|[a-z_]+\|>|<｜[^｜>]{1,30}｜>|</?s>|<\|?(?:eot|bos|eos|pad)_?(?:id)?\|?>|\[/?INST\]|<<SYS>>"
    r"|<(?:start|end)_of_turn>|^\s*(?:assistant|user|system)\s*$",
    re.MULTILINE,
)
#: what ends an answer by right: a server that prints it has not leaked anything
END = re.compile(r"(?:<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|</s>|<｜end▁of▁sentence｜>|\s)+\Z")
THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
#: a prompt optimiser may replace it; the prefix names stay
DEFAULT = """Rewrite the search query so that a search engine finds the passages that answer it. Keep the language of the query and \
every name in it. Answer with lines only:
lex: two or three lines of keywords for word search, with synonyms and terms that an answer would use
vec: one or two lines, the question in other words
hyde: one line, a short passage that could answer it"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an expansion, its text without the prefix and without a line break."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a set. `family`: rows with the same one are wordings of one question; `number`: line of the file, 0 if none."""

    query: str
    lines: tuple[Line, ...]
    language: str | None = None
    family: str | None = None
    source: str | None = None
    number: int = 0
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def output(self) -> str:
        """The lines as a model would write them."""
        return render(self.lines)

    def as_json(self) -> dict[str, Any]:
        """The row as it stands in a file; read again it is the same."""
        known = {"language": self.language, "family": self.family, "source": self.source}
        pairs = [[line.kind, line.text] for line in self.lines]
        return {"query": self.query, "output": pairs, **{k: v for k, v in known.items() if v}, **self.extra}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line of a file: `code` names its sentence in assets/i18n/expansion.toml."""

    number: int
    code: str
    params: dict[str, Any] = field(default_factory=dict)

    def error(self, file: str) -> UserError:
        return UserError(f"expansion.{self.code}", file=file, line=self.number, **self.params)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A model's answer taken apart. `bad`: (line number from 1, text) of lines without a valid prefix; `empty`: numbers of lines
    that hold a prefix only; `leaks`: signs of a chat template. `numbers[i]` is the line on which `lines[i]` stands."""

    lines: tuple[Line, ...]
    bad: tuple[tuple[int, str], ...] = ()
    think: str = ""
    numbers: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    leaks: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """At least one line, and nothing else."""
        return bool(self.lines) and not self.bad and not self.leaks

    def texts(self, kind: Kind) -> list[tuple[int, str]]:
        """(line number, text) of the lines of one kind, in order."""
        return [(n, line.text) for n, line in zip(self.numbers, self.lines, strict=True) if line.kind == kind]


def parse_output(text: str) -> Parsed:
    """The lines of an answer. A thinking block and an end sign are taken off; everything else must be a line. Never raises."""
    text = END.sub("", text)
    think = "\n".join(found.strip() for found in THINK.findall(text))
    text = THINK.sub(lambda found: "\n" * found[0].count("\n"), text)
    lines: list[Line] = []
    numbers: list[int] = []
    bad: list[tuple[int, str]] = []
    empty: list[int] = []
    for number, raw in enumerate(text.split("\n"), 1):
        stripped = raw.strip()
        if not stripped:
            continue
        found = PREFIXED.fullmatch(stripped)
        if found is None:
            bad.append((number, stripped))
        elif not found[2].strip():
            empty.append(number)
        else:
            lines.append(Line(_kind(found[1]), found[2].strip()))
            numbers.append(number)
    leaks = tuple(dict.fromkeys(leak.strip() for leak in TEMPLATE.findall(text)))
    return Parsed(tuple(lines), tuple(bad), think, tuple(numbers), tuple(empty), leaks)


def render(lines: Iterable[Line]) -> str:
    """The lines as text, one per line, in the order given."""
    return "\n".join(f"{line.kind}: {line.text}" for line in lines)


def prompt_messages(query: str, instruction: str = DEFAULT) -> list[dict[str, str]]:
    """The chat messages that ask a model for the expansion of `query`: training, evaluation and Ask all send these."""
    return [{"role": "system", "content": instruction}, {"role": "user", "content": query}]


def language_of(text: str) -> str:
    """ "zh" for a text with Chinese characters, else "en"."""
    return "zh" if has_cjk(text) else "en"


def read_rows(path: Path) -> list[Row]:
    """All rows of a JSONL file. Raises UserError("expansion...") with the line and the fix for the first that is wrong."""
    rows, wrong = check_file(path)
    if wrong:
        raise wrong[0].error(path.name)
    return rows


def check_file(path: Path) -> tuple[list[Row], list[Problem]]:
    """Good rows, and every problem by line. Raises UserError only for a file of which no line can be read."""
    if not path.is_file():
        raise UserError("expansion.no_file", file=path)
    raw = path.read_bytes()
    if not raw.strip():
        raise UserError("expansion.empty_file", file=path.name)
    return check_text(_decode(raw, path.name))


def check_text(text: str) -> tuple[list[Row], list[Problem]]:
    """As `check_file`, for text at hand."""
    rows: list[Row] = []
    wrong: list[Problem] = []
    for found in _rows(text):
        (rows if isinstance(found, Row) else wrong).append(found)  # type: ignore[arg-type]
    return rows, wrong


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSONL; the number written."""
    written = [json.dumps(row.as_json(), ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in written), encoding="utf-8")
    return len(written)


def check_row(value: object, number: int) -> Row | Problem:
    """One parsed JSON value as a row, or what is wrong with it."""
    if not isinstance(value, dict):
        return Problem(number, "not_object", {"found": _type(value)})
    for key in ("query", "output"):
        if key not in value:
            return Problem(number, "key_missing", {"name": key})
    unknown = [key for key in value if key not in ("query", "output", *OPTIONAL)]
    if unknown:
        return Problem(number, "key_unknown", {"name": unknown[0], "known": ", ".join(("query", "output", *OPTIONAL))})
    query = value["query"]
    if not isinstance(query, str):
        return Problem(number, "wrong_type", {"name": "query", "expected": "text", "found": _type(query)})
    if not query.strip():
        return Problem(number, "query_empty")
    for key in TEXT_KEYS:
        if value.get(key) is not None and not isinstance(value[key], str):
            return Problem(number, "wrong_type", {"name": key, "expected": "text", "found": _type(value[key])})
    if value.get("is_short") is not None and not isinstance(value["is_short"], bool):
        return Problem(number, "wrong_type", {"name": "is_short", "expected": "true / false", "found": _type(value["is_short"])})
    if value.get("language") not in (None, "", "en", "zh"):
        return Problem(number, "language_unknown", {"found": value["language"]})
    lines = _lines(value["output"], number)
    if isinstance(lines, Problem):
        return lines
    extra = {k: value[k] for k in ("category", "intent", "is_short", "id") if value.get(k) is not None}
    source = value.get("source") or value.get("src") or None
    return Row(query.strip(), tuple(lines), value.get("language") or None, value.get("family") or None, source, number, extra)


def _lines(output: object, number: int) -> list[Line] | Problem:
    if isinstance(output, str):
        output = [part for part in output.split("\n") if part.strip()]
    if not isinstance(output, list):
        return Problem(number, "wrong_type", {"name": "output", "expected": "list", "found": _type(output)})
    if not output:
        return Problem(number, "output_empty")
    lines: list[Line] = []
    for position, item in enumerate(output, 1):
        pair = _pair(item)
        if pair is None:
            return Problem(number, "output_item", {"position": position, "found": json.dumps(item, ensure_ascii=False)[:60]})
        kind, text = pair
        if kind not in KINDS:
            return Problem(number, "prefix_unknown", {"position": position, "found": kind[:40]})
        if not text.strip():
            return Problem(number, "line_empty", {"position": position, "kind": kind})
        if "\n" in text or "\r" in text:
            return Problem(number, "line_break", {"position": position, "kind": kind})
        lines.append(Line(_kind(kind), text.strip()))
    return lines


def _pair(item: object) -> tuple[str, str] | None:
    """(kind, text) of `["lex", "..."]` or of `"lex: ..."`; None for anything else."""
    if isinstance(item, str):
        kind, sign, text = item.partition(":")
        return (kind.strip(), text) if sign else (item, "-")
    if isinstance(item, Sequence) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return str(item[0]), str(item[1])
    return None


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind == name)


def _decode(raw: bytes, name: str) -> str:
    """UTF-8 without a byte-order mark, or a sentence that says which encoding it is and what to do."""
    if raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("expansion.bom", file=name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        raise UserError("expansion.encoding", file=name, line=line) from None
    raise UserError("expansion.gb18030", file=name, line=line)


def _rows(text: str) -> Iterator[Row | Problem]:
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield Problem(number, "empty_line")
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield Problem(number, "bad_json", {"reason": error.msg, "column": error.colno})
        except RecursionError:
            yield Problem(number, "bad_json", {"reason": "nested too deeply", "column": 1})
        except ValueError:
            yield Problem(number, "bad_json", {"reason": "a number with more than 4300 digits", "column": 1})
        else:
            yield check_row(value, number)


def _type(value: object) -> str:
    return {dict: "object", list: "list", str: "text", bool: "true / false", int: "number", float: "number"}.get(type(value), "null")
