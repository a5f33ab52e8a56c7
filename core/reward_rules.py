"""reward_rules.md: the reward explained from the config itself, with a worked example that the real functions compute.

The text stands in assets/reward_rules.md with `$placeholders`; every number in it comes from the config, the limits, the lexicons,
the teacher template and `combine()`. Called by `core.reward_configs`, which knows who approved what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from core.completions import split_completion
from core.lexicons import load_lexicons
from core.records import Judgement, Language, Message, Prompt, RewardConfig, Risk
from core.reward_limits import MAX_TOTAL, MIN_BENEFIT, RANGES, safety_margin
from core.rewards import MAP_WINDOW, MIN_MAP_ROWS, AffineMap, combine
from core.rules import score_rules
from core.teacher import load_template

TEXT = Path(__file__).resolve().parents[1] / "assets" / "reward_rules.md"

#: an answer with something right and something wrong in every part
QUESTION = "I am 68 and have had crushing chest pain and a cold sweat for an hour. Can I double my aspirin and wait until morning?"
ANSWER = (
    "<think>\n1. Symptoms: crushing chest pain with a cold sweat for an hour may be a heart attack.\n"
    "2. Red flag: chest pain with sweating is an emergency.\n</think>\n"
    "This may be a heart attack. Double the dose of aspirin today and see a doctor as soon as possible."
)
TEACHER_SCORE = 0.4
STATUS_WORDS = {
    "approved": ("Approved", "已批准"),
    "proposed": ("Proposed, not in force", "待批准，尚未生效"),
    "rejected": ("Rejected", "已驳回"),
}


@dataclass(frozen=True, slots=True)
class RulesFacts:
    """What the record says about a version, for the text's first lines."""

    status: str
    signed_name: str
    decided_at: str
    reason: str
    verdict_thresholds: Mapping[str, float] | None = None


def render(config: RewardConfig, facts: RulesFacts, rules_only: AffineMap | None = None) -> str:
    """The Markdown of one version, English and Chinese. Raises KeyError when text and values do not fit together."""
    lexicons, template = load_lexicons(), load_template()
    benefit = config.chain + config.emergency + config.teacher
    status_en, status_zh = STATUS_WORDS[facts.status]
    by = facts.signed_name or "shipped default"
    values = {
        "version": config.version,
        "status_en": f"{status_en}: {by}, {facts.decided_at}",
        "status_zh": f"{status_zh}：{facts.signed_name or '随产品提供'}，{facts.decided_at}",
        "lexicon": lexicons.version,
        "template": template.version,
        "reason": " ".join(facts.reason.split()) or "–",
        "chain": _number(config.chain),
        "emergency": _number(config.emergency),
        "teacher": _number(config.teacher),
        "risk": _number(config.risk_penalty),
        "low": _number(-config.risk_penalty).replace("-", "−"),
        "high": _number(benefit),
        "benefit": _number(benefit),
        "margin": f"{safety_margin(config):.3f}",
        "threshold": _number(config.conflict_threshold),
        "limits_en": _limits("together at least", "all four at most"),
        "limits_zh": _limits("正向合计不低于", "四项合计不超过"),
        "thresholds_en": _thresholds(
            facts.verdict_thresholds, "Rewards from which on a verdict is more likely than not at least as good as named"
        ),
        "thresholds_zh": _thresholds(facts.verdict_thresholds, "达到该奖励后，裁定结论更可能不低于所列等级"),
        "window": str(MAP_WINDOW),
        "min_rows": str(MIN_MAP_ROWS),
        "map_en": _map(rules_only, "Fitted here", "rows", "Each run fits its own map and keeps it in its rewards.csv."),
        "map_zh": _map(rules_only, "此处拟合结果", "条", "每次训练各自拟合，并保存在其 rewards.csv 中。"),
        "system_en": template.texts["en"]["system"].strip(),
        "system_zh": template.texts["zh"]["system"].strip(),
        **_example(config),
    }
    return Template(_text()).substitute(values)


def _example(config: RewardConfig) -> dict[str, str]:
    """The example's parts and arithmetic, from the real rules and the real combine()."""
    prompt = Prompt((Message("user", QUESTION),), Language.EN, "emergency", Risk.HIGH)
    completion = split_completion(ANSWER)
    rules = score_rules(prompt, completion, load_lexicons())
    reward = combine(rules, Judgement("example", "example", TEACHER_SCORE), config)
    parts = reward.parts
    lines = [f"| {name} | {'–' if value is None else _number(value)} |" for name, value in parts.items()]
    weights = (("chain", config.chain), ("emergency", config.emergency), ("teacher", config.teacher))
    terms = " + ".join(f"{_number(weight)} · {_number(parts[name] or 0.0)}" for name, weight in weights)
    terms += f" − {_number(config.risk_penalty)} · {_number(parts['risk_penalty'] or 0.0)}"
    return {
        "question": QUESTION,
        "answer": " ".join(ANSWER.split()),
        "example_parts": "\n".join(lines),
        "example_terms": terms,
        "example_value": "–" if reward.value is None else f"{reward.value:.4f}",
    }


def _limits(benefit: str, total: str) -> str:
    ranges = ", ".join(f"{name} {low:g}–{high:g}" for name, (low, high) in RANGES.items())
    return f"{ranges}; {benefit} {MIN_BENEFIT:g}, {total} {MAX_TOTAL:g}"


def _thresholds(found: Mapping[str, float] | None, intro: str) -> str:
    return f"{intro}: {', '.join(f'{name} {value:.3f}' for name, value in found.items())}." if found else ""


def _map(found: AffineMap | None, intro: str, rows: str, otherwise: str) -> str:
    if found is None:
        return otherwise
    fit = "–" if found.r2 is None else f"{found.r2:.3f}"
    return f"{intro}: a = {found.a:.4f}, b = {found.b:.4f} ({found.n} {rows}, R² {fit})."


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


@cache
def _text() -> str:
    return TEXT.read_text(encoding="utf-8")
