"""The number over the list is the length of the list, whatever states, seats, verdicts and leases cases have."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from core.desk.queue import Wish, counts, next_ids
from core.home import Home
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories

NUM_CASES = 120


@pytest.mark.parametrize("seed", range(4))
def test_the_count_is_the_length_of_the_list(home: Home, seed: int) -> None:
    rng = random.Random(seed)
    with write_session() as session:
        people = [factories.user(session, "clinician", username=f"doc{n}").id for n in range(3)]
        owner = factories.dataset(session)
        for n in range(NUM_CASES):
            sample = factories.sample(session, f"question {n}", dataset=owner, language=rng.choice(("en", "zh")))
            case = factories.conflict(session, completion=factories.completion(session, sample=sample))
            case.status = rng.choice(("open", "open", "claimed", "adjudicated", "deferred"))
            if case.status == "claimed":
                case.claimed_by = rng.choice(people)
                case.lease_token, case.lease_expires_at = f"token{n}", utc_now() + timedelta(minutes=rng.choice((-5, 5)))
            case.arbitration_at = utc_now() if rng.random() < 0.1 else None
            for seat in range(rng.choice((0, 0, 0, 1, 2))):
                session.add(t.Assignment(conflict_id=case.id, seat=seat + 1, user_id=rng.choice([None, *people])))
            if rng.random() < 0.3:
                stage = rng.choice(("blind", "signed", "skipped"))
                verdict = (
                    {"verdict": "cannot_judge", "cannot_judge_reason": "missing_context"} if rng.random() < 0.3 else {"verdict": "minor"}
                )
                session.add(
                    t.Adjudication(conflict_id=case.id, user_id=rng.choice(people), stage=stage, client_id=f"{seed}-{n}", **verdict)
                )
    with read_session() as session:
        for person in people:
            for wish in (Wish(), Wish(language="zh")):
                listed = next_ids(session, person, order="oldest", wish=wish, size=10 * NUM_CASES)
                assert len(listed) > 5
                assert counts(session, person, wish=wish)["open"] == len(listed)
