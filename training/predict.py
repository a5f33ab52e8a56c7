"""Let a version answer a file of questions: one row out per row in, with safety notices, rule scores, version and hash.

Rows are appended to predictions.jsonl as they are answered; an attempt that finds some of them there goes on after the last whole
line. predictions.csv is written from it at the end (cells that a spreadsheet would run as a formula are defused).

    python -m training.predict --run-dir DIR      (job kind predict)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.completions import split_completion
from core.errors import UserError
from core.exports.files import write
from core.jobs.configs_evaluation import PredictConfig
from core.models import get_version
from core.prediction import Question, read_questions, result_row
from core.scoring import Scorer, open_scorer
from db import tables as t
from db.engine import read_session
from training.answering import Answerers
from training.run import Run, main


def predict(run: Run) -> None:
    """Answer a file of questions."""
    # 1. Questions, version, scorer; rows of an earlier attempt.
    config = run.config(PredictConfig)
    path = Path(config.path)
    questions = list(read_questions(path if path.is_absolute() else run.home.resolve(config.path), config.column))
    if not questions:
        raise UserError("evaluations.no_questions")
    with read_session() as session:
        version = get_version(session, config.model)
    answerers = Answerers(run.home, [version], config.seed)
    scorer = open_scorer(run.home)
    lines = run.dir / "predictions.jsonl"
    done = keep_whole_lines(lines, {"version_hash": version.content_hash, "version": version.name})

    # 2. Batches: answer, score, append.
    for start in range(done, len(questions), config.batch_size):
        batch = questions[start : start + config.batch_size]
        rows = answer_batch(batch, version, scorer, answerers, config)
        with lines.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        run.progress("answer", start + len(batch), len(questions))
        run.leave_if_stopped()

    # 3. The table.
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    target = run.dir / "predictions.csv"
    num_rows, digest = write(target, rows, "csv")
    run.result(
        file=run.home.relative(target),
        sha256=digest,
        model=version.name,
        content_hash=version.content_hash,
        num_rows=num_rows,
        num_failed=sum(bool(row["error"]) for row in rows),
        num_danger_signs=sum(bool(row["danger_signs"]) for row in rows),
        num_emergency_missing=sum(row["emergency_advised"] == "no" for row in rows),
    )
    print(f"{num_rows} rows, {sum(bool(row['error']) for row in rows)} without an answer: {target}", flush=True)


def keep_whole_lines(path: Path, expected: dict[str, Any]) -> int:
    """Cut off a line that a kill left half written; returns how many whole ones there are.

    Rows of other weights (the version was trained again under its name) are dropped: one file never mixes two models.
    """
    if not path.is_file():
        return 0
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        if any(row[name] != value for name, value in expected.items()):
            kept.clear()
            break
        kept.append(line)
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return len(kept)


def answer_batch(
    batch: list[Question], version: t.ModelVersion, scorer: Scorer, answerers: Answerers, config: PredictConfig
) -> list[dict[str, Any]]:
    """Rows of the batch, in order. A question that is too long for the model is a row with that error."""
    asked = [(q, q.prompt) for q in batch if q.prompt is not None]
    errors: dict[int, str] = {}
    try:
        written = answerers.answer(
            version.name,
            [p.messages for _, p in asked],
            [q.row for q, _ in asked],
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
        )
    except UserError as error:
        if error.code != "bench.too_long" or len(batch) == 1:
            if error.code != "bench.too_long":
                raise
            errors[batch[0].row], asked, written = "question_too_long", [], []
        else:  # one of them is: ask them one by one
            return [row for question in batch for row in answer_batch([question], version, scorer, answerers, config)]
    completions = {q.row: split_completion(a.text, a.finish_reason) for (q, _), a in zip(asked, written, strict=True)}
    scored = scorer.score([p for _, p in asked], list(completions.values()), with_teacher=config.with_teacher)
    by_row = {q.row: one for (q, _), one in zip(asked, scored, strict=True)}
    return [result_row(q, version, scorer, completions.get(q.row), by_row.get(q.row), errors.get(q.row, "")) for q in batch]


if __name__ == "__main__":
    main(predict)
