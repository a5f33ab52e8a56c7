"""Names of people, in context: a cue before or after, or a known first name before a capitalised word. Pure; called by `detect`.

Chinese: a surname and one or two characters. After a strong cue (姓名：) any characters may follow; after a weak one (患者) they
must be ones that names are made of. A surname with a title alone (王医生) is no name: it is how people are made anonymous.
English: words with capitals after a title or a cue. The eponyms of medicine (Parkinson, Reye's) are names only of persons: after
a title or "my name is", and never before "disease", "sign" or the like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.deidentify.findings import Finding
from core.deidentify.lexicon import Chinese, English, chinese, english

_HAN = re.compile(r"[\u3400-\u9fff]")
_WORD = r"(?:(?:Mc|Mac|O['’]|D['’])[A-Z][a-z]+|(?:De|Di|Van|Von|La|Le)\s[A-Z][a-z]+|[A-Z][a-z]+)(?:[-'’][A-Z][a-z]+)*"
_PERSON = re.compile(
    rf"{_WORD}(?:\s+(?:[A-Z]\.|{_WORD}|(?:van|von|de|der|den|bin|al|da|di|del)(?=\s+[A-Z]))){{0,3}}|(?:[A-Z]\.\s?){{1,2}}{_WORD}|[A-Z][A-Z'’-]{{2,}}(?:\s+[A-Z][A-Z'’-]{{2,}}){{1,2}}"
)
_REVERSED = re.compile(rf"{_WORD},\s{_WORD}(?:\s[A-Z]\.)?")
_LOWER = re.compile(r"[a-z]{2,}(?:\s[a-z]{3,})?")
_LATIN = re.compile(r"[A-Za-z]")
_BARE = re.compile(rf"(?<![A-Za-z'’.-]){_WORD}(?:\s(?:[A-Z]\.\s)?{_WORD}){{1,2}}(?![A-Za-z])")


def names(text: str) -> Iterator[Finding]:
    """Names in `text` (half-width). May overlap."""
    if _HAN.search(text):
        yield from _chinese(text, chinese())
    if _LATIN.search(text):
        yield from _english(text, english())


def _chinese(text: str, words: Chinese) -> Iterator[Finding]:
    for cues in (words.strong, words.left):
        for match in cues.finditer(text):
            is_strong = match.group()[-1] in ":：" or (cues is words.strong and not match.group().startswith(("本人", "我是")))
            if end := _name_end(text, match.end(), words, is_strong=is_strong):
                yield Finding(match.end(), end, "name")
    for match in words.right.finditer(text):
        if (start := _name_start(text, match.start(), words)) is not None:
            yield Finding(start, match.start(), "name")


def _surname(text: str, at: int, words: Chinese) -> int:
    """Length of the surname that begins at `at`, or 0."""
    if text.startswith(words.compound, at):
        return 2
    return 1 if text[at : at + 1] in words.surnames else 0


def _is_word(text: str, at: int, words: Chinese) -> bool:
    """Whether a common word, or a name that was made anonymous (李某), begins at `at`."""
    return any(text[at : at + n] in words.not_names for n in (2, 3)) or "某" in text[at + 1 : at + 3]


def _name_end(text: str, at: int, words: Chinese, *, is_strong: bool) -> int | None:
    """Where the name that begins at `at` ends, or None when none does.

    Of one and two given characters the longer is taken when a boundary follows it or both are characters of names.
    """
    size = _surname(text, at, words)
    if not size or _is_word(text, at, words) or _is_word(text, at + size, words):
        return None
    first = at + size
    given = text[first : first + 2]
    for num in (2, 1):
        said, after = given[:num], text[first + num : first + num + 1]
        if len(said) < num or not all(_HAN.match(c) for c in said) or any(c in words.never for c in said):
            continue
        is_paused = not _HAN.match(after)
        is_ended = is_paused or after in words.followers
        if num == 2 and said[1] in words.followers and not (is_ended and said[1] in words.given):
            continue
        is_usual = all(c in words.given for c in said)
        if not is_strong and not is_paused and text[at] in words.ambiguous and not (is_usual and is_ended and text[at] in "周高方余金"):
            continue
        if not (is_usual or is_strong or is_paused) or (num == 1 and not is_ended and text[first : first + 2] in words.not_names):
            continue
        if num == 2 and not is_usual and not (is_paused or (is_ended and said[0] in words.given)):
            continue
        if said[0] in words.followers and not is_strong:
            continue
        return None if _THING.match(text, first + num) or (_is_word(text, first + num - 1, words) and not is_ended) else first + num
    return None


_THING = re.compile(r"病|综合征|现象|征|氏|医院|药|肝|肾|心|肺|胃|肠|血|痛|炎|癌|针|片|胶囊")


def _name_start(text: str, end: int, words: Chinese) -> int | None:
    """Where the name that ends at `end` starts, or None. Where nothing stands before the name, any characters may be given."""
    for size, num in ((2, 2), (1, 2), (2, 1), (1, 1)):
        start = end - size - num
        if start < 0 or _surname(text, start, words) != size or _is_word(text, start, words) or _is_word(text, start + size, words):
            continue
        said, before = text[start + size : end], text[start - 1 : start] if start else ""
        if any(c in words.never or not _HAN.match(c) for c in said) or said[0] in words.followers:
            continue
        is_begun = not _HAN.match(before) or before in words.joiners or bool(words.cued.search(text[max(0, start - 8) : start]))
        is_usual = all(c in words.given and c not in words.followers for c in said)
        if text[start] in words.ambiguous and not (is_begun and is_usual) and text[end : end + 1] not in "，,（(":
            continue
        if (is_begun and (num == 2 or is_usual)) or (num == 2 and before not in words.surnames and is_usual):
            return start
    return None


def _english(text: str, words: English) -> Iterator[Finding]:
    for cue, strength in ((words.title, "title"), (words.strong, "strong"), (words.weak, "weak")):
        for match in cue.finditer(text):
            yield from _after(text, match.end(), words, strength)
    for match in _BARE.finditer(text):
        parts = match.group().split()
        while len(parts) > 2 and (parts[0] in words.not_names or parts[0] not in words.first_names):
            parts = parts[1:]
        is_known = parts[0] in words.first_names or (parts[-1] in words.plain_surnames and parts[0] not in words.eponyms)
        if is_known and _may_be(parts, words) and not _is_thing(text, match.end(), words):
            yield Finding(match.end() - len(match.group()) + match.group().rindex(parts[0]), match.end(), "name")


def _after(text: str, at: int, words: English, strength: str) -> Iterator[Finding]:
    match = _REVERSED.match(text, at) if strength == "strong" else None
    match = match or _PERSON.match(text, at)
    if match is None:
        lower = _LOWER.match(text, at) if strength != "weak" else None
        if lower is not None:  # people type without capitals: then only what is known to be a name
            size = _known(lower.group().split(), words)
            if size:
                yield Finding(at, at + size, "name")
        return
    parts = re.findall(r"\S+", match.group())
    while parts and not _may_be(parts[-1:], words):
        parts.pop()
    if not parts or not _may_be(parts[:1], words):
        return
    end = at + match.group().rindex(parts[-1]) + len(parts[-1].rstrip(",'’"))
    first = parts[0].strip(",.").title()
    if _is_thing(text, end, words) and (strength == "weak" or any(p in words.eponyms for p in parts)):
        return
    is_known = first in words.first_names or first in words.surnames or any(p.strip(",.").title() in words.surnames for p in parts[1:])
    if strength == "weak" and not (is_known or (len(parts) > 1 and not any(p in words.eponyms for p in parts))):
        return
    if strength == "weak" and len(parts) == 1 and parts[0] in words.eponyms:
        return
    yield Finding(at, end, "name")


def _may_be(parts: list[str], words: English) -> bool:
    return all(p.strip(",.").title() not in words.not_names for p in parts)


def _known(parts: list[str], words: English) -> int:
    """How many characters of lower-case `parts` are a known name."""
    first = parts[0].title()
    if first in words.not_names or not (first in words.first_names or first in words.surnames):
        return 0
    if len(parts) > 1 and parts[1].title() in words.surnames:
        return len(parts[0]) + 1 + len(parts[1])
    return len(parts[0])


def _is_thing(text: str, end: int, words: English) -> bool:
    """Whether what follows makes a thing of the name: "disease", "'s sign", "University"."""
    rest = re.match(r"(?:['’]s?)?[\s-]+([A-Za-z]+)", text[end : end + 40])
    return rest is not None and rest.group(1).lower() in words.after_eponym
