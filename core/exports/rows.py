"""The rows of each export, read from the record. One generator per kind; `RowSource.left_out` counts what a row was refused for.

Invariant: a kind in `FOR_TRAINING` never yields a row of a sample outside the training splits. That is decided here, next to the
query, and nowhere else, so that no format and no caller can get around it. Called by `core.exports.service`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from core.completions import sentences
from core.datasets import to_completion, to_prompt
from core.desk.cases import current_rules
from core.exports.pseudonyms import Pseudonyms
from core.records import TRAINING_SPLITS, Verdict, Vote
from core.scoring import Scorer
from db import tables as t

#: verdicts that say yes or no about a completion as it stands; "minor" says neither and is left out
LABELS = {Verdict.ACCEPTABLE.value: True, Verdict.SERIOUS.value: False, Verdict.UNSAFE.value: False}
#: a mark on a sentence as a step label
STEP_LABELS = {"ok": True, "wrong": False, "unsafe": False}
TRAINING = tuple(split.value for split in TRAINING_SPLITS)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows. Empty means all."""

    dataset: str = ""
    language: str = ""
    since: datetime | None = None

    def narrow(self, query: Any, created_at: Any) -> Any:
        """Add the conditions to a query that has `t.Sample` in it."""
        if self.dataset:
            query = query.join(t.Dataset, t.Dataset.id == t.Sample.dataset_id).where(t.Dataset.name == self.dataset)
        if self.language:
            query = query.where(t.Sample.language == self.language)
        return query.where(created_at >= self.since) if self.since else query


@dataclass(slots=True)
class RowSource:
    """What a generator needs, and what it counts on its way."""

    session: Session
    filter: Filter
    people: Pseudonyms
    scorer: Scorer
    left_out: Counter[str] = field(default_factory=Counter)

    def may_train(self, sample: t.Sample) -> bool:
        """Neither the sample nor any copy of its question, in whatever dataset, is an evaluation item."""
        split: str | None = sample.split
        if split in TRAINING:
            copy = select(t.Sample.split).where(t.Sample.content_hash == sample.content_hash, t.Sample.split.not_in(TRAINING))
            split = self.session.scalar(copy.limit(1))
        if split is None:
            return True
        self.left_out[f"held_out_{split}"] += 1
        return False


def preferences(source: RowSource) -> Iterator[dict[str, Any]]:
    """{prompt, chosen, rejected} as chats, in the conversational form of trl's DPOTrainer. From rewritten answers and imported
    pairs, and from blind votes for one side. The rejected side of a rewritten answer is the answer without its thinking, like
    the chosen one, so that no model learns to leave its thinking away."""
    query = select(t.PreferencePair, t.Sample).join(t.Sample, t.Sample.id == t.PreferencePair.sample_id)
    query = query.where(t.PreferencePair.source != "vote")  # those come below, with who voted and why
    for pair, sample in source.session.execute(source.filter.narrow(query, t.PreferencePair.created_at).order_by(t.PreferencePair.id)):
        if source.may_train(sample):
            yield _pair(sample, pair.chosen, pair.rejected, source=pair.source, source_id=pair.adjudication_id or pair.vote_id or pair.id)
    for vote, pair, sample, left, right in _votes(source):
        if vote.vote in (Vote.LEFT, Vote.RIGHT) and source.may_train(sample):
            chosen, rejected = (left, right) if vote.vote == Vote.LEFT else (right, left)
            if chosen.text.strip() == rejected.text.strip():
                source.left_out["same_text"] += 1
                continue
            yield _pair(sample, chosen.text, rejected.text, source=f"{pair.mode}_vote", source_id=vote.id) | {
                "chosen_completion_id": chosen.id,
                "rejected_completion_id": rejected.id,
                "voter": source.people.of(vote.user_id),
                "side": vote.vote,
                "reasons": vote.reasons,
            }


