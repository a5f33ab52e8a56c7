"""The importer's pure parts: splitter and duplicate finder, by property."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from core.importing.duplicates import near_duplicates
from core.importing.rows import detect_language
from core.importing.splitting import SHARES, assign
from core.records import Language, Split


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=200), st.integers(0, 5), st.randoms())
def test_split_does_not_depend_on_order_and_is_within_one_of_its_share(strata: list[str], seed: int, rng: random.Random) -> None:
    digests = [f"{i:04d}" for i in range(len(strata))]
    split = dict(zip(digests, assign(digests, strata, list(range(len(strata))), seed), strict=True))
    order = list(range(len(strata)))
    rng.shuffle(order)
    again = assign([digests[i] for i in order], [strata[i] for i in order], list(range(len(order))), seed)
    assert {digests[i]: s for i, s in zip(order, again, strict=True)} == split
    for name, share in SHARES.items():
        assert abs(sum(s is name for s in split.values()) - share * len(strata)) < 2.5


def test_group_members_share_their_leaders_split() -> None:
    digests = [str(i) for i in range(50)]
    groups = [i - i % 5 for i in range(50)]
    found = assign(digests, ["x"] * 50, groups, 0)
    assert all(found[i] == found[groups[i]] for i in range(50))
    assert set(found) <= {Split.TRAIN, Split.DEV, Split.TEST}


def test_near_duplicates_finds_what_a_full_comparison_finds() -> None:
    rng = random.Random(3)
    words = [f"word{i}" for i in range(300)]
    texts = [" ".join(rng.choices(words, k=30)) for _ in range(150)]
    for i in range(0, 50):
        texts.append(texts[i] + " please")
    found = near_duplicates(texts, [Language.EN] * len(texts))
    assert {later for later, _, _ in found.pairs} == set(range(150, 200))
    assert all(similarity >= 0.85 for _, _, similarity in found.pairs)
    assert found.groups == [*range(150), *range(50)]


def test_a_chain_of_near_duplicates_is_one_group_in_any_order() -> None:
    words = [f"word{i}" for i in range(40)]
    chain = [" ".join(words[i : i + 30]) for i in range(0, 8, 2)]  # neighbours are close, the ends are not
    apart = near_duplicates([chain[0], chain[3]], [Language.EN] * 2)
    assert apart.groups == [0, 1]
    for order in ([0, 1, 2, 3], [3, 0, 2, 1], [0, 3, 1, 2]):
        assert near_duplicates([chain[i] for i in order], [Language.EN] * 4).groups == [0] * 4


def test_language_of_mixed_text() -> None:
    assert detect_language("我在吃metformin，可以喝酒吗？") is Language.ZH
    assert detect_language("What does 头痛 mean in English, doctor?") is Language.EN
