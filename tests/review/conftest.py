"""Two readers, a case, and the steps of deciding it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from core import adjudication
from core.adjudication import Decision, Receipt
from core.desk import lease
from core.home import Home
from db.engine import write_session
from tests import factories

_number = count(1)
SignCase = Callable[..., Receipt]


@pytest.fixture
def people(home: Home) -> tuple[int, int]:
    with write_session() as session:
        return factories.user(session, display_name="Dr Chen").id, factories.user(session, display_name="Dr Meyer").id


@pytest.fixture
def new_case(home: Home) -> Callable[..., int]:
    """`new_case("question", split="train")` -> the conflict's id."""

    def make(text: str = "Chest pain and sweat, aspirin?", **sample: Any) -> int:
        with write_session() as session:
            row = factories.sample(session, text, **{"split": "train", **sample})
            return factories.conflict(session, completion=factories.completion(session, sample=row)).id

    return make


@pytest.fixture
def sign_case(home: Home) -> SignCase:
    """`sign_case(user, case, verdict="minor", follow=["gold"])`: claim, commit blind, sign."""

    def run(user_id: int, case: int, **values: Any) -> Receipt:
        claim = lease.claim(user_id, case)
        form = {"verdict": "minor", "dwell_ms": 900, "who_was_right": "rules", **values}
        blind = Decision(case, f"blind-{next(_number):04}", form, claim.lease_token, claim.version)
        receipt = adjudication.commit_blind(user_id, blind)
        return adjudication.sign(
            user_id, replace(blind, client_id=f"signed-{next(_number):04}", version=receipt.version, proof=factories.proof(user_id))
        )

    return run
