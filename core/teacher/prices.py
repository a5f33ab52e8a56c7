"""What a call costs: a dated price per model, the cost of a reply, and the most that a request can cost. Pure but for one file.

An unknown model has an unknown cost (None), never zero. The most a request can cost is reserved against the budget before it
is sent: a byte-level tokenizer makes at most one token of a byte, so UTF-8 length bounds the prompt; `max_tokens` the reply.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

PRICES = Path(__file__).resolve().parents[2] / "assets" / "prompts" / "prices.toml"
#: what chat formats add per message beyond its content, generously
TOKENS_PER_MESSAGE = 16


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens. `cached_input` is the price of prompt tokens from the endpoint's own cache (else as `input`)."""

    model: str
    input: float
    output: float
    cached_input: float | None
    as_of: date
    source: str = ""

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
        """USD for one reply; `cached_tokens` are part of `prompt_tokens`."""
        cached = min(cached_tokens, prompt_tokens)
        cheap = self.input if self.cached_input is None else self.cached_input
        return ((prompt_tokens - cached) * self.input + cached * cheap + completion_tokens * self.output) / 1e6

    def most(self, num_bytes: int, num_messages: int, max_tokens: int) -> float:
        """The most USD that a request with this many bytes of content can cost."""
        return self.cost(num_bytes + TOKENS_PER_MESSAGE * num_messages, 0, max_tokens)


def shipped_prices(path: Path = PRICES) -> dict[str, Price]:
    """The prices of the file by model; a later entry for the same model wins by date."""
    found: dict[str, Price] = {}
    for row in tomllib.loads(path.read_text(encoding="utf-8")).get("price", []):
        price = Price(row["model"], float(row["input"]), float(row["output"]), row.get("cached_input"), row["as_of"], row["source"])
        if price.model not in found or found[price.model].as_of <= price.as_of:
            found[price.model] = price
    return found
