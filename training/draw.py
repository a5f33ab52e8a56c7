"""The weekly draw as a job, so that it can be scheduled: what is reviewed this week, and by whom. The work is in core.desk.draw.

A draw that exists already is left as it is and told, so that a schedule and a person do not draw one week twice.
"""

from __future__ import annotations

from dataclasses import asdict

from core.desk.draw import make_draw
from core.jobs.configs_review import DrawConfig
from training.run import Run, main


def run_draw(run: Run) -> None:
    """Draw and say what came out."""
    run.progress("draw", 0, 1)
    drawn = make_draw(run.config(DrawConfig), job_id=run.job_id or None)
    run.result(**asdict(drawn))
    run.progress("draw", 1, 1)
    print(f"{drawn.name}: {sum(drawn.num_by_purpose.values())} cases {drawn.num_by_purpose}, seed {drawn.seed}", flush=True)


if __name__ == "__main__":
    main(run_draw)
