"""A model version answers the prompts of a split; the completions are stored in batches as they come.

Resumable without a checkpoint: what is stored under this job is not answered again. A prompt's randomness hangs on its sample
id and the seed, so a resumed run gives the answers that an uninterrupted one would have given.

    python -m training.sample --run-dir DIR      (job kind sample)
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.completions import split_completion
from core.datasets import load_prompts, store_completions
from core.jobs.configs import SampleConfig
from core.models import get_version
from core.policy import load_version
from core.records import Prompt
from db import tables as t
from db.engine import read_session, write_session
from training.causal import num_parameters, prepare
from training.run import Run, main


def sample(run: Run) -> None:
    """Let a model version answer the prompts of a split."""
    config = run.config(SampleConfig)
    with read_session() as session:
        version = get_version(session, config.model)
        prompts = load_prompts(session, config.dataset, config.split, limit=config.num_samples, seed=config.seed)
        answered = answered_before(session, version.id, run.job_id, config, prompts)
        policy, adapter = load_version(run.home, session, version)
    prepare(run.home, config.seed, num_parameters(policy.model))
    open_prompts = [p for p in prompts if p.sample_id not in answered]
    if answered:
        print(f"{len(answered)} of {len(prompts)} prompts were answered before; going on with the rest", flush=True)

    decoding = decoding_of(config)
    lengths: list[int] = []
    num_cut = 0
    for start in range(0, len(open_prompts), config.batch_size):
        batch = open_prompts[start : start + config.batch_size]
        generated = policy.generate(
            [p.messages for p in batch],
            adapter=adapter,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            batch_size=config.batch_size,
            row_keys=[p.sample_id or 0 for p in batch],
        )
        pairs = [(p, split_completion(g.text, g.finish_reason)) for p, g in zip(batch, generated, strict=True)]
        with write_session() as write:
            store_completions(write, pairs, model_version_id=version.id, source="sampled", decoding=decoding, job_id=run.job_id or None)
        lengths += [g.num_tokens for g in generated]
        num_cut += sum(g.finish_reason == "length" for g in generated)
        done = len(answered) + start + len(batch)
        run.log(done, **{"completions/mean_length": sum(lengths) / len(lengths), "completions/clipped_ratio": num_cut / len(lengths)})
        run.progress("sample", done, len(prompts))
        run.leave_if_stopped()  # a batch is stored: nothing is lost
    run.result(version=config.model, dataset=config.dataset, split=config.split, num_completions=len(prompts), num_clipped=num_cut)


def answered_before(session: Session, version_id: int, job_id: int, config: SampleConfig, prompts: list[Prompt]) -> set[int]:
    """Sample ids with a completion of this version from this very job (an earlier attempt); none for a script run by hand."""
    if not job_id:
        return set()
    query = select(t.Completion.sample_id).where(t.Completion.model_version_id == version_id, t.Completion.job_id == job_id)
    return set(session.scalars(query)) & {p.sample_id for p in prompts if p.sample_id is not None}


def decoding_of(config: SampleConfig) -> dict[str, float | int]:
    """The decoding as stored with every completion."""
    return {"temperature": config.temperature, "top_p": 1.0, "max_new_tokens": config.max_new_tokens, "seed": config.seed}


if __name__ == "__main__":
    main(sample)
