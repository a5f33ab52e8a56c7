"""The Record page: who may look, a verification that ends, a pack that can be taken away, a lineage that is found."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core import audit
from core.home import Home
from db.engine import write_session
from tests import factories


@pytest.mark.parametrize(
    ("language", "press", "holds"), [("en", "Make the inspection pack", "The record holds"), ("zh", "生成检查包", "审计记录完整")]
)
def test_verify_and_take_a_pack(home: Home, open_page: Callable[..., AppTest], language: str, press: str, holds: str) -> None:
    with write_session() as session:
        case = factories.conflict(session).id
        audit.record(session, "start_job", "job", 1, actor_id=None)
    screen = open_page("product", "audit", language)
    assert not screen.exception
    screen.button[0].click().run()
    for _ in range(50):
        if screen.success:
            break
        time.sleep(0.1)
        screen.run()
    assert holds in screen.success[0].value
    screen.number_input[0].set_value(case)
    next(one for one in screen.button if one.label == press).click().run()
    assert not screen.exception
    assert not screen.error, screen.error[0].value
    assert screen.session_state["audit_pack"][1][:2] == b"PK"


def test_a_clinician_has_no_such_page(home: Home, open_page: Callable[..., AppTest]) -> None:
    assert open_page("clinician", "audit").exception or not open_page("clinician", "audit").button
