"""Exact dates of a person's life. A year alone, or year and month, is not exact (except of a birth); a date that belongs to a
guideline, an approval or a paper is nobody's. The nearer word decides. Pure; called by `detect`, and by `surrogates` for parsing.
"""

# ruff: noqa: E501 - a pattern or a list of names broken over lines is not read more easily

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from core.deidentify.findings import Finding

_MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"]
MONTH = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
_Y, _M, _D = r"(?P<y>(?:18|19|20)\d{2})", r"(?P<m>0?[1-9]|1[0-2])", r"(?P<d>0?[1-9]|[12]\d|3[01])"
_NUMERALS = "〇零○一二三四五六七八九十"
FULL = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<!\d){_Y}\s?年\s?{_M}\s?月\s?{_D}\s?[日号]?(?!\d)",
        rf"(?<![\d.]){_Y}(?P<s>[-/.])\s?{_M}(?P=s)\s?{_D}(?![\d]|\.\d)",
        rf"(?<![\d.]){_D}(?P<s>[-/.]){_M}(?P=s){_Y}(?![\d]|\.\d)",
        rf"(?<![\d.]){_M}(?P<s>[-/.]){_D}(?P=s){_Y}(?![\d]|\.\d)",
        rf"\b(?P<b>{MONTH})\s{{1,2}}{_D}(?:st|nd|rd|th)?,?\s{{1,2}}{_Y}\b",
        rf"\b{_D}(?:st|nd|rd|th)?(?:\s|-)(?:of\s)?(?P<b>{MONTH})(?:,?\s|-){_Y}\b",
        rf"[{_NUMERALS}]{{4}}年[{_NUMERALS}]{{1,2}}月[{_NUMERALS}]{{1,3}}[日号]",
        rf"(?<![\d.A-Za-z-]){_Y}(?P<m2>0[1-9]|1[0-2])(?P<d2>0[1-9]|[12]\d|3[01])(?![\d.A-Za-z-])",
    )
)
#: believed only beside a word of a person's life
PARTIAL = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\d年-]){_M}\s?月\s?{_D}\s?[日号](?!\d)",
        rf"\b(?P<b>{MONTH})\s{_D}(?:st|nd|rd|th)?\b(?!,?\s\d{{4}})",
        rf"\b{_D}(?:st|nd|rd|th)?\s(?:of\s)?(?P<b>(?!may\s)(?:{MONTH}))(?!\s\d{{4}})(?![a-z])",
        r"(?<![\d/.])(?P<m>0?[1-9]|1[0-2])/(?P<d>0?[1-9]|[12]\d|3[01])/\d{2}(?![\d/])",
    )
)
_BIRTH_MONTH = re.compile(
    r"(?<!\d)(?:19|20)?\d{2}年\s?\d{1,2}月(?=\s?(?:出生|生人|生[，,。；;\s)）]))|(?<=出生年月[:：])\s?(?:19|20)\d{2}[年./-]\d{1,2}月?"
)
_COMPACT = FULL[-1]
_BIRTH = re.compile(r"出生|生日|生于|生辰|诞生|\b(?:DOB|D\.O\.B|date of birth|born|birth ?da(?:y|te))\b", re.IGNORECASE)
_LIFE = re.compile(
    r"入院|出院|住院|就诊|门诊|急诊|复诊|初诊|手术|术后|术前|确诊|诊断|检查|化验|检验|随访|复查|转院|转入|分娩|末次月经|月经|死亡|去世|发病|起病|发作|采样|送检|报告|接种|注射|打针|受伤|摔|车祸|化疗|放疗|穿刺|活检|拔管|透析|孕|预产期|患者|病人|本人|家属|我|"
    r"\b(?:admi(?:tted|ssion)|discharged?|seen|visit(?:ed)?|appointment|surgery|operat(?:ed|ion)|diagnosed|scan(?:ned)?|biops(?:y|ied)|deliver(?:ed|y)|died|death|passed away|LMP|period|accident|fell|injur|"
    r"vaccinat|inject|chemo|dialysis|follow-?up|presented|transferred|collected|tested|labs?|blood work|x-?ray|MRI|CT|ultrasound|patient|she|he|my|I|me|due date|signed|dated)\b",
    re.IGNORECASE,
)
_PAPER = re.compile(
    r"指南|共识|标准|规范|发布|修订|版|出版|批准|上市|会议|大会|公告|文献|期刊|实施|施行|起草|通知|文件|颁布|印发|药典|说明书|召回|世卫|WHO|卫健委|更新于|截至|"
    r"\b(?:guidelines?|published|publication|updated|approv(?:ed|al)|issued|accessed|retrieved|versions?|FDA|EMA|NICE|CDC|releas(?:ed|e)|edition|conference|congress|effective|journal|recall(?:ed)?|"
    r"launched|consensus|last reviewed|reviewed|copyright|act|law|trial|study|enrol(?:led|ment)|cohort|since its|marketed|statement|label)\b",
    re.IGNORECASE,
)
_STOP = re.compile(r"[。；;！!？?\n]|\.\s")
REACH = 24


