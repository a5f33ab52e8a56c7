"""RLAIF-PPO from an SFT adapter: sample, score with THE reward, estimate advantages, update; repeated `num_rollouts` times.

What it really is: PPO with a value head on the policy's own trunk. Policy and reference are two adapters on one base; the
reference is read from the SFT folder and nowhere else, is never trained, and is compared with that folder by hash at the start
and at the end. The reward is `core.scoring.Scorer`, the very one that evaluation and the desk show. Deviations from the
textbook: KL to the reference stands in the reward (k1 per token) under an adaptive coefficient; a rollout's updates end early
when old and new policy drift apart; a completion that could not be scored is left out and counted, never zero; one that never
ends or says nothing gets the fixed `failure_score`. References: arXiv 1707.06347 (PPO), 1506.02438 (GAE), 1909.08593 (KL
controller), 2403.17031 (details).

Everything random follows from (seed, rollout), so a resumed run repeats the uninterrupted one on the same machine.

    python -m training.ppo --run-dir DIR      (job kind ppo)

Writes models/rl/NAME (adapter, value_head.safetensors, config.json) and, in the run folder and beside the weights, rewards.csv
and kl_metrics.json.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.completions import split_completion
from core.datasets import get_dataset, load_prompts
from core.errors import Unavailable, UserError
from core.jobs.configs import PPOConfig
from core.models import check_name_free, folder_hash, get_version, register_version
from core.policy import Policy, VersionFiles, row_seed, version_files
from core.records import Prompt, Risk, Split, VersionKind
from core.rewards import EMPTY_ANSWER
from core.scoring import Scored, Scorer, open_scorer
from db import tables as t
from db.engine import read_session, write_session
from training.causal import (
    adapter_tensors,
    clip_and_step,
    load_checkpoint,
    num_parameters,
    prepare,
    replace_folder,
    save_adapter,
    save_checkpoint,
    trim_metrics,
    trunk_and_head,
)
from training.ppo_files import RewardTable, print_samples, write_kl_metrics
from training.ppo_forward import forward, micro_batches, micro_tokens, response_states
from training.ppo_math import (
    KLController,
    approx_kl,
    explained_variance,
    gae,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from training.run import Run, main

POLICY, REFERENCE = "policy", "reference"
#: at least this share of every rollout are high-risk prompts, where there are any
HIGH_RISK_SHARE = 0.4
#: strength of the critic's first fit: a rollout holds many tokens but only as many returns as rows
RIDGE = 1.0


@dataclass(slots=True)
class Rollout:
    """One batch of scored responses. Tensors are (B, R): R is the longest response, `mask` is 1 on its tokens."""

    prompts: list[Prompt]
    queries: list[list[int]]
    responses: list[list[int]]
    texts: list[str]
    scored: list[Scored]
    scores: Tensor
    mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor


def train(run: Run) -> None:
    """PPO from an SFT adapter, KL to the frozen SFT."""
    # 1. Config, SFT version, prompts, reward. What a person can mend is said before a model is loaded.
    config = run.config(PPOConfig)
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
        sft = get_version(session, config.sft_model)
        files = version_files(session, run.home, sft)
        dataset = get_dataset(session, config.dataset)
        prompts = load_prompts(session, config.dataset, Split.TRAIN)
    if files.adapter is None:
        raise UserError("training.needs_adapter", name=config.sft_model)
    scorer = open_scorer(run.home)

    # 2. One base; the policy starts as the SFT adapter, the reference is the SFT adapter; a value head that says 0 at first.
    policy = Policy.load(run.home, files.base)
    prepare(run.home, config.seed, num_parameters(policy.model))
    policy.add_adapter(POLICY, files.adapter, is_trainable=True)
    policy.add_adapter(REFERENCE, files.adapter)
    value_head = torch.nn.Linear(policy.model.config.get_text_config().hidden_size, 1, dtype=torch.float32, device=policy.device)
    torch.nn.init.zeros_(value_head.weight)
    torch.nn.init.zeros_(value_head.bias)
    trained = trained_parameters(policy, value_head)
    check_start(policy, files, trained, prompts)

    # 3. Optimizer, KL controller, and where an interrupted run had come to.
    optimizer = make_optimizer(trained, value_head, config)
    controller = KLController(config.kl_coef, config.target_kl, config.kl_horizon)
    table = RewardTable(run.dir / "rewards.csv")
    done, history = 0, list[dict[str, float]]()
    if state := load_checkpoint(run.checkpoints):
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
        controller.kl_coef, done, history = state["kl_coef"], state["step"], state["history"]
        trim_metrics(run, done)
        print(f"resumed after rollout {done} of {config.num_rollouts}", flush=True)
    table.keep_until(done)
    has_moved = done > 0

    def save() -> None:
        weights = {name: parameter.detach() for name, parameter in trained.items()}
        state = {"weights": weights, "optimizer": optimizer.state_dict(), "kl_coef": controller.kl_coef, "history": history}
        save_checkpoint(run.checkpoints, done, state)

    run.progress("ppo", done, config.num_rollouts)
    while done < config.num_rollouts:
        started = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * (1 - 0.8 * done / config.num_rollouts if config.decay else 1.0)

        # 4.-7. Prompts, responses, scores, log-probabilities and values under the policy that sampled.
        rollout = collect(policy, value_head, scorer, choose_prompts(prompts, done, config), done, config)
        if run.should_stop():  # the weights are still those of the last rollout: this one is sampled again on resume
            save()
            run.leave_if_stopped()
        kl = (rollout.logprobs - rollout.ref_logprobs).mul(rollout.mask).sum(1)
        if done == 0 and (gap := float(kl.abs().max())) > 1e-3:
            raise AssertionError(f"policy and reference differ by {gap} nats before the first update")

        # 8. Rewards per token, advantages and returns; what was not scored stays out of the update.
        known = ~rollout.scores.isnan()
        if not known.any():
            raise Unavailable("training.nothing_scored", n=len(known))
        mask = rollout.mask * known[:, None]
        scores = rollout.scores.nan_to_num(0.0)
        rewards = token_rewards(scores, rollout.logprobs, rollout.ref_logprobs, rollout.mask, controller.kl_coef)
        advantages, returns = gae(rewards, rollout.values, rollout.mask, config.gamma, config.lam)
        critic_fit = explained_variance(rollout.values, returns, mask)
        advantages = whiten(advantages, mask)

        # 9. Updates. The critic's first fit comes after the first rollout's advantages were taken without it.
        if done == 0:
            warm_up_critic(policy, value_head, rollout, returns, mask)
            rollout.values = returns.clone()  # so that the value clip does not hold the critic back at zero
        has_signal = bool((advantages != 0).any())  # a rollout in which every answer fails alike teaches nothing
        before = {} if has_moved or not has_signal else {name: tensor.detach().clone() for name, tensor in trained.items()}
        metrics = update(policy, value_head, optimizer, trained, rollout, advantages, returns, mask, done, config)
        if before and all(torch.equal(before[name], tensor) for name, tensor in trained.items()):
            raise AssertionError("the first updates changed no weight")
        has_moved = has_moved or has_signal
        done += 1

        # 10. Controller, metrics, files, checkpoint.
        mean_kl, used_coef = float(kl.mean()), controller.kl_coef
        controller.update(mean_kl, len(kl))
        parts = part_means(rollout.scored)
        metrics |= {
            "objective/kl": mean_kl,
            "objective/kl_coef": used_coef,
            "objective/entropy": float(-(rollout.logprobs * rollout.mask).sum(1).mean()),
            "objective/scores": float(scores[known].mean()),
            "objective/non_score_reward": float(-used_coef * mean_kl),
            "objective/rlhf_reward": float(scores[known].mean() - used_coef * mean_kl),
            "val/num_unscored": float((~known).sum()),
            "val/finished_ratio": sum(r[-1] in policy.eos_ids for r in rollout.responses) / len(known),
            "val/response_length": float(rollout.mask.sum(1).mean()),
            "val/explained_variance": critic_fit,
            "val/high_risk_share": sum(p.risk is Risk.HIGH for p in rollout.prompts) / len(known),
            "episode": float(done * config.rollout_batch_size),
            "seconds": time.monotonic() - started,
            **{f"parts/{name}": mean for name, mean in parts.items()},
        }
        run.log(done, **metrics)
        run.progress("ppo", done, config.num_rollouts)
        history.append({"rollout": done, "kl_coef_after": controller.kl_coef, "target_kl": config.target_kl, **metrics})
        table.append(done, rollout.prompts, rollout.scored, rollout.scores, kl, rollout.responses, policy.eos_ids)
        write_kl_metrics(run.dir / "kl_metrics.json", history)
        print(
            f"rollout {done}/{config.num_rollouts} score {metrics['objective/scores']:.3f} kl {mean_kl:.2f} coef {used_coef:.4f} "
            f"approxkl {metrics['policy/approxkl_avg']:.4f} clipfrac {metrics['policy/clipfrac_avg']:.3f} "
            f"ev {metrics['val/explained_variance']:.2f} unscored {metrics['val/num_unscored']:.0f}",
            flush=True,
        )
        if done % config.save_steps == 0 or done == config.num_rollouts or run.should_stop():
            print_samples(rollout.prompts, rollout.texts, rollout.scores)
            save()
            run.leave_if_stopped()

    # 11. The reference must still be the SFT; then save and register.
    check_reference(policy, files)
    finish(run, config, policy, value_head, sft, dataset, scorer, history)


def trained_parameters(policy: Policy, value_head: torch.nn.Linear) -> dict[str, Tensor]:
    """What the optimizer owns: the policy adapter and the value head. Everything else is frozen, whatever PEFT set."""
    mark = f".{policy.key_of(POLICY)}."
    trained: dict[str, Tensor] = {}
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_(mark in name)
        if mark in name:
            trained[name] = parameter
    return trained | {"value_head.weight": value_head.weight, "value_head.bias": value_head.bias}


def make_optimizer(trained: dict[str, Tensor], value_head: torch.nn.Linear, config: PPOConfig) -> torch.optim.AdamW:
    """AdamW; the head's rate is divided by the root of its width: one Adam step moves every weight by the rate, so a wide head
    would leap (seen: explained variance of -1.7 after one rollout)."""
    head = [tensor for name, tensor in trained.items() if name.startswith("value_head.")]
    adapter = [tensor for name, tensor in trained.items() if not name.startswith("value_head.")]
    slow = config.learning_rate / math.sqrt(value_head.in_features)
    groups: list[dict[str, Any]] = [
        {"params": adapter, "lr": config.learning_rate, "peak": config.learning_rate},
        {"params": head, "lr": slow, "peak": slow},
    ]
    return torch.optim.AdamW(groups, eps=1e-5, weight_decay=0.0, fused=True)


def warm_up_critic(policy: Policy, value_head: torch.nn.Linear, rollout: Rollout, returns: Tensor, mask: Tensor) -> None:
    """Fit the value head to the first rollout's returns by ridge regression on the trunk's states, all at once.

    An untrained critic misleads the first rollouts (arXiv 2503.01491); a linear head needs no gradient steps to be trained.
    """
    states, wanted = [], []
    with torch.no_grad(), policy.using(POLICY) as model:
        for rows in micro_batches(rollout.queries, rollout.responses, range(len(mask)), micro_tokens(policy)):
            hidden = response_states(model, rollout.queries, rollout.responses, rows, policy)
            kept = mask[rows][rollout.mask[rows].bool()].bool()
            states.append(hidden[kept].double())
            wanted.append(returns[rows][rollout.mask[rows].bool()][kept].double())
        x, y = torch.cat(states), torch.cat(wanted)
        centre, mean = x.mean(0), y.mean()
        gram = (x - centre).T @ (x - centre)
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weight = torch.linalg.solve(gram, (x - centre).T @ (y - mean))
        value_head.weight.copy_(weight[None])
        value_head.bias.copy_((mean - weight @ centre)[None])


def check_start(policy: Policy, files: VersionFiles, trained: dict[str, Tensor], prompts: Sequence[Prompt]) -> None:
    """The silent failures, made loud: an adapter that does not train, a reference that is not the SFT, a strange head."""
    count, total = sum(p.numel() for p in trained.values()), num_parameters(policy.model)
    if len(trained) <= 2:
        raise AssertionError("the policy adapter has no trainable parameter")
    print(f"{count:,} of {total:,} parameters are trained ({count / total:.1%})", flush=True)
    check_reference(policy, files)
    trunk_and_head(policy.model, torch.tensor([policy.encode(prompts[0].messages)], device=policy.device))


def check_reference(policy: Policy, files: VersionFiles) -> None:
    """SHA-256 of the reference in memory against the SFT folder's adapter (both as float32)."""
    from safetensors.torch import load_file

    assert files.adapter is not None
    if tensors_hash(adapter_tensors(policy, REFERENCE)) != tensors_hash(load_file(files.adapter / "adapter_model.safetensors")):
        raise AssertionError("the reference is not the SFT adapter")


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def choose_prompts(prompts: Sequence[Prompt], rollout: int, config: PPOConfig) -> list[Prompt]:
    """The prompts of a rollout: at least 40 % high risk, the rest from all others; each group is walked through shuffled."""
    high = [p for p in prompts if p.risk is Risk.HIGH]
    other = [p for p in prompts if p.risk is not Risk.HIGH]
    share = len(high) / len(prompts)
    num_high = math.ceil(max(HIGH_RISK_SHARE, share) * config.rollout_batch_size) if high else 0
    num_high = num_high if other else config.rollout_batch_size
    chosen = [walk(high, rollout * num_high + i, f"{config.seed}-high") for i in range(num_high)]
    num_other = config.rollout_batch_size - num_high
    return chosen + [walk(other, rollout * num_other + i, f"{config.seed}-other") for i in range(num_other)]


