"""The reward: the rubric's own worked examples, every point accounted for, Chinese as English, and nonsense found out by retrieval."""

from __future__ import annotations

import pytest

from core.expansion import reward, selftest, terms
from core.expansion.explain import explain
from core.expansion.grounding import closeness, over_corpus
from core.expansion.points import MAXIMA

HYDE = "hyde: Configure auth by setting AUTH_SECRET."
#: the self-test of the published reward (tobi/qmd @dbfd0b4, finetune/reward.py), with what that code prints
WORKED = [
    ("auth", f"lex: auth setup\nlex: authentication config\nvec: how to configure authentication\n{HYDE}", 0.814),
    ("auth", "auth is important for security", 0.0),
    (
        "who is TDS motorsports",
        "lex: TDS motorsports history\nlex: TDS motorsports founders\nvec: information about TDS motorsports company",
        1.0,
    ),
    ("who is TDS motorsports", "lex: find information about\nlex: company details\nvec: who is this company", 0.083),
    (
        "how to use React hooks",
        "lex: React hooks tutorial\nlex: useEffect useState\nvec: how to use React hooks in functional components",
        0.892,
    ),
    ("auth", "<think>Let me think...</think>\nlex: auth", 0.375),
    ("auth", "lex: auth\nThis is some explanation\nvec: more", 0.0),
    (
        "meeting with Bob about C++",
        'lex: Bob "C++" meeting\nlex: Bob C++ discussion notes\nvec: meeting notes with Bob about C++ programming',
        1.0,
    ),
    ("meeting with Bob about C++", "lex: c++ meetings\nvec: programming meeting notes", 0.792),
    (
        "python memory leak debugging",
        'lex: "memory leak" python -java\nlex: tracemalloc profiler\nvec: how to find memory leaks in Python',
        0.917,
    ),
    ("auth /only:lex", "lex: auth setup\nlex: authentication config\nlex: login credentials", 0.833),
    ("auth /only:lex", "lex: auth setup\nvec: how to configure authentication", 0.667),
    ("React hooks /only:vec", "vec: how to use React hooks in functional components\nvec: useState and useEffect patterns in React", 1.0),
    (
        "PostgreSQL indexing /only:hyde",
        "hyde: PostgreSQL uses B-tree indexes by default. Create indexes with CREATE INDEX idx_name ON table(column). EXPLAIN ANALYZE "
        "shows whether queries use indexes efficiently.",
        0.875,
    ),
]


@pytest.mark.parametrize(("query", "output", "expected"), WORKED)
def test_the_rubrics_worked_examples_score_as_it_says(query: str, output: str, expected: float) -> None:
    assert reward.score(query, output).reward == pytest.approx(expected, abs=0.0006)


def test_the_documents_worked_examples_score_as_it_says() -> None:
    """SCORING.md gives 85, 55 and 15 of 100 (its README: a line without prefix is worth nothing); README's own example gets 90.7."""
    good = reward.score(
        "react hooks",
        "hyde: React Hooks allow you to use state and lifecycle features in functional components without writing a class.\n"
        "lex: react hooks tutorial\nlex: usestate useeffect\nvec: how to use react hooks in functional components\n"
        "vec: react hooks best practices guide",
    )
    medium = reward.score(
        "docker networking",
        "hyde: Docker networking is an important concept. Docker networking is used for container communication. Docker networking "
        "configuration is essential.\nlex: docker networking\nvec: docker networking",
    )
    bad = reward.score("auth", "auth is an important concept that relates to authentication.\nThe answer should be in Chinese.")
    best = reward.score(
        "auth config",
        "hyde: Authentication can be configured by setting the AUTH_SECRET environment variable and enabling the auth middleware in your "
        "application's config file.\nlex: authentication configuration\nlex: auth settings setup\n"
        "vec: how to configure authentication settings\nvec: authentication configuration options",
    )
    assert (good.rating, medium.rating, bad.rating) == ("excellent", "acceptable", "failed")
    assert good.reward == pytest.approx(0.85, abs=0.02)
    assert medium.reward == pytest.approx(0.55, abs=0.06)  # a lex line that is the query itself holds the whole at half
    assert bad.reward == 0
    assert best.reward == pytest.approx(0.907, abs=0.001)
    assert any(d.reason_key == "reason_hyde_repeats" and d.line == 1 for d in medium.deductions)
    assert reward.score("auth config", "lex: auth configuration\nvec: how to configure authentication").reward > 0.8


CASES = [
    ("auth config", "lex: auth\nvec: x"),
    ("what is gout", "lex: gout gout gout\nlex: gout gout\nvec: gout\nhyde: short"),
    ("Is Gout painful?", "lex: search for\nlex: painful joint overview\nvec: pain in the joint when walking"),
    ("痛风能不能吃海鲜", "lex: 相关信息\nlex: 痛风 嘌呤 概述\nvec: 海鲜"),
    ("糖尿病饮食", "<think>想一想</think>\nlex: 糖尿病饮食\nvec: 糖尿病饮食应该注意哪些方面的问题\nhyde: " + "血糖控制" * 30),
]


