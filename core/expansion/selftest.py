"""Checks the reward on cases whose answer is known: right expansions, planted nonsense of the same form, and answers that must fail.

The passages of assets/expansion/selftest.toml are the corpus, so that it runs anywhere in a second. Called by
`./run.sh expansion selftest` and a test.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from core.expansion import reward, terms
from core.expansion.grounding import over_corpus

#: a right expansion must reach, planted nonsense must stay below
LEAST_RIGHT, MOST_WRONG = 0.8, 0.5
#: answers that are worth nothing, whatever else they hold
MUST_FAIL = (
    ("auth", "auth is important for security", "a line without prefix"),
    ("auth", "lex: auth settings\nHere is more about it\nvec: how to set up authentication", "one line without prefix"),
    ("auth", "lex: auth settings\nvec: how to set up authentication\n<|im_start|>assistant", "chat template"),
    ("糖尿病饮食", "lex: 血糖 主食 控制\n以上是扩展结果", "one line without prefix, Chinese"),
    ("auth", "", "nothing at all"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """`kind`: right, nonsense or failure; `rubric` is the reward without the retrieval term."""

    kind: str
    language: str
    query: str
    rubric: float
    reward: float
    is_passed: bool


def run() -> list[Check]:
    """Every check, in order."""
    with (terms.ASSETS / "expansion" / "selftest.toml").open("rb") as file:
        found = tomllib.load(file)
    corpus = [(str(i), case["passage"]) for i, case in enumerate(found["case"])]
    corpus += [(f"{language}{i}", text) for language, texts in found["padding"].items() for i, text in enumerate(texts)]
    grounding = over_corpus(corpus, {case["query"]: [str(i)] for i, case in enumerate(found["case"])})
    checks: list[Check] = []
    for case in found["case"]:
        right = reward.score(case["query"], case["correct"], grounding=grounding)
        wrong = reward.score(case["query"], case["nonsense"], grounding=grounding)
        checks.append(Check("right", case["language"], case["query"], right.rubric, right.reward, right.reward >= LEAST_RIGHT))
        checks.append(Check("nonsense", case["language"], case["query"], wrong.rubric, wrong.reward, wrong.reward < MOST_WRONG))
    for query, output, _ in MUST_FAIL:
        failed = reward.score(query, output)
        language = "zh" if terms.has_cjk(query) else "en"
        checks.append(
            Check("failure", language, output.partition("\n")[0], failed.rubric, failed.reward, failed.has_failed and failed.reward == 0)
        )
    return checks
