"""Identifiers with a form: numbers, e-mail, plates. A form alone is believed where a checksum or a fixed shape makes chance
unlikely; elsewhere words nearby decide, for and against (a batch number of eleven digits is nobody's telephone).

Emergency and service numbers (120, 112, 911, 12320, 400-..., 1-800-...) belong to nobody and are never found. Pure; called by `detect`.
"""

# ruff: noqa: E501 - a pattern or a list of names broken over lines is not read more easily

from __future__ import annotations

import re
from collections.abc import Iterator

from core.deidentify.checksums import has_id_form, is_id_card, is_luhn, is_nhs
from core.deidentify.findings import Finding

#: how far before a number its words are looked for, in characters
NEAR = 16
_PHONE_WORD = re.compile(
    r"电话|手机|座机|固话|联系方式|联系我|联系人|致电|拨打|来电|回电|传真|热线|短信|微信|\b(?:tel|phones?|telephone|mobile|cell|call(?:ed)?|fax|landline|whatsapp|"
    r"contact(?:ed)?|reach(?:ed)?|ring|text(?:ed)?|number is|home|work)\b",
    re.IGNORECASE,
)
#: words after which digits count goods, papers and trials
_GOODS_WORD = re.compile(
    r"(?:批号|批次|批准文号|国药准字|准字|注册号|注册证|订单|快递|运单|条码|条形码|货号|序列号|设备号|机号|试剂|编码|文号|标准号|专利|版本|备案号|追溯码|基金|课题|项目编号|ISBN|ISSN|PMID|PMC|DOI|NCT|ChiCTR|"
    r"\b(?:lot|batch|order|serial|barcode|catalog(?:ue)?|cat|part|model|tracking|invoice|ref|patent|version|trial|registration|grant|NDC|GTIN|UPC|device|reagent|item|sku)\b)"
    r"(?:\s*(?:number|no\.?|code|id|号码?|编号))?\s*(?:is|was|为|是)?\s*[:：#.]?\s*[A-Za-z]{0,6}[-/]?$",
    re.IGNORECASE,
)
_ID_WORD = re.compile(r"身份证|证件号|公民身份|\bID (?:card|number|no)\b|identity|\bSFZ", re.IGNORECASE)
_BANK_WORD = re.compile(
    r"银行|储蓄卡|信用卡|借记卡|卡号|账号|帐号|户头|\b(?:credit|debit|bank|card|account|visa|mastercard|iban)\b", re.IGNORECASE
)
_NHS_WORD = re.compile(r"\bNHS\b", re.IGNORECASE)
_SSN_WORD = re.compile(r"\b(?:SSN|social security|soc\.? sec)", re.IGNORECASE)

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_])?\s?@\s?(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,12}(?![A-Za-z0-9])"
)
_ID18 = re.compile(r"(?<![0-9A-Za-z])\d{6}[ -]?(?:18|19|20)\d{2}[ -]?\d{4}[ -]?\d{3}[0-9Xx](?![0-9A-Za-z])")
_ID15 = re.compile(r"(?<![0-9A-Za-z])\d{15}(?![0-9A-Za-z])")
_CARD = re.compile(r"(?<![0-9A-Za-z.])\d(?:[ -]?\d){14,18}(?![0-9A-Za-z]|\.\d)")
_MOBILE = re.compile(r"(?<![0-9A-Za-z.])(?:(?:\+|00)?\s?\(?86\)?[- ]?)?1[3-9]\d(?:[- ]?\d{4}[- ]?\d{4}|[- ]\d{3}[- ]\d{5})(?![0-9]|\.\d)")
_LANDLINE = re.compile(
    r"(?<![0-9A-Za-z.])(?:(?:\+|00)86[- ]?\(?0?(?:10|2\d|[3-9]\d{2})\)?[- ]?|\(0(?:10|2\d|[3-9]\d{2})\)[- ]?|0(?:10|2\d|[3-9]\d{2})[- ]?)[2-8]\d{2,3}[- ]?\d{4}(?:\s*(?:转|-|ext\.?|x)\s*\d{1,5})?(?![0-9]|\.\d)",
    re.IGNORECASE,
)
_SPACED = re.compile(r"(?<![0-9A-Za-z.])1(?:[ .-]?\d){10}(?![0-9]|\.\d)")
_LOCAL = re.compile(r"(?<![0-9A-Za-z.-])[2-8]\d{2,3}[- ]?\d{4}(?![0-9]|\.\d)")
_FOREIGN = re.compile(r"(?<![0-9A-Za-z.])(?:\+|00)(?!86)[1-9]\d{0,2}[ .-]?(?:\(?\d{1,5}\)?[ .-]?){2,5}\d{2,4}(?![0-9])")
_US = re.compile(
    r"(?<![0-9A-Za-z.-])(?:1[ .-])?(?:\(([2-9]\d{2})\)[ ]?|([2-9]\d{2})([ .-]))[2-9]\d{2}[ .-]\d{4}(?:\s*(?:ext\.?|x)\s*\d{1,5})?(?![0-9-]|\.\d)",
    re.IGNORECASE,
)
_UK = re.compile(r"(?<![0-9A-Za-z.])(?:\(?0(?:7\d{3}|20|1\d{2,3}|2[3-9])\)?[ -]\d{3,4}[ -]?\d{3,4}|07\d{9})(?![0-9]|\.\d)")
_BARE10 = re.compile(r"(?<![0-9A-Za-z.])[2-9]\d{2}[2-9]\d{6}(?![0-9]|\.\d)")
_SSN = re.compile(r"(?<![0-9A-Za-z-])(?!000|666|9\d\d)\d{3}[- ](?!00)\d{2}[- ](?!0000)\d{4}(?![0-9-])")
_SSN_BARE = re.compile(r"(?<![0-9A-Za-z-])\d{9}(?![0-9-])")
_NHS = re.compile(r"(?<![0-9A-Za-z-])\d{3}[ -]?\d{3}[ -]?\d{4}(?![0-9-])")
_TOLL_FREE = re.compile(r"^400[ -]|^(?:\+?1[ .-]?)?\(?8(?:00|33|44|55|66|77|88)\b|^0?800[ -]|^0?(?:300|345)[ -]")
_PLATE = re.compile(
    r"(?<![A-Za-z0-9])[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·•.\s-]?(?=(?:[A-Z]*\d){2})[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])"
)
_PLATE_EN = re.compile(
    r"(?:licen[cs]e|number|registration|car|vehicle) plates?(?: number| no\.?)?(?: is| was|:|,)?\s*((?=[A-Z0-9 -]*\d)[A-Z0-9]{1,4}[ -]?[A-Z0-9]{2,4}(?:[ -]?[A-Z]{3})?)\b|(?:plated?|registered as)\s+((?=[A-Z]*\d)[A-Z0-9]{2,4}[ -][A-Z0-9]{3,4})\b"
)
_RECORD = re.compile(
    r"(?:病历|住院|门诊|急诊|就诊|病案|登记|患者|病人|检查|影像|超声|放射|标本|病理|检验|医保|社保|医疗保险|社会保障|健康卡|诊疗卡|就诊卡|挂号|护照|军官证|体检|档案|入院|处方|报告|条码|样本|流水)"
    r"(?:卡)?(?:号码?|编号|单号|卡号|ID|id|No\.?)\s*(?:\([^)]{0,6}\))?\s*(?:是|为|如下)?\s*[:：#]?\s*((?=[A-Za-z-]{0,6}\d)[A-Za-z0-9][A-Za-z0-9-]{3,24})(?![A-Za-z0-9])"
)
_RECORD_EN = re.compile(
    r"\b(?:MRN|M\.R\.N\.|(?:medical|health|hospital|patient|chart|clinic|unit) (?:record|chart|file)? ?(?:number|no\b\.?|num\b\.?|#|ID\b|identifier)|(?:record|chart|hospital|admission|encounter|accession|case|account|"
    r"specimen|visit|insurance|policy|member(?:ship)?|Medicare|Medicaid|beneficiary|passport|requisition) (?:number|no\b\.?|#|ID\b)|patient ID|hospital ID|passport)"
    r"\s*(?:is|was|of|[:#=]|\(MRN\))*\s*[:#]?\s*((?=[A-Z-]{0,6}\d)[A-Z0-9][A-Z0-9-]{3,20})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_ONLINE = re.compile(
    r"(?:QQ号?|qq号?|扣扣|微信号?|(?<![A-Za-z])(?:wechat|weixin|WeChat|vx|VX)(?![A-Za-z]))(?:号|账号|id|ID)?\s*(?:是|为|加)?\s*[:：]?\s*([1-9]\d{4,10}|[A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9])"
)


