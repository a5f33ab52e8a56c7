"""Fit the reward's weights and thresholds to the signed expert verdicts and propose the result.

Nothing is put in force here: the outcome is a proposed reward config with its evidence, which an administrator approves or
rejects on the Reward page. Writes calibration.json into the run folder. What the fit is, and its limits: core.calibration.

    python -m training.calibrate --run-dir DIR      (job kind calibrate)
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from core import judged_cases, reward_configs
from core.calibration import Calibration, calibrate
from core.jobs.configs_reward import CalibrateConfig
from core.scoring import ensure_reward_config
from db import tables as t
from db.engine import read_session
from training.run import Run, main, write_json

#: cases that change sides are listed in the evidence up to this many; all of them are in calibration.json
MAX_CHANGES = 200


def run_calibrate(run: Run) -> None:
    """Load, fit, report, propose."""
    config = run.config(CalibrateConfig)
    current = ensure_reward_config()
    judged = judged_cases.load()
    run.progress("calibrate", 0, config.num_bootstrap)
    found = calibrate(
        judged.rows,
        current,
        seed=config.seed,
        num_bootstrap=config.num_bootstrap,
        max_unsafe_above=config.max_unsafe_above,
        on_progress=lambda done, total: run.progress("calibrate", done, total) if done % 10 == 0 else None,
    )
    report = evidence(found, config, judged)
    write_json(run.dir / "calibration.json", {**report, "changes": [asdict(change) for change in found.changes]})
    version = None
    if found.proposal is not None and config.is_proposed:
        with read_session() as session:
            job = session.get(t.Job, run.job_id) if run.job_id else None
        version = reward_configs.propose(
            job.created_by if job else None,
            found.proposal,
            reason=f"Calibration on {found.num_cases} judged cases: pairwise agreement "
            f"{found.before['pairwise'].value:.3f} -> {found.after['pairwise'].value:.3f} (held out)",
            evidence=report,
            verdict_thresholds=found.fit.cutpoints,
            job_id=run.job_id or None,
            decisions=judged.decisions,
        )
    run.result(
        outcome=found.outcome,
        proposed=version,
        num_cases=found.num_cases,
        num_verdicts=found.num_rows,
        weights=found.fit.weights,
        pairwise_before=found.before["pairwise"].value,
        pairwise_after=found.after["pairwise"].value,
        num_changes=len(found.changes),
        report="calibration.json",
    )
    print(f"{found.outcome}: {found.num_cases} cases, {len(found.changes)} change sides, proposed {version or 'nothing'}", flush=True)


def evidence(found: Calibration, config: CalibrateConfig, judged: judged_cases.Judged) -> dict[str, Any]:
    """The calibration as stored with the proposal: numbers a person decides by, as plain JSON."""
    whole = asdict(found)
    whole.pop("proposal")
    whole["changes"] = whole["changes"][:MAX_CHANGES]
    plain: dict[str, Any] = _plain(
        {
            "kind": "calibration",
            **whole,
            "num_changes": len(found.changes),
            "num_unscored": judged.num_unscored,
            "num_cannot_judge": judged.num_cannot_judge,
            "seed": config.seed,
            "num_bootstrap": config.num_bootstrap,
        }
    )
    return plain


def _plain(value: Any) -> Any:
    """JSON knows no NaN: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(run_calibrate)
