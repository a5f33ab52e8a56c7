"""Pieces of the Query expansion page: the runs, one evaluation, two expanders side by side.

Drawing only; figures come from `core.expansion.runs` and `core.expansion.compare`. Used by pages/expansion.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.i18n import t
from app.jobs_widgets import kind_name
from app.session import current_user
from app.widgets import ago, choose_in_address, link_to, link_to_job, status_badge
from core.expansion import compare, runs
from core.expansion.compare import Compared, Difference, Pair
from core.expansion.points import MAXIMA
from core.expansion.runs import Mean, Output, Report, Summary
from core.jobs import views as jobs

#: readable on the light and on the dark ground
BASE, NEW = "#8a8f98", "#2f8fa6"
PAGE = 6
KINDS = ("expansion_base", "expansion_terms", "expansion_sft", "expansion_grpo", "expansion_evaluate", "expansion_export")
RATINGS = ("excellent", "good", "acceptable", "poor", "failed")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under translated headings."""
    heads = [t(f"expansion_training.col_{c}") for c in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def interval(m: Mean) -> str:
    """A mean with its interval, or a dash."""
    if m["mean"] is None or m["ci_low"] is None or m["ci_high"] is None:
        return "–"
    return f"{m['mean']:.3f} [{m['ci_low']:.3f}, {m['ci_high']:.3f}]"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


# --- runs -----------------------------------------------------------------------------------------------------------------


def show_start() -> None:
    """The steps in their order, each a link to its form."""
    if current_user().role not in ("engineer", "admin"):
        return
    st.caption(t("expansion_training.steps"))
    with st.container(horizontal=True):
        for kind in ("expansion_base", "expansion_sft", "expansion_grpo", "expansion_evaluate", "expansion_export", "expansion_terms"):
            link_to("jobs", kind_name(kind), icon=":material/play_circle:", kind=kind)


def show_runs() -> None:
    """Trainings and evaluations, newest first, and the versions that came of them."""
    show_start()
    found = [job for job in jobs.newest(limit=200) if job.kind in KINDS]
    versions = runs.versions()
    if not found and not versions:  # trainings from the command line leave versions, and no jobs
        st.info(t("expansion_training.no_runs"), icon=":material/manage_search:")
    for job in found[:20]:
        with st.container(horizontal=True, vertical_alignment="center"):
            status_badge(job.status)
            made = job.result.get("version") or job.result.get("expander") or job.config.get("name") or ""
            link_to_job(job.id, f"#{job.id} {kind_name(job.kind)} · {made}")
            st.caption(f"{ago(job.created_at)} {result_text(job.result)}")
    if versions:
        with st.expander(t("expansion_training.versions", num=len(versions)), icon=":material/deployed_code:"):
            for name, kind in versions:
                link_to("models", f"{name} · {t(f'expansion_training.kind_{kind}')}", version=name)


def result_text(result: dict[str, Any]) -> str:
    """The one figure of a job that is worth a line."""
    if "last_score" in result:
        return t("expansion_training.result_grpo", first=f"{result['first_score']:.3f}", last=f"{result['last_score']:.3f}")
    if "held_out_loss" in result:
        return t("expansion_training.result_loss", loss=f"{result['held_out_loss']:.3f}")
    if gain := result.get("recall@10 gain"):
        return t("expansion_training.result_gain", gain=f"{gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]")
    return ""


# --- one evaluation -------------------------------------------------------------------------------------------------------


def choose() -> int | None:
    """Which evaluation is open is in the address (?evaluation=), so that it can be sent to somebody."""
    rows = runs.listing()
    if not rows:
        st.info(t("expansion_training.no_evaluations"), icon=":material/monitoring:")
        show_start()
        return None
    names = {r.id: f"{r.id} · {r.name} · {', '.join(r.summary)} ({r.num_queries}) · {r.created_at:%Y-%m-%d %H:%M}" for r in rows}
    chosen = choose_in_address("evaluation", t("expansion_training.choose"), names, key="expansion_chosen")
    row = next(r for r in rows if r.id == chosen)
    if row.job_id and current_user().role in ("engineer", "admin"):
        link_to_job(row.job_id, t("expansion_training.job", id=row.job_id))
    return chosen


def show_report(report: Report) -> None:
    """Means, valid lines, drift, recall; dimensions; slices."""
    rows = []
    for name, one in report["models"].items():
        s, n = one["summary"], len(one["outputs"])
        drift = "–" if s["drift"] is None else f"{s['drift']:.3f} ({s['drift_from']})"
        rows.append((name, interval(s["reward"]), interval(s["rubric"]), interval(s["grounded"]), share(s["valid_lines"]),
                     f"{s['valid_outputs']}/{n}", drift, f"{s['seconds'] / n:.2f}" if s["seconds"] else "–"))  # fmt: skip
    table(("model", "reward", "rubric", "grounded", "valid_lines", "valid_outputs", "drift", "seconds"), rows)
    st.caption(t("expansion_training.reward_note" if report["corpus"] else "expansion_training.ungrounded_note"))
    show_recall(report)
    show_dimensions({name: one["summary"] for name, one in report["models"].items()})
    lines = [
        (t(f"expansion_training.by_{s['by']}"), slice_name(s["by"], s["value"]), name, s["n"], interval(s))
        for name, one in report["models"].items()
        for s in one["summary"]["slices"]
    ]
    with st.expander(t("expansion_training.slices")):
        table(("by", "value", "model", "n", "reward"), sorted(lines, key=lambda line: (line[0], line[1])))


def show_recall(report: Report) -> None:
    """recall@10 of the plain query and with the lines, by language."""
    rows = []
    for name, one in report["models"].items():
        parts = {**one["summary"]["by_language"], **({"": one["summary"]["retrieval"]} if one["summary"]["retrieval"] else {})}
        for language, r in parts.items():
            gain = r["gain"]
            text = "–" if gain["mean"] is None else f"{gain['mean']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}]"
            rows.append((name, slice_name("language", language) if language else t("expansion_training.all"), r["n"],
                         f"{r['plain']:.3f}", f"{r['expanded']:.3f}", text, verdict(gain)))  # fmt: skip
    if rows:
        st.subheader(t("expansion_training.recall"), anchor=False)
        table(("model", "language", "n", "plain", "expanded", "gain", "verdict"), rows)


def verdict(gain: Mean) -> str:
    """What the interval says."""
    if gain["ci_low"] is None or gain["ci_high"] is None:
        return ""
    word = "helps" if gain["ci_low"] > 0 else "hurts" if gain["ci_high"] < 0 else "not_shown"
    return t(f"expansion_training.{word}")


def show_dimensions(summaries: dict[str, Summary]) -> None:
    """Share of each dimension's points, and how the outputs are rated."""
    values = [
        {"dimension": t(f"expansion_training.dim_{name}"), "model": model, "share": max(0.0, s["dimensions"][name] / top)}
        for model, s in summaries.items()
        for name, top in MAXIMA.items()
    ]
    x = {"field": "share", "type": "quantitative", "axis": {"format": ".0%", "title": None}, "scale": {"domain": [0, 1]}}
    y = {"field": "dimension", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 160}}
    colour = {"field": "model", "type": "nominal", "legend": {"title": None, "orient": "top"}, "scale": {"scheme": "tableau10"}}
    encoding = {"x": x, "y": y, "yOffset": {"field": "model"}, "color": colour}
    st.subheader(t("expansion_training.dimensions"), anchor=False)
    st.vega_lite_chart({"data": {"values": values}, "height": {"step": 14}, "mark": {"type": "bar", "tooltip": True}, "encoding": encoding})
    table(("model", *RATINGS), [(model, *(s["ratings"].get(r, 0) for r in RATINGS)) for model, s in summaries.items()])


