"""The scripts end to end, tiny: as subprocesses where the entry point is the point, in this process where the maths is."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from core.errors import UserError
from core.evaluation import report_of
from core.home import Home
from core.models import folder_hash, get_version
from core.rewards import EMPTY_ANSWER, FAILURE_SCORE
from db import tables as t
from db.engine import read_session
from tests.training.conftest import TINY_BASE, TINY_PPO, TINY_SFT, result, start

pytestmark = pytest.mark.training
RunHere = Callable[..., Path]


def version_of(name: str) -> t.ModelVersion:
    with read_session() as session:
        return get_version(session, name)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def tensors(home: Home, version: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(home.resolve(version_of(version).path) / "adapter_model.safetensors")
    return found


def test_base_and_sft_are_registered_with_their_origin(trained: Home) -> None:
    base, sft = version_of("tiny-base"), version_of("tiny-sft")
    assert (base.kind, base.is_toy, sft.kind, sft.is_toy) == ("base", True, "sft", True)
    assert sft.base_version_id == sft.parent_version_id == base.id
    for version in (base, sft):
        assert version.content_hash == folder_hash(trained.resolve(version.path))
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors(trained, "tiny-sft").items() if "lora_B" in name)
    with read_session() as session:
        dataset = session.scalar(select(t.Dataset).where(t.Dataset.name == "demo"))
        assert dataset is not None
        assert sft.manifest["dataset"]["content_hash"] == dataset.content_hash


def test_sampling_stores_completions_once(trained: Home, run_here: RunHere) -> None:
    from training.sample import sample

    config = {"model": "tiny-sft", "num_samples": 6, "max_new_tokens": 16, "batch_size": 4}
    code, run_dir = start(trained.root, "sample", "sample", config)
    assert code == 0, (run_dir / "log.txt").read_text()
    run_dir = run_here(sample, "sample-again", "sample", config)  # by seed and sample id the same answers: nothing new
    with read_session() as session:
        rows = list(session.scalars(select(t.Completion)))
    assert len(rows) == len({row.sample_id for row in rows}) == 6
    assert rows[0].decoding == {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 16, "seed": 0}
    assert result(run_dir)["num_completions"] == 6


def test_ppo_then_evaluation(trained: Home) -> None:
    code, run_dir = start(trained.root, "ppo", "ppo", TINY_PPO)
    assert code == 0, (run_dir / "log.txt").read_text()
    rl, sft = version_of("tiny-rl"), version_of("tiny-sft")
    assert (rl.kind, rl.parent_version_id, rl.base_version_id) == ("rl", sft.id, sft.base_version_id)
    folder = trained.resolve(rl.path)
    assert folder == trained.models / "rl" / "tiny-rl"
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "value_head.safetensors",
        "config.json",
        "rewards.csv",
        "kl_metrics.json",
    } <= {path.name for path in folder.iterdir()}
    before, after = tensors(trained, "tiny-sft"), tensors(trained, "tiny-rl")
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)
    for version in (sft, rl):  # no path of this machine goes into what is hashed and shipped
        assert json.loads((trained.resolve(version.path) / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-base"

    logged = metrics(run_dir)
    assert [line["step"] for line in logged] == [1, 2]
    assert abs(logged[0]["objective/kl"]) < 1e-4  # the reference is where the policy starts
    assert abs(logged[1]["objective/kl"]) > 1e-4  # and does not follow it
    wanted = {"objective/scores", "objective/rlhf_reward", "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg"}
    assert wanted | {"loss/value_avg", "val/ratio", "objective/kl_coef"} <= logged[0].keys()
    assert logged[0]["val/high_risk_share"] >= 0.4
    with (run_dir / "rewards.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert all(row["score"] == "-0.5" for row in rows if row["finish_reason"] == "length")
    assert len({row["score"] for row in rows}) > 2  # something to learn from

    config = {"name": "tiny", "models": ["tiny-sft", "tiny-rl", "tiny-base"], "num_samples": 6, "max_new_tokens": 24}
    code, run_dir = start(trained.root, "evaluate", "evaluate", config)
    assert code == 0, (run_dir / "log.txt").read_text()
    with read_session() as session:
        evaluation = session.scalar(select(t.Evaluation))
        assert evaluation is not None
        report = report_of(evaluation)
        completions = session.scalar(select(func.count()).select_from(t.Completion))
        rows = session.scalars(select(t.Reward)).all()
    # an answer that says nothing counts as in PPO
    rewards = {row.completion_id: FAILURE_SCORE if row.unscored_reason == EMPTY_ANSWER else row.value for row in rows}
    assert completions == 18
    assert report["baseline"] == "tiny-sft"
    assert [c["candidate"] for c in report["comparisons"]] == ["tiny-rl", "tiny-base"]
    for found in report["versions"].values():
        values = [v for i in found["completions"].values() if (v := rewards[i]) is not None]
        assert found["n"] == len(values)
        assert found["n"] + found["num_unscored"] == 6
        if values:
            assert found["mean"] == pytest.approx(sum(values) / len(values))
        assert all(piece["mean"] is None for piece in found["slices"])  # six prompts are too few to say
    stored = json.loads((run_dir / "report.json").read_text())
    texts = stored.pop("texts")
    assert stored == json.loads(json.dumps(report))
    for comparison in report["comparisons"]:
        changed = {str(c["sample_id"]) for c in [*comparison["regressions"], *comparison["wins"]]}
        assert set(texts[comparison["candidate"]]) == changed
    place = trained.root / "reports" / "rl_stage"
    assert (place / "eval_report_round1.md").read_text() == (run_dir / "report.md").read_text()
    assert (place / "eval_report_round1_reward.svg").read_text().startswith("<svg")
    assert report["curves"]["tiny-rl"]["rollout"] == [1, 2]
    assert evaluation.report_path == "reports/rl_stage/eval_report_round1.md"
    assert "tiny-rl against tiny-sft" in (run_dir / "report.md").read_text()


def test_sft_resumes_exactly_and_depends_on_its_seed(trained: Home, run_here: RunHere) -> None:
    from training.sft import train

    config = {**TINY_SFT, "save_steps": 1, "num_epochs": 2.0}
    run_here(train, "whole", "sft", {**config, "name": "whole"})
    run_here(train, "parts", "sft", {**config, "name": "parts"}, stop_after=3)
    run_here(train, "parts", "sft", {**config, "name": "parts"})
    run_here(train, "again", "sft", {**config, "name": "again"})
    run_here(train, "other", "sft", {**config, "name": "other", "seed": 1})
    hashes = {name: version_of(name).content_hash for name in ("whole", "parts", "again", "other")}
    assert hashes["whole"] == hashes["parts"] == hashes["again"] != hashes["other"]


def test_config_faults_are_sentences_before_anything_is_loaded(trained: Home, run_here: RunHere) -> None:
    from training import evaluate, ppo, sft

    faults: list[tuple[Any, str, dict[str, Any], str]] = [
        (sft.train, "sft", {**TINY_SFT, "name": "tiny-base"}, "models.name_taken"),
        (sft.train, "sft", {**TINY_SFT, "name": "x", "base_model": "tiny-sft"}, "training.needs_base"),
        (sft.train, "sft", {**TINY_SFT, "name": "x", "dataset": "nothing"}, "data.no_such_dataset"),
        (ppo.train, "ppo", {**TINY_PPO, "sft_model": "tiny-base"}, "training.needs_adapter"),
        (ppo.train, "ppo", {**TINY_PPO, "sft_model": "nobody"}, "models.no_such_version"),
        (evaluate.evaluate, "evaluate", {"models": ["tiny-sft", "tiny-sft"]}, "training.doubled_version"),
    ]
    for number, (body, kind, config, code) in enumerate(faults):
        with pytest.raises(UserError) as caught:
            run_here(body, f"fault{number}", kind, config)
        assert caught.value.code == code
    shutil.rmtree(trained.models / "sft" / "tiny-sft")
    with pytest.raises(UserError) as caught:
        run_here(ppo.train, "gone", "ppo", TINY_PPO)
    assert caught.value.code == "training.weights_missing"


def test_sft_takes_a_base_by_its_folder_and_registers_it(trained: Home, run_here: RunHere, tmp_path: Path) -> None:
    from training.sft import train

    folder = tmp_path / "my-own-base"
    shutil.copytree(trained.models / "base" / "tiny-base", folder)
    run_here(train, "folder", "sft", {**TINY_SFT, "name": "from-folder", "base_model": str(folder)})
    with read_session() as session:
        version = get_version(session, "from-folder")
        base = session.get(t.ModelVersion, version.base_version_id)
    assert base is not None
    assert (base.name, base.path, base.is_toy) == ("my-own-base", str(folder), False)


def test_demo_base_resumes_exactly(trained: Home, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.demo_base as demo_base

    config = {**TINY_BASE, "num_documents": 40, "num_chats": 60}
    run_here(demo_base.build, "whole", "demo_base", {**config, "name": "whole"})
    run_here(demo_base.build, "parts", "demo_base", {**config, "name": "parts"}, stop_after=2)
    run_here(demo_base.build, "parts", "demo_base", {**config, "name": "parts"})
    assert version_of("whole").content_hash == version_of("parts").content_hash
