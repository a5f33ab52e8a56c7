"""Something else in the place of what identifies: always the same for the same value within a scope, never traceable without the key.

Values are drawn by HMAC-SHA-256 over (scope, kind, normal form), the scope being a dataset: the same person has the same surrogate
in all of it, and another in the next. Dates move by one number of days per document, so that intervals stay true. Surrogates
are nobody's: telephone numbers that no network gives out, identity numbers of a province that does not exist, example.com, and
names as case reports write them (李某甲). Pure. Called by `core.quarantine` and at the doors.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import date, timedelta

from core.deidentify.checksums import id_card_digit
from core.deidentify.dates import PARTIAL, parse
from core.deidentify.findings import Finding

STEMS = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥"
SURNAMES_ZH = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章"
FIRST_EN = (
    "Alex", "Robin", "Sam", "Jamie", "Taylor", "Casey", "Morgan", "Riley", "Avery", "Quinn", "Rowan", "Drew", "Jules", "Kit",
    "Lane", "Marlo", "Noel", "Pat", "Reese", "Sage", "Toby", "Val", "Wren", "Kai",
)  # fmt: skip
HEADS_EN = ("Doe", "Roe", "Poe", "Noe", "Voe", "Loe", "Foe")
TAILS_EN = ("by", "ham", "ley", "mont", "ridge", "stone", "well", "wick", "worth", "field", "ford", "gate", "land", "more", "ton", "vale")
#: dates move back by between these many days
SHIFT_DAYS = (30, 180)
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_HAN = re.compile(r"[\u3400-\u9fff]")


class Surrogates:
    """The surrogates of one document. `key` is the home's secret, `scope` the dataset, `document` what shares a date shift."""

    def __init__(self, key: bytes, scope: str, document: str) -> None:
        self._key, self._scope = key, scope
        low, high = SHIFT_DAYS
        self.shift = timedelta(days=-(low + self._number("shift", document) % (high - low + 1)))
        self._given: dict[tuple[str, str], str] = {}

    def apply(self, text: str, found: Sequence[Finding]) -> str:
        """`text` with every finding replaced. Findings in order and without overlaps, as `find` gives them."""
        pieces, at = [], 0
        for one in found:
            pieces += [text[at : one.start], self.of(one.kind, text[one.start : one.end])]
            at = one.end
        return "".join([*pieces, text[at:]])

    def of(self, kind: str, value: str) -> str:
        """The surrogate for one value; two values of a document never share one while there are others left."""
        if kind in ("date", "birth_date"):
            return self._date(value)
        plain = "".join(c for c in value.lower() if c.isalnum())
        known = self._given.get((kind, plain))
        if known is None:
            taken = {v for (k, _), v in self._given.items() if k == kind}
            known = next((v for n in range(20) if (v := self._make(kind, value, plain, n)) not in taken), None) or self._make(
                kind, value, plain, 0
            )
            self._given[kind, plain] = known
        return known

    def _number(self, *parts: object) -> int:
        said = "\0".join(map(str, (self._scope, *parts)))
        return int.from_bytes(hmac.new(self._key, said.encode(), hashlib.sha256).digest()[:8])

    def _make(self, kind: str, value: str, plain: str, attempt: int) -> str:
        number = self._number(kind, plain, attempt)
        if kind == "name":
            return self._name(value, attempt)
        if kind == "email":
            return f"person{number % 100_000:05d}@example.com"
        if kind == "address":
            return self._address(value, number)
        if kind == "id_card":
            body = f"99{number % 10_000:04d}19000101{number // 10_000 % 1000:03d}"
            return body + id_card_digit(body)
        prefix = {"mobile": "100", "bank_card": "0000", "ssn": "000", "nhs_number": "000"}.get(kind, "")
        return _in_place(value, prefix, number)

    def _name(self, value: str, attempt: int) -> str:
        if _HAN.search(value):
            number = self._number("name", value, attempt)
            return f"{SURNAMES_ZH[number % len(SURNAMES_ZH)]}某{STEMS[number // 64 % len(STEMS)]}"
        if "," in value:
            last, _, first = value.partition(",")
            words = [*first.split(), last]
        else:
            words = value.split()
        last_word = self._number("surname", words[-1].strip(".").lower(), attempt)  # Mr Smith and John Smith stay one family
        last = HEADS_EN[last_word % len(HEADS_EN)] + TAILS_EN[last_word // 16 % len(TAILS_EN)]
        if len(words) == 1:
            return last
        first = FIRST_EN[self._number("first", words[0].lower(), attempt) % len(FIRST_EN)]
        return f"{last}, {first}" if "," in value else f"{first} {last}"

    def _address(self, value: str, number: int) -> str:
        if _HAN.search(value):
            return f"某市{STEMS[number % len(STEMS)]}区{STEMS[number // 64 % len(STEMS)]}路某号"
        return f"Example Street, Sampletown {chr(65 + number % 26)}{chr(65 + number // 32 % 26)}"

    def _date(self, value: str) -> str:
        read = parse(value)
        if read is not None:
            return _write(read[0] + self.shift, read[1])
        for pattern in PARTIAL:
            match = pattern.fullmatch(value)
            if match and match.groupdict().get("m"):
                moved = date(2001, int(match["m"]), min(28, int(match["d"]))) + self.shift
                return value.replace(match["m"], "\0", 1).replace(match["d"], str(moved.day), 1).replace("\0", str(moved.month), 1)
        return "[日期]" if _HAN.search(value) else "[date]"


def _write(day: date, form: str) -> str:
    """`form` as `parse` gave it: %Y %m %d with two digits, %n and %e without, %B the month's name."""
    values = {"%Y": f"{day.year}", "%m": f"{day.month:02d}", "%d": f"{day.day:02d}", "%n": f"{day.month}", "%e": f"{day.day}"}
    values["%B"] = _MONTHS[day.month - 1]
    return re.sub(r"%[YmdneB%]", lambda m: values.get(m.group(), "%"), form)


def _in_place(value: str, prefix: str, number: int) -> str:
    """`value` with its digits replaced, first by `prefix`, then by those of `number`; everything else stays."""
    num_digits = sum(c.isdigit() for c in value)
    if num_digits == 0:
        return f"user{number % 1_000_000:06d}"
    digits = iter((prefix + f"{number:020d}"[::-1])[:num_digits].ljust(num_digits, "7"))
    return "".join(next(digits) if c.isdigit() else c for c in value)