def walk(items: Sequence[Prompt], position: int, seed: str) -> Prompt:
    """The item at `position` of an endless walk that shuffles anew at every pass."""
    epoch, index = divmod(position, len(items))
    order = list(range(len(items)))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return items[order[index]]


def collect(policy: Policy, value_head: torch.nn.Linear, scorer: Scorer, prompts: list[Prompt], number: int, config: PPOConfig) -> Rollout:
    """Sample, score and measure one rollout."""
    # 4. Queries, longest first, so that forward passes pad little.
    queries = [policy.encode(p.messages) for p in prompts]

    # 5. Responses at the training temperature, nothing filtered: forced tokens would show as KL that the policy then chases.
    responses = policy.sample(
        queries,
        adapter=POLICY,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        seeds=[row_seed(config.seed, number * config.rollout_batch_size + i) for i in range(len(queries))],
        batch_size=config.rollout_batch_size,
    )

    # 6. Scores. An answer that never ends costs no teacher call.
    texts = [policy.decode(r) for r in responses]
    reasons = ["stop" if r[-1] in policy.eos_ids else "length" for r in responses]
    scored = score_all(scorer, prompts, texts, reasons)
    scores = torch.tensor([score_of(one, reason, config) for one, reason in zip(scored, reasons, strict=True)])

    # 7. Old log-probabilities and values by the training forward, and the reference's; never the sampler's own numbers.
    width = max(map(len, responses))
    mask = torch.zeros((len(responses), width))
    for row, response in enumerate(responses):
        mask[row, : len(response)] = 1
    mask = mask.to(policy.device)
    logprobs, ref_logprobs, values = torch.zeros_like(mask), torch.zeros_like(mask), torch.zeros_like(mask)
    with torch.no_grad():
        for rows in micro_batches(queries, responses, range(len(queries)), micro_tokens(policy)):
            part = mask[rows].bool()
            with policy.using(POLICY) as model:
                found, predicted = forward(model, value_head, queries, responses, rows, policy, config.temperature)
            with policy.using(REFERENCE) as model:
                expected, _ = forward(model, None, queries, responses, rows, policy, config.temperature)
            for target, new in ((logprobs, found), (values, predicted), (ref_logprobs, expected)):
                target[rows] = target[rows].masked_scatter(part, new)
    return Rollout(prompts, queries, responses, texts, scored, scores.to(policy.device), mask, logprobs, ref_logprobs, values)


