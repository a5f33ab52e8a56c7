"""Batch prediction on the Evaluations page: upload a file of questions, choose a version, fetch the finished table."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.widgets import guarded, link_to_job, status_badge
from core import model_list, prediction
from core.home import current_home


def show_predictions() -> None:
    """Upload a file of questions, choose a version, start; finished tables below."""
    home = current_home()
    st.caption(t("evaluations.predict_help"))
    versions = [v.name for v in model_list.list_versions()]
    upload = st.file_uploader(t("evaluations.predict_file"), type=[s[1:] for s in prediction.SUFFIXES], key="evaluations_predict_file")
    left, right = st.columns(2)
    service = model_list.service()
    index = versions.index(service.name) if service is not None and service.name in versions else 0
    model = left.selectbox(t("evaluations.predict_model"), versions, index=index if versions else None, key="evaluations_predict_model")
    column = right.text_input(t("evaluations.predict_column"), key="evaluations_predict_column")
    with_teacher = st.toggle(t("evaluations.predict_teacher"), key="evaluations_predict_teacher")
    if st.button(t("evaluations.predict_start"), key="evaluations_predict_start", type="primary", disabled=upload is None or model is None):
        with guarded():
            person = require("product", "engineer")
            if upload is None or model is None:
                return
            job = prediction.start(
                person.id,
                home,
                name=upload.name,
                content=upload.getvalue(),
                model=model,
                column=column.strip(),
                with_teacher=with_teacher,
            )
            st.success(t("evaluations.predict_started", job=job))
    for one in prediction.list_predictions(home):
        with st.container(horizontal=True, vertical_alignment="center"):
            status_badge(one.status)
            st.markdown(f"{one.model} · {one.created_at:%Y-%m-%d %H:%M}")
            if one.num_rows is not None:
                st.caption(t("evaluations.predict_counts", num=one.num_rows, failed=one.num_failed or 0))
            if current_user().role in ("engineer", "admin"):
                link_to_job(one.job_id, t("evaluations.job", id=one.job_id))
            if one.file:
                content = home.resolve(one.file).read_bytes()
                label = t("evaluations.download", kind="CSV")
                st.download_button(label, content, f"predictions-{one.job_id}.csv", "text/csv", key=f"evaluations_predicted_{one.job_id}")