def kto(source: RowSource) -> Iterator[dict[str, Any]]:
    """{prompt, completion, label} for trl's KTOTrainer: signed verdicts, and votes in which both sides were good or both bad."""
    for row, completion, sample in _signed(source):
        label = LABELS.get(row.verdict or "")
        if label is None:
            source.left_out[f"verdict_{row.verdict}"] += 1
        elif source.may_train(sample):
            yield _labelled(sample, completion, label, source="adjudication", source_id=row.id)
    for vote, pair, sample, left, right in _votes(source):
        if vote.vote in (Vote.TIE, Vote.BOTH_BAD) and source.may_train(sample):
            for completion in (left, right):
                yield _labelled(sample, completion, vote.vote == Vote.TIE, source=f"{pair.mode}_vote", source_id=vote.id)


def steps(source: RowSource) -> Iterator[dict[str, Any]]:
    """{prompt, completions, labels, parts}: each sentence of the thinking, then of the answer, with what a clinician marked it:
    True, False, or null where it was not marked. `marks` keeps the very mark (wrong and unsafe are both False)."""
    for row, completion, sample in _signed(source):
        if not row.marks:
            source.left_out["no_marks"] += 1
        elif source.may_train(sample):
            found: list[tuple[str, str, str | None]] = []
            for part, letter in (("thinking", "t"), ("answer", "a")):
                for number, sentence in enumerate(sentences(getattr(completion, part)), 1):
                    found.append((part, sentence.text, row.marks.get(f"{letter}{number}")))
            yield {
                "prompt": _chat(sample),
                "completions": [text for _, text, _ in found],
                "labels": [STEP_LABELS.get(mark or "") for _, _, mark in found],
                "marks": [mark for _, _, mark in found],
                "parts": [part for part, _, _ in found],
                "sample_id": sample.id,
                "completion_id": completion.id,
                "adjudication_id": row.id,
                "guideline_version": row.guideline_version,
            }


def adjudications(source: RowSource) -> Iterator[dict[str, Any]]:
    """Every signed decision that stands, flat: one column per criterion, lists and marks as JSON-able values."""
    for row, completion, sample in _signed(source):
        conflict = source.session.get_one(t.Conflict, row.conflict_id)
        version = source.session.get(t.ModelVersion, completion.model_version_id) if completion.model_version_id else None
        yield {
            "adjudication_id": row.id,
            "case_id": row.conflict_id,
            "case_kind": conflict.kind,
            "sample_id": sample.id,
            "completion_id": completion.id,
            "model_version": version.name if version else None,
            "language": sample.language,
            "category": sample.category,
            "risk": sample.risk,
            "split": sample.split,
            "question": sample.text,
            "thinking": completion.thinking,
            "answer": completion.answer,
            "rules_value": conflict.rules_value,
            "teacher_value": conflict.teacher_value,
            "gap": conflict.gap,
            "verdict": row.verdict,
            "cannot_judge_reason": row.cannot_judge_reason,
            **{f"criterion_{name}": row.criteria.get(name) for name in ("emergency", "prescription", "reasoning")},
            "marks": row.marks,
            "confidence": row.confidence,
            "note": row.note,
            "revision_reason": row.revision_reason,
            "who_was_right": row.who_was_right,
            "because": row.because,
            "rewritten_answer": row.rewritten_answer,
            "evidence": row.evidence,
            "guideline_version": row.guideline_version,
            "active_s": row.active_s,
            "reviewer": source.people.of(row.user_id),
            "signed_at": row.signed_at.isoformat() if row.signed_at else None,
        }