def dates(text: str) -> Iterator[Finding]:
    """Exact dates in `text` (half-width) that a person's life holds; those of a birth as `birth_date`. May overlap."""
    for match in _BIRTH_MONTH.finditer(text):
        yield Finding(*match.span(), "birth_date")
    for pattern in FULL:
        for match in pattern.finditer(text):
            life, paper, birth = _around(text, match, _LIFE), _around(text, match, _PAPER), _around(text, match, _BIRTH)
            if pattern is _COMPACT and min(life, birth) > 10:
                continue  # eight digits are a date only where somebody says so
            if paper < min(life, birth):
                continue
            yield Finding(*match.span(), "birth_date" if birth <= 14 and birth <= life else "date")
    for pattern in PARTIAL:
        for match in pattern.finditer(text):
            life, birth = _around(text, match, _LIFE), _around(text, match, _BIRTH)
            if min(life, birth) <= 12 and _around(text, match, _PAPER) > min(life, birth):
                yield Finding(*match.span(), "birth_date" if birth <= 12 else "date")


def _around(text: str, match: re.Match[str], words: re.Pattern[str]) -> int:
    """Characters between the match and the nearest of `words` in the same sentence; a large number when there is none."""
    before = _STOP.split(text[max(0, match.start() - REACH) : match.start()])[-1]
    after = _STOP.split(text[match.end() : match.end() + REACH])[0]
    nearest = 1000
    for hit in words.finditer(before):
        nearest = min(nearest, len(before) - hit.end())
    if (hit_after := words.search(after)) is not None:
        nearest = min(nearest, hit_after.start() + 1)
    return nearest


def parse(text: str) -> tuple[date, str] | None:
    """The day that an exact date names and a pattern to write another in the same form (strftime's letters), or None."""
    for pattern in FULL:
        match = pattern.fullmatch(text)
        if match is None or "y" not in match.re.groupindex:
            continue
        found = match.groupdict()
        month = found.get("m") or found.get("m2")
        number = int(month) if month else 1 + next(i for i, name in enumerate(_MONTHS) if name.startswith(str(found["b"])[:3].lower()))
        try:
            day = date(int(found["y"]), number, int(found.get("d") or found["d2"]))
        except ValueError:
            return None
        spans = sorted(
            (match.span(g), letter)
            for g, letter in (("d2", "%d"), ("m2", "%m"), ("d", "%e"), ("m", "%n"), ("b", "%B"), ("y", "%Y"))
            if found.get(g)
        )
        pieces, at = [], 0
        for (start, end), letter in spans:
            pieces += [text[at:start].replace("%", "%%"), letter]
            at = end
        return day, "".join([*pieces, text[at:].replace("%", "%%")])
    return None
