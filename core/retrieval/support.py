"""Do the passages found speak about the question at all? And which of their lines answer it, word for word? Pure.

`support` is the share of the question's subject, weighted by rarity, that the best document's passages contain. Below
THRESHOLD the honest answer is "unknown". Measured on the demo guidelines (docs/benchmarks_retrieval.md): at 0.30, 98 % of the
questions the guidelines answer pass, and 8-10 % of questions about other diseases do. Called by core.ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from core.completions import sentences
from core.retrieval.chunk import Chunk
from core.retrieval.glossary import Mention
from core.retrieval.tokens import CJK, count, query_tokens, singles, tokenise

THRESHOLD = 0.30
MAX_QUOTES = 4
#: A second document is quoted only when it covers the subject nearly as well as the first.
SAME_SUBJECT = 0.85
#: A line up to this long is quoted whole: half a list item can mean the opposite of the item.
MAX_LINE = 90
#: A line up to this long that does not end like a sentence is a heading.
MAX_HEADING = 60
#: Words that any medical question may hold: finding them proves nothing.
GENERIC = frozenset(
    tokenise(
        "symptom treatment treat cause diagnose diagnosis test genetic change related inherit people many affect prevent "
        "prevention outlook risk research trial clinical disease syndrome patient information definition danger sign warning "
        "emergency ambulance"
    )
) | frozenset(re.findall("..", "症状治疗原因诊断预防检查病人患者医生应该现在需要这个我们宝宝孩子严重情况注意方法饮食危险险信信号急诊"))
#: What a question asks for, and the headings under which documents answer that.
INTENTS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(asked, re.IGNORECASE), re.compile(heading, re.IGNORECASE))
    for asked, heading in (
        (r"怎么办|如何处理|怎么处理|what (should|to|can|do)|how (to|do|should)|first aid", r"处理|怎么办|what to do|first aid|treat"),
        (r"危险|要紧|严重|急诊|120|danger|warning|emergency|ambulance|urgent|serious", r"危险|警示|danger|warning|red flag|emergency"),
        (r"[吃用服].{0,8}[吗么]|药|剂量|medicine|drug|take|dose|safe|give|tablet", r"药|medicine|drug|dose"),
        (r"不能|不要|避免|禁忌|must not|should not|avoid|don.t", r"避免|不要|禁忌|not to do|avoid"),
        (r"孕|哺乳|老人|老年|儿童|婴儿|肾|pregnan|breastfeed|child|infant|older|kidney", r"人群|特殊|people|who need"),
    )
)

#: what stands in the other language can be neither found nor missed: so much of it is left out of the reckoning once a term is found
FOREIGN_RELIEF = 0.5
IS_CJK = re.compile(f"[{CJK}]")
IS_LATIN = re.compile("[a-z]{4}", re.IGNORECASE)

Weight = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Quote:
    """A line or sentence of passage `passage` (counted from 1), word for word but for its list mark."""

    passage: int
    text: str


def subject(question: str) -> list[str]:
    """Tokens that say what the question is about, in order; all of its tokens when it holds generic words only."""
    tokens = query_tokens(question)
    return [token for token in tokens if token not in GENERIC] or tokens


def words_of(text: str) -> frozenset[str]:
    """What `covered` looks into, so that a text is cut once for many questions about it."""
    return frozenset(tokenise(text)) | frozenset(singles(text))


def coverage(tokens: Sequence[str], text: str, weight: Weight) -> float:
    """`covered` by the words of `text`."""
    return covered(tokens, words_of(text), weight)


def covered(tokens: Sequence[str], there: Collection[str], weight: Weight) -> float:
    """Share of `tokens` (as `subject` returns them), by weight, that occur among the words `there`; 0 for no tokens.

    A missing pair of characters between two found ones only spans two words ("孕妇感冒": 妇感) and does not count as missing.
    """
    is_found = [token in there for token in tokens]
    total = found = 0.0
    seen: set[str] = set()
    for i, token in enumerate(tokens):
        before, after = tokens[i - 1] if i else "", tokens[i + 1] if i + 1 < len(tokens) else ""
        is_span = before[-1:] == token[:1] and after[:1] == token[-1:] and is_found[i - 1] and i + 1 < len(tokens) and is_found[i + 1]
        if token in seen or (not is_found[i] and is_span):
            continue
        seen.add(token)
        total += weight(token)
        found += weight(token) * is_found[i]
    return found / total if total > 0 else 0.0


def support(question: str, passages: Sequence[Chunk], weight: Weight, mentions: Sequence[Mention] = ()) -> float:
    """How much of the question's subject stands in the passages of the document found first, in [0, 1].

    A term of the glossary counts as found under any of its names: the guideline may be written in the other language.
    """
    return _document_coverage(question, passages, weight, mentions).get(passages[0].file, 0.0) if passages else 0.0


def _document_coverage(question: str, passages: Sequence[Chunk], weight: Weight, mentions: Sequence[Mention] = ()) -> dict[str, float]:
    texts: dict[str, str] = {}
    for p in passages:
        texts[p.file] = f"{texts.get(p.file, '')}\n{p.title}\n{p.section}\n{p.text}"
    wanted = subject(question)
    found = {}
    for file, text in texts.items():
        there = words_of(text)
        named = _named(mentions, there)
        share = covered(wanted, there | named, weight)
        foreign = foreign_share(wanted, named, text, weight)
        found[file] = share / (1 - FOREIGN_RELIEF * foreign) if named and foreign < 1 else share
    return found


def foreign_share(wanted: Sequence[str], named: Collection[str], text: str, weight: Weight) -> float:
    """Share of the question's subject, by weight, in a script that the text does not use and the glossary does not translate."""
    has_cjk, has_latin = bool(IS_CJK.search(text)), bool(IS_LATIN.search(text))
    total = sum(map(weight, wanted))
    foreign = [w for w in wanted if w not in named and ((IS_CJK.match(w) and not has_cjk) or (IS_LATIN.match(w) and not has_latin))]
    return sum(map(weight, foreign)) / total if total > 0 else 0.0


