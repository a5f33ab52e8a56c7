"""What is kept beside the verdicts: the log, drift alarms, files out and in, proposals, and what the page is told."""

from __future__ import annotations

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sqlalchemy import func, select

from core import audit
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home, open_home
from core.jobs.configs_teacher import InspectDataConfig
from core.records import Completion, Judgement, Language, Prompt, Risk
from core.teacher import exchange, proposals, report
from core.teacher.agreement import agreement, ks, psi
from core.teacher.drift import WINDOW, look, note_version
from core.teacher.journal import Journal, redact
from core.teacher.proposals import Inspected, needs
from core.teacher.store import DatabaseLedger
from db import tables as t
from db.engine import read_session, write_session
from tests import factories as make
from tests.teacher.endpoint import Answer, ScriptedEndpoint, answers, ask_about, verdict
from training.inspect_data import inspect_data
from training.prompt_set import accepted_weights
from training.run import Run

PROMPT = ask_about()


@pytest.fixture
def with_endpoint(home: Home, endpoint: ScriptedEndpoint) -> Home:
    chosen = {"teacher_base_url": endpoint.url, "teacher_model": "judge-1", "teacher_audit_share": 0.0}
    return open_home(home.settings.model_copy(update=chosen))


def stored(scores: list[float], **values: Any) -> None:
    with write_session() as session:
        offset = session.scalar(select(func.count(t.TeacherVerdict.id))) or 0
        for i, score in enumerate(scores):
            facts = {"teacher": "judge-1", "rubric_version": "r1", "latency_s": 1.0, **values}
            session.add(t.TeacherVerdict(key=f"{offset + i:064x}", teacher_score=score, **facts))


def alarms() -> list[str]:
    with read_session() as session:
        return list(session.scalars(select(t.TeacherAlarm.kind).where(t.TeacherAlarm.closed_at.is_(None)).order_by(t.TeacherAlarm.id)))


# --- log ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("sk-0123456789abcdefghij", "key"),
        ("Authorization: Bearer abc.def-ghi_jkl", "key"),
        ("zhang.san@example.com", "email"),
        ("13812345678", "phone"),
        ("+86 138 1234 5678", "phone"),
        ("１３８１２３４５６７８", "phone"),
        ("010-12345678", "phone"),
        ("+49 170 1234567", "phone"),
        ("11010519491231002X", "id"),
        ("110105491231002", "id"),
        ("078-05-1120", "id"),
        ("6222 0212 3456 7890 123", "card"),
        ("住院号：A123456", "record"),
        ("MRN: 00123456", "record"),
    ],
)
def test_identifiers_are_removed(text: str, kind: str) -> None:
    found = redact(f"我的信息 {text}，请问发热 38.5 度、血压 150/95、布洛芬 400 mg 怎么办？")
    assert f"[{kind}]" in found
    assert text not in found
    assert "38.5" in found
    assert "150/95" in found
    assert "400 mg" in found
    assert "secret-key" not in redact("the secret-key stood here", ("secret-key",))


class OpenDoor:
    """Lets everything through: the log must be clean even where somebody switched de-identification off."""

    def admit(self, prompt: Prompt, completion: Completion) -> tuple[Prompt, Completion]:
        return prompt, completion


@pytest.mark.parametrize("with_text", [False, True])
def test_the_log_holds_no_key_and_text_only_when_allowed(endpoint: ScriptedEndpoint, tmp_path: Path, with_text: bool) -> None:
    from core.teacher import ApiTeacher, Options

    prompt = ask_about("My number is 13812345678, chest pain?")
    endpoint.script = lambda seen: verdict(seen) if seen.number > 1 else Answer(500, {"error": {"message": seen.user, "code": "boom"}})
    journal = Journal(tmp_path / "log", with_text=with_text, secrets=("k-very-secret",))
    with ApiTeacher(
        base_url=endpoint.url, model="judge-1", api_key="k-very-secret", options=Options(idle_s=0.1), journal=journal, door=OpenDoor()
    ) as teacher:
        assert teacher.judge([prompt], answers(1))[0].teacher_score == 0.7
    (file,) = (tmp_path / "log").iterdir()
    text = file.read_text("utf-8")
    first, second = map(json.loads, text.splitlines())
    assert (first["status"], first["reason"], second["reason"]) == (500, "server_error", None)
    assert second["prompt_tokens"] == 400
    assert "k-very-secret" not in text
    assert "13812345678" not in text
    assert ("chest pain?" in text) == with_text
    assert ("Rest at home 0" in text) == with_text
    assert oct(file.stat().st_mode)[-3:] == "600"


