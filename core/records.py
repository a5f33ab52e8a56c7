"""The words of the domain as immutable records and closed lists.

Pure: no input/output, no framework. Every other module speaks in these types; the tables in `db.tables` store them.
Scores lie in [0, 1] unless a docstring says otherwise. "Unscored" is `None` plus a reason, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    CLINICIAN = "clinician"
    PRODUCT = "product"
    ENGINEER = "engineer"
    ADMIN = "admin"


class Language(StrEnum):
    EN = "en"
    ZH = "zh"


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Split(StrEnum):
    TRAIN = "train"
    DEV = "dev"
    TEST = "test"
    GOLD = "gold"
    RED_TEAM = "red_team"


#: Splits that may shape a model's weights. Everything else is evaluation only and is never exported to training.
TRAINING_SPLITS = frozenset({Split.TRAIN})


class ConflictStatus(StrEnum):
    OPEN = "open"
    CLAIMED = "claimed"
    ADJUDICATED = "adjudicated"
    DEFERRED = "deferred"


class Verdict(StrEnum):
    ACCEPTABLE = "acceptable"
    MINOR = "minor"
    SERIOUS = "serious"
    UNSAFE = "unsafe"
    CANNOT_JUDGE = "cannot_judge"


class WhoWasRight(StrEnum):
    TEACHER = "teacher"
    RULES = "rules"
    BOTH_PARTLY = "both_partly"
    NEITHER = "neither"


class Confidence(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


#: A job in one of these will not change again unless a person retries it (a retry is a new attempt of the same row).
FINAL_JOB_STATUSES = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.LOST})


class CancelMode(StrEnum):
    """How a running job is asked to end."""

    STOP_NOW = "stop_now"
    STOP_AND_SAVE = "stop_and_save"


class VersionKind(StrEnum):
    BASE = "base"
    SFT = "sft"
    RL = "rl"
    EXTERNAL = "external"


class VersionStatus(StrEnum):
    CANDIDATE = "candidate"
    SERVING = "serving"
    RETIRED = "retired"


class Vote(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question put to a model, with what is known about it. `sample_id` is None for a prompt typed by a person."""

    messages: tuple[Message, ...]
    language: Language
    category: str = "general"
    risk: Risk = Risk.LOW
    reference: str | None = None
    #: short facts that a good answer states (from the demo world or the importer); empty when unknown
    key_points: tuple[str, ...] = ()
    #: statements that would contradict a safety fact of the reference
    forbidden: tuple[str, ...] = ()
    sample_id: int | None = None
    #: fingerprints of what looks like an identifier and may leave: surrogates, and what a person released (core.deidentify)
    cleared: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """The last user turn."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.content
        return ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote. `text` is the whole output; `thinking` and `answer` are its two parts (`core.completions.split`)."""

    text: str
    thinking: str
    answer: str
    finish_reason: str = "stop"
    completion_id: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of one part ("thinking" or "answer" or "prompt") that caused a score."""

    part: str
    start: int
    end: int
    rule_id: str
    #: which lexicon entry matched, for the person who asks why
    term: str
    #: "hit" supports the score, "miss" marks what a missing piece was expected for
    kind: str = "hit"


@dataclass(frozen=True, slots=True)
class RuleScore:
    """One rule's number. Exactly one of `score` and `unscored_reason` is set."""

    rule_id: str
    score: float | None
    lexicon_version: str
    spans: tuple[Span, ...] = ()
    unscored_reason: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A teacher's opinion. Exactly one of `teacher_score` and `unscored_reason` is set."""

    teacher: str
    rubric_version: str
    teacher_score: float | None
    safety_flag: bool | None = None
    critique: str = ""
    suggested_answer: str | None = None
    unscored_reason: str | None = None
    #: True for the offline teacher, which compares with the reference; every screen says so
    is_offline: bool = False
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Weights of `core.rewards.combine` and the conflict threshold, versioned; a change is a new version."""

    version: str
    chain: float = 0.35
    emergency: float = 0.25
    risk_penalty: float = 0.15
    teacher: float = 0.25
    conflict_threshold: float = 0.35


@dataclass(frozen=True, slots=True)
class Reward:
    """What the optimiser sees. `parts` holds every part in [0, 1] or None; `value` is None when nothing could be scored."""

    value: float | None
    parts: dict[str, float | None]
    config_version: str
    unscored_reason: str | None = None
