"""What follows from verdicts: more readers, a third one, an arbiter, or the end."""

from __future__ import annotations

import pytest

from core.desk.routing import Next, Reading, what_next


def read(*verdicts: str) -> list[Reading]:
    """`minor` or `blind>signed`."""
    return [Reading(n, v.split(">")[0], v.split(">")[-1]) for n, v in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "wanted", "following"),
    [
        ((), 1, Next.MORE),
        (("unsafe",), 1, Next.CLOSE),
        (("unsafe",), 2, Next.MORE),
        (("minor", "minor"), 2, Next.CLOSE),
        (("acceptable", "minor"), 2, Next.THIRD),
        (("acceptable", "serious"), 2, Next.ARBITRATE),
        (("acceptable>minor", "serious>minor"), 2, Next.ARBITRATE),  # far apart blind, though signed alike
        (("acceptable>serious", "acceptable"), 2, Next.ARBITRATE),
        (("acceptable>minor", "minor"), 2, Next.CLOSE),
        (("unsafe", "unsafe"), 2, Next.ARBITRATE),
        (("serious", "unsafe>serious"), 2, Next.ARBITRATE),
        (("cannot_judge", "minor"), 2, Next.THIRD),
        (("cannot_judge", "cannot_judge"), 2, Next.CLOSE),
        (("acceptable", "minor", "minor"), 3, Next.CLOSE),
        (("minor", "minor", "acceptable"), 3, Next.ARBITRATE),  # the last signature would stand against the majority
        (("acceptable", "minor", "cannot_judge"), 3, Next.ARBITRATE),
        (("acceptable", "minor", "serious"), 3, Next.ARBITRATE),
        (("minor", "minor", "minor"), 3, Next.CLOSE),
    ],
)
def test_what_next(verdicts: tuple[str, ...], wanted: int, following: Next) -> None:
    assert what_next(read(*verdicts), wanted) is following