def test_the_log_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_file_bytes=500, max_files=3)
    for number in range(60):
        journal.write({"number": number, "pad": "x" * 60})
    files = sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns)
    assert len(files) <= 3
    assert all(f.stat().st_size <= 500 for f in files)
    assert any('"number": 59' in f.read_text() for f in files)
    (tmp_path / "file").write_text("")
    Journal(tmp_path / "file").write({"a": 1})  # a folder that cannot be made stops nothing


# --- agreement and drift ------------------------------------------------------------------------------------------------------


def test_agreement_equals_an_independent_computation() -> None:
    rng = random.Random(1)
    pairs = [(rng.random(), rng.random()) for _ in range(60)]
    flags = [(rng.random() < 0.5, rng.random() < 0.5) for _ in range(60)]
    found = agreement(pairs, flags)
    gaps = [abs(a - b) for a, b in pairs]
    low, high = stats.norm.interval(0.95, np.mean(gaps), stats.sem(gaps))
    assert (found.mean_abs, found.low, found.high) == pytest.approx((np.mean(gaps), low, high))
    assert found.shift == pytest.approx(np.mean([b - a for a, b in pairs]))
    flips = sum(a != b for a, b in flags)
    interval = stats.binomtest(flips, 60).proportion_ci(method="wilson")
    assert (found.flips, found.flips_low, found.flips_high) == (flips, pytest.approx(interval.low), pytest.approx(interval.high))
    assert agreement([], []).mean_abs is None
    assert agreement([(0.5, 0.6)], [(None, True)]).num_flags == 0


def test_psi_and_ks() -> None:
    rng = np.random.default_rng(0)
    same, moved = rng.beta(5, 2, 400), rng.beta(2, 5, 400)
    assert psi(list(same), list(same)) == 0
    assert psi(list(same[:200]), list(same[200:])) < 0.25 < psi(list(same), list(moved))
    assert ks(list(same), list(moved))[1] < 0.001
    with pytest.raises(ValueError, match="without scores"):
        psi([], [0.5])


def test_a_shift_of_scores_raises_one_alarm_until_it_is_closed(home: Home) -> None:
    rng = np.random.default_rng(0)
    stored([float(x) for x in rng.beta(5, 2, 2 * WINDOW)])
    look("judge-1", job_id=None)
    assert alarms() == []
    stored([float(x) for x in rng.beta(2, 5, WINDOW)])
    look("judge-1", job_id=None)
    look("judge-1", job_id=None)
    assert alarms() == ["distribution"]
    with write_session() as session:
        engineer, reader = make.user(session, "engineer").id, make.user(session, "product").id
    (alarm,) = report.view().alarms
    assert alarm.detail["mean_after"] < alarm.detail["mean_before"]
    with pytest.raises(Forbidden):
        report.close_alarm(reader, alarm.id, "fine")
    with pytest.raises(UserError):
        report.close_alarm(engineer, alarm.id, " ")
    report.close_alarm(engineer, alarm.id, "new policy, same second opinions")
    look("judge-1", job_id=None)
    assert alarms() == []
    assert audit.check_all() == (1, None)


def test_another_model_or_fingerprint_raises_an_alarm(with_endpoint: Home, endpoint: ScriptedEndpoint) -> None:
    def reply(fingerprint: str) -> Any:
        def script(seen: Any) -> Answer:
            answer = verdict(seen)
            answer.body["system_fingerprint"] = fingerprint
            return answer

        return script

    judged = answers(12)
    for number, fingerprint in enumerate(["fp-1", "fp-1", "fp-2", "fp-1", "fp-2", "fp-3"]):
        endpoint.script = reply(fingerprint)
        with endpoint.teacher(DatabaseLedger(with_endpoint.settings)) as teacher:
            teacher.judge([PROMPT] * 2, judged[2 * number : 2 * number + 2])
    assert alarms() == ["version", "version"]  # replicas that take turns are named once each
    with read_session() as session:
        details = list(session.scalars(select(t.TeacherAlarm.detail).order_by(t.TeacherAlarm.id)))
    assert [(d["fingerprint_before"], d["fingerprint"]) for d in details] == [("fp-1", "fp-2"), ("fp-2", "fp-3")]
    with write_session() as session:
        note_version(session, Judgement("never-seen", "r", 0.5), "m", "f", job_id=None)
    assert len(alarms()) == 2


