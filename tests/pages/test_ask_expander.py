"""The choice of an expander on the Ask page: for engineers, for one question, or for everybody with a reason."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

from core.expansion import expander
from core.home import Home
from core.models import register_version
from core.records import VersionKind
from core.search_plans import history, plan_for
from db import tables as t
from db.engine import read_session, write_session
from tests.expansion.scripted import serving
from tests.pages.test_ask_page import build, shown


def test_an_engineer_tries_an_expander_and_keeps_it_for_everybody(home: Home, open_page: Callable[..., AppTest]) -> None:
    build()
    expander.remembered.clear()
    with serving() as endpoint:
        endpoint.lines = "lex: burn danger signs ambulance\nlex: glaucoma eye drops"
        with write_session() as session:
            row = register_version(session, name="exp", kind=VersionKind.EXTERNAL, task="expansion", manifest={"key_variable": ""})
            row.endpoint_url, row.endpoint_model = endpoint.base, "any"
        assert "ask_expander" not in [box.key for box in open_page("clinician", "ask").selectbox]
        screen = open_page("engineer", "ask")
        screen.selectbox(key="ask_expander").set_value("exp").run()
        screen.text_area(key="ask_question").set_value("danger signs of a burn")
        screen.button[0].click().run()
        text = shown(screen)
        assert not screen.exception
        assert "keywords: burn danger signs ambulance" in text
        assert "keywords: glaucoma eye drops" not in text
        assert "1 lines" in text  # the one that spoke of something else, said so
        assert screen.button(key="ask_expander_keep").disabled
        screen.text_input(key="ask_expander_reason").set_value("finds more on our questions").run()
        screen.button(key="ask_expander_keep").click().run()
        assert not screen.exception
    assert plan_for("guidelines").expander == "exp"
    assert history("guidelines")[0].reason == "finds more on our questions"
    with read_session() as session:
        entry = session.query(t.AuditEntry).order_by(t.AuditEntry.id.desc()).first()
        assert entry is not None
        assert (entry.action, entry.detail["plan"]) == ("search_plan.set", {"expander": "exp"})
