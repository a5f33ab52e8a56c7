"""RLAIF-PPO from an SFT adapter: sample, score with THE reward, update, again and again; every doubt about it is a file.

How it learns is `training.ppo_learner`, how a rollout gets its scores `training.ppo_scoring`, what is written for people
`training.ppo_files`. This script puts them in order, keeps the checkpoint, and registers the version. The reward is that of
`core.scoring`, the very one that evaluation and the desk show; a completion that could not be scored is left out and counted,
never zero; one that never ends or says nothing gets the fixed `failure_score`.

Everything random follows from (seed, rollout) and the checkpoint holds the rest (weights, optimizer, KL controller, the
scoring's memory), so a run killed at any moment repeats the uninterrupted one on the same machine; verdicts that were paid for
come from the teacher's cache.

    python -m training.ppo --run-dir DIR                       (job kind ppo; num_processes > 1: under accelerate launch)

Writes models/rl/NAME (adapter, value_head.safetensors, config.json and the run's files; rl-roundN lies in roundN).
"""

from __future__ import annotations

import math
import os
import random
import re
import time
from collections.abc import Sequence
from typing import Any

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.datasets import get_dataset, load_prompts
from core.errors import UserError
from core.estimate_facts import facts_for
from core.estimates import estimate_ppo
from core.jobs.configs import PPOConfig
from core.models import check_name_free, get_version
from core.policy import Policy, pick_device, row_seed, version_files
from core.records import Prompt, Risk, Split
from core.scoring import Scorer, open_scorer
from db import tables as t
from db.engine import read_session
from training.causal import load_checkpoint, num_parameters, prepare, save_checkpoint, trim_metrics
from training.ppo_files import ESTIMATE, RunFiles, part_means, print_samples
from training.ppo_learner import Learner
from training.ppo_scoring import RolloutScorer, ScoredRollout
from training.ppo_vllm import VllmSampler, check_engine
from training.rl_version import finish_rollouts
from training.run import Run, main, write_json

#: at least this share of every rollout are high-risk prompts, where there are any
HIGH_RISK_SHARE = 0.4
ROUND = re.compile(r"rl-round(\d+)")


