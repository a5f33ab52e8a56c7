"""The learner on a tiny random model against loops written another way, and what it promises about splitting and resuming."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.errors import Unavailable, UserError
from core.jobs.configs import PPOConfig
from core.policy import Policy, row_seed

VOCAB, EOS = 48, 2
QUERIES = [[5, 9, 11], [7] * 9, [4, 30, 31, 8, 6], [12], [20, 21, 22, 23, 24, 25, 26], [40, 3], [15, 15, 16, 17], [33, 34, 35]]
SEEDS = [row_seed(3, i) for i in range(len(QUERIES))]
SCORES = torch.tensor([0.9, -0.2, 0.4, 0.1, 0.75, -0.5, 0.3, 0.6])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A second thread only waits for the first at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def base() -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model("qwen3", vocab_size=VOCAB, head_dim=8, initializer_range=0.3, tie_word_embeddings=True, **shape)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that is not nothing: B is random too."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(base(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.1, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(str(folder))
    return folder


Make = Callable[..., Any]


@pytest.fixture
def make(sft: Path) -> Make:
    def learner(accelerator: Any = None, **options: Any) -> Any:
        from training.ppo_learner import Learner

        config = PPOConfig(**{**DEFAULTS, **options})
        policy = Policy(base(), SimpleNamespace(eos_token_id=EOS, pad_token_id=0), "cpu")
        return Learner(policy, sft, config, accelerator)

    return learner


DEFAULTS: dict[str, Any] = {
    "name": "x",
    "num_rollouts": 4,
    "rollout_batch_size": 8,
    "num_ppo_epochs": 2,
    "mini_batch_size": 4,
    "learning_rate": 5e-3,
    "kl_coef": 0.05,
    "max_new_tokens": 12,
    "max_step_kl": 1.0,
    "decay": False,
}


def weights(learner: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.trained.items()}


def run(learner: Any, start: int, stop: int, scores: torch.Tensor = SCORES) -> list[dict[str, float]]:
    metrics = []
    for number in range(start, stop):
        rollout = learner.rollout(QUERIES, [row_seed(number, i) for i in range(8)])
        learner.measure(rollout)
        metrics.append(learner.learn(rollout, scores.roll(number), number))
    return metrics


def gradients(learner: Any, rollout: Any, *, learns: bool = True) -> torch.Tensor:
    """The gradient of one minibatch of all rows with given advantages."""
    numbers = torch.linspace(-1, 1, rollout.mask.numel()).view_as(rollout.mask)
    with learner.policy.using("policy") as model, learner.forward.session(model, learns=learns), learner.merged["policy"]:
        for parameter in learner.trained.values():
            parameter.requires_grad_(True)
        learner._gradients(model, rollout, numbers, numbers, rollout.mask, list(range(8)))
    found = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in learner.trained.values()])
    learner.optimizer.zero_grad()
    return found


# ------------------------------------------------------------------ splitting, packing, merging, checkpointing


@pytest.mark.parametrize("critic", ["ridge", "gradient"])
def test_no_micro_batch_size_changes_the_gradients(make: Make, critic: str) -> None:
    learner = make(critic=critic)
    rollout = learner.rollout(QUERIES, SEEDS)
    learner.measure(rollout)
    rollout.logprobs += 0.05  # so that the ratio is not 1 everywhere
    assert learner.forward.is_packed
    whole = gradients(learner, rollout)
    assert float(whole.abs().max()) > 1e-3
    for packed in (True, False):
        learner.forward.is_packed = packed
        for tokens in (1, 30, 64, 10_000):
            learner.forward.max_tokens = tokens
            assert torch.allclose(gradients(learner, rollout), whole, atol=1e-5)


def test_merged_layers_have_the_gradients_of_peft(make: Make) -> None:
    learner = make()
    rollout = learner.rollout(QUERIES, SEEDS)
    learner.measure(rollout)
    assert len(learner.merged["policy"].modules) == 14
    merged = gradients(learner, rollout)
    learner.merged["policy"].modules = []
    assert torch.allclose(gradients(learner, rollout), merged, atol=1e-5)


def test_checkpointing_changes_no_gradient_and_turns_no_dropout_on(make: Make) -> None:
    plain, saving = make(), make(gradient_checkpointing="on")
    rollout = plain.rollout(QUERIES, SEEDS)
    plain.measure(rollout)
    assert torch.allclose(gradients(saving, rollout), gradients(plain, rollout), atol=1e-5)
    assert not any(module.training for module in saving.policy.model.modules())


def test_chunked_logits_change_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.ppo_forward as module

    learner = make()
    rollout = learner.rollout(QUERIES, SEEDS)
    learner.measure(rollout)
    whole = gradients(learner, rollout)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 5 * VOCAB)
    assert torch.allclose(gradients(learner, rollout), whole, atol=1e-5)


# ------------------------------------------------------------------ sampling


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_samplers_numbers_are_the_training_forwards(make: Make, temperature: float) -> None:
    ended: dict[int, list[int]] = {}
    sampler, forward = make(temperature=temperature), make(temperature=temperature, old_logprobs="forward")
    run(sampler, 0, 1)  # the critic has to say something
    forward.load_state_dict(sampler.state_dict())
    rollout = sampler.rollout(QUERIES, SEEDS, ended.__setitem__)
    other = forward.rollout(QUERIES, SEEDS)
    assert rollout.responses == other.responses == [ended[i] for i in range(8)]
    assert rollout.is_finished == [r[-1] == EOS for r in rollout.responses]
    assert len(set(map(len, rollout.responses))) > 2
    assert not other.logprobs.any()
    sampler.measure(rollout)
    forward.measure(other)
    assert torch.allclose(rollout.logprobs, other.logprobs, atol=1e-5)
    assert torch.allclose(rollout.values, other.values, atol=1e-5)
    assert rollout.values.any()
    assert torch.equal(rollout.ref_logprobs, other.ref_logprobs)


def test_a_sampler_that_disagrees_is_found_out(make: Make) -> None:
    learner = make()
    rollout = learner.rollout(QUERIES, SEEDS)
    rollout.logprobs[2, 0] += 0.01
    with pytest.raises(AssertionError, match="sampler"):
        learner.measure(rollout)


# ------------------------------------------------------------------ the whole update, written another way


def naive_step(learner: Any, rollout: Any, scores: torch.Tensor, kl_coef: float, lam: float, lam_critic: float) -> tuple[float, float]:
    """One epoch over one minibatch of all rows by loops: returns the losses; the learner's own step must do the same to the weights."""
    lengths = [len(r) for r in rollout.responses]
    advantages: list[list[float]] = []
    returns: list[list[float]] = []
    for i, n in enumerate(lengths):
        reward = [-kl_coef * float(rollout.logprobs[i, t] - rollout.ref_logprobs[i, t]) for t in range(n)]
        reward[-1] += float(scores[i])
        value = [float(rollout.values[i, t]) for t in range(n)] + [0.0]
        delta = [reward[t] + value[t + 1] - value[t] for t in range(n)]
        advantages.append([sum(lam ** (u - t) * delta[u] for u in range(t, n)) for t in range(n)])
        returns.append([sum(lam_critic ** (u - t) * delta[u] for u in range(t, n)) + value[t] for t in range(n)])
    every = [a for row in advantages for a in row]
    mean = sum(every) / len(every)
    deviation = math.sqrt(sum((a - mean) ** 2 for a in every) / len(every) + 1e-8)
    surrogate: Any = 0.0
    squares: Any = 0.0
    with learner.policy.using("policy") as model:
        for parameter in learner.trained.values():
            parameter.requires_grad_(True)
        for i, n in enumerate(lengths):
            ids = torch.tensor([rollout.queries[i] + rollout.responses[i]])
            output = model(input_ids=ids, output_hidden_states=True)
            start = len(rollout.queries[i]) - 1
            for t in range(n):
                logprob = torch.log_softmax(output.logits[0, start + t], -1)[rollout.responses[i][t]]
                ratio = (logprob - float(rollout.logprobs[i, t])).exp()
                a = (advantages[i][t] - mean) / deviation
                surrogate = surrogate - torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
                value = learner.value_head(output.hidden_states[-1][0, start + t][None])[0]
                old, target = float(rollout.values[i, t]), returns[i][t]
                clipped = value.clamp(old - 0.2, old + 0.2)
                squares = squares + 0.5 * torch.maximum((value - target) ** 2, (clipped - target) ** 2)
    policy, critic = surrogate / sum(lengths), squares / sum(lengths)
    (policy + learner.config.vf_coef * critic).backward()
    torch.nn.utils.clip_grad_norm_(list(learner.trained.values()), learner.config.max_grad_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    return float(policy.detach()), float(critic.detach())


def test_one_update_equals_the_loops(make: Make) -> None:
    options = {"critic": "gradient", "num_ppo_epochs": 1, "mini_batch_size": 8, "lam": 0.9, "lam_critic": 0.97}
    ours, loops = make(**options), make(**options)
    run(ours, 0, 1)
    loops.load_state_dict(ours.state_dict())
    rollout = ours.rollout(QUERIES, SEEDS)
    ours.measure(rollout)
    assert float(rollout.kl.abs().min()) > 1e-4
    policy, critic = naive_step(loops, rollout, SCORES, ours.controller.kl_coef, 0.9, 0.97)
    metrics = ours.learn(rollout, SCORES, 1)
    assert metrics["loss/policy_avg"] == pytest.approx(policy, abs=1e-5)
    assert metrics["loss/value_avg"] == pytest.approx(critic, abs=1e-5)
    assert metrics["val/ratio"] == pytest.approx(1, abs=1e-4)
    kl = [sum(float(rollout.logprobs[i, t] - rollout.ref_logprobs[i, t]) for t in range(len(r))) for i, r in enumerate(rollout.responses)]
    assert metrics["objective/kl"] == pytest.approx(sum(kl) / 8, abs=1e-4)
    for name, tensor in weights(ours).items():
        assert torch.allclose(tensor, loops.trained[name], atol=1e-5), name


def test_rows_without_a_score_change_nothing(make: Make) -> None:
    """An update with two rows left out is the update of a rollout in which they never were."""
    from training.ppo_learner import Rollout

    options = {"num_ppo_epochs": 1, "mini_batch_size": 8}
    left_out, never_there, everyone = make(**options), make(**options), make(**options)
    rollout = left_out.rollout(QUERIES, SEEDS)
    left_out.measure(rollout)
    kept = [0, 2, 3, 4, 5, 7]
    small = Rollout(
        [rollout.queries[i] for i in kept], [rollout.responses[i] for i in kept], [rollout.is_finished[i] for i in kept], list(range(6)),
        *(tensor[kept].clone() for tensor in (rollout.mask, rollout.logprobs, rollout.ref_logprobs, rollout.values, rollout.features)),
    )  # fmt: skip
    with_gaps = SCORES.clone()
    with_gaps[[1, 6]] = math.nan
    metrics = left_out.learn(rollout, with_gaps, 0)
    assert metrics["val/num_unscored"] == 2
    assert metrics["objective/scores"] == pytest.approx(float(SCORES[kept].mean()))
    never_there.learn(small, SCORES[kept], 0)
    everyone.learn(rollout, SCORES, 0)
    one, two, three = weights(left_out), weights(never_there), weights(everyone)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert any(not torch.allclose(one[name], three[name], atol=1e-5) for name in one)
    assert torch.allclose(left_out.value_head.weight, never_there.value_head.weight, atol=1e-6)
    with pytest.raises(Unavailable):
        left_out.learn(rollout, torch.full((8,), math.nan), 1)


def test_a_share_of_the_rows_is_the_loudest(make: Make) -> None:
    learner = make(update_share=0.5)
    advantages = torch.tensor([[0.1, 0.1], [-3.0, 9.0], [1.0, 1.0], [-2.0, -2.0], [0.5, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert learner._rows_worth_learning(advantages, mask) == [1, 3]  # 2.5 rounds to 2; the last has no score
    metrics = run(learner, 0, 1)
    assert metrics[0]["policy/num_updates"] == 2


# ------------------------------------------------------------------ early stop, penalties, scaling


def test_the_step_that_would_go_too_far_is_not_taken(make: Make) -> None:
    free, held = make(num_ppo_epochs=3), make(num_ppo_epochs=3, max_step_kl=1e-9)
    assert run(free, 0, 1)[0]["policy/num_updates"] == 6
    metrics = run(held, 0, 1)[0]
    assert (metrics["policy/num_updates"], metrics["policy/stopped_early"]) == (1, 1)  # the first is at distance zero
    once = make(num_ppo_epochs=1, mini_batch_size=4)
    rollout = once.rollout(QUERIES, [row_seed(0, i) for i in range(8)])
    once.measure(rollout)
    once.config.max_step_kl = 1e-9
    once.learn(rollout, SCORES, 0)
    assert all(torch.equal(tensor, held.trained[name]) for name, tensor in weights(once).items())


def test_penalties_and_scaling_leave_the_logged_score_alone(make: Make) -> None:
    learner = make(eos_penalty=1.5, overlong_buffer=4, overlong_penalty=0.8, scale_scores=True)
    rollout = learner.rollout(QUERIES, SEEDS)
    shaped = learner._shape(rollout, SCORES, torch.ones(8, dtype=torch.bool))
    deviation = math.sqrt(sum((float(s) - float(SCORES.mean())) ** 2 for s in SCORES) / 8)
    assert {True, False} == set(rollout.is_finished)
    for i, response in enumerate(rollout.responses):
        expected = float(SCORES[i])
        expected -= 1.5 if response[-1] != EOS else 0.0
        expected -= 0.8 * min(1.0, max(0.0, (len(response) - 8) / 4))
        assert float(shaped[i]) == pytest.approx(expected / deviation, abs=1e-5)
    learner.measure(rollout)
    metrics = learner.learn(rollout, SCORES, 0)
    assert metrics["objective/scores"] == pytest.approx(float(SCORES.mean()))
    assert metrics["val/score_running_std"] == pytest.approx(deviation, abs=1e-6)


# ------------------------------------------------------------------ the silent failures


def test_a_run_starts_at_the_reference_and_leaves_it(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    learner = make()
    assert "parameters are trained" in capsys.readouterr().out
    before = {name: tensor.clone() for name, tensor in learner.policy.model.named_parameters()}
    metrics = run(learner, 0, 2)
    assert abs(metrics[0]["objective/kl"]) < 1e-4
    assert abs(metrics[1]["objective/kl"]) > 1e-4
    moved = {name for name, tensor in learner.policy.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in learner.trained if name.startswith("base_model")}
    learner.check_reference()


def test_a_drifted_reference_is_refused(make: Make) -> None:
    learner = make()
    key = learner.policy.key_of("reference")
    next(p for name, p in learner.policy.model.named_parameters() if f".{key}." in name).data += 0.01
    with pytest.raises(AssertionError, match="not the SFT adapter"):
        learner.check_reference()
    rollout = learner.rollout(QUERIES, SEEDS)
    learner.measure(rollout)
    with pytest.raises(AssertionError, match="before the first update"):
        learner.learn(rollout, SCORES, 0)


def test_an_adapter_that_does_not_move_is_refused(make: Make) -> None:
    learner = make()
    rollout = learner.rollout(QUERIES, SEEDS)
    learner.measure(rollout)
    learner.optimizer = torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)], "peak": 1.0}])
    with pytest.raises(AssertionError, match="no weight"):
        learner.learn(rollout, SCORES, 0)


