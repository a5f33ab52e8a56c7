"""The evaluation report as Markdown, for people without the page: the same numbers as report.json, what got worse first.

Pure: text in, text out. A number that could not be measured is a dash, never a zero. Called by training.evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.evaluation import MIN_SLICE, Answered, Change, Comparison, EvaluationReport
from core.outcomes import ACCEPTABLE_TEACHER, OUTCOMES
from core.rewards import FAILURE_SCORE
from training.evaluate_measure import PARTS

#: regressions and wins written out with both answers; the rest is counted, and all are in the JSON
MAX_SHOWN = 30
MEANING = {
    "emergency": "emergency help advised where the question holds a danger sign",
    "safe": "no safety flag by the teacher",
    "acceptable": f"scored, not flagged, emergency help where needed, no prescription out of place, teacher at least {ACCEPTABLE_TEACHER}",
}


def report_markdown(name: str, report: EvaluationReport, texts: Mapping[str, Mapping[int, Answered]], figures: Sequence[str]) -> str:
    """One document in English. `texts` holds, by candidate and sample id, question and both answers of every changed prompt."""
    lines = [f"# {name}", "", *_made_with(report), ""]
    for comparison in report["comparisons"]:
        lines += _comparison(report, comparison, texts.get(comparison["candidate"], {}))
    if figures:
        lines += ["## Figures", "", *(f"![{figure}]({figure})" for figure in figures), ""]
    lines += _versions(report) + _slices(report)
    return "\n".join(lines) + "\n"


def _made_with(report: EvaluationReport) -> list[str]:
    decoding = ", ".join(f"{key} {value}" for key, value in report["decoding"].items())
    teacher = (report["teacher"] or "none") + (" (offline: compares with the reference)" if report["teacher_is_offline"] else "")
    return [
        f"Round {report['round']}. Dataset {report['dataset']}, splits {', '.join(report['splits'])} (hash {report['dataset_hash'][:12]}); "
        f"reward config {report['reward_config']}; teacher {teacher}; facts held against {report['index'] or 'no index (unscored)'}; "
        f"decoding of every version: {decoding}.",
        "",
        f"An answer that says nothing counts as {FAILURE_SCORE}, as it does in PPO; what could not be scored is left out and counted. "
        "Intervals are 95 %. Means and their differences: bootstrap over prompts, paired for differences. Shares: Wilson; their paired "
        "differences: Newcombe (1998), method 10. p-values: exact McNemar for outcomes, flipped signs for rewards; those of slices are "
        "corrected by Holm over all slices of a comparison that were large enough to test. Outcomes: "
        + "; ".join(f"*{outcome}*: {meaning}" for outcome, meaning in MEANING.items())
        + ". Facts are words of the answer found in retrieved passages: they do not see a negation.",
    ]


def _comparison(report: EvaluationReport, one: Comparison, texts: Mapping[int, Answered]) -> list[str]:
    lost, unsafe = one["emergency_regressions"], one["safety_regressions"]
    lines = [
        f"## {one['candidate']} against {report['baseline']}",
        "",
        f"Of {one['num_red_flag']} prompts with a danger sign, emergency advice was lost on **{len(lost)}** and a safety flag is new on "
        f"**{len(unsafe)}**" + (f" (samples {', '.join(map(str, dict.fromkeys([*lost, *unsafe])))})." if lost or unsafe else "."),
        "",
        f"Difference of the mean reward on {one['n']} prompts: **{signed(one['difference'])}** "
        f"[{signed(one['ci_low'])}, {signed(one['ci_high'])}], p {p_value(one['p_value'])}.",
        "",
        f"### What got worse ({len(one['regressions'])})",
        "",
        *_changes(one["regressions"], one["candidate"], report["baseline"], texts),
        "### Outcomes",
        "",
        "| outcome | split | n | both | only baseline | only candidate | neither | difference | 95 % | p (McNemar) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for o in one["outcomes"]:
        interval = f"{signed(o['ci_low'])} to {signed(o['ci_high'])}"
        cells = (o["n"], o["both"], o["only_baseline"], o["only_candidate"], o["neither"])
        counts = " | ".join(map(str, cells))
        difference = signed(o["difference"]) if o["n"] else "–"
        lines.append(f"| {o['outcome']} | {o['split'] or 'all'} | {counts} | {difference} | {interval} | {p_value(o['p_value'])} |")
    lines += ["", "### Difference by slice", "", f"Fewer than {MIN_SLICE} pairs are too few to say.", ""]
    lines += ["| by | value | n | difference | 95 % | p | p (Holm) |", "|---|---|---|---|---|---|---|"]
    few = [s for s in one["slices"] if s["n"] < MIN_SLICE]
    for s in one["slices"]:
        if s["n"] >= MIN_SLICE:
            interval = f"{signed(s['ci_low'])} to {signed(s['ci_high'])}"
            ps = f"{p_value(s['p_value'])} | {p_value(s['p_holm'])}"
            lines.append(f"| {s['by']} | {cell(s['value'])} | {s['n']} | {signed(s['difference'])} | {interval} | {ps} |")
    if few:
        lines += ["", "Too few: " + ", ".join(f"{s['by']} {s['value']} ({s['n']})" for s in few) + "."]
    lines += ["", f"### What got better ({len(one['wins'])})", ""]
    return lines + _changes(one["wins"], one["candidate"], report["baseline"], texts)


def _changes(changes: Sequence[Change], candidate: str, baseline: str, texts: Mapping[int, Answered]) -> list[str]:
    lines: list[str] = []
    for change in changes[:MAX_SHOWN]:
        found = texts.get(change["sample_id"])
        flag = ", danger sign" if change["is_red_flag"] else ""
        rewards = f"reward {number(change['baseline_reward'])} → {number(change['candidate_reward'])}"
        lines += [f"**Sample {change['sample_id']}** ({change['split']}{flag}): {', '.join(change['outcomes'])}; {rewards}", ""]
        if found is not None:
            for title, text in (("Question", found.question), (baseline, found.baseline), (candidate, found.candidate)):
                lines += [f"{title}:", "", *(f"> {line}" for line in (text or "(not kept)").splitlines() or [""]), ""]
    if len(changes) > MAX_SHOWN:
        lines += [f"{len(changes) - MAX_SHOWN} more are listed in the JSON beside this file.", ""]
    return lines or ["Nothing.", ""]


def _versions(report: EvaluationReport) -> list[str]:
    parts = [*PARTS, "facts"] if any("facts" in v["parts"] for v in report["versions"].values()) else list(PARTS)
    lines = [
        "## Versions",
        "",
        f"| version | split | n | silent | not scored | mean reward | 95 % | {' | '.join(parts)} | {' | '.join(OUTCOMES)} |",
    ]
    lines.append("|---" * (7 + len(parts) + len(OUTCOMES)) + "|")
    for version, whole in report["versions"].items():
        pieces = [("all", whole), *whole["by_split"].items()] if len(whole["by_split"]) > 1 else [(report["split"], whole)]
        for split, v in pieces:
            means = [
                number(p["mean"]) + (f" ({p['num_unscored']} not scored)" if p["num_unscored"] else "")
                for p in (v["parts"].get(name, {"mean": None, "n": 0, "num_unscored": 0}) for name in parts)
            ]
            shares = [f"{o['num']}/{o['n']}" for o in (v["outcomes"][name] for name in OUTCOMES)]
            interval = f"{number(v['ci_low'])} to {number(v['ci_high'])}"
            row = (version, split, v["n"], v.get("num_silent", "–"), v["num_unscored"], number(v["mean"]), interval, *means, *shares)
            lines.append(f"| {' | '.join(map(str, row))} |")
    return lines


def _slices(report: EvaluationReport) -> list[str]:
    lines = ["", "## Slices", "", f"Groups of fewer than {MIN_SLICE} scored prompts are too few to say.", ""]
    lines += ["| by | value | version | n | mean reward | 95 % |", "|---|---|---|---|---|---|"]
    for version, found in report["versions"].items():
        for piece in found["slices"]:
            few = piece["n"] < MIN_SLICE
            shown = "too few" if few else number(piece["mean"])
            interval = "" if few else f"{number(piece['ci_low'])} to {number(piece['ci_high'])}"
            lines.append(f"| {piece['by']} | {cell(piece['value'])} | {version} | {piece['n']} | {shown} | {interval} |")
    return lines


def cell(text: str) -> str:
    """A word from the data inside a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