def slice_name(by: str, value: str) -> str:
    return value if by == "category" else t(f"expansion_training.value_{value}")


# --- two side by side -----------------------------------------------------------------------------------------------------


def show_comparison(report: Report) -> None:
    """Baseline and candidate of one evaluation: paired differences, slices, outputs."""
    names = list(report["models"])
    if len(names) < 2:
        st.info(t("expansion_training.needs_two"), icon=":material/compare:")
        return
    left, right = st.columns(2)
    baseline = left.selectbox(t("expansion_training.baseline"), names, index=0, key="expansion_baseline")
    candidate = right.selectbox(t("expansion_training.candidate"), names, index=1, key="expansion_candidate")
    if baseline == candidate:
        st.info(t("expansion_training.needs_two"), icon=":material/compare:")
        return
    found = compare.compare(report, baseline, candidate)
    show_differences(found)
    show_pairs(found)


def difference_row(d: Difference, name: str) -> tuple[object, ...]:
    text = f"{d.difference:+.3f} [{d.ci_low:+.3f}, {d.ci_high:+.3f}]"
    word = "better" if d.ci_low > 0 else "worse" if d.ci_high < 0 else "not_shown"
    p = d.p_value if d.p_holm is None else d.p_holm
    shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return (name, d.n, f"{d.baseline:.3f}", f"{d.candidate:.3f}", text, shown, t(f"expansion_training.{word}"))


