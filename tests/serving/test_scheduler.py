"""The scheduler without HTTP: yielding to training, refusing when full, letting go of memory, surviving a crash."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator

import pytest

from core.errors import Unavailable, UserError
from core.home import Home
from core.models import folder_hash
from core.policy import Policy
from core.records import Message
from core.serving.batch import Batch
from core.serving.scheduler import Done, Event, Failed, Scheduler, Ticket
from core.serving.versions import served_version
from db import tables as t
from db.engine import write_session
from tests.serving.tiny import ADAPTER_ANSWER, BASE_ANSWER, QUESTION


@pytest.fixture
def start(tiny_home: Home) -> Iterator[Callable[..., Scheduler]]:
    """`start(model_server_rows=2)`: a running scheduler with these settings."""
    running: list[Scheduler] = []

    def make(**settings: object) -> Scheduler:
        home = Home(tiny_home.root, tiny_home.settings.model_copy(update={"device": "cpu", **settings}))
        running.append(Scheduler(home))
        running[-1].start()
        return running[-1]

    yield make
    for scheduler in running:
        scheduler.close()


def send(scheduler: Scheduler, version: str = "tiny-base", max_new_tokens: int = 100) -> tuple[Ticket, queue.Queue[Event]]:
    events: queue.Queue[Event] = queue.Queue()
    ticket = Ticket(served_version(scheduler.home, version), [Message("user", QUESTION)], 0.0, 0, max_new_tokens, events.put)
    scheduler.submit(ticket)
    return ticket, events


def read(events: queue.Queue[Event]) -> tuple[str, Event]:
    """The whole text and how it ended."""
    text = ""
    while isinstance(event := events.get(timeout=60), str):
        text += event
    return text, event


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_the_model_leaves_while_a_gpu_job_runs_and_comes_back(start: Callable[..., Scheduler]) -> None:
    scheduler = start(model_server_yields="always")
    assert read(send(scheduler)[1])[0] == BASE_ANSWER
    with write_session() as session:
        job = t.Job(kind="ppo", config={}, queue="gpu", status="running", slot="gpu:0")
        session.add(job)
        session.flush()
        job_id = job.id
    wait_until(lambda: not scheduler.state()["is_loaded"])
    _, end = read(send(scheduler)[1])
    assert isinstance(end, Failed)
    assert isinstance(end.error, UserError)
    assert end.error.code == "serving.training"
    with write_session() as session:
        session.get_one(t.Job, job_id).status = "succeeded"

    def answers() -> bool:
        return read(send(scheduler)[1])[0] == BASE_ANSWER

    wait_until(answers)


def test_a_cpu_server_stays_by_default(start: Callable[..., Scheduler]) -> None:
    with write_session() as session:
        session.add(t.Job(kind="ppo", config={}, queue="gpu", status="running", slot="gpu:0"))
    assert read(send(start())[1])[0] == BASE_ANSWER


def test_when_full_the_next_one_is_refused_and_nobody_else_harmed(start: Callable[..., Scheduler]) -> None:
    scheduler = start(model_server_rows=1, model_server_waiting=2)
    long, events = send(scheduler, "tiny-endless", 20_000)
    assert isinstance(events.get(timeout=60), str)
    waiting = [send(scheduler, "tiny-endless", 5) for _ in range(2)]
    with pytest.raises(Unavailable, match=r"serving\.busy"):
        send(scheduler, "tiny-endless", 5)
    long.cancel()
    for _, others in waiting:
        text, end = read(others)
        assert isinstance(end, Done)
        assert BASE_ANSWER.startswith(text)


def test_memory_is_freed_when_idle(start: Callable[..., Scheduler]) -> None:
    scheduler = start(model_server_idle_minutes=0.02)
    assert read(send(scheduler, "tiny-lora")[1])[0] == ADAPTER_ANSWER
    wait_until(lambda: not scheduler.state()["is_loaded"])
    assert read(send(scheduler, "tiny-lora")[1])[0] == ADAPTER_ANSWER


def test_new_weights_under_the_same_name_are_loaded(start: Callable[..., Scheduler], tiny_home: Home) -> None:
    scheduler = start()
    assert read(send(scheduler, "tiny-lora")[1])[0] == ADAPTER_ANSWER
    from safetensors.torch import load_file, save_file

    path = tiny_home.models / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(path).items()}, path)
    with write_session() as session:
        row = session.query(t.ModelVersion).filter_by(name="tiny-lora").one()
        row.content_hash = folder_hash(path.parent)
    assert read(send(scheduler, "tiny-lora")[1])[0] == BASE_ANSWER, "an adapter of zeros is the base"


def test_a_crash_ends_the_running_answers_and_the_next_one_is_fine(
    start: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = start()
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "step", lambda _self: (_ for _ in ()).throw(RuntimeError("out of memory")))
        _, end = read(send(scheduler)[1])
        assert isinstance(end, Failed)
        assert "out of memory" in str(end.error)
    assert read(send(scheduler)[1])[0] == BASE_ANSWER
    assert "out of memory" in caplog.text


def test_rows_that_join_and_leave_get_what_they_would_get_alone(tiny_home: Home) -> None:
    """Prompts of different length join at different steps; rows end early; each must match Policy.sample by itself."""
    from core.serving.batch import Row

    policy = Policy.load(tiny_home, str(tiny_home.models / "base"), "cpu")
    questions = ["胸痛", "你好，我昨天开始发热咳嗽", "x", QUESTION, "a" * 60]
    rows = [Row(policy.encode([Message("user", q)]), [0.0, 1.6][i % 2], 5 + i, 10 + 7 * i) for i, q in enumerate(questions)]
    batch = Batch(policy, None)
    waiting, running = list(rows), True
    while running:
        if waiting:
            batch.add(waiting[:1] if len(waiting) % 2 else waiting[:2])
            waiting = waiting[1:] if len(waiting) % 2 else waiting[2:]
        else:
            batch.step()
        for _ in range(3):
            batch.keep([i for i, r in enumerate(batch.rows) if r.ids[-1] not in policy.eos_ids and len(r.ids) < r.max_new_tokens])
            if batch.rows:
                batch.step()
        batch.keep([i for i, r in enumerate(batch.rows) if r.ids[-1] not in policy.eos_ids and len(r.ids) < r.max_new_tokens])
        running = bool(waiting or batch.rows)
    for row in rows:
        prompt = policy.decode(row.prompt_ids)
        [alone] = policy.generate(
            [[Message("user", questions[rows.index(row)])]],
            adapter=None,
            temperature=row.temperature,
            max_new_tokens=row.max_new_tokens,
            seed=row.seed,
        )
        assert policy.decode(row.ids) == alone.text, prompt
