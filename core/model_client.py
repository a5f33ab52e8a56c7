"""Talking to a model version: the local model server, or the OpenAI-compatible endpoint that a version stands for.

Both speak `POST {base}/chat/completions` with server-sent events. A version's key is read from the environment variable whose
name is stored with it, at the moment of the call. Every fault becomes one sentence, and none of these sentences names the
version: the bench shows them in blind pairs. Called by the bench (asynchronously) and by `core.ask`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.errors import Unavailable, UserError
from core.home import current_home
from core.models import get_version
from core.privacy_doors import outside_messages
from core.records import Message, VersionKind
from core.serving.token import server_token
from db.engine import read_session

#: the first token may have to wait until weights are loaded; after it, silence this long means the stream is dead
TIMEOUT = httpx.Timeout(5.0, read=90.0, write=10.0)
#: asked of an external endpoint when the caller sets no limit
EXTERNAL_TOKENS = 1024
#: an endpoint there (llama.cpp's server, Ollama) needs no proxy, and over plain HTTP no certificates
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEALTH_TIMEOUT = httpx.Timeout(2.0)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text as it arrives. `finish_reason` is set on the last one only (its text may be empty)."""

    text: str
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    #: only then may a proxy of the environment be used, and only then are certificates needed: loading them takes longer than an
    #: answer of a small model, and loopback has none
    is_remote: bool = False


class _Reader:
    """Server-sent events of one completion, line by line. Reasoning that an endpoint sends apart is put into `<think>`."""

    def __init__(self) -> None:
        self.is_done = False
        self._is_thinking = False
        self._reason: str | None = None

    def feed(self, line: str) -> Delta | None:
        if not line.startswith("data:"):
            return None
        data = line[5:].strip()
        if data == "[DONE]":
            self.is_done = True
            return Delta("</think>\n" if self._is_thinking else "", self._reason or "stop")
        try:
            event = json.loads(data)
            if "error" in event:
                raise Unavailable("bench.broken_stream")
            choice = event["choices"][0] if event.get("choices") else {}
            delta = choice.get("delta") or {}
            thought, said = str(delta.get("reasoning_content") or ""), str(delta.get("content") or "")
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise Unavailable("bench.broken_stream") from error
        self._reason = choice.get("finish_reason") or self._reason
        text = ""
        if thought:
            text += thought if self._is_thinking else "<think>" + thought
            self._is_thinking = True
        if said:
            text += "</think>\n" + said if self._is_thinking else said
            self._is_thinking = False
        return Delta(text) if text else None


def stream_chat(
    version_name: str, messages: Sequence[Message], *, temperature: float = 0.2, seed: int = 0, max_new_tokens: int | None = None
) -> Iterator[str]:
    """The completion of `messages` by a version, in pieces of text; `<think>` tags are kept.

    Raises NotFound("models.no_such_version"), UserError("bench.key_missing" / "bench.too_long" / "privacy.leaving"),
    Unavailable("bench.server_down" /
    "bench.timeout" / "bench.endpoint_refused" / "bench.weights_missing" / "bench.server_busy" / "bench.endpoint_error" /
    "bench.broken_stream").
    """
    call = _prepare(version_name, messages, temperature, seed, max_new_tokens)
    reader = _Reader()
    with (
        _explained(),
        httpx.Client(timeout=TIMEOUT, trust_env=call.is_remote, verify=call.is_remote) as client,
        client.stream("POST", call.url, headers=call.headers, json=call.body) as response,
    ):
        if response.is_error:
            response.read()
            raise _refusal(response)
        for line in response.iter_lines():
            delta = reader.feed(line)
            if delta is not None and delta.text:
                yield delta.text
    if not reader.is_done:
        raise Unavailable("bench.broken_stream")


async def astream_chat(
    version_name: str, messages: Sequence[Message], *, temperature: float = 0.2, seed: int = 0, max_new_tokens: int | None = None
) -> AsyncIterator[Delta]:
    """As `stream_chat`, asynchronously and with the finish reason. Closing the iterator closes the connection."""
    call = _prepare(version_name, messages, temperature, seed, max_new_tokens)
    reader = _Reader()
    with _explained():
        async with (
            httpx.AsyncClient(timeout=TIMEOUT, trust_env=call.is_remote, verify=call.is_remote) as client,
            client.stream("POST", call.url, headers=call.headers, json=call.body) as response,
        ):
            if response.is_error:
                await response.aread()
                raise _refusal(response)
            async for line in response.aiter_lines():
                delta = reader.feed(line)
                if delta is not None:
                    yield delta
    if not reader.is_done:
        raise Unavailable("bench.broken_stream")


def server_is_up() -> bool:
    """Does the local model server answer? Asked by pages before they offer something that needs it."""
    home = current_home()
    try:
        response = httpx.get(
            f"http://127.0.0.1:{home.settings.model_server_port}/health",
            headers={"Authorization": f"Bearer {server_token(home)}"},
            timeout=HEALTH_TIMEOUT,
            trust_env=False,
            verify=False,  # noqa: S501 - loopback, plain HTTP
        )
    except httpx.HTTPError:
        return False
    return response.is_success


def _prepare(version_name: str, messages: Sequence[Message], temperature: float, seed: int, max_new_tokens: int | None) -> _Call:
    with read_session() as session:
        version = get_version(session, version_name)
    if version.kind == VersionKind.EXTERNAL:
        messages = outside_messages(messages)
    body: dict[str, Any] = {
        "model": version.endpoint_model if version.kind == VersionKind.EXTERNAL else version.name,
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "temperature": temperature,
        "seed": seed,
        "stream": True,
    }
    if version.kind == VersionKind.EXTERNAL:
        max_new_tokens = max_new_tokens or EXTERNAL_TOKENS
    if max_new_tokens is not None:  # without it the local server gives what the model's context still holds
        body["max_tokens"] = max_new_tokens
    if version.kind != VersionKind.EXTERNAL:
        home = current_home()
        headers = {"Authorization": f"Bearer {server_token(home)}"}
        return _Call(f"http://127.0.0.1:{home.settings.model_server_port}/v1/chat/completions", headers, body)
    variable = str(version.manifest.get("key_variable") or "")
    key = os.environ.get(variable, "") if variable else ""
    if variable and not key:
        raise UserError("bench.key_missing")
    is_here = urlsplit(version.endpoint_url).hostname in LOOPBACK and version.endpoint_url.startswith("http:")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return _Call(f"{version.endpoint_url}/chat/completions", headers, body, is_remote=not is_here)


@contextmanager
def _explained() -> Iterator[None]:
    """Network faults as sentences."""
    try:
        yield
    except httpx.ConnectError as error:
        raise Unavailable("bench.server_down") from error
    except httpx.TimeoutException as error:
        raise Unavailable("bench.timeout") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable("bench.broken_stream") from error


def _refusal(response: httpx.Response) -> UserError:
    if "serving.too_long" in response.text or "context_length_exceeded" in response.text:
        return UserError("bench.too_long")
    if response.status_code in (401, 403):
        return Unavailable("bench.endpoint_refused")
    if "serving.weights_changed" in response.text:
        return Unavailable("bench.weights_missing")
    if response.status_code in (429, 503):
        return Unavailable("bench.server_busy")
    return Unavailable("bench.endpoint_error", status=response.status_code)