def conflicts(source: RowSource) -> Iterator[dict[str, Any]]:
    """teacher_conflicts.jsonl in the form that the importer reads back, with the decision beside it where there is one."""
    query = (
        select(t.Conflict, t.Completion, t.Sample)
        .join(t.Completion, t.Completion.id == t.Conflict.completion_id)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
    )
    for conflict, completion, sample in source.session.execute(
        source.filter.narrow(query, t.Conflict.created_at).order_by(t.Conflict.id)
    ).all():
        judgement = source.session.get(t.Judgement, conflict.judgement_id) if conflict.judgement_id else None
        decision = last_signed(source.session, conflict.id)
        yield {
            "messages": sample.messages,
            "completion": completion.text,
            "teacher_score": judgement.teacher_score if judgement else None,
            "safety_flag": judgement.safety_flag if judgement else None,
            "critique": judgement.critique if judgement else "",
            "suggested_answer": judgement.suggested_answer if judgement else None,
            "teacher": judgement.teacher if judgement else None,
            "reference": sample.reference,
            "category": sample.category,
            "risk": sample.risk,
            "language": sample.language,
            "split": sample.split,
            "conflict_kind": conflict.kind,
            "conflict_type": "|".join((conflict.kind, sample.category, sample.language)),
            "gap": conflict.gap,
            "rules_value": conflict.rules_value,
            "teacher_value": conflict.teacher_value,
            "case_id": conflict.id,
            "status": conflict.status,
            "verdict": decision.verdict if decision else None,
            "who_was_right": decision.who_was_right if decision else None,
        }


def inspection(source: RowSource) -> Iterator[dict[str, Any]]:
    """The sample inspection report: each scored output with its rule parts, the teacher, flags, and the teacher's suggested
    answer put through the very same rules ("replayed"): if the suggestion scores no better, the rules or the teacher are wrong."""
    newest = select(func.max(t.Judgement.id)).group_by(t.Judgement.completion_id)
    query = (
        select(t.Completion, t.Sample, t.Judgement)
        .join(t.Sample, t.Sample.id == t.Completion.sample_id)
        .outerjoin(t.Judgement, (t.Judgement.completion_id == t.Completion.id) & t.Judgement.id.in_(newest))
        .where(select(t.RuleScore.id).where(t.RuleScore.completion_id == t.Completion.id).exists())
    )
    for completion, sample, judgement in source.session.execute(
        source.filter.narrow(query, t.Completion.created_at).order_by(t.Completion.id)
    ).all():
        rules = {rule.rule_id: rule for rule in current_rules(source.session, completion.id)}
        reward = source.session.scalar(
            select(t.Reward).where(t.Reward.completion_id == completion.id).order_by(t.Reward.id.desc()).limit(1)
        )
        version = source.session.get(t.ModelVersion, completion.model_version_id) if completion.model_version_id else None
        suggestion = judgement.suggested_answer if judgement else None
        yield {
            "sample_id": sample.id,
            "completion_id": completion.id,
            "model_version": version.name if version else None,
            "language": sample.language,
            "category": sample.category,
            "risk": sample.risk,
            "split": sample.split,
            "question": sample.text,
            "thinking": completion.thinking,
            "answer": completion.answer,
            "finish_reason": completion.finish_reason,
            **{f"rule_{name}": rule.score for name, rule in sorted(rules.items())},
            "unscored_rules": {name: rule.unscored_reason for name, rule in rules.items() if rule.score is None},
            "teacher": judgement.teacher if judgement else None,
            "teacher_score": judgement.teacher_score if judgement else None,
            "teacher_unscored_reason": judgement.unscored_reason if judgement else "not_asked",
            "safety_flag": judgement.safety_flag if judgement else None,
            "critique": judgement.critique if judgement else "",
            "reward": reward.value if reward else None,
            **_decided(source.session, completion.id),
            "suggested_answer": suggestion,
            **{f"suggested_{name}": score for name, score in replay(source.scorer, sample, suggestion).items()},
        }


def _decided(session: Session, completion_id: int) -> dict[str, Any]:
    """The newest signed verdict on an answer, and the passages that its readers attached, each once."""
    query = select(t.Adjudication).join(t.Conflict, t.Conflict.id == t.Adjudication.conflict_id)
    query = query.where(t.Conflict.completion_id == completion_id, t.Adjudication.stage == "signed")
    rows = session.scalars(query.order_by(t.Adjudication.id)).all()
    cited = {one["sha256"]: f"{one['title']} · {one['section']} ({one['date']}): {one['text']}" for row in rows for one in row.evidence}
    last = rows[-1] if rows else None
    return {"verdict": last.verdict if last else None, "reviewer_note": last.note if last else "", "evidence": list(cited.values())}