def structured(text: str) -> Iterator[Finding]:
    """Every identifier with a form in `text`, which `detect` has brought to half-width characters. May overlap."""
    for match in _EMAIL.finditer(text):
        yield Finding(*match.span(), "email")
    for match in _RECORD.finditer(text):
        yield Finding(*match.span(1), "record_number")
    for match in _RECORD_EN.finditer(text):
        yield Finding(*match.span(1), "record_number")
    for match in _ONLINE.finditer(text):
        yield Finding(*match.span(1), "online_id")
    for match in _PLATE.finditer(text):
        yield Finding(*match.span(), "plate")
    for match in _PLATE_EN.finditer(text):
        yield Finding(*match.span(1 if match.group(1) else 2), "plate")
    if len(_SOME_DIGITS.findall(text)) == 0:
        return
    yield from _numbers(text)


_SOME_DIGITS = re.compile(r"\d[\d() .-]{5,}\d|\d{7}")


def _numbers(text: str) -> Iterator[Finding]:
    for match in _ID18.finditer(text):
        digits = _bare(match.group())
        if is_id_card(digits) or (has_id_form(digits) and _near(_ID_WORD, text, match)):
            yield Finding(*match.span(), "id_card")
    for match in _ID15.finditer(text):
        if has_id_form(match.group()) and _near(_ID_WORD, text, match):
            yield Finding(*match.span(), "id_card")
    for match in _CARD.finditer(text):
        digits = _bare(match.group())
        is_card = is_luhn(digits) and digits[0] in "34569" and len(set(digits)) > 2 and not _is_goods(text, match)
        if (is_card and not is_id_card(digits)) or _near(_BANK_WORD, text, match):
            yield Finding(*match.span(), "bank_card")
    for match in _SSN.finditer(text):
        if "-" in match.group() or _near(_SSN_WORD, text, match):
            yield Finding(*match.span(), "ssn")
    for match in _SSN_BARE.finditer(text):
        if _near(_SSN_WORD, text, match):
            yield Finding(*match.span(), "ssn")
    for match in _NHS.finditer(text):
        is_shaped = " " in match.group() and is_nhs(_bare(match.group()))
        if _near(_NHS_WORD, text, match) or (is_shaped and not _near(_PHONE_WORD, text, match) and not _is_goods(text, match)):
            yield Finding(*match.span(), "nhs_number")
    yield from _telephones(text)


