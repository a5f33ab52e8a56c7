"""Blind pairs, votes, unsafe flags and standings."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from core import audit, bench_questions, preference, safety
from core.bench_sides import chance_of_left
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home
from core.preference import Ballot, Pair, Produced, cast, close_pair, open_pair, reveal, void_pair
from core.records import Vote
from core.standings import standings
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.bench.conftest import DECODING, Bench

ticket = (f"press-{n}" for n in itertools.count())


def press(vote: Vote | None = None, **values: object) -> Ballot:
    return Ballot(**{"client_id": next(ticket), "vote": vote, **values})  # type: ignore[arg-type]


def winner(pair: Pair, name: str) -> Vote:
    return Vote.LEFT if pair.left == name else Vote.RIGHT


def count(table: type) -> int:
    with read_session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


# --- sides ------------------------------------------------------------------------------------------------------------


def test_sides_are_balanced_for_everybody(bench: Bench) -> None:
    for user in (bench.product, bench.engineer):
        lean = 0
        for _ in range(60):
            pair = open_pair(user, bench.first, bench.second, bench.sample, mode="blind", decoding=DECODING)
            lean += 1 if pair.left == bench.first else -1
        assert abs(lean) <= 22  # a fair coin would be further off once in 200 times, this one once in 10 million


def test_the_coin_stays_within_one_point_of_one_half_and_is_never_certain() -> None:
    rng = random.Random(5)
    shares, leans = [], []
    for _ in range(20):
        left, guessed = [0, 0], 0
        for _ in range(10_000):
            chance = chance_of_left(*left)
            assert 0.1 <= chance <= 0.9
            is_left = rng.random() < chance
            guessed += is_left == (chance > 0.5)
            left[not is_left] += 1
        shares.append(left[0] / 10_000)
        leans.append(guessed / 10_000)
    assert all(abs(share - 0.5) < 0.01 for share in shares)
    assert max(leans) < 0.62  # who remembers every reveal and always bets on the side that is due


def test_the_order_of_the_dropdowns_does_not_decide_the_side(bench: Bench) -> None:
    left = 0
    for i in range(60):
        names = (bench.first, bench.second) if i % 2 else (bench.second, bench.first)
        left += open_pair(bench.product, *names, bench.sample, mode="blind", decoding=DECODING).left == names[0]
    assert 8 <= left <= 52


def test_a_void_pair_leaves_no_trace_in_the_balance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(preference, "chance_of_left", lambda *counts: seen.append(counts) or 1.0)
    for _ in range(3):
        pair = open_pair(bench.product, bench.first, bench.second, bench.sample, mode="blind", decoding=DECODING)
    void_pair(bench.product, pair.id, "test")
    open_pair(bench.product, bench.first, bench.second, bench.sample, mode="blind", decoding=DECODING)
    assert seen == [(0, 0), (1, 0), (2, 0), (2, 0)]


def test_open_mode_keeps_the_chosen_sides(bench: Bench) -> None:
    for _ in range(5):
        pair = open_pair(bench.product, bench.second, bench.first, bench.sample, mode="open", decoding=DECODING)
        assert (pair.left, pair.right) == (bench.second, bench.first)


def test_a_version_is_not_compared_with_itself_nor_with_nothing(bench: Bench) -> None:
    with pytest.raises(UserError, match="same_version"):
        open_pair(bench.product, bench.first, bench.first, bench.sample, mode="blind", decoding=DECODING)
    with pytest.raises(NotFound, match="no_such_version"):
        open_pair(bench.product, bench.first, "", bench.sample, mode="blind", decoding=DECODING)
    with pytest.raises(NotFound, match="no_such_question"):
        open_pair(bench.product, bench.first, bench.second, 999, mode="blind", decoding=DECODING)


# --- what is told when ------------------------------------------------------------------------------------------------


def test_names_come_only_after_the_vote(bench: Bench) -> None:
    pair = bench.ready_pair()
    with pytest.raises(Conflicting, match="vote_first"):
        reveal(bench.product, pair.id)
    cast(bench.product, pair.id, press(Vote.TIE))
    told = reveal(bench.product, pair.id)
    assert (told.left.name, told.right.name) == (pair.left, pair.right)
    assert told.left.thinking == f"thoughts of {pair.left}"
    assert told.right.seconds == 1.5


def test_open_mode_tells_at_once(bench: Bench) -> None:
    pair = bench.ready_pair(mode="open")
    assert reveal(bench.product, pair.id).left.name == pair.left


def test_somebody_elses_pair_does_not_exist(bench: Bench) -> None:
    pair = bench.ready_pair()
    cast(bench.product, pair.id, press(Vote.LEFT))
    for attempt in (lambda: reveal(bench.engineer, pair.id), lambda: cast(bench.engineer, pair.id, press(Vote.LEFT))):
        with pytest.raises(NotFound, match="no_such_pair"):
            attempt()
    with pytest.raises(NotFound, match="no_such_pair"):
        void_pair(bench.engineer, pair.id, "x")


# --- votes ------------------------------------------------------------------------------------------------------------


def test_a_preference_is_given_once_and_never_after_the_names_are_known(bench: Bench) -> None:
    pair = bench.ready_pair()
    cast(bench.product, pair.id, press(Vote.LEFT))
    with pytest.raises(Conflicting, match="already_voted"):
        cast(bench.product, pair.id, press(Vote.RIGHT))
    late = cast(bench.product, pair.id, press(unsafe_left=True))
    assert late.is_new
    with read_session() as session:
        assert [v.vote for v in session.scalars(select(t.BenchVote).order_by(t.BenchVote.id))] == ["left", None]


def test_the_same_press_sent_twice_is_stored_once(bench: Bench) -> None:
    pair = bench.ready_pair()
    ballot = press(Vote.LEFT, unsafe_right=True)
    first, again = (cast(bench.product, pair.id, ballot) for _ in range(2))
    assert (first.is_new, again.is_new, first.vote_id) == (True, False, again.vote_id)
    assert (count(t.BenchVote), count(t.SafetyCase)) == (1, 1)


def test_of_racing_presses_one_counts(bench: Bench) -> None:
    """Twenty pairs, eight threads each: four send the same press again, four press something else."""
    for _ in range(20):
        pair = bench.ready_pair()
        same = press(Vote.LEFT)
        ballots = [same] * 4 + [press(Vote.RIGHT) for _ in range(4)]

        def attempt(ballot: Ballot, pair_id: int = pair.id) -> bool:
            try:
                return cast(bench.product, pair_id, ballot).is_new
            except Conflicting:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(attempt, ballots)).count(True) == 1
    assert count(t.BenchVote) == 20


def test_an_empty_vote_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="empty_vote"):
        cast(bench.product, bench.ready_pair().id, press())


def test_a_failed_side_voids_the_pair_and_is_never_a_win(bench: Bench) -> None:
    pair = open_pair(bench.product, bench.first, bench.second, bench.sample, mode="blind", decoding=DECODING)
    with pytest.raises(Conflicting, match="pair_not_ready"):
        cast(bench.product, pair.id, press(Vote.LEFT))
    assert not close_pair(bench.product, pair.id, Produced("<think>\nonly thoughts", "length", 1), Produced("An answer.", "stop", 1))
    with pytest.raises(Conflicting, match="pair_void"):
        cast(bench.product, pair.id, press(Vote.RIGHT))
    assert (count(t.BenchVote), count(t.Completion)) == (0, 0)
    assert standings(bench.product, bench.first, bench.second).num_votes == 0


def test_a_ready_pair_cannot_be_voided_or_closed_again(bench: Bench) -> None:
    pair = bench.ready_pair()
    void_pair(bench.product, pair.id, "left")
    with pytest.raises(Conflicting, match="pair_closed"):
        close_pair(bench.product, pair.id, Produced("Other.", "stop", 1), Produced("Text.", "stop", 1))
    assert cast(bench.product, pair.id, press(Vote.TIE)).is_new


def test_a_decisive_blind_vote_is_a_preference_pair_and_nothing_else_is(bench: Bench) -> None:
    first, tie, unsafe = (bench.ready_pair() for _ in range(3))
    opened = bench.ready_pair(mode="open")
    cast(bench.product, first.id, press(winner(first, bench.first)))
    cast(bench.product, tie.id, press(Vote.TIE))
    cast(bench.product, unsafe.id, press(Vote.LEFT, unsafe_right=True))
    cast(bench.product, opened.id, press(Vote.LEFT))
    with read_session() as session:
        row = session.scalars(select(t.PreferencePair)).one()
        assert f"Answer by {bench.first}" in row.chosen
        assert f"Answer by {bench.second}" in row.rejected
        assert row.source == "vote"


# --- unsafe -----------------------------------------------------------------------------------------------------------


def test_unsafe_files_a_case_opens_the_desk_and_counts_for_nobody(bench: Bench) -> None:
    pair = bench.ready_pair()
    stored = cast(bench.product, pair.id, press(unsafe_left=True, note="dose for a child"))
    assert len(stored.case_ids) == 1
    with read_session() as session:
        conflict = session.scalars(select(t.Conflict)).one()
        case = session.scalars(select(t.SafetyCase)).one()
        completion = session.get_one(t.Completion, conflict.completion_id)
        assert (conflict.kind, conflict.status, conflict.priority) == ("bench_safety", "open", safety.SAFETY_PRIORITY)
        assert (case.conflict_id, case.origin, case.note, case.reported_by) == (conflict.id, "bench", "dose for a child", bench.product)
        assert f"Answer by {pair.left}" in completion.text
        assert session.scalar(select(func.count(t.RuleScore.id)).where(t.RuleScore.completion_id == completion.id)) == 4
        assert 0 <= (conflict.rules_value or 0) <= 1
        assert [e.action for e in session.scalars(select(t.AuditEntry))] == ["vote", "file_safety_case"]
        assert audit.verify(session) is None
    table = standings(bench.product, pair.left, pair.right)
    assert (table.num_votes, table.unsafe_first, table.unsafe_second, table.rate) == (0, 1, 0, None)
    assert reveal(bench.product, pair.id).left.name == pair.left


def test_both_unsafe_files_two_cases(bench: Bench) -> None:
    assert len(cast(bench.product, bench.ready_pair().id, press(unsafe_left=True, unsafe_right=True)).case_ids) == 2
    assert (count(t.SafetyCase), count(t.Conflict)) == (2, 2)


def test_pressing_unsafe_twice_files_once_and_a_decided_case_is_opened_again(bench: Bench) -> None:
    pair = bench.ready_pair()
    one = cast(bench.product, pair.id, press(unsafe_left=True)).case_ids
    assert cast(bench.product, pair.id, press(unsafe_left=True)).case_ids == one
    with write_session() as session:
        conflict = session.scalars(select(t.Conflict)).one()
        conflict.status, before = "adjudicated", conflict.version
        doctor = factories.user(session).id
    safety.close(doctor, one[0], "nothing found")
    assert cast(bench.product, pair.id, press(unsafe_left=True)).case_ids != one
    with read_session() as session:
        conflict = session.scalars(select(t.Conflict)).one()
        assert (conflict.status, conflict.version) == ("open", before + 1)


def test_when_the_case_cannot_be_filed_the_vote_is_not_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = bench.ready_pair()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("disk gone")

    monkeypatch.setattr(safety, "file_case", broken)
    with pytest.raises(RuntimeError):
        cast(bench.product, pair.id, press(Vote.RIGHT, unsafe_left=True))
    assert (count(t.BenchVote), count(t.SafetyCase), count(t.Conflict), count(t.RuleScore)) == (0, 0, 0, 0)


# --- roles ------------------------------------------------------------------------------------------------------------


def test_a_clinician_or_a_disabled_account_compares_nothing(bench: Bench) -> None:
    pair = bench.ready_pair()
    with pytest.raises(Forbidden):
        open_pair(bench.clinician, bench.first, bench.second, bench.sample, mode="blind", decoding=DECODING)
    with pytest.raises(Forbidden):
        standings(bench.clinician, bench.first, bench.second)
    with write_session() as session:
        session.get_one(t.User, bench.product).is_active = False
    with pytest.raises(Forbidden):
        cast(bench.product, pair.id, press(Vote.LEFT))
    assert count(t.BenchVote) == 0


# --- standings --------------------------------------------------------------------------------------------------------


def test_standings_against_a_count_by_hand(bench: Bench) -> None:
    script = ["first"] * 6 + ["second"] * 2 + ["tie"] * 3 + ["both_bad"]
    num_left = 0
    for i, outcome in enumerate(script):
        user = bench.product if i % 3 else bench.engineer
        pair = bench.ready_pair(user)
        vote = winner(pair, bench.first if outcome == "first" else bench.second) if outcome in ("first", "second") else Vote(outcome)
        num_left += vote == Vote.LEFT
        cast(user, pair.id, press(vote))
    opened = bench.ready_pair(mode="open")
    cast(bench.product, opened.id, press(Vote.LEFT))
    table = standings(bench.product, bench.first, bench.second)
    assert (table.wins_first, table.wins_second, table.ties, table.both_bad) == (6, 2, 3, 1)
    assert (table.num_votes, table.num_decisive, table.num_own_votes) == (12, 8, 8)
    assert table.rate == pytest.approx((6 + 4 / 2) / 12)
    assert table.left_share == num_left / 8
    assert table.num_more_needed == 194 - 8
    turned = standings(bench.product, bench.second, bench.first)
    assert turned.rate == pytest.approx(1 - (table.rate or 0))
    assert (turned.low, turned.high) == (pytest.approx(1 - table.high), pytest.approx(1 - table.low))
    assert turned.left_share == table.left_share


# --- questions --------------------------------------------------------------------------------------------------------


def test_questions_are_held_out_and_not_yet_compared(home: Home, bench: Bench) -> None:
    with write_session() as session:
        owner = factories.dataset(session, name="q")
        for i, split in enumerate(["train", "dev", "test", "red_team"]):
            factories.sample(session, f"question {i}?", dataset=owner, split=split, language="zh" if i == 3 else "en")
    seen = set()
    for _ in range(3):
        found = bench_questions.next_question(bench.product, bench.first, bench.second, dataset="q")
        seen.add(found.text)
        pair = open_pair(bench.product, bench.first, bench.second, found.id, mode="blind", decoding=DECODING)
        assert close_pair(bench.product, pair.id, Produced("One.", "stop", 1), Produced("Two.", "stop", 1))
    assert seen == {"question 1?", "question 2?", "question 3?"}
    assert bench_questions.next_question(bench.product, bench.first, bench.second, dataset="q").text in seen
    assert bench_questions.next_question(bench.product, bench.first, bench.second, dataset="q", language="zh").text == "question 3?"
    with pytest.raises(NotFound, match="no_questions"):
        bench_questions.next_question(bench.product, bench.first, bench.second, dataset="q", risk="low")


def test_an_own_question_is_stored_once_and_never_for_training(bench: Bench) -> None:
    one = bench_questions.own_question(bench.product, "  孩子发烧 39 度怎么办？ ")
    assert bench_questions.own_question(bench.engineer, "孩子发烧 39 度怎么办？").id == one.id
    assert one.language == "zh"
    with read_session() as session:
        assert session.get_one(t.Sample, one.id).split == "dev"
    for text, code in (("  ", "question_empty"), ("x" * 4001, "question_too_long")):
        with pytest.raises(UserError, match=code):
            bench_questions.own_question(bench.product, text)
    with pytest.raises(Forbidden):
        bench_questions.own_question(bench.clinician, "May I?")
