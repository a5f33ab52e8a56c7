"""A ladder as Markdown, for a pull request or a folder of figures. Called by training.evaluate_retrieval and the benchmarks."""

from __future__ import annotations

from core.retrieval.ladder import MAIN, Mean, Report, Step, helps

SHOWN = ("recall@5", "recall@10", "hit@5", "precision@5", "mrr@10", "ndcg@10")


def markdown(report: Report) -> str:
    """The whole report; every step with its interval."""
    lines = [
        f"# {report['name']}: {report['source']}",
        "",
        f"{report['num_queries']} questions ({report['gold']} gold), {report['corpus_size']} documents, {report['num_chunks']} chunks,"
        f" {report['num_syn']} pseudo-questions ({report['questions_from'] or 'none'}), encoder {report['encoder'] or 'none'},"
        f" reranker {report['reranker'] or 'none'}. Intervals: 95 %, paired bootstrap.",
        "",
        *ladder_table(report),
        "",
        f"Chosen: `{report['plan'] or 'the defaults'}`, {MAIN} {mean_text(report['chosen'][MAIN])};"
        f" against the best single leg ({report['best_leg']}) {step_text(report['chosen_against_best_leg'])};"
        f" chosen and measured on different halves {step_text(report['crossfit'])}.",
        "",
        *(f"- {c['stage']} ({c['detail']}): {step_text(c['step'])}: {'taken' if c['is_taken'] else 'left out'}" for c in report["choices"]),
        *(f"- {stage}: not measured ({why})" for stage, why in report["skipped"].items()),
        "",
        f"Failures (nothing relevant among the first 5): {report['failures'] or 'none'}. Questions needed to see a gain of 5 %:"
        f" {report['queries_needed'] or '-'}.",
        "",
    ]
    return "\n".join(lines)


def ladder_table(report: Report) -> list[str]:
    """One line per rung."""
    heads = [*SHOWN, f"{MAIN} against the rung before", "against the best leg", "questions/s"]
    rows = [f"| stage | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for stage in report["stages"]:
        cells = [f"{m['mean']:.3f}" if (m := stage["metrics"][name])["mean"] is not None else "-" for name in SHOWN]
        step, leg = stage["step"], stage["against_best_leg"]
        cells += [step_text(step[MAIN]) if step else "", step_text(leg[MAIN]) if leg else "(best leg)"]
        cells.append(f"{stage['queries_per_s']:.0f}" if stage["queries_per_s"] is not None else "-")
        rows.append(f"| {stage['name']} | {' | '.join(cells)} |")
    return rows


def mean_text(mean: Mean) -> str:
    return "-" if mean["mean"] is None else f"{mean['mean']:.3f} [{mean['ci_low']:.3f}, {mean['ci_high']:.3f}]"


def step_text(step: Step) -> str:
    """A step with its interval; bold when it lies above zero."""
    if step["difference"] is None:
        return "-"
    text = f"{step['difference']:+.3f} [{step['ci_low']:+.3f}, {step['ci_high']:+.3f}]"
    return f"**{text}**" if helps(step) else text
