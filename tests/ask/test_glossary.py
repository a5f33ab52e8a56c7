"""Words of a field: found in mixed questions, misspelt, refused when unusable; and the wordings that follow from a question."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from core.errors import UserError
from core.retrieval.glossary import Glossary, Term, load_glossary
from core.retrieval.plans import Plan
from core.retrieval.rewrite import GIST, distance, gist, language_of, wordings
from core.retrieval.tokens import count
from core.settings import ROOT

GLOSSARY = Glossary.of(
    (
        Term(("superannuation guarantee", "SG"), ("强制养老金",)),
        Term(("superannuation guarantee charge", "SGC"), ("补缴罚金",)),
        Term(("bring-forward",), ("三年额度",)),
    )
)
KNOWN = {"superannuation": 3, "guarante": 3, "charg": 2, "bring": 1, "forward": 1, "rate": 5, "比例": 4}


def weight(token: str) -> float:
    return math.log(1 + (100 - KNOWN.get(token, 0) + 0.5) / (KNOWN.get(token, 0) + 0.5))


def similar(token: str, distance: int) -> list[tuple[str, int]]:
    return [(word, times) for word, times in KNOWN.items() if abs(len(word) - len(token)) <= distance]


def names(question: str) -> list[str]:
    return [mention.term.en[0] for mention in GLOSSARY.mentions(question)]


def test_names_are_found_whole_in_any_case_and_the_longest_wins() -> None:
    assert names("sg比例多少，SGC 呢") == ["superannuation guarantee", "superannuation guarantee charge"]
    assert names("the SGs of messages") == ["superannuation guarantee"], "not inside a word"
    assert names("Superannuation  Guarantee Charge") == ["superannuation guarantee charge"]
    assert names("bring forward rule, bring-forward") == ["bring-forward", "bring-forward"]
    assert names("") == []


def test_one_wrong_character_is_forgiven_only_where_the_index_knows_better() -> None:
    question = "强制养老全怎么交"
    assert [m.written for m in GLOSSARY.mentions(question, lambda _: False)] == ["强制养老全"]
    assert GLOSSARY.mentions(question, lambda token: token == "老全") == [], "what the documents write is no mistake"


def test_a_recognised_term_is_searched_by_the_names_that_the_index_holds() -> None:
    found, corrections, mentions = wordings("强制养老金比例", Plan(), glossary=GLOSSARY, weight=weight, similar=similar)
    assert [w.name for w in found] == ["glossary"]
    assert found[0].lexical.split() == ["比例", "superannuation", "guarantee"]
    assert corrections == []
    assert mentions[0].written == "强制养老金"
    both, _, _ = wordings("强制养老金比例", Plan(glossary=0.5), glossary=GLOSSARY, weight=weight, similar=similar)
    assert [(w.name, w.weight) for w in both] == [("question", 0.5), ("glossary", 0.5)]
    off, _, _ = wordings("强制养老金比例", Plan(glossary=0), glossary=GLOSSARY, weight=weight, similar=similar)
    assert [(w.name, w.lexical) for w in off] == [("question", "强制养老金比例")]


def test_a_misspelt_word_is_corrected_and_a_known_or_short_one_is_left() -> None:
    found, corrections, _ = wordings("superanuation garantee rate of mxyz", Plan(), glossary=Glossary(), weight=weight, similar=similar)
    assert [(c.written, c.meant) for c in corrections] == [("superanuation", "superannuation"), ("garantee", "guarantee")]
    assert found[0].lexical == "superannuation guarantee rate of mxyz"
    plain, none, _ = wordings("superanuation", Plan(spelling=False), glossary=Glossary(), weight=weight, similar=similar)
    assert (plain[0].lexical, none) == ("superanuation", [])


def test_expansion_lines_go_to_their_leg_and_the_question_leads_the_pseudo_document() -> None:
    lines = ("lex: 养老金 比例", "vec: how much is paid", "hyde：雇主支付 11.5%", "nonsense")
    found, _, _ = wordings("rate", Plan(), glossary=Glossary(), weight=weight, similar=similar, pseudo_doc="guarantee", expansions=lines)
    by_name = {w.name: w for w in found}
    assert by_name["pseudo_doc"].lexical == "rate rate rate rate rate guarantee"
    assert by_name["pseudo_doc"].dense == "rate guarantee"
    assert (by_name["lex: 养老金 比例"].lexical, by_name["lex: 养老金 比例"].dense) == ("养老金 比例", "")
    assert by_name["vec: how much is paid"].lexical == ""
    assert by_name["hyde：雇主支付 11.5%"].dense == "雇主支付 11.5%"
    assert len(found) == 5


def test_a_long_question_gets_a_gist_that_keeps_the_complaint() -> None:
    story = "老人高血压头晕三天，昨天和邻居聊了很久的天，天气也不错，家里人都很好，平时喜欢散步和看电视，孩子周末回来，现在血压很高怎么办？"
    short = gist(story, weight)
    assert "高血压" in short
    assert "怎么办" in short
    assert "邻居" not in short
    assert count(short) <= GIST
    assert gist("痛" * 200, weight) == "痛" * (2 * GIST)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [("abc", "abc", 0), ("abc", "acb", 1), ("abc", "abd", 1), ("abc", "ab", 1), ("abcdef", "x", 3), ("ab", "cd", 2)]
)
def test_distance_counts_edits_and_swaps_up_to_its_limit(a: str, b: str, expected: int) -> None:
    assert distance(a, b, 2) == expected


def test_the_shipped_glossaries_are_usable() -> None:
    files = sorted((ROOT / "assets" / "glossaries").glob("*.toml"))
    assert [f.stem for f in files] == ["guidelines", "superannuation"]
    for file in files:
        glossary = load_glossary(file)
        assert len(glossary) > 30
        for term in glossary.terms:
            for name in term.names:
                assert name.strip() == name
    assert len(load_glossary(ROOT / "nowhere.toml")) == 0


@pytest.mark.parametrize("content", ["[[term]]\nen = 3", "not toml [", '[[term]]\nen = ["the"]', "[[term]]", "term = 3"])
def test_a_broken_glossary_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_glossary(file)
    assert caught.value.code == "ask.bad_glossary"
    assert caught.value.params["path"] == file


def test_the_language_of_a_mixed_question_is_chinese() -> None:
    assert (language_of("SG 比例"), language_of("SG rate")) == ("zh", "en")
