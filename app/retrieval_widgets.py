"""Pieces of the Retrieval page: the ladder with intervals, the choice, slices, questions side by side, failures."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.i18n import t
from app.session import require
from core import retrieval_reports as reports
from core.retrieval.failures import CATEGORIES
from core.retrieval.ladder import MAIN, Report, Step, helps

SHOWN = ("recall@5", "recall@10", "mrr@10", "ndcg@10", "hit@5", "precision@5")
#: readable on the light and on the dark ground, told apart by colour-blind readers
GOOD, BAD, NEUTRAL = "#2f8fa6", "#d0743c", "#8a8f98"
PLACES = 5
PAGE = 8


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Rows under translated headings."""
    heads = [t(f"retrieval.col_{c}") if not c.startswith("=") else c[1:] for c in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def step_text(step: Step | None) -> str:
    """A difference with its interval, or a dash."""
    if step is None or step["difference"] is None:
        return "–"
    return f"{step['difference']:+.3f} [{step['ci_low']:+.3f}, {step['ci_high']:+.3f}]"


def word(step: Step | None) -> str:
    """What a step has shown: helps, hurts, or nothing."""
    if step is None or step["difference"] is None:
        return ""
    return t("retrieval.helps") if helps(step) else t("retrieval.hurts") if (step["ci_high"] or 0) < 0 else t("retrieval.no_evidence")


def show_ladder(report: Report) -> None:
    """Every rung, the plan that follows, and what was left out and why."""
    names = {"num": report["num_queries"], "gold": t(f"retrieval.gold_{report['gold']}"), "documents": report["corpus_size"]}
    st.caption(t("retrieval.measured_on", set=report["source"], chunks=report["num_chunks"], syn=report["num_syn"], **names))
    chart(report)
    rows: list[tuple[object, ...]] = []
    for stage in report["stages"]:
        means = [stage["metrics"][m]["mean"] for m in SHOWN]
        step, leg = (steps[MAIN] if steps else None for steps in (stage["step"], stage["against_best_leg"]))
        per_s = "–" if stage["queries_per_s"] is None else f"{stage['queries_per_s']:.0f}"
        cells = ["–" if v is None else f"{v:.3f}" for v in means]
        against = t("retrieval.is_best_leg") if leg is None else step_text(leg)
        rows.append((t(f"retrieval.stage_{stage['name']}"), *cells, step_text(step), word(step), against, per_s))
    table(("stage", *(f"={m}" for m in SHOWN), "step", "verdict", "against_leg", "per_s"), rows)
    for stage_name, why in report["skipped"].items():
        st.caption(f"{t(f'retrieval.stage_{stage_name}').lstrip('+ ')}: {t(f'retrieval.skipped_{why}')}")
    show_choice(report)


def chart(report: Report) -> None:
    """nDCG@10 of every rung with its interval."""
    rows = [
        {"stage": t(f"retrieval.stage_{s['name']}"), "mean": m["mean"], "low": m["ci_low"], "high": m["ci_high"], "n": m["n"]}
        for s in report["stages"]
        if (m := s["metrics"][MAIN])["mean"] is not None
    ]
    m = report["chosen"][MAIN]
    rows.append({"stage": t("retrieval.chosen"), "mean": m["mean"], "low": m["ci_low"], "high": m["ci_high"], "n": m["n"]})
    y = {"field": "stage", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 220}}
    x = {"type": "quantitative", "scale": {"zero": False}, "axis": {"title": t("retrieval.ndcg_interval"), "tickCount": 6}}
    colour = {"condition": {"test": f"datum.stage === '{t('retrieval.chosen')}'", "value": BAD}, "value": GOOD}
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
    st.vega_lite_chart({"data": {"values": rows}, "height": {"step": 34}, "layer": layers}, width="stretch")


def show_choice(report: Report) -> None:
    """What was taken into the default plan, and how sure it is to stand above the best single leg."""
    st.subheader(t("retrieval.choice"), anchor=False)
    leg = t(f"retrieval.leg_{report['best_leg']}")
    st.markdown(t("retrieval.chosen_against", leg=leg, step=step_text(report["chosen_against_best_leg"])))
    st.markdown(t("retrieval.crossfit", step=step_text(report["crossfit"])))
    rows: list[tuple[object, ...]] = [
        (
            t(f"retrieval.stage_{c['stage']}"),
            c["detail"],
            step_text(c["step"]),
            t("retrieval.taken" if c["is_taken"] else "retrieval.left_out"),
        )
        for c in report["choices"]
    ]
    if rows:
        table(("stage", "detail", "step", "decision"), rows)
    if report["queries_needed"]:
        st.caption(t("retrieval.needed", num=report["queries_needed"], n=report["num_queries"]))


def show_slices(report: Report) -> None:
    """Kinds of questions: the chosen plan against the best single leg."""
    rows: list[tuple[object, ...]] = []
    for s in report["slices"]:
        few = t("retrieval.too_few")
        rows.append(
            (t(f"retrieval.by_{s['by']}"), t(f"retrieval.value_{s['value']}"), s["n"], few if s["step"] is None else step_text(s["step"]))
        )
    with st.expander(t("retrieval.slices")):
        table(("by", "value", "n", "step"), rows)
    with st.expander(t("retrieval.thresholds")):
        lines: list[tuple[object, ...]] = [
            (x["metric"], x["value"], "–" if x["bm25"] is None else f"{x['bm25']:.3f}", t(f"retrieval.source_{x['source']}"),
             t(f"retrieval.gold_{x['gold']}"), x["corpus_size"], x["definition"])
            for x in report["thresholds"].values()
        ]  # fmt: skip
        table(("metric", "threshold", "bm25", "source", "gold", "corpus", "definition"), lines)