def show_differences(found: Compared) -> None:
    """What changed, over all queries and by slice."""
    columns = ("measure", "n", "baseline", "candidate", "difference", "p", "verdict")
    table(columns, [difference_row(d, t(f"expansion_training.measure_{name}")) for name, d in found.measures.items()])
    before, after = found.valid
    st.markdown(f"{t('expansion_training.valid_lines')}: **{share(before)} → {share(after)}**")
    if found.slices:
        st.caption(t("expansion_training.holm"))
        rows = [difference_row(d, f"{t(f'expansion_training.by_{d.by}')}: {slice_name(d.by, d.value)}") for d in found.slices]
        table(("slice", *columns[1:]), rows)
    if found.too_few:
        few = ", ".join(f"{t(f'expansion_training.by_{by}')}: {slice_name(by, value)} ({n})" for by, value, n in found.too_few)
        st.caption(t("expansion_training.too_few", few=few))


def show_pairs(found: Compared) -> None:
    """Both outputs of every query, the largest losses or gains first."""
    losses = sorted((p for p in found.pairs if p.difference < 0), key=lambda p: p.difference)
    gains = sorted((p for p in found.pairs if p.difference > 0), key=lambda p: -p.difference)
    st.subheader(t("expansion_training.outputs"), anchor=False)
    st.caption(t("expansion_training.gains_losses", gains=len(gains), losses=len(losses), same=len(found.pairs) - len(gains) - len(losses)))
    kinds = ("losses", "gains", "all")
    kind = st.segmented_control(
        t("expansion_training.show"),
        kinds,
        default="losses" if losses else "gains" if gains else "all",
        format_func=lambda k: t(f"expansion_training.{k}"),
        key="expansion_kind",
    )
    shown: Sequence[Pair] = {"losses": losses, "gains": gains}.get(str(kind), found.pairs)
    pages = max(1, -(-len(shown) // PAGE))
    number = st.number_input(t("expansion_training.page_of", num=pages), 1, pages, width=160) if pages > 1 else 1
    for pair in shown[(number - 1) * PAGE : number * PAGE]:
        with st.expander(f"{pair.difference:+.3f} · {pair.query[:100]}"):
            for column, name, output in zip(st.columns(2), (found.baseline, found.candidate), (pair.baseline, pair.candidate), strict=True):
                with column:
                    show_output(name, output)
    if not shown:
        st.info(t("expansion_training.nothing_here"))


def show_output(name: str, output: Output) -> None:
    """One output with its score and what took points off."""
    grounded = "" if output["grounded"] is None else f" · {t('expansion_training.col_grounded')} {output['grounded']:.2f}"
    rating = t(f"expansion_training.col_{output['rating']}")
    st.markdown(f"**{name}** · {output['reward']:.3f} {rating}{grounded}")
    st.code(output["output"] or t("expansion_training.silent"), language=None, wrap_lines=True)
    if not output["finished"]:
        st.caption(f":material/warning: {t('expansion_training.unfinished')}")
    for d in output.get("deductions", []):
        reason = t(f"expansion.{d['reason']}", **{"line": d["line"], **d["facts"]})
        st.caption(f"{d['points']:+g} · {reason}")