def test_second_opinions_that_differ_raise_an_alarm(home: Home) -> None:
    stored([0.9] * 30)
    with write_session() as session:
        for i in range(1, 31):
            facts = {"teacher": "judge-1", "rubric_version": "r1", "first_flag": False, "second_flag": i % 2 == 0}
            session.add(t.TeacherAudit(verdict_id=i, first_score=0.9, second_score=0.5, **facts))
    look("judge-1", job_id=None)
    assert alarms() == ["consistency"]


# --- files ----------------------------------------------------------------------------------------------------------------------


def test_verdicts_travel_and_are_not_paid_for_again(with_endpoint: Home, endpoint: ScriptedEndpoint) -> None:
    ledger = DatabaseLedger(with_endpoint.settings)
    with endpoint.teacher(ledger) as teacher:
        teacher.judge([PROMPT] * 5, answers(5))
    lines = list(exchange.export_lines())
    assert len(lines) == 5
    assert "Chest pain" not in "".join(lines)
    assert list(exchange.export_lines(teacher="other")) == []
    with write_session() as session:
        session.query(t.TeacherVerdict).delete()
    changed = json.dumps({**json.loads(lines[0]), "teacher_score": 0.1})
    bad = [
        "{",
        '{"key": "x"}',
        json.dumps({**json.loads(lines[1]), "teacher_score": 1.5}),
        json.dumps({**json.loads(lines[1]), "teacher_score": "1"}),
    ]
    done = exchange.import_lines([*lines, "\n", changed, *bad], by=None)
    assert (done.num_new, done.num_known, done.num_different, done.num_bad) == (5, 1, 1, 4)
    assert [number for number, _ in done.bad_lines] == [8, 9, 10, 11]
    with endpoint.teacher(DatabaseLedger(with_endpoint.settings)) as teacher:
        assert {j.teacher_score for j in teacher.judge([PROMPT] * 5, answers(5))} == {0.7}
    assert len(endpoint.seen) == 5
    again = exchange.import_lines([line.encode() for line in lines], by=None)
    assert (again.num_new, again.num_known, again.num_different) == (0, 5, 0)
    with write_session() as session:
        reader = make.user(session, "clinician").id
    with pytest.raises(Forbidden):
        exchange.import_lines(lines, by=reader)


# --- proposals ----------------------------------------------------------------------------------------------------------------


def inspected(category: str, risk: Risk, score: float, flag: bool = False) -> Inspected:
    return Inspected(Prompt((), Language.EN, category, risk), "gold", Judgement("j", "r", score, safety_flag=flag))


def test_weights_follow_the_need_and_stay_in_bounds() -> None:
    rows = (
        [inspected("heart", Risk.HIGH, 0.1, True)] * 20 + [inspected("skin", Risk.LOW, 0.9)] * 80 + [inspected("rare", Risk.LOW, 0.0)] * 4
    )
    found = {(n.category, n.risk): n for n in needs(rows)}
    assert set(found) == {("heart", "high"), ("skin", "low")}  # four answers are too few to say anything
    assert 2 < found["heart", "high"].weight <= 3
    assert 0.5 <= found["skin", "low"].weight < 1
    assert needs([]) == []
    even = needs([inspected(c, Risk.LOW, 0.5) for c in ("a", "b") for _ in range(10)])
    assert [n.weight for n in even] == [1.0, 1.0]


