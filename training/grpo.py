"""GRPO from an SFT adapter: PPO's second arm, with the same prompts, the same reward and the same files, and no critic.

Each prompt is answered `num_generations` times; the group's mean is the baseline (arXiv 2402.03300). The update is trl's
(`training.trl_grpo`), KL to the frozen start version in the loss with weight `beta`. Scores come from the very classes that PPO
uses (`training.ppo_scoring`): one mode per rollout, a row that could not be scored is masked out, never zero. Like PPO's, a run
killed at any moment and resumed repeats the uninterrupted one on the same machine.

    python -m training.grpo --run-dir DIR                      (job kind grpo; num_processes > 1: under accelerate launch)

Writes models/rl/NAME (adapter, config.json and the run's files) and registers it as a version of kind rl.
"""

from __future__ import annotations

import math
import time
from typing import Any

from core.datasets import get_dataset, load_prompts
from core.estimate_facts import facts_for
from core.estimates import estimate_grpo
from core.jobs.configs import PPOConfig
from core.jobs.configs_training import GRPOConfig
from core.models import check_name_free, get_version
from core.policy import Policy, VersionFiles, version_files
from core.records import Prompt, Risk, Split
from core.scoring import Scorer, open_scorer
from db import tables as t
from db.engine import read_session
from training import trl_common
from training.causal import adapter_tensors, num_parameters, prepare, save_adapter
from training.ppo import choose_prompts
from training.ppo_files import ESTIMATE, RunFiles, part_means, print_samples
from training.ppo_learner import tensors_hash
from training.ppo_processes import Processes
from training.ppo_scoring import RolloutScorer, ScoredRollout
from training.rl_version import finish_rollouts
from training.run import Run, StopRequested, main, write_json
from training.trl_grpo import Shared, grpo_trainer

#: trl's names -> the field's
METRICS = {
    "loss": "loss/policy_avg",
    "grad_norm": "policy/grad_norm",
    "learning_rate": "lr",
    "kl": "objective/kl_k3_token",
    "entropy": "policy/entropy_avg",
    "clip_ratio/region_mean": "policy/clipfrac_avg",
    "frac_reward_zero_std": "val/groups_without_signal",
}


