"""The words of a release package: model card in both languages, the pipeline that made it, the reward rules, the teacher's judgements.

Everything is generated from rows and manifests; what is not known is said to be unknown, never filled in. Called by core.release.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core import reward_configs
from core.errors import UserError
from core.evaluation import Comparison, EvaluationReport, name_in
from core.i18n import error_text, translate
from db import tables as t

#: config fields that pin what was drawn at random
SEEDS = ("seed", "temperature", "max_new_tokens")
#: regressions that a card lists in full; the report has them all
SHOWN_REGRESSIONS = 20


def reward_rules(version: t.ModelVersion) -> str:
    """The rules of the reward config that the version was trained with; the one in force when it does not say."""
    used = version.manifest.get("reward_config")
    try:
        return reward_configs.rules_markdown(str(used) if used else None)
    except UserError as error:
        return f"# Reward rules\n\nReward config {used}: {error_text(error, 'en')}\n"


def model_card(
    about: dict[str, Any], chain: Sequence[t.ModelVersion], evaluation: t.Evaluation | None, report: EvaluationReport | None
) -> str:
    """The card, Chinese first; the front matter is what model hubs read."""
    front = f"---\nlibrary_name: peft\nbase_model: {about['base']['name']}\nlanguage: [zh, en]\ntags: [medical, lora, rlhf]\n---\n\n"
    return front + "\n\n---\n\n".join(_card(lang, about, chain, evaluation, report) for lang in ("zh", "en")) + "\n"


def _card(
    lang: str, about: dict[str, Any], chain: Sequence[t.ModelVersion], evaluation: t.Evaluation | None, report: EvaluationReport | None
) -> str:
    def word(key: str, **params: Any) -> str:
        return translate(f"release.card_{key}", lang, **params)

    version = about["version"]
    lines = [f"# {about['name']}", "", f"> {word('ai_label')}", ""]
    if version["is_toy"]:
        lines += [f"> **{word('toy')}**", ""]
    lines += [
        f"- {word('version')}: {version['name']} · sha256 `{version['content_hash']}`",
        f"- {word('lineage')}: {' ← '.join(v.name for v in chain)}",
        f"- {word('base')}: {about['base']['name']} · sha256 `{about['base']['content_hash'] or '–'}`",
        f"- {word('made')}: {about['created_at']}",
        *("", f"## {word('use')}", "", word("use_text"), "", f"## {word('limits')}", "", word("limits_text")),
        *("", f"## {word('data')}", ""),
        *[f"- {v.name}: {_dataset(v, word('unknown'))}" for v in chain if v.kind != "external"],
        *("", f"## {word('training')}", ""),
        f"- {word('reward')}: {version['reward_config'] or word('unknown')} (reward_rules.md)",
        f"- {word('drift')}: {version['kl'] if version['kl'] is not None else word('unknown')} (kl_metrics.json)",
        *("", f"## {word('metrics')}", ""),
    ]
    if evaluation is None or report is None:
        return "\n".join([*lines, word("not_evaluated"), "", f"## {word('regressions')}", "", word("not_evaluated")])
    teacher = report["teacher"] + (f" ({word('offline')})" if report["teacher_is_offline"] else "")
    lines += [word("measured", id=evaluation.id, dataset=report["dataset"], split=report["split"], teacher=teacher or "–"), ""]
    lines += [f"| {word('version')} | n | {word('mean')} | 95 % |", "|---|---|---|---|"]
    for name, one in report["versions"].items():
        lines.append(f"| {name} | {one['n']} | {_number(one['mean'])} | {_number(one['ci_low'])} – {_number(one['ci_high'])} |")
    for c in report["comparisons"]:
        text = word("difference", candidate=c["candidate"], baseline=report["baseline"])
        lines += ["", f"{text}: {_number(c['difference'])} ({_number(c['ci_low'])} – {_number(c['ci_high'])}, n={c['n']})"]
    lines += ["", f"## {word('regressions')}", ""]
    measured_as = name_in(report, chain[0]) or version["name"]
    lines += _regressions(report, measured_as, word("no_regressions"), word("regression"), word("not_compared"))
    return "\n".join(lines)


def _regressions(report: EvaluationReport, name: str, none: str, what: str, not_compared: str) -> list[str]:
    comparison: Comparison | None = next((c for c in report["comparisons"] if c["candidate"] == name), None)
    if comparison is None:
        return [not_compared]
    lost = comparison["emergency_regressions"]
    more = [f"- … +{len(lost) - SHOWN_REGRESSIONS}"] if len(lost) > SHOWN_REGRESSIONS else []
    return [f"- {what} · sample {i}" for i in lost[:SHOWN_REGRESSIONS]] + more or [none]


def evaluation_markdown(name: str, report: EvaluationReport | None) -> str:
    """A short table for an evaluation whose own Markdown is gone; the JSON beside it is complete."""
    lines = [f"# {name}", "", "| version | n | mean reward | 95 % |", "|---|---|---|---|"]
    for version, one in (report["versions"] if report else {}).items():
        lines.append(f"| {version} | {one['n']} | {_number(one['mean'])} | {_number(one['ci_low'])} – {_number(one['ci_high'])} |")
    return "\n".join(lines) + "\n"


def pipeline(session: Session, chain: Sequence[t.ModelVersion]) -> str:
    """rl_pipeline.md: from the base up, which job made each version, with which config, command, seed and data."""
    lines = ["# RL pipeline / 强化学习流程", "", "Generated from the job rows and manifests. 由任务记录与清单自动生成。", ""]
    lines += ["```", " -> ".join(v.name for v in reversed(chain)), "```", ""]
    for number, version in enumerate(reversed(chain), start=1):
        lines += [f"## {number}. {version.name} ({version.kind})", "", f"- weights sha256: `{version.content_hash or 'not recorded'}`"]
        lines.append(f"- data: {_dataset(version, 'not recorded')}")
        for key in ("reward_config", "teacher", "parent", "base", "num_trainable"):
            if (value := version.manifest.get(key)) not in (None, ""):
                lines.append(f"- {key}: {json.dumps(value, ensure_ascii=False)}")
        job = session.get(t.Job, version.job_id) if version.job_id else None
        lines += _job_lines(job, version)
    names = [v.name for v in chain]
    measured = [
        row
        for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(200))
        if set(names) & set(row.report.get("versions", {}))
    ]
    lines += ["## Evaluations / 评测", ""]
    for row in measured:
        report = row.report
        where = f"{report.get('dataset', '?')}/{report.get('split', '?')}, data sha256 `{report.get('dataset_hash', '')[:16]}`"
        how = f"decoding {json.dumps(report.get('decoding', {}))}, job {row.job_id or '–'}"
        lines.append(f"- {row.id} {row.name}: {', '.join(report.get('versions', {}))} on {where}, {how}")
    return "\n".join([*lines, "" if measured else "none", ""])


def _job_lines(job: t.Job | None, version: t.ModelVersion) -> list[str]:
    config = job.config if job else version.manifest.get("config")
    lines = []
    if job is not None:
        took = f"{(job.finished_at - job.started_at).total_seconds():.0f} s" if job.started_at and job.finished_at else "not finished"
        lines += [f"- job {job.id} ({job.kind}), attempt {job.attempt} of {job.max_attempts}, {job.status}, {took}"]
        lines += [f"- command: `{' '.join(_portable(str(part)) for part in job.command)}`"] if job.command else []
    else:
        lines.append("- job: started by hand or not recorded")
    if config:
        seeds = {key: config[key] for key in SEEDS if key in config}
        lines += [f"- seeds and sampling: {json.dumps(seeds)}", "", "```json", json.dumps(config, ensure_ascii=False, indent=1), "```"]
    return [*lines, ""]


def judgements(session: Session, version: t.ModelVersion) -> Iterator[dict[str, Any]]:
    """What the teacher said about this version's answers, and in the job that made it: one dict per judgement."""
    about = or_(t.Completion.model_version_id == version.id, t.Judgement.job_id == (version.job_id or -1))
    query = (
        select(t.Judgement, t.Completion.text, t.Sample.messages)
        .join(t.Completion, t.Completion.id == t.Judgement.completion_id)
        .join(t.Sample, t.Sample.id == t.Completion.sample_id)
        .where(about)
        .order_by(t.Judgement.id)
    )
    for row, text, messages in session.execute(query):
        yield {
            "messages": messages,
            "completion": text,
            **{name: getattr(row, name) for name in ("teacher", "rubric_version", "teacher_score", "safety_flag", "critique")},
            **{name: getattr(row, name) for name in ("suggested_answer", "unscored_reason", "is_offline")},
            "created_at": row.created_at.isoformat(),
        }


def _dataset(version: t.ModelVersion, unknown: str) -> str:
    data = version.manifest.get("dataset")
    if not isinstance(data, dict):
        return unknown
    return f"{data.get('name', '?')} · sha256 `{data.get('content_hash', '')}`"


def _portable(part: str) -> str:
    """A command without this machine's folders: where the program and the data lay is nobody's business."""
    return part.rsplit("/", 1)[-1] if part.startswith("/") else part


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