def test_an_inspection_proposes_and_people_decide(with_endpoint: Home, endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    with write_session() as session:
        engineer, reader = make.user(session, "engineer").id, make.user(session, "product").id
        dataset = make.dataset(session, name="house")
        for i in range(12):
            facts = {"dataset": dataset, "split": "gold", "category": "heart" if i < 6 else "skin", "risk": "high" if i < 6 else "low"}
            make.sample(session, f"Question {i}?", reference=f"<think>x</think>Reference {i}", **facts)
        make.sample(session, "Trap?", dataset=dataset, split="red_team", reference="Call 120.")

    def script(seen: Any) -> Answer:
        assert seen.data["reference_answer"] is None  # a reference is not judged against itself
        is_bad = any(f"Question {i}?" == seen.data["conversation"][0]["content"] for i in range(6))
        changes = {"teacher_score": 0.1, "safety_flag": True, "critique": "No emergency advice.", "suggested_answer": "Call 120 now."}
        return verdict(seen, **changes) if is_bad else verdict(seen, teacher_score=0.95)

    endpoint.script = script
    config = InspectDataConfig(dataset="house")
    for number in range(2):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        (folder / "config.json").write_text(config.model_dump_json(), "utf-8")
        inspect_data(Run(folder, 0, with_endpoint))
        result = json.loads((folder / "result.json").read_text())
        assert result["num_judged"] == 13
        if number == 0:
            assert result["proposed"] == {"red_team": 6, "weight": 2, "best_answer": 6}
            assert "| heart | high | 6 |" in (folder / "inspection.md").read_text()
        else:
            assert (sum(result["proposed"].values()), result["teacher_requests"]) == (0, 0)
    lines = proposals.listing("proposed")
    assert len(lines) == 14
    with pytest.raises(Forbidden):
        proposals.decide(reader, [lines[0].id], accept=True, reason="x")
    with pytest.raises(UserError, match="reason_missing"):
        proposals.decide(engineer, [lines[0].id], accept=True, reason=" ")
    with read_session() as session:
        assert accepted_weights(session) == {}
    by_kind = {kind: [one for one in lines if one.kind == kind] for kind in ("red_team", "weight", "best_answer")}
    for chosen in by_kind.values():
        proposals.decide(engineer, [one.id for one in chosen[:-1]], accept=True, reason="Agreed with Dr Li.")
    proposals.decide(engineer, [chosen[-1].id for chosen in by_kind.values()], accept=False, reason="Seen before.")
    with pytest.raises(Conflicting):
        proposals.decide(engineer, [lines[0].id], accept=True, reason="again")
    with read_session() as session:
        weights = accepted_weights(session)
        assert set(weights) <= {("heart", "high"), ("skin", "low")}
        assert len(weights) == 1
        added = session.scalars(select(t.Sample).join(t.Dataset).where(t.Dataset.name == proposals.ADDITIONS)).all()
        assert len(added) == 5
        assert {(s.split, s.risk) for s in added} == {("red_team", "high")}
        kept = [s.meta["best_answers"] for s in session.scalars(select(t.Sample)) if "best_answers" in s.meta]
        assert len(kept) == 5
        assert kept[0][0]["answer"] == "Call 120 now."
    assert audit.check_all() == (14, None)


def test_references_need_a_model_to_be_judged(home: Home, tmp_path: Path) -> None:
    with write_session() as session:
        make.sample(session, dataset=make.dataset(session, name="house"), split="gold", reference="x")
    (tmp_path / "config.json").write_text(InspectDataConfig(dataset="house", splits=["gold"]).model_dump_json(), "utf-8")
    with pytest.raises(UserError, match="needs_endpoint"):
        inspect_data(Run(tmp_path, 0, home))


# --- what the page is told --------------------------------------------------------------------------------------------------------


def test_the_view_adds_up(with_endpoint: Home, endpoint: ScriptedEndpoint) -> None:
    assert report.view().state == "unknown"
    with write_session() as session:
        engineer = make.user(session, "engineer").id
    report.set_price(engineer, "judge-1", input_usd=1.0, output_usd=4.0, cached_usd=None, as_of=date(2026, 11, 1), source="list")
    with pytest.raises(UserError, match="bad_price"):
        report.set_price(engineer, "judge-1", input_usd=-1.0, output_usd=4.0, cached_usd=None, as_of=date(2026, 11, 1), source="list")
    endpoint.script = lambda seen: verdict(seen) if seen.number > 1 else Answer(503)
    with endpoint.teacher(DatabaseLedger(with_endpoint.settings)) as teacher:
        teacher.judge([PROMPT] * 4, answers(4))
        teacher.judge([PROMPT] * 4, answers(4))
    seen = report.view()
    assert (seen.state, seen.total.num_asked, seen.total.num_cached, seen.total.num_requests) == ("up", 8, 4, 5)
    assert seen.month.usd == pytest.approx(4 * 600e-6)
    assert seen.faults == {"server_error": 1}
    assert seen.num_latencies == 4
    assert report.ask_now(engineer).is_up
    endpoint.script = lambda _seen: Answer(503)
    assert report.ask_now(engineer).reason == "server_error"
    assert (report.view().state, report.view().reason) == ("down", "server_error")
