"""The start form, drawn from the config of the chosen kind: one widget per field, with its default and help.

What is pressed is checked by `core.jobs.forms` whatever the widgets allowed; each thing that is wrong is shown as a sentence.
Used by pages/jobs.py.
"""

from __future__ import annotations

from datetime import time
from typing import Any

import streamlit as st

from app.estimate_widgets import estimate_panel
from app.i18n import t
from app.jobs_widgets import kind_name, local
from app.session import language, require
from app.widgets import guarded
from core.errors import UserError
from core.i18n import error_text
from core.jobs import forms, views
from core.jobs.forms import FormField
from core.jobs.kinds import KINDS


def start_form(template: Any | None, wanted: str = "") -> None:
    """Choose a kind, fill in its fields, start it now or every week. `template` is a job whose config is filled in; `wanted` the kind
    that another page has chosen."""
    startable = [name for name, kind in KINDS.items() if kind.is_startable]
    chosen = template.kind if template is not None else wanted
    first = startable.index(chosen) if chosen in startable else 1
    kind = st.selectbox(
        t("jobs.kind"), startable, index=first, format_func=kind_name, key=f"jobs_kind_{template.id if template else wanted or 0}"
    )
    filled = template.config if template is not None and template.kind == kind else {}
    choices = views.choices()
    prefix = f"jobs_new_{kind}_{template.id if template else 0}"
    with st.form(prefix, border=True), guarded():
        st.caption((KINDS[kind].config.__doc__ or "") if language() == "en" else KINDS[kind].zh)
        fields = forms.fields(kind)
        values: dict[str, Any] = {}
        columns = st.columns(2)
        for n, field in enumerate(f for f in fields if not f.is_advanced):
            with columns[n % 2]:
                values[field.name] = _widget(field, filled.get(field.name, field.default), choices, prefix)
        with st.expander(t("jobs.advanced")):
            columns = st.columns(2)
            for n, field in enumerate(f for f in fields if f.is_advanced):
                with columns[n % 2]:
                    values[field.name] = _widget(field, filled.get(field.name, field.default), choices, prefix)
            after, priority = _place(prefix)
            weekly = _weekly(prefix)
        estimate_panel(kind, values, prefix)
        if st.form_submit_button(t("jobs.submit"), type="primary", icon=":material/play_arrow:", key=f"{prefix}_go"):
            _submit(kind, {k: v for k, v in values.items() if v is not None}, after, priority, weekly)


def _submit(kind: str, values: dict[str, Any], after: int | None, priority: int, weekly: tuple[str, str, str] | None) -> None:
    person = require("engineer")
    wrong = forms.problems(kind, values)
    for error in wrong.values():
        st.error(error_text(error, language()))
    if wrong:
        return
    if weekly is not None:
        name, cron, zone = weekly
        views.put_schedule(name, kind, values, cron, zone, person.id)
        row = next(s for s in views.list_schedules() if s.name == name.strip())
        st.session_state["jobs_done"] = t("jobs.schedule_saved", name=row.name, at=local(row.next_at) if row.next_at else "")
    else:
        job_id = views.start(kind, values, person.id, after_id=after, priority=priority)
        st.session_state["jobs_done"] = t("jobs.started", id=job_id)
        st.query_params["job"] = str(job_id)
    st.rerun()


def _place(prefix: str) -> tuple[int | None, int]:
    """After which job, and how urgent."""
    active = [job for status in ("running", "queued") for job in views.newest(status=status)]
    names = {job.id: f"#{job.id} {kind_name(job.kind)}" for job in active}
    left, right = st.columns(2)
    after = left.selectbox(
        t("jobs.after"),
        [0, *names],
        format_func=lambda job_id: names.get(job_id, t("jobs.no_after")),
        help=t("jobs.after_help"),
        key=f"{prefix}_after",
    )
    priority = right.number_input(t("jobs.priority"), value=0, step=1, help=t("jobs.priority_help"), key=f"{prefix}_priority")
    return after or None, int(priority)