def score_all(scorer: Scorer, prompts: Sequence[Prompt], texts: Sequence[str], reasons: Sequence[str]) -> list[Scored]:
    """Score each completion, finished ones with the teacher."""
    completions = [split_completion(text, reason) for text, reason in zip(texts, reasons, strict=True)]
    found: dict[int, Scored] = {}
    for with_teacher in (True, False):
        rows = [i for i, reason in enumerate(reasons) if (reason == "stop") is with_teacher]
        results = scorer.score([prompts[i] for i in rows], [completions[i] for i in rows], with_teacher) if rows else []
        found |= dict(zip(rows, results, strict=True))
    return [found[i] for i in range(len(texts))]


def score_of(scored: Scored, reason: str, config: PPOConfig) -> float:
    """The number that PPO sees; NaN marks a completion that could not be scored."""
    if reason == "length" or scored.reward.unscored_reason == EMPTY_ANSWER:
        return config.failure_score
    return math.nan if scored.reward.value is None else scored.reward.value


def update(
    policy: Policy,
    value_head: torch.nn.Linear,
    optimizer: torch.optim.Optimizer,
    trained: dict[str, Tensor],
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    mask: Tensor,
    number: int,
    config: PPOConfig,
) -> dict[str, float]:
    """`num_ppo_epochs` passes over the scored rows in shuffled minibatches; returns the means of the standard metrics."""
    rows = [i for i in range(len(mask)) if mask[i].any()]
    logs: list[dict[str, float]] = []
    stopped = False
    with policy.using(POLICY) as model:
        for parameter in trained.values():
            parameter.requires_grad_(True)  # switching adapters freezes the one switched away from
        for epoch in range(config.num_ppo_epochs):
            order = rows.copy()
            random.Random(f"{config.seed}-{number}-{epoch}").shuffle(order)
            for start in range(0, len(order), config.mini_batch_size):
                batch = order[start : start + config.mini_batch_size]
                num_tokens = mask[batch].sum()
                log = dict.fromkeys(("loss/policy_avg", "loss/value_avg", "policy/approxkl_avg", "policy/clipfrac_avg", "val/ratio"), 0.0)
                for micro in micro_batches(rollout.queries, rollout.responses, batch, micro_tokens(policy)):
                    flat, values = forward(model, value_head, rollout.queries, rollout.responses, micro, policy, config.temperature)
                    real = mask[micro].bool()
                    old, ones = rollout.logprobs[micro][real], torch.ones_like(flat)
                    clipped = policy_loss(flat, old, advantages[micro][real], ones, config.cliprange)
                    critic = value_loss(values, rollout.values[micro][real], returns[micro][real], ones, config.cliprange_value)
                    ((clipped.loss + config.vf_coef * critic) / num_tokens).backward()  # type: ignore[no-untyped-call]
                    share = float(len(flat) / num_tokens)
                    log["loss/policy_avg"] += float(clipped.loss.detach() / num_tokens)
                    log["loss/value_avg"] += float(critic.detach() / num_tokens)
                    log["policy/approxkl_avg"] += share * float(approx_kl(flat.detach(), old, ones))
                    log["policy/clipfrac_avg"] += share * clipped.clipfrac
                    log["val/ratio"] += share * clipped.ratio
                if log["policy/approxkl_avg"] > 1.5 * config.max_step_kl:  # looked at before the step is taken, not after
                    optimizer.zero_grad(set_to_none=True)
                    stopped = True
                    break
                log["policy/grad_norm"] = clip_and_step(optimizer, trained.values())
                logs.append(log)
            if stopped:
                break
    means = {name: sum(log[name] for log in logs) / len(logs) for name in logs[0]} if logs else {}
    return {**means, "policy/num_updates": float(len(logs)), "policy/stopped_early": float(stopped)}


