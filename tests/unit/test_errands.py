"""Errands beside the worker: one that fails holds up no other, and is tried again."""

from __future__ import annotations

import threading

from sqlalchemy import select

from core.desk import search
from core.errands import CASES_AT_ONCE, ERRANDS, Errands
from core.errors import Unavailable
from core.home import Home
from db import tables as t
from db.engine import read_session, write_session
from tests import factories


def test_a_failing_errand_holds_up_nobody_and_is_tried_again() -> None:
    tried, done = [], threading.Event()

    def fails() -> None:
        tried.append(1)
        raise Unavailable("database_busy")

    def works() -> None:
        if len(tried) >= 3:
            done.set()

    errands = Errands([fails, works], every_s=0.01)
    errands.start()
    assert done.wait(10)
    errands.stop()


def test_new_cases_are_indexed_by_the_errands_themselves(home: Home) -> None:
    with write_session() as session:
        sample = factories.sample(session, "偏头痛三天，可以吃布洛芬吗？", language="zh")
        case = factories.conflict(session, completion=factories.completion(session, sample=sample)).id
    for errand in ERRANDS:
        errand()
    assert search.refresh(CASES_AT_ONCE) == 0
    with read_session() as session:
        condition = search.matching(session, "偏头痛")
        assert condition is not None
        query = select(t.Conflict.id).join(t.Sample, t.Sample.id == t.Conflict.sample_id).where(condition)
        assert session.scalars(query).all() == [case]
