"""Check digits. Each takes digits without separators and says whether they hold. Pure; used by `structured` and `surrogates`."""

from __future__ import annotations

from datetime import date

#: first two digits of a Chinese identity number: the provinces (GB/T 2260), and 83 for residents of Taiwan
PROVINCES = frozenset(
    map(str, [*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83])
)
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def id_card_digit(first17: str) -> str:
    """The 18th character of a Chinese identity number (GB 11643-1999, ISO 7064 MOD 11-2)."""
    return "10X98765432"[sum(int(d) * w for d, w in zip(first17, _ID_WEIGHTS, strict=True)) % 11]


def is_id_card(digits: str) -> bool:
    """18 characters: known province, a date that exists, right check character."""
    return len(digits) == 18 and has_id_form(digits) and digits[17].upper() == id_card_digit(digits[:17])


def has_id_form(digits: str) -> bool:
    """Province and date of an 18- or 15-character identity number, whatever its check character says."""
    if len(digits) not in (15, 18) or digits[:2] not in PROVINCES or not digits[2:17].isdigit():
        return False
    day = digits[6:14] if len(digits) == 18 else "19" + digits[6:12]
    try:
        date(int(day[:4]), int(day[4:6]), int(day[6:8]))
    except ValueError:
        return False
    return 1850 <= int(day[:4]) <= 2100


def luhn_digit(body: str) -> str:
    """The digit that makes `body` + digit a valid card number (ISO/IEC 7812-1)."""
    total = 0
    for place, character in enumerate(reversed(body)):
        value = int(character) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def is_luhn(digits: str) -> bool:
    return luhn_digit(digits[:-1]) == digits[-1]


def nhs_digit(first9: str) -> str | None:
    """The tenth digit of an NHS number (modulus 11), or None where no number has these nine."""
    value = (11 - sum(int(d) * w for d, w in zip(first9, range(10, 1, -1), strict=True)) % 11) % 11
    return None if value == 10 else str(value)


def is_nhs(digits: str) -> bool:
    return nhs_digit(digits[:9]) == digits[9]