class Progress(trl_common.RunCallback):
    """The rollouts of one run: scores them, and when their updates are done writes metrics and files."""

    def __init__(
        self, run: Run, plan: trl_common.Plan, config: GRPOConfig, policy: Policy, scoring: RolloutScorer, asked: list[list[Prompt]]
    ) -> None:
        super().__init__(run, plan, METRICS)
        self.config, self.policy, self.scoring, self.asked = config, policy, scoring, asked
        self.out = RunFiles(run.dir) if run.is_main else None
        self.history: list[dict[str, float]] = []
        self.start_hash = ""
        self._chosen: list[Prompt] = []
        self._found: ScoredRollout | None = None
        self._shared: Shared | None = None
        self._began = time.monotonic()

    # --- what training.trl_grpo asks for ---------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        self._began = time.monotonic()
        self._chosen = self.asked[number]
        self.scoring.begin(number + 1, self._chosen)

    def on_finished(self, row: int, ids: list[int]) -> None:
        self.scoring.on_finished(row, self.policy.decode(ids), ids[-1] in self.policy.eos_ids)

    def scores(self) -> list[float]:
        found = self.scoring.finish(self.run.should_stop)
        if found is None:  # a person asked to stop while it waited for the teacher
            raise StopRequested
        self._found = found
        return found.scores

    def after(self, rollout: Shared) -> None:
        if rollout.number == 0:
            gap = max(map(abs, rollout.kl))
            if gap > 1e-3:
                raise AssertionError(f"policy and reference differ by {gap} nats before the first update")
            self.start_hash = tensors_hash(adapter_tensors(self.policy, trl_common.POLICY))
        self._shared = rollout

    # --- what trl calls ----------------------------------------------------------------------------------------------------------

    def translate(self, logs: dict[str, Any]) -> dict[str, float]:
        """The metrics of the rollout whose updates have just ended; its files are written here, before the checkpoint."""
        found, shared = self._found, self._shared
        if found is None or shared is None:  # the summary that trl logs at the end
            return {}
        self._check_moved(shared, found)
        done, used = shared.number + 1, [s for s, keep in zip(found.scores, shared.is_used, strict=True) if keep]
        known = [s for s in found.scores if not math.isnan(s)]
        generated, size = sum(shared.num_tokens), len(shared.num_tokens)
        asked = sum(len(self.policy.encode(p.messages)) for p in self._chosen)
        kl = sum(shared.kl) / size
        metrics = super().translate(logs) | {
            "objective/kl": kl,
            "objective/kl_coef": self.config.beta,
            "objective/scores": sum(known) / len(known),
            "objective/rlhf_reward": sum(known) / len(known) - self.config.beta * kl,
            "policy/stopped_early": 0.0,
            "val/num_unscored": float(size - len(known)),
            "val/num_masked": float(size - len(used)),
            "val/finished_ratio": sum(row.completion.finish_reason == "stop" for row in found.rows) / size,
            "val/response_length": generated / size,
            "val/high_risk_share": sum(p.risk is Risk.HIGH for p in self._chosen) / size,
            "val/rules_only": float(found.map is not None),
            "val/num_late": float(len(found.late)),
            "tokens/prompt": float(asked),
            "tokens/generated": float(generated),
            "tokens/trained": float((asked + generated) * self.config.num_iterations),
            "episode": float(done * size),
            "seconds": time.monotonic() - self._began,
            **{f"parts/{part}": mean for part, mean in part_means(found.rows).items()},
        }
        self.history.append({"rollout": done, **metrics})
        if self.out:
            self.out.append(done, self._chosen, found, shared.num_tokens, shared.kl)
            self.out.write_kl(self.history)
            if done % self.config.sample_steps == 0 or done == self.config.num_rollouts:
                self.out.append_samples(done, self._chosen, found, shared.kl)
                print_samples(self._chosen, found)
            mode = "" if found.map is None else f" RULES ONLY ({found.reason})"
            print(
                f"rollout {done}/{self.config.num_rollouts} score {metrics['objective/scores']:.3f} kl {kl:.2f} "
                f"clipfrac {metrics.get('policy/clipfrac_avg', 0):.3f} unscored {metrics['val/num_unscored']:.0f} "
                f"masked {metrics['val/num_masked']:.0f}{mode}",
                flush=True,
            )
        self._found = self._shared = None
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"scoring": self.scoring.state_dict(), "history": self.history, "start_hash": self.start_hash}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scoring.load_state_dict(state["scoring"], {p.sample_id: p for rollout in self.asked for p in rollout})
        self.history, self.start_hash = state["history"], state["start_hash"]

    def _check_moved(self, shared: Shared, found: ScoredRollout) -> None:
        """The first rollout with a difference in scores must move weights: an adapter that does not train looks fine otherwise."""
        if not self.start_hash:
            return
        group = self.config.num_generations
        kept = [s if keep else math.nan for s, keep in zip(found.scores, shared.is_used, strict=True)]
        has_signal = any(len({s for s in kept[i : i + group] if not math.isnan(s)}) > 1 for i in range(0, len(kept), group))
        if has_signal and tensors_hash(adapter_tensors(self.policy, trl_common.POLICY)) == self.start_hash:
            raise AssertionError("the first updates changed no weight")
        self.start_hash = "" if has_signal else self.start_hash


