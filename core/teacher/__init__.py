"""The teacher: a second opinion on a completion, from an OpenAI-compatible endpoint or from the sample's own reference.

Invariant: a teacher never raises for what it could not judge. It returns an unscored judgement with one of `REASONS`, and
unscored is never zero. `open_teacher` chooses by the settings: an endpoint when one is set, else the offline teacher.

Settings for DeepSeek: CONSILIUM_TEACHER_BASE_URL=https://api.deepseek.com, CONSILIUM_TEACHER_MODEL=deepseek-chat and
CONSILIUM_TEACHER_API_KEY. Any endpoint with /chat/completions works the same way (vLLM, Ollama, our own model server).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from core.privacy_doors import StrictDoor, TeacherDoor
from core.records import Completion, Judgement, Prompt
from core.settings import Settings
from core.teacher.api import ApiTeacher
from core.teacher.asking import Options
from core.teacher.journal import FOLDER, Journal
from core.teacher.ledger import Ledger
from core.teacher.offline import OfflineTeacher
from core.teacher.records import LASTING_REASONS, REASONS, Health, Usage
from core.teacher.template import load_template

__all__ = [
    "LASTING_REASONS",
    "REASONS",
    "ApiTeacher",
    "Health",
    "OfflineTeacher",
    "Options",
    "Teacher",
    "Usage",
    "load_template",
    "open_teacher",
]


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

    def submit(self, prompt: Prompt, completion: Completion, *, priority: int | None = None) -> Future[Judgement]:
        """Start one judgement; smaller priorities go first (default: high risk first). For work that goes on meanwhile."""
        ...

    def usage(self) -> Usage:
        """What was done since the teacher was opened."""
        ...

    def health(self, *, probe: bool = False) -> Health:
        """Whether it makes sense to ask now; with `probe`, after asking the endpoint when there is no fresh news."""
        ...

    def wait_idle(self, timeout_s: float = 60.0) -> bool:
        """Wait for what is still open (second opinions); call it at the end of a job."""
        ...


def open_teacher(settings: Settings, *, ledger: Ledger | None = None) -> Teacher:
    """The teacher of the settings; without an endpoint, the offline teacher. Without `ledger` it remembers nothing."""
    if not settings.teacher_base_url:
        return OfflineTeacher()
    journal = Journal(settings.home / "logs" / FOLDER, with_text=settings.teacher_log_text, secrets=(settings.teacher_api_key,))
    return ApiTeacher(
        base_url=settings.teacher_base_url,
        model=settings.teacher_model,
        api_key=settings.teacher_api_key,
        options=Options(
            timeout_s=settings.teacher_timeout_s,
            num_at_once=settings.teacher_num_at_once,
            requests_per_minute=settings.teacher_requests_per_minute,
            tokens_per_minute=settings.teacher_tokens_per_minute,
            max_output_tokens=settings.teacher_max_output_tokens,
            audit_share=settings.teacher_audit_share,
        ),
        ledger=ledger,
        journal=journal if ledger is not None else None,
        door=TeacherDoor() if ledger is not None else StrictDoor(),
    )
