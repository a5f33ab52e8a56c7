"""Where a person lives. A place alone (武汉市, New York) is no address; a road with a number, a building or a village is, and after
words such as 家住 or "lives in" also a county or town. Pure; called by `detect`.
"""

# ruff: noqa: E501 - a pattern or a list of names broken over lines is not read more easily

from __future__ import annotations

import re
from collections.abc import Iterator

from core.deidentify.findings import Finding

_H = r"[\u4e00-\u9fff]"
_ZONE = rf"(?:{_H}{{2,7}}(?:省|自治区|特别行政区))?(?:{_H}{{1,7}}(?:市|自治州|盟))?(?:{_H}{{1,6}}(?:新区|开发区|区|县|旗|市))?(?:{_H}{{1,6}}(?:街道|镇|乡))?"
_NUM = r"(?:\d{1,5}|[一二三四五六七八九十百]{1,4})"
_REST = rf"(?:[,，\s]?(?:{_H}{{1,10}}?(?:小区|花园|公寓|新村|家园|广场|大厦|苑|园|城|里|村|府|院))?\s?(?:(?:\d{{1,4}}|[A-Za-z一二三四五六七八九十])\s?(?:-\s?\d{{1,4}})*\s?(?:号楼|号院|栋|幢|座|单元|层|楼|室|号|房|门|组|队|弄)|(?<=[单元楼栋幢座])\s?\d{{3,4}}(?!\d)))*(?:\s?-?\d{{3,4}}室?(?!\d))?"
_ROAD = rf"{_H}{{1,10}}(?:路|街|大道|道|巷|弄|胡同|大街)(?:[东西南北中]段)?\s?{_NUM}\s?(?:号|弄)(?!线|公路|楼梯)"
_HOUSE = rf"{_H}{{2,10}}(?:小区|花园|公寓|新村|家园|大厦|苑|里|城|府|湾|庭|园)\s?(?:\d{{1,4}}|[A-Z一二三四五六七八九十])\s?(?:号楼|栋|幢|座|号|单元|楼|-\d)"
_VILLAGE = rf"{_H}{{1,6}}(?:镇|乡|街道)\s?{_H}{{1,6}}村(?:{_NUM}\s?(?:组|队|号|社))?"
_FINE = re.compile(rf"(?:{_ZONE}(?:{_ROAD}|{_HOUSE}|{_VILLAGE}))(?:{_REST})")
_CUE = re.compile(
    r"家庭住址|家庭地址|通讯地址|联系地址|现住址|住址|地址|户籍所在地|户籍地|户籍|籍贯|户口所在地|家住|现住|居住在|居住于|租住在|住在|老家在|住于|收货地址|单位地址"
)
_LOOSE = re.compile(
    rf"\s?(?:[:：是为在于]\s?)?((?:{_H}{{2,7}}(?:省|自治区))?(?:{_H}{{1,7}}?(?:市|自治州|盟|地区))?{_H}{{1,8}}?(?:区|县|旗|镇|乡|村|街道|小区|路|街|巷|胡同)(?:{_H}{{1,8}}?(?:镇|乡|村|街道|小区|花园|公寓|路|街|巷|胡同|组))?(?:{_H}{{0,8}}?[0-9A-Za-z-]{{1,6}}\s?(?:号楼|号|栋|幢|座|单元|层|楼|室|组))*(?:\s?-?\d{{3,4}}(?:室)?)?)"
)
#: what the open left end of a match may have swallowed
_LEAD = re.compile(
    rf".*(?:{_CUE.pattern}|位于|来自|送至|送到|寄到|寄往|寄至|迁至|搬到|搬至|前往|就是|接到|住|在|到|于|是|为|，|,|：|:|。|；|患者|病人|家属|本人|我家|家里|她家|他家|急救车|急救|医生|需|请|至|从|往|的|由|因|并)"
)

