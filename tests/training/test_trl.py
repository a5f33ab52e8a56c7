"""SFT, GRPO and preferences on trl: the right tokens carry the loss, nothing unscored teaches, a stopped run goes on exactly."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.home import Home
from core.jobs.launch.ranks import noted_code
from core.jobs.tasks import argv_of
from core.models import folder_hash, get_version
from core.policy import Policy, load_version, version_files
from core.records import Message
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.training.conftest import ROOT, TINY_SFT, result, write_config

pytestmark = pytest.mark.training
RunHere = Callable[..., Path]
TRL_SFT = {**TINY_SFT, "max_samples": 24, "batch_size": 8, "num_epochs": 2.0, "learning_rate": 3e-3, "save_steps": 2}
GRPO = {
    "sft_model": "tiny-sft",
    "num_rollouts": 3,
    "rollout_batch_size": 8,
    "num_generations": 4,
    "mini_batch_size": 4,
    "max_new_tokens": 48,
    "save_steps": 1,
}


def version_of(name: str) -> t.ModelVersion:
    with read_session() as session:
        return get_version(session, name)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    clock = {"at", "seconds"}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def tensors(home: Home, version: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(home.resolve(version_of(version).path) / "adapter_model.safetensors")
    return found


@pytest.fixture
def policy(trained: Home) -> Policy:
    return Policy.load(trained, str(trained.models / "base" / "tiny-base"), "cpu")


def test_a_template_that_strips_thinking_cannot_reach_the_labels(policy: Policy, trained: Home) -> None:
    """The template of Qwen3 renders an earlier assistant turn without its thinking and a last one re-formatted."""
    import trl

    from training.causal import IGNORED
    from training.run import Run
    from training.sft import to_example
    from training.trl_common import Plan, sft_trainer

    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    policy.tokenizer.chat_template = template.read_text()
    target = "<think>\n1. Red flag: none.\n</think>\nRest at home."
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": target}, {"role": "user", "content": "b"}]
    assert "Red flag" not in policy.tokenizer.apply_chat_template(chat, tokenize=False)

    messages = [Message("user", "Fever?"), Message("assistant", "<think>x</think>No."), Message("user", "Cough?")]
    examples = [to_example(policy, messages, target, 400), to_example(policy, messages[:1], target + " Drink.", 400)]
    run_dir = write_config(trained.root, "labels", "sft", {**TRL_SFT, "name": "x"})
    plan = Plan("sft", batch_size=2, learning_rate=1e-3, seed=0, save_steps=5)
    trainer, _ = sft_trainer(Run(run_dir, 0, trained), policy, [e for e in examples if e], plan, max_length=400, packing=False)
    batch = next(iter(trainer.get_train_dataloader()))
    seen = {policy.tokenizer.decode(row[row != IGNORED], clean_up_tokenization_spaces=False) for row in batch["labels"]}
    end = policy.tokenizer.eos_token
    assert seen == {target + end, target + " Drink." + end}
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        first = int((labels != IGNORED).nonzero()[0])
        assert policy.tokenizer.decode(ids[:first]).rstrip().endswith("assistant")  # the whole prompt, and no more of it, is free


def test_packed_samples_do_not_see_each_other(policy: Policy, trained: Home) -> None:
    import torch

    from training.causal import Example, completion_loss
    from training.run import Run
    from training.trl_common import Plan, sft_trainer

    torch.manual_seed(0)
    examples = [Example(torch.randint(5, 400, (n,)).tolist(), start) for n, start in ((30, 10), (21, 7), (40, 25), (9, 1))]
    run_dir = write_config(trained.root, "packed", "sft", {**TRL_SFT, "name": "x"})
    plan = Plan("sft", batch_size=1, learning_rate=1e-3, seed=0, save_steps=5)
    trainer, _ = sft_trainer(Run(run_dir, 0, trained), policy, examples, plan, max_length=128, packing=True)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape == (1, 100)
    with torch.no_grad():
        packed = trainer.compute_loss(policy.model.train(), dict(batch))
        alone = [
            (completion_loss(policy.model, torch.tensor([e.ids]), labels), labels.ne(-100).sum())
            for e in examples
            for labels in [torch.tensor([[-100] * (max(e.start, 1) - 1) + e.ids[max(e.start, 1) :] + [-100]])]
        ]
    wanted = sum(loss * n for loss, n in alone) / sum(n for _, n in alone)
    assert float(packed) == pytest.approx(float(wanted), abs=1e-5)


def test_both_engines_and_all_weights_make_versions_of_one_shape(trained: Home, run_here: RunHere) -> None:
    from training.sft import train

    found = {}
    for name, more in {
        "trl": {},
        "compact": {"engine": "compact"},
        "whole": {"method": "full", "learning_rate": 3e-3, "packing": True},
    }.items():
        run_dir = run_here(
            train, name, "sft", {**TRL_SFT, "num_epochs": 4.0, "name": name, "max_length": 128 if name == "whole" else 512, **more}
        )
        found[name] = result(run_dir)
        losses = [line["train/loss"] for line in metrics(run_dir)]
        assert name == "compact" or sum(losses[-3:]) < sum(losses[:3])
        version = version_of(name)
        assert version.kind == "sft"
        assert version.content_hash == folder_hash(trained.resolve(version.path)) == found[name]["content_hash"]
        assert version.parent_version_id == version_of("tiny-base").id
    assert len({frozenset(values) for values in found.values()}) == 1
    assert len({frozenset(version_of(name).manifest) for name in found}) == 1
    assert tensors(trained, "trl").keys() == tensors(trained, "compact").keys()
    assert found["trl"]["loss"] == pytest.approx(found["compact"]["loss"], rel=0.2)

    with read_session() as session:
        whole = get_version(session, "whole")
        assert whole.base_version_id is None
        assert version_files(session, trained, whole).base == str(trained.models / "sft" / "whole")
        answering, adapter = load_version(trained, session, whole, "cpu")
    answer = answering.generate([[Message("user", "Fever?")]], adapter=adapter, temperature=0, max_new_tokens=4, seed=0)
    assert answer[0].num_tokens > 0
    run_here(train, "on-top", "sft", {**TRL_SFT, "name": "on-top", "base_model": "whole", "engine": "compact"})
    assert version_of("on-top").base_version_id == version_of("whole").id


def test_sft_on_trl_resumes_exactly_and_past_a_torn_checkpoint(trained: Home, run_here: RunHere) -> None:
    from training.sft import train

    whole = run_here(train, "whole", "sft", {**TRL_SFT, "name": "whole"})
    run_here(train, "parts", "sft", {**TRL_SFT, "name": "parts"}, stop_after=3)
    checkpoints = trained.runs / "parts" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    torn = checkpoints / "checkpoint-5"  # killed in the middle of writing
    shutil.copytree(checkpoints / "checkpoint-4", torn)
    (torn / "complete").unlink()
    (torn / "optimizer.pt").write_bytes(b"half")
    parts = run_here(train, "parts", "sft", {**TRL_SFT, "name": "parts"})
    assert version_of("parts").content_hash == version_of("whole").content_hash
    assert metrics(parts) == metrics(whole)


def test_grpo_repeats_itself_after_a_stop_and_keeps_its_reference(trained: Home, run_here: RunHere) -> None:
    from training.grpo import train

    whole = run_here(train, "whole", "grpo", {**GRPO, "name": "whole"})
    run_here(train, "parts", "grpo", {**GRPO, "name": "parts"}, stop_after=2)
    assert [path.name for path in (trained.runs / "parts" / "checkpoints").iterdir()][-1].startswith("checkpoint-")
    parts = run_here(train, "parts", "grpo", {**GRPO, "name": "parts"})
    first, second, start = tensors(trained, "whole"), tensors(trained, "parts"), tensors(trained, "tiny-sft")
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != start[name]).any() for name in first)
    assert (whole / "rewards.csv").read_text() == (parts / "rewards.csv").read_text()
    assert metrics(whole) == metrics(parts)
    lines = metrics(whole)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert abs(lines[0]["objective/kl"]) < 1e-4 < abs(lines[2]["objective/kl"])
    with (whole / "rewards.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    rl, sft = version_of("whole"), version_of("tiny-sft")
    assert (rl.kind, rl.parent_version_id, rl.base_version_id) == ("rl", sft.id, sft.base_version_id)
    names = {path.name for path in trained.resolve(rl.path).iterdir()}
    assert {"adapter_model.safetensors", "config.json", "rewards.csv", "kl_metrics.json", "teacher_usage.csv", "estimate.json"} <= names
    assert json.loads((trained.resolve(rl.path) / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-base"


def test_what_was_not_scored_moves_no_weight(trained: Home, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of four: one whole, one with a hole, one with a single score, one without any."""
    import torch

    from training import trl_grpo
    from training.grpo import Progress, train

    nan = float("nan")
    scores = [0.1, 0.9, 0.3, 0.5, 0.2, nan, 0.8, 0.4, nan, nan, 0.7, nan, nan, nan, nan, nan]
    wanted = [True] * 4 + [True, False, True, True] + [False] * 8
    assert trl_grpo.usable(torch.tensor(scores), 4).tolist() == wanted

    kept: dict[str, Any] = {}
    real = trl_grpo.GRPOTrainer._generate_and_score_completions

    def spy(self: Any, inputs: Any) -> dict[str, Any]:
        kept.update(real(self, inputs))
        return {name: value.clone() if hasattr(value, "clone") else value for name, value in kept.items()}

    monkeypatch.setattr(trl_grpo.GRPOTrainer, "_generate_and_score_completions", spy)
    monkeypatch.setattr(Progress, "scores", lambda self: (setattr(self, "_found", self.scoring.finish()), scores)[1])
    config = {**GRPO, "name": "holes", "rollout_batch_size": 16, "mini_batch_size": 16, "num_rollouts": 1, "num_iterations": 1}
    run_dir = run_here(train, "holes", "grpo", config)
    rows = kept["completion_mask"].sum(1) > 0
    assert rows.tolist() == wanted
    assert kept["num_items_in_batch"] == kept["completion_mask"].sum()
    part = torch.tensor([0.2, 0.8, 0.4])
    assert torch.allclose(kept["advantages"][[4, 6, 7]], (part - part.mean()) / (part.std() + 1e-4), atol=1e-4)
    assert metrics(run_dir)[0]["val/num_masked"] == 9