def _named(mentions: Sequence[Mention], there: Collection[str]) -> frozenset[str]:
    """Tokens of the question that a text holds under another name."""
    tokens: set[str] = set()
    for mention in mentions:
        if any(all(token in there for token in tokenise(name)) for name in mention.term.names):
            tokens |= set(tokenise(mention.written))
    return frozenset(tokens)


def asked_headings(question: str) -> list[re.Pattern[str]]:
    """Patterns of the headings under which a document answers what the question asks for."""
    return [heading for asked, heading in INTENTS if asked.search(question)]


def quotes(question: str, passages: Sequence[Chunk], weight: Weight, mentions: Sequence[Mention] = ()) -> list[Quote]:
    """The lines that answer the question best, at most MAX_QUOTES: what stands under the asked-for headings first, then the others.

    Both in reading order; no line twice.
    """
    wanted, headings = subject(question), asked_headings(question)
    by_document = _document_coverage(question, passages, weight, mentions)
    scored: list[tuple[float, int, int, str]] = []
    asked_for: set[str] = set()
    for number, passage in enumerate(passages, start=1):
        if by_document[passage.file] < SAME_SUBJECT * by_document[passages[0].file]:
            continue  # another disease: its lines, however alike, would be wrong advice here
        is_first_document = passage.file == passages[0].file
        for position, (section, line) in enumerate(_lines(passage)):
            there = words_of(line)
            share = covered(wanted, there | _named(mentions, there), weight)
            is_asked_for = any(heading.search(section) for heading in headings)
            if share > 0 or (is_asked_for and is_first_document):
                score = (share + 0.25 * is_asked_for) * (1.0 if is_first_document else 0.6)
                scored.append((score, number, position, line))
                asked_for |= {line} if is_asked_for else set()
    scored.sort(key=lambda item: (-item[0], item[1], item[2]))
    chosen: dict[str, tuple[bool, int, int]] = {}
    for score, number, position, line in scored:
        if len(chosen) == MAX_QUOTES or score < scored[0][0] * 0.4:
            break
        chosen.setdefault(line, (line not in asked_for, number, position))
    return [Quote(number, line) for line, (_, number, _) in sorted(chosen.items(), key=lambda item: item[1])]


def _lines(passage: Chunk) -> list[tuple[str, str]]:
    """(section, line) pairs without headings and list marks; a long line is cut into sentences."""
    found: list[tuple[str, str]] = []
    rows = [re.sub(r"^\s*(?:[-*•·]|\d{1,2}[.)、])\s*", "", row).strip() for row in passage.text.split("\n")]
    # a passage is named after the section that fills most of it, which may begin in its middle
    section = "" if passage.section in rows else passage.section
    for line in rows:
        if not line or line == passage.title:
            continue
        if len(line) <= MAX_HEADING and line[-1] not in ".。!！?？;；":
            section = line
        else:
            found += [(section, line)] if count(line) <= MAX_LINE else [(section, s.text) for s in sentences(line)]
    return found