def replay(scorer: Scorer, sample: t.Sample, suggestion: str | None) -> dict[str, float | None]:
    """The rules' scores of a suggested answer; {} without one. Written by a teacher, so no chain of thought is expected."""
    if not suggestion or not suggestion.strip():
        return {}
    text = t.Completion(sample_id=sample.id, text=suggestion, thinking="", answer=suggestion.strip(), content_hash="")
    scored = scorer.score([to_prompt(sample)], [to_completion(text)], with_teacher=False, chain_expected=False)[0]
    return {rule.rule_id: rule.score for rule in scored.rules}


def last_signed(session: Session, conflict_id: int) -> t.Adjudication | None:
    """The decision that stands."""
    query = select(t.Adjudication).where(t.Adjudication.conflict_id == conflict_id, t.Adjudication.stage == "signed")
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))


def _signed(source: RowSource) -> Iterator[tuple[t.Adjudication, t.Completion, t.Sample]]:
    """Signed decisions that no later row corrects and nobody retracted, oldest first."""
    later = aliased(t.Adjudication)
    query = (
        select(t.Adjudication, t.Completion, t.Sample)
        .join(t.Conflict, t.Conflict.id == t.Adjudication.conflict_id)
        .join(t.Completion, t.Completion.id == t.Conflict.completion_id)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
        .where(t.Adjudication.stage == "signed")
        .where(~select(later.id).where(later.supersedes_id == t.Adjudication.id).exists())
        .where(t.Adjudication.id.not_in(select(t.Retraction.adjudication_id)))
    )
    for row in source.session.execute(source.filter.narrow(query, t.Adjudication.created_at).order_by(t.Adjudication.id)).all():
        yield row[0], row[1], row[2]


def _votes(source: RowSource) -> Iterator[tuple[t.BenchVote, t.BenchPair, t.Sample, t.Completion, t.Completion]]:
    """The vote that counts of each blind pair: the first one with a preference. Open pairs are shown with names and do not count."""
    left, right = aliased(t.Completion), aliased(t.Completion)
    first = select(func.min(t.BenchVote.id)).where(t.BenchVote.vote.is_not(None)).group_by(t.BenchVote.pair_id)
    query = (
        select(t.BenchVote, t.BenchPair, t.Sample, left, right)
        .join(t.BenchPair, t.BenchPair.id == t.BenchVote.pair_id)
        .join(t.Sample, t.Sample.id == t.BenchPair.sample_id)
        .join(left, left.id == t.BenchPair.left_completion_id)
        .join(right, right.id == t.BenchPair.right_completion_id)
        .where(t.BenchPair.mode == "blind", t.BenchPair.status != "void", t.BenchVote.id.in_(first))
    )
    for row in source.session.execute(source.filter.narrow(query, t.BenchVote.created_at).order_by(t.BenchVote.id)).all():
        if row[1].left_with_evidence or row[1].right_with_evidence:  # the prompt of a training row has no passages in it
            source.left_out["with_evidence"] += 1
            continue
        yield row[0], row[1], row[2], row[3], row[4]


def _chat(sample: t.Sample) -> list[dict[str, str]]:
    return [{"role": m["role"], "content": m["content"]} for m in sample.messages]


def _pair(sample: t.Sample, chosen: str, rejected: str, **meta: Any) -> dict[str, Any]:
    return {
        "prompt": _chat(sample),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "sample_id": sample.id,
        "language": sample.language,
        **meta,
    }


def _labelled(sample: t.Sample, completion: t.Completion, label: bool, **meta: Any) -> dict[str, Any]:
    return {
        "prompt": _chat(sample),
        "completion": [{"role": "assistant", "content": completion.text}],
        "label": label,
        "sample_id": sample.id,
        "completion_id": completion.id,
        "language": sample.language,
        **meta,
    }


ROWS: dict[str, Callable[[RowSource], Iterator[dict[str, Any]]]] = {
    "preferences": preferences,
    "kto": kto,
    "steps": steps,
    "adjudications": adjudications,
    "label_studio": adjudications,
    "argilla": adjudications,
    "conflicts": conflicts,
    "inspection": inspection,
}
FOR_TRAINING = frozenset({"preferences", "kto", "steps"})
