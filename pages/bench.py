"""The bench: who serves now, and the side-by-side comparison (Gradio, /arena) in a frame of the same look and language."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from app.i18n import t
from app.session import language, require
from app.widgets import guarded, link_to, page_title
from core.model_client import server_is_up
from core.model_list import list_versions, service

ROLES = ("product", "engineer", "admin")
FRAME_HEIGHT = 1180


def show_service() -> None:
    """Who answers people now; changing it is the Models page's business."""
    now = service()
    left, right = st.columns([4, 1], vertical_alignment="center")
    if now is None:
        left.caption(t("bench.serving_none"))
    else:
        line = f"**{t('bench.serving_now', name=now.name, hash=now.content_hash[:6] or '–')}**"
        if now.since is not None:
            line += " · " + t("bench.serving_since", date=f"{now.since.created_at:%Y-%m-%d}", who=now.since.signed_name)
        left.markdown(line)
    with right:
        link_to("models", t("bench.to_models"), icon=":material/deployed_code:")


def main() -> None:
    require(*ROLES)
    page_title("bench.title")
    show_service()
    versions = list_versions()
    needs_server = any(v.kind != "external" for v in versions)
    if versions and needs_server and not server_is_up():
        st.warning(t("bench.server_is_down"), icon=":material/cloud_off:")
        st.button(t("bench.try_again"), key="bench_retry")
        if all(v.kind != "external" for v in versions):
            return
    if len(versions) < 2:
        st.info(t("bench.too_few_versions"), icon=":material/compare:")
        return
    theme = st.context.theme.type or "light"
    st.iframe(f"/arena/?{urlencode({'__theme': theme, 'lang': language()})}", height=FRAME_HEIGHT)


with guarded():
    main()
