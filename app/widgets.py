"""Pieces that several screens share: title, error edge, notices, status badges, links to jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError
from streamlit.runtime.scriptrunner_utils.exceptions import RerunException, StopException

from app.errors import describe
from app.i18n import t
from app.session import language
from core.settings import ROOT

Colour = Literal["blue", "green", "orange", "red", "gray", "violet"]

#: colour of every status word that appears on a screen
STATUS_COLOURS: dict[str, Colour] = {
    "queued": "gray",
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "orange",
    "lost": "red",
    "open": "blue",
    "claimed": "violet",
    "adjudicated": "green",
    "deferred": "orange",
    "candidate": "gray",
    "serving": "green",
    "retired": "orange",
}


def page_title(key: str) -> None:
    """The heading of a page; `key` is a catalogue key."""
    st.header(t(key), anchor=False)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn an error inside the block into a message: a sentence for a `UserError`, else a short id (traceback in the log)."""
    try:
        yield
    except (RerunException, StopException):
        raise
    except Exception as error:  # the one edge between pages and people: everything is logged by describe()
        st.error(describe(error, language()).text)


def toy_notice() -> None:
    """Shown wherever the demo model's words appear."""
    st.caption(f":material/toys: {t('common.toy_notice')}")


def ai_notice() -> None:
    """Shown wherever any model's words appear."""
    st.caption(f":material/info: {t('common.ai_notice')}")


def status_badge(status: str) -> None:
    """A coloured badge with the word for a job, case or version status."""
    st.badge(t(f"common.status_{status}"), color=STATUS_COLOURS.get(status, "gray"))


def choose_in_address(name: str, label: str, names: Mapping[int, str], *, key: str | None = None) -> int:
    """A select box whose choice stands in the address (?NAME=id), so that it can be sent to somebody; the first one by default."""
    asked, ids = st.query_params.get(name, ""), list(names)
    index = ids.index(int(asked)) if asked.isdecimal() and int(asked) in names else 0
    chosen: int = st.selectbox(label, ids, index=index, format_func=names.__getitem__, key=key)
    return chosen


def job_url(job_id: int) -> str:
    """Address of one job's page."""
    return f"/jobs?job={job_id}"


def link_to(page: str, label: str, *, icon: str | None = None, **query: str) -> None:
    """A link to a file of pages/ that stays in this tab; only the label where the person has no such page."""
    try:
        st.page_link(ROOT / "pages" / f"{page}.py", label=label, icon=icon, query_params=query or None)
    except StreamlitPageNotFoundError:
        st.caption(label)


def link_to_job(job_id: int, label: str) -> None:
    """A link to one job's page."""
    link_to("jobs", label, job=str(job_id))


def duration(seconds: float) -> str:
    """A length of time as people say it: `40 s`, `3 min`."""
    if seconds < 90:
        return t("common.seconds", num=max(1, round(seconds)))
    return t("common.minutes", num=round(seconds / 60)) if seconds < 5400 else t("common.hours", num=round(seconds / 3600))


def ago(at: datetime) -> str:
    """How long ago something happened; beyond two days, its date (UTC)."""
    seconds = (datetime.now(UTC) - at).total_seconds()
    return t("common.ago", time=duration(seconds)) if seconds < 172_800 else f"{at:%Y-%m-%d}"
