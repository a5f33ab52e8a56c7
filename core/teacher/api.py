"""A teacher behind any OpenAI-compatible endpoint: structured verdicts, several at once, and no call that can hang a job.

The patient's and the model's words are passed as JSON between two marks that the data cannot contain, so they stay data.
The verdict is parsed strictly: anything else than the four fields in their ranges is unscored. `timeout_s` bounds one
judgement as a whole, retries included; only rate limits, server faults and broken connections are tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.completions import split_completion
from core.records import Completion, Judgement, Prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

TEMPLATE = Path(__file__).resolve().parents[2] / "assets" / "prompts" / "teacher_v1.toml"
NUM_AT_ONCE = 8
#: Pauses before the second and the third attempt, in seconds.
BACKOFF_S = (0.5, 2.0)
MAX_OUTPUT_TOKENS = 800
_FENCED = re.compile(r"^\s*```(?:json)?\s*(\{.*\})\s*```\s*$", re.DOTALL)


class Verdict(BaseModel):
    """What the teacher model must reply. Unknown fields, strings for numbers and scores outside 0 to 1 are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    teacher_score: float = Field(ge=0, le=1)
    safety_flag: bool
    critique: str = Field(min_length=1)
    suggested_answer: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """The prompt template and its version: name plus eight digits of its hash."""

    version: str
    texts: dict[str, dict[str, str]]

    def messages(self, prompt: Prompt, completion: Completion) -> list[dict[str, str]]:
        """The two messages for one completion."""
        reference = split_completion(prompt.reference).answer if prompt.reference else None
        data = {
            "conversation": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "thinking": completion.thinking,
            "answer": completion.answer,
            "reference_answer": reference,
            "key_points": list(prompt.key_points),
        }
        encoded = json.dumps(data, ensure_ascii=False, indent=1)
        fence = f"=====DATA-{hashlib.sha256(encoded.encode()).hexdigest()[:16]}====="
        texts = self.texts[prompt.language.value]
        return [
            {"role": "system", "content": texts["system"].strip().replace("{fence}", fence)},
            {"role": "user", "content": texts["user"].strip().replace("{fence}", fence).replace("{data}", encoded)},
        ]


@cache
def load_template(path: Path = TEMPLATE) -> Template:
    """Read a prompt template. Raises FileNotFoundError and tomllib.TOMLDecodeError."""
    content = path.read_bytes()
    raw = tomllib.loads(content.decode("utf-8"))
    version = f"{raw['name']}-{hashlib.sha256(content).hexdigest()[:8]}"
    return Template(version, {language: raw[language] for language in ("en", "zh")})


class ApiTeacher:
    """Asks a chat-completions endpoint. The openai package is imported at the first judgement, not before."""

    is_offline = False

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str = "",
        timeout_s: float = 60.0,
        num_at_once: int = NUM_AT_ONCE,
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self.name = model
        self.template = load_template()
        self._base_url = base_url
        self._api_key = api_key or "none"
        self._timeout_s = timeout_s
        self._num_at_once = num_at_once
        self._backoff_s = tuple(backoff_s)

    @property
    def rubric_version(self) -> str:
        return self.template.version

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        """One judgement per completion, in order; up to `num_at_once` requests run together."""
        if not completions:
            return []
        with ThreadPoolExecutor(1) as pool:  # a thread of its own: the caller may itself run in an event loop
            return pool.submit(lambda: asyncio.run(self._judge_all(prompts, completions))).result()

    async def _judge_all(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        from openai import AsyncOpenAI

        gate = asyncio.Semaphore(self._num_at_once)
        async with AsyncOpenAI(base_url=self._base_url, api_key=self._api_key, timeout=self._timeout_s, max_retries=0) as client:

            async def one(prompt: Prompt, completion: Completion) -> Judgement:
                async with gate:
                    return await self._judge_one(client, prompt, completion)

            return list(await asyncio.gather(*(one(p, c) for p, c in zip(prompts, completions, strict=True))))

    async def _judge_one(self, client: AsyncOpenAI, prompt: Prompt, completion: Completion) -> Judgement:
        started = time.monotonic()
        messages = self.template.messages(prompt, completion)
        try:
            async with asyncio.timeout(self._timeout_s):
                verdict, reason = await self._ask(client, messages)
        except TimeoutError:
            verdict, reason = None, "timeout"
        latency_s = time.monotonic() - started
        if verdict is None:
            return Judgement(self.name, self.rubric_version, None, unscored_reason=reason, latency_s=latency_s)
        return Judgement(
            self.name,
            self.rubric_version,
            verdict.teacher_score,
            safety_flag=verdict.safety_flag,
            critique=verdict.critique.strip(),
            suggested_answer=verdict.suggested_answer,
            latency_s=latency_s,
        )

    async def _ask(self, client: AsyncOpenAI, messages: list[dict[str, str]]) -> tuple[Verdict | None, str | None]:
        """The verdict, or None and the reason why there is none."""
        import openai

        request: dict[str, Any] = {"model": self.name, "messages": messages, "temperature": 0.0, "max_tokens": MAX_OUTPUT_TOKENS}
        request["response_format"] = {"type": "json_object"}
        reason = "server_error"
        for pause_s in (*self._backoff_s, None):
            try:
                response = await client.chat.completions.create(**request)
            except openai.APITimeoutError:
                return None, "timeout"
            except openai.APIConnectionError:
                reason = "unreachable"
            except openai.RateLimitError:
                reason = "rate_limited"
            except (openai.AuthenticationError, openai.PermissionDeniedError):
                return None, "bad_key"
            except openai.InternalServerError:
                reason = "server_error"
            except openai.BadRequestError:
                if "response_format" not in request:
                    return None, "bad_request"
                del request["response_format"]  # an endpoint that knows no JSON mode: the instruction has to do
                continue
            except openai.APIStatusError:
                return None, "bad_request"
            except (openai.APIResponseValidationError, ValueError):
                return None, "off_menu_verdict"
            else:
                return read_reply(response)
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        return None, reason


def read_reply(response: Any) -> tuple[Verdict | None, str | None]:
    """The verdict in a chat completion, or the reason why it holds none."""
    choices = getattr(response, "choices", None)
    if not choices:
        return None, "off_menu_verdict"
    choice = choices[0]
    if choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None):
        return None, "refused"
    verdict = read_verdict(choice.message.content or "")
    return verdict, None if verdict else "off_menu_verdict"


def read_verdict(text: str) -> Verdict | None:
    """The verdict that `text` is (a JSON object, a code fence around it is forgiven), or None."""
    fenced = _FENCED.match(text)
    try:
        return Verdict.model_validate_json(fenced.group(1) if fenced else text)
    except ValidationError:
        return None
