"""Put a question set through two versions, each with or without evidence, and list what the second one lost, worst first.

Answers are appended to first.jsonl and second.jsonl as they come, so an attempt after a kill asks only what is missing. A question that
a side cannot answer (too long for its context) is a row with that error and counts as silence, which helps nobody with a danger
sign. The report (shape: core.bench_batches) is a database row; rows.jsonl holds every question with both answers. Outcomes are those of
evaluations and of the harm gate.

    python -m training.compare --run-dir DIR      (job kind compare)
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, select

from core.bench_batches import CHANGES, LOST, WON, BatchReport, BatchSlice, SideReport
from core.bench_sides import find_evidence, messages_with
from core.bench_slices import MIN_SLICE, Group, groups_of, members
from core.completions import split_completion
from core.datasets import get_dataset, to_prompt
from core.errors import NotFound, UserError
from core.exports.files import write
from core.i18n import translate
from core.jobs.configs_bench import CompareConfig
from core.models import get_version
from core.notices import notices_of
from core.outcomes import OUTCOMES, outcomes_of
from core.records import Completion, Prompt
from core.rules import danger_signs
from core.scoring import Scorer, open_scorer
from core.statistics import upper_bound
from db import tables as t
from db.engine import read_session, write_session
from training.answering import Answerers
from training.evaluate_measure import GRAVITY, Measured, difference, paired_outcome
from training.predict import keep_whole_lines
from training.run import Run, main

SHAPE = 1
WORDS = {True: "yes", False: "no", None: "not_known"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the groups it belongs to."""

    prompt: Prompt
    split: str
    groups: tuple[Group, ...]
    danger_signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SideRun:
    """One side as it is run."""

    key: str
    version: t.ModelVersion
    with_evidence: bool


def compare(run: Run) -> None:
    """Compare two versions on a question set."""
    # 1. Versions, questions, scorer.
    config = run.config(CompareConfig)
    with read_session() as session:
        pair = [get_version(session, name) for name in (config.first, config.second)]
        job = session.get(t.Job, run.job_id) if run.job_id else None
        created_by = job.created_by if job else None
    sides = [
        SideRun("first", pair[0], config.first_with_evidence),
        SideRun("second", pair[1], config.second_with_evidence),
    ]
    scorer = open_scorer(run.home)
    asked, dataset_hash = load_questions(config, scorer)
    answerers = Answerers(run.home, list({v.name: v for v in pair}.values()), config.seed)

    # 2. Each side answers every question; what an earlier attempt answered stays.
    answers = [answer_all(run, config, side, asked, answerers, number * len(asked)) for number, side in enumerate(sides)]

    # 3. Scores and outcomes, by the rules and the reward of evaluations.
    measured = [measure(run, config, scorer, asked, of_side, number * len(asked)) for number, of_side in enumerate(answers)]

    # 4. Rows, worst first; the report; the database.
    rows = [row_of(i, asked, answers, measured, sides, scorer) for i in range(len(asked))]
    rows.sort(key=lambda row: (CHANGES.index(row["change"]), row["reward_change"] if row["reward_change"] is not None else 0.0))
    for number, row in enumerate(rows, 1):
        row["row"] = number
    target = run.dir / "rows.jsonl"
    _, digest = write(target, rows, "jsonl")
    report = report_of(config, asked, answers, measured, rows, sides, scorer, dataset_hash)
    batch_id = store(run, config, report, target, digest, sides, created_by)
    lost = sum(report["changes"][c] for c in LOST)
    run.result(batch_id=batch_id, num_rows=len(rows), num_lost=lost, num_lost_emergency=report["changes"]["lost_emergency"])
    print(f"{len(rows)} questions: {lost} lost, {sum(report['changes'][c] for c in WON)} won", flush=True)


def load_questions(config: CompareConfig, scorer: Scorer) -> tuple[list[Asked], str]:
    """The held-out questions that pass the filter, in id order, and the dataset's hash. Raises NotFound("bench.no_questions")."""
    with read_session() as session:
        dataset = get_dataset(session, config.dataset)
        query = select(t.Sample).where(t.Sample.dataset_id == dataset.id, t.Sample.split.in_(config.splits)).order_by(t.Sample.id)
        query = query.where(t.Sample.language == config.language) if config.language else query
        rows = list(session.scalars(query.where(t.Sample.risk == config.risk) if config.risk else query))
        if not rows:
            raise NotFound("bench.no_questions")
        if config.num_samples and config.num_samples < len(rows):
            rows = sorted(random.Random(config.seed).sample(rows, config.num_samples), key=lambda row: row.id)
        found = []
        for row in rows:
            prompt = to_prompt(row)
            signs = danger_signs(prompt, scorer.lexicons)
            named = tuple(sorted({m.term for m in signs.present} | set(signs.earlier)))
            found.append(Asked(prompt, row.split, groups_of(prompt, row.meta, scorer.lexicons), named))
    return found, dataset.content_hash


