"""What a teacher model is asked, and how the judged text is kept from speaking to it. Pure but for reading two files once.

The patient's and the model's words travel as one JSON object on lines of their own between two marks. The marks and the
receipt word are random per request, so nothing that was written before can contain them; the receipt must come back in the
verdict, so a verdict that stands in the judged text cannot pass as the judge's. Inside the JSON, control and format characters
and everything that a chat format could take for one of its own tokens are written as \\u escapes: the data stay the same for
a reader of JSON and mean nothing to a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.completions import split_completion
from core.records import Completion, Prompt

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "assets" / "prompts" / "teacher_v2.toml"
RUBRIC = ROOT / "assets" / "rubric.md"
#: openings of special tokens and tags: <|im_end|>, <｜Assistant｜>, </system>, <system>, [INST], <<SYS>>
_TOKEN_LIKE = re.compile(r"[<\uff1c](?=[|｜/<A-Za-z!])|\[(?=/?INST\b)", re.IGNORECASE)
#: categories of characters that show nothing or move the text around
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Request:
    """The two messages for one completion, and the word that the verdict must repeat."""

    messages: list[dict[str, str]]
    receipt: str

    @property
    def num_bytes(self) -> int:
        """UTF-8 length of the contents: no byte-level tokenizer makes more tokens of them."""
        return sum(len(m["content"].encode()) for m in self.messages)


@dataclass(frozen=True, slots=True)
class Template:
    """The prompt template and the rubric's version: the template's name plus eight digits of the hash of template and rubric."""

    version: str
    texts: dict[str, dict[str, str]]

    def request(self, prompt: Prompt, completion: Completion) -> Request:
        """The request for one completion, with marks and receipt of its own."""
        texts, data = self.texts[prompt.language.value], encode(judged(prompt, completion))
        fence, receipt = _unused("=====DATA-", "=====", data), _unused("r-", "", data)
        user = texts["user"].strip().replace("{fence}", fence).replace("{receipt}", receipt).replace("{data}", data)
        return Request([{"role": "system", "content": texts["system"].strip()}, {"role": "user", "content": user}], receipt)


def judged(prompt: Prompt, completion: Completion) -> dict[str, object]:
    """What the teacher sees of a prompt and its completion; the cache key is made from the same."""
    return {
        "conversation": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "thinking": completion.thinking,
        "answer": completion.answer,
        "reference_answer": split_completion(prompt.reference).answer if prompt.reference else None,
        "key_points": list(prompt.key_points),
    }


def cache_key(prompt: Prompt, completion: Completion, *, model: str, rubric_version: str) -> str:
    """SHA-256 over everything that decides a verdict: model, rubric, language, conversation, reference and completion."""
    parts = [model, rubric_version, prompt.language.value, judged(prompt, completion)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def encode(data: object) -> str:
    """JSON of `data` in which nothing looks like an instruction to a machine; json.loads gives `data` back."""
    text = json.dumps(data, ensure_ascii=False, indent=1)
    text = _TOKEN_LIKE.sub(lambda m: _escape(m.group()), text)
    return "".join(_escape(c) if c != "\n" and unicodedata.category(c) in _UNSEEN else c for c in text)


def _escape(character: str) -> str:
    return json.dumps(character, ensure_ascii=True)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"


def _unused(before: str, after: str, data: str) -> str:
    """A random word that does not stand in `data`."""
    while (word := f"{before}{secrets.token_hex(8)}{after}") in data:
        continue
    return word


@cache
def load_template(path: Path = TEMPLATE, rubric: Path = RUBRIC) -> Template:
    """Read a prompt template and hash it with the rubric. Raises FileNotFoundError and tomllib.TOMLDecodeError."""
    content = path.read_bytes()
    raw = tomllib.loads(content.decode("utf-8"))
    digest = hashlib.sha256(content + rubric.read_bytes()).hexdigest()[:8]
    return Template(f"{raw['name']}-{digest}", {language: raw[language] for language in ("en", "zh")})
