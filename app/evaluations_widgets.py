"""Pieces of the Evaluations page: what got worse with both answers, means and curves as charts, outcomes, slices, files."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.i18n import t
from core import evaluation
from core.evaluation import MIN_SLICE, Change, Comparison, EvaluationReport
from core.home import current_home

#: readable on the light and on the dark ground, told apart by colour-blind readers
COLOURS = ("#2f8fa6", "#d0743c", "#8d7bd0", "#4fa36b", "#c2608f", "#a3a03a")
#: changed prompts on screen at once
PAGE = 8


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Rows under translated headings."""
    heads = [t(f"evaluations.col_{c}") for c in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def interval(mean: float | None, low: float | None, high: float | None, form: str = ".3f") -> str:
    """A mean with its 95 % interval, or a dash when nothing was scored."""
    if mean is None:
        return "–"
    return f"{mean:{form}}" + ("" if low is None or high is None else f" [{low:{form}}, {high:{form}}]")


def p_text(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def split_name(split: str) -> str:
    return split or t("evaluations.all_splits")


def show_harm(report: EvaluationReport, comparison: Comparison) -> None:
    """The verdict about harm first, then every prompt that got worse with both answers side by side."""
    lost, unsafe = len(comparison["emergency_regressions"]), len(comparison["safety_regressions"])
    names = {"candidate": comparison["candidate"], "baseline": report["baseline"]}
    if comparison["num_red_flag"] is not None:
        names["n"] = str(comparison["num_red_flag"])
    known = "of" if comparison["num_red_flag"] is not None else "old"
    if lost or unsafe:
        num = len(set(comparison["emergency_regressions"]) | set(comparison["safety_regressions"]))
        st.error(t(f"evaluations.regressions_{known}", num=num, lost=lost, unsafe=unsafe, **names), icon=":material/emergency_home:")
    else:
        st.success(t(f"evaluations.no_regressions_{known}", **names), icon=":material/verified_user:")
    if comparison["regressions"]:
        st.subheader(t("evaluations.worse", num=len(comparison["regressions"]), **names), anchor=False)
        show_changes(report, comparison, comparison["regressions"], "worse")


def show_changes(report: EvaluationReport, comparison: Comparison, changes: list[Change], key: str) -> None:
    """A page of changed prompts; the gravest open already when it is about harm."""
    num_pages = -(-len(changes) // PAGE)
    number = 1
    if num_pages > 1:
        label = t("evaluations.page_of", num=num_pages)
        number = st.number_input(label, 1, num_pages, key=f"evaluations_{key}_{comparison['candidate']}", width=160)
    shown = changes[(number - 1) * PAGE : number * PAGE]
    by_id = {change["sample_id"]: change for change in shown}
    for place, one in enumerate(evaluation.answers_of(report, comparison, shown)):
        change = by_id[one.sample_id]
        flag = ":material/emergency_home: " if change["is_red_flag"] else ""
        names = ", ".join(t(f"evaluations.outcome_{name}") for name in change["outcomes"])
        is_open = key == "worse" and number == 1 and place == 0
        with st.expander(f"{flag}#{one.sample_id} · {change['split']} · {names} · {one.question[:90]}", expanded=is_open):
            st.markdown(f"**{t('evaluations.question')}** · {one.language} · {one.risk} · {one.category}")
            st.text(one.question)
            sides = (
                (report["baseline"], one.baseline, change["baseline_reward"], key == "worse"),
                (comparison["candidate"], one.candidate, change["candidate_reward"], key != "worse"),
            )
            for column, (name, text, reward, has_passed) in zip(st.columns(2), sides, strict=True):
                with column.container(border=True):
                    word = t("evaluations.passed") if has_passed else t("evaluations.failed")
                    st.badge(f"{name}: {word}", color="green" if has_passed else "red")
                    st.text(text if text is not None else t("evaluations.answer_not_kept"))
                    st.caption(t("evaluations.reward_was", reward="–" if reward is None else f"{reward:.3f}"))


def show_means(report: EvaluationReport) -> None:
    """Mean reward of every version with its interval, a chart per split on one scale, so that they can be read down the page."""
    pieces = [(name, split, v) for name, one in report["versions"].items() for split, v in splits_of(report, one) if v["mean"] is not None]
    ends = [end for _, _, v in pieces for end in (v["ci_low"], v["ci_high"]) if end is not None]
    names = list(report["versions"])
    colours = {"domain": names, "range": [COLOURS[i % len(COLOURS)] for i in range(len(names))]}
    y = {"field": "version", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 220}}
    domain = {"domain": [min(ends), max(ends)], "nice": True} if ends else {"zero": False}
    x = {"type": "quantitative", "scale": domain, "axis": {"title": t("evaluations.mean_reward"), "tickCount": 6}}
    colour = {"field": "version", "type": "nominal", "scale": colours, "legend": None}
    layers = [
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "tooltip": True},
            "encoding": {"y": y, "x": {**x, "field": "mean"}, "color": colour},
        },
    ]
    for split in dict.fromkeys(split for _, split, _ in pieces):
        rows = [
            {"version": name, "mean": v["mean"], "low": v["ci_low"], "high": v["ci_high"], "n": v["n"]}
            for name, place, v in pieces
            if place == split
        ]
        st.caption(split)
        st.vega_lite_chart({"data": {"values": rows}, "height": {"step": 36}, "layer": layers}, width="stretch")