def test_a_real_model_with_too_much_to_train_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.ppo_learner as module

    monkeypatch.setattr(module, "SMALL_MODEL", 1000)
    with pytest.raises(UserError) as caught:
        make()
    assert caught.value.code == "training.too_many_trained"
    make(max_trained_share=0.9)


# ------------------------------------------------------------------ keeping


@pytest.mark.parametrize("critic", ["ridge", "gradient"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(make: Make, critic: str) -> None:
    options = {"critic": critic, "scale_scores": True, "decay": True}
    whole, first, second = make(**options), make(**options), make(**options)
    metrics = run(whole, 0, 4)
    run(first, 0, 2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert run(second, 2, 4) == metrics[2:]
    assert all(torch.equal(tensor, second.trained[name]) for name, tensor in weights(whole).items())
    assert torch.equal(whole.value_head.weight, second.value_head.weight)


def test_what_is_saved_loads_as_a_plain_adapter(make: Make, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    learner = make()
    run(learner, 0, 2)
    learner.save(tmp_path)
    loaded = PeftModel.from_pretrained(base(), str(tmp_path)).eval()
    ids = torch.tensor([QUERIES[1]])
    with learner.policy.using("policy") as model, torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-5)
    assert torch.equal(load_file(tmp_path / "value_head.safetensors")["weight"], learner.value_head.weight)


# ------------------------------------------------------------------ several processes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, torch
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {root!r})
import training
torch.set_num_threads(1)
from accelerate import Accelerator
from core.jobs.configs import PPOConfig
from core.policy import Policy
from tests.training import test_ppo_learner as common
from training.ppo_learner import Learner

accelerator = Accelerator(cpu=True)
found = {{}}
for critic in ("ridge", "gradient"):
    config = PPOConfig(**{{**common.DEFAULTS, "critic": critic, "num_rollouts": 2}})
    policy = Policy(common.base(), SimpleNamespace(eos_token_id=common.EOS, pad_token_id=0), "cpu")
    learner = Learner(policy, Path(sys.argv[1]), config, accelerator)
    assert learner.processes.count == 2
    seen = []
    for number in range(2):
        seeds = [common.row_seed(number, i) for i in range(8)]
        rollout = learner.rollout(common.QUERIES, seeds, lambda i, response: seen.append(i))
        learner.measure(rollout)
        own = torch.full((8,), 99.0)  # what the other process has to say about its rows is not ours to know
        own[rollout.rows] = common.SCORES.roll(number)[rollout.rows]
        metrics = learner.learn(rollout, own, number)
    assert sorted(seen) == sorted(rollout.rows * 2)
    found[critic] = {{"weights": common.weights(learner), "metrics": metrics, "head": learner.value_head.state_dict()}}
torch.save(found, sys.argv[2] + str(accelerator.process_index))
"""


@pytest.mark.training
def test_two_processes_learn_what_one_learns(sft: Path, make: Make, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(root=str(ROOT)))
    port = str(20000 + os.getpid() % 20000)
    started = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        order = [sys.executable, str(script), str(sft), str(tmp_path / "out")]
        started.append(subprocess.Popen(order, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for process in started:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    for critic in ("ridge", "gradient"):
        alone = make(critic=critic, num_rollouts=2)
        metrics = run(alone, 0, 2)[-1]
        for rank in range(2):
            found = torch.load(tmp_path / f"out{rank}", weights_only=True)[critic]
            for name, tensor in weights(alone).items():
                assert torch.allclose(found["weights"][name], tensor, atol=1e-5), name
            assert torch.allclose(found["head"]["weight"], alone.value_head.weight, atol=1e-4)
            assert found["metrics"] == pytest.approx(metrics, abs=1e-4)
