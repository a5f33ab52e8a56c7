"""Reward: the config in force in words, what other weights would do, proposals with their evidence, and the watch over runs."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.reward_watch_widgets import show_watch
from app.reward_widgets import (
    formula,
    interval,
    open_decision,
    percent,
    propose_form,
    show_calibration,
    show_changes,
    show_decision,
    show_history,
    table,
)
from app.session import current_user, require
from app.widgets import guarded, link_to_job, page_title
from core import reward_configs, reward_preview
from core.records import RewardConfig
from core.reward_configs import ConfigShown
from core.reward_limits import RANGES, THRESHOLD_RANGE, WEIGHTS, safety_margin, violations, weights_of

ROLES = ("product", "engineer", "admin")


def show_in_force(one: ConfigShown) -> None:
    """The formula, what its words mean, who signed it, and the rules as a file."""
    config = one.config
    with st.container(border=True):
        st.markdown(f"**{t('reward.in_force', version=config.version)}**")
        st.markdown(formula(config))
        st.caption(t("reward.in_words", high=f"{config.chain + config.emergency + config.teacher:g}", low=f"{config.risk_penalty:g}"))
        decided = one.decided_at or one.proposed_at
        who = one.signed_name or t("reward.shipped")
        st.caption(
            f"{t('reward.since', date=f'{decided:%Y-%m-%d %H:%M}', who=who)} · "
            + t("reward.numbers", threshold=f"{config.conflict_threshold:g}", margin=f"{safety_margin(config):.3f}")
            + (f" · {one.reason}" if one.decided_at else "")
        )
        text = reward_configs.rules_markdown(config.version)
        with st.container(horizontal=True):
            st.download_button(t("reward.download"), text, "reward_rules.md", "text/markdown", icon=":material/download:")
            with st.popover(t("reward.read"), icon=":material/article:", width="content"):
                st.markdown(text)


def show_proposal(one: ConfigShown, now: ConfigShown) -> None:
    """Old beside new with intervals, agreement held out, cases that change sides, and the two decisions."""
    person, evidence = current_user(), one.evidence or {}
    with st.container(border=True):
        why = "" if evidence.get("kind") == "calibration" else f" · {one.reason}"  # a calibration's numbers stand below
        st.markdown(f"**{one.config.version}** · {t('reward.proposed_by', who=one.proposed_by or t('reward.a_job'))}{why}")
        fitted = evidence.get("weights", {})
        before, after = ({**weights_of(c), "conflict_threshold": c.conflict_threshold} for c in (now.config, one.config))
        rows = [(t(f"reward.part_{n}"), f"{before[n]:g}", f"{after[n]:g}", interval(fitted.get(n))) for n in before]
        table(("part", "now", "proposed", "interval"), rows)
        if evidence.get("kind") == "calibration":
            measured = [
                (t(f"reward.measure_{n}"), interval(evidence["before"][n]), interval(evidence["after"][n]), interval(evidence["gain"][n]))
                for n in evidence["before"]
            ]
            table(("measure", "before", "after", "gain"), measured)
            st.caption(
                t("reward.evidence", cases=evidence["num_cases"], outcome=t(f"reward.outcome_{evidence['outcome']}"))
                + " "
                + t("reward.floor", before=percent(evidence["unsafe_above_before"]), after=percent(evidence["unsafe_above"]))
            )
            show_changes(evidence["changes"], evidence["num_changes"])
        if one.job_id is not None:
            link_to_job(one.job_id, t("reward.job", id=one.job_id))
        is_own = one.proposed_by_id == person.id
        with st.container(horizontal=True):
            if person.role == "admin" and not is_own:
                if st.button(t("reward.approve"), key=f"reward_approve_{one.config.version}", type="primary", icon=":material/draw:"):
                    open_decision("approve", one.config.version, now.config.version)
            elif person.role == "admin":
                st.caption(t("reward.own_proposal"))
            is_rejecting = (person.role == "admin" or is_own) and st.button(t("reward.reject"), key=f"reward_reject_{one.config.version}")
            if is_rejecting:
                open_decision("reject", one.config.version, now.config.version)


@st.fragment
def show_preview(now: ConfigShown) -> None:
    """Sliders over the decided cases; a fragment, so that only this part is drawn anew while somebody drags."""
    with guarded():
        loaded = reward_preview.load()
        st.caption(t("reward.preview_help", num=loaded.num_cases, unscored=loaded.num_unscored, cannot=loaded.num_cannot_judge))
        values: dict[str, float] = {}
        shown = {**weights_of(now.config), "conflict_threshold": now.config.conflict_threshold}
        for place, name in zip(st.columns(len(shown)), (*WEIGHTS, "conflict_threshold"), strict=True):
            low, high = RANGES.get(name, THRESHOLD_RANGE)
            values[name] = place.slider(t(f"reward.part_{name}"), low, high, shown[name], 0.01, key=f"reward_slider_{name}")
        tried = RewardConfig(now.config.version, **values)
        broken = violations(tried)
        for code, params in broken:
            st.error(t(f"reward.{code}", **{**params, "name": t(f"reward.part_{params['name']}")} if "name" in params else params))
        found = reward_preview.preview(loaded, now.config, tried)
        columns = st.columns(3)
        columns[0].metric(t("reward.changes_metric"), len(found.changes))
        both = ((found.pairwise_before, found.pairwise_after, "agreement", 0), (found.unsafe_before, found.unsafe_after, "unsafe", 1))
        for before, after, name, is_bad in both:
            delta = None if before is None or after is None or tried == now.config else f"{100 * (after - before):+.1f}"
            columns[1 + is_bad].metric(
                t(f"reward.{name}_metric"),
                percent(after),
                delta,
                delta_color="inverse" if is_bad else "normal",
                help=t(f"reward.{name}_help"),
            )
        show_changes([{f: getattr(c, f) for f in c.__slots__} for c in found.changes], len(found.changes), loaded.questions)
        if current_user().role in ("engineer", "admin") and not broken and tried != now.config:
            propose_form(tried)


def main() -> None:
    require(*ROLES)
    page_title("reward.title")
    if done := st.session_state.pop("reward_done", None):
        st.success(done)
    versions = reward_configs.listing()
    now = next(one for one in versions if one.is_in_force)
    show_in_force(now)
    waiting = [one for one in versions if one.status == "proposed"]
    st.subheader(t("reward.proposals", num=len(waiting)), anchor=False)
    for one in waiting:
        show_proposal(one, now)
    if not waiting:
        st.caption(t("reward.no_proposals"))
    show_decision()
    st.subheader(t("reward.calibration"), anchor=False)
    show_calibration()
    st.subheader(t("reward.preview"), anchor=False)
    show_preview(now)
    st.subheader(t("reward.watch"), anchor=False)
    show_watch()
    show_history(versions)


with guarded():
    main()