def splits_of(report: EvaluationReport, version: Any) -> list[tuple[str, Any]]:
    """(split, numbers) of a version; an older report has one unnamed piece."""
    found = list(version["by_split"].items())
    return found or [(report["split"], version)]


def show_curves(report: EvaluationReport) -> None:
    """Reward and KL over the rollouts of every RL version."""
    for name, curve in report["curves"].items():
        st.markdown(f"**{t('evaluations.curve', name=name)}**")
        left, right = st.columns(2)
        for column, key, title, colour in ((left, "reward", "curve_reward", COLOURS[0]), (right, "kl", "curve_kl", COLOURS[1])):
            values: list[float | None] = curve[key]  # type: ignore[literal-required]
            rows = [{"rollout": r, "value": v} for r, v in zip(curve["rollout"], values, strict=True) if v is not None]
            axis = {"title": t("evaluations.rollout"), "tickMinStep": 1}
            encoding = {
                "x": {"field": "rollout", "type": "quantitative", "axis": axis},
                "y": {
                    "field": "value",
                    "type": "quantitative",
                    "scale": {"zero": key == "kl"},
                    "axis": {"title": t(f"evaluations.{title}")},
                },
            }
            mark = {"type": "line", "color": colour, "point": len(rows) < 40, "tooltip": True}
            column.vega_lite_chart({"data": {"values": rows}, "mark": mark, "encoding": encoding, "height": 200}, width="stretch")


def show_outcomes(report: EvaluationReport, comparison: Comparison) -> None:
    """Yes-or-no outcomes of both versions on the same prompts, with the interval of the difference and the exact test."""
    if not comparison["outcomes"]:
        return
    names = {"candidate": comparison["candidate"], "baseline": report["baseline"]}
    st.markdown(f"**{t('evaluations.outcomes', **names)}**")
    rows: list[tuple[object, ...]] = [
        (
            t(f"evaluations.outcome_{o['outcome']}"),
            split_name(o["split"]),
            o["n"],
            o["both"],
            o["only_baseline"],
            o["only_candidate"],
            o["neither"],
            interval(o["difference"], o["ci_low"], o["ci_high"], "+.3f") if o["n"] else "–",
            p_text(o["p_value"]),
        )
        for o in comparison["outcomes"]
    ]
    table(("outcome", "split", "n_pairs", "both", "only_baseline", "only_candidate", "neither", "difference", "p_mcnemar"), rows)
    st.caption(t("evaluations.outcomes_help"))


def show_slice_differences(comparison: Comparison) -> None:
    """Differences of groups of prompts, corrected for their number; small groups are named only."""
    tested = [s for s in comparison["slices"] if s["n"] >= MIN_SLICE]
    few = [s for s in comparison["slices"] if s["n"] < MIN_SLICE]
    rows: list[tuple[object, ...]] = []
    for s in tested:
        difference = interval(s["difference"], s["ci_low"], s["ci_high"], "+.3f")
        rows.append((t(f"evaluations.by_{s['by']}"), s["value"], s["n"], difference, p_text(s["p_value"]), p_text(s["p_holm"])))
    if rows:
        table(("by", "value", "n_pairs", "difference", "p", "p_holm"), rows)
        st.caption(t("evaluations.holm_help", num=len(tested)))
    if few:
        groups = ", ".join(f"{s['value']} ({s['n']})" for s in few)
        st.caption(t("evaluations.too_few_pairs", num=MIN_SLICE, groups=groups))


def downloads(evaluation_id: int, report: EvaluationReport) -> None:
    """The report as files, as they lie in reports/rl_stage."""
    home = current_home()
    with st.container(horizontal=True):
        for suffix, media in ((".md", "text/markdown"), (".json", "application/json")):
            path = evaluation.report_file(home, evaluation_id, suffix)
            if path is not None:
                name = f"eval_report_round{report['round']}{suffix}" if report["round"] else f"evaluation-{evaluation_id}{suffix}"
                label = t("evaluations.download", kind="Markdown" if suffix == ".md" else "JSON")
                st.download_button(label, path.read_bytes(), name, media, key=f"evaluations_file_{suffix}", icon=":material/download:")


def show_ladder() -> None:
    """Every version ever measured by its newest report, best first."""
    rungs = evaluation.ladder()
    if not rungs:
        st.info(t("evaluations.empty"), icon=":material/monitoring:")
        return
    rows: list[tuple[object, ...]] = []
    for place, r in enumerate(rungs, 1):
        difference = "–" if r.difference is None else f"{r.difference:+.3f} ({r.baseline})"
        rows.append((place, r.version, interval(r.mean, r.ci_low, r.ci_high), r.n, difference, r.num_lost, r.scope, f"#{r.evaluation_id}"))
    table(("place", "version", "mean", "n", "difference", "regressions", "scope", "evaluation"), rows)
    st.caption(t("evaluations.ladder_help"))