def answer_all(
    run: Run, config: CompareConfig, side: SideRun, asked: Sequence[Asked], answerers: Answerers, done_before: int
) -> list[dict[str, Any]]:
    """{sample_id, text, finish_reason, error, evidence} per question, in order."""
    lines = run.dir / f"{side.key}.jsonl"
    done = keep_whole_lines(lines, {"version": side.version.name, "version_hash": side.version.content_hash})
    for start in range(done, len(asked), config.batch_size):
        batch = [one.prompt for one in asked[start : start + config.batch_size]]
        evidence = [find_evidence(p) for p in batch] if side.with_evidence else [None] * len(batch)
        found = answer_batch(batch, evidence, side.version.name, answerers, config)
        stamp = {"version": side.version.name, "version_hash": side.version.content_hash}
        with lines.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(one | stamp, ensure_ascii=False) + "\n" for one in found)
        run.progress("answer", done_before + start + len(batch), 2 * len(asked))
        run.leave_if_stopped()
    return [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]


def answer_batch(
    batch: Sequence[Prompt], evidence: Sequence[list[dict[str, Any]] | None], version: str, answerers: Answerers, config: CompareConfig
) -> list[dict[str, Any]]:
    """Answers of the batch, in order. A question that is too long for the model is an empty answer with that error."""
    chats = [messages_with(p, found) for p, found in zip(batch, evidence, strict=True)]  # with every passage that was found
    try:
        written = answerers.answer(
            version,
            chats,
            [p.sample_id or 0 for p in batch],
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
        )
    except UserError as error:
        if error.code != "bench.too_long":
            raise
        if len(batch) == 1 and len(evidence[0] or ()) > 1:  # no room for all passages: half of them, as side by side
            return answer_batch(batch, [(evidence[0] or [])[: len(evidence[0] or []) // 2]], version, answerers, config)
        if len(batch) == 1:
            return [_answered(batch[0], "", "length", evidence[0], "question_too_long")]
        # one of them is: ask them one by one
        alone = zip(batch, evidence, strict=True)
        return [row for prompt, found in alone for row in answer_batch([prompt], [found], version, answerers, config)]
    return [_answered(p, a.text, a.finish_reason, found, "") for p, a, found in zip(batch, written, evidence, strict=True)]


def _answered(prompt: Prompt, text: str, finish_reason: str, evidence: list[dict[str, Any]] | None, error: str) -> dict[str, Any]:
    return {"sample_id": prompt.sample_id, "text": text, "finish_reason": finish_reason, "error": error, "evidence": evidence}


def measure(
    run: Run, config: CompareConfig, scorer: Scorer, asked: Sequence[Asked], answers: Sequence[dict[str, Any]], done_before: int
) -> list[Measured]:
    """Scores and outcomes of one side. Nothing is stored: these are not evaluations."""
    found: list[Measured] = []
    for start in range(0, len(asked), config.batch_size):
        prompts = [one.prompt for one in asked[start : start + config.batch_size]]
        completions = [completion_of(a) for a in answers[start : start + config.batch_size]]
        scored = scorer.score(prompts, completions, with_teacher=config.with_teacher)
        found += [Measured(one, outcomes_of(p, one, scorer.lexicons)) for p, one in zip(prompts, scored, strict=True)]
        run.progress("score", done_before + start + len(prompts), 2 * len(asked))
        run.leave_if_stopped()
    return found


def completion_of(answer: dict[str, Any]) -> Completion:
    return split_completion(answer["text"], answer["finish_reason"])


def change_of(before: Measured, after: Measured) -> str:
    """What became of a question: the gravest outcome that was lost, else the gravest that was won, else "same"."""
    for word, passed, failed in (("lost", before, after), ("won", after, before)):
        for name in GRAVITY:
            if passed.outcomes[name] is True and failed.outcomes[name] is False:
                return f"{word}_{name}"
    return "same"


def row_of(
    i: int,
    asked: Sequence[Asked],
    answers: Sequence[Sequence[dict[str, Any]]],
    measured: Sequence[Sequence[Measured]],
    sides: Sequence[SideRun],
    scorer: Scorer,
) -> dict[str, Any]:
    """One question with both answers, flat: columns of the older side begin with `first_`. A number that was not scored is None."""
    one = asked[i]
    language = one.prompt.language.value
    before, after = measured[0][i], measured[1][i]
    change = None if before.reward is None or after.reward is None else round(after.reward - before.reward, 6)
    row: dict[str, Any] = {
        "row": i + 1, "change": change_of(before, after), "reward_change": change,
        "question": one.prompt.text, "danger_signs": ", ".join(one.danger_signs),
        "sample_id": one.prompt.sample_id, "split": one.split, "category": one.prompt.category, "language": language,
        "risk": one.prompt.risk.value, "slices": [f"{by}:{value}" for by, value in one.groups],
    }  # fmt: skip
    for side, of_side, scores in zip(sides, answers, measured, strict=True):
        answer, m, completion = of_side[i], scores[i], completion_of(of_side[i])
        kinds = [n.kind for n in notices_of(completion, m.scored.rules)]
        notices = [translate(f"bench.notice_{kind}", language) for kind in kinds]
        judged = m.scored.judgement
        values = {
            "version": side.version.name, "version_hash": side.version.content_hash, "with_evidence": side.with_evidence,
            "answer": completion.answer, "thinking": completion.thinking, "notices": "; ".join(notices), "notice_kinds": kinds,
            **{name: WORDS[m.outcomes[name]] for name in OUTCOMES},
            "reward": m.reward, "teacher_score": judged.teacher_score if judged else None,
            "unscored_reason": m.scored.reward.unscored_reason or "", "finish_reason": answer["finish_reason"], "error": answer["error"],
            "evidence": [f"{p['title']} · {p['section']} #{p['content_hash'][:8]}" for p in answer["evidence"] or []],
            "text": answer["text"],
        }  # fmt: skip
        row |= {f"{side.key}_{name}": value for name, value in values.items()}
    toy = f" {translate('common.toy_notice', language)}" if any(side.version.is_toy for side in sides) else ""
    return row | {"ai_label": translate("common.ai_notice", language) + toy, "lexicon_version": scorer.lexicons.version}


def report_of(
    config: CompareConfig,
    asked: Sequence[Asked],
    answers: Sequence[Sequence[dict[str, Any]]],
    measured: Sequence[Sequence[Measured]],
    rows: Sequence[dict[str, Any]],
    sides: Sequence[SideRun],
    scorer: Scorer,
    dataset_hash: str,
) -> BatchReport:
    """The whole report; see core.bench_batches for its fields."""
    before, after = measured
    everything = list(range(len(asked)))
    rng = np.random.default_rng(config.seed)
    red = sum(bool(one.danger_signs) for one in asked)
    changes = {name: sum(row["change"] == name for row in rows) for name in CHANGES}
    found = next((e for of_side in answers for a in of_side for e in a["evidence"] or []), None)
    return {
        "shape": SHAPE,
        "first": side_report(sides[0], answers[0]),
        "second": side_report(sides[1], answers[1]),
        "num_rows": len(rows),
        "num_red_flag": red,
        "changes": changes,
        "outcomes": [dict(paired_outcome(name, "", everything, before, after)) for name in OUTCOMES],
        "difference": dict(difference(everything, before, after, rng)),
        "slices": slices(asked, before, after, rng),
        "bound": upper_bound(changes["lost_emergency"], red) if red else 1.0,
        "decoding": {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens, "seed": config.seed},
        "dataset": config.dataset,
        "dataset_hash": dataset_hash,
        "splits": list(dict.fromkeys(config.splits)),
        "filter": {"language": config.language, "risk": config.risk, "num_samples": str(config.num_samples)},
        "reward_config": scorer.config.version,
        "lexicon_version": scorer.lexicons.version,
        "teacher": scorer.teacher.name if config.with_teacher else "",
        "teacher_is_offline": config.with_teacher and scorer.teacher.is_offline,
        "index": f"{found['index_name']} {found['index_version']}" if found else "",
    }


def side_report(side: SideRun, answers: Sequence[dict[str, Any]]) -> SideReport:
    v = side.version
    silent = sum(not completion_of(a).answer.strip() for a in answers)
    return {
        "name": v.name, "content_hash": v.content_hash, "kind": v.kind, "is_toy": v.is_toy, "with_evidence": side.with_evidence,
        "num_unanswered": silent,
    }  # fmt: skip


def slices(asked: Sequence[Asked], before: Sequence[Measured], after: Sequence[Measured], rng: np.random.Generator) -> list[BatchSlice]:
    """Every group: rows lost and won always, the difference in reward from MIN_SLICE pairs on."""
    found: list[BatchSlice] = []
    for (by, value), rows in members([one.groups for one in asked]).items():
        changes = [change_of(before[i], after[i]) for i in rows]
        known = sum(before[i].reward is not None and after[i].reward is not None for i in rows)
        d = difference(rows, before, after, rng) if known >= MIN_SLICE else None
        found.append(
            {
                "by": by, "value": value, "n": len(rows), "difference": d["difference"] if d else None,
                "ci_low": d["ci_low"] if d else None, "ci_high": d["ci_high"] if d else None,
                "num_lost": sum(c in LOST for c in changes), "num_won": sum(c in WON for c in changes),
            }
        )  # fmt: skip
    return found


def store(
    run: Run, config: CompareConfig, report: BatchReport, target: Path, digest: str, sides: Sequence[SideRun], created_by: int | None
) -> int:
    """Store the report; what an earlier attempt of the same job stored is replaced. Returns its id."""
    with write_session() as session:
        if run.job_id:
            session.execute(delete(t.BenchBatch).where(t.BenchBatch.job_id == run.job_id))
        row = t.BenchBatch(
            name=config.name,
            first_version_id=sides[0].version.id,
            second_version_id=sides[1].version.id,
            first_with_evidence=sides[0].with_evidence,
            second_with_evidence=sides[1].with_evidence,
            rows_path=run.home.relative(target),
            rows_sha256=digest,
            report=dict(report),
            job_id=run.job_id or None,
            created_by=created_by,
        )
        session.add(row)
        session.flush()
        return row.id


if __name__ == "__main__":
    main(compare)
