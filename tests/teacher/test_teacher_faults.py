"""Everything that goes wrong on the wire: nothing hangs, nothing is lost, nothing is invented. Real HTTP, shortened times."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from core.records import Judgement
from core.teacher import ApiTeacher
from core.teacher.limits import Backoff, Breaker, Bucket, Pace, duration_s, retry_after_s
from tests.teacher.endpoint import Answer, ScriptedEndpoint, Seen, answers, ask_about, verdict

PROMPT = ask_about()


def ask(teacher: ApiTeacher, number: int = 1) -> list[Judgement]:
    return teacher.judge([PROMPT] * number, answers(number))


def first(number: int, fault: Answer, endpoint: ScriptedEndpoint) -> None:
    """The first `number` requests meet a fault, the others an honest judge."""
    endpoint.script = lambda seen: fault if seen.number <= number else verdict(seen)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(500), "server_error"),
        (Answer(503), "server_error"),
        (Answer(529), "server_error"),
        (Answer(429), "rate_limited"),
        (Answer(body=b'{"choices": [{"mess'), "off_menu_verdict"),
        (Answer(body=b'{"choices": [{"message"', cut=True), "unreachable"),
        (Answer(reset=True), "unreachable"),
    ],
)
def test_passing_faults_are_tried_again_a_few_times(endpoint: ScriptedEndpoint, fault: Answer, reason: str) -> None:
    first(1, fault, endpoint)
    teacher = endpoint.teacher()
    assert ask(teacher)[0].teacher_score == 0.7
    assert len(endpoint.seen) == 2
    first(99, fault, endpoint)
    lost = endpoint.teacher()
    assert ask(lost)[0].unscored_reason == reason
    assert ask(lost)[0].teacher_score is None  # asked again: an unscored judgement is not kept
    assert lost.usage().num_cached == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(401), "bad_key"),
        (Answer(403), "bad_key"),
        (Answer(402), "no_credit"),
        (Answer(429, {"error": {"code": "insufficient_quota"}}), "no_credit"),
        (Answer(404), "bad_request"),
        (Answer(302, headers={"Location": "http://127.0.0.1:9/"}), "bad_request"),
    ],
)
def test_lasting_faults_are_not_tried_again(endpoint: ScriptedEndpoint, fault: Answer, reason: str) -> None:
    first(99, fault, endpoint)
    assert ask(endpoint.teacher())[0].unscored_reason == reason
    assert len(endpoint.seen) == 1


def test_a_wrong_key_is_not_hammered(endpoint: ScriptedEndpoint) -> None:
    first(99, Answer(401), endpoint)
    teacher = endpoint.teacher(num_at_once=2, cool_down_s=5.0)
    assert {j.unscored_reason for j in ask(teacher, 30)} == {"bad_key"}
    assert len(endpoint.seen) <= 2
    assert (teacher.health().state, teacher.health().reason) == ("down", "bad_key")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_everybody_back(endpoint: ScriptedEndpoint, form: str) -> None:
    told: list[float] = []

    def script(seen: Seen) -> Answer:
        if not told:
            told.append(time.monotonic())
            at = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: one to two from now
            return Answer(429, headers={"Retry-After": "0.4" if form == "seconds" else at})
        return verdict(seen)

    endpoint.script = script
    assert {j.teacher_score for j in ask(endpoint.teacher(num_at_once=1), 4)} == {0.7}
    assert endpoint.seen[1].at - told[0] >= (0.4 if form == "seconds" else 0.9)
    assert len(endpoint.seen) == 5


def test_a_retry_after_beyond_the_deadline_stops_the_asking(endpoint: ScriptedEndpoint) -> None:
    first(99, Answer(429, headers={"Retry-After": "3600"}), endpoint)
    started = time.monotonic()
    teacher = endpoint.teacher(num_at_once=1)
    assert {j.unscored_reason for j in ask(teacher, 20)} == {"rate_limited"}
    assert time.monotonic() - started < 2
    assert len(endpoint.seen) == 1
    health = teacher.health()
    assert (health.is_up, health.reason) == (False, "rate_limited")
    assert health.retry_at is not None
    assert health.retry_at > datetime.now(UTC) + timedelta(minutes=55)


def test_rate_limit_headers_are_heeded_before_the_endpoint_refuses(endpoint: ScriptedEndpoint) -> None:
    def script(seen: Seen) -> Answer:
        answer = verdict(seen)
        if seen.number == 2:
            answer.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "500ms"}
        return answer

    endpoint.script = script
    ask(endpoint.teacher(num_at_once=1), 4)
    assert endpoint.seen[2].at - endpoint.seen[1].at >= 0.5
    assert endpoint.seen[3].at - endpoint.seen[2].at < 0.4


def test_requests_per_minute_are_kept(endpoint: ScriptedEndpoint) -> None:
    ask(endpoint.teacher(requests_per_minute=600.0), 64)  # ten a second after a first burst of sixty
    assert endpoint.seen[-1].at - endpoint.seen[0].at >= 0.3


@pytest.mark.parametrize("fault", [Answer(hang_s=30.0), Answer(drip_s=0.05, body={"choices": [], "pad": "x" * 400})])
def test_hangs_and_slow_drips_end_at_the_deadline(endpoint: ScriptedEndpoint, fault: Answer) -> None:
    endpoint.script = lambda _seen: fault
    started = time.monotonic()
    teacher = endpoint.teacher(timeout_s=0.4)
    assert [j.unscored_reason for j in ask(teacher, 4)] == ["timeout"] * 4
    assert time.monotonic() - started < 2.0
    assert teacher.usage().num_unclear == 4  # may have been billed
    endpoint.script = verdict
    assert ask(teacher)[0].teacher_score == 0.7


def test_a_flood_is_cut_off(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda _seen: Answer(body=b'{"choices": "' + b"x" * 3_000_000 + b'"}')
    assert ask(endpoint.teacher())[0].unscored_reason == "off_menu_verdict"


def test_an_outage_stops_the_asking_and_recovery_is_noticed(endpoint: ScriptedEndpoint) -> None:
    first(10_000, Answer(503), endpoint)
    teacher = endpoint.teacher(num_at_once=4, breaker_threshold=6, cool_down_s=0.3)
    found = ask(teacher, 200)
    assert {j.unscored_reason for j in found} <= {"server_error", "endpoint_down"}
    assert all(j.teacher_score is None for j in found)
    num_during_outage = len(endpoint.seen)
    assert num_during_outage <= 6 + 4  # the threshold and what was on its way
    assert not teacher.health(probe=True).is_up  # cooling down: not even a probe is sent
    assert len(endpoint.seen) == num_during_outage
    time.sleep(0.35)
    assert not teacher.health(probe=True).is_up  # the probe fails
    assert len(endpoint.seen) == num_during_outage + 1
    endpoint.script = verdict
    time.sleep(0.65)
    assert teacher.health(probe=True).is_up
    assert [j.teacher_score for j in ask(teacher, 200)] == [0.7] * 200
    assert len(endpoint.judged) == num_during_outage + 200


def test_after_a_cool_down_one_request_tries_and_the_others_wait_for_it(endpoint: ScriptedEndpoint) -> None:
    first(99, Answer(500), endpoint)
    teacher = endpoint.teacher(num_at_once=4, num_attempts=1, breaker_threshold=2, cool_down_s=0.2)
    ask(teacher, 4)
    time.sleep(0.25)
    endpoint.script = lambda seen: verdict(seen) if not time.sleep(0.05) else Answer()
    endpoint.most_open = 0
    before = len(endpoint.seen)
    assert {j.teacher_score for j in ask(teacher, 8)} == {0.7}
    assert endpoint.seen[before + 1].at - endpoint.seen[before].at >= 0.05


def test_a_probe_that_drips_to_death_does_not_block_the_next(endpoint: ScriptedEndpoint) -> None:
    first(99, Answer(500), endpoint)
    teacher = endpoint.teacher(timeout_s=0.3, num_attempts=1, breaker_threshold=2, cool_down_s=0.1)
    ask(teacher, 4)
    time.sleep(0.15)
    endpoint.script = lambda _seen: Answer(drip_s=0.05, body={"pad": "x" * 100})
    found = ask(teacher, 3)
    assert {j.unscored_reason for j in found} == {"timeout", "endpoint_down"}
    endpoint.script = verdict
    time.sleep(0.25)
    assert {j.teacher_score for j in ask(teacher, 3)} == {0.7}


def test_health_with_a_probe_tells_the_truth_of_now(endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.teacher.api.FRESH_S", 0.0)
    teacher = endpoint.teacher()
    assert teacher.health(probe=True).is_up
    endpoint.script = lambda _seen: Answer(503)
    health = teacher.health(probe=True)
    assert (health.is_up, health.reason) == (False, "server_error")
    endpoint.script = lambda seen: Answer(400, {"error": {"message": "max_tokens too small"}}) if seen.is_probe else verdict(seen)
    assert teacher.health(probe=True).is_up
    assert ask(teacher)[0].teacher_score == 0.7
    num_before = len(endpoint.seen)
    monkeypatch.setattr("core.teacher.api.FRESH_S", 30.0)
    assert teacher.health(probe=True).is_up
    assert len(endpoint.seen) == num_before


def test_arithmetic_of_waiting() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("2") == 2.0
    assert retry_after_s("Thu, 01 Jan 2026 00:00:07 GMT", now) == 7.0
    assert retry_after_s("Thu, 01 Jan 2020 00:00:07 GMT", now) == 0.0
    assert [retry_after_s(text) for text in (None, "", "soon", "inf", "nan")] == [None] * 5
    assert [duration_s(text) for text in ("1s", "6m0s", "20ms", "1h2m", "3", "1.5s")] == [1, 360, 0.02, 3720, 3, 1.5]
    assert duration_s("later") is None
    bucket = Bucket(60.0, now=0.0)  # one a second, six at once
    for _ in range(6):
        assert bucket.delay(1, 0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(1.0)
    assert bucket.delay(1, 2.0) == 0
    assert Bucket(0.0, 0.0).delay(1e9, 0.0) == 0
    assert Bucket(60.0, 0.0).delay(100, 0.0) == 0  # more than it holds: when it is full, and then it is in debt
    pace = Pace(0.0, 0.0, 0.0)
    pace.pause(5.0, 0.0)
    pace.pause(1.0, 0.0)
    assert pace.delay(1, 2.0) == 3.0


def test_backoff_has_full_jitter_and_never_comes_early() -> None:
    import random

    rng, backoff = random.Random(0), Backoff(1.0, 8.0)
    for number, bound in enumerate((1, 2, 4, 8, 8, 8)):
        drawn = [backoff.pause_s(number, rng) for _ in range(300)]
        assert 0 <= min(drawn) < 0.1 * bound
        assert 0.9 * bound < max(drawn) <= bound
    assert min(backoff.pause_s(0, rng, 3.0) for _ in range(100)) >= 3.0


def test_the_breaker_opens_probes_and_closes() -> None:
    breaker = Breaker(threshold=3, cool_down_s=10.0, longest_s=30.0)
    for _ in range(2):
        breaker.fail("server_error", 0.0)
    assert breaker.may_start(0.0)
    breaker.fail("server_error", 0.0)
    assert not breaker.may_start(9.9)
    assert breaker.may_start(10.0)
    assert breaker.begin()
    assert not breaker.may_start(11.0)
    assert not breaker.begin()
    breaker.fail("timeout", 11.0, is_probe=True)
    assert not breaker.may_start(30.9)
    assert breaker.may_start(31.0)
    breaker.begin()
    breaker.abandon(is_probe=True)
    assert breaker.may_start(31.0)
    breaker.begin()
    breaker.succeed()
    assert breaker.may_start(31.0)
    assert breaker.reason is None