def test_a_rollout_without_any_score_stops_with_a_sentence(trained: Home, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.grpo import Progress, train

    monkeypatch.setattr(Progress, "scores", lambda self: [float("nan")] * 8)
    with pytest.raises(UserError) as caught:
        run_here(train, "silent", "grpo", {**GRPO, "name": "silent"})
    assert caught.value.code == "training.nothing_scored"


def make_pairs(split: str, count: int) -> None:
    with write_session() as session:
        owner = factories.dataset(session)
        for n in range(count):
            sample = factories.sample(session, f"Question {split} {n}?", dataset=owner, split=split, content_hash=f"{split}{n}")
            text = "<think>\n1. Think.\n</think>\nTake a pill."
            completion = factories.completion(session, text, sample=sample)
            meta = {"completion_id": completion.id, "part": "answer"}
            sides = {"chosen": "See a doctor today.", "rejected": "Take a pill."}
            session.add(t.PreferencePair(sample_id=sample.id, **sides, source="imported", meta=meta))


def test_pairs_of_held_out_prompts_are_refused(trained: Home, run_here: RunHere) -> None:
    from training.preferences import train

    config = {"name": "dpo", "sft_model": "tiny-sft", "min_pairs": 4}
    with pytest.raises(UserError) as caught:
        run_here(train, "none", "preferences", config)
    assert (caught.value.code, caught.value.params["n"]) == ("training.too_few_pairs", 0)
    make_pairs("test", 5)
    with pytest.raises(UserError) as caught:
        run_here(train, "held", "preferences", config)
    assert (caught.value.code, caught.value.params["splits"]) == ("training.pairs_held_out", "test: 5")
    make_pairs("train", 3)
    with write_session() as session:  # the same question, held out under another dataset
        factories.sample(session, "Question train 0?", split="gold", content_hash="train0")
    with pytest.raises(UserError) as caught:
        run_here(train, "few", "preferences", config)
    assert (caught.value.code, caught.value.params["n"], caught.value.params["refused"]) == ("training.too_few_pairs", 2, 6)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_choices_of_clinicians_move_the_model_towards_them(method: str, trained: Home, run_here: RunHere) -> None:
    from training.preferences import Pair, to_row, train

    make_pairs("train", 8)
    make_pairs("dev", 2)
    config = {
        "name": method,
        "sft_model": "tiny-sft",
        "method": method,
        "min_pairs": 4,
        "batch_size": 4,
        "num_epochs": 3,
        "learning_rate": 5e-3,
    }
    run_dir = run_here(train, method, "preferences", config)
    version, sft = version_of(method), version_of("tiny-sft")
    assert (version.kind, version.parent_version_id, version.base_version_id) == ("rl", sft.id, sft.base_version_id)
    assert version.manifest["data"]["refused"] == {"dev": 2}
    found = result(run_dir)
    assert found["num_rows"] == (8 if method == "dpo" else 16)
    with read_session() as session:
        policy, adapter = load_version(trained, session, version, "cpu")
        policy.add_adapter("sft", trained.resolve(sft.path))
    pair = Pair((Message("user", "Question train 1?"),), "<think>\n1. Think.\n</think>\n", "See a doctor today.", "Take a pill.")
    row = to_row(policy, pair, 400)
    assert row is not None
    assert "Think" in policy.decode(row["prompt_ids"])
    margin = {
        name: logprob(policy, name, row["prompt_ids"], row["chosen_ids"]) - logprob(policy, name, row["prompt_ids"], row["rejected_ids"])
        for name in (adapter, "sft")
    }
    assert margin[adapter] > margin["sft"]


def logprob(policy: Policy, adapter: str | None, prompt: list[int], answer: list[int]) -> float:
    import torch

    with torch.no_grad(), policy.using(adapter) as model:
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_stop_together(trained: Home) -> None:
    """`accelerate launch` as the queue runs it, on gloo: asked to stop, both leave with one checkpoint and the code 3."""
    values = {**TRL_SFT, "name": "both", "num_processes": 2}
    run_dir = write_config(trained.root, "both", "sft", values)
    environment = {**os.environ, "CONSILIUM_HOME": str(trained.root), "CONSILIUM_NUM_THREADS": "1"}
    (run_dir / "STOP").touch()
    done = subprocess.run(
        argv_of("sft", values, run_dir), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=560, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert noted_code(run_dir, 1) == 3
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert not (run_dir / "result.json").exists()
