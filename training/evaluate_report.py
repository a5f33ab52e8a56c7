"""The evaluation report as Markdown, for people without the page: the same numbers as report.json, regressions first."""

from __future__ import annotations

from core.evaluation import MIN_SLICE, EvaluationReport


def report_markdown(name: str, report: EvaluationReport) -> str:
    """One document in English; a number that could not be measured is a dash, never a zero."""
    decoding = ", ".join(f"{key} {value}" for key, value in report["decoding"].items())
    teacher = report["teacher"] + (" (offline: compares with the reference)" if report["teacher_is_offline"] else "")
    lines = [
        f"# {name}",
        "",
        f"Dataset {report['dataset']}, split {report['split']} (hash {report['dataset_hash'][:12]}); reward config "
        f"{report['reward_config']}; teacher {teacher}; decoding: {decoding}. Intervals are 95 % (bootstrap over prompts).",
        "",
    ]
    for comparison in report["comparisons"]:
        lost = comparison["emergency_regressions"]
        lines += [
            f"## {comparison['candidate']} against {report['baseline']}",
            "",
            f"Difference of the mean reward on {comparison['n']} prompts: **{signed(comparison['difference'])}** "
            f"[{signed(comparison['ci_low'])}, {signed(comparison['ci_high'])}].",
            "",
            f"Emergency advice lost on {len(lost)} prompts" + (": sample " + ", ".join(map(str, lost)) if lost else "") + ".",
            "",
        ]
    lines += ["## Versions", "", "| version | n | not scored | mean reward | 95 % | chain | emergency | risk penalty | teacher |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for version, found in report["versions"].items():
        parts = [
            number(part["mean"]) + (f" ({part['num_unscored']} not scored)" if part["num_unscored"] else "")
            for part in found["parts"].values()
        ]
        interval = f"{number(found['ci_low'])} to {number(found['ci_high'])}"
        lines.append(f"| {version} | {found['n']} | {found['num_unscored']} | {number(found['mean'])} | {interval} | {' | '.join(parts)} |")
    lines += ["", "## Slices", "", f"Groups of fewer than {MIN_SLICE} scored prompts are too few to say.", ""]
    lines += ["| by | value | version | n | mean reward | 95 % |", "|---|---|---|---|---|---|"]
    for version, found in report["versions"].items():
        for piece in found["slices"]:
            few = piece["n"] < MIN_SLICE
            shown = "too few" if few else number(piece["mean"])
            interval = "" if few else f"{number(piece['ci_low'])} to {number(piece['ci_high'])}"
            lines.append(f"| {piece['by']} | {piece['value']} | {version} | {piece['n']} | {shown} | {interval} |")
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