def show_questions(chosen: int, report: Report) -> None:
    """Wins and losses between two rungs: which passage moved where, and by which door."""
    names = [s["name"] for s in report["stages"]] + ["chosen"]
    if len(names) < 2:
        return
    label = {name: t("retrieval.chosen") if name == "chosen" else t(f"retrieval.stage_{name}") for name in names}
    left, right, third = st.columns(3)
    before = left.selectbox(t("retrieval.before"), names, index=0, format_func=label.__getitem__, key="retrieval_before")
    after = right.selectbox(
        t("retrieval.after"), names, index=len(names) - 2 if len(names) > 2 else 1, format_func=label.__getitem__, key="retrieval_after"
    )
    kind = third.segmented_control(
        t("retrieval.show"), ["losses", "wins"], default="losses", format_func=lambda k: t(f"retrieval.{k}"), key="retrieval_kind"
    )
    rows = reports.changes(reports.questions(chosen), before, after)
    losses, wins = [r for r in rows if r["delta"] < 0], [r for r in reversed(rows) if r["delta"] > 0]
    st.markdown(t("retrieval.wins_losses", wins=len(wins), losses=len(losses)))
    shown = (wins if kind == "wins" else losses)[:PAGE]
    numbers = [p[2] for row in shown for name in (before, after) for p in row["stages"][name][:PLACES]]
    texts = reports.passage_texts(chosen, numbers)
    for row in shown:
        with st.expander(f"{row['delta']:+.3f} · {row['text'][:100]}"):
            for column, name in zip(st.columns(2), (before, after), strict=True):
                with column:
                    st.markdown(f"**{label[name]}** · {MAIN} {row['values'][name]:.3f}")
                    show_places(row, name, before if name == after else "", texts)
    if not shown:
        st.info(t("retrieval.no_changes"))


def show_places(row: dict[str, Any], name: str, other: str, texts: dict[int, str]) -> None:
    """The first places of one rung; a relevant passage says where it came from, and by which door."""
    ranks = {p[1]: p[0] for p in row["stages"][other]} if other else {}
    for rank, key, number, _score, via, leg, kind, entry in row["stages"][name]:
        is_relevant = row["qrels"].get(key, 0) > 0
        if rank > PLACES and not is_relevant:
            continue
        moved = ""
        if other and is_relevant:
            moved = t("retrieval.was_rank", rank=ranks[key]) if key in ranks else t("retrieval.was_nowhere")
        mark = ":material/check_circle: " if is_relevant else ""
        st.markdown(f"{mark}**{rank}.** {moved}")
        st.text(texts.get(number, key)[:220])
        door = t("retrieval.door_syn", entry=entry) if kind == "syn" else t("retrieval.door_original")
        st.caption(f"{leg} · {via if via in ('question', 'glossary', 'summary', 'pseudo_doc') else ''} · {door}".replace(" ·  · ", " · "))


def show_failures(chosen: int) -> None:
    """Failures by category with the reason; each can be corrected, and says by whom."""
    rows = reports.failed(chosen)
    if not rows:
        st.success(t("retrieval.no_failures"), icon=":material/check_circle:")
        return
    counts = {category: sum(row.category == category for row in rows) for category in CATEGORIES}
    table(("category", "num", "share"), [(t(f"retrieval.{c}"), n, f"{n / len(rows):.0%}") for c, n in counts.items()])
    options = ["", *(c for c in CATEGORIES if counts[c])]
    wanted = st.selectbox(t("retrieval.filter"), options, format_func=lambda c: t(f"retrieval.{c}") if c else t("retrieval.all"))
    kept = [row for row in rows if not wanted or row.category == wanted]
    number = (
        st.number_input(t("retrieval.page_of", num=-(-len(kept) // PAGE)), 1, -(-len(kept) // PAGE), width=160) if len(kept) > PAGE else 1
    )
    for row in kept[(number - 1) * PAGE : number * PAGE]:
        with st.expander(f"{t(f'retrieval.{row.category}')} · {row.text[:100]}"):
            params = {k: f"{v:.0%}" if isinstance(v, float) else v for k, v in row.params.items()}
            rank = t("retrieval.found_at", rank=row.rank) if row.rank else t("retrieval.found_nowhere")
            st.markdown(
                f"{t('retrieval.automatic')}: **{t(f'retrieval.{row.automatic}')}**. {t(f'retrieval.why_{row.reason}', **params)} {rank}"
            )
            if (c := row.correction) is not None:
                st.caption(
                    t("retrieval.corrected_by", who=c.who, at=f"{c.at:%Y-%m-%d %H:%M}", category=t(f"retrieval.{c.category}"), note=c.note)
                )
            with st.form(f"correct_{chosen}_{row.query_id}", border=False):
                category = st.selectbox(
                    t("retrieval.correct"), CATEGORIES, index=CATEGORIES.index(row.category), format_func=lambda c: t(f"retrieval.{c}")
                )
                note = st.text_input(t("retrieval.note"))
                if st.form_submit_button(t("retrieval.save")):
                    reports.correct(require("clinician", "engineer", "product").id, chosen, row.query_id, category, note)
                    st.rerun()