def train(run: Run) -> None:
    """GRPO from an SFT adapter, KL to the frozen SFT."""
    # 1. Config, start version, prompts, reward. What a person can mend is said before a model is loaded.
    config = run.config(GRPOConfig)
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
        start = get_version(session, config.sft_model)
        files = version_files(session, run.home, start)
        dataset = get_dataset(session, config.dataset)
        prompts = load_prompts(session, config.dataset, Split.TRAIN)
    scorer = open_scorer(run.home)
    if run.is_main and not (run.dir / ESTIMATE).exists():
        write_json(run.dir / ESTIMATE, estimate_grpo(config, facts_for("grpo", config, run.home)))

    # 2. The policy, and every rollout's prompts: chosen as PPO chooses them, each repeated as a group.
    policy = trl_common.load_start(run.home, files, trl_common.place(run.home), seed=config.seed)
    prepare(run.home, config.seed, num_parameters(policy.model))
    asked = questions(prompts, config)
    plan = trl_common.Plan(
        phase="grpo",
        batch_size=config.mini_batch_size,
        micro_batch_size=config.micro_batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        save_steps=config.save_steps,
        max_steps=config.num_rollouts * updates_per_rollout(config),
        unit=updates_per_rollout(config),
        log_steps=1,
        gradient_checkpointing=config.gradient_checkpointing,
        schedule="linear" if config.decay else "constant",
        weight_decay=0.0,
        adam_epsilon=1e-5,
    )

    # 3. The trainer. Its reference is a copy of the start version, made before any checkpoint is read.
    scoring = RolloutScorer(scorer, as_ppo(config), timeout_s=run.home.settings.teacher_timeout_s)
    progress = Progress(
        run, plan, config, policy, scoring, [[p for p in chosen for _ in range(config.num_generations)] for chosen in asked]
    )
    trainer = grpo_trainer(
        run,
        policy,
        files,
        [list(p.messages) for chosen in asked for p in chosen],
        plan,
        progress,
        progress,
        num_generations=config.num_generations,
        generation_batch_size=config.rollout_batch_size,
        num_iterations=config.num_iterations,
        beta=config.beta,
        epsilon=config.epsilon,
        loss_type=config.loss_type,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
    )
    if trl_common.num_processes() > 1:
        scoring.processes = Processes(trainer.accelerator)

    # 4. Train, then save and register.
    if progress.out:
        found = trl_common.last_checkpoint(run.checkpoints)
        progress.out.keep_until(int(found.name.rpartition("-")[2]) // plan.unit if found else 0)
    trl_common.fit(run, trainer, progress)
    if progress.checks:  # the reference must still be the start version
        progress.checks()
    if progress.out:
        progress.out.write_watch()
        finish(run, config, policy, files, progress.out, start, dataset, scorer, progress.history)


def updates_per_rollout(config: GRPOConfig) -> int:
    return config.num_iterations * (config.rollout_batch_size // config.mini_batch_size)


def as_ppo(config: GRPOConfig) -> PPOConfig:
    """What GRPO shares with PPO, for the classes that both use."""
    return PPOConfig(
        name=config.name,
        rollout_batch_size=config.rollout_batch_size // config.num_generations,
        failure_score=config.failure_score,
        max_unscored=config.max_unscored,
        teacher_wait_minutes=config.teacher_wait_minutes,
        seed=config.seed,
    )


def questions(prompts: list[Prompt], config: GRPOConfig) -> list[list[Prompt]]:
    """For every rollout its distinct prompts."""
    shared = as_ppo(config)
    return [choose_prompts(prompts, number, shared) for number in range(config.num_rollouts)]


def finish(
    run: Run,
    config: GRPOConfig,
    policy: Policy,
    files: VersionFiles,
    out: RunFiles,
    start: t.ModelVersion,
    dataset: t.Dataset,
    scorer: Scorer,
    history: list[dict[str, float]],
) -> None:
    """Write models/rl/NAME with the run's files beside the weights, and register it."""
    base_id = trl_common.name_base(policy, files, start)
    finish_rollouts(
        run,
        "grpo",
        config.name,
        config,
        start,
        base_id,
        lambda folder: save_adapter(policy, trl_common.POLICY, folder),
        out=out,
        dataset=dataset,
        scorer=scorer,
        history=history,
        num_samples=len(history) * config.rollout_batch_size,
    )


if __name__ == "__main__":
    main(train)