def _weekly(prefix: str) -> tuple[str, str, str] | None:
    """(name, cron, time zone) when the job shall start every week."""
    columns = st.columns(4)
    repeat = columns[0].selectbox(
        t("jobs.repeat"), ("once", "weekly"), format_func=lambda choice: t(f"jobs.repeat_{choice}"), key=f"{prefix}_repeat"
    )
    day = columns[1].selectbox(t("jobs.weekday"), (1, 2, 3, 4, 5, 6, 0), format_func=lambda d: t(f"jobs.day_{d}"), key=f"{prefix}_weekday")
    at = columns[2].time_input(t("jobs.time"), value=time(3, 0), key=f"{prefix}_time")
    name = columns[3].text_input(t("jobs.schedule_name"), key=f"{prefix}_schedule")
    return (name, f"{at.minute} {at.hour} * * {day}", st.context.timezone or "UTC") if repeat == "weekly" and at else None


def _widget(field: FormField, value: Any, choices: dict[str, list[str]], prefix: str) -> Any:
    """The input for one field; None means "not given"."""
    help_text, key = field.zh if language() == "zh" else field.en, f"{prefix}_{field.name}"
    label = f"{field.name} *" if field.is_required else field.name
    if field.source:
        known = choices[field.source]
        if field.type == "names":
            options = list(dict.fromkeys([*(value or []), *known]))
            return st.multiselect(
                label, options, default=value or [], help=help_text, key=key, accept_new_options=True, placeholder=t("jobs.or_type")
            )
        if known and value == field.default and value not in known:
            value = known[0] if field.is_required or value else value  # a default that nobody has made is no help
        options = list(dict.fromkeys([*([value] if value else []), *known]))
        index = options.index(value) if value else 0 if field.is_required and options else None
        chosen = st.selectbox(label, options, index=index, help=help_text, key=key, accept_new_options=True, placeholder=t("jobs.or_type"))
        return chosen if chosen is not None else None if field.is_required else ""
    if field.type == "names" and field.choices:
        return st.multiselect(label, field.choices, default=value or [], help=help_text, key=key)
    if field.type == "choice":
        return st.selectbox(label, field.choices, index=field.choices.index(value), help=help_text, key=key)
    if field.type == "switch":
        return st.toggle(label, value=bool(value), help=help_text, key=key)
    if field.type in ("integer", "number") and not field.is_optional:
        return _number(field, value, label, help_text, key)
    if field.type in ("integer", "number"):
        typed = st.text_input(label, "" if value is None else str(value), help=help_text, key=key, placeholder=t("jobs.empty_is_default"))
        return typed.strip() or None
    return st.text_input(label, "" if value is None else str(value), help=help_text, key=key).strip()


def _number(field: FormField, value: Any, label: str, help_text: str, key: str) -> float | int | None:
    if field.type == "integer":
        return st.number_input(label, value=int(value), step=1, help=help_text, key=key)
    # steps of a tenth of the default's magnitude suit learning rates and temperatures alike
    step = float(f"{abs(field.default or 1.0) / 10:.0e}")
    return st.number_input(label, value=float(value), step=step, format="%g", help=help_text, key=key)


def schedules_panel() -> None:
    """The calendar jobs with their next time, each to be paused or resumed."""
    rows = views.list_schedules()
    if not rows:
        st.caption(t("jobs.no_schedules"))
    for row in rows:
        with st.container(horizontal=True, vertical_alignment="center"):
            state = t("jobs.next_at", at=local(row.next_at)) if row.is_active and row.next_at else t("jobs.paused")
            st.markdown(f"**{row.name}** · {kind_name(row.kind)} · `{row.cron}` {row.timezone} · {state}")
            st.button(
                t("jobs.pause" if row.is_active else "jobs.unpause"),
                key=f"jobs_schedule_{row.id}",
                on_click=_switch,
                args=(row.id, not row.is_active),
            )


def _switch(schedule_id: int, is_active: bool) -> None:
    try:
        views.switch_schedule(schedule_id, is_active, require("engineer").id)
    except UserError as error:
        st.session_state["jobs_failed"] = error_text(error, language())
