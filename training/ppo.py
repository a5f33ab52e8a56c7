"""RLAIF-PPO from an SFT adapter: sample, score with THE reward, estimate advantages, update; repeated `num_rollouts` times.

How it learns is `training.ppo_learner`; this script chooses prompts, has completions scored by `core.scoring.Scorer` (the very
reward that evaluation and the desk show), keeps the files and resumes. A completion that could not be scored is left out and
counted, never zero; one that never ends or says nothing gets the fixed `failure_score`.

Everything random follows from (seed, rollout), so a resumed run repeats the uninterrupted one on the same machine.

    python -m training.ppo --run-dir DIR      (job kind ppo)

Writes models/rl/NAME (adapter, value_head.safetensors, config.json) and, in the run folder and beside the weights, rewards.csv
and kl_metrics.json.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Sequence

import torch

from core.completions import split_completion
from core.datasets import get_dataset, load_prompts
from core.errors import UserError
from core.jobs.configs import PPOConfig
from core.models import check_name_free, folder_hash, get_version, register_version
from core.policy import Policy, row_seed, version_files
from core.records import Prompt, Risk, Split, VersionKind
from core.rewards import EMPTY_ANSWER
from core.scoring import Scored, Scorer, open_scorer
from db import tables as t
from db.engine import read_session, write_session
from training.causal import load_checkpoint, num_parameters, prepare, replace_folder, save_checkpoint, trim_metrics
from training.ppo_files import RewardTable, print_samples, write_kl_metrics
from training.ppo_learner import Learner
from training.run import Run, main

#: at least this share of every rollout are high-risk prompts, where there are any
HIGH_RISK_SHARE = 0.4


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

    # 2. One base; the learner puts policy, reference and critic on it and checks that they are what they should be.
    policy = Policy.load(run.home, files.base)
    prepare(run.home, config.seed, num_parameters(policy.model))
    learner = Learner(policy, files.adapter, config)

    # 3. Where an interrupted run had come to.
    table = RewardTable(run.dir / "rewards.csv")
    done, history = 0, list[dict[str, float]]()
    if state := load_checkpoint(run.checkpoints):
        learner.load_state_dict(state["learner"])
        done, history = state["step"], state["history"]
        trim_metrics(run, done)
        print(f"resumed after rollout {done} of {config.num_rollouts}", flush=True)
    table.keep_until(done)

    def save() -> None:
        save_checkpoint(run.checkpoints, done, {"learner": learner.state_dict(), "history": history})

    run.progress("ppo", done, config.num_rollouts)
    while done < config.num_rollouts:
        started = time.monotonic()

        # 4. Prompts and responses.
        chosen = choose_prompts(prompts, done, config)
        first = done * config.rollout_batch_size
        rollout = learner.rollout(
            [policy.encode(p.messages) for p in chosen], [row_seed(config.seed, first + i) for i in range(len(chosen))]
        )

        # 5. Scores. An answer that never ends costs no teacher call.
        texts = [policy.decode(r) for r in rollout.responses]
        reasons = ["stop" if finished else "length" for finished in rollout.is_finished]
        scored = score_all(scorer, chosen, texts, reasons)
        scores = torch.tensor([score_of(one, reason, config) for one, reason in zip(scored, reasons, strict=True)])
        if run.should_stop():  # the weights are still those of the last rollout: this one is sampled again on resume
            save()
            run.leave_if_stopped()

        # 6. Log-probabilities and values under the policy that sampled; then rewards, advantages, updates.
        learner.measure(rollout)
        metrics = learner.learn(rollout, scores, done)
        done += 1

        # 7. Metrics, files, checkpoint.
        metrics |= {
            "val/high_risk_share": sum(p.risk is Risk.HIGH for p in chosen) / len(chosen),
            "episode": float(done * config.rollout_batch_size),
            "seconds": time.monotonic() - started,
            **{f"parts/{name}": mean for name, mean in part_means(scored).items()},
        }
        run.log(done, **metrics)
        run.progress("ppo", done, config.num_rollouts)
        history.append({"rollout": done, "kl_coef_after": learner.controller.kl_coef, "target_kl": config.target_kl, **metrics})
        table.append(done, chosen, scored, scores, rollout.kl, rollout.responses, policy.eos_ids)
        write_kl_metrics(run.dir / "kl_metrics.json", history)
        print(
            f"rollout {done}/{config.num_rollouts} score {metrics['objective/scores']:.3f} kl {metrics['objective/kl']:.2f} "
            f"coef {metrics['objective/kl_coef']:.4f} approxkl {metrics.get('policy/approxkl_avg', 0):.4f} "
            f"clipfrac {metrics.get('policy/clipfrac_avg', 0):.3f} ev {metrics['val/explained_variance']:.2f} "
            f"unscored {metrics['val/num_unscored']:.0f}",
            flush=True,
        )
        if done % config.save_steps == 0 or done == config.num_rollouts or run.should_stop():
            print_samples(chosen, texts, scores)
            save()
            run.leave_if_stopped()

    # 8. The reference must still be the SFT; then save and register.
    learner.check_reference()
    finish(run, config, learner, sft, dataset, scorer, history)


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
    learner: Learner,
    sft: t.ModelVersion,
    dataset: t.Dataset,
    scorer: Scorer,
    history: list[dict[str, float]],
) -> None:
    """Write models/rl/NAME and register it; `value_head.safetensors` lies beside the adapter for a next round."""
    target = run.home.models / "rl" / config.name
    scratch = run.dir / "adapter"
    shutil.rmtree(scratch, ignore_errors=True)
    learner.save(scratch)
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
