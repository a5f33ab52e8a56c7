"""The teacher: a second opinion on a completion, from an OpenAI-compatible endpoint or from the sample's own reference.

Invariant: a teacher never raises for what it could not judge. It returns an unscored judgement with one of `REASONS`, and
unscored is never zero. `open_teacher` chooses by the settings: an endpoint when one is set, else the offline teacher.

Settings for DeepSeek: CONSILIUM_TEACHER_BASE_URL=https://api.deepseek.com, CONSILIUM_TEACHER_MODEL=deepseek-chat and
CONSILIUM_TEACHER_API_KEY. Any endpoint with /chat/completions works the same way (vLLM, Ollama, our own model server).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.records import Completion, Judgement, Prompt
from core.settings import Settings
from core.teacher.api import ApiTeacher, load_template
from core.teacher.offline import OfflineTeacher

#: Every reason for which a judgement may be unscored; `scoring.reason_<code>` in assets/i18n says it to people.
REASONS = (
    "no_reference",
    "empty_answer",
    "off_menu_verdict",
    "refused",
    "timeout",
    "rate_limited",
    "unreachable",
    "bad_key",
    "server_error",
    "bad_request",
)
#: Reasons that will not change by asking again; the others are asked again by the next score job.
LASTING_REASONS = frozenset({"no_reference", "empty_answer"})

__all__ = ["LASTING_REASONS", "REASONS", "ApiTeacher", "OfflineTeacher", "Teacher", "load_template", "open_teacher"]


class Teacher(Protocol):
    """Judges completions. `name` and `rubric_version` are stored with every judgement."""

    @property
    def name(self) -> str: ...

    @property
    def rubric_version(self) -> str: ...

    @property
    def is_offline(self) -> bool: ...

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        """One judgement per completion, in order. Never raises for an endpoint that is down."""
        ...


def open_teacher(settings: Settings) -> Teacher:
    """The teacher of the settings. Without an endpoint: the offline teacher."""
    if not settings.teacher_base_url:
        return OfflineTeacher()
    return ApiTeacher(
        base_url=settings.teacher_base_url,
        model=settings.teacher_model,
        api_key=settings.teacher_api_key,
        timeout_s=settings.teacher_timeout_s,
    )