def _telephones(text: str) -> Iterator[Finding]:
    for match in _MOBILE.finditer(text):
        if not _is_goods(text, match) or _near(_PHONE_WORD, text, match):
            yield Finding(*match.span(), "mobile")
    for pattern in (_LANDLINE, _FOREIGN, _US, _UK):
        for match in pattern.finditer(text):
            if _TOLL_FREE.match(match.group().lstrip("+")) or _is_goods(text, match):
                continue
            if _is_certain(pattern, match.group()) or _near(_PHONE_WORD, text, match):
                yield Finding(*match.span(), "landline")
    for match in _SPACED.finditer(text):
        if _near(_PHONE_WORD, text, match):
            yield Finding(*match.span(), "mobile")
    for pattern in (_LOCAL, _BARE10):
        for match in pattern.finditer(text):
            if _near(_PHONE_WORD, text, match, 10) and not _is_goods(text, match) and not _TOLL_FREE.match(match.group()):
                yield Finding(*match.span(), "landline")


def _is_certain(pattern: re.Pattern[str], number: str) -> bool:
    """Whether the form says telephone without any word: brackets, hyphens, a plus, or dots between all groups."""
    if pattern is _FOREIGN:
        return number.startswith("+")
    if pattern is _UK:
        return True
    return bool(re.search(r"[-()]", number)) or number.startswith(("+", "07")) or number.count(".") == 2


def _near(words: re.Pattern[str], text: str, match: re.Match[str], reach: int = NEAR) -> bool:
    before = text[max(0, match.start() - reach) : match.start()]
    return bool(words.search(re.split(r"[。；;！!？?\n]", before)[-1]))


def _is_goods(text: str, match: re.Match[str]) -> bool:
    return bool(_GOODS_WORD.search(text[max(0, match.start() - 28) : match.start()]))


def _bare(text: str) -> str:
    return re.sub(r"[ -]", "", text)
