"""The ledger in the database: paid once, counted, never above the budget; a killed score job goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from core.home import Home, open_home
from core.jobs.configs import ScoreConfig
from core.records import Prompt
from core.settings import ROOT, Settings
from core.teacher.prices import Price, shipped_prices
from core.teacher.store import DatabaseLedger
from db import tables as t
from db.engine import read_session, write_session
from tests import factories as make
from tests.teacher.endpoint import Answer, ScriptedEndpoint, Seen, answers, ask_about, verdict
from training.run import Run
from training.score import run_score

PROMPT = ask_about()
#: 400 prompt and 50 completion tokens, as the scripted endpoint reports
COST = (400 * 1.0 + 50 * 4.0) / 1e6


def price(session: Any) -> None:
    session.add(t.TeacherPrice(model="judge-1", input_usd=1.0, output_usd=4.0, as_of="2026-11-01", source="test"))


def configured(home: Home, endpoint: ScriptedEndpoint, **values: Any) -> Settings:
    """Settings with this endpoint, in force for this process and its children."""
    chosen = {"teacher_base_url": endpoint.url, "teacher_model": "judge-1", "teacher_audit_share": 0.0, **values}
    return open_home(home.settings.model_copy(update=chosen)).settings


def total(column: Any) -> Any:
    with read_session() as session:
        return session.scalar(select(func.sum(column)))


def completions(number: int) -> None:
    """A dataset `many` with that many stored completions on different questions."""
    with write_session() as session:
        dataset = make.dataset(session, name="many")
        for i in range(number):
            sample = make.sample(
                session, f"Question {i}: chest pain?", dataset=dataset, reference="Call 120.", risk="low" if i % 2 else "high"
            )
            make.completion(session, text=f"<think>Red flag.</think>Answer {i}", sample=sample)


def run_job(home: Home, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
    folder.mkdir()
    (folder / "config.json").write_text(ScoreConfig(dataset="many").model_dump_json(), "utf-8")
    run_score(Run(folder, 0, open_home(home.settings)))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return found


def test_a_verdict_is_paid_for_once_across_processes(home: Home, endpoint: ScriptedEndpoint) -> None:
    with write_session() as session:
        price(session)
    settings = configured(home, endpoint)
    with endpoint.teacher(DatabaseLedger(settings)) as teacher:
        first = teacher.judge([PROMPT] * 3, answers(3))
        assert teacher.usage().cost_usd == pytest.approx(3 * COST)
    with endpoint.teacher(DatabaseLedger(settings)) as later:
        again = later.judge([PROMPT] * 4, answers(4))
        assert (later.usage().num_cached, later.usage().num_requests) == (3, 1)
    assert len(endpoint.seen) == 4
    assert [(j.teacher_score, j.critique) for j in again[:3]] == [(j.teacher_score, j.critique) for j in first]
    assert (total(t.TeacherUsage.num_asked), total(t.TeacherUsage.num_cached), total(t.TeacherUsage.num_requests)) == (7, 3, 4)
    assert total(t.TeacherUsage.cost_usd) == pytest.approx(4 * COST)
    with read_session() as session:
        row = session.scalars(select(t.TeacherVerdict)).first()
        assert row is not None
        assert (row.prompt_tokens, row.cost_usd, row.reported_model) == (400, pytest.approx(COST), "judge-1")


def test_another_rubric_reference_or_text_is_another_verdict(home: Home, endpoint: ScriptedEndpoint) -> None:
    from dataclasses import replace

    ledger = DatabaseLedger(configured(home, endpoint))
    with endpoint.teacher(ledger) as teacher:
        for prompt in (PROMPT, replace(PROMPT, reference="Rest."), replace(PROMPT, key_points=("120",)), replace(PROMPT, sample_id=None)):
            teacher.judge([prompt], answers(1))
    assert len(endpoint.seen) == 3  # the last one differs in nothing that the judge sees
    other = endpoint.teacher(ledger)
    other.template = other._engine.template = other._engine.asker.template = replace(other.template, version="teacher_v3-x")
    other.judge([PROMPT], answers(1))
    assert len(endpoint.seen) == 4


@pytest.mark.parametrize("scope", ["job", "month"])
def test_the_budget_is_never_exceeded(home: Home, endpoint: ScriptedEndpoint, scope: str) -> None:
    with write_session() as session:
        price(session)
        if scope == "month":  # money that an earlier job of this month has spent, and one of last year
            for day, usd in ((f"{datetime.now(UTC):%Y-%m}-01", 0.5), ("2020-01-01", 99.0)):
                session.add(t.TeacherUsage(run_token=day, day=day, teacher="judge-1", cost_usd=usd))
    worst = Price("judge-1", 1.0, 4.0, None, date(2026, 11, 1)).most(4000, 2, 1200)
    budget = 10 * COST + worst
    limit = {"teacher_job_budget_usd": budget} if scope == "job" else {"teacher_month_budget_usd": 0.5 + budget}
    ledger = DatabaseLedger(configured(home, endpoint, **limit))
    endpoint.script = lambda seen: verdict(seen) if not time.sleep(0.005) else Answer()
    with endpoint.teacher(ledger, num_at_once=4) as teacher:
        found = teacher.judge([PROMPT] * 60, answers(60))
        scored = [j for j in found if j.teacher_score is not None]
        assert {j.unscored_reason for j in found if j.teacher_score is None} == {"budget_spent"}
        assert len(scored) == len(endpoint.seen)
        assert 8 <= len(scored) <= 20  # it goes on until one more could be too much
        assert (teacher.health().is_up, teacher.health().reason) == (False, "budget_spent")
        assert teacher.health(probe=True).reason == "budget_spent"
    with read_session() as session:
        spent = session.scalar(select(func.sum(t.TeacherUsage.cost_usd)).where(t.TeacherUsage.run_token == ledger.run_token))
        assert spent is not None
        assert spent == pytest.approx(len(scored) * COST)
        assert spent <= budget
    assert total(t.TeacherUsage.reserved_usd) == pytest.approx(0.0, abs=1e-12)


def test_what_broke_off_counts_as_spent(home: Home, endpoint: ScriptedEndpoint) -> None:
    with write_session() as session:
        price(session)
    ledger = DatabaseLedger(configured(home, endpoint, teacher_job_budget_usd=0.02))
    endpoint.script = lambda _seen: Answer(hang_s=5.0)
    with endpoint.teacher(ledger, timeout_s=0.2, num_at_once=2) as teacher:
        found = teacher.judge([PROMPT] * 12, answers(12))
    reasons = [j.unscored_reason for j in found]
    assert set(reasons) == {"timeout", "budget_spent"}
    assert total(t.TeacherUsage.unclear_usd) <= 0.02
    assert total(t.TeacherUsage.cost_usd) == 0.0
    assert total(t.TeacherUsage.num_cost_unknown) == reasons.count("timeout") == len(endpoint.seen)


def test_a_budget_without_a_price_asks_nothing_and_no_price_is_not_free(home: Home, endpoint: ScriptedEndpoint) -> None:
    with endpoint.teacher(DatabaseLedger(configured(home, endpoint, teacher_job_budget_usd=1.0))) as teacher:
        assert teacher.judge([PROMPT], answers(1))[0].unscored_reason == "price_unknown"
    assert endpoint.seen == []
    with endpoint.teacher(DatabaseLedger(configured(home, endpoint))) as teacher:
        assert teacher.judge([PROMPT], answers(1))[0].teacher_score == 0.7
        assert teacher.usage().cost_usd is None
    with read_session() as session:
        assert session.scalars(select(t.TeacherVerdict.cost_usd)).all() == [None]
    assert total(t.TeacherUsage.num_cost_unknown) == 1


def test_cached_tokens_are_cheaper_and_shipped_prices_are_dated() -> None:
    found = shipped_prices()["deepseek-chat"]
    assert found.cost(1_000_000, 400_000, 1_000_000) == pytest.approx(0.6 * found.input + 0.4 * (found.cached_input or 0) + found.output)
    assert found.as_of.year >= 2025
    assert found.source.startswith("https://")
    assert Price("m", 1.0, 1.0, None, date(2026, 1, 1)).cost(10, 10, 0) == pytest.approx(1e-5)


def test_second_opinions_are_drawn_by_key_and_stored_apart(home: Home, endpoint: ScriptedEndpoint) -> None:
    settings = configured(home, endpoint)
    seen_before: dict[str, int] = {}

    def script(seen: Seen) -> Answer:
        text = seen.data["answer"]
        seen_before[text] = seen_before.get(text, 0) + 1
        return verdict(seen, teacher_score=0.7 if seen_before[text] == 1 else 0.5, safety_flag=seen_before[text] > 1)

    endpoint.script = script
    with endpoint.teacher(DatabaseLedger(settings), audit_share=0.25) as teacher:
        found = teacher.judge([PROMPT] * 40, answers(40))
        assert teacher.wait_idle(10)
        num_audits = teacher.usage().num_audits
    assert 3 <= num_audits <= 20
    assert {j.teacher_score for j in found} == {0.7}
    with read_session() as session:
        rows = session.scalars(select(t.TeacherAudit)).all()
        assert len(rows) == num_audits == len(endpoint.seen) - 40
        assert {(r.first_score, r.second_score, r.first_flag, r.second_flag) for r in rows} == {(0.7, 0.5, False, True)}
        assert set(session.scalars(select(t.TeacherVerdict.teacher_score))) == {0.7}
    with endpoint.teacher(DatabaseLedger(settings), audit_share=0.25) as teacher:
        assert {j.teacher_score for j in teacher.judge([PROMPT] * 40, answers(40))} == {0.7}
        teacher.wait_idle(10)
    assert len(endpoint.seen) == 40 + num_audits


def test_an_outage_in_a_score_job_loses_nothing(home: Home, tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    completions(40)
    configured(home, endpoint, teacher_num_at_once=4)
    home = open_home(
        home.settings.model_copy(update={"teacher_base_url": endpoint.url, "teacher_model": "judge-1", "teacher_audit_share": 0.0})
    )
    endpoint.script = lambda seen: verdict(seen) if seen.number <= 15 else Answer(401)
    first = run_job(home, tmp_path)
    assert (first["num_scored"], first["num_rewards"]) == (40, 40)
    assert first["unscored"] == {"teacher:bad_key": 25}
    with read_session() as session:  # high risk went first
        scored = select(t.Sample.risk).join(t.Completion).join(t.Judgement).where(t.Judgement.teacher_score.is_not(None))
        assert set(session.scalars(scored)) == {"high"}
    endpoint.script = verdict
    before = len(endpoint.seen)
    second = run_job(home, tmp_path)
    assert (second["num_scored"], second["unscored"], second["teacher_requests"]) == (25, {}, 25)
    assert len(endpoint.seen) == before + 25
    third = run_job(home, tmp_path)
    assert (third["num_scored"], third["teacher_requests"]) == (0, 0)
    with read_session() as session:
        newest = select(func.max(t.Judgement.id)).group_by(t.Judgement.completion_id)
        assert session.scalars(select(t.Judgement.teacher_score).where(t.Judgement.id.in_(newest))).all() == [0.7] * 40


def test_a_killed_score_job_asks_only_for_what_is_missing(home: Home, tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    completions(64)
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "config.json").write_text(ScoreConfig(dataset="many").model_dump_json(), "utf-8")
    endpoint.script = lambda seen: verdict(seen) if not time.sleep(0.02) else Answer()
    environment = {
        **os.environ,
        "CONSILIUM_HOME": str(home.root),
        "CONSILIUM_TEACHER_BASE_URL": endpoint.url,
        "CONSILIUM_TEACHER_MODEL": "judge-1",
        "CONSILIUM_TEACHER_AUDIT_SHARE": "0",
        "CONSILIUM_TEACHER_NUM_AT_ONCE": "4",
    }
    command = [sys.executable, "-m", "training.score", "--run-dir", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(endpoint.seen) < 24 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    time.sleep(0.1)
    num_before = len(endpoint.seen)
    assert 24 <= num_before < 60
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 64 <= len(endpoint.seen) <= 64 + 4  # every text once, and what was on its way when the job was killed
    result = json.loads((folder / "result.json").read_text())
    assert result["unscored"] == {}
    with read_session() as session:
        assert session.scalar(select(func.count(func.distinct(t.TeacherVerdict.key)))) == 64
        newest = select(func.max(t.Judgement.id)).group_by(t.Judgement.completion_id)
        assert session.scalars(select(t.Judgement.teacher_score).where(t.Judgement.id.in_(newest))).all() == [0.7] * 64


def test_a_broken_database_is_said_and_costs_no_verdict(home: Home, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.errors import Unavailable

    ledger = DatabaseLedger(configured(home, endpoint))
    write, broken = ledger.write, [True]

    def fail_once(events: Any) -> None:
        if broken[0]:
            raise Unavailable("disk_full")
        write(events)

    monkeypatch.setattr(ledger, "write", fail_once)
    teacher = endpoint.teacher(ledger)
    with pytest.raises(Unavailable):
        teacher.judge([PROMPT], answers(1))
    broken[0] = False
    assert teacher.judge([PROMPT], answers(2)[1:])[0].teacher_score == 0.7
    teacher.wait_idle(5)
    with read_session() as session:  # the first verdict was kept for the next time
        assert session.scalar(select(func.count(t.TeacherVerdict.id))) == 2


def test_prompts_of_other_homes_need_no_sample(home: Home, endpoint: ScriptedEndpoint) -> None:
    typed = Prompt(PROMPT.messages, PROMPT.language)
    with endpoint.teacher(DatabaseLedger(configured(home, endpoint))) as teacher:
        assert teacher.judge([typed], answers(1))[0].teacher_score == 0.7