@pytest.mark.parametrize(("query", "output"), CASES)
def test_every_missing_point_has_a_reason_and_a_line(query: str, output: str) -> None:
    scored = reward.score(query, output)
    taken = dict.fromkeys([*MAXIMA, "think"], 0.0)
    for deduction in scored.deductions:
        if deduction.dimension != "cap":
            taken[deduction.dimension] += deduction.points
        for language in ("en", "zh"):
            said = explain(deduction, language)
            assert not said.startswith("expansion.")
            assert "{" not in said
    has_hyde = "hyde:" in output
    lost = sum(taken.values())
    maximum = 140 if has_hyde else 120
    uncapped = min(1.0, max(0.0, (maximum + lost + scored.bonus["quotes"]) / maximum))
    assert scored.rubric == pytest.approx(min(uncapped, 0.5) if any(d.dimension == "cap" for d in scored.deductions) else uncapped)
    for name, value in scored.dimensions.items():
        floor = MAXIMA[name] + taken[name]
        assert value == pytest.approx(max(-45 if name == "entity" else 0, floor) if has_hyde or name != "hyde" else 0)
        assert (-45 if name == "entity" else 0) <= value <= MAXIMA[name]


def test_ratings_begin_where_the_rubric_says() -> None:
    assert [reward.rating_of(x) for x in (1, 0.8, 0.7999, 0.6, 0.4, 0.2, 0.1999, 0)] == [
        "excellent", "excellent", "good", "good", "acceptable", "poor", "failed", "failed",
    ]  # fmt: skip


def test_chinese_is_read_as_english_is() -> None:
    assert terms.entities("二甲双胍会伤肾吗") == {"二甲双胍"}
    assert terms.entities("B超显示甲状腺结节4a级") >= {"b超", "甲状腺结节"}
    assert terms.entities("最近总是不舒服怎么办") == set()
    assert "糖尿" in terms.key_terms("我妈妈得了糖尿病能吃西瓜吗")
    assert not {"怎么", "么办", "能吃"} & terms.key_terms("糖尿病怎么办")
    right = reward.score(
        "二甲双胍会伤肾吗", "lex: 二甲双胍 肾功能 副作用\nlex: 二甲双胍 肾小球滤过率\nvec: 长期服用二甲双胍对肾脏有没有影响"
    )
    stray = reward.score("二甲双胍会伤肾吗", "lex: 汽车 轮胎 保养\nlex: 象棋 比赛 规则\nvec: 周末去哪里看演唱会比较好")
    echo = reward.score("二甲双胍会伤肾吗", "lex: 二甲双胍会伤肾吗\nvec: 二甲双胍会伤肾吗")
    assert right.rating == "excellent"
    assert stray.reward < 0.5  # the published heuristics give both the same
    assert echo.reward <= 0.5
    assert {d.reason_key for d in stray.deductions} >= {"reason_no_key_term", "reason_no_name", "reason_name_dropped"}


def test_nonsense_that_the_rubric_calls_excellent_falls_below_half_in_both_languages() -> None:
    checks = selftest.run()
    assert all(check.is_passed for check in checks), [c for c in checks if not c.is_passed]
    for language in ("en", "zh"):
        planted = [c for c in checks if c.kind == "nonsense" and c.language == language]
        assert len(planted) >= 5
        assert all(c.rubric > 0.8 for c in planted)
        assert max(c.reward for c in planted) < 0.5
        assert min(c.reward for c in checks if c.kind == "right" and c.language == language) >= 0.85


def test_grounding_explains_and_leaves_unknown_queries_alone() -> None:
    corpus = [(str(i), f"passage {i} about topic{i} with word{i}") for i in range(30)]
    grounding = over_corpus(corpus, {"Topic3 ?": {"3"}})
    output = "lex: topic3 banana umbrella\nvec: how to cook topic3 soup for penguins"
    scored = reward.score("topic3 ?", output, grounding=grounding)  # case and white space do not matter
    assert scored.grounded is not None
    assert scored.facts["rank"] == 1
    strays = [d for d in scored.deductions if d.reason_key == "reason_strays"]
    assert {d.line for d in strays} == {1, 2}
    assert sum(d.points for d in strays) == pytest.approx((scored.reward - scored.rubric) * scored.maximum)
    unknown = reward.score("something else", output, grounding=grounding)
    assert unknown.grounded is None
    assert unknown.reward == unknown.rubric
    assert closeness(["a", "b"], {"a"}) == 1.0
    assert closeness(["a", "b"], {"c"}) == 0.0
    assert closeness(["x", "a", "b"], {"a", "b"}) < 1.0
