"""Calibrate "unknown": search judged questions with and without their right passages, fit, measure on other questions, store.

Every question is searched twice, as it is and with the passages of its right documents hidden; one half of the questions fits
the function and chooses the threshold, the other half says what it does. Put in force only when the second half allows it.

    python -m training.calibrate_ask --run-dir DIR        (config.json: core.jobs.configs_ask.CalibrateAskConfig)
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from core.errors import UserError
from core.jobs.configs_ask import CalibrateAskConfig
from core.retrieval.calibration import Signs, fit, pairs_of, rates
from core.retrieval.judged import read_beir
from core.search_plans import set_calibration
from core.searching import Searcher, open_searcher
from core.settings import ROOT
from training.run import Run, main

SHIPPED = ROOT / "assets" / "demo"
#: fewer questions than this on either side say nothing
MIN_QUESTIONS = 10
STRIDE = 25


def run_calibrate_ask(run: Run) -> None:
    """Fit, measure, store, and say all of it in the result."""
    config = run.config(CalibrateAskConfig)
    folder = run.home.root / Path(config.folder).expanduser() if config.folder else SHIPPED / config.index
    searcher = open_searcher(config.index)
    judged = judged_here(searcher, folder, config.limit)
    halves: tuple[list[tuple[str, set[int]]], ...] = ([], [])
    for text, right in judged:
        halves[hashlib.sha256(text.encode()).digest()[0] % 2].append((text, right))
    if min(map(len, halves)) < MIN_QUESTIONS:
        raise UserError("ask.too_few_judged", num=len(judged), needed=4 * MIN_QUESTIONS, index=config.index)
    fitted, held_out = (looked_at(run, searcher, half, sum(map(len, halves[:i])), len(judged)) for i, half in enumerate(halves))
    wanted = config.max_false_answer
    plan = replace(searcher.plan, min_support=None).to_json()
    calibration = fit(*fitted, max_false_answer=wanted, set=folder.name, index_version=searcher.shown.version, plan=plan)
    measured = rates(calibration, *held_out)
    curve = [asdict(rates(fit(*fitted, max_false_answer=share), *held_out)) for share in (0.05, 0.1, 0.2, 0.3, 0.5)]
    is_good = measured.false_unknown <= config.max_false_unknown
    if is_good:
        kept = replace(calibration, about={**calibration.about, "max_false_answer": wanted, "rates": asdict(measured)})
        said = sentence(measured.false_answer, measured.false_unknown)
        reason = f"calibrated on {len(halves[0])} questions of {folder.name}; on {measured.num} others {said}"
        set_calibration(config.index, kept, reason=reason, by=None)
    run.result(
        index=config.index, set=folder.name, is_in_force=is_good, threshold=calibration.threshold, rates=asdict(measured), curve=curve
    )


def judged_here(searcher: Searcher, folder: Path, limit: int) -> list[tuple[str, set[int]]]:
    """Questions with the chunk numbers of their right documents, as far as the index has them."""
    numbers: dict[str, set[int]] = {}
    for number in searcher.index.numbers:
        numbers.setdefault(searcher.index.chunk(number).file, set()).add(number)
    found = []
    for question in read_beir(folder, limit=limit).questions:
        right = set[int]().union(*(numbers.get(file, set()) for file in question.relevant))
        if right:
            found.append((question.text, right))
    return found


def looked_at(
    run: Run, searcher: Searcher, questions: list[tuple[str, set[int]]], done: int, total: int
) -> tuple[list[Signs], list[Signs]]:
    """The signs of each question with and without its passages."""
    present: list[Signs] = []
    absent: list[Signs] = []
    for start in range(0, len(questions), STRIDE):
        run.leave_if_stopped()  # nothing is lost by leaving: looking starts anew
        there, gone = pairs_of(searcher.retriever, questions[start : start + STRIDE])
        present += there
        absent += gone
        run.progress("search", done + len(present), total)
    return present, absent


def sentence(false_answer: float, false_unknown: float) -> str:
    """The two rates as they stand in the reason."""
    return f"{false_answer:.1%} of the unanswerable are answered and {false_unknown:.1%} of the answerable are called unknown"


if __name__ == "__main__":
    main(run_calibrate_ask)
