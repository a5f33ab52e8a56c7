"""Weeks of simulated use with a planted truth, through the log, the weekly job and its gate; small, but all of it is real."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.retrieval_weeks import Intent, World, simulate, summary
from core.home import Home
from core.retrieval.judged import Question
from db.engine import write_session
from tests import factories
from tests.retrieval.test_ladder import world


def test_use_raises_recall_and_the_frozen_set_is_never_lower(home: Home) -> None:
    documents, questions = world()
    intents = [Intent((f"{lay} please", f"{lay} again"), own, f"doctor, {lay}", frozenset([document])) for document, lay, own in questions]
    unseen = tuple(Question(f"u{n}", f"rest after {own}", {document: 1.0}) for n, (document, _, own) in enumerate(questions))
    retyped = tuple(Question(f"r{n}", i.held_out, dict.fromkeys(i.relevant, 1.0)) for n, i in enumerate(intents))
    with write_session() as session:
        people = [factories.user(session, "clinician").id for _ in range(5)]
    weeks = simulate(World(documents, intents, unseen, retyped), home, people, num_weeks=2, num_asks=120, seed=0)
    assert weeks[0].traffic < 0.3, "lay words find nothing by themselves"
    assert "in_force" in [week.decision for week in weeks]
    assert weeks[-1].traffic > weeks[0].traffic + 0.3
    assert all(after.frozen >= before.frozen for before, after in pairwise(weeks))
    assert weeks[-1].unseen >= weeks[0].unseen
    assert {week.reranker for week in weeks[1:]} == {"too_few_pairs"}, "a few dozen sure pairs are no reason to train"
    assert weeks[1].share_right is not None
    assert weeks[1].share_right > 0.8
    assert "lowest step" in summary([weeks, weeks])
