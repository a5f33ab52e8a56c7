"""The Jobs page: start from a form, watch, stop, resume; who may; what it says when there is nothing or something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.home import Home
from core.jobs import api, views
from db import tables as t
from db.base import utc_now
from db.engine import write_session

OpenPage = Callable[..., AppTest]


def texts(screen: AppTest) -> str:
    """Everything that is written on the screen."""
    kinds: list[Any] = [screen.markdown, screen.caption, screen.info, screen.error, screen.success, screen.warning, screen.code]
    return "\n".join(str(e.value) for kind in kinds for e in kind) + "\n".join(e.proto.body for e in screen.get("html"))


@pytest.fixture
def running(home: Home) -> int:
    """A job as the worker leaves it while its training runs, with its files."""
    with write_session() as session:
        job_id = api.enqueue(session, "sft", {"name": "careful"})
        row = api.get(session, job_id)
        row.status, row.slot, row.started_at, row.lease_token = "running", "gpu:0", utc_now(), "x"
        row.progress = {"phase": "sft", "done": 30, "total": 120, "eta_s": 95.0}
    run_dir = home.run_dir(job_id)
    run_dir.mkdir(parents=True)
    (run_dir / "log.txt").write_text("\n".join(f"line {n}" for n in range(300)))
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps({"step": n, "train/loss": 3 - n / 50}) + "\n" for n in range(120)))
    return job_id


def test_an_empty_queue_offers_the_demo_and_runs_it_once(open_page: OpenPage) -> None:
    screen = open_page("engineer", "jobs")
    assert not screen.exception
    assert "No job has been started yet" in texts(screen)
    screen.button(key="jobs_demo").click().run()
    assert not screen.exception
    assert "queued as 8 jobs" in texts(screen)
    kinds = [job.kind for job in reversed(views.newest())]
    assert kinds == ["demo_base", "sft", "sample", "score", "conflicts", "ppo", "evaluate", "index"]
    assert not [b for b in screen.button if b.key == "jobs_demo"]
    assert 'href="/jobs?job=1"' in texts(screen)


def test_a_job_is_started_from_its_form_and_opens(open_page: OpenPage) -> None:
    screen = open_page("engineer", "jobs")
    screen.text_input(key="jobs_new_sft_0_name").set_value("careful")
    screen.number_input(key="jobs_new_sft_0_lora_r").set_value(8)
    screen.button(key="jobs_new_sft_0_go").click().run()
    assert not screen.exception
    [job] = views.newest()
    assert (job.kind, job.status, job.config["name"], job.config["lora_r"], job.created_by) == ("sft", "queued", "careful", 8, 1)
    assert screen.query_params["job"] == "1"
    assert "-m training.sft --run-dir" in texts(screen)
    assert "Job 1 is queued." in texts(screen)


def test_a_wrong_value_is_told_in_a_sentence_and_nothing_starts(open_page: OpenPage) -> None:
    screen = open_page("engineer", "jobs")
    screen.number_input(key="jobs_new_sft_0_lora_r").set_value(0)
    screen.button(key="jobs_new_sft_0_go").click().run()
    assert {e.value for e in screen.error} == {"Please fill in name.", "lora_r must be at least 1."}
    assert views.newest() == []


def test_a_weekly_job_becomes_a_schedule_that_can_be_paused(open_page: OpenPage) -> None:
    screen = open_page("engineer", "jobs")
    screen.selectbox(key="jobs_kind_0").set_value("score").run()
    screen.selectbox(key="jobs_new_score_0_repeat").set_value("weekly")
    screen.text_input(key="jobs_new_score_0_schedule").set_value("weekly scores")
    screen.button(key="jobs_new_score_0_go").click().run()
    [row] = views.list_schedules()
    assert (row.name, row.kind, row.cron) == ("weekly scores", "score", "0 3 * * 1")
    assert views.newest() == []
    screen.button(key=f"jobs_schedule_{row.id}").click().run()
    assert not views.list_schedules()[0].is_active


def test_a_running_job_shows_progress_log_and_charts_and_can_be_stopped(open_page: OpenPage, running: int) -> None:
    screen = open_page("engineer", "jobs", query={"job": str(running)})
    assert not screen.exception
    shown = texts(screen)
    assert "line 299" in shown
    assert "line 99\n" not in shown
    assert "train/loss **0.62**" in shown
    assert "about 1:35 left" in screen.get("progress")[0].proto.text
    assert len(screen.get("vega_lite_chart")) + len(screen.get("arrow_vega_lite_chart")) == 1
    screen.button(key="jobs_stop_and_save").click().run()
    assert views.get(running).cancel_mode == "stop_and_save"
    assert "saves a checkpoint first" in texts(screen)
    screen.button(key="jobs_stop_now").click().run()
    assert views.get(running).cancel_mode == "stop_now"


def test_a_failed_job_says_why_and_is_retried_with_what_waited_for_it(open_page: OpenPage) -> None:
    with write_session() as session:
        first = api.enqueue(session, "sft", {"name": "careful"})
        second = api.enqueue(session, "sample", {"model": "careful"}, after_id=first)
        row = api.get(session, first)
        row.status, row.started_at, row.finished_at, row.exit_code = "failed", utc_now(), utc_now(), 1
        row.error = {"code": "jobs.crashed", "params": {"exit": 1, "attempts": 2, "last": "ValueError: odd"}, "log": "Traceback"}
        api.fail_followers(session, first)
    screen = open_page("engineer", "jobs", query={"job": str(first)}, language="zh")
    assert not screen.exception
    assert "ValueError: odd" in screen.error[0].value
    assert "因错误停止" in screen.error[0].value
    screen.button(key="jobs_retry").click().run()
    assert not screen.exception
    assert [views.get(i).status for i in (first, second)] == ["queued", "queued"]
    assert views.get(first).attempt == 2


def test_a_cancelled_job_can_be_the_template_of_a_new_one(open_page: OpenPage) -> None:
    with write_session() as session:
        job_id = api.enqueue(session, "sft", {"name": "careful", "num_epochs": 2.5})
    screen = open_page("engineer", "jobs", query={"job": str(job_id)})
    screen.button(key="jobs_copy").click().run()
    assert not screen.exception
    assert screen.number_input(key=f"jobs_new_sft_{job_id}_num_epochs").value == 2.5


def test_filters_and_pages_of_fifty(open_page: OpenPage) -> None:
    with write_session() as session:
        for n in range(60):
            api.enqueue(session, "score" if n % 2 else "conflicts", {})
    screen = open_page("admin", "jobs")
    assert texts(screen).count("<tr><td>") == 50
    screen.button(key="jobs_older").click().run()
    assert texts(screen).count("<tr><td>") == 10
    screen.selectbox(key="jobs_filter_kind").set_value("score").run()
    assert texts(screen).count("<tr><td>") == 5


def test_names_are_escaped_in_the_table(open_page: OpenPage) -> None:
    with write_session() as session:
        api.enqueue(session, "sft", {"name": "<img src=x onerror=alert(1)>"})
    assert "<img" not in open_page("engineer", "jobs").get("html")[0].proto.body


@pytest.mark.parametrize("role", ["clinician", "product"])
def test_others_are_told_that_it_is_not_for_them(open_page: OpenPage, role: str) -> None:
    screen = open_page(role, "jobs")
    assert screen.error
    assert not screen.button


def test_a_role_that_was_taken_away_counts_at_the_next_click(open_page: OpenPage, sign_in: Callable[..., Any]) -> None:
    person = sign_in("engineer")
    screen = open_page(person, "jobs")
    with write_session() as session:
        row = session.get(t.User, person.id)
        assert row is not None
        row.role = "clinician"
    screen.button(key="jobs_demo").click().run()
    assert views.newest() == []
    assert screen.error


def test_an_unknown_job_is_a_sentence(open_page: OpenPage) -> None:
    screen = open_page("engineer", "jobs", query={"job": "99"})
    assert screen.error[0].value == "There is no job 99. Open the list of jobs and choose another."
