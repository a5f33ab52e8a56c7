"""One request to a chat-completions endpoint: how it is put, sent, bounded and read. No retries here, no state but a dialect.

An endpoint is asked for a JSON schema first, then for any JSON object, then in plain words; what it accepted is its dialect and
is kept. A reply is read as a stream with an upper size, so neither a flood nor a drip can do harm (the caller's deadline ends
a drip). Called by `core.teacher.api`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.teacher.ledger import Attempt
from core.teacher.limits import retry_after_s
from core.teacher.prices import Price
from core.teacher.template import Request
from core.teacher.verdict import SCHEMA, Verdict, read_reply

MAX_REPLY_BYTES = 1_000_000
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: tries that a person or the endpoint must mend; asking again at once is useless
HOPELESS = frozenset({"bad_key", "no_credit", "bad_request", "refused"})
PROBE = [{"role": "user", "content": "Reply with the word ok."}]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an endpoint likes to be asked. `mode` is json_schema, json_object or plain."""

    mode: str = "json_schema"
    limit_field: str = "max_tokens"
    has_temperature: bool = True

    def after_refusal(self, complaint: str) -> Dialect | None:
        """The next thing to try after a 400, or None when there is nothing left."""
        if self.limit_field == "max_tokens" and "max_completion_tokens" in complaint:
            return replace(self, limit_field="max_completion_tokens")
        if self.has_temperature and "temperature" in complaint:
            return replace(self, has_temperature=False)
        if self.mode == "json_schema":
            return replace(self, mode="json_object")
        return replace(self, mode="plain") if self.mode == "json_object" else None


@dataclass(slots=True)
class Reply:
    """What came of one request. `attempt` is filled in and ready for the ledger; `complaint` is an error body's text."""

    attempt: Attempt
    verdict: Verdict | None = None
    complaint: str = ""
    retry_after_s: float | None = None
    headers: httpx.Headers | None = None
    text: str = ""


class Endpoint:
    """Where and how to ask. `host` says where without the path, for logs and screens."""

    def __init__(self, base_url: str, model: str, api_key: str, max_output_tokens: int) -> None:
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.host = urlsplit(base_url).netloc
        self.model = model
        self.max_output_tokens = max_output_tokens
        self.name = f"{base_url.rstrip('/')} {model}"
        self._key = api_key
        self._is_local = (urlsplit(base_url).hostname or "") in LOOPBACK

    def client(self, timeout_s: float, num_at_once: int) -> httpx.AsyncClient:
        """A client that keeps its connections; to be closed. A proxy of the environment is not used for this machine."""
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx.Limits(max_connections=num_at_once, max_keepalive_connections=num_at_once, keepalive_expiry=30.0),
            trust_env=not self._is_local,
        )

    def body(self, messages: list[dict[str, str]], dialect: Dialect, max_tokens: int) -> dict[str, Any]:
        """The JSON of a request."""
        body: dict[str, Any] = {"model": self.model, "messages": messages, dialect.limit_field: max_tokens}
        if dialect.has_temperature:
            body["temperature"] = 0.0
        if dialect.mode == "json_schema":
            body["response_format"] = {"type": "json_schema", "json_schema": SCHEMA}
        elif dialect.mode == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    async def ask(
        self, client: httpx.AsyncClient, request: Request | None, dialect: Dialect, price: Price | None, attempt: Attempt
    ) -> Reply:
        """Send one request (None: a probe, whose reply need not be a verdict) and fill in `attempt`.

        Never raises for the endpoint; cancelling leaves the attempt marked as unclear, for it may have been billed.
        """
        messages, max_tokens = (PROBE, 1) if request is None else (request.messages, self.max_output_tokens)
        plain = replace(dialect, mode="plain") if request is None else dialect
        reply, started = Reply(attempt), time.monotonic()
        attempt.is_unclear, attempt.reason = True, "timeout"
        try:
            async with client.stream("POST", self.url, json=self.body(messages, plain, max_tokens)) as response:
                attempt.status, reply.headers = response.status_code, response.headers
                reply.retry_after_s = retry_after_s(response.headers.get("retry-after"))
                content = bytearray()
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > MAX_REPLY_BYTES:
                        break
            reply.text = content.decode("utf-8", "replace")
            _read(reply, request, price)
        except httpx.ConnectError:
            attempt.reason, attempt.is_unclear = "unreachable", False
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            attempt.reason, attempt.is_unclear = "timeout", False
        except httpx.TimeoutException:
            attempt.reason = "timeout"
        except (httpx.TransportError, httpx.DecodingError) as error:
            attempt.reason = "unreachable"  # the connection broke after the request was sent
            attempt.detail["fault"] = type(error).__name__
        finally:
            attempt.latency_s = time.monotonic() - started
        return reply


def _read(reply: Reply, request: Request | None, price: Price | None) -> None:
    """Status and body of a reply that came whole."""
    attempt = reply.attempt
    if attempt.status is None or not 200 <= attempt.status < 300:
        attempt.is_unclear = False  # errors are not billed
        reply.complaint = reply.text[:2000]
        attempt.reason = _reason(attempt.status or 0, reply.complaint)
        return
    try:
        body = json.loads(reply.text)
    except ValueError:
        attempt.reason = "off_menu_verdict"  # half a reply: it was written, so it may have been billed
        attempt.detail["fault"] = "body is not JSON"
        return
    _read_usage(attempt, body, price)
    if request is None:
        attempt.reason = None if isinstance(body, dict) and body.get("choices") else "off_menu_verdict"
        return
    reply.verdict, attempt.reason = read_reply(body, request.receipt)


def _reason(status: int, complaint: str) -> str:
    if status in (401, 403):
        return "bad_key"
    if status == 402 or (status == 429 and "insufficient_quota" in complaint):
        return "no_credit"
    if status == 429:
        return "rate_limited"
    return "server_error" if status >= 500 or status in (408, 409, 425) else "bad_request"


def _read_usage(attempt: Attempt, body: Any, price: Price | None) -> None:
    """Tokens as the endpoint counts them (OpenAI's and DeepSeek's names for cached ones), and the cost if both are known."""
    if not isinstance(body, dict):
        return
    attempt.reported_model, attempt.fingerprint = str(body.get("model") or "")[:200], str(body.get("system_fingerprint") or "")[:200]
    usage = body.get("usage")
    if not isinstance(usage, dict):
        attempt.cost_usd, attempt.is_unclear = None, True
        return
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
    attempt.prompt_tokens, attempt.completion_tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    attempt.cached_tokens = _count(cached)
    attempt.has_usage, attempt.is_unclear = True, False
    attempt.cost_usd = price.cost(attempt.prompt_tokens, attempt.cached_tokens, attempt.completion_tokens) if price else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
