"""Estimates: formulas against numbers worked out by hand, unknown is None and never zero, more work never costs less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.estimates import DeviceFacts, Facts, ModelFacts, TeacherFacts, estimate, estimate_evaluate, estimate_ppo, estimate_sft
from core.jobs.forms import validated

#: Qwen2.5-7B by its config.json
SEVEN_B = ModelFacts(7_615_616_512, 28, 3584, 18944, 152_064, 28, 4, 128)
GPU = DeviceFacts("cuda", "24 GB card", 50e12, 0.5e12, 24e9)
CPU = DeviceFacts("cpu", "CPU, 2 cores", 24e9, 12e9, 16e9)
PAID = TeacherFacts("judge", False, 0.5, 2.0, prompt_overhead=900, verdict_tokens=100)
FACTS = Facts(SEVEN_B, GPU, PAID, num_prompts=2000, prompt_tokens=100, reference_tokens=300, response_tokens=None)
PPO = validated(
    "ppo",
    {
        "name": "x",
        "num_rollouts": 10,
        "rollout_batch_size": 64,
        "num_ppo_epochs": 2,
        "max_new_tokens": 500,
        "micro_batch_tokens": 4096,
        "gradient_checkpointing": "on",
    },
)


def test_tokens_and_dollars_of_ppo() -> None:
    found = estimate_ppo(PPO, replace(FACTS, response_tokens=200.0))
    assert found["num_samples"] == 640
    assert found["tokens"]["generated"] == 640 * 200
    assert found["tokens"]["trained"] == 640 * 300 * 2
    assert found["tokens"]["teacher_prompt"] == 640 * (900 + 100 + 200)
    assert found["tokens"]["teacher_completion"] == 640 * 100
    assert found["teacher"]["usd"] == pytest.approx((640 * 1200 * 0.5 + 640 * 100 * 2.0) / 1e6)
    cached = estimate_ppo(PPO, replace(FACTS, response_tokens=200.0, teacher=replace(PAID, cached_share=0.75)))
    assert cached["teacher"]["usd"] == pytest.approx(found["teacher"]["usd"] / 4)


def test_passes_over_the_prompts_give_the_number_of_samples() -> None:
    whole = PPO.model_copy(update={"num_prompt_epochs": 3})
    assert estimate_ppo(whole, FACTS)["num_samples"] == 94 * 64, "2000 prompts x 3 in full rollouts of 64"


def test_memory_of_seven_billion_on_a_card() -> None:
    memory = estimate_ppo(PPO, FACTS)["memory"]
    assert memory["weights"] == pytest.approx(15.2e9, rel=0.01)
    one_layer = (3584 + 3584) + 2 * (3584 + 512) + (3584 + 3584) + 3 * (3584 + 18944)
    assert memory["adapters"] == 4 * 2 * 28 * 16 * one_layer
    assert memory["optimizer"] == 12 * (28 * 16 * one_layer + 3585)
    assert memory["kv_cache"] == 2 * 28 * 4 * 128 * 2 * 64 * 600
    assert memory["peak"] > memory["weights"] + memory["adapters"] + memory["optimizer"]
    small = replace(FACTS, device=replace(GPU, memory=12e9))
    assert estimate_ppo(PPO, small)["fits"] is False
    kept = estimate_ppo(PPO.model_copy(update={"gradient_checkpointing": "off"}), FACTS)["memory"]
    assert kept["activations"] > 3 * memory["activations"]


def test_what_is_not_known_is_none_and_not_zero() -> None:
    unpriced = estimate_ppo(PPO, replace(FACTS, teacher=replace(PAID, usd_per_mtok_in=None)))
    assert unpriced["teacher"]["usd"] is None
    offline = estimate_ppo(PPO, replace(FACTS, teacher=TeacherFacts("offline", True, 0.0, 0.0)))
    assert offline["teacher"]["usd"] == 0
    hub = estimate_ppo(PPO, replace(FACTS, model=None))
    assert (hub["seconds"], hub["memory"], hub["fits"]) == (None, None, None)
    assert hub["tokens"]["generated"] > 0
    assert estimate("index", validated("index", {}), FACTS) is None


def test_more_work_takes_longer_and_earlier_runs_correct_the_time() -> None:
    first = estimate_ppo(PPO, FACTS)
    assert estimate_ppo(PPO.model_copy(update={"num_rollouts": 20}), FACTS)["seconds"] > 1.8 * first["seconds"]
    assert estimate_ppo(PPO, replace(FACTS, device=CPU))["seconds"] > 20 * first["seconds"]
    corrected = estimate_ppo(PPO, replace(FACTS, time_factor=2.0, num_earlier=3, earlier_jobs=(1, 2, 3)))
    assert corrected["seconds"] == pytest.approx(2 * first["seconds"])
    assert corrected["seconds_high"] / corrected["seconds_low"] < first["seconds_high"] / first["seconds_low"]
    assert corrected["calibration"] == {"factor": 2.0, "num_runs": 3, "jobs": [1, 2, 3]}


def test_sft_trains_and_evaluation_does_not() -> None:
    sft = estimate_sft(validated("sft", {"name": "x", "num_epochs": 2, "max_length": 512}), FACTS)
    assert sft["tokens"]["trained"] == 2000 * 400 * 2
    assert sft["teacher"] == {"name": "judge", "num_calls": 0, "usd": 0.0}
    full = estimate_sft(validated("sft", {"name": "x", "method": "full"}), FACTS)
    assert full["memory"]["optimizer"] == 16 * SEVEN_B.num_parameters
    measured = estimate_evaluate(validated("evaluate", {"models": ["a", "b"], "num_samples": 50}), FACTS)
    assert measured["num_samples"] == 100
    assert measured["memory"]["optimizer"] == 0
    assert measured["tokens"]["trained"] == 0
