"""On real tiny weights: an estimate's facts, a package written by its job, and a look of the watch."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from safetensors import safe_open

from core import release_files, watch
from core.estimate_facts import estimate_for, facts_for
from core.home import Home
from core.jobs.forms import validated
from core.models import get_version
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories

pytestmark = pytest.mark.training


def num_numbers(path: Path) -> int:
    with safe_open(path, framework="numpy") as file:
        return sum(int(file.get_tensor(name).size) for name in file.keys())  # noqa: SIM118 - not a dict


def test_facts_are_those_of_the_weights(trained: Home) -> None:
    facts = facts_for("ppo", validated("ppo", {"name": "x", "sft_model": "tiny-sft"}), trained)
    assert facts.model is not None
    assert facts.model.num_parameters == pytest.approx(num_numbers(trained.models / "base/tiny-base/model.safetensors"), rel=0.01)
    assert facts.model.num_lora(facts.lora_r) == num_numbers(trained.models / "sft/tiny-sft/adapter_model.safetensors")
    assert facts.num_prompts > 1000
    assert 5 < facts.prompt_tokens < 200


def test_earlier_runs_on_this_machine_correct_the_estimate(trained: Home) -> None:
    values = {"name": "x", "sft_model": "tiny-sft", "num_rollouts": 20}
    before = estimate_for("ppo", values, trained)
    assert before is not None
    with write_session() as session:
        took = timedelta(seconds=3 * before["seconds"])
        for status in ("succeeded", "failed"):
            job = t.Job(kind="ppo", config={**values, "name": f"y-{status}"}, queue="gpu", status=status, attempt=1)
            job.started_at, job.finished_at = utc_now() - took, utc_now()
            session.add(job)
    after = estimate_for("ppo", values, trained)
    longer = estimate_for("ppo", {**values, "num_rollouts": 40}, trained)
    assert after is not None
    assert longer is not None
    assert after["calibration"]["num_runs"] == 1, "a failed run says nothing about time"
    assert after["seconds"] == pytest.approx(3 * before["seconds"], rel=0.02)
    assert longer["calibration"]["factor"] == pytest.approx(after["calibration"]["factor"]), "a longer run is no slower machine"


def test_a_package_by_its_job(trained: Home, run_here: Callable[..., Path], tmp_path: Path) -> None:
    from training.package import package

    config = {"model": "tiny-sft", "name": "v0.1-sft", "out": str(tmp_path / "out")}
    run_dir = run_here(package, "package", "package", config)
    result = json.loads((run_dir / "result.json").read_text())
    manifest = release_files.verify(tmp_path / "out" / "v0.1-sft")
    assert result["num_files"] == len(manifest["files"])
    assert manifest["sft"] is None, "an SFT version has no SFT before it"
    pipeline = (tmp_path / "out" / "v0.1-sft" / "rl_pipeline.md").read_text()
    assert "tiny-base -> tiny-sft" in pipeline
    assert '"lora_r": 4' in pipeline
    assert str(trained.root) not in pipeline
    with read_session() as session:
        assert session.query(t.Release).one().path == str(tmp_path / "out" / "v0.1-sft")


def test_a_look_of_the_watch_with_real_answers(trained: Home, run_here: Callable[..., Path]) -> None:
    from training.watch import look

    nothing = run_here(look, "w0", "watch", {"through": "weights"})
    assert json.loads((nothing / "result.json").read_text()) == {"watched": None}
    with write_session() as session:
        base, sft = get_version(session, "tiny-base"), get_version(session, "tiny-sft")
        person = factories.user(session, "product")
        sft.status = "serving"
        session.add(t.ServingEvent(action="promote", to_version_id=sft.id, from_version_id=base.id, actor_id=person.id))
    config = {"through": "weights", "num_samples": 12, "max_new_tokens": 40}
    results = [json.loads((run_here(look, f"w{n}", "watch", config) / "result.json").read_text()) for n in (1, 2)]
    assert [r["look"] for r in results] == [1, 2]
    assert 0 < results[0]["num_pairs"] <= 12
    assert results[1]["num_pairs"] > results[0]["num_pairs"]
    with read_session() as session:
        looks = session.query(t.WatchLook).order_by(t.WatchLook.id).all()
        kept = [pair for one in looks for pair in one.evidence]
        assert len(kept) == looks[-1].num_worse
        assert session.query(t.Completion).filter_by(source="watch").count() <= 2 * len(kept)
        assert all(session.get(t.Completion, pair["serving"]) is not None for pair in kept)
    assert watch.looks()[0] is not None