def train(run: Run) -> None:
    """PPO from an SFT adapter, KL to the frozen SFT."""
    # 1. Config, SFT version, prompts, reward. What a person can mend is said before a model is loaded.
    config = run.config(PPOConfig)
    with read_session() as session:
        name = config.name or next_round(session)
        check_name_free(session, name, job_id=run.job_id)
        sft = get_version(session, config.sft_model)
        files = version_files(session, run.home, sft)
        dataset = get_dataset(session, config.dataset)
        prompts = load_prompts(session, config.dataset, Split.TRAIN)
    if files.adapter is None:
        raise UserError("training.needs_adapter", name=config.sft_model)
    config = config.model_copy(update={"num_rollouts": count_rollouts(config, len(prompts))})
    check_engine(config, pick_device(run.home))
    if config.rollout_engine == "vllm":  # another implementation's numbers are not the training forward's
        config = config.model_copy(update={"old_logprobs": "forward"})
    scorer = open_scorer(run.home)
    if run.is_main and not (run.dir / ESTIMATE).exists():  # that of the start: a resumed run does not rewrite what was promised
        write_json(run.dir / ESTIMATE, estimate_ppo(config, facts_for("ppo", config, run.home)))

    # 2. One base in memory; policy, frozen reference and value head on it.
    accelerator = open_accelerator(run)
    policy = Policy.load(run.home, files.base, device_of(accelerator))
    prepare(run.home, config.seed, num_parameters(policy.model))
    learner = Learner(policy, files.adapter, config, accelerator)
    if config.rollout_engine == "vllm":
        longest = max(len(policy.encode(p.messages)) for p in prompts)
        learner.sampler = VllmSampler(policy, files.base, config, run.dir / "vllm", longest)
    settings = run.home.settings
    scoring = RolloutScorer(
        scorer, config, timeout_s=settings.teacher_timeout_s, num_at_once=settings.teacher_num_at_once, processes=learner.processes
    )
    out = RunFiles(run.dir) if run.is_main else None

    # 3. Where an interrupted run had come to.
    done, history = 0, list[dict[str, float]]()
    if state := load_checkpoint(run.checkpoints):
        learner.load_state_dict(state["learner"])
        scoring.load_state_dict(state["scoring"], {p.sample_id: p for p in prompts})
        done, history = state["step"], state["history"]
        print(f"resumed after rollout {done} of {config.num_rollouts}", flush=True)
    if out:
        trim_metrics(run, done)
        out.keep_until(done)

    def save() -> None:
        if run.is_main:
            state = {"learner": learner.state_dict(), "scoring": scoring.state_dict(), "history": history}
            save_checkpoint(run.checkpoints, done, state)

    def should_stop() -> bool:  # the first process decides for all
        return learner.processes.gather({0: run.should_stop()} if run.is_main else {})[0]

    run.progress("ppo", done, config.num_rollouts)
    while done < config.num_rollouts:
        started = time.monotonic()

        # 4. Prompts and responses. Each goes to the teacher as soon as it has ended.
        chosen = choose_prompts(prompts, done, config)
        queries = [policy.encode(p.messages) for p in chosen]
        seeds = [row_seed(config.seed, done * config.rollout_batch_size + i) for i in range(len(chosen))]
        scoring.begin(done + 1, chosen)
        rollout = learner.rollout(queries, seeds, lambda row, ids: scoring.on_finished(row, policy.decode(ids), ids[-1] in policy.eos_ids))

        # 5. Log-probabilities and values under the policy that sampled, while the teacher reads; then the scores.
        learner.measure(rollout)
        generated_s = time.monotonic() - started
        try:
            scored = scoring.finish(run.should_stop)
        except UserError:  # the teacher is away and nothing can stand in: what was learned so far is kept
            save()
            raise
        if scored is None or should_stop():  # the weights are still the last rollout's: this one is sampled again on resume
            save()
            run.leave_if_stopped()
        assert scored is not None
        waited_s = time.monotonic() - started - generated_s

        # 6. Rewards per token, advantages, updates.
        metrics = learner.learn(rollout, torch.tensor(scored.scores), done)
        done += 1

        # 7. Metrics, files, checkpoint.
        lengths = [len(response) for response in rollout.responses]
        metrics |= {
            "val/high_risk_share": sum(p.risk is Risk.HIGH for p in chosen) / len(chosen),
            "val/rules_only": float(scored.map is not None),
            "val/num_late": float(len(scored.late)),
            "val/num_pending": float(len(scoring.pending)),
            "tokens/prompt": float(sum(map(len, queries))),
            "tokens/generated": float(sum(lengths)),
            "tokens/trained": float((sum(map(len, queries)) + sum(lengths)) * config.num_ppo_epochs),
            "episode": float(done * config.rollout_batch_size),
            "seconds": time.monotonic() - started,
            "seconds/teacher": waited_s,
            **{f"parts/{part}": mean for part, mean in part_means(scored.rows).items()},
        }
        history.append({"rollout": done, "target_kl": config.target_kl, **metrics})
        run.log(done, **metrics)
        run.progress("ppo", done, config.num_rollouts)
        if out:
            kl = rollout.kl.tolist()
            out.append(done, chosen, scored, lengths, kl)
            out.write_kl(history)
            if done % config.sample_steps == 0 or done == config.num_rollouts:
                out.append_samples(done, chosen, scored, kl)
                print_samples(chosen, scored)
            print(line_of(metrics, scored, done, config), flush=True)
        if done % config.save_steps == 0 or done == config.num_rollouts or should_stop():
            if out:
                out.write_watch()
            save()
            if should_stop():
                run.leave_if_stopped()

    # 8. The reference must still be the SFT; then save and register.
    learner.check_reference()
    if out:
        finish(run, config, learner, out, sft, dataset, scorer, history)


