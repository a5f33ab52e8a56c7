"""What the forms of the trainings on trl refuse, and the command that a job with several processes gets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from core.jobs.configs_training import SFTConfig
from core.jobs.forms import problems, validated
from core.jobs.launch.ranks import accelerate_argv, noted_code
from core.jobs.tasks import argv_of


@pytest.mark.parametrize(
    ("kind", "values", "field", "code"),
    [
        ("sft", {"packing": True, "engine": "compact"}, "packing", "jobs.bad_needs_engine"),
        ("sft", {"num_processes": 2, "engine": "compact"}, "num_processes", "jobs.bad_needs_engine"),
        ("sft", {"num_processes": 3}, "num_processes", "jobs.bad_not_a_divisor"),
        ("sft", {"micro_batch_size": 5}, "micro_batch_size", "jobs.bad_not_a_divisor"),
        ("sft", {"method": "qlora"}, "method", "jobs.bad_choice"),
        ("grpo", {"num_generations": 7}, "num_generations", "jobs.bad_not_a_divisor"),
        ("grpo", {"mini_batch_size": 48}, "mini_batch_size", "jobs.bad_not_a_divisor"),
        ("grpo", {"beta": 0}, "beta", "jobs.bad_too_small"),
        ("preferences", {"method": "kto", "micro_batch_size": 1}, "micro_batch_size", "jobs.bad_below_minimum"),
        ("preferences", {"batch_size": 8, "micro_batch_size": 2, "num_processes": 8}, "num_processes", "jobs.bad_not_a_divisor"),
    ],
)
def test_what_cannot_work_is_said_in_the_form(kind: str, values: dict[str, Any], field: str, code: str) -> None:
    found = problems(kind, {"name": "x", **values})
    assert {name: error.code for name, error in found.items()} == {field: code}


def test_the_demo_uses_the_compact_engine_and_people_get_trl() -> None:
    from core.demo import CHAIN

    demo = validated("sft", dict(CHAIN)["sft"])
    assert isinstance(demo, SFTConfig)
    assert (demo.engine, SFTConfig(name="x").engine) == ("compact", "trl")


def test_several_processes_go_through_accelerate(tmp_path: Path) -> None:
    assert argv_of("sft", {}, tmp_path) == (sys.executable, "-m", "training.sft", "--run-dir", str(tmp_path))
    argv = argv_of("grpo", {"num_processes": 4}, tmp_path)
    assert argv[2:] == ("core.jobs.launch.ranks", "--num-processes", "4", "training.grpo", "--run-dir", str(tmp_path))
    launched = accelerate_argv(4, "training.grpo", tmp_path)
    assert launched[1:6] == ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "4"]
    assert launched[-4:] == ["-m", "training.grpo", "--run-dir", str(tmp_path)]


def test_a_note_of_an_earlier_attempt_says_nothing(tmp_path: Path) -> None:
    assert noted_code(tmp_path, 1) is None
    (tmp_path / "ranks.json").write_text('{"attempt": 1, "code": 3}')
    assert (noted_code(tmp_path, 1), noted_code(tmp_path, 2)) == (3, None)
