"""Reading a growing run folder: the end of a log, metrics by offset, charts that keep their shape."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from core.jobs import files
from core.jobs.endings import decide
from core.jobs.launch.base import Exit
from core.records import JobStatus
from db import tables as t


def test_tail_of_nothing_of_a_few_and_of_very_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert files.tail(path) == files.Tail("", 0)
    path.write_text("one\ntwo\n\n")
    assert files.tail(path).text == "one\ntwo"
    path.write_text("".join(f"line {n} {'x' * 90}\n" for n in range(20_000)))
    shown = files.tail(path, 200).text.split("\n")
    assert len(shown) == 200
    assert shown[-1].startswith("line 19999 ")
    assert all(line.startswith("line ") for line in shown)


def test_a_progress_bar_leaves_its_last_state_and_odd_bytes_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b" 1%|\r50%|\r99%| done\r\n\xff\xfe half \xe4\xb8")
    assert files.tail(path).text.split("\n")[0] == "99%| done"
    assert "half" in files.tail(path).text


def test_metrics_are_read_as_they_grow_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = files.Metrics(path)
    metrics.read()
    assert metrics.series == {}
    path.write_text('{"step": 1, "at": 5, "loss": 3}\n{"step": 2, "lo')
    metrics.read()
    assert metrics.series == {"loss": [(1, 3)]}
    with path.open("a") as file:
        file.write('ss": 2.5, "kl": NaN}\nnot json\n{"no": "step"}\n')
    metrics.read()
    assert metrics.series == {"loss": [(1, 3), (2, 2.5)]}
    path.write_text('{"step": 1, "loss": 9}\n')
    metrics.read()
    assert metrics.series == {"loss": [(1, 9)]}


def test_steps_repeated_after_a_resume_replace_the_undone_ones(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": n}) + "\n" for n, step in enumerate([1, 2, 3, 4, 3, 4, 5])))
    metrics = files.Metrics(path)
    metrics.read()
    assert metrics.series["loss"] == [(1, 0), (2, 1), (3, 4), (4, 5), (5, 6)]


@given(st.lists(st.floats(-1e6, 1e6), max_size=2000), st.integers(10, 300))
def test_downsampling_keeps_ends_extremes_and_order(values: list[float], limit: int) -> None:
    points = [(float(n), value) for n, value in enumerate(values)]
    kept = files.downsampled(points, limit)
    assert len(kept) <= max(limit, 0) or kept == points
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert max(v for _, v in kept) == max(values)
        assert min(v for _, v in kept) == min(values)


def row(**values: object) -> t.Job:
    return t.Job(**{"kind": "sft", "config": {}, "queue": "gpu", "attempt": 1, "max_attempts": 2, **values})


def test_every_ending_has_its_word(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"n": 1}')
    (tmp_path / "error.json").write_text('{"code": "disk_full", "params": {}}')
    (tmp_path / "log.txt").write_text("=== start\nValueError: odd\n=== end\n")
    cases: list[tuple[t.Job, Exit, JobStatus | None, str]] = [
        (row(), Exit(0), JobStatus.SUCCEEDED, ""),
        (row(cancel_mode="stop_and_save"), Exit(0), JobStatus.SUCCEEDED, ""),
        (row(cancel_mode="stop_and_save"), Exit(3), JobStatus.CANCELLED, ""),
        (row(cancel_mode="stop_now"), Exit(None, 15, was_terminated=True), JobStatus.CANCELLED, ""),
        (row(cancel_mode="stop_now"), Exit(0, was_terminated=True), JobStatus.CANCELLED, ""),
        (row(), Exit(4), JobStatus.FAILED, "disk_full"),
        (row(), Exit(1), None, "jobs.crashed"),
        (row(attempt=2), Exit(1), JobStatus.FAILED, "jobs.crashed"),
        (row(attempt=2), Exit(None, 9), None, "jobs.killed"),  # somebody else's doing is forgiven once
        (row(attempt=3, max_attempts=3, restarts=1), Exit(None, 9), JobStatus.FAILED, "jobs.killed"),
        (row(cancel_mode="stop_and_save"), Exit(1), JobStatus.FAILED, "jobs.crashed"),  # a person wanted it to end
        (row(), Exit(None, 15, was_terminated=True), None, "jobs.interrupted"),
        (row(restarts=5), Exit(None, 15, was_terminated=True), JobStatus.LOST, "jobs.lost"),
        (row(restarts=5), Exit(None, was_terminated=True, reason="lost"), JobStatus.LOST, "jobs.lost"),
    ]
    for job, ended, status, code in cases:
        ending = decide(job, ended, tmp_path, max_restarts=5)
        assert (ending.status, ending.error.get("code", "")) == (status, code), ended
        assert (ending.values.get("result") == {"n": 1}) == (status in (JobStatus.SUCCEEDED, JobStatus.CANCELLED)) or code
    assert decide(row(), Exit(1), tmp_path, max_restarts=5).error["params"]["last"] == "ValueError: odd"
    shutdown = decide(row(), Exit(None, 15, was_terminated=True), tmp_path, max_restarts=5)
    assert shutdown.values == {"max_attempts": 3, "restarts": 1}  # a shutdown costs no attempt


def test_known_causes_get_their_own_sentence(tmp_path: Path) -> None:
    for line, code in (
        ("torch.OutOfMemoryError: CUDA out of memory.", "jobs.out_of_memory"),
        ("OSError: [Errno 28] No space left on device", "jobs.no_space"),
        ("KeyError: 'x'", "jobs.crashed"),
    ):
        (tmp_path / "log.txt").write_text(line)
        assert decide(row(attempt=2), Exit(1), tmp_path, max_restarts=5).error["code"] == code