def open_accelerator(run: Run) -> Any:
    """An `accelerate.Accelerator` when `accelerate launch` started this process among several, else None."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import Accelerator

    return Accelerator(cpu=pick_device(run.home) == "cpu")


def device_of(accelerator: Any) -> str:
    """This process's device as `Policy.load` wants it: a CPU has no number, and is what float32 is chosen for."""
    if accelerator is None:
        return "auto"
    return "cpu" if accelerator.device.type == "cpu" else str(accelerator.device)


def next_round(session: Session) -> str:
    """rl-roundN after the highest round so far."""
    names = session.scalars(select(t.ModelVersion.name).where(t.ModelVersion.name.startswith("rl-round")))
    return f"rl-round{max((int(m[1]) for name in names if (m := ROUND.fullmatch(name))), default=0) + 1}"


def count_rollouts(config: PPOConfig, num_prompts: int) -> int:
    """`num_prompt_epochs` passes over the prompts in full rollouts, or what the config says outright."""
    return math.ceil(config.num_prompt_epochs * num_prompts / config.rollout_batch_size) or config.num_rollouts


def choose_prompts(prompts: Sequence[Prompt], rollout: int, config: PPOConfig) -> list[Prompt]:
    """The prompts of a rollout: high risk as often as in the data and at least `HIGH_RISK_SHARE`, the rest from all others.

    Each group is walked through shuffled, and the groups take turns so that, where nothing has to be lifted, whole passes over
    both end together.
    """
    high = [p for p in prompts if p.risk is Risk.HIGH]
    other = [p for p in prompts if p.risk is not Risk.HIGH]
    size = config.rollout_batch_size
    per_rollout = max(math.ceil(HIGH_RISK_SHARE * size), size * len(high) / len(prompts)) if high and other else size if high else 0.0
    first, last = math.floor(rollout * per_rollout), math.floor((rollout + 1) * per_rollout)
    chosen = [walk(high, i, f"{config.seed}-high") for i in range(first, last)]
    return chosen + [walk(other, i, f"{config.seed}-other") for i in range(rollout * size - first, (rollout + 1) * size - last)]


def walk(items: Sequence[Prompt], position: int, seed: str) -> Prompt:
    """The item at `position` of an endless walk that shuffles anew at every pass."""
    epoch, index = divmod(position, len(items))
    order = list(range(len(items)))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return items[order[index]]


def line_of(metrics: dict[str, float], scored: ScoredRollout, done: int, config: PPOConfig) -> str:
    """One line of the log."""
    mode = "" if scored.map is None else f" RULES ONLY ({scored.reason}; R' = {scored.map.a:.3f} + {scored.map.b:.3f} R_rules)"
    late = f" {len(scored.late)} late verdicts" if scored.late else ""
    return (
        f"rollout {done}/{config.num_rollouts} score {metrics['objective/scores']:.3f} kl {metrics['objective/kl']:.2f} "
        f"coef {metrics['objective/kl_coef']:.4f} approxkl {metrics.get('policy/approxkl_avg', 0):.4f} "
        f"clipfrac {metrics.get('policy/clipfrac_avg', 0):.3f} ev {metrics['val/explained_variance']:.2f} "
        f"unscored {metrics['val/num_unscored']:.0f}{late}{mode}"
    )


def finish(
    run: Run,
    config: PPOConfig,
    learner: Learner,
    out: RunFiles,
    sft: t.ModelVersion,
    dataset: t.Dataset,
    scorer: Scorer,
    history: list[dict[str, float]],
) -> None:
    """Write models/rl/NAME with the run's files beside the weights, and register it."""
    with read_session() as session:  # once more: another run may have taken the round's number in the meantime
        name = config.name or next_round(session)
        check_name_free(session, name, job_id=run.job_id)
    config = config.model_copy(update={"name": name})
    finish_rollouts(
        run,
        "ppo",
        name,
        config,
        sft,
        sft.base_version_id,
        learner.save,
        out=out,
        dataset=dataset,
        scorer=scorer,
        history=history,
        num_samples=len(history) * config.rollout_batch_size,
        folder=name.removeprefix("rl-") if ROUND.fullmatch(name) else name,
    )


if __name__ == "__main__":
    main(train)