def part_means(scored: Sequence[Scored]) -> dict[str, float]:
    """Mean of each part over the completions in which it was scored."""
    found: dict[str, list[float]] = {}
    for one in scored:
        for name, value in one.reward.parts.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def finish(
    run: Run,
    config: PPOConfig,
    policy: Policy,
    value_head: torch.nn.Linear,
    sft: t.ModelVersion,
    dataset: t.Dataset,
    scorer: Scorer,
    history: list[dict[str, float]],
) -> None:
    """Write models/rl/NAME and register it; `value_head.safetensors` lies beside the adapter for a next round."""
    from safetensors.torch import save_file

    target = run.home.models / "rl" / config.name
    scratch = run.dir / "adapter"
    shutil.rmtree(scratch, ignore_errors=True)
    save_adapter(policy, POLICY, scratch)
    save_file({name: tensor.detach().cpu() for name, tensor in value_head.state_dict().items()}, scratch / "value_head.safetensors")
    (scratch / "config.json").write_text(config.model_dump_json(indent=1), encoding="utf-8")
    for name in ("rewards.csv", "kl_metrics.json"):
        shutil.copy(run.dir / name, scratch / name)
    replace_folder(scratch, target)
    digest, last = folder_hash(target), history[-1]
    manifest = {
        "config": config.model_dump(),
        "dataset": {"name": dataset.name, "content_hash": dataset.content_hash, "split": Split.TRAIN.value},
        "reward_config": scorer.config.version,
        "teacher": {"name": scorer.teacher.name, "is_offline": scorer.teacher.is_offline},
        "parent": {"name": sft.name, "content_hash": sft.content_hash},
        "kl": last["objective/kl"],
        "metrics": last,
    }
    with write_session() as session:
        register_version(
            session,
            name=config.name,
            kind=VersionKind.RL,
            path=run.home.relative(target),
            base_version_id=sft.base_version_id,
            parent_version_id=sft.id,
            is_toy=sft.is_toy,
            content_hash=digest,
            manifest=manifest,
            job_id=run.job_id,
        )
    run.result(
        version=config.name,
        content_hash=digest,
        num_samples=len(history) * config.rollout_batch_size,
        num_unscored=sum(h["val/num_unscored"] for h in history),
        first_score=history[0]["objective/scores"],
        last_score=last["objective/scores"],
        kl=last["objective/kl"],
    )


if __name__ == "__main__":
    main(train)