_SUFFIX = r"(?:Street|St|Avenue|Ave|Road|Rd|Drive|Lane|Ln|Boulevard|Blvd|Court|Ct|Way|Place|Pl|Terrace|Close|Crescent|Square|Highway|Hwy|Parkway|Pkwy|Circle|Gardens|Grove|Trail|Row|Mews|Walk|Alley|Hill|Park)"
_CITY = r"(?:,?\s(?:[A-Z][A-Za-z.'’-]+\s?){1,3})"
_CODE = r"(?:[A-Z]{2}\s\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|\d{5}(?:-\d{4})?)"
_UNIT = r"(?:,?\s(?:Apt|Apartment|Unit|Suite|Ste|Flat|Room|#)\.?\s?[A-Za-z0-9-]{1,5})"
_EN = re.compile(
    rf"(?<![\w.-])(?:(?:Flat|Apt|Apartment|Unit)\s[A-Za-z0-9]{{1,4}},?\s)?\d{{1,5}}[A-Za-z]?\s(?:[NSEW]\.?\s|(?:North|South|East|West)\s)?(?:(?:[A-Z][a-z'’.]+|\d{{1,3}}(?:st|nd|rd|th))\s){{1,3}}(?:{_SUFFIX}\b\.?|Dr\.?(?=,|\s(?:Apt|Unit|#)))"
    rf"(?!\s(?:mg|ml|units?|syndrome|score)){_UNIT}?(?:{_CITY}?,?\s{_CODE}\b|,\s[A-Z][A-Za-z.'’-]+(?:\s[A-Z][a-z]+)?(?:,\s[A-Z]{{2}}\b)?)?"
)
_EN_LOW = re.compile(
    rf"\b(?:address(?:\sis|:)?|liv(?:e|es|ing)\s(?:at|on)|resid(?:es|ing|ent)\s(?:at|of)|home\sis\sat|sent\sto|mail(?:ed)?\sto)\s*:?\s*(\d{{1,5}}[a-z]?\s(?:[a-z'’.]+\s){{1,3}}(?i:{_SUFFIX})\b\.?{_UNIT}?(?:{_CITY}{{0,1}},?\s{_CODE}\b)?)",
    re.IGNORECASE,
)
_PO = re.compile(r"\bP\.?\s?O\.?\sBox\s\d{1,6}\b", re.IGNORECASE)
_POST = re.compile(
    rf"\b(?:ZIP(?:\scode)?|post\s?code|postal\scode)(?:\sis|:)?\s*({_CODE})\b|(?<=邮编)[:：是为]?\s?(\d{{6}})(?!\d)|(?<=邮政编码)[:：是为]?\s?(\d{{6}})(?!\d)",
    re.IGNORECASE,
)


def addresses(text: str) -> Iterator[Finding]:
    """Addresses in `text` (half-width). May overlap."""
    if re.search(r"[路街道巷弄同区县旗村苑园里厦寓城府湾庭镇乡]", text):
        for match in _FINE.finditer(text):
            yield Finding(_trimmed(text, match), match.end(), "address")
        for cue in _CUE.finditer(text):
            if (loose := _LOOSE.match(text, cue.end())) is not None and len(loose.group(1)) >= 4:
                yield Finding(*loose.span(1), "address")
    for pattern in (_EN, _PO):
        for match in pattern.finditer(text):
            yield Finding(*match.span(), "address")
    for match in _EN_LOW.finditer(text):
        yield Finding(*match.span(1), "address")
    for match in _POST.finditer(text):
        number = next(i for i in (1, 2, 3) if match.group(i))
        yield Finding(*match.span(number), "address")


def _trimmed(text: str, match: re.Match[str]) -> int:
    """Where the address itself starts: after the words that lead to it, which stand before its first zone or road mark."""
    head = re.split(r"省|市|自治区|区|县|路|街|道|镇|乡|巷|弄", match.group(), maxsplit=1)[0]
    lead = _LEAD.match(head)
    return match.start() + (lead.end() if lead and lead.end() < len(head) else 0)
